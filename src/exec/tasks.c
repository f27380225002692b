/* tasks.c - see tasks.h. */
#include "exec/tasks.h"

#include <string.h>

#include "base/alloc.h"

#define CHUNK 256u

void weir__tasks_init(weir__tasks *tasks)
{
    memset(tasks, 0, sizeof *tasks);
    tasks->free_head = tasks->waiting_head = tasks->waiting_tail = WEIR__NO_TASK;
}

void weir__tasks_fini(weir__tasks *tasks)
{
    for (uint32_t i = 0; i < tasks->n_chunks; i++)
        weir__free(tasks->chunks[i]);
    weir__free(tasks->chunks);
}

static bool add_chunk(weir__tasks *tasks)
{
    if (tasks->n_chunks == WEIR__NO_TASK / CHUNK)
        return false;
    uint32_t n = tasks->n_chunks;
    if ((n & (n - 1)) == 0) { /* the table doubles at powers of two */
        weir__task **chunks =
            weir__realloc(tasks->chunks, (n ? 2 * (size_t)n : 1) * sizeof *chunks);
        if (!chunks)
            return false;
        tasks->chunks = chunks;
    }
    weir__task *chunk = weir__calloc(CHUNK, sizeof *chunk);
    if (!chunk)
        return false;
    tasks->chunks[tasks->n_chunks++] = chunk;
    for (uint32_t i = CHUNK; i-- > 0;) {
        chunk[i].index = n * CHUNK + i;
        chunk[i].generation = 1;
        chunk[i].next = tasks->free_head;
        tasks->free_head = chunk[i].index;
    }
    return true;
}

weir__task *weir__tasks_new(weir__tasks *tasks)
{
    if (tasks->free_head == WEIR__NO_TASK && !add_chunk(tasks))
        return NULL;
    weir__task *task = weir__tasks_at(tasks, tasks->free_head);
    tasks->free_head = task->next;
    task->next = task->prev = WEIR__NO_TASK;
    task->attempts = 0;
    task->batch = NULL;
    task->block.offset = 0;
    task->seq = tasks->next_seq++;
    tasks->live++;
    return task;
}

void weir__tasks_retire(weir__tasks *tasks, weir__task *task)
{
    task->state = TASK_COLLECTED;
    task->generation++;
    tasks->live--;
}

void weir__tasks_free(weir__tasks *tasks, weir__task *task)
{
    task->state = TASK_FREE;
    task->next = tasks->free_head;
    tasks->free_head = task->index;
}

weir__task *weir__tasks_find(const weir__tasks *tasks, uint64_t id)
{
    uint32_t index = (uint32_t)id;
    if (index / CHUNK >= tasks->n_chunks)
        return NULL;
    weir__task *task = weir__tasks_at(tasks, index);
    bool live = task->state == TASK_WAITING || task->state == TASK_DEALT;
    return live && task->generation == (uint32_t)(id >> 32) ? task : NULL;
}

/* Puts a task into the line between two neighbours (WEIR__NO_TASK: an end). */
static void link_between(weir__tasks *tasks, weir__task *task, uint32_t prev, uint32_t next)
{
    task->state = TASK_WAITING;
    task->prev = prev;
    task->next = next;
    if (prev == WEIR__NO_TASK)
        tasks->waiting_head = task->index;
    else
        weir__tasks_at(tasks, prev)->next = task->index;
    if (next == WEIR__NO_TASK)
        tasks->waiting_tail = task->index;
    else
        weir__tasks_at(tasks, next)->prev = task->index;
    tasks->waiting++;
}

void weir__tasks_append(weir__tasks *tasks, weir__task *task)
{
    link_between(tasks, task, tasks->waiting_tail, WEIR__NO_TASK);
}

/* Few tasks were accepted before one that has been dealt, so the walk is short. */
void weir__tasks_put_back(weir__tasks *tasks, weir__task *task)
{
    uint32_t prev = WEIR__NO_TASK, next = tasks->waiting_head;
    while (next != WEIR__NO_TASK && weir__tasks_at(tasks, next)->seq < task->seq) {
        prev = next;
        next = weir__tasks_at(tasks, next)->next;
    }
    link_between(tasks, task, prev, next);
}

void weir__tasks_remove(weir__tasks *tasks, weir__task *task)
{
    if (task->prev == WEIR__NO_TASK)
        tasks->waiting_head = task->next;
    else
        weir__tasks_at(tasks, task->prev)->next = task->next;
    if (task->next == WEIR__NO_TASK)
        tasks->waiting_tail = task->prev;
    else
        weir__tasks_at(tasks, task->next)->prev = task->prev;
    task->next = task->prev = WEIR__NO_TASK;
    tasks->waiting--;
}

weir__task *weir__tasks_first(const weir__tasks *tasks)
{
    return tasks->waiting_head == WEIR__NO_TASK ? NULL : weir__tasks_at(tasks, tasks->waiting_head);
}
