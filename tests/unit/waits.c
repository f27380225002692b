/* model/waits.h: lines that are known, and looks at them. */
#include "contract/support.h"

#include "model/waits.h"
#include "unit/chance.h"

#define S WEIR_SECOND

static void about(double is, double should_be, double within)
{
    if (is < should_be - within || is > should_be + within)
        fail_msg("%g is not %g, within %g", is, should_be, within);
}

static double look(weir__waits *waits, int64_t at, uint64_t waiting, int64_t since,
                   uint64_t blocked)
{
    weir__line now = {.at_ns = at, .waiting = waiting, .since_ns = since, .blocked_ns = blocked};
    return weir__waits_look(waits, &now);
}

static weir__waits begin(int64_t at, uint64_t waiting, int64_t since, uint64_t blocked)
{
    weir__waits waits;
    weir__line now = {.at_ns = at, .waiting = waiting, .since_ns = since, .blocked_ns = blocked};
    weir__waits_begin(&waits, &now);
    return waits;
}

static void who_waits_all_the_time_counts_as_one(void **state)
{
    (void)state;
    weir__waits waits = begin(3600 * S, 1, 1, 0);
    about(look(&waits, 3601 * S, 1, 1, 0), 1, 1e-9);
    about(look(&waits, 3602 * S, 1, 1, 0), 1, 1e-9);
    assert_int_equal(waits.total_ns, 3602 * S - 1);
}

static void an_hour_that_ends_is_not_one_second_s(void **state)
{
    (void)state;
    weir__waits waits = begin(3600 * S, 1, 1, 0);
    uint64_t blocked = 3600 * S + S / 2 - 1;
    about(look(&waits, 3601 * S, 0, (int64_t)blocked + 1, blocked), 0.5, 1e-9);
    about(look(&waits, 3602 * S, 0, (int64_t)blocked + 1, blocked), 0, 1e-9);
    assert_int_equal(waits.total_ns, blocked);
}

static void a_hundred_who_came_at_once_are_never_more(void **state)
{
    (void)state;
    weir__waits waits = begin(10 * S + S / 2, 100, 10 * S, 0);
    assert_int_equal(waits.total_ns, 50 * S);
    about(look(&waits, 11 * S + S / 2, 0, 11 * S, 100 * S), 50, 1e-9);
    about(look(&waits, 12 * S + S / 2, 100, 11 * S + S / 2, 100 * S), 100, 1e-9);
}

static void short_waits_are_as_long_as_they_are_told(void **state)
{
    (void)state;
    weir__waits waits = begin(S, 0, 0, 0);
    about(look(&waits, 2 * S, 0, 0, S / 4), 0.25, 1e-9);
    about(look(&waits, 3 * S, 0, 0, S), 0.75, 1e-9);
    about(look(&waits, 4 * S, 0, 0, S), 0, 1e-9);
}

static void a_wait_that_began_meanwhile_counts_from_then(void **state)
{
    (void)state;
    weir__waits waits = begin(10 * S, 0, 0, 0);
    about(look(&waits, 11 * S, 1, 10 * S + 3 * S / 4, 0), 0.25, 1e-9);
    about(look(&waits, 12 * S, 1, 10 * S + 3 * S / 4, 0), 1, 1e-9);
    about(look(&waits, 13 * S, 0, 12 * S + S / 4, S + S / 2), 0.25, 1e-9);
}

static void where_since_when_is_not_told_those_count_who_wait_at_the_looks(void **state)
{
    (void)state;
    weir__waits waits = begin(3600 * S, 3, 0, 0);
    about(look(&waits, 3601 * S, 3, 0, 0), 3, 1e-9);
    about(look(&waits, 3602 * S, 0, 0, 3 * 3600 * S), 1.5, 1e-9);
    about(look(&waits, 3603 * S, 0, 0, 3 * 3600 * S + S), 1, 1e-9);
    about(look(&waits, 3604 * S, 2, 0, 3 * 3600 * S + 2 * S), 1.5, 1e-9);
}

static void one_who_waits_again_and_again_is_never_more_than_one(void **state)
{
    (void)state;
    weir__waits waits = begin(10 * S, 0, 0, 0);
    about(look(&waits, 11 * S, 1, 0, S), 1, 1e-9);
    waits = begin(10 * S, 0, 0, 0);
    about(look(&waits, 11 * S, 1, 0, S / 2), 0.75, 1e-9);
}

static void the_sum_never_goes_back(void **state)
{
    (void)state;
    weir__random random = {5};
    weir__waits waits = begin(S, 0, 0, 0);
    uint64_t last = 0;
    for (int i = 0; i < 100000; i++) {
        double blocked = look(&waits, (int64_t)weir__random_next(&random) >> below(&random, 60),
                              weir__random_next(&random) >> below(&random, 64),
                              (int64_t)weir__random_next(&random) >> below(&random, 60),
                              weir__random_next(&random) >> below(&random, 64));
        assert_true(waits.total_ns >= last);
        assert_true(blocked >= 0 && blocked < 1e40); /* and a number */
        last = waits.total_ns;
    }
}

/* ---- a line whose truth is known ------------------------------------------------------------- */

/* Callers come and are served at random; times are integers, so that sums are exact. */
typedef struct truth {
    int64_t now, changed;
    uint64_t n, blocked_ns; /* up to `changed` */
} truth;

static void change(truth *t, uint64_t to)
{
    t->blocked_ns += t->n * (uint64_t)(t->now - t->changed);
    t->changed = t->now;
    t->n = to;
}

static void lines_of_all_lengths_are_measured_exactly(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 100; seed++) {
        weir__random random = {seed};
        uint64_t most = 1 + below(&random, 64), coming = 10 + below(&random, 80);
        truth t = {.now = S, .changed = S};
        weir__waits waits = begin(t.now, t.n, t.changed, t.blocked_ns);
        double sum = 0;
        for (int i = 1; i <= 100; i++) {
            int64_t before = t.now;
            for (uint64_t j = below(&random, 50); j > 0; j--) {
                t.now += 1 + (int64_t)below(&random, 2 * WEIR_MILLISECOND);
                bool comes = below(&random, 100) < coming;
                if (comes ? t.n < most : t.n > 0)
                    change(&t, comes ? t.n + 1 : t.n - 1);
            }
            t.now += 1;
            sum += look(&waits, t.now, t.n, t.changed, t.blocked_ns) * (double)(t.now - before);
        }
        change(&t, 0);
        about(sum, (double)t.blocked_ns, 1e-6 * (double)t.blocked_ns);
        assert_int_equal(waits.total_ns, t.blocked_ns);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_waits_all_the_time_counts_as_one),
        cmocka_unit_test(an_hour_that_ends_is_not_one_second_s),
        cmocka_unit_test(a_hundred_who_came_at_once_are_never_more),
        cmocka_unit_test(short_waits_are_as_long_as_they_are_told),
        cmocka_unit_test(a_wait_that_began_meanwhile_counts_from_then),
        cmocka_unit_test(where_since_when_is_not_told_those_count_who_wait_at_the_looks),
        cmocka_unit_test(one_who_waits_again_and_again_is_never_more_than_one),
        cmocka_unit_test(the_sum_never_goes_back),
        cmocka_unit_test(lines_of_all_lengths_are_measured_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
