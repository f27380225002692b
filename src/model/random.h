/* random.h - pseudo-random numbers that can be repeated: the seed is an argument.
 *
 * SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
 */
#ifndef WEIR_MODEL_RANDOM_H
#define WEIR_MODEL_RANDOM_H

#include <stdint.h>

typedef struct weir__random {
    uint64_t state; /* any value is a seed */
} weir__random;

static inline uint64_t weir__random_next(weir__random *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Random bits as a number in [0, 1). */
static inline double weir__random_unit(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

#endif
