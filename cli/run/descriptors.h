/* descriptors.h - as many open files as we may have, and for jobs as many as we were given.
 *
 * A run has some for each job.  The soft limit is 1,024 nearly everywhere, for programs that use select(2): a run
 * does not, its jobs may.
 */
#ifndef WEIR_CLI_RUN_DESCRIPTORS_H
#define WEIR_CLI_RUN_DESCRIPTORS_H

/* Raises the soft limit of this process to the hard one. */
void run_descriptors_raise(void);

/* Around the start of a job: it gets the limit that there is meanwhile. */
void run_descriptors_lower(void);

#endif
