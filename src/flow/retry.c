/* retry.c - backoff and retry budget; the contract is <weir/retry.h>. */
#include <weir/retry.h>

#include "base/alloc.h"
#include "base/mutex.h"
#include "base/random.h"
#include "model/backoff.h"
#include "model/random.h"
#include "model/retry_budget.h"

_Static_assert((int)WEIR_JITTER_NONE == (int)WEIR__JITTER_NONE, "the kinds are the same");
_Static_assert((int)WEIR_JITTER_EQUAL == (int)WEIR__JITTER_EQUAL, "");
_Static_assert((int)WEIR_JITTER_DECORRELATED == (int)WEIR__JITTER_DECORRELATED, "");

/* ---- backoff ---------------------------------------------------------------------------------- */

/* The defaults filled in; false: out of range. */
static bool to_model(const weir_backoff *backoff, weir__backoff *model)
{
    model->base_ns = backoff->base_ns ? backoff->base_ns : 100 * WEIR_MILLISECOND;
    model->max_ns = backoff->max_ns ? backoff->max_ns : 30 * WEIR_SECOND;
    if (!backoff->max_ns && model->max_ns < model->base_ns)
        model->max_ns = model->base_ns;
    model->multiplier = backoff->multiplier ? backoff->multiplier : 2;
    model->jitter = (weir__jitter)backoff->jitter;
    return model->base_ns > 0 && model->max_ns >= model->base_ns && model->multiplier >= 1 &&
           (unsigned)backoff->jitter <= WEIR_JITTER_DECORRELATED;
}

int64_t weir_backoff_delay(const weir_backoff *backoff, uint32_t retry, int64_t before_ns,
                           uint64_t random)
{
    weir__backoff model;
    if (backoff->size != sizeof(*backoff) || retry == 0 || !to_model(backoff, &model))
        return WEIR_EINVAL;
    return weir__backoff_delay(&model, retry, before_ns, weir__random_unit(random));
}

uint64_t weir_random(void)
{
    return weir__random_seed();
}

/* ---- budget ----------------------------------------------------------------------------------- */

struct weir_retry_budget {
    weir__mutex mutex;
    weir__retry_budget model;
    uint64_t calls, retries, refused;
};

/* 0: the default; < 0: none. */
static double or_default(double value, double otherwise)
{
    return value < 0 ? 0 : value == 0 ? otherwise : value;
}

int weir_retry_budget_create(weir_retry_budget **ret_budget, const weir_retry_budget_opts *opts)
{
    if (opts->size != sizeof(*opts)) /* there is one version so far */
        return WEIR_EINVAL;
    double ratio = or_default(opts->ratio, 0.2);
    double per_second = or_default(opts->min_per_second, 10);
    double max_tokens = opts->max_tokens ? opts->max_tokens : 100;
    if (!(ratio <= 1000) || !(per_second <= 1e9) || !(max_tokens >= 1 && max_tokens <= 1e9))
        return WEIR_EINVAL;
    weir_retry_budget *budget = weir__calloc_line(sizeof(*budget));
    if (!budget)
        return WEIR_ENOMEM;
    weir__mutex_init(&budget->mutex);
    weir__retry_budget_init(&budget->model, ratio, per_second, max_tokens, weir_now());
    *ret_budget = budget;
    return WEIR_OK;
}

void weir_retry_budget_destroy(weir_retry_budget *budget)
{
    if (budget)
        weir__mutex_fini(&budget->mutex);
    weir__free(budget);
}

void weir_retry_budget_deposit(weir_retry_budget *budget)
{
    weir__lock(&budget->mutex);
    budget->calls++;
    weir__retry_budget_deposit(&budget->model);
    weir__unlock(&budget->mutex);
}

int weir_retry_budget_withdraw(weir_retry_budget *budget)
{
    weir_time now = weir_now();
    weir__lock(&budget->mutex);
    bool may = weir__retry_budget_withdraw(&budget->model, now);
    budget->retries += may;
    budget->refused += !may;
    weir__unlock(&budget->mutex);
    return may ? WEIR_OK : WEIR_ESHED;
}

int weir_retry_budget_get_snapshot(weir_retry_budget *budget,
                                   weir_retry_budget_snapshot *ret_snapshot)
{
    if (ret_snapshot->size != sizeof(*ret_snapshot))
        return WEIR_EINVAL;
    weir_time now = weir_now();
    weir__lock(&budget->mutex);
    weir__retry_budget_fill(&budget->model, now);
    *ret_snapshot = (weir_retry_budget_snapshot){
        .size = sizeof(*ret_snapshot),
        .calls = budget->calls,
        .retries = budget->retries,
        .refused = budget->refused,
        .tokens = (double)budget->model.tokens / (double)WEIR__TOKEN,
    };
    weir__unlock(&budget->mutex);
    return WEIR_OK;
}
