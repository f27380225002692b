/* process.c - see process.h. */
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#define WEIR_P_PIDFD 3 /* P_PIDFD, absent from older libc headers */

static unsigned cpus_of(pid_t thread)
{
    cpu_set_t set;
    if (sched_getaffinity(thread, sizeof set, &set) == 0) {
        int n = CPU_COUNT(&set);
        if (n > 0)
            return (unsigned)n;
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than cpu_set_t holds */
    return n > 0 ? (unsigned)n : 1;
}

unsigned weir__cpu_count(void)
{
    return cpus_of(0);
}

unsigned weir__main_thread_cpu_count(void)
{
    return cpus_of(getpid());
}

int weir__pidfd_open(pid_t pid)
{
    long fd = syscall(SYS_pidfd_open, pid, 0); /* close-on-exec by definition */
    return fd >= 0 ? (int)fd : -errno;
}

void weir__pidfd_kill(int pidfd, int signal)
{
    syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

/* The raw call, for the fifth argument that libc's waitid does not have. */
uint64_t weir__look_at_zombie(int pidfd, int *ret_code, int *ret_signal)
{
    siginfo_t info;
    struct rusage usage;
    memset(&info, 0, sizeof info);
    memset(&usage, 0, sizeof usage);
    long rc = syscall(SYS_waitid, WEIR_P_PIDFD, pidfd, &info, WEXITED | WNOWAIT | WNOHANG, &usage);
    if (rc < 0 || info.si_pid == 0)
        return 0;
    *ret_code = info.si_code == CLD_EXITED ? info.si_status : -1;
    *ret_signal = info.si_code == CLD_EXITED ? 0 : info.si_status;
    return usage.ru_maxrss > 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

uint64_t weir__peak_rss_of_self(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

void weir__reap(pid_t pid, int *ret_code, int *ret_signal)
{
    int status;
    pid_t rc;
    do
        rc = waitpid(pid, &status, 0);
    while (rc < 0 && errno == EINTR);
    *ret_code = rc == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    *ret_signal = rc == pid && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
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
