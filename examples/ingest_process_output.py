#!/usr/bin/env python3
"""ingest_process_output.py - a production pipeline (scenario S13): ingest -> process -> output.

Three buffers (10, 5 and 3 items), three processors (0.1 s an item), two writers (0.05 s), and a
source that brings 50 items a second from real files: the manual pages of this machine, whose words
are counted.  The processors bear 30 a second, so the source is too fast.

    --overflow block    it waits; an item for which there is no room in 1 s is dropped all the same
    --overflow drop     what finds no room is dropped at once

A line shows the pipeline while it runs, and warns when a buffer is 80 % full.  Ctrl-C stops the
source and lets what is inside finish; a second Ctrl-C stops at once.
"""

from __future__ import annotations

import gzip
import sys
import threading
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import show
import weir

WARN = 0.8  # of a buffer


def find_pages(top: Path) -> Iterator[Path]:
    """Manual pages; where there are none, what is there to read about packages."""
    for folder in (top / "man", top / "doc", top):
        pages = sorted(path for path in folder.rglob("*") if path.is_file())
        if pages:
            return iter(pages)
    return iter(())


def at_a_rate(paths: Iterable[Path], per_second: float, n: int) -> Iterator[Path]:
    began = time.monotonic()
    for number, path in zip(range(n), paths, strict=False):
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        yield path


class Work:
    """What the stages do, `speed` times as fast."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.words = self.written = 0
        self._lock = threading.Lock()

    def ingest(self, path: Path) -> tuple[Path, bytes]:
        data = path.read_bytes()
        return path, gzip.decompress(data) if path.suffix == ".gz" else data

    def process(self, page: tuple[Path, bytes]) -> tuple[str, int]:
        path, data = page
        time.sleep(0.1 / self.speed)
        return path.name, len(data.split())

    def output(self, result: tuple[str, int]) -> None:
        time.sleep(0.05 / self.speed)
        with self._lock:
            self.written += 1
            self.words += result[1]


def describe(paths: Iterable[Path], work: Work, overflow: str) -> weir.Pipeline:
    how: dict[str, Any] = {"overflow": "drop_newest"}
    if overflow == "block":
        how = {"overflow": "block", "put_timeout": 1.0}
    pipeline = weir.Pipeline(paths, name="manual pages", drain_deadline=10)
    pipeline.stage(work.ingest, queue=10, on_error="skip", **how)
    pipeline.stage(work.process, queue=5, workers=3, on_error="skip", **how)
    pipeline.sink(work.output, queue=3, workers=2, retry=3, **how)
    return pipeline


class Monitor:
    """One line that tells how it stands, and a warning where a buffer gets full."""

    def __init__(self, pipeline: weir.Pipeline) -> None:
        self.pipeline = pipeline
        self.warned: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        is_live = sys.stdout.isatty()
        while not self._over.wait(0.2 if is_live else 1.0):
            stats = self.pipeline.stats()
            line = self.line(stats)
            print(f"\r\33[K{line}" if is_live else line, end="" if is_live else "\n", flush=True)
            for name, stage in stats.stages.items():
                if stage.utilisation >= WARN and name not in self.warned:
                    self.warned.add(name)
                    full = f"warning: {name!r} has its buffer {stage.utilisation:.0%} full"
                    print(f"\n{full}" if is_live else full, flush=True)

    @staticmethod
    def line(stats: weir.PipelineStats) -> str:
        buffers = [
            f"{name} {stage.qsize}/{stage.maxsize}"
            for name, stage in stats.stages.items()
            if stage.maxsize is not None
        ]
        written = stats.stages["output"].processed
        waits = sum(stage.waits for stage in stats.stages.values())
        return (
            f"{stats.elapsed:5.1f} s  {' | '.join(buffers)}  written {written}  "
            f"dropped {sum(stats.dropped.values())}  waits {waits}"
        )


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--overflow", choices=("block", "drop"), default="block")
    parser.add_argument("--items", type=show.positive(int), default=500, metavar="N")
    parser.add_argument("--rate", type=show.positive(float), default=50.0, help="items a second")
    parser.add_argument("--speed", type=show.positive(float), default=1.0, metavar="N")
    parser.add_argument("--top", type=Path, default=Path("/usr/share"), help="where to look")
    args = parser.parse_args()

    work = Work(args.speed)
    paths = at_a_rate(find_pages(args.top), args.rate * args.speed, args.items)
    pipeline = describe(paths, work, args.overflow)
    monitor = Monitor(pipeline.start())
    monitor.start()
    report = pipeline.run()  # here Ctrl-C and SIGTERM stop it as the text above says
    monitor.end()
    print(f"\n{report}\n{work.words:,} words in {work.written} pages")
    lost = {**report.dropped, "failed": report.failed, "left": report.left}
    return show.check_law("read", report.accepted, {"written": work.written, **lost})


if __name__ == "__main__":
    sys.exit(main())
