/* process.c - see process.h. */
#include "base/process.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
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
