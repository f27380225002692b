/* park.h - one thread sleeps, one other wakes it: a futex word with three states.
 *
 *     EMPTY --park--> SLEEPING --unpark--> WOKEN        EMPTY --unpark--> WOKEN
 *
 * No lost wake-up: unpark's exchange and park's compare-exchange order themselves on one word, so
 * either park sees WOKEN and does not sleep, or unpark sees SLEEPING and wakes.  No wake-up
 * syscall without a sleeper.  A parker serves one park/unpark pair; init makes it fresh again.
 */
#ifndef WEIR_BASE_PARK_H
#define WEIR_BASE_PARK_H

#include <stdatomic.h>

#include <weir/base.h>

typedef struct weir__parker {
    _Atomic uint32_t state;
} weir__parker;

static inline void weir__parker_init(weir__parker *parker)
{
    atomic_init(&parker->state, 0);
}

/* Sleeps until unparked (WEIR_OK: everything before the unpark is visible), the deadline
 * (WEIR_ETIMEDOUT), or a non-zero answer of the thread's interruption hook (WEIR_EINTR). */
int weir__park(weir__parker *parker, weir_time deadline);

/* As weir__park without deadline and hook: for a wake-up that is certain and near. */
void weir__park_surely(weir__parker *parker);

/* Wakes the parked thread, or lets its park return at once.  Its exchange is the last touch of
 * the parker's memory: the woken thread may free it. */
void weir__unpark(weir__parker *parker);

/* ---- futex words, private to the process or shared through a mapping ---------------------- */

/* Sleeps while *word == expected.  0: woken or changed; WEIR_ETIMEDOUT; WEIR_EINTR: the hook ended
 * the wait.  Spurious returns (0) happen: recheck. */
int weir__futex_wait(_Atomic uint32_t *word, uint32_t expected, weir_time deadline, bool shared);

/* Wakes up to n sleepers. */
void weir__futex_wake(_Atomic uint32_t *word, int n, bool shared);

/* Asks the calling thread's interruption hook: non-zero ends the wait. */
int weir__interrupted(void);

/* How long a sleep may last before the hook is asked again: the earlier of the deadline and 50 ms
 * from now; the deadline itself where no hook is set. */
weir_time weir__slice(weir_time deadline);

#endif
