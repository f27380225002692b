/* queue_batches.c - flow/queue: many at once, each as if put or got alone, in order. */
#include "queue_support.h"

static void put_three(void *arg)
{
    (void)arg;
    prove_claim(q_put_many(1, 3, WEIR_FOREVER) == 3);
}

static void put_three_others(void *arg)
{
    (void)arg;
    prove_claim(q_put_many(9, 3, WEIR_FOREVER) == 3);
}

static void get_six(void *arg)
{
    (void)arg;
    for (int64_t got = 0; got < 6;) {
        int64_t n = q_get_many(got < 5 ? 2 : 1, WEIR_FOREVER, 0);
        prove_claim(n > 0);
        got += n;
    }
}

static void queue_batches(void)
{
    q_make_plain(1 + prove_pick(2), WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(put_three, put_three_others, get_six);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_batches, "batches larger than the queue go through it, in order");

static void get_one(void *arg)
{
    (void)arg;
    prove_claim(q_get(WEIR_FOREVER) > 0);
}

static void get_two_lingering(void *arg)
{
    (void)arg;
    prove_claim(q_get_many(2, WEIR_FOREVER, WEIR_SECOND) > 0);
}

/* Of three items the batch may get one or two: what is left is got here. */
static void queue_lingering(void)
{
    q_make_plain(3, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(get_two_lingering, get_one, put_three);
    q_get(WEIR_POLL);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_lingering, "a batch that waits for more keeps what it has, and holds up nobody");

static void put_both(void *arg)
{
    (void)arg;
    q_put_many(1, 2, weir_after(WEIR_SECOND));
}

static void get_both_in_time(void *arg)
{
    (void)arg;
    q_get_many(2, weir_after(WEIR_SECOND), WEIR_MILLISECOND);
}

static void queue_batches_in_time(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(put_both, get_both_in_time, get_both_in_time);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_batches_in_time, "a batch whose time is over has what it says");

static void close_it(void *arg)
{
    (void)arg;
    q_close();
}

static void put_until_closed(void *arg)
{
    (void)arg;
    q_put_many(1, 4, WEIR_FOREVER);
}

static void get_until_closed(void *arg)
{
    (void)arg;
    while (q_get_many(3, WEIR_FOREVER, WEIR_MILLISECOND) != WEIR_ECLOSED)
        continue;
}

static void queue_batches_closed(void)
{
    q_make_plain(2, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(put_until_closed, get_until_closed, close_it);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_batches_closed, "a batch that is cut short by a close says how many were taken");

static void put_four_dropping(void *arg)
{
    (void)arg;
    q_put_many(1, 4, WEIR_POLL);
}

static void put_one_more(void *arg)
{
    (void)arg;
    q_put(9, WEIR_POLL);
}

static void try_to_get(void *arg)
{
    (void)arg;
    q_get_many(2, WEIR_POLL, 0);
}

static void queue_batches_by_policy(void)
{
    static const weir_overflow overflows[] = {WEIR_OVERFLOW_FAIL, WEIR_OVERFLOW_DROP_NEWEST};
    q_make_plain(2, overflows[prove_pick(2)]);
    Q_TOGETHER(put_four_dropping, put_one_more, try_to_get);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_batches_by_policy, "the policy is asked of each item of a batch");

static void queue_batches_drop_oldest(void)
{
    q_make_plain(2, WEIR_OVERFLOW_DROP_OLDEST);
    Q_TOGETHER(put_four_dropping, put_one_more, try_to_get);
    q_end();
}

PROVE_CASE(queue_batches_drop_oldest,
           "a batch may drop its own first items, and each is dropped once");

/* Nobody gets afterwards: so the batch has to tell who waits that there is room. */
static void put_one(void *arg)
{
    (void)arg;
    prove_claim(q_put(9, WEIR_FOREVER) == WEIR_KEPT);
}

static void queue_batch_makes_room(void)
{
    q_make_plain(2, WEIR_OVERFLOW_BLOCK);
    prove_claim(q_put_many(1, 2, WEIR_POLL) == 2);
    int t = prove_spawn(put_one, NULL);
    int64_t n = q_get_many(2, WEIR_POLL, 0);
    prove_claim(n == 2);
    prove_join(t);
    prove_claim(q_get(WEIR_POLL) == 9);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_batch_makes_room, "a batch that makes room tells who waits for it");
