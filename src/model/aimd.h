/* aimd.h - a limit that grows by one while all is well, and by a factor less after a drop.
 *
 * D.-M. Chiu, R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance
 * in Computer Networks", 1989; constants as AIMDLimit of Netflix's concurrency-limits (Apache-2.0).
 *
 * It learns from drops alone (refusals, and calls that took longer than a timeout), so it goes up
 * and down below the point where those begin: with neither it grows to its ceiling.
 */
#ifndef WEIR_MODEL_AIMD_H
#define WEIR_MODEL_AIMD_H

typedef struct weir__aimd {
    double backoff; /* in [0.5, 1): what is left after a drop */
} weir__aimd;

#define WEIR__AIMD_INIT ((weir__aimd){.backoff = 0.9})

double weir__aimd_grow(const weir__aimd *aimd, double limit);
double weir__aimd_drop(const weir__aimd *aimd, double limit);

#endif
