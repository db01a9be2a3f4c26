"""While nothing but 529s comes, the whole group all but stops, asks now and then, and returns soon after the end."""

from dataclasses import replace

import pytest

from bench.rehearsal.figures import judge
from bench.rehearsal.scene import Scene
from bench.rehearsal.stage import Events, Stage
from bench.rehearsal.virtual import run_virtually
from promptmill.dimensions import Amounts
from promptmill.limits import Ceilings, Hindrance, Pacing, Pool, PoolState
from promptmill.limits.desk import Ask, Penalty, Release, Report, Settlement
from promptmill.limits.mirror import Mirror
from promptmill.limits.pool_state import describe

RPM = 4000
BEGINS, ENDS = 40.0, 640.0
OUTAGE = Scene(
    load="requests",
    seconds=90,
    limits=Amounts(RPM, 10_000_000, 10_000_000),
    ceilings=Ceilings(RPM, 0, 0),
    storm=(BEGINS, ENDS, 1.0),
    processes=4,
    slots=50,
)


def rehearsed(scene: Scene) -> Events:
    async def play() -> Events:
        events = await Stage(scene).run()
        assert judge(scene, events).answered_once
        return events

    return run_virtually(play())


def test_ten_minutes_in_which_everything_is_refused_cost_few_calls_and_half_a_minute() -> None:
    events = rehearsed(OUTAGE)
    assert events.overloads <= 800  # of 40,000 that the limit allows
    assert events.refusals == 0
    back = [call.at - ENDS for call in events.calls if call.at >= ENDS]
    assert min(back) <= 4
    assert sum(25 <= at < 30 for at in back) >= 0.9 * 5 * RPM / 60


def test_a_server_that_minds_sharp_rises_refuses_few_calls_after_it() -> None:
    events = rehearsed(replace(OUTAGE, acceleration=True, seconds=120))
    assert not [call for call in events.calls if BEGINS + 1 < call.at < ENDS]
    assert events.refusals <= 10


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_storm_in_which_some_calls_succeed_is_no_outage(share: float) -> None:
    events = rehearsed(replace(OUTAGE, storm=(BEGINS, BEGINS + 60, share), seconds=120))
    answered = sum(BEGINS <= call.at < BEGINS + 60 for call in events.calls)
    assert answered >= 0.55 * (1 - share) * RPM


CALL = Amounts(1, 100, 20)
CEILINGS = Ceilings(RPM, 0, 0)
PACING = Pacing(ramp_start=1.0)


class Desk:
    """One process at one pool, at a moment that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.mirror = Mirror.fresh(self.now, CEILINGS, PACING)
        self.asked = 0

    def ask(self) -> str | None:
        """A permit, where one is to be had at once or within the horizon."""
        self.asked += 1
        permit = f"permit-{self.asked}"
        answer = self.mirror.acquire("ann", [Ask(permit, CALL, 15.0)], CEILINGS, self.now)
        return permit if answer.waits else None

    def tell(self, report: Report) -> None:
        self.mirror.report("ann", report, self.now)

    def overloaded(self, seconds: float, *, retry_after: float = 0.0) -> int:
        """Ask ten times a second, and have everything refused; how many calls that were."""
        calls = 0
        for _ in range(round(10 * seconds)):
            self.now += 0.1
            permit = self.ask()
            if permit is not None:
                calls += 1
                self.tell(Penalty(permit, 0, False, retry_after, None, None))
        return calls

    def look(self) -> PoolState:
        return describe(self.mirror.record, Pool("account", "group"), self.now, 1, PACING)


def test_a_pool_in_an_outage_says_so_and_makes_a_call_every_three_seconds() -> None:
    desk = Desk()
    desk.overloaded(10)
    assert desk.overloaded(30) in (9, 10, 11)
    state = desk.look()
    assert state.held_by is Hindrance.OVERLOADED
    assert state.dimensions[0].pace == pytest.approx(20)
    assert state.easing == pytest.approx(20 / RPM)


def test_the_first_word_of_an_answer_ends_it() -> None:
    desk = Desk()
    desk.overloaded(30)
    desk.now += 3
    permit = desk.ask()
    assert permit is not None
    desk.tell(Settlement(permit, CALL, None, final=False))
    assert desk.look().easing == 1.0
    assert desk.ask() is not None


def test_an_answer_to_a_call_from_before_does_not_end_it() -> None:
    desk = Desk()
    before = desk.ask()
    assert before is not None
    desk.overloaded(30)
    desk.tell(Settlement(before, CALL, None))
    assert desk.overloaded(30) < 12


@pytest.mark.parametrize(
    "report", [lambda permit: Settlement(permit, Amounts(1, 0, 0), None), Release], ids=["failed", "not sent"]
)
def test_a_call_without_an_answer_does_not_end_it(report: "type[Release]") -> None:
    desk = Desk()
    desk.overloaded(30)
    desk.now += 3
    permit = desk.ask()
    assert permit is not None
    desk.tell(report(permit))
    assert desk.look().easing < 0.01


def test_two_minutes_without_a_529_end_it_too() -> None:
    desk = Desk()
    desk.overloaded(30)
    desk.now += 121
    assert desk.ask() is not None
    assert desk.ask() is not None
    desk.now += 0.1
    assert desk.overloaded(3) > 10  # and a new one begins from the beginning


def test_a_retry_after_pauses_everybody_in_an_outage_for_a_minute_at_most() -> None:
    desk = Desk()
    desk.overloaded(30)
    desk.overloaded(4, retry_after=3600)
    assert desk.look().paused_for == pytest.approx(58, abs=3)
    assert desk.look().held_by is Hindrance.PAUSED


def test_a_retry_after_of_one_529_pauses_nobody_else() -> None:
    desk = Desk()
    desk.overloaded(0.2, retry_after=30)
    assert desk.look().paused_for == 0
    assert desk.ask() is not None
