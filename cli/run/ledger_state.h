/* ledger_state.h - what the parts of the ledger share: records (ledger.c) and the runs before (ledger_past.c). */
#ifndef WEIR_CLI_RUN_LEDGER_STATE_H
#define WEIR_CLI_RUN_LEDGER_STATE_H

#include "ledger.h"

#include <sqlite3.h>
#include <sys/stat.h>

/* By number, in the order of the texts in ledger.c. */
enum { FIND, COUNT, MARK, START, STARTED, END, FORGET, BEGIN, COMMIT, STATEMENTS };

struct run_ledger {
    sqlite3 *db;
    sqlite3_stmt *statement[STATEMENTS];
    const char *path;
    struct stat file; /* it is */
    int64_t run;
    int log;       /* a descriptor of the write-ahead log; -1: not yet */
    bool is_open;  /* a transaction */
    unsigned ends; /* of jobs, in it */
    bool is_unsynced;
    weir_time synced;
    char error[512];
};

/* Each of these: false, or NULL, and the error is set. */
bool run_ledger_fail(run_ledger *l, const char *what);
sqlite3_stmt *run_ledger_prepare(run_ledger *l, const char *text);
bool run_ledger_step(run_ledger *l, sqlite3_stmt *s);
bool run_ledger_begin(run_ledger *l); /* a transaction, if there is none */

int64_t run_ledger_milliseconds(void); /* since 1970: all ledgers are told the time in these */

/* Waits for what the runs before have left running, and for those that still write to it; then it is ours. */
bool run_ledger_take_over(run_ledger *l, const run_ledger_opts *opts);

#endif
