/* guard.c - the process in front; see guard.h. */
#include "guard.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "signals.h"

static const int passed_on[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGTSTP};

#define PASSED_ON (sizeof passed_on / sizeof *passed_on)

static int status_of(int status)
{
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    int by = WTERMSIG(status);
    if (by == SIGINT || by == SIGTERM || by == SIGHUP)
        return 128 + by; /* before there was a job */
    complain("run",
             "the process that runs the jobs was killed by SIG%s; they go on, and "
             "--resume goes on with the list",
             sigabbrev_np(by));
    return 128 + by;
}

/* Signals of the terminal come to both; what was sent to us alone is passed on. */
static int watch(pid_t behind, const sigset_t *ours)
{
    for (;;) {
        siginfo_t got;
        int signal = sigwaitinfo(ours, &got), status;
        if (signal == SIGCHLD && waitpid(behind, &status, WNOHANG) == behind)
            return status_of(status);
        if (signal > 0 && signal != SIGCHLD && got.si_code <= 0)
            kill(behind, signal);
        if (signal == SIGTSTP) {
            run_signals_stop();
            kill(behind, SIGCONT);
        }
    }
}

int run_guard(void)
{
    sigset_t ours, before;
    pid_t front = getpid();
    sigemptyset(&ours);
    sigaddset(&ours, SIGCHLD);
    for (size_t i = 0; i < PASSED_ON; i++)
        run_signals_want(&ours, passed_on[i]);
    sigaddset(&ours, SIGINT);
    sigprocmask(SIG_BLOCK, &ours, &before);
    signal(SIGCHLD, SIG_DFL);
    pid_t behind = fork();
    if (behind < 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        return -1; /* one process then, which had better not be killed */
    }
    if (behind > 0)
        return watch(behind, &ours);
    sigaddset(&before, RUN_ORPHANED);
    sigprocmask(SIG_SETMASK, &before, NULL);
    prctl(PR_SET_PDEATHSIG, RUN_ORPHANED);
    if (getppid() != front) /* before it could be told */
        raise(RUN_ORPHANED);
    return -1;
}
