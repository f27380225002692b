"""How many items a second go through a pipeline of three Python stages in threads?

A source of numbers, three stages that add one, a list at the end; queues of 100 items, one worker
for each stage. The numbers that come out are checked.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import harness
from harness import Subject

CAPACITY = 100
STAGES = 3


def plus_one(x: int) -> int:
    return x + 1


def rate(run: Callable[[int], list[int]], effort: float, n: int) -> float:
    """Thousands of items a second, of n."""
    n = max(100, int(n * effort))
    began = time.perf_counter()
    out = run(n)
    seconds = time.perf_counter() - began
    if sorted(out) != list(range(STAGES, n + STAGES)):
        raise AssertionError("what came out is not what went in")
    return n / seconds / 1e3


def weir(case: str, effort: float) -> float:
    import weir

    def run(n: int) -> list[int]:
        out: list[int] = []
        pipeline = weir.Pipeline(range(n))
        for _ in range(STAGES):
            pipeline.stage(plus_one, queue=CAPACITY)
        pipeline.sink(out.append, queue=CAPACITY)
        pipeline.run()
        return out

    return rate(run, effort, 400_000)


def by_hand(case: str, effort: float) -> float:
    import queue

    def run(n: int) -> list[int]:
        queues: list[queue.Queue[Any]] = [queue.Queue(CAPACITY) for _ in range(STAGES + 1)]
        out: list[int] = []

        def work(source: queue.Queue[Any], target: queue.Queue[Any]) -> None:
            while (item := source.get()) is not None:
                target.put(plus_one(item))
            target.put(None)

        def collect(source: queue.Queue[Any]) -> None:
            while (item := source.get()) is not None:
                out.append(item)

        pairs = itertools.pairwise(queues)
        threads = [threading.Thread(target=work, args=pair) for pair in pairs]
        threads.append(threading.Thread(target=collect, args=(queues[-1],)))
        for thread in threads:
            thread.start()
        for item in range(n):
            queues[0].put(item)
        queues[0].put(None)
        for thread in threads:
            thread.join()
        return out

    return rate(run, effort, 40_000)


def pypeln(case: str, effort: float) -> float:
    import pypeln

    def run(n: int) -> list[int]:
        stage = range(n)
        for _ in range(STAGES):
            stage = pypeln.thread.map(plus_one, stage, workers=1, maxsize=CAPACITY)
        return list(stage)

    return rate(run, effort, 20_000)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="k items/s",
    better="more",
    weir=(Subject("weir.Pipeline", weir),),
    peers=(
        Subject("queue.Queue", by_hand, target=">= 5", note="a loop written by hand"),
        Subject("pypeln", pypeln, target=">= 5", package="pypeln", note="pypeln.thread"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
