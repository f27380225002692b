"""Pipeline: stages joined by bounded queues, from sources to sinks.

`Pipeline` is what people hold and describe; `Run` is what its threads share once it has started,
and does not refer to the Pipeline: one that nobody holds any more is collected, its sources are
stopped, and what was inside goes its way.  libweir does the work (`ext/pipeline.c`);
`_pipeline_graph` reads the description, `_pipeline_kinds` has the stages that are no threads of
libweir's.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import os
import queue as queues
import signal
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import GeneratorType, TracebackType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from weir import _guard, _weir
from weir._errors import ShutDown
from weir._pipeline_graph import Graph, Node, Stage, StageOptions, guarded, lines_of, read_options
from weir._pipeline_kinds import (
    AsyncSource,
    AsyncStage,
    External,
    ProcessStage,
    Results,
    running_stage,
)
from weir._pipeline_report import PipelineReport, PipelineStats, StageStats
from weir._spill import Spill

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["Pipeline", "Stage"]

_LOOK = 0.05  # seconds between two looks of who waits for a queue of others whether it is over
_SIGNAL_LOOK = 0.2  # seconds between two looks whether the time to drain is over


# ---- what a source and a sink may be ----------------------------------------------------------


def _from_queue(source: Any, run: Run) -> Iterator[Any]:
    """The items of a weir.Queue or SharedQueue until it is shut down, or the pipeline stopped."""
    while not run.stopping:
        try:
            yield source.get(timeout=_LOOK)
        except queues.Empty:
            continue
        except ShutDown:
            return


def _from_file(file: Iterable[Any]) -> Iterator[Any]:
    for line in file:
        yield line.rstrip(b"\n" if isinstance(line, bytes) else "\n")


def _iterator_of(source: Any, run: Run) -> Iterator[Any]:
    if _is_queue(source):
        return _from_queue(source, run)
    if isinstance(source, (str, os.PathLike)):
        return iter(lines_of(source))
    if hasattr(source, "readline"):
        return _from_file(source)
    return iter(source)


def _is_async(source: Any) -> bool:
    """Whether it can be iterated in an event loop only; a weir.Flow says so itself."""
    if not hasattr(source, "__aiter__"):
        return False
    try:
        iter(source)
    except TypeError:
        return True
    return False


def _check_source(source: Any, name: str) -> None:
    if not any(hasattr(source, name) for name in ("__iter__", "__aiter__", "__fspath__")):
        raise TypeError(
            f"source {name!r} must be an iterable, an async iterable, a path, a text file or a "
            f"queue, not {source!r}"
        )


def _to_file(file: Any) -> Callable[[Any], object]:
    """Writes a line for each item."""
    write = file.write

    def write_line(item: Any) -> None:
        write(item + b"\n" if isinstance(item, bytes) else f"{item}\n")

    return write_line


def _end_of(sink: Any) -> Any:
    """The queue or file in which items end."""
    if _is_queue(sink) or (not callable(sink) and hasattr(sink, "write")):
        return sink
    return getattr(sink, "__self__", None) if _is_queue(getattr(sink, "__self__", None)) else None


def _to_queue(sink: Any, run: Run) -> Callable[[Any], object]:
    """Puts each item, waiting for room until the pipeline is stopped at once."""

    def put(item: Any) -> None:
        while True:
            try:
                sink.put(item, timeout=_LOOK)
            except queues.Full:
                if run.halted or sink.qsize() < sink.maxsize:  # its policy is not to wait
                    raise
            else:
                return

    return put


def _is_queue(something: Any) -> bool:
    return isinstance(something, (_weir.Queue, _weir.SharedQueue))


def _consumer_of(sink: Any, name: str) -> Any:
    """The function; or the queue itself, for _to_queue when there is a Run."""
    if callable(sink) or _is_queue(sink):
        return sink
    if hasattr(sink, "write"):
        return _to_file(sink)
    raise TypeError(f"sink {name!r} must be callable, a queue or a file, not {sink!r}")


# ---- what runs ----------------------------------------------------------------------------------


class Run:
    """A pipeline that has started.

    loop   where its coroutines run; None: it has none (yet: a thread of its own makes one)
    """

    def __init__(
        self,
        name: str,
        nodes: dict[str, Node],
        *,
        inputs: list[str],
        on_drop: Callable[[Any, str, str], object] | None,
        auto_bytes: int,
        drain_deadline: float,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.name, self.nodes, self.inputs = name, nodes, inputs
        self.drain_deadline = drain_deadline
        self.on_drop = on_drop
        self.graph = Graph(nodes, on_drop)
        self.externals: list[External] = []
        self.generators: list[GeneratorType[Any, Any, Any]] = []  # sources that are some
        self.put_timeouts: dict[int, float | None] = {}
        self.stopping = self.halted = False
        self.interrupted: int | None = None
        self.loop = loop
        self.ended_in_loop: asyncio.Event | None = None
        self.finalizer: weakref.finalize[..., Pipeline] | None = None  # of the Pipeline
        self.began = time.monotonic()
        self.ended_at: float | None = None
        self.core = _weir.Pipeline(
            name=name,
            on_drop=None if on_drop is None else self.tell_drop,
            start_thread=self.spawn,
            on_end=self._on_end,
            auto_bytes=auto_bytes,
        )
        self.graph.build(self.core, self._terms_of)

    # -- building

    def _terms_of(self, node: Node, part: int) -> dict[str, Any]:
        terms: dict[str, Any] = {"open": node.name in self.inputs}
        if node.is_source:
            if node.kind != "async":
                iterator = _iterator_of(node.fn, self)
                if isinstance(iterator, GeneratorType):
                    self.generators.append(iterator)
                return {**terms, "fn": iterator}
            return {**terms, "kind": 2, "fn": None}
        if node.kind in ("process", "async", "results"):
            terms["fn"] = None
        elif _is_queue(node.fn):
            terms["fn"] = _to_queue(node.fn, self)
        if node.kind in ("process", "async"):
            terms["on_workers"] = self._scaler_of(node.name)
        elif node.on_error == "stop":
            terms["on_failure"] = self._on_stop
        return terms

    def _scaler_of(self, name: str) -> Callable[[int], None]:
        def set_workers(wanted: int) -> None:
            for external in self.externals:
                if external.node.name == name and isinstance(external, (ProcessStage, AsyncStage)):
                    external.set_workers(wanted)

        return set_workers

    def _make_externals(self) -> None:
        makers = {"process": ProcessStage, "async": AsyncStage, "results": Results}
        for name, numbers in self.graph.parts.items():
            node = self.nodes[name]
            for number in numbers:
                self.put_timeouts[number] = node.put_timeout
                if node.is_source and node.kind == "async":
                    self.externals.append(AsyncSource(self, node, number, None))
                elif node.kind in makers:
                    queue = self.graph.queues[number]
                    self.externals.append(makers[node.kind](self, node, number, queue))

    def start(self) -> None:
        """Starts all threads; none is left where that fails."""
        self._make_externals()
        self.core.start()
        for external in self.externals:
            if isinstance(external, ProcessStage):
                external.start()
        if self.loop is None and self._coroutines():
            self.spawn(self._run_loop, f"{self.name}-loop")

    def spawn(self, target: Callable[[], object], name: str) -> None:
        """A thread that does not hold up the end of the interpreter, should its function hang."""
        threading.Thread(target=target, name=f"weir-{name}", daemon=True).start()

    # -- coroutines

    def _coroutines(self) -> list[AsyncSource | AsyncStage]:
        return [e for e in self.externals if isinstance(e, (AsyncSource, AsyncStage))]

    async def serve(self) -> None:
        """All that runs in an event loop."""
        self.loop = asyncio.get_running_loop()
        if self.halted:
            self.loop.call_soon(self._cancel_in_loop)
        await asyncio.gather(*(external.serve() for external in self._coroutines()))

    def _run_loop(self) -> None:
        try:
            asyncio.run(self.serve())
        except BaseException as error:
            self.core.break_down(self._coroutines()[0].number, error)

    def call_in_loop(self, callback: Callable[[], object]) -> None:
        """Nothing where there is no loop, or no longer."""
        loop = self.loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(callback)

    def _cancel_in_loop(self) -> None:
        for external in self._coroutines():
            external.cancel_calls()

    def _stop_in_loop(self) -> None:
        for external in self._coroutines():
            if isinstance(external, AsyncSource):
                external.stop()

    # -- ending

    def stop(self) -> None:
        """Sources are not asked any more; what is inside goes its way."""
        if self.wait(0):
            return
        self.stopping = True
        self.core.stop()
        for name in self.inputs:
            for number in self.graph.parts[name]:
                self.core.close_input(number)
        self.call_in_loop(self._stop_in_loop)

    def halt(self) -> None:
        """What waits is dropped, what runs ends, as far as it can be ended."""
        self.stopping = True
        self.core.halt()
        self.cancel_calls()

    def arm_deadline(self) -> None:
        """It was interrupted: in a loop nobody else looks at the time."""
        loop = self.loop
        if self.ended_in_loop is not None and loop is not None:
            self.call_in_loop(lambda: loop.call_later(self.drain_deadline, self._end_draining))

    def _end_draining(self) -> None:
        if not self.wait(0):
            self.halt()

    def cancel_calls(self) -> None:
        """The pipeline is halted: calls in processes and coroutines are ended."""
        self.halted = True
        for external in self.externals:
            if isinstance(external, ProcessStage):
                external.cancel_calls()
        self.call_in_loop(self._cancel_in_loop)

    def _on_stop(self, item: Any, error: BaseException) -> None:
        self.stopping = True
        self.cancel_calls()

    def _on_end(self) -> None:
        self.ended_at = time.monotonic()
        for generator in self.generators:
            with contextlib.suppress(Exception):  # one that hangs in a call cannot be closed
                generator.close()
        if self.finalizer is not None:
            self.finalizer.detach()  # it keeps us, and so all that the functions refer to
        if self.ended_in_loop is not None:
            self.call_in_loop(self.ended_in_loop.set)

    def wait(self, timeout: float | None) -> bool:
        """Whether it has ended, within so many seconds."""
        return self.core.wait(timeout)

    def drain(self, seconds: float) -> bool:
        """Stops it, and what has not ended by then, at once; whether it ended by itself."""
        self.stop()
        if self.wait(seconds):
            return True
        self.halt()
        self.wait(None)
        return False

    # -- drops

    def tell_drop(self, item: Any, number: int, reason: str) -> None:
        """To on_drop, which gets the stage by its name."""
        if self.on_drop is not None:
            self.on_drop(item, self.graph.names[number], reason)

    # -- looking

    def stats(self) -> tuple[dict[str, StageStats], tuple[str, str | None, str, float]]:
        """All stages, and the verdict: a sentence, who, what limits him, and the share."""
        stages = {name: self._stage_stats(name) for name in self.nodes}
        number, cause, share, text = self.core.verdict()
        who = None if number < 0 else self.graph.names[number]
        return stages, (text, who, cause, share)

    def _stage_stats(self, name: str) -> StageStats:
        node = self.nodes[name]
        parts = [self.core.snapshot(number) for number in self.graph.parts[name]]
        whole = parts[0]
        for other in parts[1:]:
            whole = {key: _sum(value, other[key]) for key, value in whole.items()}
        for splitter in self.graph.splitters.get(name, ()):
            lost = self.core.snapshot(splitter)["dropped"]  # before it came to a part
            whole["dropped"] = _sum(whole["dropped"], lost)
            whole["accepted"] += sum(lost.values())
        size = whole.pop("queue_size")
        if node.is_source:
            whole["accepted"] = whole["processed"]
        if whole["accepted"]:  # its workers may have gone before anybody looked
            whole["workers_peak"] = max(
                whole["workers_peak"], node.workers * (node.kind != "inline")
            )
        kind = "source" if node.is_source else node.kind
        return StageStats(name=name, kind=kind, maxsize=size or None, **whole)


def _sum(a: Any, b: Any) -> Any:
    if isinstance(a, bool):
        return a and b
    if isinstance(a, dict):
        return {key: value + b[key] for key, value in a.items()}
    return a + b


# ---- interpreter exit and fork ------------------------------------------------------------------

_runs: weakref.WeakSet[Run] = weakref.WeakSet()
_runs_lock = threading.Lock()


def _at_exit() -> None:
    """What was accepted goes its way, for as long as each pipeline says; then they end."""
    with _runs_lock:
        runs = [run for run in _runs if not run.wait(0)]
    for run in runs:
        run.stop()
    for run in runs:
        run.drain(run.drain_deadline)


def _in_forked_child() -> None:
    global _runs_lock
    _runs_lock = threading.Lock()
    _runs.clear()


# The last to register is the first to be called: this comes before the end of process pools.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_in_forked_child)


def _forget(run: Run) -> None:
    """Nobody holds the pipeline any more."""
    with contextlib.suppress(RuntimeError):  # in a forked child it is the parent's
        run.stop()


# ---- Ctrl-C -------------------------------------------------------------------------------------


_interruptible: list[Run] = []  # that the main thread runs: one, or several in an event loop
_handlers_before: dict[int, Any] = {}


def _take_back_signals() -> None:
    for number, handler in _handlers_before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    _handlers_before.clear()


def _interrupt(number: int, frame: object) -> None:
    first = [run for run in _interruptible if run.interrupted is None]
    for run in first:
        run.interrupted = number
        run.stop()
        run.arm_deadline()
    if not first:
        for run in _interruptible:
            run.halt()
        _take_back_signals()  # a third one has its usual effect, should a call hang


@contextlib.contextmanager
def _graceful(run: Run) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the run, a second one at once; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _interruptible.append(run)
    if not _handlers_before:
        for number in (signal.SIGINT, signal.SIGTERM):
            _handlers_before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        _interruptible.remove(run)
        if not _interruptible:
            _take_back_signals()


# ---- what people hold ---------------------------------------------------------------------------


_counter = itertools.count(1)


class Pipeline:
    """Stages joined by bounded queues: source -> stages -> sink, with pressure all the way through.

        pipeline = weir.Pipeline(paths)
        pipeline.stage(read, workers=4)
        pipeline.stage(parse, kind="process", workers=8, on_error="skip")
        pipeline.sink(store, batch=100, linger=0.5, retry=3)
        print(pipeline.run())

    source          where items come from; see `source()`, which can be called for more
    name            for people who look at it
    on_drop         on_drop(item, stage, reason): once for each item that is lost on its way into a
                    stage; reason is "newest", "oldest", "sampled", "expired", "timeout", "refused"
                    or "discarded".  On the thread whose call dropped it; what it raises is logged
    auto_bytes      memory for all queues with queue="auto" together, as their `sizer` counts
    drain_deadline  seconds that run() gives what is inside after Ctrl-C, and leaving `with` and the
                    end of the interpreter
    durable         a directory: every queue with overflow="block" is on disk, in a directory of its
                    stage's name, and a later pipeline over the same one, also after a kill or a
                    power failure, first does what was accepted and not done: at least once.  What
                    is inside when it is stopped stays there, too.  One pipeline at a time has the
                    directory, until it has ended, and somebody has waited for that.  Not with
                    coroutines and key=
    durable_bytes   on disk at most, for each stage

    A stage holds no more than its queue, and what its workers are working on.  Of each stage
    accepted = processed + failed + dropped (by reason) + left: `stats()` and the report say so.
    A pipeline runs once.  All methods are for any thread; in a forked child it is unusable.
    """

    def __init__(
        self,
        source: Any = None,
        *,
        name: str | None = None,
        on_drop: Callable[[Any, str, str], object] | None = None,
        auto_bytes: int = 64 << 20,
        drain_deadline: float = 30.0,
        durable: str | os.PathLike[str] | None = None,
        durable_bytes: int = 1 << 30,
    ) -> None:
        if on_drop is not None and not callable(on_drop):
            raise TypeError(f"'on_drop' must be callable or None, not {on_drop!r}")
        _guard.count("auto_bytes", auto_bytes, 2**62)
        self.name = name if name is not None else f"pipeline-{next(_counter)}"
        self._on_drop = on_drop and guarded(f"on_drop of pipeline {self.name!r}", on_drop)
        self._auto_bytes = auto_bytes
        self._drain_deadline = _guard.number("drain_deadline", drain_deadline, 0, 1e9)
        self._durable = None if durable is None else os.fspath(durable)
        self._durable_bytes = _guard.count("durable_bytes", durable_bytes, 2**62)
        self._nodes: dict[str, Node] = {}
        self._run: Run | None = None
        self._lock = threading.Lock()
        self._report: PipelineReport | None = None
        if source is not None:
            self.source(source)

    # ---- describing ---------------------------------------------------------------------------

    def source(self, source: Any, *, name: str | None = None) -> Stage:
        """One more place where items come from.

        An iterable; an asynchronous iterable; a path or an open text file, for its lines without
        their ends; a `weir.Queue` or `weir.SharedQueue`, until it is shut down.  It is not asked
        for an item before there is room for it, by one thread (or in the event loop), and not
        asked any more when the pipeline is stopped.  What it raises stops the pipeline.
        """
        name = self._new_name(name, "source")
        _check_source(source, name)
        return self._add(Node(name, "source", source, "async" if _is_async(source) else "thread"))

    def stage(self, fn: Callable[[Any], Any], **options: Unpack[StageOptions]) -> Stage:
        """A stage that emits fn(item) for each item.

        name        shown in reports; default: the function's
        after       the stage (or its name, or a list of them) whose results come here; default: the
                    one added last, or all sources added last.  []: none, for `put(stage=)` and dead
                    letters
        kind        "thread": workers are threads; "inline": runs in the workers of the stage before
                    it, without a queue; "process": a process pool, for what computes (fn, items and
                    results are pickled); "async": fn is a coroutine function, workers are tasks, in
                    the loop of arun() or in one of a thread of its own
        workers     how many; or (min, max): as many as the queue and the time that items take need
        queue       items that may wait in front of it, > 0 (default 16); "auto": found by what is
                    measured
        max_bytes, sizer, max_age, overflow, spill    of its queue, as weir.Queue has them;
                    `overflow` may be a strategy of weir.strategies.  A durable spill (not in
                    coroutines) gives an item again after a crash unless its call had returned, and
                    what it emitted was taken
        put_timeout seconds that an item waits for room here, with overflow="block"; then it is
                    dropped (reason "timeout").  None: as long as it takes
        rate        calls for so many items a second, no more at once than come in 10 ms; or a
                    TokenBucket, with a burst of its own
        limiter     an int, or a Limiter: calls at a time, shared with others who have it
        breaker     a CircuitBreaker: while it is open the stage waits
        memory, memory_per_item    a MemoryGovernor, and the bytes that a call takes
        retry       calls for an item in all, or a Retry: its attempts, on, backoff and jitter.  Not
                    for one whose process died
        on_error    what becomes of an item whose call failed for good: "stop" (the pipeline, and
                    run() raises the exception), "skip" (counted), a callable (item, exception) that
                    is told, or a stage for dead letters (a stage or a name), which gets the item
        ordered     with several workers: results leave in the order of the items
        batch, linger    fn gets a list of up to `batch` items, what is there, or after waiting up
                    to `linger` seconds for a full one
        flat        fn returns an iterable whose items are emitted one by one; [] emits none.  What
                    a generator had yielded when it failed stays emitted (and comes again with
                    retry=): return a list where that matters
        key         key(item), hashable: items of one key go to the same of the `workers`, in order.
                    One that raises, as a fan_out that does, stops the pipeline
        fan_out     where results go if several stages follow: "broadcast" (to each),
                    "round_robin", or a callable: to number hash(it(item)) modulo how many there
                    are (0 is the first)

        An exception that is no Exception (SystemExit, say) always stops the pipeline.  Raises
        ValueError or TypeError, with the stage and the option named.
        """
        if not callable(fn):
            raise TypeError(f"a stage needs a function, not {fn!r}")
        node = Node(self._new_name(options.get("name"), _name_of(fn)), "stage", fn, "thread")
        return self._add_with(node, options)

    def sink(self, sink: Any, **options: Unpack[StageOptions]) -> Stage:
        """Where items end: a function (`results.append`), a queue, or a text file, a line for each.

        The options are those of stage(); what the function returns is ignored.
        """
        name = self._new_name(options.get("name"), _name_of(sink))
        node = Node(name, "sink", _consumer_of(sink, name), "thread", end=_end_of(sink))
        return self._add_with(node, options)

    def _new_name(self, name: str | None, default: str) -> str:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"a stage's name must be a str, not {name!r}")
        if name is not None and (name in self._nodes or not name):
            raise ValueError(
                f"there is a stage {name!r} already" if name else "a name must not be ''"
            )
        if name is not None:
            return name
        numbered = (default if n == 1 else f"{default}-{n}" for n in itertools.count(1))
        return next(candidate for candidate in numbered if candidate not in self._nodes)

    def _add_with(self, node: Node, options: StageOptions) -> Stage:
        if self._durable is not None and options.get("overflow", "block") == "block":
            options = {**options, **self._durable_options(node.name, options)}
        read_options(node, options)
        if node.kind != "async" and inspect.iscoroutinefunction(node.fn):
            raise TypeError(
                f"{node.role} {node.name!r} is a coroutine function, which nobody would await; say "
                'kind="async"'
            )
        after = options.get("after")
        if after is None:
            node.after = self._last()
        else:
            several = [after] if isinstance(after, (str, Stage)) else list(after)
            node.after = [one if isinstance(one, str) else one.name for one in several]
        return self._add(node)

    def _durable_options(self, name: str, options: StageOptions) -> StageOptions:
        """What puts the queue of a stage, if it has one, into the directory."""
        if options.get("kind") == "inline":
            return {}
        assert self._durable is not None
        os.makedirs(self._durable, exist_ok=True)
        path = os.path.join(self._durable, quote(name, safe=" "))
        spill = Spill(path, max_bytes=self._durable_bytes, durable=True)
        return {"overflow": "spill", "spill": spill}

    def _add(self, node: Node) -> Stage:
        if self._run is not None:
            raise RuntimeError("the pipeline has been started; stages have to be added before")
        self._nodes[node.name] = node
        return Stage(node.name)

    def _last(self) -> list[str]:
        """The stage added last that emits, or all sources that were added last."""
        names: list[str] = []
        for node in reversed(self._nodes.values()):
            if node.is_source:
                names.append(node.name)
            elif node.role == "sink" and not names:
                continue
            else:
                return names[::-1] or [node.name]
        return names[::-1]

    # ---- running ------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start its threads, and return at once.

        Raises ValueError where the stages do not fit together (a cycle, a stage that nothing
        feeds), RuntimeError where it has been started, or no thread can be.
        """
        self._start(None)
        return self

    def _start(self, loop: asyncio.AbstractEventLoop | None) -> Run:
        with self._lock:
            if self._run is not None:
                raise RuntimeError("a pipeline runs once; make a new one")
            run = Run(
                self.name,
                self._nodes,
                inputs=self._inputs(),
                on_drop=self._on_drop,
                auto_bytes=self._auto_bytes,
                drain_deadline=self._drain_deadline,
                loop=loop,
            )
            run.start()
            self._run = run
        with _runs_lock:
            _runs.add(run)
        run.finalizer = weakref.finalize(self, _forget, run)
        run.finalizer.atexit = False
        if run.wait(0):
            run.finalizer.detach()
        return run

    def _inputs(self) -> list[str]:
        """Stages that put() may feed: those without anything before them."""
        letters = {node.dead_letter for node in self._nodes.values()}
        return [
            node.name
            for node in self._nodes.values()
            if not node.after and node.has_queue and node.name not in letters
        ]

    @property
    def _started(self) -> Run:
        if self._run is None:
            with self._lock:  # its first workers may come before start() has returned
                if self._run is None:
                    raise RuntimeError("the pipeline has not been started")
        return self._run

    def run(self) -> PipelineReport:
        """Start it (if it is not), wait until all items have gone their way, and say how it was.

        In the main thread Ctrl-C or SIGTERM stops the sources, and what is inside goes its way for
        up to `drain_deadline` seconds; a second one drops it at once.  Raises the exception that
        stopped it (with a note that names stage and item from Python 3.11 on); then `report` says
        how far it came.
        """
        run = self._start(None) if self._run is None or self._report else self._run
        with _graceful(run):
            self._wait_for_end(run)
        return self._finish(run)

    def _wait_for_end(self, run: Run) -> None:
        deadline: float | None = None
        try:
            while not run.wait(_SIGNAL_LOOK):
                if run.interrupted is None or run.halted:
                    continue
                if deadline is None:
                    deadline = time.monotonic() + run.drain_deadline
                elif time.monotonic() > deadline:
                    run.halt()
        except BaseException:  # of a signal's handler; a call that hangs must not hold it up
            run.halt()
            run.wait(_SIGNAL_LOOK)
            self._finish(run, raising=False)
            raise

    async def arun(self) -> PipelineReport:
        """run() for coroutines: its async stages and sources run in this loop, which is not held
        up.

        In the main thread Ctrl-C and SIGTERM are for the pipeline, as in run().  Cancelled, it
        stops at once, and waits for the calls that run in threads.
        """
        loop = asyncio.get_running_loop()
        run = self._start(loop)
        with _graceful(run):
            return await self._serve(run)

    async def _serve(self, run: Run) -> PipelineReport:
        run.ended_in_loop = asyncio.Event()
        if run.wait(0):
            run.ended_in_loop.set()
        serving = asyncio.ensure_future(run.serve())
        try:
            await run.ended_in_loop.wait()
            await serving
        except BaseException:
            run.halt()
            serving.cancel()
            await asyncio.wait([serving])
            await run.ended_in_loop.wait()
            self._finish(run, raising=False)
            raise
        return self._finish(run)

    def put(
        self, item: Any, timeout: float | None = None, *, stage: Stage | str | None = None
    ) -> None:
        """Put an item into the first stage, which must have no source before it (or into `stage`).

        As weir.Queue.put: waits for room for up to `timeout` seconds, or does what the stage's
        overflow says.  Raises queue.Full, weir.ShutDown (the pipeline is stopped), weir.TooLarge;
        and RuntimeError by a worker of a stage behind, if it would have to wait.  Then the item is
        not taken.
        """
        run = self._started
        number = self._input(run, stage, item)
        try:
            run.core.put(number, item, timeout)
        except RuntimeError as error:
            if type(error) is RuntimeError and (cycle := _cycle_of_put(run, number)):
                raise RuntimeError(f"{cycle}: {error}") from None
            raise

    async def aput(
        self, item: Any, timeout: float | None = None, *, stage: Stage | str | None = None
    ) -> None:
        """put() for coroutines."""
        run = self._started
        number = self._input(run, stage, item)
        queue = run.graph.queues[number]
        if queue._try_put(item):
            return
        if run.nodes[run.graph.names[number]].overflow in ("block", "spill"):
            cycle = _cycle_of_put(run, number)
            if cycle:
                raise RuntimeError(
                    f"{cycle}: this aput would wait for itself: its stage is full, and feeds the "
                    "stage that puts; give the item another way, or a larger queue"
                )
        await queue.aput(item, timeout)

    def _input(self, run: Run, stage: Stage | str | None, item: Any) -> int:
        name = stage.name if isinstance(stage, Stage) else stage
        if name is None and len(run.inputs) == 1:
            name = run.inputs[0]
        if name not in run.inputs:
            there = ", ".join(map(repr, run.inputs)) or "none"
            raise ValueError(
                f"put() needs a stage with nothing before it, not {name!r}; there is {there}"
                if name is not None
                else f"say which stage= the item is for; those with nothing before them: {there}"
            )
        parts, key = run.graph.parts[name], run.nodes[name].key
        return parts[0] if key is None else parts[hash(key(item)) % len(parts)]

    # ---- ending -------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; False: not within `timeout` seconds.

        It does not raise what stopped it; `report` has that.
        """
        run = self._outside_of_loop("wait", "await the task of arun()")
        if not run.wait(timeout):
            return False
        self._finish(run, raising=False)
        return True

    def drain(self, deadline: float | None = None) -> PipelineReport:
        """Stop its sources, and put(); wait until what is inside has gone its way.

        What has not after `deadline` seconds (default: `drain_deadline`) is dropped.  Raises the
        exception that stopped it.
        """
        run = self._outside_of_loop("drain", "await adrain()")
        run.drain(self._seconds_to_drain(deadline))
        return self._finish(run)

    async def adrain(self, deadline: float | None = None) -> PipelineReport:
        """drain() for coroutines, of a pipeline that runs in this loop or in none."""
        run, seconds = self._started, self._seconds_to_drain(deadline)
        run.stop()
        if not await _ended_within(run, seconds):
            run.halt()
            await _ended_within(run, None)
        return self._finish(run)

    def _seconds_to_drain(self, deadline: float | None) -> float:
        if deadline is None:
            return self._drain_deadline
        return _guard.number("deadline", deadline, 0, 1e9)

    def stop(self) -> PipelineReport:
        """Stop it at once: what waits is dropped (reason "discarded"), what runs in threads is
        waited for, what runs in processes and coroutines is ended."""
        run = self._outside_of_loop("stop", "await astop()")
        run.halt()
        run.wait(None)
        return self._finish(run, raising=False)

    async def astop(self) -> PipelineReport:
        """stop() for coroutines, of a pipeline that runs in this loop or in none."""
        run = self._started
        run.halt()
        await _ended_within(run, None)
        return self._finish(run, raising=False)

    def _outside_of_loop(self, name: str, instead: str) -> Run:
        """RuntimeError in the loop that its coroutines run in, which would wait for itself."""
        run = self._started
        if run.loop is not None and asyncio._get_running_loop() is run.loop and not run.wait(0):
            raise RuntimeError(
                f"{name}() would hold up the event loop that the pipeline runs in: {instead}"
            )
        return run

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drains it; an exception stops it at once."""
        self.drain() if value is None else self.stop()

    async def __aenter__(self) -> Self:
        self._serving = asyncio.ensure_future(self._serve(self._start(asyncio.get_running_loop())))
        return self

    async def __aexit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run, serving = self._started, self._serving
        run.stop() if value is None else run.halt()
        done, _ = await asyncio.wait([serving], timeout=self._drain_deadline)
        if not done:
            run.halt()
            await asyncio.wait([serving])
        if value is None:
            serving.result()
        elif not serving.cancelled():
            serving.exception()  # the one that leaves the block is the one to be seen

    _serving: asyncio.Future[PipelineReport]

    # ---- results ------------------------------------------------------------------------------

    def results(self) -> Iterator[Any]:
        """Start it, and iterate over what its last stage emits, through a bounded queue.

        Whoever leaves the iteration stops the pipeline.  Raises the exception that stopped it,
        behind the results that came before.
        """
        run, results = self._start_results(None)
        try:
            yield from results.take()
        finally:
            if not results.queue.is_shutdown:
                run.halt()
            results.end()
            run.wait(None)
            self._finish(run, raising=False)
        self._finish(run)

    async def aresults(self) -> AsyncIterator[Any]:
        """results() for coroutines: `async for result in pipeline.aresults()`."""
        run, results = self._start_results(asyncio.get_running_loop())
        serving = asyncio.ensure_future(self._serve(run))
        try:
            async for item in results.atake():
                yield item
        finally:
            if not results.queue.is_shutdown:
                run.halt()
            results.end()
            await asyncio.wait([serving])
        serving.result()

    def _start_results(self, loop: asyncio.AbstractEventLoop | None) -> tuple[Run, Results]:
        node = Node(self._new_name(None, "results"), "results", None, "results")
        node.after = self._last()
        if not node.after or any(n.role == "sink" for n in self._nodes.values()):
            raise ValueError("results() needs a last stage that emits, and no sink")
        self._add(node)
        run = self._start(loop)
        return run, next(e for e in run.externals if isinstance(e, Results))

    # ---- looking ------------------------------------------------------------------------------

    def stats(self) -> PipelineStats:
        """Everything it counts, now; str() of it is a table with the bottleneck below."""
        return PipelineStats(**self._numbers(self._started))

    def _numbers(self, run: Run) -> dict[str, Any]:
        stages, (text, who, cause, share) = run.stats()
        return {
            "name": self.name,
            "elapsed": (run.ended_at or time.monotonic()) - run.began,
            "stages": stages,
            "bottleneck": text,
            "bottleneck_stage": who,
            "bottleneck_cause": cause,
            "bottleneck_share": share,
        }

    @property
    def report(self) -> PipelineReport | None:
        """How it ended; None: it has not, or nobody has waited for it."""
        return self._report

    def _finish(self, run: Run, *, raising: bool = True) -> PipelineReport:
        entry = run.core.error
        error = None if entry is None else entry[0]
        with self._lock:
            if self._report is None:
                self._report = PipelineReport(
                    **self._numbers(run),
                    outcome=_outcome(run, error),
                    error=error,
                    interrupted=run.interrupted,
                )
                if entry is not None:
                    _note(*entry, run)
                for queue in run.graph.queues.values():
                    queue.leave_disk()
                for node in self._nodes.values():
                    if hasattr(node.end, "flush"):
                        with contextlib.suppress(ValueError):  # it is closed
                            node.end.flush()
        if error is not None and raising:
            raise error
        return self._report

    def __repr__(self) -> str:
        state = "not started" if self._run is None else "running"
        if self._report is not None:
            state = self._report.outcome
        return f"<weir.Pipeline {self.name!r}: {' -> '.join(self._nodes)}; {state}>"


def _cycle_of_put(run: Run, number: int) -> str:
    """'a -> b -> a', if the stage that runs here is fed by the one that is put into."""
    name = running_stage.get() or threading.current_thread().name.removeprefix("weir-")
    while name and name not in run.nodes:
        name = name.rpartition("-")[0]  # of a worker's thread
    target = run.graph.names[number]
    path = run.graph.find_path(target, name) if name else []
    return " -> ".join([*path, target]) if path else ""


async def _ended_within(run: Run, seconds: float | None) -> bool:
    """Whether it has ended; in its loop, or where it has none."""
    if run.ended_in_loop is None or asyncio.get_running_loop() is not run.loop:
        return await asyncio.to_thread(run.wait, seconds)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(run.ended_in_loop.wait(), seconds)
    return run.wait(0)


def _name_of(fn: Any) -> str:
    name = getattr(fn, "__name__", None) or type(fn).__name__
    return "stage" if name == "<lambda>" else str(name)


def _outcome(
    run: Run, error: BaseException | None
) -> Literal["finished", "drained", "stopped", "failed"]:
    if error is not None:
        return "failed"
    if run.halted:
        return "stopped"
    return "drained" if run.stopping else "finished"


def _note(error: BaseException, number: int, item: Any, run: Run) -> None:
    add_note = getattr(error, "add_note", None)  # from Python 3.11
    if add_note is None:
        return
    text = repr(item)
    of_item = "" if item is None else f", item {text if len(text) < 80 else text[:77] + '...'}"
    add_note(
        f"weir: raised in stage {run.graph.names[number]!r}{of_item}; the pipeline was stopped"
    )
