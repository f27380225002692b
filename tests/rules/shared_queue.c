/* shared_queue.c - weir_shared_queue for the driver.  A message is its number, padded to what it costs. */
#include "driver.h"

#include <string.h>

enum { COST_MAX = 1 << 16 };

static weir_shared_queue *queue;

static int create(void)
{
    weir_shared_queue_opts opts = WEIR_SHARED_QUEUE_OPTS_INIT;
    opts.capacity = option("capacity", 0);
    opts.max_bytes = option("max_cost", 0);
    opts.max_age_ns = (int64_t)option("max_age", 0);
    opts.overflow = option_overflow();
    opts.sample_keep_one_of = (uint32_t)option("sample", 0);
    opts.name = option_text("name");
    return weir_shared_queue_create(&queue, &opts);
}

static void close_queue(void)
{
    weir_shared_queue_close(queue);
}

static void destroy(void)
{
    weir_shared_queue_destroy(queue);
}

/* ---- verbs ---------------------------------------------------------------------------------------- */

static int put_number(uint64_t number, uint64_t cost, weir_time deadline)
{
    static const char padding[COST_MAX];
    char data[COST_MAX];
    size_t size = cost < sizeof number ? sizeof number : cost < COST_MAX ? cost : COST_MAX;
    memcpy(data, &number, sizeof number);
    memcpy(data + sizeof number, padding, size - sizeof number);
    return weir_shared_queue_put(queue, &(weir_message){.data = data, .size = size}, deadline);
}

static unsigned long long number_of(const weir_message *message)
{
    uint64_t number = 0;
    memcpy(&number, message->data, sizeof number);
    return number;
}

static void put(request *call)
{
    int result = put_number(argument(call, 0), argument(call, 1), deadline_argument(call, 2));
    answer(call, result, "%d", result);
}

static void get(request *call)
{
    weir_message message;
    weir_buffer buffer = {0};
    int result = weir_shared_queue_get(queue, &message, &buffer, deadline_argument(call, 0));
    answer(call, result, "%llu", result < 0 ? 0 : number_of(&message));
    weir_buffer_free(&buffer);
}

static void put_many(request *call)
{
    uint64_t numbers[WORDS_MAX];
    weir_message messages[WORDS_MAX];
    size_t n = (size_t)call->n_words - 3;
    for (size_t i = 0; i < n; i++) {
        numbers[i] = argument(call, (int)i + 1);
        messages[i] = (weir_message){.data = &numbers[i], .size = sizeof numbers[i]};
    }
    int64_t result = weir_shared_queue_put_many(queue, messages, n, deadline_argument(call, 0));
    answer(call, result, "%lld", (long long)result);
}

static void get_many(request *call)
{
    weir_message messages[WORDS_MAX];
    unsigned long long numbers[WORDS_MAX];
    weir_buffer buffer = {0};
    int64_t n = weir_shared_queue_get_many(queue, messages, argument(call, 0), &buffer,
                                           deadline_argument(call, 1), (int64_t)argument(call, 2));
    for (int64_t i = 0; i < n; i++)
        numbers[i] = number_of(&messages[i]);
    answer_numbers(call, n, numbers);
    weir_buffer_free(&buffer);
}

static void put_range(request *call)
{
    uint64_t first = argument(call, 0), n = argument(call, 1), done = 0;
    int result = WEIR_OK;
    while (done < n && result >= 0) {
        result = put_number(first + done, argument(call, 2), deadline_argument(call, 3));
        done += result >= 0;
    }
    answer(call, WEIR_OK, "%llu", (unsigned long long)done);
}

static void get_all(request *call)
{
    weir_message message;
    weir_buffer buffer = {0};
    uint64_t n = 0;
    while (weir_shared_queue_get(queue, &message, &buffer, WEIR_FOREVER) >= 0) {
        say("got %s %llu", call->words[0], number_of(&message));
        n++;
    }
    answer(call, WEIR_OK, "%llu", (unsigned long long)n);
    weir_buffer_free(&buffer);
}

static void close_verb(request *call)
{
    answer(call, weir_shared_queue_close(queue), "%s", "");
}

static void discard(request *call)
{
    int64_t n = weir_shared_queue_discard(queue);
    answer(call, n, "%lld", (long long)n);
}

static void look(request *call)
{
    weir_shared_queue_snapshot from = WEIR_SHARED_QUEUE_SNAPSHOT_INIT;
    int result = weir_shared_queue_get_snapshot(queue, &from);
    weir_queue_snapshot now = {
        .capacity = from.capacity,
        .max_cost = from.max_bytes,
        .depth = from.depth,
        .cost = from.bytes,
        .accepted = from.accepted,
        .accepted_cost = from.accepted_bytes,
        .delivered = from.delivered,
        .delivered_cost = from.delivered_bytes,
        .refused = from.refused,
        .putters_waiting = from.putters_waiting,
        .getters_waiting = from.getters_waiting,
        .peak_depth = from.peak_depth,
        .closed = from.closed,
    };
    memcpy(now.dropped, from.dropped, sizeof now.dropped);
    memcpy(now.dropped_cost, from.dropped_bytes, sizeof now.dropped_cost);
    answer_look(call, result, &now);
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
    {"look", 0, look},
    {NULL, 0, NULL},
};

const subject shared_queue_subject = {"shared_queue", create, close_queue, destroy, verbs};
