/* Every sentence of <weir/breaker.h>, seen from outside. */
#include "support.h"

#include <math.h>
#include <stdatomic.h>

#include <weir/breaker.h>

static weir_breaker_opts options(void)
{
    weir_breaker_opts opts = WEIR_BREAKER_OPTS_INIT;
    opts.window_calls = 10;
    opts.min_calls = 4;
    opts.half_open_calls = 3;
    opts.open_ns = WEIR_MICROSECOND;
    opts.max_open_ns = WEIR_MICROSECOND;
    return opts;
}

static weir_breaker *make(weir_breaker_opts opts)
{
    weir_breaker *breaker = NULL;
    assert_int_equal(weir_breaker_create(&breaker, &opts), WEIR_OK);
    return breaker;
}

static weir_breaker_snapshot look(weir_breaker *breaker)
{
    weir_breaker_snapshot now = WEIR_BREAKER_SNAPSHOT_INIT;
    must(weir_breaker_get_snapshot(breaker, &now) == WEIR_OK);
    must(now.admitted == now.succeeded + now.failed + now.ignored + now.expired + now.in_flight);
    return now;
}

static void call(weir_breaker *breaker, weir_call_result result)
{
    weir_breaker_call one;
    assert_int_equal(weir_breaker_admit(breaker, &one), WEIR_OK);
    assert_int_equal(weir_breaker_report(breaker, &one, result), WEIR_OK);
}

static void open_it(weir_breaker *breaker)
{
    for (int i = 0; i < 4; i++)
        call(breaker, WEIR_CALL_FAILURE);
}

static bool admits(weir_breaker *breaker, weir_breaker_call *ret_call)
{
    return weir_breaker_admit(breaker, ret_call) == WEIR_OK;
}

/* ---- options ------------------------------------------------------------------------------------ */

static void create_refuses_every_option_out_of_range(void **state)
{
    (void)state;
    weir_breaker *breaker = NULL;
    weir_breaker_opts opts;
#define REFUSES(change)                                                                            \
    opts = options();                                                                              \
    change;                                                                                        \
    assert_int_equal(weir_breaker_create(&breaker, &opts), WEIR_EINVAL);                           \
    assert_null(breaker)
    REFUSES(opts.size = 0);
    REFUSES(opts.size++);
    REFUSES(opts.window_calls = 1000001);
    REFUSES(opts.window_ns = 1);
    REFUSES((opts.window_calls = 0, opts.window_ns = -1));
    REFUSES(opts.min_calls = 11);
    REFUSES(opts.failure_ratio = -0.1);
    REFUSES(opts.failure_ratio = 1.01);
    REFUSES(opts.failure_ratio = NAN);
    REFUSES(opts.slow_ratio = 2);
    REFUSES(opts.slow_call_ns = -1);
    REFUSES(opts.half_open_calls = 10001);
    REFUSES(opts.half_open_max_ns = -1);
    REFUSES(opts.open_ns = -1);
    REFUSES(opts.max_open_ns = opts.open_ns - 1);
    REFUSES(opts.multiplier = 0.5);
    REFUSES(opts.jitter = -1);
    REFUSES(opts.jitter = 1.5);
#undef REFUSES
}

static void the_defaults_are_those_of_the_header(void **state)
{
    (void)state;
    weir_breaker_opts opts = WEIR_BREAKER_OPTS_INIT;
    weir_breaker *breaker = make(opts);
    for (int i = 0; i < 10; i++)
        call(breaker, WEIR_CALL_SUCCESS);
    for (int i = 0; i < 9; i++)
        call(breaker, WEIR_CALL_FAILURE);
    assert_int_equal(look(breaker).state, WEIR_BREAKER_CLOSED);
    call(breaker, WEIR_CALL_FAILURE); /* the 20th call, and the half failed */
    weir_breaker_snapshot now = look(breaker);
    assert_int_equal(now.state, WEIR_BREAKER_OPEN);
    assert_int_equal(now.open_ns, 5 * WEIR_SECOND);
    assert_in_range(now.retry_after_ns, 1, 5 * WEIR_SECOND);
    weir_breaker_destroy(breaker);
}

static void destroy_takes_null(void **state)
{
    (void)state;
    weir_breaker_destroy(NULL);
}

static void states_have_names(void **state)
{
    (void)state;
    assert_string_equal(weir_breaker_state_name(WEIR_BREAKER_CLOSED), "closed");
    assert_string_equal(weir_breaker_state_name(WEIR_BREAKER_OPEN), "open");
    assert_string_equal(weir_breaker_state_name(WEIR_BREAKER_HALF_OPEN), "half_open");
    assert_string_equal(weir_breaker_state_name(WEIR_BREAKER_ISOLATED), "isolated");
    assert_string_equal(weir_breaker_state_name(-1), "?");
    assert_string_equal(weir_breaker_state_name(4), "?");
}

/* ---- calls -------------------------------------------------------------------------------------- */

static void a_call_is_reported_once(void **state)
{
    (void)state;
    weir_breaker *breaker = make(options());
    weir_breaker_call one = {0};
    assert_int_equal(weir_breaker_report(breaker, &one, WEIR_CALL_SUCCESS), WEIR_EINVAL);
    assert_int_equal(weir_breaker_admit(breaker, &one), WEIR_OK);
    assert_int_equal(weir_breaker_report(breaker, &one, (weir_call_result)3), WEIR_EINVAL);
    assert_int_equal(look(breaker).in_flight, 1);
    assert_int_equal(weir_breaker_report(breaker, &one, WEIR_CALL_SUCCESS), WEIR_OK);
    assert_int_equal(weir_breaker_report(breaker, &one, WEIR_CALL_SUCCESS), WEIR_EINVAL);
    assert_int_equal(look(breaker).succeeded, 1);
    weir_breaker_destroy(breaker);
}

static void a_rejected_call_leaves_its_output_untouched(void **state)
{
    (void)state;
    weir_breaker_opts opts = options();
    opts.open_ns = opts.max_open_ns = WEIR_FOREVER - 1;
    weir_breaker *breaker = make(opts);
    open_it(breaker);
    weir_breaker_call one = {.epoch = 77};
    assert_int_equal(weir_breaker_admit(breaker, &one), WEIR_EOPEN);
    assert_int_equal(one.epoch, 77);
    assert_int_equal(look(breaker).rejected, 1);
    assert_true(weir_breaker_retry_after(breaker) > 1000000 * WEIR_SECOND);
    weir_breaker_destroy(breaker);
}

static void it_opens_probes_and_closes(void **state)
{
    (void)state;
    weir_breaker *breaker = make(options());
    open_it(breaker);
    assert_int_equal(weir_breaker_get_state(breaker), WEIR_BREAKER_OPEN);
    soon(weir_breaker_retry_after(breaker) == 0);
    assert_int_equal(weir_breaker_get_state(breaker), WEIR_BREAKER_OPEN); /* until a call comes */
    weir_breaker_call probes[3], none;
    for (int i = 0; i < 3; i++)
        assert_true(admits(breaker, &probes[i]));
    assert_int_equal(weir_breaker_get_state(breaker), WEIR_BREAKER_HALF_OPEN);
    assert_false(admits(breaker, &none));
    assert_int_equal(look(breaker).probes, 3);
    for (int i = 0; i < 3; i++)
        weir_breaker_report(breaker, &probes[i], WEIR_CALL_SUCCESS);
    weir_breaker_snapshot now = look(breaker);
    assert_int_equal(now.state, WEIR_BREAKER_CLOSED);
    assert_int_equal(now.peak_probes, 3);
    assert_int_equal(now.stale, 1); /* two of three had decided */
    assert_int_equal(now.opened, 1);
    assert_int_equal(now.window_calls, 0);
    weir_breaker_destroy(breaker);
}

static void slow_calls_are_measured_from_admit_to_report(void **state)
{
    (void)state;
    weir_breaker_opts opts = options();
    opts.slow_call_ns = 1;
    opts.open_ns = opts.max_open_ns = WEIR_FOREVER - 1;
    weir_breaker *breaker = make(opts);
    for (int i = 0; i < 4; i++) {
        weir_breaker_call one;
        assert_true(admits(breaker, &one));
        weir_time before = weir_now();
        while (weir_now() == before)
            ;
        weir_breaker_report(breaker, &one, WEIR_CALL_SUCCESS);
    }
    weir_breaker_snapshot now = look(breaker);
    assert_int_equal(now.slow, 4);
    assert_int_equal(now.state, WEIR_BREAKER_OPEN);
    weir_breaker_destroy(breaker);
}

static void a_window_of_time_opens_it_too(void **state)
{
    (void)state;
    weir_breaker_opts opts = options();
    opts.window_calls = 0;
    opts.window_ns = 3600 * WEIR_SECOND;
    opts.min_calls = 100000;
    weir_breaker *breaker = make(opts);
    for (int i = 0; i < 99999; i++)
        call(breaker, WEIR_CALL_FAILURE);
    assert_int_equal(look(breaker).window_failed, 99999);
    assert_int_equal(weir_breaker_get_state(breaker), WEIR_BREAKER_CLOSED);
    call(breaker, WEIR_CALL_FAILURE);
    assert_int_equal(weir_breaker_get_state(breaker), WEIR_BREAKER_OPEN);
    weir_breaker_destroy(breaker);
}

static void a_probe_that_never_reports_expires(void **state)
{
    (void)state;
    weir_breaker_opts opts = options();
    opts.half_open_calls = 1;
    opts.half_open_max_ns = 1;
    weir_breaker *breaker = make(opts);
    open_it(breaker);
    weir_breaker_call lost, next;
    soon(admits(breaker, &lost));
    soon(admits(breaker, &next)); /* it has expired, opened, and is half-open again */
    weir_breaker_snapshot now = look(breaker);
    assert_int_equal(now.expired, 1);
    assert_int_equal(now.opened, 2);
    assert_int_equal(now.peak_probes, 1);
    assert_int_equal(weir_breaker_report(breaker, &lost, WEIR_CALL_SUCCESS), WEIR_OK);
    assert_int_equal(look(breaker).late, 1);
    weir_breaker_destroy(breaker);
}

static void an_isolated_breaker_rejects_until_it_is_reset(void **state)
{
    (void)state;
    weir_breaker *breaker = make(options());
    assert_int_equal(weir_breaker_isolate(breaker), WEIR_OK);
    weir_breaker_call none;
    assert_false(admits(breaker, &none));
    assert_true(weir_breaker_retry_after(breaker) == INT64_MAX);
    assert_true(look(breaker).retry_after_ns == INT64_MAX);
    assert_int_equal(weir_breaker_reset(breaker), WEIR_OK);
    call(breaker, WEIR_CALL_SUCCESS);
    weir_breaker_destroy(breaker);
}

static void a_snapshot_of_unknown_size_is_refused(void **state)
{
    (void)state;
    weir_breaker *breaker = make(options());
    weir_breaker_snapshot now = {0};
    assert_int_equal(weir_breaker_get_snapshot(breaker, &now), WEIR_EINVAL);
    weir_breaker_destroy(breaker);
}

/* ---- on_change ---------------------------------------------------------------------------------- */

static struct {
    weir_breaker *breaker;
    weir_breaker_state from[200], to[200];
    size_t n, depth;
    bool calls_back;
} heard;

static void listen(weir_breaker_state from, weir_breaker_state to, void *ctx)
{
    must(ctx == &heard);
    must(heard.depth++ == 0); /* one call at a time */
    heard.from[heard.n] = from;
    heard.to[heard.n++] = to;
    if (heard.calls_back && to == WEIR_BREAKER_OPEN) {
        look(heard.breaker); /* no lock is held */
        must(weir_breaker_isolate(heard.breaker) == WEIR_OK);
        must(weir_breaker_reset(heard.breaker) == WEIR_OK);
    }
    heard.depth--;
}

static weir_breaker *make_heard(bool calls_back)
{
    weir_breaker_opts opts = options();
    opts.on_change = listen;
    opts.change_ctx = &heard;
    heard.n = 0;
    heard.calls_back = calls_back;
    return heard.breaker = make(opts);
}

static void the_listener_hears_each_transition_before_the_call_returns(void **state)
{
    (void)state;
    weir_breaker *breaker = make_heard(false);
    open_it(breaker);
    assert_int_equal(heard.n, 1);
    assert_int_equal(heard.from[0], WEIR_BREAKER_CLOSED);
    assert_int_equal(heard.to[0], WEIR_BREAKER_OPEN);
    weir_breaker_call probe;
    soon(admits(breaker, &probe));
    assert_int_equal(heard.n, 2);
    assert_int_equal(heard.to[1], WEIR_BREAKER_HALF_OPEN);
    weir_breaker_isolate(breaker);
    weir_breaker_isolate(breaker);
    assert_int_equal(heard.n, 3);
    weir_breaker_destroy(breaker);
}

static void the_listener_may_call_back(void **state)
{
    (void)state;
    weir_breaker *breaker = make_heard(true);
    open_it(breaker);
    assert_int_equal(heard.n, 3);
    assert_int_equal(heard.to[0], WEIR_BREAKER_OPEN);
    assert_int_equal(heard.to[1], WEIR_BREAKER_ISOLATED);
    assert_int_equal(heard.to[2], WEIR_BREAKER_CLOSED);
    weir_breaker_destroy(breaker);
}

static int refused;

static void never_returns_in_time(weir_breaker_state from, weir_breaker_state to, void *ctx)
{
    (void)from, (void)to;
    weir_breaker **breaker = ctx;
    if (refused)
        return;
    for (int i = 0; i < 1000 && !refused; i++)
        if (weir_breaker_isolate(*breaker) == WEIR_EFULL ||
            weir_breaker_reset(*breaker) == WEIR_EFULL)
            refused = i;
}

static void a_listener_that_does_not_return_is_told_no_more_than_64_later(void **state)
{
    (void)state;
    weir_breaker *breaker;
    weir_breaker_opts opts = options();
    opts.on_change = never_returns_in_time;
    opts.change_ctx = &breaker;
    breaker = make(opts);
    open_it(breaker);
    assert_in_range(refused, 25, 33);
    assert_int_equal(weir_breaker_reset(breaker), WEIR_OK);
    weir_breaker_destroy(breaker);
}

/* ---- threads ------------------------------------------------------------------------------------ */

typedef struct slow_call {
    weir_breaker *breaker;
    _Atomic bool inside, may_end;
} slow_call;

static void *makes_a_slow_call(void *arg)
{
    slow_call *slow = arg;
    weir_breaker_call one;
    must(weir_breaker_admit(slow->breaker, &one) == WEIR_OK);
    slow->inside = true;
    soon(slow->may_end);
    must(weir_breaker_report(slow->breaker, &one, WEIR_CALL_SUCCESS) == WEIR_OK);
    return NULL;
}

static void a_slow_call_does_not_delay_another(void **state)
{
    (void)state;
    slow_call slow = {.breaker = make(options())};
    pthread_t thread;
    must(pthread_create(&thread, NULL, makes_a_slow_call, &slow) == 0);
    soon(slow.inside);
    for (int i = 0; i < 10000; i++) /* it ends only after all of these have */
        call(slow.breaker, WEIR_CALL_SUCCESS);
    assert_int_equal(look(slow.breaker).in_flight, 1);
    slow.may_end = true;
    pthread_join(thread, NULL);
    assert_int_equal(look(slow.breaker).succeeded, 10001);
    weir_breaker_destroy(slow.breaker);
}

static void *reports(void *arg)
{
    void **both = arg;
    must(weir_breaker_report(both[0], both[1], WEIR_CALL_FAILURE) == WEIR_OK);
    return NULL;
}

static void another_thread_may_report(void **state)
{
    (void)state;
    weir_breaker *breaker = make(options());
    weir_breaker_call one;
    assert_true(admits(breaker, &one));
    void *both[] = {breaker, &one};
    pthread_t thread;
    must(pthread_create(&thread, NULL, reports, both) == 0);
    pthread_join(thread, NULL);
    assert_int_equal(look(breaker).failed, 1);
    weir_breaker_destroy(breaker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_refuses_every_option_out_of_range),
        cmocka_unit_test(the_defaults_are_those_of_the_header),
        cmocka_unit_test(destroy_takes_null),
        cmocka_unit_test(states_have_names),
        cmocka_unit_test(a_call_is_reported_once),
        cmocka_unit_test(a_rejected_call_leaves_its_output_untouched),
        cmocka_unit_test(it_opens_probes_and_closes),
        cmocka_unit_test(slow_calls_are_measured_from_admit_to_report),
        cmocka_unit_test(a_window_of_time_opens_it_too),
        cmocka_unit_test(a_probe_that_never_reports_expires),
        cmocka_unit_test(an_isolated_breaker_rejects_until_it_is_reset),
        cmocka_unit_test(a_snapshot_of_unknown_size_is_refused),
        cmocka_unit_test(the_listener_hears_each_transition_before_the_call_returns),
        cmocka_unit_test(the_listener_may_call_back),
        cmocka_unit_test(a_listener_that_does_not_return_is_told_no_more_than_64_later),
        cmocka_unit_test(a_slow_call_does_not_delay_another),
        cmocka_unit_test(another_thread_may_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
