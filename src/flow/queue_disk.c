/* queue_disk.c - see queue_disk.h.
 *
 * A record is the item's cost, when it was put by the wall clock (0: nobody asks), both little-endian,
 * and the bytes that the codec made.
 */
#include "flow/queue_disk.h"

#include <endian.h>
#include <string.h>

#include "base/alloc.h"
#include "base/files.h"
#include "model/sampler.h"

typedef struct prefix {
    uint64_t cost;
    uint64_t put_at; /* nanoseconds since 1970 */
} prefix;

typedef struct box {
    void *item;
    uint64_t seq;
} box;

void *weir__box(void *item)
{
    box *b = weir__malloc(sizeof *b);
    if (b)
        *b = (box){item, 0};
    return b;
}

void weir__box_seal(void *boxed, uint64_t seq)
{
    ((box *)boxed)->seq = seq;
}

void *weir__unbox(void *boxed, uint64_t *ret_seq)
{
    box b = *(box *)boxed;
    weir__free(boxed);
    *ret_seq = b.seq;
    return b.item;
}

static weir_spill_snapshot look(weir_spill *spill)
{
    weir_spill_snapshot now = WEIR_SPILL_SNAPSHOT_INIT;
    weir_spill_get_snapshot(spill, &now);
    return now;
}

bool weir__disk_init(weir__disk *disk, weir_spill *spill, const weir_codec *codec)
{
    if (!codec->encode || !codec->decode)
        return false;
    weir_spill_snapshot now = look(spill);
    *disk = (weir__disk){
        .spill = spill,
        .codec = *codec,
        .is_durable = now.durable,
        .recovered = now.unread,
        .records_lost = now.records_lost,
    };
    return true;
}

void weir__disk_fini(weir__disk *disk)
{
    weir_record_free(&disk->record);
}

int weir__disk_write(weir__disk *disk, const weir__entry *entry, bool kept, uint64_t *ret_seq)
{
    uint64_t age = entry->since ? (uint64_t)(weir_now() - weir__time_of(entry->since)) : 0;
    prefix p = {
        .cost = htole64(entry->cost),
        .put_at = htole64(entry->since ? (uint64_t)weir__wall_clock() - age : 0),
    };
    weir_record record = {0};
    int rc = weir_record_add(&record, &p, sizeof p);
    if (rc == WEIR_OK)
        rc = disk->codec.encode(entry->item, &record, disk->codec.ctx);
    if (rc >= 0)
        rc = kept ? weir_spill_append_kept(disk->spill, record.data, record.size, ret_seq)
                  : weir_spill_append(disk->spill, record.data, record.size, ret_seq);
    weir_record_free(&record);
    return rc;
}

static prefix prefix_of(const weir_record *record)
{
    prefix p = {0};
    if (record->size >= sizeof p)
        memcpy(&p, record->data, sizeof p);
    return (prefix){le64toh(p.cost), le64toh(p.put_at)};
}

int weir__disk_next(weir__disk *disk)
{
    if (disk->has_next)
        return WEIR_OK;
    int rc = weir_spill_read(disk->spill, &disk->record, &disk->seq);
    if (rc < 0)
        return rc;
    disk->has_next = true;
    disk->next_cost = prefix_of(&disk->record).cost;
    disk->next_is_recovered = disk->read++ < disk->recovered;
    return WEIR_OK;
}

/* When the item was put, on the clock of this process. */
static weir_time since_of(uint64_t put_at)
{
    if (put_at == 0)
        return 0;
    int64_t age = weir__wall_clock() - (int64_t)put_at;
    return weir_now() - (age > 0 ? age : 0);
}

/* The record is done with. */
static void forget(weir__disk *disk, bool is_dealt_with)
{
    disk->has_next = false;
    if (is_dealt_with)
        weir_spill_ack(disk->spill, disk->seq);
    if (disk->record.capacity > 65536) /* one large record is no reason to keep so much */
        weir_record_free(&disk->record);
}

int weir__disk_take(weir__disk *disk, weir__entry *ret_entry)
{
    prefix p = prefix_of(&disk->record);
    void *item, *boxed = NULL;
    if (disk->is_durable && !(boxed = weir__box(NULL)))
        return WEIR_ENOMEM;
    int rc = WEIR_EINVAL;
    if (disk->record.size >= sizeof p)
        rc = disk->codec.decode(disk->record.data + sizeof p, disk->record.size - sizeof p, &item,
                                disk->codec.ctx);
    if (rc == WEIR_ENOMEM) {
        weir__free(boxed);
        return rc;
    }
    forget(disk,
           rc < 0 || !disk->is_durable); /* of a passing log: what is in memory is not on disk */
    if (rc < 0) {
        weir__free(boxed);
        return WEIR_EINVAL;
    }
    if (boxed)
        *(box *)boxed = (box){item, disk->seq};
    *ret_entry = (weir__entry){boxed ? boxed : item, p.cost, {since_of(p.put_at)}};
    return WEIR_OK;
}

uint64_t weir__disk_lost(weir__disk *disk)
{
    uint64_t lost = look(disk->spill).records_lost;
    uint64_t more = lost - disk->records_lost;
    disk->records_lost = lost;
    return more;
}

void weir__disk_release(weir__disk *disk, void *item)
{
    if (disk->codec.release)
        disk->codec.release(item, disk->codec.ctx);
}
