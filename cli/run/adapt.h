/* adapt.h - how many jobs at a time are right, found while they run: arithmetic.
 *
 * What counts is how many jobs end in a time.  How long one takes says little: some are a hundred times as long as
 * others, and a job that waits for the network takes as long beside a thousand as alone.  So a number is tried
 * for a while and kept if the gain is worth it (hill climbing on throughput, as the thread pool of .NET does it;
 * Hellerstein et al., Optimizing Concurrency Levels in the .NET ThreadPool, 2009).  The gain is looked at as a
 * gradient: the share by which the throughput grew of the share by which the number did, which is 1 where jobs
 * only wait, 0 where all that serves them is busy, less where they are in each other's way.
 *
 * Steps:   twice as many as long as that is worth it, then smaller ones; then the number is held, and tried
 *          again more and more seldom, until the throughput has changed.
 * Guard:   what takes all processors is not given more jobs.  Fewer than it began with are tried only where
 *          more were slower.  What fails is no throughput: who is refused at once is not served quickly.
 * Bound:   1 to RUN_ADAPT_MAX.  Nothing grows while fewer run than may: then the number is not what holds back.
 */
#ifndef WEIR_CLI_RUN_ADAPT_H
#define WEIR_CLI_RUN_ADAPT_H

#include "schedule.h"

#define RUN_ADAPT_MAX 1000u

/* What one number of jobs came to, from `opened` on. */
typedef struct run_window {
    weir_time opened, last;
    uint64_t ended;
    double busy_ns;                    /* of all slots */
    double logs, squares;              /* of how long those took that ended */
    double cpu_ns;                     /* that they took */
    unsigned slots;                    /* that were in use at the beginning */
    weir_time since[RUN_JOBS_MAX + 1]; /* at the beginning, the start of what ran; 0: nothing did */
} run_window;

typedef struct run_adapt {
    uint64_t jobs;        /* at a time */
    uint64_t first, most; /* where it began; the bound */
    double cpus;
    uint64_t base;           /* the best number so far */
    double rate;             /* what it came to, jobs a nanosecond; 0: not known */
    double step;             /* to the next one that is tried, a logarithm; < 0: fewer */
    bool has_turned;         /* one was tried that was not worth it */
    bool was_slower;         /* with more */
    unsigned calm, pauses;   /* windows before it is tried again; trials since that found nothing */
    double cpu_ns, cpu_jobs; /* of the processors' time, by so many jobs, of late */
    uint64_t running;
    uint64_t leaving; /* so many end before another look, for they say nothing */
    unsigned slots;   /* in use: none is above */
    weir_time since[RUN_JOBS_MAX + 1];
    run_window window;
} run_adapt;

void run_adapt_begin(run_adapt *a, uint64_t jobs, double cpus, weir_time now);

/* A job was started in a slot (from 1); it has ended, is done (or it counts for nothing), and took so much of the
 * processors. */
void run_adapt_started(run_adapt *a, unsigned slot, weir_time now);
void run_adapt_ended(run_adapt *a, unsigned slot, bool is_done, int64_t cpu_ns, weir_time now);

/* What ran of late says nothing about the number: some were suspended, or (paused_ns > 0) all. */
void run_adapt_disturbed(run_adapt *a, int64_t paused_ns, weir_time now);

/* There is no memory for more than so many. */
void run_adapt_bound(run_adapt *a, uint64_t most, weir_time now);

#endif
