/* queue_spill.c - flow/queue: one line of items, the younger ones on disk. */
#include "queue_support.h"
#include "spill_support.h"

#include <string.h>

#include "base/park.h"
#include "model/fifo.h"

static weir_spill *spill;

/* An item is its number. */
static int encode(void *item, weir_record *into, void *ctx)
{
    (void)ctx;
    uint8_t value = (uint8_t)(uintptr_t)item;
    return weir_record_add(into, &value, 1);
}

static int decode(const void *data, size_t n, void **ret_item, void *ctx)
{
    (void)ctx;
    prove_claim(n == 1);
    *ret_item = (void *)(uintptr_t)*(const uint8_t *)data;
    return WEIR_OK;
}

static void begin_with(size_t capacity, bool durable, const weir_codec *codec)
{
    weir_queue_opts opts = q_options(capacity, WEIR_OVERFLOW_SPILL);
    s_make(&spill, durable);
    opts.spill = spill;
    opts.codec = codec;
    q_make(&opts);
}

static void begin(size_t capacity, bool durable)
{
    static const weir_codec codec = {.encode = encode, .decode = decode};
    begin_with(capacity, durable, &codec);
}

/* Nothing may be inside: what a durable queue leaves on disk nobody counts here. */
static void end(void)
{
    prove_same(weir_queue_depth(queue), 0);
    q_end();
    prove_same(s_look(spill).pending, 0);
    weir_spill_destroy(spill);
}

static void put_as(unsigned first, unsigned n)
{
    for (unsigned value = first; value < first + n; value++) {
        int rc = weir_queue_put(queue, (void *)(uintptr_t)value, 0, WEIR_FOREVER);
        prove_claim(rc == WEIR_KEPT);
        q_note_put(value, rc);
    }
}

static void put_three(void *arg)
{
    (void)arg;
    put_as(1, 3);
}

static void put_two_others(void *arg)
{
    (void)arg;
    put_as(9, 2);
}

static unsigned last[2]; /* of each putter, by the one getter */

static int64_t get(weir_time deadline)
{
    void *item;
    int rc = weir_queue_get(queue, &item, deadline);
    if (rc < 0)
        return rc;
    q_note_got((int64_t)(uintptr_t)item);
    return (int64_t)(uintptr_t)item;
}

static void get_in_order(int n)
{
    memset(last, 0, sizeof last);
    for (int i = 0; i < n; i++) {
        int64_t value = get(WEIR_FOREVER);
        prove_claim(value > last[value / 8]);
        last[value / 8] = (unsigned)value;
    }
}

static void get_five(void *arg)
{
    (void)arg;
    get_in_order(5);
}

static void get_two(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++)
        prove_claim(get(WEIR_FOREVER) > 0);
}

static void get_three(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++)
        prove_claim(get(WEIR_FOREVER) > 0);
}

static void queue_spills(void)
{
    begin(1 + prove_pick(2), false);
    Q_TOGETHER(put_three, put_two_others, get_five);
    end();
}

PROVE_CASE(queue_spills, "what does not fit goes through the disk, and nothing overtakes");

static void queue_spills_for_two(void)
{
    begin(1, false);
    Q_TOGETHER(put_three, put_two_others, get_two, get_three);
    end();
}

PROVE_CASE(queue_spills_for_two, "nobody waits for an item while one is on disk");

static void queue_spills_durably(void)
{
    begin(1 + prove_pick(2), true);
    Q_TOGETHER(put_three, put_two_others, get_five);
    end();
}

PROVE_CASE(queue_spills_durably,
           "what is logged first is delivered once, in order, and acknowledged");

/* ---- numbers ------------------------------------------------------------------------------------ */

static void get_and_acknowledge(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++) {
        void *item;
        uint64_t seq = 0;
        prove_claim(weir_queue_get_seq(queue, &item, NULL, &seq, WEIR_FOREVER) == WEIR_OK);
        prove_claim((uintptr_t)item == (unsigned)i + 1 && seq > 0);
        q_note_got((int64_t)(uintptr_t)item);
        weir_queue_ack(queue, seq);
    }
}

static void queue_acknowledges(void)
{
    begin(2, true);
    Q_TOGETHER(put_three, get_and_acknowledge);
    end();
}

PROVE_CASE(queue_acknowledges, "who gets an item of a durable queue can acknowledge it");

/* ---- close, discard, drain ------------------------------------------------------------------------ */

static void put_three_and_close(void *arg)
{
    put_three(arg);
    weir_queue_close(queue);
}

static void get_until_closed(void *arg)
{
    (void)arg;
    int64_t rc;
    while ((rc = get(WEIR_FOREVER)) > 0)
        continue;
    prove_claim(rc == WEIR_ECLOSED);
}

static void drain(void *arg)
{
    (void)arg;
    prove_claim(weir_queue_drain(queue, WEIR_FOREVER) == WEIR_OK);
}

static void queue_spilling_closed(void)
{
    begin(1, prove_pick(2));
    Q_TOGETHER(get_until_closed, drain, put_three_and_close);
    drain(NULL);
    end();
}

PROVE_CASE(queue_spilling_closed,
           "getters see that it is closed when the disk is empty, not before");

static void put_until_closed(void *arg)
{
    (void)arg;
    for (unsigned value = 1; value < 4; value++) {
        int rc = weir_queue_put(queue, (void *)(uintptr_t)value, 0, WEIR_FOREVER);
        prove_claim(rc == WEIR_KEPT || rc == WEIR_ECLOSED);
        q_note_put(value, rc);
    }
}

static void close_it(void *arg)
{
    (void)arg;
    weir_queue_close(queue);
}

static void queue_spilling_closed_meanwhile(void)
{
    begin(1, prove_pick(2));
    Q_TOGETHER(get_until_closed, close_it, put_until_closed);
    get_until_closed(NULL);
    end();
}

PROVE_CASE(queue_spilling_closed_meanwhile,
           "an item that is being written when it is closed is delivered");

static void discard(void *arg)
{
    (void)arg;
    weir_queue_discard(queue);
}

static void discard_and_close(void *arg)
{
    discard(arg);
    weir_queue_close(queue);
}

static void queue_spilling_discarded(void)
{
    begin(1, prove_pick(2));
    Q_TOGETHER(put_until_closed, get_until_closed, discard_and_close);
    get_until_closed(NULL);
    end();
}

PROVE_CASE(queue_spilling_discarded, "what is discarded comes back from disk, and is dropped once");

/* ---- trouble with the disk ------------------------------------------------------------------------ */

static void queue_spills_to_a_full_disk(void)
{
    begin(1, false);
    s_disk_may_fail(true);
    Q_TOGETHER(put_three, put_two_others, get_five);
    end();
}

PROVE_CASE(queue_spills_to_a_full_disk,
           "who finds no room on disk waits, in line, and comes in when there is some");

static void queue_logs_to_a_full_disk(void)
{
    begin(2, true);
    s_disk_may_fail(true);
    Q_TOGETHER(put_three, put_two_others, get_five);
    end();
}

PROVE_CASE(queue_logs_to_a_full_disk, "the same of one that logs first");

static void put_in_time(void *arg)
{
    (void)arg;
    for (unsigned value = 17; value < 19; value++) {
        int rc = weir_queue_put(queue, (void *)(uintptr_t)value, 0,
                                weir_after(50 * WEIR_MILLISECOND)); /* less than DISK_AGAIN */
        prove_claim(rc == WEIR_KEPT || rc == WEIR_ETIMEDOUT || rc == WEIR_ECLOSED);
        q_note_put(value, rc);
    }
}

static void queue_spilling_times_out(void)
{
    begin(1, false);
    s_disk_may_fail(true);
    Q_TOGETHER(put_in_time, get_until_closed, put_three_and_close);
    get_until_closed(NULL);
    end();
}

PROVE_CASE(queue_spilling_times_out,
           "who gives up waiting for the disk keeps the item, and who stood behind goes on");

/* Two records are all that the log holds. */
static int encode_large(void *item, weir_record *into, void *ctx)
{
    (void)ctx;
    unsigned char bytes[1500] = {(unsigned char)(uintptr_t)item};
    return weir_record_add(into, bytes, sizeof bytes);
}

static int decode_large(const void *data, size_t n, void **ret_item, void *ctx)
{
    (void)ctx;
    prove_claim(n == 1500);
    *ret_item = (void *)(uintptr_t)*(const uint8_t *)data;
    return WEIR_OK;
}

static void with_room_for_two_on_disk(bool durable)
{
    static const weir_codec codec = {.encode = encode_large, .decode = decode_large};
    begin_with(1, durable, &codec);
    prove_let_time_stand_still();
    weir_time begun = weir_now();
    Q_TOGETHER(put_three, put_two_others, get_five);
    prove_claim(weir_now() - begun <
                100 * WEIR_MILLISECOND); /* when it is tried again by the clock */
    end();
}

static void queue_waits_for_the_disk(void)
{
    with_room_for_two_on_disk(false);
}

PROVE_CASE(queue_waits_for_the_disk,
           "who waits for room in the log comes in as soon as there is some");

static void queue_waits_for_the_log(void)
{
    with_room_for_two_on_disk(true);
}

PROVE_CASE(queue_waits_for_the_log,
           "the same of one that logs first, where room comes by acknowledging");

/* The log is full; who waits for it and who acknowledges what is in it may miss each other. */
static void put_the_third(void *arg)
{
    (void)arg;
    put_as(3, 1);
}

static void queue_waits_for_an_acknowledgement(void)
{
    static const weir_codec codec = {.encode = encode_large, .decode = decode_large};
    void *item;
    uint64_t seq = 0;
    begin_with(4, true, &codec);
    put_as(1, 2);
    prove_claim(weir_queue_get_seq(queue, &item, NULL, &seq, WEIR_POLL) == WEIR_OK && seq > 0);
    q_note_got((int64_t)(uintptr_t)item);
    prove_let_time_stand_still();
    weir_time begun = weir_now();
    int t = prove_spawn(put_the_third, NULL);
    weir_queue_ack(queue, seq);
    prove_join(t);
    prove_claim(weir_now() - begun < 100 * WEIR_MILLISECOND);
    get_two(NULL);
    end();
}

PROVE_CASE(queue_waits_for_an_acknowledgement,
           "who finds the log full and who empties it do not miss each other");

/* It may be trying the disk just then. */
static void put_in_vain(void *arg)
{
    (void)arg;
    prove_claim(weir_queue_put(queue, (void *)2, 0, WEIR_FOREVER) == WEIR_ECLOSED);
}

static void queue_spilling_closed_in_vain(void)
{
    begin(1, false);
    put_as(1, 1);
    s_disk_is_full();
    Q_TOGETHER(put_in_vain, close_it);
    get_until_closed(NULL);
    end();
}

PROVE_CASE(queue_spilling_closed_in_vain,
           "who waits for a full disk when it is closed sees that it is closed");

static void queue_spilling_closed_when_full(void)
{
    begin(1, prove_pick(2));
    s_disk_may_fail(true);
    Q_TOGETHER(get_until_closed, close_it, put_until_closed);
    get_until_closed(NULL);
    end();
}

PROVE_CASE(queue_spilling_closed_when_full,
           "who is trying the disk when it is closed has put the item, or sees that it is closed");

/* ---- no memory ------------------------------------------------------------------------------------ */

static void put_or_fail(void *arg)
{
    (void)arg;
    for (unsigned value = 1; value < 4; value++) {
        int rc = weir_queue_put(queue, (void *)(uintptr_t)value, 0, WEIR_FOREVER);
        prove_claim(rc == WEIR_KEPT || rc == WEIR_ENOMEM);
        q_note_put(value, rc);
    }
    weir_queue_close(queue);
}

static void get_or_fail(void *arg)
{
    (void)arg;
    int64_t rc;
    while ((rc = get(WEIR_FOREVER)) > 0 || rc == WEIR_ENOMEM)
        continue;
    prove_claim(rc == WEIR_ECLOSED);
}

static void queue_spills_without_memory(void)
{
    begin(1, prove_pick(2));
    prove_allocations_may_fail(true);
    Q_TOGETHER(put_or_fail, get_or_fail);
    prove_allocations_may_fail(false);
    end();
}

PROVE_CASE(queue_spills_without_memory, "without memory a call says so, and nothing is lost");

/* The last one needs a new block of the queue. */
static void queue_logs_without_memory(void)
{
    begin(WEIR__FIFO_BLOCK + 1, true);
    unsigned value = 1;
    for (; value < WEIR__FIFO_BLOCK + 1; value++)
        prove_same(weir_queue_put(queue, (void *)(uintptr_t)value, 0, WEIR_POLL), WEIR_KEPT);
    prove_allocations_may_fail(true);
    int rc = weir_queue_put(queue, (void *)(uintptr_t)value, 0, WEIR_POLL);
    prove_allocations_may_fail(false);
    prove_claim(rc == WEIR_KEPT || rc == WEIR_ENOMEM);
    void *item;
    for (unsigned i = 1; i < value + (rc == WEIR_KEPT); i++)
        prove_same(weir_queue_get(queue, &item, WEIR_POLL), WEIR_OK);
    prove_same(s_look(spill).pending, 0);
    weir_queue_destroy(queue);
    weir_spill_destroy(spill);
}

PROVE_CASE(queue_logs_without_memory,
           "what was logged, and then found no memory, is not in the log");

/* Two of them in memory, too. */
static void queue_destroyed_with_its_log(void)
{
    begin(2, true);
    put_as(1, 3);
    weir_queue_destroy(queue);
    prove_same(s_look(spill).pending, 3);
    weir_spill_destroy(spill);
}

PROVE_CASE(queue_destroyed_with_its_log,
           "what is inside a durable queue stays in its log, and nowhere else");

/* ---- a guest -------------------------------------------------------------------------------------- */

static weir_pending pending;
static weir__parker parker;

static void be_ready(weir_pending *p, int result)
{
    (void)p;
    prove_claim(result == WEIR_OK);
    weir__unpark(&parker);
}

static void guest_gets_three(void *arg)
{
    (void)arg;
    for (int got = 0; got < 3;) {
        memset(&pending, 0, sizeof pending);
        pending.ready = be_ready;
        weir__parker_init(&parker);
        prove_claim(weir_queue_wait_items(queue, 1, &pending) == WEIR_WAITING);
        int64_t n;
        void *items[2];
        do {
            prove_claim(weir__park(&parker, WEIR_FOREVER) == WEIR_OK);
            weir__parker_init(&parker);
            n = weir_queue_get_waited(queue, items, NULL, 2, &pending);
        } while (n == WEIR_EEMPTY);
        prove_claim(n > 0);
        for (int64_t i = 0; i < n; i++)
            q_note_got((int64_t)(uintptr_t)items[i]);
        got += (int)n;
    }
}

static void queue_spills_for_a_guest(void)
{
    begin(1, prove_pick(2));
    Q_TOGETHER(guest_gets_three, put_three);
    end();
}

PROVE_CASE(queue_spills_for_a_guest, "a loop is called for what comes back from disk");

static void guest_puts_one(void *arg)
{
    (void)arg;
    memset(&pending, 0, sizeof pending);
    pending.ready = be_ready;
    weir__parker_init(&parker);
    prove_claim(weir_queue_wait_room(queue, 0, &pending) == WEIR_WAITING);
    int rc;
    do {
        prove_claim(weir__park(&parker, WEIR_FOREVER) == WEIR_OK);
        weir__parker_init(&parker);
        rc = weir_queue_put_waited(queue, (void *)9, &pending);
    } while (rc == WEIR_EFULL);
    prove_claim(rc == WEIR_KEPT);
    q_note_put(9, rc);
}

static void get_four(void *arg)
{
    (void)arg;
    for (int i = 0; i < 4; i++)
        prove_claim(get(WEIR_FOREVER) > 0);
}

static void queue_guest_spills(void)
{
    begin(1, prove_pick(2));
    s_disk_may_fail(true);
    Q_TOGETHER(guest_puts_one, put_three, get_four);
    end();
}

PROVE_CASE(queue_guest_spills,
           "a loop puts to disk, in its turn, and again when there was no room");
