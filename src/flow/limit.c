/* limit.c - see <weir/limit.h>: a gate whose capacity is set by hand, or found by model/adaptive.
 *
 * A fixed limit asks no clock and gives back without a lock.  An adaptive one learns under the lock
 * of the gate, where the change of the limit and the release that caused it are one step: so a
 * shared one is learned by all processes together, and a kill loses one sample at most.
 */
#include <weir/limit.h>

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "flow/gate.h"
#include "model/adaptive.h"

#define COST_MAX   (UINT64_C(1) << 46) /* exclusive */
#define INITIAL    20
#define CEILING    1000
#define TIMEOUT_NS (5 * WEIR_SECOND)

/* The gate's state. */
typedef struct learned {
    weir_limit_algorithm algorithm;
    unsigned n_partitions;
    weir__adaptive adaptive; /* not of a fixed limit */
} learned;

static_assert(sizeof(learned) <= WEIR__GATE_STATE, "fits a gate");
static_assert(WEIR_LIMIT_PARTITIONS == WEIR__PARTITIONS, "as many as a gate has");

struct weir_limit {
    weir__gate *gate;
    bool is_adaptive;
    unsigned n_partitions; /* at least 1 */
};

/* ---- options ------------------------------------------------------------------------------ */

static double or_default(double value, double by_default)
{
    return value == 0 ? by_default : value;
}

static bool is_in(double value, double least, double most)
{
    return value >= least && value <= most; /* a NaN is nowhere */
}

static const weir__adapt algorithms[] = {
    [WEIR_LIMIT_AIMD] = WEIR__AIMD,
    [WEIR_LIMIT_VEGAS] = WEIR__VEGAS,
    [WEIR_LIMIT_GRADIENT2] = WEIR__GRADIENT2,
};

static const weir__rtt_kind rtt_kinds[] = {
    [WEIR_LIMIT_RTT_AVERAGE] = WEIR__RTT_AVERAGE,
    [WEIR_LIMIT_RTT_MINIMUM] = WEIR__RTT_MINIMUM,
    [WEIR_LIMIT_RTT_QUANTILE] = WEIR__RTT_QUANTILE,
};

/* Bounds, and where to begin. */
static bool bounds_of(const weir_limit_opts *opts, weir__adaptive_opts *ret)
{
    ret->floor = opts->min_limit ? opts->min_limit : 1;
    ret->ceiling = opts->max_limit ? opts->max_limit : CEILING;
    if (!opts->max_limit && ret->ceiling < ret->floor)
        ret->ceiling = ret->floor;
    ret->initial = opts->limit ? opts->limit : INITIAL;
    if (!opts->limit && ret->initial < ret->floor)
        ret->initial = ret->floor;
    if (!opts->limit && ret->initial > ret->ceiling)
        ret->initial = ret->ceiling;
    return ret->floor <= ret->initial && ret->initial <= ret->ceiling && ret->ceiling < COST_MAX;
}

static bool adaptive_opts_of(const weir_limit_opts *opts, weir__adaptive_opts *ret)
{
    bool is_gradient2 = opts->algorithm == WEIR_LIMIT_GRADIENT2;
    if ((unsigned)opts->rtt > WEIR_LIMIT_RTT_QUANTILE || opts->timeout_ns < 0 ||
        opts->window_ns < 0 || opts->probe_interval_ns < 0)
        return false;
    double smoothing = or_default(opts->smoothing, is_gradient2 ? 0.2 : 1);
    *ret = (weir__adaptive_opts){
        .algorithm = algorithms[opts->algorithm],
        .aimd = {.backoff = or_default(opts->backoff, 0.9)},
        .vegas = {.alpha = opts->alpha, .beta = opts->beta, .smoothing = smoothing},
        .gradient2 = {.tolerance = or_default(opts->tolerance, 1),
                      .queue = opts->queue,
                      .smoothing = smoothing},
        .timeout_ns = opts->timeout_ns                     ? opts->timeout_ns
                      : opts->algorithm == WEIR_LIMIT_AIMD ? TIMEOUT_NS
                                                           : 0,
        .rtt_kind = rtt_kinds[opts->rtt],
        .quantile = or_default(opts->quantile, 0.5),
        .window_samples = opts->window_samples ? opts->window_samples : 10,
        .window_ns = opts->window_ns,
        .probe_interval_ns = opts->probe_interval_ns == WEIR_FOREVER ? 0
                             : opts->probe_interval_ns               ? opts->probe_interval_ns
                                                                     : 10 * WEIR_SECOND,
        .seed = (uint64_t)weir_now() | 1,
    };
    return bounds_of(opts, ret) && ret->aimd.backoff < 1 && is_in(ret->aimd.backoff, 0.5, 1) &&
           is_in(opts->alpha, 0, 1e9) && is_in(opts->beta, 0, 1e9) &&
           (opts->alpha == 0 || opts->beta == 0 || opts->alpha <= opts->beta) && smoothing > 0 &&
           is_in(smoothing, 0, 1) && is_in(ret->gradient2.tolerance, 1, 1e9) &&
           is_in(opts->queue, 0, 1e9) && ret->quantile > 0 && ret->quantile < 1;
}

static bool is_adaptive(const weir_limit_opts *opts)
{
    return opts->algorithm != WEIR_LIMIT_FIXED;
}

static bool are_valid(const weir_limit_opts *opts, weir__adaptive_opts *ret_how)
{
    if (opts->size != sizeof *opts || (unsigned)opts->algorithm > WEIR_LIMIT_GRADIENT2)
        return false;
    return is_adaptive(opts) ? adaptive_opts_of(opts, ret_how)
                             : opts->limit > 0 && opts->limit < COST_MAX;
}

/* ---- beginning and end -------------------------------------------------------------------- */

static void begin_learning(void *state, const void *ctx)
{
    memcpy(state, ctx, sizeof(learned));
}

static weir__gate_opts gate_opts_of(const weir_limit_opts *opts, const learned *begin)
{
    weir__gate_opts gate = {
        .capacity = is_adaptive(opts) ? begin->adaptive.opts.initial : opts->limit,
        .kind = "limit",
        .shared = opts->shared,
        .one_always = is_adaptive(opts), /* it will grow again */
        .lifo = opts->lifo,
        .n_partitions = opts->n_partitions,
        .shed_target_ns = opts->shed_after_ns,
        .shed_interval_ns =
            opts->shed_interval_ns ? opts->shed_interval_ns : 20 * opts->shed_after_ns,
        .state_size = sizeof(learned),
        .state_init = begin_learning,
        .state_ctx = begin,
        .stats_kind = WEIR_STATS_LIMIT,
        .stats_name = opts->name,
    };
    memcpy(gate.shares, opts->shares, sizeof gate.shares);
    return gate;
}

int weir_limit_create(weir_limit **ret_limit, const weir_limit_opts *opts)
{
    weir__adaptive_opts how;
    if (!are_valid(opts, &how) || opts->shed_after_ns < 0 || opts->shed_after_ns > INT64_MAX / 20 ||
        opts->shed_interval_ns < 0)
        return WEIR_EINVAL;
    learned begin = {.algorithm = opts->algorithm, .n_partitions = opts->n_partitions};
    if (is_adaptive(opts))
        weir__adaptive_init(&begin.adaptive, &how, weir_now());
    weir_limit *limit = weir__calloc(1, sizeof *limit);
    if (!limit)
        return WEIR_ENOMEM;
    weir__gate_opts gate = gate_opts_of(opts, &begin);
    int rc = weir__gate_create(&limit->gate, &gate);
    if (rc < 0)
        goto fail;
    weir__gate_look(limit->gate, &begin); /* a shared one may have been there */
    rc = WEIR_EINVAL;
    if (begin.n_partitions != opts->n_partitions)
        goto fail;
    limit->is_adaptive = begin.algorithm != WEIR_LIMIT_FIXED;
    limit->n_partitions = opts->n_partitions ? opts->n_partitions : 1;
    *ret_limit = limit;
    return WEIR_OK;

fail:
    weir_limit_destroy(limit);
    return rc;
}

void weir_limit_destroy(weir_limit *limit)
{
    if (!limit)
        return;
    weir__gate_destroy(limit->gate);
    weir__free(limit);
}

/* ---- admission ---------------------------------------------------------------------------- */

static bool is_valid(const weir_limit *limit, uint64_t cost, unsigned partition)
{
    return cost > 0 && cost < COST_MAX && partition < limit->n_partitions;
}

void weir_limit_begin(weir_limit *limit, uint64_t cost, unsigned partition, weir_permit *ret_permit)
{
    *ret_permit = (weir_permit){
        .cost = cost,
        .since = limit->is_adaptive ? weir_now() : 0,
        .partition = partition,
    };
}

int weir_limit_acquire(weir_limit *limit, uint64_t cost, unsigned partition, weir_time deadline,
                       weir_permit *ret_permit)
{
    if (!is_valid(limit, cost, partition))
        return WEIR_EINVAL;
    int rc = weir__gate_acquire(limit->gate, cost, partition, deadline);
    if (rc == WEIR_OK)
        weir_limit_begin(limit, cost, partition, ret_permit);
    return rc;
}

int weir_limit_acquire_async(weir_limit *limit, uint64_t cost, unsigned partition,
                             weir_pending *pending)
{
    if (!is_valid(limit, cost, partition))
        return WEIR_EINVAL;
    return weir__gate_acquire_async(limit->gate, cost, partition, pending);
}

bool weir_limit_cancel(weir_limit *limit, weir_pending *pending)
{
    bool left = weir__gate_cancel(limit->gate, pending);
    if (left)
        weir__gate_count_refused(limit->gate);
    return left;
}

void weir_limit_count_refused(weir_limit *limit)
{
    weir__gate_count_refused(limit->gate);
}

typedef struct sample {
    weir_time now;
    int64_t rtt_ns;
    bool dropped;
} sample;

static uint64_t learn(void *state, uint64_t used, uint64_t capacity, void *ctx)
{
    (void)capacity;
    learned *known = state;
    const sample *seen = ctx;
    return weir__adaptive_sample(&known->adaptive, seen->now, seen->rtt_ns, used, seen->dropped);
}

void weir_limit_release(weir_limit *limit, const weir_permit *permit, weir_limit_report report)
{
    sample seen = {.dropped = report == WEIR_LIMIT_DROP};
    weir__gate_update_fn *fn = NULL;
    if (limit->is_adaptive && permit->since > 0 && report != WEIR_LIMIT_IGNORE) {
        seen.now = weir_now();
        seen.rtt_ns = seen.now > permit->since ? seen.now - permit->since : 1;
        fn = learn;
    }
    weir__gate_release(limit->gate, permit->cost, permit->partition, fn, &seen);
}

int weir_limit_set(weir_limit *limit, uint64_t n)
{
    if (limit->is_adaptive || n == 0 || n >= COST_MAX)
        return WEIR_EINVAL;
    weir__gate_set_capacity(limit->gate, n);
    return WEIR_OK;
}

void weir_limit_close(weir_limit *limit)
{
    weir__gate_close(limit->gate);
}

/* ---- looking ------------------------------------------------------------------------------ */

static const char *const reasons[] = {
    [WEIR_LIMIT_BY_HAND] = "set by hand",
    [WEIR_LIMIT_INITIAL] = "the initial limit: nothing is known yet",
    [WEIR_LIMIT_ROOM] = "grew: nobody waits behind it",
    [WEIR_LIMIT_RIGHT] = "stayed: a few calls wait behind it, as they should",
    [WEIR_LIMIT_QUEUE] = "shrank: too many calls wait behind it",
    [WEIR_LIMIT_DROPS] = "shrank: a call was dropped or timed out",
    [WEIR_LIMIT_IDLE] = "stayed: less than half of it is used",
    [WEIR_LIMIT_PROBE] = "lower for a moment, to measure the latency without a queue",
    [WEIR_LIMIT_FLOOR] = "the smallest allowed",
    [WEIR_LIMIT_CEILING] = "the largest allowed",
};

const char *weir_limit_why(int reason)
{
    return reason >= 0 && reason <= WEIR_LIMIT_CEILING ? reasons[reason] : "unknown reason";
}

static void tell(const weir__adaptive *adaptive, weir_limit_snapshot *now)
{
    static_assert(WEIR_LIMIT_INITIAL == WEIR__LIMIT_INITIAL + 1 &&
                      WEIR_LIMIT_CEILING == WEIR__LIMIT_CEILING + 1,
                  "the public reasons are the model's, after one");
    now->limit = weir__adaptive_limit(adaptive);
    now->reason = (weir_limit_reason)(adaptive->reason + 1);
    now->rtt_ns = (int64_t)adaptive->rtt_ns;
    now->baseline_ns = (int64_t)adaptive->baseline.ns;
    now->samples = adaptive->samples;
    now->drops = adaptive->drops;
}

int weir_limit_get_snapshot(weir_limit *limit, weir_limit_snapshot *ret_snapshot)
{
    if (ret_snapshot->size != sizeof *ret_snapshot)
        return WEIR_EINVAL;
    learned known;
    weir__gate_counts counts;
    weir__gate_look(limit->gate, &known);
    weir__gate_get_counts(limit->gate, &counts);
    *ret_snapshot = (weir_limit_snapshot){
        .size = sizeof *ret_snapshot,
        .algorithm = known.algorithm,
        .limit = counts.capacity,
        .used = counts.used,
        .peak = counts.peak_used,
        .n_partitions = limit->n_partitions,
        .in_flight = counts.inside,
        .admitted = counts.admitted,
        .released = counts.released,
        .refused = counts.refused,
        .shed = counts.shed,
        .lost = counts.lost,
        .waiting = counts.waiting,
        .blocked_ns = counts.blocked_ns,
        .is_closed = counts.is_closed,
    };
    memcpy(ret_snapshot->used_by, counts.used_by, sizeof ret_snapshot->used_by);
    if (limit->n_partitions == 1)
        ret_snapshot->used_by[0] = counts.used;
    if (limit->is_adaptive)
        tell(&known.adaptive, ret_snapshot);
    return WEIR_OK;
}

uint64_t weir_limit_get(const weir_limit *limit)
{
    return weir__gate_capacity(limit->gate);
}

uint64_t weir_limit_used(const weir_limit *limit)
{
    return weir__gate_used(limit->gate);
}

/* ---- the arithmetic alone ----------------------------------------------------------------- */

struct weir_limit_model {
    weir_limit_algorithm algorithm;
    weir__adaptive adaptive;
};

int weir_limit_model_create(weir_limit_model **ret_model, const weir_limit_opts *opts,
                            weir_time now)
{
    weir__adaptive_opts how;
    if (!are_valid(opts, &how) || !is_adaptive(opts))
        return WEIR_EINVAL;
    weir_limit_model *model = weir__calloc(1, sizeof *model);
    if (!model)
        return WEIR_ENOMEM;
    how.seed = 1; /* a simulation is the same every time */
    model->algorithm = opts->algorithm;
    weir__adaptive_init(&model->adaptive, &how, now);
    *ret_model = model;
    return WEIR_OK;
}

void weir_limit_model_destroy(weir_limit_model *model)
{
    weir__free(model);
}

uint64_t weir_limit_model_sample(weir_limit_model *model, weir_time now, int64_t rtt_ns,
                                 uint64_t in_flight, weir_limit_report report)
{
    if (report == WEIR_LIMIT_IGNORE || rtt_ns <= 0)
        return weir__adaptive_limit(&model->adaptive);
    return weir__adaptive_sample(&model->adaptive, now, rtt_ns, in_flight,
                                 report == WEIR_LIMIT_DROP);
}

int weir_limit_model_get_snapshot(const weir_limit_model *model, weir_limit_snapshot *ret_snapshot)
{
    if (ret_snapshot->size != sizeof *ret_snapshot)
        return WEIR_EINVAL;
    *ret_snapshot =
        (weir_limit_snapshot){.size = sizeof *ret_snapshot, .algorithm = model->algorithm};
    tell(&model->adaptive, ret_snapshot);
    return WEIR_OK;
}
