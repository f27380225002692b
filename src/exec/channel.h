/* channel.h - what a pool's parent and its workers share: one mapping, and who may write what.
 *
 * The file (a memfd: it has no name, so nothing is left behind) is laid out as
 *
 *     header | seat 0 ... seat n-1 | units of UNIT bytes: blocks of the arena (arena.h)
 *
 * Each worker sits on a seat with a ring of slots.  A slot carries one task there and its reply
 * back; tasks are dealt, claimed, answered and collected in ring order.  Its state is the whole
 * protocol:
 *
 *        deal             claim              reply            collect
 *     any ---> READY ---------------> RUNNING -----> DONE  ---------> (dealt again)
 *     (parent)   |      (worker)             (worker)       (parent)
 *                | revoke (parent)
 *                v          skip
 *             REVOKED --------------> SKIPPED ------------> (dealt again)
 *                           (worker)            (parent)
 *
 * READY -> RUNNING and READY -> REVOKED are compare-exchanges, so exactly one side wins.  All
 * other steps have one possible author.  No lock is shared: a process may die between any two
 * instructions and the other side reads from the state how far it came.
 *
 * A task may be a batch of items.  Inside RUNNING the same game is played for each of them: the
 * worker claims the item `next` of `span`, the parent lowers its `limit` to take the last ones back,
 * both by compare-exchange on the one word.  Replies are appended to one stretch of the extent and
 * counted in `filled`, so those of a worker that dies are not lost.
 *
 * Sleeping: the side that goes to sleep raises its `asleep` flag, rechecks, then sleeps; the side
 * that publishes stores, then reads the flag.  Both put a seq_cst fence between (Dekker), so one
 * of them sees the other.  The worker sleeps on the futex word `bell`, which is read before the
 * recheck; the parent sleeps in epoll on an eventfd, which stays readable until it is read.
 */
#ifndef WEIR_EXEC_CHANNEL_H
#define WEIR_EXEC_CHANNEL_H

#include <stdatomic.h>

#include <weir/worker.h>

#define WEIR__CHANNEL_MAGIC   UINT64_C(0x3130726965770a1b)
#define WEIR__CHANNEL_VERSION 2u

#define WEIR__SLOTS      128u /* per seat */
#define WEIR__IN_BYTES   192u /* payloads up to this size travel inside the slot */
#define WEIR__OUT_BYTES  256u
#define WEIR__FAIL_BYTES 4096u

#define WEIR__UNIT       (UINT64_C(4) << 20)   /* arena address space comes in these */
#define WEIR__SMALL_MAX  (UINT64_C(256) << 10) /* larger blocks have units of their own */
#define WEIR__EXTENT     (UINT64_C(256) << 10) /* a seat's space for replies */
#define WEIR__EXTENT_MAX (WEIR__EXTENT / 2)    /* larger replies ask for a block */
#define WEIR__LEASE_MIN  (UINT64_C(64) << 10)  /* smaller data is copied, not kept */
#define WEIR__RETURNS    128u                  /* per seat: kept blocks that come back */

#define WEIR__BATCH_RESERVE (UINT64_C(16) << 10) /* room that an item must find to be begun */

enum weir__slot_state {
    SLOT_FREE = 0,
    SLOT_READY,
    SLOT_RUNNING,
    SLOT_DONE,
    SLOT_REVOKED,
    SLOT_SKIPPED
};

enum weir__out_kind {
    OUT_INLINE = 0,
    OUT_EXTENT,
    OUT_BLOCK,
    OUT_REFUSED,   /* asked for a block, and got none or could not map it */
    OUT_NO_MEMORY, /* could not map the payload */
    OUT_TASK,      /* in the block that the payload came in */
};

typedef struct weir__slot {
    _Alignas(64) _Atomic uint32_t state;
    uint32_t out_kind; /* worker, before DONE */
    uint64_t id;       /* parent, before READY */
    uint64_t in_size;
    uint64_t in_offset; /* in the file; 0: in `in` */
    int32_t status;     /* worker, before DONE; as the others below */
    uint32_t kept;      /* 1: the payload's block stays with the worker; see returns */
    uint64_t out_size;
    uint64_t out_offset; /* EXTENT: stream position (see extent_tail) */
    int64_t service_ns;
    unsigned char in[WEIR__IN_BYTES];
    unsigned char out[WEIR__OUT_BYTES];
    /* of a batch */
    _Alignas(64) _Atomic uint64_t span; /* next item, and limit << 32; items [next, limit) wait */
    _Atomic uint64_t filled;            /* worker: items with a reply, and bytes of those << 32 */
    uint32_t is_batch;                  /* parent, before READY */
    uint64_t
        peak_bytes; /* worker, before DONE: memory above that of an idle one; 0: not measured */
} weir__slot;

static inline uint64_t weir__pair(uint32_t low, uint32_t high)
{
    return (uint64_t)high << 32 | low;
}

enum weir__seat_state { SEAT_STARTING = 0, SEAT_READY, SEAT_LEAVING, SEAT_FAILED };
enum weir__grant_state { GRANT_NONE = 0, GRANT_GIVEN, GRANT_REFUSED };

/* Lines are grouped by writer.  Before its process starts the parent writes all of it. */
typedef struct weir__seat {
    /* written by the parent */
    _Alignas(64) _Atomic uint32_t bell; /* futex: counts the rings */
    _Atomic uint32_t leave;             /* 1: when nothing is READY, go */
    uint64_t tasks_max;                 /* leave after so many; 0: no limit */
    uint64_t rss_max;                   /* leave when there is more after a task; 0: no limit */
    uint32_t measures;                  /* 1: tell peak_bytes of tasks that are not very short */
    uint64_t extent_offset;             /* in the file, WEIR__EXTENT bytes */
    _Alignas(64) _Atomic uint64_t
        extent_tail;                /* stream position up to which replies are released */
    _Atomic uint32_t grant;         /* GIVEN, REFUSED: parent; NONE: worker, when it has read */
    uint32_t grant_filled;          /* before GIVEN: all of the block has memory */
    uint64_t grant_offset;          /* before GIVEN */
    _Atomic uint64_t collected;     /* slots before it have been read and are done with */
    _Atomic uint64_t returns_taken; /* of `returned` */
    /* written by the worker */
    _Alignas(64) _Atomic uint32_t asleep;
    _Atomic uint32_t state;
    _Atomic uint64_t want;     /* bytes for a large reply; 0: none wanted */
    _Atomic uint64_t peak_rss; /* bytes */
    _Atomic uint64_t returned; /* kept blocks that came back so far: a ring of their offsets */
    uint64_t returns[WEIR__RETURNS];
    uint32_t fail_size; /* before FAILED */
    unsigned char fail[WEIR__FAIL_BYTES];
    weir__slot slots[WEIR__SLOTS];
} weir__seat;

typedef struct weir__channel_header {
    uint64_t magic;
    uint32_t version;
    uint32_t seats;
    uint64_t arena_offset;    /* first unit */
    uint32_t guards_payloads; /* a worker's writes to a payload stay its own: it may be run again */
    int64_t parent;           /* pid: a worker's own parent may be a server that forks */
    _Alignas(64) _Atomic uint32_t collector_asleep;
} weir__channel_header;

/* One process's view. */
typedef struct weir__channel {
    int memory_fd;
    weir__channel_header *header; /* the mapping's start */
    size_t mapped;
    weir__seat *seats;
} weir__channel;

/* The parent's: makes the file with its first part mapped and zeroed.  WEIR_ENOFD, WEIR_ENOSHM. */
int weir__channel_create(weir__channel *channel, unsigned seats);

/* When a worker leaves, and what it measures; as in weir__seat. */
typedef struct weir__seat_terms {
    uint64_t tasks_max, rss_max;
    bool measures;
} weir__seat_terms;

/* The parent's: makes a seat ready for a new process.  WEIR_ENOSHM. */
int weir__channel_prepare_seat(weir__channel *channel, unsigned seat, uint64_t extent_offset,
                               const weir__seat_terms *terms);

/* The worker's: maps an inherited file after checking that it is one of ours.  WEIR_EINVAL,
 * WEIR_ENOMEM. */
int weir__channel_open(weir__channel *channel, int memory_fd);

/* The worker's: the seat was prepared for a process, and the file is whole. */
bool weir__channel_has_seat(const weir__channel *channel, unsigned seat);

/* Unmaps and closes. */
void weir__channel_fini(weir__channel *channel);

/* A payload, or a reply, in pieces. */
uint64_t weir__size_of_parts(const weir_bytes *parts, size_t n_parts);
void weir__copy_parts(void *to, const weir_bytes *parts, size_t n_parts);
int weir__write_parts(int memory_fd, uint64_t offset, const weir_bytes *parts, size_t n_parts);

/* Rings a worker's bell if it sleeps; after whatever it is to see has been stored. */
void weir__ring_worker(weir__seat *seat);

#endif
