/* queue.h - what the thread pool knows about queues beyond <weir/queue.h>. */
#ifndef WEIR_FLOW_QUEUE_H
#define WEIR_FLOW_QUEUE_H

#include <weir/queue.h>

/* As weir_queue_put, by one of the `insiders` threads (> 0) that alone take items out.  Where it
 * would wait while all the others wait here already, nobody could ever make room: WEIR_EDEADLK. */
int weir__queue_put_inside(weir_queue *queue, void *item, uint64_t cost, weir_time deadline,
                           size_t insiders);

#endif
