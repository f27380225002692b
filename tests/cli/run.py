"""run.py - runs a script of commands, and compares what they print and how they exit.

    run.py WEIR OBJECTS SCRIPT

What is indented by four spaces counts, the rest is text.  A line that begins with "$ " is a
command, with "> " its continuation; what follows is the output that it has to make, stdout and
stderr together, and [N] the exit status if it is not 0.  A line that ends in " (re)" is a regular
expression.  All commands of a script run in one bash, in an empty folder, with the command `weir`
and an empty folder of stats pages; `objects` starts a program that has some until the script ends,
or `no_objects` (objects.c).  Of a manual page what stands in the literal blocks of its EXAMPLES is
the script.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

MARK = "--- end of a command: "

PRELUDE = """
objects() { coproc OBJECTS { "$WEIR_OBJECTS" "$@"; }; read -r -u "${OBJECTS[0]}" PID; }
no_objects() { exec {OBJECTS[1]}>&-; wait "$OBJECTS_PID" 2>/dev/null; }
eventually() { for _ in {1..200}; do if "$@"; then return 0; fi; sleep 0.05; done; "$@"; }
"""


class Step(NamedTuple):
    line: int
    command: str
    expected: list[str]


def lines_of(script: Path) -> list[str]:
    lines = script.read_text().splitlines()
    if script.suffix != ".1":
        return lines
    literal, examples = False, lines.index(".Sh EXAMPLES")
    for number, line in enumerate(lines):
        if line.startswith((".Bd", ".Ed")):
            literal = line.startswith(".Bd") and number > examples
        shown = literal and not line.startswith(".")
        lines[number] = "    " + line.replace(r"\e", "\\") if shown else "text"
    return lines


def read(script: Path) -> list[Step]:
    steps: list[Step] = []
    for number, line in enumerate(lines_of(script), 1):
        text = line.removeprefix("    ")
        if line and text == line:
            continue
        if text.startswith("$ "):
            steps.append(Step(number, text[2:], []))
        elif text.startswith("> ") and not steps[-1].expected:
            steps[-1] = steps[-1]._replace(command=f"{steps[-1].command}\n{text[2:]}")
        elif steps:
            steps[-1].expected.append(text)
    for step in steps:
        while step.expected and not step.expected[-1]:
            step.expected.pop()  # the blank lines before what comes next
    return steps


def run(weir: Path, objects: Path, steps: list[Step]) -> str:
    lines = [PRELUDE]
    for step in steps:
        lines += [step.command, f'status=$?; echo; echo "{MARK}$status"']
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as pages:
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
        environment |= {
            "PATH": f"{weir.parent}:{os.environ['PATH']}",
            "WEIR_OBJECTS": str(objects),
            "WEIR_STATS_DIR": pages,
            "LC_ALL": "C.UTF-8",
            "COMPLETIONS": str(Path(__file__).resolve().parents[2] / "cli/completion"),
        }
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)],
            cwd=scratch, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", timeout=100,
        )  # fmt: skip
        return done.stdout.replace(pages, "PAGES")


def matches(expected: str, line: str) -> bool:
    if expected.endswith(" (re)"):
        return re.fullmatch(expected[:-5], line) is not None
    return expected == line


def compare(script: Path, step: Step, said: str, status: str) -> bool:
    lines = said.split("\n")
    while lines and not lines[-1]:
        lines.pop()
    lines = [line.rstrip() for line in lines] + ([f"[{status}]"] if status != "0" else [])
    if len(lines) == len(step.expected) and all(map(matches, step.expected, lines)):
        return True
    print(f"{script}:{step.line}: $ {step.command}\n  expected:")
    print(*(f"    {line}" for line in step.expected), sep="\n")
    print("  got:")
    print(*(f"    {line}" for line in lines), sep="\n")
    return False


def main() -> int:
    weir, objects, script = (Path(argument).resolve() for argument in sys.argv[1:])
    steps = read(script)
    parts = re.split(rf"\n?{MARK}(\d+)\n", run(weir, objects, steps))
    results = [
        compare(script, step, said, status)
        for step, said, status in zip(steps, parts[0::2], parts[1::2], strict=False)
    ]
    if len(results) != len(steps) or not steps:
        print(f"{script}: {len(results)} of {len(steps)} commands came to an end")
        return 1
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
