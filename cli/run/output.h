/* output.h - what jobs print, on its way to ours: never mixed inside a line, never unbounded.
 *
 * Grouped:    a job writes into files of its own, without a name; when it has ended, what is in them is printed, its
 *             stdout to ours and its stderr to ours.  So nothing wakes us up while it runs, and its output takes no
 *             memory however much it is.  A file that nothing was written to is used again.
 * By lines:   a job writes to pipes.  They are read when run_output_fd says so and ours can take more, and whole
 *             lines are printed at once (stream.h says where an unfinished one is kept).
 * Bytes:      are not changed, but for --tag and (by lines, with a tag, to a terminal) the end of an unfinished line.
 *
 * Order:      as jobs end, or as lines come, or (keep_order) as they were begun: then the first one that has not ended
 *             is the one whose lines are printed, and those of others are kept.
 * Bound:      what has ended and could not be printed yet is at most `window_jobs`, what is kept is at most
 *             `window_bytes`, and there are descriptors for all; beyond it run_output_has_room says no, and no job is
 *             to be begun.  (Those that run may end all the same.)  By lines, others than the first one are not read
 *             beyond it either, so they wait; unless the first one waits itself.
 * Waits:      never.  Where ours is full, run_output_wants says which has to become writable, and nothing is read.
 */
#ifndef WEIR_CLI_RUN_OUTPUT_H
#define WEIR_CLI_RUN_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum run_output_mode {
    RUN_OUTPUT_GROUPED,
    RUN_OUTPUT_LINES,  /* printed while jobs run */
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
void run_output_destroy(run_output *output); /* NULL is fine */

/* Called before something is written to ours. */
void run_output_before(run_output *output, void (*call)(void *ctx), void *ctx);

/* Whether another job may be begun. */
bool run_output_has_room(const run_output *output);

/* For a job that is going to be started.  tag: what its lines begin with, copied.  NULL: there is no memory. */
run_sheet *run_output_begin(run_output *output, const char *tag);

/* Before each of its attempts: gives it files; name: of its results' folder.  false: errno says why. */
bool run_output_open(run_output *output, run_sheet *sheet, const char *name);

/* Where it is to write; < 0: it has no files. */
int run_sheet_out(const run_sheet *sheet);
int run_sheet_err(const run_sheet *sheet);

/* An attempt runs. */
void run_output_started(run_output *output, run_sheet *sheet);

/* It is suspended, so nothing waits for its output; or goes on. */
void run_output_suspended(run_output *output, run_sheet *sheet, bool is_suspended);

/* An attempt has ended.  Whether all that it printed can be there: where files had no room a job may not have cared.
 * To be asked before run_output_again or run_output_end. */
bool run_output_is_whole(run_output *output, run_sheet *sheet);

/* An attempt has ended, or could not begin, and there is going to be another one: what it printed is forgotten, or
 * (by lines, as some of it was printed already) printed. */
void run_output_again(run_output *output, run_sheet *sheet);

/* It has ended, for good; the sheet is the output's from now on. */
void run_output_end(run_output *output, run_sheet *sheet);

/* Prints what can be printed now, or much of it: run_output_is_busy says whether there is more.  false, once: it
 * cannot go on, errno says why (EPIPE: nobody reads it), and run_output_error in a sentence.  What jobs print is read
 * and dropped from then on, so that they can end. */
bool run_output_print(run_output *output);
const char *run_output_error(const run_output *output);

/* Where files are: "TMPDIR (/tmp)", or "--results DIR". */
const char *run_output_place(const run_output *output);

/* Which of ours has to become writable before there is more to print; -1: there is nothing to print. */
int run_output_wants(const run_output *output);

/* What becomes readable when there is more to print; -1: nothing, or not before that. */
int run_output_fd(const run_output *output);
bool run_output_is_busy(const run_output *output);

/* Whether it stands between two jobs, or lines, so that something else can be printed. */
bool run_output_is_between(const run_output *output);

/* Ended and not printed yet: jobs; and bytes that are kept. */
size_t run_output_held(const run_output *output, uint64_t *ret_bytes);

#endif
