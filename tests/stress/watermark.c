/* Watermarks under many threads: nobody waits for ever, what is told alternates and ends with the
 * truth, the bound of well-behaved adders holds, and the law at every instant.
 *
 * WEIR_STRESS_SECONDS (default 2) scales how long all cases together take. */
#include "contract/support.h"

#include <poll.h>
#include <stdatomic.h>

#include <weir/watermark.h>

#define ADDERS 4
#define STEP   3 /* the most that an adder adds before it asks */
#define MOVE   6

typedef struct load {
    weir_watermark *mark;
    uint64_t high, low;
    bool moves;                 /* the marks, by up to MOVE, meanwhile */
    _Atomic bool stop, no_more; /* adding; anything has been added */
    _Atomic uint64_t added, taken;

    /* the listener's; one call at a time */
    bool told;
    _Atomic int telling;
    uint64_t tellings;
} load;

static int64_t run_for(void)
{
    const char *asked = getenv("WEIR_STRESS_SECONDS");
    return (int64_t)((asked ? atof(asked) : 2.0) / 7 * 1e9);
}

static void told(bool above, void *ctx)
{
    load *l = ctx;
    must(atomic_fetch_add(&l->telling, 1) == 0);
    must(above != l->told);
    l->told = above;
    l->tellings++;
    atomic_fetch_sub(&l->telling, 1);
}

/* Adds, and waits while it is paused. */
static void *adds(void *arg)
{
    load *l = arg;
    for (uint32_t random = 1; !l->stop;) {
        random = random * 1664525 + 1013904223;
        uint64_t n = 1 + (random >> 16) % STEP;
        int rc = weir_watermark_add(l->mark, n);
        must(rc == WEIR_OK || rc == WEIR_PAUSED);
        l->added += n;
        rc = weir_watermark_drain(l->mark, random >> 30 ? WEIR_FOREVER : weir_after(20000));
        while (rc == WEIR_ETIMEDOUT)
            rc = weir_watermark_drain(l->mark, WEIR_FOREVER);
        must(rc == WEIR_OK);
    }
    return NULL;
}

/* Adds without a thread that waits: by the descriptor. */
static void *adds_by_poll(void *arg)
{
    load *l = arg;
    struct pollfd poller = {.fd = weir_watermark_fd(l->mark), .events = POLLIN};
    while (!l->stop) {
        must(poll(&poller, 1, (int)(PATIENCE / WEIR_MILLISECOND)) == 1);
        must(weir_watermark_add(l->mark, STEP) >= 0);
        l->added += STEP;
    }
    return NULL;
}

typedef struct awaited {
    load *load;
    _Atomic int result; /* of what was waited for; WEIR_WAITING: nothing yet */
} awaited;

static void on_ready(weir_pending *pending, int result)
{
    awaited *a = pending->ctx;
    a->result = result;
}

/* Adds as a loop does: asks to be told, and changes its mind now and then. */
static void *adds_async(void *arg)
{
    load *l = arg;
    for (unsigned round = 0; !l->stop; round++) {
        must(weir_watermark_add(l->mark, 1) >= 0);
        l->added += 1;
        awaited a = {.load = l, .result = WEIR_WAITING};
        weir_pending pending = {.ready = on_ready, .ctx = &a};
        int rc = weir_watermark_drain_async(l->mark, &pending);
        must(rc == WEIR_OK || rc == WEIR_WAITING);
        if (rc == WEIR_OK || (round % 3 == 0 && weir_watermark_cancel(l->mark, &pending)))
            continue;
        soon(a.result == WEIR_OK);
    }
    return NULL;
}

static void *takes(void *arg)
{
    load *l = arg;
    while (!l->no_more || l->taken < l->added) {
        int rc = weir_watermark_sub(l->mark, 1);
        must(rc == WEIR_OK || rc == WEIR_PAUSED || rc == WEIR_EINVAL);
        if (rc != WEIR_EINVAL)
            l->taken += 1;
    }
    return NULL;
}

static void watch(load *l)
{
    weir_time end = weir_after(run_for());
    for (unsigned round = 0; weir_now() < end; round++) {
        weir_watermark_snapshot now = WEIR_WATERMARK_SNAPSHOT_INIT;
        must(weir_watermark_get_snapshot(l->mark, &now) == WEIR_OK);
        must(now.in == now.out + now.level);
        must(now.peak < WEIR_WATERMARK_END);
        if (l->moves)
            must(weir_watermark_set(l->mark, l->high + round % (MOVE + 1), l->low + round % 5) ==
                 WEIR_OK);
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
}

static void run(load *l, void *(*const *adders)(void *), size_t n_adders)
{
    weir_watermark_opts opts = WEIR_WATERMARK_OPTS_INIT;
    opts.high = l->high;
    opts.low = l->low ? l->low : WEIR_WATERMARK_EMPTY;
    opts.on_change = told;
    opts.change_ctx = l;
    must(weir_watermark_create(&l->mark, &opts) == WEIR_OK);
    pthread_t threads[ADDERS + 2];
    for (size_t i = 0; i < n_adders; i++)
        must(pthread_create(&threads[i], NULL, adders[i], l) == 0);
    for (size_t i = n_adders; i < n_adders + 2; i++)
        must(pthread_create(&threads[i], NULL, takes, l) == 0);
    watch(l);
    l->stop = true;
    for (size_t i = 0; i < n_adders + 2; i++) {
        l->no_more = i >= n_adders; /* until then the adders may wait for the takers */
        pthread_join(threads[i], NULL);
    }

    weir_watermark_snapshot now = WEIR_WATERMARK_SNAPSHOT_INIT;
    must(weir_watermark_get_snapshot(l->mark, &now) == WEIR_OK);
    print_message("%llu added, peak %llu, %llu pauses, %llu told\n", (unsigned long long)now.in,
                  (unsigned long long)now.peak, (unsigned long long)now.pauses,
                  (unsigned long long)l->tellings);
    assert_int_equal(now.in, l->added);
    assert_int_equal(now.out, l->taken);
    assert_int_equal(now.level, 0);
    assert_int_equal(now.waiting, 0);
    assert_false(now.is_paused);
    assert_false(l->told); /* the last call told the state that holds */
    assert_true(l->tellings <= 2 * now.pauses);
    assert_true(now.pauses > 0);
    assert_true(now.peak < l->high + (l->moves ? MOVE : 0) + n_adders * STEP);
    weir_watermark_destroy(l->mark);
}

static void adders_that_wait_keep_to_the_bound(void **state)
{
    (void)state;
    load l = {.high = 16, .low = 4};
    run(&l, (void *(*const[])(void *)){adds, adds, adds, adds}, ADDERS);
}

/* Whom nobody else could help. */
static void one_who_adds_and_one_who_takes_never_miss_each_other(void **state)
{
    (void)state;
    void *(*const adders[])(void *) = {adds, adds_by_poll, adds_async};
    for (int i = 0; i < 3; i++) {
        load l = {.high = 1, .low = 0};
        run(&l, &adders[i], 1);
    }
}

static void with_the_narrowest_marks_nobody_waits_for_ever(void **state)
{
    (void)state;
    load l = {.high = 1, .low = 0};
    run(&l, (void *(*const[])(void *)){adds, adds, adds_by_poll, adds_async}, ADDERS);
}

static void threads_loops_and_descriptors_wait_together(void **state)
{
    (void)state;
    load l = {.high = 50, .low = 20};
    run(&l, (void *(*const[])(void *)){adds, adds_async, adds_by_poll, adds_async}, ADDERS);
}

static void marks_move_under_load(void **state)
{
    (void)state;
    load l = {.high = 9, .low = 3, .moves = true};
    run(&l, (void *(*const[])(void *)){adds, adds_async, adds_by_poll, adds}, ADDERS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adders_that_wait_keep_to_the_bound),
        cmocka_unit_test(one_who_adds_and_one_who_takes_never_miss_each_other),
        cmocka_unit_test(with_the_narrowest_marks_nobody_waits_for_ever),
        cmocka_unit_test(threads_loops_and_descriptors_wait_together),
        cmocka_unit_test(marks_move_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
