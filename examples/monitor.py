#!/usr/bin/env python3
"""monitor.py - what is the matter, said while it happens (scenario S14).

A shop takes 20 orders a second and its four workers store them, in 50 ms each.  Then the store
gets slow for a while, 6 s for each order, and then well again.  A `weir.Monitor` of the last 100
looks prints a line each second, and says when an issue begins and when it ends: the queue's average
above 50, more than 1 s for an order, more than 10 times that the source had to wait, less than one
order a second.  All of this can be set; nothing in the shop knows that it is looked at.

    --plot FILE   draws depth, throughput, times and issues to FILE.png or .svg (needs matplotlib)
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator

import show
import weir

# How the store is, for so many orders, and the seconds it takes for each.
PHASES = (("well", 200, 0.05), ("slow", 130, 6.0), ("well again", 100, 0.05), ("fine", 400, 0.05))
RATE = 20.0  # orders a second
WORKERS = 4


class Shop:
    """A pipeline of a source and one stage, which takes as long as the phase says."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.state, _, self.service = PHASES[0]
        self.is_over = threading.Event()
        self.pipeline = weir.Pipeline(self.orders(), name="shop")
        self.pipeline.sink(self.store, name="store", queue=100, workers=WORKERS)

    def orders(self) -> Iterator[int]:
        for self.state, orders, self.service in PHASES:
            print(f"-- the store is {self.state}")
            for number in range(orders):
                yield number
                time.sleep(1 / RATE / self.speed)
        self.is_over.set()

    def store(self, order: int) -> None:
        # In small steps, so that an order that is under way when the store gets well ends soon.
        began, share = time.monotonic(), 0.8 + order % 5 / 10
        while time.monotonic() - began < share * self.service / self.speed:
            time.sleep(min(0.05, self.service) / self.speed)


def watch(shop: Shop, args: Namespace) -> weir.Monitor:
    began = time.monotonic()

    def now() -> str:
        return f"{(time.monotonic() - began) * args.speed:5.1f} s"

    def on_issue(issue: weir.Issue) -> None:
        if issue.ended is None:
            print(f"{now()}  {issue.issue}: {issue.text}")
            print(f"         {issue.root or 'nothing is held back'}")
        else:
            seconds = (issue.ended - issue.since) * args.speed
            print(f"{now()}  {issue.issue} is over after {seconds:.0f} s")

    return weir.Monitor(
        args.window,
        args.interval / args.speed,
        on_issue=on_issue,
        logger=None,  # it would say the same
        queue_share=None,
        queue_depth=args.queue,
        service=args.service / args.speed,
        events=args.events,
        throughput=args.throughput * args.speed,
        age_growth=None,
    )


def line(monitor: weir.Monitor, speed: float) -> str:
    """The last second of the stage."""
    history = monitor.history("shop/store")
    stage = monitor.stats["shop/store"]
    second = max(1, round(len(history) / max(1.0, (history.at[-1] - history.at[0]) * speed)))
    done = sum(history.delivered[-second:]) / second / speed
    return (
        f"queue {history.depth[-1]:3.0f}   {done:5.1f} orders/s   "
        f"an order takes {stage.recent_service.mean * speed:5.2f} s   "
        f"the source has waited {stage['put_waits']} times"
    )


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    number, whole = show.positive(float), show.positive(int)
    parser.add_argument("--window", type=whole, default=100, help="looks (default 100)")
    parser.add_argument("--interval", type=number, default=0.2, help="seconds (default 0.2)")
    parser.add_argument("--queue", type=number, default=50, help="orders (default 50)")
    parser.add_argument("--service", type=number, default=1.0, help="seconds (default 1)")
    parser.add_argument("--events", type=whole, default=10, help="in a window (default 10)")
    parser.add_argument(
        "--throughput", type=number, default=1.0, help="orders a second (default 1)"
    )
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("--speed", type=number, default=1.0, help="divide every duration by this")
    args = parser.parse_args()
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        print("monitor.py: --plot needs matplotlib, which is not installed", file=sys.stderr)
        return 2

    shop = Shop(args.speed)
    shop.pipeline.start()
    with watch(shop, args) as monitor:
        while not shop.is_over.wait(1 / args.speed):
            if "shop/store" in monitor.stats:
                print(" " * 9 + line(monitor, args.speed))
            if args.plot and shop.state == "fine":
                monitor.plot(args.plot)  # the window: how it got well
                print(f"drawn: {args.plot}")
                args.plot = None
    report = shop.pipeline.run()
    print(f"\n{monitor.report()}\n\n{report}")
    stored = report.stages["store"].processed
    return show.check_law("orders", report.accepted, {"stored": stored, "left": report.left})


if __name__ == "__main__":
    sys.exit(main())
