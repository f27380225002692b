"""weir.CircuitBreaker against a plain model: random interleavings have to agree in every step.

Time stands still (open times are for ever, or over at once), so both know what the clock says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from conftest import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import weir


@dataclass
class Model:
    """What weir.CircuitBreaker promises, in the most obvious way."""

    window: int
    min_calls: int
    ratio: float
    probes: int
    state: str = "closed"
    epoch: int = 0
    results: list[bool] = field(default_factory=list)  # of the window: whether it failed
    trial: list[bool] = field(default_factory=list)
    trial_out: int = 0
    probes_out: int = 0
    log: list[tuple[str, str]] = field(default_factory=list)
    admitted: int = 0
    rejected: int = 0
    counts: dict[str, int] = field(
        default_factory=lambda: {"succeeded": 0, "failed": 0, "ignored": 0}
    )

    def go(self, state: str) -> None:
        self.log.append((self.state, state))
        self.state = state
        self.epoch += 1
        self.trial, self.trial_out = [], 0
        if state == "closed":
            self.results = []

    def admit(self, is_time: bool) -> tuple[int, bool] | None:
        if self.state == "open" and is_time:
            self.go("half_open")
        if self.state == "half_open":
            if len(self.trial) + self.trial_out >= self.probes or self.probes_out >= self.probes:
                self.rejected += 1
                return None
            self.trial_out += 1
            self.probes_out += 1
        elif self.state != "closed":
            self.rejected += 1
            return None
        self.admitted += 1
        return self.epoch, self.state == "half_open"

    def report(self, call: tuple[int, bool], result: str) -> None:
        epoch, is_probe = call
        self.counts[result] += 1
        self.probes_out -= is_probe
        if epoch != self.epoch:
            return
        self.trial_out -= is_probe
        if result == "ignored":
            return
        failed = result == "failed"
        if is_probe:
            self.trial.append(failed)
            self.judge()
        else:
            self.results = [*self.results, failed][-self.window :]
            enough = len(self.results) >= self.min_calls
            if enough and sum(self.results) >= self.ratio * len(self.results) - 1e-9:
                self.go("open")

    def judge(self) -> None:
        """By trying out all that the missing probes could say."""
        missing = self.probes - len(self.trial)
        outcomes = {
            sum(self.trial) + more >= self.ratio * self.probes - 1e-9 for more in (0, missing)
        }
        if outcomes == {True}:
            self.go("open")
        elif outcomes == {False}:
            self.go("closed")


RESULTS = st.sampled_from(["succeeded", "failed", "failed", "ignored"])


class Pair:
    """The breaker and its model, and every step on both."""

    def __init__(
        self, window: int, min_calls: int, ratio: float, probes: int, at_once: bool
    ) -> None:
        self.model = Model(window, min(min_calls, window), ratio, probes)
        self.at_once = at_once
        self.log: list[tuple[str, str]] = []
        self.breaker = weir.CircuitBreaker(
            window=window,
            min_calls=min(min_calls, window),
            failure_ratio=ratio,
            half_open_calls=probes,
            half_open_timeout=1e6,
            open_time=1e-9 if at_once else 1e6,
            max_open_time=1e-9 if at_once else 1e6,
            on_change=lambda before, after: self.log.append((before, after)),
        )
        self.open: list[tuple[Any, tuple[int, bool]]] = []

    def admit(self) -> None:
        if self.at_once and self.breaker.state == "open":
            wait_until(lambda: self.breaker.retry_after == 0)
        expected = self.model.admit(self.at_once)
        try:
            call = self.breaker.admit()
        except weir.BreakerOpen:
            assert expected is None
        else:
            assert expected is not None
            self.open.append((call, expected))

    def report(self, which: int, result: str) -> None:
        if not self.open:
            return
        call, expected = self.open.pop(which % len(self.open))
        self.model.report(expected, result)
        {"succeeded": call.success, "failed": call.failure, "ignored": call.ignore}[result]()

    def by_hand(self, isolates: bool) -> None:
        if isolates:
            self.breaker.isolate()
            if self.model.state != "isolated":
                self.model.go("isolated")
        else:
            self.breaker.reset()
            if self.model.state == "closed":
                self.model.results = []
                self.model.epoch += 1
            else:
                self.model.go("closed")

    def agree(self) -> None:
        s, m = self.breaker.stats(), self.model
        assert s.state == m.state
        assert self.log == m.log
        assert (s.admitted, s.rejected) == (m.admitted, m.rejected)
        counted = {"succeeded": s.succeeded, "failed": s.failed, "ignored": s.ignored}
        assert counted == m.counts
        assert s.in_flight == len(self.open)
        assert s.admitted == s.succeeded + s.failed + s.ignored + s.expired + s.in_flight
        assert s.probes == m.probes_out <= m.probes
        judged = m.trial if m.state == "half_open" else m.results
        if m.state in ("closed", "half_open"):
            assert (s.window_calls, s.window_failed) == (len(judged), sum(judged))


class BreakerMachine(RuleBasedStateMachine):
    pair: Pair

    @initialize(
        window=st.integers(1, 12),
        min_calls=st.integers(1, 12),
        ratio=st.sampled_from([0.1, 0.3, 0.5, 0.7, 1.0]),
        probes=st.integers(1, 5),
        at_once=st.booleans(),
    )
    def begin(self, window: int, min_calls: int, ratio: float, probes: int, at_once: bool) -> None:
        self.pair = Pair(window, min_calls, ratio, probes, at_once)

    @rule(n=st.integers(1, 5))
    def admit(self, n: int) -> None:
        for _ in range(n):
            self.pair.admit()

    @precondition(lambda self: self.pair.open)
    @rule(which=st.integers(0, 50), result=RESULTS)
    def report(self, which: int, result: str) -> None:
        self.pair.report(which, result)

    @rule(isolates=st.booleans())
    def by_hand(self, isolates: bool) -> None:
        self.pair.by_hand(isolates)

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "pair"):
            self.pair.agree()


BreakerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase


@pytest.mark.parametrize("at_once", [False, True])
@settings(max_examples=150, deadline=None)
@given(
    ratio=st.sampled_from([0.2, 0.5, 1.0]),
    probes=st.integers(1, 6),
    steps=st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 50), RESULTS)), max_size=150),
)
def test_any_order_of_calls_and_reports_agrees_with_the_model(
    at_once: bool, ratio: float, probes: int, steps: list[tuple[int, str] | None]
) -> None:
    pair = Pair(8, 3, ratio, probes, at_once)
    for step in steps:
        if step is None:
            pair.admit()
        else:
            pair.report(*step)
        pair.agree()
