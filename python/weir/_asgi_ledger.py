"""What becomes of the requests of one `LoadShed`, and how fast they get through.

Invariant:  received == served + shed, by reason + disconnected + inside, at any instant.
Bound:      waiting is never more than the line is long, bytes never more than `max_bytes`.
Threads:    any; one lock guards the numbers, and nothing of the user's runs under it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["REASONS", "Drain", "Ledger", "Visit"]

REASONS = ("queue", "wait", "bytes", "body", "closed")  # why a request is shed


class Drain:
    """How long a request takes, by what the last seconds of work have shown; no clock, no lock.

    The time that requests spent inside, divided by how many came out of it: so those that hang
    count while they hang, and a second without requests says nothing.
    """

    MEMORY = 5.0  # seconds of work after which what was seen counts for a third

    def __init__(self, now: float) -> None:
        self.in_flight = 0
        self._spent = 0.0  # seconds, summed over requests; fades
        self._done = 0.0  # requests; fades
        self._seen = False
        self._at = now

    def _advance(self, now: float) -> None:
        passed = now - self._at
        if passed > 0 and self.in_flight:
            kept = math.exp(-passed / self.MEMORY)
            self._spent = self._spent * kept + self.in_flight * self.MEMORY * (1 - kept)
            self._done *= kept
        self._at = max(self._at, now)

    def begin(self, now: float) -> None:
        self._advance(now)
        self.in_flight += 1

    def end(self, now: float) -> None:
        self._advance(now)
        self.in_flight -= 1
        self._done += 1
        self._seen = True

    def service(self, now: float) -> float | None:
        """Seconds that a request is in the app; None: none has come out yet."""
        self._advance(now)
        return self._spent / max(self._done, 1e-9) if self._seen else None

    def rate(self, now: float) -> float | None:
        """Requests that come out in a second while as many are in as now; None: not known."""
        service = self.service(now)
        return None if service is None else max(1, self.in_flight) / max(service, 1e-6)


class Visit:
    """One request from its arrival to its end; `with` ends it, and gives back its bytes."""

    __slots__ = ("_began", "_bytes", "_is_over", "_ledger", "_usual")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._bytes = 0
        self._is_over = False
        self._began: float | None = None  # when it was admitted
        self._usual: float | None = None  # seconds that a request took then

    def reserve(self, nbytes: int) -> bool:
        """Room for so many bytes, until the visit is over; False: there is none."""
        if not self._ledger._reserve(nbytes):
            return False
        self._bytes += nbytes
        return True

    def begin(self) -> None:
        """It has been admitted."""
        self._began, self._usual = self._ledger._begin()

    def stood_still(self) -> bool:
        """It took so much longer than others that this is not for a queue: something hung."""
        if self._began is None or self._usual is None:
            return False
        return self._ledger.now() - self._began > max(1.0, 20 * self._usual)

    def end(self, outcome: str) -> None:
        """How it ended: "served", "failed", "disconnected" or one of REASONS; the first counts."""
        if not self._is_over:
            self._is_over = True
            self._ledger._end(outcome, self._began is not None, self._bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end("disconnected")  # unless it has ended: cancelled, or the client has gone


class Ledger:
    """The numbers of one `LoadShed` in one process."""

    def __init__(self, max_bytes: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes, self.now = max_bytes, clock
        self._lock = threading.Lock()
        self._drain = Drain(clock())
        self._line: dict[str | None, int] = {}  # who waits, by partition
        self._received = self._served = self._failed = self._disconnected = self._exempt = 0
        self._shed = dict.fromkeys(REASONS, 0)
        self.waiting = 0  # for all partitions; written under the lock
        self._inside = self._bytes = 0
        self._peaks = {"in_flight": 0, "waiting": 0, "bytes": 0}
        self._waited = 0.0

    def _note_peak(self, what: str, value: int) -> None:
        if value > self._peaks[what]:
            self._peaks[what] = value

    # ---- requests -----------------------------------------------------------------------------

    def arrive(self) -> Visit:
        with self._lock:
            self._received += 1
            self._inside += 1
        return Visit(self)

    def pass_by(self) -> None:
        """One that nothing applies to."""
        with self._lock:
            self._exempt += 1

    def join(self, partition: str | None, own: int, all_: int) -> bool:
        """Takes one of a partition's own places in the line, and of all there are; False: none."""
        with self._lock:
            ahead = self._line.get(partition, 0)
            if ahead >= own or self.waiting >= all_:
                return False
            self._line[partition] = ahead + 1
            self.waiting += 1
            self._note_peak("waiting", self.waiting)
            return True

    def leave(self, partition: str | None, waited: float) -> None:
        with self._lock:
            self._line[partition] -= 1
            self.waiting -= 1
            self._waited += waited

    def _begin(self) -> tuple[float, float | None]:
        """Now, and what requests take."""
        with self._lock:
            now = self.now()
            usual = self._drain.service(now)
            self._drain.begin(now)
            self._note_peak("in_flight", self._drain.in_flight)
            return now, usual

    def _reserve(self, nbytes: int) -> bool:
        with self._lock:
            if self._max_bytes is not None and self._bytes + nbytes > self._max_bytes:
                return False
            self._bytes += nbytes
            self._note_peak("bytes", self._bytes)
            return True

    def _end(self, outcome: str, begun: bool, nbytes: int) -> None:
        with self._lock:
            self._inside -= 1
            self._bytes -= nbytes
            if begun:
                self._drain.end(self.now())
            if outcome in self._shed:
                self._shed[outcome] += 1
            elif outcome == "disconnected":
                self._disconnected += 1
            else:
                self._served += 1
                self._failed += outcome == "failed"

    # ---- looking ------------------------------------------------------------------------------

    def service(self) -> float | None:
        """Seconds that a request is in the app, lately; None: none has come out yet."""
        with self._lock:
            return self._drain.service(self.now())

    def clearing(self) -> float:
        """Seconds until one who came now would be through the line; 0: not known."""
        with self._lock:
            rate = self._drain.rate(self.now())
            return (self.waiting + 1) / rate if rate else 0.0

    def snapshot(self) -> Mapping[str, Any]:
        """One instant, as the fields of LoadShedStats."""
        with self._lock:
            now = self.now()
            return {
                "received": self._received,
                "served": self._served,
                "failed": self._failed,
                "shed": dict(self._shed),
                "disconnected": self._disconnected,
                "inside": self._inside,
                "waiting": self.waiting,
                "in_flight": self._drain.in_flight,
                "exempt": self._exempt,
                "bytes": self._bytes,
                "waited": self._waited,
                "service": self._drain.service(now),
                "rate": self._drain.rate(now),
                **{f"peak_{what}": value for what, value in self._peaks.items()},
            }
