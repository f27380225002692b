/* queue_control.c - flow/queue: discard, resize, drain, done, close, looking, descriptors: while others wait. */
#include "queue_support.h"

#include <poll.h>

static void put_two(void *arg)
{
    (void)arg;
    prove_claim(q_put(1, WEIR_FOREVER) == WEIR_KEPT);
    prove_claim(q_put(2, WEIR_FOREVER) == WEIR_KEPT);
}

static void put_until_closed(void *arg)
{
    (void)arg;
    for (unsigned value = 9; q_put(value, WEIR_FOREVER) == WEIR_KEPT && value < 11; value++)
        continue;
}

static void get_one(void *arg)
{
    (void)arg;
    prove_claim(q_get(WEIR_FOREVER) > 0);
}

static void get_two(void *arg)
{
    get_one(arg);
    get_one(arg);
}

static void get_until_closed(void *arg)
{
    (void)arg;
    while (q_get(WEIR_FOREVER) != WEIR_ECLOSED)
        continue;
}

/* ---- discard ---------------------------------------------------------------------------------- */

static void discard_and_close(void *arg)
{
    (void)arg;
    q_discard();
    q_discard();
    q_close();
}

static void queue_discard(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    q_put(1, WEIR_POLL);
    Q_TOGETHER(put_until_closed, get_until_closed, discard_and_close);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_discard,
           "what is discarded was inside, is dropped once, and makes room for who waits");

static void queue_discard_lets_in(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    prove_claim(q_put(17, WEIR_POLL) == WEIR_KEPT);
    int t = prove_spawn(put_two, NULL);
    q_until_waiting(1, 0);
    prove_claim(q_discard() == 1);
    get_two(NULL);
    prove_join(t);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_discard_lets_in, "who waited for room is let in by a discard");

#define BLOCK 32 /* of the fifo */

static void discard_all(void *arg)
{
    (void)arg;
    weir_queue_discard(queue);
}

static void try_to_get(void *arg)
{
    (void)arg;
    void *item;
    if (weir_queue_get(queue, &item, WEIR_POLL) == WEIR_OK)
        q_note_got((int64_t)(uintptr_t)item);
}

static void try_to_put(void *arg)
{
    (void)arg;
    q_note_put(BLOCK + 4, weir_queue_put(queue, (void *)(uintptr_t)(BLOCK + 4), 0, WEIR_POLL));
}

static void queue_discard_of_blocks(void)
{
    q_make_plain(2 * BLOCK, WEIR_OVERFLOW_BLOCK);
    for (unsigned value = 1; value < BLOCK + 4; value++)
        q_note_put(value, weir_queue_put(queue, (void *)(uintptr_t)value, 0, WEIR_POLL));
    Q_TOGETHER(discard_all, try_to_put, try_to_get, discard_all);
    q_end();
}

PROVE_CASE(queue_discard_of_blocks, "whole blocks are dropped while others put and get");

/* ---- resize ----------------------------------------------------------------------------------- */

static void make_larger(void *arg)
{
    (void)arg;
    prove_claim(q_resize(2) == WEIR_OK);
}

static void queue_resize_lets_in(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(make_larger, put_two);
    get_two(NULL);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_resize_lets_in, "who waited for room is let in when the bound grows");

static void make_smaller(void *arg)
{
    (void)arg;
    prove_claim(q_resize(1) == WEIR_OK);
}

/* Two are let in by room for two, at the most, whenever that ends. */
static void get_three(void *arg)
{
    get_two(arg);
    get_one(arg);
}

static void put_one(void *arg)
{
    (void)arg;
    prove_claim(q_put(17, WEIR_FOREVER) == WEIR_KEPT);
}

static void queue_resize_smaller(void)
{
    q_make_plain(2, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(make_smaller, put_two, put_one, get_three);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_resize_smaller, "a smaller bound holds from when it is made so");

/* Who does not fit under the new bound is let go; who stands behind comes in. */
static void put_a_large_one(void *arg)
{
    (void)arg;
    int rc = weir_queue_put(queue, (void *)1, 3, WEIR_FOREVER);
    prove_claim(rc == WEIR_ETOOBIG || rc == WEIR_KEPT);
    q_note_put(1, rc);
}

static void put_a_small_one(void *arg)
{
    (void)arg;
    int rc = weir_queue_put(queue, (void *)2, 1, WEIR_FOREVER);
    prove_claim(rc == WEIR_KEPT);
    q_note_put(2, rc);
}

static void bound_the_cost(void *arg)
{
    (void)arg;
    prove_claim(weir_queue_resize(queue, 8, 2) == WEIR_OK);
}

static void queue_resize_refuses(void)
{
    weir_queue_opts opts = q_options(8, WEIR_OVERFLOW_BLOCK);
    opts.max_cost = 3;
    q_make(&opts);
    q_note_put(9, weir_queue_put(queue, (void *)9, 1, WEIR_POLL));
    int t = prove_spawn(put_a_large_one, NULL);
    q_until_waiting(1, 0);
    int u = prove_spawn(put_a_small_one, NULL);
    bound_the_cost(NULL);
    prove_join(t);
    prove_join(u);
    q_end();
}

PROVE_CASE(queue_resize_refuses,
           "who is too big for a smaller bound waits no longer, nor does who stood behind");

/* Also one who is not the first in line. */
static void be_refused(void *arg)
{
    (void)arg;
    prove_claim(weir_queue_put(queue, (void *)1, 3, WEIR_FOREVER) == WEIR_ETOOBIG);
}

static void queue_resize_refuses_behind(void)
{
    weir_queue_opts opts = q_options(1, WEIR_OVERFLOW_BLOCK);
    opts.max_cost = 3;
    q_make(&opts);
    q_note_put(9, weir_queue_put(queue, (void *)9, 1, WEIR_POLL));
    int t = prove_spawn(put_a_small_one, NULL);
    q_until_waiting(1, 0);
    int u = prove_spawn(be_refused, NULL);
    prove_claim(weir_queue_resize(queue, 1, 2) == WEIR_OK);
    prove_join(u);
    q_get(WEIR_POLL);
    prove_join(t);
    q_end();
}

PROVE_CASE(queue_resize_refuses_behind, "who is too big is let go from the middle of the line");

/* ---- drain and done --------------------------------------------------------------------------- */

static void drain(void *arg)
{
    (void)arg;
    prove_claim(q_drain(WEIR_FOREVER) == WEIR_OK);
}

static void drain_in_time(void *arg)
{
    (void)arg;
    q_drain(weir_after(WEIR_MILLISECOND));
}

static void queue_drain(void)
{
    q_make_plain(2, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(put_two, drain, drain_in_time, get_two);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_drain, "who drains waits until nothing is inside, and no longer");

static void get_two_and_do_them(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        prove_claim(q_get(WEIR_FOREVER) > 0);
        prove_claim(q_done(1) == WEIR_OK);
    }
}

static weir_queue_opts in_flight(size_t capacity)
{
    weir_queue_opts opts = q_options(capacity, WEIR_OVERFLOW_BLOCK);
    opts.bound_in_flight = true;
    return opts;
}

static void queue_in_flight(void)
{
    weir_queue_opts opts = in_flight(1);
    q_make(&opts);
    Q_TOGETHER(put_two, get_two_and_do_them, drain);
    prove_claim(q_done(1) == WEIR_EINVAL);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_in_flight,
           "what was taken counts until it is done, for who puts and for who drains");

static void do_one_too_many(void *arg)
{
    (void)arg;
    q_done(2);
}

static void queue_in_flight_of_two(void)
{
    weir_queue_opts opts = in_flight(2);
    q_make(&opts);
    Q_TOGETHER(put_two, get_one, do_one_too_many, get_one);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_in_flight_of_two, "no more is done than was taken");

/* DROP_OLDEST cannot drop what is in flight. */
static void put_two_in_flight(void *arg)
{
    (void)arg;
    q_note_put(9, weir_queue_put(queue, (void *)9, 0, WEIR_FOREVER));
    q_note_put(10, weir_queue_put(queue, (void *)10, 0, WEIR_FOREVER));
}

static void take_and_do(void *arg)
{
    (void)arg;
    void *item;
    if (weir_queue_get(queue, &item, WEIR_POLL) != WEIR_OK)
        return;
    q_note_got((int64_t)(uintptr_t)item);
    prove_claim(weir_queue_done(queue, 1, 0) == WEIR_OK);
}

static void queue_in_flight_drop_oldest(void)
{
    weir_queue_opts opts = in_flight(1);
    opts.overflow = WEIR_OVERFLOW_DROP_OLDEST;
    q_make(&opts);
    Q_TOGETHER(put_two_in_flight, take_and_do, take_and_do);
    q_end();
}

PROVE_CASE(queue_in_flight_drop_oldest, "what is in flight is neither dropped nor overbooked");

/* ---- close ------------------------------------------------------------------------------------ */

static void close_it(void *arg)
{
    (void)arg;
    q_close();
}

static void queue_closed_twice(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(close_it, close_it, put_until_closed, get_until_closed, drain);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_closed_twice, "two close it: those who put, get and drain all come back");

/* ---- looking ---------------------------------------------------------------------------------- */

static void look_twice(void *arg)
{
    (void)arg;
    q_look();
    q_look();
}

static void queue_look(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(put_two, get_two, look_twice);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_look, "a snapshot and a depth are true at some moment, and lawful");

static void look_at_a_line(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        weir_queue_snapshot s = WEIR_QUEUE_SNAPSHOT_INIT;
        prove_claim(weir_queue_get_snapshot(queue, &s) == WEIR_OK);
        prove_claim(s.depth == 0 || s.getters_waiting == 0);
        prove_claim(s.depth == 1 || s.putters_waiting == 0);
    }
}

static void queue_lines_are_served(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(put_two, get_two, look_at_a_line);
    q_end();
}

PROVE_CASE(queue_lines_are_served, "nobody ever sees a line that could be served");

/* A depth of what a waiter has been hinted at for is none: it is served first. */
static void see_nothing_inside(void *arg)
{
    (void)arg;
    prove_claim(weir_queue_depth(queue) == 0);
}

static void queue_depth_of_a_line(void)
{
    q_make_plain(2, WEIR_OVERFLOW_BLOCK);
    int t = prove_spawn(get_one, NULL);
    q_until_waiting(0, 1);
    prove_claim(q_put(1, WEIR_POLL) == WEIR_KEPT);
    see_nothing_inside(NULL);
    prove_join(t);
    q_end();
}

PROVE_CASE(queue_depth_of_a_line, "what is for a waiter is not inside any more");

/* ---- descriptors ------------------------------------------------------------------------------ */

static void ask_twice(void *arg)
{
    (void)arg;
    q_item_is_ready();
    q_room_is_ready();
    q_item_is_ready();
}

static void put_one_and_close(void *arg)
{
    (void)arg;
    q_put(1, WEIR_FOREVER);
    q_close();
}

static void queue_descriptors(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    q_room_is_ready();
    Q_TOGETHER(put_one_and_close, ask_twice, get_one);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_descriptors, "a descriptor is readable exactly while its call would not wait");

static void poll_until_closed(void *arg)
{
    (void)arg;
    struct pollfd p = {.fd = weir_queue_item_fd(queue), .events = POLLIN};
    for (int64_t got = 0; got != WEIR_ECLOSED;) {
        prove_claim(poll(&p, 1, -1) == 1);
        got = q_get(WEIR_POLL);
        prove_claim(got != WEIR_EEMPTY); /* nobody else gets */
    }
}

static void poll_for_room(void *arg)
{
    (void)arg;
    struct pollfd p = {.fd = weir_queue_room_fd(queue), .events = POLLIN};
    for (unsigned value = 1; value < 3; value++) {
        prove_claim(poll(&p, 1, -1) == 1);
        prove_claim(q_put(value, WEIR_POLL) == WEIR_KEPT); /* nobody else puts */
    }
    q_close();
}

static void queue_polls(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(poll_until_closed, poll_for_room);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_polls, "who waits by descriptor misses nothing, and is never told too much");
