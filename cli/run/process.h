/* process.h - which process a pid is: with its start time, so that one that has the pid later is not taken for it. */
#ifndef WEIR_CLI_RUN_PROCESS_H
#define WEIR_CLI_RUN_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Nanoseconds since the machine was booted. */
int64_t run_since_boot(void);

/* A name of this boot of the machine; 36 characters, or "". */
void run_boot_id(char to[40]);

/* When a process was started, in nanoseconds since boot (to a hundredth of a second); < 0: it is not there.  A zombie is
 * not. */
int64_t run_process_start(int64_t pid);

/* A zombie has one, too. */
int64_t run_process_parent(int64_t pid);

/* A pidfd of the process with this pid that was started at about that time since boot; -1: it is not there. */
int run_process_open(int64_t pid, int64_t started_ns);

#define RUN_MARK_MAX 96 /* bytes */

/* What tells a job of a run from all others of this machine: which run, item, attempt. */
void run_mark(char to[RUN_MARK_MAX], int64_t pid, int64_t started_ns, uint64_t number,
              uint64_t attempt);

/* The pid of the job that was started with this mark; -1: it is not there. */
int64_t run_process_find(const char *mark);

/* Calls it with the pid of each process; stops when it returns false. */
void run_process_each(bool (*look)(void *ctx, int64_t pid), void *ctx);

typedef struct run_process_end {
    bool is_known; /* the kernel tells (Linux 6.15) */
    int status;    /* as of wait(2) */
} run_process_end;

/* Waits until it has ended. */
run_process_end run_process_wait(int pidfd);

#endif
