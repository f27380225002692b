/* sizes.c - see sizes.h. */
#include "model/sizes.h"

#include <string.h>

static weir__kind *find(const weir__sizes *sizes, uint64_t kind)
{
    for (size_t i = 0; i < WEIR__SIZES_KINDS; i++)
        if (sizes->kinds[i].used && sizes->kinds[i].kind == kind)
            return (weir__kind *)&sizes->kinds[i];
    return NULL;
}

static weir__kind *make(weir__sizes *sizes, uint64_t kind)
{
    weir__kind *oldest = &sizes->kinds[0];
    for (size_t i = 1; i < WEIR__SIZES_KINDS; i++)
        if (sizes->kinds[i].used < oldest->used)
            oldest = &sizes->kinds[i];
    memset(oldest, 0, sizeof *oldest);
    oldest->kind = kind;
    return oldest;
}

void weir__sizes_observe(weir__sizes *sizes, uint64_t kind, uint64_t peak_bytes)
{
    weir__kind *at = find(sizes, kind);
    if (!at)
        at = make(sizes, kind);
    at->used = ++sizes->clock;
    at->peaks[at->seen++ % WEIR__SIZES_KEPT] = peak_bytes;
}

/* The 95th percentile of n <= 32: the largest of up to 19, the second of more. */
static uint64_t percentile(const uint64_t *peaks, size_t n)
{
    uint64_t first = 0, second = 0;
    for (size_t i = 0; i < n; i++) {
        if (peaks[i] > first) {
            second = first;
            first = peaks[i];
        } else if (peaks[i] > second) {
            second = peaks[i];
        }
    }
    return n < 20 ? first : second;
}

uint64_t weir__sizes_estimate(weir__sizes *sizes, uint64_t kind)
{
    weir__kind *at = find(sizes, kind);
    if (!at)
        return 0;
    at->used = ++sizes->clock;
    size_t n = at->seen < WEIR__SIZES_KEPT ? (size_t)at->seen : WEIR__SIZES_KEPT;
    uint64_t peak = percentile(at->peaks, n);
    uint64_t margin = n < 8 ? peak / 5 : peak / 10;
    uint64_t estimate = peak > UINT64_MAX - margin ? UINT64_MAX : peak + margin;
    return estimate > WEIR__SIZE_LEAST ? estimate : WEIR__SIZE_LEAST;
}

uint64_t weir__sizes_seen(const weir__sizes *sizes, uint64_t kind)
{
    const weir__kind *at = find(sizes, kind);
    return at ? at->seen : 0;
}
