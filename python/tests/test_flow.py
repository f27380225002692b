"""weir.Flow: what each operator gives, in both forms, against the tools of the standard library."""

from __future__ import annotations

import asyncio
import functools
import io
import itertools
import operator
import queue as queues
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import InThread, wait_until
from flow_sources import Aio, Counted, aenumerated, both_ways
from hypothesis import given
from hypothesis import strategies as st

import weir
from weir import Flow

numbers = st.lists(st.integers(-5, 5), max_size=12)
small = st.integers(0, 6)


def is_odd(n: int) -> bool:
    return n % 2 == 1


def double(n: int) -> int:
    return 2 * n


async def adouble(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


async def ais_odd(n: int) -> bool:
    await asyncio.sleep(0)
    return n % 2 == 1


# ---- laws --------------------------------------------------------------------------------------

Model = Callable[[Iterable[int]], Iterator[int]]


def drop_repeated(items: Iterable[int], last: int | None) -> Iterator[int]:
    passed: list[int] = []
    for item in items:
        if item not in (passed if last is None else passed[-last:]):
            passed.append(item)
            yield item


# Each operator beside the model that it has to equal.
OPERATORS: dict[str, tuple[Callable[[Flow[int], int], Flow[int]], Callable[[Any, int], Any]]] = {
    "map": (lambda f, n: f.map(lambda x: x + n), lambda it, n: (x + n for x in it)),
    "filter": (lambda f, n: f.filter(lambda x: x > n), lambda it, n: filter(lambda x: x > n, it)),
    "take": (lambda f, n: f.take(n), itertools.islice),
    "drop": (lambda f, n: f.drop(n), lambda it, n: itertools.islice(it, n, None)),
    "take_while": (
        lambda f, n: f.take_while(lambda x: x < n),
        lambda it, n: itertools.takewhile(lambda x: x < n, it),
    ),
    "drop_while": (
        lambda f, n: f.drop_while(lambda x: x < n),
        lambda it, n: itertools.dropwhile(lambda x: x < n, it),
    ),
    "scan": (lambda f, n: f.scan(operator.add), lambda it, n: itertools.accumulate(it)),
    "scan from": (
        lambda f, n: f.scan(operator.add, n),
        lambda it, n: itertools.islice(itertools.accumulate(it, initial=n), 1, None),
    ),
    "distinct": (lambda f, n: f.distinct(last=None), lambda it, n: drop_repeated(it, None)),
    "distinct last": (
        lambda f, n: f.distinct(last=n + 1),
        lambda it, n: drop_repeated(it, n + 1),
    ),
    "flat_map": (
        lambda f, n: f.flat_map(lambda x: range(abs(x) % (n + 1))),
        lambda it, n: itertools.chain.from_iterable(range(abs(x) % (n + 1)) for x in it),
    ),
    "concat": (lambda f, n: f.concat(range(n)), lambda it, n: itertools.chain(it, range(n))),
    "buffer": (
        lambda f, n: f.buffer(n + 1).flat_map(lambda batch: batch),
        lambda it, n: it,
    ),
    "window": (lambda f, n: f.window(n + 1).flat_map(lambda window: window), lambda it, n: it),
    "zip": (
        lambda f, n: f.zip(range(n)).map(lambda pair: pair[0]),
        lambda it, n: itertools.islice(it, n),
    ),
}

chains = st.lists(st.tuples(st.sampled_from(sorted(OPERATORS)), small), max_size=8)


@given(numbers, chains)
def test_a_chain_of_operators_gives_what_itertools_gives(
    items: list[int], chain: list[tuple[str, int]]
) -> None:
    flow, model = Flow(items), iter(items)
    for name, n in chain:
        build, equal = OPERATORS[name]
        flow, model = build(flow, n), iter(equal(model, n))
    expected = list(model)
    assert both_ways(flow) == expected
    source = Flow(lambda: aenumerated(items))
    for name, n in chain:
        source = OPERATORS[name][0](source, n)
    assert asyncio.run(source.ato_list()) == expected


@given(numbers, st.lists(st.tuples(st.sampled_from(sorted(OPERATORS)), small), max_size=5))
def test_a_flow_asks_its_source_for_what_itertools_asks_for_and_no_more(
    items: list[int], chain: list[tuple[str, int]]
) -> None:
    """buffer and window aside, whose demand is their own."""
    chain = [step for step in chain if step[0] not in ("buffer", "window", "zip")]
    pulled: list[list[int]] = [[], []]

    def watched(which: int) -> Iterator[int]:
        for item in items:
            pulled[which].append(item)
            yield item

    flow, model = Flow(watched(0)), watched(1)
    for name, n in chain:
        build, equal = OPERATORS[name]
        flow, model = build(flow, n), iter(equal(model, n))
    got = iter(flow)
    for _ in range(4):
        assert next(got, None) == next(model, None)
        # where an end can be told without asking the source, a flow is the one that does not ask
        assert len(pulled[0]) <= len(pulled[1])


@given(numbers, st.integers(1, 5))
def test_buffers_and_windows_cut_the_items_in_order(items: list[int], n: int) -> None:
    cut = [items[at : at + n] for at in range(0, len(items), n)]
    assert both_ways(Flow(items).buffer(n)) == cut
    assert Flow(items).window(n).map(lambda window: window.to_list()).to_list() == cut

    async def windows() -> list[list[int]]:
        async def read(window: Flow[int]) -> list[int]:
            return await window.ato_list()

        return await Flow(items).window(n).map(read).ato_list()

    assert asyncio.run(windows()) == cut


@given(numbers, numbers, numbers)
def test_merged_flows_keep_the_order_of_each(a: list[int], b: list[int], c: list[int]) -> None:
    tagged = [[(n, item) for item in items] for n, items in enumerate((a, b, c))]
    merged = Flow(tagged[0]).merge(aenumerated(tagged[1]), Flow(tagged[2]))
    got = asyncio.run(merged.ato_list())
    for n, items in enumerate(tagged):
        assert [item for item in got if item[0] == n] == items
    assert len(got) == len(a) + len(b) + len(c)


@given(numbers, st.integers(1, 4))
def test_a_flat_map_of_several_at_a_time_gives_each_item_once(items: list[int], n: int) -> None:
    flow = Flow(items).flat_map(lambda x: aenumerated([x] * abs(x)), concurrency=n)
    expected = sorted(x for x in items for _ in range(abs(x)))
    assert sorted(asyncio.run(flow.ato_list())) == expected


@given(numbers, st.integers(1, 4), st.booleans())
def test_a_parallel_map_gives_each_result_once(items: list[int], n: int, ordered: bool) -> None:
    flow = Flow(items).par_map(adouble, n, kind="async", ordered=ordered)
    got = asyncio.run(flow.ato_list())
    expected = list(map(double, items))
    assert got == expected if ordered else sorted(got) == sorted(expected)


@given(numbers, st.integers(1, 3), st.integers(1, 3))
def test_every_branch_of_a_tee_has_every_item(items: list[int], n: int, buffer: int) -> None:
    branches = Flow(items).tee(n, buffer=buffer)
    rows = branches[0].zip(*branches[1:]).to_list()
    assert rows == [(item,) * n for item in items]

    async def read() -> list[list[int]]:
        branches = Flow(items).tee(n, buffer=buffer)
        return await asyncio.gather(*(branch.ato_list() for branch in branches))

    assert asyncio.run(read()) == [items] * n


# ---- sources -----------------------------------------------------------------------------------


def test_nothing_runs_before_an_item_is_asked_for() -> None:
    def boom(*args: object) -> Any:
        raise AssertionError("it ran")

    flow = Flow(boom).map(boom).filter(boom).buffer(2).par_map(boom, 2).tee(2)[0].flat_map(boom)
    iter(flow)
    aiter(flow.timeout(1)).aclose().close()


def test_a_function_as_source_is_called_for_each_run() -> None:
    calls: list[int] = []

    def source() -> list[int]:
        calls.append(1)
        return [1, 2, 3]

    flow = Flow(source).map(double)
    assert both_ways(flow) == [2, 4, 6]
    assert len(calls) == 2


def test_an_asynchronous_generator_function_is_a_source_for_many_runs() -> None:
    counted = Counted(3)
    flow = Flow(counted.agenerator)

    async def twice() -> None:
        assert await flow.ato_list() == await flow.ato_list() == [0, 1, 2]

    asyncio.run(twice())
    counted.check_closed_where_it_was_opened()
    with pytest.raises(TypeError, match="needs an event loop: read this flow with `async for`"):
        flow.to_list()


def test_a_flow_is_not_changed_by_what_is_built_on_it() -> None:
    flow = Flow([1, 2, 3])
    flow.map(double).take(1)
    assert both_ways(flow) == [1, 2, 3]
    assert both_ways(Flow(flow)) == [1, 2, 3]


def test_a_file_that_was_given_stays_open_and_one_that_a_function_opened_is_closed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lines"
    path.write_text("a\nb\nc\n")
    opened: list[io.TextIOWrapper] = []

    def lines() -> io.TextIOWrapper:
        opened.append(path.open())
        return opened[-1]

    with path.open() as file:
        assert Flow(file).map(str.strip).take(2).to_list() == ["a", "b"]
        assert not file.closed
        assert file.readline() == "c\n"
    assert Flow(lines).take(1).to_list() == ["a\n"]
    assert Flow([0]).flat_map(lambda _: lines()).first() == "a\n"
    assert asyncio.run(Flow(lines).afirst()) == "a\n"
    assert [file.closed for file in opened] == [True] * 3


@pytest.mark.parametrize("source", [5, None, object()])
def test_a_source_that_cannot_be_read_is_refused_at_once(source: Any) -> None:
    with pytest.raises(TypeError, match="takes an iterable, an async iterable, or a function"):
        Flow(source)
    with pytest.raises(TypeError, match=r"a source must be iterable, and .* gave"):
        Flow(lambda: source).to_list()


def test_an_asynchronous_source_needs_an_event_loop() -> None:
    flow = Flow(Aio(Counted()))
    for other in (flow, Flow(flow), Flow([1]).concat(flow), Flow([1]).zip([2], flow.map(double))):
        with pytest.raises(TypeError, match="read this flow with `async for`"):
            iter(other.take(1))


def test_a_flow_says_what_it_is_made_of() -> None:
    flow = Flow(range(3)).map(double).buffer(2)
    assert repr(flow) == "<weir.Flow of range(0, 3): map, buffer>"
    for _ in range(20):
        flow = flow.take(1)
    assert repr(flow).endswith(": map, buffer, take, take, 15 more, take, take, take>")


# ---- depth -------------------------------------------------------------------------------------


def test_ten_thousand_operators_need_no_stack() -> None:
    flow = Flow(range(5))
    for n in range(10_000):
        flow = flow.map(lambda x: x + 1) if n % 2 else flow.filter(lambda x: x >= 0)
    assert both_ways(flow.take(2)) == [5000, 5001]


def test_ten_thousand_flows_one_behind_the_other_need_no_stack() -> None:
    flow: Flow[int] = Flow([])
    for n in range(10_000):
        flow = flow.concat([n])
    assert both_ways(flow) == list(range(10_000))


@pytest.mark.parametrize("concurrency", [1, 10, 10_000])
def test_ten_thousand_inner_streams_are_read(concurrency: int) -> None:
    flow = Flow(range(10_000)).flat_map(lambda n: [n], concurrency=concurrency)
    assert sorted(asyncio.run(flow.ato_list())) == list(range(10_000))


# ---- operators one by one ----------------------------------------------------------------------


def test_coroutine_functions_are_awaited_in_an_event_loop_and_refused_elsewhere() -> None:
    flow = Flow(range(6)).filter(ais_odd).map(adouble)
    assert asyncio.run(flow.ato_list()) == [2, 6, 10]
    with pytest.raises(TypeError, match=r"filter\(\) with the coroutine function .* event loop"):
        flow.to_list()
    with pytest.raises(TypeError, match=r"say kind=.async."):
        Flow(range(3)).par_map(adouble, 2)
    refused: list[Callable[[Any], object]] = [
        lambda fn: Flow([1]).for_each(fn),
        lambda fn: Flow([1]).take_while(fn),
        lambda fn: Flow([1]).flat_map(fn),
        lambda fn: Flow([1]).distinct(last=1, key=fn),
        lambda fn: Flow([1]).reduce(fn),
    ]
    for takes in refused:
        with pytest.raises(TypeError, match=r"calls a plain function, and .* afor_each\(\) await"):
            takes(adouble)


def test_take_pulls_nothing_behind_its_last_item() -> None:
    counted = Counted()
    assert Flow(counted.sync()).take(3).filter(is_odd).to_list() == [1]
    assert counted.pulled == 3
    assert Flow(counted.sync()).drop(1).take(2).drop(1).to_list() == [2]
    assert counted.pulled == 3 + 3
    assert Flow(counted.sync()).take(0).to_list() == []
    assert counted.opened == 2
    counted.check_closed_once()


def test_distinct_remembers_as_many_as_it_was_told() -> None:
    items = [1, 1, 2, 1, 3, 2, 2, 1]
    assert both_ways(Flow(items).distinct(last=1)) == [1, 2, 1, 3, 2, 1]
    assert both_ways(Flow(items).distinct(last=2)) == [1, 2, 3, 1]
    assert both_ways(Flow(items).distinct(last=None)) == [1, 2, 3]
    assert both_ways(Flow(["a", "A", "b"]).distinct(last=9, key=str.lower)) == ["a", "b"]
    assert both_ways(Flow([[1], [1], [2]]).distinct(last=1)) == [[1], [2]]


def test_zip_ends_with_the_shortest_or_complains() -> None:
    assert both_ways(Flow("abc").zip([1, 2])) == [("a", 1), ("b", 2)]
    assert both_ways(Flow("ab").zip([1, 2], (True, False))) == [("a", 1, True), ("b", 2, False)]
    for flow in (Flow("abc").zip([1, 2], strict=True), Flow("a").zip([1, 2], "b", strict=True)):
        with pytest.raises(ValueError, match="zip") as sync:
            flow.to_list()
        with pytest.raises(ValueError, match="zip") as aio:
            asyncio.run(flow.ato_list())
        assert str(sync.value) == str(aio.value)


def test_what_was_not_read_of_a_window_is_passed_over() -> None:
    assert Flow(range(7)).window(3).map(lambda window: window.first()).to_list() == [0, 3, 6]
    assert both_ways(Flow(range(7)).window(3).map(lambda window: 1)) == [1, 1, 1]


def test_a_window_that_is_over_has_nothing_more() -> None:
    windows = Flow(range(7)).window(3).to_list()
    assert [window.to_list() for window in windows] == [[], [], []]


def test_a_failing_source_fails_the_window_and_what_is_behind_it() -> None:
    windows = iter(Flow(Counted(fails_at=4).sync()).window(3))
    assert next(windows).to_list() == [0, 1, 2]
    with pytest.raises(ValueError, match="4"):
        next(windows).to_list()
    with pytest.raises(ValueError, match="4"):
        next(windows)


def test_what_a_buffer_holds_comes_before_the_exception() -> None:
    got: list[list[int]] = []
    with pytest.raises(ValueError, match="4"):
        Flow(Counted(fails_at=4).sync()).buffer(3).for_each(got.append)
    with pytest.raises(ValueError, match="4"):
        asyncio.run(Flow(Counted(fails_at=4).aio()).buffer(3).afor_each(got.append))
    assert got == [[0, 1, 2], [3]] * 2


def test_throttle_lets_so_many_through_in_a_time() -> None:
    bucket = weir.TokenBucket(200, burst=1)
    began = time.monotonic()
    assert Flow(range(11)).throttle(bucket).to_list() == list(range(11))
    assert asyncio.run(Flow(range(10)).throttle(bucket).ato_list()) == list(range(10))
    assert time.monotonic() - began >= 0.09
    assert Flow(range(3)).throttle(1e6).to_list() == [0, 1, 2]


def test_catch_goes_on_with_what_its_function_gives() -> None:
    source = Counted(fails_at=2)
    flow = Flow(source.sync()).catch(lambda error: [str(error)], on=ValueError)
    assert both_ways(flow) == [0, 1, "2"]
    with pytest.raises(ValueError, match="2"):
        Flow(source.sync()).catch(lambda error: [], on=OSError).to_list()
    assert both_ways(Flow([1, 0]).map(lambda n: 1 // n).catch(lambda error: [])) == [1]
    source.check_closed_once()
    with pytest.raises(TypeError, match="'on' must be a class of Exception"):
        Flow([1]).catch(lambda error: [], on=BaseException)  # type: ignore[arg-type]


def test_catch_does_not_catch_what_comes_behind_it() -> None:
    flow = Flow([1, 0]).catch(lambda error: [5]).map(lambda n: 1 // n)
    with pytest.raises(ZeroDivisionError):
        flow.to_list()


def test_retry_runs_the_source_again_from_its_beginning() -> None:
    policy = weir.Retry(3, on=ValueError, backoff=(0.001, 0.001))
    runs = iter([2, 3, None])

    def source() -> Iterator[int]:
        fails_at = next(runs)
        for n in range(4):
            if n == fails_at:
                raise ValueError(n)
            yield n

    assert Flow(source).retry(policy).to_list() == [0, 1, 0, 1, 2, 0, 1, 2, 3]
    runs = iter([2, 3, None])
    assert asyncio.run(Flow(source).map(adouble).retry(policy).acount()) == 9
    runs = iter([1, 1, 1])
    with pytest.raises(ValueError, match="1"):
        Flow(source).retry(policy).to_list()
    assert policy.stats().gave_up["attempts"] == 1


def test_retry_refuses_a_source_that_can_be_read_once() -> None:
    for flow in (
        Flow(iter([1])),
        Flow([1]).concat(iter([2])),
        Flow([1]).zip(aenumerated([1])),
        Flow([1]).tee(2)[0],
        Flow(Flow(iter([1]))),
    ):
        with pytest.raises(ValueError, match="give Flow a function that makes it"):
            flow.map(str).retry(3)
    queue: weir.Queue[int] = weir.Queue(3)
    queue.put_many([1, 2])
    queue.shutdown()
    assert Flow(queue).retry(3).to_list() == [1, 2]


def test_a_parallel_map_runs_so_many_at_a_time_in_threads() -> None:
    running, peak, lock = 0, 0, threading.Lock()

    def call(n: int) -> int:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        wait_until(lambda: peak == 3)
        with lock:
            running -= 1
        return n

    for ordered in (True, False):
        counted = Counted(12)
        flow = Flow(counted.sync()).par_map(call, 3, ordered=ordered)
        assert sorted(flow.map(counted.see).to_list()) == list(range(12))
        assert counted.furthest <= 3
        counted.check_closed_where_it_was_opened()
    assert peak == 3
    assert asyncio.run(Flow(range(12)).par_map(call, 3).ato_list()) == list(range(12))


def test_a_parallel_map_runs_in_processes() -> None:
    counted = Counted(20)
    flow = Flow(counted.sync()).par_map(double, 2, kind="process")
    assert flow.map(counted.see).to_list() == [2 * n for n in range(20)]
    assert counted.furthest <= 2
    assert asyncio.run(flow.ato_list()) == [2 * n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        Flow([1, 0]).par_map(functools.partial(operator.floordiv, 1), 2, kind="process").to_list()


def test_a_parallel_map_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    items = iter(Flow(itertools.count()).par_map(double, 3))
    assert [next(items) for _ in range(5)] == [0, 2, 4, 6, 8]
    items.close()
    assert threading.active_count() == before


# ---- queues ------------------------------------------------------------------------------------


def test_a_flow_between_two_queues_ends_with_the_first() -> None:
    source: weir.Queue[int] = weir.Queue(2)
    sink: weir.Queue[int] = weir.Queue(2)
    feeding = InThread(lambda: Flow(range(50)).to_queue(source, shutdown=True))
    moving = InThread(lambda: Flow.from_queue(source).map(double).to_queue(sink, shutdown=True))
    assert Flow(sink).to_list() == [2 * n for n in range(50)]
    assert feeding.result() == moving.result() == 50
    stats = sink.stats()
    assert stats.accepted == stats.delivered == 50


def test_a_flow_between_two_queues_ends_with_the_first_in_an_event_loop() -> None:
    async def main() -> None:
        source: weir.Queue[int] = weir.Queue(2)
        sink: weir.Queue[int] = weir.Queue(2)
        done = await asyncio.gather(
            Flow(aenumerated(list(range(50)))).ato_queue(source, shutdown=True),
            Flow(source).map(adouble).ato_queue(sink, shutdown=True),
            Flow(sink).ato_list(),
        )
        assert list(done) == [50, 50, [2 * n for n in range(50)]]

    asyncio.run(main())


def test_the_item_that_a_queue_refuses_is_told_and_the_source_closed() -> None:
    counted, told = Counted(), list[tuple[int, str]]()
    queue: weir.Queue[int] = weir.Queue(2)

    def on_drop(item: int, reason: str) -> None:
        told.append((item, reason))

    with pytest.raises(queues.Full):
        Flow(counted.sync()).to_queue(queue, timeout=0.01, on_drop=on_drop)
    with pytest.raises(queues.Full):
        asyncio.run(Flow(counted.aio()).ato_queue(queue, timeout=0.01, on_drop=on_drop))
    assert told == [(2, "refused"), (0, "refused")]
    counted.check_closed_once()
    queue.shutdown()
    with pytest.raises(weir.ShutDown):
        Flow(counted.sync()).to_queue(queue)
    assert counted.pulled == queue.qsize() + len(told) + 1


def test_a_queue_is_read_in_batches_by_count_or_time_in_both_forms() -> None:
    def filled() -> weir.Queue[int]:
        queue: weir.Queue[int] = weir.Queue(10)
        queue.put_many(range(5))
        return queue

    queue = filled()
    batches = iter(Flow(queue).buffer(3, time=0.01))
    assert [next(batches), next(batches)] == [[0, 1, 2], [3, 4]]
    queue.shutdown()
    assert list(batches) == []

    async def main() -> None:
        queue = filled()
        batches = aiter(Flow(queue).buffer(3, time=0.01))
        assert [await anext(batches), await anext(batches)] == [[0, 1, 2], [3, 4]]
        queue.shutdown()
        assert [batch async for batch in batches] == []

    asyncio.run(main())


def test_a_shared_queue_is_read_in_threads_and_refused_in_an_event_loop() -> None:
    queue: weir.SharedQueue[int] = weir.SharedQueue(10)
    assert Flow(range(5)).to_queue(queue, shutdown=True) == 5
    for flow in (Flow(queue), Flow(queue).buffer(2, time=1)):
        with pytest.raises(TypeError, match="would hold up the event loop"):
            asyncio.run(flow.ato_list())
    with pytest.raises(TypeError, match="use to_queue"):
        asyncio.run(Flow([1]).ato_queue(queue))  # type: ignore[arg-type]
    assert Flow.from_queue(queue).buffer(2, time=1).to_list() == [[0, 1], [2, 3], [4]]
    with pytest.raises(TypeError, match="takes a weir"):
        Flow.from_queue(queues.Queue())  # type: ignore[arg-type]


# ---- ends --------------------------------------------------------------------------------------


@given(numbers)
def test_the_ends_give_what_the_builtins_give(items: list[int]) -> None:
    flow = Flow(items)
    assert flow.count() == asyncio.run(flow.acount()) == len(items)
    assert flow.first(None) == asyncio.run(flow.afirst(None)) == next(iter(items), None)
    assert flow.reduce(operator.add, 1) == asyncio.run(flow.areduce(operator.add, 1))
    assert flow.reduce(operator.add, 1) == sum(items, 1)
    seen: list[int] = []
    flow.for_each(seen.append)

    async def see(item: int) -> None:
        seen.append(item)

    asyncio.run(flow.afor_each(see))
    asyncio.run(flow.afor_each(seen.append))
    assert seen == items * 3
    if items:
        assert flow.reduce(max) == asyncio.run(flow.areduce(max)) == max(items)
        assert flow.first() == items[0]


def test_an_empty_flow_has_no_first_item_and_nothing_to_reduce() -> None:
    empty: Flow[int] = Flow(())
    with pytest.raises(LookupError, match=r"no item in <weir.Flow of \(\)>"):
        empty.first()
    with pytest.raises(LookupError, match="no item in"):
        empty.reduce(operator.add)
    with pytest.raises(LookupError, match="no item in"):
        asyncio.run(empty.afirst())
    with pytest.raises(LookupError, match="no item in"):
        asyncio.run(empty.areduce(operator.add))


# ---- refusals ----------------------------------------------------------------------------------

NEEDS_A_LOOP: dict[str, Callable[[Flow[int]], Flow[Any]]] = {
    "merge": lambda flow: flow.merge([1]),
    "flat_map(concurrency=2)": lambda flow: flow.flat_map(lambda n: [n], concurrency=2),
    "timeout": lambda flow: flow.timeout(1),
    "debounce": lambda flow: flow.debounce(1),
    "sample": lambda flow: flow.sample(1),
    "buffer": lambda flow: flow.buffer(2, time=1),
    "window": lambda flow: flow.window(time=1),
    "par_map": lambda flow: flow.par_map(adouble, 2, kind="async"),
}


@pytest.mark.parametrize("name", NEEDS_A_LOOP)
def test_what_needs_an_event_loop_says_so_before_anything_runs(name: str) -> None:
    counted = Counted()
    flow = NEEDS_A_LOOP[name](Flow(counted.sync())).take(1)
    with pytest.raises(TypeError) as refused:
        iter(flow)
    assert name in str(refused.value) and "`async for`" in str(refused.value)
    assert counted.opened == 0


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (lambda f: f.map(5), TypeError, r"map\(\) takes a function, not 5"),
        (lambda f: f.flat_map(5), TypeError, r"flat_map\(\) takes a function"),
        (lambda f: f.catch([]), TypeError, r"catch\(\) takes a function"),
        (lambda f: f.reduce(5), TypeError, r"reduce\(\) takes a function"),
        (lambda f: f.take(-1), ValueError, "'n' must be >= 0, not -1"),
        (lambda f: f.take(1.5), TypeError, "'n' must be an int"),
        (lambda f: f.buffer(0), ValueError, "'count' must be from 1"),
        (lambda f: f.buffer(2, time=0), ValueError, "'time' must be > 0 seconds"),
        (lambda f: f.window(), TypeError, "needs a count, a time, or both"),
        (lambda f: f.distinct(last=0), ValueError, "'last' must be from 1"),
        (lambda f: f.throttle(0), ValueError, "'rate' must be > 0"),
        (lambda f: f.tee(0), ValueError, "'n' must be from 1"),
        (lambda f: f.tee(2, buffer=0), ValueError, "'buffer' must be from 1"),
        (lambda f: f.par_map(double, 0), ValueError, "'workers' must be from 1"),
        (lambda f: f.par_map(double, weir.Limiter(2)), TypeError, "'workers' must be an int"),
        (lambda f: f.par_map(double, 2, kind="fibre"), ValueError, "'kind' must be"),
        (lambda f: f.sample(1, on_drop=5), TypeError, "on_drop.* takes a function, not 5"),
        (lambda f: f.timeout(-1), ValueError, "'seconds' must be"),
        (lambda f: f.merge(5), TypeError, "Flow takes an iterable"),
        (lambda f: f.retry(0), ValueError, "attempts"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(
    wrong: Callable[[Any], Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        wrong(Flow([1]))
