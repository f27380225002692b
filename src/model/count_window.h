/* count_window.h - the tally of the last so many calls. */
#ifndef WEIR_MODEL_COUNT_WINDOW_H
#define WEIR_MODEL_COUNT_WINDOW_H

#include <stddef.h>

#include "model/tally.h"

/* Invariant: `tally` is the sum over the tally.calls newest entries of the ring. */
typedef struct weir__count_window {
    weir__tally tally;
    uint8_t *ring; /* bit 0: failed, bit 1: slow */
    uint32_t size, next;
} weir__count_window;

/* size > 0.  false: no memory. */
bool weir__count_window_init(weir__count_window *window, uint32_t size);
void weir__count_window_fini(weir__count_window *window); /* also of zeros */

void weir__count_window_add(weir__count_window *window, bool failed, bool slow);
void weir__count_window_clear(weir__count_window *window);

#endif
