// The headers compile as C++17, and the library is used from there.
#include <weir/weir.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

namespace
{

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "%s:%d: MUST(%s)\n", __FILE__, __LINE__, #condition);             \
            std::abort();                                                                          \
        }                                                                                          \
    } while (0)

void delete_string(void *item, weir_drop_reason, void *ctx)
{
    delete static_cast<std::string *>(item);
    ++*static_cast<int *>(ctx);
}

void a_queue_of_strings_drops_the_oldest()
{
    int dropped = 0;
    weir_queue *raw = nullptr;
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.capacity = 2;
    opts.overflow = WEIR_OVERFLOW_DROP_OLDEST;
    opts.on_drop = delete_string;
    opts.drop_ctx = &dropped;
    MUST(weir_queue_create(&raw, &opts) == WEIR_OK);
    std::unique_ptr<weir_queue, decltype(&weir_queue_destroy)> queue(raw, weir_queue_destroy);

    for (int i = 0; i < 5; i++) {
        auto item = std::make_unique<std::string>(std::to_string(i));
        auto cost = item->size();
        MUST(weir_queue_put(queue.get(), item.get(), cost, WEIR_POLL) == WEIR_KEPT);
        item.release();
    }
    void *item = nullptr;
    MUST(weir_queue_get(queue.get(), &item, WEIR_FOREVER) == WEIR_OK);
    std::unique_ptr<std::string> got(static_cast<std::string *>(item));
    MUST(*got == "3");
    weir_queue_snapshot now = WEIR_QUEUE_SNAPSHOT_INIT;
    MUST(weir_queue_get_snapshot(queue.get(), &now) == WEIR_OK);
    MUST(now.accepted == now.delivered + now.dropped[WEIR_DROP_OLDEST] + now.depth);
    queue.reset();
    MUST(dropped == 4);
}

void a_pool_runs_a_lambda()
{
    weir_thread_pool *pool = nullptr;
    weir_thread_pool_opts opts = WEIR_THREAD_POOL_OPTS_INIT;
    opts.threads = 1;
    opts.backlog = 1;
    opts.on_drop = [](weir_task_fn *, void *, weir_drop_reason, void *) {};
    MUST(weir_thread_pool_create(&pool, &opts) == WEIR_OK);
    int value = 0;
    auto task = [](void *arg) { *static_cast<int *>(arg) = 42; };
    MUST(weir_thread_pool_submit(pool, task, &value, WEIR_FOREVER) == WEIR_KEPT);
    MUST(weir_thread_pool_drain(pool, weir_after(10 * WEIR_SECOND)) == WEIR_OK);
    MUST(value == 42);
    weir_thread_pool_destroy(pool);
}

} // namespace

int main()
{
    a_queue_of_strings_drops_the_oldest();
    a_pool_runs_a_lambda();
    std::printf("weir %s from C++\n", weir_version());
}
