"""Runs CPython's own tests of queues, executors, and asyncio's queues and locks on weir's classes.

    .venv/bin/python python/tests/oracle/run.py [-v] [-j N] [PATTERN ...]

The tests are those of the running interpreter, unmodified; substitutes.py puts weir's classes in
the places of the standard ones, and exclusions.py lists what weir does not pass, and why.  What is
excluded runs, too, and must fail.  Each test class runs in a process of its own, a few at a time;
a test that hangs is killed and has failed.

Exit status 1: a test failed, an exclusion names no test or is not needed, or nothing ran.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # for `oracle`

from oracle.exclusions import EXCLUSIONS, NOT_FOR_WEIR, UNBOUNDED, Exclusion, for_this_python  # noqa: E402

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"

# Seconds.  CPython's own waits give up after 30.
TEST_TIMEOUT = 45.0
EXCLUDED_TIMEOUT = 10.0
TOTAL_TIMEOUT = 300.0
JOBS = 6  # most tests sleep most of the time


# ---- CPython's tests ----------------------------------------------------------------------------


def find_tests() -> tuple[Path | None, bool]:
    """Where the package `test` with both suites is, and whether it is the interpreter's own."""
    spec = importlib.util.find_spec("test")
    own = [Path(place) for place in spec.submodule_search_locations or []] if spec else []
    for tests in [*own, Path(f"/usr/lib/python{VERSION}/test")]:
        if (tests / "test_queue.py").is_file() and (
            (tests / "test_concurrent_futures.py").is_file()
            or (tests / "test_concurrent_futures" / "__init__.py").is_file()
        ):
            return tests, tests in own
    return None, False


def modules_of(tests: Path) -> list[str]:
    modules = ["test.test_queue"]
    if sys.version_info >= (3, 11):  # before, asyncio's tests ran in a loop that made up its time
        modules += ["test.test_asyncio.test_queues", "test.test_asyncio.test_locks"]
    package = tests / "test_concurrent_futures"
    if not package.is_dir():  # until 3.11
        return [*modules, "test.test_concurrent_futures"]
    names = sorted({path.stem for path in package.glob("test_*.py")} - NOT_FOR_WEIR)
    return [*modules, *(f"test.test_concurrent_futures.{name}" for name in names)]


# ---- a process that runs tests ------------------------------------------------------------------


class Child:
    """A run of child.py, in a session of its own."""

    def __init__(self, path: list[str], command: str, module: str, tests: list[str]) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close
        self._pipe, write_end = os.pipe()
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "oracle.child", command, str(write_end), module, *tests],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            pass_fds=[write_end],
            start_new_session=True,
        )
        os.close(write_end)
        self._end = os.pidfd_open(self._process.pid)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # the workers that it left, too
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        self._process.wait()
        os.close(self._pipe)
        os.close(self._end)
        self._output.close()

    def report(self, deadline: float) -> list[str] | None:
        """The next line; None: it has ended.  TimeoutError."""
        while b"\n" not in self._buffer:
            timeout = max(deadline - time.monotonic(), 0)
            ready, _, _ = select.select([self._pipe, self._end], [], [], timeout)
            if not ready:
                raise TimeoutError
            if self._pipe not in ready:  # a worker may still hold the pipe open
                return None
            data = os.read(self._pipe, 65536)
            if not data:
                self._process.wait()
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        words: list[str] = json.loads(line)
        return words

    def print_traceback(self) -> None:
        """Makes it print where its threads are."""
        self._process.send_signal(signal.SIGUSR2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)

    def printed(self) -> int:
        """Bytes that it has printed up to now."""
        return os.fstat(self._output.fileno()).st_size

    def output(self, offset: int) -> str:
        """What it has printed from there on, up to 8 KiB."""
        return os.pread(self._output.fileno(), 8192, offset).decode(errors="replace")

    def status(self) -> int:
        return self._process.wait()


# ---- running them all ---------------------------------------------------------------------------


class Outcome(NamedTuple):
    word: str  # "passed", "failed" or "skipped"
    text: str = ""
    seconds: float = 0.0


class Group(NamedTuple):
    """The tests of one class, or those of them that are excluded."""

    command: str  # of child.py
    module: str
    tests: list[str]


class Run:
    def __init__(self, path: list[str], excluded: dict[str, Exclusion], verbose: bool) -> None:
        self.path = path
        self.excluded = excluded
        self.verbose = verbose
        self.outcomes: dict[str, Outcome] = {}
        self.deadline = time.monotonic() + TOTAL_TIMEOUT
        self.children: set[Child] = set()
        self._lock = threading.Lock()

    def all(self, groups: list[Group], jobs: int) -> None:
        waiting: queue.SimpleQueue[Group] = queue.SimpleQueue()
        for group in groups:
            waiting.put(group)

        def work() -> None:
            with contextlib.suppress(queue.Empty):
                while True:
                    self.group(waiting.get_nowait())

        threads = [threading.Thread(target=work) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:  # Ctrl-C
            self.deadline = 0
            with self._lock:
                for child in self.children:
                    child.kill()
            raise

    def group(self, group: Group) -> None:
        """Runs a class; after a hang or a crash, what is left of it in another process."""
        left = list(group.tests)
        while left and time.monotonic() < self.deadline:
            with contextlib.closing(Child(self.path, group.command, group.module, left)) as child:
                with self._lock:
                    self.children.add(child)
                done = self.follow(child)
                with self._lock:
                    self.children.discard(child)
            if done.isdisjoint(left):  # the set-up of the class or module fails
                break
            left = [test for test in left if test not in done]
        for test in left:
            self.note(test, Outcome("failed", "it did not run"))

    def follow(self, child: Child) -> set[str]:
        """The tests that one process has ended, or that have ended it."""
        done: set[str] = set()
        running: str | None = None
        start = time.monotonic()
        printed = 0  # bytes, before this test
        while True:
            limit = EXCLUDED_TIMEOUT if running in self.excluded else TEST_TIMEOUT
            try:
                words = child.report(min(start + limit, self.deadline))
            except TimeoutError:
                text = f"it hangs, killed after {limit:.0f} s"
                child.print_traceback()
                words = ["end", running, "failed", text] if running else None
                ended = True
            else:
                ended = words is None
                if ended and running:
                    words = ["end", running, "failed", f"it ended its process ({child.status()})"]
            if words is None:
                if not done:
                    print(child.output(0))
                return done
            if words[0] == "start":
                running, start, printed = words[1], time.monotonic(), child.printed()
                continue
            _, test, word, text = words
            if word == "failed":
                text += f"\n{child.output(printed)}"
            done.add(test)
            self.note(test, Outcome(word, text, time.monotonic() - start))
            if ended:
                return done
            running, start = None, time.monotonic()

    def note(self, test: str, outcome: Outcome) -> None:
        with self._lock:
            self.outcomes[test] = outcome
            excluded = test in self.excluded
            if self.verbose:
                word = f"excluded ({outcome.word})" if excluded else outcome.word
                print(f"{word:8} {outcome.seconds:5.1f} s  {test}", flush=True)
            if outcome.word == "failed" and (self.verbose or not excluded):
                print(f"---- {test}\n{outcome.text.rstrip()}\n", flush=True)


# ---- the verdict --------------------------------------------------------------------------------


def entries(tests: list[str], table: list[Exclusion]) -> dict[str, Exclusion]:
    """The entry of the table for each test that has one."""
    table = for_this_python(table)
    return {test: entry for test in tests for entry in table if fnmatchcase(test, entry.tests)}


def judge(run: Run, tests: list[str]) -> list[str]:
    """Prints the counts; what is wrong, a line each."""
    complaints: list[str] = []
    totals: Counter[str] = Counter()
    suites: dict[str, Counter[str]] = {}
    for test in dict.fromkeys([*tests, *run.outcomes]):  # set-up of a module may have failed, too
        outcome = run.outcomes[test]
        exclusion = run.excluded.get(test)
        word = outcome.word
        if exclusion is not None and word == "failed":
            word = "excluded"
        elif exclusion is not None and word == "passed":
            word = "excluded" if exclusion.flaky else "failed"
            if not exclusion.flaky:
                complaints.append(f"is excluded and passes: {test}")
        elif word == "failed":
            complaints.append(f"failed: {test}")
        suites.setdefault(test.split(".")[0], Counter())[word] += 1
        totals[word] += 1
    for suite, counts in suites.items():
        print(
            f"{suite}: {counts['passed']} passed, {counts['failed']} failed, "
            f"{counts['excluded']} excluded, {counts['skipped']} skipped by CPython"
        )
    if not totals["passed"] + totals["failed"]:
        complaints.append("no test ran")
    skipped = totals["excluded"] + totals["skipped"]
    summary = f"{totals['passed']} passed, {totals['failed']} failed, {skipped} skipped"
    return [*complaints, summary]


def list_tests(path: list[str], modules: list[str]) -> dict[str, str]:
    """Every test there is, and its module."""
    found: dict[str, str] = {}
    for module in modules:
        with contextlib.closing(Child(path, "list", module, [])) as child:
            while (words := child.report(time.monotonic() + TEST_TIMEOUT)) is not None:
                found[words[2]] = words[1]
            if child.status() != 0:
                sys.exit(f"weir: oracle: {module} cannot be loaded:\n{child.output(0)}")
    return found


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description="Run CPython's own tests against weir's classes.")
    parser.add_argument("-v", "--verbose", action="store_true", help="say each test and its time")
    parser.add_argument("-j", "--jobs", type=int, default=JOBS, help="processes at a time")
    parser.add_argument("pattern", nargs="*", help="only tests whose id matches, as a shell would")
    options = parser.parse_args()

    place, is_own = find_tests()
    if place is None:
        print(
            f"weir: oracle: CPython {VERSION}'s own tests are not on this machine: "
            f"install the package libpython{VERSION}-testsuite",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory(prefix="weir-oracle-") as scratch:
        path = [str(HERE.parent)]
        if not is_own:  # take only `test` from there: the rest may be of another build
            Path(scratch, "test").symlink_to(place)
            path.append(scratch)
        module_of = list_tests(path, modules_of(place))
        every = list(module_of)
        tests = [
            test
            for test in every
            if not options.pattern
            or any(fnmatchcase(test, f"*{pattern}*") for pattern in options.pattern)
        ]
        excluded = entries(every, EXCLUSIONS)
        unbounded = entries(every, UNBOUNDED)
        groups: dict[tuple[str, str, bool], Group] = {}
        for test in tests:
            # What fails may leave threads and processes behind, which the next test would notice.
            command = "unbounded" if test in unbounded else "run"
            key = test.rpartition(".")[0], command, test in excluded
            groups.setdefault(key, Group(command, module_of[test], [])).tests.append(test)
        print(f"CPython {sys.version.split()[0]}'s tests in {place}: {len(tests)}", flush=True)
        run = Run(path, excluded, options.verbose)
        run.all(sorted(groups.values(), key=lambda group: -len(group.tests)), options.jobs)
    *complaints, summary = judge(run, tests)
    in_use = {
        entry
        for test, entry in [*excluded.items(), *unbounded.items()]
        if test not in run.outcomes or run.outcomes[test].word != "skipped"
    }
    complaints += [
        f"exclusions.py: no test that runs is {entry.tests!r}"
        for entry in for_this_python([*EXCLUSIONS, *UNBOUNDED])
        if entry not in in_use
    ]
    for complaint in complaints:
        print(f"weir: oracle: {complaint}")
    print(summary)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
