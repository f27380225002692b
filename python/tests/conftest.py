"""What the tests of the Python package share."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

# Nothing is left in the tree; a failing example is printed in a form that can be run again.
set_hypothesis_home_dir(os.path.join(tempfile.gettempdir(), f"weir-hypothesis-{os.getuid()}"))
settings.register_profile("weir", database=None, print_blob=True)
settings.load_profile("weir")

# A shell starts what is in the background with Ctrl-C ignored, and programs inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Returns as soon as the condition holds; fails the test when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.001)


class InThread:
    """A call that runs in a daemon thread."""

    def __init__(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._outcome: list[tuple[bool, Any]] = []
        self._call = (fn, args, kwargs)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        fn, args, kwargs = self._call
        del self._call
        try:
            self._outcome.append((True, fn(*args, **kwargs)))
        except BaseException as error:
            self._outcome.append((False, error))

    @property
    def is_done(self) -> bool:
        return bool(self._outcome)

    def result(self, seconds: float = 20.0) -> Any:
        self.thread.join(seconds)
        assert self._outcome, "the call did not return in time"
        ok, value = self._outcome.pop()
        if ok:
            return value
        raise value


def run_python(code: str, *, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Runs a program in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def output_of(code: str, *, timeout: float = 60.0) -> str:
    """What a program prints; it must end well and silently."""
    done = run_python(code, timeout=timeout)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What went to sys.unraisablehook."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(args.exc_value))
    return seen


@pytest.fixture(params=["asyncio", "uvloop"])
def in_loop(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine in a new event loop of each kind; it must leave no task and no complaint."""
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if request.param == "uvloop":
        new_loop = pytest.importorskip("uvloop", reason="uvloop is not installed").new_event_loop

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        loop, complaints = new_loop(), []
        loop.set_exception_handler(lambda _, context: complaints.append(context))

        async def checked() -> Any:
            result = await asyncio.wait_for(main, 60)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return result

        try:
            return loop.run_until_complete(checked())
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            gc.collect()
            loop.close()
            assert complaints == []

    return run
