/* spill_support.c - see spill_support.h. */
#include "spill_support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/files.h"

static char path[64], new_path[80], left_path[80];
static const char *used; /* of the first two */

static void empty(const char *folder)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return;
    for (const struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

static void remove_folder(const char *folder)
{
    empty(folder);
    rmdir(folder);
}

/* Before the first run, while the process's number is the real one; so they are there in each run. */
__attribute__((constructor)) static void make_directories(void)
{
    snprintf(path, sizeof path, "/tmp/weir-spill-%d", (int)getpid());
    snprintf(new_path, sizeof new_path, "%s-new", path);
    snprintf(left_path, sizeof left_path, "%s-left", path);
    mkdir(path, 0700);
    mkdir(left_path, 0700);
}

__attribute__((destructor)) static void remove_directories(void)
{
    remove_folder(path);
    remove_folder(new_path);
    remove_folder(left_path);
}

static void make_in(const char *folder, weir_spill **ret_spill, bool durable)
{
    weir_spill_opts opts = WEIR_SPILL_OPTS_INIT;
    opts.dir = folder;
    opts.max_bytes = 4096;
    opts.segment_bytes = 512;
    opts.durable = durable;
    prove_claim(weir_spill_create(ret_spill, &opts) == WEIR_OK);
}

void s_make(weir_spill **ret_spill, bool durable)
{
    empty(path);
    make_in(used = path, ret_spill, durable);
}

void s_make_with_folder(weir_spill **ret_spill)
{
    remove_folder(new_path);
    make_in(used = new_path, ret_spill, true);
}

void s_cut_power(void)
{
    prove_cut_power(used, left_path);
}

void s_open_what_is_left(weir_spill **ret_spill)
{
    make_in(left_path, ret_spill, true);
}

static int fail_for_space(size_t *n)
{
    *n = 0;
    return prove_pick(2) ? ENOSPC : 0;
}

static int fail_always(size_t *n)
{
    *n = 0;
    return ENOSPC;
}

void s_disk_is_full(void)
{
    weir__write_fails = fail_always;
}

static int fail_to_sync(void)
{
    return prove_rarely() ? EIO : 0;
}

/* Set while nobody else runs, or before they do. */
void s_disk_may_fail(bool may)
{
    weir__write_fails = may ? fail_for_space : NULL;
}

void s_syncs_may_fail(bool may)
{
    weir__sync_fails = may ? fail_to_sync : NULL;
}

weir_spill_snapshot s_look(weir_spill *spill)
{
    weir_spill_snapshot s = WEIR_SPILL_SNAPSHOT_INIT;
    prove_claim(weir_spill_get_snapshot(spill, &s) == WEIR_OK);
    prove_same(s.appended + s.recovered, s.acknowledged + s.records_lost + s.pending);
    prove_claim(s.unread <= s.pending && s.bytes <= s.max_bytes);
    prove_same(s.records_lost, 0);
    return s;
}
