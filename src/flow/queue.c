/* queue.c - bounded FIFO shared by threads; the contract is <weir/queue.h>.
 *
 * Two sides: what puts change and what gets change, each under a mutex of its own, so that a
 * putter and a getter on two CPUs do not meet.  Who has both mutexes (put side first) has the whole
 * queue.  A plain put or get that need not wait takes its own one only: the short way.  Everything
 * else is one critical section under both, enter ... leave, or several when it waits.  What a call
 * decides there and has to do without it (wake those it served, report drops, tell the watermark)
 * is collected in its `call` and done by leave.
 *
 * Hand-off:   items go to the first waiting getter, room to the first waiting putter, so waiters
 *             are served in order; who goes the long way serves both lines first.
 * Hints:      who goes the short way serves nobody.  If it makes it possible to serve the first in
 *             line it hints at that waiter, once: the waiter then serves the line, itself first.
 *             So one wake-up does for all that comes until the waiter has a CPU, and a line is not
 *             forgotten: it cannot be served, or somebody who is awake is about to serve it.
 * Looking:    a snapshot goes the long way, so nobody sees a line that could be served.
 * Settling:   every leave serves both lines as far as that goes.  Whatever made room (get, done,
 *             expiry, discard, resize, a big putter giving up), nobody has to remember to pass it on.
 * Spinning:   a call comes into line after it has spun for less than a wake-up takes (base/spin.h),
 *             if there is no line yet.  Only who is in line is waiting.
 * Guests:     a place in line that no thread waits in (an event loop's) is not served but called: room,
 *             or items, are kept for it until it comes and puts or takes in its turn, gives the turn up,
 *             or what was kept is dropped.  So one that never comes has neither put nor taken anything.
 *             What is kept counts as taken to everybody else; while any is, and while a guest is the
 *             first in line, all calls that might have to see to it go the long way.  One that has not
 *             come for OVERDUE is passed over, and has its turn when it comes: who waits behind a guest
 *             looks for that.
 * Counting:   each side counts what went through it; the numbers of a snapshot follow from that.
 * Spilling:   see below, "the disk".
 * Telling:    see below, "what others see".
 * Memory:     a putter is admitted without memory when the queue is empty (see fifo.h).  If memory
 *             is what it lacks, then something is inside, and who takes that out hints at it again:
 *             a putter cannot be stranded.
 */
#include "flow/queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bell.h"
#include "base/mutex.h"
#include "base/spin.h"
#include "flow/queue_disk.h"
#include "flow/record.h"
#include "flow/waitq.h"
#include "model/overflow.h"
#include "model/sampler.h"

/* The other side reads these without the mutex they change under.  Each store releases and each
 * such load acquires: who sees the number sees what it counts. */
typedef _Atomic uint64_t counter;

/* Changed under its mutex.  What was seen of the other side is never more than is true there, so
 * room is never seen where there is none. */
typedef struct put_side {
    _Alignas(WEIR__LINE) weir__mutex mutex;
    bool is_short; /* set by settle: a put that fits may go the short way */
    bool hinted;   /* the first getter in line was hinted at */
    weir__fifo_tail tail;
    counter pushed;       /* items that went in */
    uint64_t pushed_cost; /* all costs are sums modulo 2^64 */
    weir__load released;  /* as last seen */
    uint64_t popped;      /* as last seen */
    size_t peak_depth;
    counter *told;                      /* see "what others see": items, and cost */
    counter untold[2];                  /* where that leads without a record */
    uint64_t passed_by, passed_by_cost; /* accepted beside what was pushed; set by tell_all */
    uint64_t sample_at;                 /* pushed, when the next item is timed; none: UINT64_MAX */
} put_side;

typedef struct get_side {
    _Alignas(WEIR__LINE) weir__mutex mutex;
    bool is_short; /* set by settle: a get that finds an item may go the short way */
    bool hinted;   /* the first putter in line was hinted at */
    weir__fifo_head head;
    counter popped, popped_cost;     /* what came out, delivered or dropped */
    uint64_t pushed;                 /* as last seen */
    counter released, released_cost; /* what of it no longer counts: under bound_in_flight; else
                                        all of it, and these are not used */
    counter *told;                   /* as above */
    counter untold[2];
    uint64_t lost, lost_cost; /* popped, and not delivered; set by tell_all */
} get_side;

static_assert(sizeof(put_side) == WEIR__LINE && sizeof(get_side) == WEIR__LINE,
              "a side is one line: who locks it has all of it");

/* Guests who were called and have not come yet, in that order. */
typedef struct turns {
    struct guest *head, *tail;
    size_t count;
} turns;

#define REFILL_MAX WEIR__FIFO_BLOCK /* items that are brought back together */

/* Of a queue that spills; changed under both mutexes, if nothing else is said. */
typedef struct spilling {
    weir__disk disk;
    uint64_t in, in_cost; /* what went to disk */
    /* What is no longer there: came back, or was lost.  It can be ahead of `in` for a moment: what is
     * written can be read before its writer has come back to count it. */
    uint64_t out, out_cost;
    uint64_t spills, unspilled;
    size_t writing;         /* puts that are about to be on disk */
    weir__load reserved;    /* room for puts that are logged first, and then stay in memory */
    atomic_bool is_full;    /* a put found no room on disk, ... */
    _Atomic uint64_t freed; /* ... and nothing was acknowledged or read since: Dekker's way */
    weir_time full_at;      /* when that was: who else writes to the disk may have made room */

    bool refilling;   /* somebody brings items back; what follows is his */
    bool is_starved;  /* the last who did found no memory */
    weir__load room;  /* for how much */
    bool alone;       /* nothing is held: one is brought back whatever it costs */
    uint64_t in_then; /* `in` when he began */
    size_t n_batch, batch_at;
    weir__entry batch[REFILL_MAX]; /* read; in memory when he has the mutexes */
    bool batch_is_recovered[REFILL_MAX];
} spilling;

/* What holds whenever both mutexes are free:
 *  - accepted == delivered + dropped + depth + spilled, in items and in cost     (by counting)
 *  - the fifo holds pushed - popped items; released <= popped, == without bound_in_flight
 *  - getters wait only while all that is inside is kept for guests, or the first of them is hinted
 *    at, or is a guest that waits for more items than are there
 *  - putters wait only under BLOCK, and the first of them does not fit (or memory is short), or it
 *    is hinted at
 *  - nobody waits to put or get once closed
 *  - drainers wait only while something is inside or in flight
 *  - while something is on disk: what is in memory is more than half of the bound, or the next one does
 *    not fit, or somebody brings it back; and no put goes past it
 *  - told == marks.above, or a thread is telling
 */
struct weir_queue {
    put_side put;
    get_side get;

    /* set at creation */
    _Alignas(WEIR__LINE) int64_t max_age_ns; /* 0: none */
    bool bound_in_flight;
    bool default_marks;
    bool logs_first; /* spills, and is durable: what is in memory is boxed */
    weir_drop_fn *on_drop;
    weir__entry_drop_fn *on_entry_drop; /* instead, where it is not NULL */
    void *drop_ctx;
    weir_watermark_fn *on_watermark;
    void *watermark_ctx;

    /* changed under both mutexes, so read under either */
    weir__load bound;
    bool closed;
    bool has_news; /* something was counted that is not told yet */
    weir__waitq putters, getters, drainers;
    turns called_putters, called_getters; /* whose turn it is */
    weir__load kept_room;                 /* for the ones ... */
    size_t kept_items;                    /* ... and the others */
    size_t late_putters, late_getters;    /* who were passed over */
    weir__load lacking;                   /* what the first putter needs to have released ... */
    weir__load lacking_of;                /* ... since this was released */
    size_t capacity;                      /* the bound as it was given */
    uint64_t max_cost;
    uint64_t dropped[WEIR_DROP_REASONS], dropped_cost[WEIR_DROP_REASONS];
    uint64_t refused, put_blocked_ns, get_blocked_ns;
    uint64_t put_waits, get_waits; /* calls that waited, once each */
    weir__marks marks;
    weir__overflow overflow;
    size_t insiders_waiting; /* of putters: see weir__queue_put_task */
    weir__level item, room;
    bool told, telling;

    weir__spin put_spin, get_spin; /* theirs to guard */

    weir__record *record;  /* NULL: none; set at creation */
    weir__sampler sampler; /* under the put mutex; of the items whose wait is timed */
    bool times_items;      /* set at creation: entries have a time, not a function, and a record */

    spilling *spilling; /* NULL: it does not; set at creation, and not for the short ways */
};

/* Inlined, so that an entry stays in registers: going through memory in pieces of different sizes
 * would take longer than all the rest. */
#define SHORT static inline __attribute__((always_inline))

/* ---- counting ------------------------------------------------------------------------------- */

/* For the side that changes it. */
static uint64_t own(const counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

/* For the other one. */
static uint64_t seen(const counter *c)
{
    return atomic_load_explicit(c, memory_order_acquire);
}

static void count(counter *c, uint64_t n)
{
    atomic_store_explicit(c, own(c) + n, memory_order_release);
}

/* What came out and no longer counts to the bound. */
static counter *released(weir_queue *queue)
{
    return queue->bound_in_flight ? &queue->get.released : &queue->get.popped;
}

static counter *released_cost(weir_queue *queue)
{
    return queue->bound_in_flight ? &queue->get.released_cost : &queue->get.popped_cost;
}

/* Under the get mutex: n items that came out stop to count to the bound. */
static void release(weir_queue *queue, size_t n, uint64_t cost)
{
    if (!queue->bound_in_flight)
        return;
    count(&queue->get.released_cost, cost);
    count(&queue->get.released, n);
}

/* From here to the calls: under both mutexes, if nothing else is said. */

static size_t depth(const weir_queue *queue)
{
    return own(&queue->put.pushed) - own(&queue->get.popped);
}

static weir__load inside(const weir_queue *queue)
{
    return (weir__load){depth(queue), queue->put.pushed_cost - own(&queue->get.popped_cost)};
}

/* What counts to the bound. */
static weir__load held(weir_queue *queue)
{
    return (weir__load){
        .items = own(&queue->put.pushed) - own(released(queue)),
        .cost = queue->put.pushed_cost - own(released_cost(queue)),
    };
}

static weir__load in_flight(weir_queue *queue)
{
    return (weir__load){
        .items = own(&queue->get.popped) - own(released(queue)),
        .cost = own(&queue->get.popped_cost) - own(released_cost(queue)),
    };
}

/* What is on disk and nowhere else. */
static weir__load on_disk(const weir_queue *queue)
{
    const spilling *s = queue->spilling;
    if (!s)
        return (weir__load){0, 0};
    int64_t items = (int64_t)(s->in - s->out), cost = (int64_t)(s->in_cost - s->out_cost);
    return (weir__load){items > 0 ? (size_t)items : 0, cost > 0 ? (uint64_t)cost : 0};
}

/* Whether items are on disk, or on their way to it or back. */
static bool is_spilling(const weir_queue *queue)
{
    const spilling *s = queue->spilling;
    return s && (s->writing > 0 || s->refilling || s->n_batch > s->batch_at ||
                 (int64_t)(s->in - s->out) > 0);
}

/* Whether more will be in memory: that, or puts that are being logged and stay there. */
static bool is_coming(const weir_queue *queue)
{
    return is_spilling(queue) || (queue->spilling && queue->spilling->reserved.items > 0);
}

static bool is_idle(weir_queue *queue)
{
    return own(&queue->put.pushed) == own(released(queue)) && !is_spilling(queue);
}

/* What nobody can have who is not called. */
static weir__load held_or_kept(weir_queue *queue)
{
    weir__load load = held(queue);
    load.items += queue->kept_room.items;
    load.cost += queue->kept_room.cost;
    if (queue->spilling) {
        load.items += queue->spilling->reserved.items;
        load.cost += queue->spilling->reserved.cost;
    }
    return load;
}

static bool fits(weir_queue *queue, uint64_t cost)
{
    return weir__fits(queue->bound, held_or_kept(queue), cost);
}

/* How many items there are for who is not called. */
static size_t available(const weir_queue *queue)
{
    size_t n = depth(queue);
    return n > queue->kept_items ? n - queue->kept_items : 0;
}

/* ---- one call ------------------------------------------------------------------------------- */

#define DROPS_MAX  (2 * WEIR__FIFO_BLOCK)
#define OVERDUE    (100 * WEIR_MILLISECOND)
#define DISK_AGAIN (100 * WEIR_MILLISECOND) /* a full disk is tried again */

typedef struct drop {
    weir__entry entry;
    weir_drop_reason reason;
} drop;

/* What a call owes once the mutexes are free.  Nothing here needs memory. */
typedef struct call {
    weir_time time; /* read when first needed; 0: not yet */
    weir__wakeups wakeups;
    weir__parker *asleep; /* the first putter in line, who is to try the disk again */
    bool tell, above;     /* this thread tells the watermark */
    weir__fifo_cut bulk;  /* whole blocks of dropped items, ... */
    weir_drop_reason bulk_reason;
    size_t bulk_at; /* ... which come before drops[bulk_at] */
    size_t drop_count;
    drop drops[DROPS_MAX];
} call;

/* A thread in line: a putter, a getter, or a drainer; or a guest. */
typedef struct waiter {
    weir__waiter base; /* first: what the waitqs hold */
    weir_time since;   /* when the wait began; 0: when it joins the line */
    bool insider;
    bool counted; /* among the calls that waited: this one waits again */
} waiter;

/* A place in line that no thread waits in; it lies in a weir_pending, zeroed before it comes. */
typedef struct guest {
    waiter waiter;
    struct guest *next, *prev; /* among those who were called */
    uint64_t cost;             /* of the item to put */
    size_t wanted;             /* items to get, 0: it comes to put */
    size_t kept;               /* of a getter who was called */
    weir_time called_at;
    bool called, late; /* it is its turn: what it came for is kept; or it was passed over */
} guest;

static_assert(sizeof(guest) <= sizeof(((weir_pending *)NULL)->opaque), "fits a weir_pending");

/* The n entries of items and costs. */
typedef struct putter {
    waiter waiter;
    void *const *items;
    const uint64_t *costs; /* NULL: all 0 */
    void (*fn)(void *);    /* NULL: none */
    size_t n, taken;       /* items[taken] is what waits */
} putter;

typedef struct getter {
    waiter waiter;
    void **items;    /* NULL: entry is where it goes */
    uint64_t *costs; /* NULL: not wanted */
    weir__entry *entry;
    size_t max, got;
    size_t enough;   /* stops waiting with this many */
    size_t finished; /* taken before, and done now */
    bool waited;
} getter;

static weir_time time_of(call *c)
{
    if (c->time == 0)
        c->time = weir_now();
    return c->time;
}

static inline bool is_guest(const waiter *w)
{
    return w->base.notify;
}

static inline bool wants_more(const waiter *w)
{
    return is_guest(w) && ((const guest *)w)->wanted > 1;
}

/* The invariants above, as far as they are cheap to see. */
static inline bool check(weir_queue *queue)
{
    size_t n = depth(queue);
    weir__load flying = in_flight(queue);
    assert(n <= PTRDIFF_MAX && flying.items <= PTRDIFF_MAX);
    assert((queue->put.tail.end - queue->get.head.first - n) % WEIR__FIFO_BLOCK == 0);
    assert(n > 0 || inside(queue).cost == 0);
    assert(flying.items > 0 || flying.cost == 0);
    assert(queue->bound_in_flight || flying.items == 0);
    assert(!queue->getters.head ||
           ((!queue->closed || is_coming(queue)) &&
            (available(queue) == 0 || wants_more((waiter *)queue->getters.head))));
    assert(queue->kept_room.items == queue->called_putters.count);
    assert(queue->kept_items >= queue->called_getters.count);
    assert(!queue->putters.head || !queue->closed);
    assert(!queue->putters.head || queue->spilling ||
           (queue->overflow.when_full == WEIR__WAIT &&
            (!is_idle(queue) || queue->called_putters.head)));
    assert(queue->insiders_waiting <= queue->putters.count);
    assert(!queue->drainers.head || !is_idle(queue));
    assert(!queue->on_watermark || queue->told == queue->marks.above || queue->telling);
    return true;
}

/* ---- what others see ------------------------------------------------------------------------
 *
 * The record in the process's page is a copy of what is counted here.  Who goes the short way tells what its
 * side counted: one store, to a line of the record that nobody else writes to, and one more for a cost.  Who
 * had both mutexes tells everything, marked as belonging together.  No counter there ever goes back:
 * items that were pushed or popped only to be dropped are no part of what the sides tell.
 */

/* Of items that never were inside; and of those that came out of there. */
static uint64_t dropped_outside(const uint64_t by_reason[])
{
    return by_reason[WEIR_DROP_NEWEST] + by_reason[WEIR_DROP_SAMPLED] + by_reason[WEIR_DROP_LOST];
}

static uint64_t dropped_from_inside(const uint64_t by_reason[])
{
    return by_reason[WEIR_DROP_OLDEST] + by_reason[WEIR_DROP_EXPIRED] +
           by_reason[WEIR_DROP_DISCARDED];
}

static inline void tell(counter *where, uint64_t value)
{
    if (WEIR__TELLS)
        atomic_store_explicit(where, value, memory_order_relaxed);
}

/* Under the put mutex; cost: whether there is news of that, too. */
static inline void tell_in(const put_side *put, bool cost)
{
    tell(&put->told[0], own(&put->pushed) + put->passed_by);
    if (cost)
        tell(&put->told[1], put->pushed_cost + put->passed_by_cost);
}

/* Under the get mutex. */
static inline void tell_out(const get_side *get, bool cost)
{
    tell(&get->told[0], own(&get->popped) - get->lost);
    if (cost)
        tell(&get->told[1], own(&get->popped_cost) - get->lost_cost);
}

/* Under the get mutex, with bound_in_flight; cost as above. */
static inline void tell_done(const weir_queue *queue, bool cost)
{
    const get_side *get = &queue->get;
    weir__tell(queue->record, WEIR_STATS_DONE, own(&get->released) - get->lost);
    if (cost)
        weir__tell(queue->record, WEIR_STATS_DONE_COST, own(&get->released_cost) - get->lost_cost);
}

static void tell_drops(const weir_queue *queue, weir__record *record)
{
    for (int i = 0; i < WEIR_DROP_REASONS; i++) {
        weir__tell(record, WEIR_STATS_DROPPED_NEWEST + i, queue->dropped[i]);
        weir__tell(record, WEIR_STATS_DROPPED_NEWEST_COST + i, queue->dropped_cost[i]);
    }
}

static void tell_waits(const weir_queue *queue, weir__record *record)
{
    weir__tell(record, WEIR_STATS_REFUSED, queue->refused);
    weir__tell(record, WEIR_STATS_PUT_WAITS, queue->put_waits);
    weir__tell(record, WEIR_STATS_GET_WAITS, queue->get_waits);
}

static size_t putters_waiting(const weir_queue *queue)
{
    return queue->putters.count + queue->called_putters.count + queue->late_putters;
}

static size_t getters_waiting(const weir_queue *queue)
{
    return queue->getters.count + queue->called_getters.count + queue->late_getters;
}

static void tell_bounds(const weir_queue *queue, weir__record *record)
{
    weir__tell(record, WEIR_STATS_CAPACITY,
               queue->capacity == WEIR_UNBOUNDED ? UINT64_MAX : queue->capacity);
    weir__tell(record, WEIR_STATS_MAX_COST, queue->max_cost);
    weir__tell(record, WEIR_STATS_MAX_AGE_NS, (uint64_t)queue->max_age_ns);
    weir__tell(record, WEIR_STATS_CLOSED, queue->closed);
    weir__tell(record, WEIR_STATS_REPORTS_DONE, queue->bound_in_flight);
}

/* What was counted under both mutexes, by all who set has_news. */
static void tell_news(weir_queue *queue, weir__record *record)
{
    weir__load spilled = on_disk(queue);
    queue->put.passed_by = dropped_outside(queue->dropped) + spilled.items;
    queue->put.passed_by_cost = dropped_outside(queue->dropped_cost) + spilled.cost;
    queue->get.lost = dropped_from_inside(queue->dropped);
    queue->get.lost_cost = dropped_from_inside(queue->dropped_cost);
    weir__tell(record, WEIR_STATS_SPILLED, spilled.items);
    weir__tell(record, WEIR_STATS_SPILLED_COST, spilled.cost);
    tell_drops(queue, record);
    tell_waits(queue, record);
    tell_bounds(queue, record);
    queue->has_news = false;
}

static void tell_all(weir_queue *queue)
{
    weir__record *record = queue->record;
    if (!WEIR__TELLS || !record)
        return;
    weir__tell_begin(record);
    if (queue->has_news || queue->spilling)
        tell_news(queue, record);
    tell_in(&queue->put, true);
    tell_out(&queue->get, true);
    if (queue->bound_in_flight)
        tell_done(queue, true);
    weir__tell(record, WEIR_STATS_PEAK_DEPTH, queue->put.peak_depth);
    weir__tell(record, WEIR_STATS_ABOVE_HIGH, queue->marks.above);
    weir__tell_line(record, 0, putters_waiting(queue));
    weir__tell_line(record, 1, getters_waiting(queue));
    weir__tell_end(record);
}

/* Under the put mutex: whether the next item is to be timed. */
SHORT bool is_sample_due(const put_side *put)
{
    return WEIR__TELLS && own(&put->pushed) >= put->sample_at;
}

/* Under the put mutex, of an item to be timed: when it came. */
static int64_t stamp(weir_queue *queue)
{
    weir_time now = weir_now();
    int64_t since = weir__timed(&queue->sampler, now);
    queue->put.sample_at = own(&queue->put.pushed) + weir__sampler_next(&queue->sampler, now);
    return since;
}

/* Under both mutexes, of a caller who has waited: items have become rare, perhaps. */
static void restart_sampling(weir_queue *queue)
{
    weir__sampler_restart(&queue->sampler);
    queue->put.sample_at = queue->times_items ? 0 : UINT64_MAX;
}

/* Under the get mutex, of an item with a time.  now may be 0: to be read. */
static void note_wait(weir_queue *queue, int64_t since, weir_time now)
{
    if (queue->times_items)
        weir__tell_time(&queue->record->wait, (now ? now : weir_now()) - weir__time_of(since),
                        weir__weight_of(since));
}

static bool owes_drops(const call *c)
{
    return c->drop_count > 0 || c->bulk.head.block;
}

static void pass_over(weir_queue *queue, call *c);
static void serve_getters(weir_queue *queue, call *c);
static void admit(weir_queue *queue, call *c);
static void invite(weir_queue *queue, call *c);
static void serve_all(weir_queue *queue, weir__waitq *line, int result, call *c);
static bool begin_refill(weir_queue *queue);
static int refill(weir_queue *queue);
static void report_drops(weir_queue *queue, call *c);
static void tell_watermark(weir_queue *queue, call *c);
static void serve(weir_queue *queue, weir__waitq *line, weir__waiter *base, int result, call *c);

static void lock_both(weir_queue *queue)
{
    weir__lock(&queue->put.mutex);
    weir__lock(&queue->get.mutex);
}

static void unlock_both(weir_queue *queue)
{
    weir__unlock(&queue->get.mutex);
    weir__unlock(&queue->put.mutex);
}

/* To be read outside the mutexes. */
static weir_time time_if_needed(const weir_queue *queue)
{
    return queue->max_age_ns ? weir_now() : 0;
}

static void enter(weir_queue *queue, call *c)
{
    c->time = time_if_needed(queue);
    c->wakeups = (weir__wakeups){0};
    c->asleep = NULL;
    c->tell = false;
    c->drop_count = 0;
    c->bulk.head.block = NULL;
    lock_both(queue);
    pass_over(queue, c);
    serve_getters(queue, c); /* those who were hinted at */
    admit(queue, c);
}

static void set_levels(weir_queue *queue)
{
    weir__level_set(&queue->item, queue->closed || available(queue) > 0);
    weir__level_set(&queue->room, queue->closed || (!queue->putters.head && fits(queue, 0)));
}

static uint64_t next_cost(const putter *p)
{
    return p->costs ? p->costs[p->taken] : 0;
}

/* What the first in line of those who put waits for room for. */
static uint64_t first_cost(const waiter *w)
{
    return is_guest(w) ? ((const guest *)w)->cost : next_cost((const putter *)w);
}

/* Whether hints do for the first getter: it wants the next item, whenever it comes to take it.
 * (A guest serves nobody.  A batch that lingers takes items as they come, and is woken once.  An item
 * must not grow too old while a getter waits for it.) */
static bool may_be_hinted_at(const weir_queue *queue, const waiter *w)
{
    const getter *g = (const getter *)w;
    return !is_guest(w) && g->enough - g->got == 1 && !queue->max_age_ns && !queue->kept_items;
}

/* Who may go the short way, and when it has to hint. */
static void set_short_ways(weir_queue *queue)
{
    bool plain = queue->item.fd < 0 && queue->room.fd < 0 && !weir__marks_any(&queue->marks) &&
                 !is_spilling(queue);
    const waiter *g = (waiter *)queue->getters.head, *p = (waiter *)queue->putters.head;
    queue->put.is_short = plain && !queue->closed && !p && !queue->called_putters.head &&
                          !queue->logs_first && (!g || may_be_hinted_at(queue, g));
    queue->get.is_short =
        plain && !g && !queue->called_getters.head && !queue->drainers.head && !(p && is_guest(p));
    queue->put.hinted = queue->get.hinted = false;
    queue->put.released.items = queue->lacking_of.items = own(released(queue));
    queue->put.released.cost = queue->lacking_of.cost = own(released_cost(queue));
    queue->put.popped = own(&queue->get.popped);
    queue->get.pushed = own(&queue->put.pushed);
    if (p)
        queue->lacking = weir__excess(queue->bound, held_or_kept(queue), first_cost(p));
}

static void reset_if_empty(weir_queue *queue)
{
    if (depth(queue) == 0)
        weir__fifo_reset(&queue->put.tail, &queue->get.head);
}

/* Brings everything that follows from the loads up to date. */
static void settle(weir_queue *queue, call *c)
{
    serve_getters(queue, c);
    admit(queue, c);
    if (queue->closed && queue->getters.head && available(queue) == 0 && !is_coming(queue))
        serve_all(queue, &queue->getters, WEIR_ECLOSED, c); /* the disk is empty, too */
    weir__marks_update(&queue->marks, inside(queue));
    if (queue->on_watermark && queue->told != queue->marks.above && !queue->telling) {
        queue->telling = c->tell = true;
        c->above = queue->marks.above;
    }
    while (queue->drainers.head && is_idle(queue))
        serve(queue, &queue->drainers, queue->drainers.head, WEIR_OK, c);
    if (queue->item.fd >= 0 || queue->room.fd >= 0)
        set_levels(queue);
    reset_if_empty(queue);
    set_short_ways(queue);
    assert(check(queue));
}

/* Whether this thread has to bring items back from disk now. */
static bool leave_once(weir_queue *queue, call *c)
{
    settle(queue, c);
    bool refills = queue->spilling && begin_refill(queue);
    tell_all(queue);
    unlock_both(queue);
    if (c->wakeups.head)
        weir__wake_all(&c->wakeups);
    if (c->asleep)
        weir__futex_wake(&c->asleep->state, 1, false);
    if (owes_drops(c))
        report_drops(queue, c);
    if (c->tell)
        tell_watermark(queue, c);
    return refills;
}

/* Returns how many items it brought back from disk, or why it could not. */
static int leave(weir_queue *queue, call *c)
{
    return leave_once(queue, c) ? refill(queue) : 0;
}

/* ---- dropping ------------------------------------------------------------------------------- */

/* Whether the call can take on whatever one more step may drop. */
static bool has_room_for_drops(const call *c)
{
    return c->drop_count <= DROPS_MAX - WEIR__FIFO_BLOCK && !c->bulk.head.block;
}

static void count_drops(weir_queue *queue, size_t n, uint64_t cost, weir_drop_reason reason)
{
    queue->dropped[reason] += n;
    queue->dropped_cost[reason] += cost;
    queue->has_news = true;
}

/* Of an item that the queue took and that is not inside. */
static void drop_later(weir_queue *queue, weir__entry entry, weir_drop_reason reason, call *c)
{
    count_drops(queue, 1, entry.cost, reason);
    c->drops[c->drop_count++] = (drop){entry, reason};
}

/* Under the get mutex: there must be one. */
static inline weir__entry take_out(get_side *get)
{
    weir__entry entry = weir__fifo_pop(&get->head);
    count(&get->popped_cost, entry.cost);
    count(&get->popped, 1);
    return entry;
}

static void drop_head(weir_queue *queue, weir_drop_reason reason, call *c)
{
    weir__entry entry = take_out(&queue->get);
    release(queue, 1, entry.cost);
    drop_later(queue, entry, reason, c);
}

/* The n oldest; has_room_for_drops. */
static void drop_heads(weir_queue *queue, size_t n, weir_drop_reason reason, call *c)
{
    weir__fifo_cut_off(&queue->put.tail, &queue->get.head, n, &c->bulk);
    c->bulk_reason = reason;
    c->bulk_at = c->drop_count;
    n -= c->bulk.count;
    uint64_t cost = weir__fifo_cost(&c->bulk);
    count(&queue->get.popped_cost, cost);
    count(&queue->get.popped, c->bulk.count);
    release(queue, c->bulk.count, cost);
    count_drops(queue, c->bulk.count, cost, reason);
    while (n-- > 0)
        drop_head(queue, reason, c);
}

/* What is acknowledged may have made room on disk. */
static void acknowledge(weir_queue *queue, uint64_t seq)
{
    spilling *s = queue->spilling;
    weir_spill_ack(s->disk.spill, seq);
    atomic_fetch_add(&s->freed, 1); /* before the look: see note_full */
    if (!atomic_load(&s->is_full))
        return;
    call c;
    enter(queue, &c);
    atomic_store(&s->is_full, false);
    leave(queue, &c);
}

static void report(weir_queue *queue, weir__entry entry, weir_drop_reason reason)
{
    uint64_t seq = 0;
    if (queue->logs_first)
        entry.item = weir__unbox(entry.item, &seq);
    if (seq > 0)
        acknowledge(queue, seq);
    if (queue->on_entry_drop)
        queue->on_entry_drop(&entry, reason, queue->drop_ctx);
    else
        queue->on_drop(entry.item, reason, queue->drop_ctx);
}

static void report_bulk(weir_queue *queue, call *c)
{
    for (; c->bulk.count > 0; c->bulk.count--)
        report(queue, weir__fifo_pop(&c->bulk.head), c->bulk_reason);
    weir__fifo_cut_fini(&c->bulk);
}

/* Oldest first. */
static void report_drops(weir_queue *queue, call *c)
{
    size_t i = 0;
    if (c->bulk.head.block) {
        for (; i < c->bulk_at; i++)
            report(queue, c->drops[i].entry, c->drops[i].reason);
        report_bulk(queue, c);
    }
    for (; i < c->drop_count; i++)
        report(queue, c->drops[i].entry, c->drops[i].reason);
}

/* Serialised by `telling`: a change that comes meanwhile is told by this thread too. */
static void tell_watermark(weir_queue *queue, call *c)
{
    for (bool more = true; more;) {
        queue->on_watermark(c->above, queue->watermark_ctx);
        lock_both(queue);
        queue->told = c->above;
        c->above = queue->marks.above;
        more = queue->telling = c->above != queue->told;
        unlock_both(queue);
    }
}

/* ---- waiting -------------------------------------------------------------------------------- */

/* Books the end of a wait, before the waiter leaves the line. */
static void end_wait(weir_queue *queue, weir__waitq *line, waiter *w, int result, call *c)
{
    weir_time waited = time_of(c) - w->since;
    if (waited < 0)
        waited = 0; /* both read the clock before they had the mutex */
    if (waited > WEIR_MILLISECOND)
        restart_sampling(queue);
    queue->has_news = true;
    if (line == &queue->putters) {
        queue->put_blocked_ns += (uint64_t)waited;
        queue->put_waits += !w->counted;
        queue->refused += result == WEIR_ETIMEDOUT || result == WEIR_ETOOBIG;
        queue->insiders_waiting -= w->insider;
    } else if (line == &queue->getters) {
        queue->get_blocked_ns += (uint64_t)waited;
        queue->get_waits += !w->counted;
    }
    w->counted = true;
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

/* Leaves, and sleeps until served, hinted at, or the deadline; WEIR__LOOK: until it is time to look
 * whether a guest is late who has to come first, or whether the disk has room again. */
#define WEIR__LOOK (WEIR__HINTED + 1)

static int leave_and_park(weir_queue *queue, weir__waitq *line, waiter *w, weir_time deadline,
                          call *c)
{
    bool behind_guests =
        queue->called_putters.head || queue->called_getters.head || is_guest((waiter *)line->head);
    bool for_the_disk = queue->spilling && line == &queue->putters;
    leave(queue, c); /* what stood behind us may fit now */
    weir_time look = behind_guests  ? weir_after(OVERDUE)
                     : for_the_disk ? weir_after(DISK_AGAIN)
                                    : WEIR_FOREVER;
    int rc = weir__waiter_park(&w->base, look < deadline ? look : deadline);
    return rc == WEIR_ETIMEDOUT && look < deadline ? WEIR__LOOK : rc;
}

/* Entered: joins the line; left when it returns. */
static int wait_in_line(weir_queue *queue, weir__waitq *line, waiter *w, weir_time deadline,
                        call *c)
{
    if (w->since == 0)
        w->since = time_of(c);
    weir__waitq_push(line, &w->base);
    for (;;) {
        int rc = leave_and_park(queue, line, w, deadline, c);
        if (rc == WEIR_OK)
            return w->base.result;
        enter(queue, c); /* serves the lines, so perhaps us */
        bool served = !w->base.waiting;
        if (!served && rc >= 0) {
            if (rc == WEIR__HINTED)
                weir__parker_rearm(&w->base.parker);
            continue;
        }
        if (!served) {
            end_wait(queue, line, w, rc, c);
            weir__waitq_give_up(line, &w->base);
        }
        leave(queue, c);
        if (!served)
            return rc;
        weir__waiter_join(&w->base);
        return w->base.result;
    }
}

/* Under the mutex of one side, about the first in line of the other: hints at it, unless that was
 * done.  *ret_asleep: whom the caller has to wake once it has no mutex.  false: nobody sees to the
 * line, so the caller has to. */
static bool hint_at(bool *hinted, weir__waiter *first, weir__parker **ret_asleep)
{
    if (*hinted)
        return true;
    weir__hint hint = weir__hint_at(&first->parker);
    if (hint == WEIR__HINT_AWAY)
        return false;
    *hinted = true;
    if (hint == WEIR__HINT_ASLEEP)
        *ret_asleep = &first->parker;
    return true;
}

/* What a call owes that went the short way. */
typedef struct errand {
    weir__parker *asleep; /* its thread may be gone by the time it is woken, which does no harm */
    bool settle;
} errand;

static inline void run_errand(weir_queue *queue, const errand *e)
{
    if (e->asleep)
        weir__futex_wake(&e->asleep->state, 1, false);
    if (e->settle) {
        call c;
        enter(queue, &c);
        leave(queue, &c);
    }
}

/* ---- giving and taking ---------------------------------------------------------------------- */

/* Under the get mutex: as take_out, for a getter. */
static inline weir__entry take_to_deliver(weir_queue *queue, weir_time now)
{
    weir__entry entry = take_out(&queue->get);
    if (WEIR__TELLS && entry.since != 0)
        note_wait(queue, entry.since, now);
    return entry;
}

/* Hands an item that was taken out to a getter, which is in line or in this call. */
static void give(getter *g, weir__entry entry)
{
    if (!g->items) {
        *g->entry = entry;
    } else {
        g->items[g->got] = entry.item;
        if (g->costs)
            g->costs[g->got] = entry.cost;
    }
    g->got++;
}

/* Keeps for a guest what it came for, until end_turn. */
static void begin_turn(weir_queue *queue, guest *g, call *c)
{
    turns *turn = g->wanted ? &queue->called_getters : &queue->called_putters;
    g->called = true;
    g->called_at = time_of(c);
    g->next = NULL;
    g->prev = turn->tail;
    *(turn->tail ? &turn->tail->next : &turn->head) = g;
    turn->tail = g;
    turn->count++;
    if (g->wanted) {
        g->kept = available(queue) < g->wanted ? available(queue) : g->wanted;
        queue->kept_items += g->kept;
    } else {
        queue->kept_room.items++;
        queue->kept_room.cost += g->cost;
    }
}

static size_t *late_ones(weir_queue *queue, const guest *g)
{
    return g->wanted ? &queue->late_getters : &queue->late_putters;
}

static void end_turn(weir_queue *queue, guest *g)
{
    turns *turn = g->wanted ? &queue->called_getters : &queue->called_putters;
    if (g->late)
        (*late_ones(queue, g))--;
    g->late = false;
    if (!g->called)
        return;
    *(g->prev ? &g->prev->next : &turn->head) = g->next;
    *(g->next ? &g->next->prev : &turn->tail) = g->prev;
    turn->count--;
    g->called = false;
    if (g->wanted) {
        queue->kept_items -= g->kept;
    } else {
        queue->kept_room.items--;
        queue->kept_room.cost -= g->cost;
    }
}

static void pass_over_late(weir_queue *queue, turns *turn, call *c)
{
    for (guest *g; (g = turn->head) && time_of(c) - g->called_at > OVERDUE;) {
        end_turn(queue, g);
        g->kept = 0;
        g->late = true;
        (*late_ones(queue, g))++;
    }
}

static void pass_over(weir_queue *queue, call *c)
{
    pass_over_late(queue, &queue->called_putters, c);
    pass_over_late(queue, &queue->called_getters, c);
}

static bool is_its_turn(const guest *g)
{
    return g->called || g->late;
}

/* Tells the first in line that its turn has come. */
static void call_guest(weir_queue *queue, guest *g, call *c)
{
    serve(queue, g->wanted ? &queue->getters : &queue->putters, &g->waiter.base, WEIR_OK, c);
    begin_turn(queue, g, c);
}

/* Whether there are as many as the guest wants, or as many as there will be before it takes some. */
static bool is_worth_calling(weir_queue *queue, const guest *g)
{
    return available(queue) >= g->wanted || queue->closed || queue->putters.head ||
           !fits(queue, 0) || is_spilling(queue);
}

/* Hands what is inside to those in line.  (None of it is too old: where items age, nothing gets
 * inside past a getter.) */
static void serve_getters(weir_queue *queue, call *c)
{
    for (waiter *w; available(queue) > 0 && (w = (waiter *)queue->getters.head);) {
        getter *g = (getter *)w;
        if (is_guest(w) && !is_worth_calling(queue, (guest *)w))
            return;
        if (is_guest(w)) {
            call_guest(queue, (guest *)w, c);
            continue;
        }
        give(g, take_to_deliver(queue, c->time));
        if (g->got == g->enough)
            serve(queue, &queue->getters, &w->base, WEIR_OK, c);
    }
}

/* Under the put mutex. */
static inline void count_in(put_side *put, uint64_t cost)
{
    put->pushed_cost += cost;
    count(&put->pushed, 1);
}

/* Whether there is a block to push to. */
static bool find_block(weir_queue *queue)
{
    reset_if_empty(queue);
    if (weir__fifo_lacks_block(&queue->put.tail))
        weir__fifo_recycle(&queue->put.tail, &queue->get.head);
    return weir__fifo_reserve(&queue->put.tail);
}

/* Takes an item: to the first waiting getter, or inside. */
static int take_in(weir_queue *queue, weir__entry entry, call *c)
{
    if (!find_block(queue))
        return WEIR_ENOMEM;
    if (is_sample_due(&queue->put) && entry.since == 0)
        entry.since = stamp(queue);
    weir__fifo_push(&queue->put.tail, entry);
    count_in(&queue->put, entry.cost);
    serve_getters(queue, c);
    if (depth(queue) > queue->put.peak_depth)
        queue->put.peak_depth = depth(queue);
    return WEIR_KEPT;
}

/* The same of one that fits. */
static int accept_item(weir_queue *queue, weir__entry entry, call *c)
{
    assert(fits(queue, entry.cost));
    return take_in(queue, entry, c);
}

static weir__entry next_entry(const putter *p, weir_time now)
{
    weir__entry entry = {.item = p->items[p->taken], .cost = next_cost(p), .since = now};
    if (p->fn)
        entry.fn = p->fn;
    return entry;
}

/* Takes what fits of the first in line.  WEIR_EFULL: there is more of it. */
static int admit_thread(weir_queue *queue, putter *p, call *c)
{
    for (; p->taken < p->n; p->taken++) {
        if (next_cost(p) > queue->bound.cost)
            return WEIR_ETOOBIG;
        if (!fits(queue, next_cost(p)) ||
            accept_item(queue, next_entry(p, c->time), c) == WEIR_ENOMEM)
            return WEIR_EFULL;
    }
    return WEIR_OK;
}

/* Takes what fits from the putters in line, and calls guests for whose items there is room, from the
 * head, never past one that does not fit. */
static void admit(weir_queue *queue, call *c)
{
    if (queue->spilling) {
        invite(queue, c);
        return;
    }
    for (waiter *w; (w = (waiter *)queue->putters.head);) {
        if (is_guest(w) && fits(queue, first_cost(w))) {
            call_guest(queue, (guest *)w, c);
            continue;
        }
        int rc = !is_guest(w)                        ? admit_thread(queue, (putter *)w, c)
                 : first_cost(w) > queue->bound.cost ? WEIR_ETOOBIG
                                                     : WEIR_EFULL;
        if (rc == WEIR_EFULL)
            return;
        serve(queue, &queue->putters, &w->base, rc, c);
    }
}

/* Lets go those in line who can never be admitted. */
static void refuse_too_big(weir_queue *queue, call *c)
{
    for (weir__waiter *base = queue->putters.head, *next; base; base = next) {
        next = base->next;
        if (first_cost((waiter *)base) > queue->bound.cost)
            serve(queue, &queue->putters, base, WEIR_ETOOBIG, c);
    }
}

/* ---- the short ways ------------------------------------------------------------------------- */

/* Beside WEIR_KEPT, WEIR_DROPPED and WEIR_OK: */
#define MUST_WAIT 2 /* it does not fit; nothing is there */
#define LONG_WAY  3 /* this is for who has both mutexes */
#define TO_DISK   4 /* it has to be written */

/* Under the put mutex: whether it fits, if necessary after a look at the other side. */
static inline bool fits_in(weir_queue *queue, uint64_t cost)
{
    put_side *put = &queue->put;
    weir__load full = {own(&put->pushed) - put->released.items,
                       put->pushed_cost - put->released.cost};
    if (weir__fits(queue->bound, full, cost))
        return true;
    /* Each may have grown since it was seen, and neither shrinks: what they show together is no
     * more than is true. */
    put->released.items = seen(released(queue));
    put->released.cost = seen(released_cost(queue));
    full = (weir__load){own(&put->pushed) - put->released.items,
                        put->pushed_cost - put->released.cost};
    return weir__fits(queue->bound, full, cost);
}

/* Under the put mutex.  (The item counts as inside from the look at the other side on.) */
static inline void note_peak(weir_queue *queue)
{
    put_side *put = &queue->put;
    if (own(&put->pushed) - put->popped <= put->peak_depth)
        return;
    put->popped = seen(&queue->get.popped);
    if (own(&put->pushed) - put->popped <= put->peak_depth)
        return;
    put->peak_depth = own(&put->pushed) - put->popped;
    weir__tell(queue->record, WEIR_STATS_PEAK_DEPTH, put->peak_depth);
}

/* Under the put mutex. */
SHORT int put_one_short(weir_queue *queue, weir__entry entry)
{
    put_side *put = &queue->put;
    if (!put->is_short)
        return LONG_WAY;
    if (!fits_in(queue, entry.cost))
        return MUST_WAIT;
    if (weir__fifo_lacks_block(&put->tail)) {
        weir__lock(&queue->get.mutex);
        weir__fifo_recycle(&put->tail, &queue->get.head);
        weir__unlock(&queue->get.mutex);
        if (weir__fifo_lacks_block(&put->tail))
            return LONG_WAY; /* which may need none, or allocates */
    }
    if (is_sample_due(put) && entry.since == 0)
        entry.since = stamp(queue);
    weir__fifo_push(&put->tail, entry);
    count_in(put, entry.cost);
    tell_in(put, entry.cost > 0);
    note_peak(queue);
    return WEIR_KEPT;
}

/* Under the put mutex, if getters wait: items are inside, so one of them has to know. */
static errand hint_getter(weir_queue *queue)
{
    errand e = {0};
    if (own(&queue->put.pushed) != seen(&queue->get.popped))
        e.settle = !hint_at(&queue->put.hinted, queue->getters.head, &e.asleep);
    return e;
}

/* Puts an entry, if that can be done so.  *ret_released: as seen when it did not fit. */
SHORT int put_short(weir_queue *queue, weir__entry entry, uint64_t *ret_released)
{
    errand e = {0};
    weir__lock(&queue->put.mutex);
    int rc = put_one_short(queue, entry);
    if (rc == MUST_WAIT)
        *ret_released = queue->put.released.items;
    if (queue->getters.head)
        e = hint_getter(queue);
    weir__unlock(&queue->put.mutex);
    run_errand(queue, &e);
    return rc;
}

/* Puts as much of p as can be put so. */
static void put_many_short(weir_queue *queue, putter *p)
{
    weir_time now = time_if_needed(queue);
    errand e = {0};
    weir__lock(&queue->put.mutex);
    while (p->taken < p->n && put_one_short(queue, next_entry(p, now)) == WEIR_KEPT)
        p->taken++;
    if (queue->getters.head)
        e = hint_getter(queue);
    weir__unlock(&queue->put.mutex);
    run_errand(queue, &e);
}

/* Under the get mutex, if putters wait: what was released may let the first of them in. */
static errand hint_putter(weir_queue *queue)
{
    errand e = {0};
    if (own(released(queue)) - queue->lacking_of.items >= queue->lacking.items &&
        own(released_cost(queue)) - queue->lacking_of.cost >= queue->lacking.cost)
        e.settle = !hint_at(&queue->get.hinted, queue->putters.head, &e.asleep);
    return e;
}

static bool is_expired(const weir_queue *queue, const weir__entry *entry, weir_time now)
{
    return queue->max_age_ns && now - weir__time_of(entry->since) > queue->max_age_ns;
}

/* Under the get mutex, of the next one, which has a time (or is a task): notes how long it was inside.
 * false: for too long. */
__attribute__((noinline)) static bool see_to_time(weir_queue *queue, const weir__entry *entry,
                                                  weir_time now)
{
    if (is_expired(queue, entry, now))
        return false;
    if (WEIR__TELLS)
        note_wait(queue, entry->since, now);
    return true;
}

/* Under the get mutex, and get.is_short. */
SHORT int get_one_short(weir_queue *queue, weir__entry *ret_entry, weir_time now)
{
    get_side *get = &queue->get;
    if (own(&get->popped) == get->pushed) {
        get->pushed = seen(&queue->put.pushed);
        if (own(&get->popped) == get->pushed)
            return queue->putters.head || queue->closed ? LONG_WAY : MUST_WAIT;
    }
    const weir__entry *next = weir__fifo_peek(&get->head);
    if (next->since != 0 && !see_to_time(queue, next, now))
        return LONG_WAY;
    weir__entry entry = take_out(get);
    tell_out(get, entry.cost > 0);
    *ret_entry = entry;
    return WEIR_OK;
}

/* Gets an entry, if that can be done so.  *finished: taken before and done now; 0 when that has been
 * seen to.  *ret_pushed: as seen when nothing was there. */
SHORT int get_short(weir_queue *queue, size_t *finished, weir__entry *ret_entry,
                    uint64_t *ret_pushed)
{
    weir_time now = time_if_needed(queue);
    errand e = {0};
    int rc = LONG_WAY;
    weir__lock(&queue->get.mutex);
    if (queue->get.is_short) {
        if (*finished > 0) {
            release(queue, *finished, 0);
            tell_done(queue, false);
        }
        *finished = 0;
        rc = get_one_short(queue, ret_entry, now);
        if (rc == MUST_WAIT)
            *ret_pushed = queue->get.pushed;
        if (queue->putters.head)
            e = hint_putter(queue);
    }
    weir__unlock(&queue->get.mutex);
    run_errand(queue, &e);
    return rc;
}

/* Gets as much for g as can be got so. */
static void get_many_short(weir_queue *queue, getter *g)
{
    weir_time now = time_if_needed(queue);
    errand e = {0};
    weir__lock(&queue->get.mutex);
    if (queue->get.is_short) {
        weir__entry entry;
        while (g->got < g->max && get_one_short(queue, &entry, now) == WEIR_OK)
            give(g, entry);
        if (queue->putters.head)
            e = hint_putter(queue);
    }
    weir__unlock(&queue->get.mutex);
    run_errand(queue, &e);
}

/* ---- putting -------------------------------------------------------------------------------- */

static int refuse(weir_queue *queue, int error)
{
    queue->refused++;
    queue->has_news = true;
    return error;
}

static int accept_and_drop(weir_queue *queue, weir__entry entry, weir_drop_reason reason, call *c)
{
    drop_later(queue, entry, reason, c);
    return WEIR_DROPPED;
}

/* Drops as many of the oldest as the item needs; none when all of them would not do. */
static int accept_evicting(weir_queue *queue, weir__entry entry, call *c)
{
    weir__load excess = weir__excess(queue->bound, held(queue), entry.cost);
    weir__load there = inside(queue);
    if (excess.items > there.items || excess.cost > there.cost)
        return refuse(queue, WEIR_EFULL); /* what is in flight takes the room */
    if (!find_block(queue))
        return WEIR_ENOMEM;
    size_t n = weir__fifo_worth(&queue->get.head, there.items, excess.items, excess.cost);
    drop_heads(queue, n, WEIR_DROP_OLDEST, c);
    return accept_item(queue, entry, c);
}

/* What becomes of an item, as far as that can be said without waiting. */
static int offer(weir_queue *queue, weir__entry entry, call *c)
{
    if (queue->closed)
        return WEIR_ECLOSED;
    if (entry.cost > queue->bound.cost)
        return refuse(queue, WEIR_ETOOBIG);
    bool room = !queue->putters.head && fits(queue, entry.cost); /* never past a waiter */
    if (queue->logs_first || is_spilling(queue))
        return TO_DISK;
    switch (weir__overflow_decide(&queue->overflow, queue->marks.above, room)) {
    case WEIR__KEEP: return accept_item(queue, entry, c);
    case WEIR__WAIT: return MUST_WAIT;
    case WEIR__SPILL: return TO_DISK;
    case WEIR__REFUSE: return refuse(queue, WEIR_EFULL);
    case WEIR__DROP: return accept_and_drop(queue, entry, WEIR_DROP_NEWEST, c);
    case WEIR__EVICT: return accept_evicting(queue, entry, c);
    case WEIR__SAMPLE_OUT: return accept_and_drop(queue, entry, WEIR_DROP_SAMPLED, c);
    }
    return WEIR_EINVAL; /* not reached */
}

/* Entered: waits for room, or says why not; left when it returns. */
static int wait_for_room(weir_queue *queue, putter *p, weir_time deadline, size_t insiders, call *c)
{
    if (deadline <= WEIR_POLL) {
        if (deadline != WEIR_PROBE)
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

/* Entered: offers the rest of p until one is not taken or the call owes too many drops. */
static int offer_rest(weir_queue *queue, putter *p, call *c)
{
    int rc = WEIR_OK;
    while (p->taken < p->n && has_room_for_drops(c)) {
        rc = offer(queue, next_entry(p, c->time), c);
        if (rc != WEIR_KEPT && rc != WEIR_DROPPED)
            return rc;
        p->taken++;
        weir__marks_update(&queue->marks, inside(queue)); /* the next one is sampled by it */
    }
    return rc;
}

/* ---- the disk -------------------------------------------------------------------------------
 *
 * One line of items: the older ones in memory, the younger ones on disk.  As long as there is anything
 * on disk, or on its way, every put goes there, so nothing overtakes; reading and writing are done
 * without the mutexes, in between two sections.
 *
 * Putting:    a putter writes on its own thread, and counts as `writing` meanwhile.  If there is no room
 *             on disk it comes into line, where nobody serves it: it is invited to try again, as the
 *             first in line, and stays there until that has worked.  Room that others make on the
 *             disk nobody tells of: it is tried again from time to time, by who waits or comes by.
 * Refilling:  one at a time.  Every leave looks whether what is in memory has fallen to half; who finds
 *             it so does it, then and there.  So nobody waits for an item on disk: before he sleeps he
 *             has left, and so has whoever wrote the item.
 * Durable:    every item is written first, and then stays in memory (`reserved`) if nothing is on disk.
 */

/* The part of a refill that is done without the mutexes: reads as much as there is room for. */
static int read_batch(spilling *s)
{
    int rc = WEIR_OK;
    while (s->n_batch < REFILL_MAX && s->n_batch < s->room.items) {
        rc = weir__disk_next(&s->disk);
        if (rc < 0)
            break;
        if (s->disk.next_cost > s->room.cost && !(s->alone && s->n_batch == 0))
            break;
        bool is_recovered = s->disk.next_is_recovered;
        uint64_t cost = s->disk.next_cost;
        rc = weir__disk_take(&s->disk, &s->batch[s->n_batch]);
        if (rc == WEIR_ENOMEM)
            break;
        if (rc == WEIR_OK) {
            s->batch_is_recovered[s->n_batch++] = is_recovered;
            s->room.cost -= cost < s->room.cost ? cost : s->room.cost;
        } else {
            s->disk.records_lost--; /* to be counted with the others */
        }
    }
    return rc;
}

/* Takes in what was read; < 0: no memory, and the rest stays where it is. */
static int take_batch_in(weir_queue *queue, call *c)
{
    spilling *s = queue->spilling;
    for (; s->batch_at < s->n_batch; s->batch_at++) {
        weir__entry entry = s->batch[s->batch_at];
        if (take_in(queue, entry, c) < 0)
            return WEIR_ENOMEM;
        if (s->batch_is_recovered[s->batch_at])
            s->in_cost += entry.cost;
        s->out++;
        s->out_cost += entry.cost;
        s->unspilled++;
    }
    s->batch_at = s->n_batch = 0;
    return WEIR_OK;
}

static void count_lost(weir_queue *queue, uint64_t n)
{
    spilling *s = queue->spilling;
    s->out += n;
    count_drops(queue, n, 0, WEIR_DROP_LOST);
    if (s->in == s->out && s->writing == 0 &&
        s->n_batch == 0) { /* now it is known what they cost */
        count_drops(queue, 0, s->in_cost - s->out_cost, WEIR_DROP_LOST);
        s->out_cost = s->in_cost;
    }
}

static bool has_room_for_next(weir_queue *queue)
{
    spilling *s = queue->spilling;
    weir__load full = held_or_kept(queue);
    return full.items == 0 ||
           weir__fits(queue->bound, full, s->disk.has_next ? s->disk.next_cost : 0);
}

static bool is_low(const weir_queue *queue)
{
    weir__load there = inside(queue);
    return there.items <= queue->bound.items / 2 && there.cost <= queue->bound.cost / 2;
}

/* Whether this thread has to, from now on. */
static bool begin_refill(weir_queue *queue)
{
    spilling *s = queue->spilling;
    bool is_there = on_disk(queue).items > 0 || s->n_batch > 0;
    if (!is_there || s->refilling || !is_low(queue) || !has_room_for_next(queue))
        return false;
    weir__load full = held_or_kept(queue);
    s->refilling = true;
    s->alone = full.items == 0;
    s->room.items = full.items < queue->bound.items ? queue->bound.items - full.items : 0;
    s->room.cost = full.cost < queue->bound.cost ? queue->bound.cost - full.cost : 0;
    s->in_then = s->in;
    return true;
}

/* Goes on until memory is more than half full, or can take no more.  How many; < 0: no memory, and
 * those who wait are told. */
static int refill(weir_queue *queue)
{
    spilling *s = queue->spilling;
    int brought = 0, rc;
    bool again;
    do {
        rc = s->n_batch > 0 ? WEIR_OK : read_batch(s);
        uint64_t lost = weir__disk_lost(&s->disk);
        call c;
        enter(queue, &c);
        uint64_t before = s->unspilled;
        bool was_all = rc == WEIR_EEMPTY;
        if (take_batch_in(queue, &c) < 0)
            rc = WEIR_ENOMEM;
        brought += (int)(s->unspilled - before);
        int64_t missing = was_all && s->n_batch == 0 ? (int64_t)(s->in_then - s->out) : 0;
        lost = missing > (int64_t)lost ? (uint64_t)missing : lost;
        count_lost(queue, lost);
        atomic_fetch_add(&s->freed, 1);
        atomic_store(&s->is_full, false);
        s->refilling = false;
        bool is_starved = rc == WEIR_ENOMEM || rc == WEIR_ENOFD;
        if (is_starved && available(queue) == 0)
            serve_all(queue, &queue->getters, rc, &c);
        again = leave_once(queue, &c);
        if (lost > 0 && s->disk.codec.lost)
            s->disk.codec.lost(lost, s->disk.codec.ctx);
        if (again && is_starved) {
            lock_both(queue);
            s->refilling = again = false;
            unlock_both(queue);
        }
    } while (again);
    return brought > 0 || (rc != WEIR_ENOMEM && rc != WEIR_ENOFD) ? brought : rc;
}

/* No room on disk, as of when so much was freed.  Who frees some counts first and looks then, so one of
 * the two sees the other. */
static void note_full(spilling *s, uint64_t freed_then)
{
    s->full_at = weir_now();
    atomic_store(&s->is_full, true);
    if (atomic_load(&s->freed) != freed_then)
        atomic_store(&s->is_full, false);
}

/* Whether the put of an item of that cost can do without the disk. */
static bool stays_in_memory(weir_queue *queue, uint64_t cost)
{
    return !is_spilling(queue) && fits(queue, cost);
}

/* Whether it is worth trying, for the first in line. */
static bool may_try(weir_queue *queue, uint64_t cost)
{
    const spilling *s = queue->spilling;
    return !atomic_load(&s->is_full) || weir_now() - s->full_at >= DISK_AGAIN ||
           (!queue->logs_first && stays_in_memory(queue, cost));
}

/* What a failed write means: WEIR_EFULL: to wait. */
static int judge(const weir_queue *queue, int rc)
{
    if (rc == WEIR_EFULL || rc == WEIR_ENOSPC)
        return WEIR_EFULL;
    bool is_disk = rc == WEIR_ESYSTEM || rc == WEIR_ENOFD;
    return is_disk && !queue->logs_first ? WEIR_EFULL : rc; /* memory and time will do, too */
}

/* Begins or ends that a put is writing. */
static void count_writer(spilling *s, bool kept, uint64_t cost, int by)
{
    if (kept) {
        s->reserved.items += (size_t)by;
        s->reserved.cost += by > 0 ? cost : -cost;
    } else {
        s->writing += (size_t)by;
    }
}

/* The item is written.  It is too late to find the queue closed. */
static int count_written(weir_queue *queue, weir__entry entry, bool kept, call *c)
{
    spilling *s = queue->spilling;
    if (kept)
        return take_in(queue, entry, c);
    s->in++;
    s->in_cost += entry.cost;
    s->spills++;
    return WEIR_KEPT;
}

/* Entered, and entered when it returns; without the mutexes between.  WEIR_KEPT; WEIR_EFULL: there is no
 * room on disk; or another error. */
static int put_to_disk(weir_queue *queue, weir__entry entry, call *c)
{
    spilling *s = queue->spilling;
    bool kept = stays_in_memory(queue, entry.cost);
    if (kept && !s->disk.is_durable)
        return accept_item(queue, entry, c);
    uint64_t freed_then = atomic_load(&s->freed), seq = 0;
    count_writer(s, kept, entry.cost, 1);
    leave(queue, c);
    void *boxed = kept ? weir__box(entry.item) : NULL;
    int rc = kept && !boxed ? WEIR_ENOMEM : weir__disk_write(&s->disk, &entry, kept, &seq);
    if (rc >= 0 && !kept)
        weir__disk_release(&s->disk, entry.item);
    if (rc >= 0 && kept) {
        weir__box_seal(boxed, seq);
        entry.item = boxed;
    }
    enter(queue, c);
    count_writer(s, kept, entry.cost, -1);
    if (rc >= 0)
        rc = count_written(queue, entry, kept, c);
    else if ((rc = judge(queue, rc)) == WEIR_EFULL)
        note_full(s, freed_then);
    if (rc < 0 && boxed) {
        weir__unbox(boxed, &seq);
        if (seq > 0) { /* written, and then no memory */
            leave(queue, c);
            acknowledge(queue, seq);
            enter(queue, c);
        }
    }
    return rc;
}

/* Lets the first in line try the disk. */
static void invite(weir_queue *queue, call *c)
{
    waiter *w;
    while ((w = (waiter *)queue->putters.head) && !queue->called_putters.head) {
        assert(first_cost(w) <= queue->bound.cost); /* or refuse_too_big() has taken it out */
        if (!may_try(queue, first_cost(w)))
            return;
        if (!is_guest(w)) {
            if (weir__nudge(&w->base.parker))
                c->asleep = &w->base.parker;
            return;
        }
        call_guest(queue, (guest *)w, c);
    }
}

/* Whether others come first. */
static bool is_behind(const weir_queue *queue)
{
    return queue->putters.head || queue->called_putters.head;
}

/* Entered, as the first in line; entered when it returns.  Puts one item; true: it is not in line any
 * more, for *ret_rc. */
static bool try_in_line(weir_queue *queue, putter *p, call *c, int *ret_rc)
{
    weir__waiter *base = &p->waiter.base;
    int rc = put_to_disk(queue, next_entry(p, c->time), c);
    if (rc >= 0)
        p->taken++;
    if (rc == WEIR_EFULL && base->waiting)
        return false;
    *ret_rc = rc;
    if (base->waiting) {
        end_wait(queue, &queue->putters, &p->waiter, rc, c);
        weir__waitq_give_up(&queue->putters, base);
        return true;
    }
    /* Let go meanwhile, because the queue was closed, say. */
    if (rc == WEIR_EFULL)
        *ret_rc = base->result;
    leave(queue, c);
    weir__waiter_join(base);
    enter(queue, c);
    return true;
}

/* Entered: waits for room on disk, or in memory when nothing is on disk; left when it returns. */
static int wait_for_disk(weir_queue *queue, putter *p, weir_time deadline, call *c)
{
    waiter *w = &p->waiter;
    if (w->since == 0)
        w->since = time_of(c);
    weir__waitq_push(&queue->putters, &w->base);
    for (;;) {
        int rc = leave_and_park(queue, &queue->putters, w, deadline, c);
        if (rc == WEIR_OK)
            return w->base.result;
        enter(queue, c);
        if (rc == WEIR__HINTED && w->base.waiting)
            weir__parker_rearm(&w->base.parker);
        bool is_first = queue->putters.head == &w->base && !queue->called_putters.head;
        if (w->base.waiting && rc >= 0) {
            if (!is_first || !may_try(queue, next_cost(p)) || !try_in_line(queue, p, c, &rc))
                continue;
        } else if (w->base.waiting) {
            end_wait(queue, &queue->putters, w, rc, c);
            weir__waitq_give_up(&queue->putters, &w->base);
        } else {
            leave(queue, c);
            weir__waiter_join(&w->base);
            return w->base.result;
        }
        leave(queue, c);
        /* the next item's wait is one of its own, of the same call */
        p->waiter = (waiter){.counted = w->counted};
        return rc;
    }
}

/* Entered: puts the next item of p, to memory if it need not go to disk; left when it returns. */
static int put_spilling(weir_queue *queue, putter *p, weir_time deadline, call *c)
{
    int rc = WEIR_EFULL;
    if (!is_behind(queue) && may_try(queue, next_cost(p)))
        rc = put_to_disk(queue, next_entry(p, c->time), c);
    if (rc == WEIR_EFULL && queue->closed)
        rc = WEIR_ECLOSED;
    if (rc == WEIR_EFULL && deadline > WEIR_POLL)
        return wait_for_disk(queue, p, deadline, c);
    if (rc >= 0)
        p->taken++;
    if (rc == WEIR_EFULL || rc == WEIR_ETOOBIG)
        refuse(queue, rc);
    leave(queue, c);
    return rc;
}

/* Puts what it can of p, and waits for room; WEIR_KEPT or WEIR_DROPPED: and that may not be all. */
static int put_long(weir_queue *queue, putter *p, weir_time deadline, size_t insiders)
{
    call c;
    enter(queue, &c);
    int rc = offer_rest(queue, p, &c);
    if (rc == MUST_WAIT)
        return wait_for_room(queue, p, deadline, insiders, &c);
    if (rc == TO_DISK)
        return put_spilling(queue, p, deadline, &c);
    leave(queue, &c);
    return rc;
}

/* The same until all of p is taken. */
static int put_rest(weir_queue *queue, putter *p, weir_time deadline, size_t insiders)
{
    int rc = WEIR_KEPT;
    while (rc >= 0 && p->taken < p->n)
        rc = put_long(queue, p, deadline, insiders);
    return rc;
}

/* It did not fit: whether there is room again soon.  *since: when the wait began; 0: not yet. */
static bool room_comes_soon(weir_queue *queue, weir_time deadline, uint64_t released_then,
                            weir_time *since)
{
    if (deadline <= WEIR_POLL || queue->overflow.when_full != WEIR__WAIT)
        return false;
    if (*since == 0)
        *since = weir_now();
    return weir__spin_while(&queue->put_spin, released(queue), released_then, deadline);
}

/* Puts the entry, or finds that it takes the long way to do or refuse that. */
SHORT bool put_now(weir_queue *queue, weir__entry entry, weir_time deadline, weir_time *since)
{
    uint64_t released_then = 0;
    int rc;
    do
        rc = put_short(queue, entry, &released_then);
    while (rc == MUST_WAIT && room_comes_soon(queue, deadline, released_then, since));
    return rc == WEIR_KEPT;
}

int weir_queue_put(weir_queue *queue, void *item, uint64_t cost, weir_time deadline)
{
    weir__entry entry = {item, cost, {time_if_needed(queue)}};
    weir_time since = 0;
    if (put_now(queue, entry, deadline, &since))
        return WEIR_KEPT;
    putter p = {.waiter.since = since, .items = &item, .costs = &cost, .n = 1};
    return put_rest(queue, &p, deadline, 0);
}

int weir__queue_put_task(weir_queue *queue, void (*fn)(void *), void *arg, weir_time deadline,
                         size_t insiders)
{
    weir_time since = 0;
    if (put_now(queue, (weir__entry){.item = arg, .fn = fn}, deadline, &since))
        return WEIR_KEPT;
    putter p = {.waiter.since = since, .items = &arg, .fn = fn, .n = 1};
    return put_rest(queue, &p, deadline, insiders);
}

int64_t weir_queue_put_many(weir_queue *queue, void *const *items, const uint64_t *costs, size_t n,
                            weir_time deadline)
{
    putter p = {.items = items, .costs = costs, .n = n};
    put_many_short(queue, &p);
    int rc = put_rest(queue, &p, deadline, 0);
    return p.taken > 0 ? (int64_t)p.taken : rc;
}

static int overflow(weir_queue *queue, weir__entry entry, call *c)
{
    if (queue->closed)
        return WEIR_ECLOSED;
    if (entry.cost > queue->bound.cost)
        return refuse(queue, WEIR_ETOOBIG);
    weir__fate fate = queue->overflow.when_full;
    if (fate == WEIR__DROP || (fate == WEIR__EVICT && depth(queue) == 0))
        return accept_and_drop(queue, entry, WEIR_DROP_NEWEST, c);
    if (fate != WEIR__EVICT)
        return refuse(queue, WEIR_EFULL);
    drop_head(queue, WEIR_DROP_OLDEST, c);
    return WEIR_EVICTED;
}

int weir_queue_overflow(weir_queue *queue, void *item, uint64_t cost)
{
    call c;
    enter(queue, &c);
    int rc = overflow(queue, (weir__entry){.item = item, .cost = cost}, &c);
    leave(queue, &c);
    return rc;
}

/* ---- getting -------------------------------------------------------------------------------- */

/* Takes from inside up to g->max, dropping what is too old, as long as the call can owe drops. */
static void take_what_is_there(weir_queue *queue, getter *g, call *c)
{
    while (available(queue) > 0 && g->got < g->max) {
        if (is_expired(queue, weir__fifo_peek(&queue->get.head), c->time)) {
            if (c->drop_count == DROPS_MAX)
                return;
            drop_head(queue, WEIR_DROP_EXPIRED, c);
        } else {
            give(g, take_to_deliver(queue, c->time));
        }
        if (depth(queue) == 0 && g->got == 0)
            admit(queue, c); /* all were too old: who waits behind them brings a fresh one */
    }
}

/* Under the get mutex: what the getter took earlier is done. */
static void finish(weir_queue *queue, getter *g)
{
    release(queue, g->finished, 0);
    g->finished = 0;
}

/* Gets until g has enough.  An error tells why it waits no longer. */
static int get_long(weir_queue *queue, getter *g, weir_time deadline)
{
    call c;
    for (;;) {
        enter(queue, &c);
        finish(queue, g);
        if (!queue->getters.head) /* else a guest waits there for more than is inside */
            take_what_is_there(queue, g, &c);
        if (g->got >= g->enough)
            break;
        if (owes_drops(&c)) {
            leave(queue, &c); /* report before waiting or giving up */
            continue;
        }
        bool is_over = queue->closed && !is_coming(queue);
        if (is_over || deadline <= WEIR_POLL) {
            int brought = leave(queue, &c);
            if (brought > 0)
                continue;
            return brought < 0 ? brought : is_over ? WEIR_ECLOSED : WEIR_EEMPTY;
        }
        g->waited = true;
        return wait_in_line(queue, &queue->getters, &g->waiter, deadline, &c);
    }
    leave(queue, &c);
    return WEIR_OK;
}

/* Nothing was there: whether something comes soon.  *since: when the wait began; 0: not yet. */
static bool item_comes_soon(weir_queue *queue, weir_time deadline, uint64_t pushed_then,
                            weir_time *since)
{
    if (deadline <= WEIR_POLL)
        return false;
    if (*since == 0)
        *since = weir_now();
    return weir__spin_while(&queue->get_spin, &queue->put.pushed, pushed_then, deadline);
}

/* WEIR_OK, WEIR_EEMPTY, or LONG_WAY: finds that it takes that. */
SHORT int get_now(weir_queue *queue, size_t *finished, weir__entry *ret_entry, weir_time deadline,
                  weir_time *since)
{
    uint64_t pushed_then = 0;
    int rc;
    do
        rc = get_short(queue, finished, ret_entry, &pushed_then);
    while (rc == MUST_WAIT && item_comes_soon(queue, deadline, pushed_then, since));
    return rc != MUST_WAIT ? rc : deadline > WEIR_POLL ? LONG_WAY : WEIR_EEMPTY;
}

/* What a get has got is the caller's: n items, out of their boxes if they are in some.  (Not inlined,
 * because most queues have no boxes.) */
__attribute__((noinline)) static void hand_over(weir_queue *queue, void **items, size_t n)
{
    for (size_t i = 0; queue->logs_first && i < n; i++) {
        uint64_t seq;
        items[i] = weir__unbox(items[i], &seq);
        acknowledge(queue, seq);
    }
}

SHORT int get_one(weir_queue *queue, void **ret_item, uint64_t *ret_cost, weir_time deadline)
{
    weir__entry entry;
    size_t finished = 0;
    weir_time since = 0;
    int rc = get_now(queue, &finished, &entry, deadline, &since);
    if (rc == LONG_WAY) {
        getter g = {.items = ret_item, .costs = ret_cost, .max = 1, .enough = 1};
        g.waiter.since = since;
        return get_long(queue, &g, deadline);
    }
    if (rc == WEIR_OK) {
        *ret_item = entry.item;
        if (ret_cost)
            *ret_cost = entry.cost;
    }
    return rc;
}

int weir_queue_get_cost(weir_queue *queue, void **ret_item, uint64_t *ret_cost, weir_time deadline)
{
    int rc = get_one(queue, ret_item, ret_cost, deadline);
    if (rc == WEIR_OK && queue->logs_first)
        hand_over(queue, ret_item, 1);
    return rc;
}

int weir_queue_get_seq(weir_queue *queue, void **ret_item, uint64_t *ret_cost, uint64_t *ret_seq,
                       weir_time deadline)
{
    int rc = get_one(queue, ret_item, ret_cost, deadline);
    if (rc == WEIR_OK) {
        *ret_seq = 0;
        if (queue->logs_first)
            *ret_item = weir__unbox(*ret_item, ret_seq);
    }
    return rc;
}

void weir_queue_ack(weir_queue *queue, uint64_t seq)
{
    if (seq > 0 && queue->logs_first)
        acknowledge(queue, seq);
}

int weir_queue_get(weir_queue *queue, void **ret_item, weir_time deadline)
{
    return weir_queue_get_cost(queue, ret_item, NULL, deadline);
}

int weir__queue_next_task(weir_queue *queue, size_t finished, weir__entry *ret_task)
{
    weir_time since = 0;
    int rc = get_now(queue, &finished, ret_task, WEIR_FOREVER, &since);
    if (rc != LONG_WAY)
        return rc;
    getter g = {.entry = ret_task, .max = 1, .enough = 1, .finished = finished};
    g.waiter.since = since;
    return get_long(queue, &g, WEIR_FOREVER);
}

/* Gets until g has enough. */
static int get_many(weir_queue *queue, getter *g, weir_time deadline)
{
    get_many_short(queue, g);
    return g->got >= g->enough ? WEIR_OK : get_long(queue, g, deadline);
}

int64_t weir_queue_get_many(weir_queue *queue, void **ret_items, uint64_t *ret_costs, size_t max,
                            weir_time deadline, int64_t linger_ns)
{
    getter g = {.items = ret_items, .costs = ret_costs, .max = max, .enough = 1};
    if (max == 0)
        return WEIR_EINVAL;
    int rc = get_many(queue, &g, deadline);
    if (rc != WEIR_OK)
        return rc;
    if (g.got < max && (g.waited || linger_ns > 0)) {
        g.enough = max;
        g.waiter.since = 0;                         /* a wait of its own */
        get_many(queue, &g, weir_after(linger_ns)); /* how the lingering ended does not matter */
    }
    hand_over(queue, ret_items, g.got);
    return (int64_t)g.got;
}

int weir_queue_done(weir_queue *queue, size_t n, uint64_t cost)
{
    call c;
    enter(queue, &c);
    weir__load flying = in_flight(queue);
    bool known =
        n <= flying.items && cost <= flying.cost && (n < flying.items || cost == flying.cost);
    if (known)
        release(queue, n, cost);
    leave(queue, &c);
    return known ? WEIR_OK : WEIR_EINVAL;
}

/* ---- guests --------------------------------------------------------------------------------- */

static guest *guest_of(weir_pending *pending)
{
    return (guest *)(void *)pending->opaque;
}

static void notify(weir__waiter *base)
{
    weir_pending *pending = (weir_pending *)(void *)((char *)base - offsetof(weir_pending, opaque));
    pending->ready(pending, base->result);
}

static weir__waitq *line_of(weir_queue *queue, const guest *g)
{
    return g->wanted ? &queue->getters : &queue->putters;
}

static bool is_in_line(const guest *g)
{
    return g->waiter.base.waiting;
}

static int come(weir_queue *queue, guest *g, call *c)
{
    bool is_worth_it = g->wanted && available(queue) > 0; /* then it is called at once */
    if (queue->closed && !is_worth_it && !(g->wanted && is_coming(queue)))
        return WEIR_ECLOSED;
    g->waiter.since = time_of(c);
    weir__waitq_push_async(line_of(queue, g), &g->waiter.base, notify);
    return WEIR_WAITING;
}

/* Its turn is over, and it waits for another one, before all who were never called. */
static void come_again(weir_queue *queue, guest *g, call *c)
{
    g->waiter.since = time_of(c);
    weir__waitq_push_first(line_of(queue, g), &g->waiter.base, notify);
}

int weir_queue_wait_room(weir_queue *queue, uint64_t cost, weir_pending *pending)
{
    guest *g = guest_of(pending);
    if (!pending->ready || !(queue->overflow.when_full == WEIR__WAIT || queue->spilling))
        return WEIR_EINVAL;
    call c;
    enter(queue, &c);
    int rc = WEIR_EINVAL;
    if (cost > queue->bound.cost) {
        rc = refuse(queue, WEIR_ETOOBIG);
    } else if (!is_its_turn(g) && !is_in_line(g)) {
        *g = (guest){.cost = cost};
        rc = come(queue, g, &c);
    }
    leave(queue, &c);
    return rc;
}

static int put_in_turn(weir_queue *queue, guest *g, void *item, call *c)
{
    end_turn(queue, g);
    if (queue->closed)
        return WEIR_ECLOSED;
    if (g->cost > queue->bound.cost)
        return refuse(queue, WEIR_ETOOBIG);
    weir__entry entry = {item, g->cost, {c->time}};
    if (queue->spilling) {
        int rc = put_to_disk(queue, entry, c);
        if (rc != WEIR_EFULL)
            return rc;
        if (queue->closed)
            return WEIR_ECLOSED;
    } else if (fits(queue, g->cost)) {
        return accept_item(queue, entry, c);
    }
    come_again(queue, g, c);
    return WEIR_EFULL;
}

int weir_queue_put_waited(weir_queue *queue, void *item, weir_pending *pending)
{
    guest *g = guest_of(pending);
    call c;
    enter(queue, &c);
    int rc = is_its_turn(g) && !g->wanted ? put_in_turn(queue, g, item, &c) : WEIR_EINVAL;
    leave(queue, &c);
    return rc;
}

/* Of one who is in line, or called. */
static int change_wanted(weir_queue *queue, guest *g, size_t n, call *c)
{
    if (g->called && n <= g->kept)
        return WEIR_OK;
    bool had_its_turn = is_its_turn(g);
    end_turn(queue, g);
    g->wanted = n;
    if (had_its_turn)
        come_again(queue, g, c);
    return WEIR_WAITING;
}

int weir_queue_wait_items(weir_queue *queue, size_t n, weir_pending *pending)
{
    guest *g = guest_of(pending);
    if (!pending->ready || n == 0)
        return WEIR_EINVAL;
    call c;
    enter(queue, &c);
    int rc = WEIR_EINVAL;
    if (!is_its_turn(g) && !is_in_line(g)) {
        *g = (guest){.wanted = n};
        rc = come(queue, g, &c);
    } else if (g->wanted) {
        rc = change_wanted(queue, g, n, &c);
    }
    leave(queue, &c);
    return rc;
}

/* What was kept, and what nobody waits for: up to into->max.  One who is late has lost what was kept; if there is
 * something nevertheless, who waits wants more than that, and came later. */
static void take_in_turn(weir_queue *queue, guest *g, getter *into, call *c)
{
    size_t most = g->kept ? g->kept : 1;
    end_turn(queue, g);
    if (queue->getters.head && into->max > most)
        into->max = most;
    take_what_is_there(queue, into, c);
}

int64_t weir_queue_get_waited(weir_queue *queue, void **ret_items, uint64_t *ret_costs, size_t max,
                              weir_pending *pending)
{
    guest *g = guest_of(pending);
    getter into = {.items = ret_items, .costs = ret_costs, .max = max};
    call c;
    enter(queue, &c);
    int64_t rc = WEIR_EINVAL;
    while (is_its_turn(g) && g->wanted && max > 0) {
        take_in_turn(queue, g, &into, &c);
        if (into.got > 0) {
            rc = (int64_t)into.got;
        } else if (available(queue) > 0) { /* the call owes too many drops: report them first */
            begin_turn(queue, g, &c);
            leave(queue, &c);
            enter(queue, &c);
        } else if (queue->closed && !is_coming(queue)) {
            rc = WEIR_ECLOSED;
        } else { /* what was kept has been dropped */
            come_again(queue, g, &c);
            rc = WEIR_EEMPTY;
        }
    }
    leave(queue, &c);
    hand_over(queue, ret_items, into.got);
    return rc;
}

bool weir_queue_cancel(weir_queue *queue, weir_pending *pending)
{
    guest *g = guest_of(pending);
    call c;
    enter(queue, &c);
    bool waited = is_in_line(g);
    if (waited) {
        end_wait(queue, line_of(queue, g), &g->waiter, WEIR_EINTR, &c);
        weir__waitq_give_up(line_of(queue, g), &g->waiter.base);
    } else {
        end_turn(queue, g);
    }
    leave(queue, &c);
    return waited;
}

/* ---- closing and emptying ------------------------------------------------------------------- */

void weir_queue_close(weir_queue *queue)
{
    call c;
    enter(queue, &c);
    queue->closed = queue->has_news = true;
    serve_all(queue, &queue->putters, WEIR_ECLOSED, &c);
    serve_getters(queue, &c); /* a guest that waits for more than there will be */
    if (!is_coming(queue))
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

/* What is inside goes, and what comes back from disk, too, until as much is gone as there was. */
size_t weir_queue_discard(weir_queue *queue)
{
    size_t gone = 0, all = 0;
    int brought;
    do {
        call c;
        enter(queue, &c);
        size_t n = depth(queue);
        if (all == 0)
            all = n + on_disk(queue).items;
        drop_heads(queue, n, WEIR_DROP_DISCARDED, &c);
        gone += n;
        brought = leave(queue, &c);
    } while (brought > 0 && gone < all);
    return gone;
}

/* ---- bounds --------------------------------------------------------------------------------- */

static weir__load make_bound(size_t capacity, uint64_t max_cost)
{
    return (weir__load){capacity, max_cost ? max_cost : UINT64_MAX};
}

static void set_bound(weir_queue *queue, size_t capacity, uint64_t max_cost)
{
    queue->capacity = capacity;
    queue->max_cost = max_cost;
    queue->bound = make_bound(capacity, max_cost);
    queue->has_news = true;
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
    call c;
    enter(queue, &c);
    weir__load there = inside(queue), flying = in_flight(queue), spilled = on_disk(queue);
    const spilling *s = queue->spilling;
    const uint64_t *dropped = queue->dropped, *dropped_cost = queue->dropped_cost;
    weir_queue_snapshot now = {
        .size = sizeof(now),
        .capacity = queue->capacity,
        .max_cost = queue->max_cost,
        .depth = there.items,
        .cost = there.cost,
        .spilled = spilled.items,
        .spilled_cost = spilled.cost,
        .in_flight = flying.items,
        .in_flight_cost = flying.cost,
        .accepted = own(&queue->put.pushed) + dropped_outside(dropped) + spilled.items,
        .accepted_cost = queue->put.pushed_cost + dropped_outside(dropped_cost) + spilled.cost,
        .delivered = own(&queue->get.popped) - dropped_from_inside(dropped),
        .delivered_cost = own(&queue->get.popped_cost) - dropped_from_inside(dropped_cost),
        .refused = queue->refused,
        .put_blocked_ns = queue->put_blocked_ns,
        .get_blocked_ns = queue->get_blocked_ns,
        .putters_waiting = putters_waiting(queue),
        .getters_waiting = getters_waiting(queue),
        .peak_depth = queue->put.peak_depth,
        .spills = s ? s->spills : 0,
        .unspilled = s ? s->unspilled : 0,
        .recovered = s ? s->disk.recovered : 0,
        .closed = queue->closed,
        .above_high = queue->marks.above,
    };
    memcpy(now.dropped, dropped, sizeof(now.dropped));
    memcpy(now.dropped_cost, dropped_cost, sizeof(now.dropped_cost));
    leave(queue, &c);
    *ret_snapshot = now;
    return WEIR_OK;
}

size_t weir_queue_depth(weir_queue *queue)
{
    weir__lock(&queue->get.mutex);
    bool alone = !queue->getters.head && !queue->putters.head && !queue->spilling;
    size_t n = seen(&queue->put.pushed) - own(&queue->get.popped);
    weir__unlock(&queue->get.mutex);
    if (alone)
        return n;
    call c; /* not before the lines are served */
    enter(queue, &c);
    n = depth(queue) + on_disk(queue).items;
    leave(queue, &c);
    return n;
}

static int level_fd(weir_queue *queue, weir__level *l)
{
    call c;
    enter(queue, &c);
    int rc = weir__level_open(l);
    leave(queue, &c); /* sets it */
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
        [WEIR_OVERFLOW_SAMPLE] = WEIR__DROP,      [WEIR_OVERFLOW_SPILL] = WEIR__SPILL,
    };
    bool spills = opts->overflow == WEIR_OVERFLOW_SPILL;
    bool samples = opts->overflow == WEIR_OVERFLOW_SAMPLE;
    uint32_t keep_one_of = opts->sample_keep_one_of ? opts->sample_keep_one_of : SAMPLE_DEFAULT;
    if (opts->capacity == 0 || opts->max_age_ns < 0 || !opts->on_drop ||
        (unsigned)opts->overflow > WEIR_OVERFLOW_SPILL || keep_one_of < 2 ||
        spills != (opts->spill && opts->codec))
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

/* WEIR_OK also where it does not spill. */
static int begin_spilling(weir_queue *queue, const weir_queue_opts *opts)
{
    if (opts->overflow != WEIR_OVERFLOW_SPILL)
        return WEIR_OK;
    spilling *s = weir__calloc(1, sizeof *s);
    if (!s)
        return WEIR_ENOMEM;
    queue->spilling = s;
    if (!weir__disk_init(&s->disk, opts->spill, opts->codec))
        return WEIR_EINVAL;
    s->in = s->disk.recovered;
    queue->logs_first = s->disk.is_durable;
    return WEIR_OK;
}

static void end_spilling(weir_queue *queue)
{
    spilling *s = queue->spilling;
    if (!s)
        return;
    weir__disk_fini(&s->disk);
    weir__free(s);
}

static void begin_telling(weir_queue *queue, weir_stats_kind kind, const char *name)
{
    weir__record *record = queue->record = weir__record_open(kind, name);
    queue->put.told = record ? &record->number[WEIR_STATS_ACCEPTED] : queue->put.untold;
    queue->get.told = record ? &record->number[WEIR_STATS_DELIVERED] : queue->get.untold;
    queue->times_items = record && !queue->on_entry_drop;
    restart_sampling(queue);
    tell_all(queue);
}

weir__record *weir__queue_record(weir_queue *queue)
{
    return queue->record;
}

int weir__queue_create(weir_queue **ret_queue, const weir_queue_opts *opts,
                       weir__entry_drop_fn *on_entry_drop, weir_stats_kind kind)
{
    if (opts->size != sizeof(*opts))
        return WEIR_EINVAL; /* there is one version so far */
    weir_queue *queue = weir__calloc_line(sizeof(*queue));
    if (!queue)
        return WEIR_ENOMEM;
    int rc = WEIR_EINVAL;
    if (!read_options(queue, opts))
        goto fail;
    rc = begin_spilling(queue, opts);
    if (rc < 0)
        goto fail;
    rc = WEIR_ENOMEM;
    if (!weir__fifo_init(&queue->put.tail, &queue->get.head))
        goto fail;
    weir__mutex_init(&queue->put.mutex);
    weir__mutex_init(&queue->get.mutex);
    queue->on_entry_drop = on_entry_drop;
    queue->item = queue->room = WEIR__LEVEL_INIT;
    begin_telling(queue, kind, opts->name);
    set_short_ways(queue);
    *ret_queue = queue;
    return WEIR_OK;

fail:
    end_spilling(queue);
    weir__free(queue);
    return rc;
}

int weir_queue_create(weir_queue **ret_queue, const weir_queue_opts *opts)
{
    return weir__queue_create(ret_queue, opts, NULL, WEIR_STATS_QUEUE);
}

/* Frees what is in memory, and is on disk, too. */
static void release_all(weir_queue *queue)
{
    spilling *s = queue->spilling;
    uint64_t seq;
    while (depth(queue) > 0)
        weir__disk_release(&s->disk, weir__unbox(take_out(&queue->get).item, &seq));
    for (; s->batch_at < s->n_batch; s->batch_at++)
        weir__disk_release(&s->disk, weir__unbox(s->batch[s->batch_at].item, &seq));
}

void weir_queue_destroy(weir_queue *queue)
{
    if (!queue)
        return;
    weir_queue_close(queue); /* a drop or watermark callback cannot put anything back */
    if (queue->logs_first)
        release_all(queue);
    else
        weir_queue_discard(queue);
    end_spilling(queue);
    weir__level_close(&queue->item);
    weir__level_close(&queue->room);
    weir__fifo_fini(&queue->put.tail, &queue->get.head);
    weir__mutex_fini(&queue->put.mutex);
    weir__mutex_fini(&queue->get.mutex);
    weir__record_close(queue->record);
    weir__free(queue);
}

const char *weir_drop_reason_name(int reason)
{
    static const char *const names[WEIR_DROP_REASONS] = {
        [WEIR_DROP_NEWEST] = "newest",       [WEIR_DROP_OLDEST] = "oldest",
        [WEIR_DROP_SAMPLED] = "sampled",     [WEIR_DROP_EXPIRED] = "expired",
        [WEIR_DROP_DISCARDED] = "discarded", [WEIR_DROP_LOST] = "lost",
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
