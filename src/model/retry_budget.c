/* retry_budget.c - see retry_budget.h. */
#include "model/retry_budget.h"

void weir__retry_budget_init(weir__retry_budget *budget, double ratio, double per_second,
                             double cap, int64_t now_ns)
{
    double first = per_second < cap ? per_second : cap;
    *budget = (weir__retry_budget){
        .tokens = (int64_t)(first * (double)WEIR__TOKEN),
        .cap = (int64_t)(cap * (double)WEIR__TOKEN),
        .per_call = (int64_t)(ratio * (double)WEIR__TOKEN + 0.5),
        .per_second = per_second,
        .filled_at = now_ns,
    };
}

void weir__retry_budget_fill(weir__retry_budget *budget, int64_t now_ns)
{
    if (now_ns <= budget->filled_at)
        return;
    double brought = (double)(now_ns - budget->filled_at) * budget->per_second;
    double room = (double)(budget->cap - budget->tokens);
    budget->tokens = brought < room ? budget->tokens + (int64_t)brought : budget->cap;
    budget->filled_at = now_ns;
}

bool weir__retry_budget_withdraw(weir__retry_budget *budget, int64_t now_ns)
{
    weir__retry_budget_fill(budget, now_ns);
    if (budget->tokens < WEIR__TOKEN)
        return false;
    budget->tokens -= WEIR__TOKEN;
    return true;
}
