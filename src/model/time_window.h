/* time_window.h - the tally of the calls of the last so many nanoseconds, in 32 buckets.
 *
 * A bucket goes as a whole, so what is counted lies between 31/32 and all of the time asked for.  Time
 * that seems to go back (two threads read the clock, and come in the other order) is taken as now.
 */
#ifndef WEIR_MODEL_TIME_WINDOW_H
#define WEIR_MODEL_TIME_WINDOW_H

#include "model/tally.h"

#define WEIR__TIME_BUCKETS 32

/* Invariant: `tally` is the sum of the buckets. */
typedef struct weir__time_window {
    weir__tally tally;
    int64_t bucket_ns;
    int64_t ends_at; /* of the bucket `current`; nanoseconds */
    unsigned current;
    weir__tally buckets[WEIR__TIME_BUCKETS];
} weir__time_window;

/* length_ns > 0 */
void weir__time_window_init(weir__time_window *window, int64_t length_ns, int64_t now_ns);

/* Lets go of what is older than the window. */
void weir__time_window_advance(weir__time_window *window, int64_t now_ns);

/* Adds to the present; advance first. */
void weir__time_window_add(weir__time_window *window, bool failed, bool slow);
void weir__time_window_clear(weir__time_window *window);

#endif
