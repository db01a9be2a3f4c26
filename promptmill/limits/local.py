"""The limiter within one process: for tests, for programs without a queue, and as the model of the scripts.

Several `LocalLimiter`s may share one `LocalPools`; each then acts as a process of its own.
"""

from collections.abc import Callable, Sequence

from promptmill.clock import Clock, SystemClock
from promptmill.limits.desk import Answer, Ask, Desk, Pulse, Report
from promptmill.limits.limiter import QueueingLimiter, new_process_id
from promptmill.limits.mirror import Mirror
from promptmill.limits.policy import LATELY, Ceilings, CeilingsOf, Pacing, Pool, learn_everything
from promptmill.limits.records import PoolRecord, fresh_record


class LocalPools:
    """The records of all pools, held in memory."""

    def __init__(self) -> None:
        self._mirrors: dict[Pool, Mirror] = {}
        self._used_at: dict[Pool, float] = {}

    def mirror(self, pool: Pool, now: float, ceilings: Ceilings, pacing: Pacing) -> Mirror:
        """The record of a pool, begun now if there is none."""
        if pool not in self._mirrors:
            self._mirrors[pool] = Mirror.fresh(now, ceilings, pacing)
        return self._mirrors[pool]

    def known(self, pool: Pool) -> Mirror | None:
        """The record of a pool, if there is one."""
        return self._mirrors.get(pool)

    def register(self, pool: Pool, now: float) -> None:
        """Note that a pool is in use."""
        self._used_at[pool] = now

    def used_lately(self, now: float) -> list[Pool]:
        """The pools in use within the last hour."""
        used = [pool for pool, moment in self._used_at.items() if moment >= now - LATELY]
        return sorted(used, key=lambda pool: pool.tag)

    def drop(self, pool: Pool) -> bool:
        """Lose the record of one pool, with its permits; whether there was one."""
        return self._mirrors.pop(pool, None) is not None

    def forget(self) -> None:
        """Lose everything, as a Redis that restarts empty does."""
        self._mirrors.clear()
        self._used_at.clear()


class LocalDesk:
    """One process's desk at a pool of `LocalPools`."""

    def __init__(
        self,
        pools: LocalPools,
        pool: Pool,
        *,
        process: str,
        ceilings: Callable[[], Ceilings],
        pacing: Pacing,
        now: Callable[[], float],
    ) -> None:
        self._pools = pools
        self._pool = pool
        self._process = process
        self._ceilings = ceilings
        self._pacing = pacing
        self._now = now
        self._used = False

    def _mirror(self) -> tuple[Mirror, float]:
        now = self._now()
        return self._pools.mirror(self._pool, now, self._ceilings(), self._pacing), now

    async def acquire(self, asks: Sequence[Ask]) -> Answer:
        """Grant a prefix of the asks."""
        mirror, now = self._mirror()
        self._register(now)
        return mirror.acquire(self._process, asks, self._ceilings(), now)

    async def confirm(self) -> Pulse:
        """Whether permits still hold."""
        mirror, now = self._mirror()
        return mirror.pulse(now)

    async def report(self, report: Report) -> None:
        """Take in what became of a permit."""
        mirror, now = self._mirror()
        mirror.report(self._process, report, now)

    async def teach(self, limits: Ceilings) -> None:
        """Take over limits as the Rate Limits API states them."""
        mirror, now = self._mirror()
        mirror.teach(limits, now)
        self._register(now)

    async def forget(self) -> bool:
        """Forget the record; whether there was one."""
        return self._pools.drop(self._pool)

    async def peek(self) -> tuple[PoolRecord, float]:
        """The record as it is; a fresh one where nobody has used the pool."""
        now = self._now()
        mirror = self._pools.known(self._pool)
        if mirror is None:
            return fresh_record(now, self._ceilings(), self._pacing), now
        return mirror.record, now

    async def beat(self) -> None:
        """Note that this process lives, and give up the permits of those that do not."""
        mirror, now = self._mirror()
        for process in mirror.beat(self._process, now):
            mirror.expire(process, now)
        if self._used:
            self._register(now)

    def _register(self, now: float) -> None:
        self._used = True
        self._pools.register(self._pool, now)

    async def aclose(self) -> None:
        """Nothing is kept."""


class LocalLimiter(QueueingLimiter):
    """A limiter for one process; see `Limiter` for its methods.

    Args:
        ceilings: the configured limits of a pool; by default everything is learned.
        clock: what time it is, and how to wait.
        pools: shared with other limiters that act as other processes.
    """

    def __init__(
        self,
        *,
        ceilings: CeilingsOf = learn_everything,
        pacing: Pacing | None = None,
        clock: Clock | None = None,
        pools: LocalPools | None = None,
        process: str | None = None,
    ) -> None:
        super().__init__(
            ceilings=ceilings,
            pacing=pacing or Pacing(),
            clock=clock or SystemClock(),
            process=process or new_process_id(),
        )
        self._pools = pools or LocalPools()

    async def pools(self) -> list[Pool]:
        """The pools used within the last hour."""
        return self._pools.used_lately(self._clock.monotonic())

    def _open_desk(self, pool: Pool) -> Desk:
        return LocalDesk(
            self._pools,
            pool,
            process=self.process,
            ceilings=lambda: self._ceilings(pool),
            pacing=self._pacing,
            now=self._clock.monotonic,
        )
