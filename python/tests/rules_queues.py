"""The queues of all faces, as the tests of the rules see them: one interface, a class for each
face.

An item is a number; what it costs is said when it is put.  Every call may be begun (`start_...`)
and be waited for later; where it runs is the face's: in C, in threads, in an event loop, in other
processes.
"""

from __future__ import annotations

import select
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from rules_calls import (
    Call,
    DoneCall,
    Driver,
    Loop,
    ProcessCall,
    Servant,
    ThreadCall,
    deadline,
    numbers_of,
    perhaps,
    refusal_of,
)

import weir

POLICIES = ("block", "fail", "drop_newest", "drop_oldest", "sample", "spill")


@dataclass(frozen=True)
class Look:
    """One instant of a queue."""

    maxsize: int
    qsize: int
    bytes: int
    spilled: int
    spilled_bytes: int
    accepted: int
    accepted_bytes: int
    delivered: int
    delivered_bytes: int
    dropped: Mapping[str, int]
    dropped_bytes: Mapping[str, int]
    refused: int
    putters_waiting: int
    getters_waiting: int
    peak_qsize: int
    is_shutdown: bool

    @property
    def counters(self) -> tuple[int, ...]:
        """What never goes back."""
        return (
            *(self.accepted, self.accepted_bytes, self.delivered, self.delivered_bytes),
            *(self.refused, self.peak_qsize, self.is_shutdown),
            *self.dropped.values(),
            *self.dropped_bytes.values(),
        )


def look_of(stats: weir.QueueStats | weir.SharedQueueStats) -> Look:
    fields: dict[str, Any] = {name: getattr(stats, name, 0) for name in Look.__dataclass_fields__}
    return Look(**fields)


class Options(NamedTuple):
    maxsize: int
    overflow: str = "block"
    max_bytes: int | None = None
    max_age: float | None = None
    sample: int = 3
    name: str | None = None


class Subject(ABC):
    """A queue that a rule is asked of."""

    can_cancel: ClassVar[bool] = True
    tells_drops: ClassVar[bool] = True  # has on_drop
    policies: ClassVar[tuple[str, ...]] = POLICIES

    @abstractmethod
    def __init__(self, options: Options) -> None: ...

    @abstractmethod
    def start_put(self, number: int, *, cost: int = 1, timeout: float | None = None) -> Call: ...

    @abstractmethod
    def start_get(self, timeout: float | None = None) -> Call: ...

    @abstractmethod
    def start_put_range(self, first: int, n: int) -> Call:
        """A producer of n items; how many went in."""

    @abstractmethod
    def start_get_all(self) -> Call:
        """A consumer, until the queue is closed and empty; the numbers that it got."""

    @abstractmethod
    def put_many(self, numbers: list[int], timeout: float | None = None) -> int: ...

    @abstractmethod
    def get_many(self, max: int, timeout: float | None = None) -> list[int]: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def discard(self) -> int: ...

    @abstractmethod
    def look(self) -> Look: ...

    @abstractmethod
    def end(self) -> None:
        """Releases what the test has left, and checks that nothing runs any more."""

    @property
    def drops(self) -> list[tuple[int, str]]:
        """What on_drop was told."""
        raise NotImplementedError

    def resize(self, maxsize: int) -> None:
        raise NotImplementedError

    def readable(self) -> tuple[bool, bool]:
        """Whether item_fd and room_fd are."""
        raise NotImplementedError

    def shown(self) -> str:
        """Its repr."""
        raise NotImplementedError

    def put(self, number: int, *, cost: int = 1, timeout: float | None = 0) -> None:
        self.start_put(number, cost=cost, timeout=timeout).result()

    def get(self, timeout: float | None = 0) -> int:
        got: int = self.start_get(timeout).result()
        return got

    def get_rest(self) -> list[int]:
        """What is inside, one by one."""
        got: list[int] = []
        with perhaps("empty", "closed"):
            while len(got) < 1000:
                got.append(self.get())
        return got


# ---- C -------------------------------------------------------------------------------------------


class CQueue(Subject):
    """weir_queue."""

    kind = "queue"

    def __init__(self, options: Options) -> None:
        self._disk = tempfile.TemporaryDirectory() if options.overflow == "spill" else None
        self._driver = Driver(
            self.kind,
            capacity=options.maxsize,
            overflow=options.overflow,
            max_cost=options.max_bytes,
            max_age=options.max_age and round(options.max_age * 1e9),
            sample=options.sample,
            spill=self._disk and self._disk.name,
            name=options.name,
        )

    def start_put(self, number: int, *, cost: int = 1, timeout: float | None = None) -> Call:
        return self._driver.begin("put", number, cost, deadline(timeout))

    def start_get(self, timeout: float | None = None) -> Call:
        return self._driver.begin("get", deadline(timeout), timed_out="empty")

    def start_put_range(self, first: int, n: int) -> Call:
        return self._driver.begin("put_range", first, n, 1, "forever")

    def start_get_all(self) -> Call:
        return _CGetAll(self._driver)

    def put_many(self, numbers: list[int], timeout: float | None = None) -> int:
        return int(self._driver.call("put_many", deadline(timeout), *numbers)[0])

    def get_many(self, max: int, timeout: float | None = None) -> list[int]:
        words = self._driver.call("get_many", max, deadline(timeout), 0, timed_out="empty")
        return [int(word) for word in words]

    def close(self) -> None:
        self._driver.call("close")

    def discard(self) -> int:
        return int(self._driver.call("discard")[0])

    def resize(self, maxsize: int) -> None:
        self._driver.call("resize", maxsize, 0)

    def look(self) -> Look:
        numbers = numbers_of(self._driver.call("look"))
        fields: dict[str, Any] = {
            name: numbers[name] for name in Look.__dataclass_fields__ if name in numbers
        }
        return Look(
            **fields,
            dropped=_part(numbers, "dropped."),
            dropped_bytes=_part(numbers, "bytes."),
        )

    def readable(self) -> tuple[bool, bool]:
        item, room = self._driver.call("readable")
        return item == "1", room == "1"

    @property
    def drops(self) -> list[tuple[int, str]]:
        return [(int(told[1]), told[2]) for told in self._driver.told if told[0] == "drop"]

    def end(self) -> None:
        self._driver.close()
        if self._disk is not None:
            self._disk.cleanup()


def _part(numbers: dict[str, int], prefix: str) -> dict[str, int]:
    return {key[len(prefix) :]: value for key, value in numbers.items() if key.startswith(prefix)}


class _CGetAll:
    """The items come as lines, the answer says how many."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._call = driver.begin("get_all")

    @property
    def is_done(self) -> bool:
        return self._call.is_done

    def result(self) -> list[int]:
        n = self._call.result()
        told = [told for told in self._driver.told if told[:2] == ["got", self._call.id]]
        assert len(told) == n
        return [int(words[2]) for words in told]

    def cancel(self) -> None:
        self._call.cancel()


class CSharedQueue(CQueue):
    """weir_shared_queue, used by the threads of one process."""

    kind = "shared_queue"
    tells_drops = False
    policies = POLICIES[:-1]

    @property
    def drops(self) -> list[tuple[int, str]]:
        raise NotImplementedError


# ---- Python: threads, an event loop --------------------------------------------------------------


class Item(NamedTuple):
    number: int
    cost: int


class ThreadQueue(Subject):
    """weir.Queue, used by threads."""

    can_cancel = False

    def __init__(self, options: Options) -> None:
        self._drops: list[tuple[int, str]] = []
        self._disk: tempfile.TemporaryDirectory[str] | None = None
        spill = None
        if options.overflow == "spill":
            self._disk = tempfile.TemporaryDirectory()
            spill = weir.Spill(Path(self._disk.name, "items"), max_bytes=1 << 20)
        try:
            self.queue: weir.Queue[Item] = weir.Queue(
                options.maxsize,
                overflow=options.overflow,  # type: ignore[arg-type] # any word, also a wrong one
                max_bytes=options.max_bytes,
                sizer=lambda item: item.cost,
                max_age=options.max_age,
                sample=options.sample,
                on_drop=self._on_drop,
                name=options.name,
                spill=spill,
            )
        except (ValueError, TypeError) as error:
            raise refusal_of(error) from error

    def _on_drop(self, item: Item, reason: str) -> None:
        self.queue.stats()  # as an on_drop may: with a lock held it would wait for itself
        self._drops.append((item.number, reason))

    def start_put(self, number: int, *, cost: int = 1, timeout: float | None = None) -> Call:
        return ThreadCall(lambda: self.queue.put(Item(number, cost), timeout=timeout))

    def start_get(self, timeout: float | None = None) -> Call:
        return ThreadCall(lambda: self.queue.get(timeout=timeout).number)

    def start_put_range(self, first: int, n: int) -> Call:
        return ThreadCall(lambda: _put_range(self.queue, first, n))

    def start_get_all(self) -> Call:
        return ThreadCall(lambda: [item.number for item in self.queue])

    def put_many(self, numbers: list[int], timeout: float | None = None) -> int:
        items = [Item(number, 1) for number in numbers]
        n: int = ThreadCall(lambda: self.queue.put_many(items, timeout)).result()
        return n

    def get_many(self, max: int, timeout: float | None = None) -> list[int]:
        got = ThreadCall(lambda: self.queue.get_many(max, timeout=timeout)).result()
        return [item.number for item in got]

    def close(self) -> None:
        self.queue.shutdown()

    def discard(self) -> int:
        return self.queue.discard()

    def resize(self, maxsize: int) -> None:
        DoneCall(lambda: setattr(self.queue, "maxsize", maxsize)).result()

    def look(self) -> Look:
        return look_of(self.queue.stats())

    def readable(self) -> tuple[bool, bool]:
        return _is_readable(self.queue.item_fd()), _is_readable(self.queue.room_fd())

    def shown(self) -> str:
        return repr(self.queue)

    @property
    def drops(self) -> list[tuple[int, str]]:
        return list(self._drops)

    def end(self) -> None:
        self.queue.shutdown(immediate=True)
        if self._disk is not None:
            del self.queue
            self._disk.cleanup()


def _put_range(queue: weir.Queue[Any] | weir.SharedQueue[Any], first: int, n: int) -> int:
    for number in range(first, first + n):
        queue.put(Item(number, 1))
    return n


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


class LoopQueue(ThreadQueue):
    """weir.Queue, used by the tasks of an event loop."""

    can_cancel = True

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._loop = Loop()

    def start_put(self, number: int, *, cost: int = 1, timeout: float | None = None) -> Call:
        return self._loop.begin(lambda: self.queue.aput(Item(number, cost), timeout))

    def start_get(self, timeout: float | None = None) -> Call:
        async def get() -> int:
            return (await self.queue.aget(timeout)).number

        return self._loop.begin(get)

    def start_put_range(self, first: int, n: int) -> Call:
        async def put() -> int:
            for number in range(first, first + n):
                await self.queue.aput(Item(number, 1))
            return n

        return self._loop.begin(put)

    def start_get_all(self) -> Call:
        async def get() -> list[int]:
            return [item.number async for item in self.queue]

        return self._loop.begin(get)

    def put_many(self, numbers: list[int], timeout: float | None = None) -> int:
        items = [Item(number, 1) for number in numbers]
        n: int = self._loop.begin(lambda: self.queue.aput_many(items, timeout)).result()
        return n

    def get_many(self, max: int, timeout: float | None = None) -> list[int]:
        got = self._loop.begin(lambda: self.queue.aget_many(max, timeout=timeout)).result()
        return [item.number for item in got]

    def end(self) -> None:
        self.queue.shutdown(immediate=True)
        self._loop.close()
        super().end()


# ---- Python: processes ---------------------------------------------------------------------------


class _Messages:
    """A weir.SharedQueue whose items are numbers, as large as they cost."""

    def __init__(self, queue: weir.SharedQueue[tuple[int, bytes]]) -> None:
        self.queue = queue

    def put(self, number: int, cost: int, timeout: float | None) -> None:
        self.queue.put((number, bytes(cost)), timeout=timeout)

    def get(self, timeout: float | None) -> int:
        return self.queue.get(timeout=timeout)[0]

    def put_range(self, first: int, n: int) -> int:
        for number in range(first, first + n):
            self.put(number, 1, None)
        return n

    def get_all(self) -> list[int]:
        return [number for number, _ in self.queue]

    def put_many(self, numbers: list[int], timeout: float | None) -> int:
        return self.queue.put_many([(number, b"") for number in numbers], timeout)

    def get_many(self, max: int, timeout: float | None) -> list[int]:
        return [number for number, _ in self.queue.get_many(max, timeout=timeout)]

    def shutdown(self) -> None:
        self.queue.shutdown()

    def discard(self) -> int:
        return self.queue.discard()


class ProcessQueue(Subject):
    """weir.SharedQueue, each call of which is made by another process than the one that looks."""

    tells_drops = False
    policies = POLICIES[:-1]

    def __init__(self, options: Options) -> None:
        try:
            self._messages = _Messages(
                weir.SharedQueue(
                    options.maxsize,
                    overflow=options.overflow,  # type: ignore[arg-type] # any word, also a wrong one
                    max_bytes=options.max_bytes,
                    max_age=options.max_age,
                    sample=options.sample,
                    name=options.name,
                )
            )
        except (ValueError, TypeError) as error:
            raise refusal_of(error) from error
        self._servant = Servant(self._messages)
        self._calls: list[ProcessCall] = []

    def _begin(self, name: Literal["put", "get", "put_range", "get_all"], *args: Any) -> Call:
        fn: Callable[..., Any] = getattr(self._messages, name)
        self._calls.append(ProcessCall(lambda: fn(*args)))
        return self._calls[-1]

    def start_put(self, number: int, *, cost: int = 1, timeout: float | None = None) -> Call:
        if timeout is None:
            return self._begin("put", number, cost, timeout)
        return DoneCall(lambda: self._servant.call("put", number, cost, timeout))

    def start_get(self, timeout: float | None = None) -> Call:
        if timeout is None:
            return self._begin("get", timeout)
        return DoneCall(lambda: self._servant.call("get", timeout))

    def start_put_range(self, first: int, n: int) -> Call:
        return self._begin("put_range", first, n)

    def start_get_all(self) -> Call:
        return self._begin("get_all")

    def put_many(self, numbers: list[int], timeout: float | None = None) -> int:
        n: int = self._servant.call("put_many", numbers, timeout)
        return n

    def get_many(self, max: int, timeout: float | None = None) -> list[int]:
        got: list[int] = self._servant.call("get_many", max, timeout)
        return got

    def close(self) -> None:
        self._servant.call("shutdown")

    def discard(self) -> int:
        n: int = self._servant.call("discard")
        return n

    def look(self) -> Look:
        return look_of(self._messages.queue.stats())

    def shown(self) -> str:
        return repr(self._messages.queue)

    def end(self) -> None:
        self._messages.queue.shutdown()
        self._servant.close()
        for call in self._calls:
            call.end()


QUEUES: dict[str, type[Subject]] = {
    "c": CQueue,
    "c_shared": CSharedQueue,
    "threads": ThreadQueue,
    "asyncio": LoopQueue,
    "processes": ProcessQueue,
}
