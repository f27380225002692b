/* show.c - what other processes see of a pipeline: a record for each stage.
 *
 * A stage's record is its queue's, also that of a borrowed one, so what goes in and out is seen as it
 * happens; a source or inline stage has one of its own.  What workers do is told by the pipeline's own
 * thread ten times a second, and once more before anybody hears that the pipeline has ended: nobody has to
 * ask for a verdict.
 *
 * Writers:    under the pipeline's lock, so one at a time.
 */
#include "exec/pipeline_impl.h"

#include <stdio.h>

#define NAME_MOST 30 /* bytes of a name that are kept */

/* ---- beginning -------------------------------------------------------------------------------- */

void weir__stage_name(const weir__stage *stage, char ret_name[WEIR__PAGE_NAME])
{
    const char *of = stage->pipeline->name;
    snprintf(ret_name, WEIR__PAGE_NAME, "%.*s/%.*s", (int)weir__page_cut(of, NAME_MOST), of,
             (int)weir__page_cut(stage->name, NAME_MOST), stage->name);
}

static void open_record(weir__stage *stage)
{
    char name[WEIR__PAGE_NAME];
    weir__stage_name(stage, name);
    stage->record = stage->queue ? weir__queue_record(stage->queue) : NULL;
    if (stage->record && !stage->owns_queue)
        weir__record_rename(stage->record, WEIR_STATS_STAGE, name);
    else if (!stage->record)
        stage->record = stage->own_record = weir__record_open(WEIR_STATS_STAGE, name);
}

static uint64_t fed_by(const weir__stage *stage)
{
    const weir_pipeline *pipeline = stage->pipeline;
    uint64_t places = 0;
    for (size_t i = 0; i < pipeline->n_edges; i++)
        if (pipeline->edges[i].from == stage->index && pipeline->edges[i].to < 64)
            places |= UINT64_C(1) << pipeline->edges[i].to;
    return places;
}

void weir__pipeline_show(weir_pipeline *pipeline)
{
    for (unsigned i = 0; i < pipeline->n; i++)
        open_record(pipeline->stages[i]);
    for (unsigned i = 0; i < pipeline->n; i++) {
        const weir__stage *stage = pipeline->stages[i];
        weir__tell(stage->record, WEIR_STATS_OWNER, weir__record_id(pipeline->stages[0]->record));
        weir__tell(stage->record, WEIR_STATS_PLACE, stage->index);
        weir__tell(stage->record, WEIR_STATS_FEEDS, fed_by(stage));
        weir__tell(stage->record, WEIR_STATS_WORKERS, weir__stage_workers(stage));
    }
}

void weir__stage_hide(weir__stage *stage)
{
    weir__record_close(stage->own_record);
    stage->record = stage->own_record = NULL;
}

/* ---- as it goes ------------------------------------------------------------------------------- */

/* A stage without a queue has what it takes in hand at once. */
static void tell_flow(weir__stage *stage, const weir__sight *seen)
{
    if (stage->queue)
        return;
    weir__tell(stage->record, WEIR_STATS_ACCEPTED, seen->delivered);
    weir__tell(stage->record, WEIR_STATS_DELIVERED, seen->delivered);
    weir__tell(stage->record, WEIR_STATS_CLOSED,
               atomic_load_explicit(&stage->ended, memory_order_relaxed));
}

static void tell_work(weir__stage *stage, const weir__sight *seen)
{
    weir__record *record = stage->record;
    weir__tell(record, WEIR_STATS_DONE, seen->settled);
    weir__tell(record, WEIR_STATS_IN_FLIGHT, seen->in_hand);
    weir__tell(record, WEIR_STATS_EMITTED, seen->emitted);
    weir__tell(record, WEIR_STATS_FAILED, seen->failed);
    weir__tell(record, WEIR_STATS_RETRIED, seen->retried);
    weir__tell(record, WEIR_STATS_SHED, seen->turned_away);
    weir__tell(record, WEIR_STATS_WORKERS, weir__stage_workers(stage));
    weir__tell(record, WEIR_STATS_BUSY_NS, seen->sum.busy_ns);
    weir__tell(record, WEIR_STATS_IDLE_NS, seen->sum.idle_ns);
}

static void tell_pressure(weir__stage *stage)
{
    const weir_pipeline *pipeline = stage->pipeline;
    const double *charged = pipeline->charged + (size_t)stage->index * WEIR_CAUSES;
    const uint64_t *blocked = pipeline->blocked_before + (size_t)stage->index * pipeline->n;
    uint64_t blocked_ns = 0;
    double sum = 0;
    int cause = 0;
    for (int i = 0; i < WEIR_CAUSES; i++) {
        sum += charged[i];
        cause = charged[i] > charged[cause] ? i : cause;
    }
    for (unsigned i = 0; i < pipeline->n; i++)
        blocked_ns += blocked[i];
    weir__tell(stage->record, WEIR_STATS_PRESSURE_NS, (uint64_t)sum);
    weir__tell(stage->record, WEIR_STATS_CAUSE, (uint64_t)cause);
    weir__tell(stage->record, WEIR_STATS_BLOCKED_NS, blocked_ns);
}

void weir__pipeline_tell(weir_pipeline *pipeline, const weir__sight *seen)
{
    for (unsigned i = 0; WEIR__TELLS && i < pipeline->n; i++) {
        weir__stage *stage = pipeline->stages[i];
        if (!stage->record)
            continue;
        tell_flow(stage, &seen[i]);
        tell_work(stage, &seen[i]);
        tell_pressure(stage);
    }
}
