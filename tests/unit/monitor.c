/* What a monitor is made of: names that stand in two places, numbers and strings as they are written, and
 * rows that forget. */
#include "contract/support.h"

#include <locale.h>
#include <string.h>

#include <weir/breaker.h>
#include <weir/memory.h>
#include <weir/pipeline.h>

#include "observe/monitor_impl.h"
#include "observe/out.h"
#include "observe/track.h"

/* ---- names ---------------------------------------------------------------------------------- */

static void states_are_called_as_their_headers_call_them(void **state)
{
    (void)state;
    for (int i = 0; i <= WEIR_BREAKER_ISOLATED; i++)
        assert_string_equal(weir__state_name(WEIR_STATS_BREAKER, (uint64_t)i),
                            weir_breaker_state_name(i));
    for (int i = 0; i <= WEIR_MEMORY_SHED; i++)
        assert_string_equal(weir__state_name(WEIR_STATS_GOVERNOR, (uint64_t)i),
                            weir_memory_step_name(i));
    for (int i = 0; i < WEIR_CAUSES; i++)
        assert_string_equal(weir__cause_name((uint64_t)i), weir_cause_name(i));
    assert_null(weir__state_name(WEIR_STATS_BREAKER, WEIR_BREAKER_ISOLATED + 1));
    assert_null(weir__state_name(WEIR_STATS_GOVERNOR, UINT64_MAX));
    assert_null(weir__state_name(WEIR_STATS_QUEUE, 0));
    assert_null(weir__cause_name(WEIR_CAUSES));
}

static void a_kind_has_its_numbers_and_what_is_told(void **state)
{
    (void)state;
    static weir_stats_record r;
    r.kind = WEIR_STATS_RATE;
    assert_true(weir__has_number(&r, WEIR_STATS_RATE_PER_HOUR));
    assert_false(weir__has_number(&r, WEIR_STATS_DEPTH));
    assert_false(weir__has_number(&r, WEIR_STATS_WORKERS));
    r.number[WEIR_STATS_WORKERS] = 1;
    assert_true(weir__has_number(&r, WEIR_STATS_WORKERS));
    r.kind = WEIR_STATS_SHARED_QUEUE; /* nobody knows */
    assert_false(weir__has_number(&r, WEIR_STATS_DEPTH));
    r.kind = WEIR_STATS_QUEUE;
    assert_true(weir__has_number(&r, WEIR_STATS_DEPTH));
    assert_false(weir__has_number(&r, WEIR_STATS_IN_FLIGHT));
    r.number[WEIR_STATS_REPORTS_DONE] = 1;
    assert_true(weir__has_number(&r, WEIR_STATS_IN_FLIGHT));
}

static void only_a_kind_that_is_timed_has_times(void **state)
{
    (void)state;
    static const int never[] = {WEIR_STATS_SHARED_QUEUE, WEIR_STATS_LIMIT,    WEIR_STATS_RATE,
                                WEIR_STATS_BREAKER,      WEIR_STATS_GOVERNOR, WEIR_STATS_WATERMARK};
    static weir_stats_record r;
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        r.kind = (weir_stats_kind)never[i];
        assert_false(weir__has_times(&r, 0) || weir__has_times(&r, 1));
    }
    r.kind = WEIR_STATS_QUEUE;
    assert_true(weir__has_times(&r, 0) && !weir__has_times(&r, 1));
    r.kind = WEIR_STATS_PROCESS_POOL;
    assert_true(!weir__has_times(&r, 0) && weir__has_times(&r, 1));
    r.kind = WEIR_STATS_STAGE;
    assert_true(weir__has_times(&r, 0) && weir__has_times(&r, 1));
}

/* ---- writing -------------------------------------------------------------------------------- */

static char written[65536];

static int keep(void *ctx, const char *text, size_t n)
{
    size_t *at = ctx;
    memcpy(written + *at, text, n);
    *at += n;
    written[*at] = '\0';
    return WEIR_OK;
}

static weir__out out;
static size_t length;

static weir__out *fresh(void)
{
    length = 0;
    weir__out_begin(&out, keep, &length);
    return &out;
}

static void assert_written(const char *text)
{
    assert_int_equal(weir__out_end(&out), WEIR_OK);
    assert_string_equal(written, text);
}

static void seconds_are_exact(void **state)
{
    (void)state;
    weir__out_seconds(fresh(), 0);
    assert_written("0");
    weir__out_seconds(fresh(), 1);
    assert_written("0.000000001");
    weir__out_seconds(fresh(), UINT64_C(1764373563120000000));
    assert_written("1764373563.12");
    weir__out_seconds(fresh(), UINT64_MAX);
    assert_written("18446744073.709551615");
}

static void doubles_are_decimal_in_every_locale(void **state)
{
    (void)state;
    setlocale(LC_ALL, "de_DE.UTF-8"); /* where there is one */
    weir__out_double(fresh(), 0.5);
    assert_written("0.5");
    weir__out_double(fresh(), -1.25);
    assert_written("-1.25");
    weir__out_double(fresh(), 1e-9);
    assert_written("0");
    weir__out_double(fresh(), 1234567);
    assert_written("1234567");
    weir__out_double(fresh(), 2.5e20);
    assert_written("2.500000e+20");
    setlocale(LC_ALL, "C");
}

static void what_is_no_utf8_is_replaced(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x80",         "\xc0\xaf",         "\xe0\x80\x80",
                                      "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82",
                                      "\xf0\x9f\x98"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        weir__out_string(fresh(), bad[i]);
        assert_int_equal(weir__out_end(&out), WEIR_OK);
        assert_non_null(strstr(written, "\xef\xbf\xbd"));
        assert_null(strstr(written, bad[i]));
    }
    weir__out_string(fresh(), "\xe2\x82\xac \xf0\x9f\x98\x80 \xc3\xa9");
    assert_written("\"\xe2\x82\xac \xf0\x9f\x98\x80 \xc3\xa9\"");
}

static void strings_are_escaped(void **state)
{
    (void)state;
    weir__out_string(fresh(), "a\"b\\c\nd\te");
    assert_written("\"a\\\"b\\\\c\\u000ad\\u0009e\"");
    weir__out_label(fresh(), "a\"b\\c\nd");
    assert_written("\"a\\\"b\\\\c\\nd\"");
}

static void long_text_goes_out_in_pieces(void **state)
{
    (void)state;
    weir__out *o = fresh();
    for (int i = 0; i < 10000; i++)
        weir__out_count(o, (uint64_t)(i % 10));
    assert_int_equal(weir__out_end(o), WEIR_OK);
    assert_int_equal(length, 10000);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(written[i], '0' + i % 10);
}

/* ---- rows ----------------------------------------------------------------------------------- */

static void a_row_keeps_the_last_so_many_in_bounded_room(void **state)
{
    (void)state;
    weir__track track = {0};
    for (int i = 0; i < 10000; i++) {
        assert_true(weir__track_reserve(&track, sizeof i, 1));
        *(int *)weir__track_push(&track, sizeof i) = i;
        if (track.n > 10)
            weir__track_drop(&track, track.n - 10);
        for (size_t j = 0; j < track.n; j++)
            assert_int_equal(*(int *)weir__track_at(&track, sizeof i, j),
                             i + 1 - (int)track.n + (int)j);
    }
    assert_true(track.room <= 64);
    weir__track_fini(&track);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_are_called_as_their_headers_call_them),
        cmocka_unit_test(a_kind_has_its_numbers_and_what_is_told),
        cmocka_unit_test(only_a_kind_that_is_timed_has_times),
        cmocka_unit_test(seconds_are_exact),
        cmocka_unit_test(doubles_are_decimal_in_every_locale),
        cmocka_unit_test(what_is_no_utf8_is_replaced),
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(long_text_goes_out_in_pieces),
        cmocka_unit_test(a_row_keeps_the_last_so_many_in_bounded_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
