"""The stages of a flow that run without an event loop, in the thread of whoever reads.

Each is a generator over what `opens` gives, and closes it, once, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from typing import Any

from weir._flow_steps import AnyIterable, Open, close, open_given
from weir._retry import Retry
from weir._weir import take_items

__all__ = ["buffer", "catch", "flat_map", "par_map", "retry", "window", "zip_"]

Items = Generator[Any, None, None]


def flat_map(opens: Open, fn: Callable[[Any], AnyIterable[Any]]) -> Items:
    with closing(opens()) as source:
        for item in source:
            inner = open_given(fn(item), is_ours=True)
            try:
                yield from inner
            finally:
                close(inner)


def zip_(opens: Open, others: tuple[Any, ...], strict: bool) -> Items:
    with ExitStack() as stack:
        rows = [stack.enter_context(closing(opens()))]
        rows += [stack.enter_context(closing(iter(other))) for other in others]
        yield from zip(*rows, strict=strict)


def buffer(opens: Open, count: int) -> Items:
    """What was read before the source failed comes before its exception."""
    with closing(opens()) as source:
        failure: Exception | None = None
        while failure is None:
            batch: list[Any] = []
            try:
                is_more = take_items(source, batch, count, -1.0)
            except Exception as error:
                failure = error
            if batch:
                yield batch
            if failure is None and not is_more:
                return
        try:
            raise failure
        finally:
            del failure  # its traceback refers to this frame


class _Window:
    """Up to so many items of a source that goes on behind them."""

    runs_once = True

    def __init__(self, source: Iterator[Any], first: Any, count: int) -> None:
        self._source = source
        self._items = [first]
        self._left = count
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[Any]:
        while self._left:
            self._left -= 1
            if self._items:
                yield self._items.pop()
                continue
            try:
                item = next(self._source)
            except StopIteration:
                self._left = 0
                return
            except BaseException as error:
                self._left, self.failure = 0, error
                raise
            yield item

    def pass_over(self) -> None:
        for _ in self:
            pass

    def end(self) -> None:
        self._left, self.failure = 0, None


def window(opens: Open, flow: Callable[[Any], Any], count: int) -> Items:
    with closing(opens()) as source:
        for first in source:
            window = _Window(source, first, count)
            try:
                yield flow(window)
                window.pass_over()
                if window.failure is not None:  # the reader of the window went on
                    raise window.failure
            finally:
                window.end()


def retry(opens: Open, policy: Retry) -> Items:
    with closing(iter(policy)) as attempts:
        for attempt in attempts:
            with attempt, closing(opens()) as source:
                yield from source


def catch(
    opens: Open,
    fn: Callable[[Any], AnyIterable[Any]],
    on: type[BaseException] | tuple[type[BaseException], ...],
) -> Items:
    with closing(opens()) as source:
        try:
            yield from source
            return
        except on as error:
            instead = open_given(fn(error), is_ours=True)
    try:
        yield from instead
    finally:
        close(instead)


def par_map(
    opens: Open, fn: Callable[[Any], Any], workers: int, kind: str, is_ordered: bool
) -> Items:
    from weir import ProcessPoolExecutor, ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers) if kind == "thread" else ProcessPoolExecutor(workers)
    with closing(opens()) as source:
        try:
            with pool.map(fn, source, buffersize=workers, ordered=is_ordered) as results:
                yield from results
        finally:
            pool.shutdown(cancel_futures=True)
