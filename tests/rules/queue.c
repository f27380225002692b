/* queue.c - weir_queue for the driver.  An item is its number; what it costs is said with it. */
#include "driver.h"

#include <poll.h>
#include <string.h>

static weir_queue *queue;
static weir_spill *spill;

/* Looks, as an on_drop may: with a lock held that would wait for itself. */
static void tell_drop(void *item, weir_drop_reason reason, void *ctx)
{
    (void)ctx;
    weir_queue_snapshot now = WEIR_QUEUE_SNAPSHOT_INIT;
    weir_queue_get_snapshot(queue, &now);
    say("drop %zu %s", (size_t)item, weir_drop_reason_name(reason));
}

static int encode(void *item, weir_record *into, void *ctx)
{
    (void)ctx;
    return weir_record_add(into, &item, sizeof item);
}

static int decode(const void *data, size_t n, void **ret_item, void *ctx)
{
    (void)ctx;
    if (n != sizeof *ret_item)
        return WEIR_EINVAL;
    memcpy(ret_item, data, n);
    return WEIR_OK;
}

static const weir_codec number_codec = {.encode = encode, .decode = decode};

static int create(void)
{
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = option("capacity", 0);
    opts.max_cost = option("max_cost", 0);
    opts.max_age_ns = (int64_t)option("max_age", 0);
    opts.overflow = option_overflow();
    opts.sample_keep_one_of = (uint32_t)option("sample", 0);
    opts.on_drop = tell_drop;
    opts.name = option_text("name");
    if (option_text("spill")) {
        weir_spill_opts disk = WEIR_SPILL_OPTS_INIT;
        disk.dir = option_text("spill");
        disk.max_bytes = 1 << 20;
        int made = weir_spill_create(&spill, &disk);
        if (made < 0)
            return made;
        opts.spill = spill;
        opts.codec = &number_codec;
    }
    return weir_queue_create(&queue, &opts);
}

static void close_queue(void)
{
    weir_queue_close(queue);
}

static void destroy(void)
{
    weir_queue_destroy(queue);
    weir_spill_destroy(spill);
}

/* ---- verbs ---------------------------------------------------------------------------------------- */

static void *item_argument(const request *call, int i)
{
    return (void *)(uintptr_t)argument(call, i);
}

static void put(request *call)
{
    int result = weir_queue_put(queue, item_argument(call, 0), argument(call, 1),
                                deadline_argument(call, 2));
    answer(call, result, "%d", result);
}

static void get(request *call)
{
    void *item = NULL;
    int result = weir_queue_get(queue, &item, deadline_argument(call, 0));
    answer(call, result, "%zu", (size_t)item);
}

static void put_many(request *call)
{
    void *items[WORDS_MAX];
    size_t n = (size_t)call->n_words - 3;
    for (size_t i = 0; i < n; i++)
        items[i] = item_argument(call, (int)i + 1);
    int64_t result = weir_queue_put_many(queue, items, NULL, n, deadline_argument(call, 0));
    answer(call, result, "%lld", (long long)result);
}

static void get_many(request *call)
{
    void *items[WORDS_MAX];
    unsigned long long numbers[WORDS_MAX];
    int64_t n = weir_queue_get_many(queue, items, NULL, argument(call, 0),
                                    deadline_argument(call, 1), (int64_t)argument(call, 2));
    for (int64_t i = 0; i < n; i++)
        numbers[i] = (uintptr_t)items[i];
    answer_numbers(call, n, numbers);
}

/* A producer: n items from the number on; says how many the queue took. */
static void put_range(request *call)
{
    uint64_t first = argument(call, 0), n = argument(call, 1), done = 0;
    int result = WEIR_OK;
    while (done < n && result >= 0) {
        void *item = (void *)(uintptr_t)(first + done);
        result = weir_queue_put(queue, item, argument(call, 2), deadline_argument(call, 3));
        done += result >= 0;
    }
    answer(call, WEIR_OK, "%llu", (unsigned long long)done);
}

/* A consumer: says each item on a line of its own, until the queue is closed and empty. */
static void get_all(request *call)
{
    void *item;
    uint64_t n = 0;
    while (weir_queue_get(queue, &item, WEIR_FOREVER) >= 0) {
        say("got %s %zu", call->words[0], (size_t)item);
        n++;
    }
    answer(call, WEIR_OK, "%llu", (unsigned long long)n);
}

static void close_verb(request *call)
{
    weir_queue_close(queue);
    answer(call, WEIR_OK, "%s", "");
}

static void discard(request *call)
{
    answer(call, WEIR_OK, "%zu", weir_queue_discard(queue));
}

static void resize(request *call)
{
    answer(call, weir_queue_resize(queue, argument(call, 0), argument(call, 1)), "%s", "");
}

static void look(request *call)
{
    weir_queue_snapshot now = WEIR_QUEUE_SNAPSHOT_INIT;
    int result = weir_queue_get_snapshot(queue, &now);
    answer_look(call, result, &now);
}

/* Whether the two descriptors are readable: "items room". */
static void readable(request *call)
{
    int item_fd = weir_queue_item_fd(queue), room_fd = weir_queue_room_fd(queue);
    if (item_fd < 0 || room_fd < 0) {
        answer(call, item_fd < 0 ? item_fd : room_fd, "%s", "");
        return;
    }
    struct pollfd fds[] = {{.fd = item_fd, .events = POLLIN}, {.fd = room_fd, .events = POLLIN}};
    poll(fds, 2, 0);
    answer(call, WEIR_OK, "%d %d", !!(fds[0].revents & POLLIN), !!(fds[1].revents & POLLIN));
}

static const verb verbs[] = {
    {"put", 3, put},
    {"get", 1, get},
    {"put_many", 1, put_many},
    {"get_many", 3, get_many},
    {"put_range", 4, put_range},
    {"get_all", 0, get_all},
    {"close", 0, close_verb},
    {"discard", 0, discard},
    {"resize", 2, resize},
    {"look", 0, look},
    {"readable", 0, readable},
    {NULL, 0, NULL},
};

const subject queue_subject = {"queue", create, close_queue, destroy, verbs};
