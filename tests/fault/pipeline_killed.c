/* A durable pipeline is killed at random moments, and started again over what it left: every item that
 * was accepted comes to the end at least once.  WEIR_KILLS=200 kills so often. */
#include "contract/support.h"

#include <ftw.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/pipeline.h>

#define ITEMS 1000000

/* Shared with the children, and outlives them. */
typedef struct book {
    _Atomic uint32_t next;     /* to be put */
    _Atomic uint32_t accepted; /* puts that returned: all below */
    _Atomic uint8_t delivered[ITEMS];
    _Atomic uint32_t again, ends;
} book;

static book *notes;
static char folder[64];

/* ---- items are numbers ------------------------------------------------------------------------ */

static int encode(void *item, weir_record *into, void *ctx)
{
    (void)ctx;
    return weir_record_add(into, &item, sizeof(item));
}

static int decode(const void *data, size_t n, void **ret_item, void *ctx)
{
    (void)ctx;
    if (n != sizeof(*ret_item))
        return WEIR_EINVAL;
    memcpy(ret_item, data, n);
    return WEIR_OK;
}

static const weir_codec codec = {.encode = encode, .decode = decode};

static void ignore(void *item, weir_stage stage, weir_loss reason, void *ctx)
{
    (void)item, (void)stage, (void)reason, (void)ctx;
}

static int pass(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx;
    weir_emit_many(run, items, NULL, n);
    return 0;
}

static int arrive(void *ctx, void *const *items, size_t n, const weir_run *run)
{
    (void)ctx, (void)run;
    for (size_t i = 0; i < n; i++) {
        _Atomic uint8_t *mark = &notes->delivered[(uintptr_t)items[i]];
        notes->again += *mark;
        *mark = 1;
    }
    return 0;
}

/* ---- the pipeline ----------------------------------------------------------------------------- */

static weir_spill *open_spill(const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    weir_spill_opts opts = WEIR_SPILL_OPTS_INIT;
    opts.dir = path;
    opts.max_bytes = 64 << 20;
    opts.segment_bytes = 16384;
    opts.durable = true;
    weir_spill *spill;
    must(weir_spill_create(&spill, &opts) == WEIR_OK);
    return spill;
}

typedef struct line {
    weir_pipeline *pipeline;
    weir_spill *spills[2];
    weir_stage first;
} line;

/* Two durable stages, the first ordered with several workers. */
static line build(void)
{
    line l = {.spills = {open_spill("first"), open_spill("second")}};
    weir_pipeline_opts opts = WEIR_PIPELINE_OPTS_INIT;
    opts.on_drop = ignore;
    must(weir_pipeline_create(&l.pipeline, &opts) == WEIR_OK);
    weir_stage stage;
    for (int i = 0; i < 2; i++) {
        weir_stage_opts o = WEIR_STAGE_OPTS_INIT;
        o.name = i ? "second" : "first";
        o.fn = i ? arrive : pass;
        o.open = i == 0;
        o.workers = i ? 1 : 3;
        o.ordered = i == 0;
        o.batch = i ? 5 : 1;
        o.queue = 8;
        o.overflow = WEIR_OVERFLOW_SPILL;
        o.spill = l.spills[i];
        o.codec = &codec;
        o.acknowledge = true;
        must(weir_pipeline_add(l.pipeline, &o, &stage) == WEIR_OK);
    }
    must(weir_pipeline_connect(l.pipeline, 0, 1) == WEIR_OK);
    must(weir_pipeline_start(l.pipeline) == WEIR_OK);
    return l;
}

static void demolish(line *l)
{
    weir_pipeline_destroy(l->pipeline);
    weir_spill_destroy(l->spills[0]);
    weir_spill_destroy(l->spills[1]);
}

/* Until it is killed; now and then it halts by itself, and begins again. */
static void live(unsigned chance)
{
    line l = build();
    for (unsigned n = 1;; n++) {
        uint32_t item = notes->next;
        must(item < ITEMS);
        must(weir_pipeline_put(l.pipeline, l.first, number(item), 0, WEIR_FOREVER) >= 0);
        notes->next = item + 1;
        notes->accepted = item + 1;
        if ((n + chance) % 97 == 0) {
            weir_pipeline_halt(l.pipeline);
            must(weir_pipeline_wait(l.pipeline, weir_after(PATIENCE)) == WEIR_OK);
            demolish(&l);
            notes->ends++;
            l = build();
        }
    }
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    (void)stat, (void)type, (void)ftw;
    return remove(path);
}

static void every_accepted_item_arrives_after_any_kill(void **state)
{
    (void)state;
    const char *asked = getenv("WEIR_KILLS");
    int kills = asked ? atoi(asked) : 60;
    snprintf(folder, sizeof(folder), "/tmp/weir_pipeline_XXXXXX");
    assert_non_null(mkdtemp(folder));
    notes = mmap(NULL, sizeof(*notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(notes != MAP_FAILED);
    uint64_t chance = 12345;
    for (int i = 0; i < kills; i++) {
        chance = chance * 6364136223846793005u + 1442695040888963407u;
        pid_t child = fork();
        if (child == 0) {
            live((unsigned)(chance >> 40));
            _exit(0);
        }
        long wait_us = (long)(chance >> 33) % 30000;
        nanosleep(&(struct timespec){.tv_nsec = wait_us * 1000}, NULL);
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* no `must` has failed */
    }
    line l = build();
    weir_pipeline_stop(l.pipeline);
    assert_int_equal(weir_pipeline_wait(l.pipeline, weir_after(PATIENCE)), WEIR_OK);
    demolish(&l);
    for (uint32_t i = 0; i < notes->accepted; i++)
        assert_int_equal(notes->delivered[i], 1);
    print_message("%d kills: %u accepted, %u came again, %u halts\n", kills, notes->accepted,
                  notes->again, notes->ends);
    assert_true(kills < 20 || notes->accepted > 0);
    munmap(notes, sizeof(*notes));
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_accepted_item_arrives_after_any_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
