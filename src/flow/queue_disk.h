/* queue_disk.h - the disk of a queue that spills: items to records and back.
 *
 * Knows nothing of the queue, and is called without its mutexes: it runs the codec, and reads and writes.
 * Where the spill is durable an item in memory is *boxed*: with the number to acknowledge it by.
 * Threads:    weir__disk_write any; the rest one at a time, which the queue sees to.
 */
#ifndef WEIR_FLOW_QUEUE_DISK_H
#define WEIR_FLOW_QUEUE_DISK_H

#include <weir/queue.h>

#include "model/fifo.h"

typedef struct weir__disk {
    weir_spill *spill;
    weir_codec codec;
    bool is_durable;
    uint64_t recovered; /* records that were there at the beginning */

    /* the next record, when it has been read and not been made an item yet */
    bool has_next;
    uint64_t next_cost;
    bool next_is_recovered;
    weir_record record;
    uint64_t seq;
    uint64_t read;         /* records, at all */
    uint64_t records_lost; /* as last seen */
} weir__disk;

/* false: the codec lacks a function. */
bool weir__disk_init(weir__disk *disk, weir_spill *spill, const weir_codec *codec);
void weir__disk_fini(weir__disk *disk);

/* Writes the item of an entry.  kept: it stays in memory, too, and is not read back.  As
 * weir_spill_append, or what encode returned. */
int weir__disk_write(weir__disk *disk, const weir__entry *entry, bool kept, uint64_t *ret_seq);

/* Reads the next record, unless it has it: then its cost is known.  WEIR_EEMPTY, WEIR_ENOMEM,
 * WEIR_ENOFD. */
int weir__disk_next(weir__disk *disk);

/* Makes that record an entry, boxed where durable.  WEIR_ENOMEM: try it again; WEIR_EINVAL: decode
 * refused it, and it is acknowledged. */
int weir__disk_take(weir__disk *disk, weir__entry *ret_entry);

/* How many records were found to be lost since this was asked last. */
uint64_t weir__disk_lost(weir__disk *disk);

/* Frees an item that is on disk. */
void weir__disk_release(weir__disk *disk, void *item);

/* A box around an item; NULL: no memory.  Sealed, it has its number; opened, it is gone. */
void *weir__box(void *item);
void weir__box_seal(void *box, uint64_t seq);
void *weir__unbox(void *box, uint64_t *ret_seq);

#endif
