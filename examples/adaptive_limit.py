#!/usr/bin/env python3
"""adaptive_limit.py - a backend whose capacity halves and recovers, and limits that find it.

The backend serves 40 calls at a time, 10 ms each; from 10 s on it serves 20, from 20 s on 40 again.
More callers than that want it all the time, and call as soon as the limit lets them.  A limit that
is too high makes them wait in the backend's line, one that is too low leaves servers idle.

Time is simulated: thirty seconds pass in about one.  `weir.LimitModel` is what `weir.Limiter` finds
its limit with, without a clock.
"""

from __future__ import annotations

import argparse
import heapq
import importlib
import importlib.util
import itertools
import random
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import show
import weir

SECONDS = 30
SERVICE = 0.010  # seconds that a call takes when nobody waits, +- 20 %
CHANGES = ((0, 40), (10, 20), (20, 40))  # from this second on, so many servers


def capacity_at(now: float) -> int:
    return next(servers for since, servers in reversed(CHANGES) if now >= since)


@dataclass
class Backend:
    """Servers with a line before them, in simulated time; it refuses calls when `patience` wait."""

    patience: int | None
    random: random.Random
    now: float = 0.0
    busy: list[tuple[float, float]] = field(default_factory=list)  # when it ends, and began
    line: deque[float] = field(default_factory=deque)

    @property
    def servers(self) -> int:
        return capacity_at(self.now)

    def serve(self) -> None:
        while self.line and len(self.busy) < self.servers:
            service = SERVICE * self.random.uniform(0.8, 1.2)
            heapq.heappush(self.busy, (self.now + service, self.line.popleft()))

    def call(self) -> bool:
        """Takes a call; False: refused."""
        full = self.patience is not None and len(self.line) >= self.patience
        if full and len(self.busy) >= self.servers:
            return False
        self.line.append(self.now)
        self.serve()
        return True

    def end(self) -> float:
        """Time passes until a call ends; how long that took."""
        self.now, began = heapq.heappop(self.busy)
        self.serve()
        return self.now - began


@dataclass
class Run:
    """What one limit made of the backend."""

    name: str
    ended: int = 0
    refused: int = 0
    begun: int = 0
    points: list[tuple[float, int, float]] = field(default_factory=list)  # time, limit, latency

    def between(self, since: float, until: float) -> tuple[float, float, float]:
        """Average limit over time, average latency in ms, and calls a second."""
        rows = [row for row in self.points if since <= row[0] < until]
        spans = [b[0] - a[0] for a, b in itertools.pairwise(rows)]
        held = sum(row[1] * span for row, span in zip(rows, spans, strict=False)) / sum(spans)
        return held, 1e3 * sum(row[2] for row in rows) / len(rows), len(rows) / (until - since)

    def found_after(self, since: float, until: float, servers: int) -> float | None:
        """Seconds until the limit, averaged over half a second, is within 10 % and stays there."""
        found = None
        for step in range(int((until - since) * 2)):
            at = since + step / 2
            held = self.between(at, at + 0.5)[0]
            if abs(held - servers) > 0.1 * servers:
                found = None
            elif found is None:
                found = at - since
        return found


def simulate(name: str, settings: Any, patience: int | None, seed: int) -> Run:
    backend = Backend(patience, random.Random(seed))
    run = Run(name)
    model = weir.LimitModel(settings) if not isinstance(settings, int) else None
    limit = model.limit if model else settings
    in_flight, quiet_until = 0, 0.0
    while backend.now < SECONDS:
        while in_flight < limit and backend.now >= quiet_until:
            run.begun += 1
            if backend.call():
                in_flight += 1
                continue
            run.refused += 1
            quiet_until = backend.now + 0.001  # the caller comes again then
            if model:
                limit = model.sample(backend.now, 0.0001, in_flight + 1, True)
        latency = backend.end()
        if model:
            limit = model.sample(backend.now, latency, in_flight)
        in_flight -= 1
        run.ended += 1
        run.points.append((backend.now, limit, latency))
    run.begun -= in_flight
    return run


CASES: tuple[tuple[str, Callable[[], Any], int | None], ...] = (
    ("fixed 40", lambda: 40, None),
    ("AIMD, refusals", weir.AIMD, 1),
    ("AIMD, timeout", lambda: weir.AIMD(timeout=0.013), None),
    ("AIMD, neither", lambda: weir.AIMD(max_limit=200), None),
    ("Vegas", weir.Vegas, None),
    ("Gradient2", weir.Gradient2, None),
)


def table(runs: list[Run]) -> str:
    headers = ["", *(f"{text} {n}" for n in (40, 20, 40) for text in ("limit", "ms", "found"))]
    rows = []
    for run in runs:
        cells = [run.name]
        for (since, servers), until in zip(CHANGES, (10, 20, SECONDS), strict=True):
            held, latency, _ = run.between(until - 5, until)
            found = run.found_after(since, until, servers)
            cells += [
                f"{held:.1f}",
                f"{latency:.1f}",
                "never" if found is None else f"{found:.1f} s",
            ]
        rows.append(cells)
    return show.table(headers, rows)


def draw(runs: list[Run], path: Path) -> None:
    importlib.import_module("matplotlib").use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    figure, (limits, latencies) = plt.subplots(
        2, 1, figsize=(9, 7), sharex=True, layout="constrained"
    )
    times = [step / 100 for step in range(SECONDS * 100)]
    limits.plot(times, [capacity_at(t) for t in times], color="0.6", linewidth=5, label="capacity")
    for run in runs:
        kept = run.points[::20]
        limits.plot([p[0] for p in kept], [p[1] for p in kept], linewidth=1.2, label=run.name)
        latencies.plot([p[0] for p in kept], [1e3 * p[2] for p in kept], linewidth=0.8)
    limits.set_ylim(0, 80)
    limits.set_ylabel("limit (calls at a time)")
    limits.set_title("A backend whose capacity halves and recovers", loc="left")
    limits.legend(frameon=False, ncols=2)
    latencies.set_ylim(0, 60)
    latencies.set_ylabel("latency (ms)")
    latencies.set_xlabel("seconds")
    for axes in (limits, latencies):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draws it, with matplotlib")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default 1")
    args = parser.parse_args()
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        print("adaptive_limit: --plot needs matplotlib: scripts/setup plot", file=sys.stderr)
        return 2
    runs = [simulate(name, make(), patience, args.seed) for name, make, patience in CASES]
    print("In the last 5 s of each 10 s: the limit, the latency, and when it had been found.\n")
    print(table(runs))
    print()
    if args.plot:
        draw(runs, args.plot)
        print(f"chart: {args.plot}")
    begun = sum(run.begun for run in runs)
    parts = {"ended": sum(run.ended for run in runs), "refused": sum(run.refused for run in runs)}
    return show.check_law("calls", begun, parts)


if __name__ == "__main__":
    sys.exit(main())
