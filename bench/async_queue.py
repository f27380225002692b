"""How many items a second go through a queue to and from coroutines?

"1p1c" is a producer and a consumer in one event loop, before 100 places, or 1, where every item is
a switch between the two tasks. In "thread to loop" the producer is a thread, in "loop to thread"
the consumer; 100 places. The waiters are tasks that wait before the first item is put, and each
gets one: what counts is from the first put to the end of the last task, so a line in which each
waiter costs more than in a shorter one would show. The sum of what came out is checked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import harness
from harness import Subject

PLACES = 100
CASES = (
    "1p1c",
    "1p1c, 1 place",
    "thread to loop",
    "loop to thread",
    "100 waiters",
    "1,000 waiters",
    "10,000 waiters",
)
ONE_LOOP, ONE_PLACE, TO_LOOP, TO_THREAD, *WAITERS = CASES
ITEMS = {ONE_LOOP: 400_000, ONE_PLACE: 40_000, TO_LOOP: 200_000, TO_THREAD: 200_000}
WOKEN = 30_000  # waiters in all, line after line


class Sides(NamedTuple):
    """How a queue is used: by coroutines, by threads, and without waiting."""

    aput: Callable[[int], Awaitable[None]]
    aget: Callable[[], Awaitable[int]]
    put: Callable[[int], None]
    get: Callable[[], int]
    put_nowait: Callable[[int], None]


async def produce(aput: Callable[[int], Awaitable[None]], n: int) -> None:
    for item in range(n):
        await aput(item)


async def consume(aget: Callable[[], Awaitable[int]], n: int) -> int:
    total = 0
    for _ in range(n):
        total += await aget()
    return total


def produce_in_thread(put: Callable[[int], None], n: int) -> None:
    for item in range(n):
        put(item)


def consume_in_thread(get: Callable[[], int], n: int) -> int:
    total = 0
    for _ in range(n):
        total += get()
    return total


async def carry(sides: Sides, case: str, n: int) -> int:
    """The sum of n items that went from the one side to the other."""
    if case == TO_LOOP:
        producer: Awaitable[None] = asyncio.to_thread(produce_in_thread, sides.put, n)
    else:
        producer = produce(sides.aput, n)
    if case == TO_THREAD:
        consumer: Awaitable[int] = asyncio.to_thread(consume_in_thread, sides.get, n)
    else:
        consumer = consume(sides.aget, n)
    return (await asyncio.gather(consumer, producer))[0]


async def wake(sides: Sides, n: int) -> float:
    """Seconds in which n waiters get an item each."""
    waiters = [asyncio.ensure_future(sides.aget()) for _ in range(n)]
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiters), "all of them wait"
    began = time.perf_counter()
    for item in range(n):
        sides.put_nowait(item)
    total = sum(await asyncio.gather(*waiters))
    seconds = time.perf_counter() - began
    assert total == n * (n - 1) // 2, "each item once"
    return seconds


def rate(make: Callable[[int], Sides], case: str, effort: float) -> float:
    """Thousands of items a second."""

    async def carried() -> float:
        n = max(1000, int(effort * ITEMS[case]))
        sides = make(1 if case == ONE_PLACE else PLACES)
        began = time.perf_counter()
        total = await carry(sides, case, n)
        seconds = time.perf_counter() - began
        assert total == n * (n - 1) // 2, "each item once"
        return n / seconds / 1e3

    async def woken() -> float:
        n = int(case.split()[0].replace(",", ""))
        lines = max(1, int(effort * WOKEN) // n)
        sides = make(n)
        return lines * n / sum([await wake(sides, n) for _ in range(lines)]) / 1e3

    return asyncio.run(woken() if case in WAITERS else carried())


def weir(case: str, effort: float) -> float:
    import weir

    def make(places: int) -> Sides:
        queue = weir.Queue[int](places)
        return Sides(queue.aput, queue.aget, queue.put, queue.get, queue.put_nowait)

    return rate(make, case, effort)


def standard(case: str, effort: float) -> float:
    def make(places: int) -> Sides:
        queue = asyncio.Queue[int](places)
        return Sides(queue.put, queue.get, queue.put_nowait, queue.get_nowait, queue.put_nowait)

    return rate(make, case, effort)


def of_two_sides(queue: Any) -> Sides:
    """janus and culsans have the same names."""
    to_loop, to_thread = queue.async_q, queue.sync_q
    return Sides(to_loop.put, to_loop.get, to_thread.put, to_thread.get, to_loop.put_nowait)


def janus(case: str, effort: float) -> float:
    import janus

    return rate(lambda places: of_two_sides(janus.Queue(places)), case, effort)


def culsans(case: str, effort: float) -> float:
    import culsans

    return rate(lambda places: of_two_sides(culsans.Queue(places)), case, effort)


IN_ONE_LOOP = (ONE_LOOP, ONE_PLACE, *WAITERS)
TWO_SIDES = (TO_LOOP, TO_THREAD)
QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="k items/s",
    better="more",
    cases=CASES,
    weir=(Subject("weir.Queue", weir, note="any number of loops and threads"),),
    peers=(
        Subject(
            "asyncio.Queue, 100 places",
            standard,
            target=">= 2",
            cases=(ONE_LOOP,),
            note="one loop, no threads",
        ),
        Subject(
            "asyncio.Queue",
            standard,
            cases=(ONE_PLACE, *WAITERS),
            note="one loop, no threads; the loop itself is most of it",
        ),
        Subject("janus", janus, target=">= 3", package="janus", cases=TWO_SIDES, note="one loop"),
        Subject("culsans", culsans, target=">= 3", package="culsans", cases=TWO_SIDES),
        Subject("janus, async_q", janus, package="janus", cases=IN_ONE_LOOP, note="one loop"),
        Subject("culsans, async_q", culsans, package="culsans", cases=IN_ONE_LOOP),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
