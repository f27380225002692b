#!/usr/bin/env python3
"""soak - mixes everything that weir has, for minutes, and says what has become of each item.

  tests/soak/soak.py --minutes 30
  tests/soak/soak.py --minutes 1 --seed 7 queue pool   loads with "queue" or "pool" in their name

Queues of every policy, executors, event loops, shared queues and limits run beside each other while
processes are killed and forked, signals come, cycles are collected, and others look on.  Each load
works in rounds and checks each; once a minute all pause, so that what the process holds can be
measured.  Exit status 1: a law was broken, a waiter was stuck, or something grew.
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback

from ledger import Ledger, Usage
from loads import (
    AsyncQueueLoad,
    CycleLoad,
    ForkLoad,
    InterpreterLoad,
    Load,
    MemoryLoad,
    ProcessPoolLoad,
    QueueLoad,
    SignalLoad,
    ThreadPoolLoad,
    WatchLoad,
)
from shared_loads import SharedLimiterLoad, SharedQueueLoad

STUCK = 900.0  # seconds that a round may take on a busy machine
WARM_UP = 0.1  # of the time: what is allocated once has been by then


def all_loads(ledger: Ledger, seed: int) -> list[Load]:
    policies = ("block", "fail", "drop_newest", "drop_oldest", "sample", "spill")
    return [
        *(QueueLoad(policy, ledger, seed) for policy in policies),
        *(SharedQueueLoad(policy, ledger, seed) for policy in ("block", "drop_oldest")),
        AsyncQueueLoad("Queue asyncio", ledger, seed),
        ThreadPoolLoad("ThreadPoolExecutor", ledger, seed),
        ProcessPoolLoad("ProcessPoolExecutor", ledger, seed),
        SharedLimiterLoad("Limiter shared", ledger, seed),
        MemoryLoad("MemoryGovernor", ledger, seed),
        ForkLoad("(forks)", ledger, seed),
        SignalLoad("(signals)", ledger, seed),
        CycleLoad("(cycles)", ledger, seed),
        InterpreterLoad("(interpreters)", ledger, seed),
        WatchLoad("(looks)", ledger, seed),
    ]


class Runner:
    """A load in its thread, which can be held up between two rounds."""

    def __init__(self, load: Load, ledger: Ledger) -> None:
        self.load, self.ledger = load, ledger
        self.may_run, self.is_idle = threading.Event(), threading.Event()
        self.ends = False
        self.thread = threading.Thread(target=self._run, name=load.name, daemon=True)

    def _run(self) -> None:
        while not self.ends:
            if not self.may_run.is_set():
                self.is_idle.set()
                self.may_run.wait()
                continue
            try:
                self.load.round()
            except Exception:
                self.ledger.break_law(self.load.name, traceback.format_exc())
                time.sleep(1.0)
            self._rest()

    def _rest(self) -> None:
        """Sleeps in steps, so that nobody has to wait for it."""
        until = time.monotonic() + self.load.pause
        while time.monotonic() < until and self.may_run.is_set():
            time.sleep(min(0.05, self.load.pause))

    def resume(self) -> None:
        self.is_idle.clear()
        self.may_run.set()

    def hold(self) -> None:
        self.may_run.clear()


def pause(runners: list[Runner], ledger: Ledger) -> bool:
    """Whether all have ended their rounds; one that does not is stuck."""
    for runner in runners:
        runner.hold()
    deadline = time.monotonic() + STUCK
    for runner in runners:
        if not runner.is_idle.wait(max(0.0, deadline - time.monotonic())):
            ledger.break_law(runner.load.name, f"its round has not ended within {STUCK:.0f} s")
            faulthandler.dump_traceback(all_threads=True)
            return False
    return True


signals = 0


def on_signal(signum: int, frame: object) -> None:
    del signum, frame
    global signals
    signals += 1


def watch_signals() -> None:
    for signum in (signal.SIGUSR1, signal.SIGALRM, signal.SIGCHLD):
        signal.signal(signum, on_signal)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)


def report(ledger: Ledger, minutes: float, usage: Usage) -> None:
    print(f"\n---- after {minutes:.1f} minutes, {signals} signals: {usage}", flush=True)
    print(ledger.text(), flush=True)


def run(runners: list[Runner], ledger: Ledger, minutes: float) -> tuple[Usage, Usage]:
    """Until the time is over, or one is stuck; what there was after the warm-up, and at the end."""
    began = time.monotonic()
    end = began + 60 * minutes
    first: Usage | None = None
    next_stop = began + 60 * min(1.0, minutes * WARM_UP)
    while True:
        for runner in runners:
            runner.resume()
        while time.monotonic() < min(next_stop, end):
            time.sleep(0.2)
        is_whole = pause(runners, ledger)
        usage = Usage.now()
        elapsed = time.monotonic() - began
        report(ledger, elapsed / 60, usage)
        if elapsed >= 60 * minutes * WARM_UP and first is None:
            first = usage
        if not is_whole or time.monotonic() >= end:
            return first or usage, usage
        next_stop = time.monotonic() + min(60.0, 60 * minutes / 3)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30, help="(default 30)")
    parser.add_argument("--seed", type=int, default=None, help="(default: another each time)")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    seed = int(time.time()) if args.seed is None else args.seed
    ledger = Ledger()
    wanted = [
        load
        for load in all_loads(ledger, seed)
        if not args.names or any(name.lower() in load.name.lower() for name in args.names)
    ]
    if not wanted:
        print(f"weir: soak: no load is named {args.names}", file=sys.stderr)
        return 2
    print(f"seed {seed}, {len(wanted)} loads, {args.minutes:g} minutes", flush=True)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2)  # says where each thread is
    multiprocessing.set_forkserver_preload(["loads"])
    watch_signals()
    runners = [Runner(load, ledger) for load in wanted]
    for runner in runners:
        if isinstance(runner.load, SignalLoad):
            runner.load.threads = tuple(r.thread for r in runners if r is not runner)
    for runner in runners:
        runner.thread.start()
    first, last = run(runners, ledger, args.minutes)
    signal.setitimer(signal.ITIMER_REAL, 0)
    broken = [*ledger.broken, *last.growth(first)]
    print(f"\nafter the warm-up: {first}\nat the end:        {last}")
    print("\n".join(broken) if broken else "every law holds, and nothing grew")
    sys.stdout.flush()
    os._exit(1 if broken else 0)  # without waiting for a thread that is stuck


if __name__ == "__main__":
    sys.exit(main())
