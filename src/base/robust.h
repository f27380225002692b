/* robust.h - a lock in shared memory that outlives its owner.
 *
 * The kernel releases it when the thread that holds it ends, however that ends (SIGKILL between
 * any two instructions included), and tells the next owner.  It keeps that promise through the
 * list of robust futexes which each thread registers, so no process has to look for the dead.
 */
#ifndef WEIR_BASE_ROBUST_H
#define WEIR_BASE_ROBUST_H

#include <pthread.h>

#include <weir/base.h>

typedef struct weir__robust {
    pthread_mutex_t os;
} weir__robust;

/* Got it, and whoever held it last is dead: what it guards may be half done. */
#define WEIR__OWNER_DIED 1

/* In memory that processes share; there is no fini: the memory just goes. */
int weir__robust_init(weir__robust *lock);

/* 0, WEIR__OWNER_DIED, or WEIR_EEMPTY: somebody has it. */
int weir__robust_try(weir__robust *lock);

/* As try, but waits: WEIR_ETIMEDOUT, WEIR_EINTR (see weir_set_interrupt). */
int weir__robust_lock(weir__robust *lock, weir_time deadline);

void weir__robust_unlock(weir__robust *lock);

#endif
