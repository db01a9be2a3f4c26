"""A configured limit is a ceiling: over any span, whatever the traffic does."""

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from promptmill.dimensions import DIMENSIONS, Amounts, Dimension, Headroom
from promptmill.limits import Ceilings, Pacing, Pool
from promptmill.limits.desk import Ask, Penalty, Release, Settlement
from promptmill.limits.mirror import Mirror
from promptmill.limits.pool_state import describe

POOL = Pool("account", "group")
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
    """Plays steps on a mirror and keeps account of what was granted and given back, and when."""

    def __init__(self) -> None:
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
        answer = self.mirror.acquire(step.process, asks, CEILINGS, self.now)
        for ask, wait in zip(asks, answer.waits, strict=False):
            self.open.append((step.process, ask))
            self.starts.append(self.now + wait)
            self._note(ask.amounts)
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
            report = Settlement(ask.id, used, PLENTY)
            spare = Amounts(*(min(0.0, now - then) for now, then in zip(used, ask.amounts, strict=True)))
        else:
            refused = step.outcome == "refused"
            penalty = Penalty(ask.id, generation, refused, 0.1, None, None)
            report = Release(ask.id) if step.outcome == "released" else penalty
            spare = Amounts(*(-amount for amount in ask.amounts))
        self.mirror.report(process, report, self.now)
        self._note(spare)

    def _note(self, amounts: Amounts) -> None:
        for dimension in DIMENSIONS:
            self.account.append((self.now, dimension, amounts[dimension]))

    def worst_excess(self, dimension: Dimension) -> float:
        """The most by which any span exceeded limit x span + burst + the largest call."""
        state = describe(self.mirror.record, POOL, self.now, 0, Pacing())[dimension]
        entries = [(moment, amount) for moment, named, amount in self.account if named is dimension]
        allowed = state.burst + max((amount for _, amount in entries), default=0.0)
        rate = LIMITS[DIMENSIONS.index(dimension)] / 60
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
