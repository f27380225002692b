/* What a program tells of objects of its own, as another process sees it. */
#include "seen.h"

#include <weir/teller.h>

static void what_is_told_is_seen(void **state)
{
    (void)state;
    weir_teller *record = weir_teller_open(WEIR_STATS_THREAD_POOL, "mine");
    const weir_told told[] = {
        {WEIR_STATS_CAPACITY, 10},  {WEIR_STATS_ACCEPTED, 7},     {WEIR_STATS_DELIVERED, 4},
        {WEIR_STATS_DONE, 3},       {WEIR_STATS_REPORTS_DONE, 1}, {(weir_stats_number)96, 5},
        {(weir_stats_number)-1, 5},
    };
    assert_non_null(record);
    weir_teller_tell(record, told, sizeof told / sizeof *told);
    weir_teller_time(record, WEIR_TELLER_WAIT, 1000, 64);
    weir_teller_time(record, WEIR_TELLER_SERVICE, 5000, 1);
    weir_teller_time(record, WEIR_TELLER_SERVICE, -1, 1);
    weir_stats_record seen = see("mine");
    assert_true(seen.is_exact);
    assert_int_equal(seen.kind, WEIR_STATS_THREAD_POOL);
    assert_int_equal(seen.id, weir_teller_id(record));
    assert_int_equal(seen.number[WEIR_STATS_CAPACITY], 10);
    assert_int_equal(seen.number[WEIR_STATS_DEPTH], 3);
    assert_int_equal(seen.number[WEIR_STATS_IN_FLIGHT], 1);
    assert_int_equal(weir_stats_times_count(&seen.wait), 64);
    assert_int_equal(seen.wait.sum_ns, 64000);
    assert_int_equal(seen.wait.max_ns, 1000);
    assert_int_equal(weir_stats_times_count(&seen.service), 2);
    assert_int_equal(seen.service.max_ns, 5000);
    weir_teller_close(record);
    assert_false(look_for("mine").found);
}

static void an_object_without_a_record_tells_all_the_same(void **state)
{
    (void)state;
    weir_teller *record = weir_teller_open(WEIR_STATS_QUEUE, "");
    assert_null(record);
    weir_teller_tell(record, &(weir_told){WEIR_STATS_ACCEPTED, 1}, 1);
    weir_teller_time(record, WEIR_TELLER_WAIT, 1, 1);
    assert_int_equal(weir_teller_id(record), 0);
    weir_teller_close(record);
}

static void what_a_forked_child_tells_goes_nowhere(void **state)
{
    (void)state;
    weir_teller *record = weir_teller_open(WEIR_STATS_QUEUE, NULL);
    weir_teller_tell(record, &(weir_told){WEIR_STATS_ACCEPTED, 1}, 1);
    pid_t pid = fork();
    if (pid == 0) {
        weir_teller_tell(record, &(weir_told){WEIR_STATS_ACCEPTED, 2}, 1);
        must(weir_teller_id(record) == 0);
        weir_teller_close(record);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(see("queue-1").number[WEIR_STATS_ACCEPTED], 1);
    weir_teller_close(record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_told_is_seen),
        cmocka_unit_test(an_object_without_a_record_tells_all_the_same),
        cmocka_unit_test(what_a_forked_child_tells_goes_nowhere),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
