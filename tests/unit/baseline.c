/* What a round trip takes when nobody waits. */
#include "contract/support.h"

#include "model/baseline.h"

#define SECOND INT64_C(1000000000)

static weir__baseline fresh(void)
{
    weir__baseline baseline;
    weir__baseline_init(&baseline, 10 * SECOND, 1, 0);
    return baseline;
}

static weir__rtt trip(double ns, uint64_t in_flight)
{
    return (weir__rtt){.ns = ns, .in_flight = in_flight};
}

/* Sees a window at `limit`, and answers the probes it asks for with `alone`; how many. */
static int windows(weir__baseline *baseline, double limit, double ns, double alone, int64_t now)
{
    weir__rtt seen = trip(ns, (uint64_t)limit), probed = trip(alone, 1);
    weir__baseline_see(baseline, &seen);
    if (!weir__baseline_probe(baseline, limit, &seen, 1, now))
        return 0;
    int n = 1;
    while (!weir__baseline_probed(baseline, &probed, 1, now))
        n++;
    return n;
}

static void the_first_window_is_probed_at_once(void **state)
{
    (void)state;
    weir__baseline baseline = fresh();
    assert_int_equal(windows(&baseline, 20, 100, 100, 0), 1);
    assert_true(baseline.ns == 100);
}

static void a_start_above_the_capacity_is_found_out(void **state)
{
    (void)state; /* 100 at once where 40 are served: 250 instead of 100 */
    weir__baseline baseline = fresh();
    weir__rtt seen = trip(250, 100);
    weir__baseline_see(&baseline, &seen);
    assert_true(weir__baseline_probe(&baseline, 100, &seen, 1, 0));
    bool done = false;
    for (int i = 0; i < 12 && !done; i++) {
        double limit = baseline.probe_limit;
        weir__rtt probed = trip(limit > 40 ? 100 * limit / 40 : 100, (uint64_t)limit);
        done = weir__baseline_probed(&baseline, &probed, 1, 0);
    }
    assert_true(done);
    assert_true(baseline.ns == 100);
}

static void a_queue_does_not_raise_it(void **state)
{
    (void)state;
    weir__baseline baseline = fresh();
    windows(&baseline, 20, 100, 100, 0);
    for (int64_t i = 0; i < 100000; i++)
        windows(&baseline, 20, 300, 100, i * SECOND / 100);
    assert_true(baseline.ns == 100);
}

static void calls_that_got_slower_for_good_raise_it(void **state)
{
    (void)state;
    weir__baseline baseline = fresh();
    windows(&baseline, 20, 100, 100, 0);
    windows(&baseline, 20, 200, 200, 5 * SECOND);
    assert_true(baseline.ns == 100);
    windows(&baseline, 20, 200, 200, 13 * SECOND);
    assert_true(baseline.ns == 200);
}

static void a_limit_that_shrank_is_reason_enough_to_look(void **state)
{
    (void)state;
    weir__baseline baseline = fresh();
    windows(&baseline, 20, 100, 100, 0);
    assert_int_equal(windows(&baseline, 13, 200, 200, SECOND), 0);
    assert_int_equal(windows(&baseline, 11, 200, 200, SECOND), 1);
    assert_true(baseline.ns == 200);
}

static void a_clearly_quicker_window_lowers_it_at_once(void **state)
{
    (void)state;
    weir__baseline baseline = fresh();
    windows(&baseline, 20, 100, 100, 0);
    windows(&baseline, 20, 60, 60, SECOND);
    assert_true(baseline.ns == 60);
}

static void noise_does_not_lower_it(void **state)
{
    (void)state;
    weir__baseline baseline = fresh();
    weir__rtt first = {.ns = 100, .variance = 1, .in_flight = 20};
    weir__baseline_see(&baseline, &first);
    for (int i = 0; i < 1000; i++) {
        weir__rtt noise = {.ns = 96 + i % 8, .variance = 4, .in_flight = 20};
        weir__baseline_see(&baseline, &noise);
    }
    assert_true(baseline.ns == 100);
}

static void a_window_that_used_little_is_a_probe_for_nothing(void **state)
{
    (void)state;
    weir__baseline baseline = fresh();
    weir__rtt seen = trip(100, 20), idle = trip(150, 10);
    weir__baseline_see(&baseline, &seen);
    weir__baseline_probe(&baseline, 20, &seen, 1, 0);
    weir__baseline_probed(&baseline, &seen, 1, 0);
    weir__baseline_see(&baseline, &idle);
    assert_false(weir__baseline_probe(&baseline, 20, &idle, 1, 20 * SECOND));
    assert_true(baseline.ns == 150);
}

static void a_probe_lowers_the_limit_by_a_quarter(void **state)
{
    (void)state;
    weir__baseline baseline = fresh();
    weir__rtt seen = trip(100, 40);
    weir__baseline_see(&baseline, &seen);
    assert_true(weir__baseline_probe(&baseline, 40, &seen, 1, 0));
    assert_true(baseline.probe_limit == 30);
    assert_true(weir__baseline_probed(&baseline, &seen, 1, 0));
}

static void probes_are_jittered_by_a_quarter(void **state)
{
    (void)state;
    weir__baseline baseline = fresh();
    int64_t least = INT64_MAX, most = 0, now = 0;
    for (int i = 0; i < 1000; i++) {
        windows(&baseline, 20, 100, 100, now);
        int64_t wait = baseline.probe_at - now;
        least = wait < least ? wait : least;
        most = wait > most ? wait : most;
        now = baseline.probe_at;
    }
    assert_true(least >= 7500 * SECOND / 1000 && least < 7600 * SECOND / 1000);
    assert_true(most <= 12500 * SECOND / 1000 && most > 12400 * SECOND / 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_window_is_probed_at_once),
        cmocka_unit_test(a_start_above_the_capacity_is_found_out),
        cmocka_unit_test(a_queue_does_not_raise_it),
        cmocka_unit_test(calls_that_got_slower_for_good_raise_it),
        cmocka_unit_test(a_limit_that_shrank_is_reason_enough_to_look),
        cmocka_unit_test(a_clearly_quicker_window_lowers_it_at_once),
        cmocka_unit_test(noise_does_not_lower_it),
        cmocka_unit_test(a_window_that_used_little_is_a_probe_for_nothing),
        cmocka_unit_test(a_probe_lowers_the_limit_by_a_quarter),
        cmocka_unit_test(probes_are_jittered_by_a_quarter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
