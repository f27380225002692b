/* Numbers digested in worker processes, one of which crashes: the pool goes on.
 *
 *     cc pool.c $(pkg-config --cflags --libs weir) -o pool && ./pool
 *
 * The main thread submits and is held back by the backlog; a second thread collects.  What to look
 * at: the one number that brings a worker down costs that number and nothing else, another worker
 * takes its place, and accepted == completed + dropped + cancelled.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <weir/weir.h>

#define NUMBERS 400
#define WORKERS 4
#define BACKLOG 8
#define CURSED  123 /* whoever digests this one crashes */
#define ROUNDS  6000000

/* Runs in a worker process: a task is bytes, and so is the reply. */
static void digest(weir_worker *worker, const weir_task *task, void *ctx)
{
    (void)ctx;
    uint64_t number, hash = 14695981039346656037u;
    memcpy(&number, task->data, sizeof(number));
    if (number == CURSED)
        abort();
    for (int i = 0; i < ROUNDS; i++) /* FNV-1a, over and over */
        hash = (hash ^ ((number >> 8 * (i % 8)) & 255)) * 1099511628211u;
    weir_bytes reply = {&hash, sizeof(hash)};
    weir_worker_reply(worker, 0, &reply, 1);
}

/* With WEIR_OVERFLOW_BLOCK only what is inside at the end could come here. */
static void on_drop(void *tag, weir_drop_reason reason, void *ctx)
{
    (void)ctx;
    printf("number %zu was dropped: %s\n", (size_t)tag, weir_drop_reason_name((int)reason));
}

typedef struct collector {
    weir_pool *pool;
    int replied, died;
    uint64_t sum;
} collector;

static void take(collector *c, const weir_completion *done)
{
    size_t number = (size_t)done->tag;
    uint64_t hash;
    if (done->outcome == WEIR_OUTCOME_REPLIED) {
        memcpy(&hash, done->data, sizeof(hash)); /* ours until the next collect */
        c->sum ^= hash;
        c->replied++;
        return;
    }
    c->died++;
    printf("number %zu: worker %d died of signal %d, peak memory %.1f MiB\n", number,
           (int)done->exit.pid, done->exit.signal, (double)done->exit.peak_rss_bytes / 1048576);
}

/* Runs the pool until it is closed, and all is completed. */
static void *collect(void *arg)
{
    collector *c = arg;
    weir_completion done[16];
    int64_t n;
    while ((n = weir_pool_collect(c->pool, done, 16, WEIR_FOREVER)) > 0) {
        for (int64_t i = 0; i < n; i++)
            take(c, &done[i]);
        weir_pool_settle(c->pool, (size_t)n); /* room for as many */
    }
    return NULL;
}

static void submit_all(weir_pool *pool)
{
    for (uint64_t number = 1; number <= NUMBERS; number++) {
        weir_bytes payload = {&number, sizeof(number)}; /* is copied */
        void *tag = (void *)(uintptr_t)number;
        int rc = weir_pool_submit(pool, &payload, 1, tag, WEIR_FOREVER, NULL);
        if (rc < 0)
            fprintf(stderr, "pool: number %d: %s\n", (int)number, weir_strerror(rc));
    }
}

/* true: the law held, and one number is all that the crash has cost. */
static bool report(const weir_pool_snapshot *now, const collector *c, double seconds)
{
    uint64_t dropped = 0;
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        dropped += now->dropped[i];
    uint64_t inside = now->waiting + now->running;
    bool law = now->accepted == now->completed + dropped + now->cancelled + inside;
    printf("%.2f s; the submitting thread was held back for %.2f s of them\n", seconds,
           (double)now->submit_blocked_ns / 1e9);
    printf("%d digested (%016llx), %d died; %llu workers started, %llu died\n", c->replied,
           (unsigned long long)c->sum, c->died, (unsigned long long)now->workers_started,
           (unsigned long long)now->workers_died);
    printf("accepted %llu = completed %llu + dropped %llu + cancelled %llu + inside %llu: %s\n",
           (unsigned long long)now->accepted, (unsigned long long)now->completed,
           (unsigned long long)dropped, (unsigned long long)now->cancelled,
           (unsigned long long)inside, law ? "holds" : "BROKEN");
    return law && c->replied == NUMBERS - 1 && c->died == 1;
}

int main(void)
{
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    opts.workers = WORKERS;
    opts.backlog = BACKLOG;
    opts.on_drop = on_drop;
    opts.handler = digest;
    collector c = {0};
    int rc = weir_pool_create(&c.pool, &opts);
    if (rc != WEIR_OK) {
        fprintf(stderr, "pool: cannot create a pool: %s\n", weir_strerror(rc));
        return EXIT_FAILURE;
    }
    printf("%d numbers, %d workers, at most %d + %d inside; number %d is cursed\n", NUMBERS,
           WORKERS, BACKLOG, WORKERS, CURSED);
    weir_time start = weir_now();
    pthread_t thread;
    if (pthread_create(&thread, NULL, collect, &c) != 0) {
        fprintf(stderr, "pool: cannot start the collector\n");
        weir_pool_destroy(c.pool);
        return EXIT_FAILURE;
    }
    submit_all(c.pool);
    weir_pool_close(c.pool); /* what was accepted still runs */
    pthread_join(thread, NULL);

    weir_pool_snapshot now = WEIR_POOL_SNAPSHOT_INIT;
    weir_pool_get_snapshot(c.pool, &now);
    bool fine = report(&now, &c, (double)(weir_now() - start) / 1e9);
    weir_pool_destroy(c.pool);
    return fine ? EXIT_SUCCESS : EXIT_FAILURE;
}
