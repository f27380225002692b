"""A reader of the stats pages that knows nothing but weir_stats(7): for tests, and to show that the
page says enough."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KINDS = {
    1: "queue",
    2: "shared_queue",
    3: "thread_pool",
    4: "process_pool",
    5: "stage",
    6: "limit",
    7: "rate",
    8: "breaker",
    9: "governor",
    10: "watermark",
    11: "worker",
}
NUMBERS = {
    "accepted": 0,
    "peak_depth": 2,
    "delivered": 16,
    "done": 18,
    "capacity": 32,
    "spilled": 37,
    "in_flight": 39,
    "put_waiting": 41,
    "get_waiting": 42,
    "put_blocked_ns": 45,
    "refused": 47,
    "dropped_newest": 48,
    "dropped_oldest": 49,
    "dropped_sampled": 50,
    "dropped_expired": 51,
    "dropped_discarded": 52,
    "dropped_lost": 53,
    "closed": 64,
    "workers": 67,
    "restarts": 68,
    "cancelled": 76,
    "put_waits": 78,
    "get_waits": 79,
    "pid": 81,
    "owner": 82,
    "place": 83,
    "feeds": 84,
    "pressure_ns": 85,
    "busy_ns": 87,
}


@dataclass(frozen=True)
class Record:
    pid: int
    parent: int
    kind: str
    name: str
    id: int
    number: dict[str, int]
    n_waited: int
    n_served: int

    @property
    def dropped(self) -> int:
        return sum(n for name, n in self.number.items() if name.startswith("dropped"))

    @property
    def depth(self) -> int:
        """By the law: it is not in the page."""
        n = self.number
        return n["accepted"] - n["delivered"] - self.dropped - n["spilled"] - n["cancelled"]


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode()


def _record(raw: bytes, i: int, pid: int, parent: int) -> Record | None:
    generation, _version, kind = struct.unpack_from("=3Q", raw)
    if generation % 2 == 0:
        return None
    numbers = struct.unpack_from("=96Q", raw, 128)
    return Record(
        pid=pid,
        parent=parent,
        kind=KINDS[kind],
        name=_text(raw[64:128]),
        id=generation * 1024 + i,
        number={name: numbers[at] for name, at in NUMBERS.items()},
        n_waited=sum(struct.unpack_from("=1152Q", raw, 896 + 128)),
        n_served=sum(struct.unpack_from("=1152Q", raw, 10240 + 128)),
    )


def read(folder: Path) -> Iterator[Record]:
    """The records of all processes; those of dead ones, too."""
    for path in folder.iterdir():
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            head = os.pread(fd, 4096, 0)
            assert head[:8] == b"weirpage"
            version, order, head_size, size, numbers, buckets, count = struct.unpack_from(
                "=7I", head, 8
            )
            assert (version, order, head_size) == (1, 0x01020304, 4096)
            assert (size, numbers, buckets) == (19584, 96, 1152)
            pid, parent = struct.unpack_from("=2q", head, 40)
            for i in range(count):
                record = _record(os.pread(fd, size, 4096 + i * size), i, pid, parent)
                if record is not None:
                    yield record
        finally:
            os.close(fd)


def find(folder: Path, name: str, pid: int | None = None) -> Record | None:
    for record in read(folder):
        if record.name == name and pid in (None, record.pid):
            return record
    return None
