"""The stages of a pipeline as people describe them: options in words, checked when they are given,
and put into libweir's terms when the pipeline starts.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, cast

from weir import _weir
from weir._breaker import CircuitBreaker
from weir._limit import Limiter
from weir._memory import MemoryGovernor, core_of, parse_bytes
from weir._rate import TokenBucket
from weir._retry import Retry
from weir._spill import Spill
from weir.strategies import Strategy

__all__ = ["Graph", "Node", "Stage", "StageOptions", "guarded", "lines_of", "read_options"]

_LOGGER = logging.getLogger("weir")

MOST_ATTEMPTS = 2**31 - 1
NO_STAGE = 2**32 - 1

THREAD, INLINE, EXTERNAL = range(3)  # weir_stage_kind
HALT, SKIP, DEAD_LETTER = range(3)  # weir_on_error
BROADCAST, ROUND_ROBIN, KEY = range(3)  # weir_route
_OVERFLOWS = ("block", "fail", "drop_newest", "drop_oldest", "sample", "spill")  # weir_overflow


class Stage:
    """A source, stage or sink of a pipeline, for `after=`, `on_error=` and `put(stage=)`."""

    __slots__ = ("name",)

    name: str

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<weir.Stage {self.name!r}>"


class StageOptions(TypedDict, total=False):
    """What `Pipeline.stage` and `Pipeline.sink` take; each is described there."""

    name: str
    kind: Literal["thread", "inline", "process", "async"]
    workers: int | tuple[int, int]
    after: str | Stage | Iterable[str | Stage] | None
    queue: int | Literal["auto"]
    max_bytes: int | str | None
    sizer: Callable[[Any], int] | None
    max_age: float | None
    overflow: Literal["block", "fail", "drop_newest", "drop_oldest", "sample", "spill"] | Strategy
    spill: Spill | None
    put_timeout: float | None
    rate: float | TokenBucket | None
    limiter: int | Limiter | None
    breaker: CircuitBreaker | None
    retry: int | Retry | None
    memory: MemoryGovernor | None
    memory_per_item: int | str | None
    on_error: str | Callable[[Any, BaseException], object] | Stage  # "stop", "skip", a stage
    ordered: bool
    batch: int | None
    linger: float
    flat: bool
    key: Callable[[Any], Any] | None
    fan_out: Literal["broadcast", "round_robin"] | Callable[[Any], Any]


_NAMES = tuple(StageOptions.__annotations__)
_OF_A_QUEUE = (
    "workers queue max_bytes sizer max_age overflow spill put_timeout ordered batch linger key"
).split()


def guarded(what: str, fn: Callable[..., object]) -> Callable[..., None]:
    """fn for where nobody can catch what it raises: it is logged, and not again and again."""
    told = False

    def call(*args: Any) -> None:
        nonlocal told
        try:
            fn(*args)
        except Exception:
            if not told:
                told = True
                _LOGGER.exception("weir: exception in %s; others will not be logged", what)

    return call


@dataclass
class Node:
    """A source, stage or sink, as it was described."""

    name: str
    role: Literal["source", "stage", "sink", "results"]
    fn: Any  # a source: what it comes from
    kind: str
    after: list[str] = field(default_factory=list)
    workers: int = 1
    workers_min: int = 0  # with workers_max: as many as are needed
    workers_max: int = 0
    queue: int | Literal["auto"] = 16
    max_bytes: int | None = None
    sizer: Callable[[Any], int] | None = None
    max_age: float | None = None
    overflow: str = "block"
    spill: Spill | None = None
    put_timeout: float | None = None
    bucket: TokenBucket | None = None
    limiter: Limiter | None = None
    breaker: CircuitBreaker | None = None
    retry: Retry | None = None
    memory: MemoryGovernor | None = None
    memory_per_item: int = 0
    on_error: Literal["stop", "skip", "dead_letter"] = "stop"
    on_failure: Callable[[Any, BaseException], None] | None = None
    dead_letter: str | None = None
    ordered: bool = False
    batch: int | None = None
    linger: float = 0.0
    flat: bool = False
    key: Callable[[Any], Any] | None = None
    fan_out: Literal["broadcast", "round_robin"] | Callable[[Any], Any] = "broadcast"
    end: Any = None  # of a sink: the queue or file that it puts into

    @property
    def is_source(self) -> bool:
        return self.role == "source"

    @property
    def has_queue(self) -> bool:
        return not self.is_source and self.kind != "inline"

    @property
    def attempts(self) -> int:
        if self.retry is None:
            return 1
        return MOST_ATTEMPTS if self.retry._attempts is None else self.retry._attempts

    @property
    def most_workers(self) -> int:
        return self.workers_max or self.workers


# ---- options --------------------------------------------------------------------------------


class _Reader:
    """Reads the options of one stage; every complaint names it."""

    def __init__(self, node: Node, options: StageOptions) -> None:
        self.node, self.options = node, options

    def wrong(self, name: str, rule: str, value: object) -> ValueError:
        return ValueError(f"stage {self.node.name!r}: {name} must be {rule}, not {value!r}")

    def clash(self, text: str) -> ValueError:
        return ValueError(f"stage {self.node.name!r}: {text}")

    def count(self, name: str, value: object, *, more: str = "") -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
            return value
        raise self.wrong(name, "> 0" + more, value)

    def seconds(self, name: str, value: object, *, zero: bool = False) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and (0 < cast(float, value) < 1e9 or (zero and value == 0)):
            return float(cast(float, value))
        raise self.wrong(name, "seconds >= 0" if zero else "seconds > 0, or None", value)

    def callable(self, name: str, value: Any) -> Any:
        if callable(value):
            return value
        raise self.wrong(name, "callable or None", value)

    # -- one by one

    def read(self) -> None:
        for name, value in self.options.items():
            if name not in _NAMES:
                near = difflib.get_close_matches(name, _NAMES, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"stage {self.node.name!r} has no option {name!r}{hint}")
            if name not in ("name", "after"):
                getattr(self, "read_" + name)(value)
        self.check()

    def read_kind(self, value: object) -> None:
        if value not in ("thread", "inline", "process", "async"):
            raise self.wrong("kind", '"thread", "inline", "process" or "async"', value)
        self.node.kind = str(value)

    def read_workers(self, value: Any) -> None:
        node = self.node
        if not isinstance(value, tuple):
            node.workers = self.count("workers", value, more=", or (min, max)")
            return
        if len(value) != 2:
            raise self.wrong("workers", "> 0, or (min, max)", value)
        low, high = (self.count("workers", n, more=", or (min, max)") for n in value)
        if low > high:
            raise self.wrong("workers", "(min, max) with min <= max", value)
        node.workers = low
        if low < high:
            node.workers_min, node.workers_max = low, high

    def read_queue(self, value: Any) -> None:
        if value != "auto":
            self.count("queue", value, more=' or "auto"')
        self.node.queue = value

    def read_max_bytes(self, value: Any) -> None:
        self.node.max_bytes = None if value is None else parse_bytes(value, "max_bytes")

    def read_sizer(self, value: Any) -> None:
        self.node.sizer = value and self.callable("sizer", value)

    def read_max_age(self, value: Any) -> None:
        self.node.max_age = None if value is None else self.seconds("max_age", value)

    def read_overflow(self, value: Any) -> None:
        if isinstance(value, Strategy):
            self.follow(value)
        elif value in _OVERFLOWS:
            self.node.overflow = value
        else:
            names = ", ".join(f'"{name}"' for name in _OVERFLOWS)
            raise self.wrong("overflow", f"one of {names}, or a strategy of weir.strategies", value)

    def follow(self, strategy: Strategy) -> None:
        """What a strategy says, where no option of the stage says otherwise."""
        node, given = self.node, self.options
        node.overflow = strategy.overflow
        if strategy.max_age is not None and "max_age" not in given:
            node.max_age = strategy.max_age
        if strategy.patience is not None and strategy.attempts and "put_timeout" not in given:
            node.put_timeout = strategy.patience * strategy.attempts
        if strategy.rate is not None and "rate" not in given:
            node.bucket = TokenBucket(strategy.rate, burst=strategy.burst)
        if strategy.breaker is not None and "breaker" not in given:
            node.breaker = CircuitBreaker(**{"name": node.name, **strategy.breaker})

    def read_spill(self, value: Any) -> None:
        if value is not None and not isinstance(value, Spill):
            raise self.wrong("spill", "a weir.Spill or None", value)
        self.node.spill = value

    def read_put_timeout(self, value: Any) -> None:
        self.node.put_timeout = None if value is None else self.seconds("put_timeout", value)

    def read_rate(self, value: Any) -> None:
        if value is None or isinstance(value, TokenBucket):
            self.node.bucket = value
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            # No more at once than come in 10 ms.
            self.node.bucket = TokenBucket(value, burst=max(1, int(value / 100)))
        else:
            raise self.wrong("rate", "a number per second > 0, or a weir.TokenBucket", value)

    def read_limiter(self, value: Any) -> None:
        if value is None or isinstance(value, Limiter):
            self.node.limiter = value
        else:
            self.node.limiter = Limiter(self.count("limiter", value, more=", or a weir.Limiter"))

    def read_breaker(self, value: Any) -> None:
        if value is not None and not isinstance(value, CircuitBreaker):
            raise self.wrong("breaker", "a weir.CircuitBreaker or None", value)
        self.node.breaker = value

    def read_retry(self, value: Any) -> None:
        if isinstance(value, Retry):
            for name in ("deadline", "budget", "on_retry"):
                if getattr(value, "_" + name) is not None:
                    raise self.clash(
                        f"retry= heeds attempts, on, backoff, multiplier and jitter of a "
                        f"weir.Retry, and not its {name}; decorate the function with it instead"
                    )
            self.node.retry = value
        elif value is not None:
            self.node.retry = Retry(self.count("retry", value, more=" attempts, or a weir.Retry"))

    def read_memory(self, value: Any) -> None:
        core_of(value)
        self.node.memory = value

    def read_memory_per_item(self, value: Any) -> None:
        self.node.memory_per_item = 0 if value is None else parse_bytes(value, "memory_per_item")

    def read_on_error(self, value: Any) -> None:
        node = self.node
        name = value.name if isinstance(value, Stage) else value
        if value in ("stop", "skip"):
            node.on_error = value
        elif isinstance(name, str):
            node.on_error, node.dead_letter = "dead_letter", name
        elif callable(value):
            node.on_error = "skip"
            node.on_failure = guarded(f"on_error of stage {node.name!r}", value)
        else:
            rule = '"stop", "skip", a callable (item, exception), or a stage for dead letters'
            raise self.wrong("on_error", rule, value)

    def read_ordered(self, value: Any) -> None:
        self.node.ordered = bool(value)

    def read_batch(self, value: Any) -> None:
        if value is not None and self.count("batch", value) > 65536:
            raise self.wrong("batch", "from 1 to 65,536", value)
        self.node.batch = value

    def read_linger(self, value: Any) -> None:
        self.node.linger = self.seconds("linger", value, zero=True)

    def read_flat(self, value: Any) -> None:
        self.node.flat = bool(value)

    def read_key(self, value: Any) -> None:
        self.node.key = None if value is None else self.callable("key", value)

    def read_fan_out(self, value: Any) -> None:
        if value not in ("broadcast", "round_robin") and not callable(value):
            rule = '"broadcast", "round_robin", or a callable that gives the key of an item'
            raise self.wrong("fan_out", rule, value)
        self.node.fan_out = value

    # -- all together

    def check(self) -> None:
        node, given = self.node, self.options
        if node.kind == "inline":
            for name in _OF_A_QUEUE:
                if name in given:
                    raise self.clash(
                        f"{name}= needs a queue and workers of its own, and an inline stage runs "
                        'in the workers of the stage before it; say kind="thread"'
                    )
        if node.bucket is not None and (node.batch or 1) > node.bucket.burst:
            if isinstance(given.get("rate"), TokenBucket):
                raise self.clash(
                    f"a batch of {node.batch} takes more tokens than the burst of its bucket, "
                    f"{node.bucket.burst}"
                )
            node.bucket = TokenBucket(node.bucket.rate, burst=node.batch)
        if node.put_timeout is not None and node.overflow != "block":
            raise self.clash(
                f'put_timeout goes with overflow="block"; "{node.overflow}" never waits'
            )
        if (node.memory is None) != (node.memory_per_item == 0):
            raise self.clash(
                "memory= and memory_per_item= go together: a weir.MemoryGovernor, and the bytes "
                "that one call takes"
            )
        if node.spill is not None and node.overflow != "spill":
            raise self.clash('spill= goes with overflow="spill"')
        if node.overflow == "spill" and node.spill is None:
            raise self.clash('overflow="spill" needs spill=, a weir.Spill, which says where to')
        if node.spill is not None and node.spill.durable and node.kind == "async":
            raise self.clash(
                'a durable spill= goes with kind="thread" or "process": there an item is '
                "acknowledged when its call has returned, a coroutine could lose it in a crash"
            )
        if node.spill is not None and node.key is not None and node.workers > 1:
            raise self.clash(
                "each of the workers of a key has its own queue, and spill= is for one"
            )
        if node.key is not None and node.workers_max:
            raise self.clash(
                "key= needs a fixed number of workers: the items of one key go to the same one"
            )
        if node.linger and node.batch is None:
            raise self.clash("linger= is how long a batch waits to become full: say batch=, too")
        if node.ordered and node.key is not None:
            raise self.clash(
                "key= keeps the order of each key; ordered= is for all items: choose one"
            )
        if node.flat and node.role == "sink":
            raise self.clash("a sink emits nothing, so flat= has no meaning")
        if node.kind == "process" and node.key is not None:
            raise self.clash('key= goes with kind="thread" or "async"')


def read_options(node: Node, options: StageOptions) -> None:
    """Fills the node in; TypeError or ValueError with a sentence that names it."""
    _Reader(node, options).read()


# ---- into libweir's terms -------------------------------------------------------------------


_NO_RETRY = {"attempts": 1, "base_ns": 0, "max_ns": 0, "multiplier": 0.0, "jitter": 0}


def _retry_terms(node: Node) -> dict[str, Any]:
    retry = node.retry
    if retry is None or node.kind in ("process", "async"):
        return {**_NO_RETRY, "should_retry": None}
    return {
        "attempts": node.attempts,
        "base_ns": retry._base_ns,
        "max_ns": retry._most_ns,
        "multiplier": retry._multiplier,
        "jitter": retry._jitter,
        "should_retry": retry._should,
    }


class Graph:
    """All nodes of a pipeline, and what each became in the core.

    parts    node name -> numbers of its stages in the core: one, or one for each worker of a key
    queues   number -> its queue
    """

    def __init__(
        self, nodes: dict[str, Node], on_drop: Callable[[Any, str, str], object] | None
    ) -> None:
        self.nodes = nodes
        self.on_drop = on_drop
        self.parts: dict[str, list[int]] = {}
        self.queues: dict[int, _weir.StageQueue[Any]] = {}
        self.names: dict[int, str] = {}  # number -> the name that people know
        self.splitters: dict[str, list[int]] = {}  # before the parts of a name
        self.targets = {name: self._targets_of(name) for name in nodes}

    def _targets_of(self, name: str) -> list[str]:
        return [node.name for node in self.nodes.values() if name in node.after]

    def check(self) -> None:
        """What can be wrong between stages, with the stages named."""
        for node in self.nodes.values():
            for before in node.after:
                if before not in self.nodes:
                    raise ValueError(
                        f"stage {node.name!r} comes after {before!r}, and there is no such stage; "
                        f"there are {', '.join(map(repr, self.nodes))}"
                    )
                if self.nodes[before].role == "sink":
                    raise ValueError(
                        f"stage {node.name!r} comes after the sink {before!r}, which emits "
                        "nothing; make that one a stage"
                    )
            letter = node.dead_letter
            if letter is not None and letter not in self.nodes:
                raise ValueError(
                    f'stage {node.name!r}: on_error must be "stop", "skip", a callable or a stage, '
                    f"and there is no stage {letter!r}"
                )
            if letter is not None and not self.nodes[letter].has_queue:
                raise ValueError(
                    f"stage {node.name!r}: dead letters need a queue, and {letter!r} has none"
                )
            if letter is not None and self.nodes[letter].key is not None:
                raise ValueError(
                    f"stage {node.name!r}: dead letters cannot go to {letter!r}, which has key="
                )
            self._check_async(node)
        self._check_cycles()
        self._check_ends()

    def _check_async(self, node: Node) -> None:
        if node.kind != "async":
            return
        targets = [self.nodes[name] for name in self.targets[node.name]]
        for target in targets:
            if target.kind == "inline":
                raise ValueError(
                    f"stage {target.name!r} is inline and would hold up the event loop of "
                    f'{node.name!r}; say kind="thread"'
                )
            if target.key is not None and target.most_workers > 1 and len(targets) > 1:
                raise ValueError(
                    f"stage {target.name!r} has key=, so it must be the only one after "
                    f"{node.name!r}, which runs in an event loop"
                )

    def _check_cycles(self) -> None:
        done: set[str] = set()
        for start in self.nodes:
            cycle = self._find_cycle(start, [], done)
            if cycle:
                raise ValueError(
                    f"the stages wait for each other: {' -> '.join(cycle)}; full queues would "
                    "never get empty again"
                )

    def _find_cycle(self, name: str, path: list[str], done: set[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        letter = self.nodes[name].dead_letter
        for target in [*self.targets[name], *([letter] if letter else [])]:
            cycle = self._find_cycle(target, [*path, name], done)
            if cycle:
                return cycle
        done.add(name)
        return []

    def _check_ends(self) -> None:
        """A source that leads nowhere, or whose queue is that of a sink behind it."""
        for source in self.nodes.values():
            if source.is_source and not self.targets[source.name]:
                raise ValueError(
                    f"the source {source.name!r} leads nowhere; add a stage or a sink after it"
                )
            for sink in self.nodes.values():
                if source.is_source and sink.end is not None and sink.end is source.fn:
                    path = self.find_path(source.name, sink.name)
                    if path:
                        raise ValueError(
                            "the stages wait for each other: "
                            f"{' -> '.join([*path, source.name])}; one queue is source and sink"
                        )

    def find_path(self, start: str, end: str) -> list[str]:
        """The stages on a way from one to the other, both included; none: []."""
        ways = [[start]]
        seen = {start}
        for way in ways:
            if way[-1] == end:
                return way
            letter = self.nodes[way[-1]].dead_letter
            for target in [*self.targets[way[-1]], *([letter] if letter else [])]:
                if target not in seen:
                    seen.add(target)
                    ways.append([*way, target])
        return []

    # -- adding

    def build(self, core: _weir.Pipeline, terms_of: Callable[[Node, int], dict[str, Any]]) -> None:
        """Adds and connects all; terms_of(node, part) gives fn and what depends on the kind."""
        self.check()
        for name in self.nodes:
            self._add(core, name, terms_of)
        for name in self.nodes:
            self._connect(core, name)

    def _add(
        self, core: _weir.Pipeline, name: str, terms_of: Callable[[Node, int], dict[str, Any]]
    ) -> None:
        if name in self.parts:
            return
        node = self.nodes[name]
        if node.dead_letter is not None:
            self._add(core, node.dead_letter, terms_of)
        numbers: list[int] = []
        for part in range(self._count_parts(core, node, terms_of)):
            targets = [self.nodes[target] for target in self.targets[name]]
            terms = self._terms(node, targets, part, numbers[0] if numbers else -1)
            numbers.append(core.add(**{**terms, **terms_of(node, part)}))
            self.names[numbers[-1]] = name
            if terms["queue"] is not None:
                self.queues[numbers[-1]] = terms["queue"]
        self.parts[name] = numbers

    def _count_parts(
        self, core: _weir.Pipeline, node: Node, terms_of: Callable[[Node, int], dict[str, Any]]
    ) -> int:
        """One for each worker of a key, and so of inline stages that run in them."""
        if node.kind != "inline":
            return node.workers if node.key is not None else 1
        for before in node.after:
            self._add(core, before, terms_of)
        return len(self.parts[node.after[0]]) if len(node.after) == 1 else 1

    def _terms(self, node: Node, targets: list[Node], part: int, part_of: int) -> dict[str, Any]:
        is_external = node.kind in ("process", "async", "results")
        fixed = node.key is not None
        queue = self._make_queue(node) if node.has_queue else None
        limits = not is_external
        return {
            "name": f"{node.name}[{part}]" if part_of >= 0 else node.name,
            "kind": EXTERNAL if is_external else INLINE if node.kind == "inline" else THREAD,
            "fn": node.fn,
            "source": node.is_source,
            "emits": node.is_source or bool(targets),
            "flat": node.flat,
            "passes": False,
            "batch": 0 if node.batch is None or is_external else node.batch,
            "linger_ns": round(node.linger * 1e9),
            "queue": queue,
            "size": -1 if node.queue == "auto" else node.queue,
            "max_bytes": node.max_bytes or (1 << 62 if node.sizer else 0),
            "overflow": _OVERFLOWS.index(node.overflow),
            "acknowledge": node.spill is not None and node.spill.durable and not is_external,
            "put_timeout_ns": round((node.put_timeout or 0) * 1e9),
            "workers": 1 if fixed else node.workers,
            "workers_min": node.workers_min,
            "workers_max": node.workers_max,
            "ordered": node.ordered and not is_external and node.most_workers > 1,
            "window": 0,
            **_route(node, targets),
            "bucket": node.bucket if limits else None,
            "limiter": node.limiter if limits else None,
            "breaker": node.breaker if limits else None,
            "governor": core_of(node.memory) if limits else None,
            "governor_bytes": node.memory_per_item if limits else 0,
            **_retry_terms(node),
            "on_error": ("stop", "skip", "dead_letter").index(node.on_error),
            "dead_letter": 0 if node.dead_letter is None else self.parts[node.dead_letter][0],
            "on_failure": node.on_failure,
            "on_workers": None,
            "part_of": part_of,
            "open": False,
        }

    def _make_queue(self, node: Node) -> _weir.Queue[Any]:
        options: dict[str, Any] = {"overflow": node.overflow, "spill": node.spill}
        tell, name = self.on_drop, node.name
        if tell is not None:
            options["on_drop"] = lambda item, reason: tell(item, name, reason)
        return _weir.StageQueue(
            16 if node.queue == "auto" else node.queue,
            max_bytes=node.max_bytes,
            sizer=node.sizer,
            max_age=node.max_age,
            name=node.name,
            **options,
        )

    # -- connecting

    def _connect(self, core: _weir.Pipeline, name: str) -> None:
        targets = self.targets[name]
        for part_of_name, number in enumerate(self.parts[name]):
            for target in targets:
                entry = self.parts[target]
                if self.nodes[target].kind == "inline" and len(entry) > 1:
                    entry = [entry[part_of_name]]
                elif len(entry) > 1 and len(targets) > 1:
                    entry = [self._add_splitter(core, number, target)]
                for part in entry:
                    core.connect(number, part)

    def _add_splitter(self, core: _weir.Pipeline, before: int, name: str) -> int:
        """Behind a stage with several behind it, before one with a key: an inline one."""
        node = Node(f"{name}<-{before}", "stage", None, "inline")
        terms = self._terms(node, [self.nodes[name]], 0, self.parts[name][0])
        splitter = core.add(**{**terms, "name": node.name, "passes": True})
        self.names[splitter] = name
        self.splitters.setdefault(name, []).append(splitter)
        for part in self.parts[name]:
            core.connect(splitter, part)
        return splitter


def _route(node: Node, targets: list[Node]) -> dict[str, Any]:
    """Where several stages follow; one with a key is as many as it has workers."""
    if len(targets) == 1 and targets[0].key is not None:
        return {"route": KEY, "key": targets[0].key, "mixes": True}
    if callable(node.fan_out):
        return {"route": KEY, "key": node.fan_out, "mixes": False}
    route = BROADCAST if node.fan_out == "broadcast" else ROUND_ROBIN
    return {"route": route, "key": None, "mixes": False}


def lines_of(path: str | os.PathLike[str]) -> Iterable[str]:
    """The lines of a text file (UTF-8), without their ends, read as they are needed."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline=None) as file:
        for line in file:
            yield line.rstrip("\n")
