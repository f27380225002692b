"""Large payloads of ProcessPoolExecutor: what arrives, who may write it, and what becomes of it."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_python, wait_until

import weir
from weir import ProcessPoolExecutor, SharedBuffer, WorkerDied, _transfer, _weir, shared_array

METHODS = ["fork", "forkserver", "spawn"]
MIB = 1 << 20
Array = np.ndarray[Any, Any]

# ---- what the workers run -----------------------------------------------------------------------


def identity(x: Any) -> Any:
    return x


def describe(x: Any) -> tuple[str, bool, bytes]:
    """Type, writable, content."""
    if isinstance(x, np.ndarray):
        return "ndarray", bool(x.flags.writeable), x.tobytes()
    view = memoryview(x)
    return type(x).__name__, not view.readonly, bytes(view)


def is_writable(x: Array) -> bool:
    return bool(x.flags.writeable)


def increment(x: Array) -> Array:
    x += 1
    return x


def plus_one(x: Array) -> Array:
    return np.asarray(x + 1)


def total(x: Array) -> float:
    return float(x.sum())


def fill(shape: Any, value: float) -> Array:
    return np.full(shape, value)


def fill_bytes(size: int, value: int) -> bytes:
    return bytes([value]) * size


def half(x: Array) -> Array:
    return x[: len(x) // 2]


def both_ends(x: Array) -> dict[str, Any]:
    return {"first": x[:10], "all": x, "last": x[-10:], "note": "views of one array"}


def spoil_and_die_at_first(x: Array, marker: Path) -> float:
    before = float(x.sum())
    x[:] = -1
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return before


_kept: list[tuple[Array, float]] = []


def keep(x: Array) -> int:
    _kept.append((x, float(x.sum())))
    return len(_kept)


def keep_and_return(x: Array) -> Array:
    _kept.append((x, float(x.sum())))
    return x


def count_intact() -> int:
    return sum(float(x.sum()) == expected for x, expected in _kept)


def change_kept(value: float) -> None:
    for x, _expected in _kept:
        x[:] = value


def drop_kept() -> int:
    _kept.clear()
    return len(_kept)


def kill_worker() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def new_shared(n: int, value: float) -> Array:
    array = shared_array(n)
    array[:] = value
    return array


def new_shared_buffer(data: bytes) -> SharedBuffer:
    shared = SharedBuffer(len(data))
    memoryview(shared)[:] = data
    return shared


_shared: list[Any] = []


def remember_shared(x: Any) -> None:
    _shared.append(x)


def is_the_one_remembered(x: Any) -> bool:
    return x is _shared[-1]


def get_pid() -> int:
    return os.getpid()


def shared_bytes_of(x: Array) -> Array:
    return x[10:20]


def raise_with(x: Array) -> None:
    raise ValueError("with an array in the traceback")


def nothing() -> None:
    pass


@pytest.fixture
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1) as executor:
        yield executor


@pytest.fixture(params=[0, 1], ids=["", "retries"])
def either_pool(request: pytest.FixtureRequest) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, retries=request.param) as executor:
        yield executor


def run(pool: ProcessPoolExecutor, fn: Any, *args: Any, **kwargs: Any) -> Any:
    return pool.submit(fn, *args, **kwargs).result(60)


def samples() -> dict[str, Any]:
    """Objects with large buffers, and near the limits of what travels where."""
    rng = np.random.default_rng(1)
    grid = rng.random((300, 500))
    readonly = rng.random(20_000)
    readonly.flags.writeable = False
    return {
        "float64": rng.random(100_000),
        "two dimensions": grid,
        "Fortran order": np.asfortranarray(grid),
        "transposed": grid.T,
        "not contiguous": grid[::2, ::3],
        "backwards": grid[::-1],
        "a slice": grid[100:200],
        "read-only": readonly,
        "empty": np.empty(0),
        "empty of a shape": np.empty((0, 5)),
        "no dimension": np.array(3.5),
        "structured": np.zeros(9_000, dtype=[("a", "i4"), ("b", "f8")]),
        "strings": np.array(["weir", "dam"] * 20_000),
        "dates": np.arange("2020-01-01", "2047-01-01", dtype="datetime64[D]"),
        "objects": np.array([1, "two", None] * 100, dtype=object),
        "65535 bytes": np.zeros(65_535, "u1"),
        "65536 bytes": rng.integers(0, 255, 65_536, "u1"),
        "65537 bytes": rng.integers(0, 255, 65_537, "u1"),
        "131000 bytes": rng.integers(0, 255, 131_000, "u1"),
        "256 KiB": rng.integers(0, 255, 262_144, "u1"),
        "more than 256 KiB": rng.integers(0, 255, 262_145, "u1"),
        "3 MiB": rng.integers(0, 255, 3 * MIB + 17, "u1"),
        "several": [rng.random(10_000), rng.random(10), rng.random(50_000)],
        "deep": {"a": [({"b": rng.random(30_000)},)], "c": b"x" * 100_000},
        "bytes": random.Random(1).randbytes(300_000),
        "bytearray": bytearray(random.Random(2).randbytes(300_000)),
        "small bytes": b"small",
        "bytes in a list": [b"a" * 70_000, bytearray(b"b" * 70_000), b"c"],
        "bytes in a dict": {"x": b"a" * 70_000, "y": 1},
        "bytes deep": [[b"a" * 1_000_000]],
    }


def assert_same(got: Any, sent: Any) -> None:
    assert type(got) is type(sent)
    if isinstance(sent, np.ndarray):
        assert got.dtype == sent.dtype
        assert got.shape == sent.shape
        assert np.array_equal(got, sent)
        assert got.flags.writeable == sent.flags.writeable
    elif isinstance(sent, dict):
        assert got.keys() == sent.keys()
        for key in sent:
            assert_same(got[key], sent[key])
    elif isinstance(sent, (list, tuple)):
        assert len(got) == len(sent)
        for one, other in zip(got, sent, strict=True):
            assert_same(one, other)
    else:
        assert got == sent


# ---- what arrives -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", samples())
def test_objects_of_every_kind_travel_both_ways(
    either_pool: ProcessPoolExecutor, name: str
) -> None:
    sent = samples()[name]
    before = samples()[name]
    got = run(either_pool, identity, sent)
    assert_same(got, sent)
    assert_same(run(either_pool, identity, [sent, sent])[1], sent)
    assert_same(run(either_pool, identity, x=sent), sent)
    for _ in range(3):  # what was received is not overwritten by what comes later
        run(either_pool, identity, sent)
    assert_same(got, before)
    assert_same(sent, before)


@pytest.mark.parametrize("method", METHODS)
def test_arrays_travel_with_every_start_method(method: str) -> None:
    array = np.random.default_rng(3).random(MIB // 8)
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        results = [pool.submit(plus_one, array + i) for i in range(8)]
        for i, future in enumerate(results):
            assert np.array_equal(future.result(60), array + i + 1)
        shared = shared_array(1000)
        assert run(pool, increment, shared[5:7]).base is not None
        assert shared.sum() == 2


@pytest.mark.parametrize(
    ("value", "kind", "writable"),
    [
        (bytes(100_000), "bytes", False),
        (bytearray(100_000), "bytearray", True),
        (memoryview(bytes(100_000)), "memoryview", False),
        (memoryview(bytearray(100_000)), "memoryview", True),
        (memoryview(b"small"), "memoryview", False),
        (memoryview(bytearray(b"small")), "memoryview", True),
        (memoryview(bytearray(300_000))[::3], "memoryview", False),
    ],
)
def test_bytes_and_views_arrive_as_what_they_were(
    pool: ProcessPoolExecutor, value: Any, kind: str, writable: bool
) -> None:
    assert run(pool, describe, value) == (kind, writable, bytes(value))
    got = run(pool, identity, value)
    assert describe(got) == (kind, writable, bytes(value))
    assert describe(run(pool, identity, x=value)) == (kind, writable, bytes(value))


def test_a_view_keeps_its_format_and_shape(pool: ProcessPoolExecutor) -> None:
    view = memoryview(bytearray(80_000)).cast("B").cast("d", (100, 100))
    view[3, 4] = 2.5
    got = run(pool, identity, view)
    assert (got.format, got.shape, got[3, 4]) == ("d", (100, 100), 2.5)


def test_bytes_that_come_twice_are_sent_once(pool: ProcessPoolExecutor) -> None:
    data = bytes(3 * MIB)
    message = _transfer.dump_call(identity, (data, data), {"again": data})
    assert sum(memoryview(part).nbytes for part in message) < 4 * MIB


def test_a_slice_of_a_received_array_can_be_sent_back(pool: ProcessPoolExecutor) -> None:
    array = np.random.default_rng(4).random(100_000)
    assert np.array_equal(run(pool, half, array), array[:50_000])
    ends = run(pool, both_ends, array)
    assert np.array_equal(ends["all"], array)
    assert np.array_equal(ends["first"], array[:10])
    assert np.array_equal(ends["last"], array[-10:])


# ---- who may write ------------------------------------------------------------------------------


def test_arrays_in_a_worker_are_writable_and_writes_stay_there(
    either_pool: ProcessPoolExecutor,
) -> None:
    for n in (1_000, 10_000, 30_000, 500_000):
        array = np.zeros(n)
        got = run(either_pool, increment, array)
        assert got.sum() == n
        assert array.sum() == 0
        got += 1  # and so is the result
        assert got.sum() == 2 * n


def test_what_was_read_only_stays_so(pool: ProcessPoolExecutor) -> None:
    array = np.zeros(100_000)
    array.flags.writeable = False
    assert run(pool, describe, array)[1] is False
    assert run(pool, identity, array).flags.writeable is False
    with pytest.raises(ValueError, match="read-only"):
        run(pool, increment, array)


def test_a_retry_sees_what_was_sent(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, retries=1) as pool:
        for n in (10_000, 30_000, 1_000_000):
            marker = tmp_path / str(n)
            assert run(pool, spoil_and_die_at_first, np.ones(n), marker) == n


def test_a_result_that_the_worker_keeps_is_a_copy(either_pool: ProcessPoolExecutor) -> None:
    for n in (10_000, 30_000, 1_000_000):
        array = np.ones(n)
        got = run(either_pool, keep_and_return, array)
        run(either_pool, change_kept, 5)
        assert got.sum() == n
        got[:] = 7
        assert run(either_pool, total, np.ones(n)) == n
    assert run(either_pool, drop_kept) == 0


# ---- leases -------------------------------------------------------------------------------------


def test_what_a_worker_keeps_is_not_written_over(either_pool: ProcessPoolExecutor) -> None:
    rng = np.random.default_rng(5)
    for i in range(30):
        assert run(either_pool, keep, rng.random(9_000 + 3_000 * (i % 20))) == i + 1
        run(either_pool, plus_one, rng.random(40_000))
    assert run(either_pool, count_intact) == 30
    held = either_pool.stats().shm_bytes
    assert run(either_pool, drop_kept) == 0
    for i in range(30):
        run(either_pool, keep, rng.random(9_000 + 3_000 * (i % 20)))
    assert either_pool.stats().shm_bytes <= held + MIB  # it came back, and is used again


def test_a_dead_worker_gives_back_what_it_kept(pool: ProcessPoolExecutor) -> None:
    for _ in range(5):
        run(pool, keep, np.ones(10 * MIB // 8))
    assert pool.stats().shm_bytes > 50 * MIB
    with pytest.raises(WorkerDied):
        run(pool, kill_worker)
    wait_until(lambda: pool.stats().shm_bytes < 20 * MIB)
    assert run(pool, total, np.ones(100_000)) == 100_000


def test_results_outlive_the_executor() -> None:
    pool = ProcessPoolExecutor(1)
    arrays = [run(pool, fill, n, float(n)) for n in (20_000, 40_000, 1_000_000)]
    data = run(pool, identity, np.arange(500_000))
    pool.shutdown()
    del pool
    gc.collect()
    for array, n in zip(arrays, (20_000, 40_000, 1_000_000), strict=True):
        assert (array == n).all()
        array += 1
        assert (array == n + 1).all()
    assert np.array_equal(data, np.arange(500_000))


def test_the_memory_of_a_result_goes_back_with_its_last_view(pool: ProcessPoolExecutor) -> None:
    array = run(pool, fill, 30 * MIB // 8, 1.0)
    part = array[5:10]
    held = pool.stats().shm_bytes
    assert held >= 30 * MIB
    del array
    time.sleep(0.05)
    assert pool.stats().shm_bytes == held
    assert part.sum() == 5
    del part
    wait_until(lambda: pool.stats().shm_bytes < held - 20 * MIB)


def test_a_pool_lives_as_long_as_a_result_and_no_longer() -> None:
    def count() -> int:
        return sum("memfd:weir" in os.readlink(f"/proc/self/fd/{fd}") for fd in open_fds())

    def open_fds() -> list[str]:
        return [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]

    gc.collect()
    before = count()
    with ProcessPoolExecutor(1) as pool:
        array = run(pool, fill, 100_000, 1.0)
    del pool
    gc.collect()
    assert count() == before + 1
    assert array.sum() == 100_000
    del array
    gc.collect()
    assert count() == before


def test_many_results_are_kept_at_once(pool: ProcessPoolExecutor) -> None:
    results = [run(pool, fill, 20_000 + 100 * i, float(i)) for i in range(200)]
    for i, array in enumerate(results):
        assert (array == i).all()
    random.Random(6).shuffle(results)
    del results[:150]
    more = [run(pool, fill, 25_000, float(-i)) for i in range(100)]
    assert all((array == -i).all() for i, array in enumerate(more))
    assert all((array == array[0]).all() for array in results)


def test_an_exception_holds_its_arguments_no_longer_than_the_task(
    pool: ProcessPoolExecutor,
) -> None:
    array = np.ones(2 * MIB // 8)
    for _ in range(20):
        with pytest.raises(ValueError, match="with an array"):
            run(pool, raise_with, array)
    assert pool.stats().shm_bytes < 30 * MIB


def test_an_identity_takes_the_memory_of_one_copy(pool: ProcessPoolExecutor) -> None:
    array = np.ones(40 * MIB // 8)
    got = run(pool, identity, array)
    assert np.array_equal(got, array)
    assert pool.stats().shm_bytes < 45 * MIB


def test_threads_share_a_pool_for_large_data() -> None:
    wrong: list[str] = []

    def client(pool: ProcessPoolExecutor, seed: int) -> None:
        rng = np.random.default_rng(seed)
        held: list[tuple[Array, float]] = []
        for i in range(40):
            array = rng.random(int(rng.integers(1, 60_000)))
            fn = (increment, plus_one, identity)[i % 3]
            got = pool.submit(fn, array).result(60)
            expected = array if fn is identity else array + 1
            if not np.array_equal(got, expected):
                wrong.append(f"{seed} {i}")
            held.append((got, float(got.sum())))
            if len(held) > 5:
                del held[int(rng.integers(0, 5))]
            if any(float(kept.sum()) != total for kept, total in held):
                wrong.append(f"{seed} {i}: a result has changed")

    with ProcessPoolExecutor(2) as pool:
        threads = [threading.Thread(target=client, args=(pool, seed)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        stats = pool.stats()
        assert stats.accepted == stats.completed == 12 * 40


def test_map_sends_arrays(pool: ProcessPoolExecutor) -> None:
    arrays = [np.full(30_000, float(i)) for i in range(20)]
    for i, got in enumerate(pool.map(plus_one, arrays)):
        assert (got == i + 1).all()


def test_map_sends_shared_memory_by_reference(pool: ProcessPoolExecutor) -> None:
    array = shared_array((200, 50))
    for i, row in enumerate(pool.map(increment, list(array), chunksize=20)):
        assert np.shares_memory(row, array[i])
    assert (array == 1).all()
    assert [born.sum() for born in pool.map(new_shared, [10] * 50, range(50), chunksize=10)] == [
        10 * i for i in range(50)
    ]


# ---- fork ---------------------------------------------------------------------------------------


def test_a_forked_child_has_results_of_its_own(pool: ProcessPoolExecutor) -> None:
    for n in (20_000, 200_000):
        array = run(pool, fill, n, 7.0)
        go_read, go_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            array[:5] = 1  # the parent does not see it
            os.read(go_read, 1)
            ok = (array[:5] == 1).all() and (array[5:] == 7).all()
            os._exit(0 if ok else 1)
        array[10] = 8  # nor the child this
        time.sleep(0.05)
        assert (array[:5] == 7).all()
        del array
        for _ in range(20):  # and the child's copy is not written over
            run(pool, fill, n, 9.0)
        os.write(go_write, b"x")
        assert os.waitpid(pid, 0)[1] == 0
        os.close(go_read)
        os.close(go_write)


def test_memory_that_a_child_had_comes_back_when_it_is_gone(pool: ProcessPoolExecutor) -> None:
    array = run(pool, fill, 30 * MIB // 8, 7.0)
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(go_read, 1)
        os._exit(0)
    later = run(pool, fill, 30 * MIB // 8, 8.0)  # the child has not got this one
    held = pool.stats().shm_bytes
    assert held > 60 * MIB
    del array
    time.sleep(2.5)
    assert pool.stats().shm_bytes == held
    del later
    wait_until(lambda: pool.stats().shm_bytes < 50 * MIB)
    os.write(go_write, b"x")
    os.waitpid(pid, 0)
    wait_until(lambda: pool.stats().shm_bytes < 20 * MIB)
    os.close(go_read)
    os.close(go_write)


def test_programs_that_are_run_hold_no_memory(pool: ProcessPoolExecutor) -> None:
    array = run(pool, fill, 30 * MIB // 8, 7.0)
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, preexec_fn=nothing
    ) as program:  # preexec_fn: a real fork
        del array
        wait_until(lambda: pool.stats().shm_bytes < 20 * MIB)
        program.communicate(b"\n")


# ---- shared memory ------------------------------------------------------------------------------


def test_a_shared_array_is_the_same_memory_everywhere(pool: ProcessPoolExecutor) -> None:
    array = shared_array((100, 100), "i4")
    assert (array.shape, array.dtype, array.sum()) == ((100, 100), np.dtype("i4"), 0)
    back = run(pool, increment, array)
    assert array.sum() == 10_000
    assert back.ctypes.data == array.ctypes.data
    array[:] = 5
    assert back.sum() == 50_000
    assert run(pool, total, array) == 50_000


def test_any_contiguous_part_of_it_travels_by_reference(pool: ProcessPoolExecutor) -> None:
    array = shared_array((1000, 1000))
    before = pool.stats().shm_bytes
    assert run(pool, increment, array[10:20]).shape == (10, 1000)
    assert array.sum() == 10_000
    part = run(pool, shared_bytes_of, array)
    assert np.shares_memory(part, array[10:20])
    column = run(pool, increment, array[:, 3])  # not contiguous: a copy
    assert column.sum() == 1010
    assert array.sum() == 10_000
    fortran = run(pool, increment, array.T)
    assert np.shares_memory(fortran, array)
    readonly = array.view()
    readonly.flags.writeable = False
    assert run(pool, is_writable, readonly) is False
    assert pool.stats().shm_bytes - before < MIB


def test_a_shared_buffer_comes_back_as_itself(pool: ProcessPoolExecutor) -> None:
    shared = SharedBuffer(1000)
    assert run(pool, identity, shared) is shared
    assert run(pool, identity, [{"x": shared}])[0]["x"] is shared
    view = run(pool, identity, memoryview(shared)[3:7])
    assert view.obj is shared
    view[0] = 9
    assert memoryview(shared)[3] == 9


def test_a_worker_opens_what_it_has_once(pool: ProcessPoolExecutor) -> None:
    shared = SharedBuffer(1000)
    run(pool, remember_shared, shared)
    assert run(pool, is_the_one_remembered, shared)


def test_what_is_born_in_a_worker_arrives(pool: ProcessPoolExecutor) -> None:
    for i in range(30):
        array = run(pool, new_shared, 1000 + i, float(i))
        assert array.sum() == (1000 + i) * i
        assert run(pool, new_shared_buffer, b"abc").nbytes == 3
    run(pool, increment, array)
    assert (array == 30).all()


def test_a_worker_that_leaves_hands_over_what_was_born_there() -> None:
    with ProcessPoolExecutor(1, max_tasks_per_child=1) as pool:
        futures = [pool.submit(new_shared, 1000, float(i)) for i in range(5)]
        arrays = [future.result(60) for future in futures]
    assert [array[0] for array in arrays] == [0, 1, 2, 3, 4]


def test_what_a_killed_worker_did_not_hand_over_is_its_death(
    pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(pool, nothing)
    load = _transfer.load

    def kill_first(message: memoryview) -> Any:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}/fd/0").exists())
        return load(message)

    pid = pool.worker_pids()[0]
    monkeypatch.setattr(_transfer, "load", kill_first)
    with pytest.raises(WorkerDied) as died:
        run(pool, new_shared, 1000, 1.0)
    assert died.value.pid == pid
    monkeypatch.undo()
    assert run(pool, new_shared, 1000, 1.0).sum() == 1000


def test_a_place_that_is_not_there_any_more_is_a_clear_error() -> None:
    shared = SharedBuffer(100)
    pid, fd, inode, size = shared.place()
    assert _weir.open_shared(pid, fd, inode, size) is shared
    with pytest.raises(OSError, match=f"100 bytes is not there any more: process {pid} has closed"):
        _weir.open_shared(pid, fd, inode + 1, size)
    with pytest.raises(OSError, match="not there any more"):
        _weir.open_shared(pid, 0, inode + 1, size)
    shared.close()
    with pytest.raises(OSError, match="not there any more"):
        _weir.open_shared(pid, fd, inode, size)


def test_the_task_keeps_its_shared_memory_alive(pool: ProcessPoolExecutor) -> None:
    array = shared_array(1000)
    array[:] = 1
    shared = weakref.ref(memoryview(array.base).obj)  # type: ignore[arg-type]
    hold = [pool.submit(time.sleep, 0.5) for _ in range(2)]
    future = pool.submit(total, array)
    del array
    gc.collect()
    assert shared() is not None
    assert future.result(60) == 1000
    del hold
    wait_until(lambda: shared() is None)  # though the future is still there


def open_files() -> set[int]:
    """Their inodes: numbers of descriptors are used again."""
    inodes = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(
            FileNotFoundError
        ):  # that of the listing, and what is closed meanwhile
            inodes.add(os.stat(f"/proc/self/fd/{fd}").st_ino)
    return inodes


def test_shared_memory_ends_with_its_last_reference() -> None:
    before = open_files()
    array = shared_array(1000)
    fresh = open_files() - before
    assert len(fresh) == 1
    part = array[3:5]
    del array
    part += 1
    del part
    gc.collect()
    assert not fresh & open_files()


def test_a_closed_buffer_is_closed() -> None:
    shared = SharedBuffer(50)
    assert (len(shared), shared.nbytes) == (50, 50)
    assert repr(shared) == "<weir.SharedBuffer of 50 bytes>"
    view = memoryview(shared)
    with pytest.raises(BufferError, match="1 views or arrays of it exist"):
        shared.close()
    view.release()
    with shared as same:
        assert same is shared
    shared.close()
    assert (len(shared), repr(shared)) == (0, "<weir.SharedBuffer, closed>")
    for use in (lambda: memoryview(shared), shared.place, lambda: pickle.dumps(shared, 5)):
        with pytest.raises(ValueError, match="closed"):
            use()


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_shared_buffer_pickled_elsewhere_is_a_copy(protocol: int) -> None:
    shared = SharedBuffer(5)
    memoryview(shared)[:] = b"weirs"
    copied = pickle.loads(pickle.dumps(shared, protocol))
    assert type(copied) is SharedBuffer
    assert bytes(copied) == b"weirs"
    memoryview(copied)[0] = 0
    assert bytes(shared) == b"weirs"
    array = pickle.loads(pickle.dumps(np.frombuffer(memoryview(shared), "u1"), protocol))
    assert array.tobytes() == b"weirs"


def test_bad_sizes_and_types_are_refused() -> None:
    for size in (0, -1):
        with pytest.raises(ValueError, match="nbytes must be greater than 0"):
            SharedBuffer(size)
    with pytest.raises(TypeError):
        SharedBuffer("7")  # type: ignore[arg-type]
    with pytest.raises(
        MemoryError, match="not enough shared memory for a buffer of 35184372088832"
    ):
        SharedBuffer(1 << 45)
    with pytest.raises(MemoryError):
        shared_array(1 << 42)
    with pytest.raises(ValueError, match="Python objects"):
        shared_array(10, object)
    with pytest.raises(ValueError, match="negative"):
        shared_array((3, -1))
    assert shared_array((0, 4)).shape == (0, 4)
    assert shared_array(3).tolist() == [0, 0, 0]
    assert shared_array((), "i8").item() == 0


def test_a_shared_array_needs_numpy_and_says_so() -> None:
    done = run_python(
        """
        import sys
        sys.modules["numpy"] = None
        import weir
        print(len(weir.SharedBuffer(10)))
        weir.shared_array(10)
        """
    )
    assert done.stdout == "10\n"
    assert "ImportError: weir.shared_array needs NumPy, which is not installed" in done.stderr


def test_a_forked_child_has_the_shared_memory_too() -> None:
    array = shared_array(10)
    pid = os.fork()
    if pid == 0:
        array[:] = 3
        os._exit(0)
    os.waitpid(pid, 0)
    assert array.sum() == 30


def test_threads_may_send_open_and_drop_shared_memory() -> None:
    wrong: list[float] = []

    def client(pool: ProcessPoolExecutor, seed: int) -> None:
        for i in range(25):
            array = shared_array(1000)
            array[:] = seed
            back = pool.submit(increment, array[: 500 + i]).result(60)
            wrong.extend(back[back != seed + 1])
            born = pool.submit(new_shared, 100, seed).result(60)
            wrong.extend(born[born != seed])

    with ProcessPoolExecutor(2) as pool:
        threads = [threading.Thread(target=client, args=(pool, seed)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


# ---- without memory, and after a kill -----------------------------------------------------------


def test_without_memory_only_that_task_fails() -> None:
    done = run_python(
        """
        import resource
        import numpy as np
        import weir

        def fill(n):
            return np.ones(n)

        with weir.ProcessPoolExecutor(1) as pool:
            assert pool.submit(fill, 10).result().sum() == 10
            array = np.ones(1 << 20)
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
            futures = {"task": pool.submit(fill, array), "result": pool.submit(fill, 1 << 20)}
            for name, future in futures.items():
                try:
                    future.result()
                except MemoryError as error:
                    print(name, error)
            try:
                weir.SharedBuffer(2 << 20)
            except MemoryError as error:
                print(error)
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            assert pool.submit(np.sum, array).result() == 1 << 20
            assert pool.submit(fill, 1 << 20).result().sum() == 1 << 20
            print(pool.stats().workers_died)
        """
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("task there is not enough shared memory for the task's 83")
    assert lines[1].startswith("result the task or its result did not fit")
    assert lines[2:] == ["there is not enough shared memory for a buffer of 2097152 bytes", "0"]


def test_nothing_stays_when_the_parent_is_killed() -> None:
    program = textwrap.dedent(
        """
        import os, signal, sys
        import numpy as np
        import weir

        kept = []

        def keep(x):
            kept.append(x)
            return x + 1

        if __name__ == "__main__":
            pool = weir.ProcessPoolExecutor(2)
            array = weir.shared_array(1 << 20)
            results = [pool.submit(keep, np.ones(1 << 20)).result() for _ in range(4)]
            results.append(pool.submit(keep, array).result())
            print(*pool.worker_pids(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = done.stdout.split()
    assert pids
    # The memory has no name: it is nowhere but in these processes.
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


# ---- pickling -----------------------------------------------------------------------------------


class Custom:
    def __init__(self, value: int) -> None:
        self.value = value


def rebuild_custom(value: int) -> Custom:
    return Custom(value)


def reduce_custom(custom: Custom) -> Any:
    return rebuild_custom, (custom.value + 1000,)


def test_reducers_that_are_registered_later_are_known() -> None:
    from copyreg import dispatch_table

    def send(value: int) -> int:
        message = _transfer.dump_call(identity, (Custom(value),), {})
        return _transfer.load(memoryview(message))[1][0].value  # type: ignore[no-any-return]

    assert send(1) == 1
    ForkingPickler.register(Custom, reduce_custom)
    try:
        assert send(1) == 1001
    finally:
        del ForkingPickler._extra_reducers[Custom]  # type: ignore[attr-defined]
    dispatch_table[Custom] = reduce_custom
    try:
        assert send(2) == 1002
    finally:
        del dispatch_table[Custom]
    assert send(3) == 3


class PicklesWhilePickled:
    def __reduce__(self) -> Any:
        inner = _transfer.dump_call(identity, ([1, 2],), {})
        return bytes, (inner,)


class CannotBePickled:
    def __reduce__(self) -> Any:
        raise RuntimeError("not this one")


def test_a_pickler_is_not_disturbed_by_another_or_by_an_error() -> None:
    shared_list = [1]
    for _ in range(3):
        with pytest.raises(RuntimeError, match="not this one"):
            _transfer.dump_call(identity, (shared_list, np.zeros(100_000), CannotBePickled()), {})
        message = _transfer.dump_call(
            identity, (shared_list, PicklesWhilePickled(), shared_list), {}
        )
        _fn, (first, inner, again), _kwargs = _transfer.load(memoryview(message))
        assert first == [1]
        assert first is again
        assert _transfer.load(memoryview(inner))[1] == ([1, 2],)


def test_a_message_of_many_pieces_is_not_joined() -> None:
    message = _transfer.dump_call(identity, ([[b"a" * MIB, b"b" * MIB]],), {})
    assert len(message) > 2
    joined = memoryview(b"".join(message))
    assert _transfer.load(joined)[1] == ([[b"a" * MIB, b"b" * MIB]],)


def test_the_executors_documentation_names_what_is_new() -> None:
    assert "writable" in (ProcessPoolExecutor.__doc__ or "")
    assert {"SharedBuffer", "shared_array"} <= set(weir.__all__)
