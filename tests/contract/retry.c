/* Every sentence of <weir/retry.h> and of <weir/throttle.h>, seen from outside. */
#include "support.h"

#include <math.h>

#include <weir/retry.h>
#include <weir/throttle.h>

/* ---- backoff ------------------------------------------------------------------------------------ */

static void the_defaults_are_100_ms_doubling_up_to_30_s_with_full_jitter(void **state)
{
    (void)state;
    weir_backoff backoff = WEIR_BACKOFF_INIT;
    assert_int_equal(weir_backoff_delay(&backoff, 1, 0, 0), 0);
    for (uint32_t retry = 1; retry <= 20; retry++) {
        int64_t step = retry < 10 ? 100 * WEIR_MILLISECOND << (retry - 1) : 30 * WEIR_SECOND;
        assert_in_range(weir_backoff_delay(&backoff, retry, 0, UINT64_MAX), step - 10000, step);
        int64_t half = weir_backoff_delay(&backoff, retry, 0, UINT64_C(1) << 63);
        assert_in_range(half, step / 2 - 1, step / 2);
    }
}

static void the_same_random_bits_give_the_same_delay(void **state)
{
    (void)state;
    weir_backoff backoff = WEIR_BACKOFF_INIT;
    for (uint64_t bits = 1; bits; bits <<= 1)
        assert_int_equal(weir_backoff_delay(&backoff, 5, 0, bits),
                         weir_backoff_delay(&backoff, 5, 0, bits));
}

static void each_kind_of_jitter_is_that_of_the_header(void **state)
{
    (void)state;
    weir_backoff backoff = WEIR_BACKOFF_INIT;
    backoff.base_ns = 1000;
    backoff.max_ns = 100000;
    backoff.jitter = WEIR_JITTER_NONE;
    assert_int_equal(weir_backoff_delay(&backoff, 3, 0, 0), 4000);
    backoff.jitter = WEIR_JITTER_EQUAL;
    assert_int_equal(weir_backoff_delay(&backoff, 3, 0, 0), 2000);
    assert_in_range(weir_backoff_delay(&backoff, 3, 0, UINT64_MAX), 3999, 4000);
    backoff.jitter = WEIR_JITTER_DECORRELATED;
    assert_int_equal(weir_backoff_delay(&backoff, 3, 5000, 0), 1000);
    assert_in_range(weir_backoff_delay(&backoff, 3, 5000, UINT64_MAX), 14998, 15000);
    assert_in_range(weir_backoff_delay(&backoff, 3, 50000, UINT64_MAX), 99998, 100000);
    assert_in_range(weir_backoff_delay(&backoff, 1, 0, UINT64_MAX), 2998, 3000);
}

static void a_backoff_out_of_range_is_refused(void **state)
{
    (void)state;
    weir_backoff backoff;
#define REFUSES(change)                                                                            \
    backoff = (weir_backoff)WEIR_BACKOFF_INIT;                                                     \
    change;                                                                                        \
    assert_int_equal(weir_backoff_delay(&backoff, 1, 0, 0), WEIR_EINVAL)
    REFUSES(backoff.size = 0);
    REFUSES(backoff.base_ns = -1);
    REFUSES(backoff.max_ns = 5);
    REFUSES(backoff.multiplier = 0.99);
    REFUSES(backoff.multiplier = NAN);
    REFUSES(backoff.jitter = (weir_jitter)4);
#undef REFUSES
    backoff = (weir_backoff)WEIR_BACKOFF_INIT;
    assert_int_equal(weir_backoff_delay(&backoff, 0, 0, 0), WEIR_EINVAL);
    backoff.base_ns = 60 * WEIR_SECOND; /* beyond the default of max_ns */
    backoff.jitter = WEIR_JITTER_NONE;
    assert_int_equal(weir_backoff_delay(&backoff, 1, 0, 0), 60 * WEIR_SECOND);
}

static void random_bits_differ(void **state)
{
    (void)state;
    uint64_t first = weir_random(), second = weir_random();
    assert_true(first != second || weir_random() != second);
}

/* ---- budget ------------------------------------------------------------------------------------- */

static weir_retry_budget *make_budget(double ratio, double min_per_second, double max_tokens)
{
    weir_retry_budget *budget = NULL;
    weir_retry_budget_opts opts = WEIR_RETRY_BUDGET_OPTS_INIT;
    opts.ratio = ratio;
    opts.min_per_second = min_per_second;
    opts.max_tokens = max_tokens;
    assert_int_equal(weir_retry_budget_create(&budget, &opts), WEIR_OK);
    return budget;
}

static weir_retry_budget_snapshot look_at(weir_retry_budget *budget)
{
    weir_retry_budget_snapshot now = WEIR_RETRY_BUDGET_SNAPSHOT_INIT;
    must(weir_retry_budget_get_snapshot(budget, &now) == WEIR_OK);
    return now;
}

static void a_budget_of_a_fifth_allows_a_retry_for_five_calls(void **state)
{
    (void)state;
    weir_retry_budget *budget = make_budget(0, -1, 0);
    assert_int_equal(weir_retry_budget_withdraw(budget), WEIR_ESHED);
    for (int i = 0; i < 5; i++)
        weir_retry_budget_deposit(budget);
    assert_int_equal(weir_retry_budget_withdraw(budget), WEIR_OK);
    assert_int_equal(weir_retry_budget_withdraw(budget), WEIR_ESHED);
    weir_retry_budget_snapshot now = look_at(budget);
    assert_int_equal(now.calls, 5);
    assert_int_equal(now.retries, 1);
    assert_int_equal(now.refused, 2);
    assert_true(now.tokens == 0);
    weir_retry_budget_destroy(budget);
}

static void a_budget_begins_with_the_retries_of_one_second(void **state)
{
    (void)state;
    weir_retry_budget *budget = make_budget(-1, 1e-6, 0);
    assert_int_equal(weir_retry_budget_withdraw(budget), WEIR_ESHED);
    weir_retry_budget_destroy(budget);
    budget = make_budget(-1, 1000, 7); /* but no more than it may save up */
    assert_true(look_at(budget).tokens == 7);
    weir_retry_budget_deposit(budget);
    assert_true(look_at(budget).tokens == 7);
    weir_retry_budget_destroy(budget);
    budget = make_budget(0, 0, 0);
    assert_true(look_at(budget).tokens >= 10 && look_at(budget).tokens <= 100);
    weir_retry_budget_destroy(budget);
}

static void time_brings_retries(void **state)
{
    (void)state;
    weir_retry_budget *budget = make_budget(-1, 1e6, 1);
    for (int i = 0; i < 10; i++)
        soon(weir_retry_budget_withdraw(budget) == WEIR_OK);
    weir_retry_budget_destroy(budget);
}

static void a_budget_out_of_range_is_refused(void **state)
{
    (void)state;
    weir_retry_budget *budget = NULL;
    weir_retry_budget_opts opts;
#define REFUSES(change)                                                                            \
    opts = (weir_retry_budget_opts)WEIR_RETRY_BUDGET_OPTS_INIT;                                    \
    change;                                                                                        \
    assert_int_equal(weir_retry_budget_create(&budget, &opts), WEIR_EINVAL);                       \
    assert_null(budget)
    REFUSES(opts.size = 0);
    REFUSES(opts.ratio = 1001);
    REFUSES(opts.ratio = NAN);
    REFUSES(opts.min_per_second = INFINITY);
    REFUSES(opts.max_tokens = 0.5);
    REFUSES(opts.max_tokens = 2e9);
#undef REFUSES
    weir_retry_budget_destroy(NULL);
    budget = make_budget(0, 0, 0);
    weir_retry_budget_snapshot now = {0};
    assert_int_equal(weir_retry_budget_get_snapshot(budget, &now), WEIR_EINVAL);
    weir_retry_budget_destroy(budget);
}

/* ---- throttle ----------------------------------------------------------------------------------- */

static weir_throttle *make_throttle(double k, double max_chance)
{
    weir_throttle *throttle = NULL;
    weir_throttle_opts opts = WEIR_THROTTLE_OPTS_INIT;
    opts.k = k;
    opts.max_chance = max_chance;
    assert_int_equal(weir_throttle_create(&throttle, &opts), WEIR_OK);
    return throttle;
}

static weir_throttle_snapshot look_through(weir_throttle *throttle)
{
    weir_throttle_snapshot now = WEIR_THROTTLE_SNAPSHOT_INIT;
    must(weir_throttle_get_snapshot(throttle, &now) == WEIR_OK);
    must(now.admitted == now.accepted + now.refused + now.ignored + now.in_flight);
    return now;
}

static void a_throttle_keeps_nothing_back_while_the_backend_accepts(void **state)
{
    (void)state;
    weir_throttle *throttle = make_throttle(0, 0);
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(weir_throttle_admit(throttle), WEIR_OK);
        weir_throttle_report(throttle, i % 2 ? WEIR_CALL_FAILURE : WEIR_CALL_SUCCESS);
    }
    weir_throttle_snapshot now = look_through(throttle);
    assert_int_equal(now.accepted, 5000);
    assert_int_equal(now.refused, 5000);
    assert_int_equal(now.window_requests, 10000);
    assert_int_equal(now.window_accepts, 5000);
    assert_int_equal(now.shed, 0);
    weir_throttle_destroy(throttle);
}

static void a_throttle_before_a_dead_backend_lets_a_twentieth_through(void **state)
{
    (void)state;
    weir_throttle *throttle = make_throttle(0, 0);
    uint64_t sent = 0;
    for (int i = 0; i < 100000; i++) {
        if (weir_throttle_admit(throttle) != WEIR_OK)
            continue;
        assert_int_equal(weir_throttle_report(throttle, WEIR_CALL_FAILURE), WEIR_OK);
        sent++;
    }
    weir_throttle_snapshot now = look_through(throttle);
    assert_true(now.chance == 0.95);
    assert_int_equal(now.shed + sent, 100000);
    assert_in_range(sent, 4500, 5500); /* 5000 +- 69 */
    weir_throttle_destroy(throttle);
}

static void what_is_ignored_and_what_is_under_way_says_nothing(void **state)
{
    (void)state;
    weir_throttle *throttle = make_throttle(0, 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(weir_throttle_admit(throttle), WEIR_OK);
    assert_int_equal(look_through(throttle).in_flight, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(weir_throttle_report(throttle, WEIR_CALL_IGNORED), WEIR_OK);
    weir_throttle_snapshot now = look_through(throttle);
    assert_int_equal(now.ignored, 1000);
    assert_int_equal(now.window_requests, 0);
    assert_true(now.chance == 0);
    assert_int_equal(weir_throttle_report(throttle, WEIR_CALL_SUCCESS), WEIR_EINVAL);
    assert_int_equal(weir_throttle_report(throttle, (weir_call_result)3), WEIR_EINVAL);
    weir_throttle_destroy(throttle);
}

static void a_throttle_out_of_range_is_refused(void **state)
{
    (void)state;
    weir_throttle *throttle = NULL;
    weir_throttle_opts opts;
#define REFUSES(change)                                                                            \
    opts = (weir_throttle_opts)WEIR_THROTTLE_OPTS_INIT;                                            \
    change;                                                                                        \
    assert_int_equal(weir_throttle_create(&throttle, &opts), WEIR_EINVAL);                         \
    assert_null(throttle)
    REFUSES(opts.size = 0);
    REFUSES(opts.k = 0.9);
    REFUSES(opts.k = NAN);
    REFUSES(opts.max_chance = 1);
    REFUSES(opts.max_chance = -0.1);
    REFUSES(opts.window_ns = -1);
#undef REFUSES
    weir_throttle_destroy(NULL);
    throttle = make_throttle(0, 0);
    weir_throttle_snapshot now = {0};
    assert_int_equal(weir_throttle_get_snapshot(throttle, &now), WEIR_EINVAL);
    weir_throttle_destroy(throttle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_defaults_are_100_ms_doubling_up_to_30_s_with_full_jitter),
        cmocka_unit_test(the_same_random_bits_give_the_same_delay),
        cmocka_unit_test(each_kind_of_jitter_is_that_of_the_header),
        cmocka_unit_test(a_backoff_out_of_range_is_refused),
        cmocka_unit_test(random_bits_differ),
        cmocka_unit_test(a_budget_of_a_fifth_allows_a_retry_for_five_calls),
        cmocka_unit_test(a_budget_begins_with_the_retries_of_one_second),
        cmocka_unit_test(time_brings_retries),
        cmocka_unit_test(a_budget_out_of_range_is_refused),
        cmocka_unit_test(a_throttle_keeps_nothing_back_while_the_backend_accepts),
        cmocka_unit_test(a_throttle_before_a_dead_backend_lets_a_twentieth_through),
        cmocka_unit_test(what_is_ignored_and_what_is_under_way_says_nothing),
        cmocka_unit_test(a_throttle_out_of_range_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
