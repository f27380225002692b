/* robust.c - see robust.h. */
#include "base/robust.h"

#include <errno.h>
#include <time.h>

#include "base/park.h"

#define SLICE (50 * WEIR_MILLISECOND)

int weir__robust_init(weir__robust *lock)
{
    pthread_mutexattr_t attr;
    if (pthread_mutexattr_init(&attr) != 0)
        return WEIR_ENOMEM;
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    int rc = pthread_mutex_init(&lock->os, &attr);
    pthread_mutexattr_destroy(&attr);
    return rc == 0 ? WEIR_OK : WEIR_ESYSTEM;
}

/* Consistent before anything is repaired: should the repairer die too, its successor is told
 * again. */
static int owned(weir__robust *lock, int rc)
{
    if (rc != EOWNERDEAD)
        return WEIR_OK;
    pthread_mutex_consistent(&lock->os);
    return WEIR__OWNER_DIED;
}

int weir__robust_try(weir__robust *lock)
{
    int rc = pthread_mutex_trylock(&lock->os);
    return rc == 0 || rc == EOWNERDEAD ? owned(lock, rc) : WEIR_EEMPTY;
}

/* 0, EOWNERDEAD, ETIMEDOUT. */
static int lock_until(pthread_mutex_t *os, weir_time until)
{
#if defined(__SANITIZE_THREAD__) /* gcc 12's runtime knows trylock, but not clocklock */
    int rc;
    while ((rc = pthread_mutex_trylock(os)) == EBUSY && weir_now() < until)
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    return rc == EBUSY ? ETIMEDOUT : rc;
#else
    struct timespec ts = {.tv_sec = until / WEIR_SECOND, .tv_nsec = until % WEIR_SECOND};
    return pthread_mutex_clocklock(os, CLOCK_MONOTONIC, &ts);
#endif
}

/* Waits in slices: for the hook, and because kernels before 5.4 lose the wake-up of a lock whose
 * owner dies between releasing it and waking the next. */
int weir__robust_lock(weir__robust *lock, weir_time deadline)
{
    for (;;) {
        weir_time until = weir_after(SLICE);
        if (until > deadline)
            until = deadline;
        int rc = lock_until(&lock->os, until);
        if (rc != ETIMEDOUT)
            return owned(lock, rc);
        if (deadline != WEIR_FOREVER && weir_now() >= deadline)
            return WEIR_ETIMEDOUT;
        if (weir__interrupted())
            return WEIR_EINTR;
    }
}

void weir__robust_unlock(weir__robust *lock)
{
    pthread_mutex_unlock(&lock->os);
}
