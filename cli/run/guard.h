/* guard.h - a run that must not be lost is two processes: one that people see and may kill, one that runs the jobs.
 *
 * A job's exit status is told to its parent and to nobody else, and a job that was suspended goes on when its parent
 * says so.  So if one of the two is killed, the other one does what is still to be done:
 *
 * In front:  killed, the one behind starts nothing new, waits for what runs, writes the ends down, and goes.
 * Behind:    killed, its jobs become children of the one in front (PR_SET_CHILD_SUBREAPER), also those whose end it
 *            has seen and not written down (local.c); the one in front lets them go on, and writes their ends down.
 *
 * The one behind has a process group of its own, so that who kills the group kills one of them; the signals of the
 * terminal come to the one in front, which passes them on.  Only where the list is typed in are they one group, for
 * none but the group in front may read from a terminal.
 */
#ifndef WEIR_CLI_RUN_GUARD_H
#define WEIR_CLI_RUN_GUARD_H

#include "settings.h"

#include <signal.h>
#include <sys/types.h>

#define RUN_ORPHANED SIGUSR2 /* what the process behind gets when the one in front is gone */

/* Returns -1 in the process behind, and *ret_front is the one in front; 0: there could not be two.
 * In the one in front: when that has ended, its status. */
int run_guard(const run_settings *settings, pid_t *ret_front);

/* heir.c: in front, when the one behind, of this group, was killed by a signal; returns when all its jobs have ended. */
void run_inherit(const run_settings *settings, const sigset_t *ours, pid_t group, int signal);

#endif
