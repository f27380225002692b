/* A participant that is killed: at any instruction, and the others go on.
 *
 * Each scenario runs one call of a child process under PTRACE_SINGLESTEP and kills the child after
 * its n-th instruction, for n = 1, 2, ... until the call is over: each time with a fresh queue, and
 * each time the survivors must find it whole: the law holds, no message is torn, lost or doubled,
 * whoever waits is served, and puts and gets go on.
 *
 * In `make check` n takes strides, with another phase each run; every instruction:
 *     WEIR_KILL_STRIDE=1 build/tests/fault_shared_queue
 */
#include "faults.h"
#include "steps.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flow/shared_ring.h"

#define CAPACITY 4
#define LENGTH   40 /* of an ordinary message */

/* ---- messages that show when they are torn -------------------------------------------------- */

static _Thread_local unsigned char bytes_of[200 << 10];

/* Message n: its bytes follow from n and its size. */
static weir_message message(uint32_t n, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes_of[i] = (unsigned char)(n * 31 + i * 7 + (i >> 8));
    return (weir_message){bytes_of, size, n};
}

static bool is_whole(const weir_message *m)
{
    const unsigned char *at = m->data;
    for (size_t i = 0; i < m->size; i++)
        if (at[i] != (unsigned char)(m->tag * 31 + i * 7 + (i >> 8)))
            return false;
    return true;
}

static int put(weir_shared_queue *queue, uint32_t n, weir_time deadline)
{
    weir_message m = message(n, LENGTH);
    return weir_shared_queue_put(queue, &m, deadline);
}

/* The message's number, or an error. */
static int64_t get(weir_shared_queue *queue, weir_time deadline)
{
    weir_buffer buffer = {0};
    weir_message m;
    int64_t rc = weir_shared_queue_get(queue, &m, &buffer, deadline);
    if (rc == WEIR_OK) {
        must(is_whole(&m));
        rc = m.tag;
    }
    weir_buffer_free(&buffer);
    return rc;
}

static weir_shared_queue_snapshot look(const weir_shared_queue *queue)
{
    weir_shared_queue_snapshot now = WEIR_SHARED_QUEUE_SNAPSHOT_INIT;
    must(weir_shared_queue_get_snapshot(queue, &now) == WEIR_OK);
    return now;
}

static void check_law(const weir_shared_queue_snapshot *now)
{
    must(now->accepted == now->delivered + total(now->dropped) + now->depth);
    must(now->accepted_bytes == now->delivered_bytes + total(now->dropped_bytes) + now->bytes);
    must(now->depth <= now->capacity && now->bytes <= now->max_bytes);
}

/* Whose messages begin `skew` bytes into a chunk. */
static weir_shared_queue *make_empty(weir_overflow overflow, size_t skew)
{
    weir_shared_queue *queue;
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    opts.capacity = CAPACITY;
    opts.max_bytes = 256 << 10;
    opts.overflow = overflow;
    opts.name = ""; /* or each child's first call would make its page */
    must(weir_shared_queue_create(&queue, &opts) == WEIR_OK);
    weir_message first = message(0, skew - 16);
    weir_buffer buffer = {0};
    must(weir_shared_queue_put(queue, &first, WEIR_POLL) == WEIR_KEPT);
    must(weir_shared_queue_get(queue, &first, &buffer, WEIR_POLL) == WEIR_OK);
    weir_buffer_free(&buffer);
    return queue;
}

/* With `filled` messages inside, which lie near the end of a chunk: one more begins the next. */
static weir_shared_queue *make(weir_overflow overflow, size_t filled)
{
    weir_shared_queue *queue = make_empty(overflow, WEIR__CHUNK - 160);
    for (uint32_t n = 1; n <= filled; n++)
        must(put(queue, n, WEIR_POLL) == WEIR_KEPT);
    return queue;
}

/* Full; when the oldest goes, so does a chunk, and one more message needs one. */
static weir_shared_queue *make_spread(weir_overflow overflow)
{
    weir_shared_queue *queue = make_empty(overflow, WEIR__CHUNK);
    size_t sizes[CAPACITY] = {WEIR__CHUNK - 16, WEIR__CHUNK - 128 - 16, 48, 48};
    for (uint32_t n = 1; n <= CAPACITY; n++) {
        weir_message m = message(n, sizes[n - 1]);
        must(weir_shared_queue_put(queue, &m, WEIR_POLL) == WEIR_KEPT);
    }
    return queue;
}

/* ---- the victim ----------------------------------------------------------------------------- */

static void put_one(void *queue)
{
    weir_message m = message(100, LENGTH);
    stop_here();
    weir_shared_queue_put(queue, &m, WEIR_POLL);
}

static void put_one_waiting(void *queue)
{
    weir_message m = message(100, LENGTH);
    stop_here();
    weir_shared_queue_put(queue, &m, WEIR_FOREVER);
}

/* Over the end of a chunk. */
static void put_many(void *queue)
{
    static weir_message many[3];
    static unsigned char bytes[3][LENGTH];
    for (uint32_t i = 0; i < 3; i++) {
        many[i] = message(100 + i, LENGTH);
        memcpy(bytes[i], many[i].data, LENGTH);
        many[i].data = bytes[i];
    }
    stop_here();
    weir_shared_queue_put_many(queue, many, 3, WEIR_POLL);
}

static weir_buffer ample; /* so that the victim's instructions are the queue's, not malloc's */

static void get_one(void *queue)
{
    weir_message m;
    stop_here();
    weir_shared_queue_get(queue, &m, &ample, WEIR_POLL);
}

static void get_one_waiting(void *queue)
{
    weir_message m;
    stop_here();
    weir_shared_queue_get(queue, &m, &ample, WEIR_FOREVER);
}

static void get_many(void *queue)
{
    weir_message m[CAPACITY];
    stop_here();
    weir_shared_queue_get_many(queue, m, CAPACITY, &ample, WEIR_POLL, 0);
}

static void close_it(void *queue)
{
    stop_here();
    weir_shared_queue_close(queue);
}

static void discard(void *queue)
{
    stop_here();
    weir_shared_queue_discard(queue);
}

/* ---- survivors ------------------------------------------------------------------------------ */

#define SOON WEIR_SECOND /* 20 times what a lost wake-up may cost */

/* A thread of the survivor that waits to get, or to put; what it met. */
typedef struct survivor {
    weir_shared_queue *queue;
    bool puts;
    int64_t result;
    pthread_t thread;
} survivor;

static void *survive(void *arg)
{
    survivor *s = arg;
    weir_time patience = weir_after(PATIENCE);
    s->result = s->puts ? put(s->queue, 50, patience) : get(s->queue, patience);
    return NULL;
}

static void start_survivor(survivor *s, weir_shared_queue *queue, bool puts)
{
    *s = (survivor){.queue = queue, .puts = puts};
    must(pthread_create(&s->thread, NULL, survive, s) == 0);
    soon((puts ? look(queue).putters_waiting : look(queue).getters_waiting) == 1);
}

/* It can be served from now on. */
static int64_t join_survivor(survivor *s)
{
    weir_time since = weir_now();
    pthread_join(s->thread, NULL);
    must(weir_now() - since < SOON);
    return s->result;
}

/* What is inside, oldest first; each is whole. */
static size_t drain(weir_shared_queue *queue, int64_t numbers[CAPACITY])
{
    size_t n = 0;
    for (int64_t got; (got = get(queue, WEIR_POLL)) >= 0;)
        numbers[n++] = got;
    return n;
}

/* The queue goes on, for all that a user can see. */
static void check_it_works(weir_shared_queue *queue)
{
    weir_shared_queue_snapshot now = look(queue);
    check_law(&now);
    must(now.depth == 0);
    if (!now.closed) {
        for (uint32_t round = 0; round < 3; round++) {
            for (uint32_t n = 1; n <= CAPACITY; n++)
                must(put(queue, 1000 + n, WEIR_POLL) == WEIR_KEPT);
            for (uint32_t n = 1; n <= CAPACITY; n++)
                must(get(queue, WEIR_POLL) == 1000 + n);
        }
        survivor getter;
        start_survivor(&getter, queue, false);
        must(put(queue, 7, WEIR_POLL) == WEIR_KEPT);
        must(join_survivor(&getter) == 7);
        /* the whole of it is there: no memory was lost with the dead */
        weir_message large = message(8, 200 << 10);
        weir_buffer buffer = {0};
        must(weir_shared_queue_put(queue, &large, WEIR_POLL) == WEIR_KEPT);
        must(weir_shared_queue_get(queue, &large, &buffer, WEIR_POLL) == WEIR_OK);
        must(large.tag == 8 && large.size == 200 << 10 && is_whole(&large));
        weir_buffer_free(&buffer);
    } else {
        must(put(queue, 1, WEIR_POLL) == WEIR_ECLOSED && get(queue, WEIR_POLL) == WEIR_ECLOSED);
    }
    now = look(queue);
    check_law(&now);
    must(now.putters_waiting == 0 && now.getters_waiting == 0);
}

/* ---- scenarios ------------------------------------------------------------------------------ */

typedef struct scenario {
    weir_overflow overflow;
    size_t filled; /* messages 1, 2, ... inside before the call */
    victim_fn *call;
    bool getter_waits, putter_waits; /* of the survivor */
    bool spread;                     /* what fills it lies as make_spread lays it */
    bool wake; /* the victim sleeps: it is given what it waits for, and steps on */
    void (*check)(const weir_shared_queue_snapshot *, const int64_t *inside, size_t n);
} scenario;

typedef struct kills {
    uint64_t n, inside; /* kills; of these, while it held the lock */
} kills;

/* Gives a sleeping victim what it waits for. */
static void satisfy(weir_shared_queue *queue, const scenario *s)
{
    if (s->call == put_one_waiting)
        must(get(queue, WEIR_POLL) == 1);
    else
        must(put(queue, 60, WEIR_POLL) == WEIR_KEPT);
}

/* One kill after n instructions; false: the call was over before. */
static bool kill_after(const scenario *s, uint64_t n, kills *k)
{
    weir_shared_queue *queue = s->spread ? make_spread(s->overflow) : make(s->overflow, s->filled);
    survivor getter, putter;
    pid_t pid = start(s->call, queue); /* no thread runs yet that could hold malloc's lock */
    if (s->getter_waits)
        start_survivor(&getter, queue, false);
    if (s->putter_waits)
        start_survivor(&putter, queue, true);

    enum end end = STEPPED;
    for (uint64_t i = 0; i < n && end != OVER; i++) {
        end = step(pid, 1);
        if (end == ASLEEP) {
            if (i + 1 == n || !s->wake)
                break;
            satisfy(queue, s);
            while ((end = wait_for_step(pid, true)) == ASLEEP)
                must(look(queue).recovered == 0);
        }
    }
    if (end != OVER)
        bury(pid);

    /* Whoever waits gets what there is, or is given something by us: nobody hangs. */
    if (s->getter_waits) {
        if (look(queue).accepted == 1 && !look(queue).closed)
            must(put(queue, 70, WEIR_POLL) == WEIR_KEPT);
        int64_t got = join_survivor(&getter);
        must(got == 100 || got == 70 || got == WEIR_ECLOSED);
    }
    if (s->putter_waits) {
        if (look(queue).delivered == 1 && !look(queue).closed)
            must(get(queue, WEIR_POLL) == 1);
        int64_t rc = join_survivor(&putter);
        must(rc == WEIR_KEPT || rc == WEIR_ECLOSED);
    }
    weir_shared_queue_snapshot now = look(queue);
    check_law(&now);
    now.accepted--, now.delivered--; /* the one that make put and got */
    int64_t inside[CAPACITY];
    size_t n_inside = drain(queue, inside);
    must(n_inside == now.depth);
    for (size_t i = 1; i < n_inside; i++)
        must(inside[i] != inside[i - 1]);
    if (s->check)
        s->check(&now, inside, n_inside);
    check_it_works(queue);
    k->n++;
    k->inside += look(queue).recovered > 0;
    weir_shared_queue_destroy(queue);
    return end != OVER && (end != ASLEEP || s->wake);
}

/* In strides of `by`; what they met. */
static kills kill_in_strides(const scenario *s, uint64_t by)
{
    kills k = {0};
    uint64_t phase = (uint64_t)weir_now() % by;
    while (kill_after(s, 1 + phase + k.n * by, &k))
        ;
    printf("           %llu kills, %llu of them inside the lock\n", (unsigned long long)k.n,
           (unsigned long long)k.inside);
    return k;
}

/* With shorter strides until some kill was inside the lock: how many instructions a sanitizer adds is not ours to
 * know. */
static void kill_everywhere(const scenario *s)
{
    skip_under_tsan();
    uint64_t by = stride();
    for (kills k = kill_in_strides(s, by); by <= STRIDE && k.inside == 0;
         k = kill_in_strides(s, by)) {
        assert_true(by > 1);
        by /= 2;
    }
}

static void check_put(const weir_shared_queue_snapshot *now, const int64_t *inside, size_t n)
{
    must(n == 2 || n == 3);
    must(now->accepted == n && inside[0] == 1 && inside[1] == 2 && (n == 2 || inside[2] == 100));
}

static void a_put_that_is_killed_has_happened_or_not(void **state)
{
    (void)state;
    scenario s = {.filled = 2, .call = put_one, .check = check_put};
    kill_everywhere(&s);
}

static void a_put_that_is_killed_does_not_leave_a_getter_asleep(void **state)
{
    (void)state;
    scenario s = {.call = put_one, .getter_waits = true};
    kill_everywhere(&s);
}

static void check_put_many(const weir_shared_queue_snapshot *now, const int64_t *inside, size_t n)
{
    must(now->accepted == n && (n == 1 || n == 4) && inside[0] == 1);
    must(n == 1 || (inside[1] == 100 && inside[2] == 101 && inside[3] == 102));
}

static void a_put_many_that_is_killed_has_happened_or_not(void **state)
{
    (void)state;
    scenario s = {.filled = 1, .call = put_many, .check = check_put_many};
    kill_everywhere(&s);
}

static void check_get(const weir_shared_queue_snapshot *now, const int64_t *inside, size_t n)
{
    must(now->accepted == 3 && now->delivered == 3 - n && (n == 2 || n == 3));
    for (size_t i = 0; i < n; i++)
        must(inside[i] == (int64_t)(i + 4 - n));
}

static void a_get_that_is_killed_took_the_oldest_or_nothing(void **state)
{
    (void)state;
    scenario s = {.filled = 3, .call = get_one, .check = check_get};
    kill_everywhere(&s);
}

static void check_get_many(const weir_shared_queue_snapshot *now, const int64_t *inside, size_t n)
{
    must(now->accepted == 3 && now->delivered == 3 - n && (n == 0 || n == 3));
    for (size_t i = 0; i < n; i++)
        must(inside[i] == (int64_t)i + 1);
}

static void a_get_many_that_is_killed_took_all_or_nothing(void **state)
{
    (void)state;
    scenario s = {.filled = 3, .call = get_many, .check = check_get_many};
    kill_everywhere(&s);
}

static void a_get_that_is_killed_does_not_leave_a_putter_asleep(void **state)
{
    (void)state;
    scenario s = {.filled = CAPACITY, .call = get_one, .putter_waits = true};
    kill_everywhere(&s);
    s.call = get_many;
    kill_everywhere(&s);
}

static void a_getter_that_is_killed_while_it_waits_swallows_nothing(void **state)
{
    (void)state;
    scenario s = {.call = get_one_waiting, .wake = true};
    kill_everywhere(&s);
}

static void a_putter_that_is_killed_while_it_waits_holds_nobody_up(void **state)
{
    (void)state;
    scenario s = {.filled = CAPACITY, .call = put_one_waiting, .wake = true};
    kill_everywhere(&s);
}

static void check_eviction(const weir_shared_queue_snapshot *now, const int64_t *inside, size_t n)
{
    uint64_t evicted = now->dropped[WEIR_DROP_OLDEST];
    must(evicted <= 1 && now->delivered == 0);
    bool put = n == CAPACITY && evicted == 1;
    must(n == CAPACITY - evicted + put);
    for (size_t i = 0; i < CAPACITY - evicted; i++)
        must(inside[i] == (int64_t)(i + 1 + evicted));
    must(!put || inside[CAPACITY - 1] == 100);
}

static void an_eviction_that_is_killed_dropped_the_oldest_or_nothing(void **state)
{
    (void)state;
    scenario s = {.overflow = WEIR_OVERFLOW_DROP_OLDEST,
                  .filled = CAPACITY,
                  .call = put_one,
                  .check = check_eviction};
    kill_everywhere(&s);
    s.spread = true; /* the new one might be written where the dropped one was */
    kill_everywhere(&s);
}

static void check_newest(const weir_shared_queue_snapshot *now, const int64_t *inside, size_t n)
{
    (void)inside;
    must(n == CAPACITY && now->accepted == CAPACITY + now->dropped[WEIR_DROP_NEWEST]);
    must(now->dropped[WEIR_DROP_NEWEST] <= 1);
}

static void a_drop_that_is_killed_is_counted_or_did_not_happen(void **state)
{
    (void)state;
    scenario s = {.overflow = WEIR_OVERFLOW_DROP_NEWEST,
                  .filled = CAPACITY,
                  .call = put_one,
                  .check = check_newest};
    kill_everywhere(&s);
}

static void check_discard(const weir_shared_queue_snapshot *now, const int64_t *inside, size_t n)
{
    (void)inside;
    must(n + now->dropped[WEIR_DROP_DISCARDED] == CAPACITY && (n == 0 || n == CAPACITY));
}

static void a_discard_that_is_killed_dropped_all_or_nothing(void **state)
{
    (void)state;
    scenario s = {.filled = CAPACITY, .call = discard, .check = check_discard};
    kill_everywhere(&s);
}

static void a_close_that_is_killed_leaves_nobody_asleep(void **state)
{
    (void)state;
    scenario s = {.call = close_it, .getter_waits = true};
    kill_everywhere(&s);
    scenario full = {.filled = CAPACITY, .call = close_it, .putter_waits = true};
    kill_everywhere(&full);
}

/* ---- holding the lock ----------------------------------------------------------------------- */

/* After how many instructions of a put its process surely holds the lock. */
static uint64_t steps_into_the_lock(void)
{
    static uint64_t known;
    for (uint64_t n = 40; known == 0; n += 20 + STRIDE / 100) {
        weir_shared_queue *queue = make(WEIR_OVERFLOW_BLOCK, 1);
        pid_t pid = start(put_one, queue);
        must(step(pid, n) == STEPPED);
        bury(pid);
        must(get(queue, WEIR_POLL) == 1);
        if (look(queue).recovered)
            known = n + 10 + STRIDE / 20; /* the way there is not always as long in a sanitizer */
        weir_shared_queue_destroy(queue);
    }
    return known;
}

/* A child that is stopped inside. */
static pid_t start_holder(weir_shared_queue *queue)
{
    uint64_t n = steps_into_the_lock();
    pid_t pid = start(put_one, queue);
    must(step(pid, n) == STEPPED);
    return pid;
}

/* Of a second one that is killed as it recovers from a first; how often it was inside the lock. */
static uint64_t kill_recovering(uint64_t by)
{
    uint64_t recovered = 0, n = 0;
    for (enum end end = STEPPED; end == STEPPED; n++) {
        weir_shared_queue *queue = make(WEIR_OVERFLOW_BLOCK, 1);
        pid_t first = start_holder(queue), second = start(put_one, queue);
        bury(first);
        end = step(second, 1 + n * by);
        if (end != OVER)
            bury(second);
        must(get(queue, WEIR_POLL) == 1);
        recovered += look(queue).recovered == 2;
        while (get(queue, WEIR_POLL) == 100)
            ;
        check_it_works(queue);
        weir_shared_queue_destroy(queue);
    }
    printf("           %llu kills, %llu of a second one inside the lock\n", (unsigned long long)n,
           (unsigned long long)recovered);
    return recovered;
}

static void who_is_killed_as_it_recovers_is_recovered_from(void **state)
{
    (void)state;
    skip_under_tsan();
    uint64_t by = 1 + stride() / 8; /* the lock is held for a small part of it */
    while (kill_recovering(by) == 0 && by <= STRIDE) {
        assert_true(by > 1);
        by /= 2;
    }
}

static void a_stopped_holder_delays_no_deadline_for_long(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(WEIR_OVERFLOW_BLOCK, 1);
    pid_t pid = start_holder(queue);
    weir_time since = weir_now();
    must(put(queue, 5, WEIR_PROBE) == WEIR_ETIMEDOUT);
    must(weir_now() - since < 90 * WEIR_MILLISECOND); /* does not even wait for the lock */
    must(look(queue).depth == 1);
    since = weir_now();
    must(put(queue, 5, WEIR_POLL) == WEIR_ETIMEDOUT);
    must(get(queue, weir_after(20 * WEIR_MILLISECOND)) == WEIR_ETIMEDOUT);
    must(get(queue, weir_after(150 * WEIR_MILLISECOND)) == WEIR_ETIMEDOUT);
    must(weir_now() - since < SOON);
    must(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0);
    must(get(queue, weir_after(PATIENCE)) == 1);
    must(get(queue, weir_after(PATIENCE)) == 100);
    int status;
    must(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    check_it_works(queue);
    weir_shared_queue_destroy(queue);
}

static void report(weir_shared_queue *queue)
{
    int64_t got = get(queue, weir_after(PATIENCE));
    syscall(SYS_exit_group, got > 0 ? (int)got : 99);
}

static void a_stopped_waiter_holds_nobody_up_and_keeps_its_place(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(WEIR_OVERFLOW_BLOCK, 0);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0)
        report(queue);
    soon(look(queue).getters_waiting == 1 && is_asleep(pid)); /* and holds no lock any more */
    int status;
    must(kill(pid, SIGSTOP) == 0 && waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    survivor getter = {.queue = queue};
    must(pthread_create(&getter.thread, NULL, survive, &getter) == 0);
    soon(look(queue).getters_waiting == 2);
    must(put(queue, 11, WEIR_POLL) == WEIR_KEPT); /* calls the one that is stopped */
    must(join_survivor(&getter) == 11);
    must(look(queue).getters_waiting == 1);
    must(put(queue, 12, WEIR_POLL) == WEIR_KEPT);
    must(kill(pid, SIGCONT) == 0);
    must(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 12);
    check_it_works(queue);
    weir_shared_queue_destroy(queue);
}

/* More of them than there are places: none is used up for good. */
static void killed_waiters_leave_their_places(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(WEIR_OVERFLOW_BLOCK, 0);
    for (int i = 0; i < 300; i++) {
        pid_t pid = fork();
        must(pid >= 0);
        if (pid == 0)
            report(queue);
        soon(i >= 255 || look(queue).getters_waiting == (size_t)i + 1);
        bury(pid);
    }
    survivor getter;
    getter = (survivor){.queue = queue};
    must(pthread_create(&getter.thread, NULL, survive, &getter) == 0);
    must(put(queue, 3, WEIR_POLL) == WEIR_KEPT);
    must(join_survivor(&getter) == 3);
    soon(look(queue).getters_waiting <= 256);
    while (look(queue).getters_waiting > 0) { /* each put calls the living, and finds the dead */
        must(put(queue, 4, WEIR_POLL) == WEIR_KEPT);
        must(get(queue, WEIR_POLL) == 4);
    }
    check_it_works(queue);
    weir_shared_queue_destroy(queue);
}

/* ---- memory --------------------------------------------------------------------------------- */

static void create_and_attach_without_memory_leave_nothing_behind(void **state)
{
    (void)state;
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    opts.capacity = 10;
    weir_shared_queue *queue = NULL, *second = NULL;
    fail_allocation(1, true);
    assert_int_equal(weir_shared_queue_create(&queue, &opts), WEIR_ENOMEM);
    assert_true(stop_failing());
    assert_null(queue);
    assert_int_equal(weir_shared_queue_create(&queue, &opts), WEIR_OK);
    fail_allocation(1, true);
    assert_int_equal(weir_shared_queue_attach(&second, weir_shared_queue_fd(queue)), WEIR_ENOMEM);
    assert_true(stop_failing());
    assert_null(second);
    weir_shared_queue_destroy(queue);
}

static void a_get_without_memory_leaves_the_message_inside(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(WEIR_OVERFLOW_BLOCK, 2);
    fail_allocation(1, true);
    assert_int_equal(get(queue, WEIR_POLL), WEIR_ENOMEM);
    assert_int_equal(get(queue, WEIR_FOREVER), WEIR_ENOMEM);
    assert_true(stop_failing());
    weir_shared_queue_snapshot now = look(queue);
    check_law(&now);
    assert_int_equal(now.depth, 2);
    assert_int_equal(get(queue, WEIR_POLL), 1);
    assert_int_equal(get(queue, WEIR_POLL), 2);
    check_it_works(queue);
    weir_shared_queue_destroy(queue);
}

static void without_descriptors_there_is_no_queue(void **state)
{
    (void)state;
    struct rlimit before;
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    opts.capacity = 10;
    weir_shared_queue *queue = make(WEIR_OVERFLOW_BLOCK, 0), *second = NULL;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int created = weir_shared_queue_create(&second, &opts);
    int attached = weir_shared_queue_attach(&second, weir_shared_queue_fd(queue));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(created, WEIR_ENOFD);
    assert_int_equal(attached, WEIR_ENOFD);
    assert_null(second);
    weir_shared_queue_destroy(queue);
}

/* A file size limit stands in for a full /dev/shm: both make fallocate refuse. */
static void without_shared_memory_a_put_is_refused_and_the_queue_works(void **state)
{
    (void)state;
    weir_shared_queue *queue = make(WEIR_OVERFLOW_BLOCK, 2);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit little = {.rlim_cur = 1 << 16, .rlim_max = before.rlim_max};
    weir_message large = message(9, 150 << 10); /* more than the chunk that is reserved */
    weir_message two[2] = {message(8, 10), large};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    int rc = weir_shared_queue_put(queue, &large, WEIR_FOREVER);
    int64_t many_rc = weir_shared_queue_put_many(queue, two, 2, WEIR_FOREVER);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(rc, WEIR_ENOSHM);
    assert_int_equal(many_rc, 1);
    assert_int_equal(look(queue).depth, 3);
    assert_int_equal(weir_shared_queue_put(queue, &large, WEIR_FOREVER), WEIR_KEPT);
    for (int64_t n = 1; n <= 2; n++)
        assert_int_equal(get(queue, WEIR_POLL), n);
    assert_int_equal(weir_shared_queue_discard(queue), 2);
    check_it_works(queue);
    weir_shared_queue_destroy(queue);
}

static uint64_t memory_of(const weir_shared_queue *queue)
{
    struct stat st;
    must(fstat(weir_shared_queue_fd(queue), &st) == 0);
    return (uint64_t)st.st_blocks * 512;
}

static void memory_follows_what_is_inside(void **state)
{
    (void)state;
    weir_shared_queue *queue;
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    opts.capacity = 1000;
    assert_int_equal(weir_shared_queue_create(&queue, &opts), WEIR_OK);
    uint64_t empty = memory_of(queue);
    assert_true(empty < 256 << 10);
    for (int lap = 0; lap < 3; lap++) {
        for (uint32_t n = 1; n <= 300; n++) {
            weir_message m = message(n, 100 << 10);
            assert_int_equal(weir_shared_queue_put(queue, &m, WEIR_POLL), WEIR_KEPT);
            uint64_t most = empty + look(queue).bytes + (5 << 20);
            assert_true(memory_of(queue) <= most);
        }
        for (uint32_t n = 1; n < 300; n++) /* never empty */
            assert_int_equal(get(queue, WEIR_POLL), n);
        assert_true(memory_of(queue) <= empty + (5 << 20));
        assert_int_equal(get(queue, WEIR_POLL), 300);
    }
    weir_shared_queue_destroy(queue);
}

int main(void)
{
    stay_on_one_cpu();
    ample.data = malloc(1 << 20);
    ample.capacity = 1 << 20;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_that_is_killed_has_happened_or_not),
        cmocka_unit_test(a_put_that_is_killed_does_not_leave_a_getter_asleep),
        cmocka_unit_test(a_put_many_that_is_killed_has_happened_or_not),
        cmocka_unit_test(a_get_that_is_killed_took_the_oldest_or_nothing),
        cmocka_unit_test(a_get_many_that_is_killed_took_all_or_nothing),
        cmocka_unit_test(a_get_that_is_killed_does_not_leave_a_putter_asleep),
        cmocka_unit_test(a_getter_that_is_killed_while_it_waits_swallows_nothing),
        cmocka_unit_test(a_putter_that_is_killed_while_it_waits_holds_nobody_up),
        cmocka_unit_test(an_eviction_that_is_killed_dropped_the_oldest_or_nothing),
        cmocka_unit_test(a_drop_that_is_killed_is_counted_or_did_not_happen),
        cmocka_unit_test(a_discard_that_is_killed_dropped_all_or_nothing),
        cmocka_unit_test(a_close_that_is_killed_leaves_nobody_asleep),
        cmocka_unit_test(who_is_killed_as_it_recovers_is_recovered_from),
        cmocka_unit_test(a_stopped_holder_delays_no_deadline_for_long),
        cmocka_unit_test(a_stopped_waiter_holds_nobody_up_and_keeps_its_place),
        cmocka_unit_test(killed_waiters_leave_their_places),
        cmocka_unit_test(create_and_attach_without_memory_leave_nothing_behind),
        cmocka_unit_test(a_get_without_memory_leaves_the_message_inside),
        cmocka_unit_test(without_descriptors_there_is_no_queue),
        cmocka_unit_test(without_shared_memory_a_put_is_refused_and_the_queue_works),
        cmocka_unit_test(memory_follows_what_is_inside),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(ample.data);
    return failed;
}
