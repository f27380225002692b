/* batch.h - a task of many items, as the parent sees it: how far its worker came, and what can be
 * taken back.  The protocol is in channel.h.
 *
 * A batch consists of parts, each of them a task with a range of the items.  There is one at first;
 * another one when an idle worker takes over what a busy one has not begun.
 */
#ifndef WEIR_EXEC_BATCH_H
#define WEIR_EXEC_BATCH_H

#include "exec/tasks.h"

/* Makes the task the only part of a new batch, which takes over its block.  False: no memory. */
bool weir__batch_begin(weir__task *task, uint32_t items);

/* Makes `part` a further part: the items [first, limit), which are nobody's. */
void weir__batch_join(weir__task *part, const weir__task *of, uint32_t first, uint32_t limit);

/* The task is no part any more; what is to be freed (offset 0: nothing), when it is the last of its
 * batch, which is gone then. */
bool weir__batch_leave(weir__task *task, weir__block *ret_block);

/* What a worker has done of its part, as far as the parent believes it. */
typedef struct weir__progress {
    uint32_t replied;  /* items with a reply, from task->first on */
    uint32_t bytes;    /* of the replies */
    bool runs_another; /* and it has begun the next one */
} weir__progress;

/* False: what the slot says is impossible. */
bool weir__batch_progress(const weir__slot *slot, const weir__task *task, weir__progress *ret);

/* How many items of a running part have not begun; a hint. */
uint32_t weir__batch_remaining(const weir__slot *slot);

/* Takes items back that have not begun, all but `keep` of them; the task's limit is lower by as many.
 * Returns how many: the items [task->limit, task->limit + n). */
uint32_t weir__batch_cut(weir__slot *slot, weir__task *task, uint32_t keep);

#endif
