/* tell.h - what `weir top` and the others see of a run: a process pool, and a worker for each slot. */
#ifndef WEIR_CLI_RUN_TELL_H
#define WEIR_CLI_RUN_TELL_H

#include "schedule.h"

typedef struct run_teller run_teller;

/* NULL: nothing is to be seen, which is fine for all calls. */
run_teller *run_teller_open(const char *name);
void run_teller_close(run_teller *t);

void run_teller_tell(run_teller *t, const run_schedule *s);

/* A job runs in a slot (from 1), or (pid 0) does no more, and took so long. */
void run_teller_slot(run_teller *t, unsigned slot, int64_t pid, int64_t took_ns, bool failed);

#endif
