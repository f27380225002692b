/* Two million calls of eight threads on one breaker, whose backend falls ill and recovers again and
 * again; and somebody isolates and resets meanwhile.  The
 * listener's log is a chain of legal transitions, a checker sees law and bound hold at each snapshot,
 * and at the end every call is accounted for, once.
 *
 * And: budgets and throttles under the same threads.
 *
 * WEIR_STRESS_SECONDS (default 2) scales the number of calls. */
#include "contract/support.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include <weir/breaker.h>
#include <weir/retry.h>
#include <weir/throttle.h>

#define THREADS 8
#define PROBES  5

static double scale(void)
{
    const char *asked = getenv("WEIR_STRESS_SECONDS");
    double value = asked ? strtod(asked, NULL) : 0;
    return value > 0 ? value / 2 : 1;
}

static struct {
    weir_breaker *breaker;
    uint64_t calls; /* of each thread */
    _Atomic bool is_ill, finished;
    _Atomic uint64_t admitted, rejected, succeeded, failed, ignored;
    _Atomic uint32_t probes, peak; /* calls of half-open epochs that are under way, as seen here */
    _Atomic uint32_t in_listener;
    uint64_t transitions[4][4]; /* by the listener alone */
    weir_breaker_state last;
} run;

static void listen(weir_breaker_state from, weir_breaker_state to, void *ctx)
{
    (void)ctx;
    must(atomic_fetch_add(&run.in_listener, 1) == 0);
    must(from == run.last); /* in order, none missing, none twice */
    run.last = to;
    run.transitions[from][to]++;
    atomic_fetch_sub(&run.in_listener, 1);
}

static void raise_peak(uint32_t probes)
{
    uint32_t peak = run.peak;
    while (probes > peak && !atomic_compare_exchange_weak(&run.peak, &peak, probes))
        ;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static void *calls(void *arg)
{
    uint64_t random = 88172645463325252u + (uintptr_t)arg * 7919;
    for (uint64_t n = 0; n < run.calls; n++) {
        weir_breaker_call call;
        if (weir_breaker_admit(run.breaker, &call) != WEIR_OK) {
            run.rejected++;
            sched_yield();
            continue;
        }
        run.admitted++;
        bool is_probe = call.probe != 0;
        if (is_probe)
            raise_peak(++run.probes);
        uint64_t bits = next_random(&random);
        if (is_probe || bits % 256 == 0)
            sched_yield(); /* a call that takes a while */
        weir_call_result result = bits >> 8 & 15
                                      ? run.is_ill ? WEIR_CALL_FAILURE : WEIR_CALL_SUCCESS
                                  : bits >> 12 & 1 ? WEIR_CALL_IGNORED
                                                   : WEIR_CALL_FAILURE;
        if (is_probe)
            run.probes--;
        must(weir_breaker_report(run.breaker, &call, result) == WEIR_OK);
        run.succeeded += result == WEIR_CALL_SUCCESS;
        run.failed += result == WEIR_CALL_FAILURE;
        run.ignored += result == WEIR_CALL_IGNORED;
    }
    return NULL;
}

static void *falls_ill(void *arg)
{
    (void)arg;
    while (!run.finished) {
        nanosleep(&(struct timespec){.tv_nsec = run.is_ill ? 100000 : 1000000}, NULL);
        run.is_ill = !run.is_ill;
    }
    return NULL;
}

static void *isolates(void *arg)
{
    (void)arg;
    while (!run.finished) {
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        must(weir_breaker_isolate(run.breaker) != WEIR_EINVAL);
        sched_yield();
        must(weir_breaker_reset(run.breaker) != WEIR_EINVAL);
    }
    while (weir_breaker_reset(run.breaker) != WEIR_OK)
        sched_yield();
    return NULL;
}

static weir_breaker_snapshot look(void)
{
    weir_breaker_snapshot now = WEIR_BREAKER_SNAPSHOT_INIT;
    must(weir_breaker_get_snapshot(run.breaker, &now) == WEIR_OK);
    must(now.admitted == now.succeeded + now.failed + now.ignored + now.expired + now.in_flight);
    must(now.probes <= PROBES && now.peak_probes <= PROBES);
    must(now.in_flight <= THREADS);
    return now;
}

static void *watches(void *arg)
{
    (void)arg;
    while (!run.finished) {
        look();
        sched_yield();
    }
    return NULL;
}

static void execute(bool by_time)
{
    weir_breaker_opts opts = WEIR_BREAKER_OPTS_INIT;
    opts.window_calls = by_time ? 0 : 50;
    opts.window_ns = by_time ? WEIR_MILLISECOND : 0;
    opts.min_calls = 10;
    opts.half_open_calls = PROBES;
    opts.half_open_max_ns = PATIENCE; /* none expires: each is counted here, too */
    opts.open_ns = 20 * WEIR_MICROSECOND;
    opts.max_open_ns = 200 * WEIR_MICROSECOND;
    opts.jitter = 0.5;
    opts.on_change = listen;
    memset(&run, 0, sizeof(run));
    assert_int_equal(weir_breaker_create(&run.breaker, &opts), WEIR_OK);
    run.calls = (uint64_t)(2000000 * scale()) / THREADS + 1;

    pthread_t threads[THREADS], others[3];
    must(pthread_create(&others[0], NULL, falls_ill, NULL) == 0);
    must(pthread_create(&others[1], NULL, isolates, NULL) == 0);
    must(pthread_create(&others[2], NULL, watches, NULL) == 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, calls, number(i)) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    run.finished = true;
    for (int i = 0; i < 3; i++)
        pthread_join(others[i], NULL);

    weir_breaker_snapshot now = look();
    assert_int_equal(now.in_flight, 0);
    assert_int_equal(now.expired + now.late, 0);
    assert_int_equal(now.admitted + now.rejected, run.calls * THREADS);
    assert_int_equal(now.admitted, run.admitted);
    assert_int_equal(now.rejected, run.rejected);
    assert_int_equal(now.succeeded, run.succeeded);
    assert_int_equal(now.failed, run.failed);
    assert_int_equal(now.ignored, run.ignored);
    assert_int_equal(run.last, now.state);

    /* No transition but the legal ones, and all of those. */
    for (int from = 0; from < 4; from++)
        for (int to = 0; to < 4; to++) {
            bool legal = (from == WEIR_BREAKER_CLOSED && to == WEIR_BREAKER_OPEN) ||
                         (from == WEIR_BREAKER_OPEN && to == WEIR_BREAKER_HALF_OPEN) ||
                         (from == WEIR_BREAKER_HALF_OPEN && to == WEIR_BREAKER_OPEN) ||
                         (from != WEIR_BREAKER_CLOSED && to == WEIR_BREAKER_CLOSED) ||
                         (from != WEIR_BREAKER_ISOLATED && to == WEIR_BREAKER_ISOLATED);
            must(legal || run.transitions[from][to] == 0);
        }
    must(run.transitions[WEIR_BREAKER_HALF_OPEN][WEIR_BREAKER_CLOSED] > 0);
    must(run.transitions[WEIR_BREAKER_HALF_OPEN][WEIR_BREAKER_OPEN] > 0);
    assert_int_equal(run.transitions[WEIR_BREAKER_CLOSED][WEIR_BREAKER_OPEN] +
                         run.transitions[WEIR_BREAKER_HALF_OPEN][WEIR_BREAKER_OPEN],
                     now.opened);
    assert_in_range(run.peak, 1, PROBES); /* measured outside, at the most ever */
    printf("%llu calls: %llu made, %llu rejected, opened %llu times, at most %u probes of %d\n",
           (unsigned long long)(now.admitted + now.rejected), (unsigned long long)now.admitted,
           (unsigned long long)now.rejected, (unsigned long long)now.opened, run.peak, PROBES);
    weir_breaker_destroy(run.breaker);
}

static void two_million_calls_in_a_window_of_calls(void **state)
{
    (void)state;
    execute(false);
}

static void two_million_calls_in_a_window_of_time(void **state)
{
    (void)state;
    execute(true);
}

/* ---- budget and throttle ------------------------------------------------------------------------ */

static struct {
    weir_retry_budget *budget;
    weir_throttle *throttle;
    uint64_t calls;
    _Atomic uint64_t retries, refused, sent, shed;
} both;

static void *retries(void *arg)
{
    (void)arg;
    for (uint64_t n = 0; n < both.calls; n++) {
        weir_retry_budget_deposit(both.budget);
        if (weir_retry_budget_withdraw(both.budget) == WEIR_OK)
            both.retries++;
        else
            both.refused++;
        if (weir_throttle_admit(both.throttle) != WEIR_OK) {
            both.shed++;
            continue;
        }
        both.sent++;
        must(weir_throttle_report(both.throttle, n % 4 ? WEIR_CALL_FAILURE : WEIR_CALL_SUCCESS) ==
             WEIR_OK);
    }
    return NULL;
}

static void a_budget_and_a_throttle_count_every_call_of_every_thread(void **state)
{
    (void)state;
    memset(&both, 0, sizeof(both));
    weir_retry_budget_opts budget = WEIR_RETRY_BUDGET_OPTS_INIT;
    budget.ratio = 0.25;
    budget.min_per_second = -1;
    weir_throttle_opts throttle = WEIR_THROTTLE_OPTS_INIT;
    throttle.k = 1.1;
    assert_int_equal(weir_retry_budget_create(&both.budget, &budget), WEIR_OK);
    assert_int_equal(weir_throttle_create(&both.throttle, &throttle), WEIR_OK);
    both.calls = (uint64_t)(400000 * scale()) / THREADS;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, retries, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);

    weir_retry_budget_snapshot spent = WEIR_RETRY_BUDGET_SNAPSHOT_INIT;
    assert_int_equal(weir_retry_budget_get_snapshot(both.budget, &spent), WEIR_OK);
    assert_int_equal(spent.calls, both.calls * THREADS);
    assert_int_equal(spent.retries, both.retries);
    assert_int_equal(spent.refused, both.refused);
    assert_int_equal(spent.retries, spent.calls / 4); /* exactly its share */
    weir_throttle_snapshot seen = WEIR_THROTTLE_SNAPSHOT_INIT;
    assert_int_equal(weir_throttle_get_snapshot(both.throttle, &seen), WEIR_OK);
    assert_int_equal(seen.admitted, both.sent);
    assert_int_equal(seen.shed, both.shed);
    assert_int_equal(seen.admitted, seen.accepted + seen.refused);
    assert_int_equal(seen.in_flight, 0);
    assert_true(seen.shed > 0);
    weir_retry_budget_destroy(both.budget);
    weir_throttle_destroy(both.throttle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_million_calls_in_a_window_of_calls),
        cmocka_unit_test(two_million_calls_in_a_window_of_time),
        cmocka_unit_test(a_budget_and_a_throttle_count_every_call_of_every_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
