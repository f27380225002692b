/* limit.h - so many calls at a time: a fixed number, or one that is found; the contract, quoted by
 * weir_limit(3).
 *
 * Bound:      cost in flight <= limit at every instant; when the limit falls, nobody is admitted
 *             until that is so again.  (A call that costs more than an adaptive limit of the moment
 *             is admitted alone.)
 * Order:      who waits is admitted first come, first served, or the last first; those of a
 *             partition that has less than its share go first.  A later try never overtakes.
 * Law:        admitted == released + in flight + lost, in calls; lost is what processes held that
 *             were killed (shared limits).
 * Finding:    an adaptive limit learns from each call what it took, from its permit to its release,
 *             and whether it was dropped.  It stays in [min_limit, max_limit], and does not grow
 *             while less than half of it is used.
 * Threads:    all but create and destroy may be called from any thread.
 * Fork:       a private limit is the parent's; a shared one is usable on both sides, and what the
 *             parent has in flight stays the parent's.
 */
#ifndef WEIR_LIMIT_H
#define WEIR_LIMIT_H

#include <weir/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_limit weir_limit;

#define WEIR_LIMIT_PARTITIONS 8u

typedef enum weir_limit_algorithm {
    WEIR_LIMIT_FIXED = 0,
    WEIR_LIMIT_AIMD,     /* grows by one, shrinks by a factor after a drop; sees no latency */
    WEIR_LIMIT_VEGAS,    /* keeps a few calls waiting in front of what serves them */
    WEIR_LIMIT_GRADIENT2 /* follows the ratio of the round trip without a queue to that with one */
} weir_limit_algorithm;

/* What the round trips of one window come to. */
typedef enum weir_limit_rtt {
    WEIR_LIMIT_RTT_AVERAGE = 0,
    WEIR_LIMIT_RTT_MINIMUM,
    WEIR_LIMIT_RTT_QUANTILE
} weir_limit_rtt;

typedef struct weir_limit_opts {
    size_t size; /* set by WEIR_LIMIT_OPTS_INIT */
    weir_limit_algorithm algorithm;
    uint64_t
        limit; /* FIXED: required, < 2^46; others: where to begin, 0: 20, or the nearest bound */

    /* adaptive limits */
    uint64_t min_limit, max_limit; /* 0: 1 and 1000 */
    int64_t timeout_ns; /* a call that took longer counts as dropped; 0: 5 s for AIMD, else none */
    double backoff;     /* AIMD: left after a drop, in [0.5, 1); 0: 0.9 */
    double alpha,
        beta; /* VEGAS: calls that should wait, from and to; 0: 3 log10(limit), 6 log10(limit),
                           but at most 1/32 and 1/16 of the limit, and at least 2 */
    double smoothing; /* how much of a step is taken, (0, 1]; 0: VEGAS 1, GRADIENT2 0.2 */
    double tolerance; /* GRADIENT2: how much longer than without a queue is fine, >= 1; 0: 1 */
    double queue;     /* GRADIENT2: calls that may wait; 0: 5 % of the limit, at least 1 */
    weir_limit_rtt rtt;
    double quantile;           /* for RTT_QUANTILE, (0, 1); 0: 0.5 */
    uint32_t window_samples;   /* of a window, at least; 0: 10 */
    int64_t window_ns;         /* its least length; 0: one round trip */
    int64_t probe_interval_ns; /* VEGAS, GRADIENT2: how often the round trip without a queue is
                                  measured again; 0: 10 s; WEIR_FOREVER: never */

    /* waiting */
    unsigned n_partitions;                /* up to WEIR_LIMIT_PARTITIONS; 0: one without a share */
    double shares[WEIR_LIMIT_PARTITIONS]; /* of the limit, guaranteed; sum <= 1 */
    bool lifo;
    int64_t shed_after_ns;    /* who has waited for longer than twice this is sent away (WEIR_ESHED)
                                 while nobody gets through quicker than this; 0: nobody */
    int64_t shed_interval_ns; /* for how long that has to be so; 0: 20 times shed_after_ns, which is
                                 CoDel's 100 ms for 5 ms */
    const char *shared;       /* a name: letters, digits, '.', '_', '-'; NULL: this process's own.
                                 Where it exists already, all other options are as who made it said
                                 (n_partitions has to be the same) */
    const char *name; /* what weir_stats(3) calls it; up to 63 bytes of it are copied.  NULL:
                                 "limit-1" and so on; "": other processes do not see it.
                                 A shared one: its shared name */
} weir_limit_opts;

#define WEIR_LIMIT_OPTS_INIT WEIR__SIZED(weir_limit_opts)

/* WEIR_EINVAL: an option or the name is out of range; WEIR_ENOMEM; shared: WEIR_EFULL (1024
 * processes have it), WEIR_ENOSHM, WEIR_ENOFD, WEIR_ESYSTEM. */
WEIR_API int weir_limit_create(weir_limit **ret_limit, const weir_limit_opts *opts);

/* Nobody may be in a call on it, or wait (NULL is fine).  What this process still has in flight of
 * a shared limit is given back with its last handle. */
WEIR_API void weir_limit_destroy(weir_limit *limit);

/* ---- admission ---------------------------------------------------------------------------- */

/* One call in flight.  The caller's memory; released once. */
typedef struct weir_permit {
    uint64_t cost;
    weir_time since; /* the call began; 0: not measured */
    unsigned partition;
} weir_permit;

/* Admits a call: cost in [1, 2^46), mostly 1; partition < n_partitions, or 0.  < 0: WEIR_EFULL
 * (WEIR_POLL, WEIR_PROBE), WEIR_ETIMEDOUT, WEIR_ECLOSED, WEIR_ESHED, WEIR_EINTR, WEIR_ETOOBIG (more
 * than a fixed limit, which may have been lowered meanwhile), WEIR_EINVAL; *ret_permit is untouched then. */
WEIR_API int weir_limit_acquire(weir_limit *limit, uint64_t cost, unsigned partition,
                                weir_time deadline, weir_permit *ret_permit);

/* The same without a thread: WEIR_OK, or WEIR_WAITING and `ready` is called with WEIR_OK or an
 * error. After WEIR_OK the permit is made by weir_limit_begin, where the call begins.  WEIR_EINVAL,
 * too, for a shared limit: no process can call another's `ready`. */
WEIR_API int weir_limit_acquire_async(weir_limit *limit, uint64_t cost, unsigned partition,
                                      weir_pending *pending);

/* The permit of a call that was admitted without one. */
WEIR_API void weir_limit_begin(weir_limit *limit, uint64_t cost, unsigned partition,
                               weir_permit *ret_permit);

/* Leaves the line: true, and `ready` is not called; it counts as refused.  false: it was, or is being
 * called. */
WEIR_API bool weir_limit_cancel(weir_limit *limit, weir_pending *pending);

/* Counts a call as refused that gave up before it was in line: one of several, say, for which one thread
 * stands in the line of a shared limit. */
WEIR_API void weir_limit_count_refused(weir_limit *limit);

/* What became of the call. */
typedef enum weir_limit_report {
    WEIR_LIMIT_SUCCESS = 0, /* its round trip counts */
    WEIR_LIMIT_DROP,        /* refused, or given up, because of overload */
    WEIR_LIMIT_IGNORE       /* says nothing: it failed early, say */
} weir_limit_report;

/* The call has ended. */
WEIR_API void weir_limit_release(weir_limit *limit, const weir_permit *permit,
                                 weir_limit_report report);

/* Changes a fixed limit while in use.  WEIR_EINVAL: adaptive, or n is 0 or 2^46 and more. */
WEIR_API int weir_limit_set(weir_limit *limit, uint64_t n);

/* Admits nobody any more; those of this process who wait get WEIR_ECLOSED.  A shared limit stays
 * open for the other processes. */
WEIR_API void weir_limit_close(weir_limit *limit);

/* ---- looking ------------------------------------------------------------------------------ */

/* Why the limit is what it is. */
typedef enum weir_limit_reason {
    WEIR_LIMIT_BY_HAND = 0, /* fixed */
    WEIR_LIMIT_INITIAL,     /* nothing is known yet */
    WEIR_LIMIT_ROOM,        /* grew: nobody waits behind it */
    WEIR_LIMIT_RIGHT,       /* stayed: a few wait, as they should */
    WEIR_LIMIT_QUEUE,       /* shrank: too many wait behind it */
    WEIR_LIMIT_DROPS,       /* shrank: a call was dropped, or timed out */
    WEIR_LIMIT_IDLE,        /* stayed: less than half of it is used */
    WEIR_LIMIT_PROBE,       /* lower for a moment, to measure the round trip without a queue */
    WEIR_LIMIT_FLOOR,       /* would shrink below min_limit */
    WEIR_LIMIT_CEILING      /* would grow above max_limit */
} weir_limit_reason;

/* As a phrase; static storage, never NULL. */
WEIR_API const char *weir_limit_why(int reason);

typedef struct weir_limit_snapshot {
    size_t size; /* set by WEIR_LIMIT_SNAPSHOT_INIT */
    weir_limit_algorithm algorithm;
    uint64_t limit;
    weir_limit_reason reason;
    int64_t rtt_ns;          /* of the last window; 0: none yet, or fixed */
    int64_t baseline_ns;     /* without a queue; 0: not known, or not needed */
    uint64_t samples, drops; /* of an adaptive limit; a call above timeout_ns is a drop */
    uint64_t used, peak;     /* cost in flight: now, and the most ever */
    uint64_t used_by[WEIR_LIMIT_PARTITIONS];
    unsigned n_partitions;
    /* calls; refused: EFULL, ETIMEDOUT and cancelled */
    uint64_t in_flight, admitted, released, refused, shed, lost;
    size_t waiting;
    uint64_t blocked_ns; /* waited, summed over waits that have ended */
    bool is_closed;
} weir_limit_snapshot;

#define WEIR_LIMIT_SNAPSHOT_INIT WEIR__SIZED(weir_limit_snapshot)

/* WEIR_EINVAL: not initialised.  The law holds in it; the other numbers are each right by
 * themselves. */
WEIR_API int weir_limit_get_snapshot(weir_limit *limit, weir_limit_snapshot *ret_snapshot);

/* Hints by the time they return: the limit, and the cost in flight. */
WEIR_API uint64_t weir_limit_get(const weir_limit *limit);
WEIR_API uint64_t weir_limit_used(const weir_limit *limit);

/* ---- the arithmetic alone ----------------------------------------------------------------- */

/* What finds an adaptive limit, without a clock, a lock or anybody who waits: for simulations, and
 * for who enforces limits otherwise.  Of one thread at a time. */
typedef struct weir_limit_model weir_limit_model;

/* `now` is any time in nanoseconds, here and below; it never goes back.  The options for waiting
 * are not looked at.  WEIR_EINVAL: also for FIXED; WEIR_ENOMEM. */
WEIR_API int weir_limit_model_create(weir_limit_model **ret_model, const weir_limit_opts *opts,
                                     weir_time now);
WEIR_API void weir_limit_model_destroy(weir_limit_model *model);

/* A call ended now that had taken rtt_ns > 0, while in_flight were, itself included.  Returns the
 * limit from now on. */
WEIR_API uint64_t weir_limit_model_sample(weir_limit_model *model, weir_time now, int64_t rtt_ns,
                                          uint64_t in_flight, weir_limit_report report);

/* What it knows; what only a weir_limit has is 0. */
WEIR_API int weir_limit_model_get_snapshot(const weir_limit_model *model,
                                           weir_limit_snapshot *ret_snapshot);

#ifdef __cplusplus
}
#endif

#endif
