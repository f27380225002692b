/* judge.c - what is the matter with each object, and with all of them; see monitor_impl.h. */
#include <stdio.h>
#include <stdlib.h>

#include "observe/monitor_impl.h"

_Static_assert((int)WEIR_ISSUES == (int)WEIR__ISSUES &&
                   (int)WEIR_ISSUE_QUEUE_HIGH == (int)WEIR__QUEUE_HIGH &&
                   (int)WEIR_ISSUE_SLOW_SERVICE == (int)WEIR__SLOW_SERVICE &&
                   (int)WEIR_ISSUE_BACKPRESSURE == (int)WEIR__BACKPRESSURE &&
                   (int)WEIR_ISSUE_LOW_THROUGHPUT == (int)WEIR__LOW_THROUGHPUT &&
                   (int)WEIR_ISSUE_GROWING_AGE == (int)WEIR__GROWING_AGE &&
                   (int)WEIR_ISSUE_DROPS == (int)WEIR__DROPS &&
                   (int)WEIR_ISSUE_BREAKER_OPEN == (int)WEIR__BREAKER_OPEN &&
                   (int)WEIR_ISSUE_MEMORY == (int)WEIR__MEMORY &&
                   (int)WEIR_ISSUE_WORKERS_DIE == (int)WEIR__WORKERS_DIE,
               "the numbers are the model's");

const char *weir_issue_name(int kind)
{
    switch (kind) {
#define X(name, value, text)                                                                       \
    case value: return text;
        WEIR_ISSUE_MAP(X)
#undef X
    default: return "unknown";
    }
}

/* ---- issues --------------------------------------------------------------------------------- */

static void raise_issue(weir_monitor *monitor, object *o, weir_issue_kind kind, double value,
                        const weir__vitals *vitals)
{
    issue *i = &o->issues[kind];
    bool goes_on = o->pub.issues >> kind & 1;
    i->pub = (weir_monitor_issue){
        .kind = kind,
        .object = &o->pub,
        .since_ns = goes_on ? i->pub.since_ns : monitor->at_ns,
        .value = value,
        .threshold = weir__diagnosis_threshold(&monitor->limits, (weir__issue)kind),
        .text = i->text,
    };
    if (kind == WEIR_ISSUE_QUEUE_HIGH && vitals->depth > monitor->limits.queue_depth)
        i->pub.threshold = monitor->limits.queue_depth;
    weir__say_issue(i->text, sizeof i->text, o, kind, vitals, &monitor->limits);
    monitor->issues[monitor->n_issues++] = i;
}

static void judge_object(weir_monitor *monitor, object *o)
{
    double value[WEIR__ISSUES];
    weir__vitals vitals = weir__vitals_of(monitor, o);
    uint32_t issues = weir__diagnose(&vitals, &monitor->limits, value);
    for (int kind = 0; kind < WEIR_ISSUES; kind++)
        if (issues >> kind & 1)
            raise_issue(monitor, o, (weir_issue_kind)kind, value[kind], &vitals);
    o->pub.issues = issues;
}

/* How far it is beyond its threshold; of a throughput, below. */
static double excess_of(const weir_monitor_issue *i)
{
    double more = i->kind == WEIR_ISSUE_LOW_THROUGHPUT ? i->threshold : i->value;
    double less = i->kind == WEIR_ISSUE_LOW_THROUGHPUT ? i->value : i->threshold;
    return more / (less > 1e-9 ? less : 1e-9);
}

static int by_badness(const void *a, const void *b)
{
    const weir_monitor_issue *x = &(*(issue *const *)a)->pub, *y = &(*(issue *const *)b)->pub;
    int rank_x = weir__diagnosis_rank((weir__issue)x->kind);
    int rank_y = weir__diagnosis_rank((weir__issue)y->kind);
    if (rank_x != rank_y)
        return rank_x - rank_y;
    double excess_x = excess_of(x), excess_y = excess_of(y);
    if (excess_x != excess_y)
        return excess_x > excess_y ? -1 : 1;
    return (x->object->key > y->object->key) - (x->object->key < y->object->key);
}

/* ---- the root ------------------------------------------------------------------------------- */

/* A pipeline says itself who holds whom back.  Of what is in none, callers that wait are all there is to
 * see. */
static double pressure_of(const object *o)
{
    if (o->pub.seconds <= 0 || is_kind(o, WEIR_STATS_WORKER))
        return 0;
    if (is_kind(o, WEIR_STATS_STAGE))
        return o->pub.pressure;
    return weir__pressure_of_line(o->pub.put_blocked, o->pub.get_blocked);
}

/* Of a process and those below it; top NULL: of all. */
static object *find_root(const weir_monitor *monitor, const process *top)
{
    object *root = NULL;
    double most = WEIR__PRESSURE_MIN;
    for (size_t i = 0; i < monitor->now.n_objects; i++) {
        object *o = monitor->now.objects[i];
        double pressure = pressure_of(o);
        if (pressure > most && (!top || is_below(o->process, top))) {
            most = pressure;
            root = o;
        }
    }
    return root;
}

/* Where nothing is held back: the queue whose consumers wait most for what comes through it. */
static object *find_starved(const weir_monitor *monitor, const process *top)
{
    object *starved = NULL;
    double most = WEIR__STARVED_MIN;
    for (size_t i = 0; i < monitor->now.n_objects; i++) {
        object *o = monitor->now.objects[i];
        bool is_queue = is_kind(o, WEIR_STATS_QUEUE) || is_kind(o, WEIR_STATS_SHARED_QUEUE);
        if (is_queue && o->pub.get_blocked > most && o->pub.delivered_per_s > 0 &&
            (!top || is_below(o->process, top))) {
            most = o->pub.get_blocked;
            starved = o;
        }
    }
    return starved;
}

/* Nobody feeds it.  (Of stages beyond place 63 nobody tells whom they feed.) */
static bool is_source(object *const *stages, size_t n, const object *o)
{
    const uint64_t *number = record_of(o)->number;
    uint64_t place = number[WEIR_STATS_PLACE];
    if (n < 2 || place >= 64 || number[WEIR_STATS_CAPACITY] > 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (record_of(stages[i])->number[WEIR_STATS_FEEDS] >> place & 1)
            return false;
    return true;
}

/* Of the n stages of a pipeline in which nobody is held up: the slowest source, unless a stage was clearly
 * more at work; and of the time of the others' workers, the share that they waited. */
static object *slowest_source(object *const *stages, size_t n, double *ret_share)
{
    object *source = NULL;
    double workers = 0, idle = 0, busiest = 0;
    for (size_t i = 0; i < n; i++) {
        object *o = stages[i];
        double own = (double)record_of(o)->number[WEIR_STATS_WORKERS];
        if (is_source(stages, n, o)) {
            source = !source || o->pub.busy > source->pub.busy ? o : source;
            continue;
        }
        workers += own;
        idle += own * o->idle;
        busiest = o->pub.busy > busiest ? o->pub.busy : busiest;
    }
    *ret_share = workers > 0 ? idle / workers : 0;
    return source && busiest < WEIR__CLEARLY * source->pub.busy ? source : NULL;
}

/* Where nothing is held back: the source that the stages of a pipeline wait most for. */
static object *find_source(const weir_monitor *monitor, const process *top, double *ret_share)
{
    object *best = NULL, *const *objects = monitor->now.objects;
    *ret_share = WEIR__STARVED_MIN;
    for (size_t i = 0, n; i < monitor->now.n_objects; i += n) {
        n = 1;
        if (!is_kind(objects[i], WEIR_STATS_STAGE) || (top && !is_below(objects[i]->process, top)))
            continue;
        while (i + n < monitor->now.n_objects && objects[i + n]->leader == objects[i]->leader)
            n++; /* they stand in a row */
        double share;
        object *source = slowest_source(objects + i, n, &share);
        if (source && share > *ret_share) {
            *ret_share = share;
            best = source;
        }
    }
    return best;
}

/* Of the pressure in its pipeline, what is the stage's. */
static double share_of(const weir_monitor *monitor, const object *o)
{
    double all = 0;
    for (size_t i = 0; i < monitor->now.n_objects; i++)
        if (monitor->now.objects[i]->leader == o->leader &&
            is_kind(monitor->now.objects[i], WEIR_STATS_STAGE))
            all += pressure_of(monitor->now.objects[i]);
    return all > 0 ? pressure_of(o) / all : 1;
}

/* Says who is the root, and returns it. */
static object *say_root(const weir_monitor *monitor, const process *top, char *text)
{
    object *root = find_root(monitor, top);
    if (root) {
        weir__say_root(text, TEXT_MAX, root, share_of(monitor, root));
        return root;
    }
    double share;
    object *source = find_source(monitor, top, &share);
    if (source) {
        weir__say_source(text, TEXT_MAX, source, share);
        return source;
    }
    object *starved = find_starved(monitor, top);
    if (starved)
        weir__say_starved(text, TEXT_MAX, starved);
    else
        snprintf(text, TEXT_MAX, "nothing holds anything back");
    return starved;
}

static process *find_process(const weir_monitor *monitor, int64_t pid)
{
    for (size_t i = 0; i < monitor->now.n_processes; i++)
        if (monitor->now.processes[i]->pub.process.pid == pid)
            return monitor->now.processes[i];
    return NULL;
}

static const weir_monitor_object *shown(const object *o)
{
    return o ? &o->pub : NULL;
}

const char *weir_monitor_root(weir_monitor *monitor, int64_t pid,
                              const weir_monitor_object **ret_object)
{
    process *top = pid ? find_process(monitor, pid) : NULL;
    if (pid && !top) {
        snprintf(monitor->nobody_text, TEXT_MAX, "no process %lld that uses weir was seen",
                 (long long)pid);
        *ret_object = NULL;
        return monitor->nobody_text;
    }
    char *text = top ? top->root_text : monitor->root_text;
    object **root = top ? &top->root : &monitor->root;
    bool *is_said = top ? &top->root_is_said : &monitor->root_is_said;
    if (!*is_said)
        *root = say_root(monitor, top, text);
    *is_said = true;
    *ret_object = shown(*root);
    return text;
}

/* Those of processes that are below no other one here. */
static void mark_roots(weir_monitor *monitor)
{
    for (size_t i = 0; i < monitor->now.n_objects; i++) {
        object *o = monitor->now.objects[i];
        process *top = o->process;
        while (top->above)
            top = top->above;
        o->pub.is_root = false;
        if (pressure_of(o) > (top->most ? pressure_of(top->most) : WEIR__PRESSURE_MIN))
            top->most = o;
    }
    for (size_t i = 0; i < monitor->now.n_processes; i++)
        if (monitor->now.processes[i]->most)
            monitor->now.processes[i]->most->pub.is_root = true;
}

void weir__judge(weir_monitor *monitor)
{
    monitor->n_issues = 0;
    for (size_t i = 0; i < monitor->now.n_objects; i++)
        judge_object(monitor, monitor->now.objects[i]);
    if (monitor->n_issues > 0)
        qsort(monitor->issues, monitor->n_issues, sizeof *monitor->issues, by_badness);
    monitor->root_is_said = false;
    mark_roots(monitor);
}
