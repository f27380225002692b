/* watermark.h - a level with a high and a low mark: pause at the one, go on at the other; the
 * contract, quoted by weir_watermark(3).
 *
 * It counts what is somewhere else: bytes in a buffer, requests under way, items of a list.  It is
 * told what comes and goes, and tells when to pause: by a number, a wait, a descriptor, a callback.
 *
 * Law:        in == out + level, in units, at the instant of every snapshot.
 * Hysteresis: paused from the moment the level reaches `high` until it has fallen to `low`.  (A level
 *             that reaches `high` for less than the call that raised it takes need not pause.)
 * Bound:      a mark is no bound: who adds without asking is counted.  Where each of n threads adds
 *             at most m and waits while it is paused, the level stays below high + n * m.
 * Waiting:    all who wait when the level has fallen go on together; one that joins later waits for
 *             the next time.
 * Cost:       add and sub that reach no mark are one atomic instruction each, on cache lines of
 *             their own.
 * Threads:    all but create and destroy may be called from any thread.
 */
#ifndef WEIR_WATERMARK_H
#define WEIR_WATERMARK_H

#include <weir/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_watermark weir_watermark;

/* Called with true when the level has reached the high mark (of a queue: has risen above it) and
 * with false when it has fallen to the low mark or below; with no lock held, one call at a time,
 * alternating, and the last call always tells the state that holds.  It may call back into the
 * object, but not destroy it. */
typedef void weir_watermark_fn(bool above, void *ctx);

/* No level is as high as this, and no single step: 2^46. */
#define WEIR_WATERMARK_END (UINT64_C(1) << 46)

/* A low mark of 0: goes on when nothing is left. */
#define WEIR_WATERMARK_EMPTY UINT64_MAX

typedef struct weir_watermark_opts {
    size_t size;                  /* set by WEIR_WATERMARK_OPTS_INIT */
    uint64_t high;                /* in [1, 2^46), in whatever is counted; required */
    uint64_t low;                 /* < high; 0: half of high; WEIR_WATERMARK_EMPTY: 0 */
    weir_watermark_fn *on_change; /* NULL: none */
    void *change_ctx;
    const char *name; /* what other processes see it by, as that of a queue */
} weir_watermark_opts;

#define WEIR_WATERMARK_OPTS_INIT WEIR__SIZED(weir_watermark_opts)

/* WEIR_EINVAL: a mark is out of range; WEIR_ENOMEM. */
WEIR_API int weir_watermark_create(weir_watermark **ret_mark, const weir_watermark_opts *opts);

/* Releases who waits (WEIR_ECLOSED) and frees it (NULL is fine).  No other thread may be in a call
 * on it, or come to one: close it and join them first. */
WEIR_API void weir_watermark_destroy(weir_watermark *mark);

/* ---- counting ----------------------------------------------------------------------------- */

#define WEIR_PAUSED 1 /* counted, and it is paused now: time to drain */

/* n more are inside.  WEIR_OK or WEIR_PAUSED; < 0: WEIR_EINVAL (the level would reach 2^46),
 * WEIR_ECLOSED; nothing was counted then. */
WEIR_API int weir_watermark_add(weir_watermark *mark, uint64_t n);

/* n have left.  WEIR_OK or WEIR_PAUSED; < 0: WEIR_EINVAL (more than are inside; nothing was
 * counted).  Works after close, too. */
WEIR_API int weir_watermark_sub(weir_watermark *mark, uint64_t n);

/* Hints by the time they return. */
WEIR_API bool weir_watermark_is_paused(const weir_watermark *mark);
WEIR_API uint64_t weir_watermark_level(const weir_watermark *mark);

/* Changes the marks while in use, as in weir_watermark_opts; who waits may be released by it.
 * WEIR_EINVAL: out of range, nothing changed. */
WEIR_API int weir_watermark_set(weir_watermark *mark, uint64_t high, uint64_t low);

/* ---- waiting ------------------------------------------------------------------------------ */

/* Waits until it is not paused.  < 0: WEIR_ETIMEDOUT (also for WEIR_POLL), WEIR_ECLOSED,
 * WEIR_EINTR. */
WEIR_API int weir_watermark_drain(weir_watermark *mark, weir_time deadline);

/* The same without a thread: WEIR_OK or WEIR_ECLOSED, or WEIR_WAITING and `ready` is called with one
 * of them. */
WEIR_API int weir_watermark_drain_async(weir_watermark *mark, weir_pending *pending);

/* Stops to wait: true, and `ready` is not called.  false: it was, or is being called. */
WEIR_API bool weir_watermark_cancel(weir_watermark *mark, weir_pending *pending);

/* A descriptor that polls readable (POLLIN) exactly while drain would not wait: not paused, or
 * closed.  Level-triggered; made on first request; owned by the watermark: never read, write or
 * close it.  WEIR_ENOFD, WEIR_ENOMEM, WEIR_ESYSTEM. */
WEIR_API int weir_watermark_fd(weir_watermark *mark);

/* Counts nothing in any more, and releases who waits (WEIR_ECLOSED).  What is inside can leave, and
 * on_change is told.  Closing twice is fine. */
WEIR_API void weir_watermark_close(weir_watermark *mark);

/* ---- looking ------------------------------------------------------------------------------ */

typedef struct weir_watermark_snapshot {
    size_t size; /* set by WEIR_WATERMARK_SNAPSHOT_INIT */
    uint64_t high, low;
    uint64_t level;
    uint64_t in, out; /* ever added and subtracted; modulo 2^64 */
    uint64_t peak;    /* the highest level that an add has seen */
    uint64_t pauses;
    uint64_t paused_ns;  /* in all, the present pause included */
    uint64_t blocked_ns; /* waited, summed over waits that have ended */
    size_t waiting;
    bool is_paused, is_closed;
} weir_watermark_snapshot;

#define WEIR_WATERMARK_SNAPSHOT_INIT WEIR__SIZED(weir_watermark_snapshot)

/* WEIR_EINVAL: not initialised.  The law holds in it. */
WEIR_API int weir_watermark_get_snapshot(weir_watermark *mark,
                                         weir_watermark_snapshot *ret_snapshot);

#ifdef __cplusplus
}
#endif

#endif
