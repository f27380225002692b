/* model/bottleneck.h: the arithmetic of one window by hand, conservation on random ones, and
 * simulated pipelines of which the slow stage is known. */
#include "contract/support.h"

#include <string.h>

#include "model/bottleneck.h"
#include "unit/chance.h"

#define MOST  12
#define MS    UINT64_C(1000000)
#define CHAIN 10

/* ---- one window ----------------------------------------------------------------------------- */

typedef struct sheet {
    unsigned n;
    size_t m;
    weir__edge edges[3 * MOST];
    unsigned order[MOST];
    weir__pressure stages[MOST];
    uint64_t blocked[MOST * MOST];
    double charged[MOST * WEIR__CAUSES];
} sheet;

static void connect(sheet *s, unsigned from, unsigned to)
{
    s->edges[s->m++] = (weir__edge){from, to};
}

/* 0 -> 1 -> ... -> n - 1 */
static sheet chain_of(unsigned n)
{
    sheet s = {.n = n};
    for (unsigned i = 0; i < n; i++) {
        s.stages[i].workers = 1;
        if (i)
            connect(&s, i - 1, i);
    }
    s.stages[0].is_source = true;
    return s;
}

static void charge(sheet *s)
{
    static double scratch[WEIR__BOTTLENECK_SCRATCH(MOST)];
    static unsigned numbers[WEIR__GRAPH_SCRATCH(MOST)];
    assert_true(weir__graph_order(s->edges, s->m, s->n, s->order, numbers));
    weir__bottleneck_charge(s->charged, s->stages, s->blocked, s->edges, s->m, s->order, s->n,
                            scratch);
}

static void block(sheet *s, unsigned by, unsigned from, uint64_t ns)
{
    s->blocked[from * s->n + by] = ns;
}

static double of(const sheet *s, unsigned stage, weir__cause cause)
{
    return s->charged[stage * WEIR__CAUSES + (unsigned)cause];
}

static double all_charged(const sheet *s)
{
    double all = 0;
    for (unsigned i = 0; i < s->n * WEIR__CAUSES; i++)
        all += s->charged[i];
    return all;
}

static double all_blocked(const sheet *s)
{
    double all = 0;
    for (unsigned i = 0; i < s->n * s->n; i++)
        all += (double)s->blocked[i];
    return all;
}

static bool near(double a, double b)
{
    double error = a - b, most = 1e-9 * (a + b) + 1e-3;
    return error < most && error > -most;
}

static void who_blocks_is_charged(void **state)
{
    (void)state;
    sheet s = chain_of(2);
    s.stages[1].busy_ns = 100 * MS;
    block(&s, 1, 0, 90 * MS);
    charge(&s);
    assert_true(near(of(&s, 1, WEIR__CAUSE_WORKERS), 90e6));
    assert_true(near(all_charged(&s), 90e6));
}

static void a_stage_is_charged_by_what_its_own_time_went_to(void **state)
{
    (void)state;
    sheet s = chain_of(2);
    s.stages[1].busy_ns = 20 * MS;
    s.stages[1].held_ns[WEIR__CAUSE_RATE] = 70 * MS;
    s.stages[1].held_ns[WEIR__CAUSE_ORDER] = 10 * MS;
    block(&s, 1, 0, 50 * MS);
    charge(&s);
    assert_true(near(of(&s, 1, WEIR__CAUSE_WORKERS), 10e6));
    assert_true(near(of(&s, 1, WEIR__CAUSE_RATE), 35e6));
    assert_true(near(of(&s, 1, WEIR__CAUSE_ORDER), 5e6));
}

static void windows_add_up(void **state)
{
    (void)state;
    sheet s = chain_of(2);
    s.stages[1].busy_ns = 100 * MS;
    block(&s, 1, 0, 90 * MS);
    for (int i = 0; i < 3; i++)
        charge(&s);
    assert_true(near(of(&s, 1, WEIR__CAUSE_WORKERS), 270e6));
}

static void a_stage_that_is_blocked_by_one_that_never_rests_passes_everything_on(void **state)
{
    (void)state;
    sheet s = chain_of(3);
    s.stages[1].busy_ns = 70 * MS;
    s.stages[2].busy_ns = 100 * MS;
    block(&s, 1, 0, 80 * MS);
    block(&s, 2, 1, 30 * MS);
    charge(&s);
    assert_true(near(of(&s, 2, WEIR__CAUSE_WORKERS), 110e6));
}

static void one_that_starves_the_next_as_much_as_it_is_blocked_keeps_half_of_its_own(void **state)
{
    (void)state;
    sheet s = chain_of(3);
    s.stages[1].busy_ns = 80 * MS;
    s.stages[2].busy_ns = 80 * MS;
    s.stages[2].idle_ns = 20 * MS;
    block(&s, 1, 0, 100 * MS);
    block(&s, 2, 1, 20 * MS);
    charge(&s);
    assert_true(near(of(&s, 1, WEIR__CAUSE_WORKERS), 40e6)); /* of 80 of 100 */
    assert_true(near(of(&s, 2, WEIR__CAUSE_WORKERS), 80e6));
}

static void what_two_stages_block_goes_to_both(void **state)
{
    (void)state;
    sheet s = {.n = 4};
    connect(&s, 0, 1);
    connect(&s, 1, 2);
    connect(&s, 1, 3);
    s.stages[1].busy_ns = 10 * MS;
    s.stages[2].busy_ns = s.stages[3].busy_ns = 100 * MS;
    block(&s, 1, 0, 60 * MS);
    block(&s, 2, 1, 60 * MS);
    block(&s, 3, 1, 30 * MS);
    charge(&s);
    assert_true(near(of(&s, 2, WEIR__CAUSE_WORKERS), 60e6 + 40e6));
    assert_true(near(of(&s, 3, WEIR__CAUSE_WORKERS), 30e6 + 20e6));
}

static void each_lost_item_counts_as_long_as_the_workers_need_for_one_more(void **state)
{
    (void)state;
    sheet s = chain_of(2);
    s.stages[1] = (weir__pressure){.busy_ns = 400 * MS, .done = 10, .lost = 30, .workers = 4};
    charge(&s);
    assert_true(near(of(&s, 1, WEIR__CAUSE_WORKERS), 300e6));
}

static void who_loses_what_the_next_would_have_lost_is_not_charged(void **state)
{
    (void)state;
    sheet s = chain_of(3);
    s.stages[0].done = 1000;
    s.stages[1] = (weir__pressure){.busy_ns = 100 * MS, .done = 100, .lost = 900, .workers = 1};
    s.stages[2] = (weir__pressure){.busy_ns = 100 * MS, .done = 10, .lost = 90, .workers = 1};
    charge(&s);
    assert_true(near(of(&s, 1, WEIR__CAUSE_WORKERS), 0));
    assert_true(near(of(&s, 2, WEIR__CAUSE_WORKERS), 90 * 10e6 + 900 * 10e6));
}

static void without_any_time_of_its_own_a_stage_is_charged_for_its_workers(void **state)
{
    (void)state;
    sheet s = chain_of(2);
    block(&s, 1, 0, 40 * MS);
    charge(&s);
    assert_true(near(of(&s, 1, WEIR__CAUSE_WORKERS), 40e6));
}

static void a_stage_that_loses_before_anything_is_done_is_charged_what_it_took_so_far(void **state)
{
    (void)state;
    sheet s = chain_of(2);
    s.stages[1] = (weir__pressure){.busy_ns = 100 * MS, .lost = 3, .workers = 1};
    charge(&s);
    assert_true(near(of(&s, 1, WEIR__CAUSE_WORKERS), 300e6));
}

static void nothing_comes_of_nothing(void **state)
{
    (void)state;
    sheet s = chain_of(5), empty = {.n = 0};
    charge(&s);
    charge(&empty);
    assert_true(all_charged(&s) == 0);
}

static sheet random_sheet(weir__random *random)
{
    sheet s = {.n = 1 + below(random, MOST)};
    unsigned number[MOST];
    for (unsigned i = 0; i < s.n; i++) { /* so that the order is not that of the numbers */
        unsigned at = below(random, i + 1);
        number[i] = number[at];
        number[at] = i;
        weir__pressure *stage = &s.stages[i];
        stage->busy_ns = below(random, 4) ? below(random, 1000000000) : 0;
        stage->idle_ns = below(random, 3) ? below(random, 1000000000) : 0;
        stage->held_ns[1 + below(random, WEIR__CAUSES - 2)] = below(random, 1000000000);
        stage->done = below(random, 1000);
        stage->workers = 1;
    }
    for (unsigned i = 0; i < s.n; i++)
        for (unsigned j = i + 1; j < s.n && s.m < 3 * MOST; j++)
            if (below(random, 3) == 0) {
                connect(&s, number[i], number[j]);
                if (below(random, 2))
                    block(&s, number[j], number[i], below(random, 1000000000));
            }
    return s;
}

static void every_blocked_nanosecond_is_charged_once(void **state)
{
    (void)state;
    weir__random random = {1};
    for (int round = 0; round < 5000; round++) {
        sheet s = random_sheet(&random);
        charge(&s);
        for (unsigned i = 0; i < s.n * WEIR__CAUSES; i++)
            assert_true(s.charged[i] >= 0);
        assert_true(near(all_charged(&s), all_blocked(&s)));
    }
}

static void what_is_lost_at_the_end_of_the_chain_adds_its_work_and_no_more(void **state)
{
    (void)state;
    weir__random random = {2};
    for (int round = 0; round < 5000; round++) {
        sheet s = random_sheet(&random);
        charge(&s);
        weir__pressure *last = &s.stages[s.order[s.n - 1]];
        double before = all_charged(&s), own = (double)last->busy_ns;
        for (int cause = 0; cause < WEIR__CAUSES; cause++)
            own += (double)last->held_ns[cause];
        last->lost = below(&random, 1000);
        memset(s.charged, 0, sizeof s.charged);
        charge(&s);
        double work = (double)last->lost * own / (double)(last->done ? last->done : 1);
        assert_true(near(all_charged(&s), before + work));
    }
}

/* ---- simulated pipelines -------------------------------------------------------------------- */

#define WORKERS 4

typedef enum doing { IDLE, BUSY, HELD, BLOCKED } doing;

typedef struct worker {
    doing doing;
    double until;
    unsigned blocked_by;
} worker;

typedef struct machine {
    double service;  /* seconds, on average */
    double spread;   /* 0: always that; 1: exponential */
    double interval; /* of its rate; 0: none */
    bool loses;
    unsigned workers, capacity, depth, turn;
    double next_token;
    worker at[WORKERS];
} machine;

typedef struct pipeline {
    sheet sheet; /* of this window */
    weir__pressure total[MOST];
    machine stages[MOST];
    double now, horizon;
    weir__random random;
} pipeline;

static pipeline pipeline_of(unsigned n, double service, uint64_t seed)
{
    pipeline p = {.sheet = chain_of(n), .random = {seed}, .horizon = 2000 * service};
    for (unsigned i = 0; i < n; i++)
        p.stages[i] = (machine){.service = service, .spread = 1, .workers = 1, .capacity = 4};
    return p;
}

static void work(pipeline *p, machine *s, worker *w)
{
    w->doing = BUSY;
    w->until =
        p->now + s->service * (1 - s->spread) + s->spread * exponential(&p->random, s->service);
}

static void begin(pipeline *p, machine *s, worker *w)
{
    if (s->interval > 0) {
        double token = s->next_token > p->now ? s->next_token : p->now;
        s->next_token = token + s->interval;
        w->doing = HELD;
        w->until = token;
    } else {
        work(p, s, w);
    }
}

/* The stage that gets the next item of i: its successors take turns.  MOST: it is the last. */
static unsigned successor(pipeline *p, unsigned i)
{
    unsigned next[MOST], n = 0;
    for (size_t e = 0; e < p->sheet.m; e++)
        if (p->sheet.edges[e].from == i)
            next[n++] = p->sheet.edges[e].to;
    return n ? next[p->stages[i].turn++ % n] : MOST;
}

/* Whether j had room for the item, or none and lost it. */
static bool put(pipeline *p, unsigned j)
{
    machine *to = &p->stages[j];
    if (to->depth < to->capacity) {
        to->depth++;
        return true;
    }
    p->sheet.stages[j].lost += to->loses;
    return to->loses;
}

static void hand_on(pipeline *p, unsigned i, worker *w)
{
    unsigned j = successor(p, i);
    p->sheet.stages[i].done++;
    w->doing = IDLE;
    if (j < MOST && !put(p, j)) {
        w->doing = BLOCKED;
        w->blocked_by = j;
    }
}

/* Whatever can go on now, does. */
static bool advance(pipeline *p, unsigned i, worker *w)
{
    machine *s = &p->stages[i];
    bool is_source = p->sheet.stages[i].is_source;
    if (w->doing == BLOCKED && put(p, w->blocked_by)) {
        w->doing = IDLE;
    } else if (w->doing == IDLE && (is_source || s->depth)) {
        s->depth -= !is_source;
        begin(p, s, w);
    } else if (w->doing == HELD && w->until <= p->now) {
        work(p, s, w);
    } else if (w->doing == BUSY && w->until <= p->now) {
        hand_on(p, i, w);
    } else {
        return false;
    }
    return true;
}

static void settle(pipeline *p)
{
    bool goes_on = true;
    while (goes_on) {
        goes_on = false;
        for (unsigned i = 0; i < p->sheet.n; i++)
            for (unsigned k = 0; k < p->stages[i].workers; k++)
                goes_on |= advance(p, i, &p->stages[i].at[k]);
    }
}

static void account(pipeline *p, unsigned i, const worker *w, uint64_t ns)
{
    weir__pressure *stage = &p->sheet.stages[i];
    switch (w->doing) {
    case IDLE: stage->idle_ns += ns; return;
    case BUSY: stage->busy_ns += ns; return;
    case HELD: stage->held_ns[WEIR__CAUSE_RATE] += ns; return;
    case BLOCKED: p->sheet.blocked[i * p->sheet.n + w->blocked_by] += ns; return;
    }
}

/* To the next event, or to the end of the window. */
static void pass_time(pipeline *p, double window_end)
{
    double next = window_end;
    for (unsigned i = 0; i < p->sheet.n; i++)
        for (unsigned k = 0; k < p->stages[i].workers; k++) {
            const worker *w = &p->stages[i].at[k];
            if ((w->doing == BUSY || w->doing == HELD) && w->until < next)
                next = w->until;
        }
    uint64_t ns = (uint64_t)(next * 1e9) - (uint64_t)(p->now * 1e9);
    for (unsigned i = 0; i < p->sheet.n; i++)
        for (unsigned k = 0; k < p->stages[i].workers; k++)
            account(p, i, &p->stages[i].at[k], ns);
    p->now = next;
}

static void end_window(pipeline *p)
{
    sheet *s = &p->sheet;
    charge(s);
    for (unsigned i = 0; i < s->n; i++) {
        weir__pressure *total = &p->total[i], *stage = &s->stages[i];
        total->busy_ns += stage->busy_ns;
        total->idle_ns += stage->idle_ns;
        total->held_ns[WEIR__CAUSE_RATE] += stage->held_ns[WEIR__CAUSE_RATE];
        total->done += stage->done;
        total->lost += stage->lost;
        total->workers = stage->workers = p->stages[i].workers;
        total->is_source = stage->is_source;
        *stage = (weir__pressure){.workers = stage->workers, .is_source = stage->is_source};
    }
    memset(s->blocked, 0, sizeof s->blocked);
}

static weir__verdict simulate(pipeline *p)
{
    const unsigned windows = 20;
    for (unsigned i = 0; i < windows; i++) {
        double end = p->horizon * (i + 1) / windows;
        while (p->now < end) {
            settle(p);
            pass_time(p, end);
        }
        end_window(p);
    }
    return weir__bottleneck_find(p->sheet.charged, p->sheet.n, p->total,
                                 (uint64_t)(p->horizon * 1e9));
}

static void expect(pipeline *p, unsigned stage, weir__cause cause)
{
    weir__verdict verdict = simulate(p);
    if (verdict.source_bound || verdict.stage != (int)stage || verdict.cause != cause)
        fail_msg("stage %u should be named, by cause %d, and %s%d is, by %d, with %.2f", stage,
                 (int)cause, verdict.source_bound ? "the source " : "", verdict.stage,
                 (int)verdict.cause, verdict.share);
    assert_true(verdict.share > 0.5);
}

static void set_policy(pipeline *p, bool loses)
{
    for (unsigned i = 0; i < p->sheet.n; i++)
        p->stages[i].loses = loses;
}

static void the_slow_stage_of_a_chain_is_named_wherever_it_is(void **state)
{
    (void)state;
    for (unsigned loses = 0; loses < 2; loses++)
        for (unsigned slow = 1; slow <= CHAIN; slow++) {
            pipeline p = pipeline_of(CHAIN + 1, 0.001, slow);
            set_policy(&p, loses);
            p.stages[slow].service = 0.010;
            p.horizon = 10;
            expect(&p, slow, WEIR__CAUSE_WORKERS);
        }
}

static void one_just_a_third_slower_than_all_others_is_named(void **state)
{
    (void)state;
    for (unsigned slow = 1; slow <= CHAIN; slow++) {
        pipeline p = pipeline_of(CHAIN + 1, 0.003, 100 + slow);
        p.stages[0].service = 0.001;
        p.stages[slow].service = 0.004;
        p.horizon = 10;
        weir__verdict verdict = simulate(&p);
        assert_false(verdict.source_bound);
        assert_int_equal(verdict.stage, (int)slow);
    }
}

static void a_stage_that_is_held_by_its_rate_is_named_with_it(void **state)
{
    (void)state;
    for (unsigned slow = 1; slow <= CHAIN; slow++) {
        pipeline p = pipeline_of(CHAIN + 1, 0.001, slow);
        p.stages[slow].interval = 0.01;
        p.horizon = 10;
        expect(&p, slow, WEIR__CAUSE_RATE);
    }
}

static void more_workers_make_a_slow_function_no_bottleneck(void **state)
{
    (void)state;
    pipeline p = pipeline_of(5, 0.001, 5);
    p.stages[2].service = 0.006;
    p.stages[2].workers = 4;
    p.stages[3].service = 0.003;
    p.stages[0].service = 0.0005;
    expect(&p, 3, WEIR__CAUSE_WORKERS);
}

/* 0 -> 1 -> {2, 3} -> 4 */
static pipeline diamond(uint64_t seed)
{
    pipeline p = pipeline_of(5, 0.001, seed);
    p.sheet.m = 0;
    connect(&p.sheet, 0, 1);
    connect(&p.sheet, 1, 2);
    connect(&p.sheet, 1, 3);
    connect(&p.sheet, 2, 4);
    connect(&p.sheet, 3, 4);
    return p;
}

static void the_slow_branch_of_a_diamond_is_named_and_so_is_its_end(void **state)
{
    (void)state;
    for (unsigned slow = 1; slow <= 4; slow++) {
        pipeline p = diamond(slow);
        p.stages[slow].service = 0.008;
        expect(&p, slow, WEIR__CAUSE_WORKERS);
    }
}

/* 0 -> 1 -> 2 and 3 -> 4 -> 5, with a common end 6 */
static void of_two_branches_with_a_source_each_the_slow_one_is_named(void **state)
{
    (void)state;
    for (unsigned slow = 1; slow <= 6; slow++) {
        if (slow == 3)
            continue;
        pipeline p = pipeline_of(7, 0.002, 40 + slow);
        p.sheet.m = 0;
        for (unsigned i = 0; i < 5; i++)
            if (i != 2)
                connect(&p.sheet, i, i + 1);
        connect(&p.sheet, 2, 6);
        connect(&p.sheet, 5, 6);
        p.sheet.stages[3].is_source = true;
        p.stages[6].service = 0.0005;
        p.stages[slow].service = 0.012;
        expect(&p, slow, WEIR__CAUSE_WORKERS);
    }
}

/* A random tree or lattice behind one source; layer by layer, so that each stage is fed. */
static pipeline random_pipeline(weir__random *random)
{
    pipeline p = pipeline_of(3 + below(random, MOST - 3), 0.001, weir__random_next(random));
    p.sheet.m = 0;
    for (unsigned i = 1; i < p.sheet.n; i++) {
        unsigned from = below(random, 3) ? i - 1 : below(random, i);
        connect(&p.sheet, from, i);
        if (i > 1 && below(random, 4) == 0 && from != i - 2)
            connect(&p.sheet, i - 2, i);
        p.stages[i].workers = 1 + below(random, WORKERS);
        p.stages[i].capacity = 2 + below(random, 20);
        p.stages[i].spread = uniform(random);
    }
    return p;
}

/* How much of the flow each stage gets, with every successor taking its turn. */
static void flows(const pipeline *p, double *flow)
{
    memset(flow, 0, p->sheet.n * sizeof *flow);
    flow[0] = 1;
    for (unsigned i = 0; i < p->sheet.n; i++) {
        unsigned successors = 0;
        for (size_t e = 0; e < p->sheet.m; e++)
            successors += p->sheet.edges[e].from == i;
        for (size_t e = 0; e < p->sheet.m; e++)
            if (p->sheet.edges[e].from == i)
                flow[p->sheet.edges[e].to] += flow[i] / successors;
    }
}

/* One is loaded fully, the others between a tenth and two thirds. */
static unsigned choose_loads(pipeline *p, weir__random *random)
{
    double flow[MOST];
    flows(p, flow);
    unsigned slow = 1 + below(random, p->sheet.n - 1);
    for (unsigned i = 1; i < p->sheet.n; i++) {
        double load = i == slow ? 1 : 0.1 + 0.567 * uniform(random);
        p->stages[i].service = 0.002 * load * p->stages[i].workers / flow[i];
    }
    p->horizon = 5 / flow[slow];
    return slow;
}

static void the_slow_stage_of_a_random_pipeline_is_named_every_time(void **state)
{
    (void)state;
    weir__random random = {2026};
    unsigned wrong = 0;
    for (unsigned round = 0; round < 120; round++) {
        pipeline p = random_pipeline(&random);
        unsigned slow = choose_loads(&p, &random);
        set_policy(&p, round % 2);
        weir__verdict verdict = simulate(&p);
        if (verdict.source_bound || verdict.stage != (int)slow) {
            wrong++;
            fprintf(stderr, "round %u: %u of %u is slow, %d named, %.2f\n", round, slow, p.sheet.n,
                    verdict.stage, verdict.share);
        }
    }
    assert_int_equal(wrong, 0);
}

static void where_the_source_is_the_slowest_it_is_named(void **state)
{
    (void)state;
    for (unsigned loses = 0; loses < 2; loses++) {
        pipeline p = pipeline_of(6, 0.001, 3);
        set_policy(&p, loses);
        p.stages[0].service = 0.02;
        p.horizon = 40;
        weir__verdict verdict = simulate(&p);
        assert_true(verdict.source_bound);
        assert_int_equal(verdict.stage, 0);
        assert_int_equal(verdict.cause, WEIR__CAUSE_SOURCE);
        assert_true(verdict.share > 0.93 && verdict.share < 0.97);
    }
}

/* ---- the verdict and its sentence ----------------------------------------------------------- */

static void many_workers_do_not_hide_a_source_that_is_blocked(void **state)
{
    (void)state;
    sheet s = chain_of(2);
    s.stages[1] = (weir__pressure){.busy_ns = 1000 * 100 * MS, .done = 9, .workers = 1000};
    block(&s, 1, 0, 90 * MS);
    charge(&s);
    weir__verdict verdict = weir__bottleneck_find(s.charged, 2, s.stages, 100 * MS);
    assert_false(verdict.source_bound);
    assert_int_equal(verdict.stage, 1);
}

static void nothing_is_named_where_nobody_waited(void **state)
{
    (void)state;
    sheet s = chain_of(3);
    weir__verdict verdict = weir__bottleneck_find(s.charged, 3, s.stages, 0);
    assert_int_equal(verdict.stage, -1);
    for (unsigned i = 0; i < 3; i++)
        s.stages[i].busy_ns = 100 * MS;
    verdict = weir__bottleneck_find(s.charged, 3, s.stages, 100 * MS);
    assert_int_equal(verdict.stage, -1);
    assert_false(verdict.source_bound);
}

static void expect_sentence(weir__verdict verdict, double workers, double rate,
                            const char *expected)
{
    static const char *const names[] = {"read", "store"};
    weir__pressure total[2] = {{.workers = 1}, {.workers = workers}};
    char buf[160];
    size_t length = weir__bottleneck_say(buf, sizeof buf, names, &verdict, total,
                                         rate > 0 ? (double[]){0, rate} : NULL);
    assert_string_equal(buf, expected);
    assert_int_equal(length, strlen(expected));
}

static void the_verdict_is_said_in_a_sentence(void **state)
{
    (void)state;
    expect_sentence((weir__verdict){1, WEIR__CAUSE_WORKERS, 0.938, false}, 2, 0,
                    "stage 'store' is the bottleneck: 94 % of blocked time; "
                    "it is limited by its 2 workers");
    expect_sentence((weir__verdict){1, WEIR__CAUSE_WORKERS, 1, false}, 1, 0,
                    "stage 'store' is the bottleneck: 100 % of blocked time; "
                    "it is limited by its 1 worker");
    expect_sentence((weir__verdict){1, WEIR__CAUSE_RATE, 0.5, false}, 2, 10,
                    "stage 'store' is the bottleneck: 50 % of blocked time; "
                    "it is limited by its rate of 10/s");
    expect_sentence((weir__verdict){1, WEIR__CAUSE_BREAKER, 0.5, false}, 2, 0,
                    "stage 'store' is the bottleneck: 50 % of blocked time; "
                    "it is limited by its breaker");
    expect_sentence(
        (weir__verdict){0, WEIR__CAUSE_SOURCE, 0.8, true}, 2, 0,
        "the source 'read' is the slowest: the stages waited for it 80 % of their time");
    expect_sentence((weir__verdict){.stage = -1}, 2, 0, "nothing held anything back");
}

static void a_short_buffer_gets_the_beginning_and_the_length_of_the_whole(void **state)
{
    (void)state;
    char buf[8];
    weir__verdict nothing = {.stage = -1};
    assert_int_equal(weir__bottleneck_say(buf, sizeof buf, NULL, &nothing, NULL, NULL), 26);
    assert_string_equal(buf, "nothing");
    assert_int_equal(weir__bottleneck_say(NULL, 0, NULL, &nothing, NULL, NULL), 26);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_blocks_is_charged),
        cmocka_unit_test(a_stage_is_charged_by_what_its_own_time_went_to),
        cmocka_unit_test(windows_add_up),
        cmocka_unit_test(a_stage_that_is_blocked_by_one_that_never_rests_passes_everything_on),
        cmocka_unit_test(one_that_starves_the_next_as_much_as_it_is_blocked_keeps_half_of_its_own),
        cmocka_unit_test(what_two_stages_block_goes_to_both),
        cmocka_unit_test(each_lost_item_counts_as_long_as_the_workers_need_for_one_more),
        cmocka_unit_test(who_loses_what_the_next_would_have_lost_is_not_charged),
        cmocka_unit_test(without_any_time_of_its_own_a_stage_is_charged_for_its_workers),
        cmocka_unit_test(a_stage_that_loses_before_anything_is_done_is_charged_what_it_took_so_far),
        cmocka_unit_test(nothing_comes_of_nothing),
        cmocka_unit_test(every_blocked_nanosecond_is_charged_once),
        cmocka_unit_test(what_is_lost_at_the_end_of_the_chain_adds_its_work_and_no_more),
        cmocka_unit_test(the_slow_stage_of_a_chain_is_named_wherever_it_is),
        cmocka_unit_test(one_just_a_third_slower_than_all_others_is_named),
        cmocka_unit_test(a_stage_that_is_held_by_its_rate_is_named_with_it),
        cmocka_unit_test(more_workers_make_a_slow_function_no_bottleneck),
        cmocka_unit_test(the_slow_branch_of_a_diamond_is_named_and_so_is_its_end),
        cmocka_unit_test(of_two_branches_with_a_source_each_the_slow_one_is_named),
        cmocka_unit_test(the_slow_stage_of_a_random_pipeline_is_named_every_time),
        cmocka_unit_test(where_the_source_is_the_slowest_it_is_named),
        cmocka_unit_test(many_workers_do_not_hide_a_source_that_is_blocked),
        cmocka_unit_test(nothing_is_named_where_nobody_waited),
        cmocka_unit_test(the_verdict_is_said_in_a_sentence),
        cmocka_unit_test(a_short_buffer_gets_the_beginning_and_the_length_of_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
