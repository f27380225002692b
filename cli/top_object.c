/* top_object.c - one object on the whole screen: what is the matter, how full, times, charts, its pipeline, all its
 * numbers; see top.h.
 *
 * It is drawn on a canvas as high as it needs, of which the part that is scrolled to is shown.
 */
#include "top.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <weir/breaker.h>
#include <weir/memory.h>
#include <weir/pipeline.h>

#define HEIGHT  512 /* more than the longest pipeline and all numbers take */
#define CHART   5   /* rows */
#define SAMPLES 1000
#define MARGIN  2

typedef struct sheet {
    cli_canvas *canvas;
    const top_view *view;
    const weir_monitor_object *object;
    int y, width;
} sheet;

static uint64_t number(const weir_monitor_object *object, int n)
{
    return object->record->number[n];
}

static void heading(sheet *s, const char *text)
{
    s->y++;
    int x = MARGIN + canvas_put(s->canvas, s->y, MARGIN, s->width, STYLE_BOLD | STYLE_INFO, text);
    canvas_rule(s->canvas, s->y, x + 1, s->width - x - 1, STYLE_DIM);
    s->y++;
}

/* ---- what it is, and what is the matter ------------------------------------------------------ */

static const char *state_of(const weir_monitor_object *object)
{
    int state = (int)number(object, WEIR_STATS_STATE);
    if (object->record->kind == WEIR_STATS_BREAKER)
        return weir_breaker_state_name(state);
    if (object->record->kind == WEIR_STATS_GOVERNOR)
        return weir_memory_step_name(state);
    return number(object, WEIR_STATS_CLOSED) ? "closed" : NULL;
}

static void draw_what(sheet *s)
{
    const weir_stats_process *process = &s->object->process->process;
    char line[512];
    const char *state = state_of(s->object);
    int x = MARGIN;
    x += canvas_put(s->canvas, s->y, x, s->width, STYLE_BOLD, object_name(s->object).s) + 2;
    x += canvas_put(s->canvas, s->y, x, s->width, STYLE_PLAIN, object_kind(s->object).s) + 2;
    if (state)
        x += canvas_put(s->canvas, s->y, x, s->width, STYLE_BOLD | STYLE_WARN, state) + 2;
    snprintf(line, sizeof line, "of %" PRId64 "  %s", process->pid, process->command);
    canvas_put(s->canvas, s->y, x, s->width - x, STYLE_DIM, line);
    s->y++;
}

static void draw_fill(sheet *s)
{
    double share = object_share(s->object);
    char line[256];
    if (share < 0)
        return;
    int bar = s->width - MARGIN - 34;
    snprintf(line, sizeof line, "%s  %s full", object_fill(s->object).s, text_share(share).s);
    canvas_bar(s->canvas, s->y, MARGIN, bar < 60 ? bar : 60, top_fullness_style(share), share);
    canvas_put(s->canvas, s->y, MARGIN + (bar < 60 ? bar : 60) + 2, 32, STYLE_PLAIN, line);
    s->y++;
}

static void draw_issues(sheet *s)
{
    size_t count = weir_monitor_issues(s->view->monitor);
    const weir_monitor_object *root = NULL;
    const char *sentence =
        weir_monitor_root(s->view->monitor, s->object->process->process.pid, &root);
    if (s->object->is_root && sentence) {
        canvas_put(s->canvas, s->y, MARGIN, 1, STYLE_BOLD | STYLE_BAD,
                   s->canvas->utf8 ? "\u25b6" : ">");
        s->y += canvas_wrap(s->canvas, s->y, MARGIN + 2, s->width - MARGIN - 3, 3, STYLE_BOLD,
                            root == s->object ? sentence : "the most pressure of its process");
    }
    for (size_t i = 0; i < count; i++) {
        const weir_monitor_issue *issue = weir_monitor_issue_at(s->view->monitor, i);
        if (issue->object != s->object)
            continue;
        canvas_put(s->canvas, s->y, MARGIN, 1, STYLE_BOLD | STYLE_WARN, "!");
        s->y += canvas_wrap(s->canvas, s->y, MARGIN + 2, s->width - MARGIN - 3, 3, STYLE_WARN,
                            issue->text);
        s->y += canvas_wrap(s->canvas, s->y, MARGIN + 2, s->width - MARGIN - 3, 3, STYLE_PLAIN,
                            top_advice(issue->kind));
    }
}

/* ---- times ---------------------------------------------------------------------------------- */

static void draw_times_row(sheet *s, const char *what, const weir_monitor_times *times)
{
    const uint64_t ns[] = {times->mean_ns, times->p50_ns, times->p90_ns, times->p99_ns,
                           times->max_ns};
    int x = MARGIN + 24;
    canvas_put(s->canvas, s->y, MARGIN, 22, STYLE_PLAIN, what);
    canvas_put_right(s->canvas, s->y, x, 8, STYLE_PLAIN, text_count((double)times->count).s);
    for (size_t i = 0; i < 5; i++) {
        x += 8;
        canvas_put_right(s->canvas, s->y, x, 8, i == 3 ? STYLE_BOLD : STYLE_PLAIN,
                         times->count ? text_time((double)ns[i]).s : "-");
    }
    s->y++;
}

static weir_monitor_times since_creation(const weir_stats_times *times)
{
    uint64_t count = weir_stats_times_count(times);
    return (weir_monitor_times){
        .count = count,
        .mean_ns = count ? times->sum_ns / count : 0,
        .p50_ns = weir_stats_percentile(times, 0.5),
        .p90_ns = weir_stats_percentile(times, 0.9),
        .p99_ns = weir_stats_percentile(times, 0.99),
        .max_ns = times->max_ns,
    };
}

static void draw_times(sheet *s)
{
    static const char *const titles[] = {"timed", "mean", "p50", "p90", "p99", "max"};
    weir_monitor_times wait = since_creation(&s->object->record->wait),
                       service = since_creation(&s->object->record->service);
    char window[128];
    if (!wait.count && !service.count)
        return;
    heading(s, "Times");
    for (size_t i = 0; i < 6; i++)
        canvas_put_right(s->canvas, s->y, MARGIN + 24 + 8 * (int)i, 8, STYLE_DIM, titles[i]);
    s->y++;
    for (int i = 0; i < 2; i++) {
        const weir_monitor_times *total = i ? &service : &wait,
                                 *recent = i ? &s->object->service : &s->object->wait;
        if (!total->count)
            continue;
        snprintf(window, sizeof window, "%s, last %s", i ? "service" : "wait",
                 text_time(s->object->seconds * 1e9).s);
        draw_times_row(s, window, recent);
        draw_times_row(s, i ? "service, in all" : "wait, in all", total);
    }
}

/* ---- charts --------------------------------------------------------------------------------- */

static double sample_in(const weir_monitor_sample *sample)
{
    return sample->accepted_per_s;
}

static double sample_out(const weir_monitor_sample *sample)
{
    return sample->delivered_per_s;
}

static double sample_dropped(const weir_monitor_sample *sample)
{
    return sample->dropped_per_s;
}

static double sample_blocked(const weir_monitor_sample *sample)
{
    return sample->put_blocked;
}

static double sample_starved(const weir_monitor_sample *sample)
{
    return sample->get_blocked;
}

static double sample_wait(const weir_monitor_sample *sample)
{
    return (double)sample->wait_p99_ns;
}

static double sample_service(const weir_monitor_sample *sample)
{
    return (double)sample->service_p99_ns;
}

typedef struct chart_row {
    const char *title;
    top_sample_fn *fn;
    cli_text (*text)(double value);
    int style;
    bool always; /* also where it was 0 all the time */
} chart_row;

static const chart_row charts[] = {
    {"depth", top_sample_depth, text_count, STYLE_FLOW, true},
    {"in per second", sample_in, text_rate, STYLE_GOOD, true},
    {"out per second", sample_out, text_rate, STYLE_GOOD, true},
    {"callers blocked", sample_blocked, text_rate, STYLE_WARN, true},
    {"callers starved", sample_starved, text_rate, STYLE_INFO, false},
    {"dropped per second", sample_dropped, text_rate, STYLE_BAD, false},
    {"wait p99", sample_wait, text_time, STYLE_FLOW, false},
    {"service p99", sample_service, text_time, STYLE_FLOW, false},
};

/* Each value as many times as fit, so that a short window fills a wide chart. */
static size_t stretch(double values[], size_t count, size_t width, size_t window)
{
    size_t times = window ? width / window : 1;
    if (times < 2 || count * times > SAMPLES)
        return count;
    for (size_t i = count * times; i-- > 0;)
        values[i] = values[i / times];
    return count * times;
}

/* false: there is nothing to see. */
static bool draw_chart(sheet *s, const chart_row *chart, int x, int width, size_t window)
{
    double values[SAMPLES], top = 0;
    size_t count = top_samples(s->object, chart->fn, values, SAMPLES);
    for (size_t i = 0; i < count; i++)
        top = values[i] > top ? values[i] : top;
    if (top <= 0 && !chart->always)
        return false;
    char title[256];
    snprintf(title, sizeof title, "%s  now %s  most %s", chart->title,
             chart->text(count ? values[count - 1] : 0).s, chart->text(top).s);
    canvas_put(s->canvas, s->y, x, width, STYLE_PLAIN, title);
    count = stretch(values, count, (size_t)width, window);
    canvas_chart(s->canvas, s->y + 1, x, CHART, width, chart->style, values, count, top);
    canvas_rule(s->canvas, s->y + 1 + CHART, x, width, STYLE_DIM);
    return true;
}

static void draw_charts(sheet *s, size_t window)
{
    char title[128];
    int across = (s->width - MARGIN) / 38, at = 0;
    across = across < 1 ? 1 : across > 4 ? 4 : across;
    int width = (s->width - MARGIN) / across - 2;
    snprintf(title, sizeof title, "The last %s, newest at the right",
             text_time(s->object->seconds * 1e9).s);
    heading(s, title);
    for (size_t i = 0; i < sizeof charts / sizeof *charts; i++) {
        if (!draw_chart(s, &charts[i], MARGIN + at * (width + 2), width, window))
            continue;
        if (++at == across) {
            at = 0;
            s->y += CHART + 2;
        }
    }
    s->y += at ? CHART + 2 : 0;
}

/* ---- its pipeline --------------------------------------------------------------------------- */

static bool is_in_pipeline(const sheet *s, const weir_monitor_object *other)
{
    return other->record->kind == WEIR_STATS_STAGE && other->process == s->object->process &&
           number(other, WEIR_STATS_OWNER) == number(s->object, WEIR_STATS_OWNER);
}

static void draw_stage(sheet *s, const weir_monitor_object *stage, double most)
{
    char line[512];
    bool is_this = stage == s->object;
    int style = is_this ? STYLE_BOLD : STYLE_PLAIN;
    if (stage->is_root)
        canvas_put(s->canvas, s->y, 0, 1, STYLE_BOLD | STYLE_BAD, s->canvas->utf8 ? "\u25b6" : ">");
    canvas_put(s->canvas, s->y, MARGIN, 20, style, object_name(stage).s);
    canvas_bar(s->canvas, s->y, MARGIN + 21, 12, stage->is_root ? STYLE_BAD : STYLE_WARN,
               most > 0 ? stage->pressure / most : 0);
    snprintf(line, sizeof line, "%6s  depth %-10s %7s/s  %s", text_rate(stage->pressure).s,
             object_fill(stage).s, text_rate(object_out(stage)).s,
             stage->pressure > 0 ? weir_cause_name((int)number(stage, WEIR_STATS_CAUSE)) : "");
    canvas_put(s->canvas, s->y, MARGIN + 34, s->width - MARGIN - 35, style, line);
    s->y++;
}

static void draw_pipeline(sheet *s)
{
    if (s->object->record->kind != WEIR_STATS_STAGE)
        return;
    const weir_monitor_process *process = s->object->process;
    double most = 0;
    heading(s, "Its pipeline: pressure (callers that wait because of a stage), and its cause");
    for (int draws = 0; draws < 2; draws++) {
        for (size_t i = 0; i < process->objects; i++) {
            const weir_monitor_object *stage =
                weir_monitor_object_at(s->view->monitor, process->first + i);
            if (!is_in_pipeline(s, stage))
                continue;
            if (draws)
                draw_stage(s, stage, most);
            else if (stage->pressure > most)
                most = stage->pressure;
        }
    }
}

/* ---- all numbers ---------------------------------------------------------------------------- */

/* Those that say something by themselves: what is 0 is left out, and so are points in time. */
static bool is_shown(const weir_monitor_object *object, int n)
{
    switch (n) {
    case WEIR_STATS_PUT_WAITING_SINCE:
    case WEIR_STATS_GET_WAITING_SINCE:
    case WEIR_STATS_REPORTS_DONE:
    case WEIR_STATS_OWNER:
    case WEIR_STATS_FEEDS:
    case WEIR_STATS_PLACE:
    case WEIR_STATS_STATE:
    case WEIR_STATS_CAUSE: return false;
    case WEIR_STATS_ACCEPTED:
    case WEIR_STATS_DELIVERED:
    case WEIR_STATS_DEPTH: return true;
    default: return number(object, n) > 0;
    }
}

static cli_text value_of(const weir_monitor_object *object, int n, const char *name)
{
    uint64_t value = number(object, n);
    cli_text t;
    size_t length = strlen(name);
    if (value == UINT64_MAX)
        return (cli_text){"no bound"};
    if (length > 3 && strcmp(name + length - 3, "_ns") == 0)
        return text_time((double)value);
    snprintf(t.s, sizeof t.s, "%" PRIu64, value);
    return t;
}

static void draw_numbers(sheet *s)
{
    int across = (s->width - MARGIN) / 38, at = 0;
    across = across < 1 ? 1 : across;
    heading(s, "Numbers since it was made (those that are not 0)");
    for (int n = 0; n < WEIR_STATS_NUMBERS; n++) {
        const char *name = weir_stats_number_name(n);
        if (!name || !is_shown(s->object, n))
            continue;
        char label[40];
        snprintf(label, sizeof label, "%.30s", name);
        size_t length = strlen(label);
        if (length > 3 && strcmp(label + length - 3, "_ns") == 0)
            label[length - 3] = '\0';
        for (char *c = label; *c; c++)
            *c = *c == '_' ? ' ' : *c;
        int x = MARGIN + at * 38;
        canvas_put(s->canvas, s->y, x, 22, STYLE_DIM, label);
        canvas_put_right(s->canvas, s->y, x + 22, 13, STYLE_PLAIN, value_of(s->object, n, name).s);
        if (++at == across) {
            at = 0;
            s->y++;
        }
    }
    s->y += at ? 1 : 0;
}

/* ---- the page ------------------------------------------------------------------------------- */

void top_draw_object(top_view *view, cli_canvas *canvas, int y, int rows)
{
    const weir_monitor_object *object = top_view_object(view, view->object);
    cli_canvas whole = {0};
    view->page_rows = rows;
    if (!object) {
        canvas_wrap(canvas, y, MARGIN, canvas->columns - MARGIN, 2, STYLE_BOLD,
                    "It is gone: closed, or its process has ended. Esc leads back.");
        view->scroll = view->scroll_end = 0;
        return;
    }
    if (!canvas_resize(&whole, HEIGHT, canvas->columns))
        return;
    sheet s = {.canvas = &whole, .view = view, .object = object, .width = canvas->columns};
    draw_what(&s);
    draw_issues(&s);
    draw_fill(&s);
    draw_charts(&s, view->window);
    draw_times(&s);
    draw_pipeline(&s);
    draw_numbers(&s);
    view->scroll_end = s.y > rows ? s.y - rows : 0;
    if (view->scroll > view->scroll_end)
        view->scroll = view->scroll_end;
    canvas_copy_rows(canvas, y, rows, &whole, view->scroll);
    canvas_fini(&whole);
}
