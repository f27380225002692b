/* fifo.h - the items of a queue, oldest first, in a chain of small blocks.
 *
 * A chain rather than one array, because then growing copies nothing, memory follows the depth
 * down again by itself, and any number of the oldest can leave at once without an allocation:
 * whole blocks change hands.
 *
 * Two ends that share nothing but the blocks between them: one thread may push while another one
 * pops, as long as it pops nothing before it has seen that it was pushed.  How many entries are
 * inside is the owner's to know.  What needs both ends says so.
 *
 * Invariant:  there is always at least one block.  Reset, an empty fifo takes a block's worth of
 *             items without an allocation.
 * No lock, no clock: the owner has both.
 */
#ifndef WEIR_MODEL_FIFO_H
#define WEIR_MODEL_FIFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEIR__FIFO_BLOCK 32 /* entries per block */
#define WEIR__FIFO_SPARE 32 /* emptied blocks that are kept, at most */

typedef struct weir__entry {
    void *item;
    uint64_t cost;
    union {
        int64_t since;      /* when it came, in the owner's time; 0 where nobody asks */
        void (*fn)(void *); /* of a task, where the items are tasks: item is its argument */
    };
} weir__entry;

typedef struct weir__fifo_block {
    struct weir__fifo_block *next;
    weir__entry entries[WEIR__FIFO_BLOCK];
} weir__fifo_block;

/* Where entries go in. */
typedef struct weir__fifo_tail {
    weir__fifo_block *block;
    weir__fifo_block *spare; /* empty ones for the next pushes; or NULL */
    unsigned end;            /* one past the newest entry */
} weir__fifo_tail;

/* Where they come out. */
typedef struct weir__fifo_head {
    weir__fifo_block *block; /* every block before the tail's is full to its end */
    weir__fifo_block *spare; /* those that emptied */
    unsigned spares;
    unsigned first; /* the oldest entry */
} weir__fifo_head;

/* Both ends.  false: no memory. */
bool weir__fifo_init(weir__fifo_tail *tail, weir__fifo_head *head);

/* Both ends: frees the blocks; what is inside is the caller's to have taken out. */
void weir__fifo_fini(weir__fifo_tail *tail, weir__fifo_head *head);

/* Both ends of an empty fifo: begins its block again. */
static inline void weir__fifo_reset(weir__fifo_tail *tail, weir__fifo_head *head);

/* Both ends: blocks that emptied become blocks to fill. */
void weir__fifo_recycle(weir__fifo_tail *tail, weir__fifo_head *head);

/* Whether the next push needs a new block and there is none. */
static inline bool weir__fifo_lacks_block(const weir__fifo_tail *tail);

/* Makes the next push certain.  false: no memory, nothing changed. */
bool weir__fifo_reserve(weir__fifo_tail *tail);

/* Adds the newest.  false: no memory, nothing changed. */
static inline bool weir__fifo_push(weir__fifo_tail *tail, weir__entry entry);

/* The oldest; there must be one. */
static inline const weir__entry *weir__fifo_peek(weir__fifo_head *head);

/* Takes the oldest out; there must be one. */
static inline weir__entry weir__fifo_pop(weir__fifo_head *head);

/* Entries that left together: popped from its head, then ended. */
typedef struct weir__fifo_cut {
    weir__fifo_head head;
    size_t count;
} weir__fifo_cut;

/* Both ends: moves whole blocks with at most n of the oldest entries to *ret_cut.  Up to a block's
 * worth may be missing to n: pop those. */
void weir__fifo_cut_off(weir__fifo_tail *tail, weir__fifo_head *head, size_t n,
                        weir__fifo_cut *ret_cut);
void weir__fifo_cut_fini(weir__fifo_cut *cut);

/* How many of the `count` inside have to leave, from the oldest, for `items` and `cost` in total to
 * have left; count when all together are worth less. */
size_t weir__fifo_worth(weir__fifo_head *head, size_t count, size_t items, uint64_t cost);

/* The sum of the costs of what was cut off. */
uint64_t weir__fifo_cost(const weir__fifo_cut *cut);

/* ---- the short ones, inline because every put and get runs through them ------------------- */

/* Adds an empty block at the tail.  false: no memory. */
bool weir__fifo_extend(weir__fifo_tail *tail);

/* Goes on to the next block; there must be one. */
void weir__fifo_advance(weir__fifo_head *head);

static inline void weir__fifo_reset(weir__fifo_tail *tail, weir__fifo_head *head)
{
    tail->end = head->first = 0;
}

static inline bool weir__fifo_lacks_block(const weir__fifo_tail *tail)
{
    return tail->end == WEIR__FIFO_BLOCK && !tail->spare;
}

static inline bool weir__fifo_push(weir__fifo_tail *tail, weir__entry entry)
{
    if (tail->end == WEIR__FIFO_BLOCK && !weir__fifo_extend(tail))
        return false;
    weir__entry *newest = &tail->block->entries[tail->end++];
    newest->item = entry.item;
    newest->cost = entry.cost;
    newest->since = entry.since;
    return true;
}

static inline const weir__entry *weir__fifo_peek(weir__fifo_head *head)
{
    if (head->first == WEIR__FIFO_BLOCK)
        weir__fifo_advance(head);
    return &head->block->entries[head->first];
}

static inline weir__entry weir__fifo_pop(weir__fifo_head *head)
{
    weir__entry entry = *weir__fifo_peek(head);
    head->first++;
    return entry;
}

#endif
