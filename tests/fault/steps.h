/* steps.h - killing a process after its n-th instruction, for every n.
 *
 * A child runs one call under PTRACE_SINGLESTEP.  In `make check` n takes strides, with another
 * phase each run; WEIR_KILL_STRIDE=1 takes every instruction.
 */
#ifndef WEIR_TESTS_FAULT_STEPS_H
#define WEIR_TESTS_FAULT_STEPS_H

#include "contract/support.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define STRIDE 1201 /* a sanitizer's instructions are many, and not the library's */
#elif defined(__SANITIZE_THREAD__)
#define STRIDE 60013
#else
#define STRIDE 41
#endif

/* ---- the victim ----------------------------------------------------------------------------- */

typedef void victim_fn(void *object);

/* Each calls this when everything is ready for its call. */
static inline void stop_here(void)
{
    syscall(SYS_kill, getpid(), SIGSTOP);
}

/* Starts a child that stops before its call; it ends after it, with status 0. */
static inline pid_t start(victim_fn *call, void *object)
{
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        call(object);
        syscall(SYS_exit_group, 0);
    }
    int status;
    must(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
    must(ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)PTRACE_O_EXITKILL) == 0);
    return pid;
}

static inline void bury(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
        ;
}

enum end { STEPPED, ASLEEP, OVER };

/* Whether the kernel has put it to sleep in a system call. */
static inline bool is_asleep(pid_t pid)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    must(file && fgets(text, sizeof text, file));
    fclose(file);
    return strncmp(strrchr(text, ')'), ") S", 3) == 0;
}

/* Whether the child's next instruction can sleep: is a system call, as far as we can tell. */
static inline bool may_sleep(pid_t pid)
{
#if defined(__x86_64__)
    struct user_regs_struct registers;
    must(ptrace(PTRACE_GETREGS, pid, NULL, &registers) == 0);
    long code = ptrace(PTRACE_PEEKTEXT, pid, (void *)registers.rip, NULL);
    return (code & 0xffff) == 0x050f; /* syscall */
#else
    (void)pid;
    return true;
#endif
}

/* How the instruction ended that the child runs. */
static inline enum end wait_for_step(pid_t pid, bool polls)
{
    for (unsigned i = 1;; i++) {
        int status;
        pid_t got = waitpid(pid, &status, polls ? WNOHANG : 0);
        must(got >= 0);
        if (got == pid)
            return WIFSTOPPED(status) ? STEPPED : OVER;
        sched_yield();
        if (i % 50 == 0 && is_asleep(pid))
            return ASLEEP;
    }
}

/* Lets it run n instructions, or until it sleeps or its call is over. */
static inline enum end step(pid_t pid, uint64_t n)
{
    enum end end = STEPPED;
    for (uint64_t i = 0; i < n && end == STEPPED; i++) {
        bool polls = may_sleep(pid);
        must(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
        end = wait_for_step(pid, polls);
    }
    return end;
}

/* Lets it run, at full speed, to the n-th beginning or end of a system call; false: it is over. */
static inline bool run_to_call(pid_t pid, uint64_t n)
{
    int status = 0;
    for (uint64_t i = 0; i < n; i++) {
        must(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0);
        must(waitpid(pid, &status, 0) == pid);
        if (!WIFSTOPPED(status))
            return false;
    }
    return true;
}

/* Tracer and child take turns, so one CPU does it with half of the work. */
static inline void stay_on_one_cpu(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    sched_setaffinity(0, sizeof set, &set);
}

/* ThreadSanitizer sees nothing of a process that is killed, and its own instructions are a thousand times as many:
 * there it is done only if a stride is asked for. */
static inline void skip_under_tsan(void)
{
#if defined(__SANITIZE_THREAD__)
    if (!getenv("WEIR_KILL_STRIDE"))
        skip();
#endif
}

static inline uint64_t stride(void)
{
    const char *asked = getenv("WEIR_KILL_STRIDE");
    uint64_t n = asked ? strtoull(asked, NULL, 10) : STRIDE;
    return n ? n : 1;
}

#endif
