/* progress.h - how fast a run goes, when it will have ended, and a line that says so: arithmetic.
 *
 * The rate is that of the last ten seconds or ten items, whichever are more; the time left follows from it, and moves
 * slowly.  Neither is told before there is something to tell it by.
 */
#ifndef WEIR_CLI_RUN_PROGRESS_H
#define WEIR_CLI_RUN_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weir/base.h>

#define RUN_PROGRESS_SAMPLES 64u

typedef struct run_numbers {
    uint64_t done, failed, skipped, retried, running, jobs;
    double total;          /* items there are; 0: not known */
    uint64_t memory, most; /* bytes in use, and that may be; 0: not looked at */
} run_numbers;

typedef struct run_progress {
    weir_time began;   /* to be looked at */
    weir_time ends_at; /* 0: not known */
    weir_time looked;
    unsigned n;
    struct {
        weir_time at;
        uint64_t ended;
    } samples[RUN_PROGRESS_SAMPLES]; /* a ring; n - 1 is the last */
} run_progress;

/* Begins, and begins again where time has passed that does not count. */
void run_progress_begin(run_progress *p, weir_time now, const run_numbers *numbers);

/* To be called whenever something has ended; most calls do nothing. */
void run_progress_look(run_progress *p, weir_time now, const run_numbers *numbers);

/* Items a second; < 0: not known yet. */
double run_progress_rate(const run_progress *p, weir_time now, const run_numbers *numbers);

/* As much as fits into so many columns, what matters most; ASCII. */
void run_progress_print(const run_progress *p, weir_time now, const run_numbers *numbers,
                        size_t columns, char *to, size_t size);

#endif
