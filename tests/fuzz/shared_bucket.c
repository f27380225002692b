/* shared_bucket.c - a token bucket that processes share, whose memory somebody scribbles over between the calls
 * of who uses it.  Not the lock of its writers: it is the C library's.  Input and claims are those of
 * shared_queue.c. */
#include "fuzz.h"

#include <unistd.h>

#include "flow/bucket.c" /* for the layout of the file */

/* All of the file but the lock. */
static void *place(fuzz *f, weir__bucket_page *page)
{
    uint64_t any = fuzz_number(f, 2);
    switch (fuzz_byte(f) % 4) {
    case 0: return (char *)page + any % offsetof(weir__bucket_page, version) / 8 * 8;
    case 1: return (char *)&page->version + any % (8 + sizeof page->copies) / 8 * 8;
    case 2: return (char *)&page->next_ticket + any % 4 * 4;
    default: return (char *)&page->slots[any % WEIR__SEATS] + any / 1024 % 3 * 8;
    }
}

static void scribble(fuzz *f, weir__bucket_page *page)
{
    void *at = place(f, page);
    uint64_t number = fuzz_any(f);
    bool is_short = at == &page->n_slots; /* the last word before the slots */
    memcpy(at, &number, is_short || fuzz_byte(f) & 1 ? sizeof(uint32_t) : sizeof number);
}

static void reserve(weir__bucket *bucket, uint64_t cost, weir_time now)
{
    weir__owed owed;
    if (weir__bucket_reserve(bucket, cost, now, &owed))
        weir__bucket_unreserve(bucket, &owed);
}

static void take_turn(fuzz *f, weir__bucket *bucket, weir__turn *turn, uint64_t cost, weir_time now)
{
    weir_time when;
    weir__bucket_enter(bucket, turn, cost);
    weir__bucket_take(bucket, turn, cost, fuzz_byte(f), now, &when);
    weir__bucket_when(bucket, turn, cost, 0, now);
    if (fuzz_byte(f) & 1)
        weir__bucket_leave(bucket, turn);
}

static void step(fuzz *f, weir__bucket *bucket, weir__turn *turn)
{
    uint64_t cost = (1 + fuzz_byte(f) % 4) * WEIR__TOKEN;
    weir_time now = weir_now();
    switch (fuzz_byte(f) % 8) {
    case 0: weir__bucket_try(bucket, cost, now); break;
    case 1: take_turn(f, bucket, turn, cost, now); break;
    case 2: weir__bucket_hand_on(bucket, turn, cost); break;
    case 3: reserve(bucket, cost, now); break;
    case 4: weir__bucket_set(bucket, 1 + fuzz_byte(f), WEIR_SECOND, 8 * WEIR__TOKEN, now); break;
    case 5: weir__bucket_level(bucket, now); break;
    default: scribble(f, bucket->page); break;
    }
}

/* What the last one to leave has kept, because it was not full: the next input begins anew. */
static void remove_file(const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "/dev/shm/weir-%ju-fuzz-%zu-%s", (uintmax_t)geteuid(),
             weir__bucket_ops.size, name);
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {data, size};
    char name[32];
    weir__rate_terms terms = {
        .t0 = weir_now(),
        .rate = 1 + fuzz_byte(&f),
        .per_ns = WEIR_SECOND,
        .burst = 8 * WEIR__TOKEN,
    };
    weir__bucket bucket = {NULL};
    weir__turn turn = WEIR__NO_TURN;
    snprintf(name, sizeof name, "fuzz-%d", (int)getpid());
    weir__rate_set_speed(&terms);
    must(weir__named_open(&bucket.named, "fuzz", name, &weir__bucket_ops, &terms) == WEIR_OK);
    bucket.page = weir__named_data(bucket.named);
    bucket.seat = (unsigned)weir__named_seat(bucket.named);
    weir__bucket_begin_counting(&bucket, NULL, NULL);
    for (unsigned steps = fuzz_byte(&f) % 64; steps > 0; steps--)
        step(&f, &bucket, &turn);
    weir__bucket_leave(&bucket, &turn);
    weir__named_close(bucket.named);
    remove_file(name);
    return 0;
}
