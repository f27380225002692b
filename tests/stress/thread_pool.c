/* Submitters outside and inside a pool, every policy, discards and a close under way.  A checker
 * takes snapshots meanwhile: law and bound hold in each.  At the end each accepted task has run or
 * was dropped, exactly once.
 *
 * WEIR_STRESS_SECONDS (default 2) scales how long all cases together take. */
#include "contract/support.h"

#include <stdatomic.h>

#include <weir/thread_pool.h>

#define SUBMITTERS 8
#define TASKS      (1u << 20)

static struct {
    weir_thread_pool *pool;
    size_t backlog;
    unsigned threads;
    _Atomic bool stop, finished;
    _Atomic uint32_t next; /* task number */
    _Atomic uint64_t accepted, ran, dropped;
} run;

/* How often each task came out; 1 for those accepted. */
static _Atomic uint8_t came_out[TASKS];

static _Thread_local bool in_call;

static void comes_out(void *arg)
{
    must(atomic_fetch_add(&came_out[(uintptr_t)arg], 1) == 0);
}

static void on_drop(weir_task_fn *fn, void *arg, weir_drop_reason reason, void *ctx)
{
    (void)reason, (void)ctx;
    must(in_call && fn != NULL);
    comes_out(arg);
    run.dropped++;
}

static void work(void *arg);

static int submit(weir_time deadline)
{
    uint32_t n = run.next++;
    if (n >= TASKS)
        return WEIR_ECLOSED;
    in_call = true;
    int rc = weir_thread_pool_submit(run.pool, work, number(n), deadline);
    in_call = false;
    run.accepted += rc >= 0;
    return rc;
}

static void work(void *arg)
{
    comes_out(arg);
    run.ran++;
    uintptr_t n = (uintptr_t)arg;
    if (n % 8 == 0 && !run.stop) {
        int rc = submit(n % 16 == 0 ? WEIR_FOREVER : weir_after(5000));
        must(rc >= 0 || rc == WEIR_EDEADLK || rc == WEIR_ECLOSED || rc == WEIR_EFULL ||
             rc == WEIR_ETIMEDOUT);
    }
}

static void *submits(void *arg)
{
    for (uintptr_t n = (uintptr_t)arg; !run.stop; n++) {
        int rc = submit(n % 3 == 0 ? WEIR_FOREVER : n % 3 == 1 ? WEIR_POLL : weir_after(20000));
        must(rc >= 0 || rc == WEIR_ECLOSED || rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT);
        if (rc == WEIR_ECLOSED)
            break;
    }
    return NULL;
}

static void *watch(void *arg)
{
    (void)arg;
    while (!run.finished) {
        weir_thread_pool_snapshot now = WEIR_THREAD_POOL_SNAPSHOT_INIT;
        must(weir_thread_pool_get_snapshot(run.pool, &now) == WEIR_OK);
        must(now.accepted == now.finished + now.running + now.waiting + total(now.dropped));
        must(now.running <= run.threads && now.waiting + now.running <= run.backlog + run.threads);
    }
    return NULL;
}

static void *discards(void *arg)
{
    (void)arg;
    in_call = true;
    while (!run.finished) {
        weir_thread_pool_discard(run.pool);
        int rc = weir_thread_pool_drain(run.pool, weir_after(300000));
        must(rc == WEIR_OK || rc == WEIR_ETIMEDOUT);
    }
    return NULL;
}

static double seconds(void)
{
    const char *asked = getenv("WEIR_STRESS_SECONDS");
    double value = asked ? strtod(asked, NULL) : 0;
    return value > 0 ? value : 2;
}

static void execute(weir_overflow policy, unsigned threads, size_t backlog, bool disturbs,
                    bool destroys)
{
    pthread_t submitters[SUBMITTERS], checker, discarder;
    run.backlog = backlog;
    run.threads = threads;
    run.stop = run.finished = false;
    run.next = 0;
    run.accepted = run.ran = run.dropped = 0;
    for (uint32_t i = 0; i < TASKS; i++)
        came_out[i] = 0;
    weir_thread_pool_opts opts = WEIR_THREAD_POOL_OPTS_INIT;
    opts.threads = threads;
    opts.backlog = backlog;
    opts.overflow = policy;
    opts.on_drop = on_drop;
    assert_int_equal(weir_thread_pool_create(&run.pool, &opts), WEIR_OK);

    pthread_create(&checker, NULL, watch, NULL);
    if (disturbs)
        pthread_create(&discarder, NULL, discards, NULL);
    for (uintptr_t i = 0; i < SUBMITTERS; i++)
        pthread_create(&submitters[i], NULL, submits, number(i));
    weir_time until = weir_after((int64_t)(seconds() / 16 * (double)WEIR_SECOND));
    while (weir_now() < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (disturbs)
        weir_thread_pool_close(run.pool); /* while all of them are at it */
    run.stop = true;
    for (int i = 0; i < SUBMITTERS; i++)
        pthread_join(submitters[i], NULL);
    run.finished = true;
    pthread_join(checker, NULL);
    if (disturbs)
        pthread_join(discarder, NULL);

    if (!destroys)
        assert_int_equal(weir_thread_pool_drain(run.pool, WEIR_FOREVER), WEIR_OK);
    in_call = true;
    weir_thread_pool_destroy(run.pool); /* with tasks inside, where it was not drained */
    in_call = false;
    assert_int_equal(run.accepted, run.ran + run.dropped);
    uint64_t out = 0;
    for (uint32_t i = 0; i < TASKS; i++)
        out += came_out[i];
    assert_int_equal(out, run.accepted);
}

static void stress(weir_overflow policy)
{
    execute(policy, 8, 16, false, false);
    execute(policy, 2, 1, false, true);
    execute(policy, 1, 3, true, false);
    execute(policy, 4, 100, true, true);
}

static void block_runs_or_drops_each_task_once(void **state)
{
    (void)state;
    stress(WEIR_OVERFLOW_BLOCK);
}

static void fail_runs_or_drops_each_task_once(void **state)
{
    (void)state;
    stress(WEIR_OVERFLOW_FAIL);
}

static void drop_newest_runs_or_drops_each_task_once(void **state)
{
    (void)state;
    stress(WEIR_OVERFLOW_DROP_NEWEST);
}

static void drop_oldest_runs_or_drops_each_task_once(void **state)
{
    (void)state;
    stress(WEIR_OVERFLOW_DROP_OLDEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_runs_or_drops_each_task_once),
        cmocka_unit_test(fail_runs_or_drops_each_task_once),
        cmocka_unit_test(drop_newest_runs_or_drops_each_task_once),
        cmocka_unit_test(drop_oldest_runs_or_drops_each_task_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
