/* columns.h - the columns of `weir top`: what each says of an object, and how objects are sorted by it.
 *
 * One list for the live view and for `weir top --once`.  Rates are the mean of the last looks (so that the eye
 * can follow), times are percentiles of the window.
 */
#ifndef WEIR_CLI_COLUMNS_H
#define WEIR_CLI_COLUMNS_H

#include <weir/monitor.h>

#include "text.h"

typedef enum column_id {
    COLUMN_OBJECT,
    COLUMN_KIND,
    COLUMN_DEPTH,
    COLUMN_IN,
    COLUMN_OUT,
    COLUMN_DROPPED,
    COLUMN_BLOCKED,
    COLUMN_STARVED,
    COLUMN_WAIT_P50,
    COLUMN_WAIT_P99,
    COLUMN_SERVICE_P50,
    COLUMN_SERVICE_P99,
    COLUMN_WORKERS,
    COLUMN_TREND,
    COLUMNS
} column_id;

typedef struct cli_column {
    const char *title;
    const char *name; /* for --sort; NULL: nothing is sorted by it */
    const char *about;
    int width;
    int rank; /* where there is no room for all, those of the highest rank go first */
    cli_text (*text)(const weir_monitor_object *object); /* NULL: not a number */
    double (*value)(const weir_monitor_object *object);  /* to sort by; NULL: as text() */
} cli_column;

extern const cli_column columns[COLUMNS];

/* Sets which of them fit into `width` columns, with `least` for the object. */
void columns_fit(int width, int least, bool ret_shown[COLUMNS]);

/* The column of that name; COLUMNS: there is none. */
column_id columns_find(const char *name);
const char *columns_name(const void *ctx, size_t i); /* one by one, for nearest() */

/* What an object is called: its name, or its number. */
cli_text object_name(const weir_monitor_object *object);
/* "process pool" */
cli_text object_kind(const weir_monitor_object *object);
/* What is inside: items, or what is in flight where nothing queues. */
double object_depth(const weir_monitor_object *object);
/* What may be inside; < 0: no bound. */
double object_bound(const weir_monitor_object *object);
/* The share of it that is taken; < 0: no bound. */
double object_share(const weir_monitor_object *object);
/* "93/100"; "-": it has no room for anything */
cli_text object_fill(const weir_monitor_object *object);
double object_in(const weir_monitor_object *object);
double object_out(const weir_monitor_object *object);
double object_dropped(const weir_monitor_object *object);
double object_blocked(const weir_monitor_object *object);

/* Negative, 0 or positive: how two objects are sorted by a column, the most first. */
int columns_compare(column_id by, const weir_monitor_object *a, const weir_monitor_object *b);

#endif
