"""The metrics that Redis knows: what lies in the queue, how workers fare, how their keys stand, what was refused."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

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
"""How a key may stand (`promptmill.claude.keys`), the worst last."""

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
    for worker, words in zip(workers, _told(redis, VITALS, workers), strict=True):
        if words is not None:
            vitals = json.loads(words)
            yield metrics.LOOP_LAG, (name_of(worker),), vitals["loop_lag_s"]
            yield metrics.MEMORY, (name_of(worker),), vitals["memory_bytes"]
    yield from _of_keys(
        [json.loads(words) for words in _told(redis, KEY_STATES, workers) if words is not None]
    )


def _told(redis: "Redis", prefix: str, workers: Sequence[WorkerRow]) -> Sequence[bytes | None]:
    told: Any = redis.mget([prefix + each.id for each in workers])
    return list(told)


def _of_keys(reports: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[Found]:
    """Workers learn of a key one after the other, so the worst that is said of it holds."""
    keys: dict[tuple[str, str], str] = {}
    expiries: dict[tuple[str, str], str] = {}
    for each in (key for report in reports for key in report if key["standing"] in STANDINGS):
        place = (each["account"], each["label"])
        keys[place] = max(keys.get(place, STANDINGS[0]), each["standing"], key=STANDINGS.index)
        if each.get("expires_at") and each["kind"] not in RENEWED:
            expiries[place] = each["expires_at"]
    counted = Counter((account, standing) for (account, _), standing in keys.items())
    for account in dict.fromkeys(account for account, _ in keys):
        for standing in STANDINGS:
            yield metrics.KEYS, (account, standing), counted[account, standing]
    for place, expires_at in expiries.items():
        yield metrics.KEY_EXPIRES, place, datetime.fromisoformat(expires_at).timestamp()
