/* kernel.c - what the kernel tells of memory, in a file system that lies: the input is a list of files, each
 * a byte that names it, two that say how long it is, and its text. */
#include "fuzz.h"

#include <unistd.h>

#include "base/memory.h"

static const char *const names[] = {
    "proc/self/cgroup",
    "proc/meminfo",
    "proc/pressure/memory",
    "proc/self/statm",
    "proc/self/status",
    "proc/7/status",
    "proc/7/statm",
    "proc/8/statm",
    "proc/7/task/7/children",
    "cgroup/memory.max",
    "cgroup/memory.high",
    "cgroup/memory.current",
    "cgroup/memory.stat",
    "cgroup/a/memory.max",
    "cgroup/a/memory.current",
    "cgroup/a/memory.stat",
    "cgroup/a/memory.pressure",
};

#define NAMES (sizeof names / sizeof names[0])

static void read_all(void)
{
    char proc[96], cgroup[96];
    snprintf(proc, sizeof proc, "%s/proc", fuzz_folder());
    snprintf(cgroup, sizeof cgroup, "%s/cgroup", fuzz_folder());
    weir__memory_roots roots = {proc, cgroup};
    weir__memory memory = WEIR__MEMORY_UNKNOWN;
    unsigned processes = 0;
    weir__memory_read(&roots, &memory);
    must(memory.limit == WEIR__NO_LIMIT || memory.usage <= memory.limit);
    must(memory.some >= 0 && memory.some <= 100 && memory.full >= 0 && memory.full <= 100);
    weir__rss_of(&roots, 0);
    weir__rss_of(&roots, 7);
    weir__peak_rss_of(&roots, 0);
    weir__rss_of_tree(&roots, 7, &processes);
    must(processes <= 4096);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    bool written[NAMES] = {false};
    while (f.left > 0) {
        size_t n, which = fuzz_byte(&f) % NAMES;
        uint64_t wanted = fuzz_number(&f, 2);
        const uint8_t *text = fuzz_take(&f, wanted, &n);
        fuzz_write(names[which], text, n);
        written[which] = true;
    }
    read_all();
    for (size_t i = 0; i < NAMES; i++)
        if (written[i])
            fuzz_write(names[i], NULL, 0);
    return 0;
}
