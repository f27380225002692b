/* shared_line.h - waiting in line for one's turn, with processes that may be killed meanwhile.
 *
 * Turn:       a waiter is called, not served: nothing is ever put into the hands of somebody who
 *             may be dead.  Called, it takes the lock and helps itself, and what it waits for is
 *             left to it by everybody behind it.
 * Killed:     each waiter holds the robust lock of its place, which the kernel releases when it
 *             dies.  Whoever would have to stand back for a waiter looks at that first.
 * Stopped:    a waiter that was called and has not come for OVERDUE is passed over; it keeps its
 *             place, and is heeded again when it comes back.
 * Wake-ups:   a waiter reads its bell under the lock, and who calls it rings under the lock, so
 *             none is missed.  One that its sender owed when it was killed is made up for by the
 *             waiter, which looks for itself every SLICE.
 * Threads:    everything but ring, sleep, and leaving where that cannot be helped, happens under the
 *             queue's lock.
 */
#ifndef WEIR_FLOW_SHARED_LINE_H
#define WEIR_FLOW_SHARED_LINE_H

#include <stdatomic.h>

#include "base/robust.h"
#include "model/overflow.h"

#define WEIR__PLACES  256u
#define WEIR__OVERDUE (100 * WEIR_MILLISECOND)
#define WEIR__SLICE   (50 * WEIR_MILLISECOND)

/* A set of places. */
typedef struct weir__places {
    uint64_t words[WEIR__PLACES / 64];
} weir__places;

typedef struct weir__place {
    _Alignas(64) weir__robust taken; /* held by the thread that waits here */
    uint64_t ticket;                 /* who has the smaller one came earlier */
    uint64_t cost;                   /* how much of it it waits for, in bytes */
    uint32_t kind;                   /* the owner's own; 0 when it joins */
    weir_time called;                /* since when its turn is announced; 0: it is not */
    _Atomic uint32_t bell;           /* futex: counts the calls */
} weir__place;

enum weir__side { WEIR__PUTTERS, WEIR__GETTERS, WEIR__SIDES };

/* In the file. */
typedef struct weir__line {
    /* Who waits for what; a bit is set after its place was filled in. */
    _Atomic uint64_t waiting[WEIR__SIDES][WEIR__PLACES / 64];
    uint64_t last_ticket;
    weir__place places[WEIR__PLACES];
} weir__line;

int weir__line_init(weir__line *line);

/* How many wait; without the lock. */
size_t weir__line_count(const weir__line *line, enum weir__side side);

static inline bool weir__line_is_empty(const weir__line *line, enum weir__side side)
{
    uint64_t any = 0;
    for (size_t i = 0; i < WEIR__PLACES / 64; i++)
        any |= atomic_load_explicit(&line->waiting[side][i], memory_order_relaxed);
    return any == 0;
}

/* Takes a place behind all others; NULL: there is none left. */
weir__place *weir__line_join(weir__line *line, enum weir__side side, uint64_t cost);

/* Also without the lock, by who cannot get it in time.  (If it was called, nobody takes its turn
 * before the next one looks for itself: as if it had been killed.) */
void weir__line_leave(weir__line *line, enum weir__side side, weir__place *place);

/* Those who come before the ticket and have to be waited for: how many, and their costs. */
weir__load weir__line_ahead(weir__line *line, enum weir__side side, uint64_t ticket);

/* Those called who have not come yet and are not overdue. */
weir__load weir__line_called(weir__line *line, enum weir__side side);

/* The first who is not called, and alive; NULL: nobody. */
weir__place *weir__line_next(weir__line *line, enum weir__side side);

/* The same in another order than that of coming: whether a comes before b. */
typedef bool weir__before_fn(const weir__place *a, const weir__place *b, const void *ctx);
weir__load weir__line_before(weir__line *line, enum weir__side side, const weir__place *place,
                             weir__before_fn *before, const void *ctx);
weir__place *weir__line_first(weir__line *line, enum weir__side side, weir__before_fn *before,
                              const void *ctx);

/* Calls it; whoever frees the lock then rings. */
void weir__line_call(weir__line *line, weir__place *place, weir__places *bells);
void weir__line_ring(weir__line *line, const weir__places *bells);

/* Without the lock: until called (the bell is no longer as read), the deadline, or one SLICE: 0;
 * WEIR_EINTR.  place NULL: there was none; sleeps for a moment. */
int weir__line_sleep(weir__place *place, uint32_t bell, weir_time deadline);

#endif
