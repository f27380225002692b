/* governor.h - what a Pool sees of a Governor. */
#ifndef WEIR_EXT_GOVERNOR_H
#define WEIR_EXT_GOVERNOR_H

#include "module.h"

typedef struct ext_governor {
    PyObject_HEAD module_state *state;
    weir_governor *governor;
    unsigned generation;
    ext_lock lock;  /* guards `waiting`, and what reservations hold */
    size_t waiting; /* calls that are without the GIL */
} ext_governor;

#endif
