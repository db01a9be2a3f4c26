"""The limiter that any number of processes share: its records lie in Redis, on Redis's own clock.

Redis gone: nobody is granted anything, reports wait. Redis restarted empty: every pool begins as an unknown
one, gently; permits of the time before mean nothing to it.
"""

from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from promptmill.clock import Clock, SystemClock
from promptmill.limits.desk import Desk, DeskUnavailable
from promptmill.limits.limiter import QueueingLimiter, new_process_id
from promptmill.limits.policy import CeilingsOf, Pacing, Pool, learn_everything
from promptmill.limits.redis_desk import RedisDesk
from promptmill.limits.scripts import list_pools, read_pools
from promptmill.limits.wire import Wire


class RedisLimiter(QueueingLimiter):
    """A limiter for many processes; see `Limiter` for its methods. One per event loop.

    Args:
        redis: where the records lie. A URL opens connections of its own, which `aclose` closes; a client
            stays the caller's.
        ceilings: the configured limits of a pool; by default everything is learned.
        process: this process's name among the others, without spaces.
        now: moments to use instead of Redis's clock; for tests.
    """

    def __init__(
        self,
        redis: "Redis | str",
        *,
        ceilings: CeilingsOf = learn_everything,
        pacing: Pacing | None = None,
        clock: Clock | None = None,
        process: str | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(
            ceilings=ceilings,
            pacing=pacing or Pacing(),
            clock=clock or SystemClock(),
            process=process or new_process_id(),
        )
        self._wire = Wire(redis, self._pacing)
        self._now = now

    def _open_desk(self, pool: Pool) -> Desk:
        return RedisDesk(
            self._wire,
            pool,
            process=self.process,
            ceilings=lambda: self._ceilings(pool),
            pacing=self._pacing,
            now=self._now,
        )

    async def pools(self) -> list[Pool]:
        """The pools that any process used within the last hour; see `Limiter.pools`."""
        (reply,) = await self._wire.run([list_pools(self._now() if self._now else None)])
        if isinstance(reply, ResponseError):
            raise DeskUnavailable("Redis refused the script pools") from reply
        return read_pools(reply)

    async def aclose(self) -> None:
        """Turn the waiting away, deliver the last reports, let go of connections."""
        await super().aclose()
        await self._wire.aclose()
