"""The numbers of a `LoadShed` as OpenMetrics text."""

from __future__ import annotations

import os
from collections.abc import Iterator

from weir._stats import LoadShedStats

__all__ = ["render"]

# metric, field, what it says
_COUNTERS = (
    ("received", "received", "Requests that the limit applies to."),
    ("served", "served", "Requests that went through the app."),
    ("failed", "failed", "Of the served, those whose app raised an exception."),
    ("disconnected", "disconnected", "Requests that were cancelled or whose client went."),
    ("exempt", "exempt", "Requests that no limit applies to; not among the received."),
    ("waited_seconds", "waited", "Seconds waited, over the waits that have ended."),
)
_GAUGES = (
    ("in_flight", "in_flight", "Requests in the app."),
    ("limit", "limit", "How many may be."),
    ("waiting", "waiting", "Requests that wait to be let in."),
    ("queue_limit", "queue_limit", "How many may wait."),
    ("body_bytes", "bytes", "Bytes reserved for bodies."),
    ("body_limit_bytes", "max_bytes", "How many may be."),
    ("service_seconds", "service", "What a request takes, lately."),
    ("drain_rate", "rate", "Requests a second that come out, lately."),
)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _lines(stats: LoadShedStats) -> Iterator[str]:
    # Of several workers each answers for itself, so the label says which one did.
    labels = f'name="{_escape(stats.name or "")}",pid="{os.getpid()}"'
    for metric, field, says in _COUNTERS:
        yield f"# TYPE weir_requests_{metric} counter"
        yield f"# HELP weir_requests_{metric} {says}"
        yield f"weir_requests_{metric}_total{{{labels}}} {getattr(stats, field)}"
    yield "# TYPE weir_requests_shed counter"
    yield "# HELP weir_requests_shed Requests that were refused, by reason."
    for reason, count in stats.shed.items():
        yield f'weir_requests_shed_total{{{labels},reason="{reason}"}} {count}'
    for metric, field, says in _GAUGES:
        value = getattr(stats, field)
        if value is not None:
            yield f"# TYPE weir_requests_{metric} gauge"
            yield f"# HELP weir_requests_{metric} {says}"
            yield f"weir_requests_{metric}{{{labels}}} {value}"
    yield "# EOF"


def render(stats: LoadShedStats) -> str:
    return "".join(line + "\n" for line in _lines(stats))
