/* shared_line.c - see shared_line.h. */
#include "flow/shared_line.h"

#include "base/park.h"

#define WORDS (WEIR__PLACES / 64)

int weir__line_init(weir__line *line)
{
    for (size_t i = 0; i < WEIR__PLACES; i++) {
        int rc = weir__robust_init(&line->places[i].taken);
        if (rc < 0)
            return rc;
    }
    return WEIR_OK;
}

size_t weir__line_count(const weir__line *line, enum weir__side side)
{
    size_t n = 0;
    for (size_t i = 0; i < WORDS; i++)
        n += (size_t)__builtin_popcountll(
            atomic_load_explicit(&line->waiting[side][i], memory_order_relaxed));
    return n;
}

/* ---- sets ----------------------------------------------------------------------------------- */

static weir__places waiting(const weir__line *line, enum weir__side side)
{
    weir__places set;
    for (size_t i = 0; i < WORDS; i++)
        set.words[i] = atomic_load_explicit(&line->waiting[side][i], memory_order_relaxed);
    return set;
}

/* Takes one out; false: the set is empty. */
static bool draw(weir__places *set, size_t *ret_index)
{
    for (size_t i = 0; i < WORDS; i++) {
        if (set->words[i]) {
            *ret_index = i * 64 + (size_t)__builtin_ctzll(set->words[i]);
            set->words[i] &= set->words[i] - 1;
            return true;
        }
    }
    return false;
}

/* One instruction, because who leaves may not have the queue's lock.  relaxed: what is in a place is
 * ordered by that lock, and by the place's own; of one that is killed here nothing is believed but, for
 * OVERDUE at most, that it was called */
static void mark(weir__line *line, enum weir__side side, size_t index, bool waits)
{
    _Atomic uint64_t *word = &line->waiting[side][index / 64];
    uint64_t bit = UINT64_C(1) << index % 64;
    if (waits)
        atomic_fetch_or_explicit(word, bit, memory_order_relaxed);
    else
        atomic_fetch_and_explicit(word, ~bit, memory_order_relaxed);
}

/* ---- places --------------------------------------------------------------------------------- */

/* Whether somebody waits here; if not, because it was killed or is leaving, frees the place. */
static bool is_alive(weir__line *line, enum weir__side side, size_t index)
{
    weir__place *place = &line->places[index];
    if (weir__robust_try(&place->taken) == WEIR_EEMPTY)
        return true;
    weir__line_leave(line, side, place);
    return false;
}

static weir__place *take_empty(weir__line *line, enum weir__side side, uint64_t cost)
{
    weir__places putters = waiting(line, WEIR__PUTTERS), getters = waiting(line, WEIR__GETTERS);
    weir__places empty;
    for (size_t i = 0; i < WORDS; i++)
        empty.words[i] = ~(putters.words[i] | getters.words[i]);
    for (size_t index; draw(&empty, &index);) {
        weir__place *place = &line->places[index];
        if (weir__robust_try(&place->taken) == WEIR_EEMPTY)
            continue; /* whoever was killed as it left is not buried yet */
        place->ticket = ++line->last_ticket;
        place->cost = cost;
        place->kind = 0;
        place->called = 0;
        mark(line, side, index, true);
        return place;
    }
    return NULL;
}

weir__place *weir__line_join(weir__line *line, enum weir__side side, uint64_t cost)
{
    weir__place *place = take_empty(line, side, cost);
    if (place)
        return place;
    for (int each = 0; each < WEIR__SIDES; each++) {
        weir__places set = waiting(line, (enum weir__side)each);
        for (size_t index; draw(&set, &index);)
            is_alive(line, (enum weir__side)each, index);
    }
    return take_empty(line, side, cost);
}

void weir__line_leave(weir__line *line, enum weir__side side, weir__place *place)
{
    mark(line, side, (size_t)(place - line->places), false);
    weir__robust_unlock(&place->taken);
}

static bool is_overdue(const weir__place *place, weir_time *now)
{
    if (place->called == 0)
        return false;
    if (*now == 0)
        *now = weir_now();
    return place->called < *now - WEIR__OVERDUE;
}

static bool came_before(const weir__place *a, const weir__place *b, const void *ctx)
{
    (void)ctx;
    return a->ticket < b->ticket;
}

weir__load weir__line_before(weir__line *line, enum weir__side side, const weir__place *place,
                             weir__before_fn *before, const void *ctx)
{
    weir__load sum = {0, 0};
    weir__places set = waiting(line, side);
    weir_time now = 0;
    for (size_t index; draw(&set, &index);) {
        const weir__place *other = &line->places[index];
        if (other != place && before(other, place, ctx) && is_alive(line, side, index) &&
            !is_overdue(other, &now)) {
            sum.items++;
            sum.cost += other->cost;
        }
    }
    return sum;
}

weir__load weir__line_ahead(weir__line *line, enum weir__side side, uint64_t ticket)
{
    const weir__place place = {.ticket = ticket};
    return weir__line_before(line, side, &place, came_before, NULL);
}

weir__load weir__line_called(weir__line *line, enum weir__side side)
{
    weir__load sum = {0, 0};
    weir__places set = waiting(line, side);
    weir_time now = 0;
    for (size_t index; draw(&set, &index);) {
        const weir__place *place = &line->places[index];
        if (place->called == 0)
            continue;
        if (is_overdue(place, &now)) {
            is_alive(line, side, index); /* frees its place if it never comes */
            continue;
        }
        sum.items++;
        sum.cost += place->cost;
    }
    return sum;
}

weir__place *weir__line_first(weir__line *line, enum weir__side side, weir__before_fn *before,
                              const void *ctx)
{
    for (;;) {
        weir__places set = waiting(line, side);
        weir__place *first = NULL;
        for (size_t index; draw(&set, &index);) {
            weir__place *place = &line->places[index];
            if (!place->called && (!first || before(place, first, ctx)))
                first = place;
        }
        if (!first || is_alive(line, side, (size_t)(first - line->places)))
            return first;
    }
}

weir__place *weir__line_next(weir__line *line, enum weir__side side)
{
    return weir__line_first(line, side, came_before, NULL);
}

void weir__line_call(weir__line *line, weir__place *place, weir__places *bells)
{
    size_t index = (size_t)(place - line->places);
    place->called = weir_now();
    atomic_fetch_add_explicit(&place->bell, 1, memory_order_relaxed); /* ordered by the lock */
    bells->words[index / 64] |= UINT64_C(1) << index % 64;
}

void weir__line_ring(weir__line *line, const weir__places *bells)
{
    weir__places set = *bells;
    for (size_t index; draw(&set, &index);)
        weir__futex_wake(&line->places[index].bell, 1, true);
}

int weir__line_sleep(weir__place *place, uint32_t bell, weir_time deadline)
{
    static _Atomic uint32_t silent; /* nobody rings */
    weir_time slice = weir_after(place ? WEIR__SLICE : WEIR_MILLISECOND);
    int rc = weir__futex_wait(place ? &place->bell : &silent, place ? bell : 0,
                              slice < deadline ? slice : deadline, place != NULL);
    if (rc == WEIR_ETIMEDOUT) /* our slice ended before the one that asks the hook */
        rc = weir__interrupted() ? WEIR_EINTR : WEIR_OK;
    return rc;
}
