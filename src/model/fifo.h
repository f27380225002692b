/* fifo.h - the items of a queue, oldest first, in a chain of small blocks.
 *
 * A chain rather than one array, because then growing copies nothing, memory follows the depth
 * down again by itself, and any number of the oldest can leave at once without an allocation:
 * whole blocks change hands.
 *
 * Invariant:  there is always at least one block, so an empty fifo takes a block's worth of items
 *             without an allocation.
 * No lock, no clock: the owner has both.
 */
#ifndef WEIR_MODEL_FIFO_H
#define WEIR_MODEL_FIFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEIR__FIFO_BLOCK 32 /* entries per block */

typedef struct weir__entry {
    void *item;
    uint64_t cost;
    int64_t since; /* when it came, in the owner's time; 0 where nobody asks */
} weir__entry;

typedef struct weir__fifo_block {
    struct weir__fifo_block *next;
    weir__entry entries[WEIR__FIFO_BLOCK];
} weir__fifo_block;

typedef struct weir__fifo {
    weir__fifo_block *head, *tail; /* oldest, newest; every block between is full */
    weir__fifo_block *spare;       /* one that emptied, kept for the next push; or NULL */
    size_t count;
    unsigned first; /* of head: the oldest entry; 0 when empty */
    unsigned end;   /* of tail: one past the newest entry */
} weir__fifo;

/* false: no memory. */
bool weir__fifo_init(weir__fifo *fifo);

/* Frees the blocks; what is inside is the caller's to have taken out. */
void weir__fifo_fini(weir__fifo *fifo);

/* Makes the next push certain.  false: no memory, nothing changed. */
bool weir__fifo_reserve(weir__fifo *fifo);

/* Adds the newest.  false: no memory, nothing changed. */
static inline bool weir__fifo_push(weir__fifo *fifo, weir__entry entry);

/* The oldest; there must be one. */
static inline const weir__entry *weir__fifo_peek(const weir__fifo *fifo);

/* Takes the oldest out; there must be one. */
static inline weir__entry weir__fifo_pop(weir__fifo *fifo);

/* Moves whole blocks with at most n entries, the oldest, to *ret_cut, a fifo of its own that can
 * only be popped and ended.  Up to a block's worth may be missing to n: pop those. */
void weir__fifo_cut(weir__fifo *fifo, size_t n, weir__fifo *ret_cut);

/* How many of the oldest have to leave for `items` and `cost` in total to have left; count when
 * all together are worth less. */
size_t weir__fifo_worth(const weir__fifo *fifo, size_t items, uint64_t cost);

/* The sum of the costs. */
uint64_t weir__fifo_cost(const weir__fifo *fifo);

/* ---- the short ones, inline because every put and get runs through them ------------------- */

/* Adds an empty block at the tail.  false: no memory. */
bool weir__fifo_extend(weir__fifo *fifo);

/* Takes the emptied head block out of a chain of several. */
void weir__fifo_retire(weir__fifo *fifo);

static inline bool weir__fifo_push(weir__fifo *fifo, weir__entry entry)
{
    if (fifo->end == WEIR__FIFO_BLOCK && !weir__fifo_extend(fifo))
        return false;
    fifo->tail->entries[fifo->end++] = entry;
    fifo->count++;
    return true;
}

static inline const weir__entry *weir__fifo_peek(const weir__fifo *fifo)
{
    return &fifo->head->entries[fifo->first];
}

static inline weir__entry weir__fifo_pop(weir__fifo *fifo)
{
    weir__entry entry = fifo->head->entries[fifo->first++];
    if (--fifo->count == 0)
        fifo->first = fifo->end = 0; /* stay on the lines that are warm */
    else if (fifo->first == WEIR__FIFO_BLOCK)
        weir__fifo_retire(fifo);
    return entry;
}

#endif
