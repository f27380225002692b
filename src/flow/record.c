/* record.c - see record.h. */
#include "flow/record.h"

#include <limits.h>

#include <weir/teller.h>

#include "base/park.h"

_Static_assert(WEIR__PAGE_BUCKETS == WEIR__HISTOGRAM_BUCKETS, "the buckets are the model's");

weir__record *weir__record_open(weir_stats_kind kind, const char *name)
{
    if (!WEIR__TELLS || (name && name[0] == '\0'))
        return NULL;
    return weir__page_take(kind, weir_stats_kind_name(kind), name);
}

void weir__record_close(weir__record *record)
{
    weir__page_give_back(record);
}

/* ---- of several processes --------------------------------------------------------------------- */

static void open_here(weir__shared_record *shared, uint32_t generation)
{
    weir__record *record = NULL;
    if (shared->kind)
        record = weir__record_open(shared->kind, shared->is_named ? shared->name : NULL);
    weir__tell(record, WEIR_STATS_SHARED, 1);
    atomic_store_explicit(&shared->record, record, memory_order_relaxed);
    /* release: pairs with the acquires below; what was told first is there */
    atomic_store_explicit(&shared->generation, generation, memory_order_release);
}

void weir__shared_record_open(weir__shared_record *shared, weir_stats_kind kind, const char *name)
{
    uint32_t now = weir__page_generation();
    shared->kind = kind;
    shared->is_named = name;
    if (name)
        weir__page_copy_name(shared->name, name);
    atomic_store_explicit(&shared->opened_by, now, memory_order_relaxed);
    open_here(shared, now);
}

/* One thread opens it, the others wait: what they told of meanwhile would be in no record. */
__attribute__((noinline)) static void open_in_child(weir__shared_record *shared, uint32_t now)
{
    uint32_t before = atomic_load_explicit(&shared->opened_by, memory_order_relaxed);
    if (before != now &&
        atomic_compare_exchange_strong_explicit(&shared->opened_by, &before, now,
                                                memory_order_relaxed, memory_order_relaxed)) {
        open_here(shared, now);
        weir__futex_wake(&shared->generation, INT_MAX, false);
        return;
    }
    uint32_t seen;
    while ((seen = atomic_load_explicit(&shared->generation, memory_order_acquire)) != now)
        weir__futex_sleep(&shared->generation, seen, weir_after(WEIR_SECOND)); /* without hooks */
}

weir__record *weir__shared_record_of(weir__shared_record *shared)
{
    uint32_t now = weir__page_generation();
    if (WEIR__TELLS && atomic_load_explicit(&shared->generation, memory_order_acquire) != now)
        open_in_child(shared, now);
    return atomic_load_explicit(&shared->record, memory_order_relaxed);
}

void weir__shared_record_close(weir__shared_record *shared)
{
    weir__record_close(atomic_load_explicit(&shared->record, memory_order_relaxed));
}

/* ---- for objects that are not the library's --------------------------------------------------- */

static weir__record *inner(weir_teller *teller)
{
    return (weir__record *)teller;
}

weir_teller *weir_teller_open(weir_stats_kind kind, const char *name)
{
    return (weir_teller *)weir__record_open(kind, name);
}

void weir_teller_close(weir_teller *teller)
{
    weir__record_close(inner(teller));
}

uint64_t weir_teller_id(const weir_teller *teller)
{
    return weir__record_id((const weir__record *)teller);
}

static void tell(weir__record *record, const weir_told *told)
{
    if (told->number == WEIR_STATS_PUT_WAITING || told->number == WEIR_STATS_GET_WAITING)
        weir__tell_line(record, told->number == WEIR_STATS_GET_WAITING, told->value);
    else if ((unsigned)told->number < WEIR_STATS_NUMBERS)
        weir__tell(record, told->number, told->value);
}

void weir_teller_tell(weir_teller *teller, const weir_told *told, size_t n)
{
    if (!teller)
        return;
    if (n == 1) { /* belongs to itself */
        tell(inner(teller), told);
        return;
    }
    weir__tell_begin(inner(teller));
    for (size_t i = 0; i < n; i++)
        tell(inner(teller), &told[i]);
    weir__tell_end(inner(teller));
}

void weir_teller_time(weir_teller *teller, weir_teller_times which, int64_t ns, uint64_t n)
{
    weir__record *to = inner(teller);
    if (to)
        weir__tell_time(which == WEIR_TELLER_WAIT ? &to->wait : &to->service, ns, n);
}
