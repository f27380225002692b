/* json.c - all that was seen, as JSON; the form is weir_json(7). */
#include <string.h>

#include "observe/monitor_impl.h"
#include "observe/out.h"

/* ---- members -------------------------------------------------------------------------------- */

/* Between members, and before the name of each but the first. */
static void name(weir__out *out, bool *any, const char *text)
{
    weir__out_text(out, *any ? "," : "");
    *any = true;
    weir__out_string(out, text);
    weir__out_text(out, ":");
}

static void comma(weir__out *out, bool *any)
{
    weir__out_text(out, *any ? ",\n" : "\n");
    *any = true;
}

static void boolean(weir__out *out, bool value)
{
    weir__out_text(out, value ? "true" : "false");
}

static void number(weir__out *out, bool *any, const char *text, double value)
{
    name(out, any, text);
    weir__out_double(out, value);
}

static void number_or_null(weir__out *out, bool *any, const char *text, double value)
{
    name(out, any, text);
    if (value < 0)
        weir__out_text(out, "null");
    else
        weir__out_double(out, value);
}

static void count(weir__out *out, bool *any, const char *text, uint64_t value)
{
    name(out, any, text);
    weir__out_count(out, value);
}

static void seconds(weir__out *out, bool *any, const char *text, uint64_t ns)
{
    name(out, any, text);
    weir__out_seconds(out, ns);
}

static void when(weir__out *out, bool *any, const char *text, int64_t ns)
{
    seconds(out, any, text, ns > 0 ? (uint64_t)ns : 0);
}

static void string(weir__out *out, bool *any, const char *text, const char *value)
{
    name(out, any, text);
    weir__out_string(out, value);
}

static void integer(weir__out *out, bool *any, const char *text, int64_t value)
{
    name(out, any, text);
    weir__out_signed(out, value);
}

/* "1-3": process and object; unique because pids are. */
static void key(weir__out *out, const object *o)
{
    weir__out_text(out, "\"");
    weir__out_signed(out, o->pid);
    weir__out_text(out, "-");
    weir__out_count(out, o->id);
    weir__out_text(out, "\"");
}

/* ---- objects -------------------------------------------------------------------------------- */

static bool is_time(int n)
{
    const char *text = weir_stats_number_name(n);
    return text && strlen(text) > 3 && strcmp(text + strlen(text) - 3, "_ns") == 0;
}

/* "put_blocked_ns" is "put_blocked_seconds" here. */
static void write_time(weir__out *out, bool *any, int n, uint64_t ns)
{
    char text[64];
    const char *told = weir_stats_number_name(n);
    size_t length = strlen(told) - 2;
    memcpy(text, told, length);
    memcpy(text + length, "seconds", sizeof "seconds");
    seconds(out, any, text, ns);
}

/* Since when somebody waits, as all points in time here: since 1970; null: nobody does. */
static void write_since(weir__out *out, bool *any, const object *o, int64_t wall_ns, int n)
{
    uint64_t since = record_of(o)->number[n], now = (uint64_t)o->read_ns;
    uint64_t waited = since < now ? now - since : 0;
    name(out, any, weir_stats_number_name(n));
    if (since == 0)
        weir__out_text(out, "null");
    else
        weir__out_seconds(out, (uint64_t)wall_ns > waited ? (uint64_t)wall_ns - waited : 0);
}

static void write_number(weir__out *out, bool *any, int n, uint64_t value)
{
    if (is_time(n)) {
        write_time(out, any, n, value);
        return;
    }
    name(out, any, weir_stats_number_name(n));
    if (n == WEIR_STATS_CAPACITY && value == UINT64_MAX)
        weir__out_text(out, "null");
    else
        weir__out_count(out, value);
}

static void write_numbers(weir__out *out, const object *o, int64_t wall_ns)
{
    bool any = false;
    const weir_stats_record *r = record_of(o);
    weir__out_text(out, "{");
    for (int n = 0; n < WEIR_STATS_NUMBERS; n++) {
        if (!weir_stats_number_name(n) || !weir__has_number(r, n))
            continue;
        if (n == WEIR_STATS_PUT_WAITING_SINCE || n == WEIR_STATS_GET_WAITING_SINCE)
            write_since(out, &any, o, wall_ns, n);
        else if (n == WEIR_STATS_PUT_BLOCKED_NS || n == WEIR_STATS_GET_BLOCKED_NS)
            write_number(out, &any, n, o->waits[n - WEIR_STATS_PUT_BLOCKED_NS].total_ns);
        else
            write_number(out, &any, n, r->number[n]);
    }
    const char *state = weir__state_name((int)r->kind, r->number[WEIR_STATS_STATE]);
    if (state)
        string(out, &any, "state_name", state);
    const char *cause = weir__cause_name(r->number[WEIR_STATS_CAUSE]);
    if (cause && weir__has_number(r, WEIR_STATS_CAUSE))
        string(out, &any, "cause_name", cause);
    weir__out_text(out, "}");
}

static void write_rates(weir__out *out, const weir_monitor_object *pub)
{
    bool any = false;
    weir__out_text(out, "{");
    number(out, &any, "seconds", pub->seconds);
    number(out, &any, "accepted", pub->accepted_per_s);
    number(out, &any, "delivered", pub->delivered_per_s);
    number(out, &any, "done", pub->done_per_s);
    number(out, &any, "dropped", pub->dropped_per_s);
    number(out, &any, "refused", pub->refused_per_s);
    number(out, &any, "failed", pub->failed_per_s);
    number(out, &any, "put_blocked", pub->put_blocked);
    number(out, &any, "get_blocked", pub->get_blocked);
    number(out, &any, "pressure", pub->pressure);
    number_or_null(out, &any, "busy", pub->busy);
    weir__out_text(out, "}");
}

static void write_times(weir__out *out, const weir_monitor_times *times)
{
    bool any = false;
    weir__out_text(out, "{");
    count(out, &any, "count", times->count);
    seconds(out, &any, "mean", times->mean_ns);
    seconds(out, &any, "p50", times->p50_ns);
    seconds(out, &any, "p90", times->p90_ns);
    seconds(out, &any, "p99", times->p99_ns);
    seconds(out, &any, "max", times->max_ns);
    weir__out_text(out, "}");
}

static void write_total(weir__out *out, const weir_stats_times *times)
{
    weir_monitor_times total = weir__summary_of(times);
    write_times(out, &total);
}

static void write_issue_names(weir__out *out, uint32_t issues)
{
    bool any = false;
    weir__out_text(out, "[");
    for (int kind = 0; kind < WEIR_ISSUES; kind++)
        if (issues >> kind & 1) {
            weir__out_text(out, any ? "," : "");
            any = true;
            weir__out_string(out, weir_issue_name(kind));
        }
    weir__out_text(out, "]");
}

/* ---- history -------------------------------------------------------------------------------- */

typedef void write_sample_fn(weir__out *out, const weir_monitor_sample *sample);

static void write_at(weir__out *out, const weir_monitor_sample *sample)
{
    weir__out_seconds(out, sample->at_ns > 0 ? (uint64_t)sample->at_ns : 0);
}

static void write_depth(weir__out *out, const weir_monitor_sample *sample)
{
    weir__out_double(out, sample->depth);
}

static void write_accepted(weir__out *out, const weir_monitor_sample *sample)
{
    weir__out_double(out, sample->accepted_per_s);
}

static void write_delivered(weir__out *out, const weir_monitor_sample *sample)
{
    weir__out_double(out, sample->delivered_per_s);
}

static void write_dropped(weir__out *out, const weir_monitor_sample *sample)
{
    weir__out_double(out, sample->dropped_per_s);
}

static void write_put_blocked(weir__out *out, const weir_monitor_sample *sample)
{
    weir__out_double(out, sample->put_blocked);
}

static void write_get_blocked(weir__out *out, const weir_monitor_sample *sample)
{
    weir__out_double(out, sample->get_blocked);
}

static void write_wait_p99(weir__out *out, const weir_monitor_sample *sample)
{
    weir__out_seconds(out, sample->wait_p99_ns);
}

static void write_service_p99(weir__out *out, const weir_monitor_sample *sample)
{
    weir__out_seconds(out, sample->service_p99_ns);
}

static const struct {
    const char *name;
    write_sample_fn *write;
} columns[] = {
    {"at", write_at},
    {"depth", write_depth},
    {"accepted", write_accepted},
    {"delivered", write_delivered},
    {"dropped", write_dropped},
    {"put_blocked", write_put_blocked},
    {"get_blocked", write_get_blocked},
    {"wait_p99", write_wait_p99},
    {"service_p99", write_service_p99},
};

static void write_history(weir__out *out, const weir_monitor_object *pub)
{
    bool any = false;
    weir__out_text(out, "{");
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
        name(out, &any, columns[c].name);
        for (size_t i = 0; i < pub->sample_count; i++) {
            weir__out_text(out, i ? "," : "[");
            columns[c].write(out, &pub->samples[i]);
        }
        weir__out_text(out, pub->sample_count ? "]" : "[]");
    }
    weir__out_text(out, "}");
}

static void write_object(weir__out *out, const object *o, int64_t wall_ns, bool history)
{
    bool any = false;
    const weir_stats_record *r = record_of(o);
    weir__out_text(out, "{");
    name(out, &any, "key");
    key(out, o);
    integer(out, &any, "pid", o->pid);
    count(out, &any, "id", o->id);
    string(out, &any, "kind", weir_stats_kind_name((int)r->kind));
    string(out, &any, "name", r->name);
    when(out, &any, "created", r->created_ns);
    name(out, &any, "exact");
    boolean(out, r->is_exact);
    name(out, &any, "numbers");
    write_numbers(out, o, wall_ns);
    name(out, &any, "rates");
    write_rates(out, &o->pub);
    number_or_null(out, &any, "fullness", o->pub.fullness);
    name(out, &any, "wait");
    write_times(out, &o->pub.wait);
    name(out, &any, "wait_total");
    write_total(out, &r->wait);
    name(out, &any, "service");
    write_times(out, &o->pub.service);
    name(out, &any, "service_total");
    write_total(out, &r->service);
    name(out, &any, "issues");
    write_issue_names(out, o->pub.issues);
    name(out, &any, "root");
    boolean(out, o->pub.is_root);
    if (history) {
        name(out, &any, "history");
        write_history(out, &o->pub);
    }
    weir__out_text(out, "}");
}

/* ---- the rest ------------------------------------------------------------------------------- */

static void write_root(weir__out *out, weir_monitor *monitor)
{
    const weir_monitor_object *root;
    const char *text = weir_monitor_root(monitor, 0, &root);
    if (!root) {
        weir__out_text(out, "null");
        return;
    }
    bool any = false;
    weir__out_text(out, "{");
    string(out, &any, "text", text);
    integer(out, &any, "pid", root->process->process.pid);
    count(out, &any, "id", root->record->id);
    weir__out_text(out, "}");
}

static void write_process(weir__out *out, const weir_monitor_process *p)
{
    bool any = false;
    weir__out_text(out, "{");
    integer(out, &any, "pid", p->process.pid);
    integer(out, &any, "uid", p->uid);
    integer(out, &any, "parent", p->process.parent);
    count(out, &any, "depth", p->depth);
    string(out, &any, "command", p->process.command);
    string(out, &any, "library", p->process.library);
    when(out, &any, "started", p->process.created_ns);
    count(out, &any, "rss_bytes", p->process.rss_bytes);
    count(out, &any, "unrecorded", p->process.unrecorded);
    weir__out_text(out, "}");
}

static void write_edge(weir__out *out, const object *from, const object *to)
{
    bool any = false;
    weir__out_text(out, "{");
    integer(out, &any, "pid", from->pid);
    name(out, &any, "from");
    key(out, from);
    name(out, &any, "to");
    key(out, to);
    weir__out_text(out, "}");
}

/* Stages of a pipeline are in a row: from the first of them on. */
static void write_edges_from(weir__out *out, const weir_monitor *monitor, size_t first,
                             const object *from, bool *any)
{
    uint64_t feeds = record_of(from)->number[WEIR_STATS_FEEDS];
    for (size_t i = first; feeds && i < monitor->now.n_objects; i++) {
        const object *to = monitor->now.objects[i];
        uint64_t place = record_of(to)->number[WEIR_STATS_PLACE];
        if (to->leader != from->leader)
            return;
        if (is_kind(to, WEIR_STATS_STAGE) && place < 64 && feeds >> place & 1) {
            comma(out, any);
            write_edge(out, from, to);
        }
    }
}

static void write_edges(weir__out *out, const weir_monitor *monitor)
{
    bool any = false;
    size_t first = 0;
    for (size_t i = 0; i < monitor->now.n_objects; i++) {
        const object *o = monitor->now.objects[i];
        if (o->leader != monitor->now.objects[first]->leader)
            first = i;
        if (is_kind(o, WEIR_STATS_STAGE))
            write_edges_from(out, monitor, first, o, &any);
    }
}

static void write_issue(weir__out *out, const weir_monitor_issue *i)
{
    bool any = false;
    const object *o = (const object *)(const void *)i->object; /* pub is its first member */
    weir__out_text(out, "{");
    string(out, &any, "issue", weir_issue_name((int)i->kind));
    integer(out, &any, "pid", o->pid);
    count(out, &any, "id", o->id);
    name(out, &any, "object");
    key(out, o);
    string(out, &any, "kind", weir_stats_kind_name((int)i->object->record->kind));
    string(out, &any, "name", i->object->record->name);
    number(out, &any, "value", i->value);
    number(out, &any, "threshold", i->threshold);
    when(out, &any, "since", i->since_ns);
    string(out, &any, "text", i->text);
    weir__out_text(out, "}");
}

static void write_lists(weir__out *out, const weir_monitor *monitor, bool history)
{
    bool any = false;
    weir__out_text(out, ",\n\"processes\":[");
    for (size_t i = 0; i < monitor->now.n_processes; i++) {
        comma(out, &any);
        write_process(out, &monitor->now.processes[i]->pub);
    }
    weir__out_text(out, "],\n\"objects\":[");
    any = false;
    for (size_t i = 0; i < monitor->now.n_objects; i++) {
        comma(out, &any);
        write_object(out, monitor->now.objects[i], monitor->at_ns, history);
    }
    weir__out_text(out, "],\n\"edges\":[");
    write_edges(out, monitor);
    weir__out_text(out, "],\n\"issues\":[");
    any = false;
    for (size_t i = 0; i < monitor->n_issues; i++) {
        comma(out, &any);
        write_issue(out, &monitor->issues[i]->pub);
    }
    weir__out_text(out, "]");
}

int weir_monitor_write_json(weir_monitor *monitor, bool history, weir_write_fn *write, void *ctx)
{
    weir__out out;
    bool any = false;
    weir__out_begin(&out, write, ctx);
    weir__out_text(&out, "{");
    count(&out, &any, "version", 1);
    when(&out, &any, "at", monitor->at_ns);
    number(&out, &any, "window", monitor->seconds);
    count(&out, &any, "objects_beyond", monitor->now.beyond);
    name(&out, &any, "root");
    write_root(&out, monitor);
    write_lists(&out, monitor, history);
    weir__out_text(&out, "}\n");
    return weir__out_end(&out);
}
