"""How much memory does a program need whose 100 threads submit faster than two workers run?

Each thread submits 30 payloads of 64 KiB, made for each submit, then waits for its results; a task
takes 2 ms. That is 188 MiB in all. What counts is by how much the memory of the submitting process
grew, at its peak.
"""

from __future__ import annotations

import threading
from typing import Any

import harness
import tasks
from harness import Subject

WORKERS = 2
THREADS = 100
SUBMITS = 30
PAYLOAD = 64 << 10


def growth(pool: Any, effort: float) -> float:
    """MiB of peak RSS."""
    submits = max(1, int(SUBMITS * effort))
    sizes: list[int] = []

    def produce() -> None:
        pending = [pool.submit(tasks.size_slowly, bytes([i]) * PAYLOAD) for i in range(submits)]
        sizes.extend(future.result() for future in pending)

    for future in [pool.submit(tasks.nothing) for _ in range(100)]:
        future.result()
    threads = [threading.Thread(target=produce) for _ in range(THREADS)]
    before = harness.peak_rss()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if sizes != [PAYLOAD] * (THREADS * submits):
        raise AssertionError("not every payload was received whole")
    return (harness.peak_rss() - before) / (1 << 20)


def weir(case: str, effort: float) -> float:
    import weir

    with weir.ProcessPoolExecutor(WORKERS) as pool:
        return growth(pool, effort)


def standard(case: str, effort: float) -> float:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        return growth(pool, effort)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="MiB",
    better="less",
    weir=(Subject("weir", weir, note="backlog of twice the workers, the default"),),
    peers=(Subject("concurrent.futures", standard, note="no bound on the backlog"),),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
