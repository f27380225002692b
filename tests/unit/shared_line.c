/* flow/shared_line.h: a line that is full, of the living and of the dead. */
#include "contract/support.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flow/shared_line.h"

static weir__line *make(void)
{
    weir__line *line =
        mmap(NULL, sizeof *line, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(line != MAP_FAILED);
    must(weir__line_init(line) == WEIR_OK);
    return line;
}

#define CROWD 8u
#define PLACES                                                                                     \
    (WEIR__PLACES / CROWD) /* of one: a thread that holds more locks is too much for some tools */

static size_t count(const weir__line *line)
{
    return weir__line_count(line, WEIR__PUTTERS) + weir__line_count(line, WEIR__GETTERS);
}

/* A process that takes some places, on one side or on both by turns, and stays.  One comes after the other, for they
 * have no lock. */
static pid_t come(weir__line *line, enum weir__side side, bool alternates)
{
    size_t before = count(line);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        for (unsigned i = 0; i < PLACES; i++)
            must(weir__line_join(line, alternates ? (enum weir__side)(i % WEIR__SIDES) : side, 1));
        for (;;)
            pause();
    }
    soon(count(line) == before + PLACES);
    return pid;
}

static void expect_room_behind_the_dead(enum weir__side side, bool alternates, enum weir__side own)
{
    pid_t pids[CROWD];
    weir__line *line = make();
    for (unsigned i = 0; i < CROWD; i++)
        pids[i] = come(line, side, alternates);
    assert_null(weir__line_join(line, own, 1));
    for (unsigned i = 0; i < CROWD; i++) {
        kill(pids[i], SIGKILL);
        must(waitpid(pids[i], NULL, 0) == pids[i]);
    }
    weir__place *place = weir__line_join(line, own, 1);
    assert_non_null(place);
    assert_int_equal(weir__line_count(line, own), 1);
    assert_int_equal(count(line), 1);
    weir__line_leave(line, own, place);
    munmap(line, sizeof *line);
}

static void a_line_full_of_the_dead_has_room_whatever_they_waited_for(void **state)
{
    (void)state;
    for (int own = 0; own < WEIR__SIDES; own++) {
        expect_room_behind_the_dead(WEIR__PUTTERS, false, (enum weir__side)own);
        expect_room_behind_the_dead(WEIR__GETTERS, false, (enum weir__side)own);
        expect_room_behind_the_dead(WEIR__PUTTERS, true, (enum weir__side)own);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_full_of_the_dead_has_room_whatever_they_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
