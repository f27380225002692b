"""What does a call cost that a circuit breaker protects?

The breaker is closed and no call fails, so this is what everybody pays all the time.  A call that
does nothing, through a decorated function, in one thread and in eight; and a call of a millisecond
in eight threads, which takes an eighth of a millisecond as long as no call waits for another.
Wall time for each call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import harness
from harness import Subject

CALLS = {"1 thread": 300_000, "8 threads": 300_000, "8 threads, 1 ms": 4000}


def nothing() -> None:
    pass


def a_millisecond() -> None:
    time.sleep(0.001)


def cost(
    protect: Callable[[Callable[[], None]], Callable[[], None]], case: str, effort: float
) -> float:
    """Microseconds for a call."""
    threads = 1 if case == "1 thread" else 8
    fn = protect(a_millisecond if "ms" in case else nothing)
    share = max(20, int(CALLS[case] * effort)) // threads
    start = threading.Barrier(threads + 1)

    def work() -> None:
        start.wait()
        for _ in range(share):
            fn()

    working = [threading.Thread(target=work) for _ in range(threads)]
    for thread in working:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in working:
        thread.join()
    return (time.perf_counter() - began) / (share * threads) * 1e6


def weir(case: str, effort: float) -> float:
    import weir

    return cost(weir.CircuitBreaker(), case, effort)


def weir_block(case: str, effort: float) -> float:
    import weir

    breaker = weir.CircuitBreaker()

    def protect(fn: Callable[[], None]) -> Callable[[], None]:
        def protected() -> None:
            with breaker:
                fn()

        return protected

    return cost(protect, case, effort)


def pybreaker(case: str, effort: float) -> float:
    import pybreaker

    return cost(pybreaker.CircuitBreaker(), case, effort)


def purgatory(case: str, effort: float) -> float:
    import purgatory

    return cost(purgatory.SyncCircuitBreakerFactory()("name"), case, effort)


def bare(case: str, effort: float) -> float:
    return cost(lambda fn: fn, case, effort)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="us",
    better="less",
    cases=tuple(CALLS),
    weir=(
        Subject("weir.CircuitBreaker", weir),
        Subject("with weir.CircuitBreaker", weir_block, note="as a block, not as a decorator"),
    ),
    peers=(
        Subject(
            "pybreaker",
            pybreaker,
            target="<= 0.2",
            package="pybreaker",
            note="one lock round the call",
        ),
        Subject("purgatory", purgatory, package="purgatory", note="in memory"),
        Subject("no breaker", bare, note="the call alone"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
