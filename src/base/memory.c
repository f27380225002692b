/* memory.c - see memory.h. */
#include "base/memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

uint64_t weir__peak_rss_of_self(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

/* ---- the OOM killer's counters ------------------------------------------------------------ */

/* Reads a small file of the kernel's; false: cannot. */
static bool slurp(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t used = 0;
    ssize_t n;
    while (used < size - 1 && (n = read(fd, buf + used, size - 1 - used)) > 0)
        used += (size_t)n;
    close(fd);
    buf[used] = '\0';
    return used > 0;
}

/* The number after `key` at the start of a line; < 0: no such line. */
static int64_t field(const char *text, const char *key)
{
    size_t len = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, key, len) == 0 && line[len] == ' ')
            return strtoll(line + len, NULL, 10);
    return -1;
}

/* This process's cgroup path for a controller ("" is version 2), from /proc/self/cgroup's lines
 * "id:controllers:path". */
static bool cgroup_path(const char *controller, char *ret, size_t size)
{
    char text[4096];
    if (!slurp("/proc/self/cgroup", text, sizeof text))
        return false;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *names = strchr(line, ':');
        char *path = names ? strchr(names + 1, ':') : NULL;
        if (!path)
            continue;
        *names++ = *path++ = '\0';
        if (strcmp(names, controller) == 0) {
            snprintf(ret, size, "%s", path);
            return true;
        }
    }
    return false;
}

/* Reads a file of this process's cgroup. */
static bool slurp_cgroup(const char *root, const char *controller, const char *file, char *text,
                         size_t size)
{
    char path[1024], name[1200];
    if (!cgroup_path(controller, path, sizeof path))
        return false;
    snprintf(name, sizeof name, "%s%s/%s", root, path, file);
    if (slurp(name, text, size))
        return true;
    /* inside a container the path is the host's, and the root is ours */
    snprintf(name, sizeof name, "%s/%s", root, file);
    return slurp(name, text, size);
}

#define CGROUP2 "/sys/fs/cgroup", ""
#define CGROUP1 "/sys/fs/cgroup/memory", "memory"

int64_t weir__oom_kills(void)
{
    char text[16384];
    int64_t n = -1;
    if (slurp_cgroup(CGROUP2, "memory.events", text, sizeof text))
        n = field(text, "oom_kill");
    if (n < 0 && slurp_cgroup(CGROUP1, "memory.oom_control", text, sizeof text))
        n = field(text, "oom_kill");
    if (n < 0 && slurp("/proc/vmstat", text, sizeof text))
        n = field(text, "oom_kill");
    return n;
}

/* ---- memory ------------------------------------------------------------------------------- */

/* A cgroup file with one number; UINT64_MAX for "max" or none. */
static uint64_t cgroup_number(const char *root, const char *controller, const char *file)
{
    char text[64];
    if (!slurp_cgroup(root, controller, file, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

static uint64_t left_of(uint64_t limit, uint64_t used)
{
    if (limit == UINT64_MAX || used == UINT64_MAX)
        return UINT64_MAX;
    return used < limit ? limit - used : 0;
}

uint64_t weir__memory_available(void)
{
    char text[8192];
    uint64_t host = UINT64_MAX;
    if (slurp("/proc/meminfo", text, sizeof text)) {
        int64_t kib = field(text, "MemAvailable:");
        if (kib >= 0)
            host = (uint64_t)kib * 1024;
    }
    uint64_t v2 =
        left_of(cgroup_number(CGROUP2, "memory.max"), cgroup_number(CGROUP2, "memory.current"));
    uint64_t v1 = left_of(cgroup_number(CGROUP1, "memory.limit_in_bytes"),
                          cgroup_number(CGROUP1, "memory.usage_in_bytes"));
    uint64_t cgroup = v2 < v1 ? v2 : v1;
    return host < cgroup ? host : cgroup;
}
