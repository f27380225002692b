/* tell.c - tells the numbers of a run; see tell.h. */
#include "tell.h"

#include <stdio.h>
#include <stdlib.h>

#include <weir/teller.h>

#define SLOTS 256 /* the further ones are not shown one by one */

typedef struct slot {
    weir_teller *teller;
    uint64_t done, failed, starts;
} slot;

struct run_teller {
    weir_teller *pool;
    char name[64];
    slot slots[SLOTS];
};

run_teller *run_teller_open(const char *name)
{
    run_teller *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    snprintf(t->name, sizeof t->name, "%s", name);
    t->pool = weir_teller_open(WEIR_STATS_PROCESS_POOL, t->name);
    return t;
}

void run_teller_close(run_teller *t)
{
    if (!t)
        return;
    for (unsigned i = 0; i < SLOTS; i++)
        weir_teller_close(t->slots[i].teller);
    weir_teller_close(t->pool);
    free(t);
}

void run_teller_tell(run_teller *t, const run_schedule *s)
{
    if (!t || !t->pool)
        return;
    uint64_t ended = s->done + s->failed + s->skipped;
    const weir_told told[] = {
        {WEIR_STATS_ACCEPTED, s->read},
        {WEIR_STATS_DELIVERED, ended + s->running},
        {WEIR_STATS_DONE, ended},
        {WEIR_STATS_REPORTS_DONE, 1},
        {WEIR_STATS_FAILED, s->failed},
        {WEIR_STATS_RETRIED, s->retried},
        {WEIR_STATS_WORKERS, s->jobs},
        {WEIR_STATS_CAPACITY, s->jobs + RUN_WAITING_MAX},
        {WEIR_STATS_CLOSED, s->halted != RUN_HALT_NEVER},
    };
    weir_teller_tell(t->pool, told, sizeof told / sizeof *told);
}

void run_teller_slot(run_teller *t, unsigned number, int64_t pid, int64_t took_ns, bool failed)
{
    if (!t || !t->pool || number > SLOTS)
        return;
    slot *s = &t->slots[number - 1];
    if (!s->teller) {
        char name[80];
        snprintf(name, sizeof name, "%.50s/%u", t->name, number);
        s->teller = weir_teller_open(WEIR_STATS_WORKER, name);
    }
    if (pid == 0) {
        weir_teller_time(t->pool, WEIR_TELLER_SERVICE, took_ns, 1);
        s->done++;
        s->failed += failed;
    }
    const weir_told told[] = {
        {WEIR_STATS_OWNER, weir_teller_id(t->pool)},
        {WEIR_STATS_PLACE, number - 1},
        {WEIR_STATS_PID, (uint64_t)pid},
        {WEIR_STATS_IN_FLIGHT, pid != 0},
        {WEIR_STATS_DONE, s->done},
        {WEIR_STATS_FAILED, s->failed},
    };
    weir_teller_tell(s->teller, told, sizeof told / sizeof *told);
}
