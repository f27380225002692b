#!/usr/bin/env python3
"""feeder.py - producers feed a bounded queue, one consumer submits (scenario S3).

The usual hand-written shape (a queue, a feeder thread, retries, counters) is a pipeline of two
stages in three lines.  A shaky backend refuses every tenth call; retries are the stage's, and so
are the numbers.
"""

from __future__ import annotations

import random
import sys
import threading
import time

import show
import weir


class Backend:
    """Takes 5 ms for a call, and refuses one of ten."""

    def __init__(self, speed: float) -> None:
        self.calls = self.refused = 0
        self.stored: list[int] = []
        self._speed = speed
        self._chance = random.Random(3)

    def store(self, item: int) -> None:
        time.sleep(0.005 / self._speed)
        self.calls += 1
        if self._chance.random() < 0.1:
            self.refused += 1
            raise OSError("busy, try again")
        self.stored.append(item)


def main() -> int:
    args = show.options(__doc__, producers=20, items=400, queue=32)
    backend = Backend(args.speed)
    retry = weir.Retry(8, on=OSError, backoff=(0.001, 0.01))

    pipeline = weir.Pipeline(name="feeder")
    pipeline.stage(lambda number: number * number, name="prepare", queue=args.queue)
    pipeline.sink(backend.store, retry=retry)

    def produce(first: int) -> None:
        for number in range(first, args.items, args.producers):
            pipeline.put(number)  # waits while the queue is full

    with pipeline:
        producers = [threading.Thread(target=produce, args=(n,)) for n in range(args.producers)]
        for thread in producers:
            thread.start()
        for thread in producers:
            thread.join()
    report = pipeline.report
    assert report is not None
    print(report)
    stage = report.stages["store"]
    print(f"{backend.refused} of {backend.calls} calls were refused, {stage.retried} made again")
    if sorted(backend.stored) != [n * n for n in range(args.items)]:
        print("an item is missing, or was stored twice")
        return 1
    return show.check_law("put", report.accepted, {"stored": stage.processed, "left": report.left})


if __name__ == "__main__":
    sys.exit(main())
