/* once.c - `weir top --once`: the rows of the live view as text; see top.h.
 *
 * Marks come first, as in the live view: > is the root, ! has an issue.  The sentence below has a - where only consumers
 * wait.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "top.h"

#define MARKS      3
#define OBJECT     16 /* so much of a name is worth more than a further column */
#define OBJECT_MIN 8
#define RANKS      9

typedef struct layout {
    bool shown[COLUMNS];
    int width[COLUMNS];
} layout;

/* Where the branch of the tree would be. */
static int indentation(const top_row *row)
{
    return row->depth ? 2 * (int)(row->depth - 1) : 0;
}

static cli_text cell_of(const top_row *row, int column)
{
    return columns[column].text(row->object);
}

static void measure(const top_view *view, layout *l)
{
    for (int i = 0; i < COLUMNS; i++)
        l->width[i] = l->shown[i] ? (int)strlen(columns[i].title) : 0;
    for (size_t at = 0; at < view->count; at++) {
        const top_row *row = &view->rows[at];
        for (int i = 0; i < COLUMNS && row->object; i++) {
            if (!l->shown[i])
                continue;
            int width = (int)text_width(cell_of(row, i).s);
            width += i == COLUMN_OBJECT ? indentation(row) : 0;
            l->width[i] = width > l->width[i] ? width : l->width[i];
        }
    }
}

/* What all columns but the object's take. */
static int rest_width(const layout *l)
{
    int width = 0;
    for (int i = COLUMN_OBJECT + 1; i < COLUMNS; i++)
        width += l->shown[i] ? l->width[i] + 1 : 0;
    return width;
}

/* The least important columns go, and then names are cut, where that is allowed. */
static void lay_out(const top_view *view, int width, bool may_cut, layout *l)
{
    int room = width - MARKS;
    for (int i = 0; i < COLUMNS; i++)
        l->shown[i] = i != COLUMN_TREND;
    for (int rank = RANKS; rank > 0; rank--) {
        measure(view, l);
        int name = l->width[COLUMN_OBJECT] < OBJECT ? l->width[COLUMN_OBJECT] : OBJECT;
        if (name + rest_width(l) <= room)
            break;
        for (int i = 0; i < COLUMNS; i++)
            l->shown[i] = l->shown[i] && (columns[i].rank < rank || i == COLUMN_KIND);
    }
    int rest = room - rest_width(l);
    if (may_cut && l->width[COLUMN_OBJECT] > rest)
        l->width[COLUMN_OBJECT] = rest > OBJECT_MIN ? rest : OBJECT_MIN;
}

static bool is_left(int column)
{
    return column == COLUMN_OBJECT || column == COLUMN_KIND || column == COLUMN_DEPTH;
}

static void print_padding(int n)
{
    if (n > 0)
        printf("%*s", n, "");
}

static void print_cell(int column, int width, bool is_last, const char *s)
{
    int room = width - (int)text_width(s);
    if (!is_left(column))
        print_padding(room);
    text_print(s, room < 0 && column == COLUMN_OBJECT ? width : -1);
    if (is_left(column) && !is_last)
        print_padding(room);
}

static void print_line(const layout *l, int indent, const top_row *row)
{
    int last = 0;
    for (int i = 0; i < COLUMNS; i++)
        last = l->shown[i] ? i : last;
    for (int i = 0; i <= last; i++) {
        if (!l->shown[i])
            continue;
        int in = i == COLUMN_OBJECT ? indent : 0;
        print_padding(in + (i == COLUMN_OBJECT ? 0 : 1));
        print_cell(i, l->width[i] - in, i == last, row ? cell_of(row, i).s : columns[i].title);
    }
    putchar('\n');
}

static void print_process(const weir_monitor_process *process, unsigned depth, int width,
                          bool may_cut)
{
    char line[512];
    const weir_stats_process *p = &process->process;
    int n = snprintf(line, sizeof line, "%*s%" PRId64 "  %s  %s", 2 * (int)depth, "", p->pid,
                     p->rss_bytes ? text_bytes((double)p->rss_bytes).s : "-", p->command);
    text_print(line, may_cut && n > width ? width : -1);
    putchar('\n');
}

static void print_issues(const top_view *view)
{
    size_t count = weir_monitor_issues(view->monitor);
    for (size_t i = 0; i < count; i++) {
        const weir_monitor_issue *issue = weir_monitor_issue_at(view->monitor, i);
        if (!top_view_matches(view, issue->object->process, issue->object))
            continue;
        printf("! %" PRId64 ": ", issue->object->process->process.pid);
        text_print(issue->text, -1);
        putchar('\n');
    }
}

/* What the table cannot show: their numbers are nowhere. */
static void print_unrecorded(const top_view *view)
{
    size_t count = weir_monitor_processes(view->monitor);
    for (size_t i = 0; i < count; i++) {
        const weir_stats_process *p = &weir_monitor_process_at(view->monitor, i)->process;
        if (p->unrecorded)
            printf("%" PRId64 ": %s found no record, and %s not shown\n", p->pid,
                   text_objects(p->unrecorded).s, p->unrecorded == 1 ? "is" : "are");
    }
}

void top_print(top_view *view, int width, bool may_cut)
{
    layout l;
    const weir_monitor_process *of = NULL;
    lay_out(view, width, may_cut, &l);
    printf("%*s", MARKS, "");
    print_line(&l, 0, NULL);
    for (size_t i = 0; i < view->count; i++) {
        const top_row *row = &view->rows[i];
        if (!row->object || (!view->tree && row->process != of))
            print_process(row->process, view->tree ? row->depth : 0, width, may_cut);
        of = row->process;
        if (!row->object)
            continue;
        printf("%c%c ", row->object->is_root ? '>' : ' ', row->object->issues ? '!' : ' ');
        print_line(&l, indentation(row), row);
    }
    const weir_monitor_object *root = NULL;
    const char *sentence = weir_monitor_root(view->monitor, 0, &root);
    printf("\n%s", !root ? "" : root->is_root ? "> " : "- ");
    text_print(sentence ? sentence : "", -1);
    putchar('\n');
    print_issues(view);
    print_unrecorded(view);
}
