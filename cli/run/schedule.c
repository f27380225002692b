/* schedule.c - decides, and counts; see schedule.h. */
#include "schedule.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HALT_SAMPLE 10 /* of so few that have ended a share says nothing */

/* ---- outcomes ------------------------------------------------------------------------------- */

const char *run_outcome_text(run_outcome outcome, char *to, size_t size)
{
    const char *name;
    switch (outcome.kind) {
    case RUN_EXITED: snprintf(to, size, "exit %d", outcome.code); return to;
    case RUN_KILLED:
        name = sigabbrev_np(outcome.code);
        snprintf(to, size, name ? "killed by SIG%s" : "killed by signal %.0s%d", name ? name : "",
                 outcome.code);
        return to;
    case RUN_TIMED_OUT: snprintf(to, size, "timed out"); return to;
    case RUN_OOM: snprintf(to, size, "killed by the kernel: out of memory"); return to;
    case RUN_HUNG: snprintf(to, size, "stopped, and did not go on"); return to;
    case RUN_NOT_STARTED: break;
    }
    snprintf(to, size, "could not be started: %s", strerror(outcome.code));
    return to;
}

static int signal_of(const char *name, size_t n)
{
    if (n > 3 && memcmp(name, "SIG", 3) == 0)
        name += 3, n -= 3;
    for (int i = 1; i < 64; i++) {
        const char *known = sigabbrev_np(i);
        if (known && strlen(known) == n && memcmp(known, name, n) == 0)
            return i;
    }
    return 0;
}

static bool add_named(run_set *set, const char *name, size_t n)
{
    static const struct {
        const char *name;
        run_outcome_kind kind;
    } kinds[] = {{"signal", RUN_KILLED}, {"timeout", RUN_TIMED_OUT}, {"oom", RUN_OOM}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strlen(kinds[i].name) == n && memcmp(kinds[i].name, name, n) == 0) {
            set->kinds |= 1u << kinds[i].kind;
            return true;
        }
    }
    int signal = signal_of(name, n);
    set->signals |= signal ? UINT64_C(1) << signal : 0;
    return signal > 0;
}

static bool add_statuses(run_set *set, const char *text, const char *end)
{
    char *after;
    unsigned long first = strtoul(text, &after, 10), last = first;
    if (*after == '-' && isdigit((unsigned char)after[1]))
        last = strtoul(after + 1, &after, 10);
    if (after != end || first > last || last > 255)
        return false;
    for (unsigned long i = first; i <= last; i++)
        set->status[i / 64] |= UINT64_C(1) << (i % 64);
    return true;
}

bool run_set_parse(const char *text, run_set *ret_set)
{
    run_set set = {0};
    for (;; text++) {
        size_t n = strcspn(text, ",");
        bool ok = isdigit((unsigned char)*text) ? add_statuses(&set, text, text + n)
                                                : add_named(&set, text, n);
        if (!ok)
            return false;
        text += n;
        if (!*text)
            break;
    }
    *ret_set = set;
    return true;
}

bool run_set_has(const run_set *set, run_outcome outcome)
{
    unsigned code = (unsigned)outcome.code;
    if (set->kinds >> outcome.kind & 1)
        return true;
    if (outcome.kind == RUN_EXITED)
        return set->status[code / 64 % 4] >> (code % 64) & 1;
    return outcome.kind == RUN_KILLED && (set->signals >> (code % 64) & 1);
}

/* ---- starting ------------------------------------------------------------------------------- */

bool run_schedule_may_start(const run_schedule *s, weir_time now, weir_time *ret_at)
{
    *ret_at = WEIR_FOREVER;
    if (s->running >= s->jobs || s->halted)
        return false;
    if (!s->last_start || now - s->last_start >= s->opts.delay_ns)
        return true;
    *ret_at = s->last_start + s->opts.delay_ns;
    return false;
}

bool run_schedule_may_read(const run_schedule *s)
{
    return s->waiting < RUN_WAITING_MAX && !s->halted;
}

void run_schedule_started(run_schedule *s, weir_time now)
{
    s->running++;
    s->attempts++;
    s->last_start = now;
}

/* ---- ending --------------------------------------------------------------------------------- */

static void look_whether_to_halt(run_schedule *s)
{
    double failed = (double)s->failed, ended = (double)(s->failed + s->done);
    if (s->opts.halt == RUN_HALT_NEVER || s->halted)
        return;
    bool many = s->opts.halt_fails > 0 && failed >= s->opts.halt_fails;
    bool much =
        s->opts.halt_share > 0 && ended >= HALT_SAMPLE && failed >= s->opts.halt_share * ended;
    s->has_enough = s->opts.halt_done > 0 && (double)s->done >= s->opts.halt_done;
    if (many || much || s->has_enough)
        s->halted = s->opts.halt;
}

run_verdict run_schedule_ended(run_schedule *s, run_outcome outcome, uint64_t n, bool was_running,
                               uint64_t random, int64_t *ret_delay_ns)
{
    s->running -= was_running;
    s->timed_out += outcome.kind == RUN_TIMED_OUT;
    s->killed_for_memory += outcome.kind == RUN_OOM;
    if (run_set_has(&s->opts.ok, outcome)) {
        s->done++;
        look_whether_to_halt(s);
        return RUN_DONE;
    }
    bool may = n <= s->opts.retries && run_set_has(&s->opts.retry, outcome) &&
               outcome.kind != RUN_NOT_STARTED;
    if (may && s->halted)
        return RUN_LEFT;
    if (may) {
        uint32_t retry = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
        *ret_delay_ns = weir_backoff_delay(&s->opts.backoff, retry, 0, random);
        s->retried++;
        return RUN_AGAIN;
    }
    s->failed++;
    look_whether_to_halt(s);
    return RUN_FAILED;
}

void run_schedule_crowded(run_schedule *s)
{
    s->running--;
    s->retried++;
    s->killed_for_memory++;
    s->jobs = s->running > 1 ? s->running : 1;
}

/* ---- those that wait ------------------------------------------------------------------------ */

static void swap(run_waiting *a, run_waiting *b)
{
    run_waiting t = *a;
    *a = *b;
    *b = t;
}

void run_schedule_push(run_schedule *s, void *task, weir_time due)
{
    size_t at = s->waiting++;
    s->heap[at] = (run_waiting){task, due};
    for (; at > 0 && s->heap[(at - 1) / 2].due > s->heap[at].due; at = (at - 1) / 2)
        swap(&s->heap[at], &s->heap[(at - 1) / 2]);
}

void *run_schedule_pop(run_schedule *s, weir_time now, weir_time *ret_at)
{
    *ret_at = s->waiting ? s->heap[0].due : WEIR_FOREVER;
    if (s->waiting == 0 || s->heap[0].due > now)
        return NULL;
    void *task = s->heap[0].task;
    s->heap[0] = s->heap[--s->waiting];
    for (size_t at = 0;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < s->waiting && s->heap[child + 1].due < s->heap[child].due)
            child++;
        if (child >= s->waiting || s->heap[at].due <= s->heap[child].due)
            return task;
        swap(&s->heap[at], &s->heap[child]);
        at = child;
    }
}

void run_schedule_put_off(run_schedule *s, int64_t ns)
{
    for (size_t i = 0; i < s->waiting; i++)
        s->heap[i].due += ns;
}

/* ---- time limits ---------------------------------------------------------------------------- */

int run_schedule_signal(const run_schedule *s, weir_time started, int sent, weir_time sent_at,
                        weir_time now, weir_time *ret_at)
{
    *ret_at = WEIR_FOREVER;
    if (sent == SIGKILL || (sent == 0 && s->opts.timeout_ns == 0))
        return 0;
    weir_time due = sent ? sent_at + s->opts.kill_after_ns : started + s->opts.timeout_ns;
    if (now >= due)
        return sent ? SIGKILL : SIGTERM;
    *ret_at = due;
    return 0;
}
