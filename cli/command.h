/* command.h - what the subcommands share: the table's row, options, complaints, writing to stdout.
 *
 * A subcommand is a file that exports its row; main.c lists the rows.  Its status is what the process exits
 * with: 0, EXIT_FAILURE (it could not do it), EXIT_USAGE (it was not told what to do).
 */
#ifndef WEIR_CLI_COMMAND_H
#define WEIR_CLI_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weir/monitor.h>

#define EXIT_USAGE 2

typedef struct cli_command {
    const char *name;
    const char *summary; /* one line of `weir help` */
    const char *about;   /* what its own help says below the usage, lines ended by \n */
    int (*run)(int argc, char *argv[]); /* argv[0] is its name */
    const char *operands; /* what follows the options, as the usage shows it; NULL: nothing may */
} cli_command;

extern const cli_command command_top, command_stats, command_export, command_run, command_ledger;

/* ---- options -------------------------------------------------------------------------------- */

typedef enum option_type {
    OPTION_FLAG,    /* bool */
    OPTION_TEXT,    /* const char *: any */
    OPTION_NUMBER,  /* int64_t, from min to max */
    OPTION_SECONDS, /* double, from min to max */
} option_type;

typedef struct option_row {
    char letter; /* '\0': it has none */
    const char *name;
    const char *value; /* what its value is called; NULL: a flag */
    option_type type;
    void *into; /* as the type says */
    double min, max;
    const char *help;
} option_row;

#define OPTIONS_END {.name = NULL}

#define GO_ON (-1)

/* Reads argv into rows.  GO_ON, or the status to exit with: --help was answered, or a complaint was made. */
int options_read(const cli_command *command, const option_row rows[], int argc, char *argv[]);

/* The same for a command with operands: reading ends at the first of them, or after "--", and *ret_rest is what
 * follows, up to argv's NULL. */
int options_read_some(const cli_command *command, const option_row rows[], int argc, char *argv[],
                      char ***ret_rest);

/* ---- complaints ----------------------------------------------------------------------------- */

/* "weir: <command>: <sentence>" on stderr; command NULL: without it. */
__attribute__((format(printf, 2, 3))) void complain(const char *command, const char *format, ...);

/* What somebody may have meant by `said`, or NULL.  `next` gives the names one by one, from i = 0. */
const char *nearest(const char *said, const char *(*next)(const void *ctx, size_t i),
                    const void *ctx);

/* ---- stdout --------------------------------------------------------------------------------- */

/* A weir_write_fn that writes to stdout. */
int write_stdout(void *ctx, const char *text, size_t length);

/* Whether all that was printed has arrived; complains if not. */
bool flush_stdout(const char *command);

/* ---- monitors ------------------------------------------------------------------------------- */

/* A monitor of the user's processes, or NULL: a complaint was made. */
weir_monitor *open_monitor(const char *command, int64_t root_pid, size_t window, bool every_user);

/* Looks, or complains. */
bool look(const char *command, weir_monitor *monitor);

/* Says on stderr that there is no process to be seen, and why that may be. */
void say_nobody(const char *command, int64_t root_pid);

#endif
