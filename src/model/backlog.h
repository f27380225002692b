/* backlog.h - how large the backlog of a pool should be, found by trying: the smallest with which no
 * worker runs dry while somebody waits for room.
 *
 * It begins with twice the workers, which is right for tasks that take long.  When a worker has
 * nothing to do although producers were held back, the backlog was too small to bridge the time that
 * they take to come back, and is doubled: up to 20 ms of work for each worker, or 64 MiB of payloads.
 * What is not needed goes again, slowly.
 */
#ifndef WEIR_MODEL_BACKLOG_H
#define WEIR_MODEL_BACKLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Why it is as large as it is. */
typedef enum weir__backlog_reason {
    WEIR__BACKLOG_TWICE_THE_WORKERS = 0,
    WEIR__BACKLOG_WORKERS_RAN_DRY,
    WEIR__BACKLOG_ENOUGH_WORK,
    WEIR__BACKLOG_ENOUGH_BYTES,
    WEIR__BACKLOG_NOT_NEEDED,
} weir__backlog_reason;

typedef struct weir__backlog {
    size_t now, least;
    unsigned workers;
    uint64_t starved;     /* how often a worker ran dry */
    uint64_t tried_since; /* completions so far when `now` was set last */
    int64_t needed_at;    /* when a worker ran dry last, or the backlog shrank; nanoseconds */
    weir__backlog_reason reason;
} weir__backlog;

void weir__backlog_init(weir__backlog *backlog, unsigned workers, int64_t now_ns);

/* A worker ran dry although producers were held back.  service_ns: of a task; 0: not known;
 * bytes: of a payload; completed: tasks so far. */
void weir__backlog_starved(weir__backlog *backlog, int64_t service_ns, uint64_t bytes,
                           uint64_t completed, int64_t now_ns);

/* Now and then: shrinks what has not been needed for long, or became too much. */
void weir__backlog_review(weir__backlog *backlog, int64_t service_ns, uint64_t bytes,
                          uint64_t completed, int64_t now_ns);

/* The reason in words; static storage. */
const char *weir__backlog_why(const weir__backlog *backlog);

#endif
