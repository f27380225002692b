"""How long does a NumPy array of 100 MiB take to a worker process and back?

The worker returns the array it got. The median of three round trips on a warm pool of one worker;
the first and last element are compared. "array": an ordinary array. "born shared": one that was
made in memory that the workers see, so that only its name travels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import harness
import tasks
from harness import Subject

BYTES = 100 << 20


def round_trip(call: Callable[[Any], Any], make: Callable[[int], Any], effort: float) -> float:
    """Milliseconds for one call."""
    array = make(max(1 << 17, int(BYTES * effort)) // 8)
    array[:] = 0.5
    array[0], array[-1] = 1.0, 2.0
    call(array[:8].copy())
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        back = call(array)
        taken.append((time.perf_counter() - began) * 1e3)
        if back.shape != array.shape or (back[0], back[-1]) != (1.0, 2.0):
            raise AssertionError("another array came back")
        del back
    return harness.median(taken)


def weir(case: str, effort: float) -> float:
    import numpy

    import weir

    make: Callable[[int], Any] = numpy.empty
    if case == "born shared":
        if not hasattr(weir, "shared_array"):
            raise harness.Missing("this weir has no shared_array")
        shared_array = weir.shared_array

        def make(n: int) -> Any:
            return shared_array((n,), numpy.float64)

    with weir.ProcessPoolExecutor(1) as pool:
        return round_trip(lambda array: pool.submit(tasks.same, array).result(), make, effort)


def standard(case: str, effort: float) -> float:
    from concurrent.futures import ProcessPoolExecutor

    import numpy

    with ProcessPoolExecutor(1) as pool:
        return round_trip(
            lambda array: pool.submit(tasks.same, array).result(), numpy.empty, effort
        )


def loky(case: str, effort: float) -> float:
    import loky
    import numpy

    with loky.ProcessPoolExecutor(1) as pool:
        return round_trip(
            lambda array: pool.submit(tasks.same, array).result(), numpy.empty, effort
        )


def joblib(case: str, effort: float) -> float:
    import joblib
    import numpy

    with joblib.Parallel(n_jobs=2) as parallel:
        return round_trip(
            lambda array: parallel([joblib.delayed(tasks.same)(array)])[0], numpy.empty, effort
        )


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="ms",
    better="less",
    cases=("array", "born shared"),
    weir=(
        Subject("weir", weir, cases=("array",)),
        Subject("weir.shared_array", weir, target="< 1", cases=("born shared",)),
    ),
    peers=(
        Subject(
            "concurrent.futures",
            standard,
            target="<= 0.1",
            note="0.1: 10 times as fast",
            cases=("array",),
        ),
        Subject("loky", loky, package="loky", cases=("array",)),
        Subject(
            "joblib",
            joblib,
            package="joblib",
            note="maps large arguments from a file",
            cases=("array",),
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
