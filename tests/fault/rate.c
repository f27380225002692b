/* A token bucket that gets no memory: an error, nothing left behind.  Once made it needs none. */
#include "faults.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/rate.h>

static int create(weir_rate **ret_rate, const char *shared)
{
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    opts.rate = 1000000;
    opts.burst = 1;
    opts.shared = shared;
    return weir_rate_create(ret_rate, &opts);
}

static int fails_at_each_allocation(const char *shared)
{
    for (int n = 1;; n++) {
        weir_rate *rate = NULL;
        fail_allocation(n, false);
        int rc = create(&rate, shared);
        if (!stop_failing()) {
            assert_int_equal(rc, WEIR_OK);
            weir_rate_destroy(rate);
            return n;
        }
        assert_int_equal(rc, WEIR_ENOMEM);
        assert_null(rate);
    }
}

static void create_without_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    assert_true(fails_at_each_allocation(NULL) > 2);
}

static void create_of_a_shared_one_without_memory_leaves_no_name(void **state)
{
    (void)state;
    char name[40];
    snprintf(name, sizeof name, "fault.%d", (int)getpid());
    assert_true(fails_at_each_allocation(name) > 2);
    weir_rate *rate = NULL;
    assert_int_equal(create(&rate, name), WEIR_OK);
    soon(weir_rate_acquire(rate, 1, WEIR_POLL) == WEIR_OK);
    weir_rate_snapshot now = WEIR_RATE_SNAPSHOT_INIT;
    soon(weir_rate_get_snapshot(rate, &now) == WEIR_OK && now.available == 1);
    weir_rate_destroy(rate);
}

static void nothing_but_create_allocates(void **state)
{
    (void)state;
    weir_rate *rate = NULL;
    weir_reservation reservation;
    weir_time at;
    assert_int_equal(create(&rate, NULL), WEIR_OK);
    fail_allocation(1, true);
    for (int i = 0; i < 100; i++)
        assert_int_equal(weir_rate_acquire(rate, 1, WEIR_FOREVER), WEIR_OK);
    assert_int_equal(weir_rate_set(rate, 2000000, 0, 1), WEIR_OK);
    assert_int_equal(weir_rate_reserve(rate, 1, &at, &reservation), WEIR_OK);
    weir_rate_unreserve(rate, &reservation);
    assert_false(stop_failing());
    weir_rate_destroy(rate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_without_memory_leaves_nothing_behind),
        cmocka_unit_test(create_of_a_shared_one_without_memory_leaves_no_name),
        cmocka_unit_test(nothing_but_create_allocates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
