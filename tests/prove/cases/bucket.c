/* bucket.c - flow/bucket: the tokens, and the line of the processes that wait for them.  What processes share is one
 * page; here each thread has a way of its own to it, as a process would.
 */
#include "../prove.h"

#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "flow/bucket.h"

#define SLOTS 3

static weir__bucket_page *page;
static weir__bucket ways[SLOTS];
static weir_time begun;

static weir__rate_terms terms(uint64_t rate, int64_t per_ns, uint64_t burst)
{
    weir__rate_terms made = {
        .t0 = begun, .rate = rate, .per_ns = (uint64_t)per_ns, .burst = burst * WEIR__TOKEN};
    weir__rate_set_speed(&made);
    return made;
}

static void make(int64_t per_ns, uint64_t burst)
{
    begun = weir_now();
    weir__rate_terms first = terms(1, per_ns, burst);
    page = weir__calloc_line(weir__bucket_size(SLOTS));
    prove_claim(weir__bucket_init(page, SLOTS, &first) == WEIR_OK);
    for (unsigned i = 0; i < SLOTS; i++) {
        ways[i] = (weir__bucket){.page = page, .seat = i};
        weir__bucket_begin_counting(&ways[i], NULL, NULL);
    }
}

static void end(uint64_t granted)
{
    prove_same(weir__bucket_get_counts(&ways[0]).granted, granted);
    weir__free(page);
}

static void join_all(const int *threads, int n)
{
    for (int i = 0; i < n; i++)
        prove_join(threads[i]);
}

static uint64_t took[SLOTS]; /* tokens, by each */

/* ---- trying ------------------------------------------------------------------------------------- */

#define HOUR (3600 * WEIR_SECOND) /* nothing comes meanwhile: what is there is all there is */

static void try_one(void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;
    took[i] += weir__bucket_try(&ways[i], WEIR__TOKEN, weir_now());
}

static void bucket_is_tried(void)
{
    memset(took, 0, sizeof took);
    make(HOUR, 2);
    int t[] = {prove_spawn(try_one, (void *)1), prove_spawn(try_one, (void *)2)};
    try_one((void *)0);
    join_all(t, 2);
    prove_same(took[0] + took[1] + took[2], 2);
    prove_claim(weir__bucket_level(&ways[0], begun) <= 0);
    end(2);
}

PROVE_CASE(bucket_is_tried, "as many tokens as there are are taken, each once");

/* ---- the line ------------------------------------------------------------------------------------ */

/* Waits for `cost` tokens as one process; nobody gives up. */
static void wait_for(unsigned i, uint64_t cost)
{
    weir__turn turn = WEIR__NO_TURN;
    weir_time when;
    weir__bucket_enter(&ways[i], &turn, cost * WEIR__TOKEN);
    while (!weir__bucket_take(&ways[i], &turn, cost * WEIR__TOKEN, 0, weir_now(), &when))
        nanosleep(&(struct timespec){.tv_nsec = WEIR_MILLISECOND}, NULL);
    took[i] += cost;
    weir__bucket_leave(&ways[i], &turn);
}

static void wait_for_one(void *arg)
{
    wait_for((unsigned)(uintptr_t)arg, 1);
}

static void bucket_line(void)
{
    memset(took, 0, sizeof took);
    make(WEIR_MILLISECOND, 2);
    int t[] = {prove_spawn(wait_for_one, (void *)1), prove_spawn(try_one, (void *)2)};
    wait_for(0, 2);
    join_all(t, 2);
    prove_claim(took[0] == 2 && took[1] == 1);
    /* nobody is in line any more: it is as if nobody ever had been */
    prove_claim(weir__bucket_try(&ways[2], WEIR__TOKEN, weir_now() + WEIR_SECOND));
    end(took[0] + took[1] + took[2] + 1);
}

PROVE_CASE(bucket_line, "all who are in line get theirs, and then there is no line");

/* The first in line wants all there is, and half of it is there. */
static void take_what_is_left(void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;
    weir__turn turn = WEIR__NO_TURN;
    weir_time when;
    prove_claim(!weir__bucket_try(&ways[i], WEIR__TOKEN, weir_now()));
    weir__bucket_enter(&ways[i], &turn, WEIR__TOKEN);
    prove_claim(!weir__bucket_take(&ways[i], &turn, WEIR__TOKEN, 0, weir_now(), &when));
    weir__bucket_leave(&ways[i], &turn);
}

static void bucket_first_comes_first(void)
{
    weir__turn turn = WEIR__NO_TURN;
    weir_time when;
    make(HOUR, 2);
    prove_claim(weir__bucket_try(&ways[0], WEIR__TOKEN, weir_now()));
    weir__bucket_enter(&ways[0], &turn, 2 * WEIR__TOKEN);
    int t[] = {prove_spawn(take_what_is_left, (void *)1),
               prove_spawn(take_what_is_left, (void *)2)};
    prove_claim(!weir__bucket_take(&ways[0], &turn, 2 * WEIR__TOKEN, 0, weir_now(), &when));
    join_all(t, 2);
    weir__bucket_hand_on(&ways[0], &turn, WEIR__TOKEN); /* another one of the same process */
    prove_claim(weir__bucket_take(&ways[0], &turn, WEIR__TOKEN, 0, weir_now(), &when));
    weir__bucket_leave(&ways[0], &turn);
    end(2);
}

PROVE_CASE(bucket_first_comes_first, "nobody takes what one who came before waits for");

static void leave_line(void *arg)
{
    weir__bucket_leave(&ways[0], arg);
}

static void come_and_take(void *arg)
{
    (void)arg;
    wait_for(1, 1);
}

/* One leaves as another comes: the line is not forgotten. */
static void bucket_line_is_kept(void)
{
    weir__turn turn = WEIR__NO_TURN, mine = WEIR__NO_TURN;
    memset(took, 0, sizeof took);
    make(HOUR, 1);
    prove_claim(weir__bucket_try(&ways[0], WEIR__TOKEN, weir_now()));
    weir__bucket_enter(&ways[0], &turn, WEIR__TOKEN);
    int t = prove_spawn(leave_line, &turn);
    weir__bucket_enter(&ways[1], &mine, WEIR__TOKEN);
    prove_join(t);
    /* an hour later there is one, and it is ours */
    prove_claim(!weir__bucket_try(&ways[2], WEIR__TOKEN, begun + 2 * HOUR));
    weir__bucket_leave(&ways[1], &mine);
    prove_claim(weir__bucket_try(&ways[2], WEIR__TOKEN, begun + 2 * HOUR));
    end(2);
}

PROVE_CASE(bucket_line_is_kept,
           "as one leaves the line and another comes, it is seen that there is one");

static void come_for_one(void *turn)
{
    weir__bucket_enter(&ways[0], turn, WEIR__TOKEN);
}

/* The place was one's that wanted all three. */
static void bucket_cost_comes_with_its_place(void)
{
    weir__turn first = WEIR__NO_TURN, turn = WEIR__NO_TURN, mine = WEIR__NO_TURN;
    make(HOUR, 3);
    prove_let_time_stand_still(); /* nobody is stopped for so long that he is not waited for */
    for (int i = 0; i < 3; i++)
        prove_claim(weir__bucket_try(&ways[0], WEIR__TOKEN, begun));
    weir__bucket_enter(&ways[0], &first, 3 * WEIR__TOKEN);
    weir__bucket_leave(&ways[0], &first);
    int t = prove_spawn(come_for_one, &turn);
    weir__bucket_enter(&ways[1], &mine, WEIR__TOKEN);
    prove_claim(weir__bucket_when(&ways[1], &mine, WEIR__TOKEN, 0, begun) <=
                begun + 2 * HOUR + WEIR_SECOND);
    prove_join(t);
    weir__bucket_leave(&ways[0], &turn);
    weir__bucket_leave(&ways[1], &mine);
    end(3);
}

PROVE_CASE(bucket_cost_comes_with_its_place,
           "who sees a place in line sees what is waited for there, not what was before");

/* A seat is left: whatever its process had in line is gone. */
static void leave_seat(void *arg)
{
    (void)arg;
    weir__bucket_ops.leave(page, 0);
}

static void bucket_of_the_dead(void)
{
    weir__turn turn = WEIR__NO_TURN;
    memset(took, 0, sizeof took);
    make(WEIR_MILLISECOND, 1);
    weir__bucket_enter(&ways[0], &turn, WEIR__TOKEN);
    int t[] = {prove_spawn(leave_seat, NULL), prove_spawn(come_and_take, NULL)};
    join_all(t, 2);
    prove_same(took[1], 1);
    prove_claim(weir__bucket_try(&ways[2], WEIR__TOKEN, weir_now() + WEIR_SECOND));
    end(2);
}

PROVE_CASE(bucket_of_the_dead, "what a process had in line holds up nobody when it is gone");

/* ---- in advance ---------------------------------------------------------------------------------- */

static void reserve(void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;
    weir__owed owed;
    prove_claim(weir__bucket_reserve(&ways[i], WEIR__TOKEN, weir_now(), &owed));
    took[i]++;
    if (weir__bucket_unreserve(&ways[i], &owed))
        took[i]--;
}

static void bucket_returns(void)
{
    memset(took, 0, sizeof took);
    make(HOUR, 3);
    prove_let_time_stand_still(); /* nobody is stopped for so long that he is not waited for */
    int t[] = {prove_spawn(reserve, (void *)1), prove_spawn(reserve, (void *)2)};
    try_one((void *)0);
    join_all(t, 2);
    weir__bucket_counts counts = weir__bucket_get_counts(&ways[0]);
    uint64_t held = counts.granted - counts.returned;
    prove_same(took[0] + took[1] + took[2], held);
    prove_same(weir__bucket_level(&ways[0], begun), (3 - (int64_t)held) * (int64_t)WEIR__TOKEN);
    end(counts.granted);
}

PROVE_CASE(bucket_returns, "what is given back is there again, once");

/* Who waits and who reserves: one of them counts the other. */
static weir__owed reserved;

static void reserve_one(void *arg)
{
    (void)arg;
    prove_claim(weir__bucket_reserve(&ways[1], WEIR__TOKEN, begun, &reserved));
}

static void bucket_promises(void)
{
    weir__turn turn = WEIR__NO_TURN;
    make(HOUR, 2);
    prove_let_time_stand_still(); /* nobody is stopped for so long that he is not waited for */
    for (int i = 0; i < 2; i++)
        prove_claim(weir__bucket_try(&ways[0], WEIR__TOKEN, begun));
    int t = prove_spawn(reserve_one, NULL);
    weir__bucket_enter(&ways[0], &turn, WEIR__TOKEN);
    prove_join(t);
    weir_time mine = weir__bucket_when(&ways[0], &turn, WEIR__TOKEN, 0, begun);
    weir__rate_terms now = weir__bucket_terms(&ways[0]);
    weir_time its = weir__rate_when(&now, reserved.due);
    /* One token comes in an hour, the next one an hour later. */
    prove_claim(mine >= begun + HOUR - WEIR_SECOND && its >= begun + HOUR - WEIR_SECOND);
    prove_claim(mine + its >= 2 * begun + 3 * HOUR - WEIR_SECOND);
    weir__bucket_leave(&ways[0], &turn);
    end(3);
}

PROVE_CASE(bucket_promises, "who waits and who reserves are not promised the same token");

/* Two wait for all of a burst, and what had been reserved before them is given back.  A token that is reserved then leaves
 * theirs to both; but when the first one takes his the bucket is full: it has been used, and the second one has no claim
 * to it any more. */
static weir__owed four;
static weir__turn first_turn, second_turn;

static void give_four_back(void *arg)
{
    (void)arg;
    prove_claim(weir__bucket_unreserve(&ways[2], &four));
}

static void begin_with_four(void)
{
    make(HOUR, 2);
    prove_let_time_stand_still(); /* nobody is stopped for so long that he is not waited for */
    first_turn = second_turn = WEIR__NO_TURN;
    prove_claim(weir__bucket_reserve(&ways[2], 4 * WEIR__TOKEN, begun, &four));
    weir__bucket_enter(&ways[0], &first_turn, 2 * WEIR__TOKEN);
}

static bool takes_two_at(unsigned i, weir__turn *turn, int64_t hours)
{
    weir_time when, now = begun + hours * (HOUR + WEIR_SECOND);
    bool takes = weir__bucket_take(&ways[i], turn, 2 * WEIR__TOKEN, 0, now, &when);
    if (takes)
        weir__bucket_leave(&ways[i], turn);
    return takes;
}

static void end_with_a_burst_each(void)
{
    weir__owed one;
    prove_claim(weir__bucket_reserve(&ways[2], WEIR__TOKEN, begun, &one));
    prove_claim(takes_two_at(0, &first_turn, 1));
    prove_claim(!takes_two_at(1, &second_turn, 2));
    prove_claim(takes_two_at(1, &second_turn, 3));
    end(9);
}

static void bucket_returns_to_who_waits(void)
{
    begin_with_four();
    int t = prove_spawn(give_four_back, NULL);
    weir__bucket_enter(&ways[1], &second_turn, 2 * WEIR__TOKEN);
    prove_join(t);
    end_with_a_burst_each();
}

PROVE_CASE(bucket_returns_to_who_waits,
           "what is given back as somebody comes to wait lets him take no more than a burst");

/* He was told when without it, and those who reserved after him were told so. */
static void bucket_keeps_what_came_later(void)
{
    weir__turn turn = WEIR__NO_TURN;
    weir__owed owed[2];
    make(HOUR, 1);
    prove_claim(weir__bucket_try(&ways[0], WEIR__TOKEN, begun));
    weir__bucket_enter(&ways[0], &turn, WEIR__TOKEN);
    for (int i = 0; i < 2; i++)
        prove_claim(weir__bucket_reserve(&ways[1], WEIR__TOKEN, begun, &owed[i]));
    prove_claim(!weir__bucket_unreserve(&ways[1], &owed[1]));
    prove_claim(weir__bucket_when(&ways[0], &turn, WEIR__TOKEN, 0, begun) <=
                begun + HOUR + WEIR_SECOND);
    weir__bucket_leave(&ways[0], &turn);
    end(3);
}

PROVE_CASE(bucket_keeps_what_came_later,
           "what is reserved behind somebody who waits keeps nothing from him, given back or not");

/* ---- terms ---------------------------------------------------------------------------------------- */

static void set_burst(void *arg)
{
    uint64_t burst = (uint64_t)(uintptr_t)arg;
    prove_claim(weir__bucket_set(&ways[1], 1, HOUR, burst * WEIR__TOKEN, begun) == WEIR_OK);
}

/* It can hold one from some moment on: then two are not taken. */
static void bucket_shrinks(void)
{
    memset(took, 0, sizeof took);
    make(HOUR, 2);
    int t = prove_spawn(set_burst, (void *)1);
    try_one((void *)0);
    prove_join(t);
    int64_t level = weir__bucket_level(&ways[0], begun);
    prove_claim(level >= 0 && level <= (int64_t)WEIR__TOKEN);
    set_burst((void *)3); /* does not bring it back */
    prove_same(weir__bucket_level(&ways[0], begun), level);
    weir__bucket_try(&ways[0], WEIR__TOKEN, begun);
    prove_claim(!weir__bucket_try(&ways[0], WEIR__TOKEN, begun));
    weir__free(page);
}

PROVE_CASE(bucket_shrinks, "what does not fit any more is gone, whoever takes at the same time");

static weir__rate_terms expected[3];

/* From the k-th change on; fast enough that each has another speed. */
#define RATE(k)  (7000 * (k) * (k) * (k))
#define PER(k)   ((k) * (k) * (uint64_t)WEIR_SECOND + 1)
#define BURST(k) ((k) * WEIR__TOKEN)
#define AT(k)    (begun + (int64_t)(k) * WEIR_SECOND)

static void set_terms(uint64_t k)
{
    prove_claim(weir__bucket_set(&ways[1], RATE(k), PER(k), BURST(k), AT(k)) == WEIR_OK);
}

static void expect_terms(uint64_t k)
{
    expected[k] = (weir__rate_terms){
        .t0 = AT(k),
        .s0 = weir__rate_supply(&expected[k - 1], AT(k)).position,
        .rate = RATE(k),
        .per_ns = PER(k),
        .burst = BURST(k),
    };
    weir__rate_set_speed(&expected[k]);
}

static void set_both(void *arg)
{
    (void)arg;
    set_terms(1);
    set_terms(2);
}

static bool are_same(const weir__rate_terms *a, const weir__rate_terms *b)
{
    return a->t0 == b->t0 && a->s0 == b->s0 && a->rate == b->rate && a->per_ns == b->per_ns &&
           a->burst == b->burst && a->speed == b->speed && a->speed_rest == b->speed_rest;
}

static void bucket_terms_are_whole(void)
{
    make(HOUR / 2, 3);
    expected[0] = terms(1, HOUR / 2, 3);
    expect_terms(1);
    expect_terms(2);
    int t = prove_spawn(set_both, NULL);
    weir__rate_terms seen = weir__bucket_terms(&ways[0]);
    prove_join(t);
    prove_claim(are_same(&seen, &expected[0]) || are_same(&seen, &expected[1]) ||
                are_same(&seen, &expected[2]));
    weir__free(page);
}

PROVE_CASE(bucket_terms_are_whole,
           "terms are read as somebody has set them, whatever is set meanwhile");

/* 2^39 tokens in a second: terms are old after 2 s, and forgotten after 8. */
static weir_time renewed_at;

static void try_one_then(void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;
    took[i] += weir__bucket_try(&ways[i], WEIR__TOKEN, renewed_at);
}

static void bucket_terms_are_renewed(void)
{
    memset(took, 0, sizeof took);
    make(HOUR, 2);
    prove_let_time_stand_still(); /* nobody is stopped for so long that he is not waited for */
    prove_same(weir__bucket_set(&ways[0], WEIR__RATE_MAX, 2 * WEIR_SECOND, 2 * WEIR__TOKEN, begun),
               WEIR_OK);
    renewed_at = begun + (prove_pick(2) ? 1000 : 3) * WEIR_SECOND;
    int t[] = {prove_spawn(try_one_then, (void *)1), prove_spawn(try_one_then, (void *)2)};
    join_all(t, 2);
    prove_same(took[1] + took[2], 2);
    prove_same(weir__bucket_level(&ways[0], renewed_at), 0);
    end(2);
}

PROVE_CASE(bucket_terms_are_renewed,
           "who comes as somebody else renews what is old gets what is there");

static int say_yes(void *ctx)
{
    (void)ctx;
    return 1;
}

static void set_or_be_interrupted(void *arg)
{
    uint64_t *rate = arg;
    weir_set_interrupt(say_yes, NULL);
    int rc = weir__bucket_set(&ways[1], 2, HOUR, WEIR__TOKEN, begun);
    weir_set_interrupt(NULL, NULL);
    prove_claim(rc == WEIR_OK || rc == WEIR_EINTR);
    *rate = rc == WEIR_OK ? 2 : 0;
}

static void bucket_set_is_interrupted(void)
{
    uint64_t rate = 0;
    make(HOUR, 1);
    int t = prove_spawn(set_or_be_interrupted, &rate);
    prove_same(weir__bucket_set(&ways[2], 3, HOUR, WEIR__TOKEN, begun), WEIR_OK);
    prove_join(t);
    uint64_t now = weir__bucket_terms(&ways[0]).rate;
    prove_claim(now == 3 || (now == 2 && rate == 2));
    weir__free(page);
}

PROVE_CASE(bucket_set_is_interrupted, "who is interrupted as another one sets terms sets none");
