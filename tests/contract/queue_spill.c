/* <weir/queue.h>: a queue that spills, and a durable one. */
#include "folder.h"

#include <sys/wait.h>

/* ---- a queue of numbers --------------------------------------------------------------------- */

static weir_spill *spill;
static weir_queue *queue;
static size_t encoded, decoded, released, n_dropped;
static uint64_t n_lost;
static int encode_says, decode_says;
static uintptr_t dropped[1000];

static int encode(void *item, weir_record *into, void *ctx)
{
    (void)ctx;
    encoded++;
    uintptr_t n = (uintptr_t)item;
    return encode_says < 0 ? encode_says : weir_record_add(into, &n, sizeof n);
}

static int decode(const void *data, size_t n, void **ret_item, void *ctx)
{
    (void)ctx;
    uintptr_t value;
    must(n == sizeof value);
    memcpy(&value, data, n);
    if (decode_says < 0)
        return decode_says;
    decoded++;
    *ret_item = number(value);
    return WEIR_OK;
}

static void release(void *item, void *ctx)
{
    (void)item, (void)ctx;
    released++;
}

static void lost(uint64_t n, void *ctx)
{
    (void)ctx;
    n_lost += n;
}

static const weir_codec codec = {encode, decode, release, lost, NULL};

static void on_drop(void *item, weir_drop_reason reason, void *ctx)
{
    (void)reason, (void)ctx;
    must(n_dropped < sizeof dropped / sizeof *dropped);
    dropped[n_dropped++] = (uintptr_t)item;
}

static weir_queue_opts queue_opts(size_t capacity)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = capacity;
    opts.overflow = WEIR_OVERFLOW_SPILL;
    opts.on_drop = on_drop;
    opts.spill = spill;
    opts.codec = &codec;
    return opts;
}

static void make_with(const weir_queue_opts *opts)
{
    encoded = decoded = released = n_dropped = 0;
    encode_says = decode_says = 0;
    n_lost = 0;
    must(weir_queue_create(&queue, opts) == WEIR_OK);
}

static void make(size_t capacity, uint64_t max_bytes, bool durable)
{
    spill = open_spill(max_bytes, 0, durable);
    weir_queue_opts opts = queue_opts(capacity);
    make_with(&opts);
}

static weir_queue_snapshot look(void)
{
    weir_queue_snapshot now = snapshot_of(queue);
    must(obeys_the_law(&now));
    return now;
}

static void end(void)
{
    assert_int_equal(look().dropped[WEIR_DROP_LOST], n_lost);
    weir_queue_destroy(queue);
    weir_spill_destroy(spill);
}

static void put(uintptr_t from, uintptr_t to)
{
    for (uintptr_t n = from; n <= to; n++) {
        assert_int_equal(weir_queue_put(queue, number(n), 1, WEIR_POLL), WEIR_KEPT);
        look();
    }
}

static void get(uintptr_t from, uintptr_t to)
{
    for (uintptr_t n = from; n <= to; n++) {
        void *item;
        assert_int_equal(weir_queue_get(queue, &item, WEIR_POLL), WEIR_OK);
        assert_ptr_equal(item, number(n));
        look();
    }
}

static int get_rc(void)
{
    void *item;
    return weir_queue_get(queue, &item, WEIR_POLL);
}

/* ---- order and bounds ----------------------------------------------------------------------- */

static void what_does_not_fit_goes_to_disk_and_comes_back_in_order(void **state)
{
    (void)state;
    make(10, 1 << 20, false);
    put(1, 500);
    assert_int_equal(look().depth, 10);
    assert_int_equal(look().spilled, 490);
    assert_int_equal(look().spilled_cost, 490);
    assert_int_equal(weir_queue_depth(queue), 500);
    assert_int_equal(encoded, 490);
    assert_int_equal(released, 490);
    get(1, 500);
    assert_int_equal(get_rc(), WEIR_EEMPTY);
    assert_int_equal(decoded, 490);
    assert_int_equal(look().spills, 490);
    assert_int_equal(look().unspilled, 490);
    assert_true(look().peak_depth <= 10);
    end();
}

static void later_puts_do_not_go_past_what_is_on_disk(void **state)
{
    (void)state;
    make(4, 1 << 20, false);
    uintptr_t in = 0, out = 0;
    for (int round = 0; round < 300; round++) {
        uintptr_t more = (uintptr_t)(round * 7 % 11), less = (uintptr_t)(round * 5 % 9);
        put(in + 1, in + more);
        in += more;
        less = less < in - out ? less : in - out;
        get(out + 1, out + less);
        out += less;
    }
    get(out + 1, in);
    end();
}

static void without_overflow_nothing_touches_the_disk(void **state)
{
    (void)state;
    make(100, 1 << 20, false);
    for (int i = 0; i < 50; i++) {
        put(1, 100);
        get(1, 100);
    }
    assert_int_equal(encoded + decoded + released, 0);
    assert_int_equal(log_of(spill).appended, 0);
    end();
}

static void items_come_back_in_batches_when_half_is_gone(void **state)
{
    (void)state;
    make(20, 1 << 20, false);
    put(1, 100);
    get(1, 9);
    assert_int_equal(decoded, 0);
    get(10, 10);
    assert_int_equal(decoded, 10);
    assert_int_equal(look().depth, 20);
    get(11, 100);
    end();
}

static void the_bound_on_cost_holds_for_what_comes_back(void **state)
{
    (void)state;
    spill = open_spill(1 << 20, 0, false);
    weir_queue_opts opts = queue_opts(WEIR_UNBOUNDED);
    opts.max_cost = 100;
    make_with(&opts);
    for (uintptr_t n = 1; n <= 200; n++)
        assert_int_equal(weir_queue_put(queue, number(n), n * 37 % 101, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_queue_put(queue, number(1), 101, WEIR_POLL), WEIR_ETOOBIG);
    for (uintptr_t n = 1; n <= 200; n++) {
        assert_true(look().cost <= 100);
        void *item;
        uint64_t cost;
        assert_int_equal(weir_queue_get_cost(queue, &item, &cost, WEIR_POLL), WEIR_OK);
        assert_ptr_equal(item, number(n));
        assert_int_equal(cost, n * 37 % 101);
    }
    assert_int_equal(look().spilled_cost, 0);
    end();
}

static void batches_go_to_disk_and_come_from_there(void **state)
{
    (void)state;
    make(7, 1 << 20, false);
    void *items[100];
    uint64_t costs[100];
    for (uintptr_t i = 0; i < 100; i++)
        items[i] = number(i + 1), costs[i] = i;
    assert_int_equal(weir_queue_put_many(queue, items, costs, 100, WEIR_POLL), 100);
    look();
    for (uintptr_t out = 0; out < 100;) {
        int64_t n = weir_queue_get_many(queue, items, costs, 10, WEIR_POLL, 0);
        assert_true(n > 0 && n <= 10);
        for (int64_t i = 0; i < n; i++, out++) {
            assert_ptr_equal(items[i], number(out + 1));
            assert_int_equal(costs[i], out);
        }
    }
    end();
}

static void a_smaller_bound_holds_for_what_comes_back(void **state)
{
    (void)state;
    make(20, 1 << 20, false);
    put(1, 60);
    assert_int_equal(weir_queue_resize(queue, 3, 0), WEIR_OK);
    get(1, 20);
    assert_true(look().depth <= 3);
    get(21, 40);
    assert_int_equal(weir_queue_resize(queue, 50, 0),
                     WEIR_OK); /* and a larger one brings more back */
    assert_true(look().depth > 3);
    get(41, 60);
    end();
}

static void in_flight_counts_to_the_bound_and_done_brings_more_back(void **state)
{
    (void)state;
    spill = open_spill(1 << 20, 0, false);
    weir_queue_opts opts = queue_opts(4);
    opts.bound_in_flight = true;
    make_with(&opts);
    put(1, 10);
    get(1, 4);
    assert_int_equal(get_rc(), WEIR_EEMPTY);
    assert_int_equal(weir_queue_done(queue, 4, 4), WEIR_OK);
    get(5, 8);
    assert_int_equal(weir_queue_done(queue, 4, 4), WEIR_OK);
    get(9, 10);
    assert_int_equal(weir_queue_done(queue, 2, 2), WEIR_OK);
    end();
}

/* ---- a full disk ---------------------------------------------------------------------------- */

static void a_put_waits_when_the_disk_is_full(void **state)
{
    (void)state;
    make(4, 4096, false);
    uintptr_t in = 0;
    while (weir_queue_put(queue, number(in + 1), 1, WEIR_POLL) == WEIR_KEPT)
        in++;
    assert_true(in > 20 && in < 120);
    assert_int_equal(weir_queue_put(queue, number(1), 1, weir_after(1000000)), WEIR_ETIMEDOUT);
    assert_int_equal(look().refused, 2);
    other first = {.queue = queue, .item = number(in + 1), .cost = 1, .deadline = WEIR_FOREVER};
    other second = {.queue = queue, .item = number(in + 2), .cost = 1, .deadline = WEIR_FOREVER};
    start_waiting_put(&first);
    start_waiting_put(&second);
    assert_int_equal(weir_queue_put(queue, number(1), 1, WEIR_POLL), WEIR_EFULL);
    uint64_t blocked_ns = look().put_blocked_ns;
    get(1, in);
    assert_int_equal(finish(&first), WEIR_KEPT);
    assert_int_equal(finish(&second), WEIR_KEPT);
    assert_true(look().put_blocked_ns > blocked_ns);
    get(in + 1, in + 2);
    end();
}

static void closing_lets_go_who_waits_for_the_disk(void **state)
{
    (void)state;
    make(4, 4096, false);
    uintptr_t in = 0;
    while (weir_queue_put(queue, number(in + 1), 1, WEIR_POLL) == WEIR_KEPT)
        in++;
    other waits = {.queue = queue, .item = number(99), .cost = 1, .deadline = WEIR_FOREVER};
    start_waiting_put(&waits);
    weir_queue_close(queue);
    assert_int_equal(finish(&waits), WEIR_ECLOSED);
    get(1, in);
    assert_int_equal(get_rc(), WEIR_ECLOSED);
    end();
}

/* ---- close, drain, discard ------------------------------------------------------------------ */

static void getters_see_closed_when_the_disk_is_empty_too(void **state)
{
    (void)state;
    make(3, 1 << 20, false);
    put(1, 40);
    weir_queue_close(queue);
    assert_int_equal(weir_queue_put(queue, number(41), 1, WEIR_POLL), WEIR_ECLOSED);
    for (uintptr_t n = 1; n <= 40; n++) {
        void *item;
        assert_int_equal(weir_queue_get(queue, &item, WEIR_FOREVER), WEIR_OK);
        assert_ptr_equal(item, number(n));
    }
    void *item;
    assert_int_equal(weir_queue_get(queue, &item, WEIR_FOREVER), WEIR_ECLOSED);
    end();
}

static void *drain(void *arg)
{
    must(weir_queue_drain(arg, WEIR_FOREVER) == WEIR_OK);
    return NULL;
}

static void drain_waits_for_the_disk(void **state)
{
    (void)state;
    make(3, 1 << 20, false);
    put(1, 10);
    assert_int_equal(weir_queue_drain(queue, WEIR_POLL), WEIR_ETIMEDOUT);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, drain, queue), 0);
    get(1, 10);
    pthread_join(thread, NULL);
    end();
}

static void discard_reads_what_is_on_disk_and_drops_it(void **state)
{
    (void)state;
    make(3, 1 << 20, false);
    put(1, 200);
    assert_int_equal(weir_queue_discard(queue), 200);
    assert_int_equal(n_dropped, 200);
    for (uintptr_t n = 0; n < 200; n++)
        assert_int_equal(dropped[n], n + 1);
    assert_int_equal(look().dropped[WEIR_DROP_DISCARDED], 200);
    assert_int_equal(look().spilled, 0);
    put(1, 10);
    get(1, 10);
    end();
}

static void destroying_drops_what_is_on_disk(void **state)
{
    (void)state;
    make(3, 1 << 20, false);
    put(1, 30);
    end();
    assert_int_equal(n_dropped, 30);
    assert_int_equal(files(".tmp"), 0);
}

static void the_age_goes_on_on_disk(void **state)
{
    (void)state;
    spill = open_spill(1 << 20, 0, false);
    weir_queue_opts opts = queue_opts(2);
    opts.max_age_ns = 20 * WEIR_MILLISECOND;
    make_with(&opts);
    put(1, 10);
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    assert_int_equal(get_rc(), WEIR_EEMPTY);
    assert_int_equal(look().dropped[WEIR_DROP_EXPIRED], 10);
    assert_int_equal(n_dropped, 10);
    end();
}

/* ---- waiting -------------------------------------------------------------------------------- */

static void a_waiting_getter_gets_what_comes(void **state)
{
    (void)state;
    make(2, 1 << 20, false);
    other waits = {.queue = queue, .deadline = WEIR_FOREVER};
    start_waiting_get(&waits);
    put(1, 20);
    assert_int_equal(finish(&waits), WEIR_OK);
    assert_ptr_equal(waits.item, number(1));
    get(2, 20);
    end();
}

static void item_fd_is_readable_while_items_are_there(void **state)
{
    (void)state;
    make(2, 1 << 20, false);
    int fd = weir_queue_item_fd(queue);
    put(1, 20);
    for (uintptr_t n = 1; n <= 20; n++) {
        assert_true(is_readable(fd));
        get(n, n);
    }
    assert_false(is_readable(fd));
    end();
}

static int ready_with;
static unsigned calls;

static void ready(weir_pending *pending, int result)
{
    (void)pending;
    ready_with = result;
    calls++;
}

static void a_guest_gets_what_is_on_disk(void **state)
{
    (void)state;
    make(2, 1 << 20, false);
    weir_pending guest = {.ready = ready};
    calls = 0;
    assert_int_equal(weir_queue_wait_items(queue, 5, &guest), WEIR_WAITING);
    put(1, 9);
    assert_int_equal(calls, 1);
    assert_int_equal(ready_with, WEIR_OK);
    weir_queue_close(queue);
    for (uintptr_t out = 0; out < 9;) {
        void *items[4];
        int64_t n = weir_queue_get_waited(queue, items, NULL, 4, &guest);
        assert_true(n > 0);
        for (int64_t i = 0; i < n; i++)
            assert_ptr_equal(items[i], number(++out));
        guest = (weir_pending){.ready = ready};
        int rc = weir_queue_wait_items(queue, 1, &guest);
        assert_int_equal(rc, out < 9 ? WEIR_WAITING : WEIR_ECLOSED);
    }
    end();
}

static void a_guest_waits_for_room_on_disk(void **state)
{
    (void)state;
    make(2, 4096, false);
    uintptr_t in = 0;
    while (weir_queue_put(queue, number(in + 1), 1, WEIR_POLL) == WEIR_KEPT)
        in++;
    weir_pending guest = {.ready = ready};
    calls = 0;
    assert_int_equal(weir_queue_wait_room(queue, 1, &guest), WEIR_WAITING);
    uintptr_t out = 0;
    int rc = WEIR_EFULL;
    while (rc == WEIR_EFULL) {
        unsigned before = calls;
        while (calls == before && out < in)
            get(out + 1, out + 1), out++;
        assert_true(calls > before);
        rc = weir_queue_put_waited(queue, number(in + 1), &guest);
    }
    assert_int_equal(rc, WEIR_KEPT);
    get(out + 1, in + 1);
    end();
}

/* ---- the codec ------------------------------------------------------------------------------ */

static void an_item_that_cannot_be_encoded_stays_with_the_caller(void **state)
{
    (void)state;
    make(2, 1 << 20, false);
    put(1, 2);
    encode_says = WEIR_ESHED;
    assert_int_equal(weir_queue_put(queue, number(3), 1, WEIR_FOREVER), WEIR_ESHED);
    encode_says = 0;
    assert_int_equal(look().accepted, 2);
    assert_int_equal(released, 0);
    put(3, 5);
    get(1, 5);
    end();
}

static void an_item_that_cannot_be_decoded_is_lost_and_counted(void **state)
{
    (void)state;
    make(2, 1 << 20, false);
    put(1, 6);
    decode_says = WEIR_EINVAL;
    get(1, 2);
    assert_int_equal(get_rc(), WEIR_EEMPTY);
    assert_int_equal(look().dropped[WEIR_DROP_LOST], 4);
    assert_int_equal(look().dropped_cost[WEIR_DROP_LOST], 4);
    assert_int_equal(n_dropped, 0);
    decode_says = 0;
    put(7, 12);
    get(7, 12);
    end();
}

static void a_codec_without_memory_is_asked_again(void **state)
{
    (void)state;
    make(2, 1 << 20, false);
    put(1, 6);
    decode_says = WEIR_ENOMEM;
    get(1, 2);
    assert_int_equal(get_rc(), WEIR_ENOMEM);
    void *item;
    assert_int_equal(weir_queue_get(queue, &item, WEIR_FOREVER), WEIR_ENOMEM);
    decode_says = 0;
    get(3, 6);
    end();
}

static void what_is_damaged_on_disk_is_lost_and_counted(void **state)
{
    (void)state;
    char path[512];
    make(2, 1 << 20, false);
    put(1, 20);
    each_file(".tmp", note_path, path);
    damage(path, 24 + 3 * 48 + 40);
    get(1, 5);
    get(7, 20);
    assert_int_equal(get_rc(), WEIR_EEMPTY);
    assert_int_equal(look().dropped[WEIR_DROP_LOST], 1);
    assert_int_equal(look().dropped_cost[WEIR_DROP_LOST], 1);
    end();
}

static void a_file_that_is_gone_does_not_hang_the_queue(void **state)
{
    (void)state;
    make(2, 1 << 20, false);
    put(1, 20);
    each_file(".tmp", remove_path, NULL);
    weir_queue_close(queue);
    get(1, 2);
    void *item;
    assert_int_equal(weir_queue_get(queue, &item, WEIR_FOREVER), WEIR_ECLOSED);
    assert_int_equal(look().dropped[WEIR_DROP_LOST], 18);
    assert_int_equal(look().dropped_cost[WEIR_DROP_LOST], 18);
    end();
}

static void options_that_do_not_go_together_are_refused(void **state)
{
    (void)state;
    spill = open_spill(4096, 0, false);
    weir_codec half = {.encode = encode};
    for (int i = 0; i < 4; i++) {
        weir_queue_opts opts = queue_opts(2);
        if (i == 0)
            opts.spill = NULL;
        if (i == 1)
            opts.codec = NULL;
        if (i == 2)
            opts.codec = &half;
        if (i == 3)
            opts.overflow = WEIR_OVERFLOW_BLOCK;
        assert_int_equal(weir_queue_create(&queue, &opts), WEIR_EINVAL);
    }
    weir_spill_destroy(spill);
}

/* ---- durable -------------------------------------------------------------------------------- */

static void reopen(size_t capacity)
{
    end();
    make(capacity, 1 << 20, true);
}

static void a_durable_queue_goes_on_after_a_restart(void **state)
{
    (void)state;
    make(5, 1 << 20, true);
    put(1, 50);
    get(1, 10);
    reopen(5);
    assert_int_equal(n_dropped, 0);
    assert_int_equal(look().recovered, 40);
    assert_int_equal(look().accepted, 40);
    put(51, 60);
    get(11, 30);
    reopen(100);
    get(31, 60);
    assert_int_equal(get_rc(), WEIR_EEMPTY);
    reopen(5);
    assert_int_equal(look().recovered, 0);
    end();
    assert_int_equal(files(".seg") + files(".ack"), 0);
}

static void what_is_in_memory_is_not_read_back(void **state)
{
    (void)state;
    make(10, 1 << 20, true);
    for (uintptr_t round = 0; round < 50; round++) {
        put(round * 10 + 1, round * 10 + 10);
        get(round * 10 + 1, round * 10 + 10);
    }
    assert_int_equal(encoded, 500);
    assert_int_equal(decoded, 0);
    put(1, 30);
    get(1, 30);
    assert_int_equal(decoded, 20);
    assert_int_equal(log_of(spill).pending, 0);
    end();
}

static void an_item_got_by_its_number_stays_until_it_is_acknowledged(void **state)
{
    (void)state;
    uint64_t seqs[20];
    make(5, 1 << 20, true);
    put(1, 20);
    for (uintptr_t n = 0; n < 20; n++) {
        void *item;
        uint64_t cost;
        assert_int_equal(weir_queue_get_seq(queue, &item, &cost, &seqs[n], WEIR_POLL), WEIR_OK);
        assert_ptr_equal(item, number(n + 1));
        assert_int_equal(cost, 1);
        assert_true(seqs[n] > 0);
    }
    assert_int_equal(get_rc(), WEIR_EEMPTY);
    assert_int_equal(log_of(spill).pending, 20);
    for (uintptr_t n = 19; n < 20; n -= 2)
        weir_queue_ack(queue, seqs[n]);
    weir_queue_ack(queue, 0);
    reopen(5);
    for (uintptr_t n = 1; n <= 19; n += 2)
        get(n, n);
    assert_int_equal(get_rc(), WEIR_EEMPTY);
    end();
}

static void without_a_durable_log_there_is_no_number(void **state)
{
    (void)state;
    make(1, 1 << 20, false);
    put(1, 2);
    for (uintptr_t n = 1; n <= 2; n++) {
        void *item;
        uint64_t seq = 9;
        assert_int_equal(weir_queue_get_seq(queue, &item, NULL, &seq, WEIR_POLL), WEIR_OK);
        assert_ptr_equal(item, number(n));
        assert_int_equal(seq, 0);
        weir_queue_ack(queue, seq);
    }
    end();
}

static void what_is_dropped_is_not_delivered_after_a_restart(void **state)
{
    (void)state;
    make(5, 1 << 20, true);
    put(1, 20);
    assert_int_equal(weir_queue_discard(queue), 20);
    put(21, 22);
    reopen(5);
    get(21, 22);
    assert_int_equal(get_rc(), WEIR_EEMPTY);
    end();
}

static void a_durable_queue_waits_when_its_log_is_full(void **state)
{
    (void)state;
    make(1000, 4096, true);
    uintptr_t in = 0;
    while (weir_queue_put(queue, number(in + 1), 1, WEIR_POLL) == WEIR_KEPT)
        in++;
    assert_true(in > 20 && in < 120);
    assert_int_equal(look().spilled, 0);
    other waits = {.queue = queue, .item = number(in + 1), .cost = 1, .deadline = WEIR_FOREVER};
    start_waiting_put(&waits);
    get(1, in); /* acknowledged: room in the log */
    assert_int_equal(finish(&waits), WEIR_KEPT);
    get(in + 1, in + 1);
    end();
}

static void recovered_items_obey_the_law_while_they_come_back(void **state)
{
    (void)state;
    make(3, 1 << 20, true);
    put(1, 40);
    reopen(7);
    weir_queue_close(queue);
    get(1, 40);
    assert_int_equal(look().delivered_cost, 40);
    assert_int_equal(get_rc(), WEIR_ECLOSED);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(what_does_not_fit_goes_to_disk_and_comes_back_in_order),
        IN_FOLDER(later_puts_do_not_go_past_what_is_on_disk),
        IN_FOLDER(without_overflow_nothing_touches_the_disk),
        IN_FOLDER(items_come_back_in_batches_when_half_is_gone),
        IN_FOLDER(the_bound_on_cost_holds_for_what_comes_back),
        IN_FOLDER(batches_go_to_disk_and_come_from_there),
        IN_FOLDER(a_smaller_bound_holds_for_what_comes_back),
        IN_FOLDER(in_flight_counts_to_the_bound_and_done_brings_more_back),
        IN_FOLDER(a_put_waits_when_the_disk_is_full),
        IN_FOLDER(closing_lets_go_who_waits_for_the_disk),
        IN_FOLDER(getters_see_closed_when_the_disk_is_empty_too),
        IN_FOLDER(drain_waits_for_the_disk),
        IN_FOLDER(discard_reads_what_is_on_disk_and_drops_it),
        IN_FOLDER(destroying_drops_what_is_on_disk),
        IN_FOLDER(the_age_goes_on_on_disk),
        IN_FOLDER(a_waiting_getter_gets_what_comes),
        IN_FOLDER(item_fd_is_readable_while_items_are_there),
        IN_FOLDER(a_guest_gets_what_is_on_disk),
        IN_FOLDER(a_guest_waits_for_room_on_disk),
        IN_FOLDER(an_item_that_cannot_be_encoded_stays_with_the_caller),
        IN_FOLDER(an_item_that_cannot_be_decoded_is_lost_and_counted),
        IN_FOLDER(a_codec_without_memory_is_asked_again),
        IN_FOLDER(what_is_damaged_on_disk_is_lost_and_counted),
        IN_FOLDER(a_file_that_is_gone_does_not_hang_the_queue),
        IN_FOLDER(options_that_do_not_go_together_are_refused),
        IN_FOLDER(a_durable_queue_goes_on_after_a_restart),
        IN_FOLDER(what_is_in_memory_is_not_read_back),
        IN_FOLDER(an_item_got_by_its_number_stays_until_it_is_acknowledged),
        IN_FOLDER(without_a_durable_log_there_is_no_number),
        IN_FOLDER(what_is_dropped_is_not_delivered_after_a_restart),
        IN_FOLDER(a_durable_queue_waits_when_its_log_is_full),
        IN_FOLDER(recovered_items_obey_the_law_while_they_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
