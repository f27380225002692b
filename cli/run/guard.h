/* guard.h - a run with a ledger is two processes: one that people see and may kill, one that runs the jobs.
 *
 * A job's exit status is told to its parent and to nobody else.  If the parent is killed, it is lost, and whether the
 * job has done its work nobody can say.  So the parent is a process that nobody knows of: when the one in front is
 * killed it starts nothing new, waits for what runs, writes the ends down, and goes.
 */
#ifndef WEIR_CLI_RUN_GUARD_H
#define WEIR_CLI_RUN_GUARD_H

#include <signal.h>

#define RUN_ORPHANED SIGUSR2 /* what the process behind gets when the one in front is gone */

/* Returns -1 in the process behind.  In the one in front: when that has ended, its status. */
int run_guard(void);

#endif
