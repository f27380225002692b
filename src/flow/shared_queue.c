/* shared_queue.c - bounded FIFO of messages shared by processes; see <weir/shared_queue.h>.
 *
 * One lock guards everything (flow/door.h); what is inside changes by commits that a kill
 * cannot tear (flow/shared_ring.h); waiting is a line of places that can tell the dead
 * (flow/shared_line.h).  So whoever gets the lock from a dead owner finds a queue that is whole.
 * All that may be lacking is a wake-up which the dead one owed, and waiters look for themselves.
 *
 * Settling:   every leave calls those whose turn has come, for as long as there is enough for one
 *             more.  Whatever made that possible, nobody has to remember to pass it on, not even
 *             those who were killed or gave up: the next one who leaves does.
 * Beside:     words under `counts` are no part of the law; each is changed by one store.
 * Telling:    a process's record (flow/record.h) has what went through its handle; under the lock, if
 *             nothing else is said.
 */
#include <weir/shared_queue.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/memfd.h"
#include "base/memory.h"
#include "base/park.h"
#include "base/spin.h"
#include "flow/door.h"
#include "flow/record.h"
#include "flow/shared_line.h"
#include "flow/shared_ring.h"
#include "model/overflow.h"

#define MAGIC   UINT64_C(0x3151736965770a1b)
#define VERSION 2u
#define PAGE    UINT64_C(4096)
#define SECTION 256u                 /* messages that one holding of the lock moves, */
#define LONG    (UINT64_C(1) << 20)  /* or bytes, whatever is reached first */
#define HUGE    (UINT64_C(16) << 20) /* worth asking first how much memory there is */

/* The beginning of the file.  Behind it, each from a page on: the table, the stack, the chunks. */
typedef struct shared {
    /* set at creation */
    uint64_t magic;
    uint32_t version, size; /* of this struct: also tells 32 from 64 bits, and libc from libc */
    uint64_t capacity, max_bytes;
    int64_t max_age_ns;
    uint32_t overflow, keep_one_of;
    uint32_t is_named;
    char name[WEIR__PAGE_NAME]; /* for its records */

    _Alignas(64) weir__door door;

    weir__ring_shared ring;

    /* counts: written under the lock (refused: also without), read without */
    _Alignas(64) _Atomic uint32_t closed;
    _Atomic uint32_t above, sampled_out;
    _Atomic uint64_t peak, refused, put_blocked_ns, get_blocked_ns;

    weir__line line;
} shared;

struct weir_shared_queue {
    shared *shared;
    weir__ring ring;
    size_t mapped;     /* bytes */
    weir__marks marks; /* of SAMPLE; `above` is the one in the file */
    weir__spin put_spin, get_spin;
    weir__shared_record record;
};

/* relaxed: these words stand for themselves */
#define GET(word)        atomic_load_explicit(&(word), memory_order_relaxed)
#define SET(word, value) atomic_store_explicit(&(word), (value), memory_order_relaxed)
#define ADD(word, n)     atomic_fetch_add_explicit(&(word), (n), memory_order_relaxed)

/* ---- entering and leaving ------------------------------------------------------------------- */

static int enter(weir_shared_queue *queue, weir_time deadline)
{
    weir__shared_record_of(&queue->record); /* in a forked child: not under the lock */
    return weir__door_enter(&queue->shared->door, deadline);
}

static weir__load bound(const shared *s)
{
    return (weir__load){(size_t)s->capacity, s->max_bytes};
}

static weir__load inside(const weir__tide *now)
{
    return (weir__load){now->depth, now->bytes};
}

/* ---- what others see -------------------------------------------------------------------------- */

static weir__record *record_of(weir_shared_queue *queue)
{
    return weir__shared_record_of(&queue->record);
}

/* Not how full it is: of a process that makes no further call that would be false for ever. */
static void tell_gauges(weir_shared_queue *queue)
{
    const shared *s = queue->shared;
    weir__record *record = record_of(queue);
    weir__tell(record, WEIR_STATS_CAPACITY, s->capacity);
    weir__tell(record, WEIR_STATS_MAX_COST, s->max_bytes);
    weir__tell(record, WEIR_STATS_MAX_AGE_NS, (uint64_t)s->max_age_ns);
    weir__tell(record, WEIR_STATS_CLOSED, GET(s->closed));
}

static void count(weir__record *record, weir_stats_number number, uint64_t before, uint64_t now)
{
    if (record && now != before)
        weir__tell_more(&record->number[number], now - before);
}

static void count_drops(weir__record *record, const weir__losses *before, const weir__losses *now)
{
    for (int i = 0; i < WEIR_DROP_REASONS; i++) {
        count(record, WEIR_STATS_DROPPED_NEWEST + i, before->dropped[i], now->dropped[i]);
        count(record, WEIR_STATS_DROPPED_NEWEST_COST + i, before->dropped_bytes[i],
              now->dropped_bytes[i]);
    }
}

/* What the change has done is this process's part. */
static void commit(weir_shared_queue *queue, weir__change *change)
{
    weir__tide before;
    weir__losses losses;
    weir__record *record = WEIR__TELLS ? record_of(queue) : NULL;
    if (record)
        weir__ring_look(&queue->ring, &before, &losses);
    weir__change_commit(change);
    if (!record)
        return;
    const weir__tide *now = &change->now;
    count(record, WEIR_STATS_ACCEPTED, before.accepted, now->accepted);
    count(record, WEIR_STATS_ACCEPTED_COST, before.accepted_bytes, now->accepted_bytes);
    count(record, WEIR_STATS_DELIVERED, before.delivered, now->delivered);
    count(record, WEIR_STATS_DELIVERED_COST, before.delivered_bytes, now->delivered_bytes);
    if (change->has_losses)
        count_drops(record, &losses, &change->losses);
}

/* ---- entering and leaving, continued ---------------------------------------------------------- */

/* Calls each getter that something is inside for, or all when nothing will come any more. */
static void call_getters(shared *s, const weir__tide *now, weir__places *bells)
{
    bool over = now->depth == 0 && GET(s->closed);
    size_t called = weir__line_called(&s->line, WEIR__GETTERS).items;
    weir__place *next;
    for (; (over || called < now->depth) && (next = weir__line_next(&s->line, WEIR__GETTERS));
         called++)
        weir__line_call(&s->line, next, bells);
}

/* Calls each putter that there is room for, never past one that there is none for. */
static void call_putters(shared *s, const weir__tide *now, weir__places *bells)
{
    weir__load held = weir__line_called(&s->line, WEIR__PUTTERS);
    held.items += now->depth;
    held.cost += now->bytes;
    weir__place *next;
    while ((next = weir__line_next(&s->line, WEIR__PUTTERS)) &&
           (GET(s->closed) || weir__fits(bound(s), held, next->cost))) {
        weir__line_call(&s->line, next, bells);
        held.items++;
        held.cost += next->cost;
    }
}

static void leave(weir_shared_queue *queue, const weir__tide *now)
{
    shared *s = queue->shared;
    weir__places bells = {{0}};
    tell_gauges(queue);
    if (!weir__line_is_empty(&s->line, WEIR__GETTERS))
        call_getters(s, now, &bells);
    if (!weir__line_is_empty(&s->line, WEIR__PUTTERS))
        call_putters(s, now, &bells);
    weir__door_leave(&s->door);
    weir__line_ring(&s->line, &bells);
}

/* ---- waiting -------------------------------------------------------------------------------- */

/* A call that waits, or may have to. */
typedef struct wait {
    enum weir__side side;
    weir_time deadline;
    weir_time since;    /* 0: it has not waited yet */
    weir__place *place; /* NULL: none */
    bool counted;       /* as a call that waited */
} wait;

static uint64_t ticket_of(const wait *w)
{
    return w->place ? w->place->ticket : UINT64_MAX;
}

/* Also without the lock.  By how many more (or, modulo 2^64, less) wait. */
static void tell_waiting(weir_shared_queue *queue, const wait *w, uint64_t by)
{
    bool puts = w->side == WEIR__PUTTERS;
    weir__tell_together(record_of(queue), puts ? WEIR_STATS_PUT_WAITING : WEIR_STATS_GET_WAITING,
                        by);
}

/* Also without the lock. */
static void tell_wait(weir_shared_queue *queue, wait *w, uint64_t waited)
{
    bool puts = w->side == WEIR__PUTTERS;
    weir__record *record = record_of(queue);
    tell_waiting(queue, w, UINT64_MAX);
    weir__tell_together(record, puts ? WEIR_STATS_PUT_BLOCKED_NS : WEIR_STATS_GET_BLOCKED_NS,
                        waited);
    weir__tell_together(record, puts ? WEIR_STATS_PUT_WAITS : WEIR_STATS_GET_WAITS, !w->counted);
    w->counted = true;
}

/* Entered: the wait is over. */
static void end_wait(weir_shared_queue *queue, wait *w)
{
    shared *s = queue->shared;
    if (w->since) {
        uint64_t waited = (uint64_t)(weir_now() - w->since);
        ADD(*(w->side == WEIR__PUTTERS ? &s->put_blocked_ns : &s->get_blocked_ns), waited);
        tell_wait(queue, w, waited);
        w->since = 0;
    }
    if (w->place)
        weir__line_leave(&s->line, w->side, w->place);
    w->place = NULL;
}

static bool may_wait(const wait *w)
{
    return w->deadline > WEIR_POLL && (w->deadline == WEIR_FOREVER || weir_now() < w->deadline);
}

/* Enters after something that ended with rc; unless both went well, gives the place up. */
static int enter_again(weir_shared_queue *queue, wait *w, int rc)
{
    int entered = enter(queue, w->deadline);
    if (rc == WEIR_OK && entered == WEIR_OK)
        return WEIR_OK;
    if (rc == WEIR_OK)
        rc = entered;
    if (entered == WEIR_EINTR) /* once more: the owner may be stopped for long */
        entered = enter(queue, WEIR_POLL);
    if (entered == WEIR_OK) {
        weir__change look;
        weir__change_begin(&look, &queue->ring);
        end_wait(queue, w);
        leave(queue, &look.now);
    } else if (w->place) {
        weir__line_leave(&queue->shared->line, w->side, w->place);
    }
    if (entered != WEIR_OK && w->since)
        tell_wait(queue, w, (uint64_t)(weir_now() - w->since));
    return rc;
}

/* Entered; entered when it returns 0.  What is waited for may be on its way: looks for it, for no
 * longer than a sleep costs. */
static int look_a_moment(weir_shared_queue *queue, wait *w, const weir__tide *now)
{
    weir__spin *spin = w->side == WEIR__PUTTERS ? &queue->put_spin : &queue->get_spin;
    _Atomic uint64_t *commit = &queue->ring.shared->commit;
    uint64_t seen = GET(*commit);
    leave(queue, now);
    weir__spin_while(spin, commit, seen, w->deadline);
    return enter_again(queue, w, WEIR_OK);
}

/* Entered; entered when it returns 0: look again.  Else left, and no place is held. */
static int wait_turn(weir_shared_queue *queue, wait *w, const weir__tide *now, uint64_t cost)
{
    bool is_new = w->since == 0;
    if (is_new) {
        w->since = weir_now();
        tell_waiting(queue, w, 1);
    }
    if (is_new && weir__line_is_empty(&queue->shared->line, w->side))
        return look_a_moment(queue, w, now);
    if (w->place) {
        w->place->called = 0;
        w->place->cost = cost;
    } else {
        w->place = weir__line_join(&queue->shared->line, w->side, cost);
    }
    uint32_t bell = w->place ? GET(w->place->bell) : 0;
    leave(queue, now);

    return enter_again(queue, w, weir__line_sleep(w->place, bell, w->deadline));
}

/* ---- putting -------------------------------------------------------------------------------- */

static void refuse(weir_shared_queue *queue, const wait *w)
{
    if (w->deadline == WEIR_PROBE)
        return;
    ADD(queue->shared->refused, 1);
    weir__tell_together(record_of(queue), WEIR_STATS_REFUSED, 1);
}

static void update_marks(weir_shared_queue *queue, const weir__tide *now)
{
    if (queue->shared->overflow != WEIR_OVERFLOW_SAMPLE)
        return;
    weir__marks marks = queue->marks;
    marks.above = GET(queue->shared->above);
    weir__marks_update(&marks, inside(now));
    SET(queue->shared->above, marks.above);
}

static weir__fate decide(shared *s, bool fits)
{
    static const weir__fate when_full[] = {
        [WEIR_OVERFLOW_BLOCK] = WEIR__WAIT,       [WEIR_OVERFLOW_FAIL] = WEIR__REFUSE,
        [WEIR_OVERFLOW_DROP_NEWEST] = WEIR__DROP, [WEIR_OVERFLOW_DROP_OLDEST] = WEIR__EVICT,
        [WEIR_OVERFLOW_SAMPLE] = WEIR__DROP,
    };
    uint32_t policy =
        s->overflow % (WEIR_OVERFLOW_SAMPLE + 1); /* of a stranger's file, some policy */
    if (policy != WEIR_OVERFLOW_SAMPLE)
        return fits ? WEIR__KEEP : when_full[policy];
    weir__overflow overflow = {WEIR__DROP, s->keep_one_of, GET(s->sampled_out)};
    weir__fate fate = weir__overflow_decide(&overflow, GET(s->above), fits);
    SET(s->sampled_out, overflow.sampled_out);
    return fate;
}

/* Whether there is room for it beside those who came earlier. */
static bool has_room(shared *s, const weir__tide *now, const wait *w, uint64_t size)
{
    weir__load held = inside(now);
    if (!weir__fits(bound(s), held, size))
        return false;
    if (weir__line_is_empty(&s->line, WEIR__PUTTERS))
        return true;
    weir__load ahead = weir__line_ahead(&s->line, WEIR__PUTTERS, ticket_of(w));
    held.items += ahead.items;
    held.cost += ahead.cost;
    return weir__fits(bound(s), held, size);
}

/* Drops the oldest until the message fits.  A commit of its own: its memory is written next. */
static void evict(weir_shared_queue *queue, weir__change *change, uint64_t size)
{
    commit(queue, change);
    weir__change_begin(change, &queue->ring);
    while (change->now.depth > 0 && !weir__fits(bound(queue->shared), inside(&change->now), size))
        weir__change_pop(change, NULL, 0, WEIR_DROP_OLDEST);
    commit(queue, change);
    weir__change_begin(change, &queue->ring);
}

#define MUST_WAIT 2 /* beside WEIR_KEPT and WEIR_DROPPED */

static int offer(weir_shared_queue *queue, weir__change *change, const weir_message *message,
                 const wait *w)
{
    shared *s = queue->shared;
    if (GET(s->closed))
        return WEIR_ECLOSED;
    if (message->size > s->max_bytes || message->size > UINT32_MAX) {
        refuse(queue, w);
        return WEIR_ETOOBIG;
    }
    switch (decide(s, has_room(s, &change->now, w, message->size))) {
    case WEIR__SPILL: /* refused when the queue is made */
    case WEIR__WAIT: return MUST_WAIT;
    case WEIR__REFUSE: refuse(queue, w); return WEIR_EFULL;
    case WEIR__DROP: weir__change_drop_new(change, message->size, WEIR_DROP_NEWEST); break;
    case WEIR__SAMPLE_OUT: weir__change_drop_new(change, message->size, WEIR_DROP_SAMPLED); break;
    case WEIR__EVICT: evict(queue, change, message->size); __attribute__((fallthrough));
    case WEIR__KEEP: return weir__change_append(change, message, s->max_age_ns ? weir_now() : 0);
    }
    return WEIR_DROPPED;
}

/* Entered: puts what one section takes.  Returns what the last one met. */
static int put_section(weir_shared_queue *queue, weir__change *change, const weir_message *messages,
                       size_t n, const wait *w, size_t *ret_done)
{
    shared *s = queue->shared;
    int rc = WEIR_OK;
    size_t done = 0;
    weir__change_begin(change, &queue->ring);
    for (uint64_t bytes = 0; done < n && done < SECTION && bytes < LONG; done++) {
        bytes += messages[done].size;
        rc = offer(queue, change, &messages[done], w);
        if (rc < 0 || rc == MUST_WAIT)
            break;
        update_marks(queue, &change->now);
        if (change->now.depth > GET(s->peak))
            SET(s->peak, change->now.depth);
    }
    if (change->appended || change->has_losses)
        commit(queue, change);
    *ret_done = done;
    return rc;
}

/* Returns what the last message met; how many were taken in *ret_done. */
static int put(weir_shared_queue *queue, const weir_message *messages, size_t n, weir_time deadline,
               size_t *ret_done)
{
    wait w = {.side = WEIR__PUTTERS, .deadline = deadline};
    size_t done = 0;
    int rc = enter(queue, deadline);
    while (rc == WEIR_OK) {
        weir__change change;
        size_t more;
        rc = put_section(queue, &change, messages + done, n - done, &w, &more);
        done += more;
        if (rc == MUST_WAIT && may_wait(&w)) {
            rc = wait_turn(queue, &w, &change.now, messages[done].size);
            continue;
        }
        if (rc == MUST_WAIT) {
            refuse(queue, &w);
            rc = deadline <= WEIR_POLL ? WEIR_EFULL : WEIR_ETIMEDOUT;
        }
        if (rc < 0 || done == n)
            end_wait(queue, &w);
        leave(queue, &change.now);
        if (rc < 0 || done == n)
            break;
        rc = enter_again(queue, &w, WEIR_OK); /* others had their chance between the sections */
    }
    *ret_done = done;
    return rc;
}

/* Reserving takes page after page: what is not there would take the machine down first. */
static bool is_beyond_memory(const weir_message *message)
{
    return message->size >= HUGE && message->size > weir__memory_available();
}

int weir_shared_queue_put(weir_shared_queue *queue, const weir_message *message, weir_time deadline)
{
    size_t done;
    if (is_beyond_memory(message) && message->size <= queue->shared->max_bytes)
        return WEIR_ENOSHM;
    return put(queue, message, 1, deadline, &done);
}

int64_t weir_shared_queue_put_many(weir_shared_queue *queue, const weir_message *messages, size_t n,
                                   weir_time deadline)
{
    size_t done = 0, able = 0;
    while (able < n && !is_beyond_memory(&messages[able]))
        able++;
    int rc = able < n && able == 0 ? WEIR_ENOSHM : WEIR_OK;
    if (able > 0)
        rc = put(queue, messages, able, deadline, &done);
    return done > 0 ? (int64_t)done : rc;
}

/* ---- getting -------------------------------------------------------------------------------- */

#define ALIGN 16u /* of received messages, from the buffer's beginning */

/* What a call has got: messages[].data are offsets into the buffer until it returns. */
typedef struct batch {
    weir_message *messages;
    size_t max, got;
    weir_buffer *buffer;
    size_t used; /* bytes */
    bool waited;
} batch;

/* An empty message has an address, too. */
static size_t aligned(size_t size)
{
    return size > 0 ? (size + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
}

/* What one section takes: how many of `most`, and how large the buffer has to be. */
static size_t measure(const weir__change *change, const batch *b, size_t most, size_t *ret_capacity)
{
    size_t n = 0, used = b->used;
    for (uint64_t at = change->now.head; n < most && n < SECTION; n++) {
        size_t end = used + aligned(weir__change_peek(change, at, &at).size);
        if (n > 0 && end - b->used > LONG)
            break;
        used = end;
    }
    *ret_capacity = used;
    return n;
}

/* (Should somebody write over a size after it was measured, what does not fit is cut.) */
static void take(weir__change *change, batch *b, size_t n)
{
    while (n-- > 0 && b->used < b->buffer->capacity) {
        uint64_t next;
        size_t room = b->buffer->capacity - b->used;
        weir__ring_record record = weir__change_peek(change, change->now.head, &next);
        weir_message *message = &b->messages[b->got++];
        *message = (weir_message){
            .data = (void *)(uintptr_t)b->used,
            .size = record.size < room ? record.size : room,
            .tag = record.tag,
        };
        weir__change_pop(change, (char *)b->buffer->data + b->used, message->size, -1);
        b->used += aligned(message->size);
    }
}

static void drop_expired(weir_shared_queue *queue, weir__change *change)
{
    int64_t max_age_ns = queue->shared->max_age_ns;
    if (max_age_ns <= 0 || change->now.depth == 0)
        return;
    weir_time now = weir_now();
    for (uint64_t next; change->now.depth > 0;) {
        if (weir__change_peek(change, change->now.head, &next).since >= now - max_age_ns)
            return;
        weir__change_pop(change, NULL, 0, WEIR_DROP_EXPIRED);
    }
}

/* How many there are beside those that waiters ahead will come for. */
static size_t share(shared *s, const weir__tide *now, const wait *w)
{
    if (now->depth == 0 || weir__line_is_empty(&s->line, WEIR__GETTERS))
        return now->depth;
    size_t ahead = weir__line_ahead(&s->line, WEIR__GETTERS, ticket_of(w)).items;
    return now->depth > ahead ? now->depth - ahead : 0;
}

/* Not entered.  The memory is not asked for under the lock. */
static int grow(weir_buffer *buffer, size_t capacity)
{
    if (capacity < 2 * buffer->capacity)
        capacity = 2 * buffer->capacity;
    void *data = weir__realloc(buffer->data, capacity);
    if (!data)
        return WEIR_ENOMEM;
    *buffer = (weir_buffer){data, capacity};
    return WEIR_OK;
}

/* Entered; entered when it returns 0.  Lets go of the lock while the buffer grows. */
static int leave_and_grow(weir_shared_queue *queue, wait *w, const weir__tide *now, batch *b,
                          size_t capacity)
{
    if (w->place)
        w->place->called = weir_now(); /* we are on our way */
    leave(queue, now);
    int rc = grow(b->buffer, capacity);
    return enter_again(queue, w, rc);
}

/* Gets what is there in one section, at least one.  The buffer keeps what is in it. */
static int get(weir_shared_queue *queue, batch *b, weir_time deadline)
{
    shared *s = queue->shared;
    wait w = {.side = WEIR__GETTERS, .deadline = deadline, .counted = b->waited};
    int rc = enter(queue, deadline);
    while (rc == WEIR_OK) {
        weir__change change;
        weir__change_begin(&change, &queue->ring);
        drop_expired(queue, &change);
        size_t most = share(s, &change.now, &w), capacity = 0, n = 0;
        if (most > 0) {
            if (most > b->max - b->got)
                most = b->max - b->got;
            n = measure(&change, b, most, &capacity);
            if (capacity <= b->buffer->capacity)
                take(&change, b, n);
        }
        if (change.popped) {
            commit(queue, &change);
            update_marks(queue, &change.now);
        }
        if (n > 0 && capacity > b->buffer->capacity) {
            rc = leave_and_grow(queue, &w, &change.now, b, capacity);
            continue;
        }
        bool over = GET(s->closed) && change.now.depth == 0;
        if (n == 0 && !over && may_wait(&w)) {
            rc = wait_turn(queue, &w, &change.now, 0);
            continue;
        }
        end_wait(queue, &w);
        b->waited = w.counted;
        leave(queue, &change.now);
        return n > 0                   ? WEIR_OK
               : over                  ? WEIR_ECLOSED
               : deadline <= WEIR_POLL ? WEIR_EEMPTY
                                       : WEIR_ETIMEDOUT;
    }
    return rc;
}

static void locate_messages(batch *b)
{
    for (size_t i = 0; i < b->got; i++)
        b->messages[i].data = (char *)b->buffer->data + (uintptr_t)b->messages[i].data;
}

int weir_shared_queue_get(weir_shared_queue *queue, weir_message *ret_message, weir_buffer *buffer,
                          weir_time deadline)
{
    batch b = {ret_message, 1, 0, buffer, 0, false};
    int rc = get(queue, &b, deadline);
    locate_messages(&b);
    return rc;
}

int64_t weir_shared_queue_get_many(weir_shared_queue *queue, weir_message *ret_messages, size_t max,
                                   weir_buffer *buffer, weir_time deadline, int64_t linger_ns)
{
    batch b = {ret_messages, max, 0, buffer, 0, false};
    if (max == 0)
        return WEIR_EINVAL;
    int rc = get(queue, &b, deadline);
    if (rc < 0)
        return rc;
    /* How it ends does not matter: there is a batch.  Without lingering, only what more sections
     * find there. */
    weir_time until = weir_after(linger_ns);
    for (size_t before = 0; rc == WEIR_OK && b.got < max;) {
        bool cut = b.got - before == SECTION || b.used >= LONG;
        if (linger_ns <= 0 && !cut)
            break;
        before = b.got;
        rc = get(queue, &b, linger_ns > 0 ? until : WEIR_POLL);
    }
    locate_messages(&b);
    return (int64_t)b.got;
}

void weir_buffer_free(weir_buffer *buffer)
{
    weir__free(buffer->data);
    *buffer = (weir_buffer){NULL, 0};
}

/* ---- closing and emptying ------------------------------------------------------------------- */

int weir_shared_queue_close(weir_shared_queue *queue)
{
    weir__change look;
    int rc = enter(queue, WEIR_FOREVER);
    if (rc < 0)
        return rc;
    SET(queue->shared->closed, 1);
    weir__change_begin(&look, &queue->ring);
    leave(queue, &look.now);
    return WEIR_OK;
}

int64_t weir_shared_queue_discard(weir_shared_queue *queue)
{
    weir__change change;
    int rc = enter(queue, WEIR_FOREVER);
    if (rc < 0)
        return rc;
    weir__change_begin(&change, &queue->ring);
    int64_t n = change.now.depth;
    while (change.now.depth > 0)
        weir__change_pop(&change, NULL, 0, WEIR_DROP_DISCARDED);
    if (n > 0)
        commit(queue, &change);
    update_marks(queue, &change.now);
    leave(queue, &change.now);
    return n;
}

/* ---- looking -------------------------------------------------------------------------------- */

int weir_shared_queue_get_snapshot(const weir_shared_queue *queue,
                                   weir_shared_queue_snapshot *ret_snapshot)
{
    const shared *s = queue->shared;
    weir__tide now;
    weir__losses losses;
    if (ret_snapshot->size != sizeof *ret_snapshot)
        return WEIR_EINVAL; /* there is one version so far */
    weir__ring_look(&queue->ring, &now, &losses);
    *ret_snapshot = (weir_shared_queue_snapshot){
        .size = sizeof *ret_snapshot,
        .capacity = (size_t)s->capacity,
        .max_bytes = s->max_bytes,
        .depth = now.depth,
        .bytes = now.bytes,
        .accepted = now.accepted,
        .accepted_bytes = now.accepted_bytes,
        .delivered = now.delivered,
        .delivered_bytes = now.delivered_bytes,
        .refused = GET(s->refused),
        .put_blocked_ns = GET(s->put_blocked_ns),
        .get_blocked_ns = GET(s->get_blocked_ns),
        .putters_waiting = weir__line_count(&s->line, WEIR__PUTTERS),
        .getters_waiting = weir__line_count(&s->line, WEIR__GETTERS),
        .peak_depth = (size_t)GET(s->peak),
        .recovered = GET(s->door.recovered),
        .closed = GET(s->closed),
        .above_high = GET(s->above),
    };
    memcpy(ret_snapshot->dropped, losses.dropped, sizeof losses.dropped);
    memcpy(ret_snapshot->dropped_bytes, losses.dropped_bytes, sizeof losses.dropped_bytes);
    return WEIR_OK;
}

size_t weir_shared_queue_depth(const weir_shared_queue *queue)
{
    weir__tide now;
    weir__losses losses;
    weir__ring_look(&queue->ring, &now, &losses);
    return now.depth;
}

/* ---- beginning and end ---------------------------------------------------------------------- */

#define CAPACITY_MAX      INT32_MAX
#define MAX_BYTES_MAX     (UINT64_C(1) << 46)
#define MAX_BYTES_DEFAULT (UINT64_C(64) << 20)
#define SAMPLE_DEFAULT    10

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Where the parts of the file lie. */
typedef struct layout {
    uint32_t n_chunks, table_size;
    uint64_t table, stack, chunks, end;
} layout;

static layout layout_for(uint64_t capacity, uint64_t max_bytes)
{
    layout l;
    l.n_chunks = weir__ring_chunks(capacity, max_bytes);
    l.table_size = weir__ring_table_size(l.n_chunks);
    l.table = round_up(sizeof(shared), PAGE);
    l.stack = l.table + l.table_size * sizeof(uint32_t);
    l.chunks = round_up(l.stack + l.n_chunks * sizeof(uint32_t), WEIR__CHUNK);
    l.end = l.chunks + l.n_chunks * WEIR__CHUNK;
    return l;
}

/* The handle of a file that is as long as its layout; owns fd if it succeeds. */
static int open_handle(weir_shared_queue **ret_queue, int fd, const layout *l)
{
    weir_shared_queue *queue = weir__calloc(1, sizeof *queue);
    char *at = queue ? weir__memfd_map(fd, 0, l->end) : NULL;
    if (!at) {
        weir__free(queue);
        return WEIR_ENOMEM;
    }
    queue->shared = (shared *)at;
    queue->mapped = l->end;
    queue->ring = (weir__ring){
        .shared = &queue->shared->ring,
        .table = (uint32_t *)(at + l->table),
        .stack = (uint32_t *)(at + l->stack),
        .chunks = at + l->chunks,
        .chunks_offset = l->chunks,
        .n_chunks = l->n_chunks,
        .table_mask = l->table_size - 1,
        .fd = fd,
    };
    *ret_queue = queue;
    return WEIR_OK;
}

static void set_marks(weir_shared_queue *queue)
{
    weir__marks_default(&queue->marks, bound(queue->shared));
}

static int fill_in(weir_shared_queue *queue, const weir_shared_queue_opts *opts, uint64_t max_bytes)
{
    shared *s = queue->shared;
    s->magic = MAGIC;
    s->version = VERSION;
    s->size = sizeof *s;
    s->capacity = opts->capacity;
    s->max_bytes = max_bytes;
    s->max_age_ns = opts->max_age_ns;
    s->overflow = (uint32_t)opts->overflow;
    s->keep_one_of = opts->sample_keep_one_of ? opts->sample_keep_one_of : SAMPLE_DEFAULT;
    s->is_named = opts->name != NULL;
    if (opts->name)
        weir__page_copy_name(s->name, opts->name);
    weir__ring_init(&queue->ring);
    set_marks(queue);
    int rc = weir__door_init(&s->door);
    return rc < 0 ? rc : weir__line_init(&s->line);
}

static void begin_telling(weir_shared_queue *queue)
{
    const shared *s = queue->shared;
    char name[sizeof s->name];
    memcpy(name, s->name, sizeof name);
    name[sizeof name - 1] = '\0'; /* whatever a stranger's file says */
    weir__shared_record_open(&queue->record, WEIR_STATS_SHARED_QUEUE, s->is_named ? name : NULL);
    tell_gauges(queue);
}

int weir_shared_queue_create(weir_shared_queue **ret_queue, const weir_shared_queue_opts *opts)
{
    if (opts->size != sizeof *opts)
        return WEIR_EINVAL; /* there is one version so far */
    if (opts->capacity == 0 || opts->capacity > CAPACITY_MAX || opts->max_bytes > MAX_BYTES_MAX ||
        opts->max_age_ns < 0 || (unsigned)opts->overflow > WEIR_OVERFLOW_SAMPLE ||
        opts->sample_keep_one_of == 1)
        return WEIR_EINVAL;
    uint64_t max_bytes = opts->max_bytes;
    if (max_bytes == 0)
        max_bytes = opts->capacity > MAX_BYTES_DEFAULT / 1024 ? (uint64_t)opts->capacity * 1024
                                                              : MAX_BYTES_DEFAULT;
    layout l = layout_for(opts->capacity, max_bytes);
    int fd;
    int rc = weir__memfd_create(&fd, "weir-queue");
    if (rc < 0)
        return rc;
    weir_shared_queue *queue = NULL;
    rc = weir__memfd_reserve(fd, 0, l.chunks);
    if (rc == WEIR_OK) /* and as long as its mapping, whatever else is reserved */
        rc = weir__memfd_reserve(fd, l.end - PAGE, PAGE);
    if (rc == WEIR_OK)
        rc = open_handle(&queue, fd, &l);
    if (rc == WEIR_OK)
        rc = fill_in(queue, opts, max_bytes);
    if (rc < 0) {
        weir_shared_queue_destroy(queue);
        if (!queue)
            close(fd);
        return rc;
    }
    begin_telling(queue);
    *ret_queue = queue;
    return WEIR_OK;
}

/* What a stranger's file says is checked before it is believed. */
static int read_layout(int fd, layout *ret_layout)
{
    uint64_t size;
    if (weir__memfd_size(fd, &size) < 0 || size < sizeof(shared))
        return WEIR_EINVAL;
    const shared *s = weir__memfd_map(fd, 0, sizeof *s);
    if (!s)
        return errno == ENOMEM ? WEIR_ENOMEM
                               : WEIR_EINVAL; /* not a file that can be mapped and written */
    int rc = WEIR_EINVAL;
    if (s->magic == MAGIC && s->version == VERSION && s->size == sizeof *s && s->capacity > 0 &&
        s->capacity <= CAPACITY_MAX && s->max_bytes > 0 && s->max_bytes <= MAX_BYTES_MAX &&
        s->overflow <= WEIR_OVERFLOW_SAMPLE) {
        *ret_layout = layout_for(s->capacity, s->max_bytes);
        rc = ret_layout->end == size ? WEIR_OK : WEIR_EINVAL;
    }
    weir__memfd_unmap((void *)s, sizeof *s);
    return rc;
}

int weir_shared_queue_attach(weir_shared_queue **ret_queue, int fd)
{
    layout l;
    int rc = read_layout(fd, &l);
    if (rc < 0)
        return rc;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0)
        return WEIR_ENOFD;
    weir_shared_queue *queue;
    rc = open_handle(&queue, own, &l);
    if (rc < 0) {
        close(own);
        return rc;
    }
    set_marks(queue);
    begin_telling(queue);
    *ret_queue = queue;
    return WEIR_OK;
}

int weir_shared_queue_fd(const weir_shared_queue *queue)
{
    return queue->ring.fd;
}

void weir_shared_queue_destroy(weir_shared_queue *queue)
{
    if (!queue)
        return;
    close(queue->ring.fd);
    weir__memfd_unmap(queue->shared, queue->mapped);
    weir__shared_record_close(&queue->record);
    weir__free(queue);
}
