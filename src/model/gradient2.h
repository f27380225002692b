/* gradient2.h - a limit that follows the ratio of what calls take without a queue to what they take
 * now.
 *
 * Gradient2Limit of Netflix's concurrency-limits (Apache-2.0): with g = tolerance x baseline / rtt,
 * in [0.5, 1], the limit goes to g x limit + queue, a fifth of the way.  It rests where (1 - g) x
 * limit = queue: at tolerance x capacity + queue.
 *
 * Two defaults differ.  The published tolerance of 1.5 lets half as many calls wait as are served,
 * and the queue of 4 is 20 % of a capacity of 20; here the tolerance is 1, because the baseline is
 * measured without a queue (baseline.h) and so needs no slack, and the queue is 5 % of the limit
 * (but 1).  The source has no answer to a drop; here it is the strongest one the formula has, g =
 * 0.5.
 */
#ifndef WEIR_MODEL_GRADIENT2_H
#define WEIR_MODEL_GRADIENT2_H

typedef struct weir__gradient2 {
    double tolerance; /* >= 1 */
    double queue;     /* calls; 0: 5 % of the limit, at least 1 */
    double smoothing; /* in (0, 1] */
} weir__gradient2;

#define WEIR__GRADIENT2_INIT ((weir__gradient2){.tolerance = 1, .smoothing = 0.2})

double weir__gradient2_next(const weir__gradient2 *gradient2, double limit, double rtt,
                            double baseline);
double weir__gradient2_drop(const weir__gradient2 *gradient2, double limit);

#endif
