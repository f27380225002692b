/* bucket.c - see bucket.h.
 *
 * Orders: turns are begun and used, and reservations made and given back, under the writer's lock
 * (see lock_turns), and so each of them sees what was done before.  Who tries without a turn has no
 * lock; what he sees late might as well have come later.  Whatever else is published is said there.
 * All else is relaxed: tokens carry no data, and an exchange sees the last value in any order.
 */
#include "flow/bucket.h"

#include <stdatomic.h>

#include "base/alloc.h"
#include "base/spin.h"

#define SEAT_BITS    10
#define SEAT_MASK    ((UINT64_C(1) << SEAT_BITS) - 1)
#define ENTERING     (UINT64_MAX >> SEAT_BITS) /* a ticket that is not there yet; counts nowhere */
#define MAY_BE_DEAD  WEIR_MILLISECOND
#define PASSED_OVER  (100 * WEIR_MILLISECOND)
#define WRITER_WAITS (50 * WEIR_MILLISECOND)

_Static_assert(WEIR__SEATS <= 1u << SEAT_BITS, "a seat fits");

typedef struct terms_copy {
    _Atomic int64_t t0;
    _Atomic uint64_t s0, rate, per_ns, burst, speed, speed_rest;
} terms_copy;

typedef struct slot {
    _Atomic uint64_t word; /* ticket and seat; 0: free */
    _Atomic uint64_t cost;
    _Atomic int64_t due_since; /* when somebody saw that it could take and did not; 0: nobody */
} slot;

struct weir__bucket_page {
    /* What every try reads and changes. */
    _Alignas(WEIR__LINE) _Atomic uint64_t taken;
    _Atomic uint64_t line; /* the ticket of who came last; 0: nobody is in the line */
    _Atomic uint64_t granted;
    _Atomic uint64_t refused;
    _Atomic uint64_t reserved; /* grains ever, of reservations that know who is in line */
    _Atomic uint64_t returned; /* grains ever */
    _Atomic uint64_t returned_tokens, blocked_ns;
    /* What it reads. */
    _Alignas(WEIR__LINE) _Atomic uint64_t version; /* of the terms; odd: the second copy holds */
    terms_copy copies[2];
    _Alignas(WEIR__LINE) weir__robust writer; /* of terms, turns and reservations */
    _Atomic uint64_t next_ticket;
    _Atomic uint32_t slots_used; /* those behind were never taken */
    uint32_t n_slots;
    slot slots[];
};

size_t weir__bucket_size(unsigned slots)
{
    return sizeof(weir__bucket_page) + slots * sizeof(slot);
}

/* The number as it is, or has been. */
static uint64_t look(const _Atomic uint64_t *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

/* If it is still the one that was seen; otherwise that is updated. */
static bool change(_Atomic uint64_t *number, uint64_t *seen, uint64_t next)
{
    return atomic_compare_exchange_strong_explicit(number, seen, next, memory_order_relaxed,
                                                   memory_order_relaxed);
}

/* ---- terms ---------------------------------------------------------------------------------- */

static void write_copy(terms_copy *copy, const weir__rate_terms *terms)
{
    atomic_store_explicit(&copy->t0, terms->t0, memory_order_relaxed);
    atomic_store_explicit(&copy->s0, terms->s0, memory_order_relaxed);
    atomic_store_explicit(&copy->rate, terms->rate, memory_order_relaxed);
    atomic_store_explicit(&copy->per_ns, terms->per_ns, memory_order_relaxed);
    atomic_store_explicit(&copy->burst, terms->burst, memory_order_relaxed);
    atomic_store_explicit(&copy->speed, terms->speed, memory_order_relaxed);
    atomic_store_explicit(&copy->speed_rest, terms->speed_rest, memory_order_relaxed);
}

/* Terms that cannot be, for somebody has written over them, are taken for these until others are set. */
static weir__rate_terms believed(weir__rate_terms terms)
{
    bool are_possible =
        terms.t0 >= 0 && terms.per_ns <= WEIR__PER_MAX &&
        weir__rate_is_valid(terms.rate, (int64_t)terms.per_ns, terms.burst / WEIR__TOKEN);
    if (are_possible)
        return terms;
    terms = (weir__rate_terms){.rate = 1, .per_ns = WEIR_SECOND, .burst = WEIR__TOKEN};
    weir__rate_set_speed(&terms);
    return terms;
}

/* Read whole: who overwrites this copy has published another version before. */
weir__rate_terms weir__bucket_terms(const weir__bucket *bucket)
{
    weir__bucket_page *page = bucket->page;
    for (;;) {
        /* acquire: pairs with the release in publish */
        uint64_t version = atomic_load_explicit(&page->version, memory_order_acquire);
        terms_copy *copy = &page->copies[version & 1];
        /* acquire, each of them: the second look at the version comes after it.  Should one of
         * them be of a later writer, then by its release stores the version before is seen. */
        weir__rate_terms terms = {
            .t0 = atomic_load_explicit(&copy->t0, memory_order_acquire),
            .s0 = atomic_load_explicit(&copy->s0, memory_order_acquire),
            .rate = atomic_load_explicit(&copy->rate, memory_order_acquire),
            .per_ns = atomic_load_explicit(&copy->per_ns, memory_order_acquire),
            .burst = atomic_load_explicit(&copy->burst, memory_order_acquire),
            .speed = atomic_load_explicit(&copy->speed, memory_order_acquire),
            .speed_rest = atomic_load_explicit(&copy->speed_rest, memory_order_acquire),
        };
        if (atomic_load_explicit(&page->version, memory_order_relaxed) == version)
            return believed(terms);
    }
}

int weir__bucket_init(weir__bucket_page *page, unsigned slots, const weir__rate_terms *terms)
{
    page->n_slots = slots;
    write_copy(&page->copies[0], terms);
    atomic_store_explicit(&page->taken, terms->s0 - terms->burst, memory_order_relaxed);
    return weir__robust_init(&page->writer);
}

/* Under the writer's lock.  A writer that was killed has changed a copy that nobody reads. */
static void publish(weir__bucket_page *page, const weir__rate_terms *terms)
{
    uint64_t version = atomic_load_explicit(&page->version, memory_order_relaxed);
    terms_copy *copy = &page->copies[(version + 1) & 1];
    /* release, each of them: who reads one of these values sees the version that made this copy
     * the spare one */
    atomic_store_explicit(&copy->t0, terms->t0, memory_order_release);
    atomic_store_explicit(&copy->s0, terms->s0, memory_order_release);
    atomic_store_explicit(&copy->rate, terms->rate, memory_order_release);
    atomic_store_explicit(&copy->per_ns, terms->per_ns, memory_order_release);
    atomic_store_explicit(&copy->burst, terms->burst, memory_order_release);
    atomic_store_explicit(&copy->speed, terms->speed, memory_order_release);
    atomic_store_explicit(&copy->speed_rest, terms->speed_rest, memory_order_release);
    /* release: publishes the copy */
    atomic_store_explicit(&page->version, version + 1, memory_order_release);
}

/* Under the writer's lock: the same terms, begun now; before positions come round again.  Where
 * nobody has done that for very long, `taken` is behind by more than its 64 bits can tell. */
static weir__rate_terms begin_again(const weir__bucket *bucket, weir_time now)
{
    weir__rate_terms terms = weir__bucket_terms(bucket);
    weir__supply supply = weir__rate_supply(&terms, now);
    if (supply.is_forgotten)
        atomic_store_explicit(&bucket->page->taken, supply.position - terms.burst,
                              memory_order_relaxed); /* publish publishes it, too */
    if (now > terms.t0) {
        terms.t0 = now;
        terms.s0 = supply.position;
    }
    return terms;
}

/* What would not fit into a burst is gone. */
static void spill(weir__bucket_page *page, uint64_t position, uint64_t burst)
{
    uint64_t taken = look(&page->taken);
    while ((int64_t)(position - taken) > (int64_t)burst)
        if (change(&page->taken, &taken, position - burst))
            return;
}

int weir__bucket_set(const weir__bucket *bucket, uint64_t rate, uint64_t per_ns, uint64_t burst,
                     weir_time now)
{
    weir__bucket_page *page = bucket->page;
    int rc = weir__robust_lock(&page->writer, WEIR_FOREVER);
    if (rc < 0)
        return rc;
    weir__rate_terms terms = begin_again(bucket, now);
    spill(page, terms.s0, terms.burst < burst ? terms.burst : burst);
    terms.rate = rate;
    terms.per_ns = per_ns;
    terms.burst = burst;
    weir__rate_set_speed(&terms);
    publish(page, &terms);
    weir__robust_unlock(&page->writer);
    return WEIR_OK;
}

/* Terms that are good for a decision; false: they are too old, and who renews them is stopped. */
static bool get_terms(const weir__bucket *bucket, weir_time now, weir__rate_terms *ret_terms,
                      weir__supply *ret_supply)
{
    for (;;) {
        *ret_terms = weir__bucket_terms(bucket);
        *ret_supply = weir__rate_supply(ret_terms, now);
        if (!ret_supply->is_old)
            return true;
        weir__robust *writer = &bucket->page->writer;
        int rc = ret_supply->is_forgotten ? weir__robust_lock(writer, weir_after(WRITER_WAITS))
                                          : weir__robust_try(writer);
        if (rc < 0)
            return !ret_supply->is_forgotten; /* old ones do for a long time yet */
        *ret_terms = weir__bucket_terms(bucket);
        if (weir__rate_supply(ret_terms, now).is_old) {
            weir__rate_terms renewed = begin_again(bucket, now);
            publish(bucket->page, &renewed);
        }
        weir__robust_unlock(writer);
    }
}

/* ---- the line of the processes -------------------------------------------------------------- */

/* Those behind were never taken.  Whatever a shared page says, there are no more than seats. */
static unsigned slots_used(const weir__bucket_page *page)
{
    uint32_t used = atomic_load_explicit(&page->slots_used, memory_order_relaxed);
    return used < WEIR__SEATS ? used : WEIR__SEATS;
}

/* Those in line but for one's own turn. */
typedef struct others {
    uint64_t ahead, all; /* cost in grains, < WEIR__RATE_FAR */
    uint64_t everybody;  /* with those who are passed over */
    slot *first;         /* of those who are not; NULL: there is none */
    uint64_t first_word;
    uint64_t oldest; /* ticket of them all */
} others;

static uint64_t sum(uint64_t a, uint64_t b)
{
    return a + b < WEIR__RATE_FAR / 2 ? a + b : WEIR__RATE_FAR / 2;
}

static others look_at_line(const weir__bucket *bucket, const weir__turn *turn, weir_time now)
{
    weir__bucket_page *page = bucket->page;
    others found = {.oldest = ENTERING};
    uint64_t my_ticket = turn && turn->slot >= 0 ? turn->ticket : ENTERING;
    unsigned used = slots_used(page);
    for (unsigned i = 0; i < used; i++) {
        slot *at = &page->slots[i];
        /* acquire: pairs with the release in stand, which publishes the cost */
        uint64_t word = atomic_load_explicit(&at->word, memory_order_acquire);
        uint64_t ticket = word >> SEAT_BITS;
        if (word == 0 || ticket == ENTERING || (turn && turn->slot == (int)i))
            continue;
        uint64_t cost = atomic_load_explicit(&at->cost, memory_order_relaxed);
        found.everybody = sum(found.everybody, cost);
        if (ticket < found.oldest)
            found.oldest = ticket;
        int64_t since = atomic_load_explicit(&at->due_since, memory_order_relaxed);
        if (since && since < now - PASSED_OVER)
            continue;
        found.all = sum(found.all, cost);
        if (ticket < my_ticket)
            found.ahead = sum(found.ahead, cost);
        if (!found.first || ticket < found.first_word >> SEAT_BITS) {
            found.first = at;
            found.first_word = word;
        }
    }
    return found;
}

/* Whoever sees nobody in line says so, unless somebody comes meanwhile: he puts another ticket
 * there, after he is to be seen. */
static void tidy_line(const weir__bucket *bucket)
{
    weir__bucket_page *page = bucket->page;
    /* acquire: pairs with the release in stand: whose ticket this is, is to be seen, or has left */
    uint64_t last = atomic_load_explicit(&page->line, memory_order_acquire);
    if (!last)
        return;
    unsigned used = slots_used(page);
    for (unsigned i = 0; i < used; i++) {
        uint64_t word = look(&page->slots[i].word);
        if (word != 0 && word >> SEAT_BITS != ENTERING)
            return;
    }
    change(&page->line, &last, 0);
}

/* Unless it is another's by now. */
static void free_slot(slot *at, uint64_t word)
{
    change(&at->word, &word, 0);
}

/* Everything that a dead process has in the line; each word is read before the look at its seat,
 * which is a system call. */
static void bury(const weir__bucket *bucket, unsigned seat)
{
    weir__bucket_page *page = bucket->page;
    unsigned used = slots_used(page);
    for (unsigned i = 0; i < used; i++) {
        uint64_t word = look(&page->slots[i].word);
        if (word != 0 && (word & SEAT_MASK) == seat && !weir__named_is_taken(bucket->named, seat))
            free_slot(&page->slots[i], word);
    }
    tidy_line(bucket);
}

/* Whatever is in line there is of one that was killed; or, as it leaves, of nobody any more. */
static void clear_seat(void *data, unsigned seat)
{
    weir__bucket bucket = {.page = data};
    unsigned used = slots_used(bucket.page);
    for (unsigned i = 0; i < used; i++) {
        uint64_t word = look(&bucket.page->slots[i].word);
        if (word != 0 && (word & SEAT_MASK) == seat)
            free_slot(&bucket.page->slots[i], word);
    }
    tidy_line(&bucket);
}

/* There is enough for everybody in line, so the first of them should be taking it.  Notes since
 * when, and looks whether it lives. */
static void watch_first(const weir__bucket *bucket, const others *line, weir_time now)
{
    int64_t since = 0;
    if (!atomic_compare_exchange_strong_explicit(&line->first->due_since, &since, now,
                                                 memory_order_relaxed, memory_order_relaxed) &&
        since <= now - MAY_BE_DEAD && bucket->named)
        bury(bucket, (unsigned)(line->first_word & SEAT_MASK));
}

void weir__bucket_bury_first(const weir__bucket *bucket, const weir__turn *turn, weir_time now)
{
    others line = look_at_line(bucket, turn, now);
    if (line.first && bucket->named && line.first_word >> SEAT_BITS < turn->ticket)
        bury(bucket, (unsigned)(line.first_word & SEAT_MASK));
}

static void watch(const weir__bucket *bucket, const others *line, const weir__rate_terms *terms,
                  weir__supply supply, uint64_t taken, weir_time now)
{
    if (!line->first)
        return;
    uint64_t all = line->all < terms->burst ? line->all : terms->burst;
    if (weir__rate_level(terms, supply, taken) >= (int64_t)all)
        watch_first(bucket, line, now);
}

static slot *take_slot(const weir__bucket *bucket, weir__turn *turn)
{
    weir__bucket_page *page = bucket->page;
    unsigned n = bucket->named ? WEIR__SEATS : page->n_slots;
    for (unsigned i = 0; i < n; i++) {
        unsigned which = (bucket->seat + i) % n;
        slot *at = &page->slots[which];
        uint64_t free = 0;
        uint64_t entering = ENTERING << SEAT_BITS | bucket->seat;
        if (!change(&at->word, &free, entering))
            continue;
        uint32_t used = atomic_load_explicit(&page->slots_used, memory_order_relaxed);
        while (used <= which &&
               !atomic_compare_exchange_weak_explicit(&page->slots_used, &used, which + 1,
                                                      memory_order_relaxed, memory_order_relaxed))
            continue; /* stand publishes it */
        turn->slot = (int)which;
        return at;
    }
    return NULL;
}

/* Turns are begun and used, and reservations made and given back, one at a time: so one of two that
 * meet is the first, for both.  Who is stopped in the middle of one holds up nobody for longer than
 * this; then each may take the other for the first. */
static bool lock_turns(const weir__bucket *bucket)
{
    weir__robust *writer = &bucket->page->writer;
    return weir__robust_try(writer) >= 0 || /* without a look at the clock */
           weir__robust_lock(writer, weir_after(WRITER_WAITS)) >= 0;
}

static void unlock_turns(const weir__bucket *bucket, bool locked)
{
    if (locked)
        weir__robust_unlock(&bucket->page->writer);
}

/* In this order: the cost, the place, that there is a line, and then what had been reserved. */
static void stand(const weir__bucket *bucket, weir__turn *turn, uint64_t cost)
{
    weir__bucket_page *page = bucket->page;
    slot *at = &page->slots[turn->slot];
    bool locked = lock_turns(bucket);
    atomic_store_explicit(&at->cost, cost, memory_order_relaxed);
    atomic_store_explicit(&at->due_since, 0, memory_order_relaxed);
    /* release: publishes the cost to look_at_line, which may come without the lock */
    atomic_store_explicit(&at->word, turn->ticket << SEAT_BITS | bucket->seat,
                          memory_order_release);
    /* release: publishes the place to tidy_line, which comes without the lock */
    atomic_store_explicit(&page->line, turn->ticket, memory_order_release);
    turn->taken = look(&page->taken);
    turn->returned = look(&page->returned);
    turn->reserved = look(&page->reserved);
    unlock_turns(bucket, locked);
}

void weir__bucket_enter(const weir__bucket *bucket, weir__turn *turn, uint64_t cost)
{
    if (turn->slot < 0 && !take_slot(bucket, turn))
        return; /* more handles than seats: behind everybody */
    turn->ticket =
        atomic_fetch_add_explicit(&bucket->page->next_ticket, 1, memory_order_relaxed) + 1;
    stand(bucket, turn, cost);
}

void weir__bucket_hand_on(const weir__bucket *bucket, weir__turn *turn, uint64_t cost)
{
    if (turn->slot >= 0)
        stand(bucket, turn, cost);
}

void weir__bucket_leave(const weir__bucket *bucket, weir__turn *turn)
{
    if (turn->slot >= 0)
        atomic_store_explicit(&bucket->page->slots[turn->slot].word, 0, memory_order_relaxed);
    turn->slot = -1;
    tidy_line(bucket);
}

/* ---- taking --------------------------------------------------------------------------------- */

static bool has_turn(const weir__turn *turn)
{
    return turn && turn->slot >= 0 && !turn->is_anothers;
}

/* What has been reserved since the turn began is used after it: those who reserved were told so.
 * That is true as long as the bucket has not been full since, for then the reserved tokens may have
 * been used and forgotten; which shows as long as nothing was given back. */
static uint64_t reserved_after(const weir__bucket *bucket, const weir__turn *turn,
                               const weir__rate_terms *terms, weir__supply supply)
{
    weir__bucket_page *page = bucket->page;
    if (!has_turn(turn) || supply.is_forgotten ||
        (int64_t)(supply.position - (turn->taken + terms->burst)) >= 0 ||
        look(&page->returned) != turn->returned)
        return 0;
    uint64_t later = look(&page->reserved) - turn->reserved;
    return later < WEIR__RATE_FAR ? later : 0;
}

/* Nobody decides by what is counted. */
static void count(const weir__bucket *bucket, _Atomic uint64_t *where, weir_stats_number number,
                  uint64_t n)
{
    atomic_fetch_add_explicit(where, n, memory_order_relaxed);
    if (bucket->part)
        weir__tell_together(weir__shared_record_of(bucket->part), number, n);
}

static bool take(const weir__bucket *bucket, const weir__turn *turn, weir__rate_ask *ask,
                 const others *line, weir_time now, weir_time *ret_when)
{
    weir__bucket_page *page = bucket->page;
    weir__rate_terms terms;
    weir__supply supply;
    if (!get_terms(bucket, now, &terms, &supply)) {
        *ret_when = weir_after(WEIR_MILLISECOND);
        return false;
    }
    bool is_own = has_turn(turn), locked = is_own && lock_turns(bucket);
    ask->later = reserved_after(bucket, turn, &terms, supply);
    uint64_t taken = look(&page->taken), next;
    bool is_there;
    while ((is_there = weir__rate_take(&terms, supply, taken, ask, &next)) &&
           !change(&page->taken, &taken, next))
        continue;
    if (is_there && is_own) /* who reserves from now on does not leave it to us once more */
        atomic_store_explicit(&page->slots[turn->slot].cost, 0, memory_order_relaxed);
    unlock_turns(bucket, locked);
    if (is_there) {
        count(bucket, bucket->granted, WEIR_STATS_ACCEPTED, ask->cost / WEIR__TOKEN);
        return true;
    }
    *ret_when = weir__rate_when(&terms, weir__rate_position(&terms, supply, taken, ask));
    watch(bucket, line, &terms, supply, taken, now);
    return false;
}

bool weir__bucket_try(const weir__bucket *bucket, uint64_t cost, weir_time now)
{
    others line = {0};
    weir_time when;
    if (look(&bucket->page->line)) {
        line = look_at_line(bucket, NULL, now);
        if (line.first) {
            weir__rate_terms terms = weir__bucket_terms(bucket);
            watch(bucket, &line, &terms, weir__rate_supply(&terms, now), look(&bucket->page->taken),
                  now);
            return false;
        }
        tidy_line(bucket);
    }
    weir__rate_ask ask = {.cost = cost};
    return take(bucket, NULL, &ask, &line, now, &when);
}

static weir__rate_ask ask_for(const weir__bucket *bucket, const weir__turn *turn, uint64_t cost,
                              uint64_t also_ahead, weir_time now, others *ret_line)
{
    *ret_line = look_at_line(bucket, turn, now);
    return (weir__rate_ask){.cost = cost, .ahead = sum(ret_line->ahead, also_ahead)};
}

bool weir__bucket_take(const weir__bucket *bucket, const weir__turn *turn, uint64_t cost,
                       uint64_t also_ahead, weir_time now, weir_time *ret_when)
{
    others line;
    weir__rate_ask ask = ask_for(bucket, turn, cost, also_ahead, now, &line);
    return take(bucket, turn, &ask, &line, now, ret_when);
}

weir_time weir__bucket_when(const weir__bucket *bucket, const weir__turn *turn, uint64_t cost,
                            uint64_t also_ahead, weir_time now)
{
    others line;
    weir__rate_ask ask = ask_for(bucket, turn, cost, also_ahead, now, &line);
    weir__rate_terms terms = weir__bucket_terms(bucket);
    weir__supply supply = weir__rate_supply(&terms, now);
    bool locked = has_turn(turn) && lock_turns(bucket);
    ask.later = reserved_after(bucket, turn, &terms, supply);
    uint64_t taken = look(&bucket->page->taken);
    unlock_turns(bucket, locked);
    return weir__rate_when(&terms, weir__rate_position(&terms, supply, taken, &ask));
}

/* ---- reservations --------------------------------------------------------------------------- */

/* Takes it, looks who is before it, and announces it to them. */
static bool owe(const weir__bucket *bucket, const weir__rate_terms *terms, weir__supply supply,
                uint64_t cost, weir_time now, weir__owed *ret_owed)
{
    weir__bucket_page *page = bucket->page;
    uint64_t taken = look(&page->taken), next;
    do {
        next = weir__rate_owe(terms, supply, taken, cost);
        if ((int64_t)(next - supply.position) > (int64_t)(WEIR__RATE_FAR / 2))
            return false;
    } while (!change(&page->taken, &taken, next));
    *ret_owed = (weir__owed){
        .begin = next - cost,
        .end = next,
        .due = next + look_at_line(bucket, NULL, now).everybody,
        .ticket = look(&page->next_ticket),
    };
    atomic_fetch_add_explicit(&page->reserved, cost, memory_order_relaxed);
    return true;
}

bool weir__bucket_reserve(const weir__bucket *bucket, uint64_t cost, weir_time now,
                          weir__owed *ret_owed)
{
    weir__rate_terms terms;
    weir__supply supply;
    if (!get_terms(bucket, now, &terms, &supply))
        return false;
    bool locked = lock_turns(bucket);
    bool owes = owe(bucket, &terms, supply, cost, now, ret_owed);
    unlock_turns(bucket, locked);
    if (owes)
        count(bucket, bucket->granted, WEIR_STATS_ACCEPTED, cost / WEIR__TOKEN);
    return owes;
}

/* Who came before it does not count it as taken (see reserved_after), so it must not come back
 * while he waits. */
static bool give_back(const weir__bucket *bucket, const weir__owed *owed)
{
    weir__bucket_page *page = bucket->page;
    uint64_t end = owed->end;
    if (look_at_line(bucket, NULL, 0).oldest <= owed->ticket ||
        !change(&page->taken, &end, owed->begin))
        return false;
    atomic_fetch_add_explicit(&page->returned, owed->end - owed->begin, memory_order_relaxed);
    return true;
}

bool weir__bucket_unreserve(const weir__bucket *bucket, const weir__owed *owed)
{
    bool locked = lock_turns(bucket);
    bool is_back = give_back(bucket, owed);
    unlock_turns(bucket, locked);
    if (is_back)
        count(bucket, bucket->returned, WEIR_STATS_CANCELLED,
              (owed->end - owed->begin) / WEIR__TOKEN);
    return is_back;
}

/* ---- counts --------------------------------------------------------------------------------- */

void weir__bucket_begin_counting(weir__bucket *bucket, weir__record *record,
                                 weir__shared_record *part)
{
    weir__bucket_page *page = bucket->page;
    _Atomic uint64_t *seen = record ? record->number : NULL;
    bucket->granted = seen ? &seen[WEIR_STATS_ACCEPTED] : &page->granted;
    bucket->returned = seen ? &seen[WEIR_STATS_CANCELLED] : &page->returned_tokens;
    bucket->refused = seen ? &seen[WEIR_STATS_REFUSED] : &page->refused;
    bucket->part = part;
}

void weir__bucket_count(const weir__bucket *bucket, uint64_t refused, uint64_t blocked_ns)
{
    count(bucket, bucket->refused, WEIR_STATS_REFUSED, refused);
    count(bucket, &bucket->page->blocked_ns, WEIR_STATS_PUT_BLOCKED_NS, blocked_ns);
}

weir__bucket_counts weir__bucket_get_counts(const weir__bucket *bucket)
{
    return (weir__bucket_counts){
        .granted = atomic_load_explicit(bucket->granted, memory_order_relaxed),
        .returned = atomic_load_explicit(bucket->returned, memory_order_relaxed),
        .refused = atomic_load_explicit(bucket->refused, memory_order_relaxed),
        .blocked_ns = atomic_load_explicit(&bucket->page->blocked_ns, memory_order_relaxed),
    };
}

int64_t weir__bucket_level(const weir__bucket *bucket, weir_time now)
{
    weir__rate_terms terms = weir__bucket_terms(bucket);
    return weir__rate_level(&terms, weir__rate_supply(&terms, now), look(&bucket->page->taken));
}

/* ---- shared --------------------------------------------------------------------------------- */

static int init_shared(void *data, const void *ctx)
{
    return weir__bucket_init(data, WEIR__SEATS, ctx);
}

static int enter_shared(void *data, unsigned seat)
{
    clear_seat(data, seat);
    return WEIR_OK;
}

static bool is_full(const void *data)
{
    weir__bucket bucket = {.page = (weir__bucket_page *)data};
    return weir__bucket_level(&bucket, weir_now()) >= (int64_t)weir__bucket_terms(&bucket).burst;
}

const weir__named_ops weir__bucket_ops = {
    .size = sizeof(weir__bucket_page) + WEIR__SEATS * sizeof(slot),
    .init = init_shared,
    .enter = enter_shared,
    .leave = clear_seat,
    .may_remove = is_full,
};
