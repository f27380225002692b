/* process.h - which process a pid is: with its start time, so that one that has the pid later is not taken for it. */
#ifndef WEIR_CLI_RUN_PROCESS_H
#define WEIR_CLI_RUN_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

/* Nanoseconds since the machine was booted. */
int64_t run_since_boot(void);

/* A name of this boot of the machine; 36 characters, or "". */
void run_boot_id(char to[40]);

/* When a process was started, in nanoseconds since boot (to a hundredth of a second); < 0: it is not there. */
int64_t run_process_start(int64_t pid);

/* A pidfd of the process with this pid that was started at about that time since boot; -1: it is not there. */
int run_process_open(int64_t pid, int64_t started_ns);

typedef struct run_process_end {
    bool is_known; /* the kernel tells (Linux 6.15) */
    int status;    /* as of wait(2) */
} run_process_end;

/* Waits until it has ended. */
run_process_end run_process_wait(int pidfd);

#endif
