"""The small values of the limiter, and waiting on a clock that a test moves."""

import pytest

from promptmill.clock import ManualClock
from promptmill.dimensions import Amounts
from promptmill.errors import LimitReached, RequestTooLarge
from promptmill.limits import Ceilings, LocalLimiter, Pacing, Pool, check_size
from promptmill.limits.records import POOL_FIELDS, PoolRecord, fresh_record
from promptmill.limits.scripts import script_text

POOL = Pool("account", "group")


def test_no_name_can_break_a_pools_hash_tag() -> None:
    assert Pool("org{1}:a", "opus 4.x").tag == "org%7B1%7D%3Aa:opus%204.x"
    assert Pool("a:b", "c").tag != Pool("a", "b:c").tag


@pytest.mark.parametrize("ceiling", [-1.0, float("inf"), float("nan")])
def test_a_ceiling_is_a_number_from_zero_up(ceiling: float) -> None:
    with pytest.raises(ValueError, match="input_tokens"):
        Ceilings(60, ceiling, None)


def test_a_call_that_fits_no_bucket_is_refused_before_it_waits() -> None:
    ceilings = Ceilings(60, 8000, 0)
    check_size(Amounts(1, 8000, 1_000_000), ceilings)
    with pytest.raises(RequestTooLarge, match="9,000 input tokens"):
        check_size(Amounts(1, 9000, 10), ceilings)


def test_a_guess_about_a_long_answer_refuses_no_call() -> None:
    check_size(Amounts(1, 10, 9000), Ceilings(60, 0, 8000))


def test_a_record_reads_back_as_it_was_told() -> None:
    record = fresh_record(1000.25, Ceilings(60, None, 0), Pacing())
    record.line = [("ann", 1000.5), ("bob", 1001.0)]
    assert PoolRecord.from_doubles(record.doubles(), "ann 1000.500000 bob 1001.000000 ") == record


def test_every_field_of_the_record_is_begun_in_lua() -> None:
    text = script_text("acquire", Pacing())
    begun = text[text.index("local function fresh_record") :]
    assert [name for name in POOL_FIELDS if f"{name} = " not in begun] == []


def test_a_script_has_the_numbers_of_the_pacing_it_is_made_for() -> None:
    assert "local pacing_ramp_start = 0.4\n" in script_text("acquire", Pacing(ramp_start=0.4))
    assert "local pacing_tolerance = { 0.0, 10.0, 10.0 }\n" in script_text("acquire", Pacing())


async def test_time_passes_only_as_the_clock_is_moved() -> None:
    clock = ManualClock()
    limiter = LocalLimiter(ceilings=lambda _: Ceilings(600, 0, 0), clock=clock, pacing=Pacing(ramp_start=1.0))
    for _ in range(10):
        await limiter.acquire(POOL, Amounts(1, 10, 10), patience=15)
    assert clock.monotonic() == pytest.approx(0.9, rel=0.1)


async def test_a_ramp_can_be_made_shorter() -> None:
    quick = Pacing(ramp_start=0.5, ramp_doubling=5.0)
    clock = ManualClock()
    limiter = LocalLimiter(ceilings=lambda _: Ceilings(600, 0, 0), clock=clock, pacing=quick)
    await limiter.acquire(POOL, Amounts(1), patience=15)
    assert (await limiter.peek(POOL)).share == pytest.approx(0.5, rel=0.01)
    clock.advance(5)
    assert (await limiter.peek(POOL)).share == pytest.approx(1.0)


async def test_patience_of_nothing_asks_once() -> None:
    clock = ManualClock()
    limiter = LocalLimiter(ceilings=lambda _: Ceilings(6, 0, 0), clock=clock)
    await limiter.acquire(POOL, Amounts(1), patience=5)
    with pytest.raises(LimitReached):
        await limiter.acquire(POOL, Amounts(1), patience=0)
    assert clock.monotonic() < 1
