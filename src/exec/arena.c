/* arena.c - see arena.h. */
#include "exec/arena.h"

#include <string.h>

#include "base/alloc.h"
#include "base/memfd.h"
#include "base/process.h"

#define PAGE         UINT64_C(4096)
#define SMALLEST     UINT64_C(512)
#define KEEP_AT_MOST (UINT64_C(16) << 20) /* of freed large memory, for the next */
#define HUGE_BLOCK   (UINT64_C(16) << 20) /* worth asking first how much memory there is */

/* A free small block; the descriptor is private memory, never in the shared block itself. */
struct free_block {
    struct free_block *next;
    uint64_t offset;
    void *at;
};

/* A unit that is cut into small blocks, with a descriptor for each block it can hold. */
struct weir__arena_unit {
    struct weir__arena_unit *next;
    void *at;
    struct free_block blocks[];
};

/* A stretch of address space for one large block, in use or free. */
struct weir__arena_range {
    struct weir__arena_range *next;      /* of all */
    struct weir__arena_range *next_free; /* of those not in use */
    uint64_t offset;
    uint64_t space;     /* bytes of address space, a multiple of UNIT */
    uint64_t populated; /* bytes reserved from the system, a multiple of PAGE */
};

void weir__arena_init(weir__arena *arena, weir__channel *channel)
{
    memset(arena, 0, sizeof *arena);
    arena->channel = channel;
    weir__mutex_init(&arena->mutex);
    arena->end = channel->header->arena_offset;
}

void weir__arena_fini(weir__arena *arena)
{
    for (struct weir__arena_unit *unit = arena->units, *next; unit; unit = next) {
        next = unit->next;
        weir__memfd_unmap(unit->at, WEIR__UNIT);
        weir__free(unit);
    }
    for (struct weir__arena_range *range = arena->ranges, *next; range; range = next) {
        next = range->next;
        weir__free(range);
    }
    weir__mutex_fini(&arena->mutex);
}

/* ---- small blocks -------------------------------------------------------------------------- */

static unsigned class_of(uint64_t size)
{
    unsigned class = 0;
    while ((SMALLEST << class) < size)
        class ++;
    return class;
}

static int add_unit(weir__arena *arena, unsigned class)
{
    uint64_t n = WEIR__UNIT / (SMALLEST << class);
    struct weir__arena_unit *unit = weir__malloc(sizeof *unit + n * sizeof unit->blocks[0]);
    if (!unit)
        return WEIR_ENOMEM;
    unit->at = weir__memfd_map(arena->channel->memory_fd, arena->end, WEIR__UNIT);
    if (!unit->at) {
        weir__free(unit);
        return WEIR_ENOMEM;
    }
    unit->next = arena->units;
    arena->units = unit;
    arena->classes[class].next = arena->end;
    arena->classes[class].stop = arena->end + WEIR__UNIT;
    arena->classes[class].next_at = unit->at;
    arena->classes[class].next_record = unit->blocks;
    arena->end += WEIR__UNIT;
    return 0;
}

static int alloc_small(weir__arena *arena, unsigned class, weir__block *ret)
{
    uint64_t size = SMALLEST << class;
    struct free_block *free = arena->classes[class].free_list;
    if (free) {
        arena->classes[class].free_list = free->next;
        *ret = (weir__block){free->offset, size, free->at, free};
        return 0;
    }
    if (arena->classes[class].next == arena->classes[class].stop) {
        int rc = add_unit(arena, class);
        if (rc < 0)
            return rc;
    }
    uint64_t offset = arena->classes[class].next;
    int rc = weir__memfd_reserve(arena->channel->memory_fd, offset, size);
    if (rc < 0)
        return rc;
    struct free_block *record = arena->classes[class].next_record;
    *ret = (weir__block){offset, size, arena->classes[class].next_at, record};
    arena->classes[class].next_record = record + 1;
    arena->classes[class].next += size;
    arena->classes[class].next_at = (char *)ret->at + size;
    arena->reserved_bytes += size;
    return 0;
}

static void free_small(weir__arena *arena, const weir__block *block)
{
    unsigned class = class_of(block->size);
    struct free_block *free = block->record;
    free->offset = block->offset;
    free->at = block->at;
    free->next = arena->classes[class].free_list;
    arena->classes[class].free_list = free;
}

/* ---- large blocks -------------------------------------------------------------------------- */

/* The free range that fits best: enough address space, most of it populated. */
static struct weir__arena_range *take_range(weir__arena *arena, uint64_t size)
{
    struct weir__arena_range **best = NULL;
    for (struct weir__arena_range **at = &arena->free_ranges; *at; at = &(*at)->next_free)
        if ((*at)->space >= size && (!best || (*at)->populated > (*best)->populated))
            best = at;
    if (!best)
        return NULL;
    struct weir__arena_range *range = *best;
    *best = range->next_free;
    arena->kept_bytes -= range->populated;
    return range;
}

static struct weir__arena_range *new_range(weir__arena *arena, uint64_t size)
{
    struct weir__arena_range *range = weir__malloc(sizeof *range);
    if (!range)
        return NULL;
    range->offset = arena->end;
    range->space = (size + WEIR__UNIT - 1) / WEIR__UNIT * WEIR__UNIT;
    range->populated = 0;
    arena->end += range->space;
    range->next = arena->ranges;
    arena->ranges = range;
    return range;
}

/* Brings a range of the caller's to `size` populated bytes, without the mutex. */
static int populate(weir__arena *arena, struct weir__arena_range *range, uint64_t size)
{
    int fd = arena->channel->memory_fd;
    uint64_t had = range->populated;
    if (had > size) {
        weir__memfd_release(fd, range->offset + size, had - size);
    } else if (had < size) {
        int rc = weir__memfd_reserve(fd, range->offset + had, size - had);
        if (rc < 0)
            return rc;
    }
    range->populated = size;
    weir__lock(&arena->mutex);
    arena->reserved_bytes += size - had;
    weir__unlock(&arena->mutex);
    return 0;
}

/* Back to the free ranges; what KEEP_AT_MOST allows stays populated. */
static void put_range(weir__arena *arena, struct weir__arena_range *range)
{
    weir__lock(&arena->mutex);
    uint64_t room = KEEP_AT_MOST - arena->kept_bytes;
    uint64_t keep = range->populated <= room ? range->populated : 0;
    arena->kept_bytes += keep;
    weir__unlock(&arena->mutex);

    if (keep == 0)
        populate(arena, range, 0);

    weir__lock(&arena->mutex);
    range->next_free = arena->free_ranges;
    arena->free_ranges = range;
    weir__unlock(&arena->mutex);
}

static int alloc_large(weir__arena *arena, uint64_t size, weir__block *ret)
{
    /* Reserving takes page after page: what is not there would take the machine down first. */
    if (size > INT64_MAX / 4 || (size >= HUGE_BLOCK && size > weir__memory_available()))
        return WEIR_ENOSHM;
    size = (size + PAGE - 1) / PAGE * PAGE;
    weir__lock(&arena->mutex);
    struct weir__arena_range *range = take_range(arena, size);
    if (!range)
        range = new_range(arena, size);
    weir__unlock(&arena->mutex);
    if (!range)
        return WEIR_ENOMEM;

    int rc = populate(arena, range, size);
    void *at = rc == 0 ? weir__memfd_map(arena->channel->memory_fd, range->offset, size) : NULL;
    if (!at) {
        put_range(arena, range);
        return rc < 0 ? rc : WEIR_ENOMEM;
    }
    *ret = (weir__block){range->offset, size, at, range};
    return 0;
}

static void free_large(weir__arena *arena, const weir__block *block)
{
    weir__memfd_unmap(block->at, block->size);
    put_range(arena, block->record);
}

/* ---- both ---------------------------------------------------------------------------------- */

int weir__arena_alloc(weir__arena *arena, uint64_t size, weir__block *ret_block)
{
    if (size > WEIR__SMALL_MAX)
        return alloc_large(arena, size, ret_block);
    weir__lock(&arena->mutex);
    int rc = alloc_small(arena, class_of(size), ret_block);
    weir__unlock(&arena->mutex);
    return rc;
}

void weir__arena_free(weir__arena *arena, weir__block *block)
{
    if (block->offset == 0)
        return;
    if (block->size > WEIR__SMALL_MAX) {
        free_large(arena, block);
    } else {
        weir__lock(&arena->mutex);
        free_small(arena, block);
        weir__unlock(&arena->mutex);
    }
    block->offset = 0;
}

uint64_t weir__arena_reserved(weir__arena *arena)
{
    weir__lock(&arena->mutex);
    uint64_t bytes = arena->reserved_bytes;
    weir__unlock(&arena->mutex);
    return bytes;
}
