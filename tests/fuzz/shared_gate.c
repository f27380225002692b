/* shared_gate.c - a limit that processes share, whose memory somebody scribbles over between the calls of who
 * uses it.  Not the locks: they are the C library's.  Input and claims are those of shared_queue.c. */
#include "fuzz.h"

#include <unistd.h>

#include "flow/shared_gate.c" /* for the layout of the file */

#define STATE 64

/* All of the file but the locks. */
static void *place(fuzz *f, shared *s)
{
    uint64_t any = fuzz_number(f, 2);
    switch (fuzz_byte(f) % 6) {
    case 0: return (char *)s + any % (offsetof(shared, door) - 7);
    case 1: return (char *)&s->current + any % 8 / 4 * 4;
    case 2: return (char *)&s->copies + any % (sizeof s->copies - 7);
    case 3:
        return (char *)&s->shed +
               any % (offsetof(shared, line) - offsetof(shared, shed) - 7) / 8 * 8;
    case 4: return &s->line.waiting[any % WEIR__SIDES][any / 2 % (WEIR__PLACES / 64)];
    default: return (char *)&s->seat[any % 4] + any / 4 % sizeof(seat) / 8 * 8;
    }
}

static void scribble(fuzz *f, shared *s)
{
    void *at = place(f, s);
    uint64_t number = fuzz_any(f);
    memcpy(at, &number, fuzz_byte(f) & 1 ? sizeof(uint32_t) : sizeof number);
}

/* A place of the line: somebody waits there, who is not alive. */
static void scribble_place(fuzz *f, shared *s)
{
    size_t i = fuzz_byte(f);
    weir__place *at = &s->line.places[i];
    at->ticket = fuzz_any(f);
    at->cost = fuzz_any(f);
    at->kind = (uint32_t)fuzz_any(f);
    at->called = (weir_time)fuzz_any(f);
    s->line.waiting[LINE][i / 64] |= UINT64_C(1) << i % 64;
}

/* As an algorithm would: it reads and writes all of its state. */
static uint64_t update(void *state, uint64_t used, uint64_t capacity, void *ctx)
{
    (void)ctx;
    fuzz_touch(state, STATE);
    memset(state, (int)used, STATE);
    return capacity;
}

static void look_on(weir__shared_gate *gate)
{
    weir__gate_counts counts;
    unsigned char *state = malloc(STATE); /* of its own: no byte more may be written */
    must(state);
    weir__shared_gate_look(gate, state);
    fuzz_touch(state, STATE);
    free(state);
    weir__shared_gate_get_counts(gate, &counts);
    weir__shared_gate_used(gate);
}

static void step(fuzz *f, weir__shared_gate *gate, unsigned partitions_n)
{
    uint64_t cost = 1 + fuzz_byte(f) % 4;
    unsigned partition = fuzz_byte(f) % partitions_n;
    switch (fuzz_byte(f) % 8) {
    case 0: weir__shared_gate_acquire(gate, cost, partition, WEIR_POLL); break;
    case 1: weir__shared_gate_release(gate, cost, partition, update, NULL); break;
    case 2: weir__shared_gate_release(gate, cost, partition, NULL, NULL); break;
    case 3: weir__shared_gate_update(gate, update, NULL); break;
    case 4: look_on(gate); break;
    case 5: scribble_place(f, gate->shared); break;
    default: scribble(f, gate->shared); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    char name[32];
    snprintf(name, sizeof name, "fuzz-%d", (int)getpid());
    weir__gate_opts opts = {
        .capacity = fuzz_byte(&f) % 8,
        .kind = "fuzz",
        .shared = name,
        .one_always = fuzz_byte(&f) & 1,
        .lifo = fuzz_byte(&f) & 1,
        .n_partitions = fuzz_byte(&f) % (WEIR__PARTITIONS + 1),
        .shed_target_ns = fuzz_byte(&f),
        .shed_interval_ns = 1 + fuzz_byte(&f),
        .state_size = STATE,
    };
    unsigned partitions_n = opts.n_partitions ? opts.n_partitions : 1;
    weir__shared_gate *gate;
    must(weir__shared_gate_open(&gate, &opts) == WEIR_OK);
    for (unsigned steps = fuzz_byte(&f) % 64; steps > 0; steps--)
        step(&f, gate, partitions_n);
    look_on(gate);
    weir__shared_gate_close(gate);
    weir__shared_gate_close_handle(gate);
    return 0;
}
