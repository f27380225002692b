/* hooks.c - what the compiler calls instead of the ThreadSanitizer's run-time library. */
#include "inside.h"

#include <stdio.h>
#include <string.h>

uint64_t prove_load(const volatile void *at, unsigned size, int order, const void *pc);
void prove_store(volatile void *at, unsigned size, uint64_t value, int order, const void *pc);
uint64_t prove_change(volatile void *at, unsigned size, uint64_t (*f)(uint64_t, uint64_t),
                      uint64_t arg, int order, const void *pc);
bool prove_exchange_if(volatile void *at, unsigned size, uint64_t *expected, uint64_t value,
                       int order, int or_else, bool weak, const void *pc);
void prove_fence(int order);

#define PC __builtin_return_address(0)

static void plain(const void *at, size_t size, bool writes, const void *pc)
{
    prove_memory_plain(at, size, writes, pc);
    if (writes)
        prove_late_write((void *)(uintptr_t)at, size);
}

#define PLAIN(name, size, writes)                                                                  \
    void name(const void *at);                                                                     \
    void name(const void *at)                                                                      \
    {                                                                                              \
        plain(at, size, writes, PC);                                                               \
    }
#define PLAINS(size)                                                                               \
    PLAIN(__tsan_read##size, size, false)                                                          \
    PLAIN(__tsan_write##size, size, true)                                                          \
    PLAIN(__tsan_unaligned_read##size, size, false)                                                \
    PLAIN(__tsan_unaligned_write##size, size, true)                                                \
    PLAIN(__tsan_volatile_read##size, size, false)                                                 \
    PLAIN(__tsan_volatile_write##size, size, true)
PLAINS(1)
PLAINS(2)
PLAINS(4)
PLAINS(8)
PLAINS(16)

void __tsan_read_range(const void *at, unsigned long size);
void __tsan_read_range(const void *at, unsigned long size)
{
    prove_memory_plain(at, size, false, PC);
}

void __tsan_write_range(const void *at, unsigned long size);
void __tsan_write_range(const void *at, unsigned long size)
{
    plain(at, size, true, PC);
}

void __tsan_init(void);
void __tsan_init(void) {}

void __tsan_func_entry(const void *pc);
void __tsan_func_entry(const void *pc)
{
    (void)pc;
}

void __tsan_func_exit(const void *pc);
void __tsan_func_exit(const void *pc)
{
    (void)pc;
}

static uint64_t f_exchange(uint64_t old, uint64_t arg)
{
    (void)old;
    return arg;
}
static uint64_t f_fetch_add(uint64_t old, uint64_t arg)
{
    return old + arg;
}
static uint64_t f_fetch_sub(uint64_t old, uint64_t arg)
{
    return old - arg;
}
static uint64_t f_fetch_and(uint64_t old, uint64_t arg)
{
    return old & arg;
}
static uint64_t f_fetch_or(uint64_t old, uint64_t arg)
{
    return old | arg;
}
static uint64_t f_fetch_xor(uint64_t old, uint64_t arg)
{
    return old ^ arg;
}

#define CHANGE(bits, name)                                                                         \
    uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t *, uint##bits##_t, int);   \
    uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t *at, uint##bits##_t arg,   \
                                                int order)                                         \
    {                                                                                              \
        return (uint##bits##_t)prove_change(at, bits / 8, f_##name, arg, order, PC);               \
    }
#define EXCHANGE_IF(bits, kind, weak)                                                              \
    int __tsan_atomic##bits##_compare_exchange_##kind(volatile uint##bits##_t *, uint##bits##_t *, \
                                                      uint##bits##_t, int, int);                   \
    int __tsan_atomic##bits##_compare_exchange_##kind(                                             \
        volatile uint##bits##_t *at, uint##bits##_t *expected, uint##bits##_t value, int order,    \
        int or_else)                                                                               \
    {                                                                                              \
        uint64_t was = *expected;                                                                  \
        bool done = prove_exchange_if(at, bits / 8, &was, value, order, or_else, weak, PC);        \
        *expected = (uint##bits##_t)was;                                                           \
        return done;                                                                               \
    }
#define ATOMICS(bits)                                                                              \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *, int);               \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *at, int order)        \
    {                                                                                              \
        return (uint##bits##_t)prove_load(at, bits / 8, order, PC);                                \
    }                                                                                              \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *, uint##bits##_t, int);              \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *at, uint##bits##_t value, int order) \
    {                                                                                              \
        prove_store(at, bits / 8, value, order, PC);                                               \
    }                                                                                              \
    CHANGE(bits, exchange)                                                                         \
    CHANGE(bits, fetch_add)                                                                        \
    CHANGE(bits, fetch_sub)                                                                        \
    CHANGE(bits, fetch_and)                                                                        \
    CHANGE(bits, fetch_or)                                                                         \
    CHANGE(bits, fetch_xor)                                                                        \
    EXCHANGE_IF(bits, strong, false)                                                               \
    EXCHANGE_IF(bits, weak, true)
ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)

void __tsan_atomic_thread_fence(int order);
void __tsan_atomic_thread_fence(int order)
{
    prove_fence(order);
}

void __tsan_atomic_signal_fence(int order);
void __tsan_atomic_signal_fence(int order)
{
    if (prove_self >= 0 && order != __ATOMIC_RELAXED)
        prove_late_keep();
}

/* ---- where the code has been: only if it was compiled with -fsanitize-coverage=trace-pc --------------- */

#define CODE_MAX ((size_t)1 << 22)

extern char __executable_start[];
static uint8_t been[CODE_MAX]; /* by distance from the first byte of the program */

void __sanitizer_cov_trace_pc(void);
__attribute__((no_sanitize_coverage)) void __sanitizer_cov_trace_pc(void)
{
    size_t at = (size_t)((char *)PC - __executable_start);
    if (at < CODE_MAX)
        been[at] = 1;
}

void prove_show_places(void)
{
    for (size_t at = 0; at < CODE_MAX; at++) {
        if (been[at])
            printf("place %p\n", (void *)(__executable_start + at - 1)); /* within the call */
    }
}

/* Of what is large, samples: whole words, of the same places whoever looks. */
static void plain_range(const void *at, size_t n, bool writes, const void *pc)
{
    enum { SMALL = 1024, EVERY = 1024 };
    uintptr_t first = (uintptr_t)at, end = first + n;
    if (n <= SMALL) {
        plain(at, n, writes, pc);
        return;
    }
    if (writes)
        prove_late_write((void *)first, n);
    for (uintptr_t word = (first + EVERY - 1) / EVERY * EVERY; word + 8 <= end; word += EVERY)
        prove_memory_plain((const void *)word, 8, writes, pc);
    prove_memory_plain(at, 8, writes, pc);
}

/* Of libc, by the linker's --wrap. */
void *__wrap_memcpy(void *to, const void *from, size_t n);
void *__wrap_memcpy(void *to, const void *from, size_t n)
{
    plain_range(from, n, false, PC);
    plain_range(to, n, true, PC);
    return __real_memcpy(to, from, n);
}

void *__wrap_memmove(void *to, const void *from, size_t n);
void *__wrap_memmove(void *to, const void *from, size_t n)
{
    plain_range(from, n, false, PC);
    plain_range(to, n, true, PC);
    return __real_memmove(to, from, n);
}

void *__wrap_memset(void *to, int with, size_t n);
void *__wrap_memset(void *to, int with, size_t n)
{
    plain_range(to, n, true, PC);
    return __real_memset(to, with, n);
}
