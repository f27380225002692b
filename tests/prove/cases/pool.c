/* pool.c - exec/pool, collect, redeal, worker, channel: processes that are killed at any point. */
#include "pool_kit.h"

#include "base/park.h"

static void pool_killed_workers(void)
{
    weir_pool_opts opts = kit_opts(1, 1);
    opts.retries = prove_pick(2);
    kit_make(&opts);
    int t = prove_spawn(kit_submit_some, (void *)3);
    kit_collect_some(3);
    prove_join(t);
    kit_check_permits();
    weir_pool_close(kit.pool);
    kit_collect_all();
    kit_end(3);
}

PROVE_CASE(pool_killed_workers,
           "each task comes back once, and each permit, whatever point its worker is killed at");

static void pool_two_killed_workers(void)
{
    weir_pool_opts opts = kit_opts(2, 2);
    opts.retries = 1;
    kit_make(&opts);
    kit_submit_some((void *)4);
    kit_collect_some(4);
    kit_check_permits();
    weir_pool_close(kit.pool);
    kit_collect_all();
    kit_end(4);
}

PROVE_CASE(pool_two_killed_workers,
           "what a killed worker had not started goes to the other one, once");

/* ---- batches ---------------------------------------------------------------------------------- */

static void check_items(unsigned tag, uint32_t items)
{
    for (uint32_t i = 0; i < items; i++)
        prove_same(kit.answered[tag][i] + kit.died[tag][i], 1);
}

static void pool_killed_in_a_batch(void)
{
    weir_pool_opts opts = kit_opts(2, 1);
    opts.retries = prove_pick(2);
    kit_make(&opts);
    kit.serve = kit_answer;
    kit_submit_batch(1, 3);
    kit_collect_some(1);
    kit_check_permits();
    weir_pool_close(kit.pool);
    kit_collect_all();
    check_items(1, 3);
    kit_end(1);
}

PROVE_CASE(pool_killed_in_a_batch,
           "each item of a batch is answered once or killed its worker, and the tag comes last");

/* ---- the parent ------------------------------------------------------------------------------- */

static void run_the_parent(void *arg)
{
    (void)arg;
    weir_pool_opts opts = kit_opts(2, 1);
    kit.workers_may_die = false;
    kit_make(&opts);
    kit_submit_some((void *)3);
    kit_collect_some(3);
    weir_pool_close(kit.pool);
    kit_collect_all();
    kit_end(3);
}

static void pool_killed_parent(void)
{
    prove_start_process(run_the_parent, NULL, true);
    prove_process_wait_all();
}

PROVE_CASE(pool_killed_parent, "no worker outlives its parent, whatever point that is killed at");

static void run_the_mortal(void *arg)
{
    (void)arg;
    weir_pool_opts opts = kit_opts(1, 1);
    opts.retries = 1;
    kit_make(&opts);
    kit.serve = kit_answer;
    kit_submit_batch(1, 2);
    kit_collect_some(1);
    weir_pool_close(kit.pool);
    kit_collect_all();
    kit_end(1);
}

static void pool_killed_parent_and_worker(void)
{
    prove_start_process(run_the_mortal, NULL, true);
    prove_process_wait_all();
}

PROVE_CASE(pool_killed_parent_and_worker, "nobody is left where both may be killed");
