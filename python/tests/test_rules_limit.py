"""L: what every limit keeps, of calls at a time (a gate) and of calls in a time (a bucket).

Each rule is one test, asked of every face; docs/rules.md lists them by the number in the test's
name, and `scripts/check_rules` compares the two.  A face that a rule is not asked of is named with
the reason.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import wait_until
from rules_calls import PATIENCE, Call, refused
from rules_limits import BUCKETS, GATES, Bucket, Look, ProcessGate, Subject, new_name

Make = Callable[..., Any]
LIMITS: dict[str, type[Subject]] = {**GATES, **BUCKETS}

NOTHING_TO_GIVE_BACK = "what was taken is used, and not given back"
A_POINT_IN_TIME = "a deadline in C is a point in time, and every one has a meaning"
THREADS_ARE_NOT_CANCELLED = "a thread cannot be cancelled from outside"
PROCESSES_CLOSE_THEIR_OWN = "each process closes its own handle: the others go on"
THE_CALLERS_MEMORY = "a permit in C is the caller's memory, and released once by contract"
NO_REPR = "an object in C has no repr; its name is in its stats page"
ONE_PROCESS = "it is of one process, with which it ends"


def is_of(face: str, key: str) -> bool:
    """`rate` are all faces of that kind, `c` all that begin so, `c_rate` is that one."""
    return face == key or face.startswith(f"{key}_") or face.endswith(f"_{key}")


def rule(**but: str) -> pytest.MarkDecorator:
    """Asked of every face of both kinds, but those."""
    for key in but:
        assert any(is_of(face, key) for face in LIMITS), "a reason for a face that is not there"
    asked = [face for face in LIMITS if not any(is_of(face, key) for key in but)]
    return pytest.mark.parametrize("face", asked)


@pytest.fixture
def make(face: str) -> Iterator[Make]:
    """Makes limits of a face, and ends them."""
    made: list[Subject] = []

    def make(*args: Any, **kwargs: Any) -> Subject:
        made.append(LIMITS[face](*args, **kwargs))
        return made[-1]

    yield make
    for subject in made:
        subject.end()


def check_law(now: Look) -> None:
    assert now.admitted == now.released + now.in_flight + now.lost


def line_up(subject: Subject, costs: list[int]) -> list[Call]:
    """Callers with those costs, each in line before the next one comes."""
    calls: list[Call] = []
    for cost in costs:
        calls.append(subject.start_acquire(cost))
        if subject.tells_all_who_wait:
            wait_until(lambda: subject.look().waiting == len(calls), PATIENCE)
        else:
            time.sleep(0.1)
    return calls


# ---- the two laws --------------------------------------------------------------------------------


@rule()
def test_l01_what_was_let_in_is_held_or_given_back(make: Make) -> None:
    """At every look, what was let in is held, or given back, or lost with its holder; in calls
    and in cost."""
    subject, chance = make(), random.Random(1)
    held: list[tuple[Call, int]] = []
    for _ in range(30):
        if subject.is_gate and held and chance.random() < 0.5:
            call, _ = held.pop(chance.randrange(len(held)))
            subject.release(call)
        else:
            cost = chance.randint(1, 3)
            call = subject.start_acquire(cost, 0)
            try:
                call.result()
                held.append((call, cost))
            except Exception:
                assert sum(cost for _, cost in held) + cost > subject.SIZE
        now = subject.look()
        check_law(now)
        assert now.held == sum(cost for _, cost in held)
        assert not subject.is_gate or now.in_flight == len(held)


@rule(rate="it bounds what is granted in a time: L03")
def test_l02_never_more_in_flight_than_the_limit(make: Make) -> None:
    """Never more are inside than the limit says, counted by those who are inside."""
    subject = make(3)
    workers = [subject.start_work(25) for _ in range(5)]
    assert max(worker.result() for worker in workers) <= 3
    now = subject.look()
    assert (now.in_flight, now.admitted, now.released) == (0, 125, 125)
    assert now.peak <= 3


@rule(limit="it bounds what is inside: L02")
def test_l03_never_more_in_any_window_than_rate_and_burst(make: Make) -> None:
    """In any window of time no more is granted than rate x window + burst, to all callers
    together."""
    rate, burst = 200, 4
    subject = make(burst, (rate, 1.0))
    workers = [subject.start_work(12) for _ in range(3)]
    grants = [grant for worker in workers for grant in worker.result()]
    assert len(grants) == 36
    for begin, _ in grants:
        for _, end in grants:
            inside = sum(begin <= before and after <= end for before, after in grants)
            assert inside <= rate * max(0.0, end - begin) + burst + 1e-3


# ---- waiting -------------------------------------------------------------------------------------


@rule()
def test_l04_a_timeout_of_zero_does_not_wait(make: Make) -> None:
    """A timeout of 0 never waits: what is not there is refused at once, and counted."""
    subject = make()
    subject.exhaust()
    with refused("full"):
        subject.acquire(1, timeout=0)
    now = subject.look()
    assert (now.held, now.refused, now.waiting) == (5, 1, 0)


@rule()
def test_l05_a_timeout_that_passes_has_taken_nothing(make: Make) -> None:
    """Who is refused because his timeout passed has taken nothing, waits no more, is counted."""
    subject = make()
    subject.exhaust()
    with refused("full"):
        subject.acquire(2, timeout=0.03)
    wait_until(lambda: subject.look().waiting == 0, PATIENCE)
    now = subject.look()
    assert (now.held, now.refused) == (5, 1)
    subject.ease()
    subject.acquire(5, timeout=None)


@rule(c=A_POINT_IN_TIME)
@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, "soon"])
def test_l06_a_timeout_that_is_none_is_refused_by_name(make: Make, timeout: Any) -> None:
    """A negative timeout, NaN, or what is no number is refused, in words that name it."""
    subject = make()
    with refused("invalid") as told:
        subject.acquire(1, timeout=timeout)
    assert "timeout" in told.text or "str" in told.text
    assert subject.look().held == 0
    subject.acquire(5)


@rule()
def test_l07_a_cost_of_nothing_is_refused(make: Make) -> None:
    """A cost of 0 is refused, and takes nothing."""
    subject = make()
    with refused("invalid"):
        subject.acquire(0)
    assert subject.look().held == 0
    subject.acquire(5)


@rule()
def test_l08_a_cost_that_can_never_fit_is_refused_at_once(make: Make) -> None:
    """A cost above the limit, or the burst, is refused as too large at once, whatever the
    timeout."""
    subject = make()
    with refused("too large"):
        subject.acquire(6, timeout=None)
    assert subject.look().held == 0
    subject.acquire(5)


@rule()
def test_l09_who_waits_is_served_first_come_first_served(make: Make) -> None:
    """Who waits is let in in the order in which they came, whatever it costs: small ones do not
    starve a large one."""
    subject = make()
    subject.exhaust()
    costs = [3, 1, 1]
    calls = line_up(subject, costs)
    subject.ease()
    already = 0 if subject.is_gate else subject.SIZE
    for i, call in enumerate(calls):
        call.result()
        assert subject.look().held - already >= sum(costs[: i + 1])


@rule()
def test_l10_a_later_try_overtakes_nobody(make: Make) -> None:
    """A later try never overtakes who waits, though there would be enough for it."""
    subject = make()
    subject.acquire(3)
    (waiter,) = line_up(subject, [4])
    with refused("full"):
        subject.acquire(1, timeout=0)
    assert not waiter.is_done
    assert subject.look().held == 3


@rule(threads=THREADS_ARE_NOT_CANCELLED)
def test_l11_who_goes_has_taken_nothing(make: Make) -> None:
    """Who goes while he waits (cancelled, interrupted, killed) has taken nothing, and holds up
    nobody behind him, though nothing is given back meanwhile."""
    subject = make()
    subject.acquire(3)
    gone, stays = line_up(subject, [4, 2])
    gone.cancel()
    with refused("cancelled"):
        gone.result()
    stays.result()
    assert subject.look().held == 5
    check_law(subject.look())


@rule()
def test_l12_no_wake_up_is_lost(make: Make, face: str) -> None:
    """With many who wait everybody comes through, and nobody is left in line."""
    subject = make_small(make, face, 1)
    workers = [subject.start_work(15) for _ in range(4)]
    for worker in workers:
        worker.result()
    assert subject.look().waiting == 0


def make_small(make: Make, face: str, size: int) -> Any:
    """One that is often exhausted, and not for long."""
    return make(size) if face in GATES else make(size, (400, 1.0))


# ---- closing -------------------------------------------------------------------------------------


@rule(processes=PROCESSES_CLOSE_THEIR_OWN)
def test_l13_close_releases_who_waits(make: Make) -> None:
    """close releases everybody who waits; they have taken nothing."""
    subject = make()
    subject.exhaust()
    calls = line_up(subject, [1, 2])
    subject.close()
    for call in calls:
        with refused("closed"):
            call.result()
    assert subject.look().held == 5


@rule(processes=PROCESSES_CLOSE_THEIR_OWN)
def test_l14_a_closed_limit_lets_in_nobody(make: Make) -> None:
    """After close everybody is refused as closed, with a timeout or without one; closing twice
    is fine."""
    subject = make()
    subject.close()
    subject.close()
    for timeout in (0, None):
        with refused("closed"):
            subject.acquire(1, timeout=timeout)
    now = subject.look()
    assert (now.held, now.is_closed) == (0, True)


@rule(rate=NOTHING_TO_GIVE_BACK, processes=PROCESSES_CLOSE_THEIR_OWN)
def test_l15_what_is_held_may_be_given_back_after_close(make: Make) -> None:
    """What is held when it is closed may be given back, and is counted."""
    subject = make()
    call = subject.acquire(2)
    subject.close()
    subject.release(call)
    now = subject.look()
    assert (now.held, now.released) == (0, 1)
    check_law(now)


# ---- changing ------------------------------------------------------------------------------------


@rule()
def test_l16_a_larger_limit_lets_in_who_waits(make: Make) -> None:
    """A limit, or a rate, that is raised lets in who waits, though nobody calls any more."""
    subject = make()
    subject.exhaust()
    first, second = line_up(subject, [1, 2])
    if isinstance(subject, Bucket):
        subject.change(50, 1.0, subject.SIZE)
    else:
        subject.resize(8)
    first.result()
    second.result()
    assert subject.look().held == 8


@rule(rate="it grants, and nothing is inside")
def test_l17_a_smaller_limit_lets_in_nobody_until_it_holds(make: Make) -> None:
    """A limit that is lowered takes nothing from who is inside, and lets in nobody until it
    holds again."""
    subject = make()
    calls = [subject.acquire(1) for _ in range(4)]
    subject.resize(2)
    assert subject.look().held == 4
    for call in calls[:2]:
        with refused("full"):
            subject.acquire(1)
        subject.release(call)
    with refused("full"):
        subject.acquire(1)
    subject.release(calls[2])
    subject.acquire(1)
    assert subject.look().held == 2


@rule()
def test_l18_a_limit_of_nothing_is_refused(make: Make, face: str) -> None:
    """A limit, or burst, of nothing is refused, at the beginning and later, and the old one
    stays."""
    if face.endswith("_limit"):
        with refused("invalid"):
            make(0)
    subject = make()
    if face.startswith("c") and face.endswith("_rate"):
        with refused("invalid"):  # a burst of 0 is the default there
            subject.change(0, 1.0, 5)
    else:
        with refused("invalid"):
            subject.resize(0)
    assert subject.look().size == 5
    subject.acquire(5)


# ---- permits -------------------------------------------------------------------------------------


@rule(
    rate=NOTHING_TO_GIVE_BACK, c=THE_CALLERS_MEMORY, processes="as threads: it is the same object"
)
def test_l19_a_permit_comes_back_once(make: Make) -> None:
    """A permit comes back once, however often, and by whomever, it is given back."""
    subject = make()
    first = subject.acquire(2)
    subject.acquire(3)
    for _ in range(3):
        subject.release(first)
    now = subject.look()
    assert (now.held, now.in_flight, now.released) == (3, 1, 1)
    subject.acquire(2)
    with refused("full"):
        subject.acquire(1)


@rule(
    rate=NOTHING_TO_GIVE_BACK,
    c="its processes are asked in tests/fault/shared_gate.c",
    threads=ONE_PROCESS,
    asyncio=ONE_PROCESS,
)
def test_l20_what_a_killed_holder_held_comes_back(make: Make) -> None:
    """What a process held that is killed comes back to those who wait, and is counted as lost."""
    subject: ProcessGate = make()
    holder = subject.acquire(5, timeout=None)
    (waiter,) = line_up(subject, [2])
    subject.kill(holder)
    waiter.result()
    now = subject.look()
    assert (now.held, now.lost) == (2, 1)
    check_law(now)


# ---- buckets -------------------------------------------------------------------------------------


@rule(limit="what is there at once is all there is")
def test_l21_a_bucket_begins_full_and_fills_no_higher(make: Make) -> None:
    """A bucket begins full, and never holds more than its burst, however long nobody comes."""
    subject = make(5, (1000, 1.0))
    time.sleep(0.02)  # for 20 tokens
    subject.change(*Bucket.SLOW, 5)
    subject.acquire(5)
    with refused("full"):
        subject.acquire(1)


@rule(limit="nobody knows when a call will end")
def test_l22_what_cannot_be_there_in_time_is_refused_at_once(make: Make) -> None:
    """Who waits for tokens that cannot be there by his deadline is refused at once."""
    subject = make()
    subject.exhaust()
    began = time.monotonic()
    with refused("full"):
        subject.acquire(1, timeout=100.0)  # at one in 1000 s
    assert time.monotonic() - began < 50
    assert subject.look().held == 5


@rule(
    limit="its permits are given back",
    asyncio="reserve() does not wait: it is the same call as a thread's",
)
def test_l23_a_reservation_that_is_cancelled_gives_its_tokens_back(make: Make) -> None:
    """A reservation takes its tokens at once, says when they may be used, and gives them back if
    it is cancelled in time."""
    subject = make()
    ready, delay = subject.reserve(5)
    assert delay <= 0
    later, delay = subject.reserve(2)
    assert 1000 < delay <= 2000
    assert subject.look().held == 7
    assert subject.unreserve(later)
    assert subject.unreserve(ready)
    assert subject.look().held == 0
    subject.acquire(5)


# ---- what people see -----------------------------------------------------------------------------


@rule()
def test_l24_a_look_shows_nothing_impossible(make: Make, face: str) -> None:
    """Whatever happens meanwhile, at each look the law holds and counters never go back."""
    subject = make_small(make, face, 2)
    workers = [subject.start_work(25) for _ in range(3)]
    before = subject.look()
    while not all(worker.is_done for worker in workers):
        now = subject.look()
        check_law(now)
        assert not subject.is_gate or now.held <= 2
        assert all(a <= b for a, b in zip(before.counters, now.counters, strict=True))
        before = now
    for worker in workers:
        worker.result()


@rule()
def test_l25_a_limit_is_usable_after_each_error(make: Make) -> None:
    """After each error the limit goes on as if the call had not been made."""
    subject = make()
    with refused("too large"):
        subject.acquire(6)
    with refused("invalid"):
        subject.acquire(0)
    subject.exhaust()
    with refused("full"):
        subject.acquire(1)
    with refused("full"):
        subject.acquire(1, timeout=0.001)
    if subject.can_cancel:
        (call,) = line_up(subject, [1])
        call.cancel()
        with refused("cancelled"):
            call.result()
    subject.ease()
    subject.acquire(5, timeout=None)
    check_law(subject.look())


@rule(c=NO_REPR)
def test_l26_its_repr_says_its_name_and_its_limit(make: Make) -> None:
    """repr() says the name, what is used, or left, and of how much."""
    name = new_name()
    subject = make(name=name)
    subject.acquire(3)
    shown = subject.shown()
    assert name in shown
    assert ("3 of 5" if subject.is_gate else "2 of 5") in shown
