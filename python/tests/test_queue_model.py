"""weir.Queue against a plain model: random interleavings have to agree in every step.

Two machines.  The first never waits, so it can run 10,000 interleavings of put, get, close, resize
and drop with every policy.  The second has putters and getters that wait in threads of their own,
in a known order, and knows who is served when.
"""

from __future__ import annotations

import queue
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from conftest import InThread, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import weir

# ---- the model --------------------------------------------------------------------------------


@dataclass
class Model:
    """What weir.Queue promises, in the most obvious way.  Items are (number, cost)."""

    maxsize: int | None
    max_bytes: int | None
    overflow: str
    items: deque[tuple[int, int]] = field(default_factory=deque)
    closed: bool = False
    accepted: int = 0
    delivered: int = 0
    refused: int = 0
    drops: list[tuple[int, str]] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(cost for _, cost in self.items)

    def fits(self, cost: int) -> bool:
        return (self.maxsize is None or len(self.items) < self.maxsize) and (
            self.max_bytes is None or self.bytes + cost <= self.max_bytes
        )

    def put(self, item: tuple[int, int]) -> type[Exception] | None:
        number, cost = item
        if self.closed:
            return weir.ShutDown
        if self.max_bytes is not None and cost > self.max_bytes:
            self.refused += 1
            return weir.TooLarge
        if not self.fits(cost):
            if self.overflow in ("block", "fail"):
                self.refused += 1
                return queue.Full
            self.accepted += 1
            if self.overflow == "drop_newest":
                self.drops.append((number, "newest"))
                return None
            while not self.fits(cost):
                self.drops.append((self.items.popleft()[0], "oldest"))
            self.items.append(item)
            return None
        self.accepted += 1
        self.items.append(item)
        return None

    def get(self) -> tuple[int, int] | type[Exception]:
        if not self.items:
            return weir.ShutDown if self.closed else queue.Empty
        self.delivered += 1
        return self.items.popleft()

    def discard(self) -> int:
        n = len(self.items)
        self.drops += [(number, "discarded") for number, _ in self.items]
        self.items.clear()
        return n


def outcome(call: Any, *args: Any) -> Any:
    """What a call returns, or the type of what it raises."""
    try:
        return call(*args)
    except (queue.Empty, queue.Full, weir.ShutDown, weir.TooLarge) as error:
        return type(error)


class Pair:
    """The queue and its model, and every step on both."""

    def __init__(self, maxsize: int | None, max_bytes: int | None, overflow: Any) -> None:
        self.model = Model(maxsize, max_bytes, overflow)
        self.drops: list[tuple[int, str]] = []
        self.queue: weir.Queue[tuple[int, int]] = weir.Queue(
            maxsize,
            max_bytes=max_bytes,
            overflow=overflow,
            sizer=lambda item: item[1],
            on_drop=lambda item, why: self.drops.append((item[0], why)),
        )
        self.next = 0
        self.taken = 0

    def item(self, cost: int) -> tuple[int, int]:
        self.next += 1
        return self.next, cost

    def put(self, cost: int) -> None:
        item = self.item(cost)
        assert outcome(self.queue.put_nowait, item) == self.model.put(item)

    def put_many(self, costs: list[int]) -> None:
        items = [self.item(cost) for cost in costs]
        n = 0
        error: Any = None
        for item in items:
            error = self.model.put(item)
            if error is not None:
                break
            n += 1
        expected = error if error is not None and n == 0 else n
        assert outcome(self.queue.put_many, items, 0) == expected

    def get(self) -> None:
        expected = self.model.get()
        self.taken += isinstance(expected, tuple)
        assert outcome(self.queue.get_nowait) == expected

    def get_many(self, n: int) -> None:
        expected: list[Any] = []
        while len(expected) < n:
            got = self.model.get()
            if not isinstance(got, tuple):
                break
            expected.append(got)
        self.taken += len(expected)
        nothing = weir.ShutDown if self.model.closed else queue.Empty
        got_many = outcome(lambda: self.queue.get_many(n, timeout=0))
        assert got_many == (expected or nothing)

    def resize(self, maxsize: int | None, max_bytes: int | None) -> None:
        self.queue.maxsize = self.model.maxsize = maxsize
        self.queue.max_bytes = self.model.max_bytes = max_bytes

    def discard(self) -> None:
        assert self.queue.discard() == self.model.discard()

    def close(self, immediate: bool) -> None:
        self.queue.shutdown(immediate)
        self.model.closed = True
        if immediate:
            self.model.discard()

    def task_done(self) -> None:
        if self.taken:
            self.taken -= 1
            self.queue.task_done()

    def check(self) -> None:
        s, m = self.queue.stats(), self.model
        assert (s.qsize, s.bytes) == (len(m.items), m.bytes)
        assert (s.accepted, s.delivered, s.refused) == (m.accepted, m.delivered, m.refused)
        assert self.drops == m.drops
        assert sum(s.dropped.values()) == len(m.drops)
        assert (s.maxsize, s.max_bytes, s.is_shutdown) == (m.maxsize, m.max_bytes, m.closed)
        assert s.unfinished_tasks == len(m.items) + self.taken
        assert self.queue.full() == (
            (m.maxsize is not None and len(m.items) >= m.maxsize)
            or (m.max_bytes is not None and m.bytes >= m.max_bytes)
        )
        assert s.accepted == s.delivered + sum(s.dropped.values()) + s.qsize
        assert s.accepted_bytes == s.delivered_bytes + sum(s.dropped_bytes.values()) + s.bytes


# ---- 10,000 interleavings ---------------------------------------------------------------------

costs = st.integers(0, 6)
maxsizes = st.sampled_from([None, 1, 2, 3, 5])
max_bytes = st.sampled_from([None, 1, 4, 9])
overflows = st.sampled_from(["block", "fail", "drop_newest", "drop_oldest"])
steps = st.one_of(
    st.tuples(st.just("put"), costs),
    st.tuples(st.just("put"), costs),
    st.tuples(st.just("put_many"), st.lists(costs, max_size=6)),
    st.tuples(st.just("get")),
    st.tuples(st.just("get_many"), st.integers(1, 4)),
    st.tuples(st.just("resize"), maxsizes, max_bytes),
    st.tuples(st.just("discard")),
    st.tuples(st.just("task_done")),
    st.tuples(st.just("close"), st.booleans()),
)


def follow(
    maxsize: int | None, max_bytes: int | None, overflow: str, steps: list[tuple[Any, ...]]
) -> None:
    pair = Pair(maxsize, max_bytes, overflow)
    for step, *args in steps:
        getattr(pair, step)(*args)
        pair.check()


@settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(maxsizes, max_bytes, overflows, st.lists(steps, min_size=1, max_size=25))
def test_interleavings_agree_with_the_model(
    maxsize: int | None, max_bytes: int | None, overflow: str, steps: list[tuple[Any, ...]]
) -> None:
    follow(maxsize, max_bytes, overflow, steps)


def any_steps() -> list[tuple[Any, ...]]:
    """As `steps`, without what makes a failing one small: that costs ten times the test."""
    make: list[Callable[[], tuple[Any, ...]]] = [
        lambda: ("put", random.randint(0, 6)),
        lambda: ("put", random.randint(0, 6)),
        lambda: ("put_many", [random.randint(0, 6) for _ in range(random.randint(0, 6))]),
        lambda: ("get",),
        lambda: ("get_many", random.randint(1, 4)),
        lambda: ("resize", random.choice([None, 1, 2, 3, 5]), random.choice([None, 1, 4, 9])),
        lambda: ("discard",),
        lambda: ("task_done",),
        lambda: ("close", random.random() < 0.5),
    ]
    return [random.choice(make)() for _ in range(random.randint(1, 25))]


@pytest.mark.parametrize("overflow", ["block", "fail", "drop_newest", "drop_oldest"])
def test_ten_thousand_interleavings_agree_with_the_model(overflow: str) -> None:
    for _ in range(2_500):
        maxsize, max_bytes = random.choice([None, 1, 2, 3, 5]), random.choice([None, 1, 4, 9])
        steps = any_steps()
        try:
            follow(maxsize, max_bytes, overflow, steps)
        except Exception as error:
            raise AssertionError(f"maxsize={maxsize}, {max_bytes=}: {steps}") from error


# ---- with waiting threads ---------------------------------------------------------------------


class WaitingMachine(RuleBasedStateMachine):
    """Up to a few putters or getters wait; the model serves the first that can be."""

    @initialize(maxsize=st.sampled_from([1, 2, 3]), bound=max_bytes)
    def make(self, maxsize: int, bound: int | None) -> None:
        self.pair = Pair(maxsize, bound, "block")
        self.putters: deque[tuple[tuple[int, int], InThread]] = deque()
        self.getters: deque[InThread] = deque()

    def settle(self) -> None:
        """Serves, in the model, whoever can be; then their threads have to return."""
        model = self.pair.model
        while True:
            if model.closed or (
                self.putters
                and model.max_bytes is not None
                and any(item[1] > model.max_bytes for item, _ in self.putters)
            ):
                self.refuse_putters()
            if self.putters and model.fits(self.putters[0][0][1]):
                item, thread = self.putters.popleft()
                model.put(item)
                assert thread.result() is None
            elif self.getters and model.items:
                got = model.get()
                self.pair.taken += 1
                assert self.getters.popleft().result() == got
            elif self.getters and model.closed:
                with pytest.raises(weir.ShutDown):
                    self.getters.popleft().result()
            else:
                break
        q = self.pair.queue
        wait_until(lambda: q.stats().putters_waiting == len(self.putters))
        wait_until(lambda: q.stats().getters_waiting == len(self.getters))

    def refuse_putters(self) -> None:
        model = self.pair.model
        kept: deque[tuple[tuple[int, int], InThread]] = deque()
        for item, thread in self.putters:
            if model.closed:
                with pytest.raises(weir.ShutDown):
                    thread.result()
            elif model.max_bytes is not None and item[1] > model.max_bytes:
                with pytest.raises(weir.TooLarge):
                    thread.result()
                model.refused += 1
            else:
                kept.append((item, thread))
        self.putters = kept

    @precondition(lambda self: len(self.putters) < 4)
    @rule(cost=costs)
    def put(self, cost: int) -> None:
        model, q = self.pair.model, self.pair.queue
        must_wait = (
            not model.closed
            and (model.max_bytes is None or cost <= model.max_bytes)
            and (bool(self.putters) or not model.fits(cost))
        )
        if must_wait:
            item = self.pair.item(cost)
            self.putters.append((item, InThread(q.put, item)))
            wait_until(lambda: q.stats().putters_waiting == len(self.putters))
        else:
            self.pair.put(cost)
            self.settle()

    @precondition(lambda self: self.putters)
    @rule(cost=costs)
    def a_try_does_not_overtake(self, cost: int) -> None:
        model = self.pair.model
        item = self.pair.item(cost)
        too_large = model.max_bytes is not None and cost > model.max_bytes
        model.refused += 1
        expected = weir.TooLarge if too_large else queue.Full
        assert outcome(self.pair.queue.put_nowait, item) is expected

    @precondition(lambda self: len(self.getters) < 4)
    @rule()
    def get(self) -> None:
        model, q = self.pair.model, self.pair.queue
        if model.items or model.closed:
            self.pair.get()
            self.settle()
        else:
            self.getters.append(InThread(q.get))
            wait_until(lambda: q.stats().getters_waiting == len(self.getters))

    @rule(maxsize=st.sampled_from([1, 2, 3, 5]), bound=max_bytes)
    def resize(self, maxsize: int, bound: int | None) -> None:
        # One bound at a time, as the queue does it: each step may serve somebody.
        self.pair.queue.maxsize = self.pair.model.maxsize = maxsize
        self.settle()
        self.pair.queue.max_bytes = self.pair.model.max_bytes = bound
        self.settle()

    @rule()
    def discard(self) -> None:
        self.pair.discard()
        self.settle()

    @rule()
    def task_done(self) -> None:
        self.pair.task_done()

    @rule(immediate=st.booleans())
    def close(self, immediate: bool) -> None:
        if self.putters or self.getters or immediate:
            self.pair.close(immediate)
            self.settle()

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "pair"):
            return
        s, m = self.pair.queue.stats(), self.pair.model
        assert (s.qsize, s.bytes) == (len(m.items), m.bytes)
        assert (s.accepted, s.delivered, s.refused) == (m.accepted, m.delivered, m.refused)
        assert self.pair.drops == m.drops
        assert s.unfinished_tasks == len(m.items) + self.pair.taken + len(self.putters)

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.pair.close(False)
            self.settle()


TestWaiting = pytest.mark.slow(WaitingMachine.TestCase)
TestWaiting.settings = settings(
    max_examples=300,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
