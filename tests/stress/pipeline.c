/* Random graphs, policies, failures and ends: each runs to its end, and both laws are true of it.
 *
 * WEIR_GRAPHS=1000 runs so many; the seed of each is its number, or WEIR_SEED and what follows.
 */
#include "contract/support.h"

#include <stdatomic.h>
#include <string.h>

#include <weir/pipeline.h>

#define STAGES 9

static _Atomic uint64_t live; /* items that somebody has */

static uint64_t rng;

static uint64_t draw(uint64_t n) /* splitmix64 */
{
    uint64_t z = (rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % n;
}

static void release_item(void *item, weir_stage stage, weir_loss reason, void *ctx)
{
    (void)stage, (void)reason, (void)ctx;
    must(item);
    live--;
}

static bool share(void *item, void **ret_item, void *ctx)
{
    (void)ctx;
    live++;
    *ret_item = item;
    return true;
}

typedef struct work {
    _Atomic uint64_t calls;
    uint64_t items, fail_one_in, fan_out, pause_one_in;
    bool fatal;
} work;

static void rest(work *w, uint64_t call)
{
    if (w->pause_one_in && call % w->pause_one_in == 0)
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

static int produce(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)items, (void)n;
    work *w = ctx;
    uint64_t call = ++w->calls;
    rest(w, call);
    if (call > w->items)
        return WEIR_END;
    live++;
    weir_emit(run, number(call), 1 + call % 5);
    return WEIR_MORE;
}

static int convert(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    work *w = ctx;
    uint64_t call = ++w->calls;
    rest(w, call);
    if (w->fail_one_in && call % w->fail_one_in == 0)
        return w->fatal ? WEIR_FATAL : WEIR_ESYSTEM;
    for (size_t i = 0; i < n; i++) {
        for (uint64_t j = 0; j < w->fan_out; j++) {
            live++;
            weir_emit(run, items[i], 1);
        }
        live--;
    }
    return 0;
}

static uint64_t key_of(void *item, void *ctx)
{
    (void)ctx;
    return (uintptr_t)item;
}

/* ---- a graph ----------------------------------------------------------------------------------- */

typedef struct graph {
    weir_pipeline *pipeline;
    work works[STAGES];
    unsigned n, sources;
    bool connected[STAGES][STAGES];
    bool may_fail;
    weir_limit *limit;
} graph;

static weir_stage_opts draw_source(graph *g, unsigned i, const char *name)
{
    weir_stage_opts o = WEIR_STAGE_OPTS_INIT;
    o.name = name;
    o.source = true;
    o.fn = produce;
    o.ctx = &g->works[i];
    o.workers = 1 + (unsigned)draw(2);
    g->works[i].items = draw(400);
    return o;
}

static weir_stage_opts draw_stage(graph *g, unsigned i, const char *name, bool can_inline)
{
    weir_stage_opts o = WEIR_STAGE_OPTS_INIT;
    work *w = &g->works[i];
    o.name = name;
    o.fn = convert;
    o.ctx = w;
    w->fan_out = draw(8) ? 1 : draw(3);
    w->pause_one_in = draw(3) ? 0 : 10 + draw(50);
    w->fail_one_in = draw(4) ? 0 : 3 + draw(40);
    w->fatal = draw(2);
    o.attempts = draw(3) ? 1 : 2;
    o.backoff = (weir_backoff)WEIR_BACKOFF_INIT;
    o.backoff.base_ns = o.backoff.max_ns = 10000;
    o.on_error = draw(6) ? WEIR_ON_ERROR_SKIP : WEIR_ON_ERROR_HALT;
    g->may_fail |= o.on_error == WEIR_ON_ERROR_HALT && w->fail_one_in;
    if (i > 0 && draw(5) == 0) {
        o.on_error = WEIR_ON_ERROR_DEAD_LETTER;
        o.dead_letter = 0;
    }
    if (draw(4) == 0)
        o.limit = g->limit;
    if (can_inline && draw(4) == 0) {
        o.kind = WEIR_STAGE_INLINE;
        return o;
    }
    o.queue = draw(6) ? 1 + draw(12) : WEIR_AUTO_QUEUE;
    o.overflow = (weir_overflow)(draw(2) ? 0 : draw(5));
    o.put_timeout_ns = draw(4) ? 0 : 100000;
    o.max_cost = draw(4) ? 0 : 4 + draw(30); /* some items never fit */
    o.max_age_ns = draw(6) ? 0 : 300000;
    o.workers = 1 + (unsigned)draw(3);
    if (draw(4) == 0) {
        o.workers_min = 1;
        o.workers_max = 4;
    }
    o.ordered = draw(2);
    o.batch = draw(3) ? 1 : 1 + draw(9);
    o.linger_ns = draw(3) ? 0 : 100000;
    return o;
}

/* Stages are added from the last to the first, so that dead letters go forward: stage 0 of each graph
 * feeds nobody. */
static void draw_graph(graph *g)
{
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.on_drop = release_item;
    opts.share = share;
    opts.auto_bytes = 1000;
    must(weir_pipeline_create(&g->pipeline, &opts) == WEIR_OK);
    g->n = 2 + (unsigned)draw(STAGES - 2);
    g->sources = 1 + (unsigned)draw(2) * (g->n > 2);
    for (unsigned i = 0; i < g->n; i++) {
        char name[16];
        snprintf(name, sizeof(name), "s%u", i);
        bool source = i >= g->n - g->sources;
        weir_stage_opts o = source ? draw_source(g, i, name) : draw_stage(g, i, name, i > 0);
        o.route = (weir_route)draw(3);
        o.key = key_of;
        weir_stage stage;
        must(weir_pipeline_add(g->pipeline, &o, &stage) == WEIR_OK && stage == i);
        if (i > 0)
            for (unsigned tries = 1 + (unsigned)draw(3); tries > 0; tries--)
                weir_pipeline_connect(g->pipeline, i,
                                      (unsigned)draw(i)); /* refused: it is inline and
                                                                              has one, or twice */
    }
    /* What nothing feeds is fed by the first source. */
    for (int rc; (rc = weir_pipeline_start(g->pipeline)) != WEIR_OK;) {
        unsigned lonely;
        must(sscanf(weir_pipeline_trouble(g->pipeline), "stage 's%u': nothing feeds it", &lonely) ==
             1);
        must(weir_pipeline_connect(g->pipeline, g->n - 1, lonely) == WEIR_OK);
    }
}

static uint64_t check_stage(graph *g, weir_stage i)
{
    weir_stage_snapshot s = WEIR_STAGE_SNAPSHOT_INIT;
    must(weir_pipeline_get_snapshot(g->pipeline, i, &s) == WEIR_OK);
    uint64_t lost = 0;
    for (int r = 0; r < WEIR_LOSS_REASONS; r++)
        lost += s.dropped[r];
    must(s.ended && s.depth == 0 && s.in_hand == 0);
    if (i < g->n - g->sources && s.accepted != s.processed + s.failed + lost) {
        fprintf(stderr, "%s: %lu != %lu + %lu + %lu\n", s.name, s.accepted, s.processed, s.failed,
                lost);
        must(!"what was accepted is accounted for");
    }
    must(s.queue == 0 || s.peak_depth <= s.queue || s.queue > 12);
    return s.accepted;
}

static void run_graph(uint64_t seed)
{
    rng = seed;
    graph *g = calloc(1, sizeof(*g));
    weir_limit_opts limit_opts = WEIR_LIMIT_OPTS_INIT;
    limit_opts.limit = 1 + draw(3);
    must(weir_limit_create(&g->limit, &limit_opts) == WEIR_OK);
    live = 0;
    draw_graph(g);
    unsigned end = (unsigned)draw(6);
    if (end < 2) {
        nanosleep(&(struct timespec){.tv_nsec = (long)draw(4000000)}, NULL);
        if (end == 0)
            weir_pipeline_stop(g->pipeline);
        else
            weir_pipeline_halt(g->pipeline);
    }
    int rc = weir_pipeline_wait(g->pipeline, weir_after(PATIENCE));
    if (rc == WEIR_ETIMEDOUT)
        fprintf(stderr, "graph %lu hangs\n", seed);
    must(rc == WEIR_OK || g->may_fail);
    must(rc != WEIR_ETIMEDOUT);
    uint64_t accepted = 0, emitted = 0;
    for (unsigned i = 0; i < g->n; i++) {
        accepted += check_stage(g, i);
        weir_stage_snapshot s = WEIR_STAGE_SNAPSHOT_INIT;
        weir_pipeline_get_snapshot(g->pipeline, i, &s);
        emitted += s.emitted;
    }
    weir_verdict verdict = WEIR_VERDICT_INIT;
    must(weir_pipeline_get_verdict(g->pipeline, &verdict) == WEIR_OK);
    weir_pipeline_destroy(g->pipeline);
    if (accepted != emitted || live != 0)
        fprintf(stderr, "graph %lu: accepted %lu, emitted %lu, live %lu\n", seed, accepted, emitted,
                (uint64_t)live);
    must(accepted == emitted && live == 0);
    weir_limit_destroy(g->limit);
    free(g);
}

static void random_graphs_end_with_both_laws_true(void **state)
{
    (void)state;
    const char *graphs = getenv("WEIR_GRAPHS"), *seed = getenv("WEIR_SEED");
    uint64_t n = graphs ? strtoull(graphs, NULL, 10) : 150;
    uint64_t first = seed ? strtoull(seed, NULL, 10) : 1;
    for (uint64_t i = first; i < first + n; i++)
        run_graph(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_graphs_end_with_both_laws_true)};
    return cmocka_run_group_tests_name("pipeline", tests, NULL, NULL);
}
