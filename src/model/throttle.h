/* throttle.h - how likely a client keeps a request back because its backend refuses too many.
 *
 *     P = max(0, (requests - K accepts) / (requests + 1))
 *
 * over a sliding window; Beyer, Jones, Petoff and Murphy (eds.), "Site Reliability Engineering",
 * chapter 21, "Client-Side Throttling".  P is kept below a limit, so that some requests always find
 * out whether the backend is back.
 */
#ifndef WEIR_MODEL_THROTTLE_H
#define WEIR_MODEL_THROTTLE_H

#include "model/time_window.h"

typedef struct weir__throttle {
    weir__time_window window; /* failed: not accepted, by the backend or by us */
    double k;                 /* >= 1 */
    double max_chance;        /* (0, 1) */
} weir__throttle;

void weir__throttle_init(weir__throttle *throttle, double k, double max_chance, int64_t window_ns,
                         int64_t now_ns);

/* P now. */
double weir__throttle_chance(weir__throttle *throttle, int64_t now_ns);

/* Whether a request may go, by a random number in [0, 1).  One that may not counts as a request that
 * was not accepted. */
bool weir__throttle_admit(weir__throttle *throttle, int64_t now_ns, double draw);

/* A request that went has come back. */
void weir__throttle_report(weir__throttle *throttle, int64_t now_ns, bool accepted);

#endif
