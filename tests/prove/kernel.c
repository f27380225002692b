/* kernel.c - the clock, futexes, and the other calls of the system that the code makes by number.
 *
 * Time stands still but for a moment at each look, and for what is waited for: then it is the deadline.
 */
#include "inside.h"

#include "base/spin.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TICK 1000 /* ns that a look at the clock takes: who spins looks but a few times */

long prove_pidfd_open(int pid);
long prove_pidfd_signal(int fd, int signal);
long prove_waitid(int fd, siginfo_t *info, struct rusage *usage);

/* ---- time ------------------------------------------------------------------------------------- */

int __real_clock_gettime(clockid_t clock, struct timespec *to);
int __wrap_clock_gettime(clockid_t clock, struct timespec *to);
int __wrap_clock_gettime(clockid_t clock, struct timespec *to)
{
    if (prove_self < 0)
        return __real_clock_gettime(clock, to);
    prove_time += TICK;
    *to =
        (struct timespec){.tv_sec = prove_time / WEIR_SECOND, .tv_nsec = prove_time % WEIR_SECOND};
    return 0;
}

int __wrap_nanosleep(const struct timespec *how_long, struct timespec *rest);
int __wrap_nanosleep(const struct timespec *how_long, struct timespec *rest)
{
    (void)rest;
    prove_wait(NULL, prove_time + how_long->tv_sec * WEIR_SECOND + how_long->tv_nsec);
    return 0;
}

/* The same in each run: what is random there is part of no proof. */
ssize_t __wrap_getrandom(void *to, size_t n, unsigned flags);
ssize_t __wrap_getrandom(void *to, size_t n, unsigned flags)
{
    (void)flags;
    memset(to, 7, n);
    return (ssize_t)n;
}

int __real_sched_yield(void);
int __wrap_sched_yield(void);
int __wrap_sched_yield(void)
{
    if (prove_self < 0)
        return __real_sched_yield();
    prove_yield();
    return 0;
}

/* Two CPUs, so that the code takes the ways of several. */
int __real_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set);
int __wrap_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set);
int __wrap_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set)
{
    (void)pid;
    CPU_ZERO_S(size, set);
    CPU_SET_S(0, size, set);
    CPU_SET_S(1, size, set);
    return 0;
}

/* ---- static variables ------------------------------------------------------------------------- */

/* Those of the code and of the cases lie between these, by the order of the linker's arguments. */
extern char prove_data_begin[], prove_data_end[], prove_bss_begin[], prove_bss_end[];

/* What the code has found out or left behind in earlier runs is no part of a run: it depends on its choices alone.
 * A wake-up costs next to nothing, so who spins looks once. */
void prove_statics_begin(void)
{
    static char *data, *bss;
    size_t n_data = (size_t)(prove_data_end - prove_data_begin);
    size_t n_bss = (size_t)(prove_bss_end - prove_bss_begin);
    if (data) {
        memcpy(prove_data_begin, data, n_data);
        memcpy(prove_bss_begin, bss, n_bss);
        return;
    }
    weir__spin_is_useful(); /* looked up once, so not in a run */
    for (int i = 0; i < 100; i++)
        weir__spin_note_wakeup(0);
    data = malloc(n_data);
    bss = malloc(n_bss);
    if (!data || !bss)
        abort();
    memcpy(data, prove_data_begin, n_data);
    memcpy(bss, prove_bss_begin, n_bss);
}

/* ---- futexes ---------------------------------------------------------------------------------- */

static weir_time time_of(const struct timespec *ts)
{
    return ts ? ts->tv_sec * WEIR_SECOND + ts->tv_nsec : WEIR_FOREVER;
}

/* The kernel looks at the newest value, and between the look and the sleep nobody can wake. */
static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *until)
{
    const void *key = (const void *)prove_files_address((uintptr_t)word);
    switch (op & ~FUTEX_PRIVATE_FLAG) {
    case FUTEX_WAIT_BITSET:
        if (*word != value) {
            errno = EAGAIN;
            return -1;
        }
        if (!prove_wait(key, time_of(until)))
            return 0;
        errno = ETIMEDOUT;
        return -1;
    case FUTEX_WAKE: return prove_wake(key, value);
    default: prove_fail("a futex operation that is not modelled: %d", op);
    }
}

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list args;
    va_start(args, number);
    long a[5];
    for (int i = 0; i < 5; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    if (prove_self < 0)
        return 0; /* destructors; nobody sleeps */
    prove_point();
    switch (number) {
    case SYS_futex:
        return futex((uint32_t *)a[0], (int)a[1], (uint32_t)a[2], (const struct timespec *)a[3]);
    case SYS_membarrier: prove_memory_fence_all(); return 0;
    case SYS_pidfd_open: return prove_pidfd_open((int)a[0]);
    case SYS_pidfd_send_signal: return prove_pidfd_signal((int)a[0], (int)a[1]);
    case SYS_waitid: return prove_waitid((int)a[1], (siginfo_t *)a[2], (struct rusage *)a[4]);
    default: prove_fail("a system call that is not modelled: %ld", number);
    }
}

/* ---- asserts ---------------------------------------------------------------------------------- */

_Noreturn void __wrap___assert_fail(const char *what, const char *file, unsigned line,
                                    const char *function);
_Noreturn void __wrap___assert_fail(const char *what, const char *file, unsigned line,
                                    const char *function)
{
    prove_fail("%s:%u: %s: assert(%s)", file, line, function, what);
}

/* ---- places ----------------------------------------------------------------------------------- */

pid_t __real_getpid(void);

/* By addr2line, once for each failure that is shown. */
const char *prove_place(const void *pc, char to[160])
{
    char command[256], function[64] = "", line[160] = "";
    to[0] = '\0';
    snprintf(command, sizeof command, "addr2line -fsi -e /proc/%d/exe %p 2>/dev/null",
             __real_getpid(), pc);
    FILE *f = popen(command, "r");
    if (!f)
        return to;
    if (fscanf(f, "%63s %159s", function, line) == 2 && line[0] != '?')
        snprintf(to, 160, "%.80s %.60s", line, function);
    pclose(f);
    return to;
}
