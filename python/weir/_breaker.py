"""CircuitBreaker and Throttle: not calling what fails.  The work is done in C (ext/breaker.c)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from weir import _guard
from weir._stats import BreakerStats, ThrottleStats
from weir._weir import Breaker, ClientThrottle

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BreakerState", "CircuitBreaker", "Failures", "Throttle"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

BreakerState: TypeAlias = Literal["closed", "open", "half_open", "isolated"]

ExceptionTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]
Failures: TypeAlias = ExceptionTypes | Callable[[BaseException], bool | None]


def check_name(name: str | None) -> str | None:
    if name is not None and not isinstance(name, str):
        raise TypeError(f"'name' must be a str or None, not {name!r}")
    return name


class CircuitBreaker(Breaker):
    """Stops calling what fails: rejects calls at once, and tries again now and then.

    While too many of the recent calls failed or were slow it is "open" and raises
    `weir.BreakerOpen`.  After `open_time` it is "half_open": up to `half_open_calls` probes are let
    through, and as soon as their outcome is certain it is "closed" again, or open for longer.

        breaker = weir.CircuitBreaker(window=50, is_failure=(OSError, TimeoutError))

        with breaker: ...                # or: async with breaker
        breaker.call(fetch, url)         # or: await breaker.acall(fetch, url)
        @breaker                         # a function, coroutine function or generator function

    A call that is under way holds no lock.  One object is for any number of threads, tasks and
    blocks at a time.  (A block inside an ExitStack: `stack.enter_context(breaker.admit())`.)

    failure_ratio      opens when at least this share of the window failed; > 0, <= 1
    window             judges by the last so many calls, 1 to 1,000,000 (default 100)
    window_seconds     judges by the calls of the last so many seconds instead of `window`
    min_calls          in the window before it is judged, <= window; default 20, or window if less
    slow_call          a call that takes so many seconds or longer is slow; None: none is
    slow_ratio         opens when at least this share of the window was slow; > 0, <= 1
    half_open_calls    probes at a time, and in one half-open state; 1 to 10,000
    half_open_timeout  seconds; a probe that has not reported by then has failed, and its report
                       counts no more: one that hangs does not keep the breaker half-open
    open_time          seconds from opening to the first probe
    max_open_time      seconds; default 60, or open_time if that is more
    multiplier         of the open time, each time that probing failed; >= 1
    jitter             the open time is longer by a random share of itself up to this; 0 to 1
    is_failure         exceptions that are failures: a class, a tuple, or a callable that takes the
                       exception and returns True (a failure), False (a success: what was called has
                       answered) or None (it says nothing); others count as successes
    ignore             exceptions that say nothing: a class or a tuple
    on_change          on_change(from_state, to_state), once for each transition, in order, in a
                       thread that is in a call on the breaker; it may call back.  What it raises
                       goes to sys.unraisablehook
    name               for BreakerOpen, and people who look at it

    Cancellation says nothing, whatever `is_failure` returns: exceptions that are no Exception
    (CancelledError, KeyboardInterrupt, GeneratorExit) are ignored unless they are listed.

    A forked child has a breaker of its own, which begins closed.
    Raises ValueError or TypeError for an option out of range.
    """

    def __new__(
        cls,
        *,
        failure_ratio: float = 0.5,
        window: int | None = None,
        window_seconds: float | None = None,
        min_calls: int | None = None,
        slow_call: float | None = None,
        slow_ratio: float = 0.5,
        half_open_calls: int = 10,
        half_open_timeout: float = 30.0,
        open_time: float = 5.0,
        max_open_time: float | None = None,
        multiplier: float = 2.0,
        jitter: float = 0.0,
        is_failure: Failures = Exception,
        ignore: ExceptionTypes = (),
        on_change: Callable[[BreakerState, BreakerState], object] | None = None,
        name: str | None = None,
    ) -> Self:
        if window is not None and window_seconds is not None:
            raise ValueError("give 'window' (calls) or 'window_seconds', not both")
        if window_seconds is None:
            window = _guard.count("window", 100 if window is None else window, 1_000_000)
        if min_calls is None:
            min_calls = min(20, window or 20)
        _guard.count("min_calls", min_calls, window or 1_000_000_000)
        if on_change is not None and not callable(on_change):
            raise TypeError(f"'on_change' must be callable or None, not {on_change!r}")
        open_ns = _guard.seconds("open_time", open_time)
        if max_open_time is None:
            max_open_ns = max(60_000_000_000, open_ns)
        else:
            max_open_ns = _guard.seconds("max_open_time", max_open_time)
            if max_open_ns < open_ns:
                raise ValueError(
                    f"'max_open_time' must not be less than 'open_time', {open_time!r}, "
                    f"but it is {max_open_time!r}"
                )
        return super().__new__(
            cls,
            window or 0,
            0 if window_seconds is None else _guard.seconds("window_seconds", window_seconds),
            min_calls,
            _guard.share("failure_ratio", failure_ratio),
            0 if slow_call is None else _guard.seconds("slow_call", slow_call),
            _guard.share("slow_ratio", slow_ratio),
            _guard.count("half_open_calls", half_open_calls, 10_000),
            _guard.seconds("half_open_timeout", half_open_timeout),
            open_ns,
            max_open_ns,
            _guard.number("multiplier", multiplier, 1),
            _guard.number("jitter", jitter, 0, 1),
            is_failure,
            ignore,
            on_change,
            check_name(name),
        )

    def __call__(self, fn: F) -> F:
        """Decorates a function, coroutine function, generator function or async one.

        Of a generator, the call is from its first item to its end.
        """
        return _guard.wrap(self, fn)

    async def acall(self, fn: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> T:
        """Returns `await fn(*args, **kwargs)`, and reports what became of it."""
        with self:  # nothing waits here
            return await fn(*args, **kwargs)

    def stats(self) -> BreakerStats:
        """One instant, all fields consistent; looking changes nothing."""
        return BreakerStats(**self.snapshot())

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<weir.CircuitBreaker{name} {self.state}>"


class Throttle(ClientThrottle):
    """Keeps back requests that would probably be refused: a circuit breaker without steps.

    Of the requests of the last `window` seconds it lets about `k` times as many go as the backend
    accepted, and keeps the others back at random: P = (requests - k accepts) / (requests + 1), the
    client-side throttling of "Site Reliability Engineering".  One that is kept back raises
    `weir.Throttled`.

        with throttle: ...               # or: async with throttle, throttle.call(), @throttle

    k           >= 1; with 2 a backend sees at most about twice what it accepts
    window      seconds
    max_chance  P is at most this, so that some requests always go; > 0, < 1
    is_failure  exceptions by which the backend refused, as in CircuitBreaker; others: it accepted
    ignore      exceptions that say nothing
    name        for Throttled, and people who look at it

    A request counts when it has come back.  A forked child has a throttle of its own.
    Raises ValueError or TypeError for an option out of range.
    """

    def __new__(
        cls,
        k: float = 2.0,
        window: float = 120.0,
        *,
        max_chance: float = 0.95,
        is_failure: Failures = Exception,
        ignore: ExceptionTypes = (),
        name: str | None = None,
    ) -> Self:
        if _guard.share("max_chance", max_chance) == 1:
            raise ValueError("'max_chance' must be less than 1, so that some requests always go")
        return super().__new__(
            cls,
            _guard.number("k", k, 1),
            _guard.seconds("window", window),
            max_chance,
            is_failure,
            ignore,
            check_name(name),
        )

    def __call__(self, fn: F) -> F:
        """Decorates a function, coroutine function, generator function or async one."""
        return _guard.wrap(self, fn)

    async def acall(self, fn: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> T:
        """Returns `await fn(*args, **kwargs)`, and reports what became of it."""
        with self:  # nothing waits here
            return await fn(*args, **kwargs)

    def stats(self) -> ThrottleStats:
        """One instant, all fields consistent."""
        return ThrottleStats(**self.snapshot())

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<weir.Throttle{name} keeps back {self.stats().chance:.0%}>"
