/* What every limit promises, whatever it counts: each test runs on each row of `subjects`.  A limit
 * that is new is one more row.
 *
 * Of most limits what is taken is given back: the calls of a weir_limit, the bytes of a weir_governor.
 * What a token bucket gave is gone, and time brings more: `release` has nothing to do there, `let_in`
 * lets time pass, and the bound is one on what was granted since a time. */
#include "support.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/weir.h>

#define HOUR (3600 * WEIR_SECOND)

/* ---- what a limit is ------------------------------------------------------------------------ */

typedef struct counts {
    uint64_t capacity;
    uint64_t used; /* cost: held; of a bucket, granted since it was made */
    uint64_t inside, admitted, released, lost, refused; /* calls; of a bucket, cost */
    size_t waiting;
    bool is_closed;
} counts;

typedef struct subject {
    const char *name;
    bool is_shared, is_bucket;
    bool waits_without_a_thread; /* no process can call another's `ready`; a bucket is polled */
    void *(*create)(const struct subject *row, uint64_t capacity, const char *shared);
    void (*destroy)(void *limit);
    int (*acquire)(void *limit, uint64_t cost, weir_time deadline);
    void (*release)(void *limit, uint64_t cost);
    void (*let_in)(void *limit, uint64_t cost); /* those who wait, of that cost together */
    int (*acquire_async)(void *limit, uint64_t cost, weir_pending *pending);
    void (*settle)(void *limit, weir_pending *pending); /* after let_in or close: polls; or NULL */
    bool (*cancel)(void *limit, weir_pending *pending);
    void (*close)(void *limit);
    counts (*look)(void *limit);
    int detail; /* of the row */
} subject;

/* ---- rows: weir_limit -------------------------------------------------------------------------
 * */

static void *limit_create(const subject *row, uint64_t capacity, const char *shared)
{
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.algorithm = (weir_limit_algorithm)row->detail;
    opts.limit = opts.min_limit = opts.max_limit = capacity;
    opts.shared = shared;
    weir_limit *limit;
    must(weir_limit_create(&limit, &opts) == WEIR_OK);
    return limit;
}

static void limit_destroy(void *limit)
{
    weir_limit_destroy(limit);
}

static int limit_acquire(void *limit, uint64_t cost, weir_time deadline)
{
    weir_permit permit;
    return weir_limit_acquire(limit, cost, 0, deadline, &permit);
}

static void limit_release(void *limit, uint64_t cost)
{
    weir_permit permit = {.cost = cost, .since = weir_now()};
    weir_limit_release(limit, &permit, (weir_limit_report)(permit.since % 3));
}

static int limit_acquire_async(void *limit, uint64_t cost, weir_pending *pending)
{
    return weir_limit_acquire_async(limit, cost, 0, pending);
}

static bool limit_cancel(void *limit, weir_pending *pending)
{
    return weir_limit_cancel(limit, pending);
}

static void limit_close(void *limit)
{
    weir_limit_close(limit);
}

static counts limit_look(void *limit)
{
    weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
    must(weir_limit_get_snapshot(limit, &now) == WEIR_OK);
    return (counts){
        .capacity = now.limit,
        .used = now.used,
        .inside = now.in_flight,
        .admitted = now.admitted,
        .released = now.released,
        .lost = now.lost,
        .refused = now.refused,
        .waiting = now.waiting,
        .is_closed = now.is_closed,
    };
}

#define LIMIT(words, algorithm, shared)                                                            \
    {                                                                                              \
        .name = words,                                                                             \
        .is_shared = shared,                                                                       \
        .waits_without_a_thread = !shared,                                                         \
        .create = limit_create,                                                                    \
        .destroy = limit_destroy,                                                                  \
        .acquire = limit_acquire,                                                                  \
        .release = limit_release,                                                                  \
        .let_in = limit_release,                                                                   \
        .acquire_async = limit_acquire_async,                                                      \
        .cancel = limit_cancel,                                                                    \
        .close = limit_close,                                                                      \
        .look = limit_look,                                                                        \
        .detail = algorithm,                                                                       \
    }

/* ---- rows: weir_governor ---------------------------------------------------------------------- */

#define UNIT (UINT64_C(1) << 42) /* of cost: so much that what is really in use does not matter */

static void *governor_create(const subject *row, uint64_t capacity, const char *shared)
{
    (void)row;
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    opts.limit_bytes = capacity * UNIT + UNIT / 2;
    opts.interval_ns = HOUR; /* what the machine goes through meanwhile is not measured */
    opts.slow_at = opts.pause_at = opts.shed_at = 1;
    opts.shared = shared;
    weir_governor *governor;
    must(weir_governor_create(&governor, &opts) == WEIR_OK);
    return governor;
}

static void governor_destroy(void *governor)
{
    weir_governor_destroy(governor);
}

static uint64_t bytes_of(uint64_t cost)
{
    return cost < 16 ? cost * UNIT : cost;
}

static int governor_acquire(void *governor, uint64_t cost, weir_time deadline)
{
    return weir_governor_reserve(governor, bytes_of(cost), deadline);
}

static void governor_release(void *governor, uint64_t cost)
{
    weir_governor_release(governor, bytes_of(cost));
}

static int governor_acquire_async(void *governor, uint64_t cost, weir_pending *pending)
{
    return weir_governor_reserve_async(governor, bytes_of(cost), pending);
}

static bool governor_cancel(void *governor, weir_pending *pending)
{
    return weir_governor_cancel(governor, pending);
}

static void governor_close(void *governor)
{
    weir_governor_close(governor);
}

static counts governor_look(void *governor)
{
    weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
    must(weir_governor_get_snapshot(governor, &now) == WEIR_OK);
    must(now.reserved % UNIT == 0);
    return (counts){
        .capacity = now.capacity / UNIT,
        .used = now.reserved / UNIT,
        .inside = now.inside,
        .admitted = now.admitted,
        .released = now.released,
        .lost = now.lost,
        .refused = now.refused,
        .waiting = now.waiting,
        .is_closed = now.is_closed,
    };
}

#define GOVERNOR(words, shared)                                                                    \
    {                                                                                              \
        .name = words,                                                                             \
        .is_shared = shared,                                                                       \
        .waits_without_a_thread = !shared,                                                         \
        .create = governor_create,                                                                 \
        .destroy = governor_destroy,                                                               \
        .acquire = governor_acquire,                                                               \
        .release = governor_release,                                                               \
        .let_in = governor_release,                                                                \
        .acquire_async = governor_acquire_async,                                                   \
        .cancel = governor_cancel,                                                                 \
        .close = governor_close,                                                                   \
        .look = governor_look,                                                                     \
    }

/* ---- rows: weir_rate --------------------------------------------------------------------------- */

#define QUICK 2000 /* tokens in a second, while time passes; else one in an hour */

static void *rate_create(const subject *row, uint64_t capacity, const char *shared)
{
    (void)row;
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    opts.rate = 1;
    opts.per_ns = HOUR;
    opts.burst = capacity;
    opts.shared = shared;
    weir_rate *rate;
    must(weir_rate_create(&rate, &opts) == WEIR_OK);
    return rate;
}

static weir_rate_snapshot rate_now(weir_rate *rate)
{
    weir_rate_snapshot now = WEIR_RATE_SNAPSHOT_INIT;
    must(weir_rate_get_snapshot(rate, &now) == WEIR_OK);
    return now;
}

/* From now on. */
static void rate_set(weir_rate *rate, uint64_t tokens, int64_t per_ns)
{
    must(weir_rate_set(rate, tokens, per_ns, rate_now(rate).burst) == WEIR_OK);
}

/* Full, so that a shared one ends with it. */
static void rate_destroy(void *rate)
{
    rate_set(rate, 1000000, 1000);
    soon(rate_now(rate).available == (int64_t)rate_now(rate).burst);
    weir_rate_destroy(rate);
}

static int rate_acquire(void *rate, uint64_t cost, weir_time deadline)
{
    return weir_rate_acquire(rate, cost, deadline);
}

static void rate_release(void *rate, uint64_t cost)
{
    (void)rate, (void)cost;
}

/* Lets time pass until somebody got what he waited for, or it is there for who polls. */
static void rate_let_in(void *rate, uint64_t cost)
{
    (void)cost;
    uint64_t before = rate_now(rate).granted;
    rate_set(rate, QUICK, WEIR_SECOND);
    soon(rate_now(rate).granted > before ||
         rate_now(rate).available == (int64_t)rate_now(rate).burst);
    rate_set(rate, 1, HOUR);
}

static void hint(weir_pending *pending, int result)
{
    (void)pending;
    must(result == WEIR_WAITING);
}

static void ready(weir_pending *pending, int result);

static int rate_acquire_async(void *rate, uint64_t cost, weir_pending *pending)
{
    weir_time at;
    pending->ready = hint;
    return weir_rate_acquire_async(rate, cost, pending, &at);
}

static void rate_settle(void *rate, weir_pending *pending)
{
    weir_time at;
    int rc;
    soon((rc = weir_rate_poll(rate, pending, &at)) != WEIR_WAITING);
    ready(pending, rc);
}

/* Nothing is granted but in a poll, so one that was not polled to its end can always leave. */
static bool rate_cancel(void *rate, weir_pending *pending)
{
    weir_time at;
    bool was_waiting = weir_rate_poll(rate, pending, &at) == WEIR_WAITING;
    weir_rate_cancel(rate, pending);
    return was_waiting;
}

static void rate_close(void *rate)
{
    weir_rate_close(rate);
}

/* Nobody holds anything: what was granted is not to come back. */
static counts rate_look(void *rate)
{
    weir_rate_snapshot now = rate_now(rate);
    return (counts){
        .capacity = now.burst,
        .used = now.granted - now.returned,
        .admitted = now.granted,
        .released = now.granted,
        .refused = now.refused,
        .waiting = now.waiting,
        .is_closed = now.closed,
    };
}

#define BUCKET(words, shared)                                                                      \
    {                                                                                              \
        .name = words,                                                                             \
        .is_shared = shared,                                                                       \
        .is_bucket = true,                                                                         \
        .waits_without_a_thread = true,                                                            \
        .create = rate_create,                                                                     \
        .destroy = rate_destroy,                                                                   \
        .acquire = rate_acquire,                                                                   \
        .release = rate_release,                                                                   \
        .let_in = rate_let_in,                                                                     \
        .acquire_async = rate_acquire_async,                                                       \
        .settle = rate_settle,                                                                     \
        .cancel = rate_cancel,                                                                     \
        .close = rate_close,                                                                       \
        .look = rate_look,                                                                         \
    }

static const subject subjects[] = {
    LIMIT("fixed limit", WEIR_LIMIT_FIXED, false),
    LIMIT("fixed limit, shared", WEIR_LIMIT_FIXED, true),
    LIMIT("AIMD limit", WEIR_LIMIT_AIMD, false),
    LIMIT("AIMD limit, shared", WEIR_LIMIT_AIMD, true),
    LIMIT("Vegas limit", WEIR_LIMIT_VEGAS, false),
    LIMIT("Vegas limit, shared", WEIR_LIMIT_VEGAS, true),
    LIMIT("Gradient2 limit", WEIR_LIMIT_GRADIENT2, false),
    LIMIT("Gradient2 limit, shared", WEIR_LIMIT_GRADIENT2, true),
    GOVERNOR("memory governor", false),
    GOVERNOR("memory governor, shared", true),
    BUCKET("token bucket", false),
    BUCKET("token bucket, shared", true),
};

/* ---- the limit under test ---------------------------------------------------------------------
 * */

static const subject *the;
static void *limit;

/* What this test has taken, of whichever is counted. */
static _Atomic uint64_t taken;

static void make(void **state, uint64_t capacity)
{
    static unsigned n;
    the = *state;
    taken = 0;
    char name[40];
    snprintf(name, sizeof name, "contract.%d.%u", (int)getpid(), n++);
    limit = the->create(the, capacity, the->is_shared ? name : NULL);
}

static int took(uint64_t cost)
{
    taken += the->is_bucket ? cost : 1;
    return WEIR_OK;
}

static int acquire(uint64_t cost, weir_time deadline)
{
    int rc = the->acquire(limit, cost, deadline);
    return rc == WEIR_OK ? took(cost) : rc;
}

static void release(uint64_t cost)
{
    the->release(limit, cost);
}

static counts look(void)
{
    counts now = the->look(limit);
    must(now.admitted == now.released + now.inside + now.lost);
    return now;
}

/* The end of every test. */
static void end(uint64_t calls)
{
    counts now = look();
    if (!the->is_bucket) {
        assert_int_equal(now.used, 0);
        assert_int_equal(now.admitted, calls);
    }
    assert_int_equal(now.inside, 0);
    assert_int_equal(now.waiting, 0);
    assert_int_equal(now.admitted, taken);
    assert_int_equal(now.released + now.lost, taken);
    the->destroy(limit);
}

/* One that waits on a thread of its own. */
typedef struct waiting {
    uint64_t cost;
    weir_time deadline;
    weir_interrupt_fn *hook;
    int rc;
    unsigned turn; /* in which it was let in, from 1 */
    pthread_t thread;
} waiting;

static _Atomic unsigned turns;

static void *waits(void *arg)
{
    waiting *w = arg;
    weir_set_interrupt(w->hook, NULL);
    w->rc = acquire(w->cost, w->deadline ? w->deadline : WEIR_FOREVER);
    if (w->rc == WEIR_OK)
        w->turn = ++turns;
    return NULL;
}

static void start(waiting *w)
{
    size_t before = look().waiting;
    must(pthread_create(&w->thread, NULL, waits, w) == 0);
    soon(look().waiting == before + 1);
}

static int result_of(waiting *w)
{
    pthread_join(w->thread, NULL);
    return w->rc;
}

/* ---- the promises -----------------------------------------------------------------------------
 * */

static void a_try_gets_what_there_is_and_no_more(void **state)
{
    make(state, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_EFULL);
    assert_int_equal(look().used, 3);
    assert_int_equal(look().refused, 1);
    for (int i = 0; i < 3; i++)
        release(1);
    end(3);
}

static void a_cost_counts_as_often_as_it_says(void **state)
{
    make(state, 10);
    assert_int_equal(acquire(7, WEIR_POLL), WEIR_OK);
    assert_int_equal(acquire(4, WEIR_POLL), WEIR_EFULL);
    assert_int_equal(acquire(3, WEIR_POLL), WEIR_OK);
    assert_int_equal(look().used, 10);
    release(7);
    release(3);
    end(2);
}

static void nothing_costs_nothing_is_no_call(void **state)
{
    make(state, 10);
    assert_int_equal(acquire(0, WEIR_POLL), WEIR_EINVAL);
    int rc = acquire(UINT64_C(1) << 62, WEIR_POLL);
    assert_int_equal(rc, the->is_bucket ? WEIR_ETOOBIG : WEIR_EINVAL); /* than its burst */
    end(0);
}

static void who_waits_is_let_in_by_a_release(void **state)
{
    make(state, 1);
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
    waiting w = {.cost = 1};
    start(&w);
    the->let_in(limit, 1);
    assert_int_equal(result_of(&w), WEIR_OK);
    release(1);
    end(2);
}

static void a_deadline_ends_the_wait_and_leaves_nothing(void **state)
{
    make(state, 1);
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
    weir_time deadline = weir_after(5 * WEIR_MILLISECOND);
    assert_int_equal(acquire(1, deadline), WEIR_ETIMEDOUT);
    if (!the->is_bucket) /* which knows at once that there will be no token */
        assert_true(weir_now() >= deadline);
    assert_int_equal(look().waiting, 0);
    the->let_in(limit, 1);
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
    release(1);
    end(2);
}

static void waiters_are_let_in_in_the_order_they_came(void **state)
{
    make(state, 1);
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
    waiting line[5] = {{.cost = 1}, {.cost = 1}, {.cost = 1}, {.cost = 1}, {.cost = 1}};
    turns = 0;
    for (int i = 0; i < 5; i++)
        start(&line[i]);
    for (unsigned i = 0; i < 5; i++) {
        the->let_in(limit, 1);
        soon(turns >= i + 1);
    }
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(result_of(&line[i]), WEIR_OK);
        if (!the->is_bucket) /* time lets in one after the other, whether they have noticed or not: */
            assert_int_equal(line[i].turn, i + 1); /* so see the next test */
    }
    release(1);
    end(6);
}

/* What is taken tells who has got his: costs are such that no other order comes to the same.  Of the
 * others the test above tells: between processes, who is called may take his after who was behind him,
 * if there is enough for both. */
static void those_who_have_their_tokens_are_the_first_in_line(void **state)
{
    make(state, 15);
    if (!the->is_bucket) {
        end(0);
        return;
    }
    assert_int_equal(acquire(15, WEIR_POLL), WEIR_OK);
    waiting line[4] = {{.cost = 4}, {.cost = 8}, {.cost = 1}, {.cost = 2}};
    static const uint64_t sums = 1 << 0 | 1 << 4 | 1 << 12 | 1 << 13 | 1 << 15; /* from the front */
    turns = 0;
    for (int i = 0; i < 4; i++)
        start(&line[i]);
    rate_set(limit, 100, WEIR_SECOND);
    while (turns < 4) {
        uint64_t got = look().used - 15;
        if (got > 15 || !(sums >> got & 1))
            fail_msg("%d were granted to those in line", (int)got);
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(result_of(&line[i]), WEIR_OK);
    end(5);
}

static void a_try_does_not_overtake_who_waits_for_much(void **state)
{
    make(state, 10);
    assert_int_equal(acquire(5, WEIR_POLL), WEIR_OK);
    waiting large = {.cost = 8};
    start(&large);
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_EFULL);
    the->let_in(limit, 5);
    assert_int_equal(result_of(&large), WEIR_OK);
    release(8);
    end(2);
}

static int stop_waiting(void *ctx)
{
    (void)ctx;
    return 1;
}

static void an_interrupted_wait_leaves_nothing(void **state)
{
    make(state, 1);
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
    waiting w = {.cost = 1, .hook = stop_waiting};
    must(pthread_create(&w.thread, NULL, waits, &w) == 0);
    assert_int_equal(result_of(&w), WEIR_EINTR);
    release(1);
    end(1);
}

static void close_releases_every_waiter(void **state)
{
    make(state, 1);
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
    waiting line[3] = {{.cost = 1}, {.cost = 1}, {.cost = 1}};
    for (int i = 0; i < 3; i++)
        start(&line[i]);
    the->close(limit);
    for (int i = 0; i < 3; i++)
        assert_int_equal(result_of(&line[i]), WEIR_ECLOSED);
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_ECLOSED);
    assert_int_equal(acquire(1, WEIR_FOREVER), WEIR_ECLOSED);
    assert_true(look().is_closed);
    release(1);
    the->close(limit);
    end(1);
}

/* ---- without a thread ---------------------------------------------------------------------------
 * */

static int last_result;
static unsigned n_ready;

static void ready(weir_pending *pending, int result)
{
    assert_ptr_equal(pending->ctx, &n_ready);
    last_result = result;
    n_ready++;
}

static weir_pending pending(void)
{
    n_ready = 0;
    return (weir_pending){.ready = ready, .ctx = &n_ready};
}

/* One of cost 1. */
static void let_in_pending(weir_pending *pending)
{
    the->let_in(limit, 1);
    if (the->settle)
        the->settle(limit, pending);
}

static void a_pending_call_is_let_in_by_a_release(void **state)
{
    make(state, 1);
    weir_pending first = pending(), second = pending();
    if (!the->waits_without_a_thread) {
        assert_int_equal(the->acquire_async(limit, 1, &first), WEIR_EINVAL);
        end(0);
        return;
    }
    assert_int_equal(the->acquire_async(limit, 1, &first), WEIR_OK);
    assert_int_equal(the->acquire_async(limit, 1, &second), WEIR_WAITING);
    assert_int_equal(n_ready, 0);
    let_in_pending(&second);
    assert_int_equal(n_ready, 1);
    assert_int_equal(last_result, WEIR_OK);
    taken += 2;
    assert_false(the->cancel(limit, &second));
    release(1);
    end(2);
}

static void a_cancelled_call_was_never_there(void **state)
{
    make(state, 1);
    if (the->waits_without_a_thread) {
        assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
        weir_pending first = pending(), second = pending();
        assert_int_equal(the->acquire_async(limit, 1, &first), WEIR_WAITING);
        assert_int_equal(the->acquire_async(limit, 1, &second), WEIR_WAITING);
        assert_true(the->cancel(limit, &first));
        let_in_pending(&second);
        assert_int_equal(n_ready, 1);
        taken++;
        release(1);
    }
    end(the->waits_without_a_thread ? 2 : 0);
}

static void close_tells_who_is_pending(void **state)
{
    make(state, 1);
    if (the->waits_without_a_thread) {
        assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
        weir_pending first = pending();
        assert_int_equal(the->acquire_async(limit, 1, &first), WEIR_WAITING);
        the->close(limit);
        if (the->settle)
            the->settle(limit, &first);
        assert_int_equal(n_ready, 1);
        assert_int_equal(last_result, WEIR_ECLOSED);
        release(1);
    }
    end(the->waits_without_a_thread ? 1 : 0);
}

/* ---- many at once -------------------------------------------------------------------------------
 * */

enum { CALLERS = 8, CALLS = 300, CAPACITY = 3 };

static _Atomic int inside, most;
static _Atomic uint64_t got;

static void *calls(void *arg)
{
    (void)arg;
    for (int i = 0; i < CALLS; i++) {
        weir_time deadline = i % 3 == 0 ? WEIR_POLL : i % 3 == 1 ? weir_after(50000) : WEIR_FOREVER;
        uint64_t cost = (uint64_t)(i % 2) + 1;
        int rc = acquire(cost, deadline);
        must(rc == WEIR_OK || rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT);
        if (rc != WEIR_OK)
            continue;
        int now = atomic_fetch_add(&inside, (int)cost) + (int)cost, seen = most;
        while (now > seen && !atomic_compare_exchange_weak(&most, &seen, now))
            ;
        got++;
        atomic_fetch_sub(&inside, (int)cost);
        release(cost);
    }
    return NULL;
}

static void no_more_than_the_limit_are_ever_inside(void **state)
{
    make(state, CAPACITY);
    pthread_t threads[CALLERS];
    inside = most = 0;
    got = 0;
    weir_time began = weir_now();
    if (the->is_bucket)
        rate_set(limit, 10 * QUICK, WEIR_SECOND);
    for (int i = 0; i < CALLERS; i++)
        must(pthread_create(&threads[i], NULL, calls, NULL) == 0);
    for (int i = 0; i < 200; i++) {
        uint64_t used = look().used;
        uint64_t came = (uint64_t)((weir_now() - began) / (WEIR_SECOND / (10 * QUICK)));
        must(used <= CAPACITY + (the->is_bucket ? came : 0));
    }
    for (int i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    assert_true(most > 0 && (the->is_bucket || most <= CAPACITY));
    assert_int_equal(inside, 0);
    end(got);
}

/* ---- processes ----------------------------------------------------------------------------------
 *
 * A limit that is not shared is the parent's, and nobody promises what it is in a child. */

static int status_of(pid_t child)
{
    int status;
    must(child > 0 && waitpid(child, &status, 0) == child);
    return status;
}

static void a_forked_child_takes_part(void **state)
{
    make(state, 3);
    if (the->is_shared) {
        assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
        pid_t child = fork();
        if (child == 0) {
            must(acquire(2, WEIR_POLL) == WEIR_OK);
            must(acquire(1, WEIR_POLL) == WEIR_EFULL);
            release(2);
            _exit(0);
        }
        assert_int_equal(status_of(child), 0);
        took(2);
        assert_int_equal(look().lost, 0);
        release(1);
    }
    end(the->is_shared ? 2 : 0);
}

/* What a bucket granted is spent, by whomever; what it waited for is not. */
static void what_a_killed_process_held_comes_back(void **state)
{
    make(state, 2);
    if (!the->is_shared) {
        end(0);
        return;
    }
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
    pid_t child = fork();
    if (child == 0) {
        must(acquire(1, WEIR_POLL) == WEIR_OK);
        raise(SIGKILL);
    }
    assert_true(WIFSIGNALED(status_of(child)));
    took(1);
    if (the->is_bucket)
        the->let_in(limit, 1);
    assert_int_equal(acquire(1, weir_after(PATIENCE)), WEIR_OK);
    assert_int_equal(look().lost, the->is_bucket ? 0 : 1);
    release(1);
    release(1);
    end(3);
}

static void who_is_killed_in_line_is_waited_for_by_nobody(void **state)
{
    make(state, 2);
    if (!the->is_shared) {
        end(0);
        return;
    }
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
    pid_t child = fork();
    if (child == 0) {
        waiting w = {.cost = 2};
        start(&w);
        raise(SIGKILL);
    }
    assert_true(WIFSIGNALED(status_of(child)));
    if (the->is_bucket)
        rate_set(limit, QUICK, WEIR_SECOND);
    assert_int_equal(acquire(1, WEIR_FOREVER), WEIR_OK);
    release(1);
    release(1);
    assert_int_equal(look().lost, 0);
    end(2);
}

/* ---- each test on each row ----------------------------------------------------------------------
 * */

#define TEST(fn) {#fn, fn}

static const struct {
    const char *name;
    CMUnitTestFunction fn;
} promises[] = {
    TEST(a_try_gets_what_there_is_and_no_more),
    TEST(a_cost_counts_as_often_as_it_says),
    TEST(nothing_costs_nothing_is_no_call),
    TEST(who_waits_is_let_in_by_a_release),
    TEST(a_deadline_ends_the_wait_and_leaves_nothing),
    TEST(waiters_are_let_in_in_the_order_they_came),
    TEST(those_who_have_their_tokens_are_the_first_in_line),
    TEST(a_try_does_not_overtake_who_waits_for_much),
    TEST(an_interrupted_wait_leaves_nothing),
    TEST(close_releases_every_waiter),
    TEST(a_pending_call_is_let_in_by_a_release),
    TEST(a_cancelled_call_was_never_there),
    TEST(close_tells_who_is_pending),
    TEST(no_more_than_the_limit_are_ever_inside),
    TEST(a_forked_child_takes_part),
    TEST(what_a_killed_process_held_comes_back),
    TEST(who_is_killed_in_line_is_waited_for_by_nobody),
};

enum { ROWS = sizeof subjects / sizeof *subjects, PROMISES = sizeof promises / sizeof *promises };

int main(void)
{
    static struct CMUnitTest tests[ROWS * PROMISES];
    static char names[ROWS * PROMISES][120];
    for (int row = 0; row < ROWS; row++)
        for (int i = 0; i < PROMISES; i++) {
            int at = row * PROMISES + i;
            snprintf(names[at], sizeof *names, "%s: %s", subjects[row].name, promises[i].name);
            tests[at] = (struct CMUnitTest){
                .name = names[at],
                .test_func = promises[i].fn,
                .initial_state = (void *)(uintptr_t)&subjects[row],
            };
        }
    return _cmocka_run_group_tests("limits", tests, ROWS * PROMISES, NULL, NULL);
}
