/* A thousand pages that are no pages: a reader passes them over, whatever is in them and whatever happens
 * to them meanwhile.  It reads nothing outside its own memory (under ASan), and always comes to an end. */
#include "fault/lies.h"

#include <weir/stats.h>

static void check_text(const char *text, size_t size)
{
    must(memchr(text, '\0', size));
    for (; *text; text++)
        must((unsigned char)*text >= ' ' && *text != 0x7f);
}

typedef struct seen {
    unsigned processes, records;
} seen;

/* All that there is, used in every way that a reader of it has. */
static seen read_all(void)
{
    static weir_stats_record record, before;
    static weir_stats_times between;
    weir_stats *stats;
    weir_stats_process process = WEIR_STATS_PROCESS_INIT;
    seen all = {0};
    record.size = sizeof record;
    must(weir_stats_open(&stats, folder) == WEIR_OK);
    while (weir_stats_next_process(stats, &process) > 0) {
        all.processes++;
        check_text(process.command, sizeof process.command);
        check_text(process.library, sizeof process.library);
        for (; weir_stats_next_record(stats, &record) > 0; before = record) {
            all.records++;
            check_text(record.name, sizeof record.name);
            must(weir_stats_kind_name((int)record.kind));
            must(weir_stats_percentile(&record.wait, 0.99) <= record.wait.max_ns);
            weir_stats_times_between(&before.service, &record.service, &between);
            must(weir_stats_percentile(&between, 1) <= between.max_ns);
        }
        must(all.records <= all.processes * WEIR__PAGE_RECORDS);
    }
    weir_stats_close(stats);
    return all;
}

/* ---- lies ------------------------------------------------------------------------------------- */

static void a_thousand_hostile_pages_are_survived(void **state)
{
    (void)state;
    _Alignas(weir__page_record) static unsigned char data[SIZE];
    for (unsigned i = 0; i < HOSTILE; i += 50) {
        int fds[50];
        for (unsigned j = 0; j < 50; j++)
            fds[j] = lie(j, data, distort(data, i + j));
        assert_true(read_all().processes <= 50);
        for (unsigned j = 0; j < 50; j++)
            close(fds[j]);
    }
}

static void a_true_page_among_them_is_read(void **state)
{
    (void)state;
    static unsigned char noise[SIZE];
    fill_with_noise(noise, SIZE);
    int lies[] = {lie(1, noise, SIZE), lie(2, "", 0), lie(3, whole, SIZE), lie(4, noise, 4096)};
    seen all = read_all();
    assert_int_equal(all.processes, 1);
    assert_int_equal(all.records, 5);
    for (int i = 0; i < 4; i++)
        close(lies[i]);
}

static void what_is_not_locked_is_dead(void **state)
{
    (void)state;
    close(lie(1, whole, SIZE));
    assert_int_equal(read_all().processes, 0);
}

static void another_version_is_passed_over(void **state)
{
    (void)state;
    _Alignas(weir__page_record) static unsigned char data[SIZE];
    for (unsigned field = 8; field < 32; field += 4) {
        memcpy(data, whole, SIZE);
        data[field]++;
        int fd = lie(1, data, SIZE);
        assert_int_equal(read_all().processes, 0);
        close(fd);
    }
}

static void a_page_of_a_terabyte_takes_no_longer(void **state)
{
    (void)state;
    _Alignas(weir__page_record) static unsigned char data[SIZE];
    memcpy(data, whole, SIZE);
    ((weir__page_head *)(void *)data)->records = UINT32_MAX;
    int fd = lie(1, data, SIZE);
    assert_int_equal(ftruncate(fd, (off_t)1 << 31), 0);
    seen all = read_all();
    assert_int_equal(all.processes, 1);
    assert_int_equal(all.records, 5);
    close(fd);
}

static void things_that_are_no_files_are_passed_over(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/1-1", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(read_all().processes, 0);
    remove(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(read_all().processes, 0);
    remove(path);
    int fd = lie(1, whole, SIZE); /* 2-1 */
    char target[128];
    snprintf(target, sizeof target, "%s/2-1", folder);
    assert_int_equal(symlink(target, path), 0);
    assert_int_equal(read_all().processes, 1);
    close(fd);
}

/* Writes and cuts and grows what is being read. */
static _Atomic bool over;

static void *disturb(void *arg)
{
    int fd = *(int *)arg;
    weir__random random = {7};
    for (uint64_t word; !over;) {
        word = weir__random_next(&random);
        size_t at = below(&random, SIZE - sizeof word);
        switch (below(&random, 8)) {
        case 0: must(ftruncate(fd, (off_t)at) == 0); break;
        case 1: must(ftruncate(fd, SIZE) == 0); break;
        case 2:
        case 3: must(pwrite(fd, whole, SIZE, 0) == (ssize_t)SIZE); break;
        default: must(pwrite(fd, &word, sizeof word, (off_t)at) == (ssize_t)sizeof word);
        }
    }
    return NULL;
}

static void a_page_that_changes_while_it_is_read_is_survived(void **state)
{
    (void)state;
    int fd = lie(1, whole, SIZE);
    pthread_t thread;
    over = false;
    must(pthread_create(&thread, NULL, disturb, &fd) == 0);
    unsigned processes = 0;
    for (weir_time end = weir_after(WEIR_SECOND); weir_now() < end || processes == 0;)
        processes += read_all().processes;
    over = true;
    pthread_join(thread, NULL);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_thousand_hostile_pages_are_survived, begin, end_folder),
        cmocka_unit_test_setup_teardown(a_true_page_among_them_is_read, begin, end_folder),
        cmocka_unit_test_setup_teardown(what_is_not_locked_is_dead, begin, end_folder),
        cmocka_unit_test_setup_teardown(another_version_is_passed_over, begin, end_folder),
        cmocka_unit_test_setup_teardown(a_page_of_a_terabyte_takes_no_longer, begin, end_folder),
        cmocka_unit_test_setup_teardown(things_that_are_no_files_are_passed_over, begin,
                                        end_folder),
        cmocka_unit_test_setup_teardown(a_page_that_changes_while_it_is_read_is_survived, begin,
                                        end_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
