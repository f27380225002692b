/* alloc.c - see alloc.h. */
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

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

void *weir__calloc_line(size_t size)
{
    size = (size + WEIR__LINE - 1) / WEIR__LINE * WEIR__LINE; /* aligned_alloc asks for that */
    void *p = fails() ? NULL : aligned_alloc(WEIR__LINE, size);
    return p ? memset(p, 0, size) : NULL;
}

void weir__free(void *p)
{
    free(p);
}
