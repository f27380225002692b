/* queue.h - bounded FIFO shared by threads; the contract, quoted by weir_queue(3).
 *
 * Invariant, in items and in cost, at the instant of every snapshot:
 *     accepted == delivered + dropped (by reason) + depth + spilled
 * Bound:      depth <= capacity and cost <= max_cost, always (after a resize to less: from the
 *             moment the surplus was taken).  With bound_in_flight the bound covers depth plus
 *             what was taken and not yet reported done.
 * Ownership:  a put that returns >= 0 gave the item to the queue; one that returns < 0 left it
 *             with the caller.  Each item that the queue owned and no consumer will get goes to
 *             on_drop exactly once, on the thread whose call dropped it, before that call
 *             returns, with no lock held.
 * Order:      items leave in the order they were accepted; waiting putters and getters are
 *             served in the order they came; a later try never overtakes a waiter.  (A call joins
 *             the line, and counts as waiting, once it has spun without success for at most the
 *             time that a wake-up takes.)
 */
#ifndef WEIR_QUEUE_H
#define WEIR_QUEUE_H

#include <weir/base.h>
#include <weir/spill.h>
#include <weir/watermark.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_queue weir_queue;

/* Asked for by name, never a default. */
#define WEIR_UNBOUNDED SIZE_MAX

/* What a put does when the item does not fit. */
typedef enum weir_overflow {
    WEIR_OVERFLOW_BLOCK = 0,   /* wait for room until the deadline */
    WEIR_OVERFLOW_FAIL,        /* WEIR_EFULL at once, whatever the deadline */
    WEIR_OVERFLOW_DROP_NEWEST, /* take the item and drop it: WEIR_DROPPED */
    WEIR_OVERFLOW_DROP_OLDEST, /* drop from the head until the item fits */
    WEIR_OVERFLOW_SAMPLE,      /* above the high mark keep 1 of sample_keep_one_of, drop the others;
                                  when the queue is full, drop the newest */
    WEIR_OVERFLOW_SPILL,       /* write it to disk, and bring it back when its turn comes; as BLOCK
                                  where the disk is full; see weir_queue_opts.spill */
} weir_overflow;

/* Why on_drop was called.  Also indexes weir_queue_snapshot.dropped. */
typedef enum weir_drop_reason {
    WEIR_DROP_NEWEST = 0, /* no room, overflow is DROP_NEWEST or SAMPLE */
    WEIR_DROP_OLDEST,     /* made room for a newer one */
    WEIR_DROP_SAMPLED,    /* above the high mark and not the one to keep */
    WEIR_DROP_EXPIRED,    /* older than max_age when its turn came */
    WEIR_DROP_DISCARDED,  /* weir_queue_discard or weir_queue_destroy */
    WEIR_DROP_LOST,       /* spilled, and damaged on disk or refused by decode: no item is left to
                             hand out, so on_drop is not called */
    WEIR_DROP_REASONS     /* how many there are */
} weir_drop_reason;

/* "oldest", "expired", ...; static storage. */
WEIR_API const char *weir_drop_reason_name(int reason);

typedef void weir_drop_fn(void *item, weir_drop_reason reason, void *ctx);
WEIR_API void weir_drop_free(void *item, weir_drop_reason reason, void *ctx);   /* free(item) */
WEIR_API void weir_drop_ignore(void *item, weir_drop_reason reason, void *ctx); /* nothing */

/* How an item becomes bytes, and bytes an item again.  Called with no lock held, on the thread whose
 * put writes, and whose get, done or put brings items back. */
typedef struct weir_codec {
    /* Adds the item's bytes to *into.  < 0: the put returns that, and nothing happened. */
    int (*encode)(void *item, weir_record *into, void *ctx);
    /* Makes the item from its bytes.  WEIR_ENOMEM: it is tried again; another < 0: it is lost. */
    int (*decode)(const void *data, size_t n, void **ret_item, void *ctx);
    /* Frees what a put gave, once its bytes are on disk; and what was decoded, where a durable queue
     * is destroyed before anybody got it (it stays on disk).  NULL: nothing to free. */
    void (*release)(void *item, void *ctx);
    /* So many items were lost: damaged on disk, or refused by decode.  NULL: nobody asks. */
    void (*lost)(uint64_t n, void *ctx);
    void *ctx;
} weir_codec;

typedef struct weir_queue_opts {
    size_t size;            /* sizeof(weir_queue_opts); set by WEIR_QUEUE_OPTS_INIT */
    size_t capacity;        /* items, > 0 or WEIR_UNBOUNDED; required */
    uint64_t max_cost;      /* sum of costs (bytes, say); 0: no bound */
    int64_t max_age_ns;     /* items older than this are dropped when their turn comes; 0: none */
    weir_overflow overflow; /* default BLOCK */
    uint32_t sample_keep_one_of; /* for SAMPLE: >= 2; default 10 */
    size_t high_items;           /* high mark, < capacity.  Where neither high mark is set and
                                 on_watermark or SAMPLE is: 80 % of each bound there is, also
                                 after a resize */
    size_t low_items;            /* low mark, < high; 0: half of the high mark */
    uint64_t high_cost;          /* the same on cost; above when either is, below when both are */
    uint64_t low_cost;
    bool bound_in_flight;  /* what was taken counts until weir_queue_done */
    weir_drop_fn *on_drop; /* required: a leak should have to be written down */
    void *drop_ctx;
    weir_watermark_fn *on_watermark; /* of the depth, or the cost; NULL: none */
    void *watermark_ctx;
    weir_spill *spill; /* for SPILL, required: where to; for this queue alone; the caller's, and
                               destroyed after the queue */
    const weir_codec *codec; /* for SPILL, required; copied */
    const char
        *name; /* what weir_stats(3) calls it; up to 63 bytes of it are copied.  NULL: "queue-1"
                         and so on; "": other processes do not see it */
} weir_queue_opts;

#define WEIR_QUEUE_OPTS_INIT WEIR__SIZED(weir_queue_opts)

/* ---- spilling to disk ----------------------------------------------------------------------
 *
 * With SPILL, capacity and max_cost bound what is in memory, the spill's max_bytes what is on disk.
 * Once an item is on disk all later ones go there, so order is kept.  When what is in memory has
 * fallen to half of its bounds, whoever takes items brings more back, in batches.  Nobody waits for
 * an item while one is on disk; and getters see WEIR_ECLOSED when the disk is empty, too.  A put for
 * which there is no room on disk waits as with BLOCK, until what is on disk has become less.
 * The age of an item goes on on disk, by the wall clock.  Marks and item_fd are of what is in memory.
 * (A get with WEIR_POLL may see WEIR_EEMPTY while another thread is just bringing items back.)
 *
 * With a durable spill every put writes to the log before it returns, also those whose items stay in
 * memory (which are not read back).  A new queue over what an earlier process left delivers that first:
 * it counts as accepted, its cost when it is read.  weir_queue_destroy leaves on disk what is inside;
 * on_drop is not called for it. */

/* WEIR_EINVAL for an option out of range, WEIR_ENOMEM. */
WEIR_API int weir_queue_create(weir_queue **ret_queue, const weir_queue_opts *opts);

/* Discards what is inside and frees the queue (NULL is fine).  No other thread may be in a call
 * on it, or come to one: close it and join them first. */
WEIR_API void weir_queue_destroy(weir_queue *queue);

/* What a put that returned >= 0 did. */
#define WEIR_KEPT    0 /* the item is in the queue, or with a getter */
#define WEIR_DROPPED 1 /* the item was taken and dropped: on_drop has had it */
#define WEIR_EVICTED 2 /* of weir_queue_overflow only: the oldest item was dropped in its stead */

/* Puts one item (NULL is an item like any other).  cost is what it adds to the sum; 0 is fine.
 * < 0: WEIR_EFULL (FAIL, or BLOCK with WEIR_POLL), WEIR_ETIMEDOUT, WEIR_ECLOSED, WEIR_ETOOBIG
 * (cost > max_cost, or too long for the disk's bound), WEIR_EINTR, WEIR_ENOMEM; with SPILL what encode
 * returned, and durable WEIR_ENOFD, WEIR_ESYSTEM (the disk failed): the item is still the caller's. */
WEIR_API int weir_queue_put(weir_queue *queue, void *item, uint64_t cost, weir_time deadline);

/* Puts n items in order, each as weir_queue_put would; costs may be NULL (all 0).  Returns how
 * many the queue took, from the front (> 0; fewer than n: the deadline passed, the queue closed,
 * or one did not fit), or the error that kept even the first out.  n 0: 0, nothing done. */
WEIR_API int64_t weir_queue_put_many(weir_queue *queue, void *const *items, const uint64_t *costs,
                                     size_t n, weir_time deadline);

/* For who bounds more than the queue does (memory, say) and has no room for an item there: does
 * what the overflow policy says of one that does not fit, without waiting.  WEIR_DROPPED
 * (DROP_NEWEST and SAMPLE; DROP_OLDEST with nothing inside): reason NEWEST.  WEIR_EVICTED
 * (DROP_OLDEST): the oldest was dropped, and the item is still the caller's, who may have room for
 * it now.  < 0: WEIR_EFULL (BLOCK and FAIL), WEIR_ECLOSED, WEIR_ETOOBIG. */
WEIR_API int weir_queue_overflow(weir_queue *queue, void *item, uint64_t cost);

/* Gets the item at the head.  < 0: WEIR_EEMPTY (WEIR_POLL), WEIR_ETIMEDOUT, WEIR_ECLOSED (closed
 * and empty), WEIR_EINTR; with SPILL, WEIR_ENOMEM (for what is to come back from disk; nothing is
 * lost); *ret_item is untouched then. */
WEIR_API int weir_queue_get(weir_queue *queue, void **ret_item, weir_time deadline);

/* As weir_queue_get, and tells the item's cost (ret_cost may be NULL). */
WEIR_API int weir_queue_get_cost(weir_queue *queue, void **ret_item, uint64_t *ret_cost,
                                 weir_time deadline);

/* As weir_queue_get_cost, and tells the number to acknowledge the item by: > 0 with a durable spill, else
 * 0.  Until then a restart delivers the item again; the other functions acknowledge what they get at
 * once.  ret_cost may be NULL. */
WEIR_API int weir_queue_get_seq(weir_queue *queue, void **ret_item, uint64_t *ret_cost,
                                uint64_t *ret_seq, weir_time deadline);

/* Says that an item was dealt with, which a restart need not deliver again.  In any order, from any
 * thread.  Nothing for 0, or without a durable spill. */
WEIR_API void weir_queue_ack(weir_queue *queue, uint64_t seq);

/* Gets up to max items: waits for the first until the deadline, then for more until max are there
 * or linger_ns have passed since the first (0: takes what is there).  Returns how many (> 0), or
 * an error as weir_queue_get.  ret_costs may be NULL.  What a batch holds while it lingers is
 * delivered already: it is the caller's even if the wait is interrupted.  WEIR_EINVAL: max 0. */
WEIR_API int64_t weir_queue_get_many(weir_queue *queue, void **ret_items, uint64_t *ret_costs,
                                     size_t max, weir_time deadline, int64_t linger_ns);

/* ---- without a thread, for event loops ----------------------------------------------------
 *
 * Try with WEIR_POLL first; who is refused (WEIR_EFULL, WEIR_EEMPTY) comes into line, behind those who
 * came earlier, threads or not.  `ready` is called with WEIR_OK when its turn has come: room for its
 * item, or items, are kept for it until it has put or taken; or with an error that ends the wait.  It
 * may be called before the function that waits returns; it must not wait.  A place in line that is
 * given up, before or in its turn, has neither put nor taken anything.
 *
 * One that does not come within 100 ms is passed over: what was kept is for the others, and it has its
 * turn when it comes, before all who were never called.  (So a loop that stands still holds up nobody for
 * longer.)  An item is kept for it, not a certain one: a thread that is served behind it may have the
 * older one. */

/* Comes into line to put an item of that cost: WEIR_WAITING.  < 0: WEIR_ECLOSED, WEIR_ETOOBIG,
 * WEIR_EINVAL (overflow is not BLOCK, it waits already).  `ready` may bring the first two. */
WEIR_API int weir_queue_wait_room(weir_queue *queue, uint64_t cost, weir_pending *pending);

/* In its turn: puts the item.  WEIR_KEPT, and its turn is over.  < 0, and the item is still the
 * caller's: WEIR_EFULL: the bound was made smaller meanwhile; it is in line again, before those who
 * were never called, and `ready` will be called again.  WEIR_ECLOSED, WEIR_ETOOBIG, WEIR_ENOMEM, and
 * its turn is over; WEIR_EINVAL (it is not its turn). */
WEIR_API int weir_queue_put_waited(weir_queue *queue, void *item, weir_pending *pending);

/* Comes into line to get: WEIR_WAITING, and `ready` is called when n items are there for it, or as
 * many as fit, or somebody waits to put.  By who waits already, or whose turn it is: changes n;
 * WEIR_OK: it is its turn, and there are as many; else WEIR_WAITING (and `ready`, if it had been called
 * before, will be called again).  < 0: WEIR_ECLOSED (and empty), WEIR_EINVAL (n 0). */
WEIR_API int weir_queue_wait_items(weir_queue *queue, size_t n, weir_pending *pending);

/* In its turn: takes up to max items, more than were waited for if nobody else waits.  Returns how many
 * (> 0), as weir_queue_get_many; its turn is over then.  < 0: WEIR_EEMPTY: what was kept has been
 * dropped meanwhile; it is in line again, before those who were never called, and `ready` will be
 * called again.  WEIR_ECLOSED, and its turn is over; WEIR_EINVAL (max 0, or it is not its turn). */
WEIR_API int64_t weir_queue_get_waited(weir_queue *queue, void **ret_items, uint64_t *ret_costs,
                                       size_t max, weir_pending *pending);

/* Leaves the line: true, and `ready` is not called.  false: it was called or is being called; its
 * turn, if it was, is over. */
WEIR_API bool weir_queue_cancel(weir_queue *queue, weir_pending *pending);

/* ---- done, close, drain -------------------------------------------------------------------- */

/* Reports n taken items of `cost` together as done.  WEIR_EINVAL: more than are in flight (or all
 * items but not all of their cost); nothing changed. */
WEIR_API int weir_queue_done(weir_queue *queue, size_t n, uint64_t cost);

/* Refuses puts from now on (waiting putters return WEIR_ECLOSED and keep their items); getters
 * empty the queue and then see WEIR_ECLOSED.  Closing twice is fine. */
WEIR_API void weir_queue_close(weir_queue *queue);

/* Waits until nothing is inside (with bound_in_flight: and nothing in flight).  < 0:
 * WEIR_ETIMEDOUT (also for WEIR_POLL), WEIR_EINTR. */
WEIR_API int weir_queue_drain(weir_queue *queue, weir_time deadline);

/* Drops everything inside, reason DISCARDED; returns how many.  The queue stays open.  (What is on disk
 * is read for on_drop.) */
WEIR_API size_t weir_queue_discard(weir_queue *queue);

/* Changes the bounds while in use.  Items above a smaller bound stay until taken; waiting putters
 * whose cost can no longer fit return WEIR_ETOOBIG.  WEIR_EINVAL: capacity 0. */
WEIR_API int weir_queue_resize(weir_queue *queue, size_t capacity, uint64_t max_cost);

typedef struct weir_queue_snapshot {
    size_t size; /* sizeof(weir_queue_snapshot); set by WEIR_QUEUE_SNAPSHOT_INIT */
    size_t capacity;
    uint64_t max_cost;
    size_t depth; /* items inside, in memory */
    uint64_t cost;
    uint64_t spilled, spilled_cost; /* items inside, on disk only; 0 without SPILL */
    size_t in_flight;               /* taken, not yet done; 0 without bound_in_flight */
    uint64_t in_flight_cost;
    uint64_t accepted, accepted_cost;   /* puts that returned >= 0 */
    uint64_t delivered, delivered_cost; /* handed to getters */
    uint64_t dropped[WEIR_DROP_REASONS], dropped_cost[WEIR_DROP_REASONS];
    uint64_t refused;                        /* puts that ended EFULL, ETIMEDOUT or ETOOBIG */
    uint64_t put_blocked_ns, get_blocked_ns; /* waited, summed over waits that have ended */
    size_t putters_waiting, getters_waiting;
    size_t peak_depth;
    uint64_t spills, unspilled; /* items that went to disk, and that came back from there */
    uint64_t recovered;         /* items that an earlier process left; counted as accepted */
    bool closed, above_high;
} weir_queue_snapshot;

#define WEIR_QUEUE_SNAPSHOT_INIT WEIR__SIZED(weir_queue_snapshot)

/* One instant, all fields consistent. */
WEIR_API int weir_queue_get_snapshot(weir_queue *queue, weir_queue_snapshot *ret_snapshot);

/* Items inside now, in memory and on disk; a hint by the time it returns. */
WEIR_API size_t weir_queue_depth(weir_queue *queue);

/* A descriptor that polls readable (POLLIN) exactly while a get would not wait: items inside, or
 * closed.  Level-triggered; made on first request; owned by the queue: never read, write or close
 * it.  WEIR_ENOFD, WEIR_ENOMEM.  (An expired item counts as inside until a get meets it.) */
WEIR_API int weir_queue_item_fd(weir_queue *queue);

/* The same for puts of cost 0: room inside and no putter waiting, or closed. */
WEIR_API int weir_queue_room_fd(weir_queue *queue);

#ifdef __cplusplus
}
#endif

#endif
