/* mutex.h - mutual exclusion inside one process; short critical sections, never user code.
 *
 * One word, so that what it guards can lie on the same cache line.  Who finds it held spins for
 * about as long as a critical section takes, and sleeps then: the holder may have lost its CPU.
 * Neither side makes a system call while nobody sleeps.
 */
#ifndef WEIR_BASE_MUTEX_H
#define WEIR_BASE_MUTEX_H

#include <stdatomic.h>
#include <stdint.h>

enum { WEIR__UNLOCKED, WEIR__LOCKED, WEIR__CONTENDED /* locked, and somebody may sleep */ };

typedef struct weir__mutex {
    _Atomic uint32_t state;
} weir__mutex;

static inline void weir__mutex_init(weir__mutex *mutex)
{
    atomic_init(&mutex->state, WEIR__UNLOCKED);
}

static inline void weir__mutex_fini(weir__mutex *mutex)
{
    (void)mutex;
}

/* The long ways round. */
void weir__lock_contended(weir__mutex *mutex);
void weir__wake_contender(weir__mutex *mutex);

static inline void weir__lock(weir__mutex *mutex)
{
    uint32_t state = WEIR__UNLOCKED;
    /* acquire: pairs with the release in unlock */
    if (!atomic_compare_exchange_strong_explicit(&mutex->state, &state, WEIR__LOCKED,
                                                 memory_order_acquire, memory_order_relaxed))
        weir__lock_contended(mutex);
}

static inline void weir__unlock(weir__mutex *mutex)
{
    /* release: publishes what was done under the mutex to who locks it next */
    if (atomic_exchange_explicit(&mutex->state, WEIR__UNLOCKED, memory_order_release) ==
        WEIR__CONTENDED)
        weir__wake_contender(mutex);
}

#endif
