/* gate.c - a gate of this process; see gate.h.  One with a name is flow/shared_gate.c.
 *
 * One word holds the cost inside and whether to go the long way: somebody waits, or the gate is
 * closed.  Who finds neither and fits is in by one compare-exchange, and out by one subtraction.
 * Everything else happens under the mutex.  The word also counts the changes of the capacity, so
 * that nobody comes in by one that he read before a change (in a compare-exchange that 65,536
 * changes fit into, he could).
 *
 * Wake-ups:   who is going to wait sets LONG_WAY and then looks (settle) whether it fits; who
 *             releases subtracts from the same word and sees LONG_WAY there if it came later, and
 *             settles.  One word has one order, so one of the two sees the other.
 * Hand-off:   what is waited for is added to the word by who settles, for the waiter: a later try
 *             finds it taken.
 * Counting:   calls in and out are counted in the record that other processes see, if there is one:
 *             nobody decides by these counts, and each is an atomic instruction that is not had twice.
 * Settling:   everything that may let somebody in ends in settle(): releases, more capacity, one who
 *             gives up his place at the head, one who joins.
 */
#include "flow/gate.h"

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "base/mutex.h"
#include "flow/shared_gate.h"
#include "flow/waitq.h"
#include "model/shed.h"

#define LONG_WAY   (UINT64_C(1) << 63)
#define CHANGE     (UINT64_C(1) << 47)
#define COST(word) ((word) & (CHANGE - 1))
#define COST_MAX   (CHANGE / 2) /* exclusive; so a sum of two does not run over */

typedef struct waiter {
    weir__waiter base; /* first: what the waitq holds */
    uint64_t cost, ticket;
    unsigned partition;
    weir_time since;
    weir_pending *pending; /* NULL: a thread */
} waiter;

static_assert(sizeof(waiter) <= sizeof(((weir_pending *)NULL)->opaque), "fits a weir_pending");

struct weir__gate {
    weir__shared_gate *shared; /* not NULL: none of the rest is used */
    bool one_always, lifo;
    bool tells_cost; /* there is a record, for sums of costs, too */
    unsigned n_partitions;
    double shares[WEIR__PARTITIONS];
    void *state;
    size_t state_size;

    /* changed with and without the mutex.  relaxed, if nothing else is said: each stands for itself */
    _Alignas(WEIR__LINE) _Atomic uint64_t word;
    _Atomic uint64_t capacity;
    _Atomic uint64_t peak;
    _Atomic uint64_t used_by[WEIR__PARTITIONS];      /* with partitions */
    _Atomic uint64_t *admitted, *released, *refused; /* in the record, or ... */
    _Atomic uint64_t unseen[3];                      /* ... here */

    _Alignas(WEIR__LINE) weir__mutex mutex; /* guards what follows */
    bool closed;
    size_t waiting;
    uint64_t last_ticket;
    weir__waitq lines[WEIR__PARTITIONS]; /* one for each partition */
    weir__shed shed;
    uint64_t n_shed, n_waits, blocked_ns;
    weir__record *record; /* NULL: none, or it is the shared one's; set at creation */
};

#define GET(word)    atomic_load_explicit(&(word), memory_order_relaxed)
#define ADD(word, n) atomic_fetch_add_explicit(&(word), (n), memory_order_relaxed)
#define SUB(word, n) atomic_fetch_sub_explicit(&(word), (n), memory_order_relaxed)

/* ---- deciding ------------------------------------------------------------------------------- */

static bool fits(const weir__gate *gate, uint64_t used, uint64_t cost)
{
    uint64_t capacity = GET(gate->capacity);
    return (used <= capacity && cost <= capacity - used) || (gate->one_always && used == 0);
}

/* Not even alone. */
static bool never_fits(const weir__gate *gate, uint64_t cost)
{
    return !gate->one_always && cost > GET(gate->capacity);
}

static void note_entry(weir__gate *gate, uint64_t used, uint64_t cost, unsigned partition)
{
    ADD(*gate->admitted, 1);
    if (gate->tells_cost)
        ADD(gate->record->number[WEIR_STATS_ACCEPTED_COST], cost);
    if (gate->n_partitions > 1)
        ADD(gate->used_by[partition], cost);
    uint64_t peak = GET(gate->peak);
    while (used > peak && !atomic_compare_exchange_weak_explicit(
                              &gate->peak, &peak, used, memory_order_relaxed, memory_order_relaxed))
        ;
}

/* Whether its partition has less than it is guaranteed. */
static bool goes_first(const weir__gate *gate, unsigned partition)
{
    return gate->n_partitions > 1 && (double)GET(gate->used_by[partition]) <
                                         gate->shares[partition] * (double)GET(gate->capacity);
}

/* The short way: in at once, or not. */
static bool enter(weir__gate *gate, uint64_t cost, unsigned partition)
{
    /* acquire: pairs with the release in settle; the capacity is the one of this word, or younger */
    uint64_t word = atomic_load_explicit(&gate->word, memory_order_acquire);
    while (!(word & LONG_WAY) && fits(gate, COST(word), cost)) {
        /* acquire: pairs with the release in weir__gate_release; who comes in sees what those did
         * who made room */
        if (atomic_compare_exchange_weak_explicit(&gate->word, &word, word + cost,
                                                  memory_order_acquire, memory_order_acquire)) {
            note_entry(gate, COST(word) + cost, cost, partition);
            return true;
        }
    }
    return false;
}

/* ---- under the mutex ------------------------------------------------------------------------ */

static uint64_t used(const weir__gate *gate)
{
    return COST(GET(gate->word));
}

/* Whether the newcomer of a partition (NULL: w is nobody) comes before w. */
static bool precedes(const weir__gate *gate, unsigned partition, const waiter *w)
{
    if (!w)
        return true;
    bool first = goes_first(gate, partition), w_first = goes_first(gate, w->partition);
    return first != w_first ? first : gate->lifo;
}

/* Who is next; NULL: nobody waits. */
static waiter *pick(weir__gate *gate)
{
    waiter *best = NULL;
    bool best_first = false;
    for (unsigned i = 0; gate->waiting > 0 && (i == 0 || i < gate->n_partitions); i++) {
        waiter *w = (waiter *)(gate->lifo ? gate->lines[i].tail : gate->lines[i].head);
        if (!w)
            continue;
        bool first = goes_first(gate, i);
        bool earlier = best && (w->ticket < best->ticket) != gate->lifo;
        if (!best || (first != best_first ? first : earlier)) {
            best = w;
            best_first = first;
        }
    }
    return best;
}

/* LONG_WAY is set: only we let anybody in. */
static void let_in(weir__gate *gate, uint64_t cost, unsigned partition)
{
    /* acquire: as in enter */
    uint64_t before = atomic_fetch_add_explicit(&gate->word, cost, memory_order_acquire);
    note_entry(gate, COST(before) + cost, cost, partition);
}

static void end_wait(weir__gate *gate, waiter *w, weir_time now, int result, weir__wakeups *wakeups)
{
    gate->blocked_ns += (uint64_t)(now - w->since);
    gate->n_waits++;
    gate->waiting--;
    weir__waitq_serve_this(&gate->lines[w->partition], &w->base, wakeups, result);
}

/* Sends those away who have waited for long while nobody came through. */
static void shed_stuck(weir__gate *gate, weir_time now, weir__wakeups *wakeups)
{
    for (unsigned i = 0; i == 0 || i < gate->n_partitions; i++)
        for (waiter *w; (w = (waiter *)gate->lines[i].head) &&
                        weir__shed_is_stuck(&gate->shed, now, now - w->since);) {
            gate->n_shed++;
            end_wait(gate, w, now, WEIR_ESHED, wakeups);
        }
}

/* Lets in whoever can be; the last thing under the mutex, with LONG_WAY set. */
static void settle(weir__gate *gate, weir__wakeups *wakeups)
{
    weir_time now = 0;
    for (waiter *w;
         (w = pick(gate)) && (never_fits(gate, w->cost) || fits(gate, used(gate), w->cost));) {
        if (now == 0)
            now = weir_now();
        if (never_fits(gate, w->cost)) { /* the capacity has fallen meanwhile */
            end_wait(gate, w, now, WEIR_ETOOBIG, wakeups);
            continue;
        }
        if (weir__shed_is_late(&gate->shed, now, now - w->since)) {
            gate->n_shed++;
            end_wait(gate, w, now, WEIR_ESHED, wakeups);
            continue;
        }
        let_in(gate, w->cost, w->partition);
        end_wait(gate, w, now, WEIR_OK, wakeups);
    }
    if (gate->shed.target_ns > 0 && gate->waiting > 0)
        shed_stuck(gate, now ? now : weir_now(), wakeups);
    if (gate->waiting == 0) {
        weir__shed_note_empty(&gate->shed);
        if (!gate->closed)
            /* release: pairs with the acquire in enter */
            atomic_fetch_and_explicit(&gate->word, ~LONG_WAY, memory_order_release);
    }
}

/* From here to settle nobody goes the short way in. */
static void lock_long_way(weir__gate *gate)
{
    weir__lock(&gate->mutex);
    atomic_fetch_or_explicit(&gate->word, LONG_WAY, memory_order_relaxed);
}

/* Under the mutex: what changes there alone, for other processes to see. */
static void tell(const weir__gate *gate)
{
    weir__record *record = gate->record;
    weir__tell(record, WEIR_STATS_CAPACITY, GET(gate->capacity));
    weir__tell_line(record, 0, gate->waiting);
    weir__tell(record, WEIR_STATS_PUT_WAITS, gate->n_waits);
    if (gate->shed.target_ns > 0) /* else it is not the gate that sheds */
        weir__tell(record, WEIR_STATS_SHED, gate->n_shed);
    weir__tell(record, WEIR_STATS_CLOSED, gate->closed);
}

static void settle_and_unlock(weir__gate *gate)
{
    weir__wakeups wakeups = {0};
    settle(gate, &wakeups);
    tell(gate);
    weir__unlock(&gate->mutex);
    weir__wake_all(&wakeups);
}

static uint64_t change(weir__gate *gate, weir__gate_update_fn *fn, void *ctx)
{
    uint64_t before = GET(gate->capacity);
    uint64_t capacity = fn(gate->state, used(gate), before, ctx);
    assert(capacity < COST_MAX);
    if (capacity == before)
        return capacity;
    atomic_store_explicit(&gate->capacity, capacity, memory_order_relaxed);
    uint64_t word = GET(gate->word), next;
    do /* the count of changes runs round below LONG_WAY */
        next = LONG_WAY | ((word + CHANGE) & ~LONG_WAY);
    while (!atomic_compare_exchange_weak_explicit(&gate->word, &word, next, memory_order_relaxed,
                                                  memory_order_relaxed));
    return capacity;
}

/* The long way of a call that does not wait.  Where somebody waits for more than there is room for,
 * only who would be put before him gets in. */
static int try_long_way(weir__gate *gate, uint64_t cost, unsigned partition, weir_time deadline)
{
    lock_long_way(gate);
    int rc = WEIR_OK;
    if (gate->closed)
        rc = WEIR_ECLOSED;
    else if (!fits(gate, used(gate), cost) || !precedes(gate, partition, pick(gate)))
        rc = WEIR_EFULL;
    else
        let_in(gate, cost, partition);
    settle_and_unlock(gate);
    if (rc == WEIR_EFULL && deadline != WEIR_PROBE)
        ADD(*gate->refused, 1);
    return rc;
}

/* Joins the line; who is served at once is told so as any other. */
static int join(weir__gate *gate, waiter *w, void (*notify)(weir__waiter *))
{
    w->since = weir_now();
    lock_long_way(gate);
    int rc = gate->closed ? WEIR_ECLOSED : WEIR_OK;
    if (rc == WEIR_OK) {
        w->ticket = ++gate->last_ticket;
        weir__waitq_push_async(&gate->lines[w->partition], &w->base, notify);
        gate->waiting++;
    }
    settle_and_unlock(gate);
    return rc;
}

/* Leaves the line; false: was served already. */
static bool leave(weir__gate *gate, waiter *w)
{
    weir_time now = weir_now();
    lock_long_way(gate);
    bool left = weir__waitq_give_up(&gate->lines[w->partition], &w->base);
    if (left) {
        gate->waiting--;
        gate->n_waits++;
        gate->blocked_ns += (uint64_t)(now - w->since);
    }
    settle_and_unlock(gate); /* it may have stood in the way of others */
    return left;
}

/* ---- the calls ------------------------------------------------------------------------------ */

static bool are_valid(const weir__gate_opts *opts)
{
    double sum = 0;
    if (opts->capacity >= COST_MAX || opts->n_partitions > WEIR__PARTITIONS ||
        opts->state_size > WEIR__GATE_STATE || opts->shed_target_ns < 0 ||
        (opts->shed_target_ns > 0 && opts->shed_interval_ns <= 0))
        return false;
    for (unsigned i = 0; i < opts->n_partitions; i++) {
        if (!(opts->shares[i] >= 0)) /* a NaN, too */
            return false;
        sum += opts->shares[i];
    }
    return sum <= 1 + 1e-9;
}

static int init_private(weir__gate *gate, const weir__gate_opts *opts)
{
    gate->one_always = opts->one_always;
    gate->lifo = opts->lifo;
    gate->n_partitions = opts->n_partitions;
    for (unsigned i = 0; i < opts->n_partitions; i++)
        gate->shares[i] = opts->shares[i];
    gate->shed =
        (weir__shed){.target_ns = opts->shed_target_ns, .interval_ns = opts->shed_interval_ns};
    atomic_init(&gate->capacity, opts->capacity);
    weir__mutex_init(&gate->mutex);
    if (opts->state_size == 0)
        return WEIR_OK;
    if (!(gate->state = weir__calloc(1, opts->state_size)))
        return WEIR_ENOMEM;
    gate->state_size = opts->state_size;
    if (opts->state_init)
        opts->state_init(gate->state, opts->state_ctx);
    return WEIR_OK;
}

/* Where calls are counted from now on. */
static void begin_telling(weir__gate *gate, const weir__gate_opts *opts)
{
    weir__record *record = gate->record =
        opts->stats_kind ? weir__record_open(opts->stats_kind, opts->stats_name) : NULL;
    gate->admitted = record ? &record->number[WEIR_STATS_ACCEPTED] : &gate->unseen[0];
    gate->released = record ? &record->number[WEIR_STATS_DONE] : &gate->unseen[1];
    gate->refused = record ? &record->number[WEIR_STATS_REFUSED] : &gate->unseen[2];
    gate->tells_cost = record && opts->tells_cost;
    weir__tell(record, WEIR_STATS_REPORTS_DONE, 1);
    tell(gate);
}

int weir__gate_create(weir__gate **ret_gate, const weir__gate_opts *opts)
{
    if (!are_valid(opts))
        return WEIR_EINVAL;
    weir__gate *gate = weir__calloc_line(sizeof *gate);
    if (!gate)
        return WEIR_ENOMEM;
    int rc = opts->shared ? weir__shared_gate_open(&gate->shared, opts) : init_private(gate, opts);
    if (rc < 0) {
        weir__gate_destroy(gate);
        return rc;
    }
    if (!gate->shared)
        begin_telling(gate, opts);
    *ret_gate = gate;
    return WEIR_OK;
}

void weir__gate_destroy(weir__gate *gate)
{
    if (!gate)
        return;
    assert(gate->waiting == 0);
    weir__shared_gate_close_handle(gate->shared);
    weir__record_close(gate->record);
    weir__mutex_fini(&gate->mutex);
    weir__free(gate->state);
    weir__free(gate);
}

/* Where a standing line is shed, looks now and then whether this is one: nobody else may come. */
static int park(weir__gate *gate, waiter *w, weir_time deadline)
{
    int64_t every = gate->shed.target_ns > 0 ? gate->shed.interval_ns : 0; /* set at creation */
    for (;;) {
        weir_time look = every ? weir_after(every + 1) : WEIR_FOREVER;
        int rc = weir__waiter_park(&w->base, look < deadline ? look : deadline);
        if (rc != WEIR_ETIMEDOUT || look >= deadline)
            return rc;
        lock_long_way(gate);
        settle_and_unlock(gate);
    }
}

int weir__gate_acquire(weir__gate *gate, uint64_t cost, unsigned partition, weir_time deadline)
{
    if (gate->shared)
        return weir__shared_gate_acquire(gate->shared, cost, partition, deadline);
    assert(cost > 0 && cost < COST_MAX);
    if (enter(gate, cost, partition))
        return WEIR_OK;
    if (never_fits(gate, cost))
        return WEIR_ETOOBIG;
    if (deadline <= WEIR_POLL)
        return try_long_way(gate, cost, partition, deadline);

    waiter w = {.cost = cost, .partition = partition};
    int rc = join(gate, &w, NULL);
    if (rc < 0)
        return rc;
    rc = park(gate, &w, deadline);
    if (rc != WEIR_OK) {
        if (leave(gate, &w)) {
            if (rc == WEIR_ETIMEDOUT)
                ADD(*gate->refused, 1);
            return rc;
        }
        weir__waiter_join(&w.base);
    }
    return w.base.result;
}

static void notify(weir__waiter *base)
{
    weir_pending *pending = ((waiter *)base)->pending;
    pending->ready(pending, base->result);
}

int weir__gate_acquire_async(weir__gate *gate, uint64_t cost, unsigned partition,
                             weir_pending *pending)
{
    if (gate->shared)
        return WEIR_EINVAL;
    assert(cost > 0 && cost < COST_MAX);
    if (enter(gate, cost, partition))
        return WEIR_OK;
    if (never_fits(gate, cost))
        return WEIR_ETOOBIG;
    waiter *w = (waiter *)(void *)pending->opaque;
    *w = (waiter){.cost = cost, .partition = partition, .pending = pending};
    int rc = join(gate, w, notify);
    return rc < 0 ? rc : WEIR_WAITING;
}

void weir__gate_count_refused(weir__gate *gate)
{
    if (gate->shared)
        weir__shared_gate_count_refused(gate->shared);
    else
        ADD(*gate->refused, 1);
}

bool weir__gate_cancel(weir__gate *gate, weir_pending *pending)
{
    return leave(gate, (waiter *)(void *)pending->opaque);
}

void weir__gate_release(weir__gate *gate, uint64_t cost, unsigned partition,
                        weir__gate_update_fn *fn, void *ctx)
{
    if (gate->shared) {
        weir__shared_gate_release(gate->shared, cost, partition, fn, ctx);
        return;
    }
    if (fn) {
        lock_long_way(gate);
        change(gate, fn, ctx);
    }
    if (gate->n_partitions > 1)
        SUB(gate->used_by[partition], cost);
    if (gate->tells_cost)
        ADD(gate->record->number[WEIR_STATS_DONE_COST], cost);
    /* release: pairs with the acquire in get_counts; its entry was counted before */
    atomic_fetch_add_explicit(gate->released, 1, memory_order_release);
    /* release: pairs with the acquire in enter and let_in */
    uint64_t before = atomic_fetch_sub_explicit(&gate->word, cost, memory_order_release);
    assert(COST(before) >= cost);
    if (!fn) {
        if (!(before & LONG_WAY))
            return;
        lock_long_way(gate);
    }
    settle_and_unlock(gate);
}

uint64_t weir__gate_update(weir__gate *gate, weir__gate_update_fn *fn, void *ctx)
{
    if (gate->shared)
        return weir__shared_gate_update(gate->shared, fn, ctx);
    lock_long_way(gate);
    uint64_t capacity = change(gate, fn, ctx);
    settle_and_unlock(gate);
    return capacity;
}

void weir__gate_look(weir__gate *gate, void *ret_state)
{
    if (gate->shared) {
        weir__shared_gate_look(gate->shared, ret_state);
        return;
    }
    weir__lock(&gate->mutex);
    memcpy(ret_state, gate->state, gate->state_size);
    weir__unlock(&gate->mutex);
}

static uint64_t replace(void *state, uint64_t used, uint64_t capacity, void *ctx)
{
    (void)state;
    (void)used;
    (void)capacity;
    return *(const uint64_t *)ctx;
}

uint64_t weir__gate_set_capacity(weir__gate *gate, uint64_t capacity)
{
    return weir__gate_update(gate, replace, &capacity);
}

void weir__gate_close(weir__gate *gate)
{
    if (gate->shared) {
        weir__shared_gate_close(gate->shared);
        return;
    }
    weir__wakeups wakeups = {0};
    lock_long_way(gate); /* for good */
    gate->closed = true;
    weir_time now = weir_now();
    for (waiter *w; (w = pick(gate));)
        end_wait(gate, w, now, WEIR_ECLOSED, &wakeups);
    tell(gate);
    weir__unlock(&gate->mutex);
    weir__wake_all(&wakeups);
}

void weir__gate_get_counts(weir__gate *gate, weir__gate_counts *ret_counts)
{
    if (gate->shared) {
        weir__shared_gate_get_counts(gate->shared, ret_counts);
        return;
    }
    *ret_counts = (weir__gate_counts){0};
    weir__lock(&gate->mutex);
    ret_counts->shed = gate->n_shed;
    ret_counts->waiting = gate->waiting;
    ret_counts->is_closed = gate->closed;
    ret_counts->blocked_ns = gate->blocked_ns;
    /* Released first: who is counted there is counted as admitted. */
    ret_counts->released = atomic_load_explicit(gate->released, memory_order_acquire);
    ret_counts->admitted = GET(*gate->admitted);
    ret_counts->inside = ret_counts->admitted - ret_counts->released;
    ret_counts->used = used(gate);
    ret_counts->capacity = GET(gate->capacity);
    for (unsigned i = 0; i < gate->n_partitions; i++)
        ret_counts->used_by[i] = GET(gate->used_by[i]);
    weir__unlock(&gate->mutex);
    ret_counts->refused = GET(*gate->refused);
    ret_counts->peak_used = GET(gate->peak);
}

weir__record *weir__gate_record(weir__gate *gate)
{
    return gate->shared ? weir__shared_gate_record(gate->shared) : gate->record;
}

uint64_t weir__gate_capacity(const weir__gate *gate)
{
    return gate->shared ? weir__shared_gate_capacity(gate->shared) : GET(gate->capacity);
}

uint64_t weir__gate_used(const weir__gate *gate)
{
    return gate->shared ? weir__shared_gate_used(gate->shared) : used(gate);
}
