/* pool_impl.h - the process pool's state, shared by its two halves: pool.c (submitting, cancelling,
 * ending; any thread) and collect.c (the collecting thread: workers, completions).
 *
 * Invariant:  permits == admitted and not posted + tasks.live + unsettled;  permits <= limit
 *             accepted == completed + dropped + cancelled + tasks.live
 *             per seat: freed <= scanned <= dealt <= freed + SLOTS; held tasks in [scanned, dealt)
 * Locking:    `mutex` protects everything here that is not marked otherwise, and all the parent's
 *             writes to shared memory.  Callbacks, system calls that may take long, and wake-ups
 *             happen without it (struct weir__after collects them).
 */
#ifndef WEIR_EXEC_POOL_IMPL_H
#define WEIR_EXEC_POOL_IMPL_H

#include <weir/memory.h>
#include <weir/pool.h>

#include "base/mutex.h"
#include "exec/batch.h"
#include "flow/record.h"
#include "flow/waitq.h"
#include "model/backlog.h"
#include "model/ring_depth.h"

#define WEIR__BATCH 256u /* completions per collect at most */

/* The parent's private part of a seat.  Ring positions grow for ever; slot = position % SLOTS. */
typedef struct weir__desk {
    weir__seat *seat;
    bool live;      /* has a process */
    bool ready;     /* which has said so */
    bool ended;     /* its process has ended; to be buried.  Collector only. */
    bool began;     /* and it has begun a task */
    bool stalled;   /* it lost a task that it did not claim in time: none until it moves */
    bool dismissed; /* it was told to leave: there are too many */
    bool answered;  /* its request for a block; until the slot is collected.  Collector only, as are
                      granted and collected */
    pid_t pid;
    int pidfd;
    uint64_t freed;   /* slots before it may be dealt again */
    uint64_t scanned; /* slots before it are collected or skipped */
    uint64_t dealt;
    unsigned held;         /* tasks it has */
    uint64_t total;        /* tasks dealt to this process */
    uint64_t reserved;     /* memory of the governor's, for each of the tasks it has */
    uint64_t release_to;   /* extent position collected so far */
    weir_time progressed;  /* when it last took or finished something, as far as we saw */
    weir_time cut;         /* when it last lost items of its batch */
    void *remains;         /* replies of its last process to items of a batch, which the caller
                                    reads until the next collect.  Collector only. */
    weir__block extent;    /* reply space; kept for the next process */
    weir__holdings kept;   /* payloads that it keeps past their reply.  Collector only. */
    weir__block granted;   /* for the large reply it is writing */
    weir__block collected; /* a large reply that the caller reads until the next collect */
    uint32_t tasks[WEIR__SLOTS]; /* by slot; WEIR__NO_TASK: none or revoked */
    /* what other processes see, of all processes that ever sat here */
    weir__record *record; /* NULL: nothing */
    uint64_t starts, done, died;
    uint64_t told; /* a sum of all that tell_desk tells */
} weir__desk;

/* What is to be done once the mutex is released. */
typedef struct weir__after {
    weir__wakeups wakeups;
    weir__seat *rings[8]; /* workers to wake */
    unsigned n_rings;
    bool kick; /* the collector has something to do */
} weir__after;

struct weir_pool {
    weir__mutex mutex;
    weir_pool_opts opts;
    pid_t owner; /* set once */
    unsigned n_desks;
    weir__desk *desks;
    weir__channel channel;
    weir__arena arena; /* has a mutex of its own, taken inside ours or alone */
    weir__tasks tasks;
    size_t limit;      /* permits: backlog + workers, or SIZE_MAX */
    bool sizes_itself; /* the backlog is WEIR_AUTO: as large as `size` says */
    bool pressed;      /* somebody found no permit since a worker ran dry last */
    weir__backlog size;
    uint64_t review_at;     /* so many completions: the size is looked at again */
    uint64_t payload_bytes; /* moving average, weight 1/8 */
    size_t permits;
    size_t unsettled; /* completions handed out whose permits are not given back */
    weir__waitq submitters;
    const void *collector; /* the thread that collected last; see weir_pool_admit */
    bool closed, killed;
    unsigned live; /* desks with a process */
    unsigned starting;
    unsigned allowed;   /* workers, <= n_desks */
    unsigned dismissed; /* of the live ones */
    weir__ring_depth depth;
    int bell_fd, parent_fd, epoll_fd; /* set once */

    struct {                      /* see governed.c */
        uint64_t grant;           /* reserved for a next task; 0: nothing */
        uint64_t asked;           /* and waiting in the governor's line; 0: not */
        uint64_t came;            /* reserved in that line, and not looked at yet; 0: nothing */
        _Atomic unsigned telling; /* calls of the governor that are not over */
        bool off;                 /* the governor is closed: everybody may run */
        bool is_stale;        /* a worker is new, and has taken memory.  Collector only, as are */
        bool polls;           /* it has no line for us.  */
        weir_pending pending; /* the place in its line */
    } memory;

    /* The collecting thread sleeps: for threads of ours.  Workers have a copy in shared memory, which
     * nobody here believes. */
    _Atomic uint32_t collector_asleep;

    /* starting workers */
    bool served;             /* a worker has begun a task once */
    unsigned start_failures; /* in a row */
    weir_time not_before;    /* no start until then */
    uint64_t failing_before; /* waiting tasks with a lower seq complete as NOT_STARTED */
    weir_exit failing_exit;
    uint32_t fail_size;
    unsigned char fail[WEIR__FAIL_BYTES];
    int64_t oom_kills_seen, oom_kills_unexplained;

    /* collector only: tasks of the last batch, to be freed by the next collect */
    weir__task *batch[WEIR__BATCH];
    size_t n_batch;
    weir_time chores_at; /* when deaths and starts are looked at, whatever else there is */
    unsigned scan_from;  /* the desk to begin with, for fairness */

    /* counters */
    uint64_t accepted, completed, cancelled, dropped[WEIR_DROP_REASONS], refused;
    uint64_t retried, died, workers_started, workers_died, workers_recycled;
    uint64_t submit_waits, submit_blocked_ns, service_ns;
    weir__record *record; /* what other processes see; NULL: nothing */
    size_t busy_told, waiting_told;
};

/* tell.c: unlock the mutex, when what changed under it was told.  The second where all that may have
 * changed is that tasks were accepted and dealt, and permits given. */
void weir__pool_unlock(weir_pool *pool);
void weir__pool_unlock_soon(weir_pool *pool);

/* tell.c, under the mutex: a process sits there now; a task was collected from it. */
void weir__desk_taken(weir_pool *pool, weir__desk *desk);
void weir__desk_done(weir__desk *desk, int64_t service_ns);

/* Names the calling thread as long as it lives. */
const void *weir__this_thread(void);

static inline weir__slot *weir__slot_at(const weir__desk *desk, uint64_t position)
{
    return &desk->seat->slots[position % WEIR__SLOTS];
}

/* Under the mutex: the worker may be dealt a task, up to `depth` in all. */
bool weir__pool_has_room(const weir_pool *pool, const weir__desk *desk, unsigned depth);

/* Under the mutex: the batch that a worker runs, which is the first of its unsettled tasks; NULL: it
 * runs none. */
weir__task *weir__pool_running_batch(const weir_pool *pool, const weir__desk *desk);

/* Under the mutex: a worker could run a task at once. */
bool weir__pool_has_idle(const weir_pool *pool);

/* Under the mutex: gives waiting tasks to workers that have room. */
void weir__pool_deal(weir_pool *pool, weir__after *after);

/* Under the mutex: the task's slot is READY -> REVOKED if its worker has not claimed it; then the
 * task belongs to nobody.  False: it has started. */
bool weir__pool_revoke(weir_pool *pool, weir__task *task);

/* Under the mutex: when a worker idles, nothing is in line, and work waits with another one: puts
 * some of that in line, and says so; or, if it is too early, brings *wake_at forward to when it is
 * worth another look. */
bool weir__pool_redeal(weir_pool *pool, weir_time *wake_at);

/* Under the mutex: tells as many workers to leave as are more than allowed. */
void weir__pool_dismiss(weir_pool *pool, weir__after *after);

/* Under the mutex: another worker should be started. */
bool weir__pool_wants_worker(const weir_pool *pool);

/* Under the mutex: returns n permits, to those who wait for them first. */
void weir__pool_give_permits(weir_pool *pool, size_t n, weir__after *after);

/* Under the mutex: notes that a sleeping worker has something to see. */
void weir__pool_ring(weir__after *after, weir__seat *seat);

static inline bool weir__pool_is_governed(const weir_pool *pool)
{
    return pool->opts.governor && !pool->memory.off;
}

/* How much memory a task is to have; zero in a pool without a governor. */
typedef struct weir__need {
    uint64_t bytes;
    bool is_known; /* was told, or learned */
} weir__need;

/* Under the mutex; asked once for a task. */
weir__need weir__pool_need_of(const weir_pool *pool, const weir__task *task);

/* Under the mutex: there is memory for a task of that need to run there; then it gets it. */
bool weir__pool_may_have(const weir_pool *pool, const weir__desk *desk, const weir__need *need);
void weir__pool_use_grant(weir_pool *pool, weir__desk *desk);

/* Collector, without the mutex: gives back what is not needed, and asks for what the next task needs.
 * True: there is something for it, deal again.  Brings *wake_at forward while there is not. */
bool weir__pool_mind_memory(weir_pool *pool, weir_time *wake_at);

/* Gives back everything; nobody else has to do with the pool any more. */
void weir__pool_return_memory(weir_pool *pool);

/* What a task took, if that was measured (> 0). */
void weir__pool_learn(weir_pool *pool, const weir__task *task, uint64_t peak_bytes);

/* Under the mutex: a task that waits behind another one of its worker, or a batch that has more to do;
 * NULL: there is none. */
weir__task *weir__pool_find_waiting(const weir_pool *pool);

/* Without the mutex: takes a block back, and tells the collector, who trims what is kept. */
void weir__pool_free_block(weir_pool *pool, weir__block *block);

/* Without the mutex. */
void weir__pool_do_after(weir_pool *pool, weir__after *after);

#endif
