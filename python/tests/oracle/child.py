"""Runs some of CPython's tests in this process and reports each through a pipe.

    python -m oracle.child list FD MODULE               reports the ids of all tests
    python -m oracle.child run FD MODULE ID...          runs those
    python -m oracle.child unbounded FD MODULE ID...    with executors that have no bound

What it writes, one JSON array a line: ["test", module, id], ["start", id],
["end", id, outcome, text] with outcome "passed", "failed" or "skipped".
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import sys
import traceback
import unittest
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from oracle import substitutes


class Report:
    """The pipe to run.py."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self.fd = fd
        self.pid = os.getpid()

    def __call__(self, *words: str) -> None:
        if os.getpid() == self.pid:  # a forked worker has a copy
            os.write(self.fd, json.dumps(words).encode() + b"\n")


def short_id(test: Any) -> str:
    """`test_queue.CQueueTest.test_nowait`: without the packages, which differ between versions."""
    name, _, place = test.id().partition(" (")  # setUpClass and the like say where
    names = [*place.rstrip(")").split("."), name] if place else name.split(".")
    suite = next((name for name in names if name.startswith("test_")), names[0])
    return ".".join([suite, *names[-2:]])


class Result(unittest.TextTestResult):
    """Reports each test when it starts and when it has ended."""

    report: Report

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._outcome = "passed"
        self._text = ""

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome, self._text = "passed", ""
        self.report("start", short_id(test))

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        left = _left_behind()
        if left and self._outcome == "passed":
            self._outcome, self._text = "failed", left
        self.report("end", short_id(test), self._outcome, self._text)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        if self._outcome == "passed":
            self._outcome, self._text = "skipped", reason

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self._failed(test, self.errors[-1][1])

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self._failed(test, self.failures[-1][1])

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            text = "".join(traceback.format_exception(*err))
            self._failed(test, f"{subtest}\n{text}")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self._failed(test, "unexpected success")

    def _failed(self, test: Any, text: str) -> None:
        self._outcome = "failed"
        self._text += text
        if not isinstance(test, unittest.TestCase):  # setUpClass, tearDownModule and the like
            self.report("end", short_id(test), "failed", text)


def _left_behind() -> str:
    """CPython's tests look for threads and processes that outlive a test, and only warn."""
    support: Any = importlib.import_module("test.support")
    if not support.environment_altered:
        return ""
    support.environment_altered = False
    return "threads or processes outlive the test; see the warning in its output"


def load(name: str, *, unbounded: bool) -> ModuleType:
    if name == "test.test_queue":
        module = importlib.import_module(name)
        substitutes.into_test_queue(module)
        return module
    if name.startswith("test.test_asyncio."):
        return substitutes.import_asyncio_tests(name)
    substitutes.into_concurrent_futures(unbounded=unbounded)
    return importlib.import_module(name)


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        else:
            yield test


def main() -> None:
    command, fd, name, *wanted = sys.argv[1:]
    report = Report(int(fd))
    try:
        module = load(name, unbounded=command == "unbounded")
    except unittest.SkipTest as reason:  # the whole module, on this machine
        print(f"{name}: {reason}")
        return
    found = list(cases(unittest.TestLoader().loadTestsFromModule(module)))
    if command == "list":
        for test in found:
            report("test", name, short_id(test))
        return
    faulthandler.register(signal.SIGUSR2, all_threads=True)  # run.py asks where it hangs
    Result.report = report
    suite = unittest.TestSuite(test for test in found if short_id(test) in wanted)
    unittest.TextTestRunner(verbosity=2, resultclass=Result).run(suite)


if __name__ == "__main__":
    main()
