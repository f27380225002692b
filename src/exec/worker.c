/* worker.c - the worker's end of the channel; the contract is in weir/worker.h, the protocol in
 * channel.h.
 *
 * Invariant:  slots [0, next) are behind us for good; at most one slot is RUNNING: `current`.
 * Crash:      every step that the parent must learn of is one atomic store; dying before it means
 *             that the step did not happen.
 * Leases:     a payload that is kept past its reply is the worker's until its offset goes back
 *             through the ring `returns`; one that does not fit there waits in `untold`.  Any thread
 *             may release: `leases` protects the lease of the current task, `untold`, and the ring's
 *             writing end.
 */
#include <weir/worker.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bell.h"
#include "base/memfd.h"
#include "base/memory.h"
#include "base/page.h"
#include "base/mutex.h"
#include "base/park.h"
#include "exec/channel.h"

#define PEAK_RSS_EVERY    (10 * WEIR_MILLISECOND) /* when tasks end */
#define PEAK_RSS_EVERY_MS 500                     /* while one runs */

/* Where a range of the file is seen; at NULL: nothing is mapped. */
struct mapping {
    void *at;
    uint64_t offset;
    size_t size;
};

/* The right to a task's data past its reply. */
struct weir_lease {
    uint64_t offset; /* of the block */
    void *mapping;   /* its own, once the task has had its reply; NULL: in a unit */
    size_t mapped;
    void *data;
    size_t size;
    bool unshared;
    bool released;           /* but not to be given back before the reply */
    struct weir_lease *next; /* in `untold` */
};

struct weir_worker {
    weir__channel channel;
    weir__seat *seat;
    weir__slot *current; /* RUNNING; NULL: none */
    void *data;          /* of its task */
    uint64_t next;       /* slots passed since the start */
    uint64_t taken;
    uint64_t out_head; /* stream position in the extent; see extent_has */
    uint64_t out_size; /* of the reply that waits for room there */
    void *extent;
    void **units; /* mapped small-block units, by number; NULL: not mapped yet */
    size_t units_size;
    struct mapping large; /* the last large payload's; stays for a next one that lies there */
    struct mapping out;   /* the last large reply's, likewise */
    struct {              /* the current batch */
        char *at;         /* where its replies go; NULL: nowhere yet */
        uint32_t filled;  /* items with a reply */
        uint32_t bytes;   /* of those */
        bool claimed;     /* an item is, and has no reply yet */
        bool refused;     /* a block was: not asked for again */
        bool full;        /* no further item may begin here */
    } batch;
    weir__mutex leases;
    weir_lease *lease; /* of the current task; NULL: none, or released */
    weir_lease *untold;
    bool leased; /* the current task's data has been kept; the serving thread's own */
    pid_t pid;
    weir_time began;              /* the current task */
    weir_time peak_told;          /* when peak_rss was last written */
    _Atomic uint64_t peak_before; /* of this process, before it was reset last; also read by the
                                     watcher.  relaxed: it stands for itself */
    uint64_t ready_rss;           /* when it was ready */
    bool can_reset;               /* its peak, to measure that of each task */
    bool is_too_large;            /* it leaves before the next task */
    weir_time rss_seen;
    int bell_fd, parent_fd;
    pthread_t watcher;
};

/* ---- opening and closing ------------------------------------------------------------------- */

/* What the parent tells of us when we are dead. */
static void tell_peak_rss(weir_worker *worker)
{
    uint64_t peak = weir__peak_rss_of_self();
    uint64_t before = atomic_load_explicit(&worker->peak_before, memory_order_relaxed);
    atomic_store_explicit(&worker->seat->peak_rss, peak > before ? peak : before,
                          memory_order_relaxed);
}

/* ---- measuring tasks ----------------------------------------------------------------------- */

#define VERY_SHORT (WEIR_MILLISECOND)      /* a measurement takes some 20 us */
#define RSS_EVERY  (10 * WEIR_MILLISECOND) /* when tasks are shorter */

static const weir__memory_roots kernel;

/* Lets the next task's peak be seen; the watcher may tell the one before. */
static void reset_peak(weir_worker *worker)
{
    uint64_t peak = weir__peak_rss_of_self();
    if (peak > atomic_load_explicit(&worker->peak_before, memory_order_relaxed))
        atomic_store_explicit(&worker->peak_before, peak, memory_order_relaxed);
    worker->can_reset = weir__peak_rss_reset();
}

static void begin_measuring(weir_worker *worker)
{
    if (!worker->seat->measures)
        return;
    worker->ready_rss = weir__rss_of(&kernel, 0);
    reset_peak(worker);
}

/* Of the task that ends, and those before it that were not measured.  Where the kernel does not allow
 * a reset, it is known only if it is the highest of all; else what is left of it. */
static uint64_t measure_peak(weir_worker *worker)
{
    uint64_t peak = weir__peak_rss_of(&kernel, 0);
    if (!worker->can_reset &&
        peak <= atomic_load_explicit(&worker->peak_before, memory_order_relaxed))
        peak = weir__rss_of(&kernel, 0);
    reset_peak(worker);
    return peak > worker->ready_rss ? peak - worker->ready_rss : 1;
}

static void measure(weir_worker *worker, weir__slot *slot, weir_time now)
{
    const weir__seat *seat = worker->seat;
    bool is_short = now - worker->began < VERY_SHORT;
    slot->peak_bytes = 0;
    if (seat->measures && !is_short)
        slot->peak_bytes = measure_peak(worker);
    if (seat->rss_max && (!is_short || now - worker->rss_seen > RSS_EVERY)) {
        worker->rss_seen = now;
        worker->is_too_large = weir__rss_of(&kernel, 0) > seat->rss_max;
    }
}

/* Ends the process when the parent has ended, whatever this process is doing then. */
static void *watch_parent(void *arg)
{
    weir_worker *worker = arg;
    struct pollfd parent = {.fd = worker->parent_fd, .events = POLLIN};
    while (poll(&parent, 1, PEAK_RSS_EVERY_MS) < 1)
        tell_peak_rss(worker); /* during a long task nobody else does */
    kill(getpid(), SIGKILL);
    return NULL;
}

static int start_watcher(weir_worker *worker)
{
    sigset_t all, before;
    pthread_attr_t attr;
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 << 10);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&worker->watcher, &attr, watch_parent, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return err ? WEIR_ESYSTEM : 0;
}

int weir_worker_open(weir_worker **ret_worker, const weir_worker_ticket *ticket)
{
    weir_worker *worker = weir__calloc(1, sizeof *worker);
    if (!worker)
        return WEIR_ENOMEM;
    weir__mutex_init(&worker->leases);
    worker->pid = getpid();
    worker->bell_fd = ticket->bell_fd;
    worker->parent_fd = ticket->parent_fd;
    int rc = weir__channel_open(&worker->channel, ticket->memory_fd);
    if (rc < 0)
        goto fail;
    rc = WEIR_EINVAL;
    if (!weir__channel_has_seat(&worker->channel, ticket->seat))
        goto fail_mapped;
    worker->seat = &worker->channel.seats[ticket->seat];
    rc = WEIR_ENOMEM;
    worker->extent = weir__memfd_map(ticket->memory_fd, worker->seat->extent_offset, WEIR__EXTENT);
    if (!worker->extent)
        goto fail_mapped;
    rc = start_watcher(worker);
    if (rc < 0)
        goto fail_extent;
    weir__page_set_parent((pid_t)worker->channel.header->parent);
    *ret_worker = worker;
    return 0;

fail_extent:
    weir__memfd_unmap(worker->extent, WEIR__EXTENT);
fail_mapped:
    weir__memfd_unmap(worker->channel.header, worker->channel.mapped);
fail:
    weir__mutex_fini(&worker->leases);
    weir__free(worker);
    return rc;
}

static void unmap(struct mapping *mapping)
{
    weir__memfd_unmap(mapping->at, mapping->size);
    mapping->at = NULL;
}

void weir_worker_close(weir_worker *worker)
{
    if (!worker)
        return;
    pthread_cancel(worker->watcher); /* poll is a cancellation point */
    pthread_join(worker->watcher, NULL);
    unmap(&worker->large);
    unmap(&worker->out);
    for (weir_lease *lease = worker->untold, *next; lease; lease = next) {
        next = lease->next;
        weir__free(lease);
    }
    for (size_t i = 0; i < worker->units_size; i++)
        weir__memfd_unmap(worker->units[i], WEIR__UNIT);
    weir__free(worker->units);
    weir__memfd_unmap(worker->extent, WEIR__EXTENT);
    close(worker->bell_fd);
    close(worker->parent_fd);
    weir__channel_fini(&worker->channel);
    weir__mutex_fini(&worker->leases);
    weir__free(worker);
}

/* ---- telling the parent -------------------------------------------------------------------- */

/* After whatever the parent is to see has been stored. */
static void ring_parent(weir_worker *worker)
{
    /* pairs with the fence in pool.c between raising collector_asleep and its recheck */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&worker->channel.header->collector_asleep, memory_order_relaxed))
        weir__bell_ring(worker->bell_fd);
}

static void set_state(weir_worker *worker, uint32_t state)
{
    /* release: publishes the failure message; pairs with the acquire in pool.c */
    atomic_store_explicit(&worker->seat->state, state, memory_order_release);
    ring_parent(worker);
}

void weir_worker_ready(weir_worker *worker)
{
    if (atomic_load_explicit(&worker->seat->state, memory_order_relaxed) != SEAT_STARTING)
        return;
    tell_peak_rss(worker);
    begin_measuring(worker);
    set_state(worker, SEAT_READY);
}

void weir_worker_fail(weir_worker *worker, const void *message, size_t size)
{
    if (size > WEIR__FAIL_BYTES)
        size = WEIR__FAIL_BYTES;
    memcpy(worker->seat->fail, message, size);
    worker->seat->fail_size = (uint32_t)size;
    set_state(worker, SEAT_FAILED);
}

/* ---- leases -------------------------------------------------------------------------------- */

static bool returns_have_room(const weir_worker *worker)
{
    /* acquire: pairs with the release of take_returns in collect.c; it has read what it took */
    uint64_t taken = atomic_load_explicit(&worker->seat->returns_taken, memory_order_acquire);
    return atomic_load_explicit(&worker->seat->returned, memory_order_relaxed) - taken <
           WEIR__RETURNS; /* ours */
}

/* Under `leases`: gives back what was released, as far as there is room. */
static void tell_returns(weir_worker *worker)
{
    weir__seat *seat = worker->seat;
    while (worker->untold && returns_have_room(worker)) {
        weir_lease *lease = worker->untold;
        worker->untold = lease->next;
        uint64_t returned = atomic_load_explicit(&seat->returned, memory_order_relaxed); /* ours */
        seat->returns[returned % WEIR__RETURNS] = lease->offset;
        /* release: publishes the offset; pairs with the acquire of take_returns in collect.c */
        atomic_store_explicit(&seat->returned, returned + 1, memory_order_release);
        weir__free(lease);
    }
}

/* The ring was full, and has room now: the parent rings then.  A release between this look and the
 * sleep finds the room itself, for the lock orders it after. */
static bool can_tell_returns(weir_worker *worker)
{
    weir__lock(&worker->leases);
    bool can = worker->untold && returns_have_room(worker);
    weir__unlock(&worker->leases);
    return can;
}

/* Under `leases`, after the reply: the block goes back.  Its own mapping goes; in a unit its pages are
 * the unit's again, and if they cannot be, nobody gets the block any more. */
static void give_back(weir_worker *worker, weir_lease *lease)
{
    bool shared = !lease->unshared || worker->channel.header->guards_payloads;
    weir__memfd_unmap(lease->mapping, lease->mapped);
    if (!lease->mapping && !shared &&
        !weir__memfd_remap(worker->channel.memory_fd, lease->offset, lease->size, lease->data,
                           true)) {
        weir__free(lease);
        return;
    }
    lease->next = worker->untold;
    worker->untold = lease;
    tell_returns(worker);
}

/* The reply of a task whose data was kept: says whether it still is.  Whoever releases it does so
 * before, and the block goes with the task, or after, and it comes back through the ring. */
static void finish_leased(weir_worker *worker, weir__slot *slot)
{
    weir__lock(&worker->leases);
    weir_lease *lease = worker->lease;
    slot->kept = lease != NULL;
    if (lease && worker->large.at && worker->large.offset == lease->offset) {
        lease->mapping = worker->large.at;
        lease->mapped = worker->large.size;
        worker->large.at = NULL;
    }
    worker->lease = NULL;
    worker->leased = false;
    /* release: as below, and before the offset can appear in the ring */
    atomic_store_explicit(&slot->state, SLOT_DONE, memory_order_release);
    if (lease && lease->released)
        give_back(worker, lease);
    weir__unlock(&worker->leases);
}

int weir_worker_keep(weir_worker *worker, weir_lease **ret_lease, void **ret_data)
{
    weir__slot *slot = worker->current;
    if (!slot || slot->is_batch || slot->in_offset == 0 || slot->in_size < WEIR__LEASE_MIN ||
        worker->leased)
        return WEIR_EINVAL;
    weir_lease *lease = weir__calloc(1, sizeof *lease);
    if (!lease)
        return WEIR_ENOMEM;
    lease->offset = slot->in_offset;
    lease->data = worker->data;
    lease->size = slot->in_size;
    weir__lock(&worker->leases);
    worker->lease = lease;
    weir__unlock(&worker->leases);
    worker->leased = true;
    *ret_lease = lease;
    *ret_data = worker->data;
    return 0;
}

void weir_worker_unshare(weir_worker *worker, weir_lease *lease)
{
    if (!lease->unshared && !worker->channel.header->guards_payloads)
        weir__memfd_remap(worker->channel.memory_fd, lease->offset, lease->size, lease->data,
                          false);
    lease->unshared = true;
}

void weir_worker_release(weir_worker *worker, weir_lease *lease)
{
    if (!lease)
        return;
    if (worker->pid != getpid()) { /* a child of the worker's: the block is not its to give back */
        weir__memfd_unmap(lease->mapping, lease->mapped);
        weir__free(lease);
        return;
    }
    weir__lock(&worker->leases);
    bool replied = lease != worker->lease;
    if (replied) {
        give_back(worker, lease);
    } else if (lease->unshared) {
        lease->released = true; /* its pages are not what the parent sees: not before the reply */
    } else {
        worker->lease = NULL;
        weir__free(lease);
    }
    weir__unlock(&worker->leases);
    if (replied)
        ring_parent(worker);
}

void weir_worker_get_positions(const weir_worker *worker, uint64_t *ret_replied, uint64_t *ret_read)
{
    *ret_replied = worker->next;
    /* acquire: pairs with the release of release_batch in collect.c */
    *ret_read = atomic_load_explicit(&worker->seat->collected, memory_order_acquire);
}

/* ---- finishing ----------------------------------------------------------------------------- */

static void finish(weir_worker *worker, uint32_t out_kind)
{
    weir__slot *slot = worker->current;
    weir_time now = weir_now();
    slot->out_kind = out_kind;
    slot->service_ns = now - worker->began;
    worker->current = NULL;
    measure(worker, slot, now);
    if (now - worker->peak_told > PEAK_RSS_EVERY) {
        worker->peak_told = now;
        tell_peak_rss(worker);
    }
    if (worker->leased) {
        finish_leased(worker, slot);
    } else {
        slot->kept = 0;
        /* release: publishes the reply; pairs with the acquire in pool.c's scan */
        atomic_store_explicit(&slot->state, SLOT_DONE, memory_order_release);
    }
    ring_parent(worker);
}

/* ---- sleeping ------------------------------------------------------------------------------ */

/* Sleeps until the parent rings, unless `ready` holds already. */
static int sleep_unless(weir_worker *worker, bool (*ready)(const weir_worker *), weir_time deadline)
{
    weir__seat *seat = worker->seat;
    /* acquire: a ring after this read makes the futex call return at once */
    uint32_t rings = atomic_load_explicit(&seat->bell, memory_order_acquire);
    atomic_store_explicit(&seat->asleep, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with weir__ring_worker's */
    int rc = ready(worker) ? 0 : weir__futex_wait(&seat->bell, rings, deadline, true);
    atomic_store_explicit(&seat->asleep, 0, memory_order_relaxed);
    return rc;
}

static weir__slot *next_slot(const weir_worker *worker)
{
    return &worker->seat->slots[worker->next % WEIR__SLOTS];
}

static bool told_to_leave(const weir_worker *worker)
{
    return atomic_load_explicit(&worker->seat->leave, memory_order_acquire) != 0;
}

static bool something_dealt(const weir_worker *worker)
{
    uint32_t state = atomic_load_explicit(&next_slot(worker)->state, memory_order_acquire);
    return state == SLOT_READY || state == SLOT_REVOKED || told_to_leave(worker) ||
           can_tell_returns((weir_worker *)worker);
}

/* ---- taking -------------------------------------------------------------------------------- */

/* Claims the next slot that was not revoked. */
static int claim(weir_worker *worker, weir_time deadline)
{
    bool skipped = false; /* slots became free, and the parent does not know */
    for (;;) {
        weir__slot *slot = next_slot(worker);
        uint32_t state = SLOT_READY;
        /* before the slot is looked at: what was dealt before it was told is still run */
        bool leaves = told_to_leave(worker);
        /* acquire: pairs with the release of deal in pool.c; the compare-exchange decides against
         * a revoke.  relaxed: of a slot that is not ours nothing is read */
        if (atomic_compare_exchange_strong_explicit(&slot->state, &state, SLOT_RUNNING,
                                                    memory_order_acquire, memory_order_relaxed)) {
            worker->next++;
            worker->current = slot;
            return 0;
        }
        if (state == SLOT_REVOKED) {
            /* release: the parent may deal into it again; nothing of ours is read after */
            atomic_store_explicit(&slot->state, SLOT_SKIPPED, memory_order_release);
            worker->next++;
            skipped = true;
            continue;
        }
        if (skipped) {
            ring_parent(worker);
            skipped = false;
        }
        if (leaves) {
            set_state(worker, SEAT_LEAVING);
            return WEIR_ECLOSED;
        }
        weir__lock(&worker->leases);
        tell_returns(worker);
        weir__unlock(&worker->leases);
        if (deadline == WEIR_POLL)
            return WEIR_EEMPTY;
        int rc = sleep_unless(worker, something_dealt, deadline);
        if (rc < 0)
            return rc;
    }
}

/* The worker's mapping of a unit of small blocks; they stay. */
static void *map_unit(weir_worker *worker, uint64_t number)
{
    if (number >= worker->units_size) {
        size_t size = number + 8;
        void **units = weir__realloc(worker->units, size * sizeof *units);
        if (!units)
            return NULL;
        memset(units + worker->units_size, 0, (size - worker->units_size) * sizeof *units);
        worker->units = units;
        worker->units_size = size;
    }
    if (!worker->units[number])
        worker->units[number] =
            weir__memfd_map(worker->channel.memory_fd,
                            worker->channel.header->arena_offset + number * WEIR__UNIT, WEIR__UNIT);
    return worker->units[number];
}

/* Makes `mapping` one of at least [offset, offset + size) of the file; NULL: cannot. */
static void *map_at(weir_worker *worker, struct mapping *mapping, uint64_t offset, size_t size,
                    void *(*map)(int, uint64_t, size_t))
{
    if (mapping->at && mapping->offset == offset && mapping->size >= size)
        return mapping->at;
    unmap(mapping);
    *mapping = (struct mapping){map(worker->channel.memory_fd, offset, size), offset, size};
    return mapping->at;
}

/* Where this process sees [offset, offset + size) of the file; NULL: cannot be mapped. */
static void *locate_block(weir_worker *worker, uint64_t offset, uint64_t size)
{
    bool guarded = worker->channel.header->guards_payloads;
    if (size <= WEIR__SMALL_MAX && !(guarded && size >= WEIR__LEASE_MIN)) {
        uint64_t within = offset - worker->channel.header->arena_offset;
        char *unit = map_unit(worker, within / WEIR__UNIT);
        return unit ? unit + within % WEIR__UNIT : NULL;
    }
    return map_at(worker, &worker->large, offset, size,
                  guarded ? weir__memfd_map_private : weir__memfd_map);
}

int weir_worker_take(weir_worker *worker, weir_task *ret_task, weir_time deadline)
{
    if (worker->current)
        return WEIR_EINVAL;
    weir_worker_ready(worker);
    if (worker->channel.header->guards_payloads)
        unmap(&worker->large); /* with what was written there */
    if (worker->is_too_large ||
        (worker->seat->tasks_max && worker->taken == worker->seat->tasks_max)) {
        set_state(worker, SEAT_LEAVING);
        return WEIR_ECLOSED;
    }
    int rc = claim(worker, deadline);
    if (rc < 0)
        return rc;
    worker->taken++;
    worker->began = weir_now();
    memset(&worker->batch, 0, sizeof worker->batch);
    weir__slot *slot = worker->current;
    void *data = slot->in;
    if (slot->in_offset)
        data = locate_block(worker, slot->in_offset, slot->in_size);
    if (!data) {
        finish(worker, OUT_NO_MEMORY);
        return WEIR_ENOSHM;
    }
    worker->data = data;
    *ret_task = (weir_task){
        .id = slot->id, .data = data, .size = slot->in_size, .is_batch = slot->is_batch != 0};
    return 0;
}

/* ---- replying ------------------------------------------------------------------------------ */

/* The extent is a ring of bytes: positions grow for ever, a reply lies in one piece at
 * position % EXTENT, and [extent_tail, out_head) is not released yet. */
static bool extent_has(const weir_worker *worker, uint64_t size, uint64_t *ret_position)
{
    /* acquire: pairs with the release in pool.c; the parent has read what it released */
    uint64_t tail = atomic_load_explicit(&worker->seat->extent_tail, memory_order_acquire);
    uint64_t at = worker->out_head;
    if (at % WEIR__EXTENT + size > WEIR__EXTENT)
        at += WEIR__EXTENT - at % WEIR__EXTENT;
    *ret_position = at;
    return tail == worker->out_head || at + size - tail <= WEIR__EXTENT;
}

static bool extent_has_room(const weir_worker *worker)
{
    uint64_t position;
    return extent_has(worker, worker->out_size, &position);
}

/* Waits for room; where it is. */
static char *extent_room(weir_worker *worker, uint64_t size)
{
    uint64_t position;
    worker->out_size = size;
    while (!extent_has(worker, size, &position))
        sleep_unless(worker, extent_has_room, WEIR_FOREVER);
    worker->current->out_offset = position;
    return (char *)worker->extent + position % WEIR__EXTENT;
}

static void reply_by_extent(weir_worker *worker, const weir_bytes *parts, size_t n_parts,
                            uint64_t size)
{
    weir__copy_parts(extent_room(worker, size), parts, n_parts);
    worker->out_head = worker->current->out_offset + size;
    finish(worker, OUT_EXTENT);
}

static bool grant_answered(const weir_worker *worker)
{
    /* acquire: pairs with the release in pool.c; publishes grant_offset */
    return atomic_load_explicit(&worker->seat->grant, memory_order_acquire) != GRANT_NONE;
}

/* Writes a reply into a block of the parent's.  One without memory is written through the file:
 * there, running out is an error. */
static int write_block(weir_worker *worker, uint64_t offset, bool filled, const weir_bytes *parts,
                       size_t n_parts, uint64_t size)
{
    if (!filled)
        return weir__write_parts(worker->channel.memory_fd, offset, parts, n_parts);
    void *at = map_at(worker, &worker->out, offset, size, weir__memfd_map);
    if (!at)
        return WEIR_ENOSHM;
    weir__copy_parts(at, parts, n_parts);
    return 0;
}

/* Asks the parent for a block and writes the parts there; < 0: there is none.  The block belongs to
 * this seat until the slot is collected. */
static int fill_block(weir_worker *worker, const weir_bytes *parts, size_t n_parts, uint64_t size)
{
    weir__seat *seat = worker->seat;
    atomic_store_explicit(&seat->want, size, memory_order_relaxed); /* as in grant of collect.c */
    ring_parent(worker);
    while (!grant_answered(worker))
        sleep_unless(worker, grant_answered, WEIR_FOREVER);
    bool given = atomic_load_explicit(&seat->grant, memory_order_relaxed) == GRANT_GIVEN;
    uint64_t offset = seat->grant_offset;
    bool filled = seat->grant_filled;
    int rc = given ? write_block(worker, offset, filled, parts, n_parts, size) : WEIR_ENOSHM;
    /* relaxed: the parent, which has answered, looks at neither before it has collected the reply;
     * that is published later */
    atomic_store_explicit(&seat->want, 0, memory_order_relaxed);
    atomic_store_explicit(&seat->grant, GRANT_NONE, memory_order_relaxed);
    return rc;
}

static int reply_by_block(weir_worker *worker, const weir_bytes *parts, size_t n_parts,
                          uint64_t size)
{
    int rc = fill_block(worker, parts, n_parts, size);
    finish(worker, rc == 0 ? OUT_BLOCK : OUT_REFUSED);
    return rc;
}

int weir_worker_reply(weir_worker *worker, int32_t status, const weir_bytes *parts, size_t n_parts)
{
    weir__slot *slot = worker->current;
    if (!slot || slot->is_batch)
        return WEIR_EINVAL;
    uint64_t size = weir__size_of_parts(parts, n_parts);
    slot->status = status;
    slot->out_size = size;
    if (size > WEIR__EXTENT_MAX)
        return reply_by_block(worker, parts, n_parts, size);
    if (size > WEIR__OUT_BYTES) {
        reply_by_extent(worker, parts, n_parts, size);
        return 0;
    }
    weir__copy_parts(slot->out, parts, n_parts);
    finish(worker, OUT_INLINE);
    return 0;
}

/* Whether the current task's block may go to the parent as it is. */
static bool can_give_block(weir_worker *worker)
{
    weir__lock(&worker->leases);
    bool kept = worker->lease != NULL;
    weir__unlock(&worker->leases);
    return worker->current->in_offset != 0 && !kept && !worker->channel.header->guards_payloads;
}

int weir_worker_reply_in_place(weir_worker *worker, int32_t status, const void *head,
                               size_t head_size)
{
    weir__slot *slot = worker->current;
    if (!slot || slot->is_batch || head_size > slot->in_size)
        return WEIR_EINVAL;
    if (!can_give_block(worker)) {
        weir_bytes parts[] = {{head, head_size},
                              {(char *)worker->data + head_size, slot->in_size - head_size}};
        return weir_worker_reply(worker, status, parts, 2);
    }
    memcpy(worker->data, head, head_size);
    slot->status = status;
    slot->out_size = slot->in_size;
    finish(worker, OUT_TASK);
    return 0;
}

/* ---- a batch ------------------------------------------------------------------------------- */

int weir_worker_next_item(weir_worker *worker, uint32_t *ret_item)
{
    weir__slot *slot = worker->current;
    if (!slot || !slot->is_batch || worker->batch.claimed)
        return WEIR_EINVAL;
    if (worker->batch.full)
        return WEIR_ECLOSED;
    /* relaxed: nothing is published with it; the exchange decides against a cut of the parent's,
     * which reads our progress only when we are dead */
    uint64_t span = atomic_load_explicit(&slot->span, memory_order_relaxed);
    do {
        if ((uint32_t)span >= span >> 32)
            return WEIR_ECLOSED;
    } while (!atomic_compare_exchange_weak_explicit(&slot->span, &span, span + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    worker->batch.claimed = true;
    *ret_item = (uint32_t)span;
    return 0;
}

/* The item's reply is where it belongs: counts it. */
static void count_item(weir_worker *worker, uint64_t size)
{
    worker->batch.filled++;
    worker->batch.bytes += (uint32_t)size;
    worker->batch.claimed = false;
    /* release: publishes the reply, and where it is; pairs with the acquire in batch.c, which
     * reads it when this process is dead */
    atomic_store_explicit(&worker->current->filled,
                          weir__pair(worker->batch.filled, worker->batch.bytes),
                          memory_order_release);
}

/* Moves what the batch has replied so far, with one more item, into a block.  The replies so far
 * lie in both places when out_kind changes. */
static int move_to_block(weir_worker *worker, const weir_bytes *parts, size_t n_parts,
                         uint64_t size)
{
    enum { PARTS_MAX = 16 };
    uint64_t total = worker->batch.bytes + size;
    weir_bytes all[PARTS_MAX] = {{worker->batch.at, worker->batch.bytes}};
    worker->batch.full = true;
    if (n_parts >= PARTS_MAX || total > UINT32_MAX || worker->batch.refused)
        return WEIR_ENOSHM;
    for (size_t i = 0; i < n_parts; i++)
        all[i + 1] = parts[i];
    worker->batch.refused = fill_block(worker, all, n_parts + 1, total) < 0;
    if (worker->batch.refused)
        return WEIR_ENOSHM;
    worker->current->out_kind = OUT_BLOCK;
    count_item(worker, size);
    return 0;
}

int weir_worker_reply_item(weir_worker *worker, const weir_bytes *parts, size_t n_parts)
{
    if (!worker->batch.claimed)
        return WEIR_EINVAL;
    uint64_t size = weir__size_of_parts(parts, n_parts);
    if (!worker->batch.at) {
        worker->batch.at = extent_room(worker, WEIR__EXTENT_MAX);
        worker->current->out_kind = OUT_EXTENT;
    }
    if (size > WEIR__EXTENT_MAX - worker->batch.bytes)
        return move_to_block(worker, parts, n_parts, size);
    weir__copy_parts(worker->batch.at + worker->batch.bytes, parts, n_parts);
    count_item(worker, size);
    worker->batch.full |= WEIR__EXTENT_MAX - worker->batch.bytes < WEIR__BATCH_RESERVE;
    return 0;
}

int weir_worker_end_batch(weir_worker *worker)
{
    weir__slot *slot = worker->current;
    if (!slot || !slot->is_batch || worker->batch.claimed)
        return WEIR_EINVAL;
    slot->status = worker->batch.refused; /* the parent settles what it answered */
    slot->out_size = worker->batch.bytes;
    if (!worker->batch.at) { /* all of it was taken back before it began */
        slot->out_offset = worker->out_head;
        slot->out_kind = OUT_EXTENT;
    }
    if (slot->out_kind == OUT_EXTENT)
        worker->out_head = slot->out_offset + slot->out_size;
    finish(worker, slot->out_kind);
    return 0;
}
