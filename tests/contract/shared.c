/* Every sentence of <weir/shared.h>, seen from outside. */
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/shared.h>

static int count_fds(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    must(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static int fds_before;

static int begin(void **state)
{
    (void)state;
    fds_before = count_fds();
    return 0;
}

static int end(void **state)
{
    (void)state;
    return count_fds() == fds_before ? 0 : -1; /* no descriptor is left */
}

static weir_shared *create(uint64_t size)
{
    weir_shared *shared = NULL;
    assert_int_equal(weir_shared_create(&shared, size), WEIR_OK);
    assert_int_equal(weir_shared_size(shared), size);
    return shared;
}

static weir_shared_place place_of(const weir_shared *shared)
{
    weir_shared_place place;
    weir_shared_get_place(shared, &place);
    return place;
}

/* What a function of a child process says. */
static int in_child(int (*function)(const weir_shared_place *), const weir_shared_place *place)
{
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0)
        _exit(function(place));
    int status;
    must(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void new_memory_is_zero_and_all_of_it_can_be_written(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 4095, 4096, 4097, 5u << 20};
    for (int i = 0; i < 5; i++) {
        weir_shared *shared = create(sizes[i]);
        unsigned char *data = weir_shared_data(shared);
        assert_int_equal((uintptr_t)data % 4096, 0);
        for (uint64_t k = 0; k < sizes[i]; k++)
            assert_int_equal(data[k], 0);
        memset(data, 1, sizes[i]);
        weir_shared_destroy(shared);
    }
    weir_shared_destroy(NULL);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    weir_shared *shared = NULL;
    assert_int_equal(weir_shared_create(&shared, 0), WEIR_EINVAL);
    assert_int_equal(weir_shared_create(&shared, UINT64_MAX), WEIR_ENOSHM);
    assert_int_equal(weir_shared_create(&shared, INT64_MAX), WEIR_ENOSHM);
    assert_int_equal(weir_shared_create(&shared, UINT64_C(1) << 45), WEIR_ENOSHM);
    assert_null(shared);
}

static void a_file_size_limit_is_an_error_and_no_signal(void **state)
{
    (void)state;
    struct rlimit before;
    weir_shared *shared = NULL;
    must(getrlimit(RLIMIT_FSIZE, &before) == 0);
    must(setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, before.rlim_max}) == 0);
    int rc = weir_shared_create(&shared, 8192);
    must(setrlimit(RLIMIT_FSIZE, &before) == 0);
    assert_int_equal(rc, WEIR_ENOSHM);
    assert_null(shared);
}

static void without_a_descriptor_there_is_none(void **state)
{
    (void)state;
    weir_shared *shared = create(100), *second = NULL;
    weir_shared_place place = place_of(shared);
    struct rlimit before;
    must(getrlimit(RLIMIT_NOFILE, &before) == 0);
    int lowest = dup(0);
    must(lowest >= 0 && close(lowest) == 0);
    must(setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)lowest, before.rlim_max}) == 0);
    int create_rc = weir_shared_create(&second, 100), open_rc = weir_shared_open(&second, &place);
    must(setrlimit(RLIMIT_NOFILE, &before) == 0);
    assert_int_equal(create_rc, WEIR_ENOFD);
    assert_int_equal(open_rc, WEIR_ENOFD);
    assert_null(second);
    weir_shared_destroy(shared);
}

static int open_and_write(const weir_shared_place *place)
{
    weir_shared *shared;
    if (weir_shared_open(&shared, place) != WEIR_OK)
        return 1;
    char *data = weir_shared_data(shared);
    if (strcmp(data, "from the parent") != 0)
        return 2;
    strcpy(data, "from the child");
    weir_shared_place own = place_of(shared);
    weir_shared_destroy(shared);
    return own.pid == getpid() && own.inode == place->inode && own.size == place->size ? 0 : 3;
}

static void two_processes_see_what_each_writes(void **state)
{
    (void)state;
    weir_shared *shared = create(10000);
    strcpy(weir_shared_data(shared), "from the parent");
    weir_shared_place place = place_of(shared);
    assert_int_equal(place.pid, getpid());
    assert_int_equal(in_child(open_and_write, &place), 0);
    assert_string_equal(weir_shared_data(shared), "from the child");
    weir_shared_destroy(shared);
}

static void the_memory_lives_with_the_last_who_has_it(void **state)
{
    (void)state;
    int ready[2], go[2];
    must(pipe(ready) == 0 && pipe(go) == 0);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) { /* creates it, and is killed */
        weir_shared *shared;
        must(weir_shared_create(&shared, 1u << 20) == WEIR_OK);
        memset(weir_shared_data(shared), 0x42, 1u << 20);
        weir_shared_place place = place_of(shared);
        must(write(ready[1], &place, sizeof place) == sizeof place);
        pause();
    }
    weir_shared_place place;
    weir_shared *shared = NULL;
    must(read(ready[0], &place, sizeof place) == sizeof place);
    assert_int_equal(weir_shared_open(&shared, &place), WEIR_OK);
    kill(pid, SIGKILL);
    must(waitpid(pid, NULL, 0) == pid);
    const unsigned char *data = weir_shared_data(shared);
    for (size_t i = 0; i < 1u << 20; i++)
        assert_int_equal(data[i], 0x42);
    weir_shared *second = NULL;
    assert_int_equal(weir_shared_open(&second, &place), WEIR_EINVAL); /* that process is gone */
    assert_null(second);
    weir_shared_destroy(shared);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(go[i]);
    }
}

static void what_is_not_the_memory_that_was_meant_is_refused(void **state)
{
    (void)state;
    weir_shared *shared = create(5000), *second = NULL;
    weir_shared_place right = place_of(shared), wrong;
    int pipes[2];
    must(pipe(pipes) == 0);
    int null = open("/dev/null", O_RDWR), program = open("/proc/self/exe", O_RDONLY);
    int stranger = memfd_create("stranger", 0);
    must(null >= 0 && program >= 0 && stranger >= 0 && ftruncate(stranger, 5000) == 0);
    int64_t fds[] = {pipes[0], pipes[1], null, program, stranger, 9999, -1, INT64_MAX};
    for (int i = 0; i < 8; i++) {
        wrong = right;
        wrong.fd = fds[i];
        assert_int_equal(weir_shared_open(&second, &wrong), WEIR_EINVAL);
    }
    wrong = right, wrong.inode++;
    assert_int_equal(weir_shared_open(&second, &wrong), WEIR_EINVAL);
    wrong = right, wrong.size--;
    assert_int_equal(weir_shared_open(&second, &wrong), WEIR_EINVAL);
    wrong = right, wrong.pid = 0;
    assert_int_equal(weir_shared_open(&second, &wrong), WEIR_EINVAL);
    wrong = right, wrong.pid = INT64_MAX;
    assert_int_equal(weir_shared_open(&second, &wrong), WEIR_EINVAL);
    weir_shared_destroy(shared);
    assert_int_equal(weir_shared_open(&second, &right), WEIR_EINVAL); /* not there any more */
    assert_null(second);
    close(null);
    close(program);
    close(stranger);
    close(pipes[0]);
    close(pipes[1]);
}

static weir_shared *inherited;

static int write_inherited(const weir_shared_place *place)
{
    strcpy(weir_shared_data(inherited), "by a forked child");
    weir_shared_place own = place_of(inherited);
    bool found = own.pid == getpid() && own.fd == place->fd && own.inode == place->inode;
    weir_shared_destroy(inherited);
    return found ? 0 : 1;
}

static void a_forked_child_has_the_same_memory(void **state)
{
    (void)state;
    inherited = create(100);
    weir_shared_place place = place_of(inherited);
    assert_int_equal(in_child(write_inherited, &place), 0);
    assert_string_equal(weir_shared_data(inherited), "by a forked child");
    weir_shared_destroy(inherited);
}

static void programs_that_are_run_do_not_inherit_it(void **state)
{
    (void)state;
    weir_shared *shared = create(100);
    int flags = fcntl((int)place_of(shared).fd, F_GETFD);
    assert_true(flags >= 0 && (flags & FD_CLOEXEC));
    weir_shared_destroy(shared);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(new_memory_is_zero_and_all_of_it_can_be_written),
        TEST(sizes_that_cannot_be_are_refused),
        TEST(a_file_size_limit_is_an_error_and_no_signal),
        TEST(without_a_descriptor_there_is_none),
        TEST(two_processes_see_what_each_writes),
        TEST(the_memory_lives_with_the_last_who_has_it),
        TEST(what_is_not_the_memory_that_was_meant_is_refused),
        TEST(a_forked_child_has_the_same_memory),
        TEST(programs_that_are_run_do_not_inherit_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
