"""report.py - writes docs/benchmarks.md and its plots from the JSON lines of the benchmarks only.

    python bench/report.py [RESULTS [PAGE]]      default: out/bench docs/benchmarks.md

The plots go to the folder images beside the page, one SVG for each question.  Results that cannot
be read are refused with file, line and reason, and nothing is written then.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import harness

WORDS = ("question", "case", "subject", "weir", "target", "")  # columns set to the left
OURS, THEIRS = "#0072b2", "#b0b7bf"

# What a line must have, and of which type; the other fields may be absent.
FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "question": {
        "name": str, "title": str, "detail": str, "unit": str, "better": str,
        "machine": dict, "build": str, "date": str, "seconds": (int, float),
        "others": (int, float),
    },
    "result": {
        "question": str, "case": str, "subject": str, "role": str, "unit": str, "note": str,
        "values": list, "rounds": int,
    },
}  # fmt: skip
MEASURED = ("median", "min", "max", "rss_bytes")  # what a result without a problem has too
MACHINE = ("cpu", "cpus", "memory_gib", "linux")


class Malformed(Exception):
    """The text says which line of which file, and what is wrong with it."""


class CannotDraw(Exception):
    """There is no matplotlib."""


class Answer(NamedTuple):
    """The content of one results file."""

    question: dict[str, Any]
    results: list[dict[str, Any]]


INTRO = """# Benchmarks

`make bench` measures and writes this page; do not edit it. Each program in [bench/](../bench) asks
one question and measures weir and its peers in the same run, alternating, each time in a fresh
process. Figures are good as ratios only: another machine, or another load on this one, moves all.
Below each table stands what other programs had of the processors meanwhile: where that is more than
a few percent, the ratios are rough too, and the spread shows it.

- Machine: {machines}
- Build: {builds}
- Date: {dates}

Values are medians over the rounds, with the smallest and the largest. *weir / peer* is the value of
weir (the first row) divided by the peer's: the median over rounds, each with its neighbour in time.
For a variant of weir it is the variant's value divided by that of the peer it names. *Peak RSS* is
the largest sum, over the processes of one measurement that were alive together, of each one's peak,
so memory that processes share counts in each; an empty cell means that it ended before anybody
could look. A peer that could not be measured says why.
"""


# ---- reading ------------------------------------------------------------------------------------


def read(path: Path) -> Answer:
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines:
        raise Malformed(f"{path.name}: is empty; run the benchmark again")
    parsed = [parse(path, number, text) for number, text in enumerate(lines, 1)]
    kinds = [line["kind"] for line in parsed]
    if kinds[0] != "question" or "question" in kinds[1:]:
        raise Malformed(f"{path.name}:1: the first line, and no other, must describe the question")
    if len(parsed) == 1:
        raise Malformed(f"{path.name}:1: a question without a result")
    return Answer(parsed[0], parsed[1:])


def parse(path: Path, number: int, text: str) -> dict[str, Any]:
    where = f"{path.name}:{number}"
    try:
        line: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise Malformed(f"{where}: not JSON: {error}") from None
    if not isinstance(line, dict):
        raise Malformed(f"{where}: not a JSON object")
    kind = line.get("kind")
    if kind not in FIELDS:
        raise Malformed(f'{where}: "kind" must be "question" or "result", not {kind!r}')
    for field, type_ in FIELDS[kind].items():
        if not isinstance(line.get(field), type_):
            raise Malformed(f'{where}: "{field}" is missing or of the wrong type')
    if kind == "question" and not all(field in line["machine"] for field in MACHINE):
        raise Malformed(f'{where}: "machine" must tell {", ".join(MACHINE)}')
    if kind == "result" and "problem" not in line:
        for field in MEASURED:
            if not isinstance(line.get(field), (int, float)):
                raise Malformed(f'{where}: "{field}" is missing, and no "problem" says why')
    return line


def read_all(folder: Path) -> list[Answer]:
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise Malformed(f"there are no results in {folder}: run `make bench` first")
    return [read(path) for path in paths]


# ---- the page -----------------------------------------------------------------------------------


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def markdown_table(headers: list[str], rows: list[list[str]]) -> str:
    align = ["---" if header in WORDS else "---:" for header in headers]
    return "\n".join("| " + " | ".join(map(cell, row)) + " |" for row in [headers, align, *rows])


def verdict(result: dict[str, Any]) -> str:
    if not result.get("target"):
        return ""
    met = result.get("met")
    if met is None:
        return "not measured"
    return "met" if met else "**not met**"


def ratio(result: dict[str, Any]) -> str:
    if "ratio" not in result:
        return ""
    found = f"{result['ratio']:.2f}"
    if result["role"] == "weir":  # a variant: say beside what
        found += f" beside {result['ratio_to']}"
    return found


def row(result: dict[str, Any], has_cases: bool) -> list[str]:
    name = result["subject"]
    if result.get("version"):
        name += f" {result['version']}"
    if result["role"] == "weir":
        name = f"**{name}**"
    if result["note"]:
        name += f" ({result['note']})"
    start = [result["case"], name] if has_cases else [name]
    target, met = result.get("target") or "", verdict(result)
    if "problem" in result:
        return [*start, result["problem"], "", "", target, met, ""]
    rss = f"{result['rss_bytes'] / (1 << 20):,.0f} MiB" if result["rss_bytes"] else ""
    spread = f"{harness.number(result['min'])} - {harness.number(result['max'])}"
    return [
        *start, harness.number(result["median"]), spread, ratio(result), target, met, rss
    ]  # fmt: skip


def targets(answers: list[Answer]) -> str:
    rows = []
    for question, results in answers:
        link = f"[{question['name']}](#{question['name']})"
        for result in results:
            if not result.get("target"):
                continue
            if result["role"] == "weir":
                what, value = f"{result['subject']}, {result['unit']}", result.get("median")
            else:
                what, value = f"beside {result['subject']}", result.get("ratio")
            what = ": ".join(filter(None, (result["case"], what)))
            shown = "" if value is None else harness.number(value)
            rows.append([link, what, shown, result["target"], verdict(result)])
    return markdown_table(["question", "weir", "measured", "target", ""], rows)


def section(answer: Answer) -> str:
    question, results = answer
    has_cases = any(result["case"] for result in results)
    headers = ["subject", question["unit"], "min - max", "weir / peer", "target", "", "peak RSS"]
    if has_cases:
        headers.insert(0, "case")
    rounds = sorted({result["rounds"] for result in results if "problem" not in result})
    better = {"more": "more is better", "less": "less is better"}[question["better"]]
    facts = [
        better,
        f"{' or '.join(map(str, rounds)) or 'no'} rounds",
        f"{question['date']}, {question['seconds']:.0f} s",
        f"other programs had {question['others']:.0%} of the processors meanwhile",
    ]
    return "\n\n".join(
        filter(
            None,
            [
                f"## {question['name']}",
                f"**{question['title']}** {' '.join(question['detail'].split())}",
                markdown_table(headers, [row(result, has_cases) for result in results]),
                f"*{'; '.join(facts)}.*",
                f"![{question['title']}](images/bench_{question['name']}.svg)",
            ],
        )
    )


def page(answers: list[Answer]) -> str:
    heads = [question for question, _results in answers]
    machines = {
        "{cpus} x {cpu}, {memory_gib} GiB, Linux {linux}".format(**question["machine"])
        for question in heads
    }
    builds = {question["build"] for question in heads}
    dates = sorted(question["date"][:10] for question in heads)
    spanned = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    intro = INTRO.format(
        machines="; ".join(sorted(machines)), builds="; ".join(sorted(builds)), dates=spanned
    )
    parts = [intro, "## Targets", targets(answers), *map(section, answers)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


# ---- the plots ----------------------------------------------------------------------------------


def plot(answer: Answer, path: Path) -> None:
    """Bars of the medians, a whisker from the smallest to the largest, a panel for each case."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "weir"  # the same input makes the same file
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    plt = importlib.import_module("matplotlib.pyplot")
    question, results = answer
    cases = list(dict.fromkeys(result["case"] for result in results))
    shown = {
        case: [r for r in results if r["case"] == case and r.get("median") is not None]
        for case in cases
    }
    heights = [max(1, len(shown[case])) for case in cases]
    figure, panels = plt.subplots(
        len(cases), figsize=(9, 0.9 + 0.55 * len(cases) + 0.32 * sum(heights)),
        layout="constrained", squeeze=False, height_ratios=heights,
    )  # fmt: skip
    medians = [result["median"] for case in cases for result in shown[case] if result["median"] > 0]
    most = max((result["max"] for case in cases for result in shown[case]), default=1)
    is_wide = bool(medians) and max(medians) > 30 * min(medians)
    for case, (axes,) in zip(cases, panels, strict=True):
        bars(axes, shown[case], is_wide)
        axes.set_title(case, loc="left", fontsize=10)
        if medians:
            axes.set_xlim(min(medians) / 3 if is_wide else 0, most * (2.5 if is_wide else 1.15))
    scale = ", logarithmic" if is_wide else ""
    panels[-1][0].set_xlabel(f"{question['unit']} ({question['better']} is better{scale})")
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def bars(axes: Any, results: list[dict[str, Any]], is_wide: bool) -> None:
    names = [result["subject"] for result in results]
    medians = [result["median"] for result in results]
    whiskers = [
        [result["median"] - result["min"] for result in results],
        [result["max"] - result["median"] for result in results],
    ]
    colours = [OURS if result["role"] == "weir" else THEIRS for result in results]
    axes.barh(names, medians, xerr=whiskers, color=colours, ecolor="0.35", height=0.7)
    if is_wide:
        axes.set_xscale("log")
    for place, result in enumerate(results):
        axes.annotate(
            harness.number(result["median"]), (result["max"], place), (5, 0),
            textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    axes.invert_yaxis()
    axes.tick_params(labelsize=9, left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)


# ---- the program --------------------------------------------------------------------------------


def write(results: Path, target: Path) -> None:
    """Reads everything before it writes anything."""
    answers = read_all(results)
    text = page(answers)
    if importlib.util.find_spec("matplotlib") is None:
        raise CannotDraw(
            "the plots need matplotlib, which is not installed for this Python: scripts/setup plot"
        )
    images = target.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    for answer in answers:
        plot(answer, images / f"bench_{answer.question['name']}.svg")
    target.write_text(text, encoding="utf-8")


def main() -> int:
    given = [Path(argument) for argument in sys.argv[1:]]
    defaults = [harness.RESULTS, harness.ROOT / "docs" / "benchmarks.md"]
    results, target = given + defaults[len(given) :]
    try:
        write(results, target)
    except Malformed as error:
        print(f"weir: report: {error}", file=sys.stderr)
        return 1
    except CannotDraw as error:
        print(f"weir: report: {error}", file=sys.stderr)
        return 2
    print(f"{target.name} and its plots are written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
