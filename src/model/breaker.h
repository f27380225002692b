/* breaker.h - the states of a circuit breaker, and what moves it from one to the next.
 *
 *     CLOSED --- too many of the window failed, or were slow ------> OPEN
 *     OPEN ----- a call comes after the open time -----------------> HALF_OPEN
 *     HALF_OPEN  so many failed or were slow that it is certain ---> OPEN, for longer
 *                so few that it is certain ------------------------> CLOSED
 *     any ------ isolate ------------------------------------------> ISOLATED
 *     any ------ reset --------------------------------------------> CLOSED
 *
 * Law:        admitted == succeeded + failed + ignored + expired + in_flight
 * Epochs:     each state that is entered is a new epoch.  A report of an earlier one is counted above,
 *             but decides nothing any more.
 * Probes:     calls admitted while half-open.  Each has a slot until it reports, whatever happens to
 *             the state meanwhile, or until probe_ns have passed: then it has failed as far as the
 *             state is concerned.  So there are never more than half_open_calls of them, and
 *             half-open cannot last because of one that never reports.
 * Events:     each transition is noted for a listener, in order.  The note of one that nobody has to
 *             ask for is reserved before the one that leads to it, so none is ever lost; where notes
 *             run out it stays open.
 *
 * After Nygard, "Release It!", and what resilience4j's users found out (resilience4j#903).
 */
#ifndef WEIR_MODEL_BREAKER_H
#define WEIR_MODEL_BREAKER_H

#include "model/count_window.h"
#include "model/random.h"
#include "model/time_window.h"

typedef enum weir__breaker_state {
    WEIR__BREAKER_CLOSED,
    WEIR__BREAKER_OPEN,
    WEIR__BREAKER_HALF_OPEN,
    WEIR__BREAKER_ISOLATED,
} weir__breaker_state;

typedef enum weir__breaker_result {
    WEIR__BREAKER_SUCCESS,
    WEIR__BREAKER_FAILURE,
    WEIR__BREAKER_IGNORE,
} weir__breaker_result;

typedef struct weir__breaker_rules {
    uint32_t window_calls;        /* > 0: judge by the last so many calls; 0: by window_ns */
    int64_t window_ns;            /* > 0 where window_calls is 0 */
    uint32_t min_calls;           /* in the window before it is judged, > 0 */
    double failure_ratio;         /* (0, 1] */
    double slow_ratio;            /* (0, 1] */
    int64_t slow_ns;              /* a call that takes so long is slow; 0: none is */
    uint32_t half_open_calls;     /* probes, > 0 */
    int64_t probe_ns;             /* until a probe is given up, > 0 */
    int64_t open_ns, max_open_ns; /* 0 < open <= max */
    double multiplier;            /* of the open time, each time that probing fails; >= 1 */
    double jitter;                /* the open time is longer by up to this share, at random; >= 0 */
} weir__breaker_rules;

typedef struct weir__breaker_event {
    uint8_t from, to; /* weir__breaker_state */
} weir__breaker_event;

#define WEIR__BREAKER_EVENTS 64

typedef struct weir__probe {
    int64_t expires_at;
    uint64_t epoch;
    uint32_t serial; /* of who had the slot last */
    bool out;
} weir__probe;

typedef struct weir__breaker_counts {
    uint64_t admitted, succeeded, failed, ignored, expired, in_flight;
    uint64_t rejected;
    uint64_t slow;  /* of succeeded and failed */
    uint64_t stale; /* of succeeded and failed: reported in a later epoch than admitted */
    uint64_t late;  /* reports of expired probes */
    uint64_t opened;
} weir__breaker_counts;

typedef struct weir__breaker {
    weir__breaker_rules rules;
    weir__breaker_state state;
    uint64_t epoch;
    weir__breaker_counts counts;

    weir__count_window by_count; /* the window of the two that the rules say */
    weir__time_window by_time;

    int64_t open_for_ns; /* the open time now, without jitter */
    int64_t open_until;  /* nanoseconds; while OPEN */
    weir__random random;

    weir__tally trial;   /* of this half-open epoch; an expired probe has failed */
    uint32_t trial_out;  /* its probes without a verdict */
    weir__probe *probes; /* half_open_calls slots */
    uint32_t probes_out, probes_peak;
    int64_t next_expiry; /* no probe expires before; nanoseconds */

    bool listening;
    uint32_t first_event, n_events;
    weir__breaker_event events[WEIR__BREAKER_EVENTS];
} weir__breaker;

/* What the breaker has to know again when the call reports. */
typedef struct weir__breaker_call {
    int64_t began_ns;
    uint64_t epoch;
    uint32_t probe; /* slot + 1; 0: it is none */
    uint32_t serial;
} weir__breaker_call;

/* false: no memory. */
bool weir__breaker_init(weir__breaker *breaker, const weir__breaker_rules *rules, bool listening,
                        uint64_t seed, int64_t now_ns);
void weir__breaker_fini(weir__breaker *breaker); /* also of zeros */

/* Nothing that happens next depends on the time, but a failure: closed, no call has failed lately, none
 * is timed.  Reading the clock is a third of what a call costs then. */
bool weir__breaker_is_calm(const weir__breaker *breaker);

/* Whether a call may be made. */
bool weir__breaker_admit(weir__breaker *breaker, int64_t now_ns, weir__breaker_call *ret_call);

/* What became of a call; once for each that was admitted. */
void weir__breaker_report(weir__breaker *breaker, const weir__breaker_call *call,
                          weir__breaker_result result, int64_t now_ns);

/* false: a listener has WEIR__BREAKER_EVENTS transitions to hear of first; nothing changed. */
bool weir__breaker_isolate(weir__breaker *breaker);
bool weir__breaker_reset(weir__breaker *breaker);

/* How long until a call has a chance; 0: it has now; INT64_MAX: not before a reset. */
int64_t weir__breaker_retry_after(const weir__breaker *breaker, int64_t now_ns);

/* What the state is judged by: the window, or of a half-open breaker its probes. */
weir__tally weir__breaker_tally(weir__breaker *breaker, int64_t now_ns);

/* The oldest transition that has not been taken yet. */
bool weir__breaker_next_event(weir__breaker *breaker, weir__breaker_event *ret_event);

#endif
