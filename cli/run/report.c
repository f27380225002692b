/* report.c - sentences, and when they are written; see report.h. */
#include "report.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
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
    bool is_mixed = settings->output.mode == RUN_OUTPUT_DIRECT; /* jobs would write into it */
    bool shows = r->on_terminal ? !settings->no_progress && !settings->quiet && !is_mixed
                                : settings->progress;
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
    if (r->shown[0])
        write_all("\r\033[K", 4);
    r->shown[0] = '\0';
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
    char law[160], before[96] = "", retries[48] = "";
    const run_schedule *s = r->schedule;
    if (r->settings->quiet)
        return;
    print_law(r, law, sizeof law);
    if (s->retried)
        snprintf(retries, sizeof retries, "; %" PRIu64 " retries", s->retried);
    if (s->failed_before)
        snprintf(before, sizeof before,
                 "; %" PRIu64 " of the skipped have failed before: --retry-failed",
                 s->failed_before);
    run_report_say(r, "%s%s%s%s%s%s; %s", law, read_all ? "" : ", and not all were read", before,
                   retries, why ? "; " : "", why ? why : "",
                   text_time((double)(weir_now() - r->began)).s);
}

/* ---- progress ------------------------------------------------------------------------------- */

/* Items there are, by what is known without reading ahead: what the items so far took of the bytes there are.  0: not
 * known. */
static double total(const run_report *r)
{
    uint64_t bytes, at = run_input_position(r->input, &bytes);
    if (r->settings->total || !bytes || !at)
        return (double)r->settings->total;
    return (double)r->schedule->read * (double)bytes / (double)at;
}

static run_numbers numbers(const run_report *r)
{
    const run_schedule *s = r->schedule;
    run_numbers n = {.done = s->done,
                     .failed = s->failed,
                     .skipped = s->skipped,
                     .retried = s->retried,
                     .running = s->running,
                     .jobs = s->jobs,
                     .total = total(r)};
    return n;
}

void run_report_put_off(run_report *r, weir_time now)
{
    run_numbers n = numbers(r);
    run_progress_begin(&r->progress, now, &n);
}

/* The columns of the terminal; 0: it is not ours now, somebody else writes to it. */
static size_t columns(void)
{
    struct winsize size;
    pid_t owner = tcgetpgrp(STDERR_FILENO);
    if (owner > 0 && owner != getpgrp())
        return 0;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

/* Over what is there, which does not flicker; nothing is written where it would be the same. */
static void draw(run_report *r, const char *line)
{
    char with_escapes[sizeof r->shown + 8];
    if (strcmp(line, r->shown) == 0)
        return;
    int n = snprintf(with_escapes, sizeof with_escapes, "\r%s\033[K", line);
    write_all(with_escapes, (size_t)n);
    strcpy(r->shown, line);
}

void run_report_progress(run_report *r, weir_time now)
{
    char line[sizeof r->shown];
    if (r->next_progress == WEIR_FOREVER)
        return;
    run_numbers n = numbers(r);
    if (!r->progress.began)
        run_progress_begin(&r->progress, r->began, &(run_numbers){0});
    run_progress_look(&r->progress, now, &n);
    if (now < r->next_progress)
        return;
    r->next_progress = now + (r->on_terminal ? ON_TERMINAL : ELSEWHERE);
    size_t width = r->on_terminal ? columns() : sizeof line;
    if (width == 0)
        return;
    if (r->memory)
        run_memory_look(r->memory, &n.memory, &n.most);
    run_progress_print(&r->progress, now, &n, width - 1, line, sizeof line);
    if (!r->on_terminal) {
        run_report_say(r, "%s", line);
        run_report_flush(r);
    } else {
        draw(r, line);
    }
}
