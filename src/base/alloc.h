/* alloc.h - the library's only way to the allocator, so that tests can fail any one call. */
#ifndef WEIR_BASE_ALLOC_H
#define WEIR_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

/* What two threads write at the same time is that far apart: two lines, because CPUs fetch pairs. */
#define WEIR__LINE 128

/* malloc, zeroed calloc and realloc semantics; NULL when there is no memory. */
void *weir__malloc(size_t size);
void *weir__calloc(size_t n, size_t size);
void *weir__realloc(void *old, size_t size);

/* Zeroed, and at the start of a cache line. */
void *weir__calloc_line(size_t size);

void weir__free(void *p);

/* Tests: asked before each allocation; true makes it fail.  Set while one thread runs. */
extern bool (*weir__alloc_fails)(void);

#endif
