/* faults.h - failing the n-th allocation, for every n. */
#ifndef WEIR_TESTS_FAULT_FAULTS_H
#define WEIR_TESTS_FAULT_FAULTS_H

#include "contract/support.h"

#include <stdatomic.h>

#include "base/alloc.h"

static _Atomic int64_t fault_countdown; /* 0: none fails */
static _Atomic bool fault_stays;        /* all after the n-th fail, too */
static _Atomic uint64_t fault_hits;

static inline bool fault_now(void)
{
    if (fault_countdown <= 0 || --fault_countdown > 0)
        return false;
    fault_hits++;
    fault_countdown = fault_stays ? 1 : 0;
    return true;
}

/* From here on the n-th allocation fails (with `stays`: and every later one); 0: none. */
static inline void fail_allocation(int64_t n, bool stays)
{
    fault_countdown = n;
    fault_stays = stays;
    fault_hits = 0;
    weir__alloc_fails = fault_now;
}

/* Back to normal.  Whether one has failed. */
static inline bool stop_failing(void)
{
    fault_countdown = 0;
    return fault_hits > 0;
}

#endif
