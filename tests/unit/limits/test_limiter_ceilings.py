"""A configured limit is a ceiling: over any span, whatever the traffic does."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promptmill.dimensions import DIMENSIONS, Amounts, Dimension, Headroom
from promptmill.limits import Ceilings, Pacing
from promptmill.limits.desk import Ask, Penalty, Release, Report, Settlement
from promptmill.limits.mirror import Mirror

LIMITS = (600.0, 60_000.0, 12_000.0)
CEILINGS = Ceilings(*LIMITS)
PLENTY = Headroom(6000, 6000, 600_000, 600_000, 120_000, 120_000)


@dataclass(frozen=True)
class Step:
    """Some time passes, a process asks, and one of the open permits is reported on."""

    pause: float
    process: str
    asks: int
    input_tokens: int
    output_tokens: int
    reports: int
    used: float
    outcome: str


STEPS = st.builds(
    Step,
    pause=st.floats(0, 3) | st.sampled_from([0.0, 30.0, 130.0]),
    process=st.sampled_from(["ann", "bob"]),
    asks=st.integers(0, 12),
    input_tokens=st.integers(0, 8000),
    output_tokens=st.integers(0, 1500),
    reports=st.integers(0, 8),
    used=st.floats(0, 2),
    outcome=st.sampled_from(["settled", "settled", "settled", "released", "overloaded", "refused"]),
)


class Traffic:
    """Plays steps on a mirror and keeps account of what was granted and given back, and when.

    Args:
        others: what "bob" states. What he is granted is then left out of the account, and what he gives back is in it:
            he was charged seconds of the one pacer, and whoever asks next may have them.
    """

    def __init__(self, others: Ceilings | None = None) -> None:
        self.others = others
        self.now = 1000.0
        self.mirror = Mirror.fresh(self.now, CEILINGS, Pacing())
        self.open: list[tuple[str, Ask]] = []
        self.account: list[tuple[float, Dimension, float]] = []
        self.starts: list[float] = []
        self.asked = 0

    def play(self, step: Step) -> None:
        self.now += step.pause
        amounts = Amounts(1, step.input_tokens, step.output_tokens)
        asks = [self._ask(amounts) for _ in range(step.asks)]
        stated = self.others if self.others and step.process == "bob" else CEILINGS
        answer = self.mirror.acquire(step.process, asks, stated, self.now)
        for ask, wait in zip(asks, answer.waits, strict=False):
            self.open.append((step.process, ask))
            self.starts.append(self.now + wait)
            if not self._is_another(step.process):
                self._enter(ask.amounts)
        for _ in range(min(step.reports, len(self.open))):
            self._report(step)

    def _ask(self, amounts: Amounts) -> Ask:
        self.asked += 1
        return Ask(f"permit-{self.asked}", amounts, 15.0)

    def _report(self, step: Step) -> None:
        process, ask = self.open.pop(0)
        generation = int(self.mirror.record.generation)
        if step.outcome == "settled":
            used = Amounts(1, ask.amounts.input_tokens * step.used, ask.amounts.output_tokens * step.used)
            report: Report = Settlement(ask.id, used, PLENTY)
            spare = Amounts(*(min(0.0, now - then) for now, then in zip(used, ask.amounts, strict=True)))
        else:
            refused = step.outcome == "refused"
            penalty = Penalty(ask.id, generation, refused, 0.1, None, None)
            report = Release(ask.id) if step.outcome == "released" else penalty
            spare = Amounts(*(-amount for amount in ask.amounts))
        before = list(self.mirror.record.pacer)
        self.mirror.report(process, report, self.now)
        if self._is_another(process):
            seconds = [
                max(0.0, then - now) for then, now in zip(before, self.mirror.record.pacer, strict=True)
            ]
            spare = Amounts(*(-given * limit / 60 for given, limit in zip(seconds, LIMITS, strict=True)))
        self._enter(spare)

    def _is_another(self, process: str) -> bool:
        return self.others is not None and process == "bob"

    def _enter(self, amounts: Amounts) -> None:
        for dimension in DIMENSIONS:
            self.account.append((self.now, dimension, amounts[dimension]))

    def worst_excess(self, dimension: Dimension, limits: Sequence[float] = LIMITS) -> float:
        """The most by which any span exceeded limit x span + burst + the largest call."""
        rate = limits[DIMENSIONS.index(dimension)] / 60
        entries = [(moment, amount) for moment, named, amount in self.account if named is dimension]
        seconds = Pacing().tolerance[DIMENSIONS.index(dimension)] + Pacing().horizon
        allowed = seconds * rate + max((amount for _, amount in entries), default=0.0)
        worst, lowest, total = 0.0, 0.0, 0.0
        for moment, amount in entries:
            lowest = min(lowest, total - rate * moment)
            total += amount
            worst = max(worst, total - rate * moment - lowest - allowed)
        return worst


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=60))
def test_what_is_granted_and_not_given_back_stays_under_the_ceiling(steps: list[Step]) -> None:
    traffic = Traffic()
    for step in steps:
        traffic.play(step)
    for dimension in DIMENSIONS:
        assert traffic.worst_excess(dimension) <= 1e-6


OTHERS = st.builds(Ceilings, *(st.sampled_from([None, 0.0, limit / 7, limit * 7]) for limit in LIMITS))


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=60), OTHERS)
@example(
    steps=[
        Step(0, "ann", 1, 0, 0, 1, 1.0, "settled"),
        Step(1, "bob", 2, 0, 551, 0, 0, "settled"),
        Step(30, "ann", 5, 0, 528, 2, 0, "settled"),  # bob gives back when his charge has long worn off
        Step(0, "ann", 1, 0, 89, 0, 0, "settled"),
    ],
    others=Ceilings(),
)
def test_so_does_what_one_process_is_granted_beside_others_that_state_something_else(
    steps: list[Step], others: Ceilings
) -> None:
    traffic = Traffic(others)
    for step in steps:
        traffic.play(step)
    for dimension in DIMENSIONS:
        assert traffic.worst_excess(dimension) <= 1e-6


@settings(max_examples=30, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=60))
def test_two_calls_never_start_closer_than_the_request_limit_allows(steps: list[Step]) -> None:
    traffic = Traffic()
    for step in steps:
        traffic.play(step)
    gaps = [later - earlier for earlier, later in pairwise(traffic.starts)]
    assert min(gaps, default=1.0) >= 60 / LIMITS[0] - 1e-6


@settings(max_examples=30, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=40))
def test_nothing_stays_in_flight_when_everything_is_reported(steps: list[Step]) -> None:
    traffic = Traffic()
    for step in steps:
        traffic.play(step)
    for process, ask in traffic.open:
        traffic.mirror.report(process, Release(ask.id), traffic.now)
    record = traffic.mirror.record
    assert record.in_flight == 0
    assert abs(record.output_in_flight) < 1e-6
    assert abs(record.input_variance) < 1e-3


def test_traffic_that_always_waits_uses_the_ceiling_up() -> None:
    mirror = Mirror.fresh(0.0, CEILINGS, Pacing())
    granted, now = 0, 0.0
    while now < 300:
        asks = [Ask(f"{now}-{n}", Amounts(1, 90, 10), 15.0) for n in range(20)]
        answer = mirror.acquire("ann", asks, CEILINGS, now)
        for ask in asks[: len(answer.waits)]:
            mirror.report("ann", Settlement(ask.id, ask.amounts, PLENTY), now)
        granted += len(answer.waits)
        now += 0.25
    assert 10 * (300 - 13) <= granted <= 10 * 301 + 1


LOW = (60.0, 6_000.0, 1_200.0)
STATED_BY_OTHERS = {
    "no limit": Ceilings(0, 0, 0),
    "nothing": Ceilings(),
    "more": Ceilings(6000, 600_000, 120_000),
    "less": Ceilings(30, 3_000, 600),
}


@dataclass
class Restart:
    """Two processes with different ceilings; "ann" states LOW. Every call ends at once."""

    others: Ceilings
    call: Amounts
    traffic: Traffic

    def run(self, seconds: float) -> None:
        """Both ask for many calls, in turn, as often as they may."""
        begun, due = self.traffic.now, {"ann": 0.0, "bob": 0.0}
        calls: list[tuple[float, str, Ask]] = []
        while self.traffic.now < begun + seconds:
            self.traffic.now += 0.05
            while calls and calls[0][0] <= self.traffic.now:
                self.settle(*calls.pop(0)[1:])
            for process, ceilings in (("ann", Ceilings(*LOW)), ("bob", self.others)):
                if self.traffic.now >= due[process]:
                    due[process] = self.traffic.now + self.ask(process, ceilings, calls)

    def ask(self, process: str, ceilings: Ceilings, calls: list[tuple[float, str, Ask]]) -> float:
        asks = [self.traffic._ask(self.call) for _ in range(20)]
        answer = self.traffic.mirror.acquire(process, asks, ceilings, self.traffic.now)
        for ask, _ in zip(asks, answer.waits, strict=False):
            calls.append((self.traffic.now, process, ask))
            self._enter(process, ask.amounts)
        return answer.denial.ticket if answer.denial else 0.0

    def settle(self, process: str, ask: Ask) -> None:
        used = Amounts(1, self.call.input_tokens / 2, self.call.output_tokens / 3)
        self.traffic.mirror.report(process, Settlement(ask.id, used, PLENTY), self.traffic.now)
        spare = [now - then for now, then in zip(used, self.call, strict=True)]
        self._enter(process, Amounts(*spare))

    def _enter(self, process: str, amounts: Amounts) -> None:
        if process == "ann":
            self.traffic._enter(amounts)


@pytest.mark.parametrize("call", [Amounts(1, 20, 5), Amounts(1, 120, 30), Amounts(1, 20, 90)])
@pytest.mark.parametrize("others", STATED_BY_OTHERS)
def test_a_process_stays_under_its_own_ceiling_whatever_the_others_state(others: str, call: Amounts) -> None:
    traffic = Traffic(STATED_BY_OTHERS[others])
    Restart(STATED_BY_OTHERS[others], call, traffic).run(120)
    for dimension in DIMENSIONS:
        assert traffic.worst_excess(dimension, LOW) <= 1e-6
    assert sum(amount for _, dimension, amount in traffic.account if dimension is Dimension.REQUESTS) > 10
