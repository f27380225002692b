"""`weir run --ledger`, killed at random moments: each item is run once, and none is lost.

WEIR_KILLS=100 kills so often, in a list of 2,000 items; each job appends to a file of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import wait_until

ROOT = Path(__file__).resolve().parents[2]
WEIR = Path(os.environ.get("WEIR_COMMAND", ROOT / "build/cli/weir"))
KILLS = int(os.environ.get("WEIR_KILLS", "3"))
ITEMS = 2_000 if KILLS >= 100 else 60 * KILLS
WAIT = 120.0  # seconds; for what takes less than one

# Some still run when the kill comes, and write after it.
JOB = 'case $0 in *7) sleep 0.05 ;; esac; echo ran >>"$0"'

Kill = Callable[[int, int], None]


def kill_in_front(front: int, behind: int) -> None:
    os.kill(front, signal.SIGKILL)


def kill_group(front: int, behind: int) -> None:
    os.killpg(front, signal.SIGKILL)


def kill_behind(front: int, behind: int) -> None:
    os.kill(behind, signal.SIGKILL)


def kill_both(front: int, behind: int) -> None:
    for pid in random.sample([front, behind], 2):
        os.kill(pid, signal.SIGKILL)


def run(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    with (folder / "items").open("rb") as items, (folder / "said").open("ab") as said:
        return subprocess.Popen(
            [WEIR, "run", "-q", "-j4", "--ledger", "ledger", *options, "sh", "-c", JOB],
            cwd=folder, stdin=items, stdout=subprocess.DEVNULL, stderr=said,
            start_new_session=True,
        )  # fmt: skip


def behind(front: int) -> int | None:
    """The process that runs the jobs, or None: it does not yet, or does no more."""
    try:
        pids = Path(f"/proc/{front}/task/{front}/children").read_text().split()
        return int(pids[0]) if pids and os.getpgid(int(pids[0])) != front else None
    except OSError:
        return None


def kill_at_random(folder: Path, kill: Kill) -> None:
    front = run(folder, "--resume")
    wait_until(lambda: behind(front.pid) or front.poll() is not None, WAIT)
    time.sleep(random.uniform(0, 0.04))
    pid = behind(front.pid)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):  # it came to its end
            kill(front.pid, pid)
    front.wait(WAIT)


def finish(folder: Path, option: str) -> int:
    return run(folder, option).wait(WAIT)


def states(folder: Path) -> dict[str, list[str]]:
    text = subprocess.run(
        [WEIR, "ledger", "--json", folder / "ledger"], capture_output=True, check=True
    ).stdout
    found: dict[str, list[str]] = {"done": [], "failed": [], "started": [], "left": []}
    for row in json.loads(text):
        found[row["state"]].append(row["item"])
        assert row["state"] != "failed" or row["outcome"] == "its end was not seen"
    return found


def times_run(folder: Path) -> Counter[int]:
    return Counter(
        path.read_text().count("ran") if path.exists() else 0
        for path in (folder / str(n) for n in range(ITEMS))
    )


def prepare(folder: Path) -> None:
    (folder / "items").write_text("".join(f"{n}\n" for n in range(ITEMS)))


@pytest.mark.skipif(not WEIR.exists(), reason="the command was not built")
@pytest.mark.parametrize("kill", [kill_in_front, kill_group, kill_behind])
def test_who_kills_one_process_of_a_run_loses_nothing(tmp_path: Path, kill: Kill) -> None:
    prepare(tmp_path)
    for _ in range(KILLS):
        kill_at_random(tmp_path, kill)
    assert finish(tmp_path, "--resume") == 0, (tmp_path / "said").read_text()
    assert times_run(tmp_path) == {1: ITEMS}, (tmp_path / "said").read_text()
    assert len(states(tmp_path)["done"]) == ITEMS


@pytest.mark.skipif(not WEIR.exists(), reason="the command was not built")
def test_who_kills_both_loses_ends_that_nobody_saw_and_is_told_of_which(tmp_path: Path) -> None:
    prepare(tmp_path)
    for _ in range(KILLS):
        kill_at_random(tmp_path, kill_both)
    status = finish(tmp_path, "--resume")
    found, counts = states(tmp_path), times_run(tmp_path)
    print(f"\n{KILLS} kills: {len(found['failed'])} ends not seen, {counts[0]} not run")
    assert status == (3 if found["failed"] else 0), (tmp_path / "said").read_text()
    assert max(counts) == 1  # none was run twice
    assert len(found["done"]) + len(found["failed"]) == ITEMS
    assert all((tmp_path / item).exists() for item in found["done"])
    assert finish(tmp_path, "--retry-failed") == 0
    assert times_run(tmp_path)[0] == 0  # none is lost
