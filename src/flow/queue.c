/* queue.c - bounded FIFO shared by threads; the contract is <weir/queue.h>.
 *
 * One mutex guards everything.  A public call is one critical section, enter ... leave, or two
 * when it waits.  What a call decides under the mutex and has to do without it (wake those it
 * served, report drops, tell the watermark) is collected in its `call` and done by leave.
 *
 * Hand-off:   a put gives its item to the first waiting getter; room admits the items of the first
 *             waiting putter.  So a waiter is served by who makes it possible, in order, and a
 *             wake-up is never a mere hint to try again.
 * Settling:   every leave admits waiting putters for as long as the first of them fits.  Whatever
 *             made room (get, done, expiry, discard, resize, a big putter giving up), nobody has to
 *             remember to pass it on.
 * Memory:     a putter is admitted without memory when the queue is empty (see fifo.h).  If memory
 *             is what it lacks, then something is inside, and the leave of the call that takes that
 *             out tries again: a putter cannot be stranded.
 */
#include "flow/queue.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bell.h"
#include "base/mutex.h"
#include "flow/waitq.h"
#include "model/fifo.h"
#include "model/overflow.h"

/* A level-triggered descriptor: fd < 0 until asked for; readable is what the kernel was told. */
typedef struct level {
    int fd;
    bool readable;
} level;

/* What holds whenever the mutex is free:
 *  - accepted == delivered + dropped + depth, in items and in cost       (now)
 *  - fifo.count == depth; in_flight <= delivered, 0 without bound_in_flight
 *  - getters wait only while nothing is inside; nobody waits to put or get once closed
 *  - putters wait only under BLOCK, and the first of them does not fit (or memory is short)
 *  - drainers wait only while something is inside or in flight
 *  - told == now.above_high, or a thread is telling
 */
struct weir_queue {
    weir__mutex mutex;

    /* set at creation */
    int64_t max_age_ns; /* 0: none */
    bool bound_in_flight;
    bool default_marks;
    weir_drop_fn *on_drop;
    void *drop_ctx;
    weir_watermark_fn *on_watermark;
    void *watermark_ctx;

    /* under the mutex */
    weir_queue_snapshot now; /* as a snapshot shows it, but for the waiting counts */
    weir__fifo fifo;
    weir__load bound;
    weir__marks marks;
    weir__overflow overflow;
    weir__waitq putters, getters, drainers;
    size_t insiders_waiting; /* of putters: see weir__queue_put_inside */
    level item, room;
    bool told, telling;
};

/* ---- one call ------------------------------------------------------------------------------- */

#define DROPS_MAX (2 * WEIR__FIFO_BLOCK)

typedef struct drop {
    void *item;
    weir_drop_reason reason;
} drop;

/* What a call owes once the mutex is free.  Nothing here needs memory. */
typedef struct call {
    weir_time time; /* read when first needed; 0: not yet */
    weir__wakeups wakeups;
    bool tell, above; /* this thread tells the watermark */
    weir__fifo bulk;  /* whole blocks of dropped items, ... */
    weir_drop_reason bulk_reason;
    size_t bulk_at; /* ... which come before drops[bulk_at] */
    size_t drop_count;
    drop drops[DROPS_MAX];
} call;

/* A thread in line. */
typedef struct waiter {
    weir__waiter base; /* first: what the waitqs hold */
    weir_time since;
    bool insider;
} waiter;

typedef struct putter {
    waiter waiter;
    void *const *items;
    const uint64_t *costs; /* NULL: all 0 */
    size_t n, taken;       /* items[taken] is what waits */
} putter;

typedef struct getter {
    waiter waiter;
    void **items;
    uint64_t *costs; /* NULL: not wanted */
    size_t max, got;
    size_t enough; /* stops waiting with this many */
    bool waited;
} getter;

static weir_time time_of(call *c)
{
    if (c->time == 0)
        c->time = weir_now();
    return c->time;
}

static weir__load inside(const weir_queue *queue)
{
    return (weir__load){queue->now.depth, queue->now.cost};
}

/* What counts to the bound. */
static weir__load held(const weir_queue *queue)
{
    return (weir__load){
        .items = queue->now.depth + queue->now.in_flight,
        .cost = queue->now.cost + queue->now.in_flight_cost,
    };
}

static bool is_idle(const weir_queue *queue)
{
    return queue->now.depth == 0 && queue->now.in_flight == 0;
}

static bool fits(const weir_queue *queue, uint64_t cost)
{
    return weir__fits(queue->bound, held(queue), cost);
}

/* The invariants above, as far as they are cheap to see. */
static inline bool check(const weir_queue *queue)
{
    const weir_queue_snapshot *now = &queue->now;
    uint64_t dropped = 0, dropped_cost = 0;
    for (int i = 0; i < WEIR_DROP_REASONS; i++) {
        dropped += now->dropped[i];
        dropped_cost += now->dropped_cost[i];
    }
    assert(now->accepted == now->delivered + dropped + now->depth);
    assert(now->accepted_cost == now->delivered_cost + dropped_cost + now->cost);
    assert(queue->fifo.count == now->depth);
    assert(now->depth > 0 || now->cost == 0);
    assert(now->in_flight > 0 || now->in_flight_cost == 0);
    assert(now->in_flight <= (queue->bound_in_flight ? now->delivered : 0));
    assert(!queue->getters.head || (now->depth == 0 && !now->closed));
    assert(!queue->putters.head ||
           (queue->overflow.when_full == WEIR__WAIT && !now->closed && !is_idle(queue)));
    assert(queue->insiders_waiting <= queue->putters.count);
    assert(!queue->drainers.head || !is_idle(queue));
    assert(!queue->on_watermark || queue->told == now->above_high || queue->telling);
    return true;
}

static bool owes_drops(const call *c)
{
    return c->drop_count > 0 || c->bulk.head;
}

static void admit(weir_queue *queue, call *c);
static void report_drops(weir_queue *queue, call *c);
static void tell_watermark(weir_queue *queue, call *c);
static void serve(weir_queue *queue, weir__waitq *line, weir__waiter *base, int result, call *c);

static void enter(weir_queue *queue, call *c)
{
    c->time = queue->max_age_ns ? weir_now() : 0; /* outside the mutex where it is known */
    c->wakeups = (weir__wakeups){0};
    c->tell = false;
    c->drop_count = 0;
    c->bulk.head = NULL;
    weir__lock(&queue->mutex);
}

static void set_level(level *l, bool readable)
{
    if (l->fd < 0 || l->readable == readable)
        return;
    if (readable)
        weir__bell_ring(l->fd);
    else
        weir__bell_clear(l->fd);
    l->readable = readable;
}

static void set_levels(weir_queue *queue)
{
    bool closed = queue->now.closed;
    set_level(&queue->item, closed || queue->now.depth > 0);
    set_level(&queue->room, closed || (!queue->putters.head && fits(queue, 0)));
}

/* Brings everything that follows from the loads up to date. */
static void settle(weir_queue *queue, call *c)
{
    if (queue->putters.head)
        admit(queue, c);
    weir__marks_update(&queue->marks, inside(queue));
    queue->now.above_high = queue->marks.above;
    if (queue->on_watermark && queue->told != queue->marks.above && !queue->telling) {
        queue->telling = c->tell = true;
        c->above = queue->marks.above;
    }
    while (queue->drainers.head && is_idle(queue))
        serve(queue, &queue->drainers, queue->drainers.head, WEIR_OK, c);
    if (queue->item.fd >= 0 || queue->room.fd >= 0)
        set_levels(queue);
    assert(check(queue));
}

static void leave(weir_queue *queue, call *c)
{
    settle(queue, c);
    weir__unlock(&queue->mutex);
    if (c->wakeups.head)
        weir__wake_all(&c->wakeups);
    if (owes_drops(c))
        report_drops(queue, c);
    if (c->tell)
        tell_watermark(queue, c);
}

/* ---- dropping ------------------------------------------------------------------------------- */

/* Whether the call can take on whatever one more step may drop. */
static bool has_room_for_drops(const call *c)
{
    return c->drop_count <= DROPS_MAX - WEIR__FIFO_BLOCK && !c->bulk.head;
}

static void count_drop(weir_queue *queue, uint64_t cost, weir_drop_reason reason)
{
    queue->now.dropped[reason]++;
    queue->now.dropped_cost[reason] += cost;
}

/* Of an item that the queue took and that is not inside. */
static void drop_later(weir_queue *queue, void *item, uint64_t cost, weir_drop_reason reason,
                       call *c)
{
    count_drop(queue, cost, reason);
    c->drops[c->drop_count++] = (drop){item, reason};
}

static weir__entry take_out(weir_queue *queue)
{
    weir__entry entry = weir__fifo_pop(&queue->fifo);
    queue->now.depth--;
    queue->now.cost -= entry.cost;
    return entry;
}

static void drop_head(weir_queue *queue, weir_drop_reason reason, call *c)
{
    weir__entry entry = take_out(queue);
    drop_later(queue, entry.item, entry.cost, reason, c);
}

/* The n oldest; has_room_for_drops. */
static void drop_heads(weir_queue *queue, size_t n, weir_drop_reason reason, call *c)
{
    weir__fifo_cut(&queue->fifo, n, &c->bulk);
    c->bulk_reason = reason;
    c->bulk_at = c->drop_count;
    n -= c->bulk.count;
    uint64_t cost = weir__fifo_cost(&c->bulk);
    queue->now.depth -= c->bulk.count;
    queue->now.cost -= cost;
    queue->now.dropped[reason] += c->bulk.count;
    queue->now.dropped_cost[reason] += cost;
    while (n-- > 0)
        drop_head(queue, reason, c);
}

static void report_bulk(weir_queue *queue, call *c)
{
    while (c->bulk.count > 0)
        queue->on_drop(weir__fifo_pop(&c->bulk).item, c->bulk_reason, queue->drop_ctx);
    weir__fifo_fini(&c->bulk);
}

/* Oldest first. */
static void report_drops(weir_queue *queue, call *c)
{
    size_t i = 0;
    if (c->bulk.head) {
        for (; i < c->bulk_at; i++)
            queue->on_drop(c->drops[i].item, c->drops[i].reason, queue->drop_ctx);
        report_bulk(queue, c);
    }
    for (; i < c->drop_count; i++)
        queue->on_drop(c->drops[i].item, c->drops[i].reason, queue->drop_ctx);
}

/* Serialised by `telling`: a change that comes meanwhile is told by this thread too. */
static void tell_watermark(weir_queue *queue, call *c)
{
    for (bool more = true; more;) {
        queue->on_watermark(c->above, queue->watermark_ctx);
        weir__lock(&queue->mutex);
        queue->told = c->above;
        c->above = queue->marks.above;
        more = queue->telling = c->above != queue->told;
        weir__unlock(&queue->mutex);
    }
}

/* ---- waiting -------------------------------------------------------------------------------- */

/* Books the end of a wait, before the waiter leaves the line. */
static void end_wait(weir_queue *queue, weir__waitq *line, const waiter *w, int result, call *c)
{
    weir_time waited = time_of(c) - w->since;
    if (waited < 0)
        waited = 0; /* both read the clock before they had the mutex */
    if (line == &queue->putters) {
        queue->now.put_blocked_ns += (uint64_t)waited;
        queue->now.refused += result == WEIR_ETIMEDOUT || result == WEIR_ETOOBIG;
        queue->insiders_waiting -= w->insider;
    } else if (line == &queue->getters) {
        queue->now.get_blocked_ns += (uint64_t)waited;
    }
}

static void serve(weir_queue *queue, weir__waitq *line, weir__waiter *base, int result, call *c)
{
    end_wait(queue, line, (waiter *)base, result, c);
    weir__waitq_serve_this(line, base, &c->wakeups, result);
}

static void serve_all(weir_queue *queue, weir__waitq *line, int result, call *c)
{
    while (line->head)
        serve(queue, line, line->head, result, c);
}

/* Entered: joins the line; left when it returns. */
static int wait_in_line(weir_queue *queue, weir__waitq *line, waiter *w, weir_time deadline,
                        call *c)
{
    w->since = time_of(c);
    weir__waitq_push(line, &w->base);
    leave(queue, c);
    int rc = weir__waiter_park(&w->base, deadline);
    if (rc == WEIR_OK)
        return w->base.result;

    enter(queue, c);
    if (w->base.waiting) {
        end_wait(queue, line, w, rc, c);
        weir__waitq_give_up(line, &w->base);
        leave(queue, c); /* what stood behind us may fit now */
        return rc;
    }
    leave(queue, c);
    weir__waiter_join(&w->base); /* served meanwhile */
    return w->base.result;
}

/* ---- giving and taking ---------------------------------------------------------------------- */

/* Hands an item to a getter, which is in line or in this call. */
static void give(weir_queue *queue, getter *g, void *item, uint64_t cost)
{
    if (g->costs)
        g->costs[g->got] = cost;
    g->items[g->got++] = item;
    queue->now.delivered++;
    queue->now.delivered_cost += cost;
    if (queue->bound_in_flight) {
        queue->now.in_flight++;
        queue->now.in_flight_cost += cost;
    }
}

/* Takes an item that fits: to the first waiting getter, or inside. */
static int accept_item(weir_queue *queue, void *item, uint64_t cost, call *c)
{
    assert(fits(queue, cost));
    getter *g = (getter *)queue->getters.head;
    if (g) {
        give(queue, g, item, cost);
        if (g->got == g->enough)
            serve(queue, &queue->getters, &g->waiter.base, WEIR_OK, c);
    } else {
        weir__entry entry = {item, cost, c->time};
        if (!weir__fifo_push(&queue->fifo, entry))
            return WEIR_ENOMEM;
        queue->now.cost += cost;
        if (++queue->now.depth > queue->now.peak_depth)
            queue->now.peak_depth = queue->now.depth;
    }
    queue->now.accepted++;
    queue->now.accepted_cost += cost;
    return WEIR_KEPT;
}

static uint64_t next_cost(const putter *p)
{
    return p->costs ? p->costs[p->taken] : 0;
}

/* Takes what fits from the putters in line, from the head, never past one that does not fit. */
static void admit(weir_queue *queue, call *c)
{
    for (putter *p; (p = (putter *)queue->putters.head);) {
        int result = WEIR_OK;
        for (; p->taken < p->n; p->taken++) {
            if (next_cost(p) > queue->bound.cost) {
                result = WEIR_ETOOBIG;
                break;
            }
            if (!fits(queue, next_cost(p)) ||
                accept_item(queue, p->items[p->taken], next_cost(p), c) == WEIR_ENOMEM)
                return;
        }
        serve(queue, &queue->putters, &p->waiter.base, result, c);
    }
}

/* Lets go those in line who can never be admitted. */
static void refuse_too_big(weir_queue *queue, call *c)
{
    for (weir__waiter *base = queue->putters.head, *next; base; base = next) {
        next = base->next;
        if (next_cost((putter *)base) > queue->bound.cost)
            serve(queue, &queue->putters, base, WEIR_ETOOBIG, c);
    }
}

static int refuse(weir_queue *queue, int error)
{
    queue->now.refused++;
    return error;
}

static int accept_and_drop(weir_queue *queue, void *item, uint64_t cost, weir_drop_reason reason,
                           call *c)
{
    queue->now.accepted++;
    queue->now.accepted_cost += cost;
    drop_later(queue, item, cost, reason, c);
    return WEIR_DROPPED;
}

/* Drops as many of the oldest as the item needs; none when all of them would not do. */
static int accept_evicting(weir_queue *queue, void *item, uint64_t cost, call *c)
{
    weir__load excess = weir__excess(queue->bound, held(queue), cost);
    if (excess.items > queue->now.depth || excess.cost > queue->now.cost)
        return refuse(queue, WEIR_EFULL); /* what is in flight takes the room */
    if (!weir__fifo_reserve(&queue->fifo))
        return WEIR_ENOMEM;
    size_t n = weir__fifo_worth(&queue->fifo, excess.items, excess.cost);
    drop_heads(queue, n, WEIR_DROP_OLDEST, c);
    return accept_item(queue, item, cost, c);
}

#define MUST_WAIT 2 /* beside WEIR_KEPT and WEIR_DROPPED */

/* What becomes of an item, as far as that can be said without waiting. */
static int offer(weir_queue *queue, void *item, uint64_t cost, call *c)
{
    if (queue->now.closed)
        return WEIR_ECLOSED;
    if (cost > queue->bound.cost)
        return refuse(queue, WEIR_ETOOBIG);
    bool room = !queue->putters.head && fits(queue, cost); /* never past a waiter */
    switch (weir__overflow_decide(&queue->overflow, queue->marks.above, room)) {
    case WEIR__KEEP: return accept_item(queue, item, cost, c);
    case WEIR__WAIT: return MUST_WAIT;
    case WEIR__REFUSE: return refuse(queue, WEIR_EFULL);
    case WEIR__DROP: return accept_and_drop(queue, item, cost, WEIR_DROP_NEWEST, c);
    case WEIR__EVICT: return accept_evicting(queue, item, cost, c);
    case WEIR__SAMPLE_OUT: return accept_and_drop(queue, item, cost, WEIR_DROP_SAMPLED, c);
    }
    return WEIR_EINVAL; /* not reached */
}

/* Entered: waits for room, or says why not; left when it returns. */
static int wait_for_room(weir_queue *queue, putter *p, weir_time deadline, size_t insiders, call *c)
{
    if (deadline <= WEIR_POLL) {
        refuse(queue, WEIR_EFULL);
        leave(queue, c);
        return WEIR_EFULL;
    }
    if (insiders > 0) {
        if (queue->insiders_waiting + 1 >= insiders) {
            leave(queue, c);
            return WEIR_EDEADLK;
        }
        queue->insiders_waiting++;
        p->waiter.insider = true;
    }
    return wait_in_line(queue, &queue->putters, &p->waiter, deadline, c);
}

static inline int put(weir_queue *queue, void *item, uint64_t cost, weir_time deadline,
                      size_t insiders)
{
    call c;
    enter(queue, &c);
    int rc = offer(queue, item, cost, &c);
    if (rc == MUST_WAIT) {
        putter p = {.items = &item, .costs = &cost, .n = 1};
        return wait_for_room(queue, &p, deadline, insiders, &c);
    }
    leave(queue, &c);
    return rc;
}

int weir_queue_put(weir_queue *queue, void *item, uint64_t cost, weir_time deadline)
{
    return put(queue, item, cost, deadline, 0);
}

int weir__queue_put_inside(weir_queue *queue, void *item, uint64_t cost, weir_time deadline,
                           size_t insiders)
{
    return put(queue, item, cost, deadline, insiders);
}

/* Entered: offers the rest of p until one is not taken or the call owes too many drops. */
static int offer_many(weir_queue *queue, putter *p, call *c)
{
    while (p->taken < p->n && has_room_for_drops(c)) {
        int rc = offer(queue, p->items[p->taken], next_cost(p), c);
        if (rc != WEIR_KEPT && rc != WEIR_DROPPED)
            return rc;
        p->taken++;
        weir__marks_update(&queue->marks, inside(queue)); /* the next one is sampled by it */
    }
    return WEIR_OK;
}

int64_t weir_queue_put_many(weir_queue *queue, void *const *items, const uint64_t *costs, size_t n,
                            weir_time deadline)
{
    putter p = {.items = items, .costs = costs, .n = n};
    int rc = WEIR_OK;
    while (rc == WEIR_OK && p.taken < n) {
        call c;
        enter(queue, &c);
        rc = offer_many(queue, &p, &c);
        if (rc == MUST_WAIT)
            rc = wait_for_room(queue, &p, deadline, 0, &c);
        else
            leave(queue, &c);
    }
    return p.taken > 0 ? (int64_t)p.taken : rc;
}

static bool is_expired(const weir_queue *queue, const weir__entry *entry, call *c)
{
    return queue->max_age_ns && c->time - entry->since > queue->max_age_ns;
}

/* Takes from inside up to g->max, dropping what is too old, as long as the call can owe drops. */
static void take_what_is_there(weir_queue *queue, getter *g, call *c)
{
    while (queue->now.depth > 0 && g->got < g->max) {
        if (is_expired(queue, weir__fifo_peek(&queue->fifo), c)) {
            if (c->drop_count == DROPS_MAX)
                return;
            drop_head(queue, WEIR_DROP_EXPIRED, c);
        } else {
            weir__entry entry = take_out(queue);
            give(queue, g, entry.item, entry.cost);
        }
        if (queue->now.depth == 0 && g->got == 0)
            admit(queue, c); /* all were too old: who waits behind them brings a fresh one */
    }
}

/* Gets until g has enough.  An error tells why it waits no longer. */
static int get(weir_queue *queue, getter *g, weir_time deadline)
{
    call c;
    for (;;) {
        enter(queue, &c);
        take_what_is_there(queue, g, &c);
        if (g->got >= g->enough)
            break;
        if (owes_drops(&c)) {
            leave(queue, &c); /* report before waiting or giving up */
            continue;
        }
        if (queue->now.closed || deadline <= WEIR_POLL) {
            int rc = queue->now.closed ? WEIR_ECLOSED : WEIR_EEMPTY;
            leave(queue, &c);
            return rc;
        }
        g->waited = true;
        return wait_in_line(queue, &queue->getters, &g->waiter, deadline, &c);
    }
    leave(queue, &c);
    return WEIR_OK;
}

int weir_queue_get_cost(weir_queue *queue, void **ret_item, uint64_t *ret_cost, weir_time deadline)
{
    getter g = {.items = ret_item, .costs = ret_cost, .max = 1, .enough = 1};
    return get(queue, &g, deadline);
}

int weir_queue_get(weir_queue *queue, void **ret_item, weir_time deadline)
{
    return weir_queue_get_cost(queue, ret_item, NULL, deadline);
}

int64_t weir_queue_get_many(weir_queue *queue, void **ret_items, uint64_t *ret_costs, size_t max,
                            weir_time deadline, int64_t linger_ns)
{
    getter g = {.items = ret_items, .costs = ret_costs, .max = max, .enough = 1};
    if (max == 0)
        return WEIR_EINVAL;
    int rc = get(queue, &g, deadline);
    if (rc != WEIR_OK)
        return rc;
    if (g.got < max && (g.waited || linger_ns > 0)) {
        g.enough = max;
        get(queue, &g, weir_after(linger_ns)); /* how the lingering ended does not matter */
    }
    return (int64_t)g.got;
}

int weir_queue_done(weir_queue *queue, size_t n, uint64_t cost)
{
    call c;
    enter(queue, &c);
    weir_queue_snapshot *now = &queue->now;
    bool known = n <= now->in_flight && cost <= now->in_flight_cost &&
                 (n < now->in_flight || cost == now->in_flight_cost);
    if (known) {
        now->in_flight -= n;
        now->in_flight_cost -= cost;
    }
    leave(queue, &c);
    return known ? WEIR_OK : WEIR_EINVAL;
}

/* ---- closing and emptying ------------------------------------------------------------------- */

void weir_queue_close(weir_queue *queue)
{
    call c;
    enter(queue, &c);
    queue->now.closed = true;
    serve_all(queue, &queue->putters, WEIR_ECLOSED, &c);
    serve_all(queue, &queue->getters, WEIR_ECLOSED, &c);
    leave(queue, &c);
}

int weir_queue_drain(weir_queue *queue, weir_time deadline)
{
    call c;
    enter(queue, &c);
    if (!is_idle(queue) && deadline > WEIR_POLL) {
        waiter w = {0};
        return wait_in_line(queue, &queue->drainers, &w, deadline, &c);
    }
    int rc = is_idle(queue) ? WEIR_OK : WEIR_ETIMEDOUT;
    leave(queue, &c);
    return rc;
}

size_t weir_queue_discard(weir_queue *queue)
{
    call c;
    enter(queue, &c);
    size_t n = queue->now.depth;
    drop_heads(queue, n, WEIR_DROP_DISCARDED, &c);
    leave(queue, &c);
    return n;
}

/* ---- bounds --------------------------------------------------------------------------------- */

static weir__load make_bound(size_t capacity, uint64_t max_cost)
{
    return (weir__load){capacity, max_cost ? max_cost : UINT64_MAX};
}

static void set_bound(weir_queue *queue, size_t capacity, uint64_t max_cost)
{
    queue->now.capacity = capacity;
    queue->now.max_cost = max_cost;
    queue->bound = make_bound(capacity, max_cost);
}

int weir_queue_resize(weir_queue *queue, size_t capacity, uint64_t max_cost)
{
    if (capacity == 0)
        return WEIR_EINVAL;
    call c;
    enter(queue, &c);
    set_bound(queue, capacity, max_cost);
    if (queue->default_marks)
        weir__marks_default(&queue->marks, queue->bound);
    refuse_too_big(queue, &c);
    leave(queue, &c);
    return WEIR_OK;
}

/* ---- looking -------------------------------------------------------------------------------- */

int weir_queue_get_snapshot(weir_queue *queue, weir_queue_snapshot *ret_snapshot)
{
    if (ret_snapshot->size != sizeof(*ret_snapshot))
        return WEIR_EINVAL; /* there is one version so far */
    weir__lock(&queue->mutex);
    *ret_snapshot = queue->now;
    ret_snapshot->putters_waiting = queue->putters.count;
    ret_snapshot->getters_waiting = queue->getters.count;
    weir__unlock(&queue->mutex);
    return WEIR_OK;
}

size_t weir_queue_depth(weir_queue *queue)
{
    weir__lock(&queue->mutex);
    size_t depth = queue->now.depth;
    weir__unlock(&queue->mutex);
    return depth;
}

static int level_fd(weir_queue *queue, level *l)
{
    call c;
    enter(queue, &c);
    int rc = l->fd >= 0 ? WEIR_OK : weir__bell_create(&l->fd);
    leave(queue, &c); /* sets the level */
    return rc < 0 ? rc : l->fd;
}

int weir_queue_item_fd(weir_queue *queue)
{
    return level_fd(queue, &queue->item);
}

int weir_queue_room_fd(weir_queue *queue)
{
    return level_fd(queue, &queue->room);
}

/* ---- beginning and end ---------------------------------------------------------------------- */

#define SAMPLE_DEFAULT 10

/* false: an option is out of range. */
static bool read_options(weir_queue *queue, const weir_queue_opts *opts)
{
    static const weir__fate when_full[] = {
        [WEIR_OVERFLOW_BLOCK] = WEIR__WAIT,       [WEIR_OVERFLOW_FAIL] = WEIR__REFUSE,
        [WEIR_OVERFLOW_DROP_NEWEST] = WEIR__DROP, [WEIR_OVERFLOW_DROP_OLDEST] = WEIR__EVICT,
        [WEIR_OVERFLOW_SAMPLE] = WEIR__DROP,
    };
    bool samples = opts->overflow == WEIR_OVERFLOW_SAMPLE;
    uint32_t keep_one_of = opts->sample_keep_one_of ? opts->sample_keep_one_of : SAMPLE_DEFAULT;
    if (opts->capacity == 0 || opts->max_age_ns < 0 || !opts->on_drop ||
        (unsigned)opts->overflow > WEIR_OVERFLOW_SAMPLE || keep_one_of < 2)
        return false;

    set_bound(queue, opts->capacity, opts->max_cost);
    queue->overflow.when_full = when_full[opts->overflow];
    queue->overflow.keep_one_of = samples ? keep_one_of : 1;
    queue->max_age_ns = opts->max_age_ns;
    queue->bound_in_flight = opts->bound_in_flight;
    queue->on_drop = opts->on_drop;
    queue->drop_ctx = opts->drop_ctx;
    queue->on_watermark = opts->on_watermark;
    queue->watermark_ctx = opts->watermark_ctx;

    bool wanted = samples || opts->on_watermark;
    weir__load high = {opts->high_items, opts->high_cost}, low = {opts->low_items, opts->low_cost};
    queue->default_marks = wanted && !opts->high_items && !opts->high_cost;
    return weir__marks_set(&queue->marks, high, low, queue->bound, wanted);
}

int weir_queue_create(weir_queue **ret_queue, const weir_queue_opts *opts)
{
    if (opts->size != sizeof(*opts))
        return WEIR_EINVAL; /* there is one version so far */
    weir_queue *queue = weir__calloc(1, sizeof(*queue));
    if (!queue)
        return WEIR_ENOMEM;
    int rc = WEIR_EINVAL;
    if (!read_options(queue, opts))
        goto fail;
    rc = WEIR_ENOMEM;
    if (!weir__fifo_init(&queue->fifo))
        goto fail;
    weir__mutex_init(&queue->mutex);
    queue->now.size = sizeof(queue->now);
    queue->item.fd = queue->room.fd = -1;
    *ret_queue = queue;
    return WEIR_OK;

fail:
    weir__free(queue);
    return rc;
}

void weir_queue_destroy(weir_queue *queue)
{
    if (!queue)
        return;
    weir_queue_close(queue); /* a drop or watermark callback cannot put anything back */
    weir_queue_discard(queue);
    if (queue->item.fd >= 0)
        close(queue->item.fd);
    if (queue->room.fd >= 0)
        close(queue->room.fd);
    weir__fifo_fini(&queue->fifo);
    weir__mutex_fini(&queue->mutex);
    weir__free(queue);
}

const char *weir_drop_reason_name(int reason)
{
    static const char *const names[WEIR_DROP_REASONS] = {
        [WEIR_DROP_NEWEST] = "newest",       [WEIR_DROP_OLDEST] = "oldest",
        [WEIR_DROP_SAMPLED] = "sampled",     [WEIR_DROP_EXPIRED] = "expired",
        [WEIR_DROP_DISCARDED] = "discarded",
    };
    return reason >= 0 && reason < WEIR_DROP_REASONS ? names[reason] : "unknown";
}

void weir_drop_free(void *item, weir_drop_reason reason, void *ctx)
{
    (void)reason, (void)ctx;
    free(item);
}

void weir_drop_ignore(void *item, weir_drop_reason reason, void *ctx)
{
    (void)item, (void)reason, (void)ctx;
}
