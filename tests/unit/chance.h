/* chance.h - random times for simulations, repeatable: the seed is in `random`. */
#ifndef WEIR_TESTS_UNIT_CHANCE_H
#define WEIR_TESTS_UNIT_CHANCE_H

#include "model/random.h"

static inline double uniform(weir__random *random)
{
    return weir__random_unit(weir__random_next(random));
}

static inline unsigned below(weir__random *random, unsigned n)
{
    return (unsigned)(weir__random_next(random) % n);
}

/* The natural logarithm of x in (0, 1]; no test needs libm for it. */
static inline double logarithm(double x)
{
    double halves = 0, power, all = 0;
    for (; x < 0.5; x *= 2)
        halves++;
    double z = (x - 1) / (x + 1);
    power = z;
    for (int i = 1; i < 40; i += 2, power *= z * z)
        all += power / i;
    return 2 * all - halves * 0.69314718055994531;
}

/* Exponentially distributed, with this mean. */
static inline double exponential(weir__random *random, double mean)
{
    return -mean * logarithm(1 - uniform(random));
}

#endif
