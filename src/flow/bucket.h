/* bucket.h - a token bucket that threads and processes take from without a lock, and the line of
 * those processes that have to wait.
 *
 * Taking:     one compare-exchange of `taken` (model/rate.h), at the moment at which it is allowed.
 *             Nothing is booked for who waits; so who is killed, or leaves, or oversleeps has taken
 *             nothing, and the bound holds for the times at which tokens were really taken.
 * Turns:      a process that waits has one place in the line: a ticket and a cost.  Whoever is
 *             behind takes only what leaves those ahead their cost, in whatever order they wake up:
 *             so a large cost is not starved, and nobody waits for another's wake-up unless the
 *             burst is too small for both.  Who has been able to take for 100 ms and has not (it is
 *             stopped) is passed over; who was killed loses its place.
 * Owing:      a reservation takes tokens that are not there yet.  Who waited before it does not wait
 *             longer for that: it is told a time that leaves them theirs.  A turn is begun and used,
 *             and a reservation made and given back, under a lock, so that both agree on who was
 *             first; a process that is stopped inside holds up nobody for longer than 50 ms, and
 *             then one cost may be promised twice.
 * Terms:      lie there twice, and one store of one word says which of the two holds: a kill at any
 *             instruction leaves the old ones or the new ones.
 */
#ifndef WEIR_FLOW_BUCKET_H
#define WEIR_FLOW_BUCKET_H

#include "base/named.h"
#include "base/robust.h"
#include "flow/record.h"
#include "model/rate.h"

typedef struct weir__bucket_page weir__bucket_page;

/* A process's way to it. */
typedef struct weir__bucket {
    weir__bucket_page *page;
    weir__named *named; /* tells the dead from the living; NULL: one process has it */
    unsigned seat;      /* 0 where there is one process */
    /* Where it counts, see weir__bucket_counts; nobody decides by that. */
    _Atomic uint64_t *granted, *returned, *refused;
    weir__shared_record *part; /* what of it was ours, counted as well; NULL: it was all ours */
} weir__bucket;

/* A place in the line of the processes; {.slot = -1} is none. */
typedef struct weir__turn {
    int slot;
    uint64_t ticket;
    /* At the time it was taken: what was taken, reserved and returned by then. */
    uint64_t taken, reserved, returned;
    bool
        is_anothers; /* a copy, for one behind who has the turn: those who reserved did not count him */
} weir__turn;

#define WEIR__NO_TURN ((weir__turn){.slot = -1})

size_t weir__bucket_size(unsigned slots);

/* Makes it full, in zeroed memory.  WEIR_ENOMEM, WEIR_ESYSTEM. */
int weir__bucket_init(weir__bucket_page *page, unsigned slots, const weir__rate_terms *terms);

/* Of a block with a seat for each process; made with its terms as ctx; not kept when it is full. */
extern const weir__named_ops weir__bucket_ops;

weir__rate_terms weir__bucket_terms(const weir__bucket *bucket);

/* Other terms from now on, burst in grains.  WEIR_EINTR: a process is stopped in the middle of the
 * same. */
int weir__bucket_set(const weir__bucket *bucket, uint64_t rate, uint64_t per_ns, uint64_t burst,
                     weir_time now);

/* Takes a cost (all costs in grains) unless somebody waits.  The cost is within the burst. */
bool weir__bucket_try(const weir__bucket *bucket, uint64_t cost, weir_time now);

/* Comes to the end of the line; again for the next of the same process once its turn is used. */
void weir__bucket_enter(const weir__bucket *bucket, weir__turn *turn, uint64_t cost);

/* Another one of the same process has the turn: the place stays. */
void weir__bucket_hand_on(const weir__bucket *bucket, weir__turn *turn, uint64_t cost);

void weir__bucket_leave(const weir__bucket *bucket, weir__turn *turn);

/* The first of those ahead of the turn loses its place if it was killed, also where there is not enough for
 * it yet: what it waited for keeps nobody out.  A system call, so not for each look. */
void weir__bucket_bury_first(const weir__bucket *bucket, const weir__turn *turn, weir_time now);

/* Takes a cost if that leaves theirs to those ahead of the turn, and `also_ahead` to others.
 * false: *ret_when is the earliest time at which it may work. */
bool weir__bucket_take(const weir__bucket *bucket, const weir__turn *turn, uint64_t cost,
                       uint64_t also_ahead, weir_time now, weir_time *ret_when);

/* The same without taking. */
weir_time weir__bucket_when(const weir__bucket *bucket, const weir__turn *turn, uint64_t cost,
                            uint64_t also_ahead, weir_time now);

/* What was taken in advance. */
typedef struct weir__owed {
    uint64_t begin, end; /* positions of `taken` */
    uint64_t due;        /* the supply has to be there for it to be used */
    uint64_t ticket;     /* who has a later one came after it */
} weir__owed;

/* Takes a cost, owing what is not there.  false: too much is owed already. */
bool weir__bucket_reserve(const weir__bucket *bucket, uint64_t cost, weir_time now,
                          weir__owed *ret_owed);

/* Gives it back, if nobody has taken anything after it, and nobody who waits had come before it. */
bool weir__bucket_unreserve(const weir__bucket *bucket, const weir__owed *owed);

/* Counts from now on: in a record that other processes see, or (NULL) in the page; and in `part`, unless it
 * is NULL.  What callers waited is always in the page: who has a record of his own tells it by his line. */
void weir__bucket_begin_counting(weir__bucket *bucket, weir__record *record,
                                 weir__shared_record *part);

/* Of all processes together. */
typedef struct weir__bucket_counts {
    uint64_t granted, returned;   /* tokens */
    uint64_t refused, blocked_ns; /* of calls */
} weir__bucket_counts;

/* Adds to the last two; the others are counted here. */
void weir__bucket_count(const weir__bucket *bucket, uint64_t refused, uint64_t blocked_ns);
weir__bucket_counts weir__bucket_get_counts(const weir__bucket *bucket);

/* Grains inside now; < 0: owed. */
int64_t weir__bucket_level(const weir__bucket *bucket, weir_time now);

#endif
