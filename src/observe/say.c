/* say.c - issues and the root in sentences, without a full stop; see monitor_impl.h.
 *
 * Numbers are written here, not by printf's %g: that follows the program's locale. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "observe/monitor_impl.h"

/* What is being said; what does not fit is cut off. */
typedef struct sentence {
    char *text;
    size_t size, n;
} sentence;

static sentence begin(char *buf, size_t size)
{
    buf[0] = '\0';
    return (sentence){.text = buf, .size = size};
}

__attribute__((format(printf, 2, 3))) static void say(sentence *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(s->text + s->n, s->size - s->n, format, args);
    va_end(args);
    s->n += n > 0 ? (size_t)n : 0;
    if (s->n >= s->size)
        s->n = s->size - 1;
}

/* Three digits or so: 1234, 56.7, 0.25. */
static void say_number(sentence *s, double value)
{
    uint64_t hundredths = value < 1e15 ? (uint64_t)(value * 100 + 0.5) : 0;
    if (value >= 1e15)
        say(s, "more than 10^15");
    else if (value >= 99.95 || hundredths % 100 == 0)
        say(s, "%" PRIu64, (uint64_t)(value + 0.5));
    else if (value >= 9.995 || hundredths % 10 == 0)
        say(s, "%" PRIu64 ".%" PRIu64, (uint64_t)(value * 10 + 0.5) / 10,
            (uint64_t)(value * 10 + 0.5) % 10);
    else
        say(s, "%" PRIu64 ".%02" PRIu64, hundredths / 100, hundredths % 100);
}

static void say_percent(sentence *s, double share)
{
    say(s, "%d %%", (int)((share < 1 ? share : 1) * 100 + 0.5));
}

static void say_time(sentence *s, double seconds)
{
    double ns = seconds * 1e9;
    const char *unit = ns < 1e3 ? "ns" : ns < 1e6 ? "us" : ns < 1e9 ? "ms" : "s";
    say_number(s, ns / (ns < 1e3 ? 1 : ns < 1e6 ? 1e3 : ns < 1e9 ? 1e6 : 1e9));
    say(s, " %s", unit);
}

static void say_bytes(sentence *s, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < sizeof units / sizeof *units; unit++)
        value /= 1024;
    say_number(s, value);
    say(s, " %s", units[unit]);
}

/* "12 items". */
static void say_count(sentence *s, double n, const char *one, const char *many)
{
    say_number(s, n);
    say(s, " %s", n == 1 ? one : many);
}

static void say_name(sentence *s, const object *o)
{
    const weir_stats_record *r = record_of(o);
    say(s, "%s '%s'", weir__kind_words((int)r->kind), r->name);
}

static const char *one_item(const object *o)
{
    return is_kind(o, WEIR_STATS_THREAD_POOL) || is_kind(o, WEIR_STATS_PROCESS_POOL) ? "task"
                                                                                     : "item";
}

static const char *items(const object *o)
{
    return one_item(o)[0] == 't' ? "tasks" : "items";
}

static void say_window(sentence *s, const object *o)
{
    say_time(s, o->pub.seconds);
}

/* ---- issues --------------------------------------------------------------------------------- */

/* In items or in cost, whichever is more. */
static void say_fullness(sentence *s, const object *o, const weir__vitals *v)
{
    const uint64_t *n = record_of(o)->number;
    say_name(s, o);
    say(s, " is ");
    say_percent(s, v->fullness);
    double by_cost = v->fullness * (double)n[WEIR_STATS_MAX_COST];
    bool is_by_items = v->places > 0 &&
                       (n[WEIR_STATS_MAX_COST] == 0 || v->depth / v->places >= v->fullness * 0.99);
    say(s, " full: ");
    say_number(s, is_by_items ? v->fullness * v->places : by_cost);
    say(s, " of ");
    say_number(s, is_by_items ? v->places : (double)n[WEIR_STATS_MAX_COST]);
    say(s, is_by_items ? " places" : " in cost");
}

static void say_high(sentence *s, const object *o, const weir__vitals *v,
                     const weir__limits *limits)
{
    if (v->depth <= limits->queue_depth) {
        say_fullness(s, o, v);
        return;
    }
    say_name(s, o);
    say(s, " holds ");
    say_count(s, v->depth, one_item(o), items(o));
    say(s, " on average, more than ");
    say_number(s, limits->queue_depth);
}

static void say_slow(sentence *s, const object *o, const weir__vitals *v,
                     const weir__limits *limits)
{
    say(s, "what ");
    say_name(s, o);
    say(s, is_kind(o, WEIR_STATS_QUEUE) ? " gives out takes " : " works on takes ");
    say_time(s, v->service_s);
    say(s, " on average, more than ");
    say_time(s, limits->service_s);
    say(s, " (99 %% of it no more than ");
    say_time(s, (double)o->pub.service.p99_ns / 1e9);
    say(s, ")");
}

static void say_part(sentence *s, bool *any, double n, const char *one, const char *many)
{
    if (n <= 0)
        return;
    if (*any)
        say(s, ", ");
    *any = true;
    say_count(s, n, one, many);
}

static void say_backpressure(sentence *s, const object *o, const weir__vitals *v)
{
    bool any = false;
    say_name(s, o);
    say(s, " has pushed back within ");
    say_window(s, o);
    say(s, ": ");
    say_part(s, &any, v->waits, "caller had to wait", "callers had to wait");
    say_part(s, &any, v->refused, "call was refused", "calls were refused");
    say_part(s, &any, v->dropped - v->discarded, "item was dropped", "items were dropped");
}

static void say_low(sentence *s, const object *o, const weir__vitals *v)
{
    say_name(s, o);
    say(s, " lets ");
    say_number(s, v->seconds > 0 ? v->out / v->seconds : 0);
    say(s, " %s/s through, and is never without: ", items(o));
    say_number(s, v->least_inside);
    say(s, " or more inside");
}

static void say_age(sentence *s, const object *o, const weir__vitals *v)
{
    say(s, "what comes out of ");
    say_name(s, o);
    say(s, " has waited longer and longer: ");
    say_time(s, v->wait_s[2]);
    say(s, ", and ");
    say_time(s, v->wait_s[0]);
    say(s, " a while ago");
}

static void say_drops(sentence *s, const object *o, const weir__vitals *v)
{
    say_name(s, o);
    say(s, " dropped ");
    say_count(s, v->dropped - v->discarded, one_item(o), items(o));
    say(s, " within ");
    say_window(s, o);
}

static void say_breaker(sentence *s, const object *o, const weir__vitals *v)
{
    const char *state = weir__state_name(WEIR_STATS_BREAKER, v->state);
    say_name(s, o);
    say(s,
        " is %s: ", state ? strcmp(state, "half_open") == 0 ? "half open" : state : "not closed");
    say_count(s, v->refused, "call was", "calls were");
    say(s, " not let through within ");
    say_window(s, o);
}

/* What governors tell as their capacity is what may be reserved as things are now. */
static void say_reserved(sentence *s, const object *o)
{
    const uint64_t *n = record_of(o)->number;
    say_bytes(s, n[WEIR_STATS_IN_FLIGHT_COST]);
    say(s, " reserved, of at most ");
    say_bytes(s, n[WEIR_STATS_CAPACITY]);
    say(s, " as memory is now");
}

static void say_memory(sentence *s, const object *o, const weir__vitals *v)
{
    static const char *const does[] = {"is at ease", "slows down what comes", "lets nothing in",
                                       "sends away what comes"};
    say_name(s, o);
    say(s, " %s: ", does[v->state < 4 ? v->state : 3]);
    say_reserved(s, o);
}

static void say_deaths(sentence *s, const object *o)
{
    bool any = false;
    say(s, "workers of ");
    say_name(s, o);
    say(s, " died within ");
    say_window(s, o);
    say(s, ": ");
    say_part(s, &any, (double)weir__within(o, FAILED), "task failed", "tasks failed");
    say_part(s, &any, (double)weir__within(o, RETRIED), "task was run again",
             "tasks were run again");
}

void weir__say_issue(char *buf, size_t size, const object *o, weir_issue_kind kind,
                     const weir__vitals *v, const weir__limits *limits)
{
    sentence s = begin(buf, size);
    switch (kind) {
    case WEIR_ISSUE_QUEUE_HIGH: say_high(&s, o, v, limits); return;
    case WEIR_ISSUE_SLOW_SERVICE: say_slow(&s, o, v, limits); return;
    case WEIR_ISSUE_BACKPRESSURE: say_backpressure(&s, o, v); return;
    case WEIR_ISSUE_LOW_THROUGHPUT: say_low(&s, o, v); return;
    case WEIR_ISSUE_GROWING_AGE: say_age(&s, o, v); return;
    case WEIR_ISSUE_DROPS: say_drops(&s, o, v); return;
    case WEIR_ISSUE_BREAKER_OPEN: say_breaker(&s, o, v); return;
    case WEIR_ISSUE_MEMORY: say_memory(&s, o, v); return;
    case WEIR_ISSUE_WORKERS_DIE: say_deaths(&s, o); return;
    default: return;
    }
}

/* ---- the root ------------------------------------------------------------------------------- */

/* "producers waited 87 % of the last 10 s", or "3.2 producers waited on average over the last 10 s". */
static void say_waiting(sentence *s, const object *o, const char *who, double callers)
{
    if (callers > 1.005) {
        say_number(s, callers);
        say(s, " %s waited on average over the last ", who);
    } else {
        say(s, "%s waited ", who);
        say_percent(s, callers);
        say(s, " of the last ");
    }
    say_window(s, o);
}

static void say_busy(sentence *s, const object *o)
{
    if (o->pub.busy < 0)
        return;
    say(s, " (busy ");
    say_percent(s, o->pub.busy);
    say(s, ")");
}

static void say_workers(sentence *s, const object *o)
{
    uint64_t n = record_of(o)->number[WEIR_STATS_WORKERS];
    if (n > 0) /* they may have gone since */
        say(s, "%" PRIu64 " ", n);
    say(s, n == 1 ? "worker" : "workers");
    say_busy(s, o);
}

static void say_cause(sentence *s, const object *o)
{
    const char *cause = weir__cause_name(record_of(o)->number[WEIR_STATS_CAUSE]);
    if (!cause || strcmp(cause, "workers") == 0 || strcmp(cause, "source") == 0)
        say_workers(s, o);
    else if (strcmp(cause, "retry") == 0)
        say(s, "pauses before retries");
    else if (strcmp(cause, "order") == 0)
        say(s, "order: items wait for a slow one ahead");
    else
        say(s, "%s", cause);
}

/* A stage is named "pipeline/stage". */
static int length_of_pipeline(const char *name)
{
    return (int)strcspn(name, "/");
}

static void say_stage(sentence *s, const object *o, double share)
{
    const char *name = record_of(o)->name;
    say_name(s, o);
    say(s, " is the bottleneck: ");
    say_percent(s, share);
    say(s, " of the blocked time of '%.*s'; it is limited by its ", length_of_pipeline(name), name);
    say_cause(s, o);
}

static void say_queue(sentence *s, const object *o)
{
    const weir_monitor_object *pub = &o->pub;
    say_name(s, o);
    say(s, pub->fullness >= 0.8 ? " is full: " : " makes its producers wait: ");
    say_waiting(s, o, "producers", pub->put_blocked);
    if (is_kind(o, WEIR_STATS_SHARED_QUEUE)) /* what comes out, does so in other processes */
        return;
    say(s, "; ");
    say_number(s, pub->delivered_per_s);
    say(s, " items/s come out");
    if (pub->wait.count > 0) {
        say(s, ", and what comes out has waited ");
        say_time(s, (double)pub->wait.mean_ns / 1e9);
        say(s, " on average");
    }
}

static void say_pool(sentence *s, const object *o)
{
    const weir_monitor_object *pub = &o->pub;
    say_name(s, o);
    say(s, " is full: ");
    say_waiting(s, o, "submitters", pub->put_blocked);
    say(s, "; its ");
    say_workers(s, o);
    say(s, record_of(o)->number[WEIR_STATS_WORKERS] == 1 ? " completes " : " complete ");
    say_number(s, pub->done_per_s);
    say(s, " tasks/s");
    if (pub->service.count > 0) {
        say(s, ", each takes ");
        say_time(s, (double)pub->service.mean_ns / 1e9);
        say(s, " on average");
    }
}

static void say_limit(sentence *s, const object *o)
{
    const weir_monitor_object *pub = &o->pub;
    const uint64_t *n = record_of(o)->number;
    say_name(s, o);
    say(s, " is reached: ");
    say_waiting(s, o, "callers", pub->put_blocked);
    say(s, "; ");
    say_count(s, (double)n[WEIR_STATS_IN_FLIGHT], "call is", "calls are");
    say(s, " under way, of ");
    say_number(s, (double)n[WEIR_STATS_CAPACITY]);
    if (pub->service.count > 0) {
        say(s, ", and each takes ");
        say_time(s, (double)pub->service.mean_ns / 1e9);
        say(s, " on average");
    }
}

/* In a unit that leaves a number to say: "300 tokens/s", "1 token an hour". */
static void say_tokens(sentence *s, uint64_t per_hour)
{
    if (per_hour >= 3600) {
        say_number(s, (double)per_hour / 3600);
        say(s, " tokens/s");
    } else if (per_hour >= 60) {
        say_count(s, (double)per_hour / 60, "token", "tokens");
        say(s, " a minute");
    } else {
        say(s, per_hour ? "" : "less than ");
        say_count(s, per_hour ? (double)per_hour : 1, "token", "tokens");
        say(s, " an hour");
    }
}

static void say_rate(sentence *s, const object *o)
{
    say_name(s, o);
    say(s, " is used up: ");
    say_waiting(s, o, "callers", o->pub.put_blocked);
    say(s, "; it allows ");
    say_tokens(s, record_of(o)->number[WEIR_STATS_RATE_PER_HOUR]);
}

static void say_governor(sentence *s, const object *o)
{
    uint64_t state = record_of(o)->number[WEIR_STATS_STATE];
    const char *step = weir__state_name(WEIR_STATS_GOVERNOR, state);
    say_name(s, o);
    say(s, " holds work back: ");
    say_waiting(s, o, "callers", o->pub.put_blocked);
    say(s, "; ");
    say_reserved(s, o);
    say(s, " (step %s)", step ? step : "unknown");
}

static void say_other(sentence *s, const object *o)
{
    say_name(s, o);
    say(s, " holds its callers back: ");
    say_waiting(s, o, "callers", o->pub.put_blocked);
}

void weir__say_root(char *buf, size_t size, const object *o, double share)
{
    sentence s = begin(buf, size);
    switch ((int)record_of(o)->kind) {
    case WEIR_STATS_STAGE: say_stage(&s, o, share); return;
    case WEIR_STATS_QUEUE:
    case WEIR_STATS_SHARED_QUEUE: say_queue(&s, o); return;
    case WEIR_STATS_THREAD_POOL:
    case WEIR_STATS_PROCESS_POOL: say_pool(&s, o); return;
    case WEIR_STATS_LIMIT: say_limit(&s, o); return;
    case WEIR_STATS_RATE: say_rate(&s, o); return;
    case WEIR_STATS_GOVERNOR: say_governor(&s, o); return;
    default: say_other(&s, o); return;
    }
}

/* Of several consumers, how many wait is all that is known. */
void weir__say_starved(char *buf, size_t size, const object *o)
{
    sentence s = begin(buf, size);
    say(&s, "nothing holds anything back; ");
    if (o->pub.get_blocked > 1.005) {
        say_number(&s, o->pub.get_blocked);
        say(&s, " ");
    }
    say(&s, "consumers of ");
    say_name(&s, o);
    say(&s, " wait for work ");
    if (o->pub.get_blocked > 1.005) {
        say(&s, "on average");
    } else {
        say_percent(&s, o->pub.get_blocked);
        say(&s, " of the time");
    }
}

void weir__say_source(char *buf, size_t size, const object *o, double share)
{
    sentence s = begin(buf, size);
    const char *name = record_of(o)->name;
    say(&s,
        "nothing holds anything back; the source '%s' is the slowest: the stages of '%.*s' waited "
        "for it ",
        name, length_of_pipeline(name), name);
    say_percent(&s, share);
    say(&s, " of their time");
}
