"""What becomes of 8 jobs of 400 MB in a memory cgroup of 1,200 MB?

All eight at a time, if nobody holds them back: each takes 400 MB of memory, keeps it for a second,
and says that it is done. Counted are the items that were not done in the end, and the processes
that the kernel has killed for their memory. Needs a memory cgroup (version 1 or 2) below which this
user may make another one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import harness
from harness import Subject
from runners import installed, parallel, weir

JOBS = 8
SIZE, MEMORY = 400, 1200  # MB
SECONDS = 1.0
NOT_DONE, KILLED = "items not done", "processes killed by the kernel"
JOB = """
import sys, time
held = b"1" * int(sys.argv[1])
time.sleep(float(sys.argv[2]))
open(sys.argv[3], "w")
"""


def above() -> Path:
    """The memory cgroup that we are in, or the root of those."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    paths = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
    one = next((path for names, path in paths.items() if "memory" in names.split(",")), None)
    root = Path("/sys/fs/cgroup", "memory" if one is not None else "")
    path = root / (one if one is not None else paths.get("", "/")).lstrip("/")
    return path if path.is_dir() else root


@contextlib.contextmanager
def cgroup(nbytes: int) -> Iterator[Path]:
    """One of our own, with so much memory and no swap."""
    path = above() / f"weir-bench-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        raise harness.Missing(f"no memory cgroup can be made here: {error}") from None
    try:
        bounds = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        if not (path / bounds[0]).exists():
            bounds = ("memory.max", "memory.swap.max")
        try:
            (path / bounds[0]).write_text(str(nbytes))
        except OSError as error:
            raise harness.Missing(f"no memory cgroup can be used here: {error}") from None
        with contextlib.suppress(OSError):  # a kernel that does not count swap
            (path / bounds[1]).write_text("0" if bounds[1] == "memory.swap.max" else str(nbytes))
        yield path
    finally:
        for pid in (
            (path / "cgroup.procs").read_text().split()
        ):  # jobs that a runner has left behind
            with contextlib.suppress(OSError):
                os.kill(int(pid), 9)
        for _ in range(100):  # a process that has just ended may still count
            with contextlib.suppress(OSError):
                path.rmdir()
                break
            time.sleep(0.02)


def killed(path: Path) -> int:
    events = path / "memory.events"
    text = (events if events.exists() else path / "memory.oom_control").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill "))


def wait_for_all(path: Path) -> None:
    """For the jobs that a runner which has given up has left running."""
    deadline = time.monotonic() + 30
    while (path / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)


def run(command: list[str], effort: float) -> dict[str, int]:
    """What has become of the items, by the names of the cases."""
    megabyte = int(1e6 * max(0.1, min(1.0, 5 * effort)))
    seconds = max(0.2, SECONDS * effort)
    with cgroup(MEMORY * megabyte) as path, tempfile.TemporaryDirectory() as scratch:

        def enter() -> None:
            (path / "cgroup.procs").write_text("0")

        job = [sys.executable, "-ISc", JOB, str(SIZE * megabyte), f"{seconds:g}"]
        subprocess.run(
            [*command, *job], cwd=scratch, input="".join(f"{n}\n" for n in range(JOBS)), text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=enter, timeout=100,
        )  # fmt: skip
        wait_for_all(path)
        return {NOT_DONE: JOBS - len(os.listdir(scratch)), KILLED: killed(path)}


def measure(command: Callable[[], list[str]]) -> Callable[[str, float], float]:
    return lambda case, effort: run(command(), effort)[case]


RUNNERS: dict[str, Callable[[], list[str]]] = {
    "weir run -j8 --memory 80%": lambda: [weir(), "run", "-j8", "--memory", "80%"],
    "weir run -j8": lambda: [weir(), "run", "-j8"],
    "xargs -P8": lambda: [installed("xargs", "findutils"), "-n1", "-P8"],
    "GNU parallel -j8": lambda: [parallel(), "-j8", "-q"],
    "GNU parallel -j8 --memfree 400M": lambda: [parallel(), "-j8", "--memfree", "400M", "-q"],
}

QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="of 8",
    better="less",
    rounds=5,
    timeout=120,
    cases=(NOT_DONE, KILLED),
    weir=(
        Subject(
            "weir run -j8 --memory 80%",
            measure(RUNNERS["weir run -j8 --memory 80%"]),
            target="<= 0",
            note="has to learn what a job takes",
        ),
        Subject(
            "weir run -j8",
            measure(RUNNERS["weir run -j8"]),
            target={NOT_DONE: "<= 0"},
            note="what was killed is run again, and fewer at a time",
        ),
    ),
    peers=(
        Subject("xargs -P8", measure(RUNNERS["xargs -P8"]), note="ends when one job was killed"),
        Subject("GNU parallel -j8", measure(RUNNERS["GNU parallel -j8"])),
        Subject(
            "GNU parallel -j8 --memfree 400M",
            measure(RUNNERS["GNU parallel -j8 --memfree 400M"]),
            note="looks at the memory of the machine",
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
