/* pool_moments.c - exec/pool, batch, redeal, collect, channel: one moment each, at which two want the same; what leads
 * there is not left open. */
#include "pool_kit.h"

#include <signal.h>
#include <unistd.h>

#include "base/park.h"

#define KEPT      ((size_t)WEIR__LEASE_MIN)  /* the smallest that can be kept */
#define HALF      ((size_t)WEIR__EXTENT_MAX) /* two such replies are all of a worker's stretch */
#define MORE      ((size_t)WEIR__EXTENT_MAX + 64) /* a reply that asks for a block */
#define MUCH_MORE ((size_t)WEIR__SMALL_MAX + 64)

#define RELAXED memory_order_relaxed /* what is signalled so orders nothing */

static char large[MUCH_MORE];
static _Atomic bool has_begun, may_go_on;

/* All workers serve, and sleep. */
static void make_idle(const weir_pool_opts *opts)
{
    prove_take_first_ways(true);
    kit_make(opts);
    prove_same(weir_pool_start_workers(kit.pool, (unsigned)opts->workers), opts->workers);
    for (unsigned i = 0; i < opts->workers; i++)
        while (!atomic_load_explicit(&kit.pool->desks[i].seat->asleep, RELAXED)) {
            kit_collect(WEIR_POLL);
            prove_pause();
        }
    kit_collect(WEIR_POLL);
}

static void wait_until_it_has_begun(void)
{
    while (!atomic_load_explicit(&has_begun, RELAXED))
        prove_pause();
}

/* A worker is let go on by the one that has waited for this. */
static void begin_and_wait(void)
{
    atomic_store_explicit(&has_begun, true, RELAXED);
    while (!atomic_load_explicit(&may_go_on, RELAXED))
        prove_pause();
}

static void close_and_end(unsigned tags)
{
    prove_take_first_ways(true);
    weir_pool_close(kit.pool);
    kit_collect_all();
    kit_end(tags);
}

static void submit_sized(unsigned tag, size_t size)
{
    weir_bytes parts[] = {{&tag, sizeof tag}, {large, size - sizeof tag}};
    prove_same(weir_pool_submit(kit.pool, parts, 2, (void *)(uintptr_t)tag, WEIR_FOREVER, NULL),
               WEIR_KEPT);
}

static void reply_sized(weir_worker *worker, unsigned tag, size_t size)
{
    weir_bytes parts[] = {{&tag, sizeof tag}, {large, size - sizeof tag}};
    prove_same(weir_worker_reply(worker, 7, parts, 2), WEIR_OK);
}

/* ---- taking back ------------------------------------------------------------------------------ */

static _Atomic unsigned served;

static void count_and_echo(weir_worker *worker, const weir_task *task)
{
    atomic_fetch_add_explicit(&served, 1, RELAXED);
    kit_echo(worker, task);
}

static void pool_cancelled_as_it_is_claimed(void)
{
    uint64_t id;
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    kit.serve = count_and_echo;
    make_idle(&opts);
    prove_same(kit_submit(1, WEIR_FOREVER, &id), WEIR_KEPT);
    prove_take_first_ways(false);
    if (prove_pick(2))
        prove_yield();
    int rc = weir_pool_cancel(kit.pool, id);
    prove_claim(rc == 0 || rc == WEIR_ENOTASK);
    kit.taken_back[1] += rc == 0;
    close_and_end(1);
    prove_same(served + kit.taken_back[1], 1);
}

PROVE_CASE(pool_cancelled_as_it_is_claimed, "a worker's claim of a task and a cancel: one wins");

/* Its worker is to leave after one task, and has had none if that was taken back. */
static void pool_cancelled_task_is_not_counted(void)
{
    uint64_t id;
    weir_pool_opts opts = kit_opts(1, 1);
    opts.tasks_per_worker = 1;
    kit.workers_may_die = false;
    make_idle(&opts);
    prove_same(kit_submit(1, WEIR_FOREVER, &id), WEIR_KEPT);
    prove_take_first_ways(false);
    if (prove_pick(2))
        prove_yield();
    kit.taken_back[1] = weir_pool_cancel(kit.pool, id) == 0;
    prove_same(kit_submit(2, WEIR_FOREVER, NULL), WEIR_KEPT);
    kit_collect_some(2 - kit.taken_back[1]);
    prove_same(kit_look().workers_started, 2 - kit.taken_back[1]);
    close_and_end(2);
}

PROVE_CASE(pool_cancelled_task_is_not_counted,
           "a worker that leaves after so many tasks still runs as many if one was taken back");

static void begin_and_answer(weir_worker *worker, const weir_task *task)
{
    begin_and_wait();
    kit_answer(worker, task);
}

static void pool_batch_cut_as_it_is_claimed(void)
{
    uint64_t id;
    unsigned tag = 1;
    weir_bytes part = {&tag, sizeof tag};
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    kit.serve = begin_and_answer;
    kit.has_batches = true;
    make_idle(&opts);
    prove_same(weir_pool_admit(kit.pool, WEIR_POLL), WEIR_KEPT);
    prove_same(weir_pool_post_batch(kit.pool, &part, 1, 2, (void *)1, &id), 0);
    wait_until_it_has_begun();
    atomic_store_explicit(&may_go_on, true, RELAXED);
    prove_take_first_ways(false);
    if (prove_pick(2))
        prove_yield();
    prove_same(weir_pool_cancel(kit.pool, id), WEIR_ENOTASK);
    prove_take_first_ways(true);
    kit_collect_some(1);
    prove_claim(kit.answered[1][1] <= kit.answered[1][0]);
    prove_same(kit_look().died + kit_look().workers_died, 0); /* it said nothing impossible */
    close_and_end(1);
}

PROVE_CASE(pool_batch_cut_as_it_is_claimed,
           "a worker's claim of an item and a cut before it: one wins");

static void work_late(void *ticket)
{
    weir_worker *worker;
    weir_task task;
    prove_same(weir_worker_open(&worker, ticket), WEIR_OK);
    weir_worker_ready(worker);
    begin_and_wait();
    while (weir_worker_take(worker, &task, WEIR_FOREVER) == WEIR_OK)
        kit.serve(worker, &task);
    weir_worker_close(worker);
}

/* All slots of a worker's ring were dealt and taken back before it has looked: the next task waits until it has passed
 * them. */
static void pool_ring_of_revoked(void)
{
    uint64_t id;
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    kit.main = work_late;
    prove_take_first_ways(true);
    kit_make(&opts);
    prove_same(weir_pool_start_workers(kit.pool, 1), 1);
    wait_until_it_has_begun();
    kit_collect(WEIR_POLL);
    for (unsigned i = 0; i < WEIR__SLOTS; i++) {
        prove_same(kit_submit(1, WEIR_FOREVER, &id), WEIR_KEPT);
        prove_same(weir_pool_cancel(kit.pool, id), 0);
    }
    prove_same(kit_submit(2, WEIR_FOREVER, NULL), WEIR_KEPT);
    kit.taken_back[1] = 1; /* each time */
    atomic_store_explicit(&may_go_on, true, RELAXED);
    prove_take_first_ways(false);
    prove_let_time_stand_still();
    unsigned stalls = prove_stalls();
    kit_collect_some(1);
    prove_same(prove_stalls(), stalls);
    close_and_end(2);
}

PROVE_CASE(pool_ring_of_revoked, "a task for which there was no slot is dealt when there is one");

/* ---- sharing out ------------------------------------------------------------------------------ */

static _Atomic uint32_t others_are_done;

/* The first item goes on when the last one is done. */
static void answer_the_last_first(weir_worker *worker, const weir_task *task)
{
    (void)task;
    uint32_t item;
    prove_take_first_ways(true);
    while (weir_worker_next_item(worker, &item) == WEIR_OK) {
        weir_bytes reply = {&item, sizeof item};
        while (item == 0 && !others_are_done)
            weir__futex_wait(&others_are_done, 0, WEIR_FOREVER, true);
        prove_same(weir_worker_reply_item(worker, &reply, 1), WEIR_OK);
        if (item == KIT_ITEMS - 1) {
            others_are_done = 1;
            weir__futex_wake(&others_are_done, 8, true);
        }
    }
    prove_same(weir_worker_end_batch(worker), WEIR_OK);
}

/* It has waited for so long with a worker that the other one should get it, when it is begun after all: at the last
 * look of who collects, so nothing that comes makes up for what that overlooks. */
static void pool_claimed_as_it_is_redealt(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    kit.workers_may_die = false;
    kit.serve = answer_the_last_first;
    make_idle(&opts);
    kit_submit_batch(1, KIT_ITEMS);
    prove_take_first_ways(false);
    weir_time due = kit.pool->desks[0].progressed + WEIR_MILLISECOND;
    for (int64_t soon = prove_pick(8) * WEIR_MICROSECOND; weir_now() < due - soon;)
        continue;
    kit_collect_some(1);
    for (unsigned i = 0; i < KIT_ITEMS; i++)
        prove_same(kit.answered[1][i], 1);
    close_and_end(1);
}

PROVE_CASE(pool_claimed_as_it_is_redealt,
           "a batch that is begun as it should be taken back is shared out all the same");

/* ---- dismissing ------------------------------------------------------------------------------- */

/* Nothing but that tells the workers of the tasks: they have not slept meanwhile, and it was another thread that dealt
 * them. */
static void pool_dismissed_as_it_is_dealt(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    kit.workers_may_die = false;
    kit.main = work_late;
    prove_take_first_ways(true);
    kit_make(&opts);
    prove_same(weir_pool_start_workers(kit.pool, 2), 2);
    while (kit.pool->starting > 0) {
        kit_collect(WEIR_POLL);
        prove_pause();
    }
    prove_join(prove_spawn(kit_submit_some, (void *)2));
    prove_same(weir_pool_set_workers(kit.pool, 1), 0);
    atomic_store_explicit(&may_go_on, true, RELAXED);
    prove_take_first_ways(false);
    prove_yield();
    prove_take_first_ways(true);
    kit_collect_some(2);
    while (kit_look().workers_alive > 1)
        kit_collect(weir_after(WEIR_MILLISECOND));
    prove_same(kit_look().workers_died, 0);
    close_and_end(2);
}

PROVE_CASE(pool_dismissed_as_it_is_dealt,
           "who is told to leave sees the task that it was dealt before");

/* ---- room for replies ------------------------------------------------------------------------- */

/* The third is where the first was. */
static void reply_with_halves(weir_worker *worker, const weir_task *task)
{
    unsigned tag = *(const unsigned *)task->data;
    if (tag == 3)
        begin_and_wait();
    reply_sized(worker, tag, HALF);
}

static void pool_room_given_back(void)
{
    weir_pool_opts opts = kit_opts(1, 2);
    kit.workers_may_die = false;
    kit.serve = reply_with_halves;
    make_idle(&opts);
    kit_submit_some((void *)2);
    kit_pause(); /* so both are collected at once, */
    prove_same(kit_submit(3, WEIR_FOREVER, NULL), WEIR_KEPT);
    prove_same(kit_collect(WEIR_POLL), 2); /* ... and read here */
    wait_until_it_has_begun();
    prove_take_first_ways(false);
    atomic_store_explicit(&may_go_on, true, RELAXED);
    kit_collect(WEIR_POLL); /* gives back their room */
    prove_take_first_ways(true);
    kit_collect_some(3);
    close_and_end(3);
}

PROVE_CASE(pool_room_given_back, "a reply is written where an older one was when that was read");

/* ---- data that is kept ------------------------------------------------------------------------ */

static weir_lease *lease;
static const unsigned *kept;

static void keep(weir_worker *worker)
{
    void *data;
    prove_same(weir_worker_keep(worker, &lease, &data), WEIR_OK);
    kept = data;
}

static void keep_the_first(weir_worker *worker, const weir_task *task)
{
    unsigned tag = *(const unsigned *)task->data;
    if (tag == 1) {
        keep(worker);
    } else {
        prove_same(*kept, 1);
        weir_worker_release(worker, lease);
    }
    reply_sized(worker, tag, sizeof tag);
}

static void pool_kept_beside_others(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    kit.serve = keep_the_first;
    make_idle(&opts);
    prove_take_first_ways(false);
    for (unsigned tag = 1; tag <= 2; tag++) {
        submit_sized(tag, KEPT);
        kit_collect_some(tag);
        kit_collect(WEIR_POLL); /* what is done with goes back */
    }
    close_and_end(2);
}

PROVE_CASE(pool_kept_beside_others, "what a worker keeps is no other task's until it is back");

static weir_lease *leases[3];

/* The first two are kept, and given back in the third, when all that others gave back is told. */
static void keep_two(weir_worker *worker, const weir_task *task)
{
    unsigned tag = *(const unsigned *)task->data;
    void *data;
    if (tag < 3) {
        prove_same(weir_worker_keep(worker, &leases[tag], &data), WEIR_OK);
    } else {
        begin_and_wait();
        atomic_thread_fence(memory_order_acquire); /* the other's look comes later */
        weir_worker_release(worker, leases[1]);
        weir_worker_release(worker, leases[2]);
    }
    reply_sized(worker, tag, sizeof tag);
}

/* As if the worker had given back so many before: a ring that has room for one. */
static void fill_returns(weir__desk *desk)
{
    for (unsigned i = 0; i < WEIR__RETURNS - 1; i++) {
        weir__block block;
        prove_same(weir__arena_alloc(&kit.pool->arena, 512, &block), 0);
        desk->seat->returns[i] = block.offset;
        weir__arena_hold(&desk->kept, &block);
    }
    atomic_store_explicit(&desk->seat->returned, WEIR__RETURNS - 1, RELAXED);
}

static void pool_returns_go_round(void)
{
    weir_pool_opts opts = kit_opts(1, 2);
    kit.workers_may_die = false;
    kit.serve = keep_two;
    make_idle(&opts);
    for (unsigned tag = 1; tag <= 2; tag++) {
        submit_sized(tag, KEPT);
        kit_collect_some(tag);
    }
    prove_same(kit_submit(3, WEIR_FOREVER, NULL), WEIR_KEPT);
    wait_until_it_has_begun();
    weir__desk *desk = &kit.pool->desks[0];
    fill_returns(desk);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&may_go_on, true, RELAXED);
    prove_take_first_ways(false);
    if (prove_pick(2))
        kit_pause(); /* it has found no room for the second */
    kit_collect(WEIR_POLL);
    prove_take_first_ways(true);
    for (unsigned i = 0; i < 10 && desk->kept.first; i++)
        kit_collect(weir_after(WEIR_MILLISECOND));
    prove_claim(!desk->kept.first);
    kit_collect_some(3);
    close_and_end(3);
}

PROVE_CASE(pool_returns_go_round,
           "what a worker gives back and there is no room for waits, and is told then");

/* ---- a seat that is used again ---------------------------------------------------------------- */

static void die(void)
{
    kill(getpid(), SIGKILL);
}

/* With a retry: the next worker on the seat does it. */
static void make_with_a_retry(kit_serve_fn *serve)
{
    weir_pool_opts opts = kit_opts(1, 1);
    opts.retries = 1;
    kit.workers_may_die = true;
    kit.serve = serve;
    make_idle(&opts);
}

static void collect_one_by_one(unsigned from, unsigned to, size_t size)
{
    for (unsigned tag = from; tag <= to; tag++) {
        submit_sized(tag, size);
        kit_collect_some(tag);
        kit_collect(WEIR_POLL);
    }
}

/* The first time that it is run. */
static bool is_first_try(void)
{
    return !atomic_exchange_explicit(&has_begun, true, RELAXED);
}

static void die_after_a_half(weir_worker *worker, const weir_task *task)
{
    unsigned tag = *(const unsigned *)task->data;
    if (tag == 2 && is_first_try())
        die();
    reply_sized(worker, tag, tag == 1 ? HALF : HALF / 2);
}

static void pool_seat_with_a_used_stretch(void)
{
    make_with_a_retry(die_after_a_half);
    collect_one_by_one(1, 3, sizeof(unsigned));
    close_and_end(3);
}

PROVE_CASE(pool_seat_with_a_used_stretch,
           "a worker's stretch is empty, whatever the one before had there");

/* The second time it wants more. */
static void want_and_want_more(weir_worker *worker, const weir_task *task)
{
    bool is_first = is_first_try();
    reply_sized(worker, *(const unsigned *)task->data, is_first ? MORE : MUCH_MORE);
}

static void pool_seat_with_a_wish(void)
{
    make_with_a_retry(want_and_want_more);
    weir__desk *desk = &kit.pool->desks[0];
    submit_sized(1, sizeof(unsigned));
    while (!atomic_load_explicit(&desk->seat->want, RELAXED))
        prove_pause();
    kill(desk->pid, SIGKILL);
    kit_collect_some(1);
    prove_same(kit_look().workers_died, 1);
    close_and_end(1);
}

PROVE_CASE(pool_seat_with_a_wish, "a worker gets the block that it wants, not the one before it");

/* 1: kept.  2: given back; and a death, the first time.  3: kept, the same block.  4: another one. */
static void keep_again(weir_worker *worker, const weir_task *task)
{
    unsigned tag = *(const unsigned *)task->data;
    bool is_first = tag == 2 && is_first_try();
    if (tag % 2)
        keep(worker);
    if (is_first || tag == 4) {
        prove_same(*kept, tag - 1);
        weir_worker_release(worker, lease);
    }
    if (is_first)
        die();
    reply_sized(worker, tag, sizeof tag);
}

static void pool_seat_with_returns(void)
{
    make_with_a_retry(keep_again);
    collect_one_by_one(1, 1, KEPT);
    collect_one_by_one(2, 2, sizeof(unsigned));
    collect_one_by_one(3, 4, KEPT);
    close_and_end(4);
}

PROVE_CASE(pool_seat_with_returns, "what the one before has given back is not taken from the next");

/* ---- killing ---------------------------------------------------------------------------------- */

/* There is no room for another one behind it. */
static void answer_one(weir_worker *worker, const weir_task *task)
{
    (void)task;
    uint32_t item;
    weir_bytes reply = {large, HALF - 64};
    while (weir_worker_next_item(worker, &item) == WEIR_OK)
        prove_same(weir_worker_reply_item(worker, &reply, 1), WEIR_OK);
    prove_same(weir_worker_end_batch(worker), WEIR_OK);
    begin_and_wait();
}

static void kill_it(void *arg)
{
    (void)arg;
    weir_pool_kill(kit.pool);
}

/* It is dead before its reply was seen: by who looks for the dead before he looks for replies, as he does now and then. */
static void echo_and_die(weir_worker *worker, const weir_task *task)
{
    kit_echo(worker, task);
    die();
}

static void pool_killed_behind_its_reply(void)
{
    uint64_t id;
    weir_pool_opts opts = kit_opts(1, 2);
    bool is_behind_a_revoked = prove_pick(2);
    kit.main = work_late;
    kit.serve = echo_and_die;
    prove_take_first_ways(true);
    kit_make(&opts);
    prove_same(weir_pool_start_workers(kit.pool, 1), 1);
    wait_until_it_has_begun();
    kit_collect(WEIR_POLL);
    pid_t pid = kit.pool->desks[0].pid;
    if (is_behind_a_revoked) {
        prove_same(kit_submit(2, WEIR_FOREVER, &id), WEIR_KEPT);
        prove_same(weir_pool_cancel(kit.pool, id), 0);
    }
    prove_same(kit_submit(1, WEIR_FOREVER, NULL), WEIR_KEPT);
    kit.taken_back[2] = 1;
    atomic_store_explicit(&may_go_on, true, RELAXED);
    prove_process_wait(pid);
    while (weir_now() < kit.pool->chores_at)
        continue;
    prove_take_first_ways(false);
    kit_collect_some(1);
    prove_same(kit_look().died, 0);
    close_and_end(2);
}

PROVE_CASE(pool_killed_behind_its_reply, "what a worker replied before it died is handed out");

/* The items behind go back in line when nobody is left to do them. */
static void pool_killed_with_a_part(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    kit.serve = answer_one;
    make_idle(&opts);
    kit_submit_batch(1, 2);
    wait_until_it_has_begun();
    prove_take_first_ways(false);
    int t = prove_spawn(kill_it, NULL);
    weir_completion done;
    unsigned answered = 0, last = 0;
    for (int64_t n; (n = weir_pool_collect(kit.pool, &done, 1, WEIR_FOREVER)) != WEIR_ECLOSED;) {
        prove_same(n, 1);
        prove_claim(done.outcome == WEIR_OUTCOME_REPLIED ||
                    done.outcome == WEIR_OUTCOME_NOT_STARTED);
        answered += done.items * (done.outcome == WEIR_OUTCOME_REPLIED);
        last += done.last;
    }
    prove_join(t);
    prove_same(answered, 1);
    prove_same(last + kit.dropped[1], 1);
    kit.collected[1] = last;
    kit_end(1);
}

PROVE_CASE(pool_killed_with_a_part,
           "what comes back after a kill is handed out, and does not wait");
