/* waits.h - how many callers wait in a line, from what its object tells now and then.
 *
 * An object counts a wait when it ends.  Who has waited for an hour is not in that sum, and when he is let
 * in the whole hour comes at once.  So of each look is kept how much of the sum was going on: that much is
 * taken off what ends later, and it is counted while it goes on.
 *
 * Exactness:  of a line of one, exact.  Of longer ones only the first is told since when he waits, and
 *             those behind him are taken to have come evenly since then; what ends corrects that.
 * Bound:      never more callers than waited, where it is told how many did.
 */
#ifndef WEIR_MODEL_WAITS_H
#define WEIR_MODEL_WAITS_H

#include <stdint.h>

/* A line at one look; what cannot be is taken as nothing. */
typedef struct weir__line {
    int64_t at_ns;     /* on the clock of since_ns */
    uint64_t waiting;  /* callers in line */
    int64_t since_ns;  /* since when the first of them; <= 0: not told */
    uint64_t ended_ns; /* summed over all waits that have ended */
    uint64_t waits;    /* calls that had to wait, so far; 0: not told */
} weir__line;

typedef struct weir__waits {
    weir__line last;
    double going_ns;   /* how long those in line have waited by then, summed */
    uint64_t total_ns; /* of all waits, up to then; never goes back */
} weir__waits;

void weir__waits_begin(weir__waits *waits, const weir__line *now);

/* How many callers waited since the look before, on average. */
double weir__waits_look(weir__waits *waits, const weir__line *now);

#endif
