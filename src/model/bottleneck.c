/* bottleneck.c - see bottleneck.h. */
#include "model/bottleneck.h"

#include <stdio.h>

#define NEGLIGIBLE           0.01 /* of the workers' time */
#define NEGLIGIBLE_TO_SOURCE 0.1  /* of the sources' time */
#define WORTH_NAMING         0.1  /* of the time that a stage was at work */
#define CLEARLY              1.5  /* times as much as a source */

/* ---- charging ------------------------------------------------------------------------------- */

static uint64_t held_ns(const weir__pressure *stage)
{
    uint64_t held = 0;
    for (int cause = 0; cause < WEIR__CAUSES; cause++)
        held += stage->held_ns[cause];
    return held;
}

/* In its function, or held by its own limits. */
static double own_ns(const weir__pressure *stage)
{
    return (double)(stage->busy_ns + held_ns(stage));
}

/* One window: waits[j * n + k] is how long j was blocked by k, or would have been if k had not lost
 * what it had no room for; inbound[j], how long others were by j. */
typedef struct window {
    const weir__pressure *stages;
    unsigned n;
    double *waits, *inbound;
} window;

static double waits_ns(const window *w, unsigned j)
{
    double all = 0;
    for (unsigned k = 0; k < w->n; k++)
        all += w->waits[(size_t)j * w->n + k];
    return all;
}

/* What stage k lost becomes waiting of those that feed it, each by how much it has done. */
static void count_lost(window *w, unsigned k, const weir__edge *edges, size_t m)
{
    const weir__pressure *stage = &w->stages[k];
    double done = (double)(stage->done ? stage->done : 1);
    double workers = stage->workers > 1 ? stage->workers : 1;
    double ns = (double)stage->lost * (own_ns(stage) + waits_ns(w, k)) / done / workers, fed = 0;
    w->inbound[k] += ns;
    for (size_t e = 0; e < m; e++)
        fed += edges[e].to == k ? (double)w->stages[edges[e].from].done : 0;
    for (size_t e = 0; e < m && fed > 0; e++)
        if (edges[e].to == k) {
            double part = (double)w->stages[edges[e].from].done / fed;
            w->waits[(size_t)edges[e].from * w->n + k] += ns * part;
        }
}

/* Of the time that j worked, the share that holds nothing back, as k is slower: b / (b + s). */
static double passed_on(const window *w, unsigned j, unsigned k)
{
    const weir__pressure *from = &w->stages[j], *to = &w->stages[k];
    double waits = w->waits[(size_t)j * w->n + k], idle = (double)to->idle_ns;
    double blocked = waits / (own_ns(from) + (double)from->idle_ns + waits_ns(w, j));
    double starved = idle > 0 ? idle / (own_ns(to) + idle + waits_ns(w, k)) : 0;
    return blocked / (blocked + starved);
}

static void charge_own(double *charged, const weir__pressure *stage, double ns)
{
    double own = own_ns(stage);
    if (!(own > 0)) {
        charged[WEIR__CAUSE_WORKERS] += ns;
        return;
    }
    charged[WEIR__CAUSE_WORKERS] += ns * (double)stage->busy_ns / own;
    for (int cause = 0; cause < WEIR__CAUSES; cause++)
        charged[cause] += ns * (double)stage->held_ns[cause] / own;
}

/* Splits what stage j is charged between its own causes and those that blocked it. */
static void split(double *charged, window *w, unsigned j)
{
    double waits = waits_ns(w, j), own = own_ns(&w->stages[j]), here = w->inbound[j];
    for (unsigned k = 0; k < w->n && here > 0; k++) {
        double part = w->waits[(size_t)j * w->n + k];
        if (!(part > 0))
            continue;
        double all = part + own * passed_on(w, j, k) * part / waits;
        double on = w->inbound[j] * all / (own + waits);
        w->inbound[k] += on;
        here -= on;
    }
    if (here > 0)
        charge_own(charged + (size_t)j * WEIR__CAUSES, &w->stages[j], here);
}

void weir__bottleneck_charge(double *charged, const weir__pressure *stages,
                             const uint64_t *blocked_ns, const weir__edge *edges, size_t m,
                             const unsigned *order, unsigned n, double *scratch)
{
    window w = {.stages = stages, .n = n, .waits = scratch, .inbound = scratch + (size_t)n * n};
    for (size_t i = 0; i < (size_t)n * n; i++)
        w.waits[i] = (double)blocked_ns[i];
    for (unsigned j = 0; j < n; j++) {
        w.inbound[j] = (double)stages[j].outside_ns;
        for (unsigned i = 0; i < n; i++)
            w.inbound[j] += w.waits[(size_t)i * n + j];
    }
    for (unsigned i = n; i-- > 0;) /* what an item takes is known from behind */
        count_lost(&w, order[i], edges, m);
    for (unsigned i = 0; i < n; i++) /* who is blocked before who blocks it */
        split(charged, &w, order[i]);
}

/* ---- the verdict ---------------------------------------------------------------------------- */

typedef struct times {
    double charged, workers_ns, sources_ns, starved_ns;
} times;

static double stage_charge(const double *charged, unsigned stage)
{
    double all = 0;
    for (int cause = 0; cause < WEIR__CAUSES; cause++)
        all += charged[(size_t)stage * WEIR__CAUSES + (size_t)cause];
    return all;
}

static times add_up(const double *charged, unsigned n, const weir__pressure *total,
                    uint64_t elapsed_ns)
{
    times all = {0};
    for (unsigned i = 0; i < n; i++) {
        double ns = total[i].workers * (double)elapsed_ns;
        all.charged += stage_charge(charged, i);
        *(total[i].is_source ? &all.sources_ns : &all.workers_ns) += ns;
        all.starved_ns += total[i].is_source ? 0 : (double)total[i].idle_ns;
    }
    return all;
}

static bool is_negligible(const times *all)
{
    double least = NEGLIGIBLE * (all->workers_ns + all->sources_ns);
    double of_sources = NEGLIGIBLE_TO_SOURCE * all->sources_ns;
    return all->charged <= 0 ||
           all->charged < (all->sources_ns > 0 && of_sources < least ? of_sources : least);
}

static weir__verdict slowest_source(const weir__pressure *total, unsigned n, const times *all)
{
    weir__verdict verdict = {.stage = -1, .cause = WEIR__CAUSE_SOURCE};
    double most = -1;
    if (!(all->starved_ns > 0) || all->starved_ns < NEGLIGIBLE * all->workers_ns)
        return verdict;
    for (unsigned i = 0; i < n; i++)
        if (total[i].is_source && own_ns(&total[i]) > most) {
            most = own_ns(&total[i]);
            verdict.stage = (int)i;
        }
    verdict.source_bound = verdict.stage >= 0;
    verdict.share = all->workers_ns > 0 ? all->starved_ns / all->workers_ns : 0;
    if (!verdict.source_bound || verdict.share > 1)
        verdict.share = verdict.source_bound;
    return verdict;
}

/* Of the time, what the workers of a stage were at work, or held by its own limits. */
static double occupancy(const weir__pressure *stage, uint64_t elapsed_ns)
{
    double ns = stage->workers * (double)elapsed_ns;
    return ns > 0 ? own_ns(stage) / ns : 0;
}

static weir__cause largest_cause(const weir__pressure *stage)
{
    weir__cause largest = WEIR__CAUSE_WORKERS;
    uint64_t most = stage->busy_ns;
    for (int cause = 0; cause < WEIR__CAUSES; cause++)
        if (stage->held_ns[cause] > most) {
            most = stage->held_ns[cause];
            largest = (weir__cause)cause;
        }
    return largest;
}

/* Where nobody was held up: a queue took in all there was, say.  What took longest is a stage, if one
 * was clearly more at work than every source. */
static weir__verdict slowest_of_all(const weir__pressure *total, unsigned n, const times *all,
                                    uint64_t elapsed_ns)
{
    weir__verdict verdict = {.stage = -1, .unpressed = true};
    double of_sources = 0;
    for (unsigned i = 0; i < n; i++) {
        double share = occupancy(&total[i], elapsed_ns);
        if (total[i].is_source && share > of_sources)
            of_sources = share;
        if (!total[i].is_source && share > verdict.share) {
            verdict.share = share;
            verdict.stage = (int)i;
        }
    }
    if (verdict.stage < 0 || verdict.share < WORTH_NAMING || verdict.share < CLEARLY * of_sources)
        return slowest_source(total, n, all);
    verdict.share = verdict.share < 1 ? verdict.share : 1;
    verdict.cause = largest_cause(&total[verdict.stage]);
    return verdict;
}

weir__verdict weir__bottleneck_find(const double *charged, unsigned n, const weir__pressure *total,
                                    uint64_t elapsed_ns)
{
    times all = add_up(charged, n, total, elapsed_ns);
    if (is_negligible(&all))
        return slowest_of_all(total, n, &all, elapsed_ns);
    weir__verdict verdict = {.stage = -1};
    double most = 0;
    for (unsigned i = 0; i < n; i++)
        if (stage_charge(charged, i) > most) {
            most = stage_charge(charged, i);
            verdict.stage = (int)i;
        }
    const double *causes = charged + (size_t)verdict.stage * WEIR__CAUSES;
    for (int cause = 0; cause < WEIR__CAUSES; cause++)
        if (causes[cause] > causes[verdict.cause])
            verdict.cause = (weir__cause)cause;
    verdict.share = most / all.charged;
    return verdict;
}

/* ---- the sentence --------------------------------------------------------------------------- */

static void say_cause(char *buf, size_t size, weir__cause cause, double workers, double rate)
{
    unsigned n = workers < 1 ? 1 : (unsigned)(workers + 0.5);
    switch (cause) {
    case WEIR__CAUSE_RATE:
        if (rate > 0)
            snprintf(buf, size, "rate of %.4g/s", rate);
        else
            snprintf(buf, size, "rate");
        return;
    case WEIR__CAUSE_LIMITER: snprintf(buf, size, "limiter"); return;
    case WEIR__CAUSE_BREAKER: snprintf(buf, size, "breaker"); return;
    case WEIR__CAUSE_MEMORY: snprintf(buf, size, "memory"); return;
    case WEIR__CAUSE_RETRY: snprintf(buf, size, "retries"); return;
    case WEIR__CAUSE_ORDER: snprintf(buf, size, "order: items wait for a slow one ahead"); return;
    default: snprintf(buf, size, "%u worker%s", n, n == 1 ? "" : "s");
    }
}

size_t weir__bottleneck_say(char *buf, size_t size, const char *const *names,
                            const weir__verdict *verdict, const weir__pressure *total,
                            const double *rates)
{
    int stage = verdict->stage, percent = (int)(verdict->share * 100 + 0.5);
    char limit[64];
    if (stage < 0)
        return (size_t)snprintf(buf, size, "nothing held anything back");
    if (verdict->source_bound)
        return (size_t)snprintf(
            buf, size,
            "the source '%s' is the slowest: the stages waited for it %d %% of their time",
            names[stage], percent);
    say_cause(limit, sizeof limit, verdict->cause, total[stage].workers, rates ? rates[stage] : 0);
    if (verdict->unpressed)
        return (size_t)snprintf(
            buf, size,
            "nobody was held up; stage '%s' is the slowest: at work %d %% of the time, limited by its %s",
            names[stage], percent, limit);
    return (size_t)snprintf(
        buf, size, "stage '%s' is the bottleneck: %d %% of blocked time; it is limited by its %s",
        names[stage], percent, limit);
}
