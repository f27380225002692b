/* model/waits.h: lines that are known, and looks at them. */
#include "contract/support.h"

#include <string.h>

#include "model/waits.h"
#include "unit/chance.h"

#define S WEIR_SECOND

static weir__line line(int64_t at, uint64_t waiting, int64_t since, uint64_t ended, uint64_t waits)
{
    return (weir__line){
        .at_ns = at, .waiting = waiting, .since_ns = since, .ended_ns = ended, .waits = waits};
}

static void about(double is, double should_be, double within)
{
    if (is < should_be - within || is > should_be + within)
        fail_msg("%g is not %g, within %g", is, should_be, within);
}

static double look(weir__waits *waits, int64_t at, uint64_t waiting, int64_t since, uint64_t ended,
                   uint64_t n)
{
    weir__line now = line(at, waiting, since, ended, n);
    return weir__waits_look(waits, &now);
}

static weir__waits begin(int64_t at, uint64_t waiting, int64_t since, uint64_t ended, uint64_t n)
{
    weir__waits waits;
    weir__line now = line(at, waiting, since, ended, n);
    weir__waits_begin(&waits, &now);
    return waits;
}

static void who_waits_all_the_time_counts_as_one(void **state)
{
    (void)state;
    weir__waits waits = begin(3600 * S, 1, 1, 0, 1);
    about(look(&waits, 3601 * S, 1, 1, 0, 1), 1, 1e-9);
    about(look(&waits, 3602 * S, 1, 1, 0, 1), 1, 1e-9);
    assert_int_equal(waits.total_ns, 3602 * S - 1);
}

static void an_hour_that_ends_is_not_one_second_s(void **state)
{
    (void)state;
    weir__waits waits = begin(3600 * S, 1, 1, 0, 1);
    about(look(&waits, 3601 * S, 0, 0, 3600 * S + S / 2 - 1, 1), 0.5, 1e-9);
    about(look(&waits, 3602 * S, 0, 0, 3600 * S + S / 2 - 1, 1), 0, 1e-9);
    assert_int_equal(waits.total_ns, 3600 * S + S / 2 - 1);
}

static void what_was_not_told_to_go_on_is_bounded_by_those_who_waited(void **state)
{
    (void)state;
    weir__waits waits = begin(3600 * S, 3, 0, 0, 3); /* since when is not told */
    about(look(&waits, 3601 * S, 3, 0, 0, 3), 3, 1e-9);
    assert_true(look(&waits, 3602 * S, 0, 0, 3 * 3600 * S, 3) <= 3 + 1e-9);
}

static void short_waits_are_as_long_as_they_are_told(void **state)
{
    (void)state;
    weir__waits waits = begin(S, 0, 0, 0, 0);
    about(look(&waits, 2 * S, 0, 0, S / 4, 100), 0.25, 1e-9);
    about(look(&waits, 3 * S, 0, 0, S, 200), 0.75, 1e-9);
    about(look(&waits, 4 * S, 0, 0, S, 200), 0, 1e-9);
}

static void a_wait_that_began_meanwhile_counts_from_then(void **state)
{
    (void)state;
    weir__waits waits = begin(10 * S, 0, 0, 0, 0);
    about(look(&waits, 11 * S, 1, 10 * S + 3 * S / 4, 0, 1), 0.25, 1e-9);
    about(look(&waits, 12 * S, 1, 10 * S + 3 * S / 4, 0, 1), 1, 1e-9);
    about(look(&waits, 13 * S, 0, 0, S + S / 2, 1), 0.25, 1e-9);
}

static void a_hundred_who_wait_for_ever_are_a_hundred(void **state)
{
    (void)state;
    weir__waits waits = begin(50 * S, 100, S, 0, 100);
    for (int64_t i = 1; i < 10; i++)
        about(look(&waits, (50 + i) * S, 100, S, 0, 100), 100, 1e-6);
}

static void the_sum_never_goes_back(void **state)
{
    (void)state;
    weir__random random = {5};
    weir__waits waits = begin(S, 0, 0, 0, 0);
    uint64_t last = 0;
    for (int i = 0; i < 100000; i++) {
        double blocked =
            look(&waits, (int64_t)weir__random_next(&random) >> below(&random, 60),
                 weir__random_next(&random) >> below(&random, 64),
                 (int64_t)weir__random_next(&random) >> below(&random, 60),
                 weir__random_next(&random) >> below(&random, 64), below(&random, 100));
        assert_true(waits.total_ns >= last);
        assert_true(blocked >= 0 && blocked < 1e40); /* and a number */
        last = waits.total_ns;
    }
}

/* ---- a line whose truth is known ------------------------------------------------------------- */

#define MOST 64

/* Callers come and are served at random, first come first served. */
typedef struct truth {
    int64_t now, since[MOST];
    uint64_t n, ended_ns, waits;
    double integral; /* of how many wait, over time */
} truth;

static void pass(truth *t, int64_t ns)
{
    t->integral += (double)t->n * (double)ns;
    t->now += ns;
}

static void serve(truth *t)
{
    if (t->n == 0)
        return;
    t->ended_ns += (uint64_t)(t->now - t->since[0]);
    memmove(t->since, t->since + 1, --t->n * sizeof t->since[0]);
}

static void come(truth *t, uint64_t most)
{
    if (t->n >= most)
        return;
    t->since[t->n++] = t->now;
    t->waits++;
}

static weir__line seen(const truth *t, bool tells_since)
{
    return line(t->now, t->n, tells_since && t->n ? t->since[0] : 0, t->ended_ns, t->waits);
}

/* One event each ms or so, a look each 100 ms; how far off the sum is after a hundred of them. */
static double error_of(uint64_t most, uint64_t coming_of_100, bool tells_since, uint64_t seed)
{
    weir__random random = {seed};
    truth t = {.now = S};
    weir__waits waits;
    weir__line now = seen(&t, tells_since);
    weir__waits_begin(&waits, &now);
    double sum = 0;
    for (int i = 1; i <= 100; i++) {
        int64_t before = t.now;
        for (int j = 0; j < 100; j++) {
            pass(&t, (int64_t)below(&random, 2 * WEIR_MILLISECOND));
            if (below(&random, 100) < coming_of_100)
                come(&t, most);
            else
                serve(&t);
        }
        now = seen(&t, tells_since);
        sum += weir__waits_look(&waits, &now) * (double)(t.now - before);
    }
    return t.integral > 0 ? (sum - t.integral) / t.integral : sum;
}

static void lines_of_all_lengths_are_measured(void **state)
{
    (void)state;
    static const uint64_t most[] = {1, 2, 8, MOST}, coming[] = {10, 40, 60, 90};
    for (unsigned i = 0; i < 4; i++)
        for (unsigned j = 0; j < 4; j++)
            for (uint64_t seed = 1; seed < 10; seed++) {
                about(error_of(most[i], coming[j], true, seed), 0, most[i] == 1 ? 1e-6 : 0.05);
                about(error_of(most[i], coming[j], false, seed), 0, 0.15);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_waits_all_the_time_counts_as_one),
        cmocka_unit_test(an_hour_that_ends_is_not_one_second_s),
        cmocka_unit_test(what_was_not_told_to_go_on_is_bounded_by_those_who_waited),
        cmocka_unit_test(short_waits_are_as_long_as_they_are_told),
        cmocka_unit_test(a_wait_that_began_meanwhile_counts_from_then),
        cmocka_unit_test(a_hundred_who_wait_for_ever_are_a_hundred),
        cmocka_unit_test(the_sum_never_goes_back),
        cmocka_unit_test(lines_of_all_lengths_are_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
