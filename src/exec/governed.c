/* governed.c - a process pool whose running tasks have their memory reserved; see pool_impl.h.
 *
 * What is bounded is what runs, for that is what uses memory; what waits is bounded by the backlog.  A
 * worker runs one task at a time, so the reservation is its desk's: taken before it gets a task, good
 * for those dealt behind it that need about as much, given back when it has none.  So short tasks do
 * not meet the governor at all.
 *
 * The governor calls others when somebody reserves or gives back, and they may want locks of their own
 * (the GIL): so neither happens under the pool's mutex, but in the collecting thread between two looks.
 * One reservation at a time is asked for: that of the next task in line.
 *
 * What a task takes is learned from those before, and the first ones may have been the small ones.  So
 * while little is known no more run at once than were seen, and one.
 */
#include <assert.h>

#include "exec/pool_impl.h"
#include "flow/governor.h"

#define LOOK_EVERY (20 * WEIR_MILLISECOND) /* while the governor says no */
#define AT_ONCE    64u
#define SHORT_TAKES                                                                                \
    (UINT64_C(1) << 20) /* by a task too short to be measured: what it had time for */

/* A task of which nothing is known needs everything, and so runs alone. */
weir__need weir__pool_need_of(const weir_pool *pool, const weir__task *task)
{
    if (!weir__pool_is_governed(pool))
        return (weir__need){0, false};
    uint64_t bytes = pool->opts.task_bytes;
    if (bytes == 0)
        bytes = weir_governor_estimate(pool->opts.governor, task->kind);
    return (weir__need){bytes > 0 ? bytes : weir__governor_limit(pool->opts.governor), bytes > 0};
}

/* Estimates change a little with each task; that is no reason to ask again. */
static bool is_enough(uint64_t reserved, uint64_t need)
{
    return need <= reserved && reserved - reserved / 8 <= need;
}

bool weir__pool_may_have(const weir_pool *pool, const weir__desk *desk, const weir__need *need)
{
    if (!weir__pool_is_governed(pool))
        return true;
    /* Behind another one only if it is known: it may need less. */
    if (is_enough(desk->reserved, need->bytes))
        return desk->held == 0 || need->is_known;
    return desk->held == 0 && desk->reserved == 0 && is_enough(pool->memory.grant, need->bytes);
}

void weir__pool_use_grant(weir_pool *pool, weir__desk *desk)
{
    if (!weir__pool_is_governed(pool) || desk->held > 0 || desk->reserved > 0)
        return;
    desk->reserved = pool->memory.grant;
    pool->memory.grant = 0;
}

/* Under the mutex: the task that memory is wanted for; NULL: none, or no worker could take it. */
static weir__task *next_task(weir_pool *pool)
{
    if (!weir__pool_has_idle(pool))
        return NULL;
    weir__task *first = weir__tasks_first(&pool->tasks);
    return first ? first : weir__pool_find_waiting(pool);
}

/* Under the mutex: what is reserved and not used, up to AT_ONCE; what is enough becomes the grant. */
static unsigned take_surplus(weir_pool *pool, uint64_t need, uint64_t surplus[AT_ONCE])
{
    unsigned n = 0;
    if (pool->memory.grant == 0)
        pool->memory.grant = pool->memory.came;
    else if (pool->memory.came > 0)
        surplus[n++] = pool->memory.came;
    pool->memory.came = 0;
    if (pool->memory.grant > 0 && (need == 0 || !is_enough(pool->memory.grant, need))) {
        surplus[n++] = pool->memory.grant;
        pool->memory.grant = 0;
    }
    for (unsigned i = 0; i < pool->n_desks && n < AT_ONCE; i++) {
        weir__desk *desk = &pool->desks[i];
        if (desk->reserved == 0 || desk->held > 0)
            continue;
        if (pool->memory.grant == 0 && need > 0 && is_enough(desk->reserved, need))
            pool->memory.grant = desk->reserved; /* no need to ask */
        else
            surplus[n++] = desk->reserved;
        desk->reserved = 0;
    }
    return n;
}

/* Under the mutex. */
static bool is_too_early(weir_pool *pool, const weir__task *task)
{
    if (pool->opts.task_bytes > 0)
        return false;
    uint64_t running = 0;
    for (unsigned i = 0; i < pool->n_desks; i++)
        running += pool->desks[i].reserved > 0 && pool->desks[i].held > 0;
    return running > weir__governor_seen(pool->opts.governor, task->kind);
}

/* Called by the governor, in any thread. */
static void on_ready(weir_pending *pending, int result)
{
    weir_pool *pool = pending->ctx;
    weir__after after = {.kick = true};
    weir__lock(&pool->mutex);
    if (result == WEIR_OK) /* not yet the grant: a dead worker's may have become that meanwhile */
        pool->memory.came = pool->memory.asked;
    pool->memory.off |= result == WEIR_ECLOSED;
    pool->memory.asked = 0;
    /* destroy waits: this thread still has to do with the pool.  A count, for as soon as the mutex is
     * free the collector may ask again, and another thread tell it the next answer */
    atomic_fetch_add_explicit(&pool->memory.telling, 1, memory_order_relaxed);
    weir__unlock(&pool->mutex);
    weir__pool_do_after(pool, &after);
    /* release: the last touch, for the pool may be gone then; an unlock looks at the mutex once more */
    atomic_fetch_sub_explicit(&pool->memory.telling, 1, memory_order_release);
}

/* Asks for `need`, in line if it has to wait.  Collector only, without the mutex.  Whether it is
 * there. */
static bool ask(weir_pool *pool, uint64_t need)
{
    weir_governor *governor = pool->opts.governor;
    weir__lock(&pool->mutex);
    pool->memory.asked = need;
    weir__unlock(&pool->mutex);
    pool->memory.pending = (weir_pending){.ready = on_ready, .ctx = pool};
    int rc = pool->memory.polls
                 ? WEIR_EINVAL
                 : weir_governor_reserve_async(governor, need, &pool->memory.pending);
    if (rc == WEIR_WAITING)
        return false;
    pool->memory.polls |= rc == WEIR_EINVAL;    /* it is shared, and cannot call */
    if (rc == WEIR_EINVAL || rc == WEIR_ENOMEM) /* a try needs no memory for a place in line */
        rc = weir_governor_reserve(governor, need, WEIR_POLL);
    weir__lock(&pool->mutex);
    pool->memory.asked = 0;
    if (rc == WEIR_OK)
        pool->memory.grant = need;
    pool->memory.off |= rc == WEIR_ECLOSED;
    weir__unlock(&pool->mutex);
    return rc == WEIR_OK || rc == WEIR_ECLOSED;
}

bool weir__pool_mind_memory(weir_pool *pool, weir_time *wake_at)
{
    uint64_t surplus[AT_ONCE];
    weir_governor *governor = pool->opts.governor;
    if (!governor)
        return false;
    if (pool->memory.is_stale)
        weir__governor_measure(governor);
    pool->memory.is_stale = false;
    weir__lock(&pool->mutex);
    weir__task *task = pool->memory.off ? NULL : next_task(pool);
    uint64_t need = task ? weir__pool_need_of(pool, task).bytes : 0;
    uint64_t asked = pool->memory.asked, grant = pool->memory.grant;
    unsigned n = take_surplus(pool, need, surplus);
    bool found = grant != pool->memory.grant && pool->memory.grant > 0;
    bool has = pool->memory.grant > 0;
    bool early = need > 0 && asked == 0 && is_too_early(pool, task); /* until one ends */
    weir__unlock(&pool->mutex);
    for (unsigned i = 0; i < n; i++)
        weir_governor_release(governor, surplus[i]);
    if (n == AT_ONCE)
        *wake_at = WEIR_POLL; /* there may be more */
    if (asked > 0 && (has || !is_enough(asked, need)) &&
        weir_governor_cancel(governor, &pool->memory.pending)) {
        weir__lock(&pool->mutex);
        pool->memory.asked = asked = 0;
        weir__unlock(&pool->mutex);
    }
    if (need == 0 || has || early)
        return found;
    if (asked == 0 && ask(pool, need))
        return true;
    weir_governor_sample(governor);
    weir_time again = weir_after(LOOK_EVERY);
    *wake_at = again < *wake_at ? again : *wake_at;
    return false;
}

void weir__pool_return_memory(weir_pool *pool)
{
    weir_governor *governor = pool->opts.governor;
    if (!governor)
        return;
    weir__lock(&pool->mutex);
    bool waits = pool->memory.asked > 0;
    weir__unlock(&pool->mutex);
    if (waits && weir_governor_cancel(governor, &pool->memory.pending))
        pool->memory.asked = 0;
    for (bool busy = true; busy;) { /* it is being told just now */
        weir__lock(&pool->mutex);
        busy = pool->memory.asked > 0;
        weir__unlock(&pool->mutex);
        /* acquire: pairs with the releases in on_ready, all of them: who counts itself out continues the
         * release of who did before.  One that is counted in has cleared `asked` under the mutex */
        busy |= atomic_load_explicit(&pool->memory.telling, memory_order_acquire) > 0;
    }
    /* The last look of who collects had no task to keep it for. */
    assert(pool->memory.grant == 0);
    if (pool->memory.came > 0)
        weir_governor_release(governor, pool->memory.came);
    for (unsigned i = 0; i < pool->n_desks; i++)
        if (pool->desks[i].reserved > 0)
            weir_governor_release(governor, pool->desks[i].reserved);
}

void weir__pool_learn(weir_pool *pool, const weir__task *task, uint64_t peak_bytes)
{
    weir_governor *governor = pool->opts.governor;
    if (!governor || pool->opts.task_bytes > 0)
        return;
    if (peak_bytes > 0)
        weir_governor_observe(governor, task->kind, peak_bytes);
    else if (weir_governor_estimate(governor, task->kind) == 0)
        weir_governor_observe(governor, task->kind, SHORT_TAKES);
}
