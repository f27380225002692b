/* watermark.c - flow/watermark: two counters, and a state that follows from them. */
#include "../prove.h"

#include <poll.h>
#include <string.h>

#include <weir/watermark.h>

#include "base/alloc.h"

static weir_watermark *mark;
static unsigned calls;
static bool told, is_telling;
static int fd; /* that a case had from the beginning; -1: it has none */

/* One call at a time, alternating. */
static void on_change(bool above, void *ctx)
{
    (void)ctx;
    prove_claim(!is_telling && above != told);
    is_telling = true;
    prove_yield();
    told = above;
    calls++;
    is_telling = false;
}

static void make(uint64_t high, uint64_t low, bool tells)
{
    weir_watermark_opts opts = WEIR_WATERMARK_OPTS_INIT;
    opts.high = high;
    opts.low = low;
    opts.on_change = tells ? on_change : NULL;
    calls = 0;
    told = is_telling = false;
    fd = -1;
    prove_claim(weir_watermark_create(&mark, &opts) == WEIR_OK);
}

static weir_watermark_snapshot look(void)
{
    weir_watermark_snapshot s = WEIR_WATERMARK_SNAPSHOT_INIT;
    prove_claim(weir_watermark_get_snapshot(mark, &s) == WEIR_OK);
    prove_same(s.in, s.out + s.level);
    return s;
}

static bool can_be_read(void)
{
    struct pollfd at = {.fd = fd < 0 ? weir_watermark_fd(mark) : fd, .events = POLLIN};
    return poll(&at, 1, 0) == 1;
}

/* Nobody is in a call any more: the state is the one that follows from the level. */
static void end(uint64_t level, bool paused)
{
    weir_watermark_snapshot s = look();
    prove_same(s.level, level);
    prove_same(weir_watermark_level(mark), level);
    prove_same(s.is_paused, paused);
    prove_same(weir_watermark_is_paused(mark), paused);
    prove_same(can_be_read(), !paused || s.is_closed);
    prove_same(s.waiting, 0);
    weir_watermark_destroy(mark);
}

static void join_all(const int *threads, int n)
{
    for (int i = 0; i < n; i++)
        prove_join(threads[i]);
}

static void add_one(void *arg)
{
    (void)arg;
    prove_claim(weir_watermark_add(mark, 1) >= 0);
}

static void sub_one(void *arg)
{
    (void)arg;
    prove_claim(weir_watermark_sub(mark, 1) >= 0);
}

static void add_two(void *arg)
{
    add_one(arg);
    add_one(arg);
}

/* ---- the state --------------------------------------------------------------------------------- */

static void watermark_pauses(void)
{
    make(2, WEIR_WATERMARK_EMPTY, true);
    int t[] = {prove_spawn(add_one, NULL), prove_spawn(add_one, NULL)};
    join_all(t, 2);
    prove_claim(told && calls == 1);
    end(2, true);
}

PROVE_CASE(watermark_pauses,
           "whoever brings the level to the high mark, it is paused, and that is told once");

static void watermark_resumes(void)
{
    make(2, WEIR_WATERMARK_EMPTY, true);
    prove_claim(weir_watermark_add(mark, 2) == WEIR_PAUSED);
    int t[] = {prove_spawn(sub_one, NULL), prove_spawn(sub_one, NULL)};
    join_all(t, 2);
    prove_claim(!told && calls == 2);
    end(0, false);
}

PROVE_CASE(watermark_resumes, "whoever brings the level to the low mark, it goes on");

static void watermark_in_and_out(void)
{
    make(2, 1, true);
    prove_claim(weir_watermark_add(mark, 1) == WEIR_OK);
    int t[] = {prove_spawn(add_one, NULL), prove_spawn(sub_one, NULL)};
    join_all(t, 2);
    prove_claim(calls <= 2 && !told);
    end(1, false);
}

PROVE_CASE(watermark_in_and_out, "what comes and goes at the same time leaves no pause behind");

static void watermark_stays_paused(void)
{
    make(2, WEIR_WATERMARK_EMPTY, true);
    prove_claim(weir_watermark_add(mark, 1) == WEIR_OK);
    int t[] = {prove_spawn(add_two, NULL), prove_spawn(sub_one, NULL)};
    join_all(t, 2);
    prove_same(told, true);
    end(2, true);
}

PROVE_CASE(watermark_stays_paused, "a level that ends at the high mark ends paused");

static void sub_then_add(void *arg)
{
    sub_one(arg);
    add_one(arg);
}

static void mark_again(void *arg)
{
    (void)arg;
    prove_claim(weir_watermark_set(mark, 2, WEIR_WATERMARK_EMPTY) == WEIR_OK);
}

static void sub_two(void *arg)
{
    (void)arg;
    prove_claim(weir_watermark_sub(mark, 2) >= 0);
}

/* If it goes on at all it is paused again. */
static void watermark_pauses_again(void)
{
    make(2, WEIR_WATERMARK_EMPTY, false);
    prove_claim(weir_watermark_add(mark, 2) == WEIR_PAUSED);
    int t = prove_spawn(sub_two, NULL);
    prove_claim(weir_watermark_add(mark, 2) >= 0);
    prove_join(t);
    end(2, true);
}

PROVE_CASE(watermark_pauses_again, "what comes as it goes on may pause it again");

/* One goes and another one comes: two are never inside. */
static void watermark_of_one_instant(void)
{
    make(2, WEIR_WATERMARK_EMPTY, true);
    prove_claim(weir_watermark_add(mark, 1) == WEIR_OK);
    int t[] = {prove_spawn(sub_then_add, NULL), prove_spawn(mark_again, NULL)};
    join_all(t, 2);
    prove_same(calls, 0);
    end(1, false);
}

PROVE_CASE(watermark_of_one_instant, "nobody pauses for a level that there never was");

static void mark_up(void *arg)
{
    (void)arg;
    prove_claim(weir_watermark_set(mark, 4, 2) == WEIR_OK);
}

static void mark_down(void *arg)
{
    (void)arg;
    prove_claim(weir_watermark_set(mark, 2, 1) == WEIR_OK);
}

static void watermark_goes_up(void)
{
    make(2, WEIR_WATERMARK_EMPTY, true);
    prove_claim(weir_watermark_add(mark, 3) == WEIR_PAUSED);
    int t[] = {prove_spawn(mark_up, NULL), prove_spawn(sub_one, NULL)};
    prove_claim(weir_watermark_drain(mark, WEIR_FOREVER) == WEIR_OK);
    join_all(t, 2);
    prove_same(told, false);
    end(2, false);
}

PROVE_CASE(watermark_goes_up, "marks that rise let those go on who wait");

static void watermark_goes_down(void)
{
    make(4, 2, true);
    prove_claim(weir_watermark_add(mark, 1) == WEIR_OK);
    int t[] = {prove_spawn(mark_down, NULL), prove_spawn(add_one, NULL)};
    join_all(t, 2);
    prove_same(told, true);
    end(2, true);
}

PROVE_CASE(watermark_goes_down, "marks that fall pause what is above them");

/* ---- waiting ------------------------------------------------------------------------------------ */

static int handed_over;

static void hand_over(void *arg)
{
    handed_over = 1;
    sub_one(arg);
}

static void drain(void *arg)
{
    (void)arg;
    prove_claim(weir_watermark_drain(mark, WEIR_FOREVER) == WEIR_OK);
    prove_same(handed_over, 1);
}

static void watermark_drains(void)
{
    prove_keep_records(true);
    handed_over = 0;
    make(1, WEIR_WATERMARK_EMPTY, false);
    prove_claim(weir_watermark_add(mark, 1) == WEIR_PAUSED);
    int t[] = {prove_spawn(hand_over, NULL), prove_spawn(drain, NULL)};
    drain(NULL);
    join_all(t, 2);
    end(0, false);
}

PROVE_CASE(watermark_drains, "all who wait go on, and see what was done before");

static void hint(void *arg)
{
    (void)arg;
    if (!weir_watermark_is_paused(mark))
        prove_same(handed_over, 1);
}

static void watermark_hints(void)
{
    handed_over = 0;
    make(1, WEIR_WATERMARK_EMPTY, false);
    prove_claim(weir_watermark_add(mark, 1) == WEIR_PAUSED);
    int t[] = {prove_spawn(hand_over, NULL), prove_spawn(hint, NULL)};
    join_all(t, 2);
    end(0, false);
}

PROVE_CASE(watermark_hints, "who sees that it goes on sees what made it go on");

static void drain_in_time(void *arg)
{
    (void)arg;
    int rc = weir_watermark_drain(mark, weir_after(WEIR_MILLISECOND));
    prove_claim(rc == WEIR_OK || rc == WEIR_ECLOSED || rc == WEIR_ETIMEDOUT);
}

static int before_the_end; /* what who closes it has done */

static void close_it(void *arg)
{
    (void)arg;
    before_the_end = 1;
    weir_watermark_close(mark);
}

static void drain_until_closed(void *arg)
{
    (void)arg;
    int rc = weir_watermark_drain(mark, WEIR_FOREVER);
    prove_claim(rc == WEIR_OK || (rc == WEIR_ECLOSED && before_the_end == 1));
}

static void watermark_closes(void)
{
    make(1, WEIR_WATERMARK_EMPTY, true);
    prove_claim(weir_watermark_add(mark, 1) == WEIR_PAUSED);
    int t[] = {prove_spawn(close_it, NULL), prove_spawn(drain_until_closed, NULL),
               prove_spawn(drain_in_time, NULL)};
    prove_join(t[2]);
    sub_one(NULL);
    join_all(t, 2);
    prove_same(weir_watermark_add(mark, 1), WEIR_ECLOSED);
    prove_same(weir_watermark_drain(mark, WEIR_FOREVER), WEIR_ECLOSED);
    prove_same(told, false);
    end(0, false);
}

PROVE_CASE(watermark_closes, "closed, all who wait are told so, and what is inside can leave");

static void watermark_times_out(void)
{
    make(1, WEIR_WATERMARK_EMPTY, true);
    prove_claim(weir_watermark_add(mark, 1) == WEIR_PAUSED);
    prove_same(weir_watermark_drain(mark, WEIR_POLL), WEIR_ETIMEDOUT);
    prove_same(weir_watermark_drain(mark, weir_after(WEIR_MILLISECOND)), WEIR_ETIMEDOUT);
    sub_one(NULL);
    prove_same(weir_watermark_drain(mark, WEIR_POLL), WEIR_OK);
    end(0, false);
}

PROVE_CASE(watermark_times_out,
           "who has waited for as long as he wants is told so, and is in no line");

/* ---- without a thread --------------------------------------------------------------------------- */

typedef struct guest {
    weir_pending pending; /* first */
    unsigned told;
    int result;
    bool left;
} guest;

static void ready(weir_pending *pending, int result)
{
    guest *g = (guest *)pending;
    g->told++;
    g->result = result;
}

static guest *make_guest(void)
{
    guest *g = weir__calloc(1, sizeof *g);
    g->pending.ready = ready;
    prove_same(weir_watermark_drain_async(mark, &g->pending), WEIR_WAITING);
    return g;
}

static void end_guest(guest *g, int result)
{
    prove_claim(g->told == !g->left && (g->left || g->result == result));
    weir__free(g);
}

static void cancel(void *arg)
{
    guest *g = arg;
    g->left = weir_watermark_cancel(mark, &g->pending);
}

static void watermark_guests(void)
{
    bool closes = prove_pick(2) == 1;
    make(1, WEIR_WATERMARK_EMPTY, false);
    prove_claim(weir_watermark_add(mark, 1) == WEIR_PAUSED);
    guest *stays = make_guest(), *leaves = make_guest();
    int t[] = {prove_spawn(cancel, leaves), prove_spawn(closes ? close_it : sub_one, NULL)};
    join_all(t, 2);
    end_guest(stays, closes ? WEIR_ECLOSED : WEIR_OK);
    end_guest(leaves, closes ? WEIR_ECLOSED : WEIR_OK);
    end(closes, closes);
}

PROVE_CASE(watermark_guests, "who waits without a thread is told once, or has left");

/* ---- looking ------------------------------------------------------------------------------------ */

static void watch(void *arg)
{
    (void)arg;
    weir_watermark_snapshot s = look();
    prove_claim(s.level <= 3 && s.peak <= 3 && s.in <= 3);
    prove_claim(weir_watermark_level(mark) <= 3);
}

static void watermark_law(void)
{
    prove_keep_records(true);
    make(2, WEIR_WATERMARK_EMPTY, false);
    prove_claim(weir_watermark_add(mark, 1) == WEIR_OK);
    int t[] = {prove_spawn(add_one, NULL), prove_spawn(watch, NULL), prove_spawn(sub_one, NULL)};
    add_one(NULL);
    watch(NULL);
    join_all(t, 3);
    prove_claim(look().peak >= 2);
    end(2, true);
}

PROVE_CASE(watermark_law, "in == out + level, whenever somebody looks");

static int went_out[2]; /* each by one thread */

static void sub_or_not(void *arg)
{
    int rc = weir_watermark_sub(mark, 1);
    prove_claim(rc >= 0 || rc == WEIR_EINVAL);
    *(int *)arg = rc >= 0;
}

static void watermark_is_never_negative(void)
{
    make(4, 2, false);
    int t[] = {prove_spawn(add_one, NULL), prove_spawn(sub_or_not, &went_out[0])};
    sub_or_not(&went_out[1]);
    join_all(t, 2);
    prove_claim(went_out[0] + went_out[1] <= 1);
    end(1 - (uint64_t)went_out[0] - (uint64_t)went_out[1], false);
}

PROVE_CASE(watermark_is_never_negative, "nothing leaves that did not come");

static void sub_add_sub(void *arg)
{
    sub_or_not(arg);
    if (*(int *)arg == 0)
        return;
    add_one(NULL);
    sub_or_not(arg);
}

/* As it tries again much may have come and gone. */
static void watermark_is_never_overdrawn(void)
{
    make(4, 2, false);
    add_one(NULL);
    int t = prove_spawn(sub_add_sub, &went_out[0]);
    sub_or_not(&went_out[1]);
    prove_join(t);
    weir_watermark_snapshot s = look();
    prove_claim(s.out <= s.in && s.level <= 1);
    end(s.level, false);
}

PROVE_CASE(watermark_is_never_overdrawn,
           "nothing leaves that did not come, however often it is tried");

/* Who goes by the descriptor. */
static void poll_it(void *arg)
{
    (void)arg;
    struct pollfd at = {.fd = fd, .events = POLLIN};
    prove_claim(poll(&at, 1, -1) == 1);
}

static void watermark_descriptor(void)
{
    make(1, WEIR_WATERMARK_EMPTY, false);
    fd = weir_watermark_fd(mark);
    prove_claim(can_be_read());
    prove_claim(weir_watermark_add(mark, 1) == WEIR_PAUSED);
    prove_claim(!can_be_read());
    bool closes = prove_pick(2) == 1;
    int t[] = {prove_spawn(poll_it, NULL), prove_spawn(closes ? close_it : sub_one, NULL)};
    join_all(t, 2);
    end(closes, closes);
}

PROVE_CASE(watermark_descriptor, "who polls the descriptor goes on when the others do");
