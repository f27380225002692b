/* fifo.c - see fifo.h. */
#include "model/fifo.h"

#include "base/alloc.h"

bool weir__fifo_init(weir__fifo *fifo)
{
    *fifo = (weir__fifo){0};
    weir__fifo_block *block = weir__malloc(sizeof(*block));
    if (!block)
        return false;
    block->next = NULL;
    fifo->head = fifo->tail = block;
    return true;
}

void weir__fifo_fini(weir__fifo *fifo)
{
    for (weir__fifo_block *block = fifo->head, *next; block; block = next) {
        next = block->next;
        weir__free(block);
    }
    weir__free(fifo->spare);
    *fifo = (weir__fifo){0};
}

bool weir__fifo_reserve(weir__fifo *fifo)
{
    if (fifo->end < WEIR__FIFO_BLOCK || fifo->spare)
        return true;
    fifo->spare = weir__malloc(sizeof(*fifo->spare));
    return fifo->spare != NULL;
}

bool weir__fifo_extend(weir__fifo *fifo)
{
    if (!weir__fifo_reserve(fifo))
        return false;
    weir__fifo_block *block = fifo->spare;
    fifo->spare = NULL;
    block->next = NULL;
    fifo->tail->next = block;
    fifo->tail = block;
    fifo->end = 0;
    return true;
}

void weir__fifo_retire(weir__fifo *fifo)
{
    weir__fifo_block *block = fifo->head;
    fifo->head = block->next;
    fifo->first = 0;
    if (fifo->spare)
        weir__free(block);
    else
        fifo->spare = block;
}

void weir__fifo_cut(weir__fifo *fifo, size_t n, weir__fifo *ret_cut)
{
    weir__fifo cut = {.head = fifo->head, .first = fifo->first, .end = WEIR__FIFO_BLOCK};
    while (fifo->head != fifo->tail && n - cut.count >= WEIR__FIFO_BLOCK - fifo->first) {
        cut.count += WEIR__FIFO_BLOCK - fifo->first;
        cut.tail = fifo->head;
        fifo->head = fifo->head->next;
        fifo->first = 0;
    }
    if (cut.count == 0) {
        *ret_cut = (weir__fifo){0};
        return;
    }
    cut.tail->next = NULL;
    fifo->count -= cut.count;
    *ret_cut = cut;
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

size_t weir__fifo_worth(const weir__fifo *fifo, size_t items, uint64_t cost)
{
    const weir__fifo_block *block = fifo->head;
    unsigned at = fifo->first;
    size_t n = 0;
    for (uint64_t sum = 0; n < fifo->count && (n < items || sum < cost); n++)
        sum += next(&block, &at)->cost;
    return n;
}

uint64_t weir__fifo_cost(const weir__fifo *fifo)
{
    const weir__fifo_block *block = fifo->head;
    unsigned at = fifo->first;
    uint64_t sum = 0;
    for (size_t n = 0; n < fifo->count; n++)
        sum += next(&block, &at)->cost;
    return sum;
}
