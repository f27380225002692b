/* memory.c - what a load may see, and which accesses race.
 *
 * Real memory holds the newest value of everything.  Of each atomic the stores before that are kept: a load may see
 * an older one, unless it must know better: because a newer one happens before it, or somebody who happens before
 * it has seen a newer one (C11 5.1.2.4; the way of Relacy and of CDSChecker).  So a store that is not released
 * is seen late, as on Arm.  An exchange that succeeds sees the newest one; one that fails is a load.  What is not
 * modelled: loads that see stores which come later.
 *
 * Plain accesses are compared by vector clocks, byte by byte (Fidge 1988; FastTrack, PLDI 2009): two of different
 * threads, one of which writes, have to be ordered.
 */
#include "inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORES       6 /* of an atomic that are kept */
#define GRANULE_BITS 17
#define GRANULES     (1u << GRANULE_BITS)
#define LOCATIONS    (1u << 12)

typedef struct store {
    uint64_t value;
    int thread; /* -1: before anybody looked */
    uint32_t epoch;
    bool is_sc;
    prove_clock release;          /* what a load with acquire then knows */
    uint32_t seen[PROVE_THREADS]; /* by whom first, at which epoch of his; 0: not */
} store;

typedef struct location {
    uintptr_t address;
    unsigned size, n; /* n: stores, the newest is the last */
    store stores[STORES];
    prove_clock loads, writes; /* the last epoch of each thread */
} location;

typedef struct granule {
    uintptr_t address; /* of 8 bytes; 0: free */
    bool is_freed;
    uint8_t writer[8];
    uint32_t written[8];
    prove_clock read[8];
    location *at[8];
} granule;

static granule *granules;
static location *locations;
static uint32_t *used, n_used, n_locations;
static prove_clock agreed; /* what sequentially consistent fences have made known to each other */

void prove_memory_begin(void)
{
    if (!granules) {
        granules = calloc(GRANULES, sizeof *granules);
        locations = calloc(LOCATIONS, sizeof *locations);
        used = calloc(GRANULES, sizeof *used);
    }
    for (uint32_t i = 0; i < n_used; i++)
        memset(&granules[used[i]], 0, sizeof *granules);
    n_used = n_locations = 0;
    memset(agreed, 0, sizeof agreed);
    for (int i = 0; i < PROVE_THREADS; i++) {
        prove_thread *t = &prove_threads[i];
        memset(t->known, 0, sizeof t->known);
        memset(t->view, 0, sizeof t->view);
        memset(t->pending, 0, sizeof t->pending);
        memset(t->fenced, 0, sizeof t->fenced);
    }
}

/* That of the address, or the free one where it would be. */
static granule *find(uintptr_t address)
{
    uint32_t i = (uint32_t)((address >> 3) * UINT64_C(0x9e3779b97f4a7c15) >> (64 - GRANULE_BITS));
    while (granules[i].address && granules[i].address != address)
        i = (i + 1) & (GRANULES - 1);
    return &granules[i];
}

static granule *granule_of(uintptr_t address)
{
    address = prove_files_address(address & ~(uintptr_t)7);
    granule *g = find(address);
    if (g->address)
        return g;
    if (n_used > GRANULES / 2)
        prove_fail("the case touches too much memory");
    g->address = address;
    g->is_freed = prove_heap_is_free(address);
    used[n_used++] = (uint32_t)(g - granules);
    return g;
}

/* ---- clocks ----------------------------------------------------------------------------------- */

static void join(prove_clock into, const prove_clock from)
{
    for (int i = 0; i < PROVE_THREADS; i++)
        if (from[i] > into[i])
            into[i] = from[i];
}

static prove_thread *self(void)
{
    return &prove_threads[prove_self];
}

static uint32_t tick(void)
{
    prove_thread *t = self();
    t->view[prove_self] = ++t->known[prove_self];
    return t->known[prove_self];
}

static void learn(prove_thread *t, const prove_clock what)
{
    join(t->known, what);
    join(t->view, what);
}

uint32_t prove_memory_tick(void)
{
    return tick();
}

void prove_memory_spawn(int parent, int child)
{
    prove_thread *t = &prove_threads[child];
    prove_late_begin(child);
    if (parent >= 0) {
        learn(t, prove_threads[parent].known);
        join(t->view, prove_threads[parent].view);
    }
    t->view[child] = ++t->known[child];
    if (parent >= 0)
        tick();
}

void prove_memory_join(int parent, int child)
{
    learn(&prove_threads[parent], prove_threads[child].known);
    join(prove_threads[parent].view, prove_threads[child].view);
    tick();
}

void prove_memory_publish(prove_clock to)
{
    tick();
    join(to, self()->known);
    tick();
}

void prove_memory_learn(const prove_clock from)
{
    learn(self(), from);
}

/* ---- plain accesses --------------------------------------------------------------------------- */

static _Noreturn void fail_race(const char *what, const void *at, int other, const char *did,
                                const void *pc)
{
    char text[160];
    prove_fail("a data race: %s %p in %s, which thread %d has %s without order", what, at,
               prove_place(pc, text), other, did);
}

static void check_freed(const granule *g, const void *at, const void *pc)
{
    char text[160];
    if (g->is_freed)
        prove_fail("use of freed memory: %p in %s", at, prove_place(pc, text));
}

static int later_than(const prove_clock epochs, const prove_clock known)
{
    for (int i = 0; i < PROVE_THREADS; i++)
        if (i != prove_self && epochs[i] > known[i])
            return i;
    return -1;
}

static void check_write(granule *g, unsigned i, const void *at, const void *pc)
{
    const prove_thread *t = self();
    int other = g->writer[i];
    if (g->written[i] > t->known[other] && other != prove_self)
        fail_race("writes", at, other, "written", pc);
    if ((other = later_than(g->read[i], t->known)) >= 0)
        fail_race("writes", at, other, "read", pc);
    const location *l = g->at[i];
    if (!l)
        return;
    if ((other = later_than(l->loads, t->known)) >= 0)
        fail_race("writes", at, other, "loaded", pc);
    if ((other = later_than(l->writes, t->known)) >= 0)
        fail_race("writes", at, other, "stored to", pc);
    g->at[i] = NULL; /* it is another one from now on */
}

static void check_read(const granule *g, unsigned i, const void *at, const void *pc, bool atomic)
{
    const prove_thread *t = self();
    int other = g->writer[i];
    if (g->written[i] > t->known[other] && other != prove_self)
        fail_race(atomic ? "loads" : "reads", at, other, "written", pc);
    if (!atomic && g->at[i] && (other = later_than(g->at[i]->writes, t->known)) >= 0)
        fail_race("reads", at, other, "stored to", pc);
}

void prove_memory_plain(const void *at, size_t size, bool writes, const void *pc)
{
    bool is_own = at == &errno || /* each thread has one, in truth */
                  ((const char *)at >= __start_weir_tls && (const char *)at < __stop_weir_tls);
    if (prove_self < 0 || is_own)
        return;
    uintptr_t address = (uintptr_t)at;
    uint32_t epoch = self()->known[prove_self];
    granule *g = NULL;
    for (size_t n = 0; n < size; n++, address++) {
        if (!g || (address & 7) == 0) {
            g = granule_of(address);
            check_freed(g, at, pc);
        }
        unsigned i = address & 7;
        if (writes) {
            if (g->writer[i] == prove_self && g->written[i] == epoch && !g->at[i])
                continue;
            check_write(g, i, at, pc);
            g->writer[i] = (uint8_t)prove_self;
            g->written[i] = epoch;
        } else {
            if (g->read[i][prove_self] == epoch)
                continue;
            check_read(g, i, at, pc, false);
            g->read[i][prove_self] = epoch;
        }
    }
}

static void forget(granule *g)
{
    if (g->address)
        *g = (granule){.address = g->address};
}

/* What the code frees is not used again in a run, but what libc does is: a directory that was read, say.  Who touched it
 * there has nothing to do with who has it now; and where it comes from is no choice, so the run would not fail again. */
void prove_memory_fresh(const void *at, size_t size)
{
    uintptr_t first = (uintptr_t)at & ~(uintptr_t)7, end = (uintptr_t)at + size;
    if (size / 8 < n_used) {
        for (uintptr_t word = first; word < end; word += 8)
            forget(find(word));
    } else {
        for (uint32_t i = 0; i < n_used; i++)
            if (granules[used[i]].address - first < end - first)
                forget(&granules[used[i]]);
    }
}

void prove_memory_freed(const void *at, size_t size, const void *pc)
{
    if (prove_self < 0)
        return;
    for (uint32_t i = 0; i < n_used; i++) { /* what nobody has touched is not looked at */
        granule *g = &granules[used[i]];
        if (g->address + 8 <= (uintptr_t)at || g->address >= (uintptr_t)at + size)
            continue;
        uintptr_t from = g->address > (uintptr_t)at ? g->address : (uintptr_t)at;
        uintptr_t end =
            g->address + 8 < (uintptr_t)at + size ? g->address + 8 : (uintptr_t)at + size;
        prove_memory_plain((void *)from, end - from, true, pc);
        g->is_freed = true;
    }
}

/* ---- atomics ---------------------------------------------------------------------------------- */

static uint64_t read_raw(uintptr_t address, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, (const void *)address, size);
    return value;
}

/* Its first access as an atomic: what is there is known to all who may access it at all. */
static location *make_location(granule *g, uintptr_t address, unsigned size)
{
    if (n_locations == LOCATIONS)
        prove_fail("the case has too many atomics");
    location *l = &locations[n_locations++];
    memset(l, 0, sizeof *l);
    l->address = address;
    l->size = size;
    l->n = 1;
    l->stores[0].thread = -1;
    l->stores[0].value = read_raw(address, size);
    for (unsigned i = 0; i < size; i++)
        g->at[(address + i) & 7] = l;
    return l;
}

static location *location_of(uintptr_t address, unsigned size, bool writes, const void *pc)
{
    granule *g = granule_of(address);
    check_freed(g, (void *)address, pc);
    for (unsigned i = 0; i < size; i++) {
        unsigned at = (address + i) & 7;
        check_read(g, at, (void *)address, pc, true);
        if (writes) {
            int other = later_than(g->read[at], self()->known);
            if (other >= 0)
                fail_race("stores to", (void *)address, other, "read", pc);
        }
    }
    location *l = g->at[address & 7];
    if (l && l->size == size) {
        l->address = address; /* by which it is written; where it is mapped twice either will do */
        return l;
    }
    return make_location(g, address, size);
}

/* The oldest store that the calling thread may still see. */
static unsigned oldest(const location *l, bool is_sc)
{
    const prove_thread *t = self();
    for (unsigned i = l->n; i-- > 0;) {
        const store *s = &l->stores[i];
        if (s->thread < 0 || s->epoch <= t->view[s->thread] || (is_sc && s->is_sc))
            return i;
        for (int u = 0; u < PROVE_THREADS; u++)
            if (s->seen[u] && s->seen[u] <= t->view[u])
                return i;
    }
    return 0;
}

static bool acquires(int order)
{
    return order == __ATOMIC_ACQUIRE || order == __ATOMIC_CONSUME || order == __ATOMIC_ACQ_REL ||
           order == __ATOMIC_SEQ_CST;
}

static bool releases(int order)
{
    return order == __ATOMIC_RELEASE || order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
}

static void note_seen(location *l, store *s, int order)
{
    prove_thread *t = self();
    if (!s->seen[prove_self])
        s->seen[prove_self] = t->known[prove_self];
    l->loads[prove_self] = t->known[prove_self];
    join(t->pending, s->release);
    if (acquires(order))
        learn(t, s->release);
}

static void add_store(location *l, uint64_t value, int order, const store *continues)
{
    prove_thread *t = self();
    uint64_t was = read_raw(l->address, l->size);
    if (l->n == STORES) {
        memmove(l->stores, l->stores + 1, (STORES - 1) * sizeof *l->stores);
        l->n--;
    }
    store *s = &l->stores[l->n++];
    prove_clock before = {0};
    if (continues)
        memcpy(before, continues->release, sizeof before);
    memset(s, 0, sizeof *s);
    s->value = value;
    s->thread = prove_self;
    s->epoch = t->known[prove_self];
    s->is_sc = order == __ATOMIC_SEQ_CST;
    memcpy(s->release, releases(order) ? t->known : t->fenced, sizeof s->release);
    join(s->release, before); /* a release sequence goes on through read-modify-writes */
    l->writes[prove_self] = s->epoch;
    memcpy((void *)l->address, &value, l->size);
    tick(); /* what the thread does next is later than what it has released */
    prove_late_store((void *)l->address, l->size, was, releases(order), acquires(order));
}

void prove_memory_undo(void *at, unsigned size, uint64_t before)
{
    location *l = granule_of((uintptr_t)at)->at[(uintptr_t)at & 7];
    l->n--;
    memcpy(at, &before, size);
}

uint64_t prove_load(const volatile void *at, unsigned size, int order, const void *pc);
void prove_store(volatile void *at, unsigned size, uint64_t value, int order, const void *pc);
uint64_t prove_change(volatile void *at, unsigned size, uint64_t (*f)(uint64_t, uint64_t),
                      uint64_t arg, int order, const void *pc);
bool prove_exchange_if(volatile void *at, unsigned size, uint64_t *expected, uint64_t value,
                       int order, int or_else, bool weak, const void *pc);
void prove_fence(int order);

uint64_t prove_load(const volatile void *at, unsigned size, int order, const void *pc)
{
    if (prove_self < 0)
        return read_raw((uintptr_t)at, size);
    prove_point_of_atomic();
    tick();
    location *l = location_of((uintptr_t)at, size, false, pc);
    unsigned from = oldest(l, order == __ATOMIC_SEQ_CST);
    store *s = &l->stores[l->n - 1 - prove_choose(l->n - from)];
    note_seen(l, s, order);
    if (acquires(order))
        prove_late_keep();
    return s->value;
}

void prove_store(volatile void *at, unsigned size, uint64_t value, int order, const void *pc)
{
    if (prove_self < 0) {
        memcpy((void *)(uintptr_t)at, &value, size);
        return;
    }
    prove_point_of_atomic();
    tick();
    location *l = location_of((uintptr_t)at, size, true, pc);
    add_store(l, value, order, NULL);
}

uint64_t prove_change(volatile void *at, unsigned size, uint64_t (*f)(uint64_t, uint64_t),
                      uint64_t arg, int order, const void *pc)
{
    uint64_t old = read_raw((uintptr_t)at, size), new = f(old, arg);
    if (prove_self < 0) {
        memcpy((void *)(uintptr_t)at, &new, size);
        return old;
    }
    prove_point_of_atomic();
    tick();
    location *l = location_of((uintptr_t)at, size, true, pc);
    store *last = &l->stores[l->n - 1], copy;
    note_seen(l, last, order);
    copy = *last;
    old = copy.value;
    add_store(l, f(old, arg), order, &copy);
    return old;
}

/* The stores that an exchange may see that fails, the newest first: it is a load then. */
static unsigned list_failing(location *l, uint64_t expected, int or_else, store *to[STORES])
{
    unsigned n = 0, from = oldest(l, or_else == __ATOMIC_SEQ_CST);
    for (unsigned i = l->n; i-- > from;)
        if (l->stores[i].value != expected)
            to[n++] = &l->stores[i];
    return n;
}

bool prove_exchange_if(volatile void *at, unsigned size, uint64_t *expected, uint64_t value,
                       int order, int or_else, bool weak, const void *pc)
{
    if (prove_self < 0) {
        uint64_t now = read_raw((uintptr_t)at, size);
        if (now == *expected)
            memcpy((void *)(uintptr_t)at, &value, size);
        bool same = now == *expected;
        *expected = now;
        return same;
    }
    prove_point_of_atomic();
    tick();
    location *l = location_of((uintptr_t)at, size, true, pc);
    store *last = &l->stores[l->n - 1], *failing[STORES], copy;
    bool may_succeed = last->value == *expected;
    unsigned n = list_failing(l, *expected, or_else, failing);
    if (may_succeed && weak)
        failing[n++] = last; /* for no reason */
    unsigned way = prove_choose(may_succeed + n);
    if (way >= may_succeed) {
        store *seen = failing[way - may_succeed];
        note_seen(l, seen, or_else);
        *expected = seen->value;
        return false;
    }
    note_seen(l, last, order);
    copy = *last;
    add_store(l, value, order, &copy);
    return true;
}

static void agree(prove_thread *t)
{
    join(t->view, agreed);
    join(agreed, t->view);
}

void prove_fence(int order)
{
    if (prove_self < 0)
        return;
    prove_point_of_atomic();
    tick();
    prove_thread *t = self();
    prove_late_keep();
    if (acquires(order))
        learn(t, t->pending);
    if (order == __ATOMIC_SEQ_CST)
        agree(t);
    if (releases(order))
        memcpy(t->fenced, t->known, sizeof t->fenced);
    tick(); /* as behind a store */
}

/* As if each thread that there is had a fence just here. */
void prove_memory_fence_all(void)
{
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < PROVE_THREADS; i++)
            if (prove_threads[i].state == PROVE_ABLE || prove_threads[i].state == PROVE_WAITS)
                agree(&prove_threads[i]);
}
