"""weir.Flow keeps the rules of the Reactive Streams specification that apply to a pull design.

The numbers are those of its README (github.com/reactive-streams/reactive-streams-jvm, 1.0.4).  A
Publisher is a flow, subscribe() is iter() or aiter(), a Subscription is the iterator, request(1) is
next(), cancel() is close(), onComplete is StopIteration, and onError is the exception.  The rules
that have no test here are in the table of docs/flow.md, with the reason.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing, suppress
from typing import Any

import pytest
from conftest import InThread, wait_until
from flow_sources import Counted, aenumerated

from weir import Flow


def identity(item: Any) -> Any:
    return item


async def aidentity(item: Any) -> Any:
    await asyncio.sleep(0)
    return item


# What a flow of each kind may take from its source for one item that it is asked for.
SYNC: dict[str, tuple[Callable[[Flow[int]], Flow[Any]], int]] = {
    "map, filter": (lambda flow: flow.map(identity).filter(lambda n: True), 1),
    "scan": (lambda flow: flow.scan(lambda a, b: a + b).distinct(last=3), 1),
    "drop": (lambda flow: flow.drop(3), 4),
    "flat_map": (lambda flow: flow.flat_map(lambda n: [n]), 1),
    "buffer": (lambda flow: flow.buffer(4), 4),
    "window": (lambda flow: flow.window(4).map(lambda window: window.to_list()), 4),
    "zip": (lambda flow: flow.zip(itertools.count()), 1),
    "concat": (lambda flow: flow.concat([1]), 1),
    "catch": (lambda flow: flow.catch(lambda error: []), 1),
    "retry": (lambda flow: flow.retry(2), 1),
    "tee": (lambda flow: flow.tee(1)[0], 1),
    "par_map": (lambda flow: flow.par_map(identity, 3), 3),
}
ASYNC: dict[str, tuple[Callable[[Flow[int]], Flow[Any]], int]] = {
    **{name: what for name, what in SYNC.items() if name != "window"},
    "map with a coroutine": (lambda flow: flow.map(aidentity), 1),
    "merge": (lambda flow: flow.merge([]), 1),
    "flat_map at a time": (
        lambda flow: flow.flat_map(lambda n: aenumerated([n]), concurrency=3),
        3 + 1,
    ),
    "buffer time": (lambda flow: flow.buffer(4, time=30), 4),
    "window time": (lambda flow: flow.window(4, time=30).map(read_window), 4),
    "timeout": (lambda flow: flow.timeout(30), 1),
    "par_map async": (lambda flow: flow.par_map(aidentity, 3, kind="async"), 3),
}
sync = pytest.mark.parametrize("operator", SYNC)
both = pytest.mark.parametrize("operator", [*SYNC, *(f"async {name}" for name in ASYNC)])


async def read_window(window: Flow[int]) -> list[int]:
    return await window.ato_list()


def read(operator: str, counted: Counted, reader: Callable[[Any], object]) -> None:
    """Reads a flow item by item in its form, to the end, or until the reader raises."""
    if operator in SYNC:
        with closing(iter(SYNC[operator][0](Flow(counted.sync())))) as items:
            for item in items:
                reader(item)
        return

    async def main() -> None:
        flow = ASYNC[operator.removeprefix("async ")][0](Flow(counted.aio()))
        async with aclosing(aiter(flow)) as items:
            async for item in items:
                reader(item)
                for _ in range(10):  # whatever could run ahead has the time to
                    await asyncio.sleep(0)

    asyncio.run(main())


class Enough(Exception):
    pass


# ---- 1. publisher ------------------------------------------------------------------------------


@both
def test_rule_1_01_never_more_elements_than_requested(operator: str) -> None:
    """And the source is never pulled for more than one request may take, for each one made."""
    counted, asked = Counted(), itertools.count(1)
    each = (SYNC | ASYNC)[operator.removeprefix("async ")][1]

    def reader(item: object) -> None:
        n = next(asked)
        if operator.removeprefix("async ").startswith(("par_map", "flat_map at", "merge")):
            assert counted.pulled <= n - 1 + each + (operator.startswith("async"))
        elif "drop" in operator:
            assert counted.pulled == n + 3
        else:
            assert counted.pulled == n * each
        if n == 5:
            raise Enough

    with pytest.raises(Enough):
        read(operator, counted, reader)


@both
def test_rule_1_02_a_flow_may_end_with_fewer_elements_than_requested(operator: str) -> None:
    counted = Counted(0)
    got: list[Any] = []
    read(operator, counted, got.append)
    assert got == ([1] if "concat" in operator else [])
    counted.check_closed_once()


def test_rule_1_03_signals_are_serial() -> None:
    """However many calls run at once, their results come one after the other."""
    inside = 0

    async def main() -> None:
        nonlocal inside
        flow = Flow(range(50)).merge(range(50)).par_map(aidentity, 5, kind="async", ordered=False)
        async for _ in flow:
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1

    asyncio.run(main())


@both
def test_rule_1_04_a_flow_that_fails_signals_the_error(operator: str) -> None:
    counted = Counted(fails_at=8)
    if "catch" in operator:
        read(operator, counted, identity)  # it is there to take it
    else:
        with pytest.raises(ValueError, match="8"):
            read(operator, counted, identity)
    counted.check_closed_once()


@both
def test_rule_1_05_a_flow_that_ends_says_so(operator: str) -> None:
    counted = Counted(8)
    read(operator, counted, identity)  # comes back
    assert counted.pulled == 8
    counted.check_closed_once()


@both
def test_rule_1_06_after_an_end_or_error_everything_is_closed(operator: str) -> None:
    threads = threading.active_count()
    for counted in (Counted(8), Counted(fails_at=8)):
        with suppress(ValueError):
            read(operator, counted, identity)
        counted.check_closed_once()
        assert counted.opened >= 1
    wait_until(lambda: threading.active_count() <= threads)


@sync
def test_rule_1_07_nothing_comes_behind_an_end_or_error(operator: str) -> None:
    for counted in (Counted(8), Counted(fails_at=8)):
        items = iter(SYNC[operator][0](Flow(counted.sync())))
        with suppress(ValueError):
            for _ in items:
                pass
        counted.fails_at = None
        assert [next(items, None) for _ in range(3)] == [None] * 3


@sync
def test_rule_1_08_nothing_comes_behind_a_close(operator: str) -> None:
    counted = Counted()
    items = iter(SYNC[operator][0](Flow(counted.sync())))
    next(items)
    items.close()
    pulled = counted.pulled
    assert next(items, None) is None
    assert counted.pulled == pulled
    counted.check_closed_once()


def test_rule_1_09_reading_begins_with_an_iterator_whatever_the_source_does() -> None:
    def source() -> list[int]:
        raise OSError("there is none")

    items = iter(Flow(source).map(identity))
    with pytest.raises(OSError, match="there is none"):
        next(items)
    with pytest.raises(TypeError, match="takes an iterable"):
        Flow(None)  # type: ignore[arg-type]  # what null is there


def test_rule_1_10_a_flow_can_be_read_many_times_each_by_an_iterator_of_its_own() -> None:
    counted = Counted(5)
    flow = Flow(counted.sync()).map(identity).buffer(2)
    iterators = [iter(flow) for _ in range(3)]
    assert len(set(map(id, iterators))) == 3
    assert [list(items) for items in iterators] == [[[0, 1], [2, 3], [4]]] * 3
    assert counted.opened == counted.closed == 3


def test_rule_1_11_several_readers_have_a_run_each_or_share_one() -> None:
    counted = Counted(3)
    unicast = Flow(counted.sync())
    assert list(zip(unicast, unicast, strict=True)) == [(n, n) for n in range(3)]
    assert counted.opened == 2
    one, two = unicast.tee(2)
    assert one.zip(two).to_list() == [(n, n) for n in range(3)]
    assert counted.opened == 3


# ---- 2. subscriber: the operators and ends of a flow are subscribers of what is before them -----


@both
def test_rule_2_01_nothing_is_pulled_before_it_is_requested(operator: str) -> None:
    counted = Counted()
    if operator in SYNC:
        items = iter(SYNC[operator][0](Flow(counted.sync())))
        assert counted.opened == 0
        items.close()
        return

    async def main() -> None:
        items = aiter(ASYNC[operator.removeprefix("async ")][0](Flow(counted.aio())))
        await asyncio.sleep(0)
        assert counted.opened == 0
        await items.aclose()

    asyncio.run(main())


@both
def test_rule_2_04_what_has_ended_is_not_closed_again(operator: str) -> None:
    counted = Counted(8)
    read(operator, counted, identity)  # which closes the iterator behind its end
    assert counted.opened == counted.closed == 1


@pytest.mark.parametrize("end", ["take", "take_while", "first", "zip"])
def test_rule_2_06_what_needs_no_more_closes_what_is_before_it(end: str) -> None:
    counted = Counted()
    flow = Flow(counted.sync()).buffer(2)
    ends: dict[str, Callable[[], object]] = {
        "take": lambda: flow.take(2).to_list(),
        "take_while": lambda: flow.take_while(lambda batch: batch[0] < 4).to_list(),
        "first": flow.first,
        "zip": lambda: flow.zip([1, 2]).to_list(),
    }
    ends[end]()
    assert counted.opened == counted.closed == 1


def test_rule_2_07_two_requests_at_once_are_refused() -> None:
    is_inside, may_go_on = threading.Event(), threading.Event()

    def slow(n: int) -> int:
        is_inside.set()
        may_go_on.wait(20)
        return n

    items = iter(Flow([1]).map(slow))
    reading = InThread(next, items)
    assert is_inside.wait(20)
    with pytest.raises(ValueError, match="already executing"):
        next(items)
    may_go_on.set()
    assert reading.result() == 1

    async def main() -> None:
        items = aiter(Flow([1]).map(lambda n: asyncio.sleep(0.01)).map(identity))
        aitems = aiter(Flow(aenumerated([1, 2])).map(aidentity))
        await items.aclose()
        first = asyncio.ensure_future(anext(aitems))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already running"):
            await anext(aitems)
        assert await first == 1
        await aitems.aclose()

    asyncio.run(main())


def test_rule_2_08_an_element_that_comes_after_a_close_reaches_nobody() -> None:
    got: list[int] = []

    async def late() -> AsyncGenerator[int, None]:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            yield 1  # in spite of it

    async def main() -> None:
        task = asyncio.create_task(Flow(late()).merge([]).afor_each(got.append))
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert got == []


@both
def test_rule_2_13_a_reader_that_raises_ends_the_flow(operator: str) -> None:
    counted = Counted()

    def fail(item: object) -> None:
        raise Enough

    with pytest.raises(Enough):
        read(operator, counted, fail)
    assert counted.opened == counted.closed == 1


# ---- 3. subscription ---------------------------------------------------------------------------


def test_rule_3_02_an_element_can_be_requested_while_one_is_processed() -> None:
    items = iter(Flow(range(6)).map(identity).buffer(1))
    assert [(batch, next(items)) for batch in items] == [([0], [1]), ([2], [3]), ([4], [5])]


def test_rule_3_03_requests_do_not_nest() -> None:
    """A hundred thousand items, and operators, need no more stack than one."""
    flow: Flow[int] = Flow(range(100_000))
    assert flow.flat_map(lambda n: [n]).filter(lambda n: n == 99_999).to_list() == [99_999]
    for _ in range(5_000):
        flow = flow.filter(lambda n: True).map(identity)
    assert flow.take(3).to_list() == [0, 1, 2]


@pytest.mark.parametrize("operator", ["merge", "timeout", "buffer time", "flat_map at a time"])
def test_rule_3_04_a_request_does_not_keep_others_from_their_turn(operator: str) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(other())
        assert await ASYNC[operator][0](Flow(range(200))).acount() >= 50
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert turns >= 50


@sync
def test_rule_3_05_a_close_may_come_from_any_thread(operator: str) -> None:
    counted = Counted()
    items = iter(SYNC[operator][0](Flow(counted.sync())))
    next(items)
    InThread(items.close).result()
    assert counted.opened == counted.closed == 1


@both
def test_rule_3_06_and_3_07_a_request_or_close_after_a_close_does_nothing(operator: str) -> None:
    counted = Counted()
    if operator in SYNC:
        items = iter(SYNC[operator][0](Flow(counted.sync())))
        next(items)
        for _ in range(3):
            items.close()
            assert next(items, None) is None
        assert counted.opened == counted.closed == 1
        return

    async def main() -> None:
        items = aiter(ASYNC[operator.removeprefix("async ")][0](Flow(counted.aio())))
        await anext(items)
        for _ in range(3):
            await items.aclose()
            assert await anext(items, None) is None

    asyncio.run(main())
    assert counted.opened == counted.closed == 1


@pytest.mark.parametrize("n", [1, 2, 7])
def test_rule_3_08_a_request_for_n_is_a_demand_of_n(n: int) -> None:
    counted = Counted()
    with closing(iter(Flow(counted.sync()).buffer(n))) as batches:
        for k in range(1, 4):
            next(batches)
            assert counted.pulled == k * n


@pytest.mark.parametrize("n", [0, -1])
def test_rule_3_09_a_request_for_nothing_is_refused(n: int) -> None:
    refused: list[Callable[[], object]] = [
        lambda: Flow([1]).buffer(n),
        lambda: Flow([1]).window(n),
        lambda: Flow([1]).par_map(identity, n),
        lambda: Flow([1]).flat_map(lambda x: [x], concurrency=n),
    ]
    for request in refused:
        with pytest.raises(ValueError, match="must be from 1"):
            request()


@pytest.mark.parametrize("operator", ASYNC)
def test_rule_3_12_closing_a_reader_that_waits_ends_the_source(operator: str) -> None:
    closed: list[int] = []

    async def silent() -> AsyncGenerator[int, None]:
        try:
            await asyncio.sleep(30)
            yield 1
        finally:
            closed.append(1)

    async def main() -> None:
        flow = ASYNC[operator][0](Flow(silent))
        task = asyncio.create_task(flow.acount())
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed == [1]

    asyncio.run(main())


class Item:
    pass


@sync
def test_rule_3_13_a_closed_flow_keeps_no_reference_to_its_items_or_reader(operator: str) -> None:
    if operator == "scan":
        pytest.skip("it adds numbers")
    alive: list[weakref.ref[Item]] = []

    def source() -> Iterator[Item]:
        while True:
            item = Item()
            alive.append(weakref.ref(item))
            yield item
            del item

    items = iter(SYNC[operator][0](Flow(source)))  # type: ignore[arg-type]
    next(items)
    items.close()
    gc.collect()
    wait_until(lambda: not any(ref() for ref in alive))


def test_rule_3_14_the_last_reader_that_closes_shuts_the_source_down() -> None:
    counted = Counted()
    flows = Flow(counted.sync()).tee(3)  # which are not dropped
    branches = [iter(branch) for branch in flows]
    for branch in branches:
        next(branch)
    for n, branch in enumerate(branches):
        assert counted.closed == 0, n
        branch.close()
    assert counted.closed == 1


def test_rule_3_17_a_demand_has_practically_no_bound() -> None:
    assert Flow(range(10)).take(2**63 - 1).drop(0).take(2**100).count() == 10
