/* Every sentence of <weir/pipeline.h>, seen from outside. */
#include "support.h"

#include <stdatomic.h>
#include <string.h>

#include <weir/pipeline.h>

/* ---- items are numbers; what was dropped -------------------------------------------------------- */

static struct {
    _Atomic size_t n;
    _Atomic size_t by_reason[WEIR_LOSS_REASONS + 2];
} lost;

static void note_drop(void *item, weir_stage stage, weir_loss reason, void *ctx)
{
    (void)item, (void)stage;
    must(ctx == &lost);
    must((unsigned)reason <= WEIR_LOSS_OUTPUT);
    lost.n++;
    lost.by_reason[reason]++;
}

static bool share(void *item, void **ret_item, void *ctx)
{
    (void)ctx;
    *ret_item = item;
    return true;
}

static int forget(void **state)
{
    (void)state;
    memset(&lost, 0, sizeof(lost));
    return 0;
}

static weir_pipeline *new_pipeline(void)
{
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.on_drop = note_drop;
    opts.share = share;
    opts.ctx = &lost;
    weir_pipeline *pipeline;
    must(weir_pipeline_create(&pipeline, &opts) == WEIR_OK);
    return pipeline;
}

static weir_stage_opts stage_opts(const char *name, weir_stage_fn *fn, void *ctx)
{
    weir_stage_opts opts = WEIR_STAGE_OPTS_INIT;
    opts.name = name;
    opts.fn = fn;
    opts.ctx = ctx;
    return opts;
}

static weir_stage add(weir_pipeline *pipeline, weir_stage_opts opts)
{
    weir_stage stage;
    int rc = weir_pipeline_add(pipeline, &opts, &stage);
    if (rc != WEIR_OK)
        fprintf(stderr, "%s\n", weir_pipeline_trouble(pipeline));
    must(rc == WEIR_OK);
    return stage;
}

/* Adds a stage behind `before`. */
static weir_stage append(weir_pipeline *pipeline, weir_stage before, weir_stage_opts opts)
{
    weir_stage stage = add(pipeline, opts);
    must(weir_pipeline_connect(pipeline, before, stage) == WEIR_OK);
    return stage;
}

static weir_stage_snapshot look(weir_pipeline *pipeline, weir_stage stage)
{
    weir_stage_snapshot now = WEIR_STAGE_SNAPSHOT_INIT;
    must(weir_pipeline_get_snapshot(pipeline, stage, &now) == WEIR_OK);
    return now;
}

static uint64_t all_lost(const weir_stage_snapshot *s)
{
    uint64_t sum = 0;
    for (int i = 0; i < WEIR_LOSS_REASONS; i++)
        sum += s->dropped[i];
    return sum;
}

/* Both laws, of a pipeline that has ended. */
static void check_laws(weir_pipeline *pipeline)
{
    for (weir_stage i = 0; i < weir_pipeline_stages(pipeline); i++) {
        weir_stage_snapshot s = look(pipeline, i);
        must(s.ended && s.in_hand == 0 && s.depth == 0);
        if (s.queue > 0)
            must(s.accepted == s.processed + s.failed + all_lost(&s));
    }
}

static void start(weir_pipeline *pipeline)
{
    int rc = weir_pipeline_start(pipeline);
    if (rc != WEIR_OK)
        fprintf(stderr, "%s\n", weir_pipeline_trouble(pipeline));
    must(rc == WEIR_OK);
}

static void end_well(weir_pipeline *pipeline)
{
    must(weir_pipeline_wait(pipeline, weir_after(PATIENCE)) == WEIR_OK);
    check_laws(pipeline);
    weir_pipeline_destroy(pipeline);
}

/* ---- functions of stages ---------------------------------------------------------------------- */

typedef struct numbers {
    _Atomic uintptr_t next;
    uintptr_t end;
} numbers;

/* Emits next, next + 1, ... end - 1. */
static int count_up(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    numbers *it = ctx;
    must(n == 0 && !items);
    if (it->next == it->end)
        return WEIR_END;
    weir_emit(run, number(it->next++), 1);
    return WEIR_MORE;
}

static int never_ends(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)items, (void)n;
    numbers *it = ctx;
    weir_emit(run, number(it->next++), 1);
    return WEIR_MORE;
}

static int add_1000(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx;
    for (size_t i = 0; i < n; i++)
        weir_emit(run, number((uintptr_t)items[i] + 1000), 1);
    return 0;
}

typedef struct sink {
    pthread_mutex_t mutex;
    _Atomic size_t n;
    uintptr_t sum, got[10000];
    _Atomic bool closed; /* waits while it is */
    _Atomic unsigned inside, peak;
    int64_t pause_ns;
    size_t largest_batch;
} sink;

#define SINK {.mutex = PTHREAD_MUTEX_INITIALIZER}

static void pause_ns(int64_t ns)
{
    nanosleep(&(struct timespec){ns / WEIR_SECOND, ns % WEIR_SECOND}, NULL);
}

static int collect(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    sink *s = ctx;
    unsigned inside = ++s->inside;
    soon(!s->closed || weir_run_is_halted(run));
    if (s->pause_ns)
        pause_ns(s->pause_ns);
    pthread_mutex_lock(&s->mutex);
    s->peak = inside > s->peak ? inside : s->peak;
    s->largest_batch = n > s->largest_batch ? n : s->largest_batch;
    for (size_t i = 0; i < n; i++) {
        if (s->n < 10000)
            s->got[s->n] = (uintptr_t)items[i];
        s->n++;
        s->sum += (uintptr_t)items[i];
    }
    pthread_mutex_unlock(&s->mutex);
    s->inside--;
    return 0;
}

static bool in_order(const sink *s)
{
    for (size_t i = 1; i < s->n; i++)
        if (s->got[i] < s->got[i - 1])
            return false;
    return true;
}

static weir_stage add_source(weir_pipeline *pipeline, numbers *it)
{
    weir_stage_opts opts = stage_opts("source", count_up, it);
    opts.source = true;
    return add(pipeline, opts);
}

/* ---- the straight way ------------------------------------------------------------------------- */

static void items_pass_all_stages_in_order(void **state)
{
    (void)state;
    numbers it = {0, 1000};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage at = add_source(p, &it);
    weir_stage first = at = append(p, at, stage_opts("first", add_1000, NULL));
    at = append(p, at, stage_opts("second", add_1000, NULL));
    weir_stage last = append(p, at, stage_opts("sink", collect, &out));
    start(p);
    assert_int_equal(weir_pipeline_wait(p, weir_after(PATIENCE)), WEIR_OK);
    weir_stage_snapshot s = look(p, first), e = look(p, last);
    assert_int_equal(s.accepted, 1000);
    assert_int_equal(s.emitted, 1000);
    assert_int_equal(e.processed, 1000);
    assert_true(s.peak_depth <= s.queue);
    end_well(p);
    assert_int_equal(out.n, 1000);
    assert_true(in_order(&out));
    assert_int_equal(out.got[0], 2000);
    assert_int_equal(lost.n, 0);
}

static void an_inline_stage_runs_in_the_stage_before_it(void **state)
{
    (void)state;
    numbers it = {0, 500};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage at = add_source(p, &it);
    weir_stage_opts opts = stage_opts("inline", add_1000, NULL);
    opts.kind = WEIR_STAGE_INLINE;
    weir_stage in = at = append(p, at, opts);
    append(p, at, stage_opts("sink", collect, &out));
    start(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    weir_stage_snapshot s = look(p, in);
    assert_int_equal(s.accepted, 500);
    assert_int_equal(s.processed, 500);
    assert_int_equal(s.emitted, 500);
    assert_int_equal(s.queue, 0);
    end_well(p);
    assert_int_equal(out.n, 500);
}

static void an_ordered_stage_keeps_the_order_of_several_workers(void **state)
{
    (void)state;
    numbers it = {0, 3000};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage at = add_source(p, &it);
    weir_stage_opts opts = stage_opts("four", add_1000, NULL);
    opts.workers = 4;
    opts.ordered = true;
    at = append(p, at, opts);
    append(p, at, stage_opts("sink", collect, &out));
    start(p);
    end_well(p);
    assert_int_equal(out.n, 3000);
    assert_true(in_order(&out));
}

static void several_workers_work_at_a_time(void **state)
{
    (void)state;
    numbers it = {0, 40};
    sink out = SINK;
    out.closed = true;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("sink", collect, &out);
    opts.workers = 3;
    append(p, add_source(p, &it), opts);
    start(p);
    soon(out.inside == 3);
    out.closed = false;
    end_well(p);
    assert_int_equal(out.peak, 3);
}

static void a_batch_is_as_many_as_are_there_up_to_its_size(void **state)
{
    (void)state;
    numbers it = {0, 100};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("sink", collect, &out);
    opts.batch = 7;
    opts.linger_ns = 20 * WEIR_SECOND;
    append(p, add_source(p, &it), opts);
    start(p);
    end_well(p);
    assert_int_equal(out.n, 100);
    assert_int_equal(out.largest_batch, 7);
}

/* ---- the bound, and policies ------------------------------------------------------------------ */

static void a_stage_holds_its_queue_and_one_item_per_worker(void **state)
{
    (void)state;
    numbers it = {0, 1000};
    sink out = SINK;
    out.closed = true;
    weir_pipeline *p = new_pipeline();
    weir_stage source = add_source(p, &it);
    weir_stage_opts opts = stage_opts("sink", collect, &out);
    opts.queue = 5;
    opts.workers = 2;
    weir_stage s = append(p, source, opts);
    start(p);
    soon(look(p, s).waits > 0 && look(p, s).in_hand == 2 && look(p, s).depth == 5 && it.next == 8);
    weir_stage_snapshot now = look(p, s);
    assert_int_equal(now.depth, 5);
    assert_int_equal(now.in_hand, 2);
    assert_int_equal(it.next, 8); /* and one in the hands of the source */
    out.closed = false;
    end_well(p);
    assert_int_equal(out.n, 1000);
}

static void what_finds_no_room_in_time_is_dropped_and_counted(void **state)
{
    (void)state;
    numbers it = {0, 10};
    sink out = SINK;
    out.closed = true;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("sink", collect, &out);
    opts.queue = 2;
    opts.put_timeout_ns = WEIR_MILLISECOND;
    weir_stage s = append(p, add_source(p, &it), opts);
    start(p);
    soon(look(p, s).dropped[WEIR_LOSS_TIMEOUT] == 7);
    out.closed = false;
    end_well(p);
    assert_int_equal(out.n, 3);
    assert_int_equal(lost.by_reason[WEIR_LOSS_TIMEOUT], 7);
}

static void each_policy_is_that_of_the_queue(void **state)
{
    (void)state;
    static const struct {
        weir_overflow overflow;
        weir_loss reason;
        uintptr_t last;
    } cases[] = {
        {WEIR_OVERFLOW_FAIL, WEIR_LOSS_REFUSED, 2},
        {WEIR_OVERFLOW_DROP_NEWEST, WEIR_LOSS_NEWEST, 2},
        {WEIR_OVERFLOW_DROP_OLDEST, WEIR_LOSS_OLDEST, 99},
    };
    for (size_t i = 0; i < 3; i++) {
        forget(NULL);
        numbers it = {0, 100};
        sink out = SINK;
        out.closed = true;
        weir_pipeline *p = new_pipeline();
        weir_stage_opts opts = stage_opts("sink", collect, &out);
        opts.queue = 2;
        opts.overflow = cases[i].overflow;
        weir_stage s = append(p, add_source(p, &it), opts);
        start(p);
        soon(it.next == 100 && look(p, 0).ended);
        weir_stage_snapshot now = look(p, s);
        must(now.accepted == 100);
        must(now.dropped[cases[i].reason] >= 97);
        out.closed = false;
        end_well(p);
        must(out.n + lost.by_reason[cases[i].reason] == 100);
        must(cases[i].last != 99 || out.got[out.n - 1] == 99);
    }
}

typedef struct told {
    _Atomic size_t dropped;
    _Atomic bool is_done;
} told;

static int emit_ten(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)items, (void)n;
    told *t = ctx;
    void *ten[10] = {0};
    t->dropped = weir_emit_many(run, ten, NULL, 10);
    t->is_done = true;
    return WEIR_END;
}

static void who_emits_many_is_told_how_many_were_dropped(void **state)
{
    (void)state;
    static const weir_overflow policies[] = {WEIR_OVERFLOW_FAIL, WEIR_OVERFLOW_DROP_NEWEST,
                                             WEIR_OVERFLOW_SAMPLE};
    for (size_t i = 0; i < 3; i++) {
        forget(NULL);
        told t = {0};
        sink out = SINK;
        out.closed = true;
        weir_pipeline *p = new_pipeline();
        weir_stage_opts source = stage_opts("source", emit_ten, &t), opts;
        source.source = true;
        opts = stage_opts("sink", collect, &out);
        opts.queue = 4;
        opts.overflow = policies[i];
        append(p, add(p, source), opts);
        start(p);
        soon(t.is_done);
        must(t.dropped >= 5); /* one may be in hand */
        must(t.dropped == lost.n);
        out.closed = false;
        end_well(p);
    }
}

/* ---- fans -------------------------------------------------------------------------------------- */

static uint64_t by_value(void *item, void *ctx)
{
    (void)ctx;
    return (uintptr_t)item % 5;
}

static void fan(weir_route route, sink outs[3])
{
    static const char *const names[] = {"a", "b", "c"};
    numbers it = {0, 300};
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("source", count_up, &it);
    opts.source = true;
    opts.route = route;
    opts.key = by_value;
    weir_stage source = add(p, opts);
    for (int i = 0; i < 3; i++)
        append(p, source, stage_opts(names[i], collect, &outs[i]));
    start(p);
    end_well(p);
}

static void a_broadcast_goes_to_all(void **state)
{
    (void)state;
    sink outs[3] = {SINK, SINK, SINK};
    fan(WEIR_ROUTE_BROADCAST, outs);
    for (int i = 0; i < 3; i++)
        assert_int_equal(outs[i].n, 300);
}

static void round_robin_goes_to_each_in_turn(void **state)
{
    (void)state;
    sink outs[3] = {SINK, SINK, SINK};
    fan(WEIR_ROUTE_ROUND_ROBIN, outs);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(outs[i].n, 100);
        assert_int_equal(outs[i].got[1], outs[i].got[0] + 3);
    }
}

static void items_of_one_key_go_one_way_in_order(void **state)
{
    (void)state;
    sink outs[3] = {SINK, SINK, SINK};
    fan(WEIR_ROUTE_KEY, outs);
    assert_int_equal(outs[0].n + outs[1].n + outs[2].n, 300);
    for (int i = 0; i < 3; i++) {
        assert_true(in_order(&outs[i]));
        for (size_t j = 0; j < outs[i].n; j++)
            assert_int_equal(outs[i].got[j] % 5 % 3, i);
    }
}

static void several_stages_may_feed_one(void **state)
{
    (void)state;
    numbers a = {0, 100}, b = {0, 100};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("other", count_up, &b);
    opts.source = true;
    weir_stage second = add(p, opts);
    weir_stage s = append(p, add_source(p, &a), stage_opts("sink", collect, &out));
    must(weir_pipeline_connect(p, second, s) == WEIR_OK);
    start(p);
    end_well(p);
    assert_int_equal(out.n, 200);
}

/* ---- errors ------------------------------------------------------------------------------------ */

typedef struct faulty {
    _Atomic unsigned calls, told;
    unsigned fail_first; /* calls of each item */
} faulty;

static int fail_odd(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    faulty *f = ctx;
    f->calls++;
    if (n == 1 && (uintptr_t)items[0] % 2 == 1 && run->attempt < f->fail_first)
        return WEIR_ESYSTEM;
    return add_1000(NULL, items, n, run);
}

static void note_failure(void *ctx, void *const *items, size_t n, int error)
{
    faulty *f = ctx;
    must(n == 1 && (uintptr_t)items[0] % 2 == 1 && error == WEIR_ESYSTEM);
    f->told++;
}

static void what_fails_is_skipped_and_counted(void **state)
{
    (void)state;
    numbers it = {0, 100};
    sink out = SINK;
    faulty f = {.fail_first = 1000};
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("faulty", fail_odd, &f);
    opts.on_error = WEIR_ON_ERROR_SKIP;
    opts.on_failure = note_failure;
    weir_stage s = append(p, add_source(p, &it), opts);
    append(p, s, stage_opts("sink", collect, &out));
    start(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    assert_int_equal(look(p, s).failed, 50);
    end_well(p);
    assert_int_equal(out.n, 50);
    assert_int_equal(f.told, 50);
    assert_int_equal(lost.by_reason[WEIR_LOSS_FAILED], 50);
}

static void what_fails_is_tried_again(void **state)
{
    (void)state;
    numbers it = {0, 100};
    sink out = SINK;
    faulty f = {.fail_first = 2};
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("faulty", fail_odd, &f);
    opts.attempts = 3;
    opts.backoff = (weir_backoff)WEIR_BACKOFF_INIT;
    opts.backoff.base_ns = opts.backoff.max_ns = 1000;
    weir_stage s = append(p, add_source(p, &it), opts);
    append(p, s, stage_opts("sink", collect, &out));
    start(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    assert_int_equal(look(p, s).failed, 0);
    assert_int_equal(look(p, s).retried, 100);
    end_well(p);
    assert_int_equal(out.n, 100);
}

static void what_fails_goes_to_the_stage_for_dead_letters(void **state)
{
    (void)state;
    numbers it = {0, 100};
    sink out = SINK, dead = SINK;
    faulty f = {.fail_first = 1000};
    weir_pipeline *p = new_pipeline();
    weir_stage letters = add(p, stage_opts("dead", collect, &dead));
    weir_stage_opts opts = stage_opts("faulty", fail_odd, &f);
    opts.on_error = WEIR_ON_ERROR_DEAD_LETTER;
    opts.dead_letter = letters;
    weir_stage s = append(p, add_source(p, &it), opts);
    append(p, s, stage_opts("sink", collect, &out));
    start(p);
    end_well(p);
    assert_int_equal(out.n, 50);
    assert_int_equal(dead.n, 50);
    assert_int_equal(dead.sum, 50 * 50);
    assert_int_equal(lost.n, 0);
}

static void a_failure_halts_the_pipeline(void **state)
{
    (void)state;
    numbers it = {0, 0};
    sink out = SINK;
    faulty f = {.fail_first = 1000};
    weir_pipeline *p = new_pipeline();
    weir_stage_opts source = stage_opts("source", never_ends, &it);
    source.source = true;
    weir_stage s = append(p, add(p, source), stage_opts("faulty", fail_odd, &f));
    append(p, s, stage_opts("sink", collect, &out));
    start(p);
    assert_int_equal(weir_pipeline_wait(p, weir_after(PATIENCE)), WEIR_ESYSTEM);
    check_laws(p);
    assert_int_equal(lost.by_reason[WEIR_LOSS_FAILED], 1);
    weir_pipeline_destroy(p);
}

/* ---- limits ------------------------------------------------------------------------------------ */

static void a_stage_keeps_its_limits(void **state)
{
    (void)state;
    numbers it = {0, 30};
    sink out = SINK;
    out.pause_ns = WEIR_MILLISECOND;
    weir_limit_opts limit_opts = WEIR_LIMIT_OPTS_INIT;
    limit_opts.limit = 2;
    weir_limit *limit;
    must(weir_limit_create(&limit, &limit_opts) == WEIR_OK);
    weir_rate_opts rate_opts = WEIR_RATE_OPTS_INIT;
    rate_opts.rate = 500;
    rate_opts.burst = 1;
    weir_rate *rate;
    must(weir_rate_create(&rate, &rate_opts) == WEIR_OK);
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("sink", collect, &out);
    opts.workers = 4;
    opts.limit = limit;
    opts.rate = rate;
    weir_stage s = append(p, add_source(p, &it), opts);
    weir_time began = weir_now();
    start(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    assert_true(weir_now() - began >= 29 * 2 * WEIR_MILLISECOND);
    assert_true(look(p, s).held_ns[WEIR_CAUSE_RATE] > 0);
    weir_verdict verdict = WEIR_VERDICT_INIT;
    must(weir_pipeline_get_verdict(p, &verdict) == WEIR_OK);
    assert_int_equal(verdict.stage, s);
    assert_int_equal(verdict.cause, WEIR_CAUSE_RATE);
    end_well(p);
    assert_true(out.peak <= 2);
    weir_limit_destroy(limit);
    weir_rate_destroy(rate);
}

static weir_rate *new_rate(uint64_t tokens, int64_t per_ns)
{
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    opts.rate = tokens;
    opts.per_ns = per_ns;
    opts.burst = 1;
    weir_rate *rate;
    must(weir_rate_create(&rate, &opts) == WEIR_OK);
    return rate;
}

static int count_asks(void *ctx)
{
    ++*(unsigned *)ctx;
    return 0;
}

static void a_limit_gives_the_interruption_hook_back_to_who_waited_for_it(void **state)
{
    (void)state;
    sink out = SINK;
    weir_rate *rate = new_rate(1, 20 * WEIR_MILLISECOND);
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("outside", NULL, NULL);
    opts.kind = WEIR_STAGE_EXTERNAL;
    opts.open = true;
    weir_stage s = add(p, opts);
    opts = stage_opts("inline", collect, &out);
    opts.kind = WEIR_STAGE_INLINE;
    opts.rate = rate;
    append(p, s, opts);
    start(p);
    unsigned asked = 0;
    weir_set_interrupt(count_asks, &asked);
    for (uintptr_t i = 0; i < 3; i++)
        must(weir_pipeline_emit(p, s, number(i), 0) == WEIR_KEPT);
    asked = 0;
    void *item;
    int64_t wait_ns = 200 * WEIR_MILLISECOND;
    must(weir_queue_get(weir_pipeline_queue(p, s), &item, weir_after(wait_ns)) == WEIR_ETIMEDOUT);
    weir_set_interrupt(NULL, NULL);
    assert_true(asked > 0);
    must(weir_pipeline_end_stage(p, s) == WEIR_OK);
    end_well(p);
    assert_int_equal(out.n, 3);
    weir_rate_destroy(rate);
}

static void a_call_that_no_limit_let_in_is_none_to_the_breaker(void **state)
{
    (void)state;
    numbers it = {0, 50};
    sink out = SINK;
    weir_limit_opts limit_opts = WEIR_LIMIT_OPTS_INIT;
    limit_opts.limit = 1;
    weir_limit *limit;
    must(weir_limit_create(&limit, &limit_opts) == WEIR_OK);
    weir_limit_close(limit);
    weir_breaker_opts breaker_opts = WEIR_BREAKER_OPTS_INIT;
    weir_breaker *breaker;
    must(weir_breaker_create(&breaker, &breaker_opts) == WEIR_OK);
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("sink", collect, &out);
    opts.limit = limit;
    opts.breaker = breaker;
    opts.on_error = WEIR_ON_ERROR_SKIP;
    append(p, add_source(p, &it), opts);
    start(p);
    end_well(p);
    assert_int_equal(lost.by_reason[WEIR_LOSS_FAILED], 50);
    weir_breaker_snapshot now = WEIR_BREAKER_SNAPSHOT_INIT;
    must(weir_breaker_get_snapshot(breaker, &now) == WEIR_OK);
    assert_int_equal(now.failed, 0);
    assert_int_equal(now.ignored, 50);
    weir_breaker_destroy(breaker);
    weir_limit_destroy(limit);
}

/* Held by a limit that does not let it in: let go on, or halted, it ends. */
static void end_held(weir_pipeline *p, bool halts, const sink *out)
{
    if (!halts) {
        end_well(p);
        assert_int_equal(out->n, 3);
        return;
    }
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    check_laws(p);
    weir_pipeline_destroy(p);
    assert_int_equal(out->n, 0);
    assert_int_equal(lost.by_reason[WEIR_LOSS_FAILED], 0); /* no call was made */
    assert_true(lost.by_reason[WEIR_LOSS_DISCARDED] > 0);
}

static void a_stage_waits_until_its_breaker_lets_it_in_and_says_so(void **state)
{
    (void)state;
    for (int halts = 0; halts < 2; halts++) {
        numbers it = {0, 3};
        sink out = SINK;
        weir_breaker_opts breaker_opts = WEIR_BREAKER_OPTS_INIT;
        weir_breaker *breaker;
        must(weir_breaker_create(&breaker, &breaker_opts) == WEIR_OK);
        must(weir_breaker_isolate(breaker) == WEIR_OK);
        weir_pipeline *p = new_pipeline();
        weir_stage_opts opts = stage_opts("sink", collect, &out);
        opts.breaker = breaker;
        weir_stage s = append(p, add_source(p, &it), opts);
        start(p);
        soon(look(p, s).held_ns[WEIR_CAUSE_BREAKER] > 0);
        if (halts)
            weir_pipeline_halt(p);
        else
            must(weir_breaker_reset(breaker) == WEIR_OK);
        end_held(p, halts, &out);
        weir_breaker_destroy(breaker);
    }
}

/* Whose callers are sent away when they would have to wait: whatever is in use is too much. */
static weir_governor *new_short_governor(uint64_t limit_bytes)
{
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    opts.limit_bytes = limit_bytes;
    opts.slow_at = 1e-12;
    opts.pause_at = 2e-12;
    opts.shed_at = 3e-12;
    weir_governor *governor;
    must(weir_governor_create(&governor, &opts) == WEIR_OK);
    must(weir_governor_reserve(governor, limit_bytes, WEIR_POLL) == WEIR_OK);
    must(weir_governor_sample(governor) == WEIR_MEMORY_SHED);
    return governor;
}

static void a_stage_waits_out_what_others_are_sent_away_for_and_says_so(void **state)
{
    (void)state;
    enum { BYTES = 1000 };
    for (int halts = 0; halts < 2; halts++) {
        numbers it = {0, 3};
        sink out = SINK;
        weir_governor *governor = new_short_governor(BYTES);
        weir_pipeline *p = new_pipeline();
        weir_stage_opts opts = stage_opts("sink", collect, &out);
        opts.governor = governor;
        opts.governor_bytes = BYTES;
        weir_stage s = append(p, add_source(p, &it), opts);
        start(p);
        soon(look(p, s).held_ns[WEIR_CAUSE_MEMORY] > 0);
        if (halts)
            weir_pipeline_halt(p);
        else
            weir_governor_release(governor, BYTES);
        end_held(p, halts, &out);
        weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
        weir_governor_get_snapshot(governor, &now);
        assert_int_equal(now.reserved, halts ? BYTES : 0);
        weir_governor_destroy(governor);
    }
}

/* ---- ending ------------------------------------------------------------------------------------ */

static void a_pipeline_starts_once_and_is_then_as_it_is(void **state)
{
    (void)state;
    numbers it = {0, 10};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage source = add_source(p, &it),
               s = append(p, source, stage_opts("sink", collect, &out));
    start(p);
    assert_int_equal(weir_pipeline_start(p), WEIR_EINVAL);
    assert_string_equal(weir_pipeline_trouble(p), "the pipeline has started");
    assert_int_equal(weir_pipeline_connect(p, source, s), WEIR_EINVAL);
    weir_stage_opts opts = stage_opts("late", collect, &out);
    assert_int_equal(weir_pipeline_add(p, &opts, &s), WEIR_EINVAL);
    end_well(p);
    weir_pipeline_destroy(NULL);
    assert_int_equal(out.n, 10);
}

static void a_stop_lets_through_what_is_inside(void **state)
{
    (void)state;
    numbers it = {0, 0};
    sink out = SINK;
    out.closed = true;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts source = stage_opts("source", never_ends, &it);
    source.source = true;
    weir_stage s = append(p, add(p, source), stage_opts("work", add_1000, NULL));
    append(p, s, stage_opts("sink", collect, &out));
    start(p);
    soon(look(p, s).waits > 0);
    weir_pipeline_stop(p);
    out.closed = false;
    end_well(p);
    assert_int_equal(out.n, it.next);
    assert_int_equal(lost.n, 0);
}

static void a_halt_drops_what_is_inside(void **state)
{
    (void)state;
    numbers it = {0, 0};
    sink out = SINK;
    out.closed = true;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts source = stage_opts("source", never_ends, &it);
    source.source = true;
    weir_stage s = append(p, add(p, source), stage_opts("work", add_1000, NULL));
    append(p, s, stage_opts("sink", collect, &out));
    start(p);
    soon(out.inside == 1 && look(p, s).waits > 0);
    weir_pipeline_halt(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    check_laws(p);
    weir_pipeline_destroy(p);
    assert_int_equal(out.n, 1);
    assert_int_equal(lost.by_reason[WEIR_LOSS_DISCARDED], it.next - 1);
}

static int emit_when_halted(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)n;
    soon(weir_run_is_halted(run));
    weir_emit(run, items[0], 0);
    return 0;
}

static void a_halted_pipeline_begins_no_call(void **state)
{
    (void)state;
    numbers it = {0, 1};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage s = append(p, add_source(p, &it), stage_opts("host", emit_when_halted, NULL));
    weir_stage_opts opts = stage_opts("inline", collect, &out);
    opts.kind = WEIR_STAGE_INLINE;
    append(p, s, opts);
    start(p);
    soon(look(p, s).in_hand == 1);
    weir_pipeline_halt(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    check_laws(p);
    weir_pipeline_destroy(p);
    assert_int_equal(out.n, 0);
    assert_int_equal(lost.by_reason[WEIR_LOSS_DISCARDED], 1);
}

static void drop_slowly(void *item, weir_stage stage, weir_loss reason, void *ctx)
{
    pause_ns(WEIR_MILLISECOND);
    note_drop(item, stage, reason, ctx);
}

static void a_halt_drops_what_is_inside_the_last_stages_too(void **state)
{
    (void)state;
    numbers it = {0, 0};
    sink out = SINK;
    out.closed = true;
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.on_drop = drop_slowly; /* who halts needs long for the stages before */
    opts.ctx = &lost;
    weir_pipeline *p;
    must(weir_pipeline_create(&p, &opts) == WEIR_OK);
    weir_stage_opts source = stage_opts("source", never_ends, &it);
    source.source = true;
    weir_stage s = append(p, add(p, source), stage_opts("work", add_1000, NULL));
    append(p, s, stage_opts("sink", collect, &out));
    start(p);
    soon(out.inside == 1 && look(p, s).waits > 0);
    weir_pipeline_halt(p);
    end_well(p);
    assert_int_equal(out.n, 1);
    assert_int_equal(lost.by_reason[WEIR_LOSS_DISCARDED], it.next - 1);
}

static int fail_when_halted(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)items, (void)n;
    *(_Atomic bool *)ctx = true; /* has come */
    soon(weir_run_is_halted(run));
    return WEIR_ESYSTEM;
}

static void a_call_that_fails_after_a_halt_has_not_halted_it(void **state)
{
    (void)state;
    numbers it = {0, 10};
    _Atomic bool has_come = false;
    weir_pipeline *p = new_pipeline();
    weir_stage s =
        append(p, add_source(p, &it), stage_opts("sink", fail_when_halted, (void *)&has_come));
    start(p);
    soon(has_come);
    weir_pipeline_halt(p);
    assert_int_equal(weir_pipeline_wait(p, weir_after(PATIENCE)), WEIR_OK);
    assert_int_equal(look(p, s).failed, 1);
    end_well(p);
}

static int hang(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)items, (void)n;
    _Atomic bool *go_on = ctx;
    go_on[1] = true; /* has come */
    soon(*go_on);
    weir_emit(run, number(7), 0);
    return WEIR_MORE;
}

static void a_source_that_hangs_does_not_hold_up_the_end(void **state)
{
    (void)state;
    _Atomic bool go_on[2] = {false, false};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts source = stage_opts("source", hang, (void *)go_on);
    source.source = true;
    append(p, add(p, source), stage_opts("sink", collect, &out));
    start(p);
    soon(go_on[1]);
    weir_pipeline_stop(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    go_on[0] = true;
    soon(look(p, 1).dropped[WEIR_LOSS_DISCARDED] == 1);
    check_laws(p);
    weir_pipeline_destroy(p);
    assert_int_equal(out.n, 0);
}

static void destroying_one_that_runs_halts_it(void **state)
{
    (void)state;
    numbers it = {0, 0};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts source = stage_opts("source", never_ends, &it);
    source.source = true;
    append(p, add(p, source), stage_opts("sink", collect, &out));
    start(p);
    soon(out.n > 100);
    weir_pipeline_destroy(p);
    assert_int_equal(out.n + lost.n, it.next);
}

#define HOURS (3600 * WEIR_SECOND)

static void a_stopped_source_does_not_wait_for_its_limits(void **state)
{
    (void)state;
    numbers it = {0, 0};
    sink out = SINK;
    weir_rate *rate = new_rate(1, 10 * HOURS);
    weir_pipeline *p = new_pipeline();
    weir_stage_opts source = stage_opts("source", never_ends, &it);
    source.source = true;
    source.rate = rate;
    append(p, add(p, source), stage_opts("sink", collect, &out));
    start(p);
    soon(out.n == 1 && look(p, 0).held_ns[WEIR_CAUSE_RATE] > 0);
    weir_pipeline_stop(p);
    end_well(p);
    assert_int_equal(it.next, 1); /* nor was it asked again */
    weir_rate_destroy(rate);
}

static int fails(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)items, (void)n, (void)run;
    ++*(_Atomic unsigned *)ctx;
    return WEIR_ESYSTEM;
}

static void a_stopped_source_is_not_tried_again(void **state)
{
    (void)state;
    _Atomic unsigned calls = 0;
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts source = stage_opts("source", fails, (void *)&calls);
    source.source = true;
    source.attempts = 2;
    source.backoff = (weir_backoff)WEIR_BACKOFF_INIT;
    source.backoff.base_ns = source.backoff.max_ns = 10 * HOURS;
    source.backoff.jitter = WEIR_JITTER_NONE;
    append(p, add(p, source), stage_opts("sink", collect, &out));
    start(p);
    soon(look(p, 0).held_ns[WEIR_CAUSE_RETRY] > 0);
    weir_pipeline_stop(p);
    end_well(p);
    assert_int_equal(calls, 1);
}

static int emit_and_hang(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    _Atomic bool *go_on = ctx;
    for (int i = 0; i < 30; i++)
        weir_emit(run, number(1), 0);
    return hang((void *)go_on, items, n, run);
}

static void a_source_that_hangs_after_it_waited_is_given_up_too(void **state)
{
    (void)state;
    _Atomic bool go_on[2] = {false, false};
    sink out = SINK;
    out.closed = true;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts source = stage_opts("source", emit_and_hang, (void *)go_on);
    source.source = true;
    append(p, add(p, source), stage_opts("sink", collect, &out));
    start(p);
    soon(look(p, 1).waits > 0);
    weir_pipeline_stop(p);
    out.closed = false;
    must(weir_pipeline_wait(p, weir_after(PATIENCE / 2)) == WEIR_OK);
    go_on[0] = true;
    soon(look(p, 1).dropped[WEIR_LOSS_DISCARDED] == 1);
    check_laws(p);
    weir_pipeline_destroy(p);
    assert_int_equal(out.n, 30);
}

/* ---- puts from outside ------------------------------------------------------------------------- */

static void an_open_stage_is_fed_from_outside(void **state)
{
    (void)state;
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("sink", collect, &out);
    opts.open = true;
    opts.queue = 4;
    weir_stage s = add(p, opts);
    start(p);
    for (uintptr_t i = 0; i < 1000; i++)
        must(weir_pipeline_put(p, s, number(i), 0, WEIR_FOREVER) == WEIR_KEPT);
    must(weir_pipeline_wait(p, WEIR_POLL) == WEIR_ETIMEDOUT);
    must(weir_pipeline_close_input(p, s) == WEIR_OK);
    must(weir_pipeline_put(p, s, number(1), 0, WEIR_FOREVER) == WEIR_ECLOSED);
    end_well(p);
    assert_int_equal(out.n, 1000);
}

typedef struct feeder {
    weir_pipeline *pipeline;
    weir_stage target;
    _Atomic int refused;
} feeder;

static int feed_back(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)n, (void)run;
    feeder *f = ctx;
    for (int i = 0; i < 3; i++) {
        int rc = weir_pipeline_put(f->pipeline, f->target, items[0], 0, WEIR_FOREVER);
        if (rc == WEIR_EDEADLK)
            f->refused++;
        else
            must(rc == WEIR_KEPT || rc == WEIR_ECLOSED);
    }
    return 0;
}

static void a_stage_that_feeds_itself_is_told_when_it_would_wait(void **state)
{
    (void)state;
    feeder f = {0};
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("first", add_1000, NULL);
    opts.open = true;
    opts.queue = 2;
    f.pipeline = p;
    f.target = add(p, opts);
    append(p, f.target, stage_opts("second", feed_back, &f));
    start(p);
    must(weir_pipeline_put(p, f.target, number(1), 0, WEIR_FOREVER) == WEIR_KEPT);
    soon(f.refused > 0);
    weir_pipeline_halt(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    check_laws(p);
    weir_pipeline_destroy(p);
}

/* ---- external stages --------------------------------------------------------------------------- */

static void an_external_stage_is_run_by_its_caller(void **state)
{
    (void)state;
    numbers it = {0, 100};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("outside", NULL, NULL);
    opts.kind = WEIR_STAGE_EXTERNAL;
    weir_stage s = append(p, add_source(p, &it), opts);
    append(p, s, stage_opts("sink", collect, &out));
    start(p);
    void *item;
    while (weir_queue_get(weir_pipeline_queue(p, s), &item, WEIR_FOREVER) == WEIR_OK) {
        must(weir_pipeline_emit(p, s, item, 0) == WEIR_KEPT);
        weir_work work = WEIR_WORK_INIT;
        work.processed = 1;
        work.workers = 1;
        must(weir_pipeline_report(p, s, &work) == WEIR_OK);
    }
    must(weir_pipeline_wait(p, WEIR_POLL) == WEIR_ETIMEDOUT);
    must(weir_pipeline_end_stage(p, s) == WEIR_OK);
    end_well(p);
    assert_int_equal(out.n, 100);
}

/* ---- building ---------------------------------------------------------------------------------- */

static void a_cycle_is_refused_and_named(void **state)
{
    (void)state;
    numbers it = {0, 10};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage source = add_source(p, &it);
    weir_stage a = append(p, source, stage_opts("clean", add_1000, NULL));
    weir_stage b = append(p, a, stage_opts("enrich", add_1000, NULL));
    append(p, b, stage_opts("sink", collect, &out));
    must(weir_pipeline_connect(p, b, a) == WEIR_OK);
    assert_int_equal(weir_pipeline_start(p), WEIR_EDEADLK);
    assert_non_null(strstr(weir_pipeline_trouble(p), "clean -> enrich -> clean"));
    weir_pipeline_destroy(p);
}

static void a_cycle_of_dead_letters_is_one(void **state)
{
    (void)state;
    numbers it = {0, 10};
    weir_pipeline *p = new_pipeline();
    weir_stage first = append(p, add_source(p, &it), stage_opts("first", add_1000, NULL));
    weir_stage_opts opts = stage_opts("second", add_1000, NULL);
    opts.on_error = WEIR_ON_ERROR_DEAD_LETTER;
    opts.dead_letter = first;
    append(p, first, opts);
    assert_int_equal(weir_pipeline_start(p), WEIR_EDEADLK);
    weir_pipeline_destroy(p);
}

static void what_nothing_feeds_is_refused_and_can_be_put_right(void **state)
{
    (void)state;
    numbers it = {0, 10};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage source = add_source(p, &it);
    weir_stage s = add(p, stage_opts("sink", collect, &out));
    assert_int_equal(weir_pipeline_start(p), WEIR_EINVAL);
    assert_non_null(strstr(weir_pipeline_trouble(p), "'sink'"));
    must(weir_pipeline_connect(p, source, s) == WEIR_OK);
    start(p);
    end_well(p);
    assert_int_equal(out.n, 10);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    weir_pipeline *p = new_pipeline();
    weir_stage stage;
    weir_stage_opts good = stage_opts("good", add_1000, NULL), bad;
#define REFUSED(change)                                                                            \
    bad = good;                                                                                    \
    change;                                                                                        \
    assert_int_equal(weir_pipeline_add(p, &bad, &stage), WEIR_EINVAL);                             \
    assert_true(strlen(weir_pipeline_trouble(p)) > 0)
    REFUSED(bad.name = NULL);
    REFUSED(bad.fn = NULL);
    REFUSED(bad.size = 3);
    REFUSED(bad.workers_max = 2; bad.workers_min = 3);
    REFUSED(bad.workers = 5; bad.workers_max = 4);
    REFUSED(bad.batch = 1 << 20);
    REFUSED(bad.route = WEIR_ROUTE_KEY);
    REFUSED(bad.on_error = WEIR_ON_ERROR_DEAD_LETTER; bad.dead_letter = 9);
    REFUSED(bad.kind = WEIR_STAGE_INLINE; bad.workers = 2);
    REFUSED(bad.source = true; bad.open = true);
    REFUSED(bad.linger_ns = -1);
    REFUSED(bad.overflow = (weir_overflow)99);
    weir_stage_opts source = stage_opts("source", never_ends, NULL);
    source.source = true;
    must(weir_pipeline_add(p, &source, &stage) == WEIR_OK);
    REFUSED(bad.on_error = WEIR_ON_ERROR_DEAD_LETTER; bad.dead_letter = stage);
    weir_pipeline_destroy(p);
    p = new_pipeline();
    weir_spill *nowhere = (weir_spill *)&p; /* is not looked at */
    bad = good;
    bad.overflow = WEIR_OVERFLOW_SPILL;
    bad.spill = nowhere;
    weir_stage_opts spills = bad;
    REFUSED(bad = spills; bad.source = true);
    REFUSED(bad = spills; bad.kind = WEIR_STAGE_INLINE);
    char name[102];
    memset(name, 'x', sizeof(name));
    name[101] = 0;
    REFUSED(bad.name = name);
    name[100] = 0;
    bad.name = name;
    must(weir_pipeline_add(p, &bad, &stage) == WEIR_OK);
    weir_pipeline_destroy(p);
    p = new_pipeline();
    must(weir_pipeline_add(p, &good, &stage) == WEIR_OK);
    assert_int_equal(weir_pipeline_add(p, &good, &stage), WEIR_EINVAL); /* the name */
    assert_int_equal(weir_pipeline_connect(p, 0, 9), WEIR_EINVAL);
    assert_int_equal(weir_pipeline_connect(p, 0, 0), WEIR_OK); /* start will say what is wrong */
    assert_int_equal(weir_pipeline_start(p), WEIR_EDEADLK);
    weir_pipeline_destroy(p);
}

/* ---- who holds everything back ------------------------------------------------------------------ */

static int take_a_while(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    pause_ns((int64_t)(intptr_t)ctx);
    return add_1000(NULL, items, n, run);
}

static void the_slow_stage_is_named_wherever_it_is(void **state)
{
    (void)state;
    for (int slow = 1; slow < 6; slow++) {
        numbers it = {0, 100};
        sink out = SINK;
        weir_pipeline *p = new_pipeline();
        weir_stage at = add_source(p, &it);
        for (int i = 1; i < 6; i++) {
            char name[8];
            snprintf(name, sizeof(name), "s%d", i);
            intptr_t ns = i == slow ? 3 * WEIR_MILLISECOND : 1000;
            weir_stage_opts opts = stage_opts(name, take_a_while, (void *)ns);
            opts.queue = 3;
            at = append(p, at, opts);
        }
        append(p, at, stage_opts("sink", collect, &out));
        start(p);
        must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
        weir_verdict verdict = WEIR_VERDICT_INIT;
        must(weir_pipeline_get_verdict(p, &verdict) == WEIR_OK);
        assert_int_equal(verdict.stage, slow);
        assert_int_equal(verdict.cause, WEIR_CAUSE_WORKERS);
        assert_true(verdict.share > 0.5);
        char expected[40];
        snprintf(expected, sizeof(expected), "stage 's%d' is the bottleneck", slow);
        assert_non_null(strstr(verdict.text, expected));
        end_well(p);
    }
}

static void an_inline_stage_is_named_and_not_its_host(void **state)
{
    (void)state;
    numbers it = {0, 60};
    weir_pipeline *p = new_pipeline();
    weir_stage at = append(p, add_source(p, &it), stage_opts("host", add_1000, NULL));
    weir_stage_opts opts = stage_opts("slow", take_a_while, (void *)(3 * WEIR_MILLISECOND));
    opts.kind = WEIR_STAGE_INLINE;
    weir_stage slow = append(p, at, opts);
    start(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    weir_verdict verdict = WEIR_VERDICT_INIT;
    must(weir_pipeline_get_verdict(p, &verdict) == WEIR_OK);
    assert_int_equal(verdict.stage, slow);
    end_well(p);
    assert_int_equal(lost.by_reason[WEIR_LOSS_OUTPUT], 60);
}

/* Who waits for the window of an ordered stage waits for what blocks the one that emits. */
static void what_blocks_an_ordered_stage_is_named_behind_an_inline_one(void **state)
{
    (void)state;
    numbers it = {0, 200};
    sink out = SINK;
    out.pause_ns = 3 * WEIR_MILLISECOND;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("ordered", add_1000, NULL);
    opts.workers = 4;
    opts.ordered = true;
    weir_stage ordered = append(p, add_source(p, &it), opts);
    opts = stage_opts("inline", add_1000, NULL);
    opts.kind = WEIR_STAGE_INLINE;
    weir_stage slow = append(p, append(p, ordered, opts), stage_opts("slow", collect, &out));
    start(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    weir_stage_snapshot s = look(p, ordered);
    assert_true(s.held_ns[WEIR_CAUSE_ORDER] < s.blocked_ns);
    weir_verdict verdict = WEIR_VERDICT_INIT;
    must(weir_pipeline_get_verdict(p, &verdict) == WEIR_OK);
    assert_int_equal(verdict.stage, slow);
    end_well(p);
}

static int slow_source(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    pause_ns(2 * WEIR_MILLISECOND);
    return count_up(ctx, items, n, run);
}

static void a_slow_source_is_named(void **state)
{
    (void)state;
    numbers it = {0, 50};
    sink out = SINK;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("source", slow_source, &it);
    opts.source = true;
    append(p, add(p, opts), stage_opts("sink", collect, &out));
    start(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    weir_verdict verdict = WEIR_VERDICT_INIT;
    must(weir_pipeline_get_verdict(p, &verdict) == WEIR_OK);
    assert_int_equal(verdict.stage, 0);
    assert_int_equal(verdict.cause, WEIR_CAUSE_SOURCE);
    end_well(p);
}

static void a_slow_stage_whose_queue_takes_in_everything_is_named(void **state)
{
    (void)state;
    numbers it = {0, 60};
    weir_pipeline *p = new_pipeline();
    weir_stage at = append(p, add_source(p, &it), stage_opts("quick", add_1000, NULL));
    weir_stage_opts opts = stage_opts("slow", take_a_while, (void *)(5 * WEIR_MILLISECOND));
    opts.queue = 1000;
    opts.workers = 2;
    weir_stage slow = append(p, at, opts);
    start(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    weir_verdict verdict = WEIR_VERDICT_INIT;
    must(weir_pipeline_get_verdict(p, &verdict) == WEIR_OK);
    assert_int_equal(verdict.stage, slow);
    assert_non_null(strstr(verdict.text, "stage 'slow' is the slowest"));
    assert_non_null(strstr(verdict.text, "its 2 workers"));
    end_well(p);
}

/* ---- tuning ------------------------------------------------------------------------------------ */

static void workers_are_added_while_they_are_needed(void **state)
{
    (void)state;
    numbers it = {0, 2000};
    sink out = SINK;
    out.pause_ns = 5 * WEIR_MILLISECOND;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts opts = stage_opts("sink", collect, &out);
    opts.workers_min = 1;
    opts.workers_max = 6;
    weir_stage s = append(p, add_source(p, &it), opts);
    start(p);
    soon(look(p, s).workers >= 4);
    end_well(p);
    assert_int_equal(out.n, 2000);
}

typedef struct waiter {
    weir_pipeline *pipeline;
    _Atomic int result; /* 1: none yet */
} waiter;

static void wait_for_it(void *ctx, unsigned wanted)
{
    (void)wanted;
    waiter *w = ctx;
    w->result = weir_pipeline_wait(w->pipeline, weir_after(PATIENCE / 10));
}

static void the_own_thread_of_a_pipeline_does_not_wait_for_it(void **state)
{
    (void)state;
    numbers it = {0, 100};
    weir_pipeline *p = new_pipeline();
    waiter w = {p, 1};
    weir_stage_opts opts = stage_opts("outside", NULL, &w);
    opts.kind = WEIR_STAGE_EXTERNAL;
    opts.workers_max = 6;
    opts.on_workers = wait_for_it;
    weir_stage s = append(p, add_source(p, &it), opts);
    start(p);
    weir_work work = WEIR_WORK_INIT;
    work.workers = 1;
    weir_time from = weir_now();
    soon((work.busy_ns = (uint64_t)(weir_now() - from), from = weir_now(),
          weir_pipeline_report(p, s, &work), w.result != 1));
    assert_int_equal(w.result, WEIR_EDEADLK);
    weir_pipeline_halt(p);
    must(weir_pipeline_end_stage(p, s) == WEIR_OK);
    end_well(p);
}

static void a_queue_sizes_itself(void **state)
{
    (void)state;
    numbers it = {0, 0};
    sink out = SINK;
    out.pause_ns = 20 * WEIR_MILLISECOND;
    weir_pipeline *p = new_pipeline();
    weir_stage_opts source = stage_opts("source", never_ends, &it);
    source.source = true;
    weir_stage_opts opts = stage_opts("sink", collect, &out);
    opts.queue = WEIR_AUTO_QUEUE;
    weir_stage s = append(p, add(p, source), opts);
    start(p);
    size_t before = look(p, s).queue;
    soon(look(p, s).queue < before); /* one consumer of slow items needs few */
    weir_pipeline_halt(p);
    must(weir_pipeline_wait(p, weir_after(PATIENCE)) == WEIR_OK);
    check_laws(p);
    weir_pipeline_destroy(p);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, forget)
    const struct CMUnitTest tests[] = {
        TEST(items_pass_all_stages_in_order),
        TEST(an_inline_stage_runs_in_the_stage_before_it),
        TEST(an_ordered_stage_keeps_the_order_of_several_workers),
        TEST(several_workers_work_at_a_time),
        TEST(a_batch_is_as_many_as_are_there_up_to_its_size),
        TEST(a_stage_holds_its_queue_and_one_item_per_worker),
        TEST(what_finds_no_room_in_time_is_dropped_and_counted),
        TEST(each_policy_is_that_of_the_queue),
        TEST(who_emits_many_is_told_how_many_were_dropped),
        TEST(a_broadcast_goes_to_all),
        TEST(round_robin_goes_to_each_in_turn),
        TEST(items_of_one_key_go_one_way_in_order),
        TEST(several_stages_may_feed_one),
        TEST(what_fails_is_skipped_and_counted),
        TEST(what_fails_is_tried_again),
        TEST(what_fails_goes_to_the_stage_for_dead_letters),
        TEST(a_failure_halts_the_pipeline),
        TEST(a_stage_keeps_its_limits),
        TEST(a_limit_gives_the_interruption_hook_back_to_who_waited_for_it),
        TEST(a_call_that_no_limit_let_in_is_none_to_the_breaker),
        TEST(a_stage_waits_until_its_breaker_lets_it_in_and_says_so),
        TEST(a_stage_waits_out_what_others_are_sent_away_for_and_says_so),
        TEST(a_pipeline_starts_once_and_is_then_as_it_is),
        TEST(a_stop_lets_through_what_is_inside),
        TEST(a_halt_drops_what_is_inside),
        TEST(a_halted_pipeline_begins_no_call),
        TEST(a_halt_drops_what_is_inside_the_last_stages_too),
        TEST(a_call_that_fails_after_a_halt_has_not_halted_it),
        TEST(a_source_that_hangs_does_not_hold_up_the_end),
        TEST(a_stopped_source_does_not_wait_for_its_limits),
        TEST(a_stopped_source_is_not_tried_again),
        TEST(a_source_that_hangs_after_it_waited_is_given_up_too),
        TEST(destroying_one_that_runs_halts_it),
        TEST(an_open_stage_is_fed_from_outside),
        TEST(a_stage_that_feeds_itself_is_told_when_it_would_wait),
        TEST(an_external_stage_is_run_by_its_caller),
        TEST(a_cycle_is_refused_and_named),
        TEST(a_cycle_of_dead_letters_is_one),
        TEST(what_nothing_feeds_is_refused_and_can_be_put_right),
        TEST(options_out_of_range_are_refused),
        TEST(the_slow_stage_is_named_wherever_it_is),
        TEST(an_inline_stage_is_named_and_not_its_host),
        TEST(what_blocks_an_ordered_stage_is_named_behind_an_inline_one),
        TEST(a_slow_source_is_named),
        TEST(a_slow_stage_whose_queue_takes_in_everything_is_named),
        TEST(workers_are_added_while_they_are_needed),
        TEST(the_own_thread_of_a_pipeline_does_not_wait_for_it),
        TEST(a_queue_sizes_itself),
    };
    return cmocka_run_group_tests_name("pipeline", tests, NULL, NULL);
}
