"""Counters that never go back, made of sums that may: a purge takes batches out of the database with what they count.

The idea: of each counter it is kept what its sum was last, and what lies beneath it, of sums that went back before. A
counter is the two together. They are kept in Redis, so that several who show metrics, and one that was restarted,
show the same; what one has in memory is put back where Redis was lost.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from promptmill.routes import COUNTERS

if TYPE_CHECKING:
    from redis import Redis

TRIES: Final = 3
"""How often another's look may come between, before this one keeps nothing."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one counter."""

    last: int
    beneath: int = 0

    @property
    def value(self) -> int:
        """What is shown."""
        return self.last + self.beneath

    def after(self, now: int) -> "Kept":
        """The same once its sum is `now`; what a sum has lost is carried on beneath it."""
        return Kept(now, self.beneath + max(0, self.last - now))


Sums = Mapping[str, int]


def carried(before: Mapping[str, Kept], now: Sums) -> dict[str, Kept]:
    """Every counter after a look; one whose sum is gone stays where it is."""
    names = before.keys() | now.keys()
    return {name: before.get(name, Kept(0)).after(now.get(name, 0)) for name in sorted(names)}


class Ascending:
    """The counters of one process that shows metrics; not for several threads at once."""

    def __init__(self) -> None:
        self._known: dict[str, Kept] | None = None

    def look(self, redis: "Redis | None", look: Callable[[], Sums]) -> dict[str, int] | None:
        """The counters now. `look` asks for the sums, more than once where somebody else looks at the same time.

        None while Redis cannot be asked what they were: they might seem to go back.
        """
        from redis.exceptions import RedisError  # noqa: PLC0415  # 0.25 s that most commands do not need

        try:
            found = None if redis is None else self._shared(redis, look)
        except RedisError:
            found = None
        if found is None:
            if self._known is None:
                return None
            found = carried(self._known, look())
        self._known = found
        return {name: kept.value for name, kept in found.items()}

    def _shared(self, redis: "Redis", look: Callable[[], Sums]) -> dict[str, Kept]:
        from redis.exceptions import WatchError  # noqa: PLC0415  # likewise

        found: dict[str, Kept] = {}
        for _ in range(TRIES):
            with redis.pipeline() as pipe:
                pipe.watch(COUNTERS)  # type: ignore[no-untyped-call]  # redis-py leaves it bare
                # Asked after the watch began: a sum that seems smaller than what is kept is not merely an older one.
                told: Any = pipe.hgetall(COUNTERS)
                kept = {name.decode(): _parsed(text) for name, text in told.items()}
                found = carried({**(self._known or {}), **kept}, look())
                changed: dict[Any, Any] = {
                    name: _written(each) for name, each in found.items() if kept.get(name) != each
                }
                if not changed:
                    return found
                pipe.multi()
                pipe.hset(COUNTERS, mapping=changed)
                try:
                    pipe.execute()
                except WatchError:
                    continue
                return found
        return found


def _parsed(text: bytes) -> Kept:
    last, beneath = text.split()
    return Kept(int(last), int(beneath))


def _written(kept: Kept) -> str:
    return f"{kept.last} {kept.beneath}"
