/* waitq.c - see waitq.h. */
#include "flow/waitq.h"

void weir__waitq_push_async(weir__waitq *waitq, weir__waiter *waiter,
                            void (*notify)(weir__waiter *waiter))
{
    weir__parker_init(&waiter->parker);
    waiter->notify = notify;
    waiter->waiting = true;
    waiter->next = NULL;
    waiter->prev = waitq->tail;
    if (waitq->tail)
        waitq->tail->next = waiter;
    else
        waitq->head = waiter;
    waitq->tail = waiter;
    waitq->count++;
}

void weir__waitq_push(weir__waitq *waitq, weir__waiter *waiter)
{
    weir__waitq_push_async(waitq, waiter, NULL);
}

static void unlink_waiter(weir__waitq *waitq, weir__waiter *waiter)
{
    if (waiter->prev)
        waiter->prev->next = waiter->next;
    else
        waitq->head = waiter->next;
    if (waiter->next)
        waiter->next->prev = waiter->prev;
    else
        waitq->tail = waiter->prev;
    waitq->count--;
    waiter->waiting = false;
}

void weir__waitq_serve_this(weir__waitq *waitq, weir__waiter *waiter, weir__wakeups *wakeups,
                            int result)
{
    unlink_waiter(waitq, waiter);
    waiter->result = result;
    waiter->next = NULL;
    if (wakeups->tail)
        wakeups->tail->next = waiter;
    else
        wakeups->head = waiter;
    wakeups->tail = waiter;
}

weir__waiter *weir__waitq_serve(weir__waitq *waitq, weir__wakeups *wakeups, int result)
{
    weir__waiter *waiter = waitq->head;
    weir__waitq_serve_this(waitq, waiter, wakeups, result);
    return waiter;
}

bool weir__waitq_give_up(weir__waitq *waitq, weir__waiter *waiter)
{
    if (!waiter->waiting)
        return false;
    unlink_waiter(waitq, waiter);
    return true;
}

void weir__wake_all(weir__wakeups *wakeups)
{
    for (weir__waiter *waiter = wakeups->head, *next; waiter; waiter = next) {
        next = waiter->next; /* before the wake-up: the waiter may be gone after it */
        if (waiter->notify)
            waiter->notify(waiter);
        else
            weir__unpark(&waiter->parker);
    }
    wakeups->head = wakeups->tail = NULL;
}
