"""The limiter for programs of plain functions and threads.

A limiter lives on an event loop; here the loop is one daemon thread of its own, and every method waits for it.
Any number of threads may share one `BlockingLimiter`. Open it after a fork, not before: threads do not survive it.
Nothing is left on the loop when it stops, for a thread that waits for it would wait for ever.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Self, TypeVar

from promptmill.dimensions import Amounts
from promptmill.errors import LimitReached
from promptmill.limits.limiter import Limiter
from promptmill.limits.permitted import Call
from promptmill.limits.policy import Ceilings, Permit, Pool
from promptmill.limits.pool_state import PoolState

_Result = TypeVar("_Result")

_CLOSED = "a BlockingLimiter works within its `with` block"


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
        self._stopped = True
        self._submitting = Lock()
        self._acquiring: set[asyncio.Task[Any]] = set()  # touched on the loop only

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="promptmill-limiter", daemon=True)
        self._thread.start()
        self._stopped = False
        try:
            self._limiter = self._run(self._begin())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        limiter, self._limiter = self._ready(), None
        try:
            self._run(self._end(limiter, kind, error, trace))
        finally:
            self._stop()

    @contextmanager
    def permit(self, pool: Pool, amounts: Amounts, *, patience: float) -> Iterator[Call]:
        """Wait for a permit and hold it for the block; see `Limiter.permit`.

        Raises:
            RequestTooLarge: no waiting would help.
            LimitReached: the permit would come later than `patience` seconds, or another thread closed the limiter.
        """
        limiter, granted = self._ready(), list[Permit]()
        call: Call | None = None
        try:
            call = Call(self._acquire(limiter, pool, amounts, patience, granted))
            yield call
        finally:
            if call is not None:
                self._submit(call.tell(limiter)).result()  # a Ctrl-C here does not take the report back
            else:
                # Ctrl-C may come in any moment up to the call: what was granted by then is given back.
                with suppress(RuntimeError):
                    self._submit(_give_back(limiter, granted))

    def peek(self, pool: Pool) -> PoolState:
        """The figures of a pool now; see `Limiter.peek`."""
        return self._run(self._ready().peek(pool))

    def pools(self) -> list[Pool]:
        """Every pool used lately; see `Limiter.pools`."""
        return self._run(self._ready().pools())

    def teach(self, pool: Pool, limits: Ceilings) -> None:
        """Take over limits as the Rate Limits API states them; see `Limiter.teach`."""
        self._run(self._ready().teach(pool, limits))

    def forget(self, pool: Pool) -> bool:
        """Forget what was learned of a pool; see `Limiter.forget`."""
        return self._run(self._ready().forget(pool))

    def _acquire(
        self, limiter: Limiter, pool: Pool, amounts: Amounts, patience: float, granted: list[Permit]
    ) -> Permit:
        future = self._submit(self._wait(lambda: limiter.acquire(pool, amounts, patience=patience), granted))
        try:
            return future.result()
        except CancelledError:
            raise LimitReached("the limiter is closed") from None
        except BaseException:
            future.cancel()
            raise

    async def _wait(
        self, acquire: Callable[[], Coroutine[Any, Any, Permit]], granted: list[Permit]
    ) -> Permit:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine always runs in one
        self._acquiring.add(task)
        try:
            granted.append(await acquire())
        finally:
            self._acquiring.discard(task)
        return granted[0]

    async def _begin(self) -> Limiter:
        return await self._open().__aenter__()

    async def _end(self, limiter: Limiter, *why: Any) -> None:
        """Turn the waiting away while their permits can still be given back, then close."""
        await _cancel(self._acquiring)
        await limiter.__aexit__(*why)

    def _ready(self) -> Limiter:
        if self._limiter is None:
            raise RuntimeError(_CLOSED)
        return self._limiter

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        future = self._submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _submit(self, work: Coroutine[Any, Any, _Result]) -> "Future[_Result]":
        with self._submitting:
            if not self._stopped:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise RuntimeError(_CLOSED)

    def _stop(self) -> None:
        with self._submitting:
            self._stopped = True
        asyncio.run_coroutine_threadsafe(_clear(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _give_back(limiter: Limiter, permits: Iterable[Permit]) -> None:
    for permit in permits:
        await limiter.release(permit)


async def _clear() -> None:
    """Cancel whatever is still on this loop, and what that leaves behind."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await _cancel(others)


async def _cancel(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    canceled = list(tasks)
    for task in canceled:
        task.cancel()
    await asyncio.gather(*canceled, return_exceptions=True)
