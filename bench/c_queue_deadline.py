"""What does a deadline on every put and get cost a C queue?

As in c_queue.py; the deadline is an hour away and never passes. "deadline": one point in time for
all calls, as a request has it. "fresh deadline": computed anew for each call, which reads the clock
each time. TBB's queue has no deadlines, GLib's has them for get only.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import harness
from harness import Subject

SECONDS = 0.4


def run(program: str, deadline: str) -> Callable[[str, float], list[str]]:
    def command(case: str, effort: float) -> list[str]:
        producers, consumers = re.findall(r"\d+", case)
        ms = max(10, int(SECONDS * 1000 * effort))
        return [harness.program(program, "a C compiler"), producers, consumers, str(ms), deadline]

    return command


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="M items/s",
    better="more",
    cases=("1p1c", "4p4c"),
    rounds=11,
    timeout=15,
    weir=(
        Subject("weir_queue, deadline", command=run("queue_weir", "fixed")),
        Subject("weir_queue, fresh deadline", command=run("queue_weir", "fresh")),
    ),
    peers=(
        Subject("weir_queue, no deadline", command=run("queue_weir", "none"), target=">= 0.95"),
        Subject("mutex + condvar, no deadline", command=run("queue_condvar", "none")),
        Subject("mutex + condvar, deadline", command=run("queue_condvar", "fixed")),
        Subject("mutex + condvar, fresh deadline", command=run("queue_condvar", "fresh")),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
