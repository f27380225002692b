/* world.c - the system as the code under proof sees it: memory from the heap, a clock, futexes, threads.
 *
 * By the linker's --wrap.  What a case does not need is the real one, or refused.
 */
#include "inside.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BLOCKS 512
#define TICK   100 /* ns that a look at the clock takes */

typedef struct block {
    void *at;
    size_t size;
    const void *pc;
    bool is_free;
} block;

static block blocks[BLOCKS];
static size_t n_blocks;

/* ---- the heap: what is freed stays until the run has ended, so that it is not used for something else ------- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__real_realloc(void *old, size_t size);
void __real_free(void *p);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void *__wrap_realloc(void *old, size_t size);
void __wrap_free(void *p);

static void *keep(void *p, size_t size, const void *pc)
{
    if (prove_self < 0 || !p)
        return p;
    if (n_blocks == BLOCKS)
        prove_fail("the case allocates more than %d times", BLOCKS);
    blocks[n_blocks++] = (block){p, size, pc, false};
    prove_memory_plain(p, size, true, pc);
    return p;
}

static block *block_of(const void *p)
{
    for (size_t i = 0; i < n_blocks; i++)
        if (blocks[i].at == p)
            return &blocks[i];
    return NULL;
}

void *__wrap_malloc(size_t size)
{
    void *p = __real_malloc(size);
    if (p && prove_self >= 0)
        memset(p, 0xa5, size);
    return keep(p, size, __builtin_return_address(0));
}

void *__wrap_calloc(size_t n, size_t size)
{
    return keep(__real_calloc(n, size), n * size, __builtin_return_address(0));
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return keep(__real_aligned_alloc(alignment, size), size, __builtin_return_address(0));
}

void __wrap_free(void *p)
{
    char text[160];
    block *b = p ? block_of(p) : NULL;
    if (prove_self < 0 || !p) {
        __real_free(p);
        return;
    }
    if (!b || b->is_free)
        prove_fail("%s freed %p, which %s", prove_place(__builtin_return_address(0), text), p,
                   b ? "was freed before" : "was never allocated");
    prove_memory_freed(p, b->size, __builtin_return_address(0));
    b->is_free = true;
}

void *__wrap_realloc(void *old, size_t size)
{
    if (prove_self < 0)
        return __real_realloc(old, size);
    const block *b = old ? block_of(old) : NULL;
    void *p = __wrap_malloc(size);
    if (p && b) {
        memcpy(p, old, b->size < size ? b->size : size);
        __wrap_free(old);
    }
    return p;
}

void prove_world_begin(void)
{
    n_blocks = 0;
}

void prove_world_end(void)
{
    char text[160];
    for (size_t i = 0; i < n_blocks; i++)
        if (!blocks[i].is_free)
            prove_fail("%zu bytes of %s are never freed", blocks[i].size,
                       prove_place(blocks[i].pc, text));
}

void prove_world_drop(void)
{
    for (size_t i = 0; i < n_blocks; i++)
        __real_free(blocks[i].at);
    n_blocks = 0;
}

/* ---- time ------------------------------------------------------------------------------------- */

int __real_clock_gettime(clockid_t clock, struct timespec *to);
int __wrap_clock_gettime(clockid_t clock, struct timespec *to);
int __wrap_clock_gettime(clockid_t clock, struct timespec *to)
{
    if (prove_self < 0)
        return __real_clock_gettime(clock, to);
    prove_time += TICK;
    *to = (struct timespec){.tv_sec = prove_time / WEIR_SECOND, .tv_nsec = prove_time % WEIR_SECOND};
    return 0;
}

int __real_sched_yield(void);
int __wrap_sched_yield(void);
int __wrap_sched_yield(void)
{
    if (prove_self < 0)
        return __real_sched_yield();
    prove_yield();
    return 0;
}

/* Two CPUs, so that the code takes the ways of several. */
int __real_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set);
int __wrap_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set);
int __wrap_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set)
{
    (void)pid;
    CPU_ZERO_S(size, set);
    CPU_SET_S(0, size, set);
    CPU_SET_S(1, size, set);
    return 0;
}

/* ---- futexes ---------------------------------------------------------------------------------- */

static weir_time time_of(const struct timespec *ts)
{
    return ts ? ts->tv_sec * WEIR_SECOND + ts->tv_nsec : WEIR_FOREVER;
}

/* The kernel looks at the newest value, and between the look and the sleep nobody can wake. */
static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *until)
{
    prove_point();
    switch (op & ~FUTEX_PRIVATE_FLAG) {
    case FUTEX_WAIT_BITSET:
        if (*word != value) {
            errno = EAGAIN;
            return -1;
        }
        if (!prove_wait(word, time_of(until)))
            return 0;
        errno = ETIMEDOUT;
        return -1;
    case FUTEX_WAKE: return prove_wake(word, value);
    default: prove_fail("a futex operation that is not modelled: %d", op);
    }
}

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list args;
    va_start(args, number);
    uint32_t *word = va_arg(args, uint32_t *);
    int op = va_arg(args, int);
    uint32_t value = va_arg(args, uint32_t);
    const struct timespec *until = va_arg(args, const struct timespec *);
    va_end(args);
    if (prove_self < 0)
        return 0; /* destructors; nobody sleeps */
    if (number == SYS_futex)
        return futex(word, op, value, until);
    if (number == SYS_membarrier) {
        prove_point();
        prove_memory_fence_all();
        return 0;
    }
    prove_fail("a system call that is not modelled: %ld", number);
}

/* ---- asserts ---------------------------------------------------------------------------------- */

_Noreturn void __wrap___assert_fail(const char *what, const char *file, unsigned line,
                                    const char *function);
_Noreturn void __wrap___assert_fail(const char *what, const char *file, unsigned line,
                                    const char *function)
{
    prove_fail("%s:%u: %s: assert(%s)", file, line, function, what);
}

/* ---- places ----------------------------------------------------------------------------------- */

/* By addr2line, once for each failure that is shown. */
const char *prove_place(const void *pc, char to[160])
{
    char command[256], function[64] = "", line[160] = "";
    to[0] = '\0';
    snprintf(command, sizeof command, "addr2line -fsi -e /proc/%d/exe %p 2>/dev/null", getpid(), pc);
    FILE *f = popen(command, "r");
    if (!f)
        return to;
    if (fscanf(f, "%63s %159s", function, line) == 2 && line[0] != '?')
        snprintf(to, 160, "%.80s %.60s", line, function);
    pclose(f);
    return to;
}
