"""The metrics that Redis knows: what lies in the queue, how workers fare, how their keys stand, what was refused."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from producers.keys import merged
from producers.metrics_database import Found, name_of
from promptmill import metrics
from promptmill.broker import queue_length
from promptmill.errors import Unavailable
from promptmill.routes import KEY_STATES, MESSAGES_REFUSED, VITALS
from promptmill.settings import Settings
from promptmill.store.workers import WorkerRow

if TYPE_CHECKING:
    from redis import Redis

STANDINGS: Final = ("usable", "resting", "expired", "refused", "missing")
"""How a key may stand (`promptmill.claude.keys`): each has a series, also while there is no such key."""

RENEWED: Final = ("command", "provider")
"""Where short-lived tokens come from: they always expire soon, and are fetched again before they do."""


def of_redis(redis: "Redis | None", settings: Settings, workers: Sequence[WorkerRow]) -> Iterator[Found]:
    """What can be asked; nothing while Redis is away."""
    from redis.exceptions import RedisError  # noqa: PLC0415  # 0.25 s that most commands do not need

    if redis is None:
        return
    try:
        if settings.broker_url is None:
            yield metrics.QUEUE, (), queue_length(redis)
        refused: Any = redis.hgetall(MESSAGES_REFUSED)
        for reason, number in refused.items():
            yield metrics.REFUSED, (reason.decode(),), int(number)
        yield from _of_workers(redis, workers)
    except (RedisError, Unavailable):
        return


def _of_workers(redis: "Redis", workers: Sequence[WorkerRow]) -> Iterator[Found]:
    if not workers:
        return
    told: Any = redis.mget([VITALS + each.id for each in workers])
    for worker, words in zip(workers, told, strict=True):
        if words is not None:
            vitals = json.loads(words)
            yield metrics.LOOP_LAG, (name_of(worker),), vitals["loop_lag_s"]
            yield metrics.MEMORY, (name_of(worker),), vitals["memory_bytes"]
    ids = [each.id for each in workers]
    reports: Any = redis.hmget(KEY_STATES, ids)
    yield from _of_keys(
        {
            worker: json.loads(words)["keys"]
            for worker, words in zip(ids, reports, strict=True)
            if words is not None
        }
    )


def _of_keys(reports: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Found]:
    """As `promptmill keys` shows them, of the workers that live."""
    keys = merged((), reports, {})
    counted = Counter((key.account, key.state) for key in keys)
    for account in dict.fromkeys(key.account for key in keys):
        for standing in STANDINGS:
            yield metrics.KEYS, (account, standing), counted[account, standing]
    for key in keys:
        if key.expires_at is not None and key.source not in RENEWED:
            yield metrics.KEY_EXPIRES, (key.account, key.label), key.expires_at.timestamp()
