/* queue_tbb.cpp - tbb::concurrent_bounded_queue under queue_load.h. */
#include <tbb/concurrent_queue.h>

#define CAPACITY      1024
#define HAS_DEADLINES 0

static tbb::concurrent_bounded_queue<void *> queue;

static void subject_new(void)
{
    queue.set_capacity(CAPACITY);
}

static inline void subject_put(void *item)
{
    queue.push(item);
}

static inline void *subject_get(void)
{
    void *item = nullptr;
    queue.pop(item);
    return item;
}

#include "queue_load.h"
