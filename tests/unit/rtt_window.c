/* When a window of round trips is full, and what it says. */
#include "contract/support.h"

#include "model/rtt_window.h"

#define MS INT64_C(1000000)

static weir__rtt_window window_of(weir__rtt_kind kind, uint32_t enough)
{
    weir__rtt_window window;
    weir__rtt_window_init(&window, kind, 0.5, enough, 0, 0);
    return window;
}

static double summary(weir__rtt_kind kind)
{
    weir__rtt_window window = window_of(kind, 5);
    const int64_t trips[] = {30, 10, 20, 80, 10};
    weir__rtt rtt = {0};
    for (int i = 0; i < 5; i++)
        assert_int_equal(weir__rtt_window_add(&window, 1000 * MS, trips[i], 3, &rtt), i == 4);
    return rtt.ns;
}

static void it_tells_the_average_the_minimum_or_a_quantile(void **state)
{
    (void)state;
    assert_true(summary(WEIR__RTT_AVERAGE) == 30);
    assert_true(summary(WEIR__RTT_MINIMUM) == 10);
    assert_true(summary(WEIR__RTT_QUANTILE) == 20);
}

static void it_needs_enough_samples(void **state)
{
    (void)state;
    weir__rtt_window window = window_of(WEIR__RTT_AVERAGE, 10);
    weir__rtt rtt;
    for (int i = 0; i < 9; i++)
        assert_false(weir__rtt_window_add(&window, 1000 * MS, 10 * MS, 1, &rtt));
    assert_true(weir__rtt_window_add(&window, 1000 * MS, 10 * MS, 1, &rtt));
}

static void it_needs_a_round_trip(void **state)
{
    (void)state;
    weir__rtt_window window = window_of(WEIR__RTT_AVERAGE, 2);
    weir__rtt rtt;
    weir__rtt_window_next(&window, 0, 10 * MS, false);
    for (int i = 1; i < 10; i++)
        assert_false(weir__rtt_window_add(&window, i * MS, 10 * MS, 1, &rtt));
    assert_true(weir__rtt_window_add(&window, 10 * MS, 10 * MS, 1, &rtt));
}

static void after_a_change_it_waits_for_what_the_change_does(void **state)
{
    (void)state;
    weir__rtt_window window = window_of(WEIR__RTT_AVERAGE, 1);
    weir__rtt rtt;
    weir__rtt_window_next(&window, 0, 10 * MS, true);
    assert_false(weir__rtt_window_add(&window, 9 * MS, 99 * MS, 1, &rtt));
    assert_false(weir__rtt_window_add(&window, 11 * MS, 10 * MS, 1, &rtt));
    assert_true(weir__rtt_window_add(&window, 20 * MS, 10 * MS, 1, &rtt));
    assert_true(rtt.ns == 10.0 * MS);
}

static void samples_that_scatter_take_up_to_four_round_trips(void **state)
{
    (void)state;
    weir__rtt_window window = window_of(WEIR__RTT_AVERAGE, 1);
    weir__rtt rtt;
    weir__rtt_window_next(&window, 0, 10 * MS, false);
    for (int i = 1; i < 40; i++)
        assert_false(weir__rtt_window_add(&window, i * MS, (i % 2 ? 1 : 20) * MS, 1, &rtt));
    assert_true(weir__rtt_window_add(&window, 40 * MS, 20 * MS, 1, &rtt));
    assert_true(rtt.variance > 0);
}

static void it_remembers_the_most_in_flight(void **state)
{
    (void)state;
    weir__rtt_window window = window_of(WEIR__RTT_AVERAGE, 3);
    weir__rtt rtt;
    weir__rtt_window_add(&window, MS, MS, 5, &rtt);
    weir__rtt_window_add(&window, MS, MS, 9, &rtt);
    assert_true(weir__rtt_window_add(&window, MS, MS, 2, &rtt));
    assert_int_equal(rtt.in_flight, 9);
}

static void drops_of_one_overload_count_once(void **state)
{
    (void)state;
    weir__rtt_window window = window_of(WEIR__RTT_AVERAGE, 1);
    assert_true(weir__rtt_window_drop(&window, 100 * MS, 30 * MS));
    assert_false(weir__rtt_window_drop(&window, 101 * MS, 30 * MS));
    assert_false(weir__rtt_window_drop(&window, 129 * MS, 30 * MS));
    assert_true(weir__rtt_window_drop(&window, 130 * MS, 30 * MS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_tells_the_average_the_minimum_or_a_quantile),
        cmocka_unit_test(it_needs_enough_samples),
        cmocka_unit_test(it_needs_a_round_trip),
        cmocka_unit_test(after_a_change_it_waits_for_what_the_change_does),
        cmocka_unit_test(samples_that_scatter_take_up_to_four_round_trips),
        cmocka_unit_test(it_remembers_the_most_in_flight),
        cmocka_unit_test(drops_of_one_overload_count_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
