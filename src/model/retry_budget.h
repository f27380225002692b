/* retry_budget.h - retries as a bounded share of the calls, so that they never multiply an outage.
 *
 * A bucket of tokens: each call puts in `ratio` of one, each retry takes one out, and `per_second`
 * drop in by themselves.  So in any stretch of time
 *     retries <= cap + ratio * calls + per_second * seconds
 * After Finagle's RetryBudget and the retry throttling of gRPC (proposal A6).
 */
#ifndef WEIR_MODEL_RETRY_BUDGET_H
#define WEIR_MODEL_RETRY_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#define WEIR__TOKEN INT64_C(1000000000) /* what a whole one is counted as */

/* Invariant: 0 <= tokens <= cap. */
typedef struct weir__retry_budget {
    int64_t tokens, cap, per_call; /* in billionths of a token */
    double per_second;             /* tokens; a billionth of a second makes so many billionths */
    int64_t filled_at;             /* nanoseconds */
} weir__retry_budget;

/* ratio in [0, 1000], per_second >= 0, cap in [1, 1e9] tokens.  Begins with what one second brings,
 * up to the cap. */
void weir__retry_budget_init(weir__retry_budget *budget, double ratio, double per_second,
                             double cap, int64_t now_ns);

/* A call is made that is no retry. */
static inline void weir__retry_budget_deposit(weir__retry_budget *budget)
{
    int64_t room = budget->cap - budget->tokens;
    budget->tokens += budget->per_call < room ? budget->per_call : room;
}

/* Puts in what time has brought. */
void weir__retry_budget_fill(weir__retry_budget *budget, int64_t now_ns);

/* Takes a token for a retry; false: there is none. */
bool weir__retry_budget_withdraw(weir__retry_budget *budget, int64_t now_ns);

#endif
