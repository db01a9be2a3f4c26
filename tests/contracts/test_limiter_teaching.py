"""What a limiter believes about limits: configured, from headers, from the Rate Limits API, or nothing."""

from collections.abc import Callable

import pytest

from promptmill.dimensions import Amounts, Dimension, Headroom
from promptmill.limits import Ceilings, Limiter, LimitSource, Pacing, Pool

POOL = Pool("an account", "group:1")
CALL = Amounts(1, 100, 20)
EVERY_HEADER = Pacing(headroom_interval=0.0, ramp_start=1.0)
ONLY_REQUESTS = Headroom(requests_limit=60_000, requests_remaining=59_000)
MakeLimiter = Callable[..., Limiter]

CONFIGURED, LEARNED, PROBED, DEFAULT, NONE = (
    LimitSource.CONFIGURED,
    LimitSource.LEARNED,
    LimitSource.PROBED,
    LimitSource.DEFAULT,
    LimitSource.NONE,
)


@pytest.fixture
def limiter(make_limiter: MakeLimiter) -> Limiter:
    return make_limiter(Ceilings(), EVERY_HEADER)


def headers(requests: float, input_tokens: float, output_tokens: float) -> Headroom:
    return Headroom(requests, requests, input_tokens, input_tokens, output_tokens, output_tokens)


async def answer(limiter: Limiter, headroom: Headroom | None) -> None:
    async with limiter.permit(POOL, CALL, patience=30) as call:
        call.used(CALL, headroom)


async def sources(limiter: Limiter) -> list[LimitSource]:
    return [dimension.source for dimension in (await limiter.peek(POOL)).dimensions]


async def limits(limiter: Limiter) -> list[float | None]:
    said = [dimension.limit for dimension in (await limiter.peek(POOL)).dimensions]
    return [None if limit is None else round(limit, 3) for limit in said]


async def test_probed_limits_are_in_force_at_once(limiter: Limiter) -> None:
    await limiter.teach(POOL, Ceilings(1000, 450_000, 90_000))
    assert await limits(limiter) == [1000, 450_000, 90_000]
    assert await sources(limiter) == [PROBED] * 3


async def test_what_a_probe_does_not_say_stays_as_it_was(limiter: Limiter) -> None:
    await limiter.teach(POOL, Ceilings(requests=1000))
    assert await limits(limiter) == [1000, 30_000, 8_000]
    assert await sources(limiter) == [PROBED, DEFAULT, DEFAULT]


async def test_a_probe_that_says_no_limit_makes_a_dimension_unlimited(limiter: Limiter) -> None:
    await limiter.teach(POOL, Ceilings(1000, 0, 90_000))
    assert await limits(limiter) == [1000, None, 90_000]
    assert await sources(limiter) == [PROBED, NONE, PROBED]


async def test_a_header_that_says_another_number_takes_over(limiter: Limiter) -> None:
    await limiter.teach(POOL, Ceilings(60_000, 450_000, 0))
    await answer(limiter, headers(60_000, 500_000, 90_000))
    assert await limits(limiter) == [60_000, 500_000, 90_000]
    assert await sources(limiter) == [PROBED, LEARNED, LEARNED]


async def test_a_probe_cannot_deny_a_limit_that_headers_state(limiter: Limiter) -> None:
    await answer(limiter, headers(60_000, 500_000, 90_000))
    await limiter.teach(POOL, Ceilings(60_000, 0, 80_000))
    assert await limits(limiter) == [60_000, 500_000, 80_000]
    assert await sources(limiter) == [LEARNED, LEARNED, PROBED]


async def test_a_probe_that_says_a_limit_after_none_is_believed(limiter: Limiter) -> None:
    await limiter.teach(POOL, Ceilings(0, 0, 0))
    assert await limits(limiter) == [None] * 3
    await limiter.teach(POOL, Ceilings(1000, None, 90_000))
    assert await limits(limiter) == [1000, None, 90_000]


async def test_a_configured_limit_is_a_ceiling_over_a_probed_one(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings(500, 900_000, 0))
    await limiter.teach(POOL, Ceilings(1000, 450_000, 90_000))
    assert await limits(limiter) == [500, 450_000, None]
    assert await sources(limiter) == [CONFIGURED, PROBED, NONE]


async def test_a_pool_that_is_forgotten_begins_as_one_that_nobody_has_used(limiter: Limiter) -> None:
    await answer(limiter, headers(60_000, 500_000, 90_000))

    assert await limiter.forget(POOL)

    assert await limits(limiter) == [50, 30_000, 8_000]
    assert await sources(limiter) == [DEFAULT] * 3
    assert not await limiter.forget(POOL)
    await answer(limiter, headers(1000, 50_000, 9_000))
    assert await limits(limiter) == [1000, 50_000, 9_000]


async def test_a_permit_from_before_it_was_forgotten_means_nothing_to_it(limiter: Limiter) -> None:
    await limiter.teach(POOL, Ceilings(60_000, 450_000, 90_000))
    before = await limiter.acquire(POOL, CALL, patience=30)
    await limiter.forget(POOL)
    during = await limiter.acquire(POOL, CALL, patience=30)

    await limiter.settle(before, Amounts(1, 5_000, 5_000))
    state = await limiter.peek(POOL)
    assert state.in_flight == 1
    assert state.dimensions[1].used_per_minute == CALL.input_tokens

    await limiter.settle(during, CALL)
    assert (await limiter.peek(POOL)).in_flight == 0


async def test_a_configured_limit_is_not_forgotten(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings(500, 900_000, 0))
    await limiter.teach(POOL, Ceilings(1000, 450_000, 90_000))
    await limiter.forget(POOL)
    assert await limits(limiter) == [500, 900_000, None]
    assert await sources(limiter) == [CONFIGURED, CONFIGURED, NONE]


async def test_teaching_makes_no_burst(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings(), Pacing())
    await answer(limiter, None)
    await limiter.teach(POOL, Ceilings(60_000, 60_000_000, 60_000_000))
    state = await limiter.peek(POOL)
    assert state.ramp == pytest.approx(0.2, abs=0.02)
    assert state.dimensions[1].capacity == pytest.approx(
        500_000
    )  # half a second's worth, until a header says more


async def test_a_dimension_that_headers_never_state_has_no_limit(limiter: Limiter) -> None:
    for _ in range(9):
        await answer(limiter, ONLY_REQUESTS)
    assert await sources(limiter) == [LEARNED, DEFAULT, DEFAULT]
    await answer(limiter, ONLY_REQUESTS)
    assert await limits(limiter) == [60_000, None, None]
    assert await sources(limiter) == [LEARNED, NONE, NONE]
    await answer(limiter, headers(60_000, 500_000, 90_000))
    assert await sources(limiter) == [LEARNED] * 3


async def test_a_dimension_that_was_stated_once_keeps_its_limit(limiter: Limiter) -> None:
    await answer(limiter, headers(60_000, 500_000, 90_000))
    for _ in range(12):
        await answer(limiter, ONLY_REQUESTS)
    assert await limits(limiter) == [60_000, 500_000, 90_000]


async def test_pools_are_listed_once_they_are_used(make_limiter: MakeLimiter) -> None:
    limiter, onlooker = make_limiter(), make_limiter()
    assert await onlooker.pools() == []
    await onlooker.peek(POOL)
    await onlooker.beat()
    assert await onlooker.pools() == []
    await limiter.acquire(POOL, CALL, patience=1)
    await limiter.teach(Pool("another", "group"), Ceilings(requests=50))
    assert await onlooker.pools() == [POOL, Pool("another", "group")]
    assert await limiter.pools() == await onlooker.pools()


async def test_a_late_answer_does_not_bring_an_old_limit_back(limiter: Limiter) -> None:
    await limiter.teach(POOL, Ceilings(60_000, 0, 0))
    async with limiter.permit(POOL, CALL, patience=30) as long_one:
        await answer(limiter, headers(42_000, 0, 0))
        long_one.used(CALL, headers(60_000, 0, 0))
    assert await limits(limiter) == [42_000, None, None]
    await answer(limiter, headers(60_000, 0, 0))
    assert await limits(limiter) == [60_000, None, None]


async def test_a_limit_that_falls_and_rises_again_keeps_the_pace(limiter: Limiter) -> None:
    await limiter.teach(POOL, Ceilings(60_000, 450_000, 90_000))
    before = (await limiter.peek(POOL))[Dimension.REQUESTS].pace
    for factor in (0.7, 1.0, 0.7, 1.0):
        await answer(limiter, headers(60_000 * factor, 450_000 * factor, 90_000 * factor))
    after = (await limiter.peek(POOL))[Dimension.REQUESTS].pace
    assert after == pytest.approx(before, rel=0.02)
