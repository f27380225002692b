/* model/count_window.h and model/time_window.h: tallies of what is recent. */
#include "contract/support.h"

#include "base/alloc.h"
#include "model/count_window.h"
#include "model/random.h"
#include "model/time_window.h"

static void assert_tally(weir__tally tally, uint64_t calls, uint64_t failed, uint64_t slow)
{
    assert_int_equal(tally.calls, calls);
    assert_int_equal(tally.failed, failed);
    assert_int_equal(tally.slow, slow);
}

static void a_count_window_holds_the_last_calls_and_no_others(void **state)
{
    (void)state;
    weir__count_window window;
    assert_true(weir__count_window_init(&window, 3));
    weir__count_window_add(&window, true, false);
    weir__count_window_add(&window, true, true);
    assert_tally(window.tally, 2, 2, 1);
    weir__count_window_add(&window, false, true);
    assert_tally(window.tally, 3, 2, 2);
    weir__count_window_add(&window, false, false);
    assert_tally(window.tally, 3, 1, 2);
    weir__count_window_add(&window, false, false);
    assert_tally(window.tally, 3, 0, 1);
    weir__count_window_clear(&window);
    assert_tally(window.tally, 0, 0, 0);
    weir__count_window_fini(&window);
}

static void a_count_window_agrees_with_counting_again_each_time(void **state)
{
    (void)state;
    weir__count_window window;
    weir__random random = {7};
    bool failed[5000], slow[5000];
    for (uint32_t size = 1; size <= 40; size += 13) {
        assert_true(weir__count_window_init(&window, size));
        for (uint32_t n = 0; n < 5000; n++) {
            uint64_t bits = weir__random_next(&random);
            failed[n] = bits & 1;
            slow[n] = bits & 2;
            weir__count_window_add(&window, failed[n], slow[n]);
            weir__tally again = {0};
            for (uint32_t i = n < size ? 0 : n + 1 - size; i <= n; i++)
                weir__tally_add(&again, failed[i], slow[i]);
            assert_tally(window.tally, again.calls, again.failed, again.slow);
        }
        weir__count_window_fini(&window);
    }
}

static void a_time_window_forgets_in_steps_of_a_thirty_second_part(void **state)
{
    (void)state;
    weir__time_window window;
    weir__time_window_init(&window, 3200, 1000); /* buckets of 100 */
    weir__time_window_advance(&window, 1050);
    weir__time_window_add(&window, true, false);
    weir__time_window_advance(&window, 1100);
    weir__time_window_add(&window, false, true);
    assert_tally(window.tally, 2, 1, 1);
    weir__time_window_advance(&window, 4199);
    assert_tally(window.tally, 2, 1, 1);
    weir__time_window_advance(&window, 4200);
    assert_tally(window.tally, 1, 0, 1);
    weir__time_window_advance(&window, 4300);
    assert_tally(window.tally, 0, 0, 0);
}

static void a_time_window_is_empty_after_a_long_silence(void **state)
{
    (void)state;
    weir__time_window window;
    weir__time_window_init(&window, 3200, 1);
    for (int i = 0; i < 32; i++) {
        weir__time_window_advance(&window, 1 + i * 100);
        weir__time_window_add(&window, true, true);
    }
    assert_tally(window.tally, 32, 32, 32);
    weir__time_window_advance(&window, INT64_MAX / 2);
    assert_tally(window.tally, 0, 0, 0);
    weir__time_window_add(&window, true, true);
    weir__time_window_advance(&window, INT64_MAX / 2 + 50);
    assert_tally(window.tally, 1, 1, 1);
}

static void time_that_goes_back_is_taken_as_now(void **state)
{
    (void)state;
    weir__time_window window;
    weir__time_window_init(&window, 3200, 1000);
    weir__time_window_advance(&window, 3000);
    weir__time_window_add(&window, true, false);
    weir__time_window_advance(&window, 1000);
    weir__time_window_add(&window, true, false);
    weir__time_window_advance(&window, 6099);
    assert_tally(window.tally, 2, 2, 0);
    weir__time_window_advance(&window, 6200);
    assert_tally(window.tally, 0, 0, 0);
}

static void a_window_shorter_than_its_buckets_still_counts(void **state)
{
    (void)state;
    weir__time_window window;
    weir__time_window_init(&window, 1, 5);
    weir__time_window_add(&window, false, false);
    assert_tally(window.tally, 1, 0, 0);
    weir__time_window_advance(&window, 5 + 32);
    assert_tally(window.tally, 0, 0, 0);
}

static void a_share_is_reached_in_decimal_fractions(void **state)
{
    (void)state;
    assert_true(weir__reaches(3, 30, 0.1));
    assert_false(weir__reaches(2, 30, 0.1));
    assert_true(weir__reaches(7, 10, 0.7));
    assert_true(weir__reaches(10, 10, 1));
    assert_false(weir__reaches(999999, 1000000, 1));
    assert_false(weir__reaches(0, 10, 0.01));
}

static void random_numbers_are_those_of_the_paper_and_units_below_one(void **state)
{
    (void)state;
    weir__random random = {1234567}; /* the reference implementation's first two */
    assert_true(weir__random_next(&random) == UINT64_C(6457827717110365317));
    assert_true(weir__random_next(&random) == UINT64_C(3203168211198807973));
    assert_true(weir__random_unit(0) == 0);
    assert_true(weir__random_unit(UINT64_MAX) < 1);
    assert_true(weir__random_unit(UINT64_C(1) << 63) == 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_count_window_holds_the_last_calls_and_no_others),
        cmocka_unit_test(a_count_window_agrees_with_counting_again_each_time),
        cmocka_unit_test(a_time_window_forgets_in_steps_of_a_thirty_second_part),
        cmocka_unit_test(a_time_window_is_empty_after_a_long_silence),
        cmocka_unit_test(time_that_goes_back_is_taken_as_now),
        cmocka_unit_test(a_window_shorter_than_its_buckets_still_counts),
        cmocka_unit_test(a_share_is_reached_in_decimal_fractions),
        cmocka_unit_test(random_numbers_are_those_of_the_paper_and_units_below_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
