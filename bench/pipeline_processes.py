"""How many small items a second go through a pipeline with a stage in two processes?

A source of numbers, a stage that returns what it gets, a list at the end; queues of 1000 items
where there are any. The slow peers get fewer items; all rates are per item.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import harness
import tasks
from harness import Subject

CAPACITY = 1000
WORKERS = 2


def rate(run: Callable[[int], list[Any]], effort: float, n: int) -> float:
    """Thousands of items a second, of n, with the start of the processes."""
    n = max(100, int(n * effort))
    began = time.perf_counter()
    out = run(n)
    seconds = time.perf_counter() - began
    if sorted(out) != list(range(n)):
        raise AssertionError("what came out is not what went in")
    return n / seconds / 1e3


def weir(case: str, effort: float) -> float:
    import weir

    def run(n: int) -> list[Any]:
        out: list[Any] = []
        pipeline = weir.Pipeline(range(n))
        pipeline.stage(tasks.same, kind="process", workers=WORKERS, queue=CAPACITY)
        pipeline.sink(out.append, queue=CAPACITY)
        pipeline.run()
        return out

    return rate(run, effort, 400_000)


def pypeln(case: str, effort: float) -> float:
    import pypeln

    def run(n: int) -> list[Any]:
        stage = pypeln.process.map(tasks.same, range(n), workers=WORKERS, maxsize=CAPACITY)
        return list(stage)

    return rate(run, effort, 20_000)


def mpire(case: str, effort: float) -> float:
    import mpire

    def run(n: int) -> list[Any]:
        with mpire.WorkerPool(n_jobs=WORKERS) as pool:
            bound = {"chunk_size": 1, "max_tasks_active": CAPACITY}
            return list(pool.imap_unordered(tasks.same, range(n), iterable_len=n, **bound))

    return rate(run, effort, 20_000)


def mpire_chunks(case: str, effort: float) -> float:
    import mpire

    def run(n: int) -> list[Any]:
        with mpire.WorkerPool(n_jobs=WORKERS) as pool:
            return list(pool.imap_unordered(tasks.same, range(n), iterable_len=n))

    return rate(run, effort, 200_000)


def standard(case: str, effort: float) -> float:
    import multiprocessing

    def run(n: int) -> list[Any]:
        with multiprocessing.Pool(WORKERS) as pool:
            return list(pool.imap_unordered(tasks.same, range(n)))

    return rate(run, effort, 40_000)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="k items/s",
    better="more",
    weir=(Subject("weir.Pipeline", weir, note='kind="process"'),),
    peers=(
        Subject("pypeln", pypeln, target=">= 5", package="pypeln", note="pypeln.process"),
        Subject("mpire", mpire, target=">= 5", package="mpire", note="bounded, an item at a time"),
        Subject(
            "mpire, chunks", mpire_chunks, package="mpire", note="is told the length; 128 chunks"
        ),
        Subject("multiprocessing.Pool", standard, note="imap_unordered; no bound"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
