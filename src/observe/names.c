/* names.c - what kinds and numbers are called, and times in buckets; see <weir/stats.h>. */
#include <weir/stats.h>

#include "model/histogram.h"

_Static_assert(WEIR_STATS_BUCKETS == WEIR__HISTOGRAM_BUCKETS, "the buckets are the model's");

enum { GAUGE, COUNTER };

const char *weir_stats_kind_name(int kind)
{
    switch (kind) {
#define X(name, value, text)                                                                       \
    case value: return text;
        WEIR_STATS_KIND_MAP(X)
#undef X
    default: return "unknown";
    }
}

const char *weir_stats_number_name(int number)
{
    switch (number) {
#define X(name, value, type, text)                                                                 \
    case value: return text;
        WEIR_STATS_NUMBER_MAP(X)
#undef X
    default: return NULL;
    }
}

bool weir_stats_is_counter(int number)
{
    switch (number) {
#define X(name, value, type, text)                                                                 \
    case value: return type == COUNTER;
        WEIR_STATS_NUMBER_MAP(X)
#undef X
    default: return false;
    }
}

/* ---- times ---------------------------------------------------------------------------------- */

uint64_t weir_stats_bucket_floor(unsigned bucket)
{
    return weir__histogram_floor(bucket < WEIR_STATS_BUCKETS ? bucket : WEIR_STATS_BUCKETS);
}

uint64_t weir_stats_times_count(const weir_stats_times *times)
{
    return weir__histogram_count(times->bucket);
}

uint64_t weir_stats_percentile(const weir_stats_times *times, double p)
{
    uint64_t ns = weir__histogram_percentile(times->bucket, p);
    return ns < times->max_ns ? ns : times->max_ns;
}

static uint64_t less(uint64_t after, uint64_t before)
{
    return after > before ? after - before : 0;
}

void weir_stats_times_between(const weir_stats_times *before, const weir_stats_times *after,
                              weir_stats_times *ret_times)
{
    uint64_t last = 0;
    for (unsigned i = 0; i < WEIR_STATS_BUCKETS; i++) {
        ret_times->bucket[i] = less(after->bucket[i], before->bucket[i]);
        if (ret_times->bucket[i] > 0)
            last = weir__histogram_floor(i + 1) - 1;
    }
    bool is_open = last == WEIR__HISTOGRAM_END - 1; /* its bucket has no end */
    ret_times->max_ns = last < after->max_ns && !is_open ? last : last > 0 ? after->max_ns : 0;
    ret_times->sum_ns = less(after->sum_ns, before->sum_ns);
}
