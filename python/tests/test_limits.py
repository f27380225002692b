"""What every limit promises in Python, whatever it counts: each test runs on each row of LIMITS.

A limit that is new is one more row.  Limits with other names for the same things have adapters: a
`Governor` counts reservations; to a `Bucket` nothing is given back, so `release` lets time pass.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from conftest import InThread, wait_until

import weir

if TYPE_CHECKING:
    from typing_extensions import Self

_names = itertools.count()


@dataclass(frozen=True)
class Row:
    """A kind of limit: how one is made of which `capacity` may be inside."""

    name: str
    make: Callable[[int], Any]

    def __str__(self) -> str:
        return self.name


def limiter(kind: Callable[..., Any] | None, shared: bool) -> Callable[[int], weir.Limiter]:
    def make(capacity: int) -> weir.Limiter:
        name = f"pytest.{os.getpid()}.{next(_names)}" if shared else None
        limit = capacity if kind is None else kind(capacity, capacity, capacity)
        return weir.Limiter(limit, shared=name)

    return make


LIMITS = [
    Row(f"{name}{', shared' if shared else ''}", limiter(kind, shared))
    for name, kind in [
        ("fixed", None),
        ("aimd", weir.AIMD),
        ("vegas", weir.Vegas),
        ("gradient2", weir.Gradient2),
    ]
    for shared in (False, True)
]


class Governor:
    """A weir.MemoryGovernor of which each reservation is one of `capacity`."""

    def __init__(self, capacity: int, shared: str | None) -> None:
        # So much that what is really used does not matter, nor how busy the machine is.
        self._unit = 1 << 42
        self.governor = weir.MemoryGovernor(
            capacity * self._unit + self._unit // 2,
            shared=shared,
            interval=3600,
            slow=1.0,
            pause=1.0,
            shed=1.0,
        )
        self.close = self.governor.close

    def acquire(self, timeout: float | None = None) -> weir.MemoryReservation:
        return self.governor.reserve(self._unit, timeout)

    def try_acquire(self) -> weir.MemoryReservation | None:
        return self.governor.try_reserve(self._unit)

    async def aacquire(self, timeout: float | None = None) -> weir.MemoryReservation:
        return await self.governor.areserve(self._unit, timeout)

    @property
    def in_flight(self) -> int:
        return self.governor.stats().inside

    def stats(self) -> Any:
        stats = self.governor.stats()
        return SimpleNamespace(
            admitted=stats.admitted,
            released=stats.released,
            lost=stats.lost,
            in_flight=stats.inside,
            refused=stats.refused,
            waiting=stats.waiting,
            peak=stats.peak_reserved // self._unit,
            is_closed=stats.is_shutdown,
        )


class Token:
    """What a bucket grants.  Released, it lets the next token come."""

    def __init__(self, bucket: weir.TokenBucket) -> None:
        self._bucket = bucket

    def release(self) -> None:
        before = self._bucket.stats().granted
        self._bucket.rate = 2000.0
        wait_until(
            lambda: (
                self._bucket.stats().granted > before
                or self._bucket.available == self._bucket.burst
                or self._bucket.is_closed
            )
        )
        self._bucket.rate = 1 / 3600

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.release()


class Bucket:
    """A weir.TokenBucket that begins with `capacity` tokens, and to which more come on release."""

    def __init__(self, capacity: int, shared: str | None) -> None:
        self.bucket = weir.TokenBucket(1 / 3600, burst=capacity, shared=shared)
        self.close = self.bucket.close

    def __del__(self) -> None:
        # A shared bucket that is not full is kept, for whoever comes next: here nobody does.
        self.bucket.change(1e9)
        time.sleep(1e-6)

    def acquire(self, timeout: float | None = None) -> Token:
        if not self.bucket.acquire(timeout=timeout):
            raise TimeoutError
        return Token(self.bucket)

    def try_acquire(self) -> Token | None:
        return Token(self.bucket) if self.bucket.try_acquire() else None

    def stats(self) -> Any:
        stats = self.bucket.stats()
        return SimpleNamespace(
            admitted=stats.granted,
            released=stats.granted,  # spent: nobody holds a token
            lost=0,
            in_flight=0,
            refused=stats.refused,
            waiting=stats.waiting,
            is_closed=self.bucket.is_closed,
        )


def adapted(kind: Callable[[int, str | None], Any], shared: bool) -> Callable[[int], Any]:
    def make(capacity: int) -> Any:
        return kind(capacity, f"pytest.{os.getpid()}.{next(_names)}" if shared else None)

    return make


# Limits that are entered: `with limit`.  A reservation is entered itself, as it has a size.
BLOCKS = pytest.mark.parametrize("row", LIMITS, ids=str)
GOVERNORS = [
    Row("governor", adapted(Governor, False)),
    Row("governor, shared", adapted(Governor, True)),
]
# A shared governor cannot wait in line for a coroutine, but asks again: no order among those.
IN_LINE = pytest.mark.parametrize("row", [*LIMITS, GOVERNORS[0]], ids=str)
HOLDING = pytest.mark.parametrize("row", [*LIMITS, *GOVERNORS], ids=str)
# What a bucket granted is spent: nobody holds it, and nothing comes back when a permit is dropped.
# Its coroutines, and its order, are held to the same in test_rate.py, as time serves them.
ROWS = pytest.mark.parametrize(
    "row",
    [
        *LIMITS,
        *GOVERNORS,
        Row("bucket", adapted(Bucket, False)),
        Row("bucket, shared", adapted(Bucket, True)),
    ],
    ids=str,
)


def check_law(limit: Any, inside: int = 0) -> Any:
    stats = limit.stats()
    assert stats.admitted == stats.released + stats.in_flight + stats.lost
    assert stats.in_flight == (0 if isinstance(limit, Bucket) else inside)
    return stats


@ROWS
def test_a_try_gets_what_there_is_and_no_more(row: Row) -> None:
    limit = row.make(2)
    permits = [limit.try_acquire(), limit.try_acquire()]
    assert limit.try_acquire() is None
    check_law(limit, inside=2)
    for permit in permits:
        permit.release()
    assert check_law(limit).refused == 1


@ROWS
def test_a_deadline_ends_the_wait_and_leaves_nothing(row: Row) -> None:
    limit = row.make(1)
    with limit.acquire():
        with pytest.raises(TimeoutError):
            limit.acquire(timeout=0.001)
        with pytest.raises(TimeoutError):
            limit.acquire(timeout=0)
        assert limit.stats().waiting == 0
    assert check_law(limit).admitted == 1


@ROWS
def test_who_waits_is_let_in_by_a_release(row: Row) -> None:
    limit = row.make(1)
    first = limit.acquire()
    second = InThread(limit.acquire)
    wait_until(lambda: limit.stats().waiting == 1)
    first.release()
    second.result().release()
    assert check_law(limit).admitted == 2


@HOLDING
def test_waiters_are_let_in_in_the_order_they_came(row: Row) -> None:
    limit = row.make(1)
    first = limit.acquire()
    order: list[int] = []

    def wait(number: int) -> None:
        with limit.acquire():
            order.append(number)

    waiting = []
    for number in range(5):
        waiting.append(InThread(wait, number))
        wait_until(lambda n=number: limit.stats().waiting == n + 1)  # type: ignore[misc]
    first.release()
    for one in waiting:
        one.result()
    assert order == [0, 1, 2, 3, 4]
    check_law(limit)


@ROWS
def test_close_releases_every_waiter(row: Row) -> None:
    limit = row.make(1)
    permit = limit.acquire()
    waiting = [InThread(limit.acquire) for _ in range(3)]
    wait_until(lambda: limit.stats().waiting == 3)
    limit.close()
    for one in waiting:
        with pytest.raises(weir.ShutDown):
            one.result()
    with pytest.raises(weir.ShutDown):
        limit.acquire()
    permit.release()
    assert check_law(limit).is_closed


@HOLDING
def test_close_tells_the_coroutines_that_wait(row: Row) -> None:
    async def run() -> None:
        limit = row.make(1)
        permit = await limit.aacquire()
        waiting = [asyncio.create_task(limit.aacquire()) for _ in range(3)]
        await asyncio.sleep(0.01)
        limit.close()
        for one in asyncio.as_completed(waiting):
            with pytest.raises(weir.ShutDown):
                await one
        permit.release()
        check_law(limit)

    asyncio.run(run())


@HOLDING
def test_a_cancelled_coroutine_takes_nothing_with_it(row: Row) -> None:
    async def run() -> None:
        limit = row.make(1)
        permit = await limit.aacquire()
        tasks = [asyncio.create_task(limit.aacquire()) for _ in range(10)]
        await asyncio.sleep(0.005)
        for task in tasks[::2]:
            task.cancel()
        permit.release()
        for task in tasks[1::2]:
            (await task).release()
        await asyncio.gather(*tasks[::2], return_exceptions=True)
        for _ in range(2000):
            if limit.in_flight == 0 and limit.stats().waiting == 0:
                break
            await asyncio.sleep(0.005)
        check_law(limit)
        (await limit.aacquire(timeout=5)).release()

    asyncio.run(run())


@HOLDING
def test_cancelling_at_the_moment_of_the_grant_loses_no_place(row: Row) -> None:
    async def run() -> None:
        limit = row.make(1)
        for _ in range(100):
            permit = await limit.aacquire(timeout=20)
            task = asyncio.create_task(limit.aacquire())
            await asyncio.sleep(0)
            permit.release()
            task.cancel()
            done = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(done, (weir.LimitPermit, weir.MemoryReservation)):
                done.release()
        (await limit.aacquire(timeout=20)).release()
        await asyncio.sleep(0)
        wait_until(lambda: limit.in_flight == 0)
        check_law(limit)

    asyncio.run(run())


@IN_LINE
def test_coroutines_are_let_in_in_the_order_they_came(row: Row) -> None:
    async def run() -> None:
        limit = row.make(1)
        order: list[int] = []

        async def one(number: int) -> None:
            with await limit.aacquire():
                order.append(number)
                await asyncio.sleep(0)

        permit = await limit.aacquire()
        tasks = [asyncio.create_task(one(number)) for number in range(20)]
        await asyncio.sleep(0)
        permit.release()
        late = [asyncio.create_task(one(number)) for number in range(20, 30)]
        await asyncio.gather(*tasks, *late)
        assert order == list(range(30))

    asyncio.run(run())


@HOLDING
def test_a_coroutine_gets_its_timeout(row: Row) -> None:
    async def run() -> None:
        limit = row.make(1)
        permit = await limit.aacquire()
        with pytest.raises(TimeoutError):
            await limit.aacquire(timeout=0.005)
        with pytest.raises(TimeoutError):
            await limit.aacquire(timeout=0)
        permit.release()
        (await limit.aacquire(timeout=20)).release()
        wait_until(lambda: limit.in_flight == 0)

    asyncio.run(run())


@HOLDING
def test_a_timeout_that_makes_no_sense_is_refused_whether_or_not_anybody_waits(row: Row) -> None:
    async def run() -> None:
        limit = row.make(1)
        for wrong, says in ((-1, "a non-negative number"), (math.nan, "NaN")):
            with pytest.raises(ValueError, match=f"'timeout' must .*{says}"):
                await limit.aacquire(timeout=wrong)
            with pytest.raises(ValueError, match=f"'timeout' must .*{says}"):
                limit.acquire(timeout=wrong)
        permit = await limit.aacquire()
        with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
            await limit.aacquire(timeout=-1)
        permit.release()
        wait_until(lambda: limit.in_flight == 0)
        check_law(limit)

    asyncio.run(run())


@HOLDING
def test_a_permit_nobody_refers_to_comes_back_once(row: Row) -> None:
    limit = row.make(2)
    permit = limit.acquire()
    permit.release()
    permit.release()
    del permit
    lost = limit.acquire()
    del lost
    gc.collect()
    stats = check_law(limit)
    assert (stats.admitted, stats.released) == (2, 2)


@BLOCKS
def test_blocks_may_be_nested(row: Row) -> None:
    limit = row.make(3)
    with limit, limit:
        with limit:
            assert limit.in_flight == 3
            assert limit.try_acquire() is None
        assert limit.in_flight == 2
    check_law(limit)


@BLOCKS
def test_an_exception_in_a_block_gives_the_place_back(row: Row) -> None:
    limit = row.make(1)
    for error in (ValueError, TimeoutError, KeyboardInterrupt):
        with pytest.raises(error), limit:
            raise error
        with pytest.raises(error), limit.acquire():
            raise error
    check_law(limit)


@HOLDING
def test_no_more_than_the_limit_are_ever_inside(row: Row) -> None:
    limit = row.make(3)
    inside, peak, lock = 0, 0, threading.Lock()

    def count(by: int) -> None:
        nonlocal inside, peak
        with lock:
            inside += by
            peak = max(peak, inside)

    def in_threads() -> None:
        for _ in range(100):
            with limit.acquire():
                count(1)
                count(-1)

    def in_a_loop() -> None:
        async def one() -> None:
            with await limit.aacquire():
                count(1)
                await asyncio.sleep(0)
                count(-1)

        async def run() -> None:
            await asyncio.gather(*(one() for _ in range(100)))

        asyncio.run(run())

    threads = [threading.Thread(target=in_threads) for _ in range(4)]
    threads += [threading.Thread(target=in_a_loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= peak <= 3
    stats = check_law(limit)
    assert stats.admitted == 600
    assert stats.peak <= 3
