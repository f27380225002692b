/* ladder.c - see ladder.h. */
#include "model/ladder.h"

#define DOWN        0.875 /* of the mark up */
#define LEAST_LIMIT 0.8
#define SOME_STALLS 20.0
#define FULL_STALLS 10.0

bool weir__ladder_init(weir__ladder *ladder, const double marks[WEIR__LADDER_MARKS], double limit)
{
    weir__ladder made = {.by_use = WEIR__STEP_NORMAL};
    if (!(limit > LEAST_LIMIT))
        limit = LEAST_LIMIT;
    if (limit > 1)
        limit = 1;
    for (int i = 0; i < WEIR__LADDER_MARKS; i++) {
        double up = marks[i] != 0 ? marks[i] : limit + (1 - limit) * (i + 1) / 4;
        if (!(up > 0 && up <= 1) || (i > 0 && up < made.up[i - 1]))
            return false;
        made.up[i] = up;
    }
    *ladder = made;
    return true;
}

static weir__step climb(const weir__ladder *ladder, weir__step step, double used)
{
    int at = (int)step;
    while (at < WEIR__LADDER_MARKS && used >= ladder->up[at])
        at++;
    while (at > 0 && used < ladder->up[at - 1] * DOWN)
        at--;
    return (weir__step)at;
}

/* Above the mark, or above half of it where it was. */
static bool stalls(double percent, double mark, bool before)
{
    return percent >= (before ? mark / 2 : mark);
}

weir__step weir__ladder_update(weir__ladder *ladder, double used, double some, double full)
{
    weir__step before = ladder->by_stalls;
    ladder->by_use = climb(ladder, ladder->by_use, used);
    ladder->by_stalls = WEIR__STEP_NORMAL;
    if (stalls(some, SOME_STALLS, before >= WEIR__STEP_SLOW))
        ladder->by_stalls = WEIR__STEP_SLOW;
    if (stalls(full, FULL_STALLS, before >= WEIR__STEP_PAUSE))
        ladder->by_stalls = WEIR__STEP_PAUSE;
    return weir__ladder_step(ladder);
}
