/* pool.c - the parent of a process pool whose workers write anything into what they share with it: slots,
 * seats, returned payloads.  The workers are processes that only sleep; what they are said to have written the
 * harness writes.
 *
 * The input is a list of steps.  Whatever they write, the parent's calls end, what a completion holds can be
 * read, the law holds at each step, and every tag comes back exactly once. */
#include "fuzz.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exec/pool_impl.h"

#define WORKERS 2u
#define TASKS   24u

static uint8_t back[TASKS]; /* how often each tag came back */

/* ---- workers -------------------------------------------------------------------------------- */

/* They stay from input to input: only who was killed is replaced. */
static pid_t sleepers[WORKERS];

static int start_sleeper(void *ctx, unsigned seat, pid_t *ret_pid)
{
    (void)ctx;
    if (sleepers[seat] == 0) {
        char sleep[] = "sleep", for_ever[] = "infinity", *argv[] = {sleep, for_ever, NULL};
        must(posix_spawnp(&sleepers[seat], "sleep", NULL, NULL, argv, environ) == 0);
    }
    *ret_pid = sleepers[seat];
    return 0;
}

static void reap_sleeper(void *ctx, unsigned seat, weir_exit *ret_exit)
{
    int status;
    (void)ctx;
    must(waitpid(sleepers[seat], &status, 0) == sleepers[seat]);
    sleepers[seat] = 0;
    ret_exit->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    ret_exit->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void end_sleepers(void)
{
    for (unsigned i = 0; i < WORKERS; i++)
        if (sleepers[i]) {
            kill(sleepers[i], SIGKILL);
            waitpid(sleepers[i], NULL, 0);
        }
}

/* ---- what they write ------------------------------------------------------------------------ */

static weir__seat *seat_of(fuzz *f, weir_pool *pool)
{
    weir__desk *desk = &pool->desks[fuzz_byte(f) % WORKERS];
    return desk->live ? desk->seat : NULL; /* else it may have no memory yet */
}

/* What a worker does that behaves: claims, replies, from the first slot on. */
static void work(fuzz *f, weir_pool *pool)
{
    weir__seat *seat = seat_of(f, pool);
    unsigned at = fuzz_byte(f) % 8;
    if (!seat)
        return;
    weir__slot *slot = &seat->slots[at];
    uint32_t state = atomic_load(&slot->state);
    atomic_store(&seat->state, SEAT_READY);
    if (state == SLOT_READY) {
        atomic_store(&slot->state, SLOT_RUNNING);
    } else if (state == SLOT_REVOKED) {
        atomic_store(&slot->state, SLOT_SKIPPED);
    } else if (state == SLOT_RUNNING) {
        uint64_t span = atomic_load(&slot->span);
        slot->out_kind = OUT_INLINE;
        slot->out_size = slot->is_batch ? 0 : 8;
        slot->kept = 0;
        if (slot->is_batch) { /* all its items, with empty replies */
            atomic_store(&slot->filled, (uint32_t)(span >> 32) - (uint32_t)span);
            atomic_store(&slot->span, weir__pair((uint32_t)(span >> 32), (uint32_t)(span >> 32)));
        }
        atomic_store(&slot->state, SLOT_DONE);
    }
}

static void scribble_slot(fuzz *f, weir_pool *pool)
{
    weir__seat *seat = seat_of(f, pool);
    if (!seat)
        return;
    weir__slot *slot = &seat->slots[fuzz_byte(f) % 8];
    uint8_t field = fuzz_byte(f) % 12;
    uint64_t number = fuzz_any(f);
    switch (field) {
    case 0: atomic_store(&slot->state, (uint32_t)number % 8); break;
    case 1: slot->out_kind = (uint32_t)number % 8; break;
    case 2: slot->out_size = number; break;
    case 3: slot->out_offset = number; break;
    case 4: slot->kept = (uint32_t)number; break;
    case 5: slot->status = (int32_t)number; break;
    case 6: slot->service_ns = (int64_t)number; break;
    case 7: atomic_store(&slot->span, number); break;
    case 8: atomic_store(&slot->filled, number); break;
    case 9: slot->is_batch = (uint32_t)number; break;
    case 10: slot->peak_bytes = number; break;
    default: slot->in_offset = number; break;
    }
}

static void scribble_seat(fuzz *f, weir_pool *pool)
{
    weir__seat *seat = seat_of(f, pool);
    if (!seat)
        return;
    uint8_t field = fuzz_byte(f) % 12;
    uint64_t number = fuzz_any(f);
    switch (field) {
    case 0: atomic_store(&seat->state, (uint32_t)number % 5); break;
    case 1: atomic_store(&seat->want, number); break;
    case 2: atomic_store(&seat->returned, number); break;
    case 3: seat->returns[number % WEIR__RETURNS] = fuzz_any(f); break;
    case 4: seat->fail_size = (uint32_t)number; break;
    case 5: atomic_store(&seat->peak_rss, number); break;
    case 6: atomic_store(&seat->grant, (uint32_t)number % 4); break;
    case 7: seat->extent_offset = number; break;
    case 8: atomic_store(&seat->returns_taken, number); break;
    case 9: atomic_store(&seat->extent_tail, number); break;
    case 10: atomic_store(&seat->leave, (uint32_t)number); break;
    default: seat->grant_offset = number; break;
    }
}

static void scribble_header(fuzz *f, weir_pool *pool)
{
    weir__channel_header *header = pool->channel.header;
    uint8_t field = fuzz_byte(f) % 4;
    uint64_t number = fuzz_any(f);
    switch (field) {
    case 0: header->seats = (uint32_t)number; break;
    case 1: header->arena_offset = number; break;
    case 2: header->guards_payloads = (uint32_t)number; break;
    default: atomic_store(&header->collector_asleep, (uint32_t)number); break;
    }
}

/* ---- the parent ----------------------------------------------------------------------------- */

static void take_back(void *tag)
{
    size_t i = (size_t)((uint8_t *)tag - back);
    must(i < TASKS && back[i] == 0);
    back[i]++;
}

static void on_drop(void *tag, weir_drop_reason reason, void *ctx)
{
    (void)reason;
    (void)ctx;
    take_back(tag);
}

static void check_law(weir_pool *pool)
{
    weir_pool_snapshot now = WEIR_POOL_SNAPSHOT_INIT;
    uint64_t dropped = 0;
    must(weir_pool_get_snapshot(pool, &now) == WEIR_OK);
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        dropped += now.dropped[i];
    must(now.accepted == now.completed + now.cancelled + dropped + now.waiting + now.running);
}

static int64_t collect(weir_pool *pool, weir_time deadline)
{
    weir_completion completions[8];
    int64_t n = weir_pool_collect(pool, completions, 8, deadline);
    for (int64_t i = 0; i < n; i++) {
        fuzz_touch(completions[i].data, completions[i].data_size);
        if (completions[i].last)
            take_back(completions[i].tag);
        weir_pool_lease *lease;
        void *data;
        if (weir_pool_keep(pool, &completions[i], &lease, &data) == WEIR_OK)
            weir_pool_release(pool, lease);
    }
    return n;
}

static unsigned submit(fuzz *f, weir_pool *pool, unsigned n)
{
    static const unsigned char bytes[200000];
    static const size_t sizes[] = {0, 8, WEIR__IN_BYTES + 1, WEIR__LEASE_MIN, sizeof bytes};
    weir_bytes part = {bytes, sizes[fuzz_byte(f) % 5]};
    uint32_t items = fuzz_byte(f) % 4;
    uint64_t id;
    if (n == TASKS || weir_pool_admit(pool, WEIR_POLL) != WEIR_KEPT)
        return n;
    must(weir_pool_post_kind(pool, &part, 1, items, 0, &back[n], &id) == WEIR_OK);
    if (fuzz_byte(f) % 8 == 0 && weir_pool_cancel(pool, id) == WEIR_OK)
        take_back(&back[n]);
    return n + 1;
}

static unsigned step(fuzz *f, weir_pool *pool, unsigned n)
{
    switch (fuzz_byte(f) % 10) {
    case 0:
    case 1: n = submit(f, pool, n); break;
    case 2:
    case 3: work(f, pool); break;
    case 4:
    case 5:
    case 6: scribble_slot(f, pool); break;
    case 7: scribble_seat(f, pool); break;
    case 8: scribble_header(f, pool); break;
    default: collect(pool, WEIR_POLL); break;
    }
    check_law(pool);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    weir_pool *pool;
    unsigned n = 0;
    static bool is_set_up;
    if (!is_set_up)
        atexit(end_sleepers);
    is_set_up = true;
    memset(back, 0, sizeof back);
    opts.workers = WORKERS;
    opts.backlog = 8;
    opts.overflow = fuzz_byte(&f) & 1 ? WEIR_OVERFLOW_FAIL : WEIR_OVERFLOW_DROP_OLDEST;
    opts.retries = fuzz_byte(&f) % 2;
    opts.on_drop = on_drop;
    opts.start = start_sleeper;
    opts.reap = reap_sleeper;
    opts.name = "";
    must(weir_pool_create(&pool, &opts) == WEIR_OK);
    must(weir_pool_start_workers(pool, WORKERS) == WORKERS);
    for (unsigned steps = fuzz_byte(&f) % 96; steps > 0; steps--)
        n = step(&f, pool, n);
    weir_pool_kill(pool);
    while (collect(pool, weir_after(20 * WEIR_SECOND)) != WEIR_ECLOSED)
        check_law(pool);
    weir_pool_destroy(pool);
    for (unsigned i = 0; i < n; i++)
        must(back[i] == 1);
    return 0;
}
