/* top_draw.c - the frame of `weir top` and its list of rows; see top.h.
 *
 *   title        host, time, how much there is, how much flows
 *   root         what holds everything back, marked with the same sign as its row; or, without an alarm, where consumers
 *                wait
 *   issue        how many, and the worst
 *   page         the list, one object, the issues, the help
 *   keys         or the line that is being written
 */
#include "top.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LEAST_ROWS    8
#define LEAST_COLUMNS 40

#define MARKS      3 /* the root's sign, the issues' sign, a space */
#define OBJECT_MIN 18
#define OBJECT_MAX 44
#define BAR        8
#define SAMPLES    1000

int top_fullness_style(double fullness)
{
    return fullness >= 0.8 ? STYLE_BAD : fullness >= 0.5 ? STYLE_WARN : STYLE_GOOD;
}

size_t top_samples(const weir_monitor_object *object, top_sample_fn *fn, double ret_values[],
                   size_t most)
{
    size_t count = object->sample_count < most ? object->sample_count : most;
    const weir_monitor_sample *first = object->samples + (object->sample_count - count);
    for (size_t i = 0; i < count; i++)
        ret_values[i] = fn(&first[i]);
    return count;
}

double top_sample_depth(const weir_monitor_sample *sample)
{
    return sample->depth;
}

/* ---- the frame ------------------------------------------------------------------------------ */

static void total_rates(const top_view *view, double *ret_in, double *ret_out)
{
    size_t count = weir_monitor_objects(view->monitor);
    *ret_in = *ret_out = 0;
    for (size_t i = 0; i < count; i++) {
        const weir_monitor_object *object = weir_monitor_object_at(view->monitor, i);
        if (object->record->kind == WEIR_STATS_WORKER)
            continue; /* its pool counts the same */
        *ret_in += object_in(object);
        *ret_out += object_out(object);
    }
}

static const char *plural(size_t n)
{
    return n == 1 ? "" : "s";
}

/* " + 6 without a record", or nothing. */
static cli_text unrecorded_text(const top_view *view)
{
    cli_text t = {""};
    uint64_t sum = 0;
    size_t count = weir_monitor_processes(view->monitor);
    for (size_t i = 0; i < count; i++)
        sum += weir_monitor_process_at(view->monitor, i)->process.unrecorded;
    if (sum)
        snprintf(t.s, sizeof t.s, " + %" PRIu64 " without a record", sum);
    return t;
}

static int draw_title(const top_view *view, cli_canvas *canvas)
{
    char host[64] = "", clock[16], line[512], right[32];
    time_t now = time(NULL);
    struct tm local;
    double in, out;
    gethostname(host, sizeof host - 1);
    strftime(clock, sizeof clock, "%H:%M:%S", localtime_r(&now, &local));
    total_rates(view, &in, &out);
    size_t processes = weir_monitor_processes(view->monitor),
           objects = weir_monitor_objects(view->monitor);
    if (view->paused)
        snprintf(right, sizeof right, " PAUSED ");
    else
        snprintf(right, sizeof right, " every %.4g s ", view->interval);
    int room = canvas->columns - (int)strlen(right), length = room;
    for (int names = 2; names >= 0 && length >= room; names--) /* less where that is too long */
        length = snprintf(
            line, sizeof line, " %s%s%s%s  %zu process%s, %zu object%s%s  in %s/s  out %s/s ",
            names >= 1 ? "weir top  " : "", names >= 2 ? host : "", names >= 2 ? "  " : "", clock,
            processes, processes == 1 ? "" : "es", objects, plural(objects),
            unrecorded_text(view).s, text_rate(in).s, text_rate(out).s);
    canvas_style(canvas, 0, 0, canvas->columns, STYLE_REVERSE);
    canvas_put(canvas, 0, 0, room, STYLE_REVERSE | STYLE_BOLD, line);
    canvas_put(canvas, 0, room, (int)strlen(right),
               STYLE_REVERSE | STYLE_BOLD | (view->paused ? STYLE_WARN : 0), right);
    return 1;
}

static const char *root_sign(const cli_canvas *canvas)
{
    return canvas->utf8 ? "\u25b6" : ">";
}

static int draw_root(const top_view *view, cli_canvas *canvas, int y)
{
    const weir_monitor_object *root = NULL;
    const char *text = weir_monitor_root(view->monitor, 0, &root);
    /* As many as it may need, always: what is below must not jump. */
    int lines = canvas->rows >= 20 && canvas->columns < 160 ? 2 : 1;
    bool is_held = root && root->is_root; /* else it is only said who is the slow side */
    if (is_held)
        canvas_put(canvas, y, 0, 1, STYLE_BOLD | STYLE_BAD, root_sign(canvas));
    else if (root)
        canvas_put(canvas, y, 0, 1, STYLE_INFO, canvas->utf8 ? "\u25cb" : "-");
    canvas_wrap(canvas, y, 2, canvas->columns - 3, lines,
                is_held ? STYLE_BOLD
                : root  ? STYLE_INFO
                        : STYLE_GOOD,
                text ? text : "");
    return y + lines;
}

static int draw_worst_issue(const top_view *view, cli_canvas *canvas, int y)
{
    size_t count = weir_monitor_issues(view->monitor);
    char line[1024];
    if (count == 0) {
        canvas_put(canvas, y, 2, canvas->columns - 3, STYLE_DIM, "no issues");
        return y + 1;
    }
    snprintf(line, sizeof line, "%zu issue%s: %s", count, plural(count),
             weir_monitor_issue_at(view->monitor, 0)->text);
    canvas_put(canvas, y, 0, 1, STYLE_BOLD | STYLE_WARN, "!");
    canvas_put(canvas, y, 2, canvas->columns - 3, STYLE_WARN, line);
    return y + 1;
}

typedef struct hint {
    const char *key, *what;
} key_hint;

/* Returns how far it moved on: not at all, if there is no room. */
static int draw_hint(cli_canvas *canvas, int y, int x, const key_hint *hint)
{
    int key = (int)strlen(hint->key) + 1, what = (int)strlen(hint->what);
    if (x + key + what > canvas->columns)
        return 0;
    canvas_put(canvas, y, x, key, STYLE_BOLD | STYLE_INFO, hint->key);
    canvas_put(canvas, y, x + key, what, STYLE_PLAIN, hint->what);
    return key + what + 2;
}

static void draw_hints(const top_view *view, cli_canvas *canvas, int y)
{
    static const key_hint list[] = {{"Enter", "look into"}, {"s", "sort"},   {"/", "filter"},
                                    {"t", "tree"},          {"i", "issues"}, {"p", "pause"},
                                    {"?", "help"},          {"q", "quit"},   {"d", "interval"}};
    static const key_hint other[] = {{"Esc", "back"}, {"Up Down", "scroll"}, {"i", "issues"},
                                     {"p", "pause"},  {"?", "help"},         {"q", "quit"}};
    static const key_hint issues[] = {
        {"Enter", "look into"}, {"Esc", "back"}, {"p", "pause"}, {"?", "help"}, {"q", "quit"}};
    const key_hint *hints = list;
    size_t count = sizeof list / sizeof *list;
    if (view->page == PAGE_ISSUES) {
        hints = issues;
        count = sizeof issues / sizeof *issues;
    } else if (view->page != PAGE_LIST) {
        hints = other;
        count = sizeof other / sizeof *other;
    }
    int x = 1;
    if (view->filter[0]) {
        char text[96];
        snprintf(text, sizeof text, "filter: %s", view->filter);
        x += canvas_put(canvas, y, x, canvas->columns, STYLE_BOLD | STYLE_WARN, text) + 2;
        x += draw_hint(canvas, y, x, &(key_hint){"Esc", "ends it"});
    }
    for (size_t i = 0; i < count; i++)
        x += draw_hint(canvas, y, x, &hints[i]);
}

static void draw_bottom(const top_view *view, cli_canvas *canvas)
{
    int y = canvas->rows - 1;
    char line[192];
    if (view->editing != EDIT_NOTHING) {
        snprintf(line, sizeof line, "%s: %s_",
                 view->editing == EDIT_FILTER ? "filter (name, kind, pid, command)"
                                              : "look every so many seconds",
                 view->edited);
        canvas_put(canvas, y, 1, canvas->columns - 1, STYLE_BOLD | STYLE_WARN, line);
    } else if (view->notice[0]) {
        canvas_put(canvas, y, 1, canvas->columns - 1, STYLE_BOLD | STYLE_WARN, view->notice);
    } else {
        draw_hints(view, canvas, y);
    }
}

/* ---- the list ------------------------------------------------------------------------------- */

typedef struct layout {
    bool shown[COLUMNS];
    int width[COLUMNS];
} layout;

static void lay_out(const top_view *view, const cli_canvas *canvas, layout *l)
{
    int room = canvas->columns - MARKS;
    columns_fit(room, OBJECT_MIN, l->shown);
    for (int i = 0; i < COLUMNS; i++) {
        l->width[i] = l->shown[i] ? columns[i].width : 0;
        room -= l->shown[i] && i != COLUMN_OBJECT ? columns[i].width + 1 : 0;
    }
    /* What is left is for names first, then for the trend, then for names again. */
    int object = room < 30 ? room : 30;
    room -= object;
    if (l->shown[COLUMN_TREND] && room > 0) {
        int most = (int)view->window - columns[COLUMN_TREND].width;
        int more = room < most ? room : most > 0 ? most : 0;
        l->width[COLUMN_TREND] += more;
        room -= more;
    }
    object += room;
    l->width[COLUMN_OBJECT] = object > OBJECT_MAX ? OBJECT_MAX : object;
}

static void draw_titles(const top_view *view, cli_canvas *canvas, int y, const layout *l)
{
    int x = MARKS;
    canvas_style(canvas, y, 0, canvas->columns, STYLE_REVERSE);
    for (int i = 0; i < COLUMNS; i++) {
        if (!l->shown[i])
            continue;
        bool is_sorted = !view->in_order && view->sort == (column_id)i;
        int style = STYLE_REVERSE | (is_sorted ? STYLE_BOLD | STYLE_INFO : 0);
        char title[32];
        const char *arrow = !is_sorted ? "" : view->reverse ? "^" : canvas->utf8 ? "\u25be" : "v";
        snprintf(title, sizeof title, "%.20s%s",
                 i == COLUMN_TREND && l->width[i] < 15 ? "TREND" : columns[i].title, arrow);
        if (i == COLUMN_OBJECT || i == COLUMN_KIND || i == COLUMN_DEPTH)
            canvas_put(canvas, y, x, l->width[i], style, title);
        else
            canvas_put_right(canvas, y, x, l->width[i], style, title);
        x += l->width[i] + 1;
    }
}

static void draw_process(cli_canvas *canvas, int y, const top_row *row)
{
    char line[512];
    const weir_stats_process *process = &row->process->process;
    snprintf(line, sizeof line, "%" PRId64, process->pid);
    int x = MARKS + 2 * (int)row->depth;
    x += canvas_put(canvas, y, x, canvas->columns, STYLE_BOLD | STYLE_INFO, line) + 2;
    cli_text size = process->rss_bytes ? text_bytes((double)process->rss_bytes) : (cli_text){"-"};
    x += canvas_put(canvas, y, x, canvas->columns, STYLE_PLAIN, size.s) + 2;
    if (process->unrecorded) {
        snprintf(line, sizeof line, "%s without a record", text_objects(process->unrecorded).s);
        x += canvas_put(canvas, y, x, canvas->columns, STYLE_WARN, line) + 2;
    }
    canvas_put(canvas, y, x, canvas->columns - x, STYLE_BOLD, process->command);
}

static void draw_name(const top_view *view, cli_canvas *canvas, int y, const top_row *row, int x,
                      const layout *l)
{
    int end = x + l->width[COLUMN_OBJECT];
    if (view->tree) {
        const char *branch =
            canvas->utf8 ? (row->is_last ? "\u2514 " : "\u251c ") : (row->is_last ? "`-" : "|-");
        x += 2 * ((int)row->depth - 1);
        x += canvas_put(canvas, y, x, end - x, STYLE_DIM, branch);
    } else {
        char pid[24];
        snprintf(pid, sizeof pid, "%" PRId64, row->process->process.pid);
        x += canvas_put(canvas, y, x, end - x, STYLE_INFO, pid) + 1;
    }
    int style = row->object->is_root ? STYLE_BOLD | STYLE_BAD : STYLE_BOLD;
    x += canvas_put(canvas, y, x, end - x, style, object_name(row->object).s) + 1;
    if (!l->shown[COLUMN_KIND] && end - x >= 4)
        canvas_put(canvas, y, x, end - x, STYLE_DIM, object_kind(row->object).s);
}

static int style_of(column_id column, const char *text, const weir_monitor_object *object)
{
    if (strcmp(text, "0") == 0 || strcmp(text, "-") == 0)
        return STYLE_DIM;
    if (column == COLUMN_DROPPED && object_dropped(object) > 0)
        return STYLE_BOLD | STYLE_BAD;
    if (column == COLUMN_BLOCKED && object_blocked(object) >= 0.5)
        return STYLE_BOLD | STYLE_WARN;
    if (column == COLUMN_KIND)
        return STYLE_DIM;
    return STYLE_PLAIN;
}

static void draw_fill(cli_canvas *canvas, int y, int x, int width,
                      const weir_monitor_object *object)
{
    double share = object_share(object);
    if (share >= 0)
        canvas_bar(canvas, y, x, BAR, top_fullness_style(share), share);
    cli_text fill = object_fill(object);
    canvas_put(canvas, y, x + BAR + 1, width - BAR - 1, style_of(COLUMN_DEPTH, fill.s, object),
               fill.s);
}

static void draw_trend(cli_canvas *canvas, int y, int x, int width,
                       const weir_monitor_object *object)
{
    double values[SAMPLES], top = object_bound(object);
    size_t count = top_samples(object, top_sample_depth, values, SAMPLES);
    for (size_t i = 0; top < 0 && i < count; i++)
        top = values[i] > top ? values[i] : top;
    canvas_spark(canvas, y, x, width, STYLE_FLOW, values, count, top);
}

static void draw_cell(const top_view *view, cli_canvas *canvas, int y, int x, column_id column,
                      const top_row *row, const layout *l)
{
    int width = l->width[column];
    if (column == COLUMN_OBJECT) {
        draw_name(view, canvas, y, row, x, l);
    } else if (column == COLUMN_DEPTH) {
        draw_fill(canvas, y, x, width, row->object);
    } else if (column == COLUMN_TREND) {
        draw_trend(canvas, y, x, width, row->object);
    } else {
        cli_text text = columns[column].text(row->object);
        int style = style_of(column, text.s, row->object);
        if (column == COLUMN_KIND)
            canvas_put(canvas, y, x, width, style, text.s);
        else
            canvas_put_right(canvas, y, x, width, style, text.s);
    }
}

static void draw_object(const top_view *view, cli_canvas *canvas, int y, const top_row *row,
                        const layout *l)
{
    int x = MARKS;
    if (row->object->is_root)
        canvas_put(canvas, y, 0, 1, STYLE_BOLD | STYLE_BAD, root_sign(canvas));
    if (row->object->issues)
        canvas_put(canvas, y, 1, 1, STYLE_BOLD | STYLE_WARN, "!");
    for (int i = 0; i < COLUMNS; i++) {
        if (l->shown[i]) {
            draw_cell(view, canvas, y, x, (column_id)i, row, l);
            x += l->width[i] + 1;
        }
    }
}

/* Keeps the selected row on the screen. */
static void scroll_to_selected(top_view *view, size_t rows)
{
    if (view->selected_row < view->first)
        view->first = view->selected_row;
    if (view->selected_row >= view->first + rows)
        view->first = view->selected_row - rows + 1;
    if (view->first + rows > view->count)
        view->first = view->count > rows ? view->count - rows : 0;
}

/* All but the pictures, which would be hard to read. */
static void show_selected(cli_canvas *canvas, int y)
{
    for (int x = 0; x < canvas->columns; x++) {
        cell *here = canvas_at(canvas, y, x);
        bool is_picture =
            (here->c >= 0x2581 && here->c <= 0x2588) || here->c == 0x25a0 || here->c == 0xb7;
        if (!is_picture)
            here->style = (here->style & STYLE_BOLD) | STYLE_REVERSE;
    }
}

static void draw_nothing(const top_view *view, cli_canvas *canvas, int y)
{
    canvas_wrap(canvas, y, MARKS, canvas->columns - MARKS - 1, 3, STYLE_PLAIN,
                view->filter[0] ? "Nothing matches the filter: Esc takes it away."
                                : "No process of this user uses weir now. Start one: it will be "
                                  "seen here, without any set-up in it.");
}

static void draw_list(top_view *view, cli_canvas *canvas, int y, int rows)
{
    layout l;
    lay_out(view, canvas, &l);
    draw_titles(view, canvas, y++, &l);
    rows--;
    view->page_rows = rows;
    scroll_to_selected(view, (size_t)rows);
    if (view->count == 0)
        draw_nothing(view, canvas, y);
    for (int i = 0; i < rows && view->first + (size_t)i < view->count; i++) {
        size_t at = view->first + (size_t)i;
        const top_row *row = &view->rows[at];
        if (row->object)
            draw_object(view, canvas, y + i, row, &l);
        else
            draw_process(canvas, y + i, row);
        if (at == view->selected_row)
            show_selected(canvas, y + i);
    }
}

void top_draw(top_view *view, cli_canvas *canvas)
{
    canvas_clear(canvas);
    if (canvas->rows < LEAST_ROWS || canvas->columns < LEAST_COLUMNS) {
        canvas_wrap(canvas, 0, 0, canvas->columns, canvas->rows, STYLE_BOLD,
                    "terminal too small: weir top needs 40x8");
        return;
    }
    int y = draw_title(view, canvas);
    y = draw_root(view, canvas, y);
    y = draw_worst_issue(view, canvas, y);
    int rows = canvas->rows - y - 1;
    switch (view->page) {
    case PAGE_LIST: draw_list(view, canvas, y, rows); break;
    case PAGE_OBJECT: top_draw_object(view, canvas, y, rows); break;
    case PAGE_ISSUES: top_draw_issues(view, canvas, y, rows); break;
    case PAGE_HELP: top_draw_help(view, canvas, y, rows); break;
    }
    draw_bottom(view, canvas);
}
