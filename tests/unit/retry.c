/* model/backoff.h and model/retry_budget.h. */
#include "contract/support.h"

#include "model/backoff.h"
#include "model/random.h"
#include "model/retry_budget.h"

static const weir__backoff plain = {100, 3000, 2, WEIR__JITTER_NONE};

/* ---- backoff ------------------------------------------------------------------------------------ */

static void steps_double_up_to_the_most(void **state)
{
    (void)state;
    const int64_t steps[] = {100, 200, 400, 800, 1600, 3000, 3000};
    for (uint32_t i = 0; i < 7; i++)
        assert_int_equal(weir__backoff_delay(&plain, i + 1, 0, 0.5), steps[i]);
    assert_int_equal(weir__backoff_delay(&plain, UINT32_MAX, 0, 0.5), 3000);
}

static void steps_of_a_multiplier_of_one_stay(void **state)
{
    (void)state;
    weir__backoff same = {100, 3000, 1, WEIR__JITTER_NONE};
    assert_int_equal(weir__backoff_delay(&same, UINT32_MAX, 0, 0), 100);
}

static void the_largest_step_does_not_overflow(void **state)
{
    (void)state;
    weir__backoff large = {INT64_MAX / 2, INT64_MAX, 1e300, WEIR__JITTER_FULL};
    for (uint32_t retry = 1; retry < 100; retry++)
        assert_true(weir__backoff_delay(&large, retry, INT64_MAX, 1 - 0x1p-53) > 0);
    large.jitter = WEIR__JITTER_DECORRELATED;
    assert_true(weir__backoff_delay(&large, 3, INT64_MAX, 1 - 0x1p-53) > 0);
}

static void each_kind_of_jitter_keeps_to_its_range(void **state)
{
    (void)state;
    weir__random random = {5};
    weir__backoff b = plain;
    int64_t before = 0, most[4] = {0}, least[4] = {9999, 9999, 9999, 9999};
    for (int i = 0; i < 100000; i++) {
        double draw = weir__random_unit(weir__random_next(&random));
        for (int kind = WEIR__JITTER_FULL; kind <= WEIR__JITTER_EQUAL; kind++) {
            b.jitter = (weir__jitter)kind;
            int64_t delay = weir__backoff_delay(&b, 3, 0, draw);
            most[kind] = delay > most[kind] ? delay : most[kind];
            least[kind] = delay < least[kind] ? delay : least[kind];
        }
        b.jitter = WEIR__JITTER_DECORRELATED;
        int64_t delay = weir__backoff_delay(&b, 3, before, draw);
        assert_in_range(delay, 100, before > 100 ? (before < 1000 ? 3 * before : 3000) : 300);
        before = delay;
        most[3] = delay > most[3] ? delay : most[3];
    }
    assert_int_equal(least[WEIR__JITTER_FULL], 0);
    assert_in_range(most[WEIR__JITTER_FULL], 398, 400);
    assert_int_equal(least[WEIR__JITTER_EQUAL], 200);
    assert_in_range(most[WEIR__JITTER_EQUAL], 398, 400);
    assert_int_equal(least[WEIR__JITTER_NONE], 400);
    assert_in_range(most[3], 2900, 3000);
}

/* ---- budget ------------------------------------------------------------------------------------- */

static void each_five_calls_allow_one_retry(void **state)
{
    (void)state;
    weir__retry_budget budget;
    weir__retry_budget_init(&budget, 0.2, 0, 100, 1);
    int retries = 0;
    for (int calls = 1; calls <= 10000; calls++) {
        weir__retry_budget_deposit(&budget);
        retries += weir__retry_budget_withdraw(&budget, calls);
        assert_int_equal(retries, calls / 5);
    }
}

static void what_is_saved_up_has_an_end(void **state)
{
    (void)state;
    weir__retry_budget budget;
    weir__retry_budget_init(&budget, 0.2, 0, 10, 1);
    for (int calls = 0; calls < 10000; calls++)
        weir__retry_budget_deposit(&budget);
    int retries = 0;
    while (weir__retry_budget_withdraw(&budget, 2))
        retries++;
    assert_int_equal(retries, 10);
}

static void some_retries_are_allowed_each_second_without_calls(void **state)
{
    (void)state;
    weir__retry_budget budget;
    weir__retry_budget_init(&budget, 0.2, 10, 100, 0);
    int retries = 0;
    for (int64_t ms = 0; ms <= 5000; ms++)
        while (weir__retry_budget_withdraw(&budget, ms * 1000000))
            retries++;
    assert_int_equal(retries, 10 + 50);                    /* it began with one second's */
    assert_false(weir__retry_budget_withdraw(&budget, 0)); /* time that goes back brings nothing */
    for (int i = 0; i < 100; i++)
        assert_true(weir__retry_budget_withdraw(&budget, INT64_MAX));
    assert_false(weir__retry_budget_withdraw(&budget, INT64_MAX));
}

static void retries_never_pass_the_bound_whatever_comes_when(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        weir__random random = {seed};
        weir__retry_budget budget;
        weir__retry_budget_init(&budget, 0.3, 2, 5, 0);
        int64_t now = 0;
        double calls = 0, retries = 0;
        for (int i = 0; i < 20000; i++) {
            uint64_t bits = weir__random_next(&random);
            now += (int64_t)(bits % 20000000);
            if (bits >> 40 & 1) {
                weir__retry_budget_deposit(&budget);
                calls++;
            }
            retries += weir__retry_budget_withdraw(&budget, now);
            assert_true(retries <= 5 + 0.3 * calls + 2 * (double)now / 1e9 + 1e-6);
            assert_true(budget.tokens >= 0 && budget.tokens <= budget.cap);
        }
        assert_true(retries > 0.29 * calls + 1.9 * (double)now / 1e9 - 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_double_up_to_the_most),
        cmocka_unit_test(steps_of_a_multiplier_of_one_stay),
        cmocka_unit_test(the_largest_step_does_not_overflow),
        cmocka_unit_test(each_kind_of_jitter_keeps_to_its_range),
        cmocka_unit_test(each_five_calls_allow_one_retry),
        cmocka_unit_test(what_is_saved_up_has_an_end),
        cmocka_unit_test(some_retries_are_allowed_each_second_without_calls),
        cmocka_unit_test(retries_never_pass_the_bound_whatever_comes_when),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
