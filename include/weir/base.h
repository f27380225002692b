/* base.h - what every weir header shares: time, results, errors, interruption.
 *
 * Results:    >= 0 the library took it; < 0 (a weir_error) nothing happened and everything is
 *             still yours.  No function touches errno, logs, or aborts.
 * Deadlines:  absolute points on the monotonic clock in nanoseconds.  WEIR_POLL never waits,
 *             WEIR_FOREVER never gives up; every point between is "until then".
 * Threads:    a function may be called from any thread unless its page says otherwise.
 * Fork:       an object belongs to the process that created it; a child must not touch it, unless
 *             its page says otherwise.
 */
#ifndef WEIR_BASE_H
#define WEIR_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_VERSION_MAJOR 0
#define WEIR_VERSION_MINOR 1
#define WEIR_VERSION_PATCH 0

#if defined(__GNUC__)
#define WEIR_API __attribute__((visibility("default")))
#else
#define WEIR_API
#endif

/* "0.1.0"; static storage. */
WEIR_API const char *weir_version(void);

/* ---- time ------------------------------------------------------------------------------- */

typedef int64_t weir_time; /* nanoseconds on CLOCK_MONOTONIC */

#define WEIR_POLL    ((weir_time)0)         /* do not wait */
#define WEIR_FOREVER ((weir_time)INT64_MAX) /* wait without a deadline */

/* Where a call says that it takes it: for a caller that will call again and wait, but has to prepare
 * for that (release a lock of its own, say).  As WEIR_POLL, but it does not even wait for another
 * process to finish its call (WEIR_ETIMEDOUT), and being refused is not counted. */
#define WEIR_PROBE ((weir_time) - 1)

#define WEIR_MICROSECOND INT64_C(1000)
#define WEIR_MILLISECOND INT64_C(1000000)
#define WEIR_SECOND      INT64_C(1000000000)

/* Now, always > 0. */
WEIR_API weir_time weir_now(void);

/* The point `ns` nanoseconds from now: WEIR_POLL when ns <= 0, saturating below WEIR_FOREVER. */
WEIR_API weir_time weir_after(int64_t ns);

/* ---- errors ----------------------------------------------------------------------------- */

/* One list makes the enum, the names, the texts and the Python exceptions. */
#define WEIR_ERROR_MAP(X)                                                                          \
    X(EFULL, -1, "full")                                                                           \
    X(EEMPTY, -2, "empty")                                                                         \
    X(ETIMEDOUT, -3, "the deadline passed")                                                        \
    X(ECLOSED, -4, "closed")                                                                       \
    X(EINTR, -5, "interrupted")                                                                    \
    X(EINVAL, -6, "invalid argument")                                                              \
    X(ENOMEM, -7, "out of memory")                                                                 \
    X(ETOOBIG, -8, "larger than the bound, so it can never fit")                                   \
    X(ENOFD, -9, "out of file descriptors")                                                        \
    X(ENOSHM, -10, "out of shared memory")                                                         \
    X(ESPAWN, -11, "a worker could not be started")                                                \
    X(EDIED, -12, "the worker process died")                                                       \
    X(ENOTASK, -13, "no such task, or it has started already")                                     \
    X(ESYSTEM, -14, "a system call failed")                                                        \
    X(EDEADLK, -15, "waiting here would wait for itself")                                          \
    X(ESHED, -16, "shed because of overload")                                                      \
    X(EOPEN, -17, "the circuit breaker is open")                                                   \
    X(ENOSPC, -18, "no space left on the disk")                                                    \
    X(EBUSY, -19, "in use already, by this process or another one")

typedef enum weir_error {
    WEIR_OK = 0,
#define X(name, value, text) WEIR_##name = (value),
    WEIR_ERROR_MAP(X)
#undef X
} weir_error;

/* The text of a weir_error ("full"), or "unknown error"; static storage, never NULL. */
WEIR_API const char *weir_strerror(int error);

/* The name of a weir_error ("WEIR_EFULL"), or "WEIR_?"; static storage, never NULL. */
WEIR_API const char *weir_error_name(int error);

/* ---- structs that can grow ---------------------------------------------------------------- */

/* Initializes a struct whose first member tells its size; everything else is 0: the default. */
#ifdef __cplusplus
#define WEIR__SIZED(type)                                                                          \
    [] {                                                                                           \
        type sized{};                                                                              \
        sized.size = sizeof(type);                                                                 \
        return sized;                                                                              \
    }()
#else
#define WEIR__SIZED(type) {.size = sizeof(type)}
#endif

/* ---- waiting without a thread ------------------------------------------------------------- */

/* A place in line that no thread waits in, for event loops.  The caller's memory; begins as {0} with
 * `ready` and `ctx` set, and belongs to the object from the call that returned WEIR_WAITING until
 * `ready` was called or the object's cancel function returned true.
 *
 * `ready` is called once with what the wait came to (>= 0: it is yours), on the thread whose call
 * decided that, before that call returns, with no lock held. */
typedef struct weir_pending {
    void (*ready)(struct weir_pending *pending, int result);
    void *ctx; /* the caller's own */
    uint64_t opaque[16];
} weir_pending;

#define WEIR_WAITING 1 /* nothing yet: `ready` will be called */

/* ---- interruption ----------------------------------------------------------------------- */

/* Asked by a waiting thread, with no lock held and its place in line kept, each time a signal
 * ended its sleep and at least every 50 ms.  Non-zero ends the wait: the call returns
 * WEIR_EINTR and nothing happened. */
typedef int weir_interrupt_fn(void *ctx);

/* Sets the calling thread's interruption hook (NULL, the default: signals do not end a wait). */
WEIR_API void weir_set_interrupt(weir_interrupt_fn *fn, void *ctx);

#ifdef __cplusplus
}
#endif

#endif
