"""Flow: pull streams, where nothing moves before it is asked for.

A flow is a source and the operators behind it, and no more: it does not change, holds nothing and
runs nothing.  Reading it builds generators (see _flow_steps.py) and pulls.  So pressure needs no
protocol: an item that nobody asked for has not been made.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from weir import _flow_async, _flow_sync
from weir._calls import bucket_of, limit_of
from weir._errors import ShutDown
from weir._flow_ends import MISSING, Ends, check_function, check_plain
from weir._flow_steps import (
    AnyIterable,
    Stage,
    Step,
    arun,
    can_run_again,
    check_async,
    is_new,
    run,
    why_not_sync,
)
from weir._guard import count as counted
from weir._guard import kind_of, number
from weir._retry import Retry
from weir._weir import Queue, SharedQueue

if TYPE_CHECKING:
    from weir._limit import Limiter
    from weir._rate import TokenBucket

__all__ = ["Flow"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
V = TypeVar("V")
R = TypeVar("R")

Sync = Callable[..., Generator[Any, None, None]]
Aio = Callable[..., AsyncGenerator[Any, None]]

_MOST = 2**31 - 1
_QUEUE_INSTEAD = (
    "put a weir.Queue between, which a thread fills with Flow(...).to_queue(queue, shutdown=True)"
)


def _seconds(name: str, seconds: float) -> float:
    value = number(name, seconds, 0)
    if value == 0:
        raise ValueError(f"{name!r} must be > 0 seconds, not {seconds!r}")
    return value


def _not_negative(name: str, n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"{name!r} must be an int, not {n!r}")
    if n < 0:
        raise ValueError(f"{name!r} must be >= 0, not {n!r}")
    return n


def _itself(item: U) -> U:
    return item


class _Batches:
    """A queue, read in batches; one of its waits for an item is one for a batch."""

    def __init__(self, queue: Queue[Any] | SharedQueue[Any], count: int, seconds: float) -> None:
        self._queue: Any = queue
        self._count, self._seconds = count, seconds

    def __repr__(self) -> str:
        return f"{self._queue!r} in batches"

    def __iter__(self) -> Generator[list[Any], None, None]:
        try:
            while True:
                yield self._queue.get_many(self._count, linger=self._seconds)
        except ShutDown:
            return

    async def __aiter__(self) -> AsyncGenerator[list[Any], None]:
        check_async(self._queue)
        try:
            while True:
                yield await self._queue.aget_many(self._count, linger=self._seconds)
        except ShutDown:
            return


class Flow(Ends[T_co]):
    """A stream that is pulled: `for item in flow`, or `async for` in an event loop.

        Flow(paths).map(parse).filter(is_valid).buffer(100).for_each(store)
        async for page in Flow(urls).throttle(50).par_map(fetch, 10, kind="async"): ...

    source   an iterable, an async iterable, a weir.Queue, another flow; or a function without
             arguments that returns one, which is called for each run: so a flow over a function
             can be read any number of times, and one over a generator once

    Every operator returns a new flow, and nothing runs before somebody asks for an item.  Then the
    source is pulled for that item, and is never further ahead than an operator says: `buffer(n)`
    takes n for one batch, `par_map(fn, n)` has n in flight, results included.  No operator holds
    more than that.

    Errors travel down: an exception of the source, or of a function, is raised where the flow is
    read, and ends it.  Closing travels up: when a reader's loop ends, whatever the reason, what the
    flow runs ends, and each source is closed, once.  A loop that is left early (break) closes it
    when its iterator is dropped; `with contextlib.closing(iter(flow)) as items`, or
    `async with contextlib.aclosing(aiter(flow)) as items`, does it there and then; in an event loop
    only that does it in the reader's task.  Items that were taken from the source by then, and not
    read, go with it.  A source that somebody else opened and that is no generator (a file) stays
    open.

    Functions are called by whoever reads, one at a time, unless an operator says otherwise.  An
    operator that has to wait for two things at once needs an event loop, and `for` says so with a
    TypeError.  One reader reads an iterator; `tee` is for several.
    """

    __slots__ = ("_given", "_ops")

    def __init__(self, source: AnyIterable[T_co] | Callable[[], AnyIterable[T_co]], /) -> None:
        if not isinstance(source, (Iterable, AsyncIterable)) and not callable(source):
            raise TypeError(
                "Flow takes an iterable, an async iterable, or a function that returns one, not "
                f"{source!r}"
            )
        self._given: Any = source
        self._ops: tuple[Step | Stage, ...] = ()

    def _with(self, op: Step | Stage) -> Flow[Any]:
        flow: Flow[Any] = Flow(self._given)
        flow._ops = (*self._ops, op)
        return flow

    def _step(self, name: str, arg: Any, kind: str | None = None) -> Flow[Any]:
        return self._with(Step(kind or name, arg, name))

    def _stage(
        self,
        name: str,
        sync: Sync | None,
        aio: Aio,
        *args: Any,
        instead: str = "",
        others: Any = (),
    ) -> Flow[Any]:
        return self._with(Stage(name, sync, aio, args, instead, others))

    def __iter__(self) -> Generator[T_co, None, None]:
        why = why_not_sync(self._given, self._ops)
        if why is not None:
            raise TypeError(why)
        return run(self._given, self._ops)

    def __aiter__(self) -> AsyncGenerator[T_co, None]:  # noqa: PYI058  (it has an aclose)
        return arun(self._given, self._ops)

    def __repr__(self) -> str:
        names = [op.name.removesuffix("()") for op in self._ops]
        if len(names) > 8:
            names[4:-3] = [f"{len(names) - 7} more"]
        return f"<weir.Flow of {self._given!r}{': ' if names else ''}{', '.join(names)}>"

    # ---- item by item ----------------------------------------------------------------------------

    @overload
    def map(self, fn: Callable[[T_co], Awaitable[R]]) -> Flow[R]: ...
    @overload
    def map(self, fn: Callable[[T_co], R]) -> Flow[R]: ...
    def map(self, fn: Callable[[T_co], Any]) -> Flow[Any]:
        """fn(item) of each item; a coroutine function is awaited, in an event loop.

        `par_map` calls it for several items at a time.
        """
        check_function("map", fn)
        return self._step("map", fn, "amap" if kind_of(fn) == "coroutine" else "map")

    def filter(self, fn: Callable[[T_co], object]) -> Flow[T_co]:
        """The items for which fn(item) is true; fn may be a coroutine function."""
        check_function("filter", fn)
        return self._step("filter", fn, "afilter" if kind_of(fn) == "coroutine" else "filter")

    def take(self, n: int) -> Flow[T_co]:
        """The first n items, n >= 0; the source is not pulled for more."""
        return self._step("take", _not_negative("n", n))

    def drop(self, n: int) -> Flow[T_co]:
        """All but the first n items, n >= 0."""
        return self._step("drop", _not_negative("n", n))

    def take_while(self, fn: Callable[[T_co], object]) -> Flow[T_co]:
        """The items before the first for which fn(item) is false; that one is taken, too."""
        check_plain("take_while", fn)
        return self._step("take_while", fn)

    def drop_while(self, fn: Callable[[T_co], object]) -> Flow[T_co]:
        """The items from the first on for which fn(item) is false."""
        check_plain("drop_while", fn)
        return self._step("drop_while", fn)

    @overload
    def scan(self, fn: Callable[[T_co, T_co], T_co]) -> Flow[T_co]: ...
    @overload
    def scan(self, fn: Callable[[R, T_co], R], initial: R) -> Flow[R]: ...
    def scan(self, fn: Callable[[Any, Any], Any], initial: Any = MISSING) -> Flow[Any]:
        """Each item becomes fn(what the last one became, item), as in running sums.

        initial   for the first item; without it the first item is itself.  It is no item: as many
                  come out as went in (itertools.accumulate has one more)
        """
        check_plain("scan", fn)
        if initial is MISSING:
            return self._step("scan", fn, "running")
        return self._step("scan", (fn, initial))

    def distinct(
        self, *, last: int | None, key: Callable[[T_co], object] | None = None
    ) -> Flow[T_co]:
        """Drops items that are equal to one of the `last` ones that passed.

        last   an int > 0: how many are remembered; 1: drops repetitions only (Rx calls this
               distinct_until_changed).  None: all of them, so that memory grows with the flow
        key    what is compared, key(item); must be hashable, unless last is 1
        """
        remembered = None if last is None else counted("last", last, _MOST)
        if key is not None:
            check_plain("key", key)
        return self._step("distinct", lambda: is_new(remembered, key))

    def throttle(self, rate: float | TokenBucket) -> Flow[T_co]:
        """Waits with each item for a token: items are late, and none is lost.

        rate   items per second, > 0, evenly; or a weir.TokenBucket, which may be shared with other
               flows, threads and processes

        `sample` and `debounce` drop instead, as throttle does in Rx.
        """
        return self._step("throttle", bucket_of("rate", rate))

    # ---- several for one, one for several --------------------------------------------------------

    def flat_map(self, fn: Callable[[T_co], AnyIterable[R]], *, concurrency: int = 1) -> Flow[R]:
        """The items of fn(item), an iterable of either kind or a flow, for each item.

        concurrency   inner streams that are read at a time, > 0.  1: one after the other, in order
                      (Rx calls this concat_map).  More need an event loop: their items come as they
                      are ready, and each is at most one item ahead
        """
        check_plain("flat_map", fn)
        if counted("concurrency", concurrency, _MOST) == 1:
            return self._stage("flat_map()", _flow_sync.flat_map, _flow_async.concat_map, fn)
        name, instead = f"flat_map(concurrency={concurrency})", "say concurrency=1"
        return self._stage(name, None, _flow_async.flat_map, fn, concurrency, instead=instead)

    def buffer(self, count: int, *, time: float | None = None) -> Flow[list[T_co]]:
        """Lists of `count` items; the last one may be shorter.  (Rx: buffer_with_count.)

        count   > 0: how many are taken for one list, and so how far the source is ahead
        time    seconds, > 0, from the first item of a list until it comes out with what it has (Rx:
                buffer_with_time).  Needs an event loop, but directly behind a queue does not

        What was taken before an exception comes out before it.
        """
        counted("count", count, _MOST)
        if time is None:
            return self._stage("buffer()", _flow_sync.buffer, _flow_async.buffer, count)
        seconds = _seconds("time", time)
        if not self._ops and isinstance(self._given, (Queue, SharedQueue)):
            return Flow(_Batches(self._given, count, seconds))
        aio = _flow_async.timed_buffer
        return self._stage("buffer(time=)", None, aio, count, seconds, instead=_QUEUE_INSTEAD)

    def window(self, count: int | None = None, *, time: float | None = None) -> Flow[Flow[T_co]]:
        """The same items as one flow after the other, without holding them.

        count   items of a window, > 0
        time    seconds, > 0, from its first item until it ends; needs an event loop

        At least one of the two.  A window is read where it is, before the next one is asked for,
        and once: what was not read of it by then is passed over, as with itertools.groupby.
        """
        if count is None and time is None:
            raise TypeError("window() needs a count, a time, or both")
        if count is not None:
            counted("count", count, _MOST)
        if time is None:
            return self._stage("window()", _flow_sync.window, _flow_async.window, Flow, count)
        seconds = _seconds("time", time)
        return self._stage("window(time=)", None, _flow_async.window, Flow, count, seconds)

    # ---- several flows ---------------------------------------------------------------------------

    def concat(self, *others: AnyIterable[U]) -> Flow[T_co | U]:
        """The items of this flow, then those of the others, one after the other."""
        parts = (self, *map(_flow_of, others))
        if self._ops and self._ops[-1].name == "concat()":  # a long chain is one loop
            parts = (*self._given, *parts[1:])
        sync, aio = _flow_sync.flat_map, _flow_async.concat_map
        return Flow(parts)._stage("concat()", sync, aio, _itself, others=parts)

    def merge(self, *others: AnyIterable[U]) -> Flow[T_co | U]:
        """The items of this flow and the others as they are ready; needs an event loop.

        Each is at most one item ahead.  The first exception ends all of them, behind the items that
        were there before it.
        """
        parts = (self, *map(_flow_of, others))
        aio, instead = (
            _flow_async.flat_map,
            "let a thread for each put its items into one weir.Queue",
        )
        return Flow(parts)._stage(
            "merge()", None, aio, _itself, len(parts), instead=instead, others=parts
        )

    @overload
    def zip(self, other: AnyIterable[U], /, *, strict: bool = False) -> Flow[tuple[T_co, U]]: ...
    @overload
    def zip(
        self, other: AnyIterable[U], another: AnyIterable[V], /, *, strict: bool = False
    ) -> Flow[tuple[T_co, U, V]]: ...
    @overload
    def zip(self, *others: AnyIterable[Any], strict: bool = False) -> Flow[tuple[Any, ...]]: ...
    def zip(self, *others: AnyIterable[Any], strict: bool = False) -> Flow[Any]:
        """Tuples of an item of this flow and one of each other, as zip() makes them.

        Ends with the shortest; what had been taken from those before it in this row is lost.
        strict: then ValueError, if another has more.
        """
        flows = tuple(map(_flow_of, others))
        sync, aio = _flow_sync.zip_, _flow_async.zip_
        return self._stage("zip()", sync, aio, flows, strict, others=flows)

    def tee(self, n: int = 2, *, buffer: int = 1) -> tuple[Flow[T_co], ...]:
        """n flows with the same items, from one run of this one (a broadcast).

        n        branches, > 0.  Each can be read once, in a thread or task of its own, or in turn
                 with the others; all in threads, or all in one event loop
        buffer   items, > 0, that a branch may be behind the furthest one

        A slow branch holds back the others; one that is closed, or dropped before it was read,
        does not.  An exception is raised in each, behind the items before it.  Where a branch would
        wait for one that the same thread or task reads, it raises RuntimeError; where it has waited
        a second for one that nobody has begun to read, a RuntimeWarning names that one.
        """
        counted("n", n, _MOST)
        counted("buffer", buffer, _MOST)
        from weir._flow_tee import branches

        return tuple(Flow(branch) for branch in branches(self, n, buffer))

    # ---- time ------------------------------------------------------------------------------------

    def timeout(self, seconds: float) -> Flow[T_co]:
        """TimeoutError when an item takes longer than so many seconds, > 0, from when it was asked
        for; needs an event loop.
        """
        return self._stage("timeout()", None, _flow_async.timeout, _seconds("seconds", seconds))

    def debounce(
        self, seconds: float, *, on_drop: Callable[[T_co, str], object] | None = None
    ) -> Flow[T_co]:
        """An item once no newer one has come for so many seconds, > 0; needs an event loop.

        on_drop   called as on_drop(item, reason) with each item that is not passed on: "oldest" (a
                  newer one came) or "discarded" (the flow was closed)

        For live sources: this one is read all the time, whether anybody asks or not, and only the
        newest item is held.  At the end of the source the last one comes at once.
        """
        return self._newest("debounce", _flow_async.debounce, seconds, on_drop)

    def sample(
        self, seconds: float, *, on_drop: Callable[[T_co, str], object] | None = None
    ) -> Flow[T_co]:
        """The newest item, at most one in so many seconds, > 0; needs an event loop.

        For live sources, as `debounce`, with the same `on_drop`.
        """
        return self._newest("sample", _flow_async.sample, seconds, on_drop)

    def _newest(self, name: str, aio: Aio, seconds: float, on_drop: Any) -> Flow[Any]:
        if on_drop is not None:
            check_function("on_drop", on_drop)
        return self._stage(f"{name}()", None, aio, _seconds("seconds", seconds), on_drop)

    # ---- errors ----------------------------------------------------------------------------------

    def retry(self, retry: int | Retry) -> Flow[T_co]:
        """When it fails, runs everything before this again, from the beginning of the source.

        retry   attempts, > 0, with the pauses of `weir.Retry`; or a Retry, which says for which
                exceptions, how often and after which pauses

        Items that came before the failure come again: behind it should be something that does not
        mind.  (To try one call again, decorate the function: `map(weir.Retry(3)(fetch))`.)
        ValueError where the source cannot be run again: give Flow a function that makes it.
        """
        if not can_run_again(self._given, self._ops):
            raise ValueError(
                f"retry() runs the source again from its beginning, and that of {self!r} can be "
                "read once: give Flow a function that makes it"
            )
        policy = retry if isinstance(retry, Retry) else Retry(retry)
        return self._stage("retry()", _flow_sync.retry, _flow_async.retry, policy)

    def catch(
        self,
        fn: Callable[[Any], AnyIterable[U]],
        *,
        on: type[Exception] | tuple[type[Exception], ...] = Exception,
    ) -> Flow[T_co | U]:
        """When what is before this fails, goes on with the items of fn(exception).

        on   the exceptions that are caught.  (Rx: catch, on_error_resume_next.)

        `catch(lambda error: [])` ends the flow there.
        """
        check_plain("catch", fn)
        classes = on if isinstance(on, tuple) else (on,)
        if not all(isinstance(one, type) and issubclass(one, Exception) for one in classes):
            raise TypeError(f"'on' must be a class of Exception, or a tuple of them, not {on!r}")
        return self._stage("catch()", _flow_sync.catch, _flow_async.catch, fn, on)

    # ---- in parallel -----------------------------------------------------------------------------

    @overload
    def par_map(
        self,
        fn: Callable[[T_co], Awaitable[R]],
        workers: int | Limiter,
        *,
        kind: Literal["async"],
        ordered: bool = True,
    ) -> Flow[R]: ...
    @overload
    def par_map(
        self,
        fn: Callable[[T_co], R],
        workers: int,
        *,
        kind: Literal["thread", "process"] = "thread",
        ordered: bool = True,
    ) -> Flow[R]: ...
    def par_map(
        self,
        fn: Callable[[T_co], Any],
        workers: int | Limiter,
        *,
        kind: Literal["thread", "process", "async"] = "thread",
        ordered: bool = True,
    ) -> Flow[Any]:
        """fn(item) for up to `workers` items at a time.

        workers   > 0; for kind="async" also a weir.Limiter
        kind      "thread": in threads;  "process": in processes, fn and items are pickled;
                  "async": fn is a coroutine function, each call a task; needs an event loop
        ordered   False: results come as calls end

        Calls that run, and results that wait for the reader, are never more than `workers`
        together.  Threads and processes are this flow's own, are started when it is first asked,
        and have ended when it has: a call that runs is waited for, one that waits is cancelled.
        """
        check_function("par_map", fn)
        is_coroutine = kind_of(fn) == "coroutine"
        if kind not in ("thread", "process", "async"):
            raise ValueError(f'\'kind\' must be "thread", "process" or "async", not {kind!r}')
        if is_coroutine and kind != "async":
            raise TypeError(f'{fn!r} is a coroutine function: say kind="async"')
        if kind == "async":
            how: tuple[Any, ...] = (fn, limit_of(workers), kind, ordered)
            name, instead = 'par_map(kind="async")', 'say kind="thread"'
            return self._stage(name, None, _flow_async.par_map, *how, instead=instead)
        if not isinstance(workers, int):
            raise TypeError(f"'workers' must be an int, but with kind=\"async\", not {workers!r}")
        how = (fn, counted("workers", workers, _MOST), kind, ordered)
        return self._stage("par_map()", _flow_sync.par_map, _flow_async.par_map, *how)

    # ---- queues ----------------------------------------------------------------------------------

    @staticmethod
    def from_queue(queue: Queue[U] | SharedQueue[U]) -> Flow[U]:
        """The items of a queue until it is shut down and empty: Flow(queue).

        A SharedQueue is read in threads only.
        """
        if not isinstance(queue, (Queue, SharedQueue)):
            raise TypeError(f"from_queue() takes a weir.Queue or a weir.SharedQueue, not {queue!r}")
        return Flow(queue)


def _flow_of(source: AnyIterable[U]) -> Flow[U]:
    return source if isinstance(source, Flow) else Flow(source)


Flow.__module__ = "weir"
