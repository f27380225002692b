"""The benchmarks measure what they say, and their page says what was measured.  No timing here.

Nothing here needs a peer: those that are not installed are part of what is tested.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import harness
import report
import run_all
from harness import Measurement, Question, Subject

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
pytestmark = pytest.mark.house

PROGRAMS = sorted(path.stem for path in BENCH.glob("*.py") if "harness.ask(" in path.read_text())
IN_C = [name for name in PROGRAMS if name.startswith("c_")]
OF_THE_COMMAND = [name for name in PROGRAMS if name.startswith("run_")]  # it may not be built
IN_PYTHON = [name for name in PROGRAMS if name not in IN_C + OF_THE_COMMAND]


# ---- statistics ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 3.0, 2.0], 2.5), ([7.0], 7.0)]
)
def test_the_median_is_the_middle_value_or_between_the_two(
    values: list[float], expected: float
) -> None:
    assert harness.median(values) == expected


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [(">= 2", 2.0, True), (">= 2", 1.99, False), ("<= 0.5", 0.5, True), ("< 1", 1.0, False)],
)
def test_a_target_holds_or_not(target: str, value: float, expected: bool) -> None:
    assert harness.holds(target, value) is expected


def test_a_target_that_nobody_understands_is_refused() -> None:
    with pytest.raises(ValueError, match="a target is such as"):
        harness.holds("about 3", 3)


def never(case: str, effort: float) -> float:
    raise AssertionError("the test measures")


def question(*, better: str = "more", target: str = ">= 2") -> Question:
    return Question(
        "bench/example.py",
        "How much?\n\nDetails.\n",
        unit="things/s",
        better=better,
        weir=(Subject("weir", never), Subject("weir, other", never)),
        peers=(Subject("peer", never, target=target), Subject("absent", never, target=target)),
        rounds=3,
    )


def answered(asked: Question, values: dict[str, list[float]]) -> list[dict[str, Any]]:
    """The lines of a run in which each subject has the given values, or is missing."""
    left = {name: list(of) for name, of in values.items()}

    def measure_one(subject: Subject, case: str) -> Measurement:
        if subject.name not in left:
            return Measurement(None, "missing: nobody has it", 0)
        return Measurement(left[subject.name].pop(0), "", 5 << 20)

    tallies = harness.run_case(asked, "", asked.rounds, measure_one, asked.subjects)
    return harness.lines_of(asked, "", tallies)


def test_rounds_alternate_and_who_failed_is_not_tried_again() -> None:
    asked, order = question(), []

    def measure_one(subject: Subject, case: str) -> Measurement:
        order.append(subject.name)
        if subject.name == "absent":
            return Measurement(None, "missing: nobody has it", 0)
        return Measurement(1.0, "", 0)

    tallies = harness.run_case(asked, "", 3, measure_one, asked.subjects)
    present = ["weir", "weir, other", "peer"]
    assert order == [*present, "absent", *present[::-1], *present]
    assert tallies["absent"] == ([], [], ["missing: nobody has it"])
    assert tallies["peer"].values == [1.0] * 3


def test_who_fails_in_a_later_round_has_no_median_and_says_when() -> None:
    asked, runs = question(), iter([2.0, None, 2.0])

    def measure_one(subject: Subject, case: str) -> Measurement:
        value = next(runs) if subject.name == "peer" else 1.0
        return Measurement(value, "" if value else "failed: it hangs", 0)

    tallies = harness.run_case(asked, "", 3, measure_one, asked.subjects)
    peer = harness.lines_of(asked, "", tallies)[2]
    assert peer["problem"] == "failed: it hangs (round 2 of 3)"
    assert "median" not in peer and peer["values"] == [2.0]


def test_a_line_tells_median_spread_ratio_and_whether_the_target_was_met() -> None:
    values = {"weir": [20.0, 60.0, 40.0], "weir, other": [5.0, 5.0, 5.0], "peer": [10.0, 20.0, 5.0]}
    weir, other, peer, absent = answered(question(), values)
    assert (weir["median"], weir["min"], weir["max"], weir["rounds"]) == (40.0, 20.0, 60.0, 3)
    assert weir["rss_bytes"] == 5 << 20 and "ratio" not in weir
    # Round by round: 2, 3 and 8, whose median is not that of the medians.
    assert (peer["ratio"], peer["ratio_min"], peer["ratio_max"]) == (3.0, 2.0, 8.0)
    assert (peer["ratio_of"], peer["ratio_to"], peer["met"]) == ("weir", "peer", True)
    assert (other["ratio_of"], other["ratio_to"], other["ratio"]) == ("weir, other", "peer", 0.5)
    assert absent["problem"] == "missing: nobody has it"
    assert absent["met"] is None and "median" not in absent


def test_a_target_that_was_missed_is_not_called_met() -> None:
    values = {"weir": [9.0] * 3, "weir, other": [9.0] * 3, "peer": [10.0] * 3}
    assert answered(question(target=">= 0.95"), values)[2]["met"] is False
    assert answered(question(target="<= 0.95"), values)[2]["met"] is True


# ---- one measurement ----------------------------------------------------------------------------


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_measurement_is_what_the_program_printed_last() -> None:
    found = harness.measure(python("print('warming up'); print('{\"value\": 2.5}')"), 30)
    assert found[:2] == (2.5, "")


def test_a_program_that_fails_is_a_result_that_says_why() -> None:
    found = harness.measure(python("raise RuntimeError('it broke')"), 30)
    assert found[:2] == (None, "failed: RuntimeError: it broke")
    found = harness.measure(python("print('no JSON'); raise SystemExit(3)"), 30)
    assert found[:2] == (None, "failed: exit status 3 and no result")
    found = harness.measure(["/nowhere/at/all"], 30)
    assert found[1].startswith("failed: /nowhere/at/all: No such file")


def test_a_program_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    code = f"""
import subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
time.sleep(1000)
"""
    found = harness.measure(python(code), 1.5)
    assert found[:2] == (None, "failed: no result within 1.5 s")
    child = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    deadline = time.monotonic() + 10
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the child of a killed program lives on"
        time.sleep(0.01)


def test_the_memory_of_a_measurement_is_that_of_all_its_processes() -> None:
    code = """
import os, time
held = b"x" * (32 << 20)
if os.fork() == 0:
    more = b"y" * (64 << 20)
    time.sleep(0.6)
    os._exit(0)
os.wait()
print('{"value": 1}')
"""
    found = harness.measure(python(code), 30)
    assert found.value == 1.0
    assert found.rss >= (32 + 64 + 32) << 20  # what the child shares with its parent counts twice


def test_a_peer_that_cannot_be_imported_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    def run(case: str, effort: float) -> float:
        return float(importlib.import_module("no_such_peer").speed)

    assert harness.answer(Subject("peer", run), "", 1.0) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"problem": "missing: No module named 'no_such_peer'"}


def test_a_program_that_was_not_built_says_what_it_needs() -> None:
    with pytest.raises(
        harness.Missing, match="queue_of_nobody was not built; it needs libnone-dev"
    ):
        harness.program("queue_of_nobody", "libnone-dev")


# ---- the page -----------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with the results of one question."""
    head = {
        "kind": "question", "name": "example", "title": "How much?", "detail": "In\ndetail.",
        "unit": "things/s", "better": "more", "build": "weir at abc",
        "seconds": 1.5, "others": 0.25,
        "date": "2026-01-02 03:04 UTC", "machine": {
            "cpu": "Abacus", "cpus": 2, "memory_gib": 4.0, "linux": "6.1",
        },
    }  # fmt: skip
    values = {
        "weir": [20.0, 60.0, 40.0],
        "weir, other": [5.0, 5.0, 5.0],
        "peer": [10.0, 20.0, 50.0],
    }
    folder = tmp_path / "results"
    harness.write_lines(folder / "example.jsonl", [head, *answered(question(), values)])
    return folder


def test_the_page_shows_every_subject_target_and_missing_peer(results: Path) -> None:
    text = report.page(report.read_all(results))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["**weir**", "40.0", "20.0 - 60.0", "", "", "", "5 MiB"] in rows
    assert ["peer", "20.0", "10.0 - 50.0", "2.00", ">= 2", "met", "5 MiB"] in rows
    assert ["absent", "missing: nobody has it", "", "", ">= 2", "not measured", ""] in rows
    assert ["[example](#example)", "beside peer", "2.00", ">= 2", "met"] in rows
    assert ["[example](#example)", "beside absent", "", ">= 2", "not measured"] in rows
    assert "**How much?** In detail." in text
    assert "2 x Abacus, 4.0 GiB, Linux 6.1" in text and "weir at abc" in text
    assert "3 rounds; 2026-01-02 03:04 UTC, 2 s; other programs had 25% of the" in text


def test_the_page_comes_from_the_lines_alone(results: Path) -> None:
    lines = (results / "example.jsonl").read_text()
    (results / "example.jsonl").write_text(lines.replace('"median": 40.0', '"median": 41.5'))
    assert "| **weir** | 41.5 |" in report.page(report.read_all(results))


def run_report(results: Path, page: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "report.py"), str(results), str(page)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_report_draws_a_plot_or_says_what_is_missing(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs/page.md"
    done = run_report(results, page)
    if importlib.util.find_spec("matplotlib") is None:
        assert done.returncode == 2
        assert "matplotlib, which is not installed" in done.stderr
        assert not page.exists()
        return
    assert done.returncode == 0, done.stderr
    (image,) = re.findall(r"\]\((images/\S+\.svg)\)", page.read_text())
    drawn = (page.parent / image).read_text()
    assert drawn.startswith("<?xml")
    assert run_report(results, page).returncode == 0
    assert (page.parent / image).read_text() == drawn, "the same results drew another plot"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('{"kind": "question"', '{"kind"', "example.jsonl:1: not JSON"),
        ('"kind": "question"', '"kind": "answer"', 'example.jsonl:1: "kind" must be'),
        ('"unit": "things/s", "better"', '"better"', 'example.jsonl:1: "unit" is missing'),
        ('"cpu": "Abacus", ', "", 'example.jsonl:1: "machine" must tell cpu'),
        ('"median": 40.0, ', "", 'example.jsonl:2: "median" is missing'),
        ('"median": 40.0', '"median": "forty"', 'example.jsonl:2: "median" is missing'),
        ('"role": "peer"', '"role": 7', 'example.jsonl:4: "role" is missing or of the wrong type'),
        ('"kind": "result"', '"kind": "question"', "example.jsonl:2: "),
    ],
)
def test_a_malformed_line_is_named_and_nothing_is_written(
    results: Path, tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    path, page = results / "example.jsonl", tmp_path / "docs/page.md"
    before = path.read_text()
    path.write_text(before.replace(old, new, 1))
    assert path.read_text() != before
    with pytest.raises(report.Malformed) as caught:
        report.write(results, page)
    assert str(caught.value).startswith(sentence)
    assert not page.parent.exists()


def test_no_results_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    done = run_report(tmp_path, tmp_path / "docs/page.md")
    assert done.returncode == 1 and "make bench" in done.stderr
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(report.Malformed, match=r"empty\.jsonl: is empty"):
        report.read_all(tmp_path)


# ---- the benchmarks -----------------------------------------------------------------------------


def test_every_benchmark_is_run_by_make_bench() -> None:
    assert sorted(run_all.BENCHMARKS) == PROGRAMS


def test_an_unknown_benchmark_is_refused_by_name() -> None:
    command = [sys.executable, str(BENCH / "run_all.py"), "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert 'there is no benchmark "nonsense"' in done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_benchmark_asks_one_question_in_its_first_line(name: str) -> None:
    asked: Question = importlib.import_module(name).QUESTION
    first = (BENCH / f"{name}.py").read_text().splitlines()[0]
    assert first.startswith('"""') and first.endswith("?")
    assert asked.rounds >= 5 and asked.better in ("more", "less")
    names = [subject.name for subject in asked.subjects]
    assert len(set(names)) == len(names)
    for subject in asked.subjects:
        assert (subject.run is None) != (subject.command is None)
        assert set(subject.cases or ()) <= set(asked.cases)
        for case in asked.cases:
            if target := subject.target_in(case):
                assert harness.holds(target, 1.0) in (True, False)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_quick_run_measures_everything_or_says_what_is_missing(name: str, tmp_path: Path) -> None:
    output = tmp_path / f"{name}.jsonl"
    command = [
        sys.executable, str(BENCH / f"{name}.py"), "--quick", "--as-is", "--output", str(output),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (answer,) = report.read_all(tmp_path)
    asked: Question = importlib.import_module(name).QUESTION
    expected = {
        (case, subject.name)
        for case in asked.cases
        for subject in asked.subjects
        if subject.cases is None or case in subject.cases
    }
    assert {(line["case"], line["subject"]) for line in answer.results} == expected
    for line in answer.results:
        if "problem" in line:
            assert line["problem"].startswith("missing: "), line
        else:
            assert line["median"] > 0 or answer.question["better"] == "less"
    if name in IN_PYTHON:  # weir itself and the standard library are always there
        measured = {line["role"] for line in answer.results if "problem" not in line}
        others = ("process_array", "shared_queue", "stats_cost")  # whose peers may not be there
        assert measured == {"weir", "peer"} or name in others, measured
