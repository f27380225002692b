/* waitq.c - see waitq.h. */
#include "flow/waitq.h"

static void link_waiter(weir__waitq *waitq, weir__waiter *waiter, weir__waiter *prev,
                        weir__waiter *next)
{
    waiter->waiting = true;
    waiter->prev = prev;
    waiter->next = next;
    *(prev ? &prev->next : &waitq->head) = waiter;
    *(next ? &next->prev : &waitq->tail) = waiter;
    waitq->count++;
}

void weir__waitq_push_async(weir__waitq *waitq, weir__waiter *waiter,
                            void (*notify)(weir__waiter *waiter))
{
    weir__parker_init(&waiter->parker);
    waiter->notify = notify;
    link_waiter(waitq, waiter, waitq->tail, NULL);
}

void weir__waitq_push_first(weir__waitq *waitq, weir__waiter *waiter,
                            void (*notify)(weir__waiter *waiter))
{
    waiter->notify = notify;
    link_waiter(waitq, waiter, NULL, waitq->head);
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

static void append(weir__wakeups *wakeups, weir__waiter *waiter)
{
    waiter->next = NULL;
    *(wakeups->tail ? &wakeups->tail->next : &wakeups->head) = waiter;
    wakeups->tail = waiter;
}

void weir__waitq_serve_this(weir__waitq *waitq, weir__waiter *waiter, weir__wakeups *wakeups,
                            int result)
{
    unlink_waiter(waitq, waiter);
    waiter->result = result;
    append(wakeups, waiter);
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

/* Those whom this thread is notifying, while it is in a notify. */
static _Thread_local weir__wakeups *notifying;

static weir__waiter *take_first(weir__wakeups *wakeups)
{
    weir__waiter *waiter = wakeups->head;
    wakeups->head = waiter->next; /* before the wake-up: the waiter may be gone after it */
    if (!wakeups->head)
        wakeups->tail = NULL;
    return waiter;
}

static void notify(weir__waiter *waiter, weir__wakeups *others)
{
    notifying = others;
    waiter->notify(waiter);
    notifying = NULL;
}

void weir__wake_all(weir__wakeups *wakeups)
{
    weir__wakeups *outer = notifying;
    while (wakeups->head) {
        weir__waiter *waiter = take_first(wakeups);
        if (!waiter->notify)
            weir__unpark(&waiter->parker);
        else if (outer)
            append(outer, waiter);
        else
            notify(waiter, wakeups);
    }
}
