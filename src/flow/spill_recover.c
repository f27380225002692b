/* spill_recover.c - what an earlier process left in the directory.
 *
 * No segment is read whole, but the one that has no end, because its process was killed: that is walked
 * through once, head by head, and given one.  How many records the others hold says their end; which of
 * them are acknowledged says the file beside them.  Whether they are whole is found out when they are
 * read.  A tail without a record is what an append was about to write when it was killed, and is cut off.
 * But only the last segment can have one: another without an end held what the name of the next one says.
 *
 * What the disk does not let us read is not known to be damaged, and nothing is decided about it: no file is
 * removed, cut off or written to for that, and the error names it.
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

/* A file that cannot be read, or opened, for that reason. */
static int say(weir_spill *spill, uint64_t seq, weir__segment_file kind, int rc)
{
    weir__segment_name(spill->unreadable, seq, kind);
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
static int count_by_end(int fd, uint64_t first_seq, uint64_t size, uint64_t *ret_count)
{
    unsigned char head[WEIR__RECORD_HEAD];
    weir__record end;
    size_t n;
    *ret_count = 0;
    if (size < WEIR__SEGMENT_HEAD + sizeof head)
        return WEIR_OK;
    int rc = weir__file_read(fd, size - sizeof head, head, sizeof head, &n);
    if (rc < 0)
        return rc;
    bool is_end = n == sizeof head && weir__record_look(head, &end) == WEIR__RECORD_END &&
                  end.seq >= first_seq;
    if (is_end && end.seq - first_seq <= size / WEIR__RECORD_HEAD)
        *ret_count = end.seq - first_seq;
    return WEIR_OK;
}

/* Walks through it.  *size: where the last record ends. */
static int count_by_walk(weir__reader *reader, uint64_t *size, uint64_t *ret_count)
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
    if (reader->error)
        return reader->error;
    *size = end;
    *ret_count = count;
    return WEIR_OK;
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

static int look_at_head(int fd, uint64_t first_seq, bool *ret_is_whole)
{
    unsigned char head[WEIR__SEGMENT_HEAD];
    size_t n;
    int rc = weir__file_read(fd, 0, head, sizeof head, &n);
    if (rc == WEIR_OK) /* (of an empty file there is nothing to miss) */
        *ret_is_whole = n == 0 || (n == sizeof head && weir__segment_is_head(head, first_seq));
    return rc;
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

/* Reads a file of acknowledgements, up to what is damaged or torn, and cuts that off. */
static int read_acks_from(int fd, weir__segment *segment)
{
    unsigned char entries[128 * WEIR__ACK_ENTRY];
    uint64_t offset = 0;
    size_t n = 0, used;
    int rc;
    do {
        rc = weir__file_read(fd, offset, entries, sizeof entries, &n);
        weir__ack ack;
        for (used = 0; rc == WEIR_OK && n - used >= WEIR__ACK_ENTRY &&
                       weir__ack_read(entries + used, segment->first_seq, &ack);
             used += WEIR__ACK_ENTRY)
            rc = acknowledge(segment, ack) ? WEIR_OK : WEIR_ENOMEM;
        offset += used;
    } while (rc == WEIR_OK && used == sizeof entries);
    if (rc == WEIR_OK)
        weir__file_truncate(fd, offset);
    return rc;
}

static int read_acks(weir_spill *spill, weir__segment *segment)
{
    char name[WEIR__SEGMENT_NAME];
    int fd;
    weir__segment_name(name, segment->first_seq, WEIR__FILE_ACKS);
    int rc = weir__file_open(spill->dir, name, WEIR__FILE_MEND, &fd);
    if (rc == WEIR_EEMPTY || rc == WEIR_EINVAL)
        return WEIR_OK; /* there are none */
    if (rc == WEIR_OK) {
        rc = read_acks_from(fd, segment);
        weir__file_close(fd);
    }
    return rc < 0 ? say(spill, segment->first_seq, WEIR__FILE_ACKS, rc) : rc;
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

/* A segment's file, as it was found. */
typedef struct look {
    uint64_t size, count; /* where its last record ends, if it has no end; what it says of itself */
    uint64_t found;       /* bytes */
    bool is_whole;        /* its head */
    bool has_end;
} look;

/* At what is open; changes nothing. */
static int look_at(weir__reader *reader, look *ret)
{
    *ret = (look){0};
    int rc = weir__file_size(reader->fd, &ret->size);
    ret->found = ret->size;
    if (rc == WEIR_OK)
        rc = look_at_head(reader->fd, reader->first_seq, &ret->is_whole);
    if (rc == WEIR_OK)
        rc = count_by_end(reader->fd, reader->first_seq, ret->size, &ret->count);
    ret->has_end = ret->count > 0;
    if (rc == WEIR_OK && !ret->has_end)
        rc = count_by_walk(reader, &ret->size, &ret->count);
    return rc;
}

static void note_damage(weir_spill *spill, uint64_t bytes)
{
    spill->now.segments_damaged++;
    spill->now.bytes_skipped += bytes;
    spill->damage_to_tell++;
}

/* Numbers from next_first on belong to the next segment. */
static int recover_segment(weir_spill *spill, uint64_t first_seq, uint64_t next_first)
{
    look l;
    if (first_seq >= spill->next_seq)
        spill->next_seq = first_seq + 1; /* whatever it is, the name is taken */
    int rc = weir__reader_open(&spill->reader, spill, first_seq);
    if (rc == WEIR_EINVAL || rc == WEIR_EEMPTY) { /* a link, a folder, or gone: not ours */
        note_damage(spill, 0);
        return WEIR_OK;
    }
    if (rc == WEIR_OK)
        rc = look_at(&spill->reader, &l);
    weir__reader_close(&spill->reader);
    if (rc < 0)
        return say(spill, first_seq, spill->kind, rc);
    uint64_t up_to_next = next_first - first_seq;
    if (!l.is_whole)
        note_damage(spill, l.count > 0 ? WEIR__SEGMENT_HEAD : l.found);
    uint64_t count = l.has_end ? l.count : count_by_next(spill, l.count, up_to_next);
    if (count > 0 && !l.has_end)
        give_end(spill, first_seq, count, &l.size);
    if (count > up_to_next)
        count = up_to_next;
    if (count == 0) {
        remove_named(spill, first_seq, spill->kind);
        remove_named(spill, first_seq, WEIR__FILE_ACKS);
        return WEIR_OK;
    }
    rc = add(spill, first_seq, count, l.size);
    if (rc == WEIR_OK && !l.is_whole && spill->n_segments > 0 &&
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
