/* signals.c - see signals.h. */
#include "signals.h"

#include <stddef.h>
#include <unistd.h>

static bool is_ignored(int signal)
{
    struct sigaction was;
    return sigaction(signal, NULL, &was) == 0 && was.sa_handler == SIG_IGN;
}

void run_signals_want(sigset_t *set, int signal)
{
    if (!is_ignored(signal))
        sigaddset(set, signal);
}

bool run_signals_ignore_keyboard(void)
{
    return is_ignored(SIGINT);
}

void run_signals_stop(void)
{
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTSTP);
    kill(getpid(), SIGTSTP);
    sigprocmask(SIG_UNBLOCK, &stop, NULL); /* it stops here */
    sigprocmask(SIG_BLOCK, &stop, NULL);
}
