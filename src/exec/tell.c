/* tell.c - what other processes see of a process pool.
 *
 * Told at the end of each section that may have changed something, under the mutex.  Which tasks have begun
 * is in shared memory, and changes there without us: a worker that has tasks is taken to run one.
 */
#include "exec/pool_impl.h"

static unsigned count_busy(const weir_pool *pool)
{
    unsigned busy = 0;
    for (unsigned i = 0; i < pool->n_desks; i++)
        busy += pool->desks[i].live && pool->desks[i].held > 0;
    return busy;
}

static void tell_tasks(const weir_pool *pool, weir__record *record)
{
    uint64_t live = pool->tasks.live, busy = count_busy(pool);
    if (busy > live)
        busy = live;
    weir__tell(record, WEIR_STATS_ACCEPTED, pool->accepted);
    weir__tell(record, WEIR_STATS_DELIVERED, pool->completed + busy);
    weir__tell(record, WEIR_STATS_DONE, pool->completed);
    weir__tell(record, WEIR_STATS_DEPTH, live - busy);
    weir__tell(record, WEIR_STATS_IN_FLIGHT, busy);
    weir__tell(record, WEIR_STATS_CANCELLED, pool->cancelled);
    weir__tell(record, WEIR_STATS_RETRIED, pool->retried);
    weir__tell(record, WEIR_STATS_FAILED, pool->died);
    weir__tell(record, WEIR_STATS_REFUSED, pool->refused);
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        weir__tell(record, WEIR_STATS_DROPPED_NEWEST + i, pool->dropped[i]);
}

static void tell_workers(const weir_pool *pool, weir__record *record)
{
    weir__tell(record, WEIR_STATS_CAPACITY, pool->limit == SIZE_MAX ? UINT64_MAX : pool->limit);
    weir__tell(record, WEIR_STATS_CLOSED, pool->closed);
    weir__tell(record, WEIR_STATS_PUT_WAITING, pool->submitters.count);
    weir__tell(record, WEIR_STATS_PUT_BLOCKED_NS, pool->submit_blocked_ns);
    weir__tell(record, WEIR_STATS_WORKERS, pool->live);
    weir__tell(record, WEIR_STATS_RESTARTS, pool->workers_died + pool->workers_recycled);
}

void weir__pool_unlock(weir_pool *pool)
{
    weir__record *record = pool->record;
    if (WEIR__TELLS && record) {
        weir__tell_begin(record);
        tell_tasks(pool, record);
        tell_workers(pool, record);
        weir__tell_end(record);
    }
    weir__unlock(&pool->mutex);
}
