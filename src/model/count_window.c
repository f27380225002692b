/* count_window.c - see count_window.h. */
#include "model/count_window.h"

#include "base/alloc.h"

#define FAILED 1u
#define SLOW   2u

bool weir__count_window_init(weir__count_window *window, uint32_t size)
{
    *window = (weir__count_window){.ring = weir__malloc(size), .size = size};
    return window->ring != NULL;
}

void weir__count_window_fini(weir__count_window *window)
{
    weir__free(window->ring);
}

void weir__count_window_add(weir__count_window *window, bool failed, bool slow)
{
    uint8_t *entry = &window->ring[window->next];
    if (window->tally.calls == window->size) { /* the oldest makes room */
        window->tally.calls--;
        window->tally.failed -= (*entry & FAILED) != 0;
        window->tally.slow -= (*entry & SLOW) != 0;
    }
    *entry = (uint8_t)((failed ? FAILED : 0) | (slow ? SLOW : 0));
    weir__tally_add(&window->tally, failed, slow);
    window->next = window->next + 1 < window->size ? window->next + 1 : 0;
}

void weir__count_window_clear(weir__count_window *window)
{
    window->tally = (weir__tally){0};
    window->next = 0;
}
