/* model/throttle.h: the formula, by times and draws that are passed in. */
#include "contract/support.h"

#include <math.h>

#include "model/random.h"
#include "model/throttle.h"

static weir__throttle make(double k, double most)
{
    weir__throttle throttle;
    weir__throttle_init(&throttle, k, most, 3200, 0);
    return throttle;
}

static void nothing_is_kept_back_while_half_or_more_are_accepted(void **state)
{
    (void)state;
    weir__throttle throttle = make(2, 0.95);
    for (int i = 0; i < 1000; i++) {
        assert_true(weir__throttle_admit(&throttle, 1, 0));
        weir__throttle_report(&throttle, 1, i % 2 == 0);
    }
}

static void the_chance_is_that_of_the_formula(void **state)
{
    (void)state;
    weir__throttle throttle = make(2, 0.95);
    for (int i = 0; i < 100; i++)
        weir__throttle_report(&throttle, 1, i < 20);
    assert_true(fabs(weir__throttle_chance(&throttle, 1) - (100 - 2 * 20) / 101.0) < 1e-12);
    throttle.k = 1.1;
    assert_true(fabs(weir__throttle_chance(&throttle, 1) - (100 - 1.1 * 20) / 101.0) < 1e-12);
}

static void what_is_kept_back_counts_as_a_request(void **state)
{
    (void)state;
    weir__throttle throttle = make(2, 0.95);
    weir__throttle_report(&throttle, 1, false);
    assert_false(weir__throttle_admit(&throttle, 1, 0.49)); /* 1 / 2 */
    assert_false(weir__throttle_admit(&throttle, 1, 0.66)); /* 2 / 3 */
    assert_true(weir__throttle_admit(&throttle, 1, 0.76));  /* 3 / 4 */
    assert_int_equal(throttle.window.tally.calls, 3);
}

static void even_of_a_dead_backend_some_requests_go(void **state)
{
    (void)state;
    weir__throttle throttle = make(2, 0.9);
    for (int i = 0; i < 100000; i++)
        weir__throttle_report(&throttle, 1, false);
    assert_true(weir__throttle_chance(&throttle, 1) == 0.9);
    assert_true(weir__throttle_admit(&throttle, 1, 0.9));
}

static void after_the_window_all_is_forgotten(void **state)
{
    (void)state;
    weir__throttle throttle = make(2, 0.95);
    for (int i = 0; i < 100; i++)
        weir__throttle_report(&throttle, 1, false);
    assert_true(weir__throttle_chance(&throttle, 3000) > 0.9);
    assert_true(weir__throttle_chance(&throttle, 3300) == 0);
}

/* 1000 requests in a window, a backend that accepts 100 of them: with K = 2 it sees about 200. */
static void a_backend_that_accepts_a_tenth_gets_k_times_that(void **state)
{
    (void)state;
    for (double k = 1.5; k < 3.1; k += 0.5) {
        weir__throttle throttle = make(k, 0.99);
        weir__random random = {3};
        double accepts = 0;
        int sent = 0, late = 0;
        for (int i = 0; i < 50000; i++) {
            int64_t now = i * 3200 / 1000;
            accepts += 0.1;
            if (!weir__throttle_admit(&throttle, now,
                                      weir__random_unit(weir__random_next(&random))))
                continue;
            bool accepted = accepts >= 1;
            accepts = accepted ? accepts - 1 : accepts;
            weir__throttle_report(&throttle, now, accepted);
            late += i >= 25000;
            sent++;
        }
        assert_true(fabs(late / 25000.0 - 0.1 * k) < 0.03);
        assert_true(sent > late);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_kept_back_while_half_or_more_are_accepted),
        cmocka_unit_test(the_chance_is_that_of_the_formula),
        cmocka_unit_test(what_is_kept_back_counts_as_a_request),
        cmocka_unit_test(even_of_a_dead_backend_some_requests_go),
        cmocka_unit_test(after_the_window_all_is_forgotten),
        cmocka_unit_test(a_backend_that_accepts_a_tenth_gets_k_times_that),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
