/* thread_pool.c - weir_thread_pool for the driver.  A task is a number: it runs until it is told to end,
 * or, with the option quick, not at all long. */
#include "driver.h"

#include <stdio.h>
#include <time.h>

enum { TASKS_MAX = 4096 };

static weir_thread_pool *pool;
static atomic_bool ended[TASKS_MAX];
static atomic_uint_fast64_t inside, peak; /* counted here, beside the pool */

static void run(void *arg)
{
    uintptr_t task = (uintptr_t)arg;
    uint64_t now = atomic_fetch_add(&inside, 1) + 1, most = atomic_load(&peak);
    while (now > most && !atomic_compare_exchange_weak(&peak, &most, now))
        ;
    say("started %zu", (size_t)task);
    while (!option("quick", 0) && !atomic_load(&ended[task]))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    atomic_fetch_sub(&inside, 1);
    say("ended %zu", (size_t)task);
}

static void tell_drop(weir_task_fn *fn, void *arg, weir_drop_reason reason, void *ctx)
{
    (void)fn;
    (void)ctx;
    say("drop %zu %s", (size_t)arg, weir_drop_reason_name(reason));
}

static int create(void)
{
    weir_thread_pool_opts opts = WEIR_THREAD_POOL_OPTS_INIT;
    opts.threads = (unsigned)option("threads", 0);
    opts.backlog = option("backlog", 0);
    opts.overflow = option_overflow();
    opts.on_drop = tell_drop;
    opts.name = option_text("name");
    return weir_thread_pool_create(&pool, &opts);
}

static void close_pool(void)
{
    for (int i = 0; i < TASKS_MAX; i++)
        atomic_store(&ended[i], true);
    weir_thread_pool_close(pool);
}

static void destroy(void)
{
    weir_thread_pool_destroy(pool);
}

/* ---- verbs ---------------------------------------------------------------------------------------- */

static void submit(request *call)
{
    void *task = (void *)(uintptr_t)(argument(call, 0) % TASKS_MAX);
    int result = weir_thread_pool_submit(pool, run, task, deadline_argument(call, 1));
    answer(call, result, "%d", result);
}

static void end(request *call)
{
    atomic_store(&ended[argument(call, 0) % TASKS_MAX], true);
    answer(call, WEIR_OK, "%s", "");
}

static void close_verb(request *call)
{
    weir_thread_pool_close(pool);
    answer(call, WEIR_OK, "%s", "");
}

static void drain(request *call)
{
    answer(call, weir_thread_pool_drain(pool, deadline_argument(call, 0)), "%s", "");
}

static void discard(request *call)
{
    answer(call, WEIR_OK, "%zu", weir_thread_pool_discard(pool));
}

static void look(request *call)
{
    typedef unsigned long long number;
    weir_thread_pool_snapshot now = WEIR_THREAD_POOL_SNAPSHOT_INIT;
    int result = weir_thread_pool_get_snapshot(pool, &now);
    char drops[256] = "";
    size_t at = 0;
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        at += (size_t)snprintf(drops + at, sizeof drops - at, " dropped.%s=%llu",
                               weir_drop_reason_name(i), (number)now.dropped[i]);
    answer(call, result,
           "workers=%u waiting=%zu running=%zu accepted=%llu finished=%llu refused=%llu peak=%llu "
           "is_shutdown=%d%s",
           now.threads, now.waiting, now.running, (number)now.accepted, (number)now.finished,
           (number)now.refused, (number)atomic_load(&peak), now.closed, drops);
}

static const verb verbs[] = {
    {"submit", 2, submit},    {"end", 1, end},         {"drain", 1, drain}, {"look", 0, look},
    {"close", 0, close_verb}, {"discard", 0, discard}, {NULL, 0, NULL},
};

const subject thread_pool_subject = {"thread_pool", create, close_pool, destroy, verbs};
