/* progress.c - see progress.h. */
#include "progress.h"
#include "text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define SAMPLE_EVERY (WEIR_SECOND / 4)
#define ENOUGH_TIME  (10 * WEIR_SECOND) /* for a rate */
#define ENOUGH_ITEMS 10
#define FIRST_TIME   (2 * WEIR_SECOND) /* before that there is none */
#define FIRST_ITEMS  3
#define FOLLOWS      (5 * WEIR_SECOND) /* the time left follows the estimate in about that */

/* ---- the rate --------------------------------------------------------------------------------- */

static uint64_t worked(const run_numbers *numbers)
{
    return numbers->done + numbers->failed;
}

static void sample(run_progress *p, weir_time now, uint64_t ended)
{
    unsigned at = p->n++ % RUN_PROGRESS_SAMPLES;
    p->samples[at].at = now;
    p->samples[at].ended = ended;
}

void run_progress_begin(run_progress *p, weir_time now, const run_numbers *numbers)
{
    *p = (run_progress){.began = now, .looked = now};
    sample(p, now, worked(numbers));
}

double run_progress_rate(const run_progress *p, weir_time now, const run_numbers *numbers)
{
    uint64_t ended = worked(numbers), items = 0;
    int64_t time = 0;
    unsigned kept = p->n < RUN_PROGRESS_SAMPLES ? p->n : RUN_PROGRESS_SAMPLES;
    for (unsigned back = 1; back <= kept && (time < ENOUGH_TIME || items < ENOUGH_ITEMS); back++) {
        unsigned at = (p->n - back) % RUN_PROGRESS_SAMPLES;
        time = now - p->samples[at].at;
        items = ended - p->samples[at].ended;
    }
    return time < FIRST_TIME || items < FIRST_ITEMS ? -1 : (double)items * 1e9 / (double)time;
}

/* ---- the time left ---------------------------------------------------------------------------- */

static double left(const run_numbers *numbers)
{
    return numbers->total - (double)(worked(numbers) + numbers->skipped);
}

static void estimate(run_progress *p, weir_time now, const run_numbers *numbers)
{
    double rate = run_progress_rate(p, now, numbers), rest = left(numbers);
    double passed = (double)(now - p->looked) / (double)FOLLOWS;
    p->looked = now;
    if (rate <= 0 || numbers->total <= 0 || rest < 0 || rest / rate > 1e8) {
        p->ends_at = 0;
        return;
    }
    weir_time then = now + (int64_t)(rest / rate * 1e9);
    double part = p->ends_at ? passed < 1 ? passed : 1 : 1;
    p->ends_at += (int64_t)((double)(then - p->ends_at) * part);
}

void run_progress_look(run_progress *p, weir_time now, const run_numbers *numbers)
{
    if (now - p->looked < SAMPLE_EVERY)
        return;
    uint64_t ended = worked(numbers);
    if (ended > p->samples[(p->n - 1) % RUN_PROGRESS_SAMPLES].ended)
        sample(p, now, ended);
    estimate(p, now, numbers);
}

/* ---- the line --------------------------------------------------------------------------------- */

enum { DONE, FAILED, RETRIED, RUN, RATE, MEMORY, SHARE, LEFT, PARTS };

/* Whole seconds: nobody knows it better. */
static void print_left(double ns, char *to, size_t size)
{
    double s = round(fmax(ns, 0) / 1e9);
    if (s < 60)
        snprintf(to, size, "%.0fs left", s);
    else
        snprintf(to, size, "%s left", text_time(s * 1e9).s);
}

typedef char parts[PARTS][160];

static void print_parts(const run_progress *p, weir_time now, const run_numbers *n, parts to)
{
    size_t size = sizeof to[0];
    double rate = run_progress_rate(p, now, n), rest = left(n);
    snprintf(to[DONE], size, "%s done", text_count((double)n->done).s);
    if (n->failed)
        snprintf(to[FAILED], size, "%s failed", text_count((double)n->failed).s);
    if (n->retried)
        snprintf(to[RETRIED], size, "%s retried", text_count((double)n->retried).s);
    snprintf(to[RUN], size, "%" PRIu64 "/%" PRIu64 " run", n->running, n->jobs);
    if (rate >= 0)
        snprintf(to[RATE], size, "%s/s", text_rate(rate).s);
    if (n->most)
        snprintf(to[MEMORY], size, "%s of %s", text_bytes((double)n->memory).s,
                 text_bytes((double)n->most).s);
    if (n->total > 0 && rest >= 0)
        snprintf(to[SHARE], size, "%.0f%%", 100 * (1 - rest / n->total));
    if (p->ends_at)
        print_left((double)(p->ends_at - now), to[LEFT], size);
}

static size_t length(parts of)
{
    size_t sum = 0;
    for (int i = 0; i < PARTS; i++)
        sum += of[i][0] ? strlen(of[i]) + (sum ? 2 : 0) : 0;
    return sum;
}

void run_progress_print(const run_progress *p, weir_time now, const run_numbers *numbers,
                        size_t columns, char *to, size_t size)
{
    static const int least_first[] = {MEMORY, RETRIED, RATE, RUN, SHARE, FAILED, LEFT};
    parts shown = {0};
    print_parts(p, now, numbers, shown);
    for (size_t i = 0; i < sizeof least_first / sizeof *least_first; i++) {
        if (length(shown) > columns)
            shown[least_first[i]][0] = '\0';
    }
    int n = 0;
    *to = '\0';
    for (int i = 0; i < PARTS; i++) {
        if (shown[i][0] && (size_t)n < size)
            n += snprintf(to + n, size - (size_t)n, "%s%s", n ? "  " : "", shown[i]);
    }
    if (strlen(to) > columns)
        to[columns] = '\0';
}
