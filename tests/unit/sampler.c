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
    samples(&sampler, 10000, 200, &now);                    /* finds its period */
    unsigned taken = samples(&sampler, 1000000, 200, &now); /* in 0.2 s */
    assert_in_range(taken, 1500, 4500);
}

static void the_most_frequent_ones_are_never_forgotten(void **state)
{
    (void)state;
    weir__sampler sampler = {0};
    int64_t now = 1;
    samples(&sampler, 10000, 1, &now);
    assert_int_equal(samples(&sampler, 1024 * 100, 1, &now), 100);
}

static void after_a_burst_the_next_ones_are_timed_again(void **state)
{
    (void)state;
    weir__sampler sampler = {0};
    int64_t now = 1;
    samples(&sampler, 100000, 10, &now);
    assert_int_equal(weir__sampler_next(&sampler, now + WEIR_SECOND), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rare_items_are_all_timed),
        cmocka_unit_test(frequent_items_are_timed_at_intervals),
        cmocka_unit_test(the_most_frequent_ones_are_never_forgotten),
        cmocka_unit_test(after_a_burst_the_next_ones_are_timed_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
