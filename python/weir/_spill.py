"""Spill: where a queue puts what does not fit into memory; and what it says in the log."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from weir._guard import check

__all__ = ["Spill"]

_LEAST = 4096
_LEAST_SEGMENT = 512
_MOST = 2**63 - 1

_log = logging.getLogger("weir")


def _dumps(item: object) -> bytes:
    return pickle.dumps(item, pickle.HIGHEST_PROTOCOL)


def _is_size(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


@dataclass(frozen=True)
class Spill:
    """Where a `weir.Queue` with `overflow="spill"` puts what does not fit into memory.

        disk = weir.Spill("/var/tmp/jobs", max_bytes=1 << 30)
        queue = weir.Queue(1000, overflow="spill", spill=disk)

    Items leave in the order they came.  Nobody waits for an item while one is on disk, and put()
    waits (as with "block") only while the disk's bound is reached, or the disk is full.  A
    directory is for one queue at a time, of all processes.

    path           a directory; made (for its owner alone) if it is not there, its parent has to be
    max_bytes      of all files together, >= 4096
    durable        False: the files are gone when the queue is.  True: every item is on the disk
                   (fdatasync; threads share one) before put() returns, and a later queue over the
                   same directory, also after a kill or a power failure, first gives what nobody
                   got.  At least once: the last 64 items that were got may come again.  See
                   `Queue.get_ack`.  aput() makes its event loop wait for the disk
    segment_bytes  of one file; None: 16 MiB, or an eighth of max_bytes where that is less.  A file
                   goes when all its items are acknowledged
    dumps, loads   item -> bytes, bytes -> item; pickle by default.  What dumps raises, put()
                   raises, and the item stays with the caller.  An item that loads refuses is lost,
                   and counted; the exception goes to sys.unraisablehook.  Unpickling runs what the
                   files say: whoever can write into the directory can run code here

    What goes wrong on the disk is said once each time, by the logger "weir".
    """

    path: str | os.PathLike[str]
    max_bytes: int
    durable: bool = False
    segment_bytes: int | None = None
    dumps: Callable[[Any], Any] = _dumps
    loads: Callable[[bytes], Any] = pickle.loads

    def __post_init__(self) -> None:
        path = os.fspath(self.path)
        check(isinstance(path, str) and path != "", "path", "the name of a directory", self.path)
        check("\0" not in path, "path", "without null characters", self.path)
        check(
            _is_size(self.max_bytes, _LEAST, _MOST),
            "max_bytes",
            f"an int from {_LEAST} to 2**63 - 1",
            self.max_bytes,
        )
        check(
            self.segment_bytes is None
            or _is_size(self.segment_bytes, _LEAST_SEGMENT, self.max_bytes),
            "segment_bytes",
            f"None, or an int from {_LEAST_SEGMENT} to max_bytes",
            self.segment_bytes,
        )
        check(isinstance(self.durable, bool), "durable", "a bool", self.durable)
        check(callable(self.dumps), "dumps", "callable", self.dumps)
        check(callable(self.loads), "loads", "callable", self.loads)


def tell(event: int, path: str) -> None:
    """Logs what the disk has done; called by the queue."""
    if event == 0:
        _log.warning("spill %r: the disk is full; put() waits until there is room", path)
    elif event == 1:
        _log.info("spill %r: the disk takes items again", path)
    elif event == 2:
        _log.error("spill %r: the disk failed; the item that was put is not on it", path)
    else:
        _log.error(
            "spill %r: a file is damaged; what could not be read was skipped, and "
            "stats().dropped['lost'] counts it",
            path,
        )
