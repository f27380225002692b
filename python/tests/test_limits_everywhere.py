"""One weir.Limiter for event loops, threads and processes: no more inside than it says, in all.

Who is inside counts himself in memory that all processes share, and stays for a moment in which
everybody else may run.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier

import pytest
from conftest import InThread

import weir

LOOPS, TASKS, THREADS, PROCESSES = 4, 3, 4, 2
CALLS = 40  # by each task and each thread
INSIDE = 0.0002  # seconds

FORK = multiprocessing.get_context("fork")


class Board:
    """How many are inside, the most there ever were, and how many have come; for all processes."""

    def __init__(self) -> None:
        self._counts = FORK.Array("i", 3)

    def enter(self) -> None:
        with self._counts.get_lock():
            self._counts[0] += 1
            self._counts[1] = max(self._counts[1], self._counts[0])
            self._counts[2] += 1

    def leave(self) -> None:
        with self._counts.get_lock():
            self._counts[0] -= 1

    @property
    def found(self) -> tuple[int, int, int]:
        return self._counts[0], self._counts[1], self._counts[2]


def in_thread(limiter: weir.Limiter, board: Board) -> None:
    for call in range(CALLS):
        if call % 2:
            with limiter:
                board.enter()
                time.sleep(INSIDE)
                board.leave()
        else:
            with limiter.acquire():
                board.enter()
                time.sleep(INSIDE)
                board.leave()


def in_loop(limiter: weir.Limiter, board: Board) -> None:
    async def task() -> None:
        for call in range(CALLS):
            if call % 2:
                async with limiter:
                    board.enter()
                    await asyncio.sleep(INSIDE)
                    board.leave()
            else:
                with await limiter.aacquire():
                    board.enter()
                    await asyncio.sleep(INSIDE)
                    board.leave()

    async def main() -> None:
        await asyncio.gather(*(task() for _ in range(TASKS)))

    asyncio.run(main())


def in_process(make: Callable[[], weir.Limiter], board: Board, start: Barrier) -> None:
    limiter = make()
    start.wait(60)
    others = [InThread(in_loop, limiter, board), InThread(in_thread, limiter, board)]
    for other in others:
        other.result(60)


def in_threads_and_loops(limiter: weir.Limiter, board: Board) -> None:
    others = [InThread(in_thread, limiter, board) for _ in range(THREADS)]
    others += [InThread(in_loop, limiter, board) for _ in range(LOOPS)]
    for other in others:
        other.result(60)


HERE = CALLS * (THREADS + LOOPS * TASKS)
ELSEWHERE = CALLS * PROCESSES * (1 + TASKS)


@pytest.mark.parametrize("limit", [1, 3])
def test_four_loops_and_four_threads_are_never_more_than_the_limit(limit: int) -> None:
    limiter, board = weir.Limiter(limit), Board()
    in_threads_and_loops(limiter, board)
    assert board.found == (0, limit, HERE)
    now = limiter.stats()
    assert (now.peak, now.admitted, now.released) == (limit, HERE, HERE)
    assert now.waiting == limiter.in_flight == 0


@pytest.mark.parametrize("limit", [1, 3])
def test_with_two_processes_they_are_never_more_than_the_shared_limit(limit: int) -> None:
    name = f"pytest.everywhere.{os.getpid()}.{time.monotonic_ns()}"

    def make() -> weir.Limiter:
        return weir.Limiter(limit, shared=name)

    limiter, board, start = make(), Board(), FORK.Barrier(PROCESSES + 1)
    args = (make, board, start)
    children = [FORK.Process(target=in_process, args=args) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    start.wait(60)
    in_threads_and_loops(limiter, board)
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert board.found == (0, limit, HERE + ELSEWHERE)
    now = limiter.stats()
    assert (now.admitted, now.released, now.lost) == (HERE + ELSEWHERE, HERE + ELSEWHERE, 0)
    assert now.waiting == limiter.in_flight == 0
