/* scale.h - how many workers a stage needs: as few as carry its load.
 *
 * The load is how much arrives times how long one item takes: so many workers are busy on average
 * (Little's law), and 5 % more keep the queue from growing.  A full queue hides it: who is blocked
 * brings nothing.  So arrivals are counted against the time in which the producers were not blocked.
 *
 * Steady:   the estimate averages over half a minute, so noise moves it little; and a number is kept
 *           while it is enough and not a sixth too large.
 * A step:   when the last second differs from the estimate by more than chance, as measured from how
 *           unevenly items arrive, the estimate begins again from there.
 * Growing:  at once, in proportion, at most to the double in 0.3 s; a little more while a backlog is
 *           worked off, and where the stage is saturated although the estimate says that it is not.
 * Not:      while its own workers are blocked downstream, or held by the stage's limits, for a tenth
 *           of their time: more of them would wait, too.  And not where growing was in vain: when a
 *           quarter more workers do not get a twentieth more done (one CPU, one lock), the number goes
 *           back, and stays for two minutes, twice as long each time.
 * Shrinking: after 2 s in which there were too many, and since the last growth, by at most a half
 *           every 0.5 s.  When a shrinking had to be taken back the wait is a minute, until the load
 *           itself changes.
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

/* Everything but the last line is cumulative, and summed over workers.  Calls and waits that still go
 * on count up to now. */
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
    unsigned workers;             /* now */
    double producers;             /* that put into its queue; 0: one */
} weir__scale_sample;

/* Sums that fade; what they are of, over what they are per. */
typedef struct weir__fading {
    double sum, per;
} weir__fading;

typedef struct weir__scale {
    weir__scale_terms terms;
    weir__scale_sample last;
    weir__fading arrivals,
        lately;              /* items per second in which producers were not blocked: 30 s, 1 s */
    double unevenness;       /* variance of what arrives over its mean; 1: by pure chance */
    weir__fading service;    /* seconds of work per item */
    double in_progress;      /* items, at the last sample */
    weir__fading busy, held; /* shares of the workers' time, lately; held: or blocked */
    weir__fading finished;   /* items per second, lately */
    weir_time changed_at, grown_at, ample_since, short_since;
    int64_t patience_ns; /* before it shrinks */
    bool is_shrunk;      /* the last change was that */
    struct {             /* whether growing helps */
        unsigned workers;
        double rate;
        uint64_t done; /* when it grew last */
        unsigned ceiling;
        weir_time until;
        int64_t hold_ns;
    } trial;
} weir__scale;

void weir__scale_init(weir__scale *scale, const weir__scale_terms *terms, weir_time now);

/* Takes one sample, 0.1 s after the last one or so, and returns how many workers there should be.
 * The counters begin at 0 when the scale does. */
unsigned weir__scale_step(weir__scale *scale, const weir__scale_sample *sample);

/* Workers that are busy on average, were nobody blocked: what it goes by. */
double weir__scale_load(const weir__scale *scale);

#endif
