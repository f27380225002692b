/* signals.h - what both processes of a run (guard.h) hold about signals. */
#ifndef WEIR_CLI_RUN_SIGNALS_H
#define WEIR_CLI_RUN_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

/* Adds it, unless it was ignored when we began.  What is ignored stays so, as everywhere: nohup ignores SIGHUP. */
void run_signals_want(sigset_t *set, int signal);

/* Whether SIGINT was ignored when we began: a script does that for what it has started in the background, which a
 * Ctrl-C is not meant for.  What is sent to us by kill(2) is. */
bool run_signals_ignore_keyboard(void);

/* Stops this process as SIGTSTP does, which is blocked; returns when it goes on.  At once, where nobody could let it
 * go on (its group is orphaned). */
void run_signals_stop(void);

#endif
