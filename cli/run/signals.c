/* signals.c - see signals.h. */
#include "signals.h"

#include <stddef.h>
#include <unistd.h>

void run_signals_want(sigset_t *set, int signal)
{
    struct sigaction was;
    if (sigaction(signal, NULL, &was) < 0 || was.sa_handler != SIG_IGN)
        sigaddset(set, signal);
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
