/* time_window.c - see time_window.h. */
#include "model/time_window.h"

#include <string.h>

void weir__time_window_init(weir__time_window *window, int64_t length_ns, int64_t now_ns)
{
    *window = (weir__time_window){.bucket_ns = length_ns / WEIR__TIME_BUCKETS};
    if (window->bucket_ns < 1)
        window->bucket_ns = 1;
    window->ends_at = now_ns + window->bucket_ns;
}

void weir__time_window_clear(weir__time_window *window)
{
    window->tally = (weir__tally){0};
    memset(window->buckets, 0, sizeof(window->buckets));
}

void weir__time_window_advance(weir__time_window *window, int64_t now_ns)
{
    if (now_ns < window->ends_at)
        return;
    int64_t steps = (now_ns - window->ends_at) / window->bucket_ns + 1;
    window->ends_at += steps * window->bucket_ns;
    if (steps >= WEIR__TIME_BUCKETS) {
        weir__time_window_clear(window);
        return;
    }
    for (; steps > 0; steps--) {
        window->current = (window->current + 1) % WEIR__TIME_BUCKETS;
        weir__tally *oldest = &window->buckets[window->current];
        window->tally.calls -= oldest->calls;
        window->tally.failed -= oldest->failed;
        window->tally.slow -= oldest->slow;
        *oldest = (weir__tally){0};
    }
}

void weir__time_window_add(weir__time_window *window, bool failed, bool slow)
{
    weir__tally_add(&window->tally, failed, slow);
    weir__tally_add(&window->buckets[window->current], failed, slow);
}
