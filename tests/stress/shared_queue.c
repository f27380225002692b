/* Eight processes with eight threads each on one queue, with every policy; then processes that are
 * killed at random all the time.  While they run, the law and the bound hold in each snapshot; at
 * the end each accepted message has come out once, whole, or was dropped, or went with a getter
 * that was killed.
 *
 * WEIR_STRESS_SECONDS (default 2) scales how long all cases together take. */
#include "contract/support.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/shared_queue.h>

#if defined(__SANITIZE_THREAD__)
#define PROCESSES 1          /* it sees the threads of one process; the others would only be slow */
#define ITEMS     (1u << 12) /* of each thread that puts */
#else
#define PROCESSES 8
#define ITEMS     (1u << 14)
#endif
#define THREADS 8 /* of each process: half of them put */
#define BATCH   10
#define SENDERS 512 /* ends of messages' numbers: one for each putting thread that ever was */

/* In memory that all of them share. */
typedef struct board {
    _Atomic bool stop;
    _Atomic uint32_t senders;
    _Atomic uint64_t accepted, received; /* as their callers saw it */
    _Atomic uint8_t came_out[SENDERS][ITEMS];
} board;

static board *the_board;

static board *fresh_board(void)
{
    if (the_board)
        munmap(the_board, sizeof *the_board);
    the_board =
        mmap(NULL, sizeof *the_board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(the_board != MAP_FAILED);
    return the_board;
}

static int64_t milliseconds(void)
{
    const char *asked = getenv("WEIR_STRESS_SECONDS");
    return (int64_t)((asked ? atof(asked) : 2.0) * 1000);
}

/* ---- messages ------------------------------------------------------------------------------- */

typedef struct body {
    uint32_t sender, number;
    unsigned char rest[];
} body;

static size_t size_of(uint32_t sender, uint32_t n)
{
    uint32_t mixed = (sender * 2654435761u) ^ (n * 40503u);
    return sizeof(body) + (mixed % 97 == 0 ? 70000 : mixed % 120);
}

static weir_message write_message(unsigned char *to, uint32_t sender, uint32_t n)
{
    body *b = (body *)to;
    size_t size = size_of(sender, n);
    b->sender = sender;
    b->number = n;
    memset(b->rest, (int)(sender + n), size - sizeof *b);
    return (weir_message){to, size, sender ^ n};
}

static void receive(const weir_message *m)
{
    const body *b = m->data;
    must(m->size >= sizeof *b && b->sender < SENDERS && b->number < ITEMS);
    must(m->size == size_of(b->sender, b->number) && m->tag == (b->sender ^ b->number));
    for (size_t i = 0; i < m->size - sizeof *b; i++)
        must(b->rest[i] == (unsigned char)(b->sender + b->number));
    must(atomic_fetch_add(&the_board->came_out[b->sender][b->number], 1) == 0);
    atomic_fetch_add(&the_board->received, 1);
}

/* ---- threads -------------------------------------------------------------------------------- */

static weir_shared_queue *the_queue;

static weir_time patience(uint32_t n)
{
    return n % 3 == 0 ? WEIR_POLL : weir_after(n % 3 * 2 * WEIR_MILLISECOND);
}

static void *put_all_the_time(void *arg)
{
    uint32_t sender = atomic_fetch_add(&the_board->senders, 1);
    must(sender < SENDERS);
    unsigned char *bytes = malloc(BATCH * 80000);
    (void)arg;
    for (uint32_t n = 0; n + BATCH <= ITEMS && !the_board->stop;) {
        weir_message messages[BATCH];
        size_t wanted = n % 2 ? BATCH : 1;
        for (uint32_t i = 0; i < wanted; i++)
            messages[i] = write_message(bytes + i * 80000, sender, n + i);
        int64_t put = weir_shared_queue_put_many(the_queue, messages, wanted, patience(n));
        must(put > 0 || put == WEIR_EFULL || put == WEIR_ETIMEDOUT || put == WEIR_ECLOSED);
        if (put == WEIR_ECLOSED)
            break;
        if (put > 0) {
            atomic_fetch_add(&the_board->accepted, (uint64_t)put);
            n += (uint32_t)put;
        }
    }
    free(bytes);
    return NULL;
}

static void *get_all_the_time(void *arg)
{
    weir_buffer buffer = {0};
    uint32_t tries = (uint32_t)(uintptr_t)arg;
    for (;; tries++) {
        weir_message messages[BATCH];
        size_t max = tries % 2 ? BATCH : 1;
        int64_t linger = tries % 16 ? 0 : WEIR_MILLISECOND;
        int64_t n =
            weir_shared_queue_get_many(the_queue, messages, max, &buffer, patience(tries), linger);
        must(n > 0 || n == WEIR_EEMPTY || n == WEIR_ETIMEDOUT || n == WEIR_ECLOSED);
        for (int64_t i = 0; i < n; i++)
            receive(&messages[i]);
        if (n == WEIR_ECLOSED)
            break;
    }
    weir_buffer_free(&buffer);
    return NULL;
}

/* One process's share; returns when the queue is closed and empty. */
static void run_threads(void)
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, i % 2 ? put_all_the_time : get_all_the_time,
                            (void *)(uintptr_t)i) == 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static pid_t start_process(void)
{
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        run_threads();
        _exit(0);
    }
    return pid;
}

static weir_shared_queue_snapshot look(void)
{
    weir_shared_queue_snapshot now = WEIR_SHARED_QUEUE_SNAPSHOT_INIT;
    must(weir_shared_queue_get_snapshot(the_queue, &now) == WEIR_OK);
    must(now.accepted == now.delivered + total(now.dropped) + now.depth);
    must(now.accepted_bytes == now.delivered_bytes + total(now.dropped_bytes) + now.bytes);
    must(now.depth <= now.capacity && now.bytes <= now.max_bytes);
    must(now.peak_depth <= now.capacity);
    return now;
}

static void make(weir_overflow overflow, int64_t max_age_ns)
{
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    opts.capacity = 20;
    opts.max_bytes = 300000;
    opts.overflow = overflow;
    opts.max_age_ns = max_age_ns;
    must(weir_shared_queue_create(&the_queue, &opts) == WEIR_OK);
    fresh_board();
}

/* ---- cases ---------------------------------------------------------------------------------- */

static void run_policy(weir_overflow overflow, int64_t max_age_ns)
{
    pid_t pids[PROCESSES];
    make(overflow, max_age_ns);
    for (int i = 1; i < PROCESSES; i++)
        pids[i] = start_process();
    pthread_t here;
    must(pthread_create(&here, NULL, (void *(*)(void *))(void (*)(void))run_threads, NULL) == 0);
    weir_time until = weir_after(milliseconds() * WEIR_MILLISECOND / 8);
    while (weir_now() < until) {
        look();
        if (weir_now() % 64 == 0)
            weir_shared_queue_discard(the_queue);
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    the_board->stop = true;
    must(weir_shared_queue_close(the_queue) == WEIR_OK);
    pthread_join(here, NULL);
    for (int i = 1; i < PROCESSES; i++) {
        int status;
        must(waitpid(pids[i], &status, 0) == pids[i]);
        must(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    weir_shared_queue_snapshot now = look();
    assert_int_equal(now.depth, 0);
    assert_int_equal(now.recovered, 0);
    assert_int_equal(now.accepted, the_board->accepted);
    assert_int_equal(now.delivered, the_board->received);
    /* Who could not have the lock in time to leave its place is found out by those who go on. */
    soon(weir_shared_queue_discard(the_queue) == 0 &&
         look().putters_waiting + look().getters_waiting == 0);
    assert_true(now.delivered > 0);
    weir_shared_queue_destroy(the_queue);
}

static void every_policy_keeps_the_law_between_many_processes(void **state)
{
    (void)state;
    for (int policy = WEIR_OVERFLOW_BLOCK; policy <= WEIR_OVERFLOW_SAMPLE; policy++)
        run_policy((weir_overflow)policy, 0);
    run_policy(WEIR_OVERFLOW_BLOCK, 2 * WEIR_MILLISECOND);
}

#if PROCESSES > 1
/* Each get of a killed thread may have taken a batch that it did not report. */
static void processes_may_be_killed_at_random(void **state)
{
    (void)state;
    pid_t pids[PROCESSES] = {0};
    uint64_t kills = 0;
    make(WEIR_OVERFLOW_BLOCK, 0);
    weir_time until = weir_after(milliseconds() * WEIR_MILLISECOND / 2);
    while (weir_now() < until && the_board->senders + PROCESSES * THREADS < SENDERS) {
        size_t which = (size_t)weir_now() / 64 % PROCESSES;
        if (pids[which]) {
            must(kill(pids[which], SIGKILL) == 0);
            must(waitpid(pids[which], NULL, 0) == pids[which]);
            kills++;
        }
        pids[which] = start_process();
        look();
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    the_board->stop = true;
    must(weir_shared_queue_close(the_queue) == WEIR_OK);
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        if (pids[i]) {
            must(waitpid(pids[i], &status, 0) == pids[i]);
            must(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        }
    }
    weir_shared_queue_snapshot now = look();
    assert_int_equal(now.depth, 0);
    assert_true(kills > 3);
    uint64_t unreported = kills * THREADS / 2 * BATCH;
    assert_true(now.accepted >= the_board->accepted);
    assert_true(now.accepted <= the_board->accepted + unreported);
    assert_true(now.delivered >= the_board->received);
    assert_true(now.delivered <= the_board->received + unreported);
    printf("           %llu kills, %llu inside the lock, %llu messages\n",
           (unsigned long long)kills, (unsigned long long)now.recovered,
           (unsigned long long)now.delivered);
    weir_shared_queue_destroy(the_queue);
}
#endif

/* More than there are places in line. */
static void nobody_is_forgotten_when_the_line_is_full(void **state)
{
    (void)state;
    enum { MANY = 300 };
    static pthread_t threads[MANY];
    make(WEIR_OVERFLOW_BLOCK, 0);
    for (size_t i = 0; i < MANY; i++)
        must(pthread_create(&threads[i], NULL, get_all_the_time, (void *)i) == 0);
    put_all_the_time(NULL);
    must(weir_shared_queue_close(the_queue) == WEIR_OK);
    for (size_t i = 0; i < MANY; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(look().delivered, the_board->received);
    assert_int_equal(look().delivered, the_board->accepted);
    weir_shared_queue_destroy(the_queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_policy_keeps_the_law_between_many_processes),
#if PROCESSES > 1
        cmocka_unit_test(processes_may_be_killed_at_random),
#endif
        cmocka_unit_test(nobody_is_forgotten_when_the_line_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
