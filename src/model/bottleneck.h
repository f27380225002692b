/* bottleneck.h - who holds everything back.
 *
 * That a stage is blocked says where pressure arrives, not where it comes from: behind one slow
 * stage all stages are blocked.  So every blocked nanosecond is charged to the root of its chain.
 * Time that i waited for room in j is j's, unless j itself was blocked by k: then it goes on to k.
 *
 * Conservation:  what is charged is what was blocked, and what the lost items would have cost:
 *                sum(charged) == sum(blocked_ns) + sum(outside_ns) + sum(lost work), but for rounding.
 *
 * Lost work:  a stage that loses items instead of blocking is charged as if it had blocked: each item
 *             that is lost would have kept a producer waiting until a worker had done one more: the
 *             time of an item that is done, over the workers.  That waiting goes on down the chain as well, so the fast stage that throws away
 *             what a slow one behind it would have thrown away is not to blame.
 *
 * How much goes on, where j was blocked by k for a part of the time only: all of that part.  Of the
 * rest, in which j worked or was held by its own limits, the share b / (b + s), where b is the part
 * of its time that j was blocked by k, and s the part that k was starved (idle).  A stage that never
 * lets the next one starve holds nothing back, however busy it is: speeding it up gains nothing.  One
 * that is never blocked keeps everything.  (Going by j's times alone names a stage of 7 ms in front
 * of one of 10 ms, as soon as enough others wait behind it.)
 */
#ifndef WEIR_MODEL_BOTTLENECK_H
#define WEIR_MODEL_BOTTLENECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/graph.h"

/* What a stage is limited by; in public a weir_cause. */
typedef enum weir__cause {
    WEIR__CAUSE_WORKERS = 0, /* its function, in so many workers */
    WEIR__CAUSE_RATE,
    WEIR__CAUSE_LIMITER,
    WEIR__CAUSE_BREAKER,
    WEIR__CAUSE_MEMORY,
    WEIR__CAUSE_RETRY,  /* waits between attempts */
    WEIR__CAUSE_ORDER,  /* an ordered stage: done, but an item ahead is not */
    WEIR__CAUSE_SOURCE, /* nothing is held back: the source is the slowest */
    WEIR__CAUSES
} weir__cause;

/* What the workers of one stage did in a window; times are sums over them, and calls, waits and
 * idling that still go on count up to the end of the window. */
typedef struct weir__pressure {
    uint64_t busy_ns;               /* in its function; a source: making items */
    uint64_t idle_ns;               /* waiting for input */
    uint64_t held_ns[WEIR__CAUSES]; /* waiting for its own limits; [WORKERS] and [SOURCE] unused */
    uint64_t done;                  /* items */
    uint64_t lost;       /* items its queue dropped, refused or put on disk: it was full */
    uint64_t outside_ns; /* who is no stage waited for room in its queue */
    double workers;      /* on average */
    bool is_source;
} weir__pressure;

#define WEIR__BOTTLENECK_SCRATCH(n) ((size_t)(n) * ((size_t)(n) + 1))

/* Charges one window of n stages: adds to charged[n x WEIR__CAUSES], nanoseconds, so windows add up.
 * blocked_ns[i * n + j] is how long workers of i waited for room in j; it is 0 unless there is an edge
 * from i to j.  `order` is that of weir__graph_order.  `scratch` has room for
 * WEIR__BOTTLENECK_SCRATCH(n) numbers. */
void weir__bottleneck_charge(double *charged, const weir__pressure *stages,
                             const uint64_t *blocked_ns, const weir__edge *edges, size_t m,
                             const unsigned *order, unsigned n, double *scratch);

typedef struct weir__verdict {
    int stage;         /* the bottleneck, or the slowest source; -1: nothing held anything back */
    weir__cause cause; /* the most of what the stage is charged; SOURCE where source_bound */
    double share; /* of all that is charged, the stage's; source_bound: of the time of the other
                          stages' workers, what they waited for input */
    bool source_bound;
    bool unpressed; /* nobody was held up; share: of the time, what the stage was at work */
} weir__verdict;

/* What the charges of elapsed_ns say; `total` is what the windows add up to (workers: the average).
 * Where they are negligible, less than 1 % of all workers' time and a tenth of the sources', the
 * source is the slowest, if anybody waited for it 1 % of his time: the one that rested least.  Or a stage,
 * where it was clearly more at work than the sources: its queue took in all they had. */
weir__verdict weir__bottleneck_find(const double *charged, unsigned n, const weir__pressure *total,
                                    uint64_t elapsed_ns);

/* The verdict as a sentence without a full stop, as snprintf: returns its length.  rates[stage] is its
 * rate per second, where it is limited by one; NULL: not known.
 *
 *     stage 'store' is the bottleneck: 94 % of blocked time; it is limited by its 2 workers
 *     the source 'read' is the slowest: the stages waited for it 80 % of their time
 *     nothing held anything back
 */
size_t weir__bottleneck_say(char *buf, size_t size, const char *const *names,
                            const weir__verdict *verdict, const weir__pressure *total,
                            const double *rates);

#endif
