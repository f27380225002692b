/* backoff.c - see backoff.h. */
#include "model/backoff.h"

int64_t weir__backoff_step(const weir__backoff *backoff, uint32_t retry)
{
    double step = (double)backoff->base_ns, max = (double)backoff->max_ns;
    if (backoff->multiplier > 1)
        for (uint32_t n = 1; n < retry && step < max; n++)
            step *= backoff->multiplier;
    return step < max ? (int64_t)step : backoff->max_ns;
}

/* In [low, high]. */
static int64_t between(int64_t low, int64_t high, double draw)
{
    int64_t value = low + (int64_t)((double)(high - low) * draw);
    return value < high ? value : high;
}

/* Not more than max, without a product that could be. */
static int64_t triple(const weir__backoff *backoff, int64_t before_ns)
{
    if (before_ns < backoff->base_ns)
        before_ns = backoff->base_ns;
    return before_ns < backoff->max_ns / 3 ? 3 * before_ns : backoff->max_ns;
}

int64_t weir__backoff_delay(const weir__backoff *backoff, uint32_t retry, int64_t before_ns,
                            double draw)
{
    int64_t step = weir__backoff_step(backoff, retry);
    switch (backoff->jitter) {
    case WEIR__JITTER_NONE: return step;
    case WEIR__JITTER_EQUAL: return between(step / 2, step, draw);
    case WEIR__JITTER_DECORRELATED:
        return between(backoff->base_ns, triple(backoff, before_ns), draw);
    case WEIR__JITTER_FULL: break;
    }
    return between(0, step, draw);
}
