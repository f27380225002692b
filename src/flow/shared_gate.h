/* shared_gate.h - the gate (flow/gate.h) of several processes, found by its name. */
#ifndef WEIR_FLOW_SHARED_GATE_H
#define WEIR_FLOW_SHARED_GATE_H

#include "flow/gate.h"

typedef struct weir__shared_gate weir__shared_gate;

/* As the functions of gate.h; opts have been looked at. */
int weir__shared_gate_open(weir__shared_gate **ret_gate, const weir__gate_opts *opts);
void weir__shared_gate_close_handle(weir__shared_gate *gate);
int weir__shared_gate_acquire(weir__shared_gate *gate, uint64_t cost, unsigned partition,
                              weir_time deadline);
void weir__shared_gate_count_refused(weir__shared_gate *gate);
void weir__shared_gate_release(weir__shared_gate *gate, uint64_t cost, unsigned partition,
                               weir__gate_update_fn *fn, void *ctx);
uint64_t weir__shared_gate_update(weir__shared_gate *gate, weir__gate_update_fn *fn, void *ctx);
void weir__shared_gate_look(weir__shared_gate *gate, void *ret_state);
weir__record *weir__shared_gate_record(weir__shared_gate *gate);
void weir__shared_gate_close(weir__shared_gate *gate);
void weir__shared_gate_get_counts(weir__shared_gate *gate, weir__gate_counts *ret_counts);
uint64_t weir__shared_gate_capacity(const weir__shared_gate *gate);
uint64_t weir__shared_gate_used(const weir__shared_gate *gate);

#endif
