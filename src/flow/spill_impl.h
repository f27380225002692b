/* spill_impl.h - what the files of the spill share: spill.c (append, acknowledge), spill_read.c,
 * spill_recover.c. */
#ifndef WEIR_FLOW_SPILL_IMPL_H
#define WEIR_FLOW_SPILL_IMPL_H

#include <stdatomic.h>

#include <weir/spill.h>

#include "base/files.h"
#include "base/mutex.h"
#include "model/segment.h"

/* A bit for each of the first so many records of a segment. */
typedef struct weir__bits {
    uint64_t *words; /* NULL: all 0 */
    size_t n;        /* words */
} weir__bits;

typedef struct weir__segment {
    uint64_t first_seq;
    uint64_t count;   /* numbers that belong to it, also of records that are damaged */
    uint64_t bytes;   /* of its file; of the one that is written to, with its end */
    uint64_t settled; /* of count: acknowledged or lost */
    weir__bits acked; /* these; a record that somebody has, or is read, has its bit's memory */
    weir__bits kept;  /* not to be read in this process */
    bool is_damaged;  /* which was counted */
    bool is_unread;   /* the disk did not let us: durable, it stays for who opens the log next */
} weir__segment;

/* Where reading goes on. */
typedef struct weir__cursor {
    uint64_t seq;       /* the next record, or a later one */
    uint64_t first_seq; /* the segment that the offset is of */
    uint64_t offset;
} weir__cursor;

/* A segment that is read through a buffer. */
typedef struct weir__reader {
    int fd; /* < 0: none is open */
    uint64_t first_seq;
    unsigned char *buffer;
    uint64_t at; /* the buffer holds n bytes from there */
    size_t n;
    int error; /* why a place of what is open could not be read; 0: all could */
} weir__reader;

/* An append that waits for the disk; on its thread's stack. */
typedef struct weir__commit {
    struct weir__commit *next;
    uint64_t seq;
    bool is_done;
    int rc;
} weir__commit;

typedef struct weir__unlogged {
    uint64_t first_seq;
    weir__ack ack;
} weir__unlogged;

#define WEIR__UNLOGGED_MAX 64

/* What holds whenever the mutex is free:
 *  - appended + recovered == acknowledged + lost + pending
 *  - pending is the sum of count - settled; bytes that of bytes, and <= max_bytes (what was recovered
 *    may be more)
 *  - segments are in the order of their numbers, which do not overlap; active, if there is one, is the
 *    last, and fd its file; of the others none is wholly settled, but what is_unread
 *  - durable: records up to `synced` are on the disk or have failed; nobody reads later ones
 */
struct weir_spill {
    weir__mutex mutex; /* all but the reader; held while a record is written, not while one is read
                          or synced */
    weir__dir *dir;
    weir__segment_file kind;
    uint64_t segment_bytes;
    weir_spill_event_fn *on_event;
    void *event_ctx;
    char unreadable[WEIR__SEGMENT_NAME]; /* of which its recovery says so */

    weir__segment **segments;
    size_t n_segments, segments_capacity;
    weir__segment *active; /* NULL: the next append makes one */
    int fd;
    uint64_t next_seq;

    uint64_t synced;
    bool syncing;           /* a thread is in fdatasync, without the mutex */
    _Atomic uint32_t round; /* the futex of who waits for it */
    weir__commit *commits;

    weir__unlogged unlogged[WEIR__UNLOGGED_MAX]; /* acknowledgements not yet written */
    size_t n_unlogged;
    unsigned unlogged_calls;
    weir_time logged_at;

    weir__cursor cursor;
    weir_spill_snapshot now; /* the counts; without segments and unread of it */
    uint64_t unread;
    bool closed;           /* it has no directory any more */
    weir_spill_event said; /* about the disk */
    unsigned damage_to_tell;

    weir__mutex reading; /* before the mutex: who reads */
    weir__reader reader; /* under it */
};

/* ---- spill.c; under the mutex, if nothing else is said ---------------------------------------- */

/* The first number that is not there, or not on the disk yet: so nobody has its record. */
static inline uint64_t weir__spill_readable(const weir_spill *spill)
{
    return spill->now.durable ? spill->synced + 1 : spill->next_seq;
}

/* Makes sure that there are n bits.  false: no memory. */
bool weir__bits_reserve(weir__bits *bits, uint64_t n);
bool weir__bits_has(const weir__bits *bits, uint64_t i);
void weir__bits_set(weir__bits *bits, uint64_t i); /* reserved */

/* The one with that number, or the next later one; NULL: none. */
weir__segment *weir__spill_segment(const weir_spill *spill, uint64_t seq);

/* Adds one behind the others.  NULL: no memory. */
weir__segment *weir__spill_add_segment(weir_spill *spill, uint64_t first_seq);

/* Removes it with its files, if it is wholly settled, and is not written to, or large. */
void weir__spill_remove_settled(weir_spill *spill, weir__segment *segment);

/* Counts something of a segment as skipped. */
void weir__spill_note_damage(weir_spill *spill, weir__segment *segment, uint64_t bytes);

/* Counts the records [from, to) of a segment as lost that are neither acknowledged nor kept.  false: no
 * memory, nothing changed. */
bool weir__spill_lose(weir_spill *spill, weir__segment *segment, uint64_t from, uint64_t to);

/* Without the mutex: tells what there is to tell about damage. */
void weir__spill_tell_damage(weir_spill *spill);

/* ---- spill_read.c ----------------------------------------------------------------------------- */

#define WEIR__READ_BUFFER 65536

/* What lies at an offset or, where that is damaged, next behind it. */
typedef struct weir__found {
    weir__record_kind kind; /* NONE: nothing before the limit */
    weir__record record;
    uint64_t offset;
} weir__found;

bool weir__reader_init(weir__reader *reader); /* false: no memory */
void weir__reader_fini(weir__reader *reader);
void weir__reader_close(weir__reader *reader);
int weir__reader_open(weir__reader *reader, const weir_spill *spill, uint64_t first_seq);

/* Of the numbers [first_seq of what is open, seq_limit). */
weir__found weir__reader_find(weir__reader *reader, uint64_t offset, uint64_t limit,
                              uint64_t seq_limit);

/* ---- spill_recover.c -------------------------------------------------------------------------- */

/* Finds what an earlier process left in the directory.  Where a file cannot be read, `unreadable` is its name. */
int weir__spill_recover(weir_spill *spill);

#endif
