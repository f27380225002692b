/* mutex.h - mutual exclusion inside one process; short critical sections, never user code. */
#ifndef WEIR_BASE_MUTEX_H
#define WEIR_BASE_MUTEX_H

#include <pthread.h>

typedef struct weir__mutex {
    pthread_mutex_t os;
} weir__mutex;

static inline void weir__mutex_init(weir__mutex *mutex)
{
    pthread_mutex_init(&mutex->os, NULL); /* cannot fail with default attributes on Linux */
}

static inline void weir__mutex_fini(weir__mutex *mutex)
{
    pthread_mutex_destroy(&mutex->os);
}

static inline void weir__lock(weir__mutex *mutex)
{
    pthread_mutex_lock(&mutex->os);
}

static inline void weir__unlock(weir__mutex *mutex)
{
    pthread_mutex_unlock(&mutex->os);
}

#endif
