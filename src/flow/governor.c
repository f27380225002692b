/* governor.c - the memory governor; the contract is in weir/memory.h.
 *
 * A gate whose cost is bytes.  What decides about its capacity - the last measurement, the allowance,
 * the ladder - is the gate's state, changes under its lock, and so is one for all processes of a shared
 * governor.
 *
 * Measuring:  has no thread of its own.  Who reserves measures first if it is time; who waits does so
 *             from an interruption hook, which leaves its place in line as it is; a release does when
 *             somebody waits above NORMAL.  One measures at a time: a turn is claimed in the state,
 *             then the files are read without any lock, then the result is put there.
 * Shedding:   who waits asks for the step in the same hook.  Those without a thread are in a list here,
 *             and whoever finds SHED takes them out of line.
 * Ownership:  an async wait is ours: freed by whoever ends it, when nobody is about to cancel it.
 * Locking:    `mutex` protects what is marked so.  No call of the gate's is made under it, for the
 *             gate calls `ready`.
 */
#include "flow/governor.h"

#include <assert.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "base/mutex.h"
#include "base/park.h"
#include "flow/gate.h"
#include "model/allowance.h"
#include "model/bytes.h"
#include "model/ladder.h"
#include "model/sizes.h"

#define BYTES_MAX        (UINT64_C(1) << 46) /* the gate's */
#define DEFAULT_FRACTION 0.8
#define DEFAULT_INTERVAL (100 * WEIR_MILLISECOND)
#define LEAST_INTERVAL   WEIR_MILLISECOND
#define EARLIEST         (10 * WEIR_MILLISECOND) /* after a release; it costs up to 0.2 ms */

static_assert(WEIR_MEMORY_SHED == (int)WEIR__STEP_SHED && WEIR_MEMORY_SLOW == (int)WEIR__STEP_SLOW,
              "the model's steps are the contract's");

/* With the gate. */
struct state {
    double fraction; /* 0: the limit is in bytes */
    weir__allowance allowance;
    weir__ladder ladder;
    weir__memory memory; /* as last measured */
    weir_time turn_at;   /* when somebody began to measure last */
    uint64_t measured;
};

static_assert(sizeof(struct state) <= WEIR__GATE_STATE, "fits the gate");

/* One who waits without a thread. */
struct wait {
    weir_pending inner; /* the gate's; first */
    weir_pending *outer;
    weir_governor *governor;
    struct wait *next, *prev; /* under the mutex, as what follows */
    unsigned pins;            /* calls that are about to cancel it */
    bool served;              /* it is out of the gate's line, and told so, or about to be */
    bool ended;
};

struct weir_governor {
    weir__gate *gate;
    weir__memory_roots roots;
    bool is_shared, in_bytes;
    int64_t interval_ns;
    weir_memory_change_fn *on_change;
    void *change_ctx;

    /* relaxed: hints, and counts that stand for themselves */
    _Atomic weir_time due_at; /* the next measurement */
    _Atomic int step;
    _Atomic uint64_t limit;
    _Atomic size_t waiting;
    _Atomic uint64_t shed;
    _Atomic bool measuring;

    weir__mutex mutex;
    struct wait *waits; /* under it */
    bool telling;
    int told;
    weir__sizes sizes;
};

#define GET(word)    atomic_load_explicit(&(word), memory_order_relaxed)
#define SET(word, x) atomic_store_explicit(&(word), (x), memory_order_relaxed)

const char *weir_memory_step_name(int step)
{
    static const char *const names[] = {"normal", "slow", "pause", "shed"};
    return step >= WEIR_MEMORY_NORMAL && step <= WEIR_MEMORY_SHED ? names[step] : "?";
}

int weir_parse_memory(const char *text, uint64_t *ret_bytes, double *ret_fraction)
{
    weir__amount amount;
    if (!text || !weir__parse_amount(text, &amount))
        return WEIR_EINVAL;
    *ret_bytes = amount.bytes;
    *ret_fraction = amount.fraction;
    return WEIR_OK;
}

/* ---- under the gate's lock ------------------------------------------------------------------ */

static uint64_t capacity_of(const struct state *state)
{
    uint64_t capacity = weir__allowance_get(&state->allowance, weir__ladder_step(&state->ladder));
    return capacity < BYTES_MAX ? capacity : BYTES_MAX - 1;
}

/* What somebody found out, and what came of it. */
struct measurement {
    weir_time now, earliest; /* a turn is there when the last one began before `earliest` */
    bool is_mine;
    weir__memory memory;
    uint64_t usage, reserved;
    weir_time turn_at;
    uint64_t limit;
    int step;
};

static uint64_t claim_turn(void *data, uint64_t used, uint64_t capacity, void *ctx)
{
    struct state *state = data;
    struct measurement *m = ctx;
    m->is_mine = state->turn_at <= m->earliest;
    if (m->is_mine)
        state->turn_at = m->now;
    m->turn_at = state->turn_at;
    m->memory = state->memory;
    m->reserved = used;
    m->limit = state->allowance.limit;
    m->step = (int)weir__ladder_step(&state->ladder);
    return capacity;
}

static void take(struct state *state, const struct measurement *m)
{
    bool known = m->memory.limit != WEIR__NO_LIMIT && m->memory.limit > 0;
    state->memory = m->memory;
    state->measured++;
    if (state->fraction > 0 && known)
        state->allowance.limit = (uint64_t)(state->fraction * (double)m->memory.limit);
    weir__allowance_measure(&state->allowance, m->usage, m->reserved, m->now);
    double used = known ? (double)m->memory.usage / (double)m->memory.limit : 0;
    weir__ladder_update(&state->ladder, used, m->memory.some, m->memory.full);
}

static uint64_t put_result(void *data, uint64_t used, uint64_t capacity, void *ctx)
{
    (void)capacity;
    struct state *state = data;
    struct measurement *m = ctx;
    if (used > m->reserved)
        m->reserved = used; /* at most what was reserved around it */
    take(state, m);
    m->limit = state->allowance.limit;
    m->step = (int)weir__ladder_step(&state->ladder);
    return capacity_of(state);
}

static void init_state(void *data, const void *ctx)
{
    *(struct state *)data = *(const struct state *)ctx;
}

/* ---- those who wait without a thread -------------------------------------------------------- */

/* Under the mutex. */
static void link_wait(weir_governor *governor, struct wait *wait)
{
    wait->next = governor->waits;
    if (wait->next)
        wait->next->prev = wait;
    governor->waits = wait;
}

static void unlink_wait(weir_governor *governor, struct wait *wait)
{
    if (wait->prev)
        wait->prev->next = wait->next;
    else
        governor->waits = wait->next;
    if (wait->next)
        wait->next->prev = wait->prev;
    wait->next = wait->prev = NULL;
    wait->ended = true;
}

/* Takes one that is pinned out of the gate's line, and ends the pin; false: it was let in, or is told
 * something just now. */
static bool leave_line(weir_governor *governor, struct wait *wait)
{
    bool left = weir__gate_cancel(governor->gate, &wait->inner);
    weir__lock(&governor->mutex);
    wait->served = true;
    if (left)
        unlink_wait(governor, wait);
    bool last = --wait->pins == 0 && wait->ended;
    weir__unlock(&governor->mutex);
    if (left)
        atomic_fetch_sub_explicit(&governor->waiting, 1, memory_order_relaxed);
    if (last)
        weir__free(wait);
    return left;
}

static void end_wait(weir_pending *inner, int result)
{
    struct wait *wait = (struct wait *)inner;
    weir_governor *governor = wait->governor;
    weir_pending *outer = wait->outer;
    weir__lock(&governor->mutex);
    unlink_wait(governor, wait);
    bool last = wait->pins == 0;
    weir__unlock(&governor->mutex);
    atomic_fetch_sub_explicit(&governor->waiting, 1, memory_order_relaxed);
    if (last)
        weir__free(wait);
    outer->ready(outer, result);
}

static void count_shed(weir_governor *governor)
{
    weir__record *record = weir__gate_record(governor->gate);
    atomic_fetch_add_explicit(&governor->shed, 1, memory_order_relaxed);
    if (record)
        atomic_fetch_add_explicit(&record->number[WEIR_STATS_SHED], 1, memory_order_relaxed);
}

/* Sends all of them away.  (Not those that were served and not told so far: that may be the business of this very
 * thread, which is in another one's `ready`.) */
static void shed_waits(weir_governor *governor)
{
    for (;;) {
        weir__lock(&governor->mutex);
        struct wait *wait = governor->waits;
        while (wait && (wait->pins > 0 || wait->served)) /* somebody else sees to it */
            wait = wait->next;
        weir_pending *outer = wait ? wait->outer : NULL;
        if (wait)
            wait->pins++;
        weir__unlock(&governor->mutex);
        if (!wait)
            return;
        if (leave_line(governor, wait)) {
            count_shed(governor);
            outer->ready(outer, WEIR_ESHED);
        }
    }
}

/* ---- measuring ------------------------------------------------------------------------------ */

/* Tells on_change, one thread at a time, until it has been told what holds. */
static void note_step(weir_governor *governor, int step)
{
    SET(governor->step, step);
    weir__tell(weir__gate_record(governor->gate), WEIR_STATS_STATE, (uint64_t)step);
    if (step == WEIR_MEMORY_SHED)
        shed_waits(governor);
    if (!governor->on_change)
        return;
    weir__lock(&governor->mutex);
    bool mine = !governor->telling;
    governor->telling = true;
    for (int now; mine && (now = GET(governor->step)) != governor->told;) {
        governor->told = now;
        weir__unlock(&governor->mutex);
        governor->on_change((weir_memory_step)now, governor->change_ctx);
        weir__lock(&governor->mutex);
    }
    if (mine)
        governor->telling = false;
    weir__unlock(&governor->mutex);
}

static uint64_t own_usage(const weir_governor *governor, const weir__memory *memory)
{
    if (!governor->in_bytes)
        return memory->usage;
    return governor->is_shared ? 0 : weir__rss_of_tree(&governor->roots, 0, NULL);
}

/* Measures, unless somebody does or has done since `earliest`. */
static void measure(weir_governor *governor, weir_time now, weir_time earliest)
{
    /* relaxed: what is found out is put under the gate's lock; this only spares others the reading */
    if (atomic_exchange_explicit(&governor->measuring, true, memory_order_relaxed))
        return;
    /* What stays so if nobody can get at the state: a process is stopped in the middle of a call. */
    struct measurement m = {.now = now,
                            .earliest = earliest,
                            .turn_at = now,
                            .limit = GET(governor->limit),
                            .step = GET(governor->step)};
    weir__gate_update(governor->gate, claim_turn, &m);
    if (m.is_mine) {
        weir__memory_read(&governor->roots, &m.memory); /* or what was read before */
        m.usage = own_usage(governor, &m.memory);
        m.now = weir_now();
        weir__gate_update(governor->gate, put_result, &m);
    }
    SET(governor->due_at, m.turn_at + governor->interval_ns);
    SET(governor->limit, m.limit);
    SET(governor->measuring, false);
    note_step(governor, m.step);
}

static void measure_if_due(weir_governor *governor)
{
    weir_time now = weir_now();
    if (now >= GET(governor->due_at))
        measure(governor, now, now - governor->interval_ns);
}

int weir_governor_sample(weir_governor *governor)
{
    measure_if_due(governor);
    return GET(governor->step);
}

void weir__governor_measure(weir_governor *governor)
{
    weir_time now = weir_now();
    measure(governor, now, now - LEAST_INTERVAL);
}

uint64_t weir__governor_limit(const weir_governor *governor)
{
    return GET(governor->limit);
}

/* ---- creating ------------------------------------------------------------------------------- */

static bool are_valid(const weir_governor_opts *opts)
{
    return opts && opts->size == sizeof *opts && opts->limit_bytes < UINT64_C(1) << 62 &&
           (opts->limit_bytes == 0 || opts->limit_fraction == 0) && opts->limit_fraction >= 0 &&
           opts->limit_fraction <= 1 &&
           (opts->interval_ns == 0 || opts->interval_ns >= LEAST_INTERVAL);
}

/* The state as it begins: measured once, nothing reserved. */
static int first_state(const weir_governor *governor, const weir_governor_opts *opts,
                       struct state *ret)
{
    *ret = (struct state){.memory = WEIR__MEMORY_UNKNOWN};
    bool known = weir__memory_read(&governor->roots, &ret->memory);
    if (!governor->in_bytes)
        ret->fraction = opts->limit_fraction > 0 ? opts->limit_fraction : DEFAULT_FRACTION;
    if (!governor->in_bytes && !known)
        return WEIR_ESYSTEM;
    const double marks[] = {opts->slow_at, opts->pause_at, opts->shed_at};
    if (!weir__ladder_init(&ret->ladder, marks, ret->fraction))
        return WEIR_EINVAL;
    weir__allowance_init(&ret->allowance, opts->limit_bytes, governor->interval_ns);
    struct measurement m = {
        .now = weir_now(), .memory = ret->memory, .usage = own_usage(governor, &ret->memory)};
    ret->turn_at = m.now;
    take(ret, &m);
    return WEIR_OK;
}

int weir__governor_create_at(weir_governor **ret_governor, const weir_governor_opts *opts,
                             const weir__memory_roots *roots)
{
    if (!are_valid(opts))
        return WEIR_EINVAL;
    weir_governor *governor = weir__calloc(1, sizeof *governor);
    if (!governor)
        return WEIR_ENOMEM;
    governor->roots = *roots;
    governor->is_shared = opts->shared != NULL;
    governor->in_bytes = opts->limit_bytes > 0;
    governor->interval_ns = opts->interval_ns ? opts->interval_ns : DEFAULT_INTERVAL;
    governor->on_change = opts->on_change;
    governor->change_ctx = opts->change_ctx;
    weir__mutex_init(&governor->mutex);
    struct state state;
    int rc = first_state(governor, opts, &state);
    weir__gate_opts gate = {.capacity = rc < 0 ? 0 : capacity_of(&state),
                            .kind = "memory",
                            .shared = opts->shared,
                            .one_always = true,
                            .state_size = sizeof state,
                            .state_init = init_state,
                            .state_ctx = &state,
                            .stats_kind = WEIR_STATS_GOVERNOR,
                            .stats_name = opts->name,
                            .tells_cost = true};
    if (rc == WEIR_OK)
        rc = weir__gate_create(&governor->gate, &gate);
    if (rc < 0) {
        weir_governor_destroy(governor);
        return rc;
    }
    weir__gate_look(governor->gate, &state); /* a shared one may be older */
    governor->in_bytes = state.fraction == 0;
    governor->interval_ns = state.allowance.interval_ns;
    governor->told = WEIR_MEMORY_NORMAL;
    SET(governor->due_at, state.turn_at + governor->interval_ns);
    SET(governor->step, (int)weir__ladder_step(&state.ladder));
    SET(governor->limit, state.allowance.limit);
    *ret_governor = governor;
    return WEIR_OK;
}

int weir_governor_create(weir_governor **ret_governor, const weir_governor_opts *opts)
{
    static const weir__memory_roots kernel;
    return weir__governor_create_at(ret_governor, opts, &kernel);
}

void weir_governor_destroy(weir_governor *governor)
{
    if (!governor)
        return;
    assert(!governor->waits);
    weir__gate_destroy(governor->gate);
    weir__mutex_fini(&governor->mutex);
    weir__free(governor);
}

/* ---- reserving ------------------------------------------------------------------------------ */

/* While a thread waits, its interruption hook is this. */
struct watch {
    weir_governor *governor;
    weir_interrupt_fn *outer;
    void *outer_ctx;
    bool is_shed;
};

static int look(void *ctx)
{
    struct watch *watch = ctx;
    int rc = watch->outer ? watch->outer(watch->outer_ctx) : 0;
    weir_set_interrupt(look, watch); /* the outer one may have waited, and set it back to itself */
    if (rc != 0)
        return rc;
    watch->is_shed = weir_governor_sample(watch->governor) == WEIR_MEMORY_SHED;
    return watch->is_shed;
}

static int refuse_shed(weir_governor *governor)
{
    count_shed(governor);
    return WEIR_ESHED;
}

static bool is_amount(uint64_t bytes)
{
    return bytes > 0 && bytes < UINT64_C(1) << 62;
}

/* 64 TiB and more are let in alone, and alone is alone. */
static uint64_t gate_cost(uint64_t bytes)
{
    return bytes < BYTES_MAX ? bytes : BYTES_MAX - 1;
}

/* While those who would wait are shed: what is counted as shed is not refused, too.  (The probe of a shared gate
 * would say "full" because another process is in a call.) */
static int take_or_shed(weir_governor *governor, uint64_t bytes)
{
    weir_time deadline = governor->is_shared ? WEIR_POLL : WEIR_PROBE;
    int rc = weir__gate_acquire(governor->gate, bytes, 0, deadline);
    return rc == WEIR_EFULL ? refuse_shed(governor) : rc;
}

int weir_governor_reserve(weir_governor *governor, uint64_t bytes, weir_time deadline)
{
    if (!is_amount(bytes))
        return WEIR_EINVAL;
    bytes = gate_cost(bytes);
    measure_if_due(governor);
    if (deadline <= WEIR_POLL)
        return weir__gate_acquire(governor->gate, bytes, 0, WEIR_POLL);
    if (GET(governor->step) == WEIR_MEMORY_SHED)
        return take_or_shed(governor, bytes);
    struct watch watch = {.governor = governor};
    watch.outer = weir__get_interrupt(&watch.outer_ctx);
    atomic_fetch_add_explicit(&governor->waiting, 1, memory_order_relaxed);
    weir_set_interrupt(look, &watch);
    int rc = weir__gate_acquire(governor->gate, bytes, 0, deadline);
    weir_set_interrupt(watch.outer, watch.outer_ctx);
    atomic_fetch_sub_explicit(&governor->waiting, 1, memory_order_relaxed);
    return rc == WEIR_EINTR && watch.is_shed ? refuse_shed(governor) : rc;
}

int weir_governor_reserve_async(weir_governor *governor, uint64_t bytes, weir_pending *pending)
{
    if (!is_amount(bytes) || governor->is_shared)
        return WEIR_EINVAL;
    bytes = gate_cost(bytes);
    measure_if_due(governor);
    if (GET(governor->step) == WEIR_MEMORY_SHED)
        return take_or_shed(governor, bytes);
    struct wait *wait = weir__calloc(1, sizeof *wait);
    if (!wait)
        return WEIR_ENOMEM;
    wait->inner.ready = end_wait;
    wait->outer = pending;
    wait->governor = governor;
    wait->pins = 1; /* nobody else cancels it before it is in line */
    weir__lock(&governor->mutex);
    link_wait(governor, wait);
    weir__unlock(&governor->mutex);
    atomic_fetch_add_explicit(&governor->waiting, 1, memory_order_relaxed);
    int rc = weir__gate_acquire_async(governor->gate, bytes, 0, &wait->inner);
    weir__lock(&governor->mutex);
    if (rc != WEIR_WAITING)
        unlink_wait(governor, wait);
    bool last = --wait->pins == 0 && wait->ended;
    weir__unlock(&governor->mutex);
    if (rc != WEIR_WAITING)
        atomic_fetch_sub_explicit(&governor->waiting, 1, memory_order_relaxed);
    if (last)
        weir__free(wait);
    return rc;
}

bool weir_governor_cancel(weir_governor *governor, weir_pending *pending)
{
    weir__lock(&governor->mutex);
    struct wait *wait = governor->waits;
    while (wait && wait->outer != pending)
        wait = wait->next;
    if (wait)
        wait->pins++;
    weir__unlock(&governor->mutex);
    bool left = wait && leave_line(governor, wait);
    if (left)
        weir__gate_count_refused(governor->gate);
    return left;
}

void weir_governor_release(weir_governor *governor, uint64_t bytes)
{
    weir__gate_release(governor->gate, gate_cost(bytes), 0, NULL, NULL);
    if (GET(governor->waiting) == 0 || GET(governor->step) == WEIR_MEMORY_NORMAL)
        return;
    weir_time now = weir_now();
    int64_t apart = EARLIEST < governor->interval_ns ? EARLIEST : governor->interval_ns;
    if (now - apart >= GET(governor->due_at) - governor->interval_ns)
        measure(governor, now, now - apart);
}

void weir_governor_close(weir_governor *governor)
{
    weir__gate_close(governor->gate);
}

/* ---- learning ------------------------------------------------------------------------------- */

void weir_governor_observe(weir_governor *governor, uint64_t kind, uint64_t peak_bytes)
{
    weir__lock(&governor->mutex);
    weir__sizes_observe(&governor->sizes, kind, peak_bytes);
    weir__unlock(&governor->mutex);
}

uint64_t weir_governor_estimate(weir_governor *governor, uint64_t kind)
{
    weir__lock(&governor->mutex);
    uint64_t estimate = weir__sizes_estimate(&governor->sizes, kind);
    weir__unlock(&governor->mutex);
    return estimate;
}

uint64_t weir__governor_seen(weir_governor *governor, uint64_t kind)
{
    weir__lock(&governor->mutex);
    uint64_t seen = weir__sizes_seen(&governor->sizes, kind);
    weir__unlock(&governor->mutex);
    return seen;
}

/* ---- looking -------------------------------------------------------------------------------- */

int weir_governor_get_snapshot(weir_governor *governor, weir_governor_snapshot *ret_snapshot)
{
    if (ret_snapshot->size != sizeof *ret_snapshot)
        return WEIR_EINVAL;
    struct state state;
    weir__gate_counts counts;
    weir__gate_look(governor->gate, &state);
    weir__gate_get_counts(governor->gate, &counts);
    unsigned processes;
    uint64_t rss = weir__rss_of_tree(&governor->roots, 0, &processes);
    bool known = state.memory.limit != WEIR__NO_LIMIT;
    *ret_snapshot = (weir_governor_snapshot){
        .size = sizeof *ret_snapshot,
        .limit = state.allowance.limit,
        .memory = known ? state.memory.limit : 0,
        .usage = state.memory.usage,
        .is_cgroup = state.memory.is_cgroup,
        .rss = rss,
        .processes = processes,
        .psi_some = state.memory.some,
        .psi_full = state.memory.full,
        .step = (weir_memory_step)weir__ladder_step(&state.ladder),
        .base = state.allowance.idle + state.allowance.excess,
        .capacity = counts.capacity,
        .reserved = counts.used,
        .peak_reserved = counts.peak_used,
        .inside = counts.inside,
        .admitted = counts.admitted,
        .released = counts.released,
        .lost = counts.lost,
        .refused = counts.refused,
        .shed = GET(governor->shed),
        .waiting = counts.waiting,
        .blocked_ns = counts.blocked_ns,
        .measured = state.measured,
        .is_closed = counts.is_closed,
    };
    return WEIR_OK;
}
