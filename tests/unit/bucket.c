/* bucket.c - what flow/bucket does when much time passes, or much is owed; time is an argument here.
 *
 * Positions have 64 bits.  At the highest rate they come round in half a minute, so decades of a slow
 * bucket are seconds of this one.
 */
#include "flow/bucket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"

#define SECOND INT64_C(1000000000)
#define START  (100 * SECOND)
#define BURST  UINT64_C(10)

/* 2^39 tokens in a second: terms are old after 2 s, and forgotten after 8. */
static weir__bucket make(uint64_t burst)
{
    weir__rate_terms terms = {
        .t0 = START,
        .rate = WEIR__RATE_MAX,
        .per_ns = (uint64_t)(2 * SECOND),
        .burst = burst * WEIR__TOKEN,
    };
    weir__rate_set_speed(&terms);
    weir__bucket bucket = {.page = weir__calloc_line(weir__bucket_size(1))};
    assert_non_null(bucket.page);
    assert_int_equal(weir__bucket_init(bucket.page, 1, &terms), WEIR_OK);
    weir__bucket_begin_counting(&bucket, NULL, NULL);
    return bucket;
}

static bool take(const weir__bucket *bucket, uint64_t tokens, weir_time now)
{
    return weir__bucket_try(bucket, tokens * WEIR__TOKEN, now);
}

static void check_is_full(const weir__bucket *bucket, weir_time now)
{
    assert_true(take(bucket, BURST, now));
    assert_false(take(bucket, 1, now));
}

static void a_bucket_that_is_used_goes_on_when_positions_come_round(void **state)
{
    (void)state;
    weir__bucket bucket = make(BURST);
    for (int i = 0; i < 200; i++) /* round ten times */
        check_is_full(&bucket, START + i * 3 * SECOND / 2);
    assert_int_equal(weir__bucket_get_counts(&bucket).granted, 200 * BURST);
    weir__free(bucket.page);
}

static void a_bucket_that_nobody_used_for_very_long_is_full(void **state)
{
    (void)state;
    weir__bucket bucket = make(BURST);
    for (int seconds = 1; seconds < 200; seconds += 7) {
        weir_time now = START + seconds * 1000 * SECOND;
        check_is_full(&bucket, now);
        assert_int_equal(weir__bucket_level(&bucket, now), 0);
    }
    weir__free(bucket.page);
}

static void other_terms_after_very_long_begin_with_a_full_bucket(void **state)
{
    (void)state;
    weir__bucket bucket = make(BURST);
    check_is_full(&bucket, START);
    weir_time now = START + 1000 * SECOND;
    assert_int_equal(weir__bucket_set(&bucket, 1, (uint64_t)SECOND, BURST / 2 * WEIR__TOKEN, now),
                     WEIR_OK);
    assert_true(take(&bucket, BURST / 2, now));
    assert_false(take(&bucket, 1, now + SECOND - 1));
    assert_true(take(&bucket, 1, now + SECOND));
    weir__free(bucket.page);
}

static void a_clock_that_goes_back_gives_nothing(void **state)
{
    (void)state;
    weir__bucket bucket = make(BURST);
    check_is_full(&bucket, START);
    assert_false(take(&bucket, 1, START - 5 * SECOND));
    assert_int_equal(weir__bucket_set(&bucket, 1, (uint64_t)SECOND, BURST * WEIR__TOKEN, 1),
                     WEIR_OK);
    assert_false(take(&bucket, 1, START));
    assert_true(take(&bucket, 1, START + SECOND));
    weir__free(bucket.page);
}

static void who_would_owe_too_much_reserves_nothing(void **state)
{
    (void)state;
    weir__bucket bucket = make(WEIR__BURST_MAX);
    weir__owed owed[8];
    int n = 0;
    while (n < 8 && weir__bucket_reserve(&bucket, WEIR__BURST_MAX * WEIR__TOKEN, START, &owed[n]))
        n++;
    assert_in_range(n, 4, 6); /* what is inside, and 2^40 tokens */
    int64_t level = weir__bucket_level(&bucket, START);
    assert_true(level < 0);
    assert_true(weir__bucket_unreserve(&bucket, &owed[n - 1]));
    assert_int_equal(weir__bucket_level(&bucket, START),
                     level + (int64_t)owed[n - 1].end - (int64_t)owed[n - 1].begin);
    assert_true(weir__bucket_reserve(&bucket, WEIR__TOKEN, START, &owed[n - 1]));
    weir__free(bucket.page);
}

static void a_larger_burst_begins_with_no_more_than_the_smaller_one_held(void **state)
{
    (void)state;
    weir__bucket bucket = make(BURST);
    check_is_full(&bucket, START);
    weir_time now = START + SECOND; /* long full */
    assert_int_equal(weir__bucket_set(&bucket, 1, (uint64_t)SECOND, 2 * BURST * WEIR__TOKEN, now),
                     WEIR_OK);
    assert_int_equal(weir__bucket_level(&bucket, now), BURST * WEIR__TOKEN);
    weir__free(bucket.page);
}

/* As it still has the turn. */
static void who_reserves_comes_right_after_who_has_just_taken(void **state)
{
    (void)state;
    weir__bucket bucket = make(BURST);
    weir__turn turn = WEIR__NO_TURN;
    weir__owed owed;
    weir_time when;
    weir__bucket_enter(&bucket, &turn, 3 * WEIR__TOKEN);
    assert_true(weir__bucket_take(&bucket, &turn, 3 * WEIR__TOKEN, 0, START, &when));
    assert_true(weir__bucket_reserve(&bucket, BURST * WEIR__TOKEN, START, &owed));
    assert_int_equal(owed.due, owed.end);
    weir__bucket_leave(&bucket, &turn);
    weir__free(bucket.page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bucket_that_is_used_goes_on_when_positions_come_round),
        cmocka_unit_test(a_bucket_that_nobody_used_for_very_long_is_full),
        cmocka_unit_test(other_terms_after_very_long_begin_with_a_full_bucket),
        cmocka_unit_test(a_clock_that_goes_back_gives_nothing),
        cmocka_unit_test(who_would_owe_too_much_reserves_nothing),
        cmocka_unit_test(a_larger_burst_begins_with_no_more_than_the_smaller_one_held),
        cmocka_unit_test(who_reserves_comes_right_after_who_has_just_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
