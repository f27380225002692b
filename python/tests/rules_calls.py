"""How the tests of the rules (docs/rules.md) call an object through each of its faces.

A `Call` is begun at once and runs somewhere else: in a thread, in an event loop, in another
process, or in a program in C.  So a rule can have as many callers as it wants, whatever the face,
and look at who waits.  What an object refuses is told in the same words by all faces:
`Refused("full")`.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import multiprocessing
import os
import queue
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import pytest
from conftest import InThread, wait_until
from programs import unwatched

import weir

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(os.environ.get("WEIR_RULES_DRIVER", ROOT / "build/tests/rules_driver"))
FORK = multiprocessing.get_context("fork")
PATIENCE = 30.0  # seconds, for what is certain to happen


class Refused(Exception):
    """An object did not do what it was asked.

    `why` is "full", "empty", "closed", "too large", "cancelled" or "invalid"; `text` what a person
    reads.
    """

    def __init__(self, why: str, text: str = "") -> None:
        super().__init__(why, text)
        self.why, self.text = why, text


_WORDS: list[tuple[type[BaseException], str]] = [
    (queue.Full, "full"),
    (queue.Empty, "empty"),
    (weir.ShutDown, "closed"),
    (weir.TooLarge, "too large"),
    (TimeoutError, "full"),  # a limit's
    (asyncio.CancelledError, "cancelled"),
    (ValueError, "invalid"),
    (TypeError, "invalid"),
]


def refusal_of(error: BaseException) -> BaseException:
    """What all faces say instead of the exception; one that is no refusal stays itself."""
    for kind, word in _WORDS:
        if isinstance(error, kind):
            return Refused(word, str(error))
    return error


class Call(Protocol):
    """A call that may still be waiting."""

    @property
    def is_done(self) -> bool: ...

    def result(self) -> Any:
        """What it returned, once it has; raises Refused."""

    def cancel(self) -> None:
        """Ask it to give up: a cancelled task, an interrupted thread in C, a killed process."""


# ---- threads -------------------------------------------------------------------------------------


class ThreadCall:
    """A call in a thread of its own, which nobody can cancel."""

    def __init__(self, fn: Callable[[], Any]) -> None:
        self._call = InThread(DoneCall, fn)
        self._over: DoneCall | None = None

    @property
    def is_done(self) -> bool:
        return self._over is not None or self._call.is_done

    def result(self) -> Any:
        if self._over is None:
            self._over = self._call.result(PATIENCE)
        return self._over.result()

    def cancel(self) -> None:
        raise NotImplementedError("a thread cannot be cancelled from outside")


# ---- event loops ---------------------------------------------------------------------------------


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def begin(self, make: Callable[[], Awaitable[Any]]) -> LoopCall:
        return LoopCall(self._loop, make)

    def close(self) -> None:
        """What was waited for is closed: every task has to end by itself."""
        wait_until(lambda: asyncio.all_tasks(self._loop) == set(), PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class LoopCall:
    """A call in a task of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, make: Callable[[], Awaitable[Any]]) -> None:
        self._loop, self._make = loop, make
        self._done = threading.Event()
        self._task: asyncio.Task[Any] | None = None
        loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # seen: nobody may ask for it
        self._done.set()

    async def _run(self) -> Any:
        return await self._make()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def result(self) -> Any:
        assert self._done.wait(PATIENCE), "the task did not end in time"
        assert self._task is not None
        if self._task.cancelled():
            raise Refused("cancelled")
        error = self._task.exception()
        if error is not None:
            raise refusal_of(error) from error
        return self._task.result()

    def cancel(self) -> None:
        self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())


# ---- processes -----------------------------------------------------------------------------------


def _in_child(
    pipe: Connection, fn: Callable[[], Any], release: Callable[[Any], object] | None
) -> None:
    try:
        value = fn()
    except BaseException as error:
        pipe.send((False, refusal_of(error)))
        return
    pipe.send((True, None if release else value))
    if release:
        pipe.recv()
        release(value)
        pipe.send(True)


class ProcessCall:
    """A call in a forked process of its own.  Cancelled, it is killed.

    With a function to release it, what the call returned stays there until release() is called
    here.
    """

    def __init__(
        self, fn: Callable[[], Any], release: Callable[[Any], object] | None = None
    ) -> None:
        self._pipe, theirs = FORK.Pipe()
        self._process = FORK.Process(target=_in_child, args=(theirs, fn, release), daemon=True)
        self._process.start()
        theirs.close()
        self._is_cancelled = False
        self._outcome: tuple[bool, Any] | None = None

    @property
    def is_done(self) -> bool:
        return self._is_cancelled or self._outcome is not None or self._pipe.poll()

    def result(self) -> Any:
        if self._is_cancelled:
            raise Refused("cancelled")
        if self._outcome is None:
            self._outcome = self._receive()
        ok, value = self._outcome
        if ok:
            return value
        raise value

    def _receive(self) -> Any:
        assert self._pipe.poll(PATIENCE), "the process did not answer in time"
        return self._pipe.recv()

    def release(self) -> None:
        self.result()
        self._pipe.send(None)
        self._receive()

    def cancel(self) -> None:
        self._process.kill()
        self._process.join(PATIENCE)
        self._is_cancelled = True

    def end(self) -> None:
        """Nothing of it is left; one that still runs is killed."""
        if self._outcome is None or self._process.is_alive():
            self._process.join(0.0 if self._outcome is None else 0.2)
        self._process.kill()
        self._process.join(PATIENCE)
        self._process.close()
        self._pipe.close()


class Servant:
    """A forked process that calls methods of what it was born with, one at a time."""

    def __init__(self, target: Any) -> None:
        self._pipe, theirs = FORK.Pipe()
        self._process = FORK.Process(target=self._serve, args=(theirs, target), daemon=True)
        self._process.start()
        theirs.close()

    @staticmethod
    def _serve(pipe: Connection, target: Any) -> None:
        while (request := pipe.recv()) is not None:
            name, args, kwargs = request
            try:
                pipe.send((True, getattr(target, name)(*args, **kwargs)))
            except BaseException as error:
                pipe.send((False, refusal_of(error)))

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self._pipe.send((name, args, kwargs))
        assert self._pipe.poll(PATIENCE), "the process did not answer in time"
        ok, value = self._pipe.recv()
        if ok:
            return value
        raise value

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(PATIENCE)
        self._process.close()
        self._pipe.close()


class DoneCall:
    """A call that was over when it had begun."""

    is_done = True

    def __init__(self, fn: Callable[[], Any]) -> None:
        try:
            self._outcome: tuple[bool, Any] = True, fn()
        except Exception as error:
            self._outcome = False, refusal_of(error)

    def result(self) -> Any:
        ok, value = self._outcome
        if ok:
            return value
        raise value

    def cancel(self) -> None:
        raise AssertionError("it is over")


# ---- C -------------------------------------------------------------------------------------------

_ERRORS = {
    "WEIR_EFULL": "full",
    "WEIR_EEMPTY": "empty",
    "WEIR_ECLOSED": "closed",
    "WEIR_ETOOBIG": "too large",
    "WEIR_EINTR": "cancelled",
    "WEIR_EINVAL": "invalid",
}


class Driver:
    """A program in C that holds an object of libweir: see tests/rules/driver.h."""

    def __init__(self, kind: str, **options: Any) -> None:
        if not DRIVER.exists():
            pytest.fail(f"there is no {DRIVER}: say `make` where cmocka is installed")
        words = [f"{key}={value}" for key, value in options.items() if value is not None]
        self._process = subprocess.Popen(
            [DRIVER, kind, *words], env=unwatched(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        atexit.register(self._process.kill)
        self._ids = itertools.count()
        self.calls: dict[str, DriverCall] = {}
        self.told: list[list[str]] = []  # lines that are no answers
        said = self._read()
        if said != ["ready"]:
            self._process.communicate()
            atexit.unregister(self._process.kill)
            raise Refused(_ERRORS[said[0]], said[0])
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _read(self) -> list[str]:
        assert self._process.stdout is not None
        return self._process.stdout.readline().split()

    def _listen(self) -> None:
        while words := self._read():
            if words[0].isdigit():
                self.calls[words[0]]._end(words[1], words[2:])
            else:
                self.told.append(words)

    def begin(self, verb: str, *words: Any, timed_out: str = "full") -> DriverCall:
        """Begins a call; timed_out is what a deadline that has passed means."""
        id_ = str(next(self._ids))
        self.calls[id_] = call = DriverCall(self, id_, timed_out)
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, (id_, verb, *words))) + "\n")
        self._process.stdin.flush()
        return call

    def call(self, verb: str, *words: Any, timed_out: str = "full") -> list[str]:
        return self.begin(verb, *words, timed_out=timed_out).words()

    def close(self) -> None:
        """The end of its input: it closes and destroys the object, and has to end by itself."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._reader.join(PATIENCE)
        assert self._process.wait(PATIENCE) == 0
        self._process.stdout.close()
        atexit.unregister(self._process.kill)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class DriverCall:
    """A call in a thread of the driver.  Cancelled, its interruption hook ends the wait."""

    def __init__(self, driver: Driver, id_: str, timed_out: str) -> None:
        self._driver, self.id, self._timed_out = driver, id_, timed_out
        self._ended = threading.Event()
        self._answer: tuple[str, list[str]] = "", []

    def _end(self, result: str, words: list[str]) -> None:
        self._answer = result, words
        self._ended.set()

    @property
    def is_done(self) -> bool:
        return self._ended.is_set()

    def words(self) -> list[str]:
        assert self._ended.wait(PATIENCE), "the driver did not answer in time"
        result, words = self._answer
        if result == "ok":
            return words
        if result == "WEIR_ETIMEDOUT":
            raise Refused(self._timed_out, result)
        raise Refused(_ERRORS[result], result)

    def result(self) -> Any:
        """What a call that returns one number, or nothing, returned."""
        words = self.words()
        return int(words[0]) if words else None

    def cancel(self) -> None:
        self._driver.call("cancel", self.id)


def deadline(timeout: float | None) -> str:
    """A timeout in seconds as the driver reads it."""
    return "forever" if timeout is None else str(round(timeout * 1e9))


def numbers_of(words: list[str]) -> dict[str, int]:
    """What `look` answers."""
    return {key: int(value) for key, _, value in (word.partition("=") for word in words)}


# ---- rules ---------------------------------------------------------------------------------------


class refused:
    """`with refused("full"):` the block is refused for that reason, and for no other."""

    def __init__(self, *why: str) -> None:
        self._why = why
        self.text = ""

    def __enter__(self) -> refused:  # noqa: PYI034 (Self is of 3.11)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            pytest.fail(f"it was not refused, where it should be: {self._why}")
        if not isinstance(error, Refused):
            return False
        assert error.why in self._why, error
        self.text = error.text
        return True


@contextmanager
def perhaps(*why: str) -> Iterator[None]:
    """The block may be refused for one of those reasons."""
    try:
        yield
    except Refused as refusal:
        if refusal.why not in why:
            raise
