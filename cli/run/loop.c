/* loop.c - start what may be started, wait, look at what has ended, print what can be printed. */
#include "state.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>

/* ---- printing ------------------------------------------------------------------------------- */

static void print(run *r)
{
    if (!run_output_print(r->output)) {
        int why = errno;
        if (why == EPIPE && !r->is_broken) { /* who read it has enough: no reason to complain */
            r->is_broken = true;
            r->stopped_by = SIGPIPE;
        }
        run_give_up(r, "%s", run_output_error(r->output));
        if (!r->is_orphaned) /* then the jobs may end all the same */
            r->schedule.halted = RUN_HALT_NOW;
    }
    if (r->is_stalled && run_output_has_room(r->output))
        r->wake = r->now;
    if (run_output_is_busy(r->output))
        run_sooner(&r->wake, r->now);
    if (run_output_wants(r->output) >= 0)
        run_await(r, run_output_wants(r->output), EPOLLOUT, EVENT_OUT);
    if (run_output_fd(r->output) >= 0)
        run_await(r, run_output_fd(r->output), EPOLLIN, EVENT_LINES);
    if (r->is_broken || run_output_is_between(r->output))
        run_report_flush(&r->report);
}

/* ---- the loop ------------------------------------------------------------------------------- */

static bool is_over(const run *r)
{
    uint64_t bytes;
    const run_schedule *s = &r->schedule;
    bool more = !s->halted && (r->next || s->waiting > 0 || !r->input_ended);
    bool prints = !r->is_broken && run_output_held(r->output, &bytes) > 0;
    return s->running == 0 && !more && !prints;
}

/* Those that come to no attempt any more; what others have printed need not wait for them. */
static void abandon(run *r)
{
    weir_time at;
    if (!r->schedule.halted || r->schedule.running > 0)
        return;
    if (r->next) {
        if (r->memory)
            run_memory_release(r->memory, r->next->reserved);
        run_write_left(r, r->next);
        run_task_finish(r, r->next);
    }
    r->next = NULL;
    for (run_task *t; (t = run_schedule_pop(&r->schedule, WEIR_FOREVER, &at));)
        run_task_finish(r, t);
}

static int milliseconds(const run *r)
{
    weir_time until = r->wake;
    run_sooner(&until, r->check);
    run_sooner(&until, r->jobs_file.look);
    if (r->memory && r->slots)
        run_sooner(&until, r->memory_check);
    run_sooner(&until, r->report.next_progress);
    if (until == WEIR_FOREVER)
        return -1;
    int64_t ms = (until - r->now + WEIR_MILLISECOND - 1) / WEIR_MILLISECOND;
    return ms < 0 ? 0 : ms > INT_MAX ? INT_MAX : (int)ms;
}

static void wait_for_something(run *r)
{
    struct epoll_event ready[4];
    int n = epoll_wait(r->events, ready, 4, milliseconds(r));
    r->now = weir_now();
    for (int i = 0; i < n; i++) {
        if (ready[i].data.u32 == EVENT_JOBS)
            run_take_news(r);
        else if (ready[i].data.u32 == EVENT_SIGNALS)
            run_take_signals(r);
    }
}

static void write_all(run *r)
{
    weir_time at;
    if (r->ledger && !r->is_broken && run_written(r, run_ledger_rest(r->ledger, r->now, &at)))
        run_sooner(&r->wake, at);
}

void run_loop(run *r)
{
    run_take_signals(r); /* what came before we were ready */
    for (;;) {
        run_jobs_look(r);
        run_start_all(r);
        run_check_all(r);
        run_balance(r);
        abandon(r);
        print(r);
        run_teller_tell(r->teller, &r->schedule);
        write_all(r);
        if (is_over(r))
            return;
        run_report_progress(&r->report, r->now);
        wait_for_something(r);
    }
}
