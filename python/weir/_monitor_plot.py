"""`weir.Monitor.plot()`: a column for each object, and in it depth, throughput, times, and issues.

Colours can be told apart with any eyes, and each line differs in its stroke, too.
"""

from __future__ import annotations

import importlib
import itertools
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from weir._monitor import History, Issue, in_words
from weir._observe import ObjectStats, Stats

__all__ = ["draw"]

_BLUE, _ORANGE, _RED, _GREEN, _GREY = "#0072b2", "#e69f00", "#d55e00", "#009e73", "#7f7f7f"

# What a shade stands for, in the order in which they lie above each other.
_ISSUES = {
    "queue_high": "queue high",
    "slow_service": "slow service",
    "backpressure": "backpressure",
    "low_throughput": "low throughput",
    "growing_age": "growing age",
    "drops": "drops",
    "breaker_open": "breaker open",
    "memory": "memory",
    "workers_die": "workers die",
}


def draw(
    path: str | os.PathLike[str],
    stats: Stats,
    histories: Mapping[str, History],
    issues: Sequence[Issue],
    most: int,
) -> None:
    file = os.fspath(path)
    suffix = os.path.splitext(file)[1].lower()
    if suffix not in (".png", ".svg"):
        raise ValueError(f"'path' must end in .png or .svg, not {file!r}")
    if isinstance(most, bool) or not isinstance(most, int):
        raise TypeError(f"'objects' must be an int, not {most!r}")
    if most < 1:
        raise ValueError(f"'objects' must be >= 1, not {most!r}")
    chosen = _chosen(stats, histories, issues, most)
    if not chosen:
        raise ValueError("there is nothing to draw: no object was seen twice")
    figure = _figure(chosen, stats, histories, issues)
    metadata = {"Date": None} if suffix == ".svg" else {"Software": None}
    figure.savefig(file, format=suffix[1:], dpi=150, metadata=metadata)


def _chosen(
    stats: Stats, histories: Mapping[str, History], issues: Iterable[Issue], most: int
) -> list[ObjectStats]:
    """Those that are worth a look, in the order in which they were seen."""
    troubled = {issue.key for issue in issues}

    def worth(o: ObjectStats) -> tuple[bool, bool, float]:
        return o.is_root, o.key in troubled, o.rates.accepted if o.rates else 0.0

    seen = [o for o in stats if len(histories.get(o.key, ())) > 1]
    best = {o.key for o in sorted(seen, key=worth, reverse=True)[:most]}
    return [o for o in seen if o.key in best]


def _figure(
    objects: Sequence[ObjectStats],
    stats: Stats,
    histories: Mapping[str, History],
    issues: Sequence[Issue],
) -> Any:
    try:
        module = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ImportError(
            "weir.Monitor.plot() needs matplotlib: pip install 'weir[plot]'"
        ) from error
    n = len(objects)
    figure = module.Figure(figsize=(max(7.0, 4.2 * n), 7.6), layout="constrained")
    panels = figure.subplots(4, n, sharex=True, squeeze=False, height_ratios=[3, 3, 3, 1.2])
    began = min(histories[o.key].at[0] for o in objects)
    for column, o in enumerate(objects):
        history = histories[o.key]
        at = [when - began for when in history.at]
        depth, rates, times, marks = panels[:, column]
        depth.set_title(o.label + (" \N{EM DASH} the bottleneck" if o.is_root else ""), fontsize=10)
        _depth(depth, o, at, history)
        _rates(rates, at, history)
        _times(times, at, history)
        _marks(marks, [i for i in issues if i.key == o.key], began, stats.at - began)
        for axes in (depth, rates, times):
            _finish(axes, is_first=column == 0)
    for axes in panels[-1]:
        axes.set_xlim(0, max(stats.at - began, 1e-3))
    title = stats.root or "nothing is held back"
    figure.suptitle(textwrap.fill(title, int(11 * figure.get_figwidth())), fontsize=11)
    return figure


def _depth(axes: Any, o: ObjectStats, at: Sequence[float], history: History) -> None:
    has_depth = "depth" in o.numbers
    if has_depth and not o.numbers.get("capacity") and not any(history.depth):
        axes.set_yticks([])
        _say(axes, "holds no items")  # a source, or a stage that runs in another one's workers
        return
    axes.fill_between(at, history.depth, color=_BLUE, alpha=0.15, linewidth=0)
    axes.plot(at, history.depth, color=_BLUE, label="depth" if has_depth else "in flight")
    bound = o.numbers.get("capacity")
    if bound and bound <= 4 * max(history.depth, default=0):  # where it can be seen with the depth
        axes.axhline(bound, color=_GREY, linestyle=":", label=f"bound {bound:g}")
    axes.set_ylabel("items")
    axes.yaxis.get_major_locator().set_params(integer=True)


def _rates(axes: Any, at: Sequence[float], history: History) -> None:
    axes.plot(at, _smooth(at, history.accepted), color=_GREY, linestyle="--", label="in")
    axes.plot(at, _smooth(at, history.delivered), color=_GREEN, label="out")
    if any(history.dropped):
        axes.plot(at, _smooth(at, history.dropped), color=_RED, linestyle="-.", label="dropped")
    axes.set_ylabel("items a second")


def _smooth(at: Sequence[float], rates: Sequence[float]) -> list[float]:
    """Rates since the look before, made rates over a fortieth of the time; one look says little."""
    span = (at[-1] - at[0]) / 40
    steps = [0.0, *(b - a for a, b in itertools.pairwise(at))]
    counts = [rate * step for rate, step in zip(rates, steps, strict=True)]
    smoothed, first = [], 1
    for last in range(len(at)):
        while first < last and at[last] - at[first] >= span:
            first += 1
        seconds = sum(steps[first : last + 1])
        smoothed.append(sum(counts[first : last + 1]) / seconds if seconds else 0.0)
    return smoothed


def _times(axes: Any, at: Sequence[float], history: History) -> None:
    series = (
        (history.wait_p99, _ORANGE, "-", "wait, p99"),
        (history.service_p99, _BLUE, "--", "service, p99"),
    )
    for values, color, stroke, label in series:
        known = [(when, value) for when, value in zip(at, values, strict=True) if value > 0]
        if known:
            axes.plot(*zip(*known, strict=True), color=color, linestyle=stroke, label=label)
            axes.set_yscale("log")
    if not axes.lines:
        axes.set_yticks([])
        _say(axes, "nothing was timed")
        return
    least, most = axes.get_ylim()
    axes.set_ylim(min(least, most / 100), most * 3)  # two decades at least, and room for the legend
    axes.yaxis.set_major_formatter(lambda value, _: in_words(value))
    axes.yaxis.set_minor_formatter(lambda value, _: "")


def _say(axes: Any, text: str) -> None:
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=_GREY, fontsize=9
    )


def _marks(axes: Any, issues: Sequence[Issue], began: float, end: float) -> None:
    """A bar for each issue, as long as it lasted."""
    kinds = [kind for kind in _ISSUES if any(i.issue == kind for i in issues)]
    for issue in issues:
        if issue.issue not in kinds:
            continue
        first = max(issue.since - began, 0.0)
        last = end if issue.ended is None else min(issue.ended - began, end)
        if last >= 0:
            row = kinds.index(issue.issue)
            axes.barh(row, max(last - first, end / 200), left=first, height=0.6, color=_RED)
    axes.set_yticks(range(len(kinds)), [_ISSUES[kind] for kind in kinds], fontsize=9)
    axes.set_ylim(max(len(kinds), 1) - 0.5, -0.5)
    axes.set_xlabel("seconds")
    axes.spines[["top", "right"]].set_visible(False)
    if not kinds:
        _say(axes, "no issues")


def _finish(axes: Any, *, is_first: bool) -> None:
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_yscale() == "linear" and axes.lines:
        axes.set_ylim(0, max(1.0, 1.2 * axes.dataLim.y1))  # and room for the legend
    if not is_first:
        axes.set_ylabel("")
    if axes.lines:
        axes.legend(fontsize=8, frameon=False, loc="upper right", ncols=3, borderaxespad=0)
