/* queue_glib.c - GAsyncQueue under queue_load.h.  It has no bound: a put never waits. */
#include <glib.h>

#define HAS_DEADLINES 0

static GAsyncQueue *queue;

static void subject_new(void)
{
    queue = g_async_queue_new();
}

static inline void subject_put(void *item)
{
    g_async_queue_push(queue, item);
}

static inline void *subject_get(void)
{
    return g_async_queue_pop(queue);
}

#include "queue_load.h"
