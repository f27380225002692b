/* worker.c - the worker's end of a channel whose file is not what it should be: cut short, of another kind, or
 * written over.  A worker believes what its parent says of tasks; what it opens it does not.
 *
 * Input: how long the file is, and patches of its header and of the seat: where, and a number. */
#include "fuzz.h"

#include <unistd.h>

#include <weir/worker.h>

#include "base/memfd.h"
#include "exec/channel.c" /* for where the parts of the file lie */

#define SEATS 2u

static void make_file(weir__channel *channel)
{
    weir__seat_terms terms = {0};
    must(weir__channel_create(channel, SEATS) == WEIR_OK);
    uint64_t extent = channel->header->arena_offset;
    must(weir__memfd_reserve(channel->memory_fd, extent, WEIR__EXTENT) == WEIR_OK);
    must(weir__channel_prepare_seat(channel, 0, extent, &terms) == WEIR_OK);
}

static void patch(fuzz *f, weir__channel *channel)
{
    char *header = (char *)channel->header, *seat = (char *)channel->seats;
    bool in_header = fuzz_byte(f) & 1;
    size_t at = fuzz_byte(f) * 4u;
    uint64_t number = fuzz_any(f);
    memcpy(in_header ? header + at % 64 : seat + at % 512, &number, fuzz_byte(f) & 1 ? 4 : 8);
}

static void open_worker(int memory_fd, unsigned seat)
{
    int bell[2], parent[2];
    weir_worker *worker;
    must(pipe(bell) == 0 && pipe(parent) == 0);
    weir_worker_ticket ticket = {
        .memory_fd = dup(memory_fd), .bell_fd = bell[1], .parent_fd = parent[0], .seat = seat};
    weir_task task;
    if (weir_worker_open(&worker, &ticket) == WEIR_OK) {
        weir_worker_ready(worker);
        must(weir_worker_take(worker, &task, WEIR_POLL) < 0); /* none was dealt */
        weir_worker_fail(worker, "no", 2);
        weir_worker_close(worker);
    } else {
        close(ticket.memory_fd);
        close(bell[1]);
        close(parent[0]);
    }
    close(bell[0]);
    close(parent[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    weir__channel channel;
    make_file(&channel);
    for (unsigned n = fuzz_byte(&f) % 8; n > 0; n--)
        patch(&f, &channel);
    unsigned seat = fuzz_byte(&f) % 4;
    uint64_t length = fuzz_any(&f);
    if (fuzz_byte(&f) & 1) /* nobody touches it before it is opened: what is cut off is gone */
        must(ftruncate(channel.memory_fd, (off_t)(length % (1 << 24))) == 0);
    open_worker(channel.memory_fd, seat);
    weir__channel_fini(&channel);
    return 0;
}
