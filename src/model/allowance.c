/* allowance.c - see allowance.h. */
#include "model/allowance.h"

#include <string.h>

#define HALF_LIFE_NS (5 * WEIR_SECOND)

void weir__allowance_init(weir__allowance *allowance, uint64_t limit, int64_t interval_ns)
{
    *allowance = (weir__allowance){.limit = limit, .interval_ns = interval_ns};
}

/* Nothing is reserved, so all the use is the base; that it has grown has to be seen twice in a row:
 * the pages of what was reserved until now may not be back yet. */
static void measure_free(weir__allowance *allowance, uint64_t usage, bool in_a_row)
{
    if (usage < allowance->idle || allowance->was_free || !in_a_row) {
        allowance->idle = usage;
        allowance->excess = 0;
    }
    memset(allowance->over, 0, sizeof allowance->over);
    allowance->was_free = true;
}

/* What has lasted: the least of the last measurements. */
static uint64_t lasting(weir__allowance *allowance, uint64_t over)
{
    uint64_t least = over;
    for (int i = WEIR__ALLOWANCE_LASTS - 1; i > 0; i--) {
        allowance->over[i] = allowance->over[i - 1];
        least = allowance->over[i] < least ? allowance->over[i] : least;
    }
    allowance->over[0] = over;
    return least;
}

/* 2^-x between two halvings as 1 - x (0.693 - 0.193 x), which is off by less than a hundredth. */
static uint64_t fade(uint64_t value, int64_t elapsed_ns)
{
    for (; elapsed_ns >= HALF_LIFE_NS && value > 0; elapsed_ns -= HALF_LIFE_NS)
        value /= 2;
    if (elapsed_ns <= 0)
        return value;
    double x = (double)elapsed_ns / (double)HALF_LIFE_NS;
    return value - (uint64_t)((double)value * x * (0.693 - 0.193 * x));
}

void weir__allowance_measure(weir__allowance *allowance, uint64_t usage, uint64_t reserved,
                             weir_time now)
{
    int64_t elapsed = now - allowance->measured_at;
    bool in_a_row = allowance->measured_at > 0 && elapsed < 2 * allowance->interval_ns;
    if (reserved == 0) {
        measure_free(allowance, usage, in_a_row);
    } else {
        if (usage < allowance->idle)
            allowance->idle = usage;
        uint64_t beyond = usage - allowance->idle;
        uint64_t over = beyond > reserved ? beyond - reserved : 0;
        uint64_t least = lasting(allowance, over);
        uint64_t faded = fade(allowance->excess, in_a_row ? elapsed : allowance->interval_ns);
        allowance->excess = least > faded ? least : faded;
        if (allowance->excess > beyond)
            allowance->excess = beyond;
        allowance->was_free = false;
    }
    allowance->measured_at = now;
}

uint64_t weir__allowance_get(const weir__allowance *allowance, weir__step step)
{
    uint64_t base = allowance->idle + allowance->excess;
    uint64_t room = base < allowance->limit ? allowance->limit - base : 0;
    switch (step) {
    case WEIR__STEP_NORMAL: return room;
    case WEIR__STEP_SLOW: return room / 2;
    default: return 0;
    }
}
