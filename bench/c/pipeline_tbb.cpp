/* pipeline_tbb.cpp - tbb::parallel_pipeline under pipeline_load.h; BOUND is its number of tokens. */
#include <tbb/parallel_pipeline.h>

#include "pipeline_load.h"

static void subject_run(bool is_parallel, unsigned bound)
{
    using tbb::filter_mode;
    auto mode = is_parallel ? filter_mode::parallel : filter_mode::serial_in_order;
    auto source = tbb::make_filter<void, void *>(filter_mode::serial_in_order,
                                                 [](tbb::flow_control &control) -> void * {
                                                     void *item = next();
                                                     if (!item)
                                                         control.stop();
                                                     return item;
                                                 });
    auto filter = tbb::make_filter<void *, void *>(mode, [](void *item) { return stage(item); });
    auto sink = tbb::make_filter<void *, void>(filter_mode::serial_in_order,
                                               [](void *item) { last(item); });
    static_assert(STAGES == 3, "as many filters as stages");
    tbb::parallel_pipeline(bound, source & filter & filter & filter & sink);
}
