"""tasks.py - what the benchmarks let workers do; importable, so that pools pickle it by name."""

from __future__ import annotations

import time
from typing import TypeVar

T = TypeVar("T")


def nothing() -> None:
    """A task that is all overhead."""


def same(item: T) -> T:
    return item


def spin(seconds: float) -> None:
    """Uses so much CPU time; when somebody else has the processor, it takes longer."""
    end = time.thread_time_ns() + int(seconds * 1e9)
    while time.thread_time_ns() < end:
        pass


def sleep(seconds: float) -> float:
    """Sleeps, and says for how long it really did."""
    began = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - began


def size_slowly(data: bytes) -> int:
    """2 ms of waiting for each payload."""
    time.sleep(0.002)
    return len(data)
