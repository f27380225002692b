/* breaker.c - see breaker.h. */
#include "model/breaker.h"

#include "base/alloc.h"

bool weir__breaker_init(weir__breaker *breaker, const weir__breaker_rules *rules, bool listening,
                        uint64_t seed, int64_t now_ns)
{
    *breaker = (weir__breaker){.rules = *rules,
                               .state = WEIR__BREAKER_CLOSED,
                               .open_for_ns = rules->open_ns,
                               .random = {seed},
                               .next_expiry = INT64_MAX,
                               .listening = listening};
    breaker->probes = weir__calloc(rules->half_open_calls, sizeof(*breaker->probes));
    if (!breaker->probes)
        return false;
    if (rules->window_calls)
        return weir__count_window_init(&breaker->by_count, rules->window_calls);
    weir__time_window_init(&breaker->by_time, rules->window_ns, now_ns);
    return true;
}

void weir__breaker_fini(weir__breaker *breaker)
{
    weir__count_window_fini(&breaker->by_count);
    weir__free(breaker->probes);
}

/* ---- transitions ------------------------------------------------------------------------------ */

static uint32_t free_events(const weir__breaker *breaker)
{
    return breaker->listening ? WEIR__BREAKER_EVENTS - breaker->n_events : WEIR__BREAKER_EVENTS;
}

bool weir__breaker_next_event(weir__breaker *breaker, weir__breaker_event *ret_event)
{
    if (breaker->n_events == 0)
        return false;
    *ret_event = breaker->events[breaker->first_event];
    breaker->first_event = (breaker->first_event + 1) % WEIR__BREAKER_EVENTS;
    breaker->n_events--;
    return true;
}

static void enter(weir__breaker *breaker, weir__breaker_state state)
{
    if (breaker->listening) {
        uint32_t last = (breaker->first_event + breaker->n_events++) % WEIR__BREAKER_EVENTS;
        breaker->events[last] = (weir__breaker_event){(uint8_t)breaker->state, (uint8_t)state};
    }
    breaker->state = state;
    breaker->epoch++;
    breaker->trial = (weir__tally){0};
    breaker->trial_out = 0;
}

static void clear_window(weir__breaker *breaker)
{
    if (breaker->rules.window_calls)
        weir__count_window_clear(&breaker->by_count);
    else
        weir__time_window_clear(&breaker->by_time);
}

static int64_t add(int64_t time_ns, double ns)
{
    return ns < (double)(INT64_MAX - time_ns) ? time_ns + (int64_t)ns : INT64_MAX;
}

/* Opens at a point that may have passed already. */
static void open_at(weir__breaker *breaker, int64_t at_ns)
{
    const weir__breaker_rules *rules = &breaker->rules;
    double longer = (double)breaker->open_for_ns * rules->multiplier;
    if (breaker->state == WEIR__BREAKER_CLOSED)
        breaker->open_for_ns = rules->open_ns;
    else
        breaker->open_for_ns =
            longer < (double)rules->max_open_ns ? (int64_t)longer : rules->max_open_ns;
    double extra = rules->jitter > 0
                       ? rules->jitter * weir__random_unit(weir__random_next(&breaker->random))
                       : 0;
    breaker->open_until = add(at_ns, (double)breaker->open_for_ns * (1 + extra));
    breaker->counts.opened++;
    enter(breaker, WEIR__BREAKER_OPEN);
}

static void close_now(weir__breaker *breaker)
{
    clear_window(breaker);
    enter(breaker, WEIR__BREAKER_CLOSED);
}

/* Whether so much of a whole failed or was slow that the breaker has to be open. */
static bool is_bad(const weir__breaker_rules *rules, uint64_t failed, uint64_t slow, uint64_t whole)
{
    return weir__reaches(failed, whole, rules->failure_ratio) ||
           (rules->slow_ns && weir__reaches(slow, whole, rules->slow_ratio));
}

/* Ends the trial as soon as the probes that are missing cannot change its outcome. */
static void judge_trial(weir__breaker *breaker, int64_t at_ns)
{
    const weir__breaker_rules *rules = &breaker->rules;
    const weir__tally *trial = &breaker->trial;
    uint64_t whole = rules->half_open_calls, missing = whole - trial->calls;
    if (is_bad(rules, trial->failed, trial->slow, whole))
        open_at(breaker, at_ns);
    else if (!is_bad(rules, trial->failed + missing, trial->slow + missing, whole))
        close_now(breaker);
}

static void add_to_window(weir__breaker *breaker, bool failed, bool slow, int64_t now_ns)
{
    const weir__tally *tally = &breaker->by_count.tally;
    if (breaker->rules.window_calls) {
        weir__count_window_add(&breaker->by_count, failed, slow);
    } else {
        weir__time_window_advance(&breaker->by_time, now_ns);
        weir__time_window_add(&breaker->by_time, failed, slow);
        tally = &breaker->by_time.tally;
    }
    if (tally->calls >= breaker->rules.min_calls &&
        is_bad(&breaker->rules, tally->failed, tally->slow, tally->calls))
        open_at(breaker, now_ns);
}

bool weir__breaker_isolate(weir__breaker *breaker)
{
    if (breaker->state == WEIR__BREAKER_ISOLATED)
        return true;
    if (free_events(breaker) < 1)
        return false;
    enter(breaker, WEIR__BREAKER_ISOLATED);
    return true;
}

bool weir__breaker_reset(weir__breaker *breaker)
{
    if (breaker->state == WEIR__BREAKER_CLOSED) {
        clear_window(breaker);
        breaker->epoch++;
        return true;
    }
    if (free_events(breaker) < 2) /* to close, and to open again */
        return false;
    close_now(breaker);
    return true;
}

/* ---- probes ------------------------------------------------------------------------------------ */

static void give_up_probe(weir__breaker *breaker, weir__probe *probe)
{
    probe->out = false;
    breaker->probes_out--;
    breaker->counts.in_flight--;
    breaker->counts.expired++;
    if (probe->epoch != breaker->epoch)
        return;
    breaker->trial_out--;
    weir__tally_add(&breaker->trial, true, false);
    judge_trial(breaker, probe->expires_at);
}

static void expire_probes(weir__breaker *breaker, int64_t now_ns)
{
    if (now_ns < breaker->next_expiry)
        return;
    int64_t next = INT64_MAX;
    for (uint32_t i = 0; i < breaker->rules.half_open_calls; i++) {
        weir__probe *probe = &breaker->probes[i];
        if (probe->out && probe->expires_at <= now_ns)
            give_up_probe(breaker, probe);
        if (probe->out && probe->expires_at < next)
            next = probe->expires_at;
    }
    breaker->next_expiry = next;
}

/* A slot for one more probe of this epoch; NULL: there must not be one more. */
static weir__probe *find_slot(weir__breaker *breaker)
{
    uint32_t slots = breaker->rules.half_open_calls;
    if (breaker->trial.calls + breaker->trial_out >= slots || breaker->probes_out >= slots)
        return NULL;
    weir__probe *probe = breaker->probes;
    while (probe->out) /* ends: not all are out */
        probe++;
    return probe;
}

static bool admit_probe(weir__breaker *breaker, int64_t now_ns, weir__breaker_call *call)
{
    weir__probe *probe = find_slot(breaker);
    if (!probe)
        return false;
    probe->out = true;
    probe->serial++;
    probe->epoch = breaker->epoch;
    probe->expires_at = add(now_ns, (double)breaker->rules.probe_ns);
    if (probe->expires_at < breaker->next_expiry)
        breaker->next_expiry = probe->expires_at;
    breaker->trial_out++;
    if (++breaker->probes_out > breaker->probes_peak)
        breaker->probes_peak = breaker->probes_out;
    call->probe = (uint32_t)(probe - breaker->probes) + 1;
    call->serial = probe->serial;
    return true;
}

/* Gives the slot back; false: it has been given up already. */
static bool end_probe(weir__breaker *breaker, const weir__breaker_call *call)
{
    weir__probe *probe = &breaker->probes[call->probe - 1];
    if (!probe->out || probe->serial != call->serial)
        return false;
    probe->out = false;
    breaker->probes_out--;
    if (probe->epoch == breaker->epoch)
        breaker->trial_out--;
    return true;
}

bool weir__breaker_is_calm(const weir__breaker *breaker)
{
    const weir__breaker_rules *rules = &breaker->rules;
    return breaker->state == WEIR__BREAKER_CLOSED && rules->window_calls && !rules->slow_ns &&
           breaker->by_count.tally.failed == 0 && breaker->probes_out == 0;
}

/* ---- calls ------------------------------------------------------------------------------------- */

bool weir__breaker_admit(weir__breaker *breaker, int64_t now_ns, weir__breaker_call *ret_call)
{
    weir__breaker_call call = {.began_ns = now_ns};
    expire_probes(breaker, now_ns);
    if (breaker->state == WEIR__BREAKER_OPEN && now_ns >= breaker->open_until &&
        free_events(breaker) >= 3) /* this, to close, to open again */
        enter(breaker, WEIR__BREAKER_HALF_OPEN);
    bool may = breaker->state == WEIR__BREAKER_CLOSED ||
               (breaker->state == WEIR__BREAKER_HALF_OPEN && admit_probe(breaker, now_ns, &call));
    if (!may) {
        breaker->counts.rejected++;
        return false;
    }
    call.epoch = breaker->epoch;
    breaker->counts.admitted++;
    breaker->counts.in_flight++;
    *ret_call = call;
    return true;
}

void weir__breaker_report(weir__breaker *breaker, const weir__breaker_call *call,
                          weir__breaker_result result, int64_t now_ns)
{
    weir__breaker_counts *counts = &breaker->counts;
    expire_probes(breaker, now_ns);
    if (call->probe && !end_probe(breaker, call)) {
        counts->late++;
        return;
    }
    counts->in_flight--;
    if (result == WEIR__BREAKER_IGNORE) {
        counts->ignored++;
        return;
    }
    bool failed = result == WEIR__BREAKER_FAILURE;
    bool slow = breaker->rules.slow_ns && now_ns - call->began_ns >= breaker->rules.slow_ns;
    counts->failed += failed;
    counts->succeeded += !failed;
    counts->slow += slow;
    if (call->epoch != breaker->epoch) {
        counts->stale++;
    } else if (call->probe) {
        weir__tally_add(&breaker->trial, failed, slow);
        judge_trial(breaker, now_ns);
    } else {
        add_to_window(breaker, failed, slow, now_ns);
    }
}

/* ---- looking ----------------------------------------------------------------------------------- */

int64_t weir__breaker_retry_after(const weir__breaker *breaker, int64_t now_ns)
{
    uint32_t slots = breaker->rules.half_open_calls;
    int64_t at = 0;
    switch (breaker->state) {
    case WEIR__BREAKER_CLOSED: break;
    case WEIR__BREAKER_OPEN: at = breaker->open_until; break;
    case WEIR__BREAKER_HALF_OPEN:
        if (breaker->trial.calls + breaker->trial_out >= slots || breaker->probes_out >= slots)
            at = breaker->next_expiry;
        break;
    case WEIR__BREAKER_ISOLATED: return INT64_MAX;
    }
    return at > now_ns ? at - now_ns : 0;
}

weir__tally weir__breaker_tally(weir__breaker *breaker, int64_t now_ns)
{
    if (breaker->state == WEIR__BREAKER_HALF_OPEN)
        return breaker->trial;
    if (breaker->rules.window_calls)
        return breaker->by_count.tally;
    weir__time_window_advance(&breaker->by_time, now_ns);
    return breaker->by_time.tally;
}
