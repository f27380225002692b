"""What does a command runner hold of a list of ten million lines?

A pipe that gives 10,000,000 lines, jobs of half a second, eight at a time, five seconds long. What
it holds is the peak of the runner's own resident set, and what it has read of the pipe beyond the
lines whose jobs were started. No runner may take more than 1 GiB of address space; what it held
until then counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import struct
import subprocess
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import harness
from harness import Subject
from runners import KIB, installed, parallel, running, weir

LINES = 10_000_000
LINE = 9  # bytes: eight digits and the end
SECONDS = 5.0
MOST = 1 << 30  # bytes of address space
JOB = ["sh", "-c", 'echo "$1" >>started; exec sleep 0.5', "sh"]
RSS, AHEAD = "peak RSS", "read beyond what was started"


class Source(threading.Thread):
    """Writes the list into a pipe, as fast as that is read."""

    def __init__(self, lines: int) -> None:
        super().__init__(daemon=True)
        self.reader, self.writer = os.pipe()
        self.lines, self.written = lines, 0

    def run(self) -> None:
        block = 4096 // LINE  # a write of at most a page is whole
        with contextlib.suppress(OSError):  # nobody reads it any more
            for first in range(0, self.lines, block):
                last = min(first + block, self.lines)
                text = b"".join(b"%08d\n" % n for n in range(first, last))
                self.written += os.write(self.writer, text)
        os.close(self.writer)

    def taken(self) -> int:
        """Bytes that were read from the pipe; a block that is being written does not count."""
        waiting = fcntl.ioctl(self.reader, termios.FIONREAD, b"\0" * 4)
        return max(0, self.written - int(struct.unpack("i", waiting)[0]))


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST, MOST))


def measure(command: Callable[[], list[str]]) -> Callable[[str, float], float]:
    def run(case: str, effort: float) -> float:
        source = Source(max(100_000, int(LINES * effort)))
        seconds = max(1.0, SECONDS * effort)
        with (
            tempfile.TemporaryDirectory() as scratch,
            running(
                command(), cwd=Path(scratch), stdin=source.reader, stdout=subprocess.DEVNULL,
                preexec_fn=limit,
            ) as process,
        ):  # fmt: skip
            source.start()
            until, rss, taken = time.monotonic() + seconds, 0, 0
            started = Path(scratch, "started")
            while time.monotonic() < until and process.poll() is None:
                rss = max(rss, harness.peak_rss(process.pid))
                taken = source.taken()
                time.sleep(0.05)
            began = started.stat().st_size if started.exists() else 0
            os.close(source.reader)
            return (rss if case == RSS else max(0, taken - began)) / KIB

    return run


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="KiB",
    better="less",
    rounds=5,
    timeout=120,
    cases=(RSS, AHEAD),
    weir=(
        Subject(
            "weir run --progress",
            measure(lambda: [weir(), "run", "-j8", "--progress", *JOB]),
            target={RSS: f"<= {16 * KIB}", AHEAD: "<= 5"},
            note="reads 4 KiB ahead",
        ),
    ),
    peers=(
        Subject(
            "xargs -P8",
            measure(lambda: [installed("xargs", "findutils"), "-n1", "-P8", *JOB]),
            note="shows no progress",
        ),
        Subject(
            "GNU parallel",
            measure(lambda: [parallel(), "-j8", "-q", *JOB]),
            note="shows no progress",
        ),
        Subject(
            "GNU parallel --eta",
            measure(lambda: [parallel(), "-j8", "--eta", "-q", *JOB]),
            note="reads all of it before the first job",
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
