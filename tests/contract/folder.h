/* folder.h - a folder of a test's own, gone when the test ends; what lies in it. */
#ifndef WEIR_TESTS_CONTRACT_FOLDER_H
#define WEIR_TESTS_CONTRACT_FOLDER_H

#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/spill.h>

static char folder[64];

typedef void folder_fn(const char *path, void *ctx);

/* Calls fn with the path of each file whose name ends so, in the order of the names; how many. */
static inline int each_file(const char *ending, folder_fn *fn, void *ctx)
{
    struct dirent **found;
    int n = scandir(folder, &found, NULL, alphasort), count = 0;
    for (int i = 0; i < n; i++) {
        char path[512];
        size_t at = strlen(found[i]->d_name), length = strlen(ending);
        if (found[i]->d_name[0] != '.' && at >= length &&
            strcmp(found[i]->d_name + at - length, ending) == 0) {
            snprintf(path, sizeof path, "%s/%s", folder, found[i]->d_name);
            if (fn)
                fn(path, ctx);
            count++;
        }
        free(found[i]);
    }
    if (n >= 0)
        free(found);
    return count;
}

static inline int files(const char *ending)
{
    return each_file(ending, NULL, NULL);
}

static inline void remove_path(const char *path, void *ctx)
{
    (void)ctx;
    must(remove(path) == 0);
}

static inline int begin_folder(void **state)
{
    (void)state;
    const char *place =
        access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"; /* no disk to wait for */
    snprintf(folder, sizeof folder, "%s/spill-test-XXXXXX", place);
    return mkdtemp(folder) ? 0 : -1;
}

static inline int end_folder(void **state)
{
    (void)state;
    each_file("", remove_path, NULL);
    return rmdir(folder);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin_folder, end_folder)

/* The last one. */
static inline void note_path(const char *path, void *ctx)
{
    snprintf(ctx, 512, "%s", path);
}

static inline uint64_t size_of(const char *path)
{
    struct stat is;
    must(stat(path, &is) == 0);
    return (uint64_t)is.st_size;
}

/* Turns the bits of a byte; from the end where `at` is negative. */
static inline void damage(const char *path, int64_t at)
{
    int fd = open(path, O_RDWR);
    unsigned char byte;
    must(fd >= 0);
    off_t offset = at < 0 ? (off_t)((int64_t)size_of(path) + at) : (off_t)at;
    must(pread(fd, &byte, 1, offset) == 1);
    byte = (unsigned char)~byte;
    must(pwrite(fd, &byte, 1, offset) == 1 && close(fd) == 0);
}

static inline weir_spill_opts spill_opts(uint64_t max_bytes, uint64_t segment_bytes, bool durable)
{
    weir_spill_opts opts = WEIR_SPILL_OPTS_INIT;
    opts.dir = folder;
    opts.max_bytes = max_bytes;
    opts.segment_bytes = segment_bytes;
    opts.durable = durable;
    return opts;
}

static inline weir_spill *open_spill(uint64_t max_bytes, uint64_t segment_bytes, bool durable)
{
    weir_spill *spill = NULL;
    weir_spill_opts opts = spill_opts(max_bytes, segment_bytes, durable);
    must(weir_spill_create(&spill, &opts) == WEIR_OK);
    return spill;
}

static inline weir_spill_snapshot log_of(weir_spill *spill)
{
    weir_spill_snapshot now = WEIR_SPILL_SNAPSHOT_INIT;
    must(weir_spill_get_snapshot(spill, &now) == WEIR_OK);
    must(now.appended + now.recovered == now.acknowledged + now.records_lost + now.pending);
    return now;
}

#endif
