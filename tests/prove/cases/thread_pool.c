/* thread_pool.c - exec/thread_pool: tasks, threads, and the end of both. */
#include "../prove.h"

#include <stdatomic.h>
#include <string.h>

#include <weir/thread_pool.h>

#define TASKS 4

static weir_thread_pool *pool;
static int ran[TASKS]; /* by the task alone, and read when nothing runs any more */
static _Atomic int n_dropped, running, most; /* relaxed: what they count orders nothing */

#define GET(word)    atomic_load_explicit(&(word), memory_order_relaxed)
#define SET(word, n) atomic_store_explicit(&(word), (n), memory_order_relaxed)
#define ADD(word, n) atomic_fetch_add_explicit(&(word), (n), memory_order_relaxed)

static void run(void *arg)
{
    int now = ADD(running, 1) + 1;
    if (now > GET(most))
        SET(most, now);
    ran[(intptr_t)arg]++;
    ADD(running, -1);
}

static void note_drop(weir_task_fn *fn, void *arg, weir_drop_reason reason, void *ctx)
{
    prove_claim(fn == run && ctx == &pool && (unsigned)reason < WEIR_DROP_REASONS);
    ran[(intptr_t)arg]--;
    ADD(n_dropped, 1);
}

static void make(unsigned threads, size_t backlog, weir_overflow overflow)
{
    weir_thread_pool_opts opts = WEIR_THREAD_POOL_OPTS_INIT;
    opts.threads = threads;
    opts.backlog = backlog;
    opts.overflow = overflow;
    opts.on_drop = note_drop;
    opts.drop_ctx = &pool;
    memset(ran, 0, sizeof ran);
    SET(n_dropped, 0);
    SET(running, 0);
    SET(most, 0);
    prove_claim(weir_thread_pool_create(&pool, &opts) == WEIR_OK);
}

static weir_thread_pool_snapshot look(void)
{
    weir_thread_pool_snapshot s = WEIR_THREAD_POOL_SNAPSHOT_INIT;
    uint64_t drops = 0;
    prove_claim(weir_thread_pool_get_snapshot(pool, &s) == WEIR_OK);
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        drops += s.dropped[i];
    prove_same(s.accepted, s.finished + s.running + s.waiting + drops);
    prove_claim(s.running <= s.threads);
    prove_claim(s.waiting + s.running <= s.backlog + s.threads);
    return s;
}

static int submit(int task, weir_time deadline)
{
    return weir_thread_pool_submit(pool, run, (void *)(intptr_t)task, deadline);
}

/* Every task that was taken has run or was dropped, once. */
static void end(int taken)
{
    int n = 0;
    weir_thread_pool_destroy(pool);
    for (int i = 0; i < TASKS; i++) {
        prove_claim(ran[i] >= -1 && ran[i] <= 1);
        n += ran[i] != 0;
    }
    prove_same(n, taken);
}

static void submit_two(void *arg)
{
    int first = (int)(intptr_t)arg;
    prove_claim(submit(first, WEIR_FOREVER) == WEIR_KEPT);
    prove_claim(submit(first + 1, WEIR_FOREVER) == WEIR_KEPT);
}

static void thread_pool_runs_all(void)
{
    make(1, 1, WEIR_OVERFLOW_BLOCK);
    int t = prove_spawn(submit_two, (void *)0);
    submit_two((void *)2);
    look();
    prove_join(t);
    weir_thread_pool_close(pool);
    prove_claim(weir_thread_pool_drain(pool, WEIR_FOREVER) == WEIR_OK);
    weir_thread_pool_snapshot s = look();
    prove_claim(s.finished == TASKS && s.waiting + s.running == 0 && s.closed);
    prove_same(submit(0, WEIR_FOREVER), WEIR_ECLOSED);
    for (int i = 0; i < TASKS; i++)
        prove_same(ran[i], 1);
    end(TASKS);
}

PROVE_CASE(thread_pool_runs_all, "each task runs once, and who drains sees what it did");

static void thread_pool_runs_at_once(void)
{
    prove_keep_records(true);
    make(2, 1, WEIR_OVERFLOW_BLOCK);
    submit_two((void *)0);
    prove_claim(submit(2, WEIR_FOREVER) == WEIR_KEPT);
    look();
    weir_thread_pool_close(pool);
    prove_claim(weir_thread_pool_drain(pool, WEIR_FOREVER) == WEIR_OK);
    prove_claim(GET(most) <= 2 && look().finished == 3);
    end(3);
}

PROVE_CASE(thread_pool_runs_at_once, "as many at once as there are threads, and no more");

static int taken_by[2];

static void submit_until_closed(void *arg)
{
    int first = (int)(intptr_t)arg;
    for (int i = 0; i < 2; i++) {
        int rc = submit(first + i, WEIR_FOREVER);
        prove_claim(rc == WEIR_KEPT || rc == WEIR_ECLOSED);
        taken_by[first / 2] += rc == WEIR_KEPT;
    }
}

static void thread_pool_closes(void)
{
    memset(taken_by, 0, sizeof taken_by);
    make(1, 1, WEIR_OVERFLOW_BLOCK);
    int t[] = {prove_spawn(submit_until_closed, (void *)0),
               prove_spawn(submit_until_closed, (void *)2)};
    weir_thread_pool_close(pool);
    if (prove_pick(2) == 1)
        weir_thread_pool_discard(pool);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    end(taken_by[0] + taken_by[1]);
}

PROVE_CASE(thread_pool_closes,
           "who waits to submit when it closes is told so; what was taken runs, or is dropped");

static void thread_pool_drops(void)
{
    bool oldest = prove_pick(2) == 1;
    make(1, 1, oldest ? WEIR_OVERFLOW_DROP_OLDEST : WEIR_OVERFLOW_DROP_NEWEST);
    for (int i = 0; i < 3; i++) {
        int rc = submit(i, WEIR_FOREVER);
        prove_claim(rc == WEIR_KEPT || (rc == WEIR_DROPPED && !oldest));
    }
    prove_claim(weir_thread_pool_drain(pool, WEIR_FOREVER) == WEIR_OK);
    prove_same(look().finished, 3 - GET(n_dropped));
    end(3);
}

PROVE_CASE(thread_pool_drops, "what is dropped is handed back once, and the rest runs");

static void submit_in_time(void *arg)
{
    int task = (int)(intptr_t)arg;
    int rc = submit(task, weir_after(WEIR_MILLISECOND));
    prove_claim(rc == WEIR_KEPT || rc == WEIR_ETIMEDOUT);
    taken_by[0] += rc == WEIR_KEPT;
}

static void thread_pool_times_out(void)
{
    memset(taken_by, 0, sizeof taken_by);
    make(1, 1, WEIR_OVERFLOW_BLOCK);
    int t = prove_spawn(submit_in_time, (void *)3);
    submit_two((void *)0);
    int rc = weir_thread_pool_drain(pool, weir_after(WEIR_MILLISECOND));
    prove_claim(rc == WEIR_OK || rc == WEIR_ETIMEDOUT);
    int full = submit(2, WEIR_POLL);
    prove_claim(full == WEIR_KEPT || full == WEIR_EFULL);
    prove_join(t);
    prove_claim(weir_thread_pool_drain(pool, WEIR_FOREVER) == WEIR_OK);
    prove_same(look().accepted, 2 + (full == WEIR_KEPT) + taken_by[0]);
    end(2 + (full == WEIR_KEPT) + taken_by[0]);
}

PROVE_CASE(thread_pool_times_out, "what finds no room in time is the caller's");

/* A task that submits, and drains, in its own pool. */
static _Atomic int from_inside;

static void run_and_submit(void *arg)
{
    (void)arg;
    prove_same(weir_thread_pool_drain(pool, WEIR_FOREVER), WEIR_EDEADLK);
    int rc = submit(1, WEIR_FOREVER);
    prove_claim(rc == WEIR_KEPT || rc == WEIR_EDEADLK || rc == WEIR_ECLOSED);
    SET(from_inside, rc == WEIR_KEPT);
}

static void thread_pool_from_inside(void)
{
    make(1, 1, WEIR_OVERFLOW_BLOCK);
    prove_claim(weir_thread_pool_submit(pool, run_and_submit, NULL, WEIR_FOREVER) == WEIR_KEPT);
    prove_claim(submit(0, WEIR_FOREVER) == WEIR_KEPT);
    int rc = submit(2, WEIR_FOREVER);
    prove_claim(rc == WEIR_KEPT);
    prove_claim(weir_thread_pool_drain(pool, WEIR_FOREVER) == WEIR_OK);
    end(2 + GET(from_inside));
}

PROVE_CASE(thread_pool_from_inside, "a task never waits for itself");

/* Destroyed with tasks in it, at any moment. */
static void thread_pool_destroyed(void)
{
    make(1, 2, WEIR_OVERFLOW_BLOCK);
    for (int i = 0; i < 3; i++)
        prove_claim(submit(i, WEIR_FOREVER) == WEIR_KEPT);
    end(3);
}

PROVE_CASE(thread_pool_destroyed,
           "what waits when it is destroyed is handed back, what runs is waited for");

static void thread_pool_has_no_memory(void)
{
    weir_thread_pool_opts opts = WEIR_THREAD_POOL_OPTS_INIT;
    opts.threads = 1;
    opts.backlog = 1;
    opts.on_drop = note_drop;
    opts.drop_ctx = &pool;
    memset(ran, 0, sizeof ran);
    prove_allocations_may_fail(true);
    int rc = weir_thread_pool_create(&pool, &opts);
    prove_claim(rc == WEIR_OK || rc == WEIR_ENOMEM);
    if (rc < 0)
        return;
    int first = submit(0, WEIR_FOREVER);
    prove_claim(first == WEIR_KEPT || first == WEIR_ENOMEM);
    prove_allocations_may_fail(false);
    end(first == WEIR_KEPT);
}

PROVE_CASE(thread_pool_has_no_memory, "without memory there is no pool, and nothing is left of it");
