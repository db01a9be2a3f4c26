"""The metrics that Redis knows: what lies in the queue, and how workers fare."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from producers.metrics_database import Found, name_of
from promptmill import metrics
from promptmill.broker import queue_length
from promptmill.errors import Unavailable
from promptmill.routes import VITALS
from promptmill.settings import Settings
from promptmill.store.workers import WorkerRow

if TYPE_CHECKING:
    from redis import Redis


def of_redis(redis: "Redis | None", settings: Settings, workers: Sequence[WorkerRow]) -> Iterator[Found]:
    """What can be asked; nothing while Redis is away."""
    from redis.exceptions import RedisError  # noqa: PLC0415  # 0.25 s that most commands do not need

    if redis is None:
        return
    try:
        if settings.broker_url is None:
            yield metrics.QUEUE, (), queue_length(redis)
        yield from _of_workers(redis, workers)
    except (RedisError, Unavailable):
        return


def _of_workers(redis: "Redis", workers: Sequence[WorkerRow]) -> Iterator[Found]:
    if not workers:
        return
    told: Sequence[bytes | None] = redis.mget([VITALS + each.id for each in workers])  # type: ignore[assignment]  # the sync client's answer
    for worker, words in zip(workers, told, strict=True):
        if words is not None:
            vitals = json.loads(words)
            yield metrics.LOOP_LAG, (name_of(worker),), vitals["loop_lag_s"]
            yield metrics.MEMORY, (name_of(worker),), vitals["memory_bytes"]
