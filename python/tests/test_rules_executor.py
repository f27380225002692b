"""E: what everything keeps that runs tasks, a bounded number at a time.

Each rule is one test, asked of every face; docs/rules.md lists them by the number in the test's
name, and `scripts/check_rules` compares the two.  A face that a rule is not asked of is named with
the reason.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import wait_until
from rules_calls import PATIENCE, Call, refused
from rules_executors import EXECUTORS, Look, Options, Subject

Make = Callable[..., Any]

TAKES_WHEN_THERE_IS_ROOM = "nobody submits: it reads a line when there is room for it"
NO_FUTURE = "a task in C has no result, and is not known once it was submitted"


def rule(**but: str) -> pytest.MarkDecorator:
    """Asked of every face but those."""
    assert set(but) <= set(EXECUTORS), "a reason for a face that is not there"
    return pytest.mark.parametrize("face", [name for name in EXECUTORS if name not in but])


@pytest.fixture
def make(face: str) -> Iterator[Make]:
    """Makes executors of a face, and ends them."""
    made: list[Subject] = []

    def make(**options: Any) -> Subject:
        made.append(EXECUTORS[face](Options(**options)))
        return made[-1]

    yield make
    for subject in made:
        subject.end()


def check_law(now: Look) -> None:
    assert now.accepted == now.over + now.inside


def fill(subject: Subject) -> list[int]:
    """As many as it takes without waiting: those on its workers, which have begun, and its
    backlog."""
    workers = subject.options.workers
    numbers = list(range(1, workers + subject.options.backlog + 1))
    for number in numbers[:workers]:
        subject.submit(number)
    wait_until(lambda: len(subject.began()) == workers, PATIENCE)
    for number in numbers[workers:]:
        subject.submit(number)
    return numbers


def line_up(subject: Subject, numbers: list[int]) -> list[Call]:
    """Submits that wait, each in line before the next one comes."""
    calls: list[Call] = []
    for number in numbers:
        calls.append(subject.start_submit(number))
        if subject.look().waiting is None:
            time.sleep(0.1)
        else:
            wait_until(lambda: subject.look().waiting == len(calls), PATIENCE)
        assert not calls[-1].is_done
    return calls


def run_quick(subject: Subject, n: int) -> None:
    for number in range(1, n + 1):
        subject.submit(number, "quick")
    subject.close()
    subject.drain()


# ---- the two laws --------------------------------------------------------------------------------


@rule()
def test_e01_each_accepted_task_runs_once(make: Make) -> None:
    """Each accepted task runs exactly once, and at the end accepted = finished + cancelled +
    dropped."""
    subject = make()
    run_quick(subject, 30)
    assert Counter(subject.events()) == Counter([*range(1, 31), *range(-30, 0)])
    now = subject.look()
    assert (now.accepted, now.over, now.inside) == (30, 30, 0)


@rule()
def test_e02_never_more_run_at_once_than_workers(make: Make) -> None:
    """Never more tasks run at once than there are workers, counted by the tasks."""
    subject = make(workers=2)
    run_quick(subject, 30)
    running = itertools.accumulate(1 if event > 0 else -1 for event in subject.events())
    assert max(running) <= 2


@rule(command=TAKES_WHEN_THERE_IS_ROOM)
def test_e03_never_more_inside_than_workers_and_backlog(make: Make) -> None:
    """Never more are accepted and not finished than backlog + workers: who comes then waits."""
    subject = make(workers=2, backlog=2)
    fill(subject)
    (call,) = line_up(subject, [9])
    now = subject.look()
    assert (now.accepted, now.inside) == (4, 4)
    subject.let_end(1)
    call.result()
    assert subject.look().inside == 4
    assert len(subject.began()) <= 3


@rule(command=TAKES_WHEN_THERE_IS_ROOM)
def test_e04_a_look_shows_nothing_impossible(make: Make) -> None:
    """At every look, accepted = finished + cancelled + dropped + inside, and inside is within
    the bound."""
    subject = make(workers=2, backlog=3)
    calls = [subject.start_submit(number, "quick") for number in range(1, 40)]
    before = subject.look()
    while not all(call.is_done for call in calls):
        now = subject.look()
        check_law(now)
        assert now.inside <= 5 and now.running <= 2
        assert before.accepted <= now.accepted and before.over <= now.over
        before = now
    for call in calls:
        call.result()


# ---- policies ------------------------------------------------------------------------------------


@rule(command=TAKES_WHEN_THERE_IS_ROOM)
def test_e05_fail_refuses_at_once(make: Make) -> None:
    """fail: a submit that finds no room is refused at once, and the task never runs."""
    subject = make(on_full="fail")
    numbers = fill(subject)
    with refused("full"):
        subject.submit(9)
    now = subject.look()
    assert (now.accepted, now.refused, now.dropped) == (len(numbers), 1, 0)
    subject.let_end(*numbers)
    assert [subject.outcome(number) for number in numbers] == ["done"] * len(numbers)
    assert 9 not in subject.began()


@rule(command=TAKES_WHEN_THERE_IS_ROOM)
def test_e06_drop_newest_drops_the_new_one(make: Make) -> None:
    """drop_newest: exactly the task that finds no room is dropped, and its caller is told so."""
    subject = make(on_full="drop_newest")
    numbers = fill(subject)
    subject.submit(9)
    assert subject.outcome(9) == "newest"
    assert (subject.look().dropped, subject.look().inside) == (1, len(numbers))
    subject.let_end(*numbers)
    assert [subject.outcome(number) for number in numbers] == ["done"] * len(numbers)
    check_law(subject.look())


@rule(
    command=TAKES_WHEN_THERE_IS_ROOM,
    bounded="it cannot make a foreign future raise: the oldest is cancelled (test_bounded.py)",
)
def test_e07_drop_oldest_drops_the_oldest_that_has_not_begun(make: Make) -> None:
    """drop_oldest: exactly the oldest task that has not begun is dropped for a new one."""
    subject = make(on_full="drop_oldest")
    fill(subject)
    subject.submit(9)
    assert subject.outcome(3) == "oldest"
    assert subject.look().dropped == 1
    subject.let_end(1, 2, 4, 9)
    assert [subject.outcome(number) for number in (1, 2, 4, 9)] == ["done"] * 4
    assert 3 not in subject.began()


@rule(command=TAKES_WHEN_THERE_IS_ROOM)
def test_e08_a_submit_whose_timeout_passes_was_not_accepted(make: Make) -> None:
    """A submit whose timeout passes is refused, and its task was not accepted."""
    subject = make(submit_timeout=0.02)
    numbers = fill(subject)
    began = time.monotonic()
    with refused("full"):
        subject.submit(9)
    assert time.monotonic() - began >= 0.02
    now = subject.look()
    assert (now.accepted, now.refused) == (len(numbers), 1)
    subject.let_end(*numbers)
    assert subject.outcome(numbers[-1]) == "done"


# ---- order ---------------------------------------------------------------------------------------


@rule()
def test_e09_tasks_begin_in_the_order_they_were_accepted(make: Make) -> None:
    """With one worker tasks begin in the order in which they were accepted."""
    subject = make(workers=1, backlog=20)
    run_quick(subject, 15)
    assert subject.began() == list(range(1, 16))


@rule(command=TAKES_WHEN_THERE_IS_ROOM)
def test_e10_who_waits_to_submit_is_served_in_order(make: Make) -> None:
    """Who waits to submit is let in in the order in which they came, as room is made."""
    subject = make(workers=1, backlog=1)
    fill(subject)
    calls = line_up(subject, [3, 4, 5])
    for i, call in enumerate(calls):
        subject.let_end(i + 1)
        call.result()
        assert not any(later.is_done for later in calls[i + 1 :])
    subject.let_end(4, 5)
    assert subject.outcome(5) == "done"
    assert subject.began() == [1, 2, 3, 4, 5]


# ---- what may go wrong ---------------------------------------------------------------------------


@rule(c=NO_FUTURE)
def test_e11_a_task_that_fails_fails_alone(make: Make) -> None:
    """A task that fails is finished, as failed; the others run, and its room is there again."""
    subject = make(workers=1, backlog=1)
    for number in range(1, 6):
        subject.submit(number, "fails" if number == 2 else "quick")
    subject.close()
    subject.drain()
    assert [subject.outcome(n) for n in range(1, 6)] == ["done", "failed", *["done"] * 3]
    now = subject.look()
    assert (now.over, now.inside) == (5, 0)


@rule(c=NO_FUTURE, command=TAKES_WHEN_THERE_IS_ROOM)
def test_e12_a_task_that_has_not_begun_can_be_cancelled(make: Make) -> None:
    """A task that has not begun can be cancelled: it never runs, and its room is there at once."""
    subject = make()
    numbers = fill(subject)
    (call,) = line_up(subject, [9])
    assert subject.cancel(numbers[-1])
    call.result()
    subject.let_end(*numbers, 9)
    assert subject.outcome(numbers[-1]) == "cancelled"
    assert subject.outcome(9) == "done"
    assert numbers[-1] not in subject.began()
    check_law(subject.look())


@rule(c="what is submitted there is a pointer", command="it takes lines")
def test_e13_a_submit_that_fails_costs_no_room(make: Make) -> None:
    """A submit that fails, of what cannot be called or sent, leaves as much room as there was."""
    subject = make(workers=1, backlog=1)
    for _ in range(5):
        with pytest.raises(TypeError):
            subject.executor.submit()
        with contextlib.suppress(Exception):  # threads can call what cannot be sent to processes
            subject.executor.submit(lambda: 1).result(PATIENCE)
    wait_until(lambda: subject.look().inside == 0, PATIENCE)
    fill(subject)
    assert subject.look().inside == 2


@rule(
    c=NO_FUTURE,
    command=TAKES_WHEN_THERE_IS_ROOM,
    asyncio="its future is the loop's, and can be left; the task runs on",
)
def test_e14_a_task_that_runs_cannot_be_cancelled(make: Make) -> None:
    """A task that runs cannot be cancelled: it is finished, with its result."""
    subject = make()
    fill(subject)
    assert not subject.cancel(1)
    subject.let_end(1, 2, 3, 4)
    assert [subject.outcome(number) for number in (1, 2, 3, 4)] == ["done"] * 4


# ---- closing -------------------------------------------------------------------------------------


@rule(command=TAKES_WHEN_THERE_IS_ROOM)
def test_e15_a_closed_executor_takes_nothing(make: Make) -> None:
    """After shutdown every submit is refused as closed."""
    subject = make()
    subject.submit(1, "quick")
    subject.close()
    with refused("closed"):
        subject.submit(2)
    subject.drain()
    assert subject.look().accepted == 1
    assert subject.began() == [1]


@rule(command=TAKES_WHEN_THERE_IS_ROOM)
def test_e16_shutdown_releases_who_waits_to_submit(make: Make) -> None:
    """shutdown releases everybody who waits to submit; their tasks never run."""
    subject = make()
    numbers = fill(subject)
    calls = line_up(subject, [8, 9])
    subject.close()
    for call in calls:
        with refused("closed"):
            call.result()
    subject.let_end(*numbers)
    assert subject.outcome(numbers[-1]) == "done"
    assert not {8, 9} & set(subject.began())


@rule()
def test_e17_what_was_accepted_runs_also_after_close(make: Make) -> None:
    """What was accepted before the close, or the end of the input, still runs."""
    subject = make(workers=1, backlog=3)
    for number in (1, 2, 3):
        subject.submit(number)
    subject.close()
    subject.let_end(1, 2, 3)
    subject.drain()
    assert subject.events() == [1, -1, 2, -2, 3, -3]
    now = subject.look()
    assert (now.accepted, now.over, now.inside) == (3, 3, 0)


# ---- what people see -----------------------------------------------------------------------------


@rule(command="its options are asked in tests/cli/usage.test and run_jobs.test")
@pytest.mark.parametrize(
    "options",
    [{"backlog": 0}, {"on_full": "7"}],
    ids=["backlog", "on_full"],
)
def test_e18_an_option_out_of_range_is_refused(make: Make, face: str, options: Any) -> None:
    """An option out of range is refused when it is made, in words that name it."""
    with refused("invalid") as told:
        make(**options)
    if face != "c":
        assert next(iter(options)) in told.text


@rule(
    c="an object in C has no repr; its name is in its stats page",
    bounded="it has no name of its own",
    command="its name is in weir top",
)
def test_e19_its_repr_says_its_name(make: Make) -> None:
    """repr() says its name."""
    subject = make(name="rules-of-executors")
    assert "rules-of-executors" in subject.shown()
