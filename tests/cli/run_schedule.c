/* cli/run/schedule.h: with times as arguments. */
#include "parts.h"

#include "run/schedule.h"

#include <errno.h>
#include <signal.h>

#define S WEIR_SECOND

static run_schedule schedule;

static run_schedule *fresh(uint64_t jobs, uint64_t retries)
{
    memset(&schedule, 0, sizeof schedule);
    schedule.jobs = jobs;
    schedule.opts.retries = retries;
    schedule.opts.ok.status[0] = 1;
    schedule.opts.retry.kinds = ~0u;
    schedule.opts.backoff = (weir_backoff)WEIR_BACKOFF_INIT;
    schedule.opts.backoff.base_ns = S;
    schedule.opts.backoff.max_ns = 8 * S;
    schedule.opts.backoff.jitter = WEIR_JITTER_NONE;
    schedule.opts.kill_after_ns = 10 * S;
    return &schedule;
}

static run_verdict ends(run_schedule *s, run_outcome outcome, uint64_t attempt, int64_t *ret_delay)
{
    run_schedule_started(s, S);
    return run_schedule_ended(s, outcome, attempt, true, 0, ret_delay);
}

static const run_outcome fine = {RUN_EXITED, 0}, one = {RUN_EXITED, 1};

static void no_more_than_so_many_run(void **state)
{
    (void)state;
    weir_time at;
    run_schedule *s = fresh(2, 0);
    assert_true(run_schedule_may_start(s, S, &at));
    run_schedule_started(s, S);
    assert_true(run_schedule_may_start(s, S, &at));
    run_schedule_started(s, S);
    assert_false(run_schedule_may_start(s, S, &at));
    assert_true(at == WEIR_FOREVER);
    s->jobs = 3;
    assert_true(run_schedule_may_start(s, S, &at));
}

static void starts_are_a_delay_apart(void **state)
{
    (void)state;
    weir_time at;
    run_schedule *s = fresh(9, 0);
    s->opts.delay_ns = 3 * S;
    assert_true(run_schedule_may_start(s, S, &at));
    run_schedule_started(s, S);
    assert_false(run_schedule_may_start(s, 2 * S, &at));
    assert_int_equal(at, 4 * S);
    assert_true(run_schedule_may_start(s, 4 * S, &at));
}

static void a_failure_is_tried_again_later_and_later(void **state)
{
    (void)state;
    int64_t delay = 0;
    run_schedule *s = fresh(1, 3);
    for (uint64_t n = 1; n <= 3; n++) {
        assert_int_equal(ends(s, one, n, &delay), RUN_AGAIN);
        assert_int_equal(delay, S << (n - 1));
    }
    assert_int_equal(ends(s, one, 4, &delay), RUN_FAILED);
    assert_int_equal(s->failed, 1);
    assert_int_equal(s->retried, 3);
    assert_int_equal(s->running, 0);
}

static void only_what_may_pass_is_tried_again(void **state)
{
    (void)state;
    int64_t delay;
    run_schedule *s = fresh(1, 3);
    assert_true(run_set_parse("75,timeout", &s->opts.retry));
    assert_int_equal(ends(s, one, 1, &delay), RUN_FAILED);
    assert_int_equal(ends(s, (run_outcome){RUN_EXITED, 75}, 1, &delay), RUN_AGAIN);
    assert_int_equal(ends(s, (run_outcome){RUN_TIMED_OUT, 0}, 1, &delay), RUN_AGAIN);
    assert_int_equal(ends(s, (run_outcome){RUN_KILLED, SIGKILL}, 1, &delay), RUN_FAILED);
    s->opts.retry.kinds = ~0u;
    assert_int_equal(ends(s, (run_outcome){RUN_NOT_STARTED, ENOENT}, 1, &delay), RUN_FAILED);
}

static void what_is_said_to_be_fine_is_done(void **state)
{
    (void)state;
    int64_t delay;
    run_schedule *s = fresh(1, 3);
    assert_true(run_set_parse("0,3-5,TERM", &s->opts.ok));
    assert_int_equal(ends(s, (run_outcome){RUN_EXITED, 4}, 1, &delay), RUN_DONE);
    assert_int_equal(ends(s, (run_outcome){RUN_KILLED, SIGTERM}, 1, &delay), RUN_DONE);
    assert_int_equal(ends(s, (run_outcome){RUN_EXITED, 6}, 4, &delay), RUN_FAILED);
}

static void those_that_wait_come_in_the_order_of_their_times(void **state)
{
    (void)state;
    weir_time at, last = 0;
    run_schedule *s = fresh(1, 1);
    static int tasks[RUN_WAITING_MAX];
    for (uint64_t i = 0; i < RUN_WAITING_MAX; i++) {
        assert_true(run_schedule_may_read(s));
        run_schedule_push(s, &tasks[i], (weir_time)(i * 7919 % 1009 + 1));
    }
    assert_false(run_schedule_may_read(s));
    assert_null(run_schedule_pop(s, 0, &at));
    for (size_t i = 0; i < RUN_WAITING_MAX; i++) {
        int *task = run_schedule_pop(s, WEIR_FOREVER, &at);
        assert_non_null(task);
        assert_true(at >= last);
        assert_int_equal(*task, 0);
        *task = 1;
        last = at;
    }
    assert_null(run_schedule_pop(s, WEIR_FOREVER, &at));
    assert_true(at == WEIR_FOREVER);
}

static void a_number_of_failures_halts(void **state)
{
    (void)state;
    int64_t delay;
    weir_time at;
    run_schedule *s = fresh(5, 0);
    s->opts.halt = RUN_HALT_NOW;
    s->opts.halt_fails = 2;
    ends(s, one, 1, &delay);
    assert_int_equal(s->halted, RUN_HALT_NEVER);
    ends(s, one, 1, &delay);
    assert_int_equal(s->halted, RUN_HALT_NOW);
    assert_false(run_schedule_may_start(s, S, &at));
    assert_false(run_schedule_may_read(s));
}

static void a_share_of_failures_halts_when_enough_have_ended(void **state)
{
    (void)state;
    int64_t delay;
    run_schedule *s = fresh(5, 0);
    s->opts.halt = RUN_HALT_SOON;
    s->opts.halt_share = 0.2;
    for (int i = 0; i < 8; i++)
        ends(s, i == 0 ? one : fine, 1, &delay);
    assert_int_equal(s->halted, RUN_HALT_NEVER);
    ends(s, one, 1, &delay);
    assert_int_equal(s->halted, RUN_HALT_NEVER); /* 2 of 9: too few to say */
    ends(s, fine, 1, &delay);
    ends(s, one, 1, &delay);
    assert_int_equal(s->halted, RUN_HALT_SOON);
}

static void a_number_of_successes_is_enough(void **state)
{
    (void)state;
    int64_t delay;
    run_schedule *s = fresh(5, 0);
    s->opts.halt = RUN_HALT_SOON;
    s->opts.halt_done = 2;
    ends(s, fine, 1, &delay);
    ends(s, one, 1, &delay);
    assert_int_equal(s->halted, RUN_HALT_NEVER);
    ends(s, fine, 1, &delay);
    assert_true(s->halted == RUN_HALT_SOON && s->has_enough);
}

/* The next run has it then: it has not failed. */
static void what_would_be_tried_again_is_left_by_a_halt(void **state)
{
    (void)state;
    int64_t delay;
    run_schedule *s = fresh(5, 2);
    s->halted = RUN_HALT_SOON;
    assert_int_equal(ends(s, one, 1, &delay), RUN_LEFT);
    assert_int_equal(ends(s, one, 3, &delay), RUN_FAILED);
    assert_int_equal(ends(s, fine, 1, &delay), RUN_DONE);
    assert_true(s->failed == 1 && s->done == 1 && s->retried == 0);
}

static void what_waits_is_put_off_by_time_that_does_not_count(void **state)
{
    (void)state;
    weir_time at;
    int task;
    run_schedule *s = fresh(5, 0);
    run_schedule_push(s, &task, 5 * S);
    run_schedule_put_off(s, 60 * S);
    assert_null(run_schedule_pop(s, 64 * S, &at));
    assert_int_equal(at, 65 * S);
    assert_ptr_equal(run_schedule_pop(s, 65 * S, &at), &task);
}

static void a_job_is_asked_to_end_and_then_killed(void **state)
{
    (void)state;
    weir_time at;
    run_schedule *s = fresh(1, 0);
    assert_int_equal(run_schedule_signal(s, S, 0, 0, 100 * S, &at), 0);
    s->opts.timeout_ns = 5 * S;
    assert_int_equal(run_schedule_signal(s, S, 0, 0, 5 * S, &at), 0);
    assert_int_equal(at, 6 * S);
    assert_int_equal(run_schedule_signal(s, S, 0, 0, 6 * S, &at), SIGTERM);
    assert_int_equal(run_schedule_signal(s, S, SIGTERM, 6 * S, 15 * S, &at), 0);
    assert_int_equal(at, 16 * S);
    assert_int_equal(run_schedule_signal(s, S, SIGTERM, 6 * S, 16 * S, &at), SIGKILL);
    assert_int_equal(run_schedule_signal(s, S, SIGKILL, 16 * S, 99 * S, &at), 0);
}

static void a_crowd_that_was_too_large_gets_smaller(void **state)
{
    (void)state;
    run_schedule *s = fresh(4, 0);
    for (int i = 0; i < 4; i++)
        run_schedule_started(s, S);
    run_schedule_crowded(s);
    assert_int_equal(s->jobs, 3);
    assert_int_equal(s->running, 3);
    run_schedule_crowded(s);
    run_schedule_crowded(s);
    run_schedule_crowded(s);
    assert_int_equal(s->jobs, 1);
    assert_int_equal(s->failed, 0);
}

static void sets_say_what_they_do_not_understand(void **state)
{
    (void)state;
    run_set set;
    static const char *const wrong[] = {"",   "256", "3-1",  "1,",      "FOO",
                                        "1-", "-1",  "1,,2", "timeouts"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(run_set_parse(wrong[i], &set));
    assert_true(run_set_parse("SIGKILL,255,signal,oom", &set));
    assert_true(run_set_has(&set, (run_outcome){RUN_EXITED, 255}));
    assert_true(run_set_has(&set, (run_outcome){RUN_KILLED, SIGSEGV}));
    assert_false(run_set_has(&set, (run_outcome){RUN_EXITED, 254}));
}

static void outcomes_are_told_by_name(void **state)
{
    (void)state;
    char to[128];
    assert_string_equal(run_outcome_text(one, to, sizeof to), "exit 1");
    assert_string_equal(run_outcome_text((run_outcome){RUN_KILLED, SIGSEGV}, to, sizeof to),
                        "killed by SIGSEGV");
    assert_string_equal(run_outcome_text((run_outcome){RUN_KILLED, 40}, to, sizeof to),
                        "killed by signal 40");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_more_than_so_many_run),
        cmocka_unit_test(starts_are_a_delay_apart),
        cmocka_unit_test(a_failure_is_tried_again_later_and_later),
        cmocka_unit_test(only_what_may_pass_is_tried_again),
        cmocka_unit_test(what_is_said_to_be_fine_is_done),
        cmocka_unit_test(those_that_wait_come_in_the_order_of_their_times),
        cmocka_unit_test(a_number_of_failures_halts),
        cmocka_unit_test(a_share_of_failures_halts_when_enough_have_ended),
        cmocka_unit_test(a_number_of_successes_is_enough),
        cmocka_unit_test(what_would_be_tried_again_is_left_by_a_halt),
        cmocka_unit_test(what_waits_is_put_off_by_time_that_does_not_count),
        cmocka_unit_test(a_job_is_asked_to_end_and_then_killed),
        cmocka_unit_test(a_crowd_that_was_too_large_gets_smaller),
        cmocka_unit_test(sets_say_what_they_do_not_understand),
        cmocka_unit_test(outcomes_are_told_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
