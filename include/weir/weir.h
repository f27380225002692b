/* weir.h - all of libweir. */
#ifndef WEIR_WEIR_H
#define WEIR_WEIR_H

#include <weir/base.h>
#include <weir/breaker.h>
#include <weir/limit.h>
#include <weir/memory.h>
#include <weir/monitor.h>
#include <weir/pipeline.h>
#include <weir/pool.h>
#include <weir/queue.h>
#include <weir/rate.h>
#include <weir/retry.h>
#include <weir/shared.h>
#include <weir/shared_queue.h>
#include <weir/spill.h>
#include <weir/stats.h>
#include <weir/teller.h>
#include <weir/thread_pool.h>
#include <weir/throttle.h>
#include <weir/watermark.h>
#include <weir/worker.h>

#endif
