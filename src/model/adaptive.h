/* adaptive.h - a limit of concurrency that is found by watching round trips and drops.
 *
 *     sample -> window (rtt_window) -> baseline, with its probes -> AIMD, Vegas or Gradient2 ->
 * limit
 *
 * Floor and ceiling are never left.  It does not grow where the application, not the limit, is what
 * holds concurrency down (fewer in flight than half of the limit); drops count then, too.
 */
#ifndef WEIR_MODEL_ADAPTIVE_H
#define WEIR_MODEL_ADAPTIVE_H

#include "model/aimd.h"
#include "model/baseline.h"
#include "model/gradient2.h"
#include "model/rtt_window.h"
#include "model/vegas.h"

typedef enum weir__adapt { WEIR__AIMD, WEIR__VEGAS, WEIR__GRADIENT2 } weir__adapt;

/* Why the limit is what it is. */
typedef enum weir__adaptive_reason {
    WEIR__LIMIT_INITIAL = 0, /* nothing is known yet */
    WEIR__LIMIT_ROOM,        /* grew: nobody waits */
    WEIR__LIMIT_RIGHT,       /* stayed: a few wait, as they should */
    WEIR__LIMIT_QUEUE,       /* shrank: too many wait */
    WEIR__LIMIT_DROPS,       /* shrank: a call was dropped, or timed out */
    WEIR__LIMIT_IDLE,        /* stayed: the application does not use it */
    WEIR__LIMIT_PROBE,       /* lower for two round trips, to measure the baseline */
    WEIR__LIMIT_FLOOR,       /* would shrink */
    WEIR__LIMIT_CEILING,     /* would grow */
} weir__adaptive_reason;

typedef struct weir__adaptive_opts {
    weir__adapt algorithm;
    uint64_t initial, floor, ceiling; /* 1 <= floor <= initial <= ceiling */
    weir__aimd aimd;
    weir__vegas vegas;
    weir__gradient2 gradient2;
    int64_t timeout_ns; /* a call that took longer was dropped; 0: none */
    weir__rtt_kind rtt_kind;
    double quantile;
    uint32_t window_samples;   /* >= 1 */
    int64_t window_ns;         /* least length */
    int64_t probe_interval_ns; /* 0: the baseline is the least seen */
    uint64_t seed;
} weir__adaptive_opts;

typedef struct weir__adaptive {
    weir__adaptive_opts opts;
    weir__rtt_window window;
    weir__baseline baseline;
    double limit;  /* without the probe */
    double rtt_ns; /* of the last window */
    weir__adaptive_reason reason;
    uint64_t samples, drops;
} weir__adaptive;

void weir__adaptive_init(weir__adaptive *adaptive, const weir__adaptive_opts *opts, int64_t now_ns);

/* One call ended that took rtt_ns > 0, while in_flight (itself included) were.  Returns the limit
 * from now on. */
uint64_t weir__adaptive_sample(weir__adaptive *adaptive, int64_t now_ns, int64_t rtt_ns,
                               uint64_t in_flight, bool dropped);

/* The limit now. */
uint64_t weir__adaptive_limit(const weir__adaptive *adaptive);

#endif
