#!/usr/bin/env python3
"""slow_consumer.py - a producer of 100 items/s before a consumer of 10 items/s (scenario S7).

queue.Queue() takes everything: the producer is done long before the consumer, and what it made
lies in memory and grows old.  weir.Queue(10) makes the producer wait: it is slowed to the pace of
the consumer, never more than 10 items wait, and each is fresh when its turn comes.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from argparse import Namespace

import show
import weir


class Run:
    """One producer and one consumer on one queue, and what was seen."""

    def __init__(self, name: str, q: weir.Queue[float] | queue.Queue[float], args: Namespace):
        self.name, self.queue, self.args = name, q, args
        self.made = self.got = self.deepest = 0
        self.oldest = self.produced_in = self.consumed_in = 0.0
        self.threads = [threading.Thread(target=run) for run in (self.produce, self.consume)]
        self.began = time.monotonic()

    def produce(self) -> None:
        gap = 1 / self.args.producer_rate / self.args.speed
        for number in range(self.args.items):
            time.sleep(max(0.0, self.began + number * gap - time.monotonic()))
            self.queue.put(time.monotonic())  # weir: waits here while 10 are inside
            self.made += 1
            self.deepest = max(self.deepest, self.queue.qsize())
        self.produced_in = self.age(self.began)

    def consume(self) -> None:
        for _ in range(self.args.items):
            self.oldest = max(self.oldest, self.age(self.queue.get()))
            self.got += 1
            time.sleep(1 / self.args.consumer_rate / self.args.speed)
        self.consumed_in = self.age(self.began)

    def age(self, since: float) -> float:
        """Seconds, as they would be at speed 1."""
        return (time.monotonic() - since) * float(self.args.speed)

    def row(self) -> tuple[object, ...]:
        rate = self.args.items / self.produced_in
        return (
            self.name,
            f"{rate:.0f}/s",
            self.deepest,
            f"{self.oldest:.1f} s",
            f"{self.produced_in:.0f} s",
            f"{self.consumed_in:.0f} s",
        )


def main() -> int:
    args = show.options(__doc__, items=1000, queue=10, producer_rate=100.0, consumer_rate=10.0)
    runs = [
        Run("queue.Queue()", queue.Queue(), args),
        Run(f"weir.Queue({args.queue})", weir.Queue(args.queue), args),
    ]
    threads = [thread for run in runs for thread in run.threads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    headers = ("", "producer's rate", "deepest", "oldest item", "produced in", "consumed in")
    print(show.table(headers, [run.row() for run in runs]))
    bounded = runs[1]
    inside = bounded.queue.qsize()
    status = show.check_law("put", bounded.made, {"got": bounded.got, "inside": inside})
    if bounded.deepest > args.queue:
        print(f"the bound was broken: {bounded.deepest} items inside")
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
