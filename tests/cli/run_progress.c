/* cli/run/progress.h: with times as arguments. */
#include "parts.h"

#include "run/progress.h"

#define S WEIR_SECOND

static run_progress progress;
static run_numbers numbers;

static void fresh(double total)
{
    numbers = (run_numbers){.jobs = 4, .running = 4, .total = total};
    run_progress_begin(&progress, S, &numbers);
}

/* Some end each second, from the one after `now` on. */
static weir_time go_on(weir_time now, int seconds, uint64_t each)
{
    for (int i = 0; i < seconds; i++) {
        now += S;
        numbers.done += each;
        run_progress_look(&progress, now, &numbers);
    }
    return now;
}

static const char *line(weir_time now, size_t columns)
{
    static char text[512];
    run_progress_print(&progress, now, &numbers, columns, text, sizeof text);
    return text;
}

static void nothing_is_told_of_what_is_not_known_yet(void **state)
{
    (void)state;
    fresh(100);
    assert_string_equal(line(S, 80), "0 done  4/4 run  0%");
    numbers.done = 5;
    run_progress_look(&progress, 2 * S, &numbers); /* five, but in a second */
    assert_string_equal(line(2 * S, 80), "5 done  4/4 run  5%");
    fresh(100);
    numbers.done = 2;
    run_progress_look(&progress, 60 * S, &numbers); /* a minute, but two */
    assert_string_equal(line(60 * S, 80), "2 done  4/4 run  2%");
    numbers.done = 3;
    run_progress_look(&progress, 61 * S, &numbers);
    assert_non_null(strstr(line(61 * S, 80), " left"));
}

static void the_rate_is_that_of_late(void **state)
{
    (void)state;
    fresh(0);
    weir_time now = go_on(S, 100, 10);
    assert_true(run_progress_rate(&progress, now, &numbers) == 10);
    now = go_on(now, 11, 100);
    assert_true(run_progress_rate(&progress, now, &numbers) == 100);
    now += 10 * S; /* in which nothing ends */
    assert_true(run_progress_rate(&progress, now, &numbers) < 60);
}

static void what_is_slow_is_measured_for_longer(void **state)
{
    (void)state;
    fresh(0);
    weir_time now = S;
    for (int i = 0; i < 30; i++)
        now = go_on(now + 99 * S, 1, 1);
    double rate = run_progress_rate(&progress, now, &numbers);
    assert_true(rate > 0.0099 && rate < 0.0101);
}

static void the_time_left_follows_from_the_rate(void **state)
{
    (void)state;
    fresh(1000);
    weir_time now = go_on(S, 50, 10);
    assert_string_equal(line(now, 80), "500 done  4/4 run  10/s  50%  50s left");
    now = go_on(now, 49, 10);
    assert_string_equal(line(now, 80), "990 done  4/4 run  10/s  99%  1s left");
}

static void the_time_left_does_not_jump(void **state)
{
    (void)state;
    fresh(100000);
    weir_time now = go_on(S, 30, 10);
    int64_t before = progress.ends_at - now;
    now += S / 2;
    numbers.done += 100; /* a burst */
    run_progress_look(&progress, now, &numbers);
    assert_true(progress.ends_at - now > before * 8 / 10);
    go_on(now, 30, 20);
    assert_true(progress.ends_at - now < before * 6 / 10);
}

static void more_than_there_should_be_has_no_end(void **state)
{
    (void)state;
    fresh(50);
    weir_time now = go_on(S, 10, 10);
    assert_string_equal(line(now, 80), "100 done  4/4 run  10/s");
}

static void what_was_skipped_is_no_work(void **state)
{
    (void)state;
    fresh(1000);
    numbers.skipped = 500;
    weir_time now = go_on(S, 25, 10);
    assert_string_equal(line(now, 80), "250 done  4/4 run  10/s  75%  25s left");
}

static void time_that_does_not_count_is_forgotten(void **state)
{
    (void)state;
    fresh(1000);
    weir_time now = go_on(S, 50, 10) + 3600 * S;
    run_progress_begin(&progress, now, &numbers);
    assert_string_equal(line(now, 80), "500 done  4/4 run  50%");
    now = go_on(now, 5, 10);
    assert_string_equal(line(now, 80), "550 done  4/4 run  10/s  55%  45s left");
}

static void a_narrow_terminal_gets_what_matters(void **state)
{
    (void)state;
    fresh(100000);
    numbers.failed = 12;
    numbers.retried = 7;
    numbers.memory = UINT64_C(3) << 30;
    numbers.most = UINT64_C(8) << 30;
    weir_time now = go_on(S, 100, 100);
    assert_string_equal(
        line(now, 120),
        "10k done  12 failed  7 retried  4/4 run  100/s  3.0 GiB of 8.0 GiB  10%  15m00s left");
    for (size_t columns = 1; columns < 120; columns++)
        assert_true(strlen(line(now, columns)) <= columns);
    assert_string_equal(line(now, 40), "10k done  12 failed  10%  15m00s left");
    assert_string_equal(line(now, 4), "10k ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_told_of_what_is_not_known_yet),
        cmocka_unit_test(the_rate_is_that_of_late),
        cmocka_unit_test(what_is_slow_is_measured_for_longer),
        cmocka_unit_test(the_time_left_follows_from_the_rate),
        cmocka_unit_test(the_time_left_does_not_jump),
        cmocka_unit_test(more_than_there_should_be_has_no_end),
        cmocka_unit_test(what_was_skipped_is_no_work),
        cmocka_unit_test(time_that_does_not_count_is_forgotten),
        cmocka_unit_test(a_narrow_terminal_gets_what_matters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
