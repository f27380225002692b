#!/usr/bin/env python3
"""breaker_timeline.py - a backend goes down and comes back: what do its clients do?

First, four threads call a backend that is down from 1.5 s to 3.5 s.  A call to it then takes 50 ms
and fails; so without a circuit breaker the clients spend their time waiting for nothing.  With one
they are told at once, and a few probes find out when it is back.

Second, in simulated time: 80 calls a second with up to five attempts each, to a backend that
answers 100 a second, and for which a refusal is half as much work as an answer.  It is down for
five seconds.  Without a retry budget the retries keep it down after that, for ever; with one they
are at most a fifth more than the calls (and a hundred that were saved up).

--plot FILE draws both (needs matplotlib).
"""

from __future__ import annotations

import argparse
import heapq
import importlib
import importlib.util
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import show
import weir

SECONDS, DOWN, UP = 6.0, 1.5, 3.5  # of the first part
BIN = 0.1
SIGNS = {"closed": ".", "open": "O", "half_open": "h", "isolated": "I"}


# ---- a breaker, in real time --------------------------------------------------------------------


class Clients:
    """Threads that call a backend, with a breaker or without, and note what became of it."""

    def __init__(self, breaker: weir.CircuitBreaker | None, args: argparse.Namespace) -> None:
        self.breaker = breaker
        self.speed: float = args.speed
        self.notes: list[tuple[float, str, float]] = []  # when, outcome, seconds it took
        self.began = time.monotonic()
        self.threads = [threading.Thread(target=self.work) for _ in range(args.clients)]

    def now(self) -> float:
        return (time.monotonic() - self.began) * self.speed

    def backend(self) -> None:
        if DOWN <= self.now() < UP:
            time.sleep(0.05 / self.speed)
            raise TimeoutError("the backend did not answer")
        time.sleep(0.002 / self.speed)

    def work(self) -> None:
        while (before := self.now()) < SECONDS:
            try:
                if self.breaker:
                    self.breaker.call(self.backend)
                else:
                    self.backend()
                outcome = "answered"
            except TimeoutError:
                outcome = "failed"
            except weir.BreakerOpen:
                outcome = "rejected"
            self.notes.append((before, outcome, self.now() - before))
            time.sleep(0.01 / self.speed)

    def counts(self) -> Counter[str]:
        return Counter(outcome for _, outcome, _ in self.notes)

    def wasted(self) -> float:
        """Seconds that clients waited for calls that failed."""
        return sum(took for _, outcome, took in self.notes if outcome == "failed")


class Timeline(NamedTuple):
    without: Clients
    guarded: Clients
    changes: list[tuple[float, str]]  # when the breaker came into which state
    stats: weir.BreakerStats

    def state_at(self, when: float) -> str:
        return [state for at, state in self.changes if at <= when][-1]


def run_clients(args: argparse.Namespace) -> Timeline:
    changes = [(0.0, "closed")]

    def on_change(before: str, after: str) -> None:
        changes.append((guarded.now(), after))

    breaker = weir.CircuitBreaker(
        window=20,
        min_calls=10,
        half_open_calls=3,
        open_time=0.2 / args.speed,
        max_open_time=0.8 / args.speed,
        is_failure=TimeoutError,
        on_change=on_change,
        name="backend",
    )
    without, guarded = Clients(None, args), Clients(breaker, args)
    for thread in without.threads + guarded.threads:
        thread.start()
    for thread in without.threads + guarded.threads:
        thread.join()
    return Timeline(without, guarded, changes, breaker.stats())


def show_timeline(timeline: Timeline) -> bool:
    bins = range(round(SECONDS / BIN))
    times = [BIN * (number + 0.5) for number in bins]
    down = "".join("x" if DOWN <= when < UP else "." for when in times)
    print(f"backend  {down}  x: down")
    states = "".join(SIGNS[timeline.state_at(when)] for when in times)
    print(f"breaker  {states}  O: open, h: half-open; {BIN} s each")
    for when, state in timeline.changes[1:]:
        print(f"  {when:5.2f} s  {state}")
    rows = []
    for name, clients in (("without", timeline.without), ("with breaker", timeline.guarded)):
        counts = clients.counts()
        rows.append(
            (
                name,
                counts["answered"],
                counts["failed"],
                counts["rejected"],
                f"{clients.wasted():.1f} s",
            )
        )
    print(show.table(["", "answered", "failed", "rejected at once", "waited in vain"], rows))
    s, counts = timeline.stats, timeline.guarded.counts()
    inside = {"answered": s.succeeded, "failed": s.failed, "ignored": s.ignored + s.expired}
    holds, line = show.law("calls admitted", s.admitted, inside)
    print(line)
    agrees = (s.succeeded, s.failed, s.rejected) == (
        counts["answered"],
        counts["failed"],
        counts["rejected"],
    )
    return holds and agrees


# ---- a retry budget, in simulated time ----------------------------------------------------------

CALLS, CAPACITY, ATTEMPTS = 80, 100, 5  # calls and answers a second
STORM, OUTAGE = 40, (5, 10)  # seconds
TICKS = 10  # a second


class Second(NamedTuple):
    attempts: int
    answered: int


def storm(budget: weir.RetryBudget | None) -> tuple[list[Second], Counter[str]]:
    """The seconds, and what became of the calls."""
    retry = weir.Retry(ATTEMPTS, backoff=(0.1, 2.0), budget=budget)  # only its delays are used
    waiting: list[tuple[float, int, int]] = []  # when, number of the call, attempt
    total: Counter[str] = Counter()
    seconds = [Counter[str]() for _ in range(STORM)]
    for tick in range(STORM * TICKS):
        now = tick / TICKS
        for _ in range(CALLS // TICKS):
            total["calls"] += 1
            if budget:
                budget.deposit()
            heapq.heappush(waiting, (now, total["calls"], 1))
        due = []
        while waiting and waiting[0][0] < now + 1 / TICKS:
            due.append(heapq.heappop(waiting))
        is_down = OUTAGE[0] <= now < OUTAGE[1]
        surplus = max(0, len(due) - CAPACITY // TICKS)
        can_answer = 0 if is_down else max(0, CAPACITY // TICKS - surplus // 2)
        for place, (when, call, attempt) in enumerate(due):
            seconds[tick // TICKS]["attempts"] += 1
            if place < can_answer:
                seconds[tick // TICKS]["answered"] += 1
                total["answered"] += 1
            elif attempt == ATTEMPTS or (budget and not budget.withdraw()):
                total["given up"] += 1
            else:
                again = max(when + retry.delay(attempt), now + 1 / TICKS)
                heapq.heappush(waiting, (again, call, attempt + 1))
    total["still trying"] = len(waiting)
    return [Second(second["attempts"], second["answered"]) for second in seconds], total


def show_storm(without: list[Second], guarded: list[Second]) -> None:
    rows = []
    for number in range(0, STORM, 5):
        row: list[object] = [f"{number} - {number + 5} s"]
        for seconds in (without, guarded):
            part = seconds[number : number + 5]
            row += [sum(s.attempts for s in part) // 5, sum(s.answered for s in part) // 5]
        rows.append((*row, "down" if number == OUTAGE[0] else ""))
    headers = ["per second", "attempts", "answered", "attempts, budget", "answered, budget", ""]
    print(show.table(headers, rows))


# ---- together -----------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=show.positive(int), default=4, metavar="N")
    parser.add_argument("--plot", type=Path, default=None, metavar="FILE")
    parser.add_argument(
        "--speed", type=show.positive(float), default=1.0, metavar="N", help="default 1"
    )
    args = parser.parse_args()
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        print(
            "--plot draws with matplotlib, which is not installed for this Python", file=sys.stderr
        )
        return 2

    timeline = run_clients(args)
    good = show_timeline(timeline)
    print()
    without, all_without = storm(None)
    guarded, all_guarded = storm(weir.RetryBudget(0.2, 0))
    show_storm(without, guarded)
    for total in (all_without, all_guarded):
        calls = total.pop("calls")
        good = show.check_law("calls", calls, total) == 0 and good
    if args.plot:
        draw(args.plot, timeline, without, guarded)
        print(f"chart: {args.plot}")
    return 0 if good else 1


def draw(path: Path, timeline: Timeline, without: list[Second], guarded: list[Second]) -> None:
    importlib.import_module("matplotlib").use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 7), layout="constrained")
    draw_timeline(upper, timeline)
    for seconds, colour, name in (
        (without, "#c44e52", "without a budget"),
        (guarded, "#2a6f97", "with a budget of a fifth"),
    ):
        lower.plot([s.attempts for s in seconds], color=colour, label=f"attempts, {name}")
        lower.plot([s.answered for s in seconds], ":", color=colour, label=f"answered, {name}")
    lower.axvspan(*OUTAGE, color="0.92")
    lower.set(xlabel="seconds, simulated", ylabel="per second", xlim=(0, STORM - 1))
    lower.set_title("Up to five attempts: the retries keep the backend down, or not", loc="left")
    lower.legend(frameon=False, fontsize="small")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format=path.suffix[1:] or "png", dpi=150)
    plt.close(figure)


def draw_timeline(axes: Any, timeline: Timeline) -> None:
    edges = [BIN * number for number in range(round(SECONDS / BIN) + 1)]
    colours = {"answered": "#55a868", "failed": "#c44e52", "rejected": "#bbbbbb"}
    notes = timeline.guarded.notes
    axes.hist(
        [[when for when, outcome, _ in notes if outcome == one] for one in colours],
        bins=edges,
        stacked=True,
        color=list(colours.values()),
        label=list(colours),
    )
    top = axes.get_ylim()[1]
    ends = [at for at, _ in timeline.changes[1:]] + [SECONDS]
    shades = {"closed": "#55a868", "open": "#c44e52", "half_open": "#dd8452"}
    for (begin, state), end in zip(timeline.changes, ends, strict=True):
        axes.fill_between([begin, end], top * 1.02, top * 1.08, color=shades[state], linewidth=0)
    axes.axvspan(DOWN, UP, color="0.92", zorder=0)
    axes.set(xlabel="seconds", ylabel=f"calls in {BIN} s", xlim=(0, SECONDS))
    axes.set_title("The state of the breaker, and what became of the calls", loc="left")
    axes.set_ylim(0, top * 1.25)
    axes.legend(frameon=False, fontsize="small", ncols=3, loc="upper right")


if __name__ == "__main__":
    sys.exit(main())
