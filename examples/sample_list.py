#!/usr/bin/env python3
"""sample_list.py - a long list of samples, and a cluster that says "job queue full".

2,000 accession numbers (SAMD00006185, ...), and `./submit`, which stands for a cluster or a
machine that bears 50 jobs at a time: to all others it says "job queue full" and exits with 75.
A list that is run with xargs loses whatever was refused. `weir run` offers it again later, and
when it is killed in the middle, the same command with --resume goes on: each sample is done
once, and none is lost.

Needs the command weir (`make` builds it).
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import show

FIRST = 6185  # SAMD00006185
FULL = 75  # EX_TEMPFAIL: later, perhaps

# A place is a file that only one can make.  What it says goes to the log as whole lines.
SUBMIT = """#!/bin/sh
set -C
place=1
until { true >"places/$place"; } 2>/dev/null; do
    place=$((place + 1))
    if [ $place -gt @LIMIT ]; then
        echo "refused $1" >>log
        echo "submit: $1: job queue full" >&2
        exit @FULL
    fi
done
echo "began $1" >>log
sleep @SECONDS
echo "done $1" >>log
rm "places/$place"
"""


class Outcome(NamedTuple):
    submitted: int
    refused: int
    done: int
    twice: int
    lost: int
    seconds: float


def find_weir() -> str:
    built = Path(__file__).resolve().parents[1] / "build/cli/weir"
    found = str(built) if built.exists() else shutil.which("weir")
    if found is None:
        raise SystemExit("sample_list: there is no command weir; `make` builds it")
    return found


def make_cluster(folder: Path, limit: int, seconds: float) -> None:
    """./submit, and its places."""
    (folder / "places").mkdir(parents=True)
    (folder / "log").touch()
    script = SUBMIT
    for name, value in (("@LIMIT", limit), ("@FULL", FULL), ("@SECONDS", f"{seconds:g}")):
        script = script.replace(name, str(value))
    (folder / "submit").write_text(script)
    (folder / "submit").chmod(0o755)


def samples(count: int) -> list[str]:
    return [f"SAMD{FIRST + n:08}" for n in range(count)]


def read_log(folder: Path) -> Counter[tuple[str, str]]:
    lines = (folder / "log").read_text().splitlines()
    return Counter((word, name) for word, name in (line.split() for line in lines))


def total(log: Counter[tuple[str, str]], word: str) -> int:
    return sum(count for (what, _), count in log.items() if what == word)


def outcome(folder: Path, names: list[str], seconds: float) -> Outcome:
    log = read_log(folder)
    began, refused = total(log, "began"), total(log, "refused")
    done = sum(log["done", name] > 0 for name in names)
    twice = sum(max(0, log["began", name] - 1) for name in names)
    return Outcome(began + refused, refused, done, twice, len(names) - done, seconds)


def run_xargs(folder: Path, names: list[str], jobs: int) -> Outcome:
    began = time.monotonic()
    subprocess.run(
        ["xargs", "-n1", f"-P{jobs}", "./submit"], cwd=folder, text=True, input="\n".join(names),
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return outcome(folder, names, time.monotonic() - began)


def run_weir(folder: Path, names: list[str], jobs: int, backoff: str) -> Outcome:
    """Killed when half of it is done, and gone on with."""
    (folder / "samples.txt").write_text("".join(f"{name}\n" for name in names))
    options = [
        "-q",
        f"-j{jobs}",
        "--retries",
        "10000",
        "--retry-on",
        str(FULL),
        "--backoff",
        backoff,
    ]
    options += ["--input", "samples.txt", "--ledger", "samples.ledger"]
    began = time.monotonic()
    print("$", shlex.join(["weir", "run", *options, "./submit"]), flush=True)
    with subprocess.Popen(
        [find_weir(), "run", *options, "./submit"], cwd=folder, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and total(read_log(folder), "done") < len(names) // 2:
            time.sleep(0.02)
        process.kill()
    done = total(read_log(folder), "done")
    print(f"killed with SIGKILL when {done:,} of {len(names):,} were done; once more with --resume")
    command = [find_weir(), "run", *options, "--resume", "./submit"]
    subprocess.run(command, cwd=folder, stderr=subprocess.DEVNULL)
    return outcome(folder, names, time.monotonic() - began)


def states(folder: Path) -> dict[str, int]:
    """What the ledger says, by state."""
    command = [find_weir(), "ledger", "--json", "samples.ledger"]
    said = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True).stdout
    return dict(Counter(record["state"] for record in json.loads(said)))


def main() -> int:
    args = show.options(__doc__, items=2000, limit=50, jobs=200, seconds=0.5)
    seconds, names = args.seconds / args.speed, samples(args.items)
    backoff = f"{max(1, int(500 / args.speed))}ms..{max(2, int(2000 / args.speed))}ms"
    print(f"{args.items:,} samples, and a cluster that takes {args.limit} jobs at a time\n")
    with tempfile.TemporaryDirectory() as scratch:
        by_xargs, by_weir = Path(scratch, "xargs"), Path(scratch, "weir")
        for folder in (by_xargs, by_weir):
            make_cluster(folder, args.limit, seconds)
        rows = {
            f"xargs -P{args.jobs}": run_xargs(by_xargs, names, args.jobs),
            f"weir run -j{args.jobs}": run_weir(by_weir, names, args.jobs, backoff),
        }
        ledger = states(by_weir)
    headers = ["", "submitted", "refused", "done", "done twice", "lost", "seconds"]
    cells = [
        [name, *(f"{n:,}" for n in row[:-1]), f"{row.seconds:.1f}"] for name, row in rows.items()
    ]
    print("\n" + show.table(headers, cells))
    weir = list(rows.values())[-1]
    parts = {state: ledger.get(state, 0) for state in ("done", "failed", "left", "started")}
    broken = show.check_law("samples", args.items, {k: n for k, n in parts.items() if n})
    return int(broken or weir.lost > 0 or weir.twice > 0 or parts["done"] != args.items)


if __name__ == "__main__":
    sys.exit(main())
