/* cli/run/values.c: times, rates, numbers of jobs as people write them. */
#include "parts.h"

#include "run/settings.h"

static void times_have_units_and_are_seconds_without(void **state)
{
    (void)state;
    int64_t ns = 0;
    static const struct {
        const char *text;
        double s;
    } right[] = {{"2", 2}, {"1.5", 1.5}, {"300ms", 0.3}, {"1h30m", 5400}, {"2d", 172800}, {"0", 0}};
    static const char *const wrong[] = {"", "s", "1x", "-1", "1 s", "1m30", "1e400s", "inf"};
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        assert_true(run_parse_time(right[i].text, &ns));
        assert_int_equal(ns, (int64_t)(right[i].s * 1e9));
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(run_parse_time(wrong[i], &ns));
}

static void a_rate_is_so_many_in_a_time(void **state)
{
    (void)state;
    uint64_t tokens;
    int64_t per;
    assert_true(run_parse_rate("10/s", &tokens, &per));
    assert_true(tokens == 10 && per == WEIR_SECOND);
    assert_true(run_parse_rate("5", &tokens, &per));
    assert_true(tokens == 5 && per == WEIR_SECOND);
    assert_true(run_parse_rate("5/10s", &tokens, &per));
    assert_true(tokens == 5 && per == 10 * WEIR_SECOND);
    static const char *const wrong[] = {"", "0", "/s", "1/", "1/x", "-1/s", "1/0s", "1.5/s"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(run_parse_rate(wrong[i], &tokens, &per));
}

static void jobs_are_a_number_or_follow_the_processors(void **state)
{
    (void)state;
    uint64_t jobs, cpus;
    bool is_auto;
    assert_true(run_parse_jobs("100%", &cpus, &is_auto));
    assert_true(run_parse_jobs("+2", &jobs, &is_auto));
    assert_int_equal(jobs, cpus + 2);
    assert_true(run_parse_jobs("-1000", &jobs, &is_auto));
    assert_int_equal(jobs, 1);
    assert_true(run_parse_jobs("1%", &jobs, &is_auto));
    assert_int_equal(jobs, 1);
    assert_true(run_parse_jobs("7", &jobs, &is_auto));
    assert_int_equal(jobs, 7);
    assert_false(is_auto);
    assert_true(run_parse_jobs("auto", &jobs, &is_auto));
    assert_true(is_auto);
    static const char *const wrong[] = {"", "0", "x", "1.5", "4097", "2x", "%", "autos"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(run_parse_jobs(wrong[i], &jobs, &is_auto));
}

static void a_file_says_jobs_with_its_first_word(void **state)
{
    (void)state;
    uint64_t jobs;
    bool is_auto;
    assert_true(run_parse_jobs_file(" 7 of eight\n9\n", &jobs, &is_auto));
    assert_true(jobs == 7 && !is_auto);
    assert_true(run_parse_jobs_file("auto", &jobs, &is_auto));
    assert_true(is_auto);
    assert_true(run_parse_jobs_file("0\n", &jobs, &is_auto));
    assert_true(jobs == 0 && !is_auto);
    static const char *const wrong[] = {"",    "\n",   "x",
                                        "00x", "5000", "12345678901234567890123456789012345"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(run_parse_jobs_file(wrong[i], &jobs, &is_auto));
}

static void a_backoff_begins_and_ends(void **state)
{
    (void)state;
    weir_backoff backoff = WEIR_BACKOFF_INIT;
    assert_true(run_parse_backoff("1s..5m", &backoff));
    assert_true(backoff.base_ns == WEIR_SECOND && backoff.max_ns == 300 * WEIR_SECOND);
    assert_true(run_parse_backoff("2", &backoff));
    assert_true(backoff.base_ns == 2 * WEIR_SECOND && backoff.max_ns == 2 * WEIR_SECOND);
    assert_false(run_parse_backoff("5m..1s", &backoff));
    assert_false(run_parse_backoff("1s..", &backoff));
}

static void a_halt_says_when_and_after_how_many(void **state)
{
    (void)state;
    run_schedule_opts opts = {0};
    assert_true(run_parse_halt("now,fail=3", &opts));
    assert_true(opts.halt == RUN_HALT_NOW && opts.halt_fails == 3 && opts.halt_share == 0);
    assert_true(run_parse_halt("soon,fail=10%", &opts));
    assert_true(opts.halt == RUN_HALT_SOON && opts.halt_share == 0.1 && opts.halt_fails == 0);
    assert_true(run_parse_halt("now,success=2", &opts));
    assert_true(opts.halt == RUN_HALT_NOW && opts.halt_done == 2 && opts.halt_fails == 0);
    assert_true(run_parse_halt("never", &opts));
    assert_true(opts.halt == RUN_HALT_NEVER);
    static const char *const wrong[] = {"",
                                        "now",
                                        "now,fail=",
                                        "now,fail=0",
                                        "soon,fail=101%",
                                        "now,fail=1.5",
                                        "later,fail=1",
                                        "now,success=5%"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(run_parse_halt(wrong[i], &opts));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_have_units_and_are_seconds_without),
        cmocka_unit_test(a_rate_is_so_many_in_a_time),
        cmocka_unit_test(jobs_are_a_number_or_follow_the_processors),
        cmocka_unit_test(a_file_says_jobs_with_its_first_word),
        cmocka_unit_test(a_backoff_begins_and_ends),
        cmocka_unit_test(a_halt_says_when_and_after_how_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
