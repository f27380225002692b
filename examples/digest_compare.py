"""digest_compare.py - what `digest_tree.py --compare` does: the same work under weir's executor and
under the standard one, each in a process of its own and under the same cap on memory, with the
memory of both sampled from outside and drawn to a PNG.

The cap is RLIMIT_DATA: private memory, thread stacks included, of each process.  A run that needs
more ends with "out of memory"; that is a result here, not an error.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import show

DEFAULT_CAP = 256 * show.MIB
PERIOD = 0.05  # seconds between samples
STUCK = 10  # seconds without a result, after an error for lack of memory
COLOURS = {"weir": "#0072b2", "standard": "#d55e00"}  # can be told apart by everybody


class Sample(NamedTuple):
    seconds: float
    parent: int  # bytes
    workers: int


class Run(NamedTuple):
    executor: str
    status: int
    ending: str  # in words
    samples: list[Sample]
    lines: set[bytes]  # of the file of digests

    @property
    def finished(self) -> bool:
        return self.status == 0

    @property
    def seconds(self) -> float:
        return self.samples[-1].seconds

    @property
    def peak(self) -> Sample:
        return max(self.samples, key=lambda sample: sample.parent)


def compare(args: argparse.Namespace) -> int:
    """Runs both, prints a table, draws the chart; returns the exit status."""
    draws = str(args.plot) != "none"
    if draws and importlib.util.find_spec("matplotlib") is None:
        say("--compare draws with matplotlib, which is not installed for this Python: install it")
        say("(scripts/setup plot), or add --plot none to get the figures in words only.")
        return 2
    args.cap = args.cap or DEFAULT_CAP
    try:
        for path in (args.output, args.plot):
            path.parent.mkdir(parents=True, exist_ok=True)
        weir, standard = run(args, "weir"), run(args, "standard")
    except KeyboardInterrupt:
        say("stopped")
        return 128 + signal.SIGINT
    except OSError as error:
        say(f"cannot write {error.filename}: {error.strerror}")
        return 1
    print(words(weir, standard, args.cap))
    agree = standard.lines <= weir.lines
    if weir.finished:
        print("each digest of the standard run is in the weir run:", "yes" if agree else "NO")
    if draws:
        try:
            draw(weir, standard, args)
        except OSError as error:
            say(f"cannot write {args.plot}: {error.strerror}")
            return 1
        print(f"chart: {args.plot}")
    return weir.status or (0 if agree else 1)


def run(args: argparse.Namespace, executor: str) -> Run:
    """Runs digest_tree.py with one executor, in a session of its own, and samples its memory."""
    output = args.output.with_suffix(f".{executor}.sha256")
    sizes = args.output.with_suffix(f".{executor}.tsv")
    log = args.output.with_suffix(f".{executor}.log")
    options = {
        "--executor": executor,
        "--output": output,
        "--sizes": sizes,
        "--cap": args.cap,
        "--limit": args.limit,
        "--producers": args.producers,
        "--workers": args.workers,
        "--backlog": {True: "2x", None: "none"}.get(args.backlog, args.backlog),
        "--large": args.large,
        "--seconds": args.seconds,
        "--max-file-size": args.max_file_size,
    }
    program = Path(__file__).with_name("digest_tree.py")
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    command = [sys.executable, str(program), *given]
    say(f"running with the {executor} executor; what it says goes to {log}")
    with open(log, "wb") as said:
        process = subprocess.Popen(
            [*command, "--", *map(os.fsdecode, args.paths)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        samples, stuck = watch(process, sizes, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the workers of a parent that died of the cap
        status = process.wait()
    return Run(executor, status, ending(status, stuck, log), samples, complete_lines(output))


def watch(process: subprocess.Popen[bytes], sizes: Path, log: Path) -> tuple[list[Sample], bool]:
    """Samples until the process has ended, or hangs after an error for lack of memory."""
    began = last_result = time.monotonic()
    samples, written = [Sample(0, 0, 0)], 0
    while process.poll() is None:
        now = time.monotonic()
        workers = sum(map(show.rss, show.descendants(process.pid)))
        samples.append(Sample(now - began, show.rss(process.pid), workers))
        if sizes.exists() and sizes.stat().st_size != written:
            written, last_result = sizes.stat().st_size, now
        if now - last_result > STUCK and b"MemoryError" in log.read_bytes():
            return samples, True
        time.sleep(PERIOD)
    return [sample for sample in samples if sample.parent] or samples, False


def ending(status: int, stuck: bool, log: Path) -> str:
    if stuck:
        return "out of memory, and hung: killed"
    if status == 0:
        return "finished"
    text = log.read_text(errors="replace")
    if status == 3 or "MemoryError" in text:
        return "died: out of memory"
    return f"failed with status {status}: see {log}"


def complete_lines(path: Path) -> set[bytes]:
    """The lines that were written whole before the end, whatever the end was."""
    content = path.read_bytes() if path.exists() else b""
    return set(content[: content.rfind(b"\n") + 1].splitlines())


def words(weir: Run, standard: Run, cap: int) -> str:
    rows: list[tuple[object, ...]] = [
        ("ended", weir.ending, standard.ending),
        ("files digested", f"{len(weir.lines):,}", f"{len(standard.lines):,}"),
        ("seconds", f"{weir.seconds:.1f}", f"{standard.seconds:.1f}"),
        ("peak RSS: parent", show.mib(weir.peak.parent), show.mib(standard.peak.parent)),
        ("workers then", show.mib(weir.peak.workers), show.mib(standard.peak.workers)),
    ]
    return show.table((f"under a cap of {show.mib(cap)}", "weir", "standard"), rows)


def draw(weir: Run, standard: Run, args: argparse.Namespace) -> None:
    importlib.import_module("matplotlib").use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    figure, axes = plt.subplots(figsize=(9, 4.8), layout="constrained")
    peak = max(weir.peak.parent, standard.peak.parent) / show.MIB
    cap = args.cap / show.MIB
    axes.axhline(cap, color="0.45", linewidth=1, linestyle=(0, (6, 4)))
    axes.annotate(
        f"cap on private memory: {cap:,.0f} MiB",
        (1, cap),
        (0, 4),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        color="0.35",
    )
    axes.set_xlim(0, max(weir.seconds, standard.seconds) * 1.03)
    axes.set_ylim(0, max(peak, cap) * 1.18)
    for one in (standard, weir):
        curve(axes, one)
    axes.set_xlabel("seconds")
    axes.set_ylabel("memory of the submitting process (RSS, MiB)")
    axes.set_title(
        f"{args.producers} threads read files and submit their bytes to {args.workers} workers",
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    figure.savefig(args.plot, dpi=150, format=args.plot.suffix[1:] or "png")
    plt.close(figure)


def curve(axes: Any, run: Run) -> None:
    """One curve, with its name and its fate written at its end."""
    name = {"weir": "weir.ProcessPoolExecutor", "standard": "concurrent.futures"}[run.executor]
    colour = COLOURS[run.executor]
    megabytes = [sample.parent / show.MIB for sample in run.samples]
    axes.plot([sample.seconds for sample in run.samples], megabytes, color=colour, linewidth=2)
    end = (run.seconds, megabytes[-1])
    axes.plot(*end, "o" if run.finished else "X", color=colour, markersize=9, clip_on=False)
    text = f"{name}: peak {max(megabytes):,.0f} MiB,\n{run.ending} after {run.seconds:.1f} s"
    if run.finished:  # the label lies on the middle of the curve
        across, up = "center", "bottom"
        at, offset = (run.seconds / 2, max(megabytes)), (0, 6)
    else:  # beside the end, where there is room
        text += f"\nwith {len(run.lines):,} files digested"
        right = run.seconds < axes.get_xlim()[1] / 2
        across, up = "left" if right else "right", "center"
        at, offset = end, (12 if right else -12, 0)
    axes.annotate(text, at, offset, textcoords="offset points", ha=across, va=up, color=colour)


def say(text: str) -> None:
    print(f"digest_tree: {text}", file=sys.stderr, flush=True)
