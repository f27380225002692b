/* schedule.h - how many jobs at a time, what becomes of one that has ended, when a run stops: arithmetic.
 *
 * No clock, no process, no memory but a heap of those that wait for their next attempt: times are arguments.
 *
 * Law:      read == done + failed + skipped + inside;  inside == running + waiting.
 * Bound:    while RUN_WAITING_MAX wait for another attempt no new item is taken; those that run then may still come
 *           to wait, so inside <= RUN_WAITING_MAX + RUN_JOBS_MAX.
 * Halting:  SOON: nothing new is started, what runs may end.  NOW: what runs is stopped, too.
 */
#ifndef WEIR_CLI_RUN_SCHEDULE_H
#define WEIR_CLI_RUN_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weir/base.h>
#include <weir/retry.h>

#define RUN_WAITING_MAX 256u
#define RUN_JOBS_MAX    4096u /* at a time */

/* ---- outcomes ------------------------------------------------------------------------------- */

typedef enum run_outcome_kind {
    RUN_EXITED,     /* with `code` */
    RUN_KILLED,     /* by signal `code` */
    RUN_TIMED_OUT,  /* and was stopped by us */
    RUN_OOM,        /* killed by the kernel for its memory */
    RUN_HUNG,       /* stopped by a signal, and nobody let it go on */
    RUN_NOT_STARTED /* errno `code` */
} run_outcome_kind;

typedef struct run_outcome {
    run_outcome_kind kind;
    int code;
} run_outcome;

/* "exit 3", "killed by SIGKILL", "timed out", ... */
const char *run_outcome_text(run_outcome outcome, char *to, size_t size);

/* A set of outcomes: "0,3-5,KILL,timeout,oom,signal". */
typedef struct run_set {
    uint64_t status[4]; /* bits, by exit status */
    uint64_t signals;   /* bits, by signal */
    unsigned kinds;     /* bits, by run_outcome_kind: all of it */
} run_set;

bool run_set_parse(const char *text, run_set *ret_set);
bool run_set_has(const run_set *set, run_outcome outcome);

/* ---- the schedule --------------------------------------------------------------------------- */

typedef enum run_halt { RUN_HALT_NEVER, RUN_HALT_SOON, RUN_HALT_NOW } run_halt;

typedef struct run_schedule_opts {
    uint64_t retries;
    weir_backoff backoff;
    run_set ok;    /* what counts as done */
    run_set retry; /* what is tried again, of the others */
    run_halt halt;
    double halt_fails; /* so many failed */
    double halt_done;  /* or are done */
    double
        halt_share; /* or so much of those that have ended, at least HALT_SAMPLE of them; 0: not */
    int64_t delay_ns;      /* between two starts */
    int64_t timeout_ns;    /* of an attempt; 0: none */
    int64_t kill_after_ns; /* from SIGTERM to SIGKILL */
} run_schedule_opts;

typedef struct run_waiting {
    void *task;
    weir_time due;
} run_waiting;

typedef struct run_schedule {
    run_schedule_opts opts;
    uint64_t jobs; /* at a time; may change */
    uint64_t read, done, failed, skipped;
    uint64_t failed_before; /* of those that were skipped */
    uint64_t attempts, retried, timed_out, killed_for_memory;
    uint64_t running;
    weir_time last_start;
    run_halt halted;
    bool has_enough; /* it is halted because so many are done */
    size_t waiting;
    run_waiting heap[RUN_WAITING_MAX + RUN_JOBS_MAX];
} run_schedule;

typedef enum run_verdict { RUN_DONE, RUN_FAILED, RUN_AGAIN, RUN_LEFT } run_verdict;

/* Whether a job may be started now.  false: not before *ret_at, or (WEIR_FOREVER) before one has ended. */
bool run_schedule_may_start(const run_schedule *s, weir_time now, weir_time *ret_at);

/* Whether a new item may be taken from the input. */
bool run_schedule_may_read(const run_schedule *s);

void run_schedule_started(run_schedule *s, weir_time now);

/* An attempt has ended, the n-th of its item (from 1), or could not begin (was_running false).  RUN_AGAIN: after
 * *ret_delay_ns.  RUN_LEFT: it would be tried again, had the run not been halted.  random: any 64 bits. */
run_verdict run_schedule_ended(run_schedule *s, run_outcome outcome, uint64_t n, bool was_running,
                               uint64_t random, int64_t *ret_delay_ns);

/* A job was killed for memory that others took, too: it is to run again, and fewer at a time. */
void run_schedule_crowded(run_schedule *s);

/* A task that waits for its next attempt; there is room.  pop: the first one that is due; NULL: none is, and
 * *ret_at says when. */
void run_schedule_push(run_schedule *s, void *task, weir_time due);
void *run_schedule_pop(run_schedule *s, weir_time now, weir_time *ret_at);

/* Time has passed that does not count: they wait for as long as they would have. */
void run_schedule_put_off(run_schedule *s, int64_t ns);

/* Which signal a job is due that was started at a time and has been sent `sent` (0: none), and at *ret_at the next
 * one; 0: none yet. */
int run_schedule_signal(const run_schedule *s, weir_time started, int sent, weir_time sent_at,
                        weir_time now, weir_time *ret_at);

#endif
