/* monitor.h - what the numbers of stats pages mean over time: rates, percentiles of the last seconds, issues, and
 * the root of the pressure; the contract, quoted by weir_monitor(3).
 *
 * A monitor looks at all pages whenever it is told to, and remembers its last looks (the window).
 * Nothing is asked of the processes that are looked at.
 * Ownership:  what it returns belongs to the monitor, and is right until its next look or its end.
 * Bound:      `window` looks of at most WEIR_MONITOR_OBJECTS objects; those beyond are counted.  An object
 *             takes some 50 KiB.
 * Threads:    a monitor is for one thread at a time.
 */
#ifndef WEIR_MONITOR_H
#define WEIR_MONITOR_H

#include <weir/stats.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_MONITOR_OBJECTS 8192

/* What can be the matter.  The numbers are bits of weir_monitor_object.issues. */
#define WEIR_ISSUE_MAP(X)                                                                          \
    X(QUEUE_HIGH, 0, "queue_high")         /* it was too full */                                   \
    X(SLOW_SERVICE, 1, "slow_service")     /* what it works on takes too long */                   \
    X(BACKPRESSURE, 2, "backpressure")     /* callers often waited, or were refused */             \
    X(LOW_THROUGHPUT, 3, "low_throughput") /* it always had work, and too little came out */       \
    X(GROWING_AGE, 4, "growing_age")       /* what comes out has waited longer and longer */       \
    X(DROPS, 5, "drops")                   /* items were dropped, and not discarded on purpose */  \
    X(BREAKER_OPEN, 6, "breaker_open")     /* a breaker lets nothing through, or only probes */    \
    X(MEMORY, 7, "memory")                 /* a governor slows down, pauses or sheds */            \
    X(WORKERS_DIE, 8, "workers_die")       /* tasks of a process pool lost their worker */

typedef enum weir_issue_kind {
#define X(name, value, text) WEIR_ISSUE_##name = (value),
    WEIR_ISSUE_MAP(X)
#undef X
        WEIR_ISSUES = 9 /* how many there are */
} weir_issue_kind;

/* "queue_high", ...; "unknown" for any other number.  Static storage. */
WEIR_API const char *weir_issue_name(int issue);

/* When something is an issue; all over the window.  0: the default, negative (UINT64_MAX): never.
 * Rates and means are judged from the third look on, but that a queue is as full at both of two; one of fewer
 * than 4 places may be full. */
typedef struct weir_thresholds {
    double queue_share; /* QUEUE_HIGH: mean depth / bound, of items or cost, is more; 0.8 */
    double queue_depth; /* ... or mean depth is more, in items; default: never */
    int64_t service_ns; /* SLOW_SERVICE: the mean is more; 1 s */
    uint64_t events;    /* BACKPRESSURE: more calls waited or were refused, or items dropped; 10 */
    double throughput;  /* LOW_THROUGHPUT: fewer items come out a second; 1 */
    double age_growth;  /* GROWING_AGE: p50 of the wait, last third of the window / first third, is
                           more, and 10 ms at least; 2 */
    uint64_t drops;     /* DROPS: more items; default: any */
} weir_thresholds;

typedef struct weir_monitor_opts {
    size_t size;        /* set by WEIR_MONITOR_OPTS_INIT */
    const char *folder; /* as of weir_stats_open; NULL: the user's */
    bool every_user;    /* with folder NULL: of all users whose folders can be read (root: all) */
    int64_t root_pid;   /* only that process and what descends from it; 0: all */
    size_t window;      /* looks; default 10, 2 to 1000 */
    weir_thresholds thresholds;
} weir_monitor_opts;

#define WEIR_MONITOR_OPTS_INIT WEIR__SIZED(weir_monitor_opts)

typedef struct weir_monitor weir_monitor;

/* WEIR_EINVAL (an option out of range; pages are switched off), WEIR_ENOMEM. */
WEIR_API int weir_monitor_create(weir_monitor **ret_monitor, const weir_monitor_opts *opts);
WEIR_API void weir_monitor_destroy(weir_monitor *monitor); /* NULL is fine */

/* Reads all pages now.  < 0: WEIR_EINVAL (a folder is not its user's alone), WEIR_ENOFD, WEIR_ENOMEM: what
 * was seen last stays. */
WEIR_API int weir_monitor_look(weir_monitor *monitor);

/* ---- what was seen -------------------------------------------------------------------------- */

typedef struct weir_monitor_process {
    weir_stats_process process;
    int64_t uid;
    unsigned depth;        /* how many of its ancestors are among the processes here */
    size_t first, objects; /* its objects: so many from that one on */
} weir_monitor_process;

/* Percentiles of what was timed within the window; ns. */
typedef struct weir_monitor_times {
    uint64_t count, mean_ns, p50_ns, p90_ns, p99_ns, max_ns;
} weir_monitor_times;

/* What is remembered of each look, per object. */
typedef struct weir_monitor_sample {
    int64_t at_ns; /* since 1970 */
    double depth;  /* items; in flight, of what has no depth (limits, breakers); else 0 */

    /* Since the look before; 0 in the first one. */
    double accepted_per_s;
    double delivered_per_s; /* of pools, workers, limits, governors and breakers: done */
    double dropped_per_s;
    double put_blocked, get_blocked; /* callers that waited, on average */
    uint64_t wait_p99_ns, service_p99_ns;
} weir_monitor_sample;

typedef struct weir_monitor_object {
    const weir_monitor_process *process;
    const weir_stats_record *record; /* as of the last look */
    uint64_t key;                    /* the same for the same object from look to look */

    /* Over `seconds`: the window, or since it was first seen; 0: it was seen once, and so is all. */
    double seconds;
    double accepted_per_s, delivered_per_s, done_per_s, dropped_per_s, refused_per_s, failed_per_s;
    double put_blocked; /* callers that waited for room or permits, on average: those who still do
                           are counted up to now */
    double get_blocked; /* the same, for items */
    double pressure;    /* callers that waited, on average, for whom this is the root: of a stage
                           what its pipeline charged to it, else put_blocked */
    double busy;        /* of its workers' time, the share that they were at work; < 0: not known */
    weir_monitor_times wait, service;

    double fullness; /* now: depth / bound, of items or cost, whichever is more; < 0: it has none */
    uint32_t issues; /* 1 << weir_issue_kind */
    bool is_root; /* it has the most pressure in its program: a process that is below no other one
                        here, and those below it */
    const weir_monitor_sample *samples; /* oldest first */
    size_t sample_count;
} weir_monitor_object;

typedef struct weir_monitor_issue {
    weir_issue_kind kind;
    const weir_monitor_object *object;
    int64_t since_ns;        /* since 1970: the look that it was first seen in without a gap */
    double value, threshold; /* in the unit of the threshold; times in seconds.  Of a breaker and a
                                governor, its state, and 0 */
    const char *text;        /* without a full stop: queue 'jobs' is 93 % full: 93 of 100 places */
} weir_monitor_issue;

/* Parents before children, then by pid. */
WEIR_API size_t weir_monitor_processes(const weir_monitor *monitor);
WEIR_API const weir_monitor_process *weir_monitor_process_at(const weir_monitor *monitor, size_t i);

/* In the order of their processes, then of creation; stages of a pipeline in a row, workers behind their
 * pool. */
WEIR_API size_t weir_monitor_objects(const weir_monitor *monitor);
WEIR_API const weir_monitor_object *weir_monitor_object_at(const weir_monitor *monitor, size_t i);

/* The worst first. */
WEIR_API size_t weir_monitor_issues(const weir_monitor *monitor);
WEIR_API const weir_monitor_issue *weir_monitor_issue_at(const weir_monitor *monitor, size_t i);

/* What holds everything back, in a sentence without a full stop, and the object that it is about (NULL:
 * nothing does).  Where callers do not wait but consumers do, that is said, of an object whose is_root is
 * false.  pid: of that process and those below it; 0: of all. */
WEIR_API const char *weir_monitor_root(weir_monitor *monitor, int64_t pid,
                                       const weir_monitor_object **ret_object);

/* ---- writing it down ------------------------------------------------------------------------ */

/* Called with one piece after the other; < 0 ends it. */
typedef int weir_write_fn(void *ctx, const char *text, size_t length);

/* All that was seen: as weir_metrics(7) says, as weir_json(7) says (`history`: with the samples).  WEIR_OK, or
 * what `write` returned, if that is < 0. */
WEIR_API int weir_monitor_write_openmetrics(weir_monitor *monitor, weir_write_fn *write, void *ctx);
WEIR_API int weir_monitor_write_json(weir_monitor *monitor, bool history, weir_write_fn *write,
                                     void *ctx);

#ifdef __cplusplus
}
#endif

#endif
