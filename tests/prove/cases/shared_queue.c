/* shared_queue.c - flow/shared_queue, shared_ring, shared_line, door: processes that share a queue, and may be killed at
 * any point.  Each has a mapping of its own. */
#include "../prove.h"

#include <stdio.h>
#include <string.h>

#include <weir/shared_queue.h>

#include "base/park.h"
#include "flow/shared_line.h"
#include "flow/shared_ring.h"

#define PARTIES  5
#define MESSAGES 4 /* of one party */

static weir_shared_queue *queue; /* the body's handle */

/* What a process, or a thread of the body's, did as it noted itself; read when it has ended. */
typedef struct party {
    bool puts;
    unsigned number, n;    /* n: messages to put, or at most to get */
    size_t size;           /* of each */
    unsigned began, ended; /* one more began than ended where it was killed in between */
    unsigned got[MESSAGES];
    int last; /* result */
    int pid;
} party;

static party parties[PARTIES];
static unsigned n_parties;

static void make_for(size_t capacity, uint64_t max_bytes, weir_overflow overflow)
{
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    opts.capacity = capacity;
    opts.max_bytes = max_bytes;
    opts.overflow = overflow;
    opts.name = "";
    memset(parties, 0, sizeof parties);
    n_parties = 0;
    prove_same(weir_shared_queue_create(&queue, &opts), WEIR_OK);
}

static void make(size_t capacity, weir_overflow overflow)
{
    make_for(capacity, 4096, overflow);
}

/* ---- what the parties do ---------------------------------------------------------------------- */

static weir_shared_queue *attach(void)
{
    weir_shared_queue *handle;
    prove_same(weir_shared_queue_attach(&handle, weir_shared_queue_fd(queue)), WEIR_OK);
    return handle;
}

/* Says whose it is, and how manieth of those. */
static unsigned value_of(const party *own, unsigned i)
{
    return 100 * (own->number + 1) + i;
}

static int put_one(weir_shared_queue *handle, unsigned value, size_t size, weir_time deadline)
{
    static char payload[4096]; /* zeros behind the value */
    char bytes[4096];
    memcpy(bytes, payload, size);
    memcpy(bytes, &value, sizeof value);
    weir_message message = {bytes, size, value};
    return weir_shared_queue_put(handle, &message, deadline);
}

static int get_one(weir_shared_queue *handle, unsigned *ret_value, weir_time deadline)
{
    weir_buffer buffer = {0};
    weir_message message;
    int rc = weir_shared_queue_get(handle, &message, &buffer, deadline);
    if (rc == WEIR_OK) {
        prove_claim(message.size >= sizeof *ret_value);
        memcpy(ret_value, message.data, sizeof *ret_value);
        prove_same(message.tag, *ret_value);
    }
    weir_buffer_free(&buffer);
    return rc;
}

static void work(void *arg)
{
    party *own = arg;
    weir_shared_queue *handle = attach();
    while (own->ended < own->n && own->last >= 0) {
        unsigned got = 0;
        own->began++;
        own->last = own->puts ? put_one(handle, value_of(own, own->ended), own->size, WEIR_FOREVER)
                              : get_one(handle, &got, WEIR_FOREVER);
        if (own->last < 0) {
            own->began--;
            break;
        }
        own->got[own->ended++] = got;
    }
    weir_shared_queue_destroy(handle);
}

static party *add(bool puts, unsigned n)
{
    party *own = &parties[n_parties];
    *own = (party){.puts = puts, .number = n_parties++, .n = n, .size = sizeof(unsigned)};
    return own;
}

static party *start(bool puts, unsigned n, bool may_die)
{
    party *own = add(puts, n);
    own->pid = prove_start_process(work, own, may_die);
    return own;
}

/* ---- the law ---------------------------------------------------------------------------------- */

static uint64_t drops(const weir_shared_queue_snapshot *s)
{
    uint64_t sum = 0;
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        sum += s->dropped[i];
    return sum;
}

/* At any moment. */
static weir_shared_queue_snapshot check_law(const weir_shared_queue *handle)
{
    weir_shared_queue_snapshot s = WEIR_SHARED_QUEUE_SNAPSHOT_INIT;
    weir_shared_queue_get_snapshot(handle, &s);
    prove_same(s.accepted, s.delivered + drops(&s) + s.depth);
    uint64_t dropped_bytes = 0;
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        dropped_bytes += s.dropped_bytes[i];
    prove_same(s.accepted_bytes, s.delivered_bytes + dropped_bytes + s.bytes);
    prove_claim(s.depth <= s.capacity && s.bytes <= s.max_bytes);
    return s;
}

static unsigned times_seen[PARTIES][MESSAGES];

/* By who gets it: in the order in which its putter put it. */
static void see(unsigned value, unsigned behind[PARTIES])
{
    unsigned putter = value / 100 - 1, i = value % 100;
    prove_claim(putter < n_parties && parties[putter].puts && i < parties[putter].n);
    times_seen[putter][i]++;
    prove_claim(i >= behind[putter]);
    behind[putter] = i + 1;
}

static unsigned sum_seen(void)
{
    unsigned sum = 0;
    for (unsigned p = 0; p < PARTIES; p++)
        for (unsigned i = 0; i < MESSAGES; i++) {
            prove_claim(times_seen[p][i] <= 1);
            sum += times_seen[p][i];
        }
    return sum;
}

static bool was_killed(const party *p)
{
    return p->pid && prove_process_was_killed(p->pid);
}

/* Nobody waits any more: the places of the dead are found, those that had been called by when they are overdue. */
static void check_lines(void)
{
    static _Atomic uint32_t nothing;
    unsigned value;
    weir__futex_wait(&nothing, 0, weir_after(2 * WEIR__OVERDUE), false);
    prove_same(weir_shared_queue_close(queue), WEIR_OK);
    prove_same(get_one(queue, &value, WEIR_POLL), WEIR_ECLOSED);
    weir_shared_queue_snapshot s = check_law(queue);
    prove_same(s.getters_waiting + s.putters_waiting, 0);
}

/* All have ended: what was accepted was got once, or dropped, or is there; but for what killed getters took with
 * them. */
static void end(void)
{
    unsigned puts = 0, puts_at_most = 0, gets = 0, gets_at_most = 0, behind[PARTIES];
    memset(times_seen, 0, sizeof times_seen);
    for (unsigned i = 0; i < n_parties; i++) {
        const party *p = &parties[i];
        prove_claim(p->began == p->ended || was_killed(p));
        *(p->puts ? &puts : &gets) += p->ended;
        *(p->puts ? &puts_at_most : &gets_at_most) += p->began;
        memset(behind, 0, sizeof behind);
        for (unsigned k = 0; !p->puts && k < p->ended; k++)
            see(p->got[k], behind);
    }
    weir_shared_queue_snapshot s = check_law(queue);
    prove_claim(puts <= s.accepted && s.accepted <= puts_at_most);
    prove_claim(gets <= s.delivered && s.delivered <= gets_at_most);
    memset(behind, 0, sizeof behind);
    for (unsigned value; get_one(queue, &value, WEIR_POLL) == WEIR_OK;)
        see(value, behind);
    prove_same(sum_seen(), gets + s.depth);
    check_lines();
    weir_shared_queue_destroy(queue);
}

/* ---- waiting ---------------------------------------------------------------------------------- */

static void until_waiting(size_t putters, size_t getters)
{
    for (;;) {
        weir_shared_queue_snapshot s = check_law(queue);
        if (s.putters_waiting >= putters && s.getters_waiting >= getters)
            return;
        prove_pause();
    }
}

/* Who comes later leaves it what it waits for; but it is overdue when it has not come for a while. */
static void shared_queue_keeps_the_turn(void)
{
    make(1, WEIR_OVERFLOW_BLOCK);
    unsigned value;
    bool puts = prove_pick(2);
    if (puts)
        prove_same(put_one(queue, 500, sizeof value, WEIR_FOREVER), WEIR_KEPT);
    party *first = start(puts, 1, false);
    until_waiting(puts, !puts);
    weir_time since = weir_now();
    if (puts)
        prove_same(get_one(queue, &value, WEIR_FOREVER), WEIR_OK);
    else
        prove_same(put_one(queue, 500, sizeof value, WEIR_FOREVER), WEIR_KEPT);
    int rc =
        puts ? put_one(queue, 600, sizeof value, WEIR_POLL) : get_one(queue, &value, WEIR_POLL);
    prove_claim(rc < 0 || weir_now() > since + WEIR__OVERDUE);
    if (rc == WEIR_OK && puts) /* in its stead */
        prove_same(get_one(queue, &value, WEIR_FOREVER), WEIR_OK);
    else if (rc == WEIR_OK)
        prove_same(put_one(queue, 500, sizeof value, WEIR_FOREVER), WEIR_KEPT);
    prove_process_wait(first->pid);
    prove_same(first->last, WEIR_OK);
    weir_shared_queue_destroy(queue);
}

PROVE_CASE(shared_queue_keeps_the_turn, "who comes later leaves a waiter what it waits for");

static void shared_queue_called_in_vain(void)
{
    make(1, WEIR_OVERFLOW_BLOCK);
    party *getter = start(false, 1, false);
    until_waiting(0, 1);
    prove_same(put_one(queue, 500, sizeof(unsigned), WEIR_FOREVER), WEIR_KEPT);
    unsigned stalls = prove_stalls();
    if (weir_shared_queue_discard(queue) == 1) {
        for (unsigned i = 0; i < 4; i++)
            prove_pause(); /* it comes, and waits again */
        prove_let_time_stand_still();
        stalls = prove_stalls();
        prove_same(put_one(queue, 501, sizeof(unsigned), WEIR_FOREVER), WEIR_KEPT);
    }
    prove_process_wait(getter->pid);
    prove_same(prove_stalls(), stalls);
    prove_same(getter->last, WEIR_OK);
    weir_shared_queue_destroy(queue);
}

PROVE_CASE(shared_queue_called_in_vain, "who is called and finds nothing is called again");

static int interrupt(void *ctx)
{
    (void)ctx;
    return 1;
}

static void wait_interrupted(void *arg)
{
    party *own = arg;
    weir_shared_queue *handle = attach();
    unsigned value = 500;
    weir_set_interrupt(interrupt, NULL);
    own->last = own->puts ? put_one(handle, value, sizeof value, WEIR_FOREVER)
                          : get_one(handle, &value, WEIR_FOREVER);
    weir_set_interrupt(NULL, NULL);
    weir_shared_queue_destroy(handle);
}

static void shared_queue_interrupted(void)
{
    make(1, WEIR_OVERFLOW_BLOCK);
    bool puts = prove_pick(2);
    if (puts)
        prove_same(put_one(queue, 500, sizeof(unsigned), WEIR_FOREVER), WEIR_KEPT);
    party *own = add(puts, 1);
    prove_start_process(wait_interrupted, own, false);
    prove_process_wait_all();
    prove_same(own->last, WEIR_EINTR);
    weir_shared_queue_snapshot s = check_law(queue);
    prove_same(s.getters_waiting + s.putters_waiting, 0);
    prove_same(s.depth, puts);
    weir_shared_queue_destroy(queue);
}

PROVE_CASE(shared_queue_interrupted, "a wait that is interrupted leaves nothing behind");

/* Takes one out, or puts one in: what those who wait on the other side wait for. */
static void let_one_go_on(bool puts)
{
    unsigned value;
    prove_same(puts ? get_one(queue, &value, WEIR_POLL)
                    : put_one(queue, 500, sizeof value, WEIR_POLL),
               WEIR_OK);
}

static void shared_queue_interrupted_as_it_is_called(void)
{
    make(1, WEIR_OVERFLOW_BLOCK);
    bool puts = prove_pick(2);
    prove_take_first_ways(true);
    if (puts)
        prove_same(put_one(queue, 500, sizeof(unsigned), WEIR_POLL), WEIR_KEPT);
    party *first = add(puts, 1);
    first->pid = prove_start_process(wait_interrupted, first, false);
    until_waiting(puts, !puts);
    party *second = start(puts, 1, false);
    until_waiting(2 * puts, 2 * !puts);
    prove_take_first_ways(false);
    prove_yield(); /* the first one's slice may end here */
    prove_let_time_stand_still();
    unsigned stalls = prove_stalls();
    let_one_go_on(puts);
    prove_process_wait(first->pid);
    if (first->last == WEIR_OK)
        let_one_go_on(puts);
    prove_process_wait(second->pid);
    prove_same(prove_stalls(), stalls);
    prove_same(second->last, WEIR_OK);
    weir_shared_queue_destroy(queue);
}

PROVE_CASE(shared_queue_interrupted_as_it_is_called,
           "who gives up a turn that it was just called for passes that on");

static void shared_queue_all_wait(void)
{
    make(1, WEIR_OVERFLOW_BLOCK);
    start(true, 2, false);
    start(true, 1, false);
    start(false, 2, false);
    start(false, 1, false);
    prove_let_time_stand_still();
    prove_process_wait_all();
    prove_same(prove_stalls(), 0);
    end();
}

PROVE_CASE(shared_queue_all_wait,
           "four processes pass messages through room for one: who can go on is woken");

static void shared_queue_closed_with_waiters(void)
{
    make(1, WEIR_OVERFLOW_BLOCK);
    bool puts = prove_pick(2);
    party *a = start(puts, 3, false), *b = start(puts, 3, false);
    if (prove_pick(2))
        until_waiting(puts ? 2 : 0, puts ? 0 : 2);
    prove_let_time_stand_still();
    unsigned stalls = prove_stalls();
    prove_same(weir_shared_queue_close(queue), WEIR_OK);
    prove_process_wait_all();
    prove_same(prove_stalls(), stalls);
    prove_claim(a->last == WEIR_ECLOSED && b->last == WEIR_ECLOSED);
    weir_shared_queue_snapshot s = check_law(queue);
    prove_same(s.getters_waiting + s.putters_waiting, 0);
    weir_shared_queue_destroy(queue);
}

PROVE_CASE(shared_queue_closed_with_waiters, "who waits in another process sees that it is closed");

static void shared_queue_discarded_with_waiters(void)
{
    make(1, WEIR_OVERFLOW_BLOCK);
    prove_same(put_one(queue, 1, 8, WEIR_POLL), WEIR_KEPT);
    party *a = start(true, 1, false);
    until_waiting(1, 0);
    prove_let_time_stand_still();
    unsigned stalls = prove_stalls();
    prove_same(weir_shared_queue_discard(queue), 1);
    prove_process_wait_all();
    prove_same(prove_stalls(), stalls);
    prove_same(a->last, WEIR_KEPT);
    weir_shared_queue_snapshot s = check_law(queue);
    prove_same(s.putters_waiting, 0);
    prove_same(s.depth, 1);
    weir_shared_queue_destroy(queue);
}

PROVE_CASE(shared_queue_discarded_with_waiters,
           "who waits for room in another process has it when all inside is dropped");

static void shared_queue_timed_out(void)
{
    make(1, WEIR_OVERFLOW_BLOCK);
    start(true, 2, false);
    unsigned value, got = 0;
    for (int i = 0; i < 4 && got < 2; i++) {
        int rc = get_one(queue, &value, weir_after(WEIR_MILLISECOND));
        prove_claim(rc == WEIR_OK || rc == WEIR_ETIMEDOUT);
        got += rc == WEIR_OK;
    }
    while (got < 2) {
        prove_same(get_one(queue, &value, WEIR_FOREVER), WEIR_OK);
        got++;
    }
    prove_process_wait_all();
    weir_shared_queue_snapshot s = check_law(queue);
    prove_claim(s.accepted == 2 && s.delivered == 2);
    prove_same(s.getters_waiting + s.putters_waiting, 0);
    weir_shared_queue_destroy(queue);
}

PROVE_CASE(shared_queue_timed_out, "a wait that ends by its deadline leaves nothing behind");

/* ---- deaths ----------------------------------------------------------------------------------- */

/* A getter that is not killed takes what is left, until the others have ended and the queue is closed. */
static void close_behind(unsigned putters)
{
    party *last = add(false, MESSAGES);
    int t = prove_spawn(work, last);
    for (unsigned i = 0; i < putters; i++)
        prove_process_wait(parties[i].pid);
    prove_same(weir_shared_queue_close(queue), WEIR_OK);
    prove_join(t);
    prove_process_wait_all();
    prove_claim(last->last == WEIR_ECLOSED || last->ended == MESSAGES);
    end();
}

static void shared_queue_killed_putter(void)
{
    make(1, WEIR_OVERFLOW_BLOCK);
    start(true, 2, true);
    start(true, 2, false);
    close_behind(2);
}

PROVE_CASE(shared_queue_killed_putter,
           "a put is there or was never made, whatever point its process is killed at");

static void shared_queue_killed_getter(void)
{
    make(1, WEIR_OVERFLOW_BLOCK);
    start(true, 3, false);
    start(false, 2, true);
    close_behind(1);
}

PROVE_CASE(shared_queue_killed_getter,
           "nothing is lost but what a killed getter had taken, and nobody waits for it");

static void shared_queue_all_killed(void)
{
    make(2, prove_pick(2) ? WEIR_OVERFLOW_DROP_OLDEST : WEIR_OVERFLOW_BLOCK);
    start(true, 2, true);
    start(true, 1, true);
    start(false, 2, true);
    close_behind(2);
}

PROVE_CASE(shared_queue_all_killed,
           "the law holds and nobody is stuck where any process is killed");

static char chunk[WEIR__CHUNK]; /* the putter's */

static void put_chunks(void *arg)
{
    (void)arg;
    weir_shared_queue *handle = attach();
    for (unsigned value = 1; value <= 2; value++) {
        memcpy(chunk, &value, sizeof value);
        weir_message message = {chunk, WEIR__CHUNK - sizeof(weir__ring_record), value};
        prove_same(weir_shared_queue_put(handle, &message, WEIR_POLL), WEIR_KEPT);
    }
    weir_shared_queue_destroy(handle);
}

/* The second is written where the first was: when that is out. */
static void shared_queue_killed_as_it_drops(void)
{
    unsigned value;
    make_for(1, WEIR__CHUNK, WEIR_OVERFLOW_DROP_OLDEST);
    int pid = prove_start_process(put_chunks, NULL, true);
    prove_process_wait(pid);
    check_law(queue);
    int rc = get_one(queue, &value, WEIR_POLL); /* and it is the one that its tag says */
    prove_claim(rc == WEIR_OK || prove_process_was_killed(pid));
    weir_shared_queue_destroy(queue);
}

PROVE_CASE(shared_queue_killed_as_it_drops,
           "a message is whole until it is dropped, whatever point its putter is killed at");

/* ---- looking, and memory ---------------------------------------------------------------------- */

static void look_on(void *arg)
{
    (void)arg;
    weir_shared_queue *handle = attach();
    check_law(handle);
    check_law(handle);
    weir_shared_queue_destroy(handle);
}

static void shared_queue_looked_at(void)
{
    make(1, WEIR_OVERFLOW_DROP_OLDEST);
    prove_start_process(look_on, NULL, false);
    start(true, 3, false);
    prove_process_wait_all();
    end();
}

PROVE_CASE(shared_queue_looked_at, "a snapshot is of one instant, though it takes no lock");
