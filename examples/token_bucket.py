#!/usr/bin/env python3
"""token_bucket.py - five at once, then one every half second (scenario S11).

A bucket of 5 tokens that fills with 2 in a second, and 20 operations that take one each.  The first
five need not wait; each of the others starts when its token is there, half a second after the one
before, however late that one was woken up: nothing drifts.

With --plot FILE (PNG, SVG or PDF; needs matplotlib) it also shows what a bucket does to bursts: ten
seconds of requests that come in bursts, what goes through, and the tokens inside.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys
import time
from argparse import Namespace
from concurrent.futures import Future, ThreadPoolExecutor

import show
import weir


def main() -> int:
    plot = option("--plot")
    args = show.options(__doc__, operations=20, capacity=5, rate=2.0)
    if plot is not None and not can_draw():
        print("token_bucket.py: --plot needs matplotlib, which is not installed", file=sys.stderr)
        return 2

    began = time.monotonic()
    bucket = weir.TokenBucket(args.rate * args.speed, burst=args.capacity)
    rows, last = [], began
    for operation in range(1, args.operations + 1):
        bucket.acquire()
        now = time.monotonic()
        rows.append((operation, seconds(now - began, args), seconds(now - last, args)))
        last = now
    print(show.table(("operation", "started at", "after the one before"), rows))

    took = (last - began) * args.speed
    least = (args.operations - args.capacity) / args.rate
    print(f"{args.operations} operations in {took:.2f} s; not possible in less than {least:.2f} s")
    if plot is not None:
        draw(plot, args)
    stats = bucket.stats()
    return show.check_law("tokens granted", stats.granted, {"used": args.operations})


def seconds(duration: float, args: Namespace) -> str:
    return f"{duration * args.speed:.2f} s"


def option(name: str) -> str | None:
    """Takes one option out of the command line, which show.options reads the rest of."""
    for at, word in enumerate(sys.argv):
        if word == name and at + 1 < len(sys.argv):
            _, value = sys.argv[at : at + 2]
            del sys.argv[at : at + 2]
            return value
        if word.startswith(name + "="):
            del sys.argv[at]
            return word.partition("=")[2]
    return None


# ---- bursts -------------------------------------------------------------------------------------

DURATION = 10.0  # seconds
BURSTS = ((0.5, 9), (5.0, 3), (6.5, 8))  # when, and how many requests


def draw(path: str, args: Namespace) -> None:
    """Requests that come in bursts, through a bucket of their own."""
    importlib.import_module("matplotlib").use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    began = time.monotonic()
    bucket = weir.TokenBucket(args.rate * args.speed, burst=args.capacity)

    def now() -> float:
        return (time.monotonic() - began) * float(args.speed)

    def request() -> float:
        bucket.acquire()
        return now()

    arrivals: list[float] = []
    through: list[Future[float]] = []
    levels: list[tuple[float, int]] = []
    waiting = {at + 0.2 * random.random(): n for at, n in BURSTS}
    with ThreadPoolExecutor(sum(n for _, n in BURSTS)) as threads:
        while now() < DURATION:
            for at in [at for at in waiting if at <= now()]:
                for _ in range(waiting.pop(at)):
                    arrivals.append(now())
                    through.append(threads.submit(request))
            levels.append((now(), bucket.available))
            time.sleep(0.02 / args.speed)
    starts = sorted(future.result() for future in through)

    figure, (top, bottom) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5))
    counts = range(1, len(starts) + 1)
    top.step(arrivals, counts, where="post", label="came", color="tab:red")
    top.step(starts, counts, where="post", label="went through", color="tab:blue")
    top.set_ylabel("requests")
    top.set_title(f"{args.rate:g} in a second, and {args.capacity} at once")
    top.legend()
    bottom.step(*zip(*levels, strict=True), where="post", color="tab:green")
    bottom.set_ylabel("tokens inside")
    bottom.set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path)
    print(f"drawn: {path}")


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


if __name__ == "__main__":
    sys.exit(main())
