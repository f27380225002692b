/* Every sentence of <weir/thread_pool.h>, seen from outside. */
#include "support.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#include <weir/thread_pool.h>

/* ---- tasks, and what was dropped ---------------------------------------------------------------- */

static struct {
    _Atomic size_t n;
    weir_task_fn *fn;
    void *arg;
    weir_drop_reason reason;
    uintptr_t args[100];
} dropped;

static void note_drop(weir_task_fn *fn, void *arg, weir_drop_reason reason, void *ctx)
{
    must(ctx == &dropped);
    dropped.fn = fn;
    dropped.arg = arg;
    dropped.reason = reason;
    dropped.args[dropped.n++] = (uintptr_t)arg;
}

/* A door that tasks wait at. */
typedef struct door {
    _Atomic unsigned waiting;
    _Atomic bool open;
} door;

static void pass(void *arg)
{
    door *d = arg;
    d->waiting++;
    soon(d->open);
    d->waiting--;
}

static _Atomic unsigned ran;

static void count(void *arg)
{
    (void)arg;
    ran++;
}

static weir_thread_pool_opts options(unsigned threads, size_t backlog)
{
    weir_thread_pool_opts opts = WEIR_THREAD_POOL_OPTS_INIT;
    opts.threads = threads;
    opts.backlog = backlog;
    opts.on_drop = note_drop;
    opts.drop_ctx = &dropped;
    return opts;
}

static weir_thread_pool *make_with(unsigned threads, size_t backlog, weir_overflow overflow)
{
    weir_thread_pool *pool = NULL;
    weir_thread_pool_opts opts = options(threads, backlog);
    opts.overflow = overflow;
    dropped.n = 0;
    ran = 0;
    assert_int_equal(weir_thread_pool_create(&pool, &opts), WEIR_OK);
    return pool;
}

static weir_thread_pool *make(unsigned threads, size_t backlog)
{
    return make_with(threads, backlog, WEIR_OVERFLOW_BLOCK);
}

static weir_thread_pool_snapshot look(weir_thread_pool *pool)
{
    weir_thread_pool_snapshot now = WEIR_THREAD_POOL_SNAPSHOT_INIT;
    must(weir_thread_pool_get_snapshot(pool, &now) == WEIR_OK);
    must(now.accepted == now.finished + now.running + now.waiting + total(now.dropped));
    must(now.backlog == WEIR_UNBOUNDED || now.waiting + now.running <= now.backlog + now.threads);
    return now;
}

/* All threads at the door, nothing waiting. */
static void occupy(weir_thread_pool *pool, door *d, unsigned threads)
{
    for (unsigned i = 0; i < threads; i++)
        assert_int_equal(weir_thread_pool_submit(pool, pass, d, WEIR_FOREVER), WEIR_KEPT);
    soon(d->waiting == threads);
}

/* ---- options ------------------------------------------------------------------------------------ */

static void create_refuses_every_option_out_of_range(void **state)
{
    (void)state;
    weir_thread_pool *pool = NULL;
    weir_thread_pool_opts opts;
#define REFUSES(change)                                                                            \
    opts = options(1, 1);                                                                          \
    change;                                                                                        \
    assert_int_equal(weir_thread_pool_create(&pool, &opts), WEIR_EINVAL);                          \
    assert_null(pool)
    REFUSES(opts.size = 0);
    REFUSES(opts.size++);
    REFUSES(opts.backlog = 0);
    REFUSES(opts.on_drop = NULL);
    REFUSES(opts.overflow = WEIR_OVERFLOW_SAMPLE);
    REFUSES(opts.overflow = (weir_overflow)-1);
#undef REFUSES
}

static void without_a_number_there_is_a_thread_per_usable_cpu(void **state)
{
    (void)state;
    cpu_set_t cpus;
    assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
    weir_thread_pool *pool = make(0, 1);
    assert_int_equal(look(pool).threads, CPU_COUNT(&cpus));
    weir_thread_pool_destroy(pool);
}

static void destroy_takes_null(void **state)
{
    (void)state;
    weir_thread_pool_destroy(NULL);
}

/* ---- submitting --------------------------------------------------------------------------------- */

static void a_pool_runs_what_it_took_in_order(void **state)
{
    (void)state;
    weir_thread_pool *pool = make(1, WEIR_UNBOUNDED);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(weir_thread_pool_submit(pool, count, NULL, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_thread_pool_drain(pool, WEIR_FOREVER), WEIR_OK);
    assert_int_equal(ran, 1000);
    assert_int_equal(look(pool).finished, 1000);
    weir_thread_pool_destroy(pool);
}

static void a_pool_holds_backlog_and_threads_and_not_one_more(void **state)
{
    (void)state;
    door d = {0};
    weir_thread_pool *pool = make(2, 3);
    occupy(pool, &d, 2);
    for (int i = 0; i < 3; i++)
        assert_int_equal(weir_thread_pool_submit(pool, count, NULL, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_thread_pool_submit(pool, count, NULL, WEIR_POLL), WEIR_EFULL);
    assert_int_equal(weir_thread_pool_submit(pool, count, NULL, weir_after(1000)), WEIR_ETIMEDOUT);
    weir_thread_pool_snapshot now = look(pool);
    assert_int_equal(now.running, 2);
    assert_int_equal(now.waiting, 3);
    assert_int_equal(now.refused, 2);
    assert_int_equal(now.backlog, 3);
    assert_true(now.submit_blocked_ns > 0);
    d.open = true;
    assert_int_equal(weir_thread_pool_drain(pool, WEIR_FOREVER), WEIR_OK);
    assert_int_equal(ran, 3);
    weir_thread_pool_destroy(pool);
    assert_int_equal(dropped.n, 0);
}

static void a_full_pool_that_fails_refuses_at_once(void **state)
{
    (void)state;
    door d = {0};
    weir_thread_pool *pool = make_with(1, 1, WEIR_OVERFLOW_FAIL);
    occupy(pool, &d, 1);
    assert_int_equal(weir_thread_pool_submit(pool, count, NULL, WEIR_FOREVER), WEIR_KEPT);
    assert_int_equal(weir_thread_pool_submit(pool, count, NULL, WEIR_FOREVER), WEIR_EFULL);
    d.open = true;
    weir_thread_pool_destroy(pool);
}

static void a_full_pool_that_drops_the_newest_gives_it_to_on_drop(void **state)
{
    (void)state;
    door d = {0};
    weir_thread_pool *pool = make_with(1, 1, WEIR_OVERFLOW_DROP_NEWEST);
    occupy(pool, &d, 1);
    assert_int_equal(weir_thread_pool_submit(pool, count, number(1), WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_thread_pool_submit(pool, pass, number(2), WEIR_POLL), WEIR_DROPPED);
    assert_int_equal(dropped.n, 1);
    assert_true(dropped.fn == pass);
    assert_ptr_equal(dropped.arg, number(2));
    assert_int_equal(dropped.reason, WEIR_DROP_NEWEST);
    d.open = true;
    weir_thread_pool_destroy(pool);
}

static void a_full_pool_that_drops_the_oldest_never_drops_what_runs(void **state)
{
    (void)state;
    door d = {0};
    weir_thread_pool *pool = make_with(2, 3, WEIR_OVERFLOW_DROP_OLDEST);
    occupy(pool, &d, 2);
    for (uintptr_t i = 1; i <= 20; i++)
        assert_int_equal(weir_thread_pool_submit(pool, count, number(i), WEIR_POLL), WEIR_KEPT);
    assert_int_equal(dropped.n, 17);
    for (uintptr_t i = 0; i < 17; i++)
        assert_int_equal(dropped.args[i], i + 1);
    assert_int_equal(look(pool).dropped[WEIR_DROP_OLDEST], 17);
    d.open = true;
    assert_int_equal(weir_thread_pool_drain(pool, WEIR_FOREVER), WEIR_OK);
    assert_int_equal(ran, 3);
    weir_thread_pool_destroy(pool);
}

static void a_closed_pool_refuses_and_runs_what_it_took(void **state)
{
    (void)state;
    door d = {0};
    weir_thread_pool *pool = make(1, 5);
    occupy(pool, &d, 1);
    for (int i = 0; i < 5; i++)
        weir_thread_pool_submit(pool, count, NULL, WEIR_POLL);
    weir_thread_pool_close(pool);
    weir_thread_pool_close(pool);
    assert_int_equal(weir_thread_pool_submit(pool, count, NULL, WEIR_FOREVER), WEIR_ECLOSED);
    assert_true(look(pool).closed);
    d.open = true;
    assert_int_equal(weir_thread_pool_drain(pool, WEIR_FOREVER), WEIR_OK);
    assert_int_equal(ran, 5);
    weir_thread_pool_destroy(pool);
}

static int always(void *ctx)
{
    (void)ctx;
    return 1;
}

static void an_interruption_ends_the_wait_and_leaves_the_task_with_the_caller(void **state)
{
    (void)state;
    door d = {0};
    weir_thread_pool *pool = make(1, 1);
    occupy(pool, &d, 1);
    weir_thread_pool_submit(pool, count, NULL, WEIR_POLL);
    weir_set_interrupt(always, NULL);
    assert_int_equal(weir_thread_pool_submit(pool, count, NULL, WEIR_FOREVER), WEIR_EINTR);
    assert_int_equal(weir_thread_pool_drain(pool, WEIR_FOREVER), WEIR_EINTR);
    weir_set_interrupt(NULL, NULL);
    d.open = true;
    assert_int_equal(weir_thread_pool_drain(pool, WEIR_FOREVER), WEIR_OK);
    assert_int_equal(ran, 1);
    weir_thread_pool_destroy(pool);
}

/* ---- submitting from inside --------------------------------------------------------------------- */

typedef struct nested {
    weir_thread_pool *pool;
    door door;
    _Atomic int kept, refused;
} nested;

static void submit_inside(void *arg)
{
    nested *n = arg;
    pass(&n->door);
    int rc = weir_thread_pool_submit(n->pool, count, NULL, WEIR_FOREVER);
    n->kept += rc == WEIR_KEPT;
    n->refused += rc == WEIR_EDEADLK;
}

static void the_last_thread_that_would_wait_for_itself_is_refused(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 4; threads++) {
        nested n = {0};
        n.pool = make(threads, 5);
        for (unsigned i = 0; i < threads; i++)
            weir_thread_pool_submit(n.pool, submit_inside, &n, WEIR_FOREVER);
        soon(n.door.waiting == threads);
        while (weir_thread_pool_submit(n.pool, count, NULL, WEIR_POLL) == WEIR_KEPT)
            ;
        n.door.open = true; /* all threads now submit to their full pool */
        assert_int_equal(weir_thread_pool_drain(n.pool, WEIR_FOREVER), WEIR_OK);
        assert_int_equal(n.refused, 1);
        assert_int_equal(n.kept, threads - 1);
        assert_int_equal(ran, 5 + threads - 1);
        weir_thread_pool_destroy(n.pool);
    }
}

static void submit_until_told(void *arg)
{
    nested *n = arg;
    int rc;
    while ((rc = weir_thread_pool_submit(n->pool, count, NULL, WEIR_FOREVER)) == WEIR_KEPT)
        n->kept++;
    n->refused += rc == WEIR_EDEADLK;
}

static void a_task_that_fills_its_own_pool_is_told_so(void **state)
{
    (void)state;
    nested n = {0};
    n.pool = make(1, 10);
    weir_thread_pool_submit(n.pool, submit_until_told, &n, WEIR_POLL);
    assert_int_equal(weir_thread_pool_drain(n.pool, WEIR_FOREVER), WEIR_OK);
    assert_int_equal(n.kept, 10);
    assert_int_equal(n.refused, 1);
    assert_int_equal(ran, 10);
    assert_int_equal(look(n.pool).refused, 0);
    weir_thread_pool_destroy(n.pool);
}

static void try_inside(void *arg)
{
    nested *n = arg;
    while (weir_thread_pool_submit(n->pool, count, NULL, WEIR_POLL) == WEIR_KEPT)
        n->kept++;
    n->refused = weir_thread_pool_submit(n->pool, count, NULL, WEIR_POLL);
}

static void a_try_inside_a_full_pool_is_told_full(void **state)
{
    (void)state;
    nested n = {0};
    n.pool = make(1, 3);
    weir_thread_pool_submit(n.pool, try_inside, &n, WEIR_POLL);
    assert_int_equal(weir_thread_pool_drain(n.pool, WEIR_FOREVER), WEIR_OK);
    assert_int_equal(n.kept, 3);
    assert_int_equal(n.refused, WEIR_EFULL);
    weir_thread_pool_destroy(n.pool);
}

static void drain_inside(void *arg)
{
    nested *n = arg;
    n->refused = weir_thread_pool_drain(n->pool, WEIR_FOREVER);
}

static void drain_inside_a_task_is_refused(void **state)
{
    (void)state;
    nested n = {0};
    n.pool = make(2, 1);
    weir_thread_pool_submit(n.pool, drain_inside, &n, WEIR_POLL);
    assert_int_equal(weir_thread_pool_drain(n.pool, WEIR_FOREVER), WEIR_OK);
    assert_int_equal(n.refused, WEIR_EDEADLK);
    weir_thread_pool_destroy(n.pool);
}

/* ---- discarding and ending ---------------------------------------------------------------------- */

static void discard_drops_what_waits_and_not_what_runs(void **state)
{
    (void)state;
    door d = {0};
    weir_thread_pool *pool = make(1, 50);
    occupy(pool, &d, 1);
    for (uintptr_t i = 0; i < 50; i++)
        weir_thread_pool_submit(pool, count, number(i), WEIR_POLL);
    assert_int_equal(weir_thread_pool_discard(pool), 50);
    assert_int_equal(dropped.n, 50);
    assert_int_equal(dropped.reason, WEIR_DROP_DISCARDED);
    assert_int_equal(look(pool).running, 1);
    assert_int_equal(weir_thread_pool_submit(pool, count, NULL, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_thread_pool_drain(pool, weir_after(1000)), WEIR_ETIMEDOUT);
    d.open = true;
    assert_int_equal(weir_thread_pool_drain(pool, WEIR_FOREVER), WEIR_OK);
    assert_int_equal(ran, 1);
    weir_thread_pool_destroy(pool);
}

static void *open_when_dropped(void *arg)
{
    door *d = arg;
    soon(dropped.n == 10);
    d->open = true;
    return NULL;
}

static void destroy_waits_for_what_runs_and_drops_what_waits(void **state)
{
    (void)state;
    door d = {0};
    pthread_t opener;
    weir_thread_pool *pool = make(2, 10);
    occupy(pool, &d, 2);
    for (uintptr_t i = 0; i < 10; i++)
        weir_thread_pool_submit(pool, count, number(i), WEIR_POLL);
    pthread_create(&opener, NULL, open_when_dropped, &d);
    weir_thread_pool_destroy(pool);
    assert_int_equal(d.waiting, 0);
    assert_int_equal(dropped.n, 10);
    assert_int_equal(ran, 0);
    pthread_join(opener, NULL);
}

/* ---- the threads -------------------------------------------------------------------------------- */

static void see_mask(void *arg)
{
    sigset_t *mask = arg;
    pthread_sigmask(SIG_SETMASK, NULL, mask);
}

static void the_threads_block_all_signals_and_the_creator_does_not(void **state)
{
    (void)state;
    sigset_t inside, outside, before;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    weir_thread_pool *pool = make(1, 1);
    pthread_sigmask(SIG_SETMASK, NULL, &outside);
    weir_thread_pool_submit(pool, see_mask, &inside, WEIR_FOREVER);
    weir_thread_pool_drain(pool, WEIR_FOREVER);
    const int signals[] = {SIGINT, SIGTERM, SIGCHLD, SIGUSR1, SIGALRM, SIGHUP};
    for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
        assert_true(sigismember(&inside, signals[i]));
        assert_int_equal(sigismember(&outside, signals[i]), sigismember(&before, signals[i]));
    }
    weir_thread_pool_destroy(pool);
}

static void set_hook(void *arg)
{
    (void)arg;
    weir_set_interrupt(always, NULL);
}

static void a_hook_that_a_task_set_ends_with_the_task(void **state)
{
    (void)state;
    weir_thread_pool *pool = make(1, 1);
    weir_thread_pool_submit(pool, set_hook, NULL, WEIR_FOREVER);
    assert_int_equal(weir_thread_pool_drain(pool, WEIR_FOREVER), WEIR_OK);
    assert_int_equal(weir_thread_pool_submit(pool, count, NULL, WEIR_FOREVER), WEIR_KEPT);
    assert_int_equal(weir_thread_pool_drain(pool, weir_after(PATIENCE)), WEIR_OK);
    assert_int_equal(ran, 1);
    weir_thread_pool_destroy(pool);
}

static void a_snapshot_of_unknown_size_is_refused(void **state)
{
    (void)state;
    weir_thread_pool *pool = make(1, 1);
    weir_thread_pool_snapshot now = {0};
    assert_int_equal(weir_thread_pool_get_snapshot(pool, &now), WEIR_EINVAL);
    weir_thread_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_refuses_every_option_out_of_range),
        cmocka_unit_test(without_a_number_there_is_a_thread_per_usable_cpu),
        cmocka_unit_test(destroy_takes_null),
        cmocka_unit_test(a_pool_runs_what_it_took_in_order),
        cmocka_unit_test(a_pool_holds_backlog_and_threads_and_not_one_more),
        cmocka_unit_test(a_full_pool_that_fails_refuses_at_once),
        cmocka_unit_test(a_full_pool_that_drops_the_newest_gives_it_to_on_drop),
        cmocka_unit_test(a_full_pool_that_drops_the_oldest_never_drops_what_runs),
        cmocka_unit_test(a_closed_pool_refuses_and_runs_what_it_took),
        cmocka_unit_test(an_interruption_ends_the_wait_and_leaves_the_task_with_the_caller),
        cmocka_unit_test(the_last_thread_that_would_wait_for_itself_is_refused),
        cmocka_unit_test(a_task_that_fills_its_own_pool_is_told_so),
        cmocka_unit_test(a_try_inside_a_full_pool_is_told_full),
        cmocka_unit_test(drain_inside_a_task_is_refused),
        cmocka_unit_test(discard_drops_what_waits_and_not_what_runs),
        cmocka_unit_test(destroy_waits_for_what_runs_and_drops_what_waits),
        cmocka_unit_test(the_threads_block_all_signals_and_the_creator_does_not),
        cmocka_unit_test(a_hook_that_a_task_set_ends_with_the_task),
        cmocka_unit_test(a_snapshot_of_unknown_size_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
