"""Which ids each worker has in hand, told in Redis every few seconds: what nobody has, and no queue, is lost.

The idea: an id leaves the queue only into somebody's hands. Whoever then tells what he has, later than it was seen to be
gone from the queue, and does not name it, has not got it. The times are all Redis's.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from redis import Redis
from redis.exceptions import RedisError

from promptmill.errors import Unavailable
from promptmill.routes import IN_HAND

KEPT_S = 60
UPTAKE_S = 1.0
"""Seconds from when a message leaves the queue until its job is on hand: one turn of the consumer's loop, which takes
at most `workers.transport.AT_ONCE` at a time. Later is no harm: a job sent out twice begins once, by its dispatch."""


@dataclass(frozen=True, slots=True)
class InHand:
    """What one worker had in hand at a moment; `at` is seconds by Redis's clock."""

    at: float
    ids: frozenset[str]

    @classmethod
    def parsed(cls, told: bytes) -> Self:
        """From what was told."""
        words = json.loads(told)
        return cls(words["at"], frozenset(words["ids"]))


@dataclass(frozen=True, slots=True)
class Hands:
    """The hands of all workers."""

    redis: "Redis"

    def tell(self, worker_id: str, in_hand: InHand) -> None:
        """What this worker has in hand; to be looked at after the time was taken.

        Raises:
            Unavailable: Redis is away.
        """
        told = json.dumps({"at": in_hand.at, "ids": sorted(in_hand.ids)})
        try:
            self.redis.set(IN_HAND + worker_id, told, ex=KEPT_S)
        except RedisError as error:
            raise _away(error) from error

    def now(self) -> float:
        """Seconds by Redis's clock.

        Raises:
            Unavailable: Redis is away.
        """
        try:
            seconds, micros = self.redis.time()
        except RedisError as error:
            raise _away(error) from error
        return float(seconds + micros / 1e6)

    def of(self, worker_ids: Collection[str]) -> Mapping[str, InHand | None]:
        """What these workers told last; None for those who have not told lately.

        Raises:
            Unavailable: Redis is away.
        """
        if not worker_ids:
            return {}
        try:
            told: Any = self.redis.mget([IN_HAND + each for each in worker_ids])
        except RedisError as error:
            raise _away(error) from error
        return {each: InHand.parsed(one) if one else None for each, one in zip(worker_ids, told, strict=True)}


def in_no_hand(job_id: str, gone_at: float, hands: Iterable[InHand | None], *, long_gone: bool) -> bool:
    """Whether an id that was seen to be gone from the queue at a moment is in nobody's hands.

    Every worker is asked: one that tells, by what it has told since; one that tells nothing has what is not `long_gone`.
    """
    return all(
        long_gone if each is None else each.at > gone_at + UPTAKE_S and job_id not in each.ids
        for each in hands
    )


def _away(error: RedisError) -> Unavailable:
    return Unavailable(f"Redis cannot be asked ({type(error).__name__})")
