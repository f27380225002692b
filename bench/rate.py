"""How many tokens a second can be taken when nobody has to wait?

One token at a time from a bucket that is never empty: this is what asking costs.  "8 threads" share
one bucket.  aiolimiter belongs to a running loop, and is awaited there: to try is to ask whether
there is capacity, and then to acquire.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import harness
from harness import Subject

ENOUGH = 10**9  # tokens in a second, and at once
CASES = {"one thread": 1, "8 threads": 8}


def rate(take: Callable[[], object], case: str, effort: float, n: int) -> float:
    """Millions of tokens a second."""
    threads = CASES[case]
    each = max(100, int(n * effort) // threads)
    start = threading.Barrier(threads + 1)

    def run() -> None:
        start.wait()
        for _ in range(each):
            take()

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in running:
        thread.join()
    return threads * each / (time.perf_counter() - began) / 1e6


def weir_with(shared: bool) -> Callable[[str, float], float]:
    def run(case: str, effort: float) -> float:
        import weir

        name = f"bench.{os.getpid()}" if shared else None
        bucket = weir.TokenBucket(ENOUGH, burst=ENOUGH, shared=name)
        found = rate(bucket.try_acquire, case, effort, 5_000_000)
        bucket.burst = 1  # full at once, so that nothing of it stays
        return found

    return run


def in_python(case: str, effort: float) -> float:
    """A bucket as one writes it."""
    lock = threading.Lock()
    tokens, last = float(ENOUGH), time.monotonic()

    def take() -> bool:
        nonlocal tokens, last
        with lock:
            now = time.monotonic()
            tokens = min(ENOUGH, tokens + (now - last) * ENOUGH)
            last = now
            if tokens < 1:
                return False
            tokens -= 1
            return True

    return rate(take, case, effort, 1_000_000)


def aiolimiter_with(tries: bool) -> Callable[[str, float], float]:
    def measure(case: str, effort: float) -> float:
        import asyncio

        import aiolimiter

        async def run() -> float:
            limiter = aiolimiter.AsyncLimiter(ENOUGH, 1)
            acquire, has_capacity = limiter.acquire, limiter.has_capacity
            n = max(100, int(500_000 * effort))
            began = time.perf_counter()
            for _ in range(n):
                if not tries or has_capacity():
                    await acquire()
            return n / (time.perf_counter() - began) / 1e6

        return asyncio.run(run())

    return measure


def pyrate_limiter(case: str, effort: float) -> float:
    import pyrate_limiter as peer

    limiter: Any = peer.Limiter(peer.Rate(ENOUGH, peer.Duration.SECOND))
    return rate(lambda: limiter.try_acquire("a", blocking=False), case, effort, 100_000)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="M/s",
    better="more",
    cases=tuple(CASES),
    weir=(
        Subject("weir.TokenBucket", weir_with(False), note="try_acquire"),
        Subject("weir.TokenBucket, shared", weir_with(True), note="by processes, with a name"),
    ),
    peers=(
        Subject("in Python, with a lock", in_python, note="a dozen lines; no order of waiters"),
        Subject(
            "aiolimiter, try", aiolimiter_with(True), target=">= 10", package="aiolimiter",
            note="has_capacity() and await acquire()", cases=("one thread",),
        ),
        Subject(
            "aiolimiter, wait", aiolimiter_with(False), note="await acquire(), which may wait",
            package="aiolimiter", cases=("one thread",),
        ),
        Subject(
            "pyrate-limiter", pyrate_limiter, target=">= 10", note="in memory; a record per token",
            package="pyrate-limiter",
        ),
    ),
)  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
