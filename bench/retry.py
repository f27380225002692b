"""What does a call cost that would be tried again, but succeeds at once?

A decorated function that does nothing and never fails, in one thread; "awaited" is a coroutine
function that does nothing, awaited one by one.  Up to five attempts, exponential backoff with
jitter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import harness
from harness import Subject

CALLS = {"called": 200_000, "awaited": 100_000}


def nothing() -> None:
    pass


async def nothing_later() -> None:
    pass


def cost(protect: Callable[[Any], Any], case: str, effort: float) -> float:
    """Microseconds for a call."""
    n = max(100, int(CALLS[case] * effort))

    def call() -> float:
        fn = protect(nothing)
        began = time.perf_counter()
        for _ in range(n):
            fn()
        return time.perf_counter() - began

    async def wait_for() -> float:
        fn = protect(nothing_later)
        began = time.perf_counter()
        for _ in range(n):
            await fn()
        return time.perf_counter() - began

    seconds = call() if case == "called" else asyncio.run(wait_for())
    return seconds / n * 1e6


def weir(case: str, effort: float) -> float:
    import weir

    return cost(weir.Retry(5, on=OSError), case, effort)


def weir_budget(case: str, effort: float) -> float:
    import weir

    return cost(weir.Retry(5, on=OSError, budget=weir.RetryBudget()), case, effort)


def tenacity(case: str, effort: float) -> float:
    import tenacity

    return cost(
        tenacity.retry(
            stop=tenacity.stop_after_attempt(5),
            wait=tenacity.wait_random_exponential(0.1, 30),
            retry=tenacity.retry_if_exception_type(OSError),
        ),
        case,
        effort,
    )


def stamina(case: str, effort: float) -> float:
    import stamina

    return cost(stamina.retry(on=OSError, attempts=5), case, effort)


def bare(case: str, effort: float) -> float:
    return cost(lambda fn: fn, case, effort)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="us",
    better="less",
    cases=tuple(CALLS),
    weir=(
        Subject("weir.Retry", weir),
        Subject("weir.Retry, budget", weir_budget, note="each call is counted in a RetryBudget"),
    ),
    peers=(
        Subject("tenacity", tenacity, target="<= 0.2", package="tenacity"),
        Subject("stamina", stamina, target="<= 0.2", package="stamina"),
        Subject("no retry", bare, note="the call alone"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
