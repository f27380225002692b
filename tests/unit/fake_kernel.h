/* fake_kernel.h - a tree of files like the kernel's, for tests that say how much memory there is. */
#ifndef WEIR_TESTS_UNIT_FAKE_KERNEL_H
#define WEIR_TESTS_UNIT_FAKE_KERNEL_H

#include "contract/support.h"

#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

#define MIB (UINT64_C(1) << 20)

static char top[64], proc[96], cgroup[96];
static weir__memory_roots roots;

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    (void)stat;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int remove_tree(void **state)
{
    (void)state;
    return nftw(top, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Writes a file of the tree, with the directories it lies in; whole, for who reads it meanwhile. */
static void put(const char *path, const char *text)
{
    char name[512], fresh[512];
    snprintf(name, sizeof name, "%s/%s", top, path);
    for (char *slash = name + strlen(top) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(name, 0700);
        *slash = '/';
    }
    snprintf(fresh, sizeof fresh, "%s/fresh", top);
    FILE *file = fopen(fresh, "w");
    must(file);
    fputs(text, file);
    fclose(file);
    must(rename(fresh, name) == 0);
}

static inline void put_number(const char *path, uint64_t number)
{
    char text[32];
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)number);
    put(path, text);
}

/* A host with 8000 MiB, 6000 of them free, and nothing else. */
static int make_host(void **state)
{
    (void)state;
    strcpy(top, "/tmp/weir-memory-XXXXXX");
    if (!mkdtemp(top))
        return -1;
    snprintf(proc, sizeof proc, "%s/proc", top);
    snprintf(cgroup, sizeof cgroup, "%s/cgroup", top);
    roots = (weir__memory_roots){proc, cgroup};
    put("proc/meminfo", "MemTotal:        8192000 kB\nMemFree:          100 kB\n"
                        "MemAvailable:    6144000 kB\n");
    return 0;
}

/* How much of the cgroup's 1000 MiB is in use. */
static inline void use(uint64_t mib)
{
    put_number("cgroup/a/memory.current", mib * MIB);
}

/* The same in a cgroup that may have 1000 MiB, and uses 100. */
static inline int make_cgroup(void **state)
{
    if (make_host(state) < 0)
        return -1;
    put("proc/self/cgroup", "0::/a\n");
    put_number("cgroup/a/memory.max", 1000 * MIB);
    use(100);
    return 0;
}

#endif
