"""What limits and guards have in common: options in words, and decorators of every kind."""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar, cast

__all__ = [
    "check",
    "check_timeout",
    "count",
    "kind_of",
    "number",
    "seconds",
    "share",
    "warn_of_settings",
    "wrap",
    "wrap_entered",
]

F = TypeVar("F", bound=Callable[..., Any])

MOST_NS = 2**62


def check(ok: bool, name: str, rule: str, value: object) -> None:
    """ValueError where it is not ok: what was wrong with which option."""
    if not ok:
        raise ValueError(f"'{name}' must be {rule}, not {value!r}")


def number(name: str, value: float, least: float, most: float = math.inf) -> float:
    """A float in [least, most]; TypeError, ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name!r} must be a number, not {value!r}")
    if not least <= value <= most or math.isinf(value):
        bounds = f">= {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise ValueError(f"{name!r} must be {bounds}, not {value!r}")
    return float(value)


def check_timeout(timeout: float | None) -> None:
    """ValueError in the words of the calls that are in C; TypeError."""
    if timeout is None:
        return
    if timeout != timeout:
        raise ValueError("'timeout' must not be NaN")
    if timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")


def share(name: str, value: float) -> float:
    """A float in (0, 1]; TypeError, ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name!r} must be a number, not {value!r}")
    if not 0 < value <= 1:
        raise ValueError(f"{name!r} must be > 0 and <= 1, not {value!r}")
    return float(value)


def seconds(name: str, value: float) -> int:
    """Seconds > 0 as nanoseconds; TypeError, ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name!r} must be a number of seconds, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name!r} must be > 0 seconds, not {value!r}")
    return max(1, round(value * 1e9)) if value < MOST_NS / 1e9 else MOST_NS


def count(name: str, value: int, most: int) -> int:
    """An int in [1, most]; TypeError, ValueError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name!r} must be an int, not {value!r}")
    if not 1 <= value <= most:
        raise ValueError(f"{name!r} must be from 1 to {most:,}, not {value!r}")
    return value


def warn_of_settings(what: str, there: str) -> None:
    """By the __init__ of something shared that exists already, with other settings."""
    warnings.warn(
        f"{what} exists already, with {there}; what is said here has no effect",
        RuntimeWarning,
        stacklevel=3,
    )


def kind_of(fn: Callable[..., Any]) -> str:
    """ "coroutine", "generator", "async generator", or "function" for all others."""
    for candidate in (fn, getattr(fn, "__call__", None)):  # noqa: B004
        if inspect.iscoroutinefunction(candidate):
            return "coroutine"
        if inspect.isasyncgenfunction(candidate):
            return "async generator"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
    return "function"


def wrap(guard: Any, fn: F) -> F:
    """A function that is called through `guard`, which has call(), `with` and `async with`.

    Of a generator function, the call is from the first item to its end, or until it is closed.
    """
    if not callable(fn):
        raise TypeError(f"a decorator takes a function, not {fn!r}")
    call = guard.call

    @functools.wraps(fn)
    def function(*args: Any, **kwargs: Any) -> Any:
        return call(fn, *args, **kwargs)

    @functools.wraps(fn)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        with guard:  # nothing waits here
            return await fn(*args, **kwargs)

    @functools.wraps(fn)
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with guard:
            return (yield from fn(*args, **kwargs))

    @functools.wraps(fn)
    async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        with guard:
            inner = fn(*args, **kwargs)
            try:
                step = inner.__anext__()
                while True:
                    try:
                        item = await step
                    except StopAsyncIteration:
                        return
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = inner.athrow(error)
                    else:
                        step = inner.asend(sent)
            finally:
                await inner.aclose()

    kinds: dict[str, Any] = {
        "function": function,
        "coroutine": coroutine,
        "generator": generator,
        "async generator": async_generator,
    }
    return cast(F, kinds[kind_of(fn)])


def wrap_entered(limit: Any, fn: F, instead: str) -> F:
    """A function, or coroutine function, that runs inside `with limit` (or `async with`).

    instead: what somebody meant who calls the limit with something else.
    """
    if not callable(fn):
        raise TypeError(f"a decorator takes a function, not {fn!r}; {instead}")
    kind = kind_of(fn)
    if kind.endswith("generator"):
        raise TypeError(
            f"{fn!r} is a generator, which runs when it is iterated over: use `with` inside of it"
        )

    @functools.wraps(fn)
    def function(*args: Any, **kwargs: Any) -> Any:
        with limit:
            return fn(*args, **kwargs)

    @functools.wraps(fn)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        async with limit:
            return await fn(*args, **kwargs)

    return cast(F, coroutine if kind == "coroutine" else function)
