/* memory.h - what the kernel tells of memory: the only place that reads it.
 *
 * Files:      a few small ones of procfs and of the cgroup file system, opened for each reading: so
 *             a process that is moved to another cgroup is followed, nothing is inherited by a fork,
 *             and a reading costs 50 us or so.  Nothing here waits.
 * Failure:    what cannot be read is not known: a reading keeps what it was told before.
 */
#ifndef WEIR_BASE_MEMORY_H
#define WEIR_BASE_MEMORY_H

#include <sys/types.h>

#include <weir/base.h>

#define WEIR__NO_LIMIT UINT64_MAX

/* Where the kernel's files are; for tests. */
typedef struct weir__memory_roots {
    const char *proc;   /* NULL: "/proc" */
    const char *cgroup; /* NULL: "/sys/fs/cgroup" */
} weir__memory_roots;

/* ---- this process's share of the machine --------------------------------------------------- */

/* What may be used before the kernel kills, and how much of that is. */
typedef struct weir__memory {
    uint64_t limit;    /* the smallest of the host's memory and the bounds of this process's cgroup
                          and all its ancestors (version 2: memory.max and memory.high; version 1:
                          limit_in_bytes); WEIR__NO_LIMIT: not known */
    uint64_t usage;    /* limit less what is left: the least that any of them has left, where a
                          cgroup's use is its working set (without inactive files' pages, which can
                          be had back, as Kubernetes counts it), the host's all but MemAvailable */
    bool is_cgroup;    /* the limit is that of a cgroup, not the host's */
    double some, full; /* pressure (PSI): percent of the last 10 s in which some, or all, tasks of
                          the cgroup (version 2), or of the host if its is the limit, were stalled
                          for memory; 0: not known */
} weir__memory;

#define WEIR__MEMORY_UNKNOWN ((weir__memory){.limit = WEIR__NO_LIMIT})

/* Brings a reading up to date, as far as the kernel tells; false: it tells nothing. */
bool weir__memory_read(const weir__memory_roots *roots, weir__memory *memory);

/* Bytes of memory that can still be taken before the host, or this process's memory cgroup, is
 * out of it; UINT64_MAX: the kernel does not tell.  Files' pages count as taken. */
uint64_t weir__memory_available(void);

/* How many processes the OOM killer has ended in this process's memory cgroup, or on the host
 * where there is none; < 0: the kernel does not tell. */
int64_t weir__oom_kills(void);

/* ---- processes ----------------------------------------------------------------------------- */

/* Resident set of a process in bytes (pid 0: of this one); 0: it is gone.  Pages that it shares with
 * others count in full: the share of each (PSS) is known only after a walk through all its pages. */
uint64_t weir__rss_of(const weir__memory_roots *roots, pid_t pid);

/* The largest it has been since it began or weir__peak_rss_reset. */
uint64_t weir__peak_rss_of(const weir__memory_roots *roots, pid_t pid);

/* Summed over a process and its descendants, up to 4096 of them (only the process itself where the
 * kernel does not list children).  Who is gone meanwhile counts as far as it was seen. */
uint64_t weir__rss_of_tree(const weir__memory_roots *roots, pid_t pid, unsigned *ret_processes);

/* The same of this process without a file; it, and what is told of its zombie, is reset as well. */
uint64_t weir__peak_rss_of_self(void);

/* Lets weir__peak_rss_of of this process begin anew; false: the kernel does not allow it. */
bool weir__peak_rss_reset(void);

#endif
