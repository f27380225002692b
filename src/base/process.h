/* process.h - other processes and the kernel's account of them. */
#ifndef WEIR_BASE_PROCESS_H
#define WEIR_BASE_PROCESS_H

#include <sys/types.h>

#include <weir/base.h>

/* CPUs the calling thread may run on, >= 1. */
unsigned weir__cpu_count(void);

/* The same for its main thread: what the others may use as long as nobody pins them. */
unsigned weir__main_thread_cpu_count(void);

/* A descriptor that polls readable when the process has ended; < 0: -errno. */
int weir__pidfd_open(pid_t pid);

/* Kills by descriptor, so a reused pid is never hit. */
void weir__pidfd_kill(int pidfd, int signal);

/* Of an ended child that is not reaped yet: its peak resident set in bytes, and its exit status or
 * the signal that ended it.  0, and they are left as they were: not our child, or reaped. */
uint64_t weir__look_at_zombie(int pidfd, int *ret_code, int *ret_signal);

/* Reaps an ended child: *ret_code is its exit status or -1, *ret_signal what ended it or 0. */
void weir__reap(pid_t pid, int *ret_code, int *ret_signal);

#endif
