/* A watermark that gets no memory or no descriptor: an error, nothing left behind. */
#include "faults.h"

#include <sys/resource.h>

#include <weir/watermark.h>

static int create(weir_watermark **ret_mark)
{
    weir_watermark_opts opts = WEIR_WATERMARK_OPTS_INIT;
    opts.high = 10;
    return weir_watermark_create(ret_mark, &opts);
}

static void create_without_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    int n = 0;
    for (bool failed = true; failed; n++) {
        weir_watermark *mark = NULL;
        fail_allocation(n + 1, false);
        int rc = create(&mark);
        failed = stop_failing();
        assert_int_equal(rc, failed ? WEIR_ENOMEM : WEIR_OK);
        assert_true((mark != NULL) == !failed);
        weir_watermark_destroy(mark);
    }
    assert_true(n > 1);
}

static void ignore(weir_pending *pending, int result)
{
    (void)pending, (void)result;
}

/* Every call, with every allocation failing: none of them needs any. */
static void calls_need_no_memory(void **state)
{
    (void)state;
    weir_watermark *mark;
    assert_int_equal(create(&mark), WEIR_OK);
    weir_watermark_snapshot now = WEIR_WATERMARK_SNAPSHOT_INIT;
    weir_pending pending = {.ready = ignore};
    fail_allocation(1, true);
    assert_true(weir_watermark_fd(mark) >= 0);
    assert_int_equal(weir_watermark_add(mark, 10), WEIR_PAUSED);
    assert_int_equal(weir_watermark_drain(mark, weir_after(WEIR_MILLISECOND)), WEIR_ETIMEDOUT);
    assert_int_equal(weir_watermark_drain_async(mark, &pending), WEIR_WAITING);
    assert_int_equal(weir_watermark_get_snapshot(mark, &now), WEIR_OK);
    assert_int_equal(weir_watermark_sub(mark, 10), WEIR_OK);
    assert_int_equal(weir_watermark_set(mark, 20, 0), WEIR_OK);
    weir_watermark_close(mark);
    assert_false(stop_failing());
    weir_watermark_destroy(mark);
}

static void without_a_descriptor_everything_else_goes_on(void **state)
{
    (void)state;
    weir_watermark *mark;
    assert_int_equal(create(&mark), WEIR_OK);
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int rc = weir_watermark_fd(mark);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(rc, WEIR_ENOFD);
    assert_int_equal(weir_watermark_add(mark, 10), WEIR_PAUSED);
    assert_int_equal(weir_watermark_sub(mark, 10), WEIR_OK);
    assert_true(weir_watermark_fd(mark) >= 0);
    weir_watermark_destroy(mark);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_without_memory_leaves_nothing_behind),
        cmocka_unit_test(calls_need_no_memory),
        cmocka_unit_test(without_a_descriptor_everything_else_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
