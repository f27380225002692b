/* shared_queue.h - bounded FIFO of messages shared by processes; quoted by weir_shared_queue(3).
 *
 * Invariant, in messages and in bytes, at the instant of every snapshot:
 *     accepted == delivered + dropped (by reason) + depth
 * Bound:      depth <= capacity and bytes <= max_bytes, always.
 * Ownership:  a message is bytes: put copies them in, get copies them out.  So nothing needs to be
 *             freed when one is dropped, and there is no callback: drops are counted.
 * Death:      any process may be killed between any two instructions.  What it had begun has then
 *             happened wholly or not at all, and the others go on: a put that had not come to its
 *             commit was never accepted; a get that had counts as delivered.
 * Order:      messages leave in the order they were accepted.  A call that waits gets its turn in
 *             the order they came, and whoever comes later leaves it what it waits for.  A waiter
 *             that does not take its turn within 100 ms (it is stopped, or starved of CPU) keeps
 *             its place but no longer holds back those behind it; one that was killed loses it.
 * Looking:    a snapshot takes no lock and never waits.
 *
 * Unlike other objects of weir this one may be used on both sides of a fork.
 */
#ifndef WEIR_SHARED_QUEUE_H
#define WEIR_SHARED_QUEUE_H

#include <weir/queue.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A process's handle on a queue. */
typedef struct weir_shared_queue weir_shared_queue;

typedef struct weir_shared_queue_opts {
    size_t size;        /* sizeof(weir_shared_queue_opts); set by WEIR_SHARED_QUEUE_OPTS_INIT */
    size_t capacity;    /* messages, 1 to 2^31 - 1; required */
    uint64_t max_bytes; /* sum of message sizes, up to 2^46; 0: 64 MiB, or capacity KiB if more */
    int64_t max_age_ns; /* messages older than this are dropped when their turn comes; 0: none */
    weir_overflow overflow;      /* default BLOCK */
    uint32_t sample_keep_one_of; /* for SAMPLE, above 80 % of either bound: >= 2; default 10 */
    const char
        *name; /* what other processes see it by, in all that have a handle, as that of a queue */
} weir_shared_queue_opts;

#define WEIR_SHARED_QUEUE_OPTS_INIT WEIR__SIZED(weir_shared_queue_opts)

/* Makes a queue in shared memory that has no name and ends with the last handle on it.
 * WEIR_EINVAL for an option out of range, WEIR_ENOMEM, WEIR_ENOSHM, WEIR_ENOFD, WEIR_ESYSTEM. */
WEIR_API int weir_shared_queue_create(weir_shared_queue **ret_queue,
                                      const weir_shared_queue_opts *opts);

/* Another handle, from the descriptor that weir_shared_queue_fd returned, here or in a process
 * that sent it: a child inherits handles by fork and needs none.  The descriptor stays the
 * caller's.  WEIR_EINVAL: no queue of this version of weir; WEIR_ENOMEM, WEIR_ENOFD. */
WEIR_API int weir_shared_queue_attach(weir_shared_queue **ret_queue, int fd);

/* The handle's descriptor, to be sent to another process; close-on-exec; the handle's own. */
WEIR_API int weir_shared_queue_fd(const weir_shared_queue *queue);

/* Lets go of the handle (NULL is fine); the queue and its other handles go on.  No other thread
 * may be in a call on the handle, or come to one. */
WEIR_API void weir_shared_queue_destroy(weir_shared_queue *queue);

typedef struct weir_message {
    const void *data;
    size_t size;  /* < 2^32 bytes; 0 is fine */
    uint32_t tag; /* the caller's own, handed through: what kind of message it is, say */
} weir_message;

/* Where received messages lie.  Begins as {0}; grows by itself; ends with weir_buffer_free. */
typedef struct weir_buffer {
    void *data;
    size_t capacity;
} weir_buffer;

WEIR_API void weir_buffer_free(weir_buffer *buffer);

/* Puts one message: WEIR_KEPT or WEIR_DROPPED.  < 0: WEIR_EFULL (FAIL, or BLOCK with WEIR_POLL),
 * WEIR_ETIMEDOUT, WEIR_ECLOSED, WEIR_ETOOBIG (size > max_bytes), WEIR_EINTR, WEIR_ENOSHM (no
 * memory to hold it; DROP_OLDEST may have made room already): the queue has not taken it.
 * This call and the others with a deadline may return up to 100 ms after it, with WEIR_ETIMEDOUT,
 * when a process is stopped in the middle of one of its own. */
WEIR_API int weir_shared_queue_put(weir_shared_queue *queue, const weir_message *message,
                                   weir_time deadline);

/* Puts n messages in order, each as weir_shared_queue_put would.  Returns how many the queue took,
 * from the front (> 0), or the error that kept even the first out.  n 0: 0, nothing done. */
WEIR_API int64_t weir_shared_queue_put_many(weir_shared_queue *queue, const weir_message *messages,
                                            size_t n, weir_time deadline);

/* Gets the message at the head; it lies in the buffer until that is used again.  < 0: WEIR_EEMPTY
 * (WEIR_POLL), WEIR_ETIMEDOUT, WEIR_ECLOSED (closed and empty), WEIR_EINTR, WEIR_ENOMEM (for the
 * buffer): nothing was taken, *ret_message is untouched. */
WEIR_API int weir_shared_queue_get(weir_shared_queue *queue, weir_message *ret_message,
                                   weir_buffer *buffer, weir_time deadline);

/* Gets up to max messages: waits for the first until the deadline, then for more until max are
 * there or linger_ns have passed since the first (0: takes what is there).  Returns how many
 * (> 0), or an error as weir_shared_queue_get.  WEIR_EINVAL: max 0. */
WEIR_API int64_t weir_shared_queue_get_many(weir_shared_queue *queue, weir_message *ret_messages,
                                            size_t max, weir_buffer *buffer, weir_time deadline,
                                            int64_t linger_ns);

/* Refuses puts from now on (waiting putters return WEIR_ECLOSED); getters empty the queue and then
 * see WEIR_ECLOSED.  Closing twice is fine.  WEIR_EINTR: not closed; waits as long as a process is
 * stopped in the middle of a call. */
WEIR_API int weir_shared_queue_close(weir_shared_queue *queue);

/* Drops everything inside, reason DISCARDED; returns how many, or WEIR_EINTR as close does. */
WEIR_API int64_t weir_shared_queue_discard(weir_shared_queue *queue);

typedef struct weir_shared_queue_snapshot {
    size_t size; /* sizeof(weir_shared_queue_snapshot); set by ..._SNAPSHOT_INIT */
    size_t capacity;
    uint64_t max_bytes;
    size_t depth; /* messages inside */
    uint64_t bytes;
    uint64_t accepted, accepted_bytes;   /* puts that returned >= 0 */
    uint64_t delivered, delivered_bytes; /* handed to getters */
    uint64_t dropped[WEIR_DROP_REASONS], dropped_bytes[WEIR_DROP_REASONS];
    /* Beside the law, each right by itself; a process that is killed may miss its last. */
    uint64_t refused;                        /* puts that ended EFULL, ETIMEDOUT or ETOOBIG */
    uint64_t put_blocked_ns, get_blocked_ns; /* waited, summed over waits that have ended */
    size_t putters_waiting, getters_waiting; /* a killed one counts until its turn comes */
    size_t peak_depth;
    uint64_t recovered; /* processes killed in the middle of a call whose rest was undone */
    bool closed, above_high;
} weir_shared_queue_snapshot;

#define WEIR_SHARED_QUEUE_SNAPSHOT_INIT WEIR__SIZED(weir_shared_queue_snapshot)

/* One instant of the law.  WEIR_EINVAL: *ret_snapshot was not initialised. */
WEIR_API int weir_shared_queue_get_snapshot(const weir_shared_queue *queue,
                                            weir_shared_queue_snapshot *ret_snapshot);

/* Messages inside now; a hint by the time it returns. */
WEIR_API size_t weir_shared_queue_depth(const weir_shared_queue *queue);

#ifdef __cplusplus
}
#endif

#endif
