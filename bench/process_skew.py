"""How long do 2,000 tasks take of which 1 in 50 takes 100 times longer?

A short task uses 0.2 ms of CPU time, a long one 20 ms, two workers share them: 0.6 s when both work
all the time. The long ones stand at seeded random places, the same for all subjects. "submit": a
future for each task; "map": the executor's own `map` with default arguments.
"""

from __future__ import annotations

import random
import time
from typing import Any

import harness
import tasks
from harness import Subject

WORKERS = 2
TASKS = 2000
SHORT, LONG = 0.0002, 0.02


def makespan(pool: Any, case: str, effort: float) -> float:
    """Milliseconds from the first submit to the last result."""
    n = max(50, int(TASKS * effort))
    work = [SHORT] * (n - n // 50) + [LONG] * (n // 50)
    random.Random(7).shuffle(work)
    for one in [pool.submit(tasks.nothing) for _ in range(100)]:
        one.result()
    began = time.perf_counter()
    if case == "map":
        for _ in pool.map(tasks.spin, work):
            pass
    else:
        for one in [pool.submit(tasks.spin, seconds) for seconds in work]:
            one.result()
    return (time.perf_counter() - began) * 1e3


def weir(case: str, effort: float) -> float:
    import weir

    with weir.ProcessPoolExecutor(WORKERS) as pool:
        return makespan(pool, case, effort)


def standard(case: str, effort: float) -> float:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        return makespan(pool, case, effort)


def loky(case: str, effort: float) -> float:
    import loky

    with loky.ProcessPoolExecutor(WORKERS) as pool:
        return makespan(pool, case, effort)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="ms",
    better="less",
    cases=("submit", "map"),
    weir=(Subject("weir", weir),),
    peers=(
        Subject("concurrent.futures", standard, target="<= 0.95", note="chunksize=1"),
        Subject("loky", loky, package="loky", note="chunksize=1"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
