/* ladder.h - what is done as memory gets scarce: normal -> slow -> pause -> shed, and down again.
 *
 * Hysteresis: each step has a mark to come up at and one, an eighth lower, to go below before it is
 * left; so use that wavers about one mark does not flap.  (Dask pauses and resumes at one mark.)
 * Stalls (PSI) raise the step on their own, as far as pause: at 10 % of the time with nobody running,
 * and to slow at 20 % with somebody stalled, until half of that.
 */
#ifndef WEIR_MODEL_LADDER_H
#define WEIR_MODEL_LADDER_H

#include <stdbool.h>
#include <stdint.h>

#define WEIR__LADDER_MARKS 3 /* to slow, pause, shed */

/* As weir_memory_step. */
typedef enum weir__step {
    WEIR__STEP_NORMAL = 0,
    WEIR__STEP_SLOW,
    WEIR__STEP_PAUSE,
    WEIR__STEP_SHED
} weir__step;

typedef struct weir__ladder {
    double up[WEIR__LADDER_MARKS]; /* shares of the memory there is, (0, 1], ascending */
    weir__step by_use, by_stalls;
} weir__ladder;

/* The marks; one that is 0 is a quarter, half, or three quarters of the way from `limit`, the share
 * that is meant to be used (at least 0.8 of what there is), to all of it.  false: a mark is not in
 * (0, 1], or they do not ascend. */
bool weir__ladder_init(weir__ladder *ladder, const double marks[WEIR__LADDER_MARKS], double limit);

/* Share of the memory in use, and percent of the time that some, and all, were stalled. */
weir__step weir__ladder_update(weir__ladder *ladder, double used, double some, double full);

static inline weir__step weir__ladder_step(const weir__ladder *ladder)
{
    return ladder->by_use > ladder->by_stalls ? ladder->by_use : ladder->by_stalls;
}

#endif
