"""How many items a second go through a chain of maps and filters?

Three times a map and a filter that lets everything pass, over numbers that are made as they are
asked for; the functions do next to nothing, so that what is measured is the chain. In a thread, and
in an event loop over an asynchronous generator. The items are counted at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import harness
from harness import Subject

CASES = ("for", "async for")
SYNC, ASYNC = CASES
STAGES = 3


def add(n: int) -> int:
    return n + 1


def is_positive(n: int) -> bool:
    return n > 0


def rate(run: Callable[[int], int], effort: float, n: int = 1_000_000) -> float:
    """Millions of items a second."""
    n = max(1000, int(effort * n))
    began = time.perf_counter()
    passed = run(n)
    seconds = time.perf_counter() - began
    assert passed == n, "each item passes"
    return n / seconds / 1e6


def arate(run: Callable[[int], Awaitable[int]], effort: float) -> float:
    async def timed(n: int) -> int:
        return await run(n)

    return rate(lambda n: asyncio.run(timed(n)), effort, 300_000)


async def numbers(n: int) -> AsyncGenerator[int, None]:
    for item in range(n):
        yield item


async def counted(items: AsyncIterator[int]) -> int:
    total = 0
    async for _ in items:
        total += 1
    return total


def flow(case: str, effort: float) -> float:
    from weir import Flow

    def chain(flow: Flow[int]) -> Flow[int]:
        for _ in range(STAGES):
            flow = flow.map(add).filter(is_positive)
        return flow

    if case == ASYNC:
        return arate(lambda n: chain(Flow(numbers(n))).acount(), effort)
    return rate(lambda n: chain(Flow(range(n))).count(), effort)


def generators(case: str, effort: float) -> float:
    def mapped(items: Iterable[int]) -> Iterator[int]:
        for item in items:
            yield add(item)

    def filtered(items: Iterable[int]) -> Iterator[int]:
        for item in items:
            if is_positive(item):
                yield item

    def run(n: int) -> int:
        items: Iterable[int] = range(n)
        for _ in range(STAGES):
            items = filtered(mapped(items))
        return sum(1 for _ in items)

    async def amapped(items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            yield add(item)

    async def afiltered(items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            if is_positive(item):
                yield item

    async def arun(n: int) -> int:
        items: AsyncIterator[int] = numbers(n)
        for _ in range(STAGES):
            items = afiltered(amapped(items))
        return await counted(items)

    return arate(arun, effort) if case == ASYNC else rate(run, effort)


def builtin(case: str, effort: float) -> float:
    def run(n: int) -> int:
        items: Iterable[int] = range(n)
        for _ in range(STAGES):
            items = filter(is_positive, map(add, items))
        return sum(1 for _ in items)

    return rate(run, effort)


def rxpy(case: str, effort: float) -> float:
    import reactivex
    from reactivex import operators

    def run(n: int) -> int:
        total = 0

        def see(_: int) -> None:
            nonlocal total
            total += 1

        steps: list[Any] = [operators.map(add), operators.filter(is_positive)] * STAGES
        reactivex.from_iterable(range(n)).pipe(*steps).subscribe(see)
        return total

    return rate(run, effort, 200_000)


def aiostream(case: str, effort: float) -> float:
    import aiostream

    async def run(n: int) -> int:
        stream: Any = aiostream.stream.iterate(numbers(n))
        for _ in range(STAGES):
            stream = stream | aiostream.pipe.map(add) | aiostream.pipe.filter(is_positive)
        async with stream.stream() as items:
            return await counted(items)

    return arate(run, effort)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="M/s",
    better="more",
    cases=CASES,
    weir=(Subject("weir.Flow", flow),),
    peers=(
        Subject("generators", generators, target=">= 1"),
        Subject("map() and filter()", builtin, cases=(SYNC,)),
        Subject(
            "RxPY",
            rxpy,
            target=">= 1",
            package="reactivex",
            cases=(SYNC,),
            note="pushes, without backpressure",
        ),
        Subject("aiostream", aiostream, target=">= 1", package="aiostream", cases=(ASYNC,)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
