/* <weir/spill.h>: the log alone. */
#include "folder.h"

#include <sys/wait.h>

/* Records are "<number>" and so many dots. */
static int append_with(weir_spill *spill, unsigned n, size_t dots, bool kept, uint64_t *ret_seq)
{
    char text[4096];
    size_t at = (size_t)snprintf(text, sizeof text, "%u", n);
    memset(text + at, '.', dots);
    return kept ? weir_spill_append_kept(spill, text, at + dots, ret_seq)
                : weir_spill_append(spill, text, at + dots, ret_seq);
}

static uint64_t append(weir_spill *spill, unsigned n, size_t dots)
{
    uint64_t seq = 0;
    assert_int_equal(append_with(spill, n, dots, false, &seq), WEIR_OK);
    assert_true(seq > 0);
    return seq;
}

/* The number of the next record, or an error. */
static int read_one(weir_spill *spill, uint64_t *ret_seq)
{
    weir_record record = {0};
    char text[16] = "";
    int rc = weir_spill_read(spill, &record, ret_seq);
    if (rc == WEIR_OK) {
        memcpy(text, record.data, record.size < 15 ? record.size : 15);
        rc = atoi(text);
    }
    weir_record_free(&record);
    return rc;
}

static void expect(weir_spill *spill, unsigned from, unsigned to)
{
    for (unsigned n = from; n <= to; n++) {
        uint64_t seq = 0;
        assert_int_equal(read_one(spill, &seq), n);
        weir_spill_ack(spill, seq);
    }
}

static void expect_nothing(weir_spill *spill)
{
    uint64_t seq = 77;
    assert_int_equal(read_one(spill, &seq), WEIR_EEMPTY);
    assert_int_equal(seq, 77);
}

/* ---- order, acknowledgement ----------------------------------------------------------------- */

static void records_are_read_in_the_order_they_were_appended(void **state)
{
    (void)state;
    weir_spill *spill = open_spill(1 << 20, 1024, false);
    for (unsigned n = 1; n <= 300; n++)
        append(spill, n, n % 40);
    assert_true(log_of(spill).segments > 5);
    assert_int_equal(log_of(spill).unread, 300);
    expect(spill, 1, 300);
    expect_nothing(spill);
    append(spill, 301, 0);
    expect(spill, 301, 301);
    weir_spill_destroy(spill);
}

static void reading_and_appending_take_turns(void **state)
{
    (void)state;
    weir_spill *spill = open_spill(4096, 512, false);
    unsigned in = 0, out = 0;
    for (unsigned round = 1; round <= 400; round++) {
        for (unsigned i = 0; i < round % 5; i++)
            append(spill, ++in, round % 17);
        for (unsigned i = 0; i < round % 7 && out < in; i++, out++)
            expect(spill, out + 1, out + 1);
    }
    expect(spill, out + 1, in);
    assert_int_equal(log_of(spill).pending, 0);
    weir_spill_destroy(spill);
}

static void an_empty_record_is_a_record(void **state)
{
    (void)state;
    weir_spill *spill = open_spill(4096, 0, true);
    weir_record record = {0};
    uint64_t seq;
    assert_int_equal(weir_spill_append(spill, NULL, 0, NULL), WEIR_OK);
    assert_int_equal(weir_spill_read(spill, &record, &seq), WEIR_OK);
    assert_int_equal(record.size, 0);
    weir_record_free(&record);
    weir_spill_destroy(spill);
}

static void a_record_longer_than_a_segment_has_one_of_its_own(void **state)
{
    (void)state;
    static char large[200000];
    memset(large, 'x', sizeof large);
    weir_spill *spill = open_spill(1 << 20, 1024, true);
    append(spill, 1, 0);
    assert_int_equal(weir_spill_append(spill, large, sizeof large, NULL), WEIR_OK);
    append(spill, 3, 0);
    weir_spill_destroy(spill);
    spill = open_spill(1 << 20, 1024, true);
    weir_record record = {0};
    uint64_t seq;
    expect(spill, 1, 1);
    assert_int_equal(weir_spill_read(spill, &record, &seq), WEIR_OK);
    assert_int_equal(record.size, sizeof large);
    assert_memory_equal(record.data, large, sizeof large);
    weir_record_free(&record);
    weir_spill_ack(spill, seq);
    expect(spill, 3, 3);
    weir_spill_destroy(spill);
}

static void a_segment_goes_when_all_of_it_is_acknowledged(void **state)
{
    (void)state;
    weir_spill *spill = open_spill(1 << 20, 512, true);
    uint64_t seqs[200], got;
    for (unsigned n = 0; n < 200; n++)
        seqs[n] = append(spill, n + 1, 10);
    for (unsigned n = 0; n < 200; n++)
        assert_int_equal(read_one(spill, &got), n + 1);
    int before = files(".seg");
    assert_true(before > 10);
    assert_int_equal(log_of(spill).segments, before);
    for (unsigned n = 1; n < 200; n += 2)
        weir_spill_ack(spill, seqs[n]);
    assert_int_equal(files(".seg"), before);
    for (unsigned n = 198; n > 0; n -= 2) /* in any order */
        weir_spill_ack(spill, seqs[n]);
    weir_spill_ack(spill, seqs[0]);
    assert_int_equal(log_of(spill).pending, 0);
    assert_true(files(".seg") <= 1);
    assert_true(files(".ack") <= 1);
    weir_spill_destroy(spill);
    assert_int_equal(files(".seg") + files(".ack"), 0);
}

static void acknowledging_twice_or_what_nobody_has_makes_no_difference(void **state)
{
    (void)state;
    weir_spill *spill = open_spill(4096, 0, false);
    uint64_t first = append(spill, 1, 0), second = append(spill, 2, 0), seq;
    assert_int_equal(read_one(spill, &seq), 1);
    weir_spill_ack(spill, first);
    weir_spill_ack(spill, first);
    weir_spill_ack(spill, second); /* not read yet */
    weir_spill_ack(spill, 0);
    weir_spill_ack(spill, 999);
    weir_spill_ack(spill, UINT64_MAX);
    assert_int_equal(log_of(spill).acknowledged, 1);
    assert_int_equal(log_of(spill).pending, 1);
    expect(spill, 2, 2);
    weir_spill_destroy(spill);
}

static void what_the_caller_keeps_is_not_read(void **state)
{
    (void)state;
    weir_spill *spill = open_spill(1 << 20, 512, true);
    uint64_t seqs[100];
    for (unsigned n = 0; n < 100; n++)
        assert_int_equal(append_with(spill, n + 1, 0, n % 3 != 1, &seqs[n]), WEIR_OK);
    for (unsigned n = 0; n < 100; n++) {
        uint64_t seq;
        if (n % 3 == 1)
            assert_int_equal(read_one(spill, &seq), n + 1);
    }
    expect_nothing(spill);
    assert_int_equal(log_of(spill).pending, 100);
    for (unsigned n = 0; n < 100; n += 2)
        weir_spill_ack(spill, seqs[n]);
    weir_spill_destroy(spill);
    spill = open_spill(1 << 20, 512, true); /* nobody has them any more */
    for (unsigned n = 1; n < 100; n += 2)
        expect(spill, n + 1, n + 1);
    expect_nothing(spill);
    weir_spill_destroy(spill);
}

static void clearing_acknowledges_what_is_unread(void **state)
{
    (void)state;
    for (int durable = 0; durable < 2; durable++) {
        weir_spill *spill = open_spill(1 << 20, 512, durable);
        uint64_t had[3], kept;
        weir_spill_clear(spill);
        for (unsigned n = 1; n <= 100; n++)
            append(spill, n, 0);
        assert_int_equal(append_with(spill, 101, 0, true, &kept), WEIR_OK);
        for (unsigned n = 0; n < 3; n++)
            assert_int_equal(read_one(spill, &had[n]), n + 1);
        assert_true(log_of(spill).segments > 3);
        weir_spill_clear(spill);
        expect_nothing(spill);
        assert_int_equal(log_of(spill).pending, 4);
        assert_true(log_of(spill).segments <=
                    3); /* of what was had, of what is kept, and for more */
        for (unsigned n = 0; n < 3; n++)
            weir_spill_ack(spill, had[n]);
        for (unsigned n = 102; n <= 150; n++)
            append(spill, n, 0);
        expect(spill, 102, 150);
        expect_nothing(spill);
        assert_int_equal(log_of(spill).records_lost, 0);
        weir_spill_destroy(spill);
        if (durable) { /* only what was kept is left */
            spill = open_spill(1 << 20, 512, true);
            expect(spill, 101, 101);
            expect_nothing(spill);
            weir_spill_destroy(spill);
        }
    }
}

/* ---- bounds --------------------------------------------------------------------------------- */

static uint64_t bytes_in_folder;

static void add_size(const char *path, void *ctx)
{
    (void)ctx;
    bytes_in_folder += size_of(path);
}

static void the_files_never_hold_more_than_the_bound(void **state)
{
    (void)state;
    weir_spill *spill = open_spill(10000, 1000, true);
    unsigned in = 0, out = 0;
    for (int round = 0; round < 50; round++) {
        while (append_with(spill, in + 1, in % 50, false, NULL) == WEIR_OK)
            in++;
        bytes_in_folder = 0;
        each_file(".seg", add_size, NULL);
        assert_true(bytes_in_folder <= 10000 && bytes_in_folder > 8000);
        assert_true(log_of(spill).bytes >= bytes_in_folder && log_of(spill).bytes <= 10000);
        expect(spill, out + 1, out + 30);
        out += 30;
    }
    assert_int_equal(log_of(spill).refused, 50);
    expect(spill, out + 1, in);
    expect_nothing(spill);
    weir_spill_destroy(spill);
}

static void a_full_log_takes_more_when_its_only_segment_is_acknowledged(void **state)
{
    (void)state;
    weir_spill *spill = open_spill(4096, 4096, false);
    for (unsigned round = 0; round < 20; round++) {
        unsigned in = 0;
        while (append_with(spill, in + 1, 1000, false, NULL) == WEIR_OK)
            in++;
        assert_int_equal(in, 3);
        expect(spill, 1, in);
    }
    weir_spill_destroy(spill);
}

static void a_record_that_never_fits_is_refused_as_such(void **state)
{
    (void)state;
    static char large[5000];
    weir_spill *spill = open_spill(4096, 0, false);
    assert_int_equal(weir_spill_append(spill, large, sizeof large, NULL), WEIR_ETOOBIG);
    assert_int_equal(weir_spill_append(spill, large, 4096 - 72, NULL), WEIR_OK);
    assert_int_equal(weir_spill_append(spill, large, 1, NULL), WEIR_EFULL);
    weir_spill_destroy(spill);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    weir_spill *spill = NULL;
    for (int i = 0; i < 7; i++) {
        weir_spill_opts opts = spill_opts(4096, 0, false);
        if (i == 0)
            opts.size--;
        if (i == 1)
            opts.dir = NULL;
        if (i == 2)
            opts.dir = "";
        if (i == 3)
            opts.max_bytes = 4095;
        if (i == 4)
            opts.max_bytes = UINT64_MAX;
        if (i == 5)
            opts.segment_bytes = 511;
        if (i == 6)
            opts.segment_bytes = 4097;
        assert_int_equal(weir_spill_create(&spill, &opts), WEIR_EINVAL);
        assert_null(spill);
    }
    weir_spill_snapshot now = {0};
    spill = open_spill(4096, 0, false);
    assert_int_equal(weir_spill_get_snapshot(spill, &now), WEIR_EINVAL);
    weir_spill_destroy(spill);
    weir_spill_destroy(NULL);
}

/* ---- the directory -------------------------------------------------------------------------- */

static void a_directory_is_for_one_log(void **state)
{
    (void)state;
    weir_spill *spill = open_spill(4096, 0, true), *second = NULL;
    weir_spill_opts opts = spill_opts(4096, 0, true);
    assert_int_equal(weir_spill_create(&second, &opts), WEIR_EBUSY);
    pid_t child = fork();
    if (child == 0)
        _exit(weir_spill_create(&second, &opts) == WEIR_EBUSY ? 0 : 1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    append(spill, 1, 0); /* neither has taken it away */
    weir_spill_destroy(spill);
    spill = open_spill(4096, 0, true);
    expect(spill, 1, 1);
    weir_spill_destroy(spill);
}

static void a_forked_child_does_not_hold_the_directory(void **state)
{
    (void)state;
    int wait_for[2];
    assert_int_equal(pipe(wait_for), 0);
    weir_spill *spill = open_spill(4096, 0, true);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(wait_for[1]);
        _exit(read(wait_for[0], &byte, 1) != 0);
    }
    weir_spill_destroy(spill);
    weir_spill_destroy(open_spill(4096, 0, true));
    close(wait_for[0]);
    close(wait_for[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void a_directory_is_made_for_its_owner_alone(void **state)
{
    (void)state;
    char path[128];
    struct stat is;
    snprintf(path, sizeof path, "%s/made", folder);
    weir_spill_opts opts = spill_opts(4096, 0, true);
    opts.dir = path;
    weir_spill *spill;
    assert_int_equal(weir_spill_create(&spill, &opts), WEIR_OK);
    append(spill, 1, 0);
    assert_int_equal(stat(path, &is), 0);
    assert_int_equal(is.st_mode & 0777, 0700);
    strcat(path, "/0000000000000001.seg");
    assert_int_equal(stat(path, &is), 0);
    assert_int_equal(is.st_mode & 0777, 0600);
    expect(spill, 1, 1);
    weir_spill_destroy(spill);
    *strrchr(path, '/') = 0;
    opts.dir = "/proc/no/such/place";
    assert_int_equal(weir_spill_create(&spill, &opts), WEIR_ESYSTEM);
    strcat(path, "/lock");
    remove_path(path, NULL);
}

static void a_link_is_not_followed(void **state)
{
    (void)state;
    char path[128], target[128];
    snprintf(path, sizeof path, "%s/0000000000000001.seg", folder);
    snprintf(target, sizeof target, "%s/elsewhere", folder);
    int fd = open(target, O_CREAT | O_RDWR, 0600);
    assert_true(fd >= 0 && write(fd, "precious", 8) == 8 && close(fd) == 0);
    assert_int_equal(symlink(target, path), 0);
    weir_spill *spill = open_spill(4096, 0, true);
    assert_int_equal(log_of(spill).segments_damaged, 1);
    expect_nothing(spill);
    assert_int_equal(append_with(spill, 1, 0, false, NULL), WEIR_OK);
    expect(spill, 1, 1);
    weir_spill_destroy(spill);
    assert_int_equal(size_of(target), 8);
}

/* ---- restarts ------------------------------------------------------------------------------- */

static void a_durable_log_goes_on_where_it_was_left(void **state)
{
    (void)state;
    unsigned in = 0, out = 0;
    for (int life = 0; life < 20; life++) {
        weir_spill *spill = open_spill(1 << 20, 700, true);
        assert_int_equal(log_of(spill).recovered, in - out);
        assert_int_equal(log_of(spill).pending, in - out);
        for (int i = 0; i < 30; i++)
            in++, append(spill, in, in % 20);
        expect(spill, out + 1, out + 25);
        out += 25;
        weir_spill_destroy(spill);
    }
    weir_spill *spill = open_spill(1 << 20, 700, true);
    expect(spill, out + 1, in);
    expect_nothing(spill);
    weir_spill_destroy(spill);
    assert_int_equal(files(".seg") + files(".ack"), 0);
}

static void a_closed_log_leaves_its_directory_to_the_next(void **state)
{
    (void)state;
    weir_spill *first = open_spill(1 << 20, 512, true);
    for (unsigned n = 1; n <= 40; n++)
        append(first, n, 3);
    expect(first, 1, 10);
    weir_spill_close(first);
    weir_spill_close(first);
    assert_int_equal(weir_spill_append(first, "x", 1, NULL), WEIR_ECLOSED);
    expect_nothing(first);
    weir_spill_ack(first, 20);
    weir_spill_clear(first);
    weir_spill *second = open_spill(1 << 20, 512, true);
    expect(second, 11, 40);
    weir_spill_destroy(first);
    expect_nothing(second);
    weir_spill_destroy(second);
}

static void what_was_read_and_not_acknowledged_is_read_again(void **state)
{
    (void)state;
    weir_spill *spill = open_spill(1 << 20, 512, true);
    uint64_t seqs[60];
    for (unsigned n = 0; n < 60; n++)
        append(spill, n + 1, 0);
    for (unsigned n = 0; n < 60; n++)
        assert_int_equal(read_one(spill, &seqs[n]), n + 1);
    for (unsigned n = 0; n < 60; n++)
        if (n % 4 != 2)
            weir_spill_ack(spill, seqs[n]);
    weir_spill_destroy(spill);
    spill = open_spill(1 << 20, 512, true);
    assert_int_equal(log_of(spill).recovered, 15);
    for (unsigned n = 2; n < 60; n += 4)
        expect(spill, n + 1, n + 1);
    expect_nothing(spill);
    weir_spill_destroy(spill);
}

static void a_log_that_is_not_durable_leaves_nothing_and_finds_nothing(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) { /* dies without a goodbye */
        weir_spill *spill = open_spill(1 << 20, 512, false);
        for (unsigned n = 1; n <= 100; n++)
            append(spill, n, 0);
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_true(files(".tmp") > 1);
    weir_spill *spill = open_spill(1 << 20, 512, false);
    assert_int_equal(files(".tmp"), 0);
    expect_nothing(spill);
    append(spill, 1, 0);
    weir_spill_destroy(spill);
    assert_int_equal(files(".tmp"), 0);
}

static void records_of_a_durable_log_are_not_removed_by_another_kind(void **state)
{
    (void)state;
    weir_spill *spill = open_spill(4096, 0, true), *second = NULL;
    append(spill, 1, 0);
    weir_spill_destroy(spill);
    weir_spill_opts opts = spill_opts(4096, 0, false);
    assert_int_equal(weir_spill_create(&second, &opts), WEIR_EINVAL);
    spill = open_spill(4096, 0, true);
    expect(spill, 1, 1);
    weir_spill_destroy(spill);
}

/* ---- damage --------------------------------------------------------------------------------- */

static unsigned damages;

static void count_damage(weir_spill_event event, void *ctx)
{
    (void)ctx;
    damages += event == WEIR_SPILL_DAMAGE;
}

static weir_spill *open_counting(void)
{
    weir_spill *spill = NULL;
    weir_spill_opts opts = spill_opts(1 << 20, 1024, true);
    opts.on_event = count_damage;
    damages = 0;
    must(weir_spill_create(&spill, &opts) == WEIR_OK);
    return spill;
}

/* 25 records of 40 bytes in each segment but the last; the second one's path. */
static void fill_segments(char path[512])
{
    weir_spill *spill = open_spill(1 << 20, 1024, true);
    for (unsigned n = 1; n <= 60; n++)
        append(spill, n, 14);
    weir_spill_destroy(spill);
    snprintf(path, 512, "%s/%016x.seg", folder, 25);
    assert_int_equal(size_of(path), 24 + 24 * 40 + 24);
}

static void a_damaged_record_costs_itself(void **state)
{
    (void)state;
    char path[512];
    fill_segments(path);
    damage(path, 24 + 40 * 3 + 30); /* the bytes of the 4th in it */
    weir_spill *spill = open_counting();
    expect(spill, 1, 27);
    expect(spill, 29, 60);
    expect_nothing(spill);
    weir_spill_snapshot now = log_of(spill);
    assert_int_equal(now.records_lost, 1);
    assert_int_equal(now.segments_damaged, 1);
    assert_int_equal(now.bytes_skipped, 40);
    assert_int_equal(damages, 1);
    weir_spill_destroy(spill);
    assert_int_equal(files(".seg"), 0);
}

static void behind_a_damaged_head_the_next_record_is_found(void **state)
{
    (void)state;
    char path[512];
    fill_segments(path);
    damage(path, 24 + 40 * 3 + 5);  /* a length */
    damage(path, 24 + 40 * 7 + 10); /* a number */
    weir_spill *spill = open_counting();
    expect(spill, 1, 27);
    expect(spill, 29, 31);
    expect(spill, 33, 60);
    assert_int_equal(log_of(spill).records_lost, 2);
    assert_int_equal(log_of(spill).segments_damaged, 1);
    assert_int_equal(damages, 1); /* once for each file */
    weir_spill_destroy(spill);
}

static void a_damaged_end_or_beginning_costs_nothing(void **state)
{
    (void)state;
    char path[512];
    fill_segments(path);
    damage(path, 3);
    damage(path, -3);
    weir_spill *spill = open_counting();
    expect(spill, 1, 60);
    expect_nothing(spill);
    assert_int_equal(log_of(spill).records_lost, 0);
    assert_int_equal(log_of(spill).segments_damaged, 1);
    weir_spill_destroy(spill);
}

static void a_torn_tail_is_cut_off(void **state)
{
    (void)state;
    char path[512];
    for (int cut = 1; cut < 80; cut += 3) {
        fill_segments(path);
        snprintf(path, sizeof path, "%s/%016x.seg", folder, 49); /* the last one */
        assert_int_equal(truncate(path, (off_t)size_of(path) - 24 - cut), 0);
        weir_spill *spill = open_counting();
        unsigned last = 60 - (unsigned)(cut + 39) / 40;
        assert_int_equal(log_of(spill).recovered, last);
        append(spill, 61, 0);
        expect(spill, 1, last);
        expect(spill, 61, 61);
        assert_int_equal(log_of(spill).records_lost, 0); /* their appends have not returned */
        weir_spill_destroy(spill);
    }
}

static void an_unreadable_segment_is_skipped(void **state)
{
    (void)state;
    char path[512];
    fill_segments(path);
    int fd = open(path, O_RDWR);
    char noise[2000];
    memset(noise, 0x5a, sizeof noise);
    assert_true(fd >= 0 && pwrite(fd, noise, sizeof noise, 0) == sizeof noise && close(fd) == 0);
    weir_spill *spill = open_counting();
    expect(spill, 1, 24);
    expect(spill, 49, 60);
    expect_nothing(spill);
    assert_int_equal(log_of(spill).segments_damaged, 1);
    assert_int_equal(log_of(spill).bytes_skipped, 2000);
    assert_int_equal(log_of(spill).records_lost, 24); /* says the name of the next one */
    assert_int_equal(damages, 1);
    weir_spill_destroy(spill);
}

/* Whatever is cut off a segment that is not the last, its end goes with it. */
static void a_segment_cut_short_from_outside_is_counted_as_lost(void **state)
{
    (void)state;
    char path[512];
    static const int left[] = {0, 10, 24, 24 + 39, 24 + 40, 24 + 40 * 10 + 3, 24 + 24 * 40 - 1};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        fill_segments(path);
        unsigned n = left[i] < 24 ? 0 : (unsigned)(left[i] - 24) / 40;
        assert_int_equal(truncate(path, left[i]), 0);
        weir_spill_destroy(open_counting()); /* it is still known the next time */
        weir_spill *spill = open_counting();
        assert_int_equal(log_of(spill).recovered, 60);
        expect(spill, 1, 24 + n);
        expect(spill, 49, 60);
        expect_nothing(spill);
        assert_int_equal(log_of(spill).records_lost, 24 - n);
        assert_int_equal(log_of(spill).segments_damaged, 1);
        assert_int_equal(damages, 1);
        assert_true(log_of(spill).bytes_skipped < 100);
        weir_spill_destroy(spill);
        assert_int_equal(files(".seg"), 0);
    }
}

static void a_segment_whose_next_one_has_an_absurd_name_is_read_as_it_is(void **state)
{
    (void)state;
    char path[512], far[512];
    fill_segments(path);
    assert_int_equal(truncate(path, 24 + 40 * 10), 0);
    snprintf(path, sizeof path, "%s/%016x.seg", folder, 49);
    snprintf(far, sizeof far, "%s/00ffffffffffffff.seg", folder);
    assert_int_equal(rename(path, far), 0);
    weir_spill *spill = open_counting();
    expect(spill, 1, 34);
    assert_int_equal(log_of(spill).records_lost, 0);
    weir_spill_destroy(spill);
}

static void a_segment_that_vanishes_while_it_is_read_is_lost_and_counted(void **state)
{
    (void)state;
    char path[512];
    fill_segments(path);
    weir_spill *spill = open_counting();
    expect(spill, 1, 10);
    remove_path(path, NULL);
    expect(spill, 11, 24);
    expect(spill, 49, 60);
    expect_nothing(spill);
    assert_int_equal(log_of(spill).records_lost, 24);
    assert_int_equal(log_of(spill).pending, 0);
    weir_spill_destroy(spill);
}

static void damaged_acknowledgements_are_delivered_again(void **state)
{
    (void)state;
    char path[512];
    fill_segments(path);
    weir_spill *spill = open_spill(1 << 20, 1024, true);
    expect(spill, 1, 10);
    weir_spill_destroy(spill);
    each_file(".ack", note_path, path);
    damage(path, -2);
    spill = open_spill(1 << 20, 1024, true);
    uint64_t seq;
    int first = read_one(spill, &seq);
    assert_true(first >= 1 && first <= 10);
    for (int n = first + 1; n <= 60; n++)
        assert_int_equal(read_one(spill, &seq), n);
    weir_spill_destroy(spill);
}

static uint64_t chance = 88172645463325252;

static uint64_t draw(uint64_t below)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return chance % below;
}

static void ruin(const char *path, void *ctx)
{
    (void)ctx;
    uint64_t size = size_of(path);
    int fd = open(path, O_RDWR);
    for (uint64_t n = draw(6); n > 0 && size > 0; n--) {
        char noise[64];
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (char)draw(256);
        uint64_t at = draw(size), length = 1 + draw(sizeof noise);
        if (draw(3) == 0) /* a piece of the file itself: heads that are right, where they are not */
            must(pread(fd, noise, sizeof noise, (off_t)draw(size)) >= 0);
        must(pwrite(fd, noise, length, (off_t)at) == (ssize_t)length);
    }
    if (draw(6) == 0)
        must(ftruncate(fd, (off_t)draw(size + 200)) == 0);
    close(fd);
}

/* Whatever lies there: what is read was appended, in order, once; and reading ends. */
static void hostile_files_cost_only_what_they_damage(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        weir_spill *spill = open_spill(1 << 20, 512 + draw(2000), true);
        unsigned n_in = 20 + (unsigned)draw(80);
        for (unsigned n = 1; n <= n_in; n++)
            append(spill, n, (size_t)draw(60));
        expect(spill, 1, (unsigned)draw(20));
        weir_spill_destroy(spill);
        each_file(".seg", ruin, NULL);
        each_file(".ack", ruin, NULL);
        spill = open_spill(1 << 20, 1024, true);
        weir_record record = {0};
        uint64_t seq;
        int last = 0;
        while (weir_spill_read(spill, &record, &seq) == WEIR_OK) {
            char text[80] = "";
            memcpy(text, record.data, record.size < 79 ? record.size : 79);
            int n = atoi(text);
            assert_true(n > last && n <= (int)n_in);
            assert_int_equal(strspn(text, "0123456789") + strspn(strpbrk(text, ".") ?: "", "."),
                             record.size);
            last = n;
            weir_spill_ack(spill, seq);
        }
        weir_record_free(&record);
        append(spill, 7, 0);
        expect(spill, 7, 7);
        assert_int_equal(log_of(spill).pending, 0);
        assert_int_equal(log_of(spill).unread, 0);
        weir_spill_destroy(spill);
        assert_int_equal(files(".seg"), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(records_are_read_in_the_order_they_were_appended),
        IN_FOLDER(reading_and_appending_take_turns),
        IN_FOLDER(an_empty_record_is_a_record),
        IN_FOLDER(a_record_longer_than_a_segment_has_one_of_its_own),
        IN_FOLDER(a_segment_goes_when_all_of_it_is_acknowledged),
        IN_FOLDER(acknowledging_twice_or_what_nobody_has_makes_no_difference),
        IN_FOLDER(what_the_caller_keeps_is_not_read),
        IN_FOLDER(clearing_acknowledges_what_is_unread),
        IN_FOLDER(the_files_never_hold_more_than_the_bound),
        IN_FOLDER(a_full_log_takes_more_when_its_only_segment_is_acknowledged),
        IN_FOLDER(a_record_that_never_fits_is_refused_as_such),
        IN_FOLDER(options_out_of_range_are_refused),
        IN_FOLDER(a_directory_is_for_one_log),
        IN_FOLDER(a_forked_child_does_not_hold_the_directory),
        IN_FOLDER(a_directory_is_made_for_its_owner_alone),
        IN_FOLDER(a_link_is_not_followed),
        IN_FOLDER(a_durable_log_goes_on_where_it_was_left),
        IN_FOLDER(a_closed_log_leaves_its_directory_to_the_next),
        IN_FOLDER(what_was_read_and_not_acknowledged_is_read_again),
        IN_FOLDER(a_log_that_is_not_durable_leaves_nothing_and_finds_nothing),
        IN_FOLDER(records_of_a_durable_log_are_not_removed_by_another_kind),
        IN_FOLDER(a_damaged_record_costs_itself),
        IN_FOLDER(behind_a_damaged_head_the_next_record_is_found),
        IN_FOLDER(a_damaged_end_or_beginning_costs_nothing),
        IN_FOLDER(a_torn_tail_is_cut_off),
        IN_FOLDER(an_unreadable_segment_is_skipped),
        IN_FOLDER(a_segment_cut_short_from_outside_is_counted_as_lost),
        IN_FOLDER(a_segment_whose_next_one_has_an_absurd_name_is_read_as_it_is),
        IN_FOLDER(a_segment_that_vanishes_while_it_is_read_is_lost_and_counted),
        IN_FOLDER(damaged_acknowledgements_are_delivered_again),
        IN_FOLDER(hostile_files_cost_only_what_they_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
