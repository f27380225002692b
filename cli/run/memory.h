/* memory.h - whether there is memory for another job, and what to do when there is not enough for those that run.
 *
 * A governor (weir_governor) with a reservation for each job: as much as was said, or as those before took at their
 * peak.  While nothing is known a job runs alone.
 *
 * Law:     what was reserved for a job is given back when it has ended.
 * Progress: one job may always run, and one is never suspended.
 */
#ifndef WEIR_CLI_RUN_MEMORY_H
#define WEIR_CLI_RUN_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include <weir/base.h>

typedef struct run_memory run_memory;

#define RUN_MEMORY_EVERY (100 * WEIR_MILLISECOND) /* it is looked at again */

/* limit: as weir_parse_memory reads it; job_bytes 0: is learned.  NULL: *ret_error is a weir_error. */
run_memory *run_memory_open(const char *limit, uint64_t job_bytes, int *ret_error);
void run_memory_close(run_memory *memory); /* NULL is fine */

/* Reserves for a job that would be started while so many run; 0: there is not enough. */
uint64_t run_memory_reserve(run_memory *memory, uint64_t running);
void run_memory_release(run_memory *memory, uint64_t reserved);

/* A job has taken so much at its peak. */
void run_memory_observe(run_memory *memory, uint64_t peak_bytes);

typedef enum run_pressure {
    RUN_PRESSURE_NONE,
    RUN_PRESSURE_SOME, /* nobody is let go on */
    RUN_PRESSURE_HIGH, /* another one is to be suspended */
} run_pressure;

run_pressure run_memory_pressure(run_memory *memory);

/* What is in use now, and may be, in bytes. */
void run_memory_look(run_memory *memory, uint64_t *ret_used, uint64_t *ret_limit);

/* How many processes the kernel has killed for memory since the machine was booted, in this container or not. */
uint64_t run_memory_kills(void);

#endif
