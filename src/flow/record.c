/* record.c - see record.h. */
#include "flow/record.h"

#include <weir/teller.h>

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

static weir__record *open_here(weir__shared_record *shared)
{
    weir__record *record = NULL;
    if (shared->kind)
        record = weir__record_open(shared->kind, shared->is_named ? shared->name : NULL);
    weir__tell(record, WEIR_STATS_SHARED, 1);
    /* release: pairs with the acquire in weir__shared_record_of; what was told first is there */
    atomic_store_explicit(&shared->record, record, memory_order_release);
    return record;
}

void weir__shared_record_open(weir__shared_record *shared, weir_stats_kind kind, const char *name)
{
    shared->kind = kind;
    shared->is_named = name;
    if (name)
        weir__page_copy_name(shared->name, name);
    open_here(shared);
    atomic_store_explicit(&shared->generation, weir__page_generation(), memory_order_relaxed);
}

/* Where another thread is about to open it, what is told meanwhile goes where the parent's lies, which is
 * the child's own memory and nobody's to see. */
weir__record *weir__shared_record_of(weir__shared_record *shared)
{
    unsigned now = weir__page_generation();
    unsigned seen = atomic_load_explicit(&shared->generation, memory_order_relaxed);
    if (WEIR__TELLS && seen != now &&
        atomic_compare_exchange_strong_explicit(&shared->generation, &seen, now,
                                                memory_order_relaxed, memory_order_relaxed))
        return open_here(shared);
    return atomic_load_explicit(&shared->record, memory_order_acquire);
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

void weir_teller_tell(weir_teller *teller, const weir_told *told, size_t n)
{
    if (!teller)
        return;
    weir__tell_begin(inner(teller));
    for (size_t i = 0; i < n; i++)
        if ((unsigned)told[i].number < WEIR_STATS_NUMBERS)
            weir__tell(inner(teller), told[i].number, told[i].value);
    weir__tell_end(inner(teller));
}

void weir_teller_time(weir_teller *teller, weir_teller_times which, int64_t ns)
{
    weir__record *to = inner(teller);
    if (to)
        weir__tell_time(which == WEIR_TELLER_WAIT ? &to->wait : &to->service, ns);
}
