/* all.c - the cases there are. */
#include "../prove.h"

#include <stddef.h>

extern const prove_case case_park, case_mutex, case_queue_all_wait, case_queue_closed,
    case_pool_killed;

const prove_case *const prove_cases[] = {
    &case_park, &case_mutex, &case_queue_all_wait, &case_queue_closed, &case_pool_killed, NULL};
