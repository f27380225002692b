/* ledger_command.c - `weir ledger`: what a ledger holds, while it is written to as well. */
#include "command.h"
#include "ledger.h"
#include "text.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ITEM, OCCURRENCE, STATE, OUTCOME, ATTEMPTS, BEGAN, ENDED, PEAK, CPU, COLUMNS };

static const char *const names[COLUMNS] = {
    "item", "occurrence", "state", "outcome", "attempts", "began", "ended", "peak_bytes", "cpu_ms"};

typedef enum form { FORM_COUNTS, FORM_LIST, FORM_TSV, FORM_JSON } form;

/* ---- texts ---------------------------------------------------------------------------------- */

/* How many bytes the character of UTF-8 at s has; 0: it is none. */
static size_t character(const unsigned char *s, size_t left)
{
    size_t n = *s < 0x80 ? 1 : *s >= 0xc2 && *s < 0xe0 ? 2 : (*s & 0xf0) == 0xe0 ? 3 : 4;
    if (*s > 0xf4 || (*s >= 0x80 && *s < 0xc2) || n > left)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    return n;
}

/* What is no UTF-8 becomes U+FFFD: JSON has no bytes. */
static void print_json_text(const unsigned char *s, size_t length)
{
    putchar('"');
    for (size_t n, at = 0; at < length; at += n ? n : 1) {
        n = character(s + at, length - at);
        if (n == 0)
            fputs("\\ufffd", stdout);
        else if (s[at] < 0x20 || s[at] == 0x7f)
            printf("\\u%04x", s[at]);
        else if (s[at] == '"' || s[at] == '\\')
            printf("\\%c", s[at]);
        else
            fwrite(s + at, 1, n, stdout);
    }
    putchar('"');
}

/* A cell: tabulators, line ends and backslashes are written as \t, \n, \\. */
static void print_tsv_text(const unsigned char *s, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        const char *escaped = s[i] == '\t'   ? "\\t"
                              : s[i] == '\n' ? "\\n"
                              : s[i] == '\\' ? "\\\\"
                                             : NULL;
        if (escaped)
            fputs(escaped, stdout);
        else
            putchar(s[i]);
    }
}

/* ---- rows ------------------------------------------------------------------------------------- */

static void print_tsv(sqlite3_stmt *row)
{
    for (int i = 0; i < COLUMNS; i++) {
        if (i)
            putchar('\t');
        const unsigned char *text = sqlite3_column_text(row, i);
        print_tsv_text(text, (size_t)sqlite3_column_bytes(row, i));
    }
    putchar('\n');
}

static void print_json(sqlite3_stmt *row, bool is_first)
{
    fputs(is_first ? "\n  {" : ",\n  {", stdout);
    for (int i = 0; i < COLUMNS; i++) {
        printf("%s\"%s\": ", i ? ", " : "", names[i]);
        int type = sqlite3_column_type(row, i);
        if (type == SQLITE_INTEGER)
            printf("%lld", sqlite3_column_int64(row, i));
        else if (type == SQLITE_NULL)
            fputs("null", stdout);
        else
            print_json_text(sqlite3_column_text(row, i), (size_t)sqlite3_column_bytes(row, i));
    }
    putchar('}');
}

static void print_line(sqlite3_stmt *row)
{
    const char *outcome = (const char *)sqlite3_column_text(row, OUTCOME);
    double took =
        1e6 * (double)(sqlite3_column_int64(row, ENDED) - sqlite3_column_int64(row, BEGAN));
    int64_t peak = sqlite3_column_int64(row, PEAK);
    printf("%-7s  %6s  %9s  ", (const char *)sqlite3_column_text(row, STATE),
           took >= 0 ? text_time(took).s : "-", peak ? text_bytes((double)peak).s : "-");
    print_tsv_text(sqlite3_column_text(row, ITEM), (size_t)sqlite3_column_bytes(row, ITEM));
    printf("%s%s\n", outcome && strcmp(outcome, "exit 0") != 0 ? "  " : "",
           outcome && strcmp(outcome, "exit 0") != 0 ? outcome : "");
}

/* ---- the ledger ------------------------------------------------------------------------------- */

static bool refuse(sqlite3 *db, const char *path)
{
    complain("ledger", "%s: %s", path, db ? sqlite3_errmsg(db) : "out of memory");
    return false;
}

static int64_t ask(sqlite3 *db, const char *text)
{
    sqlite3_stmt *s = NULL;
    bool is_there =
        sqlite3_prepare_v2(db, text, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW;
    int64_t n = is_there ? sqlite3_column_int64(s, 0) : -1;
    sqlite3_finalize(s);
    return n;
}

static bool is_ledger(sqlite3 *db, const char *path)
{
    int64_t whose = ask(db, "PRAGMA application_id");
    if (whose < 0)
        return refuse(db, path);
    if (whose == RUN_LEDGER_APPLICATION && ask(db, "PRAGMA user_version") <= RUN_LEDGER_VERSION)
        return true;
    complain("ledger", "%s %s", path,
             whose == RUN_LEDGER_APPLICATION ? "was written by a newer weir, which has to read it"
                                             : "is no ledger of weir run");
    return false;
}

static sqlite3_stmt *select_items(sqlite3 *db, const char *state, bool counts)
{
    sqlite3_stmt *s = NULL;
    static const char rows[] = "SELECT item, occurrence, state, outcome, attempts, began, ended,"
                               " peak_bytes, cpu_ms FROM item WHERE ?1 IS NULL OR state = ?1"
                               " ORDER BY began, item, occurrence";
    static const char numbers[] = "SELECT state, count(*) FROM item WHERE ?1 IS NULL OR state = ?1"
                                  " GROUP BY state ORDER BY state";
    if (sqlite3_prepare_v2(db, counts ? numbers : rows, -1, &s, NULL) == SQLITE_OK && state)
        sqlite3_bind_text(s, 1, state, -1, SQLITE_STATIC);
    return s;
}

static void print_head(form how)
{
    if (how == FORM_JSON)
        putchar('[');
    for (int i = 0; i < COLUMNS && how == FORM_TSV; i++)
        printf("%s%c", names[i], i + 1 < COLUMNS ? '\t' : '\n');
}

static bool print_items(sqlite3 *db, const char *path, form how, const char *state)
{
    sqlite3_stmt *row = select_items(db, state, how == FORM_COUNTS);
    if (!row)
        return refuse(db, path);
    int rc;
    print_head(how);
    for (bool is_first = true; (rc = sqlite3_step(row)) == SQLITE_ROW; is_first = false) {
        if (how == FORM_COUNTS)
            printf("%-7s  %lld\n", (const char *)sqlite3_column_text(row, 0),
                   sqlite3_column_int64(row, 1));
        else if (how == FORM_JSON)
            print_json(row, is_first);
        else if (how == FORM_TSV)
            print_tsv(row);
        else
            print_line(row);
    }
    if (how == FORM_JSON)
        puts("\n]");
    sqlite3_finalize(row);
    return rc == SQLITE_DONE || refuse(db, path);
}

static bool is_state(const char *said)
{
    static const char *const states[] = {"started", "done", "failed", "left"};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        if (strcmp(states[i], said) == 0)
            return true;
    }
    complain("ledger", "--state: \"%s\" is none of started, done, failed, left", said);
    return false;
}

static int print_ledger(const char *path, form how, const char *state)
{
    sqlite3 *db = NULL;
    bool ok =
        sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK || refuse(db, path);
    if (ok) {
        sqlite3_busy_timeout(db, 5000);
        ok = is_ledger(db, path) && print_items(db, path, how, state);
    }
    sqlite3_close(db);
    return flush_stdout("ledger") && ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run(int argc, char *argv[])
{
    bool list = false, tsv = false, json = false;
    const char *state = NULL;
    char **rest;
    const option_row rows[] = {
        {'l', "list", NULL, OPTION_FLAG, &list, 0, 0, "a line for each item"},
        {'t', "tsv", NULL, OPTION_FLAG, &tsv, 0, 0, "all that is known, as tab-separated values"},
        {'j', "json", NULL, OPTION_FLAG, &json, 0, 0, "the same as JSON"},
        {'s', "state", "STATE", OPTION_TEXT, &state, 0, 0,
         "only what is started, done, failed or left"},
        OPTIONS_END,
    };
    int status = options_read_some(&command_ledger, rows, argc, argv, &rest);
    if (status != GO_ON)
        return status;
    if (!rest[0] || rest[1] || list + tsv + json > 1) {
        complain("ledger", rest[0] && !rest[1] ? "--list, --tsv or --json: one of them"
                                               : "one ledger: weir ledger FILE");
        return EXIT_USAGE;
    }
    if (state && !is_state(state))
        return EXIT_USAGE;
    return print_ledger(rest[0],
                        json   ? FORM_JSON
                        : tsv  ? FORM_TSV
                        : list ? FORM_LIST
                               : FORM_COUNTS,
                        state);
}

const cli_command command_ledger = {
    .name = "ledger",
    .summary = "what has become of the items of weir run --ledger",
    .about = "Counts the items of a ledger by what has become of them, or lists them.\n"
             "It may be asked while a run writes to it.\n",
    .run = run,
    .operands = "FILE",
};
