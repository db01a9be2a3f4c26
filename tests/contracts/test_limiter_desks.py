"""What a pool grants and remembers, the same for the model in this process and the scripts in Redis.

Time is injected, so nothing here waits.
"""

from collections.abc import AsyncIterator, Sequence
from copy import deepcopy
from itertools import count

import pytest

from promptmill.dimensions import DIMENSIONS, Amounts, Dimension, Headroom
from promptmill.limits import Ceilings, LimitSource, LocalPools, Pacing, Pool, PoolState
from promptmill.limits.desk import Answer, Ask, Desk, Penalty, Release, Settlement
from promptmill.limits.local import LocalDesk
from promptmill.limits.pool_state import describe
from promptmill.limits.redis_desk import RedisDesk
from promptmill.limits.wire import Wire

REQUESTS, INPUT, OUTPUT = DIMENSIONS
POOL = Pool("account", "group")
CONFIGURED = Ceilings(600, 60_000, 12_000)
PLENTY = Headroom(600, 600, 60_000, 60_000, 12_000, 12_000)
CALL = Amounts(1, 100, 20)


class Office:
    """Desks of several processes at one pool, at a moment that the test sets."""

    def __init__(self, kind: str, wire: Wire | None) -> None:
        self.kind = kind
        self.wire = wire
        self.pools = LocalPools()
        self.now = 1_790_000_000.0
        self.ceilings = CONFIGURED
        self.numbers = count(1)
        self.desks: dict[str, Desk] = {}

    def desk(self, process: str) -> Desk:
        if process not in self.desks:
            self.desks[process] = self._open(process)
        return self.desks[process]

    def _open(self, process: str) -> Desk:
        if self.wire is None:
            return LocalDesk(
                self.pools,
                POOL,
                process=process,
                ceilings=lambda: self.ceilings,
                pacing=Pacing(),
                now=lambda: self.now,
            )
        return RedisDesk(
            self.wire,
            POOL,
            process=process,
            ceilings=lambda: self.ceilings,
            pacing=Pacing(),
            now=lambda: self.now,
        )

    async def ask(
        self, *calls: Amounts, process: str = "ann", patience: float = 15.0
    ) -> tuple[list[str], Answer]:
        """Ask for permits; the ids of those granted, and the answer."""
        asks = [Ask(f"{process}-{next(self.numbers)}", call, patience) for call in calls]
        answer = await self.desk(process).acquire(asks)
        return [ask.id for ask in asks[: len(answer.waits)]], answer

    async def settle(self, permit: str, used: Amounts | None, headroom: Headroom | None = None) -> None:
        await self.desk(permit.split("-", maxsplit=1)[0]).report(Settlement(permit, used, headroom))

    async def refuse(
        self,
        permit: str,
        *,
        retry_after: float = 5.0,
        dimension: Dimension | None = None,
        generation: int | None = None,
        headroom: Headroom | None = None,
    ) -> None:
        if generation is None:
            generation = (await self.desk("ann").confirm()).generation
        penalty = Penalty(permit, generation, True, retry_after, dimension, headroom)
        await self.desk(permit.split("-", maxsplit=1)[0]).report(penalty)

    async def overload(self, permit: str) -> None:
        await self.desk(permit.split("-", maxsplit=1)[0]).report(Penalty(permit, 1, False, 1.0, None, None))

    async def look(self) -> PoolState:
        record, now = await self.desk("ann").peek()
        return describe(record, POOL, now, 0, Pacing())

    async def warm_up(self) -> None:
        """Let the gentle start pass, with buckets that headers have shown to be full."""
        for _ in range(40):
            permits, _ = await self.ask(CALL)
            self.now += 1.0
            for permit in permits:
                await self.settle(permit, CALL, PLENTY)

    async def drain(self, call: Amounts = CALL) -> Answer:
        """Ask until nothing more is granted."""
        while True:
            _, answer = await self.ask(*[call] * 20)
            if answer.denial:
                return answer


@pytest.fixture(params=["local", "redis"])
async def office(request: pytest.FixtureRequest) -> AsyncIterator[Office]:
    if request.param == "local":
        yield Office("local", None)
        return
    wire = Wire(request.getfixturevalue("clean_redis"), Pacing())
    yield Office("redis", wire)
    await wire.aclose()


def starts(answers: Sequence[Answer]) -> list[float]:
    return [wait for answer in answers for wait in answer.waits]


async def test_an_unknown_account_begins_with_the_smallest_limits(office: Office) -> None:
    office.ceilings = Ceilings()
    permits, answer = await office.ask(CALL, CALL)
    state = await office.look()
    assert len(permits) == 1
    assert answer.denial is not None
    assert answer.denial.starts_in > 1.2
    assert [each.source for each in state.dimensions] == [LimitSource.DEFAULT] * 3
    assert [each.limit for each in state.dimensions] == pytest.approx([50, 30_000, 8_000])


async def test_a_large_first_call_of_an_unknown_account_does_not_wait(office: Office) -> None:
    office.ceilings = Ceilings()
    _, answer = await office.ask(Amounts(1, 18_000, 4000))
    assert answer.waits == pytest.approx((0.0,), abs=0.1)


async def test_what_was_charged_on_a_guess_does_not_hold_up_what_is_known(office: Office) -> None:
    office.ceilings = Ceilings()
    permits, _ = await office.ask(Amounts(1, 18_000, 4000))
    office.now += 5
    known = Headroom(1000, 999, 450_000, 432_000, 90_000, 90_000)
    await office.settle(permits[0], Amounts(1, 18_000, 4000), known)
    _, answer = await office.ask(CALL, CALL)
    assert len(answer.waits) == 2
    assert max(answer.waits) < 0.7  # the gentle start, and nothing else


async def test_a_start_with_learned_limits_makes_no_burst(office: Office) -> None:
    office.ceilings = Ceilings()
    permits, _ = await office.ask(CALL)
    office.now += 5
    await office.settle(permits[0], CALL, Headroom(10_000, 9_999, 450_000, 450_000, 90_000, 90_000))
    _, answer = await office.ask(*[Amounts(1, 3000, 100)] * 20)
    assert len(answer.waits) <= 2 + 0.3 * 450_000 / 60 / 3000


async def test_limits_are_learned_from_the_first_header(office: Office) -> None:
    office.ceilings = Ceilings()
    permits, _ = await office.ask(CALL)
    await office.settle(permits[0], CALL, Headroom(1000, 999, 450_000, 450_000, 90_000, 90_000))
    state = await office.look()
    assert [each.source for each in state.dimensions] == [LimitSource.LEARNED] * 3
    assert [each.limit for each in state.dimensions] == pytest.approx([1000, 450_000, 90_000])
    assert state[INPUT].capacity > 400_000


async def test_a_limit_that_rises_is_approached_gently(office: Office) -> None:
    office.ceilings = Ceilings()
    permits, _ = await office.ask(CALL)
    office.now += 30
    await office.settle(permits[0], CALL, Headroom(1000, 999, 450_000, 450_000, 90_000, 90_000))
    assert (await office.look()).share == pytest.approx(0.2)


@pytest.mark.parametrize("factor", [1.8, 0.7])
async def test_a_limit_that_changes_together_with_its_bucket_is_not_taken_for_another_program(
    office: Office, factor: float
) -> None:
    office.ceilings = Ceilings()
    await office.warm_up()
    limits = [factor * limit for limit in (600, 60_000, 12_000)]
    small = Headroom(*(each for limit in limits for each in (limit, limit * 5 / 60)))
    for _ in range(10):
        permits, _ = await office.ask(CALL)
        office.now += 1.0
        await office.settle(permits[0], CALL, small)
    state = await office.look()
    assert [each.limit for each in state.dimensions] == pytest.approx(limits)
    assert [each.foreign for each in state.dimensions] == [0, 0, 0]
    assert state[REQUESTS].capacity == pytest.approx(limits[0] * 5 / 60, abs=1)


async def test_a_header_may_lower_a_configured_limit_but_not_raise_it(office: Office) -> None:
    permits, _ = await office.ask(CALL, CALL)
    await office.settle(permits[0], CALL, Headroom(300, 299, 90_000, 90_000, 12_000, 12_000))
    state = await office.look()
    assert state[REQUESTS].limit == pytest.approx(300)
    assert state[REQUESTS].source is LimitSource.LEARNED
    assert state[INPUT].limit == pytest.approx(60_000)
    assert state[INPUT].source is LimitSource.CONFIGURED


async def test_a_limit_of_zero_is_no_limit(office: Office) -> None:
    office.ceilings = Ceilings(0, 0, 0)
    _, answer = await office.ask(*[Amounts(1, 1_000_000, 1_000_000)] * 50)
    assert len(answer.waits) == 50
    assert set(answer.waits) == {0.0}


async def test_a_changed_configuration_holds_from_the_next_question_on(office: Office) -> None:
    await office.ask(CALL)
    office.ceilings = Ceilings(60, 0, None)
    await office.ask(CALL)
    state = await office.look()
    assert state[REQUESTS].limit == pytest.approx(60)
    assert state[INPUT].limit is None
    assert state[OUTPUT].source is LimitSource.DEFAULT


async def test_a_start_is_gentle(office: Office) -> None:
    _, answer = await office.ask(*[CALL] * 20)
    gaps = [later - earlier for earlier, later in zip(answer.waits, answer.waits[1:], strict=False)]
    assert min(gaps) > 3.5 * 60 / 600  # a fifth of the limit, a little more with every call
    assert len(answer.waits) <= 4


async def test_a_permit_starts_at_most_a_second_ahead(office: Office) -> None:
    await office.warm_up()
    _, answer = await office.ask(*[CALL] * 30)
    assert answer.denial is not None
    assert max(answer.waits) <= 1.0
    assert 9 <= len(answer.waits) <= 11


async def test_who_waits_is_told_when_to_ask_again_and_for_what_it_waits(office: Office) -> None:
    await office.warm_up()
    await office.drain()
    _, answer = await office.ask(Amounts(1, 30_000, 20))
    assert answer.denial is not None
    assert answer.denial.starts_in > 1.0
    assert answer.denial.dimension is not None
    assert 0 < answer.denial.ticket <= 2.0


async def test_a_call_is_charged_in_all_dimensions_or_in_none(office: Office) -> None:
    await office.warm_up()
    await office.drain(Amounts(1, 100, 1500))
    before = await office.look()
    permits, _ = await office.ask(Amounts(1, 5000, 1500), process="bob")
    after = await office.look()
    assert permits == []
    assert [each.level for each in after.dimensions] == [each.level for each in before.dimensions]
    assert after.in_flight == before.in_flight


async def test_first_come_first_served_within_a_question(office: Office) -> None:
    await office.warm_up()
    large, small = Amounts(1, 59_000, 10), Amounts(1, 10, 10)
    await office.ask(large)
    permits, answer = await office.ask(large, small)
    assert permits == []
    assert answer.denial is not None
    assert answer.denial.dimension is INPUT


LARGE, SMALL = Amounts(1, 40_000, 10), Amounts(1, 10, 10)


def waits_for_its_turn(answer: Answer) -> bool:
    return answer.denial is not None and answer.denial.dimension is None


async def test_small_calls_of_others_do_not_overtake_the_first_in_line(office: Office) -> None:
    await office.warm_up()
    await office.ask(LARGE, LARGE, process="ann")
    _, answer = await office.ask(SMALL, process="bob")
    assert waits_for_its_turn(answer)


async def test_a_turn_that_is_given_up_goes_to_the_next(office: Office) -> None:
    await office.warm_up()
    await office.ask(LARGE, LARGE, process="ann")
    await office.ask(process="ann")
    _, answer = await office.ask(SMALL, process="bob")
    assert not waits_for_its_turn(answer)


async def test_a_process_that_does_not_come_when_due_loses_its_turn(office: Office) -> None:
    await office.warm_up()
    _, answer = await office.ask(LARGE, LARGE, process="ann")
    assert answer.denial is not None
    office.now += answer.denial.ticket + 0.2
    _, early = await office.ask(SMALL, process="bob")
    office.now += 0.1
    _, late = await office.ask(SMALL, process="bob")
    assert waits_for_its_turn(early)
    assert not waits_for_its_turn(late)


async def test_settling_gives_back_what_was_reserved_too_much(office: Office) -> None:
    await office.warm_up()
    permits, _ = await office.ask(Amounts(1, 10_000, 2000))
    reserved = await office.look()
    await office.settle(permits[0], Amounts(1, 4000, 500))
    settled = await office.look()
    assert settled[INPUT].level == pytest.approx(reserved[INPUT].level + 6000)
    assert settled[OUTPUT].level == pytest.approx(reserved[OUTPUT].level + 1500)
    assert settled[REQUESTS].level == pytest.approx(reserved[REQUESTS].level)
    assert settled.in_flight == reserved.in_flight - 1


async def test_settling_charges_what_was_reserved_too_little(office: Office) -> None:
    await office.warm_up()
    permits, _ = await office.ask(Amounts(1, 1000, 20))
    reserved = await office.look()
    await office.settle(permits[0], Amounts(1, 9000, 900))
    settled = await office.look()
    assert settled[INPUT].level == pytest.approx(reserved[INPUT].level - 8000)
    assert settled[OUTPUT].level == pytest.approx(reserved[OUTPUT].level - 880)


async def test_an_unknown_use_leaves_the_estimate_charged(office: Office) -> None:
    await office.warm_up()
    permits, _ = await office.ask(CALL)
    reserved = await office.look()
    await office.settle(permits[0], None)
    settled = await office.look()
    assert settled[INPUT].level == pytest.approx(reserved[INPUT].level)
    assert settled.in_flight == reserved.in_flight - 1


async def test_settling_twice_is_settling_once(office: Office) -> None:
    permits, _ = await office.ask(CALL)
    await office.settle(permits[0], Amounts(1, 10, 2))
    once, _ = await office.desk("ann").peek()
    await office.settle(permits[0], Amounts(1, 10, 2))
    twice, _ = await office.desk("ann").peek()
    assert once == twice


async def test_input_that_is_known_early_is_settled_once(office: Office) -> None:
    await office.warm_up()
    permits, _ = await office.ask(Amounts(1, 10_000, 20))
    await office.desk("ann").report(Settlement(permits[0], Amounts(1, 4000), None, final=False))
    early = await office.look()
    await office.settle(permits[0], Amounts(1, 4000, 20))
    late = await office.look()
    assert late[INPUT].level == pytest.approx(early[INPUT].level)
    assert early.in_flight == late.in_flight + 1


async def test_a_release_leaves_no_trace_on_the_levels(office: Office) -> None:
    await office.warm_up()
    office.now += 30
    before = await office.look()
    permits, _ = await office.ask(CALL)
    await office.desk("ann").report(Release(permits[0]))
    after = await office.look()
    assert after.in_flight == before.in_flight
    for dimension in DIMENSIONS:
        assert after[dimension].level == pytest.approx(before[dimension].level, rel=1e-3)


async def test_a_failed_call_gives_its_tokens_back_and_teaches_nothing(office: Office) -> None:
    await office.warm_up()
    office.now += 10
    before, _ = deepcopy(await office.desk("ann").peek())
    permits, _ = await office.ask(Amounts(1, 10_000, 200))
    office.now += 0.5
    await office.settle(permits[0], Amounts(1, 0, 0))
    after, _ = await office.desk("ann").peek()
    for known in ("input_error", "input_used", "output_mean", "output_variance", "latency", "headerless"):
        assert getattr(after, known) == getattr(before, known), known
    assert after.minute_used == pytest.approx(
        [before.minute_used[0] + 1, before.minute_used[1], before.minute_used[2]]
    )
    assert (after.in_flight, after.input_variance) == (before.in_flight, before.input_variance)
    assert after.level[1:] == pytest.approx(after.capacity[1:])


@pytest.mark.parametrize("end", ["released", "overloaded", "failed"])
async def test_input_that_was_settled_is_not_given_back_again(office: Office, end: str) -> None:
    await office.warm_up()
    permits, _ = await office.ask(Amounts(1, 10_000, 20))
    await office.desk("ann").report(Settlement(permits[0], Amounts(1, 4000), None, final=False))
    before = await office.look()
    if end == "released":
        await office.desk("ann").report(Release(permits[0]))
    elif end == "overloaded":
        await office.overload(permits[0])
    else:
        await office.settle(permits[0], Amounts(1, 0, 0))
    after = await office.look()
    assert after[INPUT].level == pytest.approx(before[INPUT].level)
    assert after[INPUT].used_per_minute == pytest.approx(before[INPUT].used_per_minute)
    assert after[REQUESTS].level == pytest.approx(before[REQUESTS].level)
    assert after.in_flight == before.in_flight - 1


async def test_a_refusal_pauses_everybody_for_as_long_as_the_server_says(office: Office) -> None:
    await office.warm_up()
    permits, _ = await office.ask(CALL)
    await office.refuse(permits[0], retry_after=300, dimension=INPUT)
    denied, answer = await office.ask(CALL, process="bob")
    assert denied == []
    assert answer.denial is not None
    assert answer.denial.starts_in >= 300
    office.now += 299.5
    _, answer = await office.ask(CALL, process="bob")
    assert min(answer.waits, default=0.5) >= 0.5
    assert answer.pulse.paused_for == pytest.approx(0.5)


async def test_permits_of_before_a_refusal_are_seen_to_be_void(office: Office) -> None:
    await office.warm_up()
    permits, answer = await office.ask(CALL, CALL)
    await office.refuse(permits[0])
    pulse = await office.desk("bob").confirm()
    assert pulse.generation == answer.pulse.generation + 1
    assert pulse.paused_for == pytest.approx(5.0)


async def test_echoes_of_a_refusal_only_prolong_the_pause(office: Office) -> None:
    await office.warm_up()
    permits, answer = await office.ask(CALL, CALL)
    granted_in = answer.pulse.generation
    await office.refuse(permits[0], retry_after=5, dimension=INPUT, generation=granted_in)
    first, _ = await office.desk("ann").peek()
    first = deepcopy(first)
    await office.refuse(permits[1], retry_after=7, dimension=INPUT, generation=granted_in)
    echo, _ = await office.desk("ann").peek()
    assert (echo.generation, echo.ramp_from, echo.foreign) == (
        first.generation,
        first.ramp_from,
        first.foreign,
    )
    assert echo.paused_until == pytest.approx(first.paused_until + 2)


async def test_after_a_refusal_the_return_is_gentle(office: Office) -> None:
    await office.warm_up()
    permits, _ = await office.ask(CALL)
    await office.refuse(permits[0], dimension=INPUT)
    office.now += 5
    assert (await office.look()).share == pytest.approx(0.5)


async def test_a_refusal_empties_the_bucket_it_names(office: Office) -> None:
    await office.warm_up()
    permits, _ = await office.ask(CALL)
    await office.refuse(permits[0], retry_after=0, dimension=INPUT)
    state = await office.look()
    assert state[INPUT].level <= 60_000 / 60
    assert state[REQUESTS].level > 500


async def test_a_refused_call_was_not_counted_by_the_server(office: Office) -> None:
    await office.warm_up()
    before = await office.look()
    permits, _ = await office.ask(Amounts(1, 10_000, 100))
    await office.refuse(permits[0])
    after = await office.look()
    assert after[INPUT].level == pytest.approx(before[INPUT].level, rel=1e-2)
    assert after.in_flight == before.in_flight


async def test_a_refusal_teaches_the_limits_it_states(office: Office) -> None:
    permits, _ = await office.ask(CALL)
    await office.refuse(permits[0], headroom=Headroom(300, 0, 60_000, 60_000, 12_000, 12_000))
    assert (await office.look())[REQUESTS].limit == pytest.approx(300)


async def test_an_overload_eases_the_pace_and_touches_no_level(office: Office) -> None:
    await office.warm_up()
    before = await office.look()
    permits, _ = await office.ask(CALL)
    await office.overload(permits[0])
    after = await office.look()
    assert after.share == pytest.approx(0.85)
    assert after.paused_for == 0
    assert after[INPUT].level == pytest.approx(before[INPUT].level, rel=1e-3)
    office.now += 3.1
    await office.ask(CALL)
    assert (await office.look()).share == pytest.approx(1.0)


async def test_what_others_take_is_noticed_and_left_to_them(office: Office) -> None:
    await office.warm_up()
    call, left = Amounts(1, 900, 20), 59_000.0
    for _ in range(90):
        permits, _ = await office.ask(call)
        office.now += 1
        left += 1000 - 900 * len(permits) - 300  # the refill, ours, and 18,000 per minute of somebody else
        for permit in permits:
            await office.settle(permit, call, Headroom(600, 590, 60_000, round(left, -3), 12_000, 12_000))
    state = await office.look()
    assert state[INPUT].foreign == pytest.approx(18_000, rel=0.5)
    assert state[INPUT].pace == pytest.approx(60_000 - state[INPUT].foreign)
    assert state[INPUT].level == pytest.approx(left, abs=3000)


async def test_the_permits_of_a_dead_process_are_given_up(office: Office) -> None:
    permits, _ = await office.ask(CALL, process="bob")
    assert len(permits) == 1
    office.now += 15
    await office.desk("ann").beat()
    assert (await office.look()).in_flight == 1
    office.now += 6
    await office.desk("ann").beat()
    assert (await office.look()).in_flight == 0


async def test_a_process_that_beats_keeps_its_permits(office: Office) -> None:
    await office.ask(CALL, process="bob")
    for _ in range(120):
        office.now += 5
        await office.desk("bob").beat()
        await office.desk("ann").beat()
    assert (await office.look()).in_flight == 1


async def test_a_late_settlement_of_an_expired_permit_corrects_once(office: Office) -> None:
    await office.warm_up()
    permits, _ = await office.ask(Amounts(1, 50_000, 20), process="bob")
    office.now += 21
    await office.desk("ann").beat()
    expired = await office.look()
    for _ in range(2):
        await office.settle(permits[0], Amounts(1, 40_000, 20))
    settled = await office.look()
    assert settled[INPUT].level == pytest.approx(expired[INPUT].level + 10_000)
    assert settled.in_flight == expired.in_flight == 0


async def test_the_uncertainty_of_an_expired_permit_is_taken_out_once(office: Office) -> None:
    await office.warm_up()
    permits, _ = await office.ask(Amounts(1, 10_000, 20), process="bob")
    office.now += 21
    await office.ask(Amounts(1, 10_000, 20))
    await office.desk("ann").beat()
    expired, _ = deepcopy(await office.desk("ann").peek())
    await office.settle(permits[0], Amounts(1, 10_000, 20))
    settled, _ = await office.desk("ann").peek()
    assert expired.input_variance > 0
    assert settled.input_variance == expired.input_variance


async def test_a_dead_process_leaves_the_line(office: Office) -> None:
    await office.warm_up()
    await office.ask(*[CALL] * 20, process="bob")
    assert (await office.look()).processes_waiting == 1
    office.now += 21
    await office.desk("ann").beat()
    assert (await office.look()).processes_waiting == 0


async def test_a_call_that_no_bucket_can_hold_is_named(office: Office) -> None:
    office.ceilings = Ceilings()
    permits, _ = await office.ask(CALL)
    await office.settle(permits[0], CALL, Headroom(1000, 999, 50_000, 50_000, 90_000, 90_000))
    _, answer = await office.ask(Amounts(1, 60_000, 20))
    assert answer.denial is not None
    assert answer.denial.dimension is INPUT
    assert answer.denial.too_large == pytest.approx(50_000)


async def test_a_call_is_not_granted_beyond_its_patience(office: Office) -> None:
    await office.warm_up()
    _, answer = await office.ask(*[CALL] * 30, patience=0.35)
    assert max(answer.waits) <= 0.35


async def test_the_pool_saves_up_for_a_large_call_that_could_not_wait(office: Office) -> None:
    office.ceilings = Ceilings()
    await office.warm_up()
    await crowd(office, seconds=150)  # uses up what an idle bucket has saved
    denied, answer = await office.ask(LARGE, patience=5)
    await office.ask()
    await crowd(office, seconds=110)
    granted, _ = await office.ask(LARGE, patience=5)
    assert denied == []
    assert answer.denial is not None
    assert answer.denial.dimension is INPUT
    assert len(granted) == 1


async def crowd(office: Office, *, seconds: int) -> None:
    """Somebody with small calls takes whatever is granted."""
    for _ in range(2 * seconds):
        permits, _ = await office.ask(*[Amounts(1, 500, 10)] * 10, process="bob")
        office.now += 0.5
        for permit in permits:
            await office.settle(permit, Amounts(1, 500, 10))
    await office.ask(process="bob")


async def test_after_a_long_silence_the_start_is_gentle_again(office: Office) -> None:
    await office.warm_up()
    office.now += 121
    await office.ask(CALL)
    assert (await office.look()).share == pytest.approx(0.2)


async def test_a_clock_that_goes_back_begins_the_pool_anew(office: Office) -> None:
    await office.warm_up()
    permits, before = await office.ask(CALL)
    office.now -= 600
    await office.settle(permits[0], CALL, PLENTY)
    _, answer = await office.ask(*[CALL] * 20)
    state = await office.look()
    assert answer.waits[0] == 0
    assert 1 <= len(answer.waits) <= 4  # as gentle as any start
    assert answer.pulse.generation != before.pulse.generation
    assert state.share == pytest.approx(0.2, rel=0.01)
    assert state.in_flight == len(answer.waits)


async def test_a_clock_that_goes_back_a_little_is_waited_for(office: Office) -> None:
    await office.warm_up()
    permits, before = await office.ask(CALL)
    office.now -= 3
    await office.settle(permits[0], CALL, PLENTY)
    _, answer = await office.ask(CALL)
    record, _ = await office.desk("ann").peek()
    assert answer.pulse.generation == before.pulse.generation
    assert answer.denial is not None
    assert 3 <= answer.denial.starts_in <= 3.2
    assert record.latency >= 0
    assert all(level <= capacity for level, capacity in zip(record.level, record.capacity, strict=True))


async def test_looking_at_a_pool_nobody_used_makes_none(office: Office) -> None:
    state = await office.look()
    assert state.in_flight == 0
    assert state[REQUESTS].limit == pytest.approx(600)
    office.ceilings = Ceilings(1200, 0, 0)
    assert (await office.look())[REQUESTS].limit == pytest.approx(1200)


async def test_the_state_says_what_calls_like_these_are_bound_by(office: Office) -> None:
    for _ in range(30):
        permits, _ = await office.ask(Amounts(1, 1000, 20))
        office.now += 2
        for permit in permits:
            await office.settle(permit, Amounts(1, 1000, 20), PLENTY)
    state = await office.look()
    assert state.binding() is INPUT
    assert state.calls_per_second() == pytest.approx(1.0, rel=0.05)
    assert state.binding(Amounts(1, 10, 1000)) is OUTPUT
