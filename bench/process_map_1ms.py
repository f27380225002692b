"""What share of the ideal does `map` of tasks of 1 ms reach on two workers?

The ideal is that both workers work all the time. "spin": each task uses 1 ms of CPU time, so that
on two processors whatever the pool itself computes is missing from the work; the ideal is 1 ms x
tasks / 2. "sleep": each task sleeps 1 ms and says how long it really was; the ideal is the sum of
that / 2. 2,000 tasks, default arguments, warm workers. Everything above 0.97 is as good as it gets
on a machine that does something else too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import harness
import tasks
from harness import Subject

WORKERS = 2
TASKS = 2000
SECONDS = 0.001


def share(
    map_: Callable[[Callable[[float], Any], Iterable[float]], Any], case: str, effort: float
) -> float:
    task = {"spin": tasks.spin, "sleep": tasks.sleep}[case]
    for _ in map_(task, [0.0] * 100):
        pass
    n = max(100, int(TASKS * effort))
    began = time.perf_counter()
    took = list(map_(task, [SECONDS] * n))
    seconds = time.perf_counter() - began
    work = n * SECONDS if case == "spin" else sum(took)
    return work / WORKERS / seconds


def weir(case: str, effort: float) -> float:
    import weir

    with weir.ProcessPoolExecutor(WORKERS) as pool:
        return share(pool.map, case, effort)


def standard(case: str, effort: float) -> float:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        return share(pool.map, case, effort)


def multiprocessing_map(case: str, effort: float) -> float:
    import multiprocessing

    with multiprocessing.Pool(WORKERS) as pool:
        return share(pool.map, case, effort)


def loky(case: str, effort: float) -> float:
    import loky

    with loky.ProcessPoolExecutor(WORKERS) as pool:
        return share(pool.map, case, effort)


def joblib(case: str, effort: float) -> float:
    import joblib

    with joblib.Parallel(n_jobs=WORKERS) as parallel:
        return share(
            lambda fn, items: parallel(joblib.delayed(fn)(item) for item in items), case, effort
        )


def mpire(case: str, effort: float) -> float:
    import mpire

    with mpire.WorkerPool(n_jobs=WORKERS) as pool:
        return share(pool.map, case, effort)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="of ideal",
    better="more",
    cases=("spin", "sleep"),
    weir=(Subject("weir", weir, target=">= 0.97"),),
    peers=(
        Subject("concurrent.futures", standard, note="chunksize=1"),
        Subject("multiprocessing.Pool.map", multiprocessing_map, note="8 chunks"),
        Subject("loky", loky, package="loky", note="chunksize=1"),
        Subject("joblib", joblib, package="joblib", note="Parallel"),
        Subject("mpire", mpire, package="mpire", note="128 chunks"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
