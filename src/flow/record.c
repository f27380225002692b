/* record.c - see record.h. */
#include "flow/record.h"

_Static_assert(WEIR__PAGE_BUCKETS == WEIR__HISTOGRAM_BUCKETS, "the buckets are the model's");

weir__record *weir__record_open(weir_stats_kind kind, const char *name)
{
    if (!WEIR__TELLS || (name && name[0] == '\0'))
        return NULL;
    return weir__page_take(kind, weir_stats_kind_name(kind), name);
}

void weir__record_close(weir__record *record)
{
    weir__page_give_back(record);
}
