/* queue.c - flow/queue, BLOCK: two sides, hints, lines, closing. */
#include "queue_support.h"

#include <string.h>

/* ---- waiting for ever ------------------------------------------------------------------------- */

static void put_two_as(unsigned first)
{
    prove_claim(q_put(first, WEIR_FOREVER) == WEIR_KEPT);
    prove_claim(q_put(first + 1, WEIR_FOREVER) == WEIR_KEPT);
}

static void put_two(void *arg)
{
    (void)arg;
    put_two_as(1);
}

static void put_two_others(void *arg)
{
    (void)arg;
    put_two_as(9);
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

static void queue_all_wait(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(put_two, put_two_others, get_two, get_two);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_all_wait, "two put and two get through room for one: nobody waits for ever");

static void queue_two_meet(void)
{
    q_make_plain(1 + prove_pick(2), WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(put_two, get_two);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_two_meet, "one puts and one gets, through room for one or two");

/* ---- what is published ------------------------------------------------------------------------ */

static int contents[2];

static void put_what_is_written(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        contents[i] = 42 + i;
        prove_claim(weir_queue_put(queue, &contents[i], 1, WEIR_FOREVER) == WEIR_KEPT);
    }
}

static void get_what_was_written(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        void *item = NULL;
        uint64_t cost = 0;
        prove_claim(weir_queue_get_cost(queue, &item, &cost, WEIR_FOREVER) == WEIR_OK);
        prove_claim(item == &contents[i] && *(int *)item == 42 + i && cost == 1);
    }
}

static void queue_publishes(void)
{
    weir_queue_opts opts = q_options(2, WEIR_OVERFLOW_BLOCK);
    opts.max_cost = 1 + prove_pick(2);
    memset(contents, 0, sizeof contents);
    q_make(&opts);
    Q_TOGETHER(put_what_is_written, get_what_was_written);
    weir_queue_destroy(queue);
}

PROVE_CASE(queue_publishes, "who gets an item sees what was written before it was put");

/* What is put is taken out again by who put it, when it has used what the room stands for. */
static int used;

static void use(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        void *item = NULL;
        prove_claim(weir_queue_put(queue, &used, 2, WEIR_FOREVER) == WEIR_KEPT);
        used++;
        prove_claim(weir_queue_get(queue, &item, WEIR_POLL) == WEIR_OK && item == &used);
    }
}

static void use_in_flight(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        void *item = NULL;
        prove_claim(weir_queue_put(queue, &used, 2, WEIR_FOREVER) == WEIR_KEPT);
        prove_claim(weir_queue_get(queue, &item, WEIR_POLL) == WEIR_OK && item == &used);
        used++;
        prove_claim(weir_queue_done(queue, 1, 2) == WEIR_OK);
    }
}

static void queue_as_a_lock(void)
{
    bool by_cost = prove_pick(2), in_flight = prove_pick(2);
    weir_queue_opts opts = q_options(by_cost ? 4 : 1, WEIR_OVERFLOW_BLOCK);
    opts.max_cost = by_cost ? 3 : 0;
    opts.bound_in_flight = in_flight;
    used = 0;
    q_make(&opts);
    if (in_flight)
        Q_TOGETHER(use_in_flight, use_in_flight);
    else
        Q_TOGETHER(use, use);
    prove_claim(used == 4);
    weir_queue_destroy(queue);
}

PROVE_CASE(queue_as_a_lock, "who puts sees what was done before the room was made");

/* ---- trying, and waiting for a time ------------------------------------------------------------- */

static void try_to_put(void *arg)
{
    (void)arg;
    q_put(1, WEIR_POLL);
    q_put(2, WEIR_POLL);
}

/* Those who try may take from those who wait; so nobody waits for ever only where as much comes. */
static void put_until_closed(void *arg)
{
    (void)arg;
    for (unsigned value = 9; q_put(value, WEIR_FOREVER) == WEIR_KEPT && value < 11; value++)
        continue;
}

static void get_until_closed(void *arg)
{
    (void)arg;
    while (q_get(WEIR_FOREVER) != WEIR_ECLOSED)
        continue;
}

static void try_both_and_close(void *arg)
{
    try_to_put(arg);
    q_get(WEIR_POLL);
    q_close();
}

static void queue_tries_between(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(put_until_closed, get_until_closed, try_both_and_close);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_tries_between, "who tries finds it full or empty only when it is");

static void put_in_time(void *arg)
{
    (void)arg;
    q_put(1, weir_after(WEIR_MILLISECOND));
    q_put(2, weir_after(WEIR_MILLISECOND));
}

static void put_in_time_too(void *arg)
{
    (void)arg;
    q_put(9, weir_after(WEIR_MILLISECOND));
    q_put(10, weir_after(2 * WEIR_MILLISECOND));
}

static void get_in_time(void *arg)
{
    (void)arg;
    q_get(weir_after(WEIR_MILLISECOND));
    q_get(weir_after(2 * WEIR_MILLISECOND));
}

static void queue_deadlines(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(put_in_time, put_in_time_too, get_in_time);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_deadlines, "a deadline that passes just when the turn comes loses nothing");

/* A getter whose time is over while it is hinted at: the next in line has to be told. */
static void get_in_time_once(void *arg)
{
    (void)arg;
    q_get(weir_after(WEIR_MILLISECOND));
}

static void queue_deadline_in_front(void)
{
    q_make_plain(2, WEIR_OVERFLOW_BLOCK);
    int t = prove_spawn(get_in_time_once, NULL);
    int u = prove_spawn(get_one, NULL);
    put_two(NULL);
    prove_join(t);
    prove_join(u);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_deadline_in_front, "who gives up passes on what it was hinted at for");

static int kept_in_time;

static void put_in_time_once(void *arg)
{
    (void)arg;
    kept_in_time = q_put(17, weir_after(WEIR_MILLISECOND)) == WEIR_KEPT;
}

static void queue_deadline_of_putter(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    q_put(1, WEIR_POLL);
    int t = prove_spawn(put_in_time_once, NULL);
    int u = prove_spawn(put_two_others, NULL);
    get_two(NULL);
    prove_join(t);
    if (kept_in_time)
        get_one(NULL);
    prove_join(u);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_deadline_of_putter,
           "a putter that gives up passes on the room for which it was hinted at");

/* ---- in order --------------------------------------------------------------------------------- */

static void get_the_first(void *arg)
{
    (void)arg;
    prove_claim(q_get(WEIR_FOREVER) == 1);
}

static void get_the_second(void *arg)
{
    (void)arg;
    prove_claim(q_get(WEIR_FOREVER) == 2);
}

static void queue_getters_in_order(void)
{
    q_make_plain(2, WEIR_OVERFLOW_BLOCK);
    int t = prove_spawn(get_the_first, NULL);
    q_until_waiting(0, 1);
    int u = prove_spawn(get_the_second, NULL);
    q_until_waiting(0, 2);
    put_two(NULL);
    prove_claim(q_get(WEIR_POLL) == WEIR_EEMPTY); /* never past them */
    prove_join(t);
    prove_join(u);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_getters_in_order,
           "getters are served in the order they came, never past a waiter");

static void put_second(void *arg)
{
    (void)arg;
    prove_claim(q_put(2, WEIR_FOREVER) == WEIR_KEPT);
}

static void put_third(void *arg)
{
    (void)arg;
    prove_claim(q_put(3, WEIR_FOREVER) == WEIR_KEPT);
}

static void queue_putters_in_order(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    prove_claim(q_put(1, WEIR_POLL) == WEIR_KEPT);
    int t = prove_spawn(put_second, NULL);
    q_until_waiting(1, 0);
    int u = prove_spawn(put_third, NULL);
    q_until_waiting(2, 0);
    prove_claim(q_get(WEIR_POLL) == 1);
    prove_claim(q_put(9, WEIR_POLL) == WEIR_EFULL); /* never past them */
    prove_claim(q_get(WEIR_FOREVER) == 2);
    prove_claim(q_get(WEIR_FOREVER) == 3);
    prove_join(t);
    prove_join(u);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_putters_in_order,
           "putters are served in the order they came, never past a waiter");

/* ---- closing ---------------------------------------------------------------------------------- */

static void close_it(void *arg)
{
    (void)arg;
    q_close();
}

static void queue_closed_with_waiters(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(get_until_closed, close_it, get_until_closed, put_until_closed);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_closed_with_waiters, "who waits when it is closed sees that it is closed");

static void queue_closed_when_full(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(put_until_closed, put_in_time, close_it);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_closed_when_full, "who waits for room when it is closed keeps the item");

/* ---- blocks of the fifo ----------------------------------------------------------------------- */

#define BLOCK 32 /* WEIR__FIFO_BLOCK; so the next put but one needs another */

static void put_behind(void *arg)
{
    (void)arg;
    for (unsigned value = 32; value < 35; value++)
        prove_claim(q_put(value, WEIR_FOREVER) == WEIR_KEPT);
}

static void get_all(void *arg)
{
    (void)arg;
    for (int64_t value = 31; value < 35; value++) {
        void *item = NULL;
        prove_claim(weir_queue_get(queue, &item, WEIR_FOREVER) == WEIR_OK);
        prove_same((intptr_t)item, value);
        q_note_got(value);
    }
}

/* Not in the history: one puts, so there is one order, and it is claimed. */
static void queue_blocks(void)
{
    q_make_plain(BLOCK + 8, WEIR_OVERFLOW_BLOCK);
    for (unsigned value = 1; value < BLOCK; value++)
        q_note_put(value, weir_queue_put(queue, (void *)(uintptr_t)value, 0, WEIR_POLL));
    void *item = NULL;
    for (unsigned value = 1; value < BLOCK - 1; value++) {
        prove_claim(weir_queue_get(queue, &item, WEIR_POLL) == WEIR_OK);
        prove_same((uintptr_t)item, value);
        q_note_got((int64_t)value);
    }
    Q_TOGETHER(put_behind, get_all);
    q_end();
}

PROVE_CASE(queue_blocks, "the fifo's blocks change hands while both ends are at work");
