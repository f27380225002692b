/* Places in the queue's lines that no thread waits in. */
#include "support.h"

#include <string.h>

#define MS WEIR_MILLISECOND

/* A guest, and what it was told. */
typedef struct visitor {
    weir_pending pending;
    weir_queue *queue;
    int told, result; /* how often, and the last result */
    bool passes_on;   /* gives up its turn as soon as it is told */
} visitor;

static void tell(weir_pending *pending, int result)
{
    visitor *v = pending->ctx;
    v->told++;
    v->result = result;
    if (v->passes_on)
        weir_queue_cancel(v->queue, pending);
}

static void arrive(visitor *v, weir_queue *queue)
{
    *v = (visitor){.queue = queue};
    v->pending.ready = tell;
    v->pending.ctx = v;
}

static int wait_item(visitor *v, weir_queue *queue)
{
    arrive(v, queue);
    return weir_queue_wait_items(queue, 1, &v->pending);
}

static int wait_room(visitor *v, weir_queue *queue, uint64_t cost)
{
    arrive(v, queue);
    return weir_queue_wait_room(queue, cost, &v->pending);
}

static int64_t take(visitor *v, void **ret_item)
{
    return weir_queue_get_waited(v->queue, ret_item, NULL, 1, &v->pending);
}

static uintptr_t dropped_sum;

static void note_drop(void *item, weir_drop_reason reason, void *ctx)
{
    (void)reason, (void)ctx;
    dropped_sum += (uintptr_t)item;
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
    must(weir_queue_create(&queue, &opts) == WEIR_OK);
    dropped_sum = 0;
    return queue;
}

static void put(weir_queue *queue, uintptr_t item)
{
    must(weir_queue_put(queue, number(item), 0, WEIR_POLL) == WEIR_KEPT);
}

static int try_get(weir_queue *queue)
{
    void *item;
    return weir_queue_get(queue, &item, WEIR_POLL);
}

/* The law holds, nobody waits, and the queue goes. */
static void finish_with(weir_queue *queue)
{
    weir_queue_snapshot now = snapshot_of(queue);
    assert_true(obeys_the_law(&now));
    assert_int_equal(now.putters_waiting, 0);
    assert_int_equal(now.getters_waiting, 0);
    weir_queue_destroy(queue);
}

/* ---- getting -------------------------------------------------------------------------------- */

static void a_guest_is_called_when_an_item_comes(void **state)
{
    (void)state;
    weir_queue *queue = make(options(4));
    visitor v;
    assert_int_equal(wait_item(&v, queue), WEIR_WAITING);
    assert_int_equal(v.told, 0);
    put(queue, 7);
    assert_int_equal(v.told, 1);
    assert_int_equal(v.result, WEIR_OK);
    assert_int_equal(snapshot_of(queue).getters_waiting, 1);
    void *item = NULL;
    assert_int_equal(take(&v, &item), 1);
    assert_ptr_equal(item, number(7));
    assert_int_equal(v.told, 1);
    finish_with(queue);
}

static void a_guest_that_comes_to_items_is_called_at_once(void **state)
{
    (void)state;
    weir_queue *queue = make(options(4));
    visitor v;
    put(queue, 7);
    assert_int_equal(wait_item(&v, queue), WEIR_WAITING);
    assert_int_equal(v.told, 1);
    void *item;
    assert_int_equal(take(&v, &item), 1);
    finish_with(queue);
}

static void what_is_kept_for_a_guest_is_nobody_elses(void **state)
{
    (void)state;
    weir_queue *queue = make(options(4));
    visitor v;
    wait_item(&v, queue);
    put(queue, 1);
    assert_int_equal(try_get(queue), WEIR_EEMPTY);
    assert_int_equal(weir_queue_depth(queue), 1);
    put(queue, 2);
    void *item;
    assert_int_equal(weir_queue_get(queue, &item, WEIR_POLL), WEIR_OK); /* the other one */
    assert_int_equal(try_get(queue), WEIR_EEMPTY);
    assert_int_equal(take(&v, &item), 1);
    assert_int_equal(try_get(queue), WEIR_EEMPTY);
    finish_with(queue);
}

static void guests_and_threads_are_served_in_the_order_they_came(void **state)
{
    (void)state;
    weir_queue *queue = make(options(8));
    visitor first, third;
    other second = {.queue = queue, .deadline = WEIR_FOREVER};
    wait_item(&first, queue);
    start_waiting_get(&second);
    wait_item(&third, queue);
    put(queue, 1);
    assert_int_equal(first.told, 1);
    assert_int_equal(third.told, 0);
    put(queue, 2);
    assert_int_equal(finish(&second), WEIR_OK);
    assert_int_equal(third.told, 0);
    put(queue, 3);
    assert_int_equal(third.told, 1);
    void *item;
    assert_int_equal(take(&third, &item), 1);
    assert_int_equal(take(&first, &item), 1);
    finish_with(queue);
}

static void a_turn_that_is_given_up_is_the_next_ones(void **state)
{
    (void)state;
    weir_queue *queue = make(options(4));
    visitor first, second;
    other third = {.queue = queue, .deadline = WEIR_FOREVER};
    wait_item(&first, queue);
    wait_item(&second, queue);
    start_waiting_get(&third);
    put(queue, 9);
    assert_int_equal(second.told, 0);
    assert_false(weir_queue_cancel(queue, &first.pending));
    assert_int_equal(second.told, 1);
    assert_false(weir_queue_cancel(queue, &second.pending));
    assert_int_equal(finish(&third), WEIR_OK);
    assert_ptr_equal(third.item, number(9));
    void *item;
    assert_int_equal(take(&first, &item), WEIR_EINVAL); /* it is over */
    finish_with(queue);
}

static void who_leaves_the_line_is_not_called(void **state)
{
    (void)state;
    weir_queue *queue = make(options(4));
    visitor v;
    wait_item(&v, queue);
    weir_time later = weir_after(2 * MS);
    soon(weir_now() > later);
    assert_true(weir_queue_cancel(queue, &v.pending));
    assert_false(weir_queue_cancel(queue, &v.pending));
    assert_true(snapshot_of(queue).get_blocked_ns >= 2 * MS);
    put(queue, 1);
    assert_int_equal(v.told, 0);
    assert_int_equal(try_get(queue), WEIR_OK);
    finish_with(queue);
}

/* Each is told, and passes its turn on to the next one: not from inside of it. */
static void a_turn_is_passed_on_through_any_number_of_guests(void **state)
{
    (void)state;
    enum { MANY = 200000 };
    weir_queue *queue = make(options(4));
    visitor *many = calloc(MANY, sizeof *many);
    must(many);
    for (int i = 0; i < MANY; i++) {
        wait_item(&many[i], queue);
        many[i].passes_on = true;
    }
    put(queue, 5);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(many[i].told, 1);
    assert_int_equal(try_get(queue), WEIR_OK);
    free(many);
    finish_with(queue);
}

static void dropped_items_send_a_guest_back_into_line(void **state)
{
    (void)state;
    weir_queue *queue = make(options(4));
    visitor first, second;
    wait_item(&first, queue);
    put(queue, 1);
    wait_item(&second, queue);
    assert_int_equal(weir_queue_discard(queue), 1);
    void *item = number(3);
    assert_int_equal(take(&first, &item), WEIR_EEMPTY);
    assert_ptr_equal(item, number(3));
    put(queue, 2);
    assert_int_equal(first.told, 2); /* before the other one */
    assert_int_equal(second.told, 0);
    assert_int_equal(take(&first, &item), 1);
    assert_ptr_equal(item, number(2));
    assert_true(weir_queue_cancel(queue, &second.pending));
    finish_with(queue);
}

static void an_item_that_grew_too_old_in_the_turn_is_dropped(void **state)
{
    (void)state;
    weir_queue_opts opts = options(200);
    opts.max_age_ns = 1 * MS;
    weir_queue *queue = make(opts);
    visitor v;
    wait_item(&v, queue);
    for (uintptr_t i = 1; i <= 200; i++) /* more than one call can report */
        put(queue, i);
    weir_time old = weir_after(2 * MS);
    soon(weir_now() > old);
    void *item;
    assert_int_equal(take(&v, &item), WEIR_EEMPTY);
    assert_int_equal(dropped_sum, 200 * 201 / 2);
    assert_int_equal(snapshot_of(queue).dropped[WEIR_DROP_EXPIRED], 200);
    put(queue, 1);
    assert_int_equal(v.told, 2);
    assert_false(weir_queue_cancel(queue, &v.pending));
    finish_with(queue);
}

static void evicting_takes_what_is_kept_as_well(void **state)
{
    (void)state;
    weir_queue_opts opts = options(1);
    opts.overflow = WEIR_OVERFLOW_DROP_OLDEST;
    weir_queue *queue = make(opts);
    visitor v;
    wait_item(&v, queue);
    put(queue, 1);
    put(queue, 2);
    void *item;
    assert_int_equal(take(&v, &item), 1);
    assert_ptr_equal(item, number(2));
    finish_with(queue);
}

/* ---- many at once --------------------------------------------------------------------------- */

static void a_batch_is_called_for_when_it_is_there(void **state)
{
    (void)state;
    weir_queue *queue = make(options(8));
    visitor v;
    arrive(&v, queue);
    assert_int_equal(weir_queue_wait_items(queue, 3, &v.pending), WEIR_WAITING);
    put(queue, 1);
    put(queue, 2);
    assert_int_equal(v.told, 0);
    assert_int_equal(try_get(queue), WEIR_EEMPTY); /* never past who waits */
    put(queue, 3);
    assert_int_equal(v.told, 1);
    put(queue, 4);
    void *items[8];
    uint64_t costs[8];
    assert_int_equal(weir_queue_get_waited(queue, items, costs, 8, &v.pending), 4);
    for (uintptr_t i = 0; i < 4; i++)
        assert_ptr_equal(items[i], number(i + 1));
    finish_with(queue);
}

static void a_batch_is_called_for_when_no_more_can_come(void **state)
{
    (void)state;
    weir_queue *queue = make(options(2));
    visitor full, waits;
    arrive(&full, queue);
    assert_int_equal(weir_queue_wait_items(queue, 100, &full.pending), WEIR_WAITING);
    put(queue, 1);
    assert_int_equal(full.told, 0);
    put(queue, 2);
    assert_int_equal(full.told, 1);
    void *items[4];
    assert_int_equal(weir_queue_get_waited(queue, items, NULL, 4, &full.pending), 2);

    weir_queue_opts opts = options(8);
    opts.max_cost = 10;
    weir_queue *costly = make(opts);
    arrive(&waits, costly);
    assert_int_equal(weir_queue_wait_items(costly, 100, &waits.pending), WEIR_WAITING);
    assert_int_equal(weir_queue_put(costly, number(1), 6, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(waits.told, 0);
    visitor big; /* does not fit beside the other one */
    assert_int_equal(wait_room(&big, costly, 6), WEIR_WAITING);
    assert_int_equal(waits.told, 1);
    assert_int_equal(weir_queue_get_waited(costly, items, NULL, 4, &waits.pending), 1);
    assert_int_equal(big.told, 1);
    assert_int_equal(weir_queue_put_waited(costly, number(2), &big.pending), WEIR_KEPT);
    assert_int_equal(weir_queue_discard(costly), 1);
    finish_with(queue);
    finish_with(costly);
}

static void who_waits_for_many_can_want_fewer_and_more(void **state)
{
    (void)state;
    weir_queue *queue = make(options(8));
    visitor v, behind;
    arrive(&v, queue);
    assert_int_equal(weir_queue_wait_items(queue, 5, &v.pending), WEIR_WAITING);
    put(queue, 1);
    put(queue, 2);
    wait_item(&behind, queue);
    assert_int_equal(behind.told, 0);
    assert_int_equal(weir_queue_wait_items(queue, 1, &v.pending), WEIR_WAITING);
    assert_int_equal(v.told, 1);
    assert_int_equal(weir_queue_wait_items(queue, 1, &v.pending), WEIR_OK); /* it is its turn */
    assert_int_equal(behind.told, 1);                                       /* the second item */
    assert_int_equal(weir_queue_wait_items(queue, 2, &v.pending), WEIR_WAITING);
    put(queue, 3);
    assert_int_equal(v.told, 2);
    void *items[4];
    assert_int_equal(weir_queue_get_waited(queue, items, NULL, 4, &v.pending), 2);
    assert_int_equal(weir_queue_get_waited(queue, items, NULL, 4, &behind.pending), 1);
    finish_with(queue);
}

static void a_turn_takes_no_more_than_was_kept_when_others_wait(void **state)
{
    (void)state;
    weir_queue *queue = make(options(8));
    visitor v, behind;
    wait_item(&v, queue);
    arrive(&behind, queue);
    weir_queue_wait_items(queue, 3, &behind.pending);
    put(queue, 1);
    put(queue, 2);
    void *items[4];
    assert_int_equal(weir_queue_get_waited(queue, items, NULL, 4, &v.pending), 1);
    assert_true(weir_queue_cancel(queue, &behind.pending));
    assert_int_equal(weir_queue_discard(queue), 1);
    finish_with(queue);
}

/* ---- putting -------------------------------------------------------------------------------- */

static void a_guest_is_called_when_there_is_room(void **state)
{
    (void)state;
    weir_queue *queue = make(options(1));
    visitor v;
    put(queue, 1);
    assert_int_equal(wait_room(&v, queue, 0), WEIR_WAITING);
    assert_int_equal(v.told, 0);
    assert_int_equal(try_get(queue), WEIR_OK);
    assert_int_equal(v.told, 1);
    assert_int_equal(weir_queue_put(queue, number(2), 0, WEIR_POLL), WEIR_EFULL); /* kept */
    assert_int_equal(weir_queue_depth(queue), 0);
    assert_int_equal(weir_queue_put_waited(queue, number(3), &v.pending), WEIR_KEPT);
    assert_int_equal(weir_queue_put_waited(queue, number(4), &v.pending), WEIR_EINVAL);
    void *item;
    assert_int_equal(weir_queue_get(queue, &item, WEIR_POLL), WEIR_OK);
    assert_ptr_equal(item, number(3));
    finish_with(queue);
}

static void kept_room_counts_in_bytes_too(void **state)
{
    (void)state;
    weir_queue_opts opts = options(10);
    opts.max_cost = 10;
    weir_queue *queue = make(opts);
    visitor v;
    assert_int_equal(weir_queue_put(queue, number(1), 8, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(wait_room(&v, queue, 6), WEIR_WAITING);
    assert_int_equal(weir_queue_put(queue, number(2), 1, WEIR_POLL), WEIR_EFULL); /* in line */
    assert_int_equal(try_get(queue), WEIR_OK);
    assert_int_equal(weir_queue_put(queue, number(2), 5, WEIR_POLL), WEIR_EFULL);
    assert_int_equal(weir_queue_put(queue, number(2), 4, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_queue_put_waited(queue, number(3), &v.pending), WEIR_KEPT);
    assert_int_equal(snapshot_of(queue).cost, 10);
    weir_queue_discard(queue);
    finish_with(queue);
}

static void room_that_is_given_up_is_the_next_ones(void **state)
{
    (void)state;
    weir_queue *queue = make(options(1));
    visitor first, third;
    other second = {.queue = queue, .item = number(2), .deadline = WEIR_FOREVER};
    put(queue, 1);
    wait_room(&first, queue, 0);
    start_waiting_put(&second);
    wait_room(&third, queue, 0);
    assert_int_equal(try_get(queue), WEIR_OK);
    assert_int_equal(first.told, 1);
    assert_false(weir_queue_cancel(queue, &first.pending));
    assert_int_equal(finish(&second), WEIR_KEPT);
    assert_int_equal(third.told, 0);
    assert_true(weir_queue_cancel(queue, &third.pending));
    assert_int_equal(try_get(queue), WEIR_OK);
    finish_with(queue);
}

static void a_smaller_bound_sends_a_guest_back_into_line(void **state)
{
    (void)state;
    weir_queue_opts opts = options(2);
    opts.max_cost = 10;
    weir_queue *queue = make(opts);
    visitor small, big;
    put(queue, 1);
    put(queue, 2);
    wait_room(&small, queue, 1);
    wait_room(&big, queue, 9);
    assert_int_equal(try_get(queue), WEIR_OK);
    assert_int_equal(small.told, 1);
    assert_int_equal(weir_queue_resize(queue, 1, 5), WEIR_OK);
    assert_int_equal(big.told, 1);
    assert_int_equal(big.result, WEIR_ETOOBIG);
    assert_int_equal(weir_queue_put_waited(queue, number(3), &small.pending), WEIR_EFULL);
    assert_int_equal(try_get(queue), WEIR_OK);
    assert_int_equal(small.told, 2);
    assert_int_equal(weir_queue_put_waited(queue, number(3), &small.pending), WEIR_KEPT);
    assert_int_equal(try_get(queue), WEIR_OK);
    assert_int_equal(snapshot_of(queue).refused, 1);

    put(queue, 4);
    wait_room(&small, queue, 4);
    assert_int_equal(try_get(queue), WEIR_OK);
    assert_int_equal(small.told, 1);
    assert_int_equal(weir_queue_resize(queue, 1, 3), WEIR_OK);
    assert_int_equal(weir_queue_put_waited(queue, number(3), &small.pending), WEIR_ETOOBIG);
    finish_with(queue);
}

/* ---- late ----------------------------------------------------------------------------------- */

static void grow_late(void)
{
    weir_time late = weir_after(110 * MS);
    soon(weir_now() > late);
}

static void a_guest_that_does_not_come_is_passed_over(void **state)
{
    (void)state;
    weir_queue *queue = make(options(1));
    visitor getter, putter;
    void *item;
    wait_item(&getter, queue);
    put(queue, 1);
    assert_int_equal(try_get(queue), WEIR_EEMPTY);
    grow_late();
    assert_int_equal(try_get(queue), WEIR_OK);
    assert_int_equal(snapshot_of(queue).getters_waiting, 1);
    assert_int_equal(take(&getter, &item), WEIR_EEMPTY); /* in line again */
    put(queue, 2);
    assert_int_equal(getter.told, 2);
    grow_late();
    assert_int_equal(weir_queue_depth(queue), 1);
    assert_int_equal(take(&getter, &item), 1); /* late, but nobody was quicker */
    assert_ptr_equal(item, number(2));

    put(queue, 3);
    wait_room(&putter, queue, 0);
    assert_int_equal(try_get(queue), WEIR_OK);
    assert_int_equal(weir_queue_put(queue, number(4), 0, WEIR_POLL), WEIR_EFULL);
    grow_late();
    put(queue, 4);
    assert_int_equal(weir_queue_put_waited(queue, number(5), &putter.pending), WEIR_EFULL);
    assert_int_equal(try_get(queue), WEIR_OK);
    assert_int_equal(weir_queue_put_waited(queue, number(5), &putter.pending), WEIR_KEPT);
    assert_int_equal(try_get(queue), WEIR_OK);

    wait_item(&getter, queue);
    put(queue, 6);
    grow_late();
    assert_int_equal(snapshot_of(queue).getters_waiting, 1);
    assert_false(weir_queue_cancel(queue, &getter.pending));
    assert_int_equal(weir_queue_wait_items(queue, 1, &getter.pending), WEIR_WAITING);
    grow_late();
    assert_int_equal(snapshot_of(queue).getters_waiting, 1); /* which passes it over */
    assert_int_equal(weir_queue_wait_items(queue, 2, &getter.pending), WEIR_WAITING);
    assert_int_equal(weir_queue_wait_items(queue, 1, &getter.pending), WEIR_OK);
    assert_int_equal(take(&getter, &item), 1);
    finish_with(queue);
}

static void a_late_guest_takes_before_one_who_waits_for_more(void **state)
{
    (void)state;
    weir_queue *queue = make(options(8));
    visitor getter, patient;
    void *item;
    wait_item(&getter, queue);
    arrive(&patient, queue);
    assert_int_equal(weir_queue_wait_items(queue, 3, &patient.pending), WEIR_WAITING);
    put(queue, 1);
    put(queue, 2);
    grow_late();
    assert_int_equal(snapshot_of(queue).getters_waiting, 2); /* which passes it over */
    assert_int_equal(take(&getter, &item), 1);
    assert_ptr_equal(item, number(1));
    put(queue, 3);
    assert_int_equal(patient.told, 0);
    put(queue, 4);
    assert_int_equal(patient.told, 1);
    assert_false(weir_queue_cancel(queue, &patient.pending)); /* it gives its turn up */
    finish_with(queue);
}

static void a_thread_behind_a_late_guest_looks_for_itself(void **state)
{
    (void)state;
    weir_queue *queue = make(options(1));
    visitor getter, putter;
    other gets = {.queue = queue, .deadline = WEIR_FOREVER};
    wait_item(&getter, queue);
    start_waiting_get(&gets);
    put(queue, 1);
    assert_int_equal(finish(&gets), WEIR_OK);
    assert_false(weir_queue_cancel(queue, &getter.pending));

    other puts = {.queue = queue, .item = number(2), .deadline = WEIR_FOREVER};
    put(queue, 1);
    wait_room(&putter, queue, 0);
    assert_int_equal(try_get(queue), WEIR_OK);
    start_waiting_put(&puts);
    assert_int_equal(finish(&puts), WEIR_KEPT);
    assert_false(weir_queue_cancel(queue, &putter.pending));
    assert_int_equal(try_get(queue), WEIR_OK);
    finish_with(queue);
}

/* ---- closing and looking -------------------------------------------------------------------- */

static void close_tells_every_guest(void **state)
{
    (void)state;
    weir_queue *queue = make(options(1));
    visitor called, in_line, getter;
    wait_item(&getter, queue);
    put(queue, 1);
    wait_room(&in_line, queue, 0);
    weir_queue_close(queue);
    assert_int_equal(in_line.told, 1);
    assert_int_equal(in_line.result, WEIR_ECLOSED);
    void *item;
    assert_int_equal(take(&getter, &item), 1); /* what was kept is still to be had */
    assert_int_equal(wait_item(&called, queue), WEIR_ECLOSED);
    assert_int_equal(wait_room(&called, queue, 0), WEIR_ECLOSED);
    assert_int_equal(called.told, 0);
    finish_with(queue);
}

static void close_calls_who_waits_for_more_than_there_will_be(void **state)
{
    (void)state;
    weir_queue *queue = make(options(8));
    visitor v, behind;
    arrive(&v, queue);
    weir_queue_wait_items(queue, 5, &v.pending);
    put(queue, 1);
    wait_item(&behind, queue);
    weir_queue_close(queue);
    assert_int_equal(v.result, WEIR_OK);
    assert_int_equal(behind.result, WEIR_ECLOSED);
    void *items[5];
    assert_int_equal(weir_queue_get_waited(queue, items, NULL, 5, &v.pending), 1);
    finish_with(queue);
}

static void what_is_left_in_a_closed_queue_is_there_for_guests(void **state)
{
    (void)state;
    weir_queue *queue = make(options(8));
    visitor v, other_one;
    put(queue, 1);
    put(queue, 2);
    weir_queue_close(queue);
    arrive(&v, queue);
    assert_int_equal(weir_queue_wait_items(queue, 5, &v.pending), WEIR_WAITING);
    assert_int_equal(v.result, WEIR_OK);
    assert_int_equal(wait_item(&other_one, queue), WEIR_ECLOSED); /* all of it is kept */
    void *items[5];
    assert_int_equal(weir_queue_get_waited(queue, items, NULL, 5, &v.pending), 2);
    assert_int_equal(wait_item(&v, queue), WEIR_ECLOSED);
    finish_with(queue);
}

static void close_ends_a_turn_to_put(void **state)
{
    (void)state;
    weir_queue *queue = make(options(1));
    visitor putter, getter;
    put(queue, 1);
    wait_room(&putter, queue, 0);
    assert_int_equal(try_get(queue), WEIR_OK);
    assert_int_equal(putter.told, 1);
    weir_queue_close(queue);
    assert_int_equal(weir_queue_put_waited(queue, number(2), &putter.pending), WEIR_ECLOSED);
    finish_with(queue);

    queue = make(options(1));
    wait_item(&getter, queue);
    put(queue, 1);
    weir_queue_close(queue);
    weir_queue_discard(queue);
    void *item;
    assert_int_equal(take(&getter, &item), WEIR_ECLOSED);
    assert_int_equal(take(&getter, &item), WEIR_EINVAL);
    finish_with(queue);
}

static void descriptors_tell_what_a_newcomer_would_find(void **state)
{
    (void)state;
    weir_queue *queue = make(options(1));
    int items = weir_queue_item_fd(queue), room = weir_queue_room_fd(queue);
    must(items >= 0 && room >= 0);
    visitor v;
    wait_item(&v, queue);
    put(queue, 1);
    assert_int_equal(try_get(queue), WEIR_EEMPTY);
    assert_false(is_readable(items));
    assert_false(weir_queue_cancel(queue, &v.pending));
    assert_true(is_readable(items));
    wait_room(&v, queue, 0);
    assert_int_equal(try_get(queue), WEIR_OK);
    assert_false(is_readable(room)); /* it is kept */
    assert_false(weir_queue_cancel(queue, &v.pending));
    assert_true(is_readable(room));
    finish_with(queue);
}

static void a_place_is_taken_once_and_where_waiting_is_the_policy(void **state)
{
    (void)state;
    weir_queue *queue = make(options(1));
    visitor v;
    arrive(&v, queue);
    assert_int_equal(weir_queue_wait_items(queue, 0, &v.pending), WEIR_EINVAL);
    v.pending.ready = NULL;
    assert_int_equal(weir_queue_wait_items(queue, 1, &v.pending), WEIR_EINVAL);
    assert_int_equal(weir_queue_wait_room(queue, 0, &v.pending), WEIR_EINVAL);
    void *item;
    wait_item(&v, queue);
    assert_int_equal(weir_queue_wait_room(queue, 0, &v.pending), WEIR_EINVAL);
    assert_int_equal(take(&v, &item), WEIR_EINVAL);
    assert_int_equal(weir_queue_put_waited(queue, number(1), &v.pending), WEIR_EINVAL);
    assert_true(weir_queue_cancel(queue, &v.pending));
    finish_with(queue);

    weir_queue_opts opts = options(1);
    opts.overflow = WEIR_OVERFLOW_DROP_NEWEST;
    queue = make(opts);
    assert_int_equal(wait_room(&v, queue, 0), WEIR_EINVAL);
    finish_with(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_is_called_when_an_item_comes),
        cmocka_unit_test(a_guest_that_comes_to_items_is_called_at_once),
        cmocka_unit_test(what_is_kept_for_a_guest_is_nobody_elses),
        cmocka_unit_test(guests_and_threads_are_served_in_the_order_they_came),
        cmocka_unit_test(a_turn_that_is_given_up_is_the_next_ones),
        cmocka_unit_test(who_leaves_the_line_is_not_called),
        cmocka_unit_test(a_turn_is_passed_on_through_any_number_of_guests),
        cmocka_unit_test(dropped_items_send_a_guest_back_into_line),
        cmocka_unit_test(an_item_that_grew_too_old_in_the_turn_is_dropped),
        cmocka_unit_test(evicting_takes_what_is_kept_as_well),
        cmocka_unit_test(a_batch_is_called_for_when_it_is_there),
        cmocka_unit_test(a_batch_is_called_for_when_no_more_can_come),
        cmocka_unit_test(who_waits_for_many_can_want_fewer_and_more),
        cmocka_unit_test(a_turn_takes_no_more_than_was_kept_when_others_wait),
        cmocka_unit_test(a_guest_is_called_when_there_is_room),
        cmocka_unit_test(kept_room_counts_in_bytes_too),
        cmocka_unit_test(room_that_is_given_up_is_the_next_ones),
        cmocka_unit_test(a_smaller_bound_sends_a_guest_back_into_line),
        cmocka_unit_test(a_guest_that_does_not_come_is_passed_over),
        cmocka_unit_test(a_late_guest_takes_before_one_who_waits_for_more),
        cmocka_unit_test(a_thread_behind_a_late_guest_looks_for_itself),
        cmocka_unit_test(close_tells_every_guest),
        cmocka_unit_test(close_calls_who_waits_for_more_than_there_will_be),
        cmocka_unit_test(what_is_left_in_a_closed_queue_is_there_for_guests),
        cmocka_unit_test(close_ends_a_turn_to_put),
        cmocka_unit_test(descriptors_tell_what_a_newcomer_would_find),
        cmocka_unit_test(a_place_is_taken_once_and_where_waiting_is_the_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
