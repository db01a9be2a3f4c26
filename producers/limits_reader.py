"""What the shared limiter knows, asked by somebody who is no worker.

It starts nothing, grants nothing, and leaves no sign of itself among the processes that hold permits. Redis may come and go between two questions: each finds out anew where it is. One that does not answer is waited for
briefly, and left in peace for a while. The loop is on a thread of its own, so a caller may have one too.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from producers.redis_address import with_running_redis
from promptmill.broker import put_right
from promptmill.errors import PromptmillError, Unavailable
from promptmill.logs import scrub
from promptmill.runtime import Surroundings
from promptmill.settings import Settings

if TYPE_CHECKING:
    from promptmill.limits import Ceilings, Limiter, Pool, PoolState

T = TypeVar("T")

PATIENCE_S = 2.0
"""The longest a question takes."""
PAUSE_S = 5.0
"""From one that was not answered to the next that is asked."""
START_REDIS = "start it, or set PROMPTMILL_REDIS_URL to one that runs"
"""What to do about a Redis that is set and does not answer."""


def is_fault(silence: str | None, settings: Settings) -> bool:
    """Whether silence is something to be put right: somebody set a Redis, so it is meant to answer.

    An embedded one may be starting or ending just now.
    """
    return silence is not None and settings.redis_url is not None


class LimitsReader:
    """Asks the limiter now and then; close it at the end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._line: _Line | None = None
        self._silent_until = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()

    def states(self, groups: Collection[str] | None = None) -> "list[PoolState]":
        """The pools that were used lately, as they stand now; all, or those of some model groups.

        Raises:
            Unavailable: no Redis runs, or it does not answer; a sentence for people.
        """
        return self._ask(lambda limiter: _states(limiter, groups))

    def put_right(self) -> dict[str, int]:
        """What workers found wrong and put right, and how often; nothing while nobody can be asked."""
        url = with_running_redis(self._settings).redis_url
        try:
            return put_right(url) if url else {}
        except Unavailable:
            return {}

    def teach(self, limits: "Mapping[Pool, Ceilings]") -> None:
        """Tell the limiter limits per minute as the Rate Limits API states them.

        Raises:
            Unavailable: as `states`; some pools may have been told.
        """
        self._ask(lambda limiter: _teach(limiter, limits))

    def forget(self, pools: "Sequence[Pool]") -> "list[Pool]":
        """Forget what was learned of pools; those of which something was.

        Raises:
            Unavailable: as `states`; some pools may have been forgotten.
        """
        return self._ask(lambda limiter: _forget(limiter, pools))

    def _ask(self, question: "Callable[[Limiter], Coroutine[Any, Any, T]]") -> T:
        url = self._settings.redis_url
        silence = f"{'the embedded Redis' if url is None else f'the Redis at {scrub(url)}'} does not answer"
        if time.monotonic() < self._silent_until:
            raise Unavailable(silence)
        self._line = self._line or self._open()
        try:
            return self._line.ask(question)
        except (PromptmillError, OSError) as error:
            self._let_go()
            self._silent_until = time.monotonic() + PAUSE_S
            raise Unavailable(silence) from error

    def _open(self) -> "_Line":
        settings = with_running_redis(self._settings)
        if settings.redis_url is None:
            raise Unavailable("nothing runs in this data folder")
        return _Line(Surroundings(settings))

    def _let_go(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()


class _Line:
    """A limiter on a loop and a thread of its own. It is not entered as a block, so it never beats."""

    def __init__(self, runtime: Surroundings) -> None:
        self._runtime = runtime
        self._limiter: Limiter | None = None
        self._loop = asyncio.Runner()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="promptmill-looking")

    def ask(self, question: "Callable[[Limiter], Coroutine[Any, Any, T]]") -> T:
        return self._thread.submit(self._loop.run, self._put(question)).result()

    def close(self) -> None:
        with self._thread, suppress(PromptmillError, OSError):
            try:
                self._thread.submit(self._loop.run, self._hang_up()).result()
            finally:
                self._thread.submit(self._loop.close).result()

    async def _put(self, question: "Callable[[Limiter], Coroutine[Any, Any, T]]") -> T:
        self._limiter = self._limiter or self._runtime.limiter("looking")
        return await asyncio.wait_for(question(self._limiter), PATIENCE_S)

    async def _hang_up(self) -> None:
        if self._limiter is not None:
            await self._limiter.aclose()


async def _states(limiter: "Limiter", groups: Collection[str] | None) -> "list[PoolState]":
    wanted = [pool for pool in await limiter.pools() if groups is None or pool.group in groups]
    states = await asyncio.gather(*(limiter.peek(pool) for pool in wanted))
    return sorted(states, key=lambda state: (state.pool.group, state.pool.account))


async def _teach(limiter: "Limiter", limits: "Mapping[Pool, Ceilings]") -> None:
    for pool, ceilings in limits.items():
        await limiter.teach(pool, ceilings)


async def _forget(limiter: "Limiter", pools: "Sequence[Pool]") -> "list[Pool]":
    return [pool for pool in pools if await limiter.forget(pool)]
