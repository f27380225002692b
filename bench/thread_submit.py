"""How many no-op tasks a second does a thread pool take and answer, one future each?

"in slices": one thread submits 5,000 tasks to two threads, then asks each future for its result,
and so on; "one by one": it asks for the result of each task before it submits the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import harness
import tasks
from harness import Subject

THREADS = 2
SLICES = {"in slices": 5000, "one by one": 1}  # tasks
TASKS = {"in slices": 60_000, "one by one": 15_000}


def rate(submit: Callable[[Callable[[], None]], Any], case: str, effort: float) -> float:
    def run(n: int) -> None:
        for one in [submit(tasks.nothing) for _ in range(n)]:
            one.result()

    run(100)
    n, most = max(100, int(TASKS[case] * effort)), SLICES[case]
    began = time.perf_counter()
    for done in range(0, n, most):
        run(min(most, n - done))
    return n / (time.perf_counter() - began)


def weir_with(**options: Any) -> Callable[[str, float], float]:
    def run(case: str, effort: float) -> float:
        import weir

        with weir.ThreadPoolExecutor(THREADS, **options) as pool:
            return rate(pool.submit, case, effort)

    return run


def standard(case: str, effort: float) -> float:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(THREADS) as pool:
        return rate(pool.submit, case, effort)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="tasks/s",
    better="more",
    cases=("in slices", "one by one"),
    weir=(
        Subject("weir", weir_with(), note="backlog of twice the threads, the default"),
        Subject("weir, max_submit_backlog=None", weir_with(max_submit_backlog=None)),
    ),
    peers=(Subject("concurrent.futures", standard, target=">= 6", note="no bound on the backlog"),),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
