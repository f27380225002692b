/* One suite, every policy: random operations on a queue and on a plain model of it must agree in
 * every result, every drop and every snapshot; and what holds for each policy alike. */
#include "support.h"

#include <string.h>

#define MAX       64    /* capacity stays below */
#define STEPS     30000 /* operations per case */
#define DROPS_MAX 128

/* ---- the plain model -------------------------------------------------------------------------- */

typedef struct entry {
    uintptr_t item;
    uint64_t cost;
} entry;

typedef struct note {
    uintptr_t item;
    weir_drop_reason reason;
} note;

/* As slow and as plain as can be: an array that is shifted. */
typedef struct model {
    weir_queue_opts opts;
    entry inside[MAX * 2];
    size_t depth;
    uint64_t cost;
    entry flying[MAX * 2];
    size_t in_flight;
    uint64_t flying_cost;
    unsigned sampled;
    bool above, closed;
    uint64_t accepted, delivered, refused;
    note drops[DROPS_MAX];
    size_t drop_count;
} model;

static note seen[DROPS_MAX];
static size_t seen_count;

static void see_drop(void *item, weir_drop_reason reason, void *ctx)
{
    (void)ctx;
    must(seen_count < DROPS_MAX);
    seen[seen_count++] = (note){(uintptr_t)item, reason};
}

static void model_drop(model *m, uintptr_t item, weir_drop_reason reason)
{
    must(m->drop_count < DROPS_MAX);
    m->drops[m->drop_count++] = (note){item, reason};
}

static entry model_pop(model *m)
{
    entry head = m->inside[0];
    memmove(m->inside, m->inside + 1, --m->depth * sizeof(entry));
    m->cost -= head.cost;
    return head;
}

static void model_marks(model *m)
{
    size_t high = m->opts.capacity * 4 / 5;
    uint64_t high_cost = m->opts.max_cost ? m->opts.max_cost * 4 / 5 : UINT64_MAX;
    uint64_t low_cost = m->opts.max_cost ? high_cost / 2 : UINT64_MAX;
    m->above = m->above ? m->depth > high / 2 || m->cost > low_cost
                        : m->depth > high || m->cost > high_cost;
}

static bool model_fits(const model *m, size_t evicted, uint64_t evicted_cost, uint64_t cost)
{
    uint64_t max = m->opts.max_cost ? m->opts.max_cost : UINT64_MAX;
    return m->depth - evicted + m->in_flight + 1 <= m->opts.capacity &&
           m->cost - evicted_cost + m->flying_cost + cost <= max;
}

static int model_put(model *m, uintptr_t item, uint64_t cost)
{
    if (m->closed)
        return WEIR_ECLOSED;
    if (m->opts.max_cost && cost > m->opts.max_cost) {
        m->refused++;
        return WEIR_ETOOBIG;
    }
    if (m->opts.overflow == WEIR_OVERFLOW_SAMPLE && m->above) {
        if (++m->sampled < m->opts.sample_keep_one_of) {
            m->accepted++;
            model_drop(m, item, WEIR_DROP_SAMPLED);
            return WEIR_DROPPED;
        }
    }
    m->sampled = 0;
    size_t evicted = 0;
    uint64_t evicted_cost = 0;
    if (m->opts.overflow == WEIR_OVERFLOW_DROP_OLDEST)
        while (!model_fits(m, evicted, evicted_cost, cost) && evicted < m->depth)
            evicted_cost += m->inside[evicted++].cost;
    if (!model_fits(m, evicted, evicted_cost, cost)) {
        if (m->opts.overflow == WEIR_OVERFLOW_DROP_NEWEST ||
            m->opts.overflow == WEIR_OVERFLOW_SAMPLE) {
            m->accepted++;
            model_drop(m, item, WEIR_DROP_NEWEST);
            return WEIR_DROPPED;
        }
        m->refused++;
        return WEIR_EFULL;
    }
    while (evicted-- > 0)
        model_drop(m, model_pop(m).item, WEIR_DROP_OLDEST);
    m->accepted++;
    m->inside[m->depth++] = (entry){item, cost};
    m->cost += cost;
    return WEIR_KEPT;
}

static int model_get(model *m, uintptr_t *ret_item, uint64_t *ret_cost)
{
    if (m->depth == 0)
        return m->closed ? WEIR_ECLOSED : WEIR_EEMPTY;
    entry head = model_pop(m);
    *ret_item = head.item;
    *ret_cost = head.cost;
    m->delivered++;
    if (m->opts.bound_in_flight) {
        m->flying[m->in_flight++] = head;
        m->flying_cost += head.cost;
    }
    return WEIR_OK;
}

static size_t model_discard(model *m)
{
    size_t n = m->depth;
    while (m->depth > 0)
        model_drop(m, model_pop(m).item, WEIR_DROP_DISCARDED);
    return n;
}

/* ---- one step on both --------------------------------------------------------------------------- */

static uint32_t seed;

static uint32_t draw(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

static void step_put(weir_queue *queue, model *m, uintptr_t item)
{
    uint64_t cost = draw(20) ? draw(30) : 90 + draw(30);
    int expected = model_put(m, item, cost);
    assert_int_equal(weir_queue_put(queue, number(item), cost, WEIR_POLL), expected);
}

/* As if there were no room elsewhere. */
static int model_overflow(model *m, uintptr_t item, uint64_t cost)
{
    weir_overflow overflow = m->opts.overflow;
    bool evicts = overflow == WEIR_OVERFLOW_DROP_OLDEST;
    bool too_big = m->opts.max_cost && cost > m->opts.max_cost;
    if (too_big || overflow == WEIR_OVERFLOW_BLOCK || overflow == WEIR_OVERFLOW_FAIL) {
        m->refused++;
        return too_big ? WEIR_ETOOBIG : WEIR_EFULL;
    }
    if (evicts && m->depth > 0) {
        model_drop(m, model_pop(m).item, WEIR_DROP_OLDEST);
        return WEIR_EVICTED;
    }
    m->accepted++;
    model_drop(m, item, WEIR_DROP_NEWEST);
    return WEIR_DROPPED;
}

static void step_overflow(weir_queue *queue, model *m, uintptr_t item)
{
    uint64_t cost = draw(20) ? draw(30) : 90 + draw(30);
    int expected = model_overflow(m, item, cost);
    assert_int_equal(weir_queue_overflow(queue, number(item), cost), expected);
}

static void step_put_many(weir_queue *queue, model *m, uintptr_t item)
{
    void *items[40];
    uint64_t costs[40];
    size_t n = 1 + draw(40);
    for (size_t i = 0; i < n; i++) {
        items[i] = number(item * 64 + i);
        costs[i] = draw(9);
    }
    int64_t taken = 0;
    for (int rc; (size_t)taken < n; taken++)
        if ((rc = model_put(m, (uintptr_t)items[taken], costs[taken])) < 0) {
            taken = taken ? taken : rc;
            break;
        } else {
            model_marks(m);
        }
    assert_int_equal(weir_queue_put_many(queue, items, costs, n, WEIR_POLL), taken);
}

static void step_get(weir_queue *queue, model *m)
{
    uintptr_t expected_item = 0;
    uint64_t expected_cost = 0, cost = 0;
    void *item = NULL;
    int expected = model_get(m, &expected_item, &expected_cost);
    assert_int_equal(weir_queue_get_cost(queue, &item, &cost, WEIR_POLL), expected);
    assert_int_equal((uintptr_t)item, expected_item);
    assert_int_equal(cost, expected_cost);
}

static void step_get_many(weir_queue *queue, model *m)
{
    void *items[50];
    uint64_t costs[50];
    size_t max = 1 + draw(50);
    int64_t n = weir_queue_get_many(queue, items, costs, max, WEIR_POLL, 0);
    uintptr_t item;
    uint64_t cost;
    if (n < 0)
        assert_int_equal(model_get(m, &item, &cost), n);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(model_get(m, &item, &cost), WEIR_OK);
        assert_int_equal((uintptr_t)items[i], item);
        assert_int_equal(costs[i], cost);
    }
    assert_true(n < 0 || (size_t)n == max || m->depth == 0);
}

static void step_done(weir_queue *queue, model *m)
{
    if (m->in_flight == 0) {
        assert_int_equal(weir_queue_done(queue, 1, 0), WEIR_EINVAL);
        return;
    }
    size_t which = draw((uint32_t)m->in_flight);
    uint64_t cost = m->flying[which].cost;
    assert_int_equal(weir_queue_done(queue, 1, cost), WEIR_OK);
    m->flying[which] = m->flying[--m->in_flight];
    m->flying_cost -= cost;
}

static void step_resize(weir_queue *queue, model *m)
{
    m->opts.capacity = 1 + draw(MAX - 1);
    m->opts.max_cost = m->opts.max_cost ? 1 + draw(200) : 0;
    assert_int_equal(weir_queue_resize(queue, m->opts.capacity, m->opts.max_cost), WEIR_OK);
}

static void step(weir_queue *queue, model *m, uintptr_t item)
{
    uint32_t die = draw(1000);
    if (die < 420)
        step_put(queue, m, item);
    else if (die < 430)
        step_overflow(queue, m, item);
    else if (die < 460)
        step_put_many(queue, m, item);
    else if (die < 700)
        step_get(queue, m);
    else if (die < 720)
        step_get_many(queue, m);
    else if (die < 980)
        step_done(queue, m);
    else if (die < 995)
        step_resize(queue, m);
    else
        assert_int_equal(weir_queue_discard(queue), model_discard(m));
    model_marks(m);
}

static void compare(weir_queue *queue, model *m)
{
    assert_int_equal(seen_count, m->drop_count);
    for (size_t i = 0; i < seen_count; i++) {
        assert_int_equal(seen[i].item, m->drops[i].item);
        assert_int_equal(seen[i].reason, m->drops[i].reason);
    }
    seen_count = m->drop_count = 0;
    weir_queue_snapshot now = snapshot_of(queue);
    assert_true(obeys_the_law(&now));
    assert_int_equal(now.depth, m->depth);
    assert_int_equal(now.cost, m->cost);
    assert_int_equal(now.in_flight, m->in_flight);
    assert_int_equal(now.in_flight_cost, m->flying_cost);
    assert_int_equal(now.accepted, m->accepted);
    assert_int_equal(now.delivered, m->delivered);
    assert_int_equal(now.refused, m->refused);
    assert_int_equal(now.above_high, m->above);
}

/* ---- the cases ---------------------------------------------------------------------------------- */

static bool told_above;

static void hear(bool above, void *ctx)
{
    (void)ctx;
    assert_true(above != told_above);
    told_above = above;
}

static weir_queue_opts options(weir_overflow overflow)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = 20;
    opts.overflow = overflow;
    opts.sample_keep_one_of = 3;
    opts.on_drop = see_drop;
    opts.on_watermark = hear;
    return opts;
}

static weir_queue *make(const weir_queue_opts *opts)
{
    weir_queue *queue = NULL;
    seen_count = 0;
    told_above = false;
    assert_int_equal(weir_queue_create(&queue, opts), WEIR_OK);
    return queue;
}

static void agree(weir_overflow overflow, uint64_t max_cost, bool bound_in_flight)
{
    static model m;
    m = (model){.opts = options(overflow)};
    m.opts.max_cost = max_cost;
    m.opts.bound_in_flight = bound_in_flight;
    weir_queue *queue = make(&m.opts);
    seed = (uint32_t)overflow + 1;
    for (uintptr_t item = 1; item <= STEPS; item++) {
        step(queue, &m, item);
        compare(queue, &m);
        assert_int_equal(told_above, m.above);
    }
    weir_queue_close(queue);
    m.closed = true;
    step_put(queue, &m, 1);
    compare(queue, &m);
    while (m.depth > 3)
        step_get(queue, &m);
    model_discard(&m);
    weir_queue_destroy(queue);
    assert_int_equal(seen_count, m.drop_count);
    assert_false(told_above);
}

static weir_overflow policy(void **state)
{
    return *(const weir_overflow *)*state;
}

static void agrees_with_a_plain_model(void **state)
{
    agree(policy(state), 0, false);
}

static void agrees_with_a_plain_model_that_bounds_cost(void **state)
{
    agree(policy(state), 100, false);
}

static void agrees_with_a_plain_model_that_bounds_what_is_in_flight(void **state)
{
    agree(policy(state), 100, true);
}

static void a_closed_queue_refuses_and_drops_nothing(void **state)
{
    weir_queue_opts opts = options(policy(state));
    weir_queue *queue = make(&opts);
    for (uintptr_t n = 0; n < 17; n++)
        weir_queue_put(queue, number(n), 0, WEIR_POLL);
    weir_queue_close(queue);
    for (uintptr_t n = 0; n < 17; n++)
        assert_int_equal(weir_queue_put(queue, number(n), 0, WEIR_FOREVER), WEIR_ECLOSED);
    assert_int_equal(seen_count, 0);
    assert_int_equal(weir_queue_depth(queue), 17);
    weir_queue_destroy(queue);
    assert_int_equal(seen_count, 17);
}

static void a_waiting_getter_gets_the_next_item(void **state)
{
    weir_queue_opts opts = options(policy(state));
    weir_queue *queue = make(&opts);
    other getter = {.queue = queue, .deadline = WEIR_FOREVER};
    start_waiting_get(&getter);
    assert_int_equal(weir_queue_put(queue, number(7), 3, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(finish(&getter), WEIR_OK);
    assert_ptr_equal(getter.item, number(7));
    assert_int_equal(weir_queue_depth(queue), 0);
    weir_queue_destroy(queue);
}

#define FOR_EACH_POLICY(X)                                                                         \
    X(BLOCK)                                                                                       \
    X(FAIL)                                                                                        \
    X(DROP_NEWEST)                                                                                 \
    X(DROP_OLDEST)                                                                                 \
    X(SAMPLE)

#define X(name) static weir_overflow policy_##name = WEIR_OVERFLOW_##name;
FOR_EACH_POLICY(X)
#undef X

int main(void)
{
#define CASE(name, function) {#name " " #function, function, NULL, NULL, &policy_##name}
#define X(name)                                                                                    \
    CASE(name, agrees_with_a_plain_model), CASE(name, agrees_with_a_plain_model_that_bounds_cost), \
        CASE(name, agrees_with_a_plain_model_that_bounds_what_is_in_flight),                       \
        CASE(name, a_closed_queue_refuses_and_drops_nothing),                                      \
        CASE(name, a_waiting_getter_gets_the_next_item),
    const struct CMUnitTest tests[] = {FOR_EACH_POLICY(X)};
#undef X
    return cmocka_run_group_tests(tests, NULL, NULL);
}
