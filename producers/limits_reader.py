"""What the shared limiter knows, asked by somebody who is no worker. It starts nothing and grants nothing.

Redis may come and go between two questions: each finds out anew where it is.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Self, TypeVar

from producers.redis_address import with_running_redis
from promptmill.errors import PromptmillError, Unavailable
from promptmill.logs import scrub
from promptmill.runtime import Runtime
from promptmill.settings import Settings

if TYPE_CHECKING:
    from promptmill.limits import BlockingLimiter, Ceilings, Pool, PoolState

T = TypeVar("T")


class LimitsReader:
    """Asks the limiter now and then; close it at the end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limiter: BlockingLimiter | None = None

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

    def teach(self, limits: "Mapping[Pool, Ceilings]") -> None:
        """Tell the limiter limits per minute as the Rate Limits API states them.

        Raises:
            Unavailable: as `states`; some pools may have been told.
        """
        self._ask(lambda limiter: _teach(limiter, limits))

    def _ask(self, question: "Callable[[BlockingLimiter], T]") -> T:
        limiter = self._limiter or self._open()
        try:
            return question(limiter)
        except (PromptmillError, OSError) as error:
            self._let_go()
            url = self._settings.redis_url
            where = "the embedded Redis" if url is None else f"the Redis at {scrub(url)}"
            raise Unavailable(f"{where} does not answer") from error

    def _open(self) -> "BlockingLimiter":
        from promptmill.limits import BlockingLimiter  # noqa: PLC0415  # 0.3 s that are not needed without a Redis

        settings = with_running_redis(self._settings)
        if settings.redis_url is None:
            raise Unavailable("nothing runs in this data folder")
        runtime = Runtime(settings, database=None)  # type: ignore[arg-type]  # asks no database
        self._limiter = BlockingLimiter(lambda: runtime.limiter("looking")).__enter__()
        return self._limiter

    def _let_go(self) -> None:
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            with suppress(PromptmillError, OSError):
                limiter.__exit__(None, None, None)


def _states(limiter: "BlockingLimiter", groups: Collection[str] | None) -> "list[PoolState]":
    states = [limiter.peek(pool) for pool in limiter.pools() if groups is None or pool.group in groups]
    return sorted(states, key=lambda state: (state.pool.group, state.pool.account))


def _teach(limiter: "BlockingLimiter", limits: "Mapping[Pool, Ceilings]") -> None:
    for pool, ceilings in limits.items():
        limiter.teach(pool, ceilings)
