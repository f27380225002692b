/* memory.c - the governor of a run; see memory.h. */
#include "memory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <weir/memory.h>

#define KIND 1 /* one command, so one kind of task */

struct run_memory {
    weir_governor *governor;
    uint64_t job_bytes;
    bool is_share; /* the limit: a share of all, whoever uses it */
};

run_memory *run_memory_open(const char *limit, uint64_t job_bytes, int *ret_error)
{
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    run_memory *m = calloc(1, sizeof *m);
    *ret_error =
        m ? weir_parse_memory(limit, &opts.limit_bytes, &opts.limit_fraction) : WEIR_ENOMEM;
    if (*ret_error >= 0)
        *ret_error = weir_governor_create(&m->governor, &opts);
    if (*ret_error < 0) {
        free(m);
        return NULL;
    }
    m->job_bytes = job_bytes;
    m->is_share = opts.limit_fraction > 0;
    return m;
}

void run_memory_close(run_memory *m)
{
    if (!m)
        return;
    weir_governor_destroy(m->governor);
    free(m);
}

uint64_t run_memory_reserve(run_memory *m, uint64_t running)
{
    uint64_t bytes = m->job_bytes ? m->job_bytes : weir_governor_estimate(m->governor, KIND);
    if (bytes == 0 && running > 0)
        return 0;
    bytes = bytes ? bytes : 1;
    weir_governor_sample(m->governor);
    return weir_governor_reserve(m->governor, bytes, WEIR_POLL) >= 0 ? bytes : 0;
}

void run_memory_release(run_memory *m, uint64_t reserved)
{
    if (reserved)
        weir_governor_release(m->governor, reserved);
}

void run_memory_observe(run_memory *m, uint64_t peak_bytes)
{
    if (peak_bytes)
        weir_governor_observe(m->governor, KIND, peak_bytes);
}

run_pressure run_memory_pressure(run_memory *m)
{
    switch (weir_governor_sample(m->governor)) {
    case WEIR_MEMORY_NORMAL: return RUN_PRESSURE_NONE;
    case WEIR_MEMORY_SLOW: return RUN_PRESSURE_SOME;
    default: return RUN_PRESSURE_HIGH;
    }
}

void run_memory_look(run_memory *m, uint64_t *ret_used, uint64_t *ret_limit)
{
    weir_governor_snapshot s = WEIR_GOVERNOR_SNAPSHOT_INIT;
    *ret_used = *ret_limit = 0;
    if (weir_governor_get_snapshot(m->governor, &s) < 0)
        return;
    *ret_used = m->is_share ? s.usage : s.rss; /* what counts against the limit */
    *ret_limit = s.limit;
}

uint64_t run_memory_kills(void)
{
    char text[16384];
    int fd = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *at = strstr(text, "\noom_kill ");
    return at ? strtoull(at + 10, NULL, 10) : 0;
}
