/* pipeline_weir.c - source -> three empty stages -> sink, of weir_pipeline.
 *
 *     pipeline_weir KIND MILLISECONDS      KIND: threads | one | inline
 *
 * threads: each stage is a thread and takes up to 64 items at a time; one: a thread each, one item at a
 * time; inline: all on the thread of the source.  Queues of 1024.  Prints {"value": M items per second}.
 * Count and sum of what came out are those of what went in, or the program fails.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <weir/pipeline.h>

#define BATCH 64
#define QUEUE 1024

typedef struct side {
    uint64_t count, sum;
} side;

static weir_time end;
static side in, out;

static void drop(void *item, weir_stage stage, weir_loss reason, void *ctx)
{
    (void)item, (void)stage, (void)ctx;
    if (reason != WEIR_LOSS_OUTPUT)
        abort();
}

static int source(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)items, (void)n;
    void *some[BATCH];
    if (weir_now() >= end)
        return WEIR_END;
    for (size_t i = 0; i < BATCH; i++) {
        some[i] = (void *)(uintptr_t)++in.count;
        in.sum += in.count;
    }
    weir_emit_many(run, some, NULL, BATCH);
    return WEIR_MORE;
}

static int pass(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx;
    if (n == 1)
        weir_emit(run, items[0], 0);
    else
        weir_emit_many(run, items, NULL, n);
    return 0;
}

static int sink(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)run;
    for (size_t i = 0; i < n; i++) {
        out.count++;
        out.sum += (uintptr_t)items[i];
    }
    return 0;
}

static weir_stage add(weir_pipeline *pipeline, const char *kind, const char *name,
                      weir_stage_fn *fn, bool is_source)
{
    static weir_stage before;
    weir_stage_opts opts = WEIR_STAGE_OPTS_INIT;
    weir_stage stage;
    opts.name = name;
    opts.fn = fn;
    opts.source = is_source;
    opts.queue = QUEUE;
    if (strcmp(kind, "inline") == 0 && !is_source)
        opts.kind = WEIR_STAGE_INLINE;
    else if (strcmp(kind, "threads") == 0 && !is_source)
        opts.batch = BATCH;
    if (weir_pipeline_add(pipeline, &opts, &stage) != WEIR_OK ||
        (!is_source && weir_pipeline_connect(pipeline, before, stage) != WEIR_OK))
        abort();
    return before = stage;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.on_drop = drop;
    weir_pipeline *pipeline;
    if (weir_pipeline_create(&pipeline, &opts) != WEIR_OK)
        return 1;
    add(pipeline, argv[1], "source", source, true);
    add(pipeline, argv[1], "first", pass, false);
    add(pipeline, argv[1], "second", pass, false);
    add(pipeline, argv[1], "third", pass, false);
    add(pipeline, argv[1], "sink", sink, false);
    weir_time begin = weir_now();
    end = begin + strtol(argv[2], NULL, 10) * WEIR_MILLISECOND;
    if (weir_pipeline_start(pipeline) != WEIR_OK ||
        weir_pipeline_wait(pipeline, WEIR_FOREVER) != WEIR_OK)
        return 1;
    double seconds = (double)(weir_now() - begin) / 1e9;
    weir_pipeline_destroy(pipeline);
    if (in.count != out.count || in.sum != out.sum)
        return 1;
    printf("{\"value\": %.3f}\n", (double)out.count / seconds / 1e6);
    return 0;
}
