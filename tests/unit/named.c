/* base/named.h: blocks of shared memory found by name. */
#include "contract/support.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/named.h"

#define SIZE 4096u
#define KEEP 99 /* the content of a block that is worth keeping */

static char name[32];

static int begin(void **state)
{
    (void)state;
    snprintf(name, sizeof name, "test.%d", (int)getpid());
    return 0;
}

static const char *path_of(const char *kind)
{
    static char path[160];
    snprintf(path, sizeof path, "/dev/shm/weir-%d-%s-%u-%s", (int)geteuid(), kind, SIZE, name);
    return path;
}

static bool exists(const char *kind)
{
    struct stat st;
    return lstat(path_of(kind), &st) == 0;
}

static int fill(void *data, const void *ctx)
{
    *(int *)data = *(const int *)ctx;
    return 0;
}

static int entered[WEIR__SEATS], left; /* in this process */

static int enter(void *data, unsigned seat)
{
    (void)data;
    entered[seat]++;
    return 0;
}

static void leave(void *data, unsigned seat)
{
    (void)data;
    must(entered[seat] > 0);
    left++;
}

static bool is_worthless(const void *data)
{
    return *(const int *)data != KEEP;
}

static const weir__named_ops ops = {
    .size = SIZE, .init = fill, .enter = enter, .leave = leave, .may_remove = is_worthless};

static weir__named *open_with(int value)
{
    weir__named *named = NULL;
    must(weir__named_open(&named, "kind", name, &ops, &value) == WEIR_OK);
    return named;
}

static int content(const weir__named *named)
{
    return *(int *)weir__named_data(named);
}

static int child_that(int (*fn)(weir__named *named), weir__named *named)
{
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0)
        _exit(fn(named));
    int status;
    must(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void a_name_leads_to_one_block(void **state)
{
    (void)state;
    weir__named *a = open_with(5), *b = open_with(6);
    assert_int_equal(content(a), 5);
    assert_int_equal(content(b), 5);
    assert_int_equal(weir__named_seat(a), 0);
    assert_int_equal(weir__named_seat(b), 0);
    assert_int_equal(entered[0], 1);
    weir__named_close(a);
    assert_true(exists("kind") && left == 0);
    weir__named_close(b);
    assert_int_equal(left, 1);
    assert_false(exists("kind"));
    weir__named_close(NULL);
}

static void what_is_worth_keeping_is_found_again(void **state)
{
    (void)state;
    weir__named_close(open_with(KEEP));
    assert_true(exists("kind"));
    weir__named *named = open_with(6);
    assert_int_equal(content(named), KEEP);
    *(int *)weir__named_data(named) = 5;
    weir__named_close(named);
    assert_false(exists("kind"));
}

static int tries(const char *bad)
{
    weir__named *named;
    int value = 0;
    return weir__named_open(&named, "kind", bad, &ops, &value);
}

static void names_that_could_lead_elsewhere_are_refused(void **state)
{
    (void)state;
    char long_name[WEIR__NAME_MAX + 2];
    memset(long_name, 'a', sizeof long_name);
    long_name[WEIR__NAME_MAX + 1] = '\0';
    assert_int_equal(tries(""), WEIR_EINVAL);
    assert_int_equal(tries("../x"), WEIR_EINVAL);
    assert_int_equal(tries(".hidden"), WEIR_EINVAL);
    assert_int_equal(tries("a/b"), WEIR_EINVAL);
    assert_int_equal(tries("a b"), WEIR_EINVAL);
    assert_int_equal(tries("\xc3\xa4"), WEIR_EINVAL);
    assert_int_equal(tries(long_name), WEIR_EINVAL);
}

static void what_is_not_such_a_file_is_refused_and_left_alone(void **state)
{
    (void)state;
    const char *path = path_of("kind");
    struct stat st;

    must(symlink("/nowhere", path) == 0); /* a link */
    assert_int_equal(tries(name), WEIR_EINVAL);
    must(unlink(path) == 0);

    int fd = open(path, O_CREAT | O_RDWR, 0600); /* another size */
    must(fd >= 0 && ftruncate(fd, 5) == 0);
    assert_int_equal(tries(name), WEIR_EINVAL);
    must(ftruncate(fd, SIZE) == 0 && fchmod(fd, 0644) == 0); /* readable for others */
    assert_int_equal(tries(name), WEIR_EINVAL);
    must(fstat(fd, &st) == 0 && st.st_size == SIZE);
    close(fd);
    must(unlink(path) == 0);

    must(mkfifo(path, 0600) == 0);
    assert_int_equal(tries(name), WEIR_EINVAL);
    must(unlink(path) == 0);
    must(mkdir(path, 0700) == 0);
    assert_int_equal(tries(name), WEIR_EINVAL);
    must(rmdir(path) == 0);
}

static int out_of_luck(void *data, const void *ctx)
{
    (void)data;
    (void)ctx;
    return WEIR_ESYSTEM;
}

static void a_block_that_cannot_be_filled_in_gets_no_name(void **state)
{
    (void)state;
    weir__named *named;
    weir__named_ops bad = ops;
    bad.init = out_of_luck;
    assert_int_equal(weir__named_open(&named, "kind", name, &bad, NULL), WEIR_ESYSTEM);
    assert_false(exists("kind"));
}

static int takes_a_seat(weir__named *named)
{
    must(weir__named_seat(named) == 1 && entered[1] == 1);
    must(weir__named_is_taken(named, 0) && weir__named_is_taken(named, 1));
    must(weir__named_seat(named) == 1 && entered[1] == 1);
    *(int *)weir__named_data(named) = 77;
    return 3;
}

static int takes_a_seat_and_is_killed(weir__named *named)
{
    takes_a_seat(named);
    return raise(SIGKILL);
}

static void a_forked_child_gets_a_seat_of_its_own_until_it_ends(void **state)
{
    (void)state;
    weir__named *named = open_with(5);
    assert_int_equal(weir__named_seat(named), 0);
    assert_int_equal(child_that(takes_a_seat, named), 3);
    assert_int_equal(content(named), 77);
    assert_true(weir__named_is_taken(named, 0));
    assert_false(weir__named_is_taken(named, 1));
    assert_int_equal(child_that(takes_a_seat_and_is_killed, named), -SIGKILL);
    assert_false(weir__named_is_taken(named, 1));
    weir__named_close(named);
}

static int closes_as_if_last(weir__named *named)
{
    weir__named_close(named);
    return exists("kind");
}

static int will_not(void *data, unsigned seat)
{
    (void)data;
    (void)seat;
    return WEIR_ETIMEDOUT;
}

static void who_cannot_enter_has_no_seat(void **state)
{
    (void)state;
    weir__named *named;
    weir__named_ops bad = ops;
    int value = 5;
    bad.enter = will_not;
    assert_int_equal(weir__named_open(&named, "kind", name, &bad, &value), WEIR_ETIMEDOUT);
    named = open_with(5);
    assert_int_equal(weir__named_seat(named), 0);
    weir__named_close(named);
    assert_false(exists("kind"));
}

static int stops(void *data, unsigned seat)
{
    (void)data;
    (void)seat;
    return raise(SIGSTOP);
}

static void who_is_stopped_as_it_comes_does_not_hang_the_others(void **state)
{
    (void)state;
    weir__named *named = open_with(5), *again;
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        weir__named_ops bad = ops;
        bad.enter = stops;
        int value = 5;
        weir__named_close(named);
        weir__named_open(&named, "kind", name, &bad, &value);
        _exit(0);
    }
    int status;
    must(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    weir__named_close(named); /* it goes, and leaves the name to the other one */
    int value = 6;
    assert_int_equal(weir__named_open(&again, "kind", name, &ops, &value), WEIR_ETIMEDOUT);
    kill(pid, SIGKILL);
    must(waitpid(pid, &status, 0) == pid);
    named = open_with(6);
    assert_int_equal(content(named), 5);
    weir__named_close(named);
    assert_false(exists("kind"));
}

static void only_the_last_takes_the_name_away(void **state)
{
    (void)state;
    weir__named *named = open_with(5);
    assert_int_equal(child_that(closes_as_if_last, named), 1);
    assert_true(weir__named_is_taken(named, (unsigned)weir__named_seat(named)));
    weir__named_close(named);
    assert_false(exists("kind"));
}

static int opens_two_and_is_killed(weir__named *unused)
{
    (void)unused;
    weir__named *named;
    int value = 5, keep = KEEP;
    must(weir__named_open(&named, "kind", "test.left", &ops, &value) == WEIR_OK);
    must(weir__named_open(&named, "kind", "test.kept", &ops, &keep) == WEIR_OK);
    return raise(SIGKILL);
}

static bool is_there(const char *which)
{
    char path[160];
    struct stat st;
    snprintf(path, sizeof path, "/dev/shm/weir-%d-kind-%u-%s", (int)geteuid(), SIZE, which);
    return lstat(path, &st) == 0;
}

static void what_killed_processes_left_goes_with_the_next_new_name(void **state)
{
    (void)state;
    int value = 6;
    weir__named *own, *named;
    must(weir__named_open(&own, "kind", "test.own", &ops, &value) == WEIR_OK);
    assert_int_equal(child_that(opens_two_and_is_killed, NULL), -SIGKILL);
    assert_true(is_there("test.left") && is_there("test.kept"));
    named = open_with(5);
    assert_false(is_there("test.left"));
    assert_true(is_there("test.kept")); /* it is worth it */
    assert_true(is_there("test.own"));  /* somebody sits there: and still does */
    assert_int_equal(child_that(closes_as_if_last, named), 1);
    assert_true(is_there("test.own"));
    weir__named_close(named);
    weir__named_close(own);
    must(weir__named_open(&named, "kind", "test.kept", &ops, &value) == WEIR_OK);
    assert_int_equal(content(named), KEEP);
    *(int *)weir__named_data(named) = 5;
    weir__named_close(named);
    assert_false(is_there("test.kept"));
}

/* Processes that come and go: nobody ever sees a block that is not filled in, or two at once. */
static int comes_and_goes(weir__named *unused)
{
    (void)unused;
    for (int i = 0; i < 300; i++) {
        weir__named *named = open_with(9);
        must(content(named) == 9);
        weir__named_close(named);
    }
    return 0;
}

static void coming_and_going_may_race(void **state)
{
    (void)state;
    pid_t pids[4];
    for (int i = 0; i < 4; i++) {
        pids[i] = fork();
        must(pids[i] >= 0);
        if (pids[i] == 0)
            _exit(comes_and_goes(NULL));
    }
    for (int i = 0; i < 4; i++) {
        int status;
        must(waitpid(pids[i], &status, 0) == pids[i]);
        assert_int_equal(status, 0);
    }
    assert_false(exists("kind"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_leads_to_one_block),
        cmocka_unit_test(what_is_worth_keeping_is_found_again),
        cmocka_unit_test(names_that_could_lead_elsewhere_are_refused),
        cmocka_unit_test(what_is_not_such_a_file_is_refused_and_left_alone),
        cmocka_unit_test(a_block_that_cannot_be_filled_in_gets_no_name),
        cmocka_unit_test(a_forked_child_gets_a_seat_of_its_own_until_it_ends),
        cmocka_unit_test(who_cannot_enter_has_no_seat),
        cmocka_unit_test(who_is_stopped_as_it_comes_does_not_hang_the_others),
        cmocka_unit_test(only_the_last_takes_the_name_away),
        cmocka_unit_test(what_killed_processes_left_goes_with_the_next_new_name),
        cmocka_unit_test(coming_and_going_may_race),
    };
    return cmocka_run_group_tests(tests, begin, NULL);
}
