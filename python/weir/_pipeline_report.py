"""What a pipeline tells of itself: records of one instant, and the report at the end.

`str()` of either is a table, a line for each stage, and the sentence that names the bottleneck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["PipelineReport", "PipelineStats", "StageStats"]


@dataclass(frozen=True)
class StageStats:
    """One stage of a pipeline, at one instant; each field is right for itself.

    The law, whenever nobody is in the middle of a call:
    `accepted == processed + failed + sum(dropped.values()) + left`.
    """

    name: str
    kind: str  # source, thread, inline, process, async, results
    workers: int
    workers_peak: int
    maxsize: int | None  # of its queue, now; None: it has none
    qsize: int
    peak_qsize: int
    spilled: int  # of qsize: on disk, with overflow="spill"
    in_hand: int  # taken out of the queue, and not done with
    accepted: int  # emitted or put to it; what was turned away is counted here and in dropped
    processed: int
    failed: int  # items whose call failed for good
    retried: int  # calls made again
    emitted: int
    dropped: Mapping[
        str, int
    ]  # by reason: newest, oldest, sampled, expired, discarded, timeout, ...
    waits: int  # backpressure events: emits to it that found no room, and waited
    busy: float  # seconds in its function, summed over its workers
    idle: float  # seconds its workers waited for items
    blocked: float  # seconds its workers waited for room in other stages
    pressed: float  # seconds that others waited for room in this stage
    held: Mapping[str, float]  # seconds its workers waited for its own limits, by limit
    charged: Mapping[str, float]  # seconds of waiting anywhere whose root it is, by what limits it
    ended: bool

    @property
    def left(self) -> int:
        """Items accepted, and still inside: in the queue, or in hand."""
        return self.accepted - self.processed - self.failed - sum(self.dropped.values())

    @property
    def utilisation(self) -> float:
        """How full the queue is, 0 to 1; 0 without one."""
        return min(1.0, self.qsize / self.maxsize) if self.maxsize else 0.0

    def share(self, seconds: float) -> float:
        """`seconds`, one of the times above, as a share of all the time of its workers."""
        whole = self.busy + self.idle + self.blocked + sum(self.held.values())
        return seconds / whole if whole > 0 else 0.0


_HEADERS = "stage in out failed dropped left workers queue busy blocked waits".split()


def _row(stage: StageStats) -> tuple[str, ...]:
    is_source = stage.kind == "source"
    workers = f"{stage.workers_peak}"
    if stage.workers and stage.workers != stage.workers_peak:
        workers = f"{stage.workers} of {stage.workers_peak}"
    return (
        stage.name,
        "" if is_source else f"{stage.accepted:,}",
        f"{stage.emitted if is_source else stage.processed:,}",
        f"{stage.failed:,}",
        "" if is_source else f"{sum(stage.dropped.values()):,}",
        "" if is_source else f"{stage.left:,}",
        workers,
        "" if stage.maxsize is None else f"{stage.peak_qsize:,}/{stage.maxsize:,}",
        f"{stage.share(stage.busy):.0%}",
        f"{stage.share(stage.blocked):.0%}",
        f"{stage.waits:,}",
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        aligned = [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([f"{name:<{widths[0]}}", *aligned]).rstrip())
    return lines


@dataclass(frozen=True)
class PipelineStats:
    """One instant of a pipeline."""

    name: str
    elapsed: float  # seconds since the start
    stages: Mapping[str, StageStats]  # by name, in the order they were added
    bottleneck: str  # a sentence: who holds everything back, and what limits him
    bottleneck_stage: str | None  # None: nobody
    bottleneck_cause: str  # workers, rate, limiter, breaker, memory, retry, order, source
    bottleneck_share: float  # 0 to 1, of all blocked time

    @property
    def accepted(self) -> int:
        """Items that the sources have emitted, or were put from outside."""
        emitted = sum(s.emitted for s in self.stages.values() if s.kind == "source")
        return emitted or next((s.accepted for s in self.stages.values()), 0)

    @property
    def failed(self) -> int:
        """Items that failed for good, in all stages."""
        return sum(stage.failed for stage in self.stages.values())

    @property
    def dropped(self) -> dict[str, int]:
        """Items lost on the way, in all stages, by reason; only reasons there were."""
        total: dict[str, int] = {}
        for stage in self.stages.values():
            for reason, count in stage.dropped.items():
                if count:
                    total[reason] = total.get(reason, 0) + count
        return total

    @property
    def left(self) -> int:
        """Items still inside, in all stages."""
        return sum(stage.left for stage in self.stages.values())

    def __str__(self) -> str:
        rows: list[Sequence[str]] = [_HEADERS, *(_row(stage) for stage in self.stages.values())]
        lines = [self._headline(), *_table(rows)]
        for stage in self.stages.values():
            reasons = [f"{count:,} {reason}" for reason, count in stage.dropped.items() if count]
            if reasons:
                lines.append(f"dropped before {stage.name!r}: {', '.join(reasons)}")
        lines.append(self.bottleneck)
        return "\n".join(lines)

    def _headline(self) -> str:
        return f"pipeline {self.name!r}: {self.elapsed:.2f} s"


@dataclass(frozen=True)
class PipelineReport(PipelineStats):
    """How a pipeline ended, and all that it has counted."""

    outcome: Literal["finished", "drained", "stopped", "failed"]
    """finished: its sources came to their end; drained: they were stopped, and what was inside went
    its way; stopped: what was inside was dropped; failed: an exception stopped it"""
    error: BaseException | None  # that stopped it
    interrupted: int | None  # the number of the signal that began the end; None: none did

    def _headline(self) -> str:
        text = f"pipeline {self.name!r} {self.outcome} after {self.elapsed:.2f} s"
        if self.error is not None:
            text += f": {type(self.error).__name__}: {self.error}"
        return text
