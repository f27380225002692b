/* sampler.h - which of many things to time, so that reading the clock costs nothing that counts.
 *
 * Every one as long as they are rare; else one of `period`, so that those that are timed are about
 * WEIR__SAMPLE_EVERY apart, but never fewer than one of WEIR__SAMPLE_ONE_OF.
 *
 * No bias:  the distance from one to the next is random, so what repeats itself (a burst of a hundred, say) is
 *           not met at the same places each time.  And each that is timed stands for `period` of them: those
 *           at the beginning of a burst, when few are passed over, would count for more than they are.
 */
#ifndef WEIR_MODEL_SAMPLER_H
#define WEIR_MODEL_SAMPLER_H

#include <stdint.h>

#define WEIR__SAMPLE_EVERY  INT64_C(20000) /* ns */
#define WEIR__SAMPLE_ONE_OF 1024u          /* a power of two */
#define WEIR__SAMPLE_LOOK                                                                          \
    INT64_C(1000000)           /* ns: as long as a burst and the pause behind it, perhaps */
#define WEIR__SAMPLE_MANY 256u /* samples that are enough to judge by */

/* Zeroed: the first is timed. */
typedef struct weir__sampler {
    int64_t begun;   /* when the samples were first counted by which the period is judged */
    uint32_t taken;  /* so many */
    uint32_t period; /* a power of two; 0: nothing was timed yet */
    uint32_t random;
} weir__sampler;

/* Of what is timed now: how many it stands for. */
static inline uint32_t weir__sampler_weight(const weir__sampler *sampler)
{
    return sampler->period ? sampler->period : 1;
}

static inline void weir__sampler_judge(weir__sampler *sampler, int64_t now)
{
    int64_t apart = (now - sampler->begun) / sampler->taken;
    for (; apart < WEIR__SAMPLE_EVERY && sampler->period < WEIR__SAMPLE_ONE_OF;
         sampler->period *= 2)
        apart = apart > 0 ? 2 * apart : 1;
    for (; apart > 2 * WEIR__SAMPLE_EVERY && sampler->period > 1; sampler->period /= 2)
        apart /= 2;
    sampler->begun = now;
    sampler->taken = 0;
}

/* Of what is timed: how many things after it the next one comes, >= 1. */
static inline uint32_t weir__sampler_next(weir__sampler *sampler, int64_t now)
{
    if (sampler->period == 0)
        *sampler = (weir__sampler){.begun = now, .period = 1, .random = (uint32_t)now};
    sampler->taken++;
    if (now - sampler->begun >= WEIR__SAMPLE_LOOK || sampler->taken >= WEIR__SAMPLE_MANY)
        weir__sampler_judge(sampler, now);
    /* Numerical Recipes' "quick and dirty" generator: its high bits are good enough. */
    sampler->random = sampler->random * 1664525u + 1013904223u;
    return 1 + (sampler->random >> 16) % (2 * sampler->period - 1);
}

/* Things may have become rare, unseen: the next one is timed. */
static inline void weir__sampler_restart(weir__sampler *sampler)
{
    sampler->period = 0;
}

/* ---- a time with its weight: in one number, for it has a long way to go -------------------------- */

#define WEIR__TIME_BITS 60 /* of nanoseconds: 36 years */

static inline int64_t weir__timed(const weir__sampler *sampler, int64_t now)
{
    uint64_t weight = (uint64_t)__builtin_ctz(weir__sampler_weight(sampler));
    return (int64_t)(weight << WEIR__TIME_BITS | (uint64_t)now);
}

/* (Of one without a weight, too, which is then 1.) */
static inline int64_t weir__time_of(int64_t timed)
{
    return (int64_t)((uint64_t)timed & ((UINT64_C(1) << WEIR__TIME_BITS) - 1));
}

static inline uint64_t weir__weight_of(int64_t timed)
{
    return UINT64_C(1) << ((uint64_t)timed >> WEIR__TIME_BITS);
}

#endif
