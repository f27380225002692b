/* door.c - see door.h. */
#include "flow/door.h"

#include "base/spin.h"

#define PATIENCE (100 * WEIR_MILLISECOND)
#define SPINS    100u /* looks at a lock that is held, before sleeping for it */

int weir__door_init(weir__door *door)
{
    return weir__robust_init(&door->lock);
}

/* A critical section is shorter than going to sleep and being woken. */
static int spin(weir__door *door)
{
    int rc = WEIR_EEMPTY;
    unsigned spins = weir__spin_is_useful() ? SPINS : 0;
    for (unsigned i = 0; i < spins && rc == WEIR_EEMPTY; i++) {
        weir__relax(1);
        if (!atomic_load_explicit(&door->held, memory_order_relaxed))
            rc = weir__robust_try(&door->lock);
    }
    return rc;
}

int weir__door_enter(weir__door *door, weir_time deadline)
{
    int rc = weir__robust_try(&door->lock);
    if (rc == WEIR_EEMPTY)
        rc = spin(door);
    if (rc == WEIR_EEMPTY) {
        if (deadline < WEIR_POLL)
            return WEIR_ETIMEDOUT;
        weir_time patience = weir_after(PATIENCE);
        rc = weir__robust_lock(&door->lock, deadline > patience ? deadline : patience);
        if (rc < 0)
            return rc;
    }
    atomic_store_explicit(&door->held, 1, memory_order_relaxed);
    if (rc == WEIR__OWNER_DIED)
        atomic_fetch_add_explicit(&door->recovered, 1, memory_order_relaxed);
    return WEIR_OK;
}

void weir__door_leave(weir__door *door)
{
    atomic_store_explicit(&door->held, 0, memory_order_relaxed);
    weir__robust_unlock(&door->lock);
}
