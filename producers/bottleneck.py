"""What keeps a batch from going faster: a limit's dimension, the calls that may be in flight, or nothing.

The limiter is asked, whose functions are `async`; the loop for that is here, so that nobody else needs one.
"""

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from producers.redis_address import with_running_redis
from promptmill.errors import PromptmillError
from promptmill.runtime import Runtime
from promptmill.settings import Settings
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database

if TYPE_CHECKING:
    from promptmill.limits import Pool, PoolState, RedisLimiter

CONCURRENCY = "concurrency"

_NEARLY_ALL = 0.95
_KEEP_S = 1.0
"""Seconds for which an answer of the limiter is good enough."""
_PATIENCE_S = 2.0


class Bottleneck:
    """Asks the limiter now and then; silent, not broken, while Redis is away."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._runtime = Runtime(with_running_redis(settings), database)
        self._runner = asyncio.Runner()
        self._limiter: RedisLimiter | None = None
        self._asked_at = float("-inf")
        self._dimension: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._limiter is not None:
            with suppress(PromptmillError):
                self._runner.run(self._limiter.aclose())
        self._runner.close()

    def of(self, batch: BatchRow, *, waiting: int, running: int, slots: int) -> str | None:
        """What binds a batch.

        Args:
            batch: which.
            waiting: its jobs that could begin.
            running: its calls in flight.
            slots: calls that all its workers together can hold.
        """
        if not waiting:
            return None
        if slots and running >= _NEARLY_ALL * slots:
            return CONCURRENCY
        if self._runtime.settings.redis_url is None:
            return None
        if time.monotonic() - self._asked_at > _KEEP_S:
            self._dimension = self._ask(batch)
            self._asked_at = time.monotonic()
        return self._dimension

    def _ask(self, batch: BatchRow) -> str | None:
        try:
            state = self._runner.run(self._peek(batch.model))
        except (PromptmillError, TimeoutError):
            return None
        return state.binding()

    async def _peek(self, model: str) -> "PoolState":
        if self._limiter is None:
            self._limiter = self._runtime.limiter("status")
        async with asyncio.timeout(_PATIENCE_S):
            return await self._limiter.peek(self._pool(model))

    def _pool(self, model: str) -> "Pool":
        from promptmill.limits import Pool  # noqa: PLC0415  # not needed while there is no Redis

        accounts = self._runtime.keys().accounts()
        return Pool(accounts[0] if accounts else "default", self._runtime.catalogue.group_of(model))
