/* queue_hooks.c - flow/queue: interruption hooks, which a waiting thread asks while it keeps its place in line. */
#include "queue_support.h"

static void put_two(void *arg)
{
    (void)arg;
    prove_claim(q_put(1, WEIR_FOREVER) == WEIR_KEPT);
    prove_claim(q_put(2, WEIR_FOREVER) == WEIR_KEPT);
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

/* ---- it ends the wait --------------------------------------------------------------------------- */

static int interrupt_perhaps(void *ctx)
{
    (void)ctx;
    return (int)prove_pick(2);
}

/* After being interrupted it comes again. */
static void get_one_at_last(void *arg)
{
    (void)arg;
    int64_t got;
    weir_set_interrupt(interrupt_perhaps, NULL);
    while ((got = q_get(WEIR_FOREVER)) == WEIR_EINTR)
        weir_set_interrupt(NULL, NULL);
    prove_claim(got > 0);
    weir_set_interrupt(NULL, NULL);
}

static void queue_interrupted_getter(void)
{
    q_make_plain(2, WEIR_OVERFLOW_BLOCK);
    Q_TOGETHER(get_one_at_last, get_one, put_two);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_interrupted_getter,
           "a getter that is interrupted has taken nothing, and passes on what it was told");

static void put_one_at_last(void *arg)
{
    (void)arg;
    int rc;
    weir_set_interrupt(interrupt_perhaps, NULL);
    while ((rc = q_put(9, WEIR_FOREVER)) == WEIR_EINTR)
        weir_set_interrupt(NULL, NULL);
    prove_claim(rc == WEIR_KEPT);
    weir_set_interrupt(NULL, NULL);
}

static void get_four(void *arg)
{
    get_two(arg);
    get_two(arg);
}

static void queue_interrupted_putter(void)
{
    q_make_plain(1, WEIR_OVERFLOW_BLOCK);
    prove_claim(q_put(17, WEIR_POLL) == WEIR_KEPT);
    Q_TOGETHER(put_one_at_last, put_two, get_four);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_interrupted_putter,
           "a putter that is interrupted keeps the item, and passes on the room");

static void drain_at_last(void *arg)
{
    (void)arg;
    weir_set_interrupt(interrupt_perhaps, NULL);
    int rc = weir_queue_drain(queue, WEIR_FOREVER);
    prove_claim(rc == WEIR_OK || rc == WEIR_EINTR);
    weir_set_interrupt(NULL, NULL);
}

static void queue_interrupted_drainer(void)
{
    q_make_plain(2, WEIR_OVERFLOW_BLOCK);
    prove_claim(q_put(17, WEIR_POLL) == WEIR_KEPT);
    Q_TOGETHER(drain_at_last, get_one);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_interrupted_drainer,
           "a drainer may be interrupted just when there is nothing left");

/* ---- it takes long ------------------------------------------------------------------------------ */

static int other;
static bool is_back; /* of the hook's thread alone */

/* A hook that comes back when the other thread has what it waits for; once. */
static int wait_for_the_other(void *ctx)
{
    (void)ctx;
    if (!is_back) {
        is_back = true;
        prove_join(other);
    }
    return 0;
}

/* First in line, and in its hook when it is hinted at. */
static void get_slowly(void *arg)
{
    (void)arg;
    is_back = false;
    weir_set_interrupt(wait_for_the_other, NULL);
    prove_claim(q_get(WEIR_FOREVER) > 0);
    weir_set_interrupt(NULL, NULL);
    if (!is_back)
        prove_join(other);
}

static void queue_getter_is_away(void)
{
    q_make_plain(2, WEIR_OVERFLOW_BLOCK);
    other = prove_spawn(get_one, NULL);
    int t = prove_spawn(get_slowly, NULL);
    put_two(NULL);
    prove_join(t);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_getter_is_away, "who is in its hook holds up nobody that stands behind it");

static void put_slowly(void *arg)
{
    (void)arg;
    is_back = false;
    weir_set_interrupt(wait_for_the_other, NULL);
    prove_claim(q_put(9, WEIR_FOREVER) == WEIR_KEPT);
    weir_set_interrupt(NULL, NULL);
    if (!is_back)
        prove_join(other);
}

static void put_first(void *arg)
{
    (void)arg;
    prove_claim(q_put(1, WEIR_FOREVER) == WEIR_KEPT);
}

/* Room for both comes at once, so that the second can be let in while the first is away. */
static void queue_putter_is_away(void)
{
    q_make_plain(2, WEIR_OVERFLOW_BLOCK);
    prove_claim(q_put(17, WEIR_POLL) == WEIR_KEPT);
    prove_claim(q_put(18, WEIR_POLL) == WEIR_KEPT);
    other = prove_spawn(put_first, NULL);
    int t = prove_spawn(put_slowly, NULL);
    get_two(NULL);
    prove_join(t);
    get_two(NULL);
    q_linearizable();
    q_end();
}

PROVE_CASE(queue_putter_is_away, "who is in its hook is let in, and so is who stands behind it");
