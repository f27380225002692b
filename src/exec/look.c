/* look.c - what a stage has done, added up over those who work for it.
 *
 * An inline stage has no workers: its host is the stage whose workers run it.
 */
#include "exec/pipeline_impl.h"

#include <string.h>

static weir__stage *host_of(weir__stage *stage)
{
    return stage->pipeline->stages[stage->host];
}

/* Adds up one counter of the tallies for `stage` that its workers and its caller keep. */
#define SUM(stage, field) sum_of(host_of(stage), (stage)->index, offsetof(weir__tally, field))

static uint64_t counter_at(const weir__meter *meter, weir_stage of, size_t offset)
{
    return weir__read((const counter *)((const char *)&meter->tallies[of] + offset));
}

static uint64_t sum_of(const weir__stage *host, weir_stage of, size_t offset)
{
    uint64_t sum = counter_at(&host->caller, of, offset);
    unsigned n = weir__seats_used(host);
    for (unsigned i = 0; i < n; i++)
        sum += counter_at(&host->seats[i].meter, of, offset);
    return sum;
}

uint64_t weir__stage_failed(weir__stage *stage)
{
    return SUM(stage, failed);
}

static uint64_t turned_away(const weir__stage *stage)
{
    uint64_t sum = 0;
    for (int i = 0; i < WEIR_LOSS_REASONS; i++)
        sum += weir__read(&stage->turned_away[i]);
    return sum;
}

/* Items that were lost because there was no room. */
static uint64_t count_lost(const weir__stage *stage, const weir_queue_snapshot *queue)
{
    static const weir_drop_reason of_queue[] = {WEIR_DROP_NEWEST, WEIR_DROP_OLDEST,
                                                WEIR_DROP_SAMPLED, WEIR_DROP_EXPIRED};
    uint64_t lost = weir__read(&stage->turned_away[WEIR_LOSS_TIMEOUT]) +
                    weir__read(&stage->turned_away[WEIR_LOSS_REFUSED]) + queue->spills;
    for (size_t i = 0; i < sizeof(of_queue) / sizeof(*of_queue); i++)
        lost += queue->dropped[of_queue[i]];
    return lost;
}

static void add_times(weir__stage *stage, weir_time now, weir__pressure *sum)
{
    sum->busy_ns += weir__read(&stage->reported_busy_ns);
    sum->idle_ns += weir__read(&stage->reported_idle_ns);
    for (int c = 0; c < WEIR_CAUSES; c++)
        sum->held_ns[c] += weir__read(&stage->reported_held_ns[c]);
    for (unsigned i = 0; i < weir__seats_used(stage); i++) {
        weir__times times;
        weir__meter_read(&stage->seats[i].meter, now, &times);
        sum->busy_ns += times.busy_ns;
        sum->idle_ns += times.idle_ns;
        for (int c = 0; c < WEIR_CAUSES; c++)
            sum->held_ns[c] += times.held_ns[c];
    }
}

unsigned weir__stage_workers(const weir__stage *stage)
{
    return stage->opts.kind == WEIR_STAGE_THREAD
               ? atomic_load_explicit(&stage->running, memory_order_relaxed)
               : atomic_load_explicit(&stage->reported_workers, memory_order_relaxed);
}

void weir__stage_look(weir__stage *stage, weir_time now, weir__look *ret_look)
{
    *ret_look = (weir__look){.queue = WEIR_QUEUE_SNAPSHOT_INIT};
    weir__pressure *sum = &ret_look->sum;
    if (stage->queue)
        weir_queue_get_snapshot(stage->queue, &ret_look->queue);
    ret_look->emitted = SUM(stage, emitted);
    ret_look->accepted =
        turned_away(stage) + (stage->queue ? ret_look->queue.accepted : SUM(stage, entered));
    sum->done = stage->opts.source ? ret_look->emitted : SUM(stage, processed);
    sum->lost = count_lost(stage, &ret_look->queue);
    sum->is_source = stage->opts.source;
    sum->outside_ns = weir__read(&stage->outside_ns);
    if (stage->opts.kind == WEIR_STAGE_INLINE) {
        sum->busy_ns = SUM(stage, busy_ns);
        return;
    }
    sum->workers = weir__stage_workers(stage);
    add_times(stage, now, sum);
}

/* Adds to blocked[n x n] how long the workers of the stage waited for room, up to now. */
void weir__stage_blocked(weir__stage *stage, weir_time now, uint64_t *blocked)
{
    uint64_t *row = blocked + (size_t)stage->index * stage->pipeline->n;
    for (unsigned j = 0; j < stage->pipeline->n; j++)
        row[j] += sum_of(stage, j, offsetof(weir__tally, blocked_ns));
    for (unsigned i = 0; i < weir__seats_used(stage); i++) {
        weir__times times;
        weir__meter_read(&stage->seats[i].meter, now, &times);
        if (times.doing == WEIR__BLOCKED)
            row[times.where] += times.in_progress_ns;
    }
}

/* Of what was delivered to it, what it has no longer. */
static uint64_t settled(const weir__stage *stage, uint64_t processed, uint64_t failed)
{
    uint64_t sum = processed + failed;
    for (int i = 0; i < WEIR_LOSS_REASONS; i++)
        sum += weir__read(&stage->let_go[i]);
    return sum;
}

static uint64_t in_hand(const weir__stage *stage, uint64_t delivered, uint64_t settled)
{
    uint64_t sum = 0;
    if (stage->opts.kind == WEIR_STAGE_EXTERNAL)
        return delivered > settled ? delivered - settled : 0;
    for (unsigned i = 0; i < weir__seats_used(stage); i++)
        sum += atomic_load_explicit(&stage->seats[i].in_hand, memory_order_relaxed);
    return sum;
}

void weir__stage_see(weir__stage *stage, weir_time now, weir__sight *ret_sight)
{
    weir__look look;
    weir__stage_look(stage, now, &look);
    weir__sight seen = {
        .sum = look.sum,
        .emitted = look.emitted,
        .failed = SUM(stage, failed),
        .retried = SUM(stage, retried),
        .turned_away = turned_away(stage),
    };
    seen.settled = settled(stage, look.sum.done, seen.failed);
    seen.delivered = stage->queue         ? look.queue.delivered
                     : stage->opts.source ? look.emitted
                                          : SUM(stage, entered);
    seen.in_hand = in_hand(stage, seen.delivered, seen.settled);
    *ret_sight = seen;
}

static void look_at_queue(weir__stage *stage, const weir_queue_snapshot *queue,
                          weir_stage_snapshot *now)
{
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        now->dropped[i] = queue->dropped[i];
    now->queue = queue->capacity;
    now->depth = queue->depth + queue->spilled;
    now->spilled = queue->spilled;
    now->recovered = queue->recovered;
    now->peak_depth = queue->peak_depth;
    now->in_hand = in_hand(stage, queue->delivered, settled(stage, now->processed, now->failed));
}

int weir_pipeline_get_snapshot(weir_pipeline *pipeline, weir_stage stage,
                               weir_stage_snapshot *ret_snapshot)
{
    if (ret_snapshot->size != sizeof(*ret_snapshot) || stage >= pipeline->n ||
        !pipeline->started_at)
        return WEIR_EINVAL;
    weir__stage *s = pipeline->stages[stage];
    weir__look look;
    weir__stage_look(s, weir_now(), &look);
    weir_stage_snapshot now = {
        .size = sizeof(now),
        .name = s->name,
        .workers = weir__stage_workers(s),
        .accepted = look.accepted,
        .processed = look.sum.done,
        .failed = SUM(s, failed),
        .retried = SUM(s, retried),
        .emitted = look.emitted,
        .waits = weir__read(&s->waits),
        .busy_ns = look.sum.busy_ns,
        .idle_ns = look.sum.idle_ns,
        .ended = atomic_load_explicit(&s->ended, memory_order_relaxed),
    };
    memcpy(now.held_ns, look.sum.held_ns, sizeof(now.held_ns));
    if (s->queue)
        look_at_queue(s, &look.queue, &now);
    for (int i = 0; i < WEIR_LOSS_REASONS; i++)
        now.dropped[i] += weir__read(&s->turned_away[i]) + weir__read(&s->let_go[i]);
    weir__look_at_charges(s, &now);
    *ret_snapshot = now;
    return WEIR_OK;
}

unsigned weir_pipeline_stages(weir_pipeline *pipeline)
{
    return pipeline->n;
}

int weir_pipeline_report(weir_pipeline *pipeline, weir_stage stage, const weir_work *work)
{
    if (work->size != sizeof(*work) || stage >= pipeline->n || !pipeline->started_at ||
        pipeline->stages[stage]->opts.kind != WEIR_STAGE_EXTERNAL)
        return WEIR_EINVAL;
    weir__stage *s = pipeline->stages[stage];
    weir__tally *tally = &s->caller.tallies[stage];
    weir__add(&tally->processed, work->processed, true);
    weir__add(&tally->failed, work->failed, true);
    weir__add(&tally->retried, work->retried, true);
    weir__add(&s->reported_busy_ns, work->busy_ns, true);
    weir__add(&s->reported_idle_ns, work->idle_ns, true);
    for (int i = 0; i < WEIR_CAUSES; i++)
        weir__add(&s->reported_held_ns[i], work->held_ns[i], true);
    atomic_store_explicit(&s->reported_workers, work->workers, memory_order_relaxed);
    return WEIR_OK;
}
