/* shared_queue.c - a shared queue whose memory somebody scribbles over, between calls of who uses it: the
 * header, both versions of the counts, the table, the stack, the messages, the line.  Not the locks: they are
 * the C library's, which believes what is in them.
 *
 * The input is a list of steps.  Whatever lies there, calls end, and touch nothing but the file and what is
 * the caller's; what a call returns is within the bounds of the call. */
#include "fuzz.h"

#include <fcntl.h>
#include <unistd.h>

#include "flow/shared_queue.c" /* for the layout of the file */

#define ONCE 8 /* messages of one call */

typedef struct victim {
    weir_shared_queue *queue; /* by which it is used; its mapping is scribbled over, too */
    weir_buffer buffer;
    uint64_t max_bytes;
} victim;

/* ---- scribbling ----------------------------------------------------------------------------- */

/* All of the file but the locks. */
static void *place(fuzz *f, const victim *v)
{
    shared *s = v->queue->shared;
    const weir__ring *ring = &v->queue->ring;
    uint64_t any = fuzz_number(f, 2);
    switch (fuzz_byte(f) % 9) {
    case 0: return (char *)s + any % (offsetof(shared, door) - 7);
    case 1: return &s->ring.commit;
    case 2: return (uint64_t *)s->ring.tide + any % (2 * WEIR__TIDE_WORDS);
    case 3: return (uint64_t *)s->ring.losses + any % (2 * WEIR__LOSSES_WORDS);
    case 4: return &ring->table[any % (ring->table_mask + 1)];
    case 5: return &ring->stack[any % ring->n_chunks];
    case 6: return ring->chunks + any % WEIR__CHUNK / 8 * 8; /* of the first chunk */
    case 7: return &s->line.waiting[any % WEIR__SIDES][any / 2 % (WEIR__PLACES / 64)];
    default:
        return (char *)&s->closed + any % (offsetof(shared, line) - offsetof(shared, closed) - 7);
    }
}

static void scribble(fuzz *f, victim *v)
{
    void *at = place(f, v);
    uint64_t number = fuzz_any(f);
    /* The chunks have memory only where they were used; a page is never between two of them. */
    weir__memfd_reserve(v->queue->ring.fd, v->queue->ring.chunks_offset, WEIR__CHUNK);
    memcpy(at, &number, fuzz_byte(f) & 1 ? sizeof(uint32_t) : sizeof number);
}

/* A place of the line: somebody waits there, who is not alive. */
static void scribble_place(fuzz *f, victim *v)
{
    weir__line *line = &v->queue->shared->line;
    size_t i = fuzz_byte(f);
    weir__place *place = &line->places[i];
    place->ticket = fuzz_any(f);
    place->cost = fuzz_any(f);
    place->called = (weir_time)fuzz_any(f);
    line->waiting[i % WEIR__SIDES][i / 64] |= UINT64_C(1) << i % 64;
}

/* ---- using it ------------------------------------------------------------------------------- */

static void put_some(fuzz *f, victim *v)
{
    static unsigned char bytes[100000];
    weir_message messages[ONCE];
    for (int i = 0; i < ONCE; i++)
        messages[i] = (weir_message){bytes, fuzz_number(f, 2) % (1 + fuzz_byte(f) * 400u), 7};
    int64_t n = weir_shared_queue_put_many(v->queue, messages, 1 + fuzz_byte(f) % ONCE, WEIR_POLL);
    must(n <= ONCE);
}

static void get_some(fuzz *f, victim *v)
{
    weir_message messages[ONCE];
    size_t max = 1 + fuzz_byte(f) % ONCE;
    int64_t n = weir_shared_queue_get_many(v->queue, messages, max, &v->buffer, WEIR_POLL, 0);
    must(n <= (int64_t)max);
    for (int64_t i = 0; i < n; i++) {
        must((const char *)messages[i].data >= (char *)v->buffer.data);
        must((const char *)messages[i].data + messages[i].size <=
             (char *)v->buffer.data + v->buffer.capacity);
        fuzz_touch(messages[i].data, messages[i].size);
    }
}

static void attach_again(victim *v)
{
    weir_shared_queue *other;
    if (weir_shared_queue_attach(&other, weir_shared_queue_fd(v->queue)) != WEIR_OK)
        return;
    weir_shared_queue_destroy(v->queue);
    v->queue = other;
}

static void step(fuzz *f, victim *v)
{
    weir_shared_queue_snapshot now = WEIR_SHARED_QUEUE_SNAPSHOT_INIT;
    switch (fuzz_byte(f) % 10) {
    case 0: put_some(f, v); break;
    case 1: get_some(f, v); break;
    case 2: weir_shared_queue_discard(v->queue); break;
    case 3: weir_shared_queue_close(v->queue); break;
    case 4: must(weir_shared_queue_get_snapshot(v->queue, &now) == WEIR_OK); break;
    case 5: attach_again(v); break;
    case 6: scribble_place(f, v); break;
    default: scribble(f, v); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    victim v = {0};
    opts.capacity = 1 + fuzz_byte(&f) % 32;
    opts.max_bytes = 1 + fuzz_number(&f, 3) % 300000;
    opts.overflow = (weir_overflow)(fuzz_byte(&f) % (WEIR_OVERFLOW_SAMPLE + 1));
    opts.max_age_ns = fuzz_byte(&f) & 1;
    opts.name = "";
    must(weir_shared_queue_create(&v.queue, &opts) == WEIR_OK);
    for (unsigned steps = fuzz_byte(&f) % 64; steps > 0; steps--)
        step(&f, &v);
    put_some(&f, &v);
    get_some(&f, &v);
    weir_shared_queue_destroy(v.queue);
    weir_buffer_free(&v.buffer);
    return 0;
}
