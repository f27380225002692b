/* model/allowance.h: the limit less what is used and was not reserved. */
#include "contract/support.h"

#include "model/allowance.h"

#define MIB      (UINT64_C(1) << 20)
#define INTERVAL (100 * WEIR_MILLISECOND)

static weir__allowance allowance;
static weir_time now;

static int begin(void **state)
{
    (void)state;
    now = WEIR_SECOND;
    weir__allowance_init(&allowance, 1000 * MIB, INTERVAL);
    return 0;
}

/* The capacity in MiB after a measurement, an interval after the last one. */
static int measured(uint64_t usage, uint64_t reserved)
{
    now += INTERVAL;
    weir__allowance_measure(&allowance, usage * MIB, reserved * MIB, now);
    return (int)(weir__allowance_get(&allowance, WEIR__STEP_NORMAL) / MIB);
}

static void what_is_used_and_was_not_reserved_is_taken_off(void **state)
{
    (void)state;
    assert_int_equal(measured(100, 0), 900);
}

static void what_was_reserved_and_is_not_yet_used_is_not_forgotten(void **state)
{
    (void)state;
    assert_int_equal(measured(100, 0), 900);
    assert_int_equal(measured(100, 800), 900); /* nothing of it is touched */
    assert_int_equal(measured(500, 800), 900);
    assert_int_equal(measured(900, 800), 900); /* all of it is */
    for (int i = 0; i < 1000; i++) /* for ever so long, and the base does not come out smaller */
        assert_int_equal(measured(i % 2 ? 500 : 900, 800), 900);
}

static void more_than_was_reserved_counts_once_it_lasts(void **state)
{
    (void)state;
    measured(100, 0);
    assert_int_equal(measured(600, 400), 900);
    assert_int_equal(measured(600, 400), 900);
    assert_int_equal(measured(650, 400), 800); /* the least of three */
    assert_int_equal(measured(650, 400), 800);
    assert_int_equal(measured(650, 400), 750);
}

static void pages_that_come_back_later_than_their_reservation_do_not_count(void **state)
{
    (void)state;
    measured(100, 0);
    assert_int_equal(measured(900, 800), 900);
    assert_int_equal(measured(900, 400), 900); /* half was given back a moment ago */
    assert_int_equal(measured(500, 400), 900);
    assert_int_equal(measured(500, 0), 900); /* the other, too */
    assert_int_equal(measured(100, 0), 900);
}

static void an_excess_that_is_gone_fades(void **state)
{
    (void)state;
    measured(100, 0);
    for (int i = 0; i < 3; i++)
        measured(700, 400);
    assert_int_equal(measured(700, 400), 700);
    int last = 700;
    for (int i = 0; i < 50; i++) { /* 5 s */
        int next = measured(500, 400);
        assert_true(next >= last);
        last = next;
    }
    assert_true(last >= 795 && last <= 825);
    for (int i = 0; i < 1000; i++)
        last = measured(500, 400);
    assert_int_equal(last, 900 - 1); /* the last byte never quite fades */
}

static void growth_while_nothing_is_reserved_counts_at_once_after_a_pause(void **state)
{
    (void)state;
    measured(100, 0);
    now += WEIR_SECOND; /* nobody came, and a table was loaded */
    assert_int_equal(measured(600, 0), 400);
    assert_int_equal(measured(700, 0), 300); /* it was free before, and still is */
}

static void less_use_in_all_is_less_base_at_once(void **state)
{
    (void)state;
    measured(600, 0);
    assert_int_equal(measured(700, 300), 400);
    assert_int_equal(measured(350, 300), 650); /* cannot be more than all there is */
    assert_int_equal(measured(50, 300), 950);
}

static void the_steps_take_half_or_everything(void **state)
{
    (void)state;
    measured(200, 0);
    assert_int_equal(weir__allowance_get(&allowance, WEIR__STEP_SLOW) / MIB, 400);
    assert_int_equal(weir__allowance_get(&allowance, WEIR__STEP_PAUSE), 0);
    assert_int_equal(weir__allowance_get(&allowance, WEIR__STEP_SHED), 0);
    measured(1200, 0);
    measured(1200, 0);
    assert_int_equal(weir__allowance_get(&allowance, WEIR__STEP_NORMAL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_is_used_and_was_not_reserved_is_taken_off, begin),
        cmocka_unit_test_setup(what_was_reserved_and_is_not_yet_used_is_not_forgotten, begin),
        cmocka_unit_test_setup(more_than_was_reserved_counts_once_it_lasts, begin),
        cmocka_unit_test_setup(pages_that_come_back_later_than_their_reservation_do_not_count,
                               begin),
        cmocka_unit_test_setup(an_excess_that_is_gone_fades, begin),
        cmocka_unit_test_setup(growth_while_nothing_is_reserved_counts_at_once_after_a_pause,
                               begin),
        cmocka_unit_test_setup(less_use_in_all_is_less_base_at_once, begin),
        cmocka_unit_test_setup(the_steps_take_half_or_everything, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
