/* pipeline_condvar.c - a thread for each of source, stages and sink, and a ring with a mutex and two
 * condition variables between each two, under pipeline_load.h: what one writes by hand.  BOUND is the
 * capacity of each ring.  There is no parallel variant that keeps the order. */
#include <pthread.h>

#include "pipeline_load.h"

#define RINGS (STAGES + 1)

typedef struct ring {
    pthread_mutex_t mutex;
    pthread_cond_t has_item, has_room;
    void **items;
    unsigned head, depth, capacity;
} ring;

static ring rings[RINGS];

static void put(ring *r, void *item)
{
    pthread_mutex_lock(&r->mutex);
    while (r->depth == r->capacity)
        pthread_cond_wait(&r->has_room, &r->mutex);
    r->items[(r->head + r->depth) % r->capacity] = item;
    if (r->depth++ == 0)
        pthread_cond_signal(&r->has_item);
    pthread_mutex_unlock(&r->mutex);
}

static void *get(ring *r)
{
    pthread_mutex_lock(&r->mutex);
    while (r->depth == 0)
        pthread_cond_wait(&r->has_item, &r->mutex);
    void *item = r->items[r->head];
    r->head = (r->head + 1) % r->capacity;
    if (r->depth-- == r->capacity)
        pthread_cond_signal(&r->has_room);
    pthread_mutex_unlock(&r->mutex);
    return item;
}

/* NULL goes through as the end. */
static void *run_stage(void *arg)
{
    ring *from = arg;
    void *item = from; /* any but NULL */
    while (item) {
        item = get(from);
        put(from + 1, item ? stage(item) : NULL);
    }
    return NULL;
}

static void *run_sink(void *arg)
{
    for (void *item; (item = get(arg));)
        last(item);
    return NULL;
}

static void subject_run(bool is_parallel, unsigned bound)
{
    pthread_t threads[RINGS];
    if (is_parallel)
        abort();
    for (unsigned i = 0; i < RINGS; i++) {
        rings[i] = (ring){.capacity = bound, .items = calloc(bound, sizeof(void *))};
        pthread_mutex_init(&rings[i].mutex, NULL);
        pthread_cond_init(&rings[i].has_item, NULL);
        pthread_cond_init(&rings[i].has_room, NULL);
    }
    for (unsigned i = 0; i < RINGS; i++)
        if (!rings[i].items ||
            pthread_create(&threads[i], NULL, i < STAGES ? run_stage : run_sink, &rings[i]))
            abort();
    void *item;
    do {
        item = next();
        put(&rings[0], item);
    } while (item);
    for (unsigned i = 0; i < RINGS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < RINGS; i++)
        free(rings[i].items);
}
