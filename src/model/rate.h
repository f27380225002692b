/* rate.h - a token bucket in integers: what may be taken now, and when the rest may be.
 *
 * The generic cell rate algorithm (ITU-T I.371, "virtual scheduling") with its one number held in
 * tokens and not in time.  The *supply* is how many tokens the rate has made so far; `taken` is the
 * position up to which they are taken.  The bucket holds supply - taken, at most a burst; below 0 it
 * is owed.  Because `taken` is in tokens, another rate moves everybody who waits, too.
 *
 * Unit:       grains, 2^20 to the token.  Positions are 64 bits and wrap round; only differences
 *             count.  The supply is computed from the terms with 128 bits, so no remainder is ever
 *             lost: terms of last year give the same as terms of a second ago.
 * Bound:      what is taken at times in [a, b] < rate x (b - a) + burst + 1 grain.
 * Time:       nanoseconds of one clock that everybody reads.  A time before the terms' own counts as
 *             that; so a clock that goes back takes nothing away and gives nothing.
 */
#ifndef WEIR_MODEL_RATE_H
#define WEIR_MODEL_RATE_H

#include <stdbool.h>
#include <stdint.h>

#define WEIR__TOKEN          (UINT64_C(1) << 20)       /* grains */
#define WEIR__RATE_MAX       (UINT64_C(1) << 40)       /* tokens in per_ns */
#define WEIR__PER_MAX        (INT64_C(1) << 61)        /* 73 years */
#define WEIR__PER_NS_MAX     UINT64_C(1000)            /* tokens in a nanosecond */
#define WEIR__BURST_MAX      ((UINT64_C(1) << 38) - 1) /* tokens */
#define WEIR__RATE_FAR       (UINT64_C(1) << 61)       /* grains: further nobody can owe */
#define WEIR__RATE_RENEW     (UINT64_C(1) << 60)       /* grains of supply since the terms */
#define WEIR__RATE_FORGOTTEN (UINT64_C(1) << 62)       /* the same */
#define WEIR__RATE_NEVER     INT64_MAX

__extension__ typedef unsigned __int128 weir__u128;

/* `rate` tokens in `per_ns`, and never more than `burst` grains inside; begun at t0, when the
 * supply was s0. */
typedef struct weir__rate_terms {
    int64_t t0;
    uint64_t s0;
    uint64_t rate;
    uint64_t per_ns;
    uint64_t burst;
    uint64_t speed,
        speed_rest; /* grains in a nanosecond, and 2^-64 of them: a short way; 0: none */
} weir__rate_terms;

/* Sets the speed. */
void weir__rate_set_speed(weir__rate_terms *terms);

/* Whether all of it is in range; burst in tokens here. */
bool weir__rate_is_valid(uint64_t rate, int64_t per_ns, uint64_t burst_tokens);

/* How far the supply is at a time. */
typedef struct weir__supply {
    uint64_t position;
    bool is_old;       /* the terms should be renewed: begun again at this time */
    bool is_forgotten; /* nobody has renewed them, and so nobody has taken anything, for long: the
                          bucket is full, and `taken` may have been wrapped round */
} weir__supply;

/* passed * rate / per_ns, rounded down.  A division of 128 bits takes as long as all the rest; the
 * product with the speed is less than 2 below it, and a look at the remainder makes it exact. */
static inline weir__u128 weir__rate_made(const weir__rate_terms *terms, uint64_t passed)
{
    weir__u128 product = (weir__u128)passed * (terms->rate * WEIR__TOKEN); /* < 2^(63 + 60) */
    weir__u128 about =
        (weir__u128)passed * terms->speed + ((weir__u128)passed * terms->speed_rest >> 64);
    if (about >= WEIR__RATE_FORGOTTEN ||
        product - about * terms->per_ns >= 2 * (weir__u128)terms->per_ns)
        return product / terms->per_ns;
    return about + (product - about * terms->per_ns >= terms->per_ns);
}

static inline weir__supply weir__rate_supply(const weir__rate_terms *terms, int64_t now)
{
    uint64_t passed = now > terms->t0 ? (uint64_t)now - (uint64_t)terms->t0 : 0;
    weir__u128 made = weir__rate_made(terms, passed);
    return (weir__supply){
        .position = terms->s0 + (uint64_t)made,
        .is_old = made >= WEIR__RATE_RENEW,
        .is_forgotten = made >= WEIR__RATE_FORGOTTEN,
    };
}

static inline int64_t weir__rate_lag(weir__supply supply, uint64_t taken)
{
    return (int64_t)(supply.position - taken);
}

static inline bool weir__rate_is_full(const weir__rate_terms *terms, weir__supply supply,
                                      uint64_t taken)
{
    return supply.is_forgotten || weir__rate_lag(supply, taken) >= (int64_t)terms->burst;
}

/* The position of `taken` once the cost is taken, whether it is there or not: it may be owed. */
static inline uint64_t weir__rate_owe(const weir__rate_terms *terms, weir__supply supply,
                                      uint64_t taken, uint64_t cost)
{
    return (weir__rate_is_full(terms, supply, taken) ? supply.position - terms->burst : taken) +
           cost;
}

/* Grains inside, <= burst; < 0: owed. */
int64_t weir__rate_level(const weir__rate_terms *terms, weir__supply supply, uint64_t taken);

/* What somebody asks for, in grains: a cost, behind others who wait and leave `ahead` to them.
 * `later` of what was taken was promised to who came later, and does not count against it. */
typedef struct weir__rate_ask {
    uint64_t cost, ahead, later;
} weir__rate_ask;

/* Whether it may be taken now; *ret_taken is the new position then. */
static inline bool weir__rate_take(const weir__rate_terms *terms, weir__supply supply,
                                   uint64_t taken, const weir__rate_ask *ask, uint64_t *ret_taken)
{
    bool full = weir__rate_is_full(terms, supply, taken);
    int64_t inside =
        full ? (int64_t)terms->burst : weir__rate_lag(supply, taken) + (int64_t)ask->later;
    if (inside < (int64_t)(ask->ahead + ask->cost))
        return false;
    *ret_taken = weir__rate_owe(terms, supply, taken, ask->cost);
    return true;
}

/* The position at which the supply has to be for that, if nobody else comes. */
uint64_t weir__rate_position(const weir__rate_terms *terms, weir__supply supply, uint64_t taken,
                             const weir__rate_ask *ask);

/* When the supply will be at a position; t0 when it was there before.  WEIR__RATE_NEVER: not in
 * the time there is. */
int64_t weir__rate_when(const weir__rate_terms *terms, uint64_t position);

#endif
