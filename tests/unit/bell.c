/* base/bell.h: descriptors that poll readable. */
#include "contract/support.h"

#include <poll.h>
#include <sys/resource.h>

#include "base/bell.h"

static bool polls_readable(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    return poll(&poller, 1, 0) == 1 && (poller.revents & POLLIN);
}

static void a_level_is_made_once_and_not_readable(void **state)
{
    (void)state;
    weir__level level = WEIR__LEVEL_INIT;
    assert_int_equal(weir__level_open(&level), WEIR_OK);
    int fd = level.fd;
    assert_int_equal(weir__level_open(&level), WEIR_OK);
    assert_int_equal(level.fd, fd);
    assert_false(polls_readable(fd));
    weir__level_close(&level);
}

static void a_level_stays_what_it_was_set_to(void **state)
{
    (void)state;
    weir__level level = WEIR__LEVEL_INIT;
    assert_int_equal(weir__level_open(&level), WEIR_OK);
    for (int round = 0; round < 3; round++) {
        weir__level_set(&level, true);
        weir__level_set(&level, true);
        assert_true(polls_readable(level.fd));
        assert_true(polls_readable(level.fd));
        weir__level_set(&level, false);
        assert_false(polls_readable(level.fd));
    }
    weir__level_close(&level);
}

static void without_a_descriptor_a_level_takes_what_it_is_told(void **state)
{
    (void)state;
    weir__level level = WEIR__LEVEL_INIT;
    weir__level_set(&level, true);
    assert_false(level.readable);
    weir__level_close(&level);
}

static void without_descriptors_opening_says_so(void **state)
{
    (void)state;
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    weir__level level = WEIR__LEVEL_INIT;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int rc = weir__level_open(&level);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(rc, WEIR_ENOFD);
    assert_true(level.fd < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_level_is_made_once_and_not_readable),
        cmocka_unit_test(a_level_stays_what_it_was_set_to),
        cmocka_unit_test(without_a_descriptor_a_level_takes_what_it_is_told),
        cmocka_unit_test(without_descriptors_opening_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
