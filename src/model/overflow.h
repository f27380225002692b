/* overflow.h - bounds, marks, and what becomes of an item that does not fit.
 *
 * Arithmetic on loads (items and cost together); it holds no item and knows no queue.
 */
#ifndef WEIR_MODEL_OVERFLOW_H
#define WEIR_MODEL_OVERFLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct weir__load {
    size_t items;
    uint64_t cost;
} weir__load;

/* "No bound": the largest values, so that a sum of costs cannot wrap round even then. */
#define WEIR__NO_BOUND ((weir__load){SIZE_MAX, UINT64_MAX})

/* Whether one more item of `cost` stays within the bound.  held may be above it already. */
static inline bool weir__fits(weir__load bound, weir__load held, uint64_t cost)
{
    return held.items < bound.items && held.cost <= bound.cost && cost <= bound.cost - held.cost;
}

/* What has to leave `held` for one more item of cost <= bound.cost to fit. */
weir__load weir__excess(weir__load bound, weir__load held, uint64_t cost);

/* ---- high and low marks ------------------------------------------------------------------- */

/* Hysteresis: becomes above when either part rises above its high mark, below when both are at
 * their low marks or below.  A part without marks has high = low = the largest value. */
typedef struct weir__marks {
    weir__load high, low;
    bool above;
} weir__marks;

/* Sets the marks from those asked for (0: the default).  Where neither high mark is asked for and
 * `wanted`, they are 80 % of each bound there is; a low mark is half of its high mark.  false: a
 * mark out of range (low without high, low >= high, high >= bound) or wanted where there is
 * nothing to take 80 % of; nothing changed. */
bool weir__marks_set(weir__marks *marks, weir__load high, weir__load low, weir__load bound,
                     bool wanted);

/* The default marks again, for another bound. */
void weir__marks_default(weir__marks *marks, weir__load bound);

/* Whether there are any. */
static inline bool weir__marks_any(const weir__marks *marks)
{
    return marks->high.items != SIZE_MAX || marks->high.cost != UINT64_MAX;
}

static inline void weir__marks_update(weir__marks *marks, weir__load inside)
{
    if (marks->above)
        marks->above = inside.items > marks->low.items || inside.cost > marks->low.cost;
    else
        marks->above = inside.items > marks->high.items || inside.cost > marks->high.cost;
}

/* The same for one number, which pauses where it reaches its high mark: whether it does, if it did
 * before or not.  low < high. */
static inline bool weir__pauses(bool before, uint64_t level, uint64_t high, uint64_t low)
{
    return before ? level > low : level >= high;
}

/* ---- the decision --------------------------------------------------------------------------- */

typedef enum weir__fate {
    WEIR__KEEP,
    WEIR__WAIT,       /* for room */
    WEIR__REFUSE,     /* it stays the caller's */
    WEIR__DROP,       /* the new one */
    WEIR__EVICT,      /* the oldest, to make room */
    WEIR__SPILL,      /* to disk */
    WEIR__SAMPLE_OUT, /* above the high mark and not the one to keep */
} weir__fate;

typedef struct weir__overflow {
    weir__fate when_full; /* WAIT, REFUSE, DROP, EVICT or SPILL */
    uint32_t keep_one_of; /* above the high mark; 1: keep all */
    uint32_t sampled_out; /* since the last one kept above the high mark, < keep_one_of */
} weir__overflow;

static inline weir__fate weir__overflow_decide(weir__overflow *overflow, bool above, bool fits)
{
    if (above && ++overflow->sampled_out < overflow->keep_one_of)
        return WEIR__SAMPLE_OUT;
    overflow->sampled_out = 0;
    return fits ? WEIR__KEEP : overflow->when_full;
}

#endif
