/* tasks.h - a pool's tasks in the parent's memory, and the line of those that no worker has yet.
 *
 * A task is named by its index while the pool's mutex is held, and by an id (index and generation)
 * outside: an id of a task that is gone never finds another.  Not thread-safe.
 */
#ifndef WEIR_EXEC_TASKS_H
#define WEIR_EXEC_TASKS_H

#include "exec/arena.h"

#define WEIR__NO_TASK UINT32_MAX

enum weir__task_state { TASK_FREE = 0, TASK_WAITING, TASK_DEALT, TASK_COLLECTED };

/* What the parts of a batch have in common. */
typedef struct weir__batch {
    unsigned parts;    /* tasks that are parts of it */
    weir__block block; /* the payload, if it is larger than a slot's */
} weir__batch;

typedef struct weir__task {
    enum weir__task_state state;
    uint32_t index, generation;
    uint32_t next, prev; /* in the line of the waiting, or the free list (next) */
    unsigned seat;       /* DEALT */
    unsigned attempts;   /* workers that died running it */
    uint64_t position;   /* DEALT: in the seat's ring */
    uint64_t seq;        /* order of acceptance */
    void *tag;
    uint64_t in_size;
    uint64_t kind;                    /* of the caller's: tasks of one take about as much memory */
    weir__batch *batch;               /* NULL: not a part of one */
    uint32_t first, limit;            /* its items of the batch */
    weir__block block;                /* payload larger than a slot's; offset 0: in `in`; of a
                                         part: not its own */
    unsigned char in[WEIR__IN_BYTES]; /* else the payload */
} weir__task;

typedef struct weir__tasks {
    weir__task **chunks;
    uint32_t n_chunks;
    uint32_t free_head;
    uint32_t waiting_head, waiting_tail;
    size_t waiting; /* in line */
    size_t live;    /* waiting or dealt */
    uint64_t next_seq;
} weir__tasks;

void weir__tasks_init(weir__tasks *tasks);
void weir__tasks_fini(weir__tasks *tasks);

/* A fresh task, not in line; NULL: no memory. */
weir__task *weir__tasks_new(weir__tasks *tasks);

/* The task is settled: it no longer counts as live, and its id finds nothing; its memory stays
 * until weir__tasks_free. */
void weir__tasks_retire(weir__tasks *tasks, weir__task *task);
void weir__tasks_free(weir__tasks *tasks, weir__task *task);

static inline weir__task *weir__tasks_at(const weir__tasks *tasks, uint32_t index)
{
    return &tasks->chunks[index / 256][index % 256];
}

static inline uint64_t weir__task_id(const weir__task *task)
{
    return (uint64_t)task->generation << 32 | task->index;
}

/* The live task with this id; NULL: gone. */
weir__task *weir__tasks_find(const weir__tasks *tasks, uint64_t id);

/* The line: in order of acceptance; a task that comes back from a worker goes to the front. */
void weir__tasks_append(weir__tasks *tasks, weir__task *task);
void weir__tasks_put_back(weir__tasks *tasks, weir__task *task);
void weir__tasks_remove(weir__tasks *tasks, weir__task *task);
weir__task *weir__tasks_first(const weir__tasks *tasks); /* NULL: none waits */

#endif
