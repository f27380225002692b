/* alloc.c - see alloc.h. */
#include "base/alloc.h"

#include <stdlib.h>

bool (*weir__alloc_fails)(void);

static bool fails(void)
{
    return weir__alloc_fails && weir__alloc_fails();
}

void *weir__malloc(size_t size)
{
    return fails() ? NULL : malloc(size);
}

void *weir__calloc(size_t n, size_t size)
{
    return fails() ? NULL : calloc(n, size);
}

void *weir__realloc(void *old, size_t size)
{
    return fails() ? NULL : realloc(old, size);
}

void weir__free(void *p)
{
    free(p);
}
