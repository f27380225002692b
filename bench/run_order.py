"""What does keeping the order cost a command runner while the first job blocks?

Jobs that each print 1 MB, eight at a time, in the order of the list; the first one ends after eight
seconds only. Of the runner itself, not of its jobs: the most descriptors it had open, the most
bytes in its temporary files, and its peak of memory. The list has 2,000 items; what a runner
without a bound would have taken of a longer one, or of a first job that blocks for longer, is more.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harness
from harness import Subject
from runners import MIB, Look, parallel, running, watch, weir

ITEMS = 2000
SECONDS = 8.0
FILES, TEMPORARY, RSS = "open descriptors", "MiB in temporary files", "MiB of memory"
JOB = 'test "$1" != 1 || sleep "$0"; head -c 1000000 /dev/zero'


def job(seconds: float) -> list[str]:
    return ["sh", "-c", JOB, f"{seconds:g}"]


def weir_run(seconds: float) -> list[str]:
    return [weir(), "run", "-q", "-k", "-j8", *job(seconds)]


def parallel_run(seconds: float) -> list[str]:
    return [parallel(), "-k", "-j8", "-q", *job(seconds)]


def looks(command: list[str], items: int, seconds: float, every: float = 0.1) -> list[Look]:
    """At the runner, until the first job has ended."""
    with tempfile.TemporaryDirectory(dir=harness.ROOT / "out") as scratch:
        given = Path(scratch, "items")
        given.write_text("".join(f"{n}\n" for n in range(1, items + 1)))
        with (
            given.open("rb") as stdin,
            running(
                ["env", f"TMPDIR={scratch}", *command], cwd=Path(scratch), stdin=stdin,
                stdout=subprocess.DEVNULL,
            ) as process,
        ):  # fmt: skip
            return watch(process, time.monotonic() + seconds, every)


def measure(command: Callable[[float], list[str]]) -> Callable[[str, float], float]:
    def run(case: str, effort: float) -> float:
        seconds = max(1.0, SECONDS * effort)
        (harness.ROOT / "out").mkdir(exist_ok=True)
        seen = looks(command(seconds), max(100, int(ITEMS * effort)), seconds)
        return {
            FILES: float(max(look.files for look in seen)),
            TEMPORARY: max(look.temporary for look in seen) / MIB,
            RSS: max(look.rss for look in seen) / MIB,
        }[case]

    return run


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="as the case says",
    better="less",
    rounds=5,
    timeout=120,
    cases=(FILES, TEMPORARY, RSS),
    weir=(
        Subject(
            "weir run -k",
            measure(weir_run),
            target={FILES: "<= 200", TEMPORARY: "<= 256", RSS: "<= 16"},
            note="the window: 64 jobs, 256 MiB",
        ),
    ),
    peers=(Subject("GNU parallel -k", measure(parallel_run)),),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
