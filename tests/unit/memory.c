/* base/memory.h: what the kernel tells of memory, from a tree of files like its own. */
#include "unit/fake_kernel.h"

#include <sys/wait.h>

static weir__memory reading(void)
{
    weir__memory memory = WEIR__MEMORY_UNKNOWN;
    assert_true(weir__memory_read(&roots, &memory));
    return memory;
}

static void put_v2(const char *path, const char *max, uint64_t current, uint64_t inactive)
{
    char name[256], text[128];
    snprintf(name, sizeof name, "cgroup%s/memory.max", path);
    put(name, max);
    snprintf(name, sizeof name, "cgroup%s/memory.current", path);
    put_number(name, current);
    snprintf(name, sizeof name, "cgroup%s/memory.stat", path);
    snprintf(text, sizeof text, "anon 1\nfile 2\ninactive_file %llu\nactive_file 3\n",
             (unsigned long long)inactive);
    put(name, text);
}

static void without_cgroups_it_is_the_hosts_memory(void **state)
{
    (void)state;
    put("proc/pressure/memory", "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\n"
                                "full avg10=3.25 avg60=0.00 avg300=0.00 total=1\n");
    weir__memory memory = reading();
    assert_int_equal(memory.limit, 8000 * MIB);
    assert_int_equal(memory.usage, 2000 * MIB);
    assert_false(memory.is_cgroup);
    assert_true(memory.some == 12.5 && memory.full == 3.25);
}

static void version_2_counts_the_working_set(void **state)
{
    (void)state;
    put("proc/pressure/memory", "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\n");
    put("proc/self/cgroup", "0::/a/b\n");
    put_v2("/a/b", "1048576000\n", 900 * MIB, 300 * MIB);
    put("cgroup/a/b/memory.high", "max\n");
    weir__memory memory = reading();
    assert_int_equal(memory.limit, 1000 * MIB);
    assert_int_equal(memory.usage, 600 * MIB);
    assert_true(memory.is_cgroup);
    assert_true(memory.some == 0); /* the host's pressure is not this cgroup's */
    put("cgroup/a/b/memory.pressure", "some avg10=40.00 avg60=0\nfull avg10=7.00 avg60=0\n");
    memory = reading();
    assert_true(memory.some == 40 && memory.full == 7);
}

static void memory_high_is_a_bound_like_memory_max(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/a\n");
    put_v2("/a", "max\n", 100 * MIB, 0);
    put("cgroup/a/memory.high", "524288000\n");
    assert_int_equal(reading().limit, 500 * MIB);
}

static void the_smallest_bound_of_all_ancestors_holds(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/a/b/c\n");
    put_v2("/a", "1048576000\n", 700 * MIB, 0); /* 300 are left */
    put_v2("/a/b", "max\n", 500 * MIB, 0);
    put_v2("/a/b/c", "2097152000\n", 400 * MIB, 0);
    weir__memory memory = reading();
    assert_int_equal(memory.limit, 1000 * MIB);
    assert_int_equal(memory.usage, 700 * MIB);
    put_v2("/a", "4194304000\n", 3900 * MIB, 0); /* the siblings have almost all of it */
    memory = reading();
    assert_int_equal(memory.limit, 2000 * MIB);
    assert_int_equal(memory.usage, 1900 * MIB); /* no more than 100 are left */
}

static void a_controller_that_is_on_in_an_ancestor_only_is_found(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/a/b\n");
    put("cgroup/a/b/cgroup.procs", "1\n");
    put_v2("/a", "1048576000\n", 700 * MIB, 0);
    assert_int_equal(reading().limit, 1000 * MIB);
}

static void in_a_container_the_root_is_ours(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/kubepods/pod7\n"); /* is not to be seen from here */
    put_v2("", "1048576000\n", 700 * MIB, 200 * MIB);
    assert_int_equal(reading().limit, 1000 * MIB);
    assert_int_equal(reading().usage, 500 * MIB);
    put("proc/self/cgroup", "0::/../../other\n");
    assert_int_equal(reading().limit, 1000 * MIB);
    put("proc/self/cgroup", "0::/\n");
    assert_int_equal(reading().limit, 1000 * MIB);
}

static void version_1_has_its_own_names(void **state)
{
    (void)state;
    put("proc/self/cgroup", "9:name=systemd:/x\n4:cpu,memory:/a/b\n0::/\n");
    put_number("cgroup/memory/memory.limit_in_bytes", UINT64_C(9223372036854771712));
    put_number("cgroup/memory/memory.usage_in_bytes", 5000 * MIB);
    put_number("cgroup/memory/a/memory.limit_in_bytes", 3000 * MIB);
    put_number("cgroup/memory/a/memory.usage_in_bytes", 1000 * MIB);
    put_number("cgroup/memory/a/b/memory.limit_in_bytes", 2000 * MIB);
    put_number("cgroup/memory/a/b/memory.usage_in_bytes", 900 * MIB);
    put("cgroup/memory/a/b/memory.stat", "inactive_file 1\ntotal_inactive_file 104857600\n");
    weir__memory memory = reading();
    assert_int_equal(memory.limit, 2000 * MIB);
    assert_int_equal(memory.usage, 800 * MIB);
    assert_true(memory.is_cgroup);
    put_number("cgroup/memory/a/b/memory.limit_in_bytes", UINT64_C(9223372036854771712));
    assert_int_equal(reading().limit, 3000 * MIB);
}

static void a_reading_that_fails_keeps_what_was_told_before(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/a\n");
    put_v2("/a", "1048576000\n", 700 * MIB, 0);
    weir__memory memory = reading(), before = memory;
    remove_tree(NULL);
    assert_false(weir__memory_read(&roots, &memory));
    assert_memory_equal(&memory, &before, sizeof memory);
    make_host(NULL);
    assert_true(weir__memory_read(&roots, &memory));
    assert_int_equal(memory.limit, 8000 * MIB);
}

static void nonsense_in_the_files_is_harmless(void **state)
{
    (void)state;
    static const char *const nonsense[] = {"",
                                           "\n",
                                           "-1\n",
                                           "x",
                                           "0::",
                                           ":::",
                                           "0::/a",
                                           "some avg10=",
                                           "18446744073709551616\n",
                                           "inactive_file"};
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        put("proc/self/cgroup", i % 2 ? "0::/a\n" : nonsense[i]);
        put("cgroup/a/memory.max", nonsense[i]);
        put("cgroup/a/memory.current", nonsense[i]);
        put("cgroup/a/memory.stat", nonsense[i]);
        put("cgroup/a/memory.pressure", nonsense[i]);
        put("proc/77/statm", nonsense[i]);
        put("proc/77/status", nonsense[i]);
        put("proc/77/task/77/children", nonsense[i]);
        weir__memory memory = WEIR__MEMORY_UNKNOWN;
        weir__memory_read(&roots, &memory);
        weir__rss_of_tree(&roots, 77, NULL);
        weir__peak_rss_of(&roots, 77);
    }
}

static void this_machine_tells_something(void **state)
{
    (void)state;
    weir__memory_roots kernel = {0};
    weir__memory memory = WEIR__MEMORY_UNKNOWN;
    assert_true(weir__memory_read(&kernel, &memory));
    assert_true(memory.limit >= 16 * MIB && memory.limit < UINT64_C(1) << 60);
    assert_true(memory.usage > 0 && memory.usage <= memory.limit);
    assert_true(weir__memory_available() > 0);
}

static void the_rss_of_a_tree_is_that_of_all_its_processes(void **state)
{
    (void)state;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    put("proc/5/statm", "1000 10 5 1 0 1 0\n");
    put("proc/5/task/5/children", "6 7 ");
    put("proc/5/task/9/children", "8 ");
    put("proc/6/statm", "1000 100 5 1 0 1 0\n");
    put("proc/6/task/6/children", "");
    put("proc/7/task/7/children", "10 "); /* is gone: no statm */
    put("proc/8/statm", "1000 1000 5 1 0 1 0\n");
    unsigned n;
    assert_int_equal(weir__rss_of_tree(&roots, 5, &n), 1110 * page);
    assert_int_equal(n, 3);
    assert_int_equal(weir__rss_of_tree(&roots, 4, &n), 0);
    assert_int_equal(n, 0);
}

static void processes_that_end_while_they_are_counted_are_harmless(void **state)
{
    (void)state;
    weir__memory_roots kernel = {0};
    for (int round = 0; round < 100; round++) {
        pid_t pids[8];
        for (int i = 0; i < 8; i++) {
            pids[i] = fork();
            must(pids[i] >= 0);
            if (pids[i] == 0)
                _exit(0);
        }
        unsigned n;
        uint64_t rss = weir__rss_of_tree(&kernel, 0, &n);
        assert_true(rss >= weir__rss_of(&kernel, 0) / 2 && n >= 1 && n <= 9);
        for (int i = 0; i < 8; i++)
            must(waitpid(pids[i], NULL, 0) == pids[i]);
        assert_int_equal(weir__rss_of(&kernel, pids[0]), 0);
        assert_int_equal(weir__peak_rss_of(&kernel, pids[0]), 0);
    }
}

static void touch(size_t size)
{
    char *bytes = malloc(size);
    must(bytes);
    memset(bytes, 1, size);
    __asm__ volatile("" : : "r"(bytes) : "memory");
    free(bytes);
}

static void a_peak_begins_anew_when_it_is_reset(void **state)
{
    (void)state;
    weir__memory_roots kernel = {0};
    touch(64 * MIB);
    assert_true(weir__peak_rss_of(&kernel, 0) >= 64 * MIB);
    if (!weir__peak_rss_reset())
        skip(); /* the kernel has no clear_refs, or does not let us */
    uint64_t now = weir__rss_of(&kernel, 0), peak = weir__peak_rss_of(&kernel, 0);
    assert_true(peak < now + 16 * MIB);
    touch(32 * MIB);
    assert_true(weir__peak_rss_of(&kernel, 0) >= now + 24 * MIB);
}

#define TREE_TEST(name) cmocka_unit_test_setup_teardown(name, make_host, remove_tree)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TREE_TEST(without_cgroups_it_is_the_hosts_memory),
        TREE_TEST(version_2_counts_the_working_set),
        TREE_TEST(memory_high_is_a_bound_like_memory_max),
        TREE_TEST(the_smallest_bound_of_all_ancestors_holds),
        TREE_TEST(a_controller_that_is_on_in_an_ancestor_only_is_found),
        TREE_TEST(in_a_container_the_root_is_ours),
        TREE_TEST(version_1_has_its_own_names),
        TREE_TEST(a_reading_that_fails_keeps_what_was_told_before),
        TREE_TEST(nonsense_in_the_files_is_harmless),
        cmocka_unit_test(this_machine_tells_something),
        TREE_TEST(the_rss_of_a_tree_is_that_of_all_its_processes),
        cmocka_unit_test(processes_that_end_while_they_are_counted_are_harmless),
        cmocka_unit_test(a_peak_begins_anew_when_it_is_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
