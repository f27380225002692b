"""What does it cost that other processes can see the numbers of queues and pools?

The same loads as in queue_one_thread, queue_threads, thread_submit and process_submit, with the
build that is measured everywhere, and with one that differs in `meson setup -Dstats=false` alone
(build-bare/).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import harness
import process_submit
import queue_one_thread
import queue_threads
import thread_submit
from harness import Subject

BARE = harness.ROOT / "build-bare" / "prefix" / "python"

LOADS: dict[str, Callable[[float], float]] = {
    "queue, one thread": lambda effort: 1e6 * queue_one_thread.weir("", effort),
    "queue, 1p1c": lambda effort: 1e3 * queue_threads.weir("1p1c", effort),
    "queue, 4p4c": lambda effort: 1e3 * queue_threads.weir("4p4c", effort),
    "threads, in slices": lambda effort: thread_submit.weir_with()("in slices", effort),
    "threads, one by one": lambda effort: thread_submit.weir_with()("one by one", effort),
    "processes": lambda effort: process_submit.weir_with()("", effort),
}


def load(case: str, effort: float) -> float:
    return LOADS[case](effort)


def without_stats(case: str, effort: float) -> list[str]:
    """The same in the other build."""
    if not BARE.exists():
        raise harness.Missing("the build without stats; `scripts/build bare` makes it")
    python = [sys.executable, __file__, "--measure", "weir", case, str(effort)]
    return ["env", f"PYTHONPATH={BARE}", *python]


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="items/s",
    better="more",
    cases=tuple(LOADS),
    weir=(Subject("weir", load),),
    peers=(Subject("weir without stats", command=without_stats, target=">= 0.97"),),
    rounds=11,
)

if __name__ == "__main__":
    if not {"--as-is", "--measure"} & {*sys.argv}:
        subprocess.run([harness.ROOT / "scripts" / "build", "bare"], check=True)
    raise SystemExit(harness.ask(QUESTION))
