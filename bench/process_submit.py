"""How many no-op tasks a second does a process pool take and answer, one future each?

One thread submits 5,000 tasks to two worker processes, asks each future for its result, and so on,
so that each subject holds as many futures. Pools and workers are warm. weir gets 60,000 tasks, the
others 10,000.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import harness
import tasks
from harness import Subject

WORKERS = 2
SLICE = 5000  # tasks


def rate(submit: Callable[[Callable[[], None]], Any], effort: float, n: int, result: str) -> float:
    """Tasks a second; `result` is the name of the method that waits for one."""

    def run(n: int) -> None:
        pending = [submit(tasks.nothing) for _ in range(n)]
        for one in pending:
            getattr(one, result)()

    run(100)
    n = max(100, int(n * effort))
    began = time.perf_counter()
    for done in range(0, n, SLICE):
        run(min(SLICE, n - done))
    return n / (time.perf_counter() - began)


def weir_with(**options: Any) -> Callable[[str, float], float]:
    def run(case: str, effort: float) -> float:
        import weir

        try:
            pool = weir.ProcessPoolExecutor(WORKERS, **options)
        except (TypeError, ValueError) as error:
            raise harness.Missing(f"this weir refuses {options}: {error}") from None
        with pool:
            return rate(pool.submit, effort, 60_000, "result")

    return run


def standard(case: str, effort: float) -> float:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        return rate(pool.submit, effort, 10_000, "result")


def loky(case: str, effort: float) -> float:
    import loky

    with loky.ProcessPoolExecutor(WORKERS) as pool:
        return rate(pool.submit, effort, 10_000, "result")


def pebble(case: str, effort: float) -> float:
    import pebble

    with pebble.ProcessPool(max_workers=WORKERS) as pool:
        return rate(pool.schedule, effort, 10_000, "result")


def mpire(case: str, effort: float) -> float:
    import mpire

    with mpire.WorkerPool(n_jobs=WORKERS) as pool:
        return rate(pool.apply_async, effort, 10_000, "get")


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="tasks/s",
    better="more",
    weir=(
        Subject("weir", weir_with(), note="backlog of twice the workers, the default"),
        Subject('weir, max_submit_backlog="auto"', weir_with(max_submit_backlog="auto")),
        Subject("weir, max_submit_backlog=1000", weir_with(max_submit_backlog=1000)),
    ),
    peers=(
        Subject("concurrent.futures", standard, target=">= 12", note="no bound on the backlog"),
        Subject("loky", loky, package="loky", note="no bound"),
        Subject("pebble", pebble, package="pebble", note="no bound"),
        Subject("mpire", mpire, package="mpire", note="apply_async; no bound"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
