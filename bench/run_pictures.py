"""run_pictures.py - draws docs/images/run_order.svg and run_cgroup.svg, which docs/run.md shows.

    python bench/run_pictures.py [FOLDER]

Each is measured anew, once: by the programs run_order.py and run_cgroup.py, which have the medians.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import harness
import run_cgroup
import run_order
from runners import MIB

OURS, THEIRS = "#0072b2", "#d55e00"
BLOCKED = 20.0  # seconds
FATES = {"done": "#0072b2", "killed by the kernel, and lost": "#d55e00", "never begun": "#c9ced3"}


def order(plt: Any, path: Path) -> None:
    """What a runner has open, and in temporary files, from second to second."""
    seconds, items = BLOCKED, 4 * run_order.ITEMS
    (harness.ROOT / "out").mkdir(exist_ok=True)
    runs = {
        "weir run -k": (OURS, run_order.looks(run_order.weir_run(seconds), items, seconds)),
        "parallel -k": (THEIRS, run_order.looks(run_order.parallel_run(seconds), items, seconds)),
    }
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, (colour, looks) in runs.items():
        at = [look.seconds for look in looks]
        curve(panels[0], at, [look.files for look in looks], name, colour)
        curve(panels[1], at, [look.temporary / MIB for look in looks], name, colour)
    panels[0].set_title("open descriptors", loc="left", fontsize=10)
    panels[1].set_title("MiB in temporary files", loc="left", fontsize=10)
    for axes in panels:
        axes.set_xlabel("seconds, in which the first job blocks")
        axes.set_xlim(0, seconds * 1.28)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    save(plt, figure, path)


def curve(axes: Any, at: list[float], values: list[float], name: str, colour: str) -> None:
    axes.plot(at, values, color=colour, linewidth=2)
    axes.annotate(
        f"{name}\n{values[-1]:,.0f}", (at[-1], values[-1]), (5, 0), textcoords="offset points",
        va="center", color=colour, fontsize=9,
    )  # fmt: skip


def cgroup(plt: Any, path: Path) -> None:
    """What has become of the eight items, for each runner."""
    figure, axes = plt.subplots(figsize=(9, 2.9), layout="constrained")
    for name, command in run_cgroup.RUNNERS.items():
        found = run_cgroup.run(command(), 1.0)
        lost, killed = found[run_cgroup.NOT_DONE], found[run_cgroup.KILLED]
        parts = (run_cgroup.JOBS - lost, min(lost, killed), lost - min(lost, killed))
        left = 0
        for (fate, colour), part in zip(FATES.items(), parts, strict=True):
            label = fate if part else None
            axes.barh(name, part, left=left, color=colour, height=0.7, label=label)
            left += part
        again = killed - min(lost, killed)
        said = f"{parts[0]} of {run_cgroup.JOBS}" + (
            f", {again} killed and run again" * (again > 0)
        )
        axes.annotate(
            said,
            (run_cgroup.JOBS, name),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.invert_yaxis()
    axes.set_xlim(0, run_cgroup.JOBS * 1.35)
    axes.set_xticks(range(run_cgroup.JOBS + 1))
    axes.set_title(
        f"{run_cgroup.JOBS} jobs of {run_cgroup.SIZE} MB in a memory cgroup of"
        f" {run_cgroup.MEMORY:,} MB",
        loc="left", fontsize=10,
    )  # fmt: skip
    axes.tick_params(labelsize=9, left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower left", ncols=3, frameon=False)
    save(plt, figure, path)


def save(plt: Any, figure: Any, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
    print(f"wrote {path}")


def main() -> int:
    folder = Path(sys.argv[1]) if sys.argv[1:] else harness.ROOT / "docs" / "images"
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        print("run_pictures: matplotlib is not installed: scripts/setup plot", file=sys.stderr)
        return 2
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "weir"
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    plt = importlib.import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        order(plt, folder / "run_order.svg")
        cgroup(plt, folder / "run_cgroup.svg")
    except harness.Missing as missing:
        print(f"run_pictures: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
