/* memory.h - what the kernel tells of memory: the only place that reads it. */
#ifndef WEIR_BASE_MEMORY_H
#define WEIR_BASE_MEMORY_H

#include <weir/base.h>

/* Peak resident set of this process in bytes. */
uint64_t weir__peak_rss_of_self(void);

/* Bytes of memory that can still be taken before the host, or this process's memory cgroup, is
 * out of it; UINT64_MAX: the kernel does not tell. */
uint64_t weir__memory_available(void);

/* How many processes the OOM killer has ended in this process's memory cgroup, or on the host
 * where there is none; < 0: the kernel does not tell. */
int64_t weir__oom_kills(void);

#endif
