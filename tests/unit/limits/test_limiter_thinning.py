"""Which headers reach the record when there are more than it needs."""

import asyncio
from collections.abc import Callable
from typing import Any

from bench.rehearsal.virtual import LoopClock
from promptmill.dimensions import Amounts, Dimension, Headroom
from promptmill.limits import Ceilings, LocalLimiter, Pacing, Permit, Pool

POOL = Pool("account", "group")
CALL = Amounts(1, 100, 20)
LATE = Headroom(requests_remaining=9_000)


def saying(limit: float) -> Headroom:
    return Headroom(requests_limit=limit, requests_remaining=9_000)


def test_the_headers_of_a_beginning_are_taken_among_a_hundred_ends_a_second(
    virtually: Callable[..., Any], loop_clock: LoopClock
) -> None:
    async def traffic() -> list[float | None]:
        limiter = LocalLimiter(
            ceilings=lambda _: Ceilings(None, 0, 0), pacing=Pacing(ramp_start=1.0), clock=loop_clock
        )
        first = await limiter.acquire(POOL, CALL, patience=60)
        await limiter.settle(first, CALL, saying(10_000))
        taken = []
        for second in range(1, 11):
            scout = await limiter.acquire(POOL, CALL, patience=60)
            await answers(limiter, 70)
            await limiter.observe(scout, 100, saying(10_000 + second))
            taken.append((await limiter.peek(POOL))[Dimension.REQUESTS].limit)
            await answers(limiter, 30)
        return taken

    assert virtually(traffic()) == [10_000 + second for second in range(1, 11)]


async def answers(limiter: LocalLimiter, count: int) -> None:
    """So many plain calls end, one every hundredth of a second."""
    for _ in range(count):
        permit: Permit = await limiter.acquire(POOL, CALL, patience=60)
        await asyncio.sleep(0.01)
        await limiter.settle(permit, CALL, LATE)
