/* queue_age.c - flow/queue: items that grow too old, at the moment they are got. */
#include "queue_support.h"

/* Time goes on at each look at the clock, by 100 ns, and by what is waited for. */
static void make(size_t capacity, int64_t max_age_ns)
{
    weir_queue_opts opts = q_options(capacity, WEIR_OVERFLOW_BLOCK);
    opts.max_age_ns = max_age_ns;
    q_make(&opts);
}

static void put_three(void *arg)
{
    (void)arg;
    for (unsigned value = 1; value < 4; value++)
        prove_claim(q_put(value, WEIR_FOREVER) == WEIR_KEPT);
}

static void put_and_close(void *arg)
{
    put_three(arg);
    q_close();
}

static void get_until_closed(void *arg)
{
    (void)arg;
    while (q_get(WEIR_FOREVER) != WEIR_ECLOSED)
        continue;
}

static void queue_ages(void)
{
    make(1 + prove_pick(2), 300 + 300 * prove_pick(3));
    Q_TOGETHER(put_and_close, get_until_closed, get_until_closed);
    q_end();
}

PROVE_CASE(queue_ages,
           "an item is delivered, or dropped because it is too old; who waits to put comes in");

static void get_a_batch_until_closed(void *arg)
{
    (void)arg;
    while (q_get_many(2, WEIR_FOREVER, WEIR_MILLISECOND) != WEIR_ECLOSED)
        continue;
}

static void try_to_get(void *arg)
{
    (void)arg;
    q_get(WEIR_POLL);
    q_get(weir_after(WEIR_MILLISECOND));
}

static void queue_ages_in_batches(void)
{
    make(2, 500);
    Q_TOGETHER(put_and_close, get_a_batch_until_closed, try_to_get);
    q_end();
}

PROVE_CASE(queue_ages_in_batches,
           "a batch, or a try, meets items that are too old and goes past them");

/* All that is inside is too old, so the getter needs what the putter behind it brings: neither may wait for the
 * other. */
static void put_one(void *arg)
{
    (void)arg;
    prove_claim(q_put(2, WEIR_FOREVER) == WEIR_KEPT);
}

static void queue_ages_with_a_putter_behind(void)
{
    make(1, 1000);
    prove_claim(q_put(1, WEIR_POLL) == WEIR_KEPT);
    int t = prove_spawn(put_one, NULL);
    q_until_waiting(1, 0);
    for (int i = 0; i < 20; i++)
        weir_now();
    prove_claim(q_get(WEIR_POLL) == 2);
    prove_join(t);
    q_end();
}

PROVE_CASE(queue_ages_with_a_putter_behind,
           "a try that meets nothing but old items takes the fresh one of who waits");

/* A getter that waits gets what is put at once: nothing grows old beside it. */
static void get_fresh(void *arg)
{
    (void)arg;
    prove_claim(q_get(WEIR_FOREVER) > 0);
}

static void queue_ages_never_past_a_getter(void)
{
    make(2, 1000);
    int t = prove_spawn(get_fresh, NULL);
    q_until_waiting(0, 1);
    prove_claim(q_put(1, WEIR_POLL) == WEIR_KEPT);
    for (int i = 0; i < 20; i++)
        weir_now();
    prove_join(t);
    q_end();
}

PROVE_CASE(queue_ages_never_past_a_getter, "an item does not grow old while somebody waits for it");
