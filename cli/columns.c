/* columns.c - the columns of `weir top`; see columns.h. */
#include "columns.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define RECENT 3 /* looks */

static uint64_t number(const weir_monitor_object *object, weir_stats_number n)
{
    return object->record->number[n];
}

/* ---- what an object is ---------------------------------------------------------------------- */

cli_text object_name(const weir_monitor_object *object)
{
    cli_text t;
    if (!object->record->name[0])
        snprintf(t.s, sizeof t.s, "#%" PRIu64, object->record->id);
    else
        snprintf(t.s, sizeof t.s, "%s", object->record->name);
    return t;
}

cli_text object_kind(const weir_monitor_object *object)
{
    cli_text t;
    snprintf(t.s, sizeof t.s, "%s", weir_stats_kind_name((int)object->record->kind));
    for (char *c = t.s; *c; c++)
        *c = *c == '_' ? ' ' : *c;
    return t;
}

/* ---- how full ------------------------------------------------------------------------------- */

/* A breaker, a rate or a worker holds nothing that could be full; how full a shared queue is nobody tells. */
static bool has_depth(const weir_monitor_object *object)
{
    switch (object->record->kind) {
    case WEIR_STATS_RATE:
    case WEIR_STATS_BREAKER:
    case WEIR_STATS_SHARED_QUEUE:
    case WEIR_STATS_WORKER: return false;
    default: return true;
    }
}

static bool is_counted_in_flight(const weir_monitor_object *object)
{
    return object->record->kind == WEIR_STATS_LIMIT || object->record->kind == WEIR_STATS_BREAKER;
}

/* Whose bound is one of cost: bytes, or permits. */
static bool is_by_cost(const weir_monitor_object *object)
{
    return object->record->kind == WEIR_STATS_GOVERNOR ||
           object->record->kind == WEIR_STATS_WATERMARK ||
           (number(object, WEIR_STATS_CAPACITY) == UINT64_MAX &&
            number(object, WEIR_STATS_MAX_COST) > 0);
}

double object_depth(const weir_monitor_object *object)
{
    if (is_counted_in_flight(object))
        return (double)number(object, WEIR_STATS_IN_FLIGHT);
    if (is_by_cost(object)) {
        uint64_t inside = number(object, WEIR_STATS_DEPTH_COST);
        return (double)(inside ? inside : number(object, WEIR_STATS_IN_FLIGHT_COST));
    }
    return (double)(number(object, WEIR_STATS_DEPTH) + number(object, WEIR_STATS_SPILLED));
}

double object_bound(const weir_monitor_object *object)
{
    uint64_t bound = number(object, is_by_cost(object) ? WEIR_STATS_MAX_COST : WEIR_STATS_CAPACITY);
    return bound == UINT64_MAX || (is_by_cost(object) && bound == 0) ? -1 : (double)bound;
}

cli_text object_fill(const weir_monitor_object *object)
{
    cli_text t = {"-"};
    double bound = object_bound(object);
    if (!has_depth(object) || (bound == 0 && object_depth(object) == 0))
        return t; /* a breaker; a stage without a queue: a source, or one that runs in another */
    cli_text inside = text_count(object_depth(object)), most = text_count(bound);
    if (bound < 0)
        return inside;
    snprintf(t.s, sizeof t.s, "%.8s/%.8s", inside.s, most.s);
    return t;
}

double object_share(const weir_monitor_object *object)
{
    double bound = has_depth(object) ? object_bound(object) : -1;
    if (bound <= 0)
        return object->fullness;
    double share = object_depth(object) / bound; /* fullness is of the worse one of two bounds */
    return share > object->fullness ? share : object->fullness;
}

/* ---- rates ---------------------------------------------------------------------------------- */

/* The mean of one number of the last samples, of which the first has none yet. */
static double recent(const weir_monitor_object *object, size_t offset)
{
    size_t count = object->sample_count, n = count > RECENT ? RECENT : count > 0 ? count - 1 : 0;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const char *sample = (const char *)&object->samples[count - 1 - i];
        sum += *(const double *)(const void *)(sample + offset);
    }
    return n ? sum / (double)n : 0;
}

double object_in(const weir_monitor_object *object)
{
    return recent(object, offsetof(weir_monitor_sample, accepted_per_s));
}

double object_out(const weir_monitor_object *object)
{
    return recent(object, offsetof(weir_monitor_sample, delivered_per_s));
}

double object_dropped(const weir_monitor_object *object)
{
    return recent(object, offsetof(weir_monitor_sample, dropped_per_s));
}

double object_blocked(const weir_monitor_object *object)
{
    return recent(object, offsetof(weir_monitor_sample, put_blocked));
}

static double starved(const weir_monitor_object *object)
{
    return recent(object, offsetof(weir_monitor_sample, get_blocked));
}

static cli_text in_text(const weir_monitor_object *object)
{
    return text_rate(object_in(object));
}

static cli_text out_text(const weir_monitor_object *object)
{
    return text_rate(object_out(object));
}

static cli_text dropped_text(const weir_monitor_object *object)
{
    return text_rate(object_dropped(object));
}

static cli_text blocked_text(const weir_monitor_object *object)
{
    return text_rate(object_blocked(object));
}

static cli_text starved_text(const weir_monitor_object *object)
{
    return text_rate(starved(object));
}

/* ---- times ---------------------------------------------------------------------------------- */

static cli_text time_text(const weir_monitor_times *times, uint64_t ns)
{
    return times->count ? text_time((double)ns) : (cli_text){"-"};
}

#define TIME_COLUMN(which, p)                                                                      \
    static cli_text which##_##p##_text(const weir_monitor_object *object)                          \
    {                                                                                              \
        return time_text(&object->which, object->which.p##_ns);                                    \
    }                                                                                              \
    static double which##_##p(const weir_monitor_object *object)                                   \
    {                                                                                              \
        return object->which.count ? (double)object->which.p##_ns : -1;                            \
    }

TIME_COLUMN(wait, p50)
TIME_COLUMN(wait, p99)
TIME_COLUMN(service, p50)
TIME_COLUMN(service, p99)

/* ---- workers -------------------------------------------------------------------------------- */

static double workers(const weir_monitor_object *object)
{
    return (double)number(object, WEIR_STATS_WORKERS);
}

static cli_text workers_text(const weir_monitor_object *object)
{
    cli_text t = {"-"};
    bool is_one = object->record->kind == WEIR_STATS_WORKER;
    if (is_one && object->busy >= 0)
        snprintf(t.s, sizeof t.s, "%.0f%%", 100 * object->busy);
    else if (workers(object) > 0 && object->busy >= 0)
        snprintf(t.s, sizeof t.s, "%.0f %.0f%%", workers(object), 100 * object->busy);
    else if (workers(object) > 0)
        snprintf(t.s, sizeof t.s, "%.0f", workers(object));
    return t;
}

/* ---- the list ------------------------------------------------------------------------------- */

const cli_column columns[COLUMNS] = {
    [COLUMN_OBJECT] = {"OBJECT", "name", "what it is called", 0, 0, object_name, NULL},
    [COLUMN_KIND] = {"KIND", "kind", "what it is", 12, 6, object_kind, NULL},
    [COLUMN_DEPTH] = {"DEPTH", "depth", "items inside, and the bound; a bar of how full it is", 17,
                      1, object_fill, object_share},
    [COLUMN_IN] = {"IN/s", "in", "items that were accepted", 6, 2, in_text, object_in},
    [COLUMN_OUT] = {"OUT/s", "out", "items that were delivered; of pools and limits: done", 6, 1,
                    out_text, object_out},
    [COLUMN_DROPPED] = {"DROP/s", "drop", "items that were dropped, for whatever reason", 6, 4,
                        dropped_text, object_dropped},
    [COLUMN_BLOCKED] = {"BLOCKED", "blocked", "callers that wait for room or a permit, on average",
                        7, 2, blocked_text, object_blocked},
    [COLUMN_STARVED] = {"STARVED", "starved", "callers that wait for items, on average", 7, 7,
                        starved_text, starved},
    [COLUMN_WAIT_P50] = {"WAIT50", NULL, "how long half of the items waited inside at most", 6, 8,
                         wait_p50_text, wait_p50},
    [COLUMN_WAIT_P99] = {"WAIT99", "wait", "the same of 99 % of them", 6, 3, wait_p99_text,
                         wait_p99},
    [COLUMN_SERVICE_P50] = {"SERV50", NULL,
                            "how long half of them were worked on at most, once delivered", 6, 9,
                            service_p50_text, service_p50},
    [COLUMN_SERVICE_P99] = {"SERV99", "service", "the same of 99 % of them", 6, 5, service_p99_text,
                            service_p99},
    [COLUMN_WORKERS] = {"WORKERS", "workers", "threads or processes, and how busy they are", 7, 6,
                        workers_text, workers},
    [COLUMN_TREND] = {"DEPTH OVER TIME", NULL, "what DEPTH was at the last looks", 8, 3, NULL,
                      NULL},
};

void columns_fit(int width, int least, bool ret_shown[COLUMNS])
{
    int needed = least, worst;
    for (int i = 0; i < COLUMNS; i++) {
        ret_shown[i] = true;
        needed += i == COLUMN_OBJECT ? 0 : columns[i].width + 1;
    }
    for (worst = COLUMNS; needed > width && worst != COLUMN_OBJECT;) {
        worst = COLUMN_OBJECT;
        for (int i = COLUMNS - 1; i > COLUMN_OBJECT; i--) {
            if (ret_shown[i] && columns[i].rank > columns[worst].rank)
                worst = i;
        }
        if (worst != COLUMN_OBJECT) {
            ret_shown[worst] = false;
            needed -= columns[worst].width + 1;
        }
    }
}

const char *columns_name(const void *ctx, size_t i)
{
    (void)ctx;
    static const column_id sorted[] = {
        COLUMN_OBJECT,   COLUMN_KIND,        COLUMN_DEPTH,   COLUMN_IN,
        COLUMN_OUT,      COLUMN_DROPPED,     COLUMN_BLOCKED, COLUMN_STARVED,
        COLUMN_WAIT_P99, COLUMN_SERVICE_P99, COLUMN_WORKERS,
    };
    return i < sizeof sorted / sizeof *sorted ? columns[sorted[i]].name : NULL;
}

column_id columns_find(const char *name)
{
    for (int i = 0; i < COLUMNS; i++) {
        if (columns[i].name && strcmp(columns[i].name, name) == 0)
            return (column_id)i;
    }
    return COLUMNS;
}

int columns_compare(column_id by, const weir_monitor_object *a, const weir_monitor_object *b)
{
    const cli_column *column = &columns[by];
    if (!column->value)
        return strcmp(column->text(a).s, column->text(b).s);
    double first = column->value(a), second = column->value(b);
    return (first < second) - (first > second);
}
