/* report.h - what a run says on standard error: failures, its status, progress, the end.
 *
 * Each sentence is whole lines, and none is put into the middle of what a job has printed: it waits until the
 * output stands between two jobs.  No terminal escape is written to anything but a terminal.
 */
#ifndef WEIR_CLI_RUN_REPORT_H
#define WEIR_CLI_RUN_REPORT_H

#include "input.h"
#include "memory.h"
#include "progress.h"
#include "schedule.h"
#include "settings.h"

typedef struct run_report {
    const run_settings *settings;
    const run_schedule *schedule;
    const run_input *input;
    run_memory *memory; /* NULL: it is not looked at */
    run_progress progress;
    weir_time began;
    weir_time next_progress; /* WEIR_FOREVER: none is shown */
    bool on_terminal;        /* progress is one line that is written over */
    char shown[512];         /* such a line, as it is there; "": none */
    size_t length;
    uint64_t unsaid; /* sentences that there was no room for */
    char text[16384];
} run_report;

void run_report_begin(run_report *r, const run_settings *settings, const run_schedule *schedule,
                      const run_input *input);

/* "weir: run: <sentence>", as soon as it can be written. */
__attribute__((format(printf, 2, 3))) void run_report_say(run_report *r, const char *format, ...);

/* The item, and what has become of it. */
void run_report_failure(run_report *r, const run_item *item, const char *what, uint64_t attempts);
void run_report_retry(run_report *r, const run_item *item, const char *what, int64_t delay_ns);

/* For want of memory it is suspended, or goes on. */
void run_report_suspended(run_report *r, const run_item *item, bool is_suspended);

/* Where the run is, and the law: on SIGUSR1. */
void run_report_status(run_report *r);

/* Before something else is written to the terminal. */
void run_report_clear(run_report *r);

/* Writes what waits; to be called where the output stands between two jobs. */
void run_report_flush(run_report *r);

/* Shows progress if it is time to, and on a terminal if it is ours. */
void run_report_progress(run_report *r, weir_time now);

/* All stood still until now, which says nothing about how fast it goes. */
void run_report_put_off(run_report *r, weir_time now);

/* What has become of all items. */
void run_report_end(run_report *r, bool read_all, const char *why);

#endif
