/* numbers.c - which numbers each kind of object has, and what states and kinds are called in sentences. */
#include "observe/monitor_impl.h"

#define BIT(name) ((uint64_t)1 << (WEIR_STATS_##name % 64))

/* Bits of the numbers below 64, and of those from there on. */
typedef struct numbers {
    uint64_t low, high;
} numbers;

#define COSTS     (BIT(ACCEPTED_COST) | BIT(DELIVERED_COST) | BIT(DEPTH_COST) | BIT(MAX_COST))
#define DONE_LOW  (BIT(DONE) | BIT(IN_FLIGHT))
#define DONE_COST (BIT(DONE_COST) | BIT(IN_FLIGHT_COST))
#define FLOW      (BIT(ACCEPTED) | BIT(DELIVERED) | BIT(PEAK_DEPTH) | BIT(CAPACITY) | BIT(DEPTH))
#define PUT_LINE  (BIT(PUT_WAITING) | BIT(PUT_WAITING_SINCE) | BIT(PUT_BLOCKED_NS) | BIT(REFUSED))
#define GET_LINE  (BIT(GET_WAITING) | BIT(GET_WAITING_SINCE) | BIT(GET_BLOCKED_NS))
#define DROPS                                                                                      \
    (BIT(DROPPED_NEWEST) | BIT(DROPPED_OLDEST) | BIT(DROPPED_SAMPLED) | BIT(DROPPED_EXPIRED) |     \
     BIT(DROPPED_DISCARDED) | BIT(DROPPED_LOST))
#define DROP_COSTS                                                                                 \
    (BIT(DROPPED_NEWEST_COST) | BIT(DROPPED_OLDEST_COST) | BIT(DROPPED_SAMPLED_COST) |             \
     BIT(DROPPED_EXPIRED_COST) | BIT(DROPPED_DISCARDED_COST) | BIT(DROPPED_LOST_COST))
#define QUEUE  (FLOW | COSTS | PUT_LINE | GET_LINE | DROPS | DROP_COSTS | BIT(MAX_AGE_NS))
#define PART   (QUEUE & ~(BIT(DEPTH) | BIT(DEPTH_COST) | BIT(PEAK_DEPTH)))
#define SPILLS (BIT(SPILLED) | BIT(SPILLED_COST))
#define POOL   (FLOW | DONE_LOW | PUT_LINE | DROPS)
#define GATE                                                                                       \
    (BIT(ACCEPTED) | BIT(ACCEPTED_COST) | BIT(DELIVERED) | BIT(DELIVERED_COST) | DONE_LOW |        \
     DONE_COST | BIT(CAPACITY) | PUT_LINE)

#define WAITS      (BIT(PUT_WAITS) | BIT(GET_WAITS))
#define TIME_SPENT (BIT(BUSY_NS) | BIT(IDLE_NS))

static numbers numbers_of(int kind)
{
    switch (kind) {
    case WEIR_STATS_QUEUE: return (numbers){QUEUE | SPILLS, WAITS | BIT(CLOSED) | BIT(ABOVE_HIGH)};
    case WEIR_STATS_SHARED_QUEUE: return (numbers){PART, WAITS | BIT(CLOSED) | BIT(SHARED)};
    case WEIR_STATS_THREAD_POOL:
        return (numbers){POOL, BIT(PUT_WAITS) | BIT(CLOSED) | BIT(WORKERS)};
    case WEIR_STATS_PROCESS_POOL:
        return (numbers){POOL & ~BIT(PEAK_DEPTH), BIT(PUT_WAITS) | BIT(CLOSED) | BIT(WORKERS) |
                                                      BIT(RESTARTS) | BIT(RETRIED) | BIT(FAILED) |
                                                      BIT(CANCELLED) | BIT(BUSY_NS)};
    case WEIR_STATS_STAGE:
        return (numbers){QUEUE | SPILLS, WAITS | TIME_SPENT | BIT(CLOSED) | BIT(WORKERS) |
                                             BIT(OWNER) | BIT(PLACE) | BIT(FEEDS) |
                                             BIT(PRESSURE_NS) | BIT(CAUSE) | BIT(BLOCKED_NS)};
    case WEIR_STATS_LIMIT: return (numbers){GATE, BIT(PUT_WAITS) | BIT(SHED) | BIT(CLOSED)};
    case WEIR_STATS_RATE:
        return (numbers){BIT(ACCEPTED) | BIT(CAPACITY) | PUT_LINE,
                         BIT(PUT_WAITS) | BIT(CANCELLED) | BIT(RATE_PER_HOUR)};
    case WEIR_STATS_BREAKER:
        return (numbers){BIT(ACCEPTED) | DONE_LOW | BIT(REFUSED),
                         BIT(FAILED) | BIT(SLOW) | BIT(OPENED) | BIT(STATE)};
    case WEIR_STATS_GOVERNOR: return (numbers){GATE, BIT(PUT_WAITS) | BIT(CLOSED) | BIT(STATE)};
    case WEIR_STATS_WATERMARK:
        return (numbers){FLOW | (PUT_LINE & ~BIT(REFUSED)),
                         BIT(PUT_WAITS) | BIT(CLOSED) | BIT(ABOVE_HIGH) | BIT(LOW) | BIT(PAUSES)};
    case WEIR_STATS_WORKER:
        return (numbers){DONE_LOW,
                         BIT(OWNER) | BIT(PLACE) | BIT(PID) | BIT(RESTARTS) | BIT(BUSY_NS)};
    default: return (numbers){0};
    }
}

bool weir__has_number(const weir_stats_record *record, int number)
{
    numbers has = numbers_of((int)record->kind);
    if (record->number[WEIR_STATS_REPORTS_DONE])
        has.low |= DONE_LOW | (has.low & BIT(DEPTH_COST) ? DONE_COST : 0);
    uint64_t bits = number < 64 ? has.low : has.high;
    return bits >> (number % 64) & 1 || record->number[number] != 0;
}

bool weir__has_times(const weir_stats_record *record, int which)
{
    switch ((int)record->kind) {
    case WEIR_STATS_QUEUE: return which == 0;
    case WEIR_STATS_THREAD_POOL:
    case WEIR_STATS_STAGE: return true;
    case WEIR_STATS_PROCESS_POOL:
    case WEIR_STATS_WORKER: return which == 1;
    default: return false;
    }
}

/* ---- words ---------------------------------------------------------------------------------- */

/* As <weir/breaker.h>, <weir/memory.h> and <weir/pipeline.h> call them; a test compares. */
static const char *const breaker_states[] = {"closed", "open", "half_open", "isolated"};
static const char *const memory_steps[] = {"normal", "slow", "pause", "shed"};
static const char *const causes[] = {"workers", "rate",  "limiter", "breaker",
                                     "memory",  "retry", "order",   "source"};

#define NAME_IN(names, i) ((i) < sizeof(names) / sizeof *(names) ? (names)[i] : NULL)

const char *weir__state_name(int kind, uint64_t state)
{
    if (kind == WEIR_STATS_BREAKER)
        return NAME_IN(breaker_states, state);
    return kind == WEIR_STATS_GOVERNOR ? NAME_IN(memory_steps, state) : NULL;
}

const char *weir__cause_name(uint64_t cause)
{
    return NAME_IN(causes, cause);
}

const char *weir__kind_words(int kind)
{
    switch (kind) {
    case WEIR_STATS_SHARED_QUEUE: return "shared queue";
    case WEIR_STATS_THREAD_POOL: return "thread pool";
    case WEIR_STATS_PROCESS_POOL: return "process pool";
    case WEIR_STATS_GOVERNOR: return "memory governor";
    case WEIR_STATS_BREAKER: return "circuit breaker";
    default: return weir_stats_kind_name(kind);
    }
}
