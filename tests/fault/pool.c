/* A process pool that gets no memory, no descriptor, no shared memory or no process, and one whose
 * workers write nonsense: an error or an outcome for each task, nothing lost, nothing left behind,
 * and the pool still works. */
#include "fault/calls.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/pool.h>

#include "base/bell.h"
#include "exec/channel.h"

/* ---- tasks ---------------------------------------------------------------------------------- */

enum {
    ECHO, /* reply with the task's own bytes */
    HOLD, /* wait until the gate is open, then echo */
    MAD,  /* do what `madness` says to the seat, then wait to be killed */
    DIE,  /* the same, then die */
    GO_ON /* the same, then echo */
};

typedef struct order {
    uint32_t op, madness;
    uint64_t seed;
} order;

static struct board {
    _Atomic uint32_t begun, gate_open;
} *board;

static weir_worker_ticket seat_0; /* of the pool that is there; known to its workers */

static void go_mad(const weir_task *task, const order *what);

static void serve(weir_worker *worker, const weir_task *task, void *ctx)
{
    (void)ctx;
    order what;
    must(task->size >= sizeof what);
    memcpy(&what, task->data, sizeof what);
    board->begun++;
    if (what.op >= MAD)
        go_mad(task, &what);
    if (what.op == MAD)
        pause();
    if (what.op == DIE)
        raise(SIGKILL);
    while (what.op == HOLD && !board->gate_open)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    weir_worker_reply(worker, 7, &(weir_bytes){task->data, task->size}, 1);
}

/* ---- a pool, and what became of its tasks ------------------------------------------------------- */

#define TAGS 64

static struct {
    unsigned accepted;
    unsigned came_back[TAGS]; /* completed, dropped, or taken back */
    unsigned outcomes[4];
    size_t size[TAGS];
    bool made_up; /* replies may be: what reads as one is one */
} account;

static void note_drop(void *tag, weir_drop_reason reason, void *ctx)
{
    (void)reason, (void)ctx;
    account.came_back[(uintptr_t)tag]++;
}

static weir_pool_opts options(unsigned workers)
{
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    opts.workers = workers;
    opts.backlog = 40;
    opts.on_drop = note_drop;
    opts.handler = serve;
    memset(&account, 0, sizeof account);
    memset(board, 0, sizeof *board);
    return opts;
}

static weir_pool *create(unsigned workers, unsigned retries)
{
    weir_pool *pool = NULL;
    weir_pool_opts opts = options(workers);
    opts.retries = retries;
    assert_int_equal(weir_pool_create(&pool, &opts), WEIR_OK);
    weir_pool_get_ticket(pool, 0, &seat_0);
    return pool;
}

static weir_pool_snapshot look_at(weir_pool *pool)
{
    weir_pool_snapshot now = WEIR_POOL_SNAPSHOT_INIT;
    must(weir_pool_get_snapshot(pool, &now) == WEIR_OK);
    must(now.accepted ==
         now.completed + total(now.dropped) + now.cancelled + now.waiting + now.running);
    must(now.waiting + now.running <= now.backlog + now.workers);
    return now;
}

static int count_fds(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    must(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* Mappings of shared memory of ours. */
static int count_mappings(void)
{
    int n = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    must(maps);
    while (fgets(line, sizeof line, maps))
        n += strstr(line, "memfd:weir") != NULL;
    fclose(maps);
    return n;
}

static void assert_nothing_is_left(int fds_before)
{
    assert_int_equal(count_fds(), fds_before);
    assert_int_equal(count_mappings(), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static unsigned char pattern_at(size_t i, uintptr_t tag)
{
    return (unsigned char)(i * 13 + (i >> 12) + tag);
}

static int submit_order(weir_pool *pool, uintptr_t tag, size_t size, order what, uint64_t *id)
{
    unsigned char *bytes = malloc(size);
    must(bytes && tag < TAGS && size >= sizeof what);
    for (size_t i = 0; i < size; i++)
        bytes[i] = pattern_at(i, tag);
    memcpy(bytes, &what, sizeof what);
    weir_bytes part = {bytes, size};
    int rc = weir_pool_submit(pool, &part, 1, number(tag), WEIR_POLL, id);
    free(bytes);
    account.accepted += rc == WEIR_KEPT;
    account.size[tag] = size;
    return rc;
}

static int submit(weir_pool *pool, uintptr_t tag, size_t size)
{
    return submit_order(pool, tag, size, (order){ECHO}, NULL);
}

static void take(const weir_completion *done)
{
    uintptr_t tag = (uintptr_t)done->tag;
    const unsigned char *bytes = done->data;
    account.came_back[tag]++;
    account.outcomes[done->outcome]++;
    if (done->outcome != WEIR_OUTCOME_REPLIED)
        return;
    if (account.made_up) {
        unsigned sum = 0;
        for (size_t i = 0; i < done->data_size; i++) /* but each byte can be read */
            sum += bytes[i];
        *(volatile unsigned *)&sum;
        return;
    }
    assert_int_equal(done->data_size, account.size[tag]);
    for (size_t i = sizeof(order); i < done->data_size; i++)
        if (bytes[i] != pattern_at(i, tag))
            fail_msg("reply %zu differs at %zu", (size_t)tag, i);
}

/* Collects until nothing is inside. */
static void collect_all(weir_pool *pool)
{
    while (look_at(pool).waiting + look_at(pool).running > 0) {
        weir_completion done[3];
        int64_t n = weir_pool_collect(pool, done, 3, weir_after(2 * PATIENCE));
        if (n <= 0)
            fail_msg("collect returned %s with %zu waiting, %zu running", weir_error_name((int)n),
                     look_at(pool).waiting, look_at(pool).running);
        for (int64_t i = 0; i < n; i++)
            take(&done[i]);
    }
}

static void assert_each_came_back_once(void)
{
    unsigned n = 0;
    for (int i = 0; i < TAGS; i++) {
        assert_true(account.came_back[i] <= 1);
        n += account.came_back[i];
    }
    assert_int_equal(n, account.accepted);
}

#define LAST_TAGS (TAGS - 3)

/* The pool does what pools do, payloads of each kind. */
static void assert_works(weir_pool *pool)
{
    unsigned before = account.outcomes[WEIR_OUTCOME_REPLIED];
    assert_int_equal(submit(pool, LAST_TAGS, 100), WEIR_KEPT);
    assert_int_equal(submit(pool, LAST_TAGS + 1, 50000), WEIR_KEPT);
    assert_int_equal(submit(pool, LAST_TAGS + 2, 600000), WEIR_KEPT);
    collect_all(pool);
    assert_int_equal(account.outcomes[WEIR_OUTCOME_REPLIED], before + 3);
}

/* ---- the n-th call fails -------------------------------------------------------------------- */

/* A short life of a pool during which calls fail. */
static void live(weir_pool *pool)
{
    static const size_t sizes[] = {16, 192, 193, 3000, 100000, 200000, 300000, 5000000};
    for (uintptr_t tag = 0; tag < 16; tag++) {
        uint64_t id;
        int rc = submit_order(pool, tag, sizes[tag % 8], (order){ECHO}, &id);
        assert_true(rc == WEIR_KEPT || rc == WEIR_ENOMEM || rc == WEIR_ENOSHM);
        if (rc == WEIR_KEPT && tag % 8 == 7 && weir_pool_cancel(pool, id) == 0)
            account.came_back[tag]++;
        if (tag % 8 == 7)
            collect_all(pool);
    }
}

static bool lived_with_the_nth_failing(int kind, int64_t n, bool stays, bool in_workers)
{
    int fds_before = count_fds();
    weir_pool *pool = NULL;
    weir_pool_opts opts = options(2);
    start_failing(kind, n, stays, in_workers);
    int rc = weir_pool_create(&pool, &opts);
    if (rc < 0) {
        assert_true(end_failing());
        assert_null(pool);
        assert_int_equal(rc, kind == RESERVE ? WEIR_ENOSHM : WEIR_ENOMEM);
        assert_nothing_is_left(fds_before);
        return true;
    }
    live(pool);
    bool failed = end_failing();
    assert_each_came_back_once();
    if (!failed && !in_workers)
        assert_int_equal(account.outcomes[WEIR_OUTCOME_REPLIED],
                         account.accepted - look_at(pool).cancelled);
    if (!in_workers) /* else those that are there may have a fault to come */
        assert_works(pool);
    start_failing(ALLOCATE, 1, true, false);
    weir_pool_destroy(pool); /* needs no memory */
    end_failing();
    assert_each_came_back_once();
    assert_nothing_is_left(fds_before);
    return failed;
}

/* How many calls there are depends on who is quicker: a run that came to an end with fewer is not
 * believed at once. */
static int until_none_fails(int kind, bool stays)
{
    int n = 1;
    for (int ended = 0; ended < 3; ended++)
        while (lived_with_the_nth_failing(kind, n, stays, false))
            n++;
    return n;
}

static void any_one_allocation_may_fail(void **state)
{
    (void)state;
    assert_true(until_none_fails(ALLOCATE, false) > 8);
}

static void all_allocations_may_fail_from_any_one_on(void **state)
{
    (void)state;
    assert_true(until_none_fails(ALLOCATE, true) > 8);
}

static void any_one_reservation_of_shared_memory_may_fail(void **state)
{
    (void)state;
    assert_true(until_none_fails(RESERVE, false) > 8);
}

static void all_reservations_may_fail_from_any_one_on(void **state)
{
    (void)state;
    assert_true(until_none_fails(RESERVE, true) > 8);
}

static void any_one_mapping_may_fail(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* TSan maps before dlsym works, so mmap cannot be interposed; ASan and plain runs do it */
#endif
    assert_true(until_none_fails(MAP, false) > 8);
}

static void any_one_fork_may_fail(void **state)
{
    (void)state;
    assert_true(until_none_fails(FORK, false) > 1);
    assert_true(until_none_fails(FORK, true) > 1);
}

static void any_one_call_may_fail_in_every_worker(void **state)
{
    (void)state;
    for (int n = 1; n <= 4; n++)
        lived_with_the_nth_failing(ALLOCATE, n, n % 2, true);
    for (int n = 1; n <= 12; n++)
        lived_with_the_nth_failing(MAP, n, n % 2, true);
}

static void a_worker_that_cannot_map_a_payload_fails_that_task_and_takes_the_next(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* TSan maps before dlsym works, so mmap cannot be interposed; ASan and plain runs do it */
#endif
    weir_pool *pool = create(1, 0);
    start_failing(MAP, 4, false, true); /* header, seats, extent, payload */
    assert_int_equal(submit(pool, 1, 600000), WEIR_KEPT);
    collect_all(pool);
    end_failing();
    assert_int_equal(account.outcomes[WEIR_OUTCOME_NO_MEMORY], 1);
    assert_works(pool);
    assert_int_equal(look_at(pool).workers_started, 1);
    weir_pool_destroy(pool);
}

/* ---- limits --------------------------------------------------------------------------------- */

#define FDS 80

static int fillers[FDS], n_fillers;

/* Leaves so many descriptors. */
static void leave_fds(int n)
{
    struct rlimit limit;
    n_fillers = 0;
    must(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = FDS;
    must(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int fd; (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;)
        fillers[n_fillers++] = fd;
    must(errno == EMFILE && n_fillers >= n);
    while (n-- > 0)
        close(fillers[--n_fillers]);
}

static void give_fds_back(void)
{
    struct rlimit limit;
    while (n_fillers > 0)
        close(fillers[--n_fillers]);
    must(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max < 1024 ? limit.rlim_max : 1024;
    must(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void create_fails_at_each_descriptor_and_keeps_none(void **state)
{
    (void)state;
    int fds_before = count_fds();
    weir_pool_opts opts = options(2);
    for (int n = 0; n <= 4; n++) {
        weir_pool *pool = NULL;
        leave_fds(n);
        int rc = weir_pool_create(&pool, &opts);
        give_fds_back();
        assert_int_equal(rc, n < 4 ? WEIR_ENOFD : WEIR_OK);
        assert_true((pool != NULL) == (rc == WEIR_OK));
        if (pool)
            assert_works(pool);
        weir_pool_destroy(pool);
        assert_nothing_is_left(fds_before);
    }
}

static void tasks_are_not_started_without_a_descriptor_for_a_worker(void **state)
{
    (void)state;
    int fds_before = count_fds();
    weir_pool *pool = create(2, 0);
    leave_fds(0);
    for (uintptr_t tag = 0; tag < 5; tag++)
        assert_int_equal(submit(pool, tag, 100), WEIR_KEPT);
    collect_all(pool);
    give_fds_back();
    assert_int_equal(account.outcomes[WEIR_OUTCOME_NOT_STARTED], 5);
    assert_works(pool);
    weir_pool_destroy(pool);
    assert_each_came_back_once();
    assert_nothing_is_left(fds_before);
}

static void one_descriptor_is_enough_for_one_worker(void **state)
{
    (void)state;
    weir_pool *pool = create(4, 0);
    leave_fds(1);
    for (uintptr_t tag = 0; tag < 20; tag++)
        assert_int_equal(submit(pool, tag, 1000), WEIR_KEPT);
    collect_all(pool);
    give_fds_back();
    assert_int_equal(account.outcomes[WEIR_OUTCOME_REPLIED], 20);
    weir_pool_destroy(pool);
}

static struct rlimit file_size_before;

static void limit_file_size(uint64_t bytes)
{
    must(getrlimit(RLIMIT_FSIZE, &file_size_before) == 0);
    must(setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, file_size_before.rlim_max}) == 0);
}

static void unlimit_file_size(void)
{
    must(setrlimit(RLIMIT_FSIZE, &file_size_before) == 0);
}

static void create_without_shared_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    int fds_before = count_fds();
    weir_pool_opts opts = options(2);
    for (uint64_t bytes = 0; bytes < WEIR__UNIT; bytes = bytes ? bytes * 8 : 1) {
        weir_pool *pool = NULL;
        limit_file_size(bytes);
        int rc = weir_pool_create(&pool, &opts);
        unlimit_file_size();
        assert_int_equal(rc, WEIR_ENOSHM);
        assert_null(pool);
        assert_nothing_is_left(fds_before);
    }
}

static void a_pool_without_shared_memory_refuses_large_tasks_and_goes_on(void **state)
{
    (void)state;
    int fds_before = count_fds();
    weir_pool *pool = create(1, 0);
    limit_file_size(4096);
    assert_int_equal(submit(pool, 1, 193), WEIR_ENOSHM);
    assert_int_equal(submit(pool, 2, 700000), WEIR_ENOSHM);
    assert_int_equal(submit(pool, 3, 100), WEIR_KEPT); /* but no worker can start */
    collect_all(pool);
    assert_int_equal(account.outcomes[WEIR_OUTCOME_NOT_STARTED], 1);
    assert_int_equal(weir_pool_admit(pool, WEIR_POLL), WEIR_KEPT);
    assert_int_equal(weir_pool_post(pool, &(weir_bytes){&account, sizeof account}, 1, NULL, NULL),
                     WEIR_ENOSHM);
    weir_pool_unadmit(pool); /* the permit was still ours */
    unlimit_file_size();
    assert_works(pool);

    for (uintptr_t tag = 10; tag < 51; tag++) /* every permit is there */
        assert_int_equal(submit(pool, tag, 16), WEIR_KEPT);
    assert_int_equal(submit(pool, 51, 16), WEIR_EFULL);
    collect_all(pool);
    assert_each_came_back_once();
    weir_pool_destroy(pool);
    assert_nothing_is_left(fds_before);
}

static void a_large_reply_without_shared_memory_is_an_outcome(void **state)
{
    (void)state;
    weir_pool *pool = create(1, 0);
    assert_int_equal(submit_order(pool, 1, 300000, (order){HOLD}, NULL), WEIR_KEPT);
    weir_completion done;
    while (board->begun == 0)
        assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(WEIR_MILLISECOND)),
                         WEIR_ETIMEDOUT);
    limit_file_size(4096);
    board->gate_open = 1;
    collect_all(pool);
    unlimit_file_size();
    assert_int_equal(account.outcomes[WEIR_OUTCOME_NO_MEMORY], 1);
    assert_works(pool);
    assert_int_equal(look_at(pool).workers_started, 1);
    weir_pool_destroy(pool);
}

/* ---- workers that write nonsense ---------------------------------------------------------------- */

enum {
    SKIPPED_RUNNING, /* SKIPPED over the task's own RUNNING */
    BAD_KIND,        /* DONE, and then: */
    BAD_INLINE_SIZE,
    BAD_EXTENT_SIZE,
    BAD_EXTENT_OFFSET,
    BAD_BLOCK,    /* none was given */
    BAD_REFUSED,  /* none was asked for */
    BAD_IN_PLACE, /* more than the task has */
    BAD_KEPT,     /* what is too small for that */
    HUGE_SIZE,
    AT_ONCE, /* those above end in a kill */

    SKIP_READY = AT_ONCE, /* SKIPPED over READY: tasks it has not claimed */
    DONE_READY,
    DONE_REVOKED,
    RUN_READY,
    GARBAGE,       /* random bytes over the whole seat */
    GARBAGE_SLOTS, /* over all slots */
    DONE_EVERYWHERE,
    BAD_STATE, /* of the seat */
    DENY,      /* it is leaving, and its task READY */
    BAD_WANT,  /* a large reply that nobody can have */
};

static uint64_t random_from(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 32;
}

static void scribble(void *at, size_t size, uint64_t *seed)
{
    unsigned char *bytes = at;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)random_from(seed);
}

static void write_state(weir__slot *slot, uint32_t state)
{
    atomic_store_explicit(&slot->state, state, memory_order_release);
}

/* Writes over all slots in a state but one. */
static void overwrite(weir__seat *seat, const weir__slot *not_this, uint32_t from, uint32_t to)
{
    for (unsigned i = 0; i < WEIR__SLOTS; i++)
        if (&seat->slots[i] != not_this && seat->slots[i].state == from)
            write_state(&seat->slots[i], to);
}

static void reply_nonsense(weir__slot *slot, uint32_t kind, uint64_t size, uint64_t offset)
{
    slot->out_kind = kind;
    slot->out_size = size;
    slot->out_offset = offset;
    write_state(slot, SLOT_DONE);
}

/* Its own slot does not become READY again: see
 * a_worker_that_denies_having_begun_its_task_is_not_replaced_for_ever. */
static void scribble_slots(weir__seat *seat, const weir__slot *own, uint64_t seed)
{
    for (unsigned i = 0; i < WEIR__SLOTS; i++) {
        weir__slot *slot = &seat->slots[i];
        scribble((char *)slot + sizeof slot->state, sizeof *slot - sizeof slot->state, &seed);
        slot->out_kind = (uint32_t)random_from(&seed) % 8;
        if (random_from(&seed) % 2)
            slot->out_size %= WEIR__EXTENT;
        uint32_t to = (uint32_t)random_from(&seed) % 9;
        write_state(slot, slot == own && to == SLOT_READY ? SLOT_FREE : to);
    }
}

static void scribble_seat(weir__seat *seat, const weir__slot *own, uint64_t seed)
{
    scribble(seat, offsetof(weir__seat, want), &seed);
    seat->want = random_from(&seed) % 2 ? UINT64_MAX - seed % 1000000 : seed % 1000000;
    /* never a size that the system might try to provide */
    seat->state = (uint32_t)random_from(&seed) % 5;
    seat->peak_rss = seed;
    scribble(&seat->returned, sizeof seat->returned + sizeof seat->returns, &seed);
    scribble(&seat->fail_size, sizeof seat->fail_size + sizeof seat->fail, &seed);
    scribble_slots(seat, own, seed);
}

static void go_mad(const weir_task *task, const order *what)
{
    weir__channel channel;
    must(weir__channel_open(&channel, seat_0.memory_fd) == 0);
    weir__seat *seat = NULL;
    weir__slot *slot = NULL;
    for (unsigned s = 0; s < channel.header->seats; s++) /* where am I? */
        for (unsigned i = 0; channel.seats[s].extent_offset && i < WEIR__SLOTS; i++)
            if (channel.seats[s].slots[i].state == SLOT_RUNNING &&
                channel.seats[s].slots[i].id == task->id) {
                seat = &channel.seats[s];
                slot = &seat->slots[i];
            }
    must(slot);
    while (what->op == GO_ON && !board->gate_open)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    uint64_t seed = what->seed;
    switch (what->madness) {
    case SKIPPED_RUNNING: write_state(slot, SLOT_SKIPPED); break;
    case BAD_KIND: reply_nonsense(slot, OUT_TASK + 1, 1, 0); break;
    case BAD_INLINE_SIZE: reply_nonsense(slot, OUT_INLINE, WEIR__OUT_BYTES + 1, 0); break;
    case BAD_EXTENT_SIZE: reply_nonsense(slot, OUT_EXTENT, WEIR__EXTENT_MAX + 1, 0); break;
    case BAD_EXTENT_OFFSET: reply_nonsense(slot, OUT_EXTENT, 2, UINT64_MAX); break;
    case BAD_BLOCK: reply_nonsense(slot, OUT_BLOCK, 1, 0); break;
    case BAD_REFUSED: reply_nonsense(slot, OUT_REFUSED, 0, 0); break;
    case BAD_IN_PLACE: reply_nonsense(slot, OUT_TASK, task->size + 1, 0); break;
    case BAD_KEPT:
        slot->kept = 1;
        reply_nonsense(slot, OUT_INLINE, 1, 0);
        break;
    case HUGE_SIZE: reply_nonsense(slot, OUT_EXTENT, UINT64_MAX, 1); break;
    case SKIP_READY: overwrite(seat, slot, SLOT_READY, SLOT_SKIPPED); break;
    case DONE_READY: overwrite(seat, slot, SLOT_READY, SLOT_DONE); break;
    case DONE_REVOKED: overwrite(seat, slot, SLOT_REVOKED, SLOT_DONE); break;
    case RUN_READY: overwrite(seat, slot, SLOT_READY, SLOT_RUNNING); break;
    case GARBAGE: scribble_seat(seat, slot, seed); break;
    case GARBAGE_SLOTS: scribble_slots(seat, slot, seed); break;
    case DONE_EVERYWHERE:
        for (unsigned i = 0; i < WEIR__SLOTS; i++)
            write_state(&seat->slots[i], SLOT_DONE);
        break;
    case BAD_STATE: seat->state = (uint32_t)seed; break;
    case DENY:
        seat->state = SEAT_LEAVING;
        write_state(slot, SLOT_READY);
        break;
    case BAD_WANT: seat->want = seed; break;
    }
    munmap(channel.header, channel.mapped); /* the descriptor is the worker's */
    weir__bell_ring(seat_0.bell_fd);
}

static void a_worker_with_an_impossible_reply_is_killed_and_its_task_died(void **state)
{
    (void)state;
    int fds_before = count_fds();
    for (uint32_t madness = 0; madness < AT_ONCE; madness++) {
        weir_pool *pool = create(1, 0);
        for (uintptr_t tag = 0; tag < 9; tag++)
            assert_int_equal(
                submit_order(pool, tag, 500, (order){tag == 4 ? MAD : ECHO, madness}, NULL),
                WEIR_KEPT);
        collect_all(pool);
        assert_int_equal(account.outcomes[WEIR_OUTCOME_DIED], 1);
        assert_int_equal(account.outcomes[WEIR_OUTCOME_REPLIED], 8);
        assert_int_equal(look_at(pool).workers_died, 1);
        assert_works(pool);
        weir_pool_destroy(pool);
        assert_each_came_back_once();
        assert_nothing_is_left(fds_before);
    }
}

/* Tasks behind the running one lie READY in the ring; some are cancelled: REVOKED. */
static void nonsense_over_tasks_that_it_has_not_claimed_loses_none(void **state)
{
    (void)state;
    /* That which leaves the worker waiting for a task which the parent has seen done, say, is as if it
     * ran its task for ever: it has to end. */
    static const struct {
        uint32_t op, madness;
    } cases[] = {{DIE, SKIP_READY},     {GO_ON, SKIP_READY},   {DIE, DONE_READY},
                 {DIE, DONE_REVOKED},   {GO_ON, DONE_REVOKED}, {DIE, RUN_READY},
                 {DIE, DONE_EVERYWHERE}};
    int fds_before = count_fds();
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        weir_pool *pool = create(1, 1);
        weir_completion done;
        uint64_t id[20];
        for (uintptr_t tag = 0; tag < 10; tag++) /* short tasks: the ring gets deep */
            assert_int_equal(submit(pool, tag, 16), WEIR_KEPT);
        collect_all(pool);
        board->begun = 0;
        assert_int_equal(submit_order(pool, 20, 16, (order){HOLD}, NULL), WEIR_KEPT);
        while (board->begun == 0)
            assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(WEIR_MILLISECOND)),
                             WEIR_ETIMEDOUT);
        assert_int_equal(submit_order(pool, 21, 16, (order){cases[i].op, cases[i].madness}, NULL),
                         WEIR_KEPT);
        for (uintptr_t tag = 0; tag < 16; tag++)
            assert_int_equal(submit_order(pool, 30 + tag, 16, (order){ECHO}, &id[tag]), WEIR_KEPT);
        for (uintptr_t tag = 0; tag < 16; tag += 3) {
            assert_int_equal(weir_pool_cancel(pool, id[tag]), 0);
            account.came_back[30 + tag]++;
        }
        board->gate_open = 1;
        account.made_up = true;
        collect_all(pool);
        account.made_up = false;
        assert_each_came_back_once();
        assert_works(pool);
        weir_pool_destroy(pool);
        assert_nothing_is_left(fds_before);
    }
}

static void random_bytes_over_a_whole_seat_lose_no_task(void **state)
{
    (void)state;
    int fds_before = count_fds();
    for (uint64_t seed = 1; seed <= 25; seed++) {
        weir_pool *pool = create(1 + seed % 3, seed % 2);
        for (uintptr_t tag = 0; tag < 24; tag++) {
            order what = {tag % 6 == 3 ? DIE : ECHO, seed % 4 ? GARBAGE : GARBAGE_SLOTS,
                          seed + tag};
            assert_int_equal(submit_order(pool, tag, tag % 5 ? 16 : 2000, what, NULL), WEIR_KEPT);
        }
        account.made_up = true;
        collect_all(pool);
        assert_each_came_back_once();
        weir_pool_destroy(pool);
        assert_nothing_is_left(fds_before);
    }
}

static void a_worker_that_wants_more_memory_than_there_is_delays_nobody(void **state)
{
    (void)state;
    static const uint64_t wants[] = {UINT64_MAX, INT64_MAX, (UINT64_MAX >> 3) + 1, 1, 4096};
    for (unsigned i = 0; i < sizeof wants / sizeof wants[0]; i++) {
        weir_pool *pool = create(2, 0);
        board->gate_open = 1;
        for (uintptr_t tag = 0; tag < 9; tag++)
            assert_int_equal(
                submit_order(pool, tag, 500,
                             (order){tag == 4 ? i % 2 ? DIE : GO_ON : ECHO, BAD_WANT, wants[i]},
                             NULL),
                WEIR_KEPT);
        collect_all(pool);
        assert_each_came_back_once();
        weir_pool_destroy(pool);
    }
}

static void a_worker_with_an_impossible_state_is_replaced(void **state)
{
    (void)state;
    static const uint32_t states[] = {SEAT_STARTING, SEAT_READY, SEAT_LEAVING,
                                      SEAT_FAILED,   4,          UINT32_MAX};
    for (unsigned i = 0; i < sizeof states / sizeof states[0]; i++) {
        weir_pool *pool = create(1, 0);
        board->gate_open = 1;
        assert_int_equal(submit_order(pool, 0, 16, (order){GO_ON, BAD_STATE, states[i]}, NULL),
                         WEIR_KEPT);
        collect_all(pool); /* replied, or died when that was seen first */
        for (uintptr_t tag = 1; tag < 9; tag++)
            assert_int_equal(submit(pool, tag, 16), WEIR_KEPT);
        collect_all(pool);
        assert_each_came_back_once();
        assert_true(account.outcomes[WEIR_OUTCOME_REPLIED] >= 8);
        weir_pool_destroy(pool);
    }
}

static void a_worker_that_denies_having_begun_its_task_is_not_replaced_for_ever(void **state)
{
    (void)state;
    weir_pool *pool = create(1, 0);
    weir_completion done;
    assert_int_equal(submit_order(pool, 0, 16, (order){DIE, DENY}, NULL), WEIR_KEPT);
    for (weir_time end = weir_after(WEIR_SECOND / 2); weir_now() < end;)
        if (weir_pool_collect(pool, &done, 1, end) == 1)
            take(&done);
    assert_true(look_at(pool).workers_started < 20); /* there are pauses between */
    weir_pool_destroy(pool);
    assert_each_came_back_once();
}

/* ---- the parent dies, and nothing leaks ------------------------------------------------------- */

/* A process that is only to be reaped is gone. */
static bool is_gone(pid_t pid)
{
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return true;
    char *got = fgets(line, sizeof line, file);
    fclose(file);
    char *name_end = got ? strrchr(line, ')') : NULL;
    return !name_end || name_end[2] == 'Z' || name_end[2] == 'X';
}

/* Without those of shared limits, which other programs may have just now. */
static unsigned count_shm_names(void)
{
    unsigned n = 0;
    char limits[32];
    int length = snprintf(limits, sizeof limits, "weir-%d-", (int)geteuid());
    struct dirent *entry;
    DIR *dir = opendir("/dev/shm");
    while (dir && (entry = readdir(dir)))
        n += strstr(entry->d_name, "weir") && strncmp(entry->d_name, limits, (size_t)length) != 0;
    if (dir)
        closedir(dir);
    return n;
}

static void nothing_is_left_when_the_parent_is_killed(void **state)
{
    (void)state;
    unsigned names_before = count_shm_names();
    int pipes[2];
    pid_t pids[3];
    must(pipe(pipes) == 0);
    memset(board, 0, sizeof *board);
    pid_t parent = fork();
    must(parent >= 0);
    if (parent == 0) {
        weir_pool *pool = create(3, 5);
        weir_completion done;
        for (uintptr_t tag = 0; tag < 20; tag++) /* some large, some not started */
            submit_order(pool, tag, 16 + (tag % 4) * 300000, (order){HOLD}, NULL);
        while (board->begun < 3)
            weir_pool_collect(pool, &done, 1, weir_after(WEIR_MILLISECOND));
        must(weir_pool_pids(pool, pids, 3) == 3);
        must(write(pipes[1], pids, sizeof pids) == sizeof pids);
        pause();
    }
    must(read(pipes[0], pids, sizeof pids) == sizeof pids);
    close(pipes[0]);
    close(pipes[1]);
    kill(pids[2], SIGSTOP); /* a stopped process dies of SIGKILL only when it goes on: see below */
    weir_time before = weir_now();
    kill(parent, SIGKILL);
    soon(is_gone(pids[0]) && is_gone(pids[1]));
    assert_true(weir_now() - before < WEIR_SECOND);
    kill(pids[2], SIGCONT); /* its watcher was stopped, too */
    before = weir_now();
    soon(is_gone(pids[2]));
    assert_true(weir_now() - before < WEIR_SECOND);
    must(waitpid(parent, NULL, 0) == parent);
    assert_int_equal(count_shm_names(), names_before);
}

static size_t resident_pages(void)
{
    size_t all = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    must(file && fscanf(file, "%zu %zu", &all, &resident) == 2);
    fclose(file);
    return resident;
}

static void fifty_pools_leave_as_much_as_one(void **state)
{
    (void)state;
    int fds_before = count_fds();
    size_t pages_before = 0;
    for (int i = 0; i < 50; i++) {
        weir_pool *pool = create(2, 0);
        board->gate_open = 1;
        submit(pool, 0, 16);
        submit(pool, 1, 500000);
        submit_order(pool, 2, 2000, (order){i % 2 ? DIE : ECHO, AT_ONCE}, NULL);
        submit(pool, 3, 400000);
        weir_completion done;
        assert_int_equal(weir_pool_collect(pool, &done, 1, weir_after(PATIENCE)), 1);
        take(&done);
        weir_pool_destroy(pool); /* with whatever is inside */
        assert_each_came_back_once();
        assert_nothing_is_left(fds_before);
        if (i == 20)
            pages_before = resident_pages();
    }
    assert_true(resident_pages() < pages_before + 2000); /* 8 MiB: what allocators keep */
}

int main(int argc, char **argv)
{
    main_thread = pthread_self();
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(board != MAP_FAILED);
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_one_allocation_may_fail),
        cmocka_unit_test(all_allocations_may_fail_from_any_one_on),
        cmocka_unit_test(any_one_reservation_of_shared_memory_may_fail),
        cmocka_unit_test(all_reservations_may_fail_from_any_one_on),
        cmocka_unit_test(any_one_mapping_may_fail),
        cmocka_unit_test(any_one_fork_may_fail),
        cmocka_unit_test(any_one_call_may_fail_in_every_worker),
        cmocka_unit_test(a_worker_that_cannot_map_a_payload_fails_that_task_and_takes_the_next),
        cmocka_unit_test(create_fails_at_each_descriptor_and_keeps_none),
        cmocka_unit_test(tasks_are_not_started_without_a_descriptor_for_a_worker),
        cmocka_unit_test(one_descriptor_is_enough_for_one_worker),
        cmocka_unit_test(create_without_shared_memory_leaves_nothing_behind),
        cmocka_unit_test(a_pool_without_shared_memory_refuses_large_tasks_and_goes_on),
        cmocka_unit_test(a_large_reply_without_shared_memory_is_an_outcome),
        cmocka_unit_test(a_worker_with_an_impossible_reply_is_killed_and_its_task_died),
        cmocka_unit_test(nonsense_over_tasks_that_it_has_not_claimed_loses_none),
        cmocka_unit_test(random_bytes_over_a_whole_seat_lose_no_task),
        cmocka_unit_test(a_worker_that_wants_more_memory_than_there_is_delays_nobody),
        cmocka_unit_test(a_worker_with_an_impossible_state_is_replaced),
        cmocka_unit_test(a_worker_that_denies_having_begun_its_task_is_not_replaced_for_ever),
        cmocka_unit_test(nothing_is_left_when_the_parent_is_killed),
        cmocka_unit_test(fifty_pools_leave_as_much_as_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
