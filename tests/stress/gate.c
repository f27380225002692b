/* The gate under many threads, and under processes that are killed: the bound at every instant, the
 * law at the end. */
#include "contract/support.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flow/gate.h"

#define THREADS  8
#define CAPACITY 10u

static weir__gate *gate;
static _Atomic int64_t inside;
static _Atomic bool stop;

/* What the test counts itself: never above the bound. */
static void note_in(uint64_t cost, uint64_t bound)
{
    int64_t now = atomic_fetch_add(&inside, (int64_t)cost) + (int64_t)cost;
    must(now >= 0 && (uint64_t)now <= bound);
}

static void note_out(uint64_t cost)
{
    atomic_fetch_sub(&inside, (int64_t)cost);
}

typedef struct tally {
    uint64_t in, out_of_time, full;
} tally;

static unsigned next(unsigned *seed)
{
    return (*seed = *seed * 1103515245u + 12345u) >> 16;
}

static void *comes_and_goes(void *arg)
{
    tally *t = arg;
    unsigned seed = (unsigned)(uintptr_t)arg;
    while (!stop) {
        uint64_t cost = 1 + next(&seed) % 4;
        unsigned partition = next(&seed) % 2;
        weir_time deadline = WEIR_FOREVER;
        if (next(&seed) % 3 == 0)
            deadline = WEIR_POLL;
        else if (next(&seed) % 3 == 0)
            deadline = weir_after(next(&seed) % 200 * 1000);
        int rc = weir__gate_acquire(gate, cost, partition, deadline);
        if (rc == WEIR_OK) {
            note_in(cost, CAPACITY);
            if (next(&seed) % 8 == 0)
                nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
            note_out(cost);
            weir__gate_release(gate, cost, partition, NULL, NULL);
            t->in++;
        } else {
            must(rc == WEIR_EFULL || rc == WEIR_ETIMEDOUT);
            *(rc == WEIR_EFULL ? &t->full : &t->out_of_time) += 1;
        }
    }
    return NULL;
}

static void run_threads(uint64_t seconds_tenths)
{
    pthread_t threads[THREADS];
    tally tallies[THREADS] = {{0}};
    inside = 0;
    stop = false;
    for (int i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, comes_and_goes, &tallies[i]) == 0);
    for (weir_time until = weir_after((int64_t)seconds_tenths * WEIR_SECOND / 10);
         weir_now() < until;) {
        weir__gate_counts now;
        weir__gate_get_counts(gate, &now);
        must(now.admitted == now.released + now.inside);
        must(now.used <= CAPACITY);
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    stop = true;
    tally sum = {0};
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sum.in += tallies[i].in;
        sum.out_of_time += tallies[i].out_of_time;
        sum.full += tallies[i].full;
    }
    weir__gate_counts now;
    weir__gate_get_counts(gate, &now);
    assert_int_equal(now.admitted, sum.in);
    assert_int_equal(now.released, sum.in);
    assert_int_equal(now.refused, sum.full + sum.out_of_time);
    assert_int_equal(now.used, 0);
    assert_int_equal(now.waiting, 0);
    assert_true(now.peak_used <= CAPACITY);
    printf("           %llu in, %llu full, %llu out of time\n", (unsigned long long)sum.in,
           (unsigned long long)sum.full, (unsigned long long)sum.out_of_time);
}

static weir__gate *create(const char *shared, unsigned n_partitions)
{
    weir__gate *made;
    weir__gate_opts opts = {.capacity = CAPACITY,
                            .kind = "stress",
                            .shared = shared,
                            .n_partitions = n_partitions,
                            .shares = {0.5, 0.2}};
    must(weir__gate_create(&made, &opts) == WEIR_OK);
    return made;
}

static const char *own_name(void)
{
    static char name[32];
    snprintf(name, sizeof name, "stress.%d", (int)getpid());
    return name;
}

static void threads_never_exceed_the_capacity(void **state)
{
    (void)state;
    gate = create(NULL, 2);
    run_threads(20);
    weir__gate_destroy(gate);
}

static void threads_never_exceed_a_shared_capacity(void **state)
{
    (void)state;
    gate = create(own_name(), 2);
    run_threads(20);
    weir__gate_destroy(gate);
}

/* ---- without threads ------------------------------------------------------------------------ */

/* As an event loop uses it: pendings that are granted, cancelled, or granted while cancelled. */
enum { PENDINGS = 64 };
static struct pending {
    weir_pending base;
    _Atomic int state; /* FREE, WAITS, GRANTED */
    uint64_t cost;
} pendings[PENDINGS];
enum { FREE, WAITS, GRANTED };
static _Atomic uint64_t granted, cancelled;

static void on_ready(weir_pending *base, int result)
{
    struct pending *p = base->ctx;
    must(result == WEIR_OK && p->state == WAITS);
    note_in(p->cost, CAPACITY);
    granted++;
    p->state = GRANTED; /* the last touch: another thread may use it again */
}

static void let_go(struct pending *p)
{
    uint64_t cost = p->cost;
    note_out(cost);
    p->state = FREE;
    weir__gate_release(gate, cost, 0, NULL, NULL);
}

static void *drives(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    size_t first = (size_t)arg * (PENDINGS / 4);
    while (!stop) {
        struct pending *p = &pendings[first + next(&seed) % (PENDINGS / 4)];
        switch (p->state) {
        case FREE:
            p->cost = 1 + next(&seed) % 3;
            p->base = (weir_pending){.ready = on_ready, .ctx = p};
            p->state = WAITS;
            if (weir__gate_acquire_async(gate, p->cost, 0, &p->base) == WEIR_OK)
                on_ready(&p->base, WEIR_OK);
            break;
        case WAITS:
            if (weir__gate_cancel(gate, &p->base)) {
                cancelled++;
                p->state = FREE;
            } else {
                soon(p->state == GRANTED);
                let_go(p);
            }
            break;
        case GRANTED: let_go(p); break;
        }
    }
    return NULL;
}

static void granting_and_cancelling_may_race(void **state)
{
    (void)state;
    pthread_t threads[4];
    gate = create(NULL, 0);
    inside = 0;
    stop = false;
    for (size_t i = 0; i < 4; i++)
        must(pthread_create(&threads[i], NULL, drives, (void *)i) == 0);
    nanosleep(&(struct timespec){.tv_sec = 2}, NULL);
    stop = true;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < PENDINGS; i++)
        if (pendings[i].state == WAITS && weir__gate_cancel(gate, &pendings[i].base))
            pendings[i].state = FREE;
    for (int i = 0; i < PENDINGS; i++)
        if (pendings[i].state == GRANTED)
            let_go(&pendings[i]);
    weir__gate_counts now;
    weir__gate_get_counts(gate, &now);
    assert_int_equal(now.admitted, granted);
    assert_int_equal(now.released, granted);
    assert_int_equal(now.used, 0);
    assert_true(granted > 0 && cancelled > 0);
    weir__gate_destroy(gate);
}

/* ---- processes that are killed -------------------------------------------------------------- */

#define PROCESSES 4

/* Shared by the processes.  Who is killed leaves its word as it is, so the parent takes it out. */
static struct board {
    _Atomic int64_t held[64]; /* by each process that there ever was */
    _Atomic uint64_t rounds;
} *board;

static void lives(int at)
{
    unsigned seed = (unsigned)getpid();
    for (;;) {
        uint64_t cost = 1 + next(&seed) % 4;
        weir_time deadline = next(&seed) % 2 ? WEIR_FOREVER : weir_after(next(&seed) % 300 * 1000);
        if (weir__gate_acquire(gate, cost, 0, deadline) == WEIR_OK) {
            board->held[at] = (int64_t)cost;
            board->rounds++;
            if (next(&seed) % 4 == 0)
                nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
            board->held[at] = 0;
            weir__gate_release(gate, cost, 0, NULL, NULL);
        }
    }
}

static void what_the_killed_held_comes_back_and_nothing_else(void **state)
{
    (void)state;
    gate = create(own_name(), 0);
    unsigned seed = 5;
    pid_t pids[PROCESSES] = {0};
    int at[PROCESSES];
    for (int born = 0; born < 64; born++) {
        int i = born % PROCESSES;
        if (pids[i]) {
            kill(pids[i], SIGKILL);
            must(waitpid(pids[i], NULL, 0) == pids[i]);
            board->held[at[i]] = 0;
        }
        at[i] = born;
        pids[i] = fork();
        must(pids[i] >= 0);
        if (pids[i] == 0)
            lives(born);
        for (int look = 0; look < 20; look++) {
            int64_t sum = 0;
            for (int k = 0; k < 64; k++)
                sum += board->held[k]; /* not one instant, and held may lag behind: see below */
            weir__gate_counts now;
            weir__gate_get_counts(gate, &now);
            must(now.peak_used <= CAPACITY);
            must(sum <= (int64_t)(CAPACITY + PROCESSES * 4));
            nanosleep(&(struct timespec){.tv_nsec = 200000 + next(&seed) % 100000}, NULL);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        kill(pids[i], SIGKILL);
        must(waitpid(pids[i], NULL, 0) == pids[i]);
    }
    /* All of it can be had again, by who waits for it. */
    assert_int_equal(weir__gate_acquire(gate, CAPACITY, 0, weir_after(PATIENCE)), WEIR_OK);
    weir__gate_counts now;
    weir__gate_get_counts(gate, &now);
    assert_int_equal(now.used, CAPACITY);
    assert_int_equal(now.inside, 1);
    assert_int_equal(now.admitted, now.released + now.inside + now.lost);
    weir__gate_release(gate, CAPACITY, 0, NULL, NULL);
    printf("           %llu rounds, %llu lost with the killed\n", (unsigned long long)board->rounds,
           (unsigned long long)now.lost);
    assert_true(board->rounds > 0);
    weir__gate_destroy(gate);
}

int main(int argc, char **argv)
{
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(board != MAP_FAILED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_never_exceed_the_capacity),
        cmocka_unit_test(threads_never_exceed_a_shared_capacity),
        cmocka_unit_test(granting_and_cancelling_may_race),
        cmocka_unit_test(what_the_killed_held_comes_back_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
