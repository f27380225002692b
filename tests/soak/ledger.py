"""What the soak has seen, object by object, and what the process has taken from the system.

A row's numbers are the soak's own, counted by those who put and got, beside what the object says of
itself.  The law: accepted == delivered + dropped (by reason) + inside + lost with a killed process.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

BROKEN_MOST = 20  # of a row, that are kept
NAMED = f"soak-{os.getpid()}-"  # begins what has a name in the memory file system


@dataclass
class Row:
    """All rounds of one kind of object together."""

    rounds: int = 0
    accepted: int = 0
    delivered: int = 0
    inside: int = 0
    lost: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


class Ledger:
    """Rows by the name of the object; of any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}

    def add(
        self,
        name: str,
        *,
        accepted: int,
        delivered: int,
        dropped: Mapping[str, int] | None = None,
        inside: int = 0,
        lost: int = 0,
    ) -> None:
        """Enters a round, which has ended; one that breaks the law is said to."""
        drops = Counter({why: n for why, n in (dropped or {}).items() if n})
        with self._lock:
            row = self._rows.setdefault(name, Row())
            row.rounds += 1
            row.accepted += accepted
            row.delivered += delivered
            row.inside += inside
            row.lost += lost
            row.dropped += drops
        out = delivered + sum(drops.values()) + inside + lost
        if accepted != out:
            self.break_law(
                name,
                f"accepted {accepted} != delivered {delivered} + dropped {dict(drops)}"
                f" + inside {inside} + lost {lost}",
            )

    def break_law(self, name: str, why: str) -> None:
        with self._lock:
            broken = self._rows.setdefault(name, Row()).broken
            if len(broken) < BROKEN_MOST:
                broken.append(why)

    def check(self, name: str, holds: bool, why: str) -> None:
        if not holds:
            self.break_law(name, why)

    @property
    def broken(self) -> list[str]:
        with self._lock:
            return [f"{name}: {why}" for name, row in self._rows.items() for why in row.broken]

    def text(self) -> str:
        head = ("object", "rounds", "accepted", "delivered", "dropped", "inside", "lost", "holds")
        with self._lock:
            lines = [
                (
                    name,
                    f"{row.rounds}",
                    f"{row.accepted}",
                    f"{row.delivered}",
                    " ".join(f"{why}:{n}" for why, n in sorted(row.dropped.items())) or "-",
                    f"{row.inside}",
                    f"{row.lost}",
                    "NO" if row.broken else "yes",
                )
                for name, row in sorted(self._rows.items())
            ]
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i in (0, 4) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in (head, *lines)
        )


@dataclass(frozen=True)
class Usage:
    """What the process has at a moment at which nothing runs in it."""

    rss_kib: int
    descriptors: int
    mappings: int
    threads: int
    shm_files: int  # in the memory file system, named after this process

    @classmethod
    def now(cls) -> Usage:
        for _ in range(3):  # what one pass finalises may set more free
            gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what threads that are gone have left in their arenas
        with open("/proc/self/statm") as statm, open("/proc/self/maps") as maps:
            resident = int(statm.read().split()[1])
            mappings = sum(1 for _ in maps)
        return cls(
            rss_kib=resident * os.sysconf("SC_PAGE_SIZE") // 1024,
            descriptors=len(os.listdir("/proc/self/fd")),
            mappings=mappings,
            threads=len(os.listdir("/proc/self/task")),
            shm_files=sum(NAMED in name for name in os.listdir("/dev/shm")),
        )

    def growth(self, begin: Usage) -> list[str]:
        """What has grown by more than the noise of an allocator and a cache."""
        allowed = {
            "rss_kib": begin.rss_kib // 5 + 64 * 1024,  # arenas of threads
            "descriptors": 3,
            "mappings": begin.mappings // 5 + 30,
            "threads": 1,
            "shm_files": 0,
        }
        return [
            f"{name} grew from {getattr(begin, name)} to {getattr(self, name)}"
            for name, most in allowed.items()
            if getattr(self, name) - getattr(begin, name) > most
        ]

    def __str__(self) -> str:
        return (
            f"RSS {self.rss_kib / 1024:.1f} MiB, {self.descriptors} descriptors, "
            f"{self.mappings} mappings, {self.threads} threads, {self.shm_files} shared files"
        )
