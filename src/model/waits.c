/* waits.c - see waits.h. */
#include "model/waits.h"

#include <stdbool.h>

static double least(double a, double b)
{
    return a < b ? a : b;
}

static double positive(double a)
{
    return a > 0 ? a : 0;
}

static bool tells_since(const weir__line *line)
{
    return line->since_ns > 0 && line->since_ns <= line->at_ns;
}

/* n callers, the first of whom has waited so long, and who came evenly. */
static double waited_by(double n, double first_ns)
{
    return first_ns * (n + 1) / 2;
}

static double going_in(const weir__line *line)
{
    if (line->waiting == 0 || !tells_since(line))
        return 0;
    return waited_by((double)line->waiting, (double)(line->at_ns - line->since_ns));
}

static void add_up(weir__waits *waits, const weir__line *now, double going_ns)
{
    double total = (double)now->ended_ns + going_ns;
    uint64_t total_ns = total < 0x1p64 ? (uint64_t)total : UINT64_MAX;
    if (total_ns > waits->total_ns)
        waits->total_ns = total_ns;
    waits->going_ns = going_ns;
    waits->last = *now;
}

void weir__waits_begin(weir__waits *waits, const weir__line *now)
{
    *waits = (weir__waits){0};
    add_up(waits, now, going_in(now));
}

/* Those who wait at both looks.  (They are served in the order they came.) */
static double count_stayed(const weir__line *before, const weir__line *now)
{
    double most = least((double)before->waiting, (double)now->waiting);
    if (most <= 0)
        return 0;
    if (!tells_since(before) || !tells_since(now))
        return now->ended_ns == before->ended_ns ? most : 0;
    if (now->since_ns > before->at_ns)
        return 0;
    if (now->since_ns <= before->since_ns)
        return most;
    double share =
        (double)(before->at_ns - now->since_ns) / (double)(before->at_ns - before->since_ns);
    double stayed = (double)before->waiting * share;
    return stayed < 1 ? 1 : least(stayed, most);
}

/* How long those who stayed had waited by the look before. */
static double waited_before(const weir__waits *waits, const weir__line *now, double stayed)
{
    const weir__line *before = &waits->last;
    if (stayed <= 0)
        return 0;
    if (tells_since(before) && tells_since(now) && now->since_ns > before->since_ns)
        return least(waits->going_ns, waited_by(stayed, (double)(before->at_ns - now->since_ns)));
    return waits->going_ns * (stayed / (double)before->waiting);
}

/* How long a wait was that ended since the look before; much, where that is not told. */
static double mean_wait(const weir__line *before, const weir__line *now)
{
    if (now->waits <= before->waits || now->ended_ns <= before->ended_ns)
        return 0x1p64;
    return (double)(now->ended_ns - before->ended_ns) / (double)(now->waits - before->waits);
}

/* How long those in line who came after the look before have waited. */
static double waited_since(const weir__line *before, const weir__line *now, double came,
                           double stayed, double elapsed_ns)
{
    if (came <= 0)
        return 0;
    if (stayed > 0)
        return came * elapsed_ns / 2;
    if (!tells_since(now))
        return came * least(elapsed_ns / 2, mean_wait(before, now));
    return waited_by(came, least((double)(now->at_ns - now->since_ns), elapsed_ns));
}

/* Of the waits that ended, what was after the look before. */
static double ended_since(const weir__waits *waits, const weir__line *now, double counted_ns,
                          double stayed, double elapsed_ns)
{
    const weir__line *before = &waits->last;
    if (now->ended_ns <= before->ended_ns)
        return 0;
    double ended = positive((double)(now->ended_ns - before->ended_ns) - counted_ns);
    if (now->waits == 0)
        return ended;
    double began = now->waits > before->waits ? (double)(now->waits - before->waits) : 0;
    return least(ended, ((double)before->waiting - stayed + began) * elapsed_ns);
}

double weir__waits_look(weir__waits *waits, const weir__line *now)
{
    double elapsed_ns = (double)now->at_ns - (double)waits->last.at_ns;
    if (elapsed_ns <= 0)
        return 0;
    double stayed = count_stayed(&waits->last, now);
    double before_ns = waited_before(waits, now, stayed);
    double came = (double)now->waiting - stayed;
    double new_ns = waited_since(&waits->last, now, came, stayed, elapsed_ns);
    double ended_ns =
        ended_since(waits, now, positive(waits->going_ns - before_ns), stayed, elapsed_ns);
    double still_ns = stayed * elapsed_ns + new_ns;
    bool is_known = now->waiting == 1 && tells_since(now);
    add_up(waits, now, is_known ? going_in(now) : before_ns + still_ns);
    return (ended_ns + still_ns) / elapsed_ns;
}
