/* output.h - what jobs print, on its way to ours: never mixed inside a line, never unbounded.
 *
 * A job writes into files of its own, without a name; when it has ended, what is in them is printed, its stdout to
 * ours and its stderr to ours.  So nothing wakes us up while it runs, its output takes no memory however much it
 * is, and bytes are never changed (except for --tag).  A file that nothing was written to is used again.
 *
 * Order:      as jobs end, or (keep_order) as they were begun.
 * Bound:      what has ended and could not be printed yet is at most `window_jobs` and `window_bytes`; beyond it
 *             run_output_has_room says no, and no job is to be begun.  (Those that run may end all the same.)
 * Waits:      never.  Where ours is full, run_output_wants says which has to become writable.
 */
#ifndef WEIR_CLI_RUN_OUTPUT_H
#define WEIR_CLI_RUN_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum run_output_mode {
    RUN_OUTPUT_GROUPED,
    RUN_OUTPUT_DIRECT, /* jobs write to ours themselves */
} run_output_mode;

typedef struct run_output_opts {
    run_output_mode mode;
    bool keep_order;
    bool is_tagged;      /* each line begins with the tag and a tabulator */
    const char *results; /* a folder that keeps what each job printed; NULL: none */
    size_t window_jobs;
    uint64_t window_bytes;
} run_output_opts;

typedef struct run_output run_output;
typedef struct run_sheet run_sheet; /* what one job prints */

/* NULL: errno says why.  The opts are copied; results has to outlive it. */
run_output *run_output_create(const run_output_opts *opts);
void run_output_destroy(run_output *output);

/* Whether another job may be begun. */
bool run_output_has_room(const run_output *output);

/* For a job that is going to be started.  tag: what its lines begin with, copied.  NULL: there is no memory. */
run_sheet *run_output_begin(run_output *output, const char *tag);

/* Before each of its attempts: gives it files; name: of its results' folder.  false: errno says why. */
bool run_output_open(run_output *output, run_sheet *sheet, const char *name);

/* Where it is to write; < 0: it has no files. */
int run_sheet_out(const run_sheet *sheet);
int run_sheet_err(const run_sheet *sheet);

/* An attempt has ended, or could not begin, and there is going to be another one: what it printed is forgotten. */
void run_output_again(run_output *output, run_sheet *sheet);

/* It has ended, for good; the sheet is the output's from now on. */
void run_output_end(run_output *output, run_sheet *sheet);

/* Prints what can be printed now.  false: ours cannot be written to, and errno says why (EPIPE: nobody reads it). */
bool run_output_print(run_output *output);

/* Which of ours has to become writable before there is more to print; -1: there is nothing to print. */
int run_output_wants(const run_output *output);

/* Whether it stands between two jobs, so that something else can be printed. */
bool run_output_is_between(const run_output *output);

/* Not printed yet: jobs, and their bytes. */
size_t run_output_held(const run_output *output, uint64_t *ret_bytes);

#endif
