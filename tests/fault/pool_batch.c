/* Batches when memory fails, and when a worker writes nonsense: every item of every batch that was
 * taken has exactly one outcome, and the pool goes on. */
#include "faults.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/pool.h>

#include "exec/channel.h"

#define ITEMS 200u

enum {
    SANE,
    KILL,
    SPAN,
    SPAN_ONE_MORE,
    SPAN_LIMIT,
    FILLED,
    FILLED_BYTES,
    EXTENT_OFFSET,
    DONE_EARLY,
    GARBAGE,
    MADNESSES
};

typedef struct order {
    uint32_t madness, mad_item;
    uint64_t seed;
    char filler[1000]; /* too large for a slot */
} order;

static struct board {
    _Atomic uint32_t runs[ITEMS], madnesses;
} *board;

static weir_worker_ticket seat_0;

/* ---- workers -------------------------------------------------------------------------------- */

static void go_mad(const weir_task *task, const order *what)
{
    weir__channel channel;
    weir__slot *slot = NULL;
    must(weir__channel_open(&channel, seat_0.memory_fd) == 0);
    for (unsigned s = 0; s < channel.header->seats; s++)
        for (unsigned i = 0; channel.seats[s].extent_offset && i < WEIR__SLOTS; i++)
            if (channel.seats[s].slots[i].state == SLOT_RUNNING &&
                channel.seats[s].slots[i].id == task->id)
                slot = &channel.seats[s].slots[i];
    must(slot);
    uint64_t seed = what->seed;
    switch (what->madness) {
    case SPAN: slot->span = weir__pair(0, (uint32_t)(slot->span >> 32)); break;
    case SPAN_ONE_MORE: slot->span = weir__pair(0, ITEMS + 1); break;
    case SPAN_LIMIT: slot->span = weir__pair((uint32_t)slot->span, UINT32_MAX); break;
    case FILLED: slot->filled = weir__pair(ITEMS + 1, 10); break;
    case FILLED_BYTES: slot->filled = weir__pair((uint32_t)slot->filled, UINT32_MAX); break;
    case EXTENT_OFFSET: slot->out_offset = UINT64_MAX - 5; break;
    case DONE_EARLY: slot->state = SLOT_DONE; break;
    case GARBAGE:
        slot->span = seed * UINT64_C(6364136223846793005);
        slot->filled = seed * UINT64_C(1442695040888963407);
        slot->out_offset = seed << 7;
        slot->out_size = seed >> 3;
        slot->out_kind = (uint32_t)seed % 7;
        break;
    }
    munmap(channel.header, channel.mapped);
}

static void serve(weir_worker *worker, const weir_task *task, void *ctx)
{
    (void)ctx;
    order what;
    uint32_t item;
    must(task->is_batch && task->size == sizeof what);
    memcpy(&what, task->data, sizeof what);
    while (weir_worker_next_item(worker, &item) == 0) {
        must(item < ITEMS || what.madness != SANE);
        if (item < ITEMS)
            board->runs[item]++;
        if (item == what.mad_item && what.madness != SANE && board->madnesses++ == 0) {
            if (what.madness != KILL) {
                go_mad(task, &what);
                nanosleep(&(struct timespec){.tv_nsec = 4000000}, NULL); /* they look at it */
            }
            raise(SIGKILL);
        }
        weir_bytes part = {&item, sizeof item};
        must(weir_worker_reply_item(worker, &part, 1) == 0);
    }
    must(weir_worker_end_batch(worker) == 0);
}

/* ---- a pool --------------------------------------------------------------------------------- */

static uint32_t outcomes[ITEMS], deaths, lasts;

static void note_drop(void *tag, weir_drop_reason reason, void *ctx)
{
    (void)tag, (void)reason, (void)ctx;
    must(!"nothing is dropped here");
}

static weir_pool *make(unsigned workers)
{
    weir_pool *pool = NULL;
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    opts.workers = workers;
    opts.backlog = 8;
    opts.on_drop = note_drop;
    opts.handler = serve;
    memset(board, 0, sizeof *board);
    memset(outcomes, 0, sizeof outcomes);
    deaths = lasts = 0;
    assert_int_equal(weir_pool_create(&pool, &opts), WEIR_OK);
    weir_pool_get_ticket(pool, 0, &seat_0);
    return pool;
}

static int post(weir_pool *pool, order what)
{
    int rc = weir_pool_admit(pool, WEIR_POLL);
    if (rc != WEIR_KEPT)
        return rc;
    rc = weir_pool_post_batch(pool, &(weir_bytes){&what, sizeof what}, 1, ITEMS, NULL, NULL);
    if (rc < 0)
        weir_pool_unadmit(pool);
    return rc;
}

static void take_in(const weir_completion *done)
{
    const uint32_t *items = done->data;
    if (done->outcome == WEIR_OUTCOME_REPLIED || done->outcome == WEIR_OUTCOME_DIED)
        must(done->data_size == done->items * sizeof *items);
    for (uint32_t i = 0; i < done->items; i++) {
        if (done->outcome == WEIR_OUTCOME_REPLIED || done->outcome == WEIR_OUTCOME_DIED)
            must(items[i] == done->first + i);
        outcomes[done->first + i]++;
    }
    if (done->outcome == WEIR_OUTCOME_DIED) {
        outcomes[done->first + done->items]++;
        deaths++;
    }
    lasts += done->last;
}

static void collect_batch(weir_pool *pool)
{
    uint32_t before = lasts;
    while (lasts == before) {
        weir_completion done[2];
        int64_t n = weir_pool_collect(pool, done, 2, weir_after(PATIENCE));
        must(n > 0);
        for (int64_t i = 0; i < n; i++)
            take_in(&done[i]);
    }
}

static void assert_each_item_had(uint32_t n)
{
    for (uint32_t i = 0; i < ITEMS; i++)
        if (outcomes[i] != n)
            fail_msg("item %u has %u outcomes of %u", i, outcomes[i], n);
}

static void end(weir_pool *pool)
{
    weir_pool_snapshot now = WEIR_POOL_SNAPSHOT_INIT;
    weir_pool_get_snapshot(pool, &now);
    assert_int_equal(now.accepted, now.completed);
    assert_int_equal(now.waiting + now.running, 0);
    weir_pool_destroy(pool);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* ---- the cases ------------------------------------------------------------------------------ */

static bool one_life(int64_t n, bool stays)
{
    weir_pool *pool = make(2);
    assert_int_equal(weir_pool_start_workers(pool, 2), 2);
    fail_allocation(n, stays);
    int posted = 0;
    for (int i = 0; i < 3; i++) {
        int rc = post(pool, (order){.madness = KILL, .mad_item = 150});
        must(rc == 0 || rc == WEIR_ENOMEM);
        posted += rc == 0;
    }
    weir_completion done;
    while (lasts < (uint32_t)posted &&
           weir_pool_collect(pool, &done, 1, weir_after(20 * WEIR_MILLISECOND)) == 1)
        take_in(&done); /* no memory for the replies of a dead worker: they wait until there is */
    bool hit = stop_failing();
    while (lasts < (uint32_t)posted)
        collect_batch(pool);
    assert_each_item_had((uint32_t)posted);
    assert_int_equal(post(pool, (order){0}), 0);
    collect_batch(pool);
    assert_each_item_had((uint32_t)posted + 1);
    end(pool);
    return hit;
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    for (int stays = 0; stays < 2; stays++) {
        int64_t n = 1;
        while (one_life(n, stays))
            n++;
        assert_true(n > 4);
    }
}

static void a_worker_that_writes_nonsense_loses_no_other_item(void **state)
{
    (void)state;
    for (uint32_t madness = SPAN; madness < MADNESSES; madness++) {
        for (uint64_t seed = 1; seed < (madness == GARBAGE ? 40u : 2u); seed++) {
            weir_pool *pool = make(2);
            assert_int_equal(weir_pool_start_workers(pool, 2), 2); /* the other one idles */
            assert_int_equal(post(pool, (order){madness, 77, seed, ""}), 0);
            collect_batch(pool);
            assert_each_item_had(1);
            assert_int_equal(deaths, 1);
            assert_int_equal(post(pool, (order){0}), 0);
            collect_batch(pool);
            assert_each_item_had(2);
            end(pool);
        }
    }
}

int main(void)
{
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(board != MAP_FAILED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(a_worker_that_writes_nonsense_loses_no_other_item),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
