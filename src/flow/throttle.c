/* throttle.c - client throttle; the contract is <weir/throttle.h>, the formula is model/throttle.h. */
#include <weir/throttle.h>

#include "base/alloc.h"
#include "base/mutex.h"
#include "base/random.h"
#include "model/random.h"
#include "model/throttle.h"

struct weir_throttle {
    weir__mutex mutex;
    weir__random random;
    weir__throttle model;
    uint64_t admitted, accepted, refused, ignored, shed;
};

static uint64_t in_flight(const weir_throttle *throttle)
{
    return throttle->admitted - throttle->accepted - throttle->refused - throttle->ignored;
}

int weir_throttle_create(weir_throttle **ret_throttle, const weir_throttle_opts *opts)
{
    if (opts->size != sizeof(*opts)) /* there is one version so far */
        return WEIR_EINVAL;
    double k = opts->k ? opts->k : 2;
    double max_chance = opts->max_chance ? opts->max_chance : 0.95;
    int64_t window_ns = opts->window_ns ? opts->window_ns : 120 * WEIR_SECOND;
    if (!(k >= 1) || !(max_chance > 0 && max_chance < 1) || window_ns < 0)
        return WEIR_EINVAL;
    weir_throttle *throttle = weir__calloc_line(sizeof(*throttle));
    if (!throttle)
        return WEIR_ENOMEM;
    weir__mutex_init(&throttle->mutex);
    throttle->random.state = weir__random_seed();
    weir__throttle_init(&throttle->model, k, max_chance, window_ns, weir_now());
    *ret_throttle = throttle;
    return WEIR_OK;
}

void weir_throttle_destroy(weir_throttle *throttle)
{
    if (throttle)
        weir__mutex_fini(&throttle->mutex);
    weir__free(throttle);
}

int weir_throttle_admit(weir_throttle *throttle)
{
    weir_time now = weir_now();
    weir__lock(&throttle->mutex);
    double draw = weir__random_unit(weir__random_next(&throttle->random));
    bool may = weir__throttle_admit(&throttle->model, now, draw);
    throttle->admitted += may;
    throttle->shed += !may;
    weir__unlock(&throttle->mutex);
    return may ? WEIR_OK : WEIR_ESHED;
}

static void count(weir_throttle *throttle, weir_call_result result, weir_time now)
{
    if (result == WEIR_CALL_IGNORED) {
        throttle->ignored++;
        return;
    }
    bool accepted = result == WEIR_CALL_SUCCESS;
    throttle->accepted += accepted;
    throttle->refused += !accepted;
    weir__throttle_report(&throttle->model, now, accepted);
}

int weir_throttle_report(weir_throttle *throttle, weir_call_result result)
{
    if ((unsigned)result > WEIR_CALL_IGNORED)
        return WEIR_EINVAL;
    weir_time now = weir_now();
    weir__lock(&throttle->mutex);
    bool known = in_flight(throttle) > 0;
    if (known)
        count(throttle, result, now);
    weir__unlock(&throttle->mutex);
    return known ? WEIR_OK : WEIR_EINVAL;
}

int weir_throttle_get_snapshot(weir_throttle *throttle, weir_throttle_snapshot *ret_snapshot)
{
    if (ret_snapshot->size != sizeof(*ret_snapshot))
        return WEIR_EINVAL;
    weir_time now = weir_now();
    weir__lock(&throttle->mutex);
    double chance = weir__throttle_chance(&throttle->model, now);
    const weir__tally *tally = &throttle->model.window.tally;
    *ret_snapshot = (weir_throttle_snapshot){
        .size = sizeof(*ret_snapshot),
        .admitted = throttle->admitted,
        .accepted = throttle->accepted,
        .refused = throttle->refused,
        .ignored = throttle->ignored,
        .in_flight = in_flight(throttle),
        .shed = throttle->shed,
        .window_requests = tally->calls,
        .window_accepts = tally->calls - tally->failed,
        .chance = chance,
    };
    weir__unlock(&throttle->mutex);
    return WEIR_OK;
}
