/* queue_condvar.c - the textbook's queue under queue_load.h: a ring, a mutex, two conditions. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define CAPACITY      1024
#define HAS_DEADLINES 1
#define NEVER         INT64_MAX

static void *ring[CAPACITY];
static unsigned head, depth;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t has_room, has_items;

static void subject_new(void)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&has_room, &attributes);
    pthread_cond_init(&has_items, &attributes);
}

static void wait_until(pthread_cond_t *condition, int64_t ns)
{
    if (ns == NEVER) {
        pthread_cond_wait(condition, &mutex);
        return;
    }
    struct timespec until = {ns / 1000000000, ns % 1000000000};
    if (pthread_cond_timedwait(condition, &mutex, &until))
        abort();
}

static inline void subject_put_until(void *item, int64_t ns)
{
    pthread_mutex_lock(&mutex);
    while (depth == CAPACITY)
        wait_until(&has_room, ns);
    ring[(head + depth++) % CAPACITY] = item;
    pthread_mutex_unlock(&mutex);
    pthread_cond_signal(&has_items);
}

static inline void *subject_get_until(int64_t ns)
{
    pthread_mutex_lock(&mutex);
    while (depth == 0)
        wait_until(&has_items, ns);
    void *item = ring[head];
    head = (head + 1) % CAPACITY;
    depth--;
    pthread_mutex_unlock(&mutex);
    pthread_cond_signal(&has_room);
    return item;
}

static inline void subject_put(void *item)
{
    subject_put_until(item, NEVER);
}

static inline void *subject_get(void)
{
    return subject_get_until(NEVER);
}

#include "queue_load.h"
