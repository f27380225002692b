/* handover.h - threads that wait for each other.
 *
 * A futex wake-up costs tens of microseconds.  So who waits here may look around a little without
 * the GIL before it sleeps.
 */
#ifndef WEIR_EXT_HANDOVER_H
#define WEIR_EXT_HANDOVER_H

#include "module.h"

#include <stdatomic.h>

/* Whether to spin before sleeping: of waits of one kind.  Relaxed: it is advice. */
typedef struct ext_patience {
    atomic_int losses; /* grows when spinning was in vain, shrinks when the bell rang meanwhile */
    _Atomic uint32_t waits;
    atomic_int others_cpu; /* where the other side ran last, + 1; 0: not known */
} ext_patience;

/* ---- a bell: one thread waits, another rings once ------------------------------------------ */

typedef struct ext_bell {
    _Atomic uint32_t state;
    weir_queue *queue; /* to sleep on; made when somebody sleeps */
} ext_bell;

void ext_bell_init(ext_bell *bell);
void ext_bell_fini(ext_bell *bell); /* not while it is rung: see ext_bell_ring */

/* Wakes the one that waits, or lets its wait return at once.  Only with the lock held (or the GIL)
 * that the waiter takes before it uses the bell again, or frees it. */
void ext_bell_ring(ext_bell *bell);

/* Waits without the GIL until rung; spins first as far as patience goes (NULL: not at all).  1: it
 * was rung before this thread slept, 0: afterwards; the bell can be used again.  < 0, not rung:
 * WEIR_ETIMEDOUT, WEIR_EINTR, WEIR_ENOMEM. */
int ext_bell_wait(ext_bell *bell, weir_time deadline, ext_patience *patience);

#endif
