/* shared_ring.h - messages in shared memory that a SIGKILL cannot tear.
 *
 * Commit:     what may change together lies twice in the file.  A change works on a copy of its
 *             own, writes the result over the version that is not in force, and puts it in force
 *             by one store of one word.  Killed before that store nothing has happened, killed
 *             after it everything has: there is nothing to repair, ever.  The bytes of a message
 *             are written where the version in force has none, so they follow the same rule; that
 *             is why one change either appends or pops.
 * Stream:     messages lie in an endless stream of bytes, [head, tail) of it inside.  The stream
 *             is cut into chunks of CHUNK bytes; `table` says which chunk of the file holds which
 *             of the stream, `stack` those in neither: `spare` with memory at the bottom, `bare`
 *             without at the top, a gap as wide as what is in use between.  Pushing writes into
 *             the gap, so the stack follows the rule as well.
 * Memory:     a chunk is reserved before it is written (no SIGBUS), and used again while it is
 *             warm.  Beyond SPARE_MAX of them the memory of a drained chunk goes back to the
 *             system: memory <= content + (SPARE_MAX + 2) chunks, at each instant.
 * Damage:     what somebody has written over it is not believed: no number in the file makes anybody read or
 *             write beside the file, or go on for ever.  Where the counts cannot be, what was inside is lost
 *             (WEIR_DROP_LOST), and the ring goes on, empty.
 * Threads:    who changes the ring holds the queue's lock.  look needs none.
 *
 * "Before" and "after" are about one process's order of instructions, which is what an exception
 * or a kill cuts: the release store and the signal fence in commit keep the compiler to it.
 */
#ifndef WEIR_FLOW_SHARED_RING_H
#define WEIR_FLOW_SHARED_RING_H

#include <stdatomic.h>

#include <weir/shared_queue.h>

#define WEIR__CHUNK     (UINT64_C(64) << 10)
#define WEIR__SPARE_MAX 64u /* 4 MiB */

/* What each put and get changes: one line of cache. */
typedef struct weir__tide {
    uint64_t head, tail; /* positions in the stream, multiples of a record's alignment */
    uint64_t bytes;      /* of the messages inside */
    uint64_t accepted, accepted_bytes;
    uint64_t delivered, delivered_bytes;
    uint32_t depth;
    uint32_t spare; /* chunks */
} weir__tide;

/* What only drops change. */
typedef struct weir__losses {
    uint64_t dropped[WEIR_DROP_REASONS], dropped_bytes[WEIR_DROP_REASONS];
} weir__losses;

#define WEIR__TIDE_WORDS   (sizeof(weir__tide) / sizeof(uint64_t))
#define WEIR__LOSSES_WORDS (sizeof(weir__losses) / sizeof(uint64_t))

/* In the file. */
typedef struct weir__ring_shared {
    /* bit 0: the tide in force, bit 1: the losses in force; above: counts the commits */
    _Alignas(64) _Atomic uint64_t commit;
    _Alignas(64) _Atomic uint64_t tide[2][WEIR__TIDE_WORDS];
    _Alignas(64) _Atomic uint64_t losses[2][WEIR__LOSSES_WORDS];
} weir__ring_shared;

/* A process's view of it. */
typedef struct weir__ring {
    weir__ring_shared *shared;
    uint32_t *table, *stack;
    char *chunks;
    uint64_t chunks_offset; /* in the file */
    uint32_t n_chunks, table_mask;
    int fd;
} weir__ring;

/* How many chunks and entries of the table a ring of these bounds needs. */
uint32_t weir__ring_chunks(uint64_t capacity, uint64_t max_bytes);
uint32_t weir__ring_table_size(uint32_t n_chunks);

/* Of a fresh file: nothing inside. */
void weir__ring_init(weir__ring *ring);

/* The law's numbers at one instant, without the lock. */
void weir__ring_look(const weir__ring *ring, weir__tide *ret_tide, weir__losses *ret_losses);

/* ---- changes ------------------------------------------------------------------------------ */

typedef struct weir__change {
    weir__ring *ring;
    weir__tide now;
    weir__losses losses; /* valid if has_losses */
    bool has_losses, appended, popped;
    uint32_t bare;     /* chunks */
    uint32_t released; /* of these, those whose memory goes when this is committed */
} weir__change;

void weir__change_begin(weir__change *change, weir__ring *ring);

/* Adds a message at the tail.  WEIR_ENOSHM: the change is as it was. */
int weir__change_append(weir__change *change, const weir_message *message, int64_t since);

typedef struct weir__ring_record {
    uint32_t size, tag;
    int64_t since;
} weir__ring_record;

/* The record at a position in [head, tail), and the position of the next one, which is not behind tail: so
 * one that was written over ends there at the latest. */
weir__ring_record weir__change_peek(const weir__change *change, uint64_t at, uint64_t *ret_next);

/* Removes the head, copying its bytes, up to `room` of them, out first unless `to` is NULL; counted as
 * delivered, or, with reason >= 0, as dropped. */
void weir__change_pop(weir__change *change, void *to, size_t room, int reason);

/* Counts a message that is taken and dropped in the same breath. */
void weir__change_drop_new(weir__change *change, uint64_t size, weir_drop_reason reason);

/* Puts it in force; a change without effect may be committed or forgotten. */
void weir__change_commit(weir__change *change);

#endif
