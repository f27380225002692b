/* limit.c - flow/limit on flow/gate: a line, costs, a limit that changes, those without a thread. */
#include "../prove.h"

#include <stdio.h>
#include <string.h>

#include <weir/limit.h>

static weir_limit *limit;
static int inside; /* what a limit of one protects */

static void make(uint64_t n)
{
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    opts.limit = n;
    inside = 0;
    prove_claim(weir_limit_create(&limit, &opts) == WEIR_OK);
}

static weir_limit_snapshot look(void)
{
    weir_limit_snapshot s = WEIR_LIMIT_SNAPSHOT_INIT;
    prove_claim(weir_limit_get_snapshot(limit, &s) == WEIR_OK);
    return s;
}

/* The law, with nobody inside any more. */
static void end(void)
{
    weir_limit_snapshot s = look();
    prove_same(s.admitted, s.released);
    prove_same(s.in_flight, 0);
    prove_same(s.used, 0);
    prove_same(s.waiting, 0);
    for (unsigned i = 0; i < s.n_partitions; i++)
        prove_same(s.used_by[i], 0);
    weir_limit_destroy(limit);
}

/* ---- what a limit does, one call after the other ------------------------------------------------ */

/* A call that waits is two: it joins the line, and then waits for what it comes to. */
enum { JOIN, WAIT, TRY, RELEASE, CANCEL, SET, CLOSE };
enum { IDS = 8, WAITS = 1, IN = 2 };

typedef struct line {
    uint8_t used, limit, closed, n, ids[IDS], cost[IDS];
    int8_t outcome[IDS]; /* 0: has not come; WAITS, IN, or an error */
} line;

static uint8_t first_limit;

#define CALL(id, cost) ((int64_t)(id) << 8 | (cost))

static bool fits(const line *l, unsigned cost)
{
    return l->used + cost <= l->limit;
}

static void take_out(line *l, unsigned at, int outcome)
{
    l->outcome[l->ids[at]] = (int8_t)outcome;
    memmove(l->ids + at, l->ids + at + 1, (size_t)(l->n - at - 1));
    l->ids[--l->n] = 0;
}

static void settle(line *l)
{
    for (unsigned cost; l->n > 0; take_out(l, 0, cost > l->limit ? WEIR_ETOOBIG : IN)) {
        cost = l->cost[l->ids[0]];
        if (cost <= l->limit && !fits(l, cost))
            return;
        l->used += cost <= l->limit ? cost : 0;
    }
}

static void join(line *l, unsigned id, unsigned cost)
{
    l->cost[id] = (uint8_t)cost;
    l->outcome[id] = l->closed ? WEIR_ECLOSED : WAITS;
    if (!l->closed) {
        l->ids[l->n++] = (uint8_t)id;
        settle(l);
    }
}

static bool leave(line *l, unsigned id)
{
    for (unsigned i = 0; i < l->n; i++) {
        if (l->ids[i] != id)
            continue;
        take_out(l, i, WEIR_ETIMEDOUT);
        settle(l);
        return true;
    }
    return false;
}

static bool could_wait(line *l, unsigned id, int result)
{
    if (result == WEIR_ETIMEDOUT || result == WEIR_EINTR)
        return leave(l, id);
    return l->outcome[id] == (result == WEIR_OK ? IN : result);
}

static bool could_try(line *l, unsigned cost, int result)
{
    int now = l->closed ? WEIR_ECLOSED : l->n > 0 || !fits(l, cost) ? WEIR_EFULL : WEIR_OK;
    l->used += now == WEIR_OK ? cost : 0;
    return now == result;
}

static bool apply(void *state, const prove_call *call)
{
    line *l = state;
    unsigned id = (unsigned)(call->arg >> 8) & 0xff, cost = call->arg & 0xff;
    int result = (int)call->result;
    if (l->limit == 0)
        l->limit = first_limit;
    switch (call->what) {
    case JOIN: join(l, id, cost); return true;
    case WAIT: return could_wait(l, id, result);
    case TRY: return could_try(l, cost, result);
    case CANCEL: return call->ended && result ? leave(l, id) : l->outcome[id] == IN;
    case RELEASE: l->used -= cost; break;
    case SET: l->limit = (uint8_t)cost; break;
    default:
        l->closed = 1;
        while (l->n > 0)
            take_out(l, 0, WEIR_ECLOSED);
    }
    settle(l);
    return true;
}

static const char *text(const prove_call *call, char to[96])
{
    static const char *const names[] = {"join", "wait", "try", "release", "cancel", "set", "close"};
    snprintf(to, 96, "%s(id %d, %d): %d%s", names[call->what], (int)(call->arg >> 8),
             (int)(call->arg & 0xff), (int)call->result, call->ended ? "" : " (did not end)");
    return to;
}

static const prove_model model = {sizeof(line), apply, text};

static void begin(uint8_t n)
{
    first_limit = n;
    make(n);
}

static void end_lawfully(void)
{
    prove_linearizable(&model);
    end();
}

/* ---- calls -------------------------------------------------------------------------------------- */

static int acquire(int id, uint64_t cost, weir_time deadline)
{
    weir_permit permit = {0};
    size_t joins = prove_begin(JOIN, CALL(id, (int64_t)cost));
    size_t waits = prove_begin(WAIT, CALL(id, (int64_t)cost));
    int rc = weir_limit_acquire(limit, cost, 0, deadline, &permit);
    prove_end(joins, 0);
    prove_end(waits, rc);
    prove_same(permit.cost, rc == WEIR_OK ? cost : 0);
    return rc;
}

static int
try
    (uint64_t cost)
    {
        weir_permit permit;
        size_t call = prove_begin(TRY, (int64_t)cost);
        int rc = weir_limit_acquire(limit, cost, 0, WEIR_POLL, &permit);
        prove_end(call, rc);
        return rc;
    }

static void release(uint64_t cost)
{
    weir_permit permit = {.cost = cost};
    size_t call = prove_begin(RELEASE, (int64_t)cost);
    weir_limit_release(limit, &permit, WEIR_LIMIT_IGNORE);
    prove_end(call, 0);
}

static void set(uint8_t n)
{
    size_t call = prove_begin(SET, n);
    prove_claim(weir_limit_set(limit, n) == WEIR_OK);
    prove_end(call, 0);
}

static void close_it(void *arg)
{
    (void)arg;
    size_t call = prove_begin(CLOSE, 0);
    weir_limit_close(limit);
    prove_end(call, 0);
}

/* Without a thread. */
typedef struct guest {
    weir_pending pending; /* first */
    size_t waits;
    int id;
    uint64_t cost;
    unsigned told;
    int result;
} guest;

static guest guests[2];

static void ready(weir_pending *pending, int result)
{
    guest *g = (guest *)pending;
    prove_end(g->waits, result);
    g->told++;
    g->result = result;
}

static int come(guest *g, int id, uint64_t cost)
{
    *g = (guest){.pending = {.ready = ready}, .id = id, .cost = cost};
    size_t joins = prove_begin(JOIN, CALL(id, (int64_t)cost));
    g->waits = prove_begin(WAIT, CALL(id, (int64_t)cost));
    int rc = weir_limit_acquire_async(limit, cost, 0, &g->pending);
    prove_end(joins, 0);
    if (rc != WEIR_WAITING)
        prove_end(g->waits, rc);
    return rc;
}

/* ---- cases -------------------------------------------------------------------------------------- */

static void work(void *arg)
{
    int id = (int)(intptr_t)arg;
    prove_claim(acquire(id, 1, WEIR_FOREVER) == WEIR_OK);
    inside++;
    release(1);
}

static void limit_excludes(void)
{
    begin(1);
    int t[] = {prove_spawn(work, (void *)1), prove_spawn(work, (void *)2)};
    work((void *)3);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    prove_same(inside, 3);
    prove_same(look().peak, 1);
    end_lawfully();
}

PROVE_CASE(limit_excludes, "a limit of one: one at a time, who sees what those before it did");

static void work_or_not(void *arg)
{
    (void)arg;
    if (try (1) != WEIR_OK)
        return;
    inside++;
    release(1);
}

static void limit_is_tried(void)
{
    begin(1);
    int t[] = {prove_spawn(work_or_not, NULL), prove_spawn(work, (void *)1)};
    work_or_not(NULL);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    weir_limit_snapshot s = look();
    prove_same(inside, s.admitted);
    prove_same(s.refused, 3 - inside);
    end_lawfully();
}

PROVE_CASE(limit_is_tried, "who only tries takes what is there, and never what somebody waits for");

static void work_in_time(void *arg)
{
    int rc = acquire((int)(intptr_t)arg, 1, weir_after(WEIR_MILLISECOND));
    prove_claim(rc == WEIR_OK || rc == WEIR_ETIMEDOUT);
    if (rc != WEIR_OK)
        return;
    inside++;
    release(1);
}

static void limit_times_out(void)
{
    begin(1);
    int t[] = {prove_spawn(work_in_time, (void *)1), prove_spawn(work, (void *)2)};
    work_in_time((void *)3);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    weir_limit_snapshot s = look();
    prove_same(s.admitted, inside);
    prove_same(s.refused, 3 - inside);
    end_lawfully();
}

PROVE_CASE(limit_times_out, "whose time is over takes nothing, and the others go on");

static void acquire_two(void *arg)
{
    (void)arg;
    if (acquire(1, 2, weir_after(WEIR_MILLISECOND)) == WEIR_OK)
        release(2);
}

static void acquire_one(void *arg)
{
    int id = (int)(intptr_t)arg;
    prove_claim(acquire(id, 1, WEIR_FOREVER) == WEIR_OK);
    release(1);
}

/* What is large is waited for; when it gives up, who stands behind it goes on. */
static void limit_large_gives_up(void)
{
    begin(2);
    prove_claim(try (1) == WEIR_OK);
    int t[] = {prove_spawn(acquire_two, NULL), prove_spawn(acquire_one, (void *)2)};
    acquire_one((void *)3);
    release(1);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    end_lawfully();
}

PROVE_CASE(limit_large_gives_up, "who gives up his place lets those behind him in");

static void release_one(void *arg)
{
    (void)arg;
    release(1);
}

static void limit_guests(void)
{
    prove_keep_records(true);
    begin(2);
    prove_claim(try (1) == WEIR_OK && try (1) == WEIR_OK);
    prove_same(come(&guests[0], 1, 2), WEIR_WAITING);
    prove_same(come(&guests[1], 2, 1), WEIR_WAITING);
    int t[] = {prove_spawn(release_one, NULL), prove_spawn(work_or_not, NULL)};
    release(1);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    prove_claim(guests[0].told == 1 && guests[0].result == WEIR_OK);
    prove_same(guests[1].told, 0);
    release(2);
    prove_claim(guests[1].told == 1 && guests[1].result == WEIR_OK);
    release(1);
    end_lawfully();
}

PROVE_CASE(limit_guests,
           "who waits without a thread is told once, in the order in which they came");

static void limit_guest_cancelled(void)
{
    weir_permit permit = {.cost = 1};
    guest *g = &guests[0];
    make(1);
    prove_claim(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit) == WEIR_OK);
    *g = (guest){.pending = {.ready = ready}, .waits = prove_begin(WAIT, 0)};
    prove_same(weir_limit_acquire_async(limit, 1, 0, &g->pending), WEIR_WAITING);
    int t = prove_spawn(release_one, NULL);
    bool left = weir_limit_cancel(limit, &g->pending);
    prove_join(t);
    prove_same(g->told, !left);
    if (!left)
        weir_limit_release(limit, &permit, WEIR_LIMIT_IGNORE);
    end();
}

PROVE_CASE(limit_guest_cancelled, "who is cancelled has the permit, or has not, and knows it");

static void work_two(void *arg)
{
    int rc = acquire((int)(intptr_t)arg, 2, WEIR_FOREVER);
    prove_claim(rc == WEIR_OK || rc == WEIR_ETOOBIG);
    if (rc == WEIR_OK)
        release(2);
}

static void set_one_then_two(void *arg)
{
    (void)arg;
    set(1);
    set(2);
}

static void limit_changes(void)
{
    begin(2);
    int t[] = {prove_spawn(set_one_then_two, NULL), prove_spawn(acquire_one, (void *)1)};
    work_or_not(NULL);
    acquire_one((void *)2);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    prove_same(weir_limit_get(limit), 2);
    end_lawfully();
}

PROVE_CASE(limit_changes,
           "nobody is let in by a limit that holds no longer, and all are by a new one");

static void set_one(void *arg)
{
    (void)arg;
    set(1);
}

static void limit_falls(void)
{
    begin(2);
    prove_claim(try (1) == WEIR_OK);
    int t = prove_spawn(set_one, NULL);
    if (try (1) == WEIR_OK)
        release(1);
    release(1);
    prove_join(t);
    end_lawfully();
}

PROVE_CASE(limit_falls, "once it has fallen nobody is let in by what it was");

static uint64_t used_then;

static void set_one_and_look(void *arg)
{
    (void)arg;
    prove_claim(weir_limit_set(limit, 1) == WEIR_OK);
    used_then = look().used;
}

static void limit_has_fallen(void)
{
    weir_permit first, second;
    make(2);
    prove_claim(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &first) == WEIR_OK);
    int t = prove_spawn(set_one_and_look, NULL);
    bool got = weir_limit_acquire(limit, 1, 0, WEIR_POLL, &second) == WEIR_OK;
    prove_join(t);
    prove_claim(used_then == (got ? 2 : 1));
    weir_limit_release(limit, &first, WEIR_LIMIT_IGNORE);
    if (got)
        weir_limit_release(limit, &second, WEIR_LIMIT_IGNORE);
    end();
}

PROVE_CASE(limit_has_fallen, "who comes in comes before the limit falls, and is counted then");

static void set_two(void *arg)
{
    (void)arg;
    set(2);
}

static void limit_rises(void)
{
    begin(1);
    prove_claim(try (1) == WEIR_OK);
    int t = prove_spawn(set_two, NULL);
    acquire_one((void *)1);
    prove_join(t);
    release(1);
    end_lawfully();
}

PROVE_CASE(limit_rises, "who waits is let in by a limit that rises");

static void limit_becomes_too_small(void)
{
    begin(2);
    prove_claim(try (1) == WEIR_OK);
    int t[] = {prove_spawn(work_two, (void *)1), prove_spawn(set_one, NULL),
               prove_spawn(acquire_one, (void *)2)};
    release(1);
    for (int i = 0; i < 3; i++)
        prove_join(t[i]);
    end_lawfully();
}

PROVE_CASE(limit_becomes_too_small, "who no longer fits at all is sent away, and holds up nobody");

static void limit_never_fits(void)
{
    weir_permit permit;
    make(1);
    prove_claim(weir_limit_acquire(limit, 2, 0, WEIR_POLL, &permit) == WEIR_ETOOBIG);
    prove_claim(weir_limit_acquire(limit, 2, 0, WEIR_FOREVER, &permit) == WEIR_ETOOBIG);
    prove_same(look().refused, 0);
    end();
}

PROVE_CASE(limit_never_fits, "what does not fit even alone is told so, waiting or not");

static void work_until_closed(void *arg)
{
    int rc = acquire((int)(intptr_t)arg, 1, WEIR_FOREVER);
    prove_claim(rc == WEIR_OK || rc == WEIR_ECLOSED);
    if (rc == WEIR_OK)
        release(1);
}

static void ready_and_go(weir_pending *pending, int result)
{
    ready(pending, result);
    if (result == WEIR_OK)
        release(1);
}

static void limit_closes(void)
{
    begin(1);
    prove_claim(try (1) == WEIR_OK);
    prove_same(come(&guests[0], 1, 1), WEIR_WAITING);
    guests[0].pending.ready = ready_and_go;
    int t[] = {prove_spawn(work_until_closed, (void *)2), prove_spawn(close_it, NULL)};
    release(1);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    prove_same(guests[0].told, 1);
    prove_same(try (1), WEIR_ECLOSED);
    prove_claim(look().is_closed);
    end_lawfully();
}

PROVE_CASE(limit_closes, "closed, all who wait are told so, and nobody gets in");

/* ---- other orders, other answers ------------------------------------------------------------------ */

static void make_with(const weir_limit_opts *opts)
{
    inside = 0;
    prove_claim(weir_limit_create(&limit, opts) == WEIR_OK);
}

static void release_of(unsigned partition)
{
    weir_permit permit = {.cost = 1, .partition = partition};
    weir_limit_release(limit, &permit, WEIR_LIMIT_IGNORE);
}

/* One is inside; the others wait for it in turn, and note when they came in. */
static int came_in[4];

static void pass(void *arg)
{
    unsigned partition = (unsigned)(uintptr_t)arg;
    weir_permit permit;
    prove_claim(weir_limit_acquire(limit, 1, partition, WEIR_FOREVER, &permit) == WEIR_OK);
    came_in[partition] = ++inside;
    weir_limit_release(limit, &permit, WEIR_LIMIT_IGNORE);
}

static void pass_as_guest(weir_pending *pending, int result)
{
    prove_claim(result == WEIR_OK);
    came_in[(uintptr_t)pending->ctx] = ++inside;
    release_of((unsigned)(uintptr_t)pending->ctx & 1);
}

static void limit_shares(void)
{
    weir_limit_opts opts = {.size = sizeof opts, .limit = 2, .n_partitions = 2};
    weir_permit permit;
    opts.shares[0] = opts.shares[1] = 0.5;
    make_with(&opts);
    for (int i = 0; i < 2; i++)
        prove_claim(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit) == WEIR_OK);
    weir_pending first = {.ready = pass_as_guest, .ctx = (void *)0};
    prove_same(weir_limit_acquire_async(limit, 1, 0, &first), WEIR_WAITING);
    weir_pending second = {.ready = pass_as_guest, .ctx = (void *)1};
    prove_same(weir_limit_acquire_async(limit, 1, 1, &second), WEIR_WAITING);
    int t = prove_spawn(pass, (void *)1);
    release_of(0);
    prove_join(t);
    prove_claim(came_in[0] > 0 && inside == 3);
    release_of(0);
    weir_limit_snapshot s = look();
    prove_claim(s.used_by[0] == 0 && s.used_by[1] == 0 && s.n_partitions == 2);
    end();
}

PROVE_CASE(limit_shares, "partitions: what one has is counted for it, and nobody is forgotten");

static void limit_last_first(void)
{
    weir_limit_opts opts = {.size = sizeof opts, .limit = 1, .lifo = true};
    weir_permit permit;
    make_with(&opts);
    prove_claim(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit) == WEIR_OK);
    weir_pending first = {.ready = pass_as_guest, .ctx = (void *)2};
    prove_same(weir_limit_acquire_async(limit, 1, 0, &first), WEIR_WAITING);
    weir_pending last = {.ready = pass_as_guest, .ctx = (void *)3};
    prove_same(weir_limit_acquire_async(limit, 1, 0, &last), WEIR_WAITING);
    int t = prove_spawn(pass, (void *)0);
    release_of(0);
    prove_join(t);
    prove_claim(came_in[3] < came_in[2] && inside == 3);
    end();
}

PROVE_CASE(limit_last_first, "the last first, if that was asked for");

static int yes(void *ctx)
{
    (void)ctx;
    return 1;
}

static void interrupted(void *arg)
{
    (void)arg;
    weir_set_interrupt(yes, NULL);
    int rc = acquire(1, 1, WEIR_FOREVER);
    prove_claim(rc == WEIR_OK || rc == WEIR_EINTR);
    if (rc == WEIR_OK)
        release(1);
}

static void limit_is_interrupted(void)
{
    begin(1);
    prove_claim(try (1) == WEIR_OK);
    int t[] = {prove_spawn(interrupted, NULL), prove_spawn(work, (void *)2)};
    release(1);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    end_lawfully();
}

PROVE_CASE(limit_is_interrupted, "who is interrupted has nothing, or all, and the others go on");

static void wait_for_shed(void *arg)
{
    weir_permit permit;
    int rc = weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit);
    prove_claim(rc == WEIR_OK || rc == WEIR_ESHED);
    *(int *)arg = rc;
    if (rc == WEIR_OK)
        weir_limit_release(limit, &permit, WEIR_LIMIT_IGNORE);
}

/* Nobody ever gives the permit back before all others have ended. */
static void limit_sheds_stuck(void)
{
    weir_limit_opts opts = {.size = sizeof opts, .limit = 1};
    weir_permit permit;
    int rc[2];
    opts.shed_after_ns = WEIR_MILLISECOND;
    make_with(&opts);
    prove_claim(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit) == WEIR_OK);
    int t = prove_spawn(wait_for_shed, &rc[0]);
    wait_for_shed(&rc[1]);
    prove_join(t);
    prove_claim(rc[0] == WEIR_ESHED && rc[1] == WEIR_ESHED && look().shed == 2);
    weir_limit_release(limit, &permit, WEIR_LIMIT_IGNORE);
    end();
}

PROVE_CASE(limit_sheds_stuck, "a line that does not move is sent away by itself");

static void limit_sheds(void)
{
    weir_limit_opts opts = {.size = sizeof opts, .limit = 1};
    weir_permit permit;
    int rc[2];
    opts.shed_after_ns = WEIR_MILLISECOND;
    make_with(&opts);
    prove_claim(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit) == WEIR_OK);
    int t[] = {prove_spawn(wait_for_shed, &rc[0]), prove_spawn(wait_for_shed, &rc[1])};
    weir_limit_release(limit, &permit, WEIR_LIMIT_IGNORE);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    prove_same(look().shed, (rc[0] == WEIR_ESHED) + (rc[1] == WEIR_ESHED));
    end();
}

PROVE_CASE(limit_sheds, "who is sent away has no permit, and who has one was not sent away");

/* ---- what is found ------------------------------------------------------------------------------ */

static void call_and_drop(void *arg)
{
    weir_permit permit;
    weir_limit_report report = (weir_limit_report)(intptr_t)arg;
    for (int i = 0; i < 2; i++) {
        prove_claim(weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit) == WEIR_OK);
        weir_limit_release(limit, &permit, report);
    }
}

static void watch(void *arg)
{
    (void)arg;
    weir_limit_snapshot s = look();
    prove_same(s.in_flight, s.admitted - s.released);
    prove_claim(s.in_flight <= s.admitted && s.used <= 3 && s.peak <= 3);
    prove_claim(s.limit >= 1 && s.limit <= 3);
    prove_claim(weir_limit_get(limit) >= 1 && weir_limit_used(limit) <= 3);
}

static void limit_learns(void)
{
    prove_keep_records(true);
    weir_limit_opts opts = {.size = sizeof opts, .algorithm = WEIR_LIMIT_AIMD};
    opts.limit = opts.max_limit = 3;
    opts.window_samples = 1;
    opts.backoff = 0.5;
    opts.n_partitions = 2 * prove_pick(2); /* their uses are counted apart */
    opts.shares[0] = opts.shares[1] = 0.5;
    make_with(&opts);
    int t[] = {prove_spawn(call_and_drop, (void *)WEIR_LIMIT_DROP),
               prove_spawn(call_and_drop, (void *)WEIR_LIMIT_SUCCESS), prove_spawn(watch, NULL)};
    call_and_drop((void *)WEIR_LIMIT_IGNORE);
    for (int i = 0; i < 3; i++)
        prove_join(t[i]);
    prove_same(look().admitted, 6);
    prove_claim(look().drops >= 2 && look().drops <= look().samples);
    end();
}

PROVE_CASE(limit_learns, "a limit that is found stays in its bounds, and lets all in");

static void come_and_go(void *arg)
{
    weir_permit permit;
    (void)arg;
    for (int i = 0; i < 2; i++) {
        prove_claim(weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit) == WEIR_OK);
        weir_limit_release(limit, &permit, WEIR_LIMIT_IGNORE);
    }
}

static void limit_law(void)
{
    prove_keep_records(true);
    make(2);
    int t[] = {prove_spawn(come_and_go, NULL), prove_spawn(watch, NULL)};
    come_and_go(NULL);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    end();
}

PROVE_CASE(limit_law, "admitted == released + in flight, whenever somebody looks");
