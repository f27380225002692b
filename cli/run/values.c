/* values.c - reads times, rates, numbers of jobs as people write them; see settings.h. */
#include "settings.h"

#include <ctype.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <weir/memory.h>

static const struct {
    const char *name;
    int64_t ns;
} units[] = {{"ms", WEIR_MILLISECOND},
             {"s", WEIR_SECOND},
             {"m", 60 * WEIR_SECOND},
             {"h", 3600 * WEIR_SECOND},
             {"d", 24 * 3600 * WEIR_SECOND}};

/* The unit that `text` begins with, which is moved behind it; 0: none. */
static int64_t take_unit(const char **text)
{
    size_t n = 0;
    while (isalpha((unsigned char)(*text)[n]))
        n++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strlen(units[i].name) == n && memcmp(units[i].name, *text, n) == 0) {
            *text += n;
            return units[i].ns;
        }
    }
    return 0;
}

static bool take_number(const char **text, double *ret)
{
    char *end;
    if (!isdigit((unsigned char)**text) && **text != '.')
        return false;
    *ret = strtod(*text, &end);
    bool ok = end != *text && isfinite(*ret);
    *text = end;
    return ok;
}

bool run_parse_time(const char *text, int64_t *ret_ns)
{
    double sum = 0, number;
    if (!*text)
        return false;
    for (bool is_first = true; *text; is_first = false) {
        if (!take_number(&text, &number))
            return false;
        int64_t unit = is_first && !*text ? WEIR_SECOND : take_unit(&text);
        sum += number * (double)unit;
        if (!unit || sum > 1e18)
            return false;
    }
    *ret_ns = (int64_t)llround(sum);
    return true;
}

/* One of the two: "64jobs", or an amount of memory. */
static bool take_bound(const char *text, uint64_t *ret_bytes, size_t *ret_jobs)
{
    double fraction;
    char *end;
    unsigned long jobs = strtoul(text, &end, 10);
    if (isdigit((unsigned char)*text) && (strcmp(end, "jobs") == 0 || strcmp(end, "job") == 0)) {
        *ret_jobs = jobs;
        return jobs > 0 && jobs <= RUN_WINDOW_MAX;
    }
    return weir_parse_memory(text, ret_bytes, &fraction) >= 0 && *ret_bytes > 0;
}

bool run_parse_window(const char *text, uint64_t *ret_bytes, size_t *ret_jobs)
{
    char one[64];
    do {
        size_t length = strcspn(text, ",");
        if (length >= sizeof one)
            return false;
        snprintf(one, sizeof one, "%.*s", (int)length, text);
        if (!take_bound(one, ret_bytes, ret_jobs))
            return false;
        text += length;
    } while (*text++);
    return true;
}

bool run_parse_rate(const char *text, uint64_t *ret_tokens, int64_t *ret_per_ns)
{
    char number[32];
    const char *per = strchr(text, '/');
    size_t n = per ? (size_t)(per - text) : strlen(text);
    if (n == 0 || n >= sizeof number || strspn(text, "0123456789") < n)
        return false;
    memcpy(number, text, n);
    number[n] = '\0';
    uint64_t tokens = strtoull(number, NULL, 10);
    int64_t per_ns = WEIR_SECOND;
    if (per && isdigit((unsigned char)per[1])) {
        if (!run_parse_time(per + 1, &per_ns))
            return false;
    } else if (per) {
        per++;
        per_ns = take_unit(&per);
        if (*per)
            return false;
    }
    if (tokens == 0 || tokens > UINT32_MAX || per_ns <= 0)
        return false;
    *ret_tokens = tokens;
    *ret_per_ns = per_ns;
    return true;
}

double run_cpus(void)
{
    cpu_set_t mine;
    int n = sched_getaffinity(0, sizeof mine, &mine) == 0 ? CPU_COUNT(&mine) : 1;
    return n > 0 ? n : 1;
}

bool run_parse_jobs(const char *text, uint64_t *ret_jobs, bool *ret_auto)
{
    double jobs;
    bool is_relative = *text == '+' || *text == '-', is_less = *text == '-';
    *ret_auto = strcmp(text, "auto") == 0;
    if (*ret_auto) {
        *ret_jobs = (uint64_t)run_cpus();
        return true;
    }
    text += is_relative;
    if (!take_number(&text, &jobs))
        return false;
    if (is_relative)
        jobs = run_cpus() + (is_less ? -jobs : jobs);
    else if (*text == '%' && text++)
        jobs = floor(run_cpus() * jobs / 100);
    else if (jobs < 1)
        return false;
    jobs = is_relative && jobs < 1 ? 1 : jobs;
    if (*text || jobs != floor(jobs) || jobs > RUN_JOBS_MAX)
        return false;
    *ret_jobs = jobs < 1 ? 1 : (uint64_t)jobs;
    return true;
}

bool run_parse_jobs_file(const char *content, uint64_t *ret_jobs, bool *ret_auto)
{
    static const char space[] = " \t\r\n";
    char word[32];
    content += strspn(content, space);
    size_t n = strcspn(content, space);
    if (n >= sizeof word)
        return false;
    memcpy(word, content, n);
    word[n] = '\0';
    if (strcmp(word, "0") != 0)
        return run_parse_jobs(word, ret_jobs, ret_auto);
    *ret_jobs = 0;
    *ret_auto = false;
    return true;
}

bool run_parse_backoff(const char *text, weir_backoff *ret_backoff)
{
    char from[32];
    const char *to = strstr(text, "..");
    size_t n = to ? (size_t)(to - text) : strlen(text);
    if (n >= sizeof from)
        return false;
    memcpy(from, text, n);
    from[n] = '\0';
    if (!run_parse_time(from, &ret_backoff->base_ns))
        return false;
    ret_backoff->max_ns = 0;
    if (!to) {
        ret_backoff->max_ns = ret_backoff->base_ns;
        return true;
    }
    return run_parse_time(to + 2, &ret_backoff->max_ns) &&
           ret_backoff->max_ns >= ret_backoff->base_ns;
}

static bool take_word(const char **text, const char *word)
{
    size_t n = strlen(word);
    bool is_it = strncmp(*text, word, n) == 0;
    *text += is_it ? n : 0;
    return is_it;
}

bool run_parse_halt(const char *text, run_schedule_opts *into)
{
    double number;
    into->halt_fails = into->halt_share = into->halt_done = 0;
    into->halt = RUN_HALT_NEVER;
    if (strcmp(text, "never") == 0)
        return true;
    run_halt when = take_word(&text, "now,")    ? RUN_HALT_NOW
                    : take_word(&text, "soon,") ? RUN_HALT_SOON
                                                : RUN_HALT_NEVER;
    bool is_success = take_word(&text, "success=");
    if (when == RUN_HALT_NEVER || (!is_success && !take_word(&text, "fail=")))
        return false;
    if (!take_number(&text, &number) || number <= 0)
        return false;
    into->halt = when;
    if (strcmp(text, "%") == 0 && number <= 100 && !is_success) {
        into->halt_share = number / 100;
        return true;
    }
    *(is_success ? &into->halt_done : &into->halt_fails) = number;
    return *text == '\0' && number == floor(number);
}
