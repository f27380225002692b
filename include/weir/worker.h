/* worker.h - the worker's end of a process pool; the contract, quoted by weir_worker(3).
 *
 * Threads:    one thread takes and replies; weir adds one that ends the process when the parent
 *             is gone.
 * Ownership:  a task's data is the pool's, readable until the reply; reply copies.
 */
#ifndef WEIR_WORKER_H
#define WEIR_WORKER_H

#include <weir/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_worker weir_worker;

typedef struct weir_bytes {
    const void *data;
    size_t size;
} weir_bytes;

/* What a worker process needs to know; descriptors survive fork, or are passed on. */
typedef struct weir_worker_ticket {
    int memory_fd; /* the shared mapping */
    int bell_fd;   /* wakes the parent's collecting thread */
    int parent_fd; /* pidfd of the parent */
    unsigned seat;
} weir_worker_ticket;

typedef struct weir_task {
    uint64_t id;
    const void *data;
    size_t size;
} weir_task;

/* Sits down.  The worker owns the descriptors from then on.  WEIR_EINVAL (not a weir channel, or
 * of another version), WEIR_ENOMEM, WEIR_ESYSTEM. */
WEIR_API int weir_worker_open(weir_worker **ret_worker, const weir_worker_ticket *ticket);

/* Leaves the seat; the process should end now.  NULL is fine. */
WEIR_API void weir_worker_close(weir_worker *worker);

/* Tells the pool that the worker is ready for tasks; take does so too. */
WEIR_API void weir_worker_ready(weir_worker *worker);

/* Tells the pool why the worker cannot serve (an initializer failed, say); then close and exit.
 * At most 4 KiB are kept. */
WEIR_API void weir_worker_fail(weir_worker *worker, const void *message, size_t size);

/* Claims the next task; from here on it counts as started.  < 0: WEIR_ECLOSED: leave;
 * WEIR_ETIMEDOUT, WEIR_EEMPTY (WEIR_POLL), WEIR_EINTR, WEIR_ENOSHM (its data could not be mapped;
 * the task has completed as NO_MEMORY: take the next), WEIR_EINVAL (the task taken last has had no
 * reply). */
WEIR_API int weir_worker_take(weir_worker *worker, weir_task *ret_task, weir_time deadline);

/* Replies to the task taken last, with any status and the bytes of `parts` in order.  May wait
 * for the parent to take earlier replies.  WEIR_ENOSHM: there is no room; the task has completed
 * as NO_MEMORY. */
WEIR_API int weir_worker_reply(weir_worker *worker, int32_t status, const weir_bytes *parts,
                               size_t n_parts);

/* The handler of workers that the pool forks itself: calls weir_worker_reply once.  A worker whose
 * handler returns without a reply is ended with exit code 1, and the task completes as DIED. */
typedef void weir_handler_fn(weir_worker *worker, const weir_task *task, void *ctx);

#ifdef __cplusplus
}
#endif

#endif
