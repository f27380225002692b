/* scale.h - how many workers a stage needs: as few as carry its load.
 *
 * The load is how much arrives times how long one item takes: so many workers are busy on average
 * (Little's law), and 5 % more keep the queue from growing.  A full queue hides it: who is blocked
 * brings nothing.  So arrivals are counted against the time in which the producers were not blocked, but
 * for at most twice what came: some producers make up for that time later, others do not.
 *
 * Steady:    the estimate averages over half a minute, so noise moves it little; and a number is kept
 *            while it is enough, and not a tenth too large, or within what chance explains.
 * A step:    when what came lately (in 1 to 6 s) differs from what came before by more than chance
 *            does, as measured from how unevenly items come, the estimate begins again from there.
 *            It takes a few dozen items to know: at 50/s about a second, at 5/s five.
 * Growing:   at once, in proportion, at most to the double in 0.3 s; and by an eighth a second, to a
 *            quarter more, where the stage is saturated although the estimate says that it is not.
 * Not:       while its own workers are blocked downstream, or held by the stage's limits, for a tenth
 *            of their time: more of them would wait, too.  And not where growing was in vain: when it
 *            has clearly brought less than a fifth of what it should (one CPU, one lock), the number
 *            goes back and does not grow for two minutes, twice as long each time.  That it is in vain
 *            is known only by trying.
 * Shrinking: 2 s after the last growth, where there are too many for 1.5 s, or clearly, at most to the
 *            half every 0.3 s.  When a shrinking had to be taken back the wait is two minutes, until
 *            the load takes a step; but for a load that takes them all the time.
 */
#ifndef WEIR_MODEL_SCALE_H
#define WEIR_MODEL_SCALE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weir/base.h>

typedef struct weir__scale_terms {
    unsigned min, max; /* 1 <= min <= max */
} weir__scale_terms;

/* Counters and times are cumulative, and summed over workers; calls and waits that still go on count up
 * to now.  The last three lines are as of now. */
typedef struct weir__scale_sample {
    weir_time now;
    uint64_t arrived; /* items that were offered to its queue: accepted, or lost */
    uint64_t done;
    uint64_t busy_ns, idle_ns;
    uint64_t blocked_ns;          /* its workers waited for room downstream */
    uint64_t held_ns;             /* its workers waited for its own limits */
    uint64_t upstream_blocked_ns; /* producers waited for room in its queue */
    uint64_t lost;                /* its queue dropped, refused or put on disk: it was full */
    size_t depth, capacity;       /* of its queue; capacity 0: has no bound */
    unsigned workers;             /* that there are now */
    double producers;             /* that put into its queue; 0: one */
} weir__scale_sample;

/* Two sums of which the older parts fade: what there was, over what it was per. */
typedef struct weir__fading {
    double sum, per;
} weir__fading;

#define WEIR__SCALE_SAMPLES 64u /* a power of 2 */

typedef struct weir__arrivals {
    double items, free_s; /* what came, in how much time of the producers */
    double expected, odd; /* and was to be expected; the square of the difference */
} weir__arrivals;

typedef struct weir__scale {
    weir__scale_terms terms;
    weir__scale_sample last;
    unsigned wanted;
    /* What is measured, fading over this time. */
    weir__fading arrivals; /* items, per second in which producers were free; 30 s, since a step */
    weir__fading unevenness; /* variance of what comes in a sample, over its mean; 30 s */
    weir__fading service;    /* seconds of work, per item; 15 s, since a step */
    weir__fading served;     /* the same; 2 s */
    weir__fading finished;   /* items, per second; 1 s */
    weir__fading idle;       /* seconds, per second of all workers; 1 s */
    weir__fading useless;    /* the same: blocked or held */
    weir__fading refused;    /* seconds that producers were blocked, per second; 1 s */
    double in_progress;      /* items, at the last sample */
    weir__arrivals samples[WEIR__SCALE_SAMPLES]; /* the last ones */
    unsigned n_samples;                          /* ever */
    weir_time changed_at, grown_at, shrunk_at;
    weir_time ample_since;   /* too many; 0: not */
    weir_time short_since;   /* saturated; 0: not */
    weir_time patience_ns;   /* before it shrinks */
    weir_time excused_until; /* by a step */
    double excuses;          /* how often; fading, 120 s */
    struct {                 /* of whether growing helps; workers 0: none is on */
        unsigned workers;    /* before */
        double rate, items;  /* finished per second before, and known from so many */
        uint64_t done;       /* when it grew last */
    } trial;
    unsigned ceiling; /* growing beyond it was in vain, until then */
    weir_time ceiling_until, hold_ns;
} weir__scale;

void weir__scale_init(weir__scale *scale, const weir__scale_terms *terms, weir_time now);

/* Takes one sample, 0.1 s after the last one or so (less than 0.05 s is too soon, and changes nothing),
 * and returns how many workers there should be.  The counters begin at 0 when the scale does. */
unsigned weir__scale_step(weir__scale *scale, const weir__scale_sample *sample);

/* Workers that are busy on average, were nobody blocked: what it goes by. */
double weir__scale_load(const weir__scale *scale);

#endif
