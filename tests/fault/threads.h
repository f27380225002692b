/* threads.h - failing to start the n-th thread. */
#ifndef WEIR_TESTS_FAULT_THREADS_H
#define WEIR_TESTS_FAULT_THREADS_H

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

static int threads_allowed = -1; /* < 0: any number */

/* Stands before libc's (and the sanitizers') for the whole program. */
int pthread_create(pthread_t *ret_id, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
    typedef int create_fn(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    create_fn *real;
    *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    if (threads_allowed == 0)
        return EAGAIN;
    if (threads_allowed > 0)
        threads_allowed--;
    return real(ret_id, attr, start, arg);
}

#endif
