/* The page of a process, from inside: what others see of it is contract/stats.c. */
#include "contract/support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <dirent.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/page.h"

static char folder[64];

/* How many names of pages there are. */
static unsigned names(void)
{
    unsigned n = 0;
    DIR *open = opendir(folder);
    struct dirent *entry;
    while (open && (entry = readdir(open)))
        n += weir__page_is_name(entry->d_name);
    if (open)
        closedir(open);
    return n;
}

/* Runs fn in a child; true: it returned true and ended by itself. */
static bool in_child(bool (*fn)(void))
{
    pid_t pid = fork();
    if (pid == 0)
        exit(fn() ? 0 : 1);
    int status;
    must(pid > 0 && waitpid(pid, &status, 0) == pid);
    return status == 0;
}

static void *take_one(void *arg)
{
    (void)arg;
    weir__page_take(1, "thing", "first");
    return NULL;
}

/* Forks while another thread makes the page; true: each child can make one, too. */
static bool fork_while_a_thread_takes_a_record(void)
{
    pthread_t thread;
    must(pthread_create(&thread, NULL, take_one, NULL) == 0);
    bool all_can = true;
    for (int i = 0; i < 5; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(10); /* it would wait for ever */
            kill(getpid(), weir__page_take(1, "thing", "child") ? SIGKILL : SIGABRT);
        }
        int status;
        must(pid > 0 && waitpid(pid, &status, 0) == pid);
        all_can = all_can && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    }
    pthread_join(thread, NULL);
    return all_can;
}

/* Comes first: the program has asked for no record before. */
static void a_child_forked_while_the_first_record_is_taken_can_take_one(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++)
        assert_true(in_child(fork_while_a_thread_takes_a_record));
}

/* As above, of a process that has no page yet, and sees another folder at first. */
#define test_in_child(name)                                                                        \
    static bool name##_(void);                                                                     \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        assert_true(in_child(name##_));                                                            \
    }                                                                                              \
    static bool name##_(void)

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/dev/shm/weir-test-XXXXXX");
    return mkdtemp(folder) ? setenv("WEIR_STATS_DIR", folder, 1) : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static weir__page_record *take(const char *name)
{
    return weir__page_take(1, "thing", name);
}

test_in_child(a_page_has_mode_0600_and_goes_with_its_process)
{
    struct stat st;
    if (!take("a") || names() != 1)
        return false;
    char path[128];
    snprintf(path, sizeof path, "%s/%d-%ju", folder, getpid(),
             (uintmax_t)weir__page_start_ticks(getpid()));
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0777) == 0600;
}

/* A fork that runs no handlers: of a sandbox, or _Fork. */
test_in_child(who_was_cloned_and_exits_leaves_the_page_to_its_parent)
{
    int status;
    bool made = take("a");
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        exit(0);
    return made && pid > 0 && waitpid(pid, &status, 0) == pid && names() == 1;
}

static void nothing_is_left_of_who_exited(void **state)
{
    (void)state;
    assert_int_equal(names(), 0);
}

test_in_child(the_folder_is_made_with_mode_0700)
{
    struct stat st;
    char inner[96];
    snprintf(inner, sizeof inner, "%s/inner", folder);
    setenv("WEIR_STATS_DIR", inner, 1);
    bool made = take("a") && lstat(inner, &st) == 0 && (st.st_mode & 07777) == 0700;
    return made;
}

test_in_child(a_folder_named_from_here_is_known_when_the_process_has_gone_elsewhere)
{
    bool grown = chdir(folder) == 0 && setenv("WEIR_STATS_DIR", "near", 1) == 0 && take("a") &&
                 chdir("/") == 0;
    for (int i = 0; grown && i < 20; i++)
        grown = take("b") != NULL;
    return grown;
}

test_in_child(no_page_is_made_in_a_folder_that_others_can_enter)
{
    char open[96];
    snprintf(open, sizeof open, "%s/open", folder);
    setenv("WEIR_STATS_DIR", open, 1);
    return mkdir(open, 0700) == 0 && chmod(open, 0711) == 0 && !take("a");
}

test_in_child(no_page_is_made_through_a_link)
{
    char link[96];
    snprintf(link, sizeof link, "%s/link", folder);
    setenv("WEIR_STATS_DIR", link, 1);
    return symlink(folder, link) == 0 && !take("a");
}

test_in_child(a_link_with_the_page_s_name_is_not_followed)
{
    char path[128], target[96];
    snprintf(path, sizeof path, "%s/%d-%ju", folder, getpid(),
             (uintmax_t)weir__page_start_ticks(getpid()));
    snprintf(target, sizeof target, "%s/target", folder);
    struct stat st;
    return symlink(target, path) == 0 && take("a") && lstat(target, &st) < 0 &&
           lstat(path, &st) == 0 && S_ISREG(st.st_mode);
}

test_in_child(an_empty_folder_s_name_means_no_page)
{
    setenv("WEIR_STATS_DIR", "", 1);
    return !take("a") && !take("b");
}

test_in_child(where_no_file_may_grow_there_is_no_page)
{
    signal(SIGXFSZ, SIG_DFL); /* it must not come to that */
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, 4096});
    return !take("a") && names() == 0;
}

test_in_child(without_descriptors_there_is_no_page)
{
    struct rlimit before;
    getrlimit(RLIMIT_NOFILE, &before);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){3, before.rlim_max});
    bool did_without = !take("a");
    setrlimit(RLIMIT_NOFILE, &before); /* a sanitizer needs some at the end */
    return did_without;
}

test_in_child(records_have_a_bound_and_those_beyond_are_counted)
{
    weir__page_record *first = take("a"), *last = NULL;
    for (unsigned i = 1; i < WEIR__PAGE_RECORDS; i++)
        if (!(last = take("more")))
            return false;
    weir__page_head *head = (weir__page_head *)(void *)((char *)first - sizeof(weir__page_head));
    if (take("beyond") || take("beyond") || head->unrecorded != 2)
        return false;
    weir__page_give_back(last);
    return take("again") == last;
}

test_in_child(a_record_that_is_taken_again_begins_with_nothing)
{
    weir__page_record *record = take("a");
    uint64_t generation = record->generation;
    record->number[3] = record->wait.bucket[7] = record->service.max_ns = 42;
    weir__page_give_back(record);
    if (record->generation != generation + 1 || take(NULL) != record)
        return false;
    return record->generation == generation + 2 && record->number[3] == 0 &&
           record->wait.bucket[7] == 0 && record->service.max_ns == 0 &&
           strcmp(record->name, "thing-1") == 0;
}

test_in_child(a_long_name_is_cut_between_characters)
{
    char name[100];
    memset(name, 'x', sizeof name);
    memcpy(name + 62, "\xc3\xa9", 2); /* two bytes, of which one would fit */
    name[99] = '\0';
    return strlen(take(name)->name) == 62;
}

test_in_child(who_closes_all_descriptors_keeps_the_page_and_can_grow_it)
{
    if (!take("a"))
        return false;
    for (int fd = 3; fd < 64; fd++)
        close(fd);
    char victim[96];
    snprintf(victim, sizeof victim, "%s/victim", folder);
    int fd = open(victim, O_RDWR | O_CREAT, 0600);
    for (int i = 0; i < 100; i++)
        if (!take("more"))
            return false;
    struct stat st;
    int opened = open(folder, O_RDONLY | O_DIRECTORY);
    char name[48];
    snprintf(name, sizeof name, "%d-%ju", getpid(), (uintmax_t)weir__page_start_ticks(getpid()));
    return fstat(fd, &st) == 0 && st.st_size == 0 && !weir__page_is_deserted(opened, name);
}

static weir__page_record *inherited;

static bool child_of_child(void)
{
    uint64_t theirs = inherited->number[5];
    inherited->number[5] = 99; /* to memory of its own */
    weir__page_give_back(inherited);
    unsigned before = names();
    weir__page_record *own = take("child");
    return theirs == 7 && own && own != inherited && names() == before + 1;
}

test_in_child(a_forked_child_has_a_page_of_its_own_and_cannot_write_to_its_parent_s)
{
    inherited = take("parent");
    inherited->number[5] = 7;
    return in_child(child_of_child) && inherited->number[5] == 7 && inherited->generation == 1 &&
           names() == 1;
}

static bool is_killed(void)
{
    take("a");
    kill(getpid(), SIGKILL);
    return false;
}

test_in_child(what_a_killed_process_left_is_removed_with_the_next_page)
{
    in_child(is_killed);
    if (names() != 1)
        return false;
    return take("a") && names() == 1;
}

static bool outlives_its_parent(void)
{
    int began[2];
    if (!take("parent") || pipe(began) < 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        alarm(2); /* and long enough */
        must(write(began[1], &(pid_t){getpid()}, sizeof(pid_t)) == sizeof(pid_t));
        pause();
    }
    must(read(began[0], &pid, sizeof pid) == sizeof pid); /* what runs at its fork has run */
    kill(getpid(), SIGKILL);
    return false;
}

test_in_child(a_child_does_not_keep_the_page_of_its_dead_parent_alive)
{
    in_child(outlives_its_parent);
    return names() == 1 && take("a") && names() == 1;
}

test_in_child(what_is_not_a_page_s_name_stays)
{
    char path[128];
    snprintf(path, sizeof path, "%s/notes.txt", folder);
    close(open(path, O_WRONLY | O_CREAT, 0600));
    return take("a") && access(path, F_OK) == 0;
}

static void names_of_pages_are_told_from_others(void **state)
{
    (void)state;
    assert_true(weir__page_is_name("1-1"));
    assert_true(weir__page_is_name("4194304-18446744073709551615"));
    const char *others[] = {"", "-", "1", "1-", "-1", "1-1x", "x1-1", "1-1-1", "12345678901-1",
                            "."};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(weir__page_is_name(others[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_forked_while_the_first_record_is_taken_can_take_one),
        cmocka_unit_test(a_page_has_mode_0600_and_goes_with_its_process),
        cmocka_unit_test(who_was_cloned_and_exits_leaves_the_page_to_its_parent),
        cmocka_unit_test(nothing_is_left_of_who_exited),
        cmocka_unit_test(the_folder_is_made_with_mode_0700),
        cmocka_unit_test(a_folder_named_from_here_is_known_when_the_process_has_gone_elsewhere),
        cmocka_unit_test(no_page_is_made_in_a_folder_that_others_can_enter),
        cmocka_unit_test(no_page_is_made_through_a_link),
        cmocka_unit_test(a_link_with_the_page_s_name_is_not_followed),
        cmocka_unit_test(an_empty_folder_s_name_means_no_page),
        cmocka_unit_test(where_no_file_may_grow_there_is_no_page),
        cmocka_unit_test(without_descriptors_there_is_no_page),
        cmocka_unit_test(records_have_a_bound_and_those_beyond_are_counted),
        cmocka_unit_test(a_record_that_is_taken_again_begins_with_nothing),
        cmocka_unit_test(a_long_name_is_cut_between_characters),
        cmocka_unit_test(who_closes_all_descriptors_keeps_the_page_and_can_grow_it),
        cmocka_unit_test(a_forked_child_has_a_page_of_its_own_and_cannot_write_to_its_parent_s),
        cmocka_unit_test(what_a_killed_process_left_is_removed_with_the_next_page),
        cmocka_unit_test(a_child_does_not_keep_the_page_of_its_dead_parent_alive),
        cmocka_unit_test(what_is_not_a_page_s_name_stays),
        cmocka_unit_test(names_of_pages_are_told_from_others),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
