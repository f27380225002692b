"""Named settings for whatever may overflow: choose by use case, see what it sets, change it.

    weir.Queue(100, overflow=weir.strategies.real_time)
    weir.ProcessPoolExecutor(on_full=weir.strategies.critical)
    weir.ThreadPoolExecutor(on_full=weir.strategies.batch(rate=20))
    print(weir.strategies.user_facing)

A strategy is a plain record; what it sets in motion (a bucket, a breaker, counts) belongs to the
queue or executor that it was given to, and is its `keeper`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from weir._guard import check, count, number, seconds

__all__ = ["Strategy", "batch", "critical", "real_time", "user_facing"]


@dataclass(frozen=True)
class Strategy:
    """What happens at a full queue or backlog, and before it.  Calling it returns a changed copy.

    name       what it is called
    use        when to choose it
    overflow   "block", "fail", "drop_newest" or "drop_oldest", as Queue and executors have it
    max_age    seconds; what has waited in a queue for longer is dropped.  None: nothing is
    patience   seconds; with "block": how long one try waits.  Then it is logged (logger "weir"),
               counted, and tried again after a pause.  None: one try waits as long as it may
    attempts   tries with `patience`, until queue.Full or TimeoutError goes to the caller; None: no
               end
    backoff    (base, most) seconds between two tries, exponential, with full jitter
    rate       items or tasks per second that are let in at all, with "block" or "fail"; None: as
               many as come
    burst      how many may come at once, >= 1; with `rate`
    breaker    settings of a weir.CircuitBreaker.  Of a queue it judges the puts; of an executor the
               tasks, from submit to result, so that `slow_call` is what somebody waits.  None: none
    why        the reason for each setting, shown by print()
    """

    name: str
    use: str
    overflow: Literal["block", "fail", "drop_newest", "drop_oldest"] = "block"
    max_age: float | None = None
    patience: float | None = None
    attempts: int | None = None
    backoff: tuple[float, float] = (0.05, 1.0)
    rate: float | None = None
    burst: int = 1
    breaker: Mapping[str, Any] | None = field(default=None, hash=False)
    why: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        choices = ("block", "fail", "drop_newest", "drop_oldest")
        check(self.overflow in choices, "overflow", f"one of {choices}", self.overflow)
        if self.patience is not None and self.overflow != "block":
            raise ValueError(
                f"'patience' goes with overflow=\"block\"; {self.overflow!r} never waits"
            )
        for name in ("max_age", "patience"):
            if getattr(self, name) is not None:
                seconds(name, getattr(self, name))
        if self.rate is not None:
            if self.overflow not in ("block", "fail"):
                raise ValueError(
                    f'\'rate\' goes with overflow "block" or "fail", not {self.overflow!r}'
                )
            check(number("rate", self.rate, 0) > 0, "rate", "> 0 or None", self.rate)
        if self.attempts is not None:
            count("attempts", self.attempts, 2**31 - 1)
        count("burst", self.burst, 2**38 - 1)
        check(
            isinstance(self.backoff, tuple) and len(self.backoff) == 2,
            "backoff",
            "a tuple (base, most) of seconds",
            self.backoff,
        )
        if seconds("backoff", self.backoff[0]) > seconds("backoff", self.backoff[1]):
            raise ValueError(f"'backoff' must be (base, most) seconds, not {self.backoff!r}")

    def __call__(self, **changes: Any) -> Strategy:
        """A copy with other settings: `batch(rate=20)`."""
        known = {f.name for f in fields(self)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise TypeError(
                f"a strategy has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}"
            )
        why = {name: text for name, text in self.why.items() if name not in changes}
        return replace(self, **{"why": why, **changes})

    def settings(self) -> dict[str, Any]:
        """What it sets, without what it leaves alone."""
        shown: dict[str, Any] = {"overflow": self.overflow}
        if self.max_age is not None:
            shown["max_age"] = self.max_age
        if self.patience is not None:
            shown.update(patience=self.patience, attempts=self.attempts, backoff=self.backoff)
        if self.rate is not None:
            shown.update(rate=self.rate, burst=self.burst)
        if self.breaker is not None:
            shown["breaker"] = dict(self.breaker)
        return shown

    def __str__(self) -> str:
        rows: list[tuple[str, str, str]] = []
        for name, value in self.settings().items():
            texts = _show(name, value)
            rows.append((name, texts[0], self.why.get(name, "")))
            rows += [("", text, "") for text in texts[1:]]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        lines = [f"{self.name}: {self.use}"]
        for name, text, reason in rows:
            lines.append(f"    {name:<{widths[0]}}  {text:<{widths[1]}}  {reason}".rstrip())
        return "\n".join(lines)


def _show(name: str, value: Any) -> list[str]:
    """A setting's value for people, in lines."""
    if isinstance(value, dict):
        return [f"{key}={setting!r}" for key, setting in value.items()] or ["as it comes"]
    if name in ("max_age", "patience"):
        return [f"{value:g} s"]
    if name == "backoff":
        return [f"{value[0]:g} to {value[1]:g} s"]
    if name == "rate":
        return [f"{value:g} per second"]
    if name == "attempts" and value is None:
        return ["no end"]
    return [str(value)]


real_time = Strategy(
    name="real_time",
    use="sensors, prices, positions: only the newest counts",
    overflow="drop_oldest",
    why={"overflow": "what is old is worth nothing; the last one always arrives"},
)

critical = Strategy(
    name="critical",
    use="payments, orders: nothing may be lost, and waiting is better than losing",
    overflow="block",
    patience=5.0,
    why={
        "overflow": "the producer waits",
        "patience": "after that a line in the log says so, and it is counted",
        "attempts": "it never gives up by itself; a number makes it",
        "backoff": "between two tries",
    },
)

batch = Strategy(
    name="batch",
    use="reports, imports, crawls: it has time, and must not crowd out others",
    overflow="block",
    rate=100.0,
    burst=10,
    why={
        "overflow": "nothing is lost, and memory stays bounded",
        "rate": "an even load for what comes behind",
        "burst": "that may come at once after a pause",
    },
)

user_facing = Strategy(
    name="user_facing",
    use="somebody waits for the answer: a quick no is better than a late yes",
    overflow="fail",
    max_age=10.0,
    breaker={
        "failure_ratio": 0.5,
        "window_seconds": 10.0,
        "min_calls": 20,
        "open_time": 1.0,
        "max_open_time": 30.0,
    },
    why={
        "overflow": "no room is an answer, at once",
        "max_age": "after that nobody waits for it any more",
        "breaker": "when half of it fails, it is left alone for a while",
    },
)
