/* baseline.c - see baseline.h. */
#include "model/baseline.h"

#define PROBE_SHARE  0.75 /* of the capacity */
#define MOST_WINDOWS 12u  /* of one probe: 0.75 ^ 12 is 3 % */
#define CLEARLY      0.1  /* lower, to be believed outside of a probe */
#define FIRST        100
#define EXACT        0.01 /* standard error, of the baseline */
#define SHRUNK       0.6  /* since the last one: look again */
#define LOWER        0.97 /* is news that calls for another one */

/* Uniform in [0.75, 1.25). */
static double jitter(weir__baseline *baseline)
{
    return 0.75 + 0.5 * weir__random_unit(weir__random_next(&baseline->random));
}

static void schedule(weir__baseline *baseline, int64_t now_ns)
{
    double wait = (double)baseline->interval_ns * jitter(baseline);
    bool is_far = !baseline->interval_ns || wait > (double)(INT64_MAX / 4);
    baseline->probe_at = is_far ? INT64_MAX : now_ns + (int64_t)wait;
}

void weir__baseline_init(weir__baseline *baseline, int64_t interval_ns, uint64_t seed,
                         int64_t now_ns)
{
    *baseline = (weir__baseline){
        .interval_ns = interval_ns,
        .probe_at = interval_ns ? now_ns : INT64_MAX,
        .random = {seed},
    };
}

static bool is_clear(double difference, double variance, double errors)
{
    return difference * difference > errors * errors * variance;
}

static void adopt(weir__baseline *baseline, const weir__rtt *rtt)
{
    baseline->ns = rtt->ns;
    baseline->variance = rtt->variance;
}

/* A window in which nobody waited. */
static void take(weir__baseline *baseline, const weir__rtt *rtt)
{
    double difference = rtt->ns - baseline->ns, both = baseline->variance + rtt->variance;
    if (is_clear(difference, both, 3)) {
        adopt(baseline, rtt);
        return;
    }
    baseline->ns += both > 0 ? difference * baseline->variance / both : difference / 2;
    baseline->variance *= both > 0 ? rtt->variance / both : 0;
}

bool weir__baseline_see(weir__baseline *baseline, const weir__rtt *rtt)
{
    if (baseline->ns > 0) {
        double lower = baseline->ns - rtt->ns, both = baseline->variance + rtt->variance;
        if (lower > CLEARLY * baseline->ns && is_clear(lower, both, 4))
            adopt(baseline, rtt);
        return false;
    }
    adopt(baseline, rtt);
    baseline->variance *= FIRST; /* of calls that began together, the quick ones ended first */
    return true;
}

/* Where certainly nobody waits: below the capacity that `limit` calls with this round trip show. */
static double probe_limit(double limit, double floor)
{
    double whole = (double)(int64_t)(limit * PROBE_SHARE);
    return whole > floor ? whole : floor;
}

bool weir__baseline_probe(weir__baseline *baseline, double limit, const weir__rtt *rtt,
                          double floor, int64_t now_ns)
{
    bool has_shrunk = baseline->interval_ns && limit < SHRUNK * baseline->limit_then;
    if (now_ns < baseline->probe_at && !has_shrunk)
        return false;
    baseline->limit_then = limit;
    double share = baseline->ns < rtt->ns ? baseline->ns / rtt->ns : 1;
    baseline->probe_limit = probe_limit(limit * share, floor);
    baseline->probes = 0;
    if ((double)rtt->in_flight <= baseline->probe_limit) { /* this window was one */
        take(baseline, rtt);
        schedule(baseline, now_ns);
        return false;
    }
    baseline->is_probing = true;
    return true;
}

static bool is_exact(const weir__baseline *baseline)
{
    return baseline->variance <= EXACT * EXACT * baseline->ns * baseline->ns;
}

bool weir__baseline_probed(weir__baseline *baseline, const weir__rtt *rtt, double floor,
                           int64_t now_ns)
{
    double before = baseline->ns, less = probe_limit(baseline->probe_limit, floor);
    take(baseline, rtt);
    bool is_lower = baseline->ns < LOWER * before && less < baseline->probe_limit;
    if (is_lower)
        baseline->probe_limit = less;
    if ((is_lower || !is_exact(baseline)) && ++baseline->probes < MOST_WINDOWS)
        return false;
    baseline->is_probing = false;
    baseline->variance *= 4; /* by the next probe it is less certain */
    schedule(baseline, now_ns);
    return true;
}
