"""weir.Flow in an event loop: time, several sources at once, cancellation, and several readers.

The loop of each test is checked: no task is left in it, and nothing was logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import random
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing, closing
from typing import Any

import pytest
from conftest import InThread, wait_until
from flow_sources import Counted, aenumerated

import weir
from weir import Flow
from weir import _flow_tee as flow_tee

# WEIR_STORM=10000 for a long one.
FLOWS = int(os.environ.get("WEIR_STORM", "150"))

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def same(item: Any) -> Any:
    await asyncio.sleep(0)
    return item


async def steps(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def pause(seconds: float, *items: Any) -> AsyncGenerator[Any, None]:
    """The items, and then nothing for so long."""
    for item in items:
        yield item
    await asyncio.sleep(seconds)


# One of each operator, such that it gives items over any number of them.
OPERATORS: dict[str, Callable[[Flow[int]], Flow[Any]]] = {
    "nothing": lambda flow: flow,
    "map": lambda flow: flow.map(same).filter(lambda n: True).drop(1),
    "flat_map": lambda flow: flow.flat_map(lambda n: [n, n]),
    "flat_map at a time": lambda flow: flow.flat_map(
        lambda n: aenumerated([n, n]), concurrency=3
    ),
    "buffer": lambda flow: flow.buffer(2),
    "buffer time": lambda flow: flow.buffer(2, time=0.001),
    "window": lambda flow: flow.window(2),
    "window time": lambda flow: flow.window(time=0.001),
    "concat": lambda flow: flow.concat([1]),
    "merge": lambda flow: flow.merge(aenumerated([1, 2, 3])),
    "zip": lambda flow: flow.zip(itertools.count()),
    "timeout": lambda flow: flow.timeout(30),
    "debounce": lambda flow: flow.debounce(0.0001),
    "sample": lambda flow: flow.sample(0.0001),
    "throttle": lambda flow: flow.throttle(10_000),
    "catch": lambda flow: flow.catch(lambda error: []),
    "retry": lambda flow: flow.retry(weir.Retry(2, on=ValueError, backoff=(0.001, 0.001))),
    "tee": lambda flow: flow.tee(1)[0],
    "par_map": lambda flow: flow.par_map(same, 3, kind="async"),
    "par_map as they end": lambda flow: flow.par_map(same, 3, kind="async", ordered=False),
    "par_map threads": lambda flow: flow.par_map(lambda n: n, 2),
    "all": lambda flow: (
        flow.map(same).merge([1]).buffer(3, time=0.001).flat_map(lambda b: b, concurrency=2)
        .par_map(same, 2, kind="async").timeout(30).tee(1)[0].sample(0.0001)
    ),
}  # fmt: skip
every = pytest.mark.parametrize("operator", OPERATORS)
asyncio_alone = pytest.mark.parametrize("in_loop", ["asyncio"], indirect=True)


# ---- closing -----------------------------------------------------------------------------------


@every
def test_a_reader_that_leaves_closes_the_source_once_in_the_task_that_opened_it(
    in_loop: Run, operator: str
) -> None:
    def fail(item: object) -> None:
        raise OSError("the reader")

    async def main() -> None:
        for read in range(3):
            counted = Counted(step=0.001 if operator == "debounce" else None)
            async with aclosing(aiter(OPERATORS[operator](Flow(counted.aio())))) as items:
                for _ in range(read):
                    await anext(items)
            pulled = counted.pulled
            await steps(5)
            assert counted.pulled == pulled
            assert counted.opened == (1 if read else 0)
            counted.check_closed_where_it_was_opened()
        counted = Counted(step=0.001 if operator == "debounce" else None)
        with pytest.raises(OSError, match="the reader"):
            await OPERATORS[operator](Flow(counted.aio())).afor_each(fail)
        counted.check_closed_where_it_was_opened()

    in_loop(main())


@every
def test_a_reader_that_is_cancelled_at_any_await_leaves_nothing_behind(
    in_loop: Run, operator: str
) -> None:
    async def read(flow: Flow[Any]) -> None:
        async with aclosing(aiter(flow)) as items:
            async for _ in items:
                await asyncio.sleep(0)

    async def main() -> None:
        tasks = asyncio.all_tasks()
        for n in range(25):
            counted = Counted(step=0.0002 if operator == "debounce" else None)
            task = asyncio.create_task(read(OPERATORS[operator](Flow(counted.aio()))))
            await steps(n)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            counted.check_closed_where_it_was_opened()
            assert asyncio.all_tasks() == tasks

    in_loop(main())


@every
@asyncio_alone
def test_an_iterator_that_is_dropped_is_closed_by_the_loop(in_loop: Run, operator: str) -> None:
    counted = Counted(step=0.001 if operator == "debounce" else None)

    async def main() -> None:
        tasks = asyncio.all_tasks()
        async for _ in OPERATORS[operator](Flow(counted.aio())):
            break
        gc.collect()
        deadline = time.monotonic() + 20
        while not counted.closed or asyncio.all_tasks() != tasks:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)

    in_loop(main())
    counted.check_closed_once()


@every
@asyncio_alone
def test_an_exception_of_the_source_is_raised_and_closes_everything(
    in_loop: Run, operator: str
) -> None:
    counted = Counted(fails_at=5, step=0.001 if operator == "debounce" else None)
    flow = OPERATORS[operator](Flow(counted.aio()))

    async def main() -> None:
        if operator == "catch":
            assert await flow.ato_list() == list(range(5))
            return
        items = aiter(flow)
        with pytest.raises(ValueError, match="5"):
            async for _ in items:
                pass
        assert await anext(items, None) is None

    in_loop(main())
    counted.check_closed_where_it_was_opened()
    assert counted.pulled == 5 * counted.opened


def test_a_source_that_does_not_mind_being_cancelled_is_closed_all_the_same(in_loop: Run) -> None:
    closed: list[int] = []

    async def stubborn() -> AsyncGenerator[int, None]:
        try:
            for n in itertools.count():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(30 if n else 0)
                yield n
        finally:
            closed.append(1)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await Flow(stubborn()).timeout(0.01).ato_list()
        assert closed == [1]

    in_loop(main())


def test_an_exception_of_a_source_that_is_closed_is_raised(in_loop: Run) -> None:
    async def source() -> AsyncGenerator[int, None]:
        try:
            for n in itertools.count():
                await asyncio.sleep(0)
                yield n
        finally:
            raise OSError("on the way out")

    async def main() -> None:
        for flow in (Flow(source()), Flow(source()).merge([]), Flow(source()).buffer(2, time=1)):
            items = aiter(flow)
            await anext(items)
            with pytest.raises(OSError, match="on the way out"):
                await items.aclose()

    in_loop(main())


def test_the_cleaning_up_of_a_source_is_not_interrupted_by_a_second_cancel(in_loop: Run) -> None:
    cleaned: list[int] = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            while True:
                await asyncio.sleep(0)
                yield 1
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(1)

    async def main() -> None:
        task = asyncio.create_task(Flow(source()).timeout(5).acount())
        await steps(10)
        for _ in range(3):
            task.cancel()
            await steps(3)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned == [1]

    in_loop(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task does not tell that it is cancelled")
def test_the_end_of_a_loop_does_not_interrupt_the_cleaning_up_of_a_source() -> None:
    cleaned: list[int] = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            await asyncio.sleep(30)
            yield 1
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(1)

    async def main() -> None:
        for flow in (
            Flow(source()).timeout(50),
            Flow(source()).merge([]),
            Flow(source()).tee(1)[0],
        ):
            asyncio.create_task(flow.acount())  # noqa: RUF006
        await steps(10)

    asyncio.run(main())  # which cancels reader and pump at once
    assert cleaned == [1] * 3


# ---- several at once ---------------------------------------------------------------------------


def test_a_merge_is_at_most_one_item_ahead_in_each_source(in_loop: Run) -> None:
    sources = [Counted(30) for _ in range(4)]

    async def main() -> None:
        first, *others = (Flow(source.aio()) for source in sources)
        read = 0
        async for _ in first.merge(*others):
            read += 1
            await steps(5)
            assert sum(source.pulled for source in sources) <= read + 4
        assert read == 120

    in_loop(main())
    for source in sources:
        source.check_closed_where_it_was_opened()


def test_a_merge_gives_what_is_ready_and_does_not_wait_for_what_is_not(in_loop: Run) -> None:
    async def main() -> None:
        merged = Flow(pause(30, 1)).merge([2, 3])
        assert sorted(await merged.take(3).ato_list()) == [1, 2, 3]

    in_loop(main())


def test_an_exception_in_a_merge_comes_behind_the_items_before_it(in_loop: Run) -> None:
    sources = [Counted(fails_at=2), Counted()]

    async def main() -> None:
        got: list[int] = []
        with pytest.raises(ValueError, match="2"):
            await Flow(sources[0].aio()).merge(sources[1].aio()).afor_each(got.append)
        assert {0, 1} <= set(got)

    in_loop(main())
    for source in sources:
        source.check_closed_where_it_was_opened()


def test_a_flat_map_reads_so_many_inner_streams_at_a_time(in_loop: Run) -> None:
    is_open = peak = 0

    async def inner(n: int) -> AsyncGenerator[int, None]:
        nonlocal is_open, peak
        is_open += 1
        peak = max(peak, is_open)
        try:
            for _ in range(3):
                await steps(2)
                yield n
        finally:
            is_open -= 1

    async def main() -> None:
        outer = Counted(20)
        flow = Flow(outer.aio()).flat_map(inner, concurrency=4)
        assert sorted(await flow.ato_list()) == sorted(list(range(20)) * 3)
        assert outer.closed == 1

    in_loop(main())
    assert (is_open, peak) == (0, 4)


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_a_parallel_map_is_never_further_ahead_than_its_workers(in_loop: Run, kind: Any) -> None:
    counted = Counted(40)
    fn: Any = same if kind == "async" else lambda n: n

    async def main() -> None:
        for ordered in (True, False):
            flow = Flow(counted.aio()).par_map(fn, 3, kind=kind, ordered=ordered)
            await flow.map(counted.see).afor_each(lambda _: steps(8))
            assert counted.furthest <= 3
        assert counted.read == counted.pulled == 2 * 40

    in_loop(main())
    counted.check_closed_where_it_was_opened()


def test_a_parallel_map_takes_a_limiter(in_loop: Run) -> None:
    limiter = weir.Limiter(2)

    async def main() -> None:
        assert await Flow(range(9)).par_map(same, limiter, kind="async").acount() == 9
        assert limiter.in_flight == 0

    in_loop(main())


# ---- time --------------------------------------------------------------------------------------


def test_a_buffer_comes_out_when_its_time_has_come(in_loop: Run) -> None:
    async def source() -> AsyncGenerator[int, None]:
        for n in (1, 2):
            yield n
        await asyncio.sleep(0.05)
        yield 3
        await asyncio.sleep(30)

    async def main() -> None:
        items = aiter(Flow(source()).buffer(100, time=0.01))
        assert [await anext(items), await anext(items)] == [[1, 2], [3]]
        await items.aclose()
        assert await Flow(range(5)).buffer(2, time=30).ato_list() == [[0, 1], [2, 3], [4]]

    in_loop(main())


def test_a_window_ends_when_its_time_has_come_and_loses_nothing(in_loop: Run) -> None:
    counted = Counted(30, step=0.001)

    async def main() -> None:
        windows: list[list[int]] = []
        async for window in Flow(counted.aio()).window(10, time=0.006):
            windows.append(await window.ato_list())
        assert list(itertools.chain(*windows)) == list(range(30))
        assert all(1 <= len(window) <= 10 for window in windows) and len(windows) >= 3
        quiet = aiter(Flow(pause(30, 1, 2)).window(time=0.01))
        assert await (await anext(quiet)).ato_list() == [1, 2]
        await quiet.aclose()

    in_loop(main())
    counted.check_closed_where_it_was_opened()


def test_a_failing_source_fails_a_timed_window_and_what_is_behind_it(in_loop: Run) -> None:
    async def main() -> None:
        windows = aiter(Flow(Counted(fails_at=1).aio()).window(time=30))
        window = await anext(windows)
        with pytest.raises(ValueError, match="1"):
            await window.ato_list()
        with pytest.raises(ValueError, match="1"):
            await anext(windows)

    in_loop(main())


def test_a_timeout_is_counted_from_when_an_item_was_asked_for(in_loop: Run) -> None:
    async def main() -> None:
        got: list[int] = []

        async def see(item: int) -> None:
            got.append(item)
            await asyncio.sleep(0.03)  # the reader may take its time

        with pytest.raises(TimeoutError, match=r"no item came within the 0\.02 s"):
            await Flow(pause(30, 1, 2)).timeout(0.02).afor_each(see)
        assert got == [1, 2]

    in_loop(main())


def test_debounce_gives_an_item_once_it_was_quiet_and_tells_of_the_others(in_loop: Run) -> None:
    dropped: list[tuple[int, str]] = []

    async def source() -> AsyncGenerator[int, None]:
        for n in range(5):
            yield n
        await asyncio.sleep(0.1)
        for n in range(5, 9):
            yield n

    async def main() -> None:
        flow = Flow(source()).debounce(0.02, on_drop=lambda n, why: dropped.append((n, why)))
        got = await flow.ato_list()
        assert got == [4, 8]
        assert dropped == [(n, "oldest") for n in (0, 1, 2, 3, 5, 6, 7)]

    in_loop(main())


def test_sample_gives_the_newest_item_and_accounts_for_every_other(in_loop: Run) -> None:
    counted, dropped = Counted(200, step=0.0005), list[int]()

    async def main() -> None:
        began, got = time.monotonic(), list[int]()
        flow = Flow(counted.aio()).sample(0.02, on_drop=lambda n, why: dropped.append(n))
        async for item in flow:
            got.append(item)
        assert len(got) <= 2 + (time.monotonic() - began) / 0.02
        assert got[-1] == 199 and got == sorted(got)
        assert sorted(got + dropped) == list(range(200))

    in_loop(main())


def test_what_sample_holds_when_it_is_closed_is_told(in_loop: Run) -> None:
    told: list[tuple[int, str]] = []

    async def main() -> None:
        flow = Flow(pause(30, 1)).sample(20, on_drop=lambda n, why: told.append((n, why)))
        task = asyncio.create_task(flow.ato_list())
        await steps(10)
        task.cancel()
        await asyncio.wait([task])

    in_loop(main())
    assert told == [(1, "discarded")]


def test_sample_of_a_source_that_is_always_ready_leaves_others_their_turn(in_loop: Run) -> None:
    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        assert await Flow(itertools.count()).sample(0.01).take(2).acount() == 2
        assert turns > 10
        task.cancel()
        await asyncio.wait([task])

    in_loop(main())


# ---- tee ---------------------------------------------------------------------------------------


def test_a_slow_branch_holds_back_the_others_and_nobody_is_ahead_of_the_buffer(
    in_loop: Run,
) -> None:
    counted = Counted(30)
    at = [0, 0]

    async def read(which: int, branch: Flow[int], pause: int) -> None:
        async for item in branch:
            assert item == at[which]
            at[which] += 1
            assert counted.pulled <= min(at) + 3  # the buffer, and the one that is asked for
            await steps(pause)

    async def main() -> None:
        fast, slow = Flow(counted.aio()).tee(2, buffer=2)
        await asyncio.gather(read(0, fast, 0), read(1, slow, 7))

    in_loop(main())
    assert at == [30, 30]
    counted.check_closed_where_it_was_opened()


def test_a_branch_that_is_closed_or_dropped_or_cancelled_holds_back_nobody(in_loop: Run) -> None:
    counted = Counted(50)

    async def main() -> None:
        left, cancelled, dropped, read = Flow(counted.aio()).tee(4)
        del dropped
        task = asyncio.create_task(cancelled.afor_each(lambda _: asyncio.sleep(30)))
        readers = asyncio.gather(left.take(3).ato_list(), read.ato_list())
        await steps(50)
        assert 1 <= counted.pulled <= 3  # one task of three sleeps over its first item
        task.cancel()
        await asyncio.wait([task])
        assert list(await readers) == [[0, 1, 2], list(range(50))]
        assert counted.closed == 1

    in_loop(main())
    counted.check_closed_where_it_was_opened()


def test_a_branch_that_is_dropped_while_another_waits_for_it_lets_it_go_on(in_loop: Run) -> None:
    async def main() -> None:
        read, dropped = Flow(range(50)).tee(2)
        task = asyncio.create_task(read.acount())
        await steps(20)
        assert not task.done()
        del dropped
        gc.collect()
        assert await asyncio.wait_for(task, 20) == 50

    in_loop(main())


def test_an_exception_reaches_every_branch_behind_the_items_before_it(in_loop: Run) -> None:
    counted = Counted(fails_at=3)

    async def read(branch: Flow[int]) -> list[int]:
        got: list[int] = []
        with pytest.raises(ValueError, match="3"):
            await branch.afor_each(got.append)
        return got

    async def main() -> None:
        got = await asyncio.gather(*map(read, Flow(counted.aio()).tee(3)))
        assert list(got) == [[0, 1, 2]] * 3

    in_loop(main())
    counted.check_closed_where_it_was_opened()


def test_a_branch_that_would_wait_for_its_own_reader_says_so(in_loop: Run) -> None:
    async def main() -> None:
        one, two = (aiter(branch) for branch in Flow(range(9)).tee(2))
        assert (await anext(one), await anext(two), await anext(one)) == (0, 0, 1)
        with pytest.raises(RuntimeError, match=r"branch 0 .* would wait for ever .* in branch 1"):
            await anext(one)
        assert [item async for item in two] == list(range(1, 9))

    in_loop(main())


def test_threads_share_a_tee(unraisable: list[Any]) -> None:
    counted = Counted(200)
    branches = Flow(counted.sync()).tee(3, buffer=2)
    readers = [InThread(branch.to_list) for branch in branches]
    assert [reader.result() for reader in readers] == [list(range(200))] * 3
    counted.check_closed_once()
    assert counted.opened == 1 and counted.pulled == 200
    assert unraisable == []


def test_a_thread_that_leaves_its_branch_holds_back_nobody() -> None:
    counted = Counted(100)
    one, two, three = Flow(counted.sync()).tee(3)
    leaving, reading = InThread(two.take(5).to_list), InThread(one.to_list)
    del two
    wait_until(lambda: counted.pulled >= 1)
    del three
    assert leaving.result() == list(range(5))
    assert reading.result() == list(range(100))
    counted.check_closed_once()


@pytest.mark.parametrize("seed", range(40))
def test_threads_that_leave_at_random_hold_back_nobody_and_see_the_same_items(seed: int) -> None:
    fate = random.Random(seed)
    counted = Counted(fate.randrange(200), fails_at=fate.choice([None, fate.randrange(200)]))
    flows = Flow(counted.sync()).tee(fate.randrange(1, 7), buffer=fate.randrange(1, 4))
    kept = flows[: fate.randrange(1, len(flows) + 1)]
    del flows  # some have no reader
    lengths = [fate.choice([None, fate.randrange(60)]) for _ in kept]

    def read(flow: Flow[int], length: int | None) -> list[int]:
        got: list[int] = []
        with contextlib.suppress(ValueError):
            (flow if length is None else flow.take(length)).for_each(got.append)
        return got

    readers = list(map(InThread, itertools.repeat(read), kept, lengths))
    there = counted.items if counted.fails_at is None else min(counted.items, counted.fails_at)
    for reader, length in zip(readers, lengths, strict=True):
        expected = there if length is None else min(length, there)
        assert reader.result() == list(range(expected))
    del readers, kept  # take(0) has not begun
    counted.check_closed_once()


def test_an_exception_reaches_every_thread() -> None:
    def read(branch: Flow[int]) -> list[int]:
        got: list[int] = []
        with pytest.raises(ValueError, match="3"):
            branch.for_each(got.append)
        return got

    branches = Flow(Counted(fails_at=3).sync()).tee(3)
    readers = [InThread(read, branch) for branch in branches]
    assert [reader.result() for reader in readers] == [[0, 1, 2]] * 3


def test_a_thread_that_would_wait_for_itself_says_so() -> None:
    with closing(iter(Flow(range(9)).tee(2)[0])) as alone:
        assert list(alone) == list(range(9))  # the other one was dropped
    one, two = (iter(branch) for branch in Flow(range(9)).tee(2))
    assert (next(one), next(two), next(one)) == (0, 0, 1)
    with pytest.raises(RuntimeError, match="read the branches in turn"):
        next(one)
    assert list(two) == list(range(1, 9))
    if threading.active_count() == 1:  # else another thread could read the second one
        first, second = Flow(range(9)).tee(2)
        with pytest.raises(RuntimeError, match="branch 1, which holds 1"):
            first.to_list()
        assert second.to_list() == list(range(9))


def test_a_branch_that_waits_for_one_that_nobody_reads_warns_of_it(in_loop: Run) -> None:
    async def main() -> None:
        one, two = Flow(range(50)).tee(2)
        reading = asyncio.create_task(one.acount())
        with pytest.warns(RuntimeWarning, match=r"branch 0 .* waits for branch 1, which nobody"):
            await asyncio.wait([reading], timeout=flow_tee.PATIENCE * 2)
        assert not reading.done()  # it was a warning: there may be somebody after all
        assert await two.acount() == await reading == 50

    in_loop(main())


def test_a_thread_that_waits_for_a_branch_that_nobody_reads_warns_of_it() -> None:
    one, two = Flow(range(50)).tee(2)

    def begin() -> InThread:
        reading = InThread(one.count)
        wait_until(lambda: two._given._line.is_told)
        return reading

    with pytest.warns(RuntimeWarning, match=r"branch 0 .* waits for branch 1, which nobody"):
        reading = begin()
    assert two.count() == reading.result() == 50


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "nobody_reads_warns" in request.node.name:
        monkeypatch.setattr(flow_tee, "PATIENCE", 0.1)


def test_a_branch_is_read_once_and_all_of_them_in_one_form(in_loop: Run) -> None:
    one, two = Flow(range(3)).tee(2)
    items = iter(one)
    assert next(items) == 0
    with pytest.raises(RuntimeError, match="can be read once"):
        one.to_list()
    with pytest.raises(RuntimeError, match="read elsewhere"):
        in_loop(two.ato_list())
    items.close()


# ---- conservation ------------------------------------------------------------------------------


def test_a_house_of_flows_delivers_each_item_once(in_loop: Run) -> None:
    """Every part under load at once: what went in comes out, or was told to be dropped."""
    dropped: list[int] = []
    queue: weir.Queue[int] = weir.Queue(
        5, overflow="drop_oldest", on_drop=lambda n, _: dropped.append(n)
    )

    def numbers(which: int) -> Iterator[int]:
        return iter(range(which * 1000, which * 1000 + 500))

    async def main() -> None:
        sources = [Counted(500) for _ in range(3)]
        parts = [
            Flow(source.aio()).map(lambda n, k=k: n + k * 1000)  # type: ignore[misc]
            for k, source in enumerate(sources)
        ]
        merged = parts[0].merge(*parts[1:]).par_map(same, 4, kind="async", ordered=False)
        to_queue, to_list = merged.buffer(7, time=0.001).flat_map(lambda b: b).tee(2, buffer=3)
        done, kept, got = await asyncio.gather(
            to_queue.ato_queue(queue, shutdown=True),
            Flow(queue).map(same).map(same).ato_list(),
            to_list.ato_list(),
        )
        everything = [n for k in range(3) for n in numbers(k)]
        assert sorted(got) == everything and done == 1500
        assert sorted(kept + dropped) == everything
        for source in sources:
            source.check_closed_where_it_was_opened()

    in_loop(main())


async def read_at_random(flow: Flow[Any], fate: random.Random) -> None:
    """To the end; or so many items; or until somebody cancels it."""
    enough = fate.choice([None, fate.randrange(8)])
    async with aclosing(aiter(flow)) as items:
        seen = 0
        async for _ in items:
            seen += 1
            if seen == enough:
                return
            await steps(fate.randrange(3))


@asyncio_alone
@pytest.mark.timeout(600 if "WEIR_STORM" in os.environ else 60)
def test_random_flows_end_and_leave_nothing_behind(in_loop: Run) -> None:
    """Chains of random operators, whose sources fail, whose readers leave or are cancelled."""

    async def one(seed: int) -> None:
        fate = random.Random(seed)
        counted = Counted(
            fate.randrange(20), fails_at=fate.choice([None, fate.randrange(20)]), step=0.0001
        )
        flow: Flow[Any] = Flow(counted.aio())
        for name in fate.choices(sorted(OPERATORS), k=fate.randrange(1, 5)):
            if name != "retry":  # which is for what can be run again: a tee cannot
                flow = OPERATORS[name](flow.map(lambda item: 1))
        task = asyncio.create_task(read_at_random(flow, fate))
        if fate.random() < 0.5:
            await steps(fate.randrange(60))
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ValueError):
            await asyncio.wait_for(task, 30)
        counted.check_closed_where_it_was_opened()

    async def main(seeds: range) -> None:
        tasks = asyncio.all_tasks()
        for seed in seeds:
            try:
                await one(seed)
                assert asyncio.all_tasks() == tasks
            except BaseException as error:
                raise AssertionError(f"the flow with the seed {seed}") from error

    for first in range(0, FLOWS, 150):
        in_loop(main(range(first, first + 150)))
