/* park.c - base/park and base/mutex. */
#include "../prove.h"

#include "base/mutex.h"
#include "base/park.h"

static weir__parker parker;
static int published;

static void unpark(void *arg)
{
    (void)arg;
    published = 1;
    weir__unpark(&parker);
}

static void park_meets_unpark(void)
{
    weir__parker_init(&parker);
    published = 0;
    int t = prove_spawn(unpark, NULL);
    prove_claim(weir__park(&parker, WEIR_FOREVER) == WEIR_OK);
    prove_claim(published == 1);
    prove_join(t);
}

PROVE_CASE(park_meets_unpark, "who is unparked wakes, and sees what was done before");

static weir__mutex mutex;
static int sum;

static void add(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        weir__lock(&mutex);
        sum++;
        weir__unlock(&mutex);
    }
}

static void mutex_excludes(void)
{
    weir__mutex_init(&mutex);
    sum = 0;
    int a = prove_spawn(add, NULL), b = prove_spawn(add, NULL);
    add(NULL);
    prove_join(a);
    prove_join(b);
    prove_claim(sum == 6);
}

PROVE_CASE(mutex_excludes, "one at a time, nobody sleeps for ever");
