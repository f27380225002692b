/* top_view.c - which rows `weir top` shows, in which order, and which is selected; see top.h. */
#include "top.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Keys of objects are hashes: that one is just this number does not happen. */
static uint64_t key_of_process(const weir_monitor_process *process)
{
    return UINT64_C(1) << 63 | (uint64_t)process->process.pid;
}

/* ---- filter --------------------------------------------------------------------------------- */

static bool contains(const char *text, const char *part)
{
    size_t n = strlen(part);
    for (; strlen(text) >= n; text++) {
        if (strncasecmp(text, part, n) == 0)
            return true;
        if (!*text)
            break;
    }
    return false;
}

static bool process_matches(const char *filter, const weir_monitor_process *process)
{
    char pid[24];
    snprintf(pid, sizeof pid, "%" PRId64, process->process.pid);
    return strcmp(pid, filter) == 0 || contains(process->process.command, filter);
}

bool top_view_matches(const top_view *view, const weir_monitor_process *process,
                      const weir_monitor_object *object)
{
    const char *filter = view->filter;
    if (!*filter || process_matches(filter, process))
        return true;
    if (!object)
        return false;
    return contains(object->record->name, filter) || contains(object_kind(object).s, filter) ||
           contains(weir_stats_kind_name((int)object->record->kind), filter);
}

/* ---- rows ----------------------------------------------------------------------------------- */

static bool make_room(top_view *view, size_t count)
{
    if (count <= view->room)
        return true;
    top_row *rows = realloc(view->rows, count * sizeof *rows);
    if (!rows)
        return false;
    view->rows = rows;
    view->room = count;
    return true;
}

/* qsort has no argument for it; there is one thread. */
static const top_view *sorting;

static int compare(const void *a, const void *b)
{
    const top_row *first = a, *second = b;
    int by = columns_compare(sorting->sort, first->object, second->object);
    if (sorting->reverse)
        by = -by;
    if (by != 0)
        return by;
    return (first->object > second->object) - (first->object < second->object); /* as they came */
}

static void sort(const top_view *view, top_row rows[], size_t count)
{
    if (view->in_order)
        return;
    sorting = view;
    qsort(rows, count, sizeof *rows, compare);
}

static void add_objects(top_view *view, const weir_monitor_process *process)
{
    size_t first = view->count;
    for (size_t i = 0; i < process->objects; i++) {
        const weir_monitor_object *object =
            weir_monitor_object_at(view->monitor, process->first + i);
        if (!top_view_matches(view, process, object))
            continue;
        bool is_part = view->in_order && object->record->kind == WEIR_STATS_WORKER;
        view->rows[view->count++] = (top_row){
            .key = object->key,
            .process = process,
            .object = object,
            .depth = view->tree ? process->depth + 1 + is_part : 0,
        };
    }
    if (!view->tree)
        return;
    sort(view, view->rows + first, view->count - first);
    if (view->count > first)
        view->rows[view->count - 1].is_last = true;
}

static void add_process(top_view *view, const weir_monitor_process *process)
{
    size_t at = view->count;
    if (view->tree)
        view->rows[view->count++] =
            (top_row){.key = key_of_process(process), .process = process, .depth = process->depth};
    add_objects(view, process);
    if (view->tree && view->count == at + 1 && !top_view_matches(view, process, NULL))
        view->count = at; /* nothing of it matches */
}

static bool follow_selection(top_view *view)
{
    for (size_t i = 0; i < view->count; i++) {
        if (view->rows[i].key == view->selected) {
            view->selected_row = i;
            return true;
        }
    }
    return false;
}

bool top_view_update(top_view *view)
{
    size_t processes = weir_monitor_processes(view->monitor);
    if (!make_room(view, processes + weir_monitor_objects(view->monitor) + 1))
        return false;
    view->count = 0;
    for (size_t i = 0; i < processes; i++)
        add_process(view, weir_monitor_process_at(view->monitor, i));
    if (!view->tree)
        sort(view, view->rows, view->count);
    for (size_t i = 0; !view->selected && i < view->count; i++) {
        if (view->rows[i].object)
            view->selected = view->rows[i].key; /* at first: there Enter has something to show */
    }
    if (!follow_selection(view))
        top_view_select(view, view->selected_row);
    return true;
}

void top_view_fini(top_view *view)
{
    free(view->rows);
    view->rows = NULL;
}

/* ---- selection ------------------------------------------------------------------------------ */

void top_view_select(top_view *view, size_t row)
{
    if (view->count == 0) {
        view->selected_row = 0;
        return;
    }
    view->selected_row = row < view->count ? row : view->count - 1;
    view->selected = view->rows[view->selected_row].key;
}

const top_row *top_view_selected(const top_view *view)
{
    return view->count ? &view->rows[view->selected_row] : NULL;
}

const weir_monitor_object *top_view_object(const top_view *view, uint64_t key)
{
    size_t count = weir_monitor_objects(view->monitor);
    for (size_t i = 0; i < count; i++) {
        const weir_monitor_object *object = weir_monitor_object_at(view->monitor, i);
        if (object->key == key)
            return object;
    }
    return NULL;
}
