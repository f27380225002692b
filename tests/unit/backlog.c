/* The backlog that finds its own size. */
#include "contract/support.h"

#include "model/backlog.h"

#define MS INT64_C(1000000)

static weir__backlog fresh(unsigned workers)
{
    weir__backlog backlog;
    weir__backlog_init(&backlog, workers, 0);
    return backlog;
}

/* So many tasks complete between two times that a worker runs dry. */
static void starve(weir__backlog *backlog, int times, int64_t service_ns, uint64_t bytes)
{
    uint64_t completed = backlog->tried_since;
    for (int i = 0; i < times; i++)
        weir__backlog_starved(backlog, service_ns, bytes, completed += 2 * backlog->now, i * MS);
}

static void it_begins_with_twice_the_workers(void **state)
{
    (void)state;
    weir__backlog backlog = fresh(8);
    assert_int_equal(backlog.now, 16);
    assert_int_equal(backlog.reason, WEIR__BACKLOG_TWICE_THE_WORKERS);
}

static void it_doubles_while_workers_run_dry(void **state)
{
    (void)state;
    weir__backlog backlog = fresh(2);
    starve(&backlog, 3, 1000, 100);
    assert_int_equal(backlog.now, 32);
    assert_int_equal(backlog.reason, WEIR__BACKLOG_WORKERS_RAN_DRY);
    assert_int_equal(backlog.starved, 3);
}

static void a_change_is_given_time_to_have_its_effect(void **state)
{
    (void)state;
    weir__backlog backlog = fresh(2);
    for (uint64_t completed = 0; completed < 4; completed++)
        weir__backlog_starved(&backlog, 1000, 100, completed, 0);
    assert_int_equal(backlog.now, 4);
    weir__backlog_starved(&backlog, 1000, 100, 4, 0);
    assert_int_equal(backlog.now, 8);
}

static void long_tasks_stay_at_twice_the_workers(void **state)
{
    (void)state;
    weir__backlog backlog = fresh(4);
    starve(&backlog, 10, 1000 * MS, 100);
    assert_int_equal(backlog.now, 8);
    assert_int_equal(backlog.reason, WEIR__BACKLOG_ENOUGH_WORK);
}

static void it_ends_with_twenty_milliseconds_of_work(void **state)
{
    (void)state;
    weir__backlog backlog = fresh(2);
    starve(&backlog, 30, 100000, 100);
    assert_int_equal(backlog.now, 400);
    assert_int_equal(backlog.reason, WEIR__BACKLOG_ENOUGH_WORK);
}

static void it_ends_with_sixty_four_mebibytes(void **state)
{
    (void)state;
    weir__backlog backlog = fresh(2);
    starve(&backlog, 30, 1000, 1 << 20);
    assert_int_equal(backlog.now, 64);
    assert_int_equal(backlog.reason, WEIR__BACKLOG_ENOUGH_BYTES);
}

static void payloads_of_any_size_leave_twice_the_workers(void **state)
{
    (void)state;
    weir__backlog backlog = fresh(2);
    starve(&backlog, 30, 1000, UINT64_MAX / 2);
    assert_int_equal(backlog.now, 4);
}

static void it_shrinks_at_once_when_tasks_get_longer(void **state)
{
    (void)state;
    weir__backlog backlog = fresh(2);
    starve(&backlog, 30, 10000, 100);
    assert_int_equal(backlog.now, 4000);
    weir__backlog_review(&backlog, 100 * MS, 100, 0, 100 * MS);
    assert_int_equal(backlog.now, 4);
}

static void what_is_not_needed_goes_slowly(void **state)
{
    (void)state;
    weir__backlog backlog = fresh(2);
    starve(&backlog, 4, 1000, 100);
    assert_int_equal(backlog.now, 64);
    weir__backlog_review(&backlog, 1000, 100, 0, 9000 * MS);
    assert_int_equal(backlog.now, 64);
    weir__backlog_review(&backlog, 1000, 100, 0, 11000 * MS);
    assert_int_equal(backlog.now, 56);
    assert_int_equal(backlog.reason, WEIR__BACKLOG_NOT_NEEDED);
    weir__backlog_review(&backlog, 1000, 100, 0, 12000 * MS);
    assert_int_equal(backlog.now, 56);
    for (int64_t i = 3; i < 100; i++)
        weir__backlog_review(&backlog, 1000, 100, 0, i * 11000 * MS);
    assert_int_equal(backlog.now, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_begins_with_twice_the_workers),
        cmocka_unit_test(it_doubles_while_workers_run_dry),
        cmocka_unit_test(a_change_is_given_time_to_have_its_effect),
        cmocka_unit_test(long_tasks_stay_at_twice_the_workers),
        cmocka_unit_test(it_ends_with_twenty_milliseconds_of_work),
        cmocka_unit_test(it_ends_with_sixty_four_mebibytes),
        cmocka_unit_test(payloads_of_any_size_leave_twice_the_workers),
        cmocka_unit_test(it_shrinks_at_once_when_tasks_get_longer),
        cmocka_unit_test(what_is_not_needed_goes_slowly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
