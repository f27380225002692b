/* Every call of the kernel and the allocator fails once: the n-th of each kind, for every n that there is,
 * while one object of the public API lives from its creation to its end.
 *
 * Each run is a process of its own.  It must end well, which means: what failed is said by an error that the
 * failure explains, and the same call then succeeds, or nobody notices; nothing is lost; and no memory,
 * descriptor, mapping, thread or process is left.
 *
 * Where there are many of a kind (a wait that looks again and again), the later ones are taken in strides;
 * WEIR_EVERY_CALL=1 takes all.  WEIR_SCENARIO=pool runs the scenarios with that in their names; WEIR_CALL=mmap the calls.
 */
#include "contract/folder.h"
#include "nth_call.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <weir/weir.h>

/* ---- what a scenario says ------------------------------------------------------------------------- */

static int failing; /* which kind */
static unsigned excused;
static bool made_nothing_before;
static bool says_system_only; /* of its contract: WEIR_ESYSTEM, whatever it was */

#define LIMIT_S 15 /* no call of a scenario takes that long */

static weir_time until(void)
{
    return weir_after(LIMIT_S * WEIR_SECOND);
}

/* Whether a call that failed with that errno may say so. */
static bool explains(int err, int rc)
{
    if (says_system_only && rc == WEIR_ESYSTEM)
        return true;
    switch (err) {
    case ENOMEM: return rc == WEIR_ENOMEM || rc == WEIR_ENOSHM;
    case EMFILE: return rc == WEIR_ENOFD;
    case ENOSPC: return rc == WEIR_ENOSPC || rc == WEIR_ENOSHM;
    case EAGAIN: /* of fork and pthread_create */ return rc == WEIR_ESPAWN;
    case EIO: /* what cannot be looked at may be anything */
        return rc == WEIR_ESYSTEM || rc == WEIR_ENOSHM ||
               (failing == NTH_STAT && rc == WEIR_EINVAL);
    case ENOLCK: return rc == WEIR_ESYSTEM;
    default: /* EINTR, a short write, a sleep that ends for nothing, and what there is another way for */
        return false;
    }
}

/* Something was refused: once, and for a reason. */
static void excuse(int64_t rc, const char *what)
{
    if (nth_has_failed() && explains(nth_errno(failing), (int)rc) && excused++ == 0)
        return;
    fprintf(stderr, "%s: %s\n", what, weir_error_name((int)rc));
    abort();
}

/* The call succeeds, at the second time at the latest; its result. */
#define TAKEN(call)                                                                                \
    ({                                                                                             \
        int64_t rc_ = (call);                                                                      \
        if (rc_ < 0) {                                                                             \
            excuse(rc_, #call);                                                                    \
            rc_ = (call);                                                                          \
            must(rc_ >= 0 && #call);                                                               \
        }                                                                                          \
        rc_;                                                                                       \
    })

/* The same of one that makes an object: one that fails leaves the pointer alone. */
#define MADE(object, call)                                                                         \
    do {                                                                                           \
        object = NULL;                                                                             \
        int64_t first_ = (call);                                                                   \
        if (first_ < 0) {                                                                          \
            must((object) == NULL);                                                                \
            excuse(first_, #call);                                                                 \
            must((call) >= 0);                                                                     \
        }                                                                                          \
        must(object);                                                                              \
    } while (0)

/* Each item once: a mark for each that came, was dropped or was lost. */
#define ITEMS_MAX 1024
static _Atomic unsigned arrived[ITEMS_MAX];
static _Atomic unsigned lost;

static void arrive(void *item)
{
    must((uintptr_t)item > 0 && (uintptr_t)item < ITEMS_MAX);
    must(arrived[(uintptr_t)item]++ == 0);
}

static void must_have_arrived(uintptr_t n)
{
    unsigned found = lost;
    for (uintptr_t i = 1; i <= n; i++)
        found += arrived[i];
    must(found == n);
}

static void drop_arrives(void *item, weir_drop_reason reason, void *ctx)
{
    (void)reason, (void)ctx;
    arrive(item);
}

/* ---- queues ---------------------------------------------------------------------------------------- */

static weir_queue_opts queue_opts(size_t capacity)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = capacity;
    opts.on_drop = drop_arrives;
    return opts;
}

static void end_queue(weir_queue *queue, uintptr_t items)
{
    weir_queue_close(queue);
    weir_queue_snapshot now = snapshot_of(queue);
    must(obeys_the_law(&now));
    weir_queue_destroy(queue);
    must_have_arrived(items);
}

static void a_queue(void)
{
    weir_queue *queue;
    weir_queue_opts opts = queue_opts(WEIR_UNBOUNDED);
    void *many[64];
    MADE(queue, weir_queue_create(&queue, &opts));
    TAKEN(weir_queue_item_fd(queue));
    TAKEN(weir_queue_room_fd(queue));
    for (uintptr_t n = 1; n <= 200; n++)
        TAKEN(weir_queue_put(queue, number(n), 1, WEIR_FOREVER));
    for (uintptr_t n = 0; n < 64; n++)
        many[n] = number(201 + n);
    for (int64_t done = 0; done < 64;)
        done +=
            TAKEN(weir_queue_put_many(queue, many + done, NULL, (size_t)(64 - done), WEIR_FOREVER));
    for (uintptr_t n = 1; n <= 100; n++) {
        void *item = NULL;
        TAKEN(weir_queue_get(queue, &item, WEIR_POLL));
        must(item == number(n));
        arrive(item);
    }
    int64_t got = TAKEN(weir_queue_get_many(queue, many, NULL, 64, WEIR_POLL, 0));
    for (int64_t i = 0; i < got; i++)
        arrive(many[i]);
    TAKEN(weir_queue_resize(queue, 50, 0));
    must(is_readable(TAKEN(weir_queue_item_fd(queue))));
    must(weir_queue_discard(queue) == 264 - 100 - (size_t)got);
    end_queue(queue, 264);
}

static void *puts_a_hundred(void *queue)
{
    for (uintptr_t n = 1; n <= 100; n++)
        TAKEN(weir_queue_put(queue, number(n), 0, until()));
    weir_queue_close(queue);
    return NULL;
}

/* Both sides sleep, all the time. */
static void a_queue_that_is_waited_for(void)
{
    weir_queue *queue;
    weir_queue_opts opts = queue_opts(2);
    pthread_t putter;
    void *item;
    int rc;
    MADE(queue, weir_queue_create(&queue, &opts));
    while ((rc = pthread_create(&putter, NULL, puts_a_hundred, queue)) != 0)
        must(rc == EAGAIN && nth_has_failed()); /* the test's own call */
    while ((rc = weir_queue_get(queue, &item, until())) == WEIR_OK)
        arrive(item);
    must(rc == WEIR_ECLOSED);
    pthread_join(putter, NULL);
    end_queue(queue, 100);
}

static int encode(void *item, weir_record *into, void *ctx)
{
    (void)ctx;
    char bytes[100] = {0};
    memcpy(bytes, &item, sizeof item);
    return weir_record_add(into, bytes, sizeof bytes);
}

static int decode(const void *data, size_t n, void **ret_item, void *ctx)
{
    (void)ctx;
    must(n == 100);
    memcpy(ret_item, data, sizeof *ret_item);
    return WEIR_OK;
}

static void note_lost(uint64_t n, void *ctx)
{
    (void)ctx;
    lost += (unsigned)n;
}

static const weir_codec codec = {encode, decode, NULL, note_lost, NULL};

static weir_queue *open_disk_queue(weir_spill **ret_spill, bool durable)
{
    weir_spill_opts disk = spill_opts(1 << 20, 1024, durable);
    weir_spill *spill;
    weir_queue *queue;
    MADE(spill, weir_spill_create(&spill, &disk));
    weir_queue_opts opts = queue_opts(4);
    opts.overflow = WEIR_OVERFLOW_SPILL;
    opts.spill = spill;
    opts.codec = &codec;
    MADE(queue, weir_queue_create(&queue, &opts));
    *ret_spill = spill;
    return queue;
}

/* What a full disk says is waited for, so a put does not see it. */
static void a_queue_that_spills(void)
{
    weir_spill *spill;
    weir_queue *queue = open_disk_queue(&spill, false);
    void *item;
    int rc;
    for (uintptr_t n = 1; n <= 30; n++)
        TAKEN(weir_queue_put(queue, number(n), 1, until()));
    weir_queue_close(queue);
    while ((rc = weir_queue_get(queue, &item, WEIR_POLL)) != WEIR_ECLOSED)
        if (rc == WEIR_OK)
            arrive(item);
        else
            must(rc == WEIR_EEMPTY && nth_has_failed()); /* it lies on disk, and is tried again */
    end_queue(queue, 30);
    weir_spill_destroy(spill);
}

/* Gets and acknowledges up to so many. */
static void take_from(weir_queue *queue, unsigned max)
{
    uint64_t cost, seq;
    void *item;
    for (unsigned n = 0; n < max;) {
        int rc = weir_queue_get_seq(queue, &item, &cost, &seq, WEIR_POLL);
        if (rc == WEIR_ECLOSED)
            return;
        must(rc == WEIR_OK || (rc == WEIR_EEMPTY && nth_has_failed())); /* it will be read again */
        if (rc < 0)
            continue;
        arrived[(uintptr_t)item] = 1; /* where the acknowledgement was lost it comes again */
        weir_queue_ack(queue, seq);
        n++;
    }
}

/* What cannot be looked at when the log is opened, or be read later, is there the next time. */
static void a_durable_queue(void)
{
    for (unsigned life = 0; life < 3; life++) {
        lost = 0;
        weir_spill *spill;
        weir_queue *queue = open_disk_queue(&spill, true);
        for (uintptr_t n = 1; life == 0 && n <= 15; n++)
            TAKEN(weir_queue_put(queue, number(n), 1, until()));
        if (life > 0)
            weir_queue_close(queue);
        take_from(queue, life == 0 ? 5 : 1000);
        weir_queue_destroy(queue);
        weir_spill_destroy(spill);
    }
    must_have_arrived(15);
}

static void a_log(void)
{
    weir_spill_opts opts = spill_opts(1 << 20, 512, true);
    weir_spill *spill;
    weir_record record = {0};
    uint64_t seq;
    for (int life = 0; life < 2; life++) {
        MADE(spill, weir_spill_create(&spill, &opts));
        for (int i = 0; i < 8; i++)
            TAKEN(weir_spill_append(spill, "what is to be kept, of some length", 34, NULL));
        for (int i = 0; i < 6; i++) {
            int rc = weir_spill_read(spill, &record, &seq);
            if (rc < 0 && log_of(spill).records_lost == 0) /* what cannot be read is damaged */
                excuse(rc, "weir_spill_read");
            else if (rc == WEIR_OK)
                weir_spill_ack(spill, seq);
        }
        log_of(spill); /* obeys the law */
        weir_spill_destroy(spill);
    }
    weir_record_free(&record);
}

static void a_shared_queue(void)
{
    weir_shared_queue *queue, *second;
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    weir_buffer buffer = {0};
    weir_message message, got[8];
    static char large[100000];
    opts.capacity = 10;
    opts.max_bytes = 1 << 20;
    MADE(queue, weir_shared_queue_create(&queue, &opts));
    MADE(second, weir_shared_queue_attach(&second, weir_shared_queue_fd(queue)));
    for (int i = 0; i < 8; i++) {
        message = (weir_message){.data = large, .size = i % 2 ? sizeof large : 10};
        TAKEN(weir_shared_queue_put(queue, &message, WEIR_POLL));
    }
    TAKEN(weir_shared_queue_get(second, &message, &buffer, WEIR_POLL));
    must(message.size == 10);
    TAKEN(weir_shared_queue_get(second, &message, &buffer, WEIR_POLL));
    must(message.size == sizeof large);
    int64_t n = TAKEN(weir_shared_queue_get_many(second, got, 3, &buffer, WEIR_POLL, 0));
    must(TAKEN(weir_shared_queue_discard(queue)) == 6 - n);
    must(weir_shared_queue_get(queue, &message, &buffer, weir_after(WEIR_MILLISECOND)) ==
         WEIR_ETIMEDOUT);
    weir_shared_queue_snapshot now = WEIR_SHARED_QUEUE_SNAPSHOT_INIT;
    TAKEN(weir_shared_queue_get_snapshot(queue, &now));
    must(now.accepted == 8 && now.delivered == 2 + (uint64_t)n &&
         total(now.dropped) == 6 - (uint64_t)n);
    TAKEN(weir_shared_queue_close(second));
    weir_buffer_free(&buffer);
    weir_shared_queue_destroy(second);
    weir_shared_queue_destroy(queue);
}

static void shared_memory(void)
{
    weir_shared *shared, *again;
    weir_shared_place place;
    MADE(shared, weir_shared_create(&shared, 100000));
    memset(weir_shared_data(shared), 7, 100000);
    weir_shared_get_place(shared, &place);
    MADE(again, weir_shared_open(&again, &place));
    must(memcmp(weir_shared_data(shared), weir_shared_data(again), 100000) == 0);
    weir_shared_destroy(again);
    weir_shared_destroy(shared);
}

/* ---- limits ---------------------------------------------------------------------------------------- */

static const char *name_of_ours(void)
{
    static char name[48];
    snprintf(name, sizeof name, "every.call.%d", (int)getpid());
    return name;
}

static void use_limit(const char *shared)
{
    weir_limit *limit;
    weir_limit_opts opts = WEIR_LIMIT_OPTS_INIT;
    weir_permit permits[5];
    opts.algorithm = WEIR_LIMIT_GRADIENT2;
    opts.shared = shared;
    MADE(limit, weir_limit_create(&limit, &opts));
    for (int i = 0; i < 5; i++)
        TAKEN(weir_limit_acquire(limit, 4, 0, WEIR_POLL, &permits[i]));
    must(weir_limit_acquire(limit, 1, 0, weir_after(WEIR_MILLISECOND), &permits[0]) ==
         WEIR_ETIMEDOUT);
    for (int i = 0; i < 5; i++)
        weir_limit_release(limit, &permits[i], WEIR_LIMIT_SUCCESS);
    weir_limit_snapshot now = WEIR_LIMIT_SNAPSHOT_INIT;
    TAKEN(weir_limit_get_snapshot(limit, &now));
    must(weir_limit_used(limit) == 0);
    weir_limit_destroy(limit);
}

static void use_rate(const char *shared)
{
    weir_rate *rate;
    weir_rate_opts opts = WEIR_RATE_OPTS_INIT;
    weir_reservation reservation;
    weir_time at;
    opts.rate = 1000;
    opts.burst = 5;
    opts.shared = shared;
    MADE(rate, weir_rate_create(&rate, &opts));
    for (int i = 0; i < 10; i++)
        TAKEN(weir_rate_acquire(rate, 1, until()));
    TAKEN(weir_rate_reserve(rate, 3, &at, &reservation));
    TAKEN(weir_rate_unreserve(rate, &reservation));
    TAKEN(weir_rate_set(rate, 2000, 0, 10));
    weir_rate_snapshot now = WEIR_RATE_SNAPSHOT_INIT;
    TAKEN(weir_rate_get_snapshot(rate, &now));
    weir_rate_destroy(rate);
}

static void use_governor(const char *shared, double fraction)
{
    weir_governor *governor;
    weir_governor_opts opts = WEIR_GOVERNOR_OPTS_INIT;
    opts.limit_fraction = fraction;
    opts.limit_bytes = fraction > 0 ? 0 : UINT64_C(1) << 40;
    opts.interval_ns = WEIR_MILLISECOND;
    opts.shared = shared;
    says_system_only = fraction > 0; /* the kernel does not tell of what */
    MADE(governor, weir_governor_create(&governor, &opts));
    for (int i = 0; i < 5; i++) {
        TAKEN(weir_governor_reserve(governor, 1 << 20, until()));
        weir_governor_sample(governor); /* one that fails keeps the last value */
        weir_governor_release(governor, 1 << 20);
    }
    weir_governor_snapshot now = WEIR_GOVERNOR_SNAPSHOT_INIT;
    TAKEN(weir_governor_get_snapshot(governor, &now));
    weir_governor_destroy(governor);
}

static void a_limit(void)
{
    use_limit(NULL);
}
static void a_shared_limit(void)
{
    use_limit(name_of_ours());
}
static void a_rate(void)
{
    use_rate(NULL);
}
static void a_shared_rate(void)
{
    use_rate(name_of_ours());
}
static void a_governor_of_a_share(void)
{
    use_governor(NULL, 0.9);
}
static void a_governor_of_bytes(void)
{
    use_governor(NULL, 0);
}
static void a_shared_governor(void)
{
    use_governor(name_of_ours(), 0);
}

static void a_breaker_and_a_throttle(void)
{
    weir_breaker *breaker;
    weir_breaker_opts opts = WEIR_BREAKER_OPTS_INIT;
    MADE(breaker, weir_breaker_create(&breaker, &opts));
    for (int i = 0; i < 30; i++) {
        weir_breaker_call call;
        if (weir_breaker_admit(breaker, &call) == WEIR_OK)
            TAKEN(weir_breaker_report(breaker, &call, WEIR_CALL_FAILURE));
    }
    must(weir_breaker_get_state(breaker) == WEIR_BREAKER_OPEN);
    TAKEN(weir_breaker_reset(breaker));
    weir_breaker_destroy(breaker);

    weir_throttle *throttle;
    weir_throttle_opts throttle_opts = WEIR_THROTTLE_OPTS_INIT;
    MADE(throttle, weir_throttle_create(&throttle, &throttle_opts));
    for (int i = 0; i < 10; i++)
        if (weir_throttle_admit(throttle) == WEIR_OK)
            TAKEN(weir_throttle_report(throttle, WEIR_CALL_FAILURE));
    weir_throttle_destroy(throttle);
    must(weir_random() != weir_random());
}

static void a_watermark(void)
{
    weir_watermark *mark;
    weir_watermark_opts opts = WEIR_WATERMARK_OPTS_INIT;
    opts.high = 10;
    MADE(mark, weir_watermark_create(&mark, &opts));
    int fd = (int)TAKEN(weir_watermark_fd(mark));
    must(is_readable(fd));
    TAKEN(weir_watermark_add(mark, 20));
    must(!is_readable(fd));
    must(weir_watermark_drain(mark, weir_after(WEIR_MILLISECOND)) == WEIR_ETIMEDOUT);
    TAKEN(weir_watermark_sub(mark, 20));
    must(is_readable(fd));
    TAKEN(weir_watermark_drain(mark, until()));
    weir_watermark_destroy(mark);
}

/* ---- pools and pipelines ---------------------------------------------------------------------------- */

static void run_task(void *arg)
{
    arrive(arg);
}

static void drop_task(weir_task_fn *fn, void *arg, weir_drop_reason reason, void *ctx)
{
    (void)fn, (void)reason, (void)ctx;
    arrive(arg);
}

static void a_thread_pool(void)
{
    weir_thread_pool *pool;
    weir_thread_pool_opts opts = WEIR_THREAD_POOL_OPTS_INIT;
    opts.threads = 2;
    opts.backlog = 3;
    opts.on_drop = drop_task;
    MADE(pool, weir_thread_pool_create(&pool, &opts));
    for (uintptr_t n = 1; n <= 30; n++)
        TAKEN(weir_thread_pool_submit(pool, run_task, number(n), until()));
    TAKEN(weir_thread_pool_drain(pool, until()));
    weir_thread_pool_snapshot now = WEIR_THREAD_POOL_SNAPSHOT_INIT;
    TAKEN(weir_thread_pool_get_snapshot(pool, &now));
    must(now.accepted == 30 && now.finished == 30);
    weir_thread_pool_destroy(pool);
    must_have_arrived(30);
}

static void echo(weir_worker *worker, const weir_task *task, void *ctx)
{
    (void)ctx;
    weir_bytes bytes = {task->data, task->size};
    weir_worker_reply(worker, 7, &bytes, 1);
}

/* A task is replied to, or its end has a reason: it costs that one only. */
static void take(const weir_completion *done)
{
    arrive(done->tag);
    if (done->outcome != WEIR_OUTCOME_REPLIED)
        must(nth_has_failed() && excused++ == 0);
    else if (done->data_size == 0) /* the worker could not map it: a reply without the bytes */
        must(nth_has_failed());
}

static void collect_all(weir_pool *pool)
{
    for (;;) {
        weir_pool_snapshot now = WEIR_POOL_SNAPSHOT_INIT;
        must(weir_pool_get_snapshot(pool, &now) == WEIR_OK);
        must(now.accepted ==
             now.completed + total(now.dropped) + now.cancelled + now.waiting + now.running);
        if (now.waiting + now.running == 0)
            return;
        weir_completion done[8];
        int64_t n = weir_pool_collect(pool, done, 8, until());
        must(n > 0);
        for (int64_t i = 0; i < n; i++)
            take(&done[i]);
    }
}

static void a_process_pool(void)
{
    static const size_t sizes[] = {10, 5000, 300000};
    static char bytes[300000];
    weir_pool *pool;
    weir_pool_opts opts = WEIR_POOL_OPTS_INIT;
    opts.workers = 2;
    opts.backlog = 10;
    opts.retries = 1;
    opts.on_drop = drop_arrives;
    opts.handler = echo;
    MADE(pool, weir_pool_create(&pool, &opts));
    for (uintptr_t n = 1; n <= 9; n++) {
        weir_bytes part = {bytes, sizes[n % 3]};
        TAKEN(weir_pool_submit(pool, &part, 1, number(n), until(), NULL));
        if (n % 3 == 0)
            collect_all(pool);
    }
    weir_pool_close(pool);
    weir_pool_destroy(pool);
    must_have_arrived(9);
}

static int produce(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)items, (void)n;
    _Atomic uintptr_t *made = ctx;
    if (*made == 60)
        return WEIR_END;
    weir_emit(run, number(++*made), 0);
    return WEIR_MORE;
}

static int pass(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx;
    weir_emit_many(run, items, NULL, n);
    return 0;
}

static int end_here(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)run;
    for (size_t i = 0; i < n; i++)
        arrive(items[i]);
    return 0;
}

static void drop_of_a_stage(void *item, weir_stage stage, weir_loss reason, void *ctx)
{
    (void)stage, (void)ctx, (void)reason;
    must(nth_has_failed());
    arrive(item);
}

static void a_pipeline(void)
{
    weir_pipeline *pipeline;
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    weir_stage_opts stages[3] = {WEIR_STAGE_OPTS_INIT, WEIR_STAGE_OPTS_INIT, WEIR_STAGE_OPTS_INIT};
    weir_stage stage;
    static _Atomic uintptr_t made;
    opts.on_drop = drop_of_a_stage;
    MADE(pipeline, weir_pipeline_create(&pipeline, &opts));
    stages[0].name = "source";
    stages[0].fn = produce;
    stages[0].ctx = &made;
    stages[0].source = true;
    stages[1].name = "pass";
    stages[1].fn = pass;
    stages[1].workers = 3;
    stages[1].ordered = true;
    stages[2].name = "sink";
    stages[2].fn = end_here;
    stages[2].batch = 4;
    stages[2].queue = 3;
    for (unsigned i = 0; i < 3; i++)
        TAKEN(weir_pipeline_add(pipeline, &stages[i], &stage));
    for (unsigned i = 0; i < 2; i++)
        TAKEN(weir_pipeline_connect(pipeline, i, i + 1));
    TAKEN(weir_pipeline_start(pipeline));
    must(weir_pipeline_wait(pipeline, until()) == WEIR_OK);
    must(made == 60);
    weir_pipeline_destroy(pipeline);
    must_have_arrived(60);
}

/* ---- looking ---------------------------------------------------------------------------------------- */

static int count_text(void *ctx, const char *text, size_t length)
{
    (void)text;
    *(size_t *)ctx += length;
    return 0;
}

/* A page that cannot be read now is passed over, and read the next time. */
static void a_monitor(void)
{
    weir_queue *queue;
    weir_queue_opts opts = queue_opts(5);
    weir_monitor *monitor;
    weir_monitor_opts monitor_opts = WEIR_MONITOR_OPTS_INIT;
    size_t metrics = 0, json = 0;
    opts.name = "watched";
    MADE(queue, weir_queue_create(&queue, &opts));
    MADE(monitor, weir_monitor_create(&monitor, &monitor_opts));
    bool seen = false;
    for (int i = 0; i < 3; i++) {
        TAKEN(weir_monitor_look(monitor));
        seen |= weir_monitor_objects(monitor) == 1;
    }
    /* Where the page could not be made there is none, for as long as the process lives. */
    must(seen || (made_nothing_before && nth_has_failed()));
    must(weir_monitor_objects(monitor) == 1 || nth_has_failed());
    TAKEN(weir_monitor_write_openmetrics(monitor, count_text, &metrics));
    TAKEN(weir_monitor_write_json(monitor, true, count_text, &json));
    must(metrics > 100 && json > 100);
    weir_monitor_destroy(monitor);
    end_queue(queue, 0);
}

static void a_reader_of_pages(void)
{
    weir_queue *queue;
    weir_queue_opts opts = queue_opts(5);
    weir_stats *stats;
    weir_stats_process process = WEIR_STATS_PROCESS_INIT;
    static weir_stats_record record = WEIR_STATS_RECORD_INIT;
    MADE(queue, weir_queue_create(&queue, &opts));
    MADE(stats, weir_stats_open(&stats, NULL));
    for (int round = 0; round < 2; round++) {
        unsigned records = 0;
        while (TAKEN(weir_stats_next_process(stats, &process)) == 1)
            while (weir_stats_next_record(stats, &record) == 1)
                records++;
        must(records == 1 || nth_has_failed());
    }
    weir_stats_close(stats);
    end_queue(queue, 0);
}

/* ---- running them ----------------------------------------------------------------------------------- */

static const struct scenario {
    const char *name;
    void (*run)(void);
    nth_place place;
    bool is_first; /* nothing was made in the process before: its page neither */
} scenarios[] = {
#define S(name) {#name, name, NTH_HERE, false}
    S(a_queue),
    {"a_queue_that_is_the_first_object", a_queue, NTH_HERE, true},
    S(a_queue_that_is_waited_for),
    S(a_queue_that_spills),
    S(a_durable_queue),
    S(a_log),
    S(a_shared_queue),
    S(shared_memory),
    S(a_limit),
    S(a_shared_limit),
    S(a_rate),
    S(a_shared_rate),
    S(a_governor_of_a_share),
    S(a_governor_of_bytes),
    S(a_shared_governor),
    S(a_breaker_and_a_throttle),
    S(a_watermark),
    S(a_thread_pool),
    S(a_process_pool),
    {"a_process_pool_in_whose_workers", a_process_pool, NTH_IN_WORKERS, false},
    S(a_pipeline),
    S(a_monitor),
    {"a_monitor_and_the_first_object", a_monitor, NTH_HERE, true},
    S(a_reader_of_pages),
};

typedef struct ledger {
    int64_t allocations;
    int descriptors, mappings, threads;
} ledger;

static int entries_of(const char *path)
{
    int n = 0;
    DIR *dir = opendir(path);
    must(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* Of shared memory that has no name; the page has one. */
static int count_mappings(void)
{
    int n = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    must(maps);
    while (fgets(line, sizeof line, maps))
        n += strstr(line, "memfd:weir") != NULL || strstr(line, "every.call") != NULL;
    fclose(maps);
    return n;
}

/* A thread that was joined may still be listed for a moment. */
static ledger take_stock(const ledger *before)
{
    ledger now = {.allocations = nth_allocations(),
                  .descriptors = entries_of("/proc/self/fd"),
                  .mappings = count_mappings()};
    do
        now.threads = entries_of("/proc/self/task");
    while (before && now.threads > before->threads && sched_yield() == 0);
    return now;
}

static void live(const struct scenario *scenario, int64_t n)
{
    made_nothing_before = scenario->is_first;
    if (!scenario->is_first) {
        weir_queue *queue;
        weir_queue_opts opts = queue_opts(1);
        must(weir_queue_create(&queue, &opts) == WEIR_OK);
        weir_queue_destroy(queue);
    }
    ledger before = take_stock(NULL);
    nth_fails(failing, n, scenario->place);
    scenario->run();
    nth_end();
    ledger after = take_stock(&before);
    must(after.allocations == before.allocations);
    must(after.descriptors == before.descriptors);
    must(after.mappings == before.mappings);
    must(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

static unsigned not_survived;

static char pages[] = "/tmp/weir-every-call-XXXXXX";

static void empty(const char *path)
{
    DIR *dir = opendir(path);
    must(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

/* In a process of its own; whether the n-th call has come. */
static bool survives(const struct scenario *scenario, int64_t n)
{
    int status;
    nth_fails(failing, 0, NTH_HERE); /* the counts lie where the child's are, too */
    nth_end();
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        alarm(2 * LIMIT_S);
        live(scenario, n);
        _exit(0);
    }
    must(waitpid(pid, &status, 0) == pid);
    empty(folder);
    empty(pages);
    if (status != 0) {
        print_error("%s: call %ld of %s fails with \"%s\": %s %d\n", scenario->name, (long)n,
                    nth_name(failing), nth_errno(failing) ? strerror(nth_errno(failing)) : "short",
                    WIFSIGNALED(status) ? "killed by signal" : "exit status",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        not_survived++;
    }
    must(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD); /* nor any of its children is left */
    return nth_has_failed();
}

static bool is_asked_for(const char *variable, const char *name)
{
    const char *asked = getenv(variable);
    return !asked || strstr(name, asked);
}

#define EVERY 6 /* so many one by one, then strides that grow */

static unsigned run_with_each_call_failing(const struct scenario *scenario)
{
    unsigned failed = 0;
    const char *every = getenv("WEIR_EVERY_CALL");
    for (failing = 0; failing < NTH_KINDS; failing++)
        for (int64_t n = 1; is_asked_for("WEIR_CALL", nth_name(failing)) && survives(scenario, n);
             n += every ? 1 : 1 + n / EVERY)
            failed++;
    return failed;
}

static void every_call_may_fail_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        if (!is_asked_for("WEIR_SCENARIO", scenarios[i].name))
            continue;
        weir_time begin = weir_now();
        unsigned failed = run_with_each_call_failing(&scenarios[i]);
        printf("%-36s %5u calls failed, one at a time, in %.1f s\n", scenarios[i].name, failed,
               (double)(weir_now() - begin) / 1e9);
        assert_true(failed > 0);
    }
    assert_int_equal(not_survived, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {IN_FOLDER(every_call_may_fail_once)};
    must(mkdtemp(pages) && setenv("WEIR_STATS_DIR", pages, 1) == 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    must(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(pages);
    return failures;
}
