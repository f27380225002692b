/* pipeline.c - building, starting and ending a pipeline; the contract is <weir/pipeline.h>.
 *
 * Starting:  the workers of the last stages first, sources at the end; until `wait` can tell
 *            otherwise, all stages are alive.
 * Ending:    a stage ends once, by its last worker, its caller, or (a source that hangs) the tender.
 *            That takes one input away from each stage behind it, and who takes the last one closes the
 *            queue there.  So the end goes through the graph behind the last item.
 * Threads:   `threads` counts all that may still touch the pipeline; destroy waits for them.
 */
#include "exec/pipeline_impl.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/park.h"

/* While none of its threads runs: starting them publishes it. */
#define SET(where, value) atomic_store_explicit(&(where), (value), memory_order_relaxed)

/* ---- names ------------------------------------------------------------------------------------ */

const char *weir_loss_name(int loss)
{
    switch (loss) {
    case WEIR_LOSS_TIMEOUT: return "timeout";
    case WEIR_LOSS_REFUSED: return "refused";
    case WEIR_LOSS_NO_MEMORY: return "no_memory";
    case WEIR_LOSS_FAILED: return "failed";
    case WEIR_LOSS_OUTPUT: return "output";
    default: return weir_drop_reason_name(loss);
    }
}

const char *weir_cause_name(int cause)
{
    static const char *const names[WEIR_CAUSES] = {
        [WEIR_CAUSE_WORKERS] = "workers", [WEIR_CAUSE_RATE] = "rate",
        [WEIR_CAUSE_LIMITER] = "limiter", [WEIR_CAUSE_BREAKER] = "breaker",
        [WEIR_CAUSE_MEMORY] = "memory",   [WEIR_CAUSE_RETRY] = "retry",
        [WEIR_CAUSE_ORDER] = "order",     [WEIR_CAUSE_SOURCE] = "source",
    };
    return cause >= 0 && cause < WEIR_CAUSES ? names[cause] : "unknown";
}

static char *copy_text(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = weir__malloc(size);
    if (copy)
        memcpy(copy, text, size);
    return copy;
}

/* Says what is wrong; returns the error. */
__attribute__((format(printf, 3, 4))) static int complain(weir_pipeline *pipeline, int error,
                                                          const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(pipeline->trouble, sizeof(pipeline->trouble), format, args);
    va_end(args);
    return error;
}

const char *weir_pipeline_trouble(weir_pipeline *pipeline)
{
    return pipeline->trouble;
}

/* ---- building --------------------------------------------------------------------------------- */

int weir_pipeline_create(weir_pipeline **ret_pipeline, const weir_pipeline_opts *opts)
{
    if (opts->size != sizeof(*opts)) /* there is one version so far */
        return WEIR_EINVAL;
    if (!opts->on_drop || !opts->before_wait != !opts->after_wait)
        return WEIR_EINVAL;
    weir_pipeline *pipeline = weir__calloc(1, sizeof(*pipeline));
    if (!pipeline)
        return WEIR_ENOMEM;
    pipeline->opts = *opts;
    pipeline->name = copy_text(opts->name ? opts->name : "pipeline");
    if (!pipeline->name) {
        weir__free(pipeline);
        return WEIR_ENOMEM;
    }
    weir__mutex_init(&pipeline->lock);
    *ret_pipeline = pipeline;
    return WEIR_OK;
}

static void meter_fini(weir__meter *meter)
{
    weir__free(meter->tallies);
    meter->tallies = NULL;
}

static int meter_init(weir__meter *meter, unsigned n_stages, bool shared)
{
    meter->shared = shared;
    meter->sample = 1;
    meter->tallies = weir__calloc(n_stages, sizeof(*meter->tallies));
    atomic_init(&meter->doing, WEIR__ABSENT);
    return meter->tallies ? WEIR_OK : WEIR_ENOMEM;
}

/* Undoes what start has made. */
static void unmake_stage(weir__stage *stage)
{
    meter_fini(&stage->caller);
    for (unsigned i = 0; stage->seats && i < stage->n_seats; i++) {
        weir__worker *worker = &stage->seats[i];
        if (worker->joinable)
            pthread_join(worker->thread, NULL);
        meter_fini(&worker->meter);
        weir__free(worker->items);
        weir__free(worker->costs);
        weir__free(worker->outcome.items);
        weir__free(worker->outcome.seqs);
    }
    weir__free(stage->seats);
    stage->seats = NULL;
    weir__order_destroy(stage->order);
    stage->order = NULL;
    weir__stage_hide(stage);
    if (stage->owns_queue)
        weir_queue_destroy(stage->queue);
    stage->queue = NULL;
    stage->owns_queue = false;
}

static void free_stage(weir__stage *stage)
{
    if (!stage)
        return;
    unmake_stage(stage);
    weir__free(stage->behind);
    weir__free(stage->name);
    weir__free(stage);
}

#define QUEUE_DEFAULT     16
#define QUEUE_MAX_DEFAULT 4096
#define WORKERS_MAX       4096
#define BATCH_MAX         65536
#define NAME_MAX_BYTES    100

static void set_defaults(weir_stage_opts *opts)
{
    opts->workers = opts->workers ? opts->workers : 1;
    if (opts->workers_max) {
        opts->workers_min = opts->workers_min ? opts->workers_min : 1;
        if (opts->workers < opts->workers_min)
            opts->workers = opts->workers_min;
    } else {
        opts->workers_min = opts->workers_max = opts->workers;
    }
    opts->queue = opts->queue ? opts->queue : QUEUE_DEFAULT;
    opts->queue_max = opts->queue_max ? opts->queue_max : QUEUE_MAX_DEFAULT;
    opts->batch = opts->batch ? opts->batch : 1;
    opts->attempts = opts->attempts ? opts->attempts : 1;
    opts->window = opts->window ? opts->window : 4 * (size_t)opts->workers_max;
    if (opts->backoff.size == 0)
        opts->backoff = (weir_backoff)WEIR_BACKOFF_INIT;
}

/* NULL, or what is wrong with it. */
static const char *fault_of(weir_pipeline *pipeline, const weir_stage_opts *o)
{
    bool is_inline = o->kind == WEIR_STAGE_INLINE;
    if ((unsigned)o->kind > WEIR_STAGE_EXTERNAL)
        return "kind is none of weir_stage_kind";
    if (!o->fn && o->kind != WEIR_STAGE_EXTERNAL)
        return "fn is required";
    if (strlen(o->name) > NAME_MAX_BYTES)
        return "a name is at most 100 bytes long";
    if (is_inline && (o->source || o->ordered || o->borrowed || o->open || o->spill ||
                      o->batch > 1 || o->workers_max > 1))
        return "an inline stage has no queue and no workers of its own";
    if (o->source && (o->borrowed || o->open || o->spill || o->ordered || o->batch > 1))
        return "a source has no queue, no order and no batch";
    if (o->workers_min > o->workers_max || o->workers > o->workers_max ||
        o->workers_max > WORKERS_MAX)
        return "workers must be within workers_min and workers_max, and at most 4096";
    if (o->source && o->workers_min < o->workers_max)
        return "the workers of a source are a fixed number";
    if ((unsigned)o->overflow > WEIR_OVERFLOW_SPILL)
        return "overflow is none of weir_overflow";
    if ((o->overflow == WEIR_OVERFLOW_SPILL) != (o->spill != NULL) && !o->borrowed)
        return "spill goes with overflow SPILL, and SPILL with a spill";
    if (o->acknowledge && (o->overflow != WEIR_OVERFLOW_SPILL || o->kind == WEIR_STAGE_INLINE))
        return "only what a durable queue brings can be acknowledged";
    if (o->batch > BATCH_MAX || o->linger_ns < 0 || o->put_timeout_ns < 0)
        return "batch must be in [1, 65536], linger and put timeout >= 0";
    if (o->ordered && o->window < o->workers_max)
        return "window must be at least as many as the workers";
    if ((unsigned)o->route > WEIR_ROUTE_KEY || (o->route == WEIR_ROUTE_KEY && !o->key))
        return "route is none of weir_route, or by a key without a key function";
    if ((unsigned)o->on_error > WEIR_ON_ERROR_DEAD_LETTER)
        return "on_error is none of weir_on_error";
    if (o->on_error == WEIR_ON_ERROR_DEAD_LETTER && o->dead_letter >= pipeline->n)
        return "the stage for dead letters has to be added first";
    if (o->on_error == WEIR_ON_ERROR_DEAD_LETTER && pipeline->stages[o->dead_letter]->opts.source)
        return "dead letters cannot go to a source";
    if (o->governor && o->governor_bytes == 0)
        return "governor_bytes must be > 0";
    if (o->is_part && o->part_of >= pipeline->n)
        return "the stage that it is a part of has to be added first";
    if (weir_backoff_delay(&o->backoff, 1, 0, 0) < 0)
        return "backoff is out of range";
    return NULL;
}

static bool is_known(weir_pipeline *pipeline, const char *name)
{
    for (unsigned i = 0; i < pipeline->n; i++)
        if (strcmp(pipeline->stages[i]->name, name) == 0)
            return true;
    return false;
}

int weir_pipeline_add(weir_pipeline *pipeline, const weir_stage_opts *opts, weir_stage *ret_stage)
{
    if (opts->size != sizeof(*opts) || !opts->name)
        return complain(pipeline, WEIR_EINVAL, "a stage needs a name");
    if (pipeline->started)
        return complain(pipeline, WEIR_EINVAL, "stage '%s': the pipeline has started", opts->name);
    if (is_known(pipeline, opts->name))
        return complain(pipeline, WEIR_EINVAL, "stage '%s': there is one of that name", opts->name);
    if (pipeline->n == WEIR_STAGES_MAX)
        return WEIR_EFULL;
    weir_stage_opts o = *opts;
    set_defaults(&o);
    const char *fault = fault_of(pipeline, &o);
    if (fault)
        return complain(pipeline, WEIR_EINVAL, "stage '%s': %s", opts->name, fault);

    weir__stage *stage = weir__calloc_line(sizeof(*stage));
    char *name = copy_text(opts->name);
    if (!stage || !name) {
        weir__free(stage);
        weir__free(name);
        return WEIR_ENOMEM;
    }
    stage->pipeline = pipeline;
    stage->index = pipeline->n;
    stage->opts = o;
    stage->name = name;
    stage->opts.name = name;
    weir__mutex_init(&stage->lock);
    pipeline->stages[pipeline->n++] = stage;
    *ret_stage = stage->index;
    return WEIR_OK;
}

/* Connections that lead to it. */
static unsigned count_before(weir_pipeline *pipeline, weir_stage to)
{
    unsigned n = 0;
    for (unsigned i = 0; i < pipeline->n; i++) {
        weir__stage *stage = pipeline->stages[i];
        for (unsigned j = 0; j < stage->n_behind; j++)
            n += stage->behind[j] == to;
        n += stage->opts.on_error == WEIR_ON_ERROR_DEAD_LETTER && stage->opts.dead_letter == to;
    }
    return n;
}

int weir_pipeline_connect(weir_pipeline *pipeline, weir_stage from, weir_stage to)
{
    if (pipeline->started || from >= pipeline->n || to >= pipeline->n)
        return complain(pipeline, WEIR_EINVAL, "%s",
                        pipeline->started ? "the pipeline has started" : "there is no such stage");
    weir__stage *stage = pipeline->stages[from], *target = pipeline->stages[to];
    if (target->opts.source)
        return complain(pipeline, WEIR_EINVAL, "stage '%s' is a source: nothing feeds it",
                        target->name);
    for (unsigned i = 0; i < stage->n_behind; i++)
        if (stage->behind[i] == to)
            return complain(pipeline, WEIR_EINVAL, "'%s' and '%s' are connected already",
                            stage->name, target->name);
    if (target->opts.kind == WEIR_STAGE_INLINE && count_before(pipeline, to) > 0)
        return complain(pipeline, WEIR_EINVAL,
                        "stage '%s' is inline, and runs in one stage before it only", target->name);
    weir_stage *more = weir__realloc(stage->behind, (stage->n_behind + 1) * sizeof(*more));
    if (!more)
        return WEIR_ENOMEM;
    more[stage->n_behind++] = to;
    stage->behind = more;
    return WEIR_OK;
}

/* ---- checking --------------------------------------------------------------------------------- */

/* All connections, dead letters too; NULL: no memory. */
static weir__edge *list_edges(weir_pipeline *pipeline, size_t *ret_m)
{
    size_t m = 0, at = 0;
    for (unsigned i = 0; i < pipeline->n; i++)
        m += pipeline->stages[i]->n_behind + 1;
    weir__edge *edges = weir__calloc(m, sizeof(*edges));
    *ret_m = 0;
    if (!edges)
        return NULL;
    for (unsigned i = 0; i < pipeline->n; i++) {
        weir__stage *stage = pipeline->stages[i];
        for (unsigned j = 0; j < stage->n_behind; j++)
            edges[at++] = (weir__edge){i, stage->behind[j]};
        if (stage->opts.on_error == WEIR_ON_ERROR_DEAD_LETTER)
            edges[at++] = (weir__edge){i, stage->opts.dead_letter};
    }
    *ret_m = at;
    return edges;
}

static int name_cycle(weir_pipeline *pipeline, const unsigned *cycle, unsigned length)
{
    char *text = pipeline->trouble;
    size_t size = sizeof(pipeline->trouble);
    size_t at = (size_t)snprintf(text, size, "the stages wait for each other: ");
    for (unsigned i = 0; i <= length && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%s", i ? " -> " : "",
                               pipeline->stages[cycle[i % length]]->name);
    return WEIR_EDEADLK;
}

static int find_order(weir_pipeline *pipeline)
{
    unsigned n = pipeline->n;
    weir__free(pipeline->order);
    weir__free(pipeline->edges);
    size_t m;
    weir__edge *edges = pipeline->edges = list_edges(pipeline, &m);
    pipeline->n_edges = m;
    unsigned *scratch = weir__calloc(WEIR__GRAPH_SCRATCH(n) + n, sizeof(*scratch));
    pipeline->order = weir__calloc(n, sizeof(*pipeline->order));
    int rc = edges && scratch && pipeline->order ? WEIR_OK : WEIR_ENOMEM;
    if (rc == WEIR_OK && !weir__graph_order(edges, m, n, pipeline->order, scratch)) {
        unsigned *cycle = scratch + WEIR__GRAPH_SCRATCH(n);
        rc = name_cycle(pipeline, cycle, weir__graph_cycle(edges, m, n, cycle, scratch));
    }
    weir__free(scratch);
    return rc;
}

static int check_stage(weir_pipeline *pipeline, weir__stage *stage)
{
    const weir_stage_opts *opts = &stage->opts;
    unsigned before = count_before(pipeline, stage->index);
    if (!opts->source && !opts->open && before == 0)
        return complain(pipeline, WEIR_EINVAL, "stage '%s': nothing feeds it", stage->name);
    if (stage->n_behind > 1 && opts->route == WEIR_ROUTE_BROADCAST && !pipeline->opts.share)
        return complain(pipeline, WEIR_EINVAL,
                        "stage '%s': items cannot be shared, so it cannot "
                        "broadcast to the %u stages behind it",
                        stage->name, stage->n_behind);
    if (opts->kind == WEIR_STAGE_INLINE && before > 1)
        return complain(pipeline, WEIR_EINVAL,
                        "stage '%s' is inline, and runs in one stage before it only", stage->name);
    return WEIR_OK;
}

/* In order, so that the host of the stage before is known. */
static void find_hosts(weir_pipeline *pipeline)
{
    for (unsigned i = 0; i < pipeline->n; i++)
        pipeline->stages[i]->host = i;
    for (unsigned i = 0; i < pipeline->n; i++)
        for (size_t e = 0; e < pipeline->n_edges; e++) {
            weir__edge edge = pipeline->edges[e];
            if (edge.from == pipeline->order[i] &&
                pipeline->stages[edge.to]->opts.kind == WEIR_STAGE_INLINE)
                pipeline->stages[edge.to]->host = pipeline->stages[edge.from]->host;
        }
}

static int check(weir_pipeline *pipeline)
{
    if (pipeline->n == 0)
        return complain(pipeline, WEIR_EINVAL, "there is no stage");
    int rc = find_order(pipeline); /* first: a cycle is what is to be said of stages that only feed
                                      each other */
    for (unsigned i = 0; rc == WEIR_OK && i < pipeline->n; i++)
        rc = check_stage(pipeline, pipeline->stages[i]);
    if (rc == WEIR_OK)
        find_hosts(pipeline);
    return rc;
}

/* ---- making ----------------------------------------------------------------------------------- */

static void drop_from_queue(void *item, weir_drop_reason reason, void *ctx)
{
    weir__stage *stage = ctx;
    weir_pipeline *pipeline = stage->pipeline;
    pipeline->opts.on_drop(item, stage->index, (weir_loss)reason, pipeline->opts.ctx);
}

static int make_queue(weir__stage *stage)
{
    const weir_stage_opts *o = &stage->opts;
    if (o->source || o->kind == WEIR_STAGE_INLINE)
        return WEIR_OK;
    if (o->borrowed) {
        stage->queue = o->borrowed;
        return WEIR_OK;
    }
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = o->queue == WEIR_AUTO_QUEUE ? QUEUE_DEFAULT : o->queue;
    opts.max_cost = o->max_cost;
    opts.max_age_ns = o->max_age_ns;
    opts.overflow = o->overflow;
    opts.sample_keep_one_of = o->sample_keep_one_of;
    opts.on_drop = drop_from_queue;
    opts.drop_ctx = stage;
    opts.spill = o->spill;
    opts.codec = o->codec;
    char name[WEIR__PAGE_NAME];
    weir__stage_name(stage, name);
    opts.name = name;
    int rc = weir__queue_create(&stage->queue, &opts, NULL, WEIR_STATS_STAGE);
    stage->owns_queue = rc == WEIR_OK;
    return rc;
}

static int make_worker(weir__stage *stage, weir__worker *worker, unsigned number)
{
    size_t batch = stage->opts.batch;
    worker->pipeline = stage->pipeline;
    worker->stage = stage;
    worker->items = weir__calloc(batch, sizeof(*worker->items));
    worker->costs = weir__calloc(batch, sizeof(*worker->costs));
    snprintf(worker->name, sizeof(worker->name), "%.40s-%u", stage->name, number);
    if (stage->opts.acknowledge)
        worker->outcome.seqs = weir__calloc(batch, sizeof(*worker->outcome.seqs));
    int rc = meter_init(&worker->meter, stage->pipeline->n, false);
    bool complete =
        worker->items && worker->costs && (worker->outcome.seqs || !stage->opts.acknowledge);
    return complete ? rc : WEIR_ENOMEM;
}

static int make_workers(weir__stage *stage)
{
    bool has_workers = stage->opts.kind == WEIR_STAGE_THREAD;
    stage->n_seats = has_workers ? stage->opts.workers_max : 0;
    if (!has_workers)
        return WEIR_OK;
    stage->seats = weir__calloc(stage->n_seats, sizeof(*stage->seats));
    int rc = stage->seats ? WEIR_OK : WEIR_ENOMEM;
    for (unsigned i = 0; rc == WEIR_OK && i < stage->n_seats; i++)
        rc = make_worker(stage, &stage->seats[i], i);
    if (rc == WEIR_OK && stage->opts.ordered && stage->opts.workers_max > 1)
        rc = weir__order_create(&stage->order, stage->opts.window,
                                stage->opts.acknowledge ? stage->opts.batch : 0);
    return rc;
}

static int make_stage(weir__stage *stage)
{
    const weir_stage_opts *o = &stage->opts;
    SET(stage->inputs, count_before(stage->pipeline, stage->index) + o->open);
    SET(stage->input_is_open, o->open);
    SET(stage->wanted, o->workers);
    SET(stage->running, o->kind == WEIR_STAGE_THREAD ? o->workers : 0);
    SET(stage->reported_workers, o->workers);
    int rc = meter_init(&stage->caller, stage->pipeline->n, true);
    if (rc == WEIR_OK)
        rc = make_queue(stage);
    if (rc == WEIR_OK)
        rc = make_workers(stage);
    return rc == WEIR_EINVAL ? complain(stage->pipeline, rc,
                                        "stage '%s': a bound of its queue is out "
                                        "of range",
                                        stage->name)
                             : rc;
}

static void unmake(weir_pipeline *pipeline)
{
    for (unsigned i = 0; i < pipeline->n; i++)
        unmake_stage(pipeline->stages[i]);
    weir__tender_fini(pipeline);
}

/* ---- the end of all --------------------------------------------------------------------------- */

static void declare_done(weir_pipeline *pipeline)
{
    /* release: pairs with the acquire in weir_pipeline_wait */
    atomic_store_explicit(&pipeline->done, 1, memory_order_release);
    weir__futex_wake(&pipeline->done, INT32_MAX, false);
}

static void lose_alive(weir_pipeline *pipeline)
{
    if (atomic_fetch_sub_explicit(&pipeline->alive, 1, memory_order_acq_rel) > 1)
        return;
    weir__tell_the_end(pipeline);
    declare_done(pipeline);
    if (pipeline->opts.on_end)
        pipeline->opts.on_end(pipeline->opts.ctx);
}

/* ---- threads ---------------------------------------------------------------------------------- */

static void *run_thread(void *arg)
{
    weir__worker *worker = arg;
    worker->main(worker);
    return NULL;
}

/* Under the lock of its seat, if it has one: who is told to leave as soon as he comes waits there until it is noted whom
 * the next one on this seat has to join. */
static int create_thread(weir__worker *worker)
{
    weir__mutex *lock = worker->stage ? &worker->stage->lock : NULL;
    if (lock)
        weir__lock(lock);
    int failed = pthread_create(&worker->thread, NULL, run_thread, worker);
    worker->joinable = !failed;
    if (lock)
        weir__unlock(lock);
    return failed ? WEIR_ESPAWN : WEIR_OK;
}

/* Signals are for the program's own threads. */
static int start_plain(weir__worker *worker)
{
    if (worker->joinable) /* of the one that sat here before: it is gone */
        pthread_join(worker->thread, NULL);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = create_thread(worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int weir__start_thread(weir_pipeline *pipeline, weir__worker *worker, void (*main)(void *))
{
    worker->main = main;
    atomic_fetch_add_explicit(&pipeline->threads, 1, memory_order_relaxed);
    int rc = pipeline->opts.start_thread
                 ? pipeline->opts.start_thread(main, worker, worker->name, pipeline->opts.ctx)
                 : start_plain(worker);
    if (rc >= 0)
        return WEIR_OK;
    atomic_fetch_sub_explicit(&pipeline->threads, 1, memory_order_relaxed);
    return WEIR_ESPAWN;
}

/* The last thing that a thread does with its pipeline. */
void weir__thread_gone(weir_pipeline *pipeline, weir__worker *worker)
{
    if (worker->stage)
        weir__stage_unseat(worker);
    /* release: pairs with the acquire in wait_for_threads */
    if (atomic_fetch_sub_explicit(&pipeline->threads, 1, memory_order_release) == 1)
        weir__futex_wake(&pipeline->threads, 1, false);
}

static void wait_for_threads(weir_pipeline *pipeline)
{
    uint32_t n;
    while ((n = atomic_load_explicit(&pipeline->threads, memory_order_acquire)) > 0)
        weir__futex_sleep(&pipeline->threads, n, weir_after(100 * WEIR_MILLISECOND));
}

static int start_workers(weir__stage *stage)
{
    unsigned n = stage->opts.kind == WEIR_STAGE_THREAD ? stage->opts.workers : 0;
    int rc = WEIR_OK;
    for (unsigned i = 0; rc == WEIR_OK && i < n; i++)
        rc = weir__stage_spawn(stage);
    return rc;
}

/* Sources last: what they emit is taken. */
static int start_all(weir_pipeline *pipeline)
{
    int rc = weir__start_thread(pipeline, &pipeline->tender, weir__tend);
    for (unsigned i = pipeline->n; rc == WEIR_OK && i-- > 0;) {
        weir__stage *stage = pipeline->stages[pipeline->order[i]];
        if (!stage->opts.source)
            rc = start_workers(stage);
    }
    for (unsigned i = 0; rc == WEIR_OK && i < pipeline->n; i++)
        if (pipeline->stages[i]->opts.source)
            rc = start_workers(pipeline->stages[i]);
    return rc;
}

/* What some stages have done before others could not be started. */
static void forget_stage(weir__stage *stage)
{
    SET(stage->ended, false);
    SET(stage->n_used, 0);
    SET(stage->turn, 0);
    SET(stage->waits, 0);
    SET(stage->outside_ns, 0);
    for (int i = 0; i < WEIR_LOSS_REASONS; i++) {
        SET(stage->turned_away[i], 0);
        SET(stage->let_go[i], 0);
    }
    stage->workers_peak = 0;
    stage->total = (weir__pressure){0};
    stage->worker_ns = 0;
}

static void forget(weir_pipeline *pipeline)
{
    SET(pipeline->halted, 0);
    SET(pipeline->stopping, 0);
    SET(pipeline->stopped_at, 0);
    SET(pipeline->done, 0);
    SET(pipeline->error, 0);
    pipeline->started = false;
    pipeline->started_at = 0;
    pipeline->end_is_told = false;
    for (unsigned i = 0; i < pipeline->n; i++)
        forget_stage(pipeline->stages[i]);
}

static bool borrows(weir_pipeline *pipeline)
{
    for (unsigned i = 0; i < pipeline->n; i++)
        if (pipeline->stages[i]->opts.borrowed)
            return true;
    return false;
}

int weir_pipeline_start(weir_pipeline *pipeline)
{
    if (pipeline->started)
        return complain(pipeline, WEIR_EINVAL, "the pipeline has started");
    int rc = check(pipeline);
    for (unsigned i = 0; rc == WEIR_OK && i < pipeline->n; i++)
        rc = make_stage(pipeline->stages[i]);
    if (rc == WEIR_OK)
        rc = weir__tender_init(pipeline);
    if (rc != WEIR_OK) {
        unmake(pipeline);
        return rc;
    }
    SET(pipeline->alive, pipeline->n + 1); /* one more: it has not started yet */
    pipeline->started = true;
    pipeline->started_at = pipeline->charged_at = weir_now();
    weir__pipeline_show(pipeline);
    rc = start_all(pipeline);
    if (rc == WEIR_OK) {
        lose_alive(pipeline);
        return rc;
    }
    weir_pipeline_halt(pipeline);
    for (unsigned i = 0; i < pipeline->n; i++)
        weir__stage_end(pipeline->stages[i]);
    declare_done(pipeline);
    wait_for_threads(pipeline);
    for (unsigned i = 0; i < pipeline->n; i++) /* also of those that were not tried */
        SET(pipeline->stages[i]->running, 0);
    if (borrows(pipeline)) /* queues that are closed now */
        return rc;
    unmake(pipeline);
    forget(pipeline);
    return rc;
}

/* ---- ending ----------------------------------------------------------------------------------- */

/* One input less; acq_rel: who takes the last one has seen all that was put. */
static void lose_input(weir__stage *stage)
{
    if (atomic_fetch_sub_explicit(&stage->inputs, 1, memory_order_acq_rel) > 1)
        return;
    if (stage->queue)
        weir_queue_close(stage->queue);
    else
        weir__stage_end(stage);
}

void weir__stage_end(weir__stage *stage)
{
    weir_pipeline *pipeline = stage->pipeline;
    /* release: pairs with the acquire in emit_to */
    if (atomic_exchange_explicit(&stage->ended, true, memory_order_acq_rel))
        return;
    for (unsigned i = 0; i < stage->n_behind; i++)
        lose_input(pipeline->stages[stage->behind[i]]);
    if (stage->opts.on_error == WEIR_ON_ERROR_DEAD_LETTER)
        lose_input(pipeline->stages[stage->opts.dead_letter]);
    lose_alive(pipeline);
}

static weir__stage *find(weir_pipeline *pipeline, weir_stage stage)
{
    return stage < pipeline->n && pipeline->started_at ? pipeline->stages[stage] : NULL;
}

int weir_pipeline_end_stage(weir_pipeline *pipeline, weir_stage stage)
{
    weir__stage *s = find(pipeline, stage);
    if (!s || s->opts.kind != WEIR_STAGE_EXTERNAL)
        return WEIR_EINVAL;
    weir__stage_end(s);
    return WEIR_OK;
}

int weir_pipeline_close_input(weir_pipeline *pipeline, weir_stage stage)
{
    weir__stage *s = find(pipeline, stage);
    if (!s || !s->opts.open)
        return WEIR_EINVAL;
    if (atomic_exchange_explicit(&s->input_is_open, false, memory_order_acq_rel))
        lose_input(s);
    return WEIR_OK;
}

void weir_pipeline_stop(weir_pipeline *pipeline)
{
    if (!pipeline->started_at)
        return;
    weir_time never = 0;
    atomic_compare_exchange_strong(&pipeline->stopped_at, &never, weir_now());
    atomic_store_explicit(&pipeline->stopping, 1, memory_order_release);
    weir__futex_wake(&pipeline->stopping, INT32_MAX, false);
    for (unsigned i = 0; i < pipeline->n; i++)
        weir_pipeline_close_input(pipeline, i); /* WEIR_EINVAL: it has none */
}

void weir_pipeline_halt(weir_pipeline *pipeline)
{
    if (!pipeline->started_at)
        return;
    weir_pipeline_stop(pipeline);
    /* release: who sees it sees why */
    atomic_store_explicit(&pipeline->halted, 1, memory_order_release);
    weir__futex_wake(&pipeline->halted, INT32_MAX, false);
    for (unsigned i = 0; i < pipeline->n; i++) {
        weir__stage *stage = pipeline->stages[i];
        if (stage->queue) {
            weir_queue_close(stage->queue);
            if (!stage->opts.acknowledge)
                weir_queue_discard(stage->queue);
        }
    }
}

void weir__pipeline_fail(weir_pipeline *pipeline, int error)
{
    if (weir__is_halted(pipeline)) /* by somebody else */
        return;
    int none = 0; /* the first one counts */
    atomic_compare_exchange_strong_explicit(&pipeline->error, &none, error, memory_order_acq_rel,
                                            memory_order_relaxed);
    weir_pipeline_halt(pipeline);
}

int weir_pipeline_wait(weir_pipeline *pipeline, weir_time deadline)
{
    if (!pipeline->started_at)
        return WEIR_EINVAL;
    if (weir__self && weir__self->pipeline == pipeline)
        return WEIR_EDEADLK;
    /* acquire: pairs with the release in weir__stage_end */
    while (!atomic_load_explicit(&pipeline->done, memory_order_acquire)) {
        if (deadline <= WEIR_POLL)
            return WEIR_ETIMEDOUT;
        int rc = weir__futex_wait(&pipeline->done, 0, deadline, false);
        if (rc < 0 && !atomic_load_explicit(&pipeline->done, memory_order_acquire))
            return rc;
    }
    return atomic_load_explicit(&pipeline->error, memory_order_acquire);
}

void weir_pipeline_destroy(weir_pipeline *pipeline)
{
    if (!pipeline)
        return;
    if (pipeline->started) {
        weir_pipeline_halt(pipeline);
        for (unsigned i = 0; i < pipeline->n; i++)
            if (pipeline->stages[i]->opts.kind == WEIR_STAGE_EXTERNAL)
                weir__stage_end(pipeline->stages[i]);
        wait_for_threads(pipeline);
    }
    if (pipeline->tender.joinable)
        pthread_join(pipeline->tender.thread, NULL);
    for (unsigned i = 0; i < pipeline->n; i++)
        free_stage(pipeline->stages[i]);
    weir__tender_fini(pipeline);
    weir__free(pipeline->order);
    weir__free(pipeline->edges);
    weir__free(pipeline->name);
    weir__free(pipeline);
}

/* ---- puts from outside ------------------------------------------------------------------------ */

weir_queue *weir_pipeline_queue(weir_pipeline *pipeline, weir_stage stage)
{
    weir__stage *s = find(pipeline, stage);
    return s ? s->queue : NULL;
}

/* Whether what this thread works on comes from the stage: it would wait for itself. */
static bool feeds_me(weir_pipeline *pipeline, weir_stage stage)
{
    if (!weir__self || weir__self->pipeline != pipeline || !weir__self->stage)
        return false;
    unsigned *scratch = weir__calloc(WEIR__GRAPH_SCRATCH(pipeline->n), sizeof(*scratch));
    bool feeds = !scratch || weir__graph_reaches(pipeline->edges, pipeline->n_edges, pipeline->n,
                                                 stage, weir__self->stage->index, scratch);
    weir__free(scratch);
    return feeds;
}

int weir_pipeline_put(weir_pipeline *pipeline, weir_stage stage, void *item, uint64_t cost,
                      weir_time deadline)
{
    weir__stage *s = find(pipeline, stage);
    if (!s || !s->opts.open)
        return WEIR_EINVAL;
    if (!atomic_load_explicit(&s->input_is_open, memory_order_acquire))
        return WEIR_ECLOSED;
    if (cost == 0 && s->opts.max_cost && pipeline->opts.measure)
        cost = pipeline->opts.measure(item, stage, pipeline->opts.ctx);
    int rc = weir_queue_put(s->queue, item, cost, deadline <= WEIR_POLL ? deadline : WEIR_PROBE);
    if (rc != WEIR_EFULL || deadline <= WEIR_POLL || !weir__waits(s))
        return rc;
    if (feeds_me(pipeline, stage))
        return WEIR_EDEADLK;
    weir__add(&s->waits, 1, true);
    weir_time since = weir_now();
    if (pipeline->opts.before_wait)
        pipeline->opts.before_wait(pipeline->opts.ctx);
    rc = weir_queue_put(s->queue, item, cost, deadline);
    if (pipeline->opts.after_wait)
        pipeline->opts.after_wait(pipeline->opts.ctx);
    weir__add(&s->outside_ns, (uint64_t)(weir_now() - since), true);
    return rc;
}
