/* report.c - sentences, and when they are written; see report.h. */
#include "report.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ON_TERMINAL (WEIR_SECOND / 4) /* between two lines of progress */
#define ELSEWHERE   (10 * WEIR_SECOND)
#define SHOWN       60 /* bytes of an item */

void run_report_begin(run_report *r, const run_settings *settings, const run_schedule *schedule,
                      const run_input *input)
{
    *r = (run_report){.settings = settings, .schedule = schedule, .input = input};
    r->began = weir_now();
    r->on_terminal = isatty(STDERR_FILENO);
    bool shows = r->on_terminal ? !settings->no_progress && !settings->quiet : settings->progress;
    r->next_progress = shows ? r->began + (r->on_terminal ? ON_TERMINAL : ELSEWHERE) : WEIR_FOREVER;
}

/* ---- writing -------------------------------------------------------------------------------- */

static void write_all(const char *text, size_t length)
{
    while (length > 0) {
        ssize_t n = write(STDERR_FILENO, text, length);
        struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
        if (n < 0 && errno == EAGAIN) /* it is somebody's who does not block */
            poll(&ready, 1, -1);
        else if (n < 0 && errno != EINTR)
            return; /* there is nobody to tell */
        text += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
}

void run_report_clear(run_report *r)
{
    if (r->is_shown)
        write_all("\r\033[K", 4);
    r->is_shown = false;
}

void run_report_flush(run_report *r)
{
    if (r->length == 0)
        return;
    run_report_clear(r);
    write_all(r->text, r->length);
    r->length = 0;
    if (r->unsaid > 0) {
        uint64_t unsaid = r->unsaid;
        r->unsaid = 0;
        run_report_say(r, "%" PRIu64 " more failures, which there was no time to tell", unsaid);
        run_report_flush(r);
    }
}

void run_report_say(run_report *r, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    size_t length = n < (int)sizeof line ? (size_t)n : text_cut(line, sizeof line - 2);
    line[length] = '\0';
    text_plain(line, length, '?'); /* it may quote an item, or a command */
    if (r->length + length + 16 > sizeof r->text) {
        r->unsaid++;
        return;
    }
    r->length += (size_t)sprintf(r->text + r->length, "weir: run: %s\n", line);
}

/* An item, or the beginning of it, up to a character of UTF-8.  (A sentence shows no control characters.) */
static const char *shown(const run_item *item, char to[SHOWN + 8])
{
    bool is_cut = item->length > SHOWN;
    size_t n = is_cut ? text_cut(item->text, SHOWN) : item->length;
    memcpy(to, item->text, n);
    strcpy(to + n, is_cut ? "..." : "");
    return to;
}

/* ---- items ---------------------------------------------------------------------------------- */

void run_report_failure(run_report *r, const run_item *item, const char *what, uint64_t attempts)
{
    char name[SHOWN + 8], often[48] = "";
    if (r->settings->quiet)
        return;
    if (attempts > 1)
        snprintf(often, sizeof often, ", in the last of %" PRIu64 " attempts", attempts);
    run_report_say(r, "item %" PRIu64 " (%s): %s%s", item->number, shown(item, name), what, often);
}

void run_report_retry(run_report *r, const run_item *item, const char *what, int64_t delay_ns)
{
    char name[SHOWN + 8];
    if (r->settings->quiet)
        return;
    run_report_say(r, "item %" PRIu64 " (%s): %s; again in %s", item->number, shown(item, name),
                   what, text_time((double)delay_ns).s);
}

void run_report_suspended(run_report *r, const run_item *item, bool is_suspended)
{
    char name[SHOWN + 8];
    if (!r->settings->quiet)
        run_report_say(r, "item %" PRIu64 " (%s): %s", item->number, shown(item, name),
                       is_suspended ? "suspended: memory runs short" : "goes on");
}

/* ---- the whole run ---------------------------------------------------------------------------- */

static uint64_t left(const run_schedule *s)
{
    return s->read - s->done - s->failed - s->skipped;
}

/* "12 items: 9 done, 1 failed, 0 skipped, 2 left": the law. */
static int print_law(const run_report *r, char *to, size_t size)
{
    const run_schedule *s = r->schedule;
    return snprintf(to, size,
                    "%" PRIu64 " items: %" PRIu64 " done, %" PRIu64 " failed, %" PRIu64
                    " skipped, %" PRIu64 " left",
                    s->read, s->done, s->failed, s->skipped, left(s));
}

void run_report_status(run_report *r)
{
    char law[160];
    const run_schedule *s = r->schedule;
    print_law(r, law, sizeof law);
    run_report_say(r, "%s; %" PRIu64 " of %" PRIu64 " jobs run, %zu wait for another attempt; %s",
                   law, s->running, s->jobs, s->waiting,
                   text_time((double)(weir_now() - r->began)).s);
}

void run_report_end(run_report *r, bool read_all, const char *why)
{
    char law[160], retries[48] = "";
    const run_schedule *s = r->schedule;
    if (r->settings->quiet)
        return;
    print_law(r, law, sizeof law);
    if (s->retried)
        snprintf(retries, sizeof retries, "; %" PRIu64 " retries", s->retried);
    run_report_say(r, "%s%s%s%s%s; %s", law, read_all ? "" : ", and not all were read", retries,
                   why ? "; " : "", why ? why : "", text_time((double)(weir_now() - r->began)).s);
}

/* ---- progress ------------------------------------------------------------------------------- */

/* How much is done, by what is known without reading ahead; < 0: not known. */
static double share(const run_report *r)
{
    const run_schedule *s = r->schedule;
    double ended = (double)(s->done + s->failed + s->skipped);
    if (r->settings->total)
        return ended / (double)r->settings->total;
    uint64_t total, at = run_input_position(r->input, &total);
    if (total == 0 || s->read == 0)
        return -1;
    return (double)at / (double)total * ended / (double)s->read;
}

static void print_rest(const run_report *r, weir_time now, char *to, size_t size)
{
    const run_schedule *s = r->schedule;
    double known = share(r), worked = (double)(s->done + s->failed),
           took = (double)(now - r->began);
    *to = '\0';
    if (known <= 0 || known > 1 || worked == 0)
        return;
    snprintf(to, size, "  %.0f%%  %s left", 100 * known, text_time(took / known - took).s);
}

void run_report_progress(run_report *r, weir_time now)
{
    char rest[128], line[512];
    const run_schedule *s = r->schedule;
    if (now < r->next_progress)
        return;
    r->next_progress = now + (r->on_terminal ? ON_TERMINAL : ELSEWHERE);
    double rate = (double)(s->done + s->failed) * 1e9 / (double)(now - r->began + 1);
    print_rest(r, now, rest, sizeof rest);
    int n = snprintf(
        line, sizeof line, "%s done  %s failed  %s retried  %" PRIu64 "/%" PRIu64 " run  %s/s%s",
        text_count((double)s->done).s, text_count((double)s->failed).s,
        text_count((double)s->retried).s, s->running, s->jobs, text_rate(rate).s, rest);
    if (!r->on_terminal) {
        run_report_say(r, "%s", line);
        run_report_flush(r);
        return;
    }
    run_report_clear(r);
    write_all(line, (size_t)n);
    r->is_shown = true;
}
