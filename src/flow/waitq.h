/* waitq.h - threads waiting in line under somebody's mutex.
 *
 * A waiter lives on its thread's stack.  Registering and handing over both happen under the
 * owner's mutex, and what is waited for is handed to the waiter itself, so a wake-up can be
 * neither lost nor overtaken.  Waking happens after the mutex is released:
 *
 *     lock; if (can serve) ...; else weir__waitq_push(&q, &w); unlock;
 *     rc = weir__waiter_park(&w, deadline);
 *     if (rc != WEIR_OK) {
 *         lock;
 *         if (weir__waitq_give_up(&q, &w)) { settle what our leaving allows; unlock; return rc; }
 *         unlock;
 *         weir__waiter_join(&w);         // served meanwhile: its wake-up is on the way
 *     }
 *     return w.result;
 *
 *     lock; w = weir__waitq_serve(&q, &woken, result); ...; unlock; weir__wake_all(&woken);
 *
 * Where serving takes more than the owner wants to do at that moment, it can hint at a waiter
 * instead (weir__hint_at).  The waiter's park then returns WEIR__HINTED; it takes the mutex, serves
 * the line, and if it was not served itself rearms and parks again.
 */
#ifndef WEIR_FLOW_WAITQ_H
#define WEIR_FLOW_WAITQ_H

#include "base/park.h"

typedef struct weir__waiter {
    struct weir__waiter *next, *prev;
    weir__parker parker;
    /* No thread waits here: called instead of an unpark, as the last touch of the waiter. */
    void (*notify)(struct weir__waiter *waiter);
    int result;   /* set when served */
    bool waiting; /* in a waitq; under the owner's mutex */
} weir__waiter;

typedef struct weir__waitq {
    weir__waiter *head, *tail;
    size_t count;
} weir__waitq;

/* Served waiters whose threads have still to be woken; local to the serving call. */
typedef struct weir__wakeups {
    weir__waiter *head, *tail;
} weir__wakeups;

/* Under the mutex: joins the end of the line.  The others for who has no thread to park: once served,
 * notify is called where a thread would have been woken.  The last one joins the head of the line. */
void weir__waitq_push(weir__waitq *waitq, weir__waiter *waiter);
void weir__waitq_push_async(weir__waitq *waitq, weir__waiter *waiter,
                            void (*notify)(weir__waiter *waiter));
void weir__waitq_push_first(weir__waitq *waitq, weir__waiter *waiter,
                            void (*notify)(weir__waiter *waiter));

/* Under the mutex: takes the head (there must be one) out of line with a result. */
weir__waiter *weir__waitq_serve(weir__waitq *waitq, weir__wakeups *wakeups, int result);

/* Under the mutex: takes any waiter of the line out with a result. */
void weir__waitq_serve_this(weir__waitq *waitq, weir__waiter *waiter, weir__wakeups *wakeups,
                            int result);

/* Under the mutex: leaves the line; false: was served already. */
bool weir__waitq_give_up(weir__waitq *waitq, weir__waiter *waiter);

/* Without the mutex: wakes, or notifies, those served, in order.  Called inside a notify, it leaves those
 * to be notified to the one who is notifying: so one who passes on what he was given, to one who
 * passes it on, and so on, takes no stack for each. */
void weir__wake_all(weir__wakeups *wakeups);

/* Without the mutex: sleeps until served (WEIR_OK), hinted at (WEIR__HINTED), or WEIR_ETIMEDOUT,
 * WEIR_EINTR. */
static inline int weir__waiter_park(weir__waiter *waiter, weir_time deadline)
{
    return weir__park(&waiter->parker, deadline);
}

/* Without the mutex: the waker is done with the waiter's memory. */
static inline void weir__waiter_join(weir__waiter *waiter)
{
    weir__park_surely(&waiter->parker);
}

#endif
