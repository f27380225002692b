/* spill.h - an append-only log of records in files of one directory: what a queue that is full puts
 * on disk (WEIR_OVERFLOW_SPILL, <weir/queue.h>), and what makes it durable; the contract, quoted by
 * weir_spill(3).
 *
 * Order:      records are read in the order they were appended, each once, by whoever reads.
 * Bound:      the files never hold more than max_bytes together.  A file goes away when all its
 *             records are acknowledged, so what is held may be more than what is pending, by the
 *             acknowledged records beside a pending one.
 * Conservation, at the instant of every snapshot:
 *                 appended + recovered == acknowledged + lost + pending
 * Durable:    an append that returned WEIR_OK is on the disk (fdatasync; appends of several threads
 *             share one), with the names that lead to it; that of the directory, where the one that it is
 *             in can be read.  A restart finds every record that was not acknowledged.  Acknowledgements
 *             are written, but not waited for: a restart may deliver the last 64
 *             of them once more.  So it is "at least once".  Without it the files live as
 *             long as the object, and what an earlier process left is removed.
 * Damage:     a record, or a file, that cannot be read is skipped and counted, never an error, never
 *             read as if it were whole (CRC-32C), and never in the way of what comes after it.  But what
 *             the disk does not let us read when a log is opened is an error, and stays as it was; later, the
 *             file of a durable log stays for who opens it next, who has what was not acknowledged.
 * Not noticed: what somebody else takes away while no process has the log: bytes cut off the last file
 *             (they look like the torn tail of an append), a file that is gone, or all of them (it may have
 *             been acknowledged).  Bytes cut off another file are: the next one's name tells how many
 *             records it held, and what is missing is lost.
 * Disk full:  an append that finds no room is undone and returns an error; the log stays as it was.
 *             A durable log stops before: it holds no more than 8 times what the disk has left, so that
 *             another one, of the next stage, finds room.
 * Memory:     a read buffer, and two bits for each record of files that are partly acknowledged.
 * Threads:    every function, from any thread, if nothing else is said; appends do not wait for reads.
 */
#ifndef WEIR_SPILL_H
#define WEIR_SPILL_H

#include <weir/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_spill weir_spill;

/* What on_event tells. */
typedef enum weir_spill_event {
    WEIR_SPILL_DISK_FULL =
        0,                /* an append found the disk (or the quota, or the file size) at its end */
    WEIR_SPILL_DISK_ROOM, /* an append succeeded again */
    WEIR_SPILL_DISK_ERROR, /* an append failed for another reason (EIO, say): WEIR_ESYSTEM */
    WEIR_SPILL_DAMAGE,     /* something was skipped, see the snapshot; once for each file */
} weir_spill_event;

/* Called with no lock held, on the thread whose call found it, before that call returns.  Of the
 * first three each is told when it differs from the one told before: a full disk is said once. */
typedef void weir_spill_event_fn(weir_spill_event event, void *ctx);

#define WEIR_SPILL_NAME 24 /* bytes of a file's name, with the zero */

typedef struct weir_spill_opts {
    size_t size;        /* sizeof(weir_spill_opts); set by WEIR_SPILL_OPTS_INIT */
    const char *dir;    /* made (mode 0700) if it is not there; its parent has to be; required */
    uint64_t max_bytes; /* of all files together, >= 4096; required */
    uint64_t segment_bytes; /* of one file, 512 .. max_bytes; 0: 16 MiB, or an eighth of max_bytes
                               where that is less.  A longer record has a file of its own */
    bool durable;
    weir_spill_event_fn *on_event; /* NULL: none */
    void *event_ctx;
    /* NULL, or WEIR_SPILL_NAME bytes: which file could not be read, where that is why there is no log; else "" */
    char *ret_unreadable;
} weir_spill_opts;

#define WEIR_SPILL_OPTS_INIT WEIR__SIZED(weir_spill_opts)

/* Opens the log in a directory, which is this object's alone from now on: WEIR_EBUSY where another one,
 * of this process or another, has it.  Files are made with mode 0600; one that is a symbolic link is
 * not followed.  Damage is no error.  < 0: WEIR_EINVAL (an option out of range; or the records of a
 * durable log are there, and durable is not set), WEIR_EBUSY,
 * WEIR_ENOSPC, WEIR_ENOFD, WEIR_ENOMEM, WEIR_ESYSTEM (the directory cannot be made or opened, or a durable
 * log's file in it cannot be read: no file that holds a record was removed or cut off). */
WEIR_API int weir_spill_create(weir_spill **ret_spill, const weir_spill_opts *opts);

/* Leaves the directory to others: durable, what is pending stays there; else all its files are removed.
 * From then on appends return WEIR_ECLOSED and reads WEIR_EEMPTY.  Nobody may be in an append.  Twice is
 * fine. */
WEIR_API void weir_spill_close(weir_spill *spill);

/* Closes the log, and frees it (NULL is fine).  The directory stays.  No other thread may be in a call on
 * it, nor a queue use it. */
WEIR_API void weir_spill_destroy(weir_spill *spill);

/* Appends a record of n bytes.  *ret_seq (NULL: not wanted) is its number: larger than those of
 * all before it that are pending, also across restarts.  Durable: returns when it is on the disk.  < 0, and the log is as before: WEIR_EFULL (it
 * would not fit into max_bytes before others are acknowledged), WEIR_ETOOBIG (it never would),
 * WEIR_ENOSPC, WEIR_ENOFD, WEIR_ENOMEM, WEIR_ESYSTEM. */
WEIR_API int weir_spill_append(weir_spill *spill, const void *data, size_t n, uint64_t *ret_seq);

/* The same of a record that the caller keeps: it is not read, unless by a later process.  (So it only
 * has to be acknowledged.) */
WEIR_API int weir_spill_append_kept(weir_spill *spill, const void *data, size_t n,
                                    uint64_t *ret_seq);

/* The bytes of a record.  Begins as {0}; grows by itself; ends with weir_record_free. */
typedef struct weir_record {
    unsigned char *data;
    size_t size, capacity;
} weir_record;

/* Adds n bytes at the end.  WEIR_ENOMEM: nothing changed. */
WEIR_API int weir_record_add(weir_record *record, const void *data, size_t n);

/* Frees the memory (not the struct), which is {0} then. */
WEIR_API void weir_record_free(weir_record *record);

/* Reads the next record: into->data holds its into->size bytes.  < 0: WEIR_EEMPTY (all was read, or
 * is not on the disk yet), WEIR_ENOMEM and WEIR_ENOFD (and the next read tries it again). */
WEIR_API int weir_spill_read(weir_spill *spill, weir_record *into, uint64_t *ret_seq);

/* Says that a record need not be kept: it was dealt with.  In any order; once acknowledged, or
 * unknown, makes no difference.  The file whose last one it was is removed; that which is written to only
 * if it is larger than 64 KiB, or the disk was full. */
WEIR_API void weir_spill_ack(weir_spill *spill, uint64_t seq);

/* Acknowledges all that is still to be read, without reading it: what is to be thrown away. */
WEIR_API void weir_spill_clear(weir_spill *spill);

typedef struct weir_spill_snapshot {
    size_t size; /* sizeof(weir_spill_snapshot); set by WEIR_SPILL_SNAPSHOT_INIT */
    uint64_t max_bytes;
    uint64_t pending;      /* records neither acknowledged nor lost */
    uint64_t unread;       /* of these: still to be read */
    uint64_t bytes;        /* of all files */
    uint64_t segments;     /* files */
    uint64_t recovered;    /* records found at creation, not acknowledged then */
    uint64_t appended;     /* records since */
    uint64_t acknowledged; /* of both */
    uint64_t records_lost; /* of both: damaged; those of a file that is gone are not known */
    uint64_t segments_damaged, bytes_skipped;
    uint64_t syncs;   /* calls of fdatasync for appends */
    uint64_t refused; /* appends for which there was no room */
    bool durable;
    bool disk_full; /* the last append said so */
} weir_spill_snapshot;

#define WEIR_SPILL_SNAPSHOT_INIT WEIR__SIZED(weir_spill_snapshot)

/* One instant, all fields consistent.  WEIR_EINVAL: the size. */
WEIR_API int weir_spill_get_snapshot(weir_spill *spill, weir_spill_snapshot *ret_snapshot);

#ifdef __cplusplus
}
#endif

#endif
