/* items.c - what a run knows of an item: reads it, writes down what becomes of it, forgets it.
 *
 * A task that run_task_read has given is its caller's until run_task_finish.
 */
#include "command.h"
#include "state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

void run_give_up(run *r, const char *format, ...)
{
    char why[512];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    if (!r->is_broken)
        run_report_say(&r->report, "%s", why);
    r->is_broken = true;
    if (r->schedule.halted == RUN_HALT_NEVER)
        r->schedule.halted = RUN_HALT_SOON;
}

/* ---- the ledger ------------------------------------------------------------------------------- */

/* What could not be written ends the run: nothing is started that would be forgotten. */
bool run_written(run *r, bool ok)
{
    if (!ok)
        run_give_up(r, "%s", run_ledger_error(r->ledger));
    return ok;
}

bool run_write_start(run *r, run_task *t)
{
    if (!r->ledger)
        return true;
    t->is_written =
        run_written(r, run_ledger_start(r->ledger, t->item, t->occurrence, t->attempts + 1));
    return t->is_written;
}

/* It will be tried again, or by the next run. */
void run_write_left(run *r, const run_task *t)
{
    if (r->ledger && t->is_written)
        run_written(r, run_ledger_forget(r->ledger, t->item, t->occurrence));
}

void run_write_end(run *r, run_task *t, bool is_done, const char *what, const run_news *news)
{
    const run_ledger_end end = {
        .is_done = is_done,
        .outcome = what,
        .peak_bytes = news ? news->peak_bytes : 0,
        .cpu_ns = news ? news->cpu_ns : 0,
    };
    if (!r->ledger || (!t->is_written && !run_write_start(r, t)))
        return;
    if (!run_written(r, run_ledger_ended(r->ledger, t->item, t->occurrence, &end)))
        run_report_say(&r->report, "item %" PRIu64 " has ended, which is not in the ledger: %s",
                       t->item->number, what);
}

/* Passes it over, if an earlier run has done it, or (unless that is to be tried again) failed to. */
static bool skip_known(run *r, const run_item *item, uint64_t *ret_occurrence)
{
    run_known known;
    if (!r->ledger || !run_written(r, run_ledger_find(r->ledger, item, ret_occurrence, &known)))
        return false;
    bool has_failed = known == RUN_KNOWN_FAILED && !r->settings.retry_failed;
    bool skips = known == RUN_KNOWN_DONE || has_failed;
    r->schedule.skipped += skips;
    r->schedule.failed_before += has_failed;
    return skips;
}

/* ---- items ---------------------------------------------------------------------------------- */

void run_task_free(run_task *t)
{
    if (!t)
        return;
    free(t->item);
    free(t);
}

bool run_parse_command(run *r, int *ret_status)
{
    char error[256];
    const run_template_opts opts = {
        .command = r->settings.command,
        .is_shell = r->settings.is_shell,
        .replace = r->settings.replace,
        .format = r->settings.input.format,
        .header = run_input_header(r->input),
    };
    r->template = run_template_create(&opts, error, sizeof error);
    if (!r->template) {
        run_report_say(&r->report, "%s", error);
        *ret_status = EXIT_USAGE;
    }
    return r->template != NULL;
}

void run_await(run *r, int fd, uint32_t events, uint32_t what)
{
    struct epoll_event wanted = {.events = events | EPOLLONESHOT, .data.u32 = what};
    if (epoll_ctl(r->events, EPOLL_CTL_MOD, fd, &wanted) < 0 && errno == ENOENT)
        epoll_ctl(r->events, EPOLL_CTL_ADD, fd, &wanted);
}

/* The next item, if there is one to be had now. */
static run_item *read_item(run *r)
{
    run_item *item = NULL;
    if (r->input_ended || !run_schedule_may_read(&r->schedule))
        return NULL;
    switch (run_input_next(r->input, &item)) {
    case RUN_READ_ITEM: r->schedule.read++; return item;
    case RUN_READ_WAIT: run_await(r, run_input_fd(r->input), EPOLLIN, EVENT_INPUT); return NULL;
    case RUN_READ_END: r->input_ended = true; return NULL;
    case RUN_READ_ERROR: break;
    }
    r->input_ended = true;
    run_give_up(r, "%s: %s", r->settings.input.path ? r->settings.input.path : "standard input",
                run_input_error(r->input));
    return NULL;
}

/* NULL: there is none now, or it was one that need not be run, which is counted. */
run_task *run_task_read(run *r)
{
    int ignored;
    run_item *item = read_item(r);
    run_task *t = item ? calloc(1, sizeof *t) : NULL;
    if (!item)
        return NULL;
    if (t && skip_known(r, item, &t->occurrence)) {
        free(item);
        free(t);
        return NULL;
    }
    if (!t || (!r->template && !run_parse_command(r, &ignored))) {
        run_give_up(r, t ? "the command does not fit the header" : "out of memory");
        free(item);
        free(t);
        return NULL;
    }
    t->item = item;
    return t;
}

void run_task_finish(run *r, run_task *t)
{
    if (t->sheet)
        run_output_end(r->output, t->sheet);
    run_task_free(t);
}
