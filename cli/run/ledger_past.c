/* ledger_past.c - the runs before that were killed: waits for what still runs of them, and writes down how it ends.
 *
 * A process is known by its pid, its start time and the boot of the machine.  A job that was started an instant before
 * everybody was killed, so that its pid is not written down, is known by its mark in its environment.
 */
#include "ledger_state.h"
#include "process.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- runs ------------------------------------------------------------------------------------- */

/* A run before that has a process: its pidfd.  Several may be: each waits for those before it. */
static int running(run_ledger *l, const char *boot, int64_t *ret_pid)
{
    int fd = -1;
    sqlite3_stmt *s =
        run_ledger_prepare(l, "SELECT pid, started, front, front_started FROM run"
                              " WHERE ended IS NULL AND boot = ?1 AND id <> ?2 ORDER BY id DESC");
    sqlite3_bind_text(s, 1, boot, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2, l->run);
    while (fd < 0 && s && sqlite3_step(s) == SQLITE_ROW) {
        for (int i = 0; i < 4 && fd < 0; i += 2) {
            *ret_pid = sqlite3_column_int64(s, i);
            fd = *ret_pid > 0 ? run_process_open(*ret_pid, sqlite3_column_int64(s, i + 1)) : -1;
        }
    }
    sqlite3_finalize(s);
    return fd;
}

static bool wait_for(run_ledger *l, const run_ledger_opts *opts, int fd, int64_t pid)
{
    char text[128];
    if (opts->resume) {
        snprintf(text, sizeof text, "waiting for the jobs of the run before, of process %" PRId64,
                 pid);
        opts->say(opts->ctx, text);
        run_process_wait(fd);
    } else {
        snprintf(l->error, sizeof l->error, "--ledger: %s: process %" PRId64 " writes to it",
                 opts->path, pid);
    }
    close(fd);
    return opts->resume;
}

static bool begin_run(run_ledger *l, const run_ledger_opts *opts, const char *boot)
{
    sqlite3_stmt *s = run_ledger_prepare(
        l, "INSERT INTO run(command, pid, started, front, front_started, boot, began)"
           " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)");
    if (!s)
        return false;
    sqlite3_bind_text(s, 1, opts->command, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2, getpid());
    sqlite3_bind_int64(s, 3, run_process_start(getpid()));
    if (opts->front > 0) {
        sqlite3_bind_int64(s, 4, opts->front);
        sqlite3_bind_int64(s, 5, run_process_start(opts->front));
    }
    sqlite3_bind_text(s, 6, boot, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 7, run_ledger_milliseconds());
    bool ok = run_ledger_step(l, s);
    sqlite3_finalize(s);
    l->run = sqlite3_last_insert_rowid(l->db);
    return ok;
}

/* ---- their jobs ------------------------------------------------------------------------------- */

static run_outcome outcome_of(int status)
{
    return WIFSIGNALED(status) ? (run_outcome){RUN_KILLED, WTERMSIG(status)}
                               : (run_outcome){RUN_EXITED, WEXITSTATUS(status)};
}

/* What nobody has seen counts as failed: it may have done its work.  What would have been tried again is left. */
static bool write_end(run_ledger *l, const run_item *item, uint64_t occurrence,
                      const run_ledger_opts *opts, run_process_end seen)
{
    char text[64];
    run_outcome outcome = outcome_of(seen.status);
    run_ledger_end end = {.outcome = "its end was not seen"};
    if (seen.is_known) {
        end.is_done = run_set_has(&opts->schedule->ok, outcome);
        end.outcome = run_outcome_text(outcome, text, sizeof text);
        if (!end.is_done && opts->schedule->retries > 0)
            return run_ledger_forget(l, item, occurrence);
    }
    return run_ledger_ended(l, item, occurrence, &end);
}

/* By number: of the row that a job is found with. */
enum { ITEM, OCCURRENCE, PID, STARTED_AT, NUMBER, ATTEMPTS, RUN_PID, RUN_STARTED };

#define OF_JOBS                                                                                    \
    "SELECT item, occurrence, item.pid, item.started, number, attempts, run.pid, run.started"      \
    " FROM item JOIN run ON item.run = run.id WHERE state = 'started'"

static void get_item(sqlite3_stmt *s, run_item *to)
{
    to->text = sqlite3_column_blob(s, ITEM);
    to->length = (size_t)sqlite3_column_bytes(s, ITEM);
}

static int open_job(sqlite3_stmt *s, int64_t *ret_pid)
{
    char mark[RUN_MARK_MAX];
    *ret_pid = sqlite3_column_int64(s, PID);
    if (*ret_pid > 0)
        return run_process_open(*ret_pid, sqlite3_column_int64(s, STARTED_AT));
    run_mark(mark, sqlite3_column_int64(s, RUN_PID), sqlite3_column_int64(s, RUN_STARTED),
             (uint64_t)sqlite3_column_int64(s, NUMBER),
             (uint64_t)sqlite3_column_int64(s, ATTEMPTS));
    *ret_pid = run_process_find(mark);
    return *ret_pid > 0 ? run_process_open(*ret_pid, run_process_start(*ret_pid)) : -1;
}

/* Of a job that the run before has left `started`: waits for it if it is there. */
static bool settle(run_ledger *l, sqlite3_stmt *s, const run_ledger_opts *opts)
{
    char text[256];
    run_item item = {0};
    int64_t pid;
    get_item(s, &item);
    int fd = open_job(s, &pid);
    run_process_end end = {0};
    if (fd >= 0) {
        snprintf(text, sizeof text, "waiting for %.*s, which still runs: process %" PRId64,
                 item.length < 60 ? (int)item.length : 60, item.text, pid);
        opts->say(opts->ctx, text);
        end = run_process_wait(fd);
        close(fd);
    }
    return write_end(l, &item, (uint64_t)sqlite3_column_int64(s, OCCURRENCE), opts, end);
}

/* All that were started under this boot; those of another one cannot run any more, and run again. */
static bool settle_all(run_ledger *l, const run_ledger_opts *opts, const char *boot)
{
    sqlite3_stmt *s = run_ledger_prepare(l, OF_JOBS " AND boot = ?1 LIMIT 1");
    bool ok = s != NULL;
    sqlite3_bind_text(s, 1, boot, -1, SQLITE_STATIC);
    while (ok && sqlite3_step(s) == SQLITE_ROW) {
        ok = settle(l, s, opts); /* one at a time: it is not `started` any more */
        sqlite3_reset(s);
    }
    sqlite3_finalize(s);
    return ok && run_ledger_commit(l);
}

/* ---- taking over ------------------------------------------------------------------------------ */

static bool is_empty(run_ledger *l)
{
    sqlite3_stmt *s = run_ledger_prepare(l, "SELECT 1 FROM item LIMIT 1");
    bool empty = s && sqlite3_step(s) == SQLITE_DONE;
    sqlite3_finalize(s);
    return empty;
}

/* Who looks whether another run writes to it does not let go of it before he has said that he does. */
bool run_ledger_take_over(run_ledger *l, const run_ledger_opts *opts)
{
    char boot[40];
    int64_t pid;
    run_boot_id(boot);
    if (!run_ledger_begin(l))
        return false;
    for (int fd; (fd = running(l, boot, &pid)) >= 0;) {
        if (!run_ledger_commit(l) || !wait_for(l, opts, fd, pid) || !run_ledger_begin(l))
            return false;
    }
    if (!opts->resume && !is_empty(l)) {
        snprintf(l->error, sizeof l->error,
                 "--ledger: %s has the items of an earlier run: --resume goes on with it, another "
                 "file begins anew",
                 opts->path);
        return false;
    }
    return begin_run(l, opts, boot) && run_ledger_commit(l) && settle_all(l, opts, boot);
}

bool run_ledger_inherit(run_ledger *l, const run_ledger_opts *opts, int64_t pid, int status)
{
    sqlite3_stmt *s = run_ledger_prepare(l, OF_JOBS " AND ifnull(item.pid, ?2) = ?2 AND run.id ="
                                                    " (SELECT max(id) FROM run WHERE front = ?1)"
                                                    " ORDER BY item.pid IS NULL LIMIT 1");
    bool ok = s != NULL;
    sqlite3_bind_int64(s, 1, getpid());
    sqlite3_bind_int64(s, 2, pid);
    if (ok && sqlite3_step(s) == SQLITE_ROW) {
        run_item item = {0};
        get_item(s, &item);
        ok = write_end(l, &item, (uint64_t)sqlite3_column_int64(s, OCCURRENCE), opts,
                       (run_process_end){true, status});
    }
    sqlite3_finalize(s);
    return run_ledger_commit(l) && ok;
}

/* All that were started are ours, or were: what is `started` without a pid was not. */
bool run_ledger_inherit_end(run_ledger *l)
{
    sqlite3_stmt *s = run_ledger_prepare(
        l, "UPDATE item SET state = 'left' WHERE state = 'started' AND pid IS NULL AND run ="
           " (SELECT max(id) FROM run WHERE front = ?1)");
    sqlite3_bind_int64(s, 1, getpid());
    bool ok = s && run_ledger_step(l, s);
    sqlite3_finalize(s);
    return ok;
}
