/* model/fifo.h: order, blocks, cutting. */
#include "contract/support.h"

#include "model/fifo.h"

static struct {
    weir__fifo_tail tail;
    weir__fifo_head head;
    size_t count;
} fifo;

static void push(uintptr_t from, uintptr_t to)
{
    for (uintptr_t n = from; n <= to; n++, fifo.count++)
        assert_true(weir__fifo_push(&fifo.tail, (weir__entry){number(n), n, {(int64_t)n * 10}}));
}

static void pop_from(weir__fifo_head *head, size_t *count, uintptr_t from, uintptr_t to)
{
    for (uintptr_t n = from; n <= to; n++, (*count)--) {
        assert_ptr_equal(weir__fifo_peek(head)->item, number(n));
        weir__entry entry = weir__fifo_pop(head);
        assert_ptr_equal(entry.item, number(n));
        assert_int_equal(entry.cost, n);
        assert_int_equal(entry.since, n * 10);
    }
}

static void pop(uintptr_t from, uintptr_t to)
{
    pop_from(&fifo.head, &fifo.count, from, to);
}

static int begin(void **state)
{
    (void)state;
    fifo.count = 0;
    return !weir__fifo_init(&fifo.tail, &fifo.head);
}

static int end(void **state)
{
    (void)state;
    weir__fifo_fini(&fifo.tail, &fifo.head);
    return 0;
}

static size_t blocks(const weir__fifo_block *first)
{
    size_t n = 0;
    for (; first; first = first->next)
        n++;
    return n;
}

static void entries_leave_in_the_order_they_came(void **state)
{
    (void)state;
    uintptr_t in = 0, out = 0;
    for (uintptr_t round = 1; round < 300; round++) {
        push(in + 1, in + round % 71);
        in += round % 71;
        uintptr_t n = round % 67 < in - out ? round % 67 : in - out;
        pop(out + 1, out + n);
        out += n;
        if (round % 7 == 0)
            weir__fifo_recycle(&fifo.tail, &fifo.head);
        if (in == out && round % 3 == 0)
            weir__fifo_reset(&fifo.tail, &fifo.head);
    }
    pop(out + 1, in);
}

static void memory_follows_the_depth_down(void **state)
{
    (void)state;
    push(1, 100 * WEIR__FIFO_BLOCK);
    assert_int_equal(blocks(fifo.head.block), 100);
    pop(1, 100 * WEIR__FIFO_BLOCK);
    assert_int_equal(blocks(fifo.head.block), 1);
    assert_int_equal(blocks(fifo.head.spare), WEIR__FIFO_SPARE);
    assert_null(fifo.tail.spare);
}

static void blocks_that_emptied_are_filled_again(void **state)
{
    (void)state;
    push(1, 3 * WEIR__FIFO_BLOCK + 1);
    pop(1, 3 * WEIR__FIFO_BLOCK);
    weir__fifo_block *emptied = fifo.head.spare;
    assert_int_equal(blocks(fifo.head.spare), 2); /* the third is left when it has to be */
    weir__fifo_recycle(&fifo.tail, &fifo.head);
    assert_null(fifo.head.spare);
    assert_ptr_equal(fifo.tail.spare, emptied);
    push(3 * WEIR__FIFO_BLOCK + 2, 4 * WEIR__FIFO_BLOCK + 1);
    assert_ptr_equal(fifo.tail.block, emptied);
    pop(3 * WEIR__FIFO_BLOCK + 1, 4 * WEIR__FIFO_BLOCK + 1);
}

static void an_empty_fifo_that_is_reset_takes_a_block_without_memory(void **state)
{
    (void)state;
    for (uintptr_t n = 1; n <= WEIR__FIFO_BLOCK; n++) {
        push(1, n);
        pop(1, n);
        weir__fifo_reset(&fifo.tail, &fifo.head);
        push(1, WEIR__FIFO_BLOCK);
        assert_true(weir__fifo_lacks_block(&fifo.tail));
        assert_int_equal(blocks(fifo.head.block), 1);
        pop(1, WEIR__FIFO_BLOCK);
        weir__fifo_reset(&fifo.tail, &fifo.head);
    }
}

/* What a put that evicts, and a discard, are made of. */
static void cutting_takes_whole_blocks_and_leaves_less_than_one_to_pop(void **state)
{
    (void)state;
    for (size_t skip = 0; skip < WEIR__FIFO_BLOCK; skip += 5)
        for (size_t n = 0; n <= 150; n++) {
            weir__fifo_cut cut;
            push(1, skip + 150);
            pop(1, skip);
            weir__fifo_cut_off(&fifo.tail, &fifo.head, n, &cut);
            assert_true(cut.count <= n && n - cut.count <= WEIR__FIFO_BLOCK);
            assert_non_null(fifo.head.block);
            size_t taken = cut.count;
            fifo.count -= taken;
            pop_from(&cut.head, &cut.count, skip + 1, skip + taken);
            weir__fifo_cut_fini(&cut);
            pop(skip + taken + 1, skip + 150);
            assert_int_equal(fifo.count, 0);
        }
}

static void worth_counts_the_oldest_that_have_to_leave(void **state)
{
    (void)state;
    push(1, 100); /* costs 1, 2, ... */
    assert_int_equal(weir__fifo_worth(&fifo.head, 100, 0, 0), 0);
    assert_int_equal(weir__fifo_worth(&fifo.head, 100, 3, 0), 3);
    assert_int_equal(weir__fifo_worth(&fifo.head, 100, 3, 6), 3);
    assert_int_equal(weir__fifo_worth(&fifo.head, 100, 3, 7), 4);
    assert_int_equal(weir__fifo_worth(&fifo.head, 100, 0, 5050), 100);
    assert_int_equal(weir__fifo_worth(&fifo.head, 100, 0, 5051), 100);
    pop(1, 50);
    assert_int_equal(weir__fifo_worth(&fifo.head, 50, 0, 52), 2);
    weir__fifo_cut cut;
    weir__fifo_cut_off(&fifo.tail, &fifo.head, 50, &cut);
    assert_int_equal(cut.count, 3 * WEIR__FIFO_BLOCK - 50);
    assert_int_equal(weir__fifo_cost(&cut), 96 * 97 / 2 - 1275);
    weir__fifo_cut_fini(&cut);
}

static void a_reserved_push_needs_no_memory(void **state)
{
    (void)state;
    push(1, WEIR__FIFO_BLOCK);
    assert_null(fifo.tail.spare);
    assert_true(weir__fifo_lacks_block(&fifo.tail));
    assert_true(weir__fifo_reserve(&fifo.tail));
    assert_false(weir__fifo_lacks_block(&fifo.tail));
    assert_non_null(fifo.tail.spare);
    assert_true(weir__fifo_reserve(&fifo.tail));
    push(1, 1);
    assert_null(fifo.tail.spare);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(entries_leave_in_the_order_they_came, begin, end),
        cmocka_unit_test_setup_teardown(memory_follows_the_depth_down, begin, end),
        cmocka_unit_test_setup_teardown(blocks_that_emptied_are_filled_again, begin, end),
        cmocka_unit_test_setup_teardown(an_empty_fifo_that_is_reset_takes_a_block_without_memory,
                                        begin, end),
        cmocka_unit_test_setup_teardown(cutting_takes_whole_blocks_and_leaves_less_than_one_to_pop,
                                        begin, end),
        cmocka_unit_test_setup_teardown(worth_counts_the_oldest_that_have_to_leave, begin, end),
        cmocka_unit_test_setup_teardown(a_reserved_push_needs_no_memory, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
