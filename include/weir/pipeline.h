/* pipeline.h - stages joined by bounded queues; the contract, quoted by weir_pipeline(3).
 *
 * A pipeline is a graph of stages without cycles.  Each stage has a queue in front of it (but sources
 * and inline stages) and workers that take items out of it, run its function on them, and emit what
 * comes out to the stages behind it.
 *
 * Bound:      a stage holds no more than its queue's bounds, and one batch in the hands of each worker
 *             (an ordered stage: of each place of its window).
 * Law:        of every stage, at the end and whenever nobody is in the middle of a call:
 *                 accepted == processed + failed + dropped (by reason) + in hand + depth
 *             and of every stage with stages behind it
 *                 emitted == what these accepted from it
 * Ownership:  weir_pipeline_emit takes the item, always.  A function that returns >= 0 has taken its
 *             items, one that returns < 0 has left them.  Each item that the pipeline owned and no
 *             function will get goes to on_drop exactly once, with no lock held.
 * Pressure:   every nanosecond that somebody waited for room is charged to the stage at the root of
 *             the chain, and to what limits it there: weir_pipeline_get_verdict.
 * End:        a stage whose input has ended ends, and so do those behind it, in order; halted, all end
 *             at once, and what was inside is dropped.
 * Deadlock:   a cycle is refused by weir_pipeline_start, with its stages named by
 *             weir_pipeline_trouble; a put from inside the pipeline to a stage that feeds the caller
 *             never waits: WEIR_EDEADLK.
 */
#ifndef WEIR_PIPELINE_H
#define WEIR_PIPELINE_H

#include <weir/breaker.h>
#include <weir/limit.h>
#include <weir/memory.h>
#include <weir/queue.h>
#include <weir/rate.h>
#include <weir/retry.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_pipeline weir_pipeline;

/* The n-th stage that was added; 0 is the first. */
typedef unsigned weir_stage;

#define WEIR_NO_STAGE   UINT32_MAX
#define WEIR_STAGES_MAX 256 /* in one pipeline */

/* Why an item was lost: the reasons of a queue (weir_drop_reason), and those of a pipeline. */
typedef enum weir_loss {
    WEIR_LOSS_NEWEST = WEIR_DROP_NEWEST,
    WEIR_LOSS_OLDEST = WEIR_DROP_OLDEST,
    WEIR_LOSS_SAMPLED = WEIR_DROP_SAMPLED,
    WEIR_LOSS_EXPIRED = WEIR_DROP_EXPIRED,
    WEIR_LOSS_DISCARDED = WEIR_DROP_DISCARDED, /* the pipeline was halted */
    WEIR_LOSS_DAMAGED = WEIR_DROP_LOST,        /* on disk; on_drop is not called */
    WEIR_LOSS_TIMEOUT = WEIR_DROP_REASONS,     /* no room within the stage's put timeout */
    WEIR_LOSS_REFUSED, /* no room, overflow is FAIL; or it can never be taken: too large, say */
    WEIR_LOSS_NO_MEMORY,
    WEIR_LOSS_REASONS, /* how many there are */
    /* Told to on_drop only; not counted as lost. */
    WEIR_LOSS_FAILED = WEIR_LOSS_REASONS, /* its function failed, and the stage skips such items */
    WEIR_LOSS_OUTPUT,                     /* emitted by a stage with none behind it */
} weir_loss;

/* "oldest", "timeout", "failed", ...; static storage. */
WEIR_API const char *weir_loss_name(int loss);

/* What limits a stage. */
typedef enum weir_cause {
    WEIR_CAUSE_WORKERS = 0, /* its function, in as many workers as it has */
    WEIR_CAUSE_RATE,
    WEIR_CAUSE_LIMITER,
    WEIR_CAUSE_BREAKER,
    WEIR_CAUSE_MEMORY,
    WEIR_CAUSE_RETRY,  /* pauses before retries */
    WEIR_CAUSE_ORDER,  /* one slow item that the others have to wait for */
    WEIR_CAUSE_SOURCE, /* it is a source, and nothing holds it back */
    WEIR_CAUSES        /* how many there are */
} weir_cause;

/* "workers", "rate", ...; static storage. */
WEIR_API const char *weir_cause_name(int cause);

typedef struct weir_pipeline_opts {
    size_t size;      /* set by WEIR_PIPELINE_OPTS_INIT */
    const char *name; /* copied; NULL: "pipeline" */
    void (*on_drop)(void *item, weir_stage stage, weir_loss reason, void *ctx); /* required */
    /* Another reference to the item, for broadcasts; false: no memory, the item is dropped there.
     * NULL: no stage may broadcast. */
    bool (*share)(void *item, void **ret_item, void *ctx);
    /* The cost of an item that comes to a stage with max_cost, where it is emitted with cost 0;
     * NULL: 0. */
    uint64_t (*measure)(void *item, weir_stage stage, void *ctx);
    void *ctx; /* of all these */
    uint64_t
        auto_bytes; /* budget for queues that size themselves, in cost, all together; 0: none */
    /* For a language whose threads hold a lock while they run: called around every wait of a worker, an
     * emitter or the pipeline's own thread, which is outside but for on_workers, on_end and
     * start_thread.  Both or none. */
    void (*before_wait)(void *ctx);
    void (*after_wait)(void *ctx);
    /* Called once, when the last stage has ended, on the thread that ended it (or started the pipeline, if
     * that took longer), no lock held; not after a start that failed.  NULL: not. */
    void (*on_end)(void *ctx);
    /* Starts a thread that calls main(arg); < 0: could not.  NULL: pthread_create, signals blocked. */
    int (*start_thread)(void (*main)(void *arg), void *arg, const char *name, void *ctx);
} weir_pipeline_opts;

#define WEIR_PIPELINE_OPTS_INIT WEIR__SIZED(weir_pipeline_opts)

/* WEIR_EINVAL, WEIR_ENOMEM. */
WEIR_API int weir_pipeline_create(weir_pipeline **ret_pipeline, const weir_pipeline_opts *opts);

/* Halts, waits for the threads, drops what is inside (NULL is fine).  Not from one of its own threads;
 * nobody else may be in a call on it. */
WEIR_API void weir_pipeline_destroy(weir_pipeline *pipeline);

/* ---- building: by one thread, before the start --------------------------------------------- */

typedef struct weir_output weir_output;

/* Who is running, for functions that emit. */
typedef struct weir_run {
    weir_pipeline *pipeline;
    weir_stage stage;
    weir_output *output;
    unsigned attempt; /* 0: the first */
} weir_run;

/* Works on n items, 1 if the stage has no batch.  >= 0: taken; a source (called with n 0 again and
 * again) says WEIR_MORE or WEIR_END.  < 0: failed with that number, all n items are left; WEIR_FATAL: and
 * there is no use in another attempt.  What an attempt that fails has emitted stays emitted. */
typedef int weir_stage_fn(void *ctx, void *const *items, size_t n, const weir_run *run);

#define WEIR_MORE  0
#define WEIR_END   1
#define WEIR_FATAL INT32_MIN

typedef enum weir_stage_kind {
    WEIR_STAGE_THREAD = 0, /* workers are threads of its own */
    WEIR_STAGE_INLINE,     /* runs on the thread that emits to it; no queue, one stage before it */
    WEIR_STAGE_EXTERNAL,   /* the caller takes from its queue, emits, reports and ends it */
} weir_stage_kind;

/* Where an emitted item goes when several stages are behind. */
typedef enum weir_route {
    WEIR_ROUTE_BROADCAST = 0, /* to each, in the order they were connected */
    WEIR_ROUTE_ROUND_ROBIN,
    WEIR_ROUTE_KEY, /* to number key(item) modulo how many there are */
} weir_route;

/* What becomes of the items of a call that failed. */
typedef enum weir_on_error {
    WEIR_ON_ERROR_HALT = 0,    /* on_drop gets them, and the pipeline is halted */
    WEIR_ON_ERROR_SKIP,        /* on_drop gets them */
    WEIR_ON_ERROR_DEAD_LETTER, /* they go to the stage dead_letter */
} weir_on_error;

typedef struct weir_stage_opts {
    size_t size;      /* set by WEIR_STAGE_OPTS_INIT */
    const char *name; /* copied; required, at most 100 bytes, each once */
    weir_stage_kind kind;
    bool source;       /* has no queue; called with n 0 until it says WEIR_END */
    weir_stage_fn *fn; /* required but for EXTERNAL */
    void *ctx;
    weir_stage part_of; /* counts for the verdict as a part of this stage, which was added before; 0
                           with is_part false: none */
    bool is_part;

    unsigned workers; /* threads at the start; default 1 */
    unsigned
        workers_min; /* with workers_max: as many as are needed, by the queue and how long items
                             take; default 1 */
    unsigned workers_max; /* 0: always `workers` */
    bool ordered;         /* several workers, and what they emit is in the order of the items */
    size_t window; /* of an ordered stage: items taken and not emitted; default 4 x workers */

    size_t queue;     /* items, > 0; default 16; WEIR_AUTO_QUEUE: as many as are needed */
    size_t queue_max; /* of AUTO_QUEUE; default 4096 */
    uint64_t max_cost;
    int64_t max_age_ns;
    weir_overflow overflow;
    uint32_t sample_keep_one_of;
    int64_t put_timeout_ns; /* with BLOCK: an emitted item that finds no room for so long is dropped
                               (TIMEOUT); 0: waits for ever */
    weir_spill *spill;      /* of overflow SPILL, as in weir_queue_opts */
    const weir_codec *codec;
    bool
        acknowledge; /* its queue is durable: an item is acknowledged when its call has returned, and
                         what it emitted was taken by the stages behind (or dropped there as they
                         say, but for want of memory or a disk), or on_error has decided.  So after
                         a crash it comes again unless that has happened; halted, what is inside
                         stays on disk */
    weir_queue
        *borrowed; /* a queue of the caller's, which must outlive the pipeline: it closes it, and
                             the queue's on_drop gets what is dropped there.  Its own bounds count; of
                             these, queue (if it is AUTO), overflow (to be the same), acknowledge and
                             the put timeout; max_cost only says whether `measure` is asked */
    bool open;     /* weir_pipeline_put may feed it, until weir_pipeline_close_input */

    size_t batch;      /* items for one call of fn; default 1 */
    int64_t linger_ns; /* how long a batch waits to become full; 0: takes what is there */
    weir_route route;  /* of what it emits */
    uint64_t (*key)(void *item, void *ctx); /* of ROUTE_KEY; ctx is the stage's */

    /* What a call within limits emits leaves after they were given back; they are kept in memory till then. */
    weir_rate *rate;         /* one token for each item before fn is called; the caller's, each */
    weir_limit *limit;       /* one permit for each call of fn */
    weir_breaker *breaker;   /* asked before each call of fn; open: waits until it lets one in */
    weir_governor *governor; /* reserves governor_bytes for each call of fn */
    uint64_t governor_bytes;
    unsigned attempts;    /* calls of fn until the items have failed; default 1 */
    weir_backoff backoff; /* pauses between them; size 0: default */
    weir_on_error on_error;
    weir_stage dead_letter;
    /* Told when a call has failed for good, before its items go where on_error says; NULL: nobody. */
    void (*on_failure)(void *ctx, void *const *items, size_t n, int error);
    /* EXTERNAL with workers_max: told how many are wanted, on the pipeline's own thread. */
    void (*on_workers)(void *ctx, unsigned wanted);
} weir_stage_opts;

#define WEIR_STAGE_OPTS_INIT WEIR__SIZED(weir_stage_opts)
#define WEIR_AUTO_QUEUE      (SIZE_MAX - 1)

/* WEIR_EINVAL: an option out of range (weir_pipeline_trouble says which), or started already;
 * WEIR_EFULL: there are WEIR_STAGES_MAX; WEIR_ENOMEM. */
WEIR_API int weir_pipeline_add(weir_pipeline *pipeline, const weir_stage_opts *opts,
                               weir_stage *ret_stage);

/* What `from` emits goes to `to`.  WEIR_EINVAL: no such stage, connected already, `to` is a source, or
 * an inline stage that has one before it; WEIR_ENOMEM. */
WEIR_API int weir_pipeline_connect(weir_pipeline *pipeline, weir_stage from, weir_stage to);

/* What was wrong with the last call that returned WEIR_EINVAL or WEIR_EDEADLK while building, in words;
 * of the pipeline, until the next call. */
WEIR_API const char *weir_pipeline_trouble(weir_pipeline *pipeline);

/* Starts the workers.  WEIR_EDEADLK: the stages form a cycle; WEIR_EINVAL: a stage that nothing feeds,
 * or cannot broadcast; WEIR_ENOMEM, WEIR_ESPAWN: none is left running; what was wrong can be put right,
 * and it be called again (after WEIR_ESPAWN not where a queue is borrowed: that is closed then). */
WEIR_API int weir_pipeline_start(weir_pipeline *pipeline);

/* ---- running ------------------------------------------------------------------------------- */

/* By the function that runs: emits an item to the stages behind, waiting for room.  Takes the item,
 * always.  0: kept by all; 1: dropped, at least by one of them. */
WEIR_API int weir_emit(const weir_run *run, void *item, uint64_t cost);

/* The same for n items; costs NULL: 0 each.  Returns how many were dropped by one at least. */
WEIR_API size_t weir_emit_many(const weir_run *run, void *const *items, const uint64_t *costs,
                               size_t n);

/* Whether the pipeline is being halted: a long call may return early. */
WEIR_API bool weir_run_is_halted(const weir_run *run);

/* Puts an item into an `open` stage from outside, as weir_queue_put; < 0: the item is the caller's.
 * WEIR_EDEADLK: by a worker of a stage that this one feeds, and there is no room. */
WEIR_API int weir_pipeline_put(weir_pipeline *pipeline, weir_stage stage, void *item, uint64_t cost,
                               weir_time deadline);

/* No more puts from outside; the stage ends when its other inputs have.  Twice is fine. */
WEIR_API int weir_pipeline_close_input(weir_pipeline *pipeline, weir_stage stage);

/* The stage's queue, for who takes from an EXTERNAL stage; NULL: it has none. */
WEIR_API weir_queue *weir_pipeline_queue(weir_pipeline *pipeline, weir_stage stage);

/* Of an EXTERNAL stage: emits what its work came to; as weir_emit. */
WEIR_API int weir_pipeline_emit(weir_pipeline *pipeline, weir_stage stage, void *item,
                                uint64_t cost);

/* The same for who cannot wait here (an event loop): the stages that the item is to be put to, for
 * weir_pipeline_account; up to max of them, returns how many there are (the item is counted as emitted
 * so often).  Not if an inline stage is among those behind: WEIR_EINVAL. */
WEIR_API int weir_pipeline_route(weir_pipeline *pipeline, weir_stage stage, void *item,
                                 weir_stage *ret_targets, unsigned max);

/* Accounts for an item of weir_pipeline_route that was put into the target's queue (WEIR_KEPT,
 * WEIR_DROPPED), or could not be and is the caller's (the error, as of weir_queue_put); blocked_ns: how
 * long it waited. */
WEIR_API void weir_pipeline_account(weir_pipeline *pipeline, weir_stage stage, weir_stage target,
                                    int rc, int64_t blocked_ns);

/* Of an EXTERNAL stage: what was done since the last report. */
typedef struct weir_work {
    size_t size; /* set by WEIR_WORK_INIT */
    uint64_t processed, failed, retried;
    uint64_t busy_ns, idle_ns; /* summed over its workers */
    uint64_t held_ns[WEIR_CAUSES];
    unsigned workers; /* now */
} weir_work;

#define WEIR_WORK_INIT WEIR__SIZED(weir_work)

/* WEIR_EINVAL: it is none. */
WEIR_API int weir_pipeline_report(weir_pipeline *pipeline, weir_stage stage, const weir_work *work);

/* Of an EXTERNAL stage (or source): it emits no more.  Twice is fine. */
WEIR_API int weir_pipeline_end_stage(weir_pipeline *pipeline, weir_stage stage);

/* Of an EXTERNAL stage: an item has failed for good, and counts so.  on_error decides; takes the item. */
WEIR_API int weir_pipeline_fail(weir_pipeline *pipeline, weir_stage stage, void *item, int error);

/* Of an EXTERNAL stage: an item in hand that will not be worked on; on_drop gets it. */
WEIR_API int weir_pipeline_drop(weir_pipeline *pipeline, weir_stage stage, void *item,
                                weir_loss reason);

/* ---- ending -------------------------------------------------------------------------------- */

/* Waits until every stage has ended: WEIR_OK, or the error of the call that halted it.
 * WEIR_ETIMEDOUT, WEIR_EINTR: it has not ended.  WEIR_EDEADLK: by one of its own threads. */
WEIR_API int weir_pipeline_wait(weir_pipeline *pipeline, weir_time deadline);

/* Sources are not asked any more, puts from outside are refused; what is inside goes its way.  Does not
 * wait.  A source that is in a call at this moment still emits what comes of it; one that needs more than
 * a second for that is given up, and what it emits later is dropped (DISCARDED). */
WEIR_API void weir_pipeline_stop(weir_pipeline *pipeline);

/* Stops at once: drops what waits (DISCARDED); calls that run are let finish, and what they emit is
 * dropped.  Does not wait.  Sources are given up as after weir_pipeline_stop. */
WEIR_API void weir_pipeline_halt(weir_pipeline *pipeline);

/* ---- looking ------------------------------------------------------------------------------- */

typedef struct weir_stage_snapshot {
    size_t size; /* set by WEIR_STAGE_SNAPSHOT_INIT */
    const char *name;
    unsigned workers, workers_peak;
    size_t queue;                      /* the bound now; 0: it has no queue */
    size_t depth, peak_depth, in_hand; /* depth: in memory and on disk; peak: in memory */
    uint64_t spilled;                  /* of depth: on disk */
    uint64_t recovered;                /* of accepted: what an earlier process left */
    uint64_t accepted, processed, failed, retried, emitted;
    uint64_t dropped[WEIR_LOSS_REASONS];
    uint64_t waits; /* emits to it that found no room and waited: backpressure events */
    uint64_t busy_ns, idle_ns;
    uint64_t blocked_ns;            /* its workers, for room in other stages */
    uint64_t held_ns[WEIR_CAUSES];  /* its workers, for its own limits */
    uint64_t pressed_ns;            /* others waited for room in this stage */
    double charged_ns[WEIR_CAUSES]; /* pressure whose root it is */
    bool ended;
} weir_stage_snapshot;

#define WEIR_STAGE_SNAPSHOT_INIT WEIR__SIZED(weir_stage_snapshot)

/* The fields of one stage; each is right for itself.  WEIR_EINVAL: no such stage. */
WEIR_API int weir_pipeline_get_snapshot(weir_pipeline *pipeline, weir_stage stage,
                                        weir_stage_snapshot *ret_snapshot);

/* How many stages there are. */
WEIR_API unsigned weir_pipeline_stages(weir_pipeline *pipeline);

/* Who holds everything back, since the start. */
typedef struct weir_verdict {
    size_t size;      /* set by WEIR_VERDICT_INIT */
    weir_stage stage; /* WEIR_NO_STAGE: nobody */
    weir_cause cause;
    double share; /* of all pressure; of SOURCE: of the time that the stages waited for it */
    char text
        [256]; /* "stage 'store' is the bottleneck: 94 % of blocked time; it is limited by ..." */
} weir_verdict;

#define WEIR_VERDICT_INIT WEIR__SIZED(weir_verdict)

WEIR_API int weir_pipeline_get_verdict(weir_pipeline *pipeline, weir_verdict *ret_verdict);

#ifdef __cplusplus
}
#endif

#endif
