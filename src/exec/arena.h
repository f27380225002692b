/* arena.h - blocks of the shared file for payloads that do not fit into a slot.
 *
 * Only the parent allocates, and all that it knows about blocks is in its own memory: a worker
 * that dies, or goes mad, cannot damage it.  Small blocks (up to SMALL_MAX) come in power-of-two
 * sizes cut from shared units; large ones have units of their own, whose memory goes back to the
 * system when they are freed.  A little is kept for the next, and more for two seconds, mapped as it
 * is: memory fresh from the system costs several times a copy.
 *
 * A large block may be had unfilled: its size counts as taken and the file is long enough, but
 * memory is there for its first `filled` bytes only.  Who writes the rest does so with
 * weir__memfd_write, which needs no clearing before and where running out is an error.
 *
 * Thread-safe; system calls for large blocks are made outside the mutex.
 */
#ifndef WEIR_EXEC_ARENA_H
#define WEIR_EXEC_ARENA_H

#include "base/mutex.h"
#include "exec/channel.h"

#define WEIR__ARENA_CLASSES 10 /* 512 B ... 256 KiB */

typedef struct weir__block {
    uint64_t offset; /* in the file; 0: no block */
    uint64_t size;   /* of the block, >= what was asked for */
    uint64_t filled; /* bytes, from its start, that have memory; less than size: see above */
    void *at;        /* the parent's mapping */
    void *record;    /* the arena's own */
} weir__block;

struct weir__arena_record;
struct weir__arena_unit;
struct weir__arena_range;

/* Blocks that somebody holds, by offset; needs no memory of its own.  Not thread-safe. */
typedef struct weir__holdings {
    struct weir__arena_record *first;
} weir__holdings;

typedef struct weir__arena {
    weir__channel *channel;
    weir__mutex mutex;       /* protects all below */
    uint64_t end;            /* file offset of the first unit never used */
    uint64_t reserved_bytes; /* memory taken from the system now */
    uint64_t kept_bytes;     /* of free large ranges, still populated */
    bool keeps_nothing;      /* from now on */
    struct {
        struct weir__arena_record *free_list;
        uint64_t next, stop; /* what is left of the unit being cut */
        void *next_at;
        struct weir__arena_record *next_record;
    } classes[WEIR__ARENA_CLASSES];
    struct weir__arena_unit *units;         /* mapped units cut into small blocks */
    struct weir__arena_range *ranges;       /* all large ranges */
    struct weir__arena_record *free_ranges; /* those not in use */
} weir__arena;

void weir__arena_init(weir__arena *arena, weir__channel *channel);
void weir__arena_fini(weir__arena *arena);

/* WEIR_ENOMEM, WEIR_ENOSHM. */
int weir__arena_alloc(weir__arena *arena, uint64_t size, weir__block *ret_block);

/* The same, and a large block may be unfilled. */
int weir__arena_alloc_unfilled(weir__arena *arena, uint64_t size, weir__block *ret_block);

/* Makes the bytes of `parts` in order the beginning of a block.  WEIR_ENOSHM: free the block. */
int weir__arena_write(weir__arena *arena, weir__block *block, const weir_bytes *parts,
                      size_t n_parts);

/* Gives back what was kept for two seconds.  Returns when to come again; WEIR_FOREVER: when something
 * has been freed. */
weir_time weir__arena_trim(weir__arena *arena, weir_time now);

/* Nothing will be allocated any more: gives back all that is kept, now and later. */
void weir__arena_keep_nothing(weir__arena *arena);

/* Memory taken from the system now. */
uint64_t weir__arena_reserved(weir__arena *arena);

/* Takes a block back; never fails.  A block with offset 0 is ignored. */
void weir__arena_free(weir__arena *arena, weir__block *block);

/* Makes the parent's mapping of a block private to this process, and shared again.  Where the latter
 * fails the block must not be used again: false. */
void weir__arena_unshare(weir__arena *arena, const weir__block *block);
bool weir__arena_reshare(weir__arena *arena, const weir__block *block);

/* Puts a block among those held, and takes it out again; false: it is not there. */
void weir__arena_hold(weir__holdings *holdings, weir__block *block);
bool weir__arena_unhold(weir__holdings *holdings, uint64_t offset, weir__block *ret_block);

/* Takes back every block that is held. */
void weir__arena_free_held(weir__arena *arena, weir__holdings *holdings);

#endif
