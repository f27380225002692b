/* memory.c - see memory.h. */
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- files ---------------------------------------------------------------------------------- */

#define PATH_ROOM 1200

static const char *proc_of(const weir__memory_roots *roots)
{
    return roots->proc ? roots->proc : "/proc";
}

static const char *cgroup_of(const weir__memory_roots *roots)
{
    return roots->cgroup ? roots->cgroup : "/sys/fs/cgroup";
}

/* Reads a small file of the kernel's; false: cannot. */
static bool slurp(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t used = 0;
    ssize_t n;
    while (used < size - 1 &&
           ((n = read(fd, buf + used, size - 1 - used)) > 0 || (n < 0 && errno == EINTR)))
        used += n > 0 ? (size_t)n : 0;
    close(fd);
    buf[used] = '\0';
    return used > 0;
}

/* The number after `key` at the start of a line; < 0: no such line. */
static int64_t field(const char *text, const char *key)
{
    size_t len = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, key, len) == 0 && (line[len] == ' ' || line[len] == '\t'))
            return strtoll(line + len, NULL, 10);
    return -1;
}

/* ---- cgroups -------------------------------------------------------------------------------- */

/* Whether a name is one of a list with commas; the list of version 2 is empty, and so is its name. */
static bool has_name(const char *names, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = names;; at++) {
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
        at = strchr(at, ',');
        if (!at)
            return false;
    }
}

/* This process's cgroup path for a controller ("" is version 2), from /proc/self/cgroup's lines
 * "id:controllers:path". */
static bool cgroup_path(const weir__memory_roots *roots, const char *controller, char *ret,
                        size_t size)
{
    char name[PATH_ROOM], text[4096];
    snprintf(name, sizeof name, "%s/self/cgroup", proc_of(roots));
    if (!slurp(name, text, sizeof text))
        return false;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *names = strchr(line, ':');
        char *path = names ? strchr(names + 1, ':') : NULL;
        if (!path)
            continue;
        *names++ = *path++ = '\0';
        if (has_name(names, controller)) {
            snprintf(ret, size, "%s", path);
            return true;
        }
    }
    return false;
}

/* The two versions of the memory controller: the same facts in different files. */
struct version {
    const char *controller;
    const char *below;                   /* the root of the cgroup file system */
    const char *hard, *soft;             /* bounds; soft may be NULL */
    const char *usage, *inactive, *ooms; /* inactive: a field of memory.stat; ooms: a file with
                                            oom_kill in it */
};

static const struct version versions[] = {
    {"", "", "memory.max", "memory.high", "memory.current", "inactive_file", "memory.events"},
    {"memory", "/memory", "memory.limit_in_bytes", NULL, "memory.usage_in_bytes",
     "total_inactive_file", "memory.oom_control"},
};

#define N_VERSIONS (sizeof versions / sizeof versions[0])

/* A cgroup directory. */
struct level {
    char path[PATH_ROOM];
    size_t root; /* length of the part that is the root's */
};

static bool slurp_level(const struct level *level, const char *file, char *text, size_t size)
{
    char name[PATH_ROOM + 64];
    snprintf(name, sizeof name, "%s/%s", level->path, file);
    return slurp(name, text, size);
}

/* The directory of this process's cgroup. */
static bool find_level(const weir__memory_roots *roots, const struct version *version,
                       struct level *ret)
{
    char path[1024];
    if (!cgroup_path(roots, version->controller, path, sizeof path))
        return false;
    size_t length = strlen(path);
    while (length > 0 && path[length - 1] == '/')
        path[--length] = '\0';
    int root = snprintf(ret->path, sizeof ret->path, "%s%s", cgroup_of(roots), version->below);
    if (root < 0 || (size_t)root + length >= sizeof ret->path)
        return false;
    ret->root = (size_t)root;
    memcpy(ret->path + root, path, length + 1);
    /* Inside a container the path is the host's, and the root is ours. */
    if (strstr(path, "/..") || access(ret->path, F_OK) < 0)
        ret->path[root] = '\0';
    return true;
}

/* Goes to the directory above; false: it was the root. */
static bool go_up(struct level *level)
{
    char *last = strrchr(level->path + level->root, '/');
    if (!last)
        return false;
    *last = '\0';
    return true;
}

int64_t weir__oom_kills(void)
{
    static const weir__memory_roots roots;
    char text[16384];
    struct level level;
    int64_t n = -1;
    for (size_t i = 0; i < N_VERSIONS && n < 0; i++)
        if (find_level(&roots, &versions[i], &level))
            do /* the controller may be on in an ancestor only */
                if (slurp_level(&level, versions[i].ooms, text, sizeof text))
                    n = field(text, "oom_kill");
            while (n < 0 && go_up(&level));
    if (n < 0 && slurp("/proc/vmstat", text, sizeof text))
        n = field(text, "oom_kill");
    return n;
}

/* ---- limits and usage ---------------------------------------------------------------------- */

/* A file with one number; WEIR__NO_LIMIT for "max", or none. */
static uint64_t number_in(const struct level *level, const char *file)
{
    char text[64];
    if (!slurp_level(level, file, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return WEIR__NO_LIMIT;
    return strtoull(text, NULL, 10);
}

/* Version 1 writes "no limit" as the largest number of pages there is. */
static uint64_t bound_of(const struct version *version, const struct level *level)
{
    uint64_t hard = number_in(level, version->hard);
    uint64_t soft = version->soft ? number_in(level, version->soft) : WEIR__NO_LIMIT;
    uint64_t bound = soft < hard ? soft : hard;
    return bound < UINT64_C(1) << 62 ? bound : WEIR__NO_LIMIT;
}

static uint64_t left_of(uint64_t limit, uint64_t used)
{
    if (limit == WEIR__NO_LIMIT || used == WEIR__NO_LIMIT)
        return WEIR__NO_LIMIT;
    return used < limit ? limit - used : 0;
}

/* Usage, less the file pages that can be had back at once if `without_files`. */
static uint64_t usage_of(const struct version *version, const struct level *level,
                         bool without_files)
{
    char text[16384];
    uint64_t usage = number_in(level, version->usage);
    if (!without_files || usage == WEIR__NO_LIMIT ||
        !slurp_level(level, "memory.stat", text, sizeof text))
        return usage;
    int64_t inactive = field(text, version->inactive);
    return inactive > 0 ? left_of(usage, (uint64_t)inactive) : usage;
}

/* The host's; false: not told. */
static bool read_host(const weir__memory_roots *roots, uint64_t *ret_total, uint64_t *ret_left)
{
    char name[PATH_ROOM], text[8192];
    snprintf(name, sizeof name, "%s/meminfo", proc_of(roots));
    if (!slurp(name, text, sizeof text))
        return false;
    int64_t total = field(text, "MemTotal:"), left = field(text, "MemAvailable:");
    if (total <= 0 || left < 0)
        return false;
    *ret_total = (uint64_t)total * 1024;
    *ret_left = (uint64_t)left * 1024;
    return true;
}

/* Takes the cgroup's and its ancestors' bounds into the smallest limit and the least that is left;
 * whether any has one, and whether it is the smallest. */
static bool read_levels(const weir__memory_roots *roots, const struct version *version,
                        bool without_files, uint64_t *limit, uint64_t *left)
{
    struct level level;
    bool smallest = false;
    if (!find_level(roots, version, &level))
        return false;
    do {
        uint64_t bound = bound_of(version, &level);
        if (bound == WEIR__NO_LIMIT)
            continue;
        uint64_t here = left_of(bound, usage_of(version, &level, without_files));
        *left = here < *left ? here : *left;
        if (bound < *limit) {
            *limit = bound;
            smallest = true;
        }
    } while (go_up(&level));
    return smallest;
}

/* "some avg10=0.12 ..." */
static double pressure(const char *text, const char *kind)
{
    const char *line = strstr(text, kind);
    const char *value = line ? strstr(line, "avg10=") : NULL;
    double percent = value ? strtod(value + 6, NULL) : 0;
    return percent >= 0 && percent <= 100 ? percent : 0;
}

static void read_pressure(const weir__memory_roots *roots, weir__memory *memory)
{
    char name[PATH_ROOM], text[512];
    struct level level;
    bool read = find_level(roots, &versions[0], &level) &&
                slurp_level(&level, "memory.pressure", text, sizeof text);
    if (!read && !memory->is_cgroup) {
        snprintf(name, sizeof name, "%s/pressure/memory", proc_of(roots));
        read = slurp(name, text, sizeof text);
    }
    if (!read)
        return;
    memory->some = pressure(text, "some");
    memory->full = pressure(text, "full");
}

bool weir__memory_read(const weir__memory_roots *roots, weir__memory *memory)
{
    uint64_t limit = WEIR__NO_LIMIT, left = WEIR__NO_LIMIT;
    bool is_cgroup = false;
    read_host(roots, &limit, &left);
    for (size_t i = 0; i < N_VERSIONS; i++)
        is_cgroup |= read_levels(roots, &versions[i], true, &limit, &left);
    if (limit != WEIR__NO_LIMIT) {
        memory->limit = limit;
        memory->is_cgroup = is_cgroup;
        if (left != WEIR__NO_LIMIT)
            memory->usage = left < limit ? limit - left : 0;
    }
    read_pressure(roots, memory);
    return limit != WEIR__NO_LIMIT && left != WEIR__NO_LIMIT;
}

uint64_t weir__memory_available(void)
{
    static const weir__memory_roots roots;
    uint64_t limit = WEIR__NO_LIMIT, left = WEIR__NO_LIMIT;
    read_host(&roots, &limit, &left);
    for (size_t i = 0; i < N_VERSIONS; i++)
        read_levels(&roots, &versions[i], false, &limit, &left);
    return left;
}

/* ---- processes ----------------------------------------------------------------------------- */

/* A file of a process's; pid 0: this one. */
static bool slurp_process(const weir__memory_roots *roots, pid_t pid, const char *file, char *text,
                          size_t size)
{
    char name[PATH_ROOM];
    if (pid == 0)
        snprintf(name, sizeof name, "%s/self/%s", proc_of(roots), file);
    else
        snprintf(name, sizeof name, "%s/%d/%s", proc_of(roots), (int)pid, file);
    return slurp(name, text, size);
}

uint64_t weir__rss_of(const weir__memory_roots *roots, pid_t pid)
{
    char text[128]; /* pages: size resident shared ... */
    if (!slurp_process(roots, pid, "statm", text, sizeof text))
        return 0;
    char *resident = strchr(text, ' ');
    return resident ? strtoull(resident, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

uint64_t weir__peak_rss_of(const weir__memory_roots *roots, pid_t pid)
{
    char text[4096];
    if (!slurp_process(roots, pid, "status", text, sizeof text))
        return 0;
    int64_t kib = field(text, "VmHWM:");
    return kib > 0 ? (uint64_t)kib * 1024 : 0;
}

bool weir__peak_rss_reset(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool done = write(fd, "5", 1) == 1;
    close(fd);
    return done;
}

uint64_t weir__peak_rss_of_self(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

#define TREE_MAX 4096u

/* Those found so far; each is looked at once. */
struct tree {
    pid_t pids[TREE_MAX];
    unsigned n;
};

/* The children that one thread has started. */
static void add_children(const weir__memory_roots *roots, pid_t pid, const char *thread,
                         struct tree *tree)
{
    char file[64], text[16384];
    snprintf(file, sizeof file, "task/%.20s/children", thread);
    if (!slurp_process(roots, pid, file, text, sizeof text))
        return;
    char *at = text, *end;
    for (long child; (child = strtol(at, &end, 10)) > 0 && end != at; at = end)
        if (tree->n < TREE_MAX)
            tree->pids[tree->n++] = (pid_t)child;
}

uint64_t weir__rss_of_tree(const weir__memory_roots *roots, pid_t pid, unsigned *ret_processes)
{
    struct tree tree = {.n = 1};
    tree.pids[0] = pid;
    uint64_t sum = 0;
    unsigned alive = 0;
    for (unsigned i = 0; i < tree.n; i++) {
        uint64_t rss = weir__rss_of(roots, tree.pids[i]);
        sum += rss;
        alive += rss > 0;
        char name[PATH_ROOM];
        if (tree.pids[i] == 0)
            snprintf(name, sizeof name, "%s/self/task", proc_of(roots));
        else
            snprintf(name, sizeof name, "%s/%d/task", proc_of(roots), (int)tree.pids[i]);
        DIR *threads = opendir(name);
        struct dirent *entry;
        while (threads && (entry = readdir(threads)))
            if (entry->d_name[0] != '.')
                add_children(roots, tree.pids[i], entry->d_name, &tree);
        if (threads)
            closedir(threads);
    }
    if (ret_processes)
        *ret_processes = alive;
    return sum;
}
