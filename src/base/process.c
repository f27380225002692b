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

unsigned weir__cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int n = CPU_COUNT(&set);
        if (n > 0)
            return (unsigned)n;
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than cpu_set_t holds */
    return n > 0 ? (unsigned)n : 1;
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
uint64_t weir__peak_rss_of_zombie(int pidfd)
{
    siginfo_t info;
    struct rusage usage;
    memset(&usage, 0, sizeof usage);
    long rc = syscall(SYS_waitid, WEIR_P_PIDFD, pidfd, &info, WEXITED | WNOWAIT | WNOHANG, &usage);
    return rc == 0 && usage.ru_maxrss > 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
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

static int64_t oom_kills_in(const char *root, const char *controller, const char *file)
{
    char path[1024], name[1200], text[4096];
    if (!cgroup_path(controller, path, sizeof path))
        return -1;
    snprintf(name, sizeof name, "%s%s/%s", root, path, file);
    if (!slurp(name, text, sizeof text)) {
        /* inside a container the path is the host's, and the root is ours */
        snprintf(name, sizeof name, "%s/%s", root, file);
        if (!slurp(name, text, sizeof text))
            return -1;
    }
    return field(text, "oom_kill");
}

int64_t weir__oom_kills(void)
{
    int64_t n = oom_kills_in("/sys/fs/cgroup", "", "memory.events");
    if (n < 0)
        n = oom_kills_in("/sys/fs/cgroup/memory", "memory", "memory.oom_control");
    char text[16384];
    if (n < 0 && slurp("/proc/vmstat", text, sizeof text))
        n = field(text, "oom_kill");
    return n;
}
