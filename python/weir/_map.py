"""map() for every executor of weir: lazy, bounded on both sides, in batches where that pays.

What an executor provides (see `MappingExecutor`):

    _submit_wait(fn, args, timeout)  submits, waiting for room whatever its policy; TimeoutError
    try_submit(fn, *args)            submits, or None when there is no room now
    _try_submit(fn, *args)           the same, without counting a refusal; default: try_submit
    _map_window                      tasks it can have inside: backlog + workers
    _map_in_batches                  a task costs it so much that small calls should travel together
    _map_seals                       its tasks are pickled with pickle: see below

Rules:

    bound:   submitted and not yet yielded <= buffersize
    start:   the call submits what there is room for, at least one task
    refill:  each next() refills first: as far as there is room while a result is ready, and waiting
             for room as long as none is
    errors:  an exception appears at its own item, and iteration can go on behind it; one of the
             iterable, or of submit, appears behind the results of what came before it
    end:     close(), or the garbage collector, cancels what has not started; but an iterator that
             was never used leaves its tasks alone, as the standard one does, and warns if there
             were more

A batch is one task.  Where the executor seals, each argument and result in a batch is pickled on
its own: one that cannot be is the error of its own item, and large buffers still travel out of
band.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import CancelledError, Executor, Future
from queue import Empty
from typing import Any, Generic, Literal, TypeVar

from weir._errors import Timeout
from weir._weir import Queue

__all__ = ["BatchSize", "MapIterator", "MappingExecutor"]

T = TypeVar("T")
R = TypeVar("R")


# ---- how large a batch ----------------------------------------------------------------------


class BatchSize:
    """Chooses the items per batch from how long batches took; aims at 50 to 500 ms.

    Starts with 1, so the first results are not delayed; at most doubles from batch to batch.
    """

    TARGET = 0.2  # seconds; a batch that takes less may grow to at most twice that
    TOO_LONG = 0.5
    LARGEST = 1024  # items; the overhead is small long before
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

# What pickles always, cheaply, and to an equal object.
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})


class _Unpicklable:
    """Stands for a value that could not be pickled, or could not be unpickled again."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Sealed:
    """A value that is pickled on its own inside of what it travels in."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        buffers: list[pickle.PickleBuffer] = []
        collect = buffers.append if protocol >= 5 else None
        try:
            data = pickle.dumps(self.value, protocol, buffer_callback=collect)
        except Exception as error:
            return _unpicklable, (_portable(error),)
        return _unseal, (data, buffers)


def _unseal(data: bytes, buffers: list[Any]) -> _Sealed | _Unpicklable:
    try:
        return _Sealed(pickle.loads(data, buffers=buffers))
    except Exception as error:
        return _Unpicklable(error)


def _unpicklable(error: BaseException) -> _Unpicklable:
    return _Unpicklable(error)


def _portable(error: Exception) -> Exception:
    """An exception of the same kind that can certainly be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return pickle.PicklingError(f"{type(error).__name__}: {error}")
    return error


def _seal(value: Any) -> Any:
    return value if type(value) in _PLAIN else _Sealed(value)


def _open(value: Any) -> Any:
    """What was sealed; raises what kept it from travelling."""
    if type(value) is _Sealed:
        return value.value
    if type(value) is _Unpicklable:
        raise value.error
    return value


def _seal_call(args: tuple[Any, ...]) -> Any:
    """One item's arguments."""
    return args if all(type(arg) in _PLAIN for arg in args) else _Sealed(args)


class _Outcome:
    """What became of a batch: for each item (True, value) or (False, exception)."""

    __slots__ = ("items", "seals", "seconds")

    def __init__(self, items: list[tuple[bool, Any]], seconds: float, seals: bool) -> None:
        self.items = items
        self.seconds = seconds
        self.seals = seals

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        items = self.items
        if self.seals:
            items = [(ok, _seal(value)) for ok, value in items]
        return _Outcome, (items, self.seconds, self.seals)


def _with_traceback(error: BaseException) -> Any:
    """What becomes, in the parent, the exception with the worker's traceback as its cause."""
    from concurrent.futures.process import _ExceptionWithTraceback

    assert error.__traceback__ is not None
    return _ExceptionWithTraceback(error, error.__traceback__)


def _run_batch(fn: Callable[..., Any], calls: list[Any], seals: bool) -> _Outcome:
    """In the worker."""
    items: list[tuple[bool, Any]] = []
    start = time.perf_counter()
    for call in calls:
        try:
            items.append((True, fn(*_open(call))))
        except BaseException as error:  # as for a task: SystemExit is the item's, not the batch's
            items.append((False, _with_traceback(error) if seals else error))
    return _Outcome(items, time.perf_counter() - start, seals)


# ---- the iterator ---------------------------------------------------------------------------


class _InFlight:
    """A task that was submitted for one or more items."""

    __slots__ = ("future", "items")

    def __init__(self, future: Future[Any], items: int) -> None:
        self.future = future
        self.items = items


class MapIterator(Iterator[R], Generic[R]):
    """The results of `map()`.  close() cancels what has not started."""

    def __init__(
        self,
        executor: MappingExecutor,
        fn: Callable[..., R],
        calls: Iterator[tuple[Any, ...]],
        *,
        deadline: float | None,
        batch_size: int | BatchSize | None,
        window: int,
        max_items: int | None,
        ordered: bool,
        total: int | None,
    ) -> None:
        self._executor: MappingExecutor | None = executor  # None: nothing is left to submit
        self._fn = fn
        self._calls: Iterator[tuple[Any, ...]] | None = calls  # None: at its end
        self._deadline = deadline  # on time.monotonic()
        self._batch_size = batch_size  # None: no batches
        self._window = window  # tasks
        self._max_items = max_items  # None: any number, as long as the window is kept
        self._rest = total  # items that are still in calls; None: not known
        self._waiting: list[tuple[Any, ...]] = []  # taken from calls, not submitted yet
        self._in_flight: deque[_InFlight] = deque()  # ordered: not yielded, oldest first
        self._unordered: dict[Future[Any], _InFlight] = {}
        # Never full: it holds at most what is in flight.
        self._completed: Queue[Future[Any]] | None = None if ordered else Queue(None)
        self._items = 0  # submitted and not yielded, without those in _ready
        self._ready: deque[tuple[bool, Any]] = deque()  # the rest of a batch
        self._failure: BaseException | None = None  # of calls or submit; behind all results
        self._begun = False
        self._lock = threading.RLock()  # threads may share the iterator
        self._pid = os.getpid()
        self._closed = False

    # -- iterating

    def __iter__(self) -> MapIterator[R]:
        return self

    def __next__(self) -> R:
        with self._lock:
            return self._next()

    def _next(self) -> R:
        self._begun = True
        if self._closed:
            raise StopIteration
        if not self._ready:
            self._refill()
            self._wait_for_results()
        else:
            self._refill()
        if not self._ready:
            failure = self._failure
            self.close()
            if failure is not None:
                raise failure
            raise StopIteration
        ok, value = self._ready.popleft()
        if ok:
            result: R = _open(value)
            return result
        error = _open(value)
        del value
        try:
            if isinstance(error, StopIteration):  # must not look like the end
                raise RuntimeError("the function raised StopIteration") from error
            raise error
        finally:
            del error  # its traceback refers to this frame

    def close(self) -> None:
        """Cancel what has not started; there will be no more results."""
        if self._pid != os.getpid():
            return  # a forked child has no part in it
        self._closed = True
        self._calls = self._executor = None
        self._waiting.clear()
        self._ready.clear()
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
        return self._items + len(self._ready)

    def _may_submit(self) -> bool:
        if self._calls is None and not self._waiting:
            return False
        if self._tasks() + bool(self._ready) >= self._window:
            return False
        return self._max_items is None or self._held() < self._max_items

    def _has_results(self) -> bool:
        if self._ready:
            return True
        if self._completed is not None:
            return not self._completed.empty()
        return bool(self._in_flight) and self._in_flight[0].future.done()

    def _refill(self) -> None:
        while self._may_submit() and self._fill_batch():
            if not self._submit(wait=not self._has_results()):
                break

    def _fill_batch(self) -> bool:
        """Takes calls for one task; False: there are none."""
        size, patience = 1, 0.0
        if isinstance(self._batch_size, int):
            size = self._batch_size
        elif self._batch_size is not None:
            size, patience = self._batch_size.size, self._batch_size.PATIENCE
        if self._max_items is not None:
            size = min(size, self._max_items - self._held())
        latest = time.monotonic() + patience if patience and size > 1 else None
        while self._calls is not None and len(self._waiting) < size:
            try:
                self._waiting.append(next(self._calls))
                if self._rest is not None:
                    self._rest -= 1
            except StopIteration:
                self._calls = None
            except Exception as error:
                self._calls = None
                self._failure = error
            if latest is not None and time.monotonic() > latest:
                break
        if not self._waiting:
            self._executor = None
        return bool(self._waiting)

    def _submit(self, *, wait: bool) -> bool:
        """Submits what is waiting as one task; False: there is no room, or never will be."""
        assert self._executor is not None
        calls = self._waiting
        fn: Callable[..., Any] = self._fn
        args = calls[0]
        if self._batch_size is not None:
            seals = self._executor._map_seals
            args = (fn, [_seal_call(call) for call in calls] if seals else calls, seals)
            fn = _run_batch
        try:
            future: Future[Any] | None
            if wait:
                future = self._executor._submit_wait(fn, args, self._remaining())
            else:
                future = self._executor._try_submit(fn, *args)
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
        self._waiting = []
        if self._rest == 0:
            self._calls = None
        if self._calls is None:
            self._executor = None  # who holds the results only does not hold the executor
        task = _InFlight(future, len(calls))
        self._items += task.items
        if self._completed is None:
            self._in_flight.append(task)
        else:
            self._unordered[future] = task
            future.add_done_callback(self._completed.put)
        return True

    # -- collecting

    def _remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _wait_for_results(self) -> None:
        """Puts the results of the next task into _ready, if there is one."""
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
            self._ready.extend([(False, error)] * task.items)
        elif self._batch_size is None:
            self._ready.append((True, task.future.result()))
        else:
            outcome: _Outcome = task.future.result()
            if isinstance(self._batch_size, BatchSize):
                self._batch_size.report(task.items, outcome.seconds)
            self._ready.extend(outcome.items)

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
    _map_seals: bool = False

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
                    a task takes 50 to 500 ms (never more than 1,024 items), or an int > 0; threads
                    get one item per task
        buffersize  items that are submitted and not yet yielded, at most: an int > 0; True: as many
                    tasks as the executor holds (backlog + workers; each of up to chunksize items);
                    None: everything is submitted by this call, as the standard library does
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
        results: MapIterator[R] = MapIterator(
            self,
            fn,
            zip(*iterables, strict=False),
            deadline=None if timeout is None else time.monotonic() + timeout,
            batch_size=batch_size if self._map_in_batches else None,
            window=self._map_window if buffersize is True else 2**63,
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
