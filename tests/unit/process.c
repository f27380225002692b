/* base/process.h: what the kernel tells of processes. */
#include "contract/support.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/process.h"

static bool polls_readable(int fd, int timeout_ms)
{
    struct pollfd at = {.fd = fd, .events = POLLIN};
    return poll(&at, 1, timeout_ms) == 1;
}

static void wait_for_the_end(int pidfd)
{
    must(polls_readable(pidfd, (int)(PATIENCE / WEIR_MILLISECOND)));
}

static pid_t child_that_pauses(void)
{
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0)
        for (;;)
            pause();
    return pid;
}

static pid_t child_that_exits(int code)
{
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0)
        _exit(code);
    return pid;
}

static void a_pidfd_polls_readable_when_the_process_has_ended(void **state)
{
    (void)state;
    int code, signal;
    pid_t pid = child_that_pauses();
    int pidfd = weir__pidfd_open(pid);
    assert_true(pidfd >= 0);
    assert_false(polls_readable(pidfd, 0));
    weir__pidfd_kill(pidfd, SIGKILL);
    wait_for_the_end(pidfd);
    weir__reap(pid, &code, &signal);
    assert_int_equal(code, -1);
    assert_int_equal(signal, SIGKILL);
    weir__pidfd_kill(pidfd, SIGKILL); /* hits nobody */
    close(pidfd);
}

static void a_pidfd_of_nobody_is_an_error(void **state)
{
    (void)state;
    int code, signal;
    pid_t pid = child_that_exits(0);
    weir__reap(pid, &code, &signal);
    assert_int_equal(weir__pidfd_open(pid), -ESRCH);
    assert_int_equal(weir__pidfd_open(-1), -EINVAL);
}

static void reap_tells_the_exit_status_or_the_signal(void **state)
{
    (void)state;
    static const int codes[] = {0, 1, 3, 255};
    int code, signal;
    for (int i = 0; i < 4; i++) {
        weir__reap(child_that_exits(codes[i]), &code, &signal);
        assert_int_equal(code, codes[i]);
        assert_int_equal(signal, 0);
    }
    static const int signals[] = {SIGTERM, SIGKILL, SIGUSR1};
    for (int i = 0; i < 3; i++) {
        pid_t pid = child_that_pauses();
        kill(pid, signals[i]);
        weir__reap(pid, &code, &signal);
        assert_int_equal(code, -1);
        assert_int_equal(signal, signals[i]);
    }
}

static void reap_of_one_that_is_no_child_knows_nothing(void **state)
{
    (void)state;
    int code = 5, signal = 5;
    weir__reap(getpid(), &code, &signal);
    assert_int_equal(code, -1);
    assert_int_equal(signal, 0);
}

static void the_peak_memory_of_a_zombie_is_what_it_used(void **state)
{
    (void)state;
    const size_t size = 64u << 20;
    int code, signal;
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        char *bytes = malloc(size);
        memset(bytes, 1, size);
        __asm__ volatile("" : : "r"(bytes) : "memory");
        free(bytes);
        _exit(0);
    }
    int pidfd = weir__pidfd_open(pid);
    wait_for_the_end(pidfd);
    code = signal = 77;
    uint64_t peak = weir__look_at_zombie(pidfd, &code, &signal);
    assert_int_equal(code, 0);
    assert_int_equal(signal, 0);
    assert_true(peak >= size);
    assert_true(peak < size + (UINT64_C(1) << 30));
    assert_true(weir__look_at_zombie(pidfd, &code, &signal) ==
                peak); /* it is still there to be reaped */
    weir__reap(pid, &code, &signal);
    assert_int_equal(code, 0);
    assert_int_equal(weir__look_at_zombie(pidfd, &code, &signal), 0);
    close(pidfd);
}

static void the_peak_memory_of_one_that_lives_or_is_no_child_is_not_known(void **state)
{
    (void)state;
    int code, signal;
    pid_t pid = child_that_pauses();
    int pidfd = weir__pidfd_open(pid), own = weir__pidfd_open(getpid());
    assert_int_equal(weir__look_at_zombie(pidfd, &code, &signal), 0);
    assert_int_equal(weir__look_at_zombie(own, &code, &signal), 0);
    assert_int_equal(weir__look_at_zombie(-1, &code, &signal), 0);
    weir__pidfd_kill(pidfd, SIGKILL);
    weir__reap(pid, &code, &signal);
    close(pidfd);
    close(own);
}

static void the_peak_memory_of_this_process_grows_with_it(void **state)
{
    (void)state;
    const size_t size = 32u << 20;
    uint64_t before = weir__peak_rss_of_self();
    assert_true(before > 100000);
    char *bytes = malloc(size);
    memset(bytes, 1, size);
    __asm__ volatile("" : : "r"(bytes) : "memory");
    assert_true(weir__peak_rss_of_self() >= before);
    assert_true(weir__peak_rss_of_self() >= size);
    free(bytes);
    assert_true(weir__peak_rss_of_self() >= size); /* it is a peak */
}

static void oom_kills_are_counted_or_not_told(void **state)
{
    (void)state;
    int64_t n = weir__oom_kills();
    assert_true(n >= -1);
    assert_true(weir__oom_kills() >= n);
}

static void cpus_are_those_that_this_process_may_use(void **state)
{
    (void)state;
    cpu_set_t all, one;
    must(sched_getaffinity(0, sizeof all, &all) == 0);
    assert_int_equal(weir__cpu_count(), CPU_COUNT(&all));
    int cpu = 0;
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    must(sched_setaffinity(0, sizeof one, &one) == 0);
    unsigned n = weir__cpu_count();
    must(sched_setaffinity(0, sizeof all, &all) == 0);
    assert_int_equal(n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pidfd_polls_readable_when_the_process_has_ended),
        cmocka_unit_test(a_pidfd_of_nobody_is_an_error),
        cmocka_unit_test(reap_tells_the_exit_status_or_the_signal),
        cmocka_unit_test(reap_of_one_that_is_no_child_knows_nothing),
        cmocka_unit_test(the_peak_memory_of_a_zombie_is_what_it_used),
        cmocka_unit_test(the_peak_memory_of_one_that_lives_or_is_no_child_is_not_known),
        cmocka_unit_test(the_peak_memory_of_this_process_grows_with_it),
        cmocka_unit_test(oom_kills_are_counted_or_not_told),
        cmocka_unit_test(cpus_are_those_that_this_process_may_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
