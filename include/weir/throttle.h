/* throttle.h - keeping back requests that would probably be refused; the contract, quoted by
 * weir_throttle(3).
 *
 * The smooth alternative to a circuit breaker: of the requests of the last two minutes, a client lets
 * about `k` times as many go as its backend accepted, and keeps the others back at random:
 *     P(kept back) = max(0, (requests - k * accepts) / (requests + 1))
 * (Beyer and others, "Site Reliability Engineering", chapter 21).
 *
 * Invariant, at the instant of every snapshot:
 *     admitted == accepted + refused + ignored + in_flight
 * Waiting:    no call waits, and none holds a lock while a request is under way.
 */
#ifndef WEIR_THROTTLE_H
#define WEIR_THROTTLE_H

#include <weir/base.h>
#include <weir/breaker.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_throttle weir_throttle;

typedef struct weir_throttle_opts {
    size_t size;       /* sizeof(weir_throttle_opts); set by WEIR_THROTTLE_OPTS_INIT */
    double k;          /* >= 1: the less, the sooner it keeps requests back; default 2 */
    int64_t window_ns; /* how far back it looks, in 32 steps; default 120 s */
    double max_chance; /* P is at most this, (0, 1), so that some always go; default 0.95 */
} weir_throttle_opts;

#define WEIR_THROTTLE_OPTS_INIT WEIR__SIZED(weir_throttle_opts)

/* WEIR_EINVAL for an option out of range, WEIR_ENOMEM. */
WEIR_API int weir_throttle_create(weir_throttle **ret_throttle, const weir_throttle_opts *opts);

/* NULL is fine.  No other thread may be in a call on it, or come to one. */
WEIR_API void weir_throttle_destroy(weir_throttle *throttle);

/* Asks before a request.  WEIR_OK: make it, and report it.  WEIR_ESHED: keep it back. */
WEIR_API int weir_throttle_admit(weir_throttle *throttle);

/* Reports an admitted request, once; it counts in the window from here.  SUCCESS: the backend accepted
 * it.  FAILURE: it refused it, or did not answer.  IGNORED: neither.  WEIR_EINVAL: none is in flight,
 * or there is no such result; nothing happened. */
WEIR_API int weir_throttle_report(weir_throttle *throttle, weir_call_result result);

typedef struct weir_throttle_snapshot {
    size_t size;       /* sizeof(weir_throttle_snapshot); set by WEIR_THROTTLE_SNAPSHOT_INIT */
    uint64_t admitted; /* requests that were let go */
    uint64_t accepted, refused, ignored; /* as reported: SUCCESS, FAILURE, IGNORED */
    uint64_t in_flight;                  /* admitted and not reported */
    uint64_t shed;                       /* kept back */
    uint64_t window_requests;            /* of the window: reported or kept back */
    uint64_t window_accepts;             /* of these: accepted */
    double chance;                       /* P now */
} weir_throttle_snapshot;

#define WEIR_THROTTLE_SNAPSHOT_INIT WEIR__SIZED(weir_throttle_snapshot)

/* One instant, all fields consistent. */
WEIR_API int weir_throttle_get_snapshot(weir_throttle *throttle,
                                        weir_throttle_snapshot *ret_snapshot);

#ifdef __cplusplus
}
#endif

#endif
