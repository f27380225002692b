/* queue_support.h - what the cases about queues share: a queue, calls on it that are noted in the history, a
 * sequential model of all of them, and a ledger of the items.
 *
 * Items are small numbers, 1 .. Q_VALUES - 1, each put once at most.  Those of one putter begin with the same
 * number but for the last three bits, and are put in ascending order: the model checks that they go in so.
 */
#ifndef WEIR_PROVE_QUEUE_SUPPORT_H
#define WEIR_PROVE_QUEUE_SUPPORT_H

#include "../prove.h"

#include <weir/queue.h>

#define Q_VALUES 48

extern weir_queue *queue;

/* The options that a case changes: everything is the default, the drops go to the ledger. */
weir_queue_opts q_options(size_t capacity, weir_overflow overflow);
void q_make(const weir_queue_opts *opts);
void q_make_plain(size_t capacity, weir_overflow overflow);

/* The laws at the end of a case: what was accepted was delivered or dropped or is inside, each item once, in items
 * and in cost, by the queue's own count and by the ledger's; nobody waits.  Destroys the queue. */
void q_end(void);

/* The history has an order in which a queue could have done it.  (Not where guests have something kept, or items
 * age: then who finds nothing may be right.) */
void q_linearizable(void);

/* Runs all of them, the last one on this thread. */
void q_run(void (*const fns[])(void *), size_t n);
#define Q_TOGETHER(...)                                                                            \
    q_run((void (*const[])(void *)){__VA_ARGS__},                                                  \
          sizeof((void (*const[])(void *)){__VA_ARGS__}) / sizeof(void (*)(void *)))

/* Until so many wait, as a snapshot says; the law and the bound in each. */
void q_until_waiting(size_t putters, size_t getters);

/* ---- calls; each as that of the queue ------------------------------------------------------------- */

int q_put(unsigned value, weir_time deadline);
int q_put_cost(unsigned value, uint64_t cost, weir_time deadline);
int64_t q_put_many(unsigned first, size_t n, weir_time deadline); /* first, first + 1, ... */
int q_overflow(unsigned value);
int64_t q_get(weir_time deadline); /* the value, or an error */
int64_t q_get_many(size_t max, weir_time deadline, int64_t linger_ns);
void q_close(void);
size_t q_discard(void);
int q_resize(size_t capacity);
int q_drain(weir_time deadline);
int q_done(size_t n);
void q_look(void); /* a snapshot, which must be true, lawful and within the bound; and the depth */
bool q_item_is_ready(void);
bool q_room_is_ready(void);

/* For calls that are made by other functions: what became of a value. */
void q_note_put(unsigned value, int rc);
void q_note_got(int64_t value);

#endif
