/* queue.h - what exec knows about queues beyond <weir/queue.h>: queues of tasks, and what others see. */
#ifndef WEIR_FLOW_QUEUE_H
#define WEIR_FLOW_QUEUE_H

#include <weir/queue.h>
#include <weir/stats.h>

#include "flow/record.h"
#include "model/fifo.h"

/* As weir_drop_fn, for queues of tasks. */
typedef void weir__entry_drop_fn(const weir__entry *entry, weir_drop_reason reason, void *ctx);

/* As weir_queue_create; what on_entry_drop gets (NULL: nothing), opts->on_drop does not.  Other processes
 * see it as one of that kind. */
int weir__queue_create(weir_queue **ret_queue, const weir_queue_opts *opts,
                       weir__entry_drop_fn *on_entry_drop, weir_stats_kind kind);

/* What they see; its times of service, and the workers in it, are the caller's to tell.  NULL: nothing. */
weir__record *weir__queue_record(weir_queue *queue);

/* As weir_queue_put, of a task without cost; to a queue without max_age_ns.  insiders > 0: by one of
 * the so many threads that alone take items out.  Where it would wait while all the others wait here
 * already, nobody could ever make room: WEIR_EDEADLK. */
int weir__queue_put_task(weir_queue *queue, void (*fn)(void *), void *arg, weir_time deadline,
                         size_t insiders);

/* weir_queue_done for the `finished` tasks that this thread took, and weir_queue_get, in one. */
int weir__queue_next_task(weir_queue *queue, size_t finished, weir__entry *ret_task);

#endif
