/* sampler.h - which of many things to time, so that reading the clock costs nothing that counts.
 *
 * Every one as long as they are rare; one of more and more as they come closer, so that samples are about
 * WEIR__SAMPLE_EVERY apart, but never fewer than one of WEIR__SAMPLE_ONE_OF.
 */
#ifndef WEIR_MODEL_SAMPLER_H
#define WEIR_MODEL_SAMPLER_H

#include <stdint.h>

#define WEIR__SAMPLE_EVERY  INT64_C(50000) /* ns */
#define WEIR__SAMPLE_ONE_OF 1024u

/* Zeroed: the first is sampled. */
typedef struct weir__sampler {
    int64_t last;    /* when the last sample was */
    uint32_t period; /* how many items from one to the next; a power of two */
} weir__sampler;

/* Of the item that is sampled: how many items after it the next one comes, >= 1. */
static inline uint32_t weir__sampler_next(weir__sampler *sampler, int64_t now)
{
    int64_t apart = now - sampler->last;
    sampler->last = now;
    if (sampler->period == 0)
        sampler->period = 1;
    else if (apart < WEIR__SAMPLE_EVERY && sampler->period < WEIR__SAMPLE_ONE_OF)
        sampler->period *= 2;
    else
        for (; apart > 2 * WEIR__SAMPLE_EVERY && sampler->period > 1; apart /= 2)
            sampler->period /= 2;
    return sampler->period;
}

#endif
