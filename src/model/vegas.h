/* vegas.h - a limit that keeps a few calls, and no more, waiting in front of what serves them.
 *
 * L. Brakmo, L. Peterson, "TCP Vegas: End to End Congestion Avoidance on a Global Internet", 1995;
 * steps as VegasLimit of Netflix's concurrency-limits (Apache-2.0).  Of `limit` calls whose round
 * trip is `rtt` and would be `baseline` if nobody waited, limit x (1 - baseline / rtt) wait: below
 * alpha it grows, above beta it shrinks.
 *
 * Two things differ from the source.  Alpha and beta are at most 1/32 and 1/16 of the limit (but
 * 2): the published 3 and 6 calls are nothing before 500 servers, and 30 % too many before 20. And
 * a limit that is far above beta goes half of the way in one step, where the published step, one
 * call at a time, would need seconds when the capacity halves.
 */
#ifndef WEIR_MODEL_VEGAS_H
#define WEIR_MODEL_VEGAS_H

typedef struct weir__vegas {
    double alpha, beta; /* calls; 0: from the limit */
    double smoothing;   /* in (0, 1]: how much of a step is taken */
} weir__vegas;

#define WEIR__VEGAS_INIT ((weir__vegas){.smoothing = 1})

/* The next limit: more than `limit` where nobody waits, less where too many do. */
double weir__vegas_next(const weir__vegas *vegas, double limit, double rtt, double baseline);

/* After a drop. */
double weir__vegas_drop(const weir__vegas *vegas, double limit);

#endif
