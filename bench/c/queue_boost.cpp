/* queue_boost.cpp - boost::lockfree::queue under queue_load.h.  It cannot wait: the caller yields. */
#include <sched.h>

#include <boost/lockfree/queue.hpp>

#define CAPACITY      1024
#define HAS_DEADLINES 0

static boost::lockfree::queue<void *, boost::lockfree::capacity<CAPACITY>> queue;

static void subject_new(void) {}

static inline void subject_put(void *item)
{
    while (!queue.push(item))
        sched_yield();
}

static inline void *subject_get(void)
{
    void *item = nullptr;
    while (!queue.pop(item))
        sched_yield();
    return item;
}

#include "queue_load.h"
