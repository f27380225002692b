"""weir's classes in the places of the standard ones, for CPython's own tests.

The executors are weir's own, with all their defaults: the bounded backlog, the lazy `map`.  What
the adapters change, and nothing else:

    Queue        no maxsize, or one <= 0, means "unbounded"; weir wants that said: maxsize=None
    SimpleQueue  is such a queue
    Future       is LazyFuture, which weir's process pool returns, under the name in its repr
    executors    max_submit_backlog=None, for the tests in exclusions.UNBOUNDED only

and of asyncio's classes, which the tests get on asyncio's event loop and on uvloop's:

    Queue        is Queue, with put, get and join for aput, aget and ajoin
    Semaphore    is a Limiter, with acquire for aacquire, and a release that gives back the permit
                 taken last, or else raises the limit; the permit of a semaphore of 0 is taken
    Lock         is a Limiter(1)
    _getters, _putters, _waiters, _value  are as long, or as much, as stats() says

Whatever weir does not offer raises NotImplementedError when it is made, so that a test of it can
neither pass by testing the standard library nor be forgotten in exclusions.py.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import concurrent.futures.process
import concurrent.futures.thread
import importlib
import importlib.util
import queue
import sys
import unittest
from types import ModuleType
from typing import Any, NoReturn

import weir
from weir._weir import LazyFuture

# ---- the adapters -------------------------------------------------------------------------------


class Queue(weir.Queue[Any]):
    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize if maxsize > 0 else None)


class SimpleQueue(weir.Queue[Any]):
    def __init__(self) -> None:
        super().__init__(None)


class Future(LazyFuture[Any]):
    pass


class _UnboundedThreads(weir.ThreadPoolExecutor):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, max_submit_backlog=None, **kwargs)


class _UnboundedProcesses(weir.ProcessPoolExecutor):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, max_submit_backlog=None, **kwargs)


class AsyncQueue(Queue):
    put = weir.Queue.aput  # type: ignore[assignment]
    get = weir.Queue.aget  # type: ignore[assignment]
    join = weir.Queue.ajoin  # type: ignore[assignment]

    @property
    def _getters(self) -> range:
        return range(self.stats().getters_waiting)

    @property
    def _putters(self) -> range:
        return range(self.stats().putters_waiting)


class BoundedSemaphore(weir.Limiter):
    not_acquired: type[Exception] = ValueError

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("Semaphore initial value must be >= 0")
        super().__init__(value or 1)
        self._permits = [] if value else [weir.Limiter.acquire(self)]

    async def acquire(self) -> bool:  # type: ignore[override]
        self._permits.append(await self.aacquire())
        return True

    def release(self) -> None:
        if not self._permits:
            raise self.not_acquired("released too many times")
        self._permits.pop().release()

    def locked(self) -> bool:
        return self._value == 0

    @property
    def _value(self) -> int:
        return self.limit - self.in_flight

    @property
    def _waiters(self) -> range:
        return range(self.stats().waiting)


class Semaphore(BoundedSemaphore):
    def release(self) -> None:
        if self._permits:
            super().release()
        else:
            self.limit += 1


class Lock(BoundedSemaphore):
    not_acquired = RuntimeError

    def __init__(self) -> None:
        super().__init__(1)


def _not_offered(name: str) -> type:
    def make(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(f"weir has no {name}")

    return type(name, (), {"__init__": make})


# ---- putting them in place ----------------------------------------------------------------------


def into_concurrent_futures(*, unbounded: bool) -> None:
    """For this process and the programs that it starts as tests; before the tests are imported."""
    futures = concurrent.futures
    threads: type = _UnboundedThreads if unbounded else weir.ThreadPoolExecutor
    processes: type = _UnboundedProcesses if unbounded else weir.ProcessPoolExecutor
    places: list[tuple[ModuleType, str, type]] = [
        (futures, "Future", Future),
        (futures._base, "Future", Future),
        (futures, "ThreadPoolExecutor", threads),
        (futures.thread, "ThreadPoolExecutor", threads),
        (futures, "ProcessPoolExecutor", processes),
        (futures.process, "ProcessPoolExecutor", processes),
    ]
    if sys.version_info >= (3, 14):
        name = "InterpreterPoolExecutor"
        places.append((futures, name, _not_offered(name)))
    for module, name, substitute in places:
        setattr(module, name, substitute)
    _into_scripts(unbounded)


# What runs first in a program that a test writes.
_PRELUDE = """\
import sys
sys.path[:] = {path!r}
from oracle import substitutes
substitutes.into_concurrent_futures(unbounded={unbounded!r})
"""


def _into_scripts(unbounded: bool) -> None:
    """The tests start programs with `assert_python_ok("-c", ...)`: there, too."""
    helper = importlib.import_module("test.support.script_helper")
    standard = helper.assert_python_ok

    def assert_python_ok(*args: str, **env_vars: Any) -> Any:
        if len(args) == 2 and args[0] == "-c":
            prelude = _PRELUDE.format(path=sys.path, unbounded=unbounded)
            args = ("-c", prelude + args[1])
        return standard(*args, **env_vars)

    helper.assert_python_ok = assert_python_ok  # type: ignore[attr-defined]


def into_test_queue(module: ModuleType) -> None:
    """Into the two copies of `queue`, in Python and in C, that test_queue makes for itself."""
    for copy in (module.py_queue, module.c_queue):
        copy.Queue = Queue
        copy.SimpleQueue = copy._PySimpleQueue = SimpleQueue
        copy.LifoQueue = _not_offered("LifoQueue")
        copy.PriorityQueue = _not_offered("PriorityQueue")
        copy.Empty = queue.Empty
        copy.Full = queue.Full
        copy.ShutDown = weir.ShutDown


# ---- asyncio ------------------------------------------------------------------------------------


# What a module tests and weir does not have.  (The others may be tools of its tests.)
_NOT_IN_WEIR = {
    "test_queues": ("LifoQueue", "PriorityQueue"),
    "test_locks": ("Event", "Condition", "Barrier"),
}


def _asyncio_for(tests: str) -> ModuleType:
    """A copy of the package, with weir's classes.  What asyncio itself uses stays what it was."""
    copy = ModuleType("asyncio")
    copy.__dict__.update(vars(asyncio))
    places: dict[str, object] = {
        "Queue": AsyncQueue,
        "QueueEmpty": queue.Empty,
        "QueueFull": queue.Full,
        "QueueShutDown": weir.ShutDown,
        "Lock": Lock,
        "Semaphore": Semaphore,
        "BoundedSemaphore": BoundedSemaphore,
    }
    places |= {name: _not_offered(name) for name in _NOT_IN_WEIR[tests]}
    copy.__dict__.update(places)
    return copy


def import_asyncio_tests(name: str) -> ModuleType:
    """The module: each class of tests twice, where uvloop is installed."""
    package, _, tests = name.rpartition(".")
    for other in ("unittest.mock", package):  # they import asyncio, and mean the real one
        importlib.import_module(other)
    sys.modules["asyncio"] = _asyncio_for(tests)
    try:
        module = importlib.import_module(name)
    finally:
        sys.modules["asyncio"] = asyncio
    if importlib.util.find_spec("uvloop") is not None:
        for test_class in [*vars(module).values()]:
            if isinstance(test_class, type) and issubclass(test_class, unittest.TestCase):
                on_uvloop = _on_uvloop(test_class)
                setattr(module, on_uvloop.__name__, on_uvloop)
    return module


def _on_uvloop(test_class: type) -> type:
    def set_up(cls: type) -> None:
        asyncio.set_event_loop_policy(importlib.import_module("uvloop").EventLoopPolicy())

    name = f"{test_class.__name__}OnUvloop"
    members = {"__module__": test_class.__module__, "setUpClass": classmethod(set_up)}
    return type(name, (test_class,), members)
