/* A limit that gets no memory: an error, nothing left behind. */
#include "faults.h"

#include <unistd.h>

#include <weir/limit.h>

static weir_limit_opts options(const char *shared)
{
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.algorithm = WEIR_LIMIT_VEGAS;
    opts.shared = shared;
    return opts;
}

static int create_failing_at(int n, const char *shared)
{
    weir_limit_opts opts = options(shared);
    weir_limit *limit = NULL;
    fail_allocation(n, false);
    int rc = weir_limit_create(&limit, &opts);
    bool failed = stop_failing();
    assert_int_equal(rc, failed ? WEIR_ENOMEM : WEIR_OK);
    assert_true((limit != NULL) == (rc == WEIR_OK));
    weir_limit_destroy(limit);
    return failed;
}

static void create_without_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    int n = 1;
    while (create_failing_at(n, NULL))
        n++;
    assert_true(n > 2);
}

static void create_of_a_shared_one_without_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    char shared[32];
    snprintf(shared, sizeof shared, "fault.%d", (int)getpid());
    int n = 1;
    while (create_failing_at(n, shared))
        n++;
    assert_true(n > 2);
}

static void a_model_without_memory_is_none(void **state)
{
    (void)state;
    weir_limit_opts opts = options(NULL);
    weir_limit_model *model = NULL;
    fail_allocation(1, false);
    assert_int_equal(weir_limit_model_create(&model, &opts, 0), WEIR_ENOMEM);
    assert_true(stop_failing());
    assert_null(model);
}

/* Every call, with every allocation failing: none of them needs any. */
static void calls_need_no_memory(void **state)
{
    (void)state;
    weir_limit_opts opts = options(NULL);
    weir_limit *limit;
    assert_int_equal(weir_limit_create(&limit, &opts), WEIR_OK);
    fail_allocation(1, true);
    weir_permit permits[20], more;
    for (int i = 0; i < 20; i++)
        assert_int_equal(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permits[i]), WEIR_OK);
    assert_int_equal(weir_limit_acquire(limit, 1, 0, weir_after(WEIR_MILLISECOND), &more),
                     WEIR_ETIMEDOUT);
    for (int i = 0; i < 20; i++)
        weir_limit_release(limit, &permits[i], WEIR_LIMIT_SUCCESS);
    weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
    assert_int_equal(weir_limit_get_snapshot(limit, &now), WEIR_OK);
    assert_int_equal(now.released, 20);
    assert_false(stop_failing());
    weir_limit_destroy(limit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_without_memory_leaves_nothing_behind),
        cmocka_unit_test(create_of_a_shared_one_without_memory_leaves_nothing_behind),
        cmocka_unit_test(a_model_without_memory_is_none),
        cmocka_unit_test(calls_need_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
