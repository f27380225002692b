/* What every limit promises, whatever it counts: each test runs on each row of `subjects`.  A limit
 * that is new is one more row. */
#include "support.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/weir.h>

/* ---- what a limit is ------------------------------------------------------------------------ */

typedef struct counts {
    uint64_t capacity, used, inside, admitted, released, lost, refused;
    size_t waiting;
    bool is_closed;
} counts;

typedef struct subject {
    const char *name;
    bool is_shared;
    void *(*create)(const struct subject *row, uint64_t capacity, const char *shared);
    void (*destroy)(void *limit);
    int (*acquire)(void *limit, uint64_t cost, weir_time deadline);
    void (*release)(void *limit, uint64_t cost);
    int (*acquire_async)(void *limit, uint64_t cost, weir_pending *pending);
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
        .create = limit_create,                                                                    \
        .destroy = limit_destroy,                                                                  \
        .acquire = limit_acquire,                                                                  \
        .release = limit_release,                                                                  \
        .acquire_async = limit_acquire_async,                                                      \
        .cancel = limit_cancel,                                                                    \
        .close = limit_close,                                                                      \
        .look = limit_look,                                                                        \
        .detail = algorithm,                                                                       \
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
};

/* ---- the limit under test ---------------------------------------------------------------------
 * */

static const subject *the;
static void *limit;

static void make(void **state, uint64_t capacity)
{
    the = *state;
    char name[32];
    snprintf(name, sizeof name, "contract.%d", (int)getpid());
    limit = the->create(the, capacity, the->is_shared ? name : NULL);
}

static int acquire(uint64_t cost, weir_time deadline)
{
    return the->acquire(limit, cost, deadline);
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
static void end(uint64_t admitted)
{
    counts now = look();
    assert_int_equal(now.used, 0);
    assert_int_equal(now.inside, 0);
    assert_int_equal(now.waiting, 0);
    assert_int_equal(now.admitted, admitted);
    assert_int_equal(now.released + now.lost, admitted);
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
    assert_int_equal(acquire(UINT64_C(1) << 62, WEIR_POLL), WEIR_EINVAL);
    end(0);
}

static void who_waits_is_let_in_by_a_release(void **state)
{
    make(state, 1);
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
    waiting w = {.cost = 1};
    start(&w);
    release(1);
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
    assert_true(weir_now() >= deadline);
    assert_int_equal(look().waiting, 0);
    release(1);
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
        release(1);
        soon(turns == i + 1);
    }
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(result_of(&line[i]), WEIR_OK);
        assert_int_equal(line[i].turn, i + 1);
    }
    release(1);
    end(6);
}

static void a_try_does_not_overtake_who_waits_for_much(void **state)
{
    make(state, 10);
    assert_int_equal(acquire(5, WEIR_POLL), WEIR_OK);
    waiting large = {.cost = 8};
    start(&large);
    assert_int_equal(acquire(1, WEIR_POLL), WEIR_EFULL);
    release(5);
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

static void a_pending_call_is_let_in_by_a_release(void **state)
{
    make(state, 1);
    weir_pending first = pending(), second = pending();
    if (the->is_shared) {
        assert_int_equal(the->acquire_async(limit, 1, &first), WEIR_EINVAL);
        end(0);
        return;
    }
    assert_int_equal(the->acquire_async(limit, 1, &first), WEIR_OK);
    assert_int_equal(the->acquire_async(limit, 1, &second), WEIR_WAITING);
    assert_int_equal(n_ready, 0);
    release(1);
    assert_int_equal(n_ready, 1);
    assert_int_equal(last_result, WEIR_OK);
    assert_false(the->cancel(limit, &second));
    release(1);
    end(2);
}

static void a_cancelled_call_was_never_there(void **state)
{
    make(state, 1);
    if (!the->is_shared) {
        assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
        weir_pending first = pending(), second = pending();
        assert_int_equal(the->acquire_async(limit, 1, &first), WEIR_WAITING);
        assert_int_equal(the->acquire_async(limit, 1, &second), WEIR_WAITING);
        assert_true(the->cancel(limit, &first));
        release(1);
        assert_int_equal(n_ready, 1);
        release(1);
    }
    end(the->is_shared ? 0 : 2);
}

static void close_tells_who_is_pending(void **state)
{
    make(state, 1);
    if (!the->is_shared) {
        assert_int_equal(acquire(1, WEIR_POLL), WEIR_OK);
        weir_pending first = pending();
        assert_int_equal(the->acquire_async(limit, 1, &first), WEIR_WAITING);
        the->close(limit);
        assert_int_equal(n_ready, 1);
        assert_int_equal(last_result, WEIR_ECLOSED);
        release(1);
    }
    end(the->is_shared ? 0 : 1);
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
    for (int i = 0; i < CALLERS; i++)
        must(pthread_create(&threads[i], NULL, calls, NULL) == 0);
    for (int i = 0; i < 200; i++)
        must(look().used <= CAPACITY);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    assert_true(most > 0 && most <= CAPACITY);
    assert_int_equal(inside, 0);
    end(got);
}

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
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(acquire(1, weir_after(PATIENCE)), WEIR_OK);
    assert_int_equal(look().lost, 1);
    release(1);
    release(1);
    end(3);
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
    TEST(a_try_does_not_overtake_who_waits_for_much),
    TEST(an_interrupted_wait_leaves_nothing),
    TEST(close_releases_every_waiter),
    TEST(a_pending_call_is_let_in_by_a_release),
    TEST(a_cancelled_call_was_never_there),
    TEST(close_tells_who_is_pending),
    TEST(no_more_than_the_limit_are_ever_inside),
    TEST(what_a_killed_process_held_comes_back),
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
