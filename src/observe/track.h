/* track.h - the last so many of something, lying in a row: what is pushed last is last, what is dropped is the
 * oldest.  Room is made beforehand, so that a push cannot fail. */
#ifndef WEIR_OBSERVE_TRACK_H
#define WEIR_OBSERVE_TRACK_H

#include <stdbool.h>
#include <stddef.h>

typedef struct weir__track {
    char *data;
    size_t first, n, room; /* elements */
} weir__track;

/* Room for so many more, of size bytes each; false: no memory, nothing has changed. */
bool weir__track_reserve(weir__track *track, size_t size, size_t more);
void weir__track_fini(weir__track *track);

void *weir__track_at(const weir__track *track, size_t size, size_t i);

/* Another one, after weir__track_reserve; holds anything. */
void *weir__track_push(weir__track *track, size_t size);

static inline void weir__track_drop(weir__track *track, size_t oldest)
{
    track->first += oldest;
    track->n -= oldest;
}

#endif
