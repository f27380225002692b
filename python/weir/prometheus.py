"""weir's numbers for `prometheus_client`, right also in servers with many worker processes.

    from prometheus_client import REGISTRY
    REGISTRY.register(weir.prometheus.Collector())

Needs prometheus_client (`pip install 'weir[prometheus]'`), and no set-up beyond that: nothing is
written into files for this, the numbers are where weir keeps them anyway.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from weir._observe import METRICS_CONTENT_TYPE, Looker, Processes, check_processes

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["METRICS_CONTENT_TYPE", "Collector"]


class Collector:
    """What a registry of prometheus_client asks for the numbers of weir's objects.

    processes  "family" (default): the topmost ancestor that runs the same program as this process,
               and all that descends from it.  So it does not matter which worker of gunicorn,
               uvicorn and the like answers a scrape: each tells of all workers of its server, each
               series once.  "self", "all", or a pid: as in `weir.stats()`

    Series are labelled by pid.  A worker that ends takes its series along, the one that replaces it
    begins new ones; so no counter ever goes back, and sum(rate(...)) without pid is right.  With
    prometheus_client's own multi-process mode, register it beside its MultiProcessCollector.

    What the last ten scrapes said is kept, for `weir_issue`.  Raises ImportError (there is no
    prometheus_client), ValueError, TypeError; RuntimeError (the environment switches stats pages
    off).
    """

    def __init__(self, *, processes: Processes = "family") -> None:
        check_processes(processes)
        try:
            self._core = importlib.import_module("prometheus_client.core")
        except ImportError as error:
            raise ImportError(
                "weir.prometheus.Collector needs prometheus_client: pip install 'weir[prometheus]'"
            ) from error
        self._looker = Looker(processes, 10)

    def collect(self) -> Iterator[Metric]:
        """What there is now.  Raises OSError, MemoryError."""
        yield from _families(self._looker.look().openmetrics().decode(), self._core.Metric)

    def describe(self) -> Iterator[Any]:
        """One name, so that a registry refuses a second collector, which would tell all twice."""
        yield self._core.GaugeMetricFamily("weir_processes", "Processes that use weir.")


_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def _families(text: str, make: Callable[[str, str, str], Metric]) -> Iterator[Metric]:
    """The metrics in what libweir writes.

    It reads no more of OpenMetrics than that, and takes a sixth of the time of prometheus_client's
    parser: a scrape holds up the program that it is answered by.
    """
    known: dict[str, dict[str, str]] = {}  # what many samples say
    family: Metric | None = None
    for line in text.split("\n"):
        if line.startswith("# TYPE "):
            if family is not None:
                yield family
            _, _, name, kind = line.split(" ")
            family = make(name, "", kind)
        elif line.startswith("# HELP ") and family is not None:
            family.documentation = _plain(line.split(" ", 3)[3])
        elif line and not line.startswith("# ") and family is not None:
            head, _, value = line.rpartition(" ")
            name, _, said = head.partition("{")
            labels = known.get(said)
            if labels is None:
                labels = known[said] = {k: _plain(v) for k, v in _LABEL.findall(said)}
            family.add_sample(name, dict(labels), float(value))
    if family is not None:
        yield family


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)
