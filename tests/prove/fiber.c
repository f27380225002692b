/* fiber.c - threads that take turns: each is a stack of its own in the one thread of the prover.
 *
 * Thread-local variables of the code are in one section (-D_Thread_local=...), which is exchanged at each turn.
 */
#include "inside.h"

#include <execinfo.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STACK   (256u << 10)
#define TLS_MAX 4096 /* bytes of thread-local variables */
#define PATIENCE                                                                                   \
    1000 /* points of one thread while others could go on: it waits for them, by looking */
#define TOO_MANY 200000 /* choices in one run: it goes round in circles */

prove_thread prove_threads[PROVE_THREADS];
int prove_self = -1;
weir_time prove_time;
char prove_error[8192];

static _Alignas(64) char stacks[PROVE_THREADS][STACK], tls[PROVE_THREADS][TLS_MAX];
static ucontext_t prover;
static void (*body)(void);
static bool has_failed,
    tells; /* tells: a thread that is switched to says where it is, and comes back */
static uint32_t points, alone; /* alone: since another thread went on */
static unsigned stalls;
static bool time_stands_still;

#define TLS ((size_t)(__stop_weir_tls - __start_weir_tls))

/* ---- saying what is wrong --------------------------------------------------------------------- */

static void add(const char *format, ...)
{
    size_t n = strlen(prove_error);
    va_list args;
    va_start(args, format);
    vsnprintf(prove_error + n, sizeof prove_error - n, format, args);
    va_end(args);
}

static void add_stack(void)
{
    void *pcs[32];
    char text[160];
    int n = backtrace(pcs, 32);
    for (int i = 2; i < n; i++)
        if (*prove_place((char *)pcs[i] - 1, text))
            add("        %s\n", text);
}

static void switch_to(int thread);

static void add_all(int but)
{
    static const char *const states[] = {"", "can go on", "waits", "has ended", "was killed"};
    for (int i = 0; i < PROVE_THREADS; i++) {
        prove_thread *t = &prove_threads[i];
        if (t->state == PROVE_NONE || t->state == PROVE_OVER || i == but)
            continue;
        add("    thread %d %s\n", i, states[t->state]);
        if (t->state == PROVE_DEAD)
            continue;
        int self = prove_self;
        tells = true;
        switch_to(i);
        tells = false;
        prove_self = self;
    }
}

_Noreturn void prove_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(prove_error, sizeof prove_error, format, args);
    va_end(args);
    add("\n");
    has_failed = true;
    if (prove_self >= 0) {
        add("    thread %d, here\n", prove_self);
        add_stack();
        int self = prove_self;
        add_all(self);
        prove_self = self;
    } else {
        fprintf(stderr, "%s", prove_error);
        abort();
    }
    setcontext(&prover);
    abort();
}

/* ---- turns ------------------------------------------------------------------------------------ */

static void save(int thread)
{
    if (thread >= 0)
        memcpy(prove_threads[thread].tls, __start_weir_tls, TLS);
}

static int told_from;
static ucontext_t telling;

/* From the thread that runs now, or the prover. */
static void switch_to(int thread)
{
    int from = prove_self;
    if (from == thread)
        return;
    if (tells) {
        told_from = from;
        prove_self = thread;
        swapcontext(&telling, &prove_threads[thread].context);
        return;
    }
    save(from);
    memcpy(__start_weir_tls, prove_threads[thread].tls, TLS);
    prove_names_switch(prove_threads[thread].process);
    prove_self = thread;
    swapcontext(from >= 0 ? &prove_threads[from].context : &prover, &prove_threads[thread].context);
    while (tells) { /* this one is back, only to say where it is */
        add_stack();
        swapcontext(&prove_threads[prove_self].context, &telling);
    }
}

static unsigned able(int to[PROVE_THREADS])
{
    unsigned n = 0;
    for (int i = 0; i < PROVE_THREADS; i++)
        if (prove_threads[i].state == PROVE_ABLE)
            to[n++] = i;
    return n;
}

/* The thread whose deadline comes first; -1: none has one. */
static int first_due(void)
{
    int first = -1;
    for (int i = 0; i < PROVE_THREADS; i++) {
        const prove_thread *t = &prove_threads[i];
        if (t->state == PROVE_WAITS && t->until != WEIR_FOREVER &&
            (first < 0 || t->until < prove_threads[first].until))
            first = i;
    }
    return first;
}

static void time_out(int thread)
{
    prove_thread *t = &prove_threads[thread];
    if (t->until > prove_time)
        prove_time = t->until;
    t->state = PROVE_ABLE;
    t->timed_out = true;
}

unsigned prove_stalls(void)
{
    return stalls;
}

static _Noreturn void fail_stuck(void)
{
    strcpy(prove_error, "");
    has_failed = true;
    add("nobody can go on: a wake-up was lost, or everybody waits for somebody else\n");
    add_all(-2);
    setcontext(&prover);
    abort();
}

void prove_let_time_stand_still(void)
{
    time_stands_still = true;
}

/* Somebody else's turn, or the same one's.  Time may pass at any moment. */
static void turn(bool yields)
{
    int list[PROVE_THREADS];
    unsigned n = able(list);
    int due = first_due();
    stalls += n == 0 && due >= 0 && prove_threads[due].waits_on; /* it does not just sleep */
    /* time may pass at any moment */
    if (due >= 0 && (n == 0 || (!time_stands_still && prove_choose(2) == 1))) {
        time_out(due);
        n = able(list);
    }
    if (n == 0)
        fail_stuck();
    int self = prove_self;
    int chosen = prove_choose_thread(list, n, self, yields || alone > PATIENCE);
    alone = chosen == self && n > 1 && alone <= PATIENCE ? alone + 1 : 0;
    if (chosen != self)
        prove_late_seen();
    switch_to(chosen);
}

/* A process that may be killed may be killed here. */
static void count_point(void)
{
    if (++points > TOO_MANY)
        prove_fail("it goes on for ever: %u times another thread could have gone on", points);
    int process = prove_threads[prove_self].process;
    if (process && prove_is_mortal(process) && prove_choose_death())
        prove_kill(process, 9);
}

void prove_point_of_atomic(void)
{
    if (prove_self < 0)
        return;
    prove_late_point();
    count_point();
    turn(false);
}

void prove_point(void)
{
    if (prove_self < 0)
        return;
    prove_late_keep();
    prove_point_of_atomic();
}

void prove_yield(void)
{
    if (prove_self < 0)
        return;
    prove_late_keep();
    count_point();
    turn(true);
}

bool prove_wait(const void *on, weir_time until)
{
    prove_thread *t = &prove_threads[prove_self];
    t->state = PROVE_WAITS;
    t->waits_on = on;
    t->until = until;
    t->timed_out = false;
    turn(true);
    t->waits_on = NULL;
    return t->timed_out;
}

void prove_pause(void)
{
    prove_point();
    prove_wait(NULL, prove_time + WEIR_MICROSECOND);
}

unsigned prove_wake(const void *on, unsigned n)
{
    unsigned woken = 0;
    for (int i = 0; i < PROVE_THREADS && woken < n; i++) {
        prove_thread *t = &prove_threads[i];
        if (t->state == PROVE_WAITS && t->waits_on == on) {
            t->state = PROVE_ABLE;
            woken++;
        }
    }
    return woken;
}

/* ---- beginning and ending --------------------------------------------------------------------- */

_Noreturn void prove_leave(prove_state state)
{
    prove_threads[prove_self].state = state;
    prove_wake(&prove_threads[prove_self], PROVE_THREADS); /* who joins it */
    turn(true);
    abort(); /* nobody comes back to who has ended */
}

static void begin_thread(void)
{
    prove_thread *t = &prove_threads[prove_self];
    while (tells) {
        add("        it has not begun\n");
        swapcontext(&t->context, &telling);
    }
    t->fn(t->arg);
    if (prove_self == 0) {
        prove_self = -1;
        setcontext(&prover);
    }
    prove_leave(PROVE_OVER);
}

static void make(int thread, void (*fn)(void *), void *arg)
{
    prove_thread *t = &prove_threads[thread];
    t->tls = tls[thread];
    memset(t->tls, 0, TLS);
    t->fn = fn;
    t->arg = arg;
    t->state = PROVE_ABLE;
    t->process = 0;
    t->waits_on = NULL;
    t->until = WEIR_FOREVER;
    getcontext(&t->context);
    t->context.uc_stack.ss_sp = stacks[thread];
    t->context.uc_stack.ss_size = STACK;
    t->context.uc_link = NULL;
    makecontext(&t->context, begin_thread, 0);
}

int prove_spawn(void (*fn)(void *), void *arg)
{
    return prove_spawn_in(prove_threads[prove_self].process, fn, arg);
}

int prove_spawn_in(int process, void (*fn)(void *), void *arg)
{
    for (int i = 1; i < PROVE_THREADS; i++) {
        if (prove_threads[i].state != PROVE_NONE)
            continue;
        make(i, fn, arg);
        prove_threads[i].process = process;
        prove_memory_spawn(prove_self, i);
        prove_point();
        return i;
    }
    prove_fail("more than %d threads", PROVE_THREADS);
}

void prove_join(int thread)
{
    prove_thread *t = &prove_threads[thread];
    while (t->state != PROVE_OVER && t->state != PROVE_DEAD)
        prove_wait(t, WEIR_FOREVER);
    prove_memory_join(prove_self, thread);
    t->state = PROVE_NONE;
}

static void run_body(void *arg)
{
    (void)arg;
    body();
    for (int i = 1; i < PROVE_THREADS; i++)
        if (prove_threads[i].state == PROVE_ABLE || prove_threads[i].state == PROVE_WAITS)
            prove_fail("the body has ended, and thread %d has not", i);
    prove_locks_check(0);
    prove_files_check();
    prove_names_check();
    prove_heap_check();
}

bool prove_run(void (*fn)(void))
{
    for (int i = 0; i < PROVE_THREADS; i++)
        prove_threads[i].state = PROVE_NONE;
    if (TLS > TLS_MAX)
        abort();
    memset(__start_weir_tls, 0, TLS);
    body = fn;
    has_failed = time_stands_still = false;
    points = alone = stalls = 0;
    prove_time = 1000 * WEIR_SECOND;
    prove_self = -1;
    prove_statics_begin();
    prove_memory_begin();
    prove_heap_begin();
    prove_records_begin();
    prove_files_begin();
    prove_disk_begin();
    prove_names_begin();
    prove_processes_begin();
    prove_locks_begin();
    make(0, run_body, NULL);
    prove_memory_spawn(-1, 0);
    volatile bool is_back = false;
    getcontext(&prover);
    if (!is_back) {
        is_back = true;
        memcpy(__start_weir_tls, prove_threads[0].tls, TLS);
        prove_self = 0;
        setcontext(&prove_threads[0].context);
    }
    prove_self = -1;
    prove_processes_drop();
    prove_files_drop();
    prove_names_drop();
    prove_heap_drop();
    return !has_failed;
}
