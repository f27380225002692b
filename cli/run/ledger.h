/* ledger.h - what has become of each item, on disk: so that a run can be ended, killed, and gone on with.
 *
 * An item is known by its content, and the how-manieth of that content it is: so lines may be moved, added and
 * removed between two runs.  An SQLite database: item(item, occurrence, state, ...).
 *
 * Written:  the start before the job is started, its pid then, the end when it was seen; each is in the file when it
 *           is committed, so that no kill of this process loses it.  What the disk has when the power goes is at
 *           most about a second older.
 * States:   started, done, failed, left.  Who is found `started` by the next run and is not there any more had an end
 *           that nobody saw: it counts as failed, and is not run a second time without being asked for; after
 *           a reboot it is run again.
 * Bound:    nothing is kept in memory for an item.
 */
#ifndef WEIR_CLI_RUN_LEDGER_H
#define WEIR_CLI_RUN_LEDGER_H

#include "input.h"
#include "schedule.h"

#include <weir/base.h>

#define RUN_LEDGER_APPLICATION 0x77656972 /* "weir", as the application_id of the database */
#define RUN_LEDGER_VERSION     1          /* of its tables, as its user_version */

typedef struct run_ledger run_ledger;

typedef enum run_known { RUN_KNOWN_NOT, RUN_KNOWN_DONE, RUN_KNOWN_FAILED } run_known;

typedef struct run_ledger_opts {
    const char *path;
    bool resume;                       /* go on with what is there; else there may be nothing */
    const char *command;               /* for who reads it */
    const run_schedule_opts *schedule; /* what is done, and what would be tried again */
    int64_t front; /* a process that inherits the jobs of this one; 0: none does */
    void (*say)(void *ctx, const char *sentence); /* what is waited for */
    void *ctx;
} run_ledger_opts;

/* Waits for the jobs of a run before that was killed.  NULL: `error` says why. */
run_ledger *run_ledger_open(const run_ledger_opts *opts, char *error, size_t size);

/* For who has inherited the jobs of a process that had it open: for run_ledger_inherit only. */
run_ledger *run_ledger_reopen(const run_ledger_opts *opts, char *error, size_t size);
void run_ledger_close(run_ledger *ledger); /* NULL is fine */

/* All that follows: false, when it could not be written, and run_ledger_error says why. */
const char *run_ledger_error(const run_ledger *ledger);

/* What is known of the next one of this content. */
bool run_ledger_find(run_ledger *ledger, const run_item *item, uint64_t *ret_occurrence,
                     run_known *ret_known);

/* It is going to be started now. */
bool run_ledger_start(run_ledger *ledger, const run_item *item, uint64_t occurrence,
                      uint64_t attempt);

/* It was: as this process. */
bool run_ledger_started(run_ledger *ledger, const run_item *item, uint64_t occurrence, int64_t pid);

typedef struct run_ledger_end {
    bool is_done;
    const char *outcome;
    uint64_t peak_bytes;
    int64_t cpu_ns;
} run_ledger_end;

/* Written with what follows, or by run_ledger_commit. */
bool run_ledger_ended(run_ledger *ledger, const run_item *item, uint64_t occurrence,
                      const run_ledger_end *end);

/* It has come to no end, and does not run any more: it is left to be done. */
bool run_ledger_forget(run_ledger *ledger, const run_item *item, uint64_t occurrence);

/* false as well if what was written before is not there. */
bool run_ledger_commit(run_ledger *ledger);

/* A job that we have inherited has ended; if it is none, nothing is written.  status: as of wait(2). */
bool run_ledger_inherit(run_ledger *ledger, const run_ledger_opts *opts, int64_t pid, int status);

/* There is none any more: what was about to be started was not, and is left to be done. */
bool run_ledger_inherit_end(run_ledger *ledger);

/* Before a wait: writes what is to be written now, and brings it to the disk if it is time to.  *ret_at: when there
 * will be more to do. */
bool run_ledger_rest(run_ledger *ledger, weir_time now, weir_time *ret_at);

#endif
