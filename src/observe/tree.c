/* tree.c - who is whose child, and in which order processes and objects are; see monitor_impl.h.
 *
 * A page says who was the parent when it was made; the kernel says who is now, also of processes that have
 * no page.  Both are asked, since the processes between two with pages matter to nobody.  A parent is
 * older than its child: so whatever pages say, nobody descends from himself.
 */
#include <stdlib.h>

#include "base/page.h"
#include "observe/monitor_impl.h"

/* Pids of other namespaces mean nothing here. */
static bool is_here(const weir_stats_process *p)
{
    return p->rss_bytes > 0;
}

static bool is_older(const weir_stats_process *a, const weir_stats_process *b)
{
    return a->start_ticks < b->start_ticks || (a->start_ticks == b->start_ticks && a->pid < b->pid);
}

/* The parent that the page names, if it is still that process; else the kernel's. */
static int64_t parent_of(const weir_stats_process *p)
{
    if (!is_here(p))
        return 0;
    uint64_t began =
        p->parent > 1 && p->parent <= INT32_MAX ? weir__page_start_ticks((pid_t)p->parent) : 0;
    return began > 0 && began <= p->start_ticks ? p->parent : weir__page_parent_of((pid_t)p->pid);
}

bool weir__descends_from(const weir_stats_process *p, int64_t root)
{
    if (p->pid == root)
        return true;
    int64_t pid = parent_of(p);
    for (int i = 0; i < ANCESTORS && pid > 1; i++) {
        if (pid == root)
            return true;
        pid = weir__page_parent_of((pid_t)pid);
    }
    return false;
}

/* ---- processes ------------------------------------------------------------------------------ */

static int by_pid(const void *a, const void *b)
{
    const process *x = *(process *const *)a, *y = *(process *const *)b;
    return (x->pub.process.pid > y->pub.process.pid) - (x->pub.process.pid < y->pub.process.pid);
}

static process *find_pid(const found *now, int64_t pid)
{
    process wanted = {.pub.process.pid = pid}, *key = &wanted;
    process **at = bsearch(&key, now->processes, now->n_processes, sizeof *at, by_pid);
    return at ? *at : NULL;
}

static process *find_above(const found *now, const process *p)
{
    int64_t pid = parent_of(&p->pub.process);
    for (int i = 0; i < ANCESTORS && pid > 1; i++) {
        process *above = find_pid(now, pid);
        if (above && is_older(&above->pub.process, &p->pub.process))
            return above;
        pid = weir__page_parent_of((pid_t)pid);
    }
    return NULL;
}

static unsigned count_above(const process *p)
{
    unsigned n = 0;
    for (; p->above; p = p->above)
        n++;
    return n;
}

/* Of a process, the one on its way up that has so many above it. */
static const process *climb(const process *p, unsigned depth)
{
    while (p->pub.depth > depth)
        p = p->above;
    return p;
}

/* Parents before children, then by pid: of those who part ways, where they do. */
static int by_tree(const void *a, const void *b)
{
    const process *x = *(process *const *)a, *y = *(process *const *)b;
    unsigned dx = x->pub.depth, dy = y->pub.depth;
    x = climb(x, dy);
    y = climb(y, dx);
    if (x == y)
        return (dx > dy) - (dx < dy);
    while (x->above != y->above) {
        x = x->above;
        y = y->above;
    }
    return by_pid(&x, &y);
}

void weir__order_processes(found *now)
{
    if (now->n_processes == 0)
        return;
    qsort(now->processes, now->n_processes, sizeof *now->processes, by_pid);
    for (size_t i = 0; i < now->n_processes; i++)
        now->processes[i]->above = find_above(now, now->processes[i]);
    for (size_t i = 0; i < now->n_processes; i++) {
        process *p = now->processes[i];
        p->pub.depth = count_above(p);
        if (p->pub.depth > ANCESTORS)
            p->above = NULL;
    }
    for (size_t i = 0; i < now->n_processes; i++)
        now->processes[i]->pub.depth = count_above(now->processes[i]);
    qsort(now->processes, now->n_processes, sizeof *now->processes, by_tree);
    for (size_t i = 0; i < now->n_processes; i++)
        now->processes[i]->rank = i;
}

/* ---- objects -------------------------------------------------------------------------------- */

static int compare(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int by_creation(const object *x, const object *y)
{
    int64_t a = record_of(x)->created_ns, b = record_of(y)->created_ns;
    return a != b ? (a > b) - (a < b) : compare(x->id, y->id);
}

/* A pool comes before its workers; among the stages of a pipeline the first one has its place. */
static int by_place(const object *x, const object *y)
{
    bool leads_x = x->leader == x && !is_kind(x, WEIR_STATS_STAGE);
    bool leads_y = y->leader == y && !is_kind(y, WEIR_STATS_STAGE);
    if (leads_x != leads_y)
        return leads_x ? -1 : 1;
    int order =
        compare(record_of(x)->number[WEIR_STATS_PLACE], record_of(y)->number[WEIR_STATS_PLACE]);
    return order ? order : by_creation(x, y);
}

static int by_order(const void *a, const void *b)
{
    const object *x = *(object *const *)a, *y = *(object *const *)b;
    if (x->process != y->process)
        return compare(x->process->rank, y->process->rank);
    return x->leader != y->leader ? by_creation(x->leader, y->leader) : by_place(x, y);
}

static bool is_part(const object *o)
{
    return is_kind(o, WEIR_STATS_STAGE) || is_kind(o, WEIR_STATS_WORKER);
}

/* What it says it is a part of, if that is something that has parts. */
static object *find_leader(weir_monitor *monitor, object *o)
{
    uint64_t owner = record_of(o)->number[WEIR_STATS_OWNER];
    if (!is_part(o) || owner == o->id)
        return o;
    for (object *other = monitor->rows[owner % ROWS]; other; other = other->next)
        if (other->id == owner && other->process == o->process &&
            !is_kind(other, WEIR_STATS_WORKER))
            return other;
    return o;
}

void weir__order_objects(weir_monitor *monitor, found *now)
{
    if (now->n_objects == 0)
        return;
    for (size_t i = 0; i < now->n_objects; i++)
        now->objects[i]->leader = find_leader(monitor, now->objects[i]);
    for (size_t i = 0; i < now->n_objects; i++) /* hostile: owners in a row, or in a circle */
        if (now->objects[i]->leader->leader != now->objects[i]->leader)
            now->objects[i]->leader = now->objects[i];
    if (now->n_objects > 0) /* qsort wants an array even then */
        qsort(now->objects, now->n_objects, sizeof *now->objects, by_order);
    for (size_t i = now->n_objects; i-- > 0;) {
        weir_monitor_process *p = &now->objects[i]->process->pub;
        p->first = i;
        p->objects++;
    }
}
