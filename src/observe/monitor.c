/* monitor.c - looks at all pages, and knows the objects again that it saw before; see monitor_impl.h. */
#include "observe/monitor_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/files.h"
#include "base/page.h"

/* ---- making one ----------------------------------------------------------------------------- */

#define NEVER 1e300

static double told(double value, double by_default)
{
    return value < 0 ? NEVER : value == 0 ? by_default : value;
}

static double told_count(uint64_t value, double by_default)
{
    return value == UINT64_MAX ? NEVER : value == 0 ? by_default : (double)value;
}

static bool is_number(double value)
{
    return value - value == 0;
}

static weir__limits limits_of(const weir_thresholds *t)
{
    return (weir__limits){
        .queue_share = told(t->queue_share, 0.8),
        .queue_depth = told(t->queue_depth, NEVER),
        .service_s = told((double)t->service_ns / 1e9, 1),
        .throughput = t->throughput < 0 ? 0 : told(t->throughput, 1),
        .age_growth = told(t->age_growth, 2),
        .events = told_count(t->events, 10),
        .drops = told_count(t->drops, 0),
    };
}

static bool is_valid(const weir_monitor_opts *opts)
{
    const weir_thresholds *t = &opts->thresholds;
    return opts->size == sizeof *opts && opts->root_pid >= 0 &&
           (opts->window == 0 || (opts->window >= 2 && opts->window <= 1000)) &&
           (!opts->folder || strlen(opts->folder) < sizeof((weir_monitor *)0)->folder) &&
           is_number(t->queue_share) && is_number(t->queue_depth) && is_number(t->throughput) &&
           is_number(t->age_growth);
}

/* Whether there is a folder to be read: the path is not too long, and pages are not switched off. */
static int check_folder(const weir_monitor_opts *opts)
{
    weir_stats *stats;
    if (!opts->folder && opts->every_user)
        return WEIR_OK;
    int rc = weir_stats_open(&stats, opts->folder);
    if (rc == WEIR_OK)
        weir_stats_close(stats);
    return rc;
}

int weir_monitor_create(weir_monitor **ret_monitor, const weir_monitor_opts *opts)
{
    static const weir_monitor_opts by_default = WEIR_MONITOR_OPTS_INIT;
    opts = opts ? opts : &by_default;
    if (!is_valid(opts))
        return WEIR_EINVAL;
    int rc = check_folder(opts);
    if (rc < 0)
        return rc;
    weir_monitor *monitor = weir__calloc(1, sizeof *monitor);
    if (!monitor)
        return WEIR_ENOMEM;
    if (opts->folder)
        snprintf(monitor->folder, sizeof monitor->folder, "%s", opts->folder);
    monitor->every_user = !opts->folder && opts->every_user;
    monitor->root_pid = opts->root_pid;
    monitor->window = opts->window ? opts->window : 10;
    monitor->limits = limits_of(&opts->thresholds);
    *ret_monitor = monitor;
    return WEIR_OK;
}

static void free_object(object *o)
{
    weir__track_fini(&o->looks);
    weir__track_fini(&o->samples);
    weir__track_fini(&o->cells);
    weir__free(o);
}

static void free_processes(found *all)
{
    for (size_t i = 0; i < all->n_processes; i++)
        weir__free(all->processes[i]);
    all->n_processes = 0;
}

void weir_monitor_destroy(weir_monitor *monitor)
{
    if (!monitor)
        return;
    free_processes(&monitor->now);
    for (size_t i = 0; i < monitor->now.n_objects; i++)
        free_object(monitor->now.objects[i]);
    weir__free(monitor->now.processes);
    weir__free(monitor->now.objects);
    weir__free(monitor->next.processes);
    weir__free(monitor->next.objects);
    weir__free(monitor->issues);
    weir__free(monitor);
}

/* ---- the first half of a look: reads, and may fail -------------------------------------------- */

/* Room for another one. */
static bool grow(void *array, size_t n, size_t *room, size_t size)
{
    void *old, *larger;
    if (n < *room)
        return true;
    memcpy(&old, array, sizeof old);
    size_t wanted = *room ? 2 * *room : 16;
    larger = weir__realloc(old, wanted * size);
    if (!larger)
        return false;
    memcpy(array, &larger, sizeof larger);
    *room = wanted;
    return true;
}

static bool is_object_of(const object *o, const process *p, uint64_t id, weir_stats_kind kind)
{
    return o->id == id && o->pid == p->pub.process.pid && o->uid == p->pub.uid &&
           o->start_ticks == p->pub.process.start_ticks && record_of(o)->kind == kind;
}

static object *find_object(weir_monitor *monitor, const process *p, const weir_stats_record *r)
{
    for (object *o = monitor->rows[r->id % ROWS]; o; o = o->next)
        if (is_object_of(o, p, r->id, r->kind))
            return o;
    return NULL;
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 32;
}

static uint64_t key_of(const process *p, uint64_t id)
{
    uint64_t key = mix((uint64_t)p->pub.process.pid, p->pub.process.start_ticks);
    return mix(mix(key, (uint64_t)p->pub.uid), id);
}

/* A new one, in its row. */
static object *add_object(weir_monitor *monitor, process *p, const weir_stats_record *r)
{
    object *o = weir__calloc(1, sizeof *o);
    if (!o)
        return NULL;
    *o = (object){
        .pub.key = key_of(p, r->id),
        .pid = p->pub.process.pid,
        .uid = p->pub.uid,
        .start_ticks = p->pub.process.start_ticks,
        .id = r->id,
        .records[0].kind = r->kind,
        .next = monitor->rows[r->id % ROWS],
    };
    monitor->rows[r->id % ROWS] = o;
    return o;
}

/* Reads the object's record into its place beside the last one. */
static int take_record(weir_monitor *monitor, process *p, const weir_stats_record *record)
{
    found *next = &monitor->next;
    if (next->n_objects >= WEIR_MONITOR_OBJECTS) {
        next->beyond++;
        return WEIR_OK;
    }
    if (!grow(&next->objects, next->n_objects, &next->room_objects, sizeof *next->objects))
        return WEIR_ENOMEM;
    object *o = find_object(monitor, p, record);
    if (!o)
        o = add_object(monitor, p, record);
    if (!o)
        return WEIR_ENOMEM;
    o->seen_at = monitor->look;
    next->objects[next->n_objects++] = o;
    o->records[1 - o->current] = *record;
    o->read_ns = weir_now();
    o->read_of = p;
    return weir__measure_reserve(monitor, o) ? WEIR_OK : WEIR_ENOMEM;
}

static int read_objects(weir_monitor *monitor, weir_stats *stats, process *p)
{
    weir_stats_record *record = weir__malloc(sizeof *record);
    if (!record)
        return WEIR_ENOMEM;
    record->size = sizeof *record;
    int rc;
    while ((rc = weir_stats_next_record(stats, record)) > 0) {
        rc = take_record(monitor, p, record);
        if (rc < 0)
            break;
    }
    weir__free(record);
    return rc;
}

static const process *find_seen(const found *next, int64_t pid)
{
    for (size_t i = 0; i < next->n_processes; i++)
        if (next->processes[i]->pub.process.pid == pid)
            return next->processes[i];
    return NULL;
}

static int read_process(weir_monitor *monitor, weir_stats *stats, const weir_stats_process *seen,
                        int64_t uid)
{
    found *next = &monitor->next;
    if (monitor->root_pid && !weir__descends_from(seen, monitor->root_pid))
        return WEIR_OK;
    const process *same = find_seen(next, seen->pid);
    if (same || next->n_processes >= WEIR_MONITOR_OBJECTS) {
        next->beyond += !same || same->pub.process.start_ticks != seen->start_ticks;
        return WEIR_OK;
    }
    if (!grow(&next->processes, next->n_processes, &next->room_processes, sizeof *next->processes))
        return WEIR_ENOMEM;
    process *p = weir__calloc(1, sizeof *p);
    if (!p)
        return WEIR_ENOMEM;
    p->pub.process = *seen;
    p->pub.uid = uid;
    next->processes[next->n_processes++] = p;
    return read_objects(monitor, stats, p);
}

/* Pids are names here, so where two processes have the same one (in other namespaces), the one of ours comes
 * first, and those of the others are beyond. */
static int read_processes(weir_monitor *monitor, weir_stats *stats, int64_t uid, bool here)
{
    weir_stats_process seen = WEIR_STATS_PROCESS_INIT;
    int rc;
    while ((rc = weir_stats_next_process(stats, &seen)) > 0) {
        if ((seen.rss_bytes > 0) != here)
            continue;
        rc = read_process(monitor, stats, &seen, uid);
        if (rc < 0)
            return rc;
    }
    return rc;
}

static int read_folder(weir_monitor *monitor, const char *path)
{
    struct stat st;
    char own[512];
    weir_stats *stats;
    int rc = weir_stats_open(&stats, path);
    if (rc < 0)
        return rc;
    if (!path && weir__page_folder(own, sizeof own))
        path = own;
    int64_t uid = path && stat(path, &st) == 0 ? (int64_t)st.st_uid : (int64_t)geteuid();
    rc = read_processes(monitor, stats, uid, true);
    if (rc >= 0)
        rc = read_processes(monitor, stats, uid, false);
    weir_stats_close(stats);
    return rc;
}

/* Of somebody else, who may not let us in. */
static int read_other_folder(const char *path, void *ctx)
{
    char own[512];
    if (weir__page_folder(own, sizeof own) && strcmp(own, path) == 0)
        return WEIR_OK;
    int rc = read_folder(ctx, path);
    return rc == WEIR_EINVAL ? WEIR_OK : rc;
}

static int read_every_folder(weir_monitor *monitor)
{
    int rc = read_folder(monitor, NULL);
    if (rc < 0 && rc != WEIR_EINVAL)
        return rc;
    return weir__page_each_folder(read_other_folder, monitor);
}

static int read_all(weir_monitor *monitor)
{
    monitor->next.n_objects = 0;
    monitor->next.beyond = 0;
    if (monitor->every_user)
        return read_every_folder(monitor);
    return read_folder(monitor, monitor->folder[0] ? monitor->folder : NULL);
}

static bool reserve_issues(weir_monitor *monitor)
{
    size_t need = monitor->next.n_objects * WEIR_ISSUES;
    if (need <= monitor->room_issues)
        return true;
    issue **issues = weir__realloc(monitor->issues, need * sizeof *issues);
    if (!issues)
        return false;
    monitor->issues = issues;
    monitor->room_issues = need;
    return true;
}

/* ---- the second half: cannot fail ------------------------------------------------------------- */

/* Takes those out of the rows that this look has not seen (or, undoing it, those that it saw first). */
static void sweep(weir_monitor *monitor, bool undo)
{
    for (size_t row = 0; row < ROWS; row++)
        for (object **at = &monitor->rows[row]; *at;) {
            object *o = *at;
            bool stays = undo ? o->is_known : o->seen_at == monitor->look;
            if (stays) {
                at = &o->next;
                continue;
            }
            *at = o->next;
            free_object(o);
        }
}

static void undo(weir_monitor *monitor)
{
    sweep(monitor, true);
    free_processes(&monitor->next);
}

static void commit(weir_monitor *monitor)
{
    int64_t wall_ns = weir__wall_clock();
    found last = monitor->now;
    sweep(monitor, false);
    monitor->now = monitor->next;
    monitor->next = last;
    monitor->at_ns = wall_ns;
    monitor->seconds = 0;
    for (size_t i = 0; i < monitor->now.n_objects; i++) {
        object *o = monitor->now.objects[i];
        o->process = o->read_of;
        o->pub.process = &o->process->pub;
        weir__measure(monitor, o, wall_ns);
        if (o->pub.seconds > monitor->seconds)
            monitor->seconds = o->pub.seconds;
    }
    free_processes(&monitor->next);
    weir__order_processes(&monitor->now);
    weir__order_objects(monitor, &monitor->now);
    weir__judge(monitor);
}

int weir_monitor_look(weir_monitor *monitor)
{
    monitor->look++;
    int rc = read_all(monitor);
    if (rc >= 0 && !reserve_issues(monitor))
        rc = WEIR_ENOMEM;
    if (rc < 0) {
        undo(monitor);
        return rc;
    }
    commit(monitor);
    return WEIR_OK;
}

/* ---- what was seen ---------------------------------------------------------------------------- */

size_t weir_monitor_processes(const weir_monitor *monitor)
{
    return monitor->now.n_processes;
}

const weir_monitor_process *weir_monitor_process_at(const weir_monitor *monitor, size_t i)
{
    return i < monitor->now.n_processes ? &monitor->now.processes[i]->pub : NULL;
}

size_t weir_monitor_objects(const weir_monitor *monitor)
{
    return monitor->now.n_objects;
}

const weir_monitor_object *weir_monitor_object_at(const weir_monitor *monitor, size_t i)
{
    return i < monitor->now.n_objects ? &monitor->now.objects[i]->pub : NULL;
}

size_t weir_monitor_issues(const weir_monitor *monitor)
{
    return monitor->n_issues;
}

const weir_monitor_issue *weir_monitor_issue_at(const weir_monitor *monitor, size_t i)
{
    return i < monitor->n_issues ? &monitor->issues[i]->pub : NULL;
}
