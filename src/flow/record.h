/* record.h - what an object tells of itself to other processes: its record in the process's page.
 *
 * A copy: an object works with numbers of its own and stores them here as they change.  It decides by
 * nothing that is here: so a page that somebody tampers with, or that a fork has taken away, changes
 * nothing but what is seen.
 * Where there is no record it is NULL, and telling it does nothing.
 *
 * Writers:    one at a time for each third of the numbers (see base/page.h), and for the times: under a
 *             mutex of the object.
 * Cost:       a number is a plain store to a line that only its writer touches.  Nothing here waits.
 */
#ifndef WEIR_FLOW_RECORD_H
#define WEIR_FLOW_RECORD_H

#include <weir/stats.h>

#include "base/page.h"
#include "model/histogram.h"

/* To measure what telling costs: meson setup -Dstats=false. */
#ifdef WEIR_NO_STATS
#define WEIR__TELLS false
#else
#define WEIR__TELLS true
#endif

typedef weir__page_record weir__record;

/* NULL: there is none, or the name is "": nobody is to see it.  name NULL: "queue-1" and so on. */
weir__record *weir__record_open(weir_stats_kind kind, const char *name);
void weir__record_close(weir__record *record); /* NULL is fine */

static inline void weir__tell(weir__record *record, weir_stats_number number, uint64_t value)
{
    if (WEIR__TELLS && record)
        atomic_store_explicit(&record->number[number], value, memory_order_relaxed);
}

/* Between the two, readers take the numbers for ones that do not belong together.  One writer. */
static inline void weir__tell_begin(weir__record *record)
{
    uint64_t version = atomic_load_explicit(&record->version, memory_order_relaxed);
    atomic_store_explicit(&record->version, version + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* who sees what follows sees it odd */
}

static inline void weir__tell_end(weir__record *record)
{
    uint64_t version = atomic_load_explicit(&record->version, memory_order_relaxed);
    /* release: who sees it even again sees what was told */
    atomic_store_explicit(&record->version, version + 1, memory_order_release);
}

static inline void weir__tell_more(_Atomic uint64_t *sum, uint64_t by)
{
    atomic_store_explicit(sum, atomic_load_explicit(sum, memory_order_relaxed) + by,
                          memory_order_relaxed);
}

/* Counts a time; one writer at a time.  (What is negative, because two threads read the clock in one order
 * and came in the other, was none.) */
static inline void weir__tell_time(weir__page_times *times, int64_t ns)
{
    uint64_t took = ns > 0 ? (uint64_t)ns : 0;
    weir__tell_more(&times->bucket[weir__histogram_bucket(took)], 1);
    weir__tell_more(&times->sum_ns, took);
    if (took > atomic_load_explicit(&times->max_ns, memory_order_relaxed))
        atomic_store_explicit(&times->max_ns, took, memory_order_relaxed);
}

/* The same, of any number of writers. */
static inline void weir__tell_time_together(weir__page_times *times, int64_t ns)
{
    uint64_t took = ns > 0 ? (uint64_t)ns : 0;
    uint64_t max = atomic_load_explicit(&times->max_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&times->bucket[weir__histogram_bucket(took)], 1,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&times->sum_ns, took, memory_order_relaxed);
    while (took > max &&
           !atomic_compare_exchange_weak_explicit(&times->max_ns, &max, took, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

#endif
