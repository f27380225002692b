/* mutex.c - see mutex.h. */
#include "base/mutex.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

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
        if (!atomic_load_explicit(&mutex->held, memory_order_relaxed) && weir__try_lock(mutex))
            return true;
        if (atomic_load_explicit(&mutex->contended, memory_order_relaxed))
            return false; /* others have found that spinning does not help */
    }
    return false;
}

/* Lets every running thread of the process execute a full fence, this one too.  false: the kernel,
 * or a sandbox, does not do that. */
static bool fence_all_threads(void)
{
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0)
        return true;
    return errno == EPERM && /* not asked for so far */
           syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 &&
           syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

/* Without that fence an unlock may miss that somebody sleeps, who then looks again after this. */
#define UNFENCED_SLEEP WEIR_MILLISECOND

/* Sleeps while the mutex is held and contended. */
static void sleep_for(weir__mutex *mutex, bool fenced)
{
    static const uint8_t held_and_contended[4] = {1, 1};
    uint32_t word;
    memcpy(&word, held_and_contended, sizeof(word));
    weir__futex_sleep((_Atomic uint32_t *)(void *)mutex, word,
                      fenced ? WEIR_FOREVER : weir_after(UNFENCED_SLEEP));
}

/* Who was woken was woken alone, so it holds the mutex as contended: others may still sleep. */
void weir__lock_contended(weir__mutex *mutex)
{
    if (spin_for(mutex))
        return;
    for (bool slept = false;; slept = true) {
        bool locked = weir__try_lock(mutex);
        if (!locked || slept)
            atomic_store_explicit(&mutex->contended, 1, memory_order_relaxed);
        if (locked)
            return;
        bool fenced = fence_all_threads();
        if (weir__try_lock(mutex))
            return;
        sleep_for(mutex, fenced);
    }
}

/* Who has taken the mark has to wake one.  A contender that does not sleep yet makes it again: the
 * kernel compares it. */
void weir__wake_contender(weir__mutex *mutex)
{
    if (atomic_exchange_explicit(&mutex->contended, 0, memory_order_relaxed))
        weir__futex_wake((_Atomic uint32_t *)(void *)mutex, 1, false);
}
