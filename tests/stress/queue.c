/* Eight producers, eight consumers, every policy, with bounds that change and a queue that closes
 * under their hands.  While they run, a checker takes snapshots: the law and the bound hold in
 * each.  At the end each accepted item has come out exactly once.
 *
 * WEIR_STRESS_SECONDS (default 2) scales how long all cases together take. */
#include "contract/folder.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#define PRODUCERS 8
#define CONSUMERS 8
#define ITEMS     (1u << 19) /* per producer, at most */

typedef struct plan {
    weir_overflow overflow;
    size_t capacity;
    uint64_t max_cost;
    int64_t max_age_ns;
    bool bound_in_flight;
    bool batches;   /* half of the threads use put_many and get_many */
    bool disturbs;  /* resizes, discards, drains */
    bool impatient; /* waits have short deadlines */
    bool bare;      /* no marks, no descriptor: what takes the short ways, and seldom looked at */
    bool signals;   /* waits are interrupted, and sometimes given up */
    bool guests;    /* a third of the threads wait as event loops do */
    uint64_t disk;  /* bytes of it, where it spills */
    bool durable;   /* which a restart would find */
} plan;

static struct {
    plan plan;
    weir_queue *queue;
    weir_spill *spill;
    _Atomic bool stop;     /* producers */
    _Atomic bool finished; /* checker and disturber */
    _Atomic uint64_t accepted, dropped, delivered, told, telling;
    _Atomic bool told_above;
    uint32_t used[PRODUCERS]; /* item numbers, by the producers' ends */
} run;

/* How often each item came out; refused items stay 0.  All 0 between the cases. */
static _Atomic uint8_t came_out[PRODUCERS][ITEMS];
static _Atomic bool was_accepted[PRODUCERS][ITEMS];

/* Within a call on this thread: on_drop runs nowhere else. */
static _Thread_local bool in_call;

static int64_t left(int64_t result)
{
    in_call = false;
    return result;
}

#define CALL(expression) (in_call = true, left(expression))

static void *item_of(unsigned producer, uint32_t n)
{
    return number(((uintptr_t)producer << 32) | n);
}

static unsigned producer_of(const void *item)
{
    return (unsigned)((uintptr_t)item >> 32);
}

static uint32_t number_of(const void *item)
{
    return (uint32_t)(uintptr_t)item;
}

static uint64_t cost_of(const void *item)
{
    return number_of(item) % 7;
}

static void comes_out(void *item)
{
    must(atomic_fetch_add(&came_out[producer_of(item)][number_of(item)], 1) == 0);
}

static void on_drop(void *item, weir_drop_reason reason, void *ctx)
{
    (void)reason, (void)ctx;
    must(in_call);
    comes_out(item);
    atomic_fetch_add(&run.dropped, 1);
}

static void on_watermark(bool above, void *ctx)
{
    (void)ctx;
    must(in_call);
    must(atomic_fetch_add(&run.telling, 1) == 0);
    must(atomic_exchange(&run.told_above, above) != above);
    atomic_fetch_add(&run.told, 1);
    atomic_fetch_sub(&run.telling, 1);
}

static weir_time patience(uint32_t n)
{
    if (!run.plan.impatient)
        return WEIR_FOREVER;
    return n % 3 == 0 ? WEIR_POLL : weir_after((int64_t)(n % 16) * 2000);
}

/* ---- the threads -------------------------------------------------------------------------------- */

static void book(void *item)
{
    was_accepted[producer_of(item)][number_of(item)] = true;
    atomic_fetch_add(&run.accepted, 1);
}

static bool is_expected(int64_t rc)
{
    return rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT || rc == WEIR_ECLOSED || rc == WEIR_ETOOBIG ||
           rc == WEIR_EEMPTY || (rc == WEIR_EINTR && run.plan.signals);
}

static void ignore(int signal)
{
    (void)signal;
}

static int gives_up_sometimes(void *ctx)
{
    uint32_t *asked = ctx;
    return ++*asked % 4 == 0;
}

/* ---- guests ------------------------------------------------------------------------------------- */

static bool is_guest(unsigned me)
{
    return run.plan.guests && me % 3 == 2;
}

/* One that waits without the queue's help, for what the queue tells it. */
typedef struct guest {
    weir_pending pending;
    sem_t told;
    _Atomic int result; /* TSan does not see that sem_clockwait waits for sem_post */
} guest;

static void tell(weir_pending *pending, int result)
{
    guest *g = pending->ctx;
    g->result = result;
    sem_post(&g->told); /* the last touch */
}

static void guest_init(guest *g)
{
    *g = (guest){.pending = {.ready = tell, .ctx = g}};
    sem_init(&g->told, 0, 0);
}

static int wait_told(guest *g, weir_time until)
{
    struct timespec at = {until / WEIR_SECOND, until % WEIR_SECOND};
    while (until == WEIR_FOREVER ? sem_wait(&g->told)
                                 : sem_clockwait(&g->told, CLOCK_MONOTONIC, &at))
        if (errno == ETIMEDOUT)
            return WEIR_ETIMEDOUT;
    return g->result;
}

/* Leaves, whether it is in line, in its turn, or just being told. */
static int64_t guest_leaves(guest *g, bool was_told)
{
    bool was_in_line = CALL(weir_queue_cancel(run.queue, &g->pending));
    must(!(was_in_line && was_told));
    if (!was_in_line && !was_told)
        wait_told(g, WEIR_FOREVER);
    return WEIR_ETIMEDOUT;
}

static int64_t put_as_guest(void *item, uint32_t n)
{
    int64_t rc = CALL(weir_queue_put(run.queue, item, cost_of(item), WEIR_POLL));
    if (rc != WEIR_EFULL || !(run.plan.overflow == WEIR_OVERFLOW_BLOCK || run.plan.disk) ||
        patience(n) == WEIR_POLL)
        return rc;
    guest g;
    guest_init(&g);
    rc = CALL(weir_queue_wait_room(run.queue, cost_of(item), &g.pending));
    while (rc == WEIR_WAITING || rc == WEIR_EFULL) {
        int told = wait_told(&g, patience(n));
        if (told == WEIR_ETIMEDOUT)
            rc = guest_leaves(&g, false);
        else if (told == WEIR_OK && n % 11 == 0)
            rc = guest_leaves(&g, true);
        else
            rc = told < 0 ? told : CALL(weir_queue_put_waited(run.queue, item, &g.pending));
    }
    return rc;
}

/* Lingers for more in its turn; whether it is its turn again. */
static int linger(guest *g, uint32_t round)
{
    int rc = (int)CALL(weir_queue_wait_items(run.queue, round % 8 + 1, &g->pending));
    if (rc != WEIR_WAITING)
        return rc;
    rc = wait_told(g, weir_after(round % 4 * 5000));
    if (rc != WEIR_ETIMEDOUT)
        return rc;
    CALL(weir_queue_wait_items(run.queue, 1, &g->pending)); /* what there is */
    return wait_told(g, WEIR_FOREVER);
}

static int64_t get_as_guest(void *items[64], uint64_t costs[64], uint32_t round)
{
    guest g;
    guest_init(&g);
    int64_t rc = CALL(weir_queue_wait_items(run.queue, 1, &g.pending));
    while (rc == WEIR_WAITING || rc == WEIR_EEMPTY) {
        int told = wait_told(&g, patience(round));
        if (told == WEIR_ETIMEDOUT)
            return guest_leaves(&g, false);
        if (told == WEIR_OK && round % 13 == 0)
            return guest_leaves(&g, true);
        if (told == WEIR_OK && round % 3 == 0)
            told = linger(&g, round);
        if (told < 0)
            return told;
        rc = CALL(weir_queue_get_waited(run.queue, items, costs, round % 64 + 1, &g.pending));
        if (rc > 0)
            return rc;
    }
    return rc;
}

/* ---- threads ------------------------------------------------------------------------------------ */

static int64_t put_one(unsigned me, uint32_t n)
{
    void *item = item_of(me, n);
    int64_t rc = is_guest(me) ? put_as_guest(item, n)
                              : CALL(weir_queue_put(run.queue, item, cost_of(item), patience(n)));
    if (rc >= 0)
        book(item);
    return rc;
}

static int64_t put_some(unsigned me, uint32_t first, uint32_t n)
{
    void *items[32];
    uint64_t costs[32];
    for (uint32_t i = 0; i < n; i++) {
        items[i] = item_of(me, first + i);
        costs[i] = cost_of(items[i]);
    }
    int64_t rc = CALL(weir_queue_put_many(run.queue, items, costs, n, patience(first)));
    for (int64_t i = 0; i < rc; i++)
        book(items[i]);
    return rc;
}

static void *produce(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    bool batches = run.plan.batches && me % 2 && !is_guest(me);
    uint32_t n = 0, asked = me;
    weir_set_interrupt(run.plan.signals ? gives_up_sometimes : NULL, &asked);
    while (n < ITEMS - 32 && !run.stop) {
        uint32_t some = batches ? n % 32 + 1 : 1;
        int64_t rc = batches ? put_some(me, n, some) : put_one(me, n);
        must(rc >= 0 || is_expected(rc));
        n += some;
        if (rc == WEIR_ECLOSED)
            break;
    }
    run.used[me] = n;
    return NULL;
}

static void take_in(void *item, uint32_t last[PRODUCERS])
{
    unsigned from = producer_of(item);
    must(number_of(item) + 1 > last[from]); /* in the order of each producer */
    last[from] = number_of(item) + 1;
    comes_out(item);
    atomic_fetch_add(&run.delivered, 1);
}

static void *consume(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    uint32_t last[PRODUCERS] = {0}, asked = me;
    bool batches = (run.plan.batches && me % 2) || is_guest(me);
    weir_set_interrupt(run.plan.signals ? gives_up_sometimes : NULL, &asked);
    for (uint32_t round = 0;; round++) {
        void *items[64];
        uint64_t costs[64], cost = 0;
        int64_t n;
        if (is_guest(me))
            n = get_as_guest(items, costs, round);
        else if (batches)
            n = CALL(weir_queue_get_many(run.queue, items, costs, round % 64 + 1, patience(round),
                                         round % 4 * 1000));
        else
            n = CALL(weir_queue_get_cost(run.queue, items, costs, patience(round)));
        if (n == WEIR_ECLOSED)
            return NULL;
        must(n >= 0 || is_expected(n));
        if (!batches && n == WEIR_OK)
            n = 1;
        for (int64_t i = 0; i < n; i++) {
            must(costs[i] == cost_of(items[i]));
            take_in(items[i], last);
            cost += costs[i];
        }
        if (n > 0 && run.plan.bound_in_flight)
            must(CALL(weir_queue_done(run.queue, (size_t)n, cost)) == WEIR_OK);
    }
}

static void *disturb(void *arg)
{
    (void)arg;
    for (uint32_t n = 0; !run.finished; n++) {
        size_t capacity = 1 + n * 7 % (run.plan.capacity * 2);
        uint64_t max_cost = run.plan.max_cost ? 1 + n * 11 % (run.plan.max_cost * 2) : 0;
        must(CALL(weir_queue_resize(run.queue, capacity, max_cost)) == WEIR_OK);
        if (n % 5 == 0)
            CALL((int64_t)weir_queue_discard(run.queue));
        int64_t rc = CALL(weir_queue_drain(run.queue, weir_after(50000)));
        must(rc == WEIR_OK || rc == WEIR_ETIMEDOUT);
    }
    return NULL;
}

static void check_bounds(const weir_queue_snapshot *now)
{
    size_t capacity = run.plan.capacity * (run.plan.disturbs ? 2 : 1);
    uint64_t max_cost = run.plan.max_cost * (run.plan.disturbs ? 2 : 1);
    must(now->depth + now->in_flight <= capacity);
    must(now->peak_depth <= capacity && now->depth <= now->peak_depth);
    must(max_cost == 0 || now->cost + now->in_flight_cost <= max_cost);
    must(run.plan.bound_in_flight || now->in_flight == 0);
}

static void check_progress(const weir_queue_snapshot *before, const weir_queue_snapshot *now)
{
    must(now->accepted >= before->accepted && now->delivered >= before->delivered);
    must(now->refused >= before->refused && total(now->dropped) >= total(before->dropped));
    must(now->put_blocked_ns >= before->put_blocked_ns);
    must(now->get_blocked_ns >= before->get_blocked_ns);
}

static void *watch(void *arg)
{
    in_call = true; /* a snapshot is a call, and all there is here */
    uint64_t *snapshots = arg;
    weir_queue_snapshot before = snapshot_of(run.queue);
    while (!run.finished) {
        weir_queue_snapshot now = snapshot_of(run.queue);
        must(obeys_the_law(&now));
        check_bounds(&now);
        check_progress(&before, &now);
        before = now;
        (*snapshots)++;
        if (run.plan.bare)
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return NULL;
}

/* ---- one case ----------------------------------------------------------------------------------- */

static double seconds(void)
{
    const char *asked = getenv("WEIR_STRESS_SECONDS");
    double value = asked ? strtod(asked, NULL) : 0;
    return value > 0 ? value : 2;
}

static int encode(void *item, weir_record *into, void *ctx)
{
    (void)ctx;
    must(in_call);
    return weir_record_add(into, &item, sizeof item);
}

static int decode(const void *data, size_t n, void **ret_item, void *ctx)
{
    (void)ctx;
    must(n == sizeof *ret_item);
    memcpy(ret_item, data, n);
    return WEIR_OK;
}

static const weir_codec codec = {.encode = encode, .decode = decode};

static void start_run(plan p)
{
    memset(&run, 0, sizeof(run));
    run.plan = p;
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = p.capacity;
    opts.max_cost = p.max_cost;
    opts.max_age_ns = p.max_age_ns;
    opts.overflow = p.overflow;
    opts.bound_in_flight = p.bound_in_flight;
    opts.on_drop = on_drop;
    if (p.disk) {
        opts.spill = run.spill = open_spill(p.disk, 0, p.durable);
        opts.codec = &codec;
    }
    opts.on_watermark = p.bare ? NULL : on_watermark;
    assert_int_equal(weir_queue_create(&run.queue, &opts), WEIR_OK);
    if (!p.bare)
        assert_true(weir_queue_item_fd(run.queue) >= 0);
}

static void check_the_end(void)
{
    weir_queue_snapshot now = snapshot_of(run.queue);
    assert_true(obeys_the_law(&now));
    assert_int_equal(now.depth + now.in_flight + now.spilled, 0);
    assert_int_equal(now.dropped[WEIR_DROP_LOST], 0);
    if (run.spill)
        assert_int_equal(log_of(run.spill).pending, 0);
    assert_int_equal(now.putters_waiting + now.getters_waiting, 0);
    assert_int_equal(now.accepted, run.accepted);
    assert_int_equal(now.delivered, run.delivered);
    assert_int_equal(total(now.dropped), run.dropped);
    assert_true(run.plan.bare || now.above_high == run.told_above);
    for (unsigned p = 0; p < PRODUCERS; p++)
        for (uint32_t n = 0; n < run.used[p]; n++) {
            must(came_out[p][n] == was_accepted[p][n]);
            came_out[p][n] = was_accepted[p][n] = 0;
        }
}

static void execute(const char *name, plan p, double share)
{
    pthread_t producers[PRODUCERS], consumers[CONSUMERS], checker, disturber;
    uint64_t snapshots = 0;
    start_run(p);
    pthread_create(&checker, NULL, watch, &snapshots);
    for (uintptr_t i = 0; i < CONSUMERS; i++)
        pthread_create(&consumers[i], NULL, consume, number(i));
    for (uintptr_t i = 0; i < PRODUCERS; i++)
        pthread_create(&producers[i], NULL, produce, number(i));
    if (p.disturbs)
        pthread_create(&disturber, NULL, disturb, NULL);

    weir_time until = weir_after((int64_t)(seconds() * share * (double)WEIR_SECOND));
    while (weir_now() < until) {
        nanosleep(&(struct timespec){.tv_nsec = p.signals ? 100000 : 1000000}, NULL);
        for (int i = 0; p.signals && i < PRODUCERS; i++) {
            pthread_kill(producers[i], SIGUSR1);
            pthread_kill(consumers[i], SIGUSR1);
        }
    }
    if (p.disturbs)
        CALL((weir_queue_close(run.queue), 0)); /* while all of them are at it */
    run.stop = true;
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(producers[i], NULL);
    CALL((weir_queue_close(run.queue), 0));
    for (int i = 0; i < CONSUMERS; i++)
        pthread_join(consumers[i], NULL);
    run.finished = true;
    pthread_join(checker, NULL);
    if (p.disturbs)
        pthread_join(disturber, NULL);
    check_the_end();
    print_message("    %-34s %9llu in, %9llu out, %9llu dropped, %7llu snapshots, %llu marks\n",
                  name, (unsigned long long)run.accepted, (unsigned long long)run.delivered,
                  (unsigned long long)run.dropped, (unsigned long long)snapshots,
                  (unsigned long long)run.told);
    weir_queue_destroy(run.queue);
    weir_spill_destroy(run.spill);
}

/* Each policy: eight ways to be used, with and without all that needs both sides of the queue; they
 * share the time. */
static void stress(weir_overflow policy, uint64_t disk, bool durable)
{
    const plan all = {policy,
                      .capacity = 32,
                      .max_cost = 60,
                      .max_age_ns = 50000,
                      .bound_in_flight = true,
                      .batches = true,
                      .disturbs = true,
                      .impatient = true,
                      .guests = true};
    const struct {
        const char *name;
        plan plan;
    } cases[] = {
        {"plain", {policy, .capacity = 64}},
        {"tiny", {policy, .capacity = 1, .impatient = true}},
        {"cost, batches", {policy, .capacity = 64, .max_cost = 100, .batches = true}},
        {"max_age", {policy, .capacity = 256, .max_age_ns = 20000, .batches = true}},
        {"bound_in_flight",
         {policy, .capacity = 12, .max_cost = 60, .bound_in_flight = true, .batches = true,
          .impatient = true}},
        {"guests", {policy, .capacity = 16, .guests = true}},
        {"guests, tiny", {policy, .capacity = 1, .guests = true, .impatient = true}},
        {"everything, closed under way", all},
    };
    char name[64];
    for (int bare = 0; bare < 2; bare++)
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
            plan p = cases[i].plan;
            p.bare = bare;
            p.signals = bare && i != 0;
            p.disk = disk;
            p.durable = durable;
            snprintf(name, sizeof(name), "%s%s", cases[i].name, bare ? ", bare" : "");
            execute(name, p, 0.015);
        }
}

static void block_keeps_the_law_at_every_snapshot(void **state)
{
    (void)state;
    stress(WEIR_OVERFLOW_BLOCK, 0, false);
}

static void fail_keeps_the_law_at_every_snapshot(void **state)
{
    (void)state;
    stress(WEIR_OVERFLOW_FAIL, 0, false);
}

static void drop_newest_keeps_the_law_at_every_snapshot(void **state)
{
    (void)state;
    stress(WEIR_OVERFLOW_DROP_NEWEST, 0, false);
}

static void drop_oldest_keeps_the_law_at_every_snapshot(void **state)
{
    (void)state;
    stress(WEIR_OVERFLOW_DROP_OLDEST, 0, false);
}

static void spill_keeps_the_law_at_every_snapshot(void **state)
{
    (void)state;
    stress(WEIR_OVERFLOW_SPILL, 8 << 20, false);
}

static void spill_to_a_small_disk_keeps_the_law_at_every_snapshot(void **state)
{
    (void)state;
    stress(WEIR_OVERFLOW_SPILL, 4096, false);
}

static void a_durable_spill_keeps_the_law_at_every_snapshot(void **state)
{
    (void)state;
    stress(WEIR_OVERFLOW_SPILL, 16384, true);
}

static void sample_keeps_the_law_at_every_snapshot(void **state)
{
    (void)state;
    stress(WEIR_OVERFLOW_SAMPLE, 0, false);
}

/* ---- fairness ----------------------------------------------------------------------------------- */

static void nothing(void *item, weir_drop_reason reason, void *ctx)
{
    (void)item, (void)reason, (void)ctx;
}

/* Each putter puts in a loop.  Served in order, none gets ahead by more than one turn of the line. */
static _Atomic uint64_t turns[PRODUCERS];

static void *take_turns(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    while (weir_queue_put(run.queue, arg, 0, WEIR_FOREVER) == WEIR_KEPT)
        turns[me]++;
    return NULL;
}

static void waiting_putters_take_turns(void **state)
{
    (void)state;
    pthread_t putters[PRODUCERS];
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = 1;
    opts.on_drop = nothing;
    assert_int_equal(weir_queue_create(&run.queue, &opts), WEIR_OK);
    for (uintptr_t i = 0; i < PRODUCERS; i++)
        pthread_create(&putters[i], NULL, take_turns, number(i));

    uint64_t taken[PRODUCERS] = {0};
    weir_time until = weir_after((int64_t)(seconds() * 0.1 * (double)WEIR_SECOND));
    while (weir_now() < until) {
        void *item;
        soon(snapshot_of(run.queue).putters_waiting == PRODUCERS); /* the line is complete */
        assert_int_equal(weir_queue_get(run.queue, &item, WEIR_POLL), WEIR_OK);
        taken[(uintptr_t)item]++;
    }
    weir_queue_close(run.queue);
    uint64_t least = UINT64_MAX, most = 0;
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(putters[i], NULL);
        least = taken[i] < least ? taken[i] : least;
        most = taken[i] > most ? taken[i] : most;
    }
    assert_true(least > 0 && most - least <= 2); /* one each, and whoever filled the queue first */
    weir_queue_destroy(run.queue);
}

/* ---- nobody is forgotten ------------------------------------------------------------------------ */

/* Putters that wait and getters that wait are served by whoever makes it possible, who then stops
 * calling.  Nobody looks at the queue meanwhile, since that would serve them. */
static _Atomic uint64_t let_in, got;

static void *puts_for_ever(void *arg)
{
    while (weir_queue_put(run.queue, arg, 0, WEIR_FOREVER) == WEIR_KEPT)
        let_in++;
    return NULL;
}

static void *gets_for_ever(void *arg)
{
    void *item;
    (void)arg;
    while (weir_queue_get(run.queue, &item, WEIR_FOREVER) == WEIR_OK)
        got++;
    return NULL;
}

static void take_some_and_stop(unsigned n)
{
    void *items[PRODUCERS];
    if (n % 3 == 0) {
        must(weir_queue_get_many(run.queue, items, NULL, n, WEIR_FOREVER, 0) == n);
    } else {
        for (unsigned i = 0; i < n; i++)
            must(weir_queue_get(run.queue, items, WEIR_FOREVER) == WEIR_OK);
    }
}

static void start_all(pthread_t threads[], void *(*fn)(void *), size_t capacity)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = capacity;
    opts.on_drop = nothing;
    let_in = got = 0;
    assert_int_equal(weir_queue_create(&run.queue, &opts), WEIR_OK);
    for (uintptr_t i = 0; i < PRODUCERS; i++)
        pthread_create(&threads[i], NULL, fn, number(i));
}

static void end_all(pthread_t threads[])
{
    weir_queue_close(run.queue);
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    weir_queue_destroy(run.queue);
}

static void a_waiting_putter_is_never_forgotten(void **state)
{
    (void)state;
    for (size_t capacity = 1; capacity <= 64; capacity *= 8) {
        pthread_t threads[PRODUCERS];
        start_all(threads, puts_for_ever, capacity);
        uint64_t taken = 0;
        weir_time until = weir_after((int64_t)(seconds() * 0.1 * (double)WEIR_SECOND));
        for (unsigned round = 0; weir_now() < until; round++) {
            unsigned n = 1 + round % PRODUCERS;
            if (n % 3 == 0)
                n = n < capacity ? n : 1; /* a batch is what is inside */
            soon(let_in >= taken + capacity);
            take_some_and_stop(n);
            taken += n;
            soon(let_in >= taken + capacity); /* what was taken is replaced, ... */
            must(let_in == taken + capacity); /* ... exactly */
        }
        end_all(threads);
    }
}

static void a_waiting_getter_is_never_forgotten(void **state)
{
    (void)state;
    void *items[2 * PRODUCERS] = {0};
    pthread_t threads[PRODUCERS];
    start_all(threads, gets_for_ever, 4 * PRODUCERS);
    uint64_t put = 0;
    weir_time until = weir_after((int64_t)(seconds() * 0.1 * (double)WEIR_SECOND));
    for (unsigned round = 0; weir_now() < until; round++) {
        unsigned n = 1 + round % (2 * PRODUCERS);
        if (round % 2)
            must(weir_queue_put_many(run.queue, items, NULL, n, WEIR_POLL) == n);
        else
            for (unsigned i = 0; i < n; i++)
                must(weir_queue_put(run.queue, NULL, 0, WEIR_POLL) == WEIR_KEPT);
        put += n;
        soon(got == put);
    }
    end_all(threads);
}

int main(void)
{
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = ignore}, NULL); /* no SA_RESTART */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_keeps_the_law_at_every_snapshot),
        cmocka_unit_test(fail_keeps_the_law_at_every_snapshot),
        cmocka_unit_test(drop_newest_keeps_the_law_at_every_snapshot),
        cmocka_unit_test(drop_oldest_keeps_the_law_at_every_snapshot),
        cmocka_unit_test(sample_keeps_the_law_at_every_snapshot),
        IN_FOLDER(spill_keeps_the_law_at_every_snapshot),
        IN_FOLDER(spill_to_a_small_disk_keeps_the_law_at_every_snapshot),
        IN_FOLDER(a_durable_spill_keeps_the_law_at_every_snapshot),
        cmocka_unit_test(waiting_putters_take_turns),
        cmocka_unit_test(a_waiting_putter_is_never_forgotten),
        cmocka_unit_test(a_waiting_getter_is_never_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
