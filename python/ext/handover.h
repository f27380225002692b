/* handover.h - threads that wait for each other, and take turns with the GIL.
 *
 * A futex wake-up costs tens of microseconds, and a thread that asks for the GIL while another has
 * it pays one more.  So who waits here looks around a little without the GIL before it sleeps, and
 * asks for the GIL when the other side has let it go.
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

/* ---- the turns of one pool ------------------------------------------------------------------ */

/* Read without any lock: advice on when to ask for the GIL.  What has to be right is decided again
 * by whoever has got it. */
typedef struct ext_turns {
    _Atomic uint32_t let_go;   /* how often a thread let go of the GIL to wait for the workers */
    _Atomic uint32_t progress; /* tasks completed */
    _Atomic uint32_t active;   /* workers that have the GIL, or want it, or run a task */
    _Atomic size_t pending;    /* tasks that have not started */
    ext_patience client;       /* of those who wait for workers */
    ext_patience idle, called; /* of workers without a task; of those that want the GIL for one */
} ext_turns;

/* By a worker that begins, or was rung; before it asks for the GIL. */
void ext_turns_begin(ext_turns *turns);

/* By a thread that waits for workers, without the GIL: they may have it. */
void ext_turns_let_go(ext_turns *turns);

/* By the same thread when it was rung: returns when the workers seem to be through with the GIL;
 * soon, whatever they do. */
void ext_turns_linger(ext_turns *turns);

/* By a worker without a task, without the GIL. */
void ext_turns_end(ext_turns *turns);

/* By a worker that was rung before it slept: returns when somebody let go of the GIL since `seen` was
 * read from let_go; soon, whatever happens. */
void ext_turns_await(ext_turns *turns, uint32_t seen);

#endif
