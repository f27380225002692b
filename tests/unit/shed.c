/* model/shed.h: when a line has become a standing one. */
#include "contract/support.h"

#include "model/shed.h"

#define MS WEIR_MILLISECOND

static weir__shed fresh(void)
{
    return (weir__shed){.target_ns = 5 * MS, .interval_ns = 100 * MS};
}

static void nobody_is_late_without_a_target(void **state)
{
    (void)state;
    weir__shed shed = {0};
    for (weir_time now = 1; now < 1000 * MS; now += MS)
        assert_false(weir__shed_is_late(&shed, now, 900 * MS));
}

static void a_burst_within_an_interval_is_let_through(void **state)
{
    (void)state;
    weir__shed shed = fresh();
    for (int i = 0; i < 99; i++)
        assert_false(weir__shed_is_late(&shed, (1000 + i) * MS, i * MS));
    assert_false(shed.overloaded);
}

static void an_interval_in_which_all_waited_makes_the_late_ones_go(void **state)
{
    (void)state;
    weir__shed shed = fresh();
    for (int i = 0; i < 100; i++)
        assert_false(weir__shed_is_late(&shed, (1000 + i) * MS, 20 * MS));
    assert_true(weir__shed_is_late(&shed, 1100 * MS, 20 * MS));
    assert_true(weir__shed_is_late(&shed, 1101 * MS, 11 * MS));
    assert_false(weir__shed_is_late(&shed, 1102 * MS, 10 * MS)); /* twice the target */
}

static void one_quick_one_ends_the_overload_with_the_interval(void **state)
{
    (void)state;
    weir__shed shed = fresh();
    for (int i = 0; i < 101; i++)
        weir__shed_is_late(&shed, (1000 + i) * MS, 20 * MS);
    assert_true(shed.overloaded);
    assert_false(weir__shed_is_late(&shed, 1150 * MS, 3 * MS));
    assert_true(weir__shed_is_late(&shed, 1199 * MS, 20 * MS));
    assert_false(weir__shed_is_late(&shed, 1200 * MS, 20 * MS));
    assert_false(shed.overloaded);
}

static void a_line_that_was_empty_is_no_standing_one(void **state)
{
    (void)state;
    weir__shed shed = fresh();
    for (int i = 0; i < 99; i++)
        weir__shed_is_late(&shed, (1000 + i) * MS, 20 * MS);
    weir__shed_note_empty(&shed);
    assert_false(weir__shed_is_late(&shed, 1100 * MS, 20 * MS));
}

static void an_interval_that_saw_nobody_says_nothing(void **state)
{
    (void)state;
    weir__shed shed = fresh();
    weir__shed_is_late(&shed, 1000 * MS, 20 * MS);
    assert_false(weir__shed_is_late(&shed, 5000 * MS, 20 * MS));
    assert_false(shed.overloaded);
}

static void where_nobody_comes_through_those_go_who_have_waited_for_an_interval(void **state)
{
    (void)state;
    weir__shed shed = fresh();
    assert_false(weir__shed_is_stuck(&shed, 1000 * MS, 100 * MS));
    assert_true(weir__shed_is_stuck(&shed, 1000 * MS, 101 * MS));
    weir__shed_is_late(&shed, 1000 * MS, 1 * MS);
    assert_false(weir__shed_is_stuck(&shed, 1050 * MS, 500 * MS)); /* somebody came */
    assert_true(weir__shed_is_stuck(&shed, 1101 * MS, 500 * MS));
    weir__shed_note_empty(&shed);
    assert_false(weir__shed_is_stuck(&shed, 1102 * MS, 50 * MS));
    shed.target_ns = 0;
    assert_false(weir__shed_is_stuck(&shed, 9000 * MS, 5000 * MS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_late_without_a_target),
        cmocka_unit_test(a_burst_within_an_interval_is_let_through),
        cmocka_unit_test(an_interval_in_which_all_waited_makes_the_late_ones_go),
        cmocka_unit_test(one_quick_one_ends_the_overload_with_the_interval),
        cmocka_unit_test(a_line_that_was_empty_is_no_standing_one),
        cmocka_unit_test(where_nobody_comes_through_those_go_who_have_waited_for_an_interval),
        cmocka_unit_test(an_interval_that_saw_nobody_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
