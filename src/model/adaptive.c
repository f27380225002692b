/* adaptive.c - see adaptive.h. */
#include "model/adaptive.h"

void weir__adaptive_init(weir__adaptive *adaptive, const weir__adaptive_opts *opts, int64_t now_ns)
{
    *adaptive = (weir__adaptive){.opts = *opts, .limit = (double)opts->initial};
    weir__rtt_window_init(&adaptive->window, opts->rtt_kind, opts->quantile, opts->window_samples,
                          opts->window_ns, now_ns);
    bool needs_baseline = opts->algorithm != WEIR__AIMD;
    weir__baseline_init(&adaptive->baseline, needs_baseline ? opts->probe_interval_ns : 0,
                        opts->seed, now_ns);
}

uint64_t weir__adaptive_limit(const weir__adaptive *adaptive)
{
    const weir__baseline *baseline = &adaptive->baseline;
    double limit = adaptive->limit;
    if (baseline->is_probing && baseline->probe_limit < limit)
        limit = baseline->probe_limit;
    return (uint64_t)limit;
}

static void set(weir__adaptive *adaptive, double limit, weir__adaptive_reason reason)
{
    double floor = (double)adaptive->opts.floor, ceiling = (double)adaptive->opts.ceiling;
    if (limit < floor) {
        limit = floor;
        reason = WEIR__LIMIT_FLOOR;
    } else if (limit > ceiling) {
        limit = ceiling;
        reason = WEIR__LIMIT_CEILING;
    }
    adaptive->limit = limit;
    adaptive->reason = reason;
}

/* Newton's method; the library needs no libm. */
static double square_root(double x)
{
    double root = x > 1 ? x : 1;
    for (int i = 0; i < 64 && root * root > x; i++) {
        double better = (root + x / root) / 2;
        if (better >= root)
            break;
        root = better;
    }
    return x > 0 ? root : 0;
}

/* Gradient2 takes nothing to be better than the baseline, so noise alone would look like a queue:
 * one standard error is allowed for. */
static double surely(const weir__rtt *rtt, double baseline)
{
    double least = rtt->ns - square_root(rtt->variance);
    return least > baseline ? least : rtt->ns < baseline ? rtt->ns : baseline;
}

static double next(const weir__adaptive *adaptive, const weir__rtt *rtt)
{
    const weir__adaptive_opts *opts = &adaptive->opts;
    double limit = adaptive->limit, baseline = adaptive->baseline.ns;
    switch (opts->algorithm) {
    case WEIR__VEGAS: return weir__vegas_next(&opts->vegas, limit, rtt->ns, baseline);
    case WEIR__GRADIENT2:
        return weir__gradient2_next(&opts->gradient2, limit, surely(rtt, baseline), baseline);
    case WEIR__AIMD: break;
    }
    return weir__aimd_grow(&opts->aimd, limit);
}

static double after_drop(const weir__adaptive *adaptive)
{
    const weir__adaptive_opts *opts = &adaptive->opts;
    switch (opts->algorithm) {
    case WEIR__VEGAS: return weir__vegas_drop(&opts->vegas, adaptive->limit);
    case WEIR__GRADIENT2: return weir__gradient2_drop(&opts->gradient2, adaptive->limit);
    case WEIR__AIMD: break;
    }
    return weir__aimd_drop(&opts->aimd, adaptive->limit);
}

static void judge(weir__adaptive *adaptive, const weir__rtt *rtt)
{
    if (2 * (double)rtt->in_flight < adaptive->limit) {
        adaptive->reason = WEIR__LIMIT_IDLE;
        return;
    }
    double limit = next(adaptive, rtt);
    set(adaptive, limit,
        limit > adaptive->limit   ? WEIR__LIMIT_ROOM
        : limit < adaptive->limit ? WEIR__LIMIT_QUEUE
                                  : WEIR__LIMIT_RIGHT);
}

/* Where the baseline turned out to be lower, the old limit has a long queue: it does not come back.
 * */
static void resume(weir__adaptive *adaptive)
{
    double in_use = adaptive->limit * adaptive->baseline.ns / adaptive->rtt_ns;
    double room = in_use / 16 > 2 ? in_use / 16 : 2;
    if (adaptive->limit > in_use + room)
        set(adaptive, in_use + room, WEIR__LIMIT_QUEUE);
    else
        adaptive->reason = WEIR__LIMIT_RIGHT;
}

static void full_window(weir__adaptive *adaptive, const weir__rtt *rtt, int64_t now_ns)
{
    weir__baseline *baseline = &adaptive->baseline;
    double floor = (double)adaptive->opts.floor;
    if (baseline->is_probing) {
        if (weir__baseline_probed(baseline, rtt, floor, now_ns))
            resume(adaptive);
        return;
    }
    adaptive->rtt_ns = rtt->ns;
    if (adaptive->opts.algorithm == WEIR__AIMD || !weir__baseline_see(baseline, rtt))
        judge(adaptive, rtt);
    if (weir__baseline_probe(baseline, adaptive->limit, rtt, floor, now_ns))
        adaptive->reason = WEIR__LIMIT_PROBE;
}

uint64_t weir__adaptive_sample(weir__adaptive *adaptive, int64_t now_ns, int64_t rtt_ns,
                               uint64_t in_flight, bool dropped)
{
    uint64_t before = weir__adaptive_limit(adaptive);
    int64_t timeout = adaptive->opts.timeout_ns;
    weir__rtt rtt;
    adaptive->samples++;
    if (dropped || (timeout && rtt_ns > timeout)) {
        adaptive->drops++;
        if (!weir__rtt_window_drop(&adaptive->window, now_ns, rtt_ns))
            return before;
        rtt.ns = adaptive->rtt_ns;
        set(adaptive, after_drop(adaptive), WEIR__LIMIT_DROPS);
    } else {
        if (!weir__rtt_window_add(&adaptive->window, now_ns, rtt_ns, in_flight, &rtt))
            return before;
        full_window(adaptive, &rtt, now_ns);
    }
    uint64_t limit = weir__adaptive_limit(adaptive);
    weir__rtt_window_next(&adaptive->window, now_ns, (int64_t)rtt.ns, limit != before);
    return limit;
}
