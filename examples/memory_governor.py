#!/usr/bin/env python3
"""memory_governor.py - more jobs than memory, with a governor and without.

8 workers, and memory for two jobs: each job takes 400 MiB for half a second, in a memory cgroup of
1,200 MiB.  Without a governor the kernel kills workers; two workers, counted out by hand, are as
fast as that memory allows.  With `memory=weir.MemoryGovernor("90%")` the 8 workers are as fast as
that when they are told what a job takes; not told, they run the first job alone to learn it.
Nobody is killed.

Who may not make cgroups sees the same with a bound on the sum of the resident sets that this
program keeps up itself: a watchdog, which kills the largest worker when the sum is above it.  (An
rlimit is for one process, and cannot bound a sum.)
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import show
import weir
from show import MIB

MODES = {
    "hand": "2 workers, by hand",
    "governed": "8 workers, governor, told",
    "learned": "8 workers, governor, learns",
    "free": "8 workers",
}


def job(nbytes: int, seconds: float) -> int:
    data = bytearray(b"\1") * nbytes  # every page is touched
    time.sleep(seconds)
    return len(data)


def start() -> None:
    """What makes the workers start, and is not a job: sizes are learned for each function."""


# ---- inside the bound -----------------------------------------------------------------------


def inside(mode: str, args: Namespace) -> None:
    """Runs the jobs in this process and its workers; prints what became of them."""
    nbytes = args.size * MIB
    limit: int | str = args.limit if args.limit.endswith("%") else int(args.limit)
    options: dict[str, Any] = {}
    if mode in ("governed", "learned"):
        options["memory"] = weir.MemoryGovernor(limit)
    if mode == "governed":
        options["memory_per_task"] = nbytes
    workers = max(1, args.memory // args.size - 1) if mode == "hand" else args.workers
    died = 0
    with weir.ProcessPoolExecutor(workers, max_submit_backlog=None, **options) as pool:
        for started in [pool.submit(start) for _ in range(2 * workers)]:
            started.result()
        began = time.monotonic()
        for future in [pool.submit(job, nbytes, args.seconds) for _ in range(args.jobs)]:
            try:
                future.result()
            except weir.WorkerDied:
                died += 1
        seconds = time.monotonic() - began
    print(json.dumps({"done": args.jobs - died, "died": died, "seconds": seconds}))


# ---- the bound ------------------------------------------------------------------------------


class Cgroup:
    """A memory cgroup of our own, below the one we are in, version 1 or 2; OSError: we may not."""

    is_real = True

    def __init__(self, nbytes: int) -> None:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        paths = {fields[1]: fields[2] for fields in (line.split(":", 2) for line in lines)}
        one = next((path for names, path in paths.items() if "memory" in names.split(",")), None)
        root = Path("/sys/fs/cgroup" + ("/memory" if one is not None else ""))
        above = root / (one if one is not None else paths[""]).lstrip("/")
        self.path = (above if above.is_dir() else root) / f"weir-example-{os.getpid()}"
        limit, usage = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        if one is None:
            limit, usage = ("memory.max", "memory.current")
        self.path.mkdir()
        try:
            (self.path / limit).write_text(str(nbytes))
            if one is None:
                (self.path / "memory.swap.max").write_text("0")
        except OSError:
            self.close()
            raise
        self.usage_file = self.path / usage

    def enter(self) -> None:
        (self.path / "cgroup.procs").write_text("0")

    def usage(self, pid: int) -> int:
        return int(self.usage_file.read_text())

    def close(self) -> None:
        for _ in range(100):  # a process that has just ended may still count
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.02)


def tree(pid: int) -> dict[int, int]:
    """The resident sets of a process and its descendants, by process id."""
    found: dict[int, int] = {}
    waiting = [pid]
    while waiting:
        at = waiting.pop()
        with contextlib.suppress(OSError):
            found[at] = int(Path(f"/proc/{at}/statm").read_text().split()[1]) * 4096
            for task in Path(f"/proc/{at}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return found


class Watchdog:
    """Plays the OOM killer for the sum of the resident sets of a process and its descendants."""

    is_real = False

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes

    def enter(self) -> None:
        pass

    def usage(self, pid: int) -> int:
        sizes = tree(pid)
        total = sum(sizes.values())
        workers = {at: size for at, size in sizes.items() if at != pid}
        if total > self.nbytes and workers:
            with contextlib.suppress(OSError):
                os.kill(max(workers, key=lambda at: workers[at]), signal.SIGKILL)
        return total

    def close(self) -> None:
        pass


def make_bound(nbytes: int, cgroup: bool) -> Cgroup | Watchdog:
    if cgroup:
        with contextlib.suppress(OSError, KeyError):
            return Cgroup(nbytes)
    return Watchdog(nbytes)


def run(mode: str, args: Namespace) -> dict[str, Any]:
    """Runs one mode inside a bound; its result, with what was used when."""
    bound = make_bound(args.memory * MIB, args.cgroup)
    limit = "90%" if bound.is_real else str(int(0.9 * args.memory * MIB))
    command = [sys.executable, __file__, "--inside", mode, "--limit", limit]
    for name in ("memory", "size", "jobs", "workers", "seconds"):
        command += [f"--{name}", str(getattr(args, name))]
    used: list[tuple[float, float]] = []
    try:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=bound.enter)
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.002):
                used.append((time.monotonic() - began, bound.usage(process.pid) / MIB))

        watcher = threading.Thread(target=watch)
        watcher.start()
        output, _ = process.communicate()
        over.set()
        watcher.join()
    finally:
        bound.close()
    if process.returncode != 0:  # the kernel has chosen the parent
        result = {"done": 0, "died": args.jobs, "seconds": time.monotonic() - began}
    else:
        result = json.loads(output)
    return {**result, "used": used, "peak": max(y for _, y in used), "is_real": bound.is_real}


# ---- showing it -----------------------------------------------------------------------------


def plot(results: dict[str, dict[str, Any]], args: Namespace) -> str:
    try:
        importlib.import_module("matplotlib").use("Agg")
    except ImportError:
        return "no chart: --plot needs matplotlib, which is not installed: scripts/setup plot"
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    for mode, result in results.items():
        axes.plot(*zip(*result["used"], strict=True), label=MODES[mode], linewidth=1)
    axes.axhline(args.memory, color="black", linestyle="--", linewidth=1)
    axes.annotate("killed above", (0, args.memory), va="bottom")
    axes.set(xlabel="seconds", ylabel="MiB in use", title="8 workers, and memory for two jobs")
    axes.legend()
    figure.tight_layout()
    args.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.plot)
    return f"wrote {args.plot}"


def parse() -> Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--memory", type=int, default=1200, metavar="MIB", help="there is")
    parser.add_argument("--size", type=int, default=400, metavar="MIB", help="of a job")
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.5, help="that a job keeps its memory")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what was used when")
    parser.add_argument(
        "--no-cgroup", dest="cgroup", action="store_false", help="use the watchdog in any case"
    )
    parser.add_argument("--inside", choices=MODES, help="(what this program starts itself with)")
    parser.add_argument("--limit", default="90%", help="(likewise)")
    return parser.parse_args()


def main() -> int:
    args = parse()
    if args.inside:
        inside(args.inside, args)
        return 0
    results = {mode: run(mode, args) for mode in MODES}
    if all(result["is_real"] for result in results.values()):
        print(f"in a memory cgroup of {args.memory:,} MiB\n")
    else:
        print(
            f"cannot make a memory cgroup here: a watchdog kills above {args.memory:,} MiB of "
            "summed resident sets\n"
        )
    best = args.jobs / results["hand"]["seconds"]
    rows = []
    for mode, result in results.items():
        rate = result["done"] / result["seconds"]
        rows.append(
            [
                MODES[mode].replace("8", str(args.workers)),
                result["done"],
                result["died"],
                f"{result['seconds']:.2f}",
                f"{rate:.2f}",
                f"{rate / best:.2f}",
                f"{result['peak']:,.0f}",
            ]
        )
    print(show.table(["", "done", "killed", "seconds", "jobs/s", "of best", "peak MiB"], rows))
    if args.plot:
        print(plot(results, args))
    return int(any(results[mode]["died"] for mode in ("governed", "learned")))


if __name__ == "__main__":
    sys.exit(main())
