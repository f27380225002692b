/* worker.h - the worker's end of a process pool; the contract, quoted by weir_worker(3).
 *
 * Threads:    one thread takes and replies; weir adds one that ends the process when the parent
 *             is gone.
 * Ownership:  a task's data is the pool's, readable until the reply, unless it is kept; reply
 *             copies.
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

/* The right to large data past the moment when it would go back to the pool. */
typedef struct weir_lease weir_lease;

typedef struct weir_task {
    uint64_t id;
    const void *data;
    size_t size;
    bool is_batch; /* of items: see below */
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

/* The same, with the task's own data, which may have been written, and `head` over its beginning.
 * Nothing is copied if the data came in a block (more than 192 bytes), is not kept any more, and
 * the pool has no retries, which need it as it was.  WEIR_EINVAL: as above, or the head
 * is longer than the data. */
WEIR_API int weir_worker_reply_in_place(weir_worker *worker, int32_t status, const void *head,
                                        size_t head_size);

/* Keeps the data of the task taken last, 64 KiB or more, past the reply: at *ret_data it is
 * readable and writable by this process until the lease is released.  Once for a task.  What is
 * written is seen by nobody else; if the task is run again, it has the data as it was sent.
 * WEIR_EINVAL: no task, a batch, smaller data, or kept already; WEIR_ENOMEM. */
WEIR_API int weir_worker_keep(weir_worker *worker, weir_lease **ret_lease, void **ret_data);

/* From now on the data is as ordinary memory is for a process that forks: what this process writes
 * there its children do not see, and the other way round.  Right after fork, in both. */
WEIR_API void weir_worker_unshare(weir_worker *worker, weir_lease *lease);

/* Ends a lease (NULL is fine); from any thread, before weir_worker_close.  In a child that the
 * worker has forked it frees the child's copy only. */
WEIR_API void weir_worker_release(weir_worker *worker, weir_lease *lease);

/* How far the worker has come, counted in tasks and revoked ones, and how much of that the parent
 * has read and is done with. */
WEIR_API void weir_worker_get_positions(const weir_worker *worker, uint64_t *ret_replied,
                                        uint64_t *ret_read);

/* ---- a batch of items ------------------------------------------------------------------- */

/* Claims the next item of the batch taken last: 0, and from here on the item counts as started.
 * < 0: WEIR_ECLOSED: no item is left, others take those that are, or there is no more room for
 * replies here: end the batch.  WEIR_EINVAL: not a batch, or the item before has had no reply. */
WEIR_API int weir_worker_next_item(weir_worker *worker, uint32_t *ret_item);

/* Replies to the item claimed last with the bytes of `parts` in order.  They follow those of the item
 * before: how to tell them apart is the caller's business.  They are safe from here on, even if the
 * worker dies.  May wait for the parent.  < 0: WEIR_ENOSHM: there is no room, and the item has had no
 * reply; one of up to 4 KiB finds room in any case.  WEIR_EINVAL: no item is claimed. */
WEIR_API int weir_worker_reply_item(weir_worker *worker, const weir_bytes *parts, size_t n_parts);

/* Ends the batch, instead of weir_worker_reply.  WEIR_EINVAL: not a batch, or the item claimed last
 * has had no reply. */
WEIR_API int weir_worker_end_batch(weir_worker *worker);

/* The handler of workers that the pool forks itself: calls weir_worker_reply once; of a batch
 * next_item and reply_item in turn, then end_batch.  A worker whose handler returns without that is
 * ended with exit code 1, and the task completes as DIED. */
typedef void weir_handler_fn(weir_worker *worker, const weir_task *task, void *ctx);

#ifdef __cplusplus
}
#endif

#endif
