/* spill_recover.c - what an earlier process left in the directory.
 *
 * No segment is read whole, but the one that has no end, because its process was killed: that is walked
 * through once, head by head, and given one.  How many records the others hold says their end; which of
 * them are acknowledged says the file beside them.  Whether they are whole is found out when they are
 * read.  A tail without a record is what an append was about to write when it was killed, and is cut off.
 * But only the last segment can have one: another without an end held what the name of the next one says.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "flow/spill_impl.h"

/* ---- which files there are ------------------------------------------------------------------ */

typedef struct names {
    weir__segment_file kind; /* which are looked for */
    uint64_t *seqs;
    size_t n, capacity;
} names;

static int note(const char *name, void *ctx)
{
    names *found = ctx;
    uint64_t seq;
    if (weir__segment_parse_name(name, &seq) != found->kind)
        return WEIR_OK;
    if (found->n == found->capacity) {
        size_t capacity = found->capacity ? found->capacity * 2 : 16;
        uint64_t *grown = weir__realloc(found->seqs, capacity * sizeof *grown);
        if (!grown)
            return WEIR_ENOMEM;
        found->seqs = grown;
        found->capacity = capacity;
    }
    found->seqs[found->n++] = seq;
    return WEIR_OK;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int find(weir_spill *spill, weir__segment_file kind, names *ret)
{
    *ret = (names){.kind = kind};
    int rc = weir__dir_list(spill->dir, note, ret);
    if (rc == WEIR_OK && ret->n > 0)
        qsort(ret->seqs, ret->n, sizeof *ret->seqs, ascending);
    if (rc < 0)
        weir__free(ret->seqs);
    return rc;
}

static void remove_named(weir_spill *spill, uint64_t seq, weir__segment_file kind)
{
    char name[WEIR__SEGMENT_NAME];
    weir__segment_name(name, seq, kind);
    weir__file_remove(spill->dir, name);
}

/* What a log that was not durable has left. */
static int remove_all(weir_spill *spill, weir__segment_file kind)
{
    names found;
    int rc = find(spill, kind, &found);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < found.n; i++)
        remove_named(spill, found.seqs[i], kind);
    weir__free(found.seqs);
    return WEIR_OK;
}

/* ---- one segment ---------------------------------------------------------------------------- */

/* How many records the end of the file speaks of; 0: there is none that can be true. */
static uint64_t count_by_end(int fd, uint64_t first_seq, uint64_t size)
{
    unsigned char head[WEIR__RECORD_HEAD];
    weir__record end;
    size_t n;
    if (size < WEIR__SEGMENT_HEAD + sizeof head ||
        weir__file_read(fd, size - sizeof head, head, sizeof head, &n) < 0 || n < sizeof head ||
        weir__record_look(head, &end) != WEIR__RECORD_END || end.seq < first_seq)
        return 0;
    return end.seq - first_seq <= size / WEIR__RECORD_HEAD ? end.seq - first_seq : 0;
}

/* Walks through it.  *size: where the last record ends. */
static uint64_t count_by_walk(weir__reader *reader, uint64_t *size)
{
    uint64_t count = 0, offset = WEIR__SEGMENT_HEAD, end = offset;
    uint64_t seq_limit = reader->first_seq + *size / WEIR__RECORD_HEAD;
    for (;;) {
        weir__found found = weir__reader_find(reader, offset, *size, seq_limit);
        if (found.kind != WEIR__RECORD)
            break;
        offset = end = found.offset + weir__record_size(found.record.n);
        if (found.record.seq - reader->first_seq >= count)
            count = found.record.seq - reader->first_seq + 1;
    }
    *size = end;
    return count;
}

/* Cuts off what lies behind `size`, and writes an end there.  Where that fails it is walked through
 * again the next time. */
static void give_end(weir_spill *spill, uint64_t first_seq, uint64_t count, uint64_t *size)
{
    char name[WEIR__SEGMENT_NAME];
    unsigned char end[WEIR__RECORD_HEAD];
    int fd;
    weir__segment_name(name, first_seq, spill->kind);
    if (weir__file_open(spill->dir, name, WEIR__FILE_MEND, &fd) < 0)
        return;
    weir__record_end(end, first_seq + count);
    weir__piece piece = {end, sizeof end};
    if (weir__file_truncate(fd, *size) == WEIR_OK &&
        weir__file_write(fd, *size, &piece, 1) == WEIR_OK)
        *size += sizeof end;
    weir__file_close(fd);
}

static bool has_head(int fd, uint64_t first_seq)
{
    unsigned char head[WEIR__SEGMENT_HEAD];
    size_t n;
    return weir__file_read(fd, 0, head, sizeof head, &n) == WEIR_OK && n == sizeof head &&
           weir__segment_is_head(head, first_seq);
}

/* The records [index, index + n) are acknowledged.  false: no memory. */
static bool acknowledge(weir__segment *segment, weir__ack ack)
{
    if (ack.index >= segment->count)
        return true;
    uint64_t end =
        ack.n < segment->count - ack.index ? ack.index + (uint64_t)ack.n : segment->count;
    if (!weir__bits_reserve(&segment->acked, end))
        return false;
    for (uint64_t i = ack.index; i < end; i++) {
        if (weir__bits_has(&segment->acked, i))
            continue;
        weir__bits_set(&segment->acked, i);
        segment->settled++;
    }
    return true;
}

/* Reads the file of acknowledgements, up to what is damaged or torn, and cuts that off. */
static int read_acks(weir_spill *spill, weir__segment *segment)
{
    char name[WEIR__SEGMENT_NAME];
    unsigned char entries[128 * WEIR__ACK_ENTRY];
    int fd;
    weir__segment_name(name, segment->first_seq, WEIR__FILE_ACKS);
    if (weir__file_open(spill->dir, name, WEIR__FILE_MEND, &fd) < 0)
        return WEIR_OK; /* there are none */
    uint64_t offset = 0;
    size_t n, used;
    int rc = WEIR_OK;
    do {
        if (weir__file_read(fd, offset, entries, sizeof entries, &n) < 0)
            n = 0;
        weir__ack ack;
        for (used = 0; rc == WEIR_OK && n - used >= WEIR__ACK_ENTRY &&
                       weir__ack_read(entries + used, segment->first_seq, &ack);
             used += WEIR__ACK_ENTRY)
            rc = acknowledge(segment, ack) ? WEIR_OK : WEIR_ENOMEM;
        offset += used;
    } while (rc == WEIR_OK && used == sizeof entries);
    if (rc == WEIR_OK)
        weir__file_truncate(fd, offset);
    weir__file_close(fd);
    return rc;
}

/* Adds a segment with `count` records to the log. */
static int add(weir_spill *spill, uint64_t first_seq, uint64_t count, uint64_t size)
{
    weir__segment *segment = weir__spill_add_segment(spill, first_seq);
    if (!segment)
        return WEIR_ENOMEM;
    segment->count = count;
    segment->bytes = size;
    spill->now.bytes += size;
    int rc = read_acks(spill, segment);
    if (rc < 0)
        return rc;
    uint64_t left = count - segment->settled;
    spill->now.recovered += left;
    spill->now.pending += left;
    spill->unread += left;
    weir__spill_remove_settled(spill, segment);
    return WEIR_OK;
}

/* How many a segment without an end held, of which so many are left: all up to the next one.  A name that
 * cannot be true says nothing. */
static uint64_t count_by_next(const weir_spill *spill, uint64_t count, uint64_t up_to_next)
{
    bool is_plausible = up_to_next <= spill->now.max_bytes / WEIR__RECORD_HEAD;
    return is_plausible && up_to_next > count ? up_to_next : count;
}

/* Numbers from next_first on belong to the next segment. */
static int recover_segment(weir_spill *spill, uint64_t first_seq, uint64_t next_first)
{
    weir__reader *reader = &spill->reader;
    uint64_t size = 0;
    if (first_seq >= spill->next_seq)
        spill->next_seq = first_seq + 1; /* whatever it is, the name is taken */
    int rc = weir__reader_open(reader, spill, first_seq);
    if (rc == WEIR_ENOFD || rc == WEIR_ENOMEM)
        return rc;
    if (rc < 0 || weir__file_size(reader->fd, &size) < 0) { /* a link, a folder: not ours */
        spill->now.segments_damaged++;
        spill->damage_to_tell++;
        return WEIR_OK;
    }
    bool is_whole = size == 0 || has_head(reader->fd, first_seq);
    uint64_t found = size, count = count_by_end(reader->fd, first_seq, size);
    bool is_bare = false; /* no record is left */
    if (count == 0) {
        count = count_by_walk(reader, &size);
        is_bare = count == 0;
        count = count_by_next(spill, count, next_first - first_seq);
        if (count > 0)
            give_end(spill, first_seq, count, &size);
    }
    weir__reader_close(reader);
    if (count > next_first - first_seq)
        count = next_first - first_seq;
    if (!is_whole) {
        spill->now.segments_damaged++;
        spill->now.bytes_skipped += is_bare ? found : WEIR__SEGMENT_HEAD;
        spill->damage_to_tell++;
    }
    if (count == 0) {
        remove_named(spill, first_seq, spill->kind);
        remove_named(spill, first_seq, WEIR__FILE_ACKS);
        return WEIR_OK;
    }
    rc = add(spill, first_seq, count, size);
    if (rc == WEIR_OK && !is_whole && spill->n_segments > 0 &&
        spill->segments[spill->n_segments - 1]->first_seq == first_seq)
        spill->segments[spill->n_segments - 1]->is_damaged = true; /* and counted */
    if (first_seq + count > spill->next_seq)
        spill->next_seq = first_seq + count;
    return rc;
}

/* Acknowledgements whose segment is gone. */
static int remove_stray_acks(weir_spill *spill)
{
    names found;
    int rc = find(spill, WEIR__FILE_ACKS, &found);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < found.n; i++) {
        const weir__segment *segment = weir__spill_segment(spill, found.seqs[i]);
        if (!segment || segment->first_seq != found.seqs[i])
            remove_named(spill, found.seqs[i], WEIR__FILE_ACKS);
    }
    weir__free(found.seqs);
    return WEIR_OK;
}

int weir__spill_recover(weir_spill *spill)
{
    names found;
    int rc = remove_all(spill, WEIR__FILE_PASSING);
    if (rc == WEIR_OK)
        rc = find(spill, WEIR__FILE_SEGMENT, &found);
    if (rc < 0)
        return rc;
    if (!spill->now.durable && found.n > 0)
        rc = WEIR_EINVAL; /* they are somebody's, who thinks that they are safe */
    for (size_t i = 0; rc == WEIR_OK && i < found.n; i++)
        rc =
            recover_segment(spill, found.seqs[i], i + 1 < found.n ? found.seqs[i + 1] : UINT64_MAX);
    weir__free(found.seqs);
    return rc == WEIR_OK && spill->now.durable ? remove_stray_acks(spill) : rc;
}
