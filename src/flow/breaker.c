/* breaker.c - circuit breaker; the contract is <weir/breaker.h>, the states are model/breaker.h.
 *
 * Locking:    the mutex is held for each step of the model and for nothing else: not for a call that is
 *             under way, not for on_change.
 * Telling:    a thread that finds transitions to tell, and nobody telling, tells them all, those that
 *             come meanwhile too.  So on_change hears them in order and never twice at a time, and a
 *             listener that calls back into the breaker cannot wait for itself.
 */
#include <weir/breaker.h>

#include "base/alloc.h"
#include "base/mutex.h"
#include "base/random.h"
#include "flow/record.h"
#include "model/breaker.h"

/* model/breaker.h may not see the public names. */
_Static_assert((int)WEIR_BREAKER_OPEN == (int)WEIR__BREAKER_OPEN, "the states are the same");
_Static_assert((int)WEIR_BREAKER_HALF_OPEN == (int)WEIR__BREAKER_HALF_OPEN, "");
_Static_assert((int)WEIR_BREAKER_ISOLATED == (int)WEIR__BREAKER_ISOLATED, "");
_Static_assert((int)WEIR_CALL_FAILURE == (int)WEIR__BREAKER_FAILURE, "the results are the same");
_Static_assert((int)WEIR_CALL_IGNORED == (int)WEIR__BREAKER_IGNORE, "");

#define WINDOW_MAX 1000000
#define PROBES_MAX 10000

struct weir_breaker {
    weir__mutex mutex;
    bool telling; /* a thread calls on_change, or is about to */
    weir__breaker model;
    weir__record *record; /* what other processes see; NULL: nothing */
    weir_breaker_change_fn *on_change;
    void *change_ctx;
};

const char *weir_breaker_state_name(int state)
{
    static const char *const names[] = {"closed", "open", "half_open", "isolated"};
    return (unsigned)state < sizeof(names) / sizeof(*names) ? names[state] : "?";
}

/* ---- options ---------------------------------------------------------------------------------- */

static bool is_share(double value)
{
    return value > 0 && value <= 1;
}

static int64_t more(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* The defaults filled in; false: out of range. */
static bool to_rules(const weir_breaker_opts *opts, weir__breaker_rules *rules)
{
    *rules = (weir__breaker_rules){
        .window_calls = opts->window_calls,
        .window_ns = opts->window_ns,
        .min_calls = opts->min_calls,
        .failure_ratio = opts->failure_ratio ? opts->failure_ratio : 0.5,
        .slow_ratio = opts->slow_ratio ? opts->slow_ratio : 0.5,
        .slow_ns = opts->slow_call_ns,
        .half_open_calls = opts->half_open_calls ? opts->half_open_calls : 10,
        .probe_ns = opts->half_open_max_ns ? opts->half_open_max_ns : 30 * WEIR_SECOND,
        .open_ns = opts->open_ns ? opts->open_ns : 5 * WEIR_SECOND,
        .max_open_ns = opts->max_open_ns,
        .multiplier = opts->multiplier ? opts->multiplier : 2,
        .jitter = opts->jitter,
    };
    if (!rules->window_calls && !rules->window_ns)
        rules->window_calls = 100;
    if (!rules->min_calls)
        rules->min_calls =
            rules->window_calls && rules->window_calls < 20 ? rules->window_calls : 20;
    if (!rules->max_open_ns)
        rules->max_open_ns = more(60 * WEIR_SECOND, rules->open_ns);
    bool window_is_good = rules->window_calls
                              ? rules->window_calls <= WINDOW_MAX && rules->window_ns == 0 &&
                                    rules->min_calls <= rules->window_calls
                              : rules->window_ns > 0;
    return window_is_good && is_share(rules->failure_ratio) && is_share(rules->slow_ratio) &&
           rules->slow_ns >= 0 && rules->half_open_calls <= PROBES_MAX && rules->probe_ns > 0 &&
           rules->open_ns > 0 && rules->max_open_ns >= rules->open_ns && rules->multiplier >= 1 &&
           rules->jitter >= 0 && rules->jitter <= 1;
}

/* ---- what others see -------------------------------------------------------------------------- */

/* Under the mutex.  (A state that only time would change is told by the next call.) */
static void tell_counts(const weir_breaker *breaker)
{
    weir__record *record = breaker->record;
    const weir__breaker_counts *counts = &breaker->model.counts;
    if (!WEIR__TELLS || !record)
        return;
    weir__tell_begin(record);
    weir__tell(record, WEIR_STATS_ACCEPTED, counts->admitted);
    weir__tell(record, WEIR_STATS_DONE, counts->admitted - counts->in_flight);
    weir__tell(record, WEIR_STATS_IN_FLIGHT, counts->in_flight);
    weir__tell(record, WEIR_STATS_REFUSED, counts->rejected);
    weir__tell(record, WEIR_STATS_FAILED, counts->failed);
    weir__tell(record, WEIR_STATS_SLOW, counts->slow);
    weir__tell(record, WEIR_STATS_OPENED, counts->opened);
    weir__tell(record, WEIR_STATS_STATE, (uint64_t)breaker->model.state);
    weir__tell_end(record);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

int weir_breaker_create(weir_breaker **ret_breaker, const weir_breaker_opts *opts)
{
    weir__breaker_rules rules;
    if (opts->size != sizeof(*opts) || !to_rules(opts, &rules)) /* one version so far */
        return WEIR_EINVAL;
    weir_breaker *breaker = weir__calloc_line(sizeof(*breaker));
    if (!breaker)
        return WEIR_ENOMEM;
    weir__mutex_init(&breaker->mutex);
    breaker->on_change = opts->on_change;
    breaker->change_ctx = opts->change_ctx;
    if (!weir__breaker_init(&breaker->model, &rules, opts->on_change != NULL, weir__random_seed(),
                            weir_now())) {
        weir_breaker_destroy(breaker);
        return WEIR_ENOMEM;
    }
    breaker->record = weir__record_open(WEIR_STATS_BREAKER, opts->name);
    tell_counts(breaker);
    *ret_breaker = breaker;
    return WEIR_OK;
}

void weir_breaker_destroy(weir_breaker *breaker)
{
    if (!breaker)
        return;
    weir__record_close(breaker->record);
    weir__breaker_fini(&breaker->model);
    weir__mutex_fini(&breaker->mutex);
    weir__free(breaker);
}

/* ---- calls ------------------------------------------------------------------------------------ */

static void tell_and_unlock(weir_breaker *breaker)
{
    weir__breaker_event event;
    breaker->telling = true;
    while (weir__breaker_next_event(&breaker->model, &event)) {
        weir__unlock(&breaker->mutex);
        breaker->on_change((weir_breaker_state)event.from, (weir_breaker_state)event.to,
                           breaker->change_ctx);
        weir__lock(&breaker->mutex);
    }
    breaker->telling = false;
    weir__unlock(&breaker->mutex);
}

static void unlock(weir_breaker *breaker)
{
    tell_counts(breaker);
    if (breaker->model.n_events > 0 && !breaker->telling)
        tell_and_unlock(breaker);
    else
        weir__unlock(&breaker->mutex);
}

int weir_breaker_admit(weir_breaker *breaker, weir_breaker_call *ret_call)
{
    weir__breaker_call call;
    weir__lock(&breaker->mutex);
    bool is_calm = weir__breaker_is_calm(&breaker->model);
    bool admitted = weir__breaker_admit(&breaker->model, is_calm ? 0 : weir_now(), &call);
    unlock(breaker);
    if (!admitted)
        return WEIR_EOPEN;
    *ret_call = (weir_breaker_call){call.began_ns, call.epoch, call.probe, call.serial, true};
    return WEIR_OK;
}

int weir_breaker_report(weir_breaker *breaker, weir_breaker_call *call, weir_call_result result)
{
    if (!call->admitted || (unsigned)result > WEIR_CALL_IGNORED)
        return WEIR_EINVAL;
    call->admitted = false;
    weir__breaker_call inner = {call->began, call->epoch, call->probe, call->serial};
    weir__lock(&breaker->mutex);
    bool is_calm = result != WEIR_CALL_FAILURE && weir__breaker_is_calm(&breaker->model);
    weir__breaker_report(&breaker->model, &inner, (weir__breaker_result)result,
                         is_calm ? 0 : weir_now());
    unlock(breaker);
    return WEIR_OK;
}

int weir_breaker_isolate(weir_breaker *breaker)
{
    weir__lock(&breaker->mutex);
    bool done = weir__breaker_isolate(&breaker->model);
    unlock(breaker);
    return done ? WEIR_OK : WEIR_EFULL;
}

int weir_breaker_reset(weir_breaker *breaker)
{
    weir__lock(&breaker->mutex);
    bool done = weir__breaker_reset(&breaker->model);
    unlock(breaker);
    return done ? WEIR_OK : WEIR_EFULL;
}

/* ---- looking ---------------------------------------------------------------------------------- */

int64_t weir_breaker_retry_after(weir_breaker *breaker)
{
    weir_time now = weir_now();
    weir__lock(&breaker->mutex);
    int64_t ns = weir__breaker_retry_after(&breaker->model, now);
    weir__unlock(&breaker->mutex);
    return ns;
}

weir_breaker_state weir_breaker_get_state(weir_breaker *breaker)
{
    weir__lock(&breaker->mutex);
    weir_breaker_state state = (weir_breaker_state)breaker->model.state;
    weir__unlock(&breaker->mutex);
    return state;
}

int weir_breaker_get_snapshot(weir_breaker *breaker, weir_breaker_snapshot *ret_snapshot)
{
    if (ret_snapshot->size != sizeof(*ret_snapshot))
        return WEIR_EINVAL;
    weir_time now = weir_now();
    weir__lock(&breaker->mutex);
    weir__breaker *model = &breaker->model;
    const weir__breaker_counts *counts = &model->counts;
    weir__tally tally = weir__breaker_tally(model, now);
    *ret_snapshot = (weir_breaker_snapshot){
        .size = sizeof(*ret_snapshot),
        .state = (weir_breaker_state)model->state,
        .admitted = counts->admitted,
        .succeeded = counts->succeeded,
        .failed = counts->failed,
        .ignored = counts->ignored,
        .expired = counts->expired,
        .in_flight = counts->in_flight,
        .rejected = counts->rejected,
        .slow = counts->slow,
        .stale = counts->stale,
        .late = counts->late,
        .opened = counts->opened,
        .window_calls = tally.calls,
        .window_failed = tally.failed,
        .window_slow = tally.slow,
        .probes = model->probes_out,
        .peak_probes = model->probes_peak,
        .retry_after_ns = weir__breaker_retry_after(model, now),
        .open_ns = model->open_for_ns,
    };
    weir__unlock(&breaker->mutex);
    return WEIR_OK;
}
