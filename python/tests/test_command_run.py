"""`weir run` seen from outside: what it holds, what it reads, and what becomes of each item."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import ROOT, weir_command

import harness
import run_cgroup
from run_input import LINE, Source

LONG = 30.0  # seconds that something may take on a machine that is busy
MIB = 1 << 20


def begin(folder: Path, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """In a session of its own, as a terminal would start it; what it prints is not looked at."""
    return subprocess.Popen(
        [weir_command(), "run", *words], cwd=folder, stdin=stdin, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | {"WEIR_STATS_DIR": str(folder)},
    )  # fmt: skip


def ledger(folder: Path, name: str = "ledger") -> list[dict[str, str]]:
    done = subprocess.run(
        [weir_command(), "ledger", "--json", name], cwd=folder, stdout=subprocess.PIPE, check=True
    )
    records: list[dict[str, str]] = json.loads(done.stdout)
    return records


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


# ---- what is written of it ----------------------------------------------------------------------

DRY = """
weir() { [ "$1" != run ] || { shift; command weir run --dry-run "$@"; }; }
set -eo pipefail
"""


@pytest.mark.parametrize("page", ["README.md", "docs/run.md"])
def test_the_commands_of_the_pages_are_right(folder: Path, page: str) -> None:
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("weir run ")]
    assert commands
    for name in ("samples.txt", "files.txt", "reads.gz"):
        (folder / name).write_text("SAMD00006185\n")
    (folder / "samples.csv").write_text("sample,reads\nSAMD00006185,10\n")
    path = f"{weir_command().parent}:{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", DRY + command], cwd=folder, capture_output=True, text=True, timeout=LONG,
            env=os.environ | {"PATH": path},
        )  # fmt: skip
        assert done.returncode == 0 and done.stdout, f"{command}: {done.stderr}"


def test_pages_that_the_page_links_to_are_there() -> None:
    docs = ROOT / "docs"
    for link in re.findall(r"\]\(([^)#]+)\)", (docs / "run.md").read_text()):
        assert (docs / link).exists(), link


# ---- what it holds ------------------------------------------------------------------------------


def test_a_million_lines_are_read_as_jobs_start_and_not_held(folder: Path) -> None:
    source = Source(1_000_000)
    job = ["sh", "-c", 'echo "$1" >>started; exec sleep 60', "sh"]
    started = folder / "started"
    process = begin(folder, "-j4", "--progress", *job, stdin=source.reader)
    try:
        source.start()
        eventually(lambda: started.exists() and started.stat().st_size == 4 * LINE, "four jobs run")
        eventually(lambda: source.written > 64_000, "the pipe is full")
        held, ahead = harness.peak_rss(process.pid), source.taken() - 4 * LINE
    finally:
        os.close(source.reader)
        process.terminate()
        process.wait(LONG)
    assert 0 < held <= 16 * MIB
    assert 0 <= ahead <= 4096 + LINE


def test_kept_order_behind_a_job_that_blocks_has_a_bound_in_files_and_memory(folder: Path) -> None:
    job = 'echo "$1" >>began; test "$1" != 1 || until test -e go; do sleep 0.1; done; '
    job += "head -c 100000 /dev/zero"
    read, write = os.pipe()
    process = begin(folder, "-q", "-k", "-j4", "sh", "-c", job, "sh", stdin=read)
    os.close(read)
    os.write(write, b"".join(b"%d\n" % n for n in range(1, 301)))
    os.close(write)
    began = folder / "began"

    def count() -> int:
        return len(began.read_text().split()) if began.exists() else 0

    eventually(lambda: count() >= 64, "the window fills")
    time.sleep(0.5)  # for what must not come
    files, held = len(os.listdir(f"/proc/{process.pid}/fd")), harness.peak_rss(process.pid)
    stalled = count()
    (folder / "go").touch()
    assert process.wait(LONG) == 0
    assert stalled <= 64 + 4 + 1 and count() == 300
    assert files <= 2 * (64 + 4) + 20 and held <= 16 * MIB


def test_jobs_larger_than_a_cgroup_together_are_all_done_in_it(folder: Path) -> None:
    megabyte = 100_000
    job = [sys.executable, "-ISc", run_cgroup.JOB, str(400 * megabyte), "0.1"]
    try:
        with run_cgroup.cgroup(1200 * megabyte) as path:
            words = ["-q", "-j6", "--memory", "80%", *job, ":::", *"123456"]
            done = subprocess.run(
                [weir_command(), "run", *words], cwd=folder, timeout=LONG,
                preexec_fn=lambda: (path / "cgroup.procs").write_text("0") and None,
            )  # fmt: skip
    except harness.Missing as missing:
        pytest.skip(str(missing))
    assert done.returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == list("123456")


# ---- what becomes of each item ------------------------------------------------------------------

# Says what it did with which item; those with "bad" in them fail until they are healed.
JOB = """
case $1 in *bad*) test -e healed || { printf 'failed %s\\n' "$1" >>log; exit 3; } ;; esac
printf 'done %s\\n' "$1" >>log
"""


class Run(NamedTuple):
    items: list[str]
    jobs: int
    lives: float | None  # seconds until it is killed
    retry_failed: bool


ITEMS = st.sampled_from(["a", "b", "c d", "e'\"$(f)", "é", "bad", "bad too", "--bad", "{}"])
RUNS = st.lists(
    st.builds(
        Run,
        items=st.lists(ITEMS, max_size=12),
        jobs=st.integers(1, 4),
        lives=st.none() | st.floats(0, 0.05),
        retry_failed=st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


def play(folder: Path, run: Run) -> int:
    resume = "--retry-failed" if run.retry_failed else "--resume"
    (folder / "items").write_text("".join(f"{item}\n" for item in run.items))
    words = ["-q", f"-j{run.jobs}", "--input", "items", "--ledger", "ledger", resume]
    process = begin(folder, *words, "sh", "-c", JOB, "sh")
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(LONG if run.lives is None else run.lives)
        assert run.lives is not None, "it hangs"
    finally:
        process.kill()
        process.wait()
    return -signal.SIGKILL


def did(folder: Path, what: str) -> Counter[str]:
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    pairs = (line.split(" ", 1) for line in lines)
    return Counter(item for word, item in pairs if word == what)


@settings(max_examples=25, deadline=None)
@given(runs=RUNS)
def test_whatever_happens_to_list_and_runs_each_item_of_the_last_one_is_done_once(
    runs: list[Run],
) -> None:
    """Lines come, go, move and double between runs that fail, and that are killed."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for run in runs:
            play(folder, run)
        (folder / "healed").touch()
        last = Run(runs[-1].items, 2, None, True)
        assert play(folder, last) == 0
        records = ledger(folder)
        done = did(folder, "done")
        assert done == Counter(r["item"] for r in records if r["state"] == "done"), records
        assert done >= Counter(last.items)
        assert all(done[item] <= max(run.items.count(item) for run in runs) for item in done)
        assert not [record for record in records if record["state"] == "started"]
        before = did(folder, "failed") + done
        assert play(folder, last) == 0
        assert did(folder, "failed") + did(folder, "done") == before, "something ran once more"


@settings(max_examples=15, deadline=None)
@given(kept=st.permutations(range(8)), new=st.integers(0, 4), twice=st.sets(st.integers(0, 7)))
def test_resume_runs_exactly_what_is_not_done(kept: list[int], new: int, twice: set[int]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        assert play(folder, Run([f"old {n}" for n in range(8)], 4, None, False)) == 0
        before = did(folder, "done")
        items = [f"new {n}" for n in range(new)]
        items += [f"old {n}" for n in kept[: 8 - new]] + [f"old {n}" for n in twice]
        assert play(folder, Run(items, 4, None, False)) == 0
        assert did(folder, "done") - before == Counter(items) - before


def test_the_demo_is_killed_in_the_middle_and_keeps_the_law() -> None:
    weir_command()
    done = subprocess.run(
        [ROOT / "scripts/demo_run", "200"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed with SIGKILL when" in done.stdout
    assert (
        "law: 200 files = 200 done, of which each has printed its line (200): holds" in done.stdout
    )


@pytest.mark.parametrize("group", [False, True], ids=["the process", "its process group"])
def test_killed_ten_times_a_run_loses_nothing_and_does_nothing_twice(
    folder: Path, group: bool
) -> None:
    items = [str(n) for n in range(200)]
    (folder / "items").write_text("\n".join(items) + "\n")
    words = ["-q", "-j4", "--input", "items", "--ledger", "ledger", "--resume"]
    words += ["sh", "-c", 'printf "done %s\\n" "$1" >>log; sleep 0.01', "sh"]
    for _ in range(10):
        process = begin(folder, *words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, 0.1))
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    assert begin(folder, *words).wait(LONG) in ((0, 3) if group else (0,))
    states = {record["item"]: record for record in ledger(folder)}
    assert set(states) == set(items)
    unknown = {item for item, record in states.items() if record["state"] == "failed"}
    assert {states[item]["outcome"] for item in unknown} <= {"its end was not seen"}
    ran = did(folder, "done")
    assert max(ran.values()) == 1
    assert set(items) - set(ran) <= unknown, "an item is said to be done, and never ran"
