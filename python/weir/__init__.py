"""weir: backpressure for Python.

    from weir import ThreadPoolExecutor     # or ProcessPoolExecutor, or Queue

A fast producer never drowns a slow consumer, memory never grows without bound, and nothing is lost
without being counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weir._admission import OnFull
from weir._bounded import BoundedExecutor, bounded
from weir._errors import BacklogFull, Dropped, ShutDown, TooLarge
from weir._map import MapIterator
from weir._stats import (
    BoundedStats,
    ProcessPoolStats,
    QueueStats,
    SharedQueueStats,
    ThreadPoolStats,
)
from weir._thread import ThreadPoolExecutor
from weir._weir import Queue, SharedQueue, __version__

if TYPE_CHECKING:
    from weir._died import RemoteError, WorkerDied, WorkerNotStarted
    from weir._process import ProcessPoolExecutor

    BoundedProcessPoolExecutor = ProcessPoolExecutor

BoundedThreadPoolExecutor = ThreadPoolExecutor

__all__ = [
    "BacklogFull",
    "BoundedExecutor",
    "BoundedProcessPoolExecutor",
    "BoundedStats",
    "BoundedThreadPoolExecutor",
    "Dropped",
    "MapIterator",
    "OnFull",
    "ProcessPoolExecutor",
    "ProcessPoolStats",
    "Queue",
    "QueueStats",
    "RemoteError",
    "SharedQueue",
    "SharedQueueStats",
    "ShutDown",
    "ThreadPoolExecutor",
    "ThreadPoolStats",
    "TooLarge",
    "WorkerDied",
    "WorkerNotStarted",
    "__version__",
    "bounded",
]

# These load all of multiprocessing: only for those who ask.
_LATER = {
    "BoundedProcessPoolExecutor": ("weir._process", "ProcessPoolExecutor"),
    "ProcessPoolExecutor": ("weir._process", "ProcessPoolExecutor"),
    "RemoteError": ("weir._died", "RemoteError"),
    "WorkerDied": ("weir._died", "WorkerDied"),
    "WorkerNotStarted": ("weir._died", "WorkerNotStarted"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'weir' has no attribute {name!r}")
    import importlib

    module, attribute = _LATER[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LATER))
