/* retry.h - when to try again, and how often altogether; the contract, quoted by weir_retry(3).
 *
 * weir_backoff_delay says how long to wait before a retry, a weir_retry_budget whether there may be one.
 * Both only decide: who calls them waits, and calls again.
 */
#ifndef WEIR_RETRY_H
#define WEIR_RETRY_H

#include <weir/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- how long to wait ---------------------------------------------------------------------- */

/* The step of retry n (1 is the first) is base * multiplier^(n - 1), at most max.  The wait is
 * random, so that clients that failed together do not come back together (Brooker, "Exponential
 * Backoff And Jitter", 2015). */
typedef enum weir_jitter {
    WEIR_JITTER_FULL = 0,     /* from 0 to the step */
    WEIR_JITTER_NONE,         /* the step itself */
    WEIR_JITTER_EQUAL,        /* from half of the step to the step */
    WEIR_JITTER_DECORRELATED, /* from base to three times what was waited before, at most max */
} weir_jitter;

typedef struct weir_backoff {
    size_t size;        /* sizeof(weir_backoff); set by WEIR_BACKOFF_INIT */
    int64_t base_ns;    /* default 100 ms */
    int64_t max_ns;     /* >= base_ns; default 30 s, or base_ns if that is more */
    double multiplier;  /* >= 1; default 2 */
    weir_jitter jitter; /* default FULL */
} weir_backoff;

#define WEIR_BACKOFF_INIT WEIR__SIZED(weir_backoff)

/* Nanoseconds to wait before retry number `retry` (1 is the first), in [0, max].  before_ns: what was
 * waited before the retry before (0 for the first); only DECORRELATED asks for it.  random: any 64
 * bits; the same bits give the same wait.  WEIR_EINVAL: an option out of range, or retry 0.  Plain
 * arithmetic. */
WEIR_API int64_t weir_backoff_delay(const weir_backoff *backoff, uint32_t retry, int64_t before_ns,
                                    uint64_t random);

/* 64 random bits, from the kernel each time: a forked child gets others.  Not for secrets. */
WEIR_API uint64_t weir_random(void);

/* ---- how many retries there may be ----------------------------------------------------------- */

/* Keeps retries to a share of the calls, so that they never multiply an outage: each call puts `ratio`
 * of a token in, each retry takes one out, and some drop in by themselves.  One budget is for all
 * calls of one backend.
 *
 * Bound, in any stretch of time:
 *     retries <= max_tokens + ratio * calls + min_per_second * seconds
 * (Finagle's RetryBudget; gRPC's retry throttling, proposal A6.) */
typedef struct weir_retry_budget weir_retry_budget;

typedef struct weir_retry_budget_opts {
    size_t size;  /* sizeof(weir_retry_budget_opts); set by WEIR_RETRY_BUDGET_OPTS_INIT */
    double ratio; /* retries for each call, up to 1000; default 0.2; < 0: none */
    double
        min_per_second; /* retries that are always allowed; default 10; < 0: none.  It begins with
                              those of one second */
    double max_tokens;  /* saved up at most, 1 to 1e9; default 100 */
} weir_retry_budget_opts;

#define WEIR_RETRY_BUDGET_OPTS_INIT WEIR__SIZED(weir_retry_budget_opts)

/* WEIR_EINVAL for an option out of range, WEIR_ENOMEM. */
WEIR_API int weir_retry_budget_create(weir_retry_budget **ret_budget,
                                      const weir_retry_budget_opts *opts);

/* NULL is fine.  No other thread may be in a call on it, or come to one. */
WEIR_API void weir_retry_budget_destroy(weir_retry_budget *budget);

/* A call is made that is no retry. */
WEIR_API void weir_retry_budget_deposit(weir_retry_budget *budget);

/* Asks before a retry.  WEIR_OK: there may be one, and it is counted.  WEIR_ESHED: not now. */
WEIR_API int weir_retry_budget_withdraw(weir_retry_budget *budget);

typedef struct weir_retry_budget_snapshot {
    size_t size;    /* sizeof(weir_retry_budget_snapshot); set by WEIR_RETRY_BUDGET_SNAPSHOT_INIT */
    uint64_t calls; /* deposits */
    uint64_t retries; /* that were allowed */
    uint64_t refused; /* that were not */
    double tokens;    /* there now */
} weir_retry_budget_snapshot;

#define WEIR_RETRY_BUDGET_SNAPSHOT_INIT WEIR__SIZED(weir_retry_budget_snapshot)

/* One instant, all fields consistent. */
WEIR_API int weir_retry_budget_get_snapshot(weir_retry_budget *budget,
                                            weir_retry_budget_snapshot *ret_snapshot);

#ifdef __cplusplus
}
#endif

#endif
