/* mutex.c - see mutex.h. */
#include "base/mutex.h"

#include "base/park.h"
#include "base/spin.h"

/* Pauses between two looks at a held mutex: doubling, so that the line stays with the holder. */
#define LONGEST_PAUSE 64
#define LOOKS         10

static bool spin_for(weir__mutex *mutex)
{
    if (!weir__spin_is_useful())
        return false;
    unsigned pause = 1;
    for (int look = 0; look < LOOKS; look++) {
        weir__relax(pause);
        pause = pause < LONGEST_PAUSE ? pause * 2 : LONGEST_PAUSE;
        uint32_t state = atomic_load_explicit(&mutex->state, memory_order_relaxed);
        if (state == WEIR__UNLOCKED &&
            atomic_compare_exchange_strong_explicit(&mutex->state, &state, WEIR__LOCKED,
                                                    memory_order_acquire, memory_order_relaxed))
            return true;
        if (state == WEIR__CONTENDED)
            return false; /* others have found that spinning does not help */
    }
    return false;
}

void weir__lock_contended(weir__mutex *mutex)
{
    if (spin_for(mutex))
        return;
    /* From here on it is CONTENDED while we hold it: others may sleep, and who unlocks must wake
     * one.  The kernel compares the word, so an unlock before the sleep is not missed. */
    while (atomic_exchange_explicit(&mutex->state, WEIR__CONTENDED, memory_order_acquire) !=
           WEIR__UNLOCKED)
        weir__futex_sleep(&mutex->state, WEIR__CONTENDED);
}

void weir__wake_contender(weir__mutex *mutex)
{
    weir__futex_wake(&mutex->state, 1, false);
}
