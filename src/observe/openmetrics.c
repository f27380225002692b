/* openmetrics.c - all that was seen, in the OpenMetrics text format 1.0; the families are weir_metrics(7).
 *
 * A family is a row of a table and a function that writes its samples of one object; so each is in one
 * piece, as the format wants it, and no sample comes twice, since pid and id are the object's alone.
 */
#include <string.h>

#include "observe/monitor_impl.h"
#include "observe/out.h"

/* What is being written. */
typedef struct page {
    weir__out out;
    weir_monitor *monitor;
    const char *family; /* with its ending */
    bool shows_user;
} page;

/* ---- samples -------------------------------------------------------------------------------- */

static void label(page *p, const char *name, const char *value)
{
    weir__out_text(&p->out, ",");
    weir__out_text(&p->out, name);
    weir__out_text(&p->out, "=");
    weir__out_label(&p->out, value);
}

static void quoted(page *p, int64_t n)
{
    weir__out_text(&p->out, "\"");
    weir__out_signed(&p->out, n);
    weir__out_text(&p->out, "\"");
}

/* family{pid="1",kind="queue",name="jobs",object="3" and the object's user */
static void begin_sample(page *p, const char *ending, const object *o)
{
    const weir_stats_record *r = record_of(o);
    weir__out_text(&p->out, p->family);
    weir__out_text(&p->out, ending);
    weir__out_text(&p->out, "{pid=");
    quoted(p, o->pid);
    label(p, "kind", weir_stats_kind_name((int)r->kind));
    label(p, "name", r->name);
    weir__out_text(&p->out, ",object=\"");
    weir__out_count(&p->out, o->id);
    weir__out_text(&p->out, "\"");
    if (p->shows_user) {
        weir__out_text(&p->out, ",user=");
        quoted(p, o->uid);
    }
}

static void end_count(page *p, uint64_t value)
{
    weir__out_text(&p->out, "} ");
    weir__out_count(&p->out, value);
    weir__out_text(&p->out, "\n");
}

static void end_seconds(page *p, uint64_t ns)
{
    weir__out_text(&p->out, "} ");
    weir__out_seconds(&p->out, ns);
    weir__out_text(&p->out, "\n");
}

static void end_double(page *p, double value)
{
    weir__out_text(&p->out, "} ");
    weir__out_double(&p->out, value);
    weir__out_text(&p->out, "\n");
}

/* ---- families of objects -------------------------------------------------------------------- */

typedef enum type { COUNTER, GAUGE, HISTOGRAM, INFO } type;

typedef struct family family;
struct family {
    const char *name;
    type type;
    const char *unit, *help;
    void (*write)(page *p, const object *o, const family *f);
    int number; /* where it is of one, or of that one and those behind it */
};

static const char *ending_of(const family *f)
{
    return f->type == COUNTER ? "_total" : "";
}

static bool has(const object *o, int number)
{
    return weir__has_number(record_of(o), number);
}

static uint64_t number_of(const object *o, int number)
{
    return record_of(o)->number[number];
}

static void write_number(page *p, const object *o, const family *f)
{
    if (!has(o, f->number))
        return;
    begin_sample(p, ending_of(f), o);
    end_count(p, number_of(o, f->number));
}

static void write_nanoseconds(page *p, const object *o, const family *f)
{
    if (!has(o, f->number))
        return;
    begin_sample(p, ending_of(f), o);
    end_seconds(p, number_of(o, f->number));
}

static const char *const sides[] = {"put", "get"};

static void write_sides(page *p, const object *o, const family *f)
{
    for (int i = 0; i < 2; i++) {
        if (!has(o, f->number + i))
            continue;
        begin_sample(p, ending_of(f), o);
        label(p, "side", sides[i]);
        end_count(p, number_of(o, f->number + i));
    }
}

static void write_reasons(page *p, const object *o, const family *f)
{
    static const char *const reasons[] = {"newest",  "oldest",    "sampled",
                                          "expired", "discarded", "lost"};
    for (int i = 0; i < 6; i++) {
        if (!has(o, f->number + i))
            continue;
        begin_sample(p, ending_of(f), o);
        label(p, "reason", reasons[i]);
        end_count(p, number_of(o, f->number + i));
    }
}

/* With what those wait who still do. */
static void write_blocked(page *p, const object *o, const family *f)
{
    for (int side = 0; side < 2; side++) {
        if (!has(o, f->number + side))
            continue;
        begin_sample(p, ending_of(f), o);
        label(p, "side", sides[side]);
        end_seconds(p, o->waits[side].total_ns);
    }
}

static void write_doing(page *p, const object *o, const family *f)
{
    static const char *const doing[] = {"busy", "idle", "blocked"};
    for (int i = 0; i < 3; i++) {
        if (!has(o, f->number + i))
            continue;
        begin_sample(p, ending_of(f), o);
        label(p, "doing", doing[i]);
        end_seconds(p, number_of(o, f->number + i));
    }
}

static void write_capacity(page *p, const object *o, const family *f)
{
    if (!has(o, f->number))
        return;
    begin_sample(p, "", o);
    if (number_of(o, f->number) == UINT64_MAX)
        weir__out_text(&p->out, "} +Inf\n");
    else
        end_count(p, number_of(o, f->number));
}

static void write_bound(page *p, const object *o, const family *f)
{
    if (number_of(o, f->number) > 0)
        write_number(p, o, f);
}

static void write_age(page *p, const object *o, const family *f)
{
    if (number_of(o, f->number) > 0)
        write_nanoseconds(p, o, f);
}

static void write_fullness(page *p, const object *o, const family *f)
{
    (void)f;
    if (o->pub.fullness < 0)
        return;
    begin_sample(p, "", o);
    end_double(p, o->pub.fullness);
}

/* One sample for each state; 1 is the one that it is in. */
static void write_states(page *p, const object *o, const family *f)
{
    int kind = (int)record_of(o)->kind;
    if (kind != f->number)
        return;
    for (uint64_t state = 0; weir__state_name(kind, state); state++) {
        begin_sample(p, "", o);
        label(p, "state", weir__state_name(kind, state));
        end_count(p, number_of(o, WEIR_STATS_STATE) == state);
    }
}

static void write_rate(page *p, const object *o, const family *f)
{
    if (!has(o, f->number))
        return;
    begin_sample(p, "", o);
    end_double(p, (double)number_of(o, f->number) / 3600);
}

static void write_issues(page *p, const object *o, const family *f)
{
    (void)f;
    for (int kind = 0; kind < WEIR_ISSUES; kind++)
        if (o->pub.issues >> kind & 1) {
            begin_sample(p, "", o);
            label(p, "issue", weir_issue_name(kind));
            end_count(p, 1);
        }
}

static void write_bottleneck(page *p, const object *o, const family *f)
{
    (void)f;
    if (!o->pub.is_root)
        return;
    begin_sample(p, "", o);
    end_count(p, 1);
}

/* ---- histograms ----------------------------------------------------------------------------- */

static const struct {
    uint64_t ns;
    const char *le; /* as the format wants numbers written that are labels */
} bounds[] = {
    {1000, "1e-06"},        {2500, "2.5e-06"},     {5000, "5e-06"},       {10000, "1e-05"},
    {25000, "2.5e-05"},     {50000, "5e-05"},      {100000, "0.0001"},    {250000, "0.00025"},
    {500000, "0.0005"},     {1000000, "0.001"},    {2500000, "0.0025"},   {5000000, "0.005"},
    {10000000, "0.01"},     {25000000, "0.025"},   {50000000, "0.05"},    {100000000, "0.1"},
    {250000000, "0.25"},    {500000000, "0.5"},    {1000000000, "1.0"},   {2500000000, "2.5"},
    {5000000000, "5.0"},    {10000000000, "10.0"}, {25000000000, "25.0"}, {50000000000, "50.0"},
    {100000000000, "100.0"}};

static uint64_t middle_of(unsigned bucket)
{
    uint64_t floor = weir_stats_bucket_floor(bucket);
    return floor + (weir_stats_bucket_floor(bucket + 1) - floor) / 2;
}

static void write_bucket(page *p, const object *o, const char *le, uint64_t count)
{
    begin_sample(p, "_bucket", o);
    label(p, "le", le);
    end_count(p, count);
}

/* The last bucket, of what took longer than can be told, is in +Inf only; hostile counts may overflow, and
 * stay where they are most. */
static void write_histogram(page *p, const object *o, const family *f)
{
    const weir_stats_times *times = f->number ? &record_of(o)->service : &record_of(o)->wait;
    uint64_t all = weir_stats_times_count(times), count = 0;
    unsigned bucket = 0;
    if (all == 0 && !weir__has_times(record_of(o), f->number))
        return;
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        for (; bucket < WEIR_STATS_BUCKETS && middle_of(bucket) <= bounds[i].ns; bucket++)
            count = times->bucket[bucket] < all - count ? count + times->bucket[bucket] : all;
        write_bucket(p, o, bounds[i].le, count);
    }
    write_bucket(p, o, "+Inf", all);
    begin_sample(p, "_count", o);
    end_count(p, all);
    begin_sample(p, "_sum", o);
    end_seconds(p, times->sum_ns);
}

/* ---- the table ------------------------------------------------------------------------------ */

#define COUNT(name, number, help)                                                                  \
    {"weir_" name, COUNTER, NULL, help, write_number, WEIR_STATS_##number}
#define LEVEL(name, number, help)                                                                  \
    {"weir_" name, GAUGE, NULL, help, write_number, WEIR_STATS_##number}

static const family families[] = {
    COUNT("accepted", ACCEPTED, "Items taken in."),
    COUNT("delivered", DELIVERED, "Items handed out."),
    COUNT("done", DONE, "Items reported done."),
    COUNT("refused", REFUSED, "Items or calls neither taken nor dropped."),
    {"weir_dropped", COUNTER, NULL, "Items dropped.", write_reasons, WEIR_STATS_DROPPED_NEWEST},
    COUNT("accepted_cost", ACCEPTED_COST, "Cost of the items taken in."),
    COUNT("delivered_cost", DELIVERED_COST, "Cost of the items handed out."),
    COUNT("done_cost", DONE_COST, "Cost of the items reported done."),
    {"weir_dropped_cost", COUNTER, NULL, "Cost of the items dropped.", write_reasons,
     WEIR_STATS_DROPPED_NEWEST_COST},
    COUNT("cancelled", CANCELLED, "Items taken back by who gave them."),
    COUNT("shed", SHED, "Calls sent away because of overload."),
    COUNT("retried", RETRIED, "Tasks run again."),
    COUNT("failed", FAILED, "Calls that failed, tasks whose worker died."),
    COUNT("slow", SLOW, "Calls that took too long."),
    COUNT("opened", OPENED, "Times that a breaker opened."),
    COUNT("restarts", RESTARTS, "Workers that died or were recycled."),
    {"weir_blocked_seconds", COUNTER, "seconds",
     "Time that callers waited for room or items, those who still wait included.", write_blocked,
     WEIR_STATS_PUT_BLOCKED_NS},
    {"weir_waits", COUNTER, NULL, "Calls that had to wait for room or items.", write_sides,
     WEIR_STATS_PUT_WAITS},
    {"weir_pressure_seconds", COUNTER, "seconds",
     "Time that others waited for which this stage is the root.", write_nanoseconds,
     WEIR_STATS_PRESSURE_NS},
    {"weir_worker_seconds", COUNTER, "seconds",
     "Time of workers: in their function, without input, without room behind.", write_doing,
     WEIR_STATS_BUSY_NS},
    LEVEL("depth", DEPTH, "Items inside and not handed out."),
    LEVEL("depth_cost", DEPTH_COST, "Cost of the items inside."),
    {"weir_capacity", GAUGE, NULL, "Bound of items; infinite without one.", write_capacity,
     WEIR_STATS_CAPACITY},
    {"weir_max_cost", GAUGE, NULL, "Bound of their cost.", write_bound, WEIR_STATS_MAX_COST},
    {"weir_max_age_seconds", GAUGE, "seconds", "Bound of their age.", write_age,
     WEIR_STATS_MAX_AGE_NS},
    {"weir_fullness_ratio", GAUGE, "ratio", "Share of the bound that is used.", write_fullness, 0},
    LEVEL("spilled", SPILLED, "Items on disk only."),
    LEVEL("spilled_cost", SPILLED_COST, "Cost of the items on disk only."),
    LEVEL("in_flight", IN_FLIGHT, "Items handed out and not done."),
    LEVEL("in_flight_cost", IN_FLIGHT_COST, "Cost of the items handed out and not done."),
    LEVEL("peak_depth", PEAK_DEPTH, "The most items that were ever inside."),
    {"weir_waiting", GAUGE, NULL, "Callers that wait for room or items.", write_sides,
     WEIR_STATS_PUT_WAITING},
    LEVEL("workers", WORKERS, "Workers that live."),
    LEVEL("closed", CLOSED, "1: it is closed."),
    LEVEL("above_high", ABOVE_HIGH, "1: it is above its high mark."),
    {"weir_breaker_state", GAUGE, NULL, "1: the breaker is in that state.", write_states,
     WEIR_STATS_BREAKER},
    {"weir_memory_step", GAUGE, NULL, "1: the memory governor is at that step.", write_states,
     WEIR_STATS_GOVERNOR},
    {"weir_rate_limit", GAUGE, NULL, "Tokens per second.", write_rate, WEIR_STATS_RATE_PER_HOUR},
    {"weir_issue", GAUGE, NULL, "1, while it is the matter with the object.", write_issues, 0},
    {"weir_bottleneck", GAUGE, NULL, "1, of what holds its program back most.", write_bottleneck,
     0},
    {"weir_wait_seconds", HISTOGRAM, "seconds", "How long items were inside; a sample.",
     write_histogram, 0},
    {"weir_service_seconds", HISTOGRAM, "seconds", "How long items were worked on; a sample.",
     write_histogram, 1},
};

static void describe(page *p, const char *name, type is, const char *unit, const char *help)
{
    static const char *const types[] = {"counter", "gauge", "histogram", "info"};
    const char *lines[] = {"# TYPE ", name, " ", types[is], "\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        weir__out_text(&p->out, lines[i]);
    if (unit) {
        const char *of_unit[] = {"# UNIT ", name, " ", unit, "\n"};
        for (size_t i = 0; i < sizeof of_unit / sizeof *of_unit; i++)
            weir__out_text(&p->out, of_unit[i]);
    }
    const char *of_help[] = {"# HELP ", name, " ", help, "\n"};
    for (size_t i = 0; i < sizeof of_help / sizeof *of_help; i++)
        weir__out_text(&p->out, of_help[i]);
    p->family = name;
}

static void write_family(page *p, const family *f)
{
    const found *now = &p->monitor->now;
    describe(p, f->name, f->type, f->unit, f->help);
    for (size_t i = 0; i < now->n_objects && p->out.rc >= 0; i++)
        f->write(p, now->objects[i], f);
}

/* ---- processes ------------------------------------------------------------------------------ */

static void begin_process(page *p, const char *ending, const weir_monitor_process *seen)
{
    weir__out_text(&p->out, p->family);
    weir__out_text(&p->out, ending);
    weir__out_text(&p->out, "{pid=");
    quoted(p, seen->process.pid);
}

static void write_process_families(page *p)
{
    const found *now = &p->monitor->now;
    describe(p, "weir_process_resident_bytes", GAUGE, "bytes", "Resident memory.");
    for (size_t i = 0; i < now->n_processes; i++) {
        begin_process(p, "", &now->processes[i]->pub);
        label(p, "command", now->processes[i]->pub.process.command);
        end_count(p, now->processes[i]->pub.process.rss_bytes);
    }
    describe(p, "weir_process", INFO, NULL, "A process that uses weir.");
    for (size_t i = 0; i < now->n_processes; i++) {
        const weir_stats_process *seen = &now->processes[i]->pub.process;
        begin_process(p, "_info", &now->processes[i]->pub);
        weir__out_text(&p->out, ",parent=");
        quoted(p, seen->parent);
        label(p, "command", seen->command);
        label(p, "library", seen->library);
        end_count(p, 1);
    }
    describe(p, "weir_process_unrecorded", COUNTER, NULL, "Objects that found no record.");
    for (size_t i = 0; i < now->n_processes; i++) {
        begin_process(p, "_total", &now->processes[i]->pub);
        end_count(p, now->processes[i]->pub.process.unrecorded);
    }
    describe(p, "weir_processes", GAUGE, NULL, "Processes that use weir.");
    weir__out_text(&p->out, "weir_processes ");
    weir__out_count(&p->out, now->n_processes);
    weir__out_text(&p->out, "\n");
}

int weir_monitor_write_openmetrics(weir_monitor *monitor, weir_write_fn *write, void *ctx)
{
    page p = {.monitor = monitor, .shows_user = monitor->every_user};
    weir__out_begin(&p.out, write, ctx);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        write_family(&p, &families[i]);
    write_process_families(&p);
    weir__out_text(&p.out, "# EOF\n");
    return weir__out_end(&p.out);
}
