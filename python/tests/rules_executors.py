"""The executors of all faces, as the tests of the rules see them: one interface, a class for each
face.

A task is a number.  It writes down in a file, which all processes can append to, that it began and
that it ended; between the two it waits until it is told to end, or not at all.  So what runs at
once is counted beside the executor, in the same way for threads, processes and commands.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import re
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

from conftest import wait_until
from programs import unwatched
from rules_calls import (
    FORK,
    PATIENCE,
    Call,
    DoneCall,
    Driver,
    Loop,
    Refused,
    ThreadCall,
    deadline,
    numbers_of,
    refusal_of,
)

import weir

COMMAND = Path(
    os.environ.get("WEIR_COMMAND", Path(__file__).resolve().parents[2] / "build/cli/weir")
)


def play(folder: str, number: int, how: str) -> int:
    """A task: "quick", "held" until the file end-NUMBER is there, or "fails"."""
    _write(folder, f"+{number}")
    while how == "held" and not os.path.exists(os.path.join(folder, f"end-{number}")):
        time.sleep(0.002)
    _write(folder, f"-{number}")
    if how == "fails":
        raise ArithmeticError(number)
    return number


def _write(folder: str, line: str) -> None:
    with open(os.path.join(folder, "log"), "a") as log:
        log.write(f"{line}\n")  # in one piece: lines of others do not mix with it


class Options(NamedTuple):
    workers: int = 2
    backlog: Any = 2
    on_full: str = "block"
    submit_timeout: float | None = None
    name: str | None = None


@dataclass(frozen=True)
class Look:
    """One instant of an executor."""

    accepted: int
    over: int  # finished, cancelled or dropped
    dropped: int
    inside: int
    running: int
    refused: int
    waiting: int | None  # to submit; None: it does not say


class Subject(ABC):
    """An executor that a rule is asked of."""

    has_futures: ClassVar[bool] = True  # a task may fail, and be cancelled

    def __init__(self, options: Options) -> None:
        self.options = options
        self._folder = tempfile.TemporaryDirectory(prefix="weir-rules-")
        self.folder = self._folder.name

    @abstractmethod
    def start_submit(self, number: int, how: str = "held") -> Call: ...

    @abstractmethod
    def outcome(self, number: int) -> str:
        """What became of a task, once it is over: "done", "failed", "cancelled", or why it was
        dropped."""

    @abstractmethod
    def look(self) -> Look: ...

    @abstractmethod
    def close(self) -> None:
        """It takes no more."""

    @abstractmethod
    def drain(self) -> None:
        """Waits until nothing is inside; after close()."""

    def end(self) -> None:
        self._folder.cleanup()

    def submit(self, number: int, how: str = "held") -> None:
        self.start_submit(number, how).result()

    def let_end(self, *numbers: int) -> None:
        for number in numbers:
            Path(self.folder, f"end-{number}").touch()

    def events(self) -> list[int]:
        """Tasks that began, as their numbers, and that ended, as minus their numbers, in that
        order."""
        log = Path(self.folder, "log")
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    def began(self) -> list[int]:
        return [number for number in self.events() if number > 0]

    def cancel(self, number: int) -> bool:
        raise NotImplementedError

    def shown(self) -> str:
        raise NotImplementedError


# ---- C -------------------------------------------------------------------------------------------


class CThreadPool(Subject):
    """weir_thread_pool."""

    has_futures = False

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        try:
            self._driver = Driver(
                "thread_pool",
                threads=options.workers,
                backlog=options.backlog,
                overflow=options.on_full,
                name=options.name,
            )
        except Refused:
            self._folder.cleanup()
            raise

    def start_submit(self, number: int, how: str = "held") -> Call:
        if how == "quick":
            self.let_end(number)
        return self._driver.begin("submit", number, deadline(self.options.submit_timeout))

    def let_end(self, *numbers: int) -> None:
        for number in numbers:
            self._driver.call("end", number)

    def events(self) -> list[int]:
        signs = {"started": 1, "ended": -1}
        return [signs[w[0]] * int(w[1]) for w in self._driver.told if w[0] in signs]

    def outcome(self, number: int) -> str:
        def told() -> list[str]:
            lines = [w for w in list(self._driver.told) if int(w[1]) == number]
            return next((w for w in lines if w[0] in ("ended", "drop")), [])

        wait_until(told, PATIENCE)
        return "done" if told()[0] == "ended" else told()[2]

    def look(self) -> Look:
        now = numbers_of(self._driver.call("look"))
        dropped = sum(n for key, n in now.items() if key.startswith("dropped."))
        return Look(
            now["accepted"],
            now["finished"] + dropped,
            dropped,
            now["waiting"] + now["running"],
            now["running"],
            now["refused"],
            None,
        )

    def close(self) -> None:
        self._driver.call("close")

    def drain(self) -> None:
        self._driver.call("drain", "forever")

    def end(self) -> None:
        self._driver.close()
        super().end()


# ---- Python --------------------------------------------------------------------------------------


def _outcome_of(future: Future[int] | asyncio.Future[int]) -> str:
    if future.cancelled():
        return "cancelled"
    error = future.exception()
    if isinstance(error, weir.Dropped):
        return error.reason
    return "done" if error is None else "failed"


class ThreadPool(Subject):
    """weir.ThreadPoolExecutor, used by threads."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.futures: dict[int, Future[int]] = {}
        try:
            self.executor: Any = self._make(options)
        except (ValueError, TypeError) as error:
            self._folder.cleanup()
            raise refusal_of(error) from error

    def _make(self, options: Options) -> Any:
        return weir.ThreadPoolExecutor(
            options.workers,
            max_submit_backlog=options.backlog,
            on_full=options.on_full,  # type: ignore[arg-type] # any word, also a wrong one
            submit_timeout=options.submit_timeout,
            name=options.name,
        )

    def _submit(self, number: int, how: str) -> None:
        with _closed_in_words():
            self.futures[number] = self.executor.submit(play, self.folder, number, how)

    def start_submit(self, number: int, how: str = "held") -> Call:
        return ThreadCall(lambda: self._submit(number, how))

    def outcome(self, number: int) -> str:
        future = self.futures[number]
        concurrent.futures.wait([future], PATIENCE)
        return _outcome_of(future)

    def cancel(self, number: int) -> bool:
        return self.futures[number].cancel()

    def look(self) -> Look:
        now = self.executor.stats()
        dropped = sum(now.dropped.values())
        return Look(
            now.accepted,
            now.finished + now.cancelled + dropped,
            dropped,
            now.waiting + now.running,
            now.running,
            now.refused,
            now.submitters_waiting,
        )

    def close(self) -> None:
        self.executor.shutdown(wait=False)

    def drain(self) -> None:
        self.executor.shutdown(wait=True)

    def shown(self) -> str:
        return repr(self.executor)

    def end(self) -> None:
        self.let_end(*self.futures)
        ThreadCall(lambda: self.executor.shutdown(wait=True, cancel_futures=True)).result()
        super().end()


class _closed_in_words:
    """The standard library's word for closed is RuntimeError."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, RuntimeError) and "after shutdown" in str(error):
            raise Refused("closed", str(error)) from error


class LoopPool(ThreadPool):
    """weir.ThreadPoolExecutor, used by the tasks of an event loop."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._loop = Loop()
        self.afutures: dict[int, asyncio.Future[int]] = {}

    async def _submit_async(self, number: int, how: str) -> None:
        with _closed_in_words():
            future = await self.executor.submit_async(play, self.folder, number, how)
        self.afutures[number] = future
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is seen

    def start_submit(self, number: int, how: str = "held") -> Call:
        return self._loop.begin(lambda: self._submit_async(number, how))

    def outcome(self, number: int) -> str:
        async def outcome() -> str:
            future = self.afutures[number]
            await asyncio.wait([future])
            return _outcome_of(future)

        said: str = self._loop.begin(outcome).result()
        return said

    def cancel(self, number: int) -> bool:
        async def cancel() -> bool:
            return self.afutures[number].cancel()

        return bool(self._loop.begin(cancel).result())

    def end(self) -> None:
        self.let_end(*self.afutures)
        self.executor.shutdown(wait=False)
        self._loop.close()
        super().end()


class ProcessPool(ThreadPool):
    """weir.ProcessPoolExecutor."""

    def _make(self, options: Options) -> Any:
        return weir.ProcessPoolExecutor(
            options.workers,
            FORK,
            max_submit_backlog=options.backlog,
            on_full=options.on_full,  # type: ignore[arg-type] # any word, also a wrong one
            submit_timeout=options.submit_timeout,
            name=options.name,
        )

    def look(self) -> Look:
        now = self.executor.stats()
        dropped = sum(now.dropped.values())
        return Look(
            now.accepted,
            now.completed + now.cancelled + dropped,
            dropped,
            now.waiting + now.running,
            now.running,
            now.refused,
            now.submitters_waiting,
        )


class Bounded(ThreadPool):
    """weir.bounded() around an executor of the standard library."""

    def _make(self, options: Options) -> Any:
        self._inner = concurrent.futures.ThreadPoolExecutor(options.workers)
        return weir.bounded(
            self._inner,
            options.backlog,
            options.on_full,  # type: ignore[arg-type] # any word, also a wrong one
            options.submit_timeout,
        )

    def look(self) -> Look:
        now = self.executor.stats()
        dropped = sum(now.dropped.values())
        return Look(
            now.accepted,
            now.completed + now.cancelled + dropped,
            dropped,
            now.inside,
            0,
            now.refused,
            now.submitters_waiting,
        )


# ---- the command ---------------------------------------------------------------------------------


class Command(Subject):
    """weir run: a line of its input is a task, which it takes when there is room."""

    SCRIPT = """
        echo "+$1" >>log
        case $2 in
            held) until [ -e "end-$1" ]; do sleep 0.01; done;;
        esac
        echo "-$1" >>log
        [ "$2" != fails ]
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        script = ["sh", "-c", self.SCRIPT, "task", "{1}", "{2}"]
        self._run = subprocess.Popen(
            [COMMAND, "run", "--tsv", "-j", str(options.workers), *script],
            cwd=self.folder,
            env=unwatched(),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._said = ""

    def start_submit(self, number: int, how: str = "held") -> Call:
        return DoneCall(lambda: self._write(f"{number}\t{how}\n"))

    def _write(self, line: str) -> None:
        assert self._run.stdin is not None
        self._run.stdin.write(line)
        self._run.stdin.flush()

    def outcome(self, number: int) -> str:
        wait_until(lambda: -number in self.events(), PATIENCE)
        self.close()
        self.drain()
        return "failed" if re.search(rf"^weir: run: item {number} ", self._said, re.M) else "done"

    def look(self) -> Look:
        """Of the end: what its last line says."""
        numbers = re.findall(r"(\d+) (items|done|failed|skipped|left)", self._said)
        of = {what: int(n) for n, what in numbers}
        return Look(of["items"], of["done"] + of["failed"], 0, of["left"], 0, 0, None)

    def close(self) -> None:
        assert self._run.stdin is not None
        self._run.stdin.close()

    def drain(self) -> None:
        if self._run.stderr is not None and not self._run.stderr.closed:
            self._said = self._run.stderr.read()
            self._run.stderr.close()
        self._run.wait(PATIENCE)

    def end(self) -> None:
        self.close()
        self._run.terminate()
        self.drain()
        super().end()


EXECUTORS: dict[str, Callable[[Options], Any]] = {
    "c": CThreadPool,
    "threads": ThreadPool,
    "asyncio": LoopPool,
    "processes": ProcessPool,
    "bounded": Bounded,
    "command": Command,
}
