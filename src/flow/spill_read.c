/* spill_read.c - reading a spill's records back, past whatever is damaged.
 *
 * The file is not believed.  A length has to fit into the file and a number into its segment before
 * anything is done with them; every step goes forward in the file, or to the next one, so nothing in it
 * can make reading go round in circles.  Where no head lies, the next one is looked for at every eighth
 * byte; where a record's bytes are damaged its length still stands, so each byte is looked at once.
 *
 * Numbers tell what is missing: a gap before a record, or before the end of the segment, is lost.
 */
#include <assert.h>

#include "base/alloc.h"
#include "flow/spill_impl.h"

#include <string.h>

/* ---- a file through a buffer ---------------------------------------------------------------- */

bool weir__reader_init(weir__reader *reader)
{
    reader->fd = -1;
    reader->buffer = weir__malloc(WEIR__READ_BUFFER);
    return reader->buffer;
}

void weir__reader_close(weir__reader *reader)
{
    weir__file_close(reader->fd);
    reader->fd = -1;
    reader->n = 0;
    reader->error = 0;
}

void weir__reader_fini(weir__reader *reader)
{
    weir__reader_close(reader);
    weir__free(reader->buffer);
}

int weir__reader_open(weir__reader *reader, const weir_spill *spill, uint64_t first_seq)
{
    if (reader->fd >= 0 && reader->first_seq == first_seq)
        return WEIR_OK;
    weir__reader_close(reader);
    char name[WEIR__SEGMENT_NAME];
    weir__segment_name(name, first_seq, spill->kind);
    int rc = weir__file_open(spill->dir, name, WEIR__FILE_READ, &reader->fd);
    if (rc == WEIR_OK)
        reader->first_seq = first_seq;
    return rc;
}

/* The bytes at the offset; NULL: not n of them are there. */
static const unsigned char *fetch(weir__reader *reader, uint64_t offset, size_t n, uint64_t limit)
{
    if (offset > limit || n > limit - offset)
        return NULL;
    bool is_there = offset >= reader->at && offset - reader->at <= reader->n &&
                    n <= reader->n - (size_t)(offset - reader->at);
    if (!is_there) {
        uint64_t left = limit - offset;
        size_t wanted = left < WEIR__READ_BUFFER ? (size_t)left : WEIR__READ_BUFFER;
        reader->at = offset;
        int rc = weir__file_read(reader->fd, offset, reader->buffer, wanted, &reader->n);
        if (rc < 0) {
            reader->n = 0; /* a place that cannot be read is damaged */
            reader->error = rc;
        }
        if (reader->n < n)
            return NULL;
    }
    return reader->buffer + (offset - reader->at);
}

static bool is_plausible(const weir__found *found, uint64_t first_seq, uint64_t limit,
                         uint64_t seq_limit)
{
    uint64_t seq = found->record.seq;
    if (found->kind == WEIR__RECORD_END)
        return true; /* it only says that nothing follows */
    return seq >= first_seq && seq < seq_limit &&
           weir__record_size(found->record.n) <= limit - found->offset;
}

weir__found weir__reader_find(weir__reader *reader, uint64_t offset, uint64_t limit,
                              uint64_t seq_limit)
{
    weir__found found = {.offset = offset};
    for (; found.offset < limit; found.offset += 8) {
        const unsigned char *head = fetch(reader, found.offset, WEIR__RECORD_HEAD, limit);
        if (!head && limit - found.offset < WEIR__RECORD_HEAD)
            break;
        if (!head) { /* what cannot be read is passed over in larger steps */
            found.offset += WEIR__READ_BUFFER - 8;
            continue;
        }
        found.kind = weir__record_look(head, &found.record);
        if (found.kind != WEIR__RECORD_NONE &&
            is_plausible(&found, reader->first_seq, limit, seq_limit))
            return found;
    }
    found.kind = WEIR__RECORD_NONE;
    found.offset = limit;
    return found;
}

/* Makes room for n bytes of a record. */
static int make_room(weir_record *into, size_t n)
{
    if (n <= into->capacity)
        return WEIR_OK;
    unsigned char *grown = weir__realloc(into->data, n);
    if (!grown)
        return WEIR_ENOMEM;
    into->data = grown;
    into->capacity = n;
    return WEIR_OK;
}

/* Reads a record's bytes.  WEIR_EINVAL: they are damaged. */
static int load(weir__reader *reader, const weir__found *found, uint64_t limit, weir_record *into)
{
    size_t n = found->record.n, got = n;
    uint64_t at = found->offset + WEIR__RECORD_HEAD;
    int rc = make_room(into, n);
    if (rc < 0)
        return rc;
    const unsigned char *there = n <= WEIR__READ_BUFFER ? fetch(reader, at, n, limit) : NULL;
    if (there && n > 0)
        memcpy(into->data, there, n);
    else if (n > 0 && (rc = weir__file_read(reader->fd, at, into->data, n, &got)) < 0)
        reader->error = rc;
    if (rc < 0 || got < n || weir__crc32c(0, into->data, n) != found->record.crc)
        return WEIR_EINVAL;
    into->size = n;
    return WEIR_OK;
}

/* ---- the next record ------------------------------------------------------------------------ */

/* What may be read now, as of one instant. */
typedef struct view {
    weir__cursor cursor;
    uint64_t limit;     /* of the file */
    uint64_t seq_limit; /* the first number that is not there, or not on the disk yet */
    bool is_active;     /* there will be more */
} view;                 /* the reader's `error` is about it */

/* Under the mutex.  false: there is nothing. */
static bool look(weir_spill *spill, view *v)
{
    weir__cursor *cursor = &spill->cursor;
    const weir__segment *segment = weir__spill_segment(spill, cursor->seq);
    uint64_t readable = weir__spill_readable(spill);
    if (!segment || segment->first_seq >= readable || cursor->seq >= readable)
        return false;
    if (cursor->first_seq != segment->first_seq)
        *cursor = (weir__cursor){cursor->seq, segment->first_seq, WEIR__SEGMENT_HEAD};
    if (cursor->seq < segment->first_seq)
        cursor->seq = segment->first_seq;
    uint64_t end = segment->first_seq + segment->count;
    v->cursor = *cursor;
    v->is_active = segment == spill->active;
    v->limit = segment->bytes - (v->is_active ? WEIR__RECORD_HEAD : 0);
    v->seq_limit = end < readable ? end : readable;
    return true;
}

/* Under the mutex: of what lies before `found`, what is missing is lost; reading goes on there.  false:
 * no memory. */
static bool move_to(weir_spill *spill, const view *v, uint64_t seq, uint64_t offset,
                    uint64_t skipped)
{
    weir__segment *segment = weir__spill_segment(spill, v->cursor.first_seq);
    if (!segment || segment->first_seq != v->cursor.first_seq) { /* settled and removed meanwhile */
        if (spill->cursor.seq < seq)
            spill->cursor.seq = seq;
        return true;
    }
    uint64_t lost = spill->now.records_lost;
    if (!weir__spill_lose(spill, segment, v->cursor.seq, seq))
        return false;
    if (skipped > 0 || spill->now.records_lost > lost)
        weir__spill_note_damage(spill, segment, skipped);
    segment->is_unread |= spill->reader.error != 0 && spill->now.records_lost > lost;
    spill->cursor.seq = seq;
    spill->cursor.offset = offset;
    weir__spill_remove_settled(spill, segment);
    return true;
}

/* Under the mutex: whether a record is for nobody to read. */
static bool is_passed_over(const weir_spill *spill, uint64_t seq)
{
    const weir__segment *segment = weir__spill_segment(spill, seq);
    return !segment || segment->first_seq > seq ||
           weir__bits_has(&segment->acked, seq - segment->first_seq) ||
           weir__bits_has(&segment->kept, seq - segment->first_seq);
}

/* Under the mutex: the record is the caller's, who can acknowledge it. */
static bool hand_out(weir_spill *spill, uint64_t seq, uint64_t offset)
{
    weir__segment *segment = weir__spill_segment(spill, seq);
    if (!weir__bits_reserve(&segment->acked, seq - segment->first_seq + 1))
        return false;
    spill->unread--;
    spill->cursor.seq = seq + 1;
    spill->cursor.offset = offset;
    return true;
}

#define NEXT 1 /* beside a weir_error and WEIR_OK: look again */

/* Nothing more of what may be read now is in the file. */
static int end_of_view(weir_spill *spill, const view *v, uint64_t skipped)
{
    /* Behind what is not on the disk yet lies nothing that was looked at: there the offset stays. */
    uint64_t offset = v->is_active ? v->cursor.offset : v->limit;
    weir__lock(&spill->mutex);
    bool moved = move_to(spill, v, v->seq_limit, offset, skipped);
    weir__unlock(&spill->mutex);
    return moved ? NEXT : WEIR_ENOMEM;
}

/* The record that was found: hands it out, or goes past it. */
static int take(weir_spill *spill, view *v, const weir__found *found, weir_record *into,
                uint64_t *ret_seq)
{
    uint64_t seq = found->record.seq, skipped = found->offset - v->cursor.offset;
    uint64_t behind = found->offset + weir__record_size(found->record.n);
    if (seq < v->cursor.seq) { /* was read, or kept */
        weir__lock(&spill->mutex);
        bool moved = move_to(spill, v, v->cursor.seq, behind, skipped);
        weir__unlock(&spill->mutex);
        return moved ? NEXT : WEIR_ENOMEM;
    }
    weir__lock(&spill->mutex);
    bool is_ours = !is_passed_over(spill, seq);
    weir__unlock(&spill->mutex);
    int rc = is_ours ? load(&spill->reader, found, v->limit, into) : NEXT;
    if (rc == WEIR_ENOMEM)
        return rc;
    bool is_damaged = rc == WEIR_EINVAL;
    if (is_damaged)
        skipped += weir__record_size(found->record.n);
    weir__lock(&spill->mutex);
    bool moved = rc == WEIR_OK ? move_to(spill, v, seq, found->offset, skipped) &&
                                     hand_out(spill, seq, behind)
                               : move_to(spill, v, seq + 1, behind, skipped);
    weir__unlock(&spill->mutex);
    if (!moved)
        return WEIR_ENOMEM;
    if (rc == WEIR_OK)
        *ret_seq = seq;
    return rc == WEIR_OK ? WEIR_OK : NEXT;
}

/* NEXT: that was none. */
static int read_step(weir_spill *spill, weir_record *into, uint64_t *ret_seq)
{
    view v;
    weir__lock(&spill->mutex);
    bool is_there = look(spill, &v);
    weir__unlock(&spill->mutex);
    if (!is_there)
        return WEIR_EEMPTY;
    int rc = weir__reader_open(&spill->reader, spill, v.cursor.first_seq);
    if (rc == WEIR_ENOFD || rc == WEIR_ENOMEM)
        return rc;
    spill->reader.error = rc == WEIR_ESYSTEM ? rc : 0;
    if (rc < 0) /* it is gone, or is no file, or cannot be opened */
        return end_of_view(spill, &v, v.limit - v.cursor.offset);
    weir__found found = weir__reader_find(&spill->reader, v.cursor.offset, v.limit, v.seq_limit);
    if (found.kind != WEIR__RECORD)
        return end_of_view(spill, &v, found.offset - v.cursor.offset);
    return take(spill, &v, &found, into, ret_seq);
}

int weir_spill_read(weir_spill *spill, weir_record *into, uint64_t *ret_seq)
{
    uint64_t seq = 0;
    int rc;
    weir__lock(&spill->reading);
    do
        rc = read_step(spill, into, &seq);
    while (rc == NEXT);
    weir__unlock(&spill->reading);
    weir__spill_tell_damage(spill);
    if (rc == WEIR_OK)
        *ret_seq = seq;
    return rc;
}
