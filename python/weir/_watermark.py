"""A level with a high and a low mark: pause at the one, go on at the other."""

from __future__ import annotations

from collections.abc import Callable

from weir import _weir
from weir._stats import WatermarkStats

__all__ = ["Watermark", "check_marks"]

_MOST = (1 << 46) - 1


def check_marks(high: int, low: int | None) -> None:
    """Raises TypeError or ValueError where two marks cannot be a pair."""
    for name, mark in (("high", high), ("low", low)):
        if not isinstance(mark, int) or isinstance(mark, bool):
            if mark is None and name == "low":
                return
            raise TypeError(f"'{name}' must be an int, not {mark!r}")
        if name == "high" and not 1 <= mark <= _MOST:
            raise ValueError(f"'high' must be from 1 to 2**46 - 1, not {mark!r}")
    assert low is not None
    if not 0 <= low < high:
        raise ValueError(f"'low' must be >= 0 and below high ({high}), not {low!r}")


class Watermark(_weir.Watermark):
    """Counts what is somewhere else, and tells when to pause and when to go on.

    high     paused once the level has reached it; 1 to 2**46 - 1, in whatever is counted: bytes,
             items, requests
    low      goes on when the level has fallen to it; 0 to high - 1; None: half of high
    on_high  called, without arguments, when it pauses
    on_low   called when it goes on again.  Strictly in turn, by the thread whose call made the
             change, after it was made; an exception goes to sys.unraisablehook
    name     for people who look at it

        if level.add(len(data)):        # and level.sub(n) where n bytes have left
            await level.adrain()        # or level.drain() in a thread

    A mark is no bound: add() counts whatever comes.  Of n threads or tasks that drain after each
    add() of at most m the level stays below high + n * m.  One watermark is for any number of
    threads, asyncio loops and tasks at once, and of one process.  select() and the like take it: it
    is readable while drain() would not wait.
    """

    def __init__(
        self,
        high: int,
        low: int | None = None,
        *,
        on_high: Callable[[], object] | None = None,
        on_low: Callable[[], object] | None = None,
        name: str | None = None,
    ) -> None:
        check_marks(high, low)
        super().__init__(high, low, on_high, on_low, name)
        self._low, self.name = low, name

    async def adrain(self, timeout: float | None = None) -> None:
        """drain() for coroutines, of any number of event loops.

        Does not suspend where it need not wait.  Raises TimeoutError, weir.ShutDown (closed).
        """
        try:
            await _weir.wait(self._pend, timeout)
        except TimeoutError:
            raise TimeoutError("it was still paused when the timeout passed") from None

    # ---- marks -----------------------------------------------------------------------------------

    def set_marks(self, high: int, low: int | None = None) -> None:
        """Changes both marks while in use, which may pause it, or release who waits, at once."""
        check_marks(high, low)
        self._set_marks(high, low)
        self._low = low

    @property
    def high(self) -> int:
        """The high mark; set alone, it takes a low mark that nobody chose with it."""
        return self.stats().high

    @high.setter
    def high(self, high: int) -> None:
        self.set_marks(high, self._low)

    @property
    def low(self) -> int:
        """The low mark; can be set."""
        return self.stats().low

    @low.setter
    def low(self, low: int) -> None:
        self.set_marks(self.high, low)

    # ---- looking ---------------------------------------------------------------------------------

    def stats(self) -> WatermarkStats:
        """One instant of the watermark."""
        return WatermarkStats(name=self.name, **self._snapshot())

    def __repr__(self) -> str:
        now = self.stats()
        name = f" {self.name!r}" if self.name is not None else ""
        state = ", closed" if now.is_closed else ", paused" if now.is_paused else ""
        return f"<weir.Watermark{name}: {now.level} of {now.high}, low {now.low}{state}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a watermark is of one process and cannot be pickled")


Watermark.__module__ = "weir"
