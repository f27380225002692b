/* queue_guests.c - flow/queue: places in line that no thread waits in, beside threads; given up, late, or never used. */
#include "queue_support.h"

#include <stdatomic.h>
#include <string.h>

#include "base/park.h"

/* A loop with one guest in it: told by `ready` that its turn has come. */
typedef struct guest {
    weir_pending pending; /* first */
    weir__parker parker;
    int result;
} guest;

static guest guests[2];

static void be_ready(weir_pending *pending, int result)
{
    guest *g = (guest *)(void *)pending;
    g->result = result;
    weir__unpark(&g->parker);
}

/* So that it can come into line. */
static void begin(guest *g)
{
    weir__parker_init(&g->parker);
    memset(&g->pending, 0, sizeof g->pending);
    g->pending.ready = be_ready;
}

static int sleep_until_ready(guest *g)
{
    prove_claim(weir__park(&g->parker, WEIR_FOREVER) == WEIR_OK);
    return g->result;
}

static void make(size_t capacity)
{
    q_make_plain(capacity, WEIR_OVERFLOW_BLOCK);
    begin(&guests[0]);
    begin(&guests[1]);
}

/* Waits and puts: KEPT, or the error that ended it. */
static int put_as(guest *g, unsigned value, uint64_t cost)
{
    int rc = weir_queue_wait_room(queue, cost, &g->pending);
    while (rc == WEIR_WAITING && (rc = sleep_until_ready(g)) == WEIR_OK) {
        weir__parker_init(&g->parker);
        rc = weir_queue_put_waited(queue, (void *)(uintptr_t)value, &g->pending);
        q_note_put(value, rc);
        if (rc == WEIR_EFULL)
            rc = WEIR_WAITING;
    }
    return rc;
}

/* Waits for n and gets up to max: how many, or the error that ended it. */
static int64_t get_as(guest *g, size_t n, size_t max)
{
    void *items[4];
    uint64_t costs[4];
    int64_t rc = weir_queue_wait_items(queue, n, &g->pending);
    while (rc == WEIR_WAITING && (rc = sleep_until_ready(g)) == WEIR_OK) {
        weir__parker_init(&g->parker);
        rc = weir_queue_get_waited(queue, items, costs, max, &g->pending);
        if (rc == WEIR_EEMPTY) {
            rc = WEIR_WAITING;
            continue;
        }
        for (int64_t i = 0; i < rc; i++)
            q_note_got((int64_t)(uintptr_t)items[i]);
        return rc;
    }
    return rc;
}

/* ---- threads beside them ------------------------------------------------------------------------ */

static void put(unsigned value)
{
    int rc = weir_queue_put(queue, (void *)(uintptr_t)value, 0, WEIR_FOREVER);
    prove_claim(rc == WEIR_KEPT);
    q_note_put(value, rc);
}

static void get(void)
{
    void *item;
    prove_claim(weir_queue_get(queue, &item, WEIR_FOREVER) == WEIR_OK);
    q_note_got((int64_t)(uintptr_t)item);
}

static void put_one(void *arg)
{
    (void)arg;
    put(1);
}

static void put_two(void *arg)
{
    (void)arg;
    put(1);
    put(2);
}

static void get_one(void *arg)
{
    (void)arg;
    get();
}

static void get_two(void *arg)
{
    (void)arg;
    get();
    get();
}

static void close_it(void *arg)
{
    (void)arg;
    weir_queue_close(queue);
}

/* ---- putting and getting ------------------------------------------------------------------------ */

static void guest_puts_two(void *arg)
{
    (void)arg;
    prove_claim(put_as(&guests[0], 9, 0) == WEIR_KEPT);
    begin(&guests[0]);
    prove_claim(put_as(&guests[0], 10, 0) == WEIR_KEPT);
}

static void guest_gets_two(void *arg)
{
    (void)arg;
    for (int got = 0; got < 2;) {
        begin(&guests[1]);
        int64_t n = get_as(&guests[1], 1, 2 - (size_t)got);
        prove_claim(n > 0);
        got += (int)n;
    }
}

static void queue_guests_meet(void)
{
    make(1);
    Q_TOGETHER(guest_puts_two, guest_gets_two);
    q_end();
}

PROVE_CASE(queue_guests_meet, "two loops hand over items through room for one");

static void queue_guests_and_threads(void)
{
    make(1);
    Q_TOGETHER(guest_puts_two, guest_gets_two, put_two, get_two);
    q_end();
}

PROVE_CASE(queue_guests_and_threads,
           "loops and threads stand in one line, and nobody waits for ever");

static void guest_puts_one(void *arg)
{
    (void)arg;
    prove_claim(put_as(&guests[0], 9, 0) == WEIR_KEPT);
}

static void guest_gets_one(void *arg)
{
    (void)arg;
    prove_claim(get_as(&guests[1], 1, 1) == 1);
}

/* Room that is kept is nobody else's: the threads behind it get theirs when it was used. */
static void queue_guest_puts_first(void)
{
    make(1);
    Q_TOGETHER(guest_puts_one, put_two, get_two, get_one);
    q_end();
}

PROVE_CASE(queue_guest_puts_first,
           "a loop puts among threads, through the short ways of the others");

static void queue_guest_gets_first(void)
{
    make(2);
    Q_TOGETHER(guest_gets_one, get_one, put_two);
    q_end();
}

PROVE_CASE(queue_guest_gets_first,
           "a loop gets among threads, through the short ways of the others");

/* ---- many at once ------------------------------------------------------------------------------- */

static void guest_wants_two(void *arg)
{
    (void)arg;
    int64_t n = get_as(&guests[1], 2, 2);
    prove_claim(n > 0);
    if (n == 1)
        get();
}

static void queue_guest_wants_two(void)
{
    make(1 + prove_pick(2));
    Q_TOGETHER(guest_wants_two, put_two);
    q_end();
}

PROVE_CASE(queue_guest_wants_two,
           "a loop that waits for two is called for one where no second one fits");

static void guest_wants_two_or_less(void *arg)
{
    (void)arg;
    int64_t n = get_as(&guests[1], 2, 4);
    prove_claim(n == 1);
}

static void put_one_and_close(void *arg)
{
    (void)arg;
    put(1);
    weir_queue_close(queue);
}

static void queue_guest_wants_more_than_comes(void)
{
    make(4);
    Q_TOGETHER(guest_wants_two_or_less, put_one_and_close);
    q_end();
}

PROVE_CASE(queue_guest_wants_more_than_comes,
           "a loop that waits for two is called for one when it is closed");

/* Content with one, once it waits for two; it may have been called meanwhile. */
static void guest_wants_less_after_all(void *arg)
{
    (void)arg;
    void *item;
    guest *g = &guests[1];
    prove_claim(weir_queue_wait_items(queue, 2, &g->pending) == WEIR_WAITING);
    int rc = weir_queue_wait_items(queue, 1, &g->pending);
    prove_claim(rc == WEIR_WAITING || rc == WEIR_OK);
    int64_t n = 0;
    do {
        prove_claim(sleep_until_ready(g) == WEIR_OK);
        weir__parker_init(&g->parker);
        n = weir_queue_get_waited(queue, &item, NULL, 1, &g->pending);
    } while (n == WEIR_EEMPTY || n == WEIR_EINVAL);
    prove_claim(n == 1);
    q_note_got((int64_t)(uintptr_t)item);
}

static void queue_guest_changes_its_mind(void)
{
    make(3);
    Q_TOGETHER(guest_wants_less_after_all, put_one);
    q_end();
}

PROVE_CASE(queue_guest_changes_its_mind, "a loop that waits for two takes one instead");

/* ---- what is kept ------------------------------------------------------------------------------- */

static void find_nothing(void *arg)
{
    (void)arg;
    void *item;
    prove_claim(weir_queue_get(queue, &item, WEIR_POLL) == WEIR_EEMPTY);
}

/* One item, and the loop came first: nobody else gets it, by whatever way. */
static void queue_guest_has_the_item(void)
{
    void *item;
    make(2);
    prove_claim(weir_queue_wait_items(queue, 1, &guests[1].pending) == WEIR_WAITING);
    int t = prove_spawn(find_nothing, NULL);
    put(1);
    prove_claim(sleep_until_ready(&guests[1]) == WEIR_OK);
    find_nothing(NULL);
    prove_claim(weir_queue_get_waited(queue, &item, NULL, 1, &guests[1].pending) == 1);
    q_note_got((int64_t)(uintptr_t)item);
    prove_join(t);
    q_end();
}

PROVE_CASE(queue_guest_has_the_item, "an item that is kept for a loop is nobody else's");

static void find_no_room(void *arg)
{
    (void)arg;
    prove_claim(weir_queue_put(queue, (void *)2, 0, WEIR_POLL) == WEIR_EFULL);
}

static void queue_guest_has_the_room(void)
{
    make(1);
    put(17);
    prove_claim(weir_queue_wait_room(queue, 0, &guests[0].pending) == WEIR_WAITING);
    int t = prove_spawn(find_no_room, NULL);
    get();
    prove_claim(sleep_until_ready(&guests[0]) == WEIR_OK);
    find_no_room(NULL);
    prove_claim(weir_queue_put_waited(queue, (void *)9, &guests[0].pending) == WEIR_KEPT);
    q_note_put(9, WEIR_KEPT);
    prove_join(t);
    get();
    q_end();
}

PROVE_CASE(queue_guest_has_the_room, "room that is kept for a loop is nobody else's");

static void fill_with(unsigned value)
{
    prove_claim(weir_queue_put(queue, (void *)(uintptr_t)value, 3, WEIR_POLL) == WEIR_KEPT);
    q_note_put(value, WEIR_KEPT);
}

/* By its cost, too; and whichever way its turn was over. */
static void queue_guest_needs_its_room_no_more(void)
{
    weir_queue_opts opts = q_options(4, WEIR_OVERFLOW_BLOCK);
    opts.max_cost = 3;
    q_make(&opts);
    begin(&guests[0]);
    fill_with(1);
    prove_claim(weir_queue_wait_room(queue, 2, &guests[0].pending) == WEIR_WAITING);
    int t = prove_spawn(get_one, NULL);
    prove_claim(sleep_until_ready(&guests[0]) == WEIR_OK);
    prove_join(t);
    if (prove_pick(2)) {
        prove_claim(!weir_queue_cancel(queue, &guests[0].pending));
    } else {
        prove_claim(weir_queue_put_waited(queue, (void *)9, &guests[0].pending) == WEIR_KEPT);
        q_note_put(9, WEIR_KEPT);
        get();
    }
    fill_with(2);
    get();
    q_end();
}

PROVE_CASE(queue_guest_needs_its_room_no_more, "room that was kept for a loop is there again");

/* There is room for a second item, but not for the one that waits. */
static void put_two_costly(void *arg)
{
    (void)arg;
    for (unsigned value = 1; value < 3; value++) {
        prove_claim(weir_queue_put(queue, (void *)(uintptr_t)value, 2, WEIR_FOREVER) == WEIR_KEPT);
        q_note_put(value, WEIR_KEPT);
    }
}

static void queue_guest_wants_two_costly(void)
{
    weir_queue_opts opts = q_options(4, WEIR_OVERFLOW_BLOCK);
    opts.max_cost = 3;
    q_make(&opts);
    begin(&guests[1]);
    Q_TOGETHER(guest_wants_two, put_two_costly);
    q_end();
}

PROVE_CASE(queue_guest_wants_two_costly,
           "a loop that waits for two is called for one when somebody waits to put");

/* ---- giving up ---------------------------------------------------------------------------------- */

/* What it came for is for the next one in line: it has taken or put nothing. */
static void guest_gives_up_getting(void *arg)
{
    (void)arg;
    if (weir_queue_wait_items(queue, 1, &guests[1].pending) != WEIR_WAITING)
        prove_fail("it is not closed");
    if (!weir_queue_cancel(queue, &guests[1].pending))
        prove_claim(sleep_until_ready(&guests[1]) == WEIR_OK);
}

static void queue_guest_gives_up_getting(void)
{
    make(1);
    Q_TOGETHER(guest_gives_up_getting, get_two, put_two);
    q_end();
}

PROVE_CASE(queue_guest_gives_up_getting, "a loop that gives up its turn passes the item on");

static void guest_gives_up_putting(void *arg)
{
    (void)arg;
    if (weir_queue_wait_room(queue, 0, &guests[0].pending) != WEIR_WAITING)
        prove_fail("it is not closed");
    if (!weir_queue_cancel(queue, &guests[0].pending))
        prove_claim(sleep_until_ready(&guests[0]) == WEIR_OK);
}

static void queue_guest_gives_up_putting(void)
{
    make(1);
    Q_TOGETHER(guest_gives_up_putting, put_two, get_two);
    q_end();
}

PROVE_CASE(queue_guest_gives_up_putting, "a loop that gives up its turn passes the room on");

/* Cancelled by one thread, while another one is calling it. */
static atomic_bool was_ready;

static void be_ready_or_not(weir_pending *pending, int result)
{
    (void)pending, (void)result;
    atomic_store(&was_ready, true);
}

static void queue_guest_is_cancelled_once(void)
{
    make(1);
    guests[1].pending.ready = be_ready_or_not;
    atomic_store(&was_ready, false);
    prove_claim(weir_queue_wait_items(queue, 1, &guests[1].pending) == WEIR_WAITING);
    int t = prove_spawn(put_one, NULL);
    bool waited = weir_queue_cancel(queue, &guests[1].pending);
    prove_join(t);
    prove_claim(waited != atomic_load(&was_ready));
    get();
    q_end();
}

PROVE_CASE(queue_guest_is_cancelled_once, "a place that is given up was called, or will never be");

/* ---- late --------------------------------------------------------------------------------------- */

static int other;

/* It has its turn, and does not come before the thread behind it has got an item. */
static void guest_comes_late(void *arg)
{
    (void)arg;
    void *item;
    guest *g = &guests[1];
    prove_claim(sleep_until_ready(g) == WEIR_OK);
    weir__parker_init(&g->parker);
    prove_join(other);
    int64_t n;
    while ((n = weir_queue_get_waited(queue, &item, NULL, 1, &g->pending)) == WEIR_EEMPTY) {
        prove_claim(sleep_until_ready(g) == WEIR_OK);
        weir__parker_init(&g->parker);
    }
    prove_claim(n == 1);
    q_note_got((int64_t)(uintptr_t)item);
}

static void queue_guest_comes_late(void)
{
    make(1 + prove_pick(2));
    prove_claim(weir_queue_wait_items(queue, 1, &guests[1].pending) == WEIR_WAITING);
    other = prove_spawn(get_one, NULL);
    int t = prove_spawn(guest_comes_late, NULL);
    put_two(NULL);
    prove_join(t);
    q_end();
}

PROVE_CASE(queue_guest_comes_late, "a loop that stands still holds up nobody behind it");

static void put_three(void *arg)
{
    (void)arg;
    for (unsigned value = 17; value < 20; value++)
        put(value);
}

/* It is late, and who waits behind it waits for two. */
static void queue_guest_comes_late_before_a_batch(void)
{
    make(4);
    guest *late = &guests[1], *patient = &guests[0];
    void *items[2];
    prove_claim(weir_queue_wait_items(queue, 1, &late->pending) == WEIR_WAITING);
    prove_claim(weir_queue_wait_items(queue, 2, &patient->pending) == WEIR_WAITING);
    int t = prove_spawn(put_three, NULL);
    prove_claim(sleep_until_ready(late) == WEIR_OK);
    weir__parker nobody;
    weir__parker_init(&nobody);
    weir__park(&nobody, weir_after(110 * WEIR_MILLISECOND));
    weir__parker_init(&late->parker);
    int64_t n = weir_queue_get_waited(queue, items, NULL, 1, &late->pending);
    if (n == 1)
        q_note_got((int64_t)(uintptr_t)items[0]);
    else
        prove_claim(n == WEIR_EEMPTY && sleep_until_ready(late) == WEIR_OK);
    if (n == WEIR_EEMPTY)
        weir_queue_cancel(queue, &late->pending);
    prove_claim(sleep_until_ready(patient) == WEIR_OK);
    prove_claim(weir_queue_get_waited(queue, items, NULL, 2, &patient->pending) == 2);
    q_note_got((int64_t)(uintptr_t)items[0]);
    q_note_got((int64_t)(uintptr_t)items[1]);
    prove_join(t);
    if (n == WEIR_EEMPTY)
        get();
    q_end();
}

PROVE_CASE(queue_guest_comes_late_before_a_batch,
           "what is there while others wait for more is its");

static void guest_puts_late(void *arg)
{
    (void)arg;
    guest *g = &guests[0];
    prove_claim(sleep_until_ready(g) == WEIR_OK);
    weir__parker_init(&g->parker);
    prove_join(other);
    int rc;
    while ((rc = weir_queue_put_waited(queue, (void *)9, &g->pending)) == WEIR_EFULL) {
        prove_claim(sleep_until_ready(g) == WEIR_OK);
        weir__parker_init(&g->parker);
    }
    prove_claim(rc == WEIR_KEPT);
    q_note_put(9, rc);
}

static void queue_guest_puts_late(void)
{
    make(1);
    put(17);
    prove_claim(weir_queue_wait_room(queue, 0, &guests[0].pending) == WEIR_WAITING);
    other = prove_spawn(put_one, NULL);
    int t = prove_spawn(guest_puts_late, NULL);
    get_two(NULL);
    get();
    prove_join(t);
    q_end();
}

PROVE_CASE(queue_guest_puts_late,
           "room that is kept for a loop that stands still is given to who waits behind");

/* ---- what happens meanwhile ---------------------------------------------------------------------- */

static void guest_gets_or_sees_closed(void *arg)
{
    (void)arg;
    int64_t n = get_as(&guests[1], 1, 1);
    prove_claim(n == 1 || n == WEIR_ECLOSED);
}

static void guest_puts_or_sees_closed(void *arg)
{
    (void)arg;
    int rc = put_as(&guests[0], 9, 0);
    prove_claim(rc == WEIR_KEPT || rc == WEIR_ECLOSED);
}

static void queue_guests_closed(void)
{
    make(1);
    put(1);
    Q_TOGETHER(guest_gets_or_sees_closed, guest_puts_or_sees_closed, close_it);
    q_end();
}

PROVE_CASE(queue_guests_closed, "a loop that waits when it is closed is told, or has had its turn");

static void discard_and_close(void *arg)
{
    (void)arg;
    weir_queue_discard(queue);
    weir_queue_close(queue);
}

/* After a close nobody puts: so it closes when they have put. */
static void put_two_discard_and_close(void *arg)
{
    put_two(arg);
    discard_and_close(arg);
}

static void queue_guest_and_discard(void)
{
    make(2);
    Q_TOGETHER(guest_gets_or_sees_closed, put_two_discard_and_close);
    q_end();
}

PROVE_CASE(queue_guest_and_discard,
           "what is kept for a loop may be dropped: it is told, and waits again");

static void make_smaller_and_larger(void *arg)
{
    (void)arg;
    prove_claim(weir_queue_resize(queue, 1, 0) == WEIR_OK);
    prove_claim(weir_queue_resize(queue, 2, 0) == WEIR_OK);
}

/* The third needs room: somebody gets. */
static void get_three(void *arg)
{
    get_two(arg);
    get_one(arg);
}

static void queue_guest_in_a_smaller_bound(void)
{
    make(2);
    put(17);
    Q_TOGETHER(guest_puts_one, put_one, make_smaller_and_larger, get_three);
    q_end();
}

PROVE_CASE(queue_guest_in_a_smaller_bound, "a loop whose room is gone waits again, first in line");
