"""What weir raises.  Every class is importable from `weir` and can be pickled."""

from __future__ import annotations

import queue
import sys
from concurrent import futures

__all__ = [
    "BacklogFull",
    "BreakerOpen",
    "Dropped",
    "Overloaded",
    "ShutDown",
    "Throttled",
    "Timeout",
    "TooLarge",
]

if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """A queue that has been shut down takes nothing, and has nothing left to give.

        Python 3.13 and later have this class as `queue.ShutDown`; there the two are one.
        """

    ShutDown.__module__ = "weir"


if sys.version_info >= (3, 11):
    Timeout = TimeoutError
else:

    class Timeout(TimeoutError, futures.TimeoutError):
        """A deadline of an executor has passed; caught as either of the two."""


class BacklogFull(queue.Full):
    """An executor has no room for the task, and `on_full="fail"` said not to wait.

    The function has not been called and will not be.
    """


class TooLarge(ValueError):
    """The item costs more than the whole bound of the queue, so that it could never fit.

    The queue has not taken it.
    """


_WHY_DROPPED = {
    "newest": "there was no room for it",
    "oldest": "it made room for a newer one",
    "sampled": "the queue was above its high mark and keeps only a sample there",
    "expired": "it was older than max_age when its turn came",
    "discarded": "what was waiting has been discarded",
}


class Dropped(Exception):
    """The result of a task that was accepted and then dropped before it started.

    `reason` is "newest", "oldest", "sampled", "expired" or "discarded".
    """

    reason: str

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        why = _WHY_DROPPED.get(self.reason)
        return f"dropped ({self.reason}): {why}" if why else f"dropped ({self.reason})"


class Overloaded(Exception):
    """Shed because of overload: it had waited too long in a line that does not get shorter.

    Nothing has been done and nothing is held.
    """


class Throttled(Overloaded):
    """A `weir.Throttle` kept the request back: its backend has refused too many lately.

    The request was not made.  `chance` is how likely the next one is kept back; `name` is the
    throttle's.
    """

    chance: float
    name: str | None

    def __init__(self, chance: float, name: str | None = None) -> None:
        super().__init__(chance, name)
        self.chance = chance
        self.name = name

    def __str__(self) -> str:
        throttle = f"the throttle {self.name!r}" if self.name else "the throttle"
        return (
            f"{throttle} keeps back {self.chance:.0%} of the requests, and this one was among them"
        )


class BreakerOpen(Exception):
    """A circuit breaker is open: the call was not made.

    `retry_after` is in how many seconds it will let a call through to see; None: nobody knows,
    because somebody has isolated it.  `name` is the breaker's.
    """

    retry_after: float | None
    name: str | None

    def __init__(self, retry_after: float | None = None, name: str | None = None) -> None:
        super().__init__(retry_after, name)
        self.retry_after = retry_after
        self.name = name

    def __str__(self) -> str:
        breaker = f"the circuit breaker {self.name!r}" if self.name else "the circuit breaker"
        if self.retry_after is None:
            return f"{breaker} is isolated"
        return f"{breaker} is open for another {self.retry_after:.3g} s"


for _class in (BacklogFull, BreakerOpen, Dropped, Overloaded, Throttled, TooLarge):
    _class.__module__ = "weir"
