"""What a flow is made of, and the loop that runs its plain steps.

A `Step` looks at one item at a time: map, filter, take.  Steps that follow each other are one loop,
whose text is written once for each sequence of kinds and compiled, as dataclasses do with their
methods: no item passes through a chain of generators, and a chain of ten thousand maps needs no
stack.  The text is the same for both faces, but for `async` and `await`.

A `Stage` is anything else: a generator, or an asynchronous one, over what is before it.

Both get a function that opens what is before them, call it when they are first asked for an item,
and close what it gave, once, however they end.  So nothing runs before it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from functools import lru_cache, partial
from itertools import chain, groupby
from typing import Any, NamedTuple, TypeAlias, TypeVar

from weir._weir import Queue, SharedQueue

__all__ = [
    "AnyIterable",
    "Open",
    "Stage",
    "Step",
    "aclose",
    "aloop",
    "aopen_given",
    "arun",
    "can_run_again",
    "check_async",
    "close",
    "is_new",
    "open_given",
    "run",
    "why_not_sync",
]

T = TypeVar("T")
AnyIterable: TypeAlias = Iterable[T] | AsyncIterable[T]
Open: TypeAlias = Callable[[], Any]  # opens what is before a stage


class Step(NamedTuple):
    kind: str  # of TEXT
    arg: Any
    name: str  # of the operator


class Stage(NamedTuple):
    name: str  # of the operator
    sync: Callable[..., Generator[Any, None, None]] | None  # None: it needs an event loop
    aio: Callable[..., AsyncGenerator[Any, None]]
    args: tuple[Any, ...] = ()
    instead: str = ""  # what to do without an event loop
    others: tuple[Any, ...] = ()  # flows that it reads beside the one before it


# ---- sources -------------------------------------------------------------------------------------


def _made(given: Any) -> Any:
    """What a function that was given as a source returns; anything else is itself."""
    if callable(given) and not isinstance(given, (Iterable, AsyncIterable)):
        return given()
    return given


def open_given(given: Any, *, is_ours: bool = False) -> Iterator[Any]:
    """An iterator, to be closed if it can be.

    What somebody else opened, such as a file, stays open: `chain` has no close().  But a generator
    is there to be read to its end, and what a function made for us, or iter() did, is ours.
    """
    made = _made(given)
    if not isinstance(made, Iterable):
        if isinstance(made, AsyncIterable):
            raise TypeError(f"{made!r} needs an event loop: read this flow with `async for`")
        raise TypeError(f"a source must be iterable, and {given!r} gave {made!r}")
    iterator = iter(made)
    is_ours = is_ours or made is not given or iterator is not made
    return iterator if is_ours or isinstance(iterator, Generator) else chain(iterator)


def aopen_given(given: Any, *, is_ours: bool = False) -> AsyncIterator[Any] | Iterator[Any]:
    """The same for an event loop; asynchronous if it can be."""
    made = _made(given)
    if isinstance(made, AsyncIterable):
        return aiter(made)
    check_async(made)
    return open_given(made, is_ours=is_ours or made is not given)


def check_async(made: object) -> None:
    """TypeError where reading would hold up the event loop, and we know it."""
    if isinstance(made, SharedQueue):
        raise TypeError(
            f"{made!r} would hold up the event loop: read it in a thread, with `for`, or into a "
            "weir.Queue, with Flow(shared_queue).to_queue(queue)"
        )


def can_run_again(given: Any, ops: tuple[Step | Stage, ...]) -> bool:
    """False: a second run would find nothing, or the rest."""
    if isinstance(given, (Iterator, AsyncIterator)) and not isinstance(given, Queue):
        return False
    return not getattr(given, "runs_once", False) and all(
        can_run_again(flow._given, flow._ops) for flow in _flows_in(given, ops)
    )


def _flows_in(given: Any, ops: tuple[Step | Stage, ...]) -> Iterator[Any]:
    """The flows that a flow reads."""
    if hasattr(given, "_ops"):
        yield given
    for op in ops:
        if isinstance(op, Stage):
            yield from op.others


def close(source: Any) -> None:
    if hasattr(source, "close"):
        source.close()


async def aclose(source: Any) -> None:
    if hasattr(source, "aclose"):
        await source.aclose()
    elif hasattr(source, "__next__"):
        close(source)


# ---- the loop ------------------------------------------------------------------------------------

# What a step does before the loop, and with an item `x`.  {f} is its argument, {s} its state;
# `skip` goes on with the next item.  After take's last item nothing more is pulled: `last`.
TEXT: dict[str, tuple[str, str]] = {
    "map": ("", "x = {f}(x)"),
    "filter": ("", "if not {f}(x):\n    skip"),
    "take": ("{s} = {f}\nif not {s}:\n    return", "{s} -= 1\nif not {s}:\n    last = True"),
    "take_while": ("", "if not {f}(x):\n    return"),
    "drop": ("{s} = {f}", "if {s}:\n    {s} -= 1\n    skip"),
    "drop_while": ("{s} = True", "if {s}:\n    if {f}(x):\n        skip\n    {s} = False"),
    "scan": ("{f}, {s} = {f}", "x = {s} = {f}({s}, x)"),
    "running": ("{s} = nothing", "x = {s} = x if {s} is nothing else {f}({s}, x)"),
    "distinct": ("{s} = {f}()", "if not {s}(x):\n    skip"),
    "throttle": ("", "{f}.acquire()"),
}
ASYNC_TEXT = TEXT | {
    "amap": ("", "x = await {f}(x)"),
    "afilter": ("", "if not await {f}(x):\n    skip"),
    "throttle": ("", "await {f}.aacquire()"),
}

SYNC_LOOP = """\
def run(open_source, args):
    source = None
    try:
{before}
        source = open_source()
        for x in source:
{body}
    finally:
        close(source)
"""
ASYNC_LOOP = """\
async def run(open_source, args):
    source = None
    try:
{before}
        source = open_source()
        if hasattr(source, "__anext__"):
            async for x in source:
{body_}
        else:
            for x in source:
{body_}
    finally:
        await aclose(source)
"""

_NAMES = {"close": close, "aclose": aclose, "nothing": object()}


def _indented(lines: list[str], spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in lines)


def _skipping(line: str, takes: bool) -> list[str]:
    """`skip` in Python; nothing more is wanted behind the last item."""
    head = line.removesuffix("skip")
    if head == line:
        return [line]
    return (
        [head + "if last:", head + "    return", head + "continue"]
        if takes
        else [head + "continue"]
    )


@lru_cache(maxsize=256)
def _compiled(kinds: tuple[str, ...], is_async: bool) -> Callable[..., Any]:
    text = ASYNC_TEXT if is_async else TEXT
    before, body = ["last = False"], []
    if kinds:
        before.append("".join(f"f{n}, " for n in range(len(kinds))) + "= args")
    takes = False
    for n, kind in enumerate(kinds):
        first, then = (part.format(f=f"f{n}", s=f"s{n}") for part in text[kind])
        before += first.splitlines()
        for line in then.splitlines():
            body += _skipping(line, takes)
        takes = takes or kind == "take"
    body += ["yield x", "x = None"]  # not two of them while we wait
    if takes:
        body += ["if last:", "    return"]
    code = (ASYNC_LOOP if is_async else SYNC_LOOP).format(
        before=_indented(before, 8), body=_indented(body, 12), body_=_indented(body, 16)
    )
    names: dict[str, Any] = dict(_NAMES)
    exec(compile(code, f"<weir.Flow: {', '.join(kinds[:8])}>", "exec"), names)
    compiled: Callable[..., Any] = names["run"]
    return compiled


# ---- running -------------------------------------------------------------------------------------


def _is_step(op: Step | Stage) -> bool:
    return isinstance(op, Step)


def _runs(ops: tuple[Step | Stage, ...]) -> Iterator[list[Any]]:
    """Stages, each alone, and the steps between them, as lists; steps come first, if only none."""
    if not ops or not _is_step(ops[0]):
        yield []
    for is_step, group in groupby(ops, _is_step):
        if is_step:
            yield list(group)
        else:
            yield from ([stage] for stage in group)


def _loop(open_source: Open, steps: list[Step], is_async: bool) -> Open:
    compiled = _compiled(tuple(step.kind for step in steps), is_async)
    return partial(compiled, open_source, [step.arg for step in steps])


def why_not_sync(given: Any, ops: tuple[Step | Stage, ...]) -> str | None:
    """Why a flow needs an event loop, if it does and that can be told before it runs."""
    if isinstance(given, AsyncIterable) and not isinstance(given, Iterable):
        return f"{given!r} needs an event loop: read this flow with `async for`"
    for op in ops:
        if isinstance(op, Step) and op.kind not in TEXT:
            return (
                f"{op.name}() with the coroutine function {op.arg!r} needs an event loop: read "
                "this flow with `async for`"
            )
        if isinstance(op, Stage) and op.sync is None:
            instead = f", or {op.instead}" if op.instead else ""
            return f"{op.name} needs an event loop: read this flow with `async for`{instead}"
    whys = (why_not_sync(flow._given, flow._ops) for flow in _flows_in(given, ops))
    return next(filter(None, whys), None)


def run(given: Any, ops: tuple[Step | Stage, ...]) -> Generator[Any, None, None]:
    opens: Open = partial(open_given, given)
    for group in _runs(ops):
        if group and isinstance(group[0], Stage):
            assert group[0].sync is not None
            opens = partial(group[0].sync, opens, *group[0].args)
        else:
            opens = _loop(opens, group, False)
    generator: Generator[Any, None, None] = opens()
    return generator


def aloop(opens: Open) -> AsyncGenerator[Any, None]:
    """What it opens, synchronous or not, as a stage."""
    generator: AsyncGenerator[Any, None] = _loop(opens, [], True)()
    return generator


def arun(given: Any, ops: tuple[Step | Stage, ...]) -> AsyncGenerator[Any, None]:
    opens: Open = partial(aopen_given, given)
    for group in _runs(ops):
        if group and isinstance(group[0], Stage):
            opens = partial(group[0].aio, opens, *group[0].args)
        else:
            opens = _loop(opens, group, True)
    generator: AsyncGenerator[Any, None] = opens()
    return generator


# ---- distinct ------------------------------------------------------------------------------------


def is_new(last: int | None, key: Callable[[Any], Any] | None) -> Callable[[Any], bool]:
    """Whether an item is none of the last ones that passed; remembers it if it is not."""
    order: deque[Any] = deque()
    seen: Any = order if last == 1 else set()  # one is compared, so it need not be hashable

    def check(item: Any) -> bool:
        what = item if key is None else key(item)
        if what in seen:
            return False
        if last is not None:
            if len(order) == last:
                oldest = order.popleft()
                if seen is not order:
                    seen.discard(oldest)
            order.append(what)
        if seen is not order:
            seen.add(what)
        return True

    return check
