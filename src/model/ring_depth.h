/* ring_depth.h - how many tasks a worker's ring should hold: deep for microsecond tasks, so that a
 * hand-over costs nothing; none ahead of a long one, so that none waits behind it. */
#ifndef WEIR_MODEL_RING_DEPTH_H
#define WEIR_MODEL_RING_DEPTH_H

#include <stdint.h>

typedef struct weir__ring_depth {
    int64_t service_ns; /* moving average of the service time; 0: nothing measured yet */
} weir__ring_depth;

/* Takes one measured service time into the average (weight 1/8). */
void weir__ring_depth_measure(weir__ring_depth *depth, int64_t service_ns);

/* The running task and those ahead: 1 ... slots. */
unsigned weir__ring_depth_get(const weir__ring_depth *depth, unsigned slots);

#endif
