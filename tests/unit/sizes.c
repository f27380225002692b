/* model/sizes.h: how much the next task of a kind will take. */
#include "contract/support.h"

#include "model/sizes.h"

#define MIB (UINT64_C(1) << 20)

static weir__sizes sizes;

static int begin(void **state)
{
    (void)state;
    sizes = (weir__sizes){0};
    return 0;
}

static void nothing_is_known_of_a_kind_that_was_not_seen(void **state)
{
    (void)state;
    assert_int_equal(weir__sizes_estimate(&sizes, 1), 0);
    weir__sizes_observe(&sizes, 1, 5 * MIB);
    assert_int_equal(weir__sizes_estimate(&sizes, 2), 0);
    assert_int_equal(weir__sizes_seen(&sizes, 1), 1);
    assert_int_equal(weir__sizes_seen(&sizes, 2), 0);
}

static void the_margin_shrinks_as_more_is_seen(void **state)
{
    (void)state;
    weir__sizes_observe(&sizes, 0, 80 * MIB);
    assert_int_equal(weir__sizes_estimate(&sizes, 0), 96 * MIB);
    weir__sizes_observe(&sizes, 0, 100 * MIB);
    weir__sizes_observe(&sizes, 0, 90 * MIB);
    assert_int_equal(weir__sizes_estimate(&sizes, 0), 120 * MIB);
    for (int i = 0; i < 5; i++)
        weir__sizes_observe(&sizes, 0, 100 * MIB);
    assert_int_equal(weir__sizes_estimate(&sizes, 0), 110 * MIB);
}

static void one_outlier_in_twenty_does_not_count_for_ever(void **state)
{
    (void)state;
    weir__sizes_observe(&sizes, 7, 1000 * MIB);
    for (int i = 0; i < 18; i++)
        weir__sizes_observe(&sizes, 7, 100 * MIB);
    assert_int_equal(weir__sizes_estimate(&sizes, 7), 1100 * MIB);
    weir__sizes_observe(&sizes, 7, 100 * MIB);
    assert_int_equal(weir__sizes_estimate(&sizes, 7), 110 * MIB);
    weir__sizes_observe(&sizes, 7, 900 * MIB);
    assert_int_equal(weir__sizes_estimate(&sizes, 7), 990 * MIB);
    for (unsigned i = 0; i < WEIR__SIZES_KEPT; i++) /* and old ones are forgotten */
        weir__sizes_observe(&sizes, 7, 10 * MIB);
    assert_int_equal(weir__sizes_estimate(&sizes, 7), 11 * MIB);
}

static void a_task_takes_something(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        weir__sizes_observe(&sizes, 7, 0);
    assert_int_equal(weir__sizes_estimate(&sizes, 7), WEIR__SIZE_LEAST);
    weir__sizes_observe(&sizes, 8, UINT64_MAX);
    assert_true(weir__sizes_estimate(&sizes, 8) == UINT64_MAX);
}

static void the_kind_used_longest_ago_makes_room(void **state)
{
    (void)state;
    for (uint64_t kind = 0; kind < WEIR__SIZES_KINDS; kind++)
        weir__sizes_observe(&sizes, kind, MIB);
    assert_true(weir__sizes_estimate(&sizes, 0) > 0); /* used again */
    weir__sizes_observe(&sizes, 1000, MIB);
    assert_int_equal(weir__sizes_estimate(&sizes, 1), 0);
    assert_true(weir__sizes_estimate(&sizes, 0) > 0);
    assert_true(weir__sizes_estimate(&sizes, 1000) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_is_known_of_a_kind_that_was_not_seen, begin),
        cmocka_unit_test_setup(the_margin_shrinks_as_more_is_seen, begin),
        cmocka_unit_test_setup(one_outlier_in_twenty_does_not_count_for_ever, begin),
        cmocka_unit_test_setup(a_task_takes_something, begin),
        cmocka_unit_test_setup(the_kind_used_longest_ago_makes_room, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
