/* order.c - an ordered stage with several workers: what comes out leaves in the order of what came in.
 *
 * Who takes items has the baton, and numbers them.  What a call came to is put into the slot of its
 * number; whoever fills the slot that is next emits it, and all that are ready behind it.  The others
 * go on meanwhile, as far as the window reaches.
 *
 * Bound:  next_in - next_out <= size, because each call takes a token of the window before it takes
 *         its items, and the token comes back when it was emitted.  So slots[seq % size] is free.
 */
#include "exec/pipeline_impl.h"

#include <string.h>

#include "base/alloc.h"

static bool make_slots(weir__order *order, size_t size, size_t batch)
{
    order->slots = weir__calloc(size, sizeof(*order->slots));
    for (size_t i = 0; order->slots && i < size && batch > 0; i++)
        if (!(order->slots[i].seqs = weir__calloc(batch, sizeof(uint64_t))))
            return false;
    return order->slots;
}

int weir__order_create(weir__order **ret_order, size_t size, size_t batch)
{
    weir__order *order = weir__calloc(1, sizeof(*order));
    if (!order)
        return WEIR_ENOMEM;
    order->size = size;
    weir__mutex_init(&order->lock);
    weir_queue_opts opts = WEIR_QUEUE_OPTS_INIT;
    opts.on_drop = weir_drop_ignore;
    opts.name = ""; /* nobody else's business */
    opts.capacity = 1;
    int rc = weir_queue_create(&order->baton, &opts);
    if (rc == WEIR_OK)
        rc = weir_queue_put(order->baton, NULL, 0, WEIR_POLL);
    opts.capacity = size;
    if (rc == WEIR_OK)
        rc = weir_queue_create(&order->window, &opts);
    if (rc == WEIR_OK && !make_slots(order, size, batch))
        rc = WEIR_ENOMEM;
    if (rc < 0) {
        weir__order_destroy(order);
        return rc;
    }
    *ret_order = order;
    return WEIR_OK;
}

void weir__order_destroy(weir__order *order)
{
    if (!order)
        return;
    for (size_t i = 0; order->slots && i < order->size; i++) {
        weir__free(order->slots[i].items); /* empty: every call has been emitted */
        weir__free(order->slots[i].seqs);
    }
    weir_queue_destroy(order->baton);
    weir_queue_destroy(order->window);
    weir__free(order->slots);
    weir__free(order);
}

/* false: no memory. */
bool weir__order_keep(weir__outcome *outcome, void *item, uint64_t cost)
{
    if (outcome->n == outcome->capacity) {
        size_t more = outcome->capacity ? 2 * outcome->capacity : 4;
        weir__held *items = weir__realloc(outcome->items, more * sizeof(*items));
        if (!items)
            return false;
        outcome->items = items;
        outcome->capacity = more;
    }
    outcome->items[outcome->n++] = (weir__held){item, cost};
    return true;
}

void weir__emit_kept(weir__stage *stage, weir__meter *meter, weir__outcome *outcome)
{
    for (size_t i = 0; i < outcome->n; i++)
        weir__emit_now(stage, meter, &outcome->items[i].item, &outcome->items[i].cost, 1, NULL);
    outcome->n = 0;
}

/* What the call took was dealt with.  Not where the pipeline is halted: then what was emitted may be lost;
 * or where it is. */
void weir__acknowledge(weir__stage *stage, weir__meter *meter, weir__outcome *outcome)
{
    bool was_taken = !outcome->has_lost && !meter->has_lost;
    for (size_t i = 0; i < outcome->n_seqs && was_taken && !weir__is_halted(stage->pipeline); i++)
        weir_queue_ack(stage->queue, outcome->seqs[i]);
    outcome->n_seqs = 0;
    outcome->has_lost = meter->has_lost = false;
}

/* The slots and the worker change arrays: no copy, and none is lost. */
static void swap(weir__outcome *a, weir__outcome *b)
{
    weir__outcome was = *a;
    *a = *b;
    *b = was;
}

void weir__order_submit(weir__stage *stage, weir__meter *meter, uint64_t seq,
                        weir__outcome *outcome)
{
    weir__order *order = stage->order;
    weir__lock(&order->lock);
    if (seq != order->next_out || order->emitting) {
        swap(&order->slots[seq % order->size], outcome);
        order->slots[seq % order->size].ready = true;
        outcome->n = outcome->n_seqs = 0;
        outcome->ready = outcome->has_lost = false;
        weir__unlock(&order->lock);
        return;
    }
    order->emitting = true;
    for (bool more = true; more;) {
        weir__unlock(&order->lock);
        weir__emit_kept(stage, meter, outcome);
        weir__acknowledge(stage, meter, outcome);
        void *token;
        weir_queue_get(order->window, &token, WEIR_POLL); /* there is one: this call's */
        weir__lock(&order->lock);
        order->next_out++;
        weir__outcome *next = &order->slots[order->next_out % order->size];
        more = next->ready;
        if (more) {
            next->ready = false;
            swap(next, outcome);
        }
        order->emitting = more;
    }
    weir__unlock(&order->lock);
}
