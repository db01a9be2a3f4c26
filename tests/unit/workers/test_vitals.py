"""How a worker fares is told while it lives, and gone soon after."""

import json

from redis import Redis

from promptmill.routes import VITALS
from workers.vitals import KEPT_S, Vitals, resident_memory


def test_what_is_told_is_read_as_it_was_told_and_does_not_stay(clean_redis: str) -> None:
    with Redis.from_url(clean_redis) as redis:
        Vitals(redis, "worker_1", lambda: 0.25).tell()

        told = json.loads(redis.get(VITALS + "worker_1") or b"")
        assert told["loop_lag_s"] == 0.25
        assert 0 < redis.ttl(VITALS + "worker_1") <= KEPT_S


def test_memory_is_told_in_bytes() -> None:
    assert 10_000_000 < resident_memory() < 10_000_000_000
