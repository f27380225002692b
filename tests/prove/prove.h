/* prove.h - runs the code of weir under every order of events that can be thought of, not those that happen.
 *
 * The code is compiled as it is, with the compiler's hooks for ThreadSanitizer (gcc -fsanitize=thread), but what it
 * is linked with is this: each access to memory, each atomic with its memory order, and each system call of it
 * comes here.  Threads are fibers of one thread; which one goes on, which of the values that the memory model allows
 * a load sees, whether an allocation fails, whether time has passed: each is one choice, and a run is the list of
 * its choices.  So a failure can be repeated, and is made shorter before it is shown.
 *
 * What a case writes: a body, which spawns threads, lets them work, joins them, and claims what must hold.
 * What every run is checked for beside that: data races, use of freed memory, leaks, threads that nobody will
 * ever wake, asserts.
 */
#ifndef WEIR_PROVE_H
#define WEIR_PROVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weir/base.h>

#define PROVE_THREADS 8 /* with the body's own */

typedef struct prove_case {
    const char *name;
    const char *claim; /* what is shown, in a sentence */
    void (*body)(void);
} prove_case;

/* ---- for bodies ------------------------------------------------------------------------------- */

/* Starts a thread; the number to join it by.  All are joined before the body returns. */
int prove_spawn(void (*fn)(void *arg), void *arg);
void prove_join(int thread);

/* The run fails unless it holds. */
#define prove_claim(holds)                                                                         \
    ((holds) ? (void)0 : prove_fail("%s:%d: claimed: %s", __FILE__, __LINE__, #holds))

#define prove_same(a, b) prove_same_at((int64_t)(a), (int64_t)(b), __FILE__, __LINE__, #a " == " #b)

static inline void prove_same_at(int64_t a, int64_t b, const char *file, int line,
                                 const char *what);

/* Ends the run, which has failed. */
_Noreturn void prove_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline void prove_same_at(int64_t a, int64_t b, const char *file, int line, const char *what)
{
    if (a != b)
        prove_fail("%s:%d: claimed: %s; it is %lld, not %lld", file, line, what, (long long)a,
                   (long long)b);
}

/* Where another thread may go on. */
void prove_yield(void);

/* The same, for as long as others can: what a loop does that waits for something without being woken. */
void prove_pause(void);

/* One of n, from 0: what the body leaves open.  0 is what is tried first. */
unsigned prove_pick(unsigned n);

/* From now on a deadline passes only when nobody can go on: so a case can claim that nothing had to wait for one. */
void prove_let_time_stand_still(void);

/* From now on nothing is left open: who goes on goes on, and nobody dies.  For what a case needs before the moment that
 * it is about, and after it: so that moment is searched the more deeply. */
void prove_take_first_ways(bool only);

/* For what ends things, a failure of the disk, say: seldom true. */
bool prove_rarely(void);

/* Allocations of the code, by weir__malloc and so on, may fail from now on, or not. */
void prove_allocations_may_fail(bool may);
void prove_allocations_fail(bool fail); /* each of them */

/* How often nobody could go on before time had passed.  Where nobody waits for a time, and nobody was killed, a wake-up
 * was lost then which a timeout made good. */
unsigned prove_stalls(void);

/* Objects that are made from now on have records, for others to see.  In the beginning of a run none has. */
void prove_keep_records(bool keep);

/* All that comes is in a child of fork, as far as records and names go: the code's handlers of fork are called. */
void prove_be_forked(void);

/* A process: a thread to begin with, and its own pid.  What is static in a case is shared with the body's process;
 * mappings of one file are one memory.  If it may die it is killed at any of its points: what it holds stays as it is, but
 * for what the kernel takes back. */
int prove_start_process(void (*fn)(void *arg), void *arg, bool may_die); /* its pid */
bool prove_process_was_killed(int pid);
void prove_process_wait(int pid); /* until it has ended, however */
void prove_process_wait_all(void);
int prove_inherit(int fd); /* a copy of the descriptor, of the process that is started next */

/* How many names there are in /dev/shm, as the code sees it; none is left when the body ends. */
unsigned prove_names(void);

/* Copies what would be left of a folder, were the power cut now, into another one, which is emptied: what was synced, and of
 * what was not, or has no name yet, whatever is chosen. */
void prove_cut_power(const char *folder, const char *left);

/* ---- histories -------------------------------------------------------------------------------- */

/* What calls did, each with when it began and ended; then whether some order of them is one that a sequential model
 * allows (Herlihy and Wing, "Linearizability", 1990).  A call comes before another one if its end happens before
 * the other's beginning: by a clock alone nobody can tell, for what a CPU has stored others see later. */
typedef struct prove_call {
    int what;
    int64_t arg, result;
    uint64_t began, ended; /* 0: it has not */
    int thread, ended_by;  /* the one that began it; it may end on another one, which calls back */
    uint32_t known[PROVE_THREADS],
        end; /* by the clocks of the threads: what happens before it; its end */
} prove_call;

typedef struct prove_model {
    size_t size; /* of a state, <= PROVE_STATE; begins as zeros */
    bool (*apply)(void *state,
                  const prove_call *call); /* whether the call could have had this result */
    const char *(*text)(const prove_call *call, char to[96]);
} prove_model;

#define PROVE_STATE 128
#define PROVE_CALLS 24

size_t prove_begin(int what, int64_t arg); /* the number to end it by */
void prove_end(size_t call, int64_t result);
void prove_linearizable(const prove_model *model); /* fails the run if not */

/* ---- the cases -------------------------------------------------------------------------------- */

/* A case of a file of cases/: it is run by that alone. */
#define PROVE_CASE(fn, says)                                                                       \
    static const prove_case case_of_##fn = {#fn, says, fn};                                        \
    __attribute__((used, section("prove_cases"))) static const prove_case *const at_##fn =         \
        &case_of_##fn

#endif
