/* model/ring_depth.h: deep for short tasks, nothing ahead of long ones. */
#include "contract/support.h"

#include "model/ring_depth.h"

#define SLOTS 128

static unsigned depth_after(unsigned times, int64_t service_ns)
{
    weir__ring_depth depth = {0};
    while (times-- > 0)
        weir__ring_depth_measure(&depth, service_ns);
    return weir__ring_depth_get(&depth, SLOTS);
}

static void before_the_first_measurement_there_is_one_ahead(void **state)
{
    (void)state;
    weir__ring_depth depth = {0};
    assert_int_equal(weir__ring_depth_get(&depth, SLOTS), 2);
    assert_int_equal(weir__ring_depth_get(&depth, 1), 1);
}

static void the_first_measurement_counts_in_full(void **state)
{
    (void)state;
    weir__ring_depth depth = {0};
    weir__ring_depth_measure(&depth, 1000000);
    assert_int_equal(depth.service_ns, 1000000);
    weir__ring_depth_measure(&depth, 9000000); /* and later ones with weight 1/8 */
    assert_int_equal(depth.service_ns, 2000000);
}

static void microsecond_tasks_fill_the_ring(void **state)
{
    (void)state;
    assert_int_equal(depth_after(1, 1), SLOTS);
    assert_int_equal(depth_after(1, 1000), SLOTS);
    assert_int_equal(depth_after(100, 10000), SLOTS);
}

static void tasks_between_have_two_milliseconds_of_work_ahead(void **state)
{
    (void)state;
    assert_int_equal(depth_after(1, 20000), 101);
    assert_int_equal(depth_after(1, 100000), 21);
    assert_int_equal(depth_after(1, 1000000), 3);
    assert_int_equal(depth_after(1, 2000000), 2);
    assert_int_equal(depth_after(1, 49999999), 2);
}

static void nothing_waits_behind_a_long_task(void **state)
{
    (void)state;
    assert_int_equal(depth_after(1, 50000000), 1);
    assert_int_equal(depth_after(1, INT64_MAX), 1);
}

static void the_depth_falls_as_the_service_time_grows(void **state)
{
    (void)state;
    unsigned last = SLOTS;
    for (int64_t ns = 1; ns < INT64_MAX / 3; ns += 1 + ns / 7) {
        unsigned depth = depth_after(1, ns);
        assert_true(depth >= 1 && depth <= last);
        last = depth;
    }
}

static void the_depth_stays_within_any_number_of_slots(void **state)
{
    (void)state;
    for (unsigned slots = 1; slots < 300; slots++)
        for (int64_t ns = 1; ns < 100000000; ns *= 10) {
            weir__ring_depth depth = {ns};
            unsigned n = weir__ring_depth_get(&depth, slots);
            assert_true(n >= 1 && n <= slots);
        }
}

/* A worker may tell any number. */
static void impossible_measurements_do_no_harm(void **state)
{
    (void)state;
    static const int64_t told[] = {0, -1, INT64_MIN, INT64_MAX, INT64_MAX, 1, INT64_MIN, 7};
    weir__ring_depth depth = {0};
    for (int i = 0; i < 800; i++) {
        weir__ring_depth_measure(&depth, told[i % 8]);
        assert_true(depth.service_ns >= 1);
        unsigned n = weir__ring_depth_get(&depth, SLOTS);
        assert_true(n >= 1 && n <= SLOTS);
    }
    for (int i = 0; i < 400; i++) /* and are forgotten */
        weir__ring_depth_measure(&depth, 100000);
    assert_in_range(weir__ring_depth_get(&depth, SLOTS), 20, 22);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_the_first_measurement_there_is_one_ahead),
        cmocka_unit_test(the_first_measurement_counts_in_full),
        cmocka_unit_test(microsecond_tasks_fill_the_ring),
        cmocka_unit_test(tasks_between_have_two_milliseconds_of_work_ahead),
        cmocka_unit_test(nothing_waits_behind_a_long_task),
        cmocka_unit_test(the_depth_falls_as_the_service_time_grows),
        cmocka_unit_test(the_depth_stays_within_any_number_of_slots),
        cmocka_unit_test(impossible_measurements_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
