/* record.h - what an object tells of itself to other processes: its record in the process's page.
 *
 * A copy: an object works with numbers of its own and stores them here as they change.  It decides by
 * nothing that is here: so a page that somebody tampers with changes nothing but what is seen.  (Gates and
 * buckets count here only, and their snapshots say what is here.)
 * Where there is no record it is NULL, and telling it does nothing.
 *
 * Writers:    one at a time for each third of the numbers (see base/page.h), and for the times: under a
 *             mutex of the object.
 * Cost:       a number is a plain store to a line that only its writer touches.  Telling does not wait.
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

/* The record goes on as another object's, one of this process; not of NULL. */
static inline void weir__record_rename(weir__record *record, weir_stats_kind kind, const char *name)
{
    weir__page_rename(record, kind, name);
}

/* As in weir_stats_record; 0: of NULL. */
static inline uint64_t weir__record_id(const weir__record *record)
{
    return weir__page_id(record);
}

/* Of an object that several processes use: each of them has a record for it, and a forked child opens its
 * own with the first thing that it has to tell. */
typedef struct weir__shared_record {
    _Atomic(weir__record *) record;
    _Atomic uint32_t generation; /* the process whose record it is; a futex: release, acquire */
    _Atomic uint32_t opened_by;  /* the process that has it, or where a thread is opening it */
    weir_stats_kind kind;
    bool is_named;
    char name[WEIR__PAGE_NAME];
} weir__shared_record;

/* A zeroed one; kind 0: there is none in any process. */
void weir__shared_record_open(weir__shared_record *shared, weir_stats_kind kind, const char *name);
void weir__shared_record_close(weir__shared_record *shared);

/* In a forked child's first call: opens it, which takes system calls; its other threads wait for that, so
 * that all they tell is in one record. */
weir__record *weir__shared_record_of(weir__shared_record *shared);

/* (Only if it is another value: threads that tell in turn would pass each line to and fro for nothing.) */
static inline void weir__tell(weir__record *record, weir_stats_number number, uint64_t value)
{
    if (WEIR__TELLS && record &&
        atomic_load_explicit(&record->number[number], memory_order_relaxed) != value)
        atomic_store_explicit(&record->number[number], value, memory_order_relaxed);
}

static inline void weir__tell_more(_Atomic uint64_t *sum, uint64_t by)
{
    atomic_store_explicit(sum, atomic_load_explicit(sum, memory_order_relaxed) + by,
                          memory_order_relaxed);
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

/* How many callers wait for room (side 0) or for items (1).  How long they have waited in all follows: it is
 * added up when that number changes, so readers know it at any moment; by three numbers of two moments they
 * would count a wait twice.  One writer, who may be between begin and end. */
static inline void weir__tell_line(weir__record *record, int side, uint64_t waiting)
{
    if (!WEIR__TELLS || !record)
        return;
    _Atomic uint64_t *now_waiting = &record->number[WEIR_STATS_PUT_WAITING + side];
    _Atomic uint64_t *since = &record->number[WEIR_STATS_PUT_WAITING_SINCE + side];
    uint64_t before = atomic_load_explicit(now_waiting, memory_order_relaxed);
    if (before == waiting)
        return;
    bool begins = atomic_load_explicit(&record->version, memory_order_relaxed) % 2 == 0;
    if (begins)
        weir__tell_begin(record);
    uint64_t now = (uint64_t)weir_now();
    weir__tell_more(&record->number[WEIR_STATS_PUT_BLOCKED_NS + side],
                    before * (now - atomic_load_explicit(since, memory_order_relaxed)));
    atomic_store_explicit(since, now, memory_order_relaxed);
    atomic_store_explicit(now_waiting, waiting, memory_order_relaxed);
    if (begins)
        weir__tell_end(record);
}

/* Of any number of writers. */
static inline void weir__tell_together(weir__record *record, weir_stats_number number, uint64_t by)
{
    if (WEIR__TELLS && record)
        atomic_fetch_add_explicit(&record->number[number], by, memory_order_relaxed);
}

/* At least that; whether it was less.  Of any number of writers. */
static inline bool weir__raise(_Atomic uint64_t *max, uint64_t to)
{
    uint64_t before = atomic_load_explicit(max, memory_order_relaxed);
    while (to > before)
        if (atomic_compare_exchange_weak_explicit(max, &before, to, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    return false;
}

/* Counts a time that stands for n; one writer at a time.  (What is negative, because two threads read the
 * clock in one order and came in the other, was none.) */
static inline void weir__tell_time(weir__page_times *times, int64_t ns, uint64_t n)
{
    uint64_t took = ns > 0 ? (uint64_t)ns : 0;
    weir__tell_more(&times->bucket[weir__histogram_bucket(took)], n);
    weir__tell_more(&times->sum_ns, n * took);
    if (took > atomic_load_explicit(&times->max_ns, memory_order_relaxed))
        atomic_store_explicit(&times->max_ns, took, memory_order_relaxed);
}

/* The same, of any number of writers. */
static inline void weir__tell_time_together(weir__page_times *times, int64_t ns, uint64_t n)
{
    uint64_t took = ns > 0 ? (uint64_t)ns : 0;
    atomic_fetch_add_explicit(&times->bucket[weir__histogram_bucket(took)], n,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&times->sum_ns, n * took, memory_order_relaxed);
    weir__raise(&times->max_ns, took);
}

#endif
