/* ledger.c - the ledger in SQLite; see ledger.h.
 *
 * A write-ahead log, which a commit appends to without waiting for the disk: that is what survives a kill.  What
 * survives a power cut is what was synced, and one fdatasync of the log is for many commits.
 */
#include "ledger_state.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SYNC_AFTER                                                                                 \
    WEIR_SECOND      /* a sync may take long on a busy disk, and everything waits for it */
#define BUSY_MS 5000 /* somebody who reads it, or makes a copy */

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

static const char schema[] =
    "BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS run(id INTEGER PRIMARY KEY, command TEXT, pid INTEGER,"
    " started INTEGER, front INTEGER, front_started INTEGER, boot TEXT, began INTEGER, ended INTEGER);"
    "CREATE TABLE IF NOT EXISTS item(item BLOB, occurrence INTEGER, number INTEGER, state TEXT, attempts INTEGER,"
    " outcome TEXT, pid INTEGER, started INTEGER, began INTEGER, ended INTEGER,"
    " peak_bytes INTEGER, cpu_ms INTEGER, run INTEGER,"
    " PRIMARY KEY(item, occurrence)) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS item_started ON item(state) WHERE state = 'started';"
    "PRAGMA application_id = " TEXT(RUN_LEDGER_APPLICATION) "; PRAGMA user_version = " TEXT(
        RUN_LEDGER_VERSION) "; COMMIT";

static const char *const texts[STATEMENTS] = {
    "SELECT occurrence, state FROM item WHERE item = ?1 AND run < ?2 ORDER BY occurrence LIMIT 1",
    "SELECT count(*) FROM item WHERE item = ?1",
    "UPDATE item SET run = ?3 WHERE item = ?1 AND occurrence = ?2",
    "INSERT INTO item(item, occurrence, number, state, attempts, began, run)"
    " VALUES(?1, ?2, ?6, 'started', ?4, ?5, ?3) ON CONFLICT(item, occurrence) DO UPDATE SET"
    " number = ?6, state = 'started', attempts = ?4, began = ?5, run = ?3, pid = NULL, ended = NULL,"
    " outcome = NULL",
    "UPDATE item SET pid = ?3, started = ?4 WHERE item = ?1 AND occurrence = ?2",
    "UPDATE item SET state = ?3, outcome = ?4, ended = ?5, peak_bytes = ?6, cpu_ms = ?7"
    " WHERE item = ?1 AND occurrence = ?2",
    "UPDATE item SET state = 'left', pid = NULL WHERE item = ?1 AND occurrence = ?2",
    "BEGIN IMMEDIATE",
    "COMMIT",
};

/* ---- statements ------------------------------------------------------------------------------- */

bool run_ledger_fail(run_ledger *l, const char *what)
{
    if (!l->error[0])
        snprintf(l->error, sizeof l->error, "--ledger: %s: %s%s%s", l->path, what,
                 *what ? ": " : "", sqlite3_errmsg(l->db));
    return false;
}

int64_t run_ledger_milliseconds(void)
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

sqlite3_stmt *run_ledger_prepare(run_ledger *l, const char *text)
{
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v3(l->db, text, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL) != SQLITE_OK)
        run_ledger_fail(l, "");
    return s;
}

bool run_ledger_step(run_ledger *l, sqlite3_stmt *s)
{
    int rc = sqlite3_step(s);
    bool ok = rc == SQLITE_DONE || rc == SQLITE_ROW || run_ledger_fail(l, "cannot be written to");
    sqlite3_reset(s);
    return ok;
}

bool run_ledger_begin(run_ledger *l)
{
    if (l->error[0])
        return false;
    if (!l->is_open && !run_ledger_step(l, l->statement[BEGIN]))
        return false;
    l->is_open = true;
    return true;
}

bool run_ledger_commit(run_ledger *l)
{
    if (!l->is_open)
        return !l->error[0];
    if (!run_ledger_step(l, l->statement[COMMIT])) {
        size_t n = strlen(l->error);
        snprintf(l->error + n, sizeof l->error - n, "; %u ends that were seen are not in it",
                 l->ends);
        return false;
    }
    l->is_open = false;
    l->ends = 0;
    l->is_unsynced = true;
    return true;
}

/* What is written to a file that has no name any more would be lost without a word. */
static bool is_there(run_ledger *l)
{
    struct stat now;
    if (stat(l->path, &now) == 0 && now.st_dev == l->file.st_dev && now.st_ino == l->file.st_ino)
        return true;
    snprintf(
        l->error, sizeof l->error,
        "--ledger: %s was removed or replaced while it was in use; what was done since then is "
        "not in it",
        l->path);
    return false;
}

static bool sync_log(run_ledger *l)
{
    char path[PATH_MAX];
    if (!is_there(l))
        return false;
    snprintf(path, sizeof path, "%s-wal", l->path);
    if (l->log < 0)
        l->log = open(path, O_RDONLY | O_CLOEXEC);
    if (l->log >= 0)
        fdatasync(l->log);
    l->is_unsynced = false;
    return true;
}

bool run_ledger_rest(run_ledger *l, weir_time now, weir_time *ret_at)
{
    *ret_at = WEIR_FOREVER;
    if (!run_ledger_commit(l))
        return false;
    if (l->is_unsynced && now - l->synced >= SYNC_AFTER && !sync_log(l))
        return false;
    if (l->is_unsynced)
        *ret_at = l->synced + SYNC_AFTER;
    else
        l->synced = now;
    return true;
}

/* ---- records ---------------------------------------------------------------------------------- */

/* How many of this content there are. */
static uint64_t count_of(run_ledger *l, const run_item *item)
{
    sqlite3_stmt *s = l->statement[COUNT];
    sqlite3_bind_blob64(s, 1, item->text, item->length, SQLITE_STATIC);
    uint64_t n = sqlite3_step(s) == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return n;
}

bool run_ledger_find(run_ledger *l, const run_item *item, uint64_t *ret_occurrence,
                     run_known *ret_known)
{
    *ret_known = RUN_KNOWN_NOT;
    if (!run_ledger_begin(l))
        return false;
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
    return run_ledger_step(l, mark);
}

bool run_ledger_start(run_ledger *l, const run_item *item, uint64_t occurrence, uint64_t attempt)
{
    if (!run_ledger_begin(l))
        return false;
    sqlite3_stmt *s = bound(l, START, item, occurrence);
    sqlite3_bind_int64(s, 3, l->run);
    sqlite3_bind_int64(s, 4, (int64_t)attempt);
    sqlite3_bind_int64(s, 5, run_ledger_milliseconds());
    sqlite3_bind_int64(s, 6, (int64_t)item->number);
    return run_ledger_step(l, s) && run_ledger_commit(l);
}

bool run_ledger_started(run_ledger *l, const run_item *item, uint64_t occurrence, int64_t pid)
{
    if (!run_ledger_begin(l))
        return false;
    sqlite3_stmt *s = bound(l, STARTED, item, occurrence);
    sqlite3_bind_int64(s, 3, pid);
    sqlite3_bind_int64(s, 4, run_since_boot());
    return run_ledger_step(l, s) && run_ledger_commit(l);
}

bool run_ledger_ended(run_ledger *l, const run_item *item, uint64_t occurrence,
                      const run_ledger_end *end)
{
    if (!run_ledger_begin(l))
        return false;
    sqlite3_stmt *s = bound(l, END, item, occurrence);
    sqlite3_bind_text(s, 3, end->is_done ? "done" : "failed", -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 4, end->outcome, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 5, run_ledger_milliseconds());
    sqlite3_bind_int64(s, 6, (int64_t)end->peak_bytes);
    sqlite3_bind_int64(s, 7, end->cpu_ns / 1000000);
    l->ends++;
    return run_ledger_step(l, s);
}

bool run_ledger_forget(run_ledger *l, const run_item *item, uint64_t occurrence)
{
    if (!run_ledger_begin(l))
        return false;
    return run_ledger_step(l, bound(l, FORGET, item, occurrence));
}

const char *run_ledger_error(const run_ledger *l)
{
    return l->error;
}

/* ---- opening ---------------------------------------------------------------------------------- */

/* The first number of the first row; -1: there is none. */
static int64_t ask(run_ledger *l, const char *text)
{
    sqlite3_stmt *s = run_ledger_prepare(l, text);
    int64_t n = s && sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int64(s, 0) : -1;
    sqlite3_finalize(s);
    return n;
}

/* A new file, or a ledger; nobody else's database is touched. */
static bool is_ours(run_ledger *l, bool *ret_is_new)
{
    int64_t whose = ask(l, "PRAGMA application_id"), version = ask(l, "PRAGMA user_version");
    int64_t tables = ask(l, "SELECT count(*) FROM sqlite_master");
    if (tables < 0)
        return run_ledger_fail(l, "");
    *ret_is_new = tables == 0;
    if (whose == RUN_LEDGER_APPLICATION ? version <= RUN_LEDGER_VERSION : tables == 0)
        return true;
    snprintf(l->error, sizeof l->error, "--ledger: %s %s", l->path,
             whose == RUN_LEDGER_APPLICATION
                 ? "was written by a newer weir, which has to go on with it"
                 : "is a database of another program; give the ledger a file of its own");
    return false;
}

static bool open_database(run_ledger *l)
{
    if (sqlite3_open_v2(l->path, &l->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
        SQLITE_OK)
        return run_ledger_fail(l, "");
    bool is_new = false;
    sqlite3_busy_timeout(l->db, BUSY_MS);
    if (!is_ours(l, &is_new))
        return false;
    if (sqlite3_exec(l->db,
                     "PRAGMA cache_size = -1024; PRAGMA journal_mode = WAL;"
                     "PRAGMA synchronous = NORMAL",
                     NULL, NULL, NULL) != SQLITE_OK ||
        (is_new && sqlite3_exec(l->db, schema, NULL, NULL, NULL) != SQLITE_OK) ||
        stat(l->path, &l->file) < 0)
        return run_ledger_fail(l, "");
    for (int i = 0; i < STATEMENTS; i++) {
        if (!(l->statement[i] = run_ledger_prepare(l, texts[i])))
            return false;
    }
    return true;
}

static run_ledger *open_with(const run_ledger_opts *opts,
                             bool (*take)(run_ledger *, const run_ledger_opts *), char *error,
                             size_t size)
{
    run_ledger *l = calloc(1, sizeof *l);
    if (!l) {
        snprintf(error, size, "out of memory");
        return NULL;
    }
    l->log = -1;
    l->path = opts->path;
    if (open_database(l) && (!take || take(l, opts)))
        return l;
    snprintf(error, size, "%s", l->error);
    run_ledger_close(l);
    return NULL;
}

run_ledger *run_ledger_open(const run_ledger_opts *opts, char *error, size_t size)
{
    return open_with(opts, run_ledger_take_over, error, size);
}

run_ledger *run_ledger_reopen(const run_ledger_opts *opts, char *error, size_t size)
{
    return open_with(opts, NULL, error, size);
}

void run_ledger_close(run_ledger *l)
{
    if (!l)
        return;
    run_ledger_commit(l);
    if (l->run && !l->error[0]) {
        char text[128];
        snprintf(text, sizeof text, "UPDATE run SET ended = %" PRId64 " WHERE id = %" PRId64,
                 run_ledger_milliseconds(), l->run);
        sqlite3_exec(l->db, text, NULL, NULL, NULL);
    }
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(l->statement[i]);
    if (l->log >= 0)
        close(l->log);
    sqlite3_close(l->db);
    free(l);
}
