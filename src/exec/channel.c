/* channel.c - making, opening and mapping the shared file; see channel.h. */
#include "exec/channel.h"

#include <string.h>
#include <unistd.h>

#include "base/memfd.h"
#include "base/park.h"

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static uint64_t seats_offset(void)
{
    return round_up(sizeof(weir__channel_header), 4096);
}

static uint64_t control_size(unsigned seats)
{
    return round_up(seats_offset() + (uint64_t)seats * sizeof(weir__seat), WEIR__UNIT);
}

static void locate(weir__channel *channel)
{
    channel->seats = (weir__seat *)((char *)channel->header + seats_offset());
}

int weir__channel_create(weir__channel *channel, unsigned seats)
{
    uint64_t size = control_size(seats);
    int rc = weir__memfd_create(&channel->memory_fd, "weir");
    if (rc < 0)
        return rc;
    rc = weir__memfd_reserve(channel->memory_fd, 0, seats_offset());
    if (rc == 0) /* and as long as its mapping, whatever else is reserved */
        rc = weir__memfd_reserve(channel->memory_fd, size - 4096, 4096);
    if (rc == 0) {
        channel->header = weir__memfd_map(channel->memory_fd, 0, size);
        if (!channel->header)
            rc = WEIR_ENOMEM;
    }
    if (rc < 0) {
        close(channel->memory_fd);
        return rc;
    }
    channel->mapped = size;
    channel->header->magic = WEIR__CHANNEL_MAGIC;
    channel->header->version = WEIR__CHANNEL_VERSION;
    channel->header->seats = seats;
    channel->header->arena_offset = size;
    locate(channel);
    return 0;
}

/* What a stranger's file says is checked before it is believed. */
static int check_header(const weir__channel_header *header)
{
    if (header->magic != WEIR__CHANNEL_MAGIC || header->version != WEIR__CHANNEL_VERSION)
        return WEIR_EINVAL;
    if (header->seats == 0 || header->seats > 1u << 16 ||
        header->arena_offset != control_size(header->seats))
        return WEIR_EINVAL;
    return 0;
}

int weir__channel_open(weir__channel *channel, int memory_fd)
{
    uint64_t file_size;
    if (weir__memfd_size(memory_fd, &file_size) < 0 || file_size < seats_offset())
        return WEIR_EINVAL;
    weir__channel_header *header = weir__memfd_map(memory_fd, 0, seats_offset());
    if (!header)
        return WEIR_EINVAL; /* not a file that can be mapped and written */
    int rc = check_header(header);
    size_t size = rc == 0 ? header->arena_offset : 0;
    weir__memfd_unmap(header, seats_offset());
    if (rc < 0)
        return rc;
    channel->header = weir__memfd_map(memory_fd, 0, size);
    if (!channel->header)
        return WEIR_ENOMEM;
    channel->memory_fd = memory_fd;
    channel->mapped = size;
    locate(channel);
    return 0;
}

int weir__channel_prepare_seat(weir__channel *channel, unsigned seat, uint64_t extent_offset,
                               const weir__seat_terms *terms)
{
    int rc = weir__memfd_reserve(channel->memory_fd, seats_offset() + seat * sizeof(weir__seat),
                                 sizeof(weir__seat));
    if (rc < 0)
        return rc;
    weir__seat *at = &channel->seats[seat];
    /* Its last process is dead and the next one not started, but a thread of ours may still be
     * ringing: so `bell` goes on counting, and atomics are stored as such. */
    at->tasks_max = terms->tasks_max;
    at->rss_max = terms->rss_max;
    at->measures = terms->measures;
    at->extent_offset = extent_offset;
    at->grant_offset = 0;
    at->grant_filled = 0;
    at->fail_size = 0;
    atomic_store_explicit(&at->leave, 0, memory_order_relaxed);
    atomic_store_explicit(&at->extent_tail, 0, memory_order_relaxed);
    atomic_store_explicit(&at->grant, GRANT_NONE, memory_order_relaxed);
    atomic_store_explicit(&at->asleep, 0, memory_order_relaxed);
    atomic_store_explicit(&at->state, SEAT_STARTING, memory_order_relaxed);
    atomic_store_explicit(&at->want, 0, memory_order_relaxed);
    atomic_store_explicit(&at->peak_rss, 0, memory_order_relaxed);
    atomic_store_explicit(&at->collected, 0, memory_order_relaxed);
    atomic_store_explicit(&at->returned, 0, memory_order_relaxed);
    atomic_store_explicit(&at->returns_taken, 0, memory_order_relaxed);
    for (unsigned i = 0; i < WEIR__SLOTS; i++)
        atomic_store_explicit(&at->slots[i].state, SLOT_FREE, memory_order_relaxed);
    return 0;
}

/* A seat that was prepared, in a file that is as long as it says. */
bool weir__channel_has_seat(const weir__channel *channel, unsigned seat)
{
    uint64_t file_size;
    if (seat >= channel->header->seats || weir__memfd_size(channel->memory_fd, &file_size) < 0 ||
        file_size < channel->mapped)
        return false;
    uint64_t extent = channel->seats[seat].extent_offset;
    return extent % 4096 == 0 && extent >= channel->header->arena_offset && extent <= file_size &&
           file_size - extent >= WEIR__EXTENT;
}

void weir__channel_fini(weir__channel *channel)
{
    weir__memfd_unmap(channel->header, channel->mapped);
    close(channel->memory_fd);
}

uint64_t weir__size_of_parts(const weir_bytes *parts, size_t n_parts)
{
    uint64_t size = 0;
    for (size_t i = 0; i < n_parts; i++)
        size += parts[i].size;
    return size;
}

void weir__copy_parts(void *to, const weir_bytes *parts, size_t n_parts)
{
    char *at = to;
    for (size_t i = 0; i < n_parts; i++) {
        if (parts[i].size)
            memcpy(at, parts[i].data, parts[i].size);
        at += parts[i].size;
    }
}

int weir__write_parts(int memory_fd, uint64_t offset, const weir_bytes *parts, size_t n_parts)
{
    int rc = 0;
    for (size_t i = 0; i < n_parts && rc == 0; i++) {
        rc = weir__memfd_write(memory_fd, offset, parts[i].data, parts[i].size);
        offset += parts[i].size;
    }
    return rc;
}

void weir__ring_worker(weir__seat *seat)
{
    /* pairs with the fence in worker.c between raising `asleep` and its recheck */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&seat->asleep, memory_order_relaxed)) {
        atomic_fetch_add_explicit(&seat->bell, 1, memory_order_release);
        weir__futex_wake(&seat->bell, 1, true);
    }
}
