"""map() for every executor of weir: lazy, bounded on both sides, in batches where that pays.

What an executor provides (see `MappingExecutor`):

    _submit_wait(fn, args, timeout)  submits, waiting for room whatever its policy; TimeoutError
    try_submit(fn, *args)            submits, or None when there is no room now
    _try_submit(fn, *args)           the same, without counting a refusal; default: try_submit
    _map_window                      tasks it can have inside: backlog + workers
    _map_in_batches                  a task costs it so much that small calls should travel together
    _submit_batch(...)               submits a batch as the executor knows how; default: as one task
    _map_reports                     and tells how long it took at once, not when its turn comes

Rules:

    bound:   submitted and not yet yielded <= buffersize
    start:   the call submits what there is room for, at least one task
    refill:  when no result is left at hand, next() refills first: as far as there is room while
             one is ready, and waiting for room as long as none is
    errors:  an exception appears at its own item, and iteration can go on behind it; one of the
             iterable, or of submit, appears behind the results of what came before it
    end:     close(), or the garbage collector, cancels what has not started; but an iterator that
             was never used leaves its tasks alone, as the standard one does, and warns if there
             were more

A batch is one task.  weir's process pool takes it apart again: see _process.py.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import CancelledError, Executor, Future
from queue import Empty
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from weir._errors import Timeout
from weir._weir import Failure, Queue, Results, take_items

if TYPE_CHECKING:
    import asyncio

    from weir._admission import OnFull
    from weir._gather import AsyncResults
    from weir.strategies import Strategy

__all__ = ["BatchFuture", "BatchSize", "MapIterator", "MappingExecutor"]

T = TypeVar("T")
R = TypeVar("R")


# ---- how large a batch ----------------------------------------------------------------------


class BatchSize:
    """Chooses the items per batch from how long batches took; aims at 50 to 500 ms.

    Starts with 1, so the first results are not delayed; at most doubles from batch to batch.
    """

    TARGET = 0.2  # seconds; a batch that takes less may grow to at most twice that
    TOO_LONG = 0.5
    LARGEST = 4096  # items; the overhead is small long before
    PATIENCE = 0.02  # seconds that a batch waits for a slow iterable to fill it

    def __init__(self) -> None:
        self.size = 1
        self.average = 0.0  # seconds per batch of the present size, 0.8 old + 0.2 new; 0: none yet

    def report(self, items: int, seconds: float) -> None:
        """A batch of so many items took so long to run."""
        if items != self.size:
            return  # submitted before the size was chosen
        self.average = 0.8 * self.average + 0.2 * seconds if self.average else seconds
        if self.average < self.TARGET:
            # A whole batch in no time at all says nothing about the ideal.
            ideal = self.size * self.TARGET / max(self.average, 1e-6)
            new = int(min(2 * self.size, 2 * ideal, self.LARGEST))
        elif self.average > self.TOO_LONG:
            new = int(self.size * self.TARGET / self.average)
        else:
            return
        new = max(new, 1)
        if new != self.size:
            self.size = new
            self.average = 0.0


# ---- batches --------------------------------------------------------------------------------


class BatchFuture:
    """Mixed into the future of a batch whose result is a list, with a Failure for each exception.

    report is called before it is done, with the seconds that its items ran, all together.
    """

    report: Callable[[float], object] | None = None


class _Raised:
    """An exception among the results of a batch that ran somewhere else."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _run_batch(fn: Callable[..., Any], calls: list[tuple[Any, ...]]) -> tuple[list[Any], float]:
    """In the worker of an executor that knows nothing of batches."""
    results: list[Any] = []
    start = time.perf_counter()
    for call in calls:
        try:
            results.append(fn(*call))
        except BaseException as error:  # as for a task: SystemExit is the item's, not the batch's
            results.append(_Raised(error))
    return results, time.perf_counter() - start


# ---- the iterator ---------------------------------------------------------------------------


class _InFlight:
    """A task that was submitted for one or more items."""

    __slots__ = ("future", "items")

    def __init__(self, future: Future[Any], items: int) -> None:
        self.future = future
        self.items = items


class MapIterator(Results[R], Iterator[R], Generic[R]):
    """The results of `map()`.  close() cancels what has not started."""

    def __init__(
        self,
        executor: MappingExecutor,
        fn: Callable[..., R],
        calls: Iterator[Any],
        *,
        n_args: int,
        deadline: float | None,
        batch_size: int | BatchSize | None,
        window: int,
        max_items: int | None,
        ordered: bool,
        total: int | None,
    ) -> None:
        self._executor: MappingExecutor | None = executor  # None: nothing is left to submit
        self._fn = fn
        self._calls: Iterator[Any] | None = calls  # None: at its end
        self._n_args = n_args  # 1: a call is the argument; else the tuple of them
        self._deadline = deadline  # on time.monotonic()
        self._batch_size = batch_size  # None: no batches
        self._window = window  # tasks
        self._max_items = max_items  # None: any number, as long as the window is kept
        self._rest = total  # items that are still in calls; None: not known
        self._waiting: list[Any] = []  # taken from calls, not submitted yet
        self._in_flight: deque[_InFlight] = deque()  # ordered: not yielded, oldest first
        self._unordered: dict[Future[Any], _InFlight] = {}
        # Never full: it holds at most what is in flight.
        self._completed: Queue[Future[Any]] | None = None if ordered else Queue(None)
        self._items = 0  # submitted and not yielded, without those that are ready
        self._failure: BaseException | None = None  # of calls or submit; behind all results
        self._begun = False
        self._lock = threading.RLock()  # threads may share the iterator
        self._pid = os.getpid()
        self._closed = False

    # -- iterating

    def _advance(self) -> None:
        """Called when no result is ready: loads some, or raises StopIteration."""
        with self._lock:
            if self._count():
                return  # another thread was quicker
            self._begun = True
            if self._closed:
                raise StopIteration
            self._refill()
            self._wait_for_results()
            if not self._count():
                failure = self._failure
                self.close()
                if failure is not None:
                    raise failure
                raise StopIteration

    def close(self) -> None:
        """Cancel what has not started; there will be no more results."""
        if self._pid != os.getpid():
            return  # a forked child has no part in it
        self._closed = True
        self._calls = self._executor = None
        self._waiting.clear()
        self._load(())
        while self._in_flight:
            self._in_flight.pop().future.cancel()
        while self._unordered:
            self._unordered.popitem()[0].cancel()

    def __enter__(self) -> MapIterator[R]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or self._pid != os.getpid():
            return
        if self._begun:
            self.close()
        elif self._calls is not None or self._waiting:
            # Like a generator that was never started, it leaves alone what runs; but what the
            # standard library would have submitted is still in the iterable.
            warnings.warn(
                f"nobody iterated over this map(): only its first {self._items} items were "
                "submitted; iterate, or say buffersize=None to submit everything at the call",
                RuntimeWarning,
                stacklevel=2,
            )

    # -- submitting

    def start(self, *, eagerly: bool) -> None:
        """Submits what there is room for; eagerly: everything.  Raises what prevents the start."""
        try:
            while self._may_submit() and self._fill_batch():
                try:
                    if not self._submit(wait=eagerly or self._tasks() == 0):
                        break
                except TimeoutError:  # next() tries again, and says so
                    return
            if self._failure is not None and (eagerly or self._tasks() == 0):
                raise self._failure
        except BaseException:
            self.close()
            raise

    def _tasks(self) -> int:
        return len(self._in_flight) + len(self._unordered)

    def _held(self) -> int:
        """Items that were submitted and not yielded."""
        return self._items + self._count()

    def _may_submit(self) -> bool:
        if self._calls is None and not self._waiting:
            return False
        if self._tasks() >= self._window:
            return False
        return self._max_items is None or self._held() < self._max_items

    def _has_results(self) -> bool:
        if self._completed is not None:
            return not self._completed.empty()
        return bool(self._in_flight) and self._in_flight[0].future.done()

    def _refill(self) -> None:
        while self._may_submit() and self._fill_batch():
            if not self._submit(wait=not self._has_results()):
                break

    def _fill_batch(self) -> bool:
        """Takes calls for one task; False: there are none."""
        size, patience = 1, -1.0
        if isinstance(self._batch_size, int):
            size = self._batch_size
        elif self._batch_size is not None:
            size, patience = self._batch_size.size, self._batch_size.PATIENCE
        if self._max_items is not None:
            size = min(size, self._max_items - self._held())
        had = len(self._waiting)
        if self._calls is not None and had < size:
            try:
                if not take_items(self._calls, self._waiting, size, patience):
                    self._calls = None
            except Exception as error:
                self._calls = None
                self._failure = error
            if self._rest is not None:
                self._rest -= len(self._waiting) - had
        if not self._waiting:
            self._executor = None
        return bool(self._waiting)

    def _submit(self, *, wait: bool) -> bool:
        """Submits what is waiting as one task; False: there is no room, or never will be."""
        assert self._executor is not None
        calls = self._waiting
        taken = 1
        try:
            future: Future[Any] | None
            timeout = self._remaining() if wait else None
            if self._batch_size is not None:
                report = None
                if isinstance(self._batch_size, BatchSize):
                    report = self._batch_size.report
                future, taken = self._executor._submit_batch(
                    self._fn, calls, self._n_args, wait, timeout, report
                )
            elif wait:
                future = self._executor._submit_wait(self._fn, self._args_of(calls[0]), timeout)
            else:
                future = self._executor._try_submit(self._fn, *self._args_of(calls[0]))
        except TimeoutError:
            raise
        except Exception as error:
            if isinstance(error, RuntimeError) and "after shutdown" in str(error):
                error = RuntimeError(
                    "cannot schedule new futures after shutdown: map() reads its input as results "
                    "are taken, so take them before that (inside of `with`), or say "
                    "buffersize=None to submit everything at the call"
                )
            self._failure = error
            self._calls = self._executor = None
            self._waiting = []
            return False
        if future is None:
            return False
        self._waiting = calls[taken:]
        if self._rest == 0:
            self._calls = None
        if self._calls is None and not self._waiting:
            self._executor = None  # who holds the results only does not hold the executor
        task = _InFlight(future, taken)
        self._items += taken
        if self._completed is None:
            self._in_flight.append(task)
        else:
            self._unordered[future] = task
            future.add_done_callback(self._completed.put)
        return True

    def _args_of(self, call: Any) -> tuple[Any, ...]:
        return (call,) if self._n_args == 1 else call

    # -- collecting

    def _remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _wait_for_results(self) -> None:
        """Makes the results of the next task ready, if there is one."""
        if not self._tasks():
            return
        if self._completed is None:
            task = self._in_flight[0]
            # Waits here, so that a timeout leaves the task where it is.
            error = _exception_of(task.future, self._remaining())
            self._in_flight.popleft()
        else:
            task = self._unordered.pop(self._next_completed(self._completed))
            error = _exception_of(task.future, 0)
        self._items -= task.items
        if error is not None:
            self._load([Failure(error)] * task.items)
        elif self._batch_size is None:
            self._load([task.future.result()])
        else:
            self._load(self._results_of(task))

    def _results_of(self, task: _InFlight) -> list[Any]:
        """Of a batch, however it was submitted."""
        results: list[Any]
        if isinstance(task.future, BatchFuture):
            results = task.future.result()
            return results
        results, seconds = task.future.result()
        if isinstance(self._batch_size, BatchSize):
            self._batch_size.report(task.items, seconds)
        return [Failure(r.error) if type(r) is _Raised else r for r in results]

    def _next_completed(self, completed: Queue[Future[Any]]) -> Future[Any]:
        try:
            return completed.get(timeout=self._remaining())
        except Empty:
            raise Timeout from None


def _exception_of(future: Future[Any], timeout: float | None) -> BaseException | None:
    try:
        return future.exception(timeout)
    except CancelledError as error:
        return error
    except futures.TimeoutError:
        raise Timeout from None


# ---- map ------------------------------------------------------------------------------------


class MappingExecutor(Executor):
    """An executor whose map() is lazy."""

    _map_in_batches: bool
    _map_reports = False

    @abstractmethod
    def _submit_wait(
        self, fn: Callable[..., T], args: tuple[Any, ...], timeout: float | None
    ) -> Future[T]:
        """Submits, waiting for room whatever the policy; TimeoutError after so many seconds."""

    @abstractmethod
    def try_submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T] | None:
        """Submits if there is room now."""

    def _try_submit(self, fn: Callable[..., T], /, *args: Any) -> Future[T] | None:
        return self.try_submit(fn, *args)

    @abstractmethod
    async def _submit_async(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        """Submits as its policy says; where that waits, in a coroutine."""

    async def submit_async(
        self, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> asyncio.Future[T]:
        """submit() for coroutines: waits for room in line with threads, not holding up its loop.

        Returns an asyncio future of this loop: `future = await pool.submit_async(fn, x)`, and
        `await future` is the result.  Cancelling it cancels the task while that has not started.
        When there is no room `on_full` decides as in submit(), except that
        "caller_runs" waits: a task would hold up the loop.  Raises what submit() raises; one that
        is cancelled while it waits has submitted nothing.
        """
        import asyncio

        return asyncio.wrap_future(await self._submit_async(fn, args, kwargs))

    def amap(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
    ) -> AsyncResults[R]:
        """map() for coroutines: `async for result in pool.amap(fn, items)`; items may be async.

        One task for each item; at most as many as the executor holds (backlog + workers) are
        submitted and not finished, and `buffersize` (default: as many) finished and not read.  An
        exception ends it: what has not started is cancelled.  `timeout`: seconds, for all of it.
        """
        from weir.aio import amap

        async def call(*items: Any) -> R:
            return await (await self.submit_async(fn, *items))

        return amap(
            call,
            *iterables,
            limit=self._map_window,
            ordered=ordered,
            buffersize=buffersize,
            timeout=timeout,
        )

    def _keep_to(
        self, on_full: OnFull | Strategy, submit_timeout: float | None
    ) -> tuple[OnFull, float | None]:
        """What a plain executor has to be told; from here on this one keeps to the strategy."""
        if isinstance(on_full, str):
            return on_full, submit_timeout
        from weir._keeper import keep_executor  # with all that it needs: few do

        return keep_executor(self, on_full, submit_timeout)

    def _submit_batch(
        self,
        fn: Callable[..., Any],
        calls: list[Any],
        n_args: int,
        wait: bool,
        timeout: float | None,
        report: Callable[[int, float], object] | None,
    ) -> tuple[Future[Any] | None, int]:
        """Submits the first of the calls, at least one, as one task: (future, how many).

        wait: for room, up to `timeout` seconds, then TimeoutError; else the future may be None:
        there is no room.  The future is a BatchFuture, which reports how many items took how many
        seconds; or its result is that of _run_batch.
        """
        args = (fn, [(call,) for call in calls] if n_args == 1 else list(calls))
        if wait:
            return self._submit_wait(_run_batch, args, timeout), len(calls)
        return self._try_submit(_run_batch, *args), len(calls)

    @property
    @abstractmethod
    def _map_window(self) -> int:
        """Tasks that can be inside: backlog + workers."""

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = "auto",
        buffersize: int | Literal[True] | None = True,
        ordered: bool = True,
    ) -> MapIterator[R]:
        """Yield fn(*items) for the items of the iterables, taken one by one as they are needed.

        timeout     seconds from this call; then TimeoutError, and iteration can be tried again
        chunksize   items per task of an executor of processes: "auto" starts with 1 and grows until
                    a task takes 50 to 500 ms (never more than 4,096 items), or an int > 0; threads
                    get one item per task
        buffersize  items that are submitted and not yet yielded, at most: an int > 0; True: as many
                    tasks as the executor holds (backlog + workers; each of up to chunksize items),
                    a ProcessPoolExecutor with chunksize="auto" twice as many; None: everything is
                    submitted by this call, as the standard library does
        ordered     False: yield results as they come

        Waits for room whatever `on_full` says.  An exception is raised where its item's result
        would be, and the iterator can go on behind it.  Closing the iterator, or dropping it in
        the middle, cancels what has not started.
        """
        batch_size = _parse_chunksize(chunksize)
        if not (
            buffersize is None or buffersize is True or (type(buffersize) is int and buffersize > 0)
        ):
            raise ValueError(
                "buffersize must be True (as many tasks as the executor holds), an int > 0 or None "
                f"(everything at once), not {buffersize!r}"
            )
        eagerly = buffersize is None
        window = self._map_window
        if isinstance(batch_size, BatchSize) and self._map_reports:
            window *= 2  # others go on, in ever larger batches, while the first result takes long
        results: MapIterator[R] = MapIterator(
            self,
            fn,
            iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False),
            n_args=len(iterables),
            deadline=None if timeout is None else time.monotonic() + timeout,
            batch_size=batch_size if self._map_in_batches else None,
            window=window if buffersize is True else 2**63,
            max_items=buffersize if type(buffersize) is int else None,
            ordered=ordered,
            total=_least_len(iterables),
        )
        results.start(eagerly=eagerly)
        return results


def _least_len(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """How many items zip() will find; None: not known."""
    if all(type(iterable) in (list, tuple, range, str, bytes) for iterable in iterables):
        return min(map(len, iterables), default=0)  # type: ignore[arg-type]
    return None


def _parse_chunksize(chunksize: object) -> int | BatchSize:
    if chunksize == "auto":
        return BatchSize()
    if type(chunksize) is int and chunksize >= 1:
        return chunksize
    raise ValueError(f'chunksize must be "auto" or an int >= 1, not {chunksize!r}')
