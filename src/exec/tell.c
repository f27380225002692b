/* tell.c - what other processes see of a process pool, and of each of its workers.
 *
 * Told at the end of a section that may have changed something, under the mutex.  Which tasks have begun is
 * in shared memory, and changes there without us: a worker that has tasks is taken to run one.
 *
 * Submitters and the collecting thread are on different CPUs, and each line of the record that both write
 * would travel between them for each task.  So the sections that every task goes through tell one number,
 * and everything only when a worker or a submitter has begun or ended to wait.
 */
#include "exec/pool_impl.h"

#include <stdio.h>

static size_t count_busy(const weir_pool *pool)
{
    size_t busy = 0;
    for (unsigned i = 0; i < pool->n_desks; i++)
        busy += pool->desks[i].live && pool->desks[i].held > 0;
    return busy < pool->tasks.live ? busy : pool->tasks.live;
}

static void tell_tasks(weir_pool *pool, weir__record *record)
{
    pool->busy_told = count_busy(pool);
    weir__tell(record, WEIR_STATS_ACCEPTED, pool->accepted);
    /* Not what was handed out: a task of a worker that dies may come back. */
    weir__tell(record, WEIR_STATS_DELIVERED, pool->completed);
    weir__tell(record, WEIR_STATS_DONE, pool->completed);
    weir__tell(record, WEIR_STATS_BUSY_NS, pool->service_ns);
    weir__tell(record, WEIR_STATS_IN_FLIGHT, pool->busy_told);
    weir__tell(record, WEIR_STATS_CANCELLED, pool->cancelled);
    weir__tell(record, WEIR_STATS_RETRIED, pool->retried);
    weir__tell(record, WEIR_STATS_FAILED, pool->died);
    weir__tell(record, WEIR_STATS_REFUSED, pool->refused);
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        weir__tell(record, WEIR_STATS_DROPPED_NEWEST + i, pool->dropped[i]);
}

static void tell_workers(weir_pool *pool, weir__record *record)
{
    pool->waiting_told = pool->submitters.count;
    weir__tell(record, WEIR_STATS_CAPACITY, pool->limit == SIZE_MAX ? UINT64_MAX : pool->limit);
    weir__tell(record, WEIR_STATS_CLOSED, pool->closed);
    weir__tell_line(record, 0, pool->waiting_told);
    weir__tell(record, WEIR_STATS_PUT_WAITS, pool->submit_waits);
    weir__tell(record, WEIR_STATS_WORKERS, pool->live);
    weir__tell(record, WEIR_STATS_RESTARTS, pool->workers_died + pool->workers_recycled);
}

/* Not where nothing is new: submitters and the collecting thread would pass its lines to and fro. */
static void tell_desk(weir__desk *desk)
{
    uint64_t busy = desk->live && desk->held > 0;
    uint64_t news = 4 * (desk->starts + desk->done + desk->died) + 2 * desk->live + busy;
    if (!desk->record || news == desk->told)
        return;
    desk->told = news;
    weir__tell(desk->record, WEIR_STATS_PID, desk->live ? (uint64_t)desk->pid : 0);
    weir__tell(desk->record, WEIR_STATS_IN_FLIGHT, busy);
    weir__tell(desk->record, WEIR_STATS_DONE, desk->done);
    weir__tell(desk->record, WEIR_STATS_FAILED, desk->died);
}

void weir__desk_taken(weir_pool *pool, weir__desk *desk)
{
    unsigned place = (unsigned)(desk - pool->desks);
    desk->starts++;
    if (!WEIR__TELLS || !pool->record)
        return;
    if (!desk->record) {
        char name[WEIR__PAGE_NAME];
        const char *of = pool->record->name;
        snprintf(name, sizeof name, "%.*s/%u", (int)weir__page_cut(of, 50), of, place);
        desk->record = weir__record_open(WEIR_STATS_WORKER, name);
    }
    weir__tell(desk->record, WEIR_STATS_OWNER, weir__record_id(pool->record));
    weir__tell(desk->record, WEIR_STATS_PLACE, place);
    weir__tell(desk->record, WEIR_STATS_RESTARTS, desk->starts - 1);
}

void weir__desk_done(weir__desk *desk, int64_t service_ns)
{
    desk->done++;
    if (!desk->record)
        return;
    weir__tell_more(&desk->record->number[WEIR_STATS_BUSY_NS], (uint64_t)service_ns);
    weir__tell_time(&desk->record->service, service_ns, 1);
}

static void tell_all(weir_pool *pool)
{
    weir__record *record = pool->record;
    if (!WEIR__TELLS || !record)
        return;
    weir__tell_begin(record);
    tell_tasks(pool, record);
    tell_workers(pool, record);
    weir__tell_end(record);
    for (unsigned i = 0; i < pool->n_desks; i++)
        tell_desk(&pool->desks[i]);
}

void weir__pool_unlock(weir_pool *pool)
{
    tell_all(pool);
    weir__unlock(&pool->mutex);
}

void weir__pool_unlock_soon(weir_pool *pool)
{
    if (WEIR__TELLS && pool->record) {
        if (pool->submitters.count != pool->waiting_told || count_busy(pool) != pool->busy_told)
            tell_all(pool);
        else
            weir__tell(pool->record, WEIR_STATS_ACCEPTED, pool->accepted);
    }
    weir__unlock(&pool->mutex);
}
