#!/usr/bin/env python3
"""killed_workers.py - processes that hand jobs to each other, and some of them are killed.

A feeder puts jobs of 5 ms into a queue of 20; 3 workers take them and put results into another one.
Every 0.2 s a worker is killed with SIGKILL, wherever it happens to be, and another takes its place.
multiprocessing.Queue may never move again after that: who is killed inside of it takes its lock
along.  A weir.SharedQueue goes on, and what a worker had in its hands is all that can be missing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from multiprocessing.process import BaseProcess

import show
import weir

Jobs = weir.SharedQueue[int]
Results = weir.SharedQueue[tuple[int, int]]


def work(jobs: Jobs, results: Results, seconds: float) -> None:
    for job in jobs:  # ends when the queue is shut down and empty
        time.sleep(seconds)
        results.put((job, sum(range(job))))


def feed(jobs: Jobs, n: int) -> None:
    for job in range(n):
        jobs.put(job)  # waits while 20 are inside
    jobs.shutdown()


class Workers:
    """Some processes, one of which is killed from time to time."""

    def __init__(self, n: int, *args: object) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.args, self.killed = args, 0
        self.processes = [self.start() for _ in range(n)]

    def start(self) -> BaseProcess:
        process = self.context.Process(target=work, args=self.args)
        process.start()
        return process

    def kill_one(self) -> None:
        victim = self.processes.pop(0)
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        self.killed += victim.exitcode == -signal.SIGKILL
        self.processes.append(self.start())

    def join(self) -> None:
        for process in self.processes:
            process.join()


def main() -> int:
    args = show.options(__doc__, jobs=2000, workers=3, seconds=0.005, kill_every=0.2)
    jobs, results = Jobs(20, name="jobs"), Results(20, name="results")
    workers = Workers(args.workers, jobs, results, args.seconds / args.speed)
    feeder = threading.Thread(target=feed, args=(jobs, args.jobs))
    feeder.start()
    done: dict[int, int] = {}
    next_kill = time.monotonic() + args.kill_every / args.speed
    while feeder.is_alive() or jobs.qsize() > 0:
        with contextlib.suppress(queue.Empty):
            done.update(results.get_many(100, timeout=0.01))
        if feeder.is_alive() and time.monotonic() >= next_kill:
            next_kill += args.kill_every / args.speed
            workers.kill_one()
    collector = threading.Thread(target=lambda: done.update(results))
    collector.start()
    workers.join()
    results.shutdown()
    collector.join()

    inside = jobs.stats().recovered + results.stats().recovered
    wrong = sum(result != sum(range(job)) for job, result in done.items())
    lost = jobs.stats().delivered - results.stats().accepted
    print(f"{workers.killed} workers were killed, {inside} of them in the middle of a put or get")
    print(f"{wrong} results are wrong")
    status = show.check_law(
        "jobs", args.jobs, {"done": len(done), "in the hands of the killed": lost}
    )
    return status if wrong == 0 and 0 <= lost <= workers.killed else 1


if __name__ == "__main__":
    sys.exit(main())
