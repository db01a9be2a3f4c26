"""`async with limiter.permit(…)`: every way out of the block is reported, the same for both limiters."""

import asyncio
import time
from collections.abc import Callable

import pytest

from promptmill.dimensions import Amounts, Dimension, Headroom
from promptmill.errors import LimitReached
from promptmill.limits import Ceilings, Limiter, PoolState
from promptmill.limits import limiter as limiter_module
from promptmill.limits.policy import Pool

POOL = Pool("account", "group")
CALL = Amounts(1, 1000, 200)
LIMITS = Ceilings(6000, 600_000, 120_000)
MakeLimiter = Callable[..., Limiter]


@pytest.fixture
def limiter(make_limiter: MakeLimiter) -> Limiter:
    return make_limiter(LIMITS)


async def used(limiter: Limiter) -> tuple[float, ...]:
    """What the minute counts, once nothing is in flight."""
    state = await limiter.peek(POOL)
    assert state.in_flight == 0
    return tuple(round(dimension.used_per_minute) for dimension in state.dimensions)


async def test_what_the_call_used_is_settled_when_the_block_ends(limiter: Limiter) -> None:
    async with limiter.permit(POOL, CALL, patience=1) as call:
        assert (await limiter.peek(POOL)).in_flight == 1
        assert call.permit.amounts == CALL
        call.used(Amounts(1, 900, 50), Headroom(6000, 5999, 600_000, 599_000, 120_000, 120_000))
    assert await used(limiter) == (1, 900, 50)


async def test_a_block_that_says_nothing_leaves_the_estimate_charged(limiter: Limiter) -> None:
    async with limiter.permit(POOL, CALL, patience=1):
        pass
    assert await used(limiter) == (1, 1000, 200)


async def test_a_call_that_was_not_sent_gives_everything_back(limiter: Limiter) -> None:
    async with limiter.permit(POOL, CALL, patience=1) as call:
        call.not_sent()
    assert await used(limiter) == (0, 0, 0)


async def test_a_refused_call_pauses_the_pool_and_costs_nothing(limiter: Limiter) -> None:
    begun = time.monotonic()
    async with limiter.permit(POOL, CALL, patience=1) as call:
        call.refused(429, retry_after=30, dimension=Dimension.INPUT_TOKENS)
    assert await used(limiter) == (0, 0, 0)
    state = await limiter.peek(POOL)
    assert 30 - (time.monotonic() - begun) <= state.paused_for <= 30
    assert state.held_by == "paused"
    with pytest.raises(LimitReached):
        async with limiter.permit(POOL, CALL, patience=1):
            pytest.fail("nothing may be called in a pause")


async def test_an_overload_eases_the_pace_without_a_pause(limiter: Limiter) -> None:
    async with limiter.permit(POOL, CALL, patience=1) as call:
        call.refused(529)
    state = await limiter.peek(POOL)
    assert state.paused_for == 0
    assert state.easing < 0.95
    assert state.ramp == 1.0


async def test_an_exception_leaves_the_estimate_charged_and_passes_through(limiter: Limiter) -> None:
    with pytest.raises(ConnectionError):
        async with limiter.permit(POOL, CALL, patience=1):
            raise ConnectionError
    assert await used(limiter) == (1, 1000, 200)


async def test_an_exception_after_the_answer_keeps_what_was_said(limiter: Limiter) -> None:
    async def call_and_fail() -> None:
        async with limiter.permit(POOL, CALL, patience=1) as call:
            call.used(Amounts(1, 10, 5))
            raise ValueError("not JSON")

    with pytest.raises(ValueError, match="not JSON"):
        await call_and_fail()
    assert await used(limiter) == (1, 10, 5)


async def test_the_last_word_counts(limiter: Limiter) -> None:
    async with limiter.permit(POOL, CALL, patience=1) as call:
        call.not_sent()
        call.used(None)
    assert await used(limiter) == (1, 1000, 200)


async def test_a_canceled_call_leaves_the_estimate_charged(limiter: Limiter) -> None:
    held = asyncio.Event()

    async def call() -> None:
        async with limiter.permit(POOL, CALL, patience=1):
            held.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(call())
    await held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await used(limiter) == (1, 1000, 200)


async def test_who_is_canceled_while_waiting_holds_nothing(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings(30, 0, 0))
    async with limiter.permit(POOL, CALL, patience=1) as call:
        call.used(CALL)

    async def second() -> None:
        async with limiter.permit(POOL, CALL, patience=30):
            pytest.fail("its turn is two seconds away")

    task = asyncio.create_task(second())
    for _ in range(100):
        await asyncio.sleep(0)
        if (await limiter.peek(POOL)).waiting:
            break
    else:
        pytest.fail("it never waited")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await limiter.peek(POOL)).in_flight == 0


async def test_a_limiter_used_as_a_block_beats_by_itself(
    make_limiter: MakeLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats, thrice = 0, asyncio.Event()
    limiter = make_limiter(LIMITS)
    beat = limiter.beat

    async def counted() -> None:
        nonlocal beats
        beats += 1
        if beats == 3:
            thrice.set()
        await beat()

    monkeypatch.setattr(limiter, "beat", counted)
    monkeypatch.setattr(limiter_module, "BEAT_EVERY", 0.01)
    async with limiter as opened:
        await opened.acquire(POOL, CALL, patience=1)
        await asyncio.wait_for(thrice.wait(), timeout=30)
    ended = beats
    await asyncio.sleep(0.05)
    assert beats == ended


async def test_a_pool_says_what_was_used_in_the_last_minute(limiter: Limiter) -> None:
    for _ in range(5):
        async with limiter.permit(POOL, CALL, patience=1) as call:
            call.used(Amounts(1, 100, 10))
    assert await used(limiter) == (5, 500, 50)


async def test_a_pool_at_rest_is_held_by_nothing(limiter: Limiter) -> None:
    state: PoolState = await limiter.peek(POOL)
    assert state.held_by is None
    assert await used(limiter) == (0, 0, 0)


async def test_a_pool_with_waiting_calls_names_the_limit(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings(60, 0, 0))
    calls = [asyncio.create_task(limiter.acquire(POOL, CALL, patience=60)) for _ in range(5)]
    await calls[0]
    assert (await limiter.peek(POOL)).held_by == "requests"
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
