"""How many items a second does `map` of a no-op over 200,000 items bring back?

Two worker processes, warm; default arguments. The slow peers map fewer items (the note says how
many); all rates are per item.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import harness
import tasks
from harness import Subject

WORKERS = 2
ITEMS = 200_000


def rate(
    map_: Callable[[Callable[[int], int], Iterable[int]], Any], effort: float, n: int
) -> float:
    """Items a second; checks that all of them came back, in order."""
    for _ in map_(tasks.same, range(100)):
        pass
    n = max(100, int(n * effort))
    began = time.perf_counter()
    items = list(map_(tasks.same, range(n)))
    seconds = time.perf_counter() - began
    if items != list(range(n)):
        raise AssertionError("other items came back, or in another order")
    return n / seconds


def weir(case: str, effort: float) -> float:
    import weir

    with weir.ProcessPoolExecutor(WORKERS) as pool:
        return rate(pool.map, effort, ITEMS)


def standard(case: str, effort: float) -> float:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        return rate(pool.map, effort, 10_000)


def multiprocessing_map(case: str, effort: float) -> float:
    import multiprocessing

    with multiprocessing.Pool(WORKERS) as pool:
        return rate(pool.map, effort, ITEMS)


def multiprocessing_imap(case: str, effort: float) -> float:
    import multiprocessing

    with multiprocessing.Pool(WORKERS) as pool:
        return rate(pool.imap, effort, 40_000)


def loky(case: str, effort: float) -> float:
    import loky

    with loky.ProcessPoolExecutor(WORKERS) as pool:
        return rate(pool.map, effort, 6_000)


def joblib(case: str, effort: float) -> float:
    import joblib

    with joblib.Parallel(n_jobs=WORKERS) as parallel:
        return rate(
            lambda fn, items: parallel(joblib.delayed(fn)(item) for item in items),
            effort,
            ITEMS // 4,
        )


def mpire(case: str, effort: float) -> float:
    import mpire

    with mpire.WorkerPool(n_jobs=WORKERS) as pool:
        return rate(pool.map, effort, ITEMS)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="items/s",
    better="more",
    weir=(Subject("weir", weir, note="lazy; the size of batches is measured"),),
    peers=(
        Subject("concurrent.futures", standard, target=">= 40", note="chunksize=1; 10,000 items"),
        Subject(
            "multiprocessing.Pool.map",
            multiprocessing_map,
            target=">= 0.8",
            note="eager: drains its input, cuts it into 8 chunks",
        ),
        Subject("multiprocessing.Pool.imap", multiprocessing_imap, note="40,000 items"),
        Subject("loky", loky, package="loky", note="6,000 items"),
        Subject("joblib", joblib, package="joblib", note="Parallel; 50,000 items"),
        Subject("mpire", mpire, package="mpire", note="eager: cuts its input into 128 chunks"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
