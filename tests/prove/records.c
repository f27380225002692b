/* records.c - what objects tell of themselves: a record is memory of the heap here, and not of a file that the runs
 * before have left; or, as long as nobody asks for records, there is none.
 */
#include "inside.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/page.h"

void *__wrap_aligned_alloc(size_t alignment, size_t size);
void __wrap_free(void *p);
weir__page_record *__wrap_weir__page_take(uint64_t kind, const char *kind_name, const char *name);
unsigned __wrap_weir__page_generation(void);
void __wrap_weir__page_give_back(weir__page_record *record);

static bool are_kept;
static unsigned forks;

/* In a run nobody is forked but who says so. */
void prove_records_begin(void)
{
    are_kept = false;
    forks = 0;
}

void prove_keep_records(bool keep)
{
    are_kept = keep;
}

/* Those of the code, which registers them once in each run, and in each process. */
static struct fork_handlers {
    void (*before)(void), (*in_parent)(void), (*in_child)(void);
} handlers[8];
static unsigned n_handlers;

int __wrap_pthread_atfork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void));
int __wrap_pthread_atfork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void))
{
    for (unsigned i = 0; i < n_handlers; i++)
        if (handlers[i].in_child == in_child)
            return 0;
    if (n_handlers == sizeof handlers / sizeof handlers[0])
        abort();
    handlers[n_handlers++] = (struct fork_handlers){before, in_parent, in_child};
    return 0;
}

void prove_be_forked(void)
{
    forks++;
    for (unsigned i = n_handlers; i-- > 0;)
        if (handlers[i].before)
            handlers[i].before();
    for (unsigned i = 0; i < n_handlers; i++)
        if (handlers[i].in_child)
            handlers[i].in_child();
}

unsigned __wrap_weir__page_generation(void)
{
    return forks;
}

weir__page_record *__wrap_weir__page_take(uint64_t kind, const char *kind_name, const char *name)
{
    (void)kind_name, (void)name;
    if (!are_kept)
        return NULL;
    weir__page_record *record = __wrap_aligned_alloc(WEIR__LINE, sizeof *record);
    memset((void *)record, 0, sizeof *record);
    record->kind = kind;
    return record;
}

void __wrap_weir__page_give_back(weir__page_record *record)
{
    __wrap_free(record);
}
