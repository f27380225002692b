/* emit.c - where an emitted item goes: to the stages behind, or on the way to them into a function that
 * runs here.
 *
 * An item is tried first (WEIR_PROBE) and waited for only then, between weir__wait_begin and
 * weir__wait_end; so no clock is read and no lock of the caller's released where there is room.
 */
#include "exec/pipeline_impl.h"

static void drop(weir__stage *stage, void *item, weir_loss reason)
{
    weir_pipeline *pipeline = stage->pipeline;
    pipeline->opts.on_drop(item, stage->index, reason, pipeline->opts.ctx);
}

/* What this thread works on is not acknowledged: a restart may bring it through. */
static void note_lost(weir__meter *meter)
{
    if (!meter->shared)
        meter->has_lost = true;
}

/* The target does not get it: as if it had accepted and dropped it. */
static void turn_away(weir__stage *target, void *item, weir_loss reason)
{
    weir__add(&target->turned_away[reason], 1, true);
    drop(target, item, reason);
}

void weir__let_go(weir__stage *stage, void *item, weir_loss reason)
{
    weir__add(&stage->let_go[reason], 1, true);
    drop(stage, item, reason);
}

static weir_loss loss_of(int rc)
{
    switch (rc) {
    case WEIR_ETIMEDOUT: return WEIR_LOSS_TIMEOUT;
    case WEIR_ECLOSED: return WEIR_LOSS_DISCARDED;
    case WEIR_ENOMEM: return WEIR_LOSS_NO_MEMORY;
    default: return WEIR_LOSS_REFUSED;
    }
}

/* Not for want of room, and not as the item is what it is. */
static bool is_trouble(int rc)
{
    return rc == WEIR_ENOMEM || rc == WEIR_ENOFD || rc == WEIR_ESYSTEM;
}

static weir_time put_deadline(const weir__stage *target)
{
    return target->opts.put_timeout_ns ? weir_after(target->opts.put_timeout_ns) : WEIR_FOREVER;
}

/* The stage may be an inline one that runs where an ordered one emits. */
static void note_block(weir__stage *stage, unsigned target_and_one)
{
    weir__order *order = stage->pipeline->stages[stage->host]->order;
    if (order) /* relaxed: a hint for who waits for the window */
        atomic_store_explicit(&order->blocked_on, target_and_one, memory_order_relaxed);
}

/* Waits for room for the first of n items, and puts what it can. */
static int64_t put_waiting(weir__stage *stage, weir__stage *target, weir__meter *meter,
                           void *const *items, const uint64_t *costs, size_t n)
{
    weir__add(&target->waits, 1, true);
    note_block(stage, target->index + 1);
    weir__wait wait = weir__wait_begin(stage->pipeline, meter, WEIR__BLOCKED, target->index);
    int64_t rc = weir_queue_put_many(target->queue, items, costs, n, put_deadline(target));
    weir__wait_end(stage->pipeline, meter, wait);
    note_block(stage, 0);
    return rc;
}

/* A put that writes to disk, and waits for it, is a wait. */
static int64_t try_put(weir__stage *stage, weir__stage *target, weir__meter *meter,
                       void *const *items, const uint64_t *costs, size_t n)
{
    if (target->opts.acknowledge)
        return put_waiting(stage, target, meter, items, costs, n);
    return weir_queue_put_many(target->queue, items, costs, n, WEIR_PROBE);
}

/* Puts n items into the queue of the target; returns how many were turned away. */
static size_t put(weir__stage *stage, weir__stage *target, weir__meter *meter, void *const *items,
                  const uint64_t *costs, size_t n)
{
    size_t lost = 0;
    for (size_t i = 0; i < n;) {
        bool is_last = n - i == 1 && !target->opts.acknowledge;
        int64_t rc = is_last ? weir_queue_put(target->queue, items[i], costs[i], WEIR_PROBE)
                             : try_put(stage, target, meter, items + i, costs + i, n - i);
        if (rc >= 0 && is_last)
            return lost + (rc == WEIR_DROPPED);
        if (rc == WEIR_EFULL && weir__waits(target))
            rc = put_waiting(stage, target, meter, items + i, costs + i, n - i);
        if (rc > 0) {
            i += (size_t)rc;
            continue;
        }
        if (is_trouble((int)rc))
            note_lost(meter);
        turn_away(target, items[i], loss_of((int)rc));
        lost++;
        i++;
    }
    return lost;
}

/* The cost of the item in the queue of the target. */
static uint64_t cost_of(weir__stage *target, void *item, uint64_t cost)
{
    weir_pipeline *pipeline = target->pipeline;
    if (cost > 0 || !target->opts.max_cost || !pipeline->opts.measure)
        return cost;
    return pipeline->opts.measure(item, target->index, pipeline->opts.ctx);
}

#define SHORT  (10 * WEIR_MICROSECOND)
#define SAMPLE 16 /* of short calls one in so many is timed, with the calls that it makes */

/* Runs the function of an inline stage here.  Its own time is what passes without waits, and without
 * the functions that it emits to. */
static void run_timed(weir__stage *target, weir__meter *meter, void *item, weir_output *output)
{
    uint64_t waited = meter->waited_ns, inner = meter->inner_ns;
    weir_time from = weir_now();
    weir__stage_call(target, &item, 1, output);
    uint64_t own = (uint64_t)(weir_now() - from) - (meter->waited_ns - waited);
    uint64_t within = meter->inner_ns - inner;
    weir__add(&meter->tallies[target->index].busy_ns,
              own > within ? meter->sample * (own - within) : 0, false);
    meter->inner_ns = inner + own;
    if (target->record)
        weir__tell_time_together(&target->record->service, (int64_t)own - (int64_t)within,
                                 meter->sample);
}

static void run_inline(weir__stage *target, weir__meter *meter, void *item)
{
    weir_output output = {.meter = meter};
    weir__add(&meter->tallies[target->index].entered, 1, meter->shared);
    bool outermost = meter->depth == 0;
    if (meter->shared || (outermost && meter->calls++ % meter->sample != 0) ||
        (!outermost && !meter->timing)) {
        meter->depth += !meter->shared;
        weir__stage_call(target, &item, 1, &output);
        meter->depth -= !meter->shared;
        return;
    }
    uint64_t inner = meter->inner_ns;
    meter->timing = true;
    meter->depth++;
    run_timed(target, meter, item, &output);
    meter->depth--;
    if (!outermost)
        return;
    meter->timing = false;
    meter->sample = meter->inner_ns - inner > SHORT ? 1 : SAMPLE;
}

/* false: it was dropped. */
static bool emit_to(weir__stage *stage, weir__stage *target, weir__meter *meter, void *item,
                    uint64_t cost)
{
    weir__add(&meter->tallies[stage->index].emitted, 1, meter->shared);
    /* acquire: pairs with weir__stage_end; a source that was given up emits nowhere any more */
    if (atomic_load_explicit(&stage->ended, memory_order_acquire)) {
        turn_away(target, item, WEIR_LOSS_DISCARDED);
        return false;
    }
    if (target->opts.kind == WEIR_STAGE_INLINE) {
        run_inline(target, meter, item);
        return true;
    }
    cost = cost_of(target, item, cost);
    return put(stage, target, meter, &item, &cost, 1) == 0;
}

static weir__stage *behind(weir__stage *stage, uint64_t i)
{
    return stage->pipeline->stages[stage->behind[i]];
}

static unsigned choose(weir__stage *stage, void *item)
{
    if (stage->n_behind == 1)
        return 0;
    if (stage->opts.route == WEIR_ROUTE_KEY)
        return stage->opts.key(item, stage->opts.ctx) % stage->n_behind;
    return atomic_fetch_add_explicit(&stage->turn, 1, memory_order_relaxed) % stage->n_behind;
}

/* To each; the last one gets the item itself. */
static bool broadcast(weir__stage *stage, weir__meter *meter, void *item, uint64_t cost)
{
    weir_pipeline *pipeline = stage->pipeline;
    bool kept = true;
    for (unsigned i = 0; i + 1 < stage->n_behind; i++) {
        void *other;
        if (pipeline->opts.share(item, &other, pipeline->opts.ctx)) {
            kept &= emit_to(stage, behind(stage, i), meter, other, cost);
            continue;
        }
        weir__add(&meter->tallies[stage->index].emitted, 1, meter->shared);
        weir__add(&behind(stage, i)->turned_away[WEIR_LOSS_NO_MEMORY], 1, true);
        note_lost(meter);
        kept = false;
    }
    return emit_to(stage, behind(stage, stage->n_behind - 1), meter, item, cost) && kept;
}

/* Whether many items may be put at once: one queue, no costs to ask for, and it says of each that it did
 * not take. */
static bool is_plain(weir__stage *stage)
{
    if (stage->n_behind != 1 || !behind(stage, 0)->queue)
        return false;
    const weir_stage_opts *opts = &behind(stage, 0)->opts;
    return !opts->max_cost && opts->overflow != WEIR_OVERFLOW_DROP_NEWEST &&
           opts->overflow != WEIR_OVERFLOW_SAMPLE;
}

static bool emit_one(weir__stage *stage, weir__meter *meter, void *item, uint64_t cost)
{
    if (stage->n_behind == 0) {
        drop(stage, item, WEIR_LOSS_OUTPUT);
        return true;
    }
    if (stage->n_behind > 1 && stage->opts.route == WEIR_ROUTE_BROADCAST)
        return broadcast(stage, meter, item, cost);
    return emit_to(stage, behind(stage, choose(stage, item)), meter, item, cost);
}

void weir__emit_now(weir__stage *stage, weir__meter *meter, void *const *items,
                    const uint64_t *costs, size_t n, size_t *ret_dropped)
{
    size_t dropped = 0;
    if (n > 1 && is_plain(stage) && !atomic_load_explicit(&stage->ended, memory_order_acquire)) {
        weir__add(&meter->tallies[stage->index].emitted, n, meter->shared);
        dropped = put(stage, behind(stage, 0), meter, items, costs, n);
    } else {
        for (size_t i = 0; i < n; i++)
            dropped += !emit_one(stage, meter, items[i], costs ? costs[i] : 0);
    }
    if (ret_dropped)
        *ret_dropped = dropped;
}

void weir__emit_lost(weir__stage *stage, weir__meter *meter, void *item, weir_loss reason)
{
    if (stage->n_behind == 0) {
        drop(stage, item, WEIR_LOSS_OUTPUT);
        return;
    }
    weir__add(&meter->tallies[stage->index].emitted, 1, meter->shared);
    note_lost(meter);
    turn_away(behind(stage, 0), item, reason);
}

void weir__dead_letter(weir__stage *stage, weir__meter *meter, void *item)
{
    weir__stage *target = stage->pipeline->stages[stage->opts.dead_letter];
    emit_to(stage, target, meter, item, 0);
}

/* ---- for functions that run ------------------------------------------------------------------ */

int weir_emit(const weir_run *run, void *item, uint64_t cost)
{
    weir__stage *stage = run->pipeline->stages[run->stage];
    weir_output *output = run->output;
    if (output->outcome) {
        if (weir__order_keep(output->outcome, item, cost))
            return WEIR_KEPT;
        weir__emit_lost(stage, output->meter, item, WEIR_LOSS_NO_MEMORY);
        return WEIR_DROPPED;
    }
    return emit_one(stage, output->meter, item, cost) ? WEIR_KEPT : WEIR_DROPPED;
}

#define CHUNK 64 /* costs on the stack */

size_t weir_emit_many(const weir_run *run, void *const *items, const uint64_t *costs, size_t n)
{
    static const uint64_t nothing[CHUNK];
    weir__stage *stage = run->pipeline->stages[run->stage];
    size_t dropped = 0, now = 0;
    for (size_t i = 0, some; i < n; i += some) {
        some = n - i < CHUNK ? n - i : CHUNK;
        if (run->output->outcome)
            some = 1;
        if (some == 1)
            now = weir_emit(run, items[i], costs ? costs[i] : 0) != WEIR_KEPT;
        else
            weir__emit_now(stage, run->output->meter, items + i, costs ? costs + i : nothing, some,
                           &now);
        dropped += now;
    }
    return dropped;
}

bool weir_run_is_halted(const weir_run *run)
{
    return weir__is_halted(run->pipeline);
}

/* ---- for callers ----------------------------------------------------------------------------- */

static weir__stage *external(weir_pipeline *pipeline, weir_stage stage)
{
    bool known = stage < pipeline->n && pipeline->started_at &&
                 pipeline->stages[stage]->opts.kind == WEIR_STAGE_EXTERNAL;
    return known ? pipeline->stages[stage] : NULL;
}

int weir_pipeline_emit(weir_pipeline *pipeline, weir_stage stage, void *item, uint64_t cost)
{
    weir__stage *s = external(pipeline, stage);
    if (!s)
        return WEIR_EINVAL;
    return emit_one(s, &s->caller, item, cost) ? WEIR_KEPT : WEIR_DROPPED;
}

int weir_pipeline_drop(weir_pipeline *pipeline, weir_stage stage, void *item, weir_loss reason)
{
    weir__stage *s = external(pipeline, stage);
    if (!s || (unsigned)reason >= WEIR_LOSS_REASONS)
        return WEIR_EINVAL;
    weir__let_go(s, item, reason);
    return WEIR_OK;
}

int weir_pipeline_route(weir_pipeline *pipeline, weir_stage stage, void *item,
                        weir_stage *ret_targets, unsigned max)
{
    weir__stage *s = external(pipeline, stage);
    if (!s || s->n_behind > max)
        return WEIR_EINVAL;
    for (unsigned i = 0; i < s->n_behind; i++)
        if (!behind(s, i)->queue)
            return WEIR_EINVAL;
    unsigned n = 0;
    if (s->n_behind > 1 && s->opts.route == WEIR_ROUTE_BROADCAST)
        while (n < s->n_behind) {
            ret_targets[n] = s->behind[n];
            n++;
        }
    else if (s->n_behind > 0)
        ret_targets[n++] = s->behind[choose(s, item)];
    weir__add(&s->caller.tallies[stage].emitted, n, true);
    return (int)n;
}

void weir_pipeline_account(weir_pipeline *pipeline, weir_stage stage, weir_stage target, int rc,
                           int64_t blocked_ns)
{
    weir__stage *s = external(pipeline, stage);
    if (!s || target >= pipeline->n)
        return;
    weir__stage *t = pipeline->stages[target];
    if (blocked_ns > 0) {
        weir__add(&t->waits, 1, true);
        weir__add(&s->caller.tallies[target].blocked_ns, (uint64_t)blocked_ns, true);
    }
    if (rc < 0)
        weir__add(&t->turned_away[loss_of(rc)], 1, true);
}
