/* A queue that gets no memory, or no descriptor: an error, nothing lost, still usable. */
#include "faults.h"

#include <sys/resource.h>
#include <unistd.h>

#include "model/fifo.h"

#define BLOCK WEIR__FIFO_BLOCK

static size_t dropped;

static void count_drop(void *item, weir_drop_reason reason, void *ctx)
{
    (void)item, (void)reason, (void)ctx;
    dropped++;
}

static weir_queue *make(size_t capacity, uint64_t max_cost, weir_overflow overflow)
{
    weir_queue *queue = NULL;
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = capacity;
    opts.max_cost = max_cost;
    opts.overflow = overflow;
    opts.on_drop = count_drop;
    dropped = 0;
    assert_int_equal(weir_queue_create(&queue, &opts), WEIR_OK);
    return queue;
}

static void expect(weir_queue *queue, uintptr_t from, uintptr_t to)
{
    for (uintptr_t n = from; n <= to; n++) {
        void *item;
        assert_int_equal(weir_queue_get(queue, &item, WEIR_POLL), WEIR_OK);
        assert_ptr_equal(item, number(n));
    }
}

static void end(weir_queue *queue)
{
    weir_queue_snapshot now = snapshot_of(queue);
    assert_true(obeys_the_law(&now));
    weir_queue_destroy(queue);
}

/* ---- memory ------------------------------------------------------------------------------------- */

static void create_without_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = 10;
    opts.on_drop = count_drop;
    int n = 1;
    for (;; n++) {
        weir_queue *queue = NULL;
        fail_allocation(n, false);
        int rc = weir_queue_create(&queue, &opts);
        if (!stop_failing()) {
            assert_int_equal(rc, WEIR_OK);
            weir_queue_destroy(queue);
            break;
        }
        assert_int_equal(rc, WEIR_ENOMEM);
        assert_null(queue);
    }
    assert_true(n > 2); /* it does allocate */
}

static void put_without_memory_leaves_the_item_with_the_caller(void **state)
{
    (void)state;
    for (int64_t n = 1; n <= 5; n++) {
        weir_queue *queue = make(WEIR_UNBOUNDED, 0, WEIR_OVERFLOW_BLOCK);
        uintptr_t in = 0, refused = 0;
        fail_allocation(n, false);
        while (in < 6 * BLOCK) {
            int rc = weir_queue_put(queue, number(in + 1), 3, WEIR_FOREVER);
            assert_true(rc == WEIR_KEPT || rc == WEIR_ENOMEM);
            in += rc == WEIR_KEPT;
            refused += rc == WEIR_ENOMEM;
        }
        assert_true(stop_failing());
        assert_int_equal(refused, 1);
        assert_int_equal(snapshot_of(queue).accepted, in);
        assert_int_equal(snapshot_of(queue).refused, 0);
        expect(queue, 1, in);
        end(queue);
    }
}

static void put_many_without_memory_takes_what_it_can(void **state)
{
    (void)state;
    void *items[3 * BLOCK];
    for (uintptr_t i = 0; i < 3 * BLOCK; i++)
        items[i] = number(i + 1);
    weir_queue *queue = make(WEIR_UNBOUNDED, 0, WEIR_OVERFLOW_BLOCK);
    fail_allocation(2, true);
    assert_int_equal(weir_queue_put_many(queue, items, NULL, 3 * BLOCK, WEIR_FOREVER), 2 * BLOCK);
    assert_int_equal(weir_queue_put_many(queue, items, NULL, 1, WEIR_FOREVER), WEIR_ENOMEM);
    stop_failing();
    expect(queue, 1, 2 * BLOCK);
    end(queue);
}

static void an_eviction_without_memory_evicts_nothing(void **state)
{
    (void)state;
    weir_queue *queue = make(WEIR_UNBOUNDED, 10 * BLOCK, WEIR_OVERFLOW_DROP_OLDEST);
    for (uintptr_t n = 1; n <= BLOCK; n++) /* up to the end of a block */
        assert_int_equal(weir_queue_put(queue, number(n), 10, WEIR_POLL), WEIR_KEPT);
    fail_allocation(1, true);
    assert_int_equal(weir_queue_put(queue, number(99), 1, WEIR_POLL), WEIR_ENOMEM);
    stop_failing();
    assert_int_equal(dropped, 0);
    assert_int_equal(weir_queue_depth(queue), BLOCK);
    assert_int_equal(weir_queue_put(queue, number(BLOCK + 1), 1, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(dropped, 1);
    expect(queue, 2, BLOCK + 1);
    end(queue);
}

static void dropping_needs_no_memory(void **state)
{
    (void)state;
    weir_queue *queue = make(WEIR_UNBOUNDED, 10 * BLOCK, WEIR_OVERFLOW_DROP_OLDEST);
    for (uintptr_t n = 1; n <= 10 * BLOCK - 1; n++)
        weir_queue_put(queue, number(n), 1, WEIR_POLL);
    fail_allocation(1, true);
    assert_int_equal(weir_queue_put(queue, number(999), 9 * BLOCK, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(dropped, 9 * BLOCK - 1);
    assert_int_equal(weir_queue_overflow(queue, number(999), 1), WEIR_EVICTED);
    assert_int_equal(weir_queue_discard(queue), BLOCK);
    for (uintptr_t n = 1; n <= BLOCK; n++) /* an empty queue has a block */
        assert_int_equal(weir_queue_put(queue, number(n), 0, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_queue_resize(queue, 5, 5), WEIR_OK);
    assert_int_equal(weir_queue_drain(queue, WEIR_POLL), WEIR_ETIMEDOUT);
    expect(queue, 1, 5);
    weir_queue_close(queue);
    weir_queue_destroy(queue);
    assert_false(stop_failing());
    assert_int_equal(dropped, 10 * BLOCK + BLOCK - 5);
}

/* It has room and lacks memory: whoever takes something out tries again for it. */
static void a_putter_that_waits_without_memory_is_not_stranded(void **state)
{
    (void)state;
    weir_queue *queue = make(2 * BLOCK, 100, WEIR_OVERFLOW_BLOCK);
    for (uintptr_t n = 1; n <= BLOCK; n++)
        assert_int_equal(weir_queue_put(queue, number(n), n == 1 ? 90 : 0, WEIR_POLL), WEIR_KEPT);
    other putter = {.queue = queue, .item = number(BLOCK + 1), .cost = 50};
    putter.deadline = WEIR_FOREVER;
    start_waiting_put(&putter);
    fail_allocation(1, true);
    expect(queue, 1, 1); /* now it fits, but there is no block for it */
    assert_int_equal(snapshot_of(queue).putters_waiting, 1);
    assert_int_equal(weir_queue_put(queue, number(999), 0, WEIR_POLL), WEIR_EFULL); /* in line */
    expect(queue, 2, BLOCK);
    assert_int_equal(finish(&putter), WEIR_KEPT); /* the memory never came back */
    assert_true(stop_failing());
    expect(queue, BLOCK + 1, BLOCK + 1);
    end(queue);
}

static void a_hand_over_needs_no_memory(void **state)
{
    (void)state;
    weir_queue *queue = make(2, 0, WEIR_OVERFLOW_BLOCK);
    other getter = {.queue = queue, .deadline = WEIR_FOREVER};
    start_waiting_get(&getter);
    fail_allocation(1, true);
    assert_int_equal(weir_queue_put(queue, number(5), 0, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(finish(&getter), WEIR_OK);
    assert_ptr_equal(getter.item, number(5));
    assert_false(stop_failing());
    end(queue);
}

/* ---- descriptors -------------------------------------------------------------------------------- */

static void without_descriptors_the_fds_are_refused_and_the_queue_works(void **state)
{
    (void)state;
    struct rlimit before;
    weir_queue *queue = make(2, 0, WEIR_OVERFLOW_BLOCK);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int item_fd = weir_queue_item_fd(queue), room_fd = weir_queue_room_fd(queue);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(item_fd, WEIR_ENOFD);
    assert_int_equal(room_fd, WEIR_ENOFD);

    assert_int_equal(weir_queue_put(queue, number(1), 0, WEIR_POLL), WEIR_KEPT);
    assert_true(weir_queue_item_fd(queue) >= 0); /* later there is one */
    assert_true(weir_queue_room_fd(queue) >= 0);
    expect(queue, 1, 1);
    end(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_without_memory_leaves_nothing_behind),
        cmocka_unit_test(put_without_memory_leaves_the_item_with_the_caller),
        cmocka_unit_test(put_many_without_memory_takes_what_it_can),
        cmocka_unit_test(an_eviction_without_memory_evicts_nothing),
        cmocka_unit_test(dropping_needs_no_memory),
        cmocka_unit_test(a_putter_that_waits_without_memory_is_not_stranded),
        cmocka_unit_test(a_hand_over_needs_no_memory),
        cmocka_unit_test(without_descriptors_the_fds_are_refused_and_the_queue_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
