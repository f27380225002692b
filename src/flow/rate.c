/* rate.c - weir_rate: waiting for the tokens of a bucket; see weir/rate.h.
 *
 * The bucket (flow/bucket.h) lies in this process's memory, or in a block that processes find by
 * name.  Each handle has a line of its own, and one turn in the line of the processes for its first.
 *
 * Waiting:    each waiter knows when its tokens will be there, if nobody ahead gives up, and sleeps
 *             until then: nobody has to be woken by who was served before.  Then it takes the lock
 *             and serves the line: itself, and who is behind as far as there are tokens beyond what
 *             others wait for.  Who lets the time come earlier (another rate, a place given up)
 *             nudges the first, or all, to look again.
 * Without a thread:  only its own poll takes tokens for such a place, so that none can be granted to
 *             a task that is being cancelled.  Others leave it its cost and go on.
 */
#include <weir/rate.h>

#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/mutex.h"
#include "flow/bucket.h"
#include "flow/waitq.h"

#define LOOK_EVERY   (50 * WEIR_MILLISECOND)  /* at what other processes do */
#define LOOK_AGAIN   (200 * WEIR_MICROSECOND) /* the time has come, and somebody was quicker */
#define LOOK_EACH    (20 * WEIR_MICROSECOND)  /* of many, for each of them */
#define WORTH_WAKING (100 * WEIR_MICROSECOND)
#define PASSED_OVER  (100 * WEIR_MILLISECOND)

/* Somebody in line; on the stack of a thread, or in a weir_pending. */
typedef struct place {
    weir__waiter waiter; /* first: a waiter is cast to its place */
    uint64_t cost;       /* grains */
    weir_time until;     /* when it looks again by itself */
    weir_time since;
    weir_time due_since;    /* a poll that has not come; 0: none is missing */
    weir_pending *pending;  /* NULL: a thread */
    struct place *next;     /* of those to be nudged */
    _Atomic uint32_t nudge; /* of a pending: 0, CALLING, or CALL_AGAIN */
} place;

enum { CALLING = 1, CALL_AGAIN };

_Static_assert(sizeof(place) <= sizeof(((weir_pending *)NULL)->opaque), "a place fits");

struct weir_rate {
    weir__bucket bucket;
    _Atomic bool closed;         /* changes under the mutex */
    _Atomic size_t waiting;      /* the line's count, for who does not have the mutex */
    _Atomic unsigned generation; /* the process whose line this is */
    _Alignas(WEIR__LINE) weir__mutex mutex;
    weir__waitq line;
    uint64_t line_cost;          /* of all in line */
    weir__turn turn;             /* of the first in line */
    place *owner;                /* that one, or NULL */
    weir_time buried_at;         /* when it last looked whether who is ahead of it lives */
    weir__record *record;        /* what other processes see; NULL: nothing, or ... */
    weir__shared_record records; /* ... each has one of its own; set at creation */
};

/* What has to be done once the mutex is released. */
typedef struct calls {
    weir__wakeups woken;
    place *nudged;
} calls;

/* ---- forks ---------------------------------------------------------------------------------- */

#define CHANGING UINT32_MAX

/* In a child: nobody waits here, whatever the line says; and it needs a seat of its own. */
static int settle_in(weir_rate *rate, unsigned now)
{
    int seat = weir__named_seat(rate->bucket.named);
    if (seat < 0)
        return seat;
    rate->bucket.seat = (unsigned)seat;
    weir__mutex_init(&rate->mutex);
    rate->line = (weir__waitq){0};
    rate->line_cost = 0;
    rate->turn = WEIR__NO_TURN;
    rate->owner = NULL;
    atomic_store_explicit(&rate->waiting, 0, memory_order_relaxed);
    /* release: pairs with the acquire in come_home */
    atomic_store_explicit(&rate->generation, now, memory_order_release);
    return WEIR_OK;
}

/* Before the mutex is used. */
static int come_home(weir_rate *rate)
{
    if (!rate->bucket.named)
        return WEIR_OK;
    unsigned now = weir__named_generation();
    for (;;) {
        /* acquire: pairs with the release in settle_in */
        unsigned seen = atomic_load_explicit(&rate->generation, memory_order_acquire);
        if (seen == now)
            return WEIR_OK;
        if (seen == CHANGING ||
            !atomic_compare_exchange_strong_explicit(&rate->generation, &seen, CHANGING,
                                                     memory_order_relaxed, memory_order_relaxed))
            continue; /* another thread does it */
        int rc = settle_in(rate, now);
        if (rc < 0) /* and has changed nothing */
            atomic_store_explicit(&rate->generation, seen, memory_order_relaxed);
        return rc;
    }
}

/* ---- nudging -------------------------------------------------------------------------------- */

/* Under the mutex: lets it look again. */
static void nudge(place *p, calls *after)
{
    if (!p->pending) {
        if (weir__nudge(&p->waiter.parker))
            weir__futex_wake(&p->waiter.parker.state, 1, false);
        return;
    }
    p->until = WEIR_POLL; /* it should poll from now on: see is_passed_over */
    uint32_t was = CALLING;
    if (atomic_compare_exchange_strong(&p->nudge, &was, CALL_AGAIN) || was == CALL_AGAIN)
        return; /* who is calling calls once more */
    atomic_store(&p->nudge, CALLING);
    p->next = after->nudged;
    after->nudged = p;
}

/* Without the mutex. */
static void make_calls(calls *after)
{
    weir__wake_all(&after->woken);
    for (place *p = after->nudged, *next; p; p = next) {
        uint32_t was = CALLING;
        next = p->next;
        for (;;) {
            p->pending->ready(p->pending, WEIR_WAITING);
            /* release: pairs with the acquire in join_nudgers; the last touch of the place */
            if (atomic_compare_exchange_strong_explicit(&p->nudge, &was, 0, memory_order_acq_rel,
                                                        memory_order_acquire))
                break;
            atomic_store(&p->nudge, was = CALLING);
        }
    }
}

/* Without the mutex, for one who is out of line, so that no nudge begins: waits until none runs. */
static void join_nudgers(place *p)
{
    uint32_t seen;
    while ((seen = atomic_load_explicit(&p->nudge, memory_order_acquire)) != 0)
        weir__futex_sleep(&p->nudge, seen, weir_after(LOOK_AGAIN));
}

/* ---- the line ------------------------------------------------------------------------------- */

static place *first_in(const weir_rate *rate)
{
    return (place *)rate->line.head;
}

static place *behind(const place *p)
{
    return (place *)p->waiter.next;
}

/* For one who does not have the turn himself: those who reserved did not count him. */
static weir__turn without_promises(const weir__turn *turn)
{
    weir__turn other = *turn;
    other.is_anothers = true;
    return other;
}

static weir_time when(const weir_rate *rate, const place *p, uint64_t ahead, weir_time now)
{
    weir__turn other = without_promises(&rate->turn);
    const weir__turn *turn = p == rate->owner ? &rate->turn : &other;
    return weir__bucket_when(&rate->bucket, turn, p->cost, ahead, now);
}

/* When it has to look again if nobody nudges it. */
static void set_time(weir_rate *rate, place *p, uint64_t ahead, weir_time now)
{
    p->until = when(rate, p, ahead, now);
    if (p->until <= now)
        p->until = now + LOOK_AGAIN;
}

static uint64_t cost_before(const weir_rate *rate, const place *p)
{
    uint64_t ahead = 0;
    for (place *other = first_in(rate); other != p; other = behind(other))
        ahead += other->cost;
    return ahead;
}

/* The same for one that has looked in vain.  Without a thread it takes for itself only, and is
 * nudged when it is the first: looking earlier is of no use, and where a loop is slower than the
 * bucket, thousands would do nothing else.  It does now and then, should who is ahead never come. */
static void set_next_time(weir_rate *rate, place *p, weir_time now)
{
    set_time(rate, p, cost_before(rate, p), now);
    if (p->pending && p != rate->owner && p->until < WEIR_FOREVER / 2)
        p->until += PASSED_OVER + (weir_time)rate->line.count * LOOK_EACH;
}

static weir__record *record_of(weir_rate *rate)
{
    return rate->bucket.named ? weir__shared_record_of(&rate->records) : rate->record;
}

/* Under the mutex. */
static void note_waiting(weir_rate *rate)
{
    atomic_store_explicit(&rate->waiting, rate->line.count, memory_order_relaxed);
    if (rate->bucket.named)
        weir__tell(record_of(rate), WEIR_STATS_PUT_WAITING, rate->line.count);
    else
        weir__tell_line(rate->record, 0, rate->line.count);
}

/* Somebody has left, and the turn belongs to the first of those who are there now. */
static void move_up(weir_rate *rate, bool granted, weir_time now, calls *after)
{
    note_waiting(rate);
    place *p = first_in(rate);
    if (p == rate->owner)
        return;
    rate->owner = p;
    if (!p) {
        weir__bucket_leave(&rate->bucket, &rate->turn);
        return;
    }
    if (granted)
        weir__bucket_enter(&rate->bucket, &rate->turn, p->cost);
    else
        weir__bucket_hand_on(&rate->bucket, &rate->turn, p->cost);
    weir_time at = when(rate, p, 0, now);
    if (at + WORTH_WAKING < p->until)
        nudge(p, after);
}

static void join(weir_rate *rate, place *p, weir_time now)
{
    uint64_t ahead = rate->line_cost;
    p->since = now;
    weir__waitq_push(&rate->line, &p->waiter);
    rate->line_cost += p->cost;
    if (!rate->owner) {
        rate->owner = p;
        rate->buried_at = now;
        weir__bucket_enter(&rate->bucket, &rate->turn, p->cost);
    }
    note_waiting(rate);
    set_time(rate, p, ahead, now);
}

/* Out of line, with what it came to; `self` is not woken: it is the caller. */
static void finish(weir_rate *rate, place *p, int result, const place *self, weir_time now,
                   calls *after)
{
    rate->line_cost -= p->cost;
    if (p == self) {
        weir__waitq_give_up(&rate->line, &p->waiter);
        p->waiter.result = result;
    } else {
        weir__waitq_serve_this(&rate->line, &p->waiter, &after->woken, result);
    }
    move_up(rate, result == WEIR_OK, now, after);
}

/* Whether somebody without a thread should have polled long ago. */
static bool is_passed_over(place *p, weir_time now)
{
    if (p->until > now)
        p->due_since = 0;
    else if (!p->due_since)
        p->due_since = now;
    return p->due_since && now - p->due_since > PASSED_OVER;
}

/* Whoever waits for long looks whether he does so behind a dead one. */
static void look_ahead(weir_rate *rate, weir_time now)
{
    if (!rate->bucket.named || !rate->owner || now - rate->buried_at < LOOK_EVERY)
        return;
    rate->buried_at = now;
    weir__bucket_bury_first(&rate->bucket, &rate->turn, now);
}

/* Under the mutex: gives everybody what is there for him, `self` included, the first first. */
static void serve(weir_rate *rate, place *self, weir_time now, calls *after)
{
    look_ahead(rate, now);
    uint64_t burst = weir__bucket_terms(&rate->bucket).burst, ahead = 0;
    for (place *p = first_in(rate), *next; p && ahead < burst; p = next) {
        next = behind(p);
        if (p->pending && p != self) {
            ahead += is_passed_over(p, now) ? 0 : p->cost;
            continue;
        }
        if (p->cost > burst) {
            finish(rate, p, WEIR_ETOOBIG, self, now, after);
            continue;
        }
        weir__turn other = without_promises(&rate->turn);
        const weir__turn *turn = p == rate->owner ? &rate->turn : &other;
        weir_time at;
        if (!weir__bucket_take(&rate->bucket, turn, p->cost, ahead, now, &at))
            break;
        finish(rate, p, WEIR_OK, self, now, after);
    }
    if (self->waiter.waiting)
        set_next_time(rate, self, now);
}

/* How long it may sleep: other processes nudge nobody here. */
static weir_time look_at(const weir_rate *rate, const place *p, weir_time now)
{
    weir_time latest = now + LOOK_EVERY;
    return rate->bucket.named && p == rate->owner && p->until > latest ? latest : p->until;
}

/* Out of line without tokens; false: was served meanwhile. */
static bool leave(weir_rate *rate, place *p, weir_time now, calls *after)
{
    if (!weir__waitq_give_up(&rate->line, &p->waiter))
        return false;
    rate->line_cost -= p->cost;
    move_up(rate, false, now, after);
    return true;
}

static void count(weir_rate *rate, int result, weir_time blocked)
{
    bool refused = result == WEIR_EFULL || result == WEIR_ETIMEDOUT;
    weir__bucket_count(&rate->bucket, refused, blocked > 0 ? (uint64_t)blocked : 0);
}

/* Of one that was in line. */
static void count_wait(weir_rate *rate, int result, weir_time blocked)
{
    weir__tell_together(record_of(rate), WEIR_STATS_PUT_WAITS, 1);
    count(rate, result, blocked);
}

/* ---- acquiring ------------------------------------------------------------------------------ */

/* WEIR_OK, an error that needs no waiting, or WEIR_WAITING: it has to. */
static int try_now(weir_rate *rate, uint64_t cost)
{
    if (atomic_load_explicit(&rate->closed, memory_order_relaxed))
        return WEIR_ECLOSED;
    if (cost == 0)
        return WEIR_EINVAL;
    if (cost > WEIR__BURST_MAX)
        return WEIR_ETOOBIG;
    cost *= WEIR__TOKEN;
    if (atomic_load_explicit(&rate->waiting, memory_order_relaxed) == 0 &&
        weir__bucket_try(&rate->bucket, cost, weir_now()))
        return WEIR_OK;
    if (cost > weir__bucket_terms(&rate->bucket).burst)
        return WEIR_ETOOBIG;
    int rc = come_home(rate);
    return rc < 0 ? rc : WEIR_WAITING;
}

#define ASK_EVERY (50 * WEIR_MILLISECOND) /* the hook, of who looks more often than that */
#define NUDGED    2 /* beside WEIR_WAITING: nothing yet, and somebody says to look again */

/* Looks, and sleeps until the next look. */
static int look_and_sleep(weir_rate *rate, place *here, bool was_nudged, weir_time deadline,
                          weir_time *asked_at)
{
    calls after = {0};
    weir_time now = weir_now();
    weir__lock(&rate->mutex);
    if (was_nudged && here->waiter.waiting)
        weir__parker_rearm(&here->waiter.parker);
    bool was_waiting = here->waiter.waiting;
    if (was_waiting)
        serve(rate, here, now, &after);
    bool is_waiting = here->waiter.waiting;
    bool too_late = is_waiting && (now >= deadline || here->until > deadline);
    if (too_late)
        leave(rate, here, now, &after);
    weir_time until = look_at(rate, here, now);
    weir__unlock(&rate->mutex);
    make_calls(&after);
    if (too_late)
        return WEIR_ETIMEDOUT;
    if (!is_waiting && was_waiting)
        return here->waiter.result; /* by ourselves: nobody is going to wake us */
    int rc = is_waiting ? weir__waiter_park(&here->waiter, until) : WEIR_OK;
    if (rc == WEIR_OK) {
        weir__waiter_join(&here->waiter);
        return here->waiter.result;
    }
    now = weir_now();
    if (rc == WEIR_ETIMEDOUT && now - *asked_at >= ASK_EVERY) {
        *asked_at = now;
        rc = weir__parker_ask(&here->waiter.parker);
    }
    return rc == WEIR__HINTED ? NUDGED : rc == WEIR_EINTR ? WEIR_EINTR : WEIR_WAITING;
}

static int interrupted(weir_rate *rate, place *here)
{
    calls after = {0};
    weir__lock(&rate->mutex);
    bool left = leave(rate, here, weir_now(), &after);
    weir__unlock(&rate->mutex);
    make_calls(&after);
    if (left)
        return WEIR_EINTR;
    weir__waiter_join(&here->waiter);
    return here->waiter.result;
}

static int wait(weir_rate *rate, uint64_t cost, weir_time deadline)
{
    place here = {.cost = cost * WEIR__TOKEN};
    weir__lock(&rate->mutex);
    if (atomic_load_explicit(&rate->closed, memory_order_relaxed)) {
        weir__unlock(&rate->mutex);
        return WEIR_ECLOSED;
    }
    join(rate, &here, weir_now());
    weir__unlock(&rate->mutex);
    int rc = WEIR_WAITING;
    weir_time asked_at = weir_now();
    do
        rc = look_and_sleep(rate, &here, rc == NUDGED, deadline, &asked_at);
    while (rc == WEIR_WAITING || rc == NUDGED);
    if (rc == WEIR_EINTR)
        rc = interrupted(rate, &here);
    count_wait(rate, rc, weir_now() - here.since);
    return rc;
}

int weir_rate_acquire(weir_rate *rate, uint64_t cost, weir_time deadline)
{
    int rc = try_now(rate, cost);
    if (rc != WEIR_WAITING)
        return rc;
    if (deadline > WEIR_POLL)
        return wait(rate, cost, deadline);
    if (deadline == WEIR_POLL)
        count(rate, WEIR_EFULL, 0);
    return WEIR_EFULL;
}

/* ---- without a thread ----------------------------------------------------------------------- */

static place *place_of(weir_pending *pending)
{
    return (place *)(void *)pending->opaque;
}

int weir_rate_acquire_async(weir_rate *rate, uint64_t cost, weir_pending *pending,
                            weir_time *ret_at)
{
    if (!pending->ready)
        return WEIR_EINVAL;
    int rc = try_now(rate, cost);
    if (rc != WEIR_WAITING)
        return rc;
    place *here = place_of(pending);
    memset(here, 0, sizeof *here);
    here->cost = cost * WEIR__TOKEN;
    here->pending = pending;
    weir_time now = weir_now();
    weir__lock(&rate->mutex);
    bool closed = atomic_load_explicit(&rate->closed, memory_order_relaxed);
    if (!closed)
        join(rate, here, now);
    weir_time at = look_at(rate, here, now);
    weir__unlock(&rate->mutex);
    if (closed)
        return WEIR_ECLOSED;
    *ret_at = at;
    return WEIR_WAITING;
}

int weir_rate_poll(weir_rate *rate, weir_pending *pending, weir_time *ret_at)
{
    calls after = {0};
    place *here = place_of(pending);
    weir_time now = weir_now();
    int rc = come_home(rate);
    if (rc < 0)
        return rc;
    weir__lock(&rate->mutex);
    if (!here->waiter.waiting) {
        weir__unlock(&rate->mutex);
        return WEIR_EINVAL;
    }
    if (atomic_load_explicit(&rate->closed, memory_order_relaxed))
        finish(rate, here, WEIR_ECLOSED, here, now, &after);
    else
        serve(rate, here, now, &after);
    here->due_since = 0;
    bool is_waiting = here->waiter.waiting;
    weir_time at = look_at(rate, here, now);
    weir__unlock(&rate->mutex);
    make_calls(&after);
    if (is_waiting) {
        *ret_at = at;
        return WEIR_WAITING;
    }
    join_nudgers(here);
    count_wait(rate, here->waiter.result, now - here->since);
    return here->waiter.result;
}

void weir_rate_cancel(weir_rate *rate, weir_pending *pending)
{
    calls after = {0};
    place *here = place_of(pending);
    if (come_home(rate) < 0)
        return;
    weir_time now = weir_now();
    weir__lock(&rate->mutex);
    bool left = leave(rate, here, now, &after);
    weir__unlock(&rate->mutex);
    make_calls(&after);
    join_nudgers(here);
    if (left)
        count_wait(rate, WEIR_ETIMEDOUT, now - here->since);
}

/* ---- reservations --------------------------------------------------------------------------- */

_Static_assert(sizeof(weir__owed) <= sizeof(((weir_reservation *)NULL)->opaque), "it fits");

static weir__owed owed_by(const weir_reservation *reservation)
{
    weir__owed owed;
    memcpy(&owed, reservation->opaque, sizeof owed);
    return owed;
}

int weir_rate_reserve(weir_rate *rate, uint64_t cost, weir_time *ret_at,
                      weir_reservation *ret_reservation)
{
    if (atomic_load_explicit(&rate->closed, memory_order_relaxed))
        return WEIR_ECLOSED;
    if (cost == 0)
        return WEIR_EINVAL;
    if (cost > WEIR__BURST_MAX || cost * WEIR__TOKEN > weir__bucket_terms(&rate->bucket).burst)
        return WEIR_ETOOBIG;
    weir__owed owed;
    if (!weir__bucket_reserve(&rate->bucket, cost * WEIR__TOKEN, weir_now(), &owed)) {
        count(rate, WEIR_EFULL, 0);
        return WEIR_EFULL;
    }
    weir_reservation made = {.cost = cost};
    memcpy(made.opaque, &owed, sizeof owed);
    *ret_reservation = made;
    *ret_at = weir_rate_due(rate, &made);
    return WEIR_OK;
}

weir_time weir_rate_due(weir_rate *rate, const weir_reservation *reservation)
{
    weir__rate_terms terms = weir__bucket_terms(&rate->bucket);
    weir_time at = weir__rate_when(&terms, owed_by(reservation).due), now = weir_now();
    return at > now ? at : now;
}

int weir_rate_unreserve(weir_rate *rate, const weir_reservation *reservation)
{
    weir__owed owed = owed_by(reservation);
    if (!weir__bucket_unreserve(&rate->bucket, &owed))
        return 0;
    if (come_home(rate) < 0)
        return 1;
    calls after = {0};
    weir__lock(&rate->mutex);
    if (rate->owner)
        nudge(rate->owner, &after);
    weir__unlock(&rate->mutex);
    make_calls(&after);
    return 1;
}

/* ---- changes -------------------------------------------------------------------------------- */

static void nudge_all(weir_rate *rate, calls *after)
{
    for (place *p = first_in(rate); p; p = behind(p))
        nudge(p, after);
}

/* Under the mutex, or before anybody else has it. */
static void tell_terms(weir_rate *rate)
{
    weir__rate_terms terms = weir__bucket_terms(&rate->bucket);
    double per_hour = (double)terms.rate * 3600e9 / (double)terms.per_ns;
    weir__record *record = record_of(rate);
    weir__tell(record, WEIR_STATS_CAPACITY, terms.burst / WEIR__TOKEN);
    weir__tell(record, WEIR_STATS_RATE_PER_HOUR, per_hour < 1e19 ? (uint64_t)per_hour : UINT64_MAX);
}

int weir_rate_set(weir_rate *rate, uint64_t tokens, int64_t per_ns, uint64_t burst)
{
    per_ns = per_ns ? per_ns : WEIR_SECOND;
    burst = burst ? burst : tokens;
    if (!weir__rate_is_valid(tokens, per_ns, burst))
        return WEIR_EINVAL;
    int rc = come_home(rate);
    if (rc == WEIR_OK)
        rc = weir__bucket_set(&rate->bucket, tokens, (uint64_t)per_ns, burst * WEIR__TOKEN,
                              weir_now());
    if (rc < 0)
        return rc;
    calls after = {0};
    weir__lock(&rate->mutex);
    tell_terms(rate);
    nudge_all(rate, &after);
    weir__unlock(&rate->mutex);
    make_calls(&after);
    return WEIR_OK;
}

void weir_rate_close(weir_rate *rate)
{
    calls after = {0};
    if (come_home(rate) < 0)
        return;
    weir__lock(&rate->mutex);
    atomic_store_explicit(&rate->closed, true, memory_order_relaxed);
    weir_time now = weir_now();
    for (place *p = first_in(rate), *next; p; p = next) {
        next = behind(p);
        if (p->pending)
            nudge(p, &after);
        else
            finish(rate, p, WEIR_ECLOSED, NULL, now, &after);
    }
    weir__unlock(&rate->mutex);
    make_calls(&after);
}

/* ---- beginning and end ---------------------------------------------------------------------- */

static int open_shared(weir_rate *rate, const char *name, const weir__rate_terms *terms)
{
    int rc = weir__named_open(&rate->bucket.named, "rate", name, &weir__bucket_ops, terms);
    if (rc < 0)
        return rc;
    rate->bucket.page = weir__named_data(rate->bucket.named);
    int seat = weir__named_seat(rate->bucket.named);
    if (seat < 0) {
        weir__named_close(rate->bucket.named);
        return seat;
    }
    rate->bucket.seat = (unsigned)seat;
    atomic_init(&rate->generation, weir__named_generation());
    return WEIR_OK;
}

static int make_private(weir_rate *rate, const weir__rate_terms *terms)
{
    rate->bucket.page = weir__calloc_line(weir__bucket_size(1));
    if (!rate->bucket.page)
        return WEIR_ENOMEM;
    int rc = weir__bucket_init(rate->bucket.page, 1, terms);
    if (rc < 0)
        weir__free(rate->bucket.page);
    return rc;
}

static void begin_telling(weir_rate *rate, const weir_rate_opts *opts)
{
    if (opts->shared)
        weir__shared_record_open(&rate->records, WEIR_STATS_RATE,
                                 opts->name ? opts->name : opts->shared);
    else
        rate->record = weir__record_open(WEIR_STATS_RATE, opts->name);
    weir__bucket_begin_counting(&rate->bucket, rate->record, opts->shared ? &rate->records : NULL);
    tell_terms(rate);
}

int weir_rate_create(weir_rate **ret_rate, const weir_rate_opts *opts)
{
    if (!opts || opts->size != sizeof *opts)
        return WEIR_EINVAL;
    int64_t per_ns = opts->per_ns ? opts->per_ns : WEIR_SECOND;
    uint64_t burst = opts->burst ? opts->burst : opts->rate;
    if (!weir__rate_is_valid(opts->rate, per_ns, burst))
        return WEIR_EINVAL;
    weir__rate_terms terms = {
        .t0 = weir_now(),
        .rate = opts->rate,
        .per_ns = (uint64_t)per_ns,
        .burst = burst * WEIR__TOKEN,
    };
    weir__rate_set_speed(&terms);
    weir_rate *rate = weir__calloc_line(sizeof *rate);
    if (!rate)
        return WEIR_ENOMEM;
    rate->turn = WEIR__NO_TURN;
    weir__mutex_init(&rate->mutex);
    int rc = opts->shared ? open_shared(rate, opts->shared, &terms) : make_private(rate, &terms);
    if (rc < 0) {
        weir__free(rate);
        return rc;
    }
    begin_telling(rate, opts);
    *ret_rate = rate;
    return WEIR_OK;
}

void weir_rate_destroy(weir_rate *rate)
{
    if (!rate)
        return;
    if (rate->bucket.named)
        weir__named_close(rate->bucket.named);
    else
        weir__free(rate->bucket.page);
    weir__record_close(rate->record);
    weir__shared_record_close(&rate->records);
    weir__mutex_fini(&rate->mutex);
    weir__free(rate);
}

int weir_rate_get_snapshot(weir_rate *rate, weir_rate_snapshot *ret_snapshot)
{
    if (ret_snapshot->size != sizeof *ret_snapshot)
        return WEIR_EINVAL;
    weir__rate_terms terms = weir__bucket_terms(&rate->bucket);
    weir__bucket_counts counts = weir__bucket_get_counts(&rate->bucket);
    int64_t level = weir__bucket_level(&rate->bucket, weir_now());
    int64_t token = (int64_t)WEIR__TOKEN;
    *ret_snapshot = (weir_rate_snapshot){
        .size = sizeof *ret_snapshot,
        .rate = terms.rate,
        .per_ns = (int64_t)terms.per_ns,
        .burst = terms.burst / WEIR__TOKEN,
        .available = level >= 0 ? level / token : -((token - 1 - level) / token),
        .granted = counts.granted,
        .returned = counts.returned,
        .refused = counts.refused,
        .blocked_ns = counts.blocked_ns,
        .waiting = atomic_load_explicit(&rate->waiting, memory_order_relaxed),
        .closed = atomic_load_explicit(&rate->closed, memory_order_relaxed),
    };
    return WEIR_OK;
}
