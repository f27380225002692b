/* rate.c - flow/rate: waiting for tokens, with a thread and without. */
#include "../prove.h"

#include <string.h>
#include <time.h>

#include <weir/rate.h>

#include "base/alloc.h"
#include "base/park.h"

#define SOON                                                                                       \
    (20 * WEIR_MILLISECOND) /* what takes longer was not woken: the steps below are milliseconds */

static weir_rate *rate;

/* `tokens` in `per_ns`. */
static void make(uint64_t tokens, int64_t per_ns, uint64_t burst)
{
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    opts.rate = tokens;
    opts.per_ns = per_ns;
    opts.burst = burst;
    prove_claim(weir_rate_create(&rate, &opts) == WEIR_OK);
}

static weir_rate_snapshot look(void)
{
    weir_rate_snapshot s = WEIR_RATE_SNAPSHOT_INIT;
    prove_claim(weir_rate_get_snapshot(rate, &s) == WEIR_OK);
    return s;
}

/* ---- the bound -------------------------------------------------------------------------------- */

/* What was granted, at some moment between the two. */
typedef struct grant {
    weir_time from, to;
    uint64_t cost;
} grant;

static grant grants[8];

static void begin(uint64_t tokens, int64_t per_ns, uint64_t burst)
{
    memset(grants, 0, sizeof grants);
    make(tokens, per_ns, burst);
}

/* In no window more than its length brings, and the burst; late: so long after he could one may have taken whom
 * others had left theirs to, and told themselves when the next is due. */
static void check_bound_but(weir_time late, uint64_t tokens, int64_t per_ns, uint64_t burst)
{
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) {
            weir_time from = grants[i].from, to = grants[j].to;
            uint64_t sum = 0;
            for (int k = 0; k < 8; k++)
                sum += grants[k].from >= from && grants[k].to <= to ? grants[k].cost : 0;
            prove_claim(to < from || sum <= burst ||
                        (sum - burst) * (uint64_t)per_ns <= tokens * (uint64_t)(to - from + late));
        }
}

static void check_bound(uint64_t tokens, int64_t per_ns, uint64_t burst)
{
    check_bound_but(0, tokens, per_ns, burst);
}

static uint64_t granted(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 8; i++)
        sum += grants[i].cost;
    return sum;
}

/* The law, with nobody waiting any more. */
static void end(void)
{
    weir_rate_snapshot s = look();
    prove_same(s.granted - s.returned, granted());
    prove_same(s.waiting, 0);
    weir_rate_destroy(rate);
}

static int acquire(int id, uint64_t cost, weir_time deadline)
{
    weir_time from = weir_now();
    int rc = weir_rate_acquire(rate, cost, deadline);
    if (rc == WEIR_OK)
        grants[id] = (grant){from, weir_now(), cost};
    return rc;
}

/* ---- threads ---------------------------------------------------------------------------------- */

static void take_one(void *id)
{
    prove_claim(acquire((int)(intptr_t)id, 1, WEIR_FOREVER) == WEIR_OK);
}

static void take_two(void *id)
{
    prove_claim(acquire((int)(intptr_t)id, 2, WEIR_FOREVER) == WEIR_OK);
}

static void try_one(void *id)
{
    int rc = acquire((int)(intptr_t)id, 1, WEIR_POLL);
    prove_claim(rc == WEIR_OK || rc == WEIR_EFULL);
}

static void rate_bound(void)
{
    prove_keep_records(true);
    begin(1, WEIR_MILLISECOND, 2);
    int t[] = {prove_spawn(take_two, (void *)0), prove_spawn(take_one, (void *)1),
               prove_spawn(try_one, (void *)2)};
    take_one((void *)3);
    for (int i = 0; i < 3; i++)
        prove_join(t[i]);
    check_bound(1, WEIR_MILLISECOND, 2);
    end();
}

PROVE_CASE(rate_bound, "never more than the rate and the burst, and all who wait get theirs");

static void take_in_time(void *id)
{
    int rc = acquire((int)(intptr_t)id, 1, weir_after(2 * WEIR_MILLISECOND));
    prove_claim(rc == WEIR_OK || rc == WEIR_ETIMEDOUT);
}

static void rate_times_out(void)
{
    begin(1, WEIR_MILLISECOND, 1);
    prove_claim(acquire(4, 1, WEIR_POLL) == WEIR_OK);
    int t[] = {prove_spawn(take_in_time, (void *)0), prove_spawn(take_one, (void *)1)};
    take_in_time((void *)2);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    check_bound(1, WEIR_MILLISECOND, 1);
    prove_same(look().refused, 4 - look().granted);
    end();
}

PROVE_CASE(rate_times_out, "who comes too late took nothing, and those behind go on");

static int yes(void *ctx)
{
    (void)ctx;
    return 1;
}

static void take_interrupted(void *id)
{
    weir_set_interrupt(yes, NULL);
    int rc = acquire((int)(intptr_t)id, 1, WEIR_FOREVER);
    prove_claim(rc == WEIR_OK || rc == WEIR_EINTR);
}

static void rate_is_interrupted(void)
{
    begin(1, 60 * WEIR_MILLISECOND, 1);
    prove_claim(acquire(4, 1, WEIR_POLL) == WEIR_OK);
    int t[] = {prove_spawn(take_interrupted, (void *)0), prove_spawn(take_one, (void *)1)};
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    check_bound(1, 60 * WEIR_MILLISECOND, 1);
    end();
}

PROVE_CASE(rate_is_interrupted, "who is interrupted took nothing");

/* ---- changes ------------------------------------------------------------------------------------ */

/* One token in an hour: who is not woken sleeps for an hour. */
#define HOUR (3600 * WEIR_SECOND)

static weir_time changed_at;

static void make_faster(void *arg)
{
    (void)arg;
    prove_claim(weir_rate_set(rate, 1, WEIR_MILLISECOND, 1) == WEIR_OK);
    changed_at = weir_now();
}

static void rate_becomes_faster(void)
{
    begin(1, HOUR, 1);
    prove_claim(acquire(0, 1, WEIR_POLL) == WEIR_OK);
    int t[] = {prove_spawn(make_faster, NULL), prove_spawn(take_one, (void *)1)};
    take_one((void *)2);
    weir_time done_at = weir_now();
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    prove_claim(done_at < changed_at + SOON && grants[1].to < changed_at + SOON);
    end();
}

PROVE_CASE(rate_becomes_faster, "all who wait hear of another rate");

static void make_smaller(void *arg)
{
    (void)arg;
    prove_claim(weir_rate_set(rate, 1, WEIR_MILLISECOND, 1) == WEIR_OK);
}

static void take_two_or_not(void *id)
{
    int rc = acquire((int)(intptr_t)id, 2, WEIR_FOREVER);
    prove_claim(rc == WEIR_OK || rc == WEIR_ETOOBIG);
}

static void rate_burst_shrinks(void)
{
    begin(1, WEIR_MILLISECOND, 2);
    prove_claim(acquire(0, 1, WEIR_POLL) == WEIR_OK);
    int t[] = {prove_spawn(make_smaller, NULL), prove_spawn(take_two_or_not, (void *)1)};
    take_one((void *)2);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    prove_same(weir_rate_acquire(rate, 2, WEIR_FOREVER), WEIR_ETOOBIG);
    end();
}

PROVE_CASE(rate_burst_shrinks, "what is more than the burst now is sent away, and holds up nobody");

static void set_thrice(void *arg)
{
    (void)arg;
    for (uint64_t n = 2; n < 5; n++)
        prove_claim(weir_rate_set(rate, n, (int64_t)n * WEIR_SECOND, 10 * n) == WEIR_OK);
}

static void read_terms(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        weir_rate_snapshot s = look();
        prove_same(s.per_ns, (int64_t)s.rate * WEIR_SECOND);
        prove_same(s.burst, 10 * s.rate);
    }
}

static void rate_terms(void)
{
    begin(1, WEIR_SECOND, 10);
    int t[] = {prove_spawn(set_thrice, NULL), prove_spawn(read_terms, NULL)};
    read_terms(NULL);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    end();
}

PROVE_CASE(rate_terms, "rate and burst are read as one");

/* ---- closing ------------------------------------------------------------------------------------ */

static weir_time closed_at;

static void close_it(void *arg)
{
    (void)arg;
    weir_rate_close(rate);
    closed_at = weir_now();
}

static void take_until_closed(void *arg)
{
    int rc = acquire((int)(intptr_t)arg, 1, WEIR_FOREVER);
    prove_claim(rc == WEIR_ECLOSED || rc == WEIR_OK);
    prove_claim(grants[(intptr_t)arg].to == 0 || rc == WEIR_OK);
}

static void rate_closes(void)
{
    begin(1, HOUR, 1);
    prove_claim(acquire(0, 1, WEIR_POLL) == WEIR_OK);
    int t[] = {prove_spawn(take_until_closed, (void *)1), prove_spawn(close_it, NULL)};
    take_until_closed((void *)2);
    weir_time done_at = weir_now();
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    prove_claim(done_at < closed_at + SOON && weir_now() < closed_at + HOUR / 2);
    weir_reservation reserved;
    weir_time at;
    prove_same(weir_rate_reserve(rate, 1, &at, &reserved), WEIR_ECLOSED);
    prove_claim(look().closed);
    end();
}

PROVE_CASE(rate_closes, "closed, all who wait are told so at once");

/* ---- without a thread --------------------------------------------------------------------------- */

/* An event loop of its own. */
typedef struct guest {
    weir_pending pending; /* first */
    _Atomic uint32_t rung;
    weir_time from;
    uint64_t cost;
    int id;
} guest;

static void ring(weir_pending *pending, int result)
{
    guest *g = (guest *)pending;
    prove_claim(result == WEIR_WAITING);
    atomic_store_explicit(&g->rung, 1, memory_order_relaxed);
    weir__futex_wake(&g->rung, 1, false);
}

static guest *make_guest(int id, uint64_t cost)
{
    guest *g = weir__calloc(1, sizeof *g);
    g->pending.ready = ring;
    g->cost = cost;
    g->id = id;
    g->from = weir_now();
    return g;
}

static void sleep_until(guest *g, weir_time at)
{
    if (!atomic_exchange_explicit(&g->rung, 0, memory_order_relaxed))
        weir__futex_sleep(&g->rung, 0, at);
    atomic_store_explicit(&g->rung, 0, memory_order_relaxed);
}

static void note_grant(const guest *g)
{
    grants[g->id] = (grant){g->from, weir_now(), g->cost};
}

/* Polls until it is told something.  With `patience` it sleeps until somebody calls, unless its time is near. */
static int poll_on(guest *g, weir_time at, bool patience)
{
    int rc;
    do {
        sleep_until(g, patience && at > weir_now() + SOON ? WEIR_FOREVER : at);
        rc = weir_rate_poll(rate, &g->pending, &at);
    } while (rc == WEIR_WAITING);
    if (rc == WEIR_OK)
        note_grant(g);
    return rc;
}

static int come(guest *g, weir_time *ret_at)
{
    int rc = weir_rate_acquire_async(rate, g->cost, &g->pending, ret_at);
    if (rc == WEIR_OK)
        note_grant(g);
    return rc;
}

/* In a thread. */
static void be_guest(void *arg)
{
    guest *g = make_guest((int)(intptr_t)arg, 1);
    weir_time at = 0;
    int rc = come(g, &at);
    if (rc == WEIR_WAITING)
        rc = poll_on(g, at, false);
    prove_claim(rc == WEIR_OK);
    weir__free(g); /* nobody is in a call on it */
}

static void rate_guests(void)
{
    prove_keep_records(true);
    begin(1, WEIR_MILLISECOND, 1);
    int t[] = {prove_spawn(be_guest, (void *)0), prove_spawn(take_one, (void *)1)};
    be_guest((void *)2);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    check_bound(1, WEIR_MILLISECOND, 1);
    end();
}

PROVE_CASE(rate_guests, "who waits without a thread gets the same, and is touched by nobody after");

/* The first in line costs more than there is: a try that comes later takes nothing before it. */
static void rate_is_fair(void)
{
    begin(1, WEIR_MILLISECOND, 3);
    weir_time at;
    prove_claim(acquire(0, 2, WEIR_POLL) == WEIR_OK);
    guest *g = make_guest(1, 2);
    prove_same(come(g, &at), WEIR_WAITING);
    int t[] = {prove_spawn(try_one, (void *)2), prove_spawn(take_one, (void *)3)};
    prove_claim(poll_on(g, at, false) == WEIR_OK);
    weir_time mine = grants[1].to;
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    /* two tokens had to come first, and then its one */
    prove_claim(grants[3].to >= mine || grants[3].to - grants[0].from >= 2 * WEIR_MILLISECOND);
    prove_claim(grants[2].cost == 0 || grants[2].to > grants[0].from + WEIR_MILLISECOND);
    check_bound(1, WEIR_MILLISECOND, 3);
    weir__free(g);
    end();
}

PROVE_CASE(rate_is_fair, "a large cost that came first is not starved by small ones");

/* What a guest that goes, is nudged, or closed, gets; it sleeps until it is called. */
static void rate_guest_is_called(void)
{
    bool closes = prove_pick(2) == 1;
    begin(1, HOUR, 1);
    weir_time at;
    prove_claim(acquire(0, 1, WEIR_POLL) == WEIR_OK);
    guest *g = make_guest(1, 1), *other = make_guest(2, 1);
    prove_same(come(g, &at), WEIR_WAITING);
    prove_same(come(other, &at), WEIR_WAITING);
    int t = prove_spawn(closes ? close_it : make_faster, NULL);
    int wanted = closes ? WEIR_ECLOSED : WEIR_OK;
    prove_same(poll_on(g, at, true), wanted);
    prove_same(poll_on(other, at, true), wanted);
    prove_join(t);
    weir__free(g);
    weir__free(other);
    end();
}

PROVE_CASE(rate_guest_is_called,
           "who waits without a thread is called when there is another rate, or none");

static void make_little_faster(void *arg)
{
    (void)arg;
    prove_claim(weir_rate_set(rate, 1, HOUR / 2, 1) == WEIR_OK);
}

/* Two change something at the same time. */
static void rate_guest_is_called_again(void)
{
    begin(1, HOUR, 1);
    weir_time at;
    prove_claim(acquire(0, 1, WEIR_POLL) == WEIR_OK);
    guest *g = make_guest(1, 1);
    prove_same(come(g, &at), WEIR_WAITING);
    int t[] = {prove_spawn(make_little_faster, NULL), prove_spawn(close_it, NULL)};
    prove_same(poll_on(g, at, true), WEIR_ECLOSED);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    weir__free(g);
    end();
}

PROVE_CASE(rate_guest_is_called_again, "what changes while he is being called is not lost on him");

static void cancel(void *arg)
{
    guest *g = arg;
    weir_rate_cancel(rate, &g->pending);
    weir__free(g);
}

/* It goes: the next one has the turn, and hears of it. */
static void rate_guest_cancels(void)
{
    begin(1, 10 * WEIR_MILLISECOND, 2);
    weir_time at, later;
    prove_claim(acquire(0, 1, WEIR_POLL) == WEIR_OK);
    guest *first = make_guest(1, 2), *second = make_guest(2, 1);
    prove_same(come(first, &at), WEIR_WAITING);
    prove_same(come(second, &later), WEIR_WAITING);
    int t[] = {prove_spawn(cancel, first), prove_spawn(make_faster, NULL)};
    prove_claim(poll_on(second, later, true) == WEIR_OK);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    weir__free(second);
    end();
}

PROVE_CASE(rate_guest_cancels,
           "who is cancelled is touched by nobody, and the next one hears of it");

/* What the first one wanted is enough for the second. */
static void rate_turn_passes(void)
{
    bool waits = prove_pick(2) == 1;
    prove_let_time_stand_still();
    begin(1, HOUR, 2);
    weir_time at, later;
    prove_claim(acquire(0, 1, WEIR_POLL) == WEIR_OK);
    guest *first = make_guest(1, 2), *second = waits ? NULL : make_guest(2, 1);
    prove_same(come(first, &at), WEIR_WAITING);
    if (second)
        prove_same(come(second, &later), WEIR_WAITING);
    int t = prove_spawn(cancel, first);
    if (second)
        prove_claim(poll_on(second, later, true) == WEIR_OK);
    else
        take_one((void *)2);
    prove_claim(weir_now() < grants[0].from + SOON);
    prove_join(t);
    weir__free(second);
    end();
}

PROVE_CASE(rate_turn_passes, "who is the first now hears that there is enough for him");

/* Who does not poll is not waited for for ever. */
static void rate_passes_over(void)
{
    begin(1, WEIR_MILLISECOND, 1);
    weir_time at;
    prove_claim(acquire(0, 1, WEIR_POLL) == WEIR_OK);
    guest *sleeper = make_guest(1, 1);
    prove_same(come(sleeper, &at), WEIR_WAITING);
    take_one((void *)2);
    prove_claim(poll_on(sleeper, WEIR_POLL, false) == WEIR_OK);
    prove_claim(grants[2].to >= grants[0].from + 100 * WEIR_MILLISECOND);
    weir__free(sleeper);
    end();
}

PROVE_CASE(rate_passes_over, "who does not poll is passed over, after a while");

/* ---- in advance --------------------------------------------------------------------------------- */

/* Used when it may be: at a time told, or at once. */
static void use(int id, weir_time from, weir_time at)
{
    grants[id] = (grant){at > weir_now() ? at : from, at, 1};
}

static void reserve(void *arg)
{
    weir_reservation reserved;
    weir_time at, from = weir_now();
    prove_claim(weir_rate_reserve(rate, 1, &at, &reserved) == WEIR_OK);
    use((int)(intptr_t)arg, from, at);
}

static void reserve_and_return(void *arg)
{
    weir_reservation reserved;
    weir_time at, from = weir_now();
    prove_claim(weir_rate_reserve(rate, 1, &at, &reserved) == WEIR_OK);
    prove_claim(weir_rate_due(rate, &reserved) >= at - WEIR_MILLISECOND);
    if (!weir_rate_unreserve(rate, &reserved))
        use((int)(intptr_t)arg, from, at); /* lost, and counted */
}

static void rate_reserves(void)
{
    begin(1, WEIR_MILLISECOND, 1);
    int t[] = {prove_spawn(reserve, (void *)0), prove_spawn(reserve_and_return, (void *)1),
               prove_spawn(try_one, (void *)2)};
    reserve((void *)3);
    for (int i = 0; i < 3; i++)
        prove_join(t[i]);
    check_bound(1, WEIR_MILLISECOND, 1);
    end();
}

PROVE_CASE(rate_reserves, "what is taken in advance is used at times that keep the bound");

/* Beside who waits: everybody gets what he was promised, and no token is promised to two. */
static void rate_reserves_and_waits(void)
{
    begin(1, WEIR_MILLISECOND, 1);
    prove_let_time_stand_still(); /* nobody is stopped for so long that he is not waited for */
    int t[] = {prove_spawn(reserve, (void *)0), prove_spawn(reserve_and_return, (void *)1),
               prove_spawn(take_one, (void *)2)};
    reserve((void *)3);
    for (int i = 0; i < 3; i++)
        prove_join(t[i]);
    prove_claim(grants[2].to < grants[2].from + 10 * WEIR_MILLISECOND);
    check_bound_but(WEIR_MILLISECOND / 10, 1, WEIR_MILLISECOND, 1);
    end();
}

PROVE_CASE(rate_reserves_and_waits, "who waits and who takes in advance both get theirs");

/* Who reserves lets the first in line go before him, and nobody else. */
static void rate_promises_to_one(void)
{
    begin(1, WEIR_MILLISECOND, 3);
    weir_time at;
    prove_claim(acquire(0, 3, WEIR_POLL) == WEIR_OK);
    guest *first = make_guest(1, 1);
    prove_same(come(first, &at), WEIR_WAITING);
    reserve((void *)2);
    int t = prove_spawn(take_one, (void *)3);
    prove_join(t);
    prove_claim(grants[3].to >= grants[2].to + WEIR_MILLISECOND - WEIR_MICROSECOND);
    prove_claim(poll_on(first, WEIR_POLL, false) == WEIR_OK);
    weir__free(first);
    end();
}

PROVE_CASE(rate_promises_to_one, "who reserves goes before all in line but the first");

/* A reservation given back lets who waits come earlier: he is told. */
static void return_it(void *arg)
{
    if (weir_rate_unreserve(rate, arg))
        changed_at = weir_now();
}

static void rate_returns(void)
{
    begin(1, HOUR, 2);
    weir_reservation reserved;
    weir_time at;
    prove_claim(acquire(0, 1, WEIR_POLL) == WEIR_OK);
    prove_claim(weir_rate_reserve(rate, 1, &at, &reserved) == WEIR_OK);
    changed_at = 0;
    int t = prove_spawn(return_it, &reserved);
    take_one((void *)1);
    prove_join(t);
    if (changed_at)
        prove_claim(grants[1].to < changed_at + SOON);
    else
        grants[2].cost = 1; /* he had come first, so it is lost */
    end();
}

PROVE_CASE(rate_returns, "what is given back is had by who waits, at once");

/* ---- after a fork -------------------------------------------------------------------------------- */

static void wait_as_child(void *arg)
{
    uint64_t *took = arg;
    if (weir_rate_acquire(rate, 1, WEIR_FOREVER) == WEIR_OK)
        *took += 1;
}

/* The parent's line is not the child's: the first of its threads makes a new one, for all. */
static void rate_of_a_child(void)
{
    uint64_t took[3] = {0};
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    opts.rate = 1;
    opts.per_ns = WEIR_MILLISECOND;
    opts.burst = 1;
    opts.shared = "forked";
    prove_claim(weir_rate_create(&rate, &opts) == WEIR_OK);
    prove_claim(weir_rate_acquire(rate, 1, WEIR_FOREVER) == WEIR_OK);
    prove_be_forked();
    int t[] = {prove_spawn(wait_as_child, &took[1]), prove_spawn(wait_as_child, &took[2])};
    wait_as_child(&took[0]);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    prove_claim(took[0] == 1 && took[1] == 1 && took[2] == 1);
    prove_same(look().waiting, 0);
    prove_same(look().granted, 4);
    nanosleep(&(struct timespec){.tv_sec = 1}, NULL); /* a full one is not kept */
    weir_rate_destroy(rate);
}

PROVE_CASE(rate_of_a_child,
           "in a child of fork all threads wait in one line, and each gets its token");
