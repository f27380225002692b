/* spill.c - a log of records in segment files; the contract is <weir/spill.h>.
 *
 * Appending:     one at a time, under the mutex, at the end of the active segment.  A write that fails is
 *                cut off again, so the file always ends with a whole record.
 * Group commit:  who needs the disk lines up in `commits`.  One of them syncs, without the mutex, for all
 *                whose record was written before; those who come meanwhile are for the next round.
 * A failed sync: says nothing about what is on the disk, and a second one may say "fine" although pages
 *                are gone.  So its records are taken back, and the file is not written to any more.
 * Settled:       acknowledged or lost.  A segment is removed when all of it is settled; the active one
 *                when its room is worth a new file, or is needed.  A reader may have it open, so its
 *                bytes are given back, too.
 */
#include "flow/spill_impl.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/park.h"

#define SEGMENT_BYTES_MIN     512
#define SEGMENT_BYTES_DEFAULT (UINT64_C(16) << 20)
#define MAX_BYTES_MIN         4096
#define ACTIVE_KEPT           65536 /* bytes: the active segment stays, settled, up to there */
#define SHARE                 8     /* see takes_too_much */
#define LOG_ACKS_EVERY        (10 * WEIR_MILLISECOND)

_Static_assert(WEIR_SPILL_NAME == WEIR__SEGMENT_NAME,
               "a name of a file, as the caller has room for it");

/* What a file takes beside its records. */
#define FRAME (WEIR__SEGMENT_HEAD + WEIR__RECORD_HEAD)

/* ---- records, outside --------------------------------------------------------------------------- */

int weir_record_add(weir_record *record, const void *data, size_t n)
{
    if (n > record->capacity - record->size) {
        size_t least = record->size + n, capacity = record->capacity * 2;
        if (least < n)
            return WEIR_ENOMEM;
        capacity = capacity < least ? least : capacity;
        unsigned char *grown = weir__realloc(record->data, capacity);
        if (!grown)
            return WEIR_ENOMEM;
        record->data = grown;
        record->capacity = capacity;
    }
    if (n > 0)
        memcpy(record->data + record->size, data, n);
    record->size += n;
    return WEIR_OK;
}

void weir_record_free(weir_record *record)
{
    weir__free(record->data);
    *record = (weir_record){0};
}

/* ---- bits ----------------------------------------------------------------------------------- */

bool weir__bits_reserve(weir__bits *bits, uint64_t n)
{
    size_t words = (size_t)((n + 63) / 64);
    if (words <= bits->n)
        return true;
    words = words < 2 * bits->n ? 2 * bits->n : words;
    uint64_t *grown = weir__realloc(bits->words, words * sizeof *grown);
    if (!grown)
        return false;
    memset(grown + bits->n, 0, (words - bits->n) * sizeof *grown);
    bits->words = grown;
    bits->n = words;
    return true;
}

bool weir__bits_has(const weir__bits *bits, uint64_t i)
{
    return i / 64 < bits->n && bits->words[i / 64] >> i % 64 & 1;
}

void weir__bits_set(weir__bits *bits, uint64_t i)
{
    bits->words[i / 64] |= UINT64_C(1) << i % 64;
}

static void forget_bits(weir__bits *bits)
{
    weir__free(bits->words);
    *bits = (weir__bits){0};
}

/* ---- segments ------------------------------------------------------------------------------- */

/* How many have a first number <= seq. */
static size_t count_up_to(const weir_spill *spill, uint64_t seq)
{
    size_t low = 0, high = spill->n_segments;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (spill->segments[middle]->first_seq <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

weir__segment *weir__spill_segment(const weir_spill *spill, uint64_t seq)
{
    size_t i = count_up_to(spill, seq);
    if (i > 0 && seq - spill->segments[i - 1]->first_seq < spill->segments[i - 1]->count)
        return spill->segments[i - 1];
    return i < spill->n_segments ? spill->segments[i] : NULL;
}

/* The one that has the number; NULL: none has. */
static weir__segment *segment_of(const weir_spill *spill, uint64_t seq)
{
    weir__segment *segment = weir__spill_segment(spill, seq);
    return segment && segment->first_seq <= seq ? segment : NULL;
}

weir__segment *weir__spill_add_segment(weir_spill *spill, uint64_t first_seq)
{
    if (spill->n_segments == spill->segments_capacity) {
        size_t capacity = spill->segments_capacity ? spill->segments_capacity * 2 : 8;
        weir__segment **grown = weir__realloc(spill->segments, capacity * sizeof *grown);
        if (!grown)
            return NULL;
        spill->segments = grown;
        spill->segments_capacity = capacity;
    }
    weir__segment *segment = weir__calloc(1, sizeof *segment);
    if (!segment)
        return NULL;
    segment->first_seq = first_seq;
    spill->segments[spill->n_segments++] = segment;
    return segment;
}

static void remove_file(const weir_spill *spill, uint64_t first_seq, weir__segment_file kind)
{
    char name[WEIR__SEGMENT_NAME];
    weir__segment_name(name, first_seq, kind);
    weir__file_remove(spill->dir, name);
}

static void free_segment(weir__segment *segment)
{
    forget_bits(&segment->acked);
    forget_bits(&segment->kept);
    weir__free(segment);
}

/* Forgets it; its files are removed, or stay. */
static void drop_segment(weir_spill *spill, weir__segment *segment)
{
    size_t i = count_up_to(spill, segment->first_seq) - 1;
    assert(spill->segments[i] == segment);
    memmove(spill->segments + i, spill->segments + i + 1,
            (--spill->n_segments - i) * sizeof(*spill->segments));
    spill->now.bytes -= segment->bytes;
    free_segment(segment);
}

/* It is not written to any more. */
static void close_active(weir_spill *spill)
{
    weir__file_close(spill->fd);
    spill->fd = -1;
    spill->active = NULL;
}

static void forget_unlogged(weir_spill *spill, uint64_t first_seq)
{
    size_t kept = 0;
    for (size_t i = 0; i < spill->n_unlogged; i++)
        if (spill->unlogged[i].first_seq != first_seq)
            spill->unlogged[kept++] = spill->unlogged[i];
    spill->n_unlogged = kept;
}

/* Removes a segment's file.  Its bytes go at once, whoever has it open: on a full disk others wait for
 * them.  Not before the name: an empty file that has one speaks of records that are lost. */
static void remove_bytes(const weir_spill *spill, uint64_t first_seq)
{
    char name[WEIR__SEGMENT_NAME];
    int fd = -1;
    weir__segment_name(name, first_seq, spill->kind);
    weir__file_open(spill->dir, name, WEIR__FILE_MEND, &fd);
    weir__file_remove(spill->dir, name);
    if (fd >= 0)
        weir__file_truncate(fd, 0);
    weir__file_close(fd);
}

/* Whether the segment is to go.  The active one: if that is worth it, and nobody waits for its sync. */
static bool is_done_with(const weir_spill *spill, const weir__segment *segment)
{
    if (segment->settled < segment->count || (segment->is_unread && spill->now.durable))
        return false;
    if (segment != spill->active)
        return true;
    bool is_synced =
        !spill->syncing && (!spill->now.durable || spill->synced == spill->next_seq - 1);
    return is_synced && segment->count > 0 &&
           (segment->bytes > ACTIVE_KEPT || spill->said == WEIR_SPILL_DISK_FULL);
}

void weir__spill_remove_settled(weir_spill *spill, weir__segment *segment)
{
    if (!is_done_with(spill, segment))
        return;
    if (segment == spill->active)
        close_active(spill);
    remove_bytes(spill, segment->first_seq);
    if (spill->now.durable) {
        /* In this order: acknowledgements alone say nothing, records alone would come again. */
        remove_file(spill, segment->first_seq, WEIR__FILE_ACKS);
        forget_unlogged(spill, segment->first_seq);
    }
    drop_segment(spill, segment);
}

/* One record more is settled. */
static void settle(weir__segment *segment, uint64_t seq)
{
    weir__bits_set(&segment->acked, seq - segment->first_seq);
    segment->settled++;
}

/* ---- damage --------------------------------------------------------------------------------- */

void weir__spill_note_damage(weir_spill *spill, weir__segment *segment, uint64_t bytes)
{
    spill->now.bytes_skipped += bytes;
    if (segment->is_damaged)
        return;
    segment->is_damaged = true;
    spill->now.segments_damaged++;
    spill->damage_to_tell++;
}

bool weir__spill_lose(weir_spill *spill, weir__segment *segment, uint64_t from, uint64_t to)
{
    if (from < to && !weir__bits_reserve(&segment->acked, to - segment->first_seq))
        return false;
    for (uint64_t seq = from; seq < to; seq++) {
        uint64_t i = seq - segment->first_seq;
        if (weir__bits_has(&segment->acked, i) || weir__bits_has(&segment->kept, i))
            continue;
        settle(segment, seq);
        spill->now.records_lost++;
        spill->now.pending--;
        spill->unread--;
    }
    return true;
}

void weir__spill_tell_damage(weir_spill *spill)
{
    weir__lock(&spill->mutex);
    unsigned n = spill->damage_to_tell;
    spill->damage_to_tell = 0;
    weir__unlock(&spill->mutex);
    for (; spill->on_event && n > 0; n--)
        spill->on_event(WEIR_SPILL_DAMAGE, spill->event_ctx);
}

/* ---- logging acknowledgements ---------------------------------------------------------------- */

/* Writes those of one segment, and forgets them.  What cannot be written is delivered again. */
static void log_acks_of(weir_spill *spill, uint64_t first_seq)
{
    unsigned char entries[WEIR__UNLOGGED_MAX * WEIR__ACK_ENTRY];
    size_t n = 0;
    for (size_t i = 0; i < spill->n_unlogged; i++)
        if (spill->unlogged[i].first_seq == first_seq)
            weir__ack_write(entries + WEIR__ACK_ENTRY * n++, first_seq, spill->unlogged[i].ack);
    forget_unlogged(spill, first_seq);
    char name[WEIR__SEGMENT_NAME];
    weir__segment_name(name, first_seq, WEIR__FILE_ACKS);
    int fd;
    if (weir__file_open(spill->dir, name, WEIR__FILE_APPEND, &fd) < 0)
        return;
    weir__file_append(fd, entries, n * WEIR__ACK_ENTRY);
    weir__file_close(fd);
}

static void log_acks(weir_spill *spill)
{
    while (spill->n_unlogged > 0)
        log_acks_of(spill, spill->unlogged[0].first_seq);
    spill->unlogged_calls = 0;
}

/* Notes an acknowledgement to be written: with the others, soon. */
static void log_ack(weir_spill *spill, const weir__segment *segment, uint64_t seq)
{
    uint32_t index = (uint32_t)(seq - segment->first_seq);
    weir__unlogged *last =
        spill->n_unlogged > 0 ? &spill->unlogged[spill->n_unlogged - 1] : &spill->unlogged[0];
    bool goes_on = spill->n_unlogged > 0 && last->first_seq == segment->first_seq &&
                   last->ack.index + last->ack.n == index;
    if (goes_on)
        last->ack.n++;
    else
        spill->unlogged[spill->n_unlogged++] =
            (weir__unlogged){segment->first_seq, {.index = index, .n = 1}};
    weir_time now = weir_now();
    if (++spill->unlogged_calls >= WEIR__UNLOGGED_MAX || spill->now.pending == 0 ||
        now - spill->logged_at >= LOG_ACKS_EVERY) {
        log_acks(spill);
        spill->logged_at = now;
    }
}

/* ---- waiting for the disk ------------------------------------------------------------------- */

/* Until the thread that syncs is done with its round. */
static void wait_for_round(weir_spill *spill)
{
    uint32_t round = atomic_load_explicit(&spill->round, memory_order_relaxed);
    weir__unlock(&spill->mutex);
    weir__futex_sleep(&spill->round, round, WEIR_FOREVER);
    weir__lock(&spill->mutex);
}

/* Takes a record back that was written and cannot be relied on; nobody could read it. */
static void retract(weir_spill *spill, uint64_t seq)
{
    weir__segment *segment = segment_of(spill, seq);
    if (!weir__bits_has(&segment->kept, seq - segment->first_seq) && seq >= spill->cursor.seq)
        spill->unread--;
    settle(segment, seq);
    spill->now.appended--;
    spill->now.pending--;
    log_ack(spill, segment, seq); /* it may be on the disk all the same */
}

static void end_commits(weir_spill *spill, uint64_t up_to, int rc)
{
    for (weir__commit **link = &spill->commits, *c; (c = *link);) {
        if (c->seq > up_to) {
            link = &c->next;
            continue;
        }
        *link = c->next;
        if (rc < 0)
            retract(spill, c->seq);
        c->rc = rc;
        c->is_done = true;
    }
}

/* The active segment is not written to any more.  (What its end would say is in the names, or found out
 * by reading it.) */
static void abandon_active(weir_spill *spill)
{
    weir__segment *segment = spill->active;
    close_active(spill);
    bool is_untouched = segment->first_seq >= spill->cursor.seq && segment->settled == 0;
    if (is_untouched && !segment->kept.words)
        forget_bits(&segment->acked); /* made to retract by; reading it makes them again */
    weir__spill_remove_settled(spill, segment);
}

/* For all whose record is written.  The mutex is let go of meanwhile. */
static void sync_round(weir_spill *spill)
{
    assert(!spill->syncing && spill->active);
    uint64_t up_to = spill->next_seq - 1;
    spill->syncing = true;
    weir__unlock(&spill->mutex);
    int rc = weir__file_sync(spill->fd); /* nobody closes it while `syncing` */
    weir__lock(&spill->mutex);
    spill->syncing = false;
    spill->now.syncs++;
    if (rc < 0)
        up_to = spill->next_seq - 1; /* what was written meanwhile is in the same file */
    spill->synced = up_to;
    end_commits(spill, up_to, rc);
    if (rc < 0)
        abandon_active(spill);
    /* relaxed: the mutex orders what it says; the word only has to differ */
    atomic_fetch_add_explicit(&spill->round, 1, memory_order_relaxed);
    weir__futex_wake(&spill->round, INT32_MAX, false);
}

static int commit(weir_spill *spill, uint64_t seq)
{
    weir__commit c = {.next = spill->commits, .seq = seq};
    spill->commits = &c;
    while (!c.is_done) {
        if (spill->syncing)
            wait_for_round(spill);
        else
            sync_round(spill);
    }
    return c.rc;
}

/* ---- appending ------------------------------------------------------------------------------ */

/* Ends the active segment; or only gets nearer to that, and lets go of the mutex meanwhile. */
static void seal(weir_spill *spill)
{
    weir__segment *segment = spill->active;
    if (spill->syncing) {
        wait_for_round(spill);
        return;
    }
    if (spill->now.durable && spill->synced < spill->next_seq - 1) {
        sync_round(spill);
        return;
    }
    unsigned char end[WEIR__RECORD_HEAD];
    weir__record_end(end, spill->next_seq);
    weir__piece piece = {end, sizeof end};
    weir__file_write(spill->fd, segment->bytes - sizeof end, &piece,
                     1); /* or it is scanned later */
    abandon_active(spill);
}

static int open_segment(weir_spill *spill)
{
    char name[WEIR__SEGMENT_NAME];
    unsigned char head[WEIR__SEGMENT_HEAD];
    weir__segment_name(name, spill->next_seq, spill->kind);
    weir__segment_head(head, spill->next_seq);
    int fd = -1;
    int rc = weir__file_open(spill->dir, name, WEIR__FILE_NEW, &fd);
    if (rc < 0)
        return rc;
    weir__piece piece = {head, sizeof head};
    rc = weir__file_write(fd, 0, &piece, 1);
    if (rc == WEIR_OK && spill->now.durable)
        rc = weir__dir_sync(spill->dir);
    weir__segment *segment = rc == WEIR_OK ? weir__spill_add_segment(spill, spill->next_seq) : NULL;
    if (!segment) {
        weir__file_close(fd);
        weir__file_remove(spill->dir, name);
        return rc < 0 ? rc : WEIR_ENOMEM;
    }
    segment->bytes = FRAME;
    spill->now.bytes += FRAME;
    spill->active = segment;
    spill->fd = fd;
    return WEIR_OK;
}

/* Whether a record has to go to another file. */
static bool is_full(const weir_spill *spill, uint64_t size)
{
    const weir__segment *active = spill->active;
    bool fits = spill->now.bytes + size <= spill->now.max_bytes;
    return active && active->count > 0 &&
           (active->bytes + size > spill->segment_bytes || active->count == UINT32_MAX ||
            (!fits && active->settled == active->count)); /* its room is needed */
}

/* Whether a durable log would have more than its share of the disk.  A stage of a pipeline acknowledges
 * when the next one has the item: were all room its log's, neither could go on.  So a log may only hold
 * so many times what is left, and a smaller one always finds something. */
static bool takes_too_much(const weir_spill *spill, uint64_t size)
{
    return spill->now.durable &&
           (spill->now.bytes + size) / SHARE > weir__dir_free_bytes(spill->dir);
}

/* Makes an active segment that has room for a record of `size` bytes. */
static int make_room(weir_spill *spill, uint64_t size)
{
    while (is_full(spill, size))
        seal(spill);
    if (spill->now.bytes + size + (spill->active ? 0 : FRAME) > spill->now.max_bytes)
        return WEIR_EFULL;
    if (takes_too_much(spill, size))
        return WEIR_ENOSPC;
    return spill->active ? WEIR_OK : open_segment(spill);
}

/* Whether the memory for the record's bits is there. */
static bool reserve_bits(weir_spill *spill, bool kept)
{
    weir__segment *active = spill->active;
    bool may_retract = spill->now.durable;
    return (!(kept || may_retract) || weir__bits_reserve(&active->acked, active->count + 1)) &&
           (!kept || weir__bits_reserve(&active->kept, active->count + 1));
}

static int write_record(weir_spill *spill, const void *data, size_t n)
{
    static const unsigned char zeros[8];
    weir__segment *active = spill->active;
    unsigned char head[WEIR__RECORD_HEAD];
    weir__record_head(head, spill->next_seq, data, (uint32_t)n);
    weir__piece pieces[] = {{head, sizeof head}, {data, n}, {zeros, weir__record_padding(n)}};
    uint64_t at = active->bytes - WEIR__RECORD_HEAD;
    int rc = weir__file_write(spill->fd, at, pieces, 3);
    if (rc < 0)
        weir__file_truncate(spill->fd,
                            at); /* what cannot be cut off is written over, or no record */
    return rc;
}

/* The record is written: it is in the log. */
static uint64_t count_in(weir_spill *spill, uint64_t size, bool kept)
{
    weir__segment *active = spill->active;
    uint64_t seq = spill->next_seq++;
    active->count++;
    active->bytes += size;
    spill->now.bytes += size;
    spill->now.appended++;
    spill->now.pending++;
    if (!kept)
        spill->unread++;
    else if (spill->cursor.seq == seq) /* nothing before it is unread: reading goes on behind it */
        spill->cursor =
            (weir__cursor){seq + 1, active->first_seq, active->bytes - WEIR__RECORD_HEAD};
    if (kept)
        weir__bits_set(&active->kept, seq - active->first_seq);
    return seq;
}

/* Whether there is something to say about the disk, after an append. */
static bool has_news(weir_spill *spill, int rc)
{
    weir_spill_event event = rc == WEIR_OK       ? WEIR_SPILL_DISK_ROOM
                             : rc == WEIR_ENOSPC ? WEIR_SPILL_DISK_FULL
                                                 : WEIR_SPILL_DISK_ERROR;
    bool is_about_it = rc == WEIR_OK || rc == WEIR_ENOSPC || rc == WEIR_ESYSTEM;
    spill->now.refused += rc == WEIR_EFULL || rc == WEIR_ENOSPC;
    if (!is_about_it || event == spill->said)
        return false;
    spill->said = event;
    return true;
}

static int append(weir_spill *spill, const void *data, size_t n, bool kept, uint64_t *ret_seq)
{
    uint64_t size = weir__record_size(n);
    if (n > WEIR__RECORD_MAX || size + FRAME > spill->now.max_bytes) /* set at creation */
        return WEIR_ETOOBIG;
    uint64_t seq = 0;
    weir__lock(&spill->mutex);
    int rc = spill->closed ? WEIR_ECLOSED : make_room(spill, size);
    if (rc == WEIR_OK && !reserve_bits(spill, kept))
        rc = WEIR_ENOMEM;
    if (rc == WEIR_OK)
        rc = write_record(spill, data, n);
    if (rc == WEIR_OK) {
        seq = count_in(spill, size, kept);
        if (spill->now.durable)
            rc = commit(spill, seq);
    }
    bool tells = has_news(spill, rc);
    weir_spill_event event = spill->said;
    weir__unlock(&spill->mutex);
    if (tells && spill->on_event)
        spill->on_event(event, spill->event_ctx);
    if (rc == WEIR_OK && ret_seq)
        *ret_seq = seq;
    return rc;
}

int weir_spill_append(weir_spill *spill, const void *data, size_t n, uint64_t *ret_seq)
{
    return append(spill, data, n, false, ret_seq);
}

int weir_spill_append_kept(weir_spill *spill, const void *data, size_t n, uint64_t *ret_seq)
{
    return append(spill, data, n, true, ret_seq);
}

/* ---- acknowledging -------------------------------------------------------------------------- */

/* Whether somebody can have the record. */
static bool is_out(const weir_spill *spill, const weir__segment *segment, uint64_t seq)
{
    uint64_t i = seq - segment->first_seq;
    return i / 64 < segment->acked.n && !weir__bits_has(&segment->acked, i) &&
           (seq < spill->cursor.seq || weir__bits_has(&segment->kept, i));
}

void weir_spill_ack(weir_spill *spill, uint64_t seq)
{
    weir__lock(&spill->mutex);
    weir__segment *segment = segment_of(spill, seq);
    if (segment && is_out(spill, segment, seq)) {
        settle(segment, seq);
        spill->now.pending--;
        spill->now.acknowledged++;
        if (spill->now.durable && !is_done_with(spill, segment))
            log_ack(spill, segment, seq);
        weir__spill_remove_settled(spill, segment);
    }
    weir__unlock(&spill->mutex);
}

/* Under the mutex: the unread records of a segment, up to `end`.  false: no memory. */
static bool clear_segment(weir_spill *spill, weir__segment *segment, uint64_t end)
{
    uint64_t first = segment->first_seq;
    if (!weir__bits_reserve(&segment->acked, end - first))
        return false;
    for (uint64_t seq = spill->cursor.seq < first ? first : spill->cursor.seq; seq < end; seq++) {
        if (weir__bits_has(&segment->acked, seq - first) ||
            weir__bits_has(&segment->kept, seq - first))
            continue;
        settle(segment, seq);
        spill->unread--;
        spill->now.pending--;
        spill->now.acknowledged++;
        if (spill->now.durable)
            log_ack(spill, segment, seq);
    }
    /* The offset stays: what lies before the number is passed over. */
    spill->cursor.seq = end;
    weir__spill_remove_settled(spill, segment);
    return true;
}

void weir_spill_clear(weir_spill *spill)
{
    weir__lock(&spill->reading);
    weir__lock(&spill->mutex);
    uint64_t readable = spill->now.durable ? spill->synced + 1 : spill->next_seq;
    weir__segment *segment;
    while (spill->cursor.seq < readable &&
           (segment = weir__spill_segment(spill, spill->cursor.seq))) {
        uint64_t end = segment->first_seq + segment->count;
        if (!clear_segment(spill, segment, end < readable ? end : readable))
            break; /* the rest is still to be read */
    }
    weir__unlock(&spill->mutex);
    weir__unlock(&spill->reading);
}

/* ---- looking -------------------------------------------------------------------------------- */

int weir_spill_get_snapshot(weir_spill *spill, weir_spill_snapshot *ret_snapshot)
{
    if (ret_snapshot->size != sizeof(*ret_snapshot))
        return WEIR_EINVAL; /* there is one version so far */
    weir__lock(&spill->mutex);
    weir_spill_snapshot now = spill->now;
    now.segments = spill->n_segments;
    now.unread = spill->unread;
    now.disk_full = spill->said == WEIR_SPILL_DISK_FULL;
    weir__unlock(&spill->mutex);
    *ret_snapshot = now;
    return WEIR_OK;
}

/* ---- beginning and end ---------------------------------------------------------------------- */

/* false: an option is out of range. */
static bool read_options(weir_spill *spill, const weir_spill_opts *opts)
{
    uint64_t eighth = opts->max_bytes / 8;
    uint64_t by_default = eighth < SEGMENT_BYTES_DEFAULT ? eighth : SEGMENT_BYTES_DEFAULT;
    uint64_t segment_bytes = opts->segment_bytes ? opts->segment_bytes : by_default;
    if (!opts->dir || !*opts->dir || opts->max_bytes < MAX_BYTES_MIN ||
        opts->max_bytes > INT64_MAX || segment_bytes < SEGMENT_BYTES_MIN ||
        segment_bytes > opts->max_bytes)
        return false;
    spill->segment_bytes = segment_bytes;
    spill->kind = opts->durable ? WEIR__FILE_SEGMENT : WEIR__FILE_PASSING;
    spill->on_event = opts->on_event;
    spill->event_ctx = opts->event_ctx;
    spill->now.max_bytes = opts->max_bytes;
    spill->now.durable = opts->durable;
    return true;
}

static void free_spill(weir_spill *spill)
{
    for (size_t i = 0; i < spill->n_segments; i++)
        free_segment(spill->segments[i]);
    weir__free(spill->segments);
    weir__reader_fini(&spill->reader);
    weir__dir_close(spill->dir);
    weir__free(spill);
}

/* Under both mutexes. */
static void leave_directory(weir_spill *spill)
{
    while (spill->active)
        seal(spill);
    if (spill->now.durable)
        log_acks(spill);
    for (size_t i = 0; i < spill->n_segments; i++) {
        if (!spill->now.durable)
            remove_file(spill, spill->segments[i]->first_seq, spill->kind);
        free_segment(spill->segments[i]);
    }
    spill->n_segments = 0;
    spill->unread = 0;
    weir__dir_close(spill->dir);
    spill->dir = NULL;
    spill->closed = true;
}

int weir_spill_create(weir_spill **ret_spill, const weir_spill_opts *opts)
{
    if (opts->size != sizeof(*opts))
        return WEIR_EINVAL; /* there is one version so far */
    if (opts->ret_unreadable)
        opts->ret_unreadable[0] = '\0';
    weir_spill *spill = weir__calloc_line(sizeof(*spill));
    if (!spill)
        return WEIR_ENOMEM;
    spill->fd = spill->reader.fd = -1;
    spill->next_seq = 1;
    spill->now.size = sizeof(spill->now);
    spill->said = WEIR_SPILL_DISK_ROOM;
    weir__mutex_init(&spill->mutex);
    weir__mutex_init(&spill->reading);
    int rc = WEIR_EINVAL;
    if (!read_options(spill, opts))
        goto fail;
    rc = WEIR_ENOMEM;
    if (!weir__reader_init(&spill->reader))
        goto fail;
    rc = weir__dir_open(&spill->dir, opts->dir);
    if (rc == WEIR_OK && opts->durable)
        rc = weir__dir_sync_name(spill->dir);
    if (rc < 0)
        goto fail;
    rc = weir__spill_recover(spill);
    if (opts->ret_unreadable)
        memcpy(opts->ret_unreadable, spill->unreadable, sizeof spill->unreadable);
    if (rc < 0)
        goto fail;
    spill->synced = spill->next_seq - 1;
    weir__spill_tell_damage(spill);
    *ret_spill = spill;
    return WEIR_OK;

fail:
    free_spill(spill);
    return rc;
}

void weir_spill_close(weir_spill *spill)
{
    weir__lock(&spill->reading);
    weir__lock(&spill->mutex);
    if (!spill->closed)
        leave_directory(spill);
    weir__unlock(&spill->mutex);
    weir__unlock(&spill->reading);
}

void weir_spill_destroy(weir_spill *spill)
{
    if (!spill)
        return;
    weir_spill_close(spill);
    free_spill(spill);
}
