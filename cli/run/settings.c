/* settings.c - the options of `weir run`; see settings.h. */
#include "command.h"
#include "settings.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <weir/memory.h>

/* As they were written. */
typedef struct texts {
    const char *jobs, *rate, *delay, *memory, *mem_per_job, *backoff, *timeout, *kill_after, *ok;
    const char *retry_on, *halt, *window;
    int64_t retries, total;
    bool null, csv, tsv, ungroup, by_lines;
} texts;

static int refuse(const char *option, const char *said, const char *what)
{
    complain("run", "--%s: \"%s\" is not %s", option, said, what);
    return EXIT_USAGE;
}

/* ---- groups of options ------------------------------------------------------------------------ */

static int set_input(const texts *t, run_settings *s, char **rest)
{
    if (t->null + t->csv + t->tsv > 1) {
        complain("run", "--null, --csv or --tsv: one of them");
        return EXIT_USAGE;
    }
    s->input.format = t->null ? RUN_ZERO : t->csv ? RUN_CSV : t->tsv ? RUN_TSV : RUN_LINES;
    if (s->input.has_header && !t->csv && !t->tsv) {
        complain("run", "--header: only the rows of --csv or --tsv have names");
        return EXIT_USAGE;
    }
    s->command = rest;
    while (*rest && strcmp(*rest, ":::") != 0)
        rest++;
    if (*rest) {
        *rest = NULL;
        s->input.items = rest + 1;
        for (char *const *item = s->input.items; *item; item++) {
            if (strcmp(*item, ":::") == 0) {
                complain("run",
                         "::: begins the items, and there is one list of them; an item that is "
                         "\":::\" can come by --input");
                return EXIT_USAGE;
            }
        }
        if (s->input.path || t->null || t->csv || t->tsv) {
            complain("run", "::: gives the items, so --input, --null, --csv and --tsv have no use");
            return EXIT_USAGE;
        }
    }
    if (!*s->command) {
        complain("run", "which command? weir run COMMAND [ARGUMENT | {}]...; see weir run --help");
        return EXIT_USAGE;
    }
    if (s->replace && !*s->replace)
        return refuse("replace", "", "a text that can be found");
    return GO_ON;
}

static int set_pace(const texts *t, run_settings *s)
{
    bool is_file = t->jobs && (strchr(t->jobs, '/') || !t->jobs[strcspn(t->jobs, "0123456789%")]);
    if (t->jobs && strcmp(t->jobs, "auto") != 0 && is_file)
        s->jobs_file = t->jobs;
    else if (t->jobs && !run_parse_jobs(t->jobs, &s->jobs, &s->jobs_auto))
        return refuse(
            "jobs", t->jobs,
            "a number from 1 to 4096, \"auto\", like 150%, +2, -1, or a file that says it");
    if (t->rate && !run_parse_rate(t->rate, &s->rate, &s->rate_per_ns))
        return refuse("rate", t->rate, "a rate: 10/s, 100/m, 5/10s");
    if (t->delay && !run_parse_time(t->delay, &s->schedule.delay_ns))
        return refuse("delay", t->delay, "a time: 2, 0.5s, 300ms, 1m30s");
    return GO_ON;
}

static int set_memory(const texts *t, run_settings *s)
{
    uint64_t bytes;
    double fraction;
    s->memory = t->memory;
    if (t->memory && weir_parse_memory(t->memory, &bytes, &fraction) < 0)
        return refuse("memory", t->memory, "an amount of memory: 80%, 8G, 512MiB");
    if (!t->mem_per_job)
        return GO_ON;
    s->memory = t->memory ? t->memory : "80%";
    if (strcmp(t->mem_per_job, "auto") == 0)
        return GO_ON;
    if (weir_parse_memory(t->mem_per_job, &s->job_bytes, &fraction) < 0 || s->job_bytes == 0)
        return refuse("mem-per-job", t->mem_per_job,
                      "an amount of memory, such as 2G, or \"auto\"");
    return GO_ON;
}

static int set_outcomes(const texts *t, run_settings *s)
{
    run_schedule_opts *o = &s->schedule;
    static const char sets[] = "a list such as 0,3-5,KILL,signal,timeout,oom";
    o->retries = (uint64_t)t->retries;
    if (t->backoff && !run_parse_backoff(t->backoff, &o->backoff))
        return refuse("backoff", t->backoff, "a time, or two: 1s..5m");
    if (t->timeout && (!run_parse_time(t->timeout, &o->timeout_ns) || o->timeout_ns == 0))
        return refuse("timeout", t->timeout, "a time: 90, 300ms, 5m, 1h30m");
    if (t->kill_after && !run_parse_time(t->kill_after, &o->kill_after_ns))
        return refuse("kill-after", t->kill_after, "a time: 90, 300ms, 5m, 1h30m");
    if (t->ok && !run_set_parse(t->ok, &o->ok))
        return refuse("ok", t->ok, sets);
    if (t->retry_on && !run_set_parse(t->retry_on, &o->retry))
        return refuse("retry-on", t->retry_on, sets);
    if (t->halt && !run_parse_halt(t->halt, o))
        return refuse("halt", t->halt,
                      "never, now,fail=N, soon,fail=N, the same with N%, now,success=N or "
                      "soon,success=N");
    return GO_ON;
}

static int set_output(const texts *t, run_settings *s)
{
    s->output.mode = t->ungroup    ? RUN_OUTPUT_DIRECT
                     : t->by_lines ? RUN_OUTPUT_LINES
                                   : RUN_OUTPUT_GROUPED;
    if (t->ungroup && t->by_lines) {
        complain("run", "--ungroup, --line-buffer: one of them");
        return EXIT_USAGE;
    }
    if (t->ungroup && (s->output.keep_order || s->output.is_tagged || s->output.results)) {
        complain("run",
                 "--ungroup: jobs write by themselves, so there is no --keep-order, --tag or "
                 "--results");
        return EXIT_USAGE;
    }
    if (t->window && !run_parse_window(t->window, &s->output.window_bytes, &s->output.window_jobs))
        return refuse("window", t->window,
                      "an amount of bytes, a number of jobs (1 to 1000000), "
                      "or both: 256M, 64jobs, 1G,500jobs");
    return GO_ON;
}

static int set_ledger(run_settings *s)
{
    s->resume = s->resume || s->retry_failed;
    if (s->ledger || !s->resume)
        return GO_ON;
    complain("run", "--%s needs the ledger of the run before: --ledger FILE",
             s->retry_failed ? "retry-failed" : "resume");
    return EXIT_USAGE;
}

static void set_defaults(run_settings *s)
{
    bool ignored;
    *s = (run_settings){
        .schedule = {.backoff = WEIR_BACKOFF_INIT,
                     .retry = {.kinds = UINT_MAX},
                     .kill_after_ns = 10 * WEIR_SECOND},
        .output = {.window_jobs = 64, .window_bytes = UINT64_C(256) << 20},
    };
    s->schedule.ok.status[0] = 1;
    s->schedule.backoff.base_ns = WEIR_SECOND;
    s->schedule.backoff.max_ns = 300 * WEIR_SECOND;
    s->schedule.backoff.jitter = WEIR_JITTER_EQUAL;
    run_parse_jobs("100%", &s->jobs, &ignored);
}

int run_settings_read(run_settings *ret_settings, int argc, char *argv[])
{
    run_settings *s = ret_settings;
    texts t = {0};
    char **rest;
    set_defaults(s);
    const option_row rows[] = {
        {'a', "input", "FILE", OPTION_TEXT, &s->input.path, 0, 0,
         "items are its lines (default: standard input)"},
        {'0', "null", NULL, OPTION_FLAG, &t.null, 0, 0, "items are ended by zero bytes"},
        {0, "csv", NULL, OPTION_FLAG, &t.csv, 0, 0, "items are rows; their cells are {1} {2}"},
        {0, "tsv", NULL, OPTION_FLAG, &t.tsv, 0, 0, "the same with tabulators"},
        {0, "header", NULL, OPTION_FLAG, &s->input.has_header, 0, 0,
         "the first row names the columns: {name}"},
        {'j', "jobs", "N", OPTION_TEXT, &t.jobs, 0, 0,
         "at a time: 8, 150%, +2, auto, a file (default: CPUs)"},
        {0, "rate", "N/TIME", OPTION_TEXT, &t.rate, 0, 0, "starts: 10/s, 100/m"},
        {0, "delay", "TIME", OPTION_TEXT, &t.delay, 0, 0, "between two starts"},
        {0, "max-load", "LOAD", OPTION_SECONDS, &s->max_load, 0.01, 1e6,
         "start nothing while the load is above it"},
        {'m', "memory", "LIMIT", OPTION_TEXT, &t.memory, 0, 0,
         "of all jobs: 80%, 8G; they wait, are suspended, not killed"},
        {0, "mem-per-job", "BYTES", OPTION_TEXT, &t.mem_per_job, 0, 0,
         "what one takes (default auto: is learned)"},
        {'r', "retries", "N", OPTION_NUMBER, &t.retries, 0, 1e9, "further attempts that may fail"},
        {0, "backoff", "FROM..TO", OPTION_TEXT, &t.backoff, 0, 0,
         "wait before them, doubled each time (default 1s..5m)"},
        {0, "retry-on", "LIST", OPTION_TEXT, &t.retry_on, 0, 0,
         "after these only: 75,100-120,KILL,signal,timeout"},
        {0, "ok", "LIST", OPTION_TEXT, &t.ok, 0, 0, "these are no failures (default 0)"},
        {'t', "timeout", "TIME", OPTION_TEXT, &t.timeout, 0, 0, "an attempt is stopped after it"},
        {0, "kill-after", "TIME", OPTION_TEXT, &t.kill_after, 0, 0,
         "from SIGTERM to SIGKILL (default 10s)"},
        {0, "halt", "WHEN", OPTION_TEXT, &t.halt, 0, 0,
         "now,fail=1; soon,fail=10%: ends the run (default never)"},
        {'k', "keep-order", NULL, OPTION_FLAG, &s->output.keep_order, 0, 0,
         "print in the order of the items"},
        {0, "line-buffer", NULL, OPTION_FLAG, &t.by_lines, 0, 0,
         "print lines while jobs run, each whole"},
        {0, "window", "BOUND", OPTION_TEXT, &t.window, 0, 0,
         "output that may wait to be printed (default 256M,64jobs)"},
        {0, "tag", NULL, OPTION_FLAG, &s->output.is_tagged, 0, 0,
         "begin each line with the item and a tabulator"},
        {0, "results", "DIR", OPTION_TEXT, &s->output.results, 0, 0,
         "keep DIR/N-ITEM/stdout, stderr as well"},
        {'u', "ungroup", NULL, OPTION_FLAG, &t.ungroup, 0, 0, "jobs print as they please"},
        {'s', "shell", NULL, OPTION_FLAG, &s->is_shell, 0, 0,
         "COMMAND is a script for sh; items are safe in it"},
        {'I', "replace", "TEXT", OPTION_TEXT, &s->replace, 0, 0,
         "what stands for the item, not {}"},
        {'l', "ledger", "FILE", OPTION_TEXT, &s->ledger, 0, 0,
         "write down what becomes of each item (SQLite)"},
        {0, "resume", NULL, OPTION_FLAG, &s->resume, 0, 0, "skip what has ended, as it says"},
        {0, "retry-failed", NULL, OPTION_FLAG, &s->retry_failed, 0, 0,
         "the same, but run what has failed again"},
        {'n', "dry-run", NULL, OPTION_FLAG, &s->dry_run, 0, 0, "print what would be run"},
        {'q', "quiet", NULL, OPTION_FLAG, &s->quiet, 0, 0, "say nothing of failures and the end"},
        {0, "progress", NULL, OPTION_FLAG, &s->progress, 0, 0,
         "a line now and then, on no terminal"},
        {0, "no-progress", NULL, OPTION_FLAG, &s->no_progress, 0, 0, "none, on a terminal either"},
        {0, "total", "N", OPTION_NUMBER, &t.total, 0, 1e15, "items there are, for the time left"},
        {0, "name", "NAME", OPTION_TEXT, &s->name, 0, 0, "in weir top (default: the program's)"},
        OPTIONS_END,
    };
    int status = options_read_some(&command_run, rows, argc, argv, &rest);
    if (status == GO_ON)
        status = set_input(&t, s, rest);
    if (status == GO_ON)
        status = set_pace(&t, s);
    if (status == GO_ON)
        status = set_memory(&t, s);
    if (status == GO_ON)
        status = set_outcomes(&t, s);
    if (status == GO_ON)
        status = set_output(&t, s);
    s->total = (uint64_t)t.total;
    return status == GO_ON ? set_ledger(s) : status;
}
