"""TokenBucket: so much in a time, and so much at once.

The bucket is in C (`weir._weir.TokenBucketBase`); here is what needs an event loop,
and what wraps calls.

Without a thread, a place in the bucket's line is polled by its own loop at the time that the
bucket told, and earlier when the bucket says so.  Only that poll takes tokens, in the same step of
the loop in which `aacquire` returns: so a task that is cancelled has taken none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from weir._guard import check_timeout, warn_of_settings, wrap_entered
from weir._weir import BucketPlace, Reservation, TokenBucketBase

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Reservation", "TokenBucket"]

F = TypeVar("F", bound=Callable[..., Any])


class TokenBucket(TokenBucketBase):
    """A rate limit: `rate` tokens in `per` seconds, and at most `burst` of them at once.

    rate    tokens in `per` seconds, > 0; need not be whole.  From one in 73 years to 1e12 a second
    per     seconds
    burst   the most tokens that are inside, 1 to 2**38 - 1; the bucket begins full.  None: as many
            as come in `per` seconds, at least 1
    shared  a name (letters, digits, ".", "_", "-"): one bucket for all processes of this user on
            this host that give it.  Where it exists already, rate and burst are as who made it, or
            changed it, said.  Any process may be killed at any time.  Such a bucket can be pickled,
            and used on both sides of a fork.
    name    for people who look at it

    In any window of time no more is granted than rate x window + burst, by all threads, loops and
    processes together, to a millionth of a token; and nothing drifts.  Who waits is served first
    come, first served, whatever it costs: threads and tasks of one process in one line, and those
    who are first in their process in the order in which they became that.

        bucket = weir.TokenBucket(2, burst=5)
        bucket.acquire()                    # waits for a token
        if bucket.try_acquire(3): ...       # three, if they are there
        async with bucket: ...              # waits for one without holding up the loop
        @bucket                             # each call takes one
        def fetch(url): ...
    """

    def __init__(
        self,
        rate: float,
        *,
        per: float = 1.0,
        burst: int | None = None,
        shared: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(rate, per=per, burst=burst, shared=shared, name=name)
        if shared is None:
            return
        ratio = self.rate / self.per / (rate / per)
        if not 0.999999 < ratio < 1.000001 or (burst is not None and burst != self.burst):
            warn_of_settings(
                f"the bucket {shared!r}",
                f"a rate of {self.rate:g} in {self.per:g} s and a burst of {self.burst}",
            )

    async def aacquire(self, n: int = 1, timeout: float | None = None) -> bool:
        """Take n tokens, waiting for them in the running event loop; whether it has.

        As `acquire`: timeout in seconds, >= 0; False at once where the tokens cannot be there in
        time.  A task that is cancelled while it waits has taken nothing.
        """
        check_timeout(timeout)
        if timeout == 0:
            return self.try_acquire(n)
        if self._probe(n):
            return True
        from weir._aio import find_sleeper  # imports asyncio

        sleeper = find_sleeper()
        latest = float("inf") if timeout is None else time.monotonic() + timeout
        place = BucketPlace(self, n, sleeper.wake)
        try:
            at = place.poll()
            if at is not None and at > latest:
                return False
            while at is not None:
                await sleeper.sleep(max(0.0, min(at, latest) - time.monotonic()))
                at = place.poll()
                if at is not None and time.monotonic() >= latest:
                    return False
            return True
        finally:
            place.cancel()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass  # a token that was taken is used, whatever came of it

    async def __aenter__(self) -> Self:
        await self.aacquire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def __call__(self, fn: F) -> F:
        """Wrap a function, or a coroutine function: each call waits for a token first."""
        return wrap_entered(self, fn, f"tokens: acquire({fn!r})")

    def __reduce__(self) -> tuple[Any, ...]:
        if self.shared is None:
            raise TypeError(
                "a TokenBucket that is not shared cannot be pickled: "
                "give it shared='a name', and every process that has it has the same bucket"
            )
        return _rebuild, (type(self), self.rate, self.per, self.burst, self.shared, self.name)

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        shared = f", shared as {self.shared!r}" if self.shared else ""
        closed = ", closed" if self.is_closed else ""
        return (
            f"<weir.TokenBucket{name} {self.rate:g} in {self.per:g} s, "
            f"{self.available} of {self.burst} inside{shared}{closed}>"
        )


def _rebuild(
    cls: type[TokenBucket], rate: float, per: float, burst: int, shared: str, name: str | None
) -> TokenBucket:
    return cls(rate, per=per, burst=burst, shared=shared, name=name)


TokenBucket.__module__ = "weir"
