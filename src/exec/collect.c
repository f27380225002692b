/* collect.c - the process pool: the collecting thread.  It reads replies, deals tasks, starts,
 * buries and replaces workers.  State and invariants are in pool_impl.h, the protocol in channel.h.
 *
 * Each round looks at everything once (look); when there was nothing to hand out it raises
 * collector_asleep and looks again before it sleeps, so what happens between is seen or rings.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bell.h"
#include "base/memory.h"
#include "base/process.h"
#include "exec/pool_impl.h"

#define START_TRIES                                                                                \
    3u /* failed starts in a row, with no worker left, that fail the waiting tasks */
#define KILLED_TRIES  20u /* the same where somebody kills them, or they have served before */
#define BACKOFF_FIRST (10 * WEIR_MILLISECOND)
#define BACKOFF_MAX   (1000 * WEIR_MILLISECOND)
#define CHORES_EVERY  (5 * WEIR_MILLISECOND)

/* What one round produces. */
struct round {
    weir_completion *ret;
    size_t max, n;
    weir__after after;
    weir_time wake_at; /* look again then, even if nothing happens */
};

/* ---- the last batch ------------------------------------------------------------------------ */

/* The caller has read the last batch: its permits, replies and payloads go back. */
static void release_batch(weir_pool *pool)
{
    weir__after after = {0};
    for (size_t i = 0; i < pool->n_batch; i++) /* payload blocks: ours alone since retired */
        weir__arena_free(&pool->arena, &pool->batch[i]->block);
    for (unsigned i = 0; i < pool->n_desks; i++) {
        weir__arena_free(&pool->arena, &pool->desks[i].collected);
        weir__free(pool->desks[i].remains);
        pool->desks[i].remains = NULL;
    }

    weir__lock(&pool->mutex);
    pool->collector = weir__this_thread();
    for (size_t i = 0; i < pool->n_batch; i++)
        weir__tasks_free(&pool->tasks, pool->batch[i]);
    for (unsigned i = 0; i < pool->n_desks; i++) {
        weir__desk *desk = &pool->desks[i];
        if (!desk->live)
            continue;
        desk->freed = desk->scanned;
        /* release: our reads of the replies are done; pairs with the acquire in worker.c */
        atomic_store_explicit(&desk->seat->collected, desk->freed, memory_order_release);
        uint64_t tail =
            atomic_load_explicit(&desk->seat->extent_tail, memory_order_relaxed); /* ours */
        if (tail != desk->release_to) {
            /* release: our reads of the replies are done; pairs with the acquire in worker.c */
            atomic_store_explicit(&desk->seat->extent_tail, desk->release_to, memory_order_release);
            weir__pool_ring(&after, desk->seat);
        }
    }
    weir__pool_give_permits(pool, pool->unsettled, &after);
    pool->unsettled = 0;
    pool->n_batch = 0;
    weir__pool_unlock_soon(pool);
    weir__pool_do_after(pool, &after);
}

/* ---- keeping a completion's data ----------------------------------------------------------- */

/* The right to a block that the pool would free with the next collect. */
struct weir_pool_lease {
    weir__block block;
    bool unshared;
};

int weir_pool_keep(weir_pool *pool, weir_completion *completion, weir_pool_lease **ret_lease,
                   void **ret_data)
{
    (void)pool;
    weir__block *block = completion->block;
    if (!block || block->offset == 0 || completion->outcome != WEIR_OUTCOME_REPLIED)
        return WEIR_EINVAL;
    weir_pool_lease *lease = weir__malloc(sizeof *lease);
    if (!lease)
        return WEIR_ENOMEM;
    *lease = (weir_pool_lease){.block = *block};
    block->offset = 0;
    completion->block = NULL;
    *ret_lease = lease;
    *ret_data = lease->block.at;
    return 0;
}

void weir_pool_release(weir_pool *pool, weir_pool_lease *lease)
{
    if (!lease)
        return;
    if (!lease->unshared || weir__arena_reshare(&pool->arena, &lease->block))
        weir__pool_free_block(pool, &lease->block);
    weir__free(lease);
}

void weir_pool_unshare(weir_pool *pool, weir_pool_lease *lease)
{
    if (!lease->unshared)
        weir__arena_unshare(&pool->arena, &lease->block);
    lease->unshared = true;
}

/* ---- completing ---------------------------------------------------------------------------- */

/* Under the mutex: tells of a task; it is not over yet. */
static weir_completion *announce(struct round *round, const weir__task *task, weir_outcome outcome)
{
    weir_completion *completion = &round->ret[round->n++];
    *completion = (weir_completion){.tag = task->tag,
                                    .id = weir__task_id(task),
                                    .outcome = outcome,
                                    .is_batch = task->batch != NULL,
                                    .first = task->batch ? task->first : 0,
                                    .attempts = task->attempts};
    return completion;
}

/* Under the mutex: the task is over; this is the last that is told of it. */
static void end_task(weir_pool *pool, weir__task *task, weir_completion *completion)
{
    completion->last = !task->batch || weir__batch_leave(task, &task->block);
    pool->completed++;
    pool->unsettled++;
    pool->batch[pool->n_batch++] = task;
    weir__tasks_retire(&pool->tasks, task);
}

static weir_completion *complete(weir_pool *pool, struct round *round, weir__task *task,
                                 weir_outcome outcome)
{
    weir_completion *completion = announce(round, task, outcome);
    completion->items = task->batch ? task->limit - task->first : 0;
    end_task(pool, task, completion);
    return completion;
}

/* The desk's process has begun a task: it, and so the next one, can be started. */
static void note_beginning(weir_pool *pool, weir__desk *desk)
{
    desk->began = true;
    pool->start_failures = 0;
    pool->served = true;
}

/* A reply, as far as the parent believes what the slot says. */
struct reply {
    uint32_t kind;
    bool kept;      /* the worker keeps the payload */
    uint32_t items; /* of a part, that it is of */
    uint64_t size, position;
    const void *data;
};

/* Where the reply of a DONE slot lies; false: the slot says something impossible. */
static bool find_reply(const weir__desk *desk, const weir__slot *slot, const weir__task *task,
                       uint64_t size, struct reply *ret)
{
    *ret = (struct reply){.kind = slot->out_kind,
                          .kept = slot->kept != 0,
                          .size = size,
                          .position = slot->out_offset};
    if (ret->kept && (task->batch || task->block.offset == 0 || task->in_size < WEIR__LEASE_MIN))
        return false;
    uint64_t at = ret->position % WEIR__EXTENT;
    switch (ret->kind) {
    case OUT_INLINE: ret->data = slot->out; return ret->size <= WEIR__OUT_BYTES;
    case OUT_EXTENT:
        ret->data = (const char *)desk->extent.at + at;
        return ret->size <= WEIR__EXTENT_MAX && at + ret->size <= WEIR__EXTENT;
    case OUT_BLOCK:
        ret->data = desk->granted.at;
        return desk->granted.offset != 0 && ret->size <= desk->granted.size;
    case OUT_REFUSED: ret->size = 0; return desk->answered;
    case OUT_NO_MEMORY: ret->size = 0; return true;
    case OUT_TASK:
        ret->data = task->block.at;
        return !task->batch && task->block.offset != 0 && ret->size <= task->in_size && !ret->kept;
    default: return false;
    }
}

/* What the parent makes of the slot at a ring position. */
enum reading {
    READ_UNSETTLED, /* the worker has not come so far */
    READ_SKIPPED,   /* revoked, and the worker has passed it */
    READ_REPLY,     /* a task's reply */
    READ_NONSENSE,  /* somebody wrote over the worker's memory: it is not believed any more */
};

/* Whether what a worker says it did of a part fits together with the reply, which then says how many items that
 * were: what it says later is not believed. */
static bool is_part(const weir__slot *slot, const weir__task *task, struct reply *reply)
{
    weir__progress progress;
    if (reply->kind == OUT_NO_MEMORY)
        return true;
    bool is_possible = weir__batch_progress(slot, task, &progress);
    reply->items = progress.replied;
    return reply->kind != OUT_REFUSED && is_possible && !progress.runs_another &&
           progress.bytes == reply->size && (progress.replied > 0 || task->first == task->limit);
}

static enum reading read_slot(const weir_pool *pool, const weir__desk *desk, uint64_t position,
                              struct reply *ret)
{
    const weir__slot *slot = weir__slot_at(desk, position);
    /* acquire: pairs with the release of finish in worker.c; the reply is visible */
    uint32_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
    uint32_t index = desk->tasks[position % WEIR__SLOTS];
    bool revoked = index == WEIR__NO_TASK;
    if (state == SLOT_SKIPPED)
        return revoked ? READ_SKIPPED : READ_NONSENSE;
    if (state != SLOT_DONE)
        return READ_UNSETTLED;
    if (revoked)
        return READ_NONSENSE;
    const weir__task *task = weir__tasks_at(&pool->tasks, index);
    bool makes_sense = find_reply(desk, slot, task, slot->out_size, ret) &&
                       (!task->batch || is_part(slot, task, ret));
    return makes_sense ? READ_REPLY : READ_NONSENSE;
}

/* Under the mutex: hands out the replies of a part; if its worker ended it early, for want of room,
 * the rest goes back in line. */
static weir_completion *complete_part(weir_pool *pool, struct round *round, weir__task *task,
                                      const struct reply *reply)
{
    weir_completion *completion = announce(round, task, WEIR_OUTCOME_REPLIED);
    completion->items = reply->items;
    task->first += reply->items;
    task->attempts = 0;
    if (task->first == task->limit)
        end_task(pool, task, completion);
    else
        weir__tasks_put_back(&pool->tasks, task);
    return completion;
}

/* Under the mutex: hands out the reply at the desk's scanned position. */
static void collect_reply(weir_pool *pool, struct round *round, weir__desk *desk,
                          const struct reply *reply)
{
    const weir__slot *slot = weir__slot_at(desk, desk->scanned);
    uint32_t *index = &desk->tasks[desk->scanned % WEIR__SLOTS];
    weir__task *task = weir__tasks_at(&pool->tasks, *index);
    bool replied = reply->kind != OUT_NO_MEMORY && reply->kind != OUT_REFUSED;
    bool answered = reply->kind == OUT_BLOCK || reply->kind == OUT_REFUSED ||
                    (task->batch && slot->status != 0);
    weir_completion *completion =
        task->batch && replied
            ? complete_part(pool, round, task, reply)
            : complete(pool, round, task, replied ? WEIR_OUTCOME_REPLIED : WEIR_OUTCOME_NO_MEMORY);
    completion->attempts++;
    completion->status = slot->status;
    completion->service_ns = slot->service_ns;
    completion->peak_bytes = slot->peak_bytes;
    weir__pool_learn(pool, task, slot->peak_bytes);
    completion->data = reply->data;
    completion->data_size = reply->size;
    if (reply->kind == OUT_EXTENT)
        desk->release_to = reply->position + reply->size;
    if (answered) {
        desk->collected = desk->granted; /* the caller reads it until the next collect */
        if (reply->kind == OUT_BLOCK) {
            desk->collected.filled = desk->collected.size; /* by the worker */
            completion->block = &desk->collected;
        }
        desk->granted.offset = 0;
        desk->answered = false;
    }
    if (reply->kind == OUT_TASK)
        completion->block = &task->block;
    if (reply->kept)
        weir__arena_hold(&desk->kept, &task->block);
    pool->service_ns += (uint64_t)completion->service_ns;
    if (pool->record)
        weir__tell_time(&pool->record->service, completion->service_ns, 1);
    weir__ring_depth_measure(&pool->depth, completion->service_ns);
    weir__desk_done(desk, completion->service_ns);
    *index = WEIR__NO_TASK;
    desk->held--;
}

/* Under the mutex: goes along a worker's ring as far as it is settled. */
static void scan(weir_pool *pool, struct round *round, weir__desk *desk)
{
    uint64_t before = desk->scanned;
    struct reply reply;
    for (; desk->scanned < desk->dealt; desk->scanned++) {
        enum reading reading = read_slot(pool, desk, desk->scanned, &reply);
        if (reading == READ_NONSENSE)
            weir__pidfd_kill(desk->pidfd, SIGKILL); /* burying it settles the task as DIED */
        if (reading == READ_UNSETTLED || reading == READ_NONSENSE)
            break;
        if (reading == READ_REPLY) {
            if (round->n == round->max)
                break;
            collect_reply(pool, round, desk, &reply);
            note_beginning(pool, desk);
        }
    }
    if (round->n == 0)
        desk->freed = desk->scanned; /* only skipped ones: nobody reads them */
    if (desk->scanned != before) {
        desk->progressed = weir_now();
        desk->stalled = false;
    }
}

/* Answers the workers that want space for a large reply.  Without the mutex: nobody else touches
 * these fields, and system calls may take long. */
static void grant(weir_pool *pool)
{
    for (unsigned i = 0; i < pool->n_desks; i++) {
        weir__desk *desk = &pool->desks[i];
        if (!desk->live || desk->answered)
            continue;
        /* relaxed: the number is all that is told */
        uint64_t want = atomic_load_explicit(&desk->seat->want, memory_order_relaxed);
        if (want == 0)
            continue;
        bool given = weir__arena_alloc_unfilled(&pool->arena, want, &desk->granted) == 0;
        desk->answered = true;
        desk->seat->grant_offset = given ? desk->granted.offset : 0;
        desk->seat->grant_filled = given && desk->granted.filled == desk->granted.size;
        /* release: publishes grant_offset; pairs with the acquire in worker.c */
        atomic_store_explicit(&desk->seat->grant, given ? GRANT_GIVEN : GRANT_REFUSED,
                              memory_order_release);
        weir__ring_worker(desk->seat);
    }
}

/* Takes payloads back that workers have kept.  Without the mutex: nobody else touches them.  One
 * that is not among those kept may be of a reply that is not collected yet: it is looked for again
 * after that; if it is nonsense, its worker gets nothing of what it returns until it dies. */
static void take_returns(weir_pool *pool)
{
    for (unsigned i = 0; i < pool->n_desks; i++) {
        weir__desk *desk = &pool->desks[i];
        if (!desk->kept.first)
            continue;
        weir__seat *seat = desk->seat;
        /* acquire: pairs with the release of tell_returns in worker.c; publishes the offsets */
        uint64_t returned = atomic_load_explicit(&seat->returned, memory_order_acquire);
        uint64_t from = atomic_load_explicit(&seat->returns_taken, memory_order_relaxed); /* ours */
        uint64_t at = from;
        weir__block block;
        while (at != returned && at - from < WEIR__RETURNS &&
               weir__arena_unhold(&desk->kept, seat->returns[at % WEIR__RETURNS], &block)) {
            weir__arena_free(&pool->arena, &block);
            at++;
        }
        if (at == from)
            continue;
        /* release: we have read the offsets; pairs with the acquire in worker.c */
        atomic_store_explicit(&seat->returns_taken, at, memory_order_release);
        /* seq_cst: before the look at what it has told meanwhile; pairs with the one in sleep_unless.
         * A worker that found no room has told as many as there is room for, and then looks again
         * before it sleeps: one of us sees the other */
        atomic_thread_fence(memory_order_seq_cst);
        returned = atomic_load_explicit(&seat->returned, memory_order_relaxed);
        if (returned - from >= WEIR__RETURNS)
            weir__ring_worker(seat); /* it may have more */
    }
}

/* Follows what the worker says of itself.  One that has been ready is READY or leaves; one that says
 * anything else gets no tasks any more, so it has to go. */
static void see_state(weir_pool *pool, struct round *round, weir__desk *desk)
{
    /* acquire: pairs with the release of set_state in worker.c */
    uint32_t state = atomic_load_explicit(&desk->seat->state, memory_order_acquire);
    if (!desk->ready) {
        if (state == SEAT_STARTING || state == SEAT_FAILED)
            return;
        desk->ready = true;
        pool->memory.is_stale = true;
        pool->starting--;
    }
    if (state == SEAT_LEAVING) { /* holds it to that */
        atomic_store_explicit(&desk->seat->leave, 1, memory_order_release);
        weir__pool_ring(&round->after, desk->seat);
    } else if (state != SEAT_READY && desk->pid > 0) {
        weir__pidfd_kill(desk->pidfd, SIGKILL);
    }
}

/* ---- starting ------------------------------------------------------------------------------ */

static void note_start_failure(weir_pool *pool, const weir_exit *exit, const weir__seat *seat)
{
    bool said_why = seat && atomic_load_explicit(&seat->state, memory_order_acquire) == SEAT_FAILED;
    unsigned doublings = pool->start_failures < 7 ? pool->start_failures : 7;
    int64_t backoff = BACKOFF_FIRST << doublings;
    pool->start_failures++;
    pool->not_before = weir_after(backoff < BACKOFF_MAX ? backoff : BACKOFF_MAX);
    unsigned tries = exit->signal == SIGKILL || pool->served ? KILLED_TRIES : START_TRIES;
    if (pool->live > 0 || (!said_why && pool->start_failures < tries))
        return;
    /* Nobody is left to run what waits: say so rather than let it wait for ever. */
    pool->start_failures = 0;
    pool->failing_before = pool->tasks.next_seq;
    pool->failing_exit = *exit;
    uint32_t size = said_why ? seat->fail_size : 0;
    pool->fail_size = size <= WEIR__FAIL_BYTES ? size : 0;
    if (pool->fail_size)
        memcpy(pool->fail, seat->fail, pool->fail_size);
}

/* Those in line were there when the starts failed; the line is in order of acceptance. */
static bool is_failing(const weir_pool *pool)
{
    const weir__task *first = weir__tasks_first(&pool->tasks);
    return first && first->seq < pool->failing_before;
}

/* Under the mutex: hands out the tasks that no worker could be started for. */
static void fail_waiting(weir_pool *pool, struct round *round)
{
    while (is_failing(pool) && round->n < round->max) {
        weir__task *task = weir__tasks_first(&pool->tasks);
        weir__tasks_remove(&pool->tasks, task);
        weir_completion *completion = complete(pool, round, task, WEIR_OUTCOME_NOT_STARTED);
        completion->exit = pool->failing_exit;
        completion->data = pool->fail;
        completion->data_size = pool->fail_size;
    }
}

/* The pool's own way to start a worker: fork, and run the handler there. */
static int fork_worker(weir_pool *pool, unsigned seat, pid_t *ret_pid)
{
    weir_worker_ticket ticket;
    weir_pool_get_ticket(pool, seat, &ticket);
    pid_t pid = fork();
    if (pid < 0)
        return WEIR_ESPAWN;
    if (pid > 0) {
        *ret_pid = pid;
        return 0;
    }
    weir_worker *worker;
    weir_task task;
    weir_set_interrupt(NULL, NULL);
    if (weir_worker_open(&worker, &ticket) < 0)
        _exit(1);
    int rc;
    while ((rc = weir_worker_take(worker, &task, WEIR_FOREVER)) != WEIR_ECLOSED)
        if (rc == 0)
            pool->opts.handler(worker, &task, pool->opts.handler_ctx);
        else if (rc == WEIR_EINVAL)
            _exit(1); /* the handler has forgotten to reply */
    _exit(0);
}

static int start_process(weir_pool *pool, unsigned seat, pid_t *ret_pid, int *ret_pidfd)
{
    int rc = pool->opts.start ? pool->opts.start(pool->opts.process_ctx, seat, ret_pid)
                              : fork_worker(pool, seat, ret_pid);
    if (rc < 0)
        return rc;
    if (*ret_pid <= 0)
        return WEIR_ESPAWN; /* that would be a whole group of processes */
    *ret_pidfd = weir__pidfd_open(*ret_pid);
    if (*ret_pidfd >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = seat + 1};
        if (epoll_ctl(pool->epoll_fd, EPOLL_CTL_ADD, *ret_pidfd, &event) == 0)
            return 0;
        weir__pidfd_kill(*ret_pidfd, SIGKILL);
        close(*ret_pidfd);
    }
    /* Unwatched it would be lost; ended and reaped already, it has no pidfd. */
    weir_exit exit = {.pid = *ret_pid};
    if (*ret_pidfd != -ESRCH)
        kill(*ret_pid, SIGKILL);
    if (pool->opts.reap)
        pool->opts.reap(pool->opts.process_ctx, seat, &exit);
    else
        weir__reap(*ret_pid, &exit.code, &exit.signal);
    return WEIR_ESPAWN;
}

/* Makes a seat ready for a process.  Without the mutex, for reserving memory takes long: nobody else
 * has to do with a desk that is not live. */
static int prepare_desk(weir_pool *pool, unsigned seat, weir__block *extent)
{
    if (extent->offset == 0) {
        int rc = weir__arena_alloc(&pool->arena, WEIR__EXTENT, extent);
        if (rc < 0)
            return rc;
    }
    weir__seat_terms terms = {.tasks_max = pool->opts.tasks_per_worker,
                              .rss_max = pool->opts.max_worker_rss,
                              .measures = pool->opts.governor && pool->opts.task_bytes == 0};
    return weir__channel_prepare_seat(&pool->channel, seat, extent->offset, &terms);
}

/* Starts one worker on a free seat; there is one.  With the mutex, which is released meanwhile. */
static int start_one(weir_pool *pool, pid_t *ret_pid)
{
    unsigned seat = 0;
    while (pool->desks[seat].live)
        seat++;
    weir__desk *desk = &pool->desks[seat];
    weir__block extent = desk->extent;
    int pidfd = -1;
    weir__pool_unlock(pool);
    int rc = prepare_desk(pool, seat, &extent);
    if (rc == 0)
        rc = start_process(pool, seat, ret_pid, &pidfd);
    weir__lock(&pool->mutex);
    desk->extent = extent;
    if (rc < 0)
        return rc;
    desk->live = true;
    desk->pid = *ret_pid;
    desk->pidfd = pidfd;
    weir__desk_taken(pool, desk);
    pool->live++;
    pool->starting++;
    pool->workers_started++;
    if (pool->killed)
        weir__pidfd_kill(pidfd, SIGKILL);
    return 0;
}

int weir_pool_start_workers(weir_pool *pool, unsigned n)
{
    weir__lock(&pool->mutex);
    int rc = 0;
    while (rc == 0 && pool->live < n && pool->live < pool->allowed) {
        pid_t pid = 0;
        rc = pool->closed ? WEIR_ECLOSED : start_one(pool, &pid);
    }
    int live = (int)pool->live;
    weir__pool_unlock(pool);
    return live > 0 ? live : rc;
}

/* Starts one worker if one is wanted.  Without the mutex; true: the round should look again. */
static bool start_worker(weir_pool *pool, struct round *round)
{
    weir__lock(&pool->mutex);
    bool wanted = weir__pool_wants_worker(pool) && !is_failing(pool) && !pool->killed;
    if (wanted && pool->not_before && weir_now() < pool->not_before) {
        if (pool->not_before < round->wake_at)
            round->wake_at = pool->not_before;
        wanted = false;
    }
    if (wanted) {
        weir_exit exit = {.code = -1, .oom = -1};
        if (start_one(pool, &exit.pid) < 0)
            note_start_failure(pool, &exit, NULL);
    }
    weir__pool_unlock(pool);
    return wanted;
}

/* ---- burying ------------------------------------------------------------------------------- */

/* 1 when the OOM killer's account has grown by a kill that no earlier death explains. */
static int oom_verdict(weir_pool *pool, int signal)
{
    if (signal != SIGKILL)
        return 0;
    int64_t kills = weir__oom_kills();
    if (kills < 0 || pool->oom_kills_seen < 0)
        return -1;
    pool->oom_kills_unexplained += kills - pool->oom_kills_seen;
    pool->oom_kills_seen = kills;
    if (pool->oom_kills_unexplained <= 0)
        return 0;
    pool->oom_kills_unexplained--;
    return 1;
}

static weir_exit account_of_death(weir_pool *pool, unsigned seat)
{
    weir__desk *desk = &pool->desks[seat];
    uint64_t told = atomic_load_explicit(&desk->seat->peak_rss, memory_order_relaxed);
    weir_exit exit = {.pid = desk->pid, .code = -1};
    uint64_t peak = weir__look_at_zombie(desk->pidfd, &exit.code, &exit.signal);
    exit.peak_rss_bytes = peak > told ? peak : told;
    weir__lock(&pool->mutex);
    desk->pid = 0; /* reaped, it may be another's */
    weir__pool_unlock(pool);
    if (pool->opts.reap)
        pool->opts.reap(pool->opts.process_ctx, seat, &exit);
    else
        weir__reap(exit.pid, &exit.code, &exit.signal);
    bool known = exit.code >= 0 || exit.signal > 0;
    exit.oom = pool->killed ? 0 : known ? oom_verdict(pool, exit.signal) : -1;
    return exit;
}

/* Under the mutex: the task a dead worker was running is run again, or completes as DIED. */
static void settle_victim(weir_pool *pool, struct round *round, weir__task *task,
                          const weir_exit *exit)
{
    task->attempts++;
    if (!pool->killed && task->attempts <= pool->opts.retries) {
        pool->retried++;
        weir__tasks_put_back(&pool->tasks, task);
        return;
    }
    pool->died++;
    complete(pool, round, task, WEIR_OUTCOME_DIED)->exit = *exit;
}

/* Under the mutex: the same of a part, whose worker has replied to some items and was running one more, or
 * none.  The replies are in `remains`; the items behind go back in line. */
static void settle_victim_part(weir_pool *pool, struct round *round, weir__task *task,
                               const weir__progress *progress, const void *remains,
                               const weir_exit *exit)
{
    bool retry = !progress->runs_another;
    if (progress->replied > 0)
        task->attempts = 0;
    if (progress->runs_another) {
        task->attempts++;
        retry = !pool->killed && task->attempts <= pool->opts.retries;
        pool->retried += retry;
        pool->died += !retry;
    }
    if (retry && progress->replied == 0) {
        weir__tasks_put_back(&pool->tasks, task);
        return;
    }
    weir_completion *completion =
        announce(round, task, retry ? WEIR_OUTCOME_REPLIED : WEIR_OUTCOME_DIED);
    completion->items = progress->replied;
    completion->data = remains;
    completion->data_size = progress->bytes;
    completion->exit = *exit;
    task->first += progress->replied + !retry;
    if (!retry)
        task->attempts = 0;
    if (task->first == task->limit || pool->killed)
        end_task(pool, task, completion);
    else
        weir__tasks_put_back(&pool->tasks, task);
}

/* The part that a dead worker was running, and what it had done of it; NULL: it was running none. */
static weir__task *victim_part(const weir_pool *pool, const weir__desk *desk, weir__progress *ret)
{
    weir__task *task = weir__pool_running_batch(pool, desk);
    if (!task)
        return NULL;
    const weir__slot *slot = weir__slot_at(desk, task->position);
    if (!weir__batch_progress(slot, task, ret))
        *ret = (weir__progress){.runs_another = true}; /* nothing of it is believed */
    return task;
}

/* Under the mutex: saves what a dead worker has replied to items of the batch that it was running: its seat, and so the
 * place where they are, may be used again before the caller has read them.  False: no memory. */
static bool save_remains(weir_pool *pool, weir__desk *desk)
{
    weir__progress progress;
    const weir__task *task = victim_part(pool, desk, &progress);
    if (!task || progress.bytes == 0)
        return true;
    weir__slot *slot = weir__slot_at(desk, task->position);
    struct reply reply;
    if (!find_reply(desk, slot, task, progress.bytes, &reply)) {
        atomic_store_explicit(&slot->filled, 0, memory_order_relaxed); /* it is not believed */
        return true;
    }
    desk->remains = weir__malloc(progress.bytes);
    if (desk->remains)
        memcpy(desk->remains, reply.data, progress.bytes);
    return desk->remains != NULL;
}

/* Under the mutex: what a dead worker held goes back in line; the one it ran is settled. */
static void reclaim_tasks(weir_pool *pool, struct round *round, weir__desk *desk,
                          const weir_exit *exit)
{
    bool settled = false;
    weir__progress progress;
    const weir__task *part = victim_part(pool, desk, &progress);
    for (uint64_t at = desk->scanned; at < desk->dealt; at++) {
        uint32_t index = desk->tasks[at % WEIR__SLOTS];
        if (index == WEIR__NO_TASK)
            continue;
        weir__task *task = weir__tasks_at(&pool->tasks, index);
        /* relaxed: the process is dead, and the kernel has told us so */
        uint32_t state =
            atomic_load_explicit(&weir__slot_at(desk, at)->state, memory_order_relaxed);
        if (state == SLOT_READY || settled) {
            weir__tasks_put_back(&pool->tasks, task);
        } else {
            if (task->batch && task != part)
                progress = (weir__progress){.runs_another = true}; /* its reply was nonsense */
            if (task->batch)
                settle_victim_part(pool, round, task, &progress, desk->remains, exit);
            else
                settle_victim(pool, round, task, exit);
            note_beginning(pool, desk);
            settled = true; /* it ran one; more only if it wrote nonsense, and those run again */
        }
    }
}

/* Under the mutex: of the tasks it has; those that are collected do not count. */
static bool has_begun_any(const weir__desk *desk)
{
    for (uint64_t at = desk->scanned; at < desk->dealt; at++)
        if (desk->tasks[at % WEIR__SLOTS] != WEIR__NO_TASK &&
            atomic_load_explicit(&weir__slot_at(desk, at)->state, memory_order_relaxed) !=
                SLOT_READY) /* relaxed: the process is dead */
            return true;
    return false;
}

/* Settles everything about an ended process whose replies have been collected. */
static void bury(weir_pool *pool, struct round *round, unsigned seat)
{
    weir__desk *desk = &pool->desks[seat];
    weir_exit exit = account_of_death(pool, seat);
    weir__block granted = {0};

    weir__lock(&pool->mutex);
    /* one that leaves has nothing: else it lies, and may have lied about what it had begun */
    bool left = (desk->held == 0 || (pool->opts.max_worker_rss && !has_begun_any(desk))) &&
                atomic_load_explicit(&desk->seat->state, memory_order_acquire) == SEAT_LEAVING;
    close(desk->pidfd); /* it has left the epoll set: forked workers have it open, too */
    desk->live = desk->ended = false;
    pool->live--;
    uint64_t died = pool->died;
    reclaim_tasks(pool, round, desk, &exit);
    desk->died += pool->died - died;
    if (left)
        pool->workers_recycled += !pool->closed;
    else
        pool->workers_died++;
    pool->starting -= !desk->ready;
    pool->dismissed -= desk->dismissed;
    if (!desk->began && !left && !pool->killed)
        note_start_failure(pool, &exit, desk->seat);
    granted = desk->granted;
    desk->granted.offset = 0;
    desk->ready = desk->began = desk->stalled = desk->dismissed = desk->answered = false;
    desk->freed = desk->scanned = desk->dealt = desk->release_to = desk->total = 0;
    desk->held = 0;
    weir__pool_unlock(pool);
    weir__arena_free(&pool->arena, &granted);
    weir__arena_free_held(&pool->arena, &desk->kept);
}

/* Under the mutex: what it replied before it died comes first: look hands it out. */
static bool has_replies(const weir_pool *pool, const weir__desk *desk)
{
    struct reply reply;
    enum reading reading = READ_SKIPPED;
    for (uint64_t at = desk->scanned; at < desk->dealt && reading == READ_SKIPPED; at++)
        reading = read_slot(pool, desk, at, &reply);
    return reading == READ_REPLY;
}

static bool bury_the_dead(weir_pool *pool, struct round *round)
{
    bool any = false;
    for (unsigned i = 0; i < pool->n_desks && round->n < round->max; i++) {
        weir__desk *desk = &pool->desks[i];
        if (!desk->ended || desk->remains)
            continue;
        weir__lock(&pool->mutex);
        bool later = has_replies(pool, desk);
        if (!later && !save_remains(pool, desk)) {
            later = true;
            round->wake_at = weir_after(BACKOFF_FIRST); /* there may be memory then */
        }
        weir__pool_unlock(pool);
        if (later)
            continue;
        bury(pool, round, i);
        any = true;
    }
    return any;
}

/* ---- rounds -------------------------------------------------------------------------------- */

/* Under the mutex: when nothing is left to do in a closed pool, the workers may go. */
static void let_go(weir_pool *pool, weir__after *after)
{
    if (!pool->closed || pool->tasks.live > 0)
        return;
    for (unsigned i = 0; i < pool->n_desks; i++) {
        weir__desk *desk = &pool->desks[i];
        if (!desk->live || atomic_load_explicit(&desk->seat->leave, memory_order_relaxed))
            continue;
        atomic_store_explicit(&desk->seat->leave, 1, memory_order_release);
        weir__pool_ring(after, desk->seat);
    }
}

/* ---- a backlog that sizes itself ------------------------------------------------------------ */

/* Under the mutex: a worker has nothing to do, and there is nothing for it. */
static bool runs_dry(const weir_pool *pool)
{
    return !weir__tasks_first(&pool->tasks) && weir__pool_has_idle(pool);
}

/* Under the mutex. */
static void size_backlog(weir_pool *pool, weir__after *after)
{
    bool starved = pool->pressed && runs_dry(pool);
    if (!starved && pool->completed < pool->review_at)
        return;
    weir_time now = weir_now();
    if (starved) {
        pool->pressed = false;
        weir__backlog_starved(&pool->size, pool->depth.service_ns, pool->payload_bytes,
                              pool->completed, now);
    } else {
        weir__backlog_review(&pool->size, pool->depth.service_ns, pool->payload_bytes,
                             pool->completed, now);
    }
    pool->review_at = pool->completed + pool->size.now;
    pool->limit = pool->size.now + pool->n_desks;
    weir__pool_give_permits(pool, 0, after);
}

/* Looks at every worker once and deals. */
static void look(weir_pool *pool, struct round *round)
{
    weir__lock(&pool->mutex);
    for (unsigned i = 0; i < pool->n_desks; i++) {
        weir__desk *desk = &pool->desks[(pool->scan_from + i) % pool->n_desks];
        if (!desk->live)
            continue;
        see_state(pool, round, desk);
        scan(pool, round, desk);
    }
    pool->scan_from++;
    fail_waiting(pool, round);
    weir__pool_deal(pool, &round->after);
    if (!weir__tasks_first(&pool->tasks) && weir__pool_redeal(pool, &round->wake_at))
        weir__pool_deal(pool, &round->after);
    let_go(pool, &round->after);
    weir__pool_dismiss(pool, &round->after); /* one that was being started meanwhile */
    if (pool->sizes_itself)
        size_backlog(pool, &round->after);
    weir__pool_unlock(pool);
}

static bool all_gone(weir_pool *pool)
{
    weir__lock(&pool->mutex);
    bool gone = pool->closed && pool->live == 0 && pool->tasks.live == 0;
    weir__unlock(&pool->mutex);
    return gone;
}

/* Sleeps until a bell, a death, or the time. */
static void sleep_until(weir_pool *pool, weir_time until)
{
    int timeout = -1;
    if (until != WEIR_FOREVER) {
        int64_t ns = until - weir_now();
        int64_t ms = ns <= 0 ? 0 : (ns + WEIR_MILLISECOND - 1) / WEIR_MILLISECOND;
        timeout = ms < 3600000 ? (int)ms : 3600000;
    }
    struct epoll_event events[32];
    int n = epoll_wait(pool->epoll_fd, events, 32, timeout);
    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 == 0) {
            weir__bell_clear(pool->bell_fd);
            continue;
        }
        weir__desk *desk = &pool->desks[events[i].data.u32 - 1];
        epoll_ctl(pool->epoll_fd, EPOLL_CTL_DEL, desk->pidfd, NULL);
        weir__lock(&pool->mutex);
        desk->ended = true;
        weir__pool_unlock(pool);
    }
}

static void set_asleep(weir_pool *pool, uint32_t asleep)
{
    atomic_store_explicit(&pool->collector_asleep, asleep, memory_order_relaxed);
    atomic_store_explicit(&pool->channel.header->collector_asleep, asleep, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with ring_parent's and kick_collector's */
}

/* Deaths and starts wait for a quiet moment, but not for ever: under a steady stream of replies
 * there is none. */
static void do_chores_if_due(weir_pool *pool, struct round *round)
{
    weir_time now = weir_now();
    if (now < pool->chores_at)
        return;
    pool->chores_at = now + CHORES_EVERY;
    sleep_until(pool, WEIR_POLL);
    bury_the_dead(pool, round);
    start_worker(pool, round);
}

/* There is memory for another task, and the caller has something to do first. */
static void deal_again(weir_pool *pool)
{
    weir__after after = {0};
    weir__lock(&pool->mutex);
    weir__pool_deal(pool, &after);
    weir__pool_unlock_soon(pool);
    weir__pool_do_after(pool, &after);
}

/* Rounds until there is something to return. */
static int64_t run_rounds(weir_pool *pool, struct round *round, weir_time deadline)
{
    for (bool armed = false;; armed = !armed) {
        if (armed)
            set_asleep(pool, 1);
        bool again;
        do {
            round->wake_at = weir__arena_trim(&pool->arena, weir_now());
            round->after = (weir__after){0};
            grant(pool);
            take_returns(pool);
            look(pool, round);
            weir__pool_do_after(pool, &round->after);
            bool more = weir__pool_mind_memory(pool, &round->wake_at);
            if (more && round->n > 0)
                deal_again(pool);
            if (round->n > 0)
                return (int64_t)round->n;
            /* what burying hands out is returned after another look */
            again = more || bury_the_dead(pool, round) || start_worker(pool, round);
        } while (again);
        if (all_gone(pool)) {
            weir__arena_keep_nothing(&pool->arena);
            return WEIR_ECLOSED;
        }
        if (deadline == WEIR_POLL)
            return WEIR_EEMPTY;
        if (!armed)
            continue;
        weir_time slice = weir__slice(deadline);
        sleep_until(pool, slice < round->wake_at ? slice : round->wake_at);
        set_asleep(pool, 0);
        if (deadline != WEIR_FOREVER && weir_now() >= deadline)
            return WEIR_ETIMEDOUT;
        if (weir__interrupted())
            return WEIR_EINTR;
    }
}

int64_t weir_pool_collect(weir_pool *pool, weir_completion *ret, size_t max, weir_time deadline)
{
    if (max == 0)
        return WEIR_EINVAL;
    release_batch(pool);
    struct round round = {.ret = ret, .max = max < WEIR__BATCH ? max : WEIR__BATCH};
    do_chores_if_due(pool, &round);
    int64_t n = run_rounds(pool, &round, deadline);
    set_asleep(pool, 0);
    return n;
}
