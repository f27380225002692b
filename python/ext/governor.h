/* governor.h - what a Pool, a Queue and a ThreadPool see of a Governor. */
#ifndef WEIR_EXT_GOVERNOR_H
#define WEIR_EXT_GOVERNOR_H

#include "module.h"

#include <stdatomic.h>

typedef struct ext_governor {
    PyObject_HEAD module_state *state;
    weir_governor *governor;
    unsigned generation;
    ext_line line;          /* coroutines that wait */
    ext_lock lock;          /* guards what reservations hold */
    _Atomic size_t waiting; /* calls inside of libweir that may wait */
} ext_governor;

/* Of memory=, as people give it: a new reference, or NULL for None.  -1: TypeError, or it is the parent
 * process's. */
int ext_governor_parse(module_state *state, PyObject *memory, ext_governor **ret);

/* The most that is reserved at once: what is larger runs alone in any case. */
#define EXT_RESERVATION_MAX ((UINT64_C(1) << 62) - 1)

/* Reserves without waiting, with the GIL. */
int ext_governor_try(ext_governor *self, uint64_t bytes);

/* Reserves; between the two ends of an ext_wait. */
int ext_governor_reserve(ext_governor *self, uint64_t bytes, weir_time deadline);

/* What a MemoryReservation holds is the caller's from now on; 0: it holds nothing.  -1: TypeError. */
int ext_reservation_take(module_state *state, PyObject *reservation, uint64_t *ret_bytes);

/* Gives back what one of these reserved; nothing in a forked child. */
void ext_governor_release(ext_governor *self, uint64_t bytes);

#endif
