/* waits.h - how many callers wait in a line, from what its object tells now and then.
 *
 * An object tells how many wait, since when it has been so many, and how long all of them had waited by then.
 * So it is known at any moment how long they have waited: also the one who has for an hour, and whose
 * hour is not to be the next second's when he is let in.
 *
 * Not told:   lines of several processes have no such moment: of them there is the sum of the waits that have
 *             ended.  Between two looks at which nobody waits that is exact; otherwise those count who wait
 *             at the looks.
 */
#ifndef WEIR_MODEL_WAITS_H
#define WEIR_MODEL_WAITS_H

#include <stdint.h>

/* A line at one look; what cannot be is taken as nothing. */
typedef struct weir__line {
    int64_t at_ns;    /* on the clock of since_ns */
    uint64_t waiting; /* callers in line */
    int64_t since_ns; /* since when it is so many; <= 0: not told, if anybody waits */
    uint64_t
        blocked_ns; /* how long all callers had waited by then; not told: whose waits have ended */
} weir__line;

typedef struct weir__waits {
    weir__line last;
    uint64_t total_ns; /* of all waits, up to then; never goes back */
} weir__waits;

void weir__waits_begin(weir__waits *waits, const weir__line *now);

/* How many callers waited since the look before, on average. */
double weir__waits_look(weir__waits *waits, const weir__line *now);

#endif
