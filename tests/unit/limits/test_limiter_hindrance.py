"""A pool says in one word why its next call waits."""

import pytest

from promptmill.dimensions import DIMENSIONS, Amounts, Dimension, Headroom
from promptmill.limits import Ceilings, Hindrance, Pacing, Pool, PoolState
from promptmill.limits.desk import Answer, Ask, Penalty, Settlement
from promptmill.limits.mirror import Mirror
from promptmill.limits.pool_state import describe

POOL = Pool("account", "group")
CALL = Amounts(1, 100, 20)
CEILINGS = Ceilings(600, 60_000, 12_000)
PLENTY = Headroom(600, 600, 60_000, 60_000, 12_000, 12_000)
AT_ONCE = Pacing(ramp_start=1.0)


class Desk:
    """One process at one pool, at a moment that the test sets."""

    def __init__(self, ceilings: Ceilings = CEILINGS, pacing: Pacing = AT_ONCE) -> None:
        self.now = 1000.0
        self.ceilings = ceilings
        self.pacing = pacing
        self.mirror = Mirror.fresh(self.now, ceilings, pacing)
        self.asked = 0

    def ask(self, amounts: Amounts = CALL, *, calls: int = 1, patience: float = 15.0) -> list[str]:
        asks = [Ask(f"permit-{self.asked + number}", amounts, patience) for number in range(calls)]
        self.asked += calls
        answer: Answer = self.mirror.acquire("ann", asks, self.ceilings, self.now)
        return [ask.id for ask in asks[: len(answer.waits)]]

    def settle(self, permits: list[str], used: Amounts = CALL, headroom: Headroom = PLENTY) -> None:
        for permit in permits:
            self.mirror.report("ann", Settlement(permit, used, headroom), self.now)

    def refuse(self, permit: str, *, status: int, dimension: Dimension | None = None) -> None:
        generation = int(self.mirror.record.generation)
        self.mirror.report("ann", Penalty(permit, generation, status == 429, 5.0, dimension, None), self.now)

    def fill_up(self) -> None:
        """Show headers that the buckets are full."""
        for _ in range(10):
            self.now += 1
            self.settle(self.ask())

    def look(self) -> PoolState:
        return describe(self.mirror.record, POOL, self.now, 0, self.pacing)

    def held_by(self) -> Hindrance | None:
        return self.look().held_by


def test_nothing_holds_a_call_that_could_start() -> None:
    desk = Desk()
    desk.fill_up()
    desk.now += 1
    assert desk.held_by() is None


@pytest.mark.parametrize(
    ("ceilings", "dimension"),
    [
        (Ceilings(60, 0, 0), Hindrance.REQUESTS),
        (Ceilings(0, 6000, 0), Hindrance.INPUT_TOKENS),
        (Ceilings(0, 0, 1200), Hindrance.OUTPUT_TOKENS),
    ],
)
def test_a_limit_that_is_used_up_is_named(ceilings: Ceilings, dimension: Hindrance) -> None:
    desk = Desk(ceilings)
    desk.ask(calls=50)
    assert desk.held_by() is dimension


def test_a_pause_is_named_before_everything_else() -> None:
    desk = Desk()
    (permit,) = desk.ask()
    desk.refuse(permit, status=429)
    assert desk.held_by() is Hindrance.PAUSED
    desk.now += 5.1
    assert desk.held_by() is not Hindrance.PAUSED


def test_a_gentle_start_is_named_while_it_slows_the_calls() -> None:
    desk = Desk(Ceilings(600, 0, 0), Pacing())
    desk.ask(calls=50)
    assert desk.held_by() is Hindrance.STARTING
    assert desk.look().ramp == pytest.approx(0.2, abs=0.01)
    desk.now += 30
    desk.ask(calls=50)
    assert desk.held_by() is Hindrance.REQUESTS
    assert desk.look().ramp == 1.0


def test_the_default_limits_are_not_called_a_start() -> None:
    desk = Desk(Ceilings(), Pacing())
    desk.ask(calls=50)
    assert desk.held_by() is Hindrance.REQUESTS
    assert desk.look().ramp == 1.0


def test_the_easing_after_an_overload_is_named_and_wears_off() -> None:
    desk = Desk(Ceilings(600, 0, 0))
    (permit,) = desk.ask()
    desk.now += 3
    desk.refuse(permit, status=529)
    desk.ask(calls=50)
    assert desk.held_by() is Hindrance.OVERLOADED
    state = desk.look()
    assert state.easing == pytest.approx(0.85)
    assert state.ramp == 1.0
    desk.now += 4
    assert desk.look().easing == 1.0


def test_what_others_take_is_named() -> None:
    desk = Desk(Ceilings(0, None, 0))
    desk.fill_up()
    for _ in range(120):
        desk.now += 0.5
        left = desk.look()[DIMENSIONS[1]].level
        draining = max(0.0, left - 15_000)
        desk.settle(desk.ask(), headroom=Headroom(600, 600, 60_000, draining, None, None))
    desk.ask(Amounts(1, 2000, 20), calls=50)
    state = desk.look()
    assert state[DIMENSIONS[1]].foreign > 6000
    assert state.held_by is Hindrance.OTHER_PROGRAMS


def test_saving_up_for_a_large_call_is_named() -> None:
    desk = Desk(Ceilings(0, 60_000, 0))
    desk.fill_up()
    while desk.ask(Amounts(1, 2000, 20)):
        desk.now += 0.1
    desk.ask(Amounts(1, 30_000, 20), patience=1.0)
    assert desk.held_by() is Hindrance.SAVING_UP


def test_what_was_used_is_forgotten_after_a_minute() -> None:
    desk = Desk()
    desk.settle(desk.ask(), Amounts(1, 60, 10))
    used = [round(each.used_per_minute) for each in desk.look().dimensions]
    assert used == [1, 60, 10]
    desk.now += 90
    assert desk.look().dimensions[1].used_per_minute == pytest.approx(30)
    desk.ask()
    assert desk.look().dimensions[1].used_per_minute == pytest.approx(130)
    desk.now += 120
    assert desk.look().dimensions[1].used_per_minute == 0


def test_steady_use_is_shown_as_it_is() -> None:
    desk = Desk()
    for _ in range(300):
        desk.now += 0.5
        desk.settle(desk.ask())
    assert desk.look().dimensions[0].used_per_minute == pytest.approx(120, abs=2)
