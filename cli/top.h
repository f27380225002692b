/* top.h - the state of `weir top`, and who does what with it.
 *
 *   top.c          options; the loop: look, draw, wait for a key
 *   top_view.c     which rows there are, in which order, and which is selected
 *   top_keys.c     what each key does
 *   top_draw.c     the frame, the list of rows
 *   top_object.c   one object, with all its numbers and charts
 *   top_pages.c    the issues, the help
 *   terminal.c     canvas to terminal, terminal to keys: all of ncurses
 *   once.c         the same rows without a terminal: weir top --once
 *
 * A look at the processes makes new rows; keys and drawing use what was seen last, so a paused view can still
 * be walked through.  Objects are remembered by key, never by pointer: a pointer is right until the next look.
 */
#ifndef WEIR_CLI_TOP_H
#define WEIR_CLI_TOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weir/monitor.h>

#include "canvas.h"
#include "columns.h"

typedef enum top_page { PAGE_LIST, PAGE_OBJECT, PAGE_ISSUES, PAGE_HELP } top_page;

/* A process, or (object not NULL) an object. */
typedef struct top_row {
    uint64_t key; /* 0: none */
    const weir_monitor_process *process;
    const weir_monitor_object *object;
    unsigned depth; /* in the tree */
    bool is_last;   /* of its process */
} top_row;

typedef struct top_view {
    weir_monitor *monitor;

    bool in_order; /* as they are in the tree; else by `sort` */
    column_id sort;
    bool reverse, tree, paused;
    double interval;
    size_t window; /* looks */
    char filter[64];

    top_page page, page_before; /* the latter: where the help was called from */
    uint64_t selected;          /* its key */
    uint64_t object;            /* what PAGE_OBJECT shows */
    size_t selected_row;        /* where it was: so that the selection stays near if it goes */
    size_t first;               /* the row at the top of the list */
    int scroll,
        scroll_end; /* of the other pages: lines from the top, and the most that makes sense */
    size_t issue;   /* selected on PAGE_ISSUES */

    enum { EDIT_NOTHING, EDIT_FILTER, EDIT_INTERVAL } editing;
    char edited[64], edited_before[64];
    char notice[128]; /* one line, until the next key */

    top_row *rows;
    size_t count, room;
    int page_rows; /* so many were drawn last */
} top_view;

/* ---- top_view.c ------------------------------------------------------------------------------ */

/* Makes the rows anew; false: no memory, and they are what they were. */
bool top_view_update(top_view *view);
void top_view_fini(top_view *view);
bool top_view_matches(const top_view *view, const weir_monitor_process *process,
                      const weir_monitor_object *object);
void top_view_select(top_view *view, size_t row);
const top_row *top_view_selected(const top_view *view);
const weir_monitor_object *top_view_object(const top_view *view, uint64_t key);

/* ---- top_keys.c ------------------------------------------------------------------------------ */

/* What is not a character. */
enum {
    KEY_IS_UP = 0x200000, /* above Unicode */
    KEY_IS_DOWN,
    KEY_IS_LEFT,
    KEY_IS_RIGHT,
    KEY_IS_PAGE_UP,
    KEY_IS_PAGE_DOWN,
    KEY_IS_HOME,
    KEY_IS_END,
    KEY_IS_ENTER,
    KEY_IS_ESCAPE,
    KEY_IS_BACKSPACE,
    KEY_IS_RESIZE,
    KEY_IS_OTHER,
};

/* false: the user has enough. */
bool top_key(top_view *view, int key);

/* ---- drawing --------------------------------------------------------------------------------- */

void top_draw(top_view *view, cli_canvas *canvas);
void top_draw_object(top_view *view, cli_canvas *canvas, int y, int rows);
void top_draw_issues(top_view *view, cli_canvas *canvas, int y, int rows);
void top_draw_help(top_view *view, cli_canvas *canvas, int y, int rows);
int top_fullness_style(double fullness); /* green, yellow, red */
const char *top_advice(weir_issue_kind kind);

/* The samples of an object as numbers to draw; returns how many: at most `most`. */
typedef double top_sample_fn(const weir_monitor_sample *sample);
size_t top_samples(const weir_monitor_object *object, top_sample_fn *fn, double ret_values[],
                   size_t most);
double top_sample_depth(const weir_monitor_sample *sample);

/* ---- once.c ---------------------------------------------------------------------------------- */

/* Prints rows, root and issues.  width: the table has the columns for which there is room beside names of 16 letters;
 * may_cut: longer ones are cut to fit, else they are in full and the table is wider. */
void top_print(top_view *view, int width, bool may_cut);

/* ---- terminal.c ------------------------------------------------------------------------------ */

/* false: a complaint was made. */
bool terminal_open(bool may_colour);
void terminal_close(void);
void terminal_size(int *ret_rows, int *ret_columns);
void terminal_show(const cli_canvas *canvas);

/* Waits for a key until then (ns on the monotonic clock): the key, TERMINAL_TIME or TERMINAL_END (the terminal is gone,
 * or a signal says so). */
enum { TERMINAL_TIME = -1, TERMINAL_END = -2 };
int terminal_key(int64_t until);

#endif
