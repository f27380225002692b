/* <weir/watermark.h>: what it promises, one sentence a test. */
#include "support.h"

#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#include <weir/weir.h>

static weir_watermark *make(uint64_t high, uint64_t low)
{
    weir_watermark *mark;
    weir_watermark_opts opts = WEIR_WATERMARK_OPTS_INIT;
    opts.high = high;
    opts.low = low;
    must(weir_watermark_create(&mark, &opts) == WEIR_OK);
    return mark;
}

static weir_watermark_snapshot now(weir_watermark *mark)
{
    weir_watermark_snapshot now = WEIR_WATERMARK_SNAPSHOT_INIT;
    must(weir_watermark_get_snapshot(mark, &now) == WEIR_OK);
    must(now.in == now.out + now.level);
    return now;
}

/* ---- marks ---------------------------------------------------------------------------------- */

static void create_refuses_every_option_out_of_range(void **state)
{
    (void)state;
    static const uint64_t wrong[][2] = {
        {0, 0}, {4, 4}, {4, 5}, {WEIR_WATERMARK_END, 1}, {UINT64_MAX, 1}, {0, WEIR_WATERMARK_EMPTY},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        weir_watermark *mark = NULL;
        weir_watermark_opts opts = WEIR_WATERMARK_OPTS_INIT;
        opts.high = wrong[i][0];
        opts.low = wrong[i][1];
        assert_int_equal(weir_watermark_create(&mark, &opts), WEIR_EINVAL);
        assert_null(mark);
    }
    weir_watermark *mark = NULL;
    weir_watermark_opts opts = {.high = 3};
    assert_int_equal(weir_watermark_create(&mark, &opts), WEIR_EINVAL);
}

static void the_low_mark_is_half_of_the_high_one_if_nothing_is_said(void **state)
{
    (void)state;
    static const uint64_t marks[][3] = {
        {1, 0, 0}, {2, 0, 1}, {9, 0, 4}, {9, 3, 3}, {9, UINT64_MAX, 0}};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        weir_watermark *mark = make(marks[i][0], marks[i][1]);
        assert_int_equal(now(mark).high, marks[i][0]);
        assert_int_equal(now(mark).low, marks[i][2]);
        weir_watermark_destroy(mark);
    }
}

static void destroy_takes_null(void **state)
{
    (void)state;
    weir_watermark_destroy(NULL);
}

static void it_pauses_at_the_high_mark_and_goes_on_at_the_low_one(void **state)
{
    (void)state;
    weir_watermark *mark = make(100, 25);
    assert_int_equal(weir_watermark_add(mark, 99), WEIR_OK);
    assert_false(weir_watermark_is_paused(mark));
    assert_int_equal(weir_watermark_add(mark, 1), WEIR_PAUSED);
    assert_true(weir_watermark_is_paused(mark));
    assert_int_equal(weir_watermark_add(mark, 50), WEIR_PAUSED);
    assert_int_equal(weir_watermark_sub(mark, 124), WEIR_PAUSED);
    assert_int_equal(weir_watermark_level(mark), 26);
    assert_int_equal(weir_watermark_sub(mark, 1), WEIR_OK);
    assert_false(weir_watermark_is_paused(mark));
    assert_int_equal(weir_watermark_add(mark, 74), WEIR_OK);
    assert_int_equal(weir_watermark_add(mark, 1), WEIR_PAUSED);
    weir_watermark_destroy(mark);
}

static void with_a_low_mark_of_nothing_it_goes_on_when_nothing_is_left(void **state)
{
    (void)state;
    weir_watermark *mark = make(4, WEIR_WATERMARK_EMPTY);
    assert_int_equal(weir_watermark_add(mark, 4), WEIR_PAUSED);
    assert_int_equal(weir_watermark_sub(mark, 3), WEIR_PAUSED);
    assert_int_equal(weir_watermark_sub(mark, 1), WEIR_OK);
    weir_watermark_destroy(mark);
}

static void new_marks_hold_at_once(void **state)
{
    (void)state;
    weir_watermark *mark = make(100, 50);
    weir_watermark_add(mark, 60);
    assert_int_equal(weir_watermark_set(mark, 60, 20), WEIR_OK);
    assert_true(weir_watermark_is_paused(mark));
    assert_int_equal(weir_watermark_set(mark, 200, 60), WEIR_OK);
    assert_false(weir_watermark_is_paused(mark));
    assert_int_equal(weir_watermark_set(mark, 200, 0), WEIR_OK);
    assert_int_equal(now(mark).low, 100);
    assert_int_equal(now(mark).pauses, 1);
    weir_watermark_destroy(mark);
}

static void marks_out_of_range_change_nothing(void **state)
{
    (void)state;
    weir_watermark *mark = make(100, 50);
    assert_int_equal(weir_watermark_set(mark, 0, 0), WEIR_EINVAL);
    assert_int_equal(weir_watermark_set(mark, 60, 60), WEIR_EINVAL);
    assert_int_equal(weir_watermark_set(mark, WEIR_WATERMARK_END, 60), WEIR_EINVAL);
    assert_int_equal(now(mark).high, 100);
    assert_int_equal(now(mark).low, 50);
    weir_watermark_destroy(mark);
}

/* ---- counting ------------------------------------------------------------------------------- */

static void more_than_is_inside_cannot_leave(void **state)
{
    (void)state;
    weir_watermark *mark = make(100, 50);
    assert_int_equal(weir_watermark_sub(mark, 1), WEIR_EINVAL);
    weir_watermark_add(mark, 7);
    assert_int_equal(weir_watermark_sub(mark, 8), WEIR_EINVAL);
    assert_int_equal(weir_watermark_sub(mark, UINT64_MAX), WEIR_EINVAL);
    assert_int_equal(weir_watermark_level(mark), 7);
    assert_int_equal(weir_watermark_sub(mark, 7), WEIR_OK);
    weir_watermark_destroy(mark);
}

static void a_level_beyond_every_mark_is_refused(void **state)
{
    (void)state;
    weir_watermark *mark = make(100, 50);
    assert_int_equal(weir_watermark_add(mark, WEIR_WATERMARK_END), WEIR_EINVAL);
    assert_int_equal(weir_watermark_add(mark, UINT64_MAX), WEIR_EINVAL);
    assert_int_equal(weir_watermark_add(mark, WEIR_WATERMARK_END - 2), WEIR_PAUSED);
    assert_int_equal(weir_watermark_add(mark, 2), WEIR_EINVAL);
    assert_int_equal(weir_watermark_add(mark, 1), WEIR_PAUSED);
    assert_int_equal(weir_watermark_level(mark), WEIR_WATERMARK_END - 1);
    weir_watermark_destroy(mark);
}

static void a_step_of_nothing_is_fine(void **state)
{
    (void)state;
    weir_watermark *mark = make(1, 0);
    assert_int_equal(weir_watermark_add(mark, 0), WEIR_OK);
    assert_int_equal(weir_watermark_sub(mark, 0), WEIR_OK);
    weir_watermark_add(mark, 1);
    assert_int_equal(weir_watermark_add(mark, 0), WEIR_PAUSED);
    weir_watermark_destroy(mark);
}

static void a_snapshot_tells_what_happened(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    weir_watermark_add(mark, 12);
    weir_time later = weir_after(WEIR_MILLISECOND);
    soon(weir_now() >= later);
    assert_true(now(mark).is_paused);
    assert_true(now(mark).paused_ns >= (uint64_t)WEIR_MILLISECOND);
    weir_watermark_sub(mark, 9);
    weir_watermark_snapshot it = now(mark);
    assert_false(it.is_paused || it.is_closed);
    assert_int_equal(it.in, 12);
    assert_int_equal(it.out, 9);
    assert_int_equal(it.level, 3);
    assert_int_equal(it.peak, 12);
    assert_int_equal(it.pauses, 1);
    uint64_t paused_ns = it.paused_ns;
    assert_true(paused_ns >= (uint64_t)WEIR_MILLISECOND);
    assert_int_equal(now(mark).paused_ns, paused_ns);
    weir_watermark_destroy(mark);
}

static void a_snapshot_of_unknown_size_is_refused(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    weir_watermark_snapshot it = {.size = 8, .level = 77};
    assert_int_equal(weir_watermark_get_snapshot(mark, &it), WEIR_EINVAL);
    assert_int_equal(it.level, 77);
    weir_watermark_destroy(mark);
}

/* ---- waiting -------------------------------------------------------------------------------- */

typedef struct drainer {
    weir_watermark *mark;
    weir_time deadline;
    weir_interrupt_fn *hook;
    int rc;
    pthread_t thread;
} drainer;

static void *drains(void *arg)
{
    drainer *d = arg;
    weir_set_interrupt(d->hook, NULL);
    d->rc = weir_watermark_drain(d->mark, d->deadline);
    return NULL;
}

/* Returns when it waits. */
static void start(drainer *d)
{
    size_t before = now(d->mark).waiting;
    must(pthread_create(&d->thread, NULL, drains, d) == 0);
    soon(now(d->mark).waiting == before + 1);
}

static int end_of(drainer *d)
{
    pthread_join(d->thread, NULL);
    return d->rc;
}

static void drain_does_not_wait_below_the_high_mark(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    weir_watermark_add(mark, 9);
    assert_int_equal(weir_watermark_drain(mark, WEIR_POLL), WEIR_OK);
    assert_int_equal(weir_watermark_drain(mark, WEIR_FOREVER), WEIR_OK);
    weir_watermark_destroy(mark);
}

static void drain_ends_at_its_deadline(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    weir_watermark_add(mark, 10);
    assert_int_equal(weir_watermark_drain(mark, WEIR_POLL), WEIR_ETIMEDOUT);
    assert_int_equal(weir_watermark_drain(mark, WEIR_PROBE), WEIR_ETIMEDOUT);
    weir_time deadline = weir_after(3 * WEIR_MILLISECOND);
    assert_int_equal(weir_watermark_drain(mark, deadline), WEIR_ETIMEDOUT);
    assert_true(weir_now() >= deadline);
    assert_true(now(mark).blocked_ns >= 2 * (uint64_t)WEIR_MILLISECOND);
    assert_int_equal(now(mark).waiting, 0);
    weir_watermark_destroy(mark);
}

static void all_who_wait_go_on_together(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    weir_watermark_add(mark, 10);
    drainer drainers[5];
    for (int i = 0; i < 5; i++) {
        drainers[i] = (drainer){.mark = mark, .deadline = WEIR_FOREVER};
        start(&drainers[i]);
    }
    weir_watermark_sub(mark, 5);
    assert_int_equal(now(mark).waiting, 5);
    weir_watermark_sub(mark, 1);
    for (int i = 0; i < 5; i++)
        assert_int_equal(end_of(&drainers[i]), WEIR_OK);
    assert_int_equal(now(mark).waiting, 0);
    assert_true(now(mark).blocked_ns > 0);
    weir_watermark_destroy(mark);
}

static void a_higher_low_mark_releases_who_waits(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    weir_watermark_add(mark, 10);
    drainer d = {.mark = mark, .deadline = WEIR_FOREVER};
    start(&d);
    assert_int_equal(weir_watermark_set(mark, 20, 10), WEIR_OK);
    assert_int_equal(end_of(&d), WEIR_OK);
    weir_watermark_destroy(mark);
}

static void close_releases_who_waits(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    weir_watermark_add(mark, 10);
    drainer d = {.mark = mark, .deadline = WEIR_FOREVER};
    start(&d);
    weir_watermark_close(mark);
    assert_int_equal(end_of(&d), WEIR_ECLOSED);
    weir_watermark_close(mark);
    weir_watermark_destroy(mark);
}

static void after_close_nothing_comes_in_and_what_is_inside_can_leave(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    weir_watermark_add(mark, 10);
    weir_watermark_close(mark);
    assert_int_equal(weir_watermark_add(mark, 1), WEIR_ECLOSED);
    assert_int_equal(weir_watermark_drain(mark, WEIR_FOREVER), WEIR_ECLOSED);
    assert_int_equal(weir_watermark_sub(mark, 10), WEIR_OK);
    assert_int_equal(weir_watermark_drain(mark, WEIR_POLL), WEIR_ECLOSED);
    assert_int_equal(now(mark).in, 10);
    assert_true(now(mark).is_closed);
    weir_watermark_destroy(mark);
}

static int refuse(void *ctx)
{
    (void)ctx;
    return 1;
}

static void the_hook_ends_a_wait(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    weir_watermark_add(mark, 10);
    drainer d = {.mark = mark, .deadline = WEIR_FOREVER, .hook = refuse};
    must(pthread_create(&d.thread, NULL, drains, &d) == 0);
    assert_int_equal(end_of(&d), WEIR_EINTR);
    assert_int_equal(now(mark).waiting, 0);
    weir_watermark_destroy(mark);
}

/* ---- waiting without a thread --------------------------------------------------------------- */

typedef struct event {
    unsigned n;
    int result;
} event;

static void ready(weir_pending *pending, int result)
{
    event *e = pending->ctx;
    e->n++;
    e->result = result;
}

static void a_pending_drain_is_told_when_it_goes_on(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    event first = {0}, second = {0};
    weir_pending one = {.ready = ready, .ctx = &first}, two = {.ready = ready, .ctx = &second};
    assert_int_equal(weir_watermark_drain_async(mark, &one), WEIR_OK);
    weir_watermark_add(mark, 10);
    assert_int_equal(weir_watermark_drain_async(mark, &one), WEIR_WAITING);
    assert_int_equal(weir_watermark_drain_async(mark, &two), WEIR_WAITING);
    weir_watermark_sub(mark, 5);
    assert_int_equal(first.n + second.n, 0);
    weir_watermark_sub(mark, 1);
    assert_int_equal(first.n, 1);
    assert_int_equal(second.n, 1);
    assert_int_equal(second.result, WEIR_OK);
    assert_false(weir_watermark_cancel(mark, &one));
    weir_watermark_destroy(mark);
}

static void a_pending_drain_that_is_cancelled_is_told_nothing(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    weir_watermark_add(mark, 10);
    event told = {0};
    weir_pending pending = {.ready = ready, .ctx = &told};
    assert_int_equal(weir_watermark_drain_async(mark, &pending), WEIR_WAITING);
    assert_true(weir_watermark_cancel(mark, &pending));
    weir_watermark_sub(mark, 10);
    assert_int_equal(told.n, 0);
    weir_watermark_destroy(mark);
}

static void close_tells_a_pending_drain(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    weir_watermark_add(mark, 10);
    event told = {0};
    weir_pending pending = {.ready = ready, .ctx = &told};
    assert_int_equal(weir_watermark_drain_async(mark, &pending), WEIR_WAITING);
    weir_watermark_close(mark);
    assert_int_equal(told.n, 1);
    assert_int_equal(told.result, WEIR_ECLOSED);
    assert_int_equal(weir_watermark_drain_async(mark, &pending), WEIR_ECLOSED);
    weir_watermark_destroy(mark);
}

static bool polls_readable(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    return poll(&poller, 1, 0) == 1 && (poller.revents & POLLIN);
}

static void the_descriptor_is_readable_exactly_while_drain_would_not_wait(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    int fd = weir_watermark_fd(mark);
    assert_true(fd >= 0);
    assert_int_equal(weir_watermark_fd(mark), fd);
    assert_true(polls_readable(fd));
    weir_watermark_add(mark, 10);
    assert_false(polls_readable(fd));
    weir_watermark_sub(mark, 5);
    assert_false(polls_readable(fd));
    weir_watermark_sub(mark, 1);
    assert_true(polls_readable(fd));
    weir_watermark_add(mark, 10);
    weir_watermark_close(mark);
    assert_true(polls_readable(fd));
    weir_watermark_sub(mark, 14);
    assert_true(polls_readable(fd));
    weir_watermark_destroy(mark);
}

static void a_descriptor_asked_for_while_paused_is_not_readable(void **state)
{
    (void)state;
    weir_watermark *mark = make(10, 4);
    weir_watermark_add(mark, 10);
    int fd = weir_watermark_fd(mark);
    assert_false(polls_readable(fd));
    weir_watermark_destroy(mark);
}

/* ---- the callback --------------------------------------------------------------------------- */

typedef struct listener {
    weir_watermark *mark;
    char heard[16];
    size_t n;
    bool takes_all;
} listener;

static void listen(bool above, void *ctx)
{
    listener *l = ctx;
    must(l->n < sizeof l->heard - 1);
    l->heard[l->n++] = above ? '+' : '-';
    if (above && l->takes_all)
        must(weir_watermark_sub(l->mark, weir_watermark_level(l->mark)) >= 0);
}

static void listen_to(listener *l, uint64_t high, uint64_t low)
{
    weir_watermark_opts opts = WEIR_WATERMARK_OPTS_INIT;
    opts.high = high;
    opts.low = low;
    opts.on_change = listen;
    opts.change_ctx = l;
    must(weir_watermark_create(&l->mark, &opts) == WEIR_OK);
}

static void the_callback_hears_each_change_in_turn(void **state)
{
    (void)state;
    listener l = {0};
    listen_to(&l, 10, 4);
    for (int i = 0; i < 3; i++) {
        weir_watermark_add(l.mark, 8);
        weir_watermark_add(l.mark, 8);
        weir_watermark_sub(l.mark, 8);
        weir_watermark_sub(l.mark, 8);
    }
    assert_string_equal(l.heard, "+-+-+-");
    weir_watermark_set(l.mark, 2, 1);
    weir_watermark_add(l.mark, 2);
    weir_watermark_set(l.mark, 8, 2);
    assert_string_equal(l.heard, "+-+-+-+-");
    weir_watermark_destroy(l.mark);
}

static void the_callback_may_call_back(void **state)
{
    (void)state;
    listener l = {.takes_all = true};
    listen_to(&l, 10, 4);
    assert_int_equal(weir_watermark_add(l.mark, 12), WEIR_OK);
    assert_string_equal(l.heard, "+-");
    assert_int_equal(weir_watermark_level(l.mark), 0);
    weir_watermark_destroy(l.mark);
}

static void after_close_the_callback_hears_that_it_is_low_again(void **state)
{
    (void)state;
    listener l = {0};
    listen_to(&l, 10, 4);
    weir_watermark_add(l.mark, 12);
    weir_watermark_close(l.mark);
    assert_string_equal(l.heard, "+");
    weir_watermark_sub(l.mark, 12);
    assert_string_equal(l.heard, "+-");
    weir_watermark_destroy(l.mark);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_refuses_every_option_out_of_range),
        cmocka_unit_test(the_low_mark_is_half_of_the_high_one_if_nothing_is_said),
        cmocka_unit_test(destroy_takes_null),
        cmocka_unit_test(it_pauses_at_the_high_mark_and_goes_on_at_the_low_one),
        cmocka_unit_test(with_a_low_mark_of_nothing_it_goes_on_when_nothing_is_left),
        cmocka_unit_test(new_marks_hold_at_once),
        cmocka_unit_test(marks_out_of_range_change_nothing),
        cmocka_unit_test(more_than_is_inside_cannot_leave),
        cmocka_unit_test(a_level_beyond_every_mark_is_refused),
        cmocka_unit_test(a_step_of_nothing_is_fine),
        cmocka_unit_test(a_snapshot_tells_what_happened),
        cmocka_unit_test(a_snapshot_of_unknown_size_is_refused),
        cmocka_unit_test(drain_does_not_wait_below_the_high_mark),
        cmocka_unit_test(drain_ends_at_its_deadline),
        cmocka_unit_test(all_who_wait_go_on_together),
        cmocka_unit_test(a_higher_low_mark_releases_who_waits),
        cmocka_unit_test(close_releases_who_waits),
        cmocka_unit_test(after_close_nothing_comes_in_and_what_is_inside_can_leave),
        cmocka_unit_test(the_hook_ends_a_wait),
        cmocka_unit_test(a_pending_drain_is_told_when_it_goes_on),
        cmocka_unit_test(a_pending_drain_that_is_cancelled_is_told_nothing),
        cmocka_unit_test(close_tells_a_pending_drain),
        cmocka_unit_test(the_descriptor_is_readable_exactly_while_drain_would_not_wait),
        cmocka_unit_test(a_descriptor_asked_for_while_paused_is_not_readable),
        cmocka_unit_test(the_callback_hears_each_change_in_turn),
        cmocka_unit_test(the_callback_may_call_back),
        cmocka_unit_test(after_close_the_callback_hears_that_it_is_low_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
