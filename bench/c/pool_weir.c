/* pool_weir.c - weir_thread_pool under pool_load.h, with a backlog of 1024. */
#include <weir/thread_pool.h>

#include "pool_load.h"

static weir_thread_pool *pool;

static void never_dropped(weir_task_fn *fn, void *arg, weir_drop_reason reason, void *ctx)
{
    (void)fn, (void)arg, (void)reason, (void)ctx;
    abort();
}

static void subject_new(unsigned threads)
{
    weir_thread_pool_opts opts = WEIR_THREAD_POOL_OPTS_INIT;
    opts.threads = threads;
    opts.backlog = 1024;
    opts.on_drop = never_dropped;
    if (weir_thread_pool_create(&pool, &opts) < 0)
        abort();
}

static void subject_submit(void (*fn)(void *))
{
    if (weir_thread_pool_submit(pool, fn, NULL, WEIR_FOREVER) < 0)
        abort();
}

static void subject_finish(void)
{
    weir_thread_pool_close(pool);
    weir_thread_pool_drain(pool, WEIR_FOREVER);
    weir_thread_pool_destroy(pool);
}
