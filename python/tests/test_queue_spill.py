"""weir.Queue(overflow="spill"): order, waiting, loss and restarts, through Python's face."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import pickle
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import InThread, wait_until

import weir


def spilling(path: Path, maxsize: int = 10, **options: Any) -> weir.Queue[Any]:
    settings = {
        name: options.pop(name)
        for name in ("durable", "segment_bytes", "dumps", "loads")
        if name in options
    }
    spill = weir.Spill(path / "disk", options.pop("disk", 1 << 20), **settings)
    return weir.Queue(maxsize, overflow="spill", spill=spill, **options)


def check_law(q: weir.Queue[Any]) -> weir.QueueStats:
    s = q.stats()
    assert s.accepted == s.delivered + sum(s.dropped.values()) + s.qsize
    assert s.accepted_bytes == s.delivered_bytes + sum(s.dropped_bytes.values()) + s.bytes
    return s


def files(path: Path, ending: str = ".*") -> list[Path]:
    return sorted((path / "disk").glob("*" + ending))


# ---- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_bytes": 4095}, "'max_bytes' must be an int from 4096"),
        ({"max_bytes": True}, "'max_bytes' must be"),
        ({"max_bytes": 1e9}, "'max_bytes' must be"),
        ({"path": ""}, "'path' must be the name of a directory"),
        ({"path": "a\0b"}, "'path' must be without null"),
        ({"segment_bytes": 511}, "'segment_bytes' must be None, or an int from 512"),
        ({"segment_bytes": 5000}, "'segment_bytes' must be"),
        ({"durable": 1}, "'durable' must be a bool"),
        ({"dumps": None}, "'dumps' must be callable"),
        ({"loads": 3}, "'loads' must be callable"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        weir.Spill(**{"path": "somewhere", "max_bytes": 4096, **options})


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    spill = weir.Spill(tmp_path / "disk", 4096)
    with pytest.raises(ValueError, match=r"needs spill=weir\.Spill"):
        weir.Queue(1, overflow="spill")
    with pytest.raises(ValueError, match='goes with overflow="spill"'):
        weir.Queue(1, spill=spill)
    with pytest.raises(ValueError, match="does not go with"):
        weir.Queue(1, overflow="spill", spill=spill, memory=weir.MemoryGovernor("80%"))
    with pytest.raises(TypeError, match=r"must be a weir\.Spill"):
        weir.Queue(1, overflow="spill", spill="disk")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='or "spill", not'):
        weir.Queue(1, overflow="spil")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="overflow must be"):
        weir.SharedQueue(1, overflow="spill")  # type: ignore[arg-type]


def test_a_directory_that_cannot_be_had_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="its parent has to be there"):
        weir.Queue(1, overflow="spill", spill=weir.Spill(tmp_path / "no" / "disk", 4096))
    q = spilling(tmp_path)
    with pytest.raises(OSError, match="another queue, of this process or another one, has"):
        spilling(tmp_path)
    del q
    gc.collect()
    durable = spilling(tmp_path, durable=True)
    durable.put(1)
    del durable
    with pytest.raises(ValueError, match="say durable=True"):
        spilling(tmp_path)


# ---- order, law, bounds -------------------------------------------------------------------------


def test_what_does_not_fit_comes_back_in_order(tmp_path: Path) -> None:
    q = spilling(tmp_path)
    for n in range(1000):
        q.put({"n": n}, timeout=0)
    s = check_law(q)
    assert (s.qsize, s.spilled, s.spills) == (1000, 990, 990)
    assert s.disk_bytes > 0
    assert q.qsize() == 1000
    assert repr(q).endswith("10 of 10 items, 990 on disk>")
    for n in range(1000):
        assert q.get_nowait() == {"n": n}
        assert check_law(q).peak_qsize == 10
    with pytest.raises(queue.Empty):
        q.get_nowait()


def test_the_law_holds_in_bytes(tmp_path: Path) -> None:
    q = spilling(tmp_path, maxsize=1000, max_bytes=1000)
    items = [b"x" * random.randrange(300) for _ in range(300)]
    assert q.put_many(items) == 300
    assert check_law(q).spilled_bytes > 0
    out: list[bytes] = []
    while len(out) < 300:
        out += q.get_many(7)
        s = check_law(q)
        assert s.bytes - s.spilled_bytes <= 1000
    assert out == items


def test_threads_get_every_item_once(tmp_path: Path) -> None:
    q = spilling(tmp_path, maxsize=20, disk=200_000, segment_bytes=4096)
    got: list[list[tuple[int, int]]] = [[] for _ in range(4)]

    def put(me: int) -> None:
        for n in range(2000):
            q.put((me, n))

    def take(into: list[tuple[int, int]]) -> None:
        into.extend(q)

    getters = [InThread(take, into) for into in got]
    putters = [InThread(put, me) for me in range(4)]
    for thread in putters:
        thread.result()
    q.shutdown()
    for thread in getters:
        thread.result()
    assert sorted(item for items in got for item in items) == [
        (me, n) for me in range(4) for n in range(2000)
    ]
    for items in got:
        for me in range(4):
            assert [n for who, n in items if who == me] == sorted(n for w, n in items if w == me)
    assert check_law(q).qsize == 0


def test_other_codecs_write_what_they_say(tmp_path: Path) -> None:
    q = spilling(tmp_path, maxsize=1, dumps=str.encode, loads=bytes.decode)
    q.put_many(["first", "second", "third line"])
    assert b"third line" in files(tmp_path, ".tmp")[0].read_bytes()
    assert [q.get() for _ in range(3)] == ["first", "second", "third line"]


def test_the_files_are_gone_when_the_queue_is(tmp_path: Path) -> None:
    q = spilling(tmp_path)
    q.put_many(range(100))
    assert files(tmp_path, ".tmp")
    del q
    gc.collect()
    assert not files(tmp_path)


def test_a_queue_that_is_collected_does_not_read_its_disk(tmp_path: Path) -> None:
    loaded = []
    q = spilling(tmp_path, maxsize=1, loads=lambda data: loaded.append(data))
    q.put_many(range(100))
    del q
    gc.collect()
    assert not loaded
    assert not files(tmp_path)


def test_join_waits_for_what_is_on_disk(tmp_path: Path) -> None:
    q = spilling(tmp_path, maxsize=2)
    q.put_many(range(20))
    assert q.unfinished_tasks == 20
    waits = InThread(q.join)
    for _ in range(20):
        q.get()
        q.task_done()
    waits.result()


def test_discarded_items_go_to_on_drop_from_disk_too(tmp_path: Path) -> None:
    drops: list[Any] = []
    q = spilling(tmp_path, maxsize=2, on_drop=lambda item, why: drops.append((item, why)))
    q.put_many(range(50))
    assert q.discard() == 50
    assert drops == [(n, "discarded") for n in range(50)]
    assert q.unfinished_tasks == 0
    check_law(q)


def test_shutdown_lets_the_disk_be_emptied_first(tmp_path: Path) -> None:
    q = spilling(tmp_path, maxsize=2)
    q.put_many(range(50))
    q.shutdown()
    with pytest.raises(weir.ShutDown):
        q.put(1)
    assert list(q) == list(range(50))


# ---- what goes wrong ----------------------------------------------------------------------------


def test_what_cannot_be_pickled_stays_with_the_caller(tmp_path: Path) -> None:
    q = spilling(tmp_path, maxsize=1)
    q.put(0)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        q.put(lambda: None)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        q.put_many([1, 2, lambda: None, 3])
    assert check_law(q).accepted == 3
    assert q.unfinished_tasks == 3
    assert [q.get() for _ in range(3)] == [0, 1, 2]


def test_dumps_that_returns_no_bytes_is_an_error(tmp_path: Path) -> None:
    q = spilling(tmp_path, maxsize=1, dumps=lambda item: item)
    q.put(1)
    with pytest.raises(TypeError, match="must return bytes, not int"):
        q.put(2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_loads_refuses_is_lost_and_counted(tmp_path: Path) -> None:
    def loads(data: bytes) -> Any:
        item = pickle.loads(data)
        if item == 3:
            raise ValueError("not three")
        return item

    q = spilling(tmp_path, maxsize=1, loads=loads)
    seen: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda args: seen.append(args.exc_value)
    try:
        q.put_many(range(6))
        q.shutdown()
        assert list(q) == [0, 1, 2, 4, 5]
    finally:
        sys.unraisablehook = hook
    assert [str(error) for error in seen] == ["not three"]
    assert check_law(q).dropped["lost"] == 1
    assert q.unfinished_tasks == 5


def test_damage_is_logged_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    q = spilling(tmp_path, maxsize=1)
    q.put_many(bytes(50) for _ in range(40))
    file = files(tmp_path, ".tmp")[0]
    data = bytearray(file.read_bytes())
    for at in (500, 1000):
        data[at] ^= 0xFF
    file.write_bytes(data)
    q.shutdown()
    with caplog.at_level(logging.INFO, "weir"):
        assert len(list(q)) == 38
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert "is damaged" in caplog.text and str(tmp_path / "disk") in caplog.text
    s = check_law(q)
    assert (s.dropped["lost"], s.damaged_files) == (2, 1)
    assert q.unfinished_tasks == 38


def fill_small_disk(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    spill = weir.Spill(place / "disk", 1 << 20, segment_bytes=8192)
    q: weir.Queue[bytes] = weir.Queue(5, overflow="spill", spill=spill)
    n = 0
    with caplog.at_level(logging.INFO, "weir"):
        with contextlib.suppress(queue.Full):
            while True:
                q.put(n.to_bytes(4, "big") + bytes(500), timeout=0)
                n += 1
        assert 50 < n < 150
        assert check_law(q).disk_full
        with pytest.raises(queue.Full):
            q.put(b"", timeout=0.01)
        waits = InThread(q.put, b"last")
        wait_until(lambda: q.stats().putters_waiting == 1)
        for i in range(n):
            assert q.get()[:4] == i.to_bytes(4, "big")
        waits.result()
        assert q.get() == b"last"
    levels = [record.levelname for record in caplog.records]
    assert levels in (["WARNING"], ["WARNING", "INFO"])


def test_a_full_disk_is_waited_for_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root to mount a small disk")
    try:
        fill_small_disk(place, caplog)
    finally:
        gc.collect()
        subprocess.run(["umount", str(place)], check=True)


def test_the_bound_of_the_disk_is_waited_for(tmp_path: Path) -> None:
    q = spilling(tmp_path, maxsize=2, disk=4096)
    n = 0
    with contextlib.suppress(queue.Full):
        while True:
            q.put(n, block=False)
            n += 1
    waits = InThread(q.put, n)
    wait_until(lambda: q.stats().putters_waiting == 1)
    assert [q.get() for _ in range(n + 1)] == list(range(n + 1))
    waits.result()
    check_law(q)


# ---- event loops --------------------------------------------------------------------------------


def test_coroutines_spill_and_get_back(tmp_path: Path) -> None:
    async def main() -> None:
        q = spilling(tmp_path, maxsize=3, disk=8192)
        got = []

        async def take() -> None:
            async for item in q:
                got.append(item)
                await asyncio.sleep(0)

        taker = asyncio.ensure_future(take())
        for n in range(2000):
            await q.aput(n)
        q.shutdown()
        await taker
        assert got == list(range(2000))
        check_law(q)
        with pytest.raises(weir.ShutDown):
            await q.aget()

    asyncio.run(main())


def test_a_coroutine_that_waits_for_the_disk_can_be_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        q = spilling(tmp_path, maxsize=2, disk=4096)
        n = 0
        with contextlib.suppress(queue.Full):
            while True:
                await q.aput(n, timeout=0)
                n += 1
        with pytest.raises(queue.Full):
            await q.aput(-1, timeout=0.01)
        task = asyncio.ensure_future(q.aput(-1))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        waits = asyncio.ensure_future(q.aput(n))
        assert [await q.aget() for _ in range(n + 1)] == list(range(n + 1))
        await waits
        assert q.unfinished_tasks == n + 1
        check_law(q)

    asyncio.run(main())


def test_dumps_of_a_coroutine_raises_in_it(tmp_path: Path) -> None:
    async def main() -> None:
        q = spilling(tmp_path, maxsize=1)
        await q.aput(1)
        with pytest.raises((pickle.PicklingError, AttributeError)):
            await q.aput(lambda: None)
        assert await q.aget_many(5) == [1]
        assert q.unfinished_tasks == 1

    asyncio.run(main())


def test_an_item_whose_way_back_is_interrupted_is_tried_again(tmp_path: Path) -> None:
    interruptions = [KeyboardInterrupt()]

    def loads(data: bytes) -> Any:
        if interruptions:
            raise interruptions.pop()
        return pickle.loads(data)

    disk = weir.Spill(tmp_path / "disk", max_bytes=1 << 20, loads=loads)
    q: weir.Queue[int] = weir.Queue(2, overflow="spill", spill=disk)
    assert q.put_many(range(10)) == 10
    q.shutdown()
    got: list[int] = []

    def get_all() -> None:
        for _ in range(10):
            item = q.get()
            got.append(item)

    with pytest.raises(KeyboardInterrupt):
        get_all()
    got += [item for item in q if item not in got]
    stats = q.stats()
    assert (stats.dropped["lost"], stats.delivered) == (0, 10)
    assert len(got) >= 9  # the interruption may come between a get() and the next line


# ---- durable ------------------------------------------------------------------------------------


def test_a_durable_queue_goes_on_after_a_restart(tmp_path: Path) -> None:
    q = spilling(tmp_path, maxsize=5, durable=True)
    q.put_many(range(50))
    assert [q.get() for _ in range(10)] == list(range(10))
    del q
    gc.collect()
    q = spilling(tmp_path, maxsize=5, durable=True)
    s = check_law(q)
    assert (s.recovered, s.qsize) == (40, 40)
    assert q.unfinished_tasks == 40
    q.shutdown()
    assert list(q) == list(range(10, 50))
    del q
    gc.collect()
    assert not files(tmp_path)


def test_get_ack_keeps_the_item_until_it_is_acknowledged(tmp_path: Path) -> None:
    q = spilling(tmp_path, maxsize=5, durable=True)
    q.put_many(range(20))
    acks = [q.get_ack(timeout=5) for _ in range(20)]
    assert [item for item, _ in acks] == list(range(20))
    for item, ack in reversed(acks):
        if item % 2:
            ack()
            ack()
    with pytest.raises(queue.Empty):
        q.get_ack(block=False)
    del q, acks, ack
    gc.collect()
    q = spilling(tmp_path, maxsize=5, durable=True)
    q.shutdown()
    assert list(q) == list(range(0, 20, 2))
    with pytest.raises(weir.ShutDown):
        q.get_ack()


def test_get_ack_works_on_every_queue(tmp_path: Path) -> None:
    plain: weir.Queue[int] = weir.Queue(3)
    for q in (plain, spilling(tmp_path)):
        q.put(7)
        item, ack = q.get_ack()
        assert item == 7
        ack()


def test_a_durable_queue_that_is_collected_drops_nothing(tmp_path: Path) -> None:
    drops: list[Any] = []
    q = spilling(tmp_path, durable=True, on_drop=lambda item, why: drops.append(item))
    q.put_many(range(20))
    del q
    gc.collect()
    assert drops == []
    q = spilling(tmp_path, durable=True)
    assert q.qsize() == 20
    assert q.discard() == 20
    del q
    gc.collect()
    assert spilling(tmp_path, durable=True).qsize() == 0


KILLED = r"""
import os, sys, threading, weir
queue = weir.Queue(8, overflow="spill", spill=weir.Spill(sys.argv[1], 1 << 26, durable=True))
first = int(sys.argv[2])
def put():
    for n in range(first, first + 1_000_000):
        queue.put(n)
        os.write(1, b"put %d\n" % n)
threading.Thread(target=put, daemon=True).start()
while True:
    item, ack = queue.get_ack()
    os.write(1, b"got %d\n" % item)
    ack()
"""


def test_every_put_that_returned_is_delivered_after_any_kill(tmp_path: Path) -> None:
    chance = random.Random(5)
    disk, done, got, first = tmp_path / "disk", set[int](), set[int](), 0
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(disk), str(first)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        killer = threading.Timer(chance.random() * 0.1, os.kill, (child.pid, signal.SIGKILL))
        for line in child.stdout:
            if not killer.ident:
                killer.start()  # it is at it
            if line.endswith("\n"):
                what, number = line.split()
                (done if what == "put" else got).add(int(number))
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
        killer.join()
        first = max(done | got, default=-1) + 2  # one more may have been put, and not told
    q = spilling(tmp_path, durable=True, disk=1 << 26)
    q.shutdown()
    got |= set(q)
    assert check_law(q).dropped["lost"] == 0
    assert len(done) > 10
    assert done <= got


def test_a_queue_with_a_sleeping_getter_wakes_for_recovered_items(tmp_path: Path) -> None:
    q = spilling(tmp_path, durable=True)
    q.put(1)
    del q
    gc.collect()
    q = spilling(tmp_path, durable=True)
    waits = InThread(q.get)
    assert waits.result() == 1
    began = time.monotonic()
    with pytest.raises(queue.Empty):
        q.get(timeout=0.01)
    assert time.monotonic() - began < 5
