/* model/rate.h: the arithmetic of a token bucket, with times passed in. */
#include "contract/support.h"

#include "model/rate.h"

__extension__ typedef unsigned __int128 u128;

static uint64_t mixed(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

/* A bucket that only one has. */
typedef struct bucket {
    weir__rate_terms terms;
    uint64_t taken;
} bucket;

static bucket full(uint64_t rate, int64_t per_ns, uint64_t burst, int64_t t0)
{
    must(weir__rate_is_valid(rate, per_ns, burst));
    bucket b = {{t0, 12345, rate, (uint64_t)per_ns, burst * WEIR__TOKEN}, 0};
    b.taken = b.terms.s0 - b.terms.burst;
    weir__rate_set_speed(&b.terms);
    return b;
}

static bool take(bucket *b, int64_t now, uint64_t tokens)
{
    weir__supply supply = weir__rate_supply(&b->terms, now);
    weir__rate_ask ask = {tokens * WEIR__TOKEN, 0, 0};
    uint64_t taken = 77;
    bool took = weir__rate_take(&b->terms, supply, b->taken, &ask, &taken);
    must(took || taken == 77);
    if (took)
        b->taken = taken;
    if (supply.is_old) {
        b->terms.t0 = now;
        b->terms.s0 = supply.position;
        if (supply.is_forgotten && !took)
            b->taken = supply.position - b->terms.burst;
    }
    return took;
}

static int64_t when(const bucket *b, int64_t now, uint64_t tokens)
{
    weir__rate_ask ask = {tokens * WEIR__TOKEN, 0, 0};
    return weir__rate_when(
        &b->terms,
        weir__rate_position(&b->terms, weir__rate_supply(&b->terms, now), b->taken, &ask));
}

static void five_at_once_and_then_one_every_half_second(void **state)
{
    (void)state;
    bucket b = full(2, WEIR_SECOND, 5, 1000);
    int64_t now = 1000;
    for (int i = 0; i < 5; i++)
        assert_true(take(&b, now, 1));
    for (int i = 0; i < 15; i++) {
        assert_false(take(&b, now, 1));
        int64_t at = when(&b, now, 1);
        assert_int_equal(at, now + WEIR_SECOND / 2);
        assert_false(take(&b, at - 1, 1));
        assert_true(take(&b, at, 1));
        now = at;
    }
}

static void a_full_bucket_gives_its_burst_one_by_one_at_any_instant(void **state)
{
    (void)state;
    for (int64_t now = 1; now < 2000; now += 7) {
        bucket b = full(7, 3 * WEIR_SECOND, 100, 0);
        for (int i = 0; i < 100; i++)
            assert_true(take(&b, now, 1));
        assert_false(take(&b, now, 1));
        assert_int_equal(weir__rate_level(&b.terms, weir__rate_supply(&b.terms, now), b.taken), 0);
    }
}

static void what_is_not_taken_stops_at_the_burst(void **state)
{
    (void)state;
    bucket b = full(1000, WEIR_SECOND, 7, 1);
    assert_true(take(&b, 3600 * WEIR_SECOND, 7));
    assert_false(take(&b, 3600 * WEIR_SECOND, 1));
    assert_true(take(&b, 7200 * WEIR_SECOND + 123, 7));
    assert_false(take(&b, 7200 * WEIR_SECOND + 124, 1));
}

static void a_clock_that_goes_back_gives_nothing_and_takes_nothing(void **state)
{
    (void)state;
    bucket b = full(10, WEIR_SECOND, 3, 50 * WEIR_SECOND);
    assert_true(take(&b, 60 * WEIR_SECOND, 3));
    assert_false(take(&b, 10 * WEIR_SECOND, 1));
    assert_false(take(&b, -5, 1));
    assert_false(take(&b, 60 * WEIR_SECOND + WEIR_SECOND / 10 - 1, 1));
    assert_true(take(&b, 60 * WEIR_SECOND + WEIR_SECOND / 10, 1));
}

/* A rate whose interval is no whole number of nanoseconds, asked at every instant it allows. */
static void thirty_years_later_not_a_token_is_lost(void **state)
{
    (void)state;
    bucket b = full(7, 3 * WEIR_SECOND, 2, 1);
    assert_true(take(&b, 1, 2));
    for (int64_t n = 1; n < 1000; n++)
        assert_true(take(&b, when(&b, 1, 1), 1));
    int64_t years = INT64_C(30) * 365 * 86400 * WEIR_SECOND;
    uint64_t position = weir__rate_supply(&b.terms, 1 + years).position;
    assert_true(position - b.terms.s0 ==
                (uint64_t)((u128)years * 7 * WEIR__TOKEN / (3 * WEIR_SECOND)));
    /* 999 intervals after the first tokens, to the nanosecond and rounded up. */
    assert_int_equal(weir__rate_when(&b.terms, b.taken), 1 + (999 * 3 * WEIR_SECOND + 6) / 7);
}

static void the_short_way_says_what_the_division_says(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (int i = 0; i < 300000; i++) {
        weir__rate_terms terms = {.rate = 1 + mixed(&seed) % (UINT64_C(1) << (mixed(&seed) % 31)),
                                  .per_ns = (1 + mixed(&seed)) << (mixed(&seed) % 30),
                                  .burst = WEIR__TOKEN};
        int64_t now = (int64_t)(mixed(&seed) << (mixed(&seed) % 31));
        weir__supply divided = weir__rate_supply(&terms, now);
        weir__rate_set_speed(&terms);
        weir__supply supply = weir__rate_supply(&terms, now);
        assert_true(supply.position == divided.position && supply.is_old == divided.is_old &&
                    supply.is_forgotten == divided.is_forgotten);
    }
}

static void the_slowest_and_the_fastest_rate_work_for_years(void **state)
{
    (void)state;
    const int64_t day = 86400 * WEIR_SECOND;
    bucket slow = full(1, day, 1, 1);
    assert_true(take(&slow, 1, 1));
    for (int i = 1; i <= 3650; i++) {
        int64_t at = when(&slow, 1, 1);
        assert_int_equal(at, 1 + i * day);
        assert_false(take(&slow, at - 1, 1));
        assert_true(take(&slow, at, 1));
    }
    bucket fast = full(1000000, 1000, 1000000, 1); /* 1e12 a second */
    int64_t now = 1;
    for (int i = 0; i < 100000; i++) {
        now +=
            (i % 7 + 1) * 30 * WEIR_SECOND; /* 2^64 grains are 18 s: it wraps round all the time */
        assert_true(take(&fast, now, 1000000));
        assert_false(take(&fast, now, 1));
        assert_true(take(&fast, now + 1, 1000));
        assert_false(take(&fast, now + 1, 1));
    }
}

static void what_was_forgotten_for_years_is_full_and_not_owed(void **state)
{
    (void)state;
    for (int64_t years = 1; years < 250; years++) {
        bucket b = full(WEIR_SECOND, WEIR_SECOND, 10, 1);
        assert_true(take(&b, 1, 10));
        int64_t now = years * 365 * 86400 * WEIR_SECOND;
        assert_int_equal(weir__rate_level(&b.terms, weir__rate_supply(&b.terms, now), b.taken),
                         10 * WEIR__TOKEN);
        assert_true(take(&b, now, 10));
        assert_false(take(&b, now, 1));
        assert_true(take(&b, now + 1, 1));
    }
}

#define GRANTS 400

/* All windows that begin and end with a grant; the others hold less. */
static void no_window_ever_holds_more_than_rate_times_it_and_a_burst(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 300; round++) {
        uint64_t rate = 1 + mixed(&seed) % 1000, per = 1 + mixed(&seed) % 100000;
        uint64_t burst = 1 + mixed(&seed) % 20;
        if (rate > per * 1000)
            continue;
        bucket b = full(rate, (int64_t)per, burst, 5);
        struct {
            int64_t at;
            uint64_t tokens;
        } grants[GRANTS];
        int n = 0;
        int64_t now = 5;
        while (n < GRANTS) {
            uint64_t tokens = 1 + mixed(&seed) % burst;
            switch (mixed(&seed) % 4) {
            case 0: break;
            case 1: now += (int64_t)(mixed(&seed) % (per / rate + 2)); break;
            case 2: now += (int64_t)(mixed(&seed) % (per * burst / rate + 2)); break;
            default:
                if (when(&b, now, tokens) > now)
                    now = when(&b, now, tokens);
            }
            if (!take(&b, now, tokens))
                continue;
            grants[n].at = now;
            grants[n++].tokens = tokens;
        }
        for (int i = 0; i < n; i++) {
            uint64_t sum = 0;
            for (int j = i; j < n; j++) {
                sum += grants[j].tokens;
                u128 passed = (u128)(uint64_t)(grants[j].at - grants[i].at);
                u128 above = sum > burst ? sum - burst : 0;
                assert_true(above * per * WEIR__TOKEN < passed * rate * WEIR__TOKEN + per);
            }
        }
    }
}

/* Asked for as soon as it may be, the rate is reached exactly. */
static void who_always_takes_gets_the_whole_rate(void **state)
{
    (void)state;
    bucket b = full(1000, WEIR_SECOND, 10, 1);
    uint64_t tokens = 0;
    for (int64_t now = 1; now <= 1 + 10 * WEIR_SECOND; now += 37 * WEIR_MICROSECOND)
        while (take(&b, now, 1))
            tokens++;
    assert_in_range(tokens, 10009, 10010);
}

static void who_is_behind_leaves_to_the_others_what_they_wait_for(void **state)
{
    (void)state;
    bucket b = full(1, 1000, 10, 0);
    uint64_t taken = 0;
    weir__rate_ask ask = {4 * WEIR__TOKEN, 6 * WEIR__TOKEN, 0};
    weir__supply supply = weir__rate_supply(&b.terms, 0);
    assert_true(weir__rate_take(&b.terms, supply, b.taken, &ask, &taken));
    ask.ahead++;
    assert_false(weir__rate_take(&b.terms, supply, b.taken, &ask, &taken));
    assert_true(take(&b, 0, 1));
    supply = weir__rate_supply(&b.terms, 999);
    ask.ahead--;
    assert_false(weir__rate_take(&b.terms, supply, b.taken, &ask, &taken));
    assert_int_equal(
        weir__rate_when(&b.terms, weir__rate_position(&b.terms, supply, b.taken, &ask)), 1000);
}

static void what_was_promised_to_later_ones_does_not_hold_up_who_came_before(void **state)
{
    (void)state;
    bucket b = full(1, 1000, 10, 0);
    assert_true(take(&b, 0, 10));
    weir__supply supply = weir__rate_supply(&b.terms, 2000);
    b.taken = weir__rate_owe(&b.terms, supply, b.taken, 5 * WEIR__TOKEN);
    assert_int_equal(weir__rate_level(&b.terms, supply, b.taken), -3 * (int64_t)WEIR__TOKEN);
    assert_false(take(&b, 4000, 2));
    weir__rate_ask ask = {2 * WEIR__TOKEN, 0, 5 * WEIR__TOKEN};
    uint64_t taken = 0;
    assert_true(weir__rate_take(&b.terms, supply, b.taken, &ask, &taken));
    assert_int_equal(weir__rate_when(&b.terms, taken), 7000);
}

static void terms_out_of_range_are_refused(void **state)
{
    (void)state;
    assert_true(weir__rate_is_valid(WEIR__RATE_MAX, WEIR__PER_MAX, WEIR__BURST_MAX));
    assert_true(weir__rate_is_valid(1, WEIR__PER_MAX, 1));
    assert_false(weir__rate_is_valid(0, 1, 1));
    assert_false(weir__rate_is_valid(1, 0, 1));
    assert_false(weir__rate_is_valid(1, -1, 1));
    assert_false(weir__rate_is_valid(1, 1, 0));
    assert_false(weir__rate_is_valid(WEIR__RATE_MAX + 1, WEIR__PER_MAX, 1));
    assert_false(weir__rate_is_valid(1, WEIR__PER_MAX + 1, 1));
    assert_false(weir__rate_is_valid(1, 1, WEIR__BURST_MAX + 1));
    assert_false(weir__rate_is_valid(2000, 1, 1));
}

static void what_never_comes_is_said_to_never_come(void **state)
{
    (void)state;
    weir__rate_terms terms = {1, 0, 1, (uint64_t)WEIR__PER_MAX, WEIR__TOKEN};
    assert_int_equal(weir__rate_when(&terms, 4 * WEIR__TOKEN), WEIR__RATE_NEVER);
    assert_int_equal(weir__rate_when(&terms, 3 * WEIR__TOKEN), 1 + 3 * WEIR__PER_MAX);
    assert_int_equal(weir__rate_when(&terms, (uint64_t)-5), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_at_once_and_then_one_every_half_second),
        cmocka_unit_test(a_full_bucket_gives_its_burst_one_by_one_at_any_instant),
        cmocka_unit_test(what_is_not_taken_stops_at_the_burst),
        cmocka_unit_test(a_clock_that_goes_back_gives_nothing_and_takes_nothing),
        cmocka_unit_test(thirty_years_later_not_a_token_is_lost),
        cmocka_unit_test(the_short_way_says_what_the_division_says),
        cmocka_unit_test(the_slowest_and_the_fastest_rate_work_for_years),
        cmocka_unit_test(what_was_forgotten_for_years_is_full_and_not_owed),
        cmocka_unit_test(no_window_ever_holds_more_than_rate_times_it_and_a_burst),
        cmocka_unit_test(who_always_takes_gets_the_whole_rate),
        cmocka_unit_test(who_is_behind_leaves_to_the_others_what_they_wait_for),
        cmocka_unit_test(what_was_promised_to_later_ones_does_not_hold_up_who_came_before),
        cmocka_unit_test(terms_out_of_range_are_refused),
        cmocka_unit_test(what_never_comes_is_said_to_never_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
