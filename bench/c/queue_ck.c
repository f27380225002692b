/* queue_ck.c - ck_ring under queue_load.h.  It cannot wait: the caller yields and tries again. */
#include <sched.h>
#include <stddef.h>

#include <ck_ring.h>

#define CAPACITY      1024 /* ck_ring holds one less */
#define HAS_DEADLINES 0

static ck_ring_t ring;
static ck_ring_buffer_t buffer[CAPACITY];

static void subject_new(void)
{
    ck_ring_init(&ring, CAPACITY);
}

static inline void subject_put(void *item)
{
    while (!ck_ring_enqueue_mpmc(&ring, buffer, item))
        sched_yield();
}

static inline void *subject_get(void)
{
    void *item = NULL;
    while (!ck_ring_dequeue_mpmc(&ring, buffer, &item))
        sched_yield();
    return item;
}

#include "queue_load.h"
