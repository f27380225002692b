/* rate.c - see rate.h. */
#include "model/rate.h"

bool weir__rate_is_valid(uint64_t rate, int64_t per_ns, uint64_t burst_tokens)
{
    return rate >= 1 && rate <= WEIR__RATE_MAX && per_ns >= 1 && per_ns <= WEIR__PER_MAX &&
           rate / WEIR__PER_NS_MAX <= (uint64_t)per_ns && burst_tokens >= 1 &&
           burst_tokens <= WEIR__BURST_MAX;
}

void weir__rate_set_speed(weir__rate_terms *terms)
{
    uint64_t grains = terms->rate * WEIR__TOKEN;
    terms->speed = grains / terms->per_ns;
    terms->speed_rest = (uint64_t)(((weir__u128)(grains % terms->per_ns) << 64) / terms->per_ns);
}

int64_t weir__rate_level(const weir__rate_terms *terms, weir__supply supply, uint64_t taken)
{
    return weir__rate_is_full(terms, supply, taken) ? (int64_t)terms->burst
                                                    : weir__rate_lag(supply, taken);
}

uint64_t weir__rate_position(const weir__rate_terms *terms, weir__supply supply, uint64_t taken,
                             const weir__rate_ask *ask)
{
    uint64_t later = weir__rate_is_full(terms, supply, taken) ? 0 : ask->later;
    return weir__rate_owe(terms, supply, taken, ask->ahead + ask->cost) - later;
}

int64_t weir__rate_when(const weir__rate_terms *terms, uint64_t position)
{
    int64_t missing = (int64_t)(position - terms->s0);
    if (missing <= 0)
        return terms->t0;
    uint64_t speed = terms->rate * WEIR__TOKEN;
    weir__u128 needed = ((weir__u128)(uint64_t)missing * terms->per_ns + speed - 1) / speed;
    uint64_t left = (uint64_t)(WEIR__RATE_NEVER - terms->t0);
    return needed < left ? terms->t0 + (int64_t)needed : WEIR__RATE_NEVER;
}
