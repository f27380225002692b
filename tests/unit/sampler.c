/* Which items are timed. */
#include "contract/support.h"

#include "model/sampler.h"

/* How many of n items are sampled that come every `apart` ns. */
static unsigned samples(weir__sampler *sampler, unsigned n, int64_t apart, int64_t *now)
{
    unsigned taken = 0, next = 0;
    for (unsigned i = 0; i < n; i++, *now += apart)
        if (i == next) {
            next = i + weir__sampler_next(sampler, *now);
            taken++;
        }
    return taken;
}

static void rare_items_are_all_timed(void **state)
{
    (void)state;
    weir__sampler sampler = {0};
    int64_t now = 1;
    assert_int_equal(samples(&sampler, 1000, 50 * WEIR_MICROSECOND, &now), 1000);
}

static void frequent_items_are_timed_at_intervals(void **state)
{
    (void)state;
    weir__sampler sampler = {0};
    int64_t now = 1;
    samples(&sampler, 100000, 200, &now);                   /* finds its period */
    unsigned taken = samples(&sampler, 1000000, 200, &now); /* in 0.2 s */
    assert_in_range(taken, 4500, 11000);
}

static void the_most_frequent_ones_are_never_forgotten(void **state)
{
    (void)state;
    weir__sampler sampler = {0};
    int64_t now = 1;
    samples(&sampler, 100000, 1, &now);
    assert_in_range(samples(&sampler, 1024 * 1000, 1, &now), 900, 1100);
}

static void after_a_burst_the_next_ones_are_timed_again(void **state)
{
    (void)state;
    weir__sampler sampler = {0};
    int64_t now = 1;
    samples(&sampler, 1000000, 10, &now);
    assert_true(weir__sampler_weight(&sampler) >= 512);
    weir__sampler_next(&sampler, now + WEIR_SECOND);
    assert_true(weir__sampler_weight(&sampler) <= 8);
    samples(&sampler, 1000000, 10, &now);
    weir__sampler_restart(&sampler);
    assert_int_equal(weir__sampler_weight(&sampler), 1);
    assert_int_equal(weir__sampler_next(&sampler, now), 1);
}

/* Bursts of a hundred, and in each the i-th waits i: what is timed says how many wait how long, also where
 * a pause that goes before the burst has every one of its first items timed. */
static void bursts_are_measured_without_bias(void **state)
{
    (void)state;
    static const int64_t pause[] = {0, 10 * WEIR_MICROSECOND, WEIR_MILLISECOND,
                                    100 * WEIR_MILLISECOND};
    for (size_t p = 0; p < sizeof pause / sizeof *pause; p++)
        for (int64_t apart = 10; apart <= 10000; apart *= 10) {
            weir__sampler sampler = {0};
            double all = 0, waited = 0, low = 0;
            int64_t now = 1;
            uint64_t next = 0;
            for (uint64_t i = 0; i < 2000000; i++) {
                now += i % 100 == 0 ? apart + pause[p] : apart;
                if (i != next)
                    continue;
                double weight = weir__sampler_weight(&sampler);
                all += weight;
                waited += weight * (double)(i % 100);
                low += i % 100 < 25 ? weight : 0;
                next = i + weir__sampler_next(&sampler, now);
            }
            assert_in_range(all, 1800000, 2200000);
            assert_in_range(1000 * waited / all, 47000, 52000); /* 49.5 */
            assert_in_range(1000 * low / all, 225, 275);
        }
}

static void a_time_keeps_its_weight(void **state)
{
    (void)state;
    weir__sampler sampler = {0};
    const int64_t now = WEIR_SECOND * 86400 * 365;
    for (sampler.period = 1; sampler.period <= WEIR__SAMPLE_ONE_OF; sampler.period *= 2) {
        assert_true(weir__time_of(weir__timed(&sampler, now)) == now);
        assert_int_equal(weir__weight_of(weir__timed(&sampler, now)), sampler.period);
    }
    assert_int_equal(weir__weight_of(now), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rare_items_are_all_timed),
        cmocka_unit_test(frequent_items_are_timed_at_intervals),
        cmocka_unit_test(the_most_frequent_ones_are_never_forgotten),
        cmocka_unit_test(after_a_burst_the_next_ones_are_timed_again),
        cmocka_unit_test(bursts_are_measured_without_bias),
        cmocka_unit_test(a_time_keeps_its_weight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
