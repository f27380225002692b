/* exec/arena.h: blocks of each size, what is kept, what is given back. */
#include "fault/faults.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "exec/arena.h"

#define MIB  (UINT64_C(1) << 20)
#define KEPT (256 * MIB) /* of freed large memory */

static weir__channel channel;
static weir__arena arena;

static int begin(void **state)
{
    (void)state;
    if (weir__channel_create(&channel, 1) < 0)
        return -1;
    weir__arena_init(&arena, &channel);
    return 0;
}

static int end(void **state)
{
    (void)state;
    weir__arena_fini(&arena);
    weir__channel_fini(&channel);
    return 0;
}

static weir__block alloc(uint64_t size)
{
    weir__block block = {0};
    assert_int_equal(weir__arena_alloc(&arena, size, &block), 0);
    assert_true(block.size >= size);
    assert_true(block.offset >= channel.header->arena_offset && block.offset % 512 == 0);
    return block;
}

/* What the system has given for the file, all of it. */
static uint64_t file_memory(void)
{
    struct stat st;
    must(fstat(channel.memory_fd, &st) == 0);
    return (uint64_t)st.st_blocks * 512;
}

static void blocks_come_in_powers_of_two_and_above_that_in_pages(void **state)
{
    (void)state;
    static const struct {
        uint64_t asked, got;
    } sizes[] = {{0, 512},
                 {1, 512},
                 {193, 512},
                 {512, 512},
                 {513, 1024},
                 {4097, 8192},
                 {131073, 262144},
                 {262144, 262144},
                 {262145, 266240},
                 {MIB, MIB},
                 {MIB + 1, MIB + 4096},
                 {4 * MIB, 4 * MIB},
                 {4 * MIB + 1, 4 * MIB + 4096}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        weir__block block = alloc(sizes[i].asked);
        assert_int_equal(block.size, sizes[i].got);
        memset(block.at, 0xa5, sizes[i].got); /* reserved: no SIGBUS */
        weir__arena_free(&arena, &block);
        assert_int_equal(block.offset, 0);
    }
}

static void freeing_no_block_does_nothing(void **state)
{
    (void)state;
    weir__block none = {0};
    weir__arena_free(&arena, &none);
    assert_int_equal(weir__arena_reserved(&arena), 0);
}

static void small_blocks_are_used_again(void **state)
{
    (void)state;
    for (uint64_t size = 1; size <= WEIR__SMALL_MAX; size *= 3) {
        weir__block first = alloc(size), second = alloc(size);
        uint64_t offset = first.offset, reserved = weir__arena_reserved(&arena);
        assert_true(first.offset != second.offset);
        weir__arena_free(&arena, &first);
        for (int i = 0; i < 100; i++) {
            weir__block again = alloc(size);
            assert_int_equal(again.offset, offset);
            weir__arena_free(&arena, &again);
        }
        assert_int_equal(weir__arena_reserved(&arena), reserved);
        weir__arena_free(&arena, &second);
    }
}

static void small_blocks_take_memory_as_they_are_first_used(void **state)
{
    (void)state;
    alloc(512);
    assert_int_equal(weir__arena_reserved(&arena), 512); /* not a unit */
    alloc(200000);
    assert_int_equal(weir__arena_reserved(&arena), 512 + 262144);
}

static void address_space_of_large_blocks_is_used_again(void **state)
{
    (void)state;
    weir__block block = alloc(5 * MIB);
    uint64_t end_then = arena.end;
    for (int i = 0; i < 200; i++) {
        weir__arena_free(&arena, &block);
        block = alloc(MIB + (uint64_t)i % 7 * MIB + (uint64_t)i * 4096 % MIB);
        memset(block.at, i, block.size);
    }
    assert_true(arena.end <= end_then + 8 * MIB); /* one range each of 8 and of 12 MiB at most */
}

static void a_little_large_memory_is_kept_for_the_next(void **state)
{
    (void)state;
    weir__block block = alloc(10 * MIB);
    assert_int_equal(weir__arena_reserved(&arena), 10 * MIB);
    weir__arena_free(&arena, &block);
    assert_int_equal(weir__arena_reserved(&arena), 10 * MIB); /* kept */
    block = alloc(9 * MIB);
    assert_int_equal(weir__arena_reserved(&arena), 9 * MIB); /* used, and the rest given back */
    weir__arena_free(&arena, &block);
}

static void more_than_16_mib_are_kept_for_two_seconds(void **state)
{
    (void)state;
    uint64_t before = file_memory();
    weir__block blocks[20];
    for (int i = 0; i < 20; i++)
        blocks[i] = alloc(3 * MIB);
    assert_int_equal(weir__arena_reserved(&arena), 60 * MIB);
    weir_time began = weir_now();
    for (int i = 0; i < 20; i++)
        weir__arena_free(&arena, &blocks[i]);
    weir_time ended = weir_now();
    assert_int_equal(weir__arena_reserved(&arena), 60 * MIB);
    weir_time next = weir__arena_trim(&arena, began + 2 * WEIR_SECOND);
    assert_int_equal(weir__arena_reserved(&arena), 60 * MIB);
    assert_in_range(next, began + 2 * WEIR_SECOND, ended + 2 * WEIR_SECOND + 1);
    assert_int_equal(weir__arena_trim(&arena, ended + 3 * WEIR_SECOND), WEIR_FOREVER);
    assert_int_equal(weir__arena_reserved(&arena), 15 * MIB);
    assert_int_equal(file_memory() - before, 15 * MIB); /* the system agrees */
}

static void what_was_used_last_is_kept_longest(void **state)
{
    (void)state;
    weir__block first = alloc(20 * MIB), second = alloc(10 * MIB);
    weir__arena_free(&arena, &first);
    weir_time between = weir_now();
    while (weir_now() == between)
        ;
    weir__arena_free(&arena, &second);
    weir__arena_trim(&arena, between + 2 * WEIR_SECOND + 1);
    assert_int_equal(weir__arena_reserved(&arena), 10 * MIB);
}

static void no_more_than_256_mib_are_kept(void **state)
{
    (void)state;
    weir__block blocks[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(weir__arena_alloc_unfilled(&arena, 100 * MIB, &blocks[i]), 0);
    for (int i = 0; i < 3; i++) {
        blocks[i].filled = blocks[i].size; /* as if: the test need not take so much */
        weir__arena_free(&arena, &blocks[i]);
    }
    assert_int_equal(weir__arena_reserved(&arena), 200 * MIB);
    weir__block huge = alloc(20 * MIB); /* takes one, and gives the rest of it back */
    assert_int_equal(weir__arena_reserved(&arena), 120 * MIB);
    weir__arena_free(&arena, &huge);
    weir__arena_keep_nothing(&arena);
    assert_int_equal(weir__arena_reserved(&arena), 0);
    weir__block late = alloc(MIB);
    weir__arena_free(&arena, &late);
    assert_int_equal(weir__arena_reserved(&arena), 0);
}

static void a_block_takes_the_free_memory_that_fits(void **state)
{
    (void)state;
    weir__block small = alloc(2 * MIB), large = alloc(12 * MIB), middle = alloc(7 * MIB);
    uint64_t offsets[] = {small.offset, large.offset, middle.offset};
    weir__arena_free(&arena, &small);
    weir__arena_free(&arena, &large);
    weir__arena_free(&arena, &middle);
    small = alloc(MIB);
    middle = alloc(6 * MIB);
    large = alloc(12 * MIB);
    assert_int_equal(small.offset, offsets[0]);
    assert_int_equal(large.offset, offsets[1]);
    assert_int_equal(middle.offset, offsets[2]);
}

/* ---- unfilled blocks ---------------------------------------------------------------------------- */

static void an_unfilled_block_takes_memory_as_it_is_written(void **state)
{
    (void)state;
    static unsigned char bytes[3 * MIB + 5];
    memset(bytes, 0x5a, sizeof bytes);
    uint64_t before = file_memory();
    weir__block block = {0};
    assert_int_equal(weir__arena_alloc_unfilled(&arena, sizeof bytes, &block), 0);
    assert_int_equal(block.filled, 0);
    assert_int_equal(weir__arena_reserved(&arena), block.size); /* counted at once */
    assert_true(file_memory() - before <= 4096);
    ((unsigned char *)block.at)[block.size - 1] = 1; /* the file is long enough: no SIGBUS */
    weir_bytes parts[] = {{bytes, 1000}, {NULL, 0}, {bytes + 1000, sizeof bytes - 1000}};
    assert_int_equal(weir__arena_write(&arena, &block, parts, 3), 0);
    assert_memory_equal(block.at, bytes, sizeof bytes);
    assert_int_equal(block.filled, block.size);
    assert_int_equal(file_memory() - before, block.size);
    weir__arena_free(&arena, &block);
    assert_int_equal(weir__arena_alloc_unfilled(&arena, MIB, &block), 0);
    assert_int_equal(block.filled, block.size); /* it has memory that was kept */
    weir__arena_free(&arena, &block);
}

static void an_unfilled_block_is_not_kept(void **state)
{
    (void)state;
    weir__block block;
    assert_int_equal(weir__arena_alloc_unfilled(&arena, 3 * MIB, &block), 0);
    weir__arena_free(&arena, &block);
    assert_int_equal(weir__arena_reserved(&arena), 0);
    assert_int_equal(arena.kept_bytes, 0);
}

static void writing_without_shared_memory_is_an_error(void **state)
{
    (void)state;
    static unsigned char bytes[3 * MIB];
    struct rlimit before;
    weir__block block;
    assert_int_equal(weir__arena_alloc_unfilled(&arena, sizeof bytes, &block), 0);
    must(getrlimit(RLIMIT_FSIZE, &before) == 0);
    must(setrlimit(RLIMIT_FSIZE, &(struct rlimit){block.offset + MIB, before.rlim_max}) == 0);
    int rc = weir__arena_write(&arena, &block, &(weir_bytes){bytes, sizeof bytes}, 1);
    must(setrlimit(RLIMIT_FSIZE, &before) == 0);
    assert_int_equal(rc, WEIR_ENOSHM);
    weir__arena_free(&arena, &block);
    assert_int_equal(weir__arena_reserved(&arena), 0);
}

/* ---- held blocks -------------------------------------------------------------------------------- */

static void held_blocks_are_found_by_their_offset(void **state)
{
    (void)state;
    weir__holdings held = {0};
    weir__block blocks[6], found;
    uint64_t offsets[6];
    for (int i = 0; i < 6; i++) {
        blocks[i] = alloc(i % 2 ? 100000 : 2 * MIB);
        offsets[i] = blocks[i].offset;
        memset(blocks[i].at, i, 1000);
        weir__arena_hold(&held, &blocks[i]);
        assert_int_equal(blocks[i].offset, 0);
    }
    assert_false(weir__arena_unhold(&held, 12345, &found));
    for (int i = 0; i < 6; i += 2) {
        assert_true(weir__arena_unhold(&held, offsets[i], &found));
        assert_int_equal(*(unsigned char *)found.at, i);
        assert_int_equal(found.size, 2 * MIB);
        assert_false(weir__arena_unhold(&held, offsets[i], &found));
        weir__arena_free(&arena, &found);
    }
    weir__arena_free_held(&arena, &held);
    assert_null(held.first);
    weir__arena_keep_nothing(&arena);
    uint64_t reserved = weir__arena_reserved(&arena);
    alloc(100000);
    assert_int_equal(weir__arena_reserved(&arena), reserved); /* it is one of the three */
}

static void a_size_that_nobody_has_is_refused(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {UINT64_MAX, UINT64_MAX - 4095, INT64_MAX, UINT64_MAX / 4};
    for (int i = 0; i < 4; i++) {
        weir__block block = {.offset = 1};
        assert_int_equal(weir__arena_alloc(&arena, sizes[i], &block), WEIR_ENOSHM);
        assert_int_equal(block.offset, 1); /* outputs change only on success */
    }
    assert_int_equal(weir__arena_reserved(&arena), 0);
}

static void without_shared_memory_nothing_is_taken(void **state)
{
    (void)state;
    struct rlimit before;
    weir__block block = {.offset = 1}, small = alloc(100);
    uint64_t reserved = weir__arena_reserved(&arena);
    must(getrlimit(RLIMIT_FSIZE, &before) == 0);
    must(setrlimit(RLIMIT_FSIZE, &(struct rlimit){small.offset + 512, before.rlim_max}) == 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(weir__arena_alloc(&arena, 100, &block), WEIR_ENOSHM);
        assert_int_equal(weir__arena_alloc(&arena, 100000, &block), WEIR_ENOSHM);
        assert_int_equal(weir__arena_alloc(&arena, 5 * MIB, &block), WEIR_ENOSHM);
    }
    must(setrlimit(RLIMIT_FSIZE, &before) == 0);
    assert_int_equal(block.offset, 1);
    assert_int_equal(weir__arena_reserved(&arena), reserved);
    alloc(100);
    alloc(100000);
    alloc(5 * MIB); /* later there is */
}

static void without_memory_nothing_is_taken(void **state)
{
    (void)state;
    weir__block block = {.offset = 1};
    fail_allocation(1, true);
    assert_int_equal(weir__arena_alloc(&arena, 100, &block), WEIR_ENOMEM);
    assert_int_equal(weir__arena_alloc(&arena, 5 * MIB, &block), WEIR_ENOMEM);
    assert_true(stop_failing());
    assert_int_equal(block.offset, 1);
    assert_int_equal(weir__arena_reserved(&arena), 0);
    weir__block small = alloc(100), large = alloc(5 * MIB);
    fail_allocation(1, true); /* what was used once needs none */
    weir__arena_free(&arena, &small);
    weir__arena_free(&arena, &large);
    small = alloc(100);
    large = alloc(5 * MIB);
    assert_false(stop_failing());
}

/* ---- against a model: a list of live blocks ---------------------------------------------------- */

#define LIVE 60

static uint64_t random_size(void)
{
    uint64_t n = (uint64_t)rand();
    switch (rand() % 4) {
    case 0: return n % 600;
    case 1: return n % 20000;
    case 2: return n % (300 * 1024);
    default: return n % 100 == 0 ? n % (9 * MIB) : n % MIB;
    }
}

static void mark(const weir__block *block, unsigned char with)
{
    memset(block->at, with, 64);
    memset((char *)block->at + block->size - 64, with, 64);
}

static bool is_marked(const weir__block *block, unsigned char with)
{
    const unsigned char *at = block->at;
    for (int i = 0; i < 64; i++)
        if (at[i] != with || at[block->size - 64 + (unsigned)i] != with)
            return false;
    return true;
}

static void live_blocks_never_overlap(void **state)
{
    (void)state;
    weir__block live[LIVE] = {{0}};
    srand(3);
    for (int step = 0; step < 6000; step++) {
        int i = rand() % LIVE;
        if (live[i].offset) {
            assert_true(is_marked(&live[i], (unsigned char)(i + 1))); /* nobody wrote into it */
            weir__arena_free(&arena, &live[i]);
            continue;
        }
        live[i] = alloc(random_size());
        mark(&live[i], (unsigned char)(i + 1));
        uint64_t live_bytes = 0;
        for (int j = 0; j < LIVE; j++) {
            live_bytes += live[j].offset ? live[j].size : 0;
            if (j != i && live[j].offset)
                assert_true(live[i].offset + live[i].size <= live[j].offset ||
                            live[j].offset + live[j].size <= live[i].offset);
        }
        assert_true(weir__arena_reserved(&arena) >= live_bytes);
        assert_true(arena.kept_bytes <= KEPT);
    }
    for (int i = 0; i < LIVE; i++)
        weir__arena_free(&arena, &live[i]);
    assert_true(weir__arena_reserved(&arena) >= arena.kept_bytes);
}

/* ---- by many threads ---------------------------------------------------------------------------- */

static void *allocates(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    weir__block held[8] = {{0}};
    for (int step = 0; step < 1500; step++) {
        weir__block *block = &held[rand_r(&seed) % 8];
        unsigned char with = (unsigned char)(uintptr_t)arg;
        if (block->offset) {
            must(is_marked(block, with));
            weir__arena_free(&arena, block);
        } else {
            uint64_t size = (uint64_t)rand_r(&seed) % (step % 50 ? 30000 : 600000);
            must(weir__arena_alloc(&arena, size, block) == 0);
            mark(block, with);
        }
    }
    for (int i = 0; i < 8; i++)
        weir__arena_free(&arena, &held[i]);
    return NULL;
}

static void threads_may_allocate_at_the_same_time(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++)
        must(pthread_create(&threads[i], NULL, allocates, number(i + 1)) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_true(arena.kept_bytes <= KEPT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(blocks_come_in_powers_of_two_and_above_that_in_pages),
        TEST(freeing_no_block_does_nothing),
        TEST(small_blocks_are_used_again),
        TEST(small_blocks_take_memory_as_they_are_first_used),
        TEST(address_space_of_large_blocks_is_used_again),
        TEST(a_little_large_memory_is_kept_for_the_next),
        TEST(more_than_16_mib_are_kept_for_two_seconds),
        TEST(what_was_used_last_is_kept_longest),
        TEST(no_more_than_256_mib_are_kept),
        TEST(a_block_takes_the_free_memory_that_fits),
        TEST(an_unfilled_block_takes_memory_as_it_is_written),
        TEST(an_unfilled_block_is_not_kept),
        TEST(writing_without_shared_memory_is_an_error),
        TEST(held_blocks_are_found_by_their_offset),
        TEST(a_size_that_nobody_has_is_refused),
        TEST(without_shared_memory_nothing_is_taken),
        TEST(without_memory_nothing_is_taken),
        TEST(live_blocks_never_overlap),
        TEST(threads_may_allocate_at_the_same_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
