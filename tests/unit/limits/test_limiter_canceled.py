"""A call that is canceled while its question is on the way: the permit that comes for it is given back."""

import asyncio
from collections.abc import Sequence
from typing import Any

from promptmill.dimensions import Amounts
from promptmill.limits import Ceilings, LocalLimiter, Pool
from promptmill.limits.desk import Answer, Ask, Desk

POOL = Pool("account", "group")
CALL = Amounts(1, 100, 20)


class Far:
    """A desk whose answers are long on the way."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.asked, self.arrives = asyncio.Event(), asyncio.Event()

    async def acquire(self, asks: Sequence[Ask]) -> Answer:
        answer = await self._desk.acquire(asks)
        self.asked.set()
        await self.arrives.wait()
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._desk, name)


class FarLimiter(LocalLimiter):
    far: Far

    def _open_desk(self, pool: Pool) -> Desk:
        self.far = Far(super()._open_desk(pool))
        return self.far


async def test_a_permit_for_a_call_that_was_canceled_meanwhile_is_given_back() -> None:
    limiter = FarLimiter(ceilings=lambda _pool: Ceilings(6000, 0, 0))
    call = asyncio.create_task(limiter.acquire(POOL, CALL, patience=60))
    while not hasattr(limiter, "far"):  # noqa: ASYNC110  # no event tells it
        await asyncio.sleep(0)
    await limiter.far.asked.wait()
    assert (await limiter.peek(POOL)).in_flight == 1
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    limiter.far.arrives.set()
    for _ in range(100):
        await asyncio.sleep(0)
    assert (await limiter.peek(POOL)).in_flight == 0
    await limiter.aclose()
