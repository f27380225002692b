/* top_keys.c - what each key of `weir top` does; see top.h. */
#include "top.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INTERVAL_MIN 0.1
#define INTERVAL_MAX 3600.0

#define CONTROL(letter) ((letter) & 31)

/* ---- the line that is being written ---------------------------------------------------------- */

static void begin_edit(top_view *view, int what)
{
    view->editing = what;
    if (what == EDIT_FILTER)
        snprintf(view->edited, sizeof view->edited, "%s", view->filter);
    else
        snprintf(view->edited, sizeof view->edited, "%.4g", view->interval);
    memcpy(view->edited_before, view->edited, sizeof view->edited);
}

static void set_interval(top_view *view, double seconds)
{
    if (seconds >= INTERVAL_MIN && seconds <= INTERVAL_MAX)
        view->interval = seconds;
    else
        snprintf(view->notice, sizeof view->notice, "the interval is from %.1f to %.0f seconds",
                 INTERVAL_MIN, INTERVAL_MAX);
}

static void apply_filter(top_view *view, const char *filter)
{
    snprintf(view->filter, sizeof view->filter, "%s", filter);
    top_view_update(view);
}

static void end_edit(top_view *view, bool keep)
{
    char *end;
    double seconds = strtod(view->edited, &end);
    if (view->editing == EDIT_FILTER && !keep)
        apply_filter(view, view->edited_before);
    if (view->editing == EDIT_INTERVAL && keep)
        set_interval(view, end > view->edited && *end == '\0' ? seconds : 0);
    view->editing = EDIT_NOTHING;
}

/* One character, which may have several bytes. */
static void remove_last(char *text)
{
    size_t n = strlen(text);
    while (n > 0 && ((unsigned char)text[n - 1] & 0xc0) == 0x80)
        n--;
    text[n > 0 ? n - 1 : 0] = '\0';
}

static void append(char *text, size_t size, int c)
{
    char bytes[5] = {0};
    if (c < 0x80)
        bytes[0] = (char)c;
    else if (c < 0x800)
        snprintf(bytes, sizeof bytes, "%c%c", 0xc0 | c >> 6, 0x80 | (c & 0x3f));
    else if (c < 0x10000)
        snprintf(bytes, sizeof bytes, "%c%c%c", 0xe0 | c >> 12, 0x80 | (c >> 6 & 0x3f),
                 0x80 | (c & 0x3f));
    else
        snprintf(bytes, sizeof bytes, "%c%c%c%c", 0xf0 | c >> 18, 0x80 | (c >> 12 & 0x3f),
                 0x80 | (c >> 6 & 0x3f), 0x80 | (c & 0x3f));
    if (strlen(text) + strlen(bytes) < size)
        strcat(text, bytes);
}

static void edit(top_view *view, int key)
{
    if (key == KEY_IS_ENTER || key == KEY_IS_ESCAPE) {
        end_edit(view, key == KEY_IS_ENTER);
        return;
    }
    if (key == KEY_IS_BACKSPACE)
        remove_last(view->edited);
    else if (key == CONTROL('u'))
        view->edited[0] = '\0';
    else if (key >= ' ' && key != 0x7f && key < KEY_IS_UP)
        append(view->edited, sizeof view->edited, key);
    if (view->editing == EDIT_FILTER)
        apply_filter(view, view->edited);
}

/* ---- moving --------------------------------------------------------------------------------- */

/* How far a key moves; 0: it does not. */
static long step_of(const top_view *view, int key)
{
    long page = view->page_rows > 1 ? view->page_rows - 1 : 1;
    switch (key) {
    case KEY_IS_UP:
    case 'k': return -1;
    case KEY_IS_DOWN:
    case 'j': return 1;
    case KEY_IS_PAGE_UP:
    case CONTROL('b'): return -page;
    case KEY_IS_PAGE_DOWN:
    case CONTROL('f'): return page;
    case KEY_IS_HOME:
    case 'g': return -1000000;
    case KEY_IS_END:
    case 'G': return 1000000;
    default: return 0;
    }
}

static size_t moved(size_t at, long step, size_t count)
{
    long to = (long)at + step;
    if (to < 0 || count == 0)
        return 0;
    return (size_t)to < count ? (size_t)to : count - 1;
}

static void move(top_view *view, long step)
{
    switch (view->page) {
    case PAGE_LIST: top_view_select(view, moved(view->selected_row, step, view->count)); break;
    case PAGE_ISSUES:
        view->issue = moved(view->issue, step, weir_monitor_issues(view->monitor));
        break;
    default:
        view->scroll = (int)moved((size_t)view->scroll, step, (size_t)view->scroll_end + 1);
        break;
    }
}

/* ---- pages ---------------------------------------------------------------------------------- */

static void show(top_view *view, top_page page)
{
    if (page == PAGE_HELP && view->page != PAGE_HELP)
        view->page_before = view->page;
    view->page = page;
    view->scroll = 0;
    view->issue = 0;
}

static void look_into(top_view *view)
{
    const top_row *row = top_view_selected(view);
    if (view->page == PAGE_ISSUES && view->issue < weir_monitor_issues(view->monitor)) {
        view->object = weir_monitor_issue_at(view->monitor, view->issue)->object->key;
        view->selected = view->object;
        top_view_update(view);
        show(view, PAGE_OBJECT);
    } else if (view->page == PAGE_LIST && row && row->object) {
        view->object = row->key;
        show(view, PAGE_OBJECT);
    } else if (view->page == PAGE_LIST && row) {
        snprintf(view->notice, sizeof view->notice,
                 "a process: Enter looks into its objects below");
    }
}

/* Back, one step at a time; the last one takes the filter away. */
static void go_back(top_view *view)
{
    if (view->page == PAGE_HELP)
        show(view, view->page_before);
    else if (view->page != PAGE_LIST)
        show(view, PAGE_LIST);
    else if (view->filter[0])
        apply_filter(view, "");
}

/* ---- sorting -------------------------------------------------------------------------------- */

/* The order in the tree is the one before the first column, and behind the last. */
static void sort_by_next(top_view *view, int direction)
{
    int at = view->in_order ? -1 : (int)view->sort;
    do
        at += direction;
    while (at >= 0 && at < COLUMNS && !columns[at].name);
    if (at < -1) {
        for (at = COLUMNS - 1; !columns[at].name;)
            at--;
    }
    view->in_order = at < 0 || at >= COLUMNS;
    if (!view->in_order)
        view->sort = (column_id)at;
    top_view_update(view);
    snprintf(view->notice, sizeof view->notice, "sorted by %s",
             view->in_order ? "order of creation" : columns[view->sort].title);
}

static void toggle(top_view *view, bool *what)
{
    *what = !*what;
    top_view_update(view);
}

static void command_key(top_view *view, int key)
{
    switch (key) {
    case KEY_IS_ENTER:
    case KEY_IS_RIGHT: look_into(view); break;
    case KEY_IS_ESCAPE:
    case KEY_IS_LEFT:
    case KEY_IS_BACKSPACE: go_back(view); break;
    case 'h':
    case '?': show(view, view->page == PAGE_HELP ? view->page_before : PAGE_HELP); break;
    case 'i': show(view, view->page == PAGE_ISSUES ? PAGE_LIST : PAGE_ISSUES); break;
    case 'p':
    case ' ': view->paused = !view->paused; break;
    case 's':
    case '>': sort_by_next(view, 1); break;
    case '<': sort_by_next(view, -1); break;
    case 'r': toggle(view, &view->reverse); break;
    case 't': toggle(view, &view->tree); break;
    case '/': begin_edit(view, EDIT_FILTER); break;
    case 'd': begin_edit(view, EDIT_INTERVAL); break;
    case '+': set_interval(view, view->interval * 2); break;
    case '-': set_interval(view, view->interval / 2); break;
    default: break;
    }
}

bool top_key(top_view *view, int key)
{
    view->notice[0] = '\0';
    if (view->editing != EDIT_NOTHING) {
        edit(view, key);
        return true;
    }
    if (key == 'q')
        return false;
    long step = step_of(view, key);
    if (step)
        move(view, step);
    else
        command_key(view, key);
    return true;
}
