"""How many items a second go through a queue between Python threads?

Producers put numbers, consumers get them until each has got its end mark, through a queue of 1000
items; "100p8c" is 100 producers and 8 consumers. The sum of what came out is checked.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import harness
from harness import Subject

CAPACITY = 1000


def rate(queue: Any, case: str, effort: float, n: int) -> float:
    """Thousands of items a second; `n` of them, in all."""
    producers, consumers = map(int, re.findall(r"\d+", case))
    share = max(10, int(n * effort) // producers)
    start = threading.Barrier(producers + consumers + 1)
    sums: list[int] = []

    def produce() -> None:
        put = queue.put
        start.wait()
        for number in range(share):
            put(number)

    def consume() -> None:
        get, total = queue.get, 0
        start.wait()
        while (number := get()) is not None:
            total += number
        sums.append(total)

    putting = [threading.Thread(target=produce) for _ in range(producers)]
    getting = [threading.Thread(target=consume) for _ in range(consumers)]
    for thread in putting + getting:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in putting:
        thread.join()
    for _ in getting:
        queue.put(None)
    for thread in getting:
        thread.join()
    seconds = time.perf_counter() - began
    if sum(sums) != producers * share * (share - 1) // 2:
        raise AssertionError("what came out is not what went in")
    return producers * share / seconds / 1e3


def weir(case: str, effort: float) -> float:
    import weir

    return rate(weir.Queue(CAPACITY), case, effort, 400_000)


def standard(case: str, effort: float) -> float:
    import queue

    return rate(queue.Queue(CAPACITY), case, effort, 40_000)


def culsans(case: str, effort: float) -> float:
    import culsans

    return rate(culsans.Queue(CAPACITY).sync_q, case, effort, 40_000)


def janus(case: str, effort: float) -> float:
    import asyncio

    import janus

    measure: Callable[..., float] = rate

    async def run() -> float:
        # The queue belongs to the loop of this thread; the loop stays free while others measure.
        queue = janus.Queue[Any](CAPACITY)
        return await asyncio.to_thread(measure, queue.sync_q, case, effort, 20_000)

    return asyncio.run(run())


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="k items/s",
    better="more",
    cases=("1p1c", "4p4c", "100p8c"),
    weir=(Subject("weir.Queue", weir),),
    peers=(
        Subject("queue.Queue", standard, target=">= 8"),
        Subject("culsans", culsans, package="culsans", note="sync_q"),
        Subject("janus", janus, package="janus", note="sync_q"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
