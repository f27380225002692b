/* top_pages.c - what is the matter, with what to do about it; and the help; see top.h. */
#include "top.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MARGIN 2

const char *top_advice(weir_issue_kind kind)
{
    switch (kind) {
    case WEIR_ISSUE_QUEUE_HIGH:
        return "What takes from it is slower than what fills it: more or faster consumers; a larger "
               "bound only delays it.";
    case WEIR_ISSUE_SLOW_SERVICE:
        return "Each item takes long once it was taken: look at the function, or at what it waits "
               "for.";
    case WEIR_ISSUE_BACKPRESSURE:
        return "Producers wait, which is what the bound is for; if that is too often, find the root "
               "behind it.";
    case WEIR_ISSUE_LOW_THROUGHPUT:
        return "There is work inside, and hardly any comes out: is a consumer stuck, or gone?";
    case WEIR_ISSUE_GROWING_AGE:
        return "What comes out has waited longer and longer: it takes in more than it gets rid of. "
               "A max_age bounds it.";
    case WEIR_ISSUE_DROPS:
        return "Items are lost, as its policy says; the numbers tell for which reason.";
    case WEIR_ISSUE_BREAKER_OPEN:
        return "What it protects fails or is slow; calls are rejected until probes succeed.";
    case WEIR_ISSUE_MEMORY:
        return "Memory is short: work waits, or is shed. Smaller tasks, fewer at a time, or a higher "
               "limit.";
    case WEIR_ISSUE_WORKERS_DIE:
        return "Workers die while they work: the error of the task says of what, memory most of the "
               "time.";
    default: return "";
    }
}

/* ---- issues --------------------------------------------------------------------------------- */

static int draw_issue(cli_canvas *canvas, int y, const weir_monitor_issue *issue, bool is_selected)
{
    char line[160], since[32];
    time_t seconds = (time_t)(issue->since_ns / 1000000000);
    struct tm local;
    strftime(since, sizeof since, "%H:%M:%S", localtime_r(&seconds, &local));
    snprintf(line, sizeof line, "%s  %s of %" PRId64 ", since %s",
             weir_issue_name((int)issue->kind), object_name(issue->object).s,
             issue->object->process->process.pid, since);
    int style = is_selected ? STYLE_REVERSE : 0, begin = y;
    canvas_style(canvas, y, 0, canvas->columns, style);
    canvas_put(canvas, y, 0, 1, style | STYLE_BOLD | STYLE_WARN, "!");
    canvas_put(canvas, y++, MARGIN, canvas->columns - MARGIN, style | STYLE_BOLD, line);
    int width = canvas->columns - 2 * MARGIN - 1;
    y += canvas_wrap(canvas, y, 2 * MARGIN, width, 2, STYLE_PLAIN, issue->text);
    y += canvas_wrap(canvas, y, 2 * MARGIN, width, 2, STYLE_DIM, top_advice(issue->kind));
    return y - begin;
}

#define ISSUE_ROWS 5 /* at most */

void top_draw_issues(top_view *view, cli_canvas *canvas, int y, int rows)
{
    size_t count = weir_monitor_issues(view->monitor);
    cli_canvas whole = {0}; /* with room for one that is not seen to its end */
    view->page_rows = rows / ISSUE_ROWS;
    if (count == 0) {
        canvas_put(canvas, y, MARGIN, canvas->columns - MARGIN, STYLE_GOOD,
                   "Nothing is the matter within the window.");
        return;
    }
    if (!canvas_resize(&whole, rows + ISSUE_ROWS, canvas->columns))
        return;
    if (view->issue >= count)
        view->issue = count - 1;
    size_t fit = rows >= ISSUE_ROWS ? (size_t)(rows / ISSUE_ROWS) : 1;
    size_t i = view->issue >= fit ? view->issue - fit + 1 : 0;
    for (int at = 0; i < count && at < rows; i++)
        at += draw_issue(&whole, at, weir_monitor_issue_at(view->monitor, i), i == view->issue);
    canvas_copy_rows(canvas, y, rows, &whole, 0);
    canvas_fini(&whole);
}

/* ---- help ----------------------------------------------------------------------------------- */

static const char *const keys[][2] = {
    {"Up Down j k", "move; PgUp PgDn Home End, too"},
    {"Enter", "look into an object: charts, times, its pipeline, all numbers"},
    {"Esc", "back; in the list: takes the filter away"},
    {"s  < >", "sort by the next column, by the one before or behind; r: the other way round"},
    {"/", "show only what matches: a name, a kind, a pid, a command"},
    {"t", "objects below their processes, or all in one list"},
    {"i", "the issues, and what to do about them"},
    {"p  Space", "pause, and go on"},
    {"+ - d", "look less often, more often, every so many seconds"},
    {"h ?  q", "this; quit"},
};

/* As ASCII, where there is UTF-8, and what it means. */
static const char *const marks[][3] = {
    {">", "\u25b6", "the root: it holds back what waits (in the list, and in the line at the top)"},
    {"!", "!", "there is an issue; i tells"},
    {"-", "\u25cb", "(in the line at the top) nothing is held back: consumers wait for items"},
};

static int draw_pair(cli_canvas *canvas, int y, const char *left, const char *right)
{
    canvas_put(canvas, y, MARGIN, 15, STYLE_BOLD | STYLE_INFO, left);
    int used =
        canvas_wrap(canvas, y, MARGIN + 16, canvas->columns - MARGIN - 17, 3, STYLE_PLAIN, right);
    return y + (used ? used : 1);
}

static int draw_help_text(cli_canvas *canvas)
{
    int y = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        y = draw_pair(canvas, y, keys[i][0], keys[i][1]);
    y++;
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        y = draw_pair(canvas, y, marks[i][canvas->utf8], marks[i][2]);
    for (int i = 0; i < COLUMNS; i++)
        y = draw_pair(canvas, y, columns[i].title, columns[i].about);
    return y;
}

#define HELP_ROWS 120

void top_draw_help(top_view *view, cli_canvas *canvas, int y, int rows)
{
    cli_canvas whole = {0};
    view->page_rows = rows;
    if (!canvas_resize(&whole, HELP_ROWS, canvas->columns))
        return;
    int used = draw_help_text(&whole);
    view->scroll_end = used > rows ? used - rows : 0;
    if (view->scroll > view->scroll_end)
        view->scroll = view->scroll_end;
    canvas_copy_rows(canvas, y, rows, &whole, view->scroll);
    canvas_fini(&whole);
}
