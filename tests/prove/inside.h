/* inside.h - what the parts of the prover share. */
#ifndef WEIR_PROVE_INSIDE_H
#define WEIR_PROVE_INSIDE_H

#include "prove.h"

#include <string.h>
#include <ucontext.h>

/* What the prover copies is none of what the code copies (hooks.c). */
void *__real_memcpy(void *to, const void *from, size_t n);
void *__real_memmove(void *to, const void *from, size_t n);
void *__real_memset(void *to, int with, size_t n);
#define memcpy  __real_memcpy
#define memmove __real_memmove
#define memset  __real_memset

/* The section of thread-local variables. */
extern char __start_weir_tls[], __stop_weir_tls[];

typedef uint32_t prove_clock[PROVE_THREADS];

/* ---- choose.c: choices ------------------------------------------------------------------------ */

typedef enum prove_strategy {
    PROVE_RANDOM, /* each choice is another one with some probability */
    PROVE_PCT,    /* priorities, changed at `depth` points (Burckhardt et al., ASPLOS 2010) */
    PROVE_SEARCH, /* all runs with at most `depth` choices that are not the first, each once */
    PROVE_REPLAY,
} prove_strategy;

typedef struct prove_choice {
    uint32_t at; /* the how-manieth choice of the run */
    uint8_t took, of;
} prove_choice;

#define PROVE_TURNS 512 /* choices that are not the first, in a run that is repeated */

void prove_choose_begin(prove_strategy strategy, uint64_t seed, unsigned depth);
bool prove_search_next(void); /* false: all have been tried */
/* A run of one schedule (0: the first ways), in which who may be killed is, where that is possible for the
 * death_at-th time; and how many such points the last run came to. */
void prove_choose_walk(uint64_t seed, uint32_t death_at);
uint32_t prove_deaths(void);

unsigned prove_choose(unsigned n);
bool prove_choose_rarely(void);
bool prove_choose_death(void); /* of the process that runs */
/* The thread to go on, of those that can; current is among them or -1. */
int prove_choose_thread(const int *able, unsigned n, int current, bool yields);

/* What the run took that was not the first; and the run that takes these. */
size_t prove_turns(prove_choice to[PROVE_TURNS]);
size_t prove_followed(void); /* of the choices of a replay: as many came, and could be taken */
void prove_replay(const prove_choice *turns, size_t n);
uint32_t prove_choices(void);
uint64_t prove_trace(void); /* a sum over the choices of the last run, in their order */

/* ---- fiber.c: threads ------------------------------------------------------------------------- */

typedef enum prove_state {
    PROVE_NONE,
    PROVE_ABLE,
    PROVE_WAITS,
    PROVE_OVER,
    PROVE_DEAD
} prove_state;

typedef struct prove_thread {
    prove_state state;
    ucontext_t context;
    void (*fn)(void *);
    void *arg;
    const void *waits_on; /* a futex word; a thread that is joined; NULL: time */
    weir_time until;      /* WEIR_FOREVER: no deadline */
    bool timed_out;
    int process;         /* that it belongs to; 0: the body's */
    char *tls;           /* its own values of the thread-local variables, while it does not run */
    prove_clock known;   /* what happens before what it does now */
    prove_clock view;    /* stores that it must see, which is more */
    prove_clock pending; /* what relaxed loads have seen, for an acquire fence */
    prove_clock fenced;  /* `known` at the last release fence */
} prove_thread;

extern prove_thread prove_threads[PROVE_THREADS];
extern int prove_self;       /* -1: the prover itself */
extern weir_time prove_time; /* of the clock that the code sees */

/* Runs the body; false: it failed, and prove_error says how. */
bool prove_run(void (*body)(void));
extern char prove_error[8192];

void prove_point(void); /* another thread may go on here */
void prove_point_of_atomic(void);
/* Waits until somebody makes the thread able; true: the deadline came first. */
bool prove_wait(const void *on, weir_time until);
unsigned prove_wake(const void *on, unsigned n);

/* ---- late.c: what a killed process has done out of order ---------------------------------------- */

void prove_late_begin(int thread);
void prove_late_write(void *at, size_t size); /* a plain one is about to be done */
/* An atomic one has been done. */
void prove_late_store(void *at, unsigned size, uint64_t before, bool releases, bool acquires);
void prove_late_point(void); /* before anything else that a thread does */
void prove_late_keep(void);  /* nothing crosses this */
void prove_late_seen(void);  /* another thread goes on */

/* ---- memory.c: what loads see ----------------------------------------------------------------- */

void prove_memory_begin(void);
void prove_memory_spawn(int parent, int child);
void prove_memory_join(int parent, int child);
void prove_memory_fence_all(void); /* membarrier */
/* The newest store of an atomic, which nobody else has seen, has not been. */
void prove_memory_undo(void *at, unsigned size, uint64_t before);
void prove_memory_plain(const void *at, size_t size, bool writes, const void *pc);
void prove_memory_fresh(const void *at, size_t size); /* from the heap, or mapped, just now */
void prove_memory_freed(const void *at, size_t size, const void *pc);
uint32_t prove_memory_tick(void); /* the calling thread's clock, a step later */
void prove_memory_publish(
    prove_clock to); /* what the calling thread knows, for who comes by another way ... */
void prove_memory_learn(
    const prove_clock from); /* ... than memory: a descriptor, a lock of the system */

/* ---- the system as the code sees it: each is told when a run begins and when it has ended; `check` fails the run if
 * something is left that should not be, `drop` is after a failure, too. */

void prove_statics_begin(void);

void prove_heap_begin(void);
void prove_heap_check(void);
void prove_heap_drop(void);
bool prove_heap_is_free(uintptr_t address);
void prove_heap_forget(int process); /* what a dead one had is gone */

void prove_records_begin(void);

void prove_files_begin(void);
void prove_files_check(void);
void prove_files_drop(void);
void prove_files_forget(int process);
void prove_files_give(int fd, int process);
void prove_files_signal(int fd, const prove_clock known); /* readable, by the kernel */
void prove_files_changed(void);                           /* who polls looks again */
bool prove_files_is_of_kernel(const char *path);          /* a file that tells of this machine */
bool prove_files_is_shared(uintptr_t address);            /* by mappings of a file */
uintptr_t prove_files_address(uintptr_t address); /* one and the same for what is mapped twice */

/* disk.c: what is left when the power is cut. */
void prove_disk_begin(void);
void prove_disk_made(int folder, int fd); /* a new name there */

/* names.c: files with a name, locks on bytes of them, and what is static. */
#define PROVE_PATH 256
struct flock;
void prove_names_begin(void);
void prove_names_check(void);
void prove_names_drop(void);
const char *prove_names_path(const char *path, char to[PROVE_PATH]);
int prove_names_lock(int fd, int command, struct flock *lock);
void prove_names_closed(int fd, int process);
void prove_names_ended(const prove_clock known);
void prove_names_switch(int process);
uintptr_t prove_names_address(
    uintptr_t address); /* what is static is another one in each process */

void prove_processes_begin(void);
void prove_processes_drop(void);
void prove_processes_closed(int fd);
void prove_locks_begin(void);
void prove_locks_release(int process); /* it has died */
void prove_locks_check(int process);   /* it ends, and should hold none */

void prove_kill(int process, int signal); /* does not return if it is the caller's */
bool prove_is_mortal(int process);
_Noreturn void prove_leave(prove_state state); /* the calling thread */
int prove_spawn_in(int process, void (*fn)(void *), void *arg);

/* "flow/queue.c:512 settle" */
const char *prove_place(const void *pc, char to[160]);

/* Where the code has been: "place ADDRESS" for each; see hooks.c. */
void prove_show_places(void);

#endif
