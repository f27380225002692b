/* memory.h - memory governor: work waits until there is memory for it; the contract, quoted by
 * weir_governor(3).
 *
 * Who is about to use memory reserves it first and gives it back when it is done.  What can be
 * reserved in all is the limit less what else is in use, which is measured.
 *
 * Bound:      reserved <= limit - (use that was not reserved), as last measured: at most one interval
 *             ago, as long as somebody waits; except for
 * Progress:   whatever is measured, one reservation may always be out, even if it is larger than the
 *             limit.  So nobody waits for ever as long as what was reserved is given back.
 * Ladder:     the more is in use of what the kernel has, the less is admitted: SLOW half of what is
 *             left, PAUSE nothing (but one), SHED nothing, and who would wait is sent away.
 * Order:      first come, first served; what is large is waited for.  A later try never overtakes who
 *             waits.
 * Law:        admitted == released + inside; shared: + lost, what killed processes held.
 * Ownership:  a reservation is a number of bytes, of whoever gives it back.  Only inputs are held back:
 *             a release never waits.
 * Shared:     one governor for the processes of the user on this host, by name.  What a killed process
 *             had reserved is given back within 100 ms of somebody's waiting for it.
 * Threads:    all but create and destroy may be called from any thread.
 */
#ifndef WEIR_MEMORY_H
#define WEIR_MEMORY_H

#include <weir/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_governor weir_governor;

typedef enum weir_memory_step {
    WEIR_MEMORY_NORMAL = 0,
    WEIR_MEMORY_SLOW,
    WEIR_MEMORY_PAUSE,
    WEIR_MEMORY_SHED
} weir_memory_step;

/* "normal", "slow", "pause", "shed"; static storage. */
WEIR_API const char *weir_memory_step_name(int step);

/* Called when the step has changed, by whoever measured it, with no lock held; one call at a time,
 * and the last one tells the step that holds. */
typedef void weir_memory_change_fn(weir_memory_step step, void *ctx);

typedef struct weir_governor_opts {
    size_t size; /* set by WEIR_GOVERNOR_OPTS_INIT */
    /* Either bytes or a fraction of the memory there is: the smallest of the host's and of the bounds
     * of this process's cgroup and its ancestors, versions 1 and 2.  With a fraction, what counts as
     * used is all that counts against that bound, whoever uses it; with bytes, what this process and
     * its descendants use (or, shared, only what is reserved). */
    uint64_t limit_bytes;  /* < 2^62 */
    double limit_fraction; /* (0, 1]; neither: 0.8 */
    int64_t interval_ns;   /* between two measurements; 0: 100 ms; at least 1 ms */
    /* The ladder's marks, shares of the memory there is, ascending; each is left again an eighth
     * lower.  0: a quarter, half and three quarters of the way from the limit to all there is:
     * 0.85, 0.90 and 0.95 for a limit of 0.8 or of bytes. */
    double slow_at, pause_at, shed_at;
    const char *shared; /* a name: letters, digits, '.', '_', '-'; NULL: this process's own.  Where
                           it exists already, limit and marks are as who made it said. */
    weir_memory_change_fn *on_change; /* NULL: none */
    void *change_ctx;
    const char *name; /* what weir_stats(3) calls it; up to 63 bytes of it are copied.  NULL:
                         "governor-1" and so on; "": other processes do not see it.
                         A shared one: its shared name */
} weir_governor_opts;

#define WEIR_GOVERNOR_OPTS_INIT WEIR__SIZED(weir_governor_opts)

/* WEIR_EINVAL: an option out of range; WEIR_ENOMEM; WEIR_ESYSTEM: a fraction, and the kernel does not
 * tell of what; shared: WEIR_EFULL (1024 processes have it), WEIR_ENOSHM, WEIR_ENOFD, WEIR_ESYSTEM. */
WEIR_API int weir_governor_create(weir_governor **ret_governor, const weir_governor_opts *opts);

/* Nobody may be in a call on it, or wait (NULL is fine). */
WEIR_API void weir_governor_destroy(weir_governor *governor);

/* ---- reserving -------------------------------------------------------------------------- */

/* Reserves bytes in [1, 2^62).  < 0: WEIR_EFULL (WEIR_POLL), WEIR_ETIMEDOUT, WEIR_ECLOSED,
 * WEIR_ESHED (it would wait, or waits, and the step is SHED), WEIR_EINTR, WEIR_EINVAL. */
WEIR_API int weir_governor_reserve(weir_governor *governor, uint64_t bytes, weir_time deadline);

/* The same without a thread: WEIR_OK, or WEIR_WAITING, and `ready` is called with WEIR_OK or an
 * error.  While nobody else does, somebody has to call weir_governor_sample.  WEIR_EINVAL for a
 * shared governor; WEIR_ENOMEM. */
WEIR_API int weir_governor_reserve_async(weir_governor *governor, uint64_t bytes,
                                         weir_pending *pending);

/* Leaves the line: true, and `ready` is not called.  false: it was, or is being called. */
WEIR_API bool weir_governor_cancel(weir_governor *governor, weir_pending *pending);

/* Gives a reservation back. */
WEIR_API void weir_governor_release(weir_governor *governor, uint64_t bytes);

/* Admits nobody any more; those of this process who wait get WEIR_ECLOSED. */
WEIR_API void weir_governor_close(weir_governor *governor);

/* ---- learning sizes --------------------------------------------------------------------- */

/* A task of this kind (any number, say the hash of a name) has taken so much at its peak.  The 64
 * kinds used last are remembered, by this process. */
WEIR_API void weir_governor_observe(weir_governor *governor, uint64_t kind, uint64_t peak_bytes);

/* What the next one should reserve: the 95th percentile of the last 32 and a tenth more, of up to
 * seven a fifth more; 0: nothing is known, let it run alone. */
WEIR_API uint64_t weir_governor_estimate(weir_governor *governor, uint64_t kind);

/* ---- measuring and looking -------------------------------------------------------------- */

/* Measures if the last time is an interval ago, or else does nothing; returns the step.  It reads some
 * small files and never waits.  Who waits in weir_governor_reserve does so by itself. */
WEIR_API int weir_governor_sample(weir_governor *governor);

typedef struct weir_governor_snapshot {
    size_t size;     /* set by WEIR_GOVERNOR_SNAPSHOT_INIT */
    uint64_t limit;  /* bytes that are meant to be used at most */
    uint64_t memory; /* there is: the host's, or a cgroup's bound; 0: not known */
    uint64_t usage;  /* of it, when last measured; files' pages that can be had back do not count */
    bool is_cgroup;  /* memory is a cgroup's bound */
    uint64_t rss;    /* of this process and its descendants, now; shared pages count in each */
    unsigned processes;        /* that those are */
    double psi_some, psi_full; /* percent of the last 10 s that some, or all, stalled for memory */
    weir_memory_step step;
    uint64_t base;     /* use that is taken not to be reserved */
    uint64_t capacity; /* that may be reserved now */
    uint64_t reserved; /* bytes; shared: by all processes */
    uint64_t peak_reserved;
    uint64_t inside;                                  /* reservations */
    uint64_t admitted, released, lost, refused, shed; /* refused: EFULL and ETIMEDOUT, cancelled */
    size_t waiting;
    uint64_t blocked_ns; /* waited, summed over waits that have ended */
    uint64_t measured;   /* so often, by all who share it */
    bool is_closed;
} weir_governor_snapshot;

#define WEIR_GOVERNOR_SNAPSHOT_INIT WEIR__SIZED(weir_governor_snapshot)

/* One instant of what is reserved, and the last measurement.  WEIR_EINVAL: the size. */
WEIR_API int weir_governor_get_snapshot(weir_governor *governor,
                                        weir_governor_snapshot *ret_snapshot);

/* ---- limits as people write them -------------------------------------------------------- */

/* "80%", "2GiB", "512M" (K, M, G, T: powers of 1024; kB, MB, GB, TB: of 1000), "1073741824".  One of the
 * two results is set, the other 0.  WEIR_EINVAL: none of these; nothing changed. */
WEIR_API int weir_parse_memory(const char *text, uint64_t *ret_bytes, double *ret_fraction);

#ifdef __cplusplus
}
#endif

#endif
