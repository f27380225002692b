"""How long after `submit` to an idle process pool is the result there?

Two workers, warm, and idle for 3 ms before each submit. The median of 200
no-op tasks, one at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import harness
import tasks
from harness import Subject

WORKERS = 2


def latency(submit: Callable[[Callable[[], None]], Any], effort: float) -> float:
    """Microseconds."""
    for one in [submit(tasks.nothing) for _ in range(100)]:
        one.result()
    taken = []
    for _ in range(max(20, int(200 * effort))):
        time.sleep(0.003)
        began = time.perf_counter()
        submit(tasks.nothing).result()
        taken.append((time.perf_counter() - began) * 1e6)
    return harness.median(taken)


def weir(case: str, effort: float) -> float:
    import weir

    with weir.ProcessPoolExecutor(WORKERS) as pool:
        return latency(pool.submit, effort)


def standard(case: str, effort: float) -> float:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        return latency(pool.submit, effort)


def loky(case: str, effort: float) -> float:
    import loky

    with loky.ProcessPoolExecutor(WORKERS) as pool:
        return latency(pool.submit, effort)


def pebble(case: str, effort: float) -> float:
    import pebble

    with pebble.ProcessPool(max_workers=WORKERS) as pool:
        return latency(pool.schedule, effort)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="us",
    better="less",
    weir=(Subject("weir", weir),),
    peers=(
        Subject("concurrent.futures", standard, target="<= 0.5"),
        Subject("loky", loky, package="loky"),
        Subject("pebble", pebble, package="pebble"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
