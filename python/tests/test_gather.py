"""weir.aio: amap, gather, as_completed and TaskGroup, on asyncio's event loop and on uvloop's.

The loop of each test is checked: no task is left in it, and nothing was logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import itertools
import random
import sys
import time
import unittest
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, cast

import pytest
from conftest import output_of

import weir
from weir.aio import TaskGroup, amap, as_completed, gather

Run = Callable[[Coroutine[Any, Any, Any]], Any]

BOUNDS = [
    (1, 0), (1, 1), (3, None), (4, 0), (2, 7), (5, 2),
]  # fmt: skip


async def steps(n: int) -> None:
    """Lets the loop go round n times."""
    for _ in range(n):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.001)


class Source:
    """An iterable of both kinds that knows how far it is ahead of who reads the results."""

    def __init__(self, items: int | None = None) -> None:
        self.items = items
        self.taken = self.read = self.furthest = 0
        self.pulled_by: set[asyncio.Task[Any] | None] = set()
        self.closed_by: list[asyncio.Task[Any] | None] = []

    def take(self) -> int:
        self.pulled_by.add(asyncio.current_task())
        self.taken += 1
        self.furthest = max(self.furthest, self.taken - self.read)
        return self.taken

    def __iter__(self) -> Iterator[int]:
        while self.items is None or self.taken < self.items:
            yield self.take()

    async def __aiter__(self) -> AsyncGenerator[int, None]:
        try:
            while self.items is None or self.taken < self.items:
                await asyncio.sleep(0)
                yield self.take()
        finally:
            await asyncio.sleep(0)
            self.closed_by.append(asyncio.current_task())


class SyncSource:
    """The synchronous side of a Source alone."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __iter__(self) -> Iterator[int]:
        return iter(self.source)


class Work:
    """Calls that know what became of each of them."""

    def __init__(self, *, seed: int = 0, fails: float = 0.0, longest: int = 4) -> None:
        self.random = random.Random(seed)
        self.fails, self.longest = fails, longest
        self.began = self.running = self.peak = 0
        self.done: list[int] = []
        self.failed: list[Exception] = []
        self.cancelled = 0

    async def __call__(self, item: int) -> int:
        self.began += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await steps(self.random.randrange(self.longest))
            if self.random.random() < self.fails:
                raise ValueError(item)
        except asyncio.CancelledError:
            self.cancelled += 1
            await steps(self.random.randrange(2))
            raise
        except ValueError as error:
            self.failed.append(error)
            raise
        finally:
            self.running -= 1
        self.done.append(item)
        return item

    def check(self) -> None:
        assert self.running == 0
        assert self.began == len(self.done) + len(self.failed) + self.cancelled


async def double(item: int) -> int:
    await steps(item % 3)
    return 2 * item


async def forever(item: object = None) -> None:
    await asyncio.get_running_loop().create_future()


# ---- amap: results ----------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_items(in_loop: Run) -> None:
    async def main() -> list[int]:
        return [result async for result in amap(double, range(100), limit=7)]

    assert in_loop(main()) == [2 * item for item in range(100)]


def test_unordered_results_come_as_calls_end(in_loop: Run) -> None:
    async def wait(event: asyncio.Event) -> asyncio.Event:
        await event.wait()
        return event

    async def main() -> None:
        events = [asyncio.Event() for _ in range(3)]
        results = amap(wait, events, limit=3, ordered=False)
        for event in (events[1], events[2], events[0]):
            event.set()
            assert await anext(results) is event
        assert [left async for left in results] == []

    in_loop(main())


def test_iterables_of_both_kinds_go_together_and_the_shortest_ends_it(in_loop: Run) -> None:
    async def add(one: int, two: int, three: str) -> str:
        return f"{one + two}{three}"

    async def main() -> None:
        source = Source()
        got = [r async for r in amap(add, [10, 20, 30], source, "abcdef", limit=2)]
        assert got == ["11a", "22b", "33c"]
        assert len(source.closed_by) == 1

    in_loop(main())


def test_any_function_that_returns_an_awaitable_will_do(in_loop: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def future_of(item: int) -> asyncio.Future[int]:
            future: asyncio.Future[int] = loop.create_future()
            loop.call_soon(future.set_result, item)
            return future

        assert [r async for r in amap(future_of, range(5), limit=2)] == list(range(5))
        in_threads = amap(lambda text: asyncio.to_thread(len, text), ["a", "bc"], limit=2)
        assert [r async for r in in_threads] == [1, 2]
        waits = amap(lambda n: asyncio.sleep(0, n), range(3), limit=2)
        assert [r async for r in waits] == [0, 1, 2]

    in_loop(main())


def test_each_call_has_a_context_of_its_own(in_loop: Run) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=-1)

    async def call(item: int) -> int:
        before = variable.get()
        variable.set(item)
        await asyncio.sleep(0)
        assert variable.get() == item
        return before

    async def main() -> None:
        variable.set(7)
        assert [r async for r in amap(call, range(6), limit=2)] == [7] * 6

    in_loop(main())


def test_one_in_another_works(in_loop: Run) -> None:
    async def row(n: int) -> int:
        return sum([r async for r in amap(double, range(n), limit=2)])

    async def main() -> None:
        outer = amap(row, amap(double, range(10), limit=3), limit=3, ordered=False)
        got = sorted([r async for r in outer])
        assert got == sorted(2 * sum(range(2 * n)) for n in range(10))

    in_loop(main())


# ---- amap: bounds ------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_the_source_is_never_ahead_by_more_than_the_bound(in_loop: Run, ordered: bool) -> None:
    async def once(limit: int, buffersize: int | None, is_async: bool) -> None:
        source, work = Source(100), Work(seed=limit)
        iterable: Any = source if is_async else SyncSource(source)
        how: Any = {"limit": limit, "buffersize": buffersize, "ordered": ordered}
        results, got = amap(work, iterable, **how), []
        assert source.taken == 0, "nothing begins before it is asked for"
        async for result in results:
            source.read += 1
            got.append(result)
            await steps(work.random.randrange(6))
        assert sorted(got) == list(range(1, 101)) and (got == sorted(got) or not ordered)
        assert source.furthest <= limit + (limit if buffersize is None else buffersize)
        assert work.peak <= limit
        work.check()

    async def main() -> None:
        for limit, buffersize in BOUNDS:
            await once(limit, buffersize, True)
            await once(limit, buffersize, False)

    in_loop(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_source_stops_exactly_at_the_bound_when_nobody_reads(
    in_loop: Run, ordered: bool
) -> None:
    async def once(limit: int, buffersize: int | None) -> None:
        bound = limit + (limit if buffersize is None else buffersize)
        source, work = Source(), Work()
        how: Any = {"limit": limit, "buffersize": buffersize, "ordered": ordered}
        async with amap(work, SyncSource(source), **how) as results:
            for _ in range(9):
                await anext(results)
                source.read += 1
                await until(lambda: source.taken == source.read + bound and not work.running)
                await steps(20)
                assert source.taken == source.read + bound
        assert source.furthest == bound
        work.check()

    async def main() -> None:
        for limit, buffersize in BOUNDS:
            await once(limit, buffersize)

    in_loop(main())


def test_a_slow_first_call_does_not_let_ordered_results_pile_up(in_loop: Run) -> None:
    async def main() -> None:
        gate, source = asyncio.Event(), Source()

        async def call(item: int) -> int:
            if item == 1:
                await gate.wait()
            return item

        results = amap(call, SyncSource(source), limit=3, buffersize=4)
        first = asyncio.ensure_future(anext(results))
        await steps(50)
        assert source.taken == 7, "3 at a time, and 4 that wait"
        gate.set()
        assert await first == 1
        await results.aclose()

    in_loop(main())


def test_a_result_that_was_read_is_kept_by_nobody(in_loop: Run) -> None:
    class Thing:
        pass

    async def make(item: int) -> Thing:
        return Thing()

    async def main() -> None:
        async with amap(make, itertools.count(), limit=2) as results:
            kept = weakref.ref(await anext(results))
            await steps(3)
            gc.collect()
            assert kept() is None

    in_loop(main())


def test_a_rate_lets_so_many_begin_in_a_second(in_loop: Run) -> None:
    began: list[float] = []

    async def call(item: int) -> None:
        began.append(time.monotonic())

    async def main() -> None:
        async for _ in amap(call, range(20), limit=20, rate=100):
            pass
        bucket = weir.TokenBucket(1000, burst=50)
        async for _ in amap(call, range(40), limit=7, rate=bucket):
            pass
        assert bucket.stats().granted == 40

    in_loop(main())
    for n, at in enumerate(began[:20]):
        assert at - began[0] >= n / 100 - 0.011  # a call, and 10 ms that may be made up for


def test_one_limiter_bounds_everybody_who_has_it(in_loop: Run) -> None:
    async def main() -> None:
        limiter, work = weir.Limiter(3), Work(seed=1, longest=6)

        async def run(ordered: bool) -> int:
            return len([r async for r in amap(work, range(60), limit=limiter, ordered=ordered)])

        async def group() -> int:
            async with TaskGroup(limiter) as tasks:
                for item in range(60):
                    await tasks.create_task(work(item))
            return 60

        assert sum(await asyncio.gather(run(True), run(False), group())) == 180
        assert work.peak == 3
        assert limiter.in_flight == 0
        assert limiter.stats().admitted == limiter.stats().released == 180
        work.check()

    in_loop(main())


def test_an_adaptive_limit_hears_of_successes_and_drops(in_loop: Run) -> None:
    async def call(item: int) -> int:
        if item == 30:
            raise TimeoutError
        return item

    async def main() -> None:
        limiter = weir.Limiter(weir.AIMD(10))
        how: Any = {"limit": limiter, "return_exceptions": True}
        got = [r async for r in amap(call, range(40), **how)]
        assert len(got) == 40 and isinstance(got[30], TimeoutError)
        assert (limiter.stats().drops, limiter.in_flight) == (1, 0)
        assert limiter.stats().samples == 40

    in_loop(main())


def test_what_a_limiter_raises_is_the_outcome_of_the_call(in_loop: Run) -> None:
    async def main() -> None:
        limiter = weir.Limiter(1)
        permit = limiter.acquire()
        results = amap(double, [1, 2], limit=limiter, return_exceptions=True)
        first = asyncio.ensure_future(anext(results))
        await until(lambda: limiter.stats().waiting == 1)
        limiter.close()
        outcomes = [await first, *[r async for r in results]]
        assert [type(outcome) for outcome in outcomes] == [weir.ShutDown] * 2
        permit.release()

    in_loop(main())


# ---- amap: errors ------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_the_first_exception_cancels_the_rest_waits_for_it_and_is_raised(
    in_loop: Run, ordered: bool
) -> None:
    wrong = ValueError("wrong")
    ended: list[int] = []

    async def call(item: int) -> int:
        try:
            await steps(3)
            if item == 3:
                raise wrong
            await forever()
        finally:
            await steps(5)
            ended.append(item)
        return item

    async def main() -> None:
        source = Source()
        with pytest.raises(ValueError, match="wrong") as caught:
            await anext(amap(call, source, limit=5, ordered=ordered))
        assert caught.value is wrong
        assert sorted(ended) == [1, 2, 3, 4, 5]
        assert source.taken == 5 and len(source.closed_by) == 1

    in_loop(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_results_that_were_ready_can_be_read_before_the_exception(
    in_loop: Run, ordered: bool
) -> None:
    async def call(item: int) -> int:
        await steps(5 * (item == 4))
        if item == 4:
            raise ValueError(item)
        return item

    async def main() -> None:
        got, results = [], amap(call, range(1, 100), limit=3, buffersize=9, ordered=ordered)
        with pytest.raises(ValueError, match="4"):  # noqa: PT012
            async for result in results:
                got.append(result)
                await steps(30)
        assert got[:3] == [1, 2, 3] and 4 not in got
        assert len(got) == len(set(got)) and (not ordered or len(got) == 3)
        with pytest.raises(StopAsyncIteration):
            await anext(results)

    in_loop(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes before 3.11")
def test_an_exception_tells_of_others_that_came_meanwhile(in_loop: Run) -> None:
    async def call(item: int) -> None:
        raise (KeyError, OSError, LookupError)[item]

    async def main() -> None:
        with pytest.raises(KeyError) as caught:
            async for _ in amap(call, range(3), limit=3):
                pass
        note = "weir: 2 more failed before all had ended: OSError(), LookupError()"
        assert cast(Any, caught.value).__notes__ == [note]

    in_loop(main())


def test_an_exception_can_be_a_result(in_loop: Run) -> None:
    async def call(item: int) -> int:
        if item == 1:
            raise ValueError(item)
        if item == 2:
            cast(Any, asyncio.current_task()).cancel()
            await asyncio.sleep(0)
        return item

    async def main() -> None:
        got = [r async for r in amap(call, range(5), limit=2, return_exceptions=True)]
        assert [g if isinstance(g, int) else type(g) for g in got] == [
            0, ValueError, asyncio.CancelledError, 3, 4,
        ]  # fmt: skip
        with pytest.raises(asyncio.CancelledError):
            async for _ in amap(call, [2, 3], limit=2):
                pass

    in_loop(main())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_exception_of_the_source_comes_behind_the_results_before_it(
    in_loop: Run, kind: str
) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the source broke")

    async def async_items() -> AsyncGenerator[int, None]:
        for item in items():
            yield item

    async def main() -> None:
        got, source = [], items() if kind == "sync" else async_items()
        with pytest.raises(OSError, match="the source broke"):  # noqa: PT012
            async for result in amap(double, source, limit=3):
                got.append(result)
        assert got == [0, 2, 4, 6, 8]

    in_loop(main())


def test_an_exception_of_the_reader_ends_the_calls(in_loop: Run) -> None:
    async def main() -> None:
        source, work = Source(), Work(longest=9)
        with pytest.raises(RuntimeError, match="the reader broke"):  # noqa: PT012
            async with amap(work, source, limit=4) as results:
                async for result in results:
                    if result == 10:
                        raise RuntimeError("the reader broke")
        work.check()
        assert len(source.closed_by) == 1

    in_loop(main())


def test_a_function_that_raises_or_returns_at_once_is_a_failed_call(in_loop: Run) -> None:
    def raises(item: int) -> Awaitable[int]:
        raise KeyError(item)

    def stops(item: int) -> Awaitable[int]:
        raise StopIteration

    async def all_of(fn: Callable[[int], Awaitable[int]]) -> list[int]:
        return [r async for r in amap(fn, [5], limit=1)]

    async def main() -> None:
        with pytest.raises(KeyError):
            await all_of(raises)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await all_of(stops)
        with pytest.raises(TypeError, match=r"must return an awaitable, and .*abs.* returned 5"):
            await all_of(cast(Any, abs))

    in_loop(main())


def test_a_timeout_ends_everything(in_loop: Run) -> None:
    async def main() -> None:
        source = Source()
        results = amap(forever, source, limit=2, timeout=0.01)
        with pytest.raises(TimeoutError, match="within the timeout"):
            await anext(results)
        assert source.taken == 2 and len(source.closed_by) == 1
        quick = amap(double, range(3), limit=2, timeout=60)
        assert [r async for r in quick] == [0, 2, 4]

    in_loop(main())


def test_wrong_arguments_are_said_at_once() -> None:
    wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: amap(double, [1], limit=0), ValueError, "'limit' must be from 1 to"),
        (lambda: amap(double, [1], limit=cast(Any, 2.5)), TypeError, "'limit' must be an int"),
        (lambda: amap(double, cast(Any, 5), limit=1), TypeError, "async iterables, not 5"),
        (lambda: amap(double, limit=1), TypeError, "amap needs an iterable"),
        (lambda: amap(cast(Any, 3), [1], limit=1), TypeError, "must be a function, not 3"),
        (lambda: amap(double, [1], limit=1, rate=0), ValueError, "'rate' must be > 0 a second"),
        (lambda: amap(double, [1], limit=1, rate=cast(Any, "9")), TypeError, "'rate' must be a n"),
        (lambda: amap(double, [1], limit=1, buffersize=-1), ValueError, "'buffersize' must be"),
        (lambda: amap(double, [1], limit=1, timeout=-1), ValueError, "'timeout' must be >= 0"),
        (lambda: as_completed(cast(Any, 5), limit=1), TypeError, "as_completed takes iterables"),
        (lambda: TaskGroup(0), ValueError, "'limit' must be from 1 to"),
        (lambda: TaskGroup(1, on_full=cast(Any, "wait")), ValueError, "'on_full' must be"),
    ]
    for call, kind, sentence in wrong:
        with pytest.raises(kind) as caught:
            call()
        assert sentence in str(caught.value)


# ---- amap: the end -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["end", "break", "aclose", "error", "cancel", "timeout"])
def test_an_async_source_is_closed_in_the_task_that_pulled_it(in_loop: Run, how: str) -> None:
    async def read(source: Source) -> None:
        async def call(item: int) -> int:
            if item == 4 and how == "error":
                raise ValueError
            if item == 4 and how in ("cancel", "timeout"):
                await forever()
            return item

        timeout = 0.02 if how == "timeout" else None
        async with amap(call, source, limit=2, timeout=timeout) as results:
            async for result in results:
                if result == 4 and how == "break":
                    break
                if result == 4 and how == "aclose":
                    await results.aclose()

    async def main() -> None:
        source = Source(8 if how == "end" else None)
        reader = asyncio.create_task(read(source))
        if how == "cancel":
            await until(lambda: source.taken >= 4)
            await steps(10)
            reader.cancel()
        errors = {"error": ValueError, "cancel": asyncio.CancelledError, "timeout": TimeoutError}
        with pytest.raises(errors[how]) if how in errors else contextlib.nullcontext():
            await reader
        assert len(source.closed_by) == 1
        assert source.pulled_by == set(source.closed_by)
        assert reader not in source.pulled_by

    in_loop(main())


def test_whoever_cancels_the_reader_twice_still_leaves_nothing_behind(in_loop: Run) -> None:
    async def main() -> None:
        cleaning, gate, ended = asyncio.Event(), asyncio.Event(), False

        async def call(item: int) -> None:
            nonlocal ended
            try:
                await forever()
            finally:
                cleaning.set()
                await gate.wait()
                ended = True

        async def read() -> None:
            async for _ in amap(call, [1], limit=1):
                pass

        reader = asyncio.create_task(read())
        await steps(5)
        for _ in range(3):
            reader.cancel()
            await cleaning.wait()
            await steps(3)
        assert not reader.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert ended

    in_loop(main())


@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_an_iterator_that_was_dropped_is_closed_by_the_loop(in_loop: Run, in_a_cycle: bool) -> None:
    async def main() -> None:
        tasks = asyncio.all_tasks()
        source, work = Source(), Work(longest=50)
        results = amap(work, source, limit=3)
        if in_a_cycle:
            cast(Any, results).itself = results
        async for _ in results:
            break
        del results
        gc.collect()
        await until(lambda: source.closed_by)
        await until(lambda: asyncio.all_tasks() == tasks)
        work.check()

    in_loop(main())


def test_an_iterator_that_waits_when_the_loop_ends_is_closed() -> None:
    source, work, kept = Source(), Work(longest=50), []

    async def main() -> None:
        kept.append(amap(work, source, limit=3))
        await anext(kept[0])

    asyncio.run(main())
    assert len(source.closed_by) == 1
    work.check()


def test_a_program_that_leaves_everything_in_the_middle_ends_silently() -> None:
    said = output_of("""
        import asyncio, itertools
        from weir.aio import amap, as_completed, read_chunks, TaskGroup

        async def call(item):
            await asyncio.sleep(item)
            return item

        async def main():
            left = [
                amap(call, itertools.count(), limit=3),
                as_completed(map(call, itertools.count()), limit=3),
                read_chunks("/dev/zero"),
            ]
            for iterator in left:
                await anext(iterator)
            main.left = left
            raise SystemExit("left")

        try:
            asyncio.run(main())
        except SystemExit as error:
            print(error)
    """)
    assert said == "left\n"


def test_what_a_closed_loop_left_is_forgotten() -> None:
    def leave_a_loop() -> weakref.ref[Any]:
        class Item:
            pass

        async def call(item: Item) -> None:
            await asyncio.sleep(1000)

        async def main(item: Item) -> None:
            await anext(amap(call, [item], limit=1))

        loop, item = asyncio.new_event_loop(), Item()
        loop.set_exception_handler(lambda loop, context: None)  # it complains of what is left
        task = loop.create_task(main(item))
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
        assert not task.done()
        loop.close()
        return weakref.ref(item)

    async def use_another() -> None:
        assert [item async for item in amap(asyncio.sleep, [0], limit=1)] == [None]

    left = leave_a_loop()
    gc.collect()
    assert left() is not None, "who runs is kept, whether or not anybody looks"
    asyncio.run(use_another())
    gc.collect()
    assert left() is None


def test_closing_twice_or_before_the_beginning_does_no_harm(in_loop: Run) -> None:
    async def main() -> None:
        source = Source()
        results = amap(double, source, limit=2)
        await results.aclose()
        await results.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        assert source.taken == 0
        async with amap(double, source, limit=2) as results:
            assert await anext(results) == 2
        await results.aclose()

    in_loop(main())


def test_what_a_source_raises_while_it_is_closed_is_not_lost(in_loop: Run) -> None:
    async def source() -> AsyncGenerator[int, None]:
        try:
            for item in itertools.count():
                yield item
        finally:
            raise OSError("cannot close")

    async def main() -> None:
        results = amap(double, source(), limit=2)
        assert await anext(results) == 0
        with pytest.raises(OSError, match="cannot close"):
            await results.aclose()

    in_loop(main())


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("fails", [0.0, 0.02])
def test_cancelled_at_any_point_nothing_is_lost_or_left(
    in_loop: Run, ordered: bool, fails: float
) -> None:
    async def once(seed: int) -> None:
        rng = random.Random(seed)
        limit, buffersize = rng.randint(1, 5), rng.choice([None, 0, 1, 4])
        limiter = weir.Limiter(limit)
        source, work, got = Source(60), Work(seed=seed, fails=fails), []
        how: Any = {"buffersize": buffersize, "ordered": ordered}

        async def read() -> None:
            iterable: Any = source if seed % 2 else SyncSource(source)
            by: Any = rng.choice([limit, limiter])
            async with amap(work, iterable, limit=by, **how) as results:
                async for result in results:
                    source.read += 1
                    got.append(result)
                    await steps(rng.randrange(3))

        reader = asyncio.create_task(read())
        await steps(rng.randrange(150))
        reader.cancel()
        (outcome,) = await asyncio.gather(reader, return_exceptions=True)
        work.check()
        assert source.furthest <= limit + (limit if buffersize is None else buffersize)
        assert work.peak <= limit and limiter.in_flight == 0
        assert source.taken - work.began <= limit + 1  # cancelled before their first step
        assert len(set(got)) == len(got) and set(got) <= set(work.done)
        if ordered:
            assert got == list(range(1, len(got) + 1))
        if outcome is None:
            assert len(got) == 60
        elif isinstance(outcome, ValueError):
            assert outcome in work.failed
        else:
            assert isinstance(outcome, asyncio.CancelledError)
        assert asyncio.all_tasks() <= {asyncio.current_task(), *here}

    async def main() -> None:
        here.update(asyncio.all_tasks())
        for seed in range(150):
            await once(seed)

    here: set[asyncio.Task[Any]] = set()
    in_loop(main())


# ---- gather -------------------------------------------------------------------------------------


def test_gather_gives_results_in_order_and_runs_no_more_than_its_limit(in_loop: Run) -> None:
    async def main() -> None:
        work = Work(seed=3)
        assert await gather(*(work(n) for n in range(50)), limit=4) == list(range(50))
        assert work.peak == 4
        assert await gather((work(n) for n in range(50)), limit=4) == list(range(50))
        assert await gather([work(1)], limit=4) == [1]
        assert await gather(work(1), limit=4) == [1]
        assert await gather(limit=1) == await gather([], limit=1) == []
        assert work.peak == 4
        work.check()

    in_loop(main())


def test_gather_pulls_an_iterable_as_there_is_room(in_loop: Run) -> None:
    async def main() -> None:
        source, work = Source(40), Work(seed=4)

        def coroutines() -> Iterator[Awaitable[int]]:
            for item in source:
                assert source.taken - len(work.done) <= 3
                yield work(item)

        assert await gather(coroutines(), limit=3) == list(range(1, 41))

        async def asynchronous() -> AsyncGenerator[Awaitable[int], None]:
            for awaitable in (work(1), asyncio.ensure_future(work(2))):
                yield awaitable

        assert await gather(asynchronous(), limit=3) == [1, 2]

    in_loop(main())


def test_gather_takes_futures_and_objects_with_await(in_loop: Run) -> None:
    class Later:
        def __await__(self) -> Any:
            return double(3).__await__()

    async def main() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(double(1))
        asyncio.get_running_loop().call_soon(future.set_result, 5)
        assert await gather(task, future, future, Later(), limit=2) == [2, 5, 5, 6]
        with pytest.raises(TypeError, match="gather takes awaitables, not 3"):
            await gather(double(1), cast(Any, 3), double(2), limit=1)

    in_loop(main())


def test_a_failure_closes_what_never_began_and_cancels_what_was_given(
    in_loop: Run, unraisable: list[Any]
) -> None:
    async def fail() -> int:
        await asyncio.sleep(0)
        raise ValueError("failed")

    async def main() -> None:
        ended = []

        async def slow() -> int:
            try:
                await forever()
            finally:
                await steps(3)
                ended.append(True)
            return 0

        given = asyncio.create_task(slow())
        never = [double(n) for n in range(20)]
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="failed"):
            await gather(slow(), fail(), *never, given, limit=2)
        assert given.cancelled() and ended == [True, True]
        for coroutine in never:
            with pytest.raises(RuntimeError, match="cannot reuse"):
                await coroutine

    in_loop(main())
    gc.collect()
    assert unraisable == []


def test_a_failure_leaves_the_rest_of_a_lazy_iterable_alone(in_loop: Run) -> None:
    async def main() -> None:
        numbers = iter(range(1000))

        async def fail_at_10(n: int) -> int:
            if n == 10:
                raise ValueError(n)
            return n

        with pytest.raises(ValueError, match="10"):
            await gather((fail_at_10(n) for n in numbers), limit=2)
        assert next(numbers) < 20

    in_loop(main())


def test_bad_arguments_close_the_coroutines(in_loop: Run, unraisable: list[Any]) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="'limit' must be from 1"):
            await gather(double(1), double(2), limit=0)
        with pytest.raises(TypeError, match="gather takes iterables and async iterables, not 5"):
            await gather(cast(Any, 5), limit=1)
        with pytest.raises(ValueError, match="'timeout' must be >= 0"):
            as_completed([double(1)], limit=1, timeout=-1)
        await as_completed([double(1)], limit=1).aclose()

    in_loop(main())
    gc.collect()
    assert unraisable == []


def test_gather_can_return_exceptions(in_loop: Run) -> None:
    async def main() -> None:
        work = Work(seed=5, fails=0.3)
        got = await gather(map(work, range(60)), limit=5, return_exceptions=True)
        assert [g for g in got if isinstance(g, int)] == sorted(work.done)
        assert len(work.failed) == 60 - len(work.done) > 0
        work.check()

    in_loop(main())


def test_gather_cancelled_at_any_point_leaves_nothing(in_loop: Run, unraisable: list[Any]) -> None:
    async def once(seed: int) -> None:
        rng = random.Random(seed)
        limiter = weir.Limiter(rng.randint(1, 6))
        work = Work(seed=seed, fails=rng.choice([0, 0.05]))
        awaitables = [work(n) for n in range(40)]
        if rng.random() < 0.5:
            awaitables.insert(rng.randrange(40), cast(Any, asyncio.create_task(work(99))))
        gathering = asyncio.create_task(gather(*awaitables, limit=limiter))
        await steps(rng.randrange(1, 60))
        gathering.cancel()
        await asyncio.wait([gathering])
        assert gathering.cancelled() or gathering.exception() or len(gathering.result()) >= 40
        assert limiter.in_flight == 0
        assert work.peak <= limiter.limit + 1  # and the task that ran already
        work.check()

    async def main() -> None:
        for seed in range(100):
            await once(seed)

    in_loop(main())
    gc.collect()
    assert unraisable == []


# ---- as_completed -------------------------------------------------------------------------------


def test_as_completed_gives_futures_that_are_done_as_they_end(in_loop: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        given: list[asyncio.Future[int]] = [loop.create_future() for _ in range(3)]
        results = as_completed(given, limit=3)
        for n in (2, 0, 1):
            given[n].set_result(n)
            future = await anext(results)
            assert future is given[n] and await future == n
        assert [left async for left in results] == []

    in_loop(main())


def test_as_completed_leaves_failures_to_whoever_awaits_them(in_loop: Run) -> None:
    async def main() -> None:
        work, got, failed = Work(seed=6, fails=0.2), [], []
        async for future in as_completed(map(work, range(50)), limit=4):
            assert future.done() and isinstance(future, asyncio.Task)
            try:
                got.append(await future)
            except ValueError as error:
                failed.append(error)
        assert got == work.done and failed == work.failed and len(got) + len(failed) == 50
        assert work.peak == 4

    in_loop(main())


def test_as_completed_holds_no_more_than_its_bound(in_loop: Run) -> None:
    async def main() -> None:
        source, work = Source(), Work()
        async with as_completed(map(work, source), limit=3) as results:
            for _ in range(9):
                await anext(results)
                source.read += 1
                await until(lambda: source.taken == source.read + 6 and not work.running)
        assert source.furthest == 6
        work.check()

    in_loop(main())


def test_leaving_as_completed_early_lets_go_of_the_rest(
    in_loop: Run, unraisable: list[Any]
) -> None:
    async def main() -> None:
        given = asyncio.create_task(forever())
        async with as_completed([double(1), *map(double, range(9)), given], limit=2) as results:
            async for future in results:
                assert await future == 2 or await future == 0
                break
        assert given.cancelled()
        with pytest.raises(TimeoutError, match="within the timeout"):
            async for _ in as_completed([forever(), forever(), forever()], limit=2, timeout=0.01):
                pass

    in_loop(main())
    gc.collect()
    assert unraisable == []


# ---- TaskGroup ----------------------------------------------------------------------------------


class Group(contextlib.AbstractContextManager["Group"]):
    """Expects the error of one task, in a group where Python has them."""

    def __init__(self, kind: type[BaseException], *, of: int = 1) -> None:
        self.kind, self.of = kind, of

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        assert error is not None, "nothing was raised"
        if sys.version_info >= (3, 11) and isinstance(error, BaseExceptionGroup):  # noqa: F821
            assert len(error.exceptions) == self.of
            error = error.exceptions[0]
        return isinstance(error, self.kind)


def test_create_task_waits_while_as_many_run_as_may(in_loop: Run) -> None:
    async def main() -> None:
        work = Work(seed=7)
        async with TaskGroup(4) as group:
            tasks = [await group.create_task(work(n), name=f"task {n}") for n in range(50)]
            assert "of 4 tasks" in repr(group)
        assert [task.result() for task in tasks] == list(range(50))
        assert tasks[7].get_name() == "task 7"
        assert work.peak == 4 and "ended" in repr(group)
        work.check()

    in_loop(main())


def test_whoever_waits_for_a_place_gets_it_in_order(in_loop: Run) -> None:
    async def main() -> None:
        order: list[int] = []
        gate = asyncio.Event()

        async def work(n: int) -> None:
            order.append(n)
            await gate.wait()

        async with TaskGroup(1) as group:
            await group.create_task(work(0))
            creating = []
            for n in range(1, 8):
                creating.append(asyncio.create_task(group.create_task(work(n))))
                await asyncio.sleep(0)
            await steps(5)
            late = work(8)
            assert group.try_create_task(late) is None, "nobody overtakes"
            gate.set()
            await asyncio.gather(*creating)
        assert order == list(range(8))

    in_loop(main())


def test_a_full_group_can_refuse(in_loop: Run, unraisable: list[Any]) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        async with TaskGroup(2, on_full="fail") as group:
            for _ in range(2):
                await group.create_task(gate.wait())
            refused = double(1)
            with pytest.raises(
                weir.BacklogFull, match="the task group is full: its limit of 2 is reached"
            ):
                await group.create_task(refused)
            assert group.try_create_task(double(2)) is None
            with pytest.raises(RuntimeError, match="cannot reuse"):
                await refused
            gate.set()
            await steps(3)
            task = group.try_create_task(double(2))
            assert task is not None and await task == 4

    in_loop(main())
    gc.collect()
    assert unraisable == []


def test_a_failure_cancels_tasks_block_and_all_who_wait(
    in_loop: Run, unraisable: list[Any]
) -> None:
    async def main() -> None:
        reached = []
        outsiders: list[asyncio.Task[Any]] = []

        async def fail() -> None:
            await steps(20)
            raise ValueError

        async def creates(group: TaskGroup) -> None:
            try:
                await group.create_task(double(1))
            finally:
                reached.append("a task of the group")

        with Group(ValueError):
            async with TaskGroup(3) as group:
                await group.create_task(fail())
                await group.create_task(forever())
                await group.create_task(creates(group))
                outsiders += [asyncio.create_task(group.create_task(double(2))) for _ in range(2)]
                try:
                    await group.create_task(double(3))
                finally:
                    reached.append("the block")
        assert sorted(reached) == ["a task of the group", "the block"]
        for outsider in outsiders:
            with pytest.raises(RuntimeError, match="is shutting down"):
                await outsider
        with pytest.raises(RuntimeError, match="is finished"):
            await group.create_task(double(4))
        await asyncio.sleep(0)  # the block was not cancelled from outside, so it can go on

    in_loop(main())
    gc.collect()
    assert unraisable == []


def test_exceptions_come_together_and_the_first_alone_where_there_are_no_groups(
    in_loop: Run,
) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def main() -> None:
        with Group(KeyError, of=2):
            async with TaskGroup(5) as group:
                await group.create_task(fail(KeyError()))
                await group.create_task(fail(OSError()))
        with Group(ZeroDivisionError):
            async with TaskGroup(5) as group:
                await group.create_task(forever())
                raise ZeroDivisionError

    in_loop(main())


def test_the_block_waits_for_those_who_still_wait_for_a_place(in_loop: Run) -> None:
    async def main() -> None:
        done = []

        async def work(n: int) -> None:
            await steps(3)
            done.append(n)

        async with TaskGroup(1) as group:
            await group.create_task(work(0))
            creating = [asyncio.create_task(group.create_task(work(n))) for n in range(1, 5)]
            await asyncio.sleep(0)
        assert done == [0, 1, 2, 3, 4]
        assert all(task.done() for task in creating)

    in_loop(main())


def test_cancelling_a_create_task_that_waits_costs_no_place(
    in_loop: Run, unraisable: list[Any]
) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        limiter = weir.Limiter(1)
        async with TaskGroup(limiter) as group:
            await group.create_task(gate.wait())
            for at in range(1, 9):
                creating = asyncio.create_task(group.create_task(double(1)))
                await steps(at)
                creating.cancel()
                await asyncio.wait([creating])
                assert creating.cancelled()
            gate.set()
            assert await (await group.create_task(double(4))) == 8
        assert limiter.in_flight == 0 and limiter.stats().waiting == 0

    in_loop(main())
    gc.collect()
    assert unraisable == []


def test_a_group_is_used_inside_its_block_only(in_loop: Run, unraisable: list[Any]) -> None:
    async def main() -> None:
        group = TaskGroup(1)
        with pytest.raises(RuntimeError, match="has not been entered"):
            await group.create_task(double(1))
        async with group:
            with pytest.raises(TypeError, match="made of a coroutine, not of 5"):
                await group.create_task(cast(Any, 5))
        with pytest.raises(RuntimeError, match="has already been entered"):
            async with group:
                pass
        with pytest.raises(RuntimeError, match="is finished"):
            group.try_create_task(double(1))

    in_loop(main())
    gc.collect()
    assert unraisable == []


def test_a_group_cancelled_at_any_point_leaves_nothing(in_loop: Run, unraisable: list[Any]) -> None:
    async def once(seed: int) -> None:
        rng = random.Random(seed)
        limiter = weir.Limiter(rng.randint(1, 4))
        work, created = Work(seed=seed, fails=rng.choice([0, 0.03])), 0

        async def run() -> None:
            nonlocal created
            async with TaskGroup(limiter) as group:
                for n in range(40):
                    await group.create_task(work(n))
                    created += 1

        running = asyncio.create_task(run())
        await steps(rng.randrange(80))
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled() or running.exception() is not None or created == 40
        assert limiter.in_flight == 0 and limiter.stats().waiting == 0
        assert work.peak <= limiter.limit
        assert created - limiter.limit <= work.began <= created
        work.check()

    async def main() -> None:
        for seed in range(100):
            await once(seed)

    in_loop(main())
    gc.collect()
    assert unraisable == []


@pytest.mark.slow
def test_cpython_finds_its_own_task_group_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tests of asyncio.TaskGroup, whose create_task is no coroutine: no limit to meet."""
    tests = pytest.importorskip("test.test_asyncio.test_taskgroups", reason="CPython's tests")

    class Wide(TaskGroup):
        def __init__(self) -> None:
            super().__init__(1_000_000)

        create_task = TaskGroup.try_create_task  # type: ignore[assignment]

    monkeypatch.setattr(asyncio, "TaskGroup", Wide)
    monkeypatch.setattr(tests.taskgroups, "TaskGroup", Wide)
    suite = unittest.TestSuite()
    for case in _cases(unittest.defaultTestLoader.loadTestsFromModule(tests)):
        if case.id().rpartition(".")[2] not in NOT_AS_THERE:
            suite.addTest(case)
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun >= 25
    assert [trace for _, trace in (*result.failures, *result.errors)] == []


# Until 3.11 a coroutine that was refused was not closed.
NOT_AS_THERE = (
    ("test_taskgroup_no_create_task_after_failure",) if sys.version_info < (3, 12) else ()
)


def _cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _cases(test)
        else:
            yield test
