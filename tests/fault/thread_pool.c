/* A pool that gets no memory, or no thread: an error, no thread left behind, still usable. */
#include "faults.h"
#include "threads.h"

#include <weir/thread_pool.h>

static _Atomic unsigned ran, dropped;

static void count(void *arg)
{
    (void)arg;
    ran++;
}

static _Atomic bool door_is_open;

static void pass_door(void *arg)
{
    (void)arg;
    soon(door_is_open);
}

static void count_drop(weir_task_fn *fn, void *arg, weir_drop_reason reason, void *ctx)
{
    (void)fn, (void)arg, (void)reason, (void)ctx;
    dropped++;
}

static weir_thread_pool_opts options(unsigned threads, size_t backlog)
{
    weir_thread_pool_opts opts = WEIR_THREAD_POOL_OPTS_INIT;
    opts.threads = threads;
    opts.backlog = backlog;
    opts.on_drop = count_drop;
    ran = dropped = 0;
    return opts;
}

static void create_without_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    weir_thread_pool_opts opts = options(3, 10);
    int n = 1;
    for (;; n++) {
        weir_thread_pool *pool = NULL;
        fail_allocation(n, false);
        int rc = weir_thread_pool_create(&pool, &opts);
        if (!stop_failing()) {
            assert_int_equal(rc, WEIR_OK);
            weir_thread_pool_destroy(pool);
            break;
        }
        assert_int_equal(rc, WEIR_ENOMEM);
        assert_null(pool);
    }
    assert_true(n > 3);
}

static void create_without_a_thread_leaves_none_behind(void **state)
{
    (void)state;
    weir_thread_pool_opts opts = options(5, 10);
    for (int allowed = 0; allowed <= 5; allowed++) {
        weir_thread_pool *pool = NULL;
        threads_allowed = allowed;
        int rc = weir_thread_pool_create(&pool, &opts);
        threads_allowed = -1;
        assert_int_equal(rc, allowed < 5 ? WEIR_ESPAWN : WEIR_OK); /* and all were joined: TSan */
        assert_true((pool != NULL) == (rc == WEIR_OK));
        weir_thread_pool_destroy(pool);
    }
}

static void submit_without_memory_leaves_the_task_with_the_caller(void **state)
{
    (void)state;
    for (int64_t n = 1; n <= 10; n++) {
        weir_thread_pool *pool = NULL;
        weir_thread_pool_opts opts = options(1, WEIR_UNBOUNDED);
        assert_int_equal(weir_thread_pool_create(&pool, &opts), WEIR_OK);
        door_is_open = false;
        weir_thread_pool_submit(pool, pass_door, NULL, WEIR_FOREVER);
        unsigned kept = 0, refused = 0;
        fail_allocation(n, false);
        for (int i = 0; i < 400; i++) { /* all of them stay inside: a dozen blocks */
            int rc = weir_thread_pool_submit(pool, count, NULL, WEIR_FOREVER);
            assert_true(rc == WEIR_KEPT || rc == WEIR_ENOMEM);
            kept += rc == WEIR_KEPT;
            refused += rc == WEIR_ENOMEM;
        }
        door_is_open = true;
        assert_true(stop_failing());
        assert_int_equal(refused, 1);
        assert_int_equal(weir_thread_pool_drain(pool, WEIR_FOREVER), WEIR_OK);
        assert_int_equal(ran, kept);
        weir_thread_pool_destroy(pool);
        assert_int_equal(dropped, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_without_memory_leaves_nothing_behind),
        cmocka_unit_test(create_without_a_thread_leaves_none_behind),
        cmocka_unit_test(submit_without_memory_leaves_the_task_with_the_caller),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
