"""harness.py - what the benchmarks share: alternating rounds, medians, spread, memory, JSON lines.

A benchmark is a program that asks one question in its first line and hands its subjects to `ask`.
Each measurement runs in a process of its own, one after the other: all subjects in one round, in
the opposite order in the next, so that what else the machine does hits all of them.

What is measured is an optimised build of this checkout (scripts/build bench), which `ask` brings up
to date first. A peer that is not installed, or fails, is a result that says so.

The first line of a results file describes the question, machine and build; then comes one line for
each case and subject. report.py reads nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build-bench"
RESULTS = ROOT / "out" / "bench"
QUICK = 0.02  # the share of the work that --quick does
SAMPLING = 0.1  # seconds between two looks at the memory of what is measured; less at first


class Missing(Exception):
    """What should be measured is not there; the text says what it needs."""


class Subject(NamedTuple):
    """One row of a table.

    name    as the table shows it
    run     measures once: run(case, effort) returns a number in the question's unit, or raises
            Missing or ImportError; effort is 1.0, or less for a quick look
    command instead of `run`: the program that measures, which prints {"value": number}
    target  what must hold, such as ">= 12": of a peer for weir's value over the peer's, of weir
            for its own value; in each case, or as a dict of cases
    note    what a reader has to know to compare fairly
    package the Python package it comes from, whose version is told
    cases   those it takes part in; None: all
    """

    name: str
    run: Callable[[str, float], float] | None = None
    command: Callable[[str, float], list[str]] | None = None
    target: str | dict[str, str] | None = None
    note: str = ""
    package: str | None = None
    cases: tuple[str, ...] | None = None

    def target_in(self, case: str) -> str | None:
        return self.target.get(case) if isinstance(self.target, dict) else self.target


class Question(NamedTuple):
    """What a benchmark asks.

    file, doc   of the program: its name, its question (the first line) and how it is measured
    unit        of all values; better says which are: "more" or "less"
    weir        what is compared with the peers: the first of them is weir as it comes, the
                others are variants, each compared with the first peer
    peers       what weir is compared with
    """

    file: str
    doc: str
    unit: str
    better: str
    weir: tuple[Subject, ...]
    peers: tuple[Subject, ...]
    cases: tuple[str, ...] = ("",)
    rounds: int = 5
    timeout: float = 60.0  # seconds for one measurement

    @property
    def name(self) -> str:
        return Path(self.file).stem

    @property
    def subjects(self) -> tuple[Subject, ...]:
        return self.weir + self.peers


class Measurement(NamedTuple):
    value: float | None
    problem: str  # why there is no value
    rss: int  # bytes: the most that its processes had together


# ---- arithmetic -------------------------------------------------------------------------------


def median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Round by round, because neighbours in time had the same machine."""
    return [a / b for a, b in zip(ours, theirs, strict=False) if b]


def holds(target: str, value: float) -> bool:
    relation, bound = target.split()
    if relation == ">=":
        return value >= float(bound)
    if relation == "<=":
        return value <= float(bound)
    if relation == "<":
        return value < float(bound)
    raise ValueError(f'a target is such as ">= 2", not {target!r}')


# ---- one measurement ----------------------------------------------------------------------------


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as children:
                found += map(int, children.read().split())
    except OSError:
        pass
    return found + [grandchild for child in found for grandchild in descendants(child)]


def peak_rss(pid: int | str = "self") -> int:
    """Bytes of memory that a process had at its peak; 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def measure(command: list[str], timeout: float, env: dict[str, str] | None = None) -> Measurement:
    """Runs a program that prints {"value": number}, or {"problem": text}, in a session of its own.

    Nothing that it started is left behind.
    """
    import contextlib
    import select
    import signal
    import subprocess
    import tempfile

    rss, late = 0, False
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Measurement(None, f"failed: {command[0]}: {error.strerror}", 0)
        try:
            ended = os.pidfd_open(process.pid)
            try:
                deadline = time.monotonic() + timeout
                pause = 0.002
                while not select.select([ended], [], [], pause)[0]:
                    pause = min(2 * pause, SAMPLING)
                    family = [process.pid, *descendants(process.pid)]
                    rss = max(rss, sum(map(peak_rss, family)))
                    if late := time.monotonic() > deadline:
                        break
            finally:
                os.close(ended)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        out.seek(0)
        err.seek(0)
        said = out.read().decode(errors="replace").strip().splitlines()
        complained = err.read().decode(errors="replace").strip().splitlines()
    if late:
        return Measurement(None, f"failed: no result within {timeout:g} s", rss)
    try:
        answer = json.loads(said[-1])
        if "problem" in answer:
            return Measurement(None, str(answer["problem"]), rss)
        return Measurement(float(answer["value"]), "", rss)
    except (IndexError, KeyError, TypeError, ValueError):
        reason = complained[-1] if complained else f"exit status {status} and no result"
        return Measurement(None, f"failed: {reason}", rss)


def answer(subject: Subject, case: str, effort: float) -> int:
    """The other end of `measure`, for a subject in Python."""
    assert subject.run is not None
    try:
        said: dict[str, object] = {"value": subject.run(case, effort)}
    except (Missing, ImportError) as error:
        said = {"problem": f"missing: {error}"}
    print(json.dumps(said), flush=True)
    return 0


def program(name: str, needs: str) -> str:
    """The path of a C program of bench/c; Missing, saying what it needs, when it was not built."""
    path = BUILD / "bench" / "c" / name
    if not path.exists():
        raise Missing(f"{name} was not built; it needs {needs}")
    return str(path)


# ---- one question -------------------------------------------------------------------------------


class Tally(NamedTuple):
    values: list[float]
    rss: list[int]
    problem: list[str]  # at most one: it is not tried again


def run_case(
    question: Question,
    case: str,
    rounds: int,
    measure_one: Callable[[Subject, str], Measurement],
    subjects: tuple[Subject, ...],
) -> dict[str, Tally]:
    """All rounds of one case, alternating."""
    tallies = {subject.name: Tally([], [], []) for subject in subjects}
    for number in range(rounds):
        for subject in subjects if number % 2 == 0 else reversed(subjects):
            tally = tallies[subject.name]
            if tally.problem:
                continue
            value, problem, rss = measure_one(subject, case)
            if value is None:
                when = f" (round {number + 1} of {rounds})" if number else ""
                tally.problem.append(problem + when)
            else:
                tally.values.append(value)
                tally.rss.append(rss)
    return tallies


def lines_of(question: Question, case: str, tallies: dict[str, Tally]) -> list[dict[str, Any]]:
    """A result for each subject: median, spread, and weir's ratio to it."""
    weir = question.weir[0]
    first_peer = next((peer for peer in question.peers if peer.name in tallies), None)
    lines = []
    for subject in question.subjects:
        if subject.name not in tallies:
            continue
        values, rss, problem = tallies[subject.name]
        line: dict[str, Any] = {
            "kind": "result",
            "question": question.name,
            "case": case,
            "subject": subject.name,
            "role": "weir" if subject in question.weir else "peer",
            "unit": question.unit,
            "note": subject.note,
            "version": version_of(subject.package),
            "values": values,
            "rounds": len(values),
            "target": subject.target_in(case),
        }
        if problem:
            line |= {"problem": problem[0], "met": None}
            lines.append(line)
            continue
        line |= {"median": median(values), "min": min(values), "max": max(values)}
        line |= {"rss_bytes": max(rss), "met": None}
        if subject is weir:
            compared = None  # with itself
        elif line["role"] == "weir":
            compared = (subject, first_peer) if first_peer else None
        else:
            compared = (weir, subject)
        if compared and all(one.name in tallies for one in compared):  # --only leaves some out
            ours, theirs = (tallies[one.name] for one in compared)
            found = ratios(ours.values, theirs.values)
            if found and not ours.problem and not theirs.problem:
                line |= {"ratio": median(found), "ratio_min": min(found), "ratio_max": max(found)}
                line |= {"ratio_of": compared[0].name, "ratio_to": compared[1].name}
        if target := subject.target_in(case):
            checked = line["median"] if line["role"] == "weir" else line.get("ratio")
            line["met"] = None if checked is None else holds(target, checked)
        lines.append(line)
    return lines


def version_of(package: str | None) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package) if package else None
    except PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    def first(path: str, start: str) -> str:
        with open(path, encoding="utf-8", errors="replace") as lines:
            return next((x.split(":", 1)[1].strip() for x in lines if x.startswith(start)), "?")

    return {
        "cpu": first("/proc/cpuinfo", "model name"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(first("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20), 1),
        "linux": ".".join(os.uname().release.split(".")[:2]),
    }


def cpu_seconds() -> tuple[float, float]:
    """CPU time that was used since the start: by all processes of the machine, and by ours."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(
            int, stat.readline().split()[1:9]
        )
    machine_wide = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return machine_wide, sum(os.times()[:4])


def build(as_is: bool) -> tuple[str, dict[str, str]]:
    """Builds what is measured: in words, and the environment in which programs import it."""
    import subprocess

    def first_line(*command: str) -> str:
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError:
            return ""
        return done.stdout.strip().partition("\n")[0]

    env = dict(os.environ)
    if not as_is and "WEIR_BENCH_BUILT" not in env:
        subprocess.run([ROOT / "scripts" / "build", "bench"], check=True)
    if as_is:
        how = "the package as this Python imports it"
    else:
        env["PYTHONPATH"] = str(BUILD / "prefix" / "python")
        how = f"release build (-O3, no asserts), {first_line('cc', '--version')}"
    python = ".".join(map(str, sys.version_info[:3]))
    commit = first_line("git", "describe", "--always", "--dirty=, with changes") or "no commit"
    return f"weir at {commit}; {how}; CPython {python}", env


def number(value: float) -> str:
    """Three or more digits: 1,234,567 or 12.3 or 0.0123."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def table(question: dict[str, Any], lines: list[dict[str, Any]]) -> str:
    """What a person sees in the terminal."""
    rows = [["", f"{question['unit']}", "min - max", "weir / peer", "target", "", "peak RSS"]]
    for line in lines:
        name = " ".join(filter(None, (line["case"], line["subject"])))
        if "problem" in line:
            rows.append([name, line["problem"], "", "", "", "", ""])
            continue
        rows.append(
            [
                name,
                number(line["median"]),
                f"{number(line['min'])} - {number(line['max'])}",
                f"{line['ratio']:.2f}" if "ratio" in line else "",
                line["target"] or "",
                {True: "met", False: "NOT met", None: ""}[line["met"]],
                f"{line['rss_bytes'] / (1 << 20):,.0f} MiB" if line["rss_bytes"] else "",
            ]
        )
    narrow = [[row[0], *(row[1:] if row[2] else ["", *row[2:]])] for row in rows]
    widths = [max(map(len, column)) for column in zip(*narrow, strict=True)]
    shown = []
    for row in rows:
        if not row[2]:  # a problem takes the place of all figures
            shown.append(f"{row[0]:<{widths[0]}}  {row[1]}")
            continue
        rest = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        shown.append("  ".join([f"{row[0]:<{widths[0]}}", *rest]).rstrip())
    return "\n".join(shown)


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """All or nothing: who reads the file never sees half a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    draft.replace(path)


def ask(question: Question) -> int:
    """The whole program of a benchmark; returns its exit status: 1 when weir itself failed."""
    title, _, detail = question.doc.strip().partition("\n")
    parser = argparse.ArgumentParser(
        description=title,
        epilog="A run without options writes out/bench/NAME.jsonl; one with options writes FILE.",
    )
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the work, one round")
    parser.add_argument("--rounds", type=int, default=None, help=f"default {question.rounds}")
    parser.add_argument("--only", default="", metavar="TEXT", help="subjects with TEXT in the name")
    parser.add_argument("--output", type=Path, default=None, metavar="FILE")
    parser.add_argument("--as-is", action="store_true", help="measure what this Python imports")
    parser.add_argument("--measure", nargs=3, metavar=("SUBJECT", "CASE", "EFFORT"))  # once, here
    args = parser.parse_args()
    if args.measure:
        name, case, effort = args.measure
        (chosen,) = (subject for subject in question.subjects if subject.name == name)
        return answer(chosen, case, float(effort))

    effort = QUICK if args.quick else 1.0
    rounds = args.rounds or (1 if args.quick else question.rounds)
    described, env = build(args.as_is)

    def measure_one(subject: Subject, case: str) -> Measurement:
        if subject.command is None:
            command = [sys.executable, question.file, "--measure", subject.name, case, str(effort)]
        else:
            try:
                command = subject.command(case, effort)
            except Missing as missing:
                return Measurement(None, f"missing: {missing}", 0)
        return measure(command, question.timeout, env)

    head: dict[str, Any] = {
        "kind": "question",
        "name": question.name,
        "title": title,
        "detail": detail.strip(),
        "unit": question.unit,
        "better": question.better,
        "machine": machine(),
        "build": described,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
    print(title)
    here = head["machine"]
    print("{cpus} x {cpu}, {memory_gib} GiB, Linux {linux}".format(**here))
    print(described, flush=True)
    began, (all_before, ours_before) = time.monotonic(), cpu_seconds()
    lines: list[dict[str, Any]] = []
    try:
        for case in question.cases:
            taking_part = tuple(
                subject
                for subject in question.subjects
                if (subject.cases is None or case in subject.cases) and args.only in subject.name
            )
            tallies = run_case(question, case, rounds, measure_one, taking_part)
            lines += lines_of(question, case, tallies)
    except KeyboardInterrupt:
        print(f"{question.name}: stopped; nothing was written", file=sys.stderr)
        return 130
    took, (all_after, ours_after) = time.monotonic() - began, cpu_seconds()
    others = (all_after - all_before) - (ours_after - ours_before)
    head["seconds"] = round(took, 1)
    head["others"] = round(max(0.0, others) / took / (os.cpu_count() or 1), 3)
    print(table(head, lines))
    print(f"{took:.0f} s; other programs had {head['others']:.0%} of the processors\n", flush=True)
    whole = not (args.quick or args.only or args.rounds or args.as_is)
    output = args.output or (RESULTS / f"{question.name}.jsonl" if whole else None)
    if output:
        write_lines(output, [head, *lines])
    broken = [
        line for line in lines if line["role"] == "weir" and "failed" in line.get("problem", "")
    ]
    for line in broken:
        print(f"{question.name}: {line['subject']} {line['problem']}", file=sys.stderr)
    return 1 if broken else 0
