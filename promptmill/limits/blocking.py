"""The limiter for programs of plain functions and threads.

A limiter lives on an event loop; here the loop is one daemon thread of its own, and every method waits for it.
Any number of threads may share one `BlockingLimiter`. Open it after a fork, not before: threads do not survive it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from types import TracebackType
from typing import Any, Self, TypeVar

from promptmill.dimensions import Amounts
from promptmill.limits.limiter import Limiter
from promptmill.limits.permitted import Call
from promptmill.limits.policy import Ceilings, Permit, Pool
from promptmill.limits.pool_state import PoolState

_Result = TypeVar("_Result")


class BlockingLimiter:
    """A limiter whose methods wait instead of being awaited.

        with BlockingLimiter(lambda: RedisLimiter(url)) as limiter:
            with limiter.permit(pool, amounts, patience=60) as call:
                ...

    Args:
        open: makes the limiter, on the loop it will live on.
    """

    def __init__(self, open: Callable[[], Limiter]) -> None:  # noqa: A002  # a verb here; nothing is read from files
        self._open = open
        self._loop: asyncio.AbstractEventLoop
        self._thread: Thread
        self._limiter: Limiter | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="promptmill-limiter", daemon=True)
        self._thread.start()
        try:
            self._limiter = self._run(self._begin())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(self._ready().__aexit__(kind, error, trace))
        finally:
            self._limiter = None
            self._stop()

    @contextmanager
    def permit(self, pool: Pool, amounts: Amounts, *, patience: float) -> Iterator[Call]:
        """Wait for a permit and hold it for the block; see `Limiter.permit`.

        Raises:
            RequestTooLarge: no waiting would help.
            LimitReached: the permit would come later than `patience` seconds.
        """
        limiter = self._ready()
        call = Call(self._acquire(limiter, pool, amounts, patience))
        try:
            yield call
        finally:
            self._submit(call.tell(limiter)).result()  # a Ctrl-C here does not take the report back

    def peek(self, pool: Pool) -> PoolState:
        """The figures of a pool now; see `Limiter.peek`."""
        return self._run(self._ready().peek(pool))

    def pools(self) -> list[Pool]:
        """Every pool used lately; see `Limiter.pools`."""
        return self._run(self._ready().pools())

    def teach(self, pool: Pool, limits: Ceilings) -> None:
        """Take over limits as the Rate Limits API states them; see `Limiter.teach`."""
        self._run(self._ready().teach(pool, limits))

    def _acquire(self, limiter: Limiter, pool: Pool, amounts: Amounts, patience: float) -> Permit:
        future = self._submit(limiter.acquire(pool, amounts, patience=patience))
        try:
            return future.result()
        except BaseException:
            # Ctrl-C between the grant and this line: nobody will make the call.
            if not future.cancel() and future.exception() is None:
                self._submit(limiter.release(future.result()))
            raise

    async def _begin(self) -> Limiter:
        return await self._open().__aenter__()

    def _ready(self) -> Limiter:
        if self._limiter is None:
            raise RuntimeError("a BlockingLimiter works within its `with` block")
        return self._limiter

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        future = self._submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _submit(self, work: Coroutine[Any, Any, _Result]) -> "Future[_Result]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
