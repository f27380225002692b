/* pool_memory.c - exec/arena, worker, collect, governed: payloads and replies in blocks of shared memory, those that are
 * kept, and tasks whose memory is reserved; with workers that are killed at any point. */
#include "pool_kit.h"

#include <signal.h>
#include <stdlib.h>

#include <weir/memory.h>

#include "base/park.h"
#include "exec/arena.h"

#define KEPT  ((size_t)WEIR__LEASE_MIN)       /* the smallest that can be kept */
#define BLOCK ((size_t)WEIR__EXTENT_MAX + 64) /* a reply that asks for a block */

static char large[BLOCK];

static void submit_large(unsigned tag, size_t size)
{
    weir_bytes parts[] = {{&tag, sizeof tag}, {large, size - sizeof tag}};
    int rc = weir_pool_submit(kit.pool, parts, 2, (void *)(uintptr_t)tag, WEIR_FOREVER, NULL);
    prove_same(rc, WEIR_KEPT);
}

static void close_and_end(unsigned tags)
{
    kit_check_permits();
    weir_pool_close(kit.pool);
    kit_collect_all();
    kit_end(tags);
}

/* ---- replies ---------------------------------------------------------------------------------- */

static void reply_with_extent(weir_worker *worker, const weir_task *task)
{
    char reply[WEIR__OUT_BYTES + 44] = {0};
    weir_bytes part = {reply, sizeof reply};
    memcpy(reply, task->data, sizeof(unsigned));
    prove_same(weir_worker_reply(worker, 7, &part, 1), WEIR_OK);
}

static void pool_killed_with_extents(void)
{
    weir_pool_opts opts = kit_opts(1, 2);
    opts.retries = 1;
    kit_make(&opts);
    kit.serve = reply_with_extent;
    for (unsigned tag = 1; tag <= 2; tag++) {
        submit_large(tag, WEIR__IN_BYTES + 8);
        kit_collect_some(tag);
    }
    close_and_end(2);
}

PROVE_CASE(pool_killed_with_extents, "replies in the stretch of a worker are whole, or are not");

static void reply_with_block(weir_worker *worker, const weir_task *task)
{
    weir_bytes parts[] = {{task->data, sizeof(unsigned)}, {large, BLOCK - sizeof(unsigned)}};
    prove_same(weir_worker_reply(worker, 7, parts, 2), WEIR_OK);
}

static void pool_killed_with_a_block(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    opts.retries = 1;
    kit_make(&opts);
    kit.serve = reply_with_block;
    kit_submit_some((void *)2);
    kit_collect_some(2);
    close_and_end(2);
}

PROVE_CASE(pool_killed_with_a_block, "a block that was asked for is used, or comes back");

/* What the second item's reply is too large for is moved to a block, with that of the first. */
static void answer_with_more(weir_worker *worker, const weir_task *task)
{
    uint32_t item;
    if (!task->is_batch) {
        reply_with_extent(worker, task);
        return;
    }
    while (weir_worker_next_item(worker, &item) == WEIR_OK) {
        uint32_t value = 100 + item;
        weir_bytes parts[] = {{&value, sizeof value}, {large, BLOCK}};
        prove_same(weir_worker_reply_item(worker, parts, item == 0 ? 1 : 2), WEIR_OK);
    }
    prove_same(weir_worker_end_batch(worker), WEIR_OK);
}

/* What was replied before the kill is what comes out, wherever it lay. */
static void note_moved(const weir_completion *done)
{
    size_t at = 0;
    for (uint32_t item = done->first; item < done->first + done->items; item++) {
        uint32_t value;
        prove_claim(at + sizeof value <= done->data_size);
        memcpy(&value, (const char *)done->data + at, sizeof value);
        prove_same(value, 100 + item);
        at += sizeof value + (item == 0 ? 0 : BLOCK);
    }
    prove_same(done->data_size, at);
    kit.collected[2] += done->last;
}

static void pool_killed_as_it_moves(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    weir_completion done;
    kit.serve = answer_with_more;
    prove_take_first_ways(true);
    kit_make(&opts);
    kit_submit_some((void *)1); /* so what follows is not at the beginning of the stretch */
    kit_collect_some(1);
    kit_submit_batch(2, 2);
    prove_take_first_ways(false);
    while (kit.collected[2] == 0) {
        prove_same(weir_pool_collect(kit.pool, &done, 1, WEIR_FOREVER), 1);
        note_moved(&done);
    }
    prove_take_first_ways(true);
    close_and_end(2);
}

PROVE_CASE(pool_killed_as_it_moves,
           "replies that are moved to a block are whole where the worker was killed meanwhile");

/* More replies than a worker's stretch has room for, before the first is collected. */
static void reply_with_half(weir_worker *worker, const weir_task *task)
{
    weir_bytes parts[] = {{task->data, sizeof(unsigned)},
                          {large, WEIR__EXTENT_MAX - sizeof(unsigned)}};
    prove_same(weir_worker_reply(worker, 7, parts, 2), WEIR_OK);
}

static void pool_short_of_room(void)
{
    weir_pool_opts opts = kit_opts(1, 2);
    kit.workers_may_die = false;
    kit_make(&opts);
    kit.serve = reply_with_half;
    prove_let_time_stand_still();
    kit_submit_some((void *)3);
    kit_collect_some(3);
    prove_same(prove_stalls(), 0);
    close_and_end(3);
}

PROVE_CASE(pool_short_of_room, "who waits for room for its reply is woken when there is some");

/* ---- data that is kept ------------------------------------------------------------------------ */

static struct {
    weir_worker *worker;
    weir_lease *lease;
    unsigned *data, tag;
    _Atomic uint32_t has_come;
} kept;

/* Another thread of the worker's gives the data back, before the reply or after. */
static void release(void *arg)
{
    (void)arg;
    prove_same(*kept.data, kept.tag);
    *kept.data = 0;
    weir_worker_release(kept.worker, kept.lease);
}

static void keep_and_release(weir_worker *worker, const weir_task *task)
{
    void *data;
    kept.worker = worker;
    kept.tag = *(const unsigned *)task->data;
    prove_same(weir_worker_keep(worker, &kept.lease, &data), WEIR_OK);
    kept.data = data;
    weir_bytes reply = {&kept.tag, sizeof kept.tag};
    int t = prove_spawn(release, NULL);
    prove_same(weir_worker_reply(worker, 7, &reply, 1), WEIR_OK);
    prove_join(t);
}

static void pool_kept_and_released(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    opts.retries = prove_pick(2);
    kit.workers_may_die = !prove_pick(2);
    kit_make(&opts);
    kit.serve = keep_and_release;
    submit_large(1, KEPT);
    submit_large(2, KEPT);
    kit_collect_some(2);
    close_and_end(2);
}

PROVE_CASE(pool_kept_and_released, "data that a worker keeps is its own until it gives it back");

/* ---- blocks of the parent's ------------------------------------------------------------------- */

static weir__arena arena;

/* Two blocks at a time: nobody else has the same. */
static void allocate(void *arg)
{
    uint64_t size = (uint64_t)(uintptr_t)arg;
    for (unsigned i = 0; i < 2; i++) {
        weir__block a, b;
        prove_same(weir__arena_alloc(&arena, size, &a), 0);
        prove_same(weir__arena_alloc(&arena, size + 100, &b), 0);
        prove_claim(a.offset + a.size <= b.offset || b.offset + b.size <= a.offset);
        *(unsigned *)a.at = i; /* a race, if it is another's too */
        *(unsigned *)b.at = i + 10;
        prove_same(*(unsigned *)a.at, i);
        weir__arena_free(&arena, &a);
        weir__arena_free(&arena, &b);
    }
}

static void arena_allocates(void)
{
    weir__channel channel;
    prove_same(weir__channel_create(&channel, 1), 0);
    weir__arena_init(&arena, &channel);
    bool is_large = prove_pick(2);
    void *size = (void *)(uintptr_t)(is_large ? WEIR__SMALL_MAX + 1 : 1000);
    int a = prove_spawn(allocate, size), b = prove_spawn(allocate, size);
    if (is_large)
        weir__arena_trim(&arena, weir_now() + 10 * WEIR_SECOND);
    prove_join(a);
    prove_join(b);
    weir__block last;
    prove_same(weir__arena_alloc(&arena, (uint64_t)(uintptr_t)size, &last), 0);
    weir__arena_keep_nothing(&arena);
    weir__arena_free(&arena, &last);
    if (is_large)
        prove_same(weir__arena_reserved(&arena), 0);
    weir__arena_fini(&arena);
    weir__channel_fini(&channel);
}

PROVE_CASE(arena_allocates,
           "a block is one thread's until that frees it, and all memory goes back");

/* ---- reserved memory -------------------------------------------------------------------------- */

static weir_governor *governor;
static _Atomic unsigned at_once;

static void serve_alone(weir_worker *worker, const weir_task *task)
{
    prove_claim(kit.workers_may_die || ++at_once == 1);
    prove_yield();
    at_once -= !kit.workers_may_die;
    kit_echo(worker, task);
}

static void govern_by(weir_pool_opts *opts, uint64_t limit_bytes)
{
    weir_governor_opts about = WEIR_GOVERNOR_OPTS_INIT;
    about.limit_bytes = limit_bytes;
    about.name = "";
    prove_same(weir_governor_create(&governor, &about), WEIR_OK);
    opts->governor = governor;
    opts->task_bytes = 1000;
}

static void govern(weir_pool_opts *opts)
{
    govern_by(opts, 1500);
}

/* Somebody else who wants memory, too. */
static _Atomic bool has_had_its_own;

static void reserve(void *arg)
{
    (void)arg;
    prove_same(weir_governor_reserve(governor, 1000, WEIR_FOREVER), WEIR_OK);
    prove_yield();
    weir_governor_release(governor, 1000);
    has_had_its_own = true;
}

/* All of it was given back. */
static void check_governor(void)
{
    weir_governor_snapshot s = WEIR_GOVERNOR_SNAPSHOT_INIT;
    weir_governor_get_snapshot(governor, &s);
    prove_same(s.reserved, 0);
    prove_same(s.waiting, 0);
    prove_same(s.admitted, s.released);
    weir_governor_destroy(governor);
}

static void submit_late(void *arg)
{
    (void)arg;
    kit_pause();
    prove_same(kit_submit(4, WEIR_FOREVER, NULL), WEIR_KEPT);
}

static void pool_governed(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    opts.retries = 2;
    kit.workers_may_die = !prove_pick(2);
    govern(&opts);
    kit_make(&opts);
    kit.serve = serve_alone;
    at_once = 0;
    has_had_its_own = false;
    int t = prove_spawn(reserve, NULL), u = prove_spawn(kit_submit_some, (void *)3);
    kit_collect_some(3);
    while (!has_had_its_own) /* what idle workers have is given back by who collects */
        kit_collect(weir_after(WEIR_MILLISECOND));
    prove_join(t);
    prove_join(u);
    t = prove_spawn(submit_late, NULL);
    kit_collect_some(4);
    prove_join(t);
    close_and_end(4);
    check_governor();
}

PROVE_CASE(pool_governed, "a task runs with its memory reserved, and all of it is given back");

/* With somebody else in line, too: two threads may tell the pool at once, one what it has had no use for any more. */
static void pool_governed_destroyed(void)
{
    weir_pool_opts opts = kit_opts(2, 3);
    kit.workers_may_die = !prove_pick(2);
    govern(&opts);
    kit_make(&opts);
    int t = prove_spawn(reserve, NULL);
    kit_submit_some((void *)3);
    kit_collect_some(prove_pick(3));
    kit_collect(WEIR_POLL);
    weir_pool_destroy(kit.pool);
    prove_join(t);
    for (unsigned tag = 1; tag <= 3; tag++)
        prove_same(kit.collected[tag] + kit.dropped[tag], 1);
    check_governor();
}

PROVE_CASE(pool_governed_destroyed,
           "a pool that is destroyed gives back all memory that it had reserved");

/* Somebody else's memory, which the pool is in line for. */
static void give_room(void *arg)
{
    (void)arg;
    weir_governor_release(governor, 1000);
}

static void pool_destroyed_while_it_is_told(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    kit.workers_may_die = false;
    govern(&opts);
    kit_make(&opts);
    prove_same(weir_governor_reserve(governor, 1000, WEIR_POLL), WEIR_OK);
    kit_submit_some((void *)1);
    prove_take_first_ways(true);
    while (kit.pool->memory.asked == 0) {
        kit_collect(WEIR_POLL);
        prove_pause();
    }
    prove_take_first_ways(false);
    int t = prove_spawn(give_room, NULL);
    weir_pool_destroy(kit.pool);
    prove_join(t);
    prove_same(kit.collected[1] + kit.dropped[1], 1);
    check_governor();
}

PROVE_CASE(pool_destroyed_while_it_is_told,
           "a pool is destroyed only when the governor has told it what it had to");

/* More workers have memory reserved than are looked at in one go; none of them has a process. */
static void pool_of_many_destroyed(void)
{
    enum { WORKERS = 70, BYTES = 10 };
    weir_pool_opts opts = kit_opts(WORKERS, 1);
    govern(&opts);
    kit_make(&opts);
    for (unsigned i = 0; i < WORKERS; i++) {
        prove_same(weir_governor_reserve(governor, BYTES, WEIR_POLL), WEIR_OK);
        kit.pool->desks[i].reserved = BYTES;
    }
    weir_pool_destroy(kit.pool);
    check_governor();
}

PROVE_CASE(pool_of_many_destroyed, "what many workers had reserved is given back, too");

static void reserve_less(void *arg)
{
    (void)arg;
    prove_same(weir_governor_reserve(governor, 400, WEIR_FOREVER), WEIR_OK);
    weir_governor_release(governor, 400);
    has_had_its_own = true;
}

/* Who is behind the pool in line has what it wants when the pool's task is gone: others' memory may never come back. */
static void pool_leaves_the_line(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    uint64_t id;
    kit.workers_may_die = false;
    govern(&opts);
    prove_take_first_ways(true);
    kit_make(&opts);
    prove_same(weir_governor_reserve(governor, 1000, WEIR_POLL), WEIR_OK);
    prove_same(kit_submit(1, WEIR_FOREVER, &id), WEIR_KEPT);
    while (kit.pool->memory.asked == 0) {
        kit_collect(WEIR_POLL);
        prove_pause();
    }
    prove_take_first_ways(false);
    int t = prove_spawn(reserve_less, NULL);
    prove_same(weir_pool_cancel(kit.pool, id), 0);
    kit.taken_back[1] = 1;
    for (unsigned i = 0; i < 100 && !has_had_its_own; i++)
        kit_collect(weir_after(20 * WEIR_MILLISECOND));
    prove_claim(has_had_its_own);
    prove_join(t);
    weir_governor_release(governor, 1000);
    close_and_end(1);
    check_governor();
}

PROVE_CASE(pool_leaves_the_line, "memory for a task that is gone holds up nobody");

/* ---- memory that comes when it is not wanted any more ------------------------------------------ */

static _Atomic bool has_begun;
static uint64_t waiting_id;

static void hang(weir_worker *worker, const weir_task *task)
{
    (void)worker, (void)task;
    has_begun = true;
    for (;;)
        prove_pause();
}

static void give_room_and_cancel(void *arg)
{
    give_room(arg);
    kit.taken_back[2] += weir_pool_cancel(kit.pool, waiting_id) == 0;
}

/* What was reserved for the task that killed its worker is there for the one that waits, as the governor tells the pool
 * that there is memory for that, too; and then that task is taken back. */
static void pool_told_beside_a_grant(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    opts.tasks_per_worker = 1; /* so none waits behind the first */
    kit.workers_may_die = false;
    govern_by(&opts, 2500);
    prove_take_first_ways(true);
    kit_make(&opts);
    kit.serve = hang;
    has_begun = false;
    prove_same(weir_governor_reserve(governor, 1000, WEIR_POLL), WEIR_OK);
    prove_same(weir_pool_start_workers(kit.pool, 2), 2);
    while (kit.pool->starting > 0)
        kit_collect(WEIR_POLL);
    prove_same(kit_submit(1, WEIR_FOREVER, NULL), WEIR_KEPT);
    while (!has_begun)
        kit_collect(WEIR_POLL);
    prove_same(kit_submit(2, WEIR_FOREVER, &waiting_id), WEIR_KEPT);
    while (kit.pool->memory.asked == 0)
        kit_collect(WEIR_POLL);
    for (unsigned i = 0; i < 2; i++)
        if (kit.pool->desks[i].held > 0)
            kill(kit.pool->desks[i].pid, SIGKILL);
    kit.serve = kit_echo;
    kit_collect_some(1);
    prove_take_first_ways(false);
    int t = prove_spawn(give_room_and_cancel, NULL);
    kit_collect(weir_after(WEIR_MILLISECOND));
    prove_join(t);
    prove_take_first_ways(true);
    weir_pool_close(kit.pool);
    kit_collect_all();
    kit_end(2);
    check_governor();
}

PROVE_CASE(pool_told_beside_a_grant, "memory that comes beside what is there is given back");

static _Atomic unsigned begun;
static _Atomic bool may_reply;

static void begin_and_echo(weir_worker *worker, const weir_task *task)
{
    begun++;
    while (!may_reply)
        prove_pause();
    kit_echo(worker, task);
}

/* Memory for the second task comes while the first one's reply waits to be collected: who collects that may be away for
 * long. */
static void pool_dealt_beside_a_reply(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    opts.tasks_per_worker = 1; /* so none waits behind the first, nor runs with its memory */
    kit.workers_may_die = false;
    govern_by(&opts, 2500);
    prove_take_first_ways(true);
    kit_make(&opts);
    kit.serve = begin_and_echo;
    begun = 0;
    may_reply = false;
    prove_same(weir_governor_reserve(governor, 1000, WEIR_POLL), WEIR_OK);
    prove_same(weir_pool_start_workers(kit.pool, 2), 2);
    while (kit.pool->starting > 0)
        kit_collect(WEIR_POLL);
    kit_submit_some((void *)2);
    while (begun == 0 || kit.pool->memory.asked == 0)
        kit_collect(WEIR_POLL);
    weir_governor_release(governor, 1000);
    may_reply = true;
    while (kit_look().replied == 0)
        prove_pause();
    prove_same(kit_collect(WEIR_FOREVER), 1);
    for (unsigned i = 0; i < 300 && begun == 1; i++)
        prove_pause();
    prove_same(begun, 2);
    kit_collect_some(2);
    close_and_end(2);
    check_governor();
}

PROVE_CASE(pool_dealt_beside_a_reply,
           "a task that there is memory for now runs while another one's reply is read");
