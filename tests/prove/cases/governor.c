/* governor.c - flow/governor: memory that is reserved, measured and refused. */
#include "../prove.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "flow/governor.h"

#include "base/alloc.h"
#include "base/memory.h"

#define MIB (UINT64_C(1) << 20)

/* ---- a kernel --------------------------------------------------------------------------------- */

static char folder[64], meminfo[96];

static void remove_folder(void)
{
    unlink(meminfo);
    rmdir(folder);
}

/* How much of 1000 MiB is in use, from now on. */
static void use(unsigned mib)
{
    char text[128];
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/tmp/weir-prove-XXXXXX");
        prove_claim(mkdtemp(folder) != NULL);
        snprintf(meminfo, sizeof meminfo, "%s/meminfo", folder);
        atexit(remove_folder);
    }
    int n = snprintf(text, sizeof text, "MemTotal: %9u kB\nMemAvailable: %9u kB\n", 1000u << 10,
                     (1000 - mib) << 10);
    int fd = open(meminfo, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    prove_claim(fd >= 0 && pwrite(fd, text, (size_t)n, 0) == n);
    close(fd);
}

/* ---- a governor -------------------------------------------------------------------------------- */

static weir_governor *governor;
static bool is_telling;
static unsigned calls;
static weir_memory_step told;
static int inside; /* of those of whom only one fits */

static void on_change(weir_memory_step step, void *ctx)
{
    (void)ctx;
    prove_claim(!is_telling && step != told);
    is_telling = true;
    prove_yield();
    told = step;
    calls++;
    is_telling = false;
}

/* 800 MiB may be used, and 100 are: 700 can be reserved. */
static void make(void)
{
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    static const weir__memory_roots roots = {folder, "/nowhere"};
    opts.limit_fraction = 0.8;
    opts.on_change = on_change;
    told = WEIR_MEMORY_NORMAL;
    is_telling = false;
    calls = 0;
    inside = 0;
    use(100);
    prove_claim(weir__governor_create_at(&governor, &opts, &roots) == WEIR_OK);
}

static weir_governor_snapshot look(void)
{
    weir_governor_snapshot s = WEIR_GOVERNOR_SNAPSHOT_INIT;
    prove_claim(weir_governor_get_snapshot(governor, &s) == WEIR_OK);
    prove_same(s.admitted, s.released + s.inside);
    return s;
}

static void end(void)
{
    weir_governor_snapshot s = look();
    prove_claim(s.reserved == 0 && s.inside == 0 && s.waiting == 0);
    prove_same(told, s.step);
    weir_governor_destroy(governor);
}

static void join_all(const int *threads, int n)
{
    for (int i = 0; i < n; i++)
        prove_join(threads[i]);
}

/* ---- reserving ---------------------------------------------------------------------------------- */

static void reserve(void *arg)
{
    (void)arg;
    int rc = weir_governor_reserve(governor, 400 * MIB, WEIR_FOREVER);
    prove_claim(rc == WEIR_OK);
    inside++;
    weir_governor_release(governor, 400 * MIB);
}

static void reserve_in_time(void *arg)
{
    (void)arg;
    int rc = weir_governor_reserve(governor, 400 * MIB, weir_after(WEIR_MILLISECOND));
    prove_claim(rc == WEIR_OK || rc == WEIR_ETIMEDOUT);
    if (rc != WEIR_OK)
        return;
    inside++;
    weir_governor_release(governor, 400 * MIB);
}

static void governor_bound(void)
{
    prove_keep_records(true);
    make();
    int t[] = {prove_spawn(reserve, NULL), prove_spawn(reserve_in_time, NULL)};
    reserve(NULL);
    join_all(t, 2);
    weir_governor_snapshot s = look();
    prove_same(s.admitted, inside);
    prove_same(s.refused, 3 - inside);
    prove_same(s.peak_reserved, 400 * MIB);
    end();
}

PROVE_CASE(governor_bound, "never more is reserved than there is, and all come in at last");

static void reserve_all(void *arg)
{
    (void)arg;
    prove_claim(weir_governor_reserve(governor, 5000 * MIB, WEIR_FOREVER) == WEIR_OK);
    inside++;
    weir_governor_release(governor, 5000 * MIB);
}

static void governor_lets_one_in(void)
{
    make();
    int t = prove_spawn(reserve_all, NULL);
    reserve(NULL);
    prove_join(t);
    prove_same(inside, 2);
    end();
}

PROVE_CASE(governor_lets_one_in, "what is more than all memory is let in alone");

/* ---- shedding ----------------------------------------------------------------------------------- */

static void reserve_or_be_shed(void *arg)
{
    (void)arg;
    int rc = weir_governor_reserve(governor, 400 * MIB, WEIR_FOREVER);
    prove_claim(rc == WEIR_OK || rc == WEIR_ESHED);
    if (rc != WEIR_OK)
        return;
    inside++;
    weir_governor_release(governor, 400 * MIB);
}

static void measure(void *arg)
{
    nanosleep(&(struct timespec){.tv_nsec = 2 * WEIR_MILLISECOND}, NULL);
    use((unsigned)(uintptr_t)arg);
    weir__governor_measure(governor);
}

typedef struct guest {
    weir_pending pending; /* first */
    uint64_t bytes;
    unsigned told;
    int result;
    bool left;
} guest;

static void ready(weir_pending *pending, int result)
{
    guest *g = (guest *)pending;
    g->told++;
    g->result = result;
    if (result == WEIR_OK)
        weir_governor_release(governor, g->bytes);
}

static guest *make_guest(uint64_t bytes)
{
    guest *g = weir__calloc(1, sizeof *g);
    g->pending.ready = ready;
    g->bytes = bytes;
    return g;
}

/* Told once, of what can be; or it has left. */
static void end_guest(guest *g, int other)
{
    prove_same(g->told, !g->left);
    prove_claim(g->left || g->result == WEIR_OK || g->result == other);
    weir__free(g);
}

/* Memory is short for good, so nobody who waits may wait on. */
static void governor_sheds(void)
{
    prove_keep_records(true);
    make();
    guest *g = make_guest(400 * MIB);
    prove_claim(weir_governor_reserve(governor, 400 * MIB, WEIR_POLL) == WEIR_OK);
    prove_same(weir_governor_reserve_async(governor, 400 * MIB, &g->pending), WEIR_WAITING);
    int t[] = {prove_spawn(reserve_or_be_shed, NULL), prove_spawn(measure, (void *)970)};
    join_all(t, 2);
    prove_claim(g->told == 1 && g->result == WEIR_ESHED && inside == 0);
    prove_same(look().shed, 2);
    prove_same(weir_governor_sample(governor), WEIR_MEMORY_SHED);
    weir_governor_release(governor, 400 * MIB);
    end_guest(g, WEIR_ESHED);
    end();
}

PROVE_CASE(governor_sheds, "where memory is short, all who wait are sent away");

static void cancel(void *arg)
{
    guest *g = arg;
    g->left = weir_governor_cancel(governor, &g->pending);
}

static void governor_cancels(void)
{
    make();
    guest *stays = make_guest(400 * MIB), *leaves = make_guest(400 * MIB);
    prove_claim(weir_governor_reserve(governor, 400 * MIB, WEIR_POLL) == WEIR_OK);
    prove_same(weir_governor_reserve_async(governor, 400 * MIB, &leaves->pending), WEIR_WAITING);
    prove_same(weir_governor_reserve_async(governor, 400 * MIB, &stays->pending), WEIR_WAITING);
    int t[] = {prove_spawn(cancel, leaves), prove_spawn(measure, (void *)970)};
    weir_governor_release(governor, 400 * MIB);
    join_all(t, 2);
    end_guest(stays, WEIR_ESHED);
    end_guest(leaves, WEIR_ESHED);
    end();
}

PROVE_CASE(governor_cancels, "cancelled, shed or let in: one of them, and nothing is left of it");

static void measure_in_ready(weir_pending *pending, int result)
{
    weir__governor_measure(governor);
    ready(pending, result);
}

/* Both are let in at once, and memory is short by the time the first one hears of it. */
static void governor_measured_in_ready(void)
{
    make();
    guest *first = make_guest(300 * MIB), *second = make_guest(300 * MIB);
    first->pending.ready = second->pending.ready = measure_in_ready;
    prove_claim(weir_governor_reserve(governor, 5000 * MIB, WEIR_POLL) == WEIR_OK);
    prove_same(weir_governor_reserve_async(governor, 300 * MIB, &first->pending), WEIR_WAITING);
    prove_same(weir_governor_reserve_async(governor, 300 * MIB, &second->pending), WEIR_WAITING);
    nanosleep(&(struct timespec){.tv_nsec = 2 * WEIR_MILLISECOND}, NULL);
    use(970);
    weir_governor_release(governor, 5000 * MIB);
    prove_claim(first->told == 1 && first->result == WEIR_OK);
    prove_claim(second->told == 1 && second->result == WEIR_OK);
    end_guest(first, WEIR_OK);
    end_guest(second, WEIR_OK);
    end();
}

PROVE_CASE(governor_measured_in_ready,
           "who is told that he is in may measure, while others are to be told");

static void close_it(void *arg)
{
    (void)arg;
    weir_governor_close(governor);
}

static void reserve_until_closed(void *arg)
{
    (void)arg;
    int rc = weir_governor_reserve(governor, 400 * MIB, WEIR_FOREVER);
    prove_claim(rc == WEIR_OK || rc == WEIR_ECLOSED);
    if (rc == WEIR_OK)
        weir_governor_release(governor, 400 * MIB);
}

static void governor_closes(void)
{
    make();
    guest *g = make_guest(400 * MIB);
    prove_claim(weir_governor_reserve(governor, 400 * MIB, WEIR_POLL) == WEIR_OK);
    prove_same(weir_governor_reserve_async(governor, 400 * MIB, &g->pending), WEIR_WAITING);
    int t[] = {prove_spawn(close_it, NULL), prove_spawn(reserve_until_closed, NULL)};
    weir_governor_release(governor, 400 * MIB);
    join_all(t, 2);
    prove_same(weir_governor_reserve(governor, 1, WEIR_FOREVER), WEIR_ECLOSED);
    end_guest(g, WEIR_ECLOSED);
    end();
}

PROVE_CASE(governor_closes, "closed, all who wait are told so");

/* ---- measuring ---------------------------------------------------------------------------------- */

static void governor_tells(void)
{
    make();
    int t[] = {prove_spawn(measure, (void *)970), prove_spawn(measure, (void *)100)};
    measure((void *)920);
    join_all(t, 2);
    nanosleep(&(struct timespec){.tv_nsec = 2 * WEIR_MILLISECOND}, NULL);
    weir__governor_measure(governor);
    weir_governor_snapshot s = look();
    prove_claim(s.measured >= 2 && calls <= s.measured);
    prove_same(weir__governor_limit(governor), s.limit);
    end();
}

PROVE_CASE(governor_tells, "each step is told once, one at a time, and the last one holds");

/* There was none to be had; then somebody gives his back, and it is known that there is some. */
static void governor_recovers(void)
{
    make();
    use(920); /* PAUSE: but one */
    nanosleep(&(struct timespec){.tv_nsec = 2 * WEIR_MILLISECOND}, NULL);
    weir__governor_measure(governor);
    prove_claim(weir_governor_reserve(governor, 100 * MIB, WEIR_POLL) == WEIR_OK);
    int t = prove_spawn(reserve, NULL);
    use(100);
    weir_governor_release(governor, 100 * MIB);
    prove_join(t);
    weir__governor_measure(governor);
    nanosleep(&(struct timespec){.tv_nsec = 2 * WEIR_MILLISECOND}, NULL);
    weir__governor_measure(governor);
    prove_same(inside, 1);
    end();
}

PROVE_CASE(governor_recovers, "when there is memory again, those go on who wait for it");

static void observe(void *arg)
{
    weir_governor_observe(governor, 1, 10 * MIB);
    prove_claim(weir_governor_estimate(governor, 1) >= 10 * MIB);
    (void)arg;
}

static void governor_learns(void)
{
    make();
    int t = prove_spawn(observe, NULL);
    observe(NULL);
    prove_join(t);
    prove_same(weir__governor_seen(governor, 1), 2);
    prove_same(weir__governor_seen(governor, 2), 0);
    end();
}

PROVE_CASE(governor_learns, "what two tasks took is known of both");

static void governor_has_no_memory(void)
{
    make();
    guest *g = make_guest(400 * MIB);
    prove_claim(weir_governor_reserve(governor, 400 * MIB, WEIR_POLL) == WEIR_OK);
    prove_allocations_may_fail(true);
    int rc = weir_governor_reserve_async(governor, 400 * MIB, &g->pending);
    prove_allocations_may_fail(false);
    prove_claim(rc == WEIR_WAITING || rc == WEIR_ENOMEM);
    g->left = rc == WEIR_ENOMEM;
    weir_governor_release(governor, 400 * MIB);
    end_guest(g, WEIR_OK);
    end();
}

PROVE_CASE(governor_has_no_memory, "without memory to wait in line nobody does");
