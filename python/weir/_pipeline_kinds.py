"""Stages whose work is not done by libweir's own workers: processes, coroutines, who reads results.

Each takes from the weir.Queue of its stage, emits, and accounts for what it did, as the contract
of an external stage says: an item that was taken is reported as processed or failed, or dropped,
once. Nothing here refers to the pipeline that people hold, so that one nobody holds can be
collected.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import queue as queues
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from weir._errors import BreakerOpen, ShutDown, TooLarge
from weir._map import BatchSize
from weir._pipeline_graph import Node
from weir._process import ProcessPoolExecutor
from weir._weir import Failure, Queue

if TYPE_CHECKING:
    from weir._breaker import CircuitBreaker
    from weir._limit import Limiter, LimitPermit
    from weir._pipeline import Run
    from weir._weir import BreakerCall

__all__ = ["AsyncSource", "AsyncStage", "ProcessStage", "Results", "running_stage"]

# The asynchronous stage whose coroutine runs here.
running_stage: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "weir_running_stage", default=None
)

_LOOK = 0.05  # seconds between two looks of who waits for a limit whether the pipeline is halted


class External:
    """What they have in common: the core's stage, its queue, and the account."""

    def __init__(self, run: Run, node: Node, number: int, queue: Queue[Any] | None) -> None:
        self.run, self.core, self.node, self.number = run, run.core, node, number
        self._queue = queue

    @property
    def queue(self) -> Queue[Any]:
        assert self._queue is not None
        return self._queue

    def fail(self, item: Any, error: BaseException) -> None:
        """The item, which was taken, has failed for good."""
        if self.node.on_error == "stop":
            self.run.cancel_calls()
        self.core.fail(self.number, item, error)

    def drop(self, item: Any) -> None:
        """The item, which was taken, will not be worked on: the pipeline was stopped."""
        self.core.drop(self.number, item)


# ---- results --------------------------------------------------------------------------------


class Results(External):
    """The last stage of a pipeline whose results somebody iterates over."""

    def take(self) -> Iterator[Any]:
        """In the thread of who iterates."""
        idle = time.perf_counter()
        for item in self.queue:
            began = time.perf_counter()
            try:
                yield item
            finally:
                idle = self._taken(idle, began)

    async def atake(self) -> AsyncIterator[Any]:
        """The same in a coroutine."""
        idle = time.perf_counter()
        async for item in self.queue:
            began = time.perf_counter()
            try:
                yield item
            finally:
                idle = self._taken(idle, began)

    def _taken(self, idle: float, began: float) -> float:
        """Whoever iterates had an item since `began`, and waited for it since `idle`."""
        now = time.perf_counter()
        self.core.report(self.number, processed=1, busy=now - began, idle=began - idle, workers=1)
        return now

    def end(self) -> None:
        """Nobody takes any more."""
        while True:
            try:
                self.drop(self.queue.get_nowait())
            except (ShutDown, queues.Empty):
                break
        self.core.end_stage(self.number)


# ---- processes ------------------------------------------------------------------------------


class _Again:
    """Calls a function again where it fails; made for its way to another process."""

    def __init__(self, fn: Callable[[Any], Any], settings: dict[str, Any]) -> None:
        self.fn, self.settings = fn, settings

    def __call__(self, item: Any) -> Any:
        from weir._retry import Retry

        return Retry(**self.settings).call(self.fn, item)


def _with_retry(node: Node) -> Callable[[Any], Any]:
    retry = node.retry
    if retry is None:
        fn: Callable[[Any], Any] = node.fn
        return fn
    settings = {
        "attempts": node.attempts,
        "on": retry._on,
        "backoff": (retry._base_ns / 1e9, retry._most_ns / 1e9),
        "multiplier": retry._multiplier,
        "jitter": ("full", "none", "equal", "decorrelated")[retry._jitter],
    }
    return _Again(node.fn, settings)


def _admit(breaker: CircuitBreaker) -> BreakerCall | None:
    try:
        return breaker.admit()
    except BreakerOpen as error:
        time.sleep(min(_LOOK, error.retry_after or _LOOK))
        return None


def _permit(limiter: Limiter) -> LimitPermit | None:
    try:
        return limiter.acquire(_LOOK)
    except TimeoutError:
        return None


def _exception_of(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error


_Acks: TypeAlias = "list[list[Callable[[], None]]]"  # of each group; none: nothing is durable


class _Sent:
    """A task of a process stage."""

    __slots__ = ("acks", "call", "future", "groups", "permit")

    def __init__(self, groups: list[Any]) -> None:
        self.groups = groups  # items, or lists of items if the stage has a batch
        self.acks: _Acks = []
        self.future: Future[Any] | None = None
        self.permit: LimitPermit | None = None
        self.call: BreakerCall | None = None

    def leave(self, future: Future[Any]) -> None:
        """The call has returned: gives back what it holds, before anything is emitted."""
        if self.permit is not None:
            self.permit.release()
        if self.call is None:
            return
        failed = _exception_of(future) or any(type(one) is Failure for one in future.result())
        self.call.failure() if failed else self.call.success()


class ProcessStage(External):
    """A process pool between two threads: one sends items to it, one emits what comes back.

    Bound:   2 x workers tasks are sent and not emitted, each of what was in the queue when it was
             sent, at most: a task grows until it takes 50 to 500 ms.
    Scaling: the pool starts processes, and lets some go, as many as the core wants.
    """

    def __init__(self, run: Run, node: Node, number: int, queue: Queue[Any]) -> None:
        super().__init__(run, node, number, queue)
        self.pool = ProcessPoolExecutor(
            node.most_workers,
            max_submit_backlog=node.most_workers + 1,
            memory=node.memory,
            memory_per_task=node.memory_per_item or None,
            name=node.name,
        )
        self.pool._pool.set_workers(node.workers)
        self.pool._ensure_collector()  # where workers are forked, before there are threads
        self.is_durable = node.spill is not None and node.spill.durable
        self.fn = _with_retry(node)
        self.size = BatchSize()
        self.wanted = node.workers
        self.sent = 0  # not emitted yet
        self.lock = threading.Condition()
        self.on_way: Queue[_Sent] = Queue(None)  # bounded by `limit`
        self.busy = self.idle = 0.0  # told to the core so far
        self.ran = 0.0  # seconds; by the pool's thread, under the lock
        self.capacity = 0.0  # seconds of all wanted processes, until `noted_at`
        self.noted_at = time.perf_counter()

    @property
    def limit(self) -> int:
        """Tasks: what runs, and one more for each process, so that it does not wait for us."""
        return 2 * self.wanted

    def start(self) -> None:
        """Starts both threads."""
        self.run.spawn(self._send, f"{self.node.name}-send")
        self.run.spawn(self._emit, f"{self.node.name}-emit")

    def set_workers(self, wanted: int) -> None:
        """By the core: so many are wanted from now on."""
        with self.lock:
            self._note_capacity()
            self.wanted = wanted
            self.lock.notify_all()
        self.pool._pool.set_workers(wanted)
        self.core.report(self.number, workers=wanted)

    def _note_capacity(self) -> None:
        """Under the lock: adds up what the wanted processes could have done."""
        now = time.perf_counter()
        self.capacity += (now - self.noted_at) * self.wanted
        self.noted_at = now

    # -- the thread that sends

    def _send(self) -> None:
        try:
            while True:
                self._wait_for_place()
                groups, acks = self._take()
                while groups:
                    groups, acks = self._send_some(groups, acks)
                    if groups:
                        self._wait_for_place()
        except ShutDown:
            pass
        except BaseException as error:
            self.core.break_down(self.number, error)
        finally:
            self.on_way.shutdown() if self.node.ordered else self._close_when_done()

    def _close_when_done(self) -> None:
        with self.lock:
            self.lock.wait_for(lambda: self.sent == 0)
        self.on_way.shutdown()

    def _wait_for_place(self) -> None:
        with self.lock:
            self.lock.wait_for(lambda: self.sent < self.limit)
            self.sent += 1

    def _take(self) -> tuple[list[Any], _Acks]:
        """Items for one task, and what acknowledges them; ShutDown: there are no more."""
        node = self.node
        try:
            if self.is_durable:
                return self._take_durably()
            if node.batch is not None:
                return [self.queue.get_many(node.batch, linger=node.linger)], []
            return self.queue.get_many(self._task_size()), []
        except BaseException:
            self._leave_place()
            raise

    def _take_durably(self) -> tuple[list[Any], _Acks]:
        """One by one: each item stays on disk until its result was taken by those behind."""
        batch, linger = self.node.batch, self.node.linger
        got = [self.queue.get_ack()]
        with contextlib.suppress(queues.Empty, ShutDown):
            while len(got) < (batch or self._task_size()):
                got.append(self.queue.get_ack(linger > 0, linger or None))
        items, acks = [item for item, _ in got], [ack for _, ack in got]
        return (items, [[ack] for ack in acks]) if batch is None else ([items], [acks])

    def _task_size(self) -> int:
        """Items for one task; where there are limits, each passes them."""
        node = self.node
        return 1 if node.bucket or node.breaker or node.limiter else self.size.size

    def _leave_place(self) -> None:
        with self.lock:
            self.sent -= 1
            self.lock.notify_all()

    def _send_some(self, groups: list[Any], acks: _Acks) -> tuple[list[Any], _Acks]:
        """Sends the first of them as one task; the others."""
        task = _Sent(groups)
        try:
            self._enter(task)
            future, taken = self.pool._submit_batch(self.fn, groups, 1, True, None, self._note_time)
        except BaseException as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            future, taken = failed, len(groups)
        assert future is not None  # it waits for room
        task.future, task.groups, task.acks = future, groups[:taken], acks[:taken]
        future.add_done_callback(task.leave)
        if self.node.ordered:
            self.on_way.put(task)
        else:
            future.add_done_callback(lambda _: self.on_way.put(task))
        return groups[taken:], acks[taken:]

    def _enter(self, task: _Sent) -> None:
        """Passes the limits of the stage, in the order of other stages."""
        node = self.node
        if node.bucket is not None:
            tokens = 1 if node.batch is None else len(task.groups[0])
            self._hold("rate", partial(node.bucket.acquire, tokens, _LOOK))
        if node.breaker is not None:
            task.call = self._hold("breaker", partial(_admit, node.breaker))
        if node.limiter is not None:
            task.permit = self._hold("limiter", partial(_permit, node.limiter))

    def _hold(self, cause: str, attempt: Callable[[], Any]) -> Any:
        """What attempt() gives when it gives something; ShutDown: the pipeline is halted."""
        began = time.perf_counter()
        while not (got := attempt()):
            if self.run.halted:
                raise ShutDown
            time.sleep(_LOOK / 10)
        held = {cause: time.perf_counter() - began}
        self.core.report(self.number, held=held, workers=self.wanted)
        return got

    def _note_time(self, items: int, seconds: float) -> None:
        """In the thread that collects replies."""
        with self.lock:
            self.ran += seconds
        self.size.report(items, seconds)

    # -- the thread that emits

    def _emit(self) -> None:
        try:
            for task in self.on_way:
                self._emit_task(task)
                self._leave_place()
        except BaseException as error:
            self.core.break_down(self.number, error)
        finally:
            self.pool.shutdown(wait=False)
            self.core.end_stage(self.number)

    def _emit_task(self, task: _Sent) -> None:
        assert task.future is not None
        error = _exception_of(task.future)
        results = [Failure(error)] * len(task.groups) if error else task.future.result()
        processed = 0
        for number, (group, result) in enumerate(zip(task.groups, results, strict=True)):
            acks = task.acks[number] if task.acks else []
            processed += self._emit_one(group, result, acks)
        self._report(processed)

    def _emit_one(self, group: Any, result: Any, acks: list[Callable[[], None]]) -> int:
        """Emits the result of a call; how many items it was of, 0 if they failed."""
        items = [group] if self.node.batch is None else group
        if type(result) is not Failure:
            try:
                self.core.emit(self.number, result)
            except Exception as error:  # of an iterable, with flat=
                result = Failure(error)
        if type(result) is Failure and self.run.halted:
            for item in () if self.is_durable else items:  # else it stays on disk
                self.drop(item)
            return 0
        for ack in acks:
            ack()
        if type(result) is not Failure:
            return len(items)
        for item in items:
            self.fail(item, result.error)
        return 0

    def _report(self, processed: int) -> None:
        with self.lock:
            self._note_capacity()
            busy = self.ran - self.busy
            idle = max(0.0, self.capacity - self.ran - self.idle)
            self.busy, self.idle = self.ran, self.idle + idle
        self.core.report(
            self.number, processed=processed, busy=busy, idle=idle, workers=self.wanted
        )

    def cancel_calls(self) -> None:
        """What runs is ended: the pipeline is stopped at once."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.pool.kill_workers()


# ---- coroutines -----------------------------------------------------------------------------


class AsyncEmitter(External):
    """Emits from an event loop: waits for room in each target's queue, and holds up nobody."""

    async def emit(self, result: Any) -> None:
        """Emits one result, or (flat) the items of one."""
        if not self.run.graph.targets[self.node.name]:
            return
        if not self.node.flat:
            await self._emit_one(result)
        elif hasattr(result, "__aiter__"):
            async for item in result:
                await self._emit_one(item)
        else:
            for item in result:
                await self._emit_one(item)

    async def _emit_one(self, item: Any) -> None:
        targets = self.core.route(self.number, item)
        try:
            while targets:
                await self._put(targets.pop(0), item)
        finally:
            for target in targets:  # it was cancelled before their turn
                self._account(target, item, "closed", 0.0)

    async def _put(self, target: int, item: Any) -> None:
        queue, timeout = self.run.graph.queues[target], self.run.put_timeouts[target]
        outcome, blocked = "kept", 0.0
        try:
            if not queue._try_put(item):
                began = time.perf_counter()
                try:
                    await queue.aput(item, timeout)
                finally:
                    blocked = time.perf_counter() - began
        except (queues.Full, TooLarge):
            outcome = "timeout" if blocked and timeout else "refused"
        except ShutDown:
            outcome = "closed"
        except asyncio.CancelledError:
            self._account(target, item, "closed", blocked)
            raise
        self._account(target, item, outcome, blocked)

    def _account(self, target: int, item: Any, outcome: str, blocked: float) -> None:
        self.core.account(self.number, target, outcome, blocked)
        if outcome != "kept":
            reason = "discarded" if outcome == "closed" else outcome
            self.run.tell_drop(item, target, reason)


class AsyncSource(AsyncEmitter):
    """A source that is an asynchronous iterable."""

    task: asyncio.Task[None] | None = None
    is_asking = False

    async def serve(self) -> None:
        """Until it ends, is stopped, or raises."""
        self.task = asyncio.current_task()
        iterator = aiter(self.node.fn)
        try:
            while not self.run.stopping:
                self.is_asking = True
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    break
                finally:
                    self.is_asking = False
                await self.emit(item)
        except asyncio.CancelledError:
            if not self.run.stopping and not self.run.halted:
                raise
        except BaseException as error:
            self.core.break_down(self.number, error)
        finally:
            self.core.end_stage(self.number)
            if hasattr(iterator, "aclose"):
                with contextlib.suppress(Exception):
                    await iterator.aclose()

    def stop(self) -> None:
        """In the loop: it is not asked any more."""
        if self.task is not None and (self.is_asking or self.run.halted):
            self.task.cancel()

    cancel_calls = stop


class AsyncStage(AsyncEmitter):
    """Tasks of an event loop that take from the queue, await the function, and emit.

    More are started, and those that wait for items cancelled, as many as the core wants.  One that
    is cancelled while it waits has taken nothing.
    """

    def __init__(self, run: Run, node: Node, number: int, queue: Queue[Any]) -> None:
        super().__init__(run, node, number, queue)
        self.wanted = 1 if node.key is not None else node.workers
        self.tasks: set[asyncio.Task[None]] = set()
        self.waiting: set[asyncio.Task[None]] = set()  # for items
        self.is_over = False
        self.turn: asyncio.Future[None] | None = None  # of the item taken last, when ordered
        self.order = asyncio.Lock()
        self.changed: asyncio.Event | None = None

    async def serve(self) -> None:
        """Until the queue is closed and empty."""
        self.changed = asyncio.Event()
        self._adjust()
        try:
            while self.tasks or not self.is_over:
                self.changed.clear()
                await self.changed.wait()
        except asyncio.CancelledError:
            self.cancel_calls()
            while self.tasks:
                await asyncio.wait(self.tasks)
            raise
        finally:
            self.core.end_stage(self.number)

    def set_workers(self, wanted: int) -> None:
        """By the core, on a thread of its own."""
        self.wanted = wanted
        self.run.call_in_loop(self._adjust)

    def _adjust(self) -> None:
        if self.is_over:
            return
        while len(self.tasks) < self.wanted:
            task = asyncio.ensure_future(self._work())
            self.tasks.add(task)
            task.add_done_callback(self._done)
        for task in list(self.waiting)[: max(0, len(self.tasks) - self.wanted)]:
            self.waiting.discard(task)
            task.cancel()
        self.core.report(self.number, workers=len(self.tasks))

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.waiting.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.core.break_down(self.number, task.exception())
        self.core.report(self.number, workers=len(self.tasks))
        self._adjust()
        if self.changed is not None:
            self.changed.set()

    def cancel_calls(self) -> None:
        """In the loop: the pipeline is stopped at once."""
        self.is_over = True
        for task in self.tasks:
            task.cancel()
        if self.changed is not None:
            self.changed.set()

    # -- a worker

    async def _work(self) -> None:
        running_stage.set(self.node.name)
        while len(self.tasks) <= self.wanted:
            began = time.perf_counter()
            try:
                items, before, after = await self._take()
            except ShutDown:
                self.is_over = True
                return
            taken = time.perf_counter()
            self.core.report(self.number, idle=taken - began, workers=len(self.tasks))
            try:
                await self._work_on(items, before)
            finally:
                if after is not None:
                    after.set_result(None)

    async def _take(
        self,
    ) -> tuple[list[Any], asyncio.Future[None] | None, asyncio.Future[None] | None]:
        """Items for one call, whose turn comes before it, and what says that it has emitted."""
        task = asyncio.current_task()
        assert task is not None
        self.waiting.add(task)
        try:
            if not self.node.ordered:
                return await self._get(), None, None
            async with self.order:
                items = await self._get()
                before, self.turn = self.turn, asyncio.get_running_loop().create_future()
                return items, before, self.turn
        finally:
            self.waiting.discard(task)

    async def _get(self) -> list[Any]:
        if self.node.batch is None:
            return [await self.queue.aget()]
        return await self.queue.aget_many(self.node.batch, linger=self.node.linger)

    async def _work_on(self, items: list[Any], before: asyncio.Future[None] | None) -> None:
        argument = items[0] if self.node.batch is None else items
        began = time.perf_counter()
        try:
            result = await self._call(argument, len(items))
            busy = time.perf_counter() - began
            if before is not None:
                await asyncio.wait([before])
            await self.emit(result)
        except asyncio.CancelledError as error:
            if self._is_cancelled():
                for item in items:
                    self.drop(item)
                raise
            failure = RuntimeError("the call was cancelled from within, not by the pipeline")
            failure.__cause__ = error
            await self._fail(items, failure)
        except Exception as error:
            await self._fail(items, error)
        else:
            self.core.report(self.number, processed=len(items), busy=busy, workers=len(self.tasks))

    def _is_cancelled(self) -> bool:
        """Whether it is this task that was cancelled; a call may raise CancelledError by itself."""
        task = asyncio.current_task()
        # Task.cancelling() came with Python 3.11.
        return self.is_over or bool(getattr(task, "cancelling", lambda: 0)())

    async def _fail(self, items: list[Any], error: BaseException) -> None:
        for item in items:
            if self.node.on_error == "dead_letter":
                # It may have to wait for room there, and has no way to do so in a loop.
                await asyncio.to_thread(self.fail, item, error)
            else:
                self.fail(item, error)

    async def _call(self, argument: Any, n: int) -> Any:
        attempt = 1
        while True:
            try:
                return await self._call_once(argument, n)
            except Exception as error:
                retry = self.node.retry
                if retry is None or attempt >= self.node.attempts or not retry._should(error):
                    raise
            await self._held("retry", asyncio.sleep(retry.delay(attempt)))
            self.core.report(self.number, retried=1, workers=len(self.tasks))
            attempt += 1

    async def _call_once(self, argument: Any, n: int) -> Any:
        """Passes the limits in the order of other stages, and calls."""
        node = self.node
        async with contextlib.AsyncExitStack() as stack:
            if node.bucket is not None:
                await self._held("rate", node.bucket.aacquire(n))
            if node.memory is not None:
                reserved = await self._held("memory", node.memory.areserve(node.memory_per_item))
                stack.callback(reserved.release)
            if node.breaker is not None:
                stack.enter_context(await self._admit())
            if node.limiter is not None:
                permit = await self._held("limiter", node.limiter.aacquire())
                stack.enter_context(permit)
            awaitable = node.fn(argument)
            if not inspect.isawaitable(awaitable):
                raise TypeError(
                    f'{node.role} {node.name!r}: kind="async" needs a coroutine function, and '
                    f"{node.fn!r} returned {awaitable!r}"
                )
            return await awaitable

    async def _admit(self) -> Any:
        breaker = self.node.breaker
        assert breaker is not None
        while True:
            try:
                return breaker.admit()
            except BreakerOpen as error:
                pause = min(0.05, error.retry_after or 0.05)
            await self._held("breaker", asyncio.sleep(pause))

    async def _held(self, cause: str, waiting: Any) -> Any:
        began = time.perf_counter()
        try:
            return await waiting
        finally:
            held = {cause: time.perf_counter() - began}
            self.core.report(self.number, held=held, workers=len(self.tasks))
