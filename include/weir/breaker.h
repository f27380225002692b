/* breaker.h - circuit breaker; the contract, quoted by weir_breaker(3).
 *
 * Stops calling what fails: while too many of the recent calls failed, or were slow, calls are
 * rejected at once, and now and then a few are let through to see whether it is better.
 *
 * Invariant, at the instant of every snapshot:
 *     admitted == succeeded + failed + ignored + expired + in_flight
 * States:     CLOSED -> OPEN -> HALF_OPEN -> CLOSED or OPEN; any -> ISOLATED (by weir_breaker_isolate);
 *             any -> CLOSED (by weir_breaker_reset).  No others.  Time alone changes nothing: OPEN
 *             becomes HALF_OPEN when a call comes.
 * Bound:      calls admitted while half-open (probes) that have neither reported nor expired are never
 *             more than half_open_calls.
 * Epochs:     what a call reports counts for the state that it was admitted in.  When that has ended it
 *             decides nothing.
 * Waiting:    no call waits.  A call that is under way holds no lock, however long it takes.
 */
#ifndef WEIR_BREAKER_H
#define WEIR_BREAKER_H

#include <weir/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_breaker weir_breaker;

typedef enum weir_breaker_state {
    WEIR_BREAKER_CLOSED = 0, /* calls are made */
    WEIR_BREAKER_OPEN,       /* calls are rejected */
    WEIR_BREAKER_HALF_OPEN,  /* a few calls are made */
    WEIR_BREAKER_ISOLATED,   /* calls are rejected until weir_breaker_reset */
} weir_breaker_state;

/* "closed", "open", "half_open", "isolated"; static storage. */
WEIR_API const char *weir_breaker_state_name(int state);

/* Called once for each transition, in their order, one call at a time, with no lock held, on a thread
 * that is in a call on the breaker.  It may call back into the breaker, but not destroy it. */
typedef void weir_breaker_change_fn(weir_breaker_state from, weir_breaker_state to, void *ctx);

typedef struct weir_breaker_opts {
    size_t size;           /* sizeof(weir_breaker_opts); set by WEIR_BREAKER_OPTS_INIT */
    uint32_t window_calls; /* judge by the last so many calls, <= 1,000,000; default 100 */
    int64_t window_ns;     /* > 0: judge by the calls of the last so many nanoseconds instead, then
                              window_calls must be 0; counted in 32 steps */
    uint32_t min_calls;    /* in the window before it is judged, <= window_calls; default 20, or
                              window_calls if that is less */
    double failure_ratio;  /* opens when at least this share of the window failed, (0, 1];
                              default 0.5 */
    int64_t slow_call_ns;  /* a call that takes this long or longer is slow; 0: none is */
    double slow_ratio;     /* opens when at least this share of the window was slow, (0, 1];
                              default 0.5 */
    uint32_t half_open_calls; /* probes of one half-open state, <= 10,000; default 10.  It is judged
                                 by the two ratios, as soon as the outcome is certain */
    int64_t half_open_max_ns; /* a probe that has not reported by then has expired: it counts as
                                 failed, and its report not at all; default 30 s */
    int64_t open_ns;          /* from opening until the first probe; default 5 s */
    int64_t max_open_ns;      /* >= open_ns; default 60 s, or open_ns if that is more */
    double multiplier;        /* of the open time each time that probing failed, until it closes;
                                 >= 1; default 2 */
    double jitter;            /* the open time is longer by a random share of itself up to this, so
                                 that many clients do not come back together, [0, 1] */
    weir_breaker_change_fn *on_change; /* NULL: none */
    void *change_ctx;
    const char *name; /* what weir_stats(3) calls it; up to 63 bytes of it are copied.  NULL:
                         "breaker-1" and so on; "": other processes do not see it */
} weir_breaker_opts;

#define WEIR_BREAKER_OPTS_INIT WEIR__SIZED(weir_breaker_opts)

/* A closed breaker.  WEIR_EINVAL for an option out of range, WEIR_ENOMEM. */
WEIR_API int weir_breaker_create(weir_breaker **ret_breaker, const weir_breaker_opts *opts);

/* NULL is fine.  No other thread may be in a call on it, or come to one. */
WEIR_API void weir_breaker_destroy(weir_breaker *breaker);

/* A call that was admitted; the caller's, to be given back unchanged. */
typedef struct weir_breaker_call {
    weir_time began; /* 0: nobody asks */
    uint64_t epoch;
    uint32_t probe, serial;
    bool admitted;
} weir_breaker_call;

/* What became of it. */
typedef enum weir_call_result {
    WEIR_CALL_SUCCESS = 0,
    WEIR_CALL_FAILURE,
    WEIR_CALL_IGNORED, /* it says nothing about what was called: it was cancelled, say */
} weir_call_result;

/* Asks before a call.  WEIR_OK: make it, and report it.  WEIR_EOPEN: do not; *ret_call is
 * untouched. */
WEIR_API int weir_breaker_admit(weir_breaker *breaker, weir_breaker_call *ret_call);

/* Reports an admitted call, once, from any thread; how long it took is measured from admit to here.
 * WEIR_EINVAL: it has been reported already, or was not admitted, or there is no such result;
 * nothing happened. */
WEIR_API int weir_breaker_report(weir_breaker *breaker, weir_breaker_call *call,
                                 weir_call_result result);

/* Rejects all calls from now on, until weir_breaker_reset.  WEIR_EFULL: on_change has 64 transitions
 * to be told of first, because it does not return; nothing happened. */
WEIR_API int weir_breaker_isolate(weir_breaker *breaker);

/* Closes the breaker and forgets the window.  WEIR_EFULL as above. */
WEIR_API int weir_breaker_reset(weir_breaker *breaker);

/* Nanoseconds until a call may be admitted: 0 when one may be now, INT64_MAX while isolated. */
WEIR_API int64_t weir_breaker_retry_after(weir_breaker *breaker);

typedef struct weir_breaker_snapshot {
    size_t size; /* sizeof(weir_breaker_snapshot); set by WEIR_BREAKER_SNAPSHOT_INIT */
    weir_breaker_state state;
    uint64_t admitted;                   /* calls */
    uint64_t succeeded, failed, ignored; /* as reported */
    uint64_t expired;                    /* probes that did not report in time */
    uint64_t in_flight;                  /* admitted, and none of these yet */
    uint64_t rejected;                   /* not admitted */
    uint64_t slow;                       /* of succeeded and failed */
    uint64_t stale;                      /* of succeeded and failed: their state had ended */
    uint64_t late;                       /* reports of expired probes, counted nowhere else */
    uint64_t opened;                     /* how often */
    uint64_t window_calls, window_failed, window_slow; /* what it is judged by now: the window, or
                                                          of a half-open breaker the probes */
    uint32_t probes, peak_probes;                      /* under way now, and the most ever */
    int64_t retry_after_ns;                            /* as weir_breaker_retry_after */
    int64_t open_ns; /* the open time that holds now, without jitter */
} weir_breaker_snapshot;

#define WEIR_BREAKER_SNAPSHOT_INIT WEIR__SIZED(weir_breaker_snapshot)

/* One instant, all fields consistent; it changes nothing. */
WEIR_API int weir_breaker_get_snapshot(weir_breaker *breaker, weir_breaker_snapshot *ret_snapshot);

/* The state now; a hint by the time it returns. */
WEIR_API weir_breaker_state weir_breaker_get_state(weir_breaker *breaker);

#ifdef __cplusplus
}
#endif

#endif
