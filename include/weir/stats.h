/* stats.h - the numbers of every process of the user that uses weir; the contract, quoted by
 * weir_stats(3).  How they get here is weir_stats(7).
 *
 * Nothing is asked of the processes that are looked at, and nothing they do can stop a reader: what is
 * damaged, foreign, or of a dead process is passed over.
 * Exactness:  at rest all numbers are exact.  While calls are under way, each counter is one that was
 *             true in between, and none ever goes back.
 * Threads:    a reader is for one thread at a time.
 */
#ifndef WEIR_STATS_H
#define WEIR_STATS_H

#include <weir/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a record is of. */
#define WEIR_STATS_KIND_MAP(X)                                                                     \
    X(QUEUE, 1, "queue")                                                                           \
    X(SHARED_QUEUE, 2, "shared_queue")                                                             \
    X(THREAD_POOL, 3, "thread_pool")                                                               \
    X(PROCESS_POOL, 4, "process_pool")                                                             \
    X(STAGE, 5, "stage")                                                                           \
    X(LIMIT, 6, "limit")                                                                           \
    X(RATE, 7, "rate")                                                                             \
    X(BREAKER, 8, "breaker")                                                                       \
    X(GOVERNOR, 9, "governor")                                                                     \
    X(WATERMARK, 10, "watermark")                                                                  \
    X(WORKER, 11, "worker")

typedef enum weir_stats_kind {
#define X(name, value, text) WEIR_STATS_##name = (value),
    WEIR_STATS_KIND_MAP(X)
#undef X
} weir_stats_kind;

/* "queue", ...; "unknown" for any other number.  Static storage. */
WEIR_API const char *weir_stats_kind_name(int kind);

/* The numbers of a record.  COUNTERs only grow; GAUGEs are as of now.  0 where a kind has no such
 * number.  Items are tasks in a pool, calls in a limit or breaker, tokens of a rate; cost is bytes or whatever the program
 * measures. */
#define WEIR_STATS_NUMBER_MAP(X)                                                                   \
    X(ACCEPTED, 0, COUNTER, "accepted") /* items taken in */                                       \
    X(ACCEPTED_COST, 1, COUNTER, "accepted_cost")                                                  \
    X(PEAK_DEPTH, 2, GAUGE, "peak_depth")                                                          \
    X(DELIVERED, 16, COUNTER, "delivered") /* items handed out */                                  \
    X(DELIVERED_COST, 17, COUNTER, "delivered_cost")                                               \
    X(DONE, 18, COUNTER, "done") /* of what was delivered, where that is reported */               \
    X(DONE_COST, 19, COUNTER, "done_cost")                                                         \
    X(CAPACITY, 32, GAUGE, "capacity") /* items; UINT64_MAX: no bound */                           \
    X(MAX_COST, 33, GAUGE, "max_cost") /* 0: no bound */                                           \
    X(MAX_AGE_NS, 34, GAUGE, "max_age_ns")                                                         \
    X(DEPTH, 35, GAUGE, "depth") /* items inside and not delivered, in memory */                   \
    X(DEPTH_COST, 36, GAUGE, "depth_cost")                                                         \
    X(SPILLED, 37, GAUGE, "spilled") /* items on disk only */                                      \
    X(SPILLED_COST, 38, GAUGE, "spilled_cost")                                                     \
    X(IN_FLIGHT, 39, GAUGE, "in_flight") /* delivered, and not done */                             \
    X(IN_FLIGHT_COST, 40, GAUGE, "in_flight_cost")                                                 \
    X(PUT_WAITING, 41, GAUGE, "put_waiting")             /* callers that wait for room */          \
    X(GET_WAITING, 42, GAUGE, "get_waiting")             /* callers that wait for items */         \
    X(PUT_WAITING_SINCE, 43, GAUGE, "put_waiting_since") /* weir_time: so many; 0: not known */    \
    X(GET_WAITING_SINCE, 44, GAUGE, "get_waiting_since")                                           \
    X(PUT_BLOCKED_NS, 45, COUNTER,                                                                 \
      "put_blocked_ns") /* summed over callers, up to put_waiting_since */                         \
    X(GET_BLOCKED_NS, 46, COUNTER, "get_blocked_ns")                                               \
    X(REFUSED, 47, COUNTER, "refused")               /* neither taken nor dropped */               \
    X(DROPPED_NEWEST, 48, COUNTER, "dropped_newest") /* as weir_drop_reason */                     \
    X(DROPPED_OLDEST, 49, COUNTER, "dropped_oldest")                                               \
    X(DROPPED_SAMPLED, 50, COUNTER, "dropped_sampled")                                             \
    X(DROPPED_EXPIRED, 51, COUNTER, "dropped_expired")                                             \
    X(DROPPED_DISCARDED, 52, COUNTER, "dropped_discarded")                                         \
    X(DROPPED_LOST, 53, COUNTER, "dropped_lost")                                                   \
    X(DROPPED_NEWEST_COST, 56, COUNTER, "dropped_newest_cost")                                     \
    X(DROPPED_OLDEST_COST, 57, COUNTER, "dropped_oldest_cost")                                     \
    X(DROPPED_SAMPLED_COST, 58, COUNTER, "dropped_sampled_cost")                                   \
    X(DROPPED_EXPIRED_COST, 59, COUNTER, "dropped_expired_cost")                                   \
    X(DROPPED_DISCARDED_COST, 60, COUNTER, "dropped_discarded_cost")                               \
    X(DROPPED_LOST_COST, 61, COUNTER, "dropped_lost_cost")                                         \
    X(CLOSED, 64, GAUGE, "closed")               /* 1: it is */                                    \
    X(ABOVE_HIGH, 65, GAUGE, "above_high")       /* 1: above its high mark */                      \
    X(STATE, 66, GAUGE, "state")                 /* weir_breaker_state, weir_memory_step */        \
    X(WORKERS, 67, GAUGE, "workers")             /* threads, or processes that live */             \
    X(RESTARTS, 68, COUNTER, "restarts")         /* workers that died or were recycled */          \
    X(RETRIED, 69, COUNTER, "retried")           /* tasks that were run again */                   \
    X(FAILED, 70, COUNTER, "failed")             /* calls that failed, tasks whose worker died */  \
    X(SLOW, 71, COUNTER, "slow")                 /* calls that took too long */                    \
    X(OPENED, 72, COUNTER, "opened")             /* times that a breaker opened */                 \
    X(RATE_PER_HOUR, 73, GAUGE, "rate_per_hour") /* tokens */                                      \
    X(REPORTS_DONE, 75, GAUGE, "reports_done")   /* 1: done is counted, and in flight follows */   \
    X(CANCELLED, 76, COUNTER, "cancelled")       /* taken back by who gave it */                   \
    X(SHED, 77, COUNTER, "shed")                 /* sent away because of overload */               \
    X(PUT_WAITS, 78, COUNTER, "put_waits")       /* calls that had to wait for room */             \
    X(GET_WAITS, 79, COUNTER, "get_waits")       /* calls that had to wait for items */            \
    X(SHARED, 80, GAUGE, "shared") /* 1: of several processes; the counters are this one's part */ \
    X(PID, 81, GAUGE, "pid")       /* of a worker that is a process */                             \
    X(OWNER, 82, GAUGE,                                                                            \
      "owner") /* id of what it is a part of: a worker's pool, a stage's first stage */            \
    X(PLACE, 83, GAUGE, "place") /* of a stage or worker in its owner, from 0 */                   \
    X(FEEDS, 84, GAUGE, "feeds") /* a stage: bit i: it emits to the stage in place i (< 64) */     \
    X(PRESSURE_NS, 85, COUNTER, "pressure_ns") /* a stage: waits of others whose root it is */     \
    X(CAUSE, 86, GAUGE, "cause")               /* a stage: weir_cause, of most of that */          \
    X(BUSY_NS, 87, COUNTER, "busy_ns")         /* of workers, summed: in the function */           \
    X(IDLE_NS, 88, COUNTER, "idle_ns")         /* of workers, summed: without input */             \
    X(BLOCKED_NS, 89, COUNTER,                                                                     \
      "blocked_ns")                    /* of a stage's workers, summed: for room behind it */      \
    X(LOW, 90, GAUGE, "low")           /* of a watermark: where it goes on */                      \
    X(PAUSES, 91, COUNTER, "pauses")   /* times that a watermark paused */                         \
    X(EMITTED, 92, COUNTER, "emitted") /* of a stage: items that it handed on */

typedef enum weir_stats_number {
#define X(name, value, type, text) WEIR_STATS_##name = (value),
    WEIR_STATS_NUMBER_MAP(X)
#undef X
        WEIR_STATS_NUMBERS = 96 /* how many there is room for */
} weir_stats_number;

/* "accepted", ...; NULL: there is no such number.  Static storage. */
WEIR_API const char *weir_stats_number_name(int number);
WEIR_API bool weir_stats_is_counter(int number);

/* ---- times -------------------------------------------------------------------------------- */

#define WEIR_STATS_BUCKETS 1152

/* How long things took.  Times up to 73 minutes are told apart to 1.6 % (below 128 ns to 2 ns). */
typedef struct weir_stats_times {
    uint64_t sum_ns, max_ns;
    uint64_t bucket[WEIR_STATS_BUCKETS];
} weir_stats_times;

/* The shortest time that is counted in a bucket; of WEIR_STATS_BUCKETS: where the last one ends. */
WEIR_API uint64_t weir_stats_bucket_floor(unsigned bucket);

/* How many were counted. */
WEIR_API uint64_t weir_stats_times_count(const weir_stats_times *times);

/* The time that a share p of all, in [0, 1], did not exceed; never more than max_ns; 0 without any. */
WEIR_API uint64_t weir_stats_percentile(const weir_stats_times *times, double p);

/* What was counted between two looks at one record.  (The longest of it is known to its bucket only.) */
WEIR_API void weir_stats_times_between(const weir_stats_times *before,
                                       const weir_stats_times *after, weir_stats_times *ret_times);

/* ---- reading ------------------------------------------------------------------------------ */

typedef struct weir_stats weir_stats;

typedef struct weir_stats_process {
    size_t size; /* set by WEIR_STATS_PROCESS_INIT */
    int64_t pid, parent;
    uint64_t start_ticks; /* as in /proc/pid/stat: with pid, which process it is */
    int64_t created_ns;   /* of its page: since 1970 */
    uint64_t rss_bytes;   /* resident set now; 0: in another pid namespace, or gone */
    uint64_t unrecorded;  /* objects for which there was no record */
    char library[16];     /* the version of its libweir */
    char command[256];    /* its arguments, cut off */
} weir_stats_process;

#define WEIR_STATS_PROCESS_INIT WEIR__SIZED(weir_stats_process)

typedef struct weir_stats_record {
    size_t size; /* set by WEIR_STATS_RECORD_INIT */
    weir_stats_kind kind;
    char name[64];
    uint64_t id;        /* of the object, within its process; not used again */
    int64_t created_ns; /* since 1970 */
    bool is_exact;      /* the numbers belong together: those of one instant, but for calls that
                           neither waited nor dropped */
    uint64_t number[WEIR_STATS_NUMBERS];
    weir_stats_times wait;    /* of items inside: of queues, stages, thread pools */
    weir_stats_times service; /* of calls and tasks: of stages, pools, workers */
} weir_stats_record;

#define WEIR_STATS_RECORD_INIT WEIR__SIZED(weir_stats_record)

/* A reader.  folder NULL: that of the calling user, or $WEIR_STATS_DIR; it need not be there yet.
 * WEIR_EINVAL (the path is too long; pages are switched off), WEIR_ENOMEM. */
WEIR_API int weir_stats_open(weir_stats **ret_stats, const char *folder);
WEIR_API void weir_stats_close(weir_stats *stats); /* NULL is fine */

/* Goes on to the next process: 1; 0: that was the last one, and the next call begins anew.  < 0:
 * WEIR_EINVAL (size; the folder is not its user's alone), WEIR_ENOFD, WEIR_ENOMEM. */
WEIR_API int weir_stats_next_process(weir_stats *stats, weir_stats_process *ret_process);

/* The next object of that process: 1; 0: there is no other one.  < 0: WEIR_EINVAL (size; there is no
 * process).  (18 KiB: not for the stack of a small thread.) */
WEIR_API int weir_stats_next_record(weir_stats *stats, weir_stats_record *ret_record);

#ifdef __cplusplus
}
#endif

#endif
