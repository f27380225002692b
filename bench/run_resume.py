"""How many items does a runner lose, or do twice, when it is killed again and again?

A list of 2,000 items, each of which adds a byte to a file of its own; the runner is killed with
SIGKILL at a random moment, twenty times in each measurement, and told to resume after each; then it
may end. Killed is the process that was started, or its whole process group with it. In the third
kind a line is put before the list while it is killed. A measurement begins with a tenth of the list
that is not disturbed, to know how long a life has to be. What was not done in the end is lost; what
was begun twice is counted for each time more.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harness
from harness import Subject
from runners import parallel, weir

ITEMS = 2000
KILLS = 20
AT_A_TIME = 8
JOB = ["sh", "-c", 'printf x >>"ran/$1"; sleep 0.02; printf . >>"ran/$1"', "sh"]
KINDS = ("the process is killed", "its process group is killed", "a line comes before the list")
LOST, TWICE = "items lost", "items run twice"


def begin(command: list[str], scratch: Path) -> subprocess.Popen[bytes]:
    with (scratch / "items").open("rb") as given:
        return subprocess.Popen(
            [*command, *JOB], cwd=scratch, stdin=given, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def write_items(scratch: Path, first: int, last: int) -> None:
    (scratch / "items").write_text("".join(f"{n}\n" for n in range(first, last + 1)))


def length_of_a_life(command: list[str], scratch: Path, items: int, kills: int) -> float:
    """Seconds to begin with, and for the share of the list that is to be done until a kill."""

    def seconds(count: int) -> float:
        write_items(scratch, 1, count)
        began = time.monotonic()
        begin(command, scratch).wait()
        for name in ("ledger", "ledger-wal", "ledger-shm"):
            (scratch / name).unlink(missing_ok=True)
        return time.monotonic() - began

    start, share = seconds(1), max(AT_A_TIME, items // 10)
    return start + (seconds(share) - start) / share * items / kills


def kill(process: subprocess.Popen[bytes], kind: str) -> None:
    if kind == KINDS[1]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def run(command: list[str], kind: str, items: int, kills: int) -> dict[str, int]:
    """Items that were lost, and that were run more than once, by those names."""
    with tempfile.TemporaryDirectory() as folder:
        scratch, first = Path(folder), 1
        (scratch / "ran").mkdir()
        life = length_of_a_life(command, scratch, items, kills)
        for path in (scratch / "ran").iterdir():
            path.unlink()
        for number in range(kills):
            if kind == KINDS[2] and number == kills // 2:
                first = 0
            write_items(scratch, first, items)
            process = begin(command, scratch)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(random.uniform(0, 2 * life))
            kill(process, kind)
        begin(command, scratch).wait()
        time.sleep(0.5)  # for jobs that nobody waits for
        ran = {path.name: path.read_text() for path in (scratch / "ran").iterdir()}
    expected = [str(n) for n in range(first, items + 1)]
    return {
        LOST: sum("." not in ran.get(item, "") for item in expected),
        TWICE: sum(max(0, ran.get(item, "").count("x") - 1) for item in expected),
    }


def measure(command: Callable[[], list[str]]) -> Callable[[str, float], float]:
    def one(case: str, effort: float) -> float:
        kind, _, what = case.partition(": ")
        items, kills = max(100, int(ITEMS * effort)), max(4, int(KILLS * effort))
        return run(command(), kind, items, kills)[what]

    return one


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="items",
    better="less",
    rounds=5,
    timeout=300,
    cases=tuple(f"{kind}: {what}" for kind in KINDS for what in (LOST, TWICE)),
    weir=(
        Subject(
            "weir run --ledger --resume",
            measure(
                lambda: [weir(), "run", "-q", f"-j{AT_A_TIME}", "--ledger", "ledger", "--resume"]
            ),
            target="<= 0",
        ),
    ),
    peers=(
        Subject(
            "GNU parallel --joblog --resume",
            measure(lambda: [parallel(), f"-j{AT_A_TIME}", "--joblog", "ledger", "--resume", "-q"]),
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
