/* shared_gate.c - flow/shared_gate, shared_line, door and base/named: a limit that processes find by its name, and that
 * gives back what a killed one held. */
#include "../prove.h"

#include <stdatomic.h>
#include <time.h>

#include <weir/limit.h>

#include "flow/gate.h"
#include "flow/shared_line.h"

#define NAME "proved"

static uint64_t capacity;
static weir_limit_algorithm algorithm;
static unsigned n_partitions;

static weir_limit *find(void)
{
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    weir_limit *limit;
    opts.algorithm = algorithm;
    opts.limit = capacity;
    opts.n_partitions = n_partitions;
    opts.shared = NAME;
    opts.name = "";
    int rc;
    while ((rc = weir_limit_create(&limit, &opts)) == WEIR_ETIMEDOUT)
        continue; /* somebody was stopped in the door, for longer than its patience */
    prove_same(rc, WEIR_OK);
    return limit;
}

static weir_limit_snapshot look(weir_limit *limit)
{
    weir_limit_snapshot s = WEIR_LIMIT_SNAPSHOT_INIT;
    prove_same(weir_limit_get_snapshot(limit, &s), WEIR_OK);
    return s;
}

/* Nobody is inside any more: each permit is there once. */
static void check_permits(weir_limit *limit)
{
    weir_permit permit[4];
    for (uint64_t i = 0; i < capacity; i++)
        prove_same(weir_limit_acquire(limit, 1, 0, weir_after(WEIR_SECOND), &permit[i]), WEIR_OK);
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit[3]), WEIR_EFULL);
    prove_same(look(limit).used, capacity);
    for (uint64_t i = 0; i < capacity; i++)
        weir_limit_release(limit, &permit[i], WEIR_LIMIT_SUCCESS);
    weir_limit_release(limit, &permit[0], WEIR_LIMIT_SUCCESS); /* once too often: nothing happens */
    weir_limit_snapshot s = look(limit);
    prove_same(s.used, 0);
    prove_same(s.admitted,
               s.released + s.in_flight + s.lost); /* in flight: not yet found to be lost */
}

/* ---- processes that hold a permit for a while --------------------------------------------------- */

static int inside; /* guarded by a limit of one */

static struct holder {
    _Atomic int pid;
    _Atomic bool holds, has_come;
    _Atomic unsigned had; /* permits */
} holders[3];

/* All have come before one goes on: who comes later would take a dead one's seat, and so clear it. */
static _Atomic bool all_have_come;
static unsigned times; /* that each holds it */

static void begin(uint64_t of, weir_limit_algorithm by)
{
    for (int i = 0; i < 3; i++) {
        holders[i].pid = 0;
        holders[i].had = 0;
        holders[i].holds = holders[i].has_come = false;
    }
    all_have_come = false;
    times = 2;
    capacity = of;
    algorithm = by;
    n_partitions = 1;
}

static bool is_inside(const struct holder *h)
{
    return atomic_load_explicit(&h->holds, memory_order_relaxed) &&
           !(h->pid && prove_process_was_killed(h->pid)); /* 0: it was started just now */
}

static void hold_once(weir_limit *limit, struct holder *own)
{
    weir_permit permit;
    unsigned n = 0;
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit), WEIR_OK);
    atomic_store_explicit(&own->holds, true, memory_order_relaxed);
    atomic_fetch_add_explicit(&own->had, 1, memory_order_relaxed);
    for (int i = 0; i < 3; i++)
        n += is_inside(&holders[i]);
    prove_claim(n <= capacity);
    for (int i = 0; i < 3; i++)
        prove_yield(); /* the others come */
    atomic_store_explicit(&own->holds, false, memory_order_relaxed);
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
}

static void hold_some(void *arg)
{
    weir_limit *limit = find();
    ((struct holder *)arg)->has_come = true;
    while (!all_have_come)
        prove_pause();
    for (unsigned i = 0; i < times; i++)
        hold_once(limit, arg);
    weir_limit_destroy(limit);
}

static struct holder *start(unsigned i, bool may_die)
{
    holders[i].pid = prove_start_process(hold_some, &holders[i], may_die);
    return &holders[i];
}

static void let_go_on(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        while (!holders[i].has_come && !prove_process_was_killed(holders[i].pid))
            prove_pause();
    all_have_come = true;
}

static void add_twice(void *arg)
{
    (void)arg;
    weir_limit *limit = find();
    for (int i = 0; i < 2; i++) {
        weir_permit permit;
        prove_same(weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit), WEIR_OK);
        inside++;                             /* a race, if two are */
        prove_same(look(limit).in_flight, 1); /* who was inside before has been counted out, too */
        weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    }
    weir_limit_destroy(limit);
}

static void shared_gate_excludes(void)
{
    begin(1, WEIR_LIMIT_FIXED);
    inside = 0;
    prove_let_time_stand_still();
    weir_limit *limit = find();
    for (int i = 0; i < 3; i++)
        prove_start_process(add_twice, NULL, false);
    prove_process_wait_all();
    prove_same(inside, 6);
    prove_same(prove_stalls(), 0);
    check_permits(limit);
    weir_limit_destroy(limit);
}

PROVE_CASE(shared_gate_excludes,
           "of three processes one is inside at a time, sees what the last one did, and is woken");

static void add_one(void *arg)
{
    weir_limit *limit = find();
    weir_permit permit;
    (void)arg;
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit), WEIR_OK);
    inside++;
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    weir_limit_destroy(limit);
}

static void shared_gate_woken(void)
{
    begin(1, prove_pick(2) ? WEIR_LIMIT_AIMD : WEIR_LIMIT_FIXED);
    inside = 0;
    weir_limit *limit = find();
    weir_permit permit;
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit), WEIR_OK);
    unsigned n = 1 + prove_pick(2);
    for (unsigned i = 0; i < n; i++)
        prove_start_process(add_one, NULL, false);
    switch (prove_pick(3)) {
    case 0: /* they wait, but nobody has said so */
        for (unsigned i = 0; i < 8; i++)
            prove_pause();
        break;
    case 1:
        while (look(limit).waiting < n)
            prove_pause();
        break;
    default: break;
    }
    inside++;
    prove_let_time_stand_still();
    unsigned stalls = prove_stalls(); /* so far they waited rightly */
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    prove_process_wait_all();
    prove_same(inside, n + 1);
    prove_same(prove_stalls(), stalls);
    prove_same(look(limit).waiting, 0);
    prove_same(look(limit).used, 0);
    weir_limit_destroy(limit);
}

PROVE_CASE(shared_gate_woken, "who waits for a permit is woken by who gives it back");

/* Who comes later leaves it what it waits for; but it is overdue when it has not come for a while. */
static void shared_gate_keeps_the_turn(void)
{
    begin(1, WEIR_LIMIT_FIXED);
    inside = 0;
    weir_limit *limit = find();
    weir_permit permit;
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit), WEIR_OK);
    prove_start_process(add_one, NULL, false);
    while (look(limit).waiting < 1)
        prove_pause();
    weir_time since = weir_now();
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    int rc = weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit);
    if (rc == WEIR_OK) {
        prove_claim(inside == 1 || weir_now() > since + WEIR__OVERDUE);
        weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    }
    prove_process_wait_all();
    weir_limit_destroy(limit);
}

PROVE_CASE(shared_gate_keeps_the_turn, "who comes later leaves a waiter the permit it waits for");

static void take_one(void *arg)
{
    weir_limit *limit = find();
    weir_permit permit;
    (void)arg;
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit), WEIR_OK);
    inside++;
    for (unsigned i = 0; i < 20 && look(limit).waiting == 0; i++)
        prove_pause(); /* the other one comes */
    weir_limit_destroy(limit);
}

static void shared_gate_left_with_a_permit(void)
{
    begin(1, WEIR_LIMIT_FIXED);
    inside = 0;
    prove_let_time_stand_still();
    weir_limit *limit = find();
    prove_start_process(take_one, NULL, false);
    prove_start_process(take_one, NULL, false);
    prove_process_wait_all();
    prove_same(inside, 2);
    prove_same(prove_stalls(), 0);
    check_permits(limit);
    weir_limit_destroy(limit);
}

PROVE_CASE(shared_gate_left_with_a_permit,
           "what a process holds goes back when it lets go of the limit");

static _Atomic bool has_given_up, is_staying;

/* Under the lock: as if this process were stopped there. */
static uint64_t stay(void *state, uint64_t used, uint64_t now, void *ctx)
{
    (void)state, (void)used, (void)ctx;
    is_staying = true;
    while (!has_given_up)
        nanosleep(&(struct timespec){.tv_nsec = WEIR_MILLISECOND}, NULL);
    return now;
}

static uint64_t leave_as_it_is(void *state, uint64_t used, uint64_t now, void *ctx)
{
    (void)state, (void)used, (void)ctx;
    return now;
}

static int say_yes(void *ctx)
{
    (void)ctx;
    return 1;
}

static weir_time patience; /* of who gives up: shorter than a look at the line, or longer */
static bool is_interrupted;

static void give_up(void *gate)
{
    weir_time deadline = is_interrupted ? WEIR_FOREVER : weir_after(patience);
    weir_set_interrupt(is_interrupted ? say_yes : NULL, NULL);
    prove_same(weir__gate_acquire(gate, 1, 0, deadline),
               is_interrupted ? WEIR_EINTR : WEIR_ETIMEDOUT);
    weir_set_interrupt(NULL, NULL);
    prove_same(weir__gate_acquire(gate, 1, 0, WEIR_POLL), WEIR_EFULL);
    has_given_up = true;
}

static weir__gate_counts count(weir__gate *gate)
{
    weir__gate_counts counts;
    weir__gate_get_counts(gate, &counts);
    return counts;
}

static uint64_t told(weir__gate *gate, weir_stats_number number)
{
    return atomic_load_explicit(&weir__gate_record(gate)->number[number], memory_order_relaxed);
}

static const weir__gate_opts of_stay = {
    .capacity = 1, .kind = "stay", .shared = NAME, .stats_kind = WEIR_STATS_LIMIT};

static weir__gate *find_stay(void)
{
    weir__gate *gate;
    has_given_up = is_staying = false;
    prove_keep_records(true);
    prove_same(weir__gate_create(&gate, &of_stay), WEIR_OK);
    prove_same(weir__gate_acquire(gate, 1, 0, WEIR_POLL), WEIR_OK);
    return gate;
}

static void shared_gate_given_up_without_the_lock(void)
{
    is_interrupted = prove_pick(2);
    patience = prove_pick(2) ? 60 * WEIR_MILLISECOND : WEIR_MILLISECOND;
    weir__gate *gate = find_stay();
    int t = prove_spawn(give_up, gate);
    while (count(gate).waiting == 0 && !has_given_up)
        prove_pause();
    weir__gate_update(gate, stay, NULL);
    prove_join(t);
    prove_same(count(gate).waiting, 0);
    prove_same(count(gate).refused, is_interrupted ? 1 : 2);
    prove_same(told(gate, WEIR_STATS_PUT_WAITING), 0);
    prove_same(told(gate, WEIR_STATS_PUT_WAITS), 1);
    weir__gate_release(gate, 1, 0, NULL, NULL);
    prove_same(weir__gate_acquire(gate, 1, 0, WEIR_POLL), WEIR_OK);
    weir__gate_destroy(gate);
}

PROVE_CASE(shared_gate_given_up_without_the_lock,
           "who cannot get the lock before its time is over leaves the line all the same");

static void wait_interrupted(void *arg)
{
    weir_limit *limit = arg;
    weir_permit permit;
    weir_set_interrupt(say_yes, NULL);
    int rc = weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit);
    weir_set_interrupt(NULL, NULL);
    prove_claim(rc == WEIR_OK || rc == WEIR_EINTR);
    if (rc == WEIR_OK)
        weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
}

static void go_through(void *arg)
{
    weir_limit *limit = arg;
    weir_permit permit;
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit), WEIR_OK);
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
}

static void shared_gate_interrupted_as_it_is_called(void)
{
    begin(1, WEIR_LIMIT_FIXED);
    prove_take_first_ways(true);
    weir_limit *limit = find();
    weir_permit permit;
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit), WEIR_OK);
    int first = prove_spawn(wait_interrupted, limit);
    while (look(limit).waiting < 1)
        prove_yield();
    int second = prove_spawn(go_through, limit);
    while (look(limit).waiting < 2)
        prove_yield();
    prove_take_first_ways(false);
    prove_yield(); /* its slice may end here */
    prove_let_time_stand_still();
    unsigned stalls = prove_stalls();
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    prove_join(first);
    prove_join(second);
    prove_same(prove_stalls(), stalls);
    weir_limit_destroy(limit);
}

PROVE_CASE(shared_gate_interrupted_as_it_is_called,
           "who gives up a turn that it was just called for passes that on");

/* Its hook says yes each time, for what it is asked about has not gone away. */
static void release_interrupted(void *gate)
{
    weir_set_interrupt(say_yes, NULL);
    weir__gate_release(gate, 1, 0, leave_as_it_is, NULL);
    weir_set_interrupt(NULL, NULL);
    has_given_up = true;
}

static void shared_gate_released_beside_a_stopped_one(void)
{
    weir__gate *gate = find_stay();
    int t = prove_spawn(release_interrupted, gate);
    weir__gate_update(gate, stay, NULL);
    prove_join(t);
    prove_same(weir__gate_acquire(gate, 1, 0, WEIR_POLL), WEIR_OK);
    weir__gate_destroy(gate);
}

PROVE_CASE(shared_gate_released_beside_a_stopped_one,
           "who gives back goes on, interrupted or not, though the lock's owner is stopped");

static void come_in_vain(void *arg)
{
    (void)arg;
    weir__gate *gate;
    while (!is_staying)
        prove_pause();
    prove_same(weir__gate_create(&gate, &of_stay), WEIR_ETIMEDOUT);
    has_given_up = true;
}

static void shared_gate_opened_beside_a_stopped_one(void)
{
    weir__gate *gate = find_stay();
    prove_start_process(come_in_vain, NULL, false);
    weir__gate_update(gate, stay, NULL);
    prove_process_wait_all();
    weir__gate_destroy(gate);
}

PROVE_CASE(shared_gate_opened_beside_a_stopped_one,
           "who cannot get the lock as it comes has no seat, and says so");

static void wait_until_closed(void *arg)
{
    weir_limit *limit = arg;
    weir_permit permit;
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit), WEIR_ECLOSED);
}

static void shared_gate_closed(void)
{
    begin(1, WEIR_LIMIT_FIXED);
    weir_limit *limit = find();
    weir_permit permit;
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &permit), WEIR_OK);
    int t = prove_spawn(wait_until_closed, limit);
    if (!prove_pick(2))
        while (look(limit).waiting < 1)
            prove_pause();
    weir_limit_close(limit);
    prove_join(t);
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    prove_same(look(limit).waiting, 0);
    weir_limit_destroy(limit);
}

PROVE_CASE(shared_gate_closed, "who waits in the process that closes a limit sees it");

static void wait_for_one(void *arg)
{
    weir_limit *limit = find();
    weir_permit permit;
    (void)arg;
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit), WEIR_OK);
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    weir_limit_destroy(limit);
}

static void shared_gate_called_in_vain(void)
{
    begin(2, WEIR_LIMIT_FIXED);
    weir_limit *limit = find();
    weir_permit a, b;
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &a), WEIR_OK);
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_POLL, &b), WEIR_OK);
    prove_start_process(wait_for_one, NULL, false);
    while (look(limit).waiting == 0)
        prove_pause();
    weir_limit_release(limit, &a, WEIR_LIMIT_SUCCESS);
    prove_same(weir_limit_set(limit, 1), 0);
    for (unsigned i = 0; i < 8; i++)
        prove_pause(); /* it comes, and waits again */
    prove_let_time_stand_still();
    unsigned stalls = prove_stalls();
    weir_limit_release(limit, &b, WEIR_LIMIT_SUCCESS);
    prove_process_wait_all();
    prove_same(prove_stalls(), stalls);
    weir_limit_destroy(limit);
}

PROVE_CASE(shared_gate_called_in_vain, "who is called and finds no room is called again");

static void shared_gate_killed_holders(void)
{
    begin(1 + prove_pick(2), WEIR_LIMIT_FIXED);
    weir_limit *limit = find();
    const struct holder *a = start(0, true), *b = start(1, true);
    start(2, false);
    let_go_on(3);
    prove_process_wait_all();
    if (!prove_process_was_killed(a->pid) && !prove_process_was_killed(b->pid))
        prove_same(look(limit).lost, 0);
    unsigned killed = prove_process_was_killed(a->pid) + prove_process_was_killed(b->pid);
    weir_limit_snapshot s =
        look(limit); /* who is killed as it finds a dead one may not count that */
    prove_claim(killed == 2 || s.admitted >= holders[0].had + holders[1].had + holders[2].had);
    check_permits(limit);
    weir_limit_destroy(limit);
}

PROVE_CASE(shared_gate_killed_holders,
           "what a killed process held comes back once, and who waits gets it");

static void hold_in_the_second(void *arg)
{
    weir_limit *limit = find();
    weir_permit permit;
    (void)arg;
    prove_same(weir_limit_acquire(limit, 1, 1, WEIR_FOREVER, &permit), WEIR_OK);
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    weir_limit_destroy(limit);
}

static void shared_gate_killed_in_a_partition(void)
{
    begin(1, WEIR_LIMIT_FIXED);
    n_partitions = 2;
    weir_limit *limit = find();
    prove_start_process(hold_in_the_second, NULL, true);
    prove_process_wait_all();
    check_permits(limit);
    weir_limit_destroy(limit);
}

PROVE_CASE(shared_gate_killed_in_a_partition,
           "what a killed process held comes back, whatever partition it was in");

static void shared_gate_looked_at(void)
{
    begin(20, WEIR_LIMIT_AIMD);
    weir_limit *limit = find();
    times = 1;
    start(0, false);
    let_go_on(1);
    for (int i = 0; i < 3; i++)
        prove_claim(weir_limit_get(limit) >= 10); /* what was there before the first update is 0 */
    prove_process_wait_all();
    weir_limit_destroy(limit);
}

PROVE_CASE(shared_gate_looked_at,
           "who looks sees one state of a limit or the next, though it takes no lock");

static _Atomic bool has_changed; /* and tells nobody more than that */

static void change_it(void *arg)
{
    (void)arg;
    weir_permit permit;
    weir_limit *limit = find();
    prove_same(weir_limit_acquire(limit, 1, 0, WEIR_FOREVER, &permit), WEIR_OK);
    weir_limit_release(limit, &permit, WEIR_LIMIT_SUCCESS);
    atomic_store_explicit(&has_changed, true, memory_order_relaxed);
    weir_limit_destroy(limit);
}

/* By the first update: what was in the copy before it is 0. */
static void shared_gate_looked_at_late(void)
{
    begin(20, WEIR_LIMIT_AIMD);
    prove_take_first_ways(true);
    weir_limit *limit = find();
    prove_start_process(change_it, NULL, false);
    while (!atomic_load_explicit(&has_changed, memory_order_relaxed))
        prove_pause();
    prove_take_first_ways(false);
    prove_claim(weir_limit_get(limit) >= 10);
    prove_take_first_ways(true);
    prove_process_wait_all();
    weir_limit_destroy(limit);
}

PROVE_CASE(shared_gate_looked_at_late, "who sees that there is a new state sees what it is");

typedef struct pair {
    uint64_t a, b; /* the same, in each state that there is */
} pair;

static weir__gate *find_pair(void)
{
    weir__gate_opts opts = {
        .capacity = 1, .kind = "pair", .shared = NAME, .state_size = sizeof(pair)};
    weir__gate *gate;
    int rc;
    while ((rc = weir__gate_create(&gate, &opts)) == WEIR_ETIMEDOUT)
        continue;
    prove_same(rc, WEIR_OK);
    return gate;
}

static uint64_t grow(void *state, uint64_t used, uint64_t now, void *ctx)
{
    pair *p = state;
    (void)used, (void)ctx;
    p->a++;
    p->b++;
    return now;
}

static void grow_thrice(void *gate)
{
    for (int i = 0; i < 3; i++)
        weir__gate_update(gate, grow, NULL);
}

/* Three: the third is written where the first one, which may be looked at, was. */
static void shared_gate_state_is_whole(void)
{
    weir__gate *gate = find_pair();
    pair seen, last;
    int t = prove_spawn(grow_thrice, gate);
    weir__gate_look(gate, &seen);
    prove_join(t);
    weir__gate_look(gate, &last);
    prove_claim(seen.a == seen.b && seen.a <= 3);
    prove_claim(last.a == 3 && last.b == 3);
    weir__gate_destroy(gate);
}

PROVE_CASE(shared_gate_state_is_whole,
           "who looks at a state that others change sees one that there was");

static void grow_and_leave(void *arg)
{
    (void)arg;
    weir__gate *gate = find_pair();
    grow_thrice(gate);
    weir__gate_destroy(gate);
}

static void shared_gate_state_of_the_killed_is_whole(void)
{
    weir__gate *gate = find_pair();
    pair seen;
    prove_start_process(grow_and_leave, NULL, true);
    prove_process_wait_all();
    weir__gate_look(gate, &seen);
    prove_claim(seen.a == seen.b && seen.a <= 3);
    weir__gate_destroy(gate);
}

PROVE_CASE(shared_gate_state_of_the_killed_is_whole,
           "a state is the one before or the next one, whatever point its writer is killed at");

static void shared_gate_killed_in_an_update(void)
{
    begin(2, WEIR_LIMIT_AIMD);
    weir_limit *limit = find();
    start(0, true);
    start(1, false);
    let_go_on(2);
    prove_process_wait_all();
    weir_permit permit;
    prove_same(weir_limit_acquire(limit, 1, 0, weir_after(WEIR_SECOND), &permit), WEIR_OK);
    weir_limit_release(limit, &permit, WEIR_LIMIT_DROP);
    weir_limit_snapshot s = look(limit);
    prove_claim(s.limit >= 1 && s.limit <= 1000);
    prove_claim(s.admitted == s.released + s.in_flight + s.lost);
    weir_limit_destroy(limit);
}

PROVE_CASE(shared_gate_killed_in_an_update,
           "the state of a limit is one or the next, never between");

/* ---- names ------------------------------------------------------------------------------------ */

static void come_and_go(void *arg)
{
    weir_limit *limit = find();
    hold_once(limit, arg);
    weir_limit_destroy(limit);
}

static void named_comes_and_goes(void)
{
    begin(1, WEIR_LIMIT_FIXED);
    weir_limit *limit = prove_pick(2) ? NULL : find();
    for (int i = 0; i < 3; i++)
        holders[i].pid = prove_start_process(come_and_go, &holders[i], false);
    weir_limit_destroy(limit);
    prove_process_wait_all();
    prove_same(prove_names(), 0);
}

PROVE_CASE(named_comes_and_goes,
           "who sits at a name at the same time sits at one, and the last takes it away");

static void named_killed(void)
{
    begin(1, WEIR_LIMIT_FIXED);
    start(0, true);
    start(1, true);
    let_go_on(2);
    prove_process_wait_all();
    weir_limit *limit = find();
    check_permits(limit);
    weir_limit_destroy(limit);
    prove_same(prove_names(), 0);
}

PROVE_CASE(named_killed, "what killed processes left at a name is used, and goes with the next");

/* Who comes first takes the seat for both. */
static void named_in_a_forked_child(void)
{
    begin(2, WEIR_LIMIT_FIXED);
    weir_limit *limit = find();
    prove_be_forked();
    int t = prove_spawn(go_through, limit);
    go_through(limit);
    prove_join(t);
    weir_limit_snapshot s = look(limit);
    prove_claim(s.used == 0 && s.released == 2 && s.lost == 0);
    weir_limit_destroy(limit);
}

PROVE_CASE(named_in_a_forked_child, "two threads of a forked child sit on one seat, their own");
