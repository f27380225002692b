"""runners.py - what the benchmarks of `weir run` share: the runners, and a look at one of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import harness

KIB, MIB = 1 << 10, 1 << 20
DEADLINE = 10.0  # seconds that a runner has after SIGTERM


def weir() -> str:
    """The command of the optimised build, or else of the usual one."""
    for build in (harness.BUILD, harness.ROOT / "build"):
        if (build / "cli" / "weir").exists():
            return str(build / "cli" / "weir")
    raise harness.Missing("the command weir was not built; it needs libsqlite3-dev and others")


def installed(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise harness.Missing(f"{name} is not installed; it is in the package {package}")
    return found


def parallel() -> str:
    return installed("parallel", "parallel")


class Look(NamedTuple):
    """At one process, which is not its jobs."""

    seconds: float
    rss: int  # bytes, now
    files: int  # open descriptors
    temporary: int  # bytes in files that have no name any more


def look(pid: int, began: float) -> Look | None:
    """None: it has ended."""
    files = temporary = 0
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
            rss = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        names = os.listdir(f"/proc/{pid}/fd")
    except (OSError, IndexError):
        return None
    seen = set()
    for name in names:
        with contextlib.suppress(OSError):
            found = os.stat(f"/proc/{pid}/fd/{name}")
            files += 1
            if stat.S_ISREG(found.st_mode) and not found.st_nlink and found.st_ino not in seen:
                seen.add(found.st_ino)
                temporary += found.st_blocks * 512
    return Look(time.monotonic() - began, rss, files, temporary)


def watch(process: subprocess.Popen[bytes], until: float, every: float = 0.05) -> list[Look]:
    """Looks at it until it has ended, or that point of the monotonic clock has come."""
    began, looks = time.monotonic(), []
    while time.monotonic() < until and process.poll() is None:
        now = look(process.pid, began)
        if now is None:
            break
        looks.append(now)
        time.sleep(every)
    return looks


@contextlib.contextmanager
def running(
    command: list[str], *, cwd: Path, **options: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A runner that is ended, and its jobs with it, when nobody looks at it any more."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # jobs of those that do not end them
