"""Programs that tests look at from outside."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def started(*command: str | Path, folder: Path) -> Iterator[tuple[int, int]]:
    """A program whose first line tells its port; that and its pid.  Pages are in `folder`."""
    with subprocess.Popen(
        [str(part) for part in command], env={**os.environ, "WEIR_STATS_DIR": str(folder)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            port = re.search(r"(\d+)(?:/.*)?$", process.stdout.readline())
            assert port is not None, f"{command[0]} did not say where it listens"
            yield int(port[1]), process.pid
        finally:
            process.kill()


def unwatched() -> dict[str, str]:
    """The environment of a program that is no Python: a sanitizer is preloaded for that alone."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def weir_command() -> Path:
    """The command of the build; a build without it (-Dcommand=disabled) skips the test."""
    command = ROOT / "build" / "cli" / "weir"
    if not command.exists():
        pytest.skip("the command weir was not built")
    return command
