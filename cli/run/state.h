/* state.h - a run: what it holds, and who does what with it.
 *
 * One thread.  Each part below is a file; loop.c calls them in turn.
 *
 * Lazy:     an item is read when a job may be started for it, so at most one waits between input and job.
 * Law:      read == done + failed + skipped + left, which the last line says.
 * Bound:    what runs, what waits for another attempt, and what waits to be printed each have a bound; where one is
 *           reached, no item is read.
 * Stopping: SIGINT once starts nothing new; twice, or SIGTERM or SIGHUP, ends the jobs; three times kills them.
 */
#ifndef WEIR_CLI_RUN_STATE_H
#define WEIR_CLI_RUN_STATE_H

#include "adapt.h"
#include "job.h"
#include "ledger.h"
#include "memory.h"
#include "output.h"
#include "report.h"
#include "schedule.h"
#include "settings.h"
#include "tell.h"
#include "template.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include <weir/rate.h>

/* Statuses to exit with, beside those of every command. */
#define EXIT_ITEMS_FAILED 3
#define EXIT_HALTED       4
#define EXIT_NO_PROGRAM   127
#define EXIT_SIGNAL       128

/* An item that was read and has come to no end. */
typedef struct run_task {
    run_item *item;
    run_sheet *sheet;    /* NULL: not begun yet */
    uint64_t attempts;   /* that were begun */
    uint64_t occurrence; /* of its content */
    bool is_written;     /* the ledger knows that it was started */
    run_job job;
    unsigned slot; /* from 1; 0: it does not run */
    weir_time started;
    int sent; /* the last signal of ours, SIGTERM or SIGKILL; 0: none */
    weir_time sent_at;
    weir_time stopped_at; /* by somebody; 0: it is not */
    bool timed_out, hung;
    bool is_suspended; /* by us, for memory, */
    weir_time suspended_at;
    uint64_t reserved; /* bytes of memory */
    bool is_ended;     /* by us, because the run ends */
} run_task;

/* A file that says how many at a time. */
typedef struct run_jobs_file {
    weir_time look; /* at it again; WEIR_FOREVER: there is none, or it does not change */
    struct timespec changed;
    uint64_t inode;
    int64_t size;
    unsigned wrong; /* looks, of late */
} run_jobs_file;

enum { EVENT_JOBS, EVENT_SIGNALS, EVENT_INPUT, EVENT_OUT, EVENT_LINES };

typedef struct run {
    run_settings settings;
    run_schedule schedule;
    run_report report;
    run_input *input;
    run_template *template; /* NULL: the header is not read yet */
    run_output *output;
    run_place *place;
    run_teller *teller;
    run_ledger *ledger;      /* NULL: none is kept */
    run_memory *memory;      /* NULL: not looked at */
    run_adapt adapt;         /* finds the number of jobs, if it is to be found */
    run_jobs_file jobs_file; /* says it */
    uint64_t kills;          /* the kernel's for memory, before this run and of its jobs */
    weir_time memory_check;  /* memory is looked at then */
    weir_rate *rate;
    weir_pending turn;            /* in the line of the rate */
    bool in_line;                 /* there */
    int events, signals, nothing; /* nothing: what jobs read */
    char program[PATH_MAX];       /* "": depends on the item */
    run_task *next;               /* the one that was read and waits to be started */
    bool input_ended, is_broken;
    bool is_stalled;  /* too much waits to be printed */
    bool is_orphaned; /* the process in front was killed */
    pid_t front;      /* it; 0: there is none */
    int64_t born;     /* this process was, since boot */
    sigset_t mask;    /* as we were started, and jobs are */
    bool told_spawn;
    int stopped_by; /* a signal; 0: none */
    weir_time now;
    weir_time wake;  /* something may be started then */
    weir_time check; /* some job is due a signal then */
    unsigned slots;  /* in use: none is above */
    run_task *slot[RUN_JOBS_MAX + 1];
} run;

static inline void run_sooner(weir_time *at, weir_time then)
{
    if (then < *at)
        *at = then;
}

/* ---- items.c ---------------------------------------------------------------------------------- */

/* The run cannot go on, and the sentence says why: nothing new is started, what runs may end. */
__attribute__((format(printf, 2, 3))) void run_give_up(run *r, const char *format, ...);

/* NULL: there is none now, or it was one that need not be run, which is counted. */
run_task *run_task_read(run *r);
void run_task_free(run_task *t);           /* NULL is fine */
void run_task_finish(run *r, run_task *t); /* its output goes its way */

/* Once the header is known, if there is one.  false: it was said why, and *ret_status is to exit with. */
bool run_parse_command(run *r, int *ret_status);

/* Wakes the loop, once, when the descriptor is ready. */
void run_await(run *r, int fd, uint32_t events, uint32_t what);

/* The ledger, if one is kept.  What could not be written ends the run: nothing is started that would be forgotten. */
bool run_written(run *r, bool ok);
bool run_write_start(run *r, run_task *t);
void run_write_left(run *r, const run_task *t); /* it will be tried again, or by the next run */
void run_write_end(run *r, run_task *t, bool is_done, const char *what, const run_news *news);

/* ---- start.c ---------------------------------------------------------------------------------- */

void run_start_all(run *r);

/* ---- end.c ------------------------------------------------------------------------------------ */

/* An attempt came to this, or (news NULL) could not begin; `what` says it. */
void run_settle(run *r, run_task *t, run_outcome outcome, const char *what, const run_news *news);
void run_take_news(run *r);

/* ---- jobs.c ----------------------------------------------------------------------------------- */

/* How many at a time: as said, as a file says, or as found.  false: the file does not say it, which was complained
 * about. */
bool run_jobs_begin(run *r);
void run_jobs_look(run *r); /* whether the file has changed */
void run_jobs_started(run *r, const run_task *t);
void run_jobs_ended(run *r, const run_task *t, bool is_done, int64_t cpu_ns);
void run_jobs_disturbed(run *r, int64_t paused_ns); /* some, or all, stood still */
void run_jobs_crowded(run *r); /* fewer: there is not enough memory for so many */

/* ---- control.c -------------------------------------------------------------------------------- */

void run_check_all(run *r);    /* ends those whose time is over */
void run_balance(run *r);      /* of memory */
void run_take_signals(run *r); /* or, suspended by Ctrl-Z, stops with all jobs until it goes on */

/* ---- loop.c, dry_run.c ------------------------------------------------------------------------ */

void run_loop(run *r);
int run_print_jobs(run *r); /* the status to exit with */

#endif
