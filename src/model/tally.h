/* tally.h - what became of calls: how many, and how many of them failed or were slow. */
#ifndef WEIR_MODEL_TALLY_H
#define WEIR_MODEL_TALLY_H

#include <stdbool.h>
#include <stdint.h>

typedef struct weir__tally {
    uint64_t calls, failed, slow;
} weir__tally;

static inline void weir__tally_add(weir__tally *tally, bool failed, bool slow)
{
    tally->calls++;
    tally->failed += failed;
    tally->slow += slow;
}

/* Whether `part` is at least the share `ratio` of `whole`.  0.1 of 30 is 3, whatever binary fractions
 * make of it. */
static inline bool weir__reaches(uint64_t part, uint64_t whole, double ratio)
{
    return (double)part + 1e-9 * (double)whole >= ratio * (double)whole;
}

#endif
