/* page.c - a stats page of another process that lies, read and judged twice with changes between: readers, the
 * monitor, what it writes as JSON and as OpenMetrics.  The input is a list of patches of a page that was whole:
 * where, how many bytes, which; and at last its length. */
#include "fuzz.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/monitor.h>
#include <weir/stats.h>

#include "base/page.h"

#define RECORDS 3u
#define SIZE    (sizeof(weir__page_head) + RECORDS * sizeof(weir__page_record))

_Alignas(weir__page_record) static unsigned char page[SIZE];

static weir__page_record *record_at(unsigned i)
{
    return (weir__page_record *)(void *)(page + sizeof(weir__page_head) +
                                         i * sizeof(weir__page_record));
}

static void make_page(void)
{
    weir__page_head *head = (weir__page_head *)(void *)page;
    memset(page, 0, sizeof page);
    memcpy(head->magic, WEIR__PAGE_MAGIC, sizeof head->magic);
    head->version = WEIR__PAGE_VERSION;
    head->byte_order = WEIR__PAGE_BYTE_ORDER;
    head->head_size = sizeof(weir__page_head);
    head->record_size = sizeof(weir__page_record);
    head->numbers = WEIR__PAGE_NUMBERS;
    head->buckets = WEIR__PAGE_BUCKETS;
    head->records = RECORDS;
    head->pid = 7;
    snprintf(head->command, sizeof head->command, "fuzz");
    for (unsigned i = 0; i < RECORDS; i++) {
        record_at(i)->generation = 2 * i + 1;
        record_at(i)->kind = 1 + i;
        snprintf(record_at(i)->name, sizeof record_at(i)->name, "object-%u", i);
    }
}

/* Small inputs reach everything: a patch is at a number, a name, a bucket, or anywhere. */
static size_t place(fuzz *f)
{
    uint8_t how = fuzz_byte(f);
    weir__page_record *record = record_at(how / 8 % RECORDS);
    switch (how % 6) {
    case 0: return fuzz_byte(f) % 64;                                             /* the head */
    case 1: return (size_t)((unsigned char *)record - page) + fuzz_byte(f) % 128; /* and its name */
    case 2:
        return (size_t)((unsigned char *)&record->number[fuzz_byte(f) % WEIR__PAGE_NUMBERS] - page);
    case 3:
        return (
            size_t)((unsigned char *)&record->wait.bucket[fuzz_number(f, 2) % WEIR__PAGE_BUCKETS] -
                    page);
    case 4: return (size_t)((unsigned char *)&record->service - page) + fuzz_byte(f) % 16;
    default: return fuzz_number(f, 3) % SIZE;
    }
}

static void patch(fuzz *f)
{
    size_t at = place(f), n;
    uint8_t how = fuzz_byte(f);
    if (how & 1) {
        uint64_t number = fuzz_any(f);
        if (at + sizeof number <= SIZE)
            memcpy(page + at, &number, sizeof number);
        return;
    }
    const uint8_t *bytes = fuzz_take(f, how / 2 % 32, &n);
    if (n > 0 && at + n <= SIZE)
        memcpy(page + at, bytes, n);
}

static int take(void *ctx, const char *data, size_t n)
{
    fuzz_touch(data, n);
    *(size_t *)ctx += n;
    return WEIR_OK;
}

static void look(weir_monitor *monitor)
{
    const weir_monitor_object *root;
    size_t n = 0;
    must(weir_monitor_look(monitor) == WEIR_OK);
    fuzz_touch(weir_monitor_root(monitor, 0, &root), 1);
    must(weir_monitor_write_json(monitor, true, take, &n) == WEIR_OK && n > 0);
    must(weir_monitor_write_openmetrics(monitor, take, &n) == WEIR_OK);
}

static void read_records(const char *folder)
{
    static weir_stats_record record = {.size = sizeof record};
    weir_stats_process process = {.size = sizeof process};
    weir_stats *stats;
    must(weir_stats_open(&stats, folder) == WEIR_OK);
    while (weir_stats_next_process(stats, &process) == 1)
        while (weir_stats_next_record(stats, &record) == 1) {
            must(memchr(record.name, '\0', sizeof record.name));
            weir_stats_percentile(&record.wait, 0.99);
        }
    weir_stats_close(stats);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    char folder[96], path[128];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    snprintf(folder, sizeof folder, "%s/pages", fuzz_folder());
    snprintf(path, sizeof path, "%s/7-1", folder);
    mkdir(folder, 0700);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0);

    weir_monitor_opts opts = WEIR_MONITOR_OPTS_INIT;
    weir_monitor *monitor;
    opts.folder = folder;
    must(weir_monitor_create(&monitor, &opts) == WEIR_OK);
    make_page();
    for (int looks = 0; looks < 3; looks++) {
        for (unsigned patches = fuzz_byte(&f) % 16; patches > 0; patches--)
            patch(&f);
        uint8_t cut = fuzz_byte(&f);
        size_t length = cut & 1 ? SIZE - fuzz_number(&f, 2) % SIZE : SIZE;
        must(ftruncate(fd, 0) == 0 && pwrite(fd, page, length, 0) == (ssize_t)length);
        look(monitor);
    }
    read_records(folder);
    weir_monitor_destroy(monitor);
    close(fd);
    return 0;
}
