/* scale.c - see scale.h.  (The number stays as it is.) */
#include "model/scale.h"

void weir__scale_init(weir__scale *scale, const weir__scale_terms *terms, weir_time now)
{
    *scale = (weir__scale){.terms = *terms, .changed_at = now};
}

unsigned weir__scale_step(weir__scale *scale, const weir__scale_sample *sample)
{
    return sample->workers < scale->terms.min ? scale->terms.min : sample->workers;
}
