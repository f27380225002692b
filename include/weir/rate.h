/* rate.h - a token bucket: so much in a time, and so much at once; quoted by weir_rate(3).
 *
 * Bound:      what is granted at times in any window <= rate x window + burst, to a millionth of a
 *             token; by all threads, and all processes that share the bucket, together.
 * Order:      those who wait in one process are served first come, first served; the first of each
 *             process in the order in which they became that.  A try never overtakes who waits, and
 *             one that costs much is not starved by those that cost little.
 * Law:        in tokens, for all handles together: granted - returned is what callers hold.
 * Clock:      CLOCK_MONOTONIC only.  Nothing drifts: rates are fractions of integers, and no
 *             remainder is lost in decades.
 * Shared:     a bucket with a name is one for all processes of the user on this host.  Nothing is
 *             held for who waits, so a process that is killed takes nothing with it but what it was
 *             granted, and a reservation of its own.  It may be used on both sides of a fork.
 */
#ifndef WEIR_RATE_H
#define WEIR_RATE_H

#include <weir/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_rate weir_rate;

typedef struct weir_rate_opts {
    size_t size;    /* sizeof(weir_rate_opts); set by WEIR_RATE_OPTS_INIT */
    uint64_t rate;  /* tokens in per_ns, 1 to 2^40; required */
    int64_t per_ns; /* 1 to 2^61 (73 years); 0: a second.  At most 1000 tokens in a nanosecond */
    uint64_t burst; /* tokens at once, 1 to 2^38 - 1; 0: as many as `rate` */
    const char *shared; /* the name of a bucket that processes share: 1 to 64 letters, digits, '.',
                           '_', '-', not beginning with '.'; NULL: this process's own.  Where it
                           exists already, it is as who made it, or changed it, said. */
    const char
        *name; /* what weir_stats(3) calls it; up to 63 bytes of it are copied.  NULL: "rate-1"
                           and so on; "": other processes do not see it.
                           A shared one: its shared name */
} weir_rate_opts;

#define WEIR_RATE_OPTS_INIT WEIR__SIZED(weir_rate_opts)

/* A bucket begins full.  WEIR_EINVAL for an option out of range, WEIR_ENOMEM; shared:
 * WEIR_EINVAL (what has the name is not ours), WEIR_EFULL (1024 processes have it), WEIR_ETIMEDOUT
 * (another is stopped in the middle of this call), WEIR_ENOSHM, WEIR_ENOFD, WEIR_ESYSTEM. */
WEIR_API int weir_rate_create(weir_rate **ret_rate, const weir_rate_opts *opts);

/* Lets go of the handle (NULL is fine).  No other thread may be in a call on it, or come to one, and
 * nobody may wait: close it and join them first.  A shared bucket ends with its last process when
 * it is full; one that is not is found again as it is. */
WEIR_API void weir_rate_destroy(weir_rate *rate);

/* Takes `cost` tokens, waiting for them until the deadline.  < 0: WEIR_EFULL (WEIR_POLL: they are
 * not there, or others wait), WEIR_ETIMEDOUT, WEIR_ECLOSED, WEIR_EINTR, WEIR_ETOOBIG (more than
 * the burst), WEIR_EINVAL (cost 0): nothing was taken.
 * Takes WEIR_PROBE, which is refused with WEIR_EFULL.
 * Where it is known already that the tokens cannot be there by the deadline, WEIR_ETIMEDOUT comes
 * at once (a rate that is raised meanwhile, or those ahead giving up, might have made it true). */
WEIR_API int weir_rate_acquire(weir_rate *rate, uint64_t cost, weir_time deadline);

/* The same without a thread, for event loops.  WEIR_OK, or WEIR_WAITING: then call weir_rate_poll
 * at *ret_at, or earlier when `ready` is called.  `ready` is a hint here: it says WEIR_WAITING ("poll
 * now"), any number of times, on any thread that changed something, with no lock held; it must not
 * call into the bucket.  The place in line is kept until poll has returned something else than
 * WEIR_WAITING, or cancel was called; neither returns while `ready` is running.
 * Who does not poll for 100 ms after its time is passed over as long as it does not. */
WEIR_API int weir_rate_acquire_async(weir_rate *rate, uint64_t cost, weir_pending *pending,
                                     weir_time *ret_at);

/* WEIR_OK: taken.  WEIR_WAITING: poll again at *ret_at, or when `ready` is called.  < 0: WEIR_ECLOSED, WEIR_ETOOBIG (the burst was
 * made smaller), WEIR_EINVAL (it does not wait). */
WEIR_API int weir_rate_poll(weir_rate *rate, weir_pending *pending, weir_time *ret_at);

/* Leaves the line; nothing was taken.  Nothing happens to one that does not wait any more. */
WEIR_API void weir_rate_cancel(weir_rate *rate, weir_pending *pending);

/* Tokens taken in advance.  Plain memory; belongs to the caller. */
typedef struct weir_reservation {
    uint64_t cost;      /* tokens */
    uint64_t opaque[4]; /* where they lie */
} weir_reservation;

/* Takes `cost` tokens now, whether they are there or not, to be used at *ret_at (now, or later) and
 * not before.  It comes after those who wait, and before who comes later.  < 0: WEIR_ETOOBIG (more
 * than the burst), WEIR_EFULL (more than 2^40 tokens are owed), WEIR_ECLOSED, WEIR_EINVAL. */
WEIR_API int weir_rate_reserve(weir_rate *rate, uint64_t cost, weir_time *ret_at,
                               weir_reservation *ret_reservation);

/* When it may be used, after a change of the rate. */
WEIR_API weir_time weir_rate_due(weir_rate *rate, const weir_reservation *reservation);

/* Gives the tokens back, which must not have been used.  1: they are back.  0: they cannot be, because
 * others have taken theirs after them, or had waited since before, and were told times that count on
 * it; they are lost, and nobody exceeds the bound.  Once for each reservation. */
WEIR_API int weir_rate_unreserve(weir_rate *rate, const weir_reservation *reservation);

/* Changes rate and burst for everybody who has the bucket, those who wait included (in other
 * processes: within 50 ms); 0 for per_ns and burst as in the options.  What is inside stays, up to the
 * burst.  WEIR_EINVAL: out of range; WEIR_EINTR: a process was stopped in the middle of the same. */
WEIR_API int weir_rate_set(weir_rate *rate, uint64_t tokens, int64_t per_ns, uint64_t burst);

/* Who waits on this handle returns WEIR_ECLOSED, and so does who comes.  A shared bucket stays open
 * on other handles.  Closing twice is fine. */
WEIR_API void weir_rate_close(weir_rate *rate);

typedef struct weir_rate_snapshot {
    size_t size; /* sizeof(weir_rate_snapshot); set by WEIR_RATE_SNAPSHOT_INIT */
    uint64_t rate;
    int64_t per_ns;
    uint64_t burst;
    int64_t available;   /* whole tokens inside, <= burst; < 0: so many are owed */
    uint64_t granted;    /* tokens, to acquires and reservations */
    uint64_t returned;   /* tokens, by unreserve */
    uint64_t refused;    /* calls that ended WEIR_EFULL or WEIR_ETIMEDOUT */
    uint64_t blocked_ns; /* waited, summed over waits that have ended */
    size_t waiting;      /* on this handle */
    bool closed;         /* this handle */
} weir_rate_snapshot;

#define WEIR_RATE_SNAPSHOT_INIT WEIR__SIZED(weir_rate_snapshot)

/* Each field is right by itself; of a shared bucket the counts are those of all processes (one that
 * is killed may miss its last).  WEIR_EINVAL: *ret_snapshot was not initialised. */
WEIR_API int weir_rate_get_snapshot(weir_rate *rate, weir_rate_snapshot *ret_snapshot);

#ifdef __cplusplus
}
#endif

#endif
