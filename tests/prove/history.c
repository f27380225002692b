/* history.c - whether calls that overlapped could have happened one after the other; see prove.h.
 *
 * A search over orders (Wing and Gong, "Testing and verifying concurrent objects", 1993): the next one is any call
 * that none of those that are left comes before.  Calls that have not ended may have happened or not.
 */
#include "inside.h"

#include <stdio.h>
#include <string.h>

static prove_call calls[PROVE_CALLS];
static size_t n_calls;
static uint64_t now;

void prove_history_begin(void);
void prove_history_begin(void)
{
    n_calls = 0;
    now = 0;
}

size_t prove_begin(int what, int64_t arg)
{
    if (n_calls == PROVE_CALLS)
        prove_fail("more than %d calls in a history", PROVE_CALLS);
    prove_call *c = &calls[n_calls];
    *c = (prove_call){.what = what, .arg = arg, .began = ++now, .thread = prove_self};
    memcpy(c->known, prove_threads[prove_self].known, sizeof c->known);
    return n_calls++;
}

void prove_end(size_t call, int64_t result)
{
    calls[call].result = result;
    calls[call].ended = ++now;
    calls[call].end =
        prove_memory_tick(); /* the first that can happen before another one's beginning */
}

static bool comes_before(const prove_call *a, const prove_call *b)
{
    return a->ended && a->end <= b->known[a->thread];
}

/* Whether all that comes before the call is done. */
static bool may_be_next(const prove_call *call, uint32_t done)
{
    for (size_t i = 0; i < n_calls; i++)
        if (!(done >> i & 1) && comes_before(&calls[i], call))
            return false;
    return true;
}

#define SEEN (1u << 12)

/* Sets of calls with the states they led to, that lead no further. */
static struct {
    uint32_t done;
    char state[PROVE_STATE];
} dead[SEEN];
static size_t n_dead;

static bool is_dead(uint32_t done, const char *state, size_t size)
{
    for (size_t i = 0; i < n_dead; i++)
        if (dead[i].done == done && memcmp(dead[i].state, state, size) == 0)
            return true;
    return false;
}

static bool find(const prove_model *model, uint32_t done, const char *state)
{
    bool all = true;
    for (size_t i = 0; i < n_calls; i++)
        all = all && (done >> i & 1 || !calls[i].ended);
    if (all)
        return true;
    if (is_dead(done, state, model->size))
        return false;
    for (size_t i = 0; i < n_calls; i++) {
        char next[PROVE_STATE];
        if (done >> i & 1 || !may_be_next(&calls[i], done))
            continue;
        memcpy(next, state, sizeof next);
        if (model->apply(next, &calls[i]) && find(model, done | 1u << i, next))
            return true;
    }
    if (n_dead < SEEN) {
        dead[n_dead].done = done;
        memcpy(dead[n_dead++].state, state, model->size);
    }
    return false;
}

void prove_linearizable(const prove_model *model)
{
    char state[PROVE_STATE] = {0}, text[96], all[4096] = "";
    n_dead = 0;
    if (find(model, 0, state))
        return;
    for (size_t i = 0; i < n_calls; i++) {
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "    thread %d, %3llu to %3llu: %s\n", calls[i].thread,
                 (unsigned long long)calls[i].began, (unsigned long long)calls[i].ended,
                 model->text(&calls[i], text));
    }
    prove_fail("no order of these calls is allowed:\n%s", all);
}
