/* Limits that are found: the published vectors, the edges, and a backend of which the right limit
 * is known, in simulated time. */
#include "contract/support.h"

#include "model/adaptive.h"

#define MS     INT64_C(1000000)
#define SECOND INT64_C(1000000000)

static weir__adaptive_opts options(weir__adapt algorithm, uint64_t initial)
{
    return (weir__adaptive_opts){
        .algorithm = algorithm,
        .initial = initial,
        .floor = 1,
        .ceiling = 1000,
        .aimd = WEIR__AIMD_INIT,
        .vegas = WEIR__VEGAS_INIT,
        .gradient2 = WEIR__GRADIENT2_INIT,
        .window_samples = 10,
        .probe_interval_ns = 10 * SECOND,
        .seed = 7,
    };
}

/* ---- the source's own tests: each sample a window, the baseline the least seen
 * ------------------- */

static weir__adaptive published(weir__adapt algorithm, uint64_t initial, uint64_t ceiling)
{
    weir__adaptive_opts opts = options(algorithm, initial);
    opts.ceiling = ceiling;
    opts.vegas.alpha = initial < 1000 ? 3 : 12;
    opts.vegas.beta = initial < 1000 ? 6 : 24;
    opts.gradient2.tolerance = 1.5;
    opts.gradient2.queue = 4;
    opts.window_samples = 1;
    opts.probe_interval_ns = 0;
    weir__adaptive adaptive;
    weir__adaptive_init(&adaptive, &opts, 0);
    return adaptive;
}

/* The limit after one more sample, long after the one before. */
static uint64_t after(weir__adaptive *adaptive, int64_t rtt_ms, uint64_t in_flight, bool dropped)
{
    int64_t now = adaptive->window.closes_at + 10 * SECOND;
    return weir__adaptive_sample(adaptive, now, rtt_ms * MS, in_flight, dropped);
}

static void aimd_as_in_AIMDLimitTest(void **state)
{
    (void)state;
    weir__adaptive up = published(WEIR__AIMD, 10, 200), down = up;
    assert_int_equal(weir__adaptive_limit(&up), 10);
    assert_int_equal(after(&up, 1, 10, false), 11);
    assert_int_equal(after(&down, 1, 1, true), 9);
}

static void vegas_as_in_VegasLimitTest(void **state)
{
    (void)state;
    weir__adaptive up = published(WEIR__VEGAS, 10, 20), down = up, same = up;
    assert_int_equal(after(&up, 10, 10, false), 10);
    assert_int_equal(after(&up, 10, 11, false), 16);
    assert_int_equal(after(&down, 10, 10, false), 10);
    assert_int_equal(after(&down, 50, 11, false), 9);
    assert_int_equal(after(&same, 10, 10, false), 10);
    assert_int_equal(after(&same, 14, 14, false), 10);
    weir__adaptive large = published(WEIR__VEGAS, 10000, 20000);
    assert_int_equal(after(&large, 10000, 5000, false), 10000);
    assert_int_equal(after(&large, 10000, 6000, false), 10024);
}

static void gradient2_as_its_formula_says(void **state)
{
    (void)state;
    weir__adaptive limit = published(WEIR__GRADIENT2, 20, 200);
    assert_int_equal(after(&limit, 10, 20, false), 20);
    assert_int_equal(after(&limit, 10, 20, false), 20); /* 20.8: 0.8 x 20 + 0.2 x (20 + 4) */
    assert_int_equal(after(&limit, 10, 20, false), 21); /* 21.6 */
    assert_int_equal(after(&limit, 10, 5, false), 21);  /* the application is what limits */
    assert_int_equal(after(&limit, 15, 20, false), 22); /* 22.4: 1.5 times is tolerated */
    assert_int_equal(after(&limit, 20, 20, false), 22); /* 22.08: g = 0.75 */
    assert_int_equal(after(&limit, 90, 20, false), 20); /* 20.67: g = 0.5, not less */
}

/* ---- the edges ------------------------------------------------------------------------------ */

static void it_does_not_grow_where_the_application_is_what_limits(void **state)
{
    (void)state;
    for (int algorithm = WEIR__AIMD; algorithm <= WEIR__GRADIENT2; algorithm++) {
        weir__adaptive limit = published((weir__adapt)algorithm, 20, 200);
        for (int i = 0; i < 100; i++)
            assert_int_equal(after(&limit, 10, 9, false), 20);
        assert_int_equal(limit.reason, WEIR__LIMIT_IDLE);
    }
}

static void floor_and_ceiling_are_never_left(void **state)
{
    (void)state;
    for (int algorithm = WEIR__AIMD; algorithm <= WEIR__GRADIENT2; algorithm++) {
        weir__adaptive_opts opts = options((weir__adapt)algorithm, 10);
        opts.floor = 4;
        opts.ceiling = 15;
        opts.window_samples = 1;
        opts.probe_interval_ns = 0;
        weir__adaptive limit;
        weir__adaptive_init(&limit, &opts, 0);
        for (int i = 0; i < 300; i++)
            assert_in_range(after(&limit, 10, 15, false), 4, 15);
        assert_int_equal(weir__adaptive_limit(&limit), 15);
        assert_int_equal(limit.reason, WEIR__LIMIT_CEILING);
        for (int i = 0; i < 300; i++)
            assert_in_range(after(&limit, 10, 15, true), 4, 15);
        assert_int_equal(weir__adaptive_limit(&limit), 4);
        assert_int_equal(limit.reason, WEIR__LIMIT_FLOOR);
    }
}

static void a_drop_makes_each_of_them_smaller_at_once(void **state)
{
    (void)state;
    for (int algorithm = WEIR__AIMD; algorithm <= WEIR__GRADIENT2; algorithm++) {
        weir__adaptive limit = published((weir__adapt)algorithm, 50, 200);
        after(&limit, 10, 50, false);
        uint64_t before = weir__adaptive_limit(&limit);
        assert_true(after(&limit, 10, 50, true) < before);
        assert_int_equal(limit.reason, WEIR__LIMIT_DROPS);
    }
}

static void a_call_that_took_too_long_was_dropped(void **state)
{
    (void)state;
    weir__adaptive_opts opts = options(WEIR__AIMD, 10);
    opts.timeout_ns = 100 * MS;
    weir__adaptive limit;
    weir__adaptive_init(&limit, &opts, 0);
    assert_int_equal(weir__adaptive_sample(&limit, SECOND, 100 * MS, 10, false), 10);
    assert_int_equal(weir__adaptive_sample(&limit, 2 * SECOND, 101 * MS, 10, false), 9);
}

static void a_hundred_drops_of_one_overload_are_one(void **state)
{
    (void)state;
    weir__adaptive limit = published(WEIR__AIMD, 100, 200);
    for (int i = 0; i < 100; i++)
        weir__adaptive_sample(&limit, SECOND + i, 10 * MS, 100, true);
    assert_int_equal(weir__adaptive_limit(&limit), 90);
    assert_int_equal(limit.drops, 100);
}

/* ---- a backend ------------------------------------------------------------------------------ */

/* `capacity` servers and a line before them, of any length or so many; more come as soon as the
 * limit lets them. */
typedef struct backend {
    unsigned capacity;
    unsigned patience; /* at most so many wait: others are refused, and come again in 1 ms */
    int64_t base_ns, spread_ns; /* service times are uniform in base +- spread */
    uint64_t random;
    int64_t now;
    unsigned busy, head, tail;
    uint64_t in_flight, limit;
    struct {
        int64_t end, began;
    } served[1024];
    int64_t waiting[1024];
    weir__adaptive adaptive;
} backend;

/* What was seen in a stretch of time. */
typedef struct outcome {
    double limit;      /* average over time */
    double off;        /* share of the time in which it was more than 10 % off */
    double latency_ms; /* average */
    double worst_ms;
} outcome;

static backend backend_with(const weir__adaptive_opts *opts)
{
    backend it = {
        .capacity = 40,
        .patience = UINT32_MAX,
        .base_ns = 10 * MS,
        .spread_ns = 2 * MS,
        .random = 88172645463325252u,
        .limit = opts->initial,
    };
    weir__adaptive_init(&it.adaptive, opts, 0);
    return it;
}

static int64_t service_time(backend *it)
{
    it->random ^= it->random << 13;
    it->random ^= it->random >> 7;
    it->random ^= it->random << 17;
    return it->base_ns - it->spread_ns + (int64_t)(it->random % (uint64_t)(2 * it->spread_ns + 1));
}

static void serve(backend *it)
{
    while (it->busy < it->capacity && it->head != it->tail) {
        it->served[it->busy].began = it->waiting[it->head++ % 1024];
        it->served[it->busy++].end = it->now + service_time(it);
    }
}

/* As many as the limit lets come; false: one was refused. */
static bool arrive(backend *it)
{
    while (it->in_flight < it->limit) {
        if (it->busy >= it->capacity && it->tail - it->head >= it->patience) {
            uint64_t in_flight = it->in_flight + 1;
            it->limit = weir__adaptive_sample(&it->adaptive, it->now, MS / 10, in_flight, true);
            return false;
        }
        it->in_flight++;
        it->waiting[it->tail++ % 1024] = it->now;
        serve(it);
    }
    return true;
}

/* Time passes until the next call ends; its round trip. */
static int64_t end_one(backend *it)
{
    unsigned first = 0;
    for (unsigned i = 1; i < it->busy; i++)
        if (it->served[i].end < it->served[first].end)
            first = i;
    it->now = it->served[first].end;
    int64_t rtt = it->now - it->served[first].began;
    it->served[first] = it->served[--it->busy];
    serve(it);
    it->limit = weir__adaptive_sample(&it->adaptive, it->now, rtt, it->in_flight, false);
    it->in_flight--;
    return rtt;
}

static outcome run(backend *it, int64_t until)
{
    outcome seen = {0};
    int64_t from = it->now, quiet_until = 0;
    uint64_t ended = 0;
    while (it->now < until) {
        if (it->now >= quiet_until && !arrive(it))
            quiet_until = it->now + MS;
        int64_t before = it->now;
        double limit = (double)it->limit, capacity = it->capacity;
        double rtt = (double)end_one(it) / 1e6;
        double span = (double)(it->now - before);
        seen.limit += limit * span;
        seen.off += limit < 0.9 * capacity || limit > 1.1 * capacity ? span : 0;
        seen.latency_ms += rtt;
        seen.worst_ms = rtt > seen.worst_ms ? rtt : seen.worst_ms;
        ended++;
    }
    seen.limit /= (double)(it->now - from);
    seen.off /= (double)(it->now - from);
    seen.latency_ms /= (double)ended;
    return seen;
}

static void say(const char *what, const backend *it, outcome seen)
{
    print_message("%s: capacity %u, limit %.1f, off %.0f %%, latency %.1f ms, worst %.1f ms\n",
                  what, it->capacity, seen.limit, 100 * seen.off, seen.latency_ms, seen.worst_ms);
}

/* The capacity is 40, then 20, then 40; each for ten seconds, of which five are for finding it. */
static void finds_it_with(const char *name, const weir__adaptive_opts *opts, unsigned patience,
                          uint64_t random)
{
    const unsigned capacities[] = {40, 20, 40};
    backend it = backend_with(opts);
    it.patience = patience;
    it.random = random;
    for (int64_t i = 0; i < 3; i++) {
        it.capacity = capacities[i];
        outcome search = run(&it, (10 * i + 5) * SECOND), found = run(&it, (10 * i + 10) * SECOND);
        say(name, &it, found);
        assert_true(found.limit > 0.9 * it.capacity && found.limit < 1.1 * it.capacity);
        assert_true(found.off < 0.1);
        assert_true(found.latency_ms < 12 && found.worst_ms < 20);
        /* the halves' first calls found 42 in flight before 20 servers: nothing can help those */
        say("    before", &it, search);
        assert_true(search.latency_ms < 20 && search.worst_ms < 30);
    }
}

static void finds_it(const char *name, const weir__adaptive_opts *opts, unsigned patience)
{
    for (uint64_t i = 1; i <= 8; i++)
        finds_it_with(name, opts, patience, i * 88172645463325253u);
}

static void aimd_finds_the_capacity_of_a_backend_that_refuses(void **state)
{
    (void)state;
    weir__adaptive_opts opts = options(WEIR__AIMD, 20);
    finds_it("aimd, refusals", &opts, 1);
}

static void aimd_finds_it_by_a_timeout(void **state)
{
    (void)state; /* 13 ms, where a call alone takes 8 to 12 */
    weir__adaptive_opts opts = options(WEIR__AIMD, 20);
    opts.timeout_ns = 13 * MS;
    finds_it("aimd, timeout", &opts, UINT32_MAX);
}

static void aimd_without_drops_grows_to_its_ceiling(void **state)
{
    (void)state; /* it sees no latency: this is why it needs a timeout or a backend that refuses */
    weir__adaptive_opts opts = options(WEIR__AIMD, 20);
    opts.ceiling = 200;
    backend it = backend_with(&opts);
    outcome seen = run(&it, 30 * SECOND);
    say("aimd, neither", &it, seen);
    assert_int_equal(it.limit, 200);
}

static void vegas_finds_the_capacity(void **state)
{
    (void)state;
    weir__adaptive_opts opts = options(WEIR__VEGAS, 20);
    finds_it("vegas", &opts, UINT32_MAX);
}

static void gradient2_finds_the_capacity(void **state)
{
    (void)state;
    weir__adaptive_opts opts = options(WEIR__GRADIENT2, 20);
    finds_it("gradient2", &opts, UINT32_MAX);
}

static void a_start_far_above_the_capacity_is_corrected(void **state)
{
    (void)state;
    for (int algorithm = WEIR__VEGAS; algorithm <= WEIR__GRADIENT2; algorithm++) {
        weir__adaptive_opts opts = options((weir__adapt)algorithm, 300);
        backend it = backend_with(&opts);
        run(&it, 5 * SECOND);
        outcome found = run(&it, 10 * SECOND);
        say("from 300", &it, found);
        assert_true(found.limit > 36 && found.limit < 44);
    }
}

/* Nothing but time: the baseline neither drifts up with the queue nor down with the noise. */
static void an_hour_later_it_is_still_right(void **state)
{
    (void)state;
    for (int algorithm = WEIR__VEGAS; algorithm <= WEIR__GRADIENT2; algorithm++) {
        weir__adaptive_opts opts = options((weir__adapt)algorithm, 4);
        backend it = backend_with(&opts);
        it.capacity = 8;
        run(&it, 5 * SECOND);
        outcome hour = run(&it, 3600 * SECOND);
        say("an hour", &it, hour);
        assert_true(hour.limit > 7 && hour.limit < 10);
        assert_true(hour.latency_ms < 13);
    }
}

static void probing_costs_less_than_one_per_cent(void **state)
{
    (void)state;
    for (int algorithm = WEIR__VEGAS; algorithm <= WEIR__GRADIENT2; algorithm++) {
        weir__adaptive_opts opts = options((weir__adapt)algorithm, 40);
        backend it = backend_with(&opts);
        run(&it, 5 * SECOND);
        uint64_t before = it.adaptive.samples;
        run(&it, 105 * SECOND);
        double rate = (double)(it.adaptive.samples - before) / 100;
        print_message("%.0f calls a second of 4000\n", rate);
        assert_true(rate > 3960);
    }
}

static void calls_that_get_slower_for_good_do_not_starve_it(void **state)
{
    (void)state;
    for (int algorithm = WEIR__VEGAS; algorithm <= WEIR__GRADIENT2; algorithm++) {
        weir__adaptive_opts opts = options((weir__adapt)algorithm, 20);
        backend it = backend_with(&opts);
        run(&it, 10 * SECOND);
        it.base_ns = 20 * MS;
        run(&it, 25 * SECOND);
        outcome found = run(&it, 30 * SECOND);
        say("twice as slow", &it, found);
        assert_true(found.limit > 36 && found.limit < 44);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aimd_as_in_AIMDLimitTest),
        cmocka_unit_test(vegas_as_in_VegasLimitTest),
        cmocka_unit_test(gradient2_as_its_formula_says),
        cmocka_unit_test(it_does_not_grow_where_the_application_is_what_limits),
        cmocka_unit_test(floor_and_ceiling_are_never_left),
        cmocka_unit_test(a_drop_makes_each_of_them_smaller_at_once),
        cmocka_unit_test(a_call_that_took_too_long_was_dropped),
        cmocka_unit_test(a_hundred_drops_of_one_overload_are_one),
        cmocka_unit_test(aimd_finds_the_capacity_of_a_backend_that_refuses),
        cmocka_unit_test(aimd_finds_it_by_a_timeout),
        cmocka_unit_test(aimd_without_drops_grows_to_its_ceiling),
        cmocka_unit_test(vegas_finds_the_capacity),
        cmocka_unit_test(gradient2_finds_the_capacity),
        cmocka_unit_test(a_start_far_above_the_capacity_is_corrected),
        cmocka_unit_test(an_hour_later_it_is_still_right),
        cmocka_unit_test(probing_costs_less_than_one_per_cent),
        cmocka_unit_test(calls_that_get_slower_for_good_do_not_starve_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
