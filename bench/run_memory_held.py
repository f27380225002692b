"""Does a job cost more to start when its runner holds much memory?

1,000 x /bin/true, two at a time, by runners that hold nothing, 64 MiB or 512 MiB of written pages
besides their own: a library that is preloaded into the runner, and not into its jobs, holds them.
The clock starts when they are held. A process that is made with fork() gets a copy of its parent's
page tables, and the parent a fault for each page that it writes to afterwards.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harness
from harness import Subject
from runners import installed, parallel, weir

JOBS = 1000
PROGRAM = "/bin/true"
HELD = {"holds nothing": 0, "holds 64 MiB": 64, "holds 512 MiB": 512}


def library() -> Path:
    path = harness.BUILD / "bench" / "c" / "libhold.so"
    if not path.exists():
        raise harness.Missing("libhold.so was not built; it needs a C compiler")
    return path


def measure(command: Callable[[], list[str]]) -> Callable[[str, float], float]:
    def run(case: str, effort: float) -> float:
        jobs = max(20, int(JOBS * effort))
        is_held, signs = os.pipe()
        held = f"{HELD[case]} {signs}"
        env = os.environ | {"LD_PRELOAD": str(library()), "WEIR_BENCH_HOLD": held}
        with tempfile.TemporaryDirectory() as scratch, os.fdopen(is_held, "rb") as ready:
            items = Path(scratch, "items")
            items.write_text("".join(f"{n}\n" for n in range(1, jobs + 1)))
            with (
                items.open("rb") as given,
                subprocess.Popen(
                    command(), stdin=given, stdout=subprocess.DEVNULL, cwd=scratch, env=env,
                    pass_fds=[signs],
                ) as process,
            ):  # fmt: skip
                os.close(signs)
                ready.read()  # to its end: the runner has closed it
                began = time.perf_counter()
                if process.wait() != 0:
                    raise RuntimeError(f"exit status {process.returncode}")
                return jobs / (time.perf_counter() - began)

    return run


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="jobs/s",
    better="more",
    rounds=5,
    timeout=120,
    cases=tuple(HELD),
    weir=(Subject("weir run", measure(lambda: [weir(), "run", "-q", "-j2", PROGRAM])),),
    peers=(
        Subject(
            "xargs -P2", measure(lambda: [installed("xargs", "findutils"), "-n1", "-P2", PROGRAM])
        ),
        Subject("GNU parallel", measure(lambda: [parallel(), "-j2", PROGRAM])),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
