/* park.h - one thread sleeps, others wake it: a futex word.
 *
 *     EMPTY --park--> SLEEPING --unpark--> WOKEN        EMPTY --unpark--> WOKEN
 *
 * No lost wake-up: unpark's exchange and park's compare-exchange order themselves on one word, so
 * either park sees WOKEN and does not sleep, or unpark sees SLEEPING and wakes.  No wake-up
 * syscall without a sleeper.
 *
 * Beside the one unpark that ends it, a wait may be hinted at: "look yourself".  EMPTY and SLEEPING
 * become HINTED; who was hinted at looks, and rearms if it has to wait on.  A thread that is in its
 * interruption hook is AWAY: it may be there for long, so a hint does not count on it.
 */
#ifndef WEIR_BASE_PARK_H
#define WEIR_BASE_PARK_H

#include <stdatomic.h>

#include <weir/base.h>

typedef struct weir__parker {
    _Atomic uint32_t state;
    _Atomic weir_time woken_at; /* when a waker found it SLEEPING; a measurement, so relaxed */
} weir__parker;

#define WEIR__HINTED 1 /* a result of park beside WEIR_OK */

static inline void weir__parker_init(weir__parker *parker)
{
    atomic_init(&parker->state, 0);
    atomic_init(&parker->woken_at, 0);
}

/* Sleeps until unparked (WEIR_OK: everything before the unpark is visible), hinted at
 * (WEIR__HINTED, the same), the deadline (WEIR_ETIMEDOUT), or a non-zero answer of the thread's
 * interruption hook (WEIR_EINTR). */
int weir__park(weir__parker *parker, weir_time deadline);

/* Waits for the unpark without deadline and hook: it is certain and near. */
void weir__park_surely(weir__parker *parker);

/* Wakes the parked thread for good, or lets its park return at once.  Its exchange is the last
 * touch of the parker's memory: the woken thread may free it. */
void weir__unpark(weir__parker *parker);

/* What became of a hint. */
typedef enum weir__hint {
    WEIR__HINT_TAKEN,  /* the thread is awake, or will be: somebody sees to it */
    WEIR__HINT_ASLEEP, /* the caller has to weir__futex_wake(&parker->state, 1, false) */
    WEIR__HINT_AWAY,   /* it does not look before its hook has returned */
} weir__hint;

/* For who knows that the thread can neither be unparked nor leave meanwhile; the wake-up that may
 * be owed needs no such knowledge. */
weir__hint weir__hint_at(weir__parker *parker);

/* The same for who can wait for the thread's hook: it looks after that.  Whether a wake-up is owed. */
bool weir__nudge(weir__parker *parker);

/* By the thread itself, with the same knowledge: it was hinted at and parks again. */
static inline void weir__parker_rearm(weir__parker *parker)
{
    atomic_store_explicit(&parker->woken_at, 0, memory_order_relaxed);
    /* relaxed: who may touch it meanwhile is kept out by the owner's locks */
    atomic_store_explicit(&parker->state, 0, memory_order_relaxed);
}

/* ---- futex words, private to the process or shared through a mapping ---------------------- */

/* Sleeps while *word == expected.  0: woken or changed; WEIR_ETIMEDOUT; WEIR_EINTR: the hook ended
 * the wait.  Spurious returns (0) happen: recheck. */
int weir__futex_wait(_Atomic uint32_t *word, uint32_t expected, weir_time deadline, bool shared);

/* The same for a private word, without the hook. */
void weir__futex_sleep(_Atomic uint32_t *word, uint32_t expected, weir_time until);

/* Wakes up to n sleepers. */
void weir__futex_wake(_Atomic uint32_t *word, int n, bool shared);

/* The same of who sleeps, or did until its deadline, and is AWAY meanwhile: 0, or WEIR_EINTR.  For who
 * parks for less than the 50 ms again and again. */
int weir__parker_ask(weir__parker *parker);

/* Asks the calling thread's interruption hook: non-zero ends the wait. */
int weir__interrupted(void);

/* The hook of the calling thread, for who puts another one in front of it for a while. */
weir_interrupt_fn *weir__get_interrupt(void **ret_ctx);

/* How long a sleep may last before the hook is asked again: the earlier of the deadline and 50 ms
 * from now; the deadline itself where no hook is set. */
weir_time weir__slice(weir_time deadline);

#endif
