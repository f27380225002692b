/* settings.h - what `weir run` was told: its options, checked. */
#ifndef WEIR_CLI_RUN_SETTINGS_H
#define WEIR_CLI_RUN_SETTINGS_H

#include "input.h"
#include "output.h"
#include "schedule.h"

typedef struct run_settings {
    run_input_opts input;
    run_output_opts output;
    run_schedule_opts schedule;
    char *const *command; /* up to a NULL */
    bool is_shell;
    const char *replace;
    uint64_t jobs;
    bool jobs_auto;        /* `jobs` is where to begin */
    const char *jobs_file; /* says them, and may change; NULL: none */
    uint64_t rate, rate_burst;
    int64_t rate_per_ns; /* 0: no rate */
    double max_load;     /* 0: none */
    const char *memory;  /* the governor's limit, as said; NULL: none */
    uint64_t job_bytes;  /* that a job is taken to need; 0: learned */
    const char *ledger;
    bool resume, retry_failed;
    const char *name; /* in weir top */
    uint64_t total;   /* items, as said; 0: not known */
    bool dry_run, quiet, progress, no_progress;
} run_settings;

/* GO_ON, or the status to exit with: help was printed, or a complaint was made. */
int run_settings_read(run_settings *ret_settings, int argc, char *argv[]);

/* ---- values as people write them -------------------------------------------------------------- */

/* "1.5", "300ms", "2m", "1h30m": seconds without a unit.  false: none, or less than 0. */
bool run_parse_time(const char *text, int64_t *ret_ns);

#define RUN_WINDOW_MAX 1000000ul /* jobs */

/* "256M", "64jobs", "1G,500jobs": what is not said stays as it is. */
bool run_parse_window(const char *text, uint64_t *ret_bytes, size_t *ret_jobs);

/* "10/s", "10", "100/m", "5/10s". */
bool run_parse_rate(const char *text, uint64_t *ret_tokens, int64_t *ret_per_ns);

/* "8", "auto", "150%" (of the CPUs this process may use), "+2", "-1" (more, or less, than those). */
bool run_parse_jobs(const char *text, uint64_t *ret_jobs, bool *ret_auto);

/* The first word of a file, which is as above, or "0". */
bool run_parse_jobs_file(const char *content, uint64_t *ret_jobs, bool *ret_auto);

/* CPUs this process may use. */
double run_cpus(void);

/* "1s..5m", or "1s": from, and at most. */
bool run_parse_backoff(const char *text, weir_backoff *ret_backoff);

/* "now,fail=1", "soon,fail=10%", "now,success=1", "never". */
bool run_parse_halt(const char *text, run_schedule_opts *into);

#endif
