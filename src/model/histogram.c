/* histogram.c - see histogram.h.
 *
 * A time is counted in units of 4 ns.  Units below 32 are a bucket each; from there on the five bits
 * behind the highest one choose among the 32 buckets of their power of two.
 */
#include "model/histogram.h"

#define UNIT_BITS 2
#define CUT_BITS  5
#define CUT       (1u << CUT_BITS)

unsigned weir__histogram_bucket(uint64_t ns)
{
    if (ns >= WEIR__HISTOGRAM_END)
        return WEIR__HISTOGRAM_BUCKETS - 1;
    uint64_t units = ns >> UNIT_BITS;
    if (units < CUT)
        return (unsigned)units;
    unsigned power = 63 - (unsigned)__builtin_clzll(units) - CUT_BITS;
    return power * CUT + (unsigned)(units >> power);
}

uint64_t weir__histogram_floor(unsigned bucket)
{
    if (bucket < 2 * CUT)
        return (uint64_t)bucket << UNIT_BITS;
    unsigned power = bucket / CUT - 1;
    return (uint64_t)(CUT + bucket % CUT) << (power + UNIT_BITS);
}

static uint64_t middle(unsigned bucket)
{
    uint64_t from = weir__histogram_floor(bucket), to = weir__histogram_floor(bucket + 1);
    return from + (to - from) / 2;
}

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint64_t weir__histogram_count(const uint64_t counts[WEIR__HISTOGRAM_BUCKETS])
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < WEIR__HISTOGRAM_BUCKETS; i++)
        sum = add(sum, counts[i]);
    return sum;
}

uint64_t weir__histogram_percentile(const uint64_t counts[WEIR__HISTOGRAM_BUCKETS], double p)
{
    double wanted = p * (double)weir__histogram_count(counts);
    uint64_t seen = 0;
    unsigned last = WEIR__HISTOGRAM_BUCKETS;
    for (unsigned i = 0; i < WEIR__HISTOGRAM_BUCKETS; i++) {
        if (counts[i] == 0)
            continue;
        last = i;
        seen = add(seen, counts[i]);
        if ((double)seen >= wanted)
            break;
    }
    return last < WEIR__HISTOGRAM_BUCKETS ? middle(last) : 0;
}
