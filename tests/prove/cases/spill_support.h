/* spill_support.h - a directory of this process for a spill, and what is left in it by runs that failed, removed. */
#ifndef WEIR_PROVE_SPILL_SUPPORT_H
#define WEIR_PROVE_SPILL_SUPPORT_H

#include "../prove.h"

#include <weir/spill.h>

/* A log in the empty directory; segments of 512 bytes. */
void s_make(weir_spill **ret_spill, bool durable);
void s_make_with_folder(weir_spill **ret_spill); /* durable; the directory is not there (slow) */

/* What would be left of it, were the power cut now; and the log that whoever finds that opens. */
void s_cut_power(void);
void s_open_what_is_left(weir_spill **ret_spill);

/* From now on writes, or syncs, fail now and then (ENOSPC; EIO). */
void s_disk_may_fail(bool may);
void s_disk_is_full(void); /* each write fails */
void s_syncs_may_fail(bool may);

/* The law of the log. */
weir_spill_snapshot s_look(weir_spill *spill);

#endif
