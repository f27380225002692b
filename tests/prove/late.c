/* late.c - plain writes that are late, or early, when a process is killed.
 *
 * A kill cuts instructions, and those need not be in the order of the source: a compiler may leave a plain write until
 * after a relaxed store, and may have done one before the store that it comes behind.  So a process that may be killed
 * is also killed when such a store is done and the writes before it are not; and when a write is done and the store
 * before it is not.  What keeps them in order are fences (for the compiler alone, too), calls of the system, and orders:
 * a release keeps what comes before it, an acquire what comes behind.  It is so in memory that processes share: the rest
 * goes with the process.
 */
#include "inside.h"

#include <string.h>

#define WRITES 64
#define BYTES  64 /* larger writes are in time */

static struct late {
    size_t n;
    struct write {
        void *at;
        size_t size;
        char before[BYTES];
    } writes[WRITES]; /* since the last that keeps them */
    struct store {
        void *at; /* NULL: something has kept what comes behind, or others may have seen it */
        unsigned size;
        uint64_t before;
    } store;
    bool is_early; /* a write behind the store is done, and is the last thing that is */
} lates[PROVE_THREADS];

void prove_late_begin(int thread)
{
    lates[thread].n = 0;
    lates[thread].store.at = NULL;
    lates[thread].is_early = false;
}

static bool is_left_behind(const void *at)
{
    return prove_is_mortal(prove_threads[prove_self].process) &&
           prove_files_is_shared((uintptr_t)at);
}

/* The next thing that a thread does: so the early write is done. */
static void die_if_early(struct late *l)
{
    if (!l->is_early)
        return;
    l->is_early = false;
    prove_memory_undo(l->store.at, l->store.size, l->store.before);
    prove_kill(prove_threads[prove_self].process, 9);
}

void prove_late_write(void *at, size_t size)
{
    if (prove_self < 0 || prove_threads[prove_self].process == 0)
        return;
    struct late *l = &lates[prove_self];
    die_if_early(l);
    if (!is_left_behind(at))
        return;
    l->is_early = l->store.at && prove_choose_death();
    if (size > BYTES || l->n == WRITES)
        return;
    struct write *w = &l->writes[l->n++];
    w->at = at;
    w->size = size;
    memcpy(w->before, at, size);
}

void prove_late_store(void *at, unsigned size, uint64_t before, bool releases, bool acquires)
{
    struct late *l = &lates[prove_self];
    if (releases || acquires)
        l->n = 0;
    if (acquires)
        l->store.at = NULL;
    else if (prove_threads[prove_self].process != 0 && is_left_behind(at))
        l->store = (struct store){at, size, before};
    if (l->n == 0 || !prove_choose_death())
        return;
    for (size_t i = l->n; i-- > 0;)
        memcpy(l->writes[i].at, l->writes[i].before, l->writes[i].size);
    prove_kill(prove_threads[prove_self].process, 9);
}

void prove_late_point(void)
{
    die_if_early(&lates[prove_self]);
}

void prove_late_keep(void)
{
    struct late *l = &lates[prove_self];
    die_if_early(l);
    l->n = 0;
    l->store.at = NULL;
}

void prove_late_seen(void)
{
    lates[prove_self].store.at = NULL;
}
