/* Every sentence of <weir/base.h>, seen from outside. */
#include "support.h"

#include <string.h>

#include <weir/base.h>

static const int errors[] = {
#define X(name, value, text) WEIR_##name,
    WEIR_ERROR_MAP(X)
#undef X
};
#define ERRORS (sizeof(errors) / sizeof(*errors))

static void every_error_is_negative_and_has_a_text_of_its_own(void **state)
{
    (void)state;
    for (size_t a = 0; a < ERRORS; a++) {
        assert_true(errors[a] < 0);
        assert_string_not_equal(weir_strerror(errors[a]), weir_strerror(WEIR_OK));
        assert_string_not_equal(weir_strerror(errors[a]), weir_strerror(1));
        for (size_t b = a + 1; b < ERRORS; b++) {
            assert_int_not_equal(errors[a], errors[b]);
            assert_string_not_equal(weir_strerror(errors[a]), weir_strerror(errors[b]));
        }
    }
}

static void every_error_tells_its_name(void **state)
{
    (void)state;
    assert_string_equal(weir_error_name(WEIR_OK), "WEIR_OK");
    assert_string_equal(weir_error_name(WEIR_EFULL), "WEIR_EFULL");
#define X(name, value, text) assert_string_equal(weir_error_name(WEIR_##name), "WEIR_" #name);
    WEIR_ERROR_MAP(X)
#undef X
}

static void what_is_no_error_is_unknown(void **state)
{
    (void)state;
    const int others[] = {1, 2, -100, -1000, 1 << 30};
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        assert_string_equal(weir_strerror(others[i]), "unknown error");
        assert_string_equal(weir_error_name(others[i]), "WEIR_?");
    }
}

static void now_is_positive_and_never_goes_back(void **state)
{
    (void)state;
    weir_time before = weir_now();
    assert_true(before > 0);
    for (int i = 0; i < 1000; i++) {
        weir_time now = weir_now();
        assert_true(now >= before);
        before = now;
    }
}

static void after_counts_from_now(void **state)
{
    (void)state;
    weir_time before = weir_now(), point = weir_after(WEIR_SECOND);
    assert_true(point >= before + WEIR_SECOND && point <= weir_now() + WEIR_SECOND);
}

static void after_nothing_is_a_poll(void **state)
{
    (void)state;
    assert_int_equal(weir_after(0), WEIR_POLL);
    assert_int_equal(weir_after(-1), WEIR_POLL);
    assert_int_equal(weir_after(INT64_MIN), WEIR_POLL);
}

static void after_very_long_stays_below_forever(void **state)
{
    (void)state;
    assert_true(weir_after(INT64_MAX) < WEIR_FOREVER);
    assert_true(weir_after(INT64_MAX - 1000) < WEIR_FOREVER);
    assert_true(weir_after(INT64_MAX) > weir_now() + WEIR_SECOND * 3600 * 24 * 365 * 100);
}

static void the_version_is_that_of_the_header(void **state)
{
    (void)state;
    char expected[32];
    snprintf(expected, sizeof(expected), "%d.%d.%d", WEIR_VERSION_MAJOR, WEIR_VERSION_MINOR,
             WEIR_VERSION_PATCH);
    assert_string_equal(weir_version(), expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_error_is_negative_and_has_a_text_of_its_own),
        cmocka_unit_test(every_error_tells_its_name),
        cmocka_unit_test(what_is_no_error_is_unknown),
        cmocka_unit_test(now_is_positive_and_never_goes_back),
        cmocka_unit_test(after_counts_from_now),
        cmocka_unit_test(after_nothing_is_a_poll),
        cmocka_unit_test(after_very_long_stays_below_forever),
        cmocka_unit_test(the_version_is_that_of_the_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
