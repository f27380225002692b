/* fifo.c - see fifo.h. */
#include "model/fifo.h"

#include "base/alloc.h"

bool weir__fifo_init(weir__fifo_tail *tail, weir__fifo_head *head)
{
    weir__fifo_block *block = weir__malloc(sizeof(*block));
    if (!block)
        return false;
    block->next = NULL;
    *tail = (weir__fifo_tail){.block = block};
    *head = (weir__fifo_head){.block = block};
    return true;
}

static void free_blocks(weir__fifo_block *block)
{
    for (weir__fifo_block *next; block; block = next) {
        next = block->next;
        weir__free(block);
    }
}

void weir__fifo_fini(weir__fifo_tail *tail, weir__fifo_head *head)
{
    free_blocks(head->block);
    free_blocks(head->spare);
    free_blocks(tail->spare);
    *tail = (weir__fifo_tail){0};
    *head = (weir__fifo_head){0};
}

void weir__fifo_recycle(weir__fifo_tail *tail, weir__fifo_head *head)
{
    if (tail->spare)
        return;
    tail->spare = head->spare;
    head->spare = NULL;
    head->spares = 0;
}

bool weir__fifo_reserve(weir__fifo_tail *tail)
{
    if (!weir__fifo_lacks_block(tail))
        return true;
    tail->spare = weir__malloc(sizeof(*tail->spare));
    if (!tail->spare)
        return false;
    tail->spare->next = NULL;
    return true;
}

bool weir__fifo_extend(weir__fifo_tail *tail)
{
    if (!weir__fifo_reserve(tail))
        return false;
    weir__fifo_block *block = tail->spare;
    tail->spare = block->next;
    block->next = NULL;
    tail->block->next = block;
    tail->block = block;
    tail->end = 0;
    return true;
}

void weir__fifo_advance(weir__fifo_head *head)
{
    weir__fifo_block *block = head->block;
    head->block = block->next;
    head->first = 0;
    if (head->spares == WEIR__FIFO_SPARE) {
        weir__free(block);
        return;
    }
    block->next = head->spare;
    head->spare = block;
    head->spares++;
}

void weir__fifo_cut_off(weir__fifo_tail *tail, weir__fifo_head *head, size_t n,
                        weir__fifo_cut *ret_cut)
{
    weir__fifo_cut cut = {
        .head = {.block = head->block, .first = head->first, .spares = WEIR__FIFO_SPARE},
    };
    weir__fifo_block *last = NULL;
    while (head->block != tail->block && n - cut.count >= WEIR__FIFO_BLOCK - head->first) {
        cut.count += WEIR__FIFO_BLOCK - head->first;
        last = head->block;
        head->block = last->next;
        head->first = 0;
    }
    if (last)
        last->next = NULL;
    else
        cut = (weir__fifo_cut){0};
    *ret_cut = cut;
}

void weir__fifo_cut_fini(weir__fifo_cut *cut)
{
    free_blocks(cut->head.block);
    *cut = (weir__fifo_cut){0};
}

/* The entry after `at`, from block to block. */
static const weir__entry *next(const weir__fifo_block **block, unsigned *at)
{
    if (*at == WEIR__FIFO_BLOCK) {
        *block = (*block)->next;
        *at = 0;
    }
    return &(*block)->entries[(*at)++];
}

size_t weir__fifo_worth(weir__fifo_head *head, size_t count, size_t items, uint64_t cost)
{
    const weir__fifo_block *block = head->block;
    unsigned at = head->first;
    size_t n = 0;
    for (uint64_t sum = 0; n < count && (n < items || sum < cost); n++)
        sum += next(&block, &at)->cost;
    return n;
}

uint64_t weir__fifo_cost(const weir__fifo_cut *cut)
{
    const weir__fifo_block *block = cut->head.block;
    unsigned at = cut->head.first;
    uint64_t sum = 0;
    for (size_t n = 0; n < cut->count; n++)
        sum += next(&block, &at)->cost;
    return sum;
}
