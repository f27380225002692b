/* arena.h - blocks of the shared file for payloads that do not fit into a slot.
 *
 * Only the parent allocates, and all that it knows about blocks is in its own memory: a worker
 * that dies, or goes mad, cannot damage it.  Small blocks (up to SMALL_MAX) come in power-of-two
 * sizes cut from shared units; large ones have units of their own, whose memory goes back to the
 * system when they are freed (a little is kept for the next).
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
    void *at;        /* the parent's mapping */
    void *record;    /* the arena's own */
} weir__block;

struct weir__arena_unit;
struct weir__arena_range;

typedef struct weir__arena {
    weir__channel *channel;
    weir__mutex mutex;       /* protects all below */
    uint64_t end;            /* file offset of the first unit never used */
    uint64_t reserved_bytes; /* memory taken from the system now */
    uint64_t kept_bytes;     /* of free large ranges, still populated */
    struct {
        void *free_list;     /* of struct free_block */
        uint64_t next, stop; /* what is left of the unit being cut */
        void *next_at;
        void *next_record;
    } classes[WEIR__ARENA_CLASSES];
    struct weir__arena_unit *units;        /* mapped units cut into small blocks */
    struct weir__arena_range *ranges;      /* all large ranges */
    struct weir__arena_range *free_ranges; /* those not in use */
} weir__arena;

void weir__arena_init(weir__arena *arena, weir__channel *channel);
void weir__arena_fini(weir__arena *arena);

/* WEIR_ENOMEM, WEIR_ENOSHM. */
int weir__arena_alloc(weir__arena *arena, uint64_t size, weir__block *ret_block);

/* Memory taken from the system now. */
uint64_t weir__arena_reserved(weir__arena *arena);

/* Takes a block back; never fails.  A block with offset 0 is ignored. */
void weir__arena_free(weir__arena *arena, weir__block *block);

#endif
