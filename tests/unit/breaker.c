/* model/breaker.h: every transition, by times that are passed in. */
#include "contract/support.h"

#include "model/breaker.h"

#define SUCCESS WEIR__BREAKER_SUCCESS
#define FAILURE WEIR__BREAKER_FAILURE
#define IGNORE  WEIR__BREAKER_IGNORE

static weir__breaker_rules rules(void)
{
    return (weir__breaker_rules){
        .window_calls = 10,
        .min_calls = 4,
        .failure_ratio = 0.5,
        .slow_ratio = 0.5,
        .slow_ns = 0,
        .half_open_calls = 3,
        .probe_ns = 1000,
        .open_ns = 100,
        .max_open_ns = 350,
        .multiplier = 2,
        .jitter = 0,
    };
}

static weir__breaker make(weir__breaker_rules r)
{
    weir__breaker breaker;
    assert_true(weir__breaker_init(&breaker, &r, true, 1, 0));
    return breaker;
}

static void obeys(const weir__breaker *b)
{
    const weir__breaker_counts *c = &b->counts;
    assert_int_equal(c->admitted,
                     c->succeeded + c->failed + c->ignored + c->expired + c->in_flight);
    assert_true(b->probes_out <= b->rules.half_open_calls);
    assert_true(b->trial.calls + b->trial_out <= b->rules.half_open_calls);
}

static weir__breaker_call begin(weir__breaker *b, int64_t now)
{
    weir__breaker_call call;
    assert_true(weir__breaker_admit(b, now, &call));
    obeys(b);
    return call;
}

static void end(weir__breaker *b, weir__breaker_call call, weir__breaker_result result, int64_t now)
{
    weir__breaker_report(b, &call, result, now);
    obeys(b);
}

static void call(weir__breaker *b, weir__breaker_result result, int64_t now)
{
    end(b, begin(b, now), result, now);
}

static void refuses(weir__breaker *b, int64_t now)
{
    weir__breaker_call none;
    assert_false(weir__breaker_admit(b, now, &none));
}

static void heard(weir__breaker *b, weir__breaker_state from, weir__breaker_state to)
{
    weir__breaker_event event;
    assert_true(weir__breaker_next_event(b, &event));
    assert_int_equal(event.from, from);
    assert_int_equal(event.to, to);
}

static void heard_all(weir__breaker *b)
{
    weir__breaker_event event;
    assert_false(weir__breaker_next_event(b, &event));
}

/* Open since `now`. */
static weir__breaker opened(weir__breaker_rules r, int64_t now)
{
    weir__breaker b = make(r);
    for (int i = 0; i < 4; i++)
        call(&b, FAILURE, now);
    assert_int_equal(b.state, WEIR__BREAKER_OPEN);
    heard(&b, WEIR__BREAKER_CLOSED, WEIR__BREAKER_OPEN);
    return b;
}

static void it_opens_when_the_share_is_reached_and_not_before_enough_calls(void **state)
{
    (void)state;
    weir__breaker b = make(rules());
    call(&b, FAILURE, 1);
    call(&b, FAILURE, 2);
    call(&b, FAILURE, 3);
    assert_int_equal(b.state, WEIR__BREAKER_CLOSED);
    heard_all(&b);
    call(&b, SUCCESS, 4); /* the fourth: now it is judged */
    assert_int_equal(b.state, WEIR__BREAKER_OPEN);
    heard(&b, WEIR__BREAKER_CLOSED, WEIR__BREAKER_OPEN);
    heard_all(&b);
    weir__breaker_fini(&b);
}

static void it_stays_closed_below_the_share(void **state)
{
    (void)state;
    weir__breaker b = make(rules());
    for (int i = 0; i < 1000; i++)
        call(&b, i % 10 < 4 && i >= 10 ? FAILURE : SUCCESS, i);
    assert_int_equal(b.state, WEIR__BREAKER_CLOSED);
    weir__breaker_fini(&b);
}

static void what_is_ignored_is_not_in_the_window(void **state)
{
    (void)state;
    weir__breaker b = make(rules());
    for (int i = 0; i < 3; i++)
        call(&b, FAILURE, i);
    for (int i = 0; i < 100; i++)
        call(&b, IGNORE, i);
    assert_int_equal(b.state, WEIR__BREAKER_CLOSED);
    assert_int_equal(b.by_count.tally.calls, 3);
    weir__breaker_fini(&b);
}

static void a_window_of_time_forgets_old_failures(void **state)
{
    (void)state;
    weir__breaker_rules r = rules();
    r.window_calls = 0;
    r.window_ns = 3200;
    weir__breaker b = make(r);
    for (int i = 0; i < 3; i++)
        call(&b, FAILURE, 1);
    call(&b, FAILURE, 5000);
    assert_int_equal(b.state, WEIR__BREAKER_CLOSED);
    assert_int_equal(weir__breaker_tally(&b, 5000).calls, 1);
    for (int i = 0; i < 3; i++)
        call(&b, FAILURE, 5001);
    assert_int_equal(b.state, WEIR__BREAKER_OPEN);
    weir__breaker_fini(&b);
}

static void slow_calls_open_it_although_they_succeed(void **state)
{
    (void)state;
    weir__breaker_rules r = rules();
    r.slow_ns = 50;
    weir__breaker b = make(r);
    for (int i = 0; i < 4; i++) {
        weir__breaker_call c = begin(&b, 10);
        end(&b, c, SUCCESS, i < 2 ? 60 : 59);
    }
    assert_int_equal(b.counts.slow, 2);
    assert_int_equal(b.state, WEIR__BREAKER_OPEN);
    weir__breaker_fini(&b);
}

static void an_open_breaker_lets_probes_through_after_the_open_time(void **state)
{
    (void)state;
    weir__breaker b = opened(rules(), 1000);
    refuses(&b, 1099);
    assert_int_equal(weir__breaker_retry_after(&b, 1040), 60);
    weir__breaker_call first = begin(&b, 1100);
    heard(&b, WEIR__BREAKER_OPEN, WEIR__BREAKER_HALF_OPEN);
    weir__breaker_call second = begin(&b, 1101), third = begin(&b, 1102);
    refuses(&b, 1103);
    assert_int_equal(weir__breaker_retry_after(&b, 1103), 997);
    end(&b, first, SUCCESS, 1110);
    assert_int_equal(b.state, WEIR__BREAKER_HALF_OPEN);
    end(&b, second, SUCCESS, 1111); /* one failure of three would not be half */
    assert_int_equal(b.state, WEIR__BREAKER_CLOSED);
    heard(&b, WEIR__BREAKER_HALF_OPEN, WEIR__BREAKER_CLOSED);
    end(&b, third, FAILURE, 1112); /* decides nothing any more */
    assert_int_equal(b.by_count.tally.calls, 0);
    assert_int_equal(b.counts.stale, 1);
    weir__breaker_fini(&b);
}

static void failing_probes_open_it_again_for_longer_each_time_up_to_the_most(void **state)
{
    (void)state;
    weir__breaker b = opened(rules(), 0);
    int64_t now = 0;
    const int64_t times[] = {100, 200, 350, 350};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(b.open_for_ns, times[i]);
        refuses(&b, now + times[i] - 1);
        now += times[i];
        weir__breaker_call one = begin(&b, now), two = begin(&b, now);
        end(&b, one, FAILURE, now);
        assert_int_equal(b.state, WEIR__BREAKER_HALF_OPEN);
        end(&b, two, FAILURE, now); /* two of three: certain */
        assert_int_equal(b.state, WEIR__BREAKER_OPEN);
    }
    now += 350;
    for (int i = 0; i < 2; i++)
        call(&b, SUCCESS, now);
    assert_int_equal(b.state, WEIR__BREAKER_CLOSED);
    for (int i = 0; i < 4; i++)
        call(&b, FAILURE, now);
    assert_int_equal(b.open_for_ns, 100); /* closing has set it back */
    assert_int_equal(b.counts.opened, 6);
    weir__breaker_fini(&b);
}

static void a_probe_that_never_reports_does_not_keep_it_half_open(void **state)
{
    (void)state;
    weir__breaker_rules r = rules();
    r.half_open_calls = 1;
    weir__breaker b = opened(r, 0);
    weir__breaker_call lost = begin(&b, 100);
    refuses(&b, 1099);
    assert_int_equal(b.state, WEIR__BREAKER_HALF_OPEN);
    refuses(&b, 1100); /* expired: open again since 1100, for 200 */
    assert_int_equal(b.state, WEIR__BREAKER_OPEN);
    assert_int_equal(b.counts.expired, 1);
    assert_int_equal(b.counts.in_flight, 0);
    call(&b, SUCCESS, 1300);
    assert_int_equal(b.state, WEIR__BREAKER_CLOSED);
    uint64_t failed = b.counts.failed;
    end(&b, lost, FAILURE, 1301);
    assert_int_equal(b.counts.late, 1);
    assert_int_equal(b.counts.failed, failed);
    weir__breaker_fini(&b);
}

static void a_probe_that_expired_long_ago_has_opened_it_then_and_not_now(void **state)
{
    (void)state;
    weir__breaker_rules r = rules();
    r.half_open_calls = 1;
    weir__breaker b = opened(r, 0);
    begin(&b, 100);
    heard(&b, WEIR__BREAKER_OPEN, WEIR__BREAKER_HALF_OPEN);
    call(&b, SUCCESS, 5000); /* the open time that began at 1100 is over, too */
    heard(&b, WEIR__BREAKER_HALF_OPEN, WEIR__BREAKER_OPEN);
    heard(&b, WEIR__BREAKER_OPEN, WEIR__BREAKER_HALF_OPEN);
    heard(&b, WEIR__BREAKER_HALF_OPEN, WEIR__BREAKER_CLOSED);
    heard_all(&b);
    weir__breaker_fini(&b);
}

static void a_slot_whose_probe_expired_knows_its_new_probe_from_the_old(void **state)
{
    (void)state;
    weir__breaker_rules r = rules();
    r.half_open_calls = 1;
    weir__breaker b = opened(r, 0);
    weir__breaker_call old = begin(&b, 100);
    weir__breaker_call new = begin(&b, 5000);
    assert_int_equal(old.probe, new.probe);
    end(&b, old, FAILURE, 5001);
    assert_int_equal(b.state, WEIR__BREAKER_HALF_OPEN);
    assert_int_equal(b.probes_out, 1);
    end(&b, new, SUCCESS, 5002);
    assert_int_equal(b.state, WEIR__BREAKER_CLOSED);
    weir__breaker_fini(&b);
}

static void probes_of_an_earlier_half_open_state_count_for_the_bound(void **state)
{
    (void)state;
    weir__breaker b = opened(rules(), 0);
    weir__breaker_call slow = begin(&b, 100);
    call(&b, FAILURE, 101);
    call(&b, FAILURE, 102);
    assert_int_equal(b.state, WEIR__BREAKER_OPEN);
    weir__breaker_call one = begin(&b, 302);
    begin(&b, 303);
    refuses(&b, 304); /* three are under way */
    assert_int_equal(b.probes_out, 3);
    end(&b, slow, SUCCESS, 305);
    assert_int_equal(b.trial.calls, 0);
    begin(&b, 306);
    refuses(&b, 307);
    end(&b, one, SUCCESS, 308);
    refuses(&b, 309); /* three in all belong to this trial */
    assert_int_equal(b.probes_peak, 3);
    weir__breaker_fini(&b);
}

static void an_ignored_probe_makes_room_for_another(void **state)
{
    (void)state;
    weir__breaker b = opened(rules(), 0);
    for (int i = 0; i < 50; i++)
        call(&b, IGNORE, 100 + i);
    assert_int_equal(b.state, WEIR__BREAKER_HALF_OPEN);
    call(&b, SUCCESS, 200);
    call(&b, SUCCESS, 201);
    assert_int_equal(b.state, WEIR__BREAKER_CLOSED);
    weir__breaker_fini(&b);
}

static void slow_probes_open_it_again(void **state)
{
    (void)state;
    weir__breaker_rules r = rules();
    r.slow_ns = 10;
    weir__breaker b = opened(r, 0);
    weir__breaker_call one = begin(&b, 100), two = begin(&b, 100);
    end(&b, one, SUCCESS, 110);
    end(&b, two, SUCCESS, 110);
    assert_int_equal(b.state, WEIR__BREAKER_OPEN);
    weir__breaker_fini(&b);
}

static void a_report_from_before_it_opened_decides_nothing(void **state)
{
    (void)state;
    weir__breaker b = make(rules());
    weir__breaker_call early[4];
    for (int i = 0; i < 4; i++)
        early[i] = begin(&b, 1);
    for (int i = 0; i < 4; i++)
        call(&b, FAILURE, 2);
    begin(&b, 102); /* half-open */
    for (int i = 0; i < 4; i++)
        end(&b, early[i], i < 2 ? FAILURE : SUCCESS, 103);
    assert_int_equal(b.state, WEIR__BREAKER_HALF_OPEN);
    assert_int_equal(b.trial.calls, 0);
    assert_int_equal(b.counts.stale, 4);
    weir__breaker_fini(&b);
}

static void an_isolated_breaker_is_closed_by_a_reset_and_by_nothing_else(void **state)
{
    (void)state;
    weir__breaker b = make(rules());
    weir__breaker_call under_way = begin(&b, 1);
    assert_true(weir__breaker_isolate(&b));
    assert_true(weir__breaker_isolate(&b));
    refuses(&b, INT64_MAX - 1);
    assert_true(weir__breaker_retry_after(&b, 5) == INT64_MAX);
    end(&b, under_way, FAILURE, 2);
    assert_int_equal(b.state, WEIR__BREAKER_ISOLATED);
    assert_true(weir__breaker_reset(&b));
    assert_int_equal(b.state, WEIR__BREAKER_CLOSED);
    heard(&b, WEIR__BREAKER_CLOSED, WEIR__BREAKER_ISOLATED);
    heard(&b, WEIR__BREAKER_ISOLATED, WEIR__BREAKER_CLOSED);
    heard_all(&b);
    weir__breaker_fini(&b);
}

static void a_reset_forgets_the_window_and_what_is_under_way(void **state)
{
    (void)state;
    weir__breaker b = make(rules());
    for (int i = 0; i < 3; i++)
        call(&b, FAILURE, 1);
    weir__breaker_call under_way = begin(&b, 1);
    assert_true(weir__breaker_reset(&b));
    end(&b, under_way, FAILURE, 2);
    for (int i = 0; i < 3; i++)
        call(&b, FAILURE, 3);
    assert_int_equal(b.state, WEIR__BREAKER_CLOSED);
    heard_all(&b);
    weir__breaker_fini(&b);
}

static void jitter_makes_the_open_time_longer_and_never_shorter(void **state)
{
    (void)state;
    weir__breaker_rules r = rules();
    r.jitter = 0.5;
    bool differs = false;
    for (uint64_t seed = 0; seed < 100; seed++) {
        weir__breaker b;
        assert_true(weir__breaker_init(&b, &r, false, seed, 0));
        for (int i = 0; i < 4; i++)
            call(&b, FAILURE, 0);
        assert_in_range(b.open_until, 100, 149);
        differs |= b.open_until > 110;
        weir__breaker_fini(&b);
    }
    assert_true(differs);
}

/* 64 notes, and what comes by itself has its note reserved. */
static void without_room_for_notes_it_stays_as_it_is_and_loses_none(void **state)
{
    (void)state;
    weir__breaker b = make(rules());
    int n = 0;
    for (; weir__breaker_isolate(&b) && weir__breaker_reset(&b); n++)
        ;
    assert_int_equal(n, 31); /* the last isolate had a note, the reset needs two */
    assert_int_equal(b.state, WEIR__BREAKER_ISOLATED);
    for (int i = 0; i < 31; i++) {
        heard(&b, WEIR__BREAKER_CLOSED, WEIR__BREAKER_ISOLATED);
        heard(&b, WEIR__BREAKER_ISOLATED, WEIR__BREAKER_CLOSED);
    }
    heard(&b, WEIR__BREAKER_CLOSED, WEIR__BREAKER_ISOLATED);
    heard_all(&b);
    weir__breaker_fini(&b);
}

static void an_open_breaker_waits_for_its_listener_before_it_probes(void **state)
{
    (void)state;
    weir__breaker b = make(rules());
    int64_t now = 0;
    while (true) { /* nobody takes the notes */
        for (int i = 0; i < 4 && b.state == WEIR__BREAKER_CLOSED; i++)
            call(&b, FAILURE, now);
        assert_int_equal(b.state, WEIR__BREAKER_OPEN);
        now += 100;
        weir__breaker_call probe;
        if (!weir__breaker_admit(&b, now, &probe))
            break;
        end(&b, probe, SUCCESS, now);
        call(&b, SUCCESS, now);
    }
    assert_true(b.n_events <= WEIR__BREAKER_EVENTS && b.n_events > WEIR__BREAKER_EVENTS - 3);
    refuses(&b, now + 1000000);
    weir__breaker_event event;
    weir__breaker_state at = WEIR__BREAKER_CLOSED;
    for (; weir__breaker_next_event(&b, &event); at = (weir__breaker_state)event.to)
        assert_int_equal(event.from, at); /* a chain without a gap */
    begin(&b, now + 1000001);
    assert_int_equal(b.state, WEIR__BREAKER_HALF_OPEN);
    weir__breaker_fini(&b);
}

static void it_is_calm_only_while_time_changes_nothing(void **state)
{
    (void)state;
    weir__breaker b = make(rules());
    assert_true(weir__breaker_is_calm(&b));
    weir__breaker_call early = begin(&b, 0);
    call(&b, FAILURE, 1);
    assert_false(weir__breaker_is_calm(&b));
    for (int i = 0; i < 10; i++) /* until the failure has left the window */
        call(&b, SUCCESS, 2);
    assert_true(weir__breaker_is_calm(&b));
    end(&b, early, SUCCESS, 0);
    assert_true(weir__breaker_isolate(&b));
    assert_false(weir__breaker_is_calm(&b));
    weir__breaker_fini(&b);

    b = opened(rules(), 0);
    begin(&b, 100);
    assert_true(weir__breaker_reset(&b));
    assert_false(weir__breaker_is_calm(&b)); /* a probe is out, and will expire */
    weir__breaker_fini(&b);

    weir__breaker_rules r = rules();
    r.slow_ns = 1;
    b = make(r);
    assert_false(weir__breaker_is_calm(&b));
    weir__breaker_fini(&b);
}

/* Anything at any time: the law, the bound and the chain of transitions hold after each step. */
static void whatever_happens_the_law_and_the_bound_hold(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        weir__random random = {seed};
        weir__breaker_rules r = rules();
        r.jitter = 0.3;
        r.slow_ns = seed % 2 ? 40 : 0;
        r.half_open_calls = (uint32_t)(1 + seed % 5);
        if (seed % 3 == 0) {
            r.window_calls = 0;
            r.window_ns = 500;
        }
        weir__breaker b = make(r);
        weir__breaker_state at = WEIR__BREAKER_CLOSED;
        weir__breaker_call calls[64];
        size_t n = 0;
        int64_t now = 0;
        for (int step = 0; step < 20000; step++) {
            uint64_t bits = weir__random_next(&random);
            now += (int64_t)(bits >> 8 & 15) * (bits >> 13 & 63 ? 1 : 200);
            unsigned what = bits % 16;
            bool sick = step / 500 % 2;
            if (what < 7 && n < 64) {
                n += weir__breaker_admit(&b, now, &calls[n]);
            } else if (what < 15 && n > 0) {
                size_t which = (size_t)(bits >> 20) % n;
                weir__breaker_result result = bits >> 40 & 7 ? sick ? FAILURE : SUCCESS : IGNORE;
                if (bits >> 45 & 15) /* else it is forgotten */
                    end(&b, calls[which], result, now);
                else if (!calls[which].probe)
                    continue;
                calls[which] = calls[--n];
            } else if (what == 15 && bits >> 50 < 20) {
                assert_true(bits >> 30 & 1 ? weir__breaker_isolate(&b) : weir__breaker_reset(&b));
            } else if (b.state == WEIR__BREAKER_ISOLATED) {
                assert_true(weir__breaker_reset(&b));
            }
            obeys(&b);
            weir__breaker_event event;
            for (; weir__breaker_next_event(&b, &event); at = (weir__breaker_state)event.to) {
                assert_int_equal(event.from, at);
                assert_true(event.to != event.from);
                if (event.to == WEIR__BREAKER_OPEN)
                    assert_true(at == WEIR__BREAKER_CLOSED || at == WEIR__BREAKER_HALF_OPEN);
                if (event.to == WEIR__BREAKER_HALF_OPEN)
                    assert_int_equal(at, WEIR__BREAKER_OPEN);
            }
            assert_int_equal(at, b.state);
        }
        assert_true(b.counts.opened > 3);
        assert_true(b.counts.expired > 0);
        weir__breaker_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_opens_when_the_share_is_reached_and_not_before_enough_calls),
        cmocka_unit_test(it_stays_closed_below_the_share),
        cmocka_unit_test(what_is_ignored_is_not_in_the_window),
        cmocka_unit_test(a_window_of_time_forgets_old_failures),
        cmocka_unit_test(slow_calls_open_it_although_they_succeed),
        cmocka_unit_test(an_open_breaker_lets_probes_through_after_the_open_time),
        cmocka_unit_test(failing_probes_open_it_again_for_longer_each_time_up_to_the_most),
        cmocka_unit_test(a_probe_that_never_reports_does_not_keep_it_half_open),
        cmocka_unit_test(a_probe_that_expired_long_ago_has_opened_it_then_and_not_now),
        cmocka_unit_test(a_slot_whose_probe_expired_knows_its_new_probe_from_the_old),
        cmocka_unit_test(probes_of_an_earlier_half_open_state_count_for_the_bound),
        cmocka_unit_test(an_ignored_probe_makes_room_for_another),
        cmocka_unit_test(slow_probes_open_it_again),
        cmocka_unit_test(a_report_from_before_it_opened_decides_nothing),
        cmocka_unit_test(an_isolated_breaker_is_closed_by_a_reset_and_by_nothing_else),
        cmocka_unit_test(a_reset_forgets_the_window_and_what_is_under_way),
        cmocka_unit_test(jitter_makes_the_open_time_longer_and_never_shorter),
        cmocka_unit_test(without_room_for_notes_it_stays_as_it_is_and_loses_none),
        cmocka_unit_test(an_open_breaker_waits_for_its_listener_before_it_probes),
        cmocka_unit_test(it_is_calm_only_while_time_changes_nothing),
        cmocka_unit_test(whatever_happens_the_law_and_the_bound_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
