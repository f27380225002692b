/* queue_watermark.c - flow/queue: on_watermark is told of each change, one at a time, and of the last one. */
#include "queue_support.h"

#include <string.h>

#define NOTES                                                                                      \
    __attribute__((no_sanitize("thread"))) /* what the case notes is no part of what is proved */

static struct {
    bool above, is_telling;
    int changes;
} told;

/* Plainly written, too: one at a time, and each sees what the one before it wrote. */
static int written;

NOTES static void note_begin(bool above)
{
    prove_claim(!told.is_telling && told.above != above);
    told.is_telling = true;
    told.above = above;
    told.changes++;
}

NOTES static void note_end(void)
{
    told.is_telling = false;
}

static void on_watermark(bool above, void *ctx)
{
    (void)ctx;
    note_begin(above);
    prove_claim(above == (written % 2 == 0));
    written++;
    prove_yield(); /* no lock is held */
    note_end();
}

static void make(size_t capacity)
{
    weir_queue_opts opts = q_options(capacity, WEIR_OVERFLOW_BLOCK);
    opts.on_watermark = on_watermark;
    opts.high_items = 1;
    memset(&told, 0, sizeof told);
    written = 0;
    q_make(&opts);
}

NOTES static void end(void)
{
    weir_queue_snapshot s = WEIR_QUEUE_SNAPSHOT_INIT;
    prove_claim(weir_queue_get_snapshot(queue, &s) == WEIR_OK);
    prove_claim(s.above_high == told.above);
    prove_claim(s.depth < 2 || told.above);
    prove_claim(s.depth > 0 || !told.above);
    q_linearizable();
    q_end();
}

static void put_two(void *arg)
{
    (void)arg;
    q_put(1, WEIR_FOREVER);
    q_put(2, WEIR_FOREVER);
}

static void put_one(void *arg)
{
    (void)arg;
    q_put(9, WEIR_FOREVER);
}

static void get_two(void *arg)
{
    (void)arg;
    q_get(WEIR_FOREVER);
    q_get(WEIR_FOREVER);
}

static void get_one(void *arg)
{
    (void)arg;
    q_get(WEIR_FOREVER);
}

static void queue_watermark(void)
{
    make(2 + prove_pick(2));
    Q_TOGETHER(put_two, put_one, get_two);
    end();
}

PROVE_CASE(queue_watermark, "each change of the level is told, in order, and the last one, too");

NOTES static void queue_watermark_to_the_end(void)
{
    make(2);
    Q_TOGETHER(put_two, put_one, get_two, get_one);
    prove_claim(!told.above); /* before any other call could tell it */
    end();
}

PROVE_CASE(queue_watermark_to_the_end, "when all is gone, what was told last is that it is below");

static void discard(void *arg)
{
    (void)arg;
    q_discard();
}

static void queue_watermark_and_discard(void)
{
    make(3);
    Q_TOGETHER(put_two, put_one, discard, discard);
    end();
}

PROVE_CASE(queue_watermark_and_discard,
           "what is discarded brings the level down, and that is told");
