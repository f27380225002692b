/* record.c - flow/record: what an object tells of itself, and who opens its record after a fork. */
#include "../prove.h"

#include <string.h>

#include "flow/record.h"

static weir__record *record;

static uint64_t number(weir_stats_number which)
{
    return atomic_load_explicit(&record->number[which], memory_order_relaxed);
}

static void tell_twice(void *arg)
{
    (void)arg;
    for (uint64_t n = 1; n < 3; n++) {
        weir__tell_begin(record);
        weir__tell(record, WEIR_STATS_ACCEPTED, n);
        weir__tell(record, WEIR_STATS_DONE, n);
        weir__tell_end(record);
    }
}

/* As other processes read: between two looks at the version. */
static void read_whole(void)
{
    uint64_t before = atomic_load_explicit(&record->version, memory_order_acquire);
    uint64_t done = number(WEIR_STATS_DONE), accepted = number(WEIR_STATS_ACCEPTED);
    atomic_thread_fence(memory_order_acquire);
    uint64_t after = atomic_load_explicit(&record->version, memory_order_relaxed);
    if (before == after && before % 2 == 0)
        prove_claim(done == accepted && done == before / 2);
}

static void record_is_read_whole(void)
{
    prove_keep_records(true);
    record = weir__record_open(WEIR_STATS_BREAKER, NULL);
    int t = prove_spawn(tell_twice, NULL);
    read_whole();
    read_whole();
    prove_join(t);
    prove_same(number(WEIR_STATS_ACCEPTED), 2);
    weir__record_close(record);
}

PROVE_CASE(record_is_read_whole,
           "numbers that belong together are read together, or seen to change");

static void tell_together(void *arg)
{
    uint64_t n = (uint64_t)(uintptr_t)arg;
    weir__tell_together(record, WEIR_STATS_ACCEPTED, n);
    weir__raise(&record->number[WEIR_STATS_PEAK_DEPTH], n);
    weir__tell_time_together(&record->service, (int64_t)n, 1);
}

static void record_of_many(void)
{
    prove_keep_records(true);
    record = weir__record_open(WEIR_STATS_WATERMARK, NULL);
    int t[] = {prove_spawn(tell_together, (void *)3), prove_spawn(tell_together, (void *)5)};
    tell_together((void *)4);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    prove_claim(number(WEIR_STATS_ACCEPTED) == 12 && number(WEIR_STATS_PEAK_DEPTH) == 5);
    prove_same(record->service.sum_ns, 12);
    prove_same(record->service.max_ns, 5);
    weir__record_close(record);
}

PROVE_CASE(record_of_many, "what several tell at the same time is all counted");

/* ---- after a fork -------------------------------------------------------------------------------- */

static weir__shared_record shared;

static void tell_in_child(void *arg)
{
    (void)arg;
    weir__record *own = weir__shared_record_of(&shared);
    prove_claim(own && own != record && own->kind == WEIR_STATS_LIMIT);
    weir__tell_together(own, WEIR_STATS_ACCEPTED, 1);
}

static void record_of_a_child(void)
{
    memset(&shared, 0, sizeof shared);
    prove_keep_records(true);
    prove_let_time_stand_still();
    weir_time begun = weir_now();
    weir__shared_record_open(&shared, WEIR_STATS_LIMIT, "name");
    record = weir__shared_record_of(&shared);
    prove_be_forked();
    int t[] = {prove_spawn(tell_in_child, NULL), prove_spawn(tell_in_child, NULL)};
    tell_in_child(NULL);
    for (int i = 0; i < 2; i++)
        prove_join(t[i]);
    prove_claim(weir_now() < begun + WEIR_SECOND / 2); /* nobody looked again by himself */
    weir__record_close(record);                        /* the parent's */
    record = weir__shared_record_of(&shared);
    prove_claim(number(WEIR_STATS_ACCEPTED) == 3 && number(WEIR_STATS_SHARED) == 1);
    weir__shared_record_close(&shared);
}

PROVE_CASE(record_of_a_child, "in a child one thread opens the record, and all tell in that");
