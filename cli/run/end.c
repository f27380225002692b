/* end.c - what becomes of a job that has ended: done, failed, or another attempt.
 *
 * Each end is counted once, teaches the memory and the number of jobs, and frees the slot before another is taken.
 */
#include "state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define OOM_AGAIN WEIR_SECOND /* what the kernel killed for memory waits for so long */

/* An attempt came to this, or could not begin; `what` says it. */
void run_settle(run *r, run_task *t, run_outcome outcome, const char *what, const run_news *news)
{
    int64_t delay;
    run_verdict verdict =
        run_schedule_ended(&r->schedule, outcome, t->attempts, news != NULL, weir_random(), &delay);
    if (verdict == RUN_AGAIN) {
        run_report_retry(&r->report, t->item, what, delay);
        run_output_again(r->output, t->sheet);
        run_write_left(r, t);
        run_schedule_push(&r->schedule, t, r->now + delay);
        return;
    }
    if (verdict == RUN_LEFT)
        run_write_left(r, t);
    else
        run_write_end(r, t, verdict == RUN_DONE, what, news);
    if (verdict == RUN_FAILED)
        run_report_failure(&r->report, t->item, what, t->attempts);
    run_task_finish(r, t);
}

/* A SIGKILL of nobody here, and a process that the kernel killed for memory that no other job explains. */
static bool was_out_of_memory(run *r, const run_task *t, const run_news *news)
{
    if (news->signal != SIGKILL || t->sent || run_memory_kills() <= r->kills)
        return false;
    r->kills++;
    return true;
}

static run_outcome outcome_of(run *r, const run_task *t, const run_news *news)
{
    if (t->timed_out)
        return (run_outcome){RUN_TIMED_OUT, 0};
    if (t->hung)
        return (run_outcome){RUN_HUNG, 0};
    if (was_out_of_memory(r, t, news))
        return (run_outcome){RUN_OOM, 0};
    if (news->signal)
        return (run_outcome){RUN_KILLED, news->signal};
    return (run_outcome){RUN_EXITED, news->status};
}

/* The kernel killed it for memory, which others took as well: that is no failure of its own. */
static void run_again_alone(run *r, run_task *t)
{
    run_schedule_crowded(&r->schedule);
    run_jobs_crowded(r);
    run_report_retry(&r->report, t->item, "killed by the kernel: out of memory", OOM_AGAIN);
    run_output_again(r->output, t->sheet);
    run_write_left(r, t);
    t->attempts--;
    run_schedule_push(&r->schedule, t, r->now + OOM_AGAIN);
}

/* What its end teaches about the next ones. */
static void learn(run *r, run_task *t, bool is_done, const run_news *news)
{
    if (r->memory) {
        run_memory_observe(r->memory, news->peak_bytes);
        run_memory_release(r->memory, t->reserved);
        t->reserved = 0;
    }
    run_jobs_ended(r, t, is_done, news->cpu_ns);
}

/* What it printed may not all be there, whatever it says: it is to be done again, when there is disk. */
static void leave_for_want_of_disk(run *r, run_task *t)
{
    run_give_up(
        r,
        "%s is full: what item %" PRIu64
        " has printed may not be whole, so it is left to be done again, and nothing new is started",
        run_output_place(r->output), t->item->number);
    r->schedule.running--;
    run_write_left(r, t);
    run_task_finish(r, t);
}

static void end_task(run *r, run_task *t, const run_news *news)
{
    char what[128];
    run_outcome outcome = outcome_of(r, t, news);
    bool is_done = run_set_has(&r->schedule.opts.ok, outcome);
    learn(r, t, is_done, news);
    run_teller_slot(r->teller, t->slot, 0, r->now - t->started, !is_done);
    r->slot[t->slot] = NULL;
    while (r->slots > 0 && !r->slot[r->slots])
        r->slots--;
    t->slot = 0;
    if (t->is_ended && !is_done) { /* by us: it is neither done nor has it failed */
        r->schedule.running--;
        run_write_left(r, t);
        run_task_finish(r, t);
        return;
    }
    if (!run_output_is_whole(r->output, t->sheet)) {
        leave_for_want_of_disk(r, t);
        return;
    }
    if (outcome.kind == RUN_OOM && r->schedule.running > 1 && !r->schedule.halted) {
        run_again_alone(r, t);
        return;
    }
    run_settle(r, t, outcome, run_outcome_text(outcome, what, sizeof what), news);
}

/* ---- news ------------------------------------------------------------------------------------- */

static run_task *task_of(const run *r, run_job job)
{
    for (unsigned slot = 1; slot <= r->slots; slot++) {
        if (r->slot[slot] && r->slot[slot]->job == job)
            return r->slot[slot];
    }
    return NULL;
}

static void stopped(run *r, run_task *t, const run_news *news)
{
    char what[80];
    if (t->is_suspended)
        return;
    snprintf(what, sizeof what, "stopped by SIG%s; it is killed unless it goes on",
             sigabbrev_np(news->signal));
    t->stopped_at = r->now;
    run_sooner(&r->check, r->now + r->schedule.opts.kill_after_ns);
    run_report_failure(&r->report, t->item, what, 0);
}

void run_take_news(run *r)
{
    run_news news;
    r->place->type->watch(r->place);
    while (r->place->type->reap(r->place, &news)) {
        run_task *t = task_of(r, news.job);
        if (news.kind == RUN_NEWS_ENDED) {
            if (t) /* or it is what a job left behind, and was given to us */
                end_task(r, t, &news);
            if (r->ledger)
                run_written(r, run_ledger_commit(r->ledger));
            r->place->type->forget(r->place, news.job);
        } else if (t && news.kind == RUN_NEWS_STOPPED) {
            stopped(r, t, &news);
        } else if (t) {
            t->stopped_at = 0;
        }
    }
}
