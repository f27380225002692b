/* exec/tasks.h: ids, and the order of the line. */
#include "contract/support.h"

#include "exec/tasks.h"

#define MANY 2000u

static weir__tasks tasks;

static int begin(void **state)
{
    (void)state;
    weir__tasks_init(&tasks);
    return 0;
}

static int end(void **state)
{
    (void)state;
    weir__tasks_fini(&tasks);
    return 0;
}

static weir__task *accept_one(void)
{
    weir__task *task = weir__tasks_new(&tasks);
    must(task);
    weir__tasks_append(&tasks, task);
    return task;
}

static weir__task *take_first(void)
{
    weir__task *task = weir__tasks_first(&tasks);
    must(task);
    weir__tasks_remove(&tasks, task);
    task->state = TASK_DEALT;
    return task;
}

static void forget(weir__task *task)
{
    weir__tasks_retire(&tasks, task);
    weir__tasks_free(&tasks, task);
}

/* Both ways along the line: seq rises, and `waiting` counts it. */
static void assert_line_is_whole(void)
{
    size_t n = 0;
    uint32_t prev = WEIR__NO_TASK;
    for (uint32_t at = tasks.waiting_head; at != WEIR__NO_TASK; n++) {
        weir__task *task = weir__tasks_at(&tasks, at);
        assert_int_equal(task->prev, prev);
        assert_int_equal(task->state, TASK_WAITING);
        assert_true(prev == WEIR__NO_TASK || weir__tasks_at(&tasks, prev)->seq < task->seq);
        prev = at;
        at = task->next;
    }
    assert_int_equal(tasks.waiting_tail, prev);
    assert_int_equal(tasks.waiting, n);
}

static void tasks_leave_the_line_in_the_order_of_acceptance(void **state)
{
    (void)state;
    assert_null(weir__tasks_first(&tasks));
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(accept_one()->seq, i);
    assert_line_is_whole();
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(take_first()->seq, i);
    assert_null(weir__tasks_first(&tasks));
    assert_line_is_whole();
}

static void a_task_that_comes_back_stands_where_it_stood(void **state)
{
    (void)state;
    weir__task *taken[10];
    for (unsigned i = 0; i < 20; i++)
        accept_one();
    for (unsigned i = 0; i < 10; i++)
        taken[i] = take_first();
    static const unsigned order[10] = {5, 0, 9, 3, 4, 8, 1, 7, 2, 6};
    for (unsigned i = 0; i < 10; i++) {
        weir__tasks_put_back(&tasks, taken[order[i]]);
        assert_line_is_whole();
    }
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(take_first()->seq, i);
    weir__tasks_put_back(&tasks, taken[3]); /* into an empty line */
    assert_line_is_whole();
}

static void a_task_can_leave_from_anywhere_in_the_line(void **state)
{
    (void)state;
    weir__task *all[9];
    for (unsigned i = 0; i < 9; i++)
        all[i] = accept_one();
    static const unsigned order[9] = {4, 0, 8, 1, 7, 2, 3, 6, 5};
    for (unsigned i = 0; i < 9; i++) {
        weir__tasks_remove(&tasks, all[order[i]]);
        assert_line_is_whole();
    }
    assert_int_equal(tasks.waiting, 0);
    assert_int_equal(tasks.live, 9); /* out of the line is not gone */
}

static void an_id_finds_its_task_until_that_is_gone(void **state)
{
    (void)state;
    uint64_t ids[MANY];
    for (unsigned i = 0; i < MANY; i++)
        ids[i] = weir__task_id(accept_one());
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(weir__tasks_find(&tasks, ids[i])->seq, i);
    weir__task *task = take_first();
    assert_ptr_equal(weir__tasks_find(&tasks, ids[0]), task); /* dealt */
    weir__tasks_retire(&tasks, task);
    assert_null(weir__tasks_find(&tasks, ids[0])); /* its memory is still there */
    weir__tasks_free(&tasks, task);
    assert_null(weir__tasks_find(&tasks, ids[0]));
    assert_int_equal(tasks.live, MANY - 1);
}

static void an_id_of_a_task_that_is_gone_finds_no_other(void **state)
{
    (void)state;
    uint64_t ids[MANY];
    for (unsigned i = 0; i < MANY; i++) {
        ids[i] = weir__task_id(accept_one());
        forget(take_first());
    }
    weir__task *task = accept_one();
    for (unsigned i = 0; i < MANY; i++)
        assert_null(weir__tasks_find(&tasks, ids[i]));
    assert_ptr_equal(weir__tasks_find(&tasks, weir__task_id(task)), task);
    assert_int_equal(tasks.n_chunks, 1); /* one place for all of them */
}

static void an_id_of_nothing_finds_nothing(void **state)
{
    (void)state;
    assert_null(weir__tasks_find(&tasks, 0));
    assert_null(weir__tasks_find(&tasks, UINT64_MAX));
    uint64_t id = weir__task_id(accept_one());
    assert_null(weir__tasks_find(&tasks, 0));
    assert_null(weir__tasks_find(&tasks, UINT64_MAX));
    assert_null(weir__tasks_find(&tasks, id + 1));                   /* never used */
    assert_null(weir__tasks_find(&tasks, id + 256));                 /* no such chunk */
    assert_null(weir__tasks_find(&tasks, id + (UINT64_C(1) << 32))); /* a later generation */
}

static void tasks_stay_where_they_are_when_there_are_more(void **state)
{
    (void)state;
    weir__task *first = accept_one();
    for (unsigned i = 1; i < 100 * 256; i++)
        accept_one();
    assert_ptr_equal(weir__tasks_first(&tasks), first);
    assert_ptr_equal(weir__tasks_at(&tasks, first->index), first);
    assert_int_equal(tasks.n_chunks, 100);
}

static void a_fresh_task_knows_nothing_of_the_last_one_in_its_place(void **state)
{
    (void)state;
    weir__task *task = accept_one();
    task->attempts = 3;
    task->block.offset = 4096;
    weir__tasks_remove(&tasks, task);
    forget(task);
    weir__task *next = weir__tasks_new(&tasks);
    assert_ptr_equal(next, task);
    assert_int_equal(next->attempts, 0);
    assert_int_equal(next->block.offset, 0);
    assert_int_equal(next->seq, 1);
}

static void anything_in_any_order_leaves_the_line_whole(void **state)
{
    (void)state;
    weir__task *dealt[MANY];
    size_t n_dealt = 0, live = 0;
    srand(7);
    for (unsigned step = 0; step < 20000; step++) {
        int what = rand() % 5;
        if (what <= 1 && live < MANY) {
            accept_one();
            live++;
        } else if (what == 2 && tasks.waiting > 0) {
            dealt[n_dealt++] = take_first();
        } else if (n_dealt > 0) {
            size_t i = (size_t)rand() % n_dealt;
            weir__task *task = dealt[i];
            dealt[i] = dealt[--n_dealt];
            if (what == 3) {
                weir__tasks_put_back(&tasks, task);
            } else {
                forget(task);
                live--;
            }
        }
        assert_int_equal(tasks.live, live);
        assert_int_equal(tasks.waiting, live - n_dealt);
        if (step % 64 == 0)
            assert_line_is_whole();
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tasks_leave_the_line_in_the_order_of_acceptance),
        TEST(a_task_that_comes_back_stands_where_it_stood),
        TEST(a_task_can_leave_from_anywhere_in_the_line),
        TEST(an_id_finds_its_task_until_that_is_gone),
        TEST(an_id_of_a_task_that_is_gone_finds_no_other),
        TEST(an_id_of_nothing_finds_nothing),
        TEST(tasks_stay_where_they_are_when_there_are_more),
        TEST(a_fresh_task_knows_nothing_of_the_last_one_in_its_place),
        TEST(anything_in_any_order_leaves_the_line_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
