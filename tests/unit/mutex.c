/* base/mutex.h: one at a time, everything published, nobody left asleep. */
#include "contract/support.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mutex.h"

#define THREADS 8
#define TURNS   20000

static struct {
    weir__mutex mutex;
    uint64_t n, also_n; /* plain: TSan sees a lock that does not lock */
    bool naps;
} shared;

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

static void *takes_turns(void *arg)
{
    size_t turns = (size_t)(uintptr_t)arg;
    for (size_t i = 0; i < turns; i++) {
        weir__lock(&shared.mutex);
        must(shared.n == shared.also_n);
        shared.n++;
        if (shared.naps && i % 8 == 0)
            nap(); /* as a holder that lost its CPU: the others go to sleep */
        shared.also_n++;
        weir__unlock(&shared.mutex);
    }
    return NULL;
}

static void take_turns(size_t turns, bool naps)
{
    pthread_t threads[THREADS];
    weir__mutex_init(&shared.mutex);
    shared.n = shared.also_n = 0;
    shared.naps = naps;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, takes_turns, number(turns));
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(shared.n, THREADS * turns);
    assert_false(shared.mutex.held);
    weir__mutex_fini(&shared.mutex);
}

/* As in a sandbox: membarrier fails. */
static void forbid_membarrier(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(rules) / sizeof(*rules), rules};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    must(syscall(SYS_membarrier, 0, 0, 0) < 0 && errno == ENOSYS);
}

/* First of all tests: the child of a process with threads must not start any. */
static void it_needs_no_membarrier_to_wake_everybody(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        forbid_membarrier();
        take_turns(200, true);
        take_turns(TURNS, false);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void it_lets_in_one_at_a_time(void **state)
{
    (void)state;
    take_turns(TURNS, false);
}

static void who_sleeps_for_it_is_woken(void **state)
{
    (void)state;
    take_turns(200, true);
}

static void alone_it_is_never_contended(void **state)
{
    (void)state;
    weir__mutex mutex;
    weir__mutex_init(&mutex);
    for (int i = 0; i < 10; i++) {
        weir__lock(&mutex);
        assert_true(mutex.held);
        assert_false(weir__try_lock(&mutex));
        assert_false(mutex.contended); /* so unlocking makes no system call */
        weir__unlock(&mutex);
        assert_false(mutex.held);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_needs_no_membarrier_to_wake_everybody),
        cmocka_unit_test(it_lets_in_one_at_a_time),
        cmocka_unit_test(who_sleeps_for_it_is_woken),
        cmocka_unit_test(alone_it_is_never_contended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
