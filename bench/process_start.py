"""How long does a fresh process pool take to its first result?

From the call of the constructor to the first result, two workers, the first pool of the program;
modules are imported before. With forkserver that includes starting the server.
"""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import harness
import tasks
from harness import Subject

WORKERS = 2


def first_result(executor: type[Any], case: str) -> float:
    """Milliseconds."""
    context = multiprocessing.get_context(case)
    began = time.perf_counter()
    with executor(WORKERS, mp_context=context) as pool:
        pool.submit(tasks.nothing).result()
        return (time.perf_counter() - began) * 1e3


def weir(case: str, effort: float) -> float:
    from weir import ProcessPoolExecutor

    return first_result(ProcessPoolExecutor, case)


def standard(case: str, effort: float) -> float:
    from concurrent.futures import ProcessPoolExecutor

    return first_result(ProcessPoolExecutor, case)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="ms",
    better="less",
    cases=("fork", "forkserver", "spawn"),
    rounds=11,
    weir=(Subject("weir", weir),),
    peers=(Subject("concurrent.futures", standard, target="<= 1.0"),),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
