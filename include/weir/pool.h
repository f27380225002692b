/* pool.h - bounded process pool; the contract, quoted by weir_pool(3).
 *
 * A task is bytes; what comes back is bytes.  The parent posts tasks and one of its threads
 * collects completions; workers (see worker.h) take tasks and reply.
 *
 * Bound:      accepted and not completed <= backlog + workers, always; one permit per task, taken
 *             by admit, given back exactly once.
 * Law:        accepted == completed + dropped (by reason) + cancelled + inside, at every snapshot.
 * Ownership:  post copies the payload; the tag stays a pointer of the caller's, handed back exactly
 *             once: in a completion (of a batch: the last), to on_drop, or by a successful
 *             weir_pool_cancel.
 * Crash:      a worker may die at any instruction.  The task it was running is run again (retries)
 *             or completes as DIED; those it had not started go to others; it is replaced.  When
 *             the parent dies, the workers die within a second; nothing has a name, so nothing
 *             stays behind.
 * Fork:       the pool belongs to the process that created it.  Linux 5.3 or later (pidfd).
 */
#ifndef WEIR_POOL_H
#define WEIR_POOL_H

#include <sys/types.h>

#include <weir/memory.h>
#include <weir/queue.h>
#include <weir/worker.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_pool weir_pool;

/* How a worker process ended. */
typedef struct weir_exit {
    pid_t pid;
    int code;                /* exit status, or -1 when a signal ended it or nothing is known */
    int signal;              /* 0: none */
    uint64_t peak_rss_bytes; /* 0: not known */
    int oom;                 /* 1: the kernel's OOM killer; 0: not; -1: cannot be told */
} weir_exit;

/* Starts the process that will sit on `seat`; it must come to weir_worker_open (or run the given
 * handler) there.  Called by collect and start_workers, no lock held.  < 0: could not. */
typedef int weir_pool_start_fn(void *ctx, unsigned seat, pid_t *ret_pid);

/* The process has ended: reap it, and correct code and signal if more is known of them (of a child
 * of this process everything is filled in already; the others have code -1 and signal 0). */
typedef void weir_pool_reap_fn(void *ctx, unsigned seat, weir_exit *exit);

typedef void weir_pool_drop_fn(void *tag, weir_drop_reason reason, void *ctx);

/* A backlog that finds its own size: twice the workers at first, doubled when a worker runs dry
 * while producers wait for room, up to 20 ms of work for each worker or 64 MiB of payloads; what is
 * not needed goes again. */
#define WEIR_AUTO (SIZE_MAX - 1)

typedef struct weir_pool_opts {
    size_t size;               /* set by WEIR_POOL_OPTS_INIT */
    unsigned workers;          /* at most 4096; 0: as many as CPUs this process may use */
    size_t backlog;            /* tasks accepted and not started, > 0, WEIR_AUTO or WEIR_UNBOUNDED;
                                  required */
    weir_overflow overflow;    /* BLOCK, FAIL, DROP_NEWEST or DROP_OLDEST */
    unsigned retries;          /* how often a task is run again after its worker died */
    uint64_t tasks_per_worker; /* a worker is replaced after so many tasks; 0: never */
    uint64_t max_worker_rss;   /* bytes: a worker that has more resident after a task is replaced
                                   before its next one; 0: any */
    weir_governor *governor;   /* a worker runs a task only with its memory reserved; NULL: none.
                                   The pool has to be destroyed before it */
    uint64_t task_bytes; /* that a task takes; 0: learned, for each kind (weir_pool_post_kind):
                                   until one of a kind has ended, it runs when nothing else does */
    weir_pool_drop_fn *on_drop; /* required */
    void *drop_ctx;
    weir_handler_fn *handler; /* run in workers that the pool forks itself; or: */
    void *handler_ctx;
    weir_pool_start_fn *start; /* the caller starts the processes */
    weir_pool_reap_fn *reap;
    void *process_ctx;
    const char *name; /* as of a queue; NULL: "process_pool-1" and so on */
} weir_pool_opts;

#define WEIR_POOL_OPTS_INIT WEIR__SIZED(weir_pool_opts)

/* No process is started before there is work for it.  WEIR_EINVAL, WEIR_ENOMEM, WEIR_ENOFD,
 * WEIR_ENOSHM, WEIR_ESYSTEM (the kernel is too old). */
WEIR_API int weir_pool_create(weir_pool **ret_pool, const weir_pool_opts *opts);

/* Kills the workers, drops what is inside (DISCARDED), frees the pool (NULL is fine).  No other
 * thread may be in a call on it. */
WEIR_API void weir_pool_destroy(weir_pool *pool);

/* ---- submitting ------------------------------------------------------------------------- */

/* Takes the permit for one task: waits, fails or drops as the overflow says.  WEIR_KEPT: the
 * caller must post or unadmit.  WEIR_DROPPED (DROP_NEWEST): the task counts as accepted and
 * dropped; there is no permit and on_drop is not called, for the tag is not known yet.  < 0:
 * WEIR_EFULL, WEIR_ETIMEDOUT, WEIR_ECLOSED, WEIR_EINTR, WEIR_EDEADLK (would wait on the
 * collecting thread). */
WEIR_API int weir_pool_admit(weir_pool *pool, weir_time deadline);

/* As weir_pool_admit with BLOCK, whatever the pool's overflow. */
WEIR_API int weir_pool_admit_wait(weir_pool *pool, weir_time deadline);

/* As weir_pool_admit_wait, without a thread: WEIR_KEPT, or WEIR_WAITING and `ready` is called with
 * WEIR_KEPT (then there is a permit to post with, or to give back) or WEIR_ECLOSED.  < 0:
 * WEIR_ECLOSED, WEIR_EDEADLK, WEIR_EINVAL (no `ready`). */
WEIR_API int weir_pool_admit_async(weir_pool *pool, weir_pending *pending);

/* Leaves the line: true, and `ready` is not called.  false: it was called or is being called. */
WEIR_API bool weir_pool_cancel_admit(weir_pool *pool, weir_pending *pending);

/* Gives an unused permit back. */
WEIR_API void weir_pool_unadmit(weir_pool *pool);

/* Posts a task under a permit of the caller's: the bytes of `parts` in order, copied.  Never
 * waits.  < 0: WEIR_ENOMEM, WEIR_ENOSHM, WEIR_ECLOSED: the permit is still the caller's.
 * ret_id (may be NULL) names the task for cancel and state. */
WEIR_API int weir_pool_post(weir_pool *pool, const weir_bytes *parts, size_t n_parts, void *tag,
                            uint64_t *ret_id);

/* admit and post in one.  WEIR_DROPPED: on_drop has had the tag. */
WEIR_API int weir_pool_submit(weir_pool *pool, const weir_bytes *parts, size_t n_parts, void *tag,
                              weir_time deadline, uint64_t *ret_id);

/* Posts a batch: a task of `items` (> 0) items, numbered from 0, whose worker claims and replies to
 * one by one (weir_worker_next_item).  When workers idle, those that have not begun are shared out.
 * A worker that dies loses the one item that it ran: the replies before it are kept, the others go
 * to another worker.  So a batch completes in one or more parts, of which the last says so.  Each
 * part counts as a task and has a permit.  Errors as of weir_pool_post; WEIR_EINVAL: no items. */
WEIR_API int weir_pool_post_batch(weir_pool *pool, const weir_bytes *parts, size_t n_parts,
                                  uint32_t items, void *tag, uint64_t *ret_id);

/* The same as both: a task (items 0), or a batch, of a kind.  Tasks of one kind, say of one function,
 * take about as much memory; weir_pool_post has kind 0. */
WEIR_API int weir_pool_post_kind(weir_pool *pool, const weir_bytes *parts, size_t n_parts,
                                 uint32_t items, uint64_t kind, void *tag, uint64_t *ret_id);

/* Takes a task back that no worker has started: 0, and the tag is the caller's; WEIR_ENOTASK.  Of a
 * batch that has begun, the items that have not are taken back all the same; nothing is said of
 * them, and the tag comes with the last completion. */
WEIR_API int weir_pool_cancel(weir_pool *pool, uint64_t id);

/* 1: a worker runs it; 0: it waits; WEIR_ENOTASK: completed, dropped or cancelled. */
WEIR_API int weir_pool_is_running(weir_pool *pool, uint64_t id);

/* ---- collecting ------------------------------------------------------------------------- */

typedef enum weir_outcome {
    WEIR_OUTCOME_REPLIED = 0, /* status and data are the worker's reply */
    WEIR_OUTCOME_DIED,        /* its worker died while running it, as often as retries allow */
    WEIR_OUTCOME_NOT_STARTED, /* no worker could be started; data: what weir_worker_fail said */
    WEIR_OUTCOME_NO_MEMORY,   /* the reply did not fit into shared memory */
} weir_outcome;

typedef struct weir_completion {
    void *tag;
    uint64_t id;
    weir_outcome outcome;
    bool is_batch;
    bool last;         /* the tag is the caller's again; else more of its batch will come */
    uint32_t first;    /* of a batch: the replies are those of `items` items from this one on; */
    uint32_t items;    /* with DIED, the one behind them killed its worker; with NO_MEMORY there
                          are no replies to them; with NOT_STARTED they never began */
    int32_t status;    /* of weir_worker_reply */
    unsigned attempts; /* workers that began it */
    const void *data;  /* valid until the next collect, unless it is kept */
    size_t data_size;
    void *block;         /* the pool's own: for weir_pool_keep */
    int64_t service_ns;  /* from take to reply, on the worker */
    uint64_t peak_bytes; /* that its process had at most meanwhile, above what it had when it was
                            ready; 0: not measured (it is where the pool learns, for tasks of more
                            than a millisecond) */
    weir_exit exit;      /* DIED and NOT_STARTED: of the last worker */
} weir_completion;

/* Starts up to n workers now, in the calling thread, before the first collect (or between two of the
 * same thread): for who forks, and knows that no other thread holds a lock now.  Returns how many
 * there are then, or the error that kept the first out: WEIR_ESPAWN, WEIR_ENOMEM, WEIR_ENOSHM,
 * WEIR_ECLOSED. */
WEIR_API int weir_pool_start_workers(weir_pool *pool, unsigned n);

/* From now on there are at most n workers, 1 to the pool's number.  Those that are too many get no more
 * tasks, finish what they have, and leave (recycled); where more are allowed again, they are started when
 * there is work.  The bound stays backlog + the pool's workers.  From any thread.  WEIR_EINVAL. */
WEIR_API int weir_pool_set_workers(weir_pool *pool, unsigned n);

/* Runs the pool: starts and replaces workers, deals tasks, and returns up to max completions.
 * One thread at a time; nothing moves unless one is here most of the time.  Returns how many
 * (> 0), or WEIR_ETIMEDOUT, WEIR_EEMPTY (WEIR_POLL), WEIR_EINTR, WEIR_ECLOSED: closed, all tasks
 * are completed and all workers gone. */
WEIR_API int64_t weir_pool_collect(weir_pool *pool, weir_completion *ret, size_t max,
                                   weir_time deadline);

/* Gives back the permits of n completions.  Until then, or the next collect, they are held, and a
 * submit of the collecting thread (in a callback that follows a completion up) takes one over
 * rather than wait for itself. */
WEIR_API void weir_pool_settle(weir_pool *pool, size_t n);

/* The right to a completion's data past the next collect. */
typedef struct weir_pool_lease weir_pool_lease;

/* Keeps the data of a completion, which is at *ret_data, readable and writable, until the lease is
 * released; for the collecting thread, before the next collect.  WEIR_EINVAL: it is not in a block
 * of its own (replies up to 128 KiB are not): copy it; WEIR_ENOMEM. */
WEIR_API int weir_pool_keep(weir_pool *pool, weir_completion *completion,
                            weir_pool_lease **ret_lease, void **ret_data);

/* From now on the data is as ordinary memory is for a process that forks: what this process writes
 * there its children do not see, and the other way round.  Right after fork, in both. */
WEIR_API void weir_pool_unshare(weir_pool *pool, weir_pool_lease *lease);

/* Ends a lease (NULL is fine); from any thread, before weir_pool_destroy. */
WEIR_API void weir_pool_release(weir_pool *pool, weir_pool_lease *lease);

/* ---- ending ----------------------------------------------------------------------------- */

/* Refuses admits and posts from now on (waiting ones return WEIR_ECLOSED); what was accepted
 * still runs, then the workers leave, then collect returns WEIR_ECLOSED. */
WEIR_API void weir_pool_close(weir_pool *pool);

/* Drops every task that no worker has started (DISCARDED); returns how many. */
WEIR_API size_t weir_pool_discard(weir_pool *pool);

/* Closes, and kills the workers: what they ran completes as DIED, without retries.  May be called
 * from any thread; the tasks that wait are discarded. */
WEIR_API void weir_pool_kill(weir_pool *pool);

/* ---- looking ---------------------------------------------------------------------------- */

typedef struct weir_pool_snapshot {
    size_t size;                       /* set by WEIR_POOL_SNAPSHOT_INIT */
    unsigned workers, workers_allowed; /* the pool's; see weir_pool_set_workers */
    unsigned workers_alive;
    size_t backlog;          /* the bound now */
    const char *backlog_why; /* of WEIR_AUTO: what made it so large, in words; else NULL */
    size_t waiting;          /* accepted, not started */
    size_t running;          /* started, not completed */
    size_t replied;          /* of the running: replied, and not collected yet */
    uint64_t accepted, completed, cancelled;
    uint64_t dropped[WEIR_DROP_REASONS];
    uint64_t refused;       /* admits that ended EFULL by FAIL, ETIMEDOUT or EDEADLK */
    uint64_t retried, died; /* tasks */
    uint64_t workers_started, workers_died, workers_recycled;
    uint64_t submit_blocked_ns;
    uint64_t service_ns; /* summed over replies */
    uint64_t shm_bytes;  /* shared memory reserved now */
    size_t submitters_waiting;
    bool closed;
} weir_pool_snapshot;

#define WEIR_POOL_SNAPSHOT_INIT WEIR__SIZED(weir_pool_snapshot)

/* One instant, all fields consistent; permits that are not posted yet count as neither. */
WEIR_API int weir_pool_get_snapshot(weir_pool *pool, weir_pool_snapshot *ret_snapshot);

/* The process ids of the live workers, up to max; returns how many there are. */
WEIR_API size_t weir_pool_pids(weir_pool *pool, pid_t *ret_pids, size_t max);

/* What a process needs to open its end (weir_worker_open) if it was not forked from this one.
 * The descriptors are the pool's: duplicate or inherit, never close. */
WEIR_API int weir_pool_get_ticket(weir_pool *pool, unsigned seat, weir_worker_ticket *ret_ticket);

#ifdef __cplusplus
}
#endif

#endif
