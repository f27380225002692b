/* A breaker, a throttle or a retry budget that gets no memory: an error, and nothing left behind. */
#include "faults.h"

#include <weir/breaker.h>
#include <weir/retry.h>
#include <weir/throttle.h>

static int make_breaker(bool by_time)
{
    weir_breaker *breaker = NULL;
    weir_breaker_opts opts = WEIR_BREAKER_OPTS_INIT;
    opts.window_ns = by_time ? WEIR_SECOND : 0;
    int rc = weir_breaker_create(&breaker, &opts);
    must((breaker != NULL) == (rc == WEIR_OK));
    weir_breaker_destroy(breaker);
    return rc;
}

static int make_throttle(bool by_time)
{
    (void)by_time;
    weir_throttle *throttle = NULL;
    weir_throttle_opts opts = WEIR_THROTTLE_OPTS_INIT;
    int rc = weir_throttle_create(&throttle, &opts);
    must((throttle != NULL) == (rc == WEIR_OK));
    weir_throttle_destroy(throttle);
    return rc;
}

static int make_budget(bool by_time)
{
    (void)by_time;
    weir_retry_budget *budget = NULL;
    weir_retry_budget_opts opts = WEIR_RETRY_BUDGET_OPTS_INIT;
    int rc = weir_retry_budget_create(&budget, &opts);
    must((budget != NULL) == (rc == WEIR_OK));
    weir_retry_budget_destroy(budget);
    return rc;
}

/* How many allocations it takes. */
static int fail_each(int (*make)(bool), bool by_time)
{
    for (int n = 1;; n++) {
        fail_allocation(n, false);
        int rc = make(by_time);
        if (!stop_failing()) {
            assert_int_equal(rc, WEIR_OK);
            return n - 1;
        }
        assert_int_equal(rc, WEIR_ENOMEM);
    }
}

static void create_without_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    assert_int_equal(fail_each(make_breaker, false), 3);
    assert_int_equal(fail_each(make_breaker, true), 2);
    assert_int_equal(fail_each(make_throttle, false), 1);
    assert_int_equal(fail_each(make_budget, false), 1);
}

static void nothing_but_create_needs_memory(void **state)
{
    (void)state;
    weir_breaker *breaker = NULL;
    weir_breaker_opts opts = WEIR_BREAKER_OPTS_INIT;
    opts.open_ns = 1;
    assert_int_equal(weir_breaker_create(&breaker, &opts), WEIR_OK);
    fail_allocation(1, true);
    for (int i = 0; i < 100000; i++) {
        weir_breaker_call call;
        if (weir_breaker_admit(breaker, &call) == WEIR_OK)
            must(weir_breaker_report(breaker, &call,
                                     i / 1000 % 2 ? WEIR_CALL_FAILURE : WEIR_CALL_SUCCESS) ==
                 WEIR_OK);
    }
    assert_false(stop_failing());
    weir_breaker_destroy(breaker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_without_memory_leaves_nothing_behind),
        cmocka_unit_test(nothing_but_create_needs_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
