/* allowance.h - how much may be reserved: the limit less what is used and was not reserved.
 *
 * What is measured is one number, the use of everybody together; what was reserved may be in it
 * or not yet be touched.  So the rest, the `base`, is known only when nothing is reserved; otherwise
 * it lies between use - reserved and use.  It is kept too large rather than too small:
 *
 *     base = idle + excess
 *     idle    the use when nothing was reserved last, or less if all the use is less
 *     excess  use beyond idle and what is reserved, once it has lasted for three measurements (what was
 *             reserved is given back before its pages are); falls by half every 5 s when it is gone
 *
 * With marks of the ladder above it, what is too much between two measurements has a margin.
 */
#ifndef WEIR_MODEL_ALLOWANCE_H
#define WEIR_MODEL_ALLOWANCE_H

#include <weir/base.h>

#include "model/ladder.h"

#define WEIR__ALLOWANCE_LASTS 3

typedef struct weir__allowance {
    uint64_t limit;
    uint64_t idle, excess;
    uint64_t over[WEIR__ALLOWANCE_LASTS]; /* the last measured */
    bool was_free;                        /* nothing was reserved at the last measurement */
    weir_time measured_at;                /* 0: never */
    int64_t interval_ns;                  /* that it is measured at */
} weir__allowance;

void weir__allowance_init(weir__allowance *allowance, uint64_t limit, int64_t interval_ns);

/* reserved: at most what was reserved around the measurement. */
void weir__allowance_measure(weir__allowance *allowance, uint64_t usage, uint64_t reserved,
                             weir_time now);

/* What may be reserved in all: everything that is left, half of it (SLOW), nothing (PAUSE, SHED). */
uint64_t weir__allowance_get(const weir__allowance *allowance, weir__step step);

#endif
