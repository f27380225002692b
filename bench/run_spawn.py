"""How many jobs a second does a command runner start, two at a time?

5,000 x /bin/true, each with an item of a file of numbers as its argument; what they print is kept
apart where the runner can do that. The bare loop is posix_spawn and wait in C, and nothing else.
Seconds are those of the clock, and those of the processors that all processes together took, which
other programs on the machine disturb least.
"""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harness
from harness import Subject
from runners import installed, parallel, weir

JOBS = 5000
PROGRAM = "/bin/true"
CLOCK, CPU = "a second", "a second of processor time"


def cpu_seconds() -> float:
    """Of the processes that we have waited for, and of those that they have."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(command: Callable[[int], list[str]]) -> Callable[[str, float], float]:
    def run(case: str, effort: float) -> float:
        jobs = max(20, int(JOBS * effort))
        with tempfile.TemporaryDirectory() as scratch:
            items = Path(scratch, "items")
            items.write_text("".join(f"{n}\n" for n in range(1, jobs + 1)))
            words = command(jobs)
            with items.open("rb") as given:
                began, began_cpu = time.perf_counter(), cpu_seconds()
                subprocess.run(
                    words, stdin=given, stdout=subprocess.DEVNULL, cwd=scratch, check=True
                )
                if case == CPU:
                    return jobs / (cpu_seconds() - began_cpu)
                return jobs / (time.perf_counter() - began)

    return run


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="jobs",
    better="more",
    rounds=5,
    timeout=120,
    cases=(CLOCK, CPU),
    weir=(
        Subject("weir run", measure(lambda n: [weir(), "run", "-q", "-j2", PROGRAM])),
        Subject(
            "weir run --ledger",
            measure(lambda n: [weir(), "run", "-q", "-j2", "--ledger", "ledger", PROGRAM]),
            note="start and end of each job written down before the next one starts",
        ),
    ),
    peers=(
        Subject(
            "posix_spawn loop",
            measure(lambda n: [harness.program("run_bare", "a C compiler"), str(n), "2", PROGRAM]),
            target=">= 0.87",
            note="the floor: reads no list, keeps nothing apart",
        ),
        Subject(
            "xargs -P2",
            measure(lambda n: [installed("xargs", "findutils"), "-n1", "-P2", PROGRAM]),
            target=">= 1",
            note="output is mixed",
        ),
        Subject(
            "GNU parallel",
            measure(lambda n: [parallel(), "-j2", PROGRAM]),
            target=">= 8",
        ),
        Subject(
            "moreutils parallel",
            measure(
                lambda n: [
                    installed("parallel.moreutils", "moreutils"),
                    *("-j2", PROGRAM, "--", *map(str, range(1, n + 1))),
                ]
            ),
            note="takes its list from the command line only; output is mixed",
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
