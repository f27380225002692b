"""How much of a rate do 4 processes with 8 threads each get out of one bucket?

1,000 tokens a second and a burst of 50, for 10 seconds; all 32 threads want more all the time.
100 % is what there is to be had: 10,000 and the burst.  More in all, or in any window of time, is a
failure of the run; a thread notes its grant when it has it, so each may be noted late.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import harness
from harness import Subject

RATE, BURST = 1000, 50
SECONDS = 10.0
PROCESSES, THREADS = 4, 8

Take = Callable[[float], bool]


def run_threads(make: Callable[..., Take], made: tuple[Any, ...], end: float, grants: Any) -> None:
    """One process; tells when it was granted its tokens."""
    take = make(*made)
    noted: list[list[float]] = [[] for _ in range(THREADS)]

    def run(mine: list[float]) -> None:
        while take(end):
            mine.append(time.monotonic())

    threads = [threading.Thread(target=run, args=(mine,)) for mine in noted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    grants.put(sorted(itertools.chain.from_iterable(noted)))


def fullest_window(times: list[float]) -> float:
    """The most tokens in any window, beyond the rate times its length."""
    lowest, most = 0.0, 0.0
    for n, at in enumerate(times):
        ahead = n - (at - times[0]) * RATE
        lowest = min(lowest, ahead)
        most = max(most, ahead + 1 - lowest)
    return most


def share(
    make: Callable[..., Take], made: tuple[Any, ...], began: float, effort: float, slack: float
) -> float:
    """Per cent of what there was."""
    context = multiprocessing.get_context("fork")
    grants = context.SimpleQueue()
    end = began + max(0.3, SECONDS * effort)
    processes = [
        context.Process(target=run_threads, args=(make, made, end, grants))
        for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    times = sorted(itertools.chain.from_iterable(grants.get() for _ in processes))
    for process in processes:
        process.join()
    possible = RATE * (end - began) + BURST
    if len(times) > possible:
        raise RuntimeError(f"{len(times)} tokens were granted of {possible:.0f}")
    window = fullest_window(times)
    if window > BURST + slack:
        raise RuntimeError(
            f"a window held {window:.1f} more than the rate, and the burst is {BURST}"
        )
    return 100 * len(times) / possible


def take_of_weir(bucket: Any) -> Take:
    return lambda end: end > time.monotonic() and bucket.acquire(timeout=end - time.monotonic())


def weir(case: str, effort: float) -> float:
    import weir

    began = time.monotonic()
    bucket = weir.TokenBucket(RATE, burst=BURST, shared=f"bench.{os.getpid()}")
    found = share(take_of_weir, (bucket,), began, effort, PROCESSES * THREADS)
    bucket.change(1e9, burst=1)  # full at once, so that nothing of it stays
    return found


def take_in_python(lock: Any, tokens: Any, last: Any) -> Take:
    """A bucket as one writes it; who finds it empty sleeps and looks again."""

    def take(end: float) -> bool:
        while True:
            with lock:
                now = time.monotonic()
                tokens.value = min(BURST, tokens.value + (now - last.value) * RATE)
                last.value = now
                if now >= end:
                    return False
                if tokens.value >= 1:
                    tokens.value -= 1
                    return True
            time.sleep(0.005)

    return take


def in_python(case: str, effort: float) -> float:
    began = time.monotonic()
    made = (
        multiprocessing.Lock(),
        multiprocessing.Value("d", BURST, lock=False),
        multiprocessing.Value("d", began, lock=False),
    )
    return share(take_in_python, made, began, effort, PROCESSES * THREADS)


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="% of the tokens",
    better="more",
    weir=(Subject("weir.TokenBucket, shared", weir, target=">= 99.5"),),
    peers=(
        Subject("in Python, with a lock", in_python, note="not first come first served; a killed "
                "process keeps the lock"),
    ),
)  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
