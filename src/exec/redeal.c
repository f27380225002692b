/* redeal.c - work that waits in one place while a worker idles in another: tasks behind a long one go
 * back in line, and so does half of what a long batch has not begun.  See pool_impl.h.
 */
#include "exec/pool_impl.h"

#define STEAL_AFTER (1 * WEIR_MILLISECOND) /* a worker busy for longer may lose its waiting tasks */
#define CUT_WORTH   (200 * WEIR_MICROSECOND) /* of items that wait: a wake-up takes half of it */

/* How many of its tasks a worker has not claimed. */
static unsigned unclaimed(const weir__desk *desk)
{
    unsigned n = 0;
    for (uint64_t at = desk->scanned; at < desk->dealt; at++)
        n += desk->tasks[at % WEIR__SLOTS] != WEIR__NO_TASK &&
             atomic_load_explicit(&weir__slot_at(desk, at)->state, memory_order_relaxed) ==
                 SLOT_READY; /* a hint: revoke decides */
    return n;
}

/* Under the mutex: takes half of a worker's unclaimed tasks back, the newest first. */
static void take_half(weir_pool *pool, weir__desk *victim, unsigned n_unclaimed)
{
    unsigned n = (n_unclaimed + 1) / 2;
    /* With nothing claimed it is not even awake; it gets no more until it is. */
    victim->stalled = n_unclaimed == victim->held;
    for (uint64_t at = victim->dealt; at-- > victim->scanned && n > 0;) {
        uint32_t index = victim->tasks[at % WEIR__SLOTS];
        if (index == WEIR__NO_TASK)
            continue;
        weir__task *task = weir__tasks_at(&pool->tasks, index);
        if (!weir__pool_revoke(pool, task))
            return; /* claimed, and so are those before it */
        weir__tasks_put_back(&pool->tasks, task);
        n--;
    }
}

/* The batch that a worker runs, which is the first of its unsettled tasks; NULL: it runs none. */
weir__task *weir__pool_running_batch(const weir_pool *pool, const weir__desk *desk)
{
    for (uint64_t at = desk->scanned; at < desk->dealt; at++) {
        uint32_t index = desk->tasks[at % WEIR__SLOTS];
        uint32_t state = atomic_load_explicit(&weir__slot_at(desk, at)->state,
                                              memory_order_relaxed); /* a hint: cut decides */
        if (index == WEIR__NO_TASK || state != SLOT_RUNNING)
            continue;
        weir__task *task = weir__tasks_at(&pool->tasks, index);
        return task->batch ? task : NULL;
    }
    return NULL;
}

weir__task *weir__pool_find_waiting(const weir_pool *pool)
{
    for (unsigned i = 0; i < pool->n_desks; i++) {
        const weir__desk *desk = &pool->desks[i];
        weir__task *batch =
            desk->live && !desk->ended ? weir__pool_running_batch(pool, desk) : NULL;
        if (batch && weir__batch_remaining(weir__slot_at(desk, batch->position)) > 0)
            return batch;
        if (!desk->live || desk->ended || unclaimed(desk) == 0)
            continue;
        for (uint64_t at = desk->dealt; at-- > desk->scanned;)
            if (desk->tasks[at % WEIR__SLOTS] != WEIR__NO_TASK)
                return weir__tasks_at(&pool->tasks, desk->tasks[at % WEIR__SLOTS]);
    }
    return NULL;
}

/* Whether the items that a worker has not begun will keep it for long enough to share them. */
static bool is_worth_a_cut(const weir__desk *desk, const weir__task *task, uint32_t remaining,
                           weir_time now)
{
    if (remaining == 0 || remaining > task->limit - task->first)
        return false; /* none, or the worker has written nonsense */
    int64_t begun = task->limit - task->first - remaining;
    int64_t per_item = (now - desk->progressed) / (begun + 1);
    return per_item >= (CUT_WORTH + remaining - 1) / remaining;
}

/* Under the mutex: when a worker idles and there is no whole task for it: makes a part of what the
 * longest batch has not begun, and puts it in line.  It needs a permit; where there is none, a task
 * is on its way. */
static bool share_batch(weir_pool *pool, weir_time *wake_at)
{
    weir__desk *victim = NULL;
    weir__task *longest = NULL;
    uint32_t most = 0;
    weir_time now = weir_now();
    if (pool->permits >= pool->limit || pool->submitters.head || pool->killed)
        return false;
    for (unsigned i = 0; i < pool->n_desks; i++) {
        weir__desk *desk = &pool->desks[i];
        weir__task *task = desk->live && !desk->ended ? weir__pool_running_batch(pool, desk) : NULL;
        uint32_t n = task ? weir__batch_remaining(weir__slot_at(desk, task->position)) : 0;
        if (n > 0 && *wake_at > now + STEAL_AFTER)
            *wake_at = now + STEAL_AFTER; /* nothing else may happen until then */
        if (n > most && is_worth_a_cut(desk, task, n, now)) {
            most = n;
            victim = desk;
            longest = task;
        }
    }
    if (!victim)
        return false;
    if (now < victim->progressed + STEAL_AFTER || now < victim->cut + STEAL_AFTER)
        return false;
    weir__task *part = weir__tasks_new(&pool->tasks);
    if (!part)
        return false; /* no memory: it stays where it is */
    uint32_t n = weir__batch_cut(weir__slot_at(victim, longest->position), longest, most / 2);
    if (n == 0) {
        weir__tasks_retire(&pool->tasks, part);
        weir__tasks_free(&pool->tasks, part);
        return false;
    }
    weir__batch_join(part, longest, longest->limit, longest->limit + n);
    weir__tasks_put_back(&pool->tasks, part);
    pool->permits++;
    pool->accepted++;
    victim->cut = now;
    return true;
}

/* Under the mutex: when a worker idles, nothing is in line, and somebody's tasks wait behind a long
 * one, or with a worker that does not run: takes some of those back for the line. */
bool weir__pool_redeal(weir_pool *pool, weir_time *wake_at)
{
    bool idle = weir__pool_has_idle(pool) && (!weir__pool_is_governed(pool) ||
                                              pool->memory.grant > 0); /* else it cannot run it */
    unsigned most = 0;
    weir__desk *victim = NULL;
    for (unsigned i = 0; idle && i < pool->n_desks; i++) {
        weir__desk *desk = &pool->desks[i];
        unsigned n = desk->live && !desk->ended ? unclaimed(desk) : 0;
        if (n > most) {
            most = n;
            victim = desk;
        }
    }
    if (!victim)
        return idle && share_batch(pool, wake_at);
    weir_time due = victim->progressed + STEAL_AFTER;
    if (weir_now() < due) {
        if (due < *wake_at)
            *wake_at = due;
        return false;
    }
    take_half(pool, victim, most);
    victim->progressed = weir_now();
    /* Nothing: it has claimed them meanwhile, and nobody would look again at what is a batch now. */
    return weir__tasks_first(&pool->tasks) || share_batch(pool, wake_at);
}
