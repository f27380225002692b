/* ledger.c - the ledger in SQLite; see ledger.h.
 *
 * A write-ahead log, which a commit appends to without waiting for the disk: that is what survives a kill.  What
 * survives a power cut is what was synced, and one fdatasync of the log is for many commits.
 */
#include "ledger.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SYNC_AFTER                                                                                 \
    WEIR_SECOND /* a sync may take long on a busy disk, and everything waits for it */
#define PID_AFTER (20 * WEIR_MILLISECOND) /* a pid is written, if nothing else is */
#define BUSY_MS   5000                    /* somebody who reads it, or makes a copy */

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS run(id INTEGER PRIMARY KEY, command TEXT, pid INTEGER,"
    " started INTEGER, boot TEXT, began INTEGER, ended INTEGER);"
    "CREATE TABLE IF NOT EXISTS item(item BLOB, occurrence INTEGER, state TEXT, attempts INTEGER,"
    " outcome TEXT, pid INTEGER, started INTEGER, began INTEGER, ended INTEGER,"
    " peak_bytes INTEGER, cpu_ms INTEGER, run INTEGER,"
    " PRIMARY KEY(item, occurrence)) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS item_started ON item(state) WHERE state = 'started';";

/* By number, in the order of the texts below. */
enum { FIND, MARK, START, STARTED, END, FORGET, BEGIN, COMMIT, STATEMENTS };

static const char *const texts[STATEMENTS] = {
    "SELECT occurrence, state FROM item WHERE item = ?1 AND run < ?2 ORDER BY occurrence LIMIT 1",
    "UPDATE item SET run = ?3 WHERE item = ?1 AND occurrence = ?2",
    "INSERT INTO item(item, occurrence, state, attempts, began, run)"
    " VALUES(?1, ?2, 'started', ?4, ?5, ?3) ON CONFLICT(item, occurrence) DO UPDATE SET"
    " state = 'started', attempts = ?4, began = ?5, run = ?3, pid = NULL, ended = NULL,"
    " outcome = NULL",
    "UPDATE item SET pid = ?3, started = ?4 WHERE item = ?1 AND occurrence = ?2",
    "UPDATE item SET state = ?3, outcome = ?4, ended = ?5, peak_bytes = ?6, cpu_ms = ?7"
    " WHERE item = ?1 AND occurrence = ?2",
    "UPDATE item SET state = 'left', pid = NULL WHERE item = ?1 AND occurrence = ?2",
    "BEGIN IMMEDIATE",
    "COMMIT",
};

struct run_ledger {
    sqlite3 *db;
    sqlite3_stmt *statement[STATEMENTS];
    sqlite3_stmt *count;
    const char *path;
    int64_t run;
    int log;         /* a descriptor of the write-ahead log; -1: not yet */
    bool is_open;    /* a transaction */
    bool is_urgent;  /* what is in it must not be lost */
    unsigned ends;   /* of jobs, in it */
    weir_time began; /* it was, or WEIR_FOREVER: none is */
    uint64_t unsynced;
    weir_time synced;
    char error[512];
};

/* ---- statements ------------------------------------------------------------------------------- */

static bool fail(run_ledger *l, const char *what)
{
    if (!l->error[0])
        snprintf(l->error, sizeof l->error, "--ledger: %s: %s%s%s", l->path, what,
                 *what ? ": " : "", sqlite3_errmsg(l->db));
    return false;
}

/* All ledgers are told the time in milliseconds since 1970. */
static int64_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static sqlite3_stmt *bound(run_ledger *l, int which, const run_item *item, uint64_t occurrence)
{
    sqlite3_stmt *s = l->statement[which];
    sqlite3_bind_blob64(s, 1, item->text, item->length, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2, (int64_t)occurrence);
    return s;
}

static bool step(run_ledger *l, sqlite3_stmt *s)
{
    int rc = sqlite3_step(s);
    bool ok = rc == SQLITE_DONE || rc == SQLITE_ROW || fail(l, "cannot be written to");
    sqlite3_reset(s);
    return ok;
}

static bool begin(run_ledger *l)
{
    if (l->error[0])
        return false;
    if (!l->is_open && !step(l, l->statement[BEGIN]))
        return false;
    if (!l->is_open)
        l->began = weir_now();
    l->is_open = true;
    return true;
}

bool run_ledger_commit(run_ledger *l)
{
    if (!l->is_open)
        return !l->error[0];
    if (!step(l, l->statement[COMMIT])) {
        size_t n = strlen(l->error);
        snprintf(l->error + n, sizeof l->error - n, "; %u ends that were seen are not in it",
                 l->ends);
        return false;
    }
    l->is_open = l->is_urgent = false;
    l->ends = 0;
    l->unsynced++;
    return true;
}

static void sync_log(run_ledger *l)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s-wal", l->path);
    if (l->log < 0)
        l->log = open(path, O_RDONLY | O_CLOEXEC);
    if (l->log >= 0)
        fdatasync(l->log);
    l->unsynced = 0;
}

bool run_ledger_rest(run_ledger *l, weir_time now, weir_time *ret_at)
{
    *ret_at = WEIR_FOREVER;
    if (l->is_open && (l->is_urgent || now - l->began >= PID_AFTER) && !run_ledger_commit(l))
        return false;
    if (l->is_open)
        *ret_at = l->began + PID_AFTER;
    if (l->unsynced && now - l->synced >= SYNC_AFTER)
        sync_log(l);
    if (l->unsynced == 0)
        l->synced = now;
    else if (l->synced + SYNC_AFTER < *ret_at)
        *ret_at = l->synced + SYNC_AFTER;
    return true;
}

/* ---- records ---------------------------------------------------------------------------------- */

/* How many of this content there are. */
static uint64_t count_of(run_ledger *l, const run_item *item)
{
    sqlite3_bind_blob64(l->count, 1, item->text, item->length, SQLITE_STATIC);
    uint64_t n =
        sqlite3_step(l->count) == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(l->count, 0) : 0;
    sqlite3_reset(l->count);
    return n;
}

bool run_ledger_find(run_ledger *l, const run_item *item, uint64_t *ret_occurrence,
                     run_known *ret_known)
{
    *ret_known = RUN_KNOWN_NOT;
    if (!begin(l))
        return false;
    l->is_urgent = true;
    sqlite3_stmt *found = bound(l, FIND, item, (uint64_t)l->run);
    if (sqlite3_step(found) != SQLITE_ROW) {
        sqlite3_reset(found);
        *ret_occurrence = count_of(l, item) + 1;
        return true;
    }
    const char *state = (const char *)sqlite3_column_text(found, 1);
    *ret_occurrence = (uint64_t)sqlite3_column_int64(found, 0);
    *ret_known = strcmp(state, "done") == 0     ? RUN_KNOWN_DONE
                 : strcmp(state, "failed") == 0 ? RUN_KNOWN_FAILED
                                                : RUN_KNOWN_NOT;
    sqlite3_reset(found);
    sqlite3_stmt *mark = bound(l, MARK, item, *ret_occurrence);
    sqlite3_bind_int64(mark, 3, l->run);
    return step(l, mark);
}

bool run_ledger_start(run_ledger *l, const run_item *item, uint64_t occurrence, uint64_t attempt)
{
    if (!begin(l))
        return false;
    sqlite3_stmt *s = bound(l, START, item, occurrence);
    sqlite3_bind_int64(s, 3, l->run);
    sqlite3_bind_int64(s, 4, (int64_t)attempt);
    sqlite3_bind_int64(s, 5, milliseconds());
    return step(l, s) && run_ledger_commit(l);
}

bool run_ledger_started(run_ledger *l, const run_item *item, uint64_t occurrence, int64_t pid)
{
    if (!begin(l))
        return false;
    sqlite3_stmt *s = bound(l, STARTED, item, occurrence);
    sqlite3_bind_int64(s, 3, pid);
    sqlite3_bind_int64(s, 4, run_since_boot());
    return step(l, s);
}

bool run_ledger_ended(run_ledger *l, const run_item *item, uint64_t occurrence,
                      const run_ledger_end *end)
{
    if (!begin(l))
        return false;
    l->is_urgent = true;
    sqlite3_stmt *s = bound(l, END, item, occurrence);
    sqlite3_bind_text(s, 3, end->is_done ? "done" : "failed", -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 4, end->outcome, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 5, milliseconds());
    sqlite3_bind_int64(s, 6, (int64_t)end->peak_bytes);
    sqlite3_bind_int64(s, 7, end->cpu_ns / 1000000);
    l->ends++;
    return step(l, s);
}

bool run_ledger_forget(run_ledger *l, const run_item *item, uint64_t occurrence)
{
    if (!begin(l))
        return false;
    l->is_urgent = true;
    return step(l, bound(l, FORGET, item, occurrence));
}

const char *run_ledger_error(const run_ledger *l)
{
    return l->error;
}

/* ---- the runs before -------------------------------------------------------------------------- */

static sqlite3_stmt *prepare(run_ledger *l, const char *text)
{
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v3(l->db, text, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL) != SQLITE_OK)
        fail(l, "");
    return s;
}

/* A run before whose process is there: its pidfd.  Several may be: each waits for those before it. */
static int running(run_ledger *l, const char *boot, int64_t *ret_pid)
{
    int fd = -1;
    sqlite3_stmt *s = prepare(l, "SELECT pid, started FROM run WHERE ended IS NULL AND boot = ?1"
                                 " ORDER BY id DESC");
    sqlite3_bind_text(s, 1, boot, -1, SQLITE_STATIC);
    while (fd < 0 && s && sqlite3_step(s) == SQLITE_ROW) {
        *ret_pid = sqlite3_column_int64(s, 0);
        fd = run_process_open(*ret_pid, sqlite3_column_int64(s, 1));
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

static const char *outcome_of(run_process_end end, char *to, size_t size)
{
    if (!end.is_known)
        return "its end was not seen";
    if (WIFSIGNALED(end.status))
        snprintf(to, size, "killed by SIG%s", sigabbrev_np(WTERMSIG(end.status)));
    else
        snprintf(to, size, "exit %d", WEXITSTATUS(end.status));
    return to;
}

/* Of a job that the run before has left `started`: waits for it if it is there. */
static bool settle(run_ledger *l, sqlite3_stmt *s, const run_ledger_opts *opts)
{
    char text[256];
    run_item item = {.text = (const char *)sqlite3_column_text(s, 0), /* ended by a zero byte */
                     .length = (size_t)sqlite3_column_bytes(s, 0)};
    int64_t pid = sqlite3_column_int64(s, 2);
    int fd = pid > 0 ? run_process_open(pid, sqlite3_column_int64(s, 3)) : -1;
    run_process_end end = {0};
    if (fd >= 0) {
        snprintf(text, sizeof text, "waiting for %.60s, which still runs: process %" PRId64,
                 item.text, pid);
        opts->say(opts->ctx, text);
        end = run_process_wait(fd);
        close(fd);
    }
    const run_ledger_end record = {
        .is_done = end.is_known && end.status == 0,
        .outcome = outcome_of(end, text, sizeof text),
    };
    return run_ledger_ended(l, &item, (uint64_t)sqlite3_column_int64(s, 1), &record);
}

/* All that were started under this boot; those of another one cannot run any more, and run again. */
static bool settle_all(run_ledger *l, const run_ledger_opts *opts, const char *boot)
{
    sqlite3_stmt *s =
        prepare(l, "SELECT item, occurrence, item.pid, item.started FROM item JOIN run"
                   " ON item.run = run.id WHERE state = 'started' AND boot = ?1 LIMIT 1");
    bool ok = s != NULL;
    sqlite3_bind_text(s, 1, boot, -1, SQLITE_STATIC);
    while (ok && sqlite3_step(s) == SQLITE_ROW) {
        ok = settle(l, s, opts); /* one at a time: it is not `started` any more */
        sqlite3_reset(s);
    }
    sqlite3_finalize(s);
    return ok && run_ledger_commit(l);
}

/* ---- opening ---------------------------------------------------------------------------------- */

static bool is_empty(run_ledger *l)
{
    sqlite3_stmt *s = prepare(l, "SELECT 1 FROM item LIMIT 1");
    bool empty = s && sqlite3_step(s) == SQLITE_DONE;
    sqlite3_finalize(s);
    return empty;
}

static bool begin_run(run_ledger *l, const run_ledger_opts *opts, const char *boot)
{
    sqlite3_stmt *s = prepare(l, "INSERT INTO run(command, pid, started, boot, began)"
                                 " VALUES(?1, ?2, ?3, ?4, ?5)");
    if (!s)
        return false;
    sqlite3_bind_text(s, 1, opts->command, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2, getpid());
    sqlite3_bind_int64(s, 3, run_process_start(getpid()));
    sqlite3_bind_text(s, 4, boot, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 5, milliseconds());
    bool ok = step(l, s);
    sqlite3_finalize(s);
    l->run = sqlite3_last_insert_rowid(l->db);
    return ok;
}

static bool open_database(run_ledger *l)
{
    if (sqlite3_open_v2(l->path, &l->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
        SQLITE_OK)
        return fail(l, "");
    sqlite3_busy_timeout(l->db, BUSY_MS);
    sqlite3_exec(l->db, "PRAGMA cache_size = -1024", NULL, NULL, NULL);
    if (sqlite3_exec(l->db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", NULL, NULL,
                     NULL) != SQLITE_OK ||
        sqlite3_exec(l->db, schema, NULL, NULL, NULL) != SQLITE_OK)
        return fail(l, "");
    for (int i = 0; i < STATEMENTS; i++) {
        if (!(l->statement[i] = prepare(l, texts[i])))
            return false;
    }
    l->count = prepare(l, "SELECT count(*) FROM item WHERE item = ?1");
    return l->count != NULL;
}

/* Who looks whether another run writes to it does not let go of it before he has said that he does. */
static bool open_run(run_ledger *l, const run_ledger_opts *opts)
{
    char boot[40];
    int64_t pid;
    run_boot_id(boot);
    if (!open_database(l) || !begin(l))
        return false;
    for (int fd; (fd = running(l, boot, &pid)) >= 0;) {
        if (!run_ledger_commit(l) || !wait_for(l, opts, fd, pid) || !begin(l))
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

run_ledger *run_ledger_open(const run_ledger_opts *opts, char *error, size_t size)
{
    run_ledger *l = calloc(1, sizeof *l);
    if (!l) {
        snprintf(error, size, "out of memory");
        return NULL;
    }
    l->log = -1;
    l->path = opts->path;
    if (open_run(l, opts))
        return l;
    snprintf(error, size, "%s", l->error);
    run_ledger_close(l);
    return NULL;
}

void run_ledger_close(run_ledger *l)
{
    if (!l)
        return;
    run_ledger_commit(l);
    if (l->run && !l->error[0]) {
        char text[128];
        snprintf(text, sizeof text, "UPDATE run SET ended = %" PRId64 " WHERE id = %" PRId64,
                 milliseconds(), l->run);
        sqlite3_exec(l->db, text, NULL, NULL, NULL);
    }
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(l->statement[i]);
    sqlite3_finalize(l->count);
    if (l->log >= 0)
        close(l->log);
    sqlite3_close(l->db);
    free(l);
}
