"""weir.MemoryGovernor, shared by queues and thread pools of one process."""

from __future__ import annotations

import gc
import os
import queue
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import InThread, output_of, wait_until

import weir
from weir import strategies

GIB = 1 << 30
LIMIT = 10_000 * GIB  # more than any machine has: what is really used does not matter


def gib(item: int) -> int:
    return item * GIB


@pytest.fixture
def governor() -> Iterator[weir.MemoryGovernor]:
    governor = weir.MemoryGovernor(LIMIT)
    yield governor
    gc.collect()
    stats = governor.stats()
    assert stats.reserved == stats.inside == stats.waiting == 0
    assert stats.admitted == stats.released


def make(
    governor: weir.MemoryGovernor, maxsize: int | None = None, **options: Any
) -> weir.Queue[int]:
    """A queue of numbers that take so many GiB."""
    return weir.Queue(maxsize, memory=governor, **{"sizer": gib, **options})


def reserved(governor: weir.MemoryGovernor) -> int:
    return governor.stats().reserved // GIB


# ---- queues: in and out -------------------------------------------------------------------------


def test_an_item_has_its_memory_reserved_as_long_as_it_is_inside(
    governor: weir.MemoryGovernor,
) -> None:
    items = make(governor)
    for n in (10, 20, 30):
        items.put(n)
    assert reserved(governor) == 60
    assert governor.stats().inside == 3
    assert items.stats().bytes == 60 * GIB
    assert items.get() == 10
    assert reserved(governor) == 50
    assert items.get_many(10) == [20, 30]
    assert reserved(governor) == 0
    assert items.unfinished_tasks == 3


def test_items_are_measured_as_for_max_bytes(governor: weir.MemoryGovernor) -> None:
    items: weir.Queue[Any] = weir.Queue(10, memory=governor)
    items.put(b"x" * 100)
    items.put(memoryview(bytearray(50)))
    items.put("text")
    assert governor.stats().reserved == 154
    items.put(b"")  # nothing to reserve
    assert governor.stats().inside == 3
    assert [len(item) for item in items.get_many(10)] == [100, 50, 4, 0]


@pytest.mark.parametrize("size", [2**62, 2**64 - 1])
def test_one_may_always_go_however_large(governor: weir.MemoryGovernor, size: int) -> None:
    items = make(governor, sizer=lambda _: size)
    items.put(1)
    with pytest.raises(queue.Full):
        items.put_nowait(1)
    assert items.get() == 1
    items.put_nowait(1)
    assert items.get() == 1


def test_what_a_governor_holds_for_many_items_is_kept_apart(
    governor: weir.MemoryGovernor,
) -> None:
    items = make(governor)
    for _ in range(3):  # its tables grow and shrink again
        assert items.put_many([1] * 3000) == 3000
        assert reserved(governor) == 3000
        for _ in range(3000):
            items.get_nowait()
        assert governor.stats().inside == 0


# ---- queues: no memory --------------------------------------------------------------------------


def test_put_waits_until_there_is_memory(governor: weir.MemoryGovernor) -> None:
    held = governor.reserve(6000 * GIB)
    items = make(governor)
    putter = InThread(items.put, 6000)
    wait_until(lambda: governor.stats().waiting == 1)
    assert items.qsize() == 0
    assert items.unfinished_tasks == 1  # join() waits for it, too
    held.release()
    putter.result()
    assert items.get() == 6000


def test_put_waits_for_what_another_queue_has(governor: weir.MemoryGovernor) -> None:
    one, other = make(governor), make(governor)
    one.put(6000)
    putter = InThread(other.put, 6000)
    wait_until(lambda: governor.stats().waiting == 1)
    assert one.get() == 6000
    putter.result()
    assert other.get() == 6000


def test_put_gives_up_in_time_and_leaves_nothing(governor: weir.MemoryGovernor) -> None:
    items = make(governor)
    with governor.reserve(6000 * GIB):
        with pytest.raises(queue.Full):
            items.put_nowait(6000)
        with pytest.raises(queue.Full):
            items.put(6000, timeout=0.01)
        with pytest.raises(queue.Full):
            items.put(6000, False)
        assert reserved(governor) == 6000
    stats = items.stats()
    assert (stats.accepted, stats.refused, stats.unfinished_tasks) == (0, 3, 0)


def test_a_put_has_one_timeout_for_memory_and_room(governor: weir.MemoryGovernor) -> None:
    held = governor.reserve(6000 * GIB)
    items = make(governor, 1)
    items.put(1)
    putter = InThread(items.put, 6000, timeout=0.3)
    wait_until(lambda: governor.stats().waiting == 1)
    held.release()  # memory there is, but no room
    with pytest.raises(queue.Full):
        putter.result()
    assert reserved(governor) == 1
    assert items.get() == 1


def test_memory_is_held_while_a_put_waits_for_room(governor: weir.MemoryGovernor) -> None:
    items = make(governor, 1)
    items.put(1)
    putter = InThread(items.put, 2)
    wait_until(lambda: items.stats().putters_waiting == 1)
    assert reserved(governor) == 3
    assert items.get() == 1
    putter.result()
    assert items.get() == 2


def test_putters_are_served_in_the_order_they_came(governor: weir.MemoryGovernor) -> None:
    held = governor.reserve(9000 * GIB)
    one, other = make(governor), make(governor)
    putters = []
    for n, (into, size) in enumerate([(one, 6000), (other, 6001), (one, 6002)], 1):
        putters.append(InThread(into.put, size))
        wait_until(lambda n=n: governor.stats().waiting == n)  # type: ignore[misc]
    with pytest.raises(queue.Full):
        other.put_nowait(100)  # there would be room, but not before those who wait
    held.release()
    for n, (of, size) in enumerate([(one, 6000), (other, 6001), (one, 6002)]):
        putters[n].result()
        assert governor.stats().waiting == 2 - n
        assert of.get() == size


def test_an_item_that_can_never_fit_does_not_wait(governor: weir.MemoryGovernor) -> None:
    items = make(governor, max_bytes=5000 * GIB)
    with governor.reserve(9000 * GIB), pytest.raises(weir.TooLarge):
        items.put(6000)
    with pytest.raises(weir.TooLarge):
        items.put(6000)
    assert items.stats().refused == 2


def test_shutdown_releases_who_waits_for_memory(governor: weir.MemoryGovernor) -> None:
    with governor.reserve(9000 * GIB):
        items = make(governor)
        putters = [InThread(items.put, 6000) for _ in range(3)]
        wait_until(lambda: governor.stats().waiting == 3)
        items.shutdown()
        for putter in putters:
            with pytest.raises(weir.ShutDown):
                putter.result()
        with pytest.raises(weir.ShutDown):
            items.put(6000)
    assert items.stats().accepted == 0
    items.join()


def test_shed_raises_overloaded() -> None:
    governor = weir.MemoryGovernor("80%", interval=0.001, slow=1e-6, pause=1e-6, shed=1e-6)
    wait_until(lambda: governor.state == "shed")
    items: weir.Queue[bytes] = weir.Queue(10, memory=governor)
    items.put(b"one may always go")
    with pytest.raises(weir.Overloaded, match="try again later"):
        items.put(b"another")
    with pytest.raises(queue.Full):
        items.put_nowait(b"another")
    assert items.get() == b"one may always go"
    assert governor.stats().inside == 0


def test_a_closed_governor_holds_nothing_back(governor: weir.MemoryGovernor) -> None:
    items = make(governor)
    items.put(6000)
    putter = InThread(items.put, 6001)
    wait_until(lambda: governor.stats().waiting == 1)
    governor.close()
    putter.result()
    items.put(6002)
    assert reserved(governor) == 6000
    assert items.get_many(9) == [6000, 6001, 6002]


def test_a_signal_ends_the_wait_for_memory(governor: weir.MemoryGovernor) -> None:
    def handler(signum: int, frame: object) -> None:
        raise KeyError("signal")

    items = make(governor)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with governor.reserve(9000 * GIB):
            me = threading.get_ident()

            def send() -> None:
                wait_until(lambda: governor.stats().waiting == 1)
                signal.pthread_kill(me, signal.SIGUSR1)

            sender = InThread(send)
            with pytest.raises(KeyError):
                items.put(6000)
            sender.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert items.unfinished_tasks == items.stats().accepted == 0


# ---- queues: policies ---------------------------------------------------------------------------


def test_fail_raises_full_at_once(governor: weir.MemoryGovernor) -> None:
    items = make(governor, overflow="fail")
    items.put(6000)
    with pytest.raises(queue.Full):
        items.put(6000)
    assert items.stats().refused == 1
    assert items.get() == 6000


@pytest.mark.parametrize("policy", ["drop_newest", "sample"])
def test_without_memory_the_newest_is_dropped(governor: weir.MemoryGovernor, policy: str) -> None:
    dropped: list[tuple[int, str]] = []
    items = make(
        governor, 10, overflow=policy, on_drop=lambda item, why: dropped.append((item, why))
    )
    items.put(6000)
    items.put(6001)
    assert dropped == [(6001, "newest")]
    stats = items.stats()
    assert (stats.accepted, stats.dropped["newest"], stats.refused) == (2, 1, 0)
    assert stats.dropped_bytes["newest"] == 6001 * GIB
    assert items.get() == 6000
    items.task_done()
    items.join()


def test_drop_oldest_drops_until_there_is_memory(governor: weir.MemoryGovernor) -> None:
    dropped: list[tuple[int, str]] = []
    items = make(
        governor, overflow="drop_oldest", on_drop=lambda item, why: dropped.append((item, why))
    )
    items.put_many([3000, 3001, 3002])
    items.put(6000)
    assert dropped == [(3000, "oldest"), (3001, "oldest")]
    assert reserved(governor) == 9002
    assert items.get_many(9) == [3002, 6000]
    stats = items.stats()
    assert (stats.accepted, stats.delivered, stats.dropped["oldest"]) == (4, 2, 2)


def test_drop_oldest_drops_the_item_when_nothing_is_left(governor: weir.MemoryGovernor) -> None:
    dropped: list[tuple[int, str]] = []
    items = make(
        governor, overflow="drop_oldest", on_drop=lambda item, why: dropped.append((item, why))
    )
    with governor.reserve(9000 * GIB):
        items.put(500)
        items.put(6000)
        assert dropped == [(500, "oldest"), (6000, "newest")]
        assert reserved(governor) == 9000
    assert items.stats().accepted == 2
    items.join()


def test_a_strategy_waits_for_memory_with_patience(governor: weir.MemoryGovernor) -> None:
    items = make(governor, 10, overflow=strategies.real_time)
    items.put(6000)
    items.put(6001)  # the oldest goes, or the newest, as it says; and nobody waits
    assert items.qsize() <= 1
    items.discard()


# ---- queues: every way out ----------------------------------------------------------------------


def discarded(items: weir.Queue[int]) -> None:
    items.discard()


def shut_down(items: weir.Queue[int]) -> None:
    items.shutdown(immediate=True)


def iterated(items: weir.Queue[int]) -> None:
    items.shutdown()
    assert list(items) == [1] * 5


def got_one_by_one(items: weir.Queue[int]) -> None:
    for _ in range(5):
        items.get()


@pytest.mark.parametrize("way", [discarded, shut_down, iterated, got_one_by_one])
def test_each_way_out_gives_the_memory_back(
    governor: weir.MemoryGovernor, way: Callable[[weir.Queue[int]], None]
) -> None:
    items = make(governor, 5)
    items.put_many([1] * 5)
    assert reserved(governor) == 5
    way(items)
    assert reserved(governor) == 0


def test_the_oldest_the_sampled_and_the_expired_give_theirs_back(
    governor: weir.MemoryGovernor,
) -> None:
    items = make(governor, 3, overflow="drop_oldest")
    items.put_many(range(1, 10))
    assert reserved(governor) == 7 + 8 + 9
    items.discard()

    items = make(governor, 10, overflow="sample", high=2, sample=3)
    items.put_many([1] * 30)
    assert reserved(governor) == items.qsize() == 10
    assert items.stats().dropped["sampled"] > 0
    items.discard()

    items = make(governor, 10, max_age=0.001)
    items.put_many([1] * 5)
    time.sleep(0.002)
    with pytest.raises(queue.Empty):
        items.get_nowait()
    assert items.stats().dropped["expired"] == 5
    assert reserved(governor) == 0


def test_a_queue_that_is_forgotten_gives_it_back(governor: weir.MemoryGovernor) -> None:
    items = make(governor)
    items.put_many([1, 2, 3])
    del items
    assert reserved(governor) == 0

    seen: list[tuple[int, str]] = []
    items = make(governor, on_drop=lambda item, why: seen.append((item, why)))
    items.put_many([1, 2])
    del items
    assert seen == [(1, "discarded"), (2, "discarded")]
    assert reserved(governor) == 0

    circle: Any = weir.Queue(None, memory=governor)
    circle.put([circle])
    assert governor.stats().inside == 1
    del circle
    gc.collect()
    assert governor.stats().inside == 0


def test_a_queue_keeps_its_governor() -> None:
    governor = weir.MemoryGovernor(LIMIT)
    core = governor._core
    items = make(governor)
    items.put(5)
    del governor
    gc.collect()
    assert core.snapshot()["reserved"] == 5 * GIB
    items.get()
    assert core.snapshot()["reserved"] == 0


def test_an_on_drop_that_puts_again_does_no_harm(governor: weir.MemoryGovernor) -> None:
    second = make(governor)
    items = make(
        governor, overflow="drop_oldest", on_drop=lambda item, why: second.put_nowait(item // 2)
    )
    items.put(6000)
    items.put(5000)
    assert (items.get(), second.get()) == (5000, 3000)


# ---- queues: many at once -----------------------------------------------------------------------


def test_put_many_reserves_for_each(governor: weir.MemoryGovernor) -> None:
    items = make(governor)
    assert items.put_many([4000, 4001, 4002], timeout=0.01) == 2
    with pytest.raises(queue.Full):
        items.put_many([4000], timeout=0)
    assert items.get_many(9) == [4000, 4001]

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("iterable")

    with pytest.raises(KeyError):
        items.put_many(broken())
    assert items.put_many([]) == 0
    assert items.get() == 1


def test_put_many_goes_on_when_there_is_memory(governor: weir.MemoryGovernor) -> None:
    items = make(governor, 4)
    sizes = [3000 + n for n in range(50)]
    putter = InThread(items.put_many, sizes)
    assert [items.get() for _ in sizes] == sizes
    assert putter.result() == 50


@pytest.mark.parametrize("policy", ["block", "drop_newest", "drop_oldest", "fail"])
def test_queues_never_hold_more_than_the_governor_lets(
    governor: weir.MemoryGovernor, policy: str
) -> None:
    dropped: Counter[str] = Counter()
    lock = threading.Lock()

    def on_drop(item: int, why: str) -> None:
        with lock:
            dropped[why] += 1

    queues = [make(governor, 30, overflow=policy, on_drop=on_drop) for _ in range(2)]
    taken: Counter[int] = Counter()
    ended = threading.Event()

    def produce(seed: int) -> int:
        dice = random.Random(seed)
        accepted = 0
        for _ in range(300):
            into, item = dice.choice(queues), dice.randint(1, 3000)
            try:
                if dice.random() < 0.3:
                    into.put_nowait(item)
                else:
                    into.put(item, timeout=dice.choice([0.0005, 0.01, 1]))
            except queue.Full:
                continue
            accepted += 1
        return accepted

    def consume(items: weir.Queue[int], which: int) -> None:
        for _ in items:
            with lock:
                taken[which] += 1
            items.task_done()

    def watch() -> None:
        while not ended.is_set():
            for items in queues:
                stats = items.stats()
                assert stats.bytes <= LIMIT
                assert stats.accepted == stats.delivered + sum(stats.dropped.values()) + stats.qsize
            assert governor.stats().reserved <= LIMIT

    watcher = InThread(watch)
    consumers = [InThread(consume, items, n) for n, items in enumerate(queues)]
    producers = [InThread(produce, seed) for seed in range(6)]
    accepted = sum(producer.result(60) for producer in producers)
    for items in queues:
        items.join(30)
        items.shutdown()
    for consumer in consumers:
        consumer.result()
    ended.set()
    watcher.result()
    assert accepted == taken[0] + taken[1] + sum(dropped.values())
    assert [items.stats().delivered for items in queues] == [taken[0], taken[1]]
    assert governor.stats().reserved == 0


# ---- queues: bad input, fork, exit --------------------------------------------------------------


@pytest.mark.parametrize("memory", ["80%", 5, object()])
def test_a_memory_that_is_no_governor_is_refused(memory: Any) -> None:
    with pytest.raises(TypeError, match="'memory' must be a weir\\.MemoryGovernor"):
        weir.Queue(5, memory=memory)
    with pytest.raises(TypeError, match="'memory' must be a weir\\.MemoryGovernor"):
        weir.ThreadPoolExecutor(1, memory=memory, memory_per_task=1)
    weir.Queue[int](5, memory=None).put(1)


def test_a_forked_child_gives_nothing_back_and_cannot_use_the_governor(
    governor: weir.MemoryGovernor,
) -> None:
    items = make(governor)
    items.put(5)
    pid = os.fork()
    if pid == 0:
        try:
            attempts: list[Callable[[], object]] = [
                lambda: make(governor),
                lambda: weir.ThreadPoolExecutor(1, memory=governor, memory_per_task=1),
            ]
            for attempt in attempts:
                try:
                    attempt()
                except RuntimeError as error:
                    if "parent process" not in str(error):
                        os._exit(2)
                else:
                    os._exit(3)
            del items
            os._exit(0)
        finally:
            os._exit(4)
    assert os.waitpid(pid, 0)[1] == 0
    assert reserved(governor) == 5
    items.get()


def test_a_daemon_thread_that_waits_for_memory_at_exit_does_no_harm() -> None:
    assert (
        output_of(
            """
            import threading, time, weir
            governor = weir.MemoryGovernor(10_000 << 30)
            items = weir.Queue(10, memory=governor, sizer=lambda n: n << 30)
            items.put(6000)
            threading.Thread(target=items.put, args=(6000,), daemon=True).start()
            while not governor.stats().waiting:
                time.sleep(0.001)
            print("end")
            """
        )
        == "end\n"
    )


# ---- thread pools -------------------------------------------------------------------------------


class Running:
    """Counts how many of its tasks run at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = self.total = 0

    def __call__(self, number: int = 0) -> int:
        with self.lock:
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)
        time.sleep(0.001)
        with self.lock:
            self.now -= 1
        return number


def test_tasks_run_only_with_their_memory(governor: weir.MemoryGovernor) -> None:
    task = Running()
    with weir.ThreadPoolExecutor(6, memory=governor, memory_per_task="3000GiB") as pool:
        assert list(pool.map(task, range(50))) == list(range(50))
        futures = [pool.submit(task, n) for n in range(50)]
        assert [future.result() for future in futures] == list(range(50))
        assert pool.submit(lambda: governor.stats().reserved).result() >= 3000 * GIB
    assert task.most <= 3
    assert governor.stats().peak_reserved <= 9000 * GIB
    assert governor.stats().admitted >= 101


def test_a_task_that_raises_gives_its_memory_back(governor: weir.MemoryGovernor) -> None:
    def fail() -> None:
        raise KeyError

    with weir.ThreadPoolExecutor(2, memory=governor, memory_per_task=6000 * GIB) as pool:
        for _ in range(5):
            with pytest.raises(KeyError):
                pool.submit(fail).result()
            assert reserved(governor) == 0  # before the future is done


def test_what_waits_for_memory_is_in_the_backlog(governor: weir.MemoryGovernor) -> None:
    held = governor.reserve(9000 * GIB)
    pool = weir.ThreadPoolExecutor(
        2, max_submit_backlog=3, on_full="fail", memory=governor, memory_per_task="6000GiB"
    )
    futures = [pool.submit(abs, -n) for n in range(5)]
    wait_until(lambda: governor.stats().waiting > 0)
    with pytest.raises(weir.BacklogFull):
        pool.submit(abs, 5)
    stats = pool.stats()
    assert (stats.waiting, stats.running) == (5, 0)
    assert futures[1].cancel()
    held.release()
    assert [future.result() for future in futures if not future.cancelled()] == [0, 2, 3, 4]
    pool.shutdown()
    stats = pool.stats()
    assert (stats.accepted, stats.finished, stats.cancelled) == (5, 4, 1)


@pytest.mark.parametrize("how", ["shutdown", "cancel"])
def test_tasks_that_wait_for_memory_can_be_cancelled(
    governor: weir.MemoryGovernor, how: str
) -> None:
    with governor.reserve(9000 * GIB):
        pool = weir.ThreadPoolExecutor(4, memory=governor, memory_per_task="6000GiB")
        futures = [pool.submit(abs, n) for n in range(8)]
        wait_until(lambda: governor.stats().waiting > 0)
        if how == "cancel":
            assert all(future.cancel() for future in futures)
        pool.shutdown(cancel_futures=True)
        assert all(future.cancelled() for future in futures)
        assert pool.stats().workers == 0


def test_a_worker_that_waited_in_vain_works_again(governor: weir.MemoryGovernor) -> None:
    with weir.ThreadPoolExecutor(2, memory=governor, memory_per_task="6000GiB") as pool:
        for _ in range(3):
            with governor.reserve(9000 * GIB):
                future = pool.submit(abs, -1)
                wait_until(lambda: governor.stats().waiting > 0)
                assert future.cancel()
            assert pool.submit(abs, -2).result() == 2


def test_shutdown_waits_for_tasks_that_wait_for_memory(governor: weir.MemoryGovernor) -> None:
    held = governor.reserve(9000 * GIB)
    pool = weir.ThreadPoolExecutor(4, memory=governor, memory_per_task="6000GiB")
    futures = [pool.submit(abs, -n) for n in range(8)]
    ending = InThread(pool.shutdown)
    wait_until(lambda: pool._shutdown)
    assert not ending.is_done
    held.release()
    ending.result()
    assert [future.result() for future in futures] == list(range(8))


def test_a_caller_that_runs_a_task_reserves_its_memory(governor: weir.MemoryGovernor) -> None:
    gate = threading.Event()
    with weir.ThreadPoolExecutor(
        1, max_submit_backlog=1, on_full="caller_runs", memory=governor, memory_per_task="4000GiB"
    ) as pool:
        blocked = [pool.submit(gate.wait, 20) for _ in range(2)]
        wait_until(lambda: pool.stats().running == 1)
        assert pool.submit(reserved, governor).result() == 8000
        assert reserved(governor) == 4000
        with governor.reserve(4000 * GIB):
            caller = InThread(pool.submit, abs, -1)
            wait_until(lambda: governor.stats().waiting == 1)
        assert caller.result().result() == 1
        gate.set()
        assert all(future.result() for future in blocked)


def test_a_task_that_runs_another_does_so_on_its_own_memory(governor: weir.MemoryGovernor) -> None:
    with weir.ThreadPoolExecutor(
        1, max_submit_backlog=1, on_full="caller_runs", memory=governor, memory_per_task="6000GiB"
    ) as pool:

        def outer() -> int:
            waiting = pool.submit(abs, -1)  # fills the backlog
            here = pool.submit(abs, -2)  # so this one runs here, on this task's memory
            assert waiting.cancel()
            result: int = here.result()
            return result

        assert pool.submit(outer).result(20) == 2


def test_with_a_closed_governor_tasks_run(governor: weir.MemoryGovernor) -> None:
    held = governor.reserve(9000 * GIB)
    with weir.ThreadPoolExecutor(2, memory=governor, memory_per_task="6000GiB") as pool:
        future = pool.submit(abs, -1)
        wait_until(lambda: governor.stats().waiting > 0)
        governor.close()
        assert future.result() == 1
    held.release()


def test_under_shed_tasks_wait(governor: weir.MemoryGovernor) -> None:
    scarce = weir.MemoryGovernor("80%", interval=0.001, slow=1e-6, pause=1e-6, shed=1e-6)
    wait_until(lambda: scarce.state == "shed")
    held = scarce.reserve(1)
    with weir.ThreadPoolExecutor(2, memory=scarce, memory_per_task=1) as pool:
        future = pool.submit(abs, -1)
        wait_until(lambda: scarce.stats().shed > 2)
        assert not future.done()
        held.release()
        assert future.result() == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"memory_per_task": 1}, "'memory_per_task' needs memory="),
        ({"memory": True}, "'memory' needs memory_per_task=.*cannot be measured"),
        ({"memory": True, "memory_per_task": 0}, "'memory_per_task' must be > 0"),
        ({"memory": True, "memory_per_task": "50%"}, "'memory_per_task' must be bytes"),
    ],
)
def test_bad_options_of_a_thread_pool_are_refused(options: dict[str, Any], match: str) -> None:
    if "memory" in options:
        options = {**options, "memory": weir.MemoryGovernor(LIMIT)}
    with pytest.raises(ValueError, match=match):
        weir.ThreadPoolExecutor(1, **options)


def test_the_interpreter_ends_though_nobody_gives_memory_back() -> None:
    assert (
        output_of(
            """
            import threading, weir
            governor = weir.MemoryGovernor(10_000 << 30)
            held = governor.reserve(9000 << 30)
            pool = weir.ThreadPoolExecutor(3, memory=governor, memory_per_task="6000GiB")
            running = most = 0
            lock = threading.Lock()
            def task(n):
                global running, most
                with lock:
                    running += 1
                    most = max(most, running)
                print(n, flush=True)
                with lock:
                    running -= 1
                    assert most == 1
            for n in range(5):
                pool.submit(task, n)
            """
        )
        == "0\n1\n2\n3\n4\n"
    )


def test_one_governor_serves_queues_and_pools(governor: weir.MemoryGovernor) -> None:
    items = make(governor)
    items.put(6000)
    with weir.ThreadPoolExecutor(2, memory=governor, memory_per_task="6000GiB") as pool:
        future = pool.submit(abs, -1)
        wait_until(lambda: governor.stats().waiting == 1)
        assert items.get() == 6000
        assert future.result() == 1
        gate = threading.Event()
        holder = pool.submit(gate.wait, 20)
        wait_until(lambda: reserved(governor) == 6000)
        putter = InThread(items.put, 6000)
        wait_until(lambda: governor.stats().waiting == 1)
        gate.set()
        putter.result()
        assert holder.result()
    assert items.get() == 6000


def test_a_pool_that_is_forgotten_ends(governor: weir.MemoryGovernor) -> None:
    pool = weir.ThreadPoolExecutor(2, memory=governor, memory_per_task="6000GiB")
    futures = [pool.submit(abs, -n) for n in range(4)]
    threads = list(pool._threads)
    del pool
    assert [future.result() for future in futures] == [0, 1, 2, 3]
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
