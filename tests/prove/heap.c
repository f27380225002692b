/* heap.c - memory from the heap: what is freed stays until the run has ended, so that it is used for nothing else;
 * what was not freed then is a leak.
 */
#include "inside.h"

#include <stdlib.h>

#define BLOCKS 1024

typedef struct block {
    void *at;
    size_t size;
    const void *pc;
    int process;
    bool is_free;
} block;

static block blocks[BLOCKS];
static size_t n_blocks;
static bool may_fail, all_fail;

extern bool (*weir__alloc_fails)(void);

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
    prove_memory_fresh(p, size);
    blocks[n_blocks++] = (block){p, size, pc, prove_threads[prove_self].process, false};
    return p;
}

static block *block_of(const void *p)
{
    for (size_t i = n_blocks; i-- > 0;)
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
    void *p = __real_aligned_alloc(alignment, size);
    if (p && prove_self >= 0)
        memset(p, 0xa5, size);
    return keep(p, size, __builtin_return_address(0));
}

bool prove_heap_is_free(uintptr_t address)
{
    for (size_t i = 0; i < n_blocks; i++)
        if (blocks[i].is_free && address - (uintptr_t)blocks[i].at < blocks[i].size)
            return true;
    return false;
}

static void release(void *p, const void *pc)
{
    char text[160];
    block *b = block_of(p);
    if (!b || b->is_free)
        prove_fail("%s freed %p, which %s", prove_place(pc, text), p,
                   b ? "was freed before" : "was never allocated");
    prove_memory_freed(p, b->size, pc);
    b->is_free = true;
}

void __wrap_free(void *p)
{
    if (prove_self < 0 || !p)
        __real_free(p);
    else
        release(p, __builtin_return_address(0));
}

void *__wrap_realloc(void *old, size_t size)
{
    if (prove_self < 0)
        return __real_realloc(old, size);
    const block *b = old ? block_of(old) : NULL;
    void *p = __wrap_malloc(size);
    if (p && b) {
        memcpy(p, old, b->size < size ? b->size : size);
        release(old, __builtin_return_address(0));
    }
    return p;
}

static bool fails(void)
{
    return prove_self >= 0 && (all_fail || (may_fail && prove_choose_rarely()));
}

void prove_allocations_may_fail(bool may)
{
    may_fail = may;
}

void prove_allocations_fail(bool fail)
{
    all_fail = fail;
}

void prove_heap_begin(void)
{
    n_blocks = 0;
    may_fail = all_fail = false;
    weir__alloc_fails = fails;
}

void prove_heap_check(void)
{
    char text[160];
    for (size_t i = 0; i < n_blocks; i++)
        if (!blocks[i].is_free)
            prove_fail("%zu bytes of %s are never freed", blocks[i].size,
                       prove_place(blocks[i].pc, text));
}

void prove_heap_forget(int process)
{
    for (size_t i = 0; i < n_blocks; i++)
        if (blocks[i].process == process)
            blocks[i].is_free = true;
}

void prove_heap_drop(void)
{
    for (size_t i = 0; i < n_blocks; i++)
        __real_free(blocks[i].at);
    n_blocks = 0;
}
