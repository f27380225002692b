"""How many acquire and release a second does a limit of concurrency do?

In one thread, with nobody else there; and with 8 threads before 2 permits, all of them together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import harness
from harness import Subject

CASES = ("acquire and release", "with", "async with", "8 threads, 2 permits")
PAIRS, WITH, ASYNC, CONTENDED = CASES


def pairs(limiter: Any, n: int, *, gives_permits: bool = False) -> None:
    acquire = limiter.acquire
    if gives_permits:
        for _ in range(n):
            acquire().release()
        return
    release = limiter.release
    for _ in range(n):
        acquire()
        release()


def blocks(limiter: Any, n: int) -> None:
    for _ in range(n):
        with limiter:
            pass


async def async_blocks(limiter: Any, n: int) -> None:
    for _ in range(n):
        async with limiter:
            pass


def by_threads(limiter: Any, n: int) -> None:
    import threading

    threads = [threading.Thread(target=blocks, args=(limiter, n // 8)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def rate(make: Callable[[int], Any], case: str, effort: float, *, gives_permits: bool) -> float:
    """Millions of acquire and release a second."""
    n = max(800, int(effort * (40_000 if case == CONTENDED else 400_000)))
    limiter = make(2 if case == CONTENDED else 8)
    if case == ASYNC:
        import asyncio

        async def timed() -> float:
            began = time.perf_counter()
            await async_blocks(limiter, n)
            return time.perf_counter() - began

        return n / asyncio.run(timed()) / 1e6
    began = time.perf_counter()
    if case == PAIRS:
        pairs(limiter, n, gives_permits=gives_permits)
    elif case == WITH:
        blocks(limiter, n)
    else:
        by_threads(limiter, n)
    return n / (time.perf_counter() - began) / 1e6


def fixed(case: str, effort: float) -> float:
    import weir

    return rate(weir.Limiter, case, effort, gives_permits=True)


def adaptive(case: str, effort: float) -> float:
    import weir

    def make(n: int) -> weir.Limiter:
        return weir.Limiter(weir.Gradient2(n, n, n))

    return rate(make, case, effort, gives_permits=True)


def shared(case: str, effort: float) -> float:
    import os

    import weir

    def make(n: int) -> weir.Limiter:
        return weir.Limiter(n, shared=f"bench.{os.getpid()}")

    return rate(make, case, effort, gives_permits=True)


def threading_semaphore(case: str, effort: float) -> float:
    import threading

    return rate(threading.BoundedSemaphore, case, effort, gives_permits=False)


def asyncio_semaphore(case: str, effort: float) -> float:
    import asyncio

    return rate(asyncio.Semaphore, case, effort, gives_permits=False)


def anyio_limiter(case: str, effort: float) -> float:
    import anyio

    return rate(anyio.CapacityLimiter, case, effort, gives_permits=False)


def processes_semaphore(case: str, effort: float) -> float:
    import multiprocessing

    return rate(multiprocessing.BoundedSemaphore, case, effort, gives_permits=False)


SYNC = (PAIRS, WITH, CONTENDED)
QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="M/s",
    better="more",
    cases=CASES,
    weir=(
        Subject("weir.Limiter", fixed),
        Subject("weir.Limiter, Gradient2", adaptive),
        Subject("weir.Limiter, shared", shared, note="one limit for all processes"),
    ),
    peers=(
        Subject("threading.BoundedSemaphore", threading_semaphore, target=">= 1", cases=SYNC),
        Subject("multiprocessing.BoundedSemaphore", processes_semaphore, cases=SYNC),
        Subject("asyncio.Semaphore", asyncio_semaphore, cases=(ASYNC,), note="one loop only"),
        Subject(
            "anyio.CapacityLimiter",
            anyio_limiter,
            package="anyio",
            cases=(ASYNC,),
            note="one loop only",
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
