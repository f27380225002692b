/* exec/channel.h: a stranger's file is refused and never ends in SIGBUS; a seat begins anew. */
#include "contract/support.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memfd.h"
#include "exec/arena.h"

static int memfd_with(const void *bytes, size_t n, uint64_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    must(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    must(n == 0 || pwrite(fd, bytes, n, 0) == (ssize_t)n);
    return fd;
}

/* What open says of a file of this size that begins with this header; seat < 0: has_seat is not
 * asked.  The child tells a SIGBUS from an answer. */
enum answer { REFUSED, OPENED, HAS_SEAT };

static enum answer ask(int fd, unsigned seat)
{
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        weir__channel channel;
        signal(SIGBUS, SIG_DFL);
        int rc = weir__channel_open(&channel, fd);
        if (rc < 0)
            _exit(rc == WEIR_EINVAL || rc == WEIR_ENOMEM ? REFUSED : 99);
        _exit(weir__channel_has_seat(&channel, seat) ? HAS_SEAT : OPENED);
    }
    int status;
    must(waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) > HAS_SEAT)
        fail_msg("the child ended with status %#x", status);
    return (enum answer)WEXITSTATUS(status);
}

/* A whole channel with one seat prepared of n. */
static weir__channel channel;
static weir__arena arena;
static weir__block extent;

static void make(unsigned seats, unsigned prepared)
{
    assert_int_equal(weir__channel_create(&channel, seats), 0);
    weir__arena_init(&arena, &channel);
    assert_int_equal(weir__arena_alloc(&arena, WEIR__EXTENT, &extent), 0);
    assert_int_equal(weir__channel_prepare_seat(&channel, prepared, extent.offset,
                                                &(weir__seat_terms){.tasks_max = 5}),
                     0);
}

static void unmake(void)
{
    weir__arena_fini(&arena);
    weir__channel_fini(&channel);
}

static void a_channel_opens_and_has_the_seat_that_was_prepared(void **state)
{
    (void)state;
    static const unsigned seats[] = {1, 2, 59, 60, 4096};
    for (int i = 0; i < 5; i++) {
        make(seats[i], seats[i] - 1);
        assert_int_equal(ask(channel.memory_fd, seats[i] - 1), HAS_SEAT);
        assert_int_equal(ask(channel.memory_fd, seats[i]), OPENED);
        assert_int_equal(ask(channel.memory_fd, UINT32_MAX), OPENED);
        if (seats[i] > 1)
            assert_int_equal(ask(channel.memory_fd, 0), OPENED); /* not prepared */
        unmake();
    }
}

static void what_is_no_channel_is_refused(void **state)
{
    (void)state;
    static unsigned char zeros[8192];
    int fds[] = {-1,
                 open("/dev/null", O_RDWR | O_CLOEXEC),
                 open("/dev/zero", O_RDWR | O_CLOEXEC),
                 open("/proc/self/exe", O_RDONLY | O_CLOEXEC),
                 open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                 memfd_with(zeros, 0, 0),
                 memfd_with(zeros, 1, 1),
                 memfd_with(zeros, 4095, 4095),
                 memfd_with(zeros, 8192, 8192)};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        assert_int_equal(ask(fds[i], 0), REFUSED);
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

static void a_file_that_cannot_be_written_is_refused(void **state)
{
    (void)state;
    char path[64];
    make(2, 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", channel.memory_fd);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0);
    assert_int_equal(ask(fd, 0), REFUSED);
    close(fd);
    unmake();
}

static void a_header_that_lies_is_refused(void **state)
{
    (void)state;
    make(2, 0);
    weir__channel_header good, bad;
    memcpy(&good, channel.header, sizeof good);
#define REFUSES(change)                                                                            \
    memcpy(&bad, &good, sizeof bad);                                                               \
    bad.change;                                                                                    \
    must(pwrite(channel.memory_fd, &bad, sizeof bad, 0) == (ssize_t)sizeof bad);                   \
    assert_int_equal(ask(channel.memory_fd, 0), REFUSED)
    REFUSES(magic = 0);
    REFUSES(magic ^= 1);
    REFUSES(version++);
    REFUSES(seats = 0);
    REFUSES(seats = 4096); /* not what the arena's offset says */
    REFUSES(seats = UINT32_MAX);
    REFUSES(arena_offset = 0);
    REFUSES(arena_offset += WEIR__UNIT);
    REFUSES(arena_offset = UINT64_MAX);
#undef REFUSES
    must(pwrite(channel.memory_fd, &good, sizeof good, 0) == (ssize_t)sizeof good);
    assert_int_equal(ask(channel.memory_fd, 0), HAS_SEAT);
    unmake();
}

static void a_truncated_channel_has_no_seat(void **state)
{
    (void)state;
    make(2, 1);
    static unsigned char bytes[1 << 20];
    must(pread(channel.memory_fd, bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes);
    uint64_t whole = extent.offset + WEIR__EXTENT;
    static const int64_t cuts[] = {0,
                                   1,
                                   4095,
                                   4096,
                                   8192,
                                   1 << 18,
                                   1 << 20,
                                   (int64_t)WEIR__UNIT - 4096,
                                   -4096,
                                   -1,
                                   -(int64_t)WEIR__EXTENT};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        uint64_t size = cuts[i] < 0 || i == 0 ? whole + (uint64_t)cuts[i] : (uint64_t)cuts[i];
        int fd = memfd_with(bytes, size < sizeof bytes ? size : sizeof bytes, size);
        enum answer answer = ask(fd, 1);
        if (i == 0)
            assert_int_equal(answer, HAS_SEAT); /* the copy as such is fine */
        else
            assert_true(answer == REFUSED || answer == OPENED);
        close(fd);
    }
    unmake();
}

static void a_seat_whose_extent_lies_elsewhere_is_no_seat(void **state)
{
    (void)state;
    static const uint64_t offsets[] = {
        0, 1, 4096, WEIR__UNIT - 4096, UINT64_MAX, UINT64_MAX - 4095, INT64_MAX, UINT64_C(1) << 40};
    make(2, 0);
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        channel.seats[0].extent_offset = offsets[i];
        assert_int_equal(ask(channel.memory_fd, 0), OPENED);
    }
    channel.seats[0].extent_offset = extent.offset + 512;
    assert_int_equal(ask(channel.memory_fd, 0), OPENED);
    channel.seats[0].extent_offset = extent.offset;
    assert_int_equal(ask(channel.memory_fd, 0), HAS_SEAT);
    unmake();
}

static void random_headers_never_end_in_a_crash(void **state)
{
    (void)state;
    srand(11);
    for (int round = 0; round < 100; round++) {
        unsigned char bytes[8192];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (unsigned char)rand();
        weir__channel_header header = {.magic = WEIR__CHANNEL_MAGIC,
                                       .version = WEIR__CHANNEL_VERSION,
                                       .seats = (uint32_t)rand() % 100000,
                                       .arena_offset = (uint64_t)rand() % 64 * WEIR__UNIT};
        memcpy(bytes, &header, sizeof header);
        int fd = memfd_with(bytes, sizeof bytes, (uint64_t)rand() % (64 * WEIR__UNIT));
        ask(fd, (unsigned)rand() % 100); /* any answer will do */
        close(fd);
    }
}

/* What the last process left there, and the bell, which a late ring may still count. */
static void a_prepared_seat_knows_nothing_of_the_last_process(void **state)
{
    (void)state;
    make(1, 0);
    weir__seat *seat = &channel.seats[0];
    memset(seat, 0xee, sizeof *seat);
    uint32_t bell = seat->bell;
    assert_int_equal(
        weir__channel_prepare_seat(&channel, 0, extent.offset, &(weir__seat_terms){.tasks_max = 9}),
        0);
    assert_int_equal(seat->bell, bell);
    assert_int_equal(seat->leave, 0);
    assert_int_equal(seat->tasks_max, 9);
    assert_int_equal(seat->extent_offset, extent.offset);
    assert_int_equal(seat->extent_tail, 0);
    assert_int_equal(seat->grant, GRANT_NONE);
    assert_int_equal(seat->asleep, 0);
    assert_int_equal(seat->state, SEAT_STARTING);
    assert_int_equal(seat->want, 0);
    assert_int_equal(seat->peak_rss, 0);
    assert_int_equal(seat->fail_size, 0);
    for (unsigned i = 0; i < WEIR__SLOTS; i++)
        assert_int_equal(seat->slots[i].state, SLOT_FREE);
    unmake();
}

static void a_ring_is_counted_only_when_the_worker_sleeps(void **state)
{
    (void)state;
    make(1, 0);
    weir__seat *seat = &channel.seats[0];
    weir__ring_worker(seat);
    assert_int_equal(seat->bell, 0);
    seat->asleep = 1;
    weir__ring_worker(seat);
    assert_int_equal(seat->bell, 1);
    unmake();
}

static void lines_that_different_sides_write_are_apart(void **state)
{
    (void)state;
    assert_int_equal(sizeof(weir__slot) % 64, 0);
    assert_int_equal(offsetof(weir__seat, extent_tail) % 64, 0);
    assert_int_equal(offsetof(weir__seat, asleep) % 64, 0);
    assert_int_equal(offsetof(weir__seat, slots) % 64, 0);
    assert_int_equal(offsetof(weir__channel_header, collector_asleep) % 64, 0);
    assert_true(offsetof(weir__slot, in) % 16 == 0 && offsetof(weir__slot, out) % 16 == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_channel_opens_and_has_the_seat_that_was_prepared),
        cmocka_unit_test(what_is_no_channel_is_refused),
        cmocka_unit_test(a_file_that_cannot_be_written_is_refused),
        cmocka_unit_test(a_header_that_lies_is_refused),
        cmocka_unit_test(a_truncated_channel_has_no_seat),
        cmocka_unit_test(a_seat_whose_extent_lies_elsewhere_is_no_seat),
        cmocka_unit_test(random_headers_never_end_in_a_crash),
        cmocka_unit_test(a_prepared_seat_knows_nothing_of_the_last_process),
        cmocka_unit_test(a_ring_is_counted_only_when_the_worker_sleeps),
        cmocka_unit_test(lines_that_different_sides_write_are_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
