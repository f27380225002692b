/* model/ladder.h: normal, slow, pause, shed, and hysteresis. */
#include "contract/support.h"

#include "model/ladder.h"

static const double defaults[WEIR__LADDER_MARKS];

static weir__ladder ladder_of(double limit)
{
    weir__ladder ladder;
    assert_true(weir__ladder_init(&ladder, defaults, limit));
    return ladder;
}

static bool near(double a, double b)
{
    return a - b < 1e-9 && b - a < 1e-9;
}

static void marks_lie_between_the_limit_and_all_there_is(void **state)
{
    (void)state;
    weir__ladder ladder = ladder_of(0.8);
    assert_true(near(ladder.up[0], 0.85) && near(ladder.up[1], 0.9) && near(ladder.up[2], 0.95));
    ladder = ladder_of(0.1); /* a small part of the machine: what matters is the machine */
    assert_true(near(ladder.up[0], 0.85));
    ladder = ladder_of(0.96);
    assert_true(near(ladder.up[0], 0.97) && near(ladder.up[2], 0.99));
}

static void marks_that_do_not_ascend_or_are_no_shares_are_refused(void **state)
{
    (void)state;
    static const double bad[][WEIR__LADDER_MARKS] = {
        {0.9, 0.8, 0.95}, {0.5, 0.6, 1.1}, {-0.1, 0.5, 0.6}, {0.95, 0, 0}, {0, 0, 0.5},
    };
    weir__ladder ladder = {.by_use = WEIR__STEP_SHED};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(weir__ladder_init(&ladder, bad[i], 0.8));
    assert_int_equal(ladder.by_use, WEIR__STEP_SHED);
    static const double good[WEIR__LADDER_MARKS] = {0.5, 0.6, 0.6};
    assert_true(weir__ladder_init(&ladder, good, 0.8));
}

static void each_step_is_left_lower_than_it_was_come_to(void **state)
{
    (void)state;
    weir__ladder ladder = ladder_of(0.8);
    static const struct {
        double used;
        weir__step step;
    } way[] = {
        {0.84, WEIR__STEP_NORMAL}, {0.851, WEIR__STEP_SLOW},  {0.84, WEIR__STEP_SLOW},
        {0.75, WEIR__STEP_SLOW},   {0.89, WEIR__STEP_SLOW},   {0.901, WEIR__STEP_PAUSE},
        {0.80, WEIR__STEP_PAUSE},  {0.78, WEIR__STEP_SLOW},   {0.96, WEIR__STEP_SHED},
        {0.84, WEIR__STEP_SHED},   {0.82, WEIR__STEP_PAUSE},  {0.10, WEIR__STEP_NORMAL},
        {1.20, WEIR__STEP_SHED},   {0.00, WEIR__STEP_NORMAL},
    };
    for (size_t i = 0; i < sizeof way / sizeof *way; i++)
        if (weir__ladder_update(&ladder, way[i].used, 0, 0) != way[i].step)
            fail_msg("at %zu: %d", i, (int)weir__ladder_step(&ladder));
}

static void use_that_wavers_about_a_mark_changes_the_step_once(void **state)
{
    (void)state;
    weir__ladder ladder = ladder_of(0.8);
    unsigned changes = 0;
    weir__step before = WEIR__STEP_NORMAL;
    for (int i = 0; i < 1000; i++) {
        weir__step step = weir__ladder_update(&ladder, i % 2 ? 0.86 : 0.84, 0, 0);
        changes += step != before;
        before = step;
    }
    assert_int_equal(changes, 1);
}

static void stalls_raise_the_step_but_do_not_shed(void **state)
{
    (void)state;
    weir__ladder ladder = ladder_of(0.8);
    assert_int_equal(weir__ladder_update(&ladder, 0.1, 19, 0), WEIR__STEP_NORMAL);
    assert_int_equal(weir__ladder_update(&ladder, 0.1, 21, 0), WEIR__STEP_SLOW);
    assert_int_equal(weir__ladder_update(&ladder, 0.1, 11, 0), WEIR__STEP_SLOW);
    assert_int_equal(weir__ladder_update(&ladder, 0.1, 30, 10), WEIR__STEP_PAUSE);
    assert_int_equal(weir__ladder_update(&ladder, 0.1, 100, 100), WEIR__STEP_PAUSE);
    assert_int_equal(weir__ladder_update(&ladder, 0.1, 30, 4), WEIR__STEP_SLOW);
    assert_int_equal(weir__ladder_update(&ladder, 0.1, 9, 4), WEIR__STEP_NORMAL);
    assert_int_equal(weir__ladder_update(&ladder, 0.96, 0, 0), WEIR__STEP_SHED);
    assert_int_equal(weir__ladder_update(&ladder, 0.96, 0, 50), WEIR__STEP_SHED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_lie_between_the_limit_and_all_there_is),
        cmocka_unit_test(marks_that_do_not_ascend_or_are_no_shares_are_refused),
        cmocka_unit_test(each_step_is_left_lower_than_it_was_come_to),
        cmocka_unit_test(use_that_wavers_about_a_mark_changes_the_step_once),
        cmocka_unit_test(stalls_raise_the_step_but_do_not_shed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
