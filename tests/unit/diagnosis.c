/* model/diagnosis.h: each rule fires, and is silent where nothing is the matter. */
#include "contract/support.h"

#include "model/diagnosis.h"

#define BIT(name) (UINT32_C(1) << WEIR__##name)

static const weir__limits limits = {.queue_share = 0.8,
                                    .queue_depth = 1e300,
                                    .service_s = 1,
                                    .throughput = 1,
                                    .age_growth = 2,
                                    .events = 10,
                                    .drops = 0};

/* A queue of 100 places through which something flows, and nothing is the matter. */
static weir__vitals healthy(void)
{
    return (weir__vitals){
        .looks = 11,
        .seconds = 10,
        .holds_items = true,
        .depth = 20,
        .least_inside = 5,
        .fullness = 0.2,
        .places = 100,
        .out = 1000,
        .service_s = 0.01,
        .wait_s = {0.02, 0.02, 0.02},
        .waited = {100, 100, 100},
    };
}

static uint32_t diagnose(const weir__vitals *v)
{
    double values[WEIR__ISSUES];
    return weir__diagnose(v, &limits, values);
}

static double value_of(const weir__vitals *v, weir__issue issue)
{
    double values[WEIR__ISSUES];
    weir__diagnose(v, &limits, values);
    return values[issue];
}

static void what_is_healthy_has_no_issue(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    assert_int_equal(diagnose(&v), 0);
}

static void what_is_idle_has_no_issue(void **state)
{
    (void)state;
    weir__vitals v = {
        .looks = 11, .seconds = 10, .holds_items = true, .places = 10, .service_s = -1};
    assert_int_equal(diagnose(&v), 0);
}

static void what_has_just_started_is_not_judged_by_rates(void **state)
{
    (void)state;
    weir__vitals v = {.looks = 2,
                      .seconds = 5,
                      .holds_items = true,
                      .fullness = 1,
                      .places = 10,
                      .least_inside = 10,
                      .waits = 1000,
                      .service_s = 100};
    assert_int_equal(diagnose(&v), 0);
    v.looks = 3;
    assert_int_equal(diagnose(&v),
                     BIT(QUEUE_HIGH) | BIT(SLOW_SERVICE) | BIT(BACKPRESSURE) | BIT(LOW_THROUGHPUT));
}

static void a_queue_that_is_nearly_full_is_high(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.fullness = 0.81;
    assert_int_equal(diagnose(&v), BIT(QUEUE_HIGH));
    assert_true(value_of(&v, WEIR__QUEUE_HIGH) == 0.81);
    v.fullness = 0.8;
    assert_int_equal(diagnose(&v), 0);
}

static void a_queue_that_is_full_at_both_of_two_looks_is_high(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.looks = 2;
    v.fullness = v.least_fullness = 0.9;
    assert_int_equal(diagnose(&v), BIT(QUEUE_HIGH));
    v.least_fullness = 0.8; /* and full at the other one */
    assert_int_equal(diagnose(&v), 0);
    v.looks = 1;
    v.least_fullness = 0.9;
    assert_int_equal(diagnose(&v), 0);
    weir__limits strict = {.queue_share = 1, .queue_depth = 10, .service_s = 1, .events = 10};
    double values[WEIR__ISSUES];
    v = healthy();
    v.looks = 2;
    v.depth = 11;
    v.least_depth = 10;
    assert_int_equal(weir__diagnose(&v, &strict, values), 0);
    v.least_depth = 11;
    assert_int_equal(weir__diagnose(&v, &strict, values), BIT(QUEUE_HIGH));
}

static void a_queue_that_hands_over_may_be_full(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.fullness = 1;
    for (v.places = 1; v.places < 4; v.places++)
        assert_int_equal(diagnose(&v), 0);
    assert_int_equal(diagnose(&v), BIT(QUEUE_HIGH));
}

static void a_bound_of_cost_alone_is_a_bound(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.places = 0;
    v.fullness = 0.9;
    assert_int_equal(diagnose(&v), BIT(QUEUE_HIGH));
    v.fullness = -1;
    assert_int_equal(diagnose(&v), 0);
}

static void a_depth_can_be_too_much_by_itself(void **state)
{
    (void)state;
    weir__limits strict = limits;
    weir__vitals v = healthy();
    double values[WEIR__ISSUES];
    strict.queue_depth = 19;
    assert_int_equal(weir__diagnose(&v, &strict, values), BIT(QUEUE_HIGH));
    assert_true(values[WEIR__QUEUE_HIGH] == 20);
    strict.queue_depth = 20;
    assert_int_equal(weir__diagnose(&v, &strict, values), 0);
}

static void what_takes_long_is_slow(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.service_s = 1.01;
    assert_int_equal(diagnose(&v), BIT(SLOW_SERVICE));
    v.service_s = 1;
    assert_int_equal(diagnose(&v), 0);
}

static void frequent_waits_and_refusals_are_backpressure(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.waits = 5;
    v.refused = 5;
    assert_int_equal(diagnose(&v), 0);
    v.refused = 6;
    assert_int_equal(diagnose(&v), BIT(BACKPRESSURE));
    assert_true(value_of(&v, WEIR__BACKPRESSURE) == 11);
}

static void what_is_discarded_on_purpose_is_neither_a_drop_nor_backpressure(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.dropped = v.discarded = 1000;
    assert_int_equal(diagnose(&v), 0);
    v.dropped++;
    assert_int_equal(diagnose(&v), BIT(DROPS));
    assert_true(value_of(&v, WEIR__DROPS) == 1);
}

static void work_that_does_not_come_out_is_low_throughput(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.out = 9;
    assert_int_equal(diagnose(&v), BIT(LOW_THROUGHPUT));
    assert_true(value_of(&v, WEIR__LOW_THROUGHPUT) == 0.9);
    v.out = 10;
    assert_int_equal(diagnose(&v), 0);
}

static void what_was_empty_once_had_nothing_to_do(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.out = 0;
    v.least_inside = 0;
    assert_int_equal(diagnose(&v), 0);
}

static void too_short_a_time_says_nothing_about_throughput(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.out = 0;
    v.seconds = 2;
    assert_int_equal(diagnose(&v), 0);
    v.seconds = 3;
    assert_int_equal(diagnose(&v), BIT(LOW_THROUGHPUT));
}

static void what_waits_longer_and_longer_grows_old(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.wait_s[1] = 0.03;
    v.wait_s[2] = 0.041;
    assert_int_equal(diagnose(&v), BIT(GROWING_AGE));
    v.wait_s[2] = 0.04;
    assert_int_equal(diagnose(&v), 0);
}

static void an_age_that_goes_up_and_down_does_not_grow(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.wait_s[1] = 0.01;
    v.wait_s[2] = 0.1;
    assert_int_equal(diagnose(&v), 0);
}

static void short_waits_and_few_of_them_may_grow(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.wait_s[0] = 0.001;
    v.wait_s[1] = 0.002;
    v.wait_s[2] = 0.009;
    assert_int_equal(diagnose(&v), 0);
    v.wait_s[2] = 0.02;
    assert_int_equal(diagnose(&v), BIT(GROWING_AGE));
    v.waited[1] = 4;
    assert_int_equal(diagnose(&v), 0);
    v.waited[1] = 100;
    v.looks = 5;
    assert_int_equal(diagnose(&v), 0);
}

static void states_are_issues_of_breakers_and_governors_only(void **state)
{
    (void)state;
    weir__vitals v = {.looks = 1, .service_s = -1, .fullness = -1, .state = 1};
    assert_int_equal(diagnose(&v), 0);
    v.is_breaker = true;
    assert_int_equal(diagnose(&v), BIT(BREAKER_OPEN));
    v.is_breaker = false;
    v.is_governor = true;
    assert_int_equal(diagnose(&v), BIT(MEMORY));
    v.state = 0;
    assert_int_equal(diagnose(&v), 0);
}

static void dead_workers_are_an_issue_of_process_pools(void **state)
{
    (void)state;
    weir__vitals v = healthy();
    v.lost_workers = 1;
    assert_int_equal(diagnose(&v), 0);
    v.is_process_pool = true;
    assert_int_equal(diagnose(&v), BIT(WORKERS_DIE));
    v.lost_workers = 0;
    assert_int_equal(diagnose(&v), 0);
}

static void each_issue_has_a_rank_of_its_own(void **state)
{
    (void)state;
    uint32_t seen = 0;
    for (int i = 0; i < WEIR__ISSUES; i++)
        seen |= 1u << weir__diagnosis_rank((weir__issue)i);
    assert_int_equal(seen, (1u << WEIR__ISSUES) - 1);
    assert_int_equal(weir__diagnosis_rank(WEIR__WORKERS_DIE), 0);
}

static void a_queue_whose_consumers_wait_more_holds_nothing_back(void **state)
{
    (void)state;
    assert_true(weir__pressure_of_line(0.4, 0.1) == 0.4);
    assert_true(weir__pressure_of_line(0.4, 0.4) == 0);
    assert_true(weir__pressure_of_line(0.4, 3) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_healthy_has_no_issue),
        cmocka_unit_test(what_is_idle_has_no_issue),
        cmocka_unit_test(what_has_just_started_is_not_judged_by_rates),
        cmocka_unit_test(a_queue_that_is_nearly_full_is_high),
        cmocka_unit_test(a_queue_that_is_full_at_both_of_two_looks_is_high),
        cmocka_unit_test(a_queue_that_hands_over_may_be_full),
        cmocka_unit_test(a_bound_of_cost_alone_is_a_bound),
        cmocka_unit_test(a_depth_can_be_too_much_by_itself),
        cmocka_unit_test(what_takes_long_is_slow),
        cmocka_unit_test(frequent_waits_and_refusals_are_backpressure),
        cmocka_unit_test(what_is_discarded_on_purpose_is_neither_a_drop_nor_backpressure),
        cmocka_unit_test(work_that_does_not_come_out_is_low_throughput),
        cmocka_unit_test(what_was_empty_once_had_nothing_to_do),
        cmocka_unit_test(too_short_a_time_says_nothing_about_throughput),
        cmocka_unit_test(what_waits_longer_and_longer_grows_old),
        cmocka_unit_test(an_age_that_goes_up_and_down_does_not_grow),
        cmocka_unit_test(short_waits_and_few_of_them_may_grow),
        cmocka_unit_test(states_are_issues_of_breakers_and_governors_only),
        cmocka_unit_test(dead_workers_are_an_issue_of_process_pools),
        cmocka_unit_test(each_issue_has_a_rank_of_its_own),
        cmocka_unit_test(a_queue_whose_consumers_wait_more_holds_nothing_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
