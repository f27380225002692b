/* watermark.c - see <weir/watermark.h>.
 *
 * What came in and what went out are two counters that only grow, so that adders and subtracters do
 * not meet on one cache line, and the law holds by construction: the level is their difference.
 *
 * Settling:   `paused` changes under the mutex only, in settle(), which brings it in line with the
 *             level.  Who changes a counter or a mark looks afterwards at what the other side of the
 *             decision needs, and settles if there is something to decide.
 * Order:      those writes and looks are sequentially consistent, so all of them have one order.
 *             Take the last change of a counter or a mark that matters: its author looks after it,
 *             sees all the others, and so either goes to settle or has seen in `paused` that there is
 *             nothing to do.  If that is being changed by who settles, then he looks at the counters
 *             once more after the change: he comes later in the order, and sees this one too.
 * Wake-ups:   who waits joins the line under the mutex, where `paused` stands still; who clears it
 *             serves the line before he lets the mutex go.  So nobody joins a line that was served,
 *             and none is lost.
 */
#include <weir/watermark.h>

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>

#include "base/alloc.h"
#include "base/bell.h"
#include "base/mutex.h"
#include "flow/record.h"
#include "flow/waitq.h"
#include "model/overflow.h"

typedef struct waiter {
    weir__waiter base; /* first: what the waitq holds */
    weir_time since;
    weir_pending *pending; /* NULL: a thread */
} waiter;

static_assert(sizeof(waiter) <= sizeof(((weir_pending *)NULL)->opaque), "fits a weir_pending");

struct weir_watermark {
    /* changed by adders */
    _Alignas(WEIR__LINE) _Atomic uint64_t in;
    _Atomic uint64_t peak;

    /* changed by subtracters; never more than `in` */
    _Alignas(WEIR__LINE) _Atomic uint64_t out;

    /* read by both; changed under the mutex */
    _Alignas(WEIR__LINE) _Atomic uint64_t high;
    _Atomic uint64_t low;
    _Atomic bool paused, closed;
    weir_watermark_fn *on_change; /* set at creation */
    void *change_ctx;

    _Alignas(WEIR__LINE) weir__mutex mutex; /* guards what follows */
    weir__waitq drainers;                   /* empty unless paused and open */
    weir__level open;                       /* readable while drain would not wait */
    bool told, telling;                     /* told == paused, or a thread is telling */
    weir_time paused_since;
    uint64_t pauses, paused_ns, waits, blocked_ns;
    weir__record *record; /* what other processes see; NULL: nothing; set at creation */
};

/* Where the order does not matter: hints, and what the mutex guards. */
#define GET(word) atomic_load_explicit(&(word), memory_order_relaxed)

/* ---- the level ------------------------------------------------------------------------------ */

typedef struct counts {
    uint64_t in, out;
} counts;

/* Of one instant: nothing went out while `in` was read. */
static counts look(const weir_watermark *mark)
{
    counts now = {.out = atomic_load(&mark->out)};
    for (uint64_t before;; now.out = before) {
        now.in = atomic_load(&mark->in);
        before = atomic_load(&mark->out);
        if (before == now.out)
            return now;
    }
}

static uint64_t level_of(const weir_watermark *mark)
{
    counts now = look(mark);
    return now.in - now.out;
}

/* ---- under the mutex ------------------------------------------------------------------------ */

/* What a call owes once the mutex is free. */
typedef struct call {
    weir__wakeups wakeups;
    bool tell, above; /* this thread tells on_change */
} call;

static void end_wait(weir_watermark *mark, const waiter *w, weir_time now)
{
    mark->blocked_ns += now > w->since ? (uint64_t)(now - w->since) : 0;
    mark->waits++;
}

static void release_all(weir_watermark *mark, int result, weir_time now, call *c)
{
    for (waiter *w; (w = (waiter *)mark->drainers.head);) {
        end_wait(mark, w, now);
        weir__waitq_serve(&mark->drainers, &c->wakeups, result);
    }
}

/* The descriptor says "paused" first and "not paused" last: who adds by it would else go on for as
 * long as this thread has lost its CPU in between. */
static void change(weir_watermark *mark, bool paused, call *c)
{
    weir_time now = weir_now();
    if (paused) {
        weir__level_set(&mark->open, GET(mark->closed));
        atomic_store(&mark->paused, true);
        mark->pauses++;
        mark->paused_since = now;
    } else {
        atomic_store(&mark->paused, false);
        weir__level_set(&mark->open, true);
        mark->paused_ns += (uint64_t)(now - mark->paused_since);
        release_all(mark, WEIR_OK, now, c);
    }
}

/* For other processes: what changes here alone.  (In and out are counted there by who changes them.) */
static void tell_state(weir_watermark *mark)
{
    weir__record *record = mark->record;
    weir__tell(record, WEIR_STATS_CAPACITY, GET(mark->high));
    weir__tell(record, WEIR_STATS_LOW, GET(mark->low));
    weir__tell(record, WEIR_STATS_ABOVE_HIGH, GET(mark->paused));
    weir__tell(record, WEIR_STATS_PAUSES, mark->pauses);
    weir__tell_line(record, 0, mark->drainers.count);
    weir__tell(record, WEIR_STATS_PUT_WAITS, mark->waits);
    weir__tell(record, WEIR_STATS_CLOSED, GET(mark->closed));
}

static void unlock(weir_watermark *mark)
{
    tell_state(mark);
    weir__unlock(&mark->mutex);
}

/* Brings everything that follows from the level up to date.  After a change it looks again: see
 * Order above. */
static void settle(weir_watermark *mark, call *c)
{
    for (bool paused = GET(mark->paused), next;; paused = next) {
        next = weir__pauses(paused, level_of(mark), GET(mark->high), GET(mark->low));
        if (next == paused)
            break;
        change(mark, next, c);
    }
    if (mark->on_change && mark->told != GET(mark->paused) && !mark->telling) {
        mark->telling = c->tell = true;
        c->above = GET(mark->paused);
    }
    assert(!mark->drainers.head || (GET(mark->paused) && !GET(mark->closed)));
}

/* Tells the state until it is the one that holds.  A change meanwhile is not told by who makes it, so
 * calls come one at a time. */
static void tell(weir_watermark *mark, call *c)
{
    for (bool more = true; more;) {
        mark->on_change(c->above, mark->change_ctx);
        weir__lock(&mark->mutex);
        mark->told = c->above;
        c->above = GET(mark->paused);
        more = mark->telling = c->above != mark->told;
        weir__unlock(&mark->mutex);
    }
}

static void enter(weir_watermark *mark, call *c)
{
    *c = (call){0};
    weir__lock(&mark->mutex);
}

static void leave(weir_watermark *mark, call *c)
{
    settle(mark, c);
    unlock(mark);
    weir__wake_all(&c->wakeups);
    if (c->tell)
        tell(mark, c);
}

/* ---- counting ------------------------------------------------------------------------------- */

static int decide(weir_watermark *mark)
{
    call c;
    enter(mark, &c);
    leave(mark, &c);
    return GET(mark->paused) ? WEIR_PAUSED : WEIR_OK;
}

/* Mostly a load: levels come back to where they were. */
static void note_peak(weir_watermark *mark, uint64_t level)
{
    if (weir__raise(&mark->peak, level) && WEIR__TELLS && mark->record)
        weir__raise(&mark->record->number[WEIR_STATS_PEAK_DEPTH], level);
}

int weir_watermark_add(weir_watermark *mark, uint64_t n)
{
    if (n >= WEIR_WATERMARK_END)
        return WEIR_EINVAL;
    if (GET(mark->closed))
        return WEIR_ECLOSED;
    uint64_t in = GET(mark->in);
    do { /* signed: `in` may be older than `out`, and the exchange fails then */
        if ((int64_t)(in + n - GET(mark->out)) >= (int64_t)WEIR_WATERMARK_END)
            return WEIR_EINVAL;
        /* seq_cst: before the looks below, see Order; and releases: who sees this in `in` sees what
         * was done before the call */
    } while (!atomic_compare_exchange_weak_explicit(&mark->in, &in, in + n, memory_order_seq_cst,
                                                    memory_order_relaxed));
    weir__tell_together(mark->record, WEIR_STATS_ACCEPTED, n);
    int64_t level = (int64_t)(in + n - atomic_load(&mark->out)); /* or less: others may be quick */
    if (level < 0)
        level = 0;
    note_peak(mark, (uint64_t)level);
    bool paused = atomic_load(&mark->paused);
    if (!paused && weir__pauses(false, (uint64_t)level, atomic_load(&mark->high), 0))
        return decide(mark);
    return paused ? WEIR_PAUSED : WEIR_OK;
}

int weir_watermark_sub(weir_watermark *mark, uint64_t n)
{
    /* acquire, here and in the exchange: pairs with the exchange of who went before; what he saw in
     * `in` is seen below, so out <= in holds there */
    uint64_t out = atomic_load_explicit(&mark->out, memory_order_acquire);
    do {
        if (n > GET(mark->in) - out)
            return WEIR_EINVAL;
        /* seq_cst: before the looks below, see Order */
    } while (!atomic_compare_exchange_weak_explicit(&mark->out, &out, out + n, memory_order_seq_cst,
                                                    memory_order_acquire));
    weir__tell_together(mark->record, WEIR_STATS_DELIVERED, n);
    if (!atomic_load(&mark->paused))
        return WEIR_OK;
    uint64_t level = atomic_load(&mark->in) - (out + n); /* or more: others may be quick */
    if (!weir__pauses(true, level, 0, atomic_load(&mark->low)))
        return decide(mark);
    return WEIR_PAUSED;
}

bool weir_watermark_is_paused(const weir_watermark *mark)
{
    /* acquire: pairs with the store in change; who goes on sees what made it go on */
    return atomic_load_explicit(&mark->paused, memory_order_acquire);
}

uint64_t weir_watermark_level(const weir_watermark *mark)
{
    return level_of(mark);
}

/* ---- waiting -------------------------------------------------------------------------------- */

/* What drain says without waiting; WEIR_WAITING: it would have to. */
static int drain_now(const weir_watermark *mark)
{
    if (atomic_load_explicit(&mark->closed, memory_order_acquire))
        return WEIR_ECLOSED;
    return weir_watermark_is_paused(mark) ? WEIR_WAITING : WEIR_OK;
}

/* WEIR_WAITING, or what there is nothing to wait for. */
static int join(weir_watermark *mark, waiter *w, void (*notify)(weir__waiter *))
{
    w->since = weir_now();
    weir__lock(&mark->mutex);
    int rc = drain_now(mark);
    if (rc == WEIR_WAITING)
        weir__waitq_push_async(&mark->drainers, &w->base, notify);
    unlock(mark);
    return rc;
}

/* false: was served already. */
static bool give_up(weir_watermark *mark, waiter *w)
{
    weir_time now = weir_now();
    weir__lock(&mark->mutex);
    bool left = weir__waitq_give_up(&mark->drainers, &w->base);
    if (left)
        end_wait(mark, w, now);
    unlock(mark);
    return left;
}

int weir_watermark_drain(weir_watermark *mark, weir_time deadline)
{
    int rc = drain_now(mark);
    if (rc != WEIR_WAITING)
        return rc;
    if (deadline <= WEIR_POLL)
        return WEIR_ETIMEDOUT;
    waiter w = {0};
    rc = join(mark, &w, NULL);
    if (rc != WEIR_WAITING)
        return rc;
    rc = weir__waiter_park(&w.base, deadline);
    if (rc != WEIR_OK) {
        if (give_up(mark, &w))
            return rc;
        weir__waiter_join(&w.base);
    }
    return w.base.result;
}

static void notify(weir__waiter *base)
{
    weir_pending *pending = ((waiter *)base)->pending;
    pending->ready(pending, base->result);
}

int weir_watermark_drain_async(weir_watermark *mark, weir_pending *pending)
{
    int rc = drain_now(mark);
    if (rc != WEIR_WAITING)
        return rc;
    waiter *w = (waiter *)(void *)pending->opaque;
    *w = (waiter){.pending = pending};
    return join(mark, w, notify);
}

bool weir_watermark_cancel(weir_watermark *mark, weir_pending *pending)
{
    return give_up(mark, (waiter *)(void *)pending->opaque);
}

int weir_watermark_fd(weir_watermark *mark)
{
    call c;
    enter(mark, &c);
    int rc = weir__level_open(&mark->open);
    weir__level_set(&mark->open, !GET(mark->paused) || GET(mark->closed));
    leave(mark, &c);
    return rc < 0 ? rc : mark->open.fd;
}

void weir_watermark_close(weir_watermark *mark)
{
    call c;
    enter(mark, &c);
    atomic_store_explicit(&mark->closed, true, memory_order_release);
    weir__level_set(&mark->open, true);
    release_all(mark, WEIR_ECLOSED, weir_now(), &c);
    leave(mark, &c);
}

/* ---- marks ---------------------------------------------------------------------------------- */

/* false: out of range. */
static bool read_marks(uint64_t high, uint64_t *low)
{
    if (*low == 0)
        *low = high / 2;
    else if (*low == WEIR_WATERMARK_EMPTY)
        *low = 0;
    return high < WEIR_WATERMARK_END && *low < high;
}

int weir_watermark_set(weir_watermark *mark, uint64_t high, uint64_t low)
{
    if (!read_marks(high, &low))
        return WEIR_EINVAL;
    call c;
    enter(mark, &c);
    atomic_store(&mark->high, high); /* seq_cst: before settle looks, see Order */
    atomic_store(&mark->low, low);
    leave(mark, &c);
    return WEIR_OK;
}

/* ---- looking -------------------------------------------------------------------------------- */

int weir_watermark_get_snapshot(weir_watermark *mark, weir_watermark_snapshot *ret_snapshot)
{
    if (ret_snapshot->size != sizeof *ret_snapshot)
        return WEIR_EINVAL; /* there is one version so far */
    weir__lock(&mark->mutex);
    counts now = look(mark);
    *ret_snapshot = (weir_watermark_snapshot){
        .size = sizeof *ret_snapshot,
        .high = GET(mark->high),
        .low = GET(mark->low),
        .level = now.in - now.out,
        .in = now.in,
        .out = now.out,
        .peak = GET(mark->peak),
        .pauses = mark->pauses,
        .paused_ns = mark->paused_ns,
        .blocked_ns = mark->blocked_ns,
        .waiting = mark->drainers.count,
        .is_paused = GET(mark->paused),
        .is_closed = GET(mark->closed),
    };
    if (ret_snapshot->is_paused)
        ret_snapshot->paused_ns += (uint64_t)(weir_now() - mark->paused_since);
    weir__unlock(&mark->mutex);
    return WEIR_OK;
}

/* ---- beginning and end ---------------------------------------------------------------------- */

int weir_watermark_create(weir_watermark **ret_mark, const weir_watermark_opts *opts)
{
    uint64_t low = opts->low;
    if (opts->size != sizeof *opts || !read_marks(opts->high, &low))
        return WEIR_EINVAL;
    weir_watermark *mark = weir__calloc_line(sizeof *mark);
    if (!mark)
        return WEIR_ENOMEM;
    atomic_init(&mark->high, opts->high);
    atomic_init(&mark->low, low);
    mark->on_change = opts->on_change;
    mark->change_ctx = opts->change_ctx;
    mark->open = WEIR__LEVEL_INIT;
    weir__mutex_init(&mark->mutex);
    mark->record = weir__record_open(WEIR_STATS_WATERMARK, opts->name);
    tell_state(mark);
    *ret_mark = mark;
    return WEIR_OK;
}

void weir_watermark_destroy(weir_watermark *mark)
{
    if (!mark)
        return;
    weir_watermark_close(mark);
    weir__level_close(&mark->open);
    weir__record_close(mark->record);
    weir__mutex_fini(&mark->mutex);
    weir__free(mark);
}
