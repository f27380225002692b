/* arena.c - see arena.h. */
#include "exec/arena.h"

#include <string.h>

#include "base/alloc.h"
#include "base/memfd.h"
#include "base/memory.h"

#define PAGE         UINT64_C(4096)
#define SMALLEST     UINT64_C(512)
#define KEEP_ALWAYS  (UINT64_C(16) << 20) /* of freed large memory, for the next */
#define KEEP_AT_MOST (UINT64_C(256) << 20)
#define KEEP_FOR     (2 * WEIR_SECOND)    /* what is more than KEEP_ALWAYS */
#define HUGE_BLOCK   (UINT64_C(16) << 20) /* worth asking first how much memory there is */

/* What is known of a block, in use or free; private memory, never in the shared block itself. */
struct weir__arena_record {
    struct weir__arena_record *next; /* free, or held by somebody */
    uint64_t offset;
    uint64_t size; /* of the block in use */
    void *at;
};

/* A unit that is cut into small blocks, with a record for each block it can hold. */
struct weir__arena_unit {
    struct weir__arena_unit *next;
    void *at;
    struct weir__arena_record blocks[];
};

/* A stretch of address space for one large block, in use or free. */
struct weir__arena_range {
    struct weir__arena_record block; /* first: its address is the range's */
    struct weir__arena_range *next;  /* of all */
    uint64_t space;                  /* bytes of address space, a multiple of UNIT */
    uint64_t populated;              /* bytes taken from the system, a multiple of PAGE */
    uint64_t mapped;                 /* bytes mapped at block.at; while populated it stays */
    weir_time freed;
};

static struct weir__arena_range *range_of(struct weir__arena_record *record)
{
    return (struct weir__arena_range *)record;
}

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
        weir__memfd_unmap(range->block.at, range->mapped);
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
    struct weir__arena_record *record = arena->classes[class].free_list;
    if (record) {
        arena->classes[class].free_list = record->next;
        *ret = (weir__block){record->offset, size, size, record->at, record};
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
    record = arena->classes[class].next_record;
    *record = (struct weir__arena_record){NULL, offset, size, arena->classes[class].next_at};
    *ret = (weir__block){offset, size, size, record->at, record};
    arena->classes[class].next_record = record + 1;
    arena->classes[class].next += size;
    arena->classes[class].next_at = (char *)record->at + size;
    arena->reserved_bytes += size;
    return 0;
}

static void free_small(weir__arena *arena, const weir__block *block)
{
    struct weir__arena_record *record = block->record;
    unsigned class = class_of(block->size);
    record->next = arena->classes[class].free_list;
    arena->classes[class].free_list = record;
}

/* ---- large blocks -------------------------------------------------------------------------- */

/* Whether a free range suits better than another for `size` bytes: one that has them populated,
 * rather than more or less than that. */
static bool suits_better(const struct weir__arena_range *range, uint64_t size,
                         const struct weir__arena_range *than)
{
    if (range->populated == than->populated)
        return range->space < than->space;
    if (range->populated < size || than->populated < size)
        return range->populated > than->populated;
    return range->populated < than->populated;
}

/* The free range that suits best; NULL: none is large enough. */
static struct weir__arena_range *take_range(weir__arena *arena, uint64_t size)
{
    struct weir__arena_record **best = NULL;
    for (struct weir__arena_record **at = &arena->free_ranges; *at; at = &(*at)->next)
        if (range_of(*at)->space >= size &&
            (!best || suits_better(range_of(*at), size, range_of(*best))))
            best = at;
    if (!best)
        return NULL;
    struct weir__arena_range *range = range_of(*best);
    *best = range->block.next;
    arena->kept_bytes -= range->populated;
    return range;
}

static struct weir__arena_range *new_range(weir__arena *arena, uint64_t size)
{
    struct weir__arena_range *range = weir__calloc(1, sizeof *range);
    if (!range)
        return NULL;
    range->block.offset = arena->end;
    range->space = (size + WEIR__UNIT - 1) / WEIR__UNIT * WEIR__UNIT;
    arena->end += range->space;
    range->next = arena->ranges;
    arena->ranges = range;
    return range;
}

/* Brings a range of the caller's to `size` bytes, without the mutex: all with memory, or, unfilled,
 * with memory for what it had before and for the last page, so that the file is long enough. */
static int populate(weir__arena *arena, struct weir__arena_range *range, uint64_t size, bool fill)
{
    int fd = arena->channel->memory_fd;
    uint64_t offset = range->block.offset, had = range->populated;
    if (had > size) {
        weir__memfd_release(fd, offset + size, had - size);
    } else if (had < size) {
        uint64_t from = fill ? had : size - PAGE;
        int rc = weir__memfd_reserve(fd, offset + from, size - from);
        if (rc < 0)
            return rc;
    }
    range->populated = size;
    weir__lock(&arena->mutex);
    arena->reserved_bytes += size - had;
    weir__unlock(&arena->mutex);
    return 0;
}

/* Maps the first `size` bytes of a range of the caller's. */
static int map_range(weir__arena *arena, struct weir__arena_range *range, uint64_t size)
{
    if (range->mapped >= size)
        return 0;
    void *at = weir__memfd_map(arena->channel->memory_fd, range->block.offset, size);
    if (!at)
        return WEIR_ENOMEM;
    weir__memfd_unmap(range->block.at, range->mapped);
    range->block.at = at;
    range->mapped = size;
    return 0;
}

/* Gives the memory of a range of the caller's back. */
static void empty_range(weir__arena *arena, struct weir__arena_range *range)
{
    weir__memfd_unmap(range->block.at, range->mapped);
    range->block.at = NULL;
    range->mapped = 0;
    populate(arena, range, 0, true);
}

/* Back to the free ranges; what may be kept stays populated, and mapped. */
static void put_range(weir__arena *arena, struct weir__arena_range *range, bool filled)
{
    weir__lock(&arena->mutex);
    uint64_t room = arena->keeps_nothing ? 0 : KEEP_AT_MOST - arena->kept_bytes;
    uint64_t keep = filled && range->populated <= room ? range->populated : 0;
    arena->kept_bytes += keep;
    weir__unlock(&arena->mutex);

    range->freed = weir_now();
    if (keep == 0)
        empty_range(arena, range);

    weir__lock(&arena->mutex);
    range->block.next = arena->free_ranges;
    arena->free_ranges = &range->block;
    weir__unlock(&arena->mutex);
}

/* Under the mutex: takes the populated range that was freed first out of the free ones, if that was
 * before `before`; NULL, and *ret_next is when the first one was freed. */
static struct weir__arena_range *take_first_freed(weir__arena *arena, weir_time before,
                                                  weir_time *ret_next)
{
    struct weir__arena_record **first = NULL;
    for (struct weir__arena_record **at = &arena->free_ranges; *at; at = &(*at)->next)
        if (range_of(*at)->populated > 0 &&
            (!first || range_of(*at)->freed < range_of(*first)->freed))
            first = at;
    if (!first || range_of(*first)->freed >= before) {
        *ret_next = first ? range_of(*first)->freed : WEIR_FOREVER;
        return NULL;
    }
    struct weir__arena_range *range = range_of(*first);
    *first = range->block.next;
    arena->kept_bytes -= range->populated;
    return range;
}

/* Gives back what is kept and was freed before `before`, as long as it is more than `keep` bytes.
 * Returns when the first of the rest was freed; WEIR_FOREVER: it is no more than that. */
static weir_time trim(weir__arena *arena, weir_time before, uint64_t keep)
{
    for (;;) {
        weir_time next = WEIR_FOREVER;
        weir__lock(&arena->mutex);
        struct weir__arena_range *range =
            arena->kept_bytes > keep ? take_first_freed(arena, before, &next) : NULL;
        weir__unlock(&arena->mutex);
        if (!range)
            return next;
        empty_range(arena, range);
        weir__lock(&arena->mutex);
        range->block.next = arena->free_ranges;
        arena->free_ranges = &range->block;
        weir__unlock(&arena->mutex);
    }
}

weir_time weir__arena_trim(weir__arena *arena, weir_time now)
{
    weir_time next = trim(arena, now - KEEP_FOR, KEEP_ALWAYS);
    return next == WEIR_FOREVER ? WEIR_FOREVER : next + KEEP_FOR + 1;
}

void weir__arena_keep_nothing(weir__arena *arena)
{
    weir__lock(&arena->mutex);
    arena->keeps_nothing = true;
    weir__unlock(&arena->mutex);
    trim(arena, INT64_MAX, 0);
}

/* Reserving takes page after page: what is not there would take the machine down first. */
static bool is_there(weir__arena *arena, uint64_t size)
{
    if (size > INT64_MAX / 4)
        return false;
    if (size < HUGE_BLOCK || size <= weir__memory_available())
        return true;
    trim(arena, INT64_MAX, 0); /* what is kept counts as taken */
    return size <= weir__memory_available();
}

static int alloc_large(weir__arena *arena, uint64_t size, bool fill, weir__block *ret)
{
    if (!is_there(arena, size))
        return WEIR_ENOSHM;
    size = (size + PAGE - 1) / PAGE * PAGE;
    weir__lock(&arena->mutex);
    struct weir__arena_range *range = take_range(arena, size);
    if (!range)
        range = new_range(arena, size);
    weir__unlock(&arena->mutex);
    if (!range)
        return WEIR_ENOMEM;

    uint64_t had = range->populated;
    int rc = populate(arena, range, size, fill);
    if (rc == 0)
        rc = map_range(arena, range, size);
    uint64_t filled = fill || had > size ? size : had;
    if (rc < 0) {
        put_range(arena, range, range->populated <= filled);
        return rc;
    }
    range->block.size = size;
    *ret = (weir__block){range->block.offset, size, filled, range->block.at, &range->block};
    return 0;
}

static void free_large(weir__arena *arena, const weir__block *block)
{
    put_range(arena, range_of(block->record), block->filled == block->size);
}

/* ---- both ---------------------------------------------------------------------------------- */

static int alloc(weir__arena *arena, uint64_t size, bool fill, weir__block *ret_block)
{
    if (size > WEIR__SMALL_MAX)
        return alloc_large(arena, size, fill, ret_block);
    weir__lock(&arena->mutex);
    int rc = alloc_small(arena, class_of(size), ret_block);
    weir__unlock(&arena->mutex);
    return rc;
}

int weir__arena_alloc(weir__arena *arena, uint64_t size, weir__block *ret_block)
{
    return alloc(arena, size, true, ret_block);
}

int weir__arena_alloc_unfilled(weir__arena *arena, uint64_t size, weir__block *ret_block)
{
    return alloc(arena, size, false, ret_block);
}

int weir__arena_write(weir__arena *arena, weir__block *block, const weir_bytes *parts,
                      size_t n_parts)
{
    if (block->filled == block->size) {
        weir__copy_parts(block->at, parts, n_parts);
        return 0;
    }
    int rc = weir__write_parts(arena->channel->memory_fd, block->offset, parts, n_parts);
    if (rc == 0)
        block->filled = block->size; /* and its last page was there before */
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

void weir__arena_unshare(weir__arena *arena, const weir__block *block)
{
    weir__memfd_remap(arena->channel->memory_fd, block->offset, block->size, block->at, false);
}

bool weir__arena_reshare(weir__arena *arena, const weir__block *block)
{
    return weir__memfd_remap(arena->channel->memory_fd, block->offset, block->size, block->at,
                             true);
}

void weir__arena_hold(weir__holdings *holdings, weir__block *block)
{
    struct weir__arena_record *record = block->record;
    record->next = holdings->first;
    holdings->first = record;
    block->offset = 0;
}

bool weir__arena_unhold(weir__holdings *holdings, uint64_t offset, weir__block *ret_block)
{
    struct weir__arena_record **at = &holdings->first;
    while (*at && (*at)->offset != offset)
        at = &(*at)->next;
    struct weir__arena_record *record = *at;
    if (!record)
        return false;
    *at = record->next;
    *ret_block = (weir__block){offset, record->size, record->size, record->at, record};
    return true;
}

void weir__arena_free_held(weir__arena *arena, weir__holdings *holdings)
{
    weir__block block;
    while (holdings->first && weir__arena_unhold(holdings, holdings->first->offset, &block))
        weir__arena_free(arena, &block);
}

uint64_t weir__arena_reserved(weir__arena *arena)
{
    weir__lock(&arena->mutex);
    uint64_t bytes = arena->reserved_bytes;
    weir__unlock(&arena->mutex);
    return bytes;
}
