/* baseline.h - what a round trip takes when nobody waits: measured, and measured again.
 *
 * The least ever seen is not it: it stays behind when calls get slower for good, and then a healthy
 * limit is cut to pieces.  A moving average is not it either: it follows the queue that the limit
 * itself makes, and the limit the average, up to the ceiling.  So every ten seconds or so the limit
 * is lowered to three quarters of what the capacity seems to be, for one window: nobody waits then
 * because of us, and what that window says is the new baseline, higher or lower.  That costs a
 * quarter of the throughput for two round trips in ten seconds, where the source's way (limit 1 in
 * Gradient, a window with the queue in it in Vegas) sheds healthy traffic or drifts.  The idea is
 * PROBE_RTT of BBR (N. Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016), the
 * three quarters are about BBRv3's.
 *
 * A limit that has shrunk by 40 % since is reason enough to look again: if calls still take as
 * long, it was not our queue that they waited in.  A window that did not use more than that anyway
 * is as good, and costs nothing.  The first probe comes at once, and as long as the answer is lower
 * than what was known the next one follows, from there: so a start above the capacity is found out.
 * Probes are jittered, so that clients of one server do not take turns at being measured by each
 * other.
 *
 * Noise:      estimates carry their variance.  A window is believed at once where it differs
 *             clearly, and is averaged in by its weight where it does not; one with a queue in it
 *             only counts where it is clearly lower.  A probe goes on until the baseline is known
 *             to 1 %, or 12 windows.
 */
#ifndef WEIR_MODEL_BASELINE_H
#define WEIR_MODEL_BASELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "model/random.h"
#include "model/rtt_window.h"

typedef struct weir__baseline {
    double ns;           /* 0: not known yet */
    double variance;     /* of that */
    int64_t interval_ns; /* between probes; 0: none */
    int64_t probe_at;
    weir__random random; /* of the jitter */
    bool is_probing;
    double probe_limit;
    unsigned probes;   /* windows of this one */
    double limit_then; /* when it was measured last */
} weir__baseline;

void weir__baseline_init(weir__baseline *baseline, int64_t interval_ns, uint64_t seed,
                         int64_t now_ns);

/* A window was measured at `limit`; whether it is only news for the baseline, and nothing to judge
 * the limit by. */
bool weir__baseline_see(weir__baseline *baseline, const weir__rtt *rtt);

/* Whether a probe is due; then is_probing, and the limit should be probe_limit for one window. */
bool weir__baseline_probe(weir__baseline *baseline, double limit, const weir__rtt *rtt,
                          double floor, int64_t now_ns);

/* The window of a probe; true: that was the last, and the limit goes back. */
bool weir__baseline_probed(weir__baseline *baseline, const weir__rtt *rtt, double floor,
                           int64_t now_ns);

#endif
