/* start.c - starts what may be started: while there is a slot, memory, room for the output, and its turn has come.
 *
 * What cannot be started now stays `next`, and `wake` says when to try again; if only an end can change it, that
 * wakes the loop.
 */
#include "process.h"
#include "state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SKIPS       1000        /* items that are passed over before something else is looked at */
#define LOAD_EVERY  WEIR_SECOND /* --max-load is looked at again */
#define SPAWN_AGAIN (100 * WEIR_MILLISECOND) /* after the kernel had nothing left for a process */

#define NAME_MAX_KEPT 100

/* FNV-1a (Fowler, Noll, Vo). */
static uint32_t hash(const run_item *item)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < item->length; i++)
        h = (h ^ (unsigned char)item->text[i]) * 16777619u;
    return h;
}

/* "17-SAMD00006185": a name for its results, whatever is in the item.  Of a long one the whole of it tells: in another
 * run the number may be that of another item that begins like this one. */
static void name_results(const run_item *item, char *to, size_t size)
{
    int n = snprintf(to, size, "%" PRIu64 "-", item->number);
    for (size_t i = 0; i < item->length && (size_t)n + 1 < size && i < NAME_MAX_KEPT; i++) {
        char c = item->text[i];
        bool is_plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                        strchr("._+=,@-", c);
        to[n++] = is_plain ? c : '_';
    }
    to[n] = '\0';
    if (item->length > NAME_MAX_KEPT && (size_t)n < size)
        snprintf(to + n, size - (size_t)n, "~%08" PRIx32, hash(item));
}

/* ---- starting ------------------------------------------------------------------------------- */

static unsigned free_slot(const run *r)
{
    unsigned slot = 1;
    while (slot <= r->slots && r->slot[slot])
        slot++;
    return slot;
}

static void started(run *r, run_task *t, unsigned slot)
{
    t->slot = slot;
    t->started = r->now;
    t->sent = 0;
    t->stopped_at = 0;
    t->timed_out = t->hung = t->is_suspended = false;
    r->slot[slot] = t;
    r->slots = slot > r->slots ? slot : r->slots;
    run_output_started(r->output, t->sheet);
    run_schedule_started(&r->schedule, r->now);
    run_jobs_started(r, t);
    if (r->schedule.opts.timeout_ns)
        run_sooner(&r->check, r->now + r->schedule.opts.timeout_ns);
    run_teller_slot(r->teller, slot, t->job, 0, false);
    if (r->ledger)
        run_written(r, run_ledger_started(r->ledger, t->item, t->occurrence, t->job));
}

static void fail_to_start(run *r, run_task *t, int error, const char *what)
{
    char text[512];
    snprintf(text, sizeof text, "could not be started: %s", what);
    t->attempts++;
    run_settle(r, t, (run_outcome){RUN_NOT_STARTED, error}, text, NULL);
}

static bool open_sheet(run *r, run_task *t)
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
    run_sooner(&r->wake, r->now + SPAWN_AGAIN);
    return true;
}

/* false: not now; the task is still to be started. */
static bool start(run *r, run_task *t)
{
    char error[256], mark[RUN_MARK_MAX];
    if (!open_sheet(r, t)) {
        int why = errno;
        if (!may_pass(r, why))
            run_give_up(r, "no file for what jobs print: %s: %s", run_output_place(r->output),
                        strerror(why));
        return false;
    }
    unsigned slot = free_slot(r);
    char **argv = run_template_fill(r->template, t->item, slot, error, sizeof error);
    if (!argv) {
        fail_to_start(r, t, EINVAL, error);
        return true;
    }
    run_mark(mark, getpid(), r->born, t->item->number, t->attempts + 1);
    const run_order order = {.program = r->program[0] ? r->program : NULL,
                             .argv = argv,
                             .in = r->nothing,
                             .out = run_sheet_out(t->sheet),
                             .err = run_sheet_err(t->sheet),
                             .mark = mark};
    if (!run_write_start(r, t)) {
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

static bool rate_allows(run *r)
{
    weir_time at;
    if (!r->rate)
        return true;
    int rc = r->in_line ? weir_rate_poll(r->rate, &r->turn, &at)
                        : weir_rate_acquire_async(r->rate, 1, &r->turn, &at);
    r->in_line = rc == WEIR_WAITING;
    if (r->in_line)
        run_sooner(&r->wake, at);
    return rc == WEIR_OK;
}

static bool load_allows(run *r)
{
    double load;
    if (r->settings.max_load <= 0 || r->schedule.running == 0 || getloadavg(&load, 1) != 1 ||
        load < r->settings.max_load)
        return true;
    run_sooner(&r->wake, r->now + LOAD_EVERY);
    return false;
}

static bool memory_allows(run *r, run_task *t)
{
    if (!r->memory || t->reserved)
        return true;
    t->reserved = run_memory_reserve(r->memory, r->schedule.running);
    if (!t->reserved)
        run_sooner(&r->wake, r->now + RUN_MEMORY_EVERY);
    return t->reserved > 0;
}

/* The one to be started next, if there is one: an attempt that is due, before a new item. */
static run_task *next_task(run *r)
{
    weir_time at;
    if (r->next)
        return r->next;
    run_task *t = run_schedule_pop(&r->schedule, r->now, &at);
    run_sooner(&r->wake, at);
    r->is_stalled = !t && !run_output_has_room(r->output);
    if (t || r->is_stalled)
        return t;
    for (int i = 0; !t && i < SKIPS; i++) {
        uint64_t skipped = r->schedule.skipped;
        t = run_task_read(r);
        if (!t && r->schedule.skipped == skipped)
            return NULL;
    }
    if (!t)
        r->wake = r->now;
    return t;
}

void run_start_all(run *r)
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
    run_sooner(&r->wake, at);
}
