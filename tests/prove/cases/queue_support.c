/* queue_support.c - see queue_support.h. */
#include "queue_support.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

/* What the cases note is no part of what is proved. */
#define NOTES __attribute__((no_sanitize("thread")))

weir_queue *queue;

static struct ledger {
    uint8_t accepted[Q_VALUES], delivered[Q_VALUES], dropped[Q_VALUES];
    uint64_t drops[WEIR_DROP_REASONS];
    size_t capacity; /* as it was made, and whether that has changed */
    uint64_t max_cost;
    weir_overflow overflow;
    uint32_t keep_one_of;
    size_t high, low;
    bool bound_in_flight, is_resized;
} ledger;

/* What this thread's call has dropped, a bit for each value. */
static _Thread_local uint64_t dropping;

NOTES static void note_drop(void *item, weir_drop_reason reason, void *ctx)
{
    (void)ctx;
    ledger.dropped[(uintptr_t)item]++;
    ledger.drops[reason]++;
    dropping |= UINT64_C(1) << (uintptr_t)item;
}

NOTES void q_note_put(unsigned value, int rc)
{
    ledger.accepted[value] += rc >= 0 && rc != WEIR_EVICTED;
}

NOTES void q_note_got(int64_t value)
{
    if (value < 0)
        return;
    prove_claim(value > 0 && value < Q_VALUES);
    ledger.delivered[value]++;
}

weir_queue_opts q_options(size_t capacity, weir_overflow overflow)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = capacity;
    opts.overflow = overflow;
    opts.on_drop = note_drop;
    opts.name = "";
    return opts;
}

NOTES void q_make(const weir_queue_opts *opts)
{
    ledger = (struct ledger){
        .capacity = opts->capacity,
        .max_cost = opts->max_cost ? opts->max_cost : UINT64_MAX,
        .overflow = opts->overflow,
        .keep_one_of = opts->overflow == WEIR_OVERFLOW_SAMPLE ? opts->sample_keep_one_of : 1,
        .high = opts->high_items ? opts->high_items : SIZE_MAX,
        .low = opts->low_items ? opts->low_items : opts->high_items / 2,
        .bound_in_flight = opts->bound_in_flight,
    };
    prove_claim(weir_queue_create(&queue, opts) == WEIR_OK);
}

void q_make_plain(size_t capacity, weir_overflow overflow)
{
    weir_queue_opts opts = q_options(capacity, overflow);
    q_make(&opts);
}

/* ---- laws ------------------------------------------------------------------------------------- */

static weir_queue_snapshot look(void)
{
    weir_queue_snapshot s = WEIR_QUEUE_SNAPSHOT_INIT;
    uint64_t drops = 0, drops_cost = 0;
    prove_claim(weir_queue_get_snapshot(queue, &s) == WEIR_OK);
    for (int i = 0; i < WEIR_DROP_REASONS; i++) {
        drops += s.dropped[i];
        drops_cost += s.dropped_cost[i];
    }
    prove_same(s.accepted, s.delivered + drops + s.depth + s.spilled);
    prove_same(s.accepted_cost, s.delivered_cost + drops_cost + s.cost + s.spilled_cost);
    prove_claim(ledger.is_resized || s.depth + s.in_flight <= ledger.capacity);
    prove_claim(ledger.is_resized || s.cost + s.in_flight_cost <= ledger.max_cost);
    /* the clock begins at 1000 s, and no case waits so long */
    prove_claim(s.put_blocked_ns + s.get_blocked_ns < 1000 * (uint64_t)WEIR_SECOND);
    prove_claim(s.peak_depth >= s.depth && (ledger.is_resized || s.peak_depth <= ledger.capacity));
    return s;
}

NOTES static void check_ledger(const weir_queue_snapshot *s)
{
    uint64_t accepted = 0, delivered = 0;
    for (unsigned v = 0; v < Q_VALUES; v++) {
        accepted += ledger.accepted[v];
        delivered += ledger.delivered[v];
    }
    prove_same(s->accepted, accepted);
    prove_same(s->delivered, delivered);
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        prove_same(s->dropped[i], ledger.drops[i]);
}

NOTES static void check_fates(void)
{
    for (unsigned v = 0; v < Q_VALUES; v++)
        if (ledger.accepted[v] != ledger.delivered[v] + ledger.dropped[v])
            prove_fail("item %u: accepted %d times, delivered %d times, dropped %d times", v,
                       ledger.accepted[v], ledger.delivered[v], ledger.dropped[v]);
}

void q_end(void)
{
    weir_queue_snapshot s = look();
    prove_same(s.putters_waiting + s.getters_waiting, 0);
    check_ledger(&s);
    weir_queue_destroy(queue);
    check_fates();
}

void q_until_waiting(size_t putters, size_t getters)
{
    for (;;) {
        weir_queue_snapshot s = look();
        if (s.putters_waiting >= putters && s.getters_waiting >= getters)
            return;
        prove_yield();
    }
}

void q_run(void (*const fns[])(void *), size_t n)
{
    int threads[PROVE_THREADS];
    for (size_t i = 0; i + 1 < n; i++)
        threads[i] = prove_spawn(fns[i], NULL);
    fns[n - 1](NULL);
    for (size_t i = 0; i + 1 < n; i++)
        prove_join(threads[i]);
}

/* ---- calls ------------------------------------------------------------------------------------ */

enum {
    PUT,
    OVERFLOW,
    GET,
    CLOSE,
    DISCARD,
    RESIZE,
    DRAIN,
    DONE,
    LOOK,
    DEPTH,
    ITEM_READY,
    ROOM_READY
};

#define NOTHING 100 /* a result: of a batch that was shorter */

/* A result and what was dropped, in one number. */
static int64_t packed(int64_t rc)
{
    return (rc + 128) | (int64_t)(dropping << 9);
}

static int64_t rc_of(const prove_call *call)
{
    return (call->result & 511) - 128;
}

static uint64_t drops_of(const prove_call *call)
{
    return (uint64_t)call->result >> 9;
}

static size_t begin(int what, int64_t arg)
{
    dropping = 0;
    return prove_begin(what, arg);
}

static int64_t end(size_t call, int64_t rc)
{
    prove_end(call, packed(rc));
    return rc;
}

static void *item_of(unsigned value)
{
    return (void *)(uintptr_t)value;
}

int q_put_cost(unsigned value, uint64_t cost, weir_time deadline)
{
    size_t call = begin(PUT, (int64_t)(value | cost << 8));
    int rc = weir_queue_put(queue, item_of(value), cost, deadline);
    q_note_put(value, rc);
    return (int)end(call, rc);
}

int q_put(unsigned value, weir_time deadline)
{
    return q_put_cost(value, 0, deadline);
}

int q_overflow(unsigned value)
{
    size_t call = begin(OVERFLOW, value);
    int rc = weir_queue_overflow(queue, item_of(value), 0);
    q_note_put(value, rc);
    return (int)end(call, rc);
}

/* As so many puts, each at some moment of the call. */
int64_t q_put_many(unsigned first, size_t n, weir_time deadline)
{
    void *items[8];
    size_t call[8];
    for (size_t i = 0; i < n; i++) {
        items[i] = item_of(first + (unsigned)i);
        call[i] = begin(PUT, first + (unsigned)i);
    }
    int64_t rc = weir_queue_put_many(queue, items, NULL, n, deadline);
    uint64_t dropped = dropping;
    for (size_t i = 0; i < n; i++) {
        bool is_in = rc > (int64_t)i;
        bool is_dropped = dropped >> (first + i) & 1;
        if (is_in)
            q_note_put(first + (unsigned)i, WEIR_KEPT);
        dropping = is_dropped ? UINT64_C(1) << (first + i) : 0;
        end(call[i], is_in ? is_dropped : i == 0 ? rc : NOTHING);
    }
    return rc;
}

int64_t q_get(weir_time deadline)
{
    void *item = NULL;
    size_t call = begin(GET, 0);
    int rc = weir_queue_get(queue, &item, deadline);
    int64_t value = rc < 0 ? rc : (int64_t)(uintptr_t)item;
    q_note_got(value);
    return end(call, value);
}

int64_t q_get_many(size_t max, weir_time deadline, int64_t linger_ns)
{
    void *items[8];
    uint64_t costs[8];
    size_t call[8];
    for (size_t i = 0; i < max; i++)
        call[i] = begin(GET, 0);
    int64_t rc = weir_queue_get_many(queue, items, costs, max, deadline, linger_ns);
    prove_claim(rc != 0 && rc <= (int64_t)max);
    uint8_t last[Q_VALUES / 8 + 1] = {0};
    for (size_t i = 0; i < max; i++) {
        if (rc <= (int64_t)i) {
            end(call[i], i == 0 ? rc : NOTHING);
            continue;
        }
        unsigned value = (unsigned)(uintptr_t)items[i];
        prove_claim(value > last[value / 8]); /* in order */
        last[value / 8] = (uint8_t)value;
        q_note_got(value);
        end(call[i], value);
    }
    return rc;
}

void q_close(void)
{
    size_t call = begin(CLOSE, 0);
    weir_queue_close(queue);
    end(call, 0);
}

size_t q_discard(void)
{
    size_t call = begin(DISCARD, 0);
    return (size_t)end(call, (int64_t)weir_queue_discard(queue));
}

NOTES int q_resize(size_t capacity)
{
    ledger.is_resized = true;
    size_t call = begin(RESIZE, (int64_t)capacity);
    return (int)end(call, weir_queue_resize(queue, capacity, 0));
}

int q_drain(weir_time deadline)
{
    size_t call = begin(DRAIN, 0);
    return (int)end(call, weir_queue_drain(queue, deadline));
}

int q_done(size_t n)
{
    size_t call = begin(DONE, (int64_t)n);
    return (int)end(call, weir_queue_done(queue, n, 0));
}

void q_look(void)
{
    size_t call = begin(LOOK, 0);
    weir_queue_snapshot s = look();
    end(call, (int64_t)(s.depth + 16 * s.in_flight));
    call = begin(DEPTH, 0);
    end(call, (int64_t)weir_queue_depth(queue));
}

static bool is_ready(int what, int (*fd_of)(weir_queue *))
{
    struct pollfd p = {.fd = fd_of(queue), .events = POLLIN};
    prove_claim(p.fd >= 0);
    size_t call = begin(what, 0);
    return end(call, poll(&p, 1, 0));
}

bool q_item_is_ready(void)
{
    return is_ready(ITEM_READY, weir_queue_item_fd);
}

bool q_room_is_ready(void)
{
    return is_ready(ROOM_READY, weir_queue_room_fd);
}

/* ---- the model: what a queue does, one call after the other --------------------------------------- */

typedef struct state {
    uint8_t closed, above, sampled_out, n, flying;
    uint8_t capacity; /* 0: as it was made */
    uint8_t items[24], costs[24];
    uint8_t last[Q_VALUES / 8 + 1]; /* that each putter has put */
} state;

static uint64_t cost_of(const state *s)
{
    uint64_t sum = 0;
    for (int i = 0; i < s->n; i++)
        sum += s->costs[i];
    return sum;
}

static bool fits(const state *s, uint64_t cost)
{
    size_t capacity = s->capacity ? s->capacity : ledger.capacity;
    return s->n + (size_t)s->flying < capacity && cost_of(s) + cost <= ledger.max_cost;
}

static uint8_t take(state *s)
{
    uint8_t value = s->items[0];
    s->n--;
    memmove(s->items, s->items + 1, s->n);
    memmove(s->costs, s->costs + 1, s->n);
    s->items[s->n] = s->costs[s->n] = 0;
    return value;
}

static bool add(state *s, unsigned value, uint64_t cost)
{
    if (!fits(s, cost) || value <= s->last[value / 8])
        return false;
    s->last[value / 8] = (uint8_t)value;
    s->costs[s->n] = (uint8_t)cost;
    s->items[s->n++] = (uint8_t)value;
    return true;
}

static bool refuse(const state *s, int64_t rc, uint64_t cost)
{
    switch (rc) {
    case WEIR_ECLOSED: return s->closed;
    case WEIR_ETOOBIG: return cost > ledger.max_cost;
    case WEIR_EFULL:
    case WEIR_ETIMEDOUT: return !s->closed && !fits(s, cost);
    case WEIR_EINTR: return true;
    default: return false;
    }
}

static bool is_sampled_out(state *s)
{
    bool is_out = s->above && ++s->sampled_out < ledger.keep_one_of;
    if (!is_out)
        s->sampled_out = 0;
    return is_out;
}

static bool apply_put(state *s, const prove_call *call)
{
    unsigned value = call->arg & 255;
    uint64_t cost = (uint64_t)call->arg >> 8, self = UINT64_C(1) << value, evicted = 0;
    int64_t rc = rc_of(call);
    if (rc < 0)
        return refuse(s, rc, cost);
    if (s->closed || cost > ledger.max_cost)
        return false;
    bool is_out = is_sampled_out(s), drops = ledger.overflow == WEIR_OVERFLOW_DROP_NEWEST ||
                                             ledger.overflow == WEIR_OVERFLOW_SAMPLE;
    if (is_out || (drops && !fits(s, cost)))
        return rc == WEIR_DROPPED && drops_of(call) == self;
    while (ledger.overflow == WEIR_OVERFLOW_DROP_OLDEST && !fits(s, cost) && s->n > 0)
        evicted |= UINT64_C(1) << take(s);
    return rc == WEIR_KEPT && drops_of(call) == evicted && add(s, value, cost);
}

static bool apply_overflow(state *s, const prove_call *call)
{
    int64_t rc = rc_of(call);
    bool evicts = ledger.overflow == WEIR_OVERFLOW_DROP_OLDEST && s->n > 0;
    if (rc == WEIR_EFULL)
        return !s->closed && ledger.overflow <= WEIR_OVERFLOW_FAIL;
    if (rc < 0)
        return refuse(s, rc, 0);
    if (s->closed || ledger.overflow <= WEIR_OVERFLOW_FAIL)
        return false;
    if (evicts)
        return rc == WEIR_EVICTED && drops_of(call) == UINT64_C(1) << take(s);
    return rc == WEIR_DROPPED && drops_of(call) == UINT64_C(1) << call->arg;
}

static bool apply_get(state *s, const prove_call *call)
{
    int64_t rc = rc_of(call);
    if (rc == WEIR_ECLOSED)
        return s->closed && s->n == 0;
    if (rc == WEIR_EEMPTY || rc == WEIR_ETIMEDOUT)
        return !s->closed && s->n == 0;
    if (rc < 0)
        return rc == WEIR_EINTR;
    if (s->n == 0 || take(s) != rc)
        return false;
    s->flying += ledger.bound_in_flight;
    return true;
}

static bool apply_discard(state *s, const prove_call *call)
{
    uint64_t gone = 0;
    int64_t n = s->n;
    while (s->n > 0)
        gone |= UINT64_C(1) << take(s);
    return rc_of(call) == n && drops_of(call) == gone;
}

static bool apply_done(state *s, const prove_call *call)
{
    if (call->arg > s->flying)
        return rc_of(call) == WEIR_EINVAL;
    s->flying -= (uint8_t)call->arg;
    return rc_of(call) == WEIR_OK;
}

static bool apply_drain(const state *s, const prove_call *call)
{
    bool is_idle = s->n + s->flying == 0;
    return rc_of(call) == WEIR_OK ? is_idle : rc_of(call) == WEIR_ETIMEDOUT && !is_idle;
}

static bool apply_one(state *s, const prove_call *call)
{
    switch (call->what) {
    case PUT: return apply_put(s, call);
    case OVERFLOW: return apply_overflow(s, call);
    case GET: return apply_get(s, call);
    case CLOSE: s->closed = 1; return true;
    case DISCARD: return apply_discard(s, call);
    case RESIZE: s->capacity = (uint8_t)call->arg; return true;
    case DRAIN: return apply_drain(s, call);
    case DONE: return apply_done(s, call);
    case LOOK: return rc_of(call) == s->n + 16 * s->flying;
    case DEPTH: return rc_of(call) == s->n;
    case ITEM_READY: return rc_of(call) == (s->closed || s->n > 0);
    case ROOM_READY: return rc_of(call) == (s->closed || fits(s, 0));
    default: return false;
    }
}

static bool apply(void *at, const prove_call *call)
{
    state *s = at;
    if (!call->ended)
        return false; /* all of them end */
    if (rc_of(call) == NOTHING)
        return true;
    if (!apply_one(s, call))
        return false;
    s->above = s->above ? s->n > ledger.low : s->n > ledger.high;
    return true;
}

static const char *text(const prove_call *call, char to[96])
{
    static const char *const names[] = {"put",     "overflow", "get",        "close",
                                        "discard", "resize",   "drain",      "done",
                                        "look",    "depth",    "item_ready", "room_ready"};
    snprintf(to, 96, "%s(%lld): %lld, dropped %#llx%s", names[call->what], (long long)call->arg,
             (long long)rc_of(call), (unsigned long long)drops_of(call),
             call->ended ? "" : " (did not end)");
    return to;
}

void q_linearizable(void)
{
    static const prove_model model = {sizeof(state), apply, text};
    prove_linearizable(&model);
}
