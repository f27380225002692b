/* run.c - `weir run`: a command for each item of a list.
 *
 * One thread, one loop: start what may be started, wait, look at what has ended, print what can be printed.
 *
 * Lazy:     an item is read when a job may be started for it, so at most one waits between input and job.
 * Law:      read == done + failed + skipped + left, which the last line says.
 * Bound:    what runs, what waits for another attempt, and what waits to be printed each have a bound; where one is
 *           reached, no item is read.
 * Stopping: SIGINT once starts nothing new; twice, or SIGTERM or SIGHUP, ends the jobs; three times kills them.
 */
#include "command.h"
#include "guard.h"
#include "job.h"
#include "ledger.h"
#include "memory.h"
#include "output.h"
#include "report.h"
#include "schedule.h"
#include "settings.h"
#include "tell.h"
#include "template.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <weir/limit.h>
#include <weir/rate.h>

#define EXIT_ITEMS_FAILED 3
#define EXIT_HALTED       4
#define EXIT_NO_PROGRAM   127
#define EXIT_SIGNAL       128

#define SKIPS       1000        /* items that are passed over before something else is looked at */
#define LOAD_EVERY  WEIR_SECOND /* --max-load is looked at again */
#define AUTO_MAX    1000        /* -j auto goes no higher */
#define OOM_AGAIN   WEIR_SECOND /* what the kernel killed for memory waits for so long */
#define SPAWN_AGAIN (100 * WEIR_MILLISECOND) /* after the kernel had nothing left for a process */

/* An item that was read and has come to no end. */
typedef struct task {
    run_item *item;
    run_sheet *sheet;    /* NULL: not begun yet */
    uint64_t attempts;   /* that were begun */
    uint64_t occurrence; /* of its content */
    bool is_written;     /* the ledger knows that it was started */
    run_job job;
    unsigned slot; /* from 1; 0: it does not run */
    weir_time started;
    int sent; /* the last signal of ours, SIGTERM or SIGKILL; 0: none */
    weir_time sent_at;
    weir_time stopped_at; /* by somebody; 0: it is not */
    bool timed_out, hung;
    bool is_suspended; /* by us, for memory */
    uint64_t reserved; /* bytes of memory */
    bool is_ended;     /* by us, because the run ends */
} task;

enum { EVENT_JOBS, EVENT_SIGNALS, EVENT_INPUT, EVENT_OUT };

typedef struct run {
    run_settings settings;
    run_schedule schedule;
    run_report report;
    run_input *input;
    run_template *template; /* NULL: the header is not read yet */
    run_output *output;
    run_place *place;
    run_teller *teller;
    run_ledger *ledger;      /* NULL: none is kept */
    run_memory *memory;      /* NULL: not looked at */
    weir_limit_model *finds; /* the number of jobs; NULL: it was said */
    uint64_t kills;          /* the kernel's for memory, before this run and of its jobs */
    weir_time memory_check;  /* memory is looked at then */
    weir_rate *rate;
    weir_pending turn;            /* in the line of the rate */
    bool in_line;                 /* there */
    int events, signals, nothing; /* nothing: what jobs read */
    char program[PATH_MAX];       /* "": depends on the item */
    task *next;                   /* the one that was read and waits to be started */
    bool input_ended, is_broken;
    bool is_stalled;  /* too much waits to be printed */
    bool is_orphaned; /* who started us was killed */
    sigset_t mask;    /* as we were started, and jobs are */
    bool told_spawn;
    int stopped_by; /* a signal; 0: none */
    weir_time now;
    weir_time wake;  /* something may be started then */
    weir_time check; /* some job is due a signal then */
    unsigned slots;  /* in use: none is above */
    task *slot[RUN_JOBS_MAX + 1];
} run;

static void sooner(weir_time *at, weir_time then)
{
    if (then < *at)
        *at = then;
}

/* The run cannot go on: what runs may end. */
__attribute__((format(printf, 2, 3))) static void give_up(run *r, const char *format, ...)
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
static bool written(run *r, bool ok)
{
    if (!ok)
        give_up(r, "%s", run_ledger_error(r->ledger));
    return ok;
}

static bool write_start(run *r, task *t)
{
    if (!r->ledger)
        return true;
    t->is_written =
        written(r, run_ledger_start(r->ledger, t->item, t->occurrence, t->attempts + 1));
    return t->is_written;
}

/* It will be tried again, or by the next run. */
static void write_left(run *r, const task *t)
{
    if (r->ledger && t->is_written)
        written(r, run_ledger_forget(r->ledger, t->item, t->occurrence));
}

static void write_end(run *r, task *t, bool is_done, const char *what, const run_news *news)
{
    const run_ledger_end end = {
        .is_done = is_done,
        .outcome = what,
        .peak_bytes = news ? news->peak_bytes : 0,
        .cpu_ns = news ? news->cpu_ns : 0,
    };
    if (!r->ledger || (!t->is_written && !write_start(r, t)))
        return;
    if (!written(r, run_ledger_ended(r->ledger, t->item, t->occurrence, &end)))
        run_report_say(&r->report, "item %" PRIu64 " has ended, which is not in the ledger: %s",
                       t->item->number, what);
}

/* Whether an earlier run has done it, or (unless that is to be tried again) failed to. */
static bool is_known(run *r, const run_item *item, uint64_t *ret_occurrence)
{
    run_known known;
    if (!r->ledger || !written(r, run_ledger_find(r->ledger, item, ret_occurrence, &known)))
        return false;
    return known == RUN_KNOWN_DONE || (known == RUN_KNOWN_FAILED && !r->settings.retry_failed);
}

/* ---- items ---------------------------------------------------------------------------------- */

static void free_task(task *t)
{
    if (!t)
        return;
    free(t->item);
    free(t);
}

static bool parse_command(run *r, int *ret_status)
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

static void await(run *r, int fd, uint32_t events, uint32_t what)
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
    case RUN_READ_WAIT: await(r, run_input_fd(r->input), EPOLLIN, EVENT_INPUT); return NULL;
    case RUN_READ_END: r->input_ended = true; return NULL;
    case RUN_READ_ERROR: break;
    }
    r->input_ended = true;
    give_up(r, "%s: %s", r->settings.input.path ? r->settings.input.path : "standard input",
            run_input_error(r->input));
    return NULL;
}

/* NULL: there is none now, or it was one that need not be run, which is counted. */
static task *read_task(run *r)
{
    int ignored;
    run_item *item = read_item(r);
    task *t = item ? calloc(1, sizeof *t) : NULL;
    if (!item)
        return NULL;
    if (t && is_known(r, item, &t->occurrence)) {
        r->schedule.skipped++;
        free(item);
        free(t);
        return NULL;
    }
    if (!t || (!r->template && !parse_command(r, &ignored))) {
        give_up(r, t ? "the command does not fit the header" : "out of memory");
        free(item);
        free(t);
        return NULL;
    }
    t->item = item;
    return t;
}

/* "17-SAMD00006185": a name for its results, whatever is in the item. */
static void name_results(const run_item *item, char *to, size_t size)
{
    int n = snprintf(to, size, "%" PRIu64 "-", item->number);
    for (size_t i = 0; i < item->length && (size_t)n + 1 < size && i < 100; i++) {
        char c = item->text[i];
        bool is_plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                        strchr("._+=,@-", c);
        to[n++] = is_plain ? c : '_';
    }
    to[n] = '\0';
}

/* ---- ends ------------------------------------------------------------------------------------- */

static void finish(run *r, task *t)
{
    if (t->sheet)
        run_output_end(r->output, t->sheet);
    free_task(t);
}

/* An attempt came to this, or could not begin; `what` says it. */
static void settle(run *r, task *t, run_outcome outcome, const char *what, const run_news *news)
{
    int64_t delay;
    run_verdict verdict =
        run_schedule_ended(&r->schedule, outcome, t->attempts, news != NULL, weir_random(), &delay);
    if (verdict == RUN_AGAIN) {
        run_report_retry(&r->report, t->item, what, delay);
        run_output_again(r->output, t->sheet);
        write_left(r, t);
        run_schedule_push(&r->schedule, t, r->now + delay);
        return;
    }
    write_end(r, t, verdict == RUN_DONE, what, news);
    if (verdict == RUN_FAILED)
        run_report_failure(&r->report, t->item, what, t->attempts);
    finish(r, t);
}

/* A SIGKILL of nobody here, and a process that the kernel killed for memory that no other job explains. */
static bool was_out_of_memory(run *r, const task *t, const run_news *news)
{
    if (news->signal != SIGKILL || t->sent || run_memory_kills() <= r->kills)
        return false;
    r->kills++;
    return true;
}

static run_outcome outcome_of(run *r, const task *t, const run_news *news)
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
static void run_again_alone(run *r, task *t)
{
    run_schedule_crowded(&r->schedule);
    run_report_retry(&r->report, t->item, "killed by the kernel: out of memory", OOM_AGAIN);
    run_output_again(r->output, t->sheet);
    write_left(r, t);
    t->attempts--;
    run_schedule_push(&r->schedule, t, r->now + OOM_AGAIN);
}

/* What its end teaches about the next ones. */
static void learn(run *r, task *t, run_outcome outcome, const run_news *news)
{
    if (r->memory) {
        run_memory_observe(r->memory, news->peak_bytes);
        run_memory_release(r->memory, t->reserved);
        t->reserved = 0;
    }
    if (!r->finds)
        return;
    weir_limit_report report = outcome.kind == RUN_OOM          ? WEIR_LIMIT_DROP
                               : t->is_suspended || t->is_ended ? WEIR_LIMIT_IGNORE
                                                                : WEIR_LIMIT_SUCCESS;
    int64_t took = r->now > t->started ? r->now - t->started : 1;
    r->schedule.jobs = weir_limit_model_sample(r->finds, r->now, took, r->schedule.running, report);
}

static void end_task(run *r, task *t, const run_news *news)
{
    char what[128];
    run_outcome outcome = outcome_of(r, t, news);
    bool is_done = run_set_has(&r->schedule.opts.ok, outcome);
    learn(r, t, outcome, news);
    run_teller_slot(r->teller, t->slot, 0, r->now - t->started, !is_done);
    r->slot[t->slot] = NULL;
    while (r->slots > 0 && !r->slot[r->slots])
        r->slots--;
    t->slot = 0;
    if (t->is_ended && !is_done) { /* by us: it is neither done nor has it failed */
        r->schedule.running--;
        write_left(r, t);
        finish(r, t);
        return;
    }
    if (outcome.kind == RUN_OOM && r->schedule.running > 1 && !r->schedule.halted) {
        run_again_alone(r, t);
        return;
    }
    settle(r, t, outcome, run_outcome_text(outcome, what, sizeof what), news);
}

/* ---- starting ------------------------------------------------------------------------------- */

static unsigned free_slot(const run *r)
{
    unsigned slot = 1;
    while (slot <= r->slots && r->slot[slot])
        slot++;
    return slot;
}

static void started(run *r, task *t, unsigned slot)
{
    t->slot = slot;
    t->started = r->now;
    t->sent = 0;
    t->stopped_at = 0;
    t->timed_out = t->hung = t->is_suspended = false;
    r->slot[slot] = t;
    r->slots = slot > r->slots ? slot : r->slots;
    run_schedule_started(&r->schedule, r->now);
    if (r->schedule.opts.timeout_ns)
        sooner(&r->check, r->now + r->schedule.opts.timeout_ns);
    run_teller_slot(r->teller, slot, t->job, 0, false);
    if (r->ledger)
        written(r, run_ledger_started(r->ledger, t->item, t->occurrence, t->job));
}

static void fail_to_start(run *r, task *t, int error, const char *what)
{
    char text[512];
    snprintf(text, sizeof text, "could not be started: %s", what);
    t->attempts++;
    settle(r, t, (run_outcome){RUN_NOT_STARTED, error}, text, NULL);
}

static bool open_sheet(run *r, task *t)
{
    char name[160];
    if (!t->sheet)
        t->sheet = run_output_begin(r->output, t->item->text);
    name_results(t->item, name, sizeof name);
    return t->sheet && run_output_open(r->output, t->sheet, name);
}

/* Whether what failed may work when others have ended; then it is tried again. */
static bool may_pass(run *r, int error)
{
    if (error != EAGAIN && error != ENOMEM && error != EMFILE && error != ENFILE)
        return false;
    uint64_t held_bytes;
    if (r->schedule.running == 0 && (error == EMFILE || error == ENFILE) &&
        run_output_held(r->output, &held_bytes) == 0)
        return false;
    if (!r->told_spawn)
        run_report_say(&r->report, "no further job can be started for now: %s; it is tried again",
                       strerror(error));
    r->told_spawn = true;
    sooner(&r->wake, r->now + SPAWN_AGAIN);
    return true;
}

/* false: not now; the task is still to be started. */
static bool start(run *r, task *t)
{
    char error[256];
    if (!open_sheet(r, t)) {
        int why = errno;
        if (!may_pass(r, why))
            give_up(r, "no file for what jobs print: %s: %s",
                    r->settings.output.results ? r->settings.output.results : "TMPDIR",
                    strerror(why));
        return false;
    }
    unsigned slot = free_slot(r);
    char **argv = run_template_fill(r->template, t->item, slot, error, sizeof error);
    if (!argv) {
        fail_to_start(r, t, EINVAL, error);
        return true;
    }
    const run_order order = {.program = r->program[0] ? r->program : NULL,
                             .argv = argv,
                             .in = r->nothing,
                             .out = run_sheet_out(t->sheet),
                             .err = run_sheet_err(t->sheet)};
    if (!write_start(r, t)) {
        free(argv);
        return false;
    }
    int rc = r->place->type->start(r->place, &order, &t->job);
    if (rc && may_pass(r, rc)) {
        run_output_again(r->output, t->sheet);
        free(argv);
        return false;
    }
    if (rc) {
        snprintf(error, sizeof error, "%.150s: %s", argv[0], strerror(rc));
        fail_to_start(r, t, rc, error);
    } else {
        t->attempts++;
        started(r, t, slot);
    }
    free(argv);
    return true;
}

/* ---- what holds starts back ------------------------------------------------------------------- */

static void hint(weir_pending *pending, int result)
{
    (void)pending, (void)result; /* nobody but this thread changes the rate */
}

static bool rate_allows(run *r)
{
    weir_time at;
    if (!r->rate)
        return true;
    int rc = r->in_line ? weir_rate_poll(r->rate, &r->turn, &at)
                        : weir_rate_acquire_async(r->rate, 1, &r->turn, &at);
    r->in_line = rc == WEIR_WAITING;
    if (r->in_line)
        sooner(&r->wake, at);
    return rc == WEIR_OK;
}

static bool load_allows(run *r)
{
    double load;
    if (r->settings.max_load <= 0 || r->schedule.running == 0 || getloadavg(&load, 1) != 1 ||
        load < r->settings.max_load)
        return true;
    sooner(&r->wake, r->now + LOAD_EVERY);
    return false;
}

static bool memory_allows(run *r, task *t)
{
    if (!r->memory || t->reserved)
        return true;
    t->reserved = run_memory_reserve(r->memory, r->schedule.running);
    if (!t->reserved)
        sooner(&r->wake, r->now + RUN_MEMORY_EVERY);
    return t->reserved > 0;
}

/* The one to be started next, if there is one: an attempt that is due, before a new item. */
static task *next_task(run *r)
{
    weir_time at;
    if (r->next)
        return r->next;
    task *t = run_schedule_pop(&r->schedule, r->now, &at);
    sooner(&r->wake, at);
    r->is_stalled = !t && !run_output_has_room(r->output);
    if (t || r->is_stalled)
        return t;
    for (int i = 0; !t && i < SKIPS; i++) {
        uint64_t skipped = r->schedule.skipped;
        t = read_task(r);
        if (!t && r->schedule.skipped == skipped)
            return NULL;
    }
    if (!t)
        r->wake = r->now;
    return t;
}

static void start_all(run *r)
{
    weir_time at;
    r->wake = WEIR_FOREVER;
    while (run_schedule_may_start(&r->schedule, r->now, &at)) {
        r->next = next_task(r);
        if (!r->next || !load_allows(r) || !memory_allows(r, r->next) || !rate_allows(r) ||
            !start(r, r->next))
            return;
        r->next = NULL;
    }
    sooner(&r->wake, at);
}

/* ---- signals -------------------------------------------------------------------------------- */

static void send(run *r, task *t, int signal)
{
    t->sent = signal;
    t->sent_at = r->now;
    r->place->type->signal(r->place, t->job, signal);
    sooner(&r->check, r->now + r->schedule.opts.kill_after_ns);
}

static void end_all(run *r, int signal)
{
    for (unsigned slot = 1; slot <= r->slots; slot++) {
        task *t = r->slot[slot];
        if (!t || t->sent == signal || t->sent == SIGKILL)
            continue;
        t->is_ended = t->is_ended || (!t->timed_out && !t->hung);
        send(r, t, signal);
    }
}

static void check_task(run *r, task *t)
{
    weir_time at;
    weir_time hangs = t->stopped_at ? t->stopped_at + r->schedule.opts.kill_after_ns : WEIR_FOREVER;
    if (r->now >= hangs && t->sent != SIGKILL) {
        t->hung = !t->timed_out && !t->is_ended;
        send(r, t, SIGKILL);
        return;
    }
    sooner(&r->check, hangs);
    int due = run_schedule_signal(&r->schedule, t->started, t->sent, t->sent_at, r->now, &at);
    sooner(&r->check, at);
    if (due) {
        t->timed_out = t->timed_out || t->sent == 0;
        send(r, t, due);
    }
}

/* Ends those whose time is over. */
static void check_all(run *r)
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
static task *pick(const run *r, bool suspended, bool last)
{
    task *best = NULL;
    for (unsigned slot = 1; slot <= r->slots; slot++) {
        task *t = r->slot[slot];
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

/* Where memory runs short the youngest is suspended, one at each look; later the oldest of them goes on.  One always
 * runs. */
static void balance(run *r)
{
    if (!r->memory || r->now < r->memory_check)
        return;
    run_pressure pressure = run_memory_pressure(r->memory);
    unsigned n = going(r);
    bool goes_on = pressure == RUN_PRESSURE_NONE || n == 0;
    task *t = pressure == RUN_PRESSURE_HIGH && n > 1 ? pick(r, false, true)
              : goes_on                              ? pick(r, true, false)
                                                     : NULL;
    r->memory_check = r->slots ? r->now + RUN_MEMORY_EVERY : r->now;
    if (!t)
        return;
    t->is_suspended = !t->is_suspended;
    r->place->type->signal(r->place, t->job, t->is_suspended ? SIGSTOP : SIGCONT);
    run_report_suspended(&r->report, t->item, t->is_suspended);
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

static void take_signals(run *r)
{
    struct signalfd_siginfo signal;
    while (read(r->signals, &signal, sizeof signal) == sizeof signal) {
        if (signal.ssi_signo == SIGUSR1) {
            run_report_status(&r->report);
        } else if (signal.ssi_signo == RUN_ORPHANED) {
            r->is_orphaned = true;
            if (r->schedule.halted == RUN_HALT_NEVER)
                r->schedule.halted = RUN_HALT_SOON;
        } else {
            interrupt(r, (int)signal.ssi_signo);
        }
    }
}

/* ---- news ------------------------------------------------------------------------------------- */

static task *task_of(const run *r, run_job job)
{
    for (unsigned slot = 1; slot <= r->slots; slot++) {
        if (r->slot[slot] && r->slot[slot]->job == job)
            return r->slot[slot];
    }
    return NULL;
}

static void stopped(run *r, task *t, const run_news *news)
{
    char what[80];
    if (t->is_suspended)
        return;
    snprintf(what, sizeof what, "stopped by SIG%s; it is killed unless it goes on",
             sigabbrev_np(news->signal));
    t->stopped_at = r->now;
    sooner(&r->check, r->now + r->schedule.opts.kill_after_ns);
    run_report_failure(&r->report, t->item, what, 0);
}

static void take_news(run *r)
{
    run_news news;
    r->place->type->watch(r->place);
    while (r->place->type->reap(r->place, &news)) {
        task *t = task_of(r, news.job);
        if (!t)
            continue; /* what a job left behind, and was given to us */
        if (news.kind == RUN_NEWS_ENDED)
            end_task(r, t, &news);
        else if (news.kind == RUN_NEWS_STOPPED)
            stopped(r, t, &news);
        else
            t->stopped_at = 0;
    }
}

/* ---- printing ------------------------------------------------------------------------------- */

static void print(run *r)
{
    uint64_t bytes;
    if (run_output_held(r->output, &bytes) > 0)
        run_report_clear(&r->report);
    if (!run_output_print(r->output)) {
        int why = errno;
        if (why == EPIPE && !r->is_broken) { /* who read it has enough: no reason to complain */
            r->is_broken = true;
            r->stopped_by = SIGPIPE;
        }
        give_up(r, "cannot write to standard output: %s", strerror(why));
        if (!r->is_orphaned) /* then the jobs may end all the same */
            r->schedule.halted = RUN_HALT_NOW;
    }
    if (r->is_stalled && run_output_has_room(r->output))
        r->wake = r->now;
    int full = r->is_broken ? -1 : run_output_wants(r->output);
    if (full >= 0)
        await(r, full, EPOLLOUT, EVENT_OUT);
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
        write_left(r, r->next);
        finish(r, r->next);
    }
    r->next = NULL;
    for (task *t; (t = run_schedule_pop(&r->schedule, WEIR_FOREVER, &at));)
        finish(r, t);
}

static int milliseconds(const run *r)
{
    weir_time until = r->wake;
    sooner(&until, r->check);
    if (r->memory && r->slots)
        sooner(&until, r->memory_check);
    sooner(&until, r->report.next_progress);
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
            take_news(r);
        else if (ready[i].data.u32 == EVENT_SIGNALS)
            take_signals(r);
    }
}

static void write_all(run *r)
{
    weir_time at;
    if (r->ledger && !r->is_broken && written(r, run_ledger_rest(r->ledger, r->now, &at)))
        sooner(&r->wake, at);
}

static void loop(run *r)
{
    take_signals(r); /* what came before we were ready */
    for (;;) {
        start_all(r);
        check_all(r);
        balance(r);
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

/* ---- without running anything ----------------------------------------------------------------- */

/* So that a shell would read it as this one argument. */
static void print_quoted(const char *s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=:,./@%^";
    if (*s && s[strspn(s, plain)] == '\0') {
        fputs(s, stdout);
        return;
    }
    putchar('\'');
    for (; *s; s++) {
        if (*s == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*s);
    }
    putchar('\'');
}

static bool print_job(const run *r, const task *t)
{
    char error[256];
    char **argv = run_template_fill(r->template, t->item, 1, error, sizeof error);
    if (!argv) {
        fflush(stdout);
        complain("run", "item %" PRIu64 ": %s", t->item->number, error);
        return false;
    }
    for (char **arg = argv; *arg; arg++) {
        if (arg != argv)
            putchar(' ');
        print_quoted(*arg);
    }
    putchar('\n');
    free(argv);
    return true;
}

static int print_jobs(run *r)
{
    int status = EXIT_SUCCESS;
    while (!r->input_ended && !r->is_broken && !ferror(stdout)) {
        task *t = read_task(r);
        struct pollfd more = {.fd = run_input_fd(r->input), .events = POLLIN};
        if (t && !print_job(r, t))
            status = EXIT_ITEMS_FAILED;
        if (!t && !r->input_ended && !r->is_broken)
            poll(&more, 1, -1);
        free_task(t);
    }
    run_report_flush(&r->report);
    return !flush_stdout("run") || r->is_broken ? EXIT_FAILURE : status;
}

/* ---- beginning ------------------------------------------------------------------------------ */

static bool find_in(const char *folder, size_t length, const char *name, char to[PATH_MAX])
{
    int n = snprintf(to, PATH_MAX, "%.*s%s%s", (int)length, folder, length ? "/" : "", name);
    return n < PATH_MAX && access(to, X_OK) == 0;
}

/* Looks for it once, not for each job. */
static bool find_program(const char *name, char to[PATH_MAX])
{
    const char *path = getenv("PATH");
    if (strchr(name, '/'))
        return find_in("", 0, name, to);
    for (path = path ? path : "/usr/bin:/bin";; path++) {
        size_t length = strcspn(path, ":");
        if (find_in(length ? path : ".", length ? length : 1, name, to))
            return true;
        path += length;
        if (!*path)
            return false;
    }
}

static bool open_input(run *r, int *ret_status)
{
    const char *path = r->settings.input.path;
    r->input = run_input_open(&r->settings.input);
    if (!r->input) {
        complain("run", "--input: %s: %s", path ? path : "standard input", strerror(errno));
        *ret_status = EXIT_FAILURE;
        return false;
    }
    run_report_begin(&r->report, &r->settings, &r->schedule, r->input);
    if (!r->settings.input.has_header && !parse_command(r, ret_status))
        return false;
    const char *name = r->settings.is_shell ? "/bin/sh" : r->settings.command[0];
    if (r->settings.dry_run)
        return true;
    bool is_open =
        !r->settings.is_shell && (!r->template || run_template_is_program_open(r->template));
    if (is_open || find_program(name, r->program))
        return true;
    complain("run",
             strchr(name, '/') ? "%s is no program that can be run"
                               : "there is no program \"%s\" in PATH",
             name);
    *ret_status = EXIT_NO_PROGRAM;
    return false;
}

static bool open_output(run *r)
{
    r->output = run_output_create(&r->settings.output);
    if (r->output)
        return true;
    complain("run", "--results: %s: %s", r->settings.output.results, strerror(errno));
    return false;
}

static bool watch(run *r, int fd, uint32_t what)
{
    struct epoll_event wanted = {.events = EPOLLIN, .data.u32 = what};
    return fd >= 0 && epoll_ctl(r->events, EPOLL_CTL_ADD, fd, &wanted) == 0;
}

/* After the place was opened, so that jobs do not have these blocked. */
static int open_signals(void)
{
    sigset_t ours;
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGHUP);
    sigaddset(&ours, SIGUSR1);
    sigaddset(&ours, RUN_ORPHANED);
    sigprocmask(SIG_BLOCK, &ours, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of a write */
    return signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void say(void *ctx, const char *sentence)
{
    (void)ctx;
    complain("run", "%s", sentence);
}

/* The command as it was typed, as far as there is room; for who reads the ledger. */
static void print_command(const run *r, char *to, size_t size)
{
    *to = '\0';
    for (char *const *word = r->settings.command; *word; word++)
        snprintf(to + strlen(to), size - strlen(to), "%s%s", *to ? " " : "", *word);
}

static bool open_ledger(run *r)
{
    char error[512], command[1024];
    if (!r->settings.ledger)
        return true;
    print_command(r, command, sizeof command);
    const run_ledger_opts opts = {
        .path = r->settings.ledger, .resume = r->settings.resume, .command = command, .say = say};
    r->ledger = run_ledger_open(&opts, error, sizeof error);
    if (!r->ledger)
        complain("run", "%s", error);
    return r->ledger != NULL;
}

static bool open_rate(run *r)
{
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    if (!r->settings.rate)
        return true;
    r->turn.ready = hint;
    opts.rate = r->settings.rate;
    opts.per_ns = r->settings.rate_per_ns;
    opts.burst = 1; /* a start is a start: no rush after a pause */
    return weir_rate_create(&r->rate, &opts) == WEIR_OK;
}

static bool open_memory(run *r)
{
    int error;
    if (!r->settings.memory)
        return true;
    r->memory = run_memory_open(r->settings.memory, r->settings.job_bytes, &error);
    if (!r->memory)
        complain("run", "--memory: %s: %s", r->settings.memory, weir_strerror(error));
    return r->memory != NULL;
}

/* -j auto: where more at a time only makes each slower, it is enough. */
static bool open_finds(run *r)
{
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    if (!r->settings.jobs_auto)
        return true;
    opts.algorithm = WEIR_LIMIT_GRADIENT2;
    opts.limit = r->settings.jobs;
    opts.max_limit = AUTO_MAX;
    opts.smoothing = 1; /* jobs are few and long: there is no time for small steps */
    opts.queue = 2;
    opts.window_samples = 4;
    return weir_limit_model_create(&r->finds, &opts, weir_now()) == WEIR_OK;
}

static const char *base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static bool open_all(run *r)
{
    r->place = run_local_open(&r->mask);
    r->events = epoll_create1(EPOLL_CLOEXEC);
    r->signals = open_signals();
    r->nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (!r->place || r->events < 0 || r->nothing < 0 ||
        !watch(r, r->place->type->watch(r->place), EVENT_JOBS) ||
        !watch(r, r->signals, EVENT_SIGNALS) || !open_rate(r)) {
        complain("run", "cannot begin: %s", strerror(errno));
        return false;
    }
    r->teller = run_teller_open(r->settings.name ? r->settings.name : base(r->settings.command[0]));
    return true;
}

/* ---- ending --------------------------------------------------------------------------------- */

static int status_of(const run *r)
{
    const run_schedule *s = &r->schedule;
    if (r->stopped_by)
        return EXIT_SIGNAL + r->stopped_by;
    if (r->is_broken)
        return EXIT_FAILURE;
    if (s->halted)
        return EXIT_HALTED;
    return s->failed ? EXIT_ITEMS_FAILED : EXIT_SUCCESS;
}

static void close_all(run *r)
{
    run_memory_close(r->memory);
    weir_limit_model_destroy(r->finds);
    if (r->in_line)
        weir_rate_cancel(r->rate, &r->turn);
    weir_rate_destroy(r->rate);
    run_teller_close(r->teller);
    run_ledger_close(r->ledger);
    if (r->place)
        r->place->type->close(r->place);
    run_output_destroy(r->output);
    run_template_destroy(r->template);
    run_input_close(r->input);
    free(r);
}

static int run_all(run *r)
{
    int status = EXIT_FAILURE;
    if (!open_input(r, &status)) {
        run_report_flush(&r->report);
        return status;
    }
    if (r->settings.dry_run)
        return print_jobs(r);
    if (!open_output(r) || !open_memory(r) || !open_finds(r) || !open_ledger(r) || !open_all(r))
        return EXIT_FAILURE;
    r->now = weir_now();
    r->kills = run_memory_kills();
    r->check = WEIR_FOREVER;
    loop(r);
    status = status_of(r);
    run_report_end(&r->report, r->input_ended, status == EXIT_HALTED ? "ended by --halt" : NULL);
    run_report_clear(&r->report);
    run_report_flush(&r->report);
    return status;
}

static int run_command(int argc, char *argv[])
{
    run *r = calloc(1, sizeof *r);
    if (!r) {
        complain("run", "out of memory");
        return EXIT_FAILURE;
    }
    r->events = -1;
    sigprocmask(SIG_BLOCK, NULL, &r->mask);
    int status = run_settings_read(&r->settings, argc, argv);
    if (status == GO_ON && r->settings.ledger && !r->settings.dry_run)
        status = run_guard();
    if (status == GO_ON) {
        r->schedule.opts = r->settings.schedule;
        r->schedule.jobs = r->settings.jobs;
        status = run_all(r);
    }
    close_all(r);
    return status;
}

const cli_command command_run = {
    .name = "run",
    .summary = "a command for each item of a list, so many at a time",
    .about = "Runs COMMAND once for each item; the item takes the place of {} or comes last.\n"
             "{.} without extension, {/} without folder, {//} the folder, {/.} neither,\n"
             "{#} number, {%} slot, {1} {name} column, {1/.} and so on.\n",
    .run = run_command,
    .operands = "[--] COMMAND [ARG | {}]... [::: ITEM...]",
};
