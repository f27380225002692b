"""weir.SharedQueue: between processes, started in every way, and killed at any moment."""

from __future__ import annotations

import contextlib
import copy
import gc
import multiprocessing
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from typing import Any, ClassVar

import pytest
from conftest import InThread, output_of, wait_until

import weir

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> BaseContext:
    context: BaseContext = multiprocessing.get_context(request.param)
    return context


def start(context: BaseContext, fn: Callable[..., object], *args: Any) -> Any:
    process = context.Process(target=fn, args=args)  # type: ignore[attr-defined]
    process.start()
    return process


def end(process: Any) -> None:
    process.join(30)
    assert process.exitcode == 0


def check_law(q: weir.SharedQueue[Any]) -> weir.SharedQueueStats:
    now = q.stats()
    assert now.accepted == now.delivered + sum(now.dropped.values()) + now.qsize
    assert now.accepted_bytes == now.delivered_bytes + sum(now.dropped_bytes.values()) + now.bytes
    return now


# ---- items --------------------------------------------------------------------------------------


class Text(str):
    __slots__ = ()


class Refuses:
    def __reduce__(self) -> Any:
        raise OSError("cannot be sent")


class Explodes:
    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    raise ZeroDivisionError("as it was unpickled")


ITEMS: list[Any] = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 1.5, float("inf"),
    "", "héé\0", "\ud800", "x" * 100_000, b"", b"\0abc", b"z" * 300_000, bytearray(b"ab"),
    (), (1, "a"), (None, True, False, -1, 2.5, "é", b"\0", ""), (1, (2, ())), ("x" * 255,),
    ("x" * 189,), ("x" * 190,), ("a" * 80, "b" * 80, "c" * 80), (2**64, 1), ("\ud800",),
    tuple(range(18)), tuple(range(19)), tuple(range(20)), (None,) * 96, (None,) * 97,
    [1, [2]], {"a": {1, 2}}, Text("mine"), ValueError("x"), range(10), complex(1, 2),
]  # fmt: skip


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: repr(item)[:20])
def test_an_item_comes_out_equal_and_of_the_same_type(item: Any) -> None:
    q: weir.SharedQueue[Any] = weir.SharedQueue(3)
    q.put(item)
    got = q.get()
    assert type(got) is type(item)
    assert repr(got) == repr(item)


def test_nan_and_identity_of_singletons_survive() -> None:
    q: weir.SharedQueue[Any] = weir.SharedQueue(9)
    assert q.put_many([float("nan"), None, True, False]) == 4
    nan, *rest = q.get_many(9)
    assert nan != nan
    assert all(a is b for a, b in zip(rest, (None, True, False), strict=True))


def test_what_cannot_be_pickled_is_not_taken() -> None:
    q: weir.SharedQueue[Any] = weir.SharedQueue(9)
    with pytest.raises(OSError, match="cannot be sent"):
        q.put(Refuses())
    with pytest.raises(OSError, match="cannot be sent"):
        q.put_many([1, 2, Refuses(), 3])
    assert q.get_many(9) == [1, 2]
    assert check_law(q).accepted == 2


def test_an_item_that_cannot_be_unpickled_does_not_take_its_batch_with_it() -> None:
    q: weir.SharedQueue[Any] = weir.SharedQueue(9)
    q.put_many([1, Explodes(), 2, Explodes(), 3])
    with pytest.raises(ZeroDivisionError) as caught:
        q.get_many(9)
    assert caught.value.batch == [1, 2, 3]  # type: ignore[attr-defined]
    assert len(caught.value.messages) == 2  # type: ignore[attr-defined]
    q.put(Explodes())
    with pytest.raises(ZeroDivisionError):
        q.get()
    assert check_law(q).delivered == 6


def test_what_cannot_be_unpickled_comes_with_its_exception() -> None:
    q: weir.SharedQueue[Any] = weir.SharedQueue(9)
    q.put_many([Explodes(), "next"])
    with pytest.raises(ZeroDivisionError) as caught:
        q.get()
    (message,) = caught.value.messages  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        pickle.loads(message)
    assert q.get() == "next"


class Fails:
    """Its unpickling raises, so often, what `errors` says."""

    errors: ClassVar[list[BaseException]] = []

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return Fails._again, (self.number,)

    @staticmethod
    def _again(number: int) -> Fails:
        with contextlib.suppress(IndexError):
            raise Fails.errors.pop()
        return Fails(number)


NOT_ITS_FAULT = [MemoryError, KeyboardInterrupt]


@pytest.mark.parametrize("error", NOT_ITS_FAULT)
def test_an_item_that_there_was_no_memory_for_is_the_next_one_again(
    error: type[BaseException],
) -> None:
    q: weir.SharedQueue[Any] = weir.SharedQueue(9)
    q.put_many([Fails(1), 2])
    q.shutdown()
    for _ in range(3):
        Fails.errors.append(error())
        with pytest.raises(error):
            q.get()
    Fails.errors.append(error())
    with pytest.raises(error):
        q.get_many(5)
    assert q.get(timeout=0).number == 1
    assert q.get() == 2
    with pytest.raises(weir.ShutDown):
        q.get()
    assert check_law(q).delivered == 2


def test_a_batch_ends_before_what_there_is_no_memory_for() -> None:
    q: weir.SharedQueue[Any] = weir.SharedQueue(99)
    q.put_many([0, 1, Fails(2), 3, Fails(4), 5])
    Fails.errors.append(MemoryError())
    assert q.get_many(80) == [0, 1]
    q.put(6)
    first, second = q.get_many(2)
    assert (first.number, second) == (2, 3)
    Fails.errors += [MemoryError(), ValueError("its own")]
    q.put(Fails(7))
    with pytest.raises(ValueError, match="its own") as caught:
        q.get_many(80)
    assert caught.value.batch == [5]  # type: ignore[attr-defined]
    messages = caught.value.messages  # type: ignore[attr-defined]
    assert q.get() == 6
    with pytest.raises(MemoryError):
        q.get()
    assert q.get().number == 7
    assert [pickle.loads(message).number for message in messages] == [4]
    check_law(q)


def test_a_batch_that_is_interrupted_is_the_next_one_again() -> None:
    q: weir.SharedQueue[Any] = weir.SharedQueue(9)
    q.put_many([1, Explodes(), Fails(2)])
    Fails.errors.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        q.get_many(9)
    with pytest.raises(ZeroDivisionError) as caught:
        q.get_many(9)
    first, second = caught.value.batch  # type: ignore[attr-defined]
    assert (first, second.number) == (1, 2)


def test_what_one_process_has_left_is_not_its_childs() -> None:
    q: weir.SharedQueue[Any] = weir.SharedQueue(9)
    q.put_many([Fails(1), 2])
    Fails.errors.append(MemoryError())
    with pytest.raises(MemoryError):
        q.get()
    child = os.fork()
    if child == 0:
        os._exit(0 if q.get() == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert q.get().number == 1
    assert check_law(q).delivered == 2


def test_threads_that_run_out_of_memory_again_and_again_lose_and_double_nothing() -> None:
    q: weir.SharedQueue[Any] = weir.SharedQueue(16)
    got: list[int] = []

    def take(by_batch: bool) -> None:
        while True:
            try:
                got.extend(item.number for item in (q.get_many(5) if by_batch else [q.get()]))
            except MemoryError:
                pass
            except weir.ShutDown:
                return

    takers = [InThread(take, n % 2 == 0) for n in range(4)]
    for n in range(2000):
        if n % 3 == 0:
            Fails.errors.append(MemoryError())
        q.put(Fails(n))
    wait_until(lambda: len(got) == 2000)
    q.shutdown()
    for taker in takers:
        taker.result()
    Fails.errors.clear()
    assert sorted(got) == list(range(2000))
    assert check_law(q).delivered == 2000


# ---- the spelling of weir.Queue -----------------------------------------------------------------


def test_full_empty_and_shut_down_are_those_of_the_queue_module() -> None:
    q: weir.SharedQueue[int] = weir.SharedQueue(2, name="numbers")
    with pytest.raises(queue.Empty):
        q.get_nowait()
    with pytest.raises(queue.Empty):
        q.get(timeout=0.01)
    with pytest.raises(queue.Empty):
        q.get_many(2, timeout=0)
    q.put(1)
    q.put_nowait(2)
    assert (q.qsize(), q.full(), q.empty()) == (2, True, False)
    with pytest.raises(queue.Full):
        q.put_nowait(3)
    with pytest.raises(queue.Full):
        q.put(3, timeout=0.01)
    with pytest.raises(queue.Full):
        q.put_many([3], timeout=0.01)
    assert q.stats().refused == 3
    assert repr(q) == "<weir.SharedQueue numbers 2 of 2 items>"
    q.shutdown()
    assert q.is_shutdown
    with pytest.raises(weir.ShutDown):
        q.put(3)
    assert list(q) == [1, 2]
    with pytest.raises(weir.ShutDown):
        q.get()
    with pytest.raises(weir.ShutDown):
        q.get_many(1)
    check_law(q)


def test_shutdown_at_once_drops_what_is_inside_and_releases_who_waits() -> None:
    q: weir.SharedQueue[int] = weir.SharedQueue(1)
    q.put(1)
    putter = InThread(q.put, 2)
    wait_until(lambda: q.stats().putters_waiting == 1)
    q.shutdown(immediate=True)
    with pytest.raises(weir.ShutDown):
        putter.result()
    assert q.stats().dropped["discarded"] == 1
    with pytest.raises(weir.ShutDown):
        q.get()


@pytest.mark.parametrize(
    ("overflow", "left"),
    [("drop_newest", [0, 1, 2]), ("drop_oldest", [7, 8, 9]), ("sample", [0, 1, 2])],
)
def test_a_full_queue_does_what_overflow_says(overflow: Any, left: list[int]) -> None:
    q: weir.SharedQueue[int] = weir.SharedQueue(3, overflow=overflow)
    assert q.put_many(range(10)) == 10
    assert check_law(q).accepted == 10
    assert sum(q.stats().dropped.values()) == 7
    assert q.get_many(10) == left
    failing: weir.SharedQueue[int] = weir.SharedQueue(3, overflow="fail")
    assert failing.put_many(range(10)) == 3
    with pytest.raises(queue.Full):
        failing.put(1, timeout=10)


def test_bytes_are_bounded() -> None:
    q: weir.SharedQueue[bytes] = weir.SharedQueue(100, max_bytes=1000)
    with pytest.raises(weir.TooLarge, match="1001 bytes"):
        q.put(b"x" * 1001)
    q.put(b"x" * 600)
    with pytest.raises(queue.Full):
        q.put(b"x" * 401, block=False)
    q.put(b"x" * 400)
    assert (q.stats().bytes, q.full(), q.max_bytes, q.maxsize) == (1000, True, 1000, 100)


def test_items_that_are_too_old_are_dropped() -> None:
    q: weir.SharedQueue[int] = weir.SharedQueue(5, max_age=0.02)
    q.put_many([1, 2])
    time.sleep(0.03)
    with pytest.raises(queue.Empty):
        q.get(block=False)
    assert q.stats().dropped["expired"] == 2


def test_a_batch_lingers_for_more() -> None:
    q: weir.SharedQueue[int] = weir.SharedQueue(5)
    q.put(1)
    threading.Timer(0.05, q.put_many, [[2, 3]]).start()
    assert q.get_many(3, linger=20) == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"maxsize": 0}, ValueError, "maxsize must be an int from 1"),
        ({"maxsize": True}, ValueError, "maxsize must be an int from 1"),
        ({"maxsize": None}, TypeError, "NoneType"),
        ({"maxsize": 2**31}, ValueError, "maxsize must be an int from 1"),
        ({"maxsize": 1, "max_bytes": 0}, ValueError, "max_bytes must be an int from 1"),
        ({"maxsize": 1, "max_age": -1}, ValueError, "max_age"),
        ({"maxsize": 1, "overflow": "wait"}, ValueError, "overflow must be"),
        ({"maxsize": 1, "sample": 1}, ValueError, "sample must be"),
        ({"maxsize": 1, "name": 5}, TypeError, "name must be a str"),
    ],
)
def test_a_wrong_argument_is_named(arguments: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        weir.SharedQueue(**arguments)


def test_timeouts_and_batch_sizes_are_checked() -> None:
    q: weir.SharedQueue[int] = weir.SharedQueue(1)
    with pytest.raises(ValueError, match="non-negative"):
        q.get(timeout=-1)
    with pytest.raises(ValueError, match="NaN"):
        q.put(1, timeout=float("nan"))
    with pytest.raises(ValueError, match="'max' must be > 0"):
        q.get_many(0)
    with pytest.raises(RuntimeError, match="has been called already"):
        q.__init__(5)  # type: ignore[misc]
    with pytest.raises(RuntimeError, match="has not been called"):
        weir.SharedQueue.__new__(weir.SharedQueue).get()


def test_the_object_goes_when_nobody_refers_to_it_and_takes_its_descriptor_along() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        q: weir.SharedQueue[Any] = weir.SharedQueue(5)
        q.put([1])
        gone = weakref.ref(q)
        iterator = iter(q)
        assert next(iterator) == [1]
        del q, iterator
        gc.collect()
        assert gone() is None
    assert len(os.listdir("/proc/self/fd")) == before


class Counted(weir.SharedQueue[int]):
    """A subclass stays one on the other side."""


# ---- into other processes -----------------------------------------------------------------------


def square(q: weir.SharedQueue[int], out: weir.SharedQueue[Any]) -> None:
    for n in q:
        out.put((n, n * n))
    out.put((type(q).__name__, q.name))


def test_a_child_of_every_kind_shares_the_queue(context: BaseContext) -> None:
    q, out = Counted(10, name="in"), weir.SharedQueue[Any](10)
    child = start(context, square, q, out)
    feeder = InThread(q.put_many, range(1000))
    assert [out.get(timeout=60) for _ in range(1000)] == [(n, n * n) for n in range(1000)]
    assert feeder.result() == 1000
    q.shutdown()
    assert out.get(timeout=60) == ("Counted", "in")
    end(child)
    check_law(q)


inherited: weir.SharedQueue[Any]


def keep(q: weir.SharedQueue[Any]) -> None:
    global inherited
    inherited = q


def report(n: int) -> int:
    inherited.put(n)
    return n


def test_workers_of_a_pool_get_it_in_their_initargs(context: BaseContext) -> None:
    q: weir.SharedQueue[int] = weir.SharedQueue(1000)
    with weir.ProcessPoolExecutor(2, mp_context=context, initializer=keep, initargs=(q,)) as pool:
        assert list(pool.map(report, range(100))) == list(range(100))
    assert sorted(q.get_many(1000)) == list(range(100))


def test_it_is_pickled_for_nothing_else() -> None:
    q: weir.SharedQueue[int] = weir.SharedQueue(1)
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(q)
    with pytest.raises(RuntimeError, match="inheritance"):
        copy.copy(q)
    with pytest.raises(RuntimeError, match="inheritance"):
        q.put(q)  # type: ignore[arg-type]


def test_its_descriptor_can_be_sent_to_a_stranger() -> None:
    q: weir.SharedQueue[Any] = weir.SharedQueue(5)
    here, there = socket.socketpair()
    code = """
        import socket, sys, weir
        (fd,) = socket.recv_fds(socket.socket(fileno=int(sys.argv[1])), 1, 1)[1]
        weir.SharedQueue.attach(fd, name="theirs").put(["hello", 1])
    """
    with here, there:
        program = "\n".join(line.strip() for line in code.splitlines())
        stranger = subprocess.Popen(
            [sys.executable, "-c", program, str(there.fileno())], pass_fds=[there.fileno()]
        )
        socket.send_fds(here, [b"."], [q.fileno()])
        assert q.get(timeout=30) == ["hello", 1]
        assert stranger.wait(30) == 0


def test_another_descriptor_is_refused_by_number() -> None:
    with open("/dev/null") as null, pytest.raises(ValueError, match=f"descriptor {null.fileno()}"):
        weir.SharedQueue.attach(null.fileno())


def test_a_fork_while_threads_use_the_queue_leaves_the_child_able_to() -> None:
    assert (
        output_of("""
            import os, threading, warnings, weir
            warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12: that we fork
            q, out = weir.SharedQueue(5), weir.SharedQueue(100)
            def spin():
                for item in q:
                    q.put(item) if not q.is_shutdown else None
            threads = [threading.Thread(target=spin, daemon=True) for _ in range(4)]
            for thread in threads:
                thread.start()
            q.put("x" * 100)
            pids = []
            for n in range(30):
                pid = os.fork()
                if pid == 0:
                    q.put(q.get())
                    out.put(n)
                    os._exit(0)
                pids.append(pid)
            for pid in pids:
                assert os.waitpid(pid, 0)[1] == 0
            print(sorted(out.get_many(100)) == list(range(30)), q.stats().recovered)
        """)
        == "True 0\n"
    )


def test_the_interpreter_ends_while_a_daemon_thread_waits() -> None:
    assert (
        output_of("""
            import threading, time, weir
            q = weir.SharedQueue(1)
            threading.Thread(target=q.get, daemon=True).start()
            while not q.stats().getters_waiting: time.sleep(0.001)
            print("done")
        """)
        == "done\n"
    )


# ---- signals and deaths -------------------------------------------------------------------------


class Interrupt(Exception):
    pass


@pytest.fixture
def interrupts() -> Iterator[None]:
    def interrupt(signum: int, frame: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("what", ["get", "put", "get_many", "put_many"])
def test_a_signal_handler_ends_a_wait_and_nothing_happened(what: str) -> None:
    q: weir.SharedQueue[int] = weir.SharedQueue(1)
    waits: dict[str, Callable[[], object]] = {
        "get": q.get,
        "put": lambda: q.put(2),
        "get_many": lambda: q.get_many(5),
        "put_many": lambda: q.put_many([2, 3]),
    }
    if what.startswith("put"):
        q.put(1)

    def kick() -> None:
        wait_until(lambda: q.stats().getters_waiting + q.stats().putters_waiting == 1)
        os.kill(os.getpid(), signal.SIGUSR1)

    kicker = InThread(kick)
    with pytest.raises(Interrupt):
        waits[what]()
    kicker.result()
    now = check_law(q)
    assert now.accepted == what.startswith("put")
    assert now.getters_waiting + now.putters_waiting == 0


def hold_on(q: weir.SharedQueue[int]) -> None:
    while True:
        q.put(q.get())


def test_processes_that_are_killed_all_the_time_wedge_and_lose_nothing_uncounted() -> None:
    context = multiprocessing.get_context("fork")
    q: weir.SharedQueue[int] = weir.SharedQueue(50)
    q.put_many(range(40))
    kills = 0
    children = [start(context, hold_on, q) for _ in range(4)]
    for n in range(60):
        victim = children[n % 4]
        time.sleep(0.003)
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        kills += 1
        check_law(q)
        children[n % 4] = start(context, hold_on, q)
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += 1
    now = check_law(q)
    got = q.get_many(50) if now.qsize else []
    assert len(set(got)) == len(got) >= 40 - kills  # each kill took at most the one in its hands
    assert set(got) <= set(range(40))
    q.put(1)
    assert q.get(timeout=1) == 1


def wait_for_one(q: weir.SharedQueue[int], out: weir.SharedQueue[int]) -> None:
    out.put(q.get())


def test_a_killed_waiter_swallows_no_item_and_a_stopped_one_holds_nobody_up() -> None:
    context = multiprocessing.get_context("fork")
    q, out = weir.SharedQueue[int](5), weir.SharedQueue[int](5)
    first = start(context, wait_for_one, q, out)
    wait_until(lambda: q.stats().getters_waiting == 1)
    second = start(context, wait_for_one, q, out)
    wait_until(lambda: q.stats().getters_waiting == 2)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    q.put(1)
    assert out.get(timeout=10) == 1
    end(second)

    stopped = start(context, wait_for_one, q, out)
    wait_until(lambda: q.stats().getters_waiting == 1)
    os.kill(stopped.pid, signal.SIGSTOP)
    q.put(2)
    assert q.get(timeout=10) == 2
    q.put(3)
    os.kill(stopped.pid, signal.SIGCONT)
    assert out.get(timeout=10) == 3
    end(stopped)


# ---- many ---------------------------------------------------------------------------------------


def produce(q: weir.SharedQueue[tuple[int, int]], who: int, n: int) -> None:
    if who % 2:
        assert q.put_many([(who, i) for i in range(n)]) == n
    else:
        for i in range(n):
            q.put((who, i))


def consume(q: weir.SharedQueue[tuple[int, int]], out: Any, who: int) -> None:
    seen: list[tuple[int, int]] = []
    if who % 2:
        seen.extend(q)
    else:
        while True:
            try:
                seen += q.get_many(7)
            except weir.ShutDown:
                break
    for producer in range(4):  # each consumer sees each producer's items in order
        mine = [i for p, i in seen if p == producer]
        assert mine == sorted(mine)
    out.send(seen)


def test_each_item_of_many_producers_comes_to_one_of_many_consumers_once() -> None:
    context = multiprocessing.get_context("fork")
    q: weir.SharedQueue[tuple[int, int]] = weir.SharedQueue(20)
    pipes = [context.Pipe(False) for _ in range(4)]
    consumers = [start(context, consume, q, pipes[who][1], who) for who in range(4)]
    producers = [start(context, produce, q, who, 3000) for who in range(4)]
    for producer in producers:
        end(producer)
    q.shutdown()
    seen = [item for pipe in pipes for item in pipe[0].recv()]
    for consumer in consumers:
        end(consumer)
    assert sorted(seen) == [(who, i) for who in range(4) for i in range(3000)]
    now = check_law(q)
    assert (now.delivered, now.qsize, now.recovered) == (12000, 0, 0)
    assert now.peak_qsize <= 20
