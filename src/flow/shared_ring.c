/* shared_ring.c - see shared_ring.h. */
#include "flow/shared_ring.h"

#include <assert.h>
#include <string.h>

#include "base/memfd.h"
#include "base/words.h"

#define ALIGN UINT64_C(16) /* of records: their header never lies across two chunks */

_Static_assert(sizeof(weir__ring_record) == ALIGN, "a header is as long as it is aligned");
_Static_assert(sizeof(weir__tide) == 64, "one line of cache");

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static uint64_t footprint(uint64_t size)
{
    return sizeof(weir__ring_record) + round_up(size, ALIGN);
}

uint32_t weir__ring_chunks(uint64_t capacity, uint64_t max_bytes)
{
    uint64_t most = max_bytes + capacity * (sizeof(weir__ring_record) + ALIGN - 1);
    return (uint32_t)(most / WEIR__CHUNK + 2); /* one begun at each end */
}

uint32_t weir__ring_table_size(uint32_t n_chunks)
{
    uint32_t size = 1;
    while (size < n_chunks)
        size *= 2;
    return size;
}

void weir__ring_init(weir__ring *ring)
{
    for (uint32_t i = 0; i < ring->n_chunks; i++)
        ring->stack[i] = ring->n_chunks - 1 - i; /* all bare; the first is popped first */
}

/* ---- versions ------------------------------------------------------------------------------- */

/* Words: the lock orders writers, and look checks afterwards that it was not overtaken. */

static void load_losses(const weir__ring_shared *shared, uint64_t commit, weir__losses *ret)
{
    weir__words_load(ret, shared->losses[commit >> 1 & 1], WEIR__LOSSES_WORDS);
}

void weir__ring_look(const weir__ring *ring, weir__tide *ret_tide, weir__losses *ret_losses)
{
    const weir__ring_shared *shared = ring->shared;
    uint64_t before, after;
    do {
        /* acquire: pairs with the release in commit; what it put in force is visible */
        before = atomic_load_explicit(&shared->commit, memory_order_acquire);
        weir__words_load(ret_tide, shared->tide[before & 1], WEIR__TIDE_WORDS);
        load_losses(shared, before, ret_losses);
        /* pairs with the release fence in commit: had we read a word of a later version, the
         * commit before that one would be visible here */
        atomic_thread_fence(memory_order_acquire);
        after = atomic_load_explicit(&shared->commit, memory_order_relaxed);
    } while (before != after);
}

/* Chunks of the stream that have one of the file, when [head, tail) is inside. */
static uint32_t mapped(uint64_t head, uint64_t tail)
{
    return (uint32_t)((tail + WEIR__CHUNK - 1) / WEIR__CHUNK - head / WEIR__CHUNK);
}

/* What holds of every tide that was committed.  One of which it does not hold was written over. */
static bool is_whole(const weir__ring *ring, const weir__tide *now)
{
    uint64_t inside = now->tail - now->head;
    if ((now->head | now->tail) % ALIGN != 0 || now->head > now->tail ||
        now->tail > UINT64_MAX - WEIR__CHUNK || inside > (uint64_t)ring->n_chunks * WEIR__CHUNK)
        return false;
    uint32_t in_use = inside > 0 ? mapped(now->head, now->tail) : 0;
    return in_use <= ring->n_chunks && now->spare <= ring->n_chunks - in_use &&
           now->depth <= inside / ALIGN && (now->depth == 0) == (inside == 0) &&
           now->bytes <= inside;
}

static void begin(weir__change *change, weir__ring *ring)
{
    uint64_t commit = atomic_load_explicit(&ring->shared->commit, memory_order_relaxed);
    change->ring = ring;
    weir__words_load(&change->now, ring->shared->tide[commit & 1], WEIR__TIDE_WORDS);
    change->has_losses = change->appended = change->popped = false;
    change->released = 0;
}

static void lose_all(weir__change *change);

void weir__change_begin(weir__change *change, weir__ring *ring)
{
    begin(change, ring);
    if (!is_whole(ring, &change->now)) {
        lose_all(change);
        weir__change_commit(change);
        begin(change, ring);
    }
    change->bare = ring->n_chunks - change->now.spare - mapped(change->now.head, change->now.tail);
}

/* The number of a chunk, as the table or the stack says; one that cannot be is that of some chunk: what is
 * read there is as wrong as the number was, but it is in the file. */
static uint64_t chunk_of(const weir__ring *ring, const uint32_t *number)
{
    uint32_t chunk = *(const volatile uint32_t *)number; /* once: others may write there */
    return chunk < ring->n_chunks ? chunk : 0;
}

static void release_memory(weir__change *change)
{
    weir__ring *ring = change->ring;
    for (uint32_t i = 0; i < change->released; i++) {
        uint64_t chunk = chunk_of(ring, &ring->stack[ring->n_chunks - change->bare + i]);
        weir__memfd_release(ring->fd, ring->chunks_offset + chunk * WEIR__CHUNK, WEIR__CHUNK);
    }
}

void weir__change_commit(weir__change *change)
{
    weir__ring_shared *shared = change->ring->shared;
    uint64_t commit = atomic_load_explicit(&shared->commit, memory_order_relaxed);
    uint64_t next = (commit & ~UINT64_C(1)) + 4 + (~commit & 1);
    /* pairs with the acquire fence in look: whoever sees a word of this version sees that the one
     * before it, which lay in the same place, is no longer in force */
    atomic_thread_fence(memory_order_release);
    weir__words_store(shared->tide[next & 1], &change->now, WEIR__TIDE_WORDS);
    if (change->has_losses) {
        next ^= 2;
        weir__words_store(shared->losses[next >> 1 & 1], &change->losses, WEIR__LOSSES_WORDS);
    }
    /* release: the message, the table, the stack and the version come before, for look and for
     * whoever finds us killed; the fence: what the next change writes comes after */
    atomic_store_explicit(&shared->commit, next, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
    if (change->released)
        release_memory(change);
}

/* ---- the stream ----------------------------------------------------------------------------- */

static char *locate(const weir__ring *ring, uint64_t at)
{
    uint64_t chunk = chunk_of(ring, &ring->table[at / WEIR__CHUNK & ring->table_mask]);
    return ring->chunks + chunk * WEIR__CHUNK + at % WEIR__CHUNK;
}

static size_t piece(uint64_t at, size_t size)
{
    uint64_t rest = WEIR__CHUNK - at % WEIR__CHUNK;
    return size < rest ? size : (size_t)rest;
}

static void write_bytes(weir__ring *ring, uint64_t at, const char *data, size_t size)
{
    for (size_t n; size > 0; at += n, data += n, size -= n) {
        n = piece(at, size);
        memcpy(locate(ring, at), data, n);
    }
}

static void read_bytes(const weir__ring *ring, uint64_t at, char *data, size_t size)
{
    for (size_t n; size > 0; at += n, data += n, size -= n) {
        n = piece(at, size);
        memcpy(data, locate(ring, at), n);
    }
}

/* Gives the stream's chunks up to `tail` a place in the file. */
static int extend(weir__change *change, uint64_t tail)
{
    weir__ring *ring = change->ring;
    uint32_t spare = change->now.spare, bare = change->bare;
    uint64_t end = (tail + WEIR__CHUNK - 1) / WEIR__CHUNK;
    for (uint64_t v = (change->now.tail + WEIR__CHUNK - 1) / WEIR__CHUNK; v < end; v++) {
        uint32_t chunk;
        if (spare > 0) {
            chunk = (uint32_t)chunk_of(ring, &ring->stack[--spare]);
        } else if (bare == 0) {
            return WEIR_ENOSHM; /* the bounds were written over: the file has no more */
        } else {
            chunk = (uint32_t)chunk_of(ring, &ring->stack[ring->n_chunks - bare]);
            int rc = weir__memfd_reserve(ring->fd, ring->chunks_offset + chunk * WEIR__CHUNK,
                                         WEIR__CHUNK);
            if (rc < 0)
                return rc;
            bare--;
        }
        ring->table[v & ring->table_mask] = chunk;
    }
    change->now.spare = spare;
    change->bare = bare;
    return WEIR_OK;
}

int weir__change_append(weir__change *change, const weir_message *message, int64_t since)
{
    assert(!change->popped);
    weir__tide *now = &change->now;
    uint64_t tail = now->tail + footprint(message->size);
    if (tail / WEIR__CHUNK != now->tail / WEIR__CHUNK || now->tail % WEIR__CHUNK == 0) {
        int rc = extend(change, tail);
        if (rc < 0)
            return rc;
    }
    weir__ring_record *record = (weir__ring_record *)locate(change->ring, now->tail);
    *record = (weir__ring_record){(uint32_t)message->size, message->tag, since};
    write_bytes(change->ring, now->tail + sizeof *record, message->data, message->size);
    now->tail = tail;
    now->depth++;
    now->bytes += message->size;
    now->accepted++;
    now->accepted_bytes += message->size;
    change->appended = true;
    return WEIR_OK;
}

weir__ring_record weir__change_peek(const weir__change *change, uint64_t at, uint64_t *ret_next)
{
    weir__ring_record record = {0};
    uint64_t left = change->now.tail - at;
    *ret_next = change->now.tail;
    if (left < sizeof record)
        return record;
    memcpy(&record, locate(change->ring, at), sizeof record);
    if (footprint(record.size) > left)
        record.size = (uint32_t)(left - sizeof record);
    *ret_next = at + footprint(record.size);
    return record;
}

/* Takes the chunks of the stream before `head` out of use. */
static void retract(weir__change *change, uint64_t head)
{
    weir__ring *ring = change->ring;
    for (uint64_t v = change->now.head / WEIR__CHUNK; v < head / WEIR__CHUNK; v++) {
        uint32_t chunk = ring->table[v & ring->table_mask];
        if (change->now.spare < WEIR__SPARE_MAX) {
            ring->stack[change->now.spare++] = chunk;
        } else {
            change->bare++;
            change->released++;
            ring->stack[ring->n_chunks - change->bare] = chunk;
        }
    }
}

static weir__losses *losses_of(weir__change *change)
{
    if (!change->has_losses) {
        uint64_t commit = atomic_load_explicit(&change->ring->shared->commit, memory_order_relaxed);
        load_losses(change->ring->shared, commit, &change->losses);
        change->has_losses = true;
    }
    return &change->losses;
}

static void count_drop(weir__change *change, uint64_t size, weir_drop_reason reason)
{
    weir__losses *losses = losses_of(change);
    losses->dropped[reason]++;
    losses->dropped_bytes[reason] += size;
}

/* Of a tide that was written over: nothing is inside, and what was is lost, as far as the counts tell.  Begins
 * anew in all memory; should this process be killed meanwhile, the next one finds the same and does it again. */
static void lose_all(weir__change *change)
{
    weir__ring *ring = change->ring;
    weir__tide *now = &change->now;
    weir__losses *losses = losses_of(change);
    losses->dropped[WEIR_DROP_LOST] = now->accepted - now->delivered;
    losses->dropped_bytes[WEIR_DROP_LOST] = now->accepted_bytes - now->delivered_bytes;
    for (int i = 0; i < WEIR_DROP_LOST; i++) {
        losses->dropped[WEIR_DROP_LOST] -= losses->dropped[i];
        losses->dropped_bytes[WEIR_DROP_LOST] -= losses->dropped_bytes[i];
    }
    now->head = now->tail = now->bytes = 0;
    now->depth = now->spare = 0;
    weir__ring_init(ring);
    weir__memfd_release(ring->fd, ring->chunks_offset, (uint64_t)ring->n_chunks * WEIR__CHUNK);
}

void weir__change_pop(weir__change *change, void *to, size_t room, int reason)
{
    assert(!change->appended && change->now.depth > 0);
    weir__tide *now = &change->now;
    uint64_t next;
    uint64_t size = weir__change_peek(change, now->head, &next).size;
    if (to)
        read_bytes(change->ring, now->head + sizeof(weir__ring_record), to,
                   size < room ? size : room);
    if (next / WEIR__CHUNK != now->head / WEIR__CHUNK)
        retract(change, next);
    now->head = next;
    now->depth--;
    now->bytes -= size;
    if (reason >= 0) {
        count_drop(change, size, (weir_drop_reason)reason);
    } else {
        now->delivered++;
        now->delivered_bytes += size;
    }
    change->popped = true;
}

void weir__change_drop_new(weir__change *change, uint64_t size, weir_drop_reason reason)
{
    change->now.accepted++;
    change->now.accepted_bytes += size;
    count_drop(change, size, reason);
}
