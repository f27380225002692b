/* guard.c - the process in front; see guard.h. */
#include "guard.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "signals.h"

static const int passed_on[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGTSTP};

#define PASSED_ON (sizeof passed_on / sizeof *passed_on)

/* Takes away what has ended.  Those but the one behind are what jobs have left behind: they were given to us.  When the
 * one behind has ended, all its jobs are ours at the same moment, so no more is taken. */
static bool has_ended(pid_t behind, int *ret_status)
{
    siginfo_t ended = {0};
    while (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid != 0) {
        if (waitpid(behind, ret_status, WNOHANG) == behind)
            return true;
        waitpid(ended.si_pid, NULL, 0);
        ended.si_pid = 0;
    }
    return false;
}

/* Whether the one behind is to be told: where both are one group the terminal has told both. */
static bool is_passed_on(int signal, const siginfo_t *got, bool is_apart)
{
    bool is_typed = got->si_code == SI_KERNEL;
    if (signal <= 0 || signal == SIGCHLD || (is_typed && !is_apart))
        return false;
    return signal != SIGINT || !is_typed || !run_signals_ignore_keyboard();
}

/* Returns how the one behind has ended. */
static int watch(pid_t behind, const sigset_t *ours, bool is_apart)
{
    for (int status;;) {
        siginfo_t got;
        int signal = sigwaitinfo(ours, &got);
        if (signal == SIGCHLD && has_ended(behind, &status))
            return status;
        if (is_passed_on(signal, &got, is_apart))
            kill(behind, signal);
        if (signal == SIGTSTP) { /* Ctrl-Z: here until somebody lets us go on */
            run_signals_stop();
            kill(behind, SIGCONT);
        }
    }
}

static int status_of(const run_settings *settings, const sigset_t *ours, pid_t group, int status)
{
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    int by = WTERMSIG(status);
    if (by != SIGINT && by != SIGQUIT && by != SIGTERM &&
        by != SIGHUP) /* or it was ended before there was a job */
        run_inherit(settings, ours, group, by);
    return 128 + by;
}

static void go_behind(pid_t front, const sigset_t *before, bool is_apart)
{
    sigset_t mask = *before;
    sigaddset(&mask, RUN_ORPHANED);
    sigaddset(&mask, SIGTTOU); /* then we may write to the terminal all the same */
    sigprocmask(SIG_SETMASK, &mask, NULL);
    if (is_apart)
        setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, RUN_ORPHANED);
    if (getppid() != front) /* before it could be told */
        raise(RUN_ORPHANED);
}

int run_guard(const run_settings *settings, pid_t *ret_front)
{
    sigset_t ours, before;
    pid_t front = getpid();
    const run_input_opts *input = &settings->input;
    bool is_typed =
        !input->items && (!input->path || strcmp(input->path, "-") == 0) && isatty(STDIN_FILENO);
    sigemptyset(&ours);
    sigaddset(&ours, SIGCHLD);
    for (size_t i = 0; i < PASSED_ON; i++)
        run_signals_want(&ours, passed_on[i]);
    sigaddset(&ours, SIGINT);
    sigprocmask(SIG_BLOCK, &ours, &before);
    signal(SIGCHLD, SIG_DFL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t behind = fork();
    if (behind > 0)
        return status_of(settings, &ours, is_typed ? getpgrp() : behind,
                         watch(behind, &ours, !is_typed));
    *ret_front = behind == 0 ? front : 0;
    if (behind == 0)
        go_behind(front, &before, !is_typed);
    else
        sigprocmask(SIG_SETMASK, &before,
                    NULL); /* one process then, which had better not be killed */
    return -1;
}
