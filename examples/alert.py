#!/usr/bin/env python3
"""alert.py - be told before there is trouble, and do something about it (scenario S24).

11 jobs a second come in, one consumer does 10, and a queue of 200 gets one job fuller every
second, from 120 on.  Trouble would be a full queue, whose producer has to wait.  Two alerts come
before that:

    the queue is 80 % full for 30 seconds      then a second consumer is started
    the process has 70 % of its memory         said only

Both ask a `weir.Monitor`, which looks at what the program tells anyway; a rule that has to be true
for a while is a few lines.  Prometheus can do the same from outside: `weir.serve_metrics(port)`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import show
import weir

JOB = bytes(512 << 10)  # what a job holds is a copy of this


@dataclass
class Alert:
    """Something that must not be true for `patience` seconds."""

    text: str
    is_true: Callable[[weir.Stats], bool]
    patience: float
    react: Callable[[], None]
    since: float | None = None
    is_on: bool = False
    fired: int = 0

    def look(self, stats: weir.Stats) -> None:
        if not self.is_true(stats):
            if self.is_on:
                print(f"over: {self.text}")
            self.since, self.is_on = None, False
            return
        self.since = self.since or stats.at
        if not self.is_on and stats.at - self.since >= self.patience:
            self.is_on = True
            self.fired += 1
            print(f"ALERT: {self.text}")
            self.react()


class Consumers:
    """Threads that do `rate` jobs a second each."""

    def __init__(self, jobs: weir.Queue[bytearray], rate: float) -> None:
        self.jobs, self.rate, self.done = jobs, rate, 0
        self.threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def add(self) -> None:
        self.threads.append(threading.Thread(target=self.work))
        self.threads[-1].start()

    def work(self) -> None:
        due = time.monotonic()
        for _ in self.jobs:
            with self._lock:
                self.done += 1
            due += 1 / self.rate
            time.sleep(max(0.0, due - time.monotonic()))


def main() -> int:
    args = show.options(__doc__, queue=200, inside=120, come=11.0, done=10.0, limit_mib=128)
    jobs: weir.Queue[bytearray] = weir.Queue(args.queue, name="jobs")
    consumers = Consumers(jobs, args.done * args.speed)
    limit = args.limit_mib * show.MIB
    alerts = [
        Alert(
            "queue 'jobs' is 80 % full for 30 s: there will be a second consumer",
            lambda stats: (stats["jobs"].fullness or 0) >= 0.8,
            30 / args.speed,
            consumers.add,
        ),
        Alert(
            f"this process has more than 70 % of the {args.limit_mib} MiB it may have",
            lambda stats: stats.processes[0].rss >= 0.7 * limit,
            0,
            lambda: None,
        ),
    ]

    monitor = weir.Monitor(interval=None, logger=None)  # None: no thread, look() looks
    for _ in range(args.inside):
        jobs.put(bytearray(JOB))
    consumers.add()
    put, began, said = args.inside, time.monotonic(), 0.0
    while not (alerts[0].fired and not alerts[0].is_on):
        jobs.put(bytearray(JOB))
        put += 1
        stats = monitor.look()
        if stats.at - said >= 5 / args.speed:
            said = stats.at
            at = (time.monotonic() - began) * args.speed
            memory = show.mib(stats.processes[0].rss)
            print(f"{at:5.0f} s   queue {stats['jobs']['depth']:3} of {args.queue}   {memory}")
        for alert in alerts:
            alert.look(stats)
        due = began + (put - args.inside) / args.come / args.speed
        time.sleep(max(0.0, due - time.monotonic()))

    waits = monitor.look()["jobs"]["put_waits"]
    print(f"the producer had to wait {waits} times; memory was above 70 % {alerts[1].fired} times")
    jobs.shutdown()
    for thread in consumers.threads:
        thread.join()
    return show.check_law("jobs", put, {"done": consumers.done})


if __name__ == "__main__":
    sys.exit(main())
