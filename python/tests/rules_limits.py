"""The limits of all faces, as the tests of the rules see them: one interface for two kinds.

A *gate* lets in so many at a time, and gets back what it gave (weir.Limiter).  A *bucket* gives so
much in a time (weir.TokenBucket).  What holds for both is asked of both: each can be exhausted, and
eased so that everybody who waits comes through.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from rules_calls import (
    FORK,
    Call,
    DoneCall,
    Driver,
    DriverCall,
    Loop,
    ProcessCall,
    Refused,
    ThreadCall,
    deadline,
    numbers_of,
    refusal_of,
)

import weir

_names = itertools.count()


def new_name() -> str:
    """A name that no other test shares something by."""
    return f"rules-{os.getpid()}-{time.monotonic_ns()}-{next(_names)}"


@dataclass(frozen=True)
class Look:
    """One instant of a gate or a bucket."""

    size: int  # the limit, or the burst
    held: int  # cost: in flight, or granted and not returned
    waiting: int
    refused: int
    is_closed: bool
    counters: tuple[int, ...]  # what never goes back
    admitted: int = 0  # calls; of gates only, and what follows
    released: int = 0
    in_flight: int = 0
    lost: int = 0
    peak: int = 0


class Subject(ABC):
    """A limit that a rule is asked of: five at a time, or five at once."""

    SIZE: ClassVar[int] = 5
    is_gate: ClassVar[bool]
    can_cancel: ClassVar[bool] = True
    tells_all_who_wait: ClassVar[bool] = True  # also those of other processes, and of event loops
    kept: list[Call]  # a permit that nobody has comes back

    @abstractmethod
    def start_acquire(self, cost: int = 1, timeout: float | None = None) -> Call: ...

    @abstractmethod
    def look(self) -> Look: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def end(self) -> None:
        """Releases what the test has left, and checks that nothing runs any more."""

    @abstractmethod
    def exhaust(self) -> None:
        """Nothing is left."""

    @abstractmethod
    def ease(self) -> None:
        """What exhaust() took is there again, and soon."""

    @abstractmethod
    def resize(self, size: int) -> None:
        """Another limit, or burst."""

    def acquire(self, cost: int = 1, timeout: float | None = 0) -> Call:
        call = self.start_acquire(cost, timeout)
        call.result()
        self.__dict__.setdefault("kept", []).append(call)
        return call

    def shown(self) -> str:
        """Its repr."""
        raise NotImplementedError


class Gate(Subject):
    is_gate = True

    def __init__(self) -> None:
        self._all: Call | None = None

    @abstractmethod
    def release(self, call: Call) -> None:
        """Gives back what an acquire got."""

    @abstractmethod
    def start_work(self, n: int) -> Call:
        """n calls one after the other; how many were inside at once, counted beside the gate."""

    def exhaust(self) -> None:
        self._all = self.acquire(self.SIZE)

    def ease(self) -> None:
        assert self._all is not None
        self.release(self._all)
        self._all = None


class Bucket(Subject):
    is_gate = False
    SLOW = (1, 1000.0)  # tokens, seconds
    QUICK = (50, 1.0)

    @abstractmethod
    def change(self, rate: int, per: float, burst: int) -> None: ...

    @abstractmethod
    def start_work(self, n: int) -> Call:
        """n tokens one after the other; of each between which two times, in seconds, it was got."""

    @abstractmethod
    def reserve(self, n: int) -> tuple[Any, float]:
        """A reservation, and in how many seconds it may be used."""

    @abstractmethod
    def unreserve(self, reservation: Any) -> bool: ...

    def exhaust(self) -> None:
        self.acquire(self.SIZE)

    def ease(self) -> None:
        self.change(*self.QUICK, self.SIZE)

    def resize(self, size: int) -> None:
        self.change(*self.SLOW, size)


# ---- C -------------------------------------------------------------------------------------------


class CGate(Gate):
    """weir_limit."""

    is_shared = False

    def __init__(self, size: int = Subject.SIZE, name: str | None = None) -> None:
        super().__init__()
        shared = new_name() if self.is_shared else None
        self._driver = Driver("limit", limit=size, shared=shared, name=name)

    def start_acquire(self, cost: int = 1, timeout: float | None = None) -> Call:
        return self._driver.begin("acquire", cost, deadline(timeout))

    def release(self, call: Call) -> None:
        assert isinstance(call, DriverCall)
        self._driver.call("release", call.id)

    def start_work(self, n: int) -> Call:
        return self._driver.begin("work", n)

    def resize(self, size: int) -> None:
        self._driver.call("set", size)

    def close(self) -> None:
        self._driver.call("close")

    def look(self) -> Look:
        now = numbers_of(self._driver.call("look"))
        return Look(
            size=now["limit"],
            held=now["used"],
            waiting=now["waiting"],
            refused=now["refused"],
            is_closed=bool(now["is_closed"]),
            counters=tuple(now[key] for key in ("admitted", "released", "refused", "lost", "peak")),
            **{key: now[key] for key in ("admitted", "released", "in_flight", "lost", "peak")},
        )

    def end(self) -> None:
        self._driver.close()


class CSharedGate(CGate):
    """weir_limit with a name that processes share."""

    is_shared = True


class CBucket(Bucket):
    """weir_rate."""

    is_shared = False

    def __init__(
        self,
        size: int = Subject.SIZE,
        rate: tuple[int, float] = Bucket.SLOW,
        name: str | None = None,
    ) -> None:
        self._driver = Driver(
            "rate",
            rate=rate[0],
            per=round(rate[1] * 1e9),
            burst=size,
            shared=new_name() if self.is_shared else None,
            name=name,
        )

    def start_acquire(self, cost: int = 1, timeout: float | None = None) -> Call:
        return self._driver.begin("acquire", cost, deadline(timeout))

    def start_work(self, n: int) -> Call:
        return _CWork(self._driver, n)

    def change(self, rate: int, per: float, burst: int) -> None:
        self._driver.call("set", rate, round(per * 1e9), burst)

    def reserve(self, n: int) -> tuple[Any, float]:
        call = self._driver.begin("reserve", n)
        return call.id, call.result() / 1e9

    def unreserve(self, reservation: Any) -> bool:
        return self._driver.call("unreserve", reservation) == ["1"]

    def close(self) -> None:
        self._driver.call("close")

    def look(self) -> Look:
        now = numbers_of(self._driver.call("look"))
        return Look(
            size=now["burst"],
            held=now["granted"] - now["returned"],
            waiting=now["waiting"],
            refused=now["refused"],
            is_closed=bool(now["is_closed"]),
            counters=(now["granted"], now["returned"], now["refused"]),
        )

    def end(self) -> None:
        self._driver.close()


class _CWork:
    """The times come as lines."""

    def __init__(self, driver: Driver, n: int) -> None:
        self._driver = driver
        self._call = driver.begin("work", n)

    @property
    def is_done(self) -> bool:
        return self._call.is_done

    def result(self) -> list[tuple[float, float]]:
        self._call.result()
        told = [told for told in self._driver.told if told[:2] == ["got", self._call.id]]
        return [(int(words[2]) / 1e9, int(words[3]) / 1e9) for words in told]

    def cancel(self) -> None:
        self._call.cancel()


class CSharedBucket(CBucket):
    """weir_rate with a name that processes share."""

    is_shared = True

    def end(self) -> None:
        self.change(10**9, 1.0, 1)  # a bucket that is not full would be kept
        super().end()


# ---- Python: gates -------------------------------------------------------------------------------


def _make(make: Callable[[], Any]) -> Any:
    """What it makes; a refusal is said in the words of all faces."""
    try:
        return make()
    except (ValueError, TypeError) as error:
        raise refusal_of(error) from error


class Inside:
    """How many are inside, in memory of all processes; and the most that the caller has seen."""

    def __init__(self) -> None:
        self._count = FORK.Value("i", 0)

    def enter(self) -> int:
        with self._count.get_lock():
            self._count.value += 1
            return int(self._count.value)

    def leave(self) -> None:
        with self._count.get_lock():
            self._count.value -= 1


class ThreadGate(Gate):
    """weir.Limiter, used by threads."""

    can_cancel = False
    is_shared = False

    def __init__(self, size: int = Subject.SIZE, name: str | None = None) -> None:
        super().__init__()
        shared = new_name() if self.is_shared else None
        self.limiter: weir.Limiter = _make(lambda: weir.Limiter(size, shared=shared, name=name))
        self._inside = Inside()

    def start_acquire(self, cost: int = 1, timeout: float | None = None) -> Call:
        return ThreadCall(lambda: self.limiter.acquire(timeout, cost=cost))

    def release(self, call: Call) -> None:
        call.result().release()

    def _work(self, n: int) -> int:
        peak = 0
        for _ in range(n):
            with self.limiter:
                peak = max(peak, self._inside.enter())
                time.sleep(0)
                self._inside.leave()
        return peak

    def start_work(self, n: int) -> Call:
        return ThreadCall(lambda: self._work(n))

    def resize(self, size: int) -> None:
        DoneCall(lambda: setattr(self.limiter, "limit", size)).result()

    def close(self) -> None:
        self.limiter.close()

    def look(self) -> Look:
        now = self.limiter.stats()
        return Look(
            size=now.limit,
            held=now.used,
            waiting=now.waiting,
            refused=now.refused,
            is_closed=now.is_closed,
            counters=(now.admitted, now.released, now.refused, now.lost, now.peak),
            admitted=now.admitted,
            released=now.released,
            in_flight=now.in_flight,
            lost=now.lost,
            peak=now.peak,
        )

    def shown(self) -> str:
        return repr(self.limiter)

    def end(self) -> None:
        self.limiter.close()


class LoopGate(ThreadGate):
    """weir.Limiter, used by the tasks of an event loop."""

    can_cancel = True

    def __init__(self, size: int = Subject.SIZE, name: str | None = None) -> None:
        super().__init__(size, name)
        self._loop = Loop()

    def start_acquire(self, cost: int = 1, timeout: float | None = None) -> Call:
        return self._loop.begin(lambda: self.limiter.aacquire(timeout, cost=cost))

    def start_work(self, n: int) -> Call:
        async def work() -> int:
            peak = 0
            for _ in range(n):
                async with self.limiter:
                    peak = max(peak, self._inside.enter())
                    await asyncio.sleep(0)
                    self._inside.leave()
            return peak

        return self._loop.begin(work)

    def end(self) -> None:
        self.limiter.close()
        self._loop.close()


class SharedLoopGate(LoopGate):
    """weir.Limiter with a name that processes share, used by the tasks of an event loop."""

    is_shared = True
    tells_all_who_wait = False  # one of them stands in line for all


class ProcessGate(ThreadGate):
    """weir.Limiter with a name that processes share; each call is another process's."""

    can_cancel = True
    is_shared = True

    def __init__(self, size: int = Subject.SIZE, name: str | None = None) -> None:
        super().__init__(size, name)
        self._calls: list[ProcessCall] = []

    def start_acquire(self, cost: int = 1, timeout: float | None = None) -> Call:
        acquire = lambda: self.limiter.acquire(timeout, cost=cost)  # noqa: E731
        self._calls.append(ProcessCall(acquire, lambda permit: permit.release()))
        return self._calls[-1]

    def release(self, call: Call) -> None:
        assert isinstance(call, ProcessCall)
        call.release()

    def start_work(self, n: int) -> Call:
        self._calls.append(ProcessCall(lambda: self._work(n)))
        return self._calls[-1]

    def kill(self, call: Call) -> None:
        """The holder dies."""
        call.cancel()

    def close(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        for call in self._calls:
            call.end()
        super().end()


# ---- Python: buckets -----------------------------------------------------------------------------


class ThreadBucket(Bucket):
    """weir.TokenBucket, used by threads."""

    can_cancel = False
    is_shared = False

    def __init__(
        self,
        size: int = Subject.SIZE,
        rate: tuple[int, float] = Bucket.SLOW,
        name: str | None = None,
    ) -> None:
        shared = new_name() if self.is_shared else None
        self.bucket: weir.TokenBucket = _make(
            lambda: weir.TokenBucket(rate[0], per=rate[1], burst=size, shared=shared, name=name)
        )

    def _acquire(self, cost: int, timeout: float | None) -> None:
        if not self.bucket.acquire(cost, timeout):
            raise Refused("full")

    def start_acquire(self, cost: int = 1, timeout: float | None = None) -> Call:
        return ThreadCall(lambda: self._acquire(cost, timeout))

    def _work(self, n: int) -> list[tuple[float, float]]:
        times = []
        for _ in range(n):
            before = time.monotonic()
            self.bucket.acquire()
            times.append((before, time.monotonic()))
        return times

    def start_work(self, n: int) -> Call:
        return ThreadCall(lambda: self._work(n))

    def change(self, rate: int, per: float, burst: int) -> None:
        DoneCall(lambda: self.bucket.change(rate, per=per, burst=burst)).result()

    def reserve(self, n: int) -> tuple[Any, float]:
        call = DoneCall(lambda: self.bucket.reserve(n))
        return call.result(), call.result().delay

    def unreserve(self, reservation: Any) -> bool:
        return bool(reservation.cancel())

    def close(self) -> None:
        self.bucket.close()

    def look(self) -> Look:
        now = self.bucket.stats()
        return Look(
            size=self.bucket.burst,
            held=now.granted - now.returned,
            waiting=now.waiting,
            refused=now.refused,
            is_closed=now.is_closed,
            counters=(now.granted, now.returned, now.refused),
        )

    def shown(self) -> str:
        return repr(self.bucket)

    def end(self) -> None:
        self.bucket.close()


class LoopBucket(ThreadBucket):
    """weir.TokenBucket, used by the tasks of an event loop."""

    can_cancel = True

    def __init__(
        self,
        size: int = Subject.SIZE,
        rate: tuple[int, float] = Bucket.SLOW,
        name: str | None = None,
    ) -> None:
        super().__init__(size, rate, name)
        self._loop = Loop()

    async def _aacquire(self, cost: int, timeout: float | None) -> None:
        if not await self.bucket.aacquire(cost, timeout):
            raise Refused("full")

    def start_acquire(self, cost: int = 1, timeout: float | None = None) -> Call:
        return self._loop.begin(lambda: self._aacquire(cost, timeout))

    def start_work(self, n: int) -> Call:
        async def work() -> list[tuple[float, float]]:
            times = []
            for _ in range(n):
                before = time.monotonic()
                await self.bucket.aacquire()
                times.append((before, time.monotonic()))
            return times

        return self._loop.begin(work)

    def end(self) -> None:
        self.bucket.close()
        self._loop.close()


class ProcessBucket(ThreadBucket):
    """weir.TokenBucket with a name that processes share; each call is another process's."""

    can_cancel = True
    is_shared = True
    tells_all_who_wait = False  # only those of this process

    def __init__(
        self,
        size: int = Subject.SIZE,
        rate: tuple[int, float] = Bucket.SLOW,
        name: str | None = None,
    ) -> None:
        super().__init__(size, rate, name)
        self._calls: list[ProcessCall] = []

    def start_acquire(self, cost: int = 1, timeout: float | None = None) -> Call:
        self._calls.append(ProcessCall(lambda: self._acquire(cost, timeout)))
        return self._calls[-1]

    def start_work(self, n: int) -> Call:
        self._calls.append(ProcessCall(lambda: self._work(n)))
        return self._calls[-1]

    def end(self) -> None:
        for call in self._calls:
            call.end()
        self.change(10**9, 1.0, 1)  # a bucket that is not full would be kept
        super().end()


GATES: dict[str, type[Gate]] = {
    "c_limit": CGate,
    "c_shared_limit": CSharedGate,
    "threads_limit": ThreadGate,
    "asyncio_limit": LoopGate,
    "asyncio_shared_limit": SharedLoopGate,
    "processes_limit": ProcessGate,
}
BUCKETS: dict[str, type[Bucket]] = {
    "c_rate": CBucket,
    "c_shared_rate": CSharedBucket,
    "threads_rate": ThreadBucket,
    "asyncio_rate": LoopBucket,
    "processes_rate": ProcessBucket,
}
