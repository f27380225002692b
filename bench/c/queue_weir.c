/* queue_weir.c - weir_queue under queue_load.h. */
#include <stdlib.h>

#include <weir/queue.h>

#define CAPACITY      1024
#define HAS_DEADLINES 1

static weir_queue *queue;

static void subject_new(void)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = CAPACITY;
    opts.on_drop = weir_drop_ignore;
    if (weir_queue_create(&queue, &opts) < 0)
        abort();
}

static inline void subject_put_until(void *item, weir_time ns)
{
    if (weir_queue_put(queue, item, 0, ns) < 0)
        abort();
}

static inline void *subject_get_until(weir_time ns)
{
    void *item;
    if (weir_queue_get(queue, &item, ns) < 0)
        abort();
    return item;
}

static inline void subject_put(void *item)
{
    subject_put_until(item, WEIR_FOREVER);
}

static inline void *subject_get(void)
{
    return subject_get_until(WEIR_FOREVER);
}

#include "queue_load.h"
