/* sizes.h - how much memory the next task of a kind will take, learned from those before.
 *
 * The 95th percentile of the last 32 peaks, and a tenth more: as the Kubernetes vertical pod
 * autoscaler does (90th percentile and 15 %).  Fewer than eight peaks say less: a fifth more.
 */
#ifndef WEIR_MODEL_SIZES_H
#define WEIR_MODEL_SIZES_H

#include <stddef.h>
#include <stdint.h>

#define WEIR__SIZES_KEPT  32u
#define WEIR__SIZES_KINDS 64u
#define WEIR__SIZE_LEAST                                                                           \
    (UINT64_C(64) << 10) /* estimated at least; what is written to files counts */

typedef struct weir__kind {
    uint64_t kind; /* a name's hash, say */
    uint64_t used; /* the clock of `sizes` at the last use; 0: not in use */
    uint64_t seen; /* peaks, ever */
    uint64_t peaks[WEIR__SIZES_KEPT];
} weir__kind;

/* Zeroed at first.  The kind that was used longest ago makes room for a new one. */
typedef struct weir__sizes {
    uint64_t clock;
    weir__kind kinds[WEIR__SIZES_KINDS];
} weir__sizes;

void weir__sizes_observe(weir__sizes *sizes, uint64_t kind, uint64_t peak_bytes);

/* Bytes; 0: nothing is known of this kind. */
uint64_t weir__sizes_estimate(weir__sizes *sizes, uint64_t kind);

/* How many peaks of a kind were seen. */
uint64_t weir__sizes_seen(const weir__sizes *sizes, uint64_t kind);

#endif
