/* waits.c - see waits.h. */
#include "model/waits.h"

#include <stdbool.h>

static double positive(double a)
{
    return a > 0 ? a : 0;
}

static bool is_told(const weir__line *line)
{
    return line->waiting == 0 || line->since_ns > 0;
}

/* How long those in line have waited since they are so many. */
static double going_on(const weir__line *line)
{
    bool is_known = line->since_ns > 0 && line->since_ns < line->at_ns;
    return is_known ? (double)line->waiting * (double)(line->at_ns - line->since_ns) : 0;
}

static void raise_total(weir__waits *waits, double to_ns)
{
    uint64_t total_ns = to_ns < 0x1p64 ? (uint64_t)to_ns : UINT64_MAX;
    if (total_ns > waits->total_ns)
        waits->total_ns = total_ns;
}

void weir__waits_begin(weir__waits *waits, const weir__line *now)
{
    *waits = (weir__waits){.last = *now};
    raise_total(waits, (double)now->blocked_ns + going_on(now));
}

/* (The sums first: their difference is exact, which large numbers of a double are not.) */
static double waited_between(const weir__line *before, const weir__line *now)
{
    double sums = now->blocked_ns > before->blocked_ns
                      ? (double)(now->blocked_ns - before->blocked_ns)
                      : -(double)(before->blocked_ns - now->blocked_ns);
    return positive(sums + going_on(now) - going_on(before));
}

/* As many as at the two looks; of a line that was empty, also those whose waits have ended since, which may be
 * those of who stands there now: for half of the rest. */
static double waited_about(const weir__line *before, const weir__line *now, double elapsed_ns)
{
    double ended_ns = before->waiting == 0 ? waited_between(before, now) : 0;
    double standing_ns = ((double)before->waiting + (double)now->waiting) * elapsed_ns;
    return ended_ns + positive(standing_ns - ended_ns) / 2;
}

double weir__waits_look(weir__waits *waits, const weir__line *now)
{
    const weir__line *before = &waits->last;
    double elapsed_ns = (double)now->at_ns - (double)before->at_ns;
    if (elapsed_ns <= 0)
        return 0;
    bool is_exact = is_told(before) && is_told(now);
    double waited_ns =
        is_exact ? waited_between(before, now) : waited_about(before, now, elapsed_ns);
    raise_total(waits, is_exact ? (double)now->blocked_ns + going_on(now)
                                : (double)waits->total_ns + waited_ns);
    waits->last = *now;
    return waited_ns / elapsed_ns;
}
