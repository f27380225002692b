/* meter.c - exec/meter: where the time of a worker goes, read by others while it goes on. */
#include "../prove.h"

#include <string.h>

#include "exec/pipeline_impl.h"

static weir_pipeline pipeline; /* one without functions around waits */
static weir__tally tally;
static weir__meter meter;

static void spend_time(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 2; i++) {
        weir__wait wait = weir__wait_begin(&pipeline, &meter, WEIR__IDLE, 0);
        prove_claim(weir__wait_end(&pipeline, &meter, wait) > 0);
        wait = weir__wait_begin(&pipeline, &meter, WEIR__HELD, i);
        prove_claim(weir__wait_end(&pipeline, &meter, wait) > 0);
    }
}

static uint64_t all_of(const weir__times *times)
{
    uint64_t sum = times->busy_ns + times->idle_ns;
    for (int i = 0; i < WEIR_CAUSES; i++)
        sum += times->held_ns[i];
    return sum;
}

static void meter_read_meanwhile(void)
{
    memset(&tally, 0, sizeof tally);
    memset(&meter, 0, sizeof meter);
    meter.tallies = &tally;
    atomic_store(&meter.doing, WEIR__ABSENT);
    weir__meter_come(&meter);
    weir_time came = atomic_load(&meter.since);
    int t = prove_spawn(spend_time, NULL);
    for (int i = 0; i < 2; i++) {
        weir__times times;
        weir_time now = weir_now();
        weir__meter_read(&meter, now, &times);
        prove_claim(all_of(&times) >= (uint64_t)(now - came));
        prove_claim(all_of(&times) <= (uint64_t)(weir_now() - came));
    }
    prove_join(t);
}

PROVE_CASE(meter_read_meanwhile,
           "all time since a worker came is somewhere, and once, at any moment");
