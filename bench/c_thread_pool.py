"""How many empty tasks a second does a C thread pool run?

One thread submits, two threads run; from the first submit until the last task has run. Each task
counts itself in a cell of its thread, and the counts are checked.
"""

from __future__ import annotations

from collections.abc import Callable

import harness
from harness import Subject

THREADS = 2
TASKS = 1_000_000


def run(program: str, needs: str) -> Callable[[str, float], list[str]]:
    def command(case: str, effort: float) -> list[str]:
        return [harness.program(program, needs), str(THREADS), str(int(TASKS * effort))]

    return command


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="M tasks/s",
    better="more",
    rounds=7,
    weir=(
        Subject(
            "weir_thread_pool", command=run("pool_weir", "a C compiler"), note="backlog of 1024"
        ),
    ),
    peers=(
        Subject(
            "GLib GThreadPool",
            command=run("pool_glib", "libglib2.0-dev"),
            target=">= 3",
            note="has no bound: a push never waits",
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
