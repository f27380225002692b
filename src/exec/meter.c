/* meter.c - where the time of a thread goes: see pipeline_impl.h.
 *
 * The clock is read when a wait begins and when it ends; who does not wait pays nothing.
 */
#include "exec/pipeline_impl.h"

/* release: who sees the new value sees that `version` is odd, or changed */
#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_release)
#define GET(field)        atomic_load_explicit(&((weir__meter *)meter)->field, memory_order_acquire)

static void begin_change(weir__meter *meter)
{
    uint32_t version = atomic_load_explicit(&meter->version, memory_order_relaxed);
    /* relaxed: the stores that follow release it */
    atomic_store_explicit(&meter->version, version + 1, memory_order_relaxed);
}

static void end_change(weir__meter *meter)
{
    uint32_t version = atomic_load_explicit(&meter->version, memory_order_relaxed);
    SET(meter->version, version + 1);
}

static void grow(counter *c, uint64_t n)
{
    SET(*c, weir__read(c) + n);
}

/* What it did until now goes where it belongs. */
static void settle(weir__meter *meter, weir_time now)
{
    weir_time since = atomic_load_explicit(&meter->since, memory_order_relaxed);
    uint32_t where = atomic_load_explicit(&meter->where, memory_order_relaxed);
    uint64_t spent = now > since ? (uint64_t)(now - since) : 0;
    switch ((weir__doing)atomic_load_explicit(&meter->doing, memory_order_relaxed)) {
    case WEIR__BUSY: grow(&meter->busy_ns, spent); break;
    case WEIR__IDLE: grow(&meter->idle_ns, spent); break;
    case WEIR__BLOCKED: grow(&meter->tallies[where].blocked_ns, spent); break;
    case WEIR__HELD: grow(&meter->held_ns[where], spent); break;
    case WEIR__ABSENT: break;
    }
}

static void change(weir__meter *meter, weir__doing doing, unsigned where, weir_time now)
{
    begin_change(meter);
    settle(meter, now);
    SET(meter->doing, doing);
    SET(meter->where, where);
    SET(meter->since, now);
    end_change(meter);
}

void weir__meter_come(weir__meter *meter)
{
    change(meter, WEIR__BUSY, 0, weir_now());
}

void weir__meter_leave(weir__meter *meter)
{
    change(meter, WEIR__ABSENT, 0, weir_now());
}

weir__wait weir__wait_begin(weir_pipeline *pipeline, weir__meter *meter, weir__doing doing,
                            unsigned where)
{
    weir__wait wait = {doing, where, weir_now()};
    if (!meter->shared)
        change(meter, doing, where, wait.since);
    if (pipeline->opts.before_wait)
        pipeline->opts.before_wait(pipeline->opts.ctx);
    return wait;
}

uint64_t weir__wait_end(weir_pipeline *pipeline, weir__meter *meter, weir__wait wait)
{
    if (pipeline->opts.after_wait)
        pipeline->opts.after_wait(pipeline->opts.ctx);
    weir_time now = weir_now();
    uint64_t spent = (uint64_t)(now - wait.since);
    if (!meter->shared) {
        change(meter, WEIR__BUSY, 0, now);
        meter->waited_ns += spent;
    } else if (wait.doing == WEIR__BLOCKED) {
        weir__add(&meter->tallies[wait.where].blocked_ns, spent, true);
    }
    return spent;
}

/* What the worker is doing now is counted up to now. */
void weir__meter_read(const weir__meter *meter, weir_time now, weir__times *ret_times)
{
    uint32_t version;
    weir__times times;
    do {
        version = GET(version);
        times.busy_ns = GET(busy_ns);
        times.idle_ns = GET(idle_ns);
        for (int i = 0; i < WEIR_CAUSES; i++)
            times.held_ns[i] = GET(held_ns[i]);
        times.doing = GET(doing);
        times.where = GET(where);
        weir_time since = GET(since);
        times.in_progress_ns = now > since ? (uint64_t)(now - since) : 0;
        /* the loads above acquire, so this one comes after them */
    } while (version % 2 || version != atomic_load_explicit(&((weir__meter *)meter)->version,
                                                            memory_order_relaxed));
    if (times.doing == WEIR__BUSY)
        times.busy_ns += times.in_progress_ns;
    else if (times.doing == WEIR__IDLE)
        times.idle_ns += times.in_progress_ns;
    else if (times.doing == WEIR__HELD)
        times.held_ns[times.where] += times.in_progress_ns;
    *ret_times = times;
}
