/* rtt_window.h - round trips of calls, gathered until they say enough to change a limit.
 *
 * A window opens one round trip after the limit changed, so that what it sees was made by the limit
 * it judges, and is full after another round trip, when it has enough samples: at least so many,
 * and so many that the standard error of their average is 2 % of it, but for no more than four
 * round trips.  Calls count when they end, so long ones are not missed.  As WindowedLimit of
 * Netflix's concurrency-limits (Apache-2.0), which does not wait for either.
 *
 * Drops:      count, but their round trips do not: a refusal is quicker than an answer, a timeout
 *             slower. Calls that began before the last drop which was acted upon belong to the same
 *             overload, and are not counted again (as in TCP: RFC 6582).
 */
#ifndef WEIR_MODEL_RTT_WINDOW_H
#define WEIR_MODEL_RTT_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "model/quantile.h"

typedef enum weir__rtt_kind {
    WEIR__RTT_AVERAGE,
    WEIR__RTT_MINIMUM,
    WEIR__RTT_QUANTILE
} weir__rtt_kind;

typedef struct weir__rtt_window {
    weir__rtt_kind kind;
    uint32_t enough;          /* samples */
    int64_t least_ns;         /* its length, whatever the round trips */
    int64_t opens_at;         /* nanoseconds, as `now` */
    int64_t closes_at;        /* 0: nothing measured yet, so as soon as there are enough */
    int64_t latest_at;        /* then it is full, however they scatter */
    int64_t forgive_before;   /* drops of calls that began before are known */
    uint32_t n;               /* samples inside, without drops */
    uint64_t most_in_flight;  /* when one of them ended */
    double sum, squares, min; /* of the round trips, nanoseconds */
    weir__quantile quantile;
} weir__rtt_window;

/* What a window came to. */
typedef struct weir__rtt {
    double ns;       /* the average, minimum or quantile */
    double variance; /* of the average */
    uint64_t in_flight;
} weir__rtt;

void weir__rtt_window_init(weir__rtt_window *window, weir__rtt_kind kind, double p, uint32_t enough,
                           int64_t least_ns, int64_t now_ns);

/* One call that ended now, and was not dropped; true: the window is full, and says what it saw. */
bool weir__rtt_window_add(weir__rtt_window *window, int64_t now_ns, int64_t rtt_ns,
                          uint64_t in_flight, weir__rtt *ret_rtt);

/* One that was dropped; whether that is news. */
bool weir__rtt_window_drop(weir__rtt_window *window, int64_t now_ns, int64_t rtt_ns);

/* Begins a new one: at once, or, after the limit changed, when that can be seen. */
void weir__rtt_window_next(weir__rtt_window *window, int64_t now_ns, int64_t rtt_ns, bool changed);

#endif
