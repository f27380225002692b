/* process.c - finds processes that are not our children; see process.h. */
#include "job.h"
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TOLERANCE INT64_C(1000000000) /* between what we took for its start, and the kernel did */

int64_t run_since_boot(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static bool read_file(const char *path, char *to, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, to, size - 1) : -1;
    if (fd >= 0)
        close(fd);
    to[n > 0 ? n : 0] = '\0';
    return n > 0;
}

void run_boot_id(char to[40])
{
    read_file("/proc/sys/kernel/random/boot_id", to, 40);
    to[strcspn(to, "\n")] = '\0';
}

/* A number of /proc/pid/stat, the third or a later one: behind a name that may hold anything. */
static int64_t read_stat(int64_t pid, int which, char *ret_state)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    const char *at = read_file(path, text, sizeof text) ? strrchr(text, ')') : NULL;
    *ret_state = at && at[1] ? at[2] : 'X';
    for (int field = 2; at && field < which; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoll(at, NULL, 10) : -1;
}

int64_t run_process_start(int64_t pid)
{
    char state;
    int64_t ticks = read_stat(pid, 22, &state);
    if (ticks < 0 || state == 'Z' || state == 'X')
        return -1;
    return ticks * (INT64_C(1000000000) / sysconf(_SC_CLK_TCK));
}

int64_t run_process_parent(int64_t pid)
{
    char ignored;
    return read_stat(pid, 4, &ignored);
}

int run_process_open(int64_t pid, int64_t started_ns)
{
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    int64_t start = fd >= 0 ? run_process_start(pid) : -1; /* read while the pidfd holds the pid */
    if (start >= 0 && llabs(start - started_ns) <= TOLERANCE)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* ---- jobs of others --------------------------------------------------------------------------- */

void run_process_each(bool (*look)(void *ctx, int64_t pid), void *ctx)
{
    DIR *all = opendir("/proc");
    bool more = true;
    for (struct dirent *entry; all && more && (entry = readdir(all));) {
        int64_t pid = strtoll(entry->d_name, NULL, 10);
        more = pid <= 0 || look(ctx, pid);
    }
    if (all)
        closedir(all);
}

void run_mark(char to[RUN_MARK_MAX], int64_t pid, int64_t started_ns, uint64_t number,
              uint64_t attempt)
{
    snprintf(to, RUN_MARK_MAX, "%" PRId64 ".%" PRId64 ".%" PRIu64 ".%" PRIu64, pid,
             started_ns / 1000000, number, attempt);
}

typedef struct search {
    const char *mark;
    int64_t found;
} search;

/* A job's mark is the first of its environment; those that it started have it, too, but lead no group. */
static bool has_mark(void *ctx, int64_t pid)
{
    search *s = ctx;
    char path[64], text[sizeof RUN_MARK + RUN_MARK_MAX];
    snprintf(path, sizeof path, "/proc/%" PRId64 "/environ", pid);
    bool is_it = getpgid((pid_t)pid) == pid && read_file(path, text, sizeof text) &&
                 strncmp(text, RUN_MARK "=", sizeof RUN_MARK) == 0 &&
                 strcmp(text + sizeof RUN_MARK, s->mark) == 0;
    s->found = is_it ? pid : -1;
    return !is_it;
}

int64_t run_process_find(const char *mark)
{
    search s = {.mark = mark, .found = -1};
    run_process_each(has_mark, &s);
    return s.found;
}

/* Of <linux/pidfd.h>, which is newer than many systems that this is built on. */
struct info {
    uint64_t mask, cgroup;
    uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};

#define GET_INFO  _IOWR(0xFF, 11, struct info)
#define INFO_EXIT (UINT64_C(1) << 3)

run_process_end run_process_wait(int pidfd)
{
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    while (poll(&ended, 1, -1) < 0 && errno == EINTR)
        continue;
    for (int i = 0; i < 100; i++) { /* it is told when its parent has taken it away */
        struct info info = {.mask = INFO_EXIT};
        if (ioctl(pidfd, GET_INFO, &info) < 0)
            break;
        if (info.mask & INFO_EXIT)
            return (run_process_end){true, info.exit_code};
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return (run_process_end){0};
}
