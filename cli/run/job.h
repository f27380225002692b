/* job.h - where jobs run: start, watch, signal, reap, and no more than that.
 *
 * A run knows no processes, only jobs of a place.  `local` runs them as processes of this machine; a cluster
 * would submit them, and poll behind `watch`.
 *
 * Law:     each job that was started is reaped as ENDED, or is still there.  An end is told again and again until
 *          it is forgotten: so that who is killed before he has written it down has not taken it with him.
 * Signals: reach everything that the job has started and that has not left it (its process group).
 */
#ifndef WEIR_CLI_RUN_JOB_H
#define WEIR_CLI_RUN_JOB_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

typedef int64_t run_job; /* what its place calls it: a pid */

#define RUN_MARK "WEIR_JOB"

typedef struct run_order {
    const char *program; /* a path, or a name for PATH; NULL: the first argument */
    char *const *argv;
    int in, out, err; /* descriptors, which stay the caller's */
    const char *mark; /* it has this in its environment, as RUN_MARK; NULL: it has not */
} run_order;

typedef enum run_news_kind {
    RUN_NEWS_ENDED,
    RUN_NEWS_STOPPED,   /* by a signal of somebody's */
    RUN_NEWS_CONTINUED, /* after that */
} run_news_kind;

typedef struct run_news {
    run_news_kind kind;
    run_job job;
    int status; /* of an exit, 0 to 255; meaningless if signal is not 0 */
    int signal; /* that ended, or stopped it; 0: it exited */
    uint64_t
        peak_bytes; /* the largest resident set of its processes that it waited for; 0: not known */
    int64_t cpu_ns;
} run_news;

typedef struct run_place run_place;

typedef struct run_place_type {
    /* 0, or an errno: nothing was started.  EAGAIN and ENOMEM may pass. */
    int (*start)(run_place *place, const run_order *order, run_job *ret_job);
    /* A descriptor that becomes readable when there may be news; the place's. */
    int (*watch)(run_place *place);
    /* The next news, if there are any. */
    bool (*reap)(run_place *place, run_news *ret_news);
    /* Of a job that was reaped as ENDED there is no more news. */
    void (*forget)(run_place *place, run_job job);
    void (*signal)(run_place *place, run_job job, int signal);
    /* What was started and not reaped goes on without us. */
    void (*close)(run_place *place);
} run_place_type;

struct run_place {
    const run_place_type *type;
};

/* Processes of this machine.  One at a time: it owns SIGCHLD, which it blocks, and all children of this process.
 * mask: the signals that jobs have blocked.  NULL: errno says why. */
run_place *run_local_open(const sigset_t *mask);

#endif
