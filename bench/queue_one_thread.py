"""How many put and get a second does a queue do in one thread?

A put, then a get, again and again: no thread ever waits, so this is what the queue itself costs.
"""

from __future__ import annotations

import time
from typing import Any

import harness
from harness import Subject

CAPACITY = 1000


def rate(queue: Any, effort: float, n: int) -> float:
    """Millions of put and get a second."""
    n = max(100, int(n * effort))
    put, get = queue.put, queue.get
    began = time.perf_counter()
    for item in range(n):
        put(item)
        get()
    return n / (time.perf_counter() - began) / 1e6


def weir(case: str, effort: float) -> float:
    import weir

    return rate(weir.Queue(CAPACITY), effort, 3_000_000)


def standard(case: str, effort: float) -> float:
    import queue

    return rate(queue.Queue(CAPACITY), effort, 300_000)


def simple(case: str, effort: float) -> float:
    import queue

    return rate(queue.SimpleQueue(), effort, 3_000_000)


def culsans(case: str, effort: float) -> float:
    import culsans

    return rate(culsans.Queue(CAPACITY).sync_q, effort, 300_000)


def janus(case: str, effort: float) -> float:
    import asyncio

    import janus

    async def run() -> float:
        return rate(janus.Queue(CAPACITY).sync_q, effort, 200_000)

    return asyncio.run(run())


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="M/s",
    better="more",
    weir=(Subject("weir.Queue", weir),),
    peers=(
        Subject("queue.Queue", standard, target=">= 12"),
        Subject("queue.SimpleQueue", simple, target=">= 0.7", note="has no bound"),
        Subject("culsans", culsans, package="culsans", note="sync_q"),
        Subject("janus", janus, package="janus", note="sync_q"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
