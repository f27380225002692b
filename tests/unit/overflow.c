/* model/overflow.h: bounds, marks, the decision. */
#include "contract/support.h"

#include "model/overflow.h"

static const weir__load bound = {10, 100};

static void an_item_fits_up_to_the_bound_and_not_past_it(void **state)
{
    (void)state;
    assert_true(weir__fits(bound, (weir__load){9, 60}, 40));
    assert_false(weir__fits(bound, (weir__load){9, 60}, 41));
    assert_false(weir__fits(bound, (weir__load){10, 0}, 0));
    assert_false(weir__fits(bound, (weir__load){0, 0}, UINT64_MAX));
}

static void nothing_fits_while_a_surplus_is_inside(void **state)
{
    (void)state;
    assert_false(weir__fits(bound, (weir__load){11, 0}, 0));
    assert_false(weir__fits(bound, (weir__load){0, 101}, 0));
}

static void without_a_bound_a_sum_still_cannot_wrap_round(void **state)
{
    (void)state;
    assert_true(weir__fits(WEIR__NO_BOUND, (weir__load){0, UINT64_MAX - 5}, 5));
    assert_false(weir__fits(WEIR__NO_BOUND, (weir__load){0, UINT64_MAX - 5}, 6));
}

static void excess_says_what_has_to_leave(void **state)
{
    (void)state;
    weir__load excess = weir__excess(bound, (weir__load){10, 60}, 50);
    assert_int_equal(excess.items, 1);
    assert_int_equal(excess.cost, 10);
    excess = weir__excess(bound, (weir__load){9, 50}, 50);
    assert_int_equal(excess.items + excess.cost, 0);
    excess = weir__excess(bound, (weir__load){15, 300}, 100);
    assert_int_equal(excess.items, 6);
    assert_int_equal(excess.cost, 300);
    excess = weir__excess(WEIR__NO_BOUND, (weir__load){0, UINT64_MAX - 1}, 3);
    assert_int_equal(excess.cost, 2);
}

static void default_marks_are_four_fifths_and_half_of_that(void **state)
{
    (void)state;
    weir__marks marks;
    const weir__load none = {0, 0};
    assert_true(weir__marks_set(&marks, none, none, bound, true));
    assert_int_equal(marks.high.items, 8);
    assert_int_equal(marks.low.items, 4);
    assert_int_equal(marks.high.cost, 80);
    assert_int_equal(marks.low.cost, 40);
    weir__marks_default(&marks, (weir__load){SIZE_MAX - 1, UINT64_MAX});
    assert_true(marks.high.items > SIZE_MAX / 10 * 7);
    assert_true(marks.high.cost == UINT64_MAX && marks.low.cost == UINT64_MAX);
}

static void marks_that_nobody_wants_are_never_above(void **state)
{
    (void)state;
    weir__marks marks;
    assert_true(weir__marks_set(&marks, (weir__load){0}, (weir__load){0}, bound, false));
    weir__marks_update(&marks, (weir__load){SIZE_MAX, UINT64_MAX});
    assert_false(marks.above);
}

static void marks_out_of_range_are_refused_and_change_nothing(void **state)
{
    (void)state;
    weir__marks marks = {.above = true};
    const weir__load none = {0, 0};
    assert_false(weir__marks_set(&marks, (weir__load){10, 0}, none, bound, true));
    assert_false(weir__marks_set(&marks, (weir__load){0, 100}, none, bound, true));
    assert_false(weir__marks_set(&marks, (weir__load){5, 0}, (weir__load){5, 0}, bound, true));
    assert_false(weir__marks_set(&marks, none, (weir__load){1, 0}, bound, true));
    assert_false(weir__marks_set(&marks, (weir__load){5, 0}, (weir__load){0, 1}, bound, true));
    assert_false(weir__marks_set(&marks, none, none, WEIR__NO_BOUND, true));
    assert_true(marks.above);
    assert_int_equal(marks.high.items, 0);
}

static void above_begins_past_the_high_mark_and_ends_at_the_low_mark(void **state)
{
    (void)state;
    weir__marks marks;
    assert_true(weir__marks_set(&marks, (weir__load){8, 50}, (weir__load){2, 10}, bound, true));
    const struct {
        weir__load inside;
        bool above;
    } steps[] = {
        {{8, 50}, false}, {{9, 0}, true},  {{3, 0}, true}, {{2, 11}, true}, {{2, 10}, false},
        {{8, 50}, false}, {{0, 51}, true}, {{9, 0}, true}, {{0, 11}, true}, {{0, 0}, false},
    };
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        weir__marks_update(&marks, steps[i].inside);
        assert_int_equal(marks.above, steps[i].above);
    }
}

static void what_fits_is_kept_and_what_does_not_meets_its_fate(void **state)
{
    (void)state;
    const weir__fate fates[] = {WEIR__WAIT, WEIR__REFUSE, WEIR__DROP, WEIR__EVICT};
    for (int i = 0; i < 4; i++) {
        weir__overflow overflow = {fates[i], 1, 0};
        for (int above = 0; above <= 1; above++) {
            assert_int_equal(weir__overflow_decide(&overflow, above, true), WEIR__KEEP);
            assert_int_equal(weir__overflow_decide(&overflow, above, false), fates[i]);
        }
    }
}

static void sampling_keeps_exactly_one_of_n_above_and_all_below(void **state)
{
    (void)state;
    for (uint32_t n = 2; n < 20; n++) {
        weir__overflow overflow = {WEIR__DROP, n, 0};
        int kept = 0;
        for (uint32_t i = 0; i < n * 7; i++)
            kept += weir__overflow_decide(&overflow, true, true) == WEIR__KEEP;
        assert_int_equal(kept, 7);
        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(weir__overflow_decide(&overflow, false, true), WEIR__KEEP);
    }
}

static void a_number_pauses_at_its_high_mark_and_goes_on_at_its_low_mark(void **state)
{
    (void)state;
    bool paused = false;
    for (uint64_t level = 0; level < 8; level++)
        assert_false(paused = weir__pauses(paused, level, 8, 3));
    for (uint64_t level = 8; level > 3; level--)
        assert_true(paused = weir__pauses(paused, level, 8, 3));
    assert_false(weir__pauses(paused, 3, 8, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_item_fits_up_to_the_bound_and_not_past_it),
        cmocka_unit_test(nothing_fits_while_a_surplus_is_inside),
        cmocka_unit_test(without_a_bound_a_sum_still_cannot_wrap_round),
        cmocka_unit_test(excess_says_what_has_to_leave),
        cmocka_unit_test(default_marks_are_four_fifths_and_half_of_that),
        cmocka_unit_test(marks_that_nobody_wants_are_never_above),
        cmocka_unit_test(marks_out_of_range_are_refused_and_change_nothing),
        cmocka_unit_test(above_begins_past_the_high_mark_and_ends_at_the_low_mark),
        cmocka_unit_test(a_number_pauses_at_its_high_mark_and_goes_on_at_its_low_mark),
        cmocka_unit_test(what_fits_is_kept_and_what_does_not_meets_its_fate),
        cmocka_unit_test(sampling_keeps_exactly_one_of_n_above_and_all_below),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
