/* histogram.h - how long things took, in buckets that grow with what they hold.
 *
 * Log-linear, as in HdrHistogram (G. Tene): each power of two is cut into 32 equal buckets.  So the
 * middle of a bucket is at most 1/64, or 1.6 %, off everything in it; below 128 ns, where buckets are
 * 4 ns wide, at most 2 ns.  Above WEIR__HISTOGRAM_END all goes into the last one.
 *
 * The counts are the owner's: whoever shares them between threads or processes knows how.
 */
#ifndef WEIR_MODEL_HISTOGRAM_H
#define WEIR_MODEL_HISTOGRAM_H

#include <stdint.h>

#define WEIR__HISTOGRAM_BUCKETS 1152
#define WEIR__HISTOGRAM_END     (UINT64_C(1) << 42) /* ns, 73 minutes */

/* Where a time is counted, < WEIR__HISTOGRAM_BUCKETS. */
unsigned weir__histogram_bucket(uint64_t ns);

/* The shortest time that is counted there; of the number of buckets: WEIR__HISTOGRAM_END. */
uint64_t weir__histogram_floor(unsigned bucket);

/* The sum of all counts; UINT64_MAX where it is more. */
uint64_t weir__histogram_count(const uint64_t counts[WEIR__HISTOGRAM_BUCKETS]);

/* The shortest time that a share of p, in [0, 1], of all are not above, as far as buckets tell: the
 * middle of its bucket.  0 without counts. */
uint64_t weir__histogram_percentile(const uint64_t counts[WEIR__HISTOGRAM_BUCKETS], double p);

#endif
