/* What <weir/shared_queue.h> promises to those who are not killed (tests/fault has the others). */
#include "support.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/shared_queue.h>

static weir_shared_queue *make_with(const weir_shared_queue_opts *opts)
{
    weir_shared_queue *queue = NULL;
    must(weir_shared_queue_create(&queue, opts) == WEIR_OK);
    return queue;
}

static weir_shared_queue *make(size_t capacity, uint64_t max_bytes, weir_overflow overflow)
{
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    opts.capacity = capacity;
    opts.max_bytes = max_bytes;
    opts.overflow = overflow;
    return make_with(&opts);
}

static int put(weir_shared_queue *queue, uint32_t tag, size_t size, weir_time deadline)
{
    static const char zeros[4096];
    must(size <= sizeof zeros);
    weir_message m = {zeros, size, tag};
    return weir_shared_queue_put(queue, &m, deadline);
}

/* The tag, or an error. */
static int64_t get(weir_shared_queue *queue, weir_time deadline)
{
    weir_buffer buffer = {0};
    weir_message m;
    int rc = weir_shared_queue_get(queue, &m, &buffer, deadline);
    weir_buffer_free(&buffer);
    return rc < 0 ? rc : (int64_t)m.tag;
}

static weir_shared_queue_snapshot look(const weir_shared_queue *queue)
{
    weir_shared_queue_snapshot now = WEIR_SHARED_QUEUE_SNAPSHOT_INIT;
    must(weir_shared_queue_get_snapshot(queue, &now) == WEIR_OK);
    return now;
}

static void end(weir_shared_queue *queue)
{
    weir_shared_queue_snapshot now = look(queue);
    must(now.accepted == now.delivered + total(now.dropped) + now.depth);
    must(now.accepted_bytes == now.delivered_bytes + total(now.dropped_bytes) + now.bytes);
    must(now.putters_waiting == 0 && now.getters_waiting == 0 && now.recovered == 0);
    weir_shared_queue_destroy(queue);
}

/* A put or get on a thread of its own. */
typedef struct call {
    weir_shared_queue *queue;
    bool puts;
    uint32_t tag;
    size_t size;
    weir_time deadline;
    weir_interrupt_fn *hook;
    void *ctx;
    int64_t result;
    pthread_t thread;
} call;

static void *run(void *arg)
{
    call *c = arg;
    weir_set_interrupt(c->hook, c->ctx);
    c->result = c->puts ? put(c->queue, c->tag, c->size, c->deadline) : get(c->queue, c->deadline);
    return NULL;
}

static size_t waiting(const call *c)
{
    return c->puts ? look(c->queue).putters_waiting : look(c->queue).getters_waiting;
}

/* Returns when it waits in line. */
static void start(call *c)
{
    size_t before = waiting(c);
    must(pthread_create(&c->thread, NULL, run, c) == 0);
    soon(waiting(c) == before + 1);
}

static int64_t join(call *c)
{
    pthread_join(c->thread, NULL);
    return c->result;
}

/* ---- messages ------------------------------------------------------------------------------- */

static void a_message_comes_out_as_it_went_in(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(10, 4 << 20, WEIR_OVERFLOW_BLOCK);
    static unsigned char bytes[1 << 20];
    static const size_t sizes[] = {0, 1, 15, 16, 17, 4096, 65519, 65520, 65521, 65536, 1 << 20};
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7 + (i >> 9));
    weir_buffer buffer = {0};
    for (size_t round = 0; round < 20; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            weir_message in = {bytes, sizes[i], UINT32_MAX - (uint32_t)i}, out;
            assert_int_equal(weir_shared_queue_put(queue, &in, WEIR_POLL), WEIR_KEPT);
            assert_int_equal(weir_shared_queue_get(queue, &out, &buffer, WEIR_POLL), WEIR_OK);
            assert_int_equal(out.tag, in.tag);
            assert_int_equal(out.size, in.size);
            assert_true(in.size == 0 || memcmp(out.data, bytes, in.size) == 0);
            assert_int_equal((uintptr_t)out.data % 16, 0);
        }
    }
    weir_buffer_free(&buffer);
    end(queue);
}

/* A message of all bytes that there may be, and later the most messages: wherever they lie in the memory, which comes
 * in pieces of 64 KiB, and whatever is left of 16 bytes by each. */
static void what_the_bounds_allow_is_taken_wherever_it_lies(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 4; n++) {
        for (size_t size = 1; size <= 49; size += 16) {
            weir_shared_queue *queue = make(n, n * size, WEIR_OVERFLOW_FAIL);
            for (size_t round = 0; round < 2 * 65536 / size / n; round++) {
                for (size_t i = 0; i < n; i++)
                    assert_int_equal(put(queue, (uint32_t)i, size, WEIR_POLL), WEIR_KEPT);
                assert_int_equal(put(queue, 0, 1, WEIR_POLL), WEIR_EFULL);
                for (size_t i = 0; i < n; i++)
                    assert_int_equal(get(queue, WEIR_POLL), i);
            }
            end(queue);
        }
    }
}

static void messages_leave_in_the_order_they_were_accepted(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(3000, 0, WEIR_OVERFLOW_BLOCK);
    weir_message in[2000], out[2000];
    uint32_t numbers[2000];
    for (uint32_t i = 0; i < 2000; i++) {
        numbers[i] = i;
        in[i] = (weir_message){&numbers[i], sizeof numbers[i], i};
    }
    weir_buffer buffer = {0};
    for (int round = 0; round < 10; round++) {
        assert_int_equal(weir_shared_queue_put_many(queue, in, 2000, WEIR_POLL), 2000);
        assert_int_equal(weir_shared_queue_get_many(queue, out, 500, &buffer, WEIR_POLL, 0), 500);
        for (uint32_t i = 0; i < 500; i++)
            assert_true(out[i].tag == i && *(const uint32_t *)out[i].data == i);
        assert_int_equal(weir_shared_queue_get_many(queue, out, 2000, &buffer, WEIR_POLL, 0), 1500);
        for (uint32_t i = 0; i < 1500; i++)
            assert_true(out[i].tag == 500 + i && *(const uint32_t *)out[i].data == 500 + i);
    }
    weir_buffer_free(&buffer);
    assert_int_equal(look(queue).peak_depth, 2000);
    end(queue);
}

/* ---- options -------------------------------------------------------------------------------- */

static void an_option_out_of_range_is_refused(void **state)
{
    (void)state;
    const weir_shared_queue_opts good = {.size = sizeof good, .capacity = 1};
    weir_shared_queue_opts bad[8];
    for (size_t i = 0; i < 8; i++)
        bad[i] = good;
    bad[0].size--;
    bad[1].capacity = 0;
    bad[2].capacity = (size_t)INT32_MAX + 1;
    bad[3].max_bytes = (UINT64_C(1) << 46) + 1;
    bad[4].max_age_ns = -1;
    bad[5].overflow = (weir_overflow)5;
    bad[6].sample_keep_one_of = 1;
    bad[7].overflow = (weir_overflow)-1;
    for (size_t i = 0; i < 8; i++) {
        weir_shared_queue *queue = NULL;
        assert_int_equal(weir_shared_queue_create(&queue, &bad[i]), WEIR_EINVAL);
        assert_null(queue);
    }
    end(make_with(&good));
}

static void bytes_have_a_default_bound(void **state)
{
    (void)state;
    weir_shared_queue *small = make(10, 0, WEIR_OVERFLOW_BLOCK);
    weir_shared_queue *large = make(100000, 0, WEIR_OVERFLOW_BLOCK);
    assert_int_equal(look(small).max_bytes, 64 << 20);
    assert_int_equal(look(large).max_bytes, 100000 * 1024);
    end(small);
    end(large);
}

/* ---- bounds and policies -------------------------------------------------------------------- */

static void a_message_above_the_bound_is_refused_by_every_policy(void **state)
{
    (void)state;
    for (int policy = WEIR_OVERFLOW_BLOCK; policy <= WEIR_OVERFLOW_SAMPLE; policy++) {
        weir_shared_queue *queue = make(10, 100, (weir_overflow)policy);
        assert_int_equal(put(queue, 1, 101, WEIR_FOREVER), WEIR_ETOOBIG);
        assert_int_equal(put(queue, 1, 100, WEIR_FOREVER), WEIR_KEPT);
        assert_int_equal(look(queue).refused, 1);
        end(queue);
    }
}

/* Compares a random run of operations with the queue of threads: each result, each snapshot. */
static void compare(weir_overflow overflow, size_t capacity, uint64_t max_bytes)
{
    weir_shared_queue *shared = make(capacity, max_bytes, overflow);
    weir_queue *plain;
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = capacity;
    opts.max_cost = max_bytes;
    opts.overflow = overflow;
    opts.on_drop = weir_drop_ignore;
    must(weir_queue_create(&plain, &opts) == WEIR_OK);

    uint64_t random = 88172645463325252u + (uint64_t)overflow;
    for (uint32_t n = 1; n <= 20000; n++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t size = random >> 8 & 63;
        unsigned what = random & 127;
        void *item;
        if (what < 70) {
            int rc = weir_queue_put(plain, number(n), size, WEIR_POLL);
            must(put(shared, n, size, WEIR_POLL) == rc);
        } else if (what < 126) {
            int rc = weir_queue_get(plain, &item, WEIR_POLL);
            must(get(shared, WEIR_POLL) == (rc < 0 ? rc : (int64_t)(uintptr_t)item));
        } else {
            must(weir_shared_queue_discard(shared) == (int64_t)weir_queue_discard(plain));
        }
        weir_queue_snapshot a = snapshot_of(plain);
        weir_shared_queue_snapshot b = look(shared);
        must(a.depth == b.depth && a.cost == b.bytes && a.accepted == b.accepted);
        must(a.delivered == b.delivered && a.refused == b.refused && a.peak_depth == b.peak_depth);
        must(memcmp(a.dropped, b.dropped, sizeof a.dropped) == 0);
        must(memcmp(a.dropped_cost, b.dropped_bytes, sizeof a.dropped_cost) == 0);
        must(overflow != WEIR_OVERFLOW_SAMPLE || a.above_high == b.above_high);
        must(weir_shared_queue_depth(shared) == b.depth);
    }
    weir_queue_destroy(plain);
    end(shared);
}

static void every_policy_decides_as_in_the_queue_of_threads(void **state)
{
    (void)state;
    for (int policy = WEIR_OVERFLOW_BLOCK; policy <= WEIR_OVERFLOW_SAMPLE; policy++) {
        compare((weir_overflow)policy, 8, 1 << 20);
        compare((weir_overflow)policy, 1000, 200);
        compare((weir_overflow)policy, 20, 500);
        compare((weir_overflow)policy, 1, 63);
    }
}

static void a_put_many_evicts_what_it_has_just_put(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(3, 0, WEIR_OVERFLOW_DROP_OLDEST);
    weir_message in[1000];
    for (uint32_t i = 0; i < 1000; i++)
        in[i] = (weir_message){"x", 1, i};
    assert_int_equal(weir_shared_queue_put_many(queue, in, 1000, WEIR_POLL), 1000);
    assert_int_equal(look(queue).dropped[WEIR_DROP_OLDEST], 997);
    for (int64_t n = 997; n < 1000; n++)
        assert_int_equal(get(queue, WEIR_POLL), n);
    end(queue);
}

static void messages_that_are_too_old_are_dropped_when_their_turn_comes(void **state)
{
    (void)state;
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    opts.capacity = 10;
    opts.max_age_ns = 20 * WEIR_MILLISECOND;
    weir_shared_queue *queue = make_with(&opts);
    for (uint32_t n = 1; n <= 5; n++)
        assert_int_equal(put(queue, n, 10, WEIR_POLL), WEIR_KEPT);
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    assert_int_equal(get(queue, WEIR_POLL), WEIR_EEMPTY);
    assert_int_equal(look(queue).dropped[WEIR_DROP_EXPIRED], 5);
    assert_int_equal(look(queue).dropped_bytes[WEIR_DROP_EXPIRED], 50);
    assert_int_equal(put(queue, 6, 10, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(get(queue, WEIR_POLL), 6);
    end(queue);
}

static void expiry_makes_room_for_who_waits(void **state)
{
    (void)state;
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    opts.capacity = 1;
    opts.max_age_ns = 20 * WEIR_MILLISECOND;
    weir_shared_queue *queue = make_with(&opts);
    assert_int_equal(put(queue, 1, 1, WEIR_POLL), WEIR_KEPT);
    call putter = {.queue = queue, .puts = true, .tag = 2, .deadline = WEIR_FOREVER};
    start(&putter);
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    int64_t got = get(queue, weir_after(PATIENCE)); /* may come too late for 2 as well */
    assert_int_equal(join(&putter), WEIR_KEPT);
    assert_int_equal(got, 2);
    end(queue);
}

/* ---- deadlines ------------------------------------------------------------------------------ */

static void a_call_that_may_not_wait_says_why_it_cannot(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(1, 0, WEIR_OVERFLOW_BLOCK);
    weir_time soon_over = weir_after(20 * WEIR_MILLISECOND);
    assert_int_equal(get(queue, WEIR_POLL), WEIR_EEMPTY);
    assert_int_equal(get(queue, WEIR_PROBE), WEIR_EEMPTY);
    assert_int_equal(get(queue, soon_over), WEIR_ETIMEDOUT);
    assert_true(weir_now() >= soon_over);
    assert_int_equal(put(queue, 1, 1, WEIR_PROBE), WEIR_KEPT);
    assert_int_equal(put(queue, 1, 1, WEIR_PROBE), WEIR_EFULL);
    assert_int_equal(look(queue).refused, 0); /* a probe is not counted */
    assert_int_equal(put(queue, 1, 1, WEIR_POLL), WEIR_EFULL);
    soon_over = weir_after(20 * WEIR_MILLISECOND);
    assert_int_equal(put(queue, 1, 1, soon_over), WEIR_ETIMEDOUT);
    assert_true(weir_now() >= soon_over);
    assert_int_equal(look(queue).refused, 2);
    assert_true(look(queue).put_blocked_ns > 0 && look(queue).get_blocked_ns > 0);
    end(queue);
}

static int say_no(void *ctx)
{
    return atomic_load((atomic_bool *)ctx);
}

static void the_hook_ends_a_wait_and_nothing_happened(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(1, 0, WEIR_OVERFLOW_BLOCK);
    atomic_bool no = false;
    call getter = {.queue = queue, .deadline = WEIR_FOREVER, .hook = say_no, .ctx = &no};
    start(&getter);
    no = true;
    assert_int_equal(join(&getter), WEIR_EINTR);
    no = false;
    assert_int_equal(put(queue, 1, 1, WEIR_POLL), WEIR_KEPT);
    call putter = getter;
    putter.puts = true;
    start(&putter);
    no = true;
    assert_int_equal(join(&putter), WEIR_EINTR);
    assert_int_equal(look(queue).accepted, 1);
    assert_int_equal(get(queue, WEIR_POLL), 1);
    end(queue);
}

/* ---- waiting -------------------------------------------------------------------------------- */

static void waiters_get_their_turn_in_the_order_they_came(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(1, 0, WEIR_OVERFLOW_BLOCK);
    call getters[8], putters[8];
    for (int i = 0; i < 8; i++) {
        getters[i] = (call){.queue = queue, .deadline = WEIR_FOREVER};
        start(&getters[i]);
    }
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(put(queue, i, 1, weir_after(PATIENCE)), WEIR_KEPT);
        assert_int_equal(join(&getters[i]), i);
    }
    assert_int_equal(put(queue, 99, 1, WEIR_POLL), WEIR_KEPT);
    for (uint32_t i = 0; i < 8; i++) {
        putters[i] = (call){.queue = queue, .puts = true, .tag = i, .deadline = WEIR_FOREVER};
        start(&putters[i]);
    }
    assert_int_equal(get(queue, WEIR_POLL), 99);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(join(&putters[i]), WEIR_KEPT);
        assert_int_equal(get(queue, WEIR_POLL), i);
    }
    end(queue);
}

static void a_later_try_leaves_a_waiter_the_room_it_waits_for(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(10, 100, WEIR_OVERFLOW_BLOCK);
    assert_int_equal(put(queue, 1, 60, WEIR_POLL), WEIR_KEPT);
    call putter = {.queue = queue, .puts = true, .tag = 2, .size = 90, .deadline = WEIR_FOREVER};
    start(&putter);
    assert_int_equal(put(queue, 3, 1, WEIR_POLL), WEIR_EFULL); /* the large one is ahead */
    assert_int_equal(get(queue, WEIR_POLL), 1);
    assert_int_equal(put(queue, 3, 11, WEIR_POLL),
                     WEIR_EFULL); /* whether or not it is in already */
    assert_int_equal(join(&putter), WEIR_KEPT);
    assert_int_equal(put(queue, 3, 10, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(get(queue, WEIR_POLL), 2);
    end(queue);
}

static void a_put_many_goes_on_as_room_comes(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(3, 0, WEIR_OVERFLOW_BLOCK);
    call getter = {.queue = queue, .deadline = WEIR_FOREVER};
    weir_message in[6];
    for (uint32_t i = 0; i < 6; i++)
        in[i] = (weir_message){"x", 1, i};
    start(&getter);
    weir_time until = weir_after(50 * WEIR_MILLISECOND);
    assert_int_equal(weir_shared_queue_put_many(queue, in, 6, until), 4);
    assert_int_equal(join(&getter), 0);
    assert_int_equal(weir_shared_queue_put_many(queue, in, 6, WEIR_POLL), WEIR_EFULL);
    assert_int_equal(weir_shared_queue_put_many(queue, in, 0, WEIR_POLL), 0);
    for (int64_t i = 1; i < 4; i++)
        assert_int_equal(get(queue, WEIR_POLL), i);
    end(queue);
}

static void a_batch_lingers_for_more(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(1, 0, WEIR_OVERFLOW_BLOCK);
    weir_buffer buffer = {0};
    weir_message out[3];
    call putters[2];
    assert_int_equal(put(queue, 0, 8, WEIR_POLL), WEIR_KEPT);
    for (uint32_t i = 0; i < 2; i++) {
        putters[i] =
            (call){.queue = queue, .puts = true, .tag = i + 1, .size = 8, .deadline = WEIR_FOREVER};
        start(&putters[i]);
    }
    assert_int_equal(weir_shared_queue_get_many(queue, out, 3, &buffer, WEIR_POLL, PATIENCE), 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(out[i].tag == i && out[i].size == 8);
    for (int i = 0; i < 2; i++)
        join(&putters[i]);
    weir_time since = weir_now();
    assert_int_equal(put(queue, 7, 8, WEIR_POLL), WEIR_KEPT);
    int64_t n =
        weir_shared_queue_get_many(queue, out, 3, &buffer, WEIR_POLL, 20 * WEIR_MILLISECOND);
    assert_int_equal(n, 1);
    assert_true(weir_now() - since >= 20 * WEIR_MILLISECOND);
    assert_int_equal(weir_shared_queue_get_many(queue, out, 0, &buffer, WEIR_POLL, 0), WEIR_EINVAL);
    weir_buffer_free(&buffer);
    end(queue);
}

/* ---- closing -------------------------------------------------------------------------------- */

static void close_releases_everybody_and_what_is_inside_can_be_taken(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(1, 0, WEIR_OVERFLOW_BLOCK);
    call getters[4], putters[4];
    for (int i = 0; i < 4; i++) {
        getters[i] = (call){.queue = queue, .deadline = WEIR_FOREVER};
        start(&getters[i]);
    }
    assert_int_equal(weir_shared_queue_close(queue), WEIR_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(join(&getters[i]), WEIR_ECLOSED);
    end(queue);

    queue = make(1, 0, WEIR_OVERFLOW_BLOCK);
    assert_int_equal(put(queue, 5, 1, WEIR_POLL), WEIR_KEPT);
    for (int i = 0; i < 4; i++) {
        putters[i] = (call){.queue = queue, .puts = true, .deadline = WEIR_FOREVER};
        start(&putters[i]);
    }
    assert_int_equal(weir_shared_queue_close(queue), WEIR_OK);
    assert_int_equal(weir_shared_queue_close(queue), WEIR_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(join(&putters[i]), WEIR_ECLOSED);
    assert_int_equal(put(queue, 6, 1, WEIR_FOREVER), WEIR_ECLOSED);
    assert_int_equal(get(queue, WEIR_FOREVER), 5);
    assert_int_equal(get(queue, WEIR_FOREVER), WEIR_ECLOSED);
    assert_true(look(queue).closed);
    end(queue);
}

static void discard_lets_waiting_putters_in(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(1, 0, WEIR_OVERFLOW_BLOCK);
    assert_int_equal(put(queue, 1, 3, WEIR_POLL), WEIR_KEPT);
    call putter = {.queue = queue, .puts = true, .tag = 2, .deadline = WEIR_FOREVER};
    start(&putter);
    assert_int_equal(weir_shared_queue_discard(queue), 1);
    assert_int_equal(join(&putter), WEIR_KEPT);
    assert_int_equal(get(queue, WEIR_POLL), 2);
    assert_int_equal(weir_shared_queue_discard(queue), 0);
    assert_int_equal(look(queue).dropped_bytes[WEIR_DROP_DISCARDED], 3);
    end(queue);
}

/* ---- handles -------------------------------------------------------------------------------- */

static void two_handles_are_one_queue(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(10, 0, WEIR_OVERFLOW_BLOCK), *second = NULL;
    int fd = dup(weir_shared_queue_fd(queue));
    assert_int_equal(weir_shared_queue_attach(&second, fd), WEIR_OK);
    assert_int_equal(close(fd), 0); /* it was ours */
    assert_true(fcntl(weir_shared_queue_fd(second), F_GETFD) & FD_CLOEXEC);
    assert_int_equal(put(queue, 1, 100, WEIR_POLL), WEIR_KEPT);
    weir_shared_queue_destroy(queue);
    assert_int_equal(look(second).depth, 1);
    assert_int_equal(get(second, WEIR_POLL), 1);
    end(second);
    weir_shared_queue_destroy(NULL);
}

static void a_child_and_its_parent_hand_messages_to_each_other(void **state)
{
    (void)state;
    weir_shared_queue *there = make(4, 0, WEIR_OVERFLOW_BLOCK);
    weir_shared_queue *back = make(4, 0, WEIR_OVERFLOW_BLOCK);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        for (int64_t n; (n = get(there, WEIR_FOREVER)) >= 0;)
            must(put(back, (uint32_t)n + 1, 0, WEIR_FOREVER) == WEIR_KEPT);
        must(weir_shared_queue_close(back) == WEIR_OK);
        _exit(0);
    }
    for (uint32_t n = 0; n < 1000; n++) {
        assert_int_equal(put(there, n, 0, weir_after(PATIENCE)), WEIR_KEPT);
        assert_int_equal(get(back, weir_after(PATIENCE)), n + 1);
    }
    assert_int_equal(weir_shared_queue_close(there), WEIR_OK);
    assert_int_equal(get(back, weir_after(PATIENCE)), WEIR_ECLOSED);
    int status;
    assert_true(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    end(there);
    end(back);
}

static void what_is_no_queue_cannot_be_attached(void **state)
{
    (void)state;
    weir_shared_queue *queue = NULL, *real = make(10, 0, WEIR_OVERFLOW_BLOCK);
    int null = open("/dev/null", O_RDWR), empty = memfd_create("test", MFD_CLOEXEC);
    int zeros = memfd_create("test", MFD_CLOEXEC), cut = memfd_create("test", MFD_CLOEXEC);
    must(null >= 0 && empty >= 0 && zeros >= 0 && cut >= 0);
    must(ftruncate(zeros, 1 << 20) == 0 && ftruncate(cut, 1 << 20) == 0);
    char page[4096]; /* the true beginning of a file that is too short */
    must(pread(weir_shared_queue_fd(real), page, sizeof page, 0) == sizeof page);
    must(pwrite(cut, page, sizeof page, 0) == sizeof page);
    assert_int_equal(weir_shared_queue_attach(&queue, null), WEIR_EINVAL);
    assert_int_equal(weir_shared_queue_attach(&queue, empty), WEIR_EINVAL);
    assert_int_equal(weir_shared_queue_attach(&queue, zeros), WEIR_EINVAL);
    assert_int_equal(weir_shared_queue_attach(&queue, cut), WEIR_EINVAL);
    assert_int_equal(weir_shared_queue_attach(&queue, -1), WEIR_EINVAL);
    assert_null(queue);
    close(null), close(empty), close(zeros), close(cut);
    end(real);
}

static void a_snapshot_that_was_not_initialised_is_refused(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(1, 0, WEIR_OVERFLOW_BLOCK);
    weir_shared_queue_snapshot now = {0};
    assert_int_equal(weir_shared_queue_get_snapshot(queue, &now), WEIR_EINVAL);
    end(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_comes_out_as_it_went_in),
        cmocka_unit_test(what_the_bounds_allow_is_taken_wherever_it_lies),
        cmocka_unit_test(messages_leave_in_the_order_they_were_accepted),
        cmocka_unit_test(an_option_out_of_range_is_refused),
        cmocka_unit_test(bytes_have_a_default_bound),
        cmocka_unit_test(a_message_above_the_bound_is_refused_by_every_policy),
        cmocka_unit_test(every_policy_decides_as_in_the_queue_of_threads),
        cmocka_unit_test(a_put_many_evicts_what_it_has_just_put),
        cmocka_unit_test(messages_that_are_too_old_are_dropped_when_their_turn_comes),
        cmocka_unit_test(expiry_makes_room_for_who_waits),
        cmocka_unit_test(a_call_that_may_not_wait_says_why_it_cannot),
        cmocka_unit_test(the_hook_ends_a_wait_and_nothing_happened),
        cmocka_unit_test(waiters_get_their_turn_in_the_order_they_came),
        cmocka_unit_test(a_later_try_leaves_a_waiter_the_room_it_waits_for),
        cmocka_unit_test(a_put_many_goes_on_as_room_comes),
        cmocka_unit_test(a_batch_lingers_for_more),
        cmocka_unit_test(close_releases_everybody_and_what_is_inside_can_be_taken),
        cmocka_unit_test(discard_lets_waiting_putters_in),
        cmocka_unit_test(two_handles_are_one_queue),
        cmocka_unit_test(a_child_and_its_parent_hand_messages_to_each_other),
        cmocka_unit_test(what_is_no_queue_cannot_be_attached),
        cmocka_unit_test(a_snapshot_that_was_not_initialised_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
