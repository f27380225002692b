/* backoff.h - how long to wait before a retry: exponentially longer, and at random.
 *
 * Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 */
#ifndef WEIR_MODEL_BACKOFF_H
#define WEIR_MODEL_BACKOFF_H

#include <stdint.h>

typedef enum weir__jitter {
    WEIR__JITTER_FULL,         /* from 0 to the step */
    WEIR__JITTER_NONE,         /* the step */
    WEIR__JITTER_EQUAL,        /* from half of the step to the step */
    WEIR__JITTER_DECORRELATED, /* from base to three times what was waited before */
} weir__jitter;

typedef struct weir__backoff {
    int64_t base_ns, max_ns; /* 0 < base <= max */
    double multiplier;       /* >= 1 */
    weir__jitter jitter;
} weir__backoff;

/* The step of retry number `retry` (1 is the first): base * multiplier^(retry - 1), at most max. */
int64_t weir__backoff_step(const weir__backoff *backoff, uint32_t retry);

/* What to wait, in [0, max].  before_ns: what was waited before the retry before (0: there was none);
 * only DECORRELATED asks for it.  draw: random, in [0, 1). */
int64_t weir__backoff_delay(const weir__backoff *backoff, uint32_t retry, int64_t before_ns,
                            double draw);

#endif
