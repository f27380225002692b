/* Every sentence of <weir/queue.h>, seen from outside. */
#include "support.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>

/* ---- a queue, and what it dropped ----------------------------------------------------------- */

#define DROPPED_MAX 5000

static struct {
    size_t n;
    uintptr_t items[DROPPED_MAX];
    weir_drop_reason reasons[DROPPED_MAX];
} dropped;

static void note_drop(void *item, weir_drop_reason reason, void *ctx)
{
    (void)ctx;
    must(dropped.n < DROPPED_MAX);
    dropped.items[dropped.n] = (uintptr_t)item;
    dropped.reasons[dropped.n++] = reason;
}

static weir_queue_opts options(size_t capacity)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = capacity;
    opts.on_drop = note_drop;
    return opts;
}

static weir_queue *make(weir_queue_opts opts)
{
    weir_queue *queue = NULL;
    dropped.n = 0;
    assert_int_equal(weir_queue_create(&queue, &opts), WEIR_OK);
    return queue;
}

static weir_queue *plain(size_t capacity)
{
    return make(options(capacity));
}

static weir_queue *with_policy(size_t capacity, weir_overflow overflow)
{
    weir_queue_opts opts = options(capacity);
    opts.overflow = overflow;
    return make(opts);
}

static int put(weir_queue *queue, uintptr_t n)
{
    return weir_queue_put(queue, number(n), 0, WEIR_POLL);
}

static int put_cost(weir_queue *queue, uintptr_t n, uint64_t cost)
{
    return weir_queue_put(queue, number(n), cost, WEIR_POLL);
}

/* The item, or an error. */
static intptr_t get(weir_queue *queue)
{
    void *item = NULL;
    int rc = weir_queue_get(queue, &item, WEIR_POLL);
    return rc < 0 ? rc : (intptr_t)item;
}

static void fill(weir_queue *queue, uintptr_t from, uintptr_t to)
{
    for (uintptr_t n = from; n <= to; n++)
        assert_int_equal(put(queue, n), WEIR_KEPT);
}

static void expect(weir_queue *queue, uintptr_t from, uintptr_t to)
{
    for (uintptr_t n = from; n <= to; n++)
        assert_int_equal(get(queue), n);
}

static void assert_dropped(uintptr_t from, uintptr_t to, weir_drop_reason reason)
{
    assert_int_equal(dropped.n, to - from + 1);
    for (size_t i = 0; i < dropped.n; i++) {
        assert_int_equal(dropped.items[i], from + i);
        assert_int_equal(dropped.reasons[i], reason);
    }
}

static void end(weir_queue *queue)
{
    weir_queue_snapshot now = snapshot_of(queue);
    assert_true(obeys_the_law(&now));
    weir_queue_destroy(queue);
}

/* ---- options -------------------------------------------------------------------------------- */

static void assert_refused(weir_queue_opts opts)
{
    weir_queue *queue = (weir_queue *)&opts;
    assert_int_equal(weir_queue_create(&queue, &opts), WEIR_EINVAL);
    assert_ptr_equal(queue, &opts); /* outputs change only on success */
}

static void ignore_watermark(bool above, void *ctx)
{
    (void)above, (void)ctx;
}

static void create_refuses_every_option_out_of_range(void **state)
{
    (void)state;
    weir_queue_opts opts = options(10);
#define REFUSES(change)                                                                            \
    opts = options(10);                                                                            \
    change;                                                                                        \
    assert_refused(opts)
    REFUSES(opts.size = 0);
    REFUSES(opts.size--);
    REFUSES(opts.size++);
    REFUSES(opts.capacity = 0);
    REFUSES(opts.on_drop = NULL);
    REFUSES(opts.max_age_ns = -1);
    REFUSES(opts.overflow = (weir_overflow)-1);
    REFUSES(opts.overflow = (weir_overflow)(WEIR_OVERFLOW_SAMPLE + 1));
    REFUSES(opts.overflow = WEIR_OVERFLOW_SAMPLE; opts.sample_keep_one_of = 1);
    REFUSES(opts.high_items = 10);
    REFUSES(opts.low_items = 3);
    REFUSES(opts.high_items = 3; opts.low_items = 3);
    REFUSES(opts.max_cost = 100; opts.high_cost = 100);
    REFUSES(opts.max_cost = 100; opts.low_cost = 50);
    REFUSES(opts.max_cost = 100; opts.high_cost = 50; opts.low_cost = 50);
    REFUSES(opts.capacity = WEIR_UNBOUNDED; opts.on_watermark = ignore_watermark);
    REFUSES(opts.capacity = WEIR_UNBOUNDED; opts.overflow = WEIR_OVERFLOW_SAMPLE);
#undef REFUSES
}

static void create_takes_the_smallest_and_the_largest_bounds(void **state)
{
    (void)state;
    weir_queue_opts opts = options(1);
    opts.max_cost = 1;
    opts.max_age_ns = 1;
    opts.on_watermark = ignore_watermark;
    weir_queue_destroy(make(opts));

    opts = options(WEIR_UNBOUNDED);
    opts.max_cost = UINT64_MAX;
    opts.max_age_ns = INT64_MAX;
    weir_queue *queue = make(opts);
    fill(queue, 1, 10000);
    assert_int_equal(weir_queue_depth(queue), 10000);
    expect(queue, 1, 10000);
    end(queue);
}

static void destroy_takes_null(void **state)
{
    (void)state;
    weir_queue_destroy(NULL);
}

static void destroy_drops_what_is_inside_as_discarded(void **state)
{
    (void)state;
    weir_queue *queue = plain(200);
    fill(queue, 1, 200);
    weir_queue_destroy(queue);
    assert_dropped(1, 200, WEIR_DROP_DISCARDED);
}

/* ---- one put, one get ----------------------------------------------------------------------- */

static void items_leave_in_the_order_they_were_accepted(void **state)
{
    (void)state;
    weir_queue *queue = plain(WEIR_UNBOUNDED);
    uintptr_t in = 0, out = 0;
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 7 * (round % 13) + 1; i++)
            assert_int_equal(put(queue, ++in), WEIR_KEPT);
        for (int i = 0; i < 5 * (round % 17) && out < in; i++)
            assert_int_equal(get(queue), ++out);
    }
    expect(queue, out + 1, in);
    assert_int_equal(get(queue), WEIR_EEMPTY);
    end(queue);
}

static void null_is_an_item_like_any_other(void **state)
{
    (void)state;
    weir_queue *queue = plain(1);
    void *item = queue;
    assert_int_equal(weir_queue_put(queue, NULL, 0, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_queue_get(queue, &item, WEIR_POLL), WEIR_OK);
    assert_null(item);
    end(queue);
}

static void get_cost_tells_the_cost_of_the_item(void **state)
{
    (void)state;
    weir_queue *queue = plain(2);
    void *item;
    uint64_t cost = 0;
    put_cost(queue, 1, UINT64_MAX / 2);
    put_cost(queue, 2, 7);
    assert_int_equal(weir_queue_get_cost(queue, &item, &cost, WEIR_POLL), WEIR_OK);
    assert_true(cost == UINT64_MAX / 2);
    assert_int_equal(weir_queue_get_cost(queue, &item, NULL, WEIR_POLL), WEIR_OK);
    end(queue);
}

static void an_empty_queue_leaves_the_output_untouched(void **state)
{
    (void)state;
    weir_queue *queue = plain(1);
    void *item = queue;
    uint64_t cost = 42;
    assert_int_equal(weir_queue_get_cost(queue, &item, &cost, WEIR_POLL), WEIR_EEMPTY);
    assert_int_equal(weir_queue_get_cost(queue, &item, &cost, weir_after(1000)), WEIR_ETIMEDOUT);
    assert_int_equal(weir_queue_get_cost(queue, &item, &cost, 1), WEIR_ETIMEDOUT);
    assert_int_equal(weir_queue_get_cost(queue, &item, &cost, -1), WEIR_EEMPTY);
    weir_queue_close(queue);
    assert_int_equal(weir_queue_get_cost(queue, &item, &cost, WEIR_FOREVER), WEIR_ECLOSED);
    assert_ptr_equal(item, queue);
    assert_int_equal(cost, 42);
    end(queue);
}

static void a_full_queue_refuses_a_poll_and_times_out_a_deadline(void **state)
{
    (void)state;
    weir_queue *queue = plain(3);
    fill(queue, 1, 3);
    assert_int_equal(put(queue, 4), WEIR_EFULL);
    assert_int_equal(weir_queue_put(queue, number(4), 0, WEIR_PROBE), WEIR_EFULL); /* not counted */
    assert_int_equal(weir_queue_put(queue, number(4), 0, 1), WEIR_ETIMEDOUT);
    weir_time before = weir_now();
    assert_int_equal(weir_queue_put(queue, number(4), 0, before + WEIR_MILLISECOND),
                     WEIR_ETIMEDOUT);
    assert_true(weir_now() >= before + WEIR_MILLISECOND);
    weir_queue_snapshot now = snapshot_of(queue);
    assert_int_equal(now.refused, 3);
    assert_true(now.put_blocked_ns >= WEIR_MILLISECOND);
    assert_int_equal(now.putters_waiting, 0);
    expect(queue, 1, 3);
    end(queue);
}

static void both_bounds_hold_exactly_and_at_once(void **state)
{
    (void)state;
    weir_queue_opts opts = options(3);
    opts.max_cost = 100;
    weir_queue *queue = make(opts);
    assert_int_equal(put_cost(queue, 1, 60), WEIR_KEPT);
    assert_int_equal(put_cost(queue, 2, 41), WEIR_EFULL);
    assert_int_equal(put_cost(queue, 2, 40), WEIR_KEPT);
    assert_int_equal(put_cost(queue, 3, 1), WEIR_EFULL);
    assert_int_equal(put_cost(queue, 3, 0), WEIR_KEPT);
    assert_int_equal(put_cost(queue, 4, 0), WEIR_EFULL);
    weir_queue_snapshot now = snapshot_of(queue);
    assert_int_equal(now.depth, 3);
    assert_int_equal(now.cost, 100);
    assert_int_equal(now.peak_depth, 3);
    expect(queue, 1, 3);
    end(queue);
}

static void a_sum_of_costs_cannot_wrap_round(void **state)
{
    (void)state;
    weir_queue *queue = plain(10);
    assert_int_equal(put_cost(queue, 1, UINT64_MAX), WEIR_KEPT);
    assert_int_equal(put_cost(queue, 2, 1), WEIR_EFULL);
    assert_int_equal(put_cost(queue, 2, 0), WEIR_KEPT);
    expect(queue, 1, 2);
    end(queue);
}

/* ---- closing -------------------------------------------------------------------------------- */

static void put_on_a_closed_queue_leaves_the_item_with_the_caller(void **state)
{
    (void)state;
    weir_queue *queue = plain(2);
    weir_queue_close(queue);
    weir_queue_close(queue);
    assert_int_equal(put(queue, 1), WEIR_ECLOSED);
    assert_int_equal(weir_queue_put(queue, number(1), 0, WEIR_FOREVER), WEIR_ECLOSED);
    assert_true(snapshot_of(queue).closed);
    assert_int_equal(snapshot_of(queue).refused, 0);
    end(queue);
    assert_int_equal(dropped.n, 0);
}

static void getters_empty_a_closed_queue_and_then_see_closed(void **state)
{
    (void)state;
    weir_queue *queue = plain(2);
    fill(queue, 1, 2);
    weir_queue_close(queue);
    expect(queue, 1, 2);
    assert_int_equal(get(queue), WEIR_ECLOSED);
    end(queue);
}

static void close_releases_everybody_who_waits(void **state)
{
    (void)state;
    weir_queue *full = plain(1), *empty = plain(1);
    fill(full, 1, 1);
    other putters[3], getters[3];
    for (int i = 0; i < 3; i++) {
        putters[i] = (other){.queue = full, .item = number(9), .deadline = WEIR_FOREVER};
        getters[i] = (other){.queue = empty, .item = number(9), .deadline = WEIR_FOREVER};
        start_waiting_put(&putters[i]);
        start_waiting_get(&getters[i]);
    }
    weir_queue_close(full);
    weir_queue_close(empty);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(finish(&putters[i]), WEIR_ECLOSED);
        assert_int_equal(finish(&getters[i]), WEIR_ECLOSED);
        assert_ptr_equal(getters[i].item, number(9));
    }
    expect(full, 1, 1);
    assert_int_equal(get(full), WEIR_ECLOSED);
    end(full);
    end(empty);
    assert_int_equal(dropped.n, 0);
}

/* ---- waiting in line ------------------------------------------------------------------------ */

static void waiting_putters_are_served_in_the_order_they_came(void **state)
{
    (void)state;
    weir_queue *queue = plain(1);
    other putters[8];
    fill(queue, 1, 1);
    for (uintptr_t i = 0; i < 8; i++) {
        putters[i] = (other){.queue = queue, .item = number(i + 2), .deadline = WEIR_FOREVER};
        start_waiting_put(&putters[i]);
    }
    expect(queue, 1, 9);
    for (int i = 0; i < 8; i++)
        assert_int_equal(finish(&putters[i]), WEIR_KEPT);
    assert_true(snapshot_of(queue).put_blocked_ns > 0);
    end(queue);
}

static void waiting_getters_are_served_in_the_order_they_came(void **state)
{
    (void)state;
    weir_queue *queue = plain(1);
    other getters[8];
    for (int i = 0; i < 8; i++) {
        getters[i] = (other){.queue = queue, .deadline = WEIR_FOREVER};
        start_waiting_get(&getters[i]);
    }
    for (uintptr_t i = 0; i < 8; i++)
        assert_int_equal(put_cost(queue, i + 1, i),
                         WEIR_KEPT); /* never full: each is handed over */
    for (uintptr_t i = 0; i < 8; i++) {
        assert_int_equal(finish(&getters[i]), WEIR_OK);
        assert_ptr_equal(getters[i].item, number(i + 1));
        assert_int_equal(getters[i].cost, i);
    }
    assert_true(snapshot_of(queue).get_blocked_ns > 0);
    end(queue);
}

static void a_later_try_never_overtakes_a_waiting_putter(void **state)
{
    (void)state;
    weir_queue_opts opts = options(10);
    opts.max_cost = 100;
    weir_queue *queue = make(opts);
    put_cost(queue, 1, 60);
    other big = {.queue = queue, .item = number(2), .cost = 50, .deadline = WEIR_FOREVER};
    start_waiting_put(&big);
    assert_int_equal(put_cost(queue, 3, 1), WEIR_EFULL); /* it would fit */
    other small = {.queue = queue, .item = number(4), .cost = 1, .deadline = WEIR_FOREVER};
    start_waiting_put(&small);
    assert_int_equal(get(queue), 1);
    assert_int_equal(finish(&big), WEIR_KEPT);
    assert_int_equal(finish(&small), WEIR_KEPT);
    assert_int_equal(get(queue), 2);
    assert_int_equal(get(queue), 4);
    end(queue);
}

/* ---- served, although the other side stops calling ------------------------------------------- */

static void waiting_putters_are_let_in_although_nobody_calls_any_more(void **state)
{
    (void)state;
    weir_queue *queue = plain(4);
    other putters[6];
    fill(queue, 1, 4);
    for (uintptr_t i = 0; i < 6; i++) {
        putters[i] = (other){.queue = queue, .item = number(i + 5), .deadline = WEIR_FOREVER};
        start_waiting_put(&putters[i]);
    }
    expect(queue, 1, 4);
    for (int i = 0; i < 4; i++) /* not one call on the queue until these have returned */
        assert_int_equal(finish(&putters[i]), WEIR_KEPT);
    assert_int_equal(snapshot_of(queue).putters_waiting, 2);
    expect(queue, 5, 10);
    for (int i = 4; i < 6; i++)
        assert_int_equal(finish(&putters[i]), WEIR_KEPT);
    end(queue);
}

static void waiting_getters_get_their_items_although_nobody_calls_any_more(void **state)
{
    (void)state;
    weir_queue *queue = plain(4);
    other getters[6];
    for (int i = 0; i < 6; i++) {
        getters[i] = (other){.queue = queue, .deadline = WEIR_FOREVER};
        start_waiting_get(&getters[i]);
    }
    fill(queue, 1, 4);
    for (uintptr_t i = 0; i < 4; i++) {
        assert_int_equal(finish(&getters[i]), WEIR_OK);
        assert_ptr_equal(getters[i].item, number(i + 1));
    }
    weir_queue_close(queue);
    for (int i = 4; i < 6; i++)
        assert_int_equal(finish(&getters[i]), WEIR_ECLOSED);
    end(queue);
}

static void what_belongs_to_a_waiter_is_not_to_be_seen_or_taken_before(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) { /* whether it has woken up or not */
        weir_queue *queue = plain(1);
        other putter = {.queue = queue, .item = number(2), .deadline = WEIR_FOREVER};
        fill(queue, 1, 1);
        start_waiting_put(&putter);
        expect(queue, 1, 1);
        if (round % 3 == 0) {
            assert_int_equal(put(queue, 3), WEIR_EFULL);
        } else if (round % 3 == 1) {
            assert_int_equal(weir_queue_depth(queue), 1);
        } else {
            weir_queue_snapshot now = snapshot_of(queue);
            assert_int_equal(now.depth + now.putters_waiting, 1);
            assert_int_equal(now.accepted, 2);
        }
        expect(queue, 2, 2); /* at once */
        assert_int_equal(finish(&putter), WEIR_KEPT);

        other getter = {.queue = queue, .deadline = WEIR_FOREVER};
        start_waiting_get(&getter);
        fill(queue, 3, 3);
        if (round % 3 == 0) {
            assert_int_equal(get(queue), WEIR_EEMPTY);
        } else if (round % 3 == 1) {
            assert_int_equal(weir_queue_depth(queue), 0);
        } else {
            weir_queue_snapshot now = snapshot_of(queue);
            assert_int_equal(now.depth + now.getters_waiting, 0);
            assert_int_equal(now.delivered, 3);
        }
        assert_int_equal(finish(&getter), WEIR_OK);
        assert_ptr_equal(getter.item, number(3));
        end(queue);
    }
}

/* As a signal handler that takes its time, or waits for something itself. */
typedef struct long_hook {
    _Atomic bool inside, leave;
} long_hook;

static int stays_away(void *ctx)
{
    long_hook *h = ctx;
    h->inside = true;
    soon(h->leave);
    return 0;
}

static void a_waiter_in_its_hook_holds_nobody_up(void **state)
{
    (void)state;
    weir_queue *queue = plain(1);
    long_hook h = {0};
    fill(queue, 1, 1);
    other away = {.queue = queue, .item = number(2), .deadline = WEIR_FOREVER};
    away.hook = stays_away;
    away.hook_ctx = &h;
    start_waiting_put(&away);
    other behind = {.queue = queue, .item = number(3), .deadline = WEIR_FOREVER};
    start_waiting_put(&behind);
    soon(h.inside);
    expect(queue, 1, 3);
    assert_int_equal(finish(&behind), WEIR_KEPT);
    h.leave = true;
    assert_int_equal(finish(&away), WEIR_KEPT);

    h.inside = h.leave = false;
    start_waiting_get(&away);
    start_waiting_get(&behind);
    soon(h.inside);
    fill(queue, 4, 4);
    fill(queue, 5, 5);
    assert_int_equal(finish(&behind), WEIR_OK);
    assert_ptr_equal(behind.item, number(5));
    h.leave = true;
    assert_int_equal(finish(&away), WEIR_OK);
    assert_ptr_equal(away.item, number(4));
    end(queue);
}

/* The deadline of a waiter that could be served comes too late. */
static void a_deadline_that_passes_while_the_waiter_is_served_changes_nothing(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        weir_queue *queue = plain(1);
        fill(queue, 1, 1);
        other putter = {.queue = queue, .item = number(2)};
        putter.deadline = weir_after(WEIR_MILLISECOND);
        must(pthread_create(&putter.thread, NULL, other_puts, &putter) == 0);
        while (weir_now() < putter.deadline - 20000 + round * 100)
            ;
        expect(queue, 1, 1);
        int rc = finish(&putter);
        assert_int_equal(get(queue), rc == WEIR_KEPT ? 2 : WEIR_EEMPTY);
        assert_true(rc == WEIR_KEPT || rc == WEIR_ETIMEDOUT);
        weir_queue_snapshot now = snapshot_of(queue);
        assert_int_equal(now.accepted, 1 + (rc == WEIR_KEPT));
        assert_int_equal(now.refused, rc != WEIR_KEPT);
        end(queue);
    }
}

/* Asked by a waiting thread: looks at the queue (so no lock is held, and its place in line is kept),
 * and ends the wait when told to. */
typedef struct hook {
    weir_queue *queue;
    _Atomic int asked;
    _Atomic bool give_up;
} hook;

static int ask(void *ctx)
{
    hook *h = ctx;
    weir_queue_snapshot now = snapshot_of(h->queue);
    must(now.putters_waiting + now.getters_waiting > 0);
    h->asked++;
    return h->give_up;
}

static void a_putter_that_gives_up_lets_in_whom_it_held_back(void **state)
{
    (void)state;
    weir_queue_opts opts = options(10);
    opts.max_cost = 100;
    weir_queue *queue = make(opts);
    put_cost(queue, 1, 60);
    hook h = {.queue = queue};
    other big = {.queue = queue, .item = number(2), .cost = 50, .deadline = WEIR_FOREVER};
    big.hook = ask;
    big.hook_ctx = &h;
    start_waiting_put(&big);
    other small = {.queue = queue, .item = number(3), .cost = 40, .deadline = WEIR_FOREVER};
    start_waiting_put(&small);
    h.give_up = true;
    assert_int_equal(finish(&big), WEIR_EINTR);
    assert_int_equal(finish(&small), WEIR_KEPT);
    assert_int_equal(get(queue), 1);
    assert_int_equal(get(queue), 3);
    end(queue);
}

static void an_interruption_ends_the_wait_and_nothing_happened(void **state)
{
    (void)state;
    weir_queue *queue = plain(1);
    hook h = {.queue = queue};
    other getter = {.queue = queue, .deadline = WEIR_FOREVER, .hook = ask, .hook_ctx = &h};
    start_waiting_get(&getter);
    soon(h.asked >= 2);
    h.give_up = true;
    assert_int_equal(finish(&getter), WEIR_EINTR);

    fill(queue, 1, 1);
    h.give_up = false;
    other putter = {.queue = queue, .item = number(2), .deadline = WEIR_FOREVER};
    putter.hook = ask;
    putter.hook_ctx = &h;
    start_waiting_put(&putter);
    h.give_up = true;
    assert_int_equal(finish(&putter), WEIR_EINTR);
    assert_int_equal(snapshot_of(queue).refused, 0);
    expect(queue, 1, 1);
    assert_int_equal(get(queue), WEIR_EEMPTY);
    end(queue);
}

static void on_signal(int number_)
{
    (void)number_;
}

static void a_signal_without_a_hook_does_not_end_a_wait(void **state)
{
    (void)state;
    struct sigaction action = {.sa_handler = on_signal}, before;
    sigaction(SIGUSR1, &action, &before);
    weir_queue *queue = plain(1);
    other getter = {.queue = queue, .deadline = WEIR_FOREVER};
    start_waiting_get(&getter);
    for (int i = 0; i < 10; i++)
        pthread_kill(getter.thread, SIGUSR1);
    assert_int_equal(snapshot_of(queue).getters_waiting, 1);
    fill(queue, 1, 1);
    assert_int_equal(finish(&getter), WEIR_OK);
    sigaction(SIGUSR1, &before, NULL);
    end(queue);
}

/* ---- many at once --------------------------------------------------------------------------- */

static void *many_items[1000];

static void make_items(void)
{
    for (uintptr_t i = 0; i < 1000; i++)
        many_items[i] = number(i + 1);
}

static void put_many_takes_from_the_front_what_fits(void **state)
{
    (void)state;
    make_items();
    weir_queue *queue = plain(100);
    assert_int_equal(weir_queue_put_many(queue, many_items, NULL, 0, WEIR_POLL), 0);
    assert_int_equal(weir_queue_put_many(queue, many_items, NULL, 1000, WEIR_POLL), 100);
    assert_int_equal(weir_queue_put_many(queue, many_items, NULL, 1000, WEIR_POLL), WEIR_EFULL);
    assert_int_equal(weir_queue_put_many(queue, many_items, NULL, 2, weir_after(1000)),
                     WEIR_ETIMEDOUT);
    expect(queue, 1, 1);
    assert_int_equal(weir_queue_put_many(queue, many_items, NULL, 1000, weir_after(1000)), 1);
    weir_queue_close(queue);
    assert_int_equal(weir_queue_put_many(queue, many_items, NULL, 1, WEIR_POLL), WEIR_ECLOSED);
    assert_int_equal(snapshot_of(queue).refused, 4);
    end(queue);
}

static void put_many_stops_at_an_item_that_can_never_fit(void **state)
{
    (void)state;
    make_items();
    weir_queue_opts opts = options(10);
    opts.max_cost = 10;
    weir_queue *queue = make(opts);
    uint64_t costs[] = {1, 2, 11, 1};
    assert_int_equal(weir_queue_put_many(queue, many_items, costs, 4, WEIR_FOREVER), 2);
    assert_int_equal(weir_queue_put_many(queue, many_items + 2, costs + 2, 2, WEIR_FOREVER),
                     WEIR_ETOOBIG);
    assert_int_equal(snapshot_of(queue).cost, 3);
    expect(queue, 1, 2);
    end(queue);
}

typedef struct batch {
    weir_queue *queue;
    const uint64_t *costs;
    size_t n;
    weir_time deadline;
    int64_t linger_ns;
    weir_interrupt_fn *hook;
    void *hook_ctx;
    void *got[1000];
    uint64_t got_costs[1000];
    int64_t rc;
    pthread_t thread;
} batch;

static void *puts_many(void *arg)
{
    batch *b = arg;
    b->rc = weir_queue_put_many(b->queue, many_items, b->costs, b->n, b->deadline);
    return NULL;
}

static void *gets_many(void *arg)
{
    batch *b = arg;
    weir_set_interrupt(b->hook, b->hook_ctx);
    b->rc = weir_queue_get_many(b->queue, b->got, b->got_costs, b->n, b->deadline, b->linger_ns);
    return NULL;
}

static void start(batch *b, void *(*what)(void *))
{
    assert_int_equal(pthread_create(&b->thread, NULL, what, b), 0);
}

static int64_t finish_batch(batch *b)
{
    pthread_join(b->thread, NULL);
    return b->rc;
}

static void put_many_goes_in_as_room_is_made(void **state)
{
    (void)state;
    make_items();
    weir_queue *queue = plain(3);
    batch b = {.queue = queue, .n = 1000, .deadline = WEIR_FOREVER};
    start(&b, puts_many);
    soon(snapshot_of(queue).putters_waiting == 1);
    assert_int_equal(put(queue, 1), WEIR_EFULL);
    expect(queue, 1, 1000);
    assert_int_equal(finish_batch(&b), 1000);
    assert_int_equal(get(queue), WEIR_EEMPTY);
    end(queue);
}

static void put_many_says_how_many_went_in_before_the_close(void **state)
{
    (void)state;
    make_items();
    weir_queue *queue = plain(3);
    batch b = {.queue = queue, .n = 10, .deadline = WEIR_FOREVER};
    start(&b, puts_many);
    soon(snapshot_of(queue).putters_waiting == 1);
    expect(queue, 1, 2);
    weir_queue_close(queue);
    assert_int_equal(finish_batch(&b), 5);
    expect(queue, 3, 5);
    end(queue);
}

static void put_many_stops_waiting_at_an_item_that_can_never_fit(void **state)
{
    (void)state;
    make_items();
    weir_queue_opts opts = options(10);
    opts.max_cost = 10;
    weir_queue *queue = make(opts);
    static const uint64_t costs[] = {6, 6, 11, 1};
    batch b = {.queue = queue, .costs = costs, .n = 4, .deadline = WEIR_FOREVER};
    start(&b, puts_many);
    soon(snapshot_of(queue).putters_waiting == 1);
    expect(queue, 1, 1);
    assert_int_equal(finish_batch(&b), 2);
    assert_int_equal(snapshot_of(queue).refused, 1);
    expect(queue, 2, 2);
    end(queue);
}

static void get_many_takes_what_is_there(void **state)
{
    (void)state;
    weir_queue *queue = plain(100);
    void *got[10] = {0};
    uint64_t costs[10];
    assert_int_equal(weir_queue_get_many(queue, got, NULL, 0, WEIR_POLL, 0), WEIR_EINVAL);
    assert_int_equal(weir_queue_get_many(queue, got, NULL, 10, WEIR_POLL, 0), WEIR_EEMPTY);
    assert_int_equal(weir_queue_get_many(queue, got, NULL, 10, weir_after(1000), 0),
                     WEIR_ETIMEDOUT);
    for (uintptr_t i = 1; i <= 13; i++)
        put_cost(queue, i, i * i);
    assert_int_equal(weir_queue_get_many(queue, got, costs, 10, WEIR_POLL, 0), 10);
    for (uintptr_t i = 0; i < 10; i++) {
        assert_ptr_equal(got[i], number(i + 1));
        assert_int_equal(costs[i], (i + 1) * (i + 1));
    }
    assert_int_equal(weir_queue_get_many(queue, got, NULL, 10, WEIR_POLL, 0), 3);
    assert_ptr_equal(got[2], number(13));
    weir_queue_close(queue);
    assert_int_equal(weir_queue_get_many(queue, got, NULL, 10, WEIR_FOREVER, 0), WEIR_ECLOSED);
    end(queue);
}

static void get_many_waits_for_the_first(void **state)
{
    (void)state;
    weir_queue *queue = plain(100);
    batch b = {.queue = queue, .n = 10, .deadline = WEIR_FOREVER};
    start(&b, gets_many);
    soon(snapshot_of(queue).getters_waiting == 1);
    fill(queue, 1, 1);
    assert_int_equal(finish_batch(&b), 1);
    assert_ptr_equal(b.got[0], number(1));
    end(queue);
}

static void *puts_one_later(void *queue)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    must(weir_queue_put(queue, number(2), 0, WEIR_FOREVER) == WEIR_KEPT);
    return NULL;
}

static void each_wait_of_a_batch_is_counted_once(void **state)
{
    (void)state;
    weir_queue *queue = plain(10);
    other getter = {.queue = queue, .deadline = WEIR_FOREVER};
    void *items[5];
    start_waiting_get(&getter);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    fill(queue, 1, 1);
    finish(&getter);
    uint64_t before = snapshot_of(queue).get_blocked_ns;
    assert_true(before >= 20000000);
    weir_time start = weir_now();
    pthread_t late;
    assert_int_equal(pthread_create(&late, NULL, puts_one_later, queue), 0);
    assert_int_equal(weir_queue_get_many(queue, items, NULL, 5, WEIR_FOREVER, 20000000), 1);
    assert_true(snapshot_of(queue).get_blocked_ns - before <= (uint64_t)(weir_now() - start));
    pthread_join(late, NULL);
    end(queue);
}

static void get_many_takes_all_that_came_with_the_first(void **state)
{
    (void)state;
    make_items();
    weir_queue *queue = plain(100);
    batch b = {.queue = queue, .n = 10, .deadline = WEIR_FOREVER};
    start(&b, gets_many);
    soon(snapshot_of(queue).getters_waiting == 1);
    assert_int_equal(weir_queue_put_many(queue, many_items, NULL, 13, WEIR_POLL), 13);
    assert_int_equal(finish_batch(&b), 10);
    expect(queue, 11, 13);
    end(queue);
}

static void get_many_lingers_until_the_batch_is_full(void **state)
{
    (void)state;
    weir_queue *queue = plain(1);
    batch b = {.queue = queue, .n = 5, .deadline = WEIR_FOREVER, .linger_ns = INT64_MAX};
    start(&b, gets_many);
    for (uintptr_t i = 1; i <= 5; i++)
        assert_int_equal(weir_queue_put(queue, number(i), i, WEIR_FOREVER), WEIR_KEPT);
    assert_int_equal(finish_batch(&b), 5);
    for (uintptr_t i = 0; i < 5; i++) {
        assert_ptr_equal(b.got[i], number(i + 1));
        assert_int_equal(b.got_costs[i], i + 1);
    }
    end(queue);
}

static void get_many_returns_what_it_has_when_the_linger_ends(void **state)
{
    (void)state;
    weir_queue *queue = plain(10);
    void *got[10];
    fill(queue, 1, 3);
    weir_time before = weir_now();
    assert_int_equal(weir_queue_get_many(queue, got, NULL, 10, WEIR_POLL, 2 * WEIR_MILLISECOND), 3);
    assert_true(weir_now() >= before + 2 * WEIR_MILLISECOND);
    end(queue);
}

static void get_many_keeps_its_batch_when_the_queue_closes(void **state)
{
    (void)state;
    weir_queue *queue = plain(10);
    batch b = {.queue = queue, .n = 5, .deadline = WEIR_FOREVER, .linger_ns = INT64_MAX};
    start(&b, gets_many);
    fill(queue, 1, 2);
    soon(snapshot_of(queue).delivered == 2 && snapshot_of(queue).getters_waiting == 1);
    weir_queue_close(queue);
    assert_int_equal(finish_batch(&b), 2);
    end(queue);
}

static int always(void *ctx)
{
    (void)ctx;
    return 1;
}

static void get_many_keeps_its_batch_when_the_linger_is_interrupted(void **state)
{
    (void)state;
    weir_queue *queue = plain(10);
    fill(queue, 1, 2);
    batch b = {.queue = queue, .n = 5, .linger_ns = INT64_MAX, .hook = always};
    start(&b, gets_many);
    assert_int_equal(finish_batch(&b), 2);
    end(queue);
}

/* ---- in flight ------------------------------------------------------------------------------ */

static weir_queue *bounding_in_flight(size_t capacity, uint64_t max_cost, weir_overflow overflow)
{
    weir_queue_opts opts = options(capacity);
    opts.max_cost = max_cost;
    opts.overflow = overflow;
    opts.bound_in_flight = true;
    return make(opts);
}

static void what_was_taken_counts_until_it_is_done(void **state)
{
    (void)state;
    weir_queue *queue = bounding_in_flight(2, 100, WEIR_OVERFLOW_BLOCK);
    put_cost(queue, 1, 50);
    put_cost(queue, 2, 20);
    expect(queue, 1, 2);
    weir_queue_snapshot now = snapshot_of(queue);
    assert_int_equal(now.depth, 0);
    assert_int_equal(now.in_flight, 2);
    assert_int_equal(now.in_flight_cost, 70);
    assert_int_equal(put_cost(queue, 3, 0), WEIR_EFULL);
    assert_int_equal(weir_queue_done(queue, 1, 20), WEIR_OK);
    assert_int_equal(put_cost(queue, 3, 51), WEIR_EFULL);
    assert_int_equal(put_cost(queue, 3, 50), WEIR_KEPT);
    end(queue);
}

static void done_lets_in_a_putter_and_on_to_a_getter(void **state)
{
    (void)state;
    weir_queue *queue = bounding_in_flight(1, 0, WEIR_OVERFLOW_BLOCK);
    fill(queue, 1, 1);
    expect(queue, 1, 1);
    other putter = {.queue = queue, .item = number(2), .deadline = WEIR_FOREVER};
    other getter = {.queue = queue, .deadline = WEIR_FOREVER};
    start_waiting_put(&putter);
    start_waiting_get(&getter);
    assert_int_equal(weir_queue_done(queue, 1, 0), WEIR_OK);
    assert_int_equal(finish(&putter), WEIR_KEPT);
    assert_int_equal(finish(&getter), WEIR_OK);
    assert_ptr_equal(getter.item, number(2));
    end(queue);
}

static void done_refuses_more_than_is_in_flight(void **state)
{
    (void)state;
    weir_queue *queue = bounding_in_flight(4, 100, WEIR_OVERFLOW_BLOCK);
    put_cost(queue, 1, 10);
    put_cost(queue, 2, 10);
    assert_int_equal(weir_queue_done(queue, 1, 10), WEIR_EINVAL);
    expect(queue, 1, 2);
    assert_int_equal(weir_queue_done(queue, 3, 20), WEIR_EINVAL);
    assert_int_equal(weir_queue_done(queue, 2, 21), WEIR_EINVAL);
    assert_int_equal(weir_queue_done(queue, 2, 19), WEIR_EINVAL);
    assert_int_equal(snapshot_of(queue).in_flight, 2);
    assert_int_equal(weir_queue_done(queue, 0, 0), WEIR_OK);
    assert_int_equal(weir_queue_done(queue, 2, 20), WEIR_OK);
    end(queue);

    queue = plain(1);
    fill(queue, 1, 1);
    expect(queue, 1, 1);
    assert_int_equal(weir_queue_done(queue, 1, 0), WEIR_EINVAL);
    end(queue);
}

static void drop_oldest_evicts_nothing_when_that_would_not_make_room(void **state)
{
    (void)state;
    weir_queue *queue = bounding_in_flight(3, 100, WEIR_OVERFLOW_DROP_OLDEST);
    put_cost(queue, 1, 50);
    expect(queue, 1, 1);
    put_cost(queue, 2, 25);
    put_cost(queue, 3, 25);
    assert_int_equal(put_cost(queue, 4, 51), WEIR_EFULL); /* 50 are in flight */
    assert_int_equal(dropped.n, 0);
    assert_int_equal(put_cost(queue, 4, 50), WEIR_KEPT);
    assert_dropped(2, 3, WEIR_DROP_OLDEST);
    expect(queue, 4, 4);
    assert_int_equal(put_cost(queue, 5, 1), WEIR_EFULL); /* all of the cost is in flight */
    assert_int_equal(put_cost(queue, 6, 0), WEIR_KEPT);
    expect(queue, 6, 6);
    assert_int_equal(put_cost(queue, 7, 0), WEIR_EFULL); /* all items are */
    assert_int_equal(snapshot_of(queue).refused, 3);
    end(queue);
}

/* ---- no room elsewhere ---------------------------------------------------------------------- */

static void overflow_refuses_where_a_put_would_wait_or_fail(void **state)
{
    (void)state;
    const weir_overflow policies[] = {WEIR_OVERFLOW_BLOCK, WEIR_OVERFLOW_FAIL};
    for (size_t i = 0; i < 2; i++) {
        weir_queue *queue = with_policy(5, policies[i]);
        fill(queue, 1, 2);
        assert_int_equal(weir_queue_overflow(queue, number(3), 0), WEIR_EFULL);
        assert_int_equal(snapshot_of(queue).refused, 1);
        assert_int_equal(dropped.n, 0);
        expect(queue, 1, 2);
        end(queue);
    }
}

static void overflow_drops_the_item_where_the_newest_goes(void **state)
{
    (void)state;
    const weir_overflow policies[] = {WEIR_OVERFLOW_DROP_NEWEST, WEIR_OVERFLOW_SAMPLE};
    for (size_t i = 0; i < 2; i++) {
        weir_queue *queue = with_policy(5, policies[i]);
        fill(queue, 1, 2);
        assert_int_equal(weir_queue_overflow(queue, number(3), 7), WEIR_DROPPED);
        assert_dropped(3, 3, WEIR_DROP_NEWEST);
        weir_queue_snapshot now = snapshot_of(queue);
        assert_int_equal(now.accepted, 3);
        assert_int_equal(now.accepted_cost, 7);
        assert_int_equal(now.dropped_cost[WEIR_DROP_NEWEST], 7);
        expect(queue, 1, 2);
        end(queue);
    }
}

static void overflow_drops_the_oldest_as_long_as_there_is_one(void **state)
{
    (void)state;
    weir_queue *queue = with_policy(5, WEIR_OVERFLOW_DROP_OLDEST);
    fill(queue, 1, 2);
    assert_int_equal(weir_queue_overflow(queue, number(3), 7), WEIR_EVICTED);
    assert_int_equal(weir_queue_overflow(queue, number(3), 7), WEIR_EVICTED);
    assert_dropped(1, 2, WEIR_DROP_OLDEST);
    assert_int_equal(snapshot_of(queue).accepted, 2); /* the third is still ours */
    assert_int_equal(weir_queue_overflow(queue, number(3), 7), WEIR_DROPPED);
    assert_int_equal(dropped.n, 3);
    assert_int_equal(dropped.items[2], 3);
    assert_int_equal(dropped.reasons[2], WEIR_DROP_NEWEST);
    end(queue);
}

static void overflow_drops_nothing_for_an_item_that_a_put_would_not_take(void **state)
{
    (void)state;
    weir_queue_opts opts = options(5);
    opts.max_cost = 10;
    opts.overflow = WEIR_OVERFLOW_DROP_OLDEST;
    weir_queue *queue = make(opts);
    fill(queue, 1, 1);
    assert_int_equal(weir_queue_overflow(queue, number(2), 11), WEIR_ETOOBIG);
    weir_queue_close(queue);
    assert_int_equal(weir_queue_overflow(queue, number(2), 1), WEIR_ECLOSED);
    assert_int_equal(dropped.n, 0);
    assert_int_equal(snapshot_of(queue).refused, 1);
    end(queue);
}

static void overflow_makes_room_where_it_drops_the_oldest(void **state)
{
    (void)state;
    weir_queue *queue = with_policy(1, WEIR_OVERFLOW_DROP_OLDEST);
    fill(queue, 1, 1);
    assert_int_equal(weir_queue_overflow(queue, number(2), 0), WEIR_EVICTED);
    assert_int_equal(weir_queue_drain(queue, WEIR_POLL), WEIR_OK);
    assert_int_equal(put(queue, 2), WEIR_KEPT);
    expect(queue, 2, 2);
    end(queue);
}

/* ---- draining and discarding ---------------------------------------------------------------- */

static void *drains(void *arg)
{
    other *o = arg;
    o->rc = weir_queue_drain(o->queue, o->deadline);
    return NULL;
}

static void drain_waits_until_nothing_is_inside_or_in_flight(void **state)
{
    (void)state;
    weir_queue *queue = bounding_in_flight(3, 0, WEIR_OVERFLOW_BLOCK);
    assert_int_equal(weir_queue_drain(queue, WEIR_POLL), WEIR_OK);
    fill(queue, 1, 2);
    assert_int_equal(weir_queue_drain(queue, WEIR_POLL), WEIR_ETIMEDOUT);
    assert_int_equal(weir_queue_drain(queue, weir_after(1000)), WEIR_ETIMEDOUT);
    other drainer = {.queue = queue, .deadline = WEIR_FOREVER, .rc = 1};
    pthread_create(&drainer.thread, NULL, drains, &drainer);
    expect(queue, 1, 2);
    assert_int_equal(weir_queue_drain(queue, weir_after(1000)), WEIR_ETIMEDOUT);
    weir_queue_done(queue, 1, 0);
    assert_int_equal(weir_queue_drain(queue, WEIR_POLL), WEIR_ETIMEDOUT);
    weir_queue_done(queue, 1, 0);
    assert_int_equal(finish(&drainer), WEIR_OK);
    end(queue);
}

static void drain_is_ended_by_an_interruption(void **state)
{
    (void)state;
    weir_queue *queue = plain(1);
    fill(queue, 1, 1);
    weir_set_interrupt(always, NULL);
    assert_int_equal(weir_queue_drain(queue, WEIR_FOREVER), WEIR_EINTR);
    weir_set_interrupt(NULL, NULL);
    end(queue);
}

static void discard_drops_everything_and_leaves_the_queue_open(void **state)
{
    (void)state;
    for (uintptr_t n = 0; n < 200; n = n * 2 + 1) {
        weir_queue *queue = plain(WEIR_UNBOUNDED);
        fill(queue, 1, n);
        assert_int_equal(weir_queue_discard(queue), n);
        assert_dropped(1, n, WEIR_DROP_DISCARDED);
        assert_int_equal(weir_queue_discard(queue), 0);
        fill(queue, 1, 40);
        expect(queue, 1, 40);
        end(queue);
    }
}

static void discard_makes_room_for_a_waiting_putter(void **state)
{
    (void)state;
    weir_queue *queue = plain(1);
    fill(queue, 1, 1);
    other putter = {.queue = queue, .item = number(2), .deadline = WEIR_FOREVER};
    start_waiting_put(&putter);
    assert_int_equal(weir_queue_discard(queue), 1);
    assert_int_equal(finish(&putter), WEIR_KEPT);
    assert_dropped(1, 1, WEIR_DROP_DISCARDED);
    expect(queue, 2, 2);
    end(queue);
}

/* ---- resizing ------------------------------------------------------------------------------- */

static void a_larger_bound_lets_in_who_waits(void **state)
{
    (void)state;
    weir_queue *queue = plain(1);
    other putters[3];
    fill(queue, 1, 1);
    for (uintptr_t i = 0; i < 3; i++) {
        putters[i] = (other){.queue = queue, .item = number(i + 2), .deadline = WEIR_FOREVER};
        start_waiting_put(&putters[i]);
    }
    assert_int_equal(weir_queue_resize(queue, 3, 0), WEIR_OK);
    assert_int_equal(finish(&putters[0]), WEIR_KEPT);
    assert_int_equal(finish(&putters[1]), WEIR_KEPT);
    assert_int_equal(snapshot_of(queue).putters_waiting, 1);
    assert_int_equal(snapshot_of(queue).capacity, 3);
    expect(queue, 1, 4);
    assert_int_equal(finish(&putters[2]), WEIR_KEPT);
    end(queue);
}

static void a_smaller_bound_keeps_the_surplus_until_it_is_taken(void **state)
{
    (void)state;
    weir_queue *queue = plain(10);
    for (uintptr_t n = 1; n <= 6; n++)
        put_cost(queue, n, 10);
    assert_int_equal(weir_queue_resize(queue, 0, 0), WEIR_EINVAL);
    assert_int_equal(snapshot_of(queue).capacity, 10);
    assert_int_equal(weir_queue_resize(queue, 2, 20), WEIR_OK);
    assert_int_equal(snapshot_of(queue).depth, 6);
    assert_int_equal(snapshot_of(queue).max_cost, 20);
    for (uintptr_t n = 1; n <= 5; n++) {
        assert_int_equal(put_cost(queue, 7, 1), WEIR_EFULL);
        expect(queue, n, n);
    }
    assert_int_equal(put_cost(queue, 7, 10), WEIR_KEPT);
    expect(queue, 6, 7);
    assert_int_equal(dropped.n, 0);
    end(queue);
}

static void a_smaller_bound_refuses_waiting_putters_that_can_no_longer_fit(void **state)
{
    (void)state;
    weir_queue_opts opts = options(10);
    opts.max_cost = 100;
    weir_queue *queue = make(opts);
    put_cost(queue, 1, 40);
    other putters[3];
    const uint64_t costs[] = {61, 20, 90};
    for (uintptr_t i = 0; i < 3; i++) {
        putters[i] = (other){.queue = queue, .item = number(i + 2), .cost = costs[i]};
        putters[i].deadline = WEIR_FOREVER;
        start_waiting_put(&putters[i]);
    }
    assert_int_equal(weir_queue_resize(queue, 10, 60), WEIR_OK);
    assert_int_equal(finish(&putters[0]), WEIR_ETOOBIG);
    assert_int_equal(finish(&putters[1]), WEIR_KEPT);
    assert_int_equal(finish(&putters[2]), WEIR_ETOOBIG);
    assert_int_equal(snapshot_of(queue).refused, 2);
    expect(queue, 1, 1);
    expect(queue, 3, 3);
    end(queue);
}

static void a_smaller_bound_refuses_also_who_waits_behind_one_that_still_may_fit(void **state)
{
    (void)state;
    weir_queue_opts opts = options(10);
    opts.max_cost = 100;
    weir_queue *queue = make(opts);
    put_cost(queue, 1, 60);
    other first = {.queue = queue, .item = number(2), .cost = 50, .deadline = WEIR_FOREVER};
    other behind = {.queue = queue, .item = number(3), .cost = 90, .deadline = WEIR_FOREVER};
    start_waiting_put(&first);
    start_waiting_put(&behind);
    assert_int_equal(weir_queue_resize(queue, 10, 60), WEIR_OK);
    assert_int_equal(finish(&behind), WEIR_ETOOBIG);
    assert_int_equal(snapshot_of(queue).putters_waiting, 1);
    expect(queue, 1, 1);
    assert_int_equal(finish(&first), WEIR_KEPT);
    end(queue);
}

/* ---- age ------------------------------------------------------------------------------------ */

#define AGE (2 * WEIR_MILLISECOND)

static void let_it_age(void)
{
    weir_time until = weir_after(AGE + 1000);
    soon(weir_now() > until);
}

static weir_queue *aging(size_t capacity, int64_t max_age_ns)
{
    weir_queue_opts opts = options(capacity);
    opts.max_age_ns = max_age_ns;
    return make(opts);
}

static void items_that_are_too_old_are_dropped_when_their_turn_comes(void **state)
{
    (void)state;
    weir_queue *queue = aging(WEIR_UNBOUNDED, AGE);
    for (uintptr_t n = 1; n <= 500; n++)
        put_cost(queue, n, 2);
    let_it_age();
    assert_int_equal(weir_queue_depth(queue), 500); /* nobody asked yet */
    assert_int_equal(get(queue), WEIR_EEMPTY);
    assert_dropped(1, 500, WEIR_DROP_EXPIRED);
    assert_int_equal(snapshot_of(queue).dropped_cost[WEIR_DROP_EXPIRED], 1000);
    end(queue);
}

static void items_that_are_young_enough_are_delivered(void **state)
{
    (void)state;
    weir_queue *queue = aging(3, 1000 * WEIR_SECOND);
    void *got[3];
    fill(queue, 1, 3);
    assert_int_equal(weir_queue_get_many(queue, got, NULL, 3, WEIR_POLL, 0), 3);
    assert_int_equal(dropped.n, 0);
    end(queue);
}

static void a_get_takes_the_first_item_that_is_young_enough(void **state)
{
    (void)state;
    weir_queue *queue = aging(10, 300 * WEIR_MILLISECOND);
    fill(queue, 1, 3);
    weir_time until = weir_after(301 * WEIR_MILLISECOND);
    soon(weir_now() > until);
    fill(queue, 4, 4);
    assert_int_equal(get(queue), 4);
    assert_dropped(1, 3, WEIR_DROP_EXPIRED);
    end(queue);
}

static void the_room_of_what_was_too_old_goes_to_a_waiting_putter(void **state)
{
    (void)state;
    weir_queue *queue = aging(1, AGE);
    fill(queue, 1, 1);
    other putter = {.queue = queue, .item = number(2), .deadline = WEIR_FOREVER};
    start_waiting_put(&putter);
    weir_time until = weir_after(AGE + 1000);
    soon(weir_now() > until);
    assert_int_equal(get(queue), 2); /* in the same call */
    assert_int_equal(finish(&putter), WEIR_KEPT);
    assert_dropped(1, 1, WEIR_DROP_EXPIRED);
    end(queue);
}

static void drop_slowly(void *item, weir_drop_reason reason, void *ctx)
{
    weir_time until = weir_after(*(int64_t *)ctx);
    soon(weir_now() > until);
    note_drop(item, reason, NULL);
}

static void a_slow_on_drop_does_not_age_what_the_get_returns(void **state)
{
    (void)state;
    int64_t slow = 30 * WEIR_MILLISECOND;
    weir_queue_opts opts = options(1);
    opts.max_age_ns = 20 * WEIR_MILLISECOND;
    opts.on_drop = drop_slowly;
    opts.drop_ctx = &slow;
    weir_queue *queue = make(opts);
    fill(queue, 1, 1);
    other putter = {.queue = queue, .item = number(2), .deadline = WEIR_FOREVER};
    start_waiting_put(&putter);
    weir_time until = weir_after(21 * WEIR_MILLISECOND);
    soon(weir_now() > until);
    assert_int_equal(get(queue), 2);
    assert_int_equal(finish(&putter), WEIR_KEPT);
    assert_dropped(1, 1, WEIR_DROP_EXPIRED);
    end(queue);
}

/* ---- policies ------------------------------------------------------------------------------- */

static void fail_refuses_at_once_whatever_the_deadline(void **state)
{
    (void)state;
    weir_queue *queue = with_policy(1, WEIR_OVERFLOW_FAIL);
    fill(queue, 1, 1);
    assert_int_equal(weir_queue_put(queue, number(2), 0, WEIR_FOREVER), WEIR_EFULL);
    assert_int_equal(snapshot_of(queue).refused, 1);
    expect(queue, 1, 1);
    end(queue);
}

static void drop_newest_takes_the_item_and_drops_it(void **state)
{
    (void)state;
    weir_queue *queue = with_policy(1, WEIR_OVERFLOW_DROP_NEWEST);
    fill(queue, 1, 1);
    assert_int_equal(weir_queue_put(queue, number(2), 5, WEIR_FOREVER), WEIR_DROPPED);
    assert_dropped(2, 2, WEIR_DROP_NEWEST);
    weir_queue_snapshot now = snapshot_of(queue);
    assert_int_equal(now.accepted, 2);
    assert_int_equal(now.dropped[WEIR_DROP_NEWEST], 1);
    assert_int_equal(now.dropped_cost[WEIR_DROP_NEWEST], 5);
    expect(queue, 1, 1);
    end(queue);
}

static void put_many_counts_what_it_dropped_as_taken(void **state)
{
    (void)state;
    make_items();
    weir_queue *queue = with_policy(1, WEIR_OVERFLOW_DROP_NEWEST);
    assert_int_equal(weir_queue_put_many(queue, many_items, NULL, 1000, WEIR_POLL), 1000);
    assert_dropped(2, 1000, WEIR_DROP_NEWEST);
    end(queue);

    queue = with_policy(1, WEIR_OVERFLOW_DROP_OLDEST);
    assert_int_equal(weir_queue_put_many(queue, many_items, NULL, 1000, WEIR_POLL), 1000);
    assert_dropped(1, 999, WEIR_DROP_OLDEST);
    expect(queue, 1000, 1000);
    end(queue);
}

static void drop_oldest_drops_from_the_head_until_the_item_fits(void **state)
{
    (void)state;
    for (uintptr_t evicted = 1; evicted <= 300; evicted += 13) {
        weir_queue_opts opts = options(WEIR_UNBOUNDED);
        opts.overflow = WEIR_OVERFLOW_DROP_OLDEST;
        opts.max_cost = 600;
        weir_queue *queue = make(opts);
        for (uintptr_t n = 1; n <= 305; n++)
            assert_int_equal(put_cost(queue, n, n <= 5 ? 0 : 2), WEIR_KEPT);
        expect(queue, 1, 5);
        assert_int_equal(put_cost(queue, 306, evicted * 2 - 1), WEIR_KEPT);
        assert_dropped(6, 5 + evicted, WEIR_DROP_OLDEST);
        expect(queue, 6 + evicted, 306);
        end(queue);
    }
}

static void drop_oldest_drops_no_more_than_needed(void **state)
{
    (void)state;
    weir_queue *queue = with_policy(3, WEIR_OVERFLOW_DROP_OLDEST);
    fill(queue, 1, 4);
    assert_dropped(1, 1, WEIR_DROP_OLDEST);
    expect(queue, 2, 4);
    end(queue);
}

static void sample_keeps_one_of_n_above_the_high_mark(void **state)
{
    (void)state;
    weir_queue_opts opts = options(100);
    opts.overflow = WEIR_OVERFLOW_SAMPLE;
    opts.sample_keep_one_of = 4;
    opts.high_items = 10;
    opts.low_items = 5;
    weir_queue *queue = make(opts);
    fill(queue, 1, 11); /* 11 rises above 10 */
    for (uintptr_t n = 12; n < 32; n++)
        assert_int_equal(put(queue, n), (n - 11) % 4 == 0 ? WEIR_KEPT : WEIR_DROPPED);
    assert_int_equal(snapshot_of(queue).dropped[WEIR_DROP_SAMPLED], 15);
    assert_int_equal(weir_queue_depth(queue), 16);
    expect(queue, 1, 11);
    assert_int_equal(weir_queue_depth(queue), 5); /* at the low mark: all are kept again */
    fill(queue, 50, 55);
    end(queue);
}

static void sample_in_a_batch_is_the_same_as_one_by_one(void **state)
{
    (void)state;
    make_items();
    weir_queue_opts opts = options(100);
    opts.overflow = WEIR_OVERFLOW_SAMPLE; /* keeps 1 of 10 above 80 */
    weir_queue *queue = make(opts);
    assert_int_equal(weir_queue_put_many(queue, many_items, NULL, 1000, WEIR_POLL), 1000);
    weir_queue_snapshot now = snapshot_of(queue);
    assert_int_equal(now.depth, 100);
    assert_int_equal(now.dropped[WEIR_DROP_SAMPLED], 919 - 91); /* 919 met it above the mark */
    assert_int_equal(now.dropped[WEIR_DROP_NEWEST], 91 - 19);   /* 19 found room */
    expect(queue, 1, 81);
    expect(queue, 91, 91);
    end(queue);
}

static void no_policy_takes_an_item_that_can_never_fit(void **state)
{
    (void)state;
    for (int policy = WEIR_OVERFLOW_BLOCK; policy <= (int)WEIR_OVERFLOW_SAMPLE; policy++) {
        weir_queue_opts opts = options(10);
        opts.overflow = (weir_overflow)policy;
        opts.max_cost = 10;
        weir_queue *queue = make(opts);
        assert_int_equal(weir_queue_put(queue, number(1), 11, WEIR_FOREVER), WEIR_ETOOBIG);
        assert_int_equal(put_cost(queue, 1, 10), WEIR_KEPT);
        assert_int_equal(dropped.n, 0);
        assert_int_equal(snapshot_of(queue).refused, 1);
        end(queue);
    }
}

static void put_again(void *item, weir_drop_reason reason, void *ctx)
{
    weir_queue **other_queue = ctx;
    if (reason == WEIR_DROP_OLDEST)
        assert_int_equal(weir_queue_put(*other_queue, item, 0, WEIR_POLL), WEIR_KEPT);
}

static void on_drop_may_use_queues(void **state)
{
    (void)state;
    weir_queue *dead_letters = plain(100), *queue = NULL;
    weir_queue_opts opts = options(2);
    opts.overflow = WEIR_OVERFLOW_DROP_OLDEST;
    opts.on_drop = put_again;
    opts.drop_ctx = &dead_letters;
    assert_int_equal(weir_queue_create(&queue, &opts), WEIR_OK);
    fill(queue, 1, 10);
    expect(dead_letters, 1, 8);
    end(queue);
    end(dead_letters);
}

/* ---- watermarks ----------------------------------------------------------------------------- */

static struct {
    int calls;
    bool above;
    weir_queue *queue;
    bool takes; /* calls back into the queue */
} watermark;

static void note_watermark(bool above, void *ctx)
{
    assert_ptr_equal(ctx, &watermark);
    assert_true(above != watermark.above);
    watermark.above = above;
    watermark.calls++;
    if (watermark.queue)
        assert_int_equal(snapshot_of(watermark.queue).above_high, above);
    if (watermark.takes && above) {
        while (get(watermark.queue) >= 0)
            ;
        assert_int_equal(watermark.calls, 1); /* told after this call, not inside it */
    }
}

static weir_queue *marked(weir_queue_opts opts)
{
    watermark.calls = 0;
    watermark.above = watermark.takes = false;
    opts.on_watermark = note_watermark;
    opts.watermark_ctx = &watermark;
    return watermark.queue = make(opts);
}

static void end_marked(weir_queue *queue)
{
    watermark.queue = NULL;
    end(queue);
    assert_false(watermark.above);
}

static void the_watermark_tells_above_high_and_back_at_low(void **state)
{
    (void)state;
    weir_queue_opts opts = options(10);
    opts.high_items = 6;
    opts.low_items = 2;
    weir_queue *queue = marked(opts);
    fill(queue, 1, 6);
    assert_int_equal(watermark.calls, 0);
    fill(queue, 7, 7);
    assert_int_equal(watermark.calls, 1);
    assert_true(watermark.above && snapshot_of(queue).above_high);
    expect(queue, 1, 4);
    fill(queue, 8, 10);
    expect(queue, 5, 7);
    assert_int_equal(watermark.calls, 1); /* between the marks nothing changes */
    expect(queue, 8, 8);
    assert_int_equal(watermark.calls, 2);
    assert_false(watermark.above || snapshot_of(queue).above_high);
    end_marked(queue);
}

static void the_default_marks_are_80_percent_and_half_of_that(void **state)
{
    (void)state;
    weir_queue *queue = marked(options(100));
    fill(queue, 1, 80);
    assert_int_equal(watermark.calls, 0);
    fill(queue, 81, 81);
    assert_int_equal(watermark.calls, 1);
    expect(queue, 1, 40);
    assert_int_equal(watermark.calls, 1);
    expect(queue, 41, 41);
    assert_int_equal(watermark.calls, 2);
    assert_int_equal(weir_queue_resize(queue, 45, 0), WEIR_OK); /* 36, 18 */
    assert_int_equal(watermark.calls, 3);
    end_marked(queue);
}

static void marks_on_cost_count_too(void **state)
{
    (void)state;
    weir_queue_opts opts = options(100);
    opts.max_cost = 1000;
    weir_queue *queue = marked(opts);
    put_cost(queue, 1, 801);
    assert_int_equal(watermark.calls, 1);
    for (uintptr_t n = 2; n <= 100; n++)
        put_cost(queue, n, 1);
    expect(queue, 1, 1);
    assert_int_equal(watermark.calls, 1); /* cost is low, the depth is not */
    expect(queue, 2, 60);
    assert_int_equal(watermark.calls, 2);
    end_marked(queue);

    opts = options(100);
    opts.high_cost = 50;
    queue = marked(opts);
    put_cost(queue, 1, 50);
    for (uintptr_t n = 2; n <= 100; n++)
        put(queue, n);
    assert_int_equal(watermark.calls, 0); /* asked for on cost alone */
    end_marked(queue);
}

static void a_queue_of_one_has_marks_too(void **state)
{
    (void)state;
    weir_queue *queue = marked(options(1));
    fill(queue, 1, 1);
    assert_int_equal(watermark.calls, 1);
    expect(queue, 1, 1);
    assert_int_equal(watermark.calls, 2);
    end_marked(queue);
}

static void the_watermark_may_call_back_into_the_queue(void **state)
{
    (void)state;
    weir_queue_opts opts = options(10);
    opts.high_items = 4;
    weir_queue *queue = marked(opts);
    watermark.takes = true;
    fill(queue, 1, 5);
    assert_int_equal(watermark.calls, 2);
    assert_int_equal(weir_queue_depth(queue), 0);
    end_marked(queue);
}

/* ---- descriptors ---------------------------------------------------------------------------- */

static void the_item_fd_is_readable_exactly_while_a_get_would_not_wait(void **state)
{
    (void)state;
    weir_queue *queue = plain(2);
    fill(queue, 1, 1);
    int fd = weir_queue_item_fd(queue);
    assert_true(fd >= 0);
    assert_int_equal(weir_queue_item_fd(queue), fd);
    assert_true(is_readable(fd));
    assert_true(is_readable(fd));
    fill(queue, 2, 2);
    expect(queue, 1, 1);
    assert_true(is_readable(fd));
    expect(queue, 2, 2);
    assert_false(is_readable(fd));
    fill(queue, 3, 3);
    assert_true(is_readable(fd));
    weir_queue_discard(queue);
    assert_false(is_readable(fd));
    weir_queue_close(queue);
    assert_true(is_readable(fd));
    end(queue);
    errno = 0;
    assert_int_equal(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0), 1); /* POLLNVAL */
}

static void the_room_fd_is_readable_exactly_while_there_is_room_and_no_line(void **state)
{
    (void)state;
    weir_queue_opts opts = options(2);
    opts.max_cost = 100;
    weir_queue *queue = make(opts);
    int fd = weir_queue_room_fd(queue);
    assert_true(fd >= 0);
    assert_true(is_readable(fd));
    put_cost(queue, 1, 60);
    assert_true(is_readable(fd));
    other big = {.queue = queue, .item = number(2), .cost = 50, .deadline = WEIR_FOREVER};
    start_waiting_put(&big);
    assert_false(is_readable(fd));
    expect(queue, 1, 1);
    assert_int_equal(finish(&big), WEIR_KEPT);
    assert_true(is_readable(fd));
    put_cost(queue, 3, 1);
    assert_false(is_readable(fd));
    assert_int_equal(weir_queue_resize(queue, 3, 0), WEIR_OK);
    assert_true(is_readable(fd));
    fill(queue, 4, 4);
    assert_false(is_readable(fd));
    weir_queue_close(queue);
    assert_true(is_readable(fd));
    end(queue);
}

/* ---- looking -------------------------------------------------------------------------------- */

static void a_snapshot_of_unknown_size_is_refused(void **state)
{
    (void)state;
    weir_queue *queue = plain(1);
    weir_queue_snapshot now = {0};
    assert_int_equal(weir_queue_get_snapshot(queue, &now), WEIR_EINVAL);
    end(queue);
}

static void a_snapshot_shows_every_field(void **state)
{
    (void)state;
    weir_queue_opts opts = options(7);
    opts.max_cost = 700;
    opts.bound_in_flight = true;
    weir_queue *queue = make(opts);
    for (uintptr_t n = 1; n <= 5; n++)
        put_cost(queue, n, n * 10);
    expect(queue, 1, 2);
    weir_queue_done(queue, 1, 10);
    weir_queue_snapshot now = snapshot_of(queue);
    assert_int_equal(now.size, sizeof(now));
    assert_int_equal(now.capacity, 7);
    assert_int_equal(now.max_cost, 700);
    assert_int_equal(now.depth, 3);
    assert_int_equal(now.cost, 120);
    assert_int_equal(now.in_flight, 1);
    assert_int_equal(now.in_flight_cost, 20);
    assert_int_equal(now.accepted, 5);
    assert_int_equal(now.accepted_cost, 150);
    assert_int_equal(now.delivered, 2);
    assert_int_equal(now.delivered_cost, 30);
    assert_int_equal(now.peak_depth, 5);
    assert_int_equal(now.put_blocked_ns, 0);
    assert_false(now.closed || now.above_high);
    assert_int_equal(weir_queue_depth(queue), 3);
    end(queue);
}

static void every_drop_reason_has_a_name_of_its_own(void **state)
{
    (void)state;
    assert_string_equal(weir_drop_reason_name(WEIR_DROP_OLDEST), "oldest");
    assert_string_equal(weir_drop_reason_name(WEIR_DROP_EXPIRED), "expired");
    for (int a = -1; a <= WEIR_DROP_REASONS; a++)
        for (int b = a + 1; b < WEIR_DROP_REASONS; b++)
            assert_string_not_equal(weir_drop_reason_name(a), weir_drop_reason_name(b));
    assert_string_equal(weir_drop_reason_name(-1), weir_drop_reason_name(WEIR_DROP_REASONS));
}

static void drop_free_frees_and_drop_ignore_does_not(void **state)
{
    (void)state;
    int kept = 1;
    weir_queue_opts opts = options(1);
    weir_queue *queue = NULL;
    opts.on_drop = weir_drop_free;
    assert_int_equal(weir_queue_create(&queue, &opts), WEIR_OK);
    weir_queue_put(queue, malloc(10), 0, WEIR_POLL); /* a leak is ASan's to see */
    weir_queue_destroy(queue);
    opts.on_drop = weir_drop_ignore;
    assert_int_equal(weir_queue_create(&queue, &opts), WEIR_OK);
    weir_queue_put(queue, &kept, 0, WEIR_POLL);
    weir_queue_destroy(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_refuses_every_option_out_of_range),
        cmocka_unit_test(create_takes_the_smallest_and_the_largest_bounds),
        cmocka_unit_test(destroy_takes_null),
        cmocka_unit_test(destroy_drops_what_is_inside_as_discarded),
        cmocka_unit_test(items_leave_in_the_order_they_were_accepted),
        cmocka_unit_test(null_is_an_item_like_any_other),
        cmocka_unit_test(get_cost_tells_the_cost_of_the_item),
        cmocka_unit_test(an_empty_queue_leaves_the_output_untouched),
        cmocka_unit_test(a_full_queue_refuses_a_poll_and_times_out_a_deadline),
        cmocka_unit_test(both_bounds_hold_exactly_and_at_once),
        cmocka_unit_test(a_sum_of_costs_cannot_wrap_round),
        cmocka_unit_test(put_on_a_closed_queue_leaves_the_item_with_the_caller),
        cmocka_unit_test(getters_empty_a_closed_queue_and_then_see_closed),
        cmocka_unit_test(close_releases_everybody_who_waits),
        cmocka_unit_test(waiting_putters_are_served_in_the_order_they_came),
        cmocka_unit_test(waiting_getters_are_served_in_the_order_they_came),
        cmocka_unit_test(a_later_try_never_overtakes_a_waiting_putter),
        cmocka_unit_test(waiting_putters_are_let_in_although_nobody_calls_any_more),
        cmocka_unit_test(waiting_getters_get_their_items_although_nobody_calls_any_more),
        cmocka_unit_test(what_belongs_to_a_waiter_is_not_to_be_seen_or_taken_before),
        cmocka_unit_test(a_waiter_in_its_hook_holds_nobody_up),
        cmocka_unit_test(a_deadline_that_passes_while_the_waiter_is_served_changes_nothing),
        cmocka_unit_test(a_putter_that_gives_up_lets_in_whom_it_held_back),
        cmocka_unit_test(an_interruption_ends_the_wait_and_nothing_happened),
        cmocka_unit_test(a_signal_without_a_hook_does_not_end_a_wait),
        cmocka_unit_test(put_many_takes_from_the_front_what_fits),
        cmocka_unit_test(put_many_stops_at_an_item_that_can_never_fit),
        cmocka_unit_test(put_many_goes_in_as_room_is_made),
        cmocka_unit_test(put_many_says_how_many_went_in_before_the_close),
        cmocka_unit_test(put_many_stops_waiting_at_an_item_that_can_never_fit),
        cmocka_unit_test(get_many_takes_what_is_there),
        cmocka_unit_test(get_many_waits_for_the_first),
        cmocka_unit_test(each_wait_of_a_batch_is_counted_once),
        cmocka_unit_test(get_many_takes_all_that_came_with_the_first),
        cmocka_unit_test(get_many_lingers_until_the_batch_is_full),
        cmocka_unit_test(get_many_returns_what_it_has_when_the_linger_ends),
        cmocka_unit_test(get_many_keeps_its_batch_when_the_queue_closes),
        cmocka_unit_test(get_many_keeps_its_batch_when_the_linger_is_interrupted),
        cmocka_unit_test(what_was_taken_counts_until_it_is_done),
        cmocka_unit_test(done_lets_in_a_putter_and_on_to_a_getter),
        cmocka_unit_test(done_refuses_more_than_is_in_flight),
        cmocka_unit_test(drop_oldest_evicts_nothing_when_that_would_not_make_room),
        cmocka_unit_test(drain_waits_until_nothing_is_inside_or_in_flight),
        cmocka_unit_test(drain_is_ended_by_an_interruption),
        cmocka_unit_test(overflow_refuses_where_a_put_would_wait_or_fail),
        cmocka_unit_test(overflow_drops_the_item_where_the_newest_goes),
        cmocka_unit_test(overflow_drops_the_oldest_as_long_as_there_is_one),
        cmocka_unit_test(overflow_drops_nothing_for_an_item_that_a_put_would_not_take),
        cmocka_unit_test(overflow_makes_room_where_it_drops_the_oldest),
        cmocka_unit_test(discard_drops_everything_and_leaves_the_queue_open),
        cmocka_unit_test(discard_makes_room_for_a_waiting_putter),
        cmocka_unit_test(a_larger_bound_lets_in_who_waits),
        cmocka_unit_test(a_smaller_bound_keeps_the_surplus_until_it_is_taken),
        cmocka_unit_test(a_smaller_bound_refuses_waiting_putters_that_can_no_longer_fit),
        cmocka_unit_test(a_smaller_bound_refuses_also_who_waits_behind_one_that_still_may_fit),
        cmocka_unit_test(items_that_are_too_old_are_dropped_when_their_turn_comes),
        cmocka_unit_test(items_that_are_young_enough_are_delivered),
        cmocka_unit_test(a_get_takes_the_first_item_that_is_young_enough),
        cmocka_unit_test(the_room_of_what_was_too_old_goes_to_a_waiting_putter),
        cmocka_unit_test(a_slow_on_drop_does_not_age_what_the_get_returns),
        cmocka_unit_test(fail_refuses_at_once_whatever_the_deadline),
        cmocka_unit_test(drop_newest_takes_the_item_and_drops_it),
        cmocka_unit_test(put_many_counts_what_it_dropped_as_taken),
        cmocka_unit_test(drop_oldest_drops_from_the_head_until_the_item_fits),
        cmocka_unit_test(drop_oldest_drops_no_more_than_needed),
        cmocka_unit_test(sample_keeps_one_of_n_above_the_high_mark),
        cmocka_unit_test(sample_in_a_batch_is_the_same_as_one_by_one),
        cmocka_unit_test(no_policy_takes_an_item_that_can_never_fit),
        cmocka_unit_test(on_drop_may_use_queues),
        cmocka_unit_test(the_watermark_tells_above_high_and_back_at_low),
        cmocka_unit_test(the_default_marks_are_80_percent_and_half_of_that),
        cmocka_unit_test(marks_on_cost_count_too),
        cmocka_unit_test(a_queue_of_one_has_marks_too),
        cmocka_unit_test(the_watermark_may_call_back_into_the_queue),
        cmocka_unit_test(the_item_fd_is_readable_exactly_while_a_get_would_not_wait),
        cmocka_unit_test(the_room_fd_is_readable_exactly_while_there_is_room_and_no_line),
        cmocka_unit_test(a_snapshot_of_unknown_size_is_refused),
        cmocka_unit_test(a_snapshot_shows_every_field),
        cmocka_unit_test(every_drop_reason_has_a_name_of_its_own),
        cmocka_unit_test(drop_free_frees_and_drop_ignore_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
