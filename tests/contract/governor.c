/* weir/memory.h: what every program may rely on. */
#include "support.h"

#include <string.h>

#include <weir/memory.h>

#define GIB (UINT64_C(1) << 30)

static weir_governor *governor;

/* More than any machine has: this test is about the numbers. */
static int begin(void **state)
{
    (void)state;
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    opts.limit_bytes = 10000 * GIB;
    return weir_governor_create(&governor, &opts);
}

static int end(void **state)
{
    (void)state;
    weir_governor_destroy(governor);
    return 0;
}

static weir_governor_snapshot now(void)
{
    weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
    must(weir_governor_get_snapshot(governor, &now) == WEIR_OK);
    must(now.admitted == now.released + now.lost + now.inside);
    return now;
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    const weir_governor_opts good = WEIR_GOVERNOR_OPTS_INIT;
    weir_governor_opts bad[] = {good, good, good, good, good, good, good, good, good};
    bad[0].size--;
    bad[1].limit_fraction = 1.01;
    bad[2].limit_fraction = -0.1;
    bad[3].interval_ns = -1;
    bad[4].interval_ns = WEIR_MILLISECOND - 1;
    bad[5].limit_bytes = UINT64_C(1) << 62;
    bad[6].limit_bytes = 1, bad[6].limit_fraction = 0.5;
    bad[7].slow_at = 0.9, bad[7].pause_at = 0.8;
    bad[8].shared = "no/name";
    weir_governor *made = (weir_governor *)&bad;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(weir_governor_create(&made, &bad[i]), WEIR_EINVAL);
    assert_int_equal(weir_governor_create(&made, NULL), WEIR_EINVAL);
    assert_ptr_equal(made, &bad);
    weir_governor_destroy(NULL);
}

static void the_default_is_a_fraction_of_the_memory_there_is(void **state)
{
    (void)state;
    weir_governor *made;
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    assert_int_equal(weir_governor_create(&made, &opts), WEIR_OK);
    weir_governor_snapshot first = WEIR_GOVERNOR_SNAPSHOT_INIT;
    weir_governor_get_snapshot(made, &first);
    assert_true(first.memory > 0 && first.limit == (uint64_t)(0.8 * (double)first.memory));
    assert_true(first.usage > 0 && first.base > 0);
    assert_true(first.rss > 100000 && first.processes >= 1);
    weir_governor_destroy(made);
}

static void reserving_and_releasing_keep_the_law(void **state)
{
    (void)state;
    assert_int_equal(weir_governor_reserve(governor, 0, WEIR_POLL), WEIR_EINVAL);
    assert_int_equal(weir_governor_reserve(governor, UINT64_C(1) << 62, WEIR_POLL), WEIR_EINVAL);
    assert_int_equal(weir_governor_reserve(governor, 6000 * GIB, WEIR_POLL), WEIR_OK);
    assert_int_equal(weir_governor_reserve(governor, 6000 * GIB, WEIR_POLL), WEIR_EFULL);
    assert_int_equal(weir_governor_reserve(governor, 6000 * GIB, weir_after(50 * WEIR_MILLISECOND)),
                     WEIR_ETIMEDOUT);
    weir_governor_snapshot one = now();
    assert_int_equal(one.reserved, 6000 * GIB);
    assert_int_equal(one.inside, 1);
    assert_int_equal(one.refused, 2);
    assert_true(one.blocked_ns >= 2000000);
    weir_governor_release(governor, 6000 * GIB);
    assert_int_equal(now().reserved, 0);
    assert_int_equal(now().released, 1);
}

static int says_yes(void *ctx)
{
    (void)ctx;
    return 1;
}

static void the_hook_of_the_thread_is_asked_and_stays(void **state)
{
    (void)state;
    assert_int_equal(weir_governor_reserve(governor, 6000 * GIB, WEIR_POLL), WEIR_OK);
    weir_set_interrupt(says_yes, NULL);
    assert_int_equal(weir_governor_reserve(governor, 6000 * GIB, WEIR_FOREVER), WEIR_EINTR);
    assert_int_equal(weir_governor_reserve(governor, 6000 * GIB, WEIR_FOREVER), WEIR_EINTR);
    weir_set_interrupt(NULL, NULL);
    weir_governor_release(governor, 6000 * GIB);
}

static void a_closed_one_admits_nobody_and_takes_back(void **state)
{
    (void)state;
    assert_int_equal(weir_governor_reserve(governor, 1, WEIR_POLL), WEIR_OK);
    weir_governor_close(governor);
    weir_governor_close(governor);
    assert_int_equal(weir_governor_reserve(governor, 1, WEIR_FOREVER), WEIR_ECLOSED);
    weir_governor_release(governor, 1);
    assert_true(now().is_closed);
    assert_int_equal(now().reserved, 0);
}

static void sizes_are_learned_by_kind(void **state)
{
    (void)state;
    assert_int_equal(weir_governor_estimate(governor, 7), 0);
    for (int i = 0; i < 5; i++)
        weir_governor_observe(governor, 7, 100 << 20);
    assert_int_equal(weir_governor_estimate(governor, 7), 120 << 20);
    assert_int_equal(weir_governor_estimate(governor, 8), 0);
}

static void limits_are_read_as_people_write_them(void **state)
{
    (void)state;
    uint64_t bytes = 5;
    double fraction = 5;
    assert_int_equal(weir_parse_memory("2GiB", &bytes, &fraction), WEIR_OK);
    assert_true(bytes == 2 * GIB && fraction == 0);
    assert_int_equal(weir_parse_memory("80%", &bytes, &fraction), WEIR_OK);
    assert_true(bytes == 0 && fraction == 0.8);
    assert_int_equal(weir_parse_memory("80 percent", &bytes, &fraction), WEIR_EINVAL);
    assert_int_equal(weir_parse_memory(NULL, &bytes, &fraction), WEIR_EINVAL);
    assert_true(bytes == 0 && fraction == 0.8);
}

static void names_and_sizes_are_as_declared(void **state)
{
    (void)state;
    assert_string_equal(weir_memory_step_name(WEIR_MEMORY_NORMAL), "normal");
    assert_string_equal(weir_memory_step_name(WEIR_MEMORY_SLOW), "slow");
    assert_string_equal(weir_memory_step_name(WEIR_MEMORY_PAUSE), "pause");
    assert_string_equal(weir_memory_step_name(WEIR_MEMORY_SHED), "shed");
    assert_string_equal(weir_memory_step_name(-1), "?");
    assert_string_equal(weir_memory_step_name(4), "?");
    weir_governor_snapshot none = {.size = 1};
    assert_int_equal(weir_governor_get_snapshot(governor, &none), WEIR_EINVAL);
    assert_int_equal(none.size, 1);
}

#define GOVERNOR_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(the_default_is_a_fraction_of_the_memory_there_is),
        GOVERNOR_TEST(reserving_and_releasing_keep_the_law),
        GOVERNOR_TEST(the_hook_of_the_thread_is_asked_and_stays),
        GOVERNOR_TEST(a_closed_one_admits_nobody_and_takes_back),
        GOVERNOR_TEST(sizes_are_learned_by_kind),
        GOVERNOR_TEST(limits_are_read_as_people_write_them),
        GOVERNOR_TEST(names_and_sizes_are_as_declared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
