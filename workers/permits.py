"""Permits of this process that nobody holds any more: found by asking who still works, and given back.

The idea: a permit belongs to the task that acquired it. One whose task has ended without a report is leaked. One
that Redis keeps for us and we never heard of was granted in an answer that got lost.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from promptmill.dimensions import Amounts, Dimension, Headroom
from promptmill.limits import Permit, Pool, RedisLimiter


@dataclass(frozen=True, slots=True)
class _Holding:
    permit: Permit
    holder: "asyncio.Task[Any] | None"


class WatchedLimiter(RedisLimiter):
    """The shared limiter, which remembers who of this process holds which permit. For tasks that settle their own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._holdings: dict[str, _Holding] = {}
        self._unheard: set[str] = set()
        self.pools_used: set[Pool] = set()

    async def acquire(self, pool: Pool, amounts: Amounts, *, patience: float) -> Permit:
        """See `Limiter.acquire`."""
        self.pools_used.add(pool)
        permit = await super().acquire(pool, amounts, patience=patience)
        self._holdings[permit.id] = _Holding(permit, asyncio.current_task())
        return permit

    async def settle(self, permit: Permit, used: Amounts | None, headroom: Headroom | None = None) -> None:
        """See `Limiter.settle`."""
        self._holdings.pop(permit.id, None)
        await super().settle(permit, used, headroom)

    async def release(self, permit: Permit) -> None:
        """See `Limiter.release`."""
        self._holdings.pop(permit.id, None)
        await super().release(permit)

    async def penalise(
        self,
        permit: Permit,
        *,
        status: Literal[429, 529],
        retry_after: float | None,
        dimension: Dimension | None = None,
        ramp: bool = False,
        headroom: Headroom | None = None,
    ) -> None:
        """See `Limiter.penalise`."""
        self._holdings.pop(permit.id, None)
        await super().penalise(
            permit, status=status, retry_after=retry_after, dimension=dimension, ramp=ramp, headroom=headroom
        )

    async def settle_leaked(self) -> int:
        """Settle what ended tasks left behind, fully charged, because their calls may have been made; how many."""
        leaked = [each.permit for each in self._holdings.values() if each.holder and each.holder.done()]
        for permit in leaked:
            await self.settle(permit, None)
        return len(leaked)

    async def release_unheard(self, kept: dict[Pool, set[str]]) -> int:
        """Give back what the record keeps for this process and nobody here has heard of, twice in a row; how many.

        Args:
            kept: the ids of our permits in the record, pool by pool. Twice, because a permit is kept there
                a moment before its task has it, and a report takes a moment to arrive.
        """
        unheard = {each: pool for pool, ids in kept.items() for each in ids if each not in self._holdings}
        again = self._unheard & unheard.keys()
        self._unheard = unheard.keys() - again
        for each in again:
            await super().release(Permit(each, unheard[each], Amounts(1.0, 0.0, 0.0), 0.0, 0))
        return len(again)
