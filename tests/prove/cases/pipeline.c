/* pipeline.c - exec/pipeline, stage, emit, order, tender: stages that end one after the other, or all at once. */
#include "../prove.h"
#include "spill_support.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/park.h"
#include "exec/pipeline_impl.h"

#define ITEMS 4

static weir_pipeline *pipeline;
static int came_out[ITEMS + 1]; /* by one stage only, and read when it has ended */
static _Atomic int n_dropped[WEIR_LOSS_OUTPUT + 1], ended; /* relaxed: they order nothing */
static int next;                                           /* the source's own */

static void note_drop(void *item, weir_stage stage, weir_loss reason, void *ctx)
{
    (void)item, (void)stage, (void)ctx;
    atomic_fetch_add_explicit(&n_dropped[reason], 1, memory_order_relaxed);
}

static int dropped(weir_loss reason)
{
    return atomic_load_explicit(&n_dropped[reason], memory_order_relaxed);
}

static void on_end(void *ctx)
{
    (void)ctx;
    atomic_fetch_add_explicit(&ended, 1, memory_order_relaxed);
}

static void make_with(weir_pipeline_opts *opts)
{
    opts->on_drop = note_drop;
    opts->on_end = on_end;
    memset(came_out, 0, sizeof came_out);
    for (int i = 0; i <= WEIR_LOSS_OUTPUT; i++)
        atomic_store_explicit(&n_dropped[i], 0, memory_order_relaxed);
    atomic_store_explicit(&ended, 0, memory_order_relaxed);
    next = 0;
    prove_claim(weir_pipeline_create(&pipeline, opts) == WEIR_OK);
}

static void make(void)
{
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    make_with(&opts);
}

/* ---- functions of stages ------------------------------------------------------------------------ */

static void *item_of(int n)
{
    return (void *)(intptr_t)n;
}

/* A source of two. */
static int bring(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)items, (void)n;
    weir_emit(run, item_of(++next), 0);
    return next < 2 ? WEIR_MORE : WEIR_END;
}

static int bring_for_ever(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)items, (void)n;
    weir_emit(run, item_of(++next % ITEMS + 1), 0);
    return WEIR_MORE;
}

static int pass_on(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx;
    for (size_t i = 0; i < n; i++)
        weir_emit(run, items[i], 0);
    return 0;
}

static int take_in(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)run;
    for (size_t i = 0; i < n; i++)
        came_out[(intptr_t)items[i]]++;
    return 0;
}

static int fail(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)items, (void)n, (void)run;
    return -42;
}

/* The odd ones. */
static int fail_some(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    if ((intptr_t)items[0] & 1)
        return fail(ctx, items, n, run);
    return pass_on(ctx, items, n, run);
}

static weir_stage_opts stage(const char *name, weir_stage_fn *fn)
{
    weir_stage_opts opts = WEIR_STAGE_OPTS_INIT;
    opts.name = name;
    opts.fn = fn;
    opts.queue = 1;
    return opts;
}

static weir_stage add(weir_stage_opts opts)
{
    weir_stage number;
    prove_claim(weir_pipeline_add(pipeline, &opts, &number) == WEIR_OK);
    return number;
}

static weir_stage add_behind(weir_stage before, weir_stage_opts opts)
{
    weir_stage number = add(opts);
    prove_claim(weir_pipeline_connect(pipeline, before, number) == WEIR_OK);
    return number;
}

static weir_stage_opts source(weir_stage_fn *fn)
{
    weir_stage_opts opts = stage("source", fn);
    opts.source = true;
    return opts;
}

static weir_stage_opts open_stage(const char *name, weir_stage_fn *fn)
{
    weir_stage_opts opts = stage(name, fn);
    opts.open = true;
    return opts;
}

/* ---- the end ------------------------------------------------------------------------------------ */

static uint64_t drops_of(const weir_stage_snapshot *s)
{
    uint64_t sum = 0;
    for (int i = 0; i < WEIR_LOSS_REASONS; i++)
        sum += s->dropped[i];
    return sum;
}

static weir_stage_snapshot look(weir_stage number)
{
    weir_stage_snapshot s = WEIR_STAGE_SNAPSHOT_INIT;
    prove_claim(weir_pipeline_get_snapshot(pipeline, number, &s) == WEIR_OK);
    return s;
}

/* The law of each stage, when all have ended. */
static void check_law(void)
{
    for (weir_stage i = 0; i < weir_pipeline_stages(pipeline); i++) {
        weir_stage_snapshot s = look(i);
        prove_claim(s.ended && s.in_hand == 0 && s.depth == 0);
        if (strcmp(s.name, "source") != 0)
            prove_same(s.accepted, s.processed + s.failed + drops_of(&s));
    }
}

static void end(int result)
{
    prove_same(weir_pipeline_wait(pipeline, WEIR_FOREVER), result);
    check_law();
    weir_pipeline_destroy(pipeline);
    prove_same(atomic_load_explicit(&ended, memory_order_relaxed), 1);
}

static void start(void)
{
    prove_claim(weir_pipeline_start(pipeline) == WEIR_OK);
}

/* ---- cases -------------------------------------------------------------------------------------- */

static void pipeline_flows(void)
{
    make();
    weir_stage from = add(source(bring));
    add_behind(from, stage("sink", take_in));
    start();
    end(WEIR_OK);
    prove_claim(came_out[1] == 1 && came_out[2] == 1);
}

PROVE_CASE(pipeline_flows,
           "what a source brings comes out once, and is seen by who waits for the end");

/* Whoever feeds an open stage. */
static weir_stage fed;
static int taken_in;

static void put_two(void *arg)
{
    int first = (int)(intptr_t)arg;
    for (int i = 0; i < 2; i++) {
        int rc = weir_pipeline_put(pipeline, fed, item_of(first + i), 0, WEIR_FOREVER);
        prove_claim(rc == WEIR_KEPT || rc == WEIR_ECLOSED);
        taken_in += rc == WEIR_KEPT;
    }
}

static int came(void)
{
    int sum = 0;
    for (int i = 1; i <= ITEMS; i++)
        sum += came_out[i];
    return sum;
}

static void pipeline_is_fed(void)
{
    make();
    fed = add(open_stage("sink", take_in));
    taken_in = 0;
    start();
    int t = prove_spawn(put_two, (void *)1);
    prove_claim(weir_pipeline_put(pipeline, fed, item_of(3), 0, WEIR_FOREVER) == WEIR_KEPT);
    prove_join(t);
    prove_claim(weir_pipeline_close_input(pipeline, fed) == WEIR_OK);
    prove_same(weir_pipeline_put(pipeline, fed, item_of(4), 0, WEIR_FOREVER), WEIR_ECLOSED);
    end(WEIR_OK);
    prove_claim(taken_in == 2 && came() == 3);
}

PROVE_CASE(pipeline_is_fed, "what is put in from outside comes out once");

static void pipeline_stops(void)
{
    make();
    fed = add(open_stage("sink", take_in));
    taken_in = 0;
    start();
    int t = prove_spawn(put_two, (void *)1);
    weir_pipeline_stop(pipeline);
    prove_join(t);
    end(WEIR_OK);
    prove_same(came(), taken_in);
}

PROVE_CASE(pipeline_stops, "stopped, what was taken in still goes its way");

static void pipeline_halts(void)
{
    make();
    fed = add(open_stage("sink", take_in));
    taken_in = 0;
    start();
    int t = prove_spawn(put_two, (void *)1);
    weir_pipeline_halt(pipeline);
    prove_join(t);
    end(WEIR_OK);
    prove_same(came() + dropped(WEIR_LOSS_DISCARDED), taken_in);
}

PROVE_CASE(pipeline_halts,
           "halted, what was taken in has been worked on or dropped, and nobody waits");

static void pipeline_source_stops(void)
{
    make();
    add_behind(add(source(bring_for_ever)), stage("sink", take_in));
    start();
    weir_pipeline_stop(pipeline);
    weir_stage_snapshot s;
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_OK);
    s = look(0);
    prove_same(s.emitted, came());
    end(WEIR_OK);
}

PROVE_CASE(pipeline_source_stops,
           "a source that is stopped brings nothing more, and what it brought comes out");

static void pipeline_destroyed(void)
{
    make();
    add_behind(add(source(bring_for_ever)), stage("sink", take_in));
    start();
    weir_pipeline_destroy(pipeline);
    prove_same(atomic_load_explicit(&ended, memory_order_relaxed), 1);
}

PROVE_CASE(pipeline_destroyed, "destroyed while it runs, it ends first");

/* ---- errors ------------------------------------------------------------------------------------- */

static void pipeline_fails(void)
{
    make();
    weir_stage_opts middle = stage("middle", fail);
    add_behind(add_behind(add(source(bring_for_ever)), middle), stage("sink", take_in));
    start();
    end(-42);
    prove_claim(dropped(WEIR_LOSS_FAILED) >= 1 && came() == 0);
}

PROVE_CASE(pipeline_fails, "the first error ends all stages, and is what is told");

static void pipeline_skips(void)
{
    make();
    weir_stage_opts middle = stage("middle", fail_some), dead = stage("dead", take_in);
    weir_stage letters = add(dead);
    middle.on_error = WEIR_ON_ERROR_DEAD_LETTER;
    middle.dead_letter = letters;
    weir_stage from = add(source(bring));
    weir_stage at = add_behind(from, middle);
    prove_claim(weir_pipeline_connect(pipeline, at, letters) == WEIR_OK);
    start();
    end(WEIR_OK);
    prove_claim(came_out[1] == 1 && came_out[2] == 1);
}

PROVE_CASE(pipeline_skips, "dead letters arrive, and their stage ends after who writes them");

static int fail_once(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    return run->attempt == 0 ? fail(ctx, items, n, run) : take_in(ctx, items, n, run);
}

static void pipeline_retries(void)
{
    make();
    weir_stage_opts sink = stage("sink", fail_once);
    sink.attempts = 2;
    sink.backoff = (weir_backoff)WEIR_BACKOFF_INIT;
    sink.backoff.base_ns = WEIR_MILLISECOND;
    weir_stage at = add_behind(add(source(bring)), sink);
    start();
    if (prove_pick(2) == 1)
        weir_pipeline_halt(pipeline);
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) <= WEIR_OK);
    prove_claim(look(at).retried <= 2);
    check_law();
    weir_pipeline_destroy(pipeline);
}

PROVE_CASE(pipeline_retries, "who pauses before a retry is not waited for when all is halted");

static weir_time failed_at; /* the sink's own */

static int fail_once_and_look(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    if (run->attempt == 0)
        failed_at = weir_now();
    else
        prove_claim(weir_now() - failed_at >= WEIR_MILLISECOND);
    return fail_once(ctx, items, n, run);
}

static void pipeline_retries_later(void)
{
    make();
    weir_stage_opts sink = stage("sink", fail_once_and_look);
    sink.attempts = 2;
    sink.backoff = (weir_backoff)WEIR_BACKOFF_INIT;
    sink.backoff.base_ns = WEIR_MILLISECOND;
    sink.backoff.jitter = WEIR_JITTER_NONE;
    weir_stage at = add_behind(add(source(bring)), sink);
    start();
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_OK);
    prove_same(look(at).retried, 2);
    end(WEIR_OK);
    prove_same(came(), 2);
}

PROVE_CASE(pipeline_retries_later, "a retry comes after its pause");

/* ---- order -------------------------------------------------------------------------------------- */

static int last;

static int take_in_order(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)n, (void)run;
    prove_same((intptr_t)items[0], last + 1);
    last++;
    return 0;
}

static void pipeline_in_order(void)
{
    make();
    weir_stage_opts middle = stage("middle", pass_on);
    middle.workers = 2;
    middle.ordered = true;
    middle.window = 2;
    last = 0;
    add_behind(add_behind(add(source(bring)), middle), stage("sink", take_in_order));
    start();
    end(WEIR_OK);
    prove_same(last, 2);
}

PROVE_CASE(pipeline_in_order, "several workers, and what they emit is in the order of what came");

static int is_done[ITEMS + 1];

static int pass_on_within_the_window(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    intptr_t item = (intptr_t)items[0];
    if (item > 2)
        prove_same(is_done[item - 2], 1); /* a race, if it has not been waited for */
    pass_on(ctx, items, n, run);
    prove_pause();
    is_done[item] = 1;
    return 0;
}

static void pipeline_keeps_its_window(void)
{
    make();
    weir_stage_opts middle = open_stage("middle", pass_on_within_the_window);
    middle.workers = 2;
    middle.ordered = true;
    middle.window = 2;
    last = 0;
    memset(is_done, 0, sizeof is_done);
    add_behind(add(middle), stage("sink", take_in_order));
    start();
    for (int i = 1; i <= 3; i++)
        prove_claim(weir_pipeline_put(pipeline, 0, item_of(i), 0, WEIR_FOREVER) >= 0);
    prove_claim(weir_pipeline_close_input(pipeline, 0) == WEIR_OK);
    end(WEIR_OK);
    prove_same(last, 3);
}

PROVE_CASE(
    pipeline_keeps_its_window,
    "calls in order go on ahead of one that takes long as far as the window, and no further");

/* Idle workers look again and again whether they are wanted, and hold no place of the window meanwhile. */
static void pipeline_idles_in_order(void)
{
    make();
    weir_stage_opts middle = open_stage("middle", pass_on);
    middle.workers_min = 1;
    middle.workers_max = 2;
    middle.ordered = true;
    middle.window = 2;
    last = 0;
    add_behind(add(middle), stage("sink", take_in_order));
    start();
    nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    for (int i = 1; i <= 2; i++)
        prove_claim(weir_pipeline_put(pipeline, 0, item_of(i), 0, WEIR_FOREVER) >= 0);
    prove_claim(weir_pipeline_close_input(pipeline, 0) == WEIR_OK);
    end(WEIR_OK);
    prove_same(last, 2);
}

PROVE_CASE(pipeline_idles_in_order,
           "workers in order that have found nothing for long go on when something comes");

/* ---- limits ------------------------------------------------------------------------------------- */

static int one_at_a_time;

static int take_one_at_a_time(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    one_at_a_time++; /* a limit of one guards it */
    return take_in(ctx, items, n, run);
}

static weir_stage_opts limited(weir_limit **ret_limit, weir_rate **ret_rate)
{
    weir_limit_opts limit = {.size = sizeof limit, .limit = 1};
    weir_rate_opts rate = {.size = sizeof rate, .rate = 1, .per_ns = WEIR_MILLISECOND};
    weir_stage_opts sink = stage("sink", take_one_at_a_time);
    prove_claim(weir_limit_create(ret_limit, &limit) == WEIR_OK);
    prove_claim(weir_rate_create(ret_rate, &rate) == WEIR_OK);
    sink.limit = *ret_limit;
    sink.rate = *ret_rate;
    sink.workers = 2;
    return sink;
}

/* What was taken of the limits came back. */
static void end_limits(weir_limit *limit, weir_rate *rate)
{
    weir_limit_snapshot s = WEIR_LIMIT_SNAPSHOT_INIT;
    prove_claim(weir_limit_get_snapshot(limit, &s) == WEIR_OK);
    prove_claim(s.in_flight == 0 && s.waiting == 0 && s.peak <= 1);
    weir_limit_destroy(limit);
    weir_rate_destroy(rate);
}

static void pipeline_within_limits(void)
{
    weir_limit *limit;
    weir_rate *rate;
    bool halts = prove_pick(2) == 1;
    one_at_a_time = 0;
    make();
    add_behind(add(source(bring)), limited(&limit, &rate));
    start();
    if (halts)
        weir_pipeline_halt(pipeline);
    end(WEIR_OK);
    prove_same(one_at_a_time, came());
    prove_claim(halts || came() == 2);
    end_limits(limit, rate);
}

PROVE_CASE(pipeline_within_limits,
           "a stage keeps its limits, and gives back what it took, however it ends");

static void pipeline_behind_a_breaker(void)
{
    weir_breaker *breaker;
    weir_breaker_opts how = WEIR_BREAKER_OPTS_INIT;
    how.name = "";
    prove_claim(weir_breaker_create(&breaker, &how) == WEIR_OK);
    prove_claim(weir_breaker_isolate(breaker) == WEIR_OK);
    make();
    weir_stage_opts sink = stage("sink", take_in);
    sink.breaker = breaker;
    add_behind(add(source(bring)), sink);
    start();
    bool halts = prove_pick(2) == 1;
    if (halts)
        weir_pipeline_halt(pipeline);
    else
        prove_claim(weir_breaker_reset(breaker) == WEIR_OK);
    end(WEIR_OK);
    prove_same(came(), halts ? 0 : 2);
    weir_breaker_destroy(breaker);
}

PROVE_CASE(pipeline_behind_a_breaker,
           "who waits for a breaker goes on with it, or ends when all is halted");

/* ---- other kinds of stages ---------------------------------------------------------------------- */

static weir_queue *outside_queue;
static weir_stage outside;

/* The caller's thread works for the stage. */
static void work_outside(void *arg)
{
    void *item;
    (void)arg;
    while (weir_queue_get(outside_queue, &item, WEIR_FOREVER) == WEIR_OK) {
        weir_work work = WEIR_WORK_INIT;
        work.workers = 1;
        if ((intptr_t)item == 1) {
            prove_claim(weir_pipeline_emit(pipeline, outside, item, 0) >= 0);
            work.processed = 1;
        } else {
            prove_claim(weir_pipeline_fail(pipeline, outside, item, -1) == WEIR_OK);
        }
        prove_claim(weir_pipeline_report(pipeline, outside, &work) == WEIR_OK);
    }
    prove_claim(weir_pipeline_end_stage(pipeline, outside) == WEIR_OK);
}

static void pipeline_has_outsiders(void)
{
    make();
    weir_stage_opts middle = stage("middle", NULL);
    middle.kind = WEIR_STAGE_EXTERNAL;
    middle.on_error = WEIR_ON_ERROR_SKIP;
    outside = add_behind(add(source(bring)), middle);
    add_behind(outside, stage("sink", take_in));
    start();
    outside_queue = weir_pipeline_queue(pipeline, outside);
    int t = prove_spawn(work_outside, NULL);
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_OK);
    prove_join(t);
    prove_claim(came_out[1] == 1 && came() == 1 && dropped(WEIR_LOSS_FAILED) == 1);
    end(WEIR_OK);
}

PROVE_CASE(pipeline_has_outsiders,
           "a stage of the caller's ends when he says so, and those behind it after");

/* Its caller has not said that it has ended, and does not any more. */
static void pipeline_destroyed_with_outsiders(void)
{
    make();
    weir_stage_opts middle = stage("middle", NULL);
    middle.kind = WEIR_STAGE_EXTERNAL;
    add_behind(add_behind(add(source(bring)), middle), stage("sink", take_in));
    start();
    weir_pipeline_destroy(pipeline);
    prove_same(atomic_load_explicit(&ended, memory_order_relaxed), 1);
    prove_same(came(), 0);
}

PROVE_CASE(pipeline_destroyed_with_outsiders,
           "destroyed, a pipeline does not wait for a stage of the caller's");

static bool share(void *item, void **ret_item, void *ctx)
{
    (void)ctx;
    *ret_item = item;
    return true;
}

static void pipeline_forks(void)
{
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    make();
    weir_pipeline_destroy(pipeline);
    opts.on_drop = note_drop;
    opts.on_end = on_end;
    opts.share = share;
    prove_claim(weir_pipeline_create(&pipeline, &opts) == WEIR_OK);
    weir_stage from = add(source(bring)), sink = add(stage("sink", take_in));
    weir_stage_opts middle = stage("inline", pass_on);
    middle.kind = WEIR_STAGE_INLINE;
    prove_claim(weir_pipeline_connect(pipeline, from, sink) == WEIR_OK);
    prove_claim(weir_pipeline_connect(pipeline, add_behind(from, middle), sink) == WEIR_OK);
    start();
    end(WEIR_OK);
    prove_claim(came_out[1] == 2 && came_out[2] == 2);
}

PROVE_CASE(pipeline_forks, "what goes two ways comes out twice, and the end waits for both");

static void pipeline_scales(void)
{
    make();
    weir_stage_opts sink = stage("sink", take_one_at_a_time);
    weir_limit *limit;
    weir_rate *rate;
    sink = limited(&limit, &rate);
    sink.workers = 0;
    sink.workers_min = 1;
    sink.workers_max = 2;
    one_at_a_time = 0;
    add_behind(add(source(bring)), sink);
    start();
    end(WEIR_OK);
    prove_claim(one_at_a_time == 2 && came() == 2);
    end_limits(limit, rate);
}

PROVE_CASE(pipeline_scales,
           "with workers that come and go nothing is lost, and the last one ends the stage");

/* One of two workers is told to leave; the caller tells what the scale would. */
static void dismiss_one(void *arg)
{
    (void)arg;
    atomic_store_explicit(&pipeline->stages[0]->wanted, 1, memory_order_relaxed);
}

static void pipeline_retires(void)
{
    make();
    weir_stage_opts sink = open_stage("sink", take_in);
    sink.workers = 2;
    sink.workers_min = 1;
    sink.workers_max = 2;
    add(sink);
    start();
    int t = prove_spawn(dismiss_one, NULL);
    for (int i = 1; i <= 2; i++)
        prove_claim(weir_pipeline_put(pipeline, 0, item_of(i), 0, WEIR_FOREVER) >= 0);
    prove_claim(weir_pipeline_close_input(pipeline, 0) == WEIR_OK);
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_OK);
    prove_same(came(), 2);
    prove_join(t);
    end(WEIR_OK);
}

PROVE_CASE(pipeline_retires, "what a worker did that has left is seen by who waits for the end");

/* Nothing comes, and one of two has to see that he is not wanted. */
static void pipeline_shrinks(void)
{
    make();
    weir_stage_opts sink = open_stage("sink", take_in);
    sink.workers = 2;
    sink.workers_min = 1;
    sink.workers_max = 2;
    add(sink);
    start();
    weir_time since = weir_now();
    while (look(0).workers > 1 && weir_now() - since < 600 * WEIR_SECOND)
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    prove_same(look(0).workers, 1);
    prove_claim(weir_pipeline_close_input(pipeline, 0) == WEIR_OK);
    end(WEIR_OK);
}

PROVE_CASE(pipeline_shrinks, "a worker that is not wanted leaves, although nothing comes");

static int own[PROVE_THREADS],
    n_own;        /* threads that the caller starts; the pipeline asks for one at a time */
#define OWN_MAX 3 /* the tender, the source and a first worker */

static int start_own(void (*main)(void *arg), void *arg, const char *name, void *ctx)
{
    (void)name, (void)ctx;
    if (n_own == OWN_MAX)
        return -1;
    own[n_own++] = prove_spawn(main, arg);
    return 0;
}

static void join_own(void)
{
    for (int i = 0; i < n_own; i++)
        prove_join(own[i]);
}

/* A second worker that is asked for cannot be started. */
static void pipeline_cannot_grow(void)
{
    weir_limit *limit;
    weir_rate *rate;
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.start_thread = start_own;
    make_with(&opts);
    weir_stage_opts sink = limited(&limit, &rate);
    sink.workers = 0;
    sink.workers_min = 1;
    sink.workers_max = 2;
    one_at_a_time = n_own = 0;
    add_behind(add(source(bring)), sink);
    start();
    end(WEIR_OK);
    join_own();
    prove_claim(one_at_a_time == 2 && came() == 2);
    end_limits(limit, rate);
}

PROVE_CASE(pipeline_cannot_grow,
           "a worker that could not be started keeps nobody from the end, nor from what was done");

/* Of three workers the third cannot be started, and the source is not tried.  With a queue of the caller's it can still be
 * looked at. */
static void pipeline_cannot_start(void)
{
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.start_thread = start_own;
    make_with(&opts);
    weir_queue *queue;
    weir_queue_opts how = WEIR_QUEUE_OPTS_INIT;
    how.name = "";
    how.capacity = 1;
    how.on_drop = weir_drop_ignore;
    prove_claim(weir_queue_create(&queue, &how) == WEIR_OK);
    weir_stage_opts sink = stage("sink", take_in);
    sink.borrowed = queue;
    sink.workers = 3;
    n_own = 0;
    add_behind(add(source(bring)), sink);
    prove_same(weir_pipeline_start(pipeline), WEIR_ESPAWN);
    join_own();
    check_law();
    prove_claim(look(0).workers == 0 && look(1).workers == 0);
    prove_claim(came() == 0);
    weir_pipeline_destroy(pipeline);
    weir_queue_destroy(queue);
}

PROVE_CASE(pipeline_cannot_start,
           "of a pipeline that could not be started no worker is left, nor told of");

/* ---- what the caller is told of waits ------------------------------------------------------------ */

static _Thread_local bool is_outside; /* between before_wait and after_wait */
static _Atomic int times_outside;     /* relaxed: orders nothing */

static void go_outside(void *ctx)
{
    (void)ctx;
    prove_claim(!is_outside);
    is_outside = true;
    atomic_fetch_add_explicit(&times_outside, 1, memory_order_relaxed);
}

static void come_inside(void *ctx)
{
    (void)ctx;
    prove_claim(is_outside);
    is_outside = false;
}

static int take_inside(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    prove_claim(!is_outside);
    return take_in(ctx, items, n, run);
}

static void pipeline_waits_outside(void)
{
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.before_wait = go_outside;
    opts.after_wait = come_inside;
    make_with(&opts);
    add_behind(add(source(bring)), stage("sink", take_inside));
    start();
    end(WEIR_OK);
    prove_claim(came() == 2);
}

PROVE_CASE(pipeline_waits_outside,
           "around each wait the caller is told, once before and once after it");

/* ---- a disk ----------------------------------------------------------------------------------------- */

static int encode(void *item, weir_record *into, void *ctx)
{
    (void)ctx;
    uint8_t value = (uint8_t)(uintptr_t)item;
    return weir_record_add(into, &value, 1);
}

static int no_memory_for; /* so many ways back */

static int decode(const void *data, size_t n, void **ret_item, void *ctx)
{
    (void)n, (void)ctx;
    if (no_memory_for > 0) {
        no_memory_for--;
        return WEIR_ENOMEM;
    }
    *ret_item = item_of(*(const uint8_t *)data);
    return WEIR_OK;
}

static void pipeline_has_a_disk(void)
{
    static const weir_codec codec = {.encode = encode, .decode = decode};
    weir_spill *spill;
    make();
    s_make(&spill, false);
    no_memory_for = 2;
    weir_stage_opts sink = open_stage("sink", take_in);
    sink.overflow = WEIR_OVERFLOW_SPILL;
    sink.spill = spill;
    sink.codec = &codec;
    add(sink);
    start();
    for (int i = 1; i <= 3; i++)
        prove_claim(weir_pipeline_put(pipeline, 0, item_of(i), 0, WEIR_FOREVER) >= 0);
    prove_claim(weir_pipeline_close_input(pipeline, 0) == WEIR_OK);
    end(WEIR_OK);
    prove_same(came(), 3);
    prove_same(s_look(spill).pending, 0);
    weir_spill_destroy(spill);
}

PROVE_CASE(pipeline_has_a_disk,
           "what lies on disk comes out, also where there was no memory for it at first");

/* ---- a source that hangs -------------------------------------------------------------------------- */

static _Atomic uint32_t may_end; /* a futex */

static int hang(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)items, (void)n, (void)run;
    while (!atomic_load_explicit(&may_end, memory_order_acquire))
        weir__futex_wait(&may_end, 0, WEIR_FOREVER, false);
    return WEIR_END;
}

static void pipeline_gives_up_a_source(void)
{
    make();
    atomic_store_explicit(&may_end, 0, memory_order_relaxed);
    add_behind(add(source(hang)), stage("sink", take_in));
    start();
    weir_pipeline_stop(pipeline);
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_OK);
    atomic_store_explicit(&may_end, 1, memory_order_release);
    weir__futex_wake(&may_end, 1, false);
    weir_pipeline_destroy(pipeline);
}

PROVE_CASE(pipeline_gives_up_a_source,
           "a source that does not return from its call keeps nobody waiting");

/* ---- looking ------------------------------------------------------------------------------------ */

static void watch(void *arg)
{
    (void)arg;
    for (weir_stage i = 0; i < 2; i++) {
        weir_stage_snapshot s = look(i);
        prove_claim(s.processed + s.failed <= 2 && s.depth <= 1 && s.workers <= 1);
    }
    weir_verdict verdict = WEIR_VERDICT_INIT;
    prove_claim(weir_pipeline_get_verdict(pipeline, &verdict) == WEIR_OK);
    prove_claim(verdict.share >= 0 && verdict.share <= 1);
}

static void pipeline_is_watched(void)
{
    prove_keep_records(true);
    make();
    add_behind(add(source(bring)), stage("sink", take_in));
    start();
    int t = prove_spawn(watch, NULL);
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_OK);
    prove_join(t);
    weir_stage_snapshot s = look(1);
    /* what its one worker did is all the time there was, and no more */
    prove_claim(s.busy_ns + s.idle_ns + s.blocked_ns < (uint64_t)(10 * WEIR_SECOND));
    end(WEIR_OK);
}

PROVE_CASE(pipeline_is_watched, "who looks sees numbers that there can be");

static void wait_in_time(void *arg)
{
    (void)arg;
    int rc = weir_pipeline_wait(pipeline, weir_after(WEIR_MILLISECOND));
    prove_claim(rc == WEIR_ETIMEDOUT || (rc == WEIR_OK && came() == 2));
}

static void pipeline_waits(void)
{
    make();
    add_behind(add(source(bring)), stage("sink", take_in));
    start();
    int t = prove_spawn(wait_in_time, NULL);
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_OK);
    prove_same(came(), 2);
    prove_join(t);
    end(WEIR_OK);
}

PROVE_CASE(pipeline_waits, "all who wait for the end hear of it");

static int wait_for_oneself(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_EDEADLK);
    return bring(ctx, items, n, run);
}

/* The stage of the caller's keeps it from its end. */
static void pipeline_is_waited_for_in_vain(void)
{
    make();
    weir_stage_opts middle = stage("middle", NULL);
    middle.kind = WEIR_STAGE_EXTERNAL;
    middle.on_error = WEIR_ON_ERROR_SKIP;
    outside = add_behind(add(source(wait_for_oneself)), middle);
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_EINVAL);
    start();
    weir_time since = weir_now();
    prove_claim(weir_pipeline_wait(pipeline, WEIR_POLL) == WEIR_ETIMEDOUT);
    prove_claim(weir_pipeline_wait(pipeline, weir_after(WEIR_MILLISECOND)) == WEIR_ETIMEDOUT);
    prove_claim(weir_now() - since >= WEIR_MILLISECOND);
    outside_queue = weir_pipeline_queue(pipeline, outside);
    work_outside(NULL);
    end(WEIR_OK);
}

PROVE_CASE(pipeline_is_waited_for_in_vain,
           "who waits before the start, in a stage, or not for long enough is told so");

/* ---- who saw what ------------------------------------------------------------------------------- */

static _Atomic int brought; /* relaxed: orders nothing */

/* A source of several workers, of two. */
static int bring_together(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)items, (void)n, (void)run;
    int item = atomic_fetch_add_explicit(&brought, 1, memory_order_relaxed) + 1;
    if (item > 2)
        return WEIR_END;
    came_out[item]++;
    return WEIR_MORE;
}

static int note_and_pass(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    take_in(ctx, items, n, run);
    return 0; /* nothing is emitted: it is the worker that is waited for */
}

/* Two workers: who waits for the end sees what each of them did, whichever ends the stage. */
static void see_both(weir_stage_opts opts)
{
    opts.workers = 2;
    if (!opts.source) {
        opts.open = true;
        opts.queue = 2;
    }
    fed = add(opts);
    start();
    for (int i = 1; i < 3 && !opts.source; i++)
        prove_claim(weir_pipeline_put(pipeline, fed, item_of(i), 0, WEIR_FOREVER) == WEIR_KEPT);
    prove_allocations_fail(
        true); /* then nobody looks at their meters, which would order them, too */
    weir_pipeline_close_input(pipeline, fed);
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_OK);
    prove_claim(came_out[1] == 1 && came_out[2] == 1);
    prove_allocations_fail(false);
    weir_pipeline_destroy(pipeline);
}

static void pipeline_of_two_workers(void)
{
    make();
    see_both(stage("sink", note_and_pass));
}

PROVE_CASE(pipeline_of_two_workers, "who waits for the end sees what each worker did");

static void pipeline_of_two_in_order(void)
{
    weir_stage_opts sink = stage("sink", note_and_pass);
    make();
    sink.ordered = true;
    sink.window = 2;
    see_both(sink);
}

PROVE_CASE(pipeline_of_two_in_order,
           "who waits for the end sees what each worker of an ordered stage did");

static _Atomic uint32_t *running_of(weir_stage number)
{
    return &pipeline->stages[number]->running;
}

static _Atomic bool is_closing; /* relaxed: orders nothing */

/* The second item is done when the worker of the first has left: he alone is held up on his way out. */
static int note_when_alone(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    while (items[0] == item_of(2) &&
           atomic_load_explicit(running_of(fed), memory_order_relaxed) != 1)
        prove_yield();
    return take_in(ctx, items, n, run);
}

static void look_closer_at_the_end(void *ctx)
{
    (void)ctx;
    if (atomic_load_explicit(&is_closing, memory_order_relaxed))
        prove_take_first_ways(false);
}

static void pipeline_of_two_in_order_left_by_one(void)
{
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    weir_stage_opts sink = open_stage("sink", note_when_alone);
    opts.before_wait = opts.after_wait = look_closer_at_the_end;
    atomic_store_explicit(&is_closing, false, memory_order_relaxed);
    prove_take_first_ways(true);
    make_with(&opts);
    sink.ordered = true;
    sink.window = 2;
    sink.workers = sink.queue = 2;
    fed = add(sink);
    start();
    for (int i = 1; i < 3; i++)
        prove_claim(weir_pipeline_put(pipeline, fed, item_of(i), 0, WEIR_FOREVER) == WEIR_KEPT);
    for (int i = 0; i < 300; i++)
        prove_yield(); /* one has the second, the other waits for a third */
    prove_allocations_fail(true);
    atomic_store_explicit(&is_closing, true, memory_order_relaxed);
    weir_pipeline_close_input(pipeline, fed);
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_OK);
    prove_take_first_ways(true);
    prove_claim(came_out[1] == 1 && came_out[2] == 1);
    prove_allocations_fail(false);
    weir_pipeline_destroy(pipeline);
}

PROVE_CASE(pipeline_of_two_in_order_left_by_one,
           "who waits for the end sees what the last worker did, if another one ends the stage");

/* Who does the first item is not wanted any more behind it; the other one is the last, and looks at nothing of his. */
static int dismiss_and_wait(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    if (items[0] == item_of(1))
        atomic_store_explicit(&pipeline->stages[fed]->wanted, 1, memory_order_relaxed);
    else
        while (atomic_load_explicit(running_of(fed), memory_order_relaxed) != 1)
            prove_yield();
    return take_in(ctx, items, n, run);
}

static void pipeline_of_two_one_of_whom_retires(void)
{
    weir_stage_opts sink = stage("sink", dismiss_and_wait);
    make();
    sink.workers_min = 1;
    sink.workers_max = 2;
    see_both(sink);
}

PROVE_CASE(pipeline_of_two_one_of_whom_retires,
           "who waits for the end sees what a worker did that was not wanted any more");

/* The tender begins to look at the stage, and its last worker leaves meanwhile. */
static int note_as_it_is_tended(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    prove_take_first_ways(false);
    weir__futex_wake(&pipeline->done, 8, false);
    prove_yield();
    return take_in(ctx, items, n, run);
}

static void pipeline_ended_by_the_tender(void)
{
    weir_stage_opts sink = open_stage("sink", note_as_it_is_tended);
    prove_take_first_ways(true);
    make();
    sink.workers_min = 1;
    sink.workers_max = 2;
    fed = add(sink);
    start();
    for (int i = 0; i < 100; i++)
        prove_yield(); /* all have begun */
    prove_claim(weir_pipeline_put(pipeline, fed, item_of(1), 0, WEIR_FOREVER) == WEIR_KEPT);
    prove_allocations_fail(true);
    weir_pipeline_close_input(pipeline, fed);
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_OK);
    prove_take_first_ways(true);
    prove_same(came_out[1], 1);
    prove_allocations_fail(false);
    weir_pipeline_destroy(pipeline);
}

PROVE_CASE(pipeline_ended_by_the_tender,
           "who waits for the end sees what the last worker did, if another thread ends its stage");

static void pipeline_of_two_sources(void)
{
    make();
    atomic_store_explicit(&brought, 0, memory_order_relaxed);
    see_both(source(bring_together));
}

PROVE_CASE(pipeline_of_two_sources, "who waits for the end sees what each worker of a source did");

/* Two stages that have nothing to do with each other, of two threads of the caller's. */
static void end_one(void *arg)
{
    weir_stage number = (weir_stage)(uintptr_t)arg;
    came_out[number]++;
    prove_claim(weir_pipeline_end_stage(pipeline, number) == WEIR_OK);
}

static void pipeline_of_two_ends(void)
{
    make();
    for (int i = 0; i < 2; i++) {
        weir_stage_opts opts = open_stage(i ? "b" : "a", NULL);
        opts.kind = WEIR_STAGE_EXTERNAL;
        add(opts);
    }
    start();
    int t[] = {prove_spawn(end_one, (void *)0), prove_spawn(end_one, (void *)1)};
    prove_claim(weir_pipeline_wait(pipeline, WEIR_FOREVER) == WEIR_OK);
    prove_claim(came_out[0] == 1 && came_out[1] == 1);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    weir_pipeline_destroy(pipeline);
}

PROVE_CASE(pipeline_of_two_ends, "who waits for the end sees what each stage did");

/* ---- threads of the caller's ---------------------------------------------------------------------- */

/* Nobody joins them before it is gone. */
static void pipeline_has_other_threads(void)
{
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    make();
    weir_pipeline_destroy(pipeline);
    opts.on_drop = note_drop;
    opts.start_thread = start_own;
    prove_claim(weir_pipeline_create(&pipeline, &opts) == WEIR_OK);
    n_own = 0;
    prove_let_time_stand_still();
    fed = add(open_stage("sink", take_in));
    start();
    weir_time begun = weir_now();
    weir_pipeline_destroy(pipeline);
    prove_claim(weir_now() < begun + 50 * WEIR_MILLISECOND); /* it was woken */
    join_own();
}

PROVE_CASE(pipeline_has_other_threads,
           "destroyed, no thread touches it any more, whoever started it");

/* ---- long pauses ---------------------------------------------------------------------------------- */

#define HOUR (3600 * WEIR_SECOND)

static weir_stage_opts with_long_pauses(weir_stage_opts opts)
{
    opts.attempts = 2;
    opts.backoff = (weir_backoff)WEIR_BACKOFF_INIT;
    opts.backoff.base_ns = opts.backoff.max_ns = HOUR;
    opts.backoff.jitter = WEIR_JITTER_NONE;
    return opts;
}

static void pipeline_pauses(void)
{
    bool halts = prove_pick(2) == 1;
    make();
    prove_let_time_stand_still();
    weir_time begun = weir_now();
    if (halts) {
        fed = add(with_long_pauses(open_stage("sink", fail)));
        start();
        prove_claim(weir_pipeline_put(pipeline, fed, item_of(1), 0, WEIR_FOREVER) == WEIR_KEPT);
        weir_pipeline_halt(pipeline);
    } else {
        add(with_long_pauses(source(fail)));
        start();
        weir_pipeline_stop(pipeline);
    }
    weir_pipeline_wait(pipeline, WEIR_FOREVER);
    prove_claim(weir_now() < begun + HOUR / 2);
    weir_pipeline_destroy(pipeline);
}

PROVE_CASE(pipeline_pauses, "who pauses for long is woken when it is to end");

/* ---- meter ---------------------------------------------------------------------------------------- */

static weir__meter meter;
static weir_pipeline nothing;

static void be_metered(void *arg)
{
    (void)arg;
    weir__meter_come(&meter);
    weir__wait wait = weir__wait_begin(&nothing, &meter, WEIR__IDLE, 0);
    weir__wait_end(&nothing, &meter, wait);
    weir__meter_leave(&meter);
}

static void meter_is_read_whole(void)
{
    memset(&meter, 0, sizeof meter);
    meter.doing = WEIR__ABSENT;
    weir_time begun = weir_now();
    int t = prove_spawn(be_metered, NULL);
    weir__times times;
    weir__meter_read(&meter, weir_now(), &times);
    prove_claim(times.busy_ns + times.idle_ns <= (uint64_t)(weir_now() - begun));
    prove_join(t);
    weir_time done = weir_now();
    weir__meter_read(&meter, done, &times);
    prove_claim(times.busy_ns + times.idle_ns <= (uint64_t)(done - begun));
    prove_claim(times.busy_ns > 0 && times.idle_ns > 0 && times.doing == WEIR__ABSENT);
}

PROVE_CASE(meter_is_read_whole, "no moment is counted twice, whenever somebody looks");
