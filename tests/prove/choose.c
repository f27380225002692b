/* choose.c - the choices of a run; see inside.h.  The first of a choice's ways is what would happen anyhow. */
#include "inside.h"

#include <string.h>

#define DEPTH_MAX 8

static struct {
    prove_strategy strategy;
    uint64_t random;
    unsigned depth;
    uint32_t count;  /* choices so far */
    bool first_only; /* nothing is chosen for the time being */
    uint64_t trace;  /* of what they were between, and what was taken */
    size_t n_turns;
    prove_choice turns[PROVE_TURNS];
    size_t given, next; /* REPLAY, SEARCH: what is to be taken */
    size_t followed;    /* of these, what there was */
    prove_choice given_turns[PROVE_TURNS];
    /* PCT */
    uint32_t priority[PROVE_THREADS];
    uint32_t change_at[DEPTH_MAX];
    uint32_t lowest;
    uint32_t length; /* of a run before, roughly */
    unsigned rate;   /* RANDOM: one of so many choices is not the first way */
    /* deaths */
    uint32_t deaths;      /* points so far where one could have been */
    uint32_t death_at;    /* it is at this one; 0: by chance */
    uint32_t walk_length; /* `length` in all runs of one walk */
    /* SEARCH */
    struct level {
        size_t n, at; /* choices behind the turn before, of the run in which they were first seen */
        uint8_t way;  /* that is tried at open[at] */
        prove_choice open[1 << 14];
    } level[DEPTH_MAX];
} c;

/* splitmix64 (Steele et al., OOPSLA 2014) */
static uint64_t random64(void)
{
    uint64_t z = (c.random += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static unsigned below(unsigned n)
{
    return (unsigned)(random64() % n);
}

static void begin(prove_strategy strategy, uint64_t seed, unsigned depth)
{
    c.strategy = strategy;
    c.random = seed;
    c.depth = depth < DEPTH_MAX ? depth : DEPTH_MAX;
    c.length = c.count > 50 ? c.count : 200;
    c.count = c.deaths = c.death_at = 0;
    c.first_only = false;
    c.trace = 0;
    c.n_turns = c.next = 0;
    c.rate = 2u << below(6);
    c.lowest = DEPTH_MAX;
    for (int i = 0; i < PROVE_THREADS; i++)
        c.priority[i] = DEPTH_MAX + 1 + below(1u << 20);
    for (unsigned i = 0; i < c.depth; i++)
        c.change_at[i] = below(c.length);
}

void prove_choose_begin(prove_strategy strategy, uint64_t seed, unsigned depth)
{
    c.given = c.level[0].n = 0;
    begin(strategy, seed, depth);
}

void prove_choose_walk(uint64_t seed, uint32_t death_at)
{
    c.given = c.level[0].n = 0;
    if (death_at > 1)
        c.count = c.walk_length; /* the same change points as in the first of these runs */
    begin(seed ? PROVE_PCT : PROVE_SEARCH, seed * 6271, seed ? 3 : 0);
    c.walk_length = c.length;
    c.death_at = death_at;
}

uint32_t prove_deaths(void)
{
    return c.deaths;
}

void prove_replay(const prove_choice *turns, size_t n)
{
    memcpy(c.given_turns, turns, n * sizeof *turns);
    begin(PROVE_REPLAY, 0, 0);
    c.given = n;
    c.followed = 0;
}

size_t prove_followed(void)
{
    return c.followed;
}

size_t prove_turns(prove_choice to[PROVE_TURNS])
{
    memcpy(to, c.turns, c.n_turns * sizeof *to);
    return c.n_turns;
}

uint32_t prove_choices(void)
{
    return c.count;
}

uint64_t prove_trace(void)
{
    return c.trace;
}

static unsigned took(unsigned which, unsigned n)
{
    if (which > 0 && c.n_turns < PROVE_TURNS)
        c.turns[c.n_turns++] = (prove_choice){c.count, (uint8_t)which, (uint8_t)n};
    c.count++;
    c.trace = (c.trace + (n << 8 | which) + 1) * UINT64_C(0x9e3779b97f4a7c15);
    return which;
}

/* What was given for this choice; else the first way. */
static unsigned given(unsigned n)
{
    while (c.next < c.given && c.given_turns[c.next].at < c.count)
        c.next++;
    if (c.next < c.given && c.given_turns[c.next].at == c.count) {
        unsigned way = c.given_turns[c.next++].took;
        c.followed += way < n;
        return way < n ? way : 0;
    }
    if (c.strategy == PROVE_SEARCH && c.next == c.given && c.given < c.depth) {
        struct level *l = &c.level[c.given];
        if (l->n < sizeof l->open / sizeof *l->open)
            l->open[l->n++] = (prove_choice){c.count, 0, (uint8_t)n};
    }
    return 0;
}

/* The way at a level, or the choice, after this one; false: there is none. */
static bool advance(struct level *l)
{
    if (++l->way < l->open[l->at].of)
        return true;
    l->way = 1;
    return ++l->at < l->n;
}

/* The next run of a depth-first search: one more turn behind those it had; or the last one another way, or at
 * another choice; or one less. */
bool prove_search_next(void)
{
    if (c.given < c.depth && c.level[c.given].n > 0) {
        c.level[c.given].at = 0;
        c.level[c.given].way = 1;
        c.given++;
    } else {
        while (c.given > 0 && !advance(&c.level[c.given - 1]))
            c.given--;
    }
    for (size_t i = 0; i < c.given; i++) {
        const struct level *l = &c.level[i];
        c.given_turns[i] = (prove_choice){l->open[l->at].at, l->way, l->open[l->at].of};
    }
    if (c.given < DEPTH_MAX)
        c.level[c.given].n = 0;
    size_t given = c.given;
    begin(PROVE_SEARCH, 0, c.depth);
    return given > 0;
}

unsigned prove_choose(unsigned n)
{
    if (n < 2 || c.first_only)
        return 0;
    switch (c.strategy) {
    case PROVE_RANDOM: return took(below(c.rate) ? 0 : below(n), n);
    case PROVE_PCT: return took(below(8) ? 0 : below(n), n);
    default: return took(given(n), n);
    }
}

/* For what ends things: seldom by chance, each time once in a search. */
bool prove_choose_rarely(void)
{
    if (c.first_only)
        return false;
    bool by_chance = c.strategy == PROVE_RANDOM || c.strategy == PROVE_PCT;
    return took(by_chance ? below(150) == 0 : given(2), 2);
}

bool prove_choose_death(void)
{
    if (c.first_only)
        return false;
    c.deaths++;
    return c.death_at ? took(c.deaths == c.death_at, 2) : prove_choose_rarely();
}

static unsigned index_of(const int *able, unsigned n, int thread)
{
    for (unsigned i = 0; i < n; i++)
        if (able[i] == thread)
            return i;
    return n;
}

/* The highest priority goes on; at a change point, or where it gives way, it becomes the lowest. */
static unsigned by_priority(const int *able, unsigned n, int current, bool yields)
{
    bool changes = yields;
    for (unsigned i = 0; i < c.depth; i++)
        changes = changes || c.change_at[i] == c.count;
    if (changes && current >= 0)
        c.priority[current] = c.lowest > 0 ? --c.lowest : 0;
    if (yields) /* for ever between two that wait for a third would be no progress */
        c.priority[current] = 0, c.lowest = DEPTH_MAX;
    unsigned best = 0;
    for (unsigned i = 1; i < n; i++)
        if (c.priority[able[i]] > c.priority[able[best]])
            best = i;
    return best;
}

int prove_choose_thread(const int *able, unsigned n, int current, bool yields)
{
    int order[PROVE_THREADS];
    if (n == 1)
        return able[0];
    /* the first way: the current one goes on, or if it gives way, the one after it */
    unsigned at = index_of(able, n, current);
    unsigned first = at == n ? 0 : yields ? (at + 1) % n : at;
    for (unsigned i = 0; i < n; i++)
        order[i] = able[(first + i) % n];
    if (c.first_only)
        return order[0];
    if (c.strategy == PROVE_PCT)
        return order[took(by_priority(order, n, current, yields), n)];
    if (c.strategy == PROVE_RANDOM)
        return order[took(!yields && at < n && below(c.rate) ? 0 : below(n), n)];
    return order[took(given(n), n)];
}

void prove_take_first_ways(bool only)
{
    c.first_only = only;
}

unsigned prove_pick(unsigned n)
{
    return prove_choose(n);
}

bool prove_rarely(void)
{
    return prove_choose_rarely();
}
