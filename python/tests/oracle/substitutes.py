"""weir's classes in the places of the standard ones, for CPython's own tests.

The executors are weir's own, with all their defaults: the bounded backlog, the lazy `map`.  What
the adapters change, and nothing else:

    Queue        no maxsize, or one <= 0, means "unbounded"; weir wants that said: maxsize=None
    SimpleQueue  is such a queue
    Future       is LazyFuture, which weir's process pool returns, under the name in its repr
    executors    max_submit_backlog=None, for the tests in exclusions.UNBOUNDED only

Whatever weir does not offer raises NotImplementedError when it is made, so that a test of it can
neither pass by testing the standard library nor be forgotten in exclusions.py.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import concurrent.futures.thread
import importlib
import queue
import sys
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
