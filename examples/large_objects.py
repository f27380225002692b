#!/usr/bin/env python3
"""large_objects.py - arrays of 64 KiB to 100 MiB to a worker and back (scenario S5).

The standard executor pickles an array, pushes the pickle through a pipe, and unpickles it, both
ways.  weir copies the array once into shared memory, where the worker finds it, and a result comes
back the same way.  One that is born there, in weir.shared_array, is not copied at
all.  Needs NumPy.
"""

from __future__ import annotations

import concurrent.futures
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import show
import weir

try:
    import numpy as np
except ImportError:
    sys.exit("large_objects.py: this example needs NumPy: pip install numpy")

KIB, MIB = 1 << 10, 1 << 20
Array = np.ndarray[Any, Any]


def scale(array: Array) -> Array:
    """A new array."""
    return np.asarray(array * 2)


def scale_in_place(array: Array) -> Array:
    """The same array, written."""
    array *= 2
    return array


def take_part(n: int) -> None:
    """Starts a worker."""


def measure(
    pool: Executor, function: Callable[[Array], Array], array: Array, expected: Array
) -> tuple[float, bool]:
    """Seconds to the worker and back, and whether the result is right."""
    began = time.perf_counter()
    result = pool.submit(function, array).result()
    seconds = time.perf_counter() - began
    return seconds, bool(np.array_equal(result, expected))


def milliseconds(rounds: list[float]) -> str:
    return f"{statistics.median(rounds) * 1000:.2f}"


def compare(
    standard: Executor, pool: weir.ProcessPoolExecutor, size: int, args: Namespace
) -> tuple[tuple[str, ...], int]:
    """A row of the table, and how many results were right."""
    array = np.random.default_rng(size).random(size // 8)
    before, doubled = array.copy(), array * 2
    shared = weir.shared_array(array.shape)
    seconds: dict[str, list[float]] = {}
    right = 0
    for _ in range(args.rounds):  # in turns, so that what else the machine does hits all alike
        shared[:] = array
        for name, executor, function, argument in (
            ("standard", standard, scale, array),
            ("weir", pool, scale, array),
            ("in place", pool, scale_in_place, array),
            ("shared", pool, scale_in_place, shared),
        ):
            one, is_right = measure(executor, function, argument, doubled)
            seconds.setdefault(name, []).append(one)
            right += is_right
        # What a worker writes to its copy stays there; what it writes to shared memory is here.
        right += np.array_equal(array, before) and np.array_equal(shared, doubled)
    ratio = statistics.median(seconds["standard"]) / statistics.median(seconds["weir"])
    name = f"{size // KIB} KiB" if size < MIB else f"{size // MIB} MiB"
    times = [milliseconds(seconds[key]) for key in ("standard", "weir", "in place", "shared")]
    return (name, *times, f"{ratio:.1f}"), right


def main() -> int:
    args = show.options(__doc__, largest=100, rounds=5)
    sizes = [size for size in (64 * KIB, MIB, 10 * MIB, 100 * MIB) if size <= args.largest * MIB]
    rows, right = [], 0
    with (
        concurrent.futures.ProcessPoolExecutor(1) as standard,
        weir.ProcessPoolExecutor(1) as pool,
    ):
        for executor in (standard, pool):
            executor.submit(take_part, 0).result()
        for size in sizes:
            row, right_here = compare(standard, pool, size, args)
            rows.append(row)
            right += right_here
        held = pool.stats().shm_bytes
    headers = (
        "array",
        "standard, ms",
        "weir, ms",
        "weir in place, ms",
        "shared_array, ms",
        "standard / weir",
    )
    print(show.table(headers, rows))
    print(f"shared memory at the end: {held / MIB:.1f} MiB")
    # Four round trips and one look at the originals in each round.
    return show.check_law("checks", 5 * args.rounds * len(sizes), {"right": right})


if __name__ == "__main__":
    sys.exit(main())
