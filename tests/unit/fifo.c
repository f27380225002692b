/* model/fifo.h: order, blocks, cutting. */
#include "contract/support.h"

#include "model/fifo.h"

static weir__fifo fifo;

static void push(uintptr_t from, uintptr_t to)
{
    for (uintptr_t n = from; n <= to; n++)
        assert_true(weir__fifo_push(&fifo, (weir__entry){number(n), n, (int64_t)n * 10}));
}

static void pop_from(weir__fifo *f, uintptr_t from, uintptr_t to)
{
    for (uintptr_t n = from; n <= to; n++) {
        assert_ptr_equal(weir__fifo_peek(f)->item, number(n));
        weir__entry entry = weir__fifo_pop(f);
        assert_ptr_equal(entry.item, number(n));
        assert_int_equal(entry.cost, n);
        assert_int_equal(entry.since, n * 10);
    }
}

static int begin(void **state)
{
    (void)state;
    return !weir__fifo_init(&fifo);
}

static int end(void **state)
{
    (void)state;
    weir__fifo_fini(&fifo);
    return 0;
}

static size_t blocks(const weir__fifo *f)
{
    size_t n = 0;
    for (const weir__fifo_block *b = f->head; b; b = b->next)
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
        pop_from(&fifo, out + 1, out + n);
        out += n;
        assert_int_equal(fifo.count, in - out);
    }
    pop_from(&fifo, out + 1, in);
    assert_int_equal(fifo.count, 0);
}

static void memory_follows_the_depth_down(void **state)
{
    (void)state;
    push(1, 100 * WEIR__FIFO_BLOCK);
    assert_int_equal(blocks(&fifo), 100);
    pop_from(&fifo, 1, 100 * WEIR__FIFO_BLOCK);
    assert_int_equal(blocks(&fifo), 1);
}

static void an_empty_fifo_is_at_the_start_of_its_block(void **state)
{
    (void)state;
    push(1, 5);
    pop_from(&fifo, 1, 5);
    assert_int_equal(fifo.first, 0);
    assert_int_equal(fifo.end, 0);
}

/* What a put that evicts, and a discard, are made of. */
static void cutting_takes_whole_blocks_and_leaves_less_than_one_to_pop(void **state)
{
    (void)state;
    for (size_t skip = 0; skip < WEIR__FIFO_BLOCK; skip += 5)
        for (size_t n = 0; n <= 150; n++) {
            weir__fifo cut;
            push(1, skip + 150);
            pop_from(&fifo, 1, skip);
            weir__fifo_cut(&fifo, n, &cut);
            assert_true(cut.count <= n && n - cut.count <= WEIR__FIFO_BLOCK);
            assert_int_equal(fifo.count + cut.count, 150);
            assert_true(fifo.head != NULL);
            size_t taken = cut.count;
            pop_from(&cut, skip + 1, skip + taken);
            weir__fifo_fini(&cut);
            pop_from(&fifo, skip + taken + 1, skip + 150);
        }
}

static void worth_counts_the_oldest_that_have_to_leave(void **state)
{
    (void)state;
    push(1, 100); /* costs 1, 2, ... */
    assert_int_equal(weir__fifo_worth(&fifo, 0, 0), 0);
    assert_int_equal(weir__fifo_worth(&fifo, 3, 0), 3);
    assert_int_equal(weir__fifo_worth(&fifo, 3, 6), 3);
    assert_int_equal(weir__fifo_worth(&fifo, 3, 7), 4);
    assert_int_equal(weir__fifo_worth(&fifo, 0, 5050), 100);
    assert_int_equal(weir__fifo_worth(&fifo, 0, 5051), 100);
    pop_from(&fifo, 1, 50);
    assert_int_equal(weir__fifo_worth(&fifo, 0, 52), 2);
    assert_int_equal(weir__fifo_cost(&fifo), 5050 - 1275);
}

static void a_reserved_push_needs_no_memory(void **state)
{
    (void)state;
    push(1, WEIR__FIFO_BLOCK);
    assert_null(fifo.spare);
    assert_true(weir__fifo_reserve(&fifo));
    assert_non_null(fifo.spare);
    assert_true(weir__fifo_reserve(&fifo));
    push(1, 1);
    assert_null(fifo.spare);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(entries_leave_in_the_order_they_came, begin, end),
        cmocka_unit_test_setup_teardown(memory_follows_the_depth_down, begin, end),
        cmocka_unit_test_setup_teardown(an_empty_fifo_is_at_the_start_of_its_block, begin, end),
        cmocka_unit_test_setup_teardown(cutting_takes_whole_blocks_and_leaves_less_than_one_to_pop,
                                        begin, end),
        cmocka_unit_test_setup_teardown(worth_counts_the_oldest_that_have_to_leave, begin, end),
        cmocka_unit_test_setup_teardown(a_reserved_push_needs_no_memory, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
