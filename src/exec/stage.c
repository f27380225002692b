/* stage.c - what a worker does: take items, have its stage's function called, take the next.
 *
 * A call passes the stage's limits first (rate, memory, breaker, concurrency, in this order, so that
 * nobody holds a permit and waits for something else), and is made again where the stage retries.
 * While a worker waits for a limit its interruption hook looks whether the pipeline is halted (or, in a
 * source, stopped); all other waits are ended by closing a queue.
 */
#include "exec/pipeline_impl.h"

#include "base/park.h"

_Thread_local weir__worker *weir__self;

/* ---- limits ----------------------------------------------------------------------------------- */

/* Whether the stage makes no call any more: halted, or it is a source and is to stop. */
static bool is_called_off(const weir__stage *stage)
{
    weir_pipeline *pipeline = stage->pipeline;
    /* relaxed: whoever says so does not wait for this thread */
    return weir__is_halted(pipeline) ||
           (stage->opts.source && atomic_load_explicit(&pipeline->stopping, memory_order_relaxed));
}

static int ask_called_off(void *stage)
{
    return is_called_off(stage);
}

/* What a call has taken of its stage's limits. */
typedef struct pass {
    weir__stage *stage;
    weir__meter *meter;
    size_t n;
    bool reserved, asked, permitted;
    weir_breaker_call breaker_call;
    weir_permit permit;
} pass;

/* Tries one limit, or waits for it until the deadline. */
typedef int limit_fn(pass *p, weir_time deadline);

/* Sleeps so long, or until the stage's calls are called off. */
static void pause_for(weir__stage *stage, int64_t ns)
{
    weir_pipeline *pipeline = stage->pipeline;
    _Atomic uint32_t *word = stage->opts.source ? &pipeline->stopping : &pipeline->halted;
    weir_time until = weir_after(ns);
    while (!is_called_off(stage) && weir_now() < until)
        weir__futex_wait(word, 0, until, false);
}

/* A batch that is more than the burst takes its tokens one by one. */
static int take_rate(pass *p, weir_time deadline)
{
    weir_rate *rate = p->stage->opts.rate;
    uint64_t n = p->n ? p->n : 1;
    int rc = weir_rate_acquire(rate, n, deadline);
    if (rc != WEIR_ETOOBIG || n == 1)
        return rc;
    if (deadline <= WEIR_POLL)
        return WEIR_EFULL;
    for (rc = WEIR_OK; rc == WEIR_OK && n > 0; n--)
        rc = weir_rate_acquire(rate, 1, deadline);
    return rc;
}

#define LOOK (50 * WEIR_MILLISECOND) /* a governor may recover, a breaker be reset by hand */

/* Who has its input in a queue waits out what others shed for; a try is only refused. */
static int take_memory(pass *p, weir_time deadline)
{
    const weir_stage_opts *opts = &p->stage->opts;
    int rc;
    while ((rc = weir_governor_reserve(opts->governor, opts->governor_bytes, deadline)) ==
           WEIR_ESHED) {
        if (is_called_off(p->stage))
            return WEIR_EINTR;
        pause_for(p->stage, LOOK);
    }
    return rc;
}

static int take_breaker(pass *p, weir_time deadline)
{
    weir_breaker *breaker = p->stage->opts.breaker;
    int rc;
    while ((rc = weir_breaker_admit(breaker, &p->breaker_call)) == WEIR_EOPEN) {
        if (deadline <= WEIR_POLL)
            return WEIR_EFULL;
        if (is_called_off(p->stage))
            return WEIR_EINTR;
        int64_t left = weir_breaker_retry_after(breaker);
        pause_for(p->stage, left < LOOK ? left : LOOK);
    }
    return rc;
}

static int take_permit(pass *p, weir_time deadline)
{
    return weir_limit_acquire(p->stage->opts.limit, 1, 0, deadline, &p->permit);
}

/* 0, or what the limit says: closed, shed, called off.  The thread may be one of the caller's, with a hook
 * of its own. */
static int go_through(pass *p, limit_fn *take, weir_cause cause)
{
    weir_pipeline *pipeline = p->stage->pipeline;
    int rc = take(p, WEIR_PROBE);
    if (rc != WEIR_EFULL)
        return rc;
    void *outer_ctx;
    weir_interrupt_fn *outer = weir__get_interrupt(&outer_ctx);
    weir_set_interrupt(ask_called_off, p->stage);
    weir__wait wait = weir__wait_begin(pipeline, p->meter, WEIR__HELD, cause);
    rc = take(p, WEIR_FOREVER);
    weir__wait_end(pipeline, p->meter, wait);
    weir_set_interrupt(outer, outer_ctx);
    return rc;
}

static weir_call_result result_of(bool was_called, int rc)
{
    if (!was_called) /* another limit did not let it in */
        return WEIR_CALL_IGNORED;
    return rc >= 0 ? WEIR_CALL_SUCCESS : WEIR_CALL_FAILURE;
}

static void give_back(pass *p, bool was_called, int rc)
{
    const weir_stage_opts *opts = &p->stage->opts;
    if (p->permitted)
        weir_limit_release(opts->limit, &p->permit,
                           rc >= 0 ? WEIR_LIMIT_SUCCESS : WEIR_LIMIT_IGNORE);
    if (p->asked)
        weir_breaker_report(opts->breaker, &p->breaker_call, result_of(was_called, rc));
    if (p->reserved)
        weir_governor_release(opts->governor, opts->governor_bytes);
}

/* 0: has all it needs. */
static int enter(pass *p)
{
    const weir_stage_opts *opts = &p->stage->opts;
    int rc = WEIR_OK;
    if (opts->rate)
        rc = go_through(p, take_rate, WEIR_CAUSE_RATE);
    if (rc == WEIR_OK && opts->governor) {
        rc = go_through(p, take_memory, WEIR_CAUSE_MEMORY);
        p->reserved = rc == WEIR_OK;
    }
    if (rc == WEIR_OK && opts->breaker) {
        rc = go_through(p, take_breaker, WEIR_CAUSE_BREAKER);
        p->asked = rc == WEIR_OK;
    }
    if (rc == WEIR_OK && opts->limit) {
        rc = go_through(p, take_permit, WEIR_CAUSE_LIMITER);
        p->permitted = rc == WEIR_OK;
    }
    return rc;
}

static bool has_limits(const weir_stage_opts *opts)
{
    return opts->rate || opts->governor || opts->breaker || opts->limit;
}

/* ---- one call --------------------------------------------------------------------------------- */

/* One of a worker's calls, timed for others to see: what it waited for room meanwhile is not its own. */
static int call_timed(weir__worker *worker, void *const *items, size_t n, const weir_run *run)
{
    const weir_stage_opts *opts = &worker->stage->opts;
    uint64_t waited = worker->meter.waited_ns;
    weir_time began = weir_now();
    int rc = opts->fn(opts->ctx, items, n, run);
    weir_time ended = weir_now();
    waited = worker->meter.waited_ns - waited;
    weir__tell_time_together(&worker->stage->record->service, ended - began - (int64_t)waited,
                             weir__sampler_weight(&worker->sampler));
    worker->until_timed = weir__sampler_next(&worker->sampler, ended);
    return rc;
}

static int call_fn(weir__stage *stage, void *const *items, size_t n, const weir_run *run)
{
    weir__worker *worker = weir__self;
    if (WEIR__TELLS && stage->record && worker && worker->stage == stage) {
        if (worker->until_timed <= 1)
            return call_timed(worker, items, n, run);
        worker->until_timed--;
    }
    return stage->opts.fn(stage->opts.ctx, items, n, run);
}

/* A call within limits.  What it emits leaves after they were given back: who held a permit and waited for
 * room would wait for itself, where a stage behind needs one, too. */
static int call_within_limits(weir__stage *stage, void *const *items, size_t n, const weir_run *run)
{
    weir__outcome kept = {0};
    weir_output output = {.meter = run->output->meter, .outcome = &kept};
    weir_run later = *run;
    if (!run->output->outcome)
        later.output = &output;
    pass p = {.stage = stage, .meter = run->output->meter, .n = n};
    int rc = enter(&p);
    bool has_entered = rc == WEIR_OK;
    if (has_entered)
        rc = call_fn(stage, items, n, &later);
    give_back(&p, has_entered, rc);
    weir__emit_kept(stage, run->output->meter, &kept);
    weir__free(kept.items);
    return rc;
}

static int call_once(weir__stage *stage, void *const *items, size_t n, const weir_run *run)
{
    return has_limits(&stage->opts) ? call_within_limits(stage, items, n, run)
                                    : call_fn(stage, items, n, run);
}

/* Waits before the next attempt; false: there is to be none. */
static bool pause_before(weir__stage *stage, weir__meter *meter, unsigned attempt)
{
    weir_pipeline *pipeline = stage->pipeline;
    int64_t ns = weir_backoff_delay(&stage->opts.backoff, attempt, 0, weir_random());
    weir__wait wait = weir__wait_begin(pipeline, meter, WEIR__HELD, WEIR_CAUSE_RETRY);
    if (ns > 0)
        pause_for(stage, ns);
    weir__wait_end(pipeline, meter, wait);
    return !is_called_off(stage);
}

/* The items have failed for good. */
static void give_up(weir__stage *stage, weir__meter *meter, void *const *items, size_t n, int error)
{
    weir_pipeline *pipeline = stage->pipeline;
    weir__add(&meter->tallies[stage->index].failed, n, meter->shared);
    if (stage->opts.on_failure)
        stage->opts.on_failure(stage->opts.ctx, items, n, error);
    for (size_t i = 0; i < n; i++)
        if (stage->opts.on_error == WEIR_ON_ERROR_DEAD_LETTER)
            weir__dead_letter(stage, meter, items[i]);
        else
            pipeline->opts.on_drop(items[i], stage->index, WEIR_LOSS_FAILED, pipeline->opts.ctx);
    if (stage->opts.on_error == WEIR_ON_ERROR_HALT)
        weir__pipeline_fail(pipeline, error);
}

static void let_all_go(weir__stage *stage, void *const *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        weir__let_go(stage, items[i], WEIR_LOSS_DISCARDED);
}

/* A limit was waited for when the call was called off: the function was not called. */
static bool was_called_off(weir__stage *stage, int rc)
{
    return rc == WEIR_EINTR && has_limits(&stage->opts) && is_called_off(stage);
}

int weir__stage_call(weir__stage *stage, void *const *items, size_t n, weir_output *output)
{
    weir__tally *tally = &output->meter->tallies[stage->index];
    weir_run run = {.pipeline = stage->pipeline, .stage = stage->index, .output = output};
    int rc;
    if (weir__is_halted(stage->pipeline)) { /* it was taken before the queue was emptied */
        let_all_go(stage, items, n);
        return WEIR_EINTR;
    }
    while ((rc = call_once(stage, items, n, &run)) < 0) {
        if (rc == WEIR_FATAL || run.attempt + 1 >= stage->opts.attempts)
            break;
        if (!pause_before(stage, output->meter, run.attempt + 1)) {
            rc = n == 0 ? WEIR_END : rc; /* a source that is to stop has not failed */
            break;
        }
        run.attempt++;
        weir__add(&tally->retried, 1, output->meter->shared);
    }
    if (rc >= 0)
        weir__add(&tally->processed, n, output->meter->shared);
    else if (was_called_off(stage, rc))
        let_all_go(stage, items, n);
    else
        give_up(stage, output->meter, items, n, rc);
    return rc;
}

int weir_pipeline_fail(weir_pipeline *pipeline, weir_stage stage, void *item, int error)
{
    if (stage >= pipeline->n || !pipeline->started_at ||
        pipeline->stages[stage]->opts.kind != WEIR_STAGE_EXTERNAL)
        return WEIR_EINVAL;
    give_up(pipeline->stages[stage], &pipeline->stages[stage]->caller, &item, 1, error);
    return WEIR_OK;
}

/* ---- taking ----------------------------------------------------------------------------------- */

#define LOOK_AGAIN (200 * WEIR_MILLISECOND) /* a worker that may not be wanted any more */

/* Whether this worker is one too many; then it no longer counts. */
static bool is_retired(weir__stage *stage)
{
    if (!weir__is_scaled(stage))
        return false;
    uint32_t running = atomic_load_explicit(&stage->running, memory_order_relaxed);
    while (running > atomic_load_explicit(&stage->wanted, memory_order_relaxed))
        /* release: pairs with the acquire of who ends the stage */
        if (atomic_compare_exchange_weak_explicit(&stage->running, &running, running - 1,
                                                  memory_order_release, memory_order_relaxed))
            return true;
    return false;
}

/* One item of a durable queue, or WEIR_ECLOSED: halted, what is inside stays there. */
static int get_seq(weir__worker *worker, size_t i, weir_time deadline)
{
    weir__stage *stage = worker->stage;
    uint64_t *seq = &worker->outcome.seqs[i];
    if (weir__is_halted(stage->pipeline))
        return WEIR_ECLOSED;
    int rc = weir_queue_get_seq(stage->queue, &worker->items[i], &worker->costs[i], seq, deadline);
    if (rc == WEIR_OK && weir__is_halted(stage->pipeline)) {
        weir__let_go(stage, worker->items[i], WEIR_LOSS_DISCARDED); /* here; not on disk */
        return WEIR_ECLOSED;
    }
    worker->outcome.n_seqs = rc == WEIR_OK ? i + 1 : i;
    return rc;
}

/* As weir_queue_get_many, and notes what is to be acknowledged. */
static int64_t get_many_seqs(weir__worker *worker, weir_time deadline, int64_t linger_ns)
{
    size_t batch = worker->stage->opts.batch, n = 0;
    int rc = get_seq(worker, n, deadline);
    if (rc != WEIR_OK)
        return rc;
    weir_time until = linger_ns > 0 ? weir_after(linger_ns) : WEIR_PROBE;
    while (++n < batch && get_seq(worker, n, until) == WEIR_OK)
        continue;
    return (int64_t)n;
}

static int64_t get_some(weir__worker *worker, weir_time deadline, int64_t linger_ns)
{
    const weir_stage_opts *opts = &worker->stage->opts;
    weir_queue *queue = worker->stage->queue;
    if (opts->acknowledge)
        return get_many_seqs(worker, deadline, linger_ns);
    if (opts->batch == 1) {
        int rc = weir_queue_get_cost(queue, worker->items, worker->costs, deadline);
        return rc == WEIR_OK ? 1 : rc;
    }
    return weir_queue_get_many(queue, worker->items, worker->costs, opts->batch, deadline,
                               linger_ns);
}

/* Up to a batch of items: how many, or WEIR_ECLOSED, or WEIR_ETIMEDOUT: look again.  Where there is no
 * memory, or descriptor, for what lies on disk, it stays there, and is looked for later. */
static int64_t take(weir__worker *worker)
{
    weir__stage *stage = worker->stage;
    int64_t linger_ns = stage->opts.linger_ns, rc = WEIR_EEMPTY;
    if (linger_ns == 0 || stage->opts.batch == 1)
        rc = get_some(worker, WEIR_PROBE, 0);
    if (rc > 0 || rc == WEIR_ECLOSED)
        return rc;
    weir_time deadline = weir__is_scaled(stage) ? weir_after(LOOK_AGAIN) : WEIR_FOREVER;
    weir__wait wait = weir__wait_begin(stage->pipeline, &worker->meter, WEIR__IDLE, 0);
    rc = get_some(worker, deadline, linger_ns);
    bool is_starved = rc < 0 && rc != WEIR_ECLOSED && rc != WEIR_ETIMEDOUT;
    if (is_starved)
        weir__futex_sleep(&stage->pipeline->halted, 0, weir_after(LOOK));
    weir__wait_end(stage->pipeline, &worker->meter, wait);
    return is_starved ? WEIR_ETIMEDOUT : rc;
}

static void hold(weir__worker *worker, size_t n)
{
    /* relaxed: a number to look at */
    atomic_store_explicit(&worker->in_hand, (uint32_t)n, memory_order_relaxed);
}

static void work_plainly(weir__worker *worker)
{
    weir_output output = {.meter = &worker->meter};
    while (!is_retired(worker->stage)) {
        int64_t n = take(worker);
        if (n == WEIR_ETIMEDOUT)
            continue;
        if (n < 0) {
            atomic_fetch_sub_explicit(&worker->stage->running, 1, memory_order_acq_rel);
            return;
        }
        hold(worker, (size_t)n);
        weir__stage_call(worker->stage, worker->items, (size_t)n, &output);
        hold(worker, 0);
        weir__acknowledge(worker->stage, &worker->meter, &worker->outcome);
    }
}

/* ---- in order --------------------------------------------------------------------------------- */

static void pause_briefly(void)
{
    static _Atomic uint32_t nobody_wakes;
    weir__futex_sleep(&nobody_wakes, 0, weir_after(WEIR_MILLISECOND));
}

/* What it must not go on without: tokens come and go whatever hook a function has left on this thread, and
 * where a queue needs memory for one, as soon as there is some. */
static void must_put(weir_queue *tokens)
{
    int rc;
    while ((rc = weir_queue_put(tokens, NULL, 0, WEIR_FOREVER)) < 0)
        if (rc == WEIR_ENOMEM)
            pause_briefly();
}

static void must_get(weir_queue *tokens)
{
    void *token;
    while (weir_queue_get(tokens, &token, WEIR_FOREVER) < 0)
        continue;
}

static void enter_window(weir__worker *worker)
{
    weir__stage *stage = worker->stage;
    weir__order *order = stage->order;
    if (weir_queue_put(order->window, NULL, 0, WEIR_PROBE) >= 0)
        return;
    /* relaxed: a hint.  Who emits is blocked: so are those who wait for him. */
    unsigned blocked_on = atomic_load_explicit(&order->blocked_on, memory_order_relaxed);
    weir__wait wait =
        blocked_on
            ? weir__wait_begin(stage->pipeline, &worker->meter, WEIR__BLOCKED, blocked_on - 1)
            : weir__wait_begin(stage->pipeline, &worker->meter, WEIR__HELD, WEIR_CAUSE_ORDER);
    must_put(order->window);
    weir__wait_end(stage->pipeline, &worker->meter, wait);
}

static void take_baton(weir__worker *worker)
{
    weir__stage *stage = worker->stage;
    void *token;
    if (weir_queue_get(stage->order->baton, &token, WEIR_PROBE) == WEIR_OK)
        return;
    weir__wait wait = weir__wait_begin(stage->pipeline, &worker->meter, WEIR__IDLE, 0);
    must_get(stage->order->baton);
    weir__wait_end(stage->pipeline, &worker->meter, wait);
}

/* There is room: it was taken. */
static void give_baton(weir__worker *worker)
{
    weir__stage *stage = worker->stage;
    if (weir_queue_put(stage->order->baton, NULL, 0, WEIR_POLL) >= 0)
        return;
    weir__wait wait =
        weir__wait_begin(stage->pipeline, &worker->meter, WEIR__HELD, WEIR_CAUSE_MEMORY);
    must_put(stage->order->baton);
    weir__wait_end(stage->pipeline, &worker->meter, wait);
}

static void work_in_order(weir__worker *worker)
{
    weir__stage *stage = worker->stage;
    weir__order *order = stage->order;
    weir_output output = {.meter = &worker->meter, .outcome = &worker->outcome};
    while (!is_retired(stage)) {
        enter_window(worker);
        take_baton(worker);
        int64_t n = take(worker);
        uint64_t seq = order->next_in;
        order->next_in += n > 0;
        give_baton(worker);
        if (n < 0) {
            void *token;
            weir_queue_get(order->window, &token, WEIR_POLL);
            if (n == WEIR_ETIMEDOUT)
                continue;
            atomic_fetch_sub_explicit(&stage->running, 1, memory_order_acq_rel);
            return;
        }
        hold(worker, (size_t)n);
        weir__stage_call(stage, worker->items, (size_t)n, &output);
        hold(worker, 0);
        worker->outcome.has_lost = worker->meter.has_lost;
        worker->meter.has_lost = false;
        weir__order_submit(stage, &worker->meter, seq, &worker->outcome);
    }
}

/* ---- sources ---------------------------------------------------------------------------------- */

static void work_as_source(weir__worker *worker)
{
    weir_output output = {.meter = &worker->meter};
    while (!is_called_off(worker->stage) &&
           weir__stage_call(worker->stage, NULL, 0, &output) != WEIR_END)
        continue;
    atomic_fetch_sub_explicit(&worker->stage->running, 1, memory_order_acq_rel);
}

/* ---- threads ---------------------------------------------------------------------------------- */

void weir__stage_work(void *arg)
{
    weir__worker *worker = weir__self = arg;
    weir__stage *stage = worker->stage;
    weir__meter_come(&worker->meter);
    if (stage->opts.source)
        work_as_source(worker);
    else if (stage->order)
        work_in_order(worker);
    else
        work_plainly(worker);
    weir__meter_leave(&worker->meter);
    weir__self = NULL;
    /* acquire: pairs with the acq_rel of those who left before: all they emitted comes before the end.
     * A retired worker never is the last one: at least one is wanted. */
    if (atomic_load_explicit(&stage->running, memory_order_acquire) == 0)
        weir__stage_end(stage);
    weir__thread_gone(stage->pipeline, worker);
}

void weir__stage_unseat(weir__worker *worker)
{
    weir__lock(&worker->stage->lock);
    worker->taken = false;
    weir__unlock(&worker->stage->lock);
}

static weir__worker *find_seat(weir__stage *stage)
{
    weir__worker *found = NULL;
    weir__lock(&stage->lock);
    for (unsigned i = 0; i < stage->n_seats && !found; i++)
        if (!stage->seats[i].taken) {
            found = &stage->seats[i];
            found->taken = true;
            if (i >= weir__seats_used(stage))
                atomic_store_explicit(&stage->n_used, i + 1, memory_order_relaxed);
        }
    weir__unlock(&stage->lock);
    return found;
}

int weir__stage_spawn(weir__stage *stage)
{
    weir__worker *worker = find_seat(stage);
    int rc = worker ? weir__start_thread(stage->pipeline, worker, weir__stage_work) : WEIR_EFULL;
    if (rc == WEIR_OK)
        return rc;
    atomic_fetch_sub_explicit(&stage->running, 1, memory_order_acq_rel);
    if (worker)
        weir__stage_unseat(worker);
    return rc;
}
