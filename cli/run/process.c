/* process.c - finds processes that are not our children; see process.h. */
#include "process.h"

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

/* Field 22 of /proc/pid/stat, behind a name that may hold anything.  A zombie is not there. */
int64_t run_process_start(int64_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    const char *at = read_file(path, text, sizeof text) ? strrchr(text, ')') : NULL;
    if (!at || at[1] == '\0' || at[2] == 'Z' || at[2] == 'X')
        return -1;
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at)
        return -1;
    return strtoll(at, NULL, 10) * (INT64_C(1000000000) / sysconf(_SC_CLK_TCK));
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
