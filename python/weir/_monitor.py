"""`weir.Monitor`: looks again and again, and says what is the matter, since when, and why.

What is an issue is decided by libweir (weir_monitor(3)); here it begins, is told, and ends.
Threads:   one, if there is an interval; it holds no reference to the monitor while it sleeps.
Telling:   callbacks and logging run without a lock, one at a time, in the order of what happened.
Bound:     `window` looks, `_PAST` issues that have ended, `_LINES` log lines for each look.
Fork:      a monitor is the parent's.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from sys import float_info
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from weir import _weir
from weir._observe import ObjectStats, Processes, Stats, check_processes, read_stats, root_pid

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["History", "Issue", "Monitor"]

_PAST = 256
_LINES = 20

_LOGGER = logging.getLogger("weir.monitor")


@dataclass(frozen=True)
class Issue:
    """Something that is, or was, the matter with an object.

    issue is one of

    queue_high      on average fuller than queue_share of its bound, or deeper than queue_depth
    slow_service    an item took longer than `service` seconds, on average
    backpressure    callers had to wait, were refused or dropped something more than `events` times
    low_throughput  it had work, and less than `throughput` items a second came out
    growing_age     what comes out has waited longer and longer
    drops           items were dropped
    breaker_open    a breaker lets nothing through, or only probes
    memory          a governor slows down, pauses or sheds
    workers_die     tasks failed because their worker died

    all within the window.
    """

    issue: str
    kind: str  # of the object: "queue", ...
    name: str
    key: str  # of the object: "pid-id"
    pid: int
    value: float  # in the unit of the threshold: a share, items, seconds, a number of calls
    threshold: float | None  # None: it has none
    since: float  # seconds since 1970
    text: str  # a sentence without a full stop: queue 'jobs' is 93 % full: 93 of 100 places
    root: str | None  # what held everything back at that time, in a sentence
    ended: float | None = None  # seconds since 1970; None: it lasts

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class History:
    """What was seen of one object, oldest look first; times in seconds, the rest per second."""

    key: str
    kind: str
    name: str
    at: tuple[float, ...]  # since 1970
    depth: tuple[float, ...]  # items; in flight, of what has no depth
    accepted: tuple[float, ...]
    delivered: tuple[float, ...]  # of a pool and a limit: done
    dropped: tuple[float, ...]
    put_blocked: tuple[float, ...]  # callers that waited for room, on average since the look before
    get_blocked: tuple[float, ...]
    wait_p99: tuple[float, ...]
    service_p99: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.at)


def _issue(told: dict[str, Any], root: str | None) -> Issue:
    return Issue(
        issue=told["issue"],
        kind=told["kind"],
        name=told["name"],
        key=told["object"],
        pid=told["pid"],
        value=told["value"],
        threshold=told["threshold"],
        since=told["since"],
        text=told["text"],
        root=root,
    )


class _News(NamedTuple):
    """What a look has found."""

    begun: list[Issue]
    lasting: list[Issue]  # those that have begun, too
    ended: list[Issue]


class Monitor:
    """Looks at queues, pools, limits and pipelines again and again; says what is the matter.

    window       looks that are remembered; what follows is over so many: 3 to 1000
    interval     seconds between two looks; None: no thread, only look() looks
    processes    as in `weir.stats()`
    on_issue     called with an `Issue` when it begins, and again, with `ended` set, when it ends.
                 On the monitor's thread (or in look()), one at a time.  What it raises is logged.
                 From there into an event loop: loop.call_soon_threadsafe(handle, issue)
    logger       where to say it, too: a warning at the beginning, again each `log_every` seconds
                 as long as it lasts, and a line at the end (INFO); None: nowhere;
                 default: logging.getLogger("weir.monitor")
    log_every    seconds; at most one warning in that time for an object and an issue, also where it
                 comes and goes

    When something is an issue; None: never.

    queue_share  share of its bound that a queue is full, in items or bytes; above 0, default 0.8
    queue_depth  items in a queue; default None
    service      seconds for an item; default 1
    events       calls that waited, were refused or dropped something; default 10
    throughput   items a second, where there is work; default 1
    age_growth   how many times longer than at the beginning of the window items wait; default 2
    drops        more than so many items dropped; default 0: any

        with weir.Monitor(on_issue=lambda issue: print(issue, "-", issue.root)):
            ...

    The thread is a daemon and ends with close(), `with`, the monitor, or the program.
    Raises ValueError, TypeError; RuntimeError (the environment switches stats pages off).
    """

    def __init__(
        self,
        window: int = 100,
        interval: float | None = 1.0,
        *,
        processes: Processes = "self",
        on_issue: Callable[[Issue], object] | None = None,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = _LOGGER,
        log_every: float = 60.0,
        queue_share: float | None = 0.8,
        queue_depth: float | None = None,
        service: float | None = 1.0,
        events: int | None = 10,
        throughput: float | None = 1.0,
        age_growth: float | None = 2.0,
        drops: int | None = 0,
    ) -> None:
        _check_window(window)
        check_processes(processes)
        if on_issue is not None and not callable(on_issue):
            raise TypeError(f"'on_issue' must be callable, not {on_issue!r}")
        if logger is not None and not isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
            raise TypeError(f"'logger' must be a logging.Logger or None, not {logger!r}")
        log_every = _positive("log_every", log_every, None)
        if interval is not None:
            interval = min(_positive("interval", interval, None), threading.TIMEOUT_MAX)

        self._looker = _weir.Monitor(
            window,
            root_pid(processes),
            _positive("queue_share", queue_share, -1.0, most=1.0),
            _positive("queue_depth", queue_depth, 0.0),
            _nanoseconds("service", service),
            _whole("events", events, 1),
            _positive("throughput", throughput, -1.0),
            _positive("age_growth", age_growth, -1.0),
            _whole("drops", drops, 0),
        )
        self._pid = os.getpid()
        self._lock = threading.RLock()  # guards what follows; signal handlers may ask, too
        self._document: dict[str, Any] = {}  # of the last look
        self._lasting: dict[tuple[str, str], Issue] = {}
        self._past: deque[Issue] = deque(maxlen=_PAST)
        self._teller = _Teller(on_issue, logger, log_every)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._looks = 0
        self._look()
        if interval is not None:
            self._start(interval)

    def _start(self, interval: float) -> None:
        self._thread = threading.Thread(
            target=_watch,
            args=(weakref.ref(self), self._stop, interval),
            name="weir-monitor",
            daemon=True,
        )
        weakref.finalize(self, _end, self._stop, self._pid)
        self._thread.start()

    # ---- looking ----------------------------------------------------------------------------

    def look(self) -> Stats:
        """Look now, tell what has begun and ended, and return what was seen.

        Raises OSError, MemoryError; what was seen before stays.
        """
        return read_stats(self._look())

    def _look(self) -> dict[str, Any]:
        self._check()
        with self._lock:
            self._looker.look()
            document: dict[str, Any] = json.loads(self._looker.json(False))
            self._looks += 1
            self._teller.add(self._compare(document))
            self._document = document
        self._teller.tell()
        return document

    def _compare(self, document: dict[str, Any]) -> _News:
        root = document["root"]["text"] if document["root"] else None
        before, now = self._lasting, {}
        for told in document["issues"]:
            issue = _issue(told, root)
            now[issue.key, issue.issue] = issue
        ended = [
            replace(issue, ended=document["at"])
            for what, issue in before.items()
            if what not in now
        ]
        begun = [issue for what, issue in now.items() if what not in before]
        self._past.extend(ended)
        self._lasting = now
        return _News(begun, list(now.values()), ended)

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this weir.Monitor belongs to the parent process; a forked child needs its own"
            )

    def close(self) -> None:
        """Look no more; a callback that runs is waited for, but not by itself.  What was seen
        stays.

        Twice is fine.  Issues that last are not told to end.
        """
        if os.getpid() != self._pid:
            return  # a forked child has no thread of it
        self._stop.set()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- what was seen ------------------------------------------------------------------------

    @property
    def stats(self) -> Stats:
        """What was seen at the last look, with rates and times over the window."""
        self._check()
        return read_stats(self._document)

    @property
    def issues(self) -> tuple[Issue, ...]:
        """What is the matter now, the worst first."""
        self._check()
        with self._lock:
            return tuple(self._lasting.values())

    @property
    def past_issues(self) -> tuple[Issue, ...]:
        """What was the matter, the last ones that have ended, oldest first."""
        self._check()
        with self._lock:
            return tuple(self._past)

    @property
    def root(self) -> str | None:
        """What holds everything back, in one sentence without a full stop; None: nothing does."""
        self._check()
        root = self._document["root"]
        return root["text"] if root else None

    def history(self, name: str) -> History:
        """What was seen within the window of the object of that name, or key.

        KeyError: there is none, or there are several: say the key.
        """
        key = self.stats[name].key
        return next(history for history in self.histories() if history.key == key)

    def histories(self) -> list[History]:
        """The same of all objects that there are."""
        self._check()
        with self._lock:
            document = json.loads(self._looker.json(True))
        return [
            History(
                told["key"],
                told["kind"],
                told["name"],
                **{series: tuple(values) for series, values in told["history"].items()},
            )
            for told in document["objects"]
        ]

    def report(self) -> str:
        """For people: a line for each object, what is the matter, and the root."""
        self._check()
        with self._lock:
            document, issues, looks = self._document, list(self._lasting.values()), self._looks
        return "\n".join(_report(read_stats(document), issues, looks))

    def plot(self, path: str | os.PathLike[str], *, objects: int = 4) -> None:
        """Draw depth, throughput and times over the window to a .png or .svg file, issues marked.

        objects  that are drawn at most, a column for each: those with issues, then the busiest

        Needs matplotlib (`pip install 'weir[plot]'`): ImportError.  Raises ValueError (another
        suffix, or nothing was seen twice), OSError.
        """
        from weir._monitor_plot import draw

        histories = {history.key: history for history in self.histories()}
        with self._lock:
            stats = read_stats(self._document)
            issues = [*self._past, *self._lasting.values()]
        draw(path, stats, histories, issues, objects)


# ---- the thread ---------------------------------------------------------------------------------


def _watch(reference: weakref.ref[Monitor], stop: threading.Event, interval: float) -> None:
    """Looks every `interval` seconds until the monitor is closed or gone."""
    due = time.monotonic() + interval
    while not stop.wait(max(0.0, due - time.monotonic())):
        due = max(due + interval, time.monotonic())  # after a pause it does not catch up
        monitor = reference()
        if monitor is None:
            return
        try:
            monitor._look()
        except Exception as error:  # no descriptor, no memory: the next look may find some
            monitor._teller.failed(error)
        del monitor


def _end(stop: threading.Event, pid: int) -> None:
    if os.getpid() == pid:  # in a forked child the event may be locked for ever
        stop.set()


# ---- telling ------------------------------------------------------------------------------------


class _Teller:
    """Tells callback and logger what happened: without a lock, in order, one thread at a time."""

    def __init__(
        self,
        on_issue: Callable[[Issue], object] | None,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None,
        log_every: float,
    ) -> None:
        self._on_issue, self._logger, self._log_every = on_issue, logger, log_every
        self._lock = threading.RLock()  # guards what follows
        self._news: deque[_News] = deque()
        self._is_telling = False
        self._warned: dict[tuple[str, str], float] = {}  # when, on the monotonic clock
        self._failed = float("-inf")

    def add(self, news: _News) -> None:
        with self._lock:
            self._news.append(news)

    def tell(self) -> None:
        """Tells what there is; if another thread is at it, or a caller, that goes on with this."""
        while True:
            with self._lock:
                if self._is_telling or not self._news:
                    return
                self._is_telling = True
                news = self._news.popleft()
            try:
                self._tell(news)
            finally:
                self._is_telling = False

    def _tell(self, news: _News) -> None:
        for issue in (*news.ended, *news.begun):
            self._call(issue)
        if self._logger is not None:
            self._log(self._logger, news)

    def _call(self, issue: Issue) -> None:
        if self._on_issue is None:
            return
        try:
            self._on_issue(issue)
        except Exception:
            # Said also without a logger: nobody else would hear of it.
            logger = self._logger or _LOGGER
            logger.exception("weir: on_issue failed for: %s", issue)

    def _log(self, logger: logging.Logger | logging.LoggerAdapter[Any], news: _News) -> None:
        now = time.monotonic()
        lasting = {(issue.key, issue.issue) for issue in news.lasting}
        lines = 0
        for issue in news.lasting:
            if now - self._warned.get((issue.key, issue.issue), float("-inf")) < self._log_every:
                continue
            self._warned[issue.key, issue.issue] = now
            lines += 1
            if lines <= _LINES:
                logger.warning("%s", _sentence(issue))
        if lines > _LINES:
            logger.warning("and %d more objects and issues like these", lines - _LINES)
        for issue in news.ended[:_LINES]:
            if (issue.key, issue.issue) in self._warned:
                seconds = (issue.ended or 0) - issue.since
                logger.info("over after %.1f s: %s", seconds, issue)
        for what, at in list(self._warned.items()):
            if what not in lasting and now - at >= self._log_every:
                del self._warned[what]

    def failed(self, error: Exception) -> None:
        """A look failed, of the thread, where nobody catches it."""
        now = time.monotonic()
        if now - self._failed >= self._log_every:
            self._failed = now
            (self._logger or _LOGGER).error("weir: cannot look: %s", error)


def _sentence(issue: Issue) -> str:
    return f"{issue.text}; {issue.root}" if issue.root else issue.text


# ---- the report ---------------------------------------------------------------------------------

_ROWS = 40


def _report(stats: Stats, issues: list[Issue], looks: int) -> list[str]:
    seconds = max((o.rates.seconds for o in stats if o.rates), default=0.0)
    n, m = len(stats), len(stats.processes)
    lines = [
        f"{n} object{'s' * (n != 1)} in {m} process{'es' * (m != 1)}, {looks} looks, "
        f"numbers over {seconds:.1f} s"
    ]
    if stats.objects:
        lines += ["", *_table(sorted(stats, key=lambda o: (not o.issues, not o.is_root))[:_ROWS])]
    if len(stats) > _ROWS:
        lines.append(f"and {len(stats) - _ROWS} more")
    lines += ["", *(f"{issue} (for {stats.at - issue.since:.0f} s)" for issue in issues[:_ROWS])]
    if not issues:
        lines.append("no issues")
    lines.append(stats.root or "nothing is held back")
    return lines


def _table(objects: Iterable[ObjectStats]) -> list[str]:
    head = (
        "",
        "depth",
        "bound",
        "in/s",
        "out/s",
        "dropped/s",
        "waiting",
        "wait p99",
        "service p99",
    )
    rows = [head, *(_row(o) for o in objects)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]  # names to the left
        ).rstrip()
        for row in rows
    ]


def _row(o: ObjectStats) -> tuple[str, ...]:
    rates, bound = o.rates, o.numbers.get("capacity")
    out = rates and max(rates.delivered, rates.done)
    return (
        o.label,
        str(o.numbers.get("depth", o.numbers.get("in_flight", "-"))),
        "-" if bound is None else str(bound),
        *(
            "-" if value is None else f"{value:.1f}"
            for value in (
                rates and rates.accepted,
                out,
                rates and rates.dropped,
                rates and rates.put_blocked,
            )
        ),
        in_words(o.recent_wait.p99) if o.recent_wait.count else "-",
        in_words(o.recent_service.p99) if o.recent_service.count else "-",
    )


def in_words(value: float) -> str:
    """Seconds, for people: 1.5 ms."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.0f} ns"


# ---- options ------------------------------------------------------------------------------------

_NEVER = (1 << 64) - 1


def _check_window(window: int) -> None:
    if not isinstance(window, int) or isinstance(window, bool):
        raise TypeError(f"'window' must be an int, not {window!r}")
    if not 3 <= window <= 1000:
        raise ValueError(f"'window' must be from 3 to 1000 looks, not {window!r}")


def _positive(
    name: str, value: float | None, never: float | None, most: float = float_info.max
) -> float:
    """A threshold above 0; None stands for `never`, where there is such a thing."""
    if value is None and never is not None:
        return never
    unless = "" if never is None else ", or None for never"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name!r} must be a number{unless}, not {value!r}")
    if not 0 < value <= most:
        bound = "" if most == float_info.max else f" and at most {most:g}"
        raise ValueError(f"{name!r} must be above 0{bound}{unless}, not {value!r}")
    return value


def _nanoseconds(name: str, seconds: float | None) -> int:
    if seconds is None:
        return -1
    return max(1, round(min(_positive(name, seconds, -1.0), 9e9) * 1e9))


def _whole(name: str, value: int | None, least: int) -> int:
    """The same of a number of something."""
    if value is None:
        return _NEVER
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name!r} must be an int, or None for never, not {value!r}")
    if not least <= value < _NEVER:
        raise ValueError(f"{name!r} must be >= {least}, or None for never, not {value!r}")
    return value
