/* overflow.c - see overflow.h. */
#include "model/overflow.h"

weir__load weir__excess(weir__load bound, weir__load held, uint64_t cost)
{
    uint64_t room = bound.cost - cost;
    return (weir__load){
        .items = held.items < bound.items ? 0 : held.items - bound.items + 1,
        .cost = held.cost <= room ? 0 : held.cost - room,
    };
}

/* One part of a mark: asked for, and in range? */
static bool set(uint64_t asked_high, uint64_t asked_low, uint64_t bound, uint64_t none,
                uint64_t *ret_high, uint64_t *ret_low)
{
    if (asked_high == 0) {
        *ret_high = *ret_low = none;
        return asked_low == 0;
    }
    *ret_high = asked_high;
    *ret_low = asked_low ? asked_low : asked_high / 2;
    return asked_high < bound && asked_low < asked_high;
}

bool weir__marks_set(weir__marks *marks, weir__load high, weir__load low, weir__load bound,
                     bool wanted)
{
    uint64_t high_items, low_items, high_cost, low_cost;
    bool derived = wanted && !high.items && !high.cost;
    if (!set(high.items, low.items, bound.items, SIZE_MAX, &high_items, &low_items) ||
        !set(high.cost, low.cost, bound.cost, UINT64_MAX, &high_cost, &low_cost))
        return false;
    if (derived && bound.items == SIZE_MAX && bound.cost == UINT64_MAX)
        return false;
    *marks = (weir__marks){
        .high = {(size_t)high_items, high_cost},
        .low = {(size_t)low_items, low_cost},
    };
    if (derived)
        weir__marks_default(marks, bound);
    return true;
}

static uint64_t four_fifths(uint64_t x)
{
    return x / 5 * 4 + x % 5 * 4 / 5;
}

void weir__marks_default(weir__marks *marks, weir__load bound)
{
    marks->high = marks->low = WEIR__NO_BOUND;
    if (bound.items != SIZE_MAX) {
        marks->high.items = (size_t)four_fifths(bound.items);
        marks->low.items = marks->high.items / 2;
    }
    if (bound.cost != UINT64_MAX) {
        marks->high.cost = four_fifths(bound.cost);
        marks->low.cost = marks->high.cost / 2;
    }
}
