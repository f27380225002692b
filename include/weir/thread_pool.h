/* thread_pool.h - bounded thread pool; the contract, quoted by weir_thread_pool(3).
 *
 * Bound:      accepted and not finished <= backlog + threads, always.
 * Ownership:  a submit that returns >= 0 gave the task to the pool: fn(arg) runs exactly once, or
 *             on_drop gets it exactly once.
 * Threads:    the pool's own; each runs one task at a time, with all signals blocked.
 */
#ifndef WEIR_THREAD_POOL_H
#define WEIR_THREAD_POOL_H

#include <weir/queue.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_thread_pool weir_thread_pool;

typedef void weir_task_fn(void *arg);
typedef void weir_task_drop_fn(weir_task_fn *fn, void *arg, weir_drop_reason reason, void *ctx);

typedef struct weir_thread_pool_opts {
    size_t size;            /* set by WEIR_THREAD_POOL_OPTS_INIT */
    unsigned threads;       /* 0: as many as CPUs this process may use */
    size_t backlog;         /* tasks accepted and not started, > 0 or WEIR_UNBOUNDED; required */
    weir_overflow overflow; /* BLOCK, FAIL, DROP_NEWEST or DROP_OLDEST */
    weir_task_drop_fn *on_drop; /* required */
    void *drop_ctx;
    const char *name; /* as of a queue; NULL: "thread_pool-1" and so on */
} weir_thread_pool_opts;

#define WEIR_THREAD_POOL_OPTS_INIT WEIR__SIZED(weir_thread_pool_opts)

/* WEIR_EINVAL, WEIR_ENOMEM, WEIR_ESPAWN (a thread could not be started; none is left behind). */
WEIR_API int weir_thread_pool_create(weir_thread_pool **ret_pool,
                                     const weir_thread_pool_opts *opts);

/* Waits for the running tasks, drops the waiting ones (DISCARDED), frees the pool (NULL is fine).
 * Not from one of its own tasks.
 * To run everything first: weir_thread_pool_close, then weir_thread_pool_drain. */
WEIR_API void weir_thread_pool_destroy(weir_thread_pool *pool);

/* Runs fn(arg) on one of the threads.  WEIR_KEPT or WEIR_DROPPED, or < 0: WEIR_EFULL,
 * WEIR_ETIMEDOUT, WEIR_ECLOSED, WEIR_EINTR, WEIR_ENOMEM, WEIR_EDEADLK (would wait inside a task
 * of this pool while all its threads do). */
WEIR_API int weir_thread_pool_submit(weir_thread_pool *pool, weir_task_fn *fn, void *arg,
                                     weir_time deadline);

/* Refuses submits from now on; what was accepted still runs. */
WEIR_API void weir_thread_pool_close(weir_thread_pool *pool);

/* Waits until nothing waits and nothing runs.  WEIR_ETIMEDOUT, WEIR_EINTR, WEIR_EDEADLK (called
 * from one of the pool's own tasks). */
WEIR_API int weir_thread_pool_drain(weir_thread_pool *pool, weir_time deadline);

/* Drops what waits (DISCARDED); returns how many. */
WEIR_API size_t weir_thread_pool_discard(weir_thread_pool *pool);

typedef struct weir_thread_pool_snapshot {
    size_t size; /* set by WEIR_THREAD_POOL_SNAPSHOT_INIT */
    unsigned threads;
    size_t backlog; /* the bound */
    size_t waiting; /* accepted, not started */
    size_t running;
    uint64_t accepted, finished;
    uint64_t dropped[WEIR_DROP_REASONS];
    uint64_t refused;
    uint64_t submit_blocked_ns;
    bool closed;
} weir_thread_pool_snapshot;

#define WEIR_THREAD_POOL_SNAPSHOT_INIT WEIR__SIZED(weir_thread_pool_snapshot)

/* One instant: accepted == finished + running + waiting + dropped. */
WEIR_API int weir_thread_pool_get_snapshot(weir_thread_pool *pool,
                                           weir_thread_pool_snapshot *ret_snapshot);

#ifdef __cplusplus
}
#endif

#endif
