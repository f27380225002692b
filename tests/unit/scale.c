/* model/scale.h: a stage in simulated time, of which the right number of workers is known. */
#include "contract/support.h"

#include "model/scale.h"
#include "unit/chance.h"

/* ---- a stage in simulated time ---------------------------------------------------------------- */

#define MOST  128 /* workers */
#define NEVER 1e300

typedef enum spread { FIXED, EXPONENTIAL } spread;

/* What comes and what an item takes.  Times are in seconds. */
typedef struct demand {
    double per_s;
    unsigned batch; /* items that come at once; 0: one */
    double service;
    spread distribution;
    size_t capacity; /* of the queue; 0: no bound */
    bool
        catches_up; /* who waited for room has what he could not bring meanwhile, up to 0.5 s of it */
    bool loses;     /* what finds no room is lost; else who brings it waits */
    double slot;    /* downstream takes one item in so long; 0: at once */
    double cpus;    /* that all workers share; 0: each has its own */
} demand;

/* A worker that works until `until`, and waits downstream until `gone`. */
typedef struct job {
    double until, gone;
} job;

typedef struct stage {
    demand load;
    weir__scale scale;
    weir__scale_sample counts;
    double now, due, next_arrival, next_slot;
    unsigned busy, waiting, pending; /* workers; items that wait for room */
    job jobs[2 * MOST];
    unsigned running;
    double busy_s, idle_s, blocked_s, refused_s;
    unsigned producers;          /* that stand in for one: all wait while it does; 0: one */
    unsigned least, most, turns; /* workers since the last look; changes of direction */
    int direction;
    bool is_slow; /* workers take time to come and go */
    weir__random random;
} stage;

static stage stage_of(demand load, unsigned min, unsigned max, uint64_t seed)
{
    stage s = {.load = load, .random = {seed}, .counts = {.workers = min}};
    weir__scale_terms terms = {min, max};
    s.counts.capacity = load.capacity;
    weir__scale_init(&s.scale, &terms, 0);
    return s;
}

static double next_arrival(stage *s)
{
    unsigned batch = s->load.batch ? s->load.batch : 1;
    if (!s->load.catches_up || s->due < s->now - 0.5)
        s->due = s->now;
    s->due += exponential(&s->random, batch / s->load.per_s);
    return s->due > s->now ? s->due : s->now;
}

static double service_time(stage *s)
{
    double time =
        s->load.distribution == FIXED ? s->load.service : exponential(&s->random, s->load.service);
    double crowd = s->load.cpus > 0 ? (s->busy + 1) / s->load.cpus : 1;
    return crowd > 1 ? time * crowd : time;
}

static void begin(stage *s)
{
    job *j = &s->jobs[s->running++];
    j->until = s->now + service_time(s);
    j->gone = 0;
    s->busy++;
    s->counts.depth--;
}

/* The queue takes what waits for room, and the workers what is in it. */
static void settle(stage *s)
{
    bool goes_on = true;
    while (goes_on) {
        goes_on = false;
        while (s->pending && (!s->load.capacity || s->counts.depth < s->load.capacity)) {
            s->pending--;
            s->counts.depth++;
            s->counts.arrived++;
            if (!s->pending)
                s->next_arrival = next_arrival(s);
            goes_on = true;
        }
        while (s->counts.depth && s->running < s->counts.workers) {
            begin(s);
            goes_on = true;
        }
    }
}

static void arrive(stage *s)
{
    s->pending += s->load.batch ? s->load.batch : 1;
    if (!s->load.loses) {
        s->next_arrival = NEVER;
        settle(s);
        return;
    }
    settle(s);
    s->counts.arrived += s->pending;
    s->counts.lost += s->pending;
    s->pending = 0;
    s->next_arrival = next_arrival(s);
}

static void end_job(stage *s, unsigned at)
{
    job *j = &s->jobs[at];
    if (!j->gone) {
        s->busy--;
        s->waiting++;
        s->counts.done++;
        j->gone = s->next_slot > s->now ? s->next_slot : s->now;
        s->next_slot = j->gone + s->load.slot;
        if (j->gone > s->now) {
            j->until = j->gone;
            return;
        }
    }
    s->waiting--;
    s->jobs[at] = s->jobs[--s->running];
    settle(s);
}

static void pass_time(stage *s, double until)
{
    double dt = until - s->now;
    s->busy_s += dt * s->busy;
    s->blocked_s += dt * s->waiting;
    s->idle_s += s->running < s->counts.workers ? dt * (s->counts.workers - s->running) : 0;
    s->refused_s += s->pending ? dt * (s->producers ? s->producers : 1) : 0;
    s->now = until;
}

static void go_to(stage *s, double end)
{
    for (;;) {
        unsigned first = 0;
        for (unsigned i = 1; i < s->running; i++)
            if (s->jobs[i].until < s->jobs[first].until)
                first = i;
        double job_ends = s->running ? s->jobs[first].until : NEVER;
        if (job_ends > end && s->next_arrival > end)
            break;
        if (job_ends < s->next_arrival) {
            pass_time(s, job_ends);
            end_job(s, first);
        } else {
            pass_time(s, s->next_arrival);
            arrive(s);
        }
    }
    pass_time(s, end);
}

static void sample(stage *s)
{
    weir__scale_sample *c = &s->counts;
    c->now = (weir_time)(s->now * 1e9);
    c->busy_ns = (uint64_t)(s->busy_s * 1e9);
    c->idle_ns = (uint64_t)(s->idle_s * 1e9);
    c->blocked_ns = (uint64_t)(s->blocked_s * 1e9);
    c->upstream_blocked_ns = (uint64_t)(s->refused_s * 1e9);
    unsigned before = s->scale.wanted, wanted = weir__scale_step(&s->scale, c);
    int direction = wanted > before ? 1 : wanted < before ? -1 : 0;
    s->turns += direction && s->direction && direction != s->direction;
    if (direction)
        s->direction = direction;
    if (!s->is_slow)
        c->workers = wanted;
    else if (wanted > c->workers)
        c->workers += (wanted - c->workers + 4) / 5;
    else
        c->workers = wanted > s->running ? wanted : s->running;
    settle(s);
}

static void run(stage *s, double seconds)
{
    unsigned samples = (unsigned)(seconds * 10 + 0.5);
    s->least = s->most = s->counts.workers;
    for (unsigned i = 0; i < samples; i++) {
        go_to(s, s->now + 0.1);
        sample(s);
        s->least = s->counts.workers < s->least ? s->counts.workers : s->least;
        s->most = s->counts.workers > s->most ? s->counts.workers : s->most;
    }
}

/* ---- the right number ------------------------------------------------------------------------- */

/* The fewest workers that carry the load without a growing queue. */
static unsigned right(const stage *s)
{
    return (unsigned)(s->load.per_s * s->load.service) + 1;
}

/* Within a fifth, or one; and within what five seconds of such arrivals can tell: of 15 items, say,
 * nobody knows the rate to a fifth.  In squares: two standard errors of what comes in 3 s. */
static bool is_right(const stage *s)
{
    double best = right(s), wanted = s->scale.wanted;
    double off = wanted > best ? wanted - best : best - wanted;
    double beyond = off - 0.2 * best, items = 3 * s->load.per_s;
    return off <= 1 || beyond <= 0 || beyond * beyond <= 4 * best * best / items;
}

static const double services[] = {0.001, 0.01, 0.1, 0.5, 1, 2};

#define COUNT(array) (sizeof(array) / sizeof *(array))

typedef struct looks {
    unsigned looks, right;
} looks;

static void look(const stage *s, looks *score)
{
    score->looks++;
    score->right += is_right(s);
}

/* A load that triples, and falls back. */
static void step_up_and_down(demand load, uint64_t seed, looks *score)
{
    stage s = stage_of(load, 1, MOST, seed);
    run(&s, 20);
    s.load.per_s = 3 * load.per_s;
    run(&s, 5);
    look(&s, score);
    run(&s, 20);
    look(&s, score);
    s.load.per_s = load.per_s;
    run(&s, 5);
    look(&s, score);
    run(&s, 20);
    look(&s, score);
}

static void step_each(spread distribution, size_t capacity, bool loses)
{
    static const double loads[] = {2.5, 6, 12, 21};
    looks score = {0};
    for (size_t i = 0; i < COUNT(services); i++)
        for (size_t j = 0; j < COUNT(loads); j++) {
            double per_s = loads[j] / services[i];
            if (per_s > 2500 ||
                per_s < 10) /* of fewer items 5 s do not tell that there was a step */
                continue;
            for (uint64_t seed = 1; seed <= 3; seed++)
                step_up_and_down((demand){.per_s = per_s,
                                          .service = services[i],
                                          .distribution = distribution,
                                          .capacity = capacity,
                                          .loses = loses},
                                 seed, &score);
        }
    assert_in_range(score.looks, 100, 1000);
    if (score.right * 100 < score.looks * 97)
        fail_msg("%u of %u were right", score.right, score.looks);
}

static void a_load_that_triples_and_falls_back_is_followed_within_5_s(void **state)
{
    (void)state;
    step_each(EXPONENTIAL, 64, false);
    step_each(FIXED, 64, false);
}

static void a_short_queue_does_not_hide_the_load(void **state)
{
    (void)state;
    step_each(EXPONENTIAL, 8, false);
    step_each(FIXED, 4, false);
}

/* Half a second of it is more for a while; it is worked off, and gone from the estimate in 15 s. */
static void who_catches_up_with_what_he_could_not_bring_is_followed_too(void **state)
{
    (void)state;
    looks score = {0};
    for (uint64_t seed = 1; seed <= 20; seed++) {
        demand late = {.per_s = 250, .service = 0.02, .capacity = 32, .catches_up = true};
        if (seed % 2)
            late = (demand){.per_s = 100, .service = 0.1, .capacity = 32, .catches_up = true};
        stage s = stage_of(late, 1, MOST, seed);
        run(&s, 20);
        s.load.per_s *= 3;
        run(&s, 15);
        look(&s, &score);
        assert_true(s.most < 3 * right(&s));
        s.load.per_s /= 3;
        run(&s, 5);
        look(&s, &score);
    }
    if (score.right * 100 < score.looks * 95)
        fail_msg("%u of %u were right", score.right, score.looks);
}

static void nor_does_one_that_loses_items_or_has_no_bound(void **state)
{
    (void)state;
    step_each(EXPONENTIAL, 8, true);
    step_each(EXPONENTIAL, 0, false);
}

/* ---- steady ----------------------------------------------------------------------------------- */

/* Ten minutes, after one to get there; a change of direction a minute at most, and never far off. */
static void stay(demand load, uint64_t seed)
{
    stage s = stage_of(load, 1, MOST, seed);
    run(&s, 60);
    unsigned turns = s.turns;
    run(&s, 600);
    turns = s.turns - turns;
    double best = right(&s), noise = load.batch > 1 ? 2 : 1.7;
    if (turns > 10 || s.most > noise * best + 2)
        fail_msg("%.4g/s of %.4g s, capacity %zu: %u turns, %u to %u workers", load.per_s,
                 load.service, load.capacity, turns, s.least, s.most);
}

static void stay_at_each(unsigned batch)
{
    static const double loads[] = {0.6, 2.5, 6, 21, 50};
    static const size_t capacities[] = {0, 16, 128};
    for (size_t i = 0; i < COUNT(services); i++)
        for (size_t j = 0; j < COUNT(loads); j++)
            for (int distribution = FIXED; distribution <= EXPONENTIAL; distribution++) {
                double per_s = loads[j] / services[i];
                if (per_s < 300)
                    stay((demand){.per_s = per_s,
                                  .batch = batch,
                                  .service = services[i],
                                  .distribution = (spread)distribution,
                                  .capacity = capacities[(i + j) % 3]},
                         7 * i + j);
            }
}

static void steady_noisy_load_changes_the_direction_once_a_minute_at_most(void **state)
{
    (void)state;
    stay_at_each(1);
}

static void so_does_one_that_comes_in_batches(void **state)
{
    (void)state;
    stay_at_each(10);
}

/* ---- where more would not help ---------------------------------------------------------------- */

static void it_does_not_grow_while_it_is_blocked_downstream(void **state)
{
    (void)state;
    demand slow_end = {.per_s = 500, .service = 0.01, .capacity = 16, .slot = 0.006};
    stage s = stage_of(slow_end, 2, MOST, 1);
    run(&s, 60);
    assert_int_equal(s.most, 2);
    s.load.slot = 0; /* but as soon as it is not */
    run(&s, 5);
    assert_true(is_right(&s));
    s.load.slot = 0.02;
    run(&s, 1);
    unsigned then = s.counts.workers;
    run(&s, 60);
    assert_true(s.most <= then);
}

static void it_does_not_grow_while_its_own_limits_hold_it(void **state)
{
    (void)state;
    weir__scale scale;
    weir__scale_terms terms = {1, 64};
    weir__scale_sample s = {.capacity = 10, .depth = 10, .workers = 4};
    weir__scale_init(&scale, &terms, 0);
    for (int i = 0; i < 600; i++) { /* a rate of 10/s: 0.1 s of 4 workers' 0.4 s is work */
        s.now += 100 * WEIR_MILLISECOND;
        s.arrived += 1;
        s.done += 1;
        s.busy_ns += 100 * (uint64_t)WEIR_MILLISECOND;
        s.held_ns += 300 * (uint64_t)WEIR_MILLISECOND;
        s.upstream_blocked_ns += 90 * (uint64_t)WEIR_MILLISECOND;
        assert_true(weir__scale_step(&scale, &s) <= 4);
    }
}

static void growth_that_was_in_vain_is_taken_back_and_not_repeated_soon(void **state)
{
    (void)state;
    demand one_cpu = {.per_s = 400, .service = 0.005, .capacity = 32, .cpus = 1};
    stage s = stage_of(one_cpu, 1, 32, 5);
    run(&s, 20);
    assert_true(s.most > 1); /* it was tried */
    assert_in_range(s.counts.workers, 1, 2);
    double before = (double)s.counts.done;
    run(&s, 80);
    assert_in_range(s.most, 1, 2);
    assert_true((double)s.counts.done - before > 0.9 * 200 * 80); /* as fast as one CPU is */
    unsigned turns = s.turns;
    run(&s, 900);
    assert_true(s.turns - turns <= 8); /* 2, 4, 8 minutes apart */
}

static void growth_that_helps_is_not_taken_for_vain(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        demand eager = {.per_s = 900, .service = 0.05, .distribution = EXPONENTIAL, .capacity = 32};
        stage s = stage_of(eager, 1, MOST, seed);
        run(&s, 10);
        assert_true(is_right(&s));
        run(&s, 60);
        assert_true(s.least >= 40 && s.most <= 55);
    }
}

/* ---- bounds and edges ------------------------------------------------------------------------- */

static void it_stays_between_its_bounds(void **state)
{
    (void)state;
    demand heavy = {.per_s = 1000, .service = 0.1, .capacity = 16};
    stage s = stage_of(heavy, 3, 10, 1);
    run(&s, 30);
    assert_int_equal(s.least, 3);
    assert_int_equal(s.counts.workers, 10);
    s.load.per_s = 0.1;
    run(&s, 200);
    assert_int_equal(s.most, 10);
    assert_int_equal(s.counts.workers, 3);
    stage fixed = stage_of(heavy, 5, 5, 1);
    run(&fixed, 30);
    assert_true(fixed.least == 5 && fixed.most == 5);
}

static void a_number_out_of_its_bounds_is_led_back(void **state)
{
    (void)state;
    weir__scale_terms terms = {2, 8};
    for (unsigned workers = 0; workers < 20; workers++) {
        weir__scale scale;
        weir__scale_init(&scale, &terms, WEIR_SECOND);
        weir__scale_sample s = {.now = 2 * WEIR_SECOND, .workers = workers};
        unsigned expected = workers < 2 ? 2 : workers > 8 ? 8 : workers;
        assert_int_equal(weir__scale_step(&scale, &s), expected);
    }
}

/* Those that come start within a second, those that go finish what they do. */
static void workers_that_take_time_to_come_and_to_go_are_waited_for(void **state)
{
    (void)state;
    looks score = {0};
    for (uint64_t seed = 1; seed <= 10; seed++) {
        stage s = stage_of((demand){.per_s = 20, .service = 1, .capacity = 64}, 1, MOST, seed);
        s.is_slow = true;
        run(&s, 40);
        unsigned turns = s.turns;
        s.load.per_s = 60;
        run(&s, 6);
        look(&s, &score);
        run(&s, 20);
        s.load.per_s = 20;
        run(&s, 6);
        look(&s, &score);
        run(&s, 20);
        look(&s, &score);
        assert_true(s.turns - turns <= 3);
    }
    assert_true(score.right >= score.looks - 1);
}

/* A second of work at most is left to the queue; what goes on for longer is followed. */
static void short_bursts_are_left_to_the_queue_and_long_ones_followed(void **state)
{
    (void)state;
    for (int is_long = 0; is_long <= 1; is_long++) {
        demand bursts = {
            .per_s = 300, .service = 0.02, .distribution = EXPONENTIAL, .capacity = 512};
        stage s = stage_of(bursts, 1, MOST, 9);
        unsigned turns = 0;
        for (int i = 0; i < (is_long ? 10 : 300); i++) {
            s.load.per_s = 300;
            s.next_arrival = s.now;
            run(&s, is_long ? 30 : 0.3);
            assert_true(!is_long || is_right(&s));
            s.load.per_s = 0.01;
            s.next_arrival = NEVER;
            run(&s, is_long ? 60 : 0.7);
            assert_true(!is_long || s.counts.workers == 1);
            assert_true(s.counts.depth < 400);
            turns = i < 2 ? s.turns : turns;
        }
        assert_in_range(s.turns - turns, 0, is_long ? 27 : 5);
    }
}

static void it_grows_at_most_to_the_double_in_a_step(void **state)
{
    (void)state;
    demand sudden = {.per_s = 5000, .service = 0.02, .capacity = 64};
    stage s = stage_of(sudden, 1, MOST, 3);
    unsigned before = 1;
    for (int i = 0; i < 50; i++) {
        run(&s, 0.1);
        assert_true(s.counts.workers <= 2 * before);
        before = s.counts.workers;
    }
    assert_true(is_right(&s));
}

static void several_producers_count_each(void **state)
{
    (void)state;
    demand busy = {.per_s = 200, .service = 0.1, .capacity = 8};
    stage s = stage_of(busy, 1, MOST, 4);
    s.counts.producers = 4;
    s.producers = 4;
    run(&s, 8);
    assert_in_range(s.counts.workers, 18, 27);
}

static void when_nothing_comes_any_more_it_goes_back_to_the_least(void **state)
{
    (void)state;
    demand busy = {.per_s = 200, .service = 0.1, .capacity = 32};
    stage s = stage_of(busy, 1, MOST, 4);
    run(&s, 20);
    s.next_arrival = NEVER;
    run(&s, 6);
    assert_int_equal(s.counts.workers, 1);
}

static void a_sample_of_the_same_instant_or_of_nothing_changes_nothing(void **state)
{
    (void)state;
    weir__scale scale;
    weir__scale_terms terms = {2, 8};
    weir__scale_init(&scale, &terms, WEIR_SECOND);
    weir__scale_sample s = {.now = WEIR_SECOND, .workers = 2};
    assert_int_equal(weir__scale_step(&scale, &s), 2);
    for (int i = 0; i < 100; i++) {
        s.now += 100 * WEIR_MILLISECOND;
        assert_int_equal(weir__scale_step(&scale, &s), 2);
    }
    assert_true(weir__scale_load(&scale) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_load_that_triples_and_falls_back_is_followed_within_5_s),
        cmocka_unit_test(a_short_queue_does_not_hide_the_load),
        cmocka_unit_test(who_catches_up_with_what_he_could_not_bring_is_followed_too),
        cmocka_unit_test(nor_does_one_that_loses_items_or_has_no_bound),
        cmocka_unit_test(steady_noisy_load_changes_the_direction_once_a_minute_at_most),
        cmocka_unit_test(so_does_one_that_comes_in_batches),
        cmocka_unit_test(it_does_not_grow_while_it_is_blocked_downstream),
        cmocka_unit_test(it_does_not_grow_while_its_own_limits_hold_it),
        cmocka_unit_test(growth_that_was_in_vain_is_taken_back_and_not_repeated_soon),
        cmocka_unit_test(growth_that_helps_is_not_taken_for_vain),
        cmocka_unit_test(it_stays_between_its_bounds),
        cmocka_unit_test(a_number_out_of_its_bounds_is_led_back),
        cmocka_unit_test(workers_that_take_time_to_come_and_to_go_are_waited_for),
        cmocka_unit_test(short_bursts_are_left_to_the_queue_and_long_ones_followed),
        cmocka_unit_test(it_grows_at_most_to_the_double_in_a_step),
        cmocka_unit_test(several_producers_count_each),
        cmocka_unit_test(when_nothing_comes_any_more_it_goes_back_to_the_least),
        cmocka_unit_test(a_sample_of_the_same_instant_or_of_nothing_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
