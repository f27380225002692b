#!/usr/bin/env python3
"""choose_by_use_case.py - which strategy for what? (scenario S15)

Prints the four named strategies with what each of them sets, and why.  Then each of them stands
before the same trouble: a queue of 10, 200 items as fast as they come, and a consumer that takes
100 a second.

  real_time    the queue never keeps anybody waiting, and the newest item always arrives
  critical     everything arrives, and the producer waits as long as it takes
  batch        everything arrives, at an even rate
  user_facing  who finds no room is told at once, and soon before even trying
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from argparse import Namespace

import show
import weir
from weir import strategies
from weir.strategies import Strategy


class Outcome:
    """What became of the items under one strategy."""

    def __init__(self, strategy: Strategy, args: Namespace) -> None:
        self.args = args
        self.used: list[int] = []
        self.waits: list[float] = []
        self.dropped = self.full = self.open = 0
        self.queue: weir.Queue[tuple[int, float]] = weir.Queue(
            args.size, overflow=strategy, on_drop=self.on_drop, name=strategy.name
        )
        consumer = threading.Thread(target=self.consume)
        consumer.start()
        began = time.monotonic()
        for item in range(args.items):
            self.put(item)
        self.seconds = (time.monotonic() - began) * args.speed
        self.queue.shutdown()
        consumer.join()

    def put(self, item: int) -> None:
        try:
            self.queue.put((item, time.monotonic()))
        except queue.Full:
            self.full += 1
        except weir.BreakerOpen:
            self.open += 1

    def on_drop(self, item: object, reason: str) -> None:
        self.dropped += 1

    def consume(self) -> None:
        for item, since in self.queue:
            self.used.append(item)
            self.waits.append(time.monotonic() - since)
            time.sleep(1 / self.args.rate / self.args.speed)


def main() -> int:
    args = show.options(__doc__, items=200, size=10, rate=100.0)
    logging.basicConfig(format="%(message)s")
    # The same settings, at the speed of this run.
    chosen = [
        strategies.real_time,
        strategies.critical,
        strategies.batch(rate=args.rate * args.speed),
        strategies.user_facing,
    ]
    for strategy in (
        strategies.real_time,
        strategies.critical,
        strategies.batch,
        strategies.user_facing,
    ):
        print(strategy, end="\n\n")
    outcomes = [(strategy.name, Outcome(strategy, args)) for strategy in chosen]
    headers = ("strategy", "producer took", "used", "dropped", "full", "breaker", "longest wait")
    rows = [
        (
            name,
            f"{one.seconds:.2f} s",
            len(one.used),
            one.dropped,
            one.full,
            one.open,
            f"{max(one.waits) * args.speed * 1000:.0f} ms",
        )
        for name, one in outcomes
    ]
    print(show.table(headers, rows))
    return max(
        show.check_law(
            f"put with {name}",
            args.items,
            {
                "used": len(one.used),
                "dropped": one.dropped,
                "told that it is full": one.full,
                "told before trying": one.open,
            },
        )
        for name, one in outcomes
    )


if __name__ == "__main__":
    sys.exit(main())
