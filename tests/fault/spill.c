/* A log, and a queue over it, without memory, on a full or failing disk, and killed: an error or a
 * wait, nothing lost, still usable. */
#include "contract/folder.h"
#include "faults.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/files.h"

static _Atomic unsigned events[4];

static void count_event(weir_spill_event event, void *ctx)
{
    (void)ctx;
    events[event]++;
}

static weir_spill *open_told(uint64_t max_bytes, bool durable)
{
    weir_spill *spill = NULL;
    weir_spill_opts opts = spill_opts(max_bytes, 0, durable);
    opts.on_event = count_event;
    for (int i = 0; i < 4; i++)
        events[i] = 0;
    must(weir_spill_create(&spill, &opts) == WEIR_OK);
    return spill;
}

static int append(weir_spill *spill, uint64_t n)
{
    return weir_spill_append(spill, &n, sizeof n, NULL);
}

static int64_t read_one(weir_spill *spill)
{
    weir_record record = {0};
    uint64_t seq, n = 0;
    int rc = weir_spill_read(spill, &record, &seq);
    if (rc == WEIR_OK) {
        must(record.size == sizeof n);
        memcpy(&n, record.data, sizeof n);
        weir_spill_ack(spill, seq);
    }
    weir_record_free(&record);
    return rc < 0 ? rc : (int64_t)n;
}

static void expect(weir_spill *spill, uint64_t from, uint64_t to)
{
    for (uint64_t n = from; n <= to; n++)
        assert_int_equal(read_one(spill), n);
    log_of(spill);
}

/* ---- the disk ------------------------------------------------------------------------------- */

static int disk_says;
static size_t disk_takes; /* bytes of a write that fails */

static int write_fails(size_t *n)
{
    *n = disk_takes;
    return disk_says;
}

static int sync_fails(void)
{
    return disk_says;
}

static int reads_left; /* until one fails, */
static int reads;      /* of so many */

static int read_fails(void)
{
    reads++;
    return --reads_left == 0 ? disk_says : 0;
}

/* The n-th read of whatever is done fails; 0: none does. */
static void read_fails_with(int number, int n)
{
    disk_says = number;
    reads_left = n;
    reads = 0;
    weir__read_fails = read_fails;
}

static void disk_fails_with(int number, size_t takes)
{
    disk_says = number;
    disk_takes = takes;
    weir__write_fails = number ? write_fails : NULL;
    weir__sync_fails = NULL;
}

static void a_failed_append_leaves_the_log_as_it_was(void **state)
{
    (void)state;
    static const struct {
        int number, rc;
    } failures[] = {{ENOSPC, WEIR_ENOSPC},
                    {EDQUOT, WEIR_ENOSPC},
                    {EFBIG, WEIR_ENOSPC},
                    {EIO, WEIR_ESYSTEM},
                    {ENOMEM, WEIR_ENOMEM}};
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
        for (size_t takes = 0; takes < 24; takes += 5)
            for (int durable = 0; durable < 2; durable++) {
                weir_spill *spill = open_told(1 << 20, durable);
                assert_int_equal(append(spill, 1), WEIR_OK);
                disk_fails_with(failures[i].number, takes);
                weir_spill_snapshot before = log_of(spill);
                for (int n = 0; n < 3; n++)
                    assert_int_equal(append(spill, 99), failures[i].rc);
                assert_int_equal(log_of(spill).bytes, before.bytes);
                assert_int_equal(log_of(spill).appended, 1);
                assert_int_equal(log_of(spill).disk_full, failures[i].rc == WEIR_ENOSPC);
                disk_fails_with(0, 0);
                assert_int_equal(append(spill, 2), WEIR_OK);
                expect(spill, 1, 2);
                assert_int_equal(read_one(spill), WEIR_EEMPTY);
                assert_int_equal(log_of(spill).segments_damaged, 0);
                weir_spill_destroy(spill);
            }
}

static void a_full_disk_is_said_once(void **state)
{
    (void)state;
    weir_spill *spill = open_told(1 << 20, false);
    for (int n = 0; n < 5; n++) {
        disk_fails_with(ENOSPC, 0);
        for (int i = 0; i < 10; i++)
            assert_int_equal(append(spill, 1), WEIR_ENOSPC);
        disk_fails_with(0, 0);
        for (int i = 0; i < 10; i++)
            assert_int_equal(append(spill, 1), WEIR_OK);
    }
    assert_int_equal(events[WEIR_SPILL_DISK_FULL], 5);
    assert_int_equal(events[WEIR_SPILL_DISK_ROOM], 5);
    assert_int_equal(log_of(spill).refused, 50);
    weir_spill_destroy(spill);
}

static void a_failed_sync_takes_its_records_back(void **state)
{
    (void)state;
    weir_spill *spill = open_told(1 << 20, true);
    assert_int_equal(append(spill, 1), WEIR_OK);
    disk_says = EIO;
    weir__sync_fails = sync_fails;
    assert_int_equal(append(spill, 99), WEIR_ESYSTEM);
    uint64_t n = 98;
    assert_int_equal(weir_spill_append_kept(spill, &n, sizeof n, NULL), WEIR_ESYSTEM);
    weir__sync_fails = NULL;
    assert_int_equal(events[WEIR_SPILL_DISK_ERROR], 1);
    assert_int_equal(append(spill, 2), WEIR_OK);
    assert_int_equal(log_of(spill).pending, 2);
    weir_spill_destroy(spill);
    spill = open_told(1 << 20, true); /* nor do they come back then */
    expect(spill, 1, 2);
    assert_int_equal(read_one(spill), WEIR_EEMPTY);
    weir_spill_destroy(spill);
}

/* ---- reading it again --------------------------------------------------------------------- */

#define LEFT 70 /* records, in three files */

/* A log of which the first three records are acknowledged.  The last file has no end, as if the process had been
 * killed; with `also` the one before has none either. */
static void leave_log(bool also)
{
    weir_spill *spill = NULL;
    weir_spill_opts opts = spill_opts(1 << 20, 1024, true);
    must(weir_spill_create(&spill, &opts) == WEIR_OK);
    for (uint64_t n = 1; n <= LEFT; n++)
        must(append(spill, n) == WEIR_OK);
    expect(spill, 1, 3);
    weir_spill_destroy(spill);
    for (int i = also ? 1 : 2; i <= 2; i++) {
        char path[512];
        struct stat is;
        snprintf(path, sizeof path, "%s/%016x.seg", folder, 1 + i * 30);
        must(stat(path, &is) == 0 && truncate(path, is.st_size - 24) == 0);
    }
}

static void a_log_that_cannot_be_read_is_an_error_and_left_as_it_is(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        leave_log(i & 1);
        char file[WEIR_SPILL_NAME];
        weir_spill *spill = NULL;
        weir_spill_opts opts = spill_opts(1 << 20, 1024, true);
        opts.ret_unreadable = file;
        int n = 1, rc, there = files("");
        for (;; n++) { /* each read in turn */
            read_fails_with(i & 2 ? ENOMEM : EIO, n);
            if ((rc = weir_spill_create(&spill, &opts)) == WEIR_OK)
                break;
            assert_int_equal(rc, i & 2 ? WEIR_ENOMEM : WEIR_ESYSTEM);
            assert_true(strstr(file, ".seg") || strstr(file, ".ack"));
            assert_int_equal(files(""), there);
        }
        weir__read_fails = NULL;
        assert_true(n > 8 && reads < n);
        assert_string_equal(file, "");
        assert_int_equal(log_of(spill).segments_damaged, 0);
        expect(spill, 4, LEFT);
        assert_int_equal(read_one(spill), WEIR_EEMPTY);
        weir_spill_destroy(spill);
    }
}

/* Reads what there is, each once at most; how many. */
static unsigned read_once(weir_spill *spill, bool seen[LEFT + 1])
{
    unsigned n = 0;
    for (int64_t got; (got = read_one(spill)) != WEIR_EEMPTY; n++) {
        must(got >= 1 && got <= LEFT && !seen[got]);
        seen[got] = true;
    }
    return n;
}

static void what_could_not_be_read_is_there_for_who_opens_the_log_next(void **state)
{
    (void)state;
    uint64_t lost = 0, in_all = 0;
    for (int n = 1; n == 1 || reads >= n - 1; n++) { /* each read in turn */
        bool seen[LEFT + 1] = {false};
        leave_log(false);
        weir_spill *spill = open_told(1 << 20, true);
        read_fails_with(EIO, n);
        unsigned got = read_once(spill, seen);
        weir__read_fails = NULL;
        lost = log_of(spill).records_lost;
        in_all += lost;
        assert_int_equal(got + lost, LEFT - 3);
        assert_int_equal(log_of(spill).pending, 0);
        assert_int_equal(events[WEIR_SPILL_DAMAGE], lost > 0);
        assert_int_equal(append(spill, 2), WEIR_OK); /* nor is it in the way */
        assert_int_equal(read_one(spill), 2);
        weir_spill_destroy(spill);

        spill = open_told(1 << 20, true);
        assert_int_equal(read_once(spill, seen), lost);
        assert_int_equal(log_of(spill).records_lost, 0);
        assert_int_equal(log_of(spill).segments, 0);
        weir_spill_destroy(spill);
        assert_int_equal(files(".seg"), 0);
    }
    assert_true(in_all > 60);
}

/* A file system of that size in the folder; false: not root. */
static bool mount_small(char place[128], const char *size)
{
    snprintf(place, 128, "%s/small", folder);
    if (mkdir(place, 0700) < 0 || mount("none", place, "tmpfs", 0, size) < 0) {
        rmdir(place);
        return false;
    }
    return true;
}

static weir_spill *open_at(const char *dir, uint64_t segment_bytes, bool durable)
{
    weir_spill *spill = NULL;
    weir_spill_opts opts = spill_opts(64 << 20, segment_bytes, durable);
    opts.dir = dir;
    must(weir_spill_create(&spill, &opts) == WEIR_OK);
    return spill;
}

static void a_disk_that_is_full_is_waited_for(void **state)
{
    (void)state;
    char place[128];
    if (!mount_small(place, "size=64k"))
        skip();
    weir_spill *spill = open_at(place, 8192, false);
    uint64_t in = 0, out = 0;
    for (int round = 0; round < 10; round++) {
        int rc;
        while ((rc = append(spill, in + 1)) == WEIR_OK)
            in++;
        assert_int_equal(rc, WEIR_ENOSPC);
        assert_true(log_of(spill).disk_full);
        expect(spill, out + 1, out + 700);
        out += 700;
        assert_int_equal(append(spill, in + 1), WEIR_OK);
        in++;
    }
    expect(spill, out + 1, in);
    weir_spill_destroy(spill);
    assert_int_equal(umount(place), 0);
    assert_int_equal(rmdir(place), 0);
}

/* Two logs on a disk of 4 MiB, each of which would fit in one file. */
static weir_spill *two[2];

static bool open_two(char place[128], bool durable, bool other_durable)
{
    if (!mount_small(place, "size=4m"))
        return false;
    for (int i = 0; i < 2; i++) {
        char dir[160];
        snprintf(dir, sizeof dir, "%s/%d", place, i);
        two[i] = open_at(dir, 16 << 20, i ? other_durable : durable);
    }
    return true;
}

static void close_two(const char *place)
{
    weir_spill_destroy(two[0]);
    weir_spill_destroy(two[1]);
    assert_int_equal(umount(place), 0);
    assert_int_equal(rmdir(place), 0);
}

static uint64_t fill_with_blocks(weir_spill *spill)
{
    static const char block[50000];
    uint64_t n = 0;
    while (weir_spill_append(spill, block, sizeof block, NULL) == WEIR_OK)
        n++;
    return n;
}

/* Reads all there is, and acknowledges it in the end. */
static uint64_t take_all(weir_spill *spill)
{
    weir_record record = {0};
    uint64_t n = 0, seq = 0, first = 0;
    for (; weir_spill_read(spill, &record, &seq) == WEIR_OK; n++)
        first = first ? first : seq;
    for (uint64_t i = 0; i < n; i++)
        weir_spill_ack(spill, first + i);
    weir_record_free(&record);
    return n;
}

static void what_one_log_is_done_with_is_room_for_another(void **state)
{
    (void)state;
    for (int durable = 0; durable < 2; durable++) {
        char place[128];
        if (!open_two(place, durable, durable))
            skip();
        for (int round = 0; round < 3; round++) {
            uint64_t n = fill_with_blocks(two[0]);
            assert_true(n > 60);
            uint64_t second = fill_with_blocks(two[1]);
            assert_true(second < 10);
            assert_int_equal(take_all(two[0]), n);
            assert_int_equal(log_of(two[0]).segments, 0);
            assert_int_equal(log_of(two[0]).bytes, 0);
            n = fill_with_blocks(two[1]); /* although the first one has the file open to read */
            assert_true(n > 50);
            assert_int_equal(take_all(two[1]), n + second);
        }
        close_two(place);
    }
}

/* As two stages do: the first acknowledges what the second has. */
static void a_durable_log_that_fills_the_disk_leaves_room_for_the_next_one(void **state)
{
    (void)state;
    char place[128];
    if (!open_two(place, true, true))
        skip();
    uint64_t n = fill_with_blocks(two[0]), seq, next_seq;
    assert_true(n > 60);
    weir_record record = {0};
    for (uint64_t i = 0; i < n; i++) {
        assert_int_equal(weir_spill_read(two[0], &record, &seq), WEIR_OK);
        assert_int_equal(weir_spill_append(two[1], record.data, record.size, NULL), WEIR_OK);
        assert_int_equal(weir_spill_read(two[1], &record, &next_seq), WEIR_OK);
        weir_spill_ack(two[1], next_seq);
        weir_spill_ack(two[0], seq);
    }
    weir_record_free(&record);
    assert_int_equal(log_of(two[0]).pending + log_of(two[1]).pending, 0);
    close_two(place);
}

/* Its disk has been full: the little that is done with goes, too. */
static void what_is_done_with_on_a_full_disk_goes_whatever_its_size(void **state)
{
    (void)state;
    for (int durable = 0; durable < 2; durable++) {
        weir_spill *spill = open_told(1 << 20, durable);
        assert_int_equal(append(spill, 1), WEIR_OK);
        disk_fails_with(ENOSPC, 0);
        assert_int_equal(append(spill, 2), WEIR_ENOSPC);
        disk_fails_with(0, 0);
        expect(spill, 1, 1);
        assert_int_equal(log_of(spill).bytes, 0);
        assert_int_equal(append(spill, 2), WEIR_OK);
        expect(spill, 2, 2);
        assert_true(log_of(spill).bytes > 0); /* no file for each record */
        weir_spill_destroy(spill);
    }
}

static void a_limit_on_file_sizes_is_a_full_disk_and_no_signal(void **state)
{
    (void)state;
    weir_spill *spill = open_told(1 << 20, false);
    struct rlimit before, small = {4096, RLIM_INFINITY};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc;
    uint64_t in = 0;
    while ((rc = append(spill, in + 1)) == WEIR_OK)
        in++;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(rc, WEIR_ENOSPC);
    expect(spill, 1, in);
    weir_spill_destroy(spill);
}

static _Atomic unsigned syncs;

static int slow_sync(void)
{
    syncs++;
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    return 0;
}

static void *append_many(void *arg)
{
    for (uint64_t n = 0; n < 100; n++)
        must(append(arg, n) == WEIR_OK);
    return NULL;
}

static void appends_of_several_threads_share_a_sync(void **state)
{
    (void)state;
    weir_spill *spill = open_told(1 << 20, true);
    pthread_t threads[8];
    syncs = 0;
    weir__sync_fails = slow_sync;
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, append_many, spill), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    weir__sync_fails = NULL;
    assert_int_equal(log_of(spill).appended, 800);
    assert_int_equal(log_of(spill).syncs, syncs);
    assert_true(syncs >= 100 && syncs < 700);
    weir_spill_destroy(spill);
    spill = open_told(1 << 20, true);
    assert_int_equal(log_of(spill).recovered, 800);
    weir_spill_destroy(spill);
}

static _Atomic unsigned until_failure;

static int fails_now_and_then(void)
{
    return ++until_failure % 7 == 0 ? EIO : 0;
}

static _Atomic uint64_t n_appended;

static void *append_or_fail(void *arg)
{
    for (uint64_t n = 1; n <= 200; n++) {
        int rc = append(arg, n);
        must(rc == WEIR_OK || rc == WEIR_ESYSTEM);
        n_appended += rc == WEIR_OK;
    }
    return NULL;
}

static void syncs_that_fail_now_and_then_lose_nothing(void **state)
{
    (void)state;
    weir_spill *spill = open_told(1 << 20, true);
    pthread_t threads[4];
    n_appended = 0;
    weir__sync_fails = fails_now_and_then;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, append_or_fail, spill), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    weir__sync_fails = NULL;
    assert_int_equal(log_of(spill).pending, n_appended);
    uint64_t n = 0;
    while (read_one(spill) >= 0)
        n++;
    assert_int_equal(n, n_appended);
    assert_int_equal(log_of(spill).pending, 0);
    weir_spill_destroy(spill);
}

/* ---- memory --------------------------------------------------------------------------------- */

static void create_without_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    weir_spill *spill = open_told(1 << 20, true);
    for (uint64_t n = 1; n <= 100; n++)
        assert_int_equal(append(spill, n), WEIR_OK);
    expect(spill, 1, 10);
    weir_spill_destroy(spill);
    int n = 1;
    for (;; n++) {
        weir_spill_opts opts = spill_opts(1 << 20, 0, true);
        spill = NULL;
        fail_allocation(n, false);
        int rc = weir_spill_create(&spill, &opts);
        if (!stop_failing()) {
            assert_int_equal(rc, WEIR_OK);
            break;
        }
        assert_int_equal(rc, WEIR_ENOMEM);
        assert_null(spill);
    }
    assert_true(n > 3);
    expect(spill, 11, 100);
    weir_spill_destroy(spill);
}

static void every_call_without_memory_loses_nothing(void **state)
{
    (void)state;
    for (int durable = 0; durable < 2; durable++)
        for (int64_t n = 1; n <= 30; n++) {
            weir_spill *spill = open_told(1 << 20, durable);
            uint64_t in = 0, out = 0;
            fail_allocation(n, false);
            for (int i = 0; i < 200; i++) {
                int rc = append(spill, in + 1);
                assert_true(rc == WEIR_OK || rc == WEIR_ENOMEM);
                in += rc == WEIR_OK;
                int64_t got = i % 2 ? read_one(spill) : WEIR_ENOMEM;
                assert_true(got == (int64_t)out + 1 || got == WEIR_ENOMEM);
                out += got >= 0;
            }
            stop_failing();
            expect(spill, out + 1, in);
            assert_int_equal(read_one(spill), WEIR_EEMPTY);
            weir_spill_destroy(spill);
        }
}

/* ---- a queue over it ------------------------------------------------------------------------ */

static int encode(void *item, weir_record *into, void *ctx)
{
    (void)ctx;
    return weir_record_add(into, &item, sizeof item);
}

static int decode(const void *data, size_t n, void **ret_item, void *ctx)
{
    (void)ctx;
    must(n == sizeof *ret_item);
    memcpy(ret_item, data, n);
    return WEIR_OK;
}

static const weir_codec codec = {.encode = encode, .decode = decode};

static weir_queue *queue_over(weir_spill *spill, size_t capacity)
{
    weir_queue *queue = NULL;
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = capacity;
    opts.overflow = WEIR_OVERFLOW_SPILL;
    opts.on_drop = weir_drop_ignore;
    opts.spill = spill;
    opts.codec = &codec;
    must(weir_queue_create(&queue, &opts) == WEIR_OK);
    return queue;
}

static void a_queue_without_memory_loses_nothing(void **state)
{
    (void)state;
    for (int durable = 0; durable < 2; durable++)
        for (int64_t n = 1; n <= 150; n++) {
            weir_spill *spill = open_told(1 << 20, durable);
            weir_queue *queue = queue_over(spill, 5);
            uintptr_t in = 0, out = 0;
            fail_allocation(n, n % 3 == 0);
            for (int i = 0; i < 60; i++) {
                void *item;
                int rc = weir_queue_put(queue, number(in + 1), 1, WEIR_POLL);
                assert_true(rc == WEIR_KEPT || rc == WEIR_ENOMEM);
                in += rc == WEIR_KEPT;
                rc = i % 3 ? WEIR_EEMPTY : weir_queue_get(queue, &item, WEIR_POLL);
                assert_true(rc == WEIR_OK || rc == WEIR_EEMPTY || rc == WEIR_ENOMEM);
                if (rc == WEIR_OK)
                    assert_ptr_equal(item, number(++out));
                weir_queue_snapshot now = snapshot_of(queue);
                assert_true(obeys_the_law(&now));
            }
            stop_failing();
            weir_queue_close(queue);
            while (out < in) {
                void *item;
                assert_int_equal(weir_queue_get(queue, &item, WEIR_FOREVER), WEIR_OK);
                assert_ptr_equal(item, number(++out));
            }
            assert_int_equal(snapshot_of(queue).dropped[WEIR_DROP_LOST], 0);
            weir_queue_destroy(queue);
            weir_spill_destroy(spill);
        }
}

static void a_queue_on_a_full_disk_blocks_and_goes_on(void **state)
{
    (void)state;
    weir_spill *spill = open_told(1 << 20, false);
    weir_queue *queue = queue_over(spill, 5);
    for (uintptr_t n = 1; n <= 8; n++)
        assert_int_equal(weir_queue_put(queue, number(n), 1, WEIR_POLL), WEIR_KEPT);
    disk_fails_with(ENOSPC, 7);
    assert_int_equal(weir_queue_put(queue, number(9), 1, WEIR_POLL), WEIR_EFULL);
    other waits = {.queue = queue, .item = number(9), .cost = 1, .deadline = WEIR_FOREVER};
    start_waiting_put(&waits);
    for (uintptr_t n = 1; n <= 8; n++) { /* then nothing is on disk, and memory has room */
        void *item;
        assert_int_equal(weir_queue_get(queue, &item, WEIR_POLL), WEIR_OK);
        assert_ptr_equal(item, number(n));
    }
    assert_int_equal(finish(&waits), WEIR_KEPT);
    disk_fails_with(0, 0);
    assert_int_equal(events[WEIR_SPILL_DISK_FULL], 1);
    weir_queue_snapshot now = snapshot_of(queue);
    assert_true(obeys_the_law(&now));
    assert_int_equal(now.depth, 1);
    weir_queue_destroy(queue);
    weir_spill_destroy(spill);
}

static void a_durable_queue_tells_that_the_disk_failed(void **state)
{
    (void)state;
    weir_spill *spill = open_told(1 << 20, true);
    weir_queue *queue = queue_over(spill, 5);
    disk_fails_with(EIO, 0);
    assert_int_equal(weir_queue_put(queue, number(1), 1, WEIR_FOREVER), WEIR_ESYSTEM);
    disk_fails_with(0, 0);
    assert_int_equal(weir_queue_put(queue, number(1), 1, WEIR_FOREVER), WEIR_KEPT);
    assert_int_equal(snapshot_of(queue).accepted, 1);
    weir_queue_destroy(queue);
    weir_spill_destroy(spill);
}

/* ---- a queue over it, and another log -------------------------------------------------------- */

static int encode_large(void *item, weir_record *into, void *ctx)
{
    static const char block[50000];
    int rc = encode(item, into, ctx);
    return rc < 0 ? rc : weir_record_add(into, block, sizeof block);
}

static int decode_large(const void *data, size_t n, void **ret_item, void *ctx)
{
    (void)n;
    return decode(data, sizeof *ret_item, ret_item, ctx);
}

static void a_put_that_waits_for_the_disk_sees_room_that_another_log_made(void **state)
{
    (void)state;
    static const weir_codec large = {.encode = encode_large, .decode = decode_large};
    char place[128];
    if (!open_two(place, false, true))
        skip();
    uint64_t n = fill_with_blocks(two[0]);
    weir_queue *queue = NULL;
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = 5;
    opts.overflow = WEIR_OVERFLOW_SPILL;
    opts.on_drop = weir_drop_ignore;
    opts.spill = two[1];
    opts.codec = &large;
    assert_int_equal(weir_queue_create(&queue, &opts), WEIR_OK);
    assert_int_equal(weir_queue_put(queue, number(1), 1, WEIR_POLL), WEIR_EFULL);
    other waits = {.queue = queue, .item = number(1), .cost = 1, .deadline = WEIR_FOREVER};
    start_waiting_put(&waits);
    assert_int_equal(take_all(two[0]), n);
    assert_int_equal(finish(&waits), WEIR_KEPT);

    assert_true(fill_with_blocks(two[0]) > 0); /* and so does one that does not wait, in time */
    int rc;
    uintptr_t last = 2;
    while ((rc = weir_queue_put(queue, number(last), 1, WEIR_POLL)) == WEIR_KEPT)
        last++;
    assert_int_equal(rc, WEIR_EFULL);
    take_all(two[0]);
    weir_time limit = weir_after(20 * WEIR_SECOND);
    while ((rc = weir_queue_put(queue, number(last), 1, WEIR_POLL)) == WEIR_EFULL)
        assert_true(weir_now() < limit);
    assert_int_equal(rc, WEIR_KEPT);
    for (uintptr_t i = 1; i <= last; i++) {
        void *item;
        uint64_t seq;
        assert_int_equal(weir_queue_get_seq(queue, &item, NULL, &seq, WEIR_FOREVER), WEIR_OK);
        assert_ptr_equal(item, number(i));
        weir_queue_ack(queue, seq);
    }
    weir_queue_snapshot now = snapshot_of(queue);
    assert_true(obeys_the_law(&now));
    weir_queue_destroy(queue);
    close_two(place);
}

/* ---- kill -9 -------------------------------------------------------------------------------- */

#define PRODUCERS 2u
#define ITEMS     (1u << 24) /* per producer, at most */

/* What the processes of all lives have in common, whoever is killed. */
typedef struct ledger {
    _Atomic uint32_t put[PRODUCERS];  /* so many of each producer's puts have returned */
    _Atomic uint32_t next[PRODUCERS]; /* the number of its next one */
    _Atomic uint8_t delivered[PRODUCERS][ITEMS];
    _Atomic uint32_t again; /* deliveries of what was delivered before */
} ledger;

static ledger *book;

static weir_queue *lives_queue;

static void *produce(void *arg)
{
    uintptr_t me = (uintptr_t)arg;
    for (;;) {
        uint32_t n = book->next[me];
        must(n < ITEMS);
        int rc = weir_queue_put(lives_queue, number(me << 32 | n), 1, WEIR_FOREVER);
        must(rc == WEIR_KEPT);
        book->next[me] = n + 1;
        book->put[me] = n + 1;
    }
    return NULL;
}

static void deliver(uintptr_t item)
{
    _Atomic uint8_t *mark = &book->delivered[item >> 32][(uint32_t)item];
    book->again += *mark;
    *mark = 1;
}

static void *consume(void *arg)
{
    for (uint32_t n = 0;; n++) {
        void *item;
        uint64_t seq;
        int rc = weir_queue_get_seq(lives_queue, &item, NULL, &seq, WEIR_FOREVER);
        if (rc == WEIR_ECLOSED)
            return arg;
        must(rc == WEIR_OK);
        deliver((uintptr_t)item);
        weir_queue_ack(lives_queue, seq);
    }
}

static void live(void)
{
    pthread_t threads[PRODUCERS];
    weir_spill *spill = open_spill(64 << 20, 16384, true);
    lives_queue = queue_over(spill, 16);
    for (uintptr_t i = 0; i < PRODUCERS; i++)
        pthread_create(&threads[i], NULL, produce, number(i));
    consume(NULL);
}

/* A producer may have been killed between its put's last instruction and its book-keeping: then it puts
 * the same number again. */
static void every_put_that_returned_is_delivered_after_any_kill(void **state)
{
    (void)state;
    const char *asked = getenv("WEIR_KILLS");
    int kills = asked ? atoi(asked) : 200;
    book = mmap(NULL, sizeof *book, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(book != MAP_FAILED);
    uint64_t chance = 12345;
    for (int i = 0; i < kills; i++) {
        pid_t child = fork();
        if (child == 0) {
            live();
            _exit(0);
        }
        chance = chance * 6364136223846793005u + 1442695040888963407u;
        long wait_us = (long)(chance >> 33) % 20000;
        nanosleep(&(struct timespec){.tv_nsec = wait_us * 1000}, NULL);
        assert_int_equal(kill(child, SIGKILL), 0);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* no `must` has failed */
    }
    weir_spill *spill = open_spill(64 << 20, 16384, true);
    weir_spill_snapshot now = log_of(spill);
    assert_int_equal(now.segments_damaged, 0);
    lives_queue = queue_over(spill, 16);
    weir_queue_close(lives_queue);
    consume(NULL);
    weir_queue_snapshot end = snapshot_of(lives_queue);
    assert_true(obeys_the_law(&end));
    assert_int_equal(end.dropped[WEIR_DROP_LOST], 0);
    weir_queue_destroy(lives_queue);
    weir_spill_destroy(spill);
    uint64_t all = 0;
    for (unsigned p = 0; p < PRODUCERS; p++)
        for (uint32_t n = 0; n < book->put[p]; n++, all++)
            assert_int_equal(book->delivered[p][n], 1);
    assert_true(all > 0);
    print_message("    %d kills, %llu puts, %u delivered again\n", kills, (unsigned long long)all,
                  (unsigned)book->again);
    munmap(book, sizeof *book);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_failed_append_leaves_the_log_as_it_was),
        IN_FOLDER(a_full_disk_is_said_once),
        IN_FOLDER(a_failed_sync_takes_its_records_back),
        IN_FOLDER(a_log_that_cannot_be_read_is_an_error_and_left_as_it_is),
        IN_FOLDER(what_could_not_be_read_is_there_for_who_opens_the_log_next),
        IN_FOLDER(a_disk_that_is_full_is_waited_for),
        IN_FOLDER(what_one_log_is_done_with_is_room_for_another),
        IN_FOLDER(a_durable_log_that_fills_the_disk_leaves_room_for_the_next_one),
        IN_FOLDER(what_is_done_with_on_a_full_disk_goes_whatever_its_size),
        IN_FOLDER(a_limit_on_file_sizes_is_a_full_disk_and_no_signal),
        IN_FOLDER(appends_of_several_threads_share_a_sync),
        IN_FOLDER(syncs_that_fail_now_and_then_lose_nothing),
        IN_FOLDER(create_without_memory_leaves_nothing_behind),
        IN_FOLDER(every_call_without_memory_loses_nothing),
        IN_FOLDER(a_queue_without_memory_loses_nothing),
        IN_FOLDER(a_queue_on_a_full_disk_blocks_and_goes_on),
        IN_FOLDER(a_durable_queue_tells_that_the_disk_failed),
        IN_FOLDER(a_put_that_waits_for_the_disk_sees_room_that_another_log_made),
        IN_FOLDER(every_put_that_returned_is_delivered_after_any_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
