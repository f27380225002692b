/* thread_pool.c - bounded thread pool; the contract is <weir/thread_pool.h>.
 *
 * A queue of tasks with bound_in_flight does the work: its capacity is backlog + threads, what a
 * thread took counts until it is reported done, and so the queue's bound and law are the pool's:
 *     running = in flight        finished = delivered - in flight        waiting = depth
 * A task is its function and its argument, and lies in the queue itself.
 */
#include <weir/thread_pool.h>

#include <pthread.h>
#include <signal.h>

#include "base/alloc.h"
#include "base/process.h"
#include "flow/queue.h"
#include "model/sampler.h"

struct weir_thread_pool {
    weir_queue *queue;
    size_t backlog;
    weir_task_drop_fn *on_drop;
    void *drop_ctx;
    unsigned threads; /* asked for, >= 1 */
    unsigned started; /* of ids; < threads only in a create that fails */
    pthread_t *ids;
};

/* The pool whose thread this is. */
static _Thread_local weir_thread_pool *own_pool;

/* One of a thread's tasks, timed. */
static void run_timed(const weir__entry *task, weir__sampler *sampler, weir__record *record,
                      uint32_t *ret_next)
{
    weir_time began = weir_now();
    task->fn(task->item);
    weir_time ended = weir_now();
    weir__tell_time_together(&record->service, ended - began, weir__sampler_weight(sampler));
    *ret_next = weir__sampler_next(sampler, ended);
}

static void *work(void *arg)
{
    weir_thread_pool *pool = own_pool = arg;
    weir__record *record = weir__queue_record(pool->queue);
    weir__sampler sampler = {0};
    uint32_t next = record ? 1 : 0; /* how many tasks until one is timed; 0: none is */
    weir__entry task;
    for (size_t finished = 0; weir__queue_next_task(pool->queue, finished, &task) == WEIR_OK;
         finished = 1) {
        if (next > 0 && --next == 0)
            run_timed(&task, &sampler, record, &next);
        else
            task.fn(task.item);
        weir_set_interrupt(NULL, NULL); /* of this task; the next one sets its own */
    }
    return NULL; /* closed and empty */
}

static void drop_task(const weir__entry *task, weir_drop_reason reason, void *ctx)
{
    weir_thread_pool *pool = ctx;
    pool->on_drop(task->fn, task->item, reason, pool->drop_ctx);
}

/* ---- beginning and end ---------------------------------------------------------------------- */

static int create_queue(weir_thread_pool *pool, weir_overflow overflow, const char *name)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = pool->backlog < WEIR_UNBOUNDED - pool->threads ? pool->backlog + pool->threads
                                                                   : WEIR_UNBOUNDED;
    opts.overflow = overflow;
    opts.bound_in_flight = true;
    opts.on_drop = weir_drop_ignore; /* drop_task has them */
    opts.drop_ctx = pool;
    opts.name = name;
    return weir__queue_create(&pool->queue, &opts, drop_task, WEIR_STATS_THREAD_POOL);
}

/* A thread inherits the mask of who creates it: signals are for the program's own threads. */
static int start_threads(weir_thread_pool *pool)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->started < pool->threads &&
           pthread_create(&pool->ids[pool->started], NULL, work, pool) == 0)
        pool->started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pool->started == pool->threads ? WEIR_OK : WEIR_ESPAWN;
}

int weir_thread_pool_create(weir_thread_pool **ret_pool, const weir_thread_pool_opts *opts)
{
    if (opts->size != sizeof(*opts)) /* there is one version so far */
        return WEIR_EINVAL;
    if (opts->backlog == 0 || !opts->on_drop || (unsigned)opts->overflow >= WEIR_OVERFLOW_SAMPLE)
        return WEIR_EINVAL;
    weir_thread_pool *pool = weir__calloc(1, sizeof(*pool));
    if (!pool)
        return WEIR_ENOMEM;
    pool->backlog = opts->backlog;
    pool->on_drop = opts->on_drop;
    pool->drop_ctx = opts->drop_ctx;
    pool->threads = opts->threads ? opts->threads : weir__cpu_count();

    int rc = create_queue(pool, opts->overflow, opts->name);
    if (rc != WEIR_OK)
        goto fail;
    weir__tell(weir__queue_record(pool->queue), WEIR_STATS_WORKERS, pool->threads);
    rc = WEIR_ENOMEM;
    pool->ids = weir__calloc(pool->threads, sizeof(*pool->ids));
    if (!pool->ids)
        goto fail;
    rc = start_threads(pool);
    if (rc != WEIR_OK)
        goto fail;
    *ret_pool = pool;
    return WEIR_OK;

fail:
    weir_thread_pool_destroy(pool);
    return rc;
}

void weir_thread_pool_destroy(weir_thread_pool *pool)
{
    if (!pool)
        return;
    if (pool->queue) {
        weir_queue_close(pool->queue);
        weir_queue_discard(pool->queue);
    }
    for (unsigned i = 0; i < pool->started; i++)
        pthread_join(pool->ids[i], NULL);
    weir_queue_destroy(pool->queue);
    weir__free(pool->ids);
    weir__free(pool);
}

/* ---- tasks ---------------------------------------------------------------------------------- */

int weir_thread_pool_submit(weir_thread_pool *pool, weir_task_fn *fn, void *arg, weir_time deadline)
{
    return weir__queue_put_task(pool->queue, fn, arg, deadline,
                                own_pool == pool ? pool->threads : 0);
}

void weir_thread_pool_close(weir_thread_pool *pool)
{
    weir_queue_close(pool->queue);
}

int weir_thread_pool_drain(weir_thread_pool *pool, weir_time deadline)
{
    if (own_pool == pool)
        return WEIR_EDEADLK;
    return weir_queue_drain(pool->queue, deadline);
}

size_t weir_thread_pool_discard(weir_thread_pool *pool)
{
    return weir_queue_discard(pool->queue);
}

int weir_thread_pool_get_snapshot(weir_thread_pool *pool, weir_thread_pool_snapshot *ret_snapshot)
{
    if (ret_snapshot->size != sizeof(*ret_snapshot))
        return WEIR_EINVAL;
    weir_queue_snapshot queue = WEIR_QUEUE_SNAPSHOT_INIT;
    weir_queue_get_snapshot(pool->queue, &queue);
    *ret_snapshot = (weir_thread_pool_snapshot){
        .size = sizeof(*ret_snapshot),
        .threads = pool->threads,
        .backlog = pool->backlog,
        .waiting = queue.depth,
        .running = queue.in_flight,
        .accepted = queue.accepted,
        .finished = queue.delivered - queue.in_flight,
        .refused = queue.refused,
        .submit_blocked_ns = queue.put_blocked_ns,
        .closed = queue.closed,
    };
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        ret_snapshot->dropped[i] = queue.dropped[i];
    return WEIR_OK;
}
