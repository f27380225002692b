"""Q: what every queue keeps, whatever its policy and whoever calls it.

Each rule is one test, asked of every face; docs/rules.md lists them by the number in the test's
name, and `scripts/check_rules` compares the two.  A face that a rule is not asked of is named with
the reason.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import wait_until
from rules_calls import PATIENCE, Call, perhaps, refused
from rules_queues import POLICIES, QUEUES, Look, Options, Subject

Make = Callable[..., Any]

THREADS_ARE_NOT_CANCELLED = "a thread cannot be cancelled from outside"
NO_CALLBACK = "what is dropped are bytes: they are counted, and nobody is told"
NO_RESIZE = "its bounds are fixed when it is made"
A_POINT_IN_TIME = "a deadline in C is a point in time, and every one has a meaning"
NO_FD = "it has no descriptors"


def rule(**but: str) -> pytest.MarkDecorator:
    """Asked of every face but those."""
    assert set(but) <= set(QUEUES), "a reason for a face that is not there"
    return pytest.mark.parametrize("face", [name for name in QUEUES if name not in but])


def rule_of_every_policy(**but: str) -> pytest.MarkDecorator:
    """Asked of every face but those, with each policy that it has."""
    assert set(but) <= set(QUEUES), "a reason for a face that is not there"
    pairs = [(face, policy) for face in QUEUES for policy in QUEUES[face].policies]
    return pytest.mark.parametrize(("face", "policy"), [p for p in pairs if p[0] not in but])


@pytest.fixture
def make(face: str) -> Iterator[Make]:
    """Makes queues of a face, and ends them."""
    made: list[Subject] = []

    def make(maxsize: int, overflow: str = "block", **options: Any) -> Subject:
        made.append(QUEUES[face](Options(maxsize, overflow, **options)))
        return made[-1]

    yield make
    for subject in made:
        subject.end()


def check_law(now: Look) -> None:
    assert now.accepted == now.delivered + sum(now.dropped.values()) + now.qsize
    assert now.accepted_bytes == (now.delivered_bytes + sum(now.dropped_bytes.values()) + now.bytes)


def fill(subject: Subject, n: int) -> list[int]:
    for number in range(1, n + 1):
        subject.put(number)
    return list(range(1, n + 1))


def line_up(n: int, begin: Callable[[int], Call], waiting: Callable[[], int]) -> list[Call]:
    """Callers 0 .. n - 1, each in line before the next one comes."""
    calls: list[Call] = []
    for i in range(n):
        calls.append(begin(i))
        wait_until(lambda: waiting() == len(calls), PATIENCE)
    return calls


def line_up_putters(subject: Subject, numbers: list[int]) -> list[Call]:
    return line_up(
        len(numbers),
        lambda i: subject.start_put(numbers[i]),
        lambda: subject.look().putters_waiting,
    )


def line_up_getters(subject: Subject, n: int) -> list[Call]:
    return line_up(n, lambda i: subject.start_get(), lambda: subject.look().getters_waiting)


def check_usable(subject: Subject) -> None:
    """One item comes in and goes out as if nothing had happened."""
    subject.discard()
    subject.put(77)
    assert subject.get() == 77
    check_law(subject.look())


# ---- the two laws --------------------------------------------------------------------------------


@rule_of_every_policy()
def test_q01_accepted_is_delivered_and_dropped_and_inside(make: Make, policy: str) -> None:
    """At every look, accepted = delivered + dropped (by reason) + inside, in items and in bytes."""
    subject, chance = make(5, policy, max_bytes=2000), random.Random(1)
    for number in range(1, 120):
        step = chance.random()
        with perhaps("full", "empty"):
            if step < 0.6:
                subject.put(number, cost=chance.randint(1, 300))
            elif step < 0.97:
                subject.get()
            else:
                subject.discard()
        check_law(subject.look())


@rule_of_every_policy()
def test_q02_never_more_items_inside_than_maxsize(make: Make, policy: str) -> None:
    """Never more items are in memory than maxsize, whatever the policy."""
    subject = make(3, policy)
    producers = [subject.start_put_range(1000 * i, 40) for i in (1, 2)]
    consumer = subject.start_get_all()
    while not all(producer.is_done for producer in producers):
        now = subject.look()
        assert now.qsize - now.spilled <= 3 and now.peak_qsize <= 3
    subject.close()
    consumer.result()
    assert 1 <= subject.look().peak_qsize <= 3


@rule_of_every_policy()
def test_q03_never_more_bytes_inside_than_max_bytes(make: Make, policy: str) -> None:
    """Never more bytes are in memory than max_bytes; this bound and that on items hold at once."""
    subject, chance = make(50, policy, max_bytes=1000), random.Random(2)
    for number in range(1, 60):
        with perhaps("full"):
            subject.put(number, cost=chance.randint(1, 500))
        if chance.random() < 0.3:
            subject.get()
        now = subject.look()
        assert now.bytes - now.spilled_bytes <= 1000 and now.qsize - now.spilled <= 50


@rule_of_every_policy()
def test_q04_each_item_comes_out_once_or_is_dropped_once(make: Make, policy: str) -> None:
    """Under load each accepted item is delivered once or dropped once: none twice, none never."""
    subject = make(4, policy)
    consumers = [subject.start_get_all() for _ in range(2)]
    producers = [subject.start_put_range(1000 * i, 100) for i in (1, 2, 3)]
    put: dict[int, int] = {}
    for i, producer in zip((1, 2, 3), producers, strict=True):
        with perhaps("full"):  # some say how many went in, some that the next one did not
            put[i] = producer.result()
    subject.close()
    got = Counter(number for consumer in consumers for number in consumer.result())
    now = subject.look()
    check_law(now)
    assert max(got.values()) == 1 and now.qsize == 0
    assert got.total() == now.delivered
    if subject.tells_drops:
        dropped = Counter(number for number, _ in subject.drops)
        assert not dropped & got and max(dropped.values(), default=0) <= 1
        assert dropped.total() == sum(now.dropped.values())
        for i, n in put.items():
            assert {*got, *dropped} >= set(range(1000 * i, 1000 * i + n))


# ---- order ---------------------------------------------------------------------------------------


@rule_of_every_policy()
def test_q05_items_leave_in_the_order_they_came(make: Make, policy: str) -> None:
    """Items leave in the order in which they were accepted; of each producer, also under load."""
    subject = make(4, policy)
    consumer = subject.start_get_all()
    producers = [subject.start_put_range(1000 * i, 60) for i in (1, 2)]
    wait_until(lambda: all(producer.is_done for producer in producers), PATIENCE)
    subject.close()
    got = consumer.result()
    for i in (1, 2):
        mine = [number for number in got if number // 1000 == i]
        assert mine == sorted(mine)


@rule()
def test_q06_waiting_putters_are_served_in_the_order_they_came(make: Make) -> None:
    """Putters that wait are let in in the order in which they came."""
    subject = make(1)
    subject.put(1)
    putters = line_up_putters(subject, [2, 3, 4])
    assert [subject.get(None) for _ in range(4)] == [1, 2, 3, 4]
    for putter in putters:
        putter.result()


@rule()
def test_q07_waiting_getters_are_served_in_the_order_they_came(make: Make) -> None:
    """Getters that wait are served in the order in which they came."""
    subject = make(5)
    getters = line_up_getters(subject, 3)
    for i, getter in enumerate(getters):
        subject.put(i + 1)
        assert getter.result() == i + 1
    check_law(subject.look())


@rule()
def test_q08_a_later_try_overtakes_nobody(make: Make) -> None:
    """A later try never overtakes one who waits."""
    subject = make(2)
    fill(subject, 2)
    (putter,) = line_up_putters(subject, [3])
    with refused("full"):
        subject.put(4)
    assert subject.get() == 1
    putter.result()
    with refused("full"):
        subject.put(5)
    assert subject.get_rest() == [2, 3]


# ---- waiting -------------------------------------------------------------------------------------


@rule()
def test_q09_a_timeout_of_zero_does_not_wait(make: Make) -> None:
    """A timeout of 0 never waits: full, or empty, at once."""
    subject = make(1)
    with refused("empty"):
        subject.get(0)
    subject.put(1, timeout=0)
    with refused("full"):
        subject.put(2, timeout=0)
    now = subject.look()
    assert (now.accepted, now.refused, now.qsize) == (1, 1, 1)


@rule()
def test_q10_a_timeout_leaves_the_item_with_the_caller(make: Make) -> None:
    """A put whose timeout passes leaves the item with its caller, a get takes nothing; not
    earlier."""
    subject = make(1)
    began = time.monotonic()
    with refused("empty"):
        subject.get(0.02)
    subject.put(1)
    with refused("full"):
        subject.put(2, timeout=0.02)
    assert time.monotonic() - began >= 0.04
    now = subject.look()
    assert (now.accepted, now.refused, now.qsize) == (1, 1, 1)
    assert (now.putters_waiting, now.getters_waiting) == (0, 0)
    assert subject.get_rest() == [1]


@rule(c=A_POINT_IN_TIME, c_shared=A_POINT_IN_TIME)
@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, "soon"])
def test_q11_a_timeout_that_is_none_is_refused_by_name(make: Make, timeout: Any) -> None:
    """A negative timeout, NaN, or what is no number is refused, in words that name it."""
    subject = make(1)
    calls: list[Callable[[], Any]] = [
        lambda: subject.put(1, timeout=timeout),
        lambda: subject.get(timeout),
        lambda: subject.put_many([1], timeout),
        lambda: subject.get_many(1, timeout),
    ]
    for call in calls:
        with refused("invalid") as told:
            call()
        assert "timeout" in told.text or "str" in told.text
    check_usable(subject)


@rule(threads=THREADS_ARE_NOT_CANCELLED)
def test_q12_a_putter_that_goes_puts_nothing(make: Make) -> None:
    """A putter that goes while it waits (cancelled, interrupted, killed) has put nothing, and
    holds up nobody behind it."""
    subject = make(1)
    subject.put(1)
    gone, stays = line_up_putters(subject, [2, 3])
    gone.cancel()
    with refused("cancelled"):
        gone.result()
    assert subject.get(None) == 1
    stays.result()
    assert subject.get_rest() == [3]
    check_law(subject.look())


@rule(threads=THREADS_ARE_NOT_CANCELLED)
def test_q13_a_getter_that_goes_takes_nothing(make: Make) -> None:
    """A getter that goes while it waits has taken nothing, and holds up nobody behind it."""
    subject = make(2)
    gone, stays = line_up_getters(subject, 2)
    gone.cancel()
    with refused("cancelled"):
        gone.result()
    subject.put(1)
    assert stays.result() == 1
    assert subject.get_rest() == []
    check_law(subject.look())


# ---- policies ------------------------------------------------------------------------------------


@rule()
def test_q14_block_waits_until_there_is_room(make: Make) -> None:
    """block: a put that does not fit waits, and goes in as soon as there is room."""
    subject = make(1)
    subject.put(1)
    (putter,) = line_up_putters(subject, [2])
    assert not putter.is_done
    assert subject.get() == 1
    putter.result()
    assert subject.get_rest() == [2]


@rule()
def test_q15_fail_refuses_at_once(make: Make) -> None:
    """fail: a put that does not fit is refused at once, whatever its timeout, and is the
    caller's."""
    subject = make(2, "fail")
    fill(subject, 2)
    with refused("full"):
        subject.put(3, timeout=None)
    now = subject.look()
    assert (now.accepted, now.refused, sum(now.dropped.values())) == (2, 1, 0)
    assert subject.get_rest() == [1, 2]


@rule()
def test_q16_drop_newest_drops_the_new_one(make: Make) -> None:
    """drop_newest: exactly the item that does not fit is dropped, with the reason newest."""
    subject = make(2, "drop_newest")
    fill(subject, 4)
    assert subject.look().dropped["newest"] == 2 == sum(subject.look().dropped.values())
    if subject.tells_drops:
        assert subject.drops == [(3, "newest"), (4, "newest")]
    assert subject.get_rest() == [1, 2]


@rule()
def test_q17_drop_oldest_drops_from_the_head(make: Make) -> None:
    """drop_oldest: as many of the oldest are dropped as the new one needs, with the reason
    oldest."""
    subject = make(2, "drop_oldest")
    fill(subject, 4)
    assert subject.look().dropped["oldest"] == 2 == sum(subject.look().dropped.values())
    if subject.tells_drops:
        assert subject.drops == [(1, "oldest"), (2, "oldest")]
    assert subject.get_rest() == [3, 4]


@rule()
def test_q18_sample_keeps_one_of_so_many(make: Make) -> None:
    """sample: above the high mark exactly one of n is kept, the others dropped with the reason
    sampled; what finds no room at all is newest."""
    subject = make(10, "sample", sample=3)
    fill(subject, 8)
    assert sum(subject.look().dropped.values()) == 0
    for number in range(9, 18):
        subject.put(number)
    dropped = subject.look().dropped
    assert (dropped["sampled"], dropped["newest"]) == (6, 1)
    assert sum(dropped.values()) == 7
    assert len(subject.get_rest()) == 10


@rule(c_shared="it has no disk: what processes share is memory", processes="it has no disk")
def test_q19_spill_loses_nothing_and_keeps_the_order(make: Make) -> None:
    """spill: what does not fit goes to disk and comes back in its turn; nothing waits, nothing is
    dropped."""
    subject = make(4, "spill")
    numbers = fill(subject, 40)
    now = subject.look()
    assert now.qsize == 40 and now.qsize - now.spilled <= 4
    check_law(now)
    assert subject.get_rest() == numbers
    assert sum(subject.look().dropped.values()) == 0


@rule_of_every_policy()
def test_q20_what_can_never_fit_is_refused(make: Make, policy: str) -> None:
    """An item that costs more than the whole bound is refused as too large by every policy, at
    once, and nothing is dropped for it."""
    subject = make(5, policy, max_bytes=1000)
    subject.put(1, cost=100)
    with refused("too large"):
        subject.put(2, cost=5000, timeout=None)
    now = subject.look()
    assert (now.accepted, now.refused, sum(now.dropped.values())) == (1, 1, 0)
    assert subject.get_rest() == [1]


@rule(c_shared=NO_CALLBACK, processes=NO_CALLBACK)
def test_q21_each_drop_is_told_once(make: Make) -> None:
    """on_drop is told of each dropped item once, with its reason, before the call that dropped
    it returns, and with no lock held: it may use the queue."""
    subject = make(1, "drop_oldest")
    for number in (1, 2, 3):
        subject.put(number)
        assert subject.drops == [(n, "oldest") for n in range(1, number)]
    subject.discard()
    assert subject.drops[2:] == [(3, "discarded")]
    assert sum(subject.look().dropped.values()) == 3


@rule_of_every_policy()
def test_q22_what_is_too_old_is_not_delivered(make: Make, policy: str) -> None:
    """An item that is older than max_age when its turn comes is dropped with the reason expired."""
    subject = make(3, policy, max_age=0.05)
    fill(subject, 2)
    time.sleep(0.08)
    with refused("empty"):
        subject.get()
    now = subject.look()
    assert now.dropped["expired"] == 2
    check_law(now)
    subject.put(3)  # the room of what was too old is there again
    assert subject.look().qsize == 1


# ---- closing -------------------------------------------------------------------------------------


@rule_of_every_policy()
def test_q23_a_closed_queue_takes_nothing(make: Make, policy: str) -> None:
    """After close every put is refused as closed, and leaves the item with its caller."""
    subject = make(2, policy)
    subject.put(1)
    subject.close()
    with refused("closed"):
        subject.put(2)
    with refused("closed"):
        subject.put(3, timeout=None)
    now = subject.look()
    assert (now.accepted, now.qsize, sum(now.dropped.values())) == (1, 1, 0)
    assert now.is_shutdown


@rule_of_every_policy()
def test_q24_a_closed_queue_gives_what_is_inside_and_then_says_closed(
    make: Make, policy: str
) -> None:
    """After close getters get what is inside, in order, and are then told that it is closed."""
    subject = make(3, policy)
    numbers = fill(subject, 3)
    subject.close()
    assert [subject.get(None) for _ in numbers] == numbers
    with refused("closed"):
        subject.get(None)
    with refused("closed"):
        subject.get(0)


@rule()
def test_q25_close_releases_waiting_putters(make: Make) -> None:
    """close releases every putter that waits; none of their items went in."""
    subject = make(1)
    subject.put(1)
    putters = line_up_putters(subject, [2, 3])
    subject.close()
    for putter in putters:
        with refused("closed"):
            putter.result()
    assert subject.get_rest() == [1]
    check_law(subject.look())


@rule()
def test_q26_close_releases_waiting_getters(make: Make) -> None:
    """close releases every getter that waits."""
    subject = make(1)
    getters = line_up_getters(subject, 2)
    subject.close()
    for getter in getters:
        with refused("closed"):
            getter.result()


@rule()
def test_q27_closing_twice_is_fine(make: Make) -> None:
    """Closing twice is the same as closing once."""
    subject = make(2)
    subject.put(1)
    subject.close()
    subject.close()
    assert subject.get() == 1
    with refused("closed"):
        subject.get()


@rule_of_every_policy()
def test_q28_discard_drops_what_is_inside_and_leaves_it_open(make: Make, policy: str) -> None:
    """discard drops everything inside with the reason discarded, says how many, and the queue
    goes on."""
    subject = make(3, policy)
    fill(subject, 3)
    assert subject.discard() == 3
    now = subject.look()
    assert (now.dropped["discarded"], now.qsize) == (3, 0)
    subject.put(4)
    assert subject.get() == 4
    assert subject.discard() == 0


@rule()
def test_q29_discard_lets_in_who_waits(make: Make) -> None:
    """What discard makes room for goes in, though nobody calls any more."""
    subject = make(1)
    subject.put(1)
    (putter,) = line_up_putters(subject, [2])
    assert subject.discard() == 1
    putter.result()
    assert subject.get_rest() == [2]


# ---- resizing ------------------------------------------------------------------------------------


@rule(c_shared=NO_RESIZE, processes=NO_RESIZE)
def test_q30_a_larger_bound_lets_in_who_waits(make: Make) -> None:
    """A bound that becomes larger lets in as many as there is room for, in their order."""
    subject = make(1)
    subject.put(1)
    first, second, third = line_up_putters(subject, [2, 3, 4])
    subject.resize(3)
    first.result()
    second.result()
    assert not third.is_done and subject.look().qsize == 3
    assert subject.get() == 1
    third.result()
    assert subject.get_rest() == [2, 3, 4]


@rule(c_shared=NO_RESIZE, processes=NO_RESIZE)
def test_q31_a_smaller_bound_keeps_the_surplus_until_it_is_taken(make: Make) -> None:
    """A bound that becomes smaller drops nothing, and lets in nobody until there is room below
    it."""
    subject = make(3)
    fill(subject, 3)
    subject.resize(1)
    assert subject.look().qsize == 3
    for number in (1, 2):
        with refused("full"):
            subject.put(9)
        assert subject.get() == number
    with refused("full"):
        subject.put(9)
    assert subject.get() == 3
    subject.put(4)
    assert subject.get_rest() == [4]


@rule(c_shared=NO_RESIZE, processes=NO_RESIZE)
def test_q32_a_bound_of_nothing_is_refused(make: Make) -> None:
    """A new bound of nothing is refused, and the old one stays."""
    subject = make(2)
    with refused("invalid"):
        subject.resize(0)
    assert subject.look().maxsize == 2
    check_usable(subject)


# ---- batches -------------------------------------------------------------------------------------


@rule()
def test_q33_put_many_puts_from_the_front(make: Make) -> None:
    """put_many puts from the front what fits, says how many, and the others are the caller's;
    where not even the first fits it is refused."""
    subject = make(3)
    assert subject.put_many([1, 2, 3, 4, 5], 0) == 3
    with refused("full"):
        subject.put_many([4, 5], 0)
    assert subject.get_rest() == [1, 2, 3]
    assert subject.put_many([], 0) == 0
    assert subject.look().accepted == 3


@rule()
def test_q34_get_many_takes_what_is_there(make: Make) -> None:
    """get_many takes at most so many, in order, and no less than are there; with nothing it is
    empty."""
    subject = make(5)
    with refused("empty"):
        subject.get_many(3, 0)
    fill(subject, 5)
    assert subject.get_many(3, 0) == [1, 2, 3]
    assert subject.get_many(10, 0) == [4, 5]
    with refused("invalid"):
        subject.get_many(0, 0)
    assert subject.look().delivered == 5


# ---- what people see -----------------------------------------------------------------------------


@rule_of_every_policy()
def test_q35_a_look_shows_nothing_impossible(make: Make, policy: str) -> None:
    """Whatever happens meanwhile, at each look the law holds, counters never go back, and the
    depth is not above the highest there ever was."""
    subject = make(3, policy)
    consumer = subject.start_get_all()
    producers = [subject.start_put_range(1000 * i, 60) for i in (1, 2)]
    before = subject.look()
    while not all(producer.is_done for producer in producers):
        now = subject.look()
        check_law(now)
        assert all(a <= b for a, b in zip(before.counters, now.counters, strict=True))
        assert now.qsize - now.spilled <= now.peak_qsize
        before = now
    subject.close()
    consumer.result()
    check_law(subject.look())


@rule()
@pytest.mark.parametrize(
    "options",
    [
        {"maxsize": 0},
        {"maxsize": 2, "overflow": "sample", "sample": 1},
        {"maxsize": 2, "overflow": "7"},
    ],
    ids=["maxsize", "sample", "overflow"],
)
def test_q36_an_option_out_of_range_is_refused(make: Make, face: str, options: Any) -> None:
    """An option out of range is refused when the queue is made, in words that name it."""
    with refused("invalid") as told:
        make(**options)
    if not face.startswith("c"):
        assert list(options)[-1] in told.text


@rule()
def test_q37_a_queue_is_usable_after_each_error(make: Make) -> None:
    """After each error the queue goes on as if the call had not been made."""
    subject = make(1, max_bytes=1000)
    with refused("empty"):
        subject.get(0.001)
    check_usable(subject)
    subject.put(1)
    with refused("full"):
        subject.put(2, timeout=0.001)
    with refused("too large"):
        subject.put(3, cost=5000)
    with refused("invalid"):
        subject.get_many(0, 0)
    if subject.can_cancel:
        (putter,) = line_up_putters(subject, [4])
        putter.cancel()
        with refused("cancelled"):
            putter.result()
    check_usable(subject)
    assert subject.look().putters_waiting == 0


@rule(c_shared=NO_FD, processes=NO_FD)
def test_q38_the_descriptors_say_whether_a_call_would_wait(make: Make) -> None:
    """item_fd polls readable exactly while a get would not wait, room_fd while a put would not."""
    subject = make(1)
    assert subject.readable() == (False, True)
    subject.put(1)
    assert subject.readable() == (True, False)
    assert subject.get() == 1
    assert subject.readable() == (False, True)
    subject.close()
    assert subject.readable() == (True, True)


@rule(c="an object in C has no repr; its name is in its stats page", c_shared="as c")
def test_q39_its_repr_says_its_name_and_how_full_it_is(make: Make) -> None:
    """repr() says the name, how much is inside, and of how much."""
    name = f"rules-{os.getpid()}"
    subject = make(7, name=name)
    fill(subject, 3)
    shown = subject.shown()
    assert name in shown and "3" in shown and "7" in shown


@rule()
def test_q40_no_wake_up_is_lost(make: Make) -> None:
    """With many who wait on both sides everybody comes through: no wake-up is lost."""
    subject = make(1)
    consumers = [subject.start_get_all() for _ in range(3)]
    producers = [subject.start_put_range(1000 * i, 60) for i in (1, 2, 3)]
    assert [producer.result() for producer in producers] == [60, 60, 60]
    subject.close()
    assert sum(len(consumer.result()) for consumer in consumers) == 180
    now = subject.look()
    assert (now.putters_waiting, now.getters_waiting, now.qsize) == (0, 0, 0)


assert set(POLICIES) == set(QUEUES["threads"].policies)  # no policy is forgotten
