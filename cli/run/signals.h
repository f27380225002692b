/* signals.h - what both processes of a run (guard.h) hold about signals. */
#ifndef WEIR_CLI_RUN_SIGNALS_H
#define WEIR_CLI_RUN_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

/* Adds it, unless it was ignored when we began.  What is ignored stays so, as everywhere: nohup ignores SIGHUP, and a
 * script SIGINT for what it has started in the background, which the Ctrl-C of somebody else's is not meant for. */
void run_signals_want(sigset_t *set, int signal);

/* Stops this process as SIGTSTP does, which is blocked; returns when it goes on.  At once, where nobody could let it
 * go on (its group is orphaned). */
void run_signals_stop(void);

#endif
