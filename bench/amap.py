"""How many calls a second get through a limit of calls at a time, in an event loop?

The calls do next to nothing (they give way to the loop once), so that what is measured is what
limiting them costs. 50 at a time; the results are read, and added up. All of the items are there at
once only where the subject itself asks for it: peak memory shows who does.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import harness
from harness import Subject

LIMIT = 50
CASES = ("in order", "as they end")
ORDERED, UNORDERED = CASES


async def call(item: int) -> int:
    await asyncio.sleep(0)
    return item


def rate(run: Callable[[int], Awaitable[int]], effort: float) -> float:
    """Thousands of calls a second."""
    n = max(500, int(effort * 100_000))

    async def timed() -> float:
        began = time.perf_counter()
        total = await run(n)
        assert total == n * (n - 1) // 2, "each result once"
        return time.perf_counter() - began

    return n / asyncio.run(timed()) / 1e3


async def added_up(results: AsyncIterator[int]) -> int:
    total = 0
    async for result in results:
        total += result
    return total


def weir_amap(case: str, effort: float) -> float:
    from weir.aio import amap

    async def run(n: int) -> int:
        return await added_up(amap(call, range(n), limit=LIMIT, ordered=case == ORDERED))

    return rate(run, effort)


def weir_gather(case: str, effort: float) -> float:
    from weir.aio import gather

    async def run(n: int) -> int:
        return sum(await gather(map(call, range(n)), limit=LIMIT))

    return rate(run, effort)


def weir_group(case: str, effort: float) -> float:
    from weir.aio import TaskGroup

    async def run(n: int) -> int:
        total = 0

        async def add(item: int) -> None:
            nonlocal total
            result = await call(item)
            total += result

        async with TaskGroup(LIMIT) as group:
            for item in range(n):
                await group.create_task(add(item))
        return total

    return rate(run, effort)


def gather_semaphore(case: str, effort: float) -> float:
    async def run(n: int) -> int:
        semaphore = asyncio.Semaphore(LIMIT)

        async def limited(item: int) -> int:
            async with semaphore:
                return await call(item)

        return sum(await asyncio.gather(*map(limited, range(n))))

    return rate(run, effort)


def group_semaphore(case: str, effort: float) -> float:
    task_group: Any = getattr(asyncio, "TaskGroup", None)
    if task_group is None:
        raise harness.Missing("Python 3.11")

    async def run(n: int) -> int:
        semaphore, total = asyncio.Semaphore(LIMIT), 0

        async def add(item: int) -> None:
            nonlocal total
            async with semaphore:
                result = await call(item)
                total += result

        async with task_group() as group:
            for item in range(n):
                group.create_task(add(item))
        return total

    return rate(run, effort)


def aiostream_map(case: str, effort: float) -> float:
    import aiostream

    how: dict[str, Any] = {"task_limit": LIMIT, "ordered": case == ORDERED}

    async def run(n: int) -> int:
        mapped: Any = aiostream.stream.iterate(range(n)) | aiostream.pipe.map(call, **how)
        async with mapped.stream() as results:
            return await added_up(results)

    return rate(run, effort)


def aiometer_amap(case: str, effort: float) -> float:
    import aiometer

    async def run(n: int) -> int:
        async with aiometer.amap(call, range(n), max_at_once=LIMIT) as results:
            return await added_up(results)

    return rate(run, effort)


def aiometer_run_all(case: str, effort: float) -> float:
    import aiometer

    async def run(n: int) -> int:
        calls = [functools.partial(call, item) for item in range(n)]
        return sum(await aiometer.run_all(calls, max_at_once=LIMIT))

    return rate(run, effort)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="k/s",
    better="more",
    cases=CASES,
    weir=(
        Subject("amap", weir_amap),
        Subject("weir.aio.gather", weir_gather, cases=(ORDERED,)),
        Subject("weir.aio.TaskGroup", weir_group, cases=(UNORDERED,)),
    ),
    peers=(
        Subject(
            "asyncio.gather and Semaphore",
            gather_semaphore,
            target=">= 1",
            cases=(ORDERED,),
            note="all tasks and all results at once",
        ),
        Subject(
            "asyncio.TaskGroup and Semaphore",
            group_semaphore,
            target=">= 1",
            cases=(UNORDERED,),
            note="all tasks at once",
        ),
        Subject("aiostream map", aiostream_map, target=">= 1", package="aiostream"),
        Subject(
            "aiometer.run_all",
            aiometer_run_all,
            package="aiometer",
            cases=(ORDERED,),
            note="all calls and all results at once",
        ),
        Subject(
            "aiometer.amap",
            aiometer_amap,
            target=">= 1",
            package="aiometer",
            cases=(UNORDERED,),
            note="takes a sequence, and no bound on results that wait",
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
