/* control.c - what is done to jobs that run: those whose time is over, that take too much memory, or that somebody
 * who uses the keyboard wants ended.
 */
#include "state.h"

#include <inttypes.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "guard.h"
#include "signals.h"

/* ---- signals -------------------------------------------------------------------------------- */

static void send(run *r, run_task *t, int signal)
{
    t->sent = signal;
    t->sent_at = r->now;
    r->place->type->signal(r->place, t->job, signal);
    run_sooner(&r->check, r->now + r->schedule.opts.kill_after_ns);
}

static void end_all(run *r, int signal)
{
    for (unsigned slot = 1; slot <= r->slots; slot++) {
        run_task *t = r->slot[slot];
        if (!t || t->sent == signal || t->sent == SIGKILL)
            continue;
        t->is_ended = t->is_ended || (!t->timed_out && !t->hung);
        send(r, t, signal);
    }
}

static void check_task(run *r, run_task *t)
{
    weir_time at;
    weir_time hangs = t->stopped_at ? t->stopped_at + r->schedule.opts.kill_after_ns : WEIR_FOREVER;
    if (r->now >= hangs && t->sent != SIGKILL) {
        t->hung = !t->timed_out && !t->is_ended;
        send(r, t, SIGKILL);
        return;
    }
    run_sooner(&r->check, hangs);
    if (t->is_suspended && !t->sent) /* its time stands still, too */
        return;
    int due = run_schedule_signal(&r->schedule, t->started, t->sent, t->sent_at, r->now, &at);
    run_sooner(&r->check, at);
    if (due) {
        t->timed_out = t->timed_out || t->sent == 0;
        send(r, t, due);
    }
}

/* Ends those whose time is over. */
void run_check_all(run *r)
{
    if (r->schedule.halted == RUN_HALT_NOW)
        end_all(r, SIGTERM);
    if (r->now < r->check)
        return;
    r->check = WEIR_FOREVER;
    for (unsigned slot = 1; slot <= r->slots; slot++) {
        if (r->slot[slot])
            check_task(r, r->slot[slot]);
    }
}

/* ---- memory ----------------------------------------------------------------------------------- */

/* Of those that run (or, suspended true, do not): the last one that was started, or the first. */
static run_task *pick(const run *r, bool suspended, bool last)
{
    run_task *best = NULL;
    for (unsigned slot = 1; slot <= r->slots; slot++) {
        run_task *t = r->slot[slot];
        if (t && t->is_suspended == suspended && !t->sent &&
            (!best || (t->started > best->started) == last))
            best = t;
    }
    return best;
}

static unsigned going(const run *r)
{
    unsigned n = 0;
    for (unsigned slot = 1; slot <= r->slots; slot++)
        n += r->slot[slot] && !r->slot[slot]->is_suspended;
    return n;
}

static void suspend(run *r, run_task *t, bool is_suspended)
{
    t->is_suspended = is_suspended;
    if (is_suspended)
        t->suspended_at = r->now;
    else
        t->started += r->now - t->suspended_at;
    r->check = r->now;
    run_output_suspended(r->output, t->sheet, is_suspended);
    run_jobs_disturbed(r, 0);
    r->place->type->signal(r->place, t->job, is_suspended ? SIGSTOP : SIGCONT);
    run_report_suspended(&r->report, t->item, is_suspended);
}

/* Where memory runs short the youngest is suspended, one at each look; later the oldest of them goes on.  One always
 * runs. */
void run_balance(run *r)
{
    if (!r->memory || r->now < r->memory_check)
        return;
    run_pressure pressure = run_memory_pressure(r->memory);
    unsigned n = going(r);
    bool goes_on = pressure == RUN_PRESSURE_NONE || n == 0;
    run_task *t = pressure == RUN_PRESSURE_HIGH && n > 1 ? pick(r, false, true)
                  : goes_on                              ? pick(r, true, false)
                                                         : NULL;
    r->memory_check = r->slots ? r->now + RUN_MEMORY_EVERY : r->now;
    if (t)
        suspend(r, t, !t->is_suspended);
}

/* ---- the keyboard ----------------------------------------------------------------------------- */

/* All but those that stand still for another reason. */
static void signal_all(run *r, int signal)
{
    for (unsigned slot = 1; slot <= r->slots; slot++) {
        run_task *t = r->slot[slot];
        if (t && !t->is_suspended && !t->stopped_at)
            r->place->type->signal(r->place, t->job, signal);
    }
}

/* Time has passed that is nobody's. */
static void put_off(run *r, int64_t ns)
{
    for (unsigned slot = 1; slot <= r->slots; slot++) {
        run_task *t = r->slot[slot];
        if (!t)
            continue;
        t->started += ns;
        t->sent_at += t->sent ? ns : 0;
        t->stopped_at += t->stopped_at ? ns : 0;
        t->suspended_at += ns;
    }
    run_schedule_put_off(&r->schedule, ns);
    run_jobs_disturbed(r, ns);
    run_report_put_off(&r->report, r->now);
    r->check = r->memory_check = r->now;
}

/* Ctrl-Z: the jobs stop with us, and go on with us. */
static void stop_all(run *r)
{
    weir_time since = weir_now();
    run_report_clear(&r->report);
    signal_all(r, SIGSTOP);
    run_signals_stop();
    signal_all(r, SIGCONT);
    r->now = weir_now();
    put_off(r, r->now - since);
}

static void interrupt(run *r, int signal)
{
    bool is_first = !r->stopped_by;
    if (signal == SIGINT && is_first) {
        r->schedule.halted = RUN_HALT_SOON;
        run_report_say(&r->report,
                       "nothing new is started; waiting for %" PRIu64
                       " jobs; Ctrl-C again ends them",
                       r->schedule.running);
    } else if (r->schedule.halted != RUN_HALT_NOW) {
        r->schedule.halted = RUN_HALT_NOW;
        run_report_say(&r->report, "ending %" PRIu64 " jobs; Ctrl-C again kills them",
                       r->schedule.running);
    } else {
        end_all(r, SIGKILL);
    }
    r->stopped_by = signal;
}

void run_take_signals(run *r)
{
    struct signalfd_siginfo signal;
    while (read(r->signals, &signal, sizeof signal) == sizeof signal) {
        if (signal.ssi_signo == SIGUSR1) {
            run_report_status(&r->report);
        } else if (signal.ssi_signo == SIGTSTP) {
            stop_all(r);
        } else if (signal.ssi_signo == RUN_ORPHANED) {
            r->is_orphaned = true;
            if (r->schedule.halted == RUN_HALT_NEVER)
                r->schedule.halted = RUN_HALT_SOON;
        } else if (signal.ssi_code != SI_KERNEL || !run_signals_ignore_keyboard()) {
            interrupt(r, (int)signal.ssi_signo);
        }
    }
}
