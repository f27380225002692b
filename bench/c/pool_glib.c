/* pool_glib.c - GThreadPool under pool_load.h.  Its backlog has no bound: a push never waits. */
#include <glib.h>

#include "pool_load.h"

static GThreadPool *pool;
static void (*run)(void *);

static void call(void *data, void *ctx)
{
    (void)data, (void)ctx;
    run(NULL);
}

static void subject_new(unsigned threads)
{
    pool = g_thread_pool_new(call, NULL, (int)threads, TRUE, NULL);
    if (!pool)
        abort();
}

static void subject_submit(void (*fn)(void *))
{
    run = fn;
    if (!g_thread_pool_push(pool, (void *)1, NULL))
        abort();
}

static void subject_finish(void)
{
    g_thread_pool_free(pool, FALSE, TRUE); /* waits until everything has run */
}
