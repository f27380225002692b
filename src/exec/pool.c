/* pool.c - the process pool: submitting, cancelling, looking, ending.  The contract is in
 * weir/pool.h, the state and its invariants in pool_impl.h, the other half in collect.c.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bell.h"
#include "base/memfd.h"
#include "base/memory.h"
#include "base/process.h"
#include "exec/pool_impl.h"

#define MAX_WORKERS 4096u

/* ---- creating ------------------------------------------------------------------------------ */

static int check_opts(const weir_pool_opts *opts)
{
    if (!opts || opts->size != sizeof *opts || opts->backlog == 0 || opts->workers > MAX_WORKERS ||
        !opts->on_drop || (opts->task_bytes > 0 && !opts->governor))
        return WEIR_EINVAL;
    if ((int)opts->overflow < WEIR_OVERFLOW_BLOCK || opts->overflow > WEIR_OVERFLOW_DROP_OLDEST)
        return WEIR_EINVAL;
    bool starts = opts->start && opts->reap;
    if (!starts && (opts->start || opts->reap || !opts->handler))
        return WEIR_EINVAL; /* either a handler, or both start and reap */
    return 0;
}

static int open_fds(weir_pool *pool)
{
    int rc = weir__bell_create(&pool->bell_fd);
    if (rc < 0)
        return rc;
    pool->parent_fd = weir__pidfd_open(getpid());
    if (pool->parent_fd < 0) {
        rc = pool->parent_fd == -EMFILE || pool->parent_fd == -ENFILE ? WEIR_ENOFD : WEIR_ESYSTEM;
        goto fail_bell;
    }
    pool->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 0};
    if (pool->epoll_fd >= 0) {
        if (epoll_ctl(pool->epoll_fd, EPOLL_CTL_ADD, pool->bell_fd, &event) == 0)
            return 0;
        rc = WEIR_ENOMEM;
        close(pool->epoll_fd);
    } else {
        rc = errno == EMFILE || errno == ENFILE ? WEIR_ENOFD : WEIR_ENOMEM;
    }
    close(pool->parent_fd);
fail_bell:
    close(pool->bell_fd);
    return rc;
}

int weir_pool_create(weir_pool **ret_pool, const weir_pool_opts *opts)
{
    int rc = check_opts(opts);
    if (rc < 0)
        return rc;
    unsigned workers = opts->workers ? opts->workers : weir__cpu_count();
    if (workers > MAX_WORKERS)
        workers = MAX_WORKERS;
    weir_pool *pool = weir__calloc(1, sizeof *pool);
    if (!pool)
        return WEIR_ENOMEM;
    rc = WEIR_ENOMEM;
    pool->desks = weir__calloc(workers, sizeof *pool->desks);
    if (!pool->desks)
        goto fail_pool;
    rc = open_fds(pool);
    if (rc < 0)
        goto fail_desks;
    rc = weir__channel_create(&pool->channel, workers);
    if (rc < 0)
        goto fail_fds;
    weir__mutex_init(&pool->mutex);
    weir__arena_init(&pool->arena, &pool->channel);
    pool->channel.header->guards_payloads = opts->retries > 0;
    pool->channel.header->parent = getpid();
    weir__tasks_init(&pool->tasks);
    pool->opts = *opts;
    pool->owner = getpid();
    pool->n_desks = pool->allowed = workers;
    for (unsigned i = 0; i < workers; i++)
        pool->desks[i].seat = &pool->channel.seats[i];
    pool->sizes_itself = opts->backlog == WEIR_AUTO;
    weir__backlog_init(&pool->size, workers, weir_now());
    size_t backlog = pool->sizes_itself ? pool->size.now : opts->backlog;
    pool->limit = backlog < WEIR_AUTO - workers ? backlog + workers : SIZE_MAX;
    pool->oom_kills_seen = weir__oom_kills();
    pool->record = weir__record_open(WEIR_STATS_PROCESS_POOL, opts->name);
    weir__lock(&pool->mutex);
    weir__pool_unlock(pool); /* tells the bounds */
    *ret_pool = pool;
    return 0;

fail_fds:
    close(pool->epoll_fd);
    close(pool->parent_fd);
    close(pool->bell_fd);
fail_desks:
    weir__free(pool->desks);
fail_pool:
    weir__free(pool);
    return rc;
}

/* ---- permits ------------------------------------------------------------------------------- */

const void *weir__this_thread(void)
{
    return (const void *)(uintptr_t)pthread_self();
}

void weir__pool_give_permits(weir_pool *pool, size_t n, weir__after *after)
{
    pool->permits -= n;
    while (pool->submitters.head && pool->permits < pool->limit) {
        pool->permits++;
        weir__waitq_serve(&pool->submitters, &after->wakeups, WEIR_KEPT);
    }
}

void weir__pool_ring(weir__after *after, weir__seat *seat)
{
    for (unsigned i = 0; i < after->n_rings; i++)
        if (after->rings[i] == seat)
            return;
    if (after->n_rings == sizeof after->rings / sizeof after->rings[0])
        weir__ring_worker(seat); /* many at once: worth a system call under the mutex */
    else
        after->rings[after->n_rings++] = seat;
}

/* The collector raises its flag, fences and looks once more before it sleeps. */
static void kick_collector(weir_pool *pool)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&pool->collector_asleep, memory_order_relaxed))
        weir__bell_ring(pool->bell_fd);
}

void weir__pool_do_after(weir_pool *pool, weir__after *after)
{
    for (unsigned i = 0; i < after->n_rings; i++)
        weir__ring_worker(after->rings[i]);
    if (after->kick)
        kick_collector(pool);
    weir__wake_all(&after->wakeups);
}

void weir__pool_free_block(weir_pool *pool, weir__block *block)
{
    bool large = block->offset != 0 && block->size > WEIR__SMALL_MAX;
    weir__arena_free(&pool->arena, block);
    if (large)
        kick_collector(pool);
}

/* Waits in line for a permit.  Called with the mutex, returns without it. */
/* Under the mutex, of a submitter who was in line. */
static void note_wait(weir_pool *pool, int64_t blocked_ns)
{
    pool->submit_waits++;
    pool->submit_blocked_ns += (uint64_t)blocked_ns;
}

static int wait_for_permit(weir_pool *pool, weir_time deadline)
{
    weir__waiter waiter;
    weir__waitq_push(&pool->submitters, &waiter);
    weir__pool_unlock(pool);
    weir_time since = weir_now();
    int rc = weir__waiter_park(&waiter, deadline);
    int64_t blocked = weir_now() - since;

    weir__lock(&pool->mutex);
    note_wait(pool, blocked);
    bool gave_up = rc < 0 && weir__waitq_give_up(&pool->submitters, &waiter);
    if (gave_up && rc == WEIR_ETIMEDOUT)
        pool->refused++;
    weir__pool_unlock(pool);
    if (gave_up)
        return rc;
    if (rc < 0)
        weir__waiter_join(&waiter);
    return waiter.result;
}

/* The oldest task that no worker has started, taken back; NULL: there is none. */
static weir__task *take_oldest(weir_pool *pool)
{
    for (;;) {
        weir__task *oldest = weir__tasks_first(&pool->tasks);
        for (unsigned i = 0; i < pool->n_desks; i++) {
            weir__desk *desk = &pool->desks[i];
            for (uint64_t at = desk->scanned; at < desk->dealt; at++) {
                uint32_t index = desk->tasks[at % WEIR__SLOTS];
                uint32_t state = atomic_load_explicit(&weir__slot_at(desk, at)->state,
                                                      memory_order_relaxed); /* revoke decides */
                if (index == WEIR__NO_TASK || state != SLOT_READY)
                    continue;
                weir__task *task = weir__tasks_at(&pool->tasks, index);
                if (!oldest || task->seq < oldest->seq)
                    oldest = task;
            }
        }
        if (!oldest)
            return NULL;
        if (oldest->state == TASK_WAITING) {
            weir__tasks_remove(&pool->tasks, oldest);
            return oldest;
        }
        if (weir__pool_revoke(pool, oldest))
            return oldest;
    }
}

/* What is left of a task that was taken back. */
struct taken {
    void *tag;
    bool last;         /* the tag is the caller's again; else other parts of a batch have it */
    weir__block block; /* to be freed without the mutex */
};

static struct taken settle(weir_pool *pool, weir__task *task)
{
    struct taken taken = {.tag = task->tag, .last = true, .block = task->block};
    if (task->batch)
        taken.last = weir__batch_leave(task, &taken.block);
    weir__tasks_retire(&pool->tasks, task);
    weir__tasks_free(&pool->tasks, task);
    return taken;
}

/* Without the mutex. */
static void report_drop(weir_pool *pool, struct taken *taken, weir_drop_reason reason)
{
    weir__pool_free_block(pool, &taken->block);
    if (taken->last)
        pool->opts.on_drop(taken->tag, reason, pool->opts.drop_ctx);
}

/* Drops the oldest task for a newer one, which gets its permit.  With the mutex, returns without. */
static int drop_oldest(weir_pool *pool)
{
    weir__task *task = take_oldest(pool);
    weir_drop_reason reason = task ? WEIR_DROP_OLDEST : WEIR_DROP_NEWEST;
    pool->dropped[reason]++;
    if (!task) {
        pool->accepted++; /* everything inside has started: it is the newest that must go */
        weir__pool_unlock(pool);
        return WEIR_DROPPED;
    }
    struct taken taken = settle(pool, task);
    weir__pool_unlock(pool);
    report_drop(pool, &taken, reason);
    return WEIR_KEPT;
}

/* Under the mutex: a permit without waiting, for who may have one. */
static bool take_permit(weir_pool *pool)
{
    if (pool->permits < pool->limit && !pool->submitters.head) {
        pool->permits++;
        return true;
    }
    if (pool->collector != weir__this_thread() || pool->unsettled == 0)
        return false;
    pool->unsettled--; /* takes over that of a task that has just completed */
    return true;
}

static int admit(weir_pool *pool, weir_overflow overflow, weir_time deadline)
{
    weir__lock(&pool->mutex);
    int rc = pool->closed ? WEIR_ECLOSED : WEIR_KEPT;
    if (pool->closed || take_permit(pool)) {
        weir__pool_unlock_soon(pool);
        return rc;
    }
    pool->pressed = true;
    if (overflow == WEIR_OVERFLOW_DROP_OLDEST)
        return drop_oldest(pool);
    if (overflow == WEIR_OVERFLOW_DROP_NEWEST) {
        pool->accepted++;
        pool->dropped[WEIR_DROP_NEWEST]++;
        rc = WEIR_DROPPED;
    } else if (overflow == WEIR_OVERFLOW_FAIL || deadline == WEIR_POLL) {
        pool->refused += overflow == WEIR_OVERFLOW_FAIL; /* else it was only a try */
        rc = WEIR_EFULL;
    } else if (pool->collector == weir__this_thread()) {
        pool->refused++;
        rc = WEIR_EDEADLK;
    } else {
        return wait_for_permit(pool, deadline);
    }
    weir__pool_unlock(pool);
    return rc;
}

int weir_pool_admit(weir_pool *pool, weir_time deadline)
{
    return admit(pool, pool->opts.overflow, deadline);
}

int weir_pool_admit_wait(weir_pool *pool, weir_time deadline)
{
    return admit(pool, WEIR_OVERFLOW_BLOCK, deadline);
}

/* One who waits without a thread; in a weir_pending. */
typedef struct guest {
    weir__waiter waiter;
    weir_pool *pool;
    weir_time since;
} guest;

static_assert(sizeof(guest) <= sizeof(((weir_pending *)NULL)->opaque), "fits a weir_pending");

static guest *guest_of(weir_pending *pending)
{
    return (guest *)(void *)pending->opaque;
}

static void notify(weir__waiter *waiter)
{
    guest *g = (guest *)waiter;
    weir__lock(&g->pool->mutex);
    note_wait(g->pool, weir_now() - g->since);
    weir__pool_unlock(g->pool);
    weir_pending *pending =
        (weir_pending *)(void *)((char *)waiter - offsetof(weir_pending, opaque));
    pending->ready(pending, waiter->result);
}

int weir_pool_admit_async(weir_pool *pool, weir_pending *pending)
{
    if (!pending->ready)
        return WEIR_EINVAL;
    guest *g = guest_of(pending);
    *g = (guest){.pool = pool, .since = weir_now()};
    weir__lock(&pool->mutex);
    int rc = pool->closed ? WEIR_ECLOSED : WEIR_KEPT;
    if (!pool->closed && !take_permit(pool)) {
        pool->pressed = true;
        rc = pool->collector == weir__this_thread() ? WEIR_EDEADLK : WEIR_WAITING;
        pool->refused += rc == WEIR_EDEADLK;
        if (rc == WEIR_WAITING)
            weir__waitq_push_async(&pool->submitters, &g->waiter, notify);
    }
    if (rc == WEIR_KEPT)
        weir__pool_unlock_soon(pool);
    else
        weir__pool_unlock(pool);
    return rc;
}

bool weir_pool_cancel_admit(weir_pool *pool, weir_pending *pending)
{
    guest *g = guest_of(pending);
    weir__lock(&pool->mutex);
    bool left = weir__waitq_give_up(&pool->submitters, &g->waiter);
    if (left)
        note_wait(pool, weir_now() - g->since);
    weir__pool_unlock(pool);
    return left;
}

void weir_pool_unadmit(weir_pool *pool)
{
    weir__after after = {0};
    weir__lock(&pool->mutex);
    weir__pool_give_permits(pool, 1, &after);
    after.kick = pool->closed;
    weir__pool_unlock_soon(pool);
    weir__pool_do_after(pool, &after);
}

void weir_pool_settle(weir_pool *pool, size_t n)
{
    weir__after after = {0};
    weir__lock(&pool->mutex);
    if (n > pool->unsettled)
        n = pool->unsettled; /* a submit of the collecting thread has taken over the others */
    pool->unsettled -= n;
    weir__pool_give_permits(pool, n, &after);
    weir__pool_unlock_soon(pool);
    weir__pool_do_after(pool, &after);
}

/* ---- posting ------------------------------------------------------------------------------- */

bool weir__pool_wants_worker(const weir_pool *pool)
{
    unsigned staying = pool->live - pool->dismissed;
    return pool->live < pool->n_desks && staying < pool->allowed && staying < pool->tasks.live;
}

/* Who has the least to do goes first. */
static weir__desk *pick_to_dismiss(weir_pool *pool)
{
    weir__desk *best = NULL;
    for (unsigned i = 0; i < pool->n_desks; i++) {
        weir__desk *desk = &pool->desks[i];
        if (desk->live && !desk->dismissed && (!best || desk->held <= best->held))
            best = desk;
    }
    return best;
}

void weir__pool_dismiss(weir_pool *pool, weir__after *after)
{
    while (pool->live - pool->dismissed > pool->allowed) {
        weir__desk *desk = pick_to_dismiss(pool);
        desk->dismissed = true;
        pool->dismissed++;
        /* release: pairs with the acquire of told_to_leave in worker.c */
        atomic_store_explicit(&desk->seat->leave, 1, memory_order_release);
        weir__pool_ring(after, desk->seat);
    }
}

int weir_pool_set_workers(weir_pool *pool, unsigned n)
{
    if (n == 0 || n > pool->n_desks)
        return WEIR_EINVAL;
    weir__after after = {.kick = true};
    weir__lock(&pool->mutex);
    pool->allowed = n;
    weir__pool_dismiss(pool, &after);
    weir__pool_unlock(pool);
    weir__pool_do_after(pool, &after);
    return 0;
}

/* Makes the task (items > 0: a batch) and gives it to a worker, or puts it in line. */
static int enqueue(weir_pool *pool, const weir_bytes *parts, size_t n_parts, uint64_t size,
                   const weir__block *block, uint32_t items, uint64_t kind, void *tag,
                   uint64_t *ret_id)
{
    weir__after after = {0};
    weir__lock(&pool->mutex);
    weir__task *task = pool->closed ? NULL : weir__tasks_new(&pool->tasks);
    if (!task) {
        int rc = pool->closed ? WEIR_ECLOSED : WEIR_ENOMEM;
        weir__pool_unlock_soon(pool);
        return rc;
    }
    task->tag = tag;
    task->in_size = size;
    task->kind = kind;
    task->block = *block;
    if (items > 0 && !weir__batch_begin(task, items)) {
        weir__tasks_retire(&pool->tasks, task);
        weir__tasks_free(&pool->tasks, task);
        weir__pool_unlock_soon(pool);
        return WEIR_ENOMEM;
    }
    if (block->offset == 0)
        weir__copy_parts(task->in, parts, n_parts);
    pool->accepted++;
    pool->payload_bytes += size / 8 - pool->payload_bytes / 8;
    if (ret_id)
        *ret_id = weir__task_id(task);
    weir__tasks_append(&pool->tasks, task);
    weir__pool_deal(pool, &after);
    /* A batch that is all there is to do is shared out, by the collector, when it takes long. */
    after.kick |= weir__pool_wants_worker(pool) || weir__pool_is_governed(pool) ||
                  (items > 0 && weir__pool_has_idle(pool));
    weir__pool_unlock_soon(pool);
    weir__pool_do_after(pool, &after);
    return 0;
}

int weir_pool_post_kind(weir_pool *pool, const weir_bytes *parts, size_t n_parts, uint32_t items,
                        uint64_t kind, void *tag, uint64_t *ret_id)
{
    uint64_t size = weir__size_of_parts(parts, n_parts);
    weir__block block = {0};
    if (size > WEIR__IN_BYTES) {
        int rc = weir__arena_alloc_unfilled(&pool->arena, size, &block);
        if (rc == 0)
            rc = weir__arena_write(&pool->arena, &block, parts, n_parts);
        if (rc < 0) {
            weir__arena_free(&pool->arena, &block);
            return rc;
        }
    }
    int rc = enqueue(pool, parts, n_parts, size, &block, items, kind, tag, ret_id);
    if (rc < 0)
        weir__arena_free(&pool->arena, &block);
    return rc;
}

int weir_pool_post(weir_pool *pool, const weir_bytes *parts, size_t n_parts, void *tag,
                   uint64_t *ret_id)
{
    return weir_pool_post_kind(pool, parts, n_parts, 0, 0, tag, ret_id);
}

int weir_pool_post_batch(weir_pool *pool, const weir_bytes *parts, size_t n_parts, uint32_t items,
                         void *tag, uint64_t *ret_id)
{
    return items > 0 ? weir_pool_post_kind(pool, parts, n_parts, items, 0, tag, ret_id)
                     : WEIR_EINVAL;
}

int weir_pool_submit(weir_pool *pool, const weir_bytes *parts, size_t n_parts, void *tag,
                     weir_time deadline, uint64_t *ret_id)
{
    int rc = weir_pool_admit(pool, deadline);
    if (rc == WEIR_DROPPED)
        pool->opts.on_drop(tag, WEIR_DROP_NEWEST, pool->opts.drop_ctx);
    if (rc != WEIR_KEPT)
        return rc;
    rc = weir_pool_post(pool, parts, n_parts, tag, ret_id);
    if (rc < 0)
        weir_pool_unadmit(pool);
    return rc;
}

/* ---- dealing and revoking ------------------------------------------------------------------ */

bool weir__pool_has_room(const weir_pool *pool, const weir__desk *desk, unsigned depth)
{
    uint64_t tasks_max = pool->opts.tasks_per_worker;
    return desk->ready && !desk->ended && !desk->stalled && !desk->dismissed &&
           desk->held < depth && desk->dealt - desk->freed < WEIR__SLOTS &&
           (!tasks_max || desk->total < tasks_max) &&
           atomic_load_explicit(&desk->seat->state, memory_order_relaxed) == SEAT_READY; /* a hint:
                what is dealt to one that leaves comes back when it is buried */
}

bool weir__pool_has_idle(const weir_pool *pool)
{
    for (unsigned i = 0; i < pool->n_desks; i++)
        if (pool->desks[i].held == 0 && weir__pool_has_room(pool, &pool->desks[i], 1))
            return true;
    return false;
}

/* The worker with the fewest tasks among those with room; NULL: none has. */
static weir__desk *pick_desk(weir_pool *pool, const weir__task *task)
{
    /* While a worker is starting, nobody gets work ahead: the new one should find some. */
    unsigned depth = pool->starting ? 1 : weir__ring_depth_get(&pool->depth, WEIR__SLOTS);
    weir__need need = weir__pool_need_of(pool, task);
    weir__desk *best = NULL;
    for (unsigned i = 0; i < pool->n_desks; i++) {
        weir__desk *desk = &pool->desks[i];
        if (!weir__pool_has_room(pool, desk, depth) || !weir__pool_may_have(pool, desk, &need))
            continue;
        if (!best || desk->held < best->held)
            best = desk;
        if (best->held == 0)
            break;
    }
    return best;
}

static void deal_to(weir_pool *pool, weir__desk *desk, weir__task *task)
{
    weir__tasks_remove(&pool->tasks, task);
    task->state = TASK_DEALT;
    task->seat = (unsigned)(desk - pool->desks);
    task->position = desk->dealt;
    if (desk->held == 0)
        desk->progressed = weir_now();
    weir__slot *slot = weir__slot_at(desk, desk->dealt);
    slot->id = weir__task_id(task);
    slot->in_size = task->in_size;
    slot->in_offset = task->block.offset;
    if (task->block.offset == 0)
        memcpy(slot->in, task->in, task->in_size);
    slot->is_batch = task->batch != NULL;
    if (task->batch) { /* relaxed: published with the slot */
        atomic_store_explicit(&slot->span, weir__pair(task->first, task->limit),
                              memory_order_relaxed);
        atomic_store_explicit(&slot->filled, 0, memory_order_relaxed);
    }
    desk->tasks[desk->dealt % WEIR__SLOTS] = task->index;
    desk->dealt++;
    desk->held++;
    desk->total++;
    /* release: publishes the slot; pairs with the acquire of claim in worker.c */
    atomic_store_explicit(&slot->state, SLOT_READY, memory_order_release);
}

void weir__pool_deal(weir_pool *pool, weir__after *after)
{
    weir__task *task;
    weir__desk *desk;
    while ((task = weir__tasks_first(&pool->tasks)) && (desk = pick_desk(pool, task))) {
        weir__pool_use_grant(pool, desk);
        deal_to(pool, desk, task);
        weir__pool_ring(after, desk->seat);
    }
}

bool weir__pool_revoke(weir_pool *pool, weir__task *task)
{
    weir__desk *desk = &pool->desks[task->seat];
    uint32_t state = SLOT_READY;
    /* relaxed: we publish nothing and read nothing of the worker's; the exchange decides against
     * its claim */
    if (!atomic_compare_exchange_strong_explicit(&weir__slot_at(desk, task->position)->state,
                                                 &state, SLOT_REVOKED, memory_order_relaxed,
                                                 memory_order_relaxed))
        return false;
    desk->tasks[task->position % WEIR__SLOTS] = WEIR__NO_TASK;
    desk->held--;
    desk->total--;
    return true;
}

/* ---- cancelling and looking ---------------------------------------------------------------- */

/* Takes a task back that has not started, wherever it is. */
static bool take_back(weir_pool *pool, weir__task *task)
{
    if (task->state == TASK_DEALT)
        return weir__pool_revoke(pool, task);
    weir__tasks_remove(&pool->tasks, task);
    return true;
}

int weir_pool_cancel(weir_pool *pool, uint64_t id)
{
    weir__after after = {0};
    struct taken taken = {0};
    weir__lock(&pool->mutex);
    weir__task *task = weir__tasks_find(&pool->tasks, id);
    if (task && take_back(pool, task)) {
        pool->cancelled++;
        taken = settle(pool, task);
        weir__pool_give_permits(pool, 1, &after);
        weir__pool_deal(pool, &after);
        after.kick = pool->closed || weir__pool_is_governed(pool);
    } else if (task && task->batch) { /* its worker goes on to the end of one item */
        weir__batch_cut(weir__slot_at(&pool->desks[task->seat], task->position), task, 0);
    }
    weir__pool_unlock(pool);
    weir__pool_do_after(pool, &after);
    weir__pool_free_block(pool, &taken.block);
    return taken.last ? 0 : WEIR_ENOTASK;
}

int weir_pool_is_running(weir_pool *pool, uint64_t id)
{
    weir__lock(&pool->mutex);
    int rc = WEIR_ENOTASK;
    weir__task *task = weir__tasks_find(&pool->tasks, id);
    if (task && task->state == TASK_WAITING)
        rc = 0;
    else if (task)
        rc = atomic_load_explicit(&weir__slot_at(&pool->desks[task->seat], task->position)->state,
                                  memory_order_relaxed) != SLOT_READY;
    weir__unlock(&pool->mutex);
    return rc;
}

/* Under the mutex: how many of a worker's tasks have begun, and how many of those have a reply. */
static void count_begun(const weir__desk *desk, size_t *running, size_t *replied)
{
    for (uint64_t at = desk->scanned; at < desk->dealt; at++) {
        if (desk->tasks[at % WEIR__SLOTS] == WEIR__NO_TASK)
            continue;
        uint32_t state = atomic_load_explicit(&weir__slot_at(desk, at)->state,
                                              memory_order_relaxed); /* only counted */
        *running += state != SLOT_READY;
        *replied += state == SLOT_DONE;
    }
}

int weir_pool_get_snapshot(weir_pool *pool, weir_pool_snapshot *ret)
{
    if (ret->size != sizeof *ret)
        return WEIR_EINVAL;
    uint64_t shm_bytes = weir__arena_reserved(&pool->arena);
    weir__lock(&pool->mutex);
    for (unsigned i = 0; i < pool->n_desks; i++)
        shm_bytes += pool->desks[i].extent.offset ? sizeof(weir__seat) : 0; /* it was used once */
    size_t running = 0, replied = 0;
    for (unsigned i = 0; i < pool->n_desks; i++)
        count_begun(&pool->desks[i], &running, &replied);
    *ret = (weir_pool_snapshot){
        .size = sizeof *ret,
        .workers = pool->n_desks,
        .workers_allowed = pool->allowed,
        .workers_alive = pool->live,
        .backlog = pool->sizes_itself ? pool->size.now : pool->opts.backlog,
        .backlog_why = pool->sizes_itself ? weir__backlog_why(&pool->size) : NULL,
        .waiting = pool->tasks.live - running,
        .running = running,
        .accepted = pool->accepted,
        .replied = replied,
        .completed = pool->completed,
        .cancelled = pool->cancelled,
        .refused = pool->refused,
        .retried = pool->retried,
        .died = pool->died,
        .workers_started = pool->workers_started,
        .workers_died = pool->workers_died,
        .workers_recycled = pool->workers_recycled,
        .submit_blocked_ns = pool->submit_blocked_ns,
        .service_ns = pool->service_ns,
        .shm_bytes = shm_bytes,
        .submitters_waiting = pool->submitters.count,
        .closed = pool->closed,
    };
    memcpy(ret->dropped, pool->dropped, sizeof ret->dropped);
    weir__unlock(&pool->mutex);
    return 0;
}

size_t weir_pool_pids(weir_pool *pool, pid_t *ret_pids, size_t max)
{
    size_t n = 0;
    weir__lock(&pool->mutex);
    for (unsigned i = 0; i < pool->n_desks; i++) {
        if (!pool->desks[i].live || pool->desks[i].pid <= 0)
            continue;
        if (n < max)
            ret_pids[n] = pool->desks[i].pid;
        n++;
    }
    weir__unlock(&pool->mutex);
    return n;
}

int weir_pool_get_ticket(weir_pool *pool, unsigned seat, weir_worker_ticket *ret_ticket)
{
    if (seat >= pool->n_desks)
        return WEIR_EINVAL;
    *ret_ticket = (weir_worker_ticket){.memory_fd = pool->channel.memory_fd,
                                       .bell_fd = pool->bell_fd,
                                       .parent_fd = pool->parent_fd,
                                       .seat = seat};
    return 0;
}

/* ---- ending -------------------------------------------------------------------------------- */

/* Under the mutex: nobody may wait for a permit of a closed pool. */
static void close_locked(weir_pool *pool, weir__after *after)
{
    pool->closed = true;
    while (pool->submitters.head)
        weir__waitq_serve(&pool->submitters, &after->wakeups, WEIR_ECLOSED);
    after->kick = true;
}

void weir_pool_close(weir_pool *pool)
{
    weir__after after = {0};
    weir__lock(&pool->mutex);
    close_locked(pool, &after);
    weir__pool_unlock(pool);
    weir__pool_do_after(pool, &after);
}

size_t weir_pool_discard(weir_pool *pool)
{
    size_t n = 0;
    uint64_t before; /* tasks accepted later stay: a drop may make room for a new one for ever */
    weir__lock(&pool->mutex);
    before = pool->tasks.next_seq;
    weir__pool_unlock(pool);
    for (;; n++) {
        weir__after after = {0};
        weir__lock(&pool->mutex);
        weir__task *task = take_oldest(pool);
        if (task && task->seq >= before) {
            weir__tasks_put_back(&pool->tasks, task);
            weir__pool_deal(pool, &after);
            task = NULL;
        }
        if (!task) {
            after.kick = true;
            weir__pool_unlock(pool);
            weir__pool_do_after(pool, &after);
            return n;
        }
        struct taken taken = settle(pool, task);
        pool->dropped[WEIR_DROP_DISCARDED]++;
        weir__pool_give_permits(pool, 1, &after);
        weir__pool_unlock(pool);
        weir__pool_do_after(pool, &after);
        report_drop(pool, &taken, WEIR_DROP_DISCARDED);
    }
}

void weir_pool_kill(weir_pool *pool)
{
    weir__after after = {0};
    weir__lock(&pool->mutex);
    pool->killed = true;
    close_locked(pool, &after);
    for (unsigned i = 0; i < pool->n_desks; i++)
        if (pool->desks[i].live && pool->desks[i].pid > 0)
            weir__pidfd_kill(pool->desks[i].pidfd, 9);
    weir__pool_unlock(pool);
    weir__pool_do_after(pool, &after);
    weir_pool_discard(pool);

    /* What a dead worker still gives back from now on has nobody to run it. */
    after = (weir__after){.kick = true};
    weir__lock(&pool->mutex);
    pool->failing_before = pool->tasks.next_seq;
    weir__pool_unlock(pool);
    weir__pool_do_after(pool, &after);
}

/* In the owner: ends the workers and hands back every tag. */
static void end_workers(weir_pool *pool)
{
    weir_pool_kill(pool);
    weir_completion completions[16];
    int64_t n;
    while ((n = weir_pool_collect(pool, completions, 16, WEIR_FOREVER)) != WEIR_ECLOSED)
        for (int64_t i = 0; i < n; i++)
            pool->opts.on_drop(completions[i].tag, WEIR_DROP_DISCARDED, pool->opts.drop_ctx);
}

/* In a forked child: the pool is the parent's; only descriptors were copied. */
static void close_copies(weir_pool *pool)
{
    for (unsigned i = 0; i < pool->n_desks; i++)
        if (pool->desks[i].live && pool->desks[i].pid > 0)
            close(pool->desks[i].pidfd);
}

void weir_pool_destroy(weir_pool *pool)
{
    if (!pool)
        return;
    if (pool->owner == getpid()) {
        end_workers(pool);
        /* Whoever was forked meanwhile may have the file for long: give its memory back now. */
        weir__memfd_release(pool->channel.memory_fd, 0, pool->arena.end);
        weir__pool_return_memory(pool);
    } else {
        close_copies(pool);
    }
    weir__arena_fini(&pool->arena);
    weir__tasks_fini(&pool->tasks);
    weir__channel_fini(&pool->channel);
    close(pool->epoll_fd);
    close(pool->parent_fd);
    close(pool->bell_fd);
    for (unsigned i = 0; i < pool->n_desks; i++)
        weir__record_close(pool->desks[i].record);
    weir__record_close(pool->record);
    weir__mutex_fini(&pool->mutex);
    weir__free(pool->desks);
    weir__free(pool);
}
