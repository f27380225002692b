#!/usr/bin/env python3
"""digest_tree.py - compress and digest every file below PATH, on all CPUs, in flat memory.

    walk --paths--> 100 producer threads --bytes--> worker processes --outcomes--> one writer

The producers read files faster than the workers compress them.  With the standard
ProcessPoolExecutor every file read and not yet compressed lies in memory (try --compare); with
weir's, a producer waits in submit() while the backlog is full.  That is all there is to it: look
for "weir" in run() and make_pool(); the rest is reading files with care.

Promise:  found == digested + each reason for which a file was not; exit status 1 if it is broken.
          Each file gets one outcome, written by one thread, in the order of completion.
Memory:   at most (producers + backlog + workers) files of at most --large bytes.  Larger files go
          through a producer in chunks of 1 MiB and are never whole in memory.  The walk holds
          one directory and the names of those to come, never the list of all files.
Links:    symbolic links are counted, not followed (as `find -type f` does); a loop is reported.
Output:   out/digest_tree.sha256, which `sha256sum -c` accepts, and out/digest_tree.tsv with the
          sizes, and with the reason for each file that has no digest.
Ctrl-C:   once: ends the walk, finishes what was found, prints the table; twice: stops at once.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import errno
import hashlib
import io
import itertools
import os
import resource
import shutil
import signal
import stat
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Literal, NamedTuple, NoReturn

import show
import weir

CHUNK = 1 << 20
QUIET = ("digested", "symbolic link", "own output")  # outcomes that nobody has to hear about
EXIT_LAW, EXIT_OUTPUT, EXIT_USAGE, EXIT_MEMORY = 1, 1, 2, 3


class Outcome(NamedTuple):
    """What became of one file."""

    path: bytes
    kind: str  # "digested", or why not
    size: int = 0
    compressed: int = 0
    sha256: str = ""
    detail: str = ""


class Limits(NamedTuple):
    """What read() goes by."""

    large: int  # bytes; a larger file is digested where it is read
    too_large: int | None  # bytes; a larger file is left out
    own_outputs: set[tuple[int, int]]  # device and inode of the files being written


# ---- the work -----------------------------------------------------------------------------------


def run(args: argparse.Namespace, report: Report) -> None:
    """Walks, reads, digests, writes; returns when each file found has its outcome on disk."""
    limits = Limits(args.large, args.max_file_size, report.own_outputs)
    paths: weir.Queue[bytes] = weir.Queue(2 * args.producers, name="paths")
    outcomes: weir.Queue[Outcome] = weir.Queue(1000, name="outcomes")
    with make_pool(args) as pool:
        writer = start(report.write_all, outcomes)
        producers = [start(produce, paths, pool, outcomes, limits) for _ in range(args.producers)]
        report.watch(pool)
        for item in itertools.islice(walk(args.paths), args.limit or None):
            if report.stopped():
                break
            report.found += 1
            if isinstance(item, Outcome):
                outcomes.put(item)
            else:
                paths.put(item)  # waits while the producers have enough to do
        paths.shutdown()
        for producer in producers:
            producer.join()
    outcomes.shutdown()
    writer.join()


def make_pool(args: argparse.Namespace) -> concurrent.futures.Executor:
    """weir's executor; or, to compare, the standard one, which takes whatever is submitted."""
    if args.executor == "standard":
        return concurrent.futures.ProcessPoolExecutor(args.workers, initializer=leave_signals)
    return weir.ProcessPoolExecutor(
        args.workers,
        initializer=leave_signals,
        max_submit_backlog=args.backlog,
        retries=1,
        name="digest",
    )


def produce(
    paths: weir.Queue[bytes],
    pool: concurrent.futures.Executor,
    outcomes: weir.Queue[Outcome],
    limits: Limits,
) -> None:
    """One producer: reads files and submits their bytes."""
    for path in paths:
        try:
            content = read(path, limits)
            if isinstance(content, Outcome):
                outcomes.put(content)
                continue
            future = pool.submit(digest, content)  # waits while the backlog is full
        except Exception as error:
            outcomes.put(failure(path, error))
            continue
        future.add_done_callback(partial(finish, outcomes, path, len(content)))
        del content, future  # or they would live on while the next path is waited for


def digest(content: bytes) -> tuple[str, int]:
    """One task, in a worker process: SHA-256 and compressed size."""
    return hashlib.sha256(content).hexdigest(), len(zlib.compress(content, 1))


def finish(
    outcomes: weir.Queue[Outcome],
    path: bytes,
    size: int,
    future: concurrent.futures.Future[tuple[str, int]],
) -> None:
    """Called when a task has ended, in whatever way."""
    error = future.exception()
    if error is not None:
        outcomes.put(failure(path, error))
        return
    sha256, compressed = future.result()
    outcomes.put(Outcome(path, "digested", size, compressed, sha256))


def failure(path: bytes, error: BaseException) -> Outcome:
    """The outcome of a task that could not be submitted, or that did not end well."""
    kind = "out of memory" if isinstance(error, MemoryError) else "failed in the pool"
    return Outcome(path, kind, detail=f"{type(error).__name__}: {error}")


# ---- finding and reading files ------------------------------------------------------------------


def walk(tops: list[bytes]) -> Iterator[bytes | Outcome]:
    """Yields each path that is not a directory, in a stable order, and an outcome for each
    directory that cannot be listed."""
    waiting = tops[::-1]
    while waiting:
        top = waiting.pop()
        try:
            with os.scandir(top) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except NotADirectoryError:
            yield top
            continue
        except OSError as error:
            gone = error.errno == errno.ENOENT
            kind = "vanished" if gone else "directory not readable"
            yield Outcome(top, kind, detail=reason(error))
            continue
        directories = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.path)
            else:
                yield entry.path
        waiting += reversed(directories)


def read(path: bytes, limits: Limits) -> bytes | Outcome:
    """The content of a file; or its outcome, when there is nothing to submit."""
    try:
        return read_regular(path, limits)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return Outcome(path, "vanished")
        return Outcome(path, "unreadable", detail=reason(error))


def read_regular(path: bytes, limits: Limits) -> bytes | Outcome:
    """Looks before it opens, because opening a device can do harm; and opens without waiting,
    because a FIFO waits for its writer and may have come since the look."""
    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode):
        return special(path, mode)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(path, flags)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return special(path, status.st_mode)
        if (status.st_dev, status.st_ino) in limits.own_outputs:
            return Outcome(path, "own output")
        if limits.too_large is not None and status.st_size > limits.too_large:
            return Outcome(path, "too large", status.st_size)
        if status.st_size <= limits.large:
            content = read_at_most(fd, status.st_size + 1)
            if len(content) <= status.st_size:
                return content
            os.lseek(fd, 0, os.SEEK_SET)  # it grows, or it is in /proc and said that it is empty
        return digest_in_chunks(path, fd)
    finally:
        os.close(fd)


def read_at_most(fd: int, size: int) -> bytes:
    """Fewer bytes than size only if the file has no more."""
    parts = []
    while size > 0 and (part := os.read(fd, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)  # of one part: that part, not a copy


def digest_in_chunks(path: bytes, fd: int) -> Outcome:
    """Digests a large file where it is read; both libraries let the other threads run."""
    sha256, compressor = hashlib.sha256(), zlib.compressobj(1)
    size = compressed = 0
    while chunk := os.read(fd, CHUNK):
        sha256.update(chunk)
        size += len(chunk)
        compressed += len(compressor.compress(chunk))
    compressed += len(compressor.flush())
    return Outcome(path, "digested", size, compressed, sha256.hexdigest())


def special(path: bytes, mode: int) -> Outcome:
    """The outcome of what is not a regular file."""
    if stat.S_ISLNK(mode):
        try:
            os.stat(path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return Outcome(path, "symlink loop")
        return Outcome(path, "symbolic link")
    names = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFDIR: "now a directory"}
    return Outcome(path, "not regular", detail=names.get(stat.S_IFMT(mode), "device"))


def reason(error: OSError) -> str:
    return error.strerror or str(error)


# ---- writing results and telling how it goes ----------------------------------------------------


class Report:
    """Counts and writes outcomes; shows progress on stderr, and the table at the end.

    `found` is changed by the thread that walks, the other counts by the one that writes.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.sums = create(args.output)
        self.sizes = create(args.sizes)
        self.sizes.write(b"outcome\tsize\tcompressed\tsha256\tpath\tdetail\n")
        outputs = [os.fstat(file.fileno()) for file in (self.sums, self.sizes)]
        self.own_outputs = {(status.st_dev, status.st_ino) for status in outputs}

        self.found = self.done = self.troubles = 0
        self.counts: Counter[str] = Counter()
        self.bytes = self.compressed = 0
        self.began = time.monotonic()
        self.signal = 0  # the one that asked to stop

        self.pool: concurrent.futures.Executor | None = None
        self.total: int | None = None  # None until counted
        self.worker_pids: list[int] = []
        self.peak_workers = 0  # bytes
        self.ended = threading.Event()
        self.live = os.environ.get("TERM") != "dumb" and bool(sys.stderr and sys.stderr.isatty())

    # -- results

    def write_all(self, outcomes: weir.Queue[Outcome]) -> None:
        """The one place that writes."""
        try:
            for outcome in outcomes:
                self.write(outcome)
            self.sums.close()
            self.sizes.close()
        except OSError as error:
            outputs = f"{self.args.output} and {self.args.sizes}"
            self.abandon(f"cannot write to {outputs}: {reason(error)}", EXIT_OUTPUT)
        except MemoryError:
            self.abandon("out of memory", EXIT_MEMORY)

    def write(self, outcome: Outcome) -> None:
        path, kind, size, compressed, sha256, detail = outcome
        self.counts[kind] += 1
        self.done += 1
        if kind == "digested":
            self.bytes += size
            self.compressed += compressed
            name = escape(path)
            mark = b"\\" if name != path else b""
            self.sums.write(b"%s%s  %s\n" % (mark, sha256.encode(), name))
        elif kind == "out of memory":
            self.abandon(f"out of memory after {self.done:,} files", EXIT_MEMORY)
        elif kind not in QUIET:
            self.complain(outcome)
        columns = [f"{kind}\t{size}\t{compressed}\t{sha256}".encode()]
        columns += [escape(path).replace(b"\t", b"\\t")]
        columns += [escape(detail.encode(errors="replace")).replace(b"\t", b"\\t")]
        self.sizes.write(b"\t".join(columns) + b"\n")

    def complain(self, outcome: Outcome) -> None:
        self.troubles += 1
        if self.troubles <= 20:
            detail = f" ({outcome.detail})" if outcome.detail else ""
            self.say(f"{outcome.kind}: {os.fsdecode(outcome.path)!a}{detail}")
        elif self.troubles == 21:
            self.say(f"there are more without a digest: see {self.args.sizes}")

    # -- progress

    def watch(self, pool: concurrent.futures.Executor) -> None:
        """Shows progress, and counts the files for the ETA, in threads of their own."""
        self.pool = pool
        start(self.count)
        self.progress_thread = start(self.progress)

    def count(self) -> None:
        files = itertools.islice(walk(self.args.paths), self.args.limit or None)
        self.total = sum(1 for _ in files)

    def progress(self) -> None:
        last_line = self.began
        while not self.ended.wait(0.2):
            self.worker_pids = show.descendants()
            workers = sum(map(show.rss, self.worker_pids))
            self.peak_workers = max(self.peak_workers, workers)
            if self.live:
                self.say(self.status(workers), keep=False)
            elif time.monotonic() - last_line >= 5:
                last_line = time.monotonic()
                self.say(self.status(workers))

    def status(self, workers: int) -> str:
        seconds = max(time.monotonic() - self.began, 0.001)
        parts = [
            f"{self.done:,} files",
            f"{self.done / seconds:,.0f}/s",
            f"{self.bytes / seconds / show.MIB:,.1f} MiB/s",
            f"in flight {self.found - self.done:,}",
            *self.backlog(),
            f"RSS {show.rss() // show.MIB} + {workers // show.MIB} MiB",
        ]
        if self.total is None:
            parts.append("ETA: counting")
        elif self.done:
            left = max(self.total - self.done, 0) / self.done * seconds
            parts.append(f"ETA {left // 60:.0f}:{left % 60:02.0f}")
        return ", ".join(parts)

    def backlog(self) -> list[str]:
        """The standard executor cannot tell."""
        if not isinstance(self.pool, weir.ProcessPoolExecutor):
            return []
        return [f"backlog {self.pool.stats().waiting}"]

    def waits(self, seconds: float) -> list[tuple[str, str]]:
        """How long the producers waited in submit: this is what keeps the memory flat."""
        if not isinstance(self.pool, weir.ProcessPoolExecutor):
            return []
        waited = self.pool.stats().submit_blocked
        share = waited / seconds / self.args.producers
        return [("waits in submit", f"{waited:,.0f} s ({share:.0%})")]

    def say(self, text: str, *, keep: bool = True) -> None:
        """Writes a line to stderr; with keep=False one that the next replaces."""
        if self.live:
            columns = shutil.get_terminal_size().columns
            text = "\r\x1b[K" + (text + "\n" if keep else text[: columns - 1])
        else:
            text = f"digest_tree: {text}\n"
        with contextlib.suppress(OSError):  # nobody may be listening
            os.write(2, text.encode(errors="replace"))  # one call: takes no lock, never mixed

    # -- the end

    def stopped(self) -> bool:
        late = self.args.seconds and time.monotonic() - self.began > self.args.seconds
        return bool(self.signal or late)

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            self.abandon("stopped at once", 128 + number)
        self.signal = number
        self.say("stopping: finishing what was found; once more to stop at once")

    def abandon(self, sentence: str, status: int) -> NoReturn:
        """Ends the process at once, from any thread; keeps the results so far if it can."""
        try:
            self.say(sentence)
            for pid in self.worker_pids:  # without memory there is no looking for them now
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for file in (self.sums, self.sizes):
                with contextlib.suppress(OSError, ValueError):
                    file.flush()
        finally:  # also without the memory for any of this
            os._exit(status)

    def end(self) -> None:
        """Ends the progress, and wipes its line."""
        self.ended.set()
        self.progress_thread.join()
        if self.live:
            self.say("", keep=False)

    def table(self) -> str:
        seconds = time.monotonic() - self.began
        ratio = f" ({self.compressed / self.bytes:.1%})" if self.bytes else ""
        rows = [
            ("found", f"{self.found:,}"),
            *((f"  {kind}", f"{number:,}") for kind, number in self.counts.most_common()),
            ("bytes", f"{self.bytes:,}"),
            ("compressed", f"{self.compressed:,}{ratio}"),
            ("seconds", f"{seconds:.2f}"),
            ("throughput", f"{self.found / seconds:,.0f} files/s"),
            ("", f"{show.mib(self.bytes / seconds)}/s"),
            *self.waits(seconds),
            ("peak RSS: parent", show.mib(show.rss(peak=True))),
            ("workers", show.mib(self.peak_workers)),
            ("results", str(self.args.output)),
            ("sizes, troubles", str(self.args.sizes)),
        ]
        return show.table(("digest_tree", f"{self.args.executor} executor"), rows)


def create(path: Path) -> io.BufferedWriter:
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
    return open(path, "wb")


def escape(name: bytes) -> bytes:
    """As sha256sum writes and reads names."""
    return name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


# ---- starting and stopping ----------------------------------------------------------------------


def start(function: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def leave_signals() -> None:
    """In a worker: Ctrl-C reaches everybody on the terminal, and it is the parent that decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (--help lists the options)\n")


def backlog_option(text: str) -> int | bool | Literal["auto"] | None:
    if text == "none":
        return None
    if text == "auto":
        return "auto"
    if text == "2x":
        return True
    try:
        return int(show.positive(int)(text))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f'{error}, "2x", "auto" or "none"') from None


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = Parser("digest_tree", description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", default=["/usr/share"], help="default: /usr/share")
    add("--limit", type=int, default=20_000, help="at most so many files; 0: all (default 20000)")
    add("--producers", type=show.positive(int), default=100, help="reading threads (default 100)")
    add(
        "--workers",
        type=show.positive(int),
        default=os.cpu_count(),
        help="worker processes (default: one per CPU)",
    )
    add(
        "--backlog",
        type=backlog_option,
        default=True,
        metavar="N",
        help='tasks that may wait for a worker; "2x": twice the workers (default); "auto": as many '
        'as keep them busy; "none": no bound',
    )
    add(
        "--large",
        type=show.parse_size,
        default="1M",
        metavar="SIZE",
        help="files above it are digested in chunks, by the thread that reads (default 1M)",
    )
    add("--max-file-size", type=show.parse_size, metavar="SIZE", help="leave larger files out")
    add("--seconds", type=show.positive(float), help="end the walk after so many seconds")
    add(
        "--output",
        type=Path,
        default=Path("out/digest_tree.sha256"),
        metavar="FILE",
        help="digests, for sha256sum -c (default out/digest_tree.sha256)",
    )
    add("--sizes", type=Path, metavar="FILE", help="outcomes (default: the output, but .tsv)")
    add("--executor", choices=("weir", "standard"), default="weir", help="default: weir")
    add(
        "--cap",
        type=show.parse_size,
        metavar="SIZE",
        help="bound the memory of each process (RLIMIT_DATA); default with --compare: 256M",
    )
    add("--compare", action="store_true", help="run under weir and under the standard executor")
    add(
        "--plot",
        type=Path,
        default=Path("out/digest_tree.png"),
        metavar="PNG",
        help='where --compare draws both memory curves (default out/digest_tree.png); "none"',
    )
    args = parser.parse_args(argv)
    if args.limit < 0:
        parser.error(f"argument --limit: {args.limit} is below 0")
    args.sizes = args.sizes or args.output.with_suffix(".tsv")
    if args.sizes == args.output:
        parser.error(f"argument --sizes: {args.sizes} is the output already")
    args.paths = [os.fsencode(path) for path in args.paths]
    check_paths(parser, args.paths)
    return args


def check_paths(parser: argparse.ArgumentParser, paths: list[bytes]) -> None:
    """Each must be there, and none inside another, or its files would be digested twice."""
    real: list[str] = []
    names = [os.fsdecode(path) for path in paths]
    for name in names:
        try:
            os.stat(name)
        except OSError as error:
            parser.error(f"{name}: {reason(error)}")
        real.append(os.path.join(os.path.realpath(name), ""))
    for (inner, name), (outer, other) in itertools.permutations(zip(real, names, strict=True), 2):
        if inner.startswith(outer):
            parser.error(f"{name} lies inside {other}, so give one of them")


def main() -> int:
    args = parse()
    if args.compare:
        from digest_compare import compare

        return compare(args)
    if args.cap:
        threading.stack_size(256 << 10)  # or the stacks of 100 threads would fill the cap
        resource.setrlimit(resource.RLIMIT_DATA, (args.cap, args.cap))
    try:
        report = Report(args)
    except OSError as error:
        print(f"digest_tree: cannot write {error.filename}: {reason(error)}", file=sys.stderr)
        return EXIT_OUTPUT
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, report.on_signal)
    try:
        run(args, report)
    except MemoryError:
        report.abandon("out of memory", EXIT_MEMORY)
    holds, law = show.law("found", report.found, dict(report.counts.most_common()))
    report.end()
    try:
        print(report.table(), law, sep="\n", flush=True)
    except OSError as error:
        if error.errno != errno.EPIPE:
            report.say(f"cannot write the table: {reason(error)}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would complain at exit
    if report.signal:
        return 128 + report.signal
    return 0 if holds else EXIT_LAW


if __name__ == "__main__":
    sys.exit(main())
