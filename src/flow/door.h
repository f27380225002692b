/* door.h - the one lock of an object that processes share.
 *
 * Death:      whoever gets it from a dead owner is told nothing: what it guards changes by single
 *             stores, so there is nothing to repair.  It is counted.
 * Deadlines:  an owner that is stopped holds everybody up.  So the lock itself is waited for no
 *             longer than the deadline, or PATIENCE if that is later.
 */
#ifndef WEIR_FLOW_DOOR_H
#define WEIR_FLOW_DOOR_H

#include <stdatomic.h>

#include "base/robust.h"

typedef struct weir__door {
    weir__robust lock;
    _Atomic uint32_t held;      /* a hint for those who spin: the lock is worth no try */
    _Atomic uint64_t recovered; /* owners that died inside */
} weir__door;

int weir__door_init(weir__door *door);

/* WEIR_ETIMEDOUT, WEIR_EINTR.  A deadline before WEIR_POLL: does not even wait for the lock. */
int weir__door_enter(weir__door *door, weir_time deadline);

void weir__door_leave(weir__door *door);

#endif
