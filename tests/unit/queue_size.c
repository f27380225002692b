/* model/queue_size.h: twice what arrives while the consumers are busy, within bounds and slowly. */
#include "contract/support.h"

#include "model/queue_size.h"
#include "model/random.h"

static const weir__queue_size_terms wide = {.min = 1, .max = 100000};

/* A stage of so many consumers that take so long, while so many a second arrive. */
typedef struct stage {
    weir__queue_size sizes;
    weir__queue_size_sample sample;
} stage;

static stage stage_of(const weir__queue_size_terms *terms, size_t initial, double workers)
{
    stage s = {.sample = {.now = WEIR_SECOND, .workers = workers}};
    weir__queue_size_init(&s.sizes, terms, initial, s.sample.now);
    return s;
}

static size_t run(stage *s, double seconds, double per_s, double service_s)
{
    s->sample.now += (weir_time)(seconds * 1e9);
    s->sample.arrived += (uint64_t)(per_s * seconds + 0.5);
    s->sample.done += (uint64_t)(per_s * seconds + 0.5);
    s->sample.busy_ns += (uint64_t)(per_s * seconds * service_s * 1e9);
    return weir__queue_size_step(&s->sizes, &s->sample);
}

static size_t settle(stage *s, double per_s, double service_s)
{
    size_t size = 0;
    for (int i = 0; i < 60; i++)
        size = run(s, 1, per_s, service_s);
    return size;
}

static void it_is_twice_consumers_times_service_over_time_between_arrivals(void **state)
{
    (void)state;
    static const struct {
        double workers, per_s, service_s;
        size_t size;
    } cases[] = {
        {4, 50, 0.1, 40}, {3, 30, 0.1, 18}, {1, 10, 0.1, 2}, {8, 6, 1.2, 115}, {2, 1000, 0.002, 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        stage s = stage_of(&wide, 1, cases[i].workers);
        size_t size = settle(&s, cases[i].per_s, cases[i].service_s);
        assert_in_range(size, cases[i].size * 3 / 4, (cases[i].size * 5 + 3) / 4);
    }
}

static void short_items_have_work_ahead_for_the_time_of_a_wake_up(void **state)
{
    (void)state;
    stage one = stage_of(&wide, 1, 1), four = stage_of(&wide, 1, 4);
    assert_in_range(settle(&one, 500000, 1e-6), 150, 250);
    assert_in_range(settle(&four, 500000, 1e-6), 600, 1000);
    stage instant = stage_of(&wide, 1, 1);
    assert_in_range(settle(&instant, 1000000, 0), 1500, 2500); /* no clock sees them */
}

static void nothing_is_changed_before_anything_is_measured(void **state)
{
    (void)state;
    stage s = stage_of(&wide, 16, 4);
    for (int i = 0; i < 10; i++)
        assert_int_equal(run(&s, 1, 0, 0), 16);
}

static void it_changes_once_a_second_and_at_most_to_the_double_or_the_half(void **state)
{
    (void)state;
    stage s = stage_of(&wide, 10, 4);
    for (int i = 0; i < 9; i++)
        assert_int_equal(run(&s, 0.1, 500, 0.1), 10);
    assert_int_equal(run(&s, 0.1, 500, 0.1), 20);
    assert_int_equal(run(&s, 0.5, 500, 0.1), 20);
    assert_int_equal(run(&s, 0.5, 500, 0.1), 40);
    assert_int_equal(run(&s, 1, 500, 0.1), 80);
    settle(&s, 500, 0.1);
    size_t before = s.sizes.size;
    for (int i = 0; i < 20; i++) {
        size_t size = run(&s, 1, 10, 0.001);
        assert_true(size >= before / 2 && size <= before);
        before = size;
    }
    assert_in_range(before, 1, 2);
}

static void small_changes_are_ignored(void **state)
{
    (void)state;
    stage s = stage_of(&wide, 40, 4);
    weir__random random = {3};
    for (int i = 0; i < 300; i++) /* 40, and a fifth more or less */
        assert_int_equal(run(&s, 1, 40 + 20 * weir__random_unit(weir__random_next(&random)), 0.1),
                         40);
}

static void bounds_are_never_left(void **state)
{
    (void)state;
    static const weir__queue_size_terms narrow = {.min = 8, .max = 32};
    stage s = stage_of(&narrow, 1000, 4);
    assert_int_equal(s.sizes.size, 32);
    assert_int_equal(settle(&s, 10, 0.001), 8);
    assert_int_equal(settle(&s, 5000, 0.1), 32);
    stage low = stage_of(&narrow, 1, 4);
    assert_int_equal(low.sizes.size, 8);
}

static void the_budget_bounds_it_by_the_mean_cost_at_once(void **state)
{
    (void)state;
    static const weir__queue_size_terms bytes = {.min = 4, .max = 1000, .budget_cost = 1 << 20};
    stage s = stage_of(&bytes, 100, 4);
    s.sample.mean_cost = 1 << 16;
    assert_int_equal(run(&s, 1, 50, 0.1), 16); /* from 100, not by halves */
    s.sample.mean_cost = 1 << 19;
    assert_int_equal(run(&s, 1, 50, 0.1), 2); /* below the minimum */
    s.sample.mean_cost = 1 << 22;
    assert_int_equal(run(&s, 1, 50, 0.1), 1); /* but one is let in */
    s.sample.mean_cost = 1;
    assert_in_range(settle(&s, 50, 0.1), 30, 50);
}

static void random_samples_never_lead_out_of_the_bounds(void **state)
{
    (void)state;
    weir__random random = {11};
    for (int round = 0; round < 300; round++) {
        weir__queue_size_terms terms = {.min = 1 + weir__random_next(&random) % 50};
        terms.max = round % 10 ? terms.min + weir__random_next(&random) % 5000 : SIZE_MAX;
        terms.budget_cost = round % 2 ? weir__random_next(&random) % 100000 : 0;
        stage s = stage_of(&terms, weir__random_next(&random) % 10000, round % 64);
        for (int i = 0; i < 100; i++) {
            double service_s = 1e-9 * (double)(UINT64_C(1) << weir__random_next(&random) % 34);
            s.sample.mean_cost = (double)(weir__random_next(&random) % 1000);
            size_t size = run(&s, 0.01 + 3 * weir__random_unit(weir__random_next(&random)),
                              (double)(weir__random_next(&random) % 100000), service_s);
            bool fits = !terms.budget_cost || size == 1 ||
                        (double)size * s.sample.mean_cost <= (double)terms.budget_cost;
            assert_true(size >= 1 && size <= terms.max &&
                        (fits || s.sizes.last.now < s.sample.now));
            assert_true(size >= terms.min || terms.budget_cost);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_twice_consumers_times_service_over_time_between_arrivals),
        cmocka_unit_test(short_items_have_work_ahead_for_the_time_of_a_wake_up),
        cmocka_unit_test(nothing_is_changed_before_anything_is_measured),
        cmocka_unit_test(it_changes_once_a_second_and_at_most_to_the_double_or_the_half),
        cmocka_unit_test(small_changes_are_ignored),
        cmocka_unit_test(bounds_are_never_left),
        cmocka_unit_test(the_budget_bounds_it_by_the_mean_cost_at_once),
        cmocka_unit_test(random_samples_never_lead_out_of_the_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
