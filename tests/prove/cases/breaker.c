/* breaker.c - flow/breaker, throttle and retry: who decides by what others report. */
#include "../prove.h"

#include <string.h>
#include <time.h>

#include <weir/breaker.h>
#include <weir/retry.h>
#include <weir/throttle.h>

/* ---- breaker ------------------------------------------------------------------------------------ */

static weir_breaker *breaker;
static weir_breaker_state seen;
static unsigned changes;
static bool is_telling, calls_back;

static weir_breaker_snapshot look(void)
{
    weir_breaker_snapshot s = WEIR_BREAKER_SNAPSHOT_INIT;
    prove_claim(weir_breaker_get_snapshot(breaker, &s) == WEIR_OK);
    prove_same(s.admitted, s.succeeded + s.failed + s.ignored + s.expired + s.in_flight);
    prove_claim(s.probes <= 1 && s.peak_probes <= 1);
    return s;
}

/* One at a time, in order; it may call back. */
static void on_change(weir_breaker_state from, weir_breaker_state to, void *ctx)
{
    (void)ctx;
    prove_claim(!is_telling && from == seen && from != to);
    is_telling = true;
    prove_yield();
    if (calls_back) {
        calls_back = false;
        prove_claim(weir_breaker_reset(breaker) == WEIR_OK);
        look();
    }
    seen = to;
    changes++;
    is_telling = false;
}

/* Opens after `failures` in a row; one probe. */
static void make(uint32_t failures)
{
    weir_breaker_opts opts = WEIR_BREAKER_OPTS_INIT;
    opts.window_calls = opts.min_calls = failures;
    opts.failure_ratio = 1;
    opts.half_open_calls = 1;
    opts.half_open_max_ns = 10 * WEIR_MILLISECOND;
    opts.open_ns = WEIR_MILLISECOND;
    opts.on_change = on_change;
    seen = WEIR_BREAKER_CLOSED;
    changes = 0;
    is_telling = calls_back = false;
    prove_claim(weir_breaker_create(&breaker, &opts) == WEIR_OK);
}

/* All is told, and what was told last is so. */
static void end(uint64_t in_flight)
{
    weir_breaker_snapshot s = look();
    prove_same(s.in_flight, in_flight);
    prove_same(seen, weir_breaker_get_state(breaker));
    prove_same(s.state, seen);
    weir_breaker_destroy(breaker);
}

static bool call(weir_call_result result)
{
    weir_breaker_call made;
    int rc = weir_breaker_admit(breaker, &made);
    prove_claim(rc == WEIR_OK || rc == WEIR_EOPEN);
    if (rc == WEIR_OK) {
        prove_yield();
        prove_claim(weir_breaker_report(breaker, &made, result) == WEIR_OK);
        prove_claim(weir_breaker_report(breaker, &made, result) == WEIR_EINVAL);
    }
    return rc == WEIR_OK;
}

static void fail(void *arg)
{
    (void)arg;
    call(WEIR_CALL_FAILURE);
}

static void succeed(void *arg)
{
    (void)arg;
    call(WEIR_CALL_SUCCESS);
    look();
    prove_claim(weir_breaker_retry_after(breaker) >= 0);
}

static void join_all(const int *threads, int n)
{
    for (int i = 0; i < n; i++)
        prove_join(threads[i]);
}

static void breaker_opens(void)
{
    prove_keep_records(true);
    make(2);
    int t[] = {prove_spawn(fail, NULL), prove_spawn(fail, NULL), prove_spawn(succeed, NULL)};
    fail(NULL);
    join_all(t, 3);
    weir_breaker_snapshot s = look();
    prove_same(s.admitted + s.rejected, 4);
    prove_claim(weir_breaker_retry_after(breaker) >= 0);
    end(0);
}

PROVE_CASE(breaker_opens, "each transition is told once, in order, one at a time");

static void sleep_for(int64_t ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* By then the first probe may have expired. */
static void succeed_later(void *arg)
{
    sleep_for(11 * WEIR_MILLISECOND);
    succeed(arg);
}

static void breaker_probes(void)
{
    weir_breaker_call probe;
    make(1);
    prove_claim(call(WEIR_CALL_FAILURE) && seen == WEIR_BREAKER_OPEN);
    sleep_for(WEIR_MILLISECOND + WEIR_MICROSECOND);
    prove_claim(weir_breaker_admit(breaker, &probe) == WEIR_OK);
    int t[] = {prove_spawn(fail, NULL), prove_spawn(succeed_later, NULL)};
    prove_claim(look().probes <= 1);
    prove_claim(weir_breaker_report(breaker, &probe, WEIR_CALL_SUCCESS) == WEIR_OK);
    join_all(t, 2);
    end(0);
}

PROVE_CASE(breaker_probes, "half-open it lets through one, however many come");

static void isolate(void *arg)
{
    (void)arg;
    prove_claim(weir_breaker_isolate(breaker) == WEIR_OK);
}

static void reset(void *arg)
{
    (void)arg;
    prove_claim(weir_breaker_reset(breaker) == WEIR_OK);
}

static void breaker_by_hand(void)
{
    make(1);
    int t[] = {prove_spawn(isolate, NULL), prove_spawn(reset, NULL), prove_spawn(fail, NULL)};
    fail(NULL);
    join_all(t, 3);
    end(0);
}

PROVE_CASE(breaker_by_hand, "isolated or reset at any moment, it tells what it is");

static void breaker_calls_back(void)
{
    make(1);
    calls_back = true;
    int t = prove_spawn(fail, NULL);
    succeed(NULL);
    prove_join(t);
    prove_claim(changes == 2 && seen == WEIR_BREAKER_CLOSED);
    end(0);
}

PROVE_CASE(breaker_calls_back, "who is told of a transition may cause another one");

/* ---- throttle ----------------------------------------------------------------------------------- */

static weir_throttle *throttle;

static weir_throttle_snapshot look_at_throttle(void)
{
    weir_throttle_snapshot s = WEIR_THROTTLE_SNAPSHOT_INIT;
    prove_claim(weir_throttle_get_snapshot(throttle, &s) == WEIR_OK);
    prove_same(s.admitted, s.accepted + s.refused + s.ignored + s.in_flight);
    prove_claim(s.in_flight <= 3 && s.chance >= 0 && s.chance < 1);
    return s;
}

static void be_throttled(void *arg)
{
    int rc = weir_throttle_admit(throttle);
    prove_claim(rc == WEIR_OK || rc == WEIR_ESHED);
    look_at_throttle();
    if (rc == WEIR_OK)
        prove_claim(weir_throttle_report(throttle, (weir_call_result)(intptr_t)arg) == WEIR_OK);
}

static void throttle_law(void)
{
    weir_throttle_opts opts = WEIR_THROTTLE_OPTS_INIT;
    prove_claim(weir_throttle_create(&throttle, &opts) == WEIR_OK);
    int t[] = {prove_spawn(be_throttled, (void *)WEIR_CALL_FAILURE),
               prove_spawn(be_throttled, (void *)WEIR_CALL_IGNORED)};
    be_throttled((void *)WEIR_CALL_SUCCESS);
    join_all(t, 2);
    weir_throttle_snapshot s = look_at_throttle();
    prove_claim(s.in_flight == 0 && s.admitted + s.shed == 3);
    prove_same(weir_throttle_report(throttle, WEIR_CALL_SUCCESS), WEIR_EINVAL);
    weir_throttle_destroy(throttle);
}

PROVE_CASE(throttle_law, "each call is counted once as what became of it");

/* ---- retry -------------------------------------------------------------------------------------- */

static weir_retry_budget *budget;
static int allowed[3];

static void retry(void *arg)
{
    int rc = weir_retry_budget_withdraw(budget);
    prove_claim(rc == WEIR_OK || rc == WEIR_ESHED);
    allowed[(intptr_t)arg] = rc == WEIR_OK;
}

/* Two deposits of a half pay one retry; nothing else does. */
static void budget_is_kept(void)
{
    weir_retry_budget_opts opts = WEIR_RETRY_BUDGET_OPTS_INIT;
    opts.ratio = 0.5;
    opts.min_per_second = -1;
    opts.max_tokens = 1;
    memset(allowed, 0, sizeof allowed);
    prove_claim(weir_retry_budget_create(&budget, &opts) == WEIR_OK);
    weir_retry_budget_snapshot before = WEIR_RETRY_BUDGET_SNAPSHOT_INIT, s = before;
    prove_claim(weir_retry_budget_get_snapshot(budget, &before) == WEIR_OK);
    while (weir_retry_budget_withdraw(budget) == WEIR_OK)
        continue;
    prove_claim(weir_retry_budget_get_snapshot(budget, &before) == WEIR_OK);
    weir_retry_budget_deposit(budget);
    int t[] = {prove_spawn(retry, (void *)0), prove_spawn(retry, (void *)1)};
    weir_retry_budget_deposit(budget);
    join_all(t, 2);
    retry((void *)2);
    prove_claim(weir_retry_budget_get_snapshot(budget, &s) == WEIR_OK);
    prove_same(allowed[0] + allowed[1] + allowed[2], 1);
    prove_claim(s.calls == 2 && s.retries == before.retries + 1 && s.refused == before.refused + 2);
    weir_retry_budget_destroy(budget);
}

PROVE_CASE(budget_is_kept, "as many retries as were paid for, whoever asks at the same time");
