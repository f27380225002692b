"""`weir.stats()` and `weir.metrics()`: what processes that use weir tell of their objects.

Nothing is asked of the processes: each keeps its numbers where others of the same user can read
them (weir_stats(7)), so looking costs them nothing.  At rest all numbers are exact.
"""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from weir import _weir

__all__ = [
    "METRICS_CONTENT_TYPE",
    "Looker",
    "ObjectStats",
    "ProcessStats",
    "Processes",
    "Rates",
    "Stats",
    "Times",
    "check_processes",
    "metrics",
    "read_stats",
    "root_pid",
    "stats",
]

# Whose objects: "self" is this process and what descends from it; "family" the topmost ancestor
# that runs the same program as this process, and what descends from that: the workers of one
# server; "all" every process of this user; a pid: that process and what descends from it.
Processes: TypeAlias = Literal["self", "family", "all"] | int

METRICS_CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


# ---- what is told -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Times:
    """How long things took, in seconds; percentiles are right within 2 %."""

    count: int  # that were timed: a sample, where many come at once
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True)
class Rates:
    """What happened within the window of a `weir.Monitor`, per second."""

    seconds: float  # that they are over: the window, or since the object was first seen
    accepted: float
    delivered: float
    done: float
    dropped: float
    refused: float
    failed: float
    put_blocked: float  # how many callers waited for room, on average
    get_blocked: float  # for items
    pressure: float  # how many callers waited, on average, for whom this is the root
    busy: float | None  # share of its workers' time that they were at work; None: not known


@dataclass(frozen=True)
class ProcessStats:
    """A process that has used weir."""

    pid: int
    parent: int
    uid: int
    depth: int  # how many of its ancestors are among the processes here
    command: str  # its arguments, cut off
    library: str  # the version of weir
    started: float  # its first object was made; seconds since 1970
    rss: int  # bytes of memory it has in use
    unrecorded: int  # objects that are not told of, since there are too many


@dataclass(frozen=True)
class ObjectStats:
    """One instant of a queue, pool, stage, limit, rate, breaker, governor or worker.

    The law of a queue: accepted == delivered + dropped + depth + spilled; of a pool: accepted ==
    done + dropped + cancelled + depth + in_flight, where dropped is the sum of dropped_newest and
    the other reasons.  It holds at rest.  A shared queue has no depth here: each process tells what
    went through it, and `SharedQueue.stats()` knows the rest.

    `told["depth"]` is `told.numbers["depth"]`.
    """

    key: str  # "pid-id": the same for the same object as long as it lives
    pid: int
    id: int
    kind: str  # queue, thread_pool, stage, limit, ...: the kinds of weir_stats(7)
    name: str  # "": it was given none
    created: float  # seconds since 1970
    is_exact: (
        bool  # the numbers belong together; False: it was too busy to be caught between two calls
    )
    numbers: Mapping[
        str, Any
    ]  # those that its kind has, named as in weir_stats(7), times in seconds
    fullness: float | None  # depth / bound, of items or bytes, whichever is more; None: it has none
    wait: Times  # of items inside or callers in line, since it was created
    service: Times  # from delivered to done, since it was created
    recent_wait: Times  # the same two within the window of a `weir.Monitor`
    recent_service: Times
    rates: Rates | None  # None: it was seen once only
    issues: tuple[str, ...]  # "queue_high", "drops", ...: see weir.Issue
    is_root: bool  # it holds everything back

    def __getitem__(self, number: str) -> Any:
        return self.numbers[number]

    @property
    def label(self) -> str:
        """For people: queue 'jobs'."""
        return (
            f"{self.kind.replace('_', ' ')} {self.name!r}"
            if self.name
            else f"{self.kind} {self.key}"
        )


@dataclass(frozen=True)
class Stats:
    """What was seen at one look: `for o in stats`, `stats["jobs"]`, `stats.named("jobs")`."""

    at: float  # seconds since 1970
    processes: tuple[ProcessStats, ...]  # parents before their children
    objects: tuple[ObjectStats, ...]
    edges: tuple[tuple[str, str], ...]  # of pipelines: the key of a stage, and of one it feeds
    root: str | None  # the sentence that says what holds everything back; None: nothing does
    objects_beyond: int  # that are not among the objects, since there are too many

    def named(self, name: str) -> tuple[ObjectStats, ...]:
        """All objects of that name, in any process; or of that key."""
        return tuple(o for o in self.objects if name in (o.name, o.key))

    def __getitem__(self, name: str) -> ObjectStats:
        """The one object of that name (or key).  KeyError: there is none, or there are several."""
        found = self.named(name)
        if len(found) == 1:
            return found[0]
        if not found:
            raise KeyError(f"no object is named {name!r}")
        keys = ", ".join(repr(o.key) for o in found[:5]) + (", ..." if len(found) > 5 else "")
        raise KeyError(f"{len(found)} objects are named {name!r}: say one of {keys}")

    def __contains__(self, name: object) -> bool:
        return any(name in (o.name, o.key) for o in self.objects)

    def __iter__(self) -> Iterator[ObjectStats]:
        return iter(self.objects)

    def __len__(self) -> int:
        return len(self.objects)


def read_stats(document: Mapping[str, Any]) -> Stats:
    """What a monitor wrote as JSON."""
    return Stats(
        at=document["at"],
        processes=tuple(map(_process, document["processes"])),
        objects=tuple(map(_object, document["objects"])),
        edges=tuple((edge["from"], edge["to"]) for edge in document["edges"]),
        root=document["root"]["text"] if document["root"] else None,
        objects_beyond=document["objects_beyond"],
    )


def _process(told: Mapping[str, Any]) -> ProcessStats:
    return ProcessStats(
        told["pid"],
        told["parent"],
        told["uid"],
        told["depth"],
        told["command"],
        told["library"],
        told["started"],
        told["rss_bytes"],
        told["unrecorded"],
    )


def _object(told: Mapping[str, Any]) -> ObjectStats:
    rates = told["rates"]
    return ObjectStats(
        key=told["key"],
        pid=told["pid"],
        id=told["id"],
        kind=told["kind"],
        name=told["name"],
        created=told["created"],
        is_exact=told["exact"],
        numbers=told["numbers"],
        fullness=told["fullness"],
        wait=Times(**told["wait_total"]),
        service=Times(**told["service_total"]),
        recent_wait=Times(**told["wait"]),
        recent_service=Times(**told["service"]),
        rates=Rates(**rates) if rates and rates["seconds"] else None,
        issues=tuple(told["issues"]),
        is_root=told["root"],
    )


# ---- whose --------------------------------------------------------------------------------------


def check_processes(processes: Processes) -> None:
    """Raises TypeError or ValueError where that says nobody's."""
    if isinstance(processes, str):
        if processes not in ("self", "family", "all"):
            said = "'self', 'family', 'all' or a pid"
            raise ValueError(f"'processes' must be {said}, not {processes!r}")
    elif not isinstance(processes, int) or isinstance(processes, bool):
        raise TypeError(f"'processes' must be a str or a pid, not {processes!r}")
    elif processes <= 0:
        raise ValueError(f"'processes' must be a pid > 0, not {processes!r}")


def root_pid(processes: Processes) -> int:
    """The process whose descendants are meant; 0: all.  It may change when a parent ends."""
    if processes == "self":
        return os.getpid()
    if processes == "family":
        return _eldest(os.getpid())
    return 0 if processes == "all" else int(processes)


def _eldest(pid: int) -> int:
    """The topmost of a process and its ancestors, as long as all run the same program."""
    program = _program(pid)
    while program and (parent := _parent(pid)) and _program(parent) == program:
        pid = parent
    return pid


def _program(pid: int) -> tuple[int, int] | None:
    try:
        found = os.stat(f"/proc/{pid}/exe")
    except OSError:  # another user's, or gone
        return None
    return found.st_dev, found.st_ino


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name before it, in parentheses, may hold anything.
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


# ---- looking ------------------------------------------------------------------------------------


def _look(processes: Processes) -> _weir.Monitor:
    check_processes(processes)
    monitor = _weir.Monitor(2, root_pid(processes))
    monitor.look()
    return monitor


class Looker:
    """A monitor that is looked at when somebody asks, but not again within `pause` seconds.

    It stays right in a forked child, and where a parent's end changes whose processes are meant.
    """

    def __init__(self, processes: Processes, window: int, pause: float = 0.0) -> None:
        self._processes, self._window, self._pause = processes, window, pause
        self._renew()
        _lookers.add(self)

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._root = -1
        self._monitor: _weir.Monitor | None = None
        self._looked = 0.0

    def look(self) -> _weir.Monitor:
        with self._lock:
            root, now = root_pid(self._processes), time.monotonic()
            if self._monitor is None or root != self._root:
                self._monitor = _weir.Monitor(self._window, root)
                self._root, self._looked = root, float("-inf")
            if now - self._looked >= self._pause:
                self._monitor.look()
                self._looked = now
            return self._monitor


_lookers: weakref.WeakSet[Looker] = weakref.WeakSet()


def _in_forked_child() -> None:
    for looker in list(_lookers):
        looker._renew()


os.register_at_fork(after_in_child=_in_forked_child)


def stats(*, processes: Processes = "self") -> Stats:
    """The numbers of every object of this process, and of the processes that descend from it.

    processes  "self" (default); "family": of the topmost ancestor that runs the same program as
               this process, and its descendants: all workers of one server; "all": of every process
               of this user; a pid: of that process and its descendants

        jobs = weir.stats()["jobs"]
        print(jobs["depth"], jobs["accepted"], jobs.wait.p99)

    Needs no set-up, and may be called as often as one likes; for rates, and what is the matter,
    there is `weir.Monitor`.  Raises RuntimeError (the environment switches stats pages off) and
    OSError.
    """
    return read_stats(json.loads(_look(processes).json(False)))


def metrics(*, processes: Processes = "self") -> str:
    """The same as OpenMetrics text, for whoever answers a scrape; see weir_metrics(7).

    Its content type is `weir.METRICS_CONTENT_TYPE`.  Series are labelled by pid, so those of
    several processes never meet; the series of a process end with it.  Raises as `weir.stats()`.
    """
    return _look(processes).openmetrics().decode()
