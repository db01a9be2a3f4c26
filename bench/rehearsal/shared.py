"""The limiters of several processes over one record, as if that lay in a Redis.

The record has a clock of its own, like Redis; a question takes a round trip. It can be away, when questions
fail and reports are kept, and it can lose everything. A process that died is not heard of again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.rehearsal.virtual import LoopClock
from promptmill.limits import Ceilings, LocalLimiter, LocalPools, Pool
from promptmill.limits.desk import Answer, Ask, Desk, DeskUnavailable, Pulse, Report
from promptmill.limits.local import LocalDesk
from promptmill.limits.policy import CeilingsOf
from promptmill.limits.records import PoolRecord

ROUND_TRIP_S = 0.0008


@dataclass(slots=True)
class Shared:
    """What all processes share."""

    pools: LocalPools = field(default_factory=LocalPools)
    away: bool = False
    kept: list[tuple[Desk, Report]] = field(default_factory=list)

    async def lose(self, after: float, seconds: float) -> None:
        """Be away from a moment on, and come back empty."""
        await asyncio.sleep(after)
        self.away = True
        await asyncio.sleep(seconds)
        self.pools.forget()
        self.away = False
        kept, self.kept = self.kept, []
        for desk, report in kept:
            await desk.report(report)


class SharedDesk:
    """One process's access to the shared record."""

    def __init__(self, shared: Shared, desk: LocalDesk) -> None:
        self._shared = shared
        self._desk = desk
        self.dead = False

    async def _reach(self) -> None:
        await asyncio.sleep(ROUND_TRIP_S)
        if self.dead:
            await asyncio.get_running_loop().create_future()
        if self._shared.away:
            raise DeskUnavailable("away")

    async def acquire(self, asks: Sequence[Ask]) -> Answer:
        """Grant a prefix of the asks."""
        await self._reach()
        return await self._desk.acquire(asks)

    async def confirm(self) -> Pulse:
        """Whether permits still hold."""
        await self._reach()
        return await self._desk.confirm()

    async def report(self, report: Report) -> None:
        """Take in what became of a permit, now or when the record is back."""
        if self._shared.away:
            self._shared.kept.append((self, report))
        elif not self.dead:
            await self._desk.report(report)

    async def teach(self, limits: Ceilings) -> None:
        """Take over limits as a probe states them."""
        await self._desk.teach(limits)

    async def peek(self) -> tuple[PoolRecord, float]:
        """The record as it is."""
        return await self._desk.peek()

    async def beat(self) -> None:
        """Note that this process lives."""
        await self._reach()
        await self._desk.beat()

    async def aclose(self) -> None:
        """Nothing is kept here."""


class SharingLimiter(LocalLimiter):
    """A process's limiter; its own clock may be wrong, the record's is not."""

    def __init__(self, shared: Shared, *, ceilings: CeilingsOf, process: str, skew: float = 0.0) -> None:
        super().__init__(ceilings=ceilings, clock=LoopClock(skew), pools=shared.pools, process=process)
        self._shared = shared

    def _open_desk(self, pool: Pool) -> Desk:
        desk = LocalDesk(
            self._shared.pools,
            pool,
            process=self.process,
            ceilings=lambda: self._ceilings(pool),
            pacing=self._pacing,
            now=asyncio.get_running_loop().time,
        )
        return SharedDesk(self._shared, desk)

    def die(self) -> None:
        """Say nothing any more."""
        for desk in self._desks.values():
            if isinstance(desk, SharedDesk):
                desk.dead = True
