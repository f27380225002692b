#!/usr/bin/env python3
"""autoscale.py - one producer, one to eight consumers, by what the queue needs (scenario S19).

A consumer takes 20 ms for an item; the load is 100 items/s, triples, and falls back.  The right
number of consumers is the load times 20 ms: 2, 6 and 2.  What is seen is how soon there are as
many, and that their number then stays.

    --plot FILE   draws depth, workers and throughput (needs matplotlib)
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import threading
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator
from typing import NamedTuple

import show
import weir

SERVICE = 0.02  # seconds an item takes
SETTLED = 5.0  # seconds after which the number should be right


class Sample(NamedTuple):
    """What was seen at one instant."""

    at: float  # seconds
    load: float  # items a second
    workers: int
    depth: int
    done: int


class Run:
    """The load in three phases, and what was seen ten times a second."""

    def __init__(self, loads: list[float], phase: float, queue: int, workers: tuple[int, int]):
        self.loads, self.phase = loads, phase
        self.load = loads[0]
        self.samples: list[Sample] = []
        self.pipeline = weir.Pipeline(self.numbers(), name="autoscale")
        self.pipeline.sink(
            lambda _: time.sleep(SERVICE), name="consume", queue=queue, workers=workers
        )

    def numbers(self) -> Iterator[int]:
        """Items at the rate of each phase, however late the last one was taken."""
        began, due, number = time.monotonic(), 0.0, 0
        while (phase := int(due / self.phase)) < len(self.loads):
            self.load = self.loads[phase]
            time.sleep(max(0.0, began + due - time.monotonic()))
            yield number
            number += 1
            due += 1 / self.load

    def watch(self, over: threading.Event) -> None:
        began = time.monotonic()
        while not over.wait(0.1):
            stage = self.pipeline.stats().stages["consume"]
            at = time.monotonic() - began
            self.samples.append(Sample(at, self.load, stage.workers, stage.qsize, stage.processed))

    def run(self) -> weir.PipelineReport:
        over = threading.Event()
        self.pipeline.start()
        watching = threading.Thread(target=self.watch, args=(over,))
        watching.start()
        report = self.pipeline.run()
        over.set()
        watching.join()
        return report

    def rows(self) -> Iterator[tuple[object, ...]]:
        for number, load in enumerate(self.loads):
            begin = number * self.phase
            seen = [s for s in self.samples if begin <= s.at < begin + self.phase]
            settled = [s for s in seen if s.at >= begin + min(SETTLED, self.phase / 2)]
            counts = [s.workers for s in settled] or [0]
            yield (
                f"{begin:.0f} s",
                f"{load:.0f}/s",
                f"{load * SERVICE:.0f}",
                f"{min(counts)}-{max(counts)}",
                turns([s.workers for s in settled]),
                f"{sum(s.depth for s in settled) / max(1, len(settled)):.1f}",
            )


def turns(counts: list[int]) -> int:
    """How often the number turned from growing to shrinking, or back."""
    steps = [b - a for a, b in itertools.pairwise(counts) if a != b]
    return sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))


def draw(samples: list[Sample], path: str) -> None:
    importlib.import_module("matplotlib").use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    at = [s.at for s in samples]
    window = 10  # samples: a second
    pairs = zip(samples, samples[window:], strict=False)
    rates = [(b.done - a.done) / (b.at - a.at) for a, b in pairs]

    figure, (top, middle, bottom) = pyplot.subplots(3, 1, sharex=True, figsize=(8, 6))
    needed = [s.load * SERVICE for s in samples]
    top.step(at, needed, "--", where="post", label="right number", color="0.6")
    top.step(at, [s.workers for s in samples], where="post", label="workers", color="tab:blue")
    top.set_ylabel("workers")
    top.legend()
    middle.plot(at, [s.depth for s in samples], color="tab:red")
    middle.set_ylabel("items in the queue")
    bottom.step(at, [s.load for s in samples], "--", where="post", label="load", color="0.6")
    bottom.plot(at[window:], rates, label="throughput", color="tab:green")
    bottom.set_ylabel("items a second")
    bottom.set_xlabel("seconds")
    bottom.legend()
    for axes in (top, middle, bottom):
        axes.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path)
    print(f"drawn: {path}")


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--load", type=show.positive(float), default=100.0, help="items a second")
    parser.add_argument("--phase", type=show.positive(float), default=15.0, help="seconds")
    parser.add_argument("--queue", type=show.positive(int), default=50)
    parser.add_argument("--workers", type=show.positive(int), default=8, help="at most")
    parser.add_argument("--plot", metavar="FILE")
    args = parser.parse_args()

    if args.plot and importlib.util.find_spec("matplotlib") is None:
        print("autoscale.py: --plot needs matplotlib, which is not installed", file=sys.stderr)
        return 2

    loads = [args.load, 3 * args.load, args.load]
    run = Run(loads, args.phase, args.queue, (1, args.workers))
    report = run.run()
    headers = ("from", "load", "right", "workers, settled", "turns", "depth")
    print(show.table(headers, run.rows()))
    print(report)
    if args.plot:
        draw(run.samples, args.plot)
    stage = report.stages["consume"]
    return show.check_law("made", report.accepted, {"consumed": stage.processed})


if __name__ == "__main__":
    sys.exit(main())
