/* tender.c - the pipeline's own thread: who holds everything back, how many workers, how large queues.
 *
 * Ten times a second it looks at what all stages did since the last time, charges what was blocked
 * (model/bottleneck.h), asks model/scale.h for the number of workers, and model/queue_size.h for the
 * size of queues.  Who asks for a verdict charges up to that moment.
 *
 * Looking at a queue may bring items back from disk, which is the caller's functions: it is done before the
 * pipeline's lock is taken.  So looks may come in another order than they were taken, and totals only grow.
 *
 * The thread is outside the caller's lock (before_wait), but for the caller's functions.
 */
#include "exec/pipeline_impl.h"

#include <stdio.h>
#include <string.h>

#include "base/park.h"

_Static_assert((int)WEIR_CAUSES == (int)WEIR__CAUSES &&
                   (int)WEIR_CAUSE_ORDER == (int)WEIR__CAUSE_ORDER,
               "one list of causes");

#define PERIOD  (100 * WEIR_MILLISECOND)
#define GIVE_UP WEIR_SECOND /* how long a source may finish its call after a stop */

int weir__tender_init(weir_pipeline *pipeline)
{
    size_t n = pipeline->n;
    pipeline->charged = weir__calloc(n * WEIR_CAUSES, sizeof(double));
    pipeline->window_charged = weir__calloc(n * WEIR_CAUSES, sizeof(double));
    pipeline->scratch = weir__calloc(n * n + n, sizeof(double));
    pipeline->blocked_before = weir__calloc(n * n, sizeof(uint64_t));
    pipeline->blocked = weir__calloc(n * n, sizeof(uint64_t));
    pipeline->window = weir__calloc(n, sizeof(weir__pressure));
    pipeline->sights = weir__calloc(n, sizeof(weir__sight));
    pipeline->tender.pipeline = pipeline;
    snprintf(pipeline->tender.name, sizeof(pipeline->tender.name), "%.50s-tender", pipeline->name);
    bool complete = pipeline->charged && pipeline->window_charged && pipeline->scratch &&
                    pipeline->blocked_before && pipeline->blocked && pipeline->window &&
                    pipeline->sights;
    return complete ? WEIR_OK : WEIR_ENOMEM;
}

void weir__tender_fini(weir_pipeline *pipeline)
{
    weir__free(pipeline->charged);
    weir__free(pipeline->window_charged);
    weir__free(pipeline->scratch);
    weir__free(pipeline->blocked_before);
    weir__free(pipeline->blocked);
    weir__free(pipeline->window);
    weir__free(pipeline->sights);
    pipeline->charged = pipeline->window_charged = pipeline->scratch = NULL;
    pipeline->blocked_before = pipeline->blocked = NULL;
    pipeline->window = NULL;
    pipeline->sights = NULL;
}

/* ---- pressure --------------------------------------------------------------------------------- */

static uint64_t since(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0;
}

/* By how much it has grown. */
static uint64_t advance(uint64_t *total, uint64_t now)
{
    uint64_t by = since(now, *total);
    *total += by;
    return by;
}

/* What a stage did since the last look. */
static weir__pressure window_of(weir__stage *stage, const weir__pressure *now)
{
    weir__pressure *total = &stage->total;
    weir__pressure window = *now;
    window.busy_ns = advance(&total->busy_ns, now->busy_ns);
    window.idle_ns = advance(&total->idle_ns, now->idle_ns);
    for (int i = 0; i < WEIR_CAUSES; i++)
        window.held_ns[i] = advance(&total->held_ns[i], now->held_ns[i]);
    window.done = advance(&total->done, now->done);
    window.lost = advance(&total->lost, now->lost);
    window.outside_ns = advance(&total->outside_ns, now->outside_ns);
    total->workers = now->workers;
    total->is_source = now->is_source;
    return window;
}

/* The charge of a host is also that of the inline stages that its workers run: by their time. */
static void share_with_inline(weir_pipeline *pipeline)
{
    for (unsigned i = 0; i < pipeline->n; i++) {
        weir__stage *stage = pipeline->stages[i];
        if (stage->opts.kind != WEIR_STAGE_INLINE)
            continue;
        const weir__pressure *host = &pipeline->window[stage->host];
        double *of_host = &pipeline->window_charged[stage->host * WEIR_CAUSES + WEIR_CAUSE_WORKERS];
        if (host->busy_ns == 0)
            continue;
        double share = (double)pipeline->window[i].busy_ns / (double)host->busy_ns;
        double moved = *of_host * (share < 1 ? share : 1);
        *of_host -= moved;
        pipeline->window_charged[i * WEIR_CAUSES + WEIR_CAUSE_WORKERS] += moved;
        /* what is left is shared with the next one by what is left of the time */
        pipeline->window[stage->host].busy_ns -=
            (uint64_t)((double)host->busy_ns * (share < 1 ? share : 1));
    }
}

/* Not under the lock. */
static void see_all(weir_pipeline *pipeline, weir_time now, weir__sight *ret_seen)
{
    for (unsigned i = 0; i < pipeline->n; i++)
        weir__stage_see(pipeline->stages[i], now, &ret_seen[i]);
}

/* Under the lock: charges what was blocked since the last time, if that is not younger than `seen`. */
static void charge(weir_pipeline *pipeline, weir_time now, const weir__sight *seen)
{
    if (now <= pipeline->charged_at)
        return;
    size_t n = pipeline->n;
    uint64_t *blocked = pipeline->blocked, *before = pipeline->blocked_before;
    memset(blocked, 0, n * n * sizeof(*blocked));
    memset(pipeline->window_charged, 0, n * WEIR_CAUSES * sizeof(double));
    for (unsigned i = 0; i < n; i++) {
        weir__stage *stage = pipeline->stages[i];
        weir__stage_blocked(stage, now, blocked);
        pipeline->window[i] = window_of(stage, &seen[i].sum);
        stage->worker_ns += seen[i].sum.workers * (double)(now - pipeline->charged_at);
    }
    for (size_t i = 0; i < n * n; i++) {
        uint64_t total = blocked[i];
        blocked[i] = since(total, before[i]);
        before[i] = total > before[i] ? total : before[i];
    }
    weir__bottleneck_charge(pipeline->window_charged, pipeline->window, blocked, pipeline->edges,
                            pipeline->n_edges, pipeline->order, pipeline->n, pipeline->scratch);
    share_with_inline(pipeline);
    for (size_t i = 0; i < n * WEIR_CAUSES; i++)
        pipeline->charged[i] += pipeline->window_charged[i];
    pipeline->charged_at = now;
}

/* Looks, and leaves with the lock: what was blocked up to now is charged, unless there is no memory to look
 * with.  Then it is charged up to the last time. */
static void lock_and_charge(weir_pipeline *pipeline, bool is_end)
{
    weir_time now = weir_now();
    weir__sight *seen = weir__calloc(pipeline->n, sizeof(*seen));
    if (seen)
        see_all(pipeline, now, seen);
    weir__lock(&pipeline->lock);
    if (seen)
        charge(pipeline, now, seen);
    if (seen && is_end)
        weir__pipeline_tell(pipeline, seen);
    pipeline->end_is_told |= seen && is_end;
    weir__free(seen);
}

/* Before anybody hears of it, so that who does sees all that was done. */
void weir__tell_the_end(weir_pipeline *pipeline)
{
    lock_and_charge(pipeline, true);
    weir__unlock(&pipeline->lock);
}

void weir__look_at_charges(weir__stage *stage, weir_stage_snapshot *snapshot)
{
    weir_pipeline *pipeline = stage->pipeline;
    size_t n = pipeline->n;
    lock_and_charge(pipeline, false);
    memcpy(snapshot->charged_ns, pipeline->charged + stage->index * WEIR_CAUSES,
           sizeof(snapshot->charged_ns));
    for (size_t i = 0; i < n; i++) {
        snapshot->blocked_ns += pipeline->blocked_before[stage->index * n + i];
        snapshot->pressed_ns += pipeline->blocked_before[i * n + stage->index];
    }
    snapshot->pressed_ns += weir__read(&stage->outside_ns);
    snapshot->workers_peak = stage->workers_peak;
    weir__unlock(&pipeline->lock);
    if (snapshot->workers_peak < snapshot->workers)
        snapshot->workers_peak = snapshot->workers;
}

/* ---- the verdict ------------------------------------------------------------------------------ */

typedef struct hearing {
    double charged[WEIR_STAGES_MAX * WEIR_CAUSES];
    weir__pressure total[WEIR_STAGES_MAX];
    const char *names[WEIR_STAGES_MAX];
    double rates[WEIR_STAGES_MAX];
} hearing;

static unsigned whole_of(weir__stage *stage)
{
    return stage->opts.is_part ? stage->opts.part_of : stage->index;
}

static void add_pressure(weir__pressure *sum, const weir__pressure *part)
{
    sum->busy_ns += part->busy_ns;
    sum->idle_ns += part->idle_ns;
    for (int i = 0; i < WEIR_CAUSES; i++)
        sum->held_ns[i] += part->held_ns[i];
    sum->done += part->done;
    sum->lost += part->lost;
    sum->workers += part->workers;
    sum->is_source |= part->is_source;
}

/* Under the lock: the stages, parts with their whole. */
static void hear(weir_pipeline *pipeline, hearing *h)
{
    double elapsed = (double)(pipeline->charged_at - pipeline->started_at);
    for (unsigned i = 0; i < pipeline->n; i++) {
        weir__stage *stage = pipeline->stages[i];
        unsigned whole = whole_of(stage);
        weir__pressure total = stage->total;
        total.workers = stage->opts.workers; /* as they are told; on average where that changes */
        if (weir__is_scaled(stage))
            total.workers = elapsed > 0 ? stage->worker_ns / elapsed : 1;
        add_pressure(&h->total[whole], &total);
        for (int c = 0; c < WEIR_CAUSES; c++)
            h->charged[whole * WEIR_CAUSES + c] += pipeline->charged[i * WEIR_CAUSES + c];
        h->names[i] = stage->name;
        weir_rate_snapshot rate = WEIR_RATE_SNAPSHOT_INIT;
        if (stage->opts.rate && weir_rate_get_snapshot(stage->opts.rate, &rate) == WEIR_OK)
            h->rates[i] = (double)rate.rate * 1e9 / (double)rate.per_ns;
    }
}

int weir_pipeline_get_verdict(weir_pipeline *pipeline, weir_verdict *ret_verdict)
{
    if (ret_verdict->size != sizeof(*ret_verdict) || !pipeline->started_at)
        return WEIR_EINVAL;
    hearing *h = weir__calloc(1, sizeof(*h));
    if (!h)
        return WEIR_ENOMEM;
    lock_and_charge(pipeline, false);
    hear(pipeline, h);
    uint64_t elapsed = (uint64_t)(pipeline->charged_at - pipeline->started_at);
    weir__unlock(&pipeline->lock);
    weir__verdict found = weir__bottleneck_find(h->charged, pipeline->n, h->total, elapsed);
    *ret_verdict = (weir_verdict){
        .size = sizeof(*ret_verdict),
        .stage = found.stage < 0 ? WEIR_NO_STAGE : (weir_stage)found.stage,
        .cause = (weir_cause)found.cause,
        .share = found.share,
    };
    weir__bottleneck_say(ret_verdict->text, sizeof(ret_verdict->text), h->names, &found, h->total,
                         h->rates);
    weir__free(h);
    return WEIR_OK;
}

/* ---- workers and queues ----------------------------------------------------------------------- */

static void call_begin(weir_pipeline *pipeline)
{
    if (pipeline->opts.after_wait)
        pipeline->opts.after_wait(pipeline->opts.ctx);
}

static void call_end(weir_pipeline *pipeline)
{
    if (pipeline->opts.before_wait)
        pipeline->opts.before_wait(pipeline->opts.ctx);
}

/* By this thread, for who is not there to do it. */
static void end_for(weir__stage *stage)
{
    if (atomic_load_explicit(&stage->ended, memory_order_relaxed))
        return;
    call_begin(stage->pipeline);
    weir__stage_end(stage);
    call_end(stage->pipeline);
}

static void set_workers(weir__stage *stage, unsigned wanted)
{
    uint32_t before = atomic_load_explicit(&stage->wanted, memory_order_relaxed);
    atomic_store_explicit(&stage->wanted, wanted, memory_order_relaxed);
    if (stage->opts.kind == WEIR_STAGE_EXTERNAL) {
        if (wanted == before || !stage->opts.on_workers)
            return;
        call_begin(stage->pipeline);
        stage->opts.on_workers(stage->opts.ctx, wanted);
        call_end(stage->pipeline);
        return;
    }
    /* Nobody leaves below `wanted`, and only this thread adds any. */
    uint32_t running = atomic_load_explicit(&stage->running, memory_order_relaxed);
    int rc = WEIR_OK;
    while (rc == WEIR_OK && running > 0 && running < wanted) {
        if (!atomic_compare_exchange_weak_explicit(&stage->running, &running, running + 1,
                                                   memory_order_relaxed, memory_order_relaxed))
            continue; /* 0: it has ended */
        call_begin(stage->pipeline);
        rc = weir__stage_spawn(stage); /* tried again in the next period */
        call_end(stage->pipeline);
        running = atomic_load_explicit(&stage->running, memory_order_relaxed);
    }
    /* acquire: pairs with the releases of those who left, the last one while a worker counted that did not come */
    if (atomic_load_explicit(&stage->running, memory_order_acquire) == 0)
        end_for(stage);
}

/* Under the lock: sums over a row or column of what was blocked. */
static uint64_t blocked_by(weir_pipeline *pipeline, weir_stage stage, bool upstream)
{
    size_t n = pipeline->n;
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += pipeline->blocked_before[upstream ? i * n + stage : stage * n + i];
    return sum;
}

static double producers_of(weir__stage *stage)
{
    weir_pipeline *pipeline = stage->pipeline;
    double sum = 0;
    for (unsigned i = 0; i < pipeline->n; i++) {
        weir__stage *before = pipeline->stages[i];
        for (unsigned j = 0; j < before->n_behind; j++)
            if (before->behind[j] == stage->index)
                sum += weir__stage_workers(pipeline->stages[before->host]);
    }
    return sum;
}

static void scale(weir__stage *stage, weir_time now)
{
    weir_pipeline *pipeline = stage->pipeline;
    weir__look look;
    weir__stage_look(stage, now, &look);
    weir__scale_sample sample = {
        .now = now,
        .arrived = look.accepted,
        .done = look.sum.done + weir__stage_failed(stage),
        .busy_ns = look.sum.busy_ns,
        .idle_ns = look.sum.idle_ns,
        .lost = look.sum.lost,
        .depth = look.queue.depth,
        .capacity = look.queue.capacity == WEIR_UNBOUNDED ? 0 : look.queue.capacity,
        .workers = weir__stage_workers(stage),
        .producers = producers_of(stage),
    };
    for (int i = 0; i < WEIR_CAUSES; i++)
        sample.held_ns += look.sum.held_ns[i];
    weir__lock(&pipeline->lock);
    sample.blocked_ns = blocked_by(pipeline, stage->index, false);
    sample.upstream_blocked_ns = blocked_by(pipeline, stage->index, true) + look.sum.outside_ns;
    weir__unlock(&pipeline->lock);
    set_workers(stage, weir__scale_step(&stage->scale, &sample));
}

static void resize(weir__stage *stage, weir_time now)
{
    weir__look look;
    weir__stage_look(stage, now, &look);
    weir__queue_size_sample sample = {
        .now = now,
        .arrived = look.accepted,
        .done = look.sum.done,
        .busy_ns = look.sum.busy_ns,
        .workers = look.sum.workers,
        .mean_cost = look.queue.accepted
                         ? (double)look.queue.accepted_cost / (double)look.queue.accepted
                         : 0,
    };
    size_t size = weir__queue_size_step(&stage->queue_size, &sample);
    if (size != look.queue.capacity)
        weir_queue_resize(stage->queue, size, look.queue.max_cost);
}

static bool is_auto(const weir__stage *stage)
{
    return stage->queue && stage->opts.queue == WEIR_AUTO_QUEUE;
}

static void begin_tuning(weir_pipeline *pipeline, weir_time now)
{
    unsigned autos = 0;
    for (unsigned i = 0; i < pipeline->n; i++)
        autos += is_auto(pipeline->stages[i]);
    for (unsigned i = 0; i < pipeline->n; i++) {
        weir__stage *stage = pipeline->stages[i];
        if (weir__is_scaled(stage))
            weir__scale_init(&stage->scale,
                             &(weir__scale_terms){stage->opts.workers_min, stage->opts.workers_max},
                             now);
        if (!is_auto(stage))
            continue;
        weir_queue_snapshot queue = WEIR_QUEUE_SNAPSHOT_INIT;
        weir_queue_get_snapshot(stage->queue, &queue);
        weir__queue_size_terms terms = {1, stage->opts.queue_max,
                                        pipeline->opts.auto_bytes / autos};
        weir__queue_size_init(&stage->queue_size, &terms, queue.capacity, now);
    }
}

/* ---- sources that do not come back ------------------------------------------------------------ */

/* Whether all workers of a source that was to stop so long ago have been in their calls since, and have
 * not waited in them for room. */
static bool hangs(weir__stage *source, weir_time now)
{
    for (unsigned i = 0; i < weir__seats_used(source); i++) {
        weir__times times;
        weir__meter_read(&source->seats[i].meter, now, &times);
        if (times.doing == WEIR__ABSENT)
            continue;
        if (times.doing != WEIR__BUSY || times.in_progress_ns < (uint64_t)GIVE_UP)
            return false;
    }
    return true;
}

static void give_up_sources(weir_pipeline *pipeline, weir_time now)
{
    weir_time stopped_at = atomic_load(&pipeline->stopped_at);
    if (stopped_at == 0 || now - stopped_at < GIVE_UP)
        return;
    for (unsigned i = 0; i < pipeline->n; i++) {
        weir__stage *stage = pipeline->stages[i];
        if (stage->opts.source && stage->opts.kind == WEIR_STAGE_THREAD && hangs(stage, now))
            end_for(stage);
    }
}

/* ---- the thread ------------------------------------------------------------------------------- */

static void tend(weir_pipeline *pipeline)
{
    weir_time now = weir_now();
    /* acquire: pairs with the release in lose_alive; whether all that is seen is final */
    bool has_ended = atomic_load_explicit(&pipeline->alive, memory_order_acquire) == 0;
    see_all(pipeline, now, pipeline->sights);
    weir__lock(&pipeline->lock);
    charge(pipeline, now, pipeline->sights);
    if (has_ended || !pipeline->end_is_told)
        weir__pipeline_tell(pipeline, pipeline->sights);
    for (unsigned i = 0; i < pipeline->n; i++) {
        weir__stage *stage = pipeline->stages[i];
        unsigned workers = weir__stage_workers(stage);
        stage->workers_peak = workers > stage->workers_peak ? workers : stage->workers_peak;
    }
    weir__unlock(&pipeline->lock);
    for (unsigned i = 0; i < pipeline->n; i++) {
        weir__stage *stage = pipeline->stages[i];
        if (atomic_load_explicit(&stage->ended, memory_order_relaxed))
            continue;
        if (weir__is_scaled(stage))
            scale(stage, now);
        if (is_auto(stage))
            resize(stage, now);
    }
    give_up_sources(pipeline, now);
}

void weir__tend(void *arg)
{
    weir__self = arg;
    weir_pipeline *pipeline = weir__self->pipeline;
    call_end(pipeline);
    begin_tuning(pipeline, weir_now());
    /* acquire: pairs with the release in weir__stage_end */
    while (!atomic_load_explicit(&pipeline->done, memory_order_acquire)) {
        weir__futex_sleep(&pipeline->done, 0, weir_after(PERIOD));
        tend(pipeline);
    }
    call_begin(pipeline);
    weir__self = NULL;
    weir__thread_gone(pipeline, &pipeline->tender);
}
