/* descriptors.c - the limit of open files, up and down; see descriptors.h. */
#include "descriptors.h"

#include <stdbool.h>
#include <sys/resource.h>

static struct rlimit given;
static bool is_known, is_raised;

void run_descriptors_raise(void)
{
    if (!is_known)
        is_known = getrlimit(RLIMIT_NOFILE, &given) == 0;
    const struct rlimit most = {given.rlim_max, given.rlim_max};
    if (is_known && !is_raised && given.rlim_cur != given.rlim_max)
        is_raised = setrlimit(RLIMIT_NOFILE, &most) == 0;
}

void run_descriptors_lower(void)
{
    if (is_raised)
        is_raised = setrlimit(RLIMIT_NOFILE, &given) < 0;
}
