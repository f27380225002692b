/* Times in buckets, against the same times sorted. */
#include "contract/support.h"

#include <string.h>

#include "model/histogram.h"
#include "unit/chance.h"

#define MANY 200000

static void every_bucket_begins_where_the_one_before_ends(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WEIR__HISTOGRAM_BUCKETS; i++) {
        uint64_t from = weir__histogram_floor(i), to = weir__histogram_floor(i + 1);
        assert_true(from < to);
        assert_int_equal(weir__histogram_bucket(from), i);
        assert_int_equal(weir__histogram_bucket(to - 1), i);
        if (from >= 128)
            assert_true((to - from) * 32 <= from);
    }
    assert_int_equal(weir__histogram_floor(WEIR__HISTOGRAM_BUCKETS), WEIR__HISTOGRAM_END);
}

static void what_is_longer_than_the_end_goes_into_the_last_bucket(void **state)
{
    (void)state;
    assert_int_equal(weir__histogram_bucket(WEIR__HISTOGRAM_END), WEIR__HISTOGRAM_BUCKETS - 1);
    assert_int_equal(weir__histogram_bucket(UINT64_MAX), WEIR__HISTOGRAM_BUCKETS - 1);
}

static void nothing_counted_has_no_percentile(void **state)
{
    (void)state;
    static const uint64_t counts[WEIR__HISTOGRAM_BUCKETS];
    assert_int_equal(weir__histogram_count(counts), 0);
    assert_int_equal(weir__histogram_percentile(counts, 0.5), 0);
}

static void counts_that_are_lies_do_not_overflow(void **state)
{
    (void)state;
    static uint64_t counts[WEIR__HISTOGRAM_BUCKETS];
    memset(counts, 0xff, sizeof counts);
    assert_true(weir__histogram_count(counts) == UINT64_MAX);
    volatile double zero = 0;
    const double p[] = {0, 0.5, 1, 2, -1, 0.0 / zero};
    for (size_t i = 0; i < sizeof p / sizeof *p; i++)
        assert_true(weir__histogram_percentile(counts, p[i]) < WEIR__HISTOGRAM_END);
}

/* ---- five distributions, in nanoseconds ------------------------------------------------------- */

static double from_uniform(weir__random *random)
{
    return 1e3 + 1e8 * uniform(random);
}

static double from_exponential(weir__random *random)
{
    return 200 + exponential(random, 5e6);
}

/* The sum of five exponential ones. */
static double from_erlang(weir__random *random)
{
    double sum = 0;
    for (int i = 0; i < 5; i++)
        sum += exponential(random, 2e5);
    return sum;
}

/* With shape 1: so heavy a tail that there is no mean. */
static double from_pareto(weir__random *random)
{
    return 1e4 / (1 - uniform(random));
}

/* Hits and misses of a cache, say. */
static double from_two_modes(weir__random *random)
{
    return uniform(random) < 0.8 ? 500 + exponential(random, 100) : 2e7 + exponential(random, 1e6);
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void percentiles_are_within_two_percent(double (*draw)(weir__random *))
{
    static uint64_t times[MANY], counts[WEIR__HISTOGRAM_BUCKETS];
    weir__random random = {20261128};
    memset(counts, 0, sizeof counts);
    for (size_t i = 0; i < MANY; i++) {
        times[i] = (uint64_t)draw(&random);
        counts[weir__histogram_bucket(times[i])]++;
    }
    qsort(times, MANY, sizeof *times, by_size);
    assert_int_equal(weir__histogram_count(counts), MANY);
    const unsigned per_mille[] = {500, 900, 990, 999, 1000};
    for (size_t i = 0; i < sizeof per_mille / sizeof *per_mille; i++) {
        double exact = (double)times[(uint64_t)per_mille[i] * MANY / 1000 - 1];
        double told = (double)weir__histogram_percentile(counts, per_mille[i] / 1000.0);
        assert_true(told - exact <= 0.02 * exact && exact - told <= 0.02 * exact);
    }
}

static void percentiles_of_a_uniform_distribution(void **state)
{
    (void)state;
    percentiles_are_within_two_percent(from_uniform);
}

static void percentiles_of_an_exponential_distribution(void **state)
{
    (void)state;
    percentiles_are_within_two_percent(from_exponential);
}

static void percentiles_of_an_erlang_distribution(void **state)
{
    (void)state;
    percentiles_are_within_two_percent(from_erlang);
}

static void percentiles_of_a_pareto_distribution(void **state)
{
    (void)state;
    percentiles_are_within_two_percent(from_pareto);
}

static void percentiles_of_a_distribution_with_two_modes(void **state)
{
    (void)state;
    percentiles_are_within_two_percent(from_two_modes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bucket_begins_where_the_one_before_ends),
        cmocka_unit_test(what_is_longer_than_the_end_goes_into_the_last_bucket),
        cmocka_unit_test(nothing_counted_has_no_percentile),
        cmocka_unit_test(counts_that_are_lies_do_not_overflow),
        cmocka_unit_test(percentiles_of_a_uniform_distribution),
        cmocka_unit_test(percentiles_of_an_exponential_distribution),
        cmocka_unit_test(percentiles_of_an_erlang_distribution),
        cmocka_unit_test(percentiles_of_a_pareto_distribution),
        cmocka_unit_test(percentiles_of_a_distribution_with_two_modes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
