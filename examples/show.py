"""show.py - what the examples share: options, a table, the conservation law, memory, a source."""

from __future__ import annotations

import glob
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

MIB = 1 << 20


class Source:
    """An endless source that knows how far it was read ahead of the results."""

    def __init__(self) -> None:
        self.taken = self.used = self.furthest = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.taken += 1
        self.furthest = max(self.furthest, self.taken - self.used)
        return self.taken


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lines up columns: the first to the left, the others to the right."""
    cells = [list(headers), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        rest = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([f"{row[0]:<{widths[0]}}", *rest]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def law(name: str, total: int, parts: Mapping[str, int]) -> tuple[bool, str]:
    """Whether the conservation law holds, total = sum of the parts, and a line that says so."""
    lost = total - sum(parts.values())
    terms = " + ".join(f"{number:,} {part}" for part, number in parts.items()) or "0"
    verdict = f"BROKEN by {lost:+,}" if lost else "holds"
    return not lost, f"law: {total:,} {name} = {terms}: {verdict}"


def check_law(name: str, total: int, parts: Mapping[str, int]) -> int:
    """Prints the law; returns the exit status of a program that has to keep it."""
    holds, line = law(name, total, parts)
    print(line)
    return 0 if holds else 1


def options(doc: str | None, **defaults: float) -> Namespace:
    """The options of a scenario: its numbers, and --speed to see it end sooner."""
    parser = ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=positive(type(default)),
            default=default,
            metavar="N",
            help=f"default {default}",
        )
    parser.add_argument(
        "--speed",
        type=positive(float),
        default=1.0,
        metavar="N",
        help="divide every duration by N (default 1)",
    )
    return parser.parse_args()


def positive(kind: type) -> Callable[[str], Any]:
    """A type for argparse."""

    def parse(text: str) -> Any:
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not 0 < number < float("inf"):
            noun = "a whole number" if kind is int else "a number"
            raise ArgumentTypeError(f"{text!r} is not {noun} above 0")
        return number

    return parse


def mib(nbytes: float) -> str:
    return f"{nbytes / MIB:,.1f} MiB"


def parse_size(text: str) -> int:
    """4096, 64K, 4M, 1.5GiB -> bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not a size such as 65536, 64K, 4M or 1.5G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def rss(pid: int | str = "self", *, peak: bool = False) -> int:
    """Bytes of memory that a process has in use now, or had at its peak; 0 once it has ended."""
    field = "VmHWM:" if peak else "VmRSS:"
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def descendants(pid: int | str = "self") -> list[int]:
    """The processes that a process started, and those that they started."""
    found: list[int] = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path, encoding="ascii") as children:
                found += map(int, children.read().split())
        except OSError:
            continue
    return found + [grandchild for child in found for grandchild in descendants(child)]
