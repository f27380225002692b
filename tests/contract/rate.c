/* weir/rate.h: the token bucket's contract.  No test asks for more than that time passes; what the
 * arithmetic does with times is in tests/unit/rate.c. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/rate.h>

#define HOUR (3600 * WEIR_SECOND)

static weir_rate *make(uint64_t rate, int64_t per_ns, uint64_t burst)
{
    weir_rate *made = NULL;
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    opts.rate = rate;
    opts.per_ns = per_ns;
    opts.burst = burst;
    must(weir_rate_create(&made, &opts) == WEIR_OK);
    return made;
}

static char name[40];

static weir_rate *make_shared(uint64_t rate, int64_t per_ns, uint64_t burst)
{
    weir_rate *made = NULL;
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    opts.rate = rate;
    opts.per_ns = per_ns;
    opts.burst = burst;
    opts.shared = name;
    must(weir_rate_create(&made, &opts) == WEIR_OK);
    return made;
}

static int another_name(void **state)
{
    static int n;
    (void)state;
    snprintf(name, sizeof name, "test.%d.%d", (int)getpid(), n++);
    return 0;
}

static weir_rate_snapshot look(weir_rate *rate)
{
    weir_rate_snapshot now = WEIR_RATE_SNAPSHOT_INIT;
    must(weir_rate_get_snapshot(rate, &now) == WEIR_OK);
    return now;
}

static int
try
    (weir_rate *rate, uint64_t cost)
    {
        return weir_rate_acquire(rate, cost, WEIR_POLL);
    }

/* An acquire on a thread of its own. */
typedef struct taker {
    weir_rate *rate;
    uint64_t cost;
    weir_time deadline, returned_at;
    weir_interrupt_fn *hook;
    void *hook_ctx;
    int rc;
    pthread_t thread;
} taker;

static void *takes(void *arg)
{
    taker *t = arg;
    weir_set_interrupt(t->hook, t->hook_ctx);
    t->rc = weir_rate_acquire(t->rate, t->cost, t->deadline ? t->deadline : WEIR_FOREVER);
    t->returned_at = weir_now();
    return NULL;
}

static void start(taker *t)
{
    must(pthread_create(&t->thread, NULL, takes, t) == 0);
}

/* Returns when it waits in line. */
static void start_waiting(taker *t)
{
    size_t before = look(t->rate).waiting;
    start(t);
    soon(look(t->rate).waiting == before + 1);
}

static int end(taker *t)
{
    pthread_join(t->thread, NULL);
    return t->rc;
}

/* ---- taking --------------------------------------------------------------------------------- */

static void a_full_bucket_gives_its_burst_at_once_and_no_more(void **state)
{
    (void)state;
    weir_rate *rate = make(2, HOUR, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(try (rate, 1), WEIR_OK);
    assert_int_equal(try (rate, 1), WEIR_EFULL);
    weir_rate_snapshot now = look(rate);
    assert_int_equal(now.granted, 5);
    assert_int_equal(now.refused, 1);
    assert_int_equal(now.available, 0);
    assert_int_equal(now.rate, 2);
    assert_int_equal(now.per_ns, HOUR);
    assert_int_equal(now.burst, 5);
    assert_false(now.closed);
    weir_rate_destroy(rate);
    weir_rate_destroy(NULL);
}

static void a_wait_ends_when_the_tokens_are_there_and_not_before(void **state)
{
    (void)state;
    weir_rate *rate = make(100, 0, 2);
    weir_time began = weir_now();
    assert_int_equal(try (rate, 2), WEIR_OK);
    for (int i = 1; i <= 5; i++) {
        assert_int_equal(weir_rate_acquire(rate, 1, WEIR_FOREVER), WEIR_OK);
        assert_true(weir_now() - began >= i * 10 * WEIR_MILLISECOND);
    }
    assert_int_equal(weir_rate_acquire(rate, 2, weir_after(10 * WEIR_SECOND)), WEIR_OK);
    assert_true(weir_now() - began >= 70 * WEIR_MILLISECOND);
    assert_int_equal(look(rate).granted, 9);
    assert_true(look(rate).blocked_ns > 0);
    weir_rate_destroy(rate);
}

static void a_deadline_that_cannot_be_met_is_refused_at_once(void **state)
{
    (void)state;
    weir_rate *rate = make(1, HOUR, 1);
    assert_int_equal(try (rate, 1), WEIR_OK);
    weir_time deadline = weir_after(HOUR / 2);
    assert_int_equal(weir_rate_acquire(rate, 1, deadline), WEIR_ETIMEDOUT);
    assert_true(weir_now() < deadline);
    assert_int_equal(weir_rate_acquire(rate, 1, 1), WEIR_ETIMEDOUT);
    weir_rate_snapshot now = look(rate);
    assert_int_equal(now.granted, 1);
    assert_int_equal(now.refused, 2);
    assert_int_equal(now.waiting, 0);
    weir_rate_destroy(rate);
}

static void more_than_the_burst_and_nothing_are_refused(void **state)
{
    (void)state;
    weir_rate *rate = make(1, 0, 10);
    weir_reservation r;
    weir_time at;
    assert_int_equal(try (rate, 11), WEIR_ETOOBIG);
    assert_int_equal(weir_rate_acquire(rate, UINT64_MAX, WEIR_FOREVER), WEIR_ETOOBIG);
    assert_int_equal(try (rate, 0), WEIR_EINVAL);
    assert_int_equal(weir_rate_reserve(rate, 11, &at, &r), WEIR_ETOOBIG);
    assert_int_equal(weir_rate_reserve(rate, 0, &at, &r), WEIR_EINVAL);
    assert_int_equal(try (rate, 10), WEIR_OK);
    weir_rate_destroy(rate);
}

static int creates(weir_rate_opts opts)
{
    weir_rate *rate = NULL;
    int rc = weir_rate_create(&rate, &opts);
    must((rate != NULL) == (rc == WEIR_OK));
    weir_rate_destroy(rate);
    return rc;
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    assert_int_equal(creates(opts), WEIR_EINVAL);
    opts.rate = 1;
    assert_int_equal(creates(opts), WEIR_OK);
    opts.per_ns = -1;
    assert_int_equal(creates(opts), WEIR_EINVAL);
    opts.per_ns = INT64_MAX;
    assert_int_equal(creates(opts), WEIR_EINVAL);
    opts.per_ns = 0;
    opts.burst = UINT64_C(1) << 38;
    assert_int_equal(creates(opts), WEIR_EINVAL);
    opts.burst--;
    assert_int_equal(creates(opts), WEIR_OK);
    opts.rate = UINT64_C(1) << 41;
    assert_int_equal(creates(opts), WEIR_EINVAL);
    opts.rate = 1;
    opts.size--;
    assert_int_equal(creates(opts), WEIR_EINVAL);
    opts.size++;
    opts.shared = "../bad";
    assert_int_equal(creates(opts), WEIR_EINVAL);
    weir_rate *rate = make(1, 0, 1);
    assert_int_equal(weir_rate_set(rate, 0, 0, 0), WEIR_EINVAL);
    weir_rate_snapshot bad = {0};
    assert_int_equal(weir_rate_get_snapshot(rate, &bad), WEIR_EINVAL);
    weir_rate_destroy(rate);
}

/* ---- order ---------------------------------------------------------------------------------- */

static void a_try_never_overtakes_who_waits(void **state)
{
    (void)state;
    weir_rate *rate = make(1, HOUR, 10);
    assert_int_equal(try (rate, 8), WEIR_OK);
    taker large = {.rate = rate, .cost = 5};
    start_waiting(&large);
    assert_int_equal(try (rate, 1), WEIR_EFULL);
    assert_int_equal(weir_rate_acquire(rate, 1, weir_after(WEIR_SECOND)), WEIR_ETIMEDOUT);
    weir_rate_close(rate);
    assert_int_equal(end(&large), WEIR_ECLOSED);
    assert_int_equal(look(rate).granted, 8);
    weir_rate_destroy(rate);
}

static void waiters_are_served_in_the_order_they_came_whatever_they_cost(void **state)
{
    (void)state;
    enum { N = 12 };
    weir_rate *rate = make(500, 0, 20);
    assert_int_equal(try (rate, 20), WEIR_OK);
    assert_int_equal(weir_rate_set(rate, 1, HOUR, 20), WEIR_OK); /* until all are in line */
    taker takers[N];
    uint64_t before[N + 1] = {0};
    for (int i = 0; i < N; i++) {
        takers[i] = (taker){.rate = rate, .cost = i % 3 == 1 ? 18 : 1};
        before[i + 1] = before[i] + takers[i].cost;
        start_waiting(&takers[i]);
    }
    weir_time began = weir_now();
    assert_int_equal(weir_rate_set(rate, 500, 0, 20), WEIR_OK);
    for (int i = 0; i < N; i++) {
        assert_int_equal(end(&takers[i]), WEIR_OK);
        /* Not before those ahead of it have got theirs; the bucket had less than a token. */
        weir_time least = (weir_time)(before[i + 1] - 1) * 2 * WEIR_MILLISECOND;
        assert_true(takers[i].returned_at - began >= least);
    }
    assert_int_equal(look(rate).granted, 20 + before[N]);
    weir_rate_destroy(rate);
}

static _Atomic bool enough;
static _Atomic uint64_t small_ones;

static void *takes_one_after_the_other(void *arg)
{
    while (!enough && weir_rate_acquire(arg, 1, WEIR_FOREVER) == WEIR_OK)
        small_ones++;
    return NULL;
}

/* Nobody who comes later gets a token before it does: so at most those ahead, and what they have
 * taken since they were counted. */
static void a_large_one_among_small_ones_waits_for_those_ahead_only(void **state)
{
    (void)state;
    enum { SMALL = 6 };
    pthread_t threads[SMALL];
    weir_rate *rate = make(2000, 0, 50);
    enough = false;
    for (int i = 0; i < SMALL; i++)
        must(pthread_create(&threads[i], NULL, takes_one_after_the_other, rate) == 0);
    soon(look(rate).waiting >= SMALL - 1);
    for (int i = 0; i < 5; i++) {
        uint64_t granted = look(rate).granted;
        weir_time began = weir_now();
        assert_int_equal(weir_rate_acquire(rate, 50, WEIR_FOREVER), WEIR_OK);
        weir_time ended = weir_now();
        /* All that was granted meanwhile came out of one bucket, and its own 50 were in it. */
        uint64_t others = look(rate).granted - granted - 50;
        uint64_t possible = (uint64_t)((ended - began) / (WEIR_SECOND / 2000)) + 2;
        assert_true(others <= possible + 50);
        must(ended - began < PATIENCE);
    }
    enough = true;
    weir_rate_close(rate);
    for (int i = 0; i < SMALL; i++)
        pthread_join(threads[i], NULL);
    weir_rate_destroy(rate);
}

static int says_yes(void *ctx)
{
    return *(_Atomic int *)ctx;
}

static void who_gives_up_takes_nothing_and_the_next_moves_up(void **state)
{
    (void)state;
    _Atomic int give_up = 0;
    weir_rate *rate = make(20, 0, 1000);
    assert_int_equal(try (rate, 1000), WEIR_OK);
    taker large = {.rate = rate, .cost = 1000, .hook = says_yes, .hook_ctx = &give_up};
    taker small = {.rate = rate, .cost = 1};
    start_waiting(&large);
    start_waiting(&small);
    give_up = 1;
    assert_int_equal(end(&large), WEIR_EINTR);
    assert_int_equal(end(&small), WEIR_OK); /* and not after 50 s */
    assert_true(look(rate).granted == 1001);
    weir_rate_destroy(rate);
}

/* ---- changes -------------------------------------------------------------------------------- */

static void another_rate_moves_those_who_wait(void **state)
{
    (void)state;
    weir_rate *rate = make(1, HOUR, 3);
    assert_int_equal(try (rate, 3), WEIR_OK);
    taker takers[3];
    for (int i = 0; i < 3; i++) {
        takers[i] = (taker){.rate = rate, .cost = 1};
        start_waiting(&takers[i]);
    }
    assert_int_equal(weir_rate_set(rate, 1000, 0, 3), WEIR_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(end(&takers[i]), WEIR_OK);
    assert_int_equal(look(rate).rate, 1000);
    weir_rate_destroy(rate);
}

static int raises_the_rate(void *ctx)
{
    must(weir_rate_set(ctx, 1000, 0, 1) == WEIR_OK);
    return 0;
}

static void the_rate_may_be_changed_in_the_hook_of_who_waits(void **state)
{
    (void)state;
    weir_rate *rate = make(1, HOUR, 1);
    assert_int_equal(try (rate, 1), WEIR_OK);
    taker t = {.rate = rate, .cost = 1, .hook = raises_the_rate, .hook_ctx = rate};
    start(&t);
    assert_int_equal(end(&t), WEIR_OK);
    weir_rate_destroy(rate);
}

static void a_burst_made_smaller_ends_the_waits_that_it_makes_impossible(void **state)
{
    (void)state;
    weir_rate *rate = make(1, HOUR, 10);
    assert_int_equal(try (rate, 9), WEIR_OK);
    taker large = {.rate = rate, .cost = 10}, small = {.rate = rate, .cost = 1};
    start_waiting(&large);
    start_waiting(&small);
    assert_int_equal(weir_rate_set(rate, 1, HOUR, 5), WEIR_OK);
    assert_int_equal(end(&large), WEIR_ETOOBIG);
    assert_int_equal(end(&small), WEIR_OK);
    weir_rate_destroy(rate);
}

static void what_is_inside_stays_up_to_the_new_burst(void **state)
{
    (void)state;
    weir_rate *rate = make(1, HOUR, 10);
    assert_int_equal(weir_rate_set(rate, 7, HOUR, 4), WEIR_OK);
    assert_int_equal(look(rate).available, 4);
    assert_int_equal(weir_rate_set(rate, 7, HOUR, 10), WEIR_OK);
    assert_int_equal(look(rate).available, 4);
    assert_int_equal(try (rate, 4), WEIR_OK);
    assert_int_equal(weir_rate_set(rate, 7, HOUR, 100), WEIR_OK);
    assert_int_equal(look(rate).available, 0);
    assert_int_equal(try (rate, 1), WEIR_EFULL);
    weir_rate_destroy(rate);
}

static void closing_ends_every_wait_and_every_later_call(void **state)
{
    (void)state;
    weir_rate *rate = make(1, HOUR, 1);
    assert_int_equal(try (rate, 1), WEIR_OK);
    taker takers[4];
    for (int i = 0; i < 4; i++) {
        takers[i] = (taker){.rate = rate, .cost = 1};
        start_waiting(&takers[i]);
    }
    weir_rate_close(rate);
    weir_rate_close(rate);
    for (int i = 0; i < 4; i++)
        assert_int_equal(end(&takers[i]), WEIR_ECLOSED);
    weir_time at;
    weir_reservation r;
    assert_int_equal(try (rate, 1), WEIR_ECLOSED);
    assert_int_equal(weir_rate_reserve(rate, 1, &at, &r), WEIR_ECLOSED);
    assert_true(look(rate).closed);
    assert_int_equal(look(rate).waiting, 0);
    weir_rate_destroy(rate);
}

/* ---- without a thread ----------------------------------------------------------------------- */

static void count_calls(weir_pending *pending, int result)
{
    must(result == WEIR_WAITING);
    (*(_Atomic int *)pending->ctx)++;
}

static void sleep_until(weir_time at)
{
    while (weir_now() < at)
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

/* Polls when it is told to. */
static int poll_to_the_end(weir_rate *rate, weir_pending *pending, weir_time at)
{
    int rc;
    do
        sleep_until(at);
    while ((rc = weir_rate_poll(rate, pending, &at)) == WEIR_WAITING);
    return rc;
}

static void a_place_without_a_thread_is_told_when_to_poll(void **state)
{
    (void)state;
    _Atomic int calls = 0;
    weir_pending pending = {.ready = count_calls, .ctx = &calls};
    weir_time at = 0, began = weir_now();
    weir_rate *rate = make(50, 0, 1);
    assert_int_equal(weir_rate_acquire_async(rate, 1, &pending, &at), WEIR_OK);
    assert_int_equal(weir_rate_acquire_async(rate, 1, &pending, &at), WEIR_WAITING);
    assert_true(at > began && at <= weir_now() + WEIR_SECOND / 50);
    assert_int_equal(look(rate).waiting, 1);
    assert_int_equal(poll_to_the_end(rate, &pending, at), WEIR_OK);
    assert_true(weir_now() - began >= WEIR_SECOND / 50);
    assert_int_equal(weir_rate_poll(rate, &pending, &at), WEIR_EINVAL);
    weir_rate_cancel(rate, &pending);
    assert_int_equal(look(rate).granted, 2);
    assert_int_equal(calls, 0);
    weir_rate_destroy(rate);
}

static void a_change_of_rate_says_poll_now(void **state)
{
    (void)state;
    _Atomic int calls = 0;
    weir_pending pending = {.ready = count_calls, .ctx = &calls};
    weir_time at;
    weir_rate *rate = make(1, HOUR, 1);
    assert_int_equal(try (rate, 1), WEIR_OK);
    assert_int_equal(weir_rate_acquire_async(rate, 1, &pending, &at), WEIR_WAITING);
    assert_int_equal(weir_rate_poll(rate, &pending, &at), WEIR_WAITING);
    assert_true(at > weir_now() + HOUR / 2);
    assert_int_equal(weir_rate_set(rate, 1000, 0, 1), WEIR_OK);
    assert_int_equal(calls, 1);
    int rc = weir_rate_poll(rate, &pending, &at);
    if (rc == WEIR_WAITING)
        rc = poll_to_the_end(rate, &pending, at);
    assert_int_equal(rc, WEIR_OK);
    weir_rate_destroy(rate);
}

static void a_cancelled_place_takes_nothing_and_the_next_is_told(void **state)
{
    (void)state;
    _Atomic int first_calls = 0, second_calls = 0;
    weir_pending first = {.ready = count_calls, .ctx = &first_calls};
    weir_pending second = {.ready = count_calls, .ctx = &second_calls};
    weir_time at;
    weir_rate *rate = make(10, 0, 1000);
    assert_int_equal(try (rate, 1000), WEIR_OK);
    assert_int_equal(weir_rate_acquire_async(rate, 1000, &first, &at), WEIR_WAITING);
    assert_int_equal(weir_rate_acquire_async(rate, 1, &second, &at), WEIR_WAITING);
    assert_true(at > weir_now() + 50 * WEIR_SECOND);
    weir_rate_cancel(rate, &first);
    weir_rate_cancel(rate, &first);
    assert_int_equal(first_calls, 0);
    assert_int_equal(second_calls, 1);
    int rc = weir_rate_poll(rate, &second, &at);
    if (rc == WEIR_WAITING)
        rc = poll_to_the_end(rate, &second, at);
    assert_int_equal(rc, WEIR_OK);
    assert_int_equal(look(rate).granted, 1001);
    weir_rate_destroy(rate);
}

static void closing_tells_those_without_a_thread(void **state)
{
    (void)state;
    _Atomic int calls = 0;
    weir_pending pending = {.ready = count_calls, .ctx = &calls};
    weir_time at;
    weir_rate *rate = make(1, HOUR, 1);
    assert_int_equal(try (rate, 1), WEIR_OK);
    assert_int_equal(weir_rate_acquire_async(rate, 1, &pending, &at), WEIR_WAITING);
    weir_rate_close(rate);
    assert_int_equal(calls, 1);
    assert_int_equal(weir_rate_poll(rate, &pending, &at), WEIR_ECLOSED);
    assert_int_equal(weir_rate_acquire_async(rate, 1, &pending, &at), WEIR_ECLOSED);
    weir_rate_destroy(rate);
}

static void who_is_interrupted_tells_the_next_one_without_a_thread(void **state)
{
    (void)state;
    _Atomic int give_up = 0, calls = 0;
    weir_pending pending = {.ready = count_calls, .ctx = &calls};
    weir_time at;
    weir_rate *rate = make(10, 0, 1000);
    assert_int_equal(try (rate, 1000), WEIR_OK);
    taker large = {.rate = rate, .cost = 1000, .hook = says_yes, .hook_ctx = &give_up};
    start_waiting(&large);
    assert_int_equal(weir_rate_acquire_async(rate, 1, &pending, &at), WEIR_WAITING);
    give_up = 1;
    assert_int_equal(end(&large), WEIR_EINTR);
    assert_int_equal(calls, 1);
    weir_rate_cancel(rate, &pending);
    assert_int_equal(look(rate).refused, 1); /* who is interrupted was not refused */
    weir_rate_destroy(rate);
}

static void what_is_given_back_is_told_to_the_next_one_without_a_thread(void **state)
{
    (void)state;
    _Atomic int calls = 0;
    weir_pending pending = {.ready = count_calls, .ctx = &calls};
    weir_reservation r;
    weir_time at;
    weir_rate *rate = make(10, 0, 1000);
    assert_int_equal(weir_rate_reserve(rate, 1000, &at, &r), WEIR_OK);
    assert_int_equal(weir_rate_acquire_async(rate, 900, &pending, &at), WEIR_WAITING);
    assert_int_equal(weir_rate_unreserve(rate, &r), 1);
    assert_int_equal(calls, 1);
    assert_int_equal(weir_rate_poll(rate, &pending, &at), WEIR_OK);
    weir_rate_destroy(rate);
}

/* The burst is too small for both, so the thread cannot have its token beside the other's. */
static void a_loop_that_does_not_poll_is_passed_over(void **state)
{
    (void)state;
    _Atomic int calls = 0;
    weir_pending pending = {.ready = count_calls, .ctx = &calls};
    weir_time at;
    weir_rate *rate = make(100, 0, 1);
    assert_int_equal(try (rate, 1), WEIR_OK);
    assert_int_equal(weir_rate_acquire_async(rate, 1, &pending, &at), WEIR_WAITING);
    taker behind = {.rate = rate, .cost = 1};
    start(&behind);
    assert_int_equal(end(&behind), WEIR_OK);
    assert_int_equal(poll_to_the_end(rate, &pending, at), WEIR_OK);
    assert_int_equal(look(rate).granted, 3);
    weir_rate_destroy(rate);
}

/* ---- reservations --------------------------------------------------------------------------- */

static void a_reservation_tells_when_it_may_be_used(void **state)
{
    (void)state;
    weir_rate *rate = make(1, 100 * WEIR_SECOND, 5);
    weir_reservation r;
    weir_time at, last = 0;
    assert_int_equal(weir_rate_reserve(rate, 5, &at, &r), WEIR_OK);
    assert_true(at <= weir_now());
    assert_int_equal(r.cost, 5);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(weir_rate_reserve(rate, 2, &at, &r), WEIR_OK);
        if (last)
            assert_int_equal(at - last, 200 * WEIR_SECOND);
        last = at;
    }
    assert_int_equal(weir_rate_due(rate, &r), at);
    assert_int_equal(look(rate).available, -6);
    assert_int_equal(try (rate, 1), WEIR_EFULL);
    assert_int_equal(weir_rate_set(rate, 10, 100 * WEIR_SECOND, 5), WEIR_OK);
    weir_time earlier = weir_rate_due(rate, &r);
    assert_in_range(earlier - weir_now(), 0, 60 * WEIR_SECOND);
    weir_rate_destroy(rate);
}

static void the_last_reservation_can_be_given_back_and_others_are_lost(void **state)
{
    (void)state;
    weir_rate *rate = make(1, HOUR, 5);
    weir_reservation first, second, third;
    weir_time at;
    assert_int_equal(weir_rate_reserve(rate, 3, &at, &first), WEIR_OK);
    assert_int_equal(weir_rate_reserve(rate, 5, &at, &second), WEIR_OK);
    assert_int_equal(weir_rate_reserve(rate, 5, &at, &third), WEIR_OK);
    assert_int_equal(weir_rate_unreserve(rate, &second), 0);
    assert_int_equal(weir_rate_unreserve(rate, &third), 1);
    assert_int_equal(weir_rate_unreserve(rate, &first), 0);
    weir_rate_snapshot now = look(rate);
    assert_int_equal(now.granted, 13);
    assert_int_equal(now.returned, 5);
    assert_int_equal(now.available, -3);
    weir_rate_destroy(rate);
}

static void a_reservation_comes_after_those_who_wait_and_does_not_delay_them(void **state)
{
    (void)state;
    weir_time began = weir_now();
    weir_rate *rate = make(10, 0, 20);
    assert_int_equal(try (rate, 20), WEIR_OK);
    taker t = {.rate = rate, .cost = 4};
    start_waiting(&t);
    weir_reservation r;
    weir_time at;
    assert_int_equal(weir_rate_reserve(rate, 20, &at, &r), WEIR_OK);
    assert_true(at >= began + 2400 * WEIR_MILLISECOND);
    assert_int_equal(end(&t), WEIR_OK);
    assert_true(t.returned_at < at);
    assert_int_equal(weir_rate_unreserve(rate, &r), 0); /* what the waiter took counts on it */
    weir_rate_destroy(rate);
}

static void what_is_given_back_lets_the_next_go(void **state)
{
    (void)state;
    weir_rate *rate = make(10, 0, 1000);
    weir_reservation r;
    weir_time at;
    assert_int_equal(weir_rate_reserve(rate, 1000, &at, &r), WEIR_OK);
    taker t = {.rate = rate, .cost = 900};
    start_waiting(&t);
    assert_int_equal(weir_rate_unreserve(rate, &r), 1);
    assert_int_equal(end(&t), WEIR_OK);
    weir_rate_destroy(rate);
}

/* ---- shared --------------------------------------------------------------------------------- */

static int child_that(int (*fn)(weir_rate *rate), weir_rate *rate)
{
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0)
        _exit(fn(rate));
    int status;
    must(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void a_name_leads_to_one_bucket(void **state)
{
    (void)state;
    weir_rate *a = make_shared(1, HOUR, 10), *b = make_shared(5, HOUR, 99);
    assert_int_equal(look(b).burst, 10); /* as who made it said */
    assert_int_equal(try (a, 4), WEIR_OK);
    assert_int_equal(look(b).available, 6);
    assert_int_equal(weir_rate_set(b, 3, HOUR, 20), WEIR_OK);
    assert_int_equal(look(a).burst, 20);
    weir_rate_close(b);
    assert_int_equal(try (b, 1), WEIR_ECLOSED);
    assert_int_equal(try (a, 6), WEIR_OK);
    weir_rate_destroy(a);
    weir_rate_destroy(b);
    a = make_shared(1000, 1000, 7); /* not full, so it is still there */
    assert_int_equal(look(a).available, 0);
    assert_int_equal(look(a).burst, 20);
    assert_int_equal(weir_rate_set(a, 1000000, 1000, 1), WEIR_OK);
    soon(look(a).available == 1);
    weir_rate_destroy(a);
    a = make_shared(2, HOUR, 7); /* full, so it had ended */
    assert_int_equal(look(a).burst, 7);
    assert_int_equal(weir_rate_set(a, 1000000, 1000, 1), WEIR_OK);
    weir_rate_destroy(a);
}

static int takes_three_and_waits_for_one(weir_rate *rate)
{
    must(try (rate, 3) == WEIR_OK);
    must(try (rate, 1) == WEIR_EFULL);
    must(weir_rate_acquire(rate, 1, weir_after(WEIR_SECOND)) == WEIR_ETIMEDOUT);
    must(weir_rate_set(rate, 1000, 0, 3) == WEIR_OK);
    must(weir_rate_acquire(rate, 1, WEIR_FOREVER) == WEIR_OK);
    must(weir_rate_set(rate, 1, HOUR, 3) == WEIR_OK);
    return 5;
}

static void a_forked_child_has_the_same_bucket_and_a_line_of_its_own(void **state)
{
    (void)state;
    weir_rate *rate = make_shared(1, HOUR, 3);
    taker t = {.rate = rate, .cost = 3};
    assert_int_equal(child_that(takes_three_and_waits_for_one, rate), 5);
    assert_true(look(rate).granted >= 4);
    assert_int_equal(try (rate, 3), WEIR_EFULL);
    start_waiting(&t);
    assert_int_equal(weir_rate_set(rate, 1000000, 1000, 3), WEIR_OK);
    assert_int_equal(end(&t), WEIR_OK);
    weir_rate_destroy(rate);
}

/* As a daemon does that closes all descriptors: it cannot take a seat of its own. */
static weir_pending of_the_parent;

static int has_closed_all_and_comes(weir_rate *rate)
{
    weir_time at;
    for (int fd = 3; fd < 256; fd++)
        close(fd);
    must(weir_rate_poll(rate, &of_the_parent, &at) == WEIR_ESYSTEM);
    weir_rate_cancel(rate, &of_the_parent);
    must(weir_rate_set(rate, 7, HOUR, 10) == WEIR_ESYSTEM);
    weir_rate_close(rate);
    return 5;
}

static void a_forked_child_without_the_file_leaves_the_parents_place_alone(void **state)
{
    (void)state;
    _Atomic int calls = 0;
    weir_time at;
    weir_rate *rate = make_shared(1, HOUR, 10), *same = make_shared(1, HOUR, 10);
    of_the_parent = (weir_pending){.ready = count_calls, .ctx = &calls};
    assert_int_equal(try (rate, 5), WEIR_OK);
    assert_int_equal(weir_rate_acquire_async(rate, 10, &of_the_parent, &at), WEIR_WAITING);
    assert_int_equal(child_that(has_closed_all_and_comes, rate), 5);
    assert_int_equal(try (same, 1), WEIR_EFULL); /* it is still in line */
    weir_rate_cancel(rate, &of_the_parent);
    assert_int_equal(try (same, 1), WEIR_OK);
    assert_int_equal(weir_rate_set(rate, 1000000, 1000, 1), WEIR_OK);
    soon(look(rate).available == 1);
    weir_rate_destroy(same);
    weir_rate_destroy(rate);
}

static int waits_for_ever(weir_rate *rate)
{
    weir_rate_acquire(rate, 10, WEIR_FOREVER);
    return 0;
}

/* It waits first in line when it is killed; and the burst is too small for its cost and another's. */
static void who_is_killed_in_line_holds_nobody_up_for_long(void **state)
{
    (void)state;
    weir_rate *rate = make_shared(1, HOUR, 10);
    assert_int_equal(try (rate, 5), WEIR_OK);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0)
        _exit(waits_for_ever(rate));
    soon(try (rate, 1) == WEIR_EFULL); /* it is in line */
    must(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    assert_int_equal(weir_rate_set(rate, 1000000, 1000, 10), WEIR_OK); /* there is enough for it */
    assert_int_equal(weir_rate_acquire(rate, 10, WEIR_FOREVER), WEIR_OK);
    soon(try (rate, 10) == WEIR_OK);
    weir_rate_destroy(rate);
}

static int waits_and_is_killed(weir_rate *rate)
{
    taker t = {.rate = rate, .cost = 10};
    start_waiting(&t);
    return raise(SIGKILL);
}

/* The next one has its seat, and so seems to be what is in line. */
static void what_a_killed_process_left_in_line_goes_when_another_takes_its_seat(void **state)
{
    (void)state;
    weir_rate *rate = make_shared(1, HOUR, 10);
    assert_int_equal(try (rate, 5), WEIR_OK);
    for (int i = 0; i < 5; i++)
        assert_int_equal(child_that(waits_and_is_killed, rate), -SIGKILL);
    assert_int_equal(try (rate, 1), WEIR_EFULL);
    assert_int_equal(weir_rate_set(rate, 1000000, 1000, 10), WEIR_OK);
    soon(try (rate, 10) == WEIR_OK);
    weir_rate_destroy(rate);
}

static void who_is_stopped_in_line_is_passed_over(void **state)
{
    (void)state;
    weir_rate *rate = make_shared(1, HOUR, 10);
    assert_int_equal(try (rate, 5), WEIR_OK);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0)
        _exit(waits_for_ever(rate));
    soon(try (rate, 1) == WEIR_EFULL);
    must(kill(pid, SIGSTOP) == 0 && waitpid(pid, NULL, WUNTRACED) == pid);
    assert_int_equal(weir_rate_set(rate, 1000000, 1000, 10), WEIR_OK);
    assert_int_equal(weir_rate_acquire(rate, 10, WEIR_FOREVER), WEIR_OK);
    must(kill(pid, SIGCONT) == 0);
    int status;
    must(waitpid(pid, &status, 0) == pid);
    assert_true(WIFEXITED(status)); /* it got its own all the same */
    soon(try (rate, 10) == WEIR_OK);
    weir_rate_destroy(rate);
}

#define shared_test(f) cmocka_unit_test_setup(f, another_name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_bucket_gives_its_burst_at_once_and_no_more),
        cmocka_unit_test(a_wait_ends_when_the_tokens_are_there_and_not_before),
        cmocka_unit_test(a_deadline_that_cannot_be_met_is_refused_at_once),
        cmocka_unit_test(more_than_the_burst_and_nothing_are_refused),
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(a_try_never_overtakes_who_waits),
        cmocka_unit_test(waiters_are_served_in_the_order_they_came_whatever_they_cost),
        cmocka_unit_test(a_large_one_among_small_ones_waits_for_those_ahead_only),
        cmocka_unit_test(who_gives_up_takes_nothing_and_the_next_moves_up),
        cmocka_unit_test(another_rate_moves_those_who_wait),
        cmocka_unit_test(the_rate_may_be_changed_in_the_hook_of_who_waits),
        cmocka_unit_test(a_burst_made_smaller_ends_the_waits_that_it_makes_impossible),
        cmocka_unit_test(what_is_inside_stays_up_to_the_new_burst),
        cmocka_unit_test(closing_ends_every_wait_and_every_later_call),
        cmocka_unit_test(a_place_without_a_thread_is_told_when_to_poll),
        cmocka_unit_test(a_change_of_rate_says_poll_now),
        cmocka_unit_test(a_cancelled_place_takes_nothing_and_the_next_is_told),
        cmocka_unit_test(closing_tells_those_without_a_thread),
        cmocka_unit_test(who_is_interrupted_tells_the_next_one_without_a_thread),
        cmocka_unit_test(what_is_given_back_is_told_to_the_next_one_without_a_thread),
        cmocka_unit_test(a_loop_that_does_not_poll_is_passed_over),
        cmocka_unit_test(a_reservation_tells_when_it_may_be_used),
        cmocka_unit_test(the_last_reservation_can_be_given_back_and_others_are_lost),
        cmocka_unit_test(a_reservation_comes_after_those_who_wait_and_does_not_delay_them),
        cmocka_unit_test(what_is_given_back_lets_the_next_go),
        shared_test(a_name_leads_to_one_bucket),
        shared_test(a_forked_child_has_the_same_bucket_and_a_line_of_its_own),
        shared_test(a_forked_child_without_the_file_leaves_the_parents_place_alone),
        shared_test(who_is_killed_in_line_holds_nobody_up_for_long),
        shared_test(what_a_killed_process_left_in_line_goes_when_another_takes_its_seat),
        shared_test(who_is_stopped_in_line_is_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
