/* mutex.h - mutual exclusion inside one process; short critical sections, never user code.
 *
 * Four bytes, so that what it guards can lie on the same cache line.  Who finds it held spins for
 * about as long as a critical section takes, and sleeps then: the holder may have lost its CPU.
 * Neither side makes a system call while nobody sleeps.
 *
 * Unlocking is a plain store, half as expensive as an exchange: unlock stores `held`, then loads
 * `contended`, and a CPU may do that the other way round.  So who is going to sleep has a fence
 * executed by all threads of the process (membarrier) between its store to `contended` and its last
 * look at `held`: an unlock whose load came before that fence has its store seen, and one whose load
 * comes after it sees `contended`.
 */
#ifndef WEIR_BASE_MUTEX_H
#define WEIR_BASE_MUTEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* The four bytes are one futex word; only the kernel reads them so. */
typedef struct weir__mutex {
    _Alignas(4) _Atomic uint8_t held;
    _Atomic uint8_t contended; /* somebody may sleep: an unlock has to wake one */
    uint8_t unused[2];
} weir__mutex;

static inline void weir__mutex_init(weir__mutex *mutex)
{
    atomic_init(&mutex->held, 0);
    atomic_init(&mutex->contended, 0);
    mutex->unused[0] = mutex->unused[1] = 0;
}

static inline void weir__mutex_fini(weir__mutex *mutex)
{
    (void)mutex;
}

/* The long ways round. */
void weir__lock_contended(weir__mutex *mutex);
void weir__wake_contender(weir__mutex *mutex);

static inline bool weir__try_lock(weir__mutex *mutex)
{
    uint8_t held = 0;
    /* acquire: pairs with the release in unlock */
    return atomic_compare_exchange_strong_explicit(&mutex->held, &held, 1, memory_order_acquire,
                                                   memory_order_relaxed);
}

static inline void weir__lock(weir__mutex *mutex)
{
    if (!weir__try_lock(mutex))
        weir__lock_contended(mutex);
}

static inline void weir__unlock(weir__mutex *mutex)
{
    /* release: publishes what was done under the mutex to who locks it next */
    atomic_store_explicit(&mutex->held, 0, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst); /* the compiler at least keeps the order */
    if (atomic_load_explicit(&mutex->contended, memory_order_relaxed))
        weir__wake_contender(mutex);
}

#endif
