/* values.c - numbers, times, sizes, rates, sets as people write them: the command's and the library's. */
#include "fuzz.h"

#include <math.h>

#include "run/schedule.h"
#include "run/settings.h"
#include <weir/memory.h>

static void parse_set(const char *text)
{
    run_set set;
    char said[64];
    if (!run_set_parse(text, &set))
        return;
    for (int kind = RUN_EXITED; kind <= RUN_NOT_STARTED; kind++)
        for (int code = 0; code < 256; code += 17) {
            run_outcome outcome = {(run_outcome_kind)kind, code};
            run_set_has(&set, outcome);
            fuzz_touch(said, strlen(run_outcome_text(outcome, said, sizeof said)));
        }
}

static void parse_counts(const char *text)
{
    uint64_t jobs = 1, tokens = 1;
    int64_t per_ns = 1;
    bool is_auto = false;
    if (run_parse_jobs(text, &jobs, &is_auto))
        must(is_auto || (jobs >= 1 && jobs <= RUN_JOBS_MAX));
    if (run_parse_jobs_file(text, &jobs, &is_auto))
        must(is_auto || jobs <= RUN_JOBS_MAX);
    if (run_parse_rate(text, &tokens, &per_ns))
        must(tokens >= 1 && per_ns > 0);
}

static void parse_times(const char *text)
{
    int64_t ns = 0;
    weir_backoff backoff = {0};
    if (run_parse_time(text, &ns))
        must(ns >= 0);
    if (run_parse_backoff(text, &backoff))
        must(backoff.base_ns >= 0 && backoff.max_ns >= backoff.base_ns);
}

static void parse_sizes(const char *text)
{
    uint64_t bytes = 0;
    size_t jobs = 1;
    double fraction = 0;
    run_schedule_opts halt = {0};
    if (weir_parse_memory(text, &bytes, &fraction) == WEIR_OK)
        must(isfinite(fraction) && fraction >= 0);
    if (run_parse_window(text, &bytes, &jobs))
        must(jobs <= RUN_WINDOW_MAX);
    if (run_parse_halt(text, &halt))
        must(isfinite(halt.halt_share) && !isnan(halt.halt_fails) && !isnan(halt.halt_done));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    char *text = fuzz_text(&f);
    parse_set(text);
    parse_counts(text);
    parse_times(text);
    parse_sizes(text);
    free(text);
    return 0;
}
