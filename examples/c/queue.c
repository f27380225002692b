/* A producer that is five times as fast as its consumer, under each overflow policy.
 *
 *     cc queue.c $(pkg-config --cflags --libs weir) -o queue && ./queue
 *
 * What to look at: how long the producer was held back, what was lost and why, how old the items
 * were when they arrived, and that accepted == delivered + dropped in each line.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <weir/weir.h>

#define ITEMS    500
#define CAPACITY 16
#define PRODUCE  (300 * 1000)  /* ns for an item */
#define CONSUME  (1500 * 1000) /* ns for an item */

typedef struct reading {
    int number;
    weir_time taken; /* when it was read from the sensor, say */
} reading;

typedef struct consumer {
    weir_queue *queue;
    weir_time oldest; /* the worst age of an item that arrived */
    int last;         /* its number: did the newest get through? */
} consumer;

static void work(long ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* Gets until the queue is closed and empty. */
static void *consume(void *arg)
{
    consumer *c = arg;
    void *item;
    while (weir_queue_get(c->queue, &item, WEIR_FOREVER) == WEIR_OK) {
        reading *r = item;
        weir_time age = weir_now() - r->taken;
        c->oldest = age > c->oldest ? age : c->oldest;
        c->last = r->number;
        free(r); /* what a get returned is ours */
        work(CONSUME);
    }
    return NULL;
}

static void produce(weir_queue *queue)
{
    for (int number = 1; number <= ITEMS; number++) {
        work(PRODUCE);
        reading *r = malloc(sizeof(*r));
        if (!r)
            continue;
        *r = (reading){number, weir_now()};
        int rc = weir_queue_put(queue, r, sizeof(*r), WEIR_FOREVER);
        if (rc < 0)
            free(r); /* refused: it is still ours; 0 or more: it is the queue's */
    }
}

/* true: the law held. */
static bool report(const char *name, weir_queue *queue, const consumer *c, double seconds)
{
    weir_queue_snapshot now = WEIR_QUEUE_SNAPSHOT_INIT;
    weir_queue_get_snapshot(queue, &now);
    uint64_t dropped = 0;
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        dropped += now.dropped[i];
    bool law = now.accepted == now.delivered + dropped + now.depth;
    printf("%-12s %7.2f %8.2f %9llu %9llu %8llu %8llu %6.1f %5d   %s\n", name, seconds,
           (double)now.put_blocked_ns / 1e9, (unsigned long long)now.accepted,
           (unsigned long long)now.delivered, (unsigned long long)dropped,
           (unsigned long long)now.refused, (double)c->oldest / 1e6, c->last,
           law ? "holds" : "BROKEN");
    for (int i = 0; i < WEIR_DROP_REASONS; i++)
        if (now.dropped[i] > 0)
            printf("%12s   dropped as %s: %llu\n", "", weir_drop_reason_name(i),
                   (unsigned long long)now.dropped[i]);
    return law;
}

static bool run(const char *name, weir_overflow overflow, int64_t max_age_ns)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = CAPACITY;
    opts.overflow = overflow;
    opts.max_age_ns = max_age_ns;
    opts.on_drop = weir_drop_free; /* what the queue drops, it frees */
    consumer c = {0};
    int rc = weir_queue_create(&c.queue, &opts);
    if (rc != WEIR_OK) {
        fprintf(stderr, "queue: cannot create a queue: %s\n", weir_strerror(rc));
        return false;
    }
    pthread_t thread;
    if (pthread_create(&thread, NULL, consume, &c) != 0) {
        fprintf(stderr, "queue: cannot start the consumer\n");
        weir_queue_destroy(c.queue);
        return false;
    }
    weir_time start = weir_now();
    produce(c.queue);
    weir_queue_close(c.queue); /* no more puts; the consumer empties it and ends */
    double seconds = (double)(weir_now() - start) / 1e9;
    pthread_join(thread, NULL);
    bool law = report(name, c.queue, &c, seconds);
    weir_queue_destroy(c.queue);
    return law;
}

int main(void)
{
    printf("%d items, one each %.1f ms; consumed in %.1f ms each; room for %d\n\n", ITEMS,
           PRODUCE / 1e6, CONSUME / 1e6, CAPACITY);
    printf("%-12s %7s %8s %9s %9s %8s %8s %6s %5s   %s\n", "policy", "took s", "blocked",
           "accepted", "delivered", "dropped", "refused", "age ms", "last", "law");
    bool law = run("block", WEIR_OVERFLOW_BLOCK, 0);
    law &= run("fail", WEIR_OVERFLOW_FAIL, 0);
    law &= run("drop newest", WEIR_OVERFLOW_DROP_NEWEST, 0);
    law &= run("drop oldest", WEIR_OVERFLOW_DROP_OLDEST, 0);
    law &= run("sample", WEIR_OVERFLOW_SAMPLE, 0);
    law &= run("max age 5 ms", WEIR_OVERFLOW_DROP_OLDEST, 5 * WEIR_MILLISECOND);
    return law ? EXIT_SUCCESS : EXIT_FAILURE;
}
