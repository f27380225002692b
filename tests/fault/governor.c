/* The memory governor when there is no memory: each allocation failed in turn. */
#include "fault/faults.h"

#include <weir/memory.h>

static void creating_fails_whole_or_not_at_all(void **state)
{
    (void)state;
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    opts.limit_bytes = UINT64_C(1) << 40;
    char name[64];
    snprintf(name, sizeof name, "fault-%p", (void *)&name);
    for (int shared = 0; shared < 2; shared++) {
        opts.shared = shared ? name : NULL;
        for (int64_t n = 1;; n++) {
            weir_governor *governor = NULL;
            fail_allocation(n, false);
            int rc = weir_governor_create(&governor, &opts);
            bool failed = stop_failing();
            assert_int_equal(rc, failed ? WEIR_ENOMEM : WEIR_OK);
            assert_true((governor == NULL) == failed);
            weir_governor_destroy(governor);
            if (!failed)
                break;
        }
    }
}

static void never(weir_pending *pending, int result)
{
    (void)pending;
    (void)result;
    must(false);
}

static void a_wait_that_has_no_memory_leaves_the_line_as_it_was(void **state)
{
    (void)state;
    weir_governor *governor;
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    opts.limit_bytes = UINT64_C(1) << 40;
    assert_int_equal(weir_governor_create(&governor, &opts), WEIR_OK);
    assert_int_equal(weir_governor_reserve(governor, UINT64_C(1) << 39, WEIR_POLL), WEIR_OK);
    for (int64_t n = 1;; n++) {
        weir_pending pending = {.ready = never};
        fail_allocation(n, false);
        int rc = weir_governor_reserve_async(governor, UINT64_C(1) << 39, &pending);
        bool failed = stop_failing();
        assert_int_equal(rc, failed ? WEIR_ENOMEM : WEIR_WAITING);
        weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
        assert_int_equal(weir_governor_get_snapshot(governor, &now), WEIR_OK);
        assert_int_equal(now.waiting, failed ? 0 : 1);
        if (failed)
            continue;
        assert_true(weir_governor_cancel(governor, &pending));
        break;
    }
    /* Nothing else needs any. */
    fail_allocation(1, true);
    assert_int_equal(weir_governor_reserve(governor, 1, WEIR_POLL), WEIR_OK);
    assert_int_equal(
        weir_governor_reserve(governor, UINT64_C(1) << 39, weir_after(WEIR_MILLISECOND)),
        WEIR_ETIMEDOUT);
    weir_governor_observe(governor, 1, 1);
    assert_true(weir_governor_estimate(governor, 1) > 0);
    weir_governor_sample(governor);
    weir_governor_release(governor, 1);
    weir_governor_release(governor, UINT64_C(1) << 39);
    assert_false(stop_failing());
    weir_governor_destroy(governor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(creating_fails_whole_or_not_at_all),
        cmocka_unit_test(a_wait_that_has_no_memory_leaves_the_line_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
