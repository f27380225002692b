/* queue_policies.c - flow/queue: what becomes of an item that does not fit, while others put and get. */
#include "queue_support.h"

static void put_three(void *arg)
{
    (void)arg;
    for (unsigned value = 1; value < 4; value++)
        q_put(value, WEIR_FOREVER);
}

static void put_two(void *arg)
{
    (void)arg;
    q_put(9, WEIR_FOREVER);
    q_put(10, WEIR_FOREVER);
}

static void try_to_get(void *arg)
{
    (void)arg;
    q_get(WEIR_POLL);
    q_get(WEIR_POLL);
}

static void get_in_time(void *arg)
{
    (void)arg;
    q_get(weir_after(WEIR_MILLISECOND));
}

static void all_at_once(weir_overflow overflow)
{
    q_make_plain(1 + prove_pick(2), overflow);
    Q_TOGETHER(put_three, put_two, get_in_time, try_to_get);
    q_linearizable();
    q_end();
}

static void queue_fail(void)
{
    all_at_once(WEIR_OVERFLOW_FAIL);
}

PROVE_CASE(queue_fail, "FAIL refuses what does not fit, and nothing else");

static void queue_drop_newest(void)
{
    all_at_once(WEIR_OVERFLOW_DROP_NEWEST);
}

PROVE_CASE(queue_drop_newest, "DROP_NEWEST drops what does not fit, once, before the put returns");

static void queue_drop_oldest(void)
{
    all_at_once(WEIR_OVERFLOW_DROP_OLDEST);
}

PROVE_CASE(queue_drop_oldest, "DROP_OLDEST drops the oldest, just as many as are in the way");

static void queue_sample(void)
{
    weir_queue_opts opts = q_options(3, WEIR_OVERFLOW_SAMPLE);
    opts.sample_keep_one_of = 2;
    opts.high_items = 1;
    q_make(&opts);
    Q_TOGETHER(put_three, put_two, try_to_get);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_sample,
           "SAMPLE keeps one of two above the high mark, and drops what does not fit");

/* ---- a memory's overflow -------------------------------------------------------------------------- */

static void overflow_two(void *arg)
{
    (void)arg;
    if (q_overflow(17) == WEIR_EVICTED)
        q_put(18, WEIR_POLL);
    q_overflow(19);
}

static void put_one_and_close(void *arg)
{
    (void)arg;
    q_put(1, WEIR_POLL);
    q_close();
}

static void queue_overflow(void)
{
    static const weir_overflow overflows[] = {WEIR_OVERFLOW_DROP_OLDEST, WEIR_OVERFLOW_DROP_NEWEST,
                                              WEIR_OVERFLOW_BLOCK, WEIR_OVERFLOW_FAIL};
    q_make_plain(2, overflows[prove_pick(4)]);
    Q_TOGETHER(overflow_two, put_one_and_close, try_to_get);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_overflow, "who has no room elsewhere gets what the policy says of the item");

/* ---- costs -------------------------------------------------------------------------------------- */

static void put_a_large_one(void *arg)
{
    (void)arg;
    prove_claim(q_put_cost(1, 3, WEIR_FOREVER) == WEIR_KEPT);
    prove_claim(q_put_cost(2, 4, WEIR_FOREVER) == WEIR_ETOOBIG);
}

static void put_small_ones(void *arg)
{
    (void)arg;
    prove_claim(q_put_cost(9, 1, WEIR_FOREVER) == WEIR_KEPT);
    prove_claim(q_put_cost(10, 1, WEIR_FOREVER) == WEIR_KEPT);
}

static void get_three(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++)
        prove_claim(q_get(WEIR_FOREVER) > 0);
}

static void with_costs(weir_overflow overflow)
{
    weir_queue_opts opts = q_options(3, overflow);
    opts.max_cost = 3;
    q_make(&opts);
}

static void queue_costs(void)
{
    with_costs(WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(put_a_large_one, put_small_ones, get_three);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_costs,
           "a large item waits until enough has left, and small ones behind it wait, too");

/* The one that takes the room out has to hint when it is enough, not before and not never. */
static void queue_cost_comes_in_pieces(void)
{
    with_costs(WEIR_OVERFLOW_BLOCK);
    for (unsigned value = 9; value < 12; value++)
        prove_claim(q_put_cost(value, 1, WEIR_POLL) == WEIR_KEPT);
    Q_TOGETHER(put_a_large_one, get_three);
    prove_claim(q_get(WEIR_POLL) == 1);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_cost_comes_in_pieces, "who waits for three is let in when the third has left");

static void put_costs(void *arg)
{
    (void)arg;
    q_put_cost(1, 1, WEIR_FOREVER);
    q_put_cost(2, 3, WEIR_FOREVER);
    q_put_cost(3, 2, WEIR_FOREVER);
}

static void put_two_costs(void *arg)
{
    (void)arg;
    q_put_cost(9, 1, WEIR_FOREVER);
    q_put_cost(10, 2, WEIR_FOREVER);
}

static void queue_costs_drop_oldest(void)
{
    with_costs(WEIR_OVERFLOW_DROP_OLDEST);
    Q_TOGETHER(put_costs, put_two_costs, try_to_get);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_costs_drop_oldest, "as many of the oldest go as the cost of the new one takes");

/* ---- no memory ---------------------------------------------------------------------------------- */

#define BLOCK 32 /* of the fifo: the put after so many needs another one */

static unsigned n_kept;

static void put_past_the_block(void *arg)
{
    (void)arg;
    for (unsigned value = BLOCK; value < BLOCK + 2; value++) {
        int rc = q_put(value, WEIR_FOREVER);
        prove_claim(rc == WEIR_KEPT || rc == WEIR_ENOMEM);
        n_kept += rc == WEIR_KEPT;
    }
}

static void get_a_few(void *arg)
{
    (void)arg;
    for (int64_t value = BLOCK - 2; value < BLOCK; value++)
        prove_claim(q_get(WEIR_FOREVER) == value);
}

static void queue_without_memory(void)
{
    n_kept = 0;
    q_make_plain(BLOCK + 8, prove_pick(2) ? WEIR_OVERFLOW_BLOCK : WEIR_OVERFLOW_DROP_OLDEST);
    for (unsigned value = 1; value < BLOCK; value++) {
        prove_claim(weir_queue_put(queue, (void *)(uintptr_t)value, 0, WEIR_POLL) == WEIR_KEPT);
        q_note_put(value, WEIR_KEPT);
    }
    for (unsigned value = 1; value < BLOCK - 2; value++) {
        void *item;
        prove_claim(weir_queue_get(queue, &item, WEIR_POLL) == WEIR_OK);
        q_note_got((int64_t)(uintptr_t)item);
    }
    prove_allocations_may_fail(true);
    Q_TOGETHER(put_past_the_block, get_a_few);
    prove_same(weir_queue_depth(queue), n_kept);
    q_end();
}

PROVE_CASE(queue_without_memory,
           "a put that finds no memory leaves the item with the caller, and no hole");
