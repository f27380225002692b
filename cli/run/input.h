/* input.h - the items of a run, one by one: from a file, a pipe, or the command line.
 *
 * Lazy:       nothing is read before an item is asked for, and then at most READ_AHEAD bytes more than that item.
 *             So the list may be endless, or grow while it is read.
 * Never waits for a pipe or a terminal: RUN_READ_WAIT says that run_input_fd has to become readable first.
 * Bound:      an item is at most RUN_ITEM_MAX bytes; a longer one is an error that names it.
 * Ownership:  an item that was handed out is its reader's, and is one allocation: free(item).
 */
#ifndef WEIR_CLI_RUN_INPUT_H
#define WEIR_CLI_RUN_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RUN_ITEM_MAX ((size_t)1 << 20) /* bytes */

typedef enum run_format { RUN_LINES, RUN_ZERO, RUN_CSV, RUN_TSV } run_format;

typedef struct run_input_opts {
    const char *path;   /* NULL or "-": standard input */
    char *const *items; /* these instead, up to a NULL; NULL: none */
    run_format format;
    bool has_header; /* CSV, TSV: the first row names the columns */
} run_input_opts;

typedef struct run_item {
    uint64_t number;  /* from 1 */
    const char *text; /* as it was read, without its end; a zero byte follows */
    size_t length;
    size_t n_columns; /* lines: 1, the text itself */
    const char *columns[];
} run_item;

typedef enum run_read {
    RUN_READ_ITEM,
    RUN_READ_END,
    RUN_READ_WAIT,
    RUN_READ_ERROR, /* run_input_error says what; there is nothing more to be had */
} run_read;

typedef struct run_input run_input;

/* NULL: it cannot be opened, and errno says why. */
run_input *run_input_open(const run_input_opts *opts);
void run_input_close(run_input *input); /* NULL is fine */

run_read run_input_next(run_input *input, run_item **ret_item);
const char *run_input_error(const run_input *input);

/* To wait for; -1: it never has to be waited for. */
int run_input_fd(const run_input *input);

/* The names of the columns, known when the first item is; NULL: there are none. */
const run_item *run_input_header(const run_input *input);

/* How much of it was handed out; *ret_total: of so many bytes (or of so many items of the command line), 0: not
 * known.  Reads nothing. */
uint64_t run_input_position(const run_input *input, uint64_t *ret_total);

#endif
