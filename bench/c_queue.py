"""How many items a second go through a C queue of capacity 1024 between threads that wait?

Producers put numbers as fast as they can for 0.4 s, consumers get them until everything is out;
count and sum are checked. "100p8c" is 100 producers and 8 consumers. Those that cannot wait
(marked) yield and try again, which no program that does something else should do; Go's are
goroutines, which change places without the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import harness
from harness import Subject

SECONDS = 0.4


def run(program: str, needs: str = "a C compiler") -> Callable[[str, float], list[str]]:
    def command(case: str, effort: float) -> list[str]:
        producers, consumers = re.findall(r"\d+", case)
        ms = max(10, int(SECONDS * 1000 * effort))
        return [harness.program(program, needs), producers, consumers, str(ms)]

    return command


CANNOT_WAIT = "cannot wait: yields and tries again"

QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="M items/s",
    better="more",
    cases=("1p1c", "4p4c", "100p8c"),
    rounds=7,
    timeout=15,
    weir=(Subject("weir_queue", command=run("queue_weir")),),
    peers=(
        Subject("mutex + condvar", command=run("queue_condvar"), target=">= 2"),
        Subject(
            "TBB concurrent_bounded_queue",
            command=run("queue_tbb", "libtbb-dev"),
            target=">= 2",
        ),
        Subject(
            "GLib GAsyncQueue",
            command=run("queue_glib", "libglib2.0-dev"),
            target=">= 2",
            note="has no bound: a put never waits",
        ),
        Subject(
            "boost::lockfree::queue", command=run("queue_boost", "libboost-dev"), note=CANNOT_WAIT
        ),
        Subject("ck_ring", command=run("queue_ck", "libck-dev"), note=CANNOT_WAIT),
        Subject("Go channel", command=run("queue_go", "golang-go"), note="goroutines"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
