/* spill.c - recovers a log from files that may hold anything.  The input is a list of steps: files that are
 * written by hand, and damage to the files of a log that was whole.  Whatever lies there, the law holds, no
 * record comes twice, and what comes is no longer than the files. */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/spill.h>

#include "model/segment.h"

#define RECORDS 6

static char path[96];

static weir_spill *open_log(void)
{
    weir_spill_opts opts = WEIR_SPILL_OPTS_INIT;
    weir_spill *spill;
    opts.dir = path;
    opts.max_bytes = 1 << 16;
    opts.segment_bytes = 512;
    opts.durable = true;
    return weir_spill_create(&spill, &opts) == WEIR_OK ? spill : NULL;
}

static void make_log(fuzz *f)
{
    weir_spill *spill = open_log();
    unsigned char bytes[200];
    uint64_t seq;
    must(spill);
    memset(bytes, 'x', sizeof bytes);
    for (int i = 0; i < RECORDS; i++)
        must(weir_spill_append(spill, bytes, fuzz_byte(f) % sizeof bytes, &seq) == WEIR_OK);
    weir_spill_ack(spill, fuzz_byte(f) % RECORDS);
    weir_spill_close(spill);
    weir_spill_destroy(spill);
}

/* ---- damage --------------------------------------------------------------------------------- */

typedef struct found {
    unsigned wanted, n;
    char name[32];
} found;

static void find_file(unsigned wanted, found *ret)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    *ret = (found){.wanted = wanted};
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.' && strlen(entry->d_name) < sizeof ret->name &&
            ret->n++ <= wanted)
            memcpy(ret->name, entry->d_name, strlen(entry->d_name) + 1);
    if (dir)
        closedir(dir);
}

static void damage_file(fuzz *f)
{
    found file;
    char full[160];
    size_t n;
    find_file(fuzz_byte(f) % 8, &file);
    snprintf(full, sizeof full, "%s/%s", path, file.name);
    int fd = file.n ? open(full, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    uint64_t offset = fuzz_number(f, 2) % 1024, wanted = fuzz_byte(f) % 33;
    if (wanted == 32) {
        must(ftruncate(fd, (off_t)offset) == 0);
    } else {
        const uint8_t *bytes = fuzz_take(f, wanted, &n);
        must(n == 0 || pwrite(fd, bytes, n, (off_t)offset) == (ssize_t)n);
    }
    close(fd);
}

/* One of a few names that belong to a log, or could. */
static void write_file(fuzz *f)
{
    char name[WEIR__SEGMENT_NAME], full[64];
    uint8_t which = fuzz_byte(f);
    uint64_t seq = fuzz_any(f);
    size_t n, most = fuzz_number(f, 2) % 2048;
    const uint8_t *bytes = fuzz_take(f, most, &n);
    weir__segment_name(name, seq ? seq : 1, which & 1 ? WEIR__FILE_ACKS : WEIR__FILE_SEGMENT);
    snprintf(full, sizeof full, "log/%s", name);
    fuzz_write(full, bytes, n);
}

/* Heads with the right checksums, and anything else in them: what a checksum cannot keep out. */
static void write_segment(fuzz *f)
{
    unsigned char file[2048];
    char name[WEIR__SEGMENT_NAME], full[64];
    uint64_t first = fuzz_any(f) | 1;
    size_t at = WEIR__SEGMENT_HEAD;
    weir__segment_head(file, first);
    for (unsigned i = fuzz_byte(f) % 8; i > 0 && at + WEIR__RECORD_HEAD + 64 < sizeof file; i--) {
        uint64_t seq = fuzz_byte(f) & 1 ? fuzz_any(f) : first + fuzz_byte(f) % 4;
        uint8_t n = fuzz_byte(f) % 64;
        memset(file + at + WEIR__RECORD_HEAD, n, n);
        if (fuzz_byte(f) & 1)
            weir__record_head(file + at, seq, file + at + WEIR__RECORD_HEAD, n);
        else
            weir__record_end(file + at, seq);
        at += WEIR__RECORD_HEAD + n + weir__record_padding(n);
    }
    weir__segment_name(name, first, WEIR__FILE_SEGMENT);
    snprintf(full, sizeof full, "log/%s", name);
    fuzz_write(full, file, at);
}

/* ---- reading -------------------------------------------------------------------------------- */

static void check_law(weir_spill *spill)
{
    weir_spill_snapshot now = WEIR_SPILL_SNAPSHOT_INIT;
    must(weir_spill_get_snapshot(spill, &now) == WEIR_OK);
    must(now.appended + now.recovered == now.acknowledged + now.records_lost + now.pending);
    must(now.unread <= now.pending);
}

static void use(weir_spill *spill, fuzz *f)
{
    weir_record record = {0};
    uint64_t seq, last = 0;
    uint8_t how = fuzz_byte(f);
    check_law(spill);
    if (how & 1)
        weir_spill_append(spill, "new", 3, &seq);
    while (weir_spill_read(spill, &record, &seq) == WEIR_OK) {
        must(seq > last && record.size <= 1 << 16);
        fuzz_touch(record.data, record.size);
        last = seq;
        if (how & 2)
            weir_spill_ack(spill, seq);
        check_law(spill);
    }
    weir_spill_ack(spill, fuzz_any(f));
    if (how & 4)
        weir_spill_clear(spill);
    check_law(spill);
    weir_record_free(&record);
    weir_spill_destroy(spill);
}

static void empty_folder(void)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    snprintf(path, sizeof path, "%s/log", fuzz_folder());
    make_log(&f);
    for (unsigned steps = 1 + fuzz_byte(&f) % 8; steps > 0; steps--) {
        uint8_t what = fuzz_byte(&f) % 8;
        if (what == 0)
            write_file(&f);
        else if (what == 1)
            write_segment(&f);
        else
            damage_file(&f);
    }
    for (int again = 0; again < 2;
         again++) { /* what a first recovery leaves is recovered once more */
        weir_spill *spill = open_log();
        if (spill)
            use(spill, &f);
    }
    empty_folder();
    return 0;
}
