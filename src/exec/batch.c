/* batch.c - see batch.h. */
#include "exec/batch.h"

#include "base/alloc.h"

bool weir__batch_begin(weir__task *task, uint32_t items)
{
    weir__batch *batch = weir__malloc(sizeof *batch);
    if (!batch)
        return false;
    *batch = (weir__batch){.parts = 1, .block = task->block};
    task->batch = batch;
    task->first = 0;
    task->limit = items;
    return true;
}

void weir__batch_join(weir__task *part, const weir__task *of, uint32_t first, uint32_t limit)
{
    part->batch = of->batch;
    part->batch->parts++;
    part->first = first;
    part->limit = limit;
    part->tag = of->tag;
    part->seq = of->seq; /* it was accepted with the batch */
    part->in_size = of->in_size;
    part->block = of->block;
    if (of->block.offset == 0)
        weir__copy_parts(part->in, &(weir_bytes){of->in, of->in_size}, 1);
}

bool weir__batch_leave(weir__task *task, weir__block *ret_block)
{
    weir__batch *batch = task->batch;
    task->batch = NULL;
    task->block.offset = 0;
    ret_block->offset = 0;
    if (--batch->parts > 0)
        return false;
    *ret_block = batch->block;
    weir__free(batch);
    return true;
}

bool weir__batch_progress(const weir__slot *slot, const weir__task *task, weir__progress *ret)
{
    /* acquire: pairs with the release of count_item in worker.c; the replies are visible */
    uint64_t filled = atomic_load_explicit(&slot->filled, memory_order_acquire);
    /* relaxed: read when the worker can claim no more */
    uint64_t next = (uint32_t)atomic_load_explicit(&slot->span, memory_order_relaxed);
    uint64_t replied_to = task->first + (filled & UINT32_MAX);
    *ret = (weir__progress){.replied = (uint32_t)filled,
                            .bytes = (uint32_t)(filled >> 32),
                            .runs_another = next == replied_to + 1};
    return replied_to <= task->limit && next >= replied_to && next <= replied_to + 1 &&
           next <= task->limit;
}

uint32_t weir__batch_remaining(const weir__slot *slot)
{
    uint64_t span = atomic_load_explicit(&slot->span, memory_order_relaxed);
    uint32_t next = (uint32_t)span, limit = (uint32_t)(span >> 32);
    return next < limit ? limit - next : 0;
}

uint32_t weir__batch_cut(weir__slot *slot, weir__task *task, uint32_t keep)
{
    /* relaxed: nothing is published; the exchange decides against a claim */
    uint64_t span = atomic_load_explicit(&slot->span, memory_order_relaxed);
    for (;;) {
        uint32_t next = (uint32_t)span, limit = (uint32_t)(span >> 32);
        if (limit != task->limit || next > limit || limit - next <= keep)
            return 0; /* the first two: the worker has written nonsense */
        if (atomic_compare_exchange_weak_explicit(&slot->span, &span, weir__pair(next, next + keep),
                                                  memory_order_relaxed, memory_order_relaxed)) {
            task->limit = next + keep;
            return limit - task->limit;
        }
    }
}
