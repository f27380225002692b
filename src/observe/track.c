/* track.c - see track.h. */
#include "observe/track.h"

#include <string.h>

#include "base/alloc.h"

/* Twice what is needed: what was dropped is overwritten only when that much has come. */
bool weir__track_reserve(weir__track *track, size_t size, size_t more)
{
    size_t need = track->n + more;
    if (track->first + need <= track->room)
        return true;
    if (need > track->room - track->room / 4 || track->room == 0) {
        size_t room = need < 4 ? 8 : 2 * need;
        char *data = weir__malloc(room * size);
        if (!data)
            return false;
        if (track->n > 0)
            memcpy(data, weir__track_at(track, size, 0), track->n * size);
        weir__free(track->data);
        *track = (weir__track){.data = data, .n = track->n, .room = room};
        return true;
    }
    memmove(track->data, weir__track_at(track, size, 0), track->n * size);
    track->first = 0;
    return true;
}

void weir__track_fini(weir__track *track)
{
    weir__free(track->data);
    *track = (weir__track){0};
}

void *weir__track_at(const weir__track *track, size_t size, size_t i)
{
    return track->data + (track->first + i) * size;
}

void *weir__track_push(weir__track *track, size_t size)
{
    return weir__track_at(track, size, track->n++);
}
