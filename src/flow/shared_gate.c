/* shared_gate.c - see shared_gate.h.
 *
 * Each process has a seat (base/named.h), and what it has inside is written there: one word for each
 * partition, changed by one instruction.  What is inside in all is the sum.  So a process may be
 * killed between any two instructions: what its seat says is what it held, and goes when somebody
 * who would have to wait finds the seat deserted.
 *
 * In:         under the lock (flow/door.h), because the sum must not grow meanwhile.
 * Out:        one subtraction, without the lock, and the lock only if somebody waits.
 * Waiting:    a line of places that can tell the dead (flow/shared_line.h); who is called helps
 *             itself.
 * Wake-ups:   who waits marks its place and then looks at the sum; who releases subtracts and then
 *             looks at the marks; a fence on both sides between the two.  So one sees the other.  A
 *             wake-up that was owed by somebody who was killed comes with the next slice.
 * State:      lies there twice; an update writes the copy that is not in use, and commits by one
 *             store.
 */
#include "flow/shared_gate.h"

#include <assert.h>
#include <stdalign.h>
#include <string.h>

#include "base/alloc.h"
#include "base/named.h"
#include "base/park.h"
#include "base/words.h"
#include "flow/door.h"
#include "flow/shared_line.h"
#include "model/shed.h"

#define SEATS WEIR__SEATS
#define LINE  WEIR__GETTERS /* the one side that is used */

typedef struct seat {
    _Alignas(64) _Atomic uint64_t used_by[WEIR__PARTITIONS];
    _Atomic uint64_t calls; /* inside, < 2^24, and 2^24 for each released */
    _Atomic uint64_t lost;  /* calls */
} seat;

#define ONE_RELEASED    (UINT64_C(1) << 24)
#define INSIDE(calls)   ((calls) % ONE_RELEASED)
#define RELEASED(calls) ((calls) / ONE_RELEASED)

#define STATE_WORDS (WEIR__GATE_STATE / sizeof(uint64_t))

typedef struct copy {
    _Atomic uint64_t capacity;
    alignas(16) _Atomic uint64_t state[STATE_WORDS];
} copy;

/* One's own. */
typedef struct state {
    alignas(16) unsigned char bytes[WEIR__GATE_STATE];
} state;

/* In the block. */
typedef struct shared {
    /* set when it is made */
    uint32_t one_always, lifo, n_partitions;
    uint64_t state_size;
    double shares[WEIR__PARTITIONS];

    _Alignas(64) weir__door door;
    _Atomic uint32_t current; /* version: its lowest bit says which of the copies it is */
    _Atomic uint32_t seats;   /* all that were ever taken are below */
    copy copies[2];

    /* changed under the lock (refused: also without), read without */
    weir__shed shed;
    weir_time swept;
    _Atomic uint64_t peak, refused, n_shed, blocked_ns;

    weir__line line;
    seat seat[SEATS];
} shared;

struct weir__shared_gate {
    weir__named *named;
    shared *shared;
    _Atomic bool closed;
    bool tells_cost;
    size_t state_size, state_words; /* not what the file says by now */
    weir__shared_record record;     /* of what went through this handle */
};

/* relaxed: these words stand for themselves */
#define GET(word)        atomic_load_explicit(&(word), memory_order_relaxed)
#define SET(word, value) atomic_store_explicit(&(word), (value), memory_order_relaxed)
#define ADD(word, n)     atomic_fetch_add_explicit(&(word), (n), memory_order_relaxed)

/* ---- what is inside ------------------------------------------------------------------------- */

static copy *current(shared *s)
{
    /* acquire: pairs with the release in change */
    return &s->copies[atomic_load_explicit(&s->current, memory_order_acquire) % 2];
}

static unsigned partitions(const shared *s)
{
    uint32_t n = s->n_partitions; /* in the file: whatever it says, there are no more */
    return n == 0 ? 1 : n < WEIR__PARTITIONS ? n : WEIR__PARTITIONS;
}

static uint64_t used_by(const shared *s, unsigned partition)
{
    uint64_t sum = 0;
    uint32_t seats = GET(s->seats);
    for (uint32_t i = 0; i < seats && i < SEATS; i++)
        sum += GET(s->seat[i].used_by[partition]);
    return sum;
}

static uint64_t used(const shared *s)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < partitions(s); i++)
        sum += used_by(s, i);
    return sum;
}

/* Entered.  Nobody sits there: what the seat held is gone. */
static void clear(seat *of)
{
    for (unsigned i = 0; i < WEIR__PARTITIONS; i++)
        SET(of->used_by[i], 0);
    uint64_t calls = GET(of->calls);
    SET(of->calls, calls - INSIDE(calls));
    ADD(of->lost, INSIDE(calls));
}

/* A call is counted behind what it uses, and counted out before that: of one killed in between only this is left. */
static bool is_in_use(const seat *of)
{
    uint64_t any = INSIDE(GET(of->calls));
    for (unsigned i = 0; i < WEIR__PARTITIONS; i++)
        any |= GET(of->used_by[i]);
    return any > 0;
}

/* Entered.  Looks for the dead, now and then: only who would have to wait needs to know. */
static void sweep(weir__shared_gate *gate)
{
    shared *s = gate->shared;
    weir_time now = weir_now();
    if (s->swept > now - WEIR__SLICE && s->swept <= now)
        return;
    s->swept = now;
    for (uint32_t i = 0; i < GET(s->seats) && i < SEATS; i++)
        if (is_in_use(&s->seat[i]) && !weir__named_is_taken(gate->named, i))
            clear(&s->seat[i]);
}

/* ---- who comes first ------------------------------------------------------------------------ */

typedef struct order {
    bool lifo;
    bool first[WEIR__PARTITIONS]; /* those that have less than they are guaranteed */
} order;

static order order_of(shared *s)
{
    order o = {.lifo = s->lifo};
    double capacity = (double)GET(current(s)->capacity);
    for (unsigned i = 0, n = partitions(s); n > 1 && i < n; i++)
        o.first[i] = (double)used_by(s, i) < s->shares[i] * capacity;
    return o;
}

static bool comes_before(const weir__place *a, const weir__place *b, const void *ctx)
{
    const order *o = ctx;
    bool a_first = o->first[a->kind % WEIR__PARTITIONS];
    bool b_first = o->first[b->kind % WEIR__PARTITIONS];
    if (a_first != b_first)
        return a_first;
    return (a->ticket < b->ticket) != o->lifo;
}

static bool fits(shared *s, uint64_t inside, uint64_t cost)
{
    uint64_t capacity = GET(current(s)->capacity);
    return (inside <= capacity && cost <= capacity - inside) || (s->one_always && inside == 0);
}

/* ---- entering and leaving ------------------------------------------------------------------- */

/* Calls those whose turn has come, and leaves. */
static void leave(shared *s)
{
    weir__places bells = {{0}};
    if (!weir__line_is_empty(&s->line, LINE)) {
        order o = order_of(s);
        uint64_t inside = used(s) + weir__line_called(&s->line, LINE).cost;
        weir__place *next;
        while ((next = weir__line_first(&s->line, LINE, comes_before, &o)) &&
               fits(s, inside, next->cost)) {
            weir__line_call(&s->line, next, &bells);
            inside += next->cost;
        }
    }
    weir__door_leave(&s->door);
    weir__line_ring(&s->line, &bells);
}

typedef struct wait {
    weir__shared_gate *gate;
    uint64_t cost;
    unsigned partition;
    weir_time deadline;
    weir_time since;    /* 0: it has not waited yet */
    weir__place *place; /* NULL: none */
    weir__record *record;
} wait;

static void tell_wait(const wait *w, uint64_t ns)
{
    weir__tell_together(w->record, WEIR_STATS_PUT_WAITS, 1);
    weir__tell_together(w->record, WEIR_STATS_PUT_BLOCKED_NS, ns);
    weir__tell_together(w->record, WEIR_STATS_PUT_WAITING, UINT64_MAX); /* one less */
}

/* Entered. */
static void end_wait(wait *w)
{
    shared *s = w->gate->shared;
    if (w->since) {
        uint64_t waited = (uint64_t)(weir_now() - w->since);
        ADD(s->blocked_ns, waited);
        tell_wait(w, waited);
    }
    if (w->place)
        weir__line_leave(&s->line, LINE, w->place);
    w->place = NULL;
    w->since = 0;
    if (weir__line_is_empty(&s->line, LINE))
        weir__shed_note_empty(&s->shed);
}

/* Enters after a sleep that ended with rc; unless both went well, gives the place up. */
static int enter_again(wait *w, int rc)
{
    shared *s = w->gate->shared;
    int entered = weir__door_enter(&s->door, w->deadline);
    if (rc == WEIR_OK && entered == WEIR_OK)
        return WEIR_OK;
    if (rc == WEIR_OK)
        rc = entered;
    if (entered == WEIR_OK) {
        end_wait(w);
        leave(s);
    } else if (w->place) {
        weir__line_leave(&s->line, LINE, w->place);
    }
    if (entered != WEIR_OK)
        tell_wait(w, (uint64_t)(weir_now() - w->since));
    return rc;
}

/* Entered; entered when it returns 0: look again.  Else left, and no place is held. */
static int wait_turn(wait *w)
{
    shared *s = w->gate->shared;
    if (w->place)
        w->place->called = 0;
    else if ((w->place = weir__line_join(&s->line, LINE, w->cost)))
        w->place->kind = w->partition;
    if (w->since == 0) {
        w->since = weir_now();
        weir__tell_together(w->record, WEIR_STATS_PUT_WAITING, 1);
    }
    uint32_t bell = w->place ? GET(w->place->bell) : 0;
    /* seq_cst: between the mark in the line and the last look at the sum, which leave takes; pairs
     * with the fence in weir__shared_gate_release */
    atomic_thread_fence(memory_order_seq_cst);
    leave(s);
    return enter_again(w, weir__line_sleep(w->place, bell, w->deadline));
}

/* ---- coming in ------------------------------------------------------------------------------ */

/* Entered.  Whether it is this one's turn, and there is room. */
static bool may_come_in(const wait *w)
{
    shared *s = w->gate->shared;
    uint64_t inside = used(s);
    if (!fits(s, inside, w->cost))
        return false;
    if (weir__line_is_empty(&s->line, LINE))
        return true;
    order o = order_of(s);
    const weir__place newcomer = {.ticket = UINT64_MAX, .kind = w->partition};
    weir__load ahead =
        weir__line_before(&s->line, LINE, w->place ? w->place : &newcomer, comes_before, &o);
    return ahead.items == 0 || fits(s, inside + ahead.cost, w->cost);
}

static void come_in(const wait *w, unsigned at)
{
    shared *s = w->gate->shared;
    seat *own = &s->seat[at];
    /* One instruction: from here on it is inside, whoever is killed. */
    ADD(own->used_by[w->partition], w->cost);
    /* acquire: pairs with the release in subtract, of whoever's seat it was that may_come_in has read */
    atomic_thread_fence(memory_order_acquire);
    ADD(own->calls, 1);
    weir__tell_together(w->record, WEIR_STATS_ACCEPTED, 1);
    if (w->gate->tells_cost)
        weir__tell_together(w->record, WEIR_STATS_ACCEPTED_COST, w->cost);
    uint64_t inside = used(s);
    if (inside > GET(s->peak))
        SET(s->peak, inside);
}

/* Entered. */
static void note_shed(const wait *w)
{
    ADD(w->gate->shared->n_shed, 1);
    weir__tell_together(w->record, WEIR_STATS_SHED, 1);
}

/* Entered. */
static bool is_stuck(const wait *w)
{
    shared *s = w->gate->shared;
    weir_time now = w->since && s->shed.target_ns ? weir_now() : 0;
    if (now == 0 || !weir__shed_is_stuck(&s->shed, now, now - w->since))
        return false;
    note_shed(w);
    return true;
}

/* Entered; what it comes to: WEIR_OK, an error, or WEIR_WAITING. */
static int look(wait *w, unsigned at)
{
    shared *s = w->gate->shared;
    if (GET(w->gate->closed))
        return WEIR_ECLOSED;
    if (w->cost > GET(current(s)->capacity) && !s->one_always)
        return WEIR_ETOOBIG;
    if (!may_come_in(w)) {
        sweep(w->gate);
        if (!may_come_in(w))
            return is_stuck(w) ? WEIR_ESHED : WEIR_WAITING;
    }
    if (w->since) {
        weir_time now = weir_now();
        if (weir__shed_is_late(&s->shed, now, now - w->since)) {
            note_shed(w);
            return WEIR_ESHED;
        }
    }
    come_in(w, at);
    return WEIR_OK;
}

static bool is_over(weir_time deadline)
{
    return deadline != WEIR_FOREVER && (deadline <= WEIR_POLL || weir_now() >= deadline);
}

/* As last seen: other processes change it, too. */
static void tell_bounds(weir__shared_gate *gate, weir__record *record)
{
    weir__tell(record, WEIR_STATS_CAPACITY, weir__shared_gate_capacity(gate));
    weir__tell(record, WEIR_STATS_CLOSED, GET(gate->closed));
    weir__tell(record, WEIR_STATS_REPORTS_DONE, 1);
}

void weir__shared_gate_count_refused(weir__shared_gate *gate)
{
    ADD(gate->shared->refused, 1);
    weir__tell_together(weir__shared_record_of(&gate->record), WEIR_STATS_REFUSED, 1);
}

int weir__shared_gate_acquire(weir__shared_gate *gate, uint64_t cost, unsigned partition,
                              weir_time deadline)
{
    shared *s = gate->shared;
    wait w = {.gate = gate, .cost = cost, .partition = partition, .deadline = deadline};
    assert(cost > 0 && partition < WEIR__PARTITIONS);
    int at = weir__named_seat(gate->named);
    if (at < 0)
        return at;
    w.record = weir__shared_record_of(&gate->record);
    int rc = weir__door_enter(&s->door, deadline);
    while (rc == WEIR_OK) {
        rc = look(&w, (unsigned)at);
        if (rc == WEIR_WAITING && !is_over(deadline)) {
            rc = wait_turn(&w);
            continue;
        }
        end_wait(&w);
        leave(s);
        if (rc == WEIR_WAITING)
            rc = WEIR_ETIMEDOUT;
        break;
    }
    if (rc == WEIR_ETIMEDOUT && deadline <= WEIR_POLL)
        rc = WEIR_EFULL; /* also where a process is stopped in the middle of a call */
    if ((rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT) && deadline != WEIR_PROBE)
        weir__shared_gate_count_refused(gate);
    tell_bounds(gate, w.record);
    return rc;
}

/* ---- going out ------------------------------------------------------------------------------ */

/* Entered. */
static uint64_t change(weir__shared_gate *gate, weir__gate_update_fn *fn, void *ctx)
{
    shared *s = gate->shared;
    uint32_t version = GET(s->current);
    const copy *now = &s->copies[version % 2];
    copy *next = &s->copies[(version + 1) % 2];
    state own;
    weir__words_load(own.bytes, now->state, gate->state_words);
    uint64_t capacity = fn(own.bytes, used(s), GET(now->capacity), ctx);
    /* pairs with the acquire fence in look: who sees a word of this state sees the version before, by which this copy
     * was no longer the current one */
    atomic_thread_fence(memory_order_release);
    weir__words_store(next->state, own.bytes, gate->state_words);
    SET(next->capacity, capacity);
    /* release: the copy is complete before it is current, in the order in which a kill cuts */
    atomic_store_explicit(&s->current, version + 1, memory_order_release);
    return capacity;
}

/* What is given back without having been taken would make room for more than the capacity. */
static void subtract(seat *own, uint64_t cost, unsigned partition)
{
    if (GET(own->used_by[partition]) < cost)
        return;
    ADD(own->calls, ONE_RELEASED - 1);
    /* release: pairs with the fence in come_in */
    atomic_fetch_sub_explicit(&own->used_by[partition], cost, memory_order_release);
}

/* The lock is free soon, or its owner is stopped: then the next one does what is to do.  Without the hook: what ends
 * something is not interrupted. */
static bool enter_to_settle(shared *s)
{
    void *ctx;
    weir_interrupt_fn *hook = weir__get_interrupt(&ctx);
    weir_set_interrupt(NULL, NULL);
    int rc = weir__door_enter(&s->door, WEIR_POLL);
    weir_set_interrupt(hook, ctx);
    return rc == WEIR_OK;
}

static void tell_release(weir__shared_gate *gate, uint64_t cost)
{
    weir__record *record = weir__shared_record_of(&gate->record);
    weir__tell_together(record, WEIR_STATS_DONE, 1);
    if (gate->tells_cost)
        weir__tell_together(record, WEIR_STATS_DONE_COST, cost);
    tell_bounds(gate, record);
}

void weir__shared_gate_release(weir__shared_gate *gate, uint64_t cost, unsigned partition,
                               weir__gate_update_fn *fn, void *ctx)
{
    shared *s = gate->shared;
    int at = weir__named_seat(gate->named);
    if (at < 0)
        return; /* a forked child that holds nothing */
    bool entered = fn && enter_to_settle(s);
    if (entered)
        change(gate, fn, ctx);
    subtract(&s->seat[at], cost, partition);
    tell_release(gate, cost);
    /* seq_cst: between the subtraction and the look at the line; pairs with the one in wait_turn */
    atomic_thread_fence(memory_order_seq_cst);
    if (!entered)
        entered = !weir__line_is_empty(&s->line, LINE) && enter_to_settle(s);
    if (entered)
        leave(s);
}

uint64_t weir__shared_gate_update(weir__shared_gate *gate, weir__gate_update_fn *fn, void *ctx)
{
    shared *s = gate->shared;
    if (!enter_to_settle(s))
        return GET(current(s)->capacity);
    uint64_t capacity = change(gate, fn, ctx);
    leave(s);
    tell_bounds(gate, weir__shared_gate_record(gate));
    return capacity;
}

/* Without the lock, so also where its owner is stopped. */
void weir__shared_gate_look(weir__shared_gate *gate, void *ret_state)
{
    shared *s = gate->shared;
    state seen;
    uint32_t version;
    do {
        /* acquire: pairs with the release in change */
        version = atomic_load_explicit(&s->current, memory_order_acquire);
        weir__words_load(seen.bytes, s->copies[version % 2].state, gate->state_words);
        /* pairs with the release fence in change: that copy is not written to before another one is current */
        atomic_thread_fence(memory_order_acquire);
    } while (GET(s->current) != version);
    memcpy(ret_state, seen.bytes, gate->state_size);
}

/* ---- looking -------------------------------------------------------------------------------- */

void weir__shared_gate_get_counts(weir__shared_gate *gate, weir__gate_counts *ret_counts)
{
    shared *s = gate->shared;
    *ret_counts = (weir__gate_counts){
        .capacity = GET(current(s)->capacity),
        .refused = GET(s->refused),
        .shed = GET(s->n_shed),
        .peak_used = GET(s->peak),
        .waiting = weir__line_count(&s->line, LINE),
        .blocked_ns = GET(s->blocked_ns),
        .is_closed = GET(gate->closed),
    };
    for (unsigned i = 0; i < partitions(s); i++) {
        ret_counts->used_by[i] = used_by(s, i);
        ret_counts->used += ret_counts->used_by[i];
    }
    for (uint32_t i = 0; i < GET(s->seats) && i < SEATS; i++) {
        uint64_t calls = GET(s->seat[i].calls); /* one word: inside and released at one instant */
        ret_counts->inside += INSIDE(calls);
        ret_counts->released += RELEASED(calls);
        ret_counts->lost += GET(s->seat[i].lost);
    }
    ret_counts->admitted = ret_counts->released + ret_counts->inside + ret_counts->lost;
}

uint64_t weir__shared_gate_capacity(const weir__shared_gate *gate)
{
    return GET(current(gate->shared)->capacity);
}

uint64_t weir__shared_gate_used(const weir__shared_gate *gate)
{
    return used(gate->shared);
}

/* ---- beginning and end ---------------------------------------------------------------------- */

static int init(void *data, const void *ctx)
{
    shared *s = data;
    const weir__gate_opts *opts = ctx;
    s->one_always = opts->one_always;
    s->lifo = opts->lifo;
    s->n_partitions = opts->n_partitions;
    s->state_size = opts->state_size;
    memcpy(s->shares, opts->shares, sizeof s->shares);
    s->shed =
        (weir__shed){.target_ns = opts->shed_target_ns, .interval_ns = opts->shed_interval_ns};
    SET(s->copies[0].capacity, opts->capacity);
    if (opts->state_init) {
        state first = {{0}};
        opts->state_init(first.bytes, opts->state_ctx);
        weir__words_store(s->copies[0].state, first.bytes, STATE_WORDS);
    }
    int rc = weir__door_init(&s->door);
    return rc < 0 ? rc : weir__line_init(&s->line);
}

/* Who had the seat before is dead, and may not have been found yet. */
static int take_seat(void *data, unsigned at)
{
    shared *s = data;
    int rc = weir__door_enter(&s->door, weir_after(WEIR_SECOND));
    if (rc < 0)
        return rc;
    if (GET(s->seats) <= at)
        SET(s->seats, at + 1);
    clear(&s->seat[at]);
    leave(s);
    return WEIR_OK;
}

/* What this process still holds is given back. */
static void leave_seat(void *data, unsigned at)
{
    shared *s = data;
    bool entered = enter_to_settle(s);
    clear(&s->seat[at]);
    if (entered)
        leave(s);
}

static bool is_worthless(const void *data)
{
    (void)data;
    return true; /* a limit without anybody who obeys it */
}

static const weir__named_ops named_ops = {
    .size = sizeof(shared),
    .init = init,
    .enter = take_seat,
    .leave = leave_seat,
    .may_remove = is_worthless,
};

int weir__shared_gate_open(weir__shared_gate **ret_gate, const weir__gate_opts *opts)
{
    weir__shared_gate *gate = weir__calloc(1, sizeof *gate);
    if (!gate)
        return WEIR_ENOMEM;
    int rc = weir__named_open(&gate->named, opts->kind, opts->shared, &named_ops, opts);
    if (rc == WEIR_OK) {
        gate->shared = weir__named_data(gate->named);
        if (gate->shared->state_size != opts->state_size)
            rc = WEIR_EINVAL; /* kinds are told apart by their names */
    }
    if (rc < 0) {
        weir__shared_gate_close_handle(gate);
        return rc;
    }
    gate->tells_cost = opts->tells_cost;
    gate->state_size = opts->state_size;
    gate->state_words = (opts->state_size + sizeof(uint64_t) - 1) / sizeof(uint64_t);
    weir__shared_record_open(&gate->record, opts->stats_kind,
                             opts->stats_name ? opts->stats_name : opts->shared);
    tell_bounds(gate, weir__shared_gate_record(gate));
    *ret_gate = gate;
    return WEIR_OK;
}

void weir__shared_gate_close_handle(weir__shared_gate *gate)
{
    if (!gate)
        return;
    weir__named_close(gate->named);
    weir__shared_record_close(&gate->record);
    weir__free(gate);
}

weir__record *weir__shared_gate_record(weir__shared_gate *gate)
{
    return weir__shared_record_of(&gate->record);
}

void weir__shared_gate_close(weir__shared_gate *gate)
{
    SET(gate->closed, true);
    tell_bounds(gate, weir__shared_gate_record(gate));
    /* Whoever sleeps looks again: ours see that it is closed, the others sleep on. */
    weir__places everybody;
    memset(&everybody, 0xff, sizeof everybody);
    weir__line_ring(&gate->shared->line, &everybody);
}
