"""The one rate limiter, as the rest of Promptmill sees it.

A call waits before it is made, never after a 429: `acquire` a permit, make the call, `settle` the permit with
what was used. Everything that a server can say about its limits goes in through `settle` and `penalise`.
"""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from types import TracebackType
from typing import Literal, Protocol, Self

from promptmill.clock import Clock
from promptmill.dimensions import DIMENSIONS, Amounts, Dimension, Headroom
from promptmill.limits.acquirer import Acquirer
from promptmill.limits.desk import Desk, DeskUnavailable, Penalty, Release, Settlement
from promptmill.limits.permitted import REFUSED, Call
from promptmill.limits.policy import Ceilings, CeilingsOf, Pacing, Permit, Pool, check_size
from promptmill.limits.pool_state import PoolState, describe

BEAT_EVERY = 5.0
"""s between two heartbeats of a limiter that is used as a block."""

RETRY_AFTER_UNSAID = 1.0
"""s to pause after a 429 that does not say how long."""


class Limiter(Protocol):
    """What a limiter does; `RedisLimiter` for many processes, `LocalLimiter` for one."""

    async def acquire(self, pool: Pool, amounts: Amounts, *, patience: float) -> Permit:
        """Wait until a call may be made, and reserve what it needs in all dimensions at once.

        A permit counts at least one request. Raises RequestTooLarge when no waiting would help, and
        LimitReached when the permit would come later than `patience` seconds.
        """
        ...

    def permit(self, pool: Pool, amounts: Amounts, *, patience: float) -> AbstractAsyncContextManager[Call]:
        """Acquire for the length of a block, in which the `Call` is told what came of it; raises as `acquire`."""
        ...

    async def observe(self, permit: Permit, input_tokens: float | None, headroom: Headroom | None) -> None:
        """Report what is known when an answer begins, so that a long one does not hide it."""
        ...

    async def settle(self, permit: Permit, used: Amounts | None, headroom: Headroom | None = None) -> None:
        """Replace the reservation by what was used; None leaves the estimate charged. Idempotent.

        Input is what counts against the limit: uncached input and cache writes (claude-api.md, 5.1).
        The request itself was made and stays charged, whatever `used.requests` says. A call that used no token at
        all has failed: its tokens are given back, and nothing is learned from it.
        """
        ...

    async def release(self, permit: Permit) -> None:
        """Nothing was sent: give everything back."""
        ...

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
        """The server refused the call. A 429 pauses the pool for everybody, a 529 eases its pace.

        While every call meets a 529, the pool makes one in some seconds, and its `retry_after` pauses everybody.
        """
        ...

    async def peek(self, pool: Pool) -> PoolState:
        """The figures of a pool now. Raises DeskUnavailable when they cannot be read."""
        ...

    async def pools(self) -> list[Pool]:
        """Every pool that some process used within the last hour. Raises DeskUnavailable as `peek` does."""
        ...

    async def teach(self, pool: Pool, limits: Ceilings) -> None:
        """Take over limits per minute as the Rate Limits API states them: None is not said, 0 is no limit.

        They count as a header's limits do, until a header says another number. Raises DeskUnavailable.
        """
        ...

    async def forget(self, pool: Pool) -> bool:
        """Forget what was learned of a pool, so that its next call begins as the first did; whether anything was.

        Permits from before mean nothing to it any more. Raises DeskUnavailable.
        """
        ...

    async def beat(self) -> None:
        """Say that this process lives: every 5 s, or its permits are given up 20 s later.

        Not needed within `async with limiter`, which does it by itself.
        """
        ...

    async def aclose(self) -> None:
        """Turn the waiting away, deliver the last reports, let go of connections."""
        ...

    async def __aenter__(self) -> Self:
        """Beat by itself until the block ends, which closes the limiter."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop beating, and close."""
        ...


def new_process_id() -> str:
    """A short name that no other process has."""
    return secrets.token_hex(6)


class QueueingLimiter(ABC):
    """What both limiters share: an acquirer per pool in front of a desk."""

    def __init__(self, *, ceilings: CeilingsOf, pacing: Pacing, clock: Clock, process: str) -> None:
        self.process = process
        self._ceilings = ceilings
        self._pacing = pacing
        self._clock = clock
        self._desks: dict[Pool, Desk] = {}
        self._acquirers: dict[Pool, Acquirer] = {}
        self._headroom_at: dict[tuple[Pool, bool], float] = {}
        self._limits_said: dict[Pool, tuple[float | None, ...]] = {}
        self._beating: asyncio.Task[None] | None = None
        self._numbers = count(1)
        # A process name may come again after a restart; its permits must not.
        self._name = f"{process}-{secrets.token_hex(4)}"

    @abstractmethod
    def _open_desk(self, pool: Pool) -> Desk:
        """This process's access to the record of a pool."""

    async def acquire(self, pool: Pool, amounts: Amounts, *, patience: float) -> Permit:
        """Wait until a call may be made; see `Limiter.acquire`."""
        if amounts.requests < 1:
            amounts = Amounts(1.0, amounts.input_tokens, amounts.output_tokens)
        check_size(amounts, self._ceilings(pool))
        return await self._acquirer(pool).acquire(amounts, patience)

    @asynccontextmanager
    async def permit(self, pool: Pool, amounts: Amounts, *, patience: float) -> AsyncIterator[Call]:
        """Acquire for the length of a block; see `permitted` for what the block says."""
        call = Call(await self.acquire(pool, amounts, patience=patience))
        try:
            yield call
        finally:
            await call.tell(self)

    async def observe(self, permit: Permit, input_tokens: float | None, headroom: Headroom | None) -> None:
        """Report what is known when an answer begins."""
        used = None if input_tokens is None else Amounts(input_tokens=input_tokens)
        headroom = self._thinned(permit.pool, headroom, early=True)
        if used is None and headroom is None:
            return
        await self._desk(permit.pool).report(Settlement(permit.id, used, headroom, final=False))
        self._heed_limits(permit.pool, headroom)

    async def settle(self, permit: Permit, used: Amounts | None, headroom: Headroom | None = None) -> None:
        """Replace the reservation by what was used; see `Limiter.settle`."""
        headroom = self._thinned(permit.pool, headroom, early=False)
        await self._desk(permit.pool).report(Settlement(permit.id, used, headroom))
        self._heed_limits(permit.pool, headroom)

    async def release(self, permit: Permit) -> None:
        """Give everything back."""
        await self._desk(permit.pool).report(Release(permit.id))

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
        """Take in a refusal; see `Limiter.penalise`."""
        refused = status == REFUSED
        if refused:
            self._acquirer(permit.pool).refused()
        if retry_after is None:
            retry_after = RETRY_AFTER_UNSAID if refused else 0.0
        penalty = Penalty(
            permit=permit.id,
            generation=permit.generation,
            refused=refused,
            retry_after=retry_after,
            dimension=None if ramp else dimension,
            headroom=headroom,
        )
        await self._desk(permit.pool).report(penalty)

    async def peek(self, pool: Pool) -> PoolState:
        """The figures of a pool now."""
        record, now = await self._desk(pool).peek()
        waiting = self._acquirers[pool].waiting if pool in self._acquirers else 0
        return describe(record, pool, now, waiting, self._pacing)

    @abstractmethod
    async def pools(self) -> list[Pool]:
        """The pools used within the last hour."""

    async def teach(self, pool: Pool, limits: Ceilings) -> None:
        """Take over limits as the Rate Limits API states them; see `Limiter.teach`."""
        await self._desk(pool).teach(limits)
        self._nudge(pool)

    async def forget(self, pool: Pool) -> bool:
        """Forget what was learned of a pool; see `Limiter.forget`."""
        return await self._desk(pool).forget()

    async def beat(self) -> None:
        """Say that this process lives, in every pool it uses."""
        for desk in list(self._desks.values()):
            try:
                await desk.beat()
            except DeskUnavailable:
                continue  # permits outlive a Redis that is away: nobody can expire them either

    async def __aenter__(self) -> Self:
        """Beat by itself until the block ends."""
        self._beating = asyncio.create_task(self._keep_beating())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop beating, and close."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
            self._beating = None
        await self.aclose()

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(BEAT_EVERY)
            await self.beat()

    async def aclose(self) -> None:
        """Turn the waiting away, deliver the last reports."""
        for acquirer in self._acquirers.values():
            await acquirer.aclose()
        for desk in self._desks.values():
            await desk.aclose()

    def _desk(self, pool: Pool) -> Desk:
        if pool not in self._desks:
            self._desks[pool] = self._open_desk(pool)
        return self._desks[pool]

    def _acquirer(self, pool: Pool) -> Acquirer:
        if pool not in self._acquirers:
            self._acquirers[pool] = Acquirer(
                pool,
                self._desk(pool),
                pacing=self._pacing,
                clock=self._clock,
                new_id=lambda: f"{self._name}-{next(self._numbers):x}",
            )
        return self._acquirers[pool]

    def _heed_limits(self, pool: Pool, headroom: Headroom | None) -> None:
        """Limits that a header states for the first time, or anew, may let the waiting start earlier."""
        if headroom is None:
            return
        said = tuple(headroom.limit(dimension) for dimension in DIMENSIONS)
        if said != self._limits_said.get(pool):
            self._limits_said[pool] = said
            self._nudge(pool)

    def _nudge(self, pool: Pool) -> None:
        if pool in self._acquirers:
            self._acquirers[pool].nudge()

    def _thinned(self, pool: Pool, headroom: Headroom | None, *, early: bool) -> Headroom | None:
        """A quarter of a second between two headers of a pool is as good as all of them.

        Those of the beginning of an answer are the newest there are, and few: those of its end never displace them.
        """
        now, gate = self._clock.monotonic(), (pool, early)
        passed = now - self._headroom_at.get(gate, float("-inf"))
        if headroom is None or passed < self._pacing.headroom_interval:
            return None
        self._headroom_at[gate] = now
        return headroom
